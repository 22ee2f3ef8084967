//! Block-sparse layers of floats: two loops over the stored columns, for every tier and both kinds of products.
//!
//! x comes in panels of 32 or 16 tokens, `[K][tokens]` of 4 bytes: a float, or a pair of bfloat16 of two neighbouring
//! columns. A *line* is the tokens of one of these, in their order.
//!
//! - [`gather`] keeps the sums of up to four rows in registers and fetches the lines of their columns. For blocks of
//!   more than one row, where a line that was loaded is used several times.
//! - [`scatter`] keeps the lines of four columns in registers and fetches the sums of the rows that have them. For blocks
//!   of one row: to gather, each product would load a line of its own.
//!
//! Both add in the order of K, so that a sum is the same chain of operations in either.

use super::dense::Product;
use super::simd::Simd;
use super::sparse::Group;

/// What both read: some rows of a layer, and one panel of x.
#[derive(Clone, Copy)]
pub struct Band<'a> {
    /// The groups to compute.
    pub groups: &'a [Group],
    /// A line number for each entry.
    pub indices: &'a [u16],
    /// `[entry][ROWS]`, 4 bytes each, from entry `first_entry` of the layer on.
    pub weights: *const u8,
    /// The entry of the layer that `weights` begin with.
    pub first_entry: usize,
    /// The panel.
    pub panel: &'a [u8],
    /// Where weights have scales by groups of K: `[group of K][scales_stride]`, by output feature.
    pub scales: Option<&'a [f32]>,
    /// Scales from a group of K to the next.
    pub scales_stride: usize,
    /// Lines of a group of K.
    pub scale_lines: usize,
    /// The feature that row 0 of the output stands for.
    pub first_row: usize,
}

impl Band<'_> {
    /// The weights of a group, `[entry][ROWS]`.
    ///
    /// # Safety
    /// The group is one of the band's, of `ROWS` rows.
    #[inline(always)]
    pub unsafe fn weights_of<const ROWS: usize>(&self, group: &Group) -> *const [f32; ROWS] {
        // SAFETY: the band holds the weights of all its groups.
        unsafe { self.weights.cast::<[f32; ROWS]>().add(group.start as usize - self.first_entry) }
    }

    /// Where the scales of a group's rows begin.
    #[inline(always)]
    pub fn scale_row(&self, group: &Group) -> usize {
        group.base as usize / self.scale_lines * self.scales_stride + group.row as usize
    }
}

/// Columns of a band that some single rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first column / 4.
    pub quad: u32,
    /// How many rows have it.
    pub rows: u32,
}

/// A band column by column.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// In the order of K.
    pub chunks: &'a [Chunk],
    /// Of each chunk, the rows that have it, counted from the band's first.
    pub rows: *const u8,
    /// Four columns' weights for each of `rows`.
    pub weights: *const u8,
    /// The panel.
    pub panel: &'a [u8],
}

/// The sums of all groups, `[row][TOKENS]`. A group whose base is not 0 adds to what is there.
///
/// # Safety
/// The CPU has the tier of `S`; the band's groups are inside its arrays and its panel; `out` has room for all rows of
/// the groups from `band.first_row`.
#[inline(always)]
pub unsafe fn gather<S: Simd, P: Product<S>, const ROWS: usize, const VECS: usize, const TOKENS: usize>(
    band: &Band<'_>,
    out: *mut f32,
) {
    // SAFETY: as the caller.
    unsafe {
        for group in band.groups {
            let start = group.start as usize;
            let panel = band.panel.as_ptr().add(group.base as usize * TOKENS * 4);
            let row = group.row as usize;
            let to = out.add((row - band.first_row) * TOKENS);
            let mut first = 0;
            while first < TOKENS {
                let mut indices = band.indices.as_ptr().add(start);
                let mut weights = band.weights_of::<ROWS>(group).cast::<u8>();
                let mut acc = [[P::zero(); VECS]; ROWS];
                // Without scales a later part goes on with the chains of the one before it.
                if group.base > 0 && band.scales.is_none() {
                    for r in 0..ROWS {
                        if r < group.rows as usize {
                            for v in 0..VECS {
                                acc[r][v] = P::load(to.add(r * TOKENS + first + v * S::LANES).cast());
                            }
                        }
                    }
                }
                let lines = panel.add(first * 4);
                let mut len = group.len;
                if ROWS > 1 && S::QUADS == 4 {
                    // Counting and addressing are a good part of an entry on these CPUs.
                    for _ in 0..len / 2 {
                        entry::<S, P, ROWS, VECS, TOKENS, 0>(&mut acc, lines, indices, weights);
                        entry::<S, P, ROWS, VECS, TOKENS, 1>(&mut acc, lines, indices, weights);
                        indices = indices.add(2);
                        weights = weights.add(8 * ROWS);
                    }
                    len %= 2;
                }
                for _ in 0..len {
                    entry::<S, P, ROWS, VECS, TOKENS, 0>(&mut acc, lines, indices, weights);
                    indices = indices.add(1);
                    weights = weights.add(4 * ROWS);
                }
                for r in 0..ROWS {
                    if r < group.rows as usize {
                        let to = to.add(r * TOKENS + first);
                        if let Some(scales) = band.scales {
                            let at = band.scale_row(group) + r;
                            let scale = S::splat_f(*scales.get_unchecked(at));
                            for v in 0..VECS {
                                let to = to.add(v * S::LANES).cast();
                                let before = if group.base > 0 { P::load(to) } else { P::zero() };
                                acc[r][v] = P::scale(acc[r][v], scale, before);
                            }
                        }
                        for v in 0..VECS {
                            P::store(to.add(v * S::LANES).cast(), acc[r][v]);
                        }
                    }
                }
                first += VECS * S::LANES;
            }
        }
    }
}

