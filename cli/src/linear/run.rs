//! `siskin run linear`: a linear layer from a file to a file, for anyone to compare with.

use super::case::{Act, Step};
use super::matrix::{Matrix, Rows};
use super::weights::{Scales, Stored, Weights};
use crate::base::case::{at_most, params};
use crate::base::error::{Error, Result};
use crate::base::files::{FileOperation, Files, Written};
use crate::base::tensors::{Number, Tensors, floats};
use crate::base::types::{XType, YType};
use safetensors::Dtype;
use siskin::Element;
use siskin::linear::{Activation, ByteTable, Epilogue, InputQuantization, Weight};
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Scratch};

/// Elements that y may have.
const MOST: u128 = 1 << 28;

/// y = epilogue(x · wᵀ), from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  x               [M, K]   U8, I8, F32, BF16 or F16; of more dimensions, all but
                  the last count tokens, in y as in x
  w               [N, K]   I8, F32, BF16 or F16: dense weights; or, block-sparse,
    indptr        [ceil(N / R) + 1]   I32 or I64
    indices       [blocks]            I32 or I64, in any order within a block row
    values        [blocks, R, C]      of the same types, zero beyond the edge
  [w_scale]       [1], [N] or [N, 1]   floats, of I8 weights; 1 if missing; 0 is
                  taken for 1 where all weights stand for 0. With "group_size"
                  [N, ceil(K / group_size)], and not to be missing
  [w_zero_point]  [1], [N] or [N, 1]   integers, dense I8 weights only; 0 if missing
  [bias]          [N] or [N, 1]   floats
  [residual]      [M, N]   U8, I8, F32, BF16 or F16
  [X_scale], [X_zero_point]    a float and an integer, where X is
    x             of bytes: the scale must be there. Of floats: if there, all
                  of x is quantized to U8 by it, else each token by its range
    y             of bytes: the scale must be there
    residual      of bytes: the scale must be there
    before        what goes into a table: the scale must be there

Parameters, a JSON object in the metadata of the file under "params", or --params:
  "y"             "f32" (if missing), "bf16", "f16", "u8", "i8", or "i32" (the sums
                  alone, of bytes)
  "weight_only"   true: with I8 weights, too, compute in floats
  "group_size"    a multiple of 4: so many input features share a scale of I8
                  weights, which are weight-only then
  "shape"         [N, K], for block-sparse weights only
  "activation"    "relu", "clamp", "gelu", "gelu_tanh", "silu", "gelu_table",
                  "gelu_tanh_table", "silu_table"; none if missing
  "low", "high"   for "clamp"
  "isa"           a tier of instructions; the best of this CPU if missing
  "threads"       1 if missing

Tensor out: y, [M, N], or of the dimensions of x but the last. The order of the steps, all in f32 and rounded after each:
  s = sum of (x - x_zero_point) * (w - w_zero_point), exact
  v = fma(s, x_scale * w_scale, bias);  v += residual;  v = activation(v)
  bytes: clamp(round_half_even(v * (1 / y_scale)) + y_zero_point)
With one scale for all of x and neither residual nor gelu or silu, the division
comes first: fma(s, x_scale * w_scale * (1 / y_scale), bias * (1 / y_scale)).
A table stands between two quantizers: bytes by "before", looked up, bytes of y.
A token of floats is quantized by its own range, widened to hold 0: scale
(max - min) / 255, zero point round_half_even(-min / scale).

With weights of floats, or weight-only ones, x must be of floats, which are not
quantized (no x_scale):
  s = fma(x[k], w[k], s) in f32, in the order of k, pruned blocks left out
  with groups, each group's own s from 0, then v = fma(s, w_scale, v) by group
  v = fma(s, w_scale, bias), w_scale being 1 for floats and for groups; and so on
Where bfloat16 is multiplied in pairs (the tier avx512-bf16, on cores that are
faster so), layers of BF16 weights, dense or in blocks of 2, 4, 6 .. columns, do:
x is rounded to bfloat16, and the order is another. "bf16_pairs": "never" has the
above everywhere, "always" pairs wherever the tier has them.

Example, with NumPy:
  import json, subprocess, numpy as np
  from safetensors.numpy import load_file, save_file
  x = np.random.randint(0, 256, (5, 64), np.uint8)
  w = np.random.randint(-127, 128, (32, 64), np.int8)
  save_file({"x": x, "w": w, "x_scale": np.float32([0.1]), "x_zero_point": np.int32([7])},
            "case.safetensors", metadata={"params": json.dumps({"y": "i32"})})
  subprocess.run("siskin run linear --in case.safetensors --out y.safetensors".split(), check=True)
  y = load_file("y.safetensors")["y"]
  assert (y == (x.astype(int) - 7) @ w.T.astype(int)).all()
"#;

