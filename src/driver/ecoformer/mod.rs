//! EcoFormer: which tokens go together, in what order, on which thread.
//!
//! Work is shared out by chunks of `CHUNK` tokens of one head of one sequence. Sums over tokens have one order inside a chunk, and
//! chunks are added up in order, so the answer depends on no thread.

mod attend;
mod encode;
mod stream;

pub use attend::{Attend, Layer, attend};
pub use encode::{Encode, Hash};
pub use stream::State;

use crate::base::buffer::Buffer;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::isa::Isa;
use crate::base::sequences::Sequences;
use crate::base::tensor::TensorRef;
use crate::driver::workers::{as_plain, grow};
use crate::kernels::attention::{CHUNK, LANES, PANEL};
use crate::kernels::ecoformer::centre;
use crate::kernels::float_table::FloatTier;
use std::ops::Range;

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
    /// Chunks before each sequence, and all.
    starts: &'a [usize],
}

impl<'a> Chunks<'a> {
    /// Of so many tokens; none if there is not enough memory.
    fn new(sequences: Sequences<'a>, tokens: usize, memory: &'a mut Buffer) -> Option<Self> {
        // No tokens are those of any number of sequences.
        let count = if tokens == 0 { 0 } else { sequences.count() };
        if !grow(memory, count.checked_add(1)?, size_of::<usize>()) {
            return None;
        }
        let starts = &mut as_plain(memory.bytes_mut())[..=count];
        let mut all = 0;
        starts[0] = all;
        for b in 0..count {
            let (first, last) = sequences.queries(b);
            all += (last - first).div_ceil(CHUNK);
            starts[b + 1] = all;
        }
        Some(Self { sequences, starts })
    }

    /// Sequences.
    fn sequences(&self) -> usize {
        self.starts.len() - 1
    }

    /// Chunks of one head.
    fn count(&self) -> usize {
        self.starts[self.sequences()]
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

/// What is there, or what is said of a call that does not fit memory.
fn or_too_large<T>(memory: Option<T>, tokens: usize) -> Result<T> {
    memory.ok_or_else(|| Error::shape("tokens", "as many as there is memory for", tokens))
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
    v: &TensorRef<'_>,
    tokens: Range<usize>,
    head: usize,
    block: &mut [f32],
    tier: &FloatTier,
    isa: Isa,
) -> Rows {
    let dim = v.shape().2;
    if v.element() == Element::F32 && dim.is_multiple_of(LANES) {
        return Rows { p: v.at(tokens.start, head), stride: v.token_stride() };
    }
    let columns = dim.next_multiple_of(LANES);
    for (token, out) in tokens.zip(block.chunks_exact_mut(columns)) {
        row(v, token, head, &mut out[..dim], tier, isa);
        out[dim..].fill(0.0);
    }
    Rows { p: block.as_ptr().cast(), stride: 4 * columns }
}

/// One row, widened and less its zero point.
fn row(v: &TensorRef<'_>, token: usize, head: usize, out: &mut [f32], tier: &FloatTier, isa: Isa) {
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

const _: () = assert!(CHUNK.is_multiple_of(PANEL) && PANEL == 64);
