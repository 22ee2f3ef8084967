//! From scores to weights to context, some rows at a time and a chunk of keys at a time.

use super::{Group, Mode, Plan, Row, chunks, keys_of, segments};
use crate::base::buffer::as_i32;
use crate::base::tensor::TensorRef;
use crate::driver::multiply::multiply_all;
use crate::driver::tensor::Prefetch;
use crate::kernels::attention::gather::{List, Rows, Weights};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::softmax::{Prepare, Scores, Span};
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use std::ops::Range;

/// What becomes of a row's scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// Exponentials less this maximum.
    Maximum(f32),
    /// All keys weigh the same, whatever the masks.
    Uniform,
    /// No key weighs anything.
    Nothing,
}

/// Most segments of a chunk: keys of every other one are masked.
const MOST_SEGMENTS: usize = CHUNK / 2;

impl Plan<'_> {
    /// A row of scores at `p`; `sum` is that of its q, of bytes.
    pub fn scores(&self, g: &Group, row: Row, p: *mut u8, sum: i32) -> Scores {
        // Σ (q - zq)(k - zk) = Σ q k - zq Σ k - zk (Σ q - d zq): the second term is what sums start from.
        let offset = -g.zeros.k * (sum - self.problem.layer.head_dim as i32 * g.zeros.q);
        Scores {
            p,
            first: row.first,
            last: row.last,
            offset,
            scale: g.scale * self.problem.q.scale_of_token(g.q + row.token),
            bias: self.bias(g, row),
            most: f32::NEG_INFINITY,
            ..Scores::NONE
        }
    }

    /// Whether [`Plan::scores`] of two rows of a head differ in nothing but where they lie, if both sums are the same.
    pub fn scores_are_alike(&self) -> bool {
        self.problem.call.bias.is_none() && !self.problem.q.is_per_token()
    }

    /// Whether scores are scaled, quantized or biased before their maximum is taken.
    pub fn prepared(&self) -> bool {
        self.problem.call.bias.is_some()
            || self.problem.k.is_per_token()
            || self.mode == Mode::Bytes && self.problem.call.quantizers.scores.is_some()
    }

    /// Whether tiles of scores can find the largest.
    pub fn finds_most(&self) -> bool {
        self.multiply.finds_most
            && self.ints() == 0
            && !self.prepared()
            && self.problem.call.block_mask.is_none()
    }

    fn ints(&self) -> usize {
        usize::from(self.mode == Mode::Bytes && !self.floating)
    }

    fn bias(&self, g: &Group, row: Row) -> *const f32 {
        let Some(bias) = &self.problem.call.bias else { return std::ptr::null() };
        let at = |n: usize, i: usize| if n == 1 { 0 } else { i };
        let b = at(bias.batch, g.b) * bias.heads + at(bias.heads, row.head);
        let start = (b * bias.queries + at(bias.queries, row.token)) * bias.keys;
        // A sequence without keys may have a bias of none.
        bias.data.get(start..).map_or(std::ptr::null(), <[f32]>::as_ptr)
    }

    /// Scores of some rows by the keys of a panel; unless `most` is null, the largest of them and of those before, in 16 lanes a row.
    ///
    /// # Safety
    /// Rows of q, the panel and rows of scores are there, and so are the lanes; tiles find the largest then.
    pub unsafe fn multiply_panel(
        &self,
        (x, x_stride): (*const u8, usize),
        rows: usize,
        (panel, init): (*const u8, *const i32),
        keys: usize,
        (out, out_stride): (*mut u8, usize),
        most: *mut f32,
    ) {
        let tile = Tile {
            x,
            x_stride,
            w: panel,
            w_stride: 4 * PANEL,
            steps: self.words,
            init: if self.mode == Mode::Bytes { init } else { std::ptr::null() },
            out,
            out_stride,
            most,
            ..Tile::NOTHING
        };
        // SAFETY: as the caller.
        unsafe { multiply_all(self.multiply, &tile, rows, keys.next_multiple_of(LANES)) };
    }

    /// Runs a pass over the rows of a tile, with those of some keys that are not masked: of all rows the same; or, chunk by chunk, of
    /// all rows that share a row of the block mask.
    fn each_live(
        &self,
        rows: &[Row],
        scores: &mut [Scores],
        keys: &Range<usize>,
        mut run: impl FnMut(&mut [Scores], &[Span]),
    ) {
        let Some(mask) = self.problem.call.block_mask else {
            return run(scores, &[Span { first: keys.start, last: keys.end }]);
        };
        for keys in chunks(keys).map(|chunk| keys_of(chunk, keys)) {
            let (mut rows, mut scores) = (rows, &mut *scores);
            while let Some(row) = rows.first() {
                let block = row.token / mask.block_q;
                let n = rows.iter().take_while(|row| row.token / mask.block_q == block).count();
                let all = Row { first: 0, last: usize::MAX, ..*row };
                let (mut live, mut count) = ([Span { first: 0, last: 0 }; MOST_SEGMENTS], 0);
                for (keys, live) in segments(self.problem.call, all, keys.clone()).zip(&mut live) {
                    *live = Span { first: keys.start, last: keys.end };
                    count += 1;
                }
                let (own, rest) = scores.split_at_mut(n);
                run(own, &live[..count]);
                (rows, scores) = (&rows[n..], rest);
            }
        }
    }

    /// Prepares the scores of some keys, and finds the largest.
    ///
    /// # Safety
    /// The rows have scores of these keys, and nobody else uses them.
    pub unsafe fn maximum(&self, g: &Group, rows: &[Row], scores: &mut [Scores], keys: &Range<usize>) {
        let (prepare, maximum) =
            (self.tier.float.passes.prepare[self.ints()], self.tier.float.passes.maximum);
        let run = |scores: &mut [Scores], keys: &Range<usize>| {
            self.each_live(rows, scores, keys, |scores, live| {
                // SAFETY: as the caller; a bias has all keys of the sequence, and so have factors those of the chunk.
                unsafe {
                    if self.prepared() {
                        prepare(scores, live, &self.prepare());
                        maximum[0](scores, live);
                    } else {
                        maximum[self.ints()](scores, live);
                    }
                }
            });
        };
        if !self.problem.k.is_per_token() {
            return run(scores, keys);
        }
        for chunk in chunks(keys) {
            let keys = keys_of(chunk, keys);
            let by = self.scales_of(&self.problem.k, g, &keys);
            scores.iter_mut().for_each(|s| s.by = by.as_ptr().wrapping_sub(keys.start));
            run(scores, &keys);
            // The factors are there for this pass alone.
            scores.iter_mut().for_each(|s| s.by = std::ptr::null());
        }
    }

    /// The scales of the tokens of k or v, of some keys of one chunk; behind them 0.
    pub fn scales_of(&self, x: &TensorRef<'_>, g: &Group, keys: &Range<usize>) -> [f32; CHUNK] {
        let mut scales = [0.0; CHUNK];
        scales.iter_mut().zip(keys.clone()).for_each(|(scale, key)| *scale = x.scale_of_token(g.kv + key));
        scales
    }

    fn prepare(&self) -> Prepare {
        let (mut step, mut low, mut high) = (0.0, 0.0, 0.0);
        if let (Mode::Bytes, Some(p)) = (self.mode, self.problem.call.quantizers.scores) {
            step = p.scale();
            low = (p.range().0 - p.zero_point()) as f32;
            high = (p.range().1 - p.zero_point()) as f32;
        }
        Prepare { step, low, high }
    }

    /// What a row is, by the largest of its prepared scores.
    ///
    /// # Safety
    /// As [`Plan::maximum`].
    pub unsafe fn state(&self, row: Row, s: &Scores) -> State {
        if s.most > f32::NEG_INFINITY {
            return State::Maximum(s.most);
        }
        for keys in segments(self.problem.call, row, 0..usize::MAX) {
            for key in keys {
                // SAFETY: as the caller. Integers are never -inf, so these are floats.
                if unsafe { s.p.cast::<f32>().add(key).read() }.is_nan() {
                    return State::Maximum(0.0);
                }
            }
        }
        if self.problem.layer.uniform { State::Uniform } else { State::Nothing }
    }

    /// The keys whose weights are not known to be 0.
    pub fn reach(&self, g: &Group, row: Row, state: State) -> Range<usize> {
        match state {
            State::Maximum(_) => row.first..row.last,
            State::Uniform => 0..g.kv_len,
            State::Nothing => 0..0,
        }
    }

    /// Whether scores that wait for exponentials are floats or integers, as an index. Prepared ones are scaled already.
    pub fn kind_of(&self, scores: &mut [Scores]) -> usize {
        if self.prepared() {
            scores.iter_mut().for_each(|s| s.scale = 1.0);
            return 0;
        }
        self.ints()
    }

    /// Exponentials of the scores of a chunk, 0 for all other of `keys` up to whole groups of 16; their sums onto the totals.
    /// There need be no states where all rows have a largest score.
    ///
    /// # Safety
    /// As [`Plan::maximum`], of `keys` and up to whole groups; keys are those of one chunk.
    pub unsafe fn exponentials(
        &self,
        rows: &[Row],
        states: &[State],
        scores: &mut [Scores],
        keys: &Range<usize>,
    ) {
        let (of_bytes, largest) = (usize::from(self.exponentials_are_of_bytes()), self.largest_exponential());
        let run = self.tier.float.passes.exponentials[of_bytes][self.kind_of(scores)];
        for (s, state) in scores.iter_mut().zip(states) {
            match state {
                State::Maximum(most) => s.most = *most,
                State::Uniform | State::Nothing => (s.first, s.last) = (0, 0),
            }
        }
        let groups = whole_groups(keys);
        self.each_live(rows, scores, keys, |scores, live| {
            // SAFETY: as the caller.
            unsafe { run(scores, &groups, live) };
        });
        for (s, _) in scores.iter_mut().zip(states).filter(|(_, state)| **state == State::Uniform) {
            // SAFETY: as the caller.
            unsafe {
                std::slice::from_raw_parts_mut(s.p.cast::<f32>().add(keys.start), keys.len()).fill(largest)
            };
            s.total += keys.len() as f32 * largest;
        }
    }

    /// Where the weight of a key is: weights begin where their chunk begins.
    pub fn weights(&self, row: *mut u8, key: usize) -> *mut u8 {
        let chunk = key / CHUNK * CHUNK;
        row.wrapping_add(4 * chunk + (key - chunk) * 4 / self.keys_per_word())
    }

    /// Weights of some rows times the v of keys of one chunk: sums of 4 bytes.
    ///
    /// # Safety
    /// Weights of the keys are there, up to whole groups of 16; so are the rows of v from key `keys.start`, a
    /// multiple of 4, on. Sums go on from those at `out`, or begin.
    pub unsafe fn multiply_v(
        &self,
        (weights, stride, rows): (*mut u8, usize, usize),
        keys: Range<usize>,
        (v, v_stride): (*const u8, usize),
        out: *mut u8,
        (resume, ahead): (bool, Prefetch),
    ) {
        let tile = Tile {
            x: self.weights(weights, keys.start),
            x_stride: stride,
            w: v,
            w_stride: v_stride,
            steps: keys.len().div_ceil(self.keys_per_word()),
            out,
            out_stride: 4 * self.columns,
            resume,
            ahead: ahead.p,
            ahead_stride: ahead.stride,
            ..Tile::NOTHING
        };
        // SAFETY: as the caller.
        unsafe { multiply_all(self.multiply, &tile, rows, self.columns) };
    }

    /// Weights of some rows that are not 0 times their v, row by row: sums of 4 bytes that begin with 0.
    ///
    /// # Safety
    /// As [`Plan::multiply_v`].
    pub unsafe fn gather_rows(
        &self,
        (weights, stride, rows): (*mut u8, usize, usize),
        keys: &Range<usize>,
        (v, v_stride): (*const u8, usize),
        out: *mut u8,
    ) {
        let weights = Weights {
            rows,
            x: self.weights(weights, keys.start),
            x_stride: stride,
            words: keys.len().div_ceil(self.keys_per_word()),
            v,
            stride: v_stride,
            columns: self.columns,
            out: out.cast(),
        };
        // SAFETY: as the caller.
        unsafe { (self.multiply.gather_rows)(&weights) };
    }

    /// Weights of one row that are not 0 times their v; keys start at a multiple of 16.
    ///
    /// # Safety
    /// As [`Plan::multiply_v`].
    pub unsafe fn gather_v(
        &self,
        weights: *mut u8,
        keys: &Range<usize>,
        v: (*const u8, usize),
        list: &mut List,
        out: *mut u8,
    ) {
        // SAFETY: as the caller.
        unsafe {
            let count = self.list_words(weights, keys, list);
            self.gather(count, list, v, out);
        }
    }

    /// As [`Plan::gather_v`], of rows of v that are packed as they are needed: a key that weighs nothing is not read.
    ///
    /// # Safety
    /// Weights of the keys are there, up to whole groups of 16; `v` has room for those of a chunk.
    pub unsafe fn pack_and_gather_v(
        &self,
        g: &Group,
        weights: *mut u8,
        keys: &Range<usize>,
        v: &mut [u8],
        list: &mut List,
        out: *mut u8,
    ) {
        // SAFETY: as the caller.
        unsafe {
            let count = self.list_words(weights, keys, list);
            for (i, row) in v.chunks_exact_mut(4 * self.columns).take(count).enumerate() {
                let place = list.places().add(i);
                let first = keys.start + *place as usize * self.keys_per_word();
                let word = first..(first + self.keys_per_word()).min(keys.end);
                self.pack_v(g, word, row, Prefetch::NOTHING);
                if self.mode == Mode::Pairs {
                    // Each word has v of two keys; of a key that weighs nothing it is to be 0.
                    for half in [0xffff, !0xffff] {
                        if *list.values().add(i) & half == 0 {
                            as_i32(row).iter_mut().for_each(|pair| *pair &= !half as i32);
                        }
                    }
                }
                *place = i as u32;
            }
            self.gather(count, list, (v.as_ptr(), 4 * self.columns), out);
        }
    }

    /// Words of weights that are not 0, and their places from `keys.start` on.
    ///
    /// # Safety
    /// Weights of the keys are there, those of one chunk.
    unsafe fn list_words(&self, weights: *mut u8, keys: &Range<usize>, list: &mut List) -> usize {
        // No more than there are: the padding behind them is not 0 in a row that is NaN.
        let words = keys.len().div_ceil(self.keys_per_word());
        let w = self.weights(weights, keys.start).cast();
        // SAFETY: as the caller: the weights are there, no more than a list has room for.
        unsafe { (self.tier.float.passes.collect)(w, words, list.places(), list.values()) }
    }

    /// The listed words times their rows of v.
    ///
    /// # Safety
    /// Rows of v are there, and room for the sums.
    unsafe fn gather(&self, count: usize, list: &mut List, (v, stride): (*const u8, usize), out: *mut u8) {
        let (places, values, columns) = (list.places(), list.values(), self.columns);
        // SAFETY: as the caller.
        unsafe {
            (self.multiply.gather)(&Rows { count, places, values, v, stride, columns, out: out.cast() })
        }
    }
}

impl Plan<'_> {
    /// Exponentials of keys that are not a row's own are 0.
    ///
    /// # Safety
    /// The row has room for these keys, up to whole groups.
    pub unsafe fn clear_around(&self, s: &Scores, own: &Range<usize>, keys: &Range<usize>) {
        let (all, own) = (whole_groups(keys), whole_groups(own));
        for (first, last) in [(all.first, own.first.min(all.last)), (own.last.max(all.first), all.last)] {
            // SAFETY: as the caller.
            unsafe { s.p.cast::<f32>().add(first).write_bytes(0, last.saturating_sub(first)) };
        }
    }
}

/// Some keys up to whole groups of 16.
pub fn whole_groups(keys: &Range<usize>) -> Span {
    Span { first: keys.start / LANES * LANES, last: keys.end.next_multiple_of(LANES) }
}

/// The keys of a chunk from a multiple of 16 on.
pub fn aligned(chunk: usize, keys: &Range<usize>) -> Range<usize> {
    let keys = keys_of(chunk, keys);
    keys.start / LANES * LANES..keys.end
}
