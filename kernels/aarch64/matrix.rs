//! Tiles by products of matrices: 2x8 by 8x2 bytes, or 2x4 by 4x2 bfloat16, in one instruction, twice the products of
//! a dot product.
//!
//! ```text
//! product:  acc[2i + j] += sum over k:  x[i][k] * w[j][k]        i, j in 0..2; k in 0..8 bytes or 0..4 bfloat16
//! tile:     out[m][c] = (out[m][c] to resume, or init[c], or 0) + sum over steps s:  dot(x[m][s], w[s][c])
//! ```
//!
//! A register of sums holds two rows times two columns, row by row; a register of operands eight bytes of each of two
//! rows or columns. A sum of bfloat16 is that of two dot products of pairs, one after the other, bit for bit: so the
//! architecture defines it (`BFMatMulAdd`).

use crate::kernels::attention::multiply::Tile;
use crate::kernels::simd::{Bf16, Simd};
use std::arch::aarch64::*;

// Not `pure`, so that the instructions stay in the order written here, in which operands fit the few registers that
// sums leave.
macro_rules! usmmla {
    ($acc:expr, $x:expr, $w:expr) => {{
        let mut acc: int32x4_t = $acc;
        std::arch::asm!(
            "usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) $x, in(vreg) $w,
            options(nomem, nostack, preserves_flags)
        );
        acc
    }};
}

macro_rules! bfmmla {
    ($acc:expr, $x:expr, $w:expr) => {{
        let mut acc: int32x4_t = $acc;
        std::arch::asm!(
            "bfmmla {0:v}.4s, {1:v}.8h, {2:v}.8h", inout(vreg) acc, in(vreg) $x, in(vreg) $w,
            options(nomem, nostack, preserves_flags)
        );
        acc
    }};
}

/// `acc + x · wᵀ`, of two rows of eight bytes each: unsigned x and signed w.
#[inline(always)]
pub unsafe fn product(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
    // SAFETY: the caller vouches for I8MM.
    unsafe { usmmla!(acc, x, w) }
}

/// `acc + x · wᵀ`, of two rows of four bfloat16 each; sums are floats.
#[inline(always)]
pub unsafe fn product_bf16(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
    // SAFETY: the caller vouches for BF16.
    unsafe { bfmmla!(acc, x, w) }
}

/// The elements that a tile multiplies.
pub trait Elements<S> {
    /// `acc + x · wᵀ`.
    unsafe fn product(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t;
    /// Adds, in each lane, the product of the lane of w with the 4 bytes of x in element 0.
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t;
}

/// Unsigned bytes of x and signed bytes of w.
pub struct Bytes;
impl<S: Simd<V = int32x4_t, Q = int32x4_t>> Elements<S> for Bytes {
    #[inline(always)]
    unsafe fn product(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier of `S`.
        unsafe { product(acc, x, w) }
    }
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier of `S`.
        unsafe { S::dot_columns::<0>(acc, x, w) }
    }
}

/// Pairs of bfloat16.
pub struct Pairs;
impl<S: Bf16<V = int32x4_t, Q = int32x4_t, F = float32x4_t>> Elements<S> for Pairs {
    #[inline(always)]
    unsafe fn product(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier of `S`.
        unsafe { product_bf16(acc, x, w) }
    }
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier of `S`.
        unsafe { S::as_v(S::dot_bf16::<0>(S::as_f(acc), x, w)) }
    }
}

/// Loads the two numbers at `p`, twice: their order in the register is a, b, a, b.
#[inline(always)]
unsafe fn twice(p: *const i32) -> int32x4_t {
    // SAFETY: the caller vouches for two numbers at p.
    unsafe { vreinterpretq_s32_s64(vld1q_dup_s64(p.cast())) }
}

/// The first halves of both registers, and the second halves: turns sums of two rows times four columns into rows,
/// and rows into such sums.
#[inline(always)]
fn halves(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of the architecture.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        [vreinterpretq_s32_s64(vtrn1q_s64(a, b)), vreinterpretq_s32_s64(vtrn2q_s64(a, b))]
    }
}

