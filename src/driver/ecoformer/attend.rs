//! Codes and values to the context: sums of signed values (`sums`), and of their rows for each code.
//!
//! `Σ_j (q_i · k_j + c) v_j = q_i · (Σ_j k_j v_jᵀ) + c Σ_j v_j`: the sums over j are made once. A code of few bits then looks its
//! product up, `GROUP` bits at a time. Causal attention goes on from the sums of the chunks and of the blocks before, and takes the
//! similarities inside its own block as they are.

mod sums;

use super::{Chunks, Unit, or_too_large};
use crate::base::buffer::as_f32;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::Result;
use crate::base::scratch::Scratch;
use crate::base::sequences::Sequences;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::driver::multiply::multiply_all;
use crate::driver::tensor::SharedTensor;
use crate::driver::workers::{Shared, Workers, carve, carved, grow};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::{LANES, PANEL};
use crate::kernels::ecoformer::{GROUP, Lookup, Signed, reciprocals, sums_of_group};
use crate::kernels::table::Tier;
use std::ops::Range;
use sums::accumulate;

/// Tokens of a causal block: inside it each attends to each before it.
pub const BLOCK: usize = 32;

/// The attention of a layer: what stays the same from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Heads.
    pub heads: usize,
    /// Bits of a code.
    pub bits: usize,
    /// Whether a token's own value takes the place of the sum of all.
    pub released: bool,
    /// No key behind the query's own position.
    pub causal: bool,
}

/// One call: all of it checked.
pub struct Attend<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// Codes of queries, `[heads, tokens, words]`.
    pub q: &'a [u64],
    /// Codes of keys, `[heads, tokens, words]`.
    pub k: &'a [u64],
    /// `[tokens, heads, head_dim]`.
    pub v: TensorRef<'a>,
    /// Which tokens belong together.
    pub sequences: Sequences<'a>,
}

/// What the tier adds to a call.
struct Plan<'a> {
    call: &'a Attend<'a>,
    out: SharedTensor<'a>,
    ctx: &'a Ctx,
    tier: &'static Tier,
    /// Words of a code.
    words: usize,
    /// Features of a head, padded.
    columns: usize,
    /// Groups of `GROUP` bits of a code.
    groups: usize,
}

/// A worker's memory.
struct Workspace<'a> {
    /// Signs of a block, `[bits + 1][PANEL]`: the last row is 1.
    signs: &'a mut [f32],
    /// `[PANEL][columns]`.
    block: &'a mut [f32],
    /// `[groups][16][columns]`; before, sums of rows as [`AddRows`](crate::kernels::ecoformer::AddRows) describes them.
    table: &'a mut [f32],
    /// Sums of the blocks before, of a chunk, `[bits + 1][columns]`; of bytes, sums of the chunk.
    before: &'a mut [f32],
    /// Those, and of the chunks before.
    state: &'a mut [f32],
    /// `[PANEL][columns]`.
    context: &'a mut [f32],
}

/// Sums of signs, bit by bit.
type Signs = [i64; 256];

