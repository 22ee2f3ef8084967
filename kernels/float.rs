//! Block-sparse layers of floats: groups of weight rows times a panel of tokens, for every tier and both kinds of
//! products.
//!
//! ```text
//! for each row n of the band, for each token t of the panel, over the stored columns k of n in ascending order:
//!     sum[n][t] = fma(w[n][k], x[k][t], sum[n][t])        x[k][t]: 4 bytes, one f32 or two neighbouring bfloat16
//! with scales by groups of K:  out[n][t] = sum over groups g:  scale[g][n] * (sum over the columns of g)
//! ```
//!
//! x lies in K-major panels, `[K][tokens]` of 4 bytes: panels of 32 or 16 tokens of floats, of 64 or 16 tokens of
//! pairs. A column of K below is a row of this array: the tokens of one float, or of one pair of bfloat16 features.
//!
//! - [`gather`] keeps the sums of up to four rows in registers and loads the columns of K that they have. For blocks
//!   of more than one row, where a column that was loaded is used several times; and for single rows whose blocks are
//!   not a multiple of four wide, two of them side by side, whose columns the order of weights keeps in the first-level
//!   cache.
//! - [`scatter`] keeps four columns of K in registers and loads and stores the sums of the rows that have them. For
//!   blocks of one row that are a multiple of four wide: there, gathering would load a column of K for each product.
//!
//! Both add in the order of K, so that a sum is the same chain of operations in either.

use super::dense::Product;
use super::simd::Simd;
use super::sparse::Group;

/// What [`gather`] reads: some rows of a layer, and one panel of x, or two neighbouring ones.
#[derive(Clone, Copy)]
pub struct Band<'a> {
    /// The groups to compute.
    pub groups: &'a [Group],
    /// The column of K of each entry, relative to the base of its group.
    pub indices: &'a [u16],
    /// `[entry][ROWS]`, 4 bytes each, from entry `first_entry` of the layer on.
    pub weights: *const u8,
    /// The entry of the layer at which `weights` begin.
    pub first_entry: usize,
    /// The panel of x, or several neighbouring ones.
    pub panel: &'a [u8],
    /// Bytes from a panel to the next.
    pub panel_stride: usize,
    /// Sums from those of a panel to those of the next.
    pub out_stride: usize,
    /// `[group of K][scales_stride]`, by output feature, where weights have scales by groups of K.
    pub scales: Option<&'a [f32]>,
    /// Scales from one group of K to the next.
    pub scales_stride: usize,
    /// Columns of K in a group that shares a scale.
    pub scale_lines: usize,
    /// The output feature that row 0 of the output stands for.
    pub first_row: usize,
}

impl Band<'_> {
    /// The weights of a group, `[entry][rows]`.
    ///
    /// # Safety
    /// The group is one of the band's, of so many rows.
    #[inline(always)]
    pub unsafe fn weights_of(&self, group: &Group, rows: usize) -> *const f32 {
        // SAFETY: the caller vouches that the group is the band's, whose weights hold all entries of its groups.
        unsafe { self.weights.cast::<f32>().add(rows * (group.start as usize - self.first_entry)) }
    }

    /// The index in `scales` of the scale of the group's first row.
    #[inline(always)]
    pub fn scale_row(&self, group: &Group) -> usize {
        group.base as usize / self.scale_lines * self.scales_stride + group.row as usize
    }
}

/// Four input features that some single rows of a band have: four columns of K of floats, or two of pairs of
/// bfloat16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first input feature / 4.
    pub quad: u32,
    /// How many rows have weights for them.
    pub rows: u32,
}

/// The weights of a band ordered by columns of K, for [`scatter`].
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// The chunks, in the order of K.
    pub chunks: &'a [Chunk],
    /// The rows that have each chunk, one byte each, counted from the first row of the band.
    pub rows: *const u8,
    /// The weights of a chunk for each of `rows`, 4 bytes for each column of K.
    pub weights: *const u8,
    /// The panel of x.
    pub panel: &'a [u8],
}

/// The sums of all groups, `[row][TOKENS]`, for each of `PANELS` panels. A group whose base is not 0 adds to what is in
/// `out`.
///
/// # Safety
/// The CPU has the tier of `S`; the band's groups are inside its arrays and its panels; `out` has room for all rows of
/// the groups from `band.first_row`, for each panel.
#[inline(always)]
pub unsafe fn gather<
    S: Simd,
    P: Product<S>,
    const ROWS: usize,
    const VECS: usize,
    const TOKENS: usize,
    const PANELS: usize,
