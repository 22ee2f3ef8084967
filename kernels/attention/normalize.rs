//! The last pass of a softmax over rows of scores: exponentials become weights, in the format that products take.
//!
//! ```text
//! w           = e[key] / total * stretch + gamma          total = max(sum of e over the row, 1)
//! weight[key] = clamp(w / step, 0, limit)                 clipped
//!               w / step                                  not clipped (gamma = 0), as bfloat16, and as f32: 0 if it is subnormal,
//!                                                         for products with subnormal numbers take long
//!               min(w / step, limit)                      not clipped, as unsigned bytes
//! step        = what is asked for, or, of bytes, the weight of the largest e of the chunk / 255
//!
//! gauge:        e[key] *= by[key] (optional), exact = sum of e, largest = max of e, over the keys of a chunk
//! ```
//!
//! Weights are stored as f32, bfloat16 or unsigned bytes over the exponentials that were read: those of a chunk begin
//! where its exponentials began. Clipped weights that are not 0 are counted; byte weights are added up, and clipped ones
//! as they were before they were rounded, too. NaN stays NaN in floats and becomes 0 in bytes.

use super::softmax::{Group, Scores, Span, halves, store};
use super::{CHUNK, LANES};
use crate::kernels::simd::Simd;

/// The byte that the largest weight of a chunk becomes, where a step is not given.
pub const FULL: f32 = 255.0;

/// A chunk whose largest weight is below this part of the stretch, 2^-100, weighs nothing in bytes: so what is multiplied to make
/// bytes of weights is a float.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// How exponentials become weights: `(e / total * stretch + gamma) / step`, limited.
#[derive(Debug, Clone, Copy)]
pub struct Normalize {
    /// The factor of normalized exponentials: zeta - gamma.
    pub stretch: f32,
    /// The summand of normalized exponentials.
    pub gamma: f32,
    /// The real value that a stored weight of 1 stands for. Of bytes, 0 is a step for each row and chunk: so large that the
    /// largest weight is stored as 255.
    pub step: f32,
    /// The largest stored weight.
    pub limit: f32,
    /// Whether what is there are weights already: the total is not read.
    pub normalized: bool,
}

impl Normalize {
    /// What exponentials of a row are divided by. A total is at least the exponential of the largest score, which is 1, or
    /// 255 where exponentials are made for bytes; or it is 0, where all exponentials are, or NaN.
    #[inline(always)]
    pub fn total(&self, row: &Scores) -> f32 {
        if self.normalized || row.total < 1.0 { 1.0 } else { row.total }
    }

    /// The largest weight of a row's chunk; 0 where it weighs nothing in bytes.
    #[inline(always)]
    fn largest(&self, row: &Scores) -> f32 {
        let largest = match self.normalized {
            true => row.largest,
            false => (row.largest * (self.stretch / self.total(row)) + self.gamma).min(1.0),
        };
        if largest < LEAST * self.stretch { 0.0 } else { largest }
    }

    /// The real value of a stored weight of 1 in a row's chunk.
    #[inline(always)]
    pub fn step_of(&self, row: &Scores) -> f32 {
        if self.step != 0.0 { self.step } else { self.largest(row) * (1.0 / FULL) }
    }
}

