//! Block-sparse layers of floats for one token (GEMV), whose panel is its row of x.
//!
//! ```text
//! for each row n of the band, over the stored columns k of n in ascending order:
//!     out[n] = fma(x[k], w[n][k], out[n])
//! with scales by groups of K:  out[n] = sum over groups g:  scale[g][n] * (sum over the columns of g)
//! ```
//!
//! A sum is one chain of fused multiply-adds, each of which waits for the one before, so [`gather`] computes several groups at a
//! time.

use super::float::{Band, Columns};
use super::simd::Simd;
use super::sparse::Group;

/// The values that the sums of a group start from: 0, or, in a later part of its rows without scales, those in `out`.
#[inline(always)]
unsafe fn begin<S: Simd>(band: &Band<'_>, group: &Group, out: *const f32) -> S::R {
    let mut start = [0.0; 4];
    // SAFETY: the caller of `gather` vouches for the tier and for `out`, which has all rows of the groups.
    unsafe {
        if group.base > 0 && band.scales.is_none() {
            for r in 0..group.rows as usize {
                start[r] = *out.add(group.row as usize + r - band.first_row);
            }
        }
        S::load_r::<4>(start.as_ptr())
    }
}

/// Adds the entries of a group from number `done` on, and stores its sums.
#[inline(always)]
unsafe fn finish<S: Simd, const ROWS: usize>(
    band: &Band<'_>,
    group: &Group,
    done: usize,
    mut sums: S::R,
    out: *mut f32,
) {
    // SAFETY: the caller of `gather` vouches for the tier, for the entries of the group, its rows in `out` and its scales.
    unsafe {
        let x = band.panel.as_ptr().cast::<f32>().add(group.base as usize);
        let indices = band.indices.as_ptr().add(group.start as usize);
        let weights = band.weights_of(group, ROWS);
        for e in done..group.len as usize {
            let w = S::load_r::<ROWS>(weights.add(ROWS * e));
            sums = S::add_product(sums, x.add(usize::from(*indices.add(e))), w);
        }
        let to = out.add(group.row as usize - band.first_row);
        if group.rows as usize == ROWS && band.scales.is_none() {
            return S::store_r::<ROWS>(to, sums);
        }
        let mut rows = [0.0; 4];
        S::store_r::<4>(rows.as_mut_ptr(), sums);
        for r in 0..group.rows as usize {
            let to = to.add(r);
            *to = match band.scales {
                None => rows[r],
                Some(scales) => {
                    let scale = *scales.get_unchecked(band.scale_row(group) + r);
                    rows[r].mul_add(scale, if group.base > 0 { *to } else { 0.0 })
                }
            };
        }
    }
}

/// Adds four entries: of any columns of x, or of four neighbouring ones.
#[inline(always)]
unsafe fn add_four<S: Simd, const ROWS: usize, const ADJACENT: bool>(
    mut sums: S::R,
    x: *const f32,
    indices: *const u16,
    weights: *const f32,
) -> S::R {
    // SAFETY: the caller of `gather` vouches for the tier and for the entries: their indices, weights, and columns of x.
    unsafe {
        // One load for four indices.
        let four = if ADJACENT { 0 } else { indices.cast::<u64>().read_unaligned() };
        for i in 0..4 {
            let column =
                if ADJACENT { usize::from(*indices) + i } else { (four >> (16 * i)) as usize & 0xffff };
            sums = S::add_product(sums, x.add(column), S::load_r::<ROWS>(weights.add(ROWS * i)));
        }
        sums
    }
}

/// Adds entries `done .. to` of `N` groups side by side, both multiples of 4.
#[inline(always)]
unsafe fn add<S: Simd, const ROWS: usize, const ADJACENT: bool, const N: usize>(
    band: &Band<'_>,
    groups: &[Group; N],
    mut sums: [S::R; N],
    entries: (usize, usize),
) -> [S::R; N] {
    // SAFETY: the caller of `gather` vouches for the entries of the groups, whose columns of K begin at the same one.
    unsafe {
        let x = band.panel.as_ptr().cast::<f32>().add(groups[0].base as usize);
        let mut indices = [band.indices.as_ptr(); N];
        let mut weights = [std::ptr::null(); N];
        for g in 0..N {
            indices[g] = indices[g].add(groups[g].start as usize);
            weights[g] = band.weights_of(&groups[g], ROWS);
        }
        let mut e = entries.0;
        while e < entries.1 {
            for g in 0..N {
                sums[g] =
                    add_four::<S, ROWS, ADJACENT>(sums[g], x, indices[g].add(e), weights[g].add(ROWS * e));
            }
            e += 4;
        }
        sums
    }
}

/// The entries that all of some groups have, rounded down to a multiple of 4.
#[inline(always)]
fn least(groups: &[Group]) -> usize {
    let mut least = groups[0].len;
    for group in groups {
        least = least.min(group.len);
    }
    least as usize / 4 * 4
}

/// The sums of all groups, `[row]`: of `GROUPS` side by side, then of each `HALF` of them. `ADJACENT`: every four entries of a group
/// are neighbouring columns.
///
/// # Safety
/// The caller keeps the promises of [`super::float::gather`], with one token; `HALF` is half of `GROUPS`.
#[inline(always)]
pub unsafe fn gather<
    S: Simd,
    const ROWS: usize,
    const ADJACENT: bool,
    const GROUPS: usize,
    const HALF: usize,
>(
    band: &Band<'_>,
    out: *mut f32,
) {
    // Groups with a larger base are later parts of rows, come later in the list, and need the sums of the parts
    // before.
    for same in band.groups.chunk_by(|a, b| a.base == b.base) {
        let (several, rest) = same.as_chunks::<GROUPS>();
        // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for all its rows in `out`.
        unsafe {
            for groups in several {
                let mut sums = [begin::<S>(band, &groups[0], out); GROUPS];
                for g in 1..GROUPS {
                    sums[g] = begin::<S>(band, &groups[g], out);
                }
                let all = least(groups);
                let sums = add::<S, ROWS, ADJACENT, GROUPS>(band, groups, sums, (0, all));
                // Neighbours have about the same length: halves of them can go on together.
                for half in 0..2 {
                    let (mut four, mut own) = ([groups[HALF * half]; HALF], [sums[HALF * half]; HALF]);
                    for g in 0..HALF {
                        (four[g], own[g]) = (groups[HALF * half + g], sums[HALF * half + g]);
                    }
                    let done = least(&four);
                    let own = add::<S, ROWS, ADJACENT, HALF>(band, &four, own, (all, done));
                    for g in 0..HALF {
                        finish::<S, ROWS>(band, &four[g], done, own[g], out);
                    }
                }
            }
            for group in rest {
                finish::<S, ROWS>(band, group, 0, begin::<S>(band, group, out), out);
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
