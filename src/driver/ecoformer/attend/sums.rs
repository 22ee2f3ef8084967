//! Sums of signed values: of the tokens of a block, of a chunk, of chunks.

use super::super::{Rows, rows};
use super::{Plan, Signs, Unit, Workspace};
use crate::driver::multiply::multiply_all;
use crate::driver::workers::{Shared, as_plain};
use crate::kernels::attention::PANEL;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::pack::quads;
use crate::kernels::ecoformer::{spread, spread_bytes, transpose};
use std::ops::Range;

/// Room for a block of bytes, in words: what floats would take.
struct Bytes<'a> {
    /// Bits of a block, `[bits + 1][PANEL]`: the last row is 1.
    bits: &'a mut [u8],
    /// `[PANEL / 4][columns]` of four values.
    quads: &'a mut [u8],
    /// `[bits + 1][columns]`.
    sums: &'a mut [i32],
}

impl Plan<'_> {
    /// The keys' bits of up to 64 tokens, one mask after the other to `row`, and their signs onto the sums.
    fn masks(&self, tokens: &Range<usize>, head: usize, sums: &mut Signs, mut row: impl FnMut(usize, u64)) {
        for w in 0..self.words {
            let mut masks = [0; 64];
            for (token, mask) in tokens.clone().zip(&mut masks) {
                *mask = self.code(self.call.k, token, head)[w];
            }
            let bits = 64 * w..(64 * w + 64).min(self.bits());
            // SAFETY: the tier is supported.
            unsafe { transpose::pick(self.ctx.isa())(&mut masks, false, bits.len()) };
            for (b, mask) in bits.zip(masks) {
                sums[b] += 2 * i64::from(mask.count_ones()) - tokens.len() as i64;
                row(b, mask);
            }
        }
    }

    /// The keys' signs of up to 64 tokens to floats, and onto their sums.
    pub(super) fn signs(&self, tokens: &Range<usize>, head: usize, signs: &mut [f32], sums: &mut Signs) {
        let run = spread::pick(self.ctx.isa());
        self.masks(tokens, head, sums, |b, mask| {
            // SAFETY: the tier is supported.
            unsafe { run(mask, &mut signs[b * PANEL..][..tokens.len()]) };
        });
    }

    pub(super) fn quantized(&self) -> bool {
        self.call.v.element().is_quantized()
    }

    /// Sums of signed values of some tokens, onto those before if there are any.
    ///
    /// # Safety
    /// There is room for all sums; the signs are those of the tokens, whose values are there.
    pub(super) unsafe fn add(&self, n: usize, signs: &[f32], v: Rows, out: *mut f32, resume: bool) {
        let tile = Tile {
            x: signs.as_ptr().cast(),
            x_stride: 4 * PANEL,
            w: v.p,
            w_stride: v.stride,
            steps: n,
            out: out.cast(),
            out_stride: 4 * self.columns,
            resume,
            ..Tile::NOTHING
        };
        // SAFETY: as the caller.
        unsafe { multiply_all(self.tier.float.multiply, &tile, self.bits() + 1, self.columns) };
    }

    pub(super) fn v(&self, tokens: &Range<usize>, head: usize, block: &mut [f32]) -> Rows {
        rows(&self.call.v, tokens.clone(), head, block, self.tier.float, self.ctx.isa())
    }

    /// The sums of a chunk, to its slot.
    ///
    /// # Safety
    /// The slot is this task's.
    pub(super) unsafe fn chunk(&self, unit: &Unit, room: &mut Workspace<'_>, slot: *mut u8) {
        let mut sums: Signs = [0; 256];
        if self.quantized() {
            // SAFETY: as the caller.
            unsafe { self.chunk_of_bytes(unit, room, &mut sums, slot.cast()) };
        }
        for (i, tokens) in unit.blocks(PANEL).enumerate().filter(|_| !self.quantized()) {
            self.signs(&tokens, unit.head, room.signs, &mut sums);
            let v = self.v(&tokens, unit.head, room.block);
            // SAFETY: as the caller.
            unsafe { self.add(tokens.len(), room.signs, v, slot.cast(), i > 0) };
        }
        // SAFETY: a slot has room for the sums of the bits behind those of values.
        unsafe {
            let to = slot.add(4 * self.sums()).cast::<i64>();
            to.copy_from_nonoverlapping(sums.as_ptr(), self.bits());
        }
    }

    /// The sums of a chunk's values that are bytes, as integers: `Σ s v` of signs s is twice that of bits less that of all. They are
    /// exact, so the same as of floats.
    ///
    /// # Safety
    /// There is room for the sums.
    unsafe fn chunk_of_bytes(&self, unit: &Unit, room: &mut Workspace<'_>, signs: &mut Signs, out: *mut f32) {
        let (bits, columns, isa) = (self.bits(), self.columns, self.ctx.isa());
        let multiply = self.tier.multiply;
        let own =
            Bytes { bits: as_bytes(room.signs), quads: as_bytes(room.block), sums: as_ints(room.before) };
        own.bits[bits * PANEL..][..PANEL].fill(1);
        let flip = self.call.v.flip(multiply.columns).0;
        let (pack, run) = (quads::pick(isa), spread_bytes::pick(isa));
        for (i, tokens) in unit.blocks(PANEL).enumerate() {
            self.masks(&tokens, unit.head, signs, |b, mask| {
                // SAFETY: the tier is supported.
                unsafe { run(mask, &mut own.bits[b * PANEL..][..PANEL]) };
            });
            for (token, out) in tokens.clone().step_by(4).zip(own.quads.chunks_exact_mut(4 * columns)) {
                // Tokens behind the last count nothing.
                let row = |i: usize| self.call.v.row((token + i).min(tokens.end - 1), unit.head);
                let (words, tail) = as_plain::<u32>(out).split_at_mut(self.call.v.shape().2);
                // SAFETY: the tier is supported.
                unsafe { pack([0, 1, 2, 3].map(row), flip, words) };
                tail.fill(0);
            }
            if !tokens.len().is_multiple_of(4) {
                own.bits[bits * PANEL + tokens.len()..][..PANEL - tokens.len()].fill(0);
            }
            let tile = Tile {
                x: own.bits.as_ptr(),
                x_stride: PANEL,
                w: own.quads.as_ptr(),
                w_stride: 4 * columns,
                steps: tokens.len().div_ceil(4),
                out: own.sums.as_mut_ptr().cast(),
                out_stride: 4 * columns,
                resume: i > 0,
                ..Tile::NOTHING
            };
            // SAFETY: the tier is supported; rows of bits and of values are there, and the sums.
            unsafe { multiply_all(multiply, &tile, bits + 1, columns) };
        }
        let zero = i64::from(self.call.v.zero(unit.head, multiply.columns));
        let (rows, all) = own.sums.split_at(bits * columns);
        let all = &all[..columns];
        for b in 0..=bits {
            let (of_signs, own) = match b < bits {
                true => (signs[b], &rows[b * columns..][..columns]),
                false => ((unit.last - unit.first) as i64, all),
            };
            // SAFETY: as the caller.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(b * columns), columns) };
            let offset = (zero * of_signs) as i32;
            for ((out, own), all) in out.iter_mut().zip(own).zip(all) {
                let sum = if b < bits { 2 * own - all } else { *own };
                *out = (sum - offset) as f32;
            }
        }
        // The room is of floats again.
        room.signs[bits * PANEL..].fill(1.0);
    }
}

