//! Learning the hash: kernel-based supervised hashing of the similarity that tokens have.

use super::BitCodes;
use super::descent::{Descent, Head};
use super::neighbours::Neighbours;
use super::random::Random;
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::exp::exp;
use crate::base::heads::HeadsRef;
use crate::base::parallel::Parallelism;
use crate::base::view::MatRef;
use crate::kernels::fit::{BLOCK, Block, distances};
use std::collections::BTreeMap;

/// The most tokens of a sequence to learn from: sums of as many bits are exact in f32.
pub const MAX_TOKENS: usize = 1 << 24;

/// The most numbers that a fit may keep.
const MAX_NUMBERS: u128 = 1 << 32;

/// How to [`fit`]. The defaults are the authors'.
///
/// ```
/// use siskin::ecoformer::FitOptions;
///
/// let options = FitOptions::default().bits(32).anchors(50).seed(7);
/// assert_eq!((options.bits, options.iterations), (32, 100));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FitOptions {
    /// Bits of a code, 1 to [`BitCodes::MAX_BITS`]: 16.
    pub bits: usize,
    /// Anchors of the kernel, at most the tokens of the first sequence: 25.
    pub anchors: usize,
    /// How many tokens, the most and the least similar, each token is to be told like and unlike: 10.
    pub neighbours: usize,
    /// Steps of the descent for each bit: 100.
    pub iterations: usize,
    /// Of the descent: 5e-4.
    pub learning_rate: f32,
    /// Of the descent, 0 to below 1: 0.9.
    pub momentum: f32,
    /// Of what is drawn: 0.
    pub seed: u64,
    /// The tokens of the first sequence that are anchors, for all heads; drawn if there are none.
    pub anchor_tokens: Option<Vec<usize>>,
    /// `[heads, bits, anchors]` to begin with, such as a fit before this one; normal numbers are drawn if there is
    /// none.
    pub projection: Option<Vec<f32>>,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            bits: 16,
            anchors: 25,
            neighbours: 10,
            iterations: 100,
            learning_rate: 5e-4,
            momentum: 0.9,
            seed: 0,
            anchor_tokens: None,
            projection: None,
        }
    }
}

macro_rules! setters {
    ($($name:ident: $t:ty),*) => {
        /// Each method sets the field of its name.
        impl FitOptions {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, $name: $t) -> Self {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}
setters! {
    bits: usize, anchors: usize, neighbours: usize, iterations: usize, learning_rate: f32, momentum: f32, seed: u64,
    anchor_tokens: Option<Vec<usize>>, projection: Option<Vec<f32>>
}

/// What [`fit`] learned, each tensor next to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// Heads.
    pub heads: usize,
    /// Anchors of a head.
    pub anchors_per_head: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Bits of a code.
    pub bits: usize,
    /// `[heads, anchors, head_dim]`, of unit length.
    pub anchors: Vec<f32>,
    /// `[heads, anchors]`: the mean of the kernel, to be taken away from it.
    pub centring: Vec<f32>,
    /// `[heads, bits, anchors]`.
    pub projection: Vec<f32>,
    /// `[heads]`: the bandwidth, in the mean over the sequences.
    pub sigma: Vec<f32>,
    /// `[bits]`: whether the descent's result was taken, for all heads.
    pub accepted: Vec<bool>,
    /// `[bits]`.
    pub losses: Vec<BitLoss>,
}

/// The loss of a bit, `- yᵀ S y / (N bits)` with y of 1 and -1, in the mean over sequences and heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BitLoss {
    /// Of the projection to begin with.
    pub before: f64,
    /// Of the descent's result.
    pub after: f64,
}

