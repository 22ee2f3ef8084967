//! Reals to 8-bit integers and back, and the range of a row.
//!
//! ```text
//! quantize:    y[i] = clamp(round_half_even(x[i] / scale), low - zero, high - zero) + zero      NaN becomes zero
//! dequantize:  y[i] = scale * (x[i] - zero)
//! range:       min, max and largest magnitude of x
//! ```
//!
//! Every body is plain Rust without a branch, a call or a conversion that the compiler could not turn into vectors.
//! Rounding half to even is an addition: the f32 around 1.5 * 2^23 are spaced by 1, so that adding this number
//! rounds, and the low byte of the sum's bits is the integer. As the bounds are integers, clamping before rounding
//! gives the same result.
//!
//! On cores whose divisions are slow (`Core::division`), quotients are products with the reciprocal, corrected twice by
//! what is left (P. Markstein, Computation of elementary functions on the IBM RISC System/6000 processor, 1990): the first correction
//! leaves an error below one unit in the last place, the second the very quotient that a division rounds to.

use crate::base::ctx::Ctx;
use crate::base::isa::{Isa, Loops};
use crate::base::params::QuantParams;
use half::{bf16, f16};

/// 1.5 * 2^23, which rounds what is added to it to an integer. The low byte of its bits is 0.
const ROUND: f32 = 12_582_912.0;

/// Lanes of a reduction over a row, the same number on every tier.
const LANES: usize = 32;

/// [`QuantParams`] in the form that the loops use.
#[derive(Clone, Copy)]
pub struct Affine {
    scale: f32,
    /// The smallest and the largest integer, less the zero point.
    low: f32,
    high: f32,
    /// The low byte of the zero point.
    zero: u8,
}

impl Affine {
    /// A scale and a range to measure with.
    pub const UNIT: Affine = Affine { scale: 0.7, low: -128.0, high: 127.0, zero: 0 };
}

/// What a quotient by a scale is made of without a division: the reciprocal of the scale, and the least and the greatest number that
/// count. Products of an integer of 8 bits and the scale are off by at most half of a unit in the last place, so that their
/// quotients by the scale still round to that integer.
#[derive(Clone, Copy)]
pub struct Reciprocal {
    of_scale: f32,
    low: f32,
    high: f32,
}

impl From<&QuantParams> for Affine {
    fn from(p: &QuantParams) -> Self {
        Self {
            scale: p.scale(),
            low: (p.range().0 - p.zero_point()) as f32,
            high: (p.range().1 - p.zero_point()) as f32,
            zero: p.zero_point() as u8,
        }
    }
}

/// The smallest and the largest number of a row, and the largest magnitude as bits. The row is finite if these bits
/// are below [`Range::INFINITE`]; otherwise `min` and `max` mean nothing.
#[derive(Clone, Copy)]
pub struct Range {
    pub min: f32,
    pub max: f32,
    pub magnitude: u32,
}

impl Range {
    /// The bits of the f32 infinity; those of a NaN without its sign are above.
    pub const INFINITE: u32 = 0x7f80_0000;

    /// That of the numbers of both.
    pub fn with(self, other: Range) -> Range {
        Range {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            magnitude: self.magnitude.max(other.magnitude),
        }
    }
}

/// A kernel of [`quantize`].
pub type Quantize<X> = unsafe fn(&[X], Affine, &mut [u8]);

/// An element type that can be quantized.
pub trait Real: Copy {
    /// The number as an f32.
    fn widen(self) -> f32;
    /// The kernels of [`quantize`] for an ISA: by divisions, and by corrected reciprocals.
    fn quantize(isa: Isa) -> [Quantize<Self>; 2];
    /// The kernel of [`range`] for an ISA.
    fn range(isa: Isa) -> unsafe fn(&[Self]) -> Range;
}

impl Real for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn quantize(isa: Isa) -> [Quantize<f32>; 2] {
        [divide_f32::pick(isa), correct_f32::pick(isa)]
    }

    fn range(isa: Isa) -> unsafe fn(&[f32]) -> Range {
        range_f32::pick(isa)
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // Not `to_f32`, which branches to make a NaN quiet.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn quantize(isa: Isa) -> [Quantize<bf16>; 2] {
        [divide_bf16::pick(isa), correct_bf16::pick(isa)]
    }

    fn range(isa: Isa) -> unsafe fn(&[bf16]) -> Range {
        range_bf16::pick(isa)
    }
}

