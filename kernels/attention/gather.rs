//! A row's context where few keys weigh anything: those are listed, and only their rows of v are read.

use super::LANES;
use crate::kernels::simd::Simd;

/// Lists the weights that are not 0 among `n` (whole groups), and their places. Returns how many.
#[inline(always)]
pub unsafe fn collect<S: Simd>(weights: *const f32, n: usize, places: *mut u32, values: *mut f32) -> usize {
    // SAFETY: the caller vouches for n weights, and room for as many places and values.
    unsafe {
        let (mut count, mut at) = (0, 0);
        while at < n {
            let mut mask = S::nonzero(S::load(weights.add(at).cast()));
            while mask != 0 {
                let place = at + mask.trailing_zeros() as usize;
                *places.add(count) = place as u32;
                *values.add(count) = *weights.add(place);
                count += 1;
                mask &= mask - 1;
            }
            at += S::LANES;
        }
        count
    }
}

/// What is multiplied with what.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many weights.
    pub count: usize,
    /// The rows that they belong to.
    pub places: *const u32,
    /// The weights.
    pub values: *const f32,
    /// Row 0 of v: floats.
    pub v: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Floats of a row: a multiple of 16.
    pub width: usize,
    /// The sums.
    pub out: *mut f32,
}

/// One chain of multiply-adds for each column.
#[inline(always)]
pub unsafe fn gather<S: Simd>(r: &Rows) {
    // SAFETY: the caller vouches for what is described.
    unsafe {
        let mut column = 0;
        while column + 4 * S::LANES <= r.width {
            columns::<S, 4>(r, column);
            column += 4 * S::LANES;
        }
        while column < r.width {
            columns::<S, 1>(r, column);
            column += S::LANES;
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, const NV: usize>(r: &Rows, column: usize) {
    const { assert!(LANES % S::LANES == 0) };
    // SAFETY: as `gather`.
    unsafe {
        let mut acc = [S::splat_f(0.0); NV];
        let v = r.v.cast::<f32>().add(column);
        for i in 0..r.count {
            let row = v.byte_add(*r.places.add(i) as usize * r.stride);
            let w = S::splat_f(*r.values.add(i));
            for j in 0..NV {
                acc[j] = S::fma(w, S::load_f(row.add(j * S::LANES)), acc[j]);
            }
        }
        for j in 0..NV {
            S::store_f(r.out.add(column + j * S::LANES), acc[j]);
        }
    }
}
