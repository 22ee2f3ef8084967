//! A pass of a softmax over rows of scores: scores become exponentials.
//!
//! ```text
//! e[key] = one * exp(scale * (s[key] - most)), total = sum over live keys of e[key];  e[key] = 0 for other keys
//! ```
//!
//! `one` and how exact they are is the [`Exponential`]'s: where weights become bytes, fewer digits do.

use super::LANES;
use super::normalize::FULL;
use super::softmax::{Group, Pass, Raw, Scores, Span, choose, halves, load, pass, store};
use crate::kernels::simd::Simd;
use std::f32::consts::LOG2_E;
use std::marker::PhantomData;
use std::ops::Range;

/// 2^t is returned as 0 where the integer nearest to t is below this.
const SMALLEST: f32 = -124.0;

/// A polynomial for `one * 2^-f` on |f| <= 1/2.
pub trait Exponential: 'static {
    /// Its terms, from the highest degree down to 1.
    const TERMS: &'static [f32];
    /// Its constant: the exponential of 0.
    const ONE: f32;
}

/// With a relative error below 3e-7.
pub struct Exact;
/// 255 times as much, with a relative error below 1.1e-4. So a weight that is rounded to a byte is off by at most half a step and 0.03;
/// or 0.06, where the step is that of a largest weight which is off as well.
pub struct OfBytes;

impl Exponential for Exact {
    /// Minimax for the relative error.
    const TERMS: &'static [f32] =
        &[-1.326_472_7e-3, 9.671_513e-3, -5.550_733_6e-2, 2.402_224_2e-1, LN_2_TERM];
    const ONE: f32 = 1.0;
}

impl Exponential for OfBytes {
    /// Minimax for the relative error, times 255.
    const TERMS: &'static [f32] = &[-14.027_309, 61.763_798, -176.787_14];
    const ONE: f32 = FULL;
}

#[allow(clippy::approx_constant)] // Near -ln 2, but the best for this degree.
const LN_2_TERM: f32 = -6.931_47e-1;

/// `one * 2^(a x)` of N registers, for products a x up to 0. NaN stays NaN.
///
/// a x = n - f with |f| <= 1/2, where n is an integer, and n and f come from the product before it is rounded. The
/// result is a polynomial in f, times 2^n. Each step is done for all registers before the next step, so that none
/// waits for the one before.
#[inline(always)]
pub unsafe fn exp2<S: Simd, E: Exponential, const N: usize>(x: [S::F; N], a: f32) -> [S::F; N] {
    const MAGIC: f32 = 12_582_912.0;
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let (mut n, mut f) = (x, x);
        for i in 0..N {
            n[i] = S::fma(x[i], S::splat_f(a), S::splat_f(MAGIC));
        }
        for i in 0..N {
            n[i] = S::sub_f(n[i], S::splat_f(MAGIC));
        }
        for i in 0..N {
            f[i] = S::fma(x[i], S::splat_f(-a), n[i]);
        }
        let mut p = [S::splat_f(E::TERMS[0]); N];
        for term in &E::TERMS[1..] {
            for i in 0..N {
                p[i] = S::fma(p[i], f[i], S::splat_f(*term));
            }
        }
        for i in 0..N {
            p[i] = S::fma(p[i], f[i], S::splat_f(E::ONE));
        }
        for i in 0..N {
            p[i] = S::at_least(S::power(p[i], n[i]), n[i], S::splat_f(SMALLEST));
        }
        p
    }
}

/// Replaces each score of a live key by `one * exp(scale * (score - most))`, and that of each other key of `keys` by 0.
/// Their sum, taken in 16 lanes, is added to `total`. `keys` are whole groups of 16 of one chunk.
#[inline(always)]
pub unsafe fn exponentials<S: Simd, R: Raw<S>, E: Exponential>(
    rows: &mut [Scores],
    keys: &Span,
    live: &[Span],
) {
    // SAFETY: the caller vouches for the rows, and for the tier.
    unsafe {
        for row in rows {
            let mut exponentials = Exponentials::<S, R, E>::new(row);
            let mut at = keys.first;
            for span in live {
                let own = row.own(span);
                if own.first < own.last {
                    clear::<S>(row.p, at..own.first);
                    pass::<S, _>(own, &mut exponentials);
                    at = own.last;
                }
            }
            clear::<S>(row.p, at..keys.last);
            row.total += exponentials.total();
        }
    }
}

