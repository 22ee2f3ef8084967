//! Block-sparse layers of bytes: a panel of tokens times a band of 64 output features.

use super::schedule::{self, Multiply};
use super::weights::{BAND, Bands, HEIGHTS, Sparse};
use super::{Job, Memory, Out, TileOf, finish, same_panels, through_rows};
use crate::base::buffer::as_i32;
use crate::base::ctx::Ctx;
use crate::kernels::activation::Curve;
use crate::kernels::attention::pack::flip;
use crate::kernels::byte_table::SparseKernel;
use crate::kernels::lookup::{self, Lookup};
use crate::kernels::pack::Tokens;
use crate::kernels::panel::{Panel, PanelLayout, row_stride};
use crate::kernels::sparse;
use crate::kernels::table::Tier;
use crate::kernels::{few, gemv};
use std::ops::Range;

/// Bytes of a tile of sums: a band of a panel of 64 tokens.
const SUMS: usize = BAND * 64 * 4;
/// The sums of few tokens are rows of the tile as they leave their kernels.
const _: () = assert!(few::STRIDE == BAND);
/// Bytes of a tile of bytes.
const BYTES: usize = BAND * 64;

/// y = x · wᵀ with block-sparse w of bytes.
pub fn sparse(job: &Job<'_>, w: &Sparse, ctx: &Ctx, memory: Memory<'_>) {
    through_rows(job, !same_panels(job), ctx, memory, |job, memory| {
        schedule::run(job, &Bytes { job, w }, ctx, memory);
    });
}

struct Bytes<'a> {
    job: &'a Job<'a>,
    w: &'a Sparse,
}

impl Bytes<'_> {
    /// Memory for the rows of a panel of few tokens, where x is looked up.
    fn row_bytes(&self) -> usize {
        if self.w.has_chunks() { lookup::TOKENS * row_stride(self.job.shape.features) } else { 0 }
    }

    /// Memory for a panel of signed bytes, where the tier wants them.
    fn signed_bytes(&self) -> usize {
        if self.job.tier.bytes.signed { self.job.shape.piece_bytes().next_multiple_of(64) } else { 0 }
    }
}

impl Multiply for Bytes<'_> {
    fn weights(&self) -> &impl Bands {
        self.w
    }

    fn weight_bytes(&self) -> usize {
        self.w.bytes()
    }

    fn begins(&self) -> bool {
        false
    }

    fn tile_bytes(&self, _chunks: usize) -> usize {
        self.signed_bytes()
            + self.row_bytes()
            + 2 * SUMS
            + 4 * BYTES
            + 4 * (self.w.most_gathered() + gemv::GATHER)
    }

    fn begin(&self, _bands: Range<usize>, _tile: &mut [u8]) {}

    fn multiply(&self, panel: Panel, x: &[u8], bands: Range<usize>, tile: &mut [u8]) {
        let (signed, tile) = tile.split_at_mut(self.signed_bytes());
        let x = if self.job.tier.bytes.signed {
            let signed = &mut signed[..x.len()];
            // SAFETY: the tier is supported.
            unsafe { flip::pick(self.job.tier.isa)(x, 0x80, signed) };
            signed
        } else {
            x
        };
        let (rows, tile) = tile.split_at_mut(self.row_bytes());
        let x = X { panel: x, rows: rows_of(self.job, self.w, panel, x, rows) };
        multiply(self.job, self.w, panel, &x, bands, tile);
    }
}

/// A panel of x.
struct X<'a> {
    panel: &'a [u8],
    /// Its rows, where some section looks them up.
    rows: Option<Rows<'a>>,
}

/// Rows of x, and the kernels that look them up.
struct Rows<'a> {
    rows: &'a [u8],
    stride: usize,
    tokens: usize,
    lookup: &'static Lookup,
}

/// The rows of a panel, if some section looks them up: of one token as they lie, of more in `room`.
fn rows_of<'a>(job: &Job<'_>, w: &Sparse, panel: Panel, x: &'a [u8], room: &'a mut [u8]) -> Option<Rows<'a>> {
    let lookup = job.tier.bytes.lookup?;
    let tokens = panel.tokens;
    if panel.width > lookup::TOKENS || !(0..HEIGHTS.len()).any(|s| w.looks_up(lookup, s, tokens)) {
        return None;
    }
    if panel.width == 1 {
        return Some(Rows { rows: x, stride: 0, tokens, lookup });
    }
    let stride = row_stride(job.shape.features);
    // SAFETY: the tier is supported; a panel of four tokens has all features; a tile has room for as many rows, whose stride is a
    // multiple of 16.
    unsafe { (lookup.rows)(x.as_ptr(), job.shape.features, room.as_mut_ptr(), stride) };
    Some(Rows { rows: room, stride, tokens, lookup })
}

