//! Block-sparse layers of floats for one token (GEMV), whose panel is its row of x, or for panels of four.
//!
//! ```text
//! for each row n of the band, for each token t, over the stored columns k of n in ascending order:
//!     out[n][t] = fma(x[k][t], w[n][k], out[n][t])
//! with scales by groups of K:  out[n][t] = sum over groups g:  scale[g][n] * (sum over the columns of g)
//! ```
//!
//! A register of four floats ([`Simd::R`]) holds the sums of the rows of a group for one token, or those of one row for four tokens.
//! A sum is one chain of fused multiply-adds, each of which waits for the one before, so [`gather`] computes several groups at a
//! time.

use super::float::{Band, Columns};
use super::simd::Simd;
use super::sparse::Group;

/// The values that the sums of a group start from: 0, or, in a later part of its rows without scales, those in `out`.
#[inline(always)]
unsafe fn begin<S: Simd, const TOKENS: usize, const VECS: usize>(
    band: &Band<'_>,
    group: &Group,
    out: *const f32,
) -> [S::R; VECS] {
    const NOTHING: [f32; 4] = [0.0; 4];
    // SAFETY: the caller of `gather` vouches for the tier and for `out`, which has all rows of the groups.
    unsafe {
        let mut sums = [S::load_r::<4>(NOTHING.as_ptr()); VECS];
        if group.base == 0 || band.scales.is_some() {
            return sums;
        }
        let from = out.add((group.row as usize - band.first_row) * TOKENS);
        if TOKENS == 1 {
            let mut start = NOTHING;
            for r in 0..group.rows as usize {
                start[r] = *from.add(r);
            }
            sums[0] = S::load_r::<4>(start.as_ptr());
        } else {
            for r in 0..VECS {
                if r < group.rows as usize {
                    sums[r] = S::load_r::<4>(from.add(r * TOKENS));
                }
            }
        }
        sums
    }
}

/// Adds one entry: a column of x times the weight of each row.
#[inline(always)]
unsafe fn add_entry<S: Simd, const ROWS: usize, const TOKENS: usize, const VECS: usize>(
    sums: &mut [S::R; VECS],
    x: *const f32,
    weights: *const f32,
) {
    // SAFETY: the caller of `gather` vouches for the tier, the column of the panel and a weight a row.
    unsafe {
        if TOKENS == 1 {
            sums[0] = S::add_product(sums[0], x, S::load_r::<ROWS>(weights));
        } else {
            let x = S::load_r::<4>(x);
            for r in 0..VECS {
                sums[r] = S::add_product(sums[r], weights.add(r), x);
            }
        }
    }
}

/// Adds the entries of a group from number `done` on, and stores its sums.
#[inline(always)]
unsafe fn finish<S: Simd, const ROWS: usize, const TOKENS: usize, const VECS: usize>(
    band: &Band<'_>,
    group: &Group,
    done: usize,
    mut sums: [S::R; VECS],
    out: *mut f32,
) {
    // SAFETY: the caller of `gather` vouches for the tier, for the entries of the group, its rows in `out` and its scales.
    unsafe {
        let x = band.panel.as_ptr().cast::<f32>().add(group.base as usize * TOKENS);
        let indices = band.indices.as_ptr().add(group.start as usize);
        let weights = band.weights_of(group, ROWS);
        for e in done..group.len as usize {
            let x = x.add(usize::from(*indices.add(e)) * TOKENS);
            add_entry::<S, ROWS, TOKENS, VECS>(&mut sums, x, weights.add(ROWS * e));
        }
        let to = out.add((group.row as usize - band.first_row) * TOKENS);
        if TOKENS == 1 && group.rows as usize == ROWS && band.scales.is_none() {
            return S::store_r::<ROWS>(to, sums[0]);
        }
        // One token's rows lie side by side: one by one, for there may be fewer than a register has.
        let mut rows = [[0.0; 4]; VECS];
        for r in 0..VECS {
            S::store_r::<4>(rows[r].as_mut_ptr(), sums[r]);
        }
        for r in 0..group.rows as usize {
            for t in 0..TOKENS {
                let to = to.add(r * TOKENS + t);
                let sum = if TOKENS == 1 { rows[0][r] } else { rows[r][t] };
                *to = match band.scales {
                    None => sum,
                    Some(scales) => {
                        let scale = *scales.get_unchecked(band.scale_row(group) + r);
                        sum.mul_add(scale, if group.base > 0 { *to } else { 0.0 })
                    }
                };
            }
        }
    }
}

/// Adds four entries: of any columns of x, or of four neighbouring ones.
#[inline(always)]
unsafe fn add_four<
    S: Simd,
    const ROWS: usize,
    const TOKENS: usize,
    const VECS: usize,
    const ADJACENT: bool,
>(
    sums: &mut [S::R; VECS],
    x: *const f32,
    indices: *const u16,
    weights: *const f32,
) {
    // SAFETY: the caller of `gather` vouches for the tier and for the entries: their indices, weights, and columns of x.
    unsafe {
        // One load for four indices.
        let four = if ADJACENT { 0 } else { indices.cast::<u64>().read_unaligned() };
        for i in 0..4 {
            let column =
                if ADJACENT { usize::from(*indices) + i } else { (four >> (16 * i)) as usize & 0xffff };
            add_entry::<S, ROWS, TOKENS, VECS>(sums, x.add(column * TOKENS), weights.add(ROWS * i));
        }
    }
}

