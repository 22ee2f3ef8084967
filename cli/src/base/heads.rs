//! Tensors of tokens and heads in files.

use super::data::{Data, Place, Quantizers};
use super::error::{Error, Result};
use super::lengths::Lengths;
use super::tensors::Tensors;
use safetensors::tensor::TensorView;
use std::fmt;

/// How many tokens there are, and of how many heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Of four dimensions the first.
    pub batch: Option<usize>,
    /// Of a sequence, where there is a batch.
    pub len: usize,
    pub heads: usize,
}

impl Shape {
    /// Of a tensor, and the numbers of a head.
    pub fn of(name: &str, tensor: &TensorView<'_>) -> Result<(Self, usize)> {
        let (batch, len, heads, each) = match *tensor.shape() {
            [tokens, heads, each] => (None, tokens, heads, each),
            [batch, len, heads, each] => (Some(batch), len, heads, each),
            _ => return Err(Error::input(name, "3 or 4 dimensions", format_args!("{:?}", tensor.shape()))),
        };
        // What has nothing in it takes no room in a file, but could here.
        if heads == 0 || each == 0 || batch.unwrap_or(1) > 1 << 24 {
            let expected = "heads, numbers in them, and at most 2^24 sequences";
            return Err(Error::input(name, expected, format_args!("{:?}", tensor.shape())));
        }
        Ok((Self { batch, len, heads }, each))
    }

    pub fn tokens(&self) -> usize {
        self.batch.unwrap_or(1) * self.len
    }

    /// As that of a tensor with so many numbers a head.
    pub fn with(&self, each: usize) -> Vec<usize> {
        self.batch.into_iter().chain([self.len, self.heads, each]).collect()
    }

    /// How tokens belong to sequences: those of a batch, packed ones, or one.
    pub fn lengths(&self, t: &mut Tensors<'_>) -> Result<Lengths> {
        match (t.has("cu_seqlens"), self.batch) {
            (true, Some(_)) => Err(Error::input("cu_seqlens", "none for tokens of 4 dimensions", "one")),
            (true, None) => {
                let ends = cu_seqlens(t, "cu_seqlens", self.len)?;
                Ok(Lengths::Packed { q: ends.clone(), kv: ends })
            }
            (false, batch) => {
                Ok(Lengths::Batch { batch: batch.unwrap_or(1), q_len: self.len, kv_len: self.len })
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(batch) = self.batch {
            write!(f, "{batch} sequences of ")?;
        }
        write!(f, "{} tokens of {} heads", self.len, self.heads)
    }
}

/// Where packed sequences of so many tokens begin and end.
pub fn cu_seqlens(t: &mut Tensors<'_>, name: &str, tokens: usize) -> Result<Vec<i32>> {
    let list: Vec<i32> = t.indices(name)?;
    let rises = list.first() == Some(&0) && list.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rises || list.last().is_none_or(|&last| last as usize != tokens) {
        let expected = format_args!("0 to {tokens}, which is all tokens, and never falling");
        return Err(Error::input(name, expected, "other numbers"));
    }
    Ok(list)
}

/// A tensor of tokens, and the quantizers of one of bytes.
pub struct Heads {
    pub data: Data,
    pub params: Quantizers,
    pub shape: Shape,
    pub place: Place,
}

impl Heads {
    pub fn take(t: &mut Tensors<'_>, name: &str) -> Result<Self> {
        let tensor = t.view(name)?;
        let (shape, head_dim) = Shape::of(name, &tensor)?;
        let data = Data::read(name, &tensor)?;
        let by_token = data.is_bytes() && t.has(&format!("{name}_token_scale"));
        let params = match data.quant() {
            None => Vec::new(),
            Some(dtype) if by_token => t.token_quantizers(name, shape.tokens(), dtype)?,
            Some(dtype) => t.quantizers(name, dtype)?,
        };
        let params = Quantizers { params, by_token };
        let place = Place::by_tokens(shape.tokens(), shape.heads, head_dim);
        Ok(Self { data, params, shape, place })
    }
}
