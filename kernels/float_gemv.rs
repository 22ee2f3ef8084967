//! Block-sparse layers of floats for one token (GEMV), whose panel is its row.
//!
//! A sum is one chain of fused multiply-adds, which waits for itself; so the rows of four groups go side by side. Plain
//! Rust over arrays, which the compiler makes vectors of.

use super::float::{Band, Columns};
use super::sparse::Group;

/// One entry: a number of x times the weights of each row. Pointers and sums are values of their own, or the compiler
/// would keep them in memory.
#[inline(always)]
unsafe fn step<const ROWS: usize>(
    acc: &mut [f32; ROWS],
    x: *const f32,
    index: *const u16,
    weights: *const [f32; ROWS],
) {
    // SAFETY: as `gather`.
    unsafe {
        let x = *x.add(usize::from(*index));
        let w = weights.read_unaligned();
        for r in 0..ROWS {
            acc[r] = x.mul_add(w[r], acc[r]);
        }
    }
}

/// What a group's sums start from.
#[inline(always)]
unsafe fn begin<const ROWS: usize>(band: &Band<'_>, group: &Group, out: *const f32) -> [f32; ROWS] {
    let mut acc = [0.0; ROWS];
    if group.base > 0 && band.scales.is_none() {
        for r in 0..group.rows as usize {
            // SAFETY: as `gather`.
            acc[r] = unsafe { *out.add(group.row as usize + r - band.first_row) };
        }
    }
    acc
}

/// The entries of a group from `done`, and its end.
#[inline(always)]
unsafe fn finish<const ROWS: usize>(
    band: &Band<'_>,
    group: &Group,
    done: usize,
    mut acc: [f32; ROWS],
    out: *mut f32,
) {
    // SAFETY: as `gather`.
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
/// As [`super::float::gather`].
#[inline(always)]
pub unsafe fn gather<const ROWS: usize>(band: &Band<'_>, out: *mut f32) {
    // Later parts of rows need what the earlier ones left, and are behind them.
    for same in band.groups.chunk_by(|a, b| a.base == b.base) {
        let (fours, rest) = same.as_chunks::<4>();
        // SAFETY: as the caller.
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
/// As [`super::float::scatter`].
#[inline(always)]
pub unsafe fn scatter(columns: &Columns<'_>, rows: usize, out: *mut f32) {
    // SAFETY: as the caller.
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
