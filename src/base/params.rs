//! The affine map between reals and 8-bit integers.

use crate::base::element::Element;
use crate::base::error::{Error, Result};
use num_traits::Float;

/// How a range of reals becomes a quantizer (Quantizable Transformers, the authors' uniform quantizers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Scheme {
    /// Both ends of the range, widened to hold 0, meet the ends of the integers: for activations.
    Asymmetric(Element),
    /// `zero_point` 0, and the larger absolute value meets the largest integer: for weights.
    Symmetric(Element),
    /// As `Symmetric`, to i8 where the range goes below 0 and to u8 where not.
    SymmetricAuto,
}

/// An affine quantizer: `q = clamp(round_half_even(x / scale) + zero_point)`, `x ~ scale * (q - zero_point)`.
///
/// Quantizable Transformers, section 2; symmetric is `zero_point == 0` with [`Element::I8`].
///
/// ```
/// use siskin::Element;
/// use siskin::quant::QuantParams;
///
/// let p = QuantParams::from_range_asymmetric(-0.5, 63.25, Element::U8)?;
/// assert_eq!((p.scale(), p.zero_point()), (0.25, 2));
/// assert_eq!(p.quantize(1.1), 6);
/// assert_eq!(p.dequantize(6), 1.0);
/// assert_eq!((p.quantize(f32::INFINITY), p.quantize(f32::NAN)), (255, 2));
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "Unchecked"))]
pub struct QuantParams {
    scale: f32,
    zero_point: i32,
    /// One that reals are quantized to: the constructor checks it.
    dtype: Element,
}

/// [`QuantParams`] as they are read, before they are checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    scale: f32,
    zero_point: i32,
    dtype: Element,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QuantParams {
    type Error = Error;

    fn try_from(read: Unchecked) -> Result<Self> {
        Self::new(read.scale, read.zero_point, read.dtype)
    }
}

impl QuantParams {
    /// A quantizer to `dtype`.
    ///
    /// # Errors
    /// [`Error::Value`] if `scale` is not a positive normal number, or if `zero_point` is outside `dtype`;
    /// [`Error::Unsupported`] if `dtype` is not a type that reals are quantized to ([`Element::is_quantized`]).
    pub fn new(scale: f32, zero_point: i32, dtype: Element) -> Result<Self> {
        check_scale("scale", scale)?;
        let (min, max) = integers(dtype)?;
        if !(min..=max).contains(&zero_point) {
            return Err(Error::value("zero_point", format_args!("{min} to {max} for {dtype}"), zero_point));
        }
        Ok(Self { scale, zero_point, dtype })
    }

    /// To u8.
    ///
    /// # Errors
    /// As [`QuantParams::new`].
    pub fn u8(scale: f32, zero_point: i32) -> Result<Self> {
        Self::new(scale, zero_point, Element::U8)
    }

    /// To i8.
    ///
    /// # Errors
    /// As [`QuantParams::new`].
    pub fn i8(scale: f32, zero_point: i32) -> Result<Self> {
        Self::new(scale, zero_point, Element::I8)
    }

    /// A quantizer of the reals `min` to `max`, by any scheme.
    ///
    /// A range of any magnitude is taken alike: 2^n times the range has 2^n times the step, and the integers of 2^n times the
    /// reals are those of the reals. The step is at least the smallest normal f32, 1.2e-38, and 1 where the range is nothing but 0.
    /// The authors' own quantizers stop at 1e-8: see [`QuantParams::from_range_with_authors_floor`].
    ///
    /// # Errors
    /// As [`QuantParams::from_range_asymmetric`] and [`QuantParams::from_range_symmetric`].
    pub fn from_range(min: f32, max: f32, scheme: Scheme) -> Result<Self> {
        from_range(min, max, scheme, Floor::Normal)
    }

    /// As [`QuantParams::from_range`], with the floor of the authors of Quantizable Transformers: neither the upper end of the
    /// range nor the step is below 1e-8. Reals that are smaller than that lose their precision or become 0.
    ///
    /// # Errors
    /// As [`QuantParams::from_range`].
    pub fn from_range_with_authors_floor(min: f32, max: f32, scheme: Scheme) -> Result<Self> {
        from_range(min, max, scheme, Floor::Authors)
    }

    /// A quantizer of the reals `min` to `max`, widened to hold 0.0, whose ends meet those of `dtype`: the step is
    /// `(max - min) / 255`, the zero point `round_half_even(-min / step)` above the smallest integer. See
    /// [`QuantParams::from_range`] for the smallest step.
    ///
    /// # Errors
    /// [`Error::Value`] if `min` or `max` is not finite, or if `min > max`.
    pub fn from_range_asymmetric(min: f32, max: f32, dtype: Element) -> Result<Self> {
        from_range(min, max, Scheme::Asymmetric(dtype), Floor::Normal)
    }

