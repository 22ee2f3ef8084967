//! Few queries against many keys: the keys are split into chunks, and a chunk is a task. Inside, heads take turns at 64 keys at a
//! time: so memory is read about in the order in which tokens lie, and each panel prefetches the next.
//!
//! A clip needs the final sum of a row, so there are phases that wait for each other: scores and maxima; exponentials and
//! sums; weights and context. What the chunks of a row leave is put together in order (LeanAttention's split, without its
//! online softmax).

mod direct;

use super::rows::{State, aligned};
use super::weights::Share;
use super::{Group, Lost, Mode, NO_KEYS, Plan, Row, chunks, extend, segments};
use crate::base::buffer::{as_f32, as_i32};
use crate::base::element::Element;
use crate::base::scratch::Scratch;
use crate::base::tensor::TensorRef;
use crate::driver::share;
use crate::driver::tensor::Prefetch;
use crate::driver::workers::{Plain, Shared, Workers, as_plain, carve, carved, grow};
use crate::kernels::attention::gather::List;
use crate::kernels::attention::softmax::Scores;
use crate::kernels::attention::{CHUNK, PANEL};
use std::ops::Range;

/// Rows of a group up to which keys are split.
pub const MOST_ROWS: usize = 16;

/// A sequence with one head of k and v, and where its numbers are in the shared memory.
#[derive(Clone, Copy)]
struct Part {
    group: Group,
    /// Of the sequence, the first of its tasks.
    task: usize,
    /// Bytes.
    scores: usize,
    /// What each row is.
    rows: usize,
    /// What each chunk of each row leaves.
    chunks: usize,
    /// Their contexts.
    contexts: usize,
}

// SAFETY: integers and floats, as many bytes of them as the size says.
unsafe impl Plain for Part {}
const _: () = assert!(size_of::<Part>() == 15 * size_of::<usize>() + 4 * size_of::<u32>());

/// What is known of a row.
#[derive(Clone, Copy)]
struct RowState {
    state: State,
    sum_of_q: i32,
    total: f32,
}

/// What a chunk of a row leaves.
#[derive(Clone, Copy)]
struct ChunkState {
    maximum: f32,
    sum: f32,
    share: Share,
    /// Of the first row: the keys that are multiplied, all.
    keys: [usize; 2],
}

impl ChunkState {
    fn dense(&self) -> Range<usize> {
        self.keys[0]..self.keys[1]
    }
}

fn stride(kv_len: usize) -> usize {
    4 * kv_len.next_multiple_of(PANEL)
}

/// Bytes of what a group has in the shared memory: scores, what each row is, what each chunk of each row leaves, and contexts.
fn part_bytes(plan: &Plan<'_>, rows: usize, kv_len: usize) -> [usize; 4] {
    let chunks = rows.saturating_mul(kv_len.div_ceil(CHUNK));
    let parts = [
        (rows, stride(kv_len)),
        (rows, size_of::<RowState>()),
        (chunks, size_of::<ChunkState>()),
        (chunks, 4 * plan.columns),
    ];
    // So large a sum that it saturates is refused.
    parts.map(|(n, each)| n.saturating_mul(each).saturating_add(64) / 64 * 64)
}

/// Takes the memory that calls with fewer queries, and no more sequences and keys, will need: those after a long prompt. If there is
/// not so much, they will say so themselves.
pub fn reserve(plan: &Plan<'_>, scratch: &mut Scratch) {
    let (sequences, groups) = (plan.problem.call.sequences, plan.groups());
    let rows = MOST_ROWS / plan.heads_of_group() * plan.heads_of_group();
    let [parts, scores, workers] = scratch.slots();
    let count = sequences.count().saturating_mul(groups);
    let of_sequence = |b: usize| {
        let (first, last) = sequences.keys(b);
        part_bytes(plan, rows, last - first).iter().fold(0usize, |sum, bytes| sum.saturating_add(*bytes))
    };
    let bytes = (0..sequences.count()).map(of_sequence).fold(0usize, usize::saturating_add);
    let _ = rows == 0
        || grow(parts, count, size_of::<Part>())
            && grow(scores, groups, bytes)
            && grow(workers, plan.ctx.threads(), carved(extents(plan, rows)));
}

