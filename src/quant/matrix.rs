//! Whole matrices: by one quantizer, by one for each row given, or by one for each row as it comes.

use super::{QuantParams, Scheme};
use crate::base::buffer::{memory, memory_mut};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::element::ElementType;
use crate::base::error::{Error, Result};
use crate::base::view::{MatMut, MatRef};
use crate::kernels::quantize as kernels;
use half::bf16;

/// What can be quantized: `f32` and [`bf16`], which is widened to f32 first.
pub trait Quantizable: ElementType + kernels::Real {}
impl Quantizable for f32 {}
impl Quantizable for bf16 {}

/// What reals are quantized to: `u8` and `i8`.
pub trait Quantized: ElementType {}
impl Quantized for u8 {}
impl Quantized for i8 {}

/// The quantizer of the range of a whole matrix.
///
/// # Errors
/// [`Error::Shape`] if `x` is empty; [`Error::Value`] naming `x` if it holds a NaN or an infinity, or if it goes
/// below 0 with a symmetric u8.
pub fn per_tensor<X: Quantizable>(x: MatRef<'_, X>, scheme: Scheme, ctx: &Ctx) -> Result<QuantParams> {
    if x.rows() == 0 {
        return Err(Error::shape("x", "at least one row", 0));
    }
    if x.cols() == 0 {
        row_range(x, 0, ctx)?;
    }
    let (min, max) = range(x, ctx)?;
    QuantParams::from_range(min, max, scheme).map_err(|e| in_x(e, "of the matrix"))
}

/// The quantizer of the range of each row, `[rows]`: of each output channel of a weight. Whether a
/// [`Scheme::SymmetricAuto`] is signed is decided once, for the whole matrix.
///
/// # Errors
/// [`Error::Shape`] if `x` has no columns, else as [`per_tensor`].
pub fn per_channel<X: Quantizable>(x: MatRef<'_, X>, scheme: Scheme, ctx: &Ctx) -> Result<Vec<QuantParams>> {
    let scheme = match scheme {
        Scheme::SymmetricAuto if x.rows() > 0 => Scheme::Symmetric(per_tensor(x, scheme, ctx)?.dtype()),
        _ => scheme,
    };
    (0..x.rows()).map(|r| row_params(x, r, scheme, ctx)).collect()
}

/// Quantizes `x` to `y`, both `[rows, cols]`: exactly [`QuantParams::quantize`] of each element, on every tier.
///
/// Infinities and what is out of range clamp; NaN gives the zero point.
///
/// # Errors
/// [`Error::Shape`] if `y` is not of the shape of `x`; [`Error::Unsupported`] if `params` are not for `Q`.
pub fn quantize<X: Quantizable, Q: Quantized>(
    x: MatRef<'_, X>,
    params: &QuantParams,
    y: MatMut<'_, Q>,
    ctx: &Ctx,
) -> Result<()> {
    check_dtype::<Q>("params", params.dtype())?;
    each_row(x, y, ctx, |_, x, y| {
        kernels::quantize(x, params, memory_mut(y), ctx);
    })
}

/// As [`quantize`], row r by `params[r]`.
///
/// # Errors
/// As [`quantize`], and [`Error::Shape`] if there is not one of `params` for each row.
pub fn quantize_rows<X: Quantizable, Q: Quantized>(
    x: MatRef<'_, X>,
    params: &[QuantParams],
    y: MatMut<'_, Q>,
    ctx: &Ctx,
) -> Result<()> {
    check_params::<Q>(params, x.rows())?;
    each_row(x, y, ctx, |r, x, y| kernels::quantize(x, &params[r], memory_mut(y), ctx))
}

/// As [`quantize`], each row by the quantizer of its own range, left in `params`: dynamic per-token quantization.
///
/// # Errors
/// As [`per_channel`] and [`quantize`]; [`Error::Unsupported`] if `scheme` is not one for `Q`
/// ([`Scheme::SymmetricAuto`] is for neither); [`Error::Shape`] if `params` has not one element for each row.
pub fn quantize_per_token<X: Quantizable, Q: Quantized>(
    x: MatRef<'_, X>,
    scheme: Scheme,
    y: MatMut<'_, Q>,
    params: &mut [QuantParams],
    ctx: &Ctx,
) -> Result<()> {
    match scheme {
        Scheme::Asymmetric(dtype) | Scheme::Symmetric(dtype) => check_dtype::<Q>("scheme", dtype)?,
        Scheme::SymmetricAuto => {
            return Err(Error::unsupported("scheme", "one with a type", "SymmetricAuto"));
        }
    }
    check_len(params.len(), x.rows())?;
    check_shape((x.rows(), x.cols()), (y.rows(), y.cols()))?;
    // Refuses before anything is written. Finding the ranges twice costs less than keeping them would.
    for r in 0..x.rows() {
        row_params(x, r, scheme, ctx)?;
    }
    let mut y = y;
    for r in 0..x.rows() {
        params[r] = row_params(x, r, scheme, ctx)?;
        kernels::quantize(x.row(r), &params[r], memory_mut(y.row_mut(r)), ctx);
    }
    Ok(())
}

/// Dequantizes `x` to `y`, both `[rows, cols]`: exactly [`QuantParams::dequantize`] of each element.
///
/// # Errors
/// As [`quantize`].
pub fn dequantize<Q: Quantized>(
    x: MatRef<'_, Q>,
    params: &QuantParams,
    y: MatMut<'_, f32>,
    ctx: &Ctx,
) -> Result<()> {
    check_dtype::<Q>("params", params.dtype())?;
    each_row(x, y, ctx, |_, x, y| kernels::dequantize(memory(x), params, y, ctx))
}

