//! The passes of a softmax over a row of scores: prepare, maximum, exponentials and their sum, weights.
//!
//! A row has 4 bytes for each key. Sums are taken in 16 lanes, key by key, whatever the width of a register, so that they are the
//! same on every tier.

use super::LANES;
use crate::kernels::simd::Simd;

/// Some keys of a row.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Key 0 of the row: at a cache line.
    pub row: *mut u8,
    /// The first key.
    pub first: usize,
    /// The key behind the last.
    pub last: usize,
    /// Added to integer scores.
    pub offset: i32,
}

/// What scores go through before the maximum is taken.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// What raw scores are multiplied by.
    pub scale: f32,
    /// The quantizer of scaled scores: the real size of a step, and the ends of the integers less the zero point. A step of 0
    /// does not quantize.
    pub step: f32,
    /// The smallest integer.
    pub low: f32,
    /// The largest integer.
    pub high: f32,
    /// Null, or what is added to the scores, key by key from key 0 of the row.
    pub bias: *const f32,
}

/// What exponentials become.
#[derive(Debug, Clone, Copy)]
pub struct Weigh {
    /// What they are multiplied by.
    pub factor: f32,
    /// What is added then.
    pub gamma: f32,
    /// The largest weight.
    pub limit: f32,
}

/// How raw scores lie in a row.
pub trait Scores<S: Simd>: 'static {
    /// A register of them.
    unsafe fn load(p: *const u8, offset: i32) -> S::F;
}
/// Floats.
pub struct Floats;
/// Integers, below 2^24 with the offset.
pub struct Ints;
impl<S: Simd> Scores<S> for Floats {
    #[inline(always)]
    unsafe fn load(p: *const u8, _offset: i32) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::load_f(p.cast()) }
    }
}
impl<S: Simd> Scores<S> for Ints {
    #[inline(always)]
    unsafe fn load(p: *const u8, offset: i32) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::to_f32(S::add(S::load(p), S::splat(offset))) }
    }
}

/// 16 keys.
type Group<S> = [<S as Simd>::F; 4];

/// The 16 keys from `key` on.
#[inline(always)]
unsafe fn load<S: Simd, R: Scores<S>>(span: &Span, key: usize) -> Group<S> {
    // SAFETY: rows are padded to whole groups.
    unsafe {
        let mut group = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            group[i] = R::load(span.row.add(4 * (key + i * S::LANES)), span.offset);
        }
        group
    }
}

/// Lanes of keys outside the span get `value`.
#[inline(always)]
unsafe fn limit<S: Simd>(span: &Span, key: usize, group: Group<S>, value: f32) -> Group<S> {
    if key >= span.first && key + LANES <= span.last {
        return group;
    }
    // SAFETY: the array holds a group.
    unsafe {
        let mut lanes = [0.0f32; LANES];
        for i in 0..LANES / S::LANES {
            S::store_f(lanes.as_mut_ptr().add(i * S::LANES), group[i]);
        }
        for (i, lane) in lanes.iter_mut().enumerate() {
            if key + i < span.first || key + i >= span.last {
                *lane = value;
            }
        }
        let mut group = group;
        for i in 0..LANES / S::LANES {
            group[i] = S::load_f(lanes.as_ptr().add(i * S::LANES));
        }
        group
    }
}

/// Writes the keys of a group that are in the span.
#[inline(always)]
unsafe fn store<S: Simd>(span: &Span, key: usize, group: Group<S>) {
    // SAFETY: rows are padded to whole groups; the array holds one.
    unsafe {
        if key >= span.first && key + LANES <= span.last {
            for i in 0..LANES / S::LANES {
                S::store_f(span.row.add(4 * (key + i * S::LANES)).cast(), group[i]);
            }
            return;
        }
        let mut lanes = [0.0f32; LANES];
        for i in 0..LANES / S::LANES {
            S::store_f(lanes.as_mut_ptr().add(i * S::LANES), group[i]);
        }
        for at in key.max(span.first)..(key + LANES).min(span.last) {
            span.row.cast::<f32>().add(at).write(lanes[at - key]);
        }
    }
}