/// Writes 0 for a range of keys.
#[inline(always)]
unsafe fn clear<S: Simd>(row: *mut u8, keys: Range<usize>) {
    let (mut key, row) = (keys.start, row.cast::<f32>());
    // SAFETY: the caller vouches for the keys, and for the tier.
    unsafe {
        while key < keys.end {
            if key.is_multiple_of(LANES) && key + LANES <= keys.end {
                store::<S>(row.add(key), [S::splat_f(0.0); 4]);
                key += LANES;
            } else {
                row.add(key).write(0.0);
                key += 1;
            }
        }
    }
}

/// The pass of [`exponentials`].
pub(super) struct Exponentials<S: Simd, R: Raw<S>, E> {
    p: *mut u8,
    scale: f32,
    most: R::Most,
    /// The sum so far, in the lanes of 16 keys.
    total: Group<S>,
    exponential: PhantomData<E>,
}

impl<S: Simd, R: Raw<S>, E: Exponential> Exponentials<S, R, E> {
    /// Of no keys of a row, whose largest score is known.
    #[inline(always)]
    pub(super) unsafe fn new(row: &Scores) -> Self {
        // SAFETY: the caller vouches for the tier.
        let (most, total) = unsafe { (R::most(row.most, row.offset), [S::splat_f(0.0); 4]) };
        Self { p: row.p, scale: row.scale * LOG2_E, most, total, exponential: PhantomData }
    }

    /// The exponentials of `N` registers of keys from `key` on.
    #[inline(always)]
    pub(super) unsafe fn of<const N: usize>(&self, key: usize) -> [S::F; N] {
        // SAFETY: the caller vouches for the tier, and for `N` registers of keys in the row.
        unsafe {
            let mut x = [S::splat_f(0.0); N];
            for i in 0..N {
                // The difference is taken before it is scaled: so it is 0 for the largest score, however large that
                // is.
                x[i] = R::less(self.p.add(4 * (key + i * S::LANES)), self.most);
            }
            exp2::<S, E, N>(x, self.scale)
        }
    }

    /// The exponentials of 16 keys.
    #[inline(always)]
    pub(super) unsafe fn group(&self, key: usize) -> Group<S> {
        // SAFETY: as [`Exponentials::of`].
        unsafe {
            let mut e = [S::splat_f(0.0); 4];
            match LANES / S::LANES {
                1 => e[..1].copy_from_slice(&self.of::<1>(key)),
                2 => e[..2].copy_from_slice(&self.of::<2>(key)),
                _ => e = self.of::<4>(key),
            }
            e
        }
    }

    /// Adds registers of keys, from the first of 16 on.
    #[inline(always)]
    pub(super) unsafe fn add<const N: usize>(&mut self, e: &[S::F; N]) {
        for i in 0..N {
            let lanes = i % (LANES / S::LANES);
            // SAFETY: the caller vouches for the tier.
            self.total[lanes] = unsafe { S::add_f(self.total[lanes], e[i]) };
        }
    }

    /// Adds 16 keys.
    #[inline(always)]
    pub(super) unsafe fn add_group(&mut self, e: &Group<S>) {
        for i in 0..LANES / S::LANES {
            // SAFETY: the caller vouches for the tier.
            self.total[i] = unsafe { S::add_f(self.total[i], e[i]) };
        }
    }

    /// The sum of what was added.
    #[inline(always)]
    pub(super) unsafe fn total(&self) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller vouches for the tier.
        unsafe { store::<S>(lanes.as_mut_ptr(), self.total) };
        halves(lanes, |a, b| a + b)
    }
}

impl<S: Simd, R: Raw<S>, E: Exponential> Pass<S> for Exponentials<S, R, E> {
    #[inline(always)]
    unsafe fn whole<const N: usize>(&mut self, key: usize) {
        // SAFETY: the caller vouches for the tier, and for the keys in the row.
        unsafe {
            let e = self.of::<N>(key);
            self.add(&e);
            for i in 0..N {
                S::store_f(self.p.add(4 * (key + i * S::LANES)).cast(), e[i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, key: usize, keys: Range<usize>) {
        // SAFETY: the caller vouches for the tier, and for the group of 16 in the row. Lanes outside of `keys` add 0.
        unsafe {
            let p = self.p.add(4 * key).cast();
            let (raw, e) = (load::<S>(p), self.group(key));
            store::<S>(p, choose::<S>(&keys, e, raw));
            self.add_group(&choose::<S>(&keys, e, [S::splat_f(0.0); 4]));
        }
    }
}
