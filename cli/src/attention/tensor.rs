//! Numbers of any type, and where `[tokens, heads, head_dim]` lies in them.

use crate::case::{XType, YType};
use crate::error::{Error, Result};
use siskin::attention::{HeadParams, HeadsMut, HeadsRef, Input, Output};
use siskin::quant::{QuantParams, QuantType};
use siskin::{bf16, f16};

/// What goes into attention, or comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

/// Where a tensor lies in a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub offset: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub token_stride: usize,
    pub head_stride: usize,
}

impl Place {
    /// `[tokens, heads, head_dim]`.
    pub fn by_tokens(tokens: usize, heads: usize, head_dim: usize) -> Self {
        let token_stride = heads * head_dim;
        Self { offset: 0, tokens, heads, head_dim, token_stride, head_stride: head_dim }
    }

    /// `[heads, tokens, head_dim]`.
    pub fn by_heads(tokens: usize, heads: usize, head_dim: usize) -> Self {
        let head_stride = tokens * head_dim;
        Self { offset: 0, tokens, heads, head_dim, token_stride: head_dim, head_stride }
    }

    /// The `i`th of three in `[tokens, 3, heads, head_dim]`.
    pub fn fused(i: usize, tokens: usize, heads: usize, head_dim: usize) -> Self {
        let one = heads * head_dim;
        Self { offset: i * one, tokens, heads, head_dim, token_stride: 3 * one, head_stride: head_dim }
    }

    /// Where a head of a token begins.
    pub fn at(&self, token: usize, head: usize) -> usize {
        self.offset + token * self.token_stride + head * self.head_stride
    }

    pub fn elements(&self) -> usize {
        self.tokens * self.heads * self.head_dim
    }
}

impl Data {
    pub fn zeros(dtype: YType, len: usize) -> Result<Self> {
        Ok(match dtype {
            YType::F32 => Data::F32(vec![0.0; len]),
            YType::Bf16 => Data::Bf16(vec![bf16::ZERO; len]),
            YType::F16 => Data::F16(vec![f16::ZERO; len]),
            YType::U8 => Data::U8(vec![0; len]),
            YType::I8 => Data::I8(vec![0; len]),
            YType::I32 => return Err(Error::input("y", "anything but i32", "i32")),
        })
    }

    /// Numbers as a type holds them, bytes by the quantizer of their head; `values` is `[tokens, heads, head_dim]`.
    pub fn from_floats(values: &[f32], dtype: XType, place: &Place, params: &[QuantParams]) -> Self {
        let byte = |(i, v): (usize, &f32)| of_head(params, i / place.head_dim % place.heads).quantize(*v);
        match dtype {
            XType::F32 => Data::F32(values.to_vec()),
            XType::Bf16 => Data::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
            XType::F16 => Data::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
            XType::U8 => Data::U8(values.iter().enumerate().map(|v| byte(v) as u8).collect()),
            XType::I8 => Data::I8(values.iter().enumerate().map(|v| byte(v) as i8).collect()),
        }
    }

    /// As many zeros of the same type.
    pub fn like(&self, len: usize) -> Self {
        match self {
            Data::F32(_) => Data::F32(vec![0.0; len]),
            Data::Bf16(_) => Data::Bf16(vec![bf16::ZERO; len]),
            Data::F16(_) => Data::F16(vec![f16::ZERO; len]),
            Data::U8(_) => Data::U8(vec![0; len]),
            Data::I8(_) => Data::I8(vec![0; len]),
        }
    }

    /// Copies a tensor that lies token by token to another place in a buffer of the same type.
    pub fn put(&mut self, from: &Data, place: &Place) {
        fn copy<T: Copy>(to: &mut [T], from: &[T], p: &Place) {
            for t in 0..p.tokens {
                for h in 0..p.heads {
                    let row = &from[(t * p.heads + h) * p.head_dim..][..p.head_dim];
                    to[p.at(t, h)..][..p.head_dim].copy_from_slice(row);
                }
            }
        }
        match (self, from) {
            (Data::F32(to), Data::F32(from)) => copy(to, from, place),
            (Data::Bf16(to), Data::Bf16(from)) => copy(to, from, place),
            (Data::F16(to), Data::F16(from)) => copy(to, from, place),
            (Data::U8(to), Data::U8(from)) => copy(to, from, place),
            (Data::I8(to), Data::I8(from)) => copy(to, from, place),
            _ => {}
        }
    }