impl Plan<'_> {
    fn bits(&self) -> usize {
        self.call.layer.bits
    }

    fn tokens(&self) -> usize {
        self.call.v.shape().0
    }

    /// Floats of the sums of signed values, one row a bit, and of the values themselves.
    fn sums(&self) -> usize {
        (self.bits() + 1) * self.columns
    }

    /// Bytes of a chunk's sums, of values and of signs.
    fn slot(&self) -> usize {
        (4 * self.sums() + 8 * self.bits()).next_multiple_of(64)
    }

    /// Bytes of the parts of a worker's memory, in the order of [`Workspace`].
    fn extents(&self) -> [usize; 6] {
        let panel = PANEL * self.columns;
        let before = if self.call.layer.causal || self.quantized() { self.sums() } else { 0 };
        let state = if self.call.layer.causal { self.sums() } else { self.columns };
        let signs = (self.bits() + 1) * PANEL;
        [signs, panel, self.groups * sums_of_group(self.columns), before, state, panel]
            .map(|floats| 4 * floats)
    }

    fn room<'b>(&self, bytes: &'b mut [u8]) -> Workspace<'b> {
        let [signs, block, table, before, state, context] = carve(bytes, self.extents()).map(as_f32);
        signs[self.bits() * PANEL..].fill(1.0);
        Workspace { signs, block, table, before, state, context }
    }

    fn code<'c>(&self, codes: &'c [u64], token: usize, head: usize) -> &'c [u64] {
        self.codes(codes, &(token..token + 1), head)
    }

    fn codes<'c>(&self, codes: &'c [u64], tokens: &Range<usize>, head: usize) -> &'c [u64] {
        &codes[(head * self.tokens() + tokens.start) * self.words..][..tokens.len() * self.words]
    }

    /// The context of a chunk.
    ///
    /// # Safety
    /// Its slot holds the sums that it goes on from; the output's tokens are this task's.
    unsafe fn context(&self, unit: &Unit, len: usize, room: &mut Workspace<'_>, slot: *const u8) {
        let (call, bits) = (self.call, self.bits());
        let bias = (bits + 1) as f32;
        let mut state: Signs = [0; 256];
        // SAFETY: the slot is there, and nobody writes it.
        let sums = unsafe {
            let from = slot.add(4 * self.sums()).cast::<i64>();
            state[..bits].copy_from_slice(std::slice::from_raw_parts(from, bits));
            std::slice::from_raw_parts(slot.cast::<f32>(), self.sums())
        };
        let scale = f64::from(call.v.affine(unit.head).0);
        if !call.layer.causal {
            self.tables(sums, room.table);
            let denominators = Denominators::new(&state[..bits]);
            for (out, sum) in room.state.iter_mut().zip(&sums[bits * self.columns..]) {
                *out = bias * sum;
            }
            for tokens in unit.blocks(PANEL) {
                let v = self.v(&tokens, unit.head, room.block);
                let (mut signs, mut factors) = ([0; PANEL], [0.0; PANEL]);
                denominators.of_all(self.codes(call.q, &tokens, unit.head), self.words, &mut signs);
                // SAFETY: the tier is supported.
                unsafe {
                    let biases = (len * (bits + 1)) as i64;
                    reciprocals::pick(self.ctx.isa())(&signs, biases, scale, &mut factors);
                }
                let (base, own) = match call.layer.released {
                    true => (std::ptr::null(), v.p),
                    false => (room.state.as_ptr(), std::ptr::null()),
                };
                let to = self.direct(tokens.start, unit.head);
                let (out, out_stride) = to.unwrap_or((room.context.as_mut_ptr().cast(), 4 * self.columns));
                let lookup = Lookup {
                    base,
                    own,
                    own_stride: v.stride,
                    factors: factors.as_ptr(),
                    ..self.lookup(&tokens, unit.head, room.table, (out, out_stride))
                };
                // SAFETY: the tier is supported; tables, values and room for the context are there.
                unsafe {
                    (self.tier.float.hashing.lookup)(&lookup);
                    if to.is_none() {
                        self.write(&tokens, unit.head, room.context);
                    }
                }
            }
            return;
        }
        // Tokens of the blocks before.
        let mut before = unit.first;
        for (i, tokens) in unit.blocks(BLOCK).enumerate() {
            for ((state, before), sum) in room.state.iter_mut().zip(&*room.before).zip(sums) {
                *state = if i == 0 { *sum } else { sum + before };
            }
            self.tables(room.state, room.table);
            let denominators = Denominators::new(&state[..bits]);
            let base = &mut room.state[bits * self.columns..];
            base.iter_mut().for_each(|sum| *sum *= bias);
            let v = self.v(&tokens, unit.head, room.block);
            let out = (room.context.as_mut_ptr().cast(), 4 * self.columns);
            let lookup = Lookup { base: base.as_ptr(), ..self.lookup(&tokens, unit.head, room.table, out) };
            // SAFETY: the tier is supported; tables and room for the context are there.
            unsafe { (self.tier.float.hashing.lookup)(&lookup) };
            for (i, token) in tokens.clone().enumerate() {
                let q = self.code(call.q, token, unit.head);
                let mut similarities = [0.0f32; BLOCK];
                let mut sum = denominators.of(q) + (before * (bits + 1)) as i64;
                for (key, similarity) in (tokens.start..=token).zip(&mut similarities) {
                    let k = self.code(call.k, key, unit.head);
                    let apart: u32 = q.iter().zip(k).map(|(q, k)| (q ^ k).count_ones()).sum();
                    let own = 2 * bits as i64 + 1 - 2 * i64::from(apart);
                    *similarity = own as f32;
                    sum += own;
                }
                let row = &mut room.context[i * self.columns..][..self.columns];
                let tile = Tile {
                    x: similarities.as_ptr().cast(),
                    w: v.p,
                    w_stride: v.stride,
                    steps: i + 1,
                    out: row.as_mut_ptr().cast(),
                    resume: true,
                    ..Tile::NOTHING
                };
                // SAFETY: the tier is supported; as many values as similarities are there, and the row.
                unsafe { multiply_all(self.tier.float.multiply, &tile, 1, self.columns) };
                let factor = (scale / sum as f64) as f32;
                row.iter_mut().for_each(|x| *x *= factor);
            }
            // SAFETY: the output's tokens are this task's.
            unsafe { self.write(&tokens, unit.head, room.context) };
            self.signs(&tokens, unit.head, room.signs, &mut state);
            // SAFETY: the room has all sums; the values are those of the tokens.
            unsafe { self.add(tokens.len(), room.signs, v, room.before.as_mut_ptr(), i > 0) };
            before += tokens.len();
        }
    }

    fn tables(&self, sums: &[f32], table: &mut [f32]) {
        let (bits, columns) = (self.bits(), self.columns);
        assert!(sums.len() >= bits * columns && table.len() >= self.groups * 16 * columns);
        let rows = sums.as_ptr().cast_mut();
        let table = Signed { bits, columns, rows, values: table.as_mut_ptr(), stride: 16 * columns };
        // SAFETY: the tier is supported; the assert gives a row for each bit, which are only read, and room for the table.
        unsafe { (self.tier.float.hashing.tables)(&table) }
    }

    /// The part of a lookup that all have.
    fn lookup(
        &self,
        tokens: &Range<usize>,
        head: usize,
        table: &[f32],
        (out, out_stride): (*mut u8, usize),
    ) -> Lookup {
        Lookup {
            table: table.as_ptr(),
            groups: self.groups,
            columns: self.columns,
            codes: self.codes(self.call.q, tokens, head).as_ptr(),
            words: self.words,
            tokens: tokens.len(),
            base: std::ptr::null(),
            own: std::ptr::null(),
            own_stride: 0,
            own_factor: (self.bits() + 1) as f32,
            factors: std::ptr::null(),
            out,
            out_stride,
        }
    }

    /// Where the rows of a head are written, and how far apart, if they need neither padding nor rounding.
    fn direct(&self, token: usize, head: usize) -> Option<(*mut u8, usize)> {
        let as_it_is = self.out.element() == Element::F32 && self.call.v.shape().2.is_multiple_of(LANES);
        as_it_is.then(|| (self.out.at(token, head), self.out.token_stride()))
    }

    /// Padded rows to the output.
    ///
    /// # Safety
    /// The output's tokens are this task's.
    unsafe fn write(&self, tokens: &Range<usize>, head: usize, rows: &[f32]) {
        for (token, row) in tokens.clone().zip(rows.chunks_exact(self.columns)) {
            // SAFETY: as the caller.
            unsafe { self.out.write(token, head, &row[..self.call.v.shape().2], self.ctx) };
        }
    }
}

