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

/// Quantizers inside attention of bytes.
///
/// Weights are rounded to u8 with zero point 0. By default each 512 keys of a query's sequence (a chunk, from the first key on)
/// have a step of their own, the largest weight `w` among them / 255, and what rounding changed is made good by their sum:
///
/// ```text
/// q_j     = round_half_even(255 * w_j / max w)                             j: the keys of a chunk
/// context = sum over chunks of (sum of w_j) * (sum of q_j v_j) / (sum of q_j)
/// ```
///
/// So the weights of every length have all 8 bits, and v that are all alike come out as they are, times the sum of the weights where
/// a clip has changed it. Where v has a scale for each token ([`HeadParams::PerToken`](crate::HeadParams)) `w_j` is the weight times
/// the scale of token j. A chunk whose largest `w` is below 2^-100 (times `zeta - gamma` of a clip, times the largest scale of the
/// chunk's tokens) counts as nothing.
///
/// The authors of Quantizable Transformers give all weights one step ([`AttentionQuantizers::weights_scale`]): with 1/255, every weight
/// below 1/510 becomes 0, which of 511 keys that weigh the same are all.
///
/// ```
/// use siskin::attention::AttentionQuantizers;
/// use siskin::quant::QuantParams;
///
/// let quantizers = AttentionQuantizers::default().scores(QuantParams::u8(0.05, 128)?).weights_scale(0.5 / 255.0);
/// assert_eq!(quantizers.context, None);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct AttentionQuantizers {
    /// Of the scaled scores, before the mask; they are not quantized where there is none.
    pub scores: Option<QuantParams>,
    /// One real size of a step for all weights; where there is none each chunk of a row has its own.
    pub weights_scale: Option<f32>,
    /// Of the context before the gate, as OPT has it. That after the gate, as BERT has it, is the output's own.
    pub context: Option<QuantParams>,
}

impl AttentionQuantizers {
    /// With this quantizer of the scaled scores, or with none.
    #[must_use]
    pub fn scores(mut self, scores: impl Into<Option<QuantParams>>) -> Self {
        self.scores = scores.into();
        self
    }

    /// With one step for all weights, of this real size, a positive normal number; or with steps of their own for each 512 keys. There
    /// is no one step where each token of v has a scale.
    #[must_use]
    pub fn weights_scale(mut self, weights_scale: impl Into<Option<f32>>) -> Self {
        self.weights_scale = weights_scale.into();
        self
    }

    /// With steps of 1/255 for all weights: the range of a softmax, as the authors of Quantizable Transformers have it before they
    /// calibrate.
    #[must_use]
    pub fn with_authors_weights_scale(self) -> Self {
        self.weights_scale(1.0 / 255.0)
    }

    /// With this quantizer of the context before the gate, or with none.
    #[must_use]
    pub fn context(mut self, context: impl Into<Option<QuantParams>>) -> Self {
        self.context = context.into();
        self
    }
}

/// How much of a call was not computed, and what rounding weights to bytes changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttentionStats {
    /// Pairs of a query and a key that it attends to by lengths, positions and blocks, whatever the bias, over all heads; in
    /// uniform rows all keys.
    pub pairs: u64,
    /// Pairs whose weight is exactly 0, where the softmax is clipped; of bytes those whose rounded weight is.
    pub zeros: u64,
    /// Pairs of weight 0 whose v was not multiplied: some queries and 512 keys at a time, so this depends on the tier and on threads.
    pub skipped: u64,
    /// What rounding took from the rows, or gave them.
    pub(super) lost: Lost,
}

/// How far the sums of weights of rows are off once the weights are bytes, as parts of the sums before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Rows whose weights are not all 0.
    pub rows: u64,
    /// Of all of them, in steps of 2^-32: integers, so that the order in which rows are finished is no matter.
    pub sum: u64,
    /// The largest.
    pub most: u64,
}

impl Lost {
    const ONE: f32 = (1u64 << 32) as f32;

    /// Counts a row: the sum of its weights, and that of its rounded ones.
    pub fn count(&mut self, exact: f32, rounded: f32) {
        // A row that is NaN is none.
        if exact > 0.0 {
            let part = ((exact - rounded).abs() / exact * Self::ONE) as u64;
            self.rows += 1;
            self.sum = self.sum.saturating_add(part);
            self.most = self.most.max(part);
        }
    }
}

impl AttentionStats {
    /// Of attention of bytes, by how much of a query's weight the sum of its rounded weights is off, on average over queries and
    /// heads: 0 is nothing, 1 all of it. With steps of their own ([`AttentionQuantizers`]) that is made good by their sum, and only how
    /// weight is shared among keys changes; with one step for all that much is missing from the context, or too much in it.
    pub fn lost_weight(&self) -> f64 {
        if self.lost.rows == 0 {
            0.0
        } else {
            self.lost.sum as f64 / f64::from(Lost::ONE) / self.lost.rows as f64
        }
    }

    /// As [`AttentionStats::lost_weight`], of the query and head that lost most.
    pub fn most_lost_weight(&self) -> f64 {
        self.lost.most as f64 / f64::from(Lost::ONE)
    }

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
