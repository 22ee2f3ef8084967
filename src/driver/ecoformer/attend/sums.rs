//! Sums of signed values: of the tokens of a block, of a chunk, of chunks.

use super::super::{Rows, rows};
use super::{Plan, Signs, Unit, Workspace};
use crate::driver::multiply::multiply_all;
use crate::driver::workers::{Shared, as_plain};
use crate::kernels::attention::PANEL;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::pack::quads;
use crate::kernels::ecoformer::{AddRows, Signed, spread, spread_bytes, sums_of_group, transpose};
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
            let codes = self.codes(self.call.k, tokens, head).chunks_exact(self.words);
            masks.iter_mut().zip(codes).for_each(|(mask, code)| *mask = code[w]);
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
        // SAFETY: the caller promises that the slot is this task's, and a slot has room for all sums.
        unsafe {
            match (self.quantized(), self.call.layer.causal) {
                (true, _) => self.chunk_of_bytes(unit, room, &mut sums, slot.cast()),
                (false, true) => self.chunk_in_order(unit, room, &mut sums, slot.cast()),
                (false, false) => self.chunk_by_codes(unit, room, &mut sums, slot.cast()),
            }
        }
        // SAFETY: a slot has room for the sums of the bits behind those of values.
        unsafe {
            let to = slot.add(4 * self.sums()).cast::<i64>();
            to.copy_from_nonoverlapping(sums.as_ptr(), self.bits());
        }
    }

    /// The sums of a chunk's values, each a chain in the order of tokens: as the blocks of causal attention go on from them.
    ///
    /// # Safety
    /// There is room for the sums.
    unsafe fn chunk_in_order(&self, unit: &Unit, room: &mut Workspace<'_>, signs: &mut Signs, out: *mut f32) {
        for (i, tokens) in unit.blocks(PANEL).enumerate() {
            self.signs(&tokens, unit.head, room.signs, signs);
            let v = self.v(&tokens, unit.head, room.block);
            // SAFETY: the signs are those of the tokens, whose values are there; the caller promises room for the sums.
            unsafe { self.add(tokens.len(), room.signs, v, out, i > 0) };
        }
    }

    /// The sums of a chunk's values, first of those whose codes have a group of bits in common: a row is added four times for 16 bits,
    /// where a product with signs would take it 16 times.
    ///
    /// # Safety
    /// There is room for the sums.
    unsafe fn chunk_by_codes(&self, unit: &Unit, room: &mut Workspace<'_>, signs: &mut Signs, out: *mut f32) {
        let sums = &mut room.table[..self.groups * sums_of_group(self.columns)];
        sums.fill(0.0);
        for tokens in unit.blocks(PANEL) {
            self.masks(&tokens, unit.head, signs, |_, _| {});
            let v = self.v(&tokens, unit.head, room.block);
            let rows = AddRows {
                rows: v.p,
                stride: v.stride,
                codes: self.codes(self.call.k, &tokens, unit.head).as_ptr(),
                words: self.words,
                tokens: tokens.len(),
                groups: self.groups,
                columns: self.columns,
                sums: sums.as_mut_ptr(),
            };
            // SAFETY: the tier is supported; codes and values are those of the tokens, and there are sums of all groups.
            unsafe { (self.tier.float.hashing.add_rows)(&rows) };
        }
        let signed = Signed {
            bits: self.bits(),
            columns: self.columns,
            rows: out,
            values: sums.as_mut_ptr(),
            stride: sums_of_group(self.columns),
        };
        // SAFETY: the tier is supported; sums of all groups are there, and as the caller promises, room for those of signed rows.
        unsafe { (self.tier.float.hashing.signed)(&signed) };
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
    const AT_ONCE: usize = 16;
    for first in (0..n).step_by(AT_ONCE) {
        let mut totals = [T::default(); AT_ONCE];
        let totals = &mut totals[..AT_ONCE.min(n - first)];
        let of_slot = |slot: usize| {
            let own = shared.at::<T>(slot * bytes + offset).wrapping_add(first);
            // SAFETY: the caller promises the numbers of all slots, which nobody else uses; one slot at a time is used here.
            unsafe { std::slice::from_raw_parts_mut(own, AT_ONCE.min(n - first)) }
        };
        for slot in slots.clone() {
            for (total, own) in totals.iter_mut().zip(of_slot(slot)) {
                let before_it = *total;
                *total += *own;
                if before {
                    *own = before_it;
                }
            }
        }
        if !before {
            of_slot(slots.start).copy_from_slice(totals);
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
