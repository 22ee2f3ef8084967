//! Block-sparse layers of bytes for up to four tokens, where the tier looks bytes up in registers: what their weights have beside
//! entries, and what their kernels read.
//!
//! ```text
//! for each group, for each of its rows r, for each token t:
//!     out[t][row + r - first_row] = init[row + r] + sum over entries e, i in 0..4:  w[e][r][i] * x[t][column(e, i)]
//! ```
//!
//! Which columns are looked up together does not depend on x, so it is found once, when weights are packed: the entries of a
//! group are cut into *chunks*, as many entries as have all their columns in four *windows* of 64 neighbouring columns. A window
//! begins at the first column that the window before does not reach, so it spans no gap in vain. Then 6 bits of a byte say
//! which column of a window it is, and 2 bits which window. Weights are those that all kernels read.

use super::sparse::Group;

/// Columns of a window: the bytes of a register.
pub const WINDOW: usize = 64;
/// Windows of a chunk: what 2 bits tell apart.
pub const WINDOWS: usize = 4;
/// Entries of a chunk at most: those whose four columns fill a register.
pub const ENTRIES: usize = 16;
/// The most tokens of a kernel, as many as a panel of few tokens has.
pub const TOKENS: usize = 4;
/// How many features a layer can have: a window lies inside a row of x, and 16 bits say where.
pub const FEATURES: std::ops::RangeInclusive<usize> = WINDOW..=1 << 16;
/// Bytes beyond the last entry that a kernel may read: of weights, and of places in windows.
pub const PADDING: usize = 4 * 64;

/// Entries that are looked up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Chunk {
    /// The first column of each window.
    pub windows: [u16; WINDOWS],
    /// How many entries there are, 1 to [`ENTRIES`].
    pub entries: u16,
}

/// What a kernel reads: the groups of a band, without a base, and rows of x.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only kernels of VBMI read it"))]
pub struct Call<'a> {
    /// The groups to compute.
    pub groups: &'a [Group],
    /// Their chunks, group after group.
    pub chunks: &'a [Chunk],
    /// The place of each column in the windows of its chunk, four to an entry, group after group; then [`PADDING`] bytes at least.
    pub places: &'a [u8],
    /// Signed bytes, `[entry][ROWS][4]`, group after group; then [`PADDING`] bytes at least.
    pub weights: &'a [u8],
    /// The rows of x, of which the windows are parts.
    pub x: &'a [u8],
    /// Bytes from a token's row to the next.
    pub stride: usize,
    /// The number that the sum of each output feature starts from; as many as there are features, padding included.
    pub init: &'a [i32],
    /// The output feature that row 0 of the output stands for.
    pub first_row: usize,
}

/// A kernel for so many tokens and groups of so many rows: see `kernels::table`.
#[derive(Debug, Clone, Copy)]
pub struct LookupKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// The height of its groups.
    pub rows: usize,
    /// Its tokens.
    pub tokens: usize,
    /// The least entries of four chunks from which it is faster than the kernel that takes panels of as many tokens.
    pub least: usize,
    /// Exact i32 to `[token][few::STRIDE]`.
    pub spill: unsafe fn(&Call<'_>, *mut i32),
}

/// The kernels of a tier.
#[derive(Debug, Clone, Copy)]
pub struct Lookup {
    /// For groups of 4 rows and of 1, and for 1 to [`TOKENS`] tokens each.
    pub kernels: [[LookupKernel; TOKENS]; 2],
    /// The four rows of a panel of four tokens, `[features][4]`: the panel, the features, where rows go, and bytes from a row to
    /// the next, of which a multiple of 16 that is not less than the features is written.
    pub rows: unsafe fn(*const u8, usize, *mut u8, usize),
}

impl Lookup {
    /// The kernel for groups of so many rows, and so many tokens.
    pub fn kernel(&self, rows: usize, tokens: usize) -> &LookupKernel {
        let kernel = &self.kernels[usize::from(rows == 1)][tokens - 1];
        debug_assert!(kernel.rows == rows && kernel.tokens == tokens);
        kernel
    }
}

/// Cuts the entries of a group, four ascending columns each, into chunks, for rows of so many features.
pub fn cut(columns: &[u16], features: usize, chunks: &mut Vec<Chunk>, places: &mut Vec<u8>) {
    // Windows at the end of a row begin early enough to lie inside it.
    let last = features - WINDOW;
    let mut of = Chunk { windows: [0; WINDOWS], entries: 0 };
    let mut used = 0;
    let mut finish = |of: &mut Chunk, used: usize| {
        if of.entries > 0 {
            // Windows that no place names are copies of one that is loaded anyway.
            let copy = of.windows[used - 1];
            of.windows[used..].fill(copy);
            chunks.push(*of);
            of.entries = 0;
        }
    };
    for entry in columns.chunks_exact(4) {
        // Once in the chunk at hand, and if there is no room, once in a new one: four columns have room in four windows.
        loop {
            if of.entries == 0 {
                used = 0;
            }
            let (before, mut windows, mut place) = (used, of.windows, [0; 4]);
            let fits = usize::from(of.entries) < ENTRIES
                && entry.iter().zip(&mut place).all(|(&column, place)| {
                    let column = usize::from(column);
                    if used == 0 || column >= usize::from(windows[used - 1]) + WINDOW {
                        if used == WINDOWS {
                            return false;
                        }
                        windows[used] = column.min(last) as u16;
                        used += 1;
                    }
                    *place = ((used - 1) * WINDOW + column - usize::from(windows[used - 1])) as u8;
                    true
                });
            if fits {
                of.windows = windows;
                of.entries += 1;
                places.extend(place);
                break;
            }
            used = before;
            finish(&mut of, used);
        }
    }
    finish(&mut of, used);
}
