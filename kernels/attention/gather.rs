//! A row's context where few keys weigh anything: those are listed, and only their rows of v are read.
//!
//! What is listed are words of weights, as tiles take them: a float, two bfloat16 or four bytes. So the chain of products is that
//! of a tile, without the steps that add nothing.

use super::{CHUNK, LANES};
use crate::kernels::dense::Product;
use crate::kernels::simd::Simd;
use std::mem::MaybeUninit;

/// Lists the words that are not 0 among `n`, and their places, and the padding. Returns how many.
#[inline(always)]
pub unsafe fn collect<S: Simd>(words: *const u32, n: usize, places: *mut u32, values: *mut u32) -> usize {
    // SAFETY: the caller vouches for n words, and room for as many places and values and the padding: what is listed
    // before a register is no more than what was read, so its lanes fit behind.
    unsafe {
        let (mut count, mut at) = (0, 0);
        let mut lanes = S::load(LANE.as_ptr().cast());
        while at + S::LANES <= n {
            let v = S::load(words.add(at).cast());
            let mask = S::nonzero(v);
            S::compress(values.add(count), v, mask);
            S::compress(places.add(count), lanes, mask);
            count += mask.count_ones() as usize;
            lanes = S::add(lanes, S::splat(S::LANES as i32));
            at += S::LANES;
        }
        for place in at..n {
            let value = *words.add(place);
            if value != 0 {
                *places.add(count) = place as u32;
                *values.add(count) = value;
                count += 1;
            }
        }
        for i in count..count + PADDING {
            *places.add(i) = 0;
            *values.add(i) = 0;
        }
        count
    }
}

/// Words of 0 behind those that are listed: so sums that are exact take a number of words whose loop ends as foreseen.
pub const PADDING: usize = 2;

/// The number of each lane.
const LANE: [u32; LANES] = {
    let mut lane = [0; LANES];
    let mut l = 0;
    while l < LANES {
        lane[l] = l as u32;
        l += 1;
    }
    lane
};

/// What is multiplied with what.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many words; behind them lie [`PADDING`] words of 0 and their places.
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
        let at_once = if P::EXACT { PADDING } else { 1 };
        for first in (0..r.count).step_by(at_once) {
            for i in first..first + at_once {
                let row = v.add(*r.places.add(i) as usize * r.stride);
                let w = S::quad(r.values.add(i).cast());
                for j in 0..NV {
                    acc[j] = P::dot::<0>(acc[j], w, S::load(row.add(j * S::LANES * 4)));
                }
            }
        }
        for j in 0..NV {
            P::store(r.out.add(column + j * S::LANES), acc[j]);
        }
    }
}

/// Words of weights that are not 0, of a chunk, and their places: written before they are read. At a page: a register that is
/// stored across two takes twenty times as long.
#[repr(C, align(4096))]
pub struct List {
    places: MaybeUninit<[u32; CHUNK + PADDING]>,
    values: MaybeUninit<[u32; CHUNK + PADDING]>,
}

impl Default for List {
    fn default() -> Self {
        List { places: MaybeUninit::uninit(), values: MaybeUninit::uninit() }
    }
}

impl List {
    /// The places.
    pub fn places(&mut self) -> *mut u32 {
        self.places.as_mut_ptr().cast()
    }

    /// The words.
    pub fn values(&mut self) -> *mut u32 {
        self.values.as_mut_ptr().cast()
    }
}

/// Weights of some rows, of a chunk, and v.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// How many rows.
    pub rows: usize,
    /// The words of row 0.
    pub x: *const u8,
    /// Bytes from a row to the next.
    pub x_stride: usize,
    /// Words of a row.
    pub words: usize,
    /// Row 0 of v.
    pub v: *const u8,
    /// Bytes from a row of v to the next.
    pub stride: usize,
    /// Columns: a multiple of 16.
    pub columns: usize,
    /// Their sums for row 0, 4 bytes each; those of the next row follow.
    pub out: *mut i32,
}

/// The sums of each row by its own list.
#[inline(always)]
pub unsafe fn gather_rows<S: Simd, P: Product<S>>(w: &Weights) {
    let mut list = List::default();
    // SAFETY: the caller vouches for what is described; a list has room for a chunk.
    unsafe {
        for row in 0..w.rows {
            let (places, values) = (list.places(), list.values());
            let count = collect::<S>(w.x.add(row * w.x_stride).cast(), w.words, places, values);
            let out = w.out.add(row * w.columns);
            gather::<S, P>(&Rows {
                count,
                places,
                values,
                v: w.v,
                stride: w.stride,
                columns: w.columns,
                out,
            });
        }
    }
}
