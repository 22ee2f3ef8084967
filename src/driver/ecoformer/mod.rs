//! EcoFormer: which tokens go together, in what order, on which thread.
//!
//! Work is shared out by chunks of `CHUNK` tokens of one head of one sequence. Sums over tokens are one chain inside a chunk, and
//! chunks are added up in order, so the answer depends on no thread.

mod attend;
mod encode;
mod stream;

pub use attend::{Attend, attend};
pub use encode::{Encode, Hash, encode};
pub use stream::State;

use super::attention::operands::Operand;
use super::attention::turns;
use crate::attention::Sequences;
use crate::base::buffer::{Buffer, as_f32};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::isa::Isa;
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use crate::kernels::ecoformer::centre;
use crate::kernels::float_table::FloatTier;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

/// Memory of a call.
#[derive(Debug, Default)]
pub struct Memory {
    /// Each thread's.
    workers: Buffer,
    /// Sums of each chunk.
    sums: Buffer,
    /// Chunks before each sequence.
    starts: Vec<usize>,
    /// Bandwidths, `[sequences][heads]`.
    sigma: Vec<f32>,
}

impl Memory {
    /// Bytes held.
    pub fn capacity(&self) -> usize {
        self.workers.len()
            + self.sums.len()
            + size_of::<usize>() * self.starts.capacity()
            + 4 * self.sigma.capacity()
    }
}

/// Memory that tasks share; they touch disjoint parts of it.
#[derive(Clone, Copy)]
struct Shared(*mut u8);
// SAFETY: see above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at<T>(&self, byte: usize) -> *mut T {
        self.0.wrapping_add(byte).cast()
    }
}

/// A chunk of one head.
#[derive(Debug, Clone, Copy)]
struct Unit {
    /// The sequence.
    b: usize,
    head: usize,
    /// Its number among those of all heads.
    slot: usize,
    /// The first token of the sequence.
    start: usize,
    /// Tokens, counted inside the sequence.
    first: usize,
    last: usize,
}

impl Unit {
    /// Blocks of up to `size` tokens, counted over all sequences.
    fn blocks(&self, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.start + self.last;
        (self.start + self.first..end).step_by(size).map(move |t| t..(t + size).min(end))
    }
}

/// How sequences are cut into chunks.
struct Chunks<'a> {
    sequences: Sequences<'a>,
    starts: &'a [usize],
}

impl<'a> Chunks<'a> {
    fn new(sequences: Sequences<'a>, starts: &'a mut Vec<usize>) -> Self {
        starts.clear();
        starts.push(0);
        let mut all = 0;
        for b in 0..sequences.count() {
            let (first, last) = sequences.queries(b);
            all += (last - first).div_ceil(CHUNK);
            starts.push(all);
        }
        Self { sequences, starts }
    }

    /// Chunks of one head.
    fn count(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn unit(&self, slot: usize) -> Unit {
        let (head, chunk) = (slot / self.count(), slot % self.count());
        let b = self.starts.partition_point(|&start| start <= chunk) - 1;
        let (start, end) = self.sequences.queries(b);
        let first = (chunk - self.starts[b]) * CHUNK;
        Unit { b, head, slot, start, first, last: (first + CHUNK).min(end - start) }
    }

    /// The slots of a head of a sequence.
    fn slots(&self, b: usize, head: usize) -> Range<usize> {
        head * self.count() + self.starts[b]..head * self.count() + self.starts[b + 1]
    }
}

/// Hands units out to workers, each with `each` bytes of its own: calls `f(memory, units)` once a worker.
fn share_out(
    ctx: &Ctx,
    workers: &mut Buffer,
    each: usize,
    units: usize,
    f: &(impl Fn(&mut [u8], &mut dyn Iterator<Item = usize>) + Sync),
) {
    let next = AtomicUsize::new(0);
    ctx.for_each_chunk(ctx.threads().min(units), workers.bytes_mut(), each, &|_, bytes| {
        f(bytes, &mut turns(&next, units));
    });
}

/// What is said of a call that does not fit memory.
fn too_large(tokens: usize) -> Error {
    Error::shape("tokens", "as many as there is memory for", tokens)
}

/// `n` times `bytes`, if there is so much memory.
fn grow(buffer: &mut Buffer, n: usize, bytes: usize, tokens: usize) -> Result<()> {
    match n.checked_mul(bytes) {
        Some(bytes) if buffer.try_grow(bytes) => Ok(()),
        _ => Err(too_large(tokens)),
    }
}

/// Rows of floats, as products take them: padded to a multiple of 16 columns.
#[derive(Clone, Copy)]
struct Rows {
    p: *const u8,
    /// Bytes from one to the next.
    stride: usize,
}

/// The rows of some tokens: where they are, or widened, less their zero point and padded, in `block`.
fn rows(
    v: &Operand<'_>,
    tokens: Range<usize>,
    head: usize,
    block: &mut [f32],
    tier: &FloatTier,
    isa: Isa,
) -> Rows {
    let dim = v.dim();
    if v.element() == Element::F32 && dim.is_multiple_of(LANES) {
        return Rows { p: v.at(tokens.start, head), stride: v.stride() };
    }
    let columns = dim.next_multiple_of(LANES);
    for (token, out) in tokens.zip(block.chunks_exact_mut(columns)) {
        row(v, token, head, &mut out[..dim], tier, isa);
        out[dim..].fill(0.0);
    }
    Rows { p: block.as_ptr().cast(), stride: 4 * columns }
}

/// One row, widened and less its zero point.
fn row(v: &Operand<'_>, token: usize, head: usize, out: &mut [f32], tier: &FloatTier, isa: Isa) {
    let row = v.row(token, head);
    // SAFETY: the tier is supported; as many elements are there as there is room for.
    unsafe {
        match v.element() {
            Element::U8 | Element::I8 => {
                let (flip, _) = v.flip(Element::I8);
                centre::pick(isa)(row, flip, v.zero(head, Element::I8), out);
            }
            element => {
                assert!(row.len() == element.bytes_of(out.len()));
                tier.widen.of(element)(row.as_ptr(), out.len(), out.as_mut_ptr().cast());
            }
        }
    }
}

/// The first floats of what is left.
fn floats<'a>(rest: &mut &'a mut [u8], n: usize) -> &'a mut [f32] {
    as_f32(super::attention::take(rest, (4 * n).next_multiple_of(64)))
}

const _: () = assert!(CHUNK.is_multiple_of(PANEL) && PANEL == 64);
