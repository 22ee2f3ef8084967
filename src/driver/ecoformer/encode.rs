//! Tokens to codes: unit vectors, kernel features against the anchors, projections, signs.

use super::{Chunks, Memory, Rows, Shared, Unit, floats, grow, row, share_out};
use crate::attention::{HeadsRef, Input, Sequences};
use crate::base::ctx::Ctx;
use crate::base::error::Result;
use crate::driver::attention::multiply_all;
use crate::driver::attention::operands::Operand;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::pack::prefetch;
use crate::kernels::attention::{LANES, PANEL};
use crate::kernels::ecoformer::{Features, inverse_norms, transpose};
use crate::kernels::pack::Tokens;
use crate::kernels::table::Tier;
use std::f64::consts::LOG2_E;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A learned hash: all of its parts checked.
#[derive(Debug, Clone, Copy)]
pub struct Hash<'a> {
    pub heads: usize,
    /// Of a head.
    pub anchors: usize,
    pub head_dim: usize,
    pub bits: usize,
    /// `[heads, anchors, head_dim]`.
    pub anchor: &'a [f32],
    /// Squared norms, `[heads, anchors]`.
    pub squares: &'a [f32],
    /// `[heads, anchors]`.
    pub centring: &'a [f32],
    /// `[heads, bits, anchors]`.
    pub projection: &'a [f32],
    /// Means of the anchors, `[heads, head_dim]`.
    pub mean: &'a [f64],
    /// Means of their squared norms, `[heads]`.
    pub mean_square: &'a [f64],
    /// `[heads]`, or each sequence's own.
    pub sigma: Option<&'a [f32]>,
}

/// One call: all of it checked.
pub struct Encode<'a> {
    pub hash: Hash<'a>,
    /// `[tokens, heads, head_dim]`.
    pub x: HeadsRef<'a, f32>,
    pub sequences: Sequences<'a>,
}

struct Plan<'a> {
    hash: &'a Hash<'a>,
    x: Operand<'a>,
    tokens: usize,
    tier: &'static Tier,
    ctx: &'a Ctx,
    columns: usize,
}

/// A worker's memory.
struct Room<'a> {
    /// `[head_dim][PANEL]`.
    lines: &'a mut [f32],
    inverse: &'a mut [f32; PANEL],
    /// `[anchors][PANEL]`.
    features: &'a mut [f32],
    /// `[bits][PANEL]`.
    y: &'a mut [f32],
    /// `[PANEL][columns]`.
    block: &'a mut [f32],
}

