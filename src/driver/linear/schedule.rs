//! Block-sparse layers: which thread takes which panels and bands, and in what order.

use super::weights::Bands;
use super::{Job, Memory, Source, all_packed, pack_piece};
use crate::base::ctx::Ctx;
use crate::driver::share;
use crate::kernels::panel::{Panel, Shape};
use std::ops::Range;

/// What is done with a panel of tokens and some bands of output features.
pub trait Multiply: Sync {
    /// The weights.
    fn weights(&self) -> &impl Bands;
    /// Bytes that the weights of a call take in the cache.
    fn weight_bytes(&self) -> usize;
    /// Whether `begin` does anything.
    fn begins(&self) -> bool;
    /// Bytes of memory that a task needs for the most that it does with `begin` or `multiply`, given so many chunks of
    /// bands.
    fn tile_bytes(&self, chunks: usize) -> usize;
    /// Some bands will be met by several panels.
    fn begin(&self, bands: Range<usize>, tile: &mut [u8]);
    /// One panel times those bands.
    fn multiply(&self, panel: Panel, x: &[u8], bands: Range<usize>, tile: &mut [u8]);
    /// Whether two whole neighbouring panels at once are faster, so that `multiply_two` exists.
    fn takes_two(&self) -> bool {
        false
    }
    /// Two whole neighbouring panels times those bands.
    fn multiply_two(&self, _panels: [Panel; 2], _x: &[u8], _bands: Range<usize>, _tile: &mut [u8]) {
        unreachable!("one panel at a time")
    }
}

/// How the pieces of a call are shared out.
struct Sharing {
    /// Ranges of bands that cost about the same: where there is one, tasks pack and multiply pieces of their own.
    ranges: usize,
    /// Groups of pieces, for each range.
    groups: usize,
}

impl Sharing {
    /// Of so many pieces.
    fn new<M: Multiply>(job: &Job<'_>, m: &M, ctx: &Ctx, pieces: usize) -> Self {
        let threads = ctx.threads();
        let few = match pieces < threads {
            false => 1,
            // Weights are widened when a task begins: as few tasks as can be have the same ones.
            true if m.begins() => 4 * threads,
            true => (4 * threads).div_ceil(pieces.max(1)),
        };
        // Packed floats are large too: shared out by bands, they would all be read again by every range.
        let alone = threads == 1 || (job.shape.layout.is_float() && pieces >= 2 * threads);
        let share = ctx.core().share_bytes();
        let ranges = if alone { 1 } else { m.weight_bytes().div_ceil(share).max(few) };
        let ranges = ranges.clamp(1, m.weights().bands());
        Sharing { ranges, groups: (4 * threads).div_ceil(ranges).min(pieces) }
    }

    fn tasks(&self) -> usize {
        self.groups * self.ranges
    }
}

/// How tasks take pieces of their own.
struct Own {
    tasks: usize,
    /// Pieces at a time.
    block: usize,
    /// Bytes of a task: its tile, and x where it is packed.
    tile: usize,
    region: usize,
}

impl Own {
    /// Of so many pieces, with tiles of so many bytes, multiplied one at a time or two.
    fn new(job: &Job<'_>, ctx: &Ctx, pieces: usize, tile: usize, two: bool) -> Self {
        let threads = ctx.threads();
        let tasks = if pieces.is_multiple_of(threads) { threads } else { 4 * threads };
        let tasks = tasks.min(pieces);
        let block = 2 * ctx.core().block_bytes() / job.shape.piece_bytes().max(1);
        // Where panels are multiplied two at a time, a block has as many pairs of them as fit, and one at least.
        let block = if two { (block / 2 * 2).max(2) } else { block };
        let block = block.clamp(1, pieces.div_ceil(tasks.max(1)).max(1));
        let region = match job.source {
            Source::Packed(_) | Source::Rows(..) => 0,
            Source::Pack(_) => block * job.shape.piece_bytes() + 64,
        };
        Own { tasks, block, tile, region: region.next_multiple_of(64) }
    }

    fn bytes(&self, job: &Job<'_>) -> usize {
        (self.tile + self.region + job.piece_rows) * self.tasks
    }
}

