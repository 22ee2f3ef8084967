//! Block-sparse layers of bytes: groups of weight rows times a panel of tokens, for every layout, tile and tier.
//!
//! ```text
//! for each group of up to ROWS output features, for each token t of the panel:
//!     sum[r][t] = init[row + r] + sum over entries e of the group, i in 0..4:  w[e][r][i] * x[t][column(e, i)]
//! ```
//!
//! Weights are packed in *groups*: neighbouring output features that share one list of columns of K. Bytes of x lie
//! in *panels* of tokens (see `panel.rs`); there are two layouts of 64 tokens (`tall` has groups of eight rows for one of them):
//!
//! - `KMajor`, `[K][64]`: an entry names any four columns of K, which are interleaved in registers. For blocks whose
//!   width is not a multiple of four (4x1 first of all).
//! - `KMajor4`, `[K / 4][64][4]`: an entry names four adjacent columns, which are interleaved in memory. For blocks
//!   4, 8, 16 .. wide.
//!
//! In a panel of 64 tokens, register j holds token `16 l + 4 j + i` at element i of its 16-byte part l. `interleave`
//! makes this order from four columns and `pack4` turns it back into a column, so a chain of layers never permutes
//! tokens. Tails use narrower panels, in plain order: of 32 or 16 tokens here, of 8 or 4 in `few`, of one in `gemv`.
//!
//! Sums are arrays of registers filled by `for` loops: a closure would not inherit the CPU features of the tier, and
//! every instruction in it would become a function call.

use super::activation::Identity;
use super::epilogue::Finish;
use super::simd::Simd;
use std::mem::MaybeUninit;

/// A group: rows of packed weights that share one list of columns of K.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The first output feature.
    pub row: u32,
    /// How many output features there are; rows above them, up to the height of the tile, are padding.
    pub rows: u32,
    /// The first entry of the group, in the arrays of indices and weights. What an entry is depends on the kernel:
    /// see [`Band`].
    pub start: u32,
    /// The number of entries.
    pub len: u32,
    /// The column of K that index 0 stands for. It is not 0 only in later parts of rows that were split, because K
    /// exceeds what 16 bits can index or has scales by groups.
    pub base: u32,
}

/// What a sparse kernel reads: some groups of a layer, and one panel of x.
#[derive(Clone, Copy)]
pub struct Band<'a> {
    /// The groups to compute.
    pub groups: &'a [Group],
    /// Of each entry four column numbers (`KMajor`), or one column number / 4 (`KMajor4`). Those of a group ascend.
    pub indices: &'a [u16],
    /// Signed bytes, `[entry][ROWS][4]`, with 64 bytes of padding at the end.
    pub weights: &'a [u8],
    /// The panel of x.
    pub panel: &'a [u8],
    /// The number that the sum of each output feature starts from; as many as there are features, padding included.
    pub init: &'a [i32],
    /// The output feature that row 0 of the output stands for.
    pub first_row: usize,
}

/// How a panel is laid out, and how the four columns of an entry are fetched from it.
pub trait Layout {
    /// Indices of an entry: 4 columns, or 1 for four adjacent columns.
    const INDICES: usize;
    /// Tokens of the panel.
    const TOKENS: usize;
    /// Whether lines are interleaved in registers, so that tokens leave in the order that `interleave` gives.
    const INTERLEAVED: bool;

    /// `VECS` registers of one entry, each lane being the four bytes of one token: those numbered `HI * VECS ..`, of
    /// the tokens that begin at byte `offset` of each 64-byte row of the panel.
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS];
}

/// `[K][64]`: the 64 tokens of a column of K are adjacent.
pub struct KMajor;
/// `[K / 4][64][4]`: interleaved by 4, so that four columns of a token are adjacent.
pub struct KMajor4;
/// `[K][32]`, for tails of 17 to 32 tokens.
pub struct KMajor32;
/// `[K / 4][32][4]`, for tails of 17 to 32 tokens.
pub struct KMajor4x32;
/// `[K][16]`, for tails of 9 to 16 tokens.
pub struct KMajor16;
/// `[K / 4][16][4]`, for tails of 9 to 16 tokens.
pub struct KMajor4x16;

/// Reads index `i` of an entry.
#[inline(always)]
pub unsafe fn index(indices: *const u16, i: usize) -> usize {
    // SAFETY: the caller vouches for the entry.
    usize::from(unsafe { *indices.add(i) })
}

