//! Linear attention over binary codes.

use super::BitCodes;
use super::hash::check_head_dim;
use crate::attention::{HeadsMut, Input, Sequences};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::driver::ecoformer::{self as driver, Attend};

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
/// The sums of 512 tokens are one chain of additions, those of more are added up in order: the same bits on every tier and for any
/// number of threads. Values of bytes are summed as integers, exactly for up to 65,793 tokens. A value that is infinite or NaN
/// reaches all queries that meet it.
///
/// ```
/// use siskin::attention::{HeadsMut, HeadsRef, Input, Sequences};
/// use siskin::ecoformer::{BitCodes, LinearAttention, Numerator};
/// use siskin::{Ctx, Scratch};
///
/// let codes = BitCodes::from_words(vec![0b11, 0b11, 0b00], 2)?; // 3 tokens of one head
/// let v = [1.0f32, 2.0, 6.0];
/// let mut out = [0.0f32; 3];
/// let attention = LinearAttention::new(1, 2)?.numerator(Numerator::Consistent);
/// let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
/// attention.forward(
///     &codes,
///     &codes,
///     Input::F32(HeadsRef::new(&v, 3, 1, 1)?),
///     &Sequences::own(1, 3),
///     HeadsMut::new(&mut out, 3, 1, 1)?,
///     &ctx,
///     &mut scratch,
/// )?;
/// assert!((out[0] - (5.0 * 1.0 + 5.0 * 2.0 + 1.0 * 6.0) / 11.0).abs() < 1e-6);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LinearAttention {
    pub(super) heads: usize,
    pub(super) bits: usize,
    pub(super) numerator: Numerator,
    pub(super) causal: bool,
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
        Ok(Self { heads, bits, numerator: Numerator::default(), causal: false })
    }

    /// What the bias multiplies.
    #[must_use]
    pub fn numerator(mut self, numerator: Numerator) -> Self {
        self.numerator = numerator;
        self
    }

    /// Each query meets the keys up to its own. Of the consistent form only: the published one has none.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// The context of all queries: `out`, `[tokens, heads, head_dim]` as v. Codes are head by head, as
    /// [`KernelHash::encode`](super::KernelHash::encode) writes them; EcoFormer's q and k are the same. Nothing is allocated after the
    /// first call with the same scratch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the codes are not those of all heads and tokens of v, `out` is not as v, a sequence has not as many keys as
    /// queries, or it all does not fit memory; [`Error::Value`] if a head has not 1 to 256 features, or bytes come with parameters of
    /// another type; [`Error::Index`] if `cu_seqlens` are wrong; [`Error::Unsupported`] if the published form is to be causal.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        q: &BitCodes,
        k: &BitCodes,
        v: Input<'_>,
        sequences: &Sequences<'_>,
        out: HeadsMut<'_, f32>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (tokens, heads, head_dim) = v.shape();
        self.check(q, k, tokens)?;
        if heads != self.heads {
            return Err(Error::shape("v", format_args!("{} heads", self.heads), heads));
        }
        check_head_dim(head_dim)?;
        v.check("v")?;
        let shape = (out.tokens(), out.heads(), out.head_dim());
        if shape != v.shape() {
            return Err(Error::shape("out", format_args!("{:?}", v.shape()), format_args!("{shape:?}")));
        }
        sequences.check(tokens, tokens)?;
        sequences.check_own()?;
        let released = self.numerator == Numerator::Released;
        if released && self.causal {
            return Err(Error::unsupported(
                "numerator",
                "the consistent one, to be causal",
                "the released one",
            ));
        }
        let (q, k) = (q.words(), k.words());
        let (heads, bits, sequences, causal) = (self.heads, self.bits, *sequences, self.causal);
        let job = Attend { heads, bits, q, k, v, sequences, released, causal };
        driver::attend(&job, out, ctx, &mut scratch.ecoformer)
    }

    /// Whether these are the codes of so many tokens.
    pub(super) fn check(&self, q: &BitCodes, k: &BitCodes, tokens: usize) -> Result<()> {
        for (name, codes) in [("q", q), ("k", k)] {
            if Some(codes.len()) != tokens.checked_mul(self.heads) || codes.bits() != self.bits {
                return Err(Error::shape(
                    name,
                    format_args!("codes of {} heads x {tokens} tokens, {} bits each", self.heads, self.bits),
                    format_args!("{} of {}", codes.len(), codes.bits()),
                ));
            }
        }
        Ok(())
    }
}
