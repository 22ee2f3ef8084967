//! Context of rows that attend to few keys: words of weights that are not 0 are listed, and only their rows of v are
//! read.
//!
//! ```text
//! list = [(word, place) for each word of weights that is not 0]
//! out[c] = sum over (word, place) in list:  dot(word, v[place][c])
//! ```
//!
//! A word is 4 bytes of weights, as tiles take them: one float, two bfloat16 or four bytes. So the chain of products
//! is that of a tile, without the steps that add nothing.

use super::{CHUNK, LANES};
use crate::kernels::dense::Product;
use crate::kernels::simd::Simd;
use std::mem::MaybeUninit;

/// Lists the words that are not 0 among `n` words, and their places, followed by the padding. Returns how many are
/// listed.
#[inline(always)]
pub unsafe fn collect<S: Simd>(words: *const u32, n: usize, places: *mut u32, values: *mut u32) -> usize {
    // SAFETY: the caller vouches for n words, and for room for as many places and values and the padding. No more
    // words are listed than were read before a register, so a whole register fits behind those listed.
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

/// Words of 0 behind those that are listed, so that exact sums can take this many words a turn.
pub const PADDING: usize = 2;

/// l in lane l.
const LANE: [u32; LANES] = {
    let mut lane = [0; LANES];
    let mut l = 0;
    while l < LANES {
        lane[l] = l as u32;
        l += 1;
    }
    lane
};

/// Listed words of weights, and the rows of v that they are multiplied with.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many words are listed; behind them are [`PADDING`] words of 0 and their places.
    pub count: usize,
    /// The row of v of each word.
    pub places: *const u32,
    /// The words of weights.
    pub values: *const u32,
    /// Row 0 of v.
    pub v: *const u8,
    /// Bytes from one row of v to the next.
    pub stride: usize,
    /// Columns of v: a multiple of 16.
    pub columns: usize,
    /// The sums of the columns, 4 bytes each.
    pub out: *mut i32,
}

/// The sum of each column over the listed words, one chain of products each.
#[inline(always)]
pub unsafe fn gather<S: Simd, P: Product<S>>(r: &Rows) {
    // SAFETY: the caller vouches for the tier, and for the memory that `r` describes.
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

/// The sums of `NV` registers of columns from `column` on.
#[inline(always)]
unsafe fn columns<S: Simd, P: Product<S>, const NV: usize>(r: &Rows, column: usize) {
    // SAFETY: the caller of `gather` vouches for the listed rows of v, the padding, and room for the sums.
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

/// Places and values of the words of a chunk that are not 0; written before they are read. Aligned to a page: a
/// register stored across two pages takes twenty times as long.
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
    /// The places of the words.
    pub fn places(&mut self) -> *mut u32 {
        self.places.as_mut_ptr().cast()
    }

    /// The words.
    pub fn values(&mut self) -> *mut u32 {
        self.values.as_mut_ptr().cast()
    }
}

/// Weights of some rows for the keys of one chunk, and v.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// The number of rows of weights.
    pub rows: usize,
    /// The words of row 0.
    pub x: *const u8,
    /// Bytes from one row of words to the next.
    pub x_stride: usize,
    /// Words of a row.
    pub words: usize,
    /// Row 0 of v.
    pub v: *const u8,
    /// Bytes from one row of v to the next.
    pub stride: usize,
    /// Columns of v: a multiple of 16.
    pub columns: usize,
    /// The sums of row 0, 4 bytes each; those of the next rows follow.
    pub out: *mut i32,
}

/// The sums of each row, by a list of its own.
#[inline(always)]
pub unsafe fn gather_rows<S: Simd, P: Product<S>>(w: &Weights) {
    let mut list = List::default();
    // SAFETY: the caller vouches for the tier, and for the memory that `w` describes; a list has room for a chunk.
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
