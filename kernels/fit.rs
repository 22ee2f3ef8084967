//! The loops of learning a hash: sums over blocks of tokens, left to the compiler to vectorize.
//!
//! ```text
//! distances:  to[b][i]  = sum over k:       (x[b][k] - points[i][k])^2
//! combine:    to[b]     = sum over i:       weights[i] * columns[b][i]
//! correlate:  sums[i]   = sum over tokens:  columns[i] * y
//! half_tanh:  z         = tanh(z / 2)
//! slope:      pull      = (1 - y^2) * (a * pull + b * shared)
//! gather:     to[n]     = sum over e in starts[n] .. starts[n + 1]:  values[e]
//! ```
//!
//! Columns are `[blocks][columns][BLOCK]`: all columns of a block of 32 tokens are adjacent, and each lane is a
//! token. No product is fused with its sum, and no order of a sum depends on the tier, so the bits are the same on
//! all.

use crate::base::ctx::Ctx;

/// Tokens of a block.
pub const BLOCK: usize = 32;

/// Lanes of a sum over tokens, the same number on every tier.
pub const LANES: usize = 16;

/// A number for each token of a block.
pub type Block = [f32; BLOCK];

/// Neighbours of a token are added up four at a time.
pub const GATHERED: usize = 4;

/// `to[b][i] = sum over k of (x[b][k] - points[i][k])^2`, in the order of k.
pub fn distances(x: &[Block], points: &[f32], dim: usize, to: &mut [Block], ctx: &Ctx) {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { distances_tier::pick(ctx.isa())(x, points, dim, to) }
}

/// `to[b] = sum over i of weights[i] * columns[b][i]`, in the order of i. A block has `count` columns, of which the
/// first `weights.len()` are used.
pub fn combine(columns: &[Block], count: usize, weights: &[f32], to: &mut [Block], ctx: &Ctx) {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { combine_tier::pick(ctx.isa())(columns, count, weights, to) }
}

/// `sums[i] = sum over tokens of columns[..][i] * y`, in [`LANES`] lanes. A block has `count` columns, of which the
/// first `sums.len()` are used.
pub fn correlate(columns: &[Block], count: usize, y: &[Block], sums: &mut [[f32; LANES]], ctx: &Ctx) {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { correlate_tier::pick(ctx.isa())(columns, count, y, sums) }
}

/// `z = tanh(z / 2)`, to within 2e-7.
pub fn half_tanh(z: &mut [Block], ctx: &Ctx) {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { half_tanh_tier::pick(ctx.isa())(z) }
}

/// `pull = (1 - y^2) * (a * pull + b * shared)`: up to a factor, the derivative with respect to z, where y = tanh(z /
/// 2).
pub fn slope(pull: &mut [Block], shared: &[Block], y: &[Block], a: f32, b: f32, ctx: &Ctx) {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { slope_tier::pick(ctx.isa())(pull, shared, y, a, b) }
}