/// All sequences and heads; nothing if there is not so much memory.
pub fn run(plan: &Plan<'_>, rows: usize, scratch: &mut Scratch) -> Option<()> {
    let (sequences, groups, threads) =
        (plan.problem.call.sequences.count(), plan.groups(), plan.ctx.threads());
    let [parts, scores, workers] = scratch.slots();
    let count = sequences.checked_mul(groups)?;
    if !grow(parts, count, size_of::<Part>()) {
        return None;
    }
    let parts = &mut as_plain::<Part>(parts.bytes_mut())[..count];
    let (mut tasks, mut bytes) = (0, 0usize);
    for (b, parts) in parts.chunks_exact_mut(groups).enumerate() {
        let first = tasks;
        for (index, part) in parts.iter_mut().enumerate() {
            let g = plan.group(b, index);
            let [scores, rows, chunks, contexts] = part_bytes(plan, g.rows(), g.kv_len).map(|more| {
                let at = bytes;
                bytes = bytes.saturating_add(more);
                at
            });
            *part = Part { group: g, task: first, scores, rows, chunks, contexts };
            tasks = first + g.kv_len.div_ceil(CHUNK);
        }
    }
    if !scores.try_grow(bytes) {
        return None;
    }
    let shared = Shared::new(scores.bytes_mut());
    // A chunk of all heads is a task, unless that makes too few.
    let shares = threads.saturating_mul(2).div_ceil(tasks.max(1)).min(groups);
    let shares = if threads == 1 { 1 } else { shares };
    let split = Split { plan, parts, shared, groups, shares };
    let tasks = tasks * shares;
    let extents = extents(plan, rows);
    let mut workers = Workers::new(plan.ctx, threads.min(tasks.max(count)), carved(extents), workers)?;
    let mut each = |n: usize, run: &(dyn Fn(usize, &mut Workspace<'_>) + Sync)| {
        workers.share_out(n, &|bytes, tasks| {
            let mut room = Workspace::new(bytes, extents);
            tasks.for_each(|task| run(task, &mut room));
        });
    };
    // SAFETY: each phase begins when the one before has ended; tasks of a phase write what is theirs alone.
    unsafe {
        each(tasks, &|task, room| split.scores(task, room));
        (0..count).for_each(|part| split.find_states(part));
        each(tasks, &|task, _| split.exponentials(task));
        (0..count).for_each(|part| split.find_totals(part));
        each(tasks, &|task, room| split.context(task, room));
        each(count, &|part, room| split.finish(part, room));
    }
    Some(())
}

/// A worker's memory.
struct Workspace<'a> {
    q: &'a mut [u8],
    /// Of the rows of q.
    sums: &'a mut [i32],
    panel: &'a mut [u8],
    init: &'a mut [i32],
    stage: &'a mut [u8],
    v: &'a mut [u8],
    total: &'a mut [u8],
}

/// Bytes of the parts of a worker's memory, in the order of [`Workspace`].
fn extents(plan: &Plan<'_>, rows: usize) -> [usize; 7] {
    let rows_of_q = plan.groups() * rows;
    let rows_of_v = if plan.reads_v_directly() { 0 } else { plan.v_bytes(CHUNK) };
    let (sums, init) = (4 * rows_of_q, 4 * PANEL);
    let total = 4 * plan.columns;
    [rows_of_q * plan.q_row, sums, plan.panel_bytes, init, plan.stage_bytes(), rows_of_v, total]
}

impl<'a> Workspace<'a> {
    fn new(bytes: &'a mut [u8], extents: [usize; 7]) -> Self {
        let [q, sums, panel, init, stage, v, total] = carve(bytes, extents);
        let (sums, init) = (as_i32(sums), as_i32(init));
        Workspace { q, sums, panel, init, stage, v, total }
    }
}

/// One call.
struct Split<'a> {
    plan: &'a Plan<'a>,
    parts: &'a [Part],
    shared: Shared,
    /// Parts of a sequence.
    groups: usize,
    /// Tasks that share the parts of a chunk.
    shares: usize,
}

