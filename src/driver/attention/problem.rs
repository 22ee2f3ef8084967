//! What is computed: one description, which the family fills in and checks, and which everything below reads.

use crate::base::mask::{Bias, BlockMask};
use crate::base::params::QuantParams;
use crate::base::sequences::Sequences;
use crate::base::tensor::TensorRef;
use crate::base::view::MatRef;
use std::fmt;

/// The attention of a layer: what stays the same from call to call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Heads of q.
    pub num_heads: usize,
    /// Heads of k and v: a divisor.
    pub num_kv_heads: usize,
    /// Features of a head, at most [`MAX_HEAD_DIM`](crate::driver::tensor::MAX_HEAD_DIM).
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// gamma and zeta of a clipped softmax.
    pub clipped: Option<(f32, f32)>,
    /// No key behind the query's own position.
    pub causal: bool,
    /// Keys to the left and right of it.
    pub window: Option<(usize, usize)>,
    /// Whether a query without keys weighs all keys of its sequence alike.
    pub uniform: bool,
}

/// What changes from call to call, beside q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Which queries belong to which keys.
    pub sequences: Sequences<'a>,
    /// Keys of each sequence that are no padding.
    pub key_lengths: Option<&'a [usize]>,
    /// The position of the first query of each sequence.
    pub positions: Option<&'a [usize]>,
    /// Added to the scaled scores.
    pub bias: Option<Bias<'a>>,
    /// Which tiles of scores are computed.
    pub block_mask: Option<BlockMask<'a>>,
    /// `[q tokens, num_heads]`: what contexts are multiplied by.
    pub gates: Option<MatRef<'a, f32>>,
    /// Of bytes.
    pub quantizers: AttentionQuantizers,
}

/// One call: all of it checked.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// The call.
    pub call: &'a Call<'a>,
    /// `[tokens, num_heads, head_dim]`.
    pub q: TensorRef<'a>,
    /// `[tokens, num_kv_heads, head_dim]`, of floats or of bytes as q.
    pub k: TensorRef<'a>,
    /// `[tokens, num_kv_heads, head_dim]`, of floats or of bytes as q.
    pub v: TensorRef<'a>,
}

/// Quantizers inside attention of bytes (Quantizable Transformers, the authors' INT8 simulation).
///
/// ```
/// use siskin::attention::AttentionQuantizers;
/// use siskin::quant::QuantParams;
///
/// let quantizers = AttentionQuantizers::default().scores(QuantParams::u8(0.05, 128)?).weights_scale(0.5 / 255.0);
/// assert_eq!(quantizers.context, None);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AttentionQuantizers {
    /// Of the scaled scores, before the mask; they are not quantized where there is none.
    pub scores: Option<QuantParams>,
    /// The real size of a step of the weights, which are u8 with zero point 0.
    pub weights_scale: f32,
    /// Of the context before the gate, as OPT has it. That after the gate, as BERT has it, is the output's own.
    pub context: Option<QuantParams>,
}

impl Default for AttentionQuantizers {
    /// Scores and context are not quantized; weights have steps of 1/255.
    fn default() -> Self {
        Self { scores: None, weights_scale: 1.0 / 255.0, context: None }
    }
}

impl AttentionQuantizers {
    /// With this quantizer of the scaled scores, or with none.
    #[must_use]
    pub fn scores(mut self, scores: impl Into<Option<QuantParams>>) -> Self {
        self.scores = scores.into();
        self
    }

    /// With steps of the weights of this real size, which is a positive normal number.
    #[must_use]
    pub fn weights_scale(mut self, weights_scale: f32) -> Self {
        self.weights_scale = weights_scale;
        self
    }

    /// With this quantizer of the context before the gate, or with none.
    #[must_use]
    pub fn context(mut self, context: impl Into<Option<QuantParams>>) -> Self {
        self.context = context.into();
        self
    }
}

/// How much of a call was not computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttentionStats {
    /// Pairs of a query and a key that it attends to by lengths, positions and blocks, whatever the bias, over all heads; in
    /// uniform rows all keys.
    pub pairs: u64,
    /// Pairs whose weight is exactly 0, where the softmax is clipped.
    pub zeros: u64,
    /// Pairs of weight 0 whose v was not multiplied: whole tiles at a time, so this depends on the tier and on threads.
    pub skipped: u64,
}

impl AttentionStats {
    /// The share of pairs that were not multiplied, 0 to 1.
    pub fn share(&self) -> f64 {
        if self.pairs == 0 { 0.0 } else { self.skipped as f64 / self.pairs as f64 }
    }
}

impl fmt::Display for AttentionStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pairs, {} of weight 0, {} skipped", self.pairs, self.zeros, self.skipped)
    }
}
