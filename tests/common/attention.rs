//! A call of attention made from a seed.
#![allow(dead_code, reason = "each test uses its own part")]

#[path = "attention_reference.rs"]
mod reference;
#[path = "attention_tensors.rs"]
mod tensors;

pub use tensors::*;

use crate::common::Rng;
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{Ctx, MatRef, Scratch, TensorMut, TensorRef, bf16, f16};
#[derive(Debug, Clone)]
pub struct Case {
    pub seed: u64,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Queries and keys of each sequence.
    pub lengths: Vec<(usize, usize)>,
    /// By cumulative lengths.
    pub packed: bool,
    pub key_lengths: Option<Vec<usize>>,
    pub positions: Option<Vec<usize>>,
    pub causal: bool,
    pub window: Option<(usize, usize)>,
    /// `[batch, heads, queries, keys]`.
    pub bias: Option<[usize; 4]>,
    /// Queries and keys of a block.
    pub blocks: Option<(usize, usize)>,
    pub gates: bool,
    pub clipped: Option<(f32, f32)>,
    pub uniform: bool,
    pub scale: Option<f32>,
    /// Of q, k, v and the context.
    pub types: [Type; 4],
    pub places: [Place; 4],
    /// How far scores are apart.
    pub peak: f32,
    /// Whether bytes of q, k and v have a scale for each token.
    pub per_token: [bool; 3],
}

#[derive(Debug, Clone)]
pub struct Data {
    pub case: Case,
    /// `[tokens, heads, head_dim]`; bytes as what they are, before parameters.
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub bias: Vec<f32>,
    pub live: Vec<bool>,
    pub gates: Vec<f32>,
    pub params: [Params; 3],
    pub int8: AttentionQuantizers,
    pub out: QuantParams,
}

const LENGTHS: [usize; 11] = [1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 600];

fn length(r: &mut Rng) -> usize {
    match r.below(8) {
        0..3 => LENGTHS[r.below(LENGTHS.len())],
        3 => r.below(601),
        4 => r.below(3),
        _ => r.below(70) + 1,
    }
}

fn some<T>(r: &mut Rng, one_in: usize, f: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (r.below(one_in) == 0).then(|| f(r))
}

impl Case {
    /// One sequence, next to each other, nothing masked.
    pub fn plain(seed: u64, heads: usize, head_dim: usize, q_len: usize, kv_len: usize) -> Self {
        Case {
            seed,
            heads,
            kv_heads: heads,
            head_dim,
            lengths: vec![(q_len, kv_len)],
            packed: false,
            key_lengths: None,
            positions: None,
            causal: false,
            window: None,
            bias: None,
            blocks: None,
            gates: false,
            clipped: None,
            uniform: false,
            scale: None,
            types: [Type::F32; 4],
            places: [Place::default(); 4],
            peak: 2.0,
            per_token: [false; 3],
        }
    }