/// `to[n] = sum of values[e]` over the entries e of `starts[n] .. starts[n + 1]`, which are whole groups of
/// [`GATHERED`].
pub fn gather(starts: &[usize], entries: &[[u32; GATHERED]], values: &[f32], to: &mut [f32]) {
    for (ends, to) in starts.windows(2).zip(to) {
        let mut sums = [0.0; GATHERED];
        for group in &entries[ends[0]..ends[1]] {
            for i in 0..GATHERED {
                sums[i] += values[group[i] as usize];
            }
        }
        *to = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

/// The index of the first whole block of `row`, from block `from` on, that has a number above `high` or below `low`;
/// the number of whole blocks if there is none.
pub fn next_beyond(row: &[f32], from: usize, high: f32, low: f32, ctx: &Ctx) -> usize {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { beyond_tier::pick(ctx.isa())(row, from, high, low) }
}

/// The sum of the lanes, added in a fixed tree.
pub fn total(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

autovec!(fn distances_tier(x: &[Block], points: &[f32], dim: usize, to: &mut [Block]) = distances_body);
autovec!(fn combine_tier(c: &[Block], count: usize, weights: &[f32], to: &mut [Block]) = combine_body);
autovec!(
    fn correlate_tier(c: &[Block], count: usize, y: &[Block], sums: &mut [[f32; LANES]]) = correlate_body
);
autovec!(fn half_tanh_tier(z: &mut [Block]) = half_tanh_body);
autovec!(fn slope_tier(pull: &mut [Block], shared: &[Block], y: &[Block], a: f32, b: f32) = slope_body);
autovec!(fn beyond_tier(row: &[f32], from: usize, high: f32, low: f32) -> usize = beyond_body);

#[inline(always)]
fn distances_body(x: &[Block], points: &[f32], dim: usize, to: &mut [Block]) {
    let points = points.chunks_exact(dim);
    for (x, to) in x.chunks_exact(dim).zip(to.chunks_exact_mut(points.len())) {
        for (point, to) in points.clone().zip(to) {
            let mut sums = [0.0; BLOCK];
            for (x, p) in x.iter().zip(point) {
                for l in 0..BLOCK {
                    let d = x[l] - p;
                    sums[l] += d * d;
                }
            }
            *to = sums;
        }
    }
}

#[inline(always)]
fn combine_body(columns: &[Block], count: usize, weights: &[f32], to: &mut [Block]) {
    for (columns, to) in columns.chunks_exact(count).zip(to) {
        let mut sums = [0.0; BLOCK];
        for (column, w) in columns.iter().zip(weights) {
            for l in 0..BLOCK {
                sums[l] += w * column[l];
            }
        }
        *to = sums;
    }
}

/// Computes one column after the other: with sums of several columns at once, the compiler would vectorize across
/// columns.
#[inline(always)]
fn correlate_body(columns: &[Block], count: usize, y: &[Block], sums: &mut [[f32; LANES]]) {
    for (i, to) in sums.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (column, y) in columns[i..].iter().step_by(count).zip(y) {
            for l in 0..LANES {
                sums[l] += column[l] * y[l] + column[l + LANES] * y[l + LANES];
            }
        }
        *to = sums;
    }
}

/// tanh(z / 2) from exp(-|z|), whose polynomial is that of `activation.rs`, without its fused steps.
#[inline(always)]
fn half_tanh_body(z: &mut [Block]) {
    /// 1.5 * 2^23: adding it rounds a small float to an integer and leaves that integer in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    /// 1 / k! from k = 6 down.
    const TERMS: [f32; 5] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    const SIGN: u32 = 0x8000_0000;
    for z in z.as_flattened_mut() {
        let magnitude = f32::from_bits(z.to_bits() & !SIGN);
        let x = -if magnitude < 80.0 { magnitude } else { 80.0 };
        let magic = x * std::f32::consts::LOG2_E + MAGIC;
        let n = magic - MAGIC;
        // ln 2 in two parts, the first exact when multiplied by a small integer.
        let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
        let mut p = TERMS[0];
        for term in &TERMS[1..] {
            p = p * r + term;
        }
        let e = 1.0 + (r + r * r * p);
        let e = f32::from_bits(e.to_bits().wrapping_add(magic.to_bits() << 23));
        *z = f32::from_bits(((1.0 - e) / (1.0 + e)).to_bits() ^ (z.to_bits() & SIGN));
    }
}

#[inline(always)]
fn slope_body(pull: &mut [Block], shared: &[Block], y: &[Block], a: f32, b: f32) {
    for ((pull, shared), y) in pull.iter_mut().zip(shared).zip(y) {
        for l in 0..BLOCK {
            pull[l] = (1.0 - y[l] * y[l]) * (a * pull[l] + b * shared[l]);
        }
    }
}

#[inline(always)]
fn beyond_body(row: &[f32], from: usize, high: f32, low: f32) -> usize {
    let blocks = row.as_chunks::<BLOCK>().0;
    for (i, block) in blocks.iter().enumerate().skip(from) {
        let mut beyond = 0;
        for l in 0..BLOCK {
            beyond |= u32::from(block[l] > high) | u32::from(block[l] < low);
        }
        if beyond != 0 {
            return i;
        }
    }
    blocks.len()
}
