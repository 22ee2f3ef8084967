//! Block-sparse layers: one loop over the stored columns of a group of rows, for every layout, tile and tier.
//!
//! Weights are packed as *groups*: up to `ROWS` neighbouring output features that share their list of columns. x comes
//! in *panels* of tokens (see `panel.rs`):
//!
//! - `KMajor`, `[K][64]`: any column can be fetched; four of them are interleaved into quads on the fly. For blocks
//!   whose width is not a multiple of four (4x1 first of all).
//! - `KMajor4`, `[K / 4][64][4]`: four columns at a time, nothing to interleave. For blocks of width 4, 8, 16 ..
//!
//! Inside a panel of 64 tokens, register j holds tokens `16 l + 4 j + i` at element i of its 16-byte part l: the order
//! in which `interleave` delivers lines and in which `pack4` makes lines again, so a chain of layers never permutes.
//! Tails use panels of 16 tokens (in plain order) and of one token.
//!
//! Registers are kept in plain arrays filled by loops: a closure would not inherit the tier's features and every
//! instruction in it would become a call.

use super::activation::Identity;
use super::epilogue::Finish;
use super::simd::Simd;
use std::mem::MaybeUninit;

/// Rows of packed weights that share one list of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The first output feature.
    pub row: u32,
    /// The number of output features that exist; those above, up to the tile's height, are padding.
    pub rows: u32,
    /// The first entry (a group of four lines, or one quad).
    pub start: u32,
    /// The number of entries.
    pub len: u32,
    /// The line that index 0 stands for: not 0 only in later parts of its rows, where K exceeds what 16 bits can index, or
    /// has scales by groups.
    pub base: u32,
}

/// What a sparse kernel reads: some groups of a layer, and one panel of x.
#[derive(Clone, Copy)]
pub struct Band<'a> {
    /// The groups to compute.
    pub groups: &'a [Group],
    /// 4 column numbers (lines) or one column number / 4 (quads) an entry; those of a group ascend.
    pub indices: &'a [u16],
    /// `[entry][ROWS][4]`, with 64 bytes of padding at the end.
    pub weights: &'a [u8],
    /// The panel.
    pub panel: &'a [u8],
    /// What each output feature starts from; as long as the padded features.
    pub init: &'a [i32],
    /// The feature that row 0 of the output stands for.
    pub first_row: usize,
}

/// How a panel is laid out, and how one entry's quads are fetched from it.
pub trait Layout {
    /// Column indices of an entry.
    const INDICES: usize;
    /// Tokens of the panel.
    const TOKENS: usize;

    /// The quads of `VECS` registers: those numbered `HI * VECS ..`, of the part of the panel at byte `offset`.
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS];
}

/// `[K][64]`.
pub struct KMajor;
/// `[K / 4][64][4]`.
pub struct KMajor4;
/// `[K][16]`.
pub struct KMajor16;
/// `[K / 4][16][4]`.
pub struct KMajor4x16;

/// Index `i` of an entry.
#[inline(always)]
pub unsafe fn index(indices: *const u16, i: usize) -> usize {
    // SAFETY: the caller vouches for the entry.
    usize::from(unsafe { *indices.add(i) })
}

impl Layout for KMajor {
    const INDICES: usize = 4;
    const TOKENS: usize = 64;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: indices are columns of the panel; offset is inside a line.
        unsafe {
            // One load for four indices: the compiler would gather them in a vector register and take them out again.
            let four = indices.cast::<u64>().read_unaligned() as usize;
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

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the index is a quad of the panel; offset is inside a register's 64 bytes.
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

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        _offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: indices are columns of the panel.
        unsafe {
            let quads = S::gather16([
                panel.add(index(indices, 0) * 16),
                panel.add(index(indices, 1) * 16),
                panel.add(index(indices, 2) * 16),
                panel.add(index(indices, 3) * 16),
            ]);
            let mut x = [S::x(quads[HI * VECS]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[HI * VECS + v]);
            }
            x
        }
    }
}

impl Layout for KMajor4x16 {
    const INDICES: usize = 1;
    const TOKENS: usize = 16;

    #[inline(always)]
    unsafe fn quads<S: Simd, const VECS: usize, const HI: usize>(
        panel: *const u8,
        indices: *const u16,
        _offset: usize,
    ) -> [S::X; VECS] {
        // SAFETY: the index is a quad of the panel.
        unsafe {
            let quad = panel.add(index(indices, 0) * 64);
            let quads = S::loads::<VECS, 0>(quad.add(HI * VECS * S::LANES * 4));
            let mut x = [S::x(quads[0]); VECS];
            for v in 1..VECS {
                x[v] = S::x(quads[v]);
            }
            x
        }
    }
}

/// Where the accumulators of one group go.
trait Store {
    /// Row `r` of the group; `acc` holds registers `HI * VECS ..` of the part at byte `offset`.
    unsafe fn row<S: Simd, L: Layout, const VECS: usize, const HI: usize>(
        &self,
        acc: &[S::V; VECS],
        group: &Group,
        r: usize,
        offset: usize,
    );
}

/// Exact i32, `[row][tokens]` in the order of the tokens.
struct Spill {
    out: *mut i32,
    first_row: usize,
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
                if L::TOKENS == 64 {
                    S::store_parts(out.add(offset + 4 * j).cast(), 64, acc[v]);
                } else {
                    S::store(out.add(j * S::LANES).cast(), acc[v]);
                }
            }
        }
    }
}