>(
    band: &Band<'_>,
    out: *mut f32,
) {
    let groups = band.groups;
    let mut g = 0;
    while g < groups.len() {
        // Neighbours have about the same length. A single row alone would have too few sums to keep the CPU busy.
        let two = ROWS == 1 && g + 1 < groups.len() && groups[g].base == groups[g + 1].base;
        let mut first = 0;
        while first < TOKENS {
            // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for room in
            // `out`; groups that go side by side begin at the same column of K.
            unsafe {
                if two {
                    side_by_side::<S, P, ROWS, VECS, TOKENS, PANELS, 2>(band, g, first, out);
                } else {
                    side_by_side::<S, P, ROWS, VECS, TOKENS, PANELS, 1>(band, g, first, out);
                }
            }
            first += VECS * S::LANES;
        }
        g += 1 + usize::from(two);
    }
}

/// `GROUPS` groups from number `g` on, `VECS` registers of each panel from token `first` on.
#[inline(always)]
unsafe fn side_by_side<
    S: Simd,
    P: Product<S>,
    const ROWS: usize,
    const VECS: usize,
    const TOKENS: usize,
    const PANELS: usize,
    const GROUPS: usize,
>(
    band: &Band<'_>,
    g: usize,
    first: usize,
    out: *mut f32,
) {
    // SAFETY: the caller of `gather` vouches for the tier, for entries, columns and scales of all groups, and for `out`;
    // `gather` passes numbers of groups of the band, which begin at the same column of K.
    unsafe {
        let groups = band.groups.get_unchecked(g..g + GROUPS);
        let base = groups[0].base as usize;
        let lines = band.panel.as_ptr().add((base * TOKENS + first) * 4);
        let mut indices = [band.indices.as_ptr(); GROUPS];
        let mut weights = [band.weights; GROUPS];
        let mut to = [out; GROUPS];
        let mut acc = [[[[P::zero(); VECS]; PANELS]; ROWS]; GROUPS];
        let mut len = groups[0].len;
        for i in 0..GROUPS {
            indices[i] = indices[i].add(groups[i].start as usize);
            weights[i] = band.weights_of(&groups[i], ROWS).cast();
            to[i] = out.add((groups[i].row as usize - band.first_row) * TOKENS + first);
            len = len.min(groups[i].len);
            // Without scales, a later part of a row continues the chains of sums of the part before it.
            if base > 0 && band.scales.is_none() {
                for r in 0..ROWS {
                    if r < groups[i].rows as usize {
                        for p in 0..PANELS {
                            for v in 0..VECS {
                                let at = p * band.out_stride + r * TOKENS + v * S::LANES;
                                acc[i][r][p][v] = P::load(to[i].add(at).cast());
                            }
                        }
                    }
                }
            }
        }
        let mut left = len;
        if const { ROWS == 1 || S::QUADS == 4 } {
            // Two entries a turn: the loop counter and addresses are a good part of the work of an entry there.
            for _ in 0..len / 2 {
                for i in 0..GROUPS {
                    two_entries::<S, P, ROWS, VECS, TOKENS, PANELS>(
                        &mut acc[i],
                        (lines, band.panel_stride),
                        indices[i],
                        weights[i],
                    );
                    indices[i] = indices[i].add(2);
                    weights[i] = weights[i].add(8 * ROWS);
                }
            }
            left %= 2;
        }
        for i in 0..GROUPS {
            for _ in 0..left + (groups[i].len - len) {
                entry::<S, P, ROWS, VECS, TOKENS, PANELS, 0>(
                    &mut acc[i],
                    (lines, band.panel_stride),
                    indices[i],
                    weights[i],
                );
                indices[i] = indices[i].add(1);
                weights[i] = weights[i].add(4 * ROWS);
            }
        }
        for i in 0..GROUPS {
            for r in 0..ROWS {
                if r < groups[i].rows as usize {
                    for p in 0..PANELS {
                        let to = to[i].add(p * band.out_stride + r * TOKENS);
                        if let Some(scales) = band.scales {
                            let scale = S::splat_f(*scales.get_unchecked(band.scale_row(&groups[i]) + r));
                            for v in 0..VECS {
                                let to = to.add(v * S::LANES).cast();
                                let before = if base > 0 { P::load(to) } else { P::zero() };
                                acc[i][r][p][v] = P::scale(acc[i][r][p][v], scale, before);
                            }
                        }
                        for v in 0..VECS {
                            P::store(to.add(v * S::LANES).cast(), acc[i][r][p][v]);
                        }
                    }
                }
            }
        }
    }
}

/// Adds two entries.
#[inline(always)]
unsafe fn two_entries<
    S: Simd,
    P: Product<S>,
    const ROWS: usize,
    const VECS: usize,
    const TOKENS: usize,
    const PANELS: usize,