    pub fn input<'a>(&'a self, p: &Place, params: &'a [QuantParams]) -> Result<Input<'a>> {
        let head_params = match params {
            [one] => HeadParams::All(*one),
            _ => HeadParams::PerHead(params),
        };
        Ok(match self {
            Data::F32(x) => Input::F32(view(x, p)?),
            Data::Bf16(x) => Input::Bf16(view(x, p)?),
            Data::F16(x) => Input::F16(view(x, p)?),
            Data::U8(x) => Input::U8(view(x, p)?, head_params),
            Data::I8(x) => Input::I8(view(x, p)?, head_params),
        })
    }

    pub fn output(&mut self, p: &Place, params: QuantParams) -> Result<Output<'_>> {
        Ok(match self {
            Data::F32(y) => Output::F32(view_mut(y, p)?),
            Data::Bf16(y) => Output::Bf16(view_mut(y, p)?),
            Data::F16(y) => Output::F16(view_mut(y, p)?),
            Data::U8(y) => Output::U8(view_mut(y, p)?, params),
            Data::I8(y) => Output::I8(view_mut(y, p)?, params),
        })
    }

    /// A head of a token; bytes as whole numbers.
    pub fn head(&self, p: &Place, token: usize, head: usize) -> Vec<f64> {
        let at = p.at(token, head)..p.at(token, head) + p.head_dim;
        match self {
            Data::F32(x) => x[at].iter().map(|&v| v.into()).collect(),
            Data::Bf16(x) => x[at].iter().map(|&v| v.into()).collect(),
            Data::F16(x) => x[at].iter().map(|&v| v.into()).collect(),
            Data::U8(x) => x[at].iter().map(|&v| v.into()).collect(),
            Data::I8(x) => x[at].iter().map(|&v| v.into()).collect(),
        }
    }

    pub fn is_bytes(&self) -> bool {
        matches!(self, Data::U8(_) | Data::I8(_))
    }

    /// Every bit of it.
    pub fn bits(&self) -> Vec<u32> {
        match self {
            Data::F32(x) => x.iter().map(|v| v.to_bits()).collect(),
            Data::Bf16(x) => x.iter().map(|v| v.to_bits().into()).collect(),
            Data::F16(x) => x.iter().map(|v| v.to_bits().into()).collect(),
            Data::U8(x) => x.iter().map(|&v| v.into()).collect(),
            Data::I8(x) => x.iter().map(|&v| (v as u8).into()).collect(),
        }
    }
}

fn view<'a, T: siskin::ElementType>(x: &'a [T], p: &Place) -> Result<HeadsRef<'a, T>> {
    // Where there are no tokens, there may be nothing at the offset either.
    let from = x.get(p.offset..).unwrap_or_default();
    Ok(HeadsRef::with_strides(from, p.tokens, p.heads, p.head_dim, p.token_stride, p.head_stride)?)
}

fn view_mut<'a, T: siskin::ElementType>(y: &'a mut [T], p: &Place) -> Result<HeadsMut<'a, T>> {
    let from = y.get_mut(p.offset..).unwrap_or_default();
    Ok(HeadsMut::with_strides(from, p.tokens, p.heads, p.head_dim, p.token_stride, p.head_stride)?)
}

/// The quantizer of a head: the one there is, or its own.
pub fn of_head(params: &[QuantParams], head: usize) -> QuantParams {
    params[if params.len() == 1 { 0 } else { head }]
}

/// The quantizer of the numbers that there are.
pub fn span(values: impl IntoIterator<Item = f64>, dtype: QuantType) -> Result<QuantParams> {
    let (low, high) = values.into_iter().fold((0f64, 0f64), |(low, high), v| (low.min(v), high.max(v)));
    Ok(QuantParams::from_range_asymmetric(low as f32, high as f32, dtype)?)
}