/// Interleaves the 4-byte lanes of two steps, so that the bytes of both steps of each column are adjacent.
#[inline(always)]
fn pairs(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of the architecture.
    unsafe { [vzip1q_s32(a, b), vzip2q_s32(a, b)] }
}

/// The row beside row 2m. Where the number of rows is odd, the last row has none beside it and is taken twice.
const fn second<const MR: usize>(m: usize) -> usize {
    if 2 * m + 1 < MR { 2 * m + 1 } else { 2 * m }
}

/// Computes a tile of `MR` rows times `NV` registers of four columns. Columns are either interleaved by one step (4
/// bytes of each column are adjacent), or, if `READY`, by two steps (8 bytes); then the number of steps is even.
#[inline(always)]
pub unsafe fn tile<
    S: Simd<V = int32x4_t, Q = int32x4_t>,
    E: Elements<S>,
    const MR: usize,
    const NV: usize,
    const READY: bool,
>(
    t: &Tile,
) {
    // SAFETY: the caller keeps the promises of `multiply::Run`: the tier, and all memory that the tile describes.
    unsafe {
        // Only the first half is used, one entry for each pair of rows; the compiler removes the rest.
        let mut acc = [[[vdupq_n_s32(0); 2]; NV]; MR];
        let out = |row: usize, v: usize| t.out.add(row * t.out_stride + 16 * v).cast::<i32>();
        for m in 0..MR.div_ceil(2) {
            for v in 0..NV {
                if t.resume {
                    acc[m][v] = halves(vld1q_s32(out(2 * m, v)), vld1q_s32(out(second::<MR>(m), v)));
                } else if !t.init.is_null() {
                    acc[m][v] = [twice(t.init.add(4 * v)), twice(t.init.add(4 * v + 2))];
                }
            }
        }
        if t.ahead.is_null() {
            steps::<S, E, MR, NV, READY, false>(&mut acc, t);
        } else {
            steps::<S, E, MR, NV, READY, true>(&mut acc, t);
        }
        let last = t.steps % 2 == 1;
        let w = t.w.wrapping_add((t.steps.max(1) - 1) * t.w_stride);
        for m in 0..MR.div_ceil(2) {
            for v in 0..NV {
                let rows = halves(acc[m][v][0], acc[m][v][1]);
                for (row, mut sums) in [2 * m, 2 * m + 1].into_iter().zip(rows) {
                    if row >= MR {
                        break;
                    }
                    // The last of an odd number of steps has none beside it: it is added by a dot product.
                    if last {
                        let x = S::quad(t.x.add(row * t.x_stride + 4 * (t.steps - 1)));
                        sums = E::dot(sums, x, S::load(w.add(16 * v)));
                    }
                    vst1q_s32(out(row, v), sums);
                }
            }
        }
    }
}

/// The eight bytes of columns `4v ..`, from two steps that are interleaved by 4.
#[inline(always)]
unsafe fn columns<S: Simd<V = int32x4_t>>(w: *const u8, stride: usize, v: usize) -> [int32x4_t; 2] {
    // SAFETY: the caller vouches for the columns of two steps, `stride` bytes apart.
    unsafe {
        let next = w.add(stride);
        // A match, so that offsets are constants of the instructions.
        let ([a], [b]) = match v {
            0 => (S::loads::<1, 0>(w), S::loads::<1, 0>(next)),
            1 => (S::loads::<1, 1>(w), S::loads::<1, 1>(next)),
            2 => (S::loads::<1, 2>(w), S::loads::<1, 2>(next)),
            _ => (S::loads::<1, 3>(w), S::loads::<1, 3>(next)),
        };
        pairs(a, b)
    }
}

/// Adds all pairs of steps to the sums, and prefetches at `t.ahead` if `AHEAD`.
#[inline(always)]
unsafe fn steps<
    S: Simd<V = int32x4_t, Q = int32x4_t>,
    E: Elements<S>,
    const MR: usize,
    const NV: usize,
    const READY: bool,
    const AHEAD: bool,
