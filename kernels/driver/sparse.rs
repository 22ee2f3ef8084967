//! Block-sparse: panels of tokens times bands of 64 output features.

use super::{BLOCK_BYTES, Job, Memory, Out, Source, all_packed, pack_piece, share, tile_target};
use crate::ctx::Ctx;
use crate::kernels::buffer::as_i32;
use crate::kernels::epilogue::{Plan, Sums, Target};
use crate::kernels::pack::Tokens;
use crate::kernels::panel::{Panel, PanelLayout, row_stride};
use crate::kernels::sparse;
use crate::kernels::weights::{BAND, HEIGHTS, Sparse};
use std::ops::Range;

/// Bytes of a tile of sums: a band of a panel of 64 tokens.
const SUMS: usize = BAND * 64 * 4;
/// Bytes of weights that a thread keeps in its second-level cache, beside a panel.
const SHARE_BYTES: usize = 400 << 10;
/// Bytes of a tile of bytes.
const BYTES: usize = BAND * 64;

/// y = x · wᵀ with block-sparse w.
///
/// With enough pieces of 64 tokens, and weights that fit a thread's cache, each thread packs and multiplies pieces of its
/// own. Else x is packed first, and ranges of bands that cost about the same are shared out too: as few as keep a
/// thread's weights in its cache, but enough for all threads.
pub fn sparse(job: &Job<'_>, w: &Sparse, ctx: &Ctx, memory: Memory<'_>) {
    let (threads, pieces) = (ctx.threads(), job.shape.pieces());
    let tile = 2 * SUMS + 2 * BYTES + 4 * (w.most_entries() + sparse::GATHER);
    let tile = tile.next_multiple_of(64);
    let few = if pieces < threads { (4 * threads).div_ceil(pieces.max(1)) } else { 1 };
    let ranges = if threads == 1 { 1 } else { w.bytes().div_ceil(SHARE_BYTES).max(few) };
    let ranges = ranges.clamp(1, w.bands().len());
    if ranges == 1 {
        let tasks = if pieces.is_multiple_of(threads) { threads } else { 4 * threads };
        let tasks = tasks.min(pieces);
        let block =
            (BLOCK_BYTES / job.shape.piece_bytes().max(1)).clamp(1, pieces.div_ceil(tasks.max(1)).max(1));
        let region = match job.source {
            Source::Packed(_) => 0,
            Source::Pack(_) => block * job.shape.piece_bytes() + 64,
        };
        let region = region.next_multiple_of(64);
        memory.tiles.grow((tile + region + job.piece_rows()) * tasks);
        let (tiles, rest) = memory.tiles.bytes_mut().split_at_mut(tile * tasks);
        let (regions, rows) = rest.split_at_mut(region * tasks);
        let each = [tile, region, job.piece_rows()];
        ctx.for_each_chunks(tasks, [tiles, regions, rows], each, &|i, [tile, region, rows]| {
            own_pieces(job, w, share(pieces, tasks, i), block, [tile, region, rows]);
        });
        return;
    }
    let x = all_packed(job, ctx, memory.x, memory.rows);
    let groups = (4 * threads).div_ceil(ranges).min(pieces);
    let tasks = groups * ranges;
    memory.tiles.grow(tile * tasks);
    ctx.for_each_chunk(tasks, memory.tiles.bytes_mut(), tile, &|i, tile| {
        // Tasks that follow each other, which a thread tends to take, have the same weights.
        let bands = w.bands_by_cost(ranges, i / groups);
        for panel in share(pieces, groups, i % groups).flat_map(|i| job.shape.piece(i)) {
            multiply(job, w, panel, &x[job.shape.range(panel)], bands.clone(), tile);
        }
    });
}

/// Packs and multiplies some pieces: as many at a time as fit the cache, times as many bands as fit it.
fn own_pieces(
    job: &Job<'_>,
    w: &Sparse,
    pieces: Range<usize>,
    block: usize,
    [tile, region, rows]: [&mut [u8]; 3],
) {
    let shape = job.shape;
    let chunks = w.bytes().div_ceil(BLOCK_BYTES).clamp(1, w.bands().len().max(1));
    let mut first = pieces.start;
    while first < pieces.end {
        let last = (first + block).min(pieces.end);
        let start = first * shape.piece_bytes();
        let x: &[u8] = match job.source {
            Source::Packed(x) => &x[start..],
            Source::Pack(pack) => {
                for i in first..last {
                    let own = &mut region[(i - first) * shape.piece_bytes()..];
                    pack_piece(shape, i, pack, own, rows);
                }
                region
            }
        };
        for chunk in 0..chunks {
            let bands = w.bands_by_cost(chunks, chunk);
            for panel in (first..last).flat_map(|i| shape.piece(i)) {
                let range = shape.range(panel);
                let x = &x[range.start - start..range.end - start];
                multiply(job, w, panel, x, bands.clone(), tile);
            }
        }
        first = last;
    }
}

