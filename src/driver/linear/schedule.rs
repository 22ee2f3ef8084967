//! Block-sparse layers: which thread takes which panels and bands, and in what order.

use super::weights::Bands;
use super::{Job, Memory, Source, all_packed, pack_piece};
use crate::base::ctx::Ctx;
use crate::driver::share;
use crate::kernels::panel::Panel;
use std::ops::Range;

/// What is done with a panel of tokens and some bands of output features.
pub trait Multiply: Sync {
    /// The weights.
    fn weights(&self) -> &impl Bands;
    /// Bytes that the weights of a call take in the cache.
    fn weight_bytes(&self) -> usize;
    /// Bytes of memory that a task needs for the most that it does with `begin` or `multiply`, given so many chunks of
    /// bands.
    fn tile_bytes(&self, chunks: usize) -> usize;
    /// Some bands will be met by several panels.
    fn begin(&self, bands: Range<usize>, tile: &mut [u8]);
    /// One panel times those bands.
    fn multiply(&self, panel: Panel, x: &[u8], bands: Range<usize>, tile: &mut [u8]);
}

/// Everything once.
///
/// With enough pieces of tokens, and weights that fit a thread's cache, each thread packs and multiplies pieces of its
/// own. Else x is packed first, and ranges of bands that cost about the same are shared out too: as few as keep a
/// thread's weights in its cache, but enough for all threads.
pub fn run<M: Multiply>(job: &Job<'_>, m: &M, ctx: &Ctx, memory: Memory<'_>) {
    let (threads, pieces, w) = (ctx.threads(), job.shape.pieces(), m.weights());
    let core = ctx.target().core;
    let few = if pieces < threads { (4 * threads).div_ceil(pieces.max(1)) } else { 1 };
    // Packed floats are large too: shared out by bands, they would all be read again by every range.
    let alone = threads == 1 || (job.shape.layout.is_float() && pieces >= 2 * threads);
    let ranges = if alone { 1 } else { m.weight_bytes().div_ceil(core.share_bytes()).max(few) };
    let ranges = ranges.clamp(1, w.bands());
    if ranges == 1 {
        let chunks = m.weight_bytes().div_ceil(core.block_bytes()).clamp(1, w.bands().max(1));
        let tile = m.tile_bytes(chunks).next_multiple_of(64);
        let tasks = if pieces.is_multiple_of(threads) { threads } else { 4 * threads };
        let tasks = tasks.min(pieces);
        let block = (2 * core.block_bytes() / job.shape.piece_bytes().max(1))
            .clamp(1, pieces.div_ceil(tasks.max(1)).max(1));
        let region = match job.source {
            Source::Packed(_) => 0,
            Source::Pack(_) => block * job.shape.piece_bytes() + 64,
        };
        let region = region.next_multiple_of(64);
        memory.tiles.grow((tile + region + job.piece_rows) * tasks);
        let (tiles, rest) = memory.tiles.bytes_mut().split_at_mut(tile * tasks);
        let (regions, rows) = rest.split_at_mut(region * tasks);
        let each = [tile, region, job.piece_rows];
        ctx.for_each_chunks(tasks, [tiles, regions, rows], each, &|i, [tile, region, rows]| {
            let _held = job.hold();
            own_pieces(job, m, share(pieces, tasks, i), (block, chunks), [tile, region, rows]);
        });
        return;
    }
    let x = all_packed(job, ctx, memory.x, memory.rows);
    let groups = (4 * threads).div_ceil(ranges).min(pieces);
    let tasks = groups * ranges;
    let tile = m.tile_bytes(ranges).next_multiple_of(64);
    memory.tiles.grow(tile * tasks);
    ctx.for_each_chunk(tasks, memory.tiles.bytes_mut(), tile, &|i, tile| {
        let _held = job.hold();
        // Tasks that follow each other, which a thread tends to take, have the same weights.
        let bands = w.bands_by_cost(ranges, i / groups);
        m.begin(bands.clone(), tile);
        for panel in share(pieces, groups, i % groups).flat_map(|i| job.shape.piece(i)) {
            m.multiply(panel, &x[job.shape.range(panel)], bands.clone(), tile);
        }
    });
}

/// Packs and multiplies some pieces: as many at a time as fit the cache, times as many bands as fit it.
fn own_pieces<M: Multiply>(
    job: &Job<'_>,
    m: &M,
    pieces: Range<usize>,
    (block, chunks): (usize, usize),
    [tile, region, rows]: [&mut [u8]; 3],
) {
    let shape = job.shape;
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
            let bands = m.weights().bands_by_cost(chunks, chunk);
            m.begin(bands.clone(), tile);
            for panel in (first..last).flat_map(|i| shape.piece(i)) {
                let range = shape.range(panel);
                let x = &x[range.start - start..range.end - start];
                m.multiply(panel, x, bands.clone(), tile);
            }
        }
        first = last;
    }
}