    /// Anything that the library takes, of floats; see [`Case::bytes`].
    pub fn random(r: &mut Rng) -> Self {
        let kv_heads = [1, 1, 2, 3][r.below(4)];
        let heads = kv_heads * [1, 1, 2, 3, 5][r.below(5)];
        let head_dim = match r.below(3) {
            0 => [32, 64, 80, 96, 128][r.below(5)],
            1 => [1, 3, 7, 17, 33, 47, 63, 65, 79, 129, 255, 256][r.below(12)],
            _ => r.below(100) + 1,
        };
        let packed = r.below(2) == 0;
        let n = [1, 1, 2, 3, 5][r.below(5)];
        let mut lengths: Vec<(usize, usize)> = (0..n).map(|_| (length(r), length(r))).collect();
        for l in &mut lengths {
            match r.below(4) {
                0 => l.0 = l.1,
                1 => l.0 = 1,
                _ => {}
            }
        }
        if !packed {
            let first = lengths[0];
            lengths.fill(first);
        }
        let causal = r.below(2) == 0;
        let window = some(r, 4, |r| {
            [(r.below(100), r.below(100)), (usize::MAX, 0), (0, usize::MAX), (700, 3)][r.below(4)]
        });
        // Work that the scalar tier does in some milliseconds.
        while lengths.iter().map(|l| l.0 * l.1 * heads * head_dim).sum::<usize>() > 3_000_000 {
            let most = lengths.iter().map(|l| l.0).max().unwrap();
            for l in &mut lengths {
                l.0 = l.0.min(most.div_ceil(2));
            }
            if most == 1 {
                lengths.truncate(lengths.len().div_ceil(2));
            }
        }
        let n = lengths.len();
        let (q_most, kv_most) = most(&lengths);
        let row = heads * head_dim;
        Case {
            seed: r.next(),
            heads,
            kv_heads,
            head_dim,
            packed,
            key_lengths: some(r, 3, |r| lengths.iter().map(|l| r.below(l.1 + 1)).collect()),
            positions: some(r, 4, |r| (0..n).map(|_| r.below(kv_most + 30)).collect()),
            causal,
            window,
            bias: some(r, 4, |r| {
                let or_one = |r: &mut Rng, n: usize, more: usize| if r.below(2) == 0 { 1 } else { n + more };
                let more = r.below(3);
                [or_one(r, n, more), or_one(r, heads, 0), or_one(r, q_most, more), kv_most + more * 5]
            }),
            blocks: some(r, 5, |r| {
                let size = |r: &mut Rng| [1, 7, 16, 32, 64, 100, 512][r.below(7)];
                (size(r), size(r))
            }),
            gates: r.below(4) == 0,
            clipped: [
                None,
                Some((-0.03, 1.0)),
                Some((-0.1, 1.1)),
                Some((0.0, 1.003)),
                Some((-12.0 / 512.0, 1.0)),
                Some((-3e-4, 1.0)),
            ][r.below(6)],
            uniform: r.below(3) == 0,
            scale: some(r, 4, |r| r.float(0.1, 1.2) / (head_dim as f32).sqrt()),
            types: [Type::F32; 4],
            places: [(); 4].map(|()| Place::random(r, row)),
            lengths,
            peak: [0.5, 2.0, 2.0, 5.0, 10.0][r.below(5)],
            per_token: [false; 3],
        }
    }

    /// A case of bytes.
    pub fn bytes(mut self, r: &mut Rng) -> Self {
        let mut byte = || [Type::U8, Type::I8][r.below(2)];
        self.types = [byte(), byte(), byte(), Type::F32];
        self.per_token = [(); 3].map(|()| r.below(4) == 0);
        self
    }

    pub fn q_tokens(&self) -> usize {
        self.lengths.iter().map(|l| l.0).sum()
    }
    pub fn kv_tokens(&self) -> usize {
        self.lengths.iter().map(|l| l.1).sum()
    }

    /// Where the first query of a sequence is.
    pub fn position(&self, b: usize) -> i128 {
        match &self.positions {
            Some(positions) => positions[b] as i128,
            None => self.lengths[b].1 as i128 - self.lengths[b].0 as i128,
        }
    }

    pub fn softmax(&self) -> Softmax {
        match self.clipped {
            None => Softmax::Standard,
            Some((gamma, zeta)) => Clipped::new(gamma, zeta).unwrap().into(),
        }
    }

    pub fn attention(&self) -> Attention {
        let mut a = Attention::new(self.heads, self.kv_heads, self.head_dim).unwrap().softmax(self.softmax());
        if let Some(scale) = self.scale {
            a = a.scale(scale).unwrap();
        }
        if self.causal {
            a = a.causal();
        }
        if let Some((left, right)) = self.window {
            a = a.window(left, right);
        }
        a.empty_rows(if self.uniform { EmptyRow::Uniform } else { EmptyRow::Zeros })
    }