/// A chunk of some parts of a sequence.
struct Task {
    chunk: usize,
    parts: Range<usize>,
}

impl<'a> Split<'a> {
    fn task(&self, task: usize) -> Task {
        let (task, turn) = (task / self.shares, task % self.shares);
        // The last sequence that begins there: those without keys have no tasks.
        let last = self.parts.partition_point(|part| part.task <= task) - 1;
        let first = last / self.groups * self.groups;
        let own = share(self.groups, self.shares, turn);
        Task { chunk: task - self.parts[last].task, parts: first + own.start..first + own.end }
    }

    fn part(&self, part: usize) -> (&'a Part, &'a Group) {
        (&self.parts[part], &self.parts[part].group)
    }

    fn row_state(&self, part: &Part, row: usize) -> *mut RowState {
        self.shared.at::<RowState>(part.rows).wrapping_add(row)
    }

    fn chunk_state(&self, g: &Group, part: &Part, row: usize, chunk: usize) -> *mut ChunkState {
        self.shared.at::<ChunkState>(part.chunks).wrapping_add(row * g.kv_len.div_ceil(CHUNK) + chunk)
    }

    /// Contexts of a chunk, row by row.
    fn contexts(&self, g: &Group, part: &Part, chunk: usize) -> *mut f32 {
        self.shared.at::<f32>(part.contexts).wrapping_add(chunk * g.rows() * self.plan.columns)
    }

    fn scores_of(&self, g: &Group, part: &Part, row: usize, sum_of_q: i32) -> (Row, Scores) {
        let p = self.shared.at(part.scores + row * stride(g.kv_len));
        let row = g.row(self.plan.problem.layer, row);
        (row, self.plan.scores(g, row, p, sum_of_q))
    }

    /// # Safety
    /// Phase 1: nobody else has this task.
    unsafe fn scores(&self, task: usize, room: &mut Workspace<'_>) {
        let (plan, Task { chunk, parts }) = (self.plan, self.task(task));
        let mut keys = NO_KEYS;
        let (mut x, mut sums) = (room.q.chunks_exact_mut(plan.q_row), room.sums.iter_mut());
        for part in parts.clone() {
            let (part, g) = self.part(part);
            for i in 0..g.rows() {
                let row = g.row(plan.problem.layer, i);
                let Some(x) = x.next() else { unreachable!("room for all rows") };
                let sum_of_q = plan.pack_q(g.q + row.token, row.head, x);
                if let Some(sum) = sums.next() {
                    *sum = sum_of_q;
                }
                if chunk == 0 {
                    let state = RowState { state: State::Nothing, sum_of_q, total: 0.0 };
                    // SAFETY: tasks of other chunks leave it alone.
                    unsafe { self.row_state(part, i).write(state) };
                }
                extend(&mut keys, row.first..row.last);
            }
        }
        let (_, g) = self.part(parts.start);
        let chunk_keys = chunk * CHUNK..((chunk + 1) * CHUNK).min(g.kv_len);
        let keys = keys.start.max(chunk_keys.start)..keys.end.min(chunk_keys.end);
        let panels = if keys.is_empty() { 0..0 } else { keys.start / PANEL..keys.end.div_ceil(PANEL) };
        let attends = |g: &Group, keys: &Range<usize>| {
            (0..g.rows()).any(|i| {
                segments(plan.problem.call, g.row(plan.problem.layer, i), keys.clone()).next().is_some()
            })
        };
        let direct = g.rows() == 1 && plan.reads_k_directly();
        let mut panels = panels.map(|panel| panel * PANEL..((panel + 1) * PANEL).min(g.kv_len)).peekable();
        while let Some(mut keys) = panels.next() {
            if direct && attends(g, &keys) {
                while let Some(next) = panels.next_if(|next| attends(g, next)) {
                    keys.end = next.end;
                }
                // SAFETY: rows of scores are as long as all panels.
                keys = unsafe { self.scores_directly(parts.clone(), keys, room) };
            }
            let mut first = 0;
            for (turn, part) in parts.clone().enumerate() {
                let (part, g) = self.part(part);
                let rows = g.rows();
                let x = room.q[first * plan.q_row..].as_ptr();
                first += rows;
                if keys.is_empty() || !attends(g, &keys) {
                    continue;
                }
                let ahead = if direct {
                    Prefetch::NOTHING
                } else {
                    self.ahead(&plan.problem.k, g, keys.end, (turn, parts.len()))
                };
                plan.pack_k(g, keys.clone(), room.panel, room.init, room.stage, ahead);
                let out = (self.shared.at::<u8>(part.scores + 4 * keys.start), stride(g.kv_len));
                let panel = (room.panel.as_ptr(), room.init.as_ptr());
                // SAFETY: rows of scores are as long as all panels.
                unsafe {
                    plan.multiply_panel((x, plan.q_row), rows, panel, keys.len(), out, std::ptr::null_mut())
                };
            }
        }
        let mut sums = room.sums.iter();
        for part in parts {
            let (part, g) = self.part(part);
            for i in 0..g.rows() {
                // SAFETY: the scores of this chunk are this task's.
                unsafe {
                    let (row, mut s) = self.scores_of(g, part, i, sums.next().map_or(0, |sum| *sum));
                    plan.maximum(g, &[row], std::slice::from_mut(&mut s), &chunk_keys);
                    let state = ChunkState { maximum: s.most, sum: 0.0, share: Share::NOTHING, keys: [0; 2] };
                    self.chunk_state(g, part, i, chunk).write(state);
                }
            }
        }
    }

