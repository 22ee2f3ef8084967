//! Block-sparse layers of bytes for few tokens: a 16-byte part of a register belongs to a token, its four lanes to four
//! rows of weights.
//!
//! ```text
//! for each group, for each of its rows r, for each token t of the panel:
//!     out[t][row + r - first_row] = init[row + r] + sum over entries e, i in 0..4:  w[e][r][i] * x[t][column(e, i)]
//! ```
//!
//! With tokens in the lanes, as in `sparse`, a panel of 4 or 8 tokens would leave most of a register empty. Here one load puts
//! the 16 bytes of an entry's weights into every part, and the four bytes of x of each token are repeated in the four lanes of its part.
//! So an entry costs about as much as its loads, and sums come out token by token, as the end of a tile wants them. Groups of one row
//! have tokens in the lanes, for an entry has four bytes of weights only.

use super::simd::Simd;
use super::sparse::{Band, Group};
use std::mem::MaybeUninit;

/// Sums of a token from one token to the next: the output features of a band.
pub const STRIDE: usize = 64;

/// The exact sums of all groups for the `TOKENS` tokens of a panel, `out[t * STRIDE + row - first_row]`. With `QUADS` an index is the
/// number of four adjacent columns of x, else four indices are any four columns. `VECS` registers hold what is summed up at once:
/// see [`registers`].
///
/// # Safety
/// The caller keeps the promises of `sparse::spill` for a panel of `TOKENS` tokens, 4 or 8; `out` has room for `TOKENS` rows of
/// `STRIDE` sums.
#[inline(always)]
pub unsafe fn few<S: Simd, const QUADS: bool, const ROWS: usize, const TOKENS: usize, const VECS: usize>(
    band: &Band<'_>,
    out: *mut i32,
) {
    const { assert!(VECS == registers(S::LANES, ROWS, TOKENS)) };
    for group in band.groups {
        // SAFETY: the driver built the band: entries, indices and rows are inside their arrays, and columns inside the panel.
        unsafe {
            let entries = if QUADS { 1 } else { 4 };
            let mut indices = band.indices.as_ptr().add(group.start as usize * entries);
            let mut weights = band.weights.as_ptr().add(group.start as usize * ROWS * 4);
            let panel = band.panel.as_ptr().add(group.base as usize * TOKENS);
            let init = band.init.as_ptr().add(group.row as usize);
            let start = if ROWS == 4 { S::each_part(init.cast()) } else { S::splat(*init) };
            let mut acc = [start; VECS];
            let mut len = group.len;
            if const { S::ONE_INSTRUCTION && VECS <= 2 } {
                // One or two chains of dot products would wait for each other: odd entries have sums of their own.
                let mut odd = [S::splat(0); VECS];
                while len >= 2 {
                    entry::<S, QUADS, ROWS, TOKENS, VECS>(&mut acc, panel, indices, weights);
                    let (next, more) = (indices.add(entries), weights.add(4 * ROWS));
                    entry::<S, QUADS, ROWS, TOKENS, VECS>(&mut odd, panel, next, more);
                    indices = indices.add(2 * entries);
                    weights = weights.add(8 * ROWS);
                    len -= 2;
                }
                for v in 0..VECS {
                    acc[v] = S::add(acc[v], odd[v]);
                }
            }
            for _ in 0..len {
                entry::<S, QUADS, ROWS, TOKENS, VECS>(&mut acc, panel, indices, weights);
                indices = indices.add(entries);
                weights = weights.add(4 * ROWS);
            }
            store::<S, ROWS, TOKENS, VECS>(&acc, group, out.add(group.row as usize - band.first_row));
        }
    }
}

/// Registers of sums: of four rows a 16-byte part for each token, of one row a lane for each.
pub const fn registers(lanes: usize, rows: usize, tokens: usize) -> usize {
    (rows * tokens).div_ceil(lanes)
}

/// Adds an entry: the four bytes of each token times the four weights of each row.
///
/// # Safety
/// The entry is inside the indices and weights, and its columns inside the panel.
#[inline(always)]
unsafe fn entry<S: Simd, const QUADS: bool, const ROWS: usize, const TOKENS: usize, const VECS: usize>(
    acc: &mut [S::V; VECS],
    panel: *const u8,
    indices: *const u16,
    weights: *const u8,
) {
    // SAFETY: the caller vouches for the entry.
    unsafe {
        let x = if QUADS {
            let quads = panel.add(usize::from(*indices) * (4 * TOKENS));
            if ROWS == 1 {
                S::load_tokens::<TOKENS, VECS>(quads)
            } else {
                let mut x = [S::repeat::<4>(quads); VECS];
                for v in 1..VECS {
                    x[v] = S::repeat::<4>(quads.add(v * S::LANES));
                }
                x
            }
        } else {
            // One load for four indices: the compiler would gather them in a vector register and extract them again.
            let four = indices.cast::<u64>().read_unaligned();
            let line = |i: u32| (four >> (16 * i) & 0xffff) as usize * TOKENS;
            let lines = [panel.add(line(0)), panel.add(line(1)), panel.add(line(2)), panel.add(line(3))];
            if ROWS == 1 {
                S::gather_tokens::<TOKENS, VECS>(lines)
            } else {
                S::each_token::<TOKENS, VECS>(lines)
            }
        };
        if ROWS == 4 {
            let w = S::w(S::each_part(weights));
            for v in 0..VECS {
                acc[v] = S::dot(acc[v], S::x(x[v]), w);
            }
        } else {
            let w = S::quad(weights);
            for v in 0..VECS {
                acc[v] = S::dot_quad::<0>(acc[v], S::x(x[v]), w);
            }
        }
    }
}

/// Stores the sums of a group.
///
/// # Safety
/// There is room for the group's rows of every token at `out`.
#[inline(always)]
unsafe fn store<S: Simd, const ROWS: usize, const TOKENS: usize, const VECS: usize>(
    acc: &[S::V; VECS],
    group: &Group,
    out: *mut i32,
) {
    // SAFETY: the caller vouches for the room; rows beyond those of the group belong to others and are not written.
    unsafe {
        if ROWS == 4 && group.rows == 4 {
            for v in 0..VECS {
                S::store_parts(out.add(v * (S::LANES / 4) * STRIDE).cast(), STRIDE * 4, acc[v]);
            }
            return;
        }
        let mut sums = [MaybeUninit::<i32>::uninit(); 32];
        for v in 0..VECS {
            S::store(sums.as_mut_ptr().add(v * S::LANES).cast(), acc[v]);
        }
        for t in 0..TOKENS {
            // Not a loop of as many rows, of which the compiler would make a call.
            for r in 0..ROWS {
                if r < group.rows as usize {
                    *out.add(t * STRIDE + r) = sums.get_unchecked(t * ROWS + r).assume_init();
                }
            }
        }
    }
}
