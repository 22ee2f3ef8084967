//! Many queries: tiles of rows with the scores of all their keys.

use super::rows::{State, aligned};
use super::weights::Share;
use super::{Group, Lost, Mode, NO_KEYS, Plan, Row, chunks, extend, segments};
use crate::base::buffer::{as_f32, as_i32};
use crate::base::scratch::Scratch;
use crate::driver::share;
use crate::driver::tensor::Prefetch;
use crate::driver::workers::{Workers, carve, carved, grow};
use crate::kernels::attention::finish::Part;
use crate::kernels::attention::gather::List;
use crate::kernels::attention::softmax::Scores;
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use std::ops::Range;

/// Most rows of a tile.
const MOST_ROWS: usize = 48;
/// Rows that are worth to bring all of k and v through the caches for, if scores of many keys leave the second level.
const LEAST_ROWS: usize = 24;
/// Bytes of scores that stay in the second-level cache while they become weights and context.
const SCORES_BYTES: usize = 192 << 10;
/// A first-level cache that holds scores of enough rows beside a panel of k of floats. There scores become weights in it, where all of
/// k and v is a small part of the second-level cache, from which each tile reads them again.
const LARGE_L1D: usize = 48 << 10;
/// A panel of k of floats of 64 features.
const PANEL_BYTES: usize = 16 << 10;
/// Rows that are worth to bring k and v into the first-level cache for.
const NEAR_ROWS: usize = 12;
/// How many rows ahead is prefetched.
const ROWS_AHEAD: usize = 12;
/// Rows for which packing k and v once more costs little.
const ROWS_WORTH_PACKING: usize = 96;

/// A worker's memory.
struct Workspace<'a> {
    k: &'a mut [u8],
    init: &'a mut [i32],
    v: &'a mut [u8],
    stage: &'a mut [u8],
    q: &'a mut [u8],
    scores: &'a mut [u8],
    /// Bytes of a row of scores.
    stride: usize,
    /// Of a chunk.
    sums: &'a mut [u8],
    /// Of all chunks.
    total: &'a mut [u8],
    /// Rows of v that weigh anything, of a chunk.
    sparse_v: &'a mut [u8],
    rows: Rows,
}

/// What is known of the rows of a tile.
struct Rows {
    own: [Row; MOST_ROWS],
    known: [Scores; MOST_ROWS],
    states: [State; MOST_ROWS],
    most: [[f32; LANES]; MOST_ROWS],
    shares: [Share; MOST_ROWS],
    parts: [Part; MOST_ROWS],
    /// Of all chunks, the sums of weights before and after they were rounded.
    sums: [(f32, f32); MOST_ROWS],
    /// And the weights that are not 0.
    nonzero: [usize; MOST_ROWS],
}

impl Rows {
    const NONE: Rows = Rows {
        own: [Row { token: 0, head: 0, first: 0, last: 0 }; MOST_ROWS],
        known: [Scores::NONE; MOST_ROWS],
        states: [State::Nothing; MOST_ROWS],
        most: [[f32::NEG_INFINITY; LANES]; MOST_ROWS],
        shares: [Share::NOTHING; MOST_ROWS],
        parts: [Part { scale: 0.0, offset: 0 }; MOST_ROWS],
        sums: [(0.0, 0.0); MOST_ROWS],
        nonzero: [0; MOST_ROWS],
    };
}

/// Bytes of the parts of a worker's memory, in the order of [`Workspace`].
fn extents(plan: &Plan<'_>, kv_len: usize, rows: usize) -> [usize; 9] {
    let (panels, sums) = (kv_len.div_ceil(PANEL), rows * plan.columns * 4);
    let sparse_v = if plan.mode == Mode::Bytes { 0 } else { plan.v_bytes(CHUNK) };
    [
        panels * plan.panel_bytes,
        panels * PANEL * 4,
        plan.v_bytes(kv_len),
        plan.stage_bytes(),
        rows * plan.q_row,
        rows * stride(kv_len),
        sums,
        sums,
        sparse_v,
    ]
}

