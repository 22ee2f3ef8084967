//! Attention: which queries meet which keys, in what order, on which thread.
//!
//! Scores of a row are kept until its weights are known: a clip needs the final sum, so there is no online softmax. Many
//! queries go in tiles of rows with all their keys (`whole`); few queries are split along the keys (`split`). Both take
//! sums over the same chunks of keys, and give the same bits.

mod finish;
pub mod operands;
mod rows;
mod split;
mod whole;

use super::share;
use crate::attention::{Bias, BlockMask, HeadParams, Input, Int8, Output, Sequences, Skipped};
use crate::base::buffer::Buffer;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::view::MatRef;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::table::{Multiply, Passes};
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use crate::kernels::table::Tier;
use finish::Target;
use operands::Operand;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One call: all of it checked.
pub struct Job<'a> {
    /// Heads of q.
    pub num_heads: usize,
    /// Heads of k and v: a divisor.
    pub num_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Of the scores.
    pub scale: f32,
    /// gamma and zeta.
    pub clipped: Option<(f32, f32)>,
    /// No key behind the query's own position.
    pub causal: bool,
    /// Keys to the left and right of it.
    pub window: Option<(usize, usize)>,
    /// Whether rows without keys are uniform.
    pub uniform: bool,
    /// `[tokens, num_heads, head_dim]`.
    pub q: Input<'a>,
    /// `[tokens, num_kv_heads, head_dim]`.
    pub k: Input<'a>,
    /// As k.
    pub v: Input<'a>,
    /// What belongs together.
    pub sequences: Sequences<'a>,
    /// Of each sequence.
    pub key_lengths: Option<&'a [usize]>,
    /// Of each sequence.
    pub positions: Option<&'a [usize]>,
    /// Onto the scores.
    pub bias: Option<Bias<'a>>,
    /// Which tiles are there.
    pub block_mask: Option<BlockMask<'a>>,
    /// Onto the context.
    pub gates: Option<MatRef<'a, f32>>,
    /// Quantizers.
    pub int8: Int8,
}

/// Memory of a call.
#[derive(Debug, Default)]
pub struct Memory {
    /// Each thread's.
    pub workers: Buffer,
    /// Scores of few queries, and what follows from them.
    pub scores: Buffer,
    split: Vec<split::Part>,
}

impl Memory {
    /// Bytes held.
    pub fn capacity(&self) -> usize {
        self.workers.len() + self.scores.len() + self.split.capacity() * size_of::<split::Part>()
    }
}

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

/// Keys whose sums of 255 times 255 fit 32 bits.
const MOST_NARROW: usize = (i32::MAX / (255 * 255)) as usize;

/// A call, as the tier sees it.
struct Plan<'a> {
    job: &'a Job<'a>,
    tier: &'static Tier,
    passes: &'static Passes,
    multiply: &'static Multiply,
    mode: Mode,
    q: Operand<'a>,
    k: Operand<'a>,
    v: Operand<'a>,
    out: Target,
    ctx: &'a Ctx,
    /// Steps of 4 bytes in a head of q or k.
    words: usize,
    /// Bytes of a row of q.
    q_row: usize,
    /// Bytes of a packed panel of k.
    panel_bytes: usize,
    /// Columns of a row of v, padded.
    columns: usize,
    /// Whether sums of bytes do not fit 32 bits.
    wide: bool,
    /// Whether each head of q goes alone, as where heads have zero points of their own.
    by_head: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    pairs: AtomicU64,
    zeros: AtomicU64,
    skipped: AtomicU64,
}

impl Counts {
    fn add(&self, pairs: usize, zeros: usize, skipped: bool) {
        self.pairs.fetch_add(pairs as u64, Ordering::Relaxed);
        self.zeros.fetch_add(zeros as u64, Ordering::Relaxed);
        self.skipped.fetch_add(if skipped { zeros as u64 } else { 0 }, Ordering::Relaxed);
    }
}

