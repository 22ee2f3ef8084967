//! What goes into a layer and what comes out.

use super::packed::ScaleRef;
use super::{Linear, PackedActivations};
use crate::base::buffer::{Buffer, memory};
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::heads::{HeadsMut, HeadsRef};
use crate::base::params::QuantParams;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::view::{MatMut, MatRef};
use crate::kernels::panel::{PanelLayout, Shape, row_stride};
use half::{bf16, f16};

/// How a layer of INT8 quantizes an x of floats: a property of the layer ([`super::LinearBuilder::input_quantization`]).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum InputQuantization {
    /// Dynamically: each token by its own range (asymmetric, unsigned).
    #[default]
    PerToken,
    /// Statically: all tokens by parameters that were calibrated before.
    Static(QuantParams),
}

/// x, `[M tokens, K in_features]`: a tensor or packed activations, made by `From`.
///
/// Floats go into layers that compute in floats as they are, and into layers of INT8 as the layer quantizes them
/// ([`InputQuantization`]). Bytes go into layers of INT8 and bring their own parameters, one for all tokens or one for each. A tensor of several heads that lie side by
/// side is a matrix of all their features.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum LinearInput<'a> {
    /// Where the caller has it.
    Tensor(TensorRef<'a>),
    /// Unsigned bytes, each token quantized by parameters of its own, `[M]`: as
    /// [`quantize_per_token`](crate::quant::quantize_per_token) and [`LayerNorm`](crate::norm::LayerNorm) leave them.
    PerToken(MatRef<'a, u8>, &'a [QuantParams]),
    /// Packed before, by [`Linear::pack`] or by another layer.
    Packed(&'a PackedActivations),
}

/// y, `[M tokens, N out_features]`: a tensor, made by `From`, or activations packed for the layer that comes next.
///
/// i32 are the exact sums of (x - zero point) * (w - zero point): no bias, no epilogue. f32, bfloat16 and f16 are real values,
/// rounded to nearest even. Bytes are requantized by their parameters.
#[derive(Debug)]
pub struct LinearOutput<'a> {
    pub(super) to: To<'a>,
}

/// Where y goes.
#[derive(Debug)]
pub(super) enum To<'a> {
    Tensor(TensorMut<'a>),
    /// As a layout of bytes with parameters, or as one of floats without.
    Packed(&'a mut PackedActivations, PanelLayout, Option<QuantParams>),
}

impl<'a> LinearOutput<'a> {
    /// Requantized, packed for the layer that comes next.
    pub fn packed(to: &'a mut PackedActivations, params: QuantParams, next: &Linear) -> Self {
        Self::packed_in(to, Some(params), next.input_layout())
    }

    /// Real values, packed for the layer of floats that comes next.
    pub fn packed_floats(to: &'a mut PackedActivations, next: &Linear) -> Self {
        Self::packed_in(to, None, next.input_layout())
    }

    pub(crate) fn packed_in(
        to: &'a mut PackedActivations,
        params: Option<QuantParams>,
        layout: PanelLayout,
    ) -> Self {
        Self { to: To::Packed(to, layout, params) }
    }
}

macro_rules! inputs { ($($t:ty),* $(,)?) => { $(
    impl<'a> From<$t> for LinearInput<'a> {
        fn from(x: $t) -> Self {
            LinearInput::Tensor(x.into())
        }
    }
)* } }
inputs! {
    TensorRef<'a>,
    MatRef<'a, f32>, MatRef<'a, bf16>, MatRef<'a, f16>, (MatRef<'a, u8>, QuantParams), (MatRef<'a, i8>, QuantParams),
    HeadsRef<'a, f32>, HeadsRef<'a, bf16>, HeadsRef<'a, f16>, (HeadsRef<'a, u8>, QuantParams), (HeadsRef<'a, i8>, QuantParams),
}

impl<'a> From<(MatRef<'a, u8>, &'a [QuantParams])> for LinearInput<'a> {
    fn from((x, params): (MatRef<'a, u8>, &'a [QuantParams])) -> Self {
        LinearInput::PerToken(x, params)
    }
}

impl<'a> From<&'a PackedActivations> for LinearInput<'a> {
    fn from(x: &'a PackedActivations) -> Self {
        LinearInput::Packed(x)
    }
}

