//! Few queries against many keys: the keys are split into chunks, and a chunk of a head is a task.
//!
//! A clip needs the final sum of a row, so there are phases that wait for each other: scores and maxima; exponentials and
//! sums; weights and context. What the chunks of a row leave is put together in order (LeanAttention's split, without its
//! online softmax).

use super::operands::Kind;
use super::rows::{List, Scores, State, aligned};
use super::{Group, Memory, Mode, Plan, chunks, segments};
use crate::kernels::attention::{CHUNK, PANEL};
use crate::kernels::buffer::{as_f32, as_i32};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of a group up to which keys are split.
pub const MOST_ROWS: usize = 16;

/// A sequence with one head of k and v, and where its numbers are in the shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    b: usize,
    index: usize,
    /// The first of its tasks, one for each chunk.
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
    weights: i32,
}

/// The shared memory. Tasks touch disjoint parts of it in each phase.
#[derive(Clone, Copy)]
struct Shared(*mut u8);
// SAFETY: see above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at<T>(&self, offset: usize, i: usize) -> *mut T {
        self.0.wrapping_add(offset).cast::<T>().wrapping_add(i)
    }
}

fn stride(kv_len: usize) -> usize {
    4 * kv_len.next_multiple_of(PANEL)
}

/// All sequences and heads.
pub fn run(plan: &Plan<'_>, sequences: usize, memory: &mut Memory) {
    let parts = &mut memory.split;
    parts.clear();
    let (mut tasks, mut bytes) = (0, 0);
    let mut take = |n: usize| {
        let at = bytes;
        bytes += n.next_multiple_of(64);
        at
    };
    for b in 0..sequences {
        for index in 0..plan.groups() {
            let g = plan.group(b, index);
            let n = g.kv_len.div_ceil(CHUNK);
            parts.push(Part {
                b,
                index,
                task: tasks,
                scores: take(g.rows() * stride(g.kv_len)),
                rows: take(g.rows() * size_of::<RowState>()),
                chunks: take(g.rows() * n * size_of::<ChunkState>()),
                contexts: take(g.rows() * n * plan.columns * 4),
            });
            tasks += n;
        }
    }
    memory.scores.grow(bytes);
    let shared = Shared(memory.scores.bytes_mut().as_mut_ptr());
    let split = Split { plan, parts, shared };
    let extents = Extents::new(plan);
    let workers = plan.ctx.threads().min(tasks.max(parts.len()));
    memory.workers.grow(workers * extents.bytes());
    let bytes = &mut memory.workers.bytes_mut()[..workers * extents.bytes()];
    let mut each = |n: usize, run: &(dyn Fn(usize, &mut Room<'_>) + Sync)| {
        let next = AtomicUsize::new(0);
        plan.ctx.for_each_chunk(workers.min(n), bytes, extents.bytes(), &|_, bytes| {
            let mut room = extents.split(bytes);
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return;
                }
                run(i, &mut room);
            }
        });
    };
    // SAFETY: each phase begins when the one before has ended; tasks of a phase write what is theirs alone.
    unsafe {
        each(tasks, &|task, room| split.scores(task, room));
        split.parts.iter().for_each(|part| split.find_states(part));
        each(tasks, &|task, _| split.exponentials(task));
        split.parts.iter().for_each(|part| split.find_totals(part));
        each(tasks, &|task, room| split.context(task, room));
        each(parts.len(), &|part, room| split.finish(part, room));
    }
}

/// The extents of a worker's memory.
#[derive(Clone, Copy)]
struct Extents {
    q: usize,
    panel: usize,
    stage: usize,
    v: usize,
    row: usize,
}

/// A worker's memory.
struct Room<'a> {
    q: &'a mut [u8],
    panel: &'a mut [u8],
    init: &'a mut [i32],
    stage: &'a mut [u8],
    v: &'a mut [u8],
    total: &'a mut [u8],
    row: &'a mut [f32],
}

impl Extents {
    fn new(plan: &Plan<'_>) -> Extents {
        let rows_of_v = if plan.reads_v_directly() { 0 } else { plan.v_bytes(CHUNK) };
        Extents {
            q: MOST_ROWS * plan.q_row,
            panel: plan.panel_bytes,
            stage: plan.stage_bytes(),
            v: rows_of_v.max(plan.sparse_v_bytes(CHUNK)),
            row: 4 * plan.columns,
        }
    }

    fn bytes(&self) -> usize {
        self.q + self.panel + 4 * PANEL + self.stage + self.v + 3 * self.row
    }

    fn split<'a>(&self, bytes: &'a mut [u8]) -> Room<'a> {
        let mut rest = bytes;
        let mut take = |n: usize| {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(n);
            rest = left;
            taken
        };
        Room {
            q: take(self.q),
            panel: take(self.panel),
            init: as_i32(take(4 * PANEL)),
            stage: take(self.stage),
            v: take(self.v),
            total: take(2 * self.row),
            row: as_f32(take(self.row)),
        }
    }
}

/// One call.
struct Split<'a> {
    plan: &'a Plan<'a>,
    parts: &'a [Part],
    shared: Shared,
}