/// Bytes, `[row][64]`: lines of the next layer's panel.
struct Bytes<'a> {
    out: *mut u8,
    first_row: usize,
    /// A copy: behind a reference, every store of bytes could have changed it.
    finish: Finish<'a>,
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
            self.finish.store::<S, Identity, VECS>(acc, row, out.add(8 * HI));
        }
    }
}

/// Entry `I`: its quads times each row's four weights.
#[inline(always)]
unsafe fn entry<S: Simd, L: Layout, const ROWS: usize, const VECS: usize, const HI: usize, const I: i32>(
    acc: &mut [[S::V; VECS]; ROWS],
    panel: *const u8,
    indices: *const u16,
    weights: *const u8,
    offset: usize,
) {
    // SAFETY: the entry is inside its arrays.
    unsafe {
        let x = L::quads::<S, VECS, HI>(panel, indices.add(I as usize * L::INDICES), offset);
        if S::QUADS == 4 && ROWS == 4 {
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

/// One group, one part of the panel: `ROWS * VECS` accumulators.
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
        if S::MATRIX && ROWS == 4 {
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
        if ROWS == 1 {
            // The few sums of one row would wait for themselves: every other entry has sums of its own.
            let mut odd = [[S::splat(0); VECS]; ROWS];
            while len >= 2 {
                entry::<S, L, ROWS, VECS, HI, 0>(&mut acc, panel, indices, weights, offset);
                entry::<S, L, ROWS, VECS, HI, 1>(&mut odd, panel, indices, weights, offset);
                indices = indices.add(2 * L::INDICES);
                weights = weights.add(8 * ROWS);
                len -= 2;
            }
            for v in 0..VECS {
                acc[0][v] = S::add(acc[0][v], odd[0][v]);
            }
        }
        if ROWS > 1 && VECS == 4 && S::QUADS == 4 {
            // Counting and addressing are a good part of an entry on these CPUs.
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

/// The most quads of a block of K in [`blocked`]: a little more than the first-level cache, because sums go to memory and
/// back between blocks.
const BLOCK: usize = 192;
/// Entries of a group in a block that are worth to bring its sums back for.
const ENOUGH: usize = 10;

/// Groups of one row of quads through a panel that is far larger than the first-level cache: all go through one block of
/// K before the next. A single row uses each line of x once, so it would wait for the second-level cache.
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
                // SAFETY: as for `part`; sums are there from the first block on.
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

/// All groups of a band.
#[inline(always)]
unsafe fn groups<S: Simd, L: Layout, F: Store, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    finish: &F,
) {
    // Registers of 16 bytes' worth of tokens in one line, and how many times VECS of them.
    let (step, registers) = if L::TOKENS == 64 { (S::LANES * 4, 4) } else { (64, 16 / S::LANES) };
    // Where a dot product is more than one instruction, x is there in time. Groups are ordered by length: the one in the
    // middle stands for all, and must have enough in each block.
    let quads = band.panel.len() / 256;
    let middle = band.groups.get(band.groups.len() / 2).map_or(0, |g| g.len as usize);
    if ROWS == 1
        && L::INDICES == 1
        && L::TOKENS == 64
        && S::X_BYTES == 1
        && quads >= 2 * BLOCK
        && middle >= ENOUGH * quads.div_ceil(BLOCK)
    {
        let mut offset = 0;
        while offset < 64 {
            // SAFETY: as the caller.
            unsafe {
                blocked::<S, L, F, VECS, 0>(band, offset, finish);
                if registers > VECS {
                    blocked::<S, L, F, VECS, 1>(band, offset, finish);
                }
                if registers > 2 * VECS {
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
        while offset < 64 {
            // SAFETY: as the caller.
            unsafe {
                part::<S, L, F, ROWS, VECS, 0>(band, group, offset, finish);
                if registers > VECS {
                    part::<S, L, F, ROWS, VECS, 1>(band, group, offset, finish);
                }
                if registers > 2 * VECS {
                    part::<S, L, F, ROWS, VECS, 2>(band, group, offset, finish);
                    part::<S, L, F, ROWS, VECS, 3>(band, group, offset, finish);
                }
            }
            offset += step;
        }
    }
}

/// Exact accumulators, `[row][tokens]`.
///
/// # Safety
/// The CPU has the tier of `S`; the band's groups are inside its arrays and its panel; `out` has room for all rows of
/// the groups, `TOKENS` each, from `band.first_row`.
#[inline(always)]
pub unsafe fn spill<S: Simd, L: Layout, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    out: *mut i32,
) {
    // SAFETY: as the caller.
    unsafe { groups::<S, L, Spill, ROWS, VECS>(band, &Spill { out, first_row: band.first_row }) }
}

/// Bytes, `[row][64]`, without a curve.
///
/// # Safety
/// As [`spill`], with 64 bytes a row; `finish` has parameters for all features of the groups.
#[inline(always)]
pub unsafe fn requantize<S: Simd, L: Layout, const ROWS: usize, const VECS: usize>(
    band: &Band<'_>,
    finish: &Finish<'_>,
    out: *mut u8,
) {
    let bytes = Bytes { out, first_row: band.first_row, finish: *finish };
    // SAFETY: as the caller.
    unsafe { groups::<S, L, Bytes<'_>, ROWS, VECS>(band, &bytes) }
}
