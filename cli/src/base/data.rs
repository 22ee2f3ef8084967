//! Numbers of any type, and where `[tokens, heads, head_dim]` lies in them.

use super::error::{Error, Result};
use super::tensors::elements;
use super::types::XType;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use siskin::Element;
use siskin::quant::QuantParams;
use siskin::{HeadParams, HeadsMut, HeadsRef, TensorMut, TensorRef};
use siskin::{bf16, f16};

/// What goes into an operation, or comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

/// Evaluates an expression for the vector of whatever type it is.
macro_rules! each {
    ($data:expr, $x:ident => $value:expr) => {
        match $data {
            Data::F32($x) => $value,
            Data::Bf16($x) => $value,
            Data::F16($x) => $value,
            Data::U8($x) => $value,
            Data::I8($x) => $value,
        }
    };
}

/// As [`each`], with a vector of the type made of another.
macro_rules! map {
    ($data:expr, $x:ident => $value:expr) => {
        match $data {
            Data::F32($x) => Data::F32($value),
            Data::Bf16($x) => Data::Bf16($value),
            Data::F16($x) => Data::F16($value),
            Data::U8($x) => Data::U8($value),
            Data::I8($x) => Data::I8($value),
        }
    };
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

    pub fn view<'a, T: siskin::ElementType>(&self, x: &'a [T]) -> Result<HeadsRef<'a, T>> {
        // Where there are no tokens, there may be nothing at the offset either.
        let from = x.get(self.offset..).unwrap_or_default();
        let Self { tokens, heads, head_dim, .. } = *self;
        Ok(HeadsRef::with_strides(from, tokens, heads, head_dim, self.token_stride, self.head_stride)?)
    }

    fn view_mut<'a, T: siskin::ElementType>(&self, y: &'a mut [T]) -> Result<HeadsMut<'a, T>> {
        let from = y.get_mut(self.offset..).unwrap_or_default();
        let Self { tokens, heads, head_dim, .. } = *self;
        Ok(HeadsMut::with_strides(from, tokens, heads, head_dim, self.token_stride, self.head_stride)?)
    }
}

impl Data {
    pub fn zeros(dtype: XType, len: usize) -> Self {
        match dtype {
            XType::F32 => Data::F32(vec![0.0; len]),
            XType::Bf16 => Data::Bf16(vec![bf16::ZERO; len]),
            XType::F16 => Data::F16(vec![f16::ZERO; len]),
            XType::U8 => Data::U8(vec![0; len]),
            XType::I8 => Data::I8(vec![0; len]),
        }
    }

    /// Random numbers `[tokens, heads, head_dim]` of a place, and the quantizers of bytes that fit them.
    pub fn quantized(values: &[f32], dtype: XType, place: &Place, each: Each) -> Result<(Self, Quantizers)> {
        let params = match (dtype.quant(), each) {
            (None, _) => Vec::new(),
            (Some(quant), Each::Head) => {
                let of = |head: usize| {
                    let own = values.chunks_exact(place.head_dim).skip(head).step_by(place.heads).flatten();
                    span(own.map(|&v| v.into()), quant)
                };
                (0..place.heads).map(of).collect::<Result<_>>()?
            }
            (Some(quant), Each::Token) => {
                let of = |row: &[f32]| {
                    let most = row.iter().fold(0f32, |most, v| most.max(v.abs()));
                    let zero_point = if quant == Element::U8 { 128 } else { 0 };
                    QuantParams::new(if most == 0.0 { 1.0 } else { most / 127.0 }, zero_point, quant)
                };
                values.chunks_exact(place.heads * place.head_dim).map(of).collect::<siskin::Result<_>>()?
            }
            (Some(quant), Each::Tensor) => vec![span(values.iter().map(|&v| v.into()), quant)?],
        };
        let params = Quantizers { params, by_token: each == Each::Token };
        let byte = |(i, v): (usize, &f32)| {
            let (token, head) = (i / place.head_dim / place.heads, i / place.head_dim % place.heads);
            params.of(token, head).quantize(*v)
        };
        let data = match dtype {
            XType::U8 => Data::U8(values.iter().enumerate().map(|v| byte(v) as u8).collect()),
            XType::I8 => Data::I8(values.iter().enumerate().map(|v| byte(v) as i8).collect()),
            _ => Self::from_floats(values.iter().copied(), dtype),
        };
        Ok((data, params))
    }

    /// Numbers as a type of floats holds them; f32 for a type of bytes.
    pub fn from_floats(values: impl Iterator<Item = f32>, dtype: XType) -> Self {
        match dtype {
            XType::Bf16 => Data::Bf16(values.map(bf16::from_f32).collect()),
            XType::F16 => Data::F16(values.map(f16::from_f32).collect()),
            XType::F32 | XType::U8 | XType::I8 => Data::F32(values.collect()),
        }
    }