    /// A quantizer with `zero_point` 0, whose largest integer stands for the larger of `-min` and `max`.
    /// The smallest of i8, -128, is used too, by what rounds to it.
    ///
    /// # Errors
    /// As [`QuantParams::from_range_asymmetric`], and if `min < 0` with [`Element::U8`].
    pub fn from_range_symmetric(min: f32, max: f32, dtype: Element) -> Result<Self> {
        from_range(min, max, Scheme::Symmetric(dtype), Floor::Normal)
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
    pub fn dtype(&self) -> Element {
        self.dtype
    }

    /// The smallest and the largest integer.
    pub fn range(&self) -> (i32, i32) {
        self.dtype.quantized_range().unwrap_or_default()
    }

    /// The integer of one real. Infinities and what is out of range clamp; NaN gives the zero point.
    pub fn quantize(&self, x: f32) -> i32 {
        let (min, max) = self.range();
        let steps = (x / self.scale).round_ties_even();
        // The bounds are small integers, exact in f32; `as` maps NaN to 0.
        let low = (min - self.zero_point) as f32;
        let high = (max - self.zero_point) as f32;
        steps.clamp(low, high) as i32 + self.zero_point
    }

    /// The real of one integer.
    pub fn dequantize(&self, q: i32) -> f32 {
        self.scale * (q - self.zero_point) as f32
    }
}

/// What keeps a step from being too small to divide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor {
    /// The smallest normal f32; an empty range has the step 1.
    Normal,
    /// The authors' 1e-8: neither the upper end of the range nor the step is below it.
    Authors,
}

/// The quantizer of a range, computed in the range's own type, as its authors do: a range of percentiles is f64.
pub(crate) fn from_range<F: Float + Into<f64>>(
    min: F,
    max: F,
    scheme: Scheme,
    floor: Floor,
) -> Result<QuantParams> {
    for (argument, end) in [("min", min), ("max", max)] {
        if !end.is_finite() {
            return Err(Error::value(argument, "a finite number", end.into()));
        }
    }
    if min > max {
        return Err(Error::value("min", format_args!("at most max = {}", max.into()), min.into()));
    }
    let of = |x: f64| F::from(x).unwrap_or_else(F::zero);
    let (smallest, levels) = (of(f32::MIN_POSITIVE.into()), of(255.0));
    let (min, mut max) = (min.min(F::zero()), max.max(F::zero()));
    if floor == Floor::Authors {
        max = max.max(of(1e-8));
    }
    let at_least = |step: F| match floor {
        Floor::Authors => step.max(of(1e-8)),
        Floor::Normal if step == F::zero() && min == max => F::one(),
        Floor::Normal => step.max(smallest),
    };
    let (step, zero_point, dtype) = match scheme {
        Scheme::Asymmetric(dtype) => {
            let step = match (max - min) / levels {
                step if step.is_finite() => step,
                // A difference beyond the largest f32 is taken between halves.
                _ => (max / of(2.0) - min / of(2.0)) / levels * of(2.0),
            };
            // The authors divide by the step as it was before the floor.
            let divisor = if floor == Floor::Authors { step } else { at_least(step) };
            let zero: f64 = (-min / divisor).min(levels).into();
            (step, zero.round_ties_even() as i32 + integers(dtype)?.0, dtype)
        }
        Scheme::Symmetric(Element::I8) => (max.max(-min) / of(127.0), 0, Element::I8),
        Scheme::Symmetric(Element::U8) if min < F::zero() => {
            return Err(Error::value("min", "0 or more for a symmetric U8", min.into()));
        }
        Scheme::Symmetric(Element::U8) => (max / levels, 0, Element::U8),
        Scheme::Symmetric(dtype) => return Err(not_quantized(dtype)),
        Scheme::SymmetricAuto => {
            let dtype = if min < F::zero() { Element::I8 } else { Element::U8 };
            return from_range(min, max, Scheme::Symmetric(dtype), floor);
        }
    };
    let scale: f64 = at_least(step).into();
    QuantParams::new(scale as f32, zero_point, dtype)
}

/// The step of symmetric 8-bit weights whose largest magnitude is given: `most / 127`, at least the smallest normal f32, and 1 for
/// nothing but zeros: the smallest step times the scale of x would be subnormal, which many CPUs compute slowly.
pub(crate) fn symmetric_step(most: f32) -> f32 {
    if most == 0.0 { 1.0 } else { (most / 127.0).max(f32::MIN_POSITIVE) }
}

/// The smallest and the largest integer of a type that reals are quantized to.
fn integers(dtype: Element) -> Result<(i32, i32)> {
    dtype.quantized_range().ok_or_else(|| not_quantized(dtype))
}

fn not_quantized(dtype: Element) -> Error {
    Error::unsupported("dtype", "u8 or i8", dtype)
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
