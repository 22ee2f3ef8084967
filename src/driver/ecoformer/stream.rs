//! Keys and values that come one by one: the sums that causal attention goes on from.

use super::attend::BLOCK;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::isa::Isa;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::driver::tensor::{MAX_HEAD_DIM, SharedTensor};
use crate::kernels::attention::CHUNK;
use crate::kernels::ecoformer::{GROUP, add_multiple};
use half::{bf16, f16};

/// Of all heads.
#[derive(Debug, Clone)]
pub struct State {
    bits: usize,
    dim: usize,
    heads: Vec<Head>,
}

#[derive(Debug, Clone)]
struct Head {
    /// Sums of signed values of whole chunks, `[bits + 1][dim]`: the last are those of the values themselves.
    chunks: Vec<f32>,
    /// Of the whole blocks of the chunk that has begun.
    blocks: Vec<f32>,
    /// Sums of signs of both.
    signs: Vec<i64>,
    /// Tokens of both.
    summed: usize,
    /// Codes of the block that has begun.
    keys: Vec<u64>,
    /// Its values, `[keys][dim]`.
    values: Vec<f32>,
}

/// A token's head in floats, less the zero point of bytes.
fn widen(v: &TensorRef<'_>, token: usize, head: usize, out: &mut [f32]) {
    let (row, zero) = (v.row(token, head), v.affine(head).1);
    match v.element() {
        Element::F32 => {
            let floats = row.as_chunks().0;
            out.iter_mut().zip(floats).for_each(|(out, v)| *out = f32::from_ne_bytes(*v));
        }
        Element::Bf16 => {
            let floats = row.as_chunks().0;
            out.iter_mut().zip(floats).for_each(|(out, v)| *out = bf16::from_ne_bytes(*v).to_f32());
        }
        Element::F16 => {
            let floats = row.as_chunks().0;
            out.iter_mut().zip(floats).for_each(|(out, v)| *out = f16::from_ne_bytes(*v).to_f32());
        }
        Element::I8 => {
            out.iter_mut().zip(row).for_each(|(out, v)| *out = (i32::from(*v as i8) - zero) as f32);
        }
        _ => out.iter_mut().zip(row).for_each(|(out, v)| *out = (i32::from(*v) - zero) as f32),
    }
}

/// Bit b of a code as +1 or -1.
fn sign(code: &[u64], b: usize) -> i8 {
    if code[b / 64] >> (b % 64) & 1 == 1 { 1 } else { -1 }
}

impl State {
    /// No tokens yet; none if there is not so much memory.
    pub fn new(heads: usize, bits: usize, dim: usize) -> Option<Self> {
        let floats = (2 * (bits + 1) + BLOCK) * dim;
        let head = 4 * floats + 8 * bits + 8 * BLOCK * bits.div_ceil(64) + size_of::<Head>();
        Vec::<u8>::new().try_reserve_exact(heads.checked_mul(head)?).ok()?;
        let sums = vec![0.0; (bits + 1) * dim];
        let head = Head {
            blocks: sums.clone(),
            chunks: sums,
            signs: vec![0; bits],
            summed: 0,
            keys: Vec::with_capacity(BLOCK * bits.div_ceil(64)),
            values: Vec::with_capacity(BLOCK * dim),
        };
        // A clone of a vector has no more room than it needs.
        let room = |head: &Head| Head {
            keys: Vec::with_capacity(head.keys.capacity()),
            values: Vec::with_capacity(head.values.capacity()),
            ..head.clone()
        };
        Some(Self { bits, dim, heads: (0..heads).map(|_| room(&head)).collect() })
    }

    /// No tokens again.
    pub fn clear(&mut self) {
        for head in &mut self.heads {
            head.chunks.fill(0.0);
            head.blocks.fill(0.0);
            head.signs.fill(0);
            head.summed = 0;
            head.keys.clear();
            head.values.clear();
        }
    }