    /// # Safety
    /// Phase 1 is over.
    unsafe fn find_states(&self, part: usize) {
        let (plan, (part, g)) = (self.plan, self.part(part));
        if g.kv_len == 0 {
            return;
        }
        for i in 0..g.rows() {
            // SAFETY: as the caller.
            unsafe {
                let maxima =
                    (0..g.kv_len.div_ceil(CHUNK)).map(|c| (*self.chunk_state(g, part, i, c)).maximum);
                let known = &mut *self.row_state(part, i);
                let (row, mut s) = self.scores_of(g, part, i, known.sum_of_q);
                s.most = maxima.fold(f32::NEG_INFINITY, f32::max);
                known.state = plan.state(row, &s);
            }
        }
    }

    /// # Safety
    /// Phase 2: nobody else has this task.
    unsafe fn exponentials(&self, task: usize) {
        let (plan, Task { chunk, parts }) = (self.plan, self.task(task));
        for part in parts {
            let (part, g) = self.part(part);
            for i in 0..g.rows() {
                // SAFETY: as the caller.
                unsafe {
                    let RowState { state, sum_of_q, .. } = *self.row_state(part, i);
                    let (row, mut s) = self.scores_of(g, part, i, sum_of_q);
                    let reach = plan.reach(g, row, state);
                    if chunks(&reach).contains(&chunk) {
                        let scores = std::slice::from_mut(&mut s);
                        plan.exponentials(&[row], &[state], scores, &aligned(chunk, &reach));
                        (*self.chunk_state(g, part, i, chunk)).sum = s.total;
                    }
                }
            }
        }
    }

    /// # Safety
    /// Phase 2 is over.
    unsafe fn find_totals(&self, part: usize) {
        let (part, g) = self.part(part);
        for i in 0..g.rows() {
            // SAFETY: as the caller.
            unsafe {
                let sums = (0..g.kv_len.div_ceil(CHUNK)).map(|c| (*self.chunk_state(g, part, i, c)).sum);
                (*self.row_state(part, i)).total = sums.fold(0.0, |a, b| a + b);
            }
        }
    }

