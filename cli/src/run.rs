//! `siskin run`: an operation from a file to a file, for anyone to compare with; here a linear layer.

use crate::attention;
use crate::case::{Case, Step, YType};
use crate::ecoformer;
use crate::error::{Error, Result};
use crate::json::from_json;
use crate::tensors::{Number, Tensors, elements, parse, read, write};
use crate::weights::{Scales, Stored, Weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use siskin::linear::{
    Activation, ByteTable, Epilogue, Input, OnTheFly, Output, Residual, Weight, gelu_table, gelu_tanh_table,
    silu_table,
};
use siskin::quant::{QuantParams, QuantType};
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};
use std::path::{Path, PathBuf};

/// Elements that y may have.
const MOST: usize = 1 << 28;

/// What can be run.
#[derive(clap::Subcommand)]
pub enum Operation {
    Linear(Args),
    Attention(attention::RunArgs),
    EcoformerFit(ecoformer::FitArgs),
    EcoformerEncode(ecoformer::EncodeArgs),
    EcoformerAttention(ecoformer::AttendArgs),
}

/// y = epilogue(x · wᵀ), from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

/// What an operation reads and writes.
#[derive(clap::Args)]
pub struct Files {
    /// The case, a safetensors file.
    #[arg(long = "in")]
    pub input: PathBuf,
    /// Where the result goes, a safetensors file.
    #[arg(long)]
    pub out: PathBuf,
    /// Parameters as JSON, instead of those in the file.
    #[arg(long)]
    pub params: Option<String>,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  x               [M, K]   U8, I8, F32, BF16 or F16
  w               [N, K]   I8, F32, BF16 or F16: dense weights; or, block-sparse,
    indptr        [ceil(N / R) + 1]   I32 or I64
    indices       [blocks]            I32 or I64, ascending in a block row
    values        [blocks, R, C]      of the same types, zero beyond the edge
  [w_scale]       [1] or [N]   F32, of I8 weights; 1 if missing. With "group_size"
                  [N, ceil(K / group_size)], and not to be missing
  [w_zero_point]  [1] or [N]   I32, dense I8 weights only; 0 if missing
  [bias]          [N]      F32
  [residual]      [M, N]   U8, I8, F32, BF16 or F16
  [X_scale], [X_zero_point]    F32 [1] and I32 [1], where X is
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

Tensor out: y, [M, N]. The order of the steps, all in f32 and rounded after each:
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
Where this CPU multiplies pairs of bfloat16 (avx512-bf16), layers of BF16 weights,
dense or in blocks of 2, 4, 6 .. columns, do: x is rounded to bfloat16, and the
order is another. The "isa" "avx512-vnni" has that above.

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

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    y: YType,
    shape: Option<[usize; 2]>,
    activation: Option<Step>,
    low: Option<f32>,
    high: Option<f32>,
    isa: Option<String>,
    threads: usize,
    weight_only: bool,
    group_size: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            y: YType::F32,
            shape: None,
            activation: None,
            low: None,
            high: None,
            isa: None,
            threads: 1,
            weight_only: false,
            group_size: 0,
        }
    }
}

pub fn main(operation: &Operation) -> Result<()> {
    let args = match operation {
        Operation::Linear(args) => args,
        Operation::Attention(args) => return attention::run(args),
        Operation::EcoformerFit(args) => return ecoformer::fit(args),
        Operation::EcoformerEncode(args) => return ecoformer::encode(args),
        Operation::EcoformerAttention(args) => return ecoformer::attend(args),
    };
    let Files { input, out, params } = &args.files;
    write(out, &compute(input, &read(input)?, params.as_deref(), MOST)?)
}

/// The bytes of the file that answers the bytes of a file, whose path only errors tell; y may have `most` elements.
pub fn compute(path: &Path, bytes: &[u8], own: Option<&str>, most: usize) -> Result<Vec<u8>> {
    let file = parse(path, bytes)?;
    let params: Params = params(path, bytes, own)?;
    check(&params)?;
    // The threads and the tier are told as in a case.
    let case = Case { isa: params.isa.clone(), threads: params.threads, ..Case::default() };
    case.check()?;
    let y = case.on_threads(|| linear(&params, Tensors::new(file), &case.ctx()?, most))?;
    let view = TensorView::new(y.dtype, y.shape.to_vec(), &y.bytes).map_err(|e| Error::file(path, e))?;
    safetensors::serialize([("y", view)], None).map_err(|e| Error::file(path, e))
}

/// Parameters that are given, or in the metadata of a file, or none.
pub fn params<P: DeserializeOwned + Default>(path: &Path, bytes: &[u8], own: Option<&str>) -> Result<P> {
    if let Some(text) = own {
        return from_json("--params", text.as_bytes());
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::file(path, e))?;
    match header.metadata().as_ref().and_then(|m| m.get("params")) {
        Some(text) => from_json("params", text.as_bytes()),
        None => Ok(P::default()),
    }
}