/// Scales, quantizes and biases raw scores; what is left in the row are floats.
#[inline(always)]
pub unsafe fn prepare<S: Simd, R: Scores<S>>(span: &Span, p: &Prepare) {
    // SAFETY: the caller vouches for the row, and for a bias of all keys of the span.
    unsafe {
        let mut key = span.first / LANES * LANES;
        while key < span.last {
            let mut group = load::<S, R>(span, key);
            let mut bias = [S::splat_f(0.0); 4];
            if !p.bias.is_null() {
                if key >= span.first && key + LANES <= span.last {
                    for i in 0..LANES / S::LANES {
                        bias[i] = S::load_f(p.bias.add(key + i * S::LANES));
                    }
                } else {
                    let mut lanes = [0.0f32; LANES];
                    for at in key.max(span.first)..(key + LANES).min(span.last) {
                        lanes[at - key] = *p.bias.add(at);
                    }
                    for i in 0..LANES / S::LANES {
                        bias[i] = S::load_f(lanes.as_ptr().add(i * S::LANES));
                    }
                }
            }
            for i in 0..LANES / S::LANES {
                if p.step == 0.0 {
                    group[i] = S::fma(group[i], S::splat_f(p.scale), bias[i]);
                } else {
                    let steps = S::div_f(S::mul_f(group[i], S::splat_f(p.scale)), S::splat_f(p.step));
                    let steps = S::max_f(S::splat_f(p.low), S::min_f(S::splat_f(p.high), steps));
                    let steps = S::to_f32(S::round(steps));
                    group[i] = S::fma(steps, S::splat_f(p.step), bias[i]);
                }
            }
            store::<S>(span, key, group);
            key += LANES;
        }
    }
}

/// The largest score that is a number; -inf if there is none.
#[inline(always)]
pub unsafe fn maximum<S: Simd, R: Scores<S>>(span: &Span) -> f32 {
    // SAFETY: the caller vouches for the row.
    unsafe {
        let mut most = [S::splat_f(f32::NEG_INFINITY); 4];
        let mut key = span.first / LANES * LANES;
        while key < span.last {
            let group = limit::<S>(span, key, load::<S, R>(span, key), f32::NEG_INFINITY);
            for i in 0..LANES / S::LANES {
                most[i] = S::max_f(group[i], most[i]);
            }
            key += LANES;
        }
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for i in 0..LANES / S::LANES {
            S::store_f(lanes.as_mut_ptr().add(i * S::LANES), most[i]);
        }
        lanes.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }
}

/// 2^t is 0 below this.
const SMALLEST: f32 = -124.0;

/// 2^t, of t up to a little above 0: relative error below 3e-7; NaN stays NaN.
///
/// t = n + f with |f| <= 1/2; a polynomial in f, times 2^n.
#[inline(always)]
unsafe fn exp2<S: Simd>(t: S::F) -> S::F {
    /// Minimax for the relative error on |f| <= 1/2, from degree 5 down to 1; the constant is 1.
    const TERMS: [f32; 5] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1];
    const MAGIC: f32 = 12_582_912.0;
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let n = S::sub_f(S::add_f(t, S::splat_f(MAGIC)), S::splat_f(MAGIC));
        let f = S::sub_f(t, n);
        let mut p = S::splat_f(TERMS[0]);
        for term in &TERMS[1..] {
            p = S::fma(p, f, S::splat_f(*term));
        }
        p = S::fma(p, f, S::splat_f(1.0));
        S::at_least(S::power(p, n), t, S::splat_f(SMALLEST))
    }
}

