//! Tokens to codes: unit vectors, kernel features against the anchors, projections, signs.

use super::{Chunks, Rows, Unit, or_too_large, row};
use crate::base::buffer::{Buffer, as_f32};
use crate::base::ctx::Ctx;
use crate::base::error::Result;
use crate::base::scratch::Scratch;
use crate::base::sequences::Sequences;
use crate::base::tensor::TensorRef;
use crate::driver::multiply::multiply_all;
use crate::driver::workers::{Shared, Workers, carve, carved, grow};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::pack::prefetch;
use crate::kernels::attention::{LANES, PANEL};
use crate::kernels::ecoformer::{Features, Norms, inverse_norms, transpose};
use crate::kernels::pack::Tokens;
use crate::kernels::table::Tier;
use std::borrow::Cow;
use std::f64::consts::LOG2_E;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A learned hash: all of its parts checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash<'a> {
    /// Heads, each with parts of its own.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Anchors of a head.
    pub anchors_per_head: usize,
    /// Bits of a code.
    pub bits: usize,
    /// `[heads, anchors_per_head, head_dim]`.
    pub anchors: Cow<'a, [f32]>,
    /// Squared norms of the anchors, `[heads, anchors_per_head]`.
    pub squares: Cow<'a, [f32]>,
    /// `[heads, anchors_per_head]`.
    pub centring: Cow<'a, [f32]>,
    /// `[heads, bits, anchors_per_head]`.
    pub projection: Cow<'a, [f32]>,
    /// Means of the anchors, `[heads, head_dim]`.
    pub mean: Cow<'a, [f64]>,
    /// Means of their squared norms, `[heads]`.
    pub mean_square: Cow<'a, [f64]>,
}

/// One call: all of it checked.
pub struct Encode<'a> {
    /// The hash.
    pub hash: &'a Hash<'a>,
    /// The bandwidth of each head, or each sequence's own.
    pub sigma: Option<&'a [f32]>,
    /// `[tokens, heads, head_dim]`, of f32.
    pub x: TensorRef<'a>,
    /// Which tokens belong together.
    pub sequences: Sequences<'a>,
}

/// A call whose memory is there: nothing of it can fail any more.
pub struct Prepared<'a> {
    plan: Plan<'a>,
    chunks: Chunks<'a>,
    workers: Workers<'a>,
    /// Sums of each chunk, where sequences have bandwidths of their own.
    sums: &'a mut Buffer,
    /// Those bandwidths, `[sequences, heads]`.
    sigma: &'a mut Buffer,
    /// Then, inverse norms of tokens, `[heads, tokens]`.
    norms: &'a mut Buffer,
}

struct Plan<'a> {
    call: &'a Encode<'a>,
    tier: &'static Tier,
    ctx: &'a Ctx,
    columns: usize,
}