/// Everything once.
///
/// With enough pieces of tokens, and weights that fit a thread's cache, each thread packs and multiplies pieces of its
/// own. Else x is packed first, and ranges of bands that cost about the same are shared out too: as few as keep a
/// thread's weights in its cache, but enough for all threads.
pub fn run<M: Multiply>(job: &Job<'_>, m: &M, ctx: &Ctx, mut memory: Memory<'_>) {
    let (pieces, w) = (job.shape.pieces(), m.weights());
    let sharing = Sharing::new(job, m, ctx, pieces);
    let chunks = m.weight_bytes().div_ceil(ctx.core().block_bytes()).clamp(1, w.bands().max(1));
    if ctx.threads() > 1 {
        reserve(job, m, ctx, chunks, &mut memory);
    }
    if sharing.ranges == 1 {
        let own = Own::new(job, ctx, pieces, m.tile_bytes(chunks).next_multiple_of(64), m.takes_two());
        memory.tiles.grow(own.bytes(job));
        let (tiles, rest) = memory.tiles.bytes_mut().split_at_mut(own.tile * own.tasks);
        let (regions, rows) = rest.split_at_mut(own.region * own.tasks);
        let each = [own.tile, own.region, job.piece_rows];
        ctx.for_each_chunks(own.tasks, [tiles, regions, rows], each, &|i, [tile, region, rows]| {
            let _held = job.hold();
            own_pieces(job, m, share(pieces, own.tasks, i), (own.block, chunks), [tile, region, rows]);
        });
        return;
    }
    let x = all_packed(job, ctx, memory.x, memory.rows);
    let Sharing { ranges, groups } = sharing;
    let tile = m.tile_bytes(ranges).next_multiple_of(64);
    memory.tiles.grow(tile * sharing.tasks());
    ctx.for_each_chunk(sharing.tasks(), memory.tiles.bytes_mut(), tile, &|i, tile| {
        let _held = job.hold();
        // Tasks that follow each other, which a thread tends to take, have the same weights.
        let bands = w.bands_by_cost(ranges, i / groups);
        m.begin(bands.clone(), tile);
        let pieces = share(pieces, groups, i % groups);
        let x = &x[pieces.start * job.shape.piece_bytes()..];
        multiply_pieces(job.shape, m, pieces, x, &bands, tile);
    });
}

/// Takes the memory of all calls of fewer pieces too, which are shared out in other ways.
fn reserve<M: Multiply>(job: &Job<'_>, m: &M, ctx: &Ctx, chunks: usize, memory: &mut Memory<'_>) {
    let (pieces, threads) = (job.shape.pieces(), ctx.threads());
    // Beyond so many pieces a call needs no less than a smaller one, but for their remainder by threads.
    let few = pieces.min(8 * threads);
    let (mut tiles, mut packed, mut known) = (0, 0, None);
    let own_tile = m.tile_bytes(chunks).next_multiple_of(64);
    for pieces in (1..few).chain(few.max(pieces.saturating_sub(threads))..pieces) {
        let sharing = Sharing::new(job, m, ctx, pieces);
        if sharing.ranges == 1 {
            tiles = tiles.max(Own::new(job, ctx, pieces, own_tile, m.takes_two()).bytes(job));
            continue;
        }
        packed = pieces;
        let tile = match known {
            Some((ranges, tile)) if ranges == sharing.ranges => tile,
            _ => m.tile_bytes(sharing.ranges).next_multiple_of(64),
        };
        known = Some((sharing.ranges, tile));
        tiles = tiles.max(tile * sharing.tasks());
    }
    memory.tiles.grow(tiles);
    if let (Source::Pack(_), Some(x)) = (job.source, &mut memory.x) {
        x.grow(Shape { tokens: packed * job.shape.piece_tokens(), ..job.shape }.bytes());
        memory.rows.grow(packed * job.piece_rows);
    }
}

/// Multiplies some pieces, whose first byte is the first of `x`, by those bands.
fn multiply_pieces<M: Multiply>(
    shape: Shape,
    m: &M,
    pieces: Range<usize>,
    x: &[u8],
    bands: &Range<usize>,
    tile: &mut [u8],
) {
    let start = pieces.start * shape.piece_bytes();
    let whole = pieces.end.min(shape.tokens / shape.piece_tokens());
    let mut i = pieces.start;
    while i < pieces.end {
        if m.takes_two() && i + 1 < whole {
            let panels = [shape.panel(i), shape.panel(i + 1)];
            let own = shape.range(panels[0]).start - start..shape.range(panels[1]).end - start;
            m.multiply_two(panels, &x[own], bands.clone(), tile);
            i += 2;
            continue;
        }
        for panel in shape.piece(i) {
            let own = shape.range(panel);
            m.multiply(panel, &x[own.start - start..own.end - start], bands.clone(), tile);
        }
        i += 1;
    }
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
            Source::Packed(x) | Source::Rows(x, _) => &x[start..],
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
            multiply_pieces(shape, m, first..last, x, &bands, tile);
        }
        first = last;
    }
}