/// Learns a hash of heads from sequences, of `[tokens, heads, head_dim]` each: of what queries and keys share.
///
/// Tokens are normalized; anchors are tokens of the first sequence; the kernel is `exp(-|x - anchor|² / 2 sigma)`
/// less its mean, where sigma is the mean of `|x - anchor|²` over the tokens of a sequence and the anchors. S says 1
/// of each token and the `neighbours` tokens of its sequence that are nearest by cosine (itself included), -1 of it
/// and the `neighbours` farthest, else 0; of equals the first are taken. Bit by bit, `a` of `y = sign(kernel · a)`
/// descends from where it is by `- yᵀ (bits S - sum over bits before of y yᵀ) y` with tanh for the sign, in
/// `iterations` steps of SGD with Nesterov momentum; what comes of it is taken for all heads where the same loss of
/// the hard bits, of all heads and sequences together, is less, and refused otherwise (also if it is not finite).
/// This is the `KernelSH` of EcoFormer's code (`pvt/hashing/ksh.py`).
///
/// Nothing is made of N x N numbers. The result has the same bits on every tier and at any number of threads; hard
/// losses are exact. Heads are shared out among the threads, or where those are more, chunks of 512 tokens.
///
/// # Errors
/// [`Error::Shape`] if there is no sequence, if one has other heads or features than the first or no tokens, if the
/// first has less tokens than anchors, if one has less than `neighbours` or more than [`MAX_TOKENS`], if
/// `anchor_tokens` or `projection` have another length, or if more than 2^32 numbers were to be kept.
/// [`Error::Index`] if an anchor is no token of the first sequence. [`Error::Value`] if an option is outside its
/// range, if a number is NaN or infinite, if a token's head is all 0 (it has no direction), or if all tokens of a
/// sequence have the direction of all anchors (sigma is 0).
pub fn fit(sequences: &[HeadsRef<'_, f32>], options: &FitOptions, ctx: &Ctx) -> Result<Learned> {
    let shape = check(sequences, options)?;
    let Shape { heads, head_dim, anchors: m, bits, .. } = shape;
    let chosen = match &options.anchor_tokens {
        Some(tokens) => tokens.clone(),
        None => Random::new(options.seed, 0).choose(sequences[0].tokens(), m),
    };
    let projection = match &options.projection {
        Some(projection) => projection.clone(),
        None => {
            let mut random = Random::new(options.seed, 1);
            (0..heads * bits * m).map(|_| random.normal()).collect()
        }
    };
    // Where heads are too few for the threads, each head's work is shared out instead.
    let serial = ctx.clone().with_parallelism(Parallelism::Serial);
    let (across, within) = if heads >= ctx.threads() { (ctx, &serial) } else { (&serial, ctx) };

    let mut tasks: Vec<Option<Result<Prepared>>> = (0..heads).map(|_| None).collect();
    across.for_each_item(&mut tasks, &|head, task| {
        *task = Some(prepare(sequences, head, &chosen, &shape, within));
    });
    let prepared = tasks.into_iter().flatten().collect::<Result<Vec<_>>>()?;

    let mut learned = Learned {
        heads,
        anchors_per_head: m,
        head_dim,
        bits,
        anchors: prepared.iter().flat_map(|p| p.anchors.iter().copied()).collect(),
        centring: prepared.iter().flat_map(|p| p.centring.iter().copied()).collect(),
        projection,
        sigma: prepared.iter().map(|p| p.sigma).collect(),
        accepted: Vec::with_capacity(bits),
        losses: Vec::with_capacity(bits),
    };
    let lengths: Vec<usize> = sequences.iter().map(HeadsRef::tokens).collect();
    let mut candidates: Vec<Candidate> =
        prepared.into_iter().map(|p| Candidate { head: p.head, ..Candidate::default() }).collect();
    let how = Descent {
        iterations: options.iterations,
        learning_rate: options.learning_rate,
        momentum: options.momentum,
    };
    for bit in 0..bits {
        let at = |head: usize| (head * bits + bit) * m;
        let start = &learned.projection;
        across.for_each_item(&mut candidates, &|i, c| {
            let a = &start[at(i)..][..m];
            c.before = c.head.similarity(a, within);
            c.a = c.head.descend(a, &how, heads, within);
            c.after = c.head.similarity(&c.a, within);
        });
        let finite = candidates.iter().all(|c| c.a.iter().all(|a| a.is_finite()));
        let accepted = finite && gain(&candidates, &lengths) > 0.0;
        if accepted {
            for (i, c) in candidates.iter().enumerate() {
                learned.projection[at(i)..][..m].copy_from_slice(&c.a);
            }
        }
        let kept = &learned.projection;
        across.for_each_item(&mut candidates, &|i, c| c.head.learn(&kept[at(i)..][..m], within));
        learned.accepted.push(accepted);
        learned.losses.push(BitLoss {
            before: loss(&candidates, |c| &c.before, &lengths, bits),
            after: loss(&candidates, |c| &c.after, &lengths, bits),
        });
    }
    Ok(learned)
}

/// What all that follows may rely on.
struct Shape {
    heads: usize,
    head_dim: usize,
    anchors: usize,
    bits: usize,
    neighbours: usize,
}

fn check(sequences: &[HeadsRef<'_, f32>], options: &FitOptions) -> Result<Shape> {
    let &FitOptions { bits, anchors, neighbours, learning_rate, momentum, .. } = options;
    let Some(first) = sequences.first() else {
        return Err(Error::shape("sequences", "at least one", 0));
    };
    let (heads, head_dim) = (first.heads(), first.head_dim());
    if !(1..=BitCodes::MAX_BITS).contains(&bits) {
        return Err(Error::value("bits", format_args!("1 to {}", BitCodes::MAX_BITS), bits));
    }
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(Error::value("learning_rate", "a finite number above 0", learning_rate));
    }
    if !(0.0..1.0).contains(&momentum) {
        return Err(Error::value("momentum", "0 to below 1", momentum));
    }
    if anchors == 0 || anchors > first.tokens() {
        let tokens = first.tokens();
        let expected = format_args!("1 to {tokens}, the tokens of the first sequence");
        return Err(Error::shape("anchors", expected, anchors));
    }
    let mut numbers = 0_u128;
    for (i, x) in sequences.iter().enumerate() {
        let n = x.tokens();
        if (x.heads(), x.head_dim()) != (heads, head_dim) || heads == 0 || head_dim == 0 {
            let expected = match i {
                0 => "heads and features".to_string(),
                _ => format!("{heads} heads x {head_dim} as the first"),
            };
            let got = format_args!("{} x {} in sequence {i}", x.heads(), x.head_dim());
            return Err(Error::shape("sequences", expected, got));
        }
        if n == 0 || n > MAX_TOKENS {
            let got = format_args!("{n} in sequence {i}");
            return Err(Error::shape("sequences", format_args!("1 to {MAX_TOKENS} tokens"), got));
        }
        if neighbours == 0 || neighbours > n {
            let expected = format_args!("1 to {n}, the tokens of sequence {i}");
            return Err(Error::shape("neighbours", expected, neighbours));
        }
        let of_token = [head_dim, head_dim, anchors, bits, neighbours, neighbours, neighbours, 8];
        let of_token = of_token.iter().map(|&n| n as u128).sum::<u128>();
        numbers = numbers.saturating_add(of_token.saturating_mul(n as u128).saturating_mul(heads as u128));
    }
    if numbers > MAX_NUMBERS {
        return Err(Error::shape(
            "sequences",
            format_args!("what needs at most {MAX_NUMBERS} numbers"),
            numbers,
        ));
    }
    if let Some(tokens) = &options.anchor_tokens {
        if tokens.len() != anchors {
            return Err(Error::shape("anchor_tokens", format_args!("{anchors}, the anchors"), tokens.len()));
        }
        if let Some(i) = tokens.iter().position(|&token| token >= first.tokens()) {
            let end = first.tokens();
            let expected = format_args!("a token below {end}");
            return Err(Error::index("anchor_tokens", i, expected, tokens[i]));
        }
    }
    if let Some(projection) = &options.projection {
        if projection.len() != heads * bits * anchors {
            let expected = format_args!("{heads} heads x {bits} bits x {anchors} anchors");
            return Err(Error::shape("projection", expected, projection.len()));
        }
        if let Some(value) = projection.iter().find(|value| !value.is_finite()) {
            return Err(Error::value("projection", "finite numbers", value));
        }
    }
    Ok(Shape { heads, head_dim, anchors, bits, neighbours })
}

/// A head before its first bit.
struct Prepared {
    head: Head,
    anchors: Vec<f32>,
    centring: Vec<f32>,
    sigma: f32,
}

fn prepare(
    sequences: &[HeadsRef<'_, f32>],
    head: usize,
    chosen: &[usize],
    shape: &Shape,
    ctx: &Ctx,
) -> Result<Prepared> {
    let &Shape { head_dim, anchors: m, bits, neighbours, .. } = shape;
    let batch = sequences.len() as f64;
    let rows =
        sequences.iter().enumerate().map(|(i, x)| unit_rows(x, i, head)).collect::<Result<Vec<_>>>()?;
    let anchors: Vec<f32> =
        chosen.iter().flat_map(|&token| &rows[0][token * head_dim..][..head_dim]).copied().collect();

    let mut kernels = Vec::with_capacity(rows.len());
    let mut mean = vec![0.0; m];
    let mut mean_sigma = 0.0;
    for (i, rows) in rows.iter().enumerate() {
        let tokens = rows.len() / head_dim;
        let mut kernel = vec![[0.0; BLOCK]; tokens.div_ceil(BLOCK) * m];
        distances(&blocks(rows, head_dim), &anchors, head_dim, &mut kernel, ctx);
        let sigma = sum_of_columns(&kernel, m, tokens).iter().sum::<f64>() / (tokens * m) as f64;
        if sigma == 0.0 {
            let got = format_args!("one direction in head {head} of sequence {i}");
            return Err(Error::value("sequences", "tokens of more than one direction", got));
        }
        for distance in kernel.as_flattened_mut() {
            *distance = exp(f64::from(*distance) / (-2.0 * sigma)) as f32;
        }
        for (mean, sum) in mean.iter_mut().zip(sum_of_columns(&kernel, m, tokens)) {
            *mean += sum / tokens as f64 / batch;
        }
        mean_sigma += sigma / batch;
        kernels.push(kernel);
    }

    let centring: Vec<f32> = mean.iter().map(|&v| v as f32).collect();
    let mut result = Head::new(m, bits);
    for (rows, mut kernel) in rows.iter().zip(kernels) {
        let tokens = rows.len() / head_dim;
        for (b, columns) in kernel.chunks_exact_mut(m).enumerate() {
            let live = (tokens - b * BLOCK).min(BLOCK);
            for (column, mean) in columns.iter_mut().zip(&centring) {
                column[..live].iter_mut().for_each(|k| *k -= mean);
                column[live..].fill(0.0);
            }
        }
        let near = Neighbours::find(MatRef::new(rows, tokens, head_dim)?, neighbours, ctx)?;
        result.push(tokens, &kernel, near);
    }
    Ok(Prepared { head: result, anchors, centring, sigma: mean_sigma as f32 })
}

/// One head of a sequence, `[tokens, head_dim]`, each row of unit length.
fn unit_rows(x: &HeadsRef<'_, f32>, sequence: usize, head: usize) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(x.tokens() * x.head_dim());
    for token in 0..x.tokens() {
        let row = x.head(token, head);
        // In f64 nothing overflows.
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let refuse = |expected: &str, got: &str| {
            let place = format!("{got} at token {token}, head {head} of sequence {sequence}");
            Err(Error::value("sequences", expected, place))
        };
        if norm == 0.0 {
            return refuse("tokens with a direction", "only zeros");
        }
        if !norm.is_finite() {
            return refuse("finite numbers", "NaN or infinity");
        }
        rows.extend(row.iter().map(|&v| (f64::from(v) / norm) as f32));
    }
    Ok(rows)
}

/// Rows to blocks of tokens, `[blocks][dim]`, 0 behind the last.
fn blocks(rows: &[f32], dim: usize) -> Vec<Block> {
    let mut blocks = vec![[0.0; BLOCK]; (rows.len() / dim).div_ceil(BLOCK) * dim];
    for (rows, block) in rows.chunks(BLOCK * dim).zip(blocks.chunks_exact_mut(dim)) {
        for (l, row) in rows.chunks_exact(dim).enumerate() {
            block.iter_mut().zip(row).for_each(|(to, v)| to[l] = *v);
        }
    }
    blocks
}

/// Of each column the sum over tokens, in their order.
fn sum_of_columns(blocks: &[Block], columns: usize, tokens: usize) -> Vec<f64> {
    let mut sums = vec![0.0; columns];
    for (b, block) in blocks.chunks_exact(columns).enumerate() {
        let live = (tokens - b * BLOCK).min(BLOCK);
        for (sum, column) in sums.iter_mut().zip(block) {
            column[..live].iter().for_each(|&v| *sum += f64::from(v));
        }
    }
    sums
}

/// A head and what a bit could become.
#[derive(Default)]
struct Candidate {
    head: Head,
    a: Vec<f32>,
    /// `yᵀ S y` of each sequence.
    before: Vec<i64>,
    after: Vec<i64>,
}

/// How much of the loss the candidates take away, but for a factor. Sequences of one length are added up as integers,
/// so that nothing gained is 0.
fn gain(candidates: &[Candidate], lengths: &[usize]) -> f64 {
    let mut by_length = BTreeMap::new();
    for c in candidates {
        for ((&n, before), after) in lengths.iter().zip(&c.before).zip(&c.after) {
            *by_length.entry(n).or_insert(0) += i128::from(after - before);
        }
    }
    by_length.into_iter().map(|(n, gain)| gain as f64 / n as f64).sum()
}

fn loss(
    candidates: &[Candidate],
    similarity: fn(&Candidate) -> &Vec<i64>,
    lengths: &[usize],
    bits: usize,
) -> f64 {
    let of_head = |c: &Candidate| -> f64 {
        similarity(c).iter().zip(lengths).map(|(&s, &n)| -s as f64 / (n * bits) as f64).sum()
    };
    candidates.iter().map(of_head).sum::<f64>() / (candidates.len() * lengths.len()) as f64
}