/// A sequence with one head of k and v, and the heads of q that meet it.
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
    /// What raw scores are multiplied by.
    scale: f32,
    /// Of bytes, made unsigned or signed as they are multiplied.
    zeros: Zeros,
}

/// Zero points: of all heads of a group the same.
#[derive(Debug, Clone, Copy)]
struct Zeros {
    q: i32,
    k: i32,
    v: i32,
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

impl Plan<'_> {
    /// Groups of a sequence.
    fn groups(&self) -> usize {
        if self.by_head { self.job.num_heads } else { self.job.num_kv_heads }
    }

    /// One of them.
    fn group(&self, b: usize, index: usize) -> Group {
        let job = self.job;
        let ratio = job.num_heads / job.num_kv_heads;
        let (kv_head, head, heads) =
            if self.by_head { (index / ratio, index, 1) } else { (index, index * ratio, ratio) };
        let (q, q_end) = job.sequences.queries(b);
        let (kv, kv_end) = job.sequences.keys(b);
        let (q_len, kv_len) = (q_end - q, kv_end - kv);
        let columns = self.multiply.columns;
        let zeros = Zeros {
            q: self.q.zero(head, Element::U8),
            k: self.k.zero(kv_head, columns),
            v: self.v.zero(kv_head, columns),
        };
        Group {
            b,
            kv_head,
            q,
            q_len,
            kv,
            kv_len,
            live: job.key_lengths.map_or(kv_len, |lengths| lengths[b]),
            position: match job.positions {
                Some(positions) => positions[b] as isize,
                None => kv_len as isize - q_len as isize,
            },
            head,
            heads,
            scale: job.scale * self.q.params(head).0 * self.k.params(kv_head).0,
            zeros,
        }
    }
}

impl Group {
    fn rows(&self) -> usize {
        self.heads * self.q_len
    }

    fn row(&self, job: &Job<'_>, row: usize) -> Row {
        self.row_of(job, row % self.q_len, self.head + row / self.q_len)
    }

    /// Some rows, in order.
    fn rows_from(&self, job: &Job<'_>, row: usize) -> impl Iterator<Item = Row> {
        let (mut token, mut head) = (row % self.q_len, self.head + row / self.q_len);
        std::iter::from_fn(move || {
            let row = self.row_of(job, token, head);
            token += 1;
            if token == self.q_len {
                (token, head) = (0, head + 1);
            }
            Some(row)
        })
    }

    fn row_of(&self, job: &Job<'_>, token: usize, head: usize) -> Row {
        let position = self.position + token as isize;
        let (mut first, mut last) = (0, self.live as isize);
        if job.causal {
            last = last.min(position + 1);
        }
        if let Some((left, right)) = job.window {
            let bound = |n: usize| n.min(isize::MAX as usize / 2) as isize;
            first = (position - bound(left)).max(0);
            last = last.min(position.saturating_add(bound(right)).saturating_add(1));
        }
        let last = last.max(0) as usize;
        Row { token, head, first: (first as usize).min(last), last }
    }
}

/// The parts of `range` that a row meets, in order.
fn segments(job: &Job<'_>, row: Row, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (mut at, end) = (range.start.max(row.first), range.end.min(row.last));
    let mask =
        job.block_mask.map(|mask| (mask, &mask.live[row.token / mask.block_q * mask.cols..][..mask.cols]));
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
        PANEL * 4 * self.job.head_dim.next_multiple_of(16)
    }
}

