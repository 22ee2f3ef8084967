//! Causal linear attention, token by token.

use super::hash::check_head_dim;
use super::{BitCodes, LinearAttention, Numerator};
use crate::attention::{HeadsMut, Input};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::driver::ecoformer::State;

/// One sequence that grows: append tokens, and ask for the context of queries that meet all of them. What is kept does not grow:
/// `heads * (2 * (bits + 1) + 32) * head_dim` floats, whatever the number of tokens.
///
/// The context is that of [`LinearAttention::causal`] with [`Numerator::Consistent`] at the same token, bit for bit. Codes need a
/// [frozen](super::Bandwidth::Frozen) bandwidth: with one of the sequence's own, each token would change those before.
///
/// ```
/// use siskin::attention::{HeadsMut, HeadsRef, Input};
/// use siskin::ecoformer::{BitCodes, LinearAttention, Numerator, Stream};
/// use siskin::{Ctx, Scratch};
///
/// let attention = LinearAttention::new(1, 2)?.numerator(Numerator::Consistent);
/// let mut stream = Stream::new(&attention, 1)?;
/// let ctx = Ctx::new()?;
/// for (code, value) in [(0b11, 1.0f32), (0b11, 2.0), (0b00, 6.0)] {
///     let code = BitCodes::from_words(vec![code], 2)?;
///     stream.append(&code, Input::F32(HeadsRef::new(&[value], 1, 1, 1)?))?;
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
        if attention.numerator == Numerator::Released {
            return Err(Error::unsupported(
                "numerator",
                "the consistent one, to be causal",
                "the released one",
            ));
        }
        let LinearAttention { heads, bits, .. } = *attention;
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

    /// Tokens in order: the codes of their keys, head by head, and v, `[tokens, heads, head_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the codes are not those of all heads and tokens of v, or v has other heads or features; [`Error::Value`] if
    /// bytes come with parameters of another type, or with another scale than before. Nothing was appended then.
    pub fn append(&mut self, k: &BitCodes, v: Input<'_>) -> Result<()> {
        let (tokens, heads, head_dim) = v.shape();
        if (heads, head_dim) != (self.attention.heads, self.head_dim) {
            let expected = format_args!("{} heads of {} features", self.attention.heads, self.head_dim);
            return Err(Error::shape("v", expected, format_args!("{heads} of {head_dim}")));
        }
        self.attention.check(k, k, tokens)?;
        v.check("v")?;
        if tokens == 0 {
            return Ok(());
        }
        let params = |head: usize| match &v {
            Input::U8(_, params) | Input::I8(_, params) => {
                (params.of(head).scale(), params.of(head).zero_point())
            }
            _ => (1.0, 0),
        };
        for (head, &scale) in self.scales.iter().enumerate() {
            if params(head).0 != scale {
                return Err(Error::value("v", format_args!("a scale of {scale}, as before"), params(head).0));
            }
        }
        if self.scales.is_empty() {
            self.scales.extend((0..heads).map(|head| params(head).0));
        }
        for head in 0..heads {
            let zero = params(head).1;
            for token in 0..tokens {
                let code = k.code(head * tokens + token);
                self.state.append(head, code, |out| match &v {
                    Input::F32(v) => out.copy_from_slice(v.head(token, head)),
                    Input::Bf16(v) => {
                        out.iter_mut().zip(v.head(token, head)).for_each(|(out, v)| *out = v.to_f32());
                    }
                    Input::F16(v) => {
                        out.iter_mut().zip(v.head(token, head)).for_each(|(out, v)| *out = v.to_f32());
                    }
                    Input::U8(v, _) => {
                        let v = v.head(token, head);
                        out.iter_mut().zip(v).for_each(|(out, v)| *out = (i32::from(*v) - zero) as f32);
                    }
                    Input::I8(v, _) => {
                        let v = v.head(token, head);
                        out.iter_mut().zip(v).for_each(|(out, v)| *out = (i32::from(*v) - zero) as f32);
                    }
                });
            }
        }
        self.tokens += tokens;
        Ok(())
    }

    /// The context of queries, each of which meets all tokens so far: their codes, head by head, to `[queries, heads, head_dim]`.
    /// On the calling thread.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no tokens, the codes are not those of all heads and queries, or `out` has other heads or features.
    pub fn query(&self, q: &BitCodes, mut out: HeadsMut<'_, f32>, ctx: &Ctx) -> Result<()> {
        let (queries, heads, head_dim) = (out.tokens(), out.heads(), out.head_dim());
        if (heads, head_dim) != (self.attention.heads, self.head_dim) {
            let expected = format_args!("{} heads of {} features", self.attention.heads, self.head_dim);
            return Err(Error::shape("out", expected, format_args!("{heads} of {head_dim}")));
        }
        self.attention.check(q, q, queries)?;
        if self.tokens == 0 {
            return Err(Error::shape("stream", "at least 1 token", 0));
        }
        for head in 0..heads {
            for query in 0..queries {
                let code = q.code(head * queries + query);
                let scale = f64::from(self.scales[head]);
                self.state.query(head, code, scale, ctx.isa(), out.head_mut(query, head));
            }
        }
        Ok(())
    }
}
