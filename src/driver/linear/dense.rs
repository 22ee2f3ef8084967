//! Dense: tiles of tokens times panels of output features.

use super::weights::Dense;
use super::{Job, Memory, Out, Source, all_packed, through_rows};
use crate::base::buffer::as_i32;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::driver::share;
use crate::kernels::activation::Curve;
use crate::kernels::attention::pack::flip;
use crate::kernels::byte_table::DenseKernel;
use crate::kernels::dense::{LINE, Tile};
use crate::kernels::epilogue::Sums;
use crate::kernels::panel::{PanelLayout, row_stride};
use std::ops::Range;

/// y = x · wᵀ with dense w.
pub fn dense(job: &Job<'_>, w: &Dense, ctx: &Ctx, memory: Memory<'_>) {
    // Panels of the next layer's x are made from rows, when all are there.
    through_rows(job, true, ctx, memory, |job, memory| rows(job, w, ctx, memory));
}

fn rows(job: &Job<'_>, w: &Dense, ctx: &Ctx, memory: Memory<'_>) {
    let x = all_packed(job, ctx, memory.x, memory.rows);
    let stride = match job.source {
        Source::Rows(_, stride) => stride,
        _ => job.shape.features_padded(),
    };
    let (m, n) = (job.shape.tokens, job.out_features);
    let kernel = w.kernel();
    let direct = is_direct(job, w);
    let panels = n.div_ceil(kernel.nr);
    let most = kernel.run.len();

    // Wide or signed elements are made for a block of tokens at a time, in the task's own memory.
    let wide = match job.shape.layout {
        PanelLayout::Rows if kernel.x_bytes > 1 || job.tier.bytes.signed => {
            row_stride(kernel.x_bytes * job.shape.features)
        }
        _ => 0,
    };
    let k_block = k_block(job, w);
    // Every panel of weights goes through all K of a block of tokens, which is still in the second-level cache when the next one comes.
    let core = ctx.core();
    let bytes = (core.share_bytes().saturating_sub(w.panel_bytes()))
        .clamp(core.block_bytes() / 2, core.block_bytes());
    let block = bytes / stride.max(wide).max(1);
    let columns = if ctx.threads() == 1 { 1 } else { (4 * ctx.threads()).min(panels) };
    let rows = match ctx.threads() {
        1 => 1,
        threads => (4 * threads).div_ceil(columns).min(m.div_ceil(most)),
    };
    // A task's tokens in blocks of about equal height: each goes through all weights, which a low one would read for little.
    let own = m.div_ceil(rows.max(1)).max(1);
    let block = own.div_ceil(own.div_ceil(block.clamp(1, own).next_multiple_of(most)));
    let several = kernel.several.iter().enumerate().map(|(m, s)| (m + 1) * s.panels).max();
    let least = most.max(several.unwrap_or(0));
    let sums = if k_block < w.steps() { block.max(least) } else { least };
    // The epilogue reads whole registers of sums, beyond the last where a panel is not so wide.
    let tile = (sums * kernel.nr * 4 + 60).next_multiple_of(64);
    let wide_rows = (block * wide).next_multiple_of(64);
    let wide_panel = if widened_kernel(job, w).is_some() { 4 * w.steps() * kernel.nr } else { 0 };
    let chunk = (tile + wide_rows + wide_panel).next_multiple_of(64);
    let tasks = if m == 0 { 0 } else { columns * rows };
    memory.tiles.grow(chunk * tasks);
    ctx.for_each_chunk(tasks, memory.tiles.bytes_mut(), chunk, &|i, bytes| {
        let _held = job.hold();
        let (tile, rest) = bytes.split_at_mut(tile);
        let (wide_x, wide_w) = rest.split_at_mut(wide_rows);
        let panels = share(panels, columns, i % columns);
        let tokens = share(m, rows, i / columns);
        let mut first = tokens.start;
        while first < tokens.end {
            let last = (first + block).min(tokens.end);
            let x = if wide == 0 {
                Rows { bytes: &x[first * stride..], stride }
            } else if job.tier.bytes.signed {
                for (from, to) in (first..last).zip(wide_x.chunks_mut(wide)) {
                    let row = &x[from * stride..][..job.shape.features];
                    // SAFETY: the tier is supported.
                    unsafe { flip::pick(job.tier.isa)(row, 0x80, &mut to[..row.len()]) };
                }
                Rows { bytes: wide_x, stride: wide }
            } else {
                let widen = if kernel.x_bytes == 2 { widen::<2> } else { widen::<4> };
                widen(x, stride, first..last, job.shape.features, wide_x, wide);
                Rows { bytes: wide_x, stride: wide }
            };
            block_of_tokens(job, w, (x, direct), first..last, panels.clone(), as_i32(tile), wide_w);
            first = last;
        }
    });
}

