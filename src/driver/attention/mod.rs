//! Attention: which queries are multiplied with which keys, in what order, on which thread.
//!
//! Scores of a row are kept until its weights are known: a clip needs the final sum, so there is no online softmax. Many
//! queries go in tiles of rows with all their keys (`whole`); few queries are split along the keys (`split`). Both take
//! sums over the same chunks of keys, and give the same bits.

mod finish;
mod operands;
mod problem;
mod rows;
mod split;
mod weights;
mod whole;

use problem::Lost;
pub use problem::{AttentionQuantizers, AttentionStats, Call, Layer, Problem};

use super::tensor::SharedTensor;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::tensor::{HeadParams, TensorMut};
use crate::kernels::attention::table::Multiply;
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use crate::kernels::table::Tier;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// f32; anything else is widened.
    F32,
    /// bfloat16.
    Pairs,
    /// u8 (q and weights) by i8 (k and v).
    Bytes,
}

/// What the tier adds to a problem.
struct Plan<'a> {
    problem: &'a Problem<'a>,
    out: SharedTensor<'a>,
    ctx: &'a Ctx,
    tier: &'static Tier,
    multiply: &'static Multiply,
    mode: Mode,
    /// Whether sums of bytes begin with [`FLOAT`], so that scores are floats as they are.
    floating: bool,
    /// Steps of 4 bytes in a head of q or k.
    words: usize,
    /// Bytes of a row of q.
    q_row: usize,
    /// Bytes of a packed panel of k.
    panel_bytes: usize,
    /// Columns of a row of v, padded.
    columns: usize,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    pairs: AtomicU64,
    zeros: AtomicU64,
    skipped: AtomicU64,
    rows: AtomicU64,
    lost: AtomicU64,
    most_lost: AtomicU64,
}

impl Counts {
    fn lose(&self, lost: Lost) {
        if lost.rows > 0 {
            self.rows.fetch_add(lost.rows, Ordering::Relaxed);
            self.lost.fetch_add(lost.sum, Ordering::Relaxed);
            self.most_lost.fetch_max(lost.most, Ordering::Relaxed);
        }
    }

    fn add(&self, pairs: usize, zeros: usize, skipped: usize) {
        self.pairs.fetch_add(pairs as u64, Ordering::Relaxed);
        self.zeros.fetch_add(zeros as u64, Ordering::Relaxed);
        self.skipped.fetch_add(skipped as u64, Ordering::Relaxed);
    }
}

/// A sequence with one head of k and v, and the heads of q that attend to it.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// The sequence.
    b: usize,
    /// The head of k and v.
    kv_head: usize,
    /// The first token of q, and how many.
    q: usize,
    q_len: usize,
    /// The first token of k, and how many.
    kv: usize,
    kv_len: usize,
    /// How many keys are there.
    live: usize,
    /// The position of query 0.
    position: isize,
    /// The first head of q, and how many.
    head: usize,
    heads: usize,
    /// What raw scores are multiplied by, beside what tokens have.
    scale: f32,
    /// What sums with v are multiplied by, beside what tokens have.
    v_scale: f32,
    /// Of bytes, made unsigned or signed as they are multiplied.
    zeros: Zeros,
}

/// Zero points of q and k: of all heads of a group the same.
#[derive(Debug, Clone, Copy)]
struct Zeros {
    q: i32,
    k: i32,
}

/// One query of one head: a row of scores.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Inside the sequence.
    token: usize,
    head: usize,
    /// The first key, and the one behind the last, before the block mask.
    first: usize,
    last: usize,
}

/// The bits of 1.5 * 2^23. An integer below 2^22 added to them gives the bits of the float that is as much more; differences
/// between such floats are exact, and what is added to all scores of a row is no matter.
const FLOAT: i32 = 12_582_912f32.to_bits() as i32;