    pub fn data(self) -> Data {
        let mut r = Rng::new(self.seed);
        let (d, peak) = (self.head_dim, self.peak.sqrt());
        let (q_tokens, kv_tokens) = (self.q_tokens(), self.kv_tokens());
        let mut fill = |n: usize, t: Type, most: f32| -> Vec<f32> {
            (0..n)
                .map(|_| match t {
                    Type::U8 => f32::from(r.byte()),
                    Type::I8 => f32::from(r.byte() as i8),
                    float => float.round(r.float(-most, most)),
                })
                .collect()
        };
        let q = fill(q_tokens * self.heads * d, self.types[0], 1.7 * peak);
        let k = fill(kv_tokens * self.kv_heads * d, self.types[1], 1.7 * peak);
        let v = fill(kv_tokens * self.kv_heads * d, self.types[2], 1.0);
        let bias = (0..self.bias.map_or(0, |dims| dims.iter().product()))
            .map(|_| match r.below(12) {
                0 => f32::NEG_INFINITY,
                1 => f32::MIN,
                _ => r.float(-2.0, 2.0),
            })
            .collect();
        let (rows, cols) = self.grid();
        let live = (0..rows * cols).map(|_| r.below(3) > 0).collect();
        let gates =
            (0..q_tokens * self.heads * usize::from(self.gates)).map(|_| r.float(-0.2, 1.0)).collect();
        let heads = [self.heads, self.kv_heads, self.kv_heads];
        let params = [0, 1, 2].map(|i| {
            let step = if i == 2 { 1.0 / 128.0 } else { peak / 74.0 };
            if self.types[i].is_bytes() && self.per_token[i] {
                let (tokens, zero) = ([q_tokens, kv_tokens, kv_tokens][i], 100 + r.below(56) as u8);
                let mut scale = || step * r.float(0.7, 1.3) * [1.0, 1.0, 0.1, 1.9][r.below(4)];
                return Params::Tokens((0..tokens).map(|_| self.types[i].params(scale(), zero)).collect());
            }
            let n = if r.below(2) == 0 { 1 } else { heads[i] };
            // Zero points about the middle, so that scores are not all alike.
            let mut one = || self.types[i].params(step * r.float(0.7, 1.3), 100 + r.below(56) as u8);
            Params::Heads((0..n).map(|_| one()).collect())
        });
        let steps = [None, Some(1.0 / 255.0), None, Some(0.5 / 255.0), None, Some(0.02 / 255.0)][r.below(6)];
        let of_all = !matches!(params[2], Params::Tokens(_));
        let int8 = AttentionQuantizers::default()
            .scores(some(&mut r, 2, |r| Type::U8.params(self.peak * r.float(0.02, 0.05), 128)))
            .weights_scale(steps.filter(|_| of_all))
            .context(some(&mut r, 3, |r| Type::I8.params(r.float(0.002, 0.01), 128)));
        let out = Type::params(self.types[3], r.float(0.001, 0.01), r.byte());
        Data { case: self, q, k, v, bias, live, gates, params, int8, out }
    }

    /// Rows and columns of blocks.
    fn grid(&self) -> (usize, usize) {
        let (q, kv) = most(&self.lengths);
        self.blocks.map_or((0, 0), |(bq, bk)| (q.div_ceil(bq), kv.div_ceil(bk)))
    }
}

fn most(lengths: &[(usize, usize)]) -> (usize, usize) {
    lengths.iter().fold((0, 0), |m, l| (m.0.max(l.0), m.1.max(l.1)))
}