    /// # Safety
    /// Phase 3: nobody else has this task.
    unsafe fn context(&self, task: usize, room: &mut Workspace<'_>) {
        let (plan, Task { chunk, parts }) = (self.plan, self.task(task));
        let (_, g) = self.part(parts.start);
        let whole = chunk * CHUNK..((chunk + 1) * CHUNK).min(g.kv_len);
        let mut dense = NO_KEYS;
        for part in parts.clone() {
            // SAFETY: as the caller.
            let keys = unsafe { self.weigh_or_list(chunk, part, room) };
            extend(&mut dense, keys);
        }
        if dense.is_empty() {
            return;
        }
        let direct = g.rows() == 1 && plan.takes_v_directly();
        if direct {
            // SAFETY: as the caller.
            unsafe { self.context_directly(chunk, parts.clone()) };
        }
        let mut start = whole.start.max(dense.start / PANEL * PANEL);
        while start < dense.end {
            let block = start..(start + PANEL).min(dense.end);
            for (turn, part) in parts.clone().enumerate() {
                // SAFETY: as the caller.
                unsafe { self.multiply_block(chunk, part, &block, (turn, parts.len()), direct, room) };
            }
            start = block.end;
        }
        for part in parts {
            let (part, g) = self.part(part);
            for i in 0..g.rows() {
                // SAFETY: as the caller; the row is this task's.
                unsafe {
                    let out = self.contexts(g, part, chunk).add(i * plan.columns);
                    let row = std::slice::from_raw_parts_mut(out.cast(), 4 * plan.columns);
                    // Perhaps 0 times infinity: but a key that weighs nothing is not read.
                    let keys = self.dense(g, part, chunk);
                    if !keys.is_empty() && !plan.finite(row) {
                        self.gather(g, part, &keys, i, out.cast(), room);
                    }
                }
            }
        }
    }

    /// What to prefetch of k or v while a panel passes in turns.
    fn ahead(&self, x: &TensorRef<'_>, g: &Group, next: usize, turn: (usize, usize)) -> Prefetch {
        if self.plan.by_head() {
            return x.ahead_of(g.kv + next, g.kv_head);
        }
        x.next_tokens(g.kv + next, PANEL, g.kv_head, turn)
    }

    /// The keys of a chunk that a part multiplies all: kept with its first row.
    ///
    /// # Safety
    /// Phase 3: nobody else has the task of this chunk and part.
    unsafe fn dense(&self, g: &Group, part: &Part, chunk: usize) -> Range<usize> {
        // SAFETY: as the caller; a part of no rows has no state.
        if g.rows() == 0 { 0..0 } else { unsafe { (*self.chunk_state(g, part, 0, chunk)).dense() } }
    }

    /// Weights of a chunk of a part; and its context where few of them are not 0, else the keys that are to be multiplied.
    ///
    /// # Safety
    /// As [`Split::dense`].
    unsafe fn weigh_or_list(&self, chunk: usize, part: usize, room: &mut Workspace<'_>) -> Range<usize> {
        let (plan, (part, g)) = (self.plan, self.part(part));
        let rows = g.rows();
        let contexts = self.contexts(g, part, chunk);
        // SAFETY: as the caller.
        unsafe {
            contexts.write_bytes(0, rows * plan.columns);
            let whole = chunk * CHUNK..((chunk + 1) * CHUNK).min(g.kv_len);
            let (mut reach, mut pairs) = (NO_KEYS, 0);
            for i in 0..rows {
                let (row, state) = (g.row(plan.problem.layer, i), (*self.row_state(part, i)).state);
                pairs += plan.pairs(row, state, whole.clone());
                let own = plan.reach(g, row, state);
                extend(&mut reach, own);
            }
            if reach.is_empty() || !chunks(&reach).contains(&chunk) {
                let zeros = plan.zeros(pairs, 0);
                plan.counts.add(pairs, zeros, zeros);
                return 0..0;
            }
            let keys = aligned(chunk, &reach);
            let (mut nonzero, mut zeros) = (0, 0);
            for i in 0..rows {
                let RowState { state, sum_of_q, total } = *self.row_state(part, i);
                let (row, mut s) = self.scores_of(g, part, i, sum_of_q);
                s.total = total;
                // What this row does not reach, others may.
                plan.clear_around(&s, &plan.reach(g, row, state), &keys);
                let share = std::slice::from_mut(&mut (*self.chunk_state(g, part, i, chunk)).share);
                plan.weigh(g, std::slice::from_mut(&mut s), &keys, chunks(&reach).len() == 1, share);
                nonzero += s.nonzero as usize;
                zeros += plan.zeros(plan.pairs(row, state, whole.clone()), s.nonzero as usize);
            }
            let list = plan.worth_listing(nonzero, rows, keys.len());
            plan.counts.add(pairs, zeros, if list { zeros } else { 0 });
            if !list {
                (*self.chunk_state(g, part, 0, chunk)).keys = [keys.start, keys.end];
                return keys;
            }
            for i in 0..rows {
                self.gather(g, part, &keys, i, contexts.add(i * plan.columns).cast(), room);
            }
            0..0
        }
    }