impl Layout for KMajor {
    const INDICES: usize = 4;
    const TOKENS: usize = 64;
    const INTERLEAVED: bool = true;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the driver made the indices, which are columns of the panel; offset is below the 64 bytes of a
        // column.
        unsafe {
            // One load for four indices: the compiler would gather them in a vector register and extract them again.
            let four = indices.cast::<u64>().read_unaligned();
            let [a, b, c, d] = S::lines(panel.add(offset), four);
            let quads = S::interleave(a, b, c, d);
            let mut x = [S::x(quads[HI * VECS]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[HI * VECS + v]);
            }
            x
        }
    }
}

impl Layout for KMajor4 {
    const INDICES: usize = 1;
    const TOKENS: usize = 64;
    const INTERLEAVED: bool = true;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the driver made the index, four adjacent columns of the panel; offset is inside the 64 bytes of a
        // register.
        unsafe {
            let quad = panel.add(index(indices, 0) * 256 + offset);
            let quads = S::loads_apart::<VECS>(quad.add(HI * VECS * 64));
            let mut x = [S::x(quads[0]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[v]);
            }
            x
        }
    }
}

impl Layout for KMajor16 {
    const INDICES: usize = 4;
    const TOKENS: usize = 16;
    const INTERLEAVED: bool = false;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        _offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the driver made the indices, which are columns of the panel: 16 bytes each.
        unsafe {
            let four = indices.cast::<u64>().read_unaligned();
            let line = 0xffff << 4;
            let quads = S::gather16([
                panel.add((four << 4) as usize & line),
                panel.add((four >> 12) as usize & line),
                panel.add((four >> 28) as usize & line),
                panel.add((four >> 44) as usize & line),
            ]);
            let mut x = [S::x(quads[HI * VECS]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[HI * VECS + v]);
            }
            x
        }
    }
}

impl Layout for KMajor32 {
    const INDICES: usize = 4;
    const TOKENS: usize = 32;
    const INTERLEAVED: bool = true;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the driver made the indices, which are columns of the panel: 32 bytes each, of which offset is one.
        unsafe {
            let four = indices.cast::<u64>().read_unaligned();
            let panel = panel.add(offset);
            let line = 0xffff << 5;
            let lines = [
                panel.add((four << 5) as usize & line),
                panel.add((four >> 11) as usize & line),
                panel.add((four >> 27) as usize & line),
                panel.add((four >> 43) as usize & line),
            ];
            if const { S::LANES == 16 } {
                let quads = S::gather32(lines);
                let mut x = [S::x(quads[HI * VECS]); VECS];
                for v in 1..VECS {
                    x[v] = S::x(quads[HI * VECS + v]);
                }
                return x;
            }
            let quads =
                S::interleave(S::load(lines[0]), S::load(lines[1]), S::load(lines[2]), S::load(lines[3]));
            let mut x = [S::x(quads[HI * VECS]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[HI * VECS + v]);
            }
            x
        }
    }
}

/// Quads that lie ready in a panel of `TOKENS` tokens, in their own order.
macro_rules! ready {
    ($name:ident $tokens:literal) => {
        impl Layout for $name {
            const INDICES: usize = 1;
            const TOKENS: usize = $tokens;
            const INTERLEAVED: bool = false;

            #[inline(always)]
            unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
                panel: *const u8,
                indices: *const u16,
                _offset: usize,
            ) -> [S::X; VECS] {
                // SAFETY: the driver made the index, four adjacent columns of the panel: four bytes a token.
                unsafe {
                    let quad = panel.add(index(indices, 0) * ($tokens * 4));
                    let quads = S::loads::<VECS, 0>(quad.add(HI * VECS * S::LANES * 4));
                    let mut x = [S::x(quads[0]); VECS];
                    for v in 1..VECS {
                        x[v] = S::x(quads[v]);
                    }
                    x
                }
            }
        }
    };
}

ready!(KMajor4x32 32);
ready!(KMajor4x16 16);

/// Where the sums of one group are stored.
pub(super) trait Store {
    /// Stores row `r` of the group; `acc` holds registers `HI * VECS ..` of the tokens from byte `offset` on.
    unsafe fn row<S: Simd, L: Layout, const VECS: usize, const HI: usize>(
        &self,
        acc: &[S::V; VECS],
        group: &Group,
        r: usize,
        offset: usize,
    );
}

/// Where the sum of a token of a panel of 64 lies in its row of sums, which kernels store register by register: tokens are in the order
/// of registers of so many lanes, and `pack::registers_to_rows` and `requantize` read them in it.
pub const fn place(lanes: usize, token: usize) -> usize {
    let step = 4 * lanes;
    let (first, own) = (token / step * step, token % step);
    first + own % 16 / 4 * lanes + own / 16 * 4 + own % 4
}

