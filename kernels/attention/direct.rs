//! A single query: k and v are used once, so they are not packed, but turned in registers on their way to the products. Keys of
//! bytes are multiplied as they lie.

use super::PANEL;
use crate::kernels::dense::{Parts, Product};
use crate::kernels::simd::Simd;

/// One query and a panel of keys.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// The query, in words of 4 bytes.
    pub x: *const u8,
    /// The first key.
    pub k: *const u8,
    /// Bytes from a key to the next.
    pub stride: usize,
    /// Words of a head: a multiple of 4.
    pub words: usize,
    /// Flipped in each byte of k.
    pub flip: u8,
    /// What the sum of a key's bytes is multiplied by, to be added to its score: integers, -255 to 0.
    pub by_sum: i32,
    /// 64 scores.
    pub out: *mut u8,
    /// Null, or what the cache is asked for: as many bytes as the keys have.
    pub ahead: *const u8,
}

/// A kernel for one query and 64 keys.
///
/// # Safety
/// The CPU has the kernel's tier; all that is described is there.
pub type Run = unsafe fn(&Keys);

/// Each score of floats is the same chain of products as in a tile; of bytes the same sum.
#[inline(always)]
pub unsafe fn scores<S: Simd, P: Product<S>, W: Parts<S>>(t: &Keys) {
    // SAFETY: as `Run`.
    unsafe {
        if P::EXACT && t.words.is_multiple_of(S::LANES) {
            return match t.words / S::LANES {
                1 => scores_by_key::<S, 1>(t),
                2 => scores_by_key::<S, 2>(t),
                4 => scores_by_key::<S, 4>(t),
                _ => scores_by_key::<S, 0>(t),
            };
        }
        let flip = S::splat(i32::from_ne_bytes([t.flip; 4]));
        let ones = S::quad([1u8; 4].as_ptr());
        // Of a word as it lies, and of four words of a register of keys.
        let word_bytes = W::BYTES / S::LANES;
        let block = 4 * word_bytes * S::LANES;
        let mut ahead = t.ahead;
        // Two registers of keys at a time: one chain alone would wait for itself.
        for first in (0..PANEL).step_by(2 * S::LANES) {
            let mut acc = [P::zero(); 2];
            let mut sums = [P::zero(); 2];
            for word in (0..t.words).step_by(4) {
                for half in 0..2 {
                    if !ahead.is_null() {
                        // Each line once.
                        if block >= 64 || ahead.addr() % 64 < block {
                            for line in (0..block).step_by(64) {
                                S::prefetch_far(ahead.wrapping_add(line));
                            }
                        }
                        ahead = ahead.wrapping_add(block);
                    }
                    // Part l of register r is key 4 l + r: transposed, each register is a word of all keys in order.
                    let k = t.k.add((first + half * S::LANES) * t.stride + word_bytes * word);
                    let mut v = [flip; 4];
                    for r in 0..4 {
                        v[r] = S::xor(W::parts(k.add(r * t.stride), 4 * t.stride), flip);
                    }
                    let v = S::transpose4(v);
                    for r in 0..4 {
                        let x = S::quad(t.x.add(4 * (word + r)));
                        acc[half] = P::dot::<0>(acc[half], x, v[r]);
                        if P::EXACT {
                            sums[half] = P::dot::<0>(sums[half], ones, v[r]);
                        }
                    }
                }
            }
            for half in 0..2 {
                let out = t.out.add(4 * (first + half * S::LANES)).cast();
                P::store(out, P::add_scaled(acc[half], sums[half], t.by_sum));
            }
        }
    }
}

/// A register of the query, ready for [`scores_by_key`].
#[inline(always)]
unsafe fn query<S: Simd>(t: &Keys, byte: usize) -> S::X {
    // SAFETY: as `Run`.
    unsafe {
        let x = S::x(S::load(t.x.add(byte)));
        if S::SHIFTS { S::shift(x, t.by_sum) } else { x }
    }
}

/// Scores of bytes, whose products may be added in any order: key by key, then lanes are added up. A key is of `N` registers, or, if
/// that is 0, of any number.
#[inline(always)]
unsafe fn scores_by_key<S: Simd, const N: usize>(t: &Keys) {
    // SAFETY: as `Run`.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([t.flip; 4]));
        // What each byte of a key is multiplied by less, as a query.
        let less = S::x(S::splat(i32::from_ne_bytes([-t.by_sum as u8; 4])));
        let words = if N > 0 { N * S::LANES } else { t.words };
        let lines = 16 * words;
        let mut registers = [less; N];
        for n in 0..N {
            registers[n] = query::<S>(t, 4 * n * S::LANES);
        }
        let mut ahead = t.ahead;
        for first in (0..PANEL).step_by(S::LANES) {
            // Of four keys, part by part.
            let mut scores = [S::splat(0); 4];
            for four in 0..S::LANES / 4 {
                if !ahead.is_null() {
                    for line in (0..lines).step_by(64) {
                        S::prefetch_far(ahead.wrapping_add(line));
                    }
                    ahead = ahead.wrapping_add(lines);
                }
                let keys = t.k.add((first + 4 * four) * t.stride);
                let (mut sums, mut sums_less) = ([S::splat(0); 4], [S::splat(0); 4]);
                for n in 0..words / S::LANES {
                    let byte = 4 * n * S::LANES;
                    let x = if n < N { registers[n] } else { query::<S>(t, byte) };
                    for i in 0..4 {
                        let key = S::xor(S::load(keys.add(i * t.stride + byte)), flip);
                        sums[i] = S::dot_key(sums[i], x, key);
                        if !S::SHIFTS {
                            sums_less[i] = S::dot_key(sums_less[i], less, key);
                        }
                    }
                }
                if !S::SHIFTS {
                    for i in 0..4 {
                        sums[i] = S::sub(sums[i], sums_less[i]);
                    }
                }
                scores[four] = S::lane_sums(sums);
            }
            S::store(t.out.add(4 * first), S::part_sums(scores));
        }
    }
}