/// Some rows times some columns, by tiles of about equal height.
///
/// # Safety
/// As for [`Tile`], of so many rows and columns (a multiple of 16).
pub unsafe fn multiply_all(kernels: &Multiply, t: &Tile, rows: usize, columns: usize) {
    let tiles = rows.div_ceil(kernels.rows());
    for i in 0..tiles {
        let rows = share(rows, tiles, i);
        let mut column = 0;
        for width in kernels.widths {
            while column + width.columns <= columns {
                let tile = Tile {
                    x: t.x.wrapping_add(rows.start * t.x_stride),
                    w: t.w.wrapping_add(4 * column),
                    init: if t.init.is_null() { t.init } else { t.init.wrapping_add(column) },
                    out: t.out.wrapping_add(rows.start * t.out_stride + 4 * column),
                    // The first rows ask: the others read the same columns.
                    ahead: if i > 0 || t.ahead.is_null() {
                        std::ptr::null()
                    } else {
                        t.ahead.wrapping_add(4 * column)
                    },
                    ..*t
                };
                // SAFETY: part of what the caller vouches for.
                unsafe { width.run[rows.len() - 1](&tile) };
                column += width.columns;
            }
        }
    }
}

/// The context of all queries.
///
/// # Errors
/// [`Error::Shape`] if there is not so much memory.
pub fn attention(job: &Job<'_>, out: Output<'_>, ctx: &Ctx, memory: &mut Memory) -> Result<Skipped> {
    let tier = Tier::of(ctx.target());
    let (q, k, v) = (Operand::new(&job.q), Operand::new(&job.k), Operand::new(&job.v));
    let mode = match ([&q, &k, &v].map(|x| x.element()), tier.multiply_pairs) {
        ([Element::U8 | Element::I8, ..], _) => Mode::Bytes,
        ([Element::Bf16, Element::Bf16, Element::Bf16], Some(_)) => Mode::Pairs,
        _ => Mode::F32,
    };
    let n = job.sequences.count();
    let (q_len, kv_len) = job.sequences.longest();
    if q_len == 0 {
        return Ok(Skipped::default());
    }
    let d = job.head_dim;
    let words = match mode {
        Mode::F32 => d,
        Mode::Pairs => d.div_ceil(2),
        Mode::Bytes => d.div_ceil(4),
    };
    let plan = Plan {
        job,
        tier,
        passes: tier.float.passes,
        multiply: match (mode, tier.multiply_pairs) {
            (Mode::Bytes, _) => tier.multiply,
            (Mode::Pairs, Some(pairs)) => pairs,
            _ => tier.float.multiply,
        },
        mode,
        q,
        k,
        v,
        out: Target::new(out),
        ctx,
        words,
        q_row: 4 * words.next_multiple_of(LANES),
        panel_bytes: 4 * PANEL * words.next_multiple_of(4),
        columns: d.next_multiple_of(LANES),
        wide: mode == Mode::Bytes && kv_len > MOST_NARROW,
        by_head: mode == Mode::Bytes
            && matches!(job.q, Input::U8(_, HeadParams::PerHead(_)) | Input::I8(_, HeadParams::PerHead(_))),
        counts: Counts::default(),
    };
    let rows = q_len * job.num_heads / plan.groups();
    if rows <= split::MOST_ROWS {
        split::run(&plan, n, rows, kv_len, memory)?;
    } else {
        whole::run(&plan, n, rows, kv_len, memory)?;
    }
    let counts = &plan.counts;
    let [pairs, zeros, skipped] =
        [&counts.pairs, &counts.zeros, &counts.skipped].map(|count| count.load(Ordering::Relaxed));
    Ok(Skipped { pairs, zeros, skipped })
}

/// What is said of a call that does not fit memory.
fn too_large(keys: usize) -> Error {
    Error::shape("k", "as many keys as there is memory for", format_args!("{keys} keys"))
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

/// Tasks below n that no other worker took.
pub fn turns(next: &AtomicUsize, n: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let task = next.fetch_add(1, Ordering::Relaxed);
        (task < n).then_some(task)
    })
}

/// The first n bytes of what is left.
pub fn take<'a>(rest: &mut &'a mut [u8], n: usize) -> &'a mut [u8] {
    let (taken, left) = std::mem::take(rest).split_at_mut(n);
    *rest = left;
    taken
}