/// Sums of signs for each value of `GROUP` bits of a code.
struct Denominators {
    groups: usize,
    table: [[i64; 16]; 256 / GROUP],
}

impl Denominators {
    fn new(sums: &[i64]) -> Self {
        let mut table = [[0; 16]; 256 / GROUP];
        for (table, sums) in table.iter_mut().zip(sums.chunks(GROUP)) {
            for (value, total) in table.iter_mut().enumerate() {
                *total = sums
                    .iter()
                    .enumerate()
                    .map(|(bit, sum)| if value >> bit & 1 == 1 { *sum } else { -sum })
                    .sum();
            }
        }
        Self { groups: sums.len().div_ceil(GROUP), table }
    }

    /// The inner product of a code and the sums.
    fn of(&self, code: &[u64]) -> i64 {
        let mut sum = [0];
        self.of_all(code, code.len(), &mut sum);
        sum[0]
    }

    /// Adds the inner products of codes of so many words and the sums.
    fn of_all(&self, codes: &[u64], words: usize, products: &mut [i64]) {
        for (g, table) in self.table[..self.groups].iter().enumerate() {
            let (word, shift) = (GROUP * g / 64, GROUP * g % 64);
            for (code, product) in codes.chunks_exact(words).zip(&mut *products) {
                *product += table[(code[word] >> shift & 15) as usize];
            }
        }
    }
}

