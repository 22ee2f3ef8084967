//! The call.

use super::{Bias, BlockMask, EmptyRow, Input, Output, Sequences, Softmax};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::view::MatRef;
use crate::driver::attention as driver;
use crate::quant::QuantParams;

/// The largest `head_dim`.
pub const MAX_HEAD_DIM: usize = 256;

/// The attention of a layer: what is the same from call to call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
    pub(super) softmax: Softmax,
    pub(super) causal: bool,
    pub(super) window: Option<(usize, usize)>,
    pub(super) empty_rows: EmptyRow,
}

impl Attention {
    /// Standard softmax, scale `1 / sqrt(head_dim)`, no mask.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `num_heads` is a positive multiple of `num_kv_heads` (equal: multi-head; 1: multi-query; between:
    /// grouped) and `head_dim` is 1 to 256.
    pub fn new(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Result<Self> {
        if num_heads == 0 || num_kv_heads == 0 || !num_heads.is_multiple_of(num_kv_heads) {
            let expected = format_args!("a positive multiple of num_kv_heads = {num_kv_heads}");
            return Err(Error::shape("num_heads", expected, num_heads));
        }
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(Error::shape("head_dim", format_args!("1 to {MAX_HEAD_DIM}"), head_dim));
        }
        Ok(Self {
            num_heads,
            num_kv_heads,
            head_dim,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            softmax: Softmax::Standard,
            causal: false,
            window: None,
            empty_rows: EmptyRow::default(),
        })
    }

    /// What scores are multiplied by.
    ///
    /// # Errors
    /// [`Error::Value`] if it is not a positive normal number, at most 1e38.
    pub fn scale(mut self, scale: f32) -> Result<Self> {
        if !(scale.is_normal() && 0.0 < scale && scale <= MAX_SCALE) {
            return Err(Error::value(
                "scale",
                format_args!("a positive normal number, at most {MAX_SCALE:e}"),
                scale,
            ));
        }
        self.scale = scale;
        Ok(self)
    }

    /// What turns scores into weights.
    #[must_use]
    pub fn softmax(mut self, softmax: impl Into<Softmax>) -> Self {
        self.softmax = softmax.into();
        self
    }

    /// A query meets no key behind its own position. Query i of a sequence is at position `kv_len - q_len + i` unless
    /// [`Call::positions`] says otherwise: so a query that comes alone meets the whole cache.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// A query at position p meets the keys `p - left ..= p + right` only. Positions are as for [`Attention::causal`], which may
    /// limit the right further.
    #[must_use]
    pub fn window(mut self, left: usize, right: usize) -> Self {
        self.window = Some((left, right));
        self
    }

    /// What becomes of a query that meets no key.
    #[must_use]
    pub fn empty_rows(mut self, empty_rows: EmptyRow) -> Self {
        self.empty_rows = empty_rows;
        self
    }
}

/// Quantizers inside attention of bytes (Quantizable Transformers, the authors' INT8 simulation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8 {
    /// Of the scaled scores, before the mask; not quantized where there is none.
    pub scores: Option<QuantParams>,
    /// The real size of a step of the weights, which are u8 with zero point 0.
    pub weights_scale: f32,
    /// Of the context before the gate, as OPT has it. That after the gate, as BERT has it, is the output's own.
    pub context: Option<QuantParams>,
}

impl Default for Int8 {
    /// Scores as they are, weights in steps of 1/255, the context as it is.
    fn default() -> Self {
        Self { scores: None, weights_scale: 1.0 / 255.0, context: None }
    }
}

/// What changes from call to call, beside q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub(super) sequences: Sequences<'a>,
    pub(super) key_lengths: Option<&'a [usize]>,
    pub(super) positions: Option<&'a [usize]>,
    pub(super) bias: Option<Bias<'a>>,
    pub(super) block_mask: Option<BlockMask<'a>>,
    pub(super) gates: Option<MatRef<'a, f32>>,
    pub(super) int8: Int8,
}

impl<'a> Call<'a> {
    /// No mask, no gate.
    pub fn new(sequences: Sequences<'a>) -> Self {
        Self {
            sequences,
            key_lengths: None,
            positions: None,
            bias: None,
            block_mask: None,
            gates: None,
            int8: Int8::default(),
        }
    }

    /// Of sequence b only the first `key_lengths[b]` keys are there: those behind are padding.
    #[must_use]
    pub fn key_lengths(mut self, key_lengths: &'a [usize]) -> Self {
        self.key_lengths = Some(key_lengths);
        self
    }

