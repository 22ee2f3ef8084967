//! Linear attention over binary codes.

use super::BitCodes;
use super::hash::check_head_dim;
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::sequences::Sequences;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::driver::ecoformer::{self as driver, Attend, Layer};

/// What the bias of the similarity multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerator {
    /// The token's own value, as the published code has it, with which the published checkpoints were trained. Weights do not sum to
    /// 1 then, for the denominator counts the bias of all tokens.
    #[default]
    Released,
    /// The sum of all values: the mean of the values, weighted by `q·k + c`.
    Consistent,
}

/// EcoFormer's attention (section 4.2; `pvt/performer.py` of its code), for codes q and k of +1 and -1, c = bits + 1:
///
/// ```text
/// released     out_i = (q_i · Σ_j k_j v_jᵀ + c v_i)       / (q_i · Σ_j k_j + N c)
/// consistent   out_i = Σ_j (q_i · k_j + c) v_j            / Σ_j (q_i · k_j + c)       each weight 1 to 2 bits + 1, over their sum
/// ```
///
/// There is no scale and no softmax. Time and memory are linear in the number of tokens: the sums over j are made once, each is of
/// values added or subtracted, and each query looks its product up, four bits of its code at a time.
///
/// Sums are taken of 512 tokens at a time, and those of more are added up in order: the same bits on every tier and for any number of
/// threads. Without causality a value is first added to the sum of all whose keys have the same four bits. Values of bytes are summed
/// as integers, exactly for up to 65,793 tokens. A value that is infinite or NaN reaches all queries that attend to it.
///
/// ```
/// use siskin::ecoformer::{BitCodes, LinearAttention, LinearAttentionInputs, Numerator, Sequences};
/// use siskin::{Ctx, HeadsMut, HeadsRef, Scratch};
///
/// let codes = BitCodes::from_words(vec![0b11, 0b11, 0b00], 2)?; // 3 tokens of one head
/// let v = [1.0f32, 2.0, 6.0];
/// let mut out = [0.0f32; 3];
/// let attention = LinearAttention::new(1, 2)?.numerator(Numerator::Consistent);
/// let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
/// let inputs = LinearAttentionInputs::new(&codes, &codes, HeadsRef::new(&v, 3, 1, 1)?);
/// attention.forward(inputs, &Sequences::own(1, 3), HeadsMut::new(&mut out, 3, 1, 1)?, &ctx, &mut scratch)?;
/// assert!((out[0] - (5.0 * 1.0 + 5.0 * 2.0 + 1.0 * 6.0) / 11.0).abs() < 1e-6);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearAttention {
    pub(super) layer: Layer,
}

/// The codes of queries and keys, which are the same in EcoFormer, and the values of a call.
#[derive(Debug, Clone, Copy)]
pub struct LinearAttentionInputs<'a> {
    /// Head by head, as [`KernelHash::encode`](super::KernelHash::encode) writes them.
    pub q: &'a BitCodes,
    /// Head by head, as q.
    pub k: &'a BitCodes,
    /// `[tokens, heads, head_dim]`, of any element type.
    pub v: TensorRef<'a>,
}

impl<'a> LinearAttentionInputs<'a> {
    /// Any codes and values: [`LinearAttention::forward`] checks whether they fit.
    pub fn new(q: &'a BitCodes, k: &'a BitCodes, v: impl Into<TensorRef<'a>>) -> Self {
        Self { q, k, v: v.into() }
    }
}

impl LinearAttention {
    /// Of so many heads, by codes of so many bits.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no heads; [`Error::Value`] if `bits` is not 1 to 256.
    pub fn new(heads: usize, bits: usize) -> Result<Self> {
        if heads == 0 {
            return Err(Error::shape("heads", "at least 1", heads));
        }
        super::codes::check_bits(bits)?;
        Ok(Self { layer: Layer { heads, bits, released: true, causal: false } })
    }

    /// What the bias multiplies: [`Numerator::Released`] unless set here.
    #[must_use]
    pub fn numerator(mut self, numerator: Numerator) -> Self {
        self.layer.released = numerator == Numerator::Released;
        self
    }

    /// Each query attends to the keys up to its own. Of the consistent form only: the published one has none.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.layer.causal = true;
        self
    }

    /// The context of all queries: `out`, `[tokens, heads, head_dim]` as v, of floats, which are rounded to nearest even, or of bytes,
    /// which are quantized. Nothing is allocated after the largest call with the same scratch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the codes are not those of all heads and tokens of v, `out` is not as v, a sequence has not as many keys as
    /// queries, or it all does not fit memory; [`Error::Value`] if a head has not 1 to 256 features; [`Error::Index`] if `cu_seqlens`
    /// are wrong; [`Error::Unsupported`] if the published form is to be causal, if bytes come with parameters of another type, or if
    /// `out` is neither of floats nor of bytes. Nothing was written then.
    pub fn forward<'a>(
        &self,
        inputs: LinearAttentionInputs<'_>,
        sequences: &Sequences<'_>,
        out: impl Into<TensorMut<'a>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (LinearAttentionInputs { q, k, v }, out) = (inputs, out.into());
        let (tokens, heads, head_dim) = v.shape();
        self.check(q, k, tokens)?;
        if heads != self.layer.heads {
            return Err(Error::shape("v", format_args!("{} heads", self.layer.heads), heads));
        }
        check_head_dim(head_dim)?;
        v.check_by_heads("v")?;
        if out.shape() != v.shape() {
            return Err(Error::shape("out", format!("{:?}", v.shape()), format!("{:?}", out.shape())));
        }
        out.check_reals("out")?;
        sequences.check(tokens, tokens)?;
        sequences.check_own()?;
        if self.layer.causal {
            self.check_consistent()?;
        }
        let call = Attend { layer: &self.layer, q: q.words(), k: k.words(), v, sequences: *sequences };
        driver::attend(&call, out, ctx, scratch)
    }

    /// Whether the form can be causal.
    pub(super) fn check_consistent(&self) -> Result<()> {
        if self.layer.released {
            return Err(Error::unsupported(
                "numerator",
                "the consistent one, to be causal",
                "the released one",
            ));
        }
        Ok(())
    }

    /// Whether these are the codes of so many tokens.
    pub(super) fn check(&self, q: &BitCodes, k: &BitCodes, tokens: usize) -> Result<()> {
        for (name, codes) in [("q", q), ("k", k)] {
            if Some(codes.len()) != tokens.checked_mul(self.layer.heads) || codes.bits() != self.layer.bits {
                let Layer { heads, bits, .. } = self.layer;
                return Err(Error::shape(
                    name,
                    format_args!("codes of {heads} heads x {tokens} tokens, {bits} bits each"),
                    format_args!("{} of {}", codes.len(), codes.bits()),
                ));
            }
        }
        Ok(())
    }
}
