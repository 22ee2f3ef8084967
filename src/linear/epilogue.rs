//! What happens to the sums before they are stored, in a fixed order: scale and bias, residual, activation, requantize.

use super::LinearOutput;
use super::packed::{flip, unsigned_zero};
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::tensor::TensorRef;
use crate::kernels::activation::{Curve, evaluate};
use crate::kernels::epilogue::{Finish, Residual};
use crate::quant::QuantParams;

/// A function of each output.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Activation<'a> {
    /// y = v.
    #[default]
    Identity,
    /// y = max(v, 0).
    Relu,
    /// y = min(max(v, low), high).
    Clamp {
        /// The lowest value.
        low: f32,
        /// The highest value.
        high: f32,
    },
    /// y = v * (1 + erf(v / sqrt 2)) / 2, in f32.
    Gelu,
    /// y = v * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3))) / 2, in f32.
    GeluTanh,
    /// y = v / (1 + exp(-v)), in f32.
    Silu,
    /// v is quantized to a byte, and the byte looked up: for 8-bit outputs.
    Table(&'a ByteTable),
}

/// An activation of 8-bit numbers as a table of 256 entries.
///
/// Next to the exact activation the result can be off by what quantizing v to a byte costs: with a step of s before the
/// activation and t after it, at most `L * s / (2 t) + 1` output steps where v is inside the range of the 256 bytes, L
/// being the largest slope of the function (1.13 for GELU, 1.10 for SiLU).
#[derive(Debug, Clone, PartialEq)]
pub struct ByteTable {
    pub(crate) bytes: [u8; 256],
    pub(crate) before: QuantParams,
    pub(crate) after: QuantParams,
}

/// The table of GELU (erf): `before` quantizes what goes in, `after` what comes out.
pub fn gelu_table(before: QuantParams, after: QuantParams) -> ByteTable {
    ByteTable::of(Curve::Gelu, before, after)
}

/// The table of GELU (tanh).
pub fn gelu_tanh_table(before: QuantParams, after: QuantParams) -> ByteTable {
    ByteTable::of(Curve::GeluTanh, before, after)
}

/// The table of SiLU.
pub fn silu_table(before: QuantParams, after: QuantParams) -> ByteTable {
    ByteTable::of(Curve::Silu, before, after)
}

impl ByteTable {
    /// The table of any function: entry i is `after.quantize(f(before.dequantize(i)))`. Both sides are kept as unsigned
    /// bytes; for a signed quantizer byte i stands for i - 128.
    pub fn new(before: QuantParams, after: QuantParams, f: impl Fn(f32) -> f32) -> Self {
        let mut bytes = [0; 256];
        for (i, byte) in (0..).zip(&mut bytes) {
            *byte = (after.quantize(f(before.dequantize(i + before.range().0))) - after.range().0) as u8;
        }
        Self { bytes, before, after }
    }

    fn of(curve: Curve, before: QuantParams, after: QuantParams) -> Self {
        Self::new(before, after, |v| evaluate(curve, v))
    }

    /// What quantizes the pre-activation.
    pub fn before(&self) -> QuantParams {
        self.before
    }

    /// What the resulting bytes stand for: an output must have the same.
    pub fn after(&self) -> QuantParams {
        self.after
    }
}

/// What happens between the sums and the output, besides the layer's own scales and bias.
///
/// With sums s (exact integers, or the floats that [`crate::linear`] tells of; x_scale is 1 then), in f32 and rounded after
/// each step: `v = fma(s, x_scale * w_scale[n], bias[n])`; `v = v + residual`; `v = activation(v)`; then the output's type. To bytes:
/// `q = clamp(round_half_even(v * (1 / scale)) + zero_point)`. Where x has one scale and there is neither a residual nor
/// a curved activation, the division is folded into the first step (`scale * (1 / y_scale)` and `bias * (1 / y_scale)`).
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Epilogue<'a> {
    /// Added before the activation, `[M, N]`: real values, or bytes and what they stand for.
    pub residual: Option<TensorRef<'a>>,
    /// Applied last.
    pub activation: Activation<'a>,
}

impl<'a> Epilogue<'a> {
    /// Scales and bias only.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this activation.
    #[must_use]
    pub fn activation(mut self, activation: Activation<'a>) -> Self {
        self.activation = activation;
        self
    }

    /// With this residual.
    #[must_use]
    pub fn residual(mut self, residual: impl Into<TensorRef<'a>>) -> Self {
        self.residual = Some(residual.into());
        self
    }

    /// The end of a call's tiles, but for what only the layer knows, and what scale and bias are to be multiplied by in advance.
    pub(super) fn finish(&self, y: &LinearOutput<'_>, by_token: bool) -> (Finish<'a>, f32) {
        let element = y.element();
        let params = match self.activation {
            Activation::Table(table) => Some(table.before()),
            _ => y.params(),
        };
        let (step, zero) = params.map_or((1.0, 0), |p| (1.0 / p.scale(), unsigned_zero(&p)));
        let byte = |v: f32| ((v * step).round_ties_even() + zero as f32).clamp(0.0, 255.0) as u8;
        let mut end = Finish {
            scale: &[],
            bias: &[],
            token_scale: None,
            corrections: [None; 2],
            residual: self.residual.map(|r| Residual {
                p: r.at(0, 0),
                element: r.element(),
                stride: r.matrix_stride(),
                affine: r.affine(0),
            }),
            curve: Curve::Identity,
            clamp: (f32::NEG_INFINITY, f32::INFINITY),
            element,
            post: step,
            zero,
            low: 0,
            high: 255,
            table: None,
            flip: flip(element),
            saturating: false,
        };
        match self.activation {
            Activation::Identity => {}
            Activation::Relu => (end.clamp, end.low) = ((0.0, f32::INFINITY), byte(0.0)),
            Activation::Clamp { low, high } => {
                (end.clamp, end.low, end.high) = ((low, high), byte(low), byte(high));
            }
            Activation::Gelu => end.curve = Curve::Gelu,
            Activation::GeluTanh => end.curve = Curve::GeluTanh,
            Activation::Silu => end.curve = Curve::Silu,
            Activation::Table(table) => end.table = Some(&table.bytes),
        }
        if end.curve == Curve::Identity && end.residual.is_none() && !by_token {
            end.post = 1.0;
            return (end, step);
        }
        (end, 1.0)
    }

    pub(super) fn check(&self, m: usize, n: usize, output: &LinearOutput<'_>) -> Result<()> {
        if let Some(residual) = &self.residual {
            residual.check("residual")?;
            residual.one_quantizer("residual")?;
            residual.check_matrix("residual", m, n)?;
        }
        if let Activation::Clamp { low, high } = self.activation
            && (low > high || low.is_nan() || high.is_nan())
        {
            return Err(Error::value(
                "activation",
                "low <= high, neither NaN",
                format_args!("low {low}, high {high}"),
            ));
        }
        if let Activation::Table(table) = self.activation {
            match output.params() {
                None => {
                    return Err(Error::unsupported("activation", "an 8-bit output for a table", "another"));
                }
                Some(p) if p != table.after => {
                    return Err(Error::value(
                        "activation",
                        format_args!("a table to the output's {p:?}"),
                        format_args!("{:?}", table.after),
                    ));
                }
                _ => {}
            }
        }
        if output.element() == Element::I32
            && (self.residual.is_some() || !matches!(self.activation, Activation::Identity))
        {
            return Err(Error::unsupported("epilogue", "none for i32 sums", "a residual or an activation"));
        }
        Ok(())
    }
}