/// Stores exact i32 sums, `[row][tokens]`: of 64 tokens in the order of [`place`], of fewer in their own.
pub(super) struct Spill {
    pub(super) out: *mut i32,
    pub(super) first_row: usize,
}

impl Store for Spill {
    #[inline(always)]
    unsafe fn row<S: Simd, L: Layout, const VECS: usize, const HI: usize>(
        &self,
        acc: &[S::V; VECS],
        group: &Group,
        r: usize,
        offset: usize,
    ) {
        // SAFETY: the driver made room for all rows of its groups.
        unsafe {
            let out = self.out.add((group.row as usize + r - self.first_row) * L::TOKENS);
            for v in 0..VECS {
                let j = HI * VECS + v;
                if const { L::TOKENS == 32 && L::INTERLEAVED && S::LANES == 16 } {
                    S::store_halves(out.add(8 * j).cast(), acc[v]);
                } else if const { L::TOKENS == 64 } {
                    S::store(out.add(offset + j * S::LANES).cast(), acc[v]);
                } else if const { L::INTERLEAVED } {
                    S::store_parts(out.add(offset + 4 * j).cast(), 64, acc[v]);
                } else {
                    S::store(out.add(j * S::LANES).cast(), acc[v]);
                }
            }
        }
    }
}

/// Stores requantized bytes, `[row][64]`: each row of sums is a column of K of the next layer's panel.
pub(super) struct Bytes<'a> {
    pub(super) out: *mut u8,
    pub(super) first_row: usize,
    /// A copy: behind a reference, the compiler would reload it after every store of bytes.
    pub(super) finish: Finish<'a>,
}

impl Store for Bytes<'_> {
    #[inline(always)]
    unsafe fn row<S: Simd, L: Layout, const VECS: usize, const HI: usize>(
        &self,
        acc: &[S::V; VECS],
        group: &Group,
        r: usize,
        offset: usize,
    ) {
        // SAFETY: the driver made room for all rows of its groups, and parameters for all features.
        unsafe {
            let row = group.row as usize + r;
            let out = self.out.add((row - self.first_row) * 64 + offset);
            self.finish.store::<S, _, VECS>(Identity, acc, row, out.add(8 * HI));
        }
    }
}

/// Adds entry `I`: the four bytes of each token times the four weights of each row.
#[inline(always)]
unsafe fn entry<S: Simd, L: Layout, const ROWS: usize, const VECS: usize, const HI: usize, const I: i32>(
    acc: &mut [[S::V; VECS]; ROWS],
    panel: *const u8,
    indices: *const u16,
    weights: *const u8,
    offset: usize,
) {
    // SAFETY: the caller vouches that the entry is inside the indices and weights, and its columns inside the panel.
    unsafe {
        let x = L::quads::<S, VECS, HI>(panel, indices.add(I as usize * L::INDICES), offset);
        if const { S::QUADS == 4 && ROWS == 4 } {
            let w = S::quads::<I>(weights);
            for v in 0..VECS {
                acc[0][v] = S::dot_quad::<0>(acc[0][v], x[v], w);
                acc[1][v] = S::dot_quad::<1>(acc[1][v], x[v], w);
                acc[2][v] = S::dot_quad::<2>(acc[2][v], x[v], w);
                acc[3][v] = S::dot_quad::<3>(acc[3][v], x[v], w);
            }
            return;
        }
        for r in 0..ROWS {
            let w = S::quad(weights.add(4 * (I as usize * ROWS + r)));
            for v in 0..VECS {
                acc[r][v] = S::dot_quad::<0>(acc[r][v], x[v], w);
            }
        }
    }
}