/// The context of all tokens, to a tensor as v.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there is not so much memory. Nothing was written then.
pub fn attend(call: &Attend<'_>, out: TensorMut<'_>, ctx: &Ctx, scratch: &mut Scratch) -> Result<()> {
    let Layer { heads, bits, causal, .. } = *call.layer;
    let words = bits.div_ceil(64);
    let (tokens, _, dim) = call.v.shape();
    assert!(out.shape() == call.v.shape());
    assert!([call.q, call.k].iter().all(|codes| codes.len() == tokens * heads * words));
    let plan = Plan {
        call,
        out: SharedTensor::new(out),
        ctx,
        tier: Tier::of(ctx.target()),
        words,
        columns: dim.next_multiple_of(LANES),
        groups: bits.div_ceil(GROUP),
    };
    let [workers, sums, starts] = scratch.slots();
    let chunks = or_too_large(Chunks::new(call.sequences, tokens, starts), tokens)?;
    let units = chunks.count() * heads;
    let each = carved(plan.extents());
    let mut workers = or_too_large(Workers::new(ctx, ctx.threads().min(units), each, workers), tokens)?;
    let slot = plan.slot();
    or_too_large(grow(sums, units, slot).then_some(()), tokens)?;
    let shared = Shared::new(sums.bytes_mut());
    workers.share_out(units, &|bytes, units| {
        let mut room = plan.room(bytes);
        for unit in units {
            // SAFETY: each slot is one task's.
            unsafe { plan.chunk(&chunks.unit(unit), &mut room, shared.at(unit * slot)) };
        }
    });
    for b in 0..chunks.sequences() {
        for head in 0..heads {
            let slots = chunks.slots(b, head);
            // SAFETY: no task runs; the slots are there.
            unsafe {
                accumulate::<f32>(shared, slots.clone(), slot, 0, plan.sums(), causal);
                accumulate::<i64>(shared, slots, slot, 4 * plan.sums(), bits, causal);
            }
        }
    }
    workers.share_out(units, &|bytes, turns| {
        let mut room = plan.room(bytes);
        for turn in turns {
            // Backwards: what the pass before read last is still in the caches.
            let unit = chunks.unit(units - 1 - turn);
            let (first, last) = call.sequences.queries(unit.b);
            let from = if causal { unit.slot } else { chunks.slots(unit.b, unit.head).start };
            // SAFETY: the sums are there, and are no longer written; each token's head is of one unit.
            unsafe { plan.context(&unit, last - first, &mut room, shared.at(from * slot)) };
        }
    });
    Ok(())
}