    /// The codes of tokens, `[heads, tokens, words]`, and their values, `[tokens, heads, dim]`.
    pub fn append(&mut self, codes: &[u64], v: &TensorRef<'_>) {
        let (bits, dim, tokens) = (self.bits, self.dim, v.shape().0);
        let codes = codes.chunks_exact(bits.div_ceil(64));
        let places = (0..self.heads.len()).flat_map(|head| (0..tokens).map(move |token| (head, token)));
        for ((at, token), code) in places.zip(codes) {
            let head = &mut self.heads[at];
            if head.values.len() == BLOCK * dim {
                head.sum(bits, dim);
            }
            head.keys.extend_from_slice(code);
            let old = head.values.len();
            head.values.resize(old + dim, 0.0);
            widen(v, token, at, &mut head.values[old..]);
        }
    }

    /// The context of queries that attend to all tokens: their codes, `[heads, queries, words]`, to `[queries, heads, dim]`, each
    /// head times its scale.
    pub fn query(&self, codes: &[u64], scales: &[f32], out: TensorMut<'_>, ctx: &Ctx) {
        let queries = out.shape().0;
        let (out, mut row) = (SharedTensor::new(out), [0.0; MAX_HEAD_DIM]);
        let codes = codes.chunks_exact(self.bits.div_ceil(64));
        let places = (0..self.heads.len()).flat_map(|head| (0..queries).map(move |query| (head, query)));
        for ((head, query), code) in places.zip(codes) {
            let scale = f64::from(scales[head]);
            // SAFETY: the tensor has these rows, and no task runs.
            unsafe {
                if let Some(row) = out.floats(query, head) {
                    self.context(head, code, scale, ctx.isa(), row);
                } else {
                    self.context(head, code, scale, ctx.isa(), &mut row[..self.dim]);
                    out.write(query, head, &row[..self.dim], ctx);
                }
            }
        }
    }

    /// The context of one query.
    fn context(&self, head: usize, code: &[u64], scale: f64, isa: Isa, out: &mut [f32]) {
        let (bits, dim) = (self.bits, self.dim);
        let head = &self.heads[head];
        let sums =
            |row: usize, column: usize| head.chunks[row * dim + column] + head.blocks[row * dim + column];
        let bias = (bits + 1) as f32;
        for (column, out) in out.iter_mut().enumerate() {
            let mut groups = (0..bits).step_by(GROUP).map(|first| {
                let mut signed =
                    (first..(first + GROUP).min(bits)).map(|b| f32::from(sign(code, b)) * sums(b, column));
                let start = signed.next().unwrap_or(0.0);
                signed.fold(start, |sum, x| sum + x)
            });
            let start = groups.next().unwrap_or(0.0);
            *out = groups.fold(start, |sum, x| sum + x) + sums(bits, column) * bias;
        }
        let of_signs = head.signs.iter().enumerate().map(|(b, sum)| i64::from(sign(code, b)) * sum);
        let mut sum = of_signs.sum::<i64>() + (head.summed * (bits + 1)) as i64;
        for (key, value) in head.keys.chunks_exact(code.len()).zip(head.values.chunks_exact(dim)) {
            let apart: u32 = code.iter().zip(key).map(|(q, k)| (q ^ k).count_ones()).sum();
            let similarity = 2 * bits as i64 + 1 - 2 * i64::from(apart);
            sum += similarity;
            // SAFETY: the tier is supported.
            unsafe { add_multiple::pick(isa)(similarity as f32, value, out) };
        }
        let factor = (scale / sum as f64) as f32;
        out.iter_mut().for_each(|x| *x *= factor);
    }
}

impl Head {
    /// The block, which is whole, to the sums.
    fn sum(&mut self, bits: usize, dim: usize) {
        let words = bits.div_ceil(64);
        for (key, value) in self.keys.chunks_exact(words).zip(self.values.chunks_exact(dim)) {
            for (b, sums) in self.blocks.chunks_exact_mut(dim).enumerate() {
                let sign = if b < bits { sign(key, b) } else { 1 };
                sums.iter_mut().zip(value).for_each(|(sum, x)| *sum += f32::from(sign) * x);
            }
            self.signs.iter_mut().enumerate().for_each(|(b, sum)| *sum += i64::from(sign(key, b)));
        }
        self.keys.clear();
        self.values.clear();
        self.summed += BLOCK;
        if self.summed.is_multiple_of(CHUNK) {
            self.chunks.iter_mut().zip(&self.blocks).for_each(|(sum, own)| *sum += own);
            self.blocks.fill(0.0);
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(BLOCK));
