//! Causal linear attention, token by token.

use super::hash::check_head_dim;
use super::{BitCodes, LinearAttention};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::driver::ecoformer::State;

/// One sequence that grows: append tokens, and ask for the context of queries that attend to all of them. What is kept does not grow:
/// `heads * (2 * (bits + 1) + 32) * head_dim` floats, whatever the number of tokens.
///
/// The context is that of [`LinearAttention::causal`] with [`Numerator::Consistent`](super::Numerator::Consistent) at the same token, bit for bit. Codes need a
/// [frozen](super::Bandwidth::Frozen) bandwidth: with one of the sequence's own, each token would change those before.
///
/// ```
/// use siskin::ecoformer::{BitCodes, LinearAttention, Numerator, Stream};
/// use siskin::{Ctx, HeadsMut, HeadsRef};
///
/// let attention = LinearAttention::new(1, 2)?.numerator(Numerator::Consistent);
/// let mut stream = Stream::new(&attention, 1)?;
/// let ctx = Ctx::new()?;
/// for (code, value) in [(0b11, 1.0f32), (0b11, 2.0), (0b00, 6.0)] {
///     let code = BitCodes::from_words(vec![code], 2)?;
///     stream.append(&code, HeadsRef::new(&[value], 1, 1, 1)?)?;
/// }
/// let (query, mut out) = (BitCodes::from_words(vec![0b00], 2)?, [0.0f32]);
/// stream.query(&query, HeadsMut::new(&mut out, 1, 1, 1)?, &ctx)?;
/// assert_eq!(out[0], (1.0 * 1.0 + 1.0 * 2.0 + 5.0 * 6.0) / 7.0);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stream {
    attention: LinearAttention,
    head_dim: usize,
    tokens: usize,
    /// What a step of each head's values is, once there are any.
    scales: Vec<f32>,
    state: State,
}

impl Stream {
    /// No tokens yet, of an attention's heads and bits.
    ///
    /// # Errors
    /// [`Error::Value`] if a head has not 1 to 256 features; [`Error::Unsupported`] if the attention has the published numerator,
    /// which is not causal; [`Error::Shape`] if its heads do not fit memory.
    pub fn new(attention: &LinearAttention, head_dim: usize) -> Result<Self> {
        check_head_dim(head_dim)?;
        attention.check_consistent()?;
        let (heads, bits) = (attention.layer.heads, attention.layer.bits);
        let state = State::new(heads, bits, head_dim)
            .ok_or_else(|| Error::shape("heads", "as many as there is memory for", heads))?;
        Ok(Self { attention: *attention, head_dim, tokens: 0, scales: Vec::with_capacity(heads), state })
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// No tokens again, in the same memory.
    pub fn clear(&mut self) {
        self.tokens = 0;
        self.scales.clear();
        self.state.clear();
    }

    fn check_heads(&self, name: &'static str, heads: usize, head_dim: usize) -> Result<()> {
        let own = (self.attention.layer.heads, self.head_dim);
        if (heads, head_dim) != own {
            let expected = format_args!("{} heads of {} features", own.0, own.1);
            return Err(Error::shape(name, expected, format_args!("{heads} of {head_dim}")));
        }
        Ok(())
    }

    /// Tokens in order: the codes of their keys, head by head, and v, `[tokens, heads, head_dim]`, of any element type.
    ///
    /// # Errors
    /// [`Error::Shape`] if the codes are not those of all heads and tokens of v, or v has other heads or features; [`Error::Value`] if
    /// bytes have another scale than those before; [`Error::Unsupported`] if they come with parameters of another type. Nothing was
    /// appended then.
    pub fn append<'a>(&mut self, k: &BitCodes, v: impl Into<TensorRef<'a>>) -> Result<()> {
        let v = v.into();
        let (tokens, heads, head_dim) = v.shape();
        self.check_heads("v", heads, head_dim)?;
        self.attention.check(k, k, tokens)?;
        v.check_by_heads("v")?;
        if tokens == 0 {
            return Ok(());
        }
        for (head, &scale) in self.scales.iter().enumerate() {
            if v.affine(head).0 != scale {
                return Err(Error::value(
                    "v",
                    format_args!("a scale of {scale}, as before"),
                    v.affine(head).0,
                ));
            }
        }
        if self.scales.is_empty() {
            self.scales.extend((0..heads).map(|head| v.affine(head).0));
        }
        self.state.append(k.words(), &v);
        self.tokens += tokens;
        Ok(())
    }

    /// The context of queries, each of which attends to all tokens so far: their codes, head by head, to
    /// `[queries, heads, head_dim]`, of floats or of bytes. On the calling thread.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no tokens, the codes are not those of all heads and queries, or `out` has other heads or features;
    /// [`Error::Unsupported`] if `out` is of bytes with parameters of another type, or neither of floats nor of bytes. Nothing was
    /// written then.
    pub fn query<'a>(&self, q: &BitCodes, out: impl Into<TensorMut<'a>>, ctx: &Ctx) -> Result<()> {
        let out = out.into();
        let (queries, heads, head_dim) = out.shape();
        self.check_heads("out", heads, head_dim)?;
        out.check_reals("out")?;
        self.attention.check(q, q, queries)?;
        if self.tokens == 0 {
            return Err(Error::shape("stream", "at least 1 token", 0));
        }
        self.state.query(q.words(), &self.scales, out, ctx);
        Ok(())
    }
}