params! {
    y: YType = YType::F32,
    shape: Option<[usize; 2]>,
    activation: Option<Act>,
    low: Option<f32>,
    high: Option<f32>,
    weight_only: bool,
    group_size: usize,
}

impl FileOperation for Args {
    const NAME: &'static str = "linear";
    const FUZZED: Option<u128> = Some(1 << 16);

    type Params = Params;

    fn files(&self) -> &Files {
        &self.files
    }

    /// y may have `most` elements.
    fn compute(&self, params: &Params, tensors: Tensors<'_>, most: u128, ctx: &Ctx) -> Result<Written> {
        check(params)?;
        linear(params, tensors, most.min(MOST), ctx)
    }
}

fn check(params: &Params) -> Result<()> {
    match params.activation {
        Some(Act::Clamp) if params.low.is_none() || params.high.is_none() => {
            Err(Error::input("low and high", "both for \"clamp\"", "not both"))
        }
        Some(Act::Clamp) => Ok(()),
        _ if params.low.is_some() || params.high.is_some() => {
            Err(Error::input("low and high", "the activation \"clamp\"", "another"))
        }
        _ => Ok(()),
    }
}

fn linear(params: &Params, mut tensors: Tensors<'_>, most: u128, ctx: &Ctx) -> Result<Written> {
    let t = &mut tensors;
    let (x, shape) = Matrix::take(t, "x")?;
    let (m, k) = (shape.rows, shape.cols);
    let (weights, [n, k_of_w]) = weights(params, t)?;
    for (name, size) in [("x", m), ("w", n)] {
        // Rows of nothing take no room in a file, but here they would.
        if size > 1 << 24 {
            return Err(Error::input(name, "at most 2^24 rows", size));
        }
    }
    let bytes = matches!(weights, Weights::I8(_));
    if !bytes && (params.weight_only || params.group_size > 0) {
        return Err(Error::input("weight_only and group_size", "I8 weights", "weights of floats"));
    }
    let in_floats = !bytes || params.weight_only || params.group_size > 0;
    if !params.group_size.is_multiple_of(4) {
        return Err(Error::input("group_size", "a multiple of 4", params.group_size));
    }
    if params.y == YType::I32 && in_floats {
        return Err(Error::input("y", "anything but i32 of a layer that computes in floats", "i32"));
    }
    // Float weights leave what is meant for bytes to be refused.
    let (mut scales, zero_points) = match (bytes, params.group_size) {
        (false, _) => (Vec::new(), Vec::new()),
        (true, 0) => (t.reals("w_scale")?, t.integers("w_zero_point")?),
        (true, size) => {
            let tensor = t.view("w_scale")?;
            let expected = [n, k_of_w.div_ceil(size)];
            let scales = floats(&tensor).filter(|_| tensor.shape() == expected).ok_or_else(|| {
                let got = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
                Error::input("w_scale", format_args!("floats of shape {expected:?}"), got)
            })?;
            (scales, t.integers("w_zero_point")?)
        }
    };
    if params.group_size == 0 {
        scale_of_zeros(&weights, &mut scales, &zero_points, n);
    }
    let bias = t.reals("bias")?;
    let residual = t.optional("residual", Matrix::take)?;
    let input = match !in_floats && !x.data.is_bytes() && t.has("x_scale") {
        true => Some(InputQuantization::Static(t.quantizer("x", Element::U8)?)),
        false => None,
    };
    let to = match params.y.element().and_then(XType::quant) {
        Some(dtype) => Some(t.quantizer("y", dtype)?),
        None => None,
    };
    let table = table(params, t, to)?;
    tensors.finish()?;

    let x = x.tensor(m, k)?;
    let clamp = (params.low.unwrap_or_default(), params.high.unwrap_or_default());
    let activation = table
        .as_ref()
        .map_or_else(|| Step::library(params.activation.map(Step::from), clamp), Activation::Table);
    let mut epilogue = Epilogue::new().activation(activation);
    if let Some((residual, shape)) = &residual {
        epilogue = epilogue.residual(residual.tensor(shape.rows, shape.cols)?);
    }
    if params.y == YType::I32 && !bias.is_empty() {
        return Err(Error::input("bias", "none for i32 sums", "one"));
    }
    // Without columns either can be as large as it likes.
    at_most(most, "y", &[m.max(1) as u128, n.max(1) as u128])?;
    let of_i8 = Scales {
        scales: &scales,
        zero_points: &zero_points,
        weight_only: params.weight_only,
        keep_sparse: false,
        group_size: params.group_size,
        input,
    };
    let layer = weights.build(&of_i8, &bias, ctx)?;
    let mut y = Rows::new(params.y, m * n);
    let to = to.map_or_else(|| QuantParams::u8(1.0, 0), Ok)?;
    layer.forward(x, epilogue, y.output(m, n, to)?, ctx, &mut Scratch::new())?;
    let (dtype, bytes) = y.stored();
    let shape = [&shape.leading[..], &[n]].concat();
    Ok(Written { tensors: vec![("y", dtype, shape, bytes)], report: None })
}