macro_rules! outputs { ($($t:ty),* $(,)?) => { $(
    impl<'a> From<$t> for LinearOutput<'a> {
        fn from(y: $t) -> Self {
            LinearOutput { to: To::Tensor(y.into()) }
        }
    }
)* } }
outputs! {
    TensorMut<'a>,
    MatMut<'a, i32>, MatMut<'a, f32>, MatMut<'a, bf16>, MatMut<'a, f16>, (MatMut<'a, u8>, QuantParams), (MatMut<'a, i8>, QuantParams),
    HeadsMut<'a, f32>, HeadsMut<'a, bf16>, HeadsMut<'a, f16>, (HeadsMut<'a, u8>, QuantParams), (HeadsMut<'a, i8>, QuantParams),
}

/// x as packing reads it: checked.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// With what they stand for, as they lie, and the flip that makes them unsigned.
    Bytes(MatRef<'a, u8>, u8, QuantParams),
    /// Unsigned, with what each token's stand for.
    PerToken(MatRef<'a, u8>, &'a [QuantParams]),
    /// With how they are quantized, if they are.
    Floats(Floats<'a>, Option<InputQuantization>),
    Packed(&'a PackedActivations),
}

#[derive(Clone, Copy)]
pub(super) enum Floats<'a> {
    F32(MatRef<'a, f32>),
    Bf16(MatRef<'a, bf16>),
    F16(MatRef<'a, f16>),
}

/// An expression in which a name is the matrix of some [`Floats`].
macro_rules! with_floats {
    ($floats:expr, $x:ident => $run:expr) => {
        match $floats {
            $crate::linear::io::Floats::F32($x) => $run,
            $crate::linear::io::Floats::Bf16($x) => $run,
            $crate::linear::io::Floats::F16($x) => $run,
        }
    };
}
pub(super) use with_floats;

impl<'a> Input<'a> {
    /// Of an input to be packed in a layout, whose floats are quantized so where the layout is of bytes.
    pub fn new(x: LinearInput<'a>, layout: PanelLayout, quantization: InputQuantization) -> Result<Self> {
        let quantized = !layout.is_float();
        let x = match x {
            LinearInput::Packed(x) => {
                if x.layout().element() != layout.element() {
                    return Err(wrong(quantized, "packed activations of another type"));
                }
                return Ok(Input::Packed(x));
            }
            LinearInput::PerToken(x, params) if quantized => {
                if params.len() != x.rows() {
                    let expected = format!("parameters of {} tokens", x.rows());
                    return Err(Error::shape("input", expected, params.len()));
                }
                if let Some(p) = params.iter().find(|p| p.dtype() != Element::U8) {
                    return Err(Error::unsupported("input", "parameters of u8", p.dtype()));
                }
                return Ok(Input::PerToken(x, params));
            }
            LinearInput::PerToken(..) => return Err(wrong(quantized, Element::U8.name())),
            LinearInput::Tensor(x) => x,
        };
        x.check("input")?;
        let floats = match (x.element(), x.one_quantizer("input")?) {
            (Element::U8, Some(params)) if quantized => {
                return Ok(Input::Bytes(x.matrix("input")?, 0, params));
            }
            (Element::I8, Some(params)) if quantized => {
                return Ok(Input::Bytes(x.matrix::<i8>("input")?.as_bytes(), 0x80, params));
            }
            (Element::F32, _) => Floats::F32(x.matrix("input")?),
            (Element::Bf16, _) => Floats::Bf16(x.matrix("input")?),
            (Element::F16, _) => Floats::F16(x.matrix("input")?),
            (other, _) => return Err(wrong(quantized, other.name())),
        };
        Ok(Input::Floats(floats, quantized.then_some(quantization)))
    }

    /// Tokens and features.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Input::Bytes(x, ..) | Input::PerToken(x, _) => (x.rows(), x.cols()),
            Input::Floats(x, _) => with_floats!(x, x => (x.rows(), x.cols())),
            Input::Packed(x) => (x.tokens(), x.features()),
        }
    }

    /// The scale and the zero point of each token that brings its own, in memory for them.
    pub fn own_scales<'m>(&self, scale: &'m mut Buffer, zero: &'m mut Buffer) -> Option<ScaleRef<'m>> {
        let Input::PerToken(_, params) = self else { return None };
        let (scale, zero) = (scale.floats(params.len()), zero.integers(params.len()));
        for ((scale, zero), p) in scale.iter_mut().zip(zero.iter_mut()).zip(*params) {
            (*scale, *zero) = (p.scale(), p.zero_point());
        }
        Some(ScaleRef::Token { scale, zero })
    }

    /// How floats are quantized; nothing where there are none, or where they are not.
    pub fn quantization(&self) -> Option<InputQuantization> {
        match self {
            Input::Floats(_, how) => *how,
            _ => None,
        }
    }

    /// Whether each token is quantized by its own range.
    pub fn by_token(&self) -> bool {
        self.quantization() == Some(InputQuantization::PerToken)
    }

    /// The caller's rows and the bytes from one to the next, if packing would copy them unchanged, and if some neighbouring ones
    /// do not fall into few sets of the first-level cache: they are packed then, to lie further apart.
    pub fn rows_as_they_lie(&self, shape: Shape) -> Option<(&'a [u8], usize)> {
        /// Bytes that the first-level cache holds of each of the rows of a tile.
        const ROW: usize = 4096;
        let (rows, row, stride) = match (self, shape.layout) {
            (Input::Bytes(x, 0, _) | Input::PerToken(x, _), PanelLayout::Rows) => {
                (x.data(), x.cols(), x.stride())
            }
            (Input::Floats(Floats::F32(x), None), PanelLayout::F32Rows) => {
                (memory(x.data()), 4 * x.cols(), 4 * x.stride())
            }
            _ => return None,
        };
        ((row == stride && row <= ROW) || stride == row_stride(row) || shape.tokens == 1)
            .then_some((rows, stride))
    }

    /// Bytes that packing a piece of the shape needs for its rows on the way.
    pub fn piece_rows(&self, shape: Shape) -> usize {
        let through_rows = match self {
            Input::Bytes(..) | Input::PerToken(..) => false,
            Input::Floats(..) => !shape.layout.is_rows(),
            Input::Packed(x) => x.shape != Some(shape),
        };
        let rows = Shape { layout: shape.layout.rows(), ..shape };
        if through_rows { shape.piece_tokens() * rows.features_padded() } else { 0 }
    }
}

fn wrong(quantized: bool, got: &str) -> Error {
    let expected = if quantized { "bytes, or floats to be quantized" } else { "floats" };
    Error::unsupported("input", expected, got)
}

impl LinearInput<'_> {
    /// Tokens and features.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            LinearInput::Tensor(x) => {
                let (tokens, heads, head_dim) = x.shape();
                (tokens, heads.saturating_mul(head_dim))
            }
            LinearInput::PerToken(x, _) => (x.rows(), x.cols()),
            LinearInput::Packed(x) => (x.tokens(), x.features()),
        }
    }
}

impl LinearOutput<'_> {
    /// What it is made of.
    pub(super) fn element(&self) -> Element {
        match &self.to {
            To::Tensor(y) => y.element(),
            To::Packed(_, layout, _) => layout.element(),
        }
    }

    /// What bytes are to stand for.
    pub(super) fn params(&self) -> Option<QuantParams> {
        match &self.to {
            To::Tensor(y) => y.params(),
            To::Packed(_, _, params) => *params,
        }
    }

    pub(super) fn check(&self, m: usize, n: usize) -> Result<()> {
        match &self.to {
            To::Tensor(y) => {
                y.check("output")?;
                y.check_matrix("output", m, n)
            }
            To::Packed(_, layout, Some(_)) if layout.is_float() => {
                Err(Error::unsupported("output", "a next layer of bytes", "one of floats"))
            }
            To::Packed(_, layout, None) if !layout.is_float() => {
                Err(Error::unsupported("output", "a next layer of floats", "one of bytes"))
            }
            To::Packed(..) => Ok(()),
        }
    }
}
