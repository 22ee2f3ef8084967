//! Dense: tiles of tokens times panels of output features.

use super::{BLOCK_BYTES, Job, Memory, Out, all_packed, share};
use crate::ctx::Ctx;
use crate::kernels::buffer::{Buffer, as_i32};
use crate::kernels::dense::Tile;
use crate::kernels::epilogue::{Plan, Sums, Target};
use crate::kernels::pack::Tokens;
use crate::kernels::panel::{PanelLayout, Shape, row_stride};
use crate::kernels::weights::Dense;
use std::ops::Range;

/// y = x · wᵀ with dense w.
pub fn dense(job: &Job<'_>, w: &Dense, ctx: &Ctx, memory: Memory<'_>) {
    let x = all_packed(job, ctx, memory.x, memory.rows);
    let stride = row_stride(job.shape.features);
    let (m, n) = (job.shape.tokens, job.out_features);
    let kernel = w.kernel();
    let panels = n.div_ceil(kernel.nr);
    let most = kernel.run.len();

    // Panels of the next layer's x are made from rows, when all are there.
    let (target, to) = match job.out {
        Out::Rows => (job.plan.target, None),
        Out::Panels(y, to) if to.layout == PanelLayout::Rows => ((Target::U8(y, 0), row_stride(n)), None),
        Out::Panels(y, to) => {
            let stride = row_stride(n);
            memory.rows.grow(m * stride);
            ((Target::U8(memory.rows.bytes_mut().as_mut_ptr(), 0), stride), Some((y, to)))
        }
    };
    let plan = Plan { target, ..job.plan };

    // Wide elements are made for a block of tokens at a time, in the task's own memory.
    let wide = if kernel.x_bytes > 1 { row_stride(kernel.x_bytes * job.shape.features) } else { 0 };
    let block = (BLOCK_BYTES / stride.max(wide)).clamp(1, m.max(1)).next_multiple_of(most);
    // The epilogue reads whole registers of sums, beyond the last where a panel is not so wide.
    let tile = (most * kernel.nr * 4 + 60).next_multiple_of(64);
    let chunk = tile + block * wide;
    let columns = if ctx.threads() == 1 { 1 } else { (4 * ctx.threads()).min(panels) };
    let rows = match ctx.threads() {
        1 => 1,
        threads => (4 * threads).div_ceil(columns).min(m.div_ceil(most)),
    };
    let tasks = if m == 0 { 0 } else { columns * rows };
    memory.tiles.grow(chunk * tasks);
    ctx.for_each_chunk(tasks, memory.tiles.bytes_mut(), chunk, &|i, bytes| {
        let (tile, wide_x) = bytes.split_at_mut(tile);
        let panels = share(panels, columns, i % columns);
        let tokens = share(m, rows, i / columns);
        let mut first = tokens.start;
        while first < tokens.end {
            let last = (first + block).min(tokens.end);
            let x = if wide == 0 {
                Rows { bytes: &x[first * stride..], stride }
            } else {
                let widen = if kernel.x_bytes == 2 { widen::<2> } else { widen::<4> };
                widen(x, stride, first..last, job.shape.features, wide_x, wide);
                Rows { bytes: wide_x, stride: wide }
            };
            block_of_tokens(job, w, &plan, x, first..last, panels.clone(), as_i32(tile));
            first = last;
        }
    });
    if let Some((y, to)) = to {
        rows_to_panels(job, memory.rows, to, y, ctx);
    }
}

/// Some tokens' rows, as the kernel wants their elements.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
}

/// Bytes to integers of 2 or 4 bytes.
fn widen<const BYTES: usize>(
    x: &[u8],
    stride: usize,
    tokens: Range<usize>,
    k: usize,
    to: &mut [u8],
    wide: usize,
) {
    for (t, token) in tokens.enumerate() {
        let to = &mut to[t * wide..][..wide];
        for (to, &x) in to.as_chunks_mut::<BYTES>().0.iter_mut().zip(&x[token * stride..][..k]) {
            *to = [0; BYTES];
            to[0] = x;
        }
    }
}

/// Every panel once through the cache, for tiles of tokens of about equal height.
fn block_of_tokens(
    job: &Job<'_>,
    w: &Dense,
    plan: &Plan<'_>,
    x: Rows<'_>,
    tokens: Range<usize>,
    panels: Range<usize>,
    tile: &mut [i32],
) {
    let kernel = w.kernel();
    let count = tokens.len().div_ceil(kernel.run.len());
    for panel in panels {
        let feature = panel * kernel.nr;
        let init = &job.init[feature..feature + kernel.nr];
        for i in 0..count {
            let own = share(tokens.len(), count, i);
            let x_tile = &x.bytes[own.start * x.stride..];
            assert!(own.len() * kernel.nr <= tile.len());
            assert!((own.len() - 1) * x.stride + w.steps() * 4 <= x_tile.len());
            // SAFETY: the asserts give room for x and the sums, the weights' constructor for a panel of `steps`;
            // the output belongs to this call and this tile of it to this task.
            unsafe {
                (kernel.run[own.len() - 1])(&Tile {
                    x: x_tile.as_ptr(),
                    stride: x.stride,
                    weights: w.panel(panel).as_ptr(),
                    steps: w.steps(),
                    init: init.as_ptr(),
                    out: tile.as_mut_ptr(),
                });
                (job.tier.epilogue)(
                    plan,
                    &Sums {
                        sums: tile.as_ptr(),
                        ld: kernel.nr,
                        token: tokens.start + own.start,
                        tokens: own.len(),
                        feature,
                        features: (job.out_features - feature).min(kernel.nr),
                    },
                );
            }
        }
    }
}

/// Rows of bytes to panels of lines or quads.
fn rows_to_panels(job: &Job<'_>, rows: &mut Buffer, to: Shape, y: *mut u8, ctx: &Ctx) {
    let stride = row_stride(to.features);
    let pack = if to.layout == PanelLayout::Lines { job.tier.rows_to_lines } else { job.tier.rows_to_quads };
    // SAFETY: y has room for all of `to`, which the caller made; it is borrowed for the call.
    let y = unsafe { std::slice::from_raw_parts_mut(y, to.bytes()) };
    let rows: &Buffer = rows;
    ctx.for_each_chunk(to.pieces(), y, to.piece_bytes(), &|i, bytes| {
        for panel in to.piece(i) {
            let range = to.range(panel);
            let start = i * to.piece_bytes();
            let out = &mut bytes[range.start - start..range.end - start];
            // SAFETY: rows holds every token's row; out is this panel's own.
            unsafe {
                pack(&Tokens {
                    rows: rows.bytes()[panel.token * stride..].as_ptr().cast_mut(),
                    stride,
                    tokens: panel.tokens,
                    features: to.features,
                    panel: out.as_mut_ptr(),
                    width: panel.width,
                    flip: 0,
                });
            }
        }
    });
}
