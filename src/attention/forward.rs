//! The attention of a layer, and the call.

use super::{AttentionQuantizers, AttentionStats, Bias, BlockMask, EmptyRow, Sequences, Softmax};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::view::MatRef;
use crate::driver::attention::{self as driver, Layer, Problem};
use crate::driver::tensor::MAX_HEAD_DIM;

/// What scores are multiplied by is at most so large: times log2 e it is a float.
pub(super) const MAX_SCALE: f32 = 1e38;

/// The attention of a layer: what stays the same from call to call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    pub(super) layer: Layer,
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
        let layer = Layer {
            num_heads,
            num_kv_heads,
            head_dim,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            clipped: None,
            causal: false,
            window: None,
            uniform: false,
        };
        Ok(Self { layer })
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
        self.layer.scale = scale;
        Ok(self)
    }

    /// What turns scores into weights.
    #[must_use]
    pub fn softmax(mut self, softmax: impl Into<Softmax>) -> Self {
        self.layer.clipped = match softmax.into() {
            Softmax::Standard => None,
            Softmax::Clipped(clipped) => Some((clipped.gamma(), clipped.zeta())),
        };
        self
    }

    /// A query attends to no key behind its own position. Query i of a sequence is at position `kv_len - q_len + i` unless
    /// [`AttentionCall::positions`] says otherwise: so a query that comes alone attends to the whole cache.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.layer.causal = true;
        self
    }

    /// A query at position p attends to the keys `p - left ..= p + right` only. Positions are as for [`Attention::causal`], which may
    /// limit the right further.
    #[must_use]
    pub fn window(mut self, left: usize, right: usize) -> Self {
        self.layer.window = Some((left, right));
        self
    }

    /// What becomes of a query that has no key to attend to.
    #[must_use]
    pub fn empty_rows(mut self, empty_rows: EmptyRow) -> Self {
        self.layer.uniform = empty_rows == EmptyRow::Uniform;
        self
    }
}

/// q, k and v of a call, `[tokens, heads, head_dim]` each: all of floats, of any types, or all of bytes, of any types and parameters.
///
/// bfloat16 is multiplied in pairs where q, k and v are all of it and [`Ctx::pairs_bf16`]; else, as f16, it is widened.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `[q tokens, num_heads, head_dim]`.
    pub q: TensorRef<'a>,
    /// `[kv tokens, num_kv_heads, head_dim]`.
    pub k: TensorRef<'a>,
    /// `[kv tokens, num_kv_heads, head_dim]`.
    pub v: TensorRef<'a>,
}

impl<'a> AttentionInputs<'a> {
    /// Any three tensors: [`Attention::forward`] checks whether they fit.
    pub fn new(
        q: impl Into<TensorRef<'a>>,
        k: impl Into<TensorRef<'a>>,
        v: impl Into<TensorRef<'a>>,
    ) -> Self {
        Self { q: q.into(), k: k.into(), v: v.into() }
    }
}

/// What changes from call to call, beside q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct AttentionCall<'a> {
    pub(super) call: driver::Call<'a>,
}

impl<'a> AttentionCall<'a> {
    /// No mask, no gate.
    pub fn new(sequences: Sequences<'a>) -> Self {
        let call = driver::Call {
            sequences,
            key_lengths: None,
            positions: None,
            bias: None,
            block_mask: None,
            gates: None,
            quantizers: AttentionQuantizers::default(),
        };
        Self { call }
    }

    /// Of sequence b only the first `key_lengths[b]` keys are attended to: those behind are padding.
    #[must_use]
    pub fn key_lengths(mut self, key_lengths: &'a [usize]) -> Self {
        self.call.key_lengths = Some(key_lengths);
        self
    }

    /// The position of each sequence's first query, for causal and window; `kv_len - q_len` where not given.
    #[must_use]
    pub fn positions(mut self, positions: &'a [usize]) -> Self {
        self.call.positions = Some(positions);
        self
    }

    /// Added to the scaled scores.
    #[must_use]
    pub fn bias(mut self, bias: Bias<'a>) -> Self {
        self.call.bias = Some(bias);
        self
    }

    /// Which tiles of scores are computed: queries attend to no key of the others.
    #[must_use]
    pub fn block_mask(mut self, block_mask: BlockMask<'a>) -> Self {
        self.call.block_mask = Some(block_mask);
        self
    }

    /// `[q tokens, num_heads]`: what each head's context is multiplied by, for instance by a gate
    /// ([`super::Gate::evaluate`]).
    #[must_use]
    pub fn gates(mut self, gates: MatRef<'a, f32>) -> Self {
        self.call.gates = Some(gates);
        self
    }

    /// Quantizers of attention of bytes; of floats they are not read.
    #[must_use]
    pub fn quantizers(mut self, quantizers: AttentionQuantizers) -> Self {
        self.call.quantizers = quantizers;
        self
    }
}

impl Attention {
    /// Attention of q over k and v, to `out`, `[q tokens, num_heads, head_dim]`: floats, which are rounded to nearest even, or bytes,
    /// which are quantized after the gate.
    ///
    /// Memory is `O((tile + 2 * head_dim) * keys)` a thread, of the longest sequence, from `scratch`: scores of a tile, and k and v as
    /// tiles take them; of calls with few queries (16 rows of q for a head of k) the scores of all of them, for which calls with many reserve
    /// the memory too.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Index`] if a shape, a length or a sequence does not fit, or there is not enough memory;
    /// [`Error::Value`] if scales multiply to no float; [`Error::Unsupported`] if some of q, k and v are floats and others bytes, if
    /// bytes come with parameters of another type, or tokens with several zero points, if tokens of v have scales and weights one step,
    /// or if `out` is neither of floats nor of bytes. Nothing was written then.
    pub fn forward<'a>(
        &self,
        inputs: AttentionInputs<'_>,
        call: &AttentionCall<'_>,
        out: impl Into<TensorMut<'a>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<AttentionStats> {
        let AttentionInputs { q, k, v } = inputs;
        let (problem, out) = (Problem { layer: &self.layer, call: &call.call, q, k, v }, out.into());
        super::check::check(&problem, &out)?;
        driver::attention(&problem, out, ctx, scratch)
    }
}