impl Plan<'_> {
    /// Whether scores of bytes can be floats as they leave their sums: none is too large, and nothing but differences is asked for.
    fn fits_floats(&self) -> bool {
        // q less its zero point, and k.
        let most = 255 * if self.multiply.columns == Element::I8 { 128 } else { 255 };
        self.mode == Mode::Bytes && !self.prepared() && self.problem.layer.head_dim * most < 1 << 22
    }

    /// Whether each head of q goes alone, as where heads have zero points of their own.
    fn by_head(&self) -> bool {
        matches!((self.mode, self.problem.q.params()), (Mode::Bytes, Some(HeadParams::PerHead(_))))
    }

    /// Heads of q of a group.
    fn heads_of_group(&self) -> usize {
        self.problem.layer.num_heads / self.groups()
    }

    /// Groups of a sequence.
    fn groups(&self) -> usize {
        let layer = self.problem.layer;
        if self.by_head() { layer.num_heads } else { layer.num_kv_heads }
    }

    /// Whether all rows of a sequence attend to the same keys, but for what a block mask leaves out.
    fn rows_are_alike(&self) -> bool {
        !self.problem.layer.causal && self.problem.layer.window.is_none()
    }

    /// One of them.
    fn group(&self, b: usize, index: usize) -> Group {
        let Problem { layer, call, q: x, k, v } = *self.problem;
        let ratio = layer.num_heads / layer.num_kv_heads;
        let (kv_head, head, heads) =
            if self.by_head() { (index / ratio, index, 1) } else { (index, index * ratio, ratio) };
        let (q, q_end) = call.sequences.queries(b);
        let (kv, kv_end) = call.sequences.keys(b);
        let (q_len, kv_len) = (q_end - q, kv_end - kv);
        let columns = self.multiply.columns;
        let zeros = Zeros { q: x.zero(head, Element::U8), k: k.zero(kv_head, columns) };
        Group {
            b,
            kv_head,
            q,
            q_len,
            kv,
            kv_len,
            live: call.key_lengths.map_or(kv_len, |lengths| lengths[b]),
            v_scale: v.affine(kv_head).0,
            position: match call.positions {
                Some(positions) => positions[b] as isize,
                None => kv_len as isize - q_len as isize,
            },
            head,
            heads,
            scale: layer.scale * x.affine(head).0 * k.affine(kv_head).0,
            zeros,
        }
    }
}

impl Group {
    fn rows(&self) -> usize {
        self.heads * self.q_len
    }

    fn row(&self, layer: &Layer, row: usize) -> Row {
        self.row_of(layer, row % self.q_len, self.head + row / self.q_len)
    }

    /// Some rows, in order.
    fn rows_from(&self, layer: &Layer, row: usize) -> impl Iterator<Item = Row> {
        let (mut token, mut head) = (row % self.q_len, self.head + row / self.q_len);
        std::iter::from_fn(move || {
            let row = self.row_of(layer, token, head);
            token += 1;
            if token == self.q_len {
                (token, head) = (0, head + 1);
            }
            Some(row)
        })
    }

    fn row_of(&self, layer: &Layer, token: usize, head: usize) -> Row {
        let position = self.position + token as isize;
        let (mut first, mut last) = (0, self.live as isize);
        if layer.causal {
            last = last.min(position + 1);
        }
        if let Some((left, right)) = layer.window {
            let bound = |n: usize| n.min(isize::MAX as usize / 2) as isize;
            first = (position - bound(left)).max(0);
            last = last.min(position.saturating_add(bound(right)).saturating_add(1));
        }
        let last = last.max(0) as usize;
        Row { token, head, first: (first as usize).min(last), last }
    }
}

/// The parts of `range` that a row attends to, in order.
fn segments(call: &Call<'_>, row: Row, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (mut at, end) = (range.start.max(row.first), range.end.min(row.last));
    let mask =
        call.block_mask.map(|mask| (mask, &mask.live[row.token / mask.block_q * mask.cols..][..mask.cols]));
    std::iter::from_fn(move || {
        let Some((mask, live)) = mask else {
            let all = at..end;
            at = end;
            return (!all.is_empty()).then_some(all);
        };
        while at < end && !live[at / mask.block_k] {
            at = (at / mask.block_k + 1) * mask.block_k;
        }
        let first = at;
        while at < end && live[at / mask.block_k] {
            at = ((at / mask.block_k + 1) * mask.block_k).min(end);
        }
        (first < at).then_some(first..at)
    })
}

