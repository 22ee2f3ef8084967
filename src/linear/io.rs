//! What goes into a layer and what comes out.

use super::PackedActivations;
use crate::error::{Error, Result};
use crate::kernels::panel::Shape;
use crate::quant::{QuantParams, QuantType};
use crate::view::{MatMut, MatRef};
use half::bf16;

/// x, `[M tokens, K in_features]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Unsigned bytes and what they stand for (a [`QuantType::U8`]).
    U8(MatRef<'a, u8>, QuantParams),
    /// Signed bytes and what they stand for (a [`QuantType::I8`]).
    I8(MatRef<'a, i8>, QuantParams),
    /// Floats, quantized to bytes on the fly.
    F32(MatRef<'a, f32>, OnTheFly),
    /// Floats, quantized to bytes on the fly.
    Bf16(MatRef<'a, bf16>, OnTheFly),
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
}

impl Input<'_> {
    /// Tokens and features.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Input::U8(x, _) => (x.rows(), x.cols()),
            Input::I8(x, _) => (x.rows(), x.cols()),
            Input::F32(x, _) => (x.rows(), x.cols()),
            Input::Bf16(x, _) => (x.rows(), x.cols()),
            Input::Packed(x) => (x.tokens(), x.features()),
        }
    }

    /// Whether packing to the shape goes through rows of bytes.
    pub(super) fn needs_rows(&self, shape: Shape) -> bool {
        match self {
            Input::U8(..) | Input::I8(..) => false,
            Input::F32(..) | Input::Bf16(..) => shape.layout != super::PanelLayout::Rows,
            Input::Packed(x) => x.shape != Some(shape),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Input::U8(_, p) => check_type("input", p, QuantType::U8),
            Input::I8(_, p) => check_type("input", p, QuantType::I8),
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
    /// Requantized (by a [`QuantType::U8`]).
    U8(MatMut<'a, u8>, QuantParams),
    /// Requantized (by a [`QuantType::I8`]).
    I8(MatMut<'a, i8>, QuantParams),
    /// Requantized, in the layout of the layer that comes next ([`super::Linear::input_layout`]).
    Packed(&'a mut PackedActivations, QuantParams, super::PanelLayout),
}

impl Output<'_> {
    pub(super) fn check(&self, m: usize, n: usize) -> Result<()> {
        let (rows, cols) = match self {
            Output::I32(y) => (y.rows(), y.cols()),
            Output::F32(y) => (y.rows(), y.cols()),
            Output::Bf16(y) => (y.rows(), y.cols()),
            Output::U8(y, p) => {
                check_type("output", p, QuantType::U8)?;
                (y.rows(), y.cols())
            }
            Output::I8(y, p) => {
                check_type("output", p, QuantType::I8)?;
                (y.rows(), y.cols())
            }
            Output::Packed(..) => (m, n),
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

fn check_type(argument: &'static str, p: &QuantParams, dtype: QuantType) -> Result<()> {
    if p.dtype() == dtype {
        return Ok(());
    }
    Err(Error::unsupported(
        argument,
        format_args!("parameters of {dtype:?}"),
        format_args!("{:?}", p.dtype()),
    ))
}