/// Some quantizers say 0 for the scale of an output feature whose weights all stand for 0: any scale will do, so 1.
fn scale_of_zeros(weights: &Weights, scales: &mut [f32], zero_points: &[i32], n: usize) {
    // What is of another length is refused later.
    if !matches!(scales.len(), 1) && scales.len() != n || !scales.contains(&0.0) {
        return;
    }
    let zero_of = |row: usize| match zero_points {
        [] => 0.0,
        [one] => *one as f32,
        all => all.get(row).map_or(0.0, |&zero| zero as f32),
    };
    let zeros = weights.rows_of(n, zero_of);
    match scales {
        [one] if zeros.iter().all(|&row| row) => *one = 1.0,
        [_] => {}
        all => all
            .iter_mut()
            .zip(&zeros)
            .filter(|(scale, row)| **scale == 0.0 && **row)
            .for_each(|(scale, _)| *scale = 1.0),
    }
}

/// Weights and their shape.
fn weights(params: &Params, t: &mut Tensors<'_>) -> Result<(Weights, [usize; 2])> {
    let name = if t.has("w") || !t.has("values") { "w" } else { "values" };
    fn load<T: Weight + Number>(
        name: &str,
        params: &Params,
        t: &mut Tensors<'_>,
    ) -> Result<(Stored<T>, [usize; 2])> {
        if name == "w" { dense(params, t) } else { sparse(params, t) }
    }
    Ok(match t.dtype(name)? {
        Dtype::F32 => {
            let (w, shape) = load(name, params, t)?;
            (Weights::F32(w), shape)
        }
        Dtype::BF16 => {
            let (w, shape) = load(name, params, t)?;
            (Weights::Bf16(w), shape)
        }
        Dtype::F16 => {
            let (w, shape) = load(name, params, t)?;
            (Weights::F16(w), shape)
        }
        Dtype::I8 => {
            let (w, shape) = load(name, params, t)?;
            (Weights::I8(w), shape)
        }
        other => return Err(Error::input(name, "I8, F32, BF16 or F16", format_args!("{other:?}"))),
    })
}

fn dense<T: Weight + Number>(params: &Params, t: &mut Tensors<'_>) -> Result<(Stored<T>, [usize; 2])> {
    if params.shape.is_some() {
        return Err(Error::input("shape", "none for dense weights", "one"));
    }
    let (w, [n, k]) = t.take::<T, 2>("w")?;
    Ok((Stored::Dense(w, n, k), [n, k]))
}

fn sparse<T: Weight + Number>(params: &Params, t: &mut Tensors<'_>) -> Result<(Stored<T>, [usize; 2])> {
    let shape =
        params.shape.ok_or_else(|| Error::input("shape", "[N, K] for block-sparse weights", "none"))?;
    let (mut values, [_, rows, cols]) = t.take::<T, 3>("values")?;
    let block = BlockShape::new(rows, cols)?;
    let indptr: Vec<usize> = t.indices("indptr")?;
    let mut indices: Vec<u32> = t.indices("indices")?;
    ascending(&indptr, &mut indices, &mut values, block.area());
    Ok((Stored::Sparse(Bsr::from_parts((shape[0], shape[1]), block, indptr, indices, values)?), shape))
}

/// Puts the blocks of each block row into the order of their columns, where that is possible: what is not is refused later.
fn ascending<T: Copy>(indptr: &[usize], indices: &mut [u32], values: &mut [T], area: usize) {
    if !indptr.is_sorted() {
        return;
    }
    for range in indptr.windows(2).map(|ends| ends[0]..ends[1]) {
        let Some(columns) = indices.get_mut(range.clone()) else { continue };
        let blocks = range.start.saturating_mul(area)..range.end.saturating_mul(area);
        let Some(blocks) = values.get_mut(blocks) else { continue };
        if columns.is_sorted() {
            continue;
        }
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|&i| columns[i]);
        let (old, held) = (columns.to_vec(), blocks.to_vec());
        for (to, &from) in order.iter().enumerate() {
            columns[to] = old[from];
            blocks[to * area..][..area].copy_from_slice(&held[from * area..][..area]);
        }
    }
}

fn table(params: &Params, t: &mut Tensors<'_>, after: Option<QuantParams>) -> Result<Option<ByteTable>> {
    let Some(make) = params.activation.map(Step::from).and_then(Step::table) else { return Ok(None) };
    let after = after.ok_or_else(|| Error::input("y", "\"u8\" or \"i8\" for a table", "another"))?;
    Ok(Some(make(t.quantizer("before", after.dtype())?, after)))
}