/// Entry `I`: its line times each row's 4 bytes of weights.
#[inline(always)]
unsafe fn entry<
    S: Simd,
    P: Product<S>,
    const ROWS: usize,
    const VECS: usize,
    const TOKENS: usize,
    const I: i32,
>(
    acc: &mut [[P::Acc; VECS]; ROWS],
    lines: *const u8,
    indices: *const u16,
    weights: *const u8,
) {
    // SAFETY: as `gather`.
    unsafe {
        let line = lines.add(usize::from(*indices.add(I as usize)) * (TOKENS * 4));
        let x = S::loads::<VECS, 0>(line);
        if S::QUADS == 4 && ROWS == 4 {
            let w = S::quads::<I>(weights);
            for v in 0..VECS {
                acc[0][v] = P::dot::<0>(acc[0][v], w, x[v]);
                acc[1][v] = P::dot::<1>(acc[1][v], w, x[v]);
                acc[2][v] = P::dot::<2>(acc[2][v], w, x[v]);
                acc[3][v] = P::dot::<3>(acc[3][v], w, x[v]);
            }
        } else {
            for r in 0..ROWS {
                let w = S::quad(weights.add(4 * (I as usize * ROWS + r)));
                for v in 0..VECS {
                    acc[r][v] = P::dot::<0>(acc[r][v], w, x[v]);
                }
            }
        }
    }
}

/// The sums of `rows` rows of single-row blocks, `[row][TOKENS]`, in `LINES` lines a chunk.
///
/// # Safety
/// The CPU has the tier of `S`; chunks, rows and weights belong together, and the panel has their lines; `out` has room
/// for `rows` rows, and no row is beyond them.
#[inline(always)]
pub unsafe fn scatter<S: Simd, P: Product<S>, const LINES: usize, const VECS: usize, const TOKENS: usize>(
    columns: &Columns<'_>,
    rows: usize,
    out: *mut f32,
) {
    // SAFETY: as the caller.
    unsafe {
        for v in 0..rows * TOKENS / S::LANES {
            P::store(out.add(v * S::LANES).cast(), P::zero());
        }
        let mut first = 0;
        while first < TOKENS {
            let (mut row, mut weights) = (columns.rows, columns.weights);
            let out = out.add(first);
            for chunk in columns.chunks {
                let lines = columns.panel.as_ptr().add((chunk.quad as usize * LINES * TOKENS + first) * 4);
                let mut x = [[S::load(lines); VECS]; LINES];
                for l in 0..LINES {
                    for v in 0..VECS {
                        x[l][v] = S::load(lines.add((l * TOKENS + v * S::LANES) * 4));
                    }
                }
                for _ in 0..chunk.rows {
                    let to = out.add(usize::from(*row) * TOKENS);
                    let mut acc = [P::load(to.cast()); VECS];
                    for v in 1..VECS {
                        acc[v] = P::load(to.add(v * S::LANES).cast());
                    }
                    if S::QUADS == 4 && LINES == 4 {
                        let w = S::quads::<0>(weights);
                        for v in 0..VECS {
                            acc[v] = P::dot::<0>(acc[v], w, x[0][v]);
                            acc[v] = P::dot::<1>(acc[v], w, x[1][v]);
                            acc[v] = P::dot::<2>(acc[v], w, x[2][v]);
                            acc[v] = P::dot::<3>(acc[v], w, x[3][v]);
                        }
                    } else {
                        for l in 0..LINES {
                            let w = S::quad(weights.add(4 * l));
                            for v in 0..VECS {
                                acc[v] = P::dot::<0>(acc[v], w, x[l][v]);
                            }
                        }
                    }
                    for v in 0..VECS {
                        P::store(to.add(v * S::LANES).cast(), acc[v]);
                    }
                    row = row.add(1);
                    weights = weights.add(4 * LINES);
                }
            }
            first += VECS * S::LANES;
        }
    }
}