impl Plan<'_> {
    /// Floats of a chunk's sums.
    fn slot(&self) -> usize {
        self.columns + LANES
    }

    /// Floats of a worker.
    fn extents(&self) -> [usize; 5] {
        let hash = self.hash;
        let lines = hash.head_dim.next_multiple_of(4);
        [lines * PANEL, PANEL, hash.anchors * PANEL, hash.bits * PANEL, PANEL * self.columns]
    }

    fn room<'b>(&self, mut bytes: &'b mut [u8]) -> Room<'b> {
        let [lines, inverse, features, y, block] = self.extents().map(|n| floats(&mut bytes, n));
        let inverse = inverse.try_into().expect("a panel");
        Room { lines, inverse, features, y, block }
    }

    /// Some tokens to lines, and what makes each a unit vector. Returns how many have a direction.
    fn panel(&self, tokens: &Range<usize>, head: usize, room: &mut Room<'_>) -> usize {
        let dim = self.hash.head_dim;
        // The next panel.
        let ahead = self.x.ahead_of(tokens.end, head);
        let linear = ahead.stride == 4 * dim;
        if !linear {
            (0..PANEL).for_each(|i| prefetch(ahead.p.wrapping_add(i * ahead.stride), 4 * dim));
        }
        assert!(tokens.len() <= PANEL && room.lines.len() >= PANEL * dim.next_multiple_of(4));
        // SAFETY: the tier is supported; the tensor has these tokens' heads, and the panel is long enough.
        unsafe {
            (self.tier.float.rows_to_lines)(&Tokens {
                rows: self.x.at(tokens.start, head).cast_mut(),
                stride: self.x.stride(),
                tokens: tokens.len(),
                features: dim,
                panel: room.lines.as_mut_ptr().cast(),
                width: PANEL,
                flip: 0,
                ahead: if linear { ahead.p } else { std::ptr::null() },
            });
            inverse_norms::pick(self.ctx.isa())(&room.lines[..dim * PANEL], room.inverse);
        }
        room.inverse.iter().filter(|inverse| **inverse != 0.0).count()
    }

    /// The sum of the unit vectors of a chunk, to its slot, and behind it how many there are.
    ///
    /// # Safety
    /// The slot is this task's, and has `columns + 1` floats.
    unsafe fn sum(&self, unit: &Unit, room: &mut Room<'_>, slot: *mut f32) {
        let mut vectors = 0;
        for (i, tokens) in unit.blocks(PANEL).enumerate() {
            let own = self.panel(&tokens, unit.head, room);
            let whole = own == tokens.len();
            vectors += own;
            let (isa, float) = (self.ctx.isa(), self.tier.float);
            let n = tokens.len();
            let rows = if whole {
                super::rows(&self.x, tokens, unit.head, room.block, float, isa)
            } else {
                // What has no direction may be infinite.
                for ((token, inverse), out) in
                    tokens.zip(&*room.inverse).zip(room.block.chunks_exact_mut(self.columns))
                {
                    out.fill(0.0);
                    if *inverse != 0.0 {
                        row(&self.x, token, unit.head, &mut out[..self.hash.head_dim], float, isa);
                    }
                }
                Rows { p: room.block.as_ptr().cast(), stride: 4 * self.columns }
            };
            let tile = tile((room.inverse.as_ptr(), n), rows, n, (slot.cast(), 0), i > 0);
            // SAFETY: the tier is supported; rows and the slot are there.
            unsafe { multiply_all(float.multiply, &tile, 1, self.columns) };
        }
        // SAFETY: as the caller.
        unsafe { slot.add(self.columns).write(vectors as f32) };
    }

    /// The codes of a chunk. Returns how many tokens have no direction.
    ///
    /// # Safety
    /// The codes of these tokens are this task's.
    unsafe fn codes(&self, unit: &Unit, sigma: f32, room: &mut Room<'_>, codes: Shared) -> usize {
        let Hash { anchors, head_dim, bits, .. } = *self.hash;
        let words = bits.div_ceil(64);
        let of_head = |parts: &[f32], n: usize| parts[unit.head * n..][..n].as_ptr();
        // No bandwidth is so small that what is at a distance of 0 is not near.
        let rate = -LOG2_E / (2.0 * f64::from(sigma).max(f64::from(f32::MIN_POSITIVE)));
        let mut lost = 0;
        for tokens in unit.blocks(PANEL) {
            let n = tokens.len();
            lost += n - self.panel(&tokens, unit.head, room);
            let float = self.tier.float;
            let (features, y) = (room.features.as_mut_ptr(), room.y.as_mut_ptr());
            let lines = Rows { p: room.lines.as_ptr().cast(), stride: 4 * PANEL };
            let anchor = of_head(self.hash.anchor, anchors * head_dim);
            let projection = of_head(self.hash.projection, bits * anchors);
            let mut masks = [[0u64; 64]; 4];
            // SAFETY: the tier is supported; the room has the extents, the hash its parts; a code has at most 256 bits.
            unsafe {
                let to_features = tile((anchor, head_dim), lines, head_dim, (features, PANEL), false);
                multiply_all(float.multiply, &to_features, anchors, PANEL);
                (float.features)(&Features {
                    rows: features,
                    anchors,
                    inverse: room.inverse.as_ptr(),
                    squares: of_head(self.hash.squares, anchors),
                    centring: of_head(self.hash.centring, anchors),
                    rate: rate as f32,
                });
                let lines = Rows { p: features.cast(), stride: 4 * PANEL };
                let to_y = tile((projection, anchors), lines, anchors, (y, PANEL), false);
                multiply_all(float.multiply, &to_y, bits, PANEL);
                (float.signs)(y, bits, masks.as_mut_ptr().cast());
            }
            for (w, masks) in masks[..words].iter_mut().enumerate() {
                transpose(masks);
                for (token, word) in tokens.clone().zip(&*masks) {
                    let at = (unit.head * self.tokens + token) * words + w;
                    // SAFETY: there are as many words as tokens of all heads have; nobody else writes these.
                    unsafe { codes.at::<u64>(8 * at).write(*word) };
                }
            }
        }
        lost
    }
}

