//! Block-sparse layers of bytes for one token (GEMV), whose panel is its row of x.
//!
//! ```text
//! for each group, for each of its rows r:
//!     out[row + r - first_row] = init[row + r] + sum over entries e, i in 0..4:  w[e][r][i] * x[column(e, i)]
//! ```
//!
//! The columns of x are gathered into memory first, four bytes for each entry, and then multiplied by registers of
//! weights. Where the tier has byte permutations (`Simd::LOOKS_UP`) and enough columns are stored, x is looked up in
//! registers instead.

use super::simd::Simd;
use super::sparse::{Band, Layout, index};

/// The number of gathered entries of a group is rounded up to a multiple of this.
pub const GATHER: usize = 16;

/// The exact sums of all groups for one token, at `out[row - first_row]`. The band's panel is the plain row of the
/// token.
///
/// The four bytes of every entry are gathered into `quads` first, then the rows are multiplied.
///
/// # Safety
/// The caller keeps the promises of `sparse::spill`, with one token; `quads` has room for the entries of each group
/// rounded up to [`GATHER`], and for as many more.
#[inline(always)]
pub unsafe fn gemv<S: Simd, L: Layout, const ROWS: usize>(band: &Band<'_>, quads: *mut u32, out: *mut i32) {
    // SAFETY: the driver built the band, whose entries are inside its arrays; the caller vouches for the room in
    // `quads`.
    unsafe {
        let least = S::LOOKS_UP[usize::from(L::INDICES == 1)];
        // Groups are ordered by length: the one in the middle stands for all.
        let middle = band.groups.get(band.groups.len() / 2).map_or(0, |g| g.len as usize);
        if least < 256 && 256 * 4 * middle >= least * band.panel.len() {
            return looked_up::<S, L, ROWS>(band, out);
        }
        let mut to = quads;
        for group in band.groups {
            let x = band.panel.as_ptr().add(group.base as usize);
            let len = group.len as usize;
            let indices = band.indices.as_ptr().add(group.start as usize * L::INDICES);
            let fours = if L::INDICES == 4 { len / 4 * 4 } else { 0 };
            for e in (0..fours).step_by(4) {
                S::gather4(x, indices.add(e * 4), to.add(e));
            }
            for e in fours..len {
                *to.add(e) = gather::<L>(x, indices.add(e * L::INDICES));
            }
            for i in 0..GATHER {
                *to.add(len + i) = 0;
            }
            to = to.add(len.next_multiple_of(GATHER));
        }
        let mut from = quads.cast::<u8>().cast_const();
        for group in band.groups {
            let len = group.len as usize;
            let weights = band.weights.as_ptr().cast::<i8>().add(group.start as usize * ROWS * 4);
            let sums = rows::<S, ROWS>(from, weights, len);
            for r in 0..group.rows as usize {
                let row = group.row as usize + r;
                *out.add(row - band.first_row) = sums[r].wrapping_add(*band.init.get_unchecked(row));
            }
            from = from.add(4 * len.next_multiple_of(GATHER));
        }
    }
}

/// [`gemv`] with x looked up in registers, without `quads`.
#[inline(always)]
unsafe fn looked_up<S: Simd, L: Layout, const ROWS: usize>(band: &Band<'_>, out: *mut i32) {
    for group in band.groups {
        // SAFETY: the caller keeps the promises of `gemv`: entries of the groups are inside the arrays, `out` has a
        // place for each row.
        unsafe {
            let x = band.panel.get_unchecked(group.base as usize..);
            let indices = band.indices.as_ptr().add(group.start as usize * L::INDICES);
            let weights = band.weights.as_ptr().cast::<i8>().add(group.start as usize * ROWS * 4);
            let len = group.len as usize;
            let sums = if L::INDICES == 1 {
                S::token::<ROWS, true>(x, indices, weights, len)
            } else {
                S::token::<ROWS, false>(x, indices, weights, len)
            };
            for r in 0..group.rows as usize {
                let row = group.row as usize + r;
                *out.add(row - band.first_row) = sums[r].wrapping_add(*band.init.get_unchecked(row));
            }
        }
    }
}

/// The four bytes of x of one entry.
#[inline(always)]
unsafe fn gather<L: Layout>(x: *const u8, indices: *const u16) -> u32 {
    // SAFETY: the driver made the indices, which are columns of the token.
    unsafe {
        if const { L::INDICES == 1 } {
            return x.add(index(indices, 0) * 4).cast::<u32>().read_unaligned();
        }
        let four = indices.cast::<u64>().read_unaligned();
        let byte = |at: u64| u32::from(*x.add((at & 0xffff) as usize));
        byte(four) | byte(four >> 16) << 8 | byte(four >> 32) << 16 | byte(four >> 48) << 24
    }
}

/// The sums of up to 4 rows over `len` entries. `quads` holds four bytes of x for each entry, and zeros from there to
/// a multiple of [`GATHER`].
#[inline(always)]
unsafe fn rows<S: Simd, const ROWS: usize>(quads: *const u8, weights: *const i8, len: usize) -> [i32; 4] {
    // Entries in a register of weights. Weights behind the last entry are those of another group, or padding: the
    // gathered bytes are zero there.
    let along = S::LANES / ROWS;
    let mut lanes = [0i32; 16];
    // SAFETY: the driver's arrays of weights and gathered bytes can be read a whole register past the last entry.
    unsafe {
        let mut acc = [S::splat(0); 2];
        let mut e = 0;
        while e < len {
            for acc in &mut acc {
                if e < len {
                    let w = S::load(weights.add(e * ROWS * 4).cast());
                    *acc = S::dot(*acc, S::x(S::repeat::<ROWS>(quads.add(4 * e))), S::w(w));
                }
                e += along;
            }
        }
        S::store(lanes.as_mut_ptr().cast(), S::add(acc[0], acc[1]));
    }
    let mut sums = [0i32; 4];
    for (l, lane) in lanes.iter().enumerate().take(S::LANES) {
        sums[l % ROWS] = sums[l % ROWS].wrapping_add(*lane);
    }
    sums
}