/// One panel times some bands.
fn multiply(job: &Job<'_>, w: &Sparse, panel: Panel, x: &X<'_>, bands: Range<usize>, tile: &mut [u8]) {
    for band in bands {
        if job.finish.saturating && !w.split_rows() && panel.width == 64 {
            fused(job, w, panel, x.panel, band, tile);
        } else {
            general(job, w, panel, x, band, tile);
        }
    }
}

/// What the kernels of section s read.
fn band_of<'a>(
    job: &'a Job<'_>,
    w: &'a Sparse,
    x: &'a [u8],
    band: usize,
    s: usize,
) -> Option<sparse::Band<'a>> {
    let groups = w.groups(band, s);
    if groups.is_empty() {
        return None;
    }
    let (indices, weights) = w.entries(s);
    Some(sparse::Band { groups, indices, weights, panel: x, init: job.init, first_row: band * BAND })
}

/// What is left of a band of section s of a panel of 64 tokens when `run` has had the kernel of tall groups, where there is one, and these.
fn but_tall<'a>(
    job: &Job<'_>,
    w: &'a Sparse,
    (band, s): (usize, usize),
    whole: sparse::Band<'a>,
    run: impl FnOnce(&'static SparseKernel, &sparse::Band<'a>),
) -> sparse::Band<'a> {
    let Some(kernel) = job.tier.tall_kernel(w.layout()).filter(|_| HEIGHTS[s] == 4) else { return whole };
    let Some([tall, alone]) = w.tall(band) else { return whole };
    run(kernel, &sparse::Band { groups: tall, ..whole });
    sparse::Band { groups: alone, ..whole }
}

/// Bytes of a panel of 64 tokens, K-major as they come out of the registers of a tile, and from there to where they belong.
fn fused(job: &Job<'_>, w: &Sparse, panel: Panel, x: &[u8], band: usize, tile: &mut [u8]) {
    let first = band * BAND;
    let features = (job.out_features - first).min(BAND);
    let (sums, rest) = tile.split_at_mut(SUMS);
    let (more, lines) = rest.split_at_mut(SUMS);
    let lines = lines.as_mut_ptr();
    // SAFETY: the weights' constructor proved groups and indices for x of this many features, of which this is a whole
    // panel; parameters are padded to whole bands; the output belongs to this call and this tile of it to this task.
    unsafe {
        let out = match job.out {
            Out::Panels(y, to) if to.layout == PanelLayout::KMajor => {
                y.add(to.range(panel).start + first * 64)
            }
            _ => lines,
        };
        if job.finish.curve == Curve::Identity {
            for s in 0..HEIGHTS.len() {
                if let Some(whole) = band_of(job, w, x, band, s) {
                    let left = but_tall(job, w, (band, s), whole, |kernel, tall| {
                        Tier::ends(kernel)(tall, &job.finish, out);
                    });
                    job.tier.to_bytes(w.layout(), HEIGHTS[s])(&left, &job.finish, out);
                }
            }
        } else {
            // Beside a curve, sums that go through the first-level cache cost little.
            let sums = as_i32(sums);
            spill(job, w, 64, &X { panel: x, rows: None }, band, [&mut *sums, as_i32(more)], &mut []);
            (job.tier.packing.requantize_rows)(&job.finish, sums.as_ptr(), first, features, out);
        }
        match job.out {
            Out::Panels(_, to) if to.layout == PanelLayout::KMajor => {}
            Out::Panels(y, to) => {
                (job.tier.packing.interleave_kmajor)(
                    lines,
                    features,
                    y.add(to.range(panel).start + first * 64),
                );
            }
            Out::Rows(y, stride) => (job.tier.packing.unpack_kmajor)(&Tokens {
                rows: y.add(panel.token * stride + first),
                stride,
                tokens: panel.tokens,
                features,
                panel: lines,
                width: 64,
                flip: job.finish.flip,
                ahead: std::ptr::null(),
            }),
        }
    }
}