/// Tiles of tokens from which on it pays to widen a panel of narrow weights to memory, for all of them, rather than in each.
const WIDENED_FOR: usize = 4;

/// The kernel of weights that were widened: where they are stored narrower than products take them, without scales, and where it has
/// panels and tiles of the same shape.
fn widened_kernel(job: &Job<'_>, w: &Dense) -> Option<&'static DenseKernel> {
    let narrow = w.kernel();
    let floats = job.shape.layout == PanelLayout::F32Rows && narrow.stored != Element::F32;
    if !floats || w.scales().is_some() {
        return None;
    }
    let wide = job.tier.float.f32.dense_of(Element::F32);
    (wide.nr == narrow.nr && wide.run.len() == narrow.run.len()).then_some(wide)
}

/// Steps of K that are taken at a time, so that a tile's x stays in the first-level cache. Float sums go on where they
/// were; integers are a quarter as long, and scaled groups are sums of their own.
fn k_block(job: &Job<'_>, w: &Dense) -> usize {
    const MOST: usize = 1024;
    if !job.shape.layout.is_float() || w.scales().is_some() || w.steps() <= 2 * MOST {
        return w.steps();
    }
    // A product of matrices takes two steps.
    w.steps().div_ceil(w.steps().div_ceil(MOST)).next_multiple_of(2)
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

/// Whether a tile can be stored as the caller's output: it is sums, which are not changed any more but for the bias of floats.
fn is_direct(job: &Job<'_>, w: &Dense) -> bool {
    let end = &job.finish;
    if w.scales().is_some() || end.corrections.iter().any(Option::is_some) {
        return false;
    }
    match end.element {
        Element::I32 => true,
        Element::F32 => {
            job.shape.layout.is_float()
                && end.token_scale.is_none()
                && end.residual.is_none()
                && end.curve == Curve::Identity
                && end.clamp == (f32::NEG_INFINITY, f32::INFINITY)
                && end.scale[..job.out_features].iter().all(|&scale| scale == 1.0)
        }
        _ => false,
    }
}

/// Every panel once through the cache, for tiles of tokens of about equal height.
fn block_of_tokens(
    job: &Job<'_>,
    w: &Dense,
    (x, direct): (Rows<'_>, bool),
    tokens: Range<usize>,
    panels: Range<usize>,
    tile: &mut [i32],
    wide_w: &mut [u8],
) {
    let kernel = w.kernel();
    let count = tokens.len().div_ceil(kernel.run.len());
    let k_block = if count > 1 { k_block(job, w) } else { w.steps() };
    let wide = widened_kernel(job, w).filter(|_| count >= WIDENED_FOR);
    let (widened, kernel) = (wide.is_some(), wide.unwrap_or(kernel));
    let direct = direct && k_block == w.steps();
    let Out::Rows(y, stride) = job.out else { unreachable!("a dense layer writes rows") };
    // So many tiles are one token higher than the others.
    let (least, higher) = (tokens.len() / count, tokens.len() % count);
    let mut panel = panels.start;
    while panel < panels.end {
        // A few tokens take several panels at a time, where there are as many.
        let few = kernel.several.get(tokens.len() - 1).filter(|s| panel + s.panels <= panels.end);
        let at_once = few.map_or(1, |s| s.panels);
        let feature = panel * kernel.nr;
        let direct = direct && feature + at_once * kernel.nr <= job.out_features;
        let init = &job.init[feature..feature + at_once * kernel.nr];
        let (scales, group, scales_stride) = match w.scales() {
            None => (std::ptr::null(), w.steps(), 0),
            Some(s) => (s.scales[feature..][..at_once * kernel.nr].as_ptr(), s.size, s.stride),
        };
        let (weights, panel_bytes) = if widened {
            let (from, n) = (w.panels(panel..panel + 1), w.steps() * kernel.nr);
            assert!(4 * n <= wide_w.len() && w.kernel().stored.bytes_of(n) <= from.len());
            // SAFETY: the tier is supported; the assert gives as many weights, and room for as many floats.
            unsafe { job.tier.float.widen.of(w.kernel().stored)(from.as_ptr(), n, wide_w.as_mut_ptr()) };
            (&*wide_w, 4 * n)
        } else {
            (w.panels(panel..panel + at_once), w.panel_bytes())
        };
        let stored = w.panels(panel..panel + at_once).as_ptr();
        let step_bytes = panel_bytes / w.steps().max(1);
        let mut step = 0;
        // Once at least: sums of nothing have a bias too.
        loop {
            let steps = k_block.min(w.steps() - step);
            // What is read after this: where weights are widened, the next panel, else what follows. A single tile reads it in one
            // stream anyway, without help.
            let next = if widened { w.steps() } else { steps };
            let ahead = stored.wrapping_add((step + next) * w.step_bytes());
            let lines = steps.div_ceil(LINE).max(1);
            let ahead_lines = match count {
                1 => 0,
                _ => (steps * w.step_bytes()).div_ceil(64 * count * lines),
            };
            let last = step + steps == w.steps();
            // Where K is taken in blocks, the sums of all tiles are kept until the last.
            let kept = steps < w.steps();
            let mut t = Tile {
                x: std::ptr::null(),
                stride: x.stride,
                weights: weights[step * step_bytes..].as_ptr(),
                panel_bytes,
                steps,
                init: init.as_ptr(),
                resume: step > 0,
                scales,
                group,
                scales_stride,
                out: tile.as_mut_ptr(),
                out_stride: if direct { stride } else { at_once * kernel.nr },
                bias: if direct { job.finish.bias[feature..].as_ptr() } else { std::ptr::null() },
                ahead,
                ahead_lines,
                y: std::ptr::null(),
                y_stride: job.finish.element.bytes_of(stride),
                y_bytes: if last && w.scales().is_none() {
                    job.finish.element.bytes_of(kernel.nr)
                } else {
                    0
                },
            };
            let mut begin = 0;
            for i in 0..count {
                let height = least + usize::from(i < higher);
                let at = if kept { begin * kernel.nr } else { 0 };
                assert!(at + height * at_once * kernel.nr <= tile.len());
                assert!((begin + height - 1) * x.stride + (step + steps) * 4 <= x.bytes.len());
                let run = few.map_or(kernel.run[height - 1], |s| s.run);
                let token = tokens.start + begin;
                let y_of =
                    |feature: usize| y.wrapping_add(job.finish.element.bytes_of(token * stride + feature));
                let sums = tile.as_mut_ptr().wrapping_add(at);
                t.x = x.bytes.as_ptr().wrapping_add(begin * x.stride + step * 4);
                t.y = y_of(feature);
                t.out = if direct { t.y.cast_mut().cast() } else { sums };
                // SAFETY: the asserts give room for x and the sums, the weights' constructor for panels of all steps and for
                // scales of every group; the output belongs to this call and this tile of it to this task. What is stored there
                // directly has whole panels inside of the output's features, so there is room.
                unsafe {
                    run(&t);
                    for p in (0..at_once).filter(|_| last && !direct) {
                        let feature = feature + p * kernel.nr;
                        (job.epilogue)(
                            &job.finish,
                            &Sums {
                                sums: sums.add(p * kernel.nr),
                                ld: at_once * kernel.nr,
                                transposed: false,
                                token,
                                tokens: height,
                                feature,
                                features: (job.out_features - feature).min(kernel.nr),
                                out: y_of(feature),
                                stride,
                            },
                        );
                    }
                }
                t.ahead = t.ahead.wrapping_add(64 * ahead_lines * lines);
                begin += height;
            }
            step += steps;
            if step >= w.steps() {
                break;
            }
        }
        panel += at_once;
    }
}
