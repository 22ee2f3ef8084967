//! From scores to weights to context, some rows at a time and a chunk of keys at a time.

use super::operands::Ahead;
use super::{Group, Mode, Plan, Row, keys_of, multiply_all, segments};
use crate::kernels::attention::gather::{PADDING, Rows};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::softmax::{Prepare, Span, Weigh};
use crate::kernels::attention::sums;
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use crate::kernels::buffer::{as_f32, as_i32};
use crate::quant::QuantType;
use std::f32::consts::LOG2_E;
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

/// Scores of a row in memory, and what they are.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// Key 0.
    pub p: *mut u8,
    pub row: Row,
    /// Added to integer scores.
    pub offset: i32,
    /// From raw scores to scaled ones.
    pub scale: f32,
}

/// Weights of a chunk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weighed {
    /// Weights that are not 0, where the softmax is clipped.
    pub nonzero: usize,
    /// Their sum, of integers.
    pub sum: i32,
}

impl Plan<'_> {
    /// What a row's scores are; `sum` is that of its q, of bytes.
    pub fn scores(&self, g: &Group, row: Row, p: *mut u8, sum: i32) -> Scores {
        let (mut offset, mut scale) = (0, self.job.scale);
        if self.mode == Mode::Bytes {
            // Σ (q - zq)(k - zk) = Σ q k - zq Σ k - zk (Σ q - d zq): the second term is what sums start from.
            let d = self.job.head_dim as i32;
            let zero_q = self.q.zero(row.head, QuantType::U8);
            let zero_k = self.k.zero(g.kv_head, self.multiply.columns);
            offset = -zero_k * (sum - d * zero_q);
            scale = scale * self.q.params(row.head).0 * self.k.params(g.kv_head).0;
        }
        Scores { p, row, offset, scale }
    }

    fn prepared(&self) -> bool {
        self.job.bias.is_some() || self.mode == Mode::Bytes && self.job.int8.scores.is_some()
    }

    fn ints(&self) -> usize {
        usize::from(self.mode == Mode::Bytes)
    }

    fn bias(&self, g: &Group, row: Row) -> *const f32 {
        let Some(bias) = &self.job.bias else { return std::ptr::null() };
        let at = |n: usize, i: usize| if n == 1 { 0 } else { i };
        let b = at(bias.batch, g.b) * bias.heads + at(bias.heads, row.head);
        let start = (b * bias.queries + at(bias.queries, row.token)) * bias.keys;
        // A sequence without keys may have a bias of none.
        bias.data.get(start..).map_or(std::ptr::null(), <[f32]>::as_ptr)
    }

    /// Scores of some rows by the keys of a panel.
    ///
    /// # Safety
    /// Rows of q, the panel and rows of scores are there.
    pub unsafe fn multiply_panel(
        &self,
        x: *const u8,
        rows: usize,
        panel: *const u8,
        init: *const i32,
        keys: usize,
        (out, out_stride): (*mut u8, usize),
    ) {
        let tile = Tile {
            x,
            x_stride: self.q_row,
            w: panel,
            w_stride: 4 * PANEL,
            steps: self.words,
            init: if self.mode == Mode::Bytes { init } else { std::ptr::null() },
            out,
            out_stride,
            resume: false,
            ahead: std::ptr::null(),
            ahead_stride: 0,
        };
        // SAFETY: as the caller.
        unsafe { multiply_all(self.multiply, &tile, rows, keys.next_multiple_of(LANES)) };
    }

    /// Prepares the scores of some keys, and finds their maximum.
    ///
    /// # Safety
    /// The row has scores of these keys, and nobody else uses them.
    pub unsafe fn maximum(&self, g: &Group, s: &Scores, keys: Range<usize>) -> f32 {
        let mut most = f32::NEG_INFINITY;
        for keys in segments(self.job, s.row, keys) {
            let span = Span { row: s.p, first: keys.start, last: keys.end, offset: s.offset };
            // SAFETY: as the caller; the bias has all keys of the sequence.
            let m = unsafe {
                if self.prepared() {
                    let (mut step, mut low, mut high) = (0.0, 0.0, 0.0);
                    if let (Mode::Bytes, Some(p)) = (self.mode, self.job.int8.scores) {
                        step = p.scale();
                        low = (p.dtype().min() - p.zero_point()) as f32;
                        high = (p.dtype().max() - p.zero_point()) as f32;
                    }
                    let bias = self.bias(g, s.row);
                    let prepare = Prepare { scale: s.scale, step, low, high, bias };
                    (self.passes.prepare[self.ints()])(&span, &prepare);
                    (self.passes.maximum[0])(&span)
                } else {
                    (self.passes.maximum[self.ints()])(&span)
                }
            };
            most = most.max(m);
        }
        most
    }

    /// What a row is, by the largest of its prepared scores.
    ///
    /// # Safety
    /// As [`Plan::maximum`].
    pub unsafe fn state(&self, s: &Scores, most: f32) -> State {
        if most > f32::NEG_INFINITY {
            return State::Maximum(most);
        }
        for keys in segments(self.job, s.row, 0..usize::MAX) {
            for key in keys {
                // SAFETY: as the caller. Integers are never -inf, so these are floats.
                if unsafe { s.p.cast::<f32>().add(key).read() }.is_nan() {
                    return State::Maximum(0.0);
                }
            }
        }
        if self.job.uniform { State::Uniform } else { State::Nothing }
    }

    /// The keys whose weights are not known to be 0.
    pub fn reach(&self, g: &Group, row: Row, state: State) -> Range<usize> {
        match state {
            State::Maximum(_) => row.first..row.last,
            State::Uniform => 0..g.kv_len,
            State::Nothing => 0..0,
        }
    }

    /// Exponentials of the scores of a chunk, 0 for all other of `keys` up to whole groups of 16, and their sum.
    ///
    /// # Safety
    /// As [`Plan::maximum`], of `keys` and up to whole groups; keys are those of one chunk.
    pub unsafe fn exponentials(&self, s: &Scores, state: State, keys: Range<usize>) -> f32 {
        let floats = s.p.cast::<f32>();
        let end = keys.end.next_multiple_of(LANES);
        let start = keys.start / LANES * LANES;
        let mut sums = [0.0f32; LANES];
        let mut at = start;
        // SAFETY: as the caller.
        unsafe {
            match state {
                State::Maximum(most) => {
                    let (kind, scale) = if self.prepared() { (0, 1.0) } else { (self.ints(), s.scale) };
                    let run = self.passes.exponentials[kind];
                    for keys in segments(self.job, s.row, keys) {
                        floats.add(at).write_bytes(0, keys.start - at);
                        let span = Span { row: s.p, first: keys.start, last: keys.end, offset: s.offset };
                        run(&span, scale * LOG2_E, most, sums.as_mut_ptr());
                        at = keys.end;
                    }
                }
                State::Uniform => {
                    for key in keys {
                        floats.add(key).write(1.0);
                        sums[key % LANES] += 1.0;
                        at = key + 1;
                    }
                }
                State::Nothing => {}
            }
            floats.add(at).write_bytes(0, end - at);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        sums[0]
    }

    /// Weights of a chunk's exponentials, whole groups of 16 keys, to where the chunk of the row begins.
    ///
    /// # Safety
    /// As [`Plan::exponentials`].
    pub unsafe fn weigh(&self, s: &Scores, total: f32, keys: Range<usize>) -> Weighed {
        let (mut factor, mut gamma, mut limit) = (1.0 / total, 0.0, f32::INFINITY);
        if let Some((low, high)) = self.job.clipped {
            (factor, gamma, limit) = ((high - low) / total, low, 1.0);
        }
        if total == 0.0 {
            (factor, gamma) = (0.0, 0.0);
        }
        let to = match self.mode {
            Mode::F32 => 0,
            Mode::Pairs => 1,
            Mode::Bytes => {
                let step = self.job.int8.weights_scale;
                (factor, gamma, limit) = (factor / step, gamma / step, (limit / step).min(255.0));
                2
            }
        };
        let first = keys.start / LANES * LANES;
        let span = Span { row: s.p, first, last: keys.end.next_multiple_of(LANES), offset: 0 };
        let run = self.passes.weigh[to][usize::from(self.job.clipped.is_some())];
        // SAFETY: as the caller. Weights are no wider than exponentials, so those of a chunk lie inside it.
        let (nonzero, sum) = unsafe { run(&span, &Weigh { factor, gamma, limit }, self.weights(s.p, first)) };
        Weighed { nonzero: nonzero as usize, sum }
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
        (resume, ahead): (bool, Ahead),
    ) {
        let tile = Tile {
            x: self.weights(weights, keys.start),
            x_stride: stride,
            w: v,
            w_stride: v_stride,
            steps: keys.len().div_ceil(self.keys_per_word()),
            init: std::ptr::null(),
            out,
            out_stride: 4 * self.columns,
            resume,
            ahead: ahead.p,
            ahead_stride: ahead.stride,
        };
        // SAFETY: as the caller.
        unsafe { multiply_all(self.multiply, &tile, rows, self.columns) };
    }

    /// The same for one row, of weights that are not 0; keys start at a multiple of 16.
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
                let first = keys.start + list.places[i] as usize * self.keys_per_word();
                let word = first..(first + self.keys_per_word()).min(keys.end);
                self.pack_v(g, word, row, Ahead::NOTHING);
                if self.mode == Mode::Pairs {
                    for half in 0..2 {
                        if list.values[i] >> (16 * half) & 0xffff == 0 {
                            row.chunks_exact_mut(2).skip(half).step_by(2).for_each(|v| v.fill(0));
                        }
                    }
                }
                list.places[i] = i as u32;
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
        unsafe { (self.passes.collect)(w, words, list.places.as_mut_ptr(), list.values.as_mut_ptr()) }
    }

    /// The listed words times their rows of v.
    ///
    /// # Safety
    /// Rows of v are there, and room for the sums.
    unsafe fn gather(&self, count: usize, list: &List, (v, stride): (*const u8, usize), out: *mut u8) {
        let (places, values, columns) = (list.places.as_ptr(), list.values.as_ptr(), self.columns);
        // SAFETY: as the caller.
        unsafe {
            (self.multiply.gather)(&Rows { count, places, values, v, stride, columns, out: out.cast() })
        }
    }
}