/// As [`dequantize`], row r by `params[r]`.
///
/// # Errors
/// As [`quantize_rows`].
pub fn dequantize_rows<Q: Quantized>(
    x: MatRef<'_, Q>,
    params: &[QuantParams],
    y: MatMut<'_, f32>,
    ctx: &Ctx,
) -> Result<()> {
    check_params::<Q>(params, x.rows())?;
    each_row(x, y, ctx, |r, x, y| kernels::dequantize(memory(x), &params[r], y, ctx))
}

/// Calls `f(r, row r of x, row r of y)` for each row, on the threads of `ctx`.
fn each_row<X: ElementType, Y: ElementType>(
    x: MatRef<'_, X>,
    y: MatMut<'_, Y>,
    ctx: &Ctx,
    f: impl Fn(usize, &[X], &mut [Y]) + Sync,
) -> Result<()> {
    check_shape((x.rows(), x.cols()), (y.rows(), y.cols()))?;
    let (rows, cols, stride) = (y.rows(), y.cols(), y.stride());
    // Rows of no columns can be more than there is time for.
    if cols == 0 {
        return Ok(());
    }
    let each = rows_of_task(rows, cols, ctx);
    ctx.for_each_part(y.into_data(), each.saturating_mul(stride), &|i, part| {
        let first = i * each;
        for (r, y) in part.chunks_mut(stride).enumerate().take(rows.saturating_sub(first)) {
            f(first + r, x.row(first + r), &mut y[..cols]);
        }
    });
    Ok(())
}

/// The smallest and the largest number of a matrix, which has columns.
fn range<X: Quantizable>(x: MatRef<'_, X>, ctx: &Ctx) -> Result<(f32, f32)> {
    const TASKS: usize = 64;
    let each = rows_of_task(x.rows(), x.cols(), ctx).max(x.rows().div_ceil(TASKS));
    let nothing = kernels::Range { min: f32::INFINITY, max: f32::NEG_INFINITY, magnitude: 0 };
    let mut parts = [nothing; TASKS];
    ctx.for_each_part(&mut parts[..x.rows().div_ceil(each)], 1, &|i, part| {
        let rows = i * each..x.rows().min(each.saturating_mul(i + 1));
        part[0] = rows.fold(nothing, |all, r| all.with(kernels::range(x.row(r), ctx)));
    });
    let all = parts.into_iter().fold(nothing, kernels::Range::with);
    if all.magnitude >= kernels::Range::INFINITE {
        (0..x.rows()).try_for_each(|r| row_range(x, r, ctx).map(drop))?;
    }
    Ok((all.min, all.max))
}

/// Elements below which a task is not worth its turn.
const LEAST: usize = 1 << 14;

fn rows_of_task(rows: usize, cols: usize, ctx: &Ctx) -> usize {
    rows.div_ceil(ctx.threads()).max(LEAST / cols.max(1)).max(1)
}

fn row_params<X: Quantizable>(x: MatRef<'_, X>, r: usize, scheme: Scheme, ctx: &Ctx) -> Result<QuantParams> {
    let (min, max) = row_range(x, r, ctx)?;
    QuantParams::from_range(min, max, scheme).map_err(|e| in_x(e, format_args!("of row {r}")))
}

fn row_range<X: Quantizable>(x: MatRef<'_, X>, r: usize, ctx: &Ctx) -> Result<(f32, f32)> {
    let row = x.row(r);
    if row.is_empty() {
        return Err(Error::shape("x", "at least one column", 0));
    }
    let kernels::Range { min, max, magnitude } = kernels::range(row, ctx);
    if magnitude < kernels::Range::INFINITE {
        return Ok((min, max));
    }
    let c = row.iter().position(|v| !v.widen().is_finite()).unwrap_or(0);
    let got = format!("{:?} at row {r}, column {c}", row[c].widen());
    Err(Error::value("x", "finite numbers", got))
}

/// The error of a range, blamed on the matrix that the range is of.
fn in_x(error: Error, of: impl std::fmt::Display) -> Error {
    match error {
        Error::Value { argument, expected, got } => {
            Error::value("x", format_args!("{argument} {of} to be {expected}"), got)
        }
        other => other,
    }
}

fn check_dtype<Q: Quantized>(argument: &'static str, dtype: Element) -> Result<()> {
    if dtype == Q::ELEMENT {
        return Ok(());
    }
    Err(Error::unsupported(argument, format_args!("{:?}", Q::ELEMENT), format_args!("{dtype:?}")))
}

fn check_params<Q: Quantized>(params: &[QuantParams], rows: usize) -> Result<()> {
    check_len(params.len(), rows)?;
    params.iter().try_for_each(|p| check_dtype::<Q>("params", p.dtype()))
}

fn check_len(params: usize, rows: usize) -> Result<()> {
    if params == rows {
        return Ok(());
    }
    Err(Error::shape("params", format_args!("one for each of {rows} rows"), params))
}

fn check_shape(x: (usize, usize), y: (usize, usize)) -> Result<()> {
    if x == y {
        return Ok(());
    }
    Err(Error::shape("y", format_args!("{} x {}", x.0, x.1), format_args!("{} x {}", y.0, y.1)))
}