/// What is counted while weights of a row are stored.
struct Tally<S: Simd> {
    /// The number of weights that are not 0.
    nonzero: u32,
    /// The sum of byte weights, in lanes.
    sum: S::V,
    /// The sum of clipped weights before they become bytes, in the lanes of 16 keys.
    exact: Group<S>,
    /// The registers of weights so far.
    registers: usize,
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
            if const { W::BYTES == 1 && COUNT } {
                for i in 0..N {
                    let lanes = (self.registers + i) % (LANES / S::LANES);
                    self.exact[lanes] = S::add_f(self.exact[lanes], w[i]);
                }
                self.registers += N;
            }
            if const { W::BYTES == 1 && N == 4 } {
                let bytes =
                    S::pack_in_order([S::round(w[0]), S::round(w[1]), S::round(w[2]), S::round(w[3])], 0);
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
    fn new(w: &Normalize, row: &Scores) -> Self {
        let (stretch, limit) = (w.stretch / w.total(row), w.limit);
        if w.step != 0.0 {
            return Self { factor: stretch / w.step, gamma: w.gamma / w.step, limit };
        }
        let largest = w.largest(row);
        if largest == 0.0 {
            return Self { factor: 0.0, gamma: 0.0, limit };
        }
        if w.gamma == 0.0 {
            // The total, and so the stretch, are in the largest weight as well. Where the total is NaN, the largest may be tiny.
            let factor = if row.largest < LEAST { 0.0 } else { FULL / row.largest };
            return Self { factor, gamma: 0.0, limit };
        }
        let steps = FULL / largest;
        Self { factor: stretch * steps, gamma: w.gamma * steps, limit }
    }
}

/// Makes weights of exponentials, which are NaN or at most 1, or at most 255 where they are made for bytes. `keys` are whole groups of 16
/// of one chunk; their weights go to where the chunk begins in the row. `CLIP` adds gamma and limits weights from below by 0 and from
/// above; without it, only bytes are limited from above. Counts clipped weights that are not 0, and adds up byte
/// weights; `exact` becomes the sum of clipped weights before they were rounded to bytes.
#[inline(always)]
pub unsafe fn normalize<S: Simd, W: Weights<S>, const CLIP: bool>(
    rows: &mut [Scores],
    keys: &Span,
    w: &Normalize,
) {
    // No weight is larger than that of a row whose total and largest exponential are 1. Where the limit is 255 a weight need not be limited
    // if rounding alone put it above; and, where weights are not added up, if saturation to bytes limits it.
    let line = Line::new(w, &Scores { total: 1.0, largest: 1.0, ..Scores::NONE });
    let most = if CLIP { line.factor.mul_add(1.0, line.gamma) } else { line.factor };
    let saturates = W::BYTES == 1 && w.limit == 255.0 && most < if CLIP { 255.001 } else { 1e9 };
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
        let line = Line::new(w, row);
        // SAFETY: the caller vouches for the rows and the tier. What is written never passes what was read.
        unsafe {
            let exact = [S::splat_f(0.0); 4];
            let mut tally = Tally::<S> { nonzero: 0, sum: S::splat(0), exact, registers: 0 };
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
            if const { W::BYTES == 1 && CLIP } {
                row.exact = sum::<S>(tally.exact) * w.step_of(row);
            }
        }
    }
}

/// The sum of 16 lanes.
#[inline(always)]
unsafe fn sum<S: Simd>(group: Group<S>) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: the caller vouches for the tier.
    unsafe { store::<S>(lanes.as_mut_ptr(), group) };
    halves(lanes, |a, b| a + b)
}

/// Finds the sum and the largest of the weights, or exponentials, of some keys of each row, whole groups of 16 of one
/// chunk; `BY` multiplies each by a factor of its key before, from those of key `keys.first` on. NaN is no largest.
#[inline(always)]
pub unsafe fn gauge<S: Simd, const BY: bool>(rows: &mut [Scores], keys: &Span, by: *const f32) {
    // SAFETY: the caller vouches for the rows, for as many factors as keys, and for the tier.
    unsafe {
        for row in rows {
            let (mut exact, mut largest) = ([S::splat_f(0.0); 4], [S::splat_f(0.0); 4]);
            for key in (keys.first..keys.last).step_by(LANES) {
                for i in 0..LANES / S::LANES {
                    let at = key + i * S::LANES;
                    let p = row.p.add(4 * at).cast();
                    let mut w = S::load_f(p);
                    if BY {
                        w = S::mul_f(w, S::load_f(by.add(at - keys.first)));
                        S::store_f(p, w);
                    }
                    exact[i] = S::add_f(exact[i], w);
                    largest[i] = S::max_f(w, largest[i]);
                }
            }
            let mut lanes = [0.0; LANES];
            store::<S>(lanes.as_mut_ptr(), largest);
            row.largest = halves(lanes, f32::max);
            row.exact = sum::<S>(exact);
        }
    }
}

/// The weights of `N` registers of exponentials.
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
            if CLIP {
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