>(
    acc: &mut [[[P::Acc; VECS]; PANELS]; ROWS],
    panels: (*const u8, usize),
    indices: *const u16,
    weights: *const u8,
) {
    // SAFETY: the caller of `gather` vouches for the tier, and for entries whose columns are inside the panels.
    unsafe {
        if const { S::QUADS == 4 && ROWS == 2 } {
            // One register holds the weights of both.
            let w = S::quads::<0>(weights);
            let x = columns::<S, VECS, TOKENS, PANELS>(panels, indices);
            let y = columns::<S, VECS, TOKENS, PANELS>(panels, indices.add(1));
            for p in 0..PANELS {
                for v in 0..VECS {
                    acc[0][p][v] = P::dot::<0>(acc[0][p][v], w, x[p][v]);
                    acc[1][p][v] = P::dot::<1>(acc[1][p][v], w, x[p][v]);
                }
            }
            for p in 0..PANELS {
                for v in 0..VECS {
                    acc[0][p][v] = P::dot::<2>(acc[0][p][v], w, y[p][v]);
                    acc[1][p][v] = P::dot::<3>(acc[1][p][v], w, y[p][v]);
                }
            }
        } else {
            entry::<S, P, ROWS, VECS, TOKENS, PANELS, 0>(acc, panels, indices, weights);
            entry::<S, P, ROWS, VECS, TOKENS, PANELS, 1>(acc, panels, indices, weights);
        }
    }
}

/// Loads a column of K: `VECS` registers of each panel. `panels` is column 0, and the bytes from a panel to the next.
#[inline(always)]
unsafe fn columns<S: Simd, const VECS: usize, const TOKENS: usize, const PANELS: usize>(
    panels: (*const u8, usize),
    index: *const u16,
) -> [[S::V; VECS]; PANELS] {
    // SAFETY: the caller of `gather` vouches for the tier, and for entries whose columns are inside the panels.
    unsafe {
        let line = panels.0.add(usize::from(*index) * (TOKENS * 4));
        let mut x = [S::loads::<VECS, 0>(line); PANELS];
        for p in 1..PANELS {
            x[p] = S::loads::<VECS, 0>(line.add(p * panels.1));
        }
        x
    }
}

/// Adds entry `I`: its column of K times 4 bytes of weights of each row.
#[inline(always)]
unsafe fn entry<
    S: Simd,
    P: Product<S>,
    const ROWS: usize,
    const VECS: usize,
    const TOKENS: usize,
    const PANELS: usize,
    const I: i32,
>(
    acc: &mut [[[P::Acc; VECS]; PANELS]; ROWS],
    panels: (*const u8, usize),
    indices: *const u16,
    weights: *const u8,
) {
    // SAFETY: the caller of `gather` vouches for the tier, and for entries whose columns are inside the panels.
    unsafe {
        let x = columns::<S, VECS, TOKENS, PANELS>(panels, indices.add(I as usize));
        if const { S::QUADS == 4 && ROWS == 4 } {
            let w = S::quads::<I>(weights);
            for p in 0..PANELS {
                for v in 0..VECS {
                    acc[0][p][v] = P::dot::<0>(acc[0][p][v], w, x[p][v]);
                    acc[1][p][v] = P::dot::<1>(acc[1][p][v], w, x[p][v]);
                    acc[2][p][v] = P::dot::<2>(acc[2][p][v], w, x[p][v]);
                    acc[3][p][v] = P::dot::<3>(acc[3][p][v], w, x[p][v]);
                }
            }
        } else {
            for r in 0..ROWS {
                let w = S::quad(weights.add(4 * (I as usize * ROWS + r)));
                for p in 0..PANELS {
                    for v in 0..VECS {
                        acc[r][p][v] = P::dot::<0>(acc[r][p][v], w, x[p][v]);
                    }
                }
            }
        }
    }
}

/// The sums of `rows` rows of single-row blocks, `[row][TOKENS]`. A chunk is `LINES` columns of K: 4 of floats, 2 of
/// pairs of bfloat16.
///
/// # Safety
/// The CPU has the tier of `S`; chunks, rows and weights belong together, and the panel has their columns of K; `out`
/// has room for `rows` rows, and each of `columns.rows` is below that.
#[inline(always)]
pub unsafe fn scatter<S: Simd, P: Product<S>, const LINES: usize, const VECS: usize, const TOKENS: usize>(
    columns: &Columns<'_>,
    rows: usize,
    out: *mut f32,
) {
    // SAFETY: the caller vouches for the tier, for chunks whose columns, rows and weights exist, and for room for
    // `rows` rows.
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
                    if const { S::QUADS == 4 && LINES == 4 } {
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
