//! A row's context where few keys weigh anything: those are listed, and only their rows of v are read.
//!
//! What is listed are words of weights, as tiles take them: a float, two bfloat16 or four bytes. So the chain of products is that
//! of a tile, without the steps that add nothing.

use crate::kernels::dense::Product;
use crate::kernels::simd::Simd;

/// Lists the words that are not 0 among `n`, and their places. Returns how many.
#[inline(always)]
pub unsafe fn collect<S: Simd>(words: *const u32, n: usize, places: *mut u32, values: *mut u32) -> usize {
    // SAFETY: the caller vouches for n words, and room for as many places and values.
    unsafe {
        let (mut count, mut at) = (0, 0);
        while at < n {
            let mut mask = if at + S::LANES <= n {
                S::nonzero(S::load(words.add(at).cast()))
            } else {
                (at..n).fold(0, |mask, i| mask | u32::from(*words.add(i) != 0) << (i - at))
            };
            while mask != 0 {
                let place = at + mask.trailing_zeros() as usize;
                *places.add(count) = place as u32;
                *values.add(count) = *words.add(place);
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
    /// How many words.
    pub count: usize,
    /// The rows that they belong to.
    pub places: *const u32,
    /// The words.
    pub values: *const u32,
    /// Row 0 of v.
    pub v: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Columns: a multiple of 16.
    pub columns: usize,
    /// Their sums, 4 bytes each.
    pub out: *mut i32,
}

/// One chain of products for each column.
#[inline(always)]
pub unsafe fn gather<S: Simd, P: Product<S>>(r: &Rows) {
    // SAFETY: the caller vouches for what is described.
    unsafe {
        let mut column = 0;
        while column + 4 * S::LANES <= r.columns {
            columns::<S, P, 4>(r, column);
            column += 4 * S::LANES;
        }
        while column < r.columns {
            columns::<S, P, 1>(r, column);
            column += S::LANES;
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, P: Product<S>, const NV: usize>(r: &Rows, column: usize) {
    // SAFETY: as `gather`.
    unsafe {
        let mut acc = [P::zero(); NV];
        let v = r.v.add(4 * column);
        for i in 0..r.count {
            let row = v.add(*r.places.add(i) as usize * r.stride);
            let w = S::quad(r.values.add(i).cast());
            for j in 0..NV {
                acc[j] = P::dot::<0>(acc[j], w, S::load(row.add(j * S::LANES * 4)));
            }
        }
        for j in 0..NV {
            P::store(r.out.add(column + j * S::LANES), acc[j]);
        }
    }
}
