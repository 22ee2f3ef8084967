//! Block-sparse layers of bytes: two groups of four rows each that share their columns, times a panel of 64 tokens.
//!
//! ```text
//! for each group of up to 8 rows, for each token t of the panel:
//!     sum[r][t] = init[row + r] + sum over entries e, i in 0..4:  w[r / 4][e][r % 4][i] * x[t][column(e, i)]
//! ```
//!
//! The four columns of an entry are interleaved once for eight rows instead of four, half of each line at a time: all sums
//! of 8 rows and 32 tokens fit in registers. So there are 4 shuffles for 16 dot products where `sparse` has 8, and on cores that
//! shuffle in one of the two ports that also multiply, that is what binds.
//!
//! Both groups stay what they are, one behind the other, each with its own indices and weights: narrower panels take them one
//! by one. Here the indices of the second one, which are the same, are not needed.

use super::epilogue::Finish;
use super::simd::Simd;
use super::sparse::{Band, Bytes, Group, KMajor, Layout, Spill, Store};

/// Rows of a group here.
pub const ROWS: usize = 8;

/// Adds an entry to the sums of all rows. `weights` are those of each four rows.
#[inline(always)]
unsafe fn entry<S: Simd>(acc: &mut [[S::V; 2]; ROWS], x: [S::X; 2], weights: [*const u8; 2]) {
    for r in 0..ROWS {
        // SAFETY: the caller vouches for the tier and for an entry of weights of both fours.
        unsafe {
            let w = S::quad(weights[r / 4].add(4 * (r % 4)));
            for v in 0..2 {
                acc[r][v] = S::dot_quad::<0>(acc[r][v], x[v], w);
            }
        }
    }
}

/// Registers `2 HI ..` of the sums of a group.
#[inline(always)]
unsafe fn half<S: Simd, const HI: usize>(band: &Band<'_>, group: &Group) -> [[S::V; 2]; ROWS] {
    // SAFETY: the driver built the band: entries, indices and rows of both fours are inside their arrays, and there is an
    // entry.
    unsafe {
        let (start, len) = (group.start as usize, group.len as usize);
        let mut indices = band.indices.as_ptr().add(start * KMajor::INDICES);
        let mut upper = band.weights.as_ptr().add(start * 16);
        let mut lower = upper.add(len * 16);
        let panel = band.panel.as_ptr().add(group.base as usize * KMajor::TOKENS);
        let init = band.init.as_ptr().add(group.row as usize);
        let mut acc = [[S::splat(*init); 2]; ROWS];
        for r in 1..ROWS {
            acc[r] = [S::splat(*init.add(r)); 2];
        }
        // An entry ahead: what is interleaved is there when its products start. Behind the last one is the first of the other
        // group, whose columns are the same.
        let mut x = KMajor::quads::<S, 2, HI>(panel, indices, 0);
        for _ in 0..len {
            indices = indices.add(KMajor::INDICES);
            let next = KMajor::quads::<S, 2, HI>(panel, indices, 0);
            entry::<S>(&mut acc, x, [upper, lower]);
            upper = upper.add(16);
            lower = lower.add(16);
            x = next;
        }
        acc
    }
}

/// All groups of a band.
#[inline(always)]
unsafe fn groups<S: Simd, F: Store>(band: &Band<'_>, finish: &F) {
    const { assert!(S::LANES == 16) };
    for group in band.groups {
        // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for room in the
        // output.
        unsafe {
            // Sums of half a line wait for those of the other: a whole one is finished at once.
            let low = half::<S, 0>(band, group);
            let high = half::<S, 1>(band, group);
            for r in 0..ROWS {
                if r < group.rows as usize {
                    let line = [low[r][0], low[r][1], high[r][0], high[r][1]];
                    finish.row::<S, KMajor, 4, 0>(&line, group, r, 0);
                }
            }
        }
    }
}

/// The exact sums of all groups, `[row][64]`.
///
/// # Safety
/// As for `sparse::spill`, where a group has up to 8 rows, and at least one entry: there are `len` entries of four rows from
/// `start` on, and as many behind them, of the same columns, whose weights are those of the other four rows.
#[inline(always)]
pub unsafe fn spill<S: Simd>(band: &Band<'_>, out: *mut i32) {
    // SAFETY: the caller promises what `groups` asks for.
    unsafe { groups::<S, Spill>(band, &Spill { out, first_row: band.first_row }) }
}

/// The bytes of the next layer's input, `[row][64]`, from the sums of all groups, where no curved activation is asked
/// for.
///
/// # Safety
/// The caller keeps the promises of [`spill`], with 64 bytes a row at `out`; `finish` has parameters for all features
/// of the groups.
#[inline(always)]
pub unsafe fn requantize<S: Simd>(band: &Band<'_>, finish: &Finish<'_>, out: *mut u8) {
    let bytes = Bytes { out, first_row: band.first_row, finish: *finish };
    // SAFETY: the caller promises what `groups` asks for.
    unsafe { groups::<S, Bytes<'_>>(band, &bytes) }
}