    /// The position of each sequence's first query, for causal and window; `kv_len - q_len` where not given.
    #[must_use]
    pub fn positions(mut self, positions: &'a [usize]) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Added to the scaled scores.
    #[must_use]
    pub fn bias(mut self, bias: Bias<'a>) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Which tiles are there.
    #[must_use]
    pub fn block_mask(mut self, block_mask: BlockMask<'a>) -> Self {
        self.block_mask = Some(block_mask);
        self
    }

    /// `[q tokens, num_heads]`: what each head's context is multiplied by, for instance by a gate
    /// ([`super::Gate::evaluate`]).
    #[must_use]
    pub fn gates(mut self, gates: MatRef<'a, f32>) -> Self {
        self.gates = Some(gates);
        self
    }

    /// Quantizers of attention of bytes.
    #[must_use]
    pub fn int8(mut self, int8: Int8) -> Self {
        self.int8 = int8;
        self
    }
}

/// How much a call did not do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Pairs of a query and a key that lengths, positions and blocks let meet, whatever the bias, over all heads; in uniform
    /// rows all keys.
    pub pairs: u64,
    /// Those whose weight is exactly 0, where the softmax is clipped.
    pub zeros: u64,
    /// Those of them whose v was not multiplied: whole tiles at a time, so this depends on the tier and on threads.
    pub skipped: u64,
}

impl Skipped {
    /// The share of pairs that were not multiplied.
    pub fn share(&self) -> f64 {
        if self.pairs == 0 { 0.0 } else { self.skipped as f64 / self.pairs as f64 }
    }
}

impl Attention {
    /// Attention of q over k and v.
    ///
    /// q, k and v are all floats, of any kinds, or all bytes, of any kinds and parameters; `out` is of any kind. Memory is
    /// `O((tile + 2 * head_dim) * keys)` a thread, of the longest sequence, from `scratch`: scores of a tile, and k and v as tiles
    /// take them; of calls with few queries the scores of all of them.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Index`] if a shape, a length or a sequence does not fit; [`Error::Value`] if parameters are
    /// not of the type they come with, or scales multiply to no float; [`Error::Unsupported`] if floats meet bytes. Nothing was written then.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        q: Input<'_>,
        k: Input<'_>,
        v: Input<'_>,
        call: &Call<'_>,
        out: Output<'_>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<Skipped> {
        self.check(&q, &k, &v, call, &out)?;
        let job = driver::Job {
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            clipped: match self.softmax {
                Softmax::Standard => None,
                Softmax::Clipped(c) => Some((c.gamma(), c.zeta())),
            },
            causal: self.causal,
            window: self.window,
            uniform: self.empty_rows == EmptyRow::Uniform,
            q,
            k,
            v,
            sequences: call.sequences,
            key_lengths: call.key_lengths,
            positions: call.positions,
            bias: call.bias,
            block_mask: call.block_mask,
            gates: call.gates,
            int8: call.int8,
        };
        driver::attention(&job, out, ctx, &mut scratch.attention)
    }