/// Through exact sums in memory.
fn general(job: &Job<'_>, w: &Sparse, panel: Panel, x: &X<'_>, band: usize, tile: &mut [u8]) {
    let first = band * BAND;
    let features = (job.out_features - first).min(BAND);
    let Panel { token, tokens, width } = panel;
    let (sums, rest) = tile.split_at_mut(SUMS);
    let (rows, rest) = rest.split_at_mut(SUMS);
    let (bytes, gathered) = rest.split_at_mut(4 * BYTES);
    let (sums, rows) = (as_i32(sums), as_i32(rows));
    // SAFETY: as in `fused`.
    unsafe {
        spill(job, w, width, x, band, [&mut *sums, &mut *rows], gathered);
        let (packing, padded) = (&job.tier.packing, features.next_multiple_of(4));
        let sums = if by_token(width) {
            sums
        } else {
            match width {
                64 => (packing.registers_to_rows)(sums.as_ptr(), padded, rows.as_mut_ptr(), BAND),
                _ => (packing.sums_to_rows)(sums.as_ptr(), padded, width, rows.as_mut_ptr(), BAND),
            }
            rows
        };
        finish(job, TileOf { token, tokens, feature: first, features }, (sums.as_ptr(), BAND, false), bytes);
    }
}

/// Whether kernels of panels of so many tokens leave their sums token by token.
fn by_token(width: usize) -> bool {
    width < 16
}

/// The exact sums of a band, `[feature][width]` (of 64 tokens in the order of registers), or `[token][BAND]` where they leave token by
/// token.
///
/// # Safety
/// As for the kernels: x is a panel of `width` tokens with all features of the layer.
unsafe fn spill(
    job: &Job<'_>,
    w: &Sparse,
    width: usize,
    x: &X<'_>,
    band: usize,
    [sums, more]: [&mut [i32]; 2],
    gathered: &mut [u8],
) {
    for s in 0..HEIGHTS.len() {
        let Some(whole) = band_of(job, w, x.panel, band, s) else { continue };
        if let Some(x) = &x.rows
            && w.looks_up(x.lookup, s, x.tokens)
            && let Some((chunks, places, weights)) = w.chunks(band, s)
        {
            let call = lookup::Call {
                groups: whole.groups,
                chunks,
                places,
                weights,
                x: x.rows,
                stride: x.stride,
                init: whole.init,
                first_row: whole.first_row,
            };
            // SAFETY: as the caller; chunks were made of these groups, of this many features.
            unsafe { (x.lookup.kernel(HEIGHTS[s], x.tokens).spill)(&call, sums.as_mut_ptr()) };
            continue;
        }
        let run = |band: &sparse::Band<'_>, out: *mut i32, gathered: *mut u8| {
            let (layout, height) = (w.layout(), HEIGHTS[s]);
            // SAFETY: as the caller.
            unsafe {
                match width {
                    1 => (job.tier.gemv_kernel(layout, height).spill)(band, gathered.cast(), out),
                    4 | 8 => (job.tier.few_kernel(layout, height, width).spill)(band, out),
                    _ => (job.tier.sparse_kernel(layout, height, width).spill)(band, out),
                }
            }
        };
        let whole = match width {
            64 => but_tall(job, w, (band, s), whole, |kernel, tall| {
                // SAFETY: as the caller; the weights' constructor proved pairs of groups.
                unsafe { (kernel.spill)(tall, sums.as_mut_ptr()) };
            }),
            _ => whole,
        };
        // Groups that stand for the same rows further along K come last, and are added.
        let near = whole.groups.partition_point(|g| g.base == 0);
        let (near, far) = whole.groups.split_at(near);
        run(&sparse::Band { groups: near, ..whole }, sums.as_mut_ptr(), gathered.as_mut_ptr());
        if !far.is_empty() {
            run(&sparse::Band { groups: far, ..whole }, more.as_mut_ptr(), gathered.as_mut_ptr());
            for row in far.iter().flat_map(|g| g.row as usize..(g.row + g.rows) as usize) {
                // Both halves started there.
                let (init, own) = (job.init[row], row - whole.first_row);
                for t in 0..width {
                    let at = if by_token(width) { t * BAND + own } else { own * width + t };
                    sums[at] = sums[at].wrapping_add(more[at].wrapping_sub(init));
                }
            }
        }
    }
}