/// `2^(a * raw - b)`, or with a bias `2^(a * (s - b))`, in place of each score; adds them up in the 16 lanes at `sums`.
#[inline(always)]
pub unsafe fn exponentials<S: Simd, R: Scores<S>, const BIASED: bool>(
    span: &Span,
    a: f32,
    b: f32,
    sums: *mut f32,
) {
    // SAFETY: the caller vouches for the row and the sums.
    unsafe {
        let mut total = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            total[i] = S::load_f(sums.add(i * S::LANES));
        }
        let (scale, shift) = (S::splat_f(a), if BIASED { S::splat_f(b) } else { S::splat_f(-b) });
        let mut key = span.first / LANES * LANES;
        while key < span.last {
            let mut group = load::<S, R>(span, key);
            for i in 0..LANES / S::LANES {
                group[i] = if BIASED {
                    S::mul_f(S::sub_f(group[i], shift), scale)
                } else {
                    S::fma(group[i], scale, shift)
                };
            }
            let mut group = limit::<S>(span, key, group, f32::NEG_INFINITY);
            for i in 0..LANES / S::LANES {
                group[i] = exp2::<S>(group[i]);
                total[i] = S::add_f(total[i], group[i]);
            }
            store::<S>(span, key, group);
            key += LANES;
        }
        for i in 0..LANES / S::LANES {
            S::store_f(sums.add(i * S::LANES), total[i]);
        }
    }
}

/// How weights are stored.
pub trait Weights<S: Simd>: 'static {
    /// Bytes of one.
    const BYTES: usize;
    /// A register of them, rounded; what is not zero, as a mask, and integers' sum on top of `sum`.
    unsafe fn store(p: *mut u8, w: S::F, sum: S::V) -> (u32, S::V);
}
/// As they are.
pub struct ToF32;
/// bfloat16.
pub struct ToBf16;
/// Unsigned bytes, rounded to nearest even.
pub struct ToU8;
impl<S: Simd> Weights<S> for ToF32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn store(p: *mut u8, w: S::F, sum: S::V) -> (u32, S::V) {
        // SAFETY: as the caller.
        unsafe {
            S::store_f(p.cast(), w);
            (S::nonzero(S::as_v(w)), sum)
        }
    }
}
impl<S: Simd> Weights<S> for ToBf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn store(p: *mut u8, w: S::F, sum: S::V) -> (u32, S::V) {
        // SAFETY: as the caller.
        unsafe {
            S::store_bf16(p.cast(), w);
            (S::nonzero(S::as_v(w)), sum)
        }
    }
}
impl<S: Simd> Weights<S> for ToU8 {
    const BYTES: usize = 1;
    #[inline(always)]
    unsafe fn store(p: *mut u8, w: S::F, sum: S::V) -> (u32, S::V) {
        // SAFETY: as the caller; the limit keeps weights inside a byte, and NaN becomes 0.
        unsafe {
            let q = S::round(S::max_f(w, S::splat_f(0.0)));
            S::store_bytes(p, q);
            (S::nonzero(q), S::add(sum, q))
        }
    }
}

/// Weights of whole groups of keys from `first` to `last`, of exponentials in the row, to `out`; `CLIP` limits them from below by 0
/// and from above. Returns how many are not zero, and the sum of integers.
#[inline(always)]
pub unsafe fn weigh<S: Simd, W: Weights<S>, const CLIP: bool>(
    span: &Span,
    w: &Weigh,
    out: *mut u8,
) -> (u32, i32) {
    // SAFETY: the caller vouches for the row, and for room at `out`, which may be where the exponentials are: what is written
    // never passes what was read.
    unsafe {
        let (mut count, mut sum) = (0, S::splat(0));
        let (factor, gamma, limit) = (S::splat_f(w.factor), S::splat_f(w.gamma), S::splat_f(w.limit));
        let mut to = out;
        let mut key = span.first;
        while key < span.last {
            let e = S::load_f(span.row.add(4 * key).cast());
            let mut v = S::mul_f(e, factor);
            if CLIP {
                // Of the two operands the maximum and the minimum keep a NaN in the second.
                v = S::min_f(limit, S::max_f(S::splat_f(0.0), S::fma(e, factor, gamma)));
            } else if W::BYTES == 1 {
                v = S::min_f(limit, v);
            }
            let (mask, total) = W::store(to, v, sum);
            sum = total;
            if CLIP {
                count += mask.count_ones();
            }
            to = to.add(W::BYTES * S::LANES);
            key += S::LANES;
        }
        (count, if W::BYTES == 1 { S::sum(sum) } else { 0 })
    }
}