/// Weights of one query and as many rows of v.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// The weights, in words of 4 bytes.
    pub x: *const u8,
    /// The row of the first.
    pub v: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Words of weights.
    pub words: usize,
    /// Flipped in each byte of v.
    pub flip: u8,
    /// Columns: of whole registers of elements.
    pub columns: usize,
    /// Their sums, which go on from what is there.
    pub out: *mut u8,
    /// Null, or what the cache is asked for: as many bytes as the rows have, if they lie side by side.
    pub ahead: *const u8,
    /// Bytes from a row to the next.
    pub ahead_stride: usize,
}

/// A kernel for the context of one query.
///
/// # Safety
/// As [`Run`].
pub type RunValues = unsafe fn(&Values);

/// Each sum is the same chain of products as in a tile.
#[inline(always)]
pub unsafe fn context<S: Simd, P: Product<S>, W: Parts<S>>(t: &Values) {
    // SAFETY: as `RunValues`.
    unsafe {
        let width = S::LANES * P::ELEMENTS;
        let mut column = 0;
        // Where a word is one element, a register has one chain, and more of them wait less.
        while P::ELEMENTS == 1 && column + 8 * width <= t.columns {
            columns::<S, P, W, 8>(t, column);
            column += 8 * width;
        }
        while P::ELEMENTS == 1 && column + 4 * width <= t.columns {
            columns::<S, P, W, 4>(t, column);
            column += 4 * width;
        }
        while column + 2 * width <= t.columns {
            columns::<S, P, W, 2>(t, column);
            column += 2 * width;
        }
        if column < t.columns {
            columns::<S, P, W, 1>(t, column);
        }
    }
}

/// `N` registers of elements of each row.
#[inline(always)]
unsafe fn columns<S: Simd, P: Product<S>, W: Parts<S>, const N: usize>(t: &Values, column: usize) {
    // SAFETY: as `context`.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([t.flip; 4]));
        let (bytes, part, width) = (S::LANES * 4, 16 * P::ELEMENTS, S::LANES * P::ELEMENTS);
        let mut acc = [[P::zero(); 4]; N];
        for n in 0..N {
            for j in 0..P::ELEMENTS {
                let out = t.out.add(4 * column + n * P::ELEMENTS * bytes + 16 * j);
                let mut lanes = [0i32; 16];
                S::store(lanes.as_mut_ptr().cast(), S::load_parts(out, part));
                acc[n][j] = P::load(lanes.as_ptr());
            }
        }
        let mut v = t.v.add(column * W::BYTES / width);
        let mut ahead =
            if t.ahead.is_null() { t.ahead } else { t.ahead.wrapping_add(column * W::BYTES / width) };
        for word in 0..t.words {
            let x = S::quad(t.x.add(4 * word));
            if !ahead.is_null() {
                for row in 0..P::ELEMENTS {
                    for line in (0..N * W::BYTES).step_by(64) {
                        S::prefetch_far(ahead.wrapping_add(row * t.ahead_stride + line));
                    }
                }
                ahead = ahead.wrapping_add(P::ELEMENTS * t.ahead_stride);
            }
            for n in 0..N {
                let mut rows = [flip; 4];
                for row in 0..P::ELEMENTS {
                    rows[row] = S::xor(W::load(v.add(row * t.stride + n * W::BYTES)), flip);
                }
                let columns = P::columns(rows);
                for j in 0..P::ELEMENTS {
                    acc[n][j] = P::dot::<0>(acc[n][j], x, columns[j]);
                }
            }
            v = v.wrapping_add(P::ELEMENTS * t.stride);
        }
        for n in 0..N {
            for j in 0..P::ELEMENTS {
                let out = t.out.add(4 * column + n * P::ELEMENTS * bytes + 16 * j);
                let mut lanes = [0i32; 16];
                P::store(lanes.as_mut_ptr(), acc[n][j]);
                S::store_parts(out, part, S::load(lanes.as_ptr().cast()));
            }
        }
    }
}
