//! What goes into a layer and what comes out.

use super::PackedActivations;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::view::{MatMut, MatRef};
use crate::kernels::panel::Shape;
use crate::quant::QuantParams;
use half::{bf16, f16};

/// x, `[M tokens, K in_features]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Unsigned bytes and what they stand for (a [`Element::U8`]).
    U8(MatRef<'a, u8>, QuantParams),
    /// Signed bytes and what they stand for (a [`Element::I8`]).
    I8(MatRef<'a, i8>, QuantParams),
    /// Floats, for a float layer or quantized to bytes on the fly.
    F32(MatRef<'a, f32>, OnTheFly),
    /// Floats, for a float layer or quantized to bytes on the fly.
    Bf16(MatRef<'a, bf16>, OnTheFly),
    /// Floats, for a float layer or quantized to bytes on the fly.
    F16(MatRef<'a, f16>, OnTheFly),
    /// Packed before, by [`PackedActivations::pack`] or by another layer.
    Packed(&'a PackedActivations),
}

/// How floats are quantized on their way into a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum OnTheFly {
    /// Each token by its own range (asymmetric, unsigned).
    PerToken,
    /// All by the same parameters.
    Fixed(QuantParams),
    /// Not at all: what layers that compute in floats take.
    Never,
}

impl Input<'_> {
    /// Tokens and features.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Input::U8(x, _) => (x.rows(), x.cols()),
            Input::I8(x, _) => (x.rows(), x.cols()),
            Input::F32(x, _) => (x.rows(), x.cols()),
            Input::Bf16(x, _) => (x.rows(), x.cols()),
            Input::F16(x, _) => (x.rows(), x.cols()),
            Input::Packed(x) => (x.tokens(), x.features()),
        }
    }

    /// How floats are quantized; nothing where there are none.
    pub(super) fn on_the_fly(&self) -> Option<OnTheFly> {
        match self {
            Input::F32(_, how) | Input::Bf16(_, how) | Input::F16(_, how) => Some(*how),
            _ => None,
        }
    }

    /// Bytes that packing a piece of the shape needs for its rows on the way.
    pub(super) fn piece_rows(&self, shape: Shape) -> usize {
        let through_rows = match self {
            Input::U8(..) | Input::I8(..) => false,
            Input::F32(..) | Input::Bf16(..) | Input::F16(..) => !shape.layout.is_rows(),
            Input::Packed(x) => x.shape != Some(shape),
        };
        let rows = Shape { layout: shape.layout.rows(), ..shape };
        if through_rows { shape.piece_tokens() * rows.features_padded() } else { 0 }
    }

    /// Whether x can be packed to a layout.
    pub(super) fn check_layout(&self, layout: super::PanelLayout) -> Result<()> {
        let quantized = !layout.is_float();
        let (fits, got) = match self {
            Input::U8(..) | Input::I8(..) => (quantized, "bytes"),
            Input::Packed(x) => {
                (x.layout().element() == layout.element(), "packed activations of another type")
            }
            _ => match self.on_the_fly() {
                Some(OnTheFly::Never) => (!quantized, "floats that are not to be quantized"),
                _ => (quantized, "floats to be quantized"),
            },
        };
        if fits {
            return Ok(());
        }
        let expected = if quantized {
            "bytes, or floats and how to quantize them"
        } else {
            "floats with OnTheFly::Never"
        };
        Err(Error::unsupported("input", expected, got))
    }

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Input::U8(_, p) => check_type("input", p, Element::U8),
            Input::I8(_, p) => check_type("input", p, Element::I8),
            _ => Ok(()),
        }
    }
}

/// y, `[M tokens, N out_features]`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// The exact sums of (x - zero point) * (w - zero point): no bias, no epilogue.
    I32(MatMut<'a, i32>),
    /// Real values.
    F32(MatMut<'a, f32>),
    /// Real values, rounded to nearest even.
    Bf16(MatMut<'a, bf16>),
    /// Real values, rounded to nearest even.
    F16(MatMut<'a, f16>),
    /// Requantized (by a [`Element::U8`]).
    U8(MatMut<'a, u8>, QuantParams),
    /// Requantized (by a [`Element::I8`]).
    I8(MatMut<'a, i8>, QuantParams),
    /// Requantized, in the layout of the layer that comes next ([`super::Linear::input_layout`]).
    Packed(&'a mut PackedActivations, QuantParams, super::PanelLayout),
    /// Real values, in the layout of the float layer that comes next.
    PackedFloats(&'a mut PackedActivations, super::PanelLayout),
}

impl Output<'_> {
    pub(super) fn check(&self, m: usize, n: usize) -> Result<()> {
        let (rows, cols) = match self {
            Output::I32(y) => (y.rows(), y.cols()),
            Output::F32(y) => (y.rows(), y.cols()),
            Output::Bf16(y) => (y.rows(), y.cols()),
            Output::F16(y) => (y.rows(), y.cols()),
            Output::U8(y, p) => {
                check_type("output", p, Element::U8)?;
                (y.rows(), y.cols())
            }
            Output::I8(y, p) => {
                check_type("output", p, Element::I8)?;
                (y.rows(), y.cols())
            }
            Output::Packed(_, _, layout) if layout.is_float() => {
                return Err(Error::unsupported("output", "a layout of bytes", format_args!("{layout:?}")));
            }
            Output::PackedFloats(_, layout) if !layout.is_float() => {
                return Err(Error::unsupported("output", "a layout of floats", format_args!("{layout:?}")));
            }
            Output::Packed(..) | Output::PackedFloats(..) => (m, n),
        };
        if (rows, cols) != (m, n) {
            return Err(Error::shape(
                "output",
                format_args!("{m} tokens x {n} out_features"),
                format_args!("{rows} x {cols}"),
            ));
        }
        Ok(())
    }
}

fn check_type(argument: &'static str, p: &QuantParams, dtype: Element) -> Result<()> {
    if p.dtype() == dtype {
        return Ok(());
    }
    Err(Error::unsupported(
        argument,
        format_args!("parameters of {dtype:?}"),
        format_args!("{:?}", p.dtype()),
    ))
}