    /// A tensor of a file.
    pub fn read(name: &str, tensor: &TensorView<'_>) -> Result<Self> {
        Ok(match tensor.dtype() {
            Dtype::F32 => Data::F32(elements(tensor)),
            Dtype::BF16 => Data::Bf16(elements(tensor)),
            Dtype::F16 => Data::F16(elements(tensor)),
            Dtype::U8 => Data::U8(elements(tensor)),
            Dtype::I8 => Data::I8(elements(tensor)),
            other => return Err(Error::input(name, "F32, BF16, F16, U8 or I8", format_args!("{other:?}"))),
        })
    }

    /// As a tensor of a file.
    pub fn stored(&self) -> (Dtype, Vec<u8>) {
        let bytes = each!(self, x => x.iter().flat_map(|v| v.to_le_bytes()).collect());
        let dtype = match self {
            Data::F32(_) => Dtype::F32,
            Data::Bf16(_) => Dtype::BF16,
            Data::F16(_) => Dtype::F16,
            Data::U8(_) => Dtype::U8,
            Data::I8(_) => Dtype::I8,
        };
        (dtype, bytes)
    }

    /// What the numbers are quantized to, where they are bytes.
    pub fn quant(&self) -> Option<Element> {
        match self {
            Data::U8(_) => Some(Element::U8),
            Data::I8(_) => Some(Element::I8),
            Data::F32(_) | Data::Bf16(_) | Data::F16(_) => None,
        }
    }

    pub fn is_bytes(&self) -> bool {
        self.quant().is_some()
    }

    /// As many zeros of the same type.
    pub fn like(&self, len: usize) -> Self {
        fn zeros<T: Clone + Default>(_: &[T], len: usize) -> Vec<T> {
            vec![T::default(); len]
        }
        map!(self, x => zeros(x, len))
    }

    /// Some rows of a matrix with so many columns.
    pub fn rows(&self, rows: &[usize], cols: usize) -> Self {
        map!(self, x => rows.iter().flat_map(|r| &x[r * cols..][..cols]).copied().collect())
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

    pub fn input<'a>(&'a self, p: &Place, quantizers: &'a Quantizers) -> Result<TensorRef<'a>> {
        let head_params = match &quantizers.params[..] {
            params if quantizers.by_token => HeadParams::PerToken(params),
            [one] => HeadParams::All(*one),
            params => HeadParams::PerHead(params),
        };
        Ok(match self {
            Data::F32(x) => p.view(x)?.into(),
            Data::Bf16(x) => p.view(x)?.into(),
            Data::F16(x) => p.view(x)?.into(),
            Data::U8(x) => (p.view(x)?, head_params).into(),
            Data::I8(x) => (p.view(x)?, head_params).into(),
        })
    }

    pub fn output(&mut self, p: &Place, params: QuantParams) -> Result<TensorMut<'_>> {
        Ok(match self {
            Data::F32(y) => p.view_mut(y)?.into(),
            Data::Bf16(y) => p.view_mut(y)?.into(),
            Data::F16(y) => p.view_mut(y)?.into(),
            Data::U8(y) => (p.view_mut(y)?, params).into(),
            Data::I8(y) => (p.view_mut(y)?, params).into(),
        })
    }

    /// All of it, bytes as whole numbers.
    pub fn floats(&self) -> Vec<f32> {
        fn float<T: Copy + Into<f32>>(v: &T) -> f32 {
            (*v).into()
        }
        each!(self, x => x.iter().map(float).collect())
    }

    /// A head of a token; bytes as whole numbers.
    pub fn head(&self, p: &Place, token: usize, head: usize) -> Vec<f64> {
        each!(self, x => x[p.at(token, head)..][..p.head_dim].iter().map(|&v| v.into()).collect())
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

/// What the bytes of a tensor stand for: a quantizer for all, for each head or for each token; none for floats.
#[derive(Debug, Clone, Default)]
pub struct Quantizers {
    pub params: Vec<QuantParams>,
    pub by_token: bool,
}

/// What has a quantizer of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    Tensor,
    Head,
    Token,
}

impl Quantizers {
    /// That of a token's head.
    pub fn of(&self, token: usize, head: usize) -> QuantParams {
        match (self.by_token, self.params.len()) {
            (true, _) => self.params[token],
            (false, 1) => self.params[0],
            (false, _) => self.params[head],
        }
    }
}

/// The quantizer of the numbers that there are.
pub fn span(values: impl IntoIterator<Item = f64>, dtype: Element) -> Result<QuantParams> {
    let (low, high) = values.into_iter().fold((0f64, 0f64), |(low, high), v| (low.min(v), high.max(v)));
    Ok(QuantParams::from_range_asymmetric(low as f32, high as f32, dtype)?)
}