fn check(params: &Params) -> Result<()> {
    match params.activation {
        Some(Step::Bias | Step::Residual) => {
            Err(Error::input("activation", "an activation", "a tensor of that name is enough"))
        }
        Some(Step::Clamp) => Ok(()),
        _ if params.low.is_some() || params.high.is_some() => {
            Err(Error::input("low and high", "the activation \"clamp\"", "another"))
        }
        _ => Ok(()),
    }
}

/// A tensor to write.
struct Y {
    dtype: Dtype,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

/// x or a residual.
enum Matrix {
    U8(Vec<u8>, QuantParams),
    I8(Vec<i8>, QuantParams),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

fn linear(params: &Params, mut tensors: Tensors<'_>, ctx: &Ctx, most: usize) -> Result<Y> {
    let t = &mut tensors;
    let (x, [m, k]) = matrix(t, "x")?;
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
    let (scales, zero_points) = match (bytes, params.group_size) {
        (false, _) => (Vec::new(), Vec::new()),
        (true, 0) => (t.vector::<f32>("w_scale")?, t.vector::<i32>("w_zero_point")?),
        (true, size) => {
            let (scales, shape) = t.take::<f32, 2>("w_scale")?;
            let expected = [n, k_of_w.div_ceil(size)];
            if shape != expected {
                return Err(Error::input("w_scale", format_args!("{expected:?}"), format_args!("{shape:?}")));
            }
            (scales, t.vector("w_zero_point")?)
        }
    };
    let bias: Vec<f32> = t.vector("bias")?;
    let residual = t.has("residual").then(|| matrix(t, "residual")).transpose()?;
    let on_the_fly = match x {
        _ if in_floats => OnTheFly::Never,
        Matrix::F32(_) | Matrix::Bf16(_) | Matrix::F16(_) if t.has("x_scale") => {
            OnTheFly::Fixed(quantizer(t, "x", QuantType::U8)?)
        }
        _ => OnTheFly::PerToken,
    };
    let to = match params.y {
        YType::U8 => Some(quantizer(t, "y", QuantType::U8)?),
        YType::I8 => Some(quantizer(t, "y", QuantType::I8)?),
        _ => None,
    };
    let table = table(params, t, to)?;
    tensors.finish()?;

    let x = match &x {
        Matrix::U8(x, p) => Input::U8(MatRef::new(x, m, k)?, *p),
        Matrix::I8(x, p) => Input::I8(MatRef::new(x, m, k)?, *p),
        Matrix::F32(x) => Input::F32(MatRef::new(x, m, k)?, on_the_fly),
        Matrix::Bf16(x) => Input::Bf16(MatRef::new(x, m, k)?, on_the_fly),
        Matrix::F16(x) => Input::F16(MatRef::new(x, m, k)?, on_the_fly),
    };
    let mut epilogue = Epilogue::new().activation(activation(params, table.as_ref())?);
    if let Some((r, [rows, cols])) = &residual {
        let (rows, cols) = (*rows, *cols);
        epilogue = epilogue.residual(match r {
            Matrix::U8(r, p) => Residual::U8(MatRef::new(r, rows, cols)?, *p),
            Matrix::I8(r, p) => Residual::I8(MatRef::new(r, rows, cols)?, *p),
            Matrix::F32(r) => Residual::F32(MatRef::new(r, rows, cols)?),
            Matrix::Bf16(r) => Residual::Bf16(MatRef::new(r, rows, cols)?),
            Matrix::F16(r) => Residual::F16(MatRef::new(r, rows, cols)?),
        });
    }
    if params.y == YType::I32 && !bias.is_empty() {
        return Err(Error::input("bias", "none for i32 sums", "one"));
    }
    // Without columns either can be as large as it likes.
    if m.max(1).checked_mul(n.max(1)).is_none_or(|size| size > most) {
        return Err(Error::input("y", format_args!("at most {most} elements"), format_args!("{m} x {n}")));
    }
    let of_i8 = Scales {
        scales: &scales,
        zero_points: &zero_points,
        weight_only: params.weight_only,
        group_size: params.group_size,
    };
    let layer = weights.build(&of_i8, &bias, ctx)?;

    let size = m * n;
    let call = |y: Output<'_>| Ok::<_, Error>(layer.forward(x, epilogue, y, ctx, &mut Scratch::new())?);
    let (dtype, bytes) = match (params.y, to) {
        (YType::U8, Some(p)) => {
            let mut y = vec![0; size];
            call(Output::U8(MatMut::new(&mut y, m, n)?, p))?;
            (Dtype::U8, y)
        }
        (YType::I8, Some(p)) => {
            let mut y = vec![0i8; size];
            call(Output::I8(MatMut::new(&mut y, m, n)?, p))?;
            (Dtype::I8, y.into_iter().map(|v| v as u8).collect())
        }
        (YType::I32, _) => {
            let mut y = vec![0i32; size];
            call(Output::I32(MatMut::new(&mut y, m, n)?))?;
            (Dtype::I32, y.into_iter().flat_map(i32::to_le_bytes).collect())
        }
        (YType::Bf16, _) => {
            let mut y = vec![bf16::ZERO; size];
            call(Output::Bf16(MatMut::new(&mut y, m, n)?))?;
            (Dtype::BF16, y.into_iter().flat_map(bf16::to_le_bytes).collect())
        }
        (YType::F16, _) => {
            let mut y = vec![f16::ZERO; size];
            call(Output::F16(MatMut::new(&mut y, m, n)?))?;
            (Dtype::F16, y.into_iter().flat_map(f16::to_le_bytes).collect())
        }
        _ => {
            let mut y = vec![0f32; size];
            call(Output::F32(MatMut::new(&mut y, m, n)?))?;
            (Dtype::F32, y.into_iter().flat_map(f32::to_le_bytes).collect())
        }
    };
    Ok(Y { dtype, shape: [m, n], bytes })
}

fn matrix(t: &mut Tensors<'_>, name: &str) -> Result<(Matrix, [usize; 2])> {
    let tensor = t.view(name)?;
    let shape = <[usize; 2]>::try_from(tensor.shape())
        .map_err(|_| Error::input(name, "2 dimensions", format_args!("{:?}", tensor.shape())))?;
    let matrix = match tensor.dtype() {
        Dtype::U8 => Matrix::U8(elements(&tensor), quantizer(t, name, QuantType::U8)?),
        Dtype::I8 => Matrix::I8(elements(&tensor), quantizer(t, name, QuantType::I8)?),
        Dtype::F32 => Matrix::F32(elements(&tensor)),
        Dtype::BF16 => Matrix::Bf16(elements(&tensor)),
        Dtype::F16 => Matrix::F16(elements(&tensor)),
        other => return Err(Error::input(name, "U8, I8, F32, BF16 or F16", format_args!("{other:?}"))),
    };
    Ok((matrix, shape))
}

/// Of `NAME_scale` and `NAME_zero_point`.
pub fn quantizer(t: &mut Tensors<'_>, name: &str, dtype: QuantType) -> Result<QuantParams> {
    let (scale, zero) = (format!("{name}_scale"), format!("{name}_zero_point"));
    let step =
        t.number::<f32>(&scale)?.ok_or_else(|| Error::input(&scale, "a tensor of this name", "none"))?;
    let zero_point = t.number::<i32>(&zero)?.unwrap_or(0);
    QuantParams::new(step, zero_point, dtype)
        .map_err(|e| Error::input(format_args!("{scale} and {zero}"), "a quantizer", e))
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
    let (values, [_, rows, cols]) = t.take::<T, 3>("values")?;
    let block = BlockShape::new(rows, cols)?;
    let indptr = indices(t, "indptr")?;
    let indices = indices(t, "indices")?;
    Ok((Stored::Sparse(Bsr::from_parts((shape[0], shape[1]), block, indptr, indices, values)?), shape))
}

/// I32 or I64, neither negative nor too large for where they go.
pub fn indices<T: TryFrom<i64>>(t: &mut Tensors<'_>, name: &str) -> Result<Vec<T>> {
    let tensor = t.view(name)?;
    let wide: Vec<i64> = match (tensor.dtype(), tensor.shape()) {
        (i64::DTYPE, [_]) => elements(&tensor),
        (i32::DTYPE, [_]) => elements::<i32>(&tensor).into_iter().map(i64::from).collect(),
        (dtype, shape) => {
            let got = format!("{dtype:?} of shape {shape:?}");
            return Err(Error::input(name, "I32 or I64 of one dimension", got));
        }
    };
    let narrow = |(i, v)| T::try_from(v).map_err(|_| Error::input(format!("{name}[{i}]"), "an index", v));
    wide.into_iter().enumerate().map(narrow).collect()
}

fn table(params: &Params, t: &mut Tensors<'_>, after: Option<QuantParams>) -> Result<Option<ByteTable>> {
    let make = match params.activation {
        Some(Step::GeluTable) => gelu_table,
        Some(Step::GeluTanhTable) => gelu_tanh_table,
        Some(Step::SiluTable) => silu_table,
        _ => return Ok(None),
    };
    let after = after.ok_or_else(|| Error::input("y", "\"u8\" or \"i8\" for a table", "another"))?;
    Ok(Some(make(quantizer(t, "before", after.dtype())?, after)))
}

fn activation<'a>(params: &Params, table: Option<&'a ByteTable>) -> Result<Activation<'a>> {
    Ok(match (params.activation, table) {
        (_, Some(table)) => Activation::Table(table),
        (Some(Step::Relu), _) => Activation::Relu,
        (Some(Step::Gelu), _) => Activation::Gelu,
        (Some(Step::GeluTanh), _) => Activation::GeluTanh,
        (Some(Step::Silu), _) => Activation::Silu,
        (Some(Step::Clamp), _) => match (params.low, params.high) {
            (Some(low), Some(high)) => Activation::Clamp { low, high },
            _ => return Err(Error::input("low and high", "both for \"clamp\"", "not both")),
        },
        _ => Activation::Identity,
    })
}