/// One group times the tokens at byte `offset` of the panel: `ROWS * VECS` registers of sums.
#[inline(always)]
unsafe fn part<S: Simd, L: Layout, F: Store, const ROWS: usize, const VECS: usize, const HI: usize>(
    band: &Band<'_>,
    group: &Group,
    offset: usize,
    finish: &F,
) {
    // SAFETY: the driver built the band: entries, indices and rows are inside their arrays.
    unsafe {
        let start = group.start as usize;
        let mut indices = band.indices.as_ptr().add(start * L::INDICES);
        let mut weights = band.weights.as_ptr().add(start * ROWS * 4);
        let panel = band.panel.as_ptr().add(group.base as usize * L::TOKENS);
        let init = band.init.as_ptr().add(group.row as usize);
        if const { S::MATRIX && ROWS == 4 } {
            let mut sums = S::sums4::<VECS>(init);
            for _ in 0..group.len / 2 {
                let a = L::quads::<S, VECS, HI>(panel, indices, offset);
                let b = L::quads::<S, VECS, HI>(panel, indices.add(L::INDICES), offset);
                S::entries4(&mut sums, [a, b], S::loads::<2, 0>(weights));
                indices = indices.add(2 * L::INDICES);
                weights = weights.add(32);
            }
            if group.len % 2 == 1 {
                let x = L::quads::<S, VECS, HI>(panel, indices, offset);
                S::entries4(&mut sums, [x, x], [S::load(weights), S::splat(0)]);
            }
            for (r, acc) in S::rows4(sums).iter().enumerate().take(group.rows as usize) {
                finish.row::<S, L, VECS, HI>(acc, group, r, offset);
            }
            return;
        }
        let mut acc = [[S::splat(*init); VECS]; ROWS];
        for r in 1..ROWS {
            acc[r] = [S::splat(*init.add(r)); VECS];
        }
        let mut len = group.len;
        if const { ROWS == 1 || S::ONE_INSTRUCTION && ROWS * VECS < 8 } {
            // Few sums are chains of additions, each waiting for the one before: odd entries have sums of their own.
            let mut odd = [[S::splat(0); VECS]; ROWS];
            while len >= 2 {
                entry::<S, L, ROWS, VECS, HI, 0>(&mut acc, panel, indices, weights, offset);
                entry::<S, L, ROWS, VECS, HI, 1>(&mut odd, panel, indices, weights, offset);
                indices = indices.add(2 * L::INDICES);
                weights = weights.add(8 * ROWS);
                len -= 2;
            }
            for r in 0..ROWS {
                for v in 0..VECS {
                    acc[r][v] = S::add(acc[r][v], odd[r][v]);
                }
            }
        }
        if const { ROWS > 1 && VECS == 4 && S::QUADS == 4 } {
            // Two entries a turn: the loop counter and addresses are a good part of the work of an entry on these
            // CPUs.
            for _ in 0..len / 2 {
                entry::<S, L, ROWS, VECS, HI, 0>(&mut acc, panel, indices, weights, offset);
                entry::<S, L, ROWS, VECS, HI, 1>(&mut acc, panel, indices, weights, offset);
                indices = indices.add(2 * L::INDICES);
                weights = weights.add(8 * ROWS);
            }
            len %= 2;
        }
        for _ in 0..len {
            entry::<S, L, ROWS, VECS, HI, 0>(&mut acc, panel, indices, weights, offset);
            indices = indices.add(L::INDICES);
            weights = weights.add(4 * ROWS);
        }
        for r in 0..ROWS {
            if r < group.rows as usize {
                finish.row::<S, L, VECS, HI>(&acc[r], group, r, offset);
            }
        }
    }
}

/// The most indices (of four columns each, 256 bytes) of a block of K in [`blocked`]: a little more than the
/// first-level cache holds, because sums go to memory and back between blocks.
const BLOCK: usize = 192;
/// Entries of a group in a block of K that make it worth loading its sums again.
const ENOUGH: usize = 10;

/// Groups of one row, in `KMajor4`, times a panel that is far larger than the first-level cache: all groups go
/// through one block of K before the next. A single row uses each 64 bytes of x once, so without blocks it would wait
/// for the second-level cache.
#[inline(always)]
unsafe fn blocked<S: Simd, L: Layout, F: Store, const VECS: usize, const HI: usize>(
    band: &Band<'_>,
    offset: usize,
    finish: &F,
) {
    let quads = band.panel.len() / (4 * L::TOKENS);
    let block = quads.div_ceil(quads.div_ceil(BLOCK));
    for groups in band.groups.chunks(64) {
        let mut sums = [MaybeUninit::<[S::V; VECS]>::uninit(); 64];
        let mut next = [0u32; 64];
        let mut limit = 0;
        while limit < quads {
            let first = limit == 0;
            limit = (limit + block).min(quads);
            for (i, group) in groups.iter().enumerate() {
                // SAFETY: as in `part`, the driver built the band; sums and `next` are written in the first block and
                // read in later ones.
                unsafe {
                    let panel = band.panel.as_ptr().add(group.base as usize * L::TOKENS);
                    let (mut acc, mut e) = if first {
                        ([[S::splat(*band.init.as_ptr().add(group.row as usize)); VECS]], group.start)
                    } else {
                        ([sums.get_unchecked(i).assume_init()], *next.get_unchecked(i))
                    };
                    let end = group.start + group.len;
                    let indices = band.indices.as_ptr();
                    while e < end && index(indices, e as usize) < limit {
                        let weights = band.weights.as_ptr().add(e as usize * 4);
                        entry::<S, L, 1, VECS, HI, 0>(
                            &mut acc,
                            panel,
                            indices.add(e as usize),
                            weights,
                            offset,
                        );
                        e += 1;
                    }
                    if limit == quads {
                        finish.row::<S, L, VECS, HI>(&acc[0], group, 0, offset);
                    } else {
                        sums.get_unchecked_mut(i).write(acc[0]);
                        *next.get_unchecked_mut(i) = e;
                    }
                }
            }
        }
    }
}

