//! The last pass of a softmax over rows of scores: exponentials become weights, in the format that products take.
//!
//! ```text
//! w           = e[key] / total * stretch + gamma          total = max(sum of e over the row, 1)
//! weight[key] = clamp(w / step, 0, limit)                 clipped
//!               w / step                                  not clipped (gamma = 0), as bfloat16, and as f32: 0 if it is subnormal,
//!                                                         for products with subnormal numbers take long
//!               min(w / step, limit)                      not clipped, as unsigned bytes
//! ```
//!
//! Weights are stored as f32, bfloat16 or unsigned bytes over the exponentials that were read: those of a chunk begin
//! where its exponentials began. Clipped weights that are not 0 are counted; byte weights are added up. NaN stays NaN
//! in floats and becomes 0 in bytes.

use super::CHUNK;
use super::softmax::{Scores, Span};
use crate::kernels::simd::Simd;

/// How exponentials become weights: `(e / total * stretch + gamma) / step`, limited.
#[derive(Debug, Clone, Copy)]
pub struct Normalize {
    /// The factor of normalized exponentials: zeta - gamma.
    pub stretch: f32,
    /// The summand of normalized exponentials.
    pub gamma: f32,
    /// The real value that a stored weight of 1 stands for.
    pub step: f32,
    /// The largest stored weight.
    pub limit: f32,
}

/// What is counted while weights of a row are stored.
struct Tally<S: Simd> {
    /// The number of weights that are not 0.
    nonzero: u32,
    /// The sum of byte weights, in lanes.
    sum: S::V,
}

/// The format in which weights are stored.
pub trait Weights<S: Simd>: 'static {
    /// Bytes of one weight.
    const BYTES: usize;
    /// Registers of weights that are stored at once where there are as many: 1, 2 or 4.
    const BATCH: usize;
}
/// f32.
pub struct ToF32;
/// bfloat16, rounded to nearest even.
pub struct ToBf16;
/// Unsigned bytes, rounded to nearest even.
pub struct ToU8;
impl<S: Simd> Weights<S> for ToF32 {
    const BYTES: usize = 4;
    const BATCH: usize = 1;
}
impl<S: Simd> Weights<S> for ToBf16 {
    const BYTES: usize = 2;
    const BATCH: usize = 2;
}
impl<S: Simd> Weights<S> for ToU8 {
    const BYTES: usize = 1;
    const BATCH: usize = 4;
}

impl<S: Simd> Tally<S> {
    /// Stores `N` registers of weights.
    #[inline(always)]
    unsafe fn store<W: Weights<S>, const N: usize, const COUNT: bool>(&mut self, p: *mut u8, w: [S::F; N]) {
        // SAFETY: the caller vouches for the tier, and for room for `N` registers of weights. Weights saturate to
        // bytes; NaN becomes 0, because it rounds to a negative integer.
        unsafe {
            if const { W::BYTES == 1 && N == 4 } {
                let bytes =
                    S::pack_in_order([S::round(w[0]), S::round(w[1]), S::round(w[2]), S::round(w[3])]);
                S::store(p, bytes);
                self.sum = S::add_bytes(self.sum, bytes);
                if COUNT {
                    self.nonzero += S::nonzero_bytes(bytes);
                }
                return;
            }
            if const { W::BYTES == 2 && N == 2 } {
                S::store_2_bf16(p.cast(), [w[0], w[1]]);
            }
            for i in 0..N {
                let mut stored = S::as_v(w[i]);
                if W::BYTES == 4 {
                    S::store_f(p.add(4 * i * S::LANES).cast(), w[i]);
                } else if W::BYTES == 2 && N != 2 {
                    S::store_bf16(p.add(2 * i * S::LANES).cast(), w[i]);
                } else if W::BYTES == 1 {
                    stored = S::round(S::min_f(S::max_f(w[i], S::splat_f(0.0)), S::splat_f(255.0)));
                    S::store_bytes(p.add(i * S::LANES), stored);
                    self.sum = S::add(self.sum, stored);
                }
                if COUNT {
                    self.nonzero += S::nonzero(stored).count_ones();
                }
            }
        }
    }
}

/// The factor, the summand and the largest weight of one row, in units of stored weights.
struct Line {
    factor: f32,
    gamma: f32,
    limit: f32,
}

impl Line {
    #[inline(always)]
    fn new(w: &Normalize, total: f32) -> Self {
        // A total is at least 1, which is the exponential of the largest score; or it is 0, where all exponentials
        // are, or NaN.
        let total = if total < 1.0 { 1.0 } else { total };
        Self { factor: w.stretch / total / w.step, gamma: w.gamma / w.step, limit: w.limit }
    }
}

