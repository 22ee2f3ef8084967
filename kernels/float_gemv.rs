//! Block-sparse layers of floats for one token (GEMV), whose panel is its row of x.
//!
//! ```text
//! for each row n of the band, over the stored columns k of n in ascending order:
//!     out[n] = fma(x[k], w[n][k], out[n])
//! with scales by groups of K:  out[n] = sum over groups g:  scale[g][n] * (sum over the columns of g)
//! ```
//!
//! A sum is one chain of fused multiply-adds, each of which waits for the one before, so [`gather`] computes four
//! groups at a time. The code is plain Rust over arrays, which the compiler vectorizes.

use super::float::{Band, Columns};
use super::sparse::Group;

/// Adds one entry: a number of x times the weights of each row. Pointers and sums are separate values, because the
/// compiler would otherwise keep them in memory.
#[inline(always)]
unsafe fn step<const ROWS: usize>(
    acc: &mut [f32; ROWS],
    x: *const f32,
    index: *const u16,
    weights: *const [f32; ROWS],
) {
    // SAFETY: the caller of `gather` vouches for the entry: its index, its weights, and its column of x.
    unsafe {
        let x = *x.add(usize::from(*index));
        let w = weights.read_unaligned();
        for r in 0..ROWS {
            acc[r] = x.mul_add(w[r], acc[r]);
        }
    }
}

/// The values that the sums of a group start from: 0, or, in a later part of its rows without scales, those in `out`.
#[inline(always)]
unsafe fn begin<const ROWS: usize>(band: &Band<'_>, group: &Group, out: *const f32) -> [f32; ROWS] {
    let mut acc = [0.0; ROWS];
    if group.base > 0 && band.scales.is_none() {
        for r in 0..group.rows as usize {
            // SAFETY: the caller of `gather` vouches for `out`, which has all rows of the groups.
            acc[r] = unsafe { *out.add(group.row as usize + r - band.first_row) };
        }
    }
    acc
}

/// Adds the entries of a group from number `done` on, and stores its sums.
#[inline(always)]
unsafe fn finish<const ROWS: usize>(
    band: &Band<'_>,
    group: &Group,
    done: usize,
    mut acc: [f32; ROWS],
    out: *mut f32,
) {
    // SAFETY: the caller of `gather` vouches for the entries of the group, its rows in `out` and its scales.
    unsafe {
        let x = band.panel.as_ptr().cast::<f32>().add(group.base as usize);
        let indices = band.indices.as_ptr().add(group.start as usize);
        let weights = band.weights_of::<ROWS>(group);
        for e in done..group.len as usize {
            step::<ROWS>(&mut acc, x, indices.add(e), weights.add(e));
        }
        for r in 0..group.rows as usize {
            let row = group.row as usize + r;
            let to = out.add(row - band.first_row);
            *to = match band.scales {
                None => acc[r],
                Some(scales) => {
                    let scale = *scales.get_unchecked(band.scale_row(group) + r);
                    acc[r].mul_add(scale, if group.base > 0 { *to } else { 0.0 })
                }
            };
        }
    }
}

/// The sums of all groups, `[row]`.
///
/// # Safety
/// The caller keeps the promises of [`super::float::gather`], with one token.
#[inline(always)]
pub unsafe fn gather<const ROWS: usize>(band: &Band<'_>, out: *mut f32) {
    // Groups with a larger base are later parts of rows, come later in the list, and need the sums of the parts
    // before.
    for same in band.groups.chunk_by(|a, b| a.base == b.base) {
        let (fours, rest) = same.as_chunks::<4>();
        // SAFETY: the caller vouches for a band whose entries are inside its arrays, and for all its rows in `out`.
        unsafe {
            for four in fours {
                let x = band.panel.as_ptr().cast::<f32>().add(four[0].base as usize);
                let mut indices = [band.indices.as_ptr(); 4];
                let mut weights = [std::ptr::null(); 4];
                let mut acc = [[0.0; ROWS]; 4];
                let mut least = four[0].len;
                for g in 0..4 {
                    indices[g] = indices[g].add(four[g].start as usize);
                    weights[g] = band.weights_of::<ROWS>(&four[g]);
                    acc[g] = begin(band, &four[g], out);
                    least = least.min(four[g].len);
                }
                for e in 0..least as usize {
                    for g in 0..4 {
                        step::<ROWS>(&mut acc[g], x, indices[g].add(e), weights[g].add(e));
                    }
                }
                for g in 0..4 {
                    finish::<ROWS>(band, &four[g], least as usize, acc[g], out);
                }
            }
            for group in rest {
                finish::<ROWS>(band, group, 0, begin(band, group, out), out);
            }
        }
    }
}

/// The sums of `rows` rows of single-row blocks, `[row]`.
///
/// # Safety
/// The caller keeps the promises of [`super::float::scatter`], with one token and four columns a chunk.
#[inline(always)]
pub unsafe fn scatter(columns: &Columns<'_>, rows: usize, out: *mut f32) {
    // SAFETY: the caller vouches for chunks whose columns, rows and weights exist, and for `rows` numbers at `out`.
    unsafe {
        out.write_bytes(0, rows);
        let (mut row, mut weights) = (columns.rows, columns.weights.cast::<[f32; 4]>());
        for chunk in columns.chunks {
            let x = columns.panel.as_ptr().cast::<[f32; 4]>().add(chunk.quad as usize).read_unaligned();
            for _ in 0..chunk.rows {
                let to = out.add(usize::from(*row));
                let w = weights.read_unaligned();
                let mut acc = *to;
                for i in 0..4 {
                    acc = x[i].mul_add(w[i], acc);
                }
                *to = acc;
                row = row.add(1);
                weights = weights.add(1);
            }
        }
    }
}