/// One panel times some bands.
fn multiply(job: &Job<'_>, w: &Sparse, panel: Panel, x: &[u8], bands: Range<usize>, tile: &mut [u8]) {
    for band in bands {
        match &job.requantize {
            Some(requantize) if panel.width == 64 => fused(job, w, panel, x, band, requantize, tile),
            _ => general(job, w, panel, x, band, tile),
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

/// Bytes straight from the registers.
fn fused(
    job: &Job<'_>,
    w: &Sparse,
    panel: Panel,
    x: &[u8],
    band: usize,
    requantize: &crate::kernels::requantize::Requantize<'_>,
    tile: &mut [u8],
) {
    let first = band * BAND;
    let features = (job.out_features - first).min(BAND);
    let lines = tile[2 * SUMS..].as_mut_ptr();
    // SAFETY: the weights' constructor proved groups and indices for x of this many features, of which this is a whole
    // panel; parameters are padded to whole bands; the output belongs to this call and this tile of it to this task.
    unsafe {
        let out = match job.out {
            Out::Panels(y, to) if to.layout == PanelLayout::Lines => {
                y.add(to.range(panel).start + first * 64)
            }
            _ => lines,
        };
        for s in 0..HEIGHTS.len() {
            if let Some(band) = band_of(job, w, x, band, s) {
                let kernel = job.tier.sparse_kernel(w.layout(), HEIGHTS[s], 64);
                (kernel.requantize)(&band, requantize, out);
            }
        }
        let (y, stride, flip) = match (job.out, job.plan.target) {
            (Out::Panels(y, to), _) => match to.layout {
                PanelLayout::Lines => return,
                PanelLayout::Quads => {
                    let y = y.add(to.range(panel).start + first * 64);
                    return (job.tier.lines_to_quads)(lines, features, y);
                }
                PanelLayout::Rows => (y, row_stride(to.features), 0),
            },
            (Out::Rows, (Target::U8(y, flip), stride)) => (y, stride, flip),
            _ => return,
        };
        (job.tier.lines_to_rows)(&Tokens {
            rows: y.add(panel.token * stride + first),
            stride,
            tokens: panel.tokens,
            features,
            panel: lines,
            width: 64,
            flip,
        });
    }
}

/// Through exact sums in memory.
fn general(job: &Job<'_>, w: &Sparse, panel: Panel, x: &[u8], band: usize, tile: &mut [u8]) {
    let first = band * BAND;
    let features = (job.out_features - first).min(BAND);
    let Panel { token, tokens, width } = panel;
    let (sums, rest) = tile.split_at_mut(SUMS);
    let (rows, rest) = rest.split_at_mut(SUMS);
    let (bytes, gathered) = rest.split_at_mut(2 * BYTES);
    let (sums, rows) = (as_i32(sums), as_i32(rows));
    // SAFETY: as in `fused`.
    unsafe {
        spill(job, w, width, x, band, [&mut *sums, &mut *rows], gathered);
        if width > 1 {
            let padded = features.next_multiple_of(4);
            (job.tier.sums_to_rows)(sums.as_ptr(), padded, width, rows.as_mut_ptr(), BAND);
        } else {
            rows[..features].copy_from_slice(&sums[..features]);
        }
        let sums = Sums { sums: rows.as_ptr(), ld: BAND, token, tokens, feature: first, features };
        let Out::Panels(y, to) = job.out else {
            return (job.tier.epilogue)(&job.plan, &sums);
        };
        let target = match to.layout {
            PanelLayout::Rows => (Target::U8(y, 0), row_stride(to.features)),
            _ => tile_target(bytes.as_mut_ptr(), BAND, token, first),
        };
        (job.tier.epilogue)(&Plan { target, ..job.plan }, &sums);
        let pack = match to.layout {
            PanelLayout::Rows => return,
            PanelLayout::Lines => job.tier.rows_to_lines,
            PanelLayout::Quads => job.tier.rows_to_quads,
        };
        pack(&Tokens {
            rows: bytes.as_mut_ptr(),
            stride: BAND,
            tokens,
            features,
            panel: y.add(to.range(panel).start + first * width),
            width,
            flip: 0,
        });
    }
}

/// The exact sums of a band, `[feature][width]`.
///
/// # Safety
/// As for the kernels: x is a panel of `width` tokens with all features of the layer.
unsafe fn spill(
    job: &Job<'_>,
    w: &Sparse,
    width: usize,
    x: &[u8],
    band: usize,
    [sums, more]: [&mut [i32]; 2],
    gathered: &mut [u8],
) {
    for s in 0..HEIGHTS.len() {
        let Some(whole) = band_of(job, w, x, band, s) else { continue };
        let run = |band: &sparse::Band<'_>, out: *mut i32, gathered: *mut u8| {
            // SAFETY: as the caller.
            unsafe {
                if width == 1 {
                    (job.tier.token_kernel(w.layout(), HEIGHTS[s]).spill)(band, gathered.cast(), out);
                } else {
                    (job.tier.sparse_kernel(w.layout(), HEIGHTS[s], width).spill)(band, out);
                }
            }
        };
        // Groups that stand for the same rows further along K come last, and are added.
        let near = whole.groups.partition_point(|g| g.base == 0);
        let (near, far) = whole.groups.split_at(near);
        run(&sparse::Band { groups: near, ..whole }, sums.as_mut_ptr(), gathered.as_mut_ptr());
        if !far.is_empty() {
            run(&sparse::Band { groups: far, ..whole }, more.as_mut_ptr(), gathered.as_mut_ptr());
            for row in far.iter().flat_map(|g| g.row as usize..(g.row + g.rows) as usize) {
                // Both halves started there.
                let init = job.init[row];
                let start = (row - whole.first_row) * width;
                for (sum, more) in sums[start..start + width].iter_mut().zip(&more[start..]) {
                    *sum = sum.wrapping_add(more.wrapping_sub(init));
                }
            }
        }
    }
}