/// Adds entries `done .. to` of `N` groups side by side, both multiples of 4.
#[inline(always)]
unsafe fn add<
    S: Simd,
    const ROWS: usize,
    const TOKENS: usize,
    const VECS: usize,
    const ADJACENT: bool,
    const N: usize,
>(
    band: &Band<'_>,
    groups: &[Group; N],
    mut sums: [[S::R; VECS]; N],
    (done, to): (usize, usize),
) -> [[S::R; VECS]; N] {
    // SAFETY: the caller of `gather` vouches for the entries of the groups, whose columns of K begin at the same one.
    unsafe {
        let x = band.panel.as_ptr().cast::<f32>().add(groups[0].base as usize * TOKENS);
        let mut indices = [band.indices.as_ptr(); N];
        let mut weights = [std::ptr::null(); N];
        for g in 0..N {
            indices[g] = indices[g].add(groups[g].start as usize);
            weights[g] = band.weights_of(&groups[g], ROWS);
        }
        let mut e = done;
        while e < to {
            for g in 0..N {
                let (indices, weights) = (indices[g].add(e), weights[g].add(ROWS * e));
                add_four::<S, ROWS, TOKENS, VECS, ADJACENT>(&mut sums[g], x, indices, weights);
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

/// The sums of all groups, `[row][TOKENS]`, in `VECS` registers a group: of `GROUPS` side by side, then of each `HALF` of them.
/// `ADJACENT`: every four entries of a group are neighbouring columns.
///
/// # Safety
/// The caller keeps the promises of [`super::float::gather`], with panels of one token or four; `VECS` is 1 of one token, and `ROWS` of
/// four; `HALF` is half of `GROUPS`.
#[inline(always)]
pub unsafe fn gather<
    S: Simd,
    const ROWS: usize,
    const TOKENS: usize,
    const VECS: usize,
    const ADJACENT: bool,
    const GROUPS: usize,
    const HALF: usize,
>(
    band: &Band<'_>,
    out: *mut f32,
) {
    const { assert!(VECS == if TOKENS == 1 { 1 } else { ROWS } && GROUPS == 2 * HALF) };
    // Groups with a larger base are later parts of rows, come later in the list, and need the sums of the parts
    // before.
    for same in band.groups.chunk_by(|a, b| a.base == b.base) {
        let (several, rest) = same.as_chunks::<GROUPS>();
        // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for all its rows in `out`.
        unsafe {
            for groups in several {
                let mut sums = [begin::<S, TOKENS, VECS>(band, &groups[0], out); GROUPS];
                for g in 1..GROUPS {
                    sums[g] = begin::<S, TOKENS, VECS>(band, &groups[g], out);
                }
                let all = least(groups);
                let sums = add::<S, ROWS, TOKENS, VECS, ADJACENT, GROUPS>(band, groups, sums, (0, all));
                // Neighbours have about the same length: halves of them can go on together.
                for half in 0..2 {
                    let (mut some, mut own) = ([groups[HALF * half]; HALF], [sums[HALF * half]; HALF]);
                    for g in 0..HALF {
                        (some[g], own[g]) = (groups[HALF * half + g], sums[HALF * half + g]);
                    }
                    let done = least(&some);
                    let own = add::<S, ROWS, TOKENS, VECS, ADJACENT, HALF>(band, &some, own, (all, done));
                    for g in 0..HALF {
                        finish::<S, ROWS, TOKENS, VECS>(band, &some[g], done, own[g], out);
                    }
                }
            }
            for group in rest {
                let sums = begin::<S, TOKENS, VECS>(band, group, out);
                finish::<S, ROWS, TOKENS, VECS>(band, group, 0, sums, out);
            }
        }
    }
}

/// The sums of `rows` rows of single-row blocks, `[row][TOKENS]`.
///
/// # Safety
/// The caller keeps the promises of [`super::float::scatter`], with panels of one token or four, and four columns a chunk.
#[inline(always)]
pub unsafe fn scatter<S: Simd, const TOKENS: usize>(columns: &Columns<'_>, rows: usize, out: *mut f32) {
    // SAFETY: the caller vouches for the tier, for chunks whose columns, rows and weights exist, and for `rows` rows at `out`.
    unsafe {
        out.write_bytes(0, rows * TOKENS);
        let (mut row, mut weights) = (columns.rows, columns.weights.cast::<[f32; 4]>());
        for chunk in columns.chunks {
            let x = columns.panel.as_ptr().cast::<f32>().add(4 * TOKENS * chunk.quad as usize);
            if TOKENS == 1 {
                let x = x.cast::<[f32; 4]>().read_unaligned();
                for _ in 0..chunk.rows {
                    let to = out.add(usize::from(*row));
                    let w = weights.read_unaligned();
                    let mut sum = *to;
                    for i in 0..4 {
                        sum = x[i].mul_add(w[i], sum);
                    }
                    *to = sum;
                    row = row.add(1);
                    weights = weights.add(1);
                }
                continue;
            }
            let mut lines = [S::load_r::<4>(x); 4];
            for i in 1..4 {
                lines[i] = S::load_r::<4>(x.add(TOKENS * i));
            }
            for _ in 0..chunk.rows {
                let to = out.add(TOKENS * usize::from(*row));
                let mut sums = S::load_r::<4>(to);
                for i in 0..4 {
                    sums = S::add_product(sums, weights.cast::<f32>().add(i), lines[i]);
                }
                S::store_r::<4>(to, sums);
                row = row.add(1);
                weights = weights.add(1);
            }
        }
    }
}
