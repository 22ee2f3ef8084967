//! From exponentials to weights, and what weights that were rounded to bytes stand for.

use super::rows::{State, whole_groups};
use super::{Group, Mode, Plan, Row, segments};
use crate::base::buffer::{as_f32, as_i32};
use crate::kernels::attention::finish::Part;
use crate::kernels::attention::normalize::{FULL, Normalize};
use crate::kernels::attention::softmax::Scores;
use crate::kernels::attention::sums;
use std::ops::Range;

/// What the byte weights of a chunk of a row stand for.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// What their exact sums with v stand for.
    pub part: Part,
    /// The sum of the weights before they were rounded.
    pub exact: f32,
    /// The sum of the weights after.
    pub rounded: f32,
}

impl Share {
    /// Of no weights.
    pub const NOTHING: Share = Share { part: Part { scale: 0.0, offset: 0 }, exact: 0.0, rounded: 0.0 };
}

impl Plan<'_> {
    /// Whether exponentials need no more digits than bytes keep, and are 255 times as large: where weights are bytes by steps that are
    /// the largest weight's.
    pub fn exponentials_are_of_bytes(&self) -> bool {
        self.mode == Mode::Bytes
            && self.problem.layer.clipped.is_none()
            && self.problem.call.quantizers.weights_scale.is_none()
    }

    /// The exponential of a row's largest score.
    pub fn largest_exponential(&self) -> f32 {
        if self.exponentials_are_of_bytes() { FULL } else { 1.0 }
    }

    /// Whether [`Plan::weigh_at_once`] can be: of v by one scale.
    pub fn weighs_at_once(&self) -> bool {
        self.exponentials_are_of_bytes()
            && !self.problem.v.is_per_token()
            && self.problem.call.block_mask.is_none()
    }

    /// From scores to weights without exponentials in between, of rows that have a largest score and attend to keys of one chunk
    /// alone; and what the weights stand for.
    ///
    /// # Safety
    /// As [`Plan::exponentials`]; [`Plan::weighs_at_once`].
    pub unsafe fn weigh_at_once(
        &self,
        g: &Group,
        scores: &mut [Scores],
        keys: &Range<usize>,
        shares: &mut [Share],
    ) {
        let run = self.tier.float.passes.byte_weights[self.kind_of(scores)];
        // SAFETY: as the caller.
        unsafe { run(scores, &whole_groups(keys)) };
        let w = Normalize { stretch: 1.0, gamma: 0.0, step: 0.0, limit: 255.0, normalized: false };
        let zero = self.problem.v.zero(g.kv_head, self.multiply.columns);
        for (s, share) in scores.iter_mut().zip(shares) {
            (s.largest, s.exact) = (FULL, s.total);
            *share = share_of(s, &w, s.exact / w.total(s), (g.v_scale, zero));
        }
    }

    /// Weights of a chunk's exponentials, whole groups of 16 keys, to where the chunk of the row begins; and what they stand for.
    /// `alone` is whether the rows attend to no key of another chunk.
    ///
    /// # Safety
    /// As [`Plan::exponentials`].
    pub unsafe fn weigh(
        &self,
        g: &Group,
        scores: &mut [Scores],
        keys: &Range<usize>,
        alone: bool,
        shares: &mut [Share],
    ) {
        let (passes, groups) = (&self.tier.float.passes, whole_groups(keys));
        let (clips, clipped) = (self.problem.layer.clipped.is_some(), self.problem.layer.clipped);
        let (gamma, zeta) = clipped.unwrap_or((0.0, 1.0));
        let limit = if clips { 1.0 } else { f32::INFINITY };
        let mut w = Normalize { stretch: zeta - gamma, gamma, step: 1.0, limit, normalized: false };
        // So it is where all keys of a row are in one chunk; of one chunk among several it is gauged.
        let largest = self.largest_exponential();
        scores.iter_mut().for_each(|s| {
            (s.nonzero, s.weights, s.exact, s.largest) = (0, 0, s.total, largest);
        });
        // SAFETY: as the caller. Weights are no wider than exponentials, so those of a chunk lie inside it; there are as many
        // factors as a chunk has keys.
        unsafe {
            let by_token = self.problem.v.is_per_token();
            let mut v_scale = g.v_scale;
            match self.mode {
                Mode::F32 => (passes.normalize[0][usize::from(clips)])(scores, &groups, &w),
                Mode::Pairs => (passes.normalize[1][usize::from(clips)])(scores, &groups, &w),
                Mode::Bytes if by_token => {
                    (passes.normalize[0][usize::from(clips)])(scores, &groups, &w);
                    let mut by = self.scales_of(&self.problem.v, g, keys);
                    // By the keys that are there: a power of 2, so that it changes no bit of what is multiplied. Padding, perhaps
                    // beyond any float, weighs 0, and 0 times that is to be 0.
                    let there = match g.live.clamp(keys.start, keys.end) - keys.start {
                        0 => keys.len(),
                        there => there,
                    };
                    v_scale = power_of_2(by[..there].iter().copied().fold(0.0, f32::max));
                    by.iter_mut().for_each(|scale| *scale = (*scale / v_scale).min(f32::MAX));
                    (passes.gauge[1])(scores, &groups, by.as_ptr());
                    w = Normalize { stretch: 1.0, gamma: 0.0, step: 0.0, limit: 255.0, normalized: true };
                    // What is counted are bytes.
                    scores.iter_mut().for_each(|s| s.nonzero = 0);
                    (passes.normalize[2][usize::from(clips)])(scores, &groups, &w);
                }
                Mode::Bytes => {
                    if !alone {
                        (passes.gauge[0])(scores, &groups, std::ptr::null());
                    }
                    w.step = self.problem.call.quantizers.weights_scale.unwrap_or(0.0);
                    // A weight of 1, where weights are added up before they saturate to bytes; it fits an integer.
                    let one = if w.step != 0.0 { w.step.recip().min(1e9) } else { 255.0 };
                    w.limit = if clips { one } else { 255.0 };
                    (passes.normalize[2][usize::from(clips)])(scores, &groups, &w);
                }
            }
            if self.mode == Mode::Bytes {
                let zero = self.problem.v.zero(g.kv_head, self.multiply.columns);
                for (s, share) in scores.iter().zip(shares) {
                    // Sums of exponentials are to be normalized still.
                    let exact = if clips || by_token { s.exact } else { s.exact / w.total(s) };
                    *share = share_of(s, &w, exact, (v_scale, zero));
                }
            }
        }
    }

    /// Sums of a chunk of some rows onto those of all chunks.
    pub fn accumulate(&self, sums: &mut [u8], total: &mut [u8], shares: &[Share]) {
        let (isa, row) = (self.ctx.isa(), 4 * self.columns);
        if self.mode != Mode::Bytes {
            // SAFETY: the tier is supported.
            return unsafe { sums::add::pick(isa)(as_f32(sums), as_f32(total)) };
        }
        let add = sums::add_scaled::pick(isa);
        for ((sums, total), share) in sums.chunks_exact_mut(row).zip(total.chunks_exact_mut(row)).zip(shares)
        {
            // SAFETY: the tier is supported.
            unsafe { add(as_i32(sums), share.part.offset, share.part.scale, as_f32(total)) };
        }
    }

    /// Whether a row's sums of floats have no infinity or NaN; true of bytes.
    pub fn finite(&self, sums: &mut [u8]) -> bool {
        // SAFETY: the tier is supported.
        self.mode == Mode::Bytes || unsafe { sums::finite::pick(self.ctx.isa())(as_f32(sums)) }
    }

    /// Whether so few weights of some rows are not 0 that only those are multiplied: a word of them for each, where a tile would
    /// take all words, somewhat faster, and make no list.
    pub fn worth_listing(&self, nonzero: usize, rows: usize, keys: usize) -> bool {
        /// What a list takes, in words of 64 columns.
        const LIST: usize = 16;
        let (words, columns) = (keys.div_ceil(self.keys_per_word()), self.columns);
        self.problem.layer.clipped.is_some()
            && rows * LIST * 64 + 3 * nonzero * columns / 2 < rows * words * columns
    }

    /// How many of some keys a row attends to.
    pub fn pairs(&self, row: Row, state: State, keys: Range<usize>) -> usize {
        match state {
            State::Uniform => keys.len(),
            _ if self.problem.call.block_mask.is_none() => {
                keys.end.min(row.last).saturating_sub(keys.start.max(row.first))
            }
            _ => segments(self.problem.call, row, keys).map(|keys| keys.len()).sum(),
        }
    }

    /// How many of some pairs weigh nothing.
    pub fn zeros(&self, pairs: usize, nonzero: usize) -> usize {
        if self.problem.layer.clipped.is_some() { pairs.saturating_sub(nonzero) } else { 0 }
    }
}

/// The largest power of 2 up to a scale; 1 for 0.
fn power_of_2(scale: f32) -> f32 {
    if scale == 0.0 { 1.0 } else { f32::from_bits(scale.to_bits() & f32::INFINITY.to_bits()) }
}

/// What the rounded weights of a row's chunk stand for, which were `exact` together, with v of this scale and zero point.
fn share_of(s: &Scores, w: &Normalize, exact: f32, (v_scale, zero): (f32, i32)) -> Share {
    // Their sum fits: a chunk has 512 keys.
    let weights = s.weights as i32;
    let rounded = if weights == 0 { 0.0 } else { w.step_of(s) * weights as f32 };
    let scale = match weights {
        _ if w.step != 0.0 => w.step,
        // Of a row that is NaN nothing is known.
        1.. if exact.is_finite() => exact / weights as f32,
        _ => 0.0,
    };
    Share { part: Part { scale: scale * v_scale, offset: zero * weights }, exact, rounded }
}
