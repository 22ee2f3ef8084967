//! The affine map between reals and 8-bit integers.

use crate::error::{Error, Result};

/// The two 8-bit integer types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantType {
    /// 0 to 255.
    U8,
    /// -128 to 127.
    I8,
}

impl QuantType {
    /// The smallest integer.
    pub const fn min(self) -> i32 {
        match self {
            QuantType::U8 => 0,
            QuantType::I8 => -128,
        }
    }

    /// The largest integer.
    pub const fn max(self) -> i32 {
        self.min() + 255
    }
}

/// An affine quantizer: `q = clamp(round_half_even(x / scale) + zero_point)`, `x ~ scale * (q - zero_point)`.
///
/// Quantizable Transformers, section 2; symmetric is `zero_point == 0` with [`QuantType::I8`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantParams {
    scale: f32,
    zero_point: i32,
    dtype: QuantType,
}

impl QuantParams {
    /// A quantizer to `dtype`.
    ///
    /// # Errors
    /// [`Error::Value`] if `scale` is not a positive normal number, or if `zero_point` is outside `dtype`.
    pub fn new(scale: f32, zero_point: i32, dtype: QuantType) -> Result<Self> {
        check_scale("scale", scale)?;
        if !(dtype.min()..=dtype.max()).contains(&zero_point) {
            return Err(Error::value(
                "zero_point",
                format_args!("{} to {} for {dtype:?}", dtype.min(), dtype.max()),
                zero_point,
            ));
        }
        Ok(Self { scale, zero_point, dtype })
    }

    /// To u8.
    ///
    /// # Errors
    /// As [`QuantParams::new`].
    pub fn u8(scale: f32, zero_point: i32) -> Result<Self> {
        Self::new(scale, zero_point, QuantType::U8)
    }

    /// To i8.
    ///
    /// # Errors
    /// As [`QuantParams::new`].
    pub fn i8(scale: f32, zero_point: i32) -> Result<Self> {
        Self::new(scale, zero_point, QuantType::I8)
    }

    /// The real size of one step.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The integer that stands for 0.0.
    pub fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The integer type.
    pub fn dtype(&self) -> QuantType {
        self.dtype
    }

    /// The integer of one real. Infinities and what is out of range clamp; NaN gives the zero point.
    pub fn quantize(&self, x: f32) -> i32 {
        let steps = (x / self.scale).round_ties_even();
        // The bounds are small integers, exact in f32; `as` maps NaN to 0.
        let low = (self.dtype.min() - self.zero_point) as f32;
        let high = (self.dtype.max() - self.zero_point) as f32;
        steps.clamp(low, high) as i32 + self.zero_point
    }

    /// The real of one integer.
    pub fn dequantize(&self, q: i32) -> f32 {
        self.scale * (q - self.zero_point) as f32
    }
}

/// A scale divides and is divided by: positive, normal, and with a finite reciprocal.
pub(crate) fn check_scale(argument: &'static str, scale: f32) -> Result<()> {
    if scale.is_normal() && scale > 0.0 && scale.recip().is_normal() {
        return Ok(());
    }
    Err(Error::value(
        argument,
        "a positive normal number with a normal reciprocal",
        format_args!("{scale:?}"),
    ))
}