>(
    acc: &mut [[[int32x4_t; 2]; NV]; MR],
    t: &Tile,
) {
    // SAFETY: the caller keeps the promises of `multiply::Run`: all rows of x and all steps of w are there.
    unsafe {
        let (mut w, mut ahead) = (t.w, t.ahead);
        let mut x = [t.x; MR];
        for m in 1..MR {
            x[m] = t.x.add(m * t.x_stride);
            // Hides the pointer from the compiler, which would otherwise compute it again in each turn.
            std::arch::asm!("/* {} */", inout(reg) x[m], options(pure, nomem, nostack, preserves_flags));
        }
        let mut at = 0usize;
        for _ in 0..t.steps / 2 {
            let mut rows = [vdupq_n_s32(0); MR];
            for m in 0..MR.div_ceil(2) {
                let (first, second) = (x[2 * m].add(at).cast(), x[second::<MR>(m)].add(at).cast());
                rows[m] = vcombine_s32(vld1_s32(first), vld1_s32(second));
            }
            let mut w4 = [[vdupq_n_s32(0); 2]; 4];
            for v in 0..NV {
                if READY && v % 2 == 0 {
                    let [a, b, c, d] = if v == 0 { S::loads::<4, 0>(w) } else { S::loads::<4, 1>(w) };
                    (w4[v], w4[v + 1]) = ([a, b], [c, d]);
                }
                let [w0, w1] = if READY { w4[v] } else { columns::<S>(w, t.w_stride, v) };
                for m in 0..MR.div_ceil(2) {
                    acc[m][v][0] = E::product(acc[m][v][0], rows[m], w0);
                    acc[m][v][1] = E::product(acc[m][v][1], rows[m], w1);
                }
                if AHEAD {
                    S::prefetch_far(ahead.wrapping_add(16 * v));
                    S::prefetch_far(ahead.wrapping_add(t.ahead_stride + 16 * v));
                }
            }
            at += 8;
            // Hides the offset from the compiler, which would otherwise move a pointer for each row: more operations
            // than one offset for all.
            std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
            // The pointer may end beyond the last row, where nothing is read.
            w = w.wrapping_add(2 * t.w_stride);
            ahead = ahead.wrapping_add(2 * t.ahead_stride);
        }
    }
}

/// Sums of four rows of weights, from the four numbers at `init`: register `2p + h` is rows 2p and 2p + 1 times the
/// tokens of half h of a register.
#[inline(always)]
pub unsafe fn sums4<const VECS: usize>(init: *const i32) -> [[int32x4_t; VECS]; 4] {
    // SAFETY: the caller vouches for four numbers at `init`.
    unsafe {
        let (low, high) = (twice(init), twice(init.add(2)));
        [[low; VECS], [low; VECS], [high; VECS], [high; VECS]]
    }
}

/// Adds two entries to the sums of [`sums4`].
#[inline(always)]
pub unsafe fn entries4<const VECS: usize>(
    sums: &mut [[int32x4_t; VECS]; 4],
    x: [[int32x4_t; VECS]; 2],
    w: [int32x4_t; 2],
) {
    // SAFETY: the caller vouches for I8MM.
    unsafe {
        let [low, high] = pairs(w[0], w[1]);
        for v in 0..VECS {
            let [first, second] = pairs(x[0][v], x[1][v]);
            sums[0][v] = product(sums[0][v], first, low);
            sums[1][v] = product(sums[1][v], second, low);
            sums[2][v] = product(sums[2][v], first, high);
            sums[3][v] = product(sums[3][v], second, high);
        }
    }
}

/// Reorders the sums of [`sums4`] row by row.
#[inline(always)]
pub fn rows4<const VECS: usize>(mut sums: [[int32x4_t; VECS]; 4]) -> [[int32x4_t; VECS]; 4] {
    for v in 0..VECS {
        for p in [0, 2] {
            // SAFETY: NEON is part of the architecture.
            let rows =
                unsafe { [vuzp1q_s32(sums[p][v], sums[p + 1][v]), vuzp2q_s32(sums[p][v], sums[p + 1][v])] };
            [sums[p][v], sums[p + 1][v]] = rows;
        }
    }
    sums
}