/// Makes weights of exponentials, which are at most 1, or NaN. `keys` are whole groups of 16 of one chunk; their
/// weights go to where the chunk begins in the row. `CLIP` adds gamma and limits weights from below by 0 and from
/// above; without it, only bytes are limited from above. Counts clipped weights that are not 0, and adds up byte
/// weights.
#[inline(always)]
pub unsafe fn normalize<S: Simd, W: Weights<S>, const CLIP: bool>(
    rows: &mut [Scores],
    keys: &Span,
    w: &Normalize,
) {
    // No weight is larger than that of an exponential of 1 and a total of 1. Where the limit is 255, saturation to
    // bytes limits instead.
    let line = Line::new(w, 1.0);
    let most = if CLIP { line.factor.mul_add(1.0, line.gamma) } else { line.factor };
    let saturates = W::BYTES == 1 && w.limit == 255.0 && most < 1e9;
    // SAFETY: the caller promises what `normalize_up_to` asks for.
    unsafe {
        if most <= w.limit || saturates || !CLIP && W::BYTES != 1 {
            normalize_up_to::<S, W, CLIP, false>(rows, keys, w);
        } else {
            normalize_up_to::<S, W, CLIP, true>(rows, keys, w);
        }
    }
}

/// [`normalize`], with weights limited from above if `LIMIT`.
#[inline(always)]
unsafe fn normalize_up_to<S: Simd, W: Weights<S>, const CLIP: bool, const LIMIT: bool>(
    rows: &mut [Scores],
    keys: &Span,
    w: &Normalize,
) {
    let chunk = keys.first / CHUNK * CHUNK;
    for row in rows {
        let line = Line::new(w, row.total);
        // SAFETY: the caller vouches for the rows and the tier. What is written never passes what was read.
        unsafe {
            let mut tally = Tally::<S> { nonzero: 0, sum: S::splat(0) };
            let mut from = row.p.add(4 * keys.first);
            let mut to = row.p.add(4 * chunk + W::BYTES * (keys.first - chunk));
            let mut registers = (keys.last - keys.first).div_ceil(S::LANES);
            while registers >= W::BATCH {
                match W::BATCH {
                    4 => tally.store::<W, 4, CLIP>(to, weights::<S, W, CLIP, LIMIT, 4>(from, &line)),
                    2 => tally.store::<W, 2, CLIP>(to, weights::<S, W, CLIP, LIMIT, 2>(from, &line)),
                    _ => tally.store::<W, 1, CLIP>(to, weights::<S, W, CLIP, LIMIT, 1>(from, &line)),
                }
                from = from.add(4 * W::BATCH * S::LANES);
                to = to.add(W::BYTES * W::BATCH * S::LANES);
                registers -= W::BATCH;
            }
            for _ in 0..registers {
                tally.store::<W, 1, CLIP>(to, weights::<S, W, CLIP, LIMIT, 1>(from, &line));
                (from, to) = (from.add(4 * S::LANES), to.add(W::BYTES * S::LANES));
            }
            row.nonzero += tally.nonzero;
            if W::BYTES == 1 {
                row.weights += i64::from(S::sum(tally.sum));
            }
        }
    }
}

/// The weights of `N` registers of exponentials. Those that become bytes may still be negative: they saturate to 0
/// when they are stored.
#[inline(always)]
unsafe fn weights<S: Simd, W: Weights<S>, const CLIP: bool, const LIMIT: bool, const N: usize>(
    from: *const u8,
    w: &Line,
) -> [S::F; N] {
    // SAFETY: the caller vouches for the tier, and for `N` registers of exponentials at `from`.
    unsafe {
        let factor = S::splat_f(w.factor);
        let mut v = [factor; N];
        for i in 0..N {
            let e = S::load_f(from.add(4 * i * S::LANES).cast());
            // Where the second operand is NaN, the maximum and the minimum return it.
            v[i] = if CLIP { S::fma(e, factor, S::splat_f(w.gamma)) } else { S::mul_f(e, factor) };
            if CLIP && W::BYTES != 1 {
                v[i] = S::max_f(S::splat_f(0.0), v[i]);
            }
            if LIMIT {
                v[i] = S::min_f(S::splat_f(w.limit), v[i]);
            }
            if !CLIP && W::BYTES == 4 {
                v[i] = S::at_least(v[i], v[i], S::splat_f(f32::MIN_POSITIVE));
            }
        }
        v
    }
}