impl Plan<'_> {
    /// Whether so few of some weights are not 0 that only those are multiplied: a word of them for each, where a tile would take
    /// all words, somewhat faster.
    pub fn worth_listing(&self, nonzero: usize, of: usize) -> bool {
        self.job.clipped.is_some() && 2 * nonzero * self.keys_per_word() < of
    }

    /// How many of some keys a row meets.
    pub fn pairs(&self, row: Row, state: State, keys: Range<usize>) -> usize {
        match state {
            State::Uniform => keys.len(),
            _ => segments(self.job, row, keys).map(|keys| keys.len()).sum(),
        }
    }

    /// How many of them weigh nothing.
    pub fn zeros(&self, pairs: usize, nonzero: usize) -> usize {
        if self.job.clipped.is_some() { pairs.saturating_sub(nonzero) } else { 0 }
    }

    /// Exponentials of keys that are not a row's own are 0.
    ///
    /// # Safety
    /// The row has room for these keys, up to whole groups.
    pub unsafe fn clear_around(&self, s: &Scores, own: &Range<usize>, keys: Range<usize>) {
        let (start, end) = (keys.start, keys.end.next_multiple_of(LANES));
        let first = own.start / LANES * LANES;
        let last = own.end.next_multiple_of(LANES);
        let floats = s.p.cast::<f32>();
        // SAFETY: as the caller.
        unsafe {
            if own.is_empty() || first >= end || last <= start {
                floats.add(start).write_bytes(0, end - start);
                return;
            }
            floats.add(start).write_bytes(0, first.saturating_sub(start));
            floats.add(last.min(end)).write_bytes(0, end.saturating_sub(last));
        }
    }

    /// Bytes of the sums of a row over all chunks.
    pub fn total_bytes(&self) -> usize {
        self.columns * if self.wide { 8 } else { 4 }
    }

    /// Sums of a chunk onto those of all.
    pub fn accumulate(&self, sums: &mut [u8], total: &mut [u8]) {
        let isa = self.ctx.isa();
        // SAFETY: the tier is supported.
        unsafe {
            match (self.mode, self.wide) {
                (Mode::Bytes, true) => sums::add_wide::pick(isa)(as_i32(sums), as_i64(total)),
                (Mode::Bytes, false) => sums::add_ints::pick(isa)(as_i32(sums), as_i32(total)),
                _ => sums::add_floats::pick(isa)(as_f32(sums), as_f32(total)),
            }
        }
    }

    /// Whether a row's sums of floats have no infinity or NaN; true of integers.
    pub fn finite(&self, sums: &mut [u8]) -> bool {
        // SAFETY: the tier is supported.
        self.mode == Mode::Bytes || unsafe { sums::finite::pick(self.ctx.isa())(as_f32(sums)) }
    }

    /// A row's sums of all chunks, and of integers that of its weights, to the output.
    ///
    /// # Safety
    /// As [`Plan::finish`].
    pub unsafe fn finish_row(
        &self,
        g: &Group,
        row: Row,
        total: &mut [u8],
        weights: i64,
        context: &mut [f32],
    ) {
        if self.mode == Mode::Bytes {
            let isa = self.ctx.isa();
            let offset = i64::from(self.v.zero(g.kv_head, self.multiply.columns)) * weights;
            let scale = self.v.params(g.kv_head).0 * self.job.int8.weights_scale;
            // SAFETY: the tier is supported.
            unsafe {
                if self.wide {
                    sums::dequantize_wide::pick(isa)(as_i64(total), offset, scale, context);
                } else {
                    sums::dequantize::pick(isa)(as_i32(total), offset as i32, scale, context);
                }
            }
        } else {
            context.copy_from_slice(&as_f32(total)[..self.columns]);
        }
        // SAFETY: as the caller.
        unsafe { self.finish(g, row, context) };
    }
}

fn as_i64(bytes: &mut [u8]) -> &mut [i64] {
    // SAFETY: any bytes are i64s.
    unsafe { bytes.align_to_mut().1 }
}

/// Words of weights that are not 0, of a chunk.
pub struct List {
    places: [u32; CHUNK + PADDING],
    values: [u32; CHUNK + PADDING],
}

impl List {
    pub fn new() -> List {
        List { places: [0; CHUNK + PADDING], values: [0; CHUNK + PADDING] }
    }
}

/// The keys of a chunk from a multiple of 16 on.
pub fn aligned(chunk: usize, keys: &Range<usize>) -> Range<usize> {
    let keys = keys_of(chunk, keys);
    keys.start / LANES * LANES..keys.end
}