impl<'a> Workspace<'a> {
    fn new(bytes: &'a mut [u8], extents: [usize; 9], stride: usize) -> Self {
        let [k, init, v, stage, q, scores, sums, total, sparse_v] = carve(bytes, extents);
        Workspace {
            k,
            init: as_i32(init),
            v,
            stage,
            q,
            scores,
            stride,
            sums,
            total,
            sparse_v,
            rows: Rows::NONE,
        }
    }
}

/// Bytes of a row of scores: whole groups beyond the last panel, an odd number of cache lines apart.
fn stride(kv_len: usize) -> usize {
    4 * kv_len.next_multiple_of(2 * PANEL) + 64
}

/// Rows of a tile, a multiple of what its kernels take.
fn rows_of_tile(plan: &Plan<'_>, kv_len: usize, high: usize) -> usize {
    let core = plan.ctx.core();
    let held = kv_len.div_ceil(PANEL) * plan.panel_bytes + plan.v_bytes(kv_len);
    // Tiles of fewer columns go through k and v several times. One chunk of bytes is multiplied so fast that what each tile begins and
    // ends with would cost more than the passes gain.
    let long = plan.multiply.widths[0].columns >= PANEL && (plan.mode != Mode::Bytes || kv_len > CHUNK);
    let (bytes, least) = if long && core.l1d >= LARGE_L1D && held <= core.l2 / 4 {
        (core.l1d - PANEL_BYTES, NEAR_ROWS)
    } else {
        (SCORES_BYTES, LEAST_ROWS)
    };
    (bytes / stride(kv_len)).clamp(least.next_multiple_of(high), MOST_ROWS) / high * high
}

/// The most keys that are packed for so few rows, because that costs less than it gains: bytes are a quarter of what floats are.
fn most_worth_packing(rows: usize, mode: Mode) -> usize {
    let keys_a_row = if mode == Mode::Bytes { 128 } else { 8 };
    if rows > 1 { (rows * keys_a_row).min(CHUNK) } else { 0 }
}

/// Whether some keys, if there are any, are to be packed for so few rows.
pub fn is_worth_packing(rows: usize, kv_len: usize, mode: Mode) -> bool {
    (1..=most_worth_packing(rows, mode)).contains(&kv_len)
}

/// Takes the memory that calls with fewer keys will need, after one that went through so many as they lie. If there is not so much,
/// they will say so themselves.
pub fn reserve(plan: &Plan<'_>, rows: usize, kv_len: usize, scratch: &mut Scratch) {
    let kv_len = kv_len.min(most_worth_packing(rows, plan.mode));
    let high = plan.multiply.rows();
    let tile = rows_of_tile(plan, kv_len, high).min(rows.next_multiple_of(high));
    let [memory] = scratch.slots();
    let _ = kv_len == 0 || grow(memory, plan.ctx.threads(), carved(extents(plan, kv_len, tile)));
}

/// All sequences, heads and rows, by as many workers as there are threads; nothing if there is not so much memory.
pub fn run(plan: &Plan<'_>, rows: usize, scratch: &mut Scratch) -> Option<()> {
    let (_, kv_len) = plan.problem.call.sequences.longest();
    let threads = plan.ctx.threads();
    let groups = plan.problem.call.sequences.count() * plan.groups();
    let parts = match threads {
        1 => 1,
        threads => threads.saturating_mul(4).div_ceil(groups.max(1)).min(rows / ROWS_WORTH_PACKING).max(1),
    };
    let units = groups * parts;
    let high = plan.multiply.rows();
    let tile = rows_of_tile(plan, kv_len, high);
    let tile = tile.min(rows.next_multiple_of(high));
    let extents = extents(plan, kv_len, tile);
    let [memory] = scratch.slots();
    Workers::new(plan.ctx, threads.min(units), carved(extents), memory)?.share_out(units, &|bytes, units| {
        let mut room = Workspace::new(bytes, extents, stride(kv_len));
        for unit in units {
            let group = plan.group(unit / parts / plan.groups(), unit / parts % plan.groups());
            let rows = share(group.rows(), parts, unit % parts);
            unit_of_rows(plan, &group, rows, tile, &mut room);
        }
    });
    Some(())
}