/// Registers of sums for one output feature and the tokens at one byte offset of a panel.
const fn registers<S: Simd, L: Layout>() -> usize {
    match (L::INTERLEAVED, L::TOKENS) {
        (true, 32) if S::LANES == 16 => 2,
        (true, _) => 4,
        (false, tokens) => tokens / S::LANES,
    }
}

/// All groups of a band, tokens of a panel in steps of one register's bytes of each column.
#[inline(always)]
unsafe fn groups<S: Simd, L: Layout, F: Store, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    finish: &F,
) {
    // Bytes of each column of K that are computed at a time: where quads lie ready, or a register takes all, there is one step.
    let step = if L::INTERLEAVED { S::LANES * 4 } else { 64 };
    // The loop over blocks of K pays only where a dot product is one instruction: otherwise x arrives in time. Groups
    // are ordered by length: the one in the middle stands for all, and must have enough entries in each block.
    let quads = band.panel.len() / 256;
    let middle = band.groups.get(band.groups.len() / 2).map_or(0, |g| g.len as usize);
    if const { ROWS == 1 && L::INDICES == 1 && L::TOKENS == 64 && S::X_BYTES == 1 }
        && quads >= 2 * BLOCK
        && middle >= ENOUGH * quads.div_ceil(BLOCK)
    {
        let mut offset = 0;
        while offset < 64 {
            // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for room
            // in the output.
            unsafe {
                blocked::<S, L, F, VECS, 0>(band, offset, finish);
                if const { registers::<S, L>() > VECS } {
                    blocked::<S, L, F, VECS, 1>(band, offset, finish);
                }
                if const { registers::<S, L>() > 2 * VECS } {
                    blocked::<S, L, F, VECS, 2>(band, offset, finish);
                    blocked::<S, L, F, VECS, 3>(band, offset, finish);
                }
            }
            offset += step;
        }
        return;
    }
    for group in band.groups {
        let mut offset = 0;
        while offset < L::TOKENS {
            // SAFETY: the caller vouches for the tier, for a band whose entries are inside its arrays, and for room
            // in the output.
            unsafe {
                part::<S, L, F, ROWS, VECS, 0>(band, group, offset, finish);
                if const { registers::<S, L>() > VECS } {
                    part::<S, L, F, ROWS, VECS, 1>(band, group, offset, finish);
                }
                if const { registers::<S, L>() > 2 * VECS } {
                    part::<S, L, F, ROWS, VECS, 2>(band, group, offset, finish);
                    part::<S, L, F, ROWS, VECS, 3>(band, group, offset, finish);
                }
                const { assert!(registers::<S, L>() <= 4 * VECS) };
            }
            offset += step;
        }
    }
}

/// The exact sums of all groups, `[row][tokens]`: of 64 tokens in the order of [`place`].
///
/// # Safety
/// The CPU has the tier of `S`; the band's groups are inside its arrays and its panel; `out` has room for all rows of
/// the groups, `TOKENS` each, from `band.first_row`.
#[inline(always)]
pub unsafe fn spill<S: Simd, L: Layout, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    out: *mut i32,
) {
    // SAFETY: the caller promises what `groups` asks for.
    unsafe { groups::<S, L, Spill, ROWS, VECS>(band, &Spill { out, first_row: band.first_row }) }
}

/// The bytes of the next layer's input, `[row][64]`, from the sums of all groups, where no curved activation is asked
/// for.
///
/// # Safety
/// The caller keeps the promises of [`spill`], with 64 bytes a row at `out`; `finish` has parameters for all features
/// of the groups.
#[inline(always)]
pub unsafe fn requantize<S: Simd, L: Layout, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    finish: &Finish<'_>,
    out: *mut u8,
) {
    let bytes = Bytes { out, first_row: band.first_row, finish: *finish };
    // SAFETY: the caller promises what `groups` asks for.
    unsafe { groups::<S, L, Bytes<'_>, ROWS, VECS>(band, &bytes) }
}