/// Rows of x times rows of w: as many steps as x has columns.
fn tile(
    (x, x_columns): (*const f32, usize),
    w: Rows,
    steps: usize,
    (out, columns): (*mut f32, usize),
    resume: bool,
) -> Tile {
    Tile {
        x: x.cast(),
        x_stride: 4 * x_columns,
        w: w.p,
        w_stride: w.stride,
        steps,
        init: std::ptr::null(),
        out: out.cast(),
        out_stride: 4 * columns,
        resume,
        ahead: std::ptr::null(),
        ahead_stride: 0,
    }
}

/// The codes of all tokens, `[heads][tokens][words]`. Returns how many tokens' heads have no direction.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there is not so much memory.
pub fn encode(job: &Encode<'_>, codes: &mut [u64], ctx: &Ctx, memory: &mut Memory) -> Result<usize> {
    let hash = &job.hash;
    let (tokens, columns) = (job.x.tokens(), hash.head_dim.next_multiple_of(LANES));
    assert_eq!(codes.len(), tokens * hash.heads * hash.bits.div_ceil(64));
    if tokens == 0 {
        // Of which there may be any number of sequences.
        return Ok(0);
    }
    let plan = Plan {
        hash,
        x: Operand::new(&Input::F32(job.x)),
        tokens,
        tier: Tier::of(ctx.target()),
        ctx,
        columns,
    };
    let Memory { workers, sums, starts, sigma } = memory;
    let chunks = Chunks::new(job.sequences, starts);
    let units = chunks.count() * hash.heads;
    let each = plan.extents().iter().map(|n| (4 * n).next_multiple_of(64)).sum();
    grow(workers, ctx.threads().min(units), each, tokens)?;
    let slot = 4 * plan.slot();
    sigma.clear();
    match hash.sigma {
        Some(frozen) => {
            for _ in 0..job.sequences.count() {
                sigma.extend_from_slice(frozen);
            }
        }
        None => {
            grow(sums, units, slot, tokens)?;
            let shared = Shared(sums.bytes_mut().as_mut_ptr());
            share_out(ctx, workers, each, units, &|bytes, units| {
                let mut room = plan.room(bytes);
                for unit in units {
                    // SAFETY: each slot is one task's.
                    unsafe { plan.sum(&chunks.unit(unit), &mut room, shared.at(unit * slot)) };
                }
            });
            for b in 0..job.sequences.count() {
                for head in 0..hash.heads {
                    let parts = chunks.slots(b, head);
                    let (first, last) = job.sequences.queries(b);
                    sigma.push(own_sigma(&plan, head, last - first, sums.bytes(), parts));
                }
            }
        }
    }
    let lost = AtomicUsize::new(0);
    let shared = Shared(codes.as_mut_ptr().cast());
    let sigma = &*sigma;
    share_out(ctx, workers, each, units, &|bytes, turns| {
        let mut room = plan.room(bytes);
        for turn in turns {
            // Backwards: where there was a pass before, what it read last is still in the caches.
            let unit = chunks.unit(units - 1 - turn);
            // SAFETY: each token's head is of one unit.
            let n = unsafe { plan.codes(&unit, sigma[unit.b * hash.heads + unit.head], &mut room, shared) };
            lost.fetch_add(n, Ordering::Relaxed);
        }
    });
    Ok(lost.into_inner())
}

/// The mean of the squared distances of all tokens to all anchors: `|x|^2 + |a|^2 - 2 x a`, mean by mean.
fn own_sigma(plan: &Plan<'_>, head: usize, tokens: usize, sums: &[u8], slots: Range<usize>) -> f32 {
    let dim = plan.hash.head_dim;
    let sum = |column: usize| -> f64 {
        let part = |slot: usize| {
            let at = 4 * (slot * plan.slot() + column);
            f64::from(f32::from_ne_bytes(sums[at..at + 4].try_into().expect("four bytes")))
        };
        slots.clone().map(part).sum()
    };
    let cosines: f64 = (0..dim).map(|i| sum(i) * plan.hash.mean[head * dim + i]).sum();
    let n = tokens as f64;
    (sum(plan.columns) / n + plan.hash.mean_square[head] - 2.0 * cosines / n) as f32
}