/// A task: a chunk of a part.
struct Task<'a> {
    part: &'a Part,
    g: Group,
    chunk: usize,
}

impl<'a> Split<'a> {
    fn task(&self, task: usize) -> Task<'a> {
        // The last that begins there: parts without keys have no tasks.
        let part = &self.parts[self.parts.partition_point(|part| part.task <= task) - 1];
        Task { part, g: self.plan.group(part.b, part.index), chunk: task - part.task }
    }

    fn row_state(&self, part: &Part, row: usize) -> *mut RowState {
        self.shared.at(part.rows, row)
    }

    fn chunk_state(&self, g: &Group, part: &Part, row: usize, chunk: usize) -> *mut ChunkState {
        self.shared.at(part.chunks, row * g.kv_len.div_ceil(CHUNK) + chunk)
    }

    /// Contexts of a chunk, row by row.
    fn contexts(&self, g: &Group, part: &Part, chunk: usize) -> *mut f32 {
        self.shared.at(part.contexts, chunk * g.rows() * self.plan.columns)
    }

    fn scores_of(&self, g: &Group, part: &Part, row: usize, sum_of_q: i32) -> Scores {
        let p = self.shared.at(part.scores, row * stride(g.kv_len));
        self.plan.scores(g, g.row(self.plan.job, row), p, sum_of_q)
    }

    /// # Safety
    /// Phase 1: nobody else has this task.
    unsafe fn scores(&self, task: usize, room: &mut Room<'_>) {
        let (plan, Task { part, g, chunk }) = (self.plan, self.task(task));
        let rows = g.rows();
        let mut sums = [0; MOST_ROWS];
        let mut keys = usize::MAX..0;
        for i in 0..rows {
            let row = g.row(plan.job, i);
            sums[i] = plan.pack_q(g.q + row.token, row.head, &mut room.q[i * plan.q_row..][..plan.q_row]);
            if row.first < row.last {
                keys = keys.start.min(row.first)..keys.end.max(row.last);
            }
        }
        let chunk_keys = chunk * CHUNK..((chunk + 1) * CHUNK).min(g.kv_len);
        let keys = keys.start.max(chunk_keys.start)..keys.end.min(chunk_keys.end);
        // SAFETY: rows of scores are as long as all panels; states are this task's, or the same from all.
        unsafe {
            if !keys.is_empty() {
                for panel in keys.start / PANEL..keys.end.div_ceil(PANEL) {
                    let keys = panel * PANEL..((panel + 1) * PANEL).min(g.kv_len);
                    let meets = |i| segments(plan.job, g.row(plan.job, i), keys.clone()).next().is_some();
                    if !(0..rows).any(meets) {
                        continue;
                    }
                    plan.pack_k(&g, keys.clone(), room.panel, room.init, room.stage);
                    let out = self.shared.at::<u8>(part.scores, 4 * keys.start);
                    let (x, panel, init) = (room.q.as_ptr(), room.panel.as_ptr(), room.init.as_ptr());
                    plan.multiply_panel(x, rows, panel, init, keys.len(), (out, stride(g.kv_len)));
                }
            }
            for i in 0..rows {
                let s = self.scores_of(&g, part, i, sums[i]);
                let maximum = plan.maximum(&g, &s, chunk_keys.clone());
                let state = ChunkState { maximum, sum: 0.0, weights: 0 };
                self.chunk_state(&g, part, i, chunk).write(state);
            }
        }
    }

    /// # Safety
    /// Phase 1 is over.
    unsafe fn find_states(&self, part: &Part) {
        let (plan, g) = (self.plan, self.plan.group(part.b, part.index));
        let mut x = [0u8; 4 * 256];
        for i in 0..g.rows() {
            let row = g.row(plan.job, i);
            // SAFETY: as the caller.
            unsafe {
                let maxima =
                    (0..g.kv_len.div_ceil(CHUNK)).map(|c| (*self.chunk_state(&g, part, i, c)).maximum);
                let most = maxima.fold(f32::NEG_INFINITY, f32::max);
                let sum_of_q = match plan.mode {
                    Mode::Bytes => plan.pack_q(g.q + row.token, row.head, &mut x),
                    _ => 0,
                };
                let state = plan.state(&self.scores_of(&g, part, i, sum_of_q), most);
                self.row_state(part, i).write(RowState { state, sum_of_q, total: 0.0 });
            }
        }
    }

    /// # Safety
    /// Phase 2: nobody else has this task.
    unsafe fn exponentials(&self, task: usize) {
        let (plan, Task { part, g, chunk }) = (self.plan, self.task(task));
        for i in 0..g.rows() {
            // SAFETY: as the caller.
            unsafe {
                let state = *self.row_state(part, i);
                let s = self.scores_of(&g, part, i, state.sum_of_q);
                let reach = plan.reach(&g, s.row, state.state);
                if chunks(&reach).contains(&chunk) {
                    let sum = plan.exponentials(&s, state.state, aligned(chunk, &reach));
                    (*self.chunk_state(&g, part, i, chunk)).sum = sum;
                }
            }
        }
    }

    /// # Safety
    /// Phase 2 is over.
    unsafe fn find_totals(&self, part: &Part) {
        let g = self.plan.group(part.b, part.index);
        for i in 0..g.rows() {
            // SAFETY: as the caller.
            unsafe {
                let sums = (0..g.kv_len.div_ceil(CHUNK)).map(|c| (*self.chunk_state(&g, part, i, c)).sum);
                (*self.row_state(part, i)).total = sums.fold(0.0, |a, b| a + b);
            }
        }
    }

    /// # Safety
    /// Phase 3: nobody else has this task.
    unsafe fn context(&self, task: usize, room: &mut Room<'_>) {
        let (plan, Task { part, g, chunk }) = (self.plan, self.task(task));
        let rows = g.rows();
        let contexts = self.contexts(&g, part, chunk);
        // SAFETY: as the caller.
        unsafe {
            let mut reach = usize::MAX..0;
            for i in 0..rows {
                let own = plan.reach(&g, g.row(plan.job, i), (*self.row_state(part, i)).state);
                if !own.is_empty() {
                    reach = reach.start.min(own.start)..reach.end.max(own.end);
                }
            }
            if reach.is_empty() || !chunks(&reach).contains(&chunk) {
                contexts.write_bytes(0, rows * plan.columns);
                return;
            }
            let keys = aligned(chunk, &reach);
            let (mut nonzero, mut pairs) = (0, 0);
            for i in 0..rows {
                let state = *self.row_state(part, i);
                let s = self.scores_of(&g, part, i, state.sum_of_q);
                let own = plan.reach(&g, s.row, state.state);
                // What this row does not reach, others may.
                plan.clear_around(&s, &own, keys.clone());
                let weighed = plan.weigh(&s, state.total, keys.clone());
                (*self.chunk_state(&g, part, i, chunk)).weights = weighed.sum;
                nonzero += weighed.nonzero;
                pairs += match state.state {
                    State::Uniform => keys.len(),
                    _ => segments(plan.job, s.row, keys.clone()).map(|keys| keys.len()).sum(),
                };
            }
            let list = plan.lists(nonzero, rows * keys.len());
            let zeros = if plan.job.clipped.is_some() { pairs.saturating_sub(nonzero) } else { 0 };
            plan.counts.add(pairs as u64, zeros as u64, if list { zeros as u64 } else { 0 });
            let weights = self.shared.at::<u8>(part.scores, 0);
            if !list {
                let (v, v_stride) = self.v(&g, keys.clone(), room.v);
                let weights = (weights, stride(g.kv_len), rows);
                plan.multiply_v(weights, keys.clone(), (v, v_stride), contexts.cast());
            }
            let mut places = List::new();
            for i in 0..rows {
                let out = contexts.add(i * plan.columns);
                let row = std::slice::from_raw_parts_mut(out.cast(), 4 * plan.columns);
                if list || plan.mode == Mode::F32 && !plan.finite(row) {
                    let weights = weights.add(i * stride(g.kv_len));
                    if plan.reads_v_directly() {
                        let v = (plan.v.at(g.kv + keys.start, g.kv_head), plan.v.stride());
                        plan.gather_v(weights, keys.clone(), v, &mut places, out);
                    } else {
                        plan.gather_rows(&g, weights, keys.clone(), room.v, &mut places, out);
                    }
                }
            }
        }
    }

    /// Rows of v as tiles take them.
    fn v(&self, g: &Group, keys: Range<usize>, memory: &mut [u8]) -> (*const u8, usize) {
        let plan = self.plan;
        if plan.reads_v_directly() {
            return (plan.v.at(g.kv + keys.start, g.kv_head), plan.v.stride());
        }
        plan.pack_v(g, keys, memory);
        (memory.as_ptr(), 4 * plan.columns)
    }

    /// # Safety
    /// Phase 4: nobody else has this part.
    unsafe fn finish(&self, part: usize, room: &mut Room<'_>) {
        let (plan, part) = (self.plan, &self.parts[part]);
        let g = plan.group(part.b, part.index);
        let columns = plan.columns;
        for i in 0..g.rows() {
            room.total.fill(0);
            let mut weights = 0;
            for chunk in 0..g.kv_len.div_ceil(CHUNK) {
                // SAFETY: phase 3 is over; a row of context is there.
                unsafe {
                    weights += i64::from((*self.chunk_state(&g, part, i, chunk)).weights);
                    let sums = self.contexts(&g, part, chunk).add(i * columns);
                    plan.accumulate(std::slice::from_raw_parts_mut(sums.cast(), 4 * columns), room.total);
                }
            }
            plan.finish_row(&g, g.row(plan.job, i), room.total, weights, room.row);
        }
    }
}

impl Plan<'_> {
    /// Whether rows of v are what tiles take.
    fn reads_v_directly(&self) -> bool {
        self.mode == Mode::F32 && self.v.kind() == Kind::F32 && self.job.head_dim == self.columns
    }
}