/// Packs what some rows of one group need, and goes through them tile by tile.
fn unit_of_rows(plan: &Plan<'_>, g: &Group, rows: Range<usize>, tile: usize, room: &mut Workspace<'_>) {
    if rows.is_empty() {
        return;
    }
    let mut keys = NO_KEYS;
    let different = if plan.rows_are_alike() { 1 } else { rows.len() };
    for row in g.rows_from(plan.problem.layer, rows.start).take(different) {
        // Only its scores tell whether a row is empty.
        let reach = if plan.problem.layer.uniform { 0..g.kv_len } else { row.first..row.last };
        extend(&mut keys, reach);
    }
    let keys = if keys.is_empty() { 0..0 } else { keys.start / PANEL * PANEL..keys.end };
    for panel in keys.start / PANEL..keys.end.div_ceil(PANEL) {
        let to = panel * PANEL..((panel + 1) * PANEL).min(g.kv_len);
        let bytes = &mut room.k[panel * plan.panel_bytes..][..plan.panel_bytes];
        for key in to.end..(to.end + PANEL).min(keys.end) {
            plan.problem.k.prefetch(g.kv + key, g.kv_head);
        }
        plan.pack_k(g, to, bytes, &mut room.init[panel * PANEL..], room.stage, Prefetch::NOTHING);
    }
    for row in g.rows_from(plan.problem.layer, rows.start).take(rows.len().min(tile)) {
        plan.problem.q.prefetch(g.q + row.token, row.head);
    }
    let ahead = plan.problem.v.ahead_of(g.kv + keys.start + ROWS_AHEAD, g.kv_head);
    plan.pack_v(g, keys.clone(), &mut room.v[plan.v_bytes(keys.start)..], ahead);
    let tiles = rows.len().div_ceil(tile);
    for i in 0..tiles {
        // Whole tiles of the kernel but for the last.
        let high = plan.multiply.rows();
        let own = share(rows.len().div_ceil(high), tiles, i);
        let own = own.start * high..(own.end * high).min(rows.len());
        // SAFETY: all keys that these rows can reach are packed.
        unsafe { tile_of_rows(plan, g, rows.start + own.start..rows.start + own.end, room) };
    }
}