impl Real for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // Not `to_f32`, which is a call. A product moves the bias of the exponent, exact also for subnormals. What
        // was infinite or NaN then has the exponent of 2^16 and gets that of infinity.
        let bits = u32::from(self.to_bits());
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
    }

    fn quantize(isa: Isa) -> [Quantize<f16>; 2] {
        [divide_f16::pick(isa), correct_f16::pick(isa)]
    }

    fn range(isa: Isa) -> unsafe fn(&[f16]) -> Range {
        range_f16::pick(isa)
    }
}

/// `y[i] = params.quantize(x[i])` as bytes, up to the shorter length.
pub fn quantize<X: Real>(x: &[X], params: &QuantParams, y: &mut [u8], ctx: &Ctx) {
    let [divide, correct] = X::quantize(ctx.isa());
    let run = if corrects(params, ctx) { correct } else { divide };
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { run(x, params.into(), y) }
}

/// `y[i] = params.quantize(x[i] * by[i])`, the products rounded to f32, up to the shortest length.
pub fn quantize_products(x: &[f32], by: &[f32], params: &QuantParams, y: &mut [u8], ctx: &Ctx) {
    let pick = if corrects(params, ctx) { correct_products::pick } else { divide_products::pick };
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { pick(ctx.isa())(x, by, params.into(), y) }
}

/// Whether quotients by a scale are products with its reciprocal that are corrected, not divisions.
pub fn corrects(params: &QuantParams, ctx: &Ctx) -> bool {
    // Without vectors a fused multiply-add may be a call.
    let fast = ctx.core().division > 1.0 && ctx.isa().loops() != Loops::Baseline;
    fast && CORRECTED.contains(&params.scale())
}

/// `y[i] = params.dequantize(x[i])` from bytes, up to the shorter length.
pub fn dequantize(x: &[u8], params: &QuantParams, y: &mut [f32], ctx: &Ctx) {
    // Flipping the top bit of an i8 gives a u8 that is 128 higher.
    let flip = params.range().0 as u8;
    let zero = params.zero_point() - params.range().0;
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { dequantize_u8::pick(ctx.isa())(x, params.scale(), (flip, zero), y) }
}

/// The range of a row; of an empty row, `min` is infinity and `max` minus infinity.
pub fn range<X: Real>(x: &[X], ctx: &Ctx) -> Range {
    // SAFETY: a Ctx only holds a tier that this CPU has.
    unsafe { X::range(ctx.isa())(x) }
}

autovec!(fn divide_f32(x: &[f32], to: Affine, y: &mut [u8]) = divide_body::<f32>);
autovec!(fn correct_f32(x: &[f32], to: Affine, y: &mut [u8]) = correct_body::<f32>);
autovec!(fn divide_products(x: &[f32], by: &[f32], to: Affine, y: &mut [u8]) = divide_products_body);
autovec!(fn correct_products(x: &[f32], by: &[f32], to: Affine, y: &mut [u8]) = correct_products_body);
autovec!(fn divide_bf16(x: &[bf16], to: Affine, y: &mut [u8]) = divide_body::<bf16>);
autovec!(fn correct_bf16(x: &[bf16], to: Affine, y: &mut [u8]) = correct_body::<bf16>);
autovec!(fn divide_f16(x: &[f16], to: Affine, y: &mut [u8]) = divide_body::<f16>);
autovec!(fn correct_f16(x: &[f16], to: Affine, y: &mut [u8]) = correct_body::<f16>);
autovec!(fn dequantize_u8(x: &[u8], scale: f32, offset: (u8, i32), y: &mut [f32]) = dequantize_body);
autovec!(fn range_f32(x: &[f32]) -> Range = range_body::<f32>);
autovec!(fn range_bf16(x: &[bf16]) -> Range = range_body::<bf16>);
autovec!(fn range_f16(x: &[f16]) -> Range = range_body::<f16>);

/// Scales between which everything that the corrections of a quotient compute is exact where it must be: what is left of x is not
/// subnormal, and neither is the reciprocal.
const CORRECTED: std::ops::Range<f32> = f32::from_bits((127 - 60) << 23)..f32::from_bits((127 + 60) << 23);
#[inline(always)]
fn divide_body<X: Real>(x: &[X], to: Affine, y: &mut [u8]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = to.divided(x.widen());
    }
}

