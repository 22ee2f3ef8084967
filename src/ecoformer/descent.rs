//! One head's part of the fit: its tokens' features, what is left of the similarity, and the descent of one bit.

use super::neighbours::Neighbours;
use crate::base::ctx::Ctx;
use crate::kernels::fit::{BLOCK, Block, LANES, combine, correlate, gather, half_tanh, slope, total};

/// Blocks of a chunk: sums over tokens are taken chunk by chunk, and added up in order, whoever computes them.
const CHUNK: usize = 16;

/// How a bit descends.
pub(super) struct Descent {
    pub iterations: usize,
    pub learning_rate: f32,
    pub momentum: f32,
}

/// Some tokens of a sequence.
struct Chunk {
    sequence: usize,
    /// The first of them.
    first: usize,
    tokens: usize,
    /// `[blocks][anchors]`, centred.
    kernel: Vec<Block>,
    /// `[blocks][bits]`: the bits that are learned, as 1 and -1, and 0 where there is no token.
    codes: Vec<Block>,
    /// `[blocks]`: the bit in question, hard or soft.
    y: Vec<Block>,
    /// `[blocks]`: what neighbours say of it, then the derivative.
    pull: Vec<Block>,
    /// `[blocks]`: what the bits before say of it.
    shared: Vec<Block>,
    /// Of the bits before with this one, then of the anchors with the derivative.
    sums: Vec<[f32; LANES]>,
}

/// What chunks of a sequence share.
struct Sequence {
    tokens: usize,
    neighbours: Neighbours,
    /// y, -y and 0.
    values: Vec<f32>,
    /// Of y with each bit before.
    products: Vec<f32>,
}

/// A head of all sequences.
#[derive(Default)]
pub(super) struct Head {
    anchors: usize,
    bits: usize,
    learned: usize,
    chunks: Vec<Chunk>,
    sequences: Vec<Sequence>,
}

impl Head {
    pub(super) fn new(anchors: usize, bits: usize) -> Self {
        Self { anchors, bits, learned: 0, chunks: Vec::new(), sequences: Vec::new() }
    }

    /// A sequence's features `[blocks][anchors]`, 0 behind its last token.
    pub(super) fn push(&mut self, tokens: usize, kernel: &[Block], neighbours: Neighbours) {
        for (i, kernel) in kernel.chunks(CHUNK * self.anchors).enumerate() {
            let blocks = kernel.len() / self.anchors;
            let first = i * CHUNK * BLOCK;
            let zeros = vec![[0.0; BLOCK]; blocks];
            self.chunks.push(Chunk {
                sequence: self.sequences.len(),
                first,
                tokens: (tokens - first).min(CHUNK * BLOCK),
                kernel: kernel.to_vec(),
                codes: vec![[0.0; BLOCK]; blocks * self.bits],
                y: zeros.clone(),
                pull: zeros.clone(),
                shared: zeros,
                sums: vec![[0.0; LANES]; self.anchors.max(self.bits)],
            });
        }
        let (values, products) = (vec![0.0; 2 * tokens + 1], vec![0.0; self.bits]);
        self.sequences.push(Sequence { tokens, neighbours, values, products });
    }

    /// `a` after the descent of `L(a) = mean of - yᵀ S y / (N bits)`, with `y = tanh(K a / 2)` and the mean over
    /// sequences and `heads` heads, by Nesterov's momentum as PyTorch's SGD has it.
    pub(super) fn descend(&mut self, a: &[f32], how: &Descent, heads: usize, ctx: &Ctx) -> Vec<f32> {
        let mut a = a.to_vec();
        let mut velocity = vec![0.0; a.len()];
        let mut gradient = vec![0.0; a.len()];
        for iteration in 0..how.iterations {
            self.gradient(&a, heads, &mut gradient, ctx);
            for ((a, v), g) in a.iter_mut().zip(&mut velocity).zip(&gradient) {
                *v = if iteration == 0 { *g } else { how.momentum * *v + g };
                *a -= how.learning_rate * (g + how.momentum * *v);
            }
        }
        a
    }