/// # Safety
/// The keys that the rows can reach are packed; the room has extents for the rows.
unsafe fn tile_of_rows(plan: &Plan<'_>, g: &Group, rows: Range<usize>, room: &mut Workspace<'_>) {
    let n = rows.len();
    let (scores, stride) = (room.scores.as_mut_ptr(), room.stride);
    let Rows { own, known, states, most, shares, parts, sums, nonzero } = &mut room.rows;
    let (own, known, states, most) = (&mut own[..n], &mut known[..n], &mut states[..n], &mut most[..n]);
    let (shares, parts, sums, nonzero) =
        (&mut shares[..n], &mut parts[..n], &mut sums[..n], &mut nonzero[..n]);
    let layer = plan.problem.layer;
    // Keys that some row attends to, and keys that all rows do.
    let (mut keys, mut common) = (NO_KEYS, 0..g.live);
    let (in_place, one_head) = (plan.q_in_place(g, &rows), rows.start / g.q_len == (rows.end - 1) / g.q_len);
    // Rows that differ in nothing but their token are set up at once.
    let alike = plan.rows_are_alike() && plan.scores_are_alike() && one_head && in_place.is_some();
    if alike {
        let first = g.row(layer, rows.start);
        plan.problem.q.prefetch_rows(g.q + first.token + n, n, first.head);
        plan.out.prefetch_rows(g.q + first.token, n, first.head);
        extend(&mut keys, first.first..first.last);
        common = common.start.max(first.first)..common.end.min(first.last);
        let all = plan.scores(g, first, scores, 0);
        for i in 0..n {
            own[i] = Row { token: first.token + i, ..first };
            known[i] = Scores { p: scores.wrapping_add(i * stride), ..all };
        }
    }
    for (i, row) in g.rows_from(layer, rows.start).take(if alike { 0 } else { n }).enumerate() {
        let mut sum = 0;
        if in_place.is_none() {
            plan.problem.q.prefetch(g.q + row.token + ROWS_AHEAD, row.head);
            sum = plan.pack_q(g.q + row.token, row.head, &mut room.q[i * plan.q_row..][..plan.q_row]);
        } else {
            // The rows of the next tile.
            plan.problem.q.prefetch(g.q + row.token + n, row.head);
        }
        plan.out.prefetch(g.q + row.token, row.head);
        extend(&mut keys, row.first..row.last);
        common = common.start.max(row.first)..common.end.min(row.last);
        own[i] = row;
        known[i] = plan.scores(g, row, scores.wrapping_add(i * stride), sum);
    }
    let q = in_place.unwrap_or((room.q.as_ptr(), plan.q_row));

    // SAFETY: the room has a row of scores for each row, as long as all panels; q as it lies has all rows, of one head.
    unsafe {
        let panels = if keys.is_empty() { 0..0 } else { keys.start / PANEL..keys.end.div_ceil(PANEL) };
        // Of panels whose keys all rows attend to, tiles find the largest scores.
        let whole = if plan.finds_most() { common.start.div_ceil(PANEL)..common.end / PANEL } else { 0..0 };
        if !whole.is_empty() {
            most.fill([f32::NEG_INFINITY; LANES]);
        }
        for panel in panels {
            let keys = panel * PANEL..((panel + 1) * PANEL).min(g.kv_len);
            if plan.problem.call.block_mask.is_some() && !own.iter().any(|row| attends(plan, *row, &keys)) {
                continue;
            }
            plan.multiply_panel(
                q,
                n,
                (room.k[panel * plan.panel_bytes..].as_ptr(), room.init[panel * PANEL..].as_ptr()),
                keys.len(),
                (scores.add(4 * keys.start), stride),
                if whole.contains(&panel) { most.as_mut_ptr().cast() } else { std::ptr::null_mut() },
            );
        }

        // A pass over all rows before the next: the end of a row, a chain of its own, is hidden behind the rows that follow.
        if whole.is_empty() {
            plan.maximum(g, own, known, &(0..g.kv_len));
        } else {
            for (s, most) in known.iter_mut().zip(&*most) {
                s.most = largest(most);
            }
            for rest in [0..PANEL * whole.start, PANEL * whole.end..g.kv_len] {
                if !rest.is_empty() {
                    plan.maximum(g, own, known, &rest);
                }
            }
        }
        let (mut reach, all) = (keys, known.iter().all(|s| s.most > f32::NEG_INFINITY));
        if !all {
            reach = NO_KEYS;
            for i in 0..n {
                states[i] = plan.state(own[i], &known[i]);
                extend(&mut reach, plan.reach(g, own[i], states[i]));
            }
        }
        let states = if all { &mut [] } else { states };
        let state = |i: usize| if all { State::Maximum(0.0) } else { states[i] };
        let reach = if reach.is_empty() { 0..0 } else { reach };
        let alone = chunks(&reach).len() <= 1;
        let weighs_at_once = alone && all && plan.weighs_at_once();
        for chunk in if weighs_at_once { 0..0 } else { chunks(&reach) } {
            plan.exponentials(own, states, known, &aligned(chunk, &reach));
        }
        let row_bytes = 4 * plan.columns;
        let clips = layer.clipped.is_some();
        if clips {
            nonzero.fill(0);
        }
        let (mut all_listed, mut skipped) = (true, 0);
        let at_once = one_head && plan.ends_at_once() && !reach.is_empty();
        // Exact sums are of use only times their scale.
        let onto = reach.is_empty() || plan.mode == Mode::Bytes && !(alone && at_once);
        if onto {
            room.total[..n * row_bytes].fill(0);
        }
        sums.fill((0.0, 0.0));
        for chunk in chunks(&reach) {
            let keys = aligned(chunk, &reach);
            if weighs_at_once {
                plan.weigh_at_once(g, known, &keys, shares);
            } else {
                plan.weigh(g, known, &keys, alone, shares);
            }
            let mut here = 0;
            if plan.mode == Mode::Bytes {
                for (sum, share) in sums.iter_mut().zip(&*shares) {
                    *sum = (sum.0 + share.exact, sum.1 + share.rounded);
                }
            }
            for i in 0..if clips { n } else { 0 } {
                nonzero[i] += known[i].nonzero as usize;
                here += known[i].nonzero as usize;
            }
            let list = plan.worth_listing(here, n, keys.len());
            all_listed &= list;
            for i in 0..if list && !alone { n } else { 0 } {
                let pairs = plan.pairs(own[i], state(i), keys.clone());
                skipped += plan.zeros(pairs, known[i].nonzero as usize);
            }
            let v = (room.v[plan.v_bytes(keys.start)..].as_ptr(), row_bytes);
            let weights = (scores, stride, n);
            let first = chunk == chunks(&reach).start && !onto;
            let out = if first { room.total.as_mut_ptr() } else { room.sums.as_mut_ptr() };
            if list {
                plan.gather_rows(weights, &keys, v, out);
            } else {
                plan.multiply_v(weights, keys, v, out, (false, Prefetch::NOTHING));
            }
            if !first {
                plan.accumulate(&mut room.sums[..n * row_bytes], room.total, shares);
            }
        }
        let (mut pairs, mut zeros, mut lost) = (0, 0, Lost::default());
        if alike && all && !clips && plan.problem.call.block_mask.is_none() {
            pairs = n * plan.pairs(own[0], state(0), 0..g.kv_len);
        } else {
            for i in 0..n {
                let all = plan.pairs(own[i], state(i), 0..g.kv_len);
                pairs += all;
                zeros += plan.zeros(all, nonzero[i]);
            }
        }
        if plan.mode == Mode::Bytes {
            sums.iter().for_each(|sums| lost.count(sums.0, sums.1));
            parts.iter_mut().zip(&*shares).for_each(|(part, share)| *part = share.part);
        }
        // The rows are of this tile alone.
        let done = at_once && !onto && plan.finish_rows(g, (own[0], n), room.total, parts);
        for i in 0..if done { 0 } else { n } {
            let row = room.rows.own[i];
            let total = i * row_bytes..(i + 1) * row_bytes;
            // Perhaps 0 times infinity: but a key that weighs nothing is not read.
            if !plan.finite(&mut room.total[total.clone()]) {
                gather_row(plan, g, i, &reach, total.clone(), room);
            }
            plan.finish(g, row, as_f32(&mut room.total[total]));
        }
        plan.counts.add(pairs, zeros, if all_listed { zeros } else { skipped });
        plan.counts.lose(lost);
    }
}