/// A worker's memory.
struct Workspace<'a> {
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
    /// Bytes of a chunk's sums.
    fn slot(&self) -> usize {
        4 * (self.columns + LANES)
    }

    /// Bytes of the parts of a worker's memory, in the order of [`Workspace`].
    fn extents(&self) -> [usize; 5] {
        let hash = self.call.hash;
        let lines = hash.head_dim.next_multiple_of(4);
        [lines, 1, hash.anchors_per_head, hash.bits, self.columns].map(|rows| 4 * rows * PANEL)
    }

    fn room<'b>(&self, bytes: &'b mut [u8]) -> Workspace<'b> {
        let [lines, inverse, features, y, block] = carve(bytes, self.extents()).map(as_f32);
        let inverse = inverse.try_into().expect("a panel");
        Workspace { lines, inverse, features, y, block }
    }

    /// What makes each of some tokens a unit vector: its inverse norm.
    fn norms(&self, tokens: &Range<usize>, head: usize, room: &mut Workspace<'_>) {
        let x = &self.call.x;
        assert!((1..=PANEL).contains(&tokens.len()));
        // SAFETY: the tier is supported; the tensor has these tokens' heads, and the room a panel of norms.
        unsafe {
            (self.tier.float.hashing.norms)(&Norms {
                rows: x.at(tokens.start, head),
                stride: x.token_stride(),
                tokens: tokens.len(),
                dim: self.call.hash.head_dim,
                squares: room.inverse.as_mut_ptr(),
            });
            inverse_norms::pick(self.ctx.isa())(room.inverse);
        }
    }

    /// Some tokens to lines.
    fn lines(&self, tokens: &Range<usize>, head: usize, room: &mut Workspace<'_>) {
        let (x, dim) = (&self.call.x, self.call.hash.head_dim);
        let ahead = x.ahead_of(tokens.end, head);
        let linear = ahead.stride == 4 * dim;
        if !linear {
            self.ahead(tokens, head);
        }
        assert!(tokens.len() <= PANEL && room.lines.len() >= PANEL * dim.next_multiple_of(4));
        // SAFETY: the tier is supported; the tensor has these tokens' heads, and the panel is long enough.
        unsafe {
            (self.tier.float.pack_kmajor)(&Tokens {
                rows: x.at(tokens.start, head).cast_mut(),
                stride: x.token_stride(),
                tokens: tokens.len(),
                features: dim,
                panel: room.lines.as_mut_ptr().cast(),
                width: PANEL,
                flip: 0,
                ahead: if linear { ahead.p } else { std::ptr::null() },
            });
        }
    }

    /// Prefetches the panel behind some tokens.
    fn ahead(&self, tokens: &Range<usize>, head: usize) {
        let ahead = self.call.x.ahead_of(tokens.end, head);
        (0..PANEL)
            .for_each(|i| prefetch(ahead.p.wrapping_add(i * ahead.stride), 4 * self.call.hash.head_dim));
    }

    /// Where the inverse norms of some tokens are kept.
    fn kept(&self, tokens: &Range<usize>, head: usize, norms: Shared) -> *mut f32 {
        norms.at(4 * (head * self.call.x.shape().0 + tokens.start))
    }

    /// The sum of the unit vectors of a chunk, to its slot, and behind it how many there are; the inverse norms to where they are kept.
    ///
    /// # Safety
    /// The slot is this task's, and has `columns + 1` floats; the norms of these tokens are this task's.
    unsafe fn sum(&self, unit: &Unit, room: &mut Workspace<'_>, slot: *mut f32, norms: Shared) {
        let mut vectors = 0;
        for (i, tokens) in unit.blocks(PANEL).enumerate() {
            self.ahead(&tokens, unit.head);
            self.norms(&tokens, unit.head, room);
            let own = room.inverse.iter().filter(|inverse| **inverse != 0.0).count();
            let kept = self.kept(&tokens, unit.head, norms);
            // SAFETY: the caller promises that the norms of these tokens, of which there are as many, are this task's.
            unsafe { kept.copy_from_nonoverlapping(room.inverse.as_ptr(), tokens.len()) };
            let whole = own == tokens.len();
            vectors += own;
            let (isa, float) = (self.ctx.isa(), self.tier.float);
            let n = tokens.len();
            let rows = if whole {
                super::rows(&self.call.x, tokens, unit.head, room.block, float, isa)
            } else {
                // What has no direction may be infinite.
                for ((token, inverse), out) in
                    tokens.zip(&*room.inverse).zip(room.block.chunks_exact_mut(self.columns))
                {
                    out.fill(0.0);
                    if *inverse != 0.0 {
                        row(&self.call.x, token, unit.head, &mut out[..self.call.hash.head_dim], float, isa);
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

    /// The codes of a chunk, whose inverse norms may be kept from before. Returns how many tokens have no direction.
    ///
    /// # Safety
    /// The codes of these tokens are this task's; the norms are there, and nobody writes them.
    unsafe fn codes(
        &self,
        unit: &Unit,
        sigma: f32,
        room: &mut Workspace<'_>,
        codes: Shared,
        norms: Option<Shared>,
    ) -> usize {
        let hash = self.call.hash;
        let Hash { anchors_per_head: anchors, head_dim, bits, .. } = *hash;
        let words = bits.div_ceil(64);
        let of_head = |parts: &[f32], n: usize| parts[unit.head * n..][..n].as_ptr();
        // No bandwidth is so small that what is at a distance of 0 is not near.
        let rate = -LOG2_E / (2.0 * f64::from(sigma).max(f64::from(f32::MIN_POSITIVE)));
        let mut lost = 0;
        for tokens in unit.blocks(PANEL) {
            let n = tokens.len();
            self.lines(&tokens, unit.head, room);
            match norms {
                // SAFETY: the caller promises the norms of these tokens, which nobody writes.
                Some(norms) => unsafe {
                    room.inverse[n..].fill(0.0);
                    let kept = self.kept(&tokens, unit.head, norms);
                    room.inverse.as_mut_ptr().copy_from_nonoverlapping(kept, n);
                },
                None => self.norms(&tokens, unit.head, room),
            }
            lost += room.inverse[..n].iter().filter(|inverse| **inverse == 0.0).count();
            let float = self.tier.float;
            let (features, y) = (room.features.as_mut_ptr(), room.y.as_mut_ptr());
            let lines = Rows { p: room.lines.as_ptr().cast(), stride: 4 * PANEL };
            let anchor = of_head(&hash.anchors, anchors * head_dim);
            let projection = of_head(&hash.projection, bits * anchors);
            let mut masks = [[0u64; 64]; 4];
            // SAFETY: the tier is supported; the room has the extents, the hash its parts; a code has at most 256 bits.
            unsafe {
                let to_features = tile((anchor, head_dim), lines, head_dim, (features, PANEL), false);
                multiply_all(float.multiply, &to_features, anchors, PANEL);
                (float.hashing.features)(&Features {
                    rows: features,
                    anchors,
                    inverse: room.inverse.as_ptr(),
                    squares: of_head(&hash.squares, anchors),
                    centring: of_head(&hash.centring, anchors),
                    rate: rate as f32,
                });
                let lines = Rows { p: features.cast(), stride: 4 * PANEL };
                let to_y = tile((projection, anchors), lines, anchors, (y, PANEL), false);
                multiply_all(float.multiply, &to_y, bits, PANEL);
                (float.hashing.signs)(y, bits, masks.as_mut_ptr().cast());
            }
            for (w, masks) in masks[..words].iter_mut().enumerate() {
                // SAFETY: the tier is supported.
                unsafe { transpose::pick(self.ctx.isa())(masks, true, (bits - 64 * w).min(64)) };
                for (token, word) in tokens.clone().zip(&*masks) {
                    let at = (unit.head * self.call.x.shape().0 + token) * words + w;
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
        out: out.cast(),
        out_stride: 4 * columns,
        resume,
        ..Tile::NOTHING
    }
}

impl<'a> Encode<'a> {
    /// Memory for the call.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if there is not enough.
    pub fn prepare(&'a self, ctx: &'a Ctx, scratch: &'a mut Scratch) -> Result<Prepared<'a>> {
        let (tokens, heads) = (self.x.shape().0, self.hash.heads);
        let columns = self.hash.head_dim.next_multiple_of(LANES);
        let plan = Plan { call: self, tier: Tier::of(ctx.target()), ctx, columns };
        let [workers, sums, starts, sigma, norms] = scratch.slots();
        let chunks = or_too_large(Chunks::new(self.sequences, tokens, starts), tokens)?;
        let units = chunks.count() * heads;
        let each = carved(plan.extents());
        let workers = or_too_large(Workers::new(ctx, ctx.threads().min(units), each, workers), tokens)?;
        if self.sigma.is_none() {
            let there_is = grow(sums, units, plan.slot())
                && grow(sigma, chunks.sequences() * heads, 4)
                && grow(norms, tokens * heads, 4);
            or_too_large(there_is.then_some(()), tokens)?;
        }
        Ok(Prepared { plan, chunks, workers, sums, sigma, norms })
    }
}

impl Prepared<'_> {
    /// The codes of all tokens, `[heads, tokens, words]`. Returns how many heads of tokens have no direction.
    pub fn run(self, codes: &mut [u64]) -> usize {
        let Prepared { plan, chunks, mut workers, sums, sigma, norms } = self;
        let norms = Shared::new(norms.bytes_mut());
        let (call, hash) = (plan.call, plan.call.hash);
        assert_eq!(codes.len(), call.x.shape().0 * hash.heads * hash.bits.div_ceil(64));
        let units = chunks.count() * hash.heads;
        if call.sigma.is_none() {
            let (shared, slot) = (Shared::new(sums.bytes_mut()), plan.slot());
            workers.share_out(units, &|bytes, units| {
                let mut room = plan.room(bytes);
                for unit in units {
                    // SAFETY: each slot is one task's, and each token's head is of one unit.
                    unsafe { plan.sum(&chunks.unit(unit), &mut room, shared.at(unit * slot), norms) };
                }
            });
            let own = as_f32(sigma.bytes_mut()).chunks_exact_mut(hash.heads);
            for (b, own) in (0..chunks.sequences()).zip(own) {
                let (first, last) = call.sequences.queries(b);
                for (head, sigma) in own.iter_mut().enumerate() {
                    *sigma = own_sigma(&plan, head, last - first, sums.bytes(), chunks.slots(b, head));
                }
            }
        }
        let lost = AtomicUsize::new(0);
        let (shared, own) = (Shared::new(codes), as_f32(sigma.bytes_mut()));
        workers.share_out(units, &|bytes, turns| {
            let mut room = plan.room(bytes);
            for turn in turns {
                // Backwards: where there was a pass before, what it read last is still in the caches.
                let unit = chunks.unit(units - 1 - turn);
                let (sigma, norms) = match call.sigma {
                    Some(frozen) => (frozen[unit.head], None),
                    None => (own[unit.b * hash.heads + unit.head], Some(norms)),
                };
                // SAFETY: each token's head is of one unit; the pass before left all norms.
                let n = unsafe { plan.codes(&unit, sigma, &mut room, shared, norms) };
                lost.fetch_add(n, Ordering::Relaxed);
            }
        });
        lost.into_inner()
    }
}

/// The mean of the squared distances of all tokens to all anchors: `|x|^2 + |a|^2 - 2 x a`, mean by mean.
fn own_sigma(plan: &Plan<'_>, head: usize, tokens: usize, sums: &[u8], slots: Range<usize>) -> f32 {
    let (hash, dim) = (plan.call.hash, plan.call.hash.head_dim);
    let sum = |column: usize| -> f64 {
        let part = |slot: usize| {
            let at = slot * plan.slot() + 4 * column;
            f64::from(f32::from_ne_bytes(sums[at..at + 4].try_into().expect("four bytes")))
        };
        slots.clone().map(part).sum()
    };
    let cosines: f64 = (0..dim).map(|i| sum(i) * hash.mean[head * dim + i]).sum();
    let n = tokens as f64;
    (sum(plan.columns) / n + hash.mean_square[head] - 2.0 * cosines / n) as f32
}