    /// The context of a row, from the keys that weigh anything.
    ///
    /// # Safety
    /// As [`Split::dense`], of weights that are there.
    unsafe fn gather(
        &self,
        g: &Group,
        part: &Part,
        keys: &Range<usize>,
        i: usize,
        out: *mut u8,
        room: &mut Workspace<'_>,
    ) {
        let plan = self.plan;
        let weights = self.shared.at::<u8>(part.scores + i * stride(g.kv_len));
        let mut list = List::default();
        // SAFETY: as the caller.
        unsafe {
            if plan.reads_v_directly() {
                let v = (plan.problem.v.at(g.kv + keys.start, g.kv_head), plan.problem.v.token_stride());
                plan.gather_v(weights, keys, v, &mut list, out);
            } else {
                plan.pack_and_gather_v(g, weights, keys, room.v, &mut list, out);
            }
        }
    }

    /// A panel's keys of a part that multiplies all, or only the rest behind whole words, onto what is there.
    ///
    /// # Safety
    /// As [`Split::gather`].
    unsafe fn multiply_block(
        &self,
        chunk: usize,
        part: usize,
        block: &Range<usize>,
        turn: (usize, usize),
        rest: bool,
        room: &mut Workspace<'_>,
    ) {
        let (plan, (part, g)) = (self.plan, self.part(part));
        // SAFETY: as the caller.
        unsafe {
            let mut dense = self.dense(g, part, chunk);
            if rest {
                dense.start = self.whole_words(g, part, chunk).end;
            }
            let keys = dense.start.max(block.start)..dense.end.min(block.end);
            if keys.is_empty() {
                return;
            }
            let ahead = self.ahead(&plan.problem.v, g, block.end, turn);
            let out = self.contexts(g, part, chunk).cast();
            let row = self.shared.at::<u8>(part.scores);
            let weights = (row, stride(g.kv_len), g.rows());
            if plan.reads_v_directly() {
                let v = (plan.problem.v.at(g.kv + keys.start, g.kv_head), plan.problem.v.token_stride());
                plan.multiply_v(weights, keys, v, out, (true, ahead));
            } else {
                plan.pack_v(g, keys.clone(), room.v, ahead);
                let v = (room.v.as_ptr(), 4 * plan.columns);
                plan.multiply_v(weights, keys, v, out, (true, Prefetch::NOTHING));
            }
        }
    }

    /// # Safety
    /// Phase 4: nobody else has this part.
    unsafe fn finish(&self, part: usize, room: &mut Workspace<'_>) {
        let (plan, (part, g)) = (self.plan, self.part(part));
        let (columns, mut lost) = (plan.columns, Lost::default());
        for i in 0..g.rows() {
            room.total.fill(0);
            let (mut exact, mut rounded) = (0.0, 0.0);
            for chunk in 0..g.kv_len.div_ceil(CHUNK) {
                // SAFETY: phase 3 is over; a row of context is there.
                unsafe {
                    let share = (*self.chunk_state(g, part, i, chunk)).share;
                    (exact, rounded) = (exact + share.exact, rounded + share.rounded);
                    let sums = self.contexts(g, part, chunk).add(i * columns);
                    let sums = std::slice::from_raw_parts_mut(sums.cast(), 4 * columns);
                    plan.accumulate(sums, room.total, &[share]);
                }
            }
            lost.count(exact, rounded);
            // SAFETY: the rows of a part are its own.
            unsafe { plan.finish(g, g.row(plan.problem.layer, i), as_f32(room.total)) };
        }
        plan.counts.lose(lost);
    }
}

impl Plan<'_> {
    /// Whether rows of v are what tiles take.
    fn reads_v_directly(&self) -> bool {
        self.mode == Mode::F32
            && self.problem.v.element() == Element::F32
            && self.problem.layer.head_dim == self.columns
    }
}