/// Sums of slots, in order: the first slot's become those of all, or each slot's those of the slots before it.
///
/// # Safety
/// The slots have `n` numbers at `offset`, and nobody else uses them.
pub(super) unsafe fn accumulate<T: Copy + Default + std::ops::AddAssign>(
    shared: Shared,
    slots: Range<usize>,
    bytes: usize,
    offset: usize,
    n: usize,
    before: bool,
) {
    if slots.is_empty() {
        return;
    }
    for i in 0..n {
        let at = |slot: usize| shared.at::<T>(slot * bytes + offset).wrapping_add(i);
        let mut total = T::default();
        for slot in slots.clone() {
            // SAFETY: as the caller.
            unsafe {
                let own = *at(slot);
                if before {
                    *at(slot) = total;
                }
                total += own;
            }
        }
        if !before {
            // SAFETY: as the caller.
            unsafe { *at(slots.start) = total };
        }
    }
}

/// Floats as the bytes that they are made of.
fn as_bytes(floats: &mut [f32]) -> &mut [u8] {
    // SAFETY: floats are plain bytes.
    unsafe { floats.align_to_mut().1 }
}

/// Floats as integers of as many bytes.
fn as_ints(floats: &mut [f32]) -> &mut [i32] {
    // SAFETY: both are plain bytes, of the same size.
    unsafe { floats.align_to_mut().1 }
}