    fn gradient(&mut self, a: &[f32], heads: usize, gradient: &mut [f32], ctx: &Ctx) {
        let (bits, learned) = (self.bits, self.learned);
        ctx.for_each_item(&mut self.chunks, &|_, chunk| {
            chunk.project(a, ctx);
            half_tanh(&mut chunk.y, ctx);
            chunk.correlate_codes(bits, learned, ctx);
        });
        self.share();
        let batch = self.sequences.len();
        let sequences = &self.sequences;
        ctx.for_each_item(&mut self.chunks, &|_, chunk| {
            let sequence = &sequences[chunk.sequence];
            chunk.gather(sequence);
            combine(&chunk.codes, bits, &sequence.products, &mut chunk.shared, ctx);
            // - (S + Sᵀ) y / 2, in units of the loss.
            let unit = 1.0 / (sequence.tokens as f64 * bits as f64 * batch as f64 * heads as f64);
            let (near, shared) = ((-0.5 * bits as f64 * unit) as f32, unit as f32);
            slope(&mut chunk.pull, &chunk.shared, &chunk.y, near, shared, ctx);
            correlate(&chunk.kernel, a.len(), &chunk.pull, &mut chunk.sums[..a.len()], ctx);
        });
        gradient.fill(0.0);
        for chunk in &self.chunks {
            gradient.iter_mut().zip(&chunk.sums).for_each(|(g, sums)| *g += total(*sums));
        }
    }

    /// `yᵀ S y` of each sequence, with `y = 1 where K a > 0, else -1`: exact, as every sum is one of integers below
    /// 2^24.
    pub(super) fn similarity(&mut self, a: &[f32], ctx: &Ctx) -> Vec<i64> {
        let (bits, learned) = (self.bits, self.learned);
        ctx.for_each_item(&mut self.chunks, &|_, chunk| {
            chunk.project(a, ctx);
            chunk.harden();
            chunk.correlate_codes(bits, learned, ctx);
        });
        self.share();
        let sequences = &self.sequences;
        ctx.for_each_item(&mut self.chunks, &|_, chunk| chunk.gather(&sequences[chunk.sequence]));
        let mut twice = vec![0; sequences.len()];
        for chunk in &self.chunks {
            let products = chunk.pull.as_flattened().iter().zip(chunk.y.as_flattened()).map(|(s, y)| s * y);
            twice[chunk.sequence] += products.map(|p| p as i64).sum::<i64>();
        }
        let similarity = |(twice, sequence): (i64, &Sequence)| {
            let shared = sequence.products[..learned].iter().map(|&p| (p as i64).pow(2)).sum::<i64>();
            bits as i64 * (twice / 2) - shared
        };
        twice.into_iter().zip(sequences).map(similarity).collect()
    }

    /// Learns the hard bit of `a`: its part of the similarity is taken away.
    pub(super) fn learn(&mut self, a: &[f32], ctx: &Ctx) {
        let (bits, learned) = (self.bits, self.learned);
        ctx.for_each_item(&mut self.chunks, &|_, chunk| {
            chunk.project(a, ctx);
            chunk.harden();
            for (codes, y) in chunk.codes.chunks_exact_mut(bits).zip(&chunk.y) {
                codes[learned] = *y;
            }
        });
        self.learned += 1;
    }

    /// What each chunk has of y and of its products with the bits before goes to its sequence.
    fn share(&mut self) {
        self.sequences.iter_mut().for_each(|sequence| sequence.products.fill(0.0));
        for chunk in &self.chunks {
            let Sequence { tokens, values, products, .. } = &mut self.sequences[chunk.sequence];
            let (plus, minus) = values.split_at_mut(*tokens);
            let (plus, minus) = (&mut plus[chunk.first..], &mut minus[chunk.first..]);
            for ((plus, minus), y) in plus.iter_mut().zip(minus).zip(&chunk.y.as_flattened()[..chunk.tokens])
            {
                (*plus, *minus) = (*y, -y);
            }
            for (product, sums) in products.iter_mut().zip(&chunk.sums).take(self.learned) {
                *product += total(*sums);
            }
        }
    }
}

impl Chunk {
    fn project(&mut self, a: &[f32], ctx: &Ctx) {
        combine(&self.kernel, a.len(), a, &mut self.y, ctx);
    }

    fn harden(&mut self) {
        let (tokens, rest) = self.y.as_flattened_mut().split_at_mut(self.tokens);
        tokens.iter_mut().for_each(|y| *y = if *y > 0.0 { 1.0 } else { -1.0 });
        rest.fill(0.0);
    }

    fn correlate_codes(&mut self, bits: usize, learned: usize, ctx: &Ctx) {
        correlate(&self.codes, bits, &self.y, &mut self.sums[..learned], ctx);
    }

    fn gather(&mut self, sequence: &Sequence) {
        let Neighbours { starts, entries } = &sequence.neighbours;
        let starts = &starts[self.first..=self.first + self.tokens];
        gather(starts, entries, &sequence.values, self.pull.as_flattened_mut());
    }
}
