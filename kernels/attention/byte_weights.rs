//! Two passes of a softmax in one: scores become bytes of weights without a stop as exponentials in memory.
//!
//! ```text
//! e           = 255 * exp(scale * (s[key] - most)), total = sum over live keys of e
//! weight[key] = round(e), and 0 for keys that are not live
//! ```
//!
//! So it can be where all keys of a row are in one chunk: its largest exponential is then that of its largest score, 255, whatever
//! the total. What comes out are the bits that `exponentials.rs` and `normalize.rs` give one after the other.

use super::exponentials::{Exponentials, OfBytes};
use super::softmax::{Pass, Raw, Scores, Span, choose, pass};
use super::{CHUNK, LANES};
use crate::kernels::simd::Simd;
use std::ops::Range;

/// Replaces the scores of `keys`, which are whole groups of 16 of one chunk and hold all keys of each row, by weights that begin where
/// the chunk begins in the row. Exponentials are added to `total`, and weights to `weights`.
#[inline(always)]
pub unsafe fn byte_weights<S: Simd, R: Raw<S>>(rows: &mut [Scores], keys: &Span) {
    let chunk = keys.first / CHUNK * CHUNK;
    // SAFETY: the caller vouches for the rows, and for the tier. A byte is written where no score is that is still to be read: those
    // of keys from `key` on are 4 bytes each from `4 * key`, and the byte of `key` is at `3 * chunk + key`, before them.
    unsafe {
        for row in rows {
            let own = row.own(keys);
            let mut bytes = Bytes::<S, R> {
                of: Exponentials::new(row),
                weights: row.p.wrapping_add(3 * chunk),
                sum: S::splat(0),
            };
            let (from, to) = match own.first < own.last {
                true => (own.first / LANES * LANES, own.last.next_multiple_of(LANES)),
                false => (keys.last, keys.last),
            };
            bytes.clear(keys.first..from);
            pass::<S, _>(own, &mut bytes);
            bytes.clear(to..keys.last);
            row.total += bytes.of.total();
            row.weights += i64::from(S::sum(bytes.sum));
        }
    }
}

/// The pass.
struct Bytes<S: Simd, R: Raw<S>> {
    of: Exponentials<S, R, OfBytes>,
    /// Where the weight of key 0 would be.
    weights: *mut u8,
    /// Of weights so far, in lanes.
    sum: S::V,
}

impl<S: Simd, R: Raw<S>> Bytes<S, R> {
    /// No weight for these keys.
    #[inline(always)]
    unsafe fn clear(&mut self, keys: Range<usize>) {
        if keys.start < keys.end {
            // SAFETY: the caller vouches for the keys in the row.
            unsafe { self.weights.wrapping_add(keys.start).write_bytes(0, keys.len()) };
        }
    }

    /// Stores one register of exponentials, each up to 255 or NaN, as bytes.
    #[inline(always)]
    unsafe fn store(&mut self, key: usize, e: S::F) {
        // SAFETY: the caller vouches for the tier, and for the keys in the row. NaN becomes 0.
        unsafe {
            let byte = S::round(S::max_f(e, S::splat_f(0.0)));
            S::store_bytes(self.weights.wrapping_add(key), byte);
            self.sum = S::add(self.sum, byte);
        }
    }
}

impl<S: Simd, R: Raw<S>> Pass<S> for Bytes<S, R> {
    // A register of bytes; with more, sums and numbers that do not change leave no register free.
    const AT_ONCE: usize = 4;
    #[inline(always)]
    unsafe fn whole<const N: usize>(&mut self, key: usize) {
        // SAFETY: the caller vouches for the tier, and for the keys in the row. NaN rounds to a negative integer, which saturates to 0.
        unsafe {
            let e = self.of.of::<N>(key);
            self.of.add(&e);
            if const { N < 4 } {
                for i in 0..N {
                    self.store(key + i * S::LANES, e[i]);
                }
                return;
            }
            let mut q = [S::splat(0); 4];
            for i in 0..4 {
                q[i] = S::round(e[i % N]);
            }
            let bytes = S::pack_in_order(q, 0);
            S::store(self.weights.wrapping_add(key), bytes);
            self.sum = S::add_bytes(self.sum, bytes);
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, key: usize, keys: Range<usize>) {
        // SAFETY: the caller vouches for the tier, and for the group of 16 in the row. Lanes outside of `keys` add and become 0.
        unsafe {
            let e = choose::<S>(&keys, self.of.group(key), [S::splat_f(0.0); 4]);
            self.of.add_group(&e);
            for i in 0..LANES / S::LANES {
                self.store(key + i * S::LANES, e[i]);
            }
        }
    }
}