/// The bytes of [`divide_body`], for a scale in [`CORRECTED`].
#[inline(always)]
fn correct_body<X: Real>(x: &[X], to: Affine, y: &mut [u8]) {
    let by = to.reciprocal();
    for (y, x) in y.iter_mut().zip(x) {
        *y = to.corrected(x.widen(), by);
    }
}

#[inline(always)]
fn divide_products_body(x: &[f32], by: &[f32], to: Affine, y: &mut [u8]) {
    for ((y, x), by) in y.iter_mut().zip(x).zip(by) {
        *y = to.divided(x * by);
    }
}

/// The bytes of [`divide_products_body`], for a scale in [`CORRECTED`].
#[inline(always)]
fn correct_products_body(x: &[f32], by: &[f32], to: Affine, y: &mut [u8]) {
    let reciprocal = to.reciprocal();
    for ((y, x), by) in y.iter_mut().zip(x).zip(by) {
        *y = to.corrected(x * by, reciprocal);
    }
}

impl Affine {
    /// What [`Affine::corrected`] multiplies by.
    #[inline(always)]
    pub fn reciprocal(self) -> Reciprocal {
        Reciprocal { of_scale: 1.0 / self.scale, low: self.low * self.scale, high: self.high * self.scale }
    }

    /// The byte of a number, by a division.
    #[inline(always)]
    pub fn divided(self, x: f32) -> u8 {
        self.byte(x / self.scale)
    }

    /// The byte of [`Affine::divided`], for a scale in [`CORRECTED`], by its reciprocal.
    #[inline(always)]
    pub fn corrected(self, x: f32, by: Reciprocal) -> u8 {
        let x = if x.is_nan() { 0.0 } else { x };
        let x = least(greatest(x, by.low), by.high);
        let rough = x * by.of_scale;
        let near = rough.mul_add(-self.scale, x).mul_add(by.of_scale, rough);
        let exact = near.mul_add(-self.scale, x).mul_add(by.of_scale, near);
        self.rounded(exact)
    }

    /// The integer that so many steps are, as a byte.
    #[inline(always)]
    fn byte(self, steps: f32) -> u8 {
        let steps = if steps.is_nan() { 0.0 } else { steps };
        self.rounded(least(greatest(steps, self.low), self.high))
    }

    /// The integer nearest to steps in the range, as a byte.
    #[inline(always)]
    fn rounded(self, steps: f32) -> u8 {
        ((steps + ROUND).to_bits() as u8).wrapping_add(self.zero)
    }
}

#[inline(always)]
fn dequantize_body(x: &[u8], scale: f32, (flip, zero): (u8, i32), y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = scale * (i32::from(x ^ flip) - zero) as f32;
    }
}

#[inline(always)]
pub(crate) fn range_body<X: Real>(x: &[X]) -> Range {
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut magnitude = [0; LANES];
    // Every index into the lanes must be a constant to the compiler, which would otherwise keep them in memory.
    let mut take = |x: &[X; LANES]| {
        for l in 0..LANES {
            let x = x[l].widen();
            min[l] = least(x, min[l]);
            max[l] = greatest(x, max[l]);
            magnitude[l] = magnitude[l].max(x.to_bits() & 0x7fff_ffff);
        }
    };
    let (body, tail) = x.as_chunks::<LANES>();
    body.iter().for_each(&mut take);
    if let [first, ..] = tail {
        // The tail is filled up with its first element: an element seen twice changes nothing.
        let mut last = [*first; LANES];
        last[..tail.len()].copy_from_slice(tail);
        take(&last);
    }
    for half in [16, 8, 4, 2, 1] {
        for l in 0..half {
            min[l] = least(min[l], min[l + half]);
            max[l] = greatest(max[l], max[l + half]);
            magnitude[l] = magnitude[l].max(magnitude[l + half]);
        }
    }
    Range { min: min[0], max: max[0], magnitude: magnitude[0] }
}

/// The smaller of two numbers, in one vector instruction; `f32::min`, which handles NaN, takes four. `b` if either is
/// NaN.
#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger of two numbers, in one vector instruction. `b` if either is NaN.
#[inline(always)]
fn greatest(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