/// The largest of a row's lanes, none of which is NaN.
#[inline(always)]
fn largest(lanes: &[f32; LANES]) -> f32 {
    let (mut lanes, mut width) = (*lanes, LANES);
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
    }
    // The maximum of 0 and -0 may be either; the addition makes it 0.
    lanes[0] + 0.0
}

/// Whether a row attends to any of the keys.
fn attends(plan: &Plan<'_>, row: Row, keys: &Range<usize>) -> bool {
    segments(plan.problem.call, row, keys.clone()).next().is_some()
}

/// Sums of row i over the keys that weigh anything, to `total` of `room.total`; of v packed for this row alone.
///
/// # Safety
/// Its weights are there.
unsafe fn gather_row(
    plan: &Plan<'_>,
    g: &Group,
    i: usize,
    reach: &Range<usize>,
    total: Range<usize>,
    room: &mut Workspace<'_>,
) {
    let (columns, mut list) = (plan.columns, List::default());
    let total = &mut room.total[total];
    for chunk in chunks(reach) {
        let first = chunk == chunks(reach).start;
        let keys = aligned(chunk, reach);
        let weights = room.scores[i * room.stride..].as_mut_ptr();
        let sums = if first { total.as_mut_ptr() } else { room.sums.as_mut_ptr() };
        // SAFETY: as the caller.
        unsafe { plan.pack_and_gather_v(g, weights, &keys, room.sparse_v, &mut list, sums) };
        if !first {
            plan.accumulate(&mut room.sums[..4 * columns], total, &[]);
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(PANEL) && PANEL.is_multiple_of(LANES));