/// 0 and the sums so far.
pub fn cumulative(lengths: impl Iterator<Item = usize>) -> Vec<i32> {
    let sums = lengths.scan(0, |sum, n| {
        *sum += n as i32;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

/// What a call gave: the context's bits and how much it skipped.
pub type Got = (Vec<u32>, AttentionStats);

impl Data {
    pub fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Got {
        self.run_poisoned(ctx, scratch, f32::NAN)
    }

    /// What lies between rows is poison: nothing of it may change.
    pub fn run_poisoned(&self, ctx: &Ctx, scratch: &mut Scratch, poison: f32) -> Got {
        let Case { heads, kv_heads, head_dim: d, types, places, .. } = self.case;
        let (q_shape, kv_shape) = ((self.case.q_tokens(), heads, d), (self.case.kv_tokens(), kv_heads, d));
        let q = Tensor::new(types[0], &self.q, q_shape, places[0], poison);
        let k = Tensor::new(types[1], &self.k, kv_shape, places[1], poison);
        let v = Tensor::new(types[2], &self.v, kv_shape, places[2], poison);
        let unwritten = vec![77.0; self.q.len()];
        let mut out = Tensor::new(types[3], &unwritten, q_shape, places[3], poison);
        let before = out.bits().1;
        let skipped = self.forward(
            q.input(&self.params[0]),
            k.input(&self.params[1]),
            v.input(&self.params[2]),
            out.output(self.out),
            ctx,
            scratch,
        );
        let (bits, after) = out.bits();
        assert_eq!(before, after, "between rows of the context: {:?}", self.case);
        (bits, skipped)
    }

    /// Any tensors by this call.
    pub fn forward(
        &self,
        q: TensorRef<'_>,
        k: TensorRef<'_>,
        v: TensorRef<'_>,
        out: TensorMut<'_>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> AttentionStats {
        self.with_call(|attention, call| {
            attention.forward(AttentionInputs::new(q, k, v), call, out, ctx, scratch)
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", self.case))
    }

    /// What the library takes for this call.
    pub fn with_call<R>(&self, f: impl FnOnce(&Attention, &AttentionCall<'_>) -> R) -> R {
        let case = &self.case;
        let cu = (cumulative(case.lengths.iter().map(|l| l.0)), cumulative(case.lengths.iter().map(|l| l.1)));
        let sequences = match case.packed {
            true => Sequences::Packed { q: &cu.0, kv: &cu.1 },
            false => {
                let (q_len, kv_len) = case.lengths[0];
                Sequences::Batch { batch: case.lengths.len(), q_len, kv_len }
            }
        };
        let mut call = AttentionCall::new(sequences).quantizers(self.int8);
        if let Some(lengths) = &case.key_lengths {
            call = call.key_lengths(lengths);
        }
        if let Some(positions) = &case.positions {
            call = call.positions(positions);
        }
        if let Some([b, h, i, j]) = case.bias {
            call = call.bias(Bias::new(&self.bias, b, h, i, j).unwrap());
        }
        if let Some((bq, bk)) = case.blocks {
            let (rows, cols) = case.grid();
            call = call.block_mask(BlockMask::new(&self.live, rows, cols, bq, bk).unwrap());
        }
        if case.gates {
            call = call.gates(MatRef::new(&self.gates, case.q_tokens(), case.heads).unwrap());
        }
        f(&case.attention(), &call)
    }

    /// This call with its context in f32.
    pub fn to_f32(&self) -> Self {
        let mut d = self.clone();
        d.case.types[3] = Type::F32;
        d
    }

    /// A context in f32 as the bits that this call's type has for it.
    pub fn rounded(&self, context: &[f32]) -> Vec<u32> {
        let round = |&v: &f32| match self.case.types[3] {
            Type::F32 => v.to_bits(),
            Type::Bf16 => u32::from(bf16::from_f32(v).to_bits()),
            Type::F16 => u32::from(f16::from_f32(v).to_bits()),
            Type::U8 | Type::I8 => u32::from(self.out.quantize(v) as u8),
        };
        context.iter().map(round).collect()
    }

    /// This call of floats with q, k and v widened to f32.
    pub fn widened(&self) -> Self {
        let mut d = self.clone();
        d.case.types[..3].fill(Type::F32);
        d
    }

    /// Sequence b by itself.
    pub fn alone(&self, b: usize) -> Self {
        let mut d = self.clone();
        let case = &self.case;
        let first = |f: fn(&(usize, usize)) -> usize| case.lengths[..b].iter().map(f).sum::<usize>();
        let (q, kv) = (first(|l| l.0), first(|l| l.1));
        let (q_len, kv_len) = case.lengths[b];
        let (q_row, kv_row) = (case.heads * case.head_dim, case.kv_heads * case.head_dim);
        d.q = self.q[q * q_row..(q + q_len) * q_row].to_vec();
        d.k = self.k[kv * kv_row..(kv + kv_len) * kv_row].to_vec();
        d.v = self.v[kv * kv_row..(kv + kv_len) * kv_row].to_vec();
        if case.gates {
            d.gates = self.gates[q * case.heads..(q + q_len) * case.heads].to_vec();
        }
        d.params[0] = self.params[0].of_tokens(q..q + q_len);
        for i in [1, 2] {
            d.params[i] = self.params[i].of_tokens(kv..kv + kv_len);
        }
        d.case.lengths = vec![case.lengths[b]];
        d.case.packed = false;
        d.case.key_lengths = case.key_lengths.as_ref().map(|l| vec![l[b]]);
        d.case.positions = case.positions.as_ref().map(|l| vec![l[b]]);
        if let Some([batch, h, i, j]) = case.bias {
            let b = if batch == 1 { 0 } else { b };
            d.bias = self.bias[b * h * i * j..(b + 1) * h * i * j].to_vec();
            d.case.bias = Some([1, h, i, j]);
        }
        if case.blocks.is_some() {
            let ((rows, cols), old) = (d.case.grid(), case.grid().1);
            d.live = (0..rows * cols).map(|i| self.live[i / cols * old + i % cols]).collect();
        }
        d
    }

    /// Head h by itself.
    pub fn head(&self, h: usize) -> Self {
        let mut d = self.clone();
        let (heads, kv_heads, width) = (self.case.heads, self.case.kv_heads, self.case.head_dim);
        let kv = h / (heads / kv_heads);
        let pick = |x: &[f32], heads: usize, h: usize, width: usize| -> Vec<f32> {
            x.chunks_exact((heads * width).max(1))
                .flat_map(|row| row[h * width..][..width].to_vec())
                .collect()
        };
        d.q = pick(&self.q, heads, h, width);
        (d.k, d.v) = (pick(&self.k, kv_heads, kv, width), pick(&self.v, kv_heads, kv, width));
        if self.case.gates {
            d.gates = pick(&self.gates, heads, h, 1);
        }
        if let Some([b, bias_heads, i, j]) = self.case.bias.filter(|dims| dims[1] > 1) {
            d.bias = pick(&self.bias, bias_heads, h, i * j);
            d.case.bias = Some([b, 1, i, j]);
        }
        for (params, head) in d.params.iter_mut().zip([h, kv, kv]) {
            if let Params::Heads(_) = params {
                *params = Params::Heads(vec![params.of(0, head)]);
            }
        }
        (d.case.heads, d.case.kv_heads) = (1, 1);
        d
    }

    /// Query i of the only sequence by itself; it must have a position.
    pub fn query(&self, i: usize) -> Self {
        let mut d = self.clone();
        let row = self.case.heads * self.case.head_dim;
        d.q = self.q[i * row..][..row].to_vec();
        d.params[0] = self.params[0].of_tokens(i..i + 1);
        if self.case.gates {
            d.gates = self.gates[i * self.case.heads..][..self.case.heads].to_vec();
        }
        if let Some([_, heads, queries, keys]) = self.case.bias.filter(|dims| dims[2] > 1) {
            d.bias =
                (0..heads).flat_map(|h| self.bias[(h * queries + i) * keys..][..keys].to_vec()).collect();
            d.case.bias = Some([1, heads, 1, keys]);
        }
        if let Some((bq, bk)) = self.case.blocks {
            let cols = self.case.grid().1;
            d.live = self.live[i / bq * cols..][..cols].to_vec();
            d.case.blocks = Some((1, bk));
        }
        d.case.lengths = vec![(1, self.case.lengths[0].1)];
        d.case.positions = Some(vec![(self.case.position(0) + i as i128).try_into().unwrap()]);
        d
    }

    /// Sequences one after the other with room for equally many queries and keys; what fills them is not finite. Only for
    /// queries that have a position, and without blocks.
    pub fn padded(&self, q_len: usize, kv_len: usize) -> Self {
        let mut d = self.clone();
        let case = &self.case;
        assert!(case.blocks.is_none() && !case.uniform);
        let pad = |values: &[f32], row: usize, to: usize, lengths: &[usize], fill: f32| {
            let (mut from, mut all) = (0, Vec::new());
            for n in lengths {
                all.extend_from_slice(&values[from * row..(from + n) * row]);
                all.resize(all.len() + (to - n) * row, fill);
                from += n;
            }
            all
        };
        let (ql, kl): (Vec<_>, Vec<_>) = case.lengths.iter().copied().unzip();
        let (q_row, kv_row) = (case.heads * case.head_dim, case.kv_heads * case.head_dim);
        d.q = pad(&self.q, q_row, q_len, &ql, f32::NAN);
        d.k = pad(&self.k, kv_row, kv_len, &kl, f32::NAN);
        d.v = pad(&self.v, kv_row, kv_len, &kl, f32::INFINITY);
        let to = [(q_len, &ql, false), (kv_len, &kl, false), (kv_len, &kl, true)];
        for ((params, (to, lengths, to_v)), t) in d.params.iter_mut().zip(to).zip(case.types) {
            if let Params::Tokens(all) = params {
                // A scale that would show.
                let zero = all.first().map_or(t.params(1.0, 0), |p| *p).zero_point();
                let large = if to_v { 1e37 } else { 3e9 };
                let filled = QuantParams::new(large, zero, t.params(1.0, 0).dtype()).unwrap();
                let (mut from, mut more) = (0, Vec::new());
                for n in lengths {
                    more.extend_from_slice(&all[from..from + n]);
                    more.extend(vec![filled; to - n]);
                    from += n;
                }
                *all = more;
            }
        }
        if case.gates {
            d.gates = pad(&self.gates, case.heads, q_len, &ql, f32::NAN);
        }
        d.case.lengths.fill((q_len, kv_len));
        d.case.packed = false;
        d.case.key_lengths = Some(case.key_lengths.clone().unwrap_or(kl));
        d.case.positions = Some((0..ql.len()).map(|b| case.position(b).max(0) as usize).collect());
        if let Some([b, h, i, j]) = case.bias {
            let (queries, keys) = (if i == 1 { 1 } else { i.max(q_len) }, j.max(kv_len));
            d.case.bias = Some([b, h, queries, keys]);
            d.bias = vec![f32::NAN; b * h * queries * keys];
            for row in 0..b * h * i {
                let to = (row / i * queries + row % i) * keys;
                d.bias[to..to + j].copy_from_slice(&self.bias[row * j..(row + 1) * j]);
            }
        }
        d
    }
}

pub struct Reference {
    /// `[tokens, heads, head_dim]`.
    pub context: Vec<f64>,
    /// Pairs that meet, and the least and most of them whose weight is 0.
    pub pairs: u64,
    pub zeros: (u64, u64),
}

pub fn real(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&b| f32::from_bits(b)).collect()
}

/// Whether both are the same bits, or both NaN: its payload is free.
pub fn same(a: &[u32], b: &[u32]) -> bool {
    let nan = |v: u32| f32::from_bits(v).is_nan();
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == b || nan(a) && nan(b))
}

/// The largest distance, as a part of the tolerance of `1e-5 * max |reference|`.
pub fn distance(got: &[u32], want: &[f64], v: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(0f64, |m, w| m.max(w.abs()));
    let v = v.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    // Where everything is clipped the reference may be 0, and a weight next to the clip is not.
    let tolerance = 1e-5 * most + 2e-7 * v;
    let far = |(&got, &want): (&u32, &f64)| {
        let distance = (f64::from(f32::from_bits(got)) - want).abs();
        if distance.is_nan() {
            f64::INFINITY
        } else if distance == 0.0 {
            0.0
        } else {
            distance / tolerance
        }
    };
    got.iter().zip(want).map(far).fold(0.0, f64::max)
}