    fn check(
        &self,
        q: &Input<'_>,
        k: &Input<'_>,
        v: &Input<'_>,
        call: &Call<'_>,
        out: &Output<'_>,
    ) -> Result<()> {
        let (q_tokens, _, _) = q.shape();
        let (kv_tokens, _, _) = k.shape();
        let (heads, kv_heads, head_dim) = (self.num_heads, self.num_kv_heads, self.head_dim);
        let shapes = [
            ("q", q.shape(), (q_tokens, heads, head_dim)),
            ("k", k.shape(), (kv_tokens, kv_heads, head_dim)),
            ("v", v.shape(), (kv_tokens, kv_heads, head_dim)),
            (
                "out",
                (out.layout().tokens, out.layout().heads, out.layout().head_dim),
                (q_tokens, heads, head_dim),
            ),
        ];
        for (name, got, expected) in shapes {
            if got != expected {
                let show = |(t, h, d): (usize, usize, usize)| format!("{t} tokens x {h} heads x {d}");
                return Err(Error::shape(name, show(expected), show(got)));
            }
        }
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            if x.is_quantized() != q.is_quantized() {
                let kind = |bytes| if bytes { "bytes" } else { "floats" };
                let (expected, got) = (kind(q.is_quantized()), kind(x.is_quantized()));
                return Err(Error::unsupported(name, format_args!("{expected}, as q"), got));
            }
            x.check(name)?;
        }
        out.check()?;
        if kv_tokens > MAX_KEYS {
            return Err(Error::shape("k", format_args!("at most {MAX_KEYS} tokens"), kv_tokens));
        }
        let step = call.int8.weights_scale;
        if !(step.is_normal() && step > 0.0) {
            return Err(Error::value("weights_scale", "a positive normal number", step));
        }
        if q.is_quantized() {
            self.check_bytes(q, k, call)?;
        }
        self.check_call(call, q_tokens, kv_tokens)
    }

    /// Whether scales multiply to floats.
    fn check_bytes(&self, q: &Input<'_>, k: &Input<'_>, call: &Call<'_>) -> Result<()> {
        let scale = f64::from(self.scale) * f64::from(q.largest_scale()) * f64::from(k.largest_scale());
        if scale > f64::from(MAX_SCALE) {
            let expected = format_args!("scale * scale of q * scale of k to be at most {MAX_SCALE:e}");
            return Err(Error::value("scale", expected, scale));
        }
        let stretch = match self.softmax {
            Softmax::Standard => 1.0,
            Softmax::Clipped(c) => c.zeta() - c.gamma(),
        };
        let step = call.int8.weights_scale;
        if !(stretch / step).is_finite() {
            let expected = "enough for (zeta - gamma) / weights_scale to be finite";
            return Err(Error::value("weights_scale", expected, step));
        }
        Ok(())
    }

    fn check_call(&self, call: &Call<'_>, q_tokens: usize, kv_tokens: usize) -> Result<()> {
        let sequences = &call.sequences;
        sequences.check(q_tokens, kv_tokens)?;
        let n = sequences.count();
        for (name, list) in [("key_lengths", call.key_lengths), ("positions", call.positions)] {
            if let Some(list) = list
                && list.len() != n
            {
                return Err(Error::shape(name, format_args!("one for each of {n} sequences"), list.len()));
            }
        }
        for (b, &len) in call.key_lengths.unwrap_or_default().iter().enumerate() {
            let (first, last) = sequences.keys(b);
            if len > last - first {
                return Err(Error::index(
                    "key_lengths",
                    b,
                    format_args!("at most {} keys", last - first),
                    len,
                ));
            }
        }
        if let Some((b, position)) =
            call.positions.unwrap_or_default().iter().enumerate().find(|(_, p)| **p > MAX_POSITION)
        {
            return Err(Error::index("positions", b, format_args!("at most {MAX_POSITION}"), position));
        }
        let (q_len, kv_len) = sequences.longest();
        if let Some(bias) = call.bias {
            let dims = [
                ("batch", bias.batch, n, true),
                ("heads", bias.heads, self.num_heads, true),
                ("queries", bias.queries, q_len, true),
                ("keys", bias.keys, kv_len, false),
            ];
            for (name, got, needed, broadcast) in dims {
                if got < needed && !(broadcast && got == 1) || name == "heads" && got > needed {
                    let one = if broadcast { "1 or " } else { "" };
                    let expected = format_args!("{one}{needed} {name}");
                    return Err(Error::shape("bias", expected, got));
                }
            }
        }
        if let Some(mask) = call.block_mask {
            let (rows, cols) = (q_len.div_ceil(mask.block_q), kv_len.div_ceil(mask.block_k));
            if mask.rows < rows || mask.cols < cols {
                let expected =
                    format_args!("at least {rows} x {cols} blocks of {} x {}", mask.block_q, mask.block_k);
                return Err(Error::shape(
                    "block_mask",
                    expected,
                    format_args!("{} x {}", mask.rows, mask.cols),
                ));
            }
        }
        if let Some(gates) = call.gates
            && (gates.rows(), gates.cols()) != (q_tokens, self.num_heads)
        {
            let expected = format_args!("{q_tokens} tokens x {} heads", self.num_heads);
            return Err(Error::shape("gates", expected, format_args!("{} x {}", gates.rows(), gates.cols())));
        }
        Ok(())
    }
}

/// Positions are added to lengths.
const MAX_POSITION: usize = 1 << 40;
/// Keys are counted in bytes of their scores.
const MAX_KEYS: usize = 1 << 40;
/// Times log2 e it is a float.
const MAX_SCALE: f32 = 1e38;