impl Plan<'_> {
    /// Whether v has as many keys to a step.
    fn keys_per_word(&self) -> usize {
        match self.mode {
            Mode::F32 => 1,
            Mode::Pairs => 2,
            Mode::Bytes => 4,
        }
    }

    /// Bytes of a packed v of so many keys.
    fn v_bytes(&self, keys: usize) -> usize {
        keys.div_ceil(self.keys_per_word()) * 4 * self.columns
    }

    /// Bytes of a key's rows in memory on the way to panels.
    fn stage_bytes(&self) -> usize {
        PANEL * 4 * self.problem.layer.head_dim.next_multiple_of(16)
    }
}

/// The context of all queries.
///
/// # Errors
/// [`Error::Shape`] if there is not so much memory. Nothing was written then.
pub fn attention(
    problem: &Problem<'_>,
    out: TensorMut<'_>,
    ctx: &Ctx,
    scratch: &mut Scratch,
) -> Result<AttentionStats> {
    let (tier, Problem { layer, call, q, k, v }) = (Tier::of(ctx.target()), *problem);
    let mode = match ([q, k, v].map(|x| x.element()), tier.multiply_pairs) {
        ([Element::U8 | Element::I8, ..], _) => Mode::Bytes,
        ([Element::Bf16, Element::Bf16, Element::Bf16], Some(_)) => Mode::Pairs,
        _ => Mode::F32,
    };
    let (q_len, kv_len) = call.sequences.longest();
    if q_len == 0 {
        return Ok(AttentionStats::default());
    }
    let d = layer.head_dim;
    let words = match mode {
        Mode::F32 => d,
        Mode::Pairs => d.div_ceil(2),
        Mode::Bytes => d.div_ceil(4),
    };
    let mut plan = Plan {
        problem,
        out: SharedTensor::new(out),
        ctx,
        tier,
        multiply: match (mode, tier.multiply_pairs) {
            (Mode::Bytes, _) => tier.multiply,
            (Mode::Pairs, Some(pairs)) => pairs,
            _ => tier.float.multiply,
        },
        mode,
        floating: false,
        words,
        q_row: 4 * words.next_multiple_of(LANES),
        panel_bytes: 4 * PANEL * words.next_multiple_of(4),
        columns: d.next_multiple_of(LANES),
        counts: Counts::default(),
    };
    let rows = q_len * plan.heads_of_group();
    let few = rows <= split::MOST_ROWS && !whole::is_worth_packing(rows, kv_len, mode);
    plan.floating = !few && plan.fits_floats();
    let run = if few { split::run } else { whole::run };
    // The only error is that there is not so much memory, which is found out before anything is written.
    run(&plan, rows, scratch).ok_or_else(|| {
        Error::shape("k", "as many keys as there is memory for", format_args!("{kv_len} keys"))
    })?;
    // Smaller calls may go the other way.
    if few {
        whole::reserve(&plan, rows, kv_len, scratch);
    } else {
        split::reserve(&plan, scratch);
    }
    let c = &plan.counts;
    let [pairs, zeros, skipped, rows, sum, most] =
        [&c.pairs, &c.zeros, &c.skipped, &c.rows, &c.lost, &c.most_lost].map(|n| n.load(Ordering::Relaxed));
    Ok(AttentionStats { pairs, zeros, skipped, lost: Lost { rows, sum, most } })
}

/// The chunks that hold some of the keys, by their numbers.
fn chunks(keys: &Range<usize>) -> Range<usize> {
    if keys.is_empty() { 0..0 } else { keys.start / CHUNK..keys.end.div_ceil(CHUNK) }
}

/// The keys of a chunk among some.
fn keys_of(chunk: usize, keys: &Range<usize>) -> Range<usize> {
    let start = (chunk * CHUNK).max(keys.start);
    start..((chunk + 1) * CHUNK).min(keys.end).max(start)
}

/// No keys, before [`extend`].
const NO_KEYS: Range<usize> = Range { start: usize::MAX, end: 0 };

/// Makes a range hold another one too, unless that is empty.
fn extend(keys: &mut Range<usize>, other: Range<usize>) {
    if !other.is_empty() {
        *keys = keys.start.min(other.start)..keys.end.max(other.end);
    }
}
