//! `siskin run attention`: a context from a file to a file, for anyone to compare with.

use super::case::Softmax;
use super::problem::{Biases, Lengths, Mask};
use super::tensor::{Data, Place};
use crate::case::{YType, check_run, ctx, on_threads};
use crate::error::{Error, Result};
use crate::json::to_json;
use crate::run::{Files, indices, params, quantizer};
use crate::tensors::{Tensors, elements, parse, read, write};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use siskin::attention::{Attention, Bias, BlockMask, Call, EmptyRow, Int8, Skipped};
use siskin::quant::{QuantParams, QuantType};
use siskin::{Ctx, MatRef, Scratch};
use std::collections::HashMap;
use std::path::Path;

/// context = softmax(scale · q · kᵀ + bias) · v, from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  q               [T, H, D], or [B, T, H, D]: B sequences of T queries
  k, v            [S, G, D], or [B, S, G, D]; H is a multiple of G
                  All F32, BF16 or F16, mixed or not, or all U8 or I8
  [cu_seqlens]    [n + 1]  I32 or I64: where packed sequences begin and end in q
                  [T, H, D], from 0 to T; one sequence if missing
  [cu_seqlens_k]  [n + 1]  the same in k and v; as cu_seqlens if missing
  [key_lengths]   [n]      I32 or I64: the keys of each sequence that are there
  [positions]     [n]      I32 or I64: of each sequence's first query, for causal and
                  window; its keys less its queries if missing
  [bias]          [n or 1, H or 1, T or 1, S]  F32, added to the scaled scores; -inf
                  is a key that is not there. Of packed sequences T and S are the longest
  [block_mask]    [ceil(T / block_q), ceil(S / block_k)]  BOOL or U8: tiles that are there
  [gates]         [T, H], or [B, T, H]  F32: the context of a head is multiplied by it
  of bytes:
  X_scale, [X_zero_point]      F32 and I32, [1] or one for each head; X is q, k or v
  [scores_scale], [scores_zero_point]    [1]: the scaled scores are quantized to U8
  [weights_scale]                        [1]: of the weights, U8; 1 / 255 if missing
  [context_scale], [context_zero_point]  [1]: the context is quantized to U8 before
                                         the gate
  y_scale, [y_zero_point]      [1]: of an output of bytes

Parameters, a JSON object in the metadata of the file under "params", or --params:
  "scale"         of scores; 1 / sqrt(D) if missing
  "gamma", "zeta" a clipped softmax; or
  "alpha", "max_len"  the same with gamma = -alpha / max_len
  "causal"        true: no query meets a key behind its position
  "window"        [left, right]: keys at most so far from a query's position
  "empty_rows"    "zeros" (if missing) or "uniform": a query that meets no key
  "block_q", "block_k"  the tiles of block_mask
  "y"             "f32" (if missing), "bf16", "f16", "u8" or "i8"
  "isa"           a tier of instructions; the best of this CPU if missing
  "threads"       1 if missing

Tensor out: y, of q's shape. Metadata out: "skipped", a JSON object of the pairs of a
query and a key that are there, over all heads ("pairs"), those whose weight is 0 by the
clip ("zeros"), and those whose v was not multiplied ("skipped"; as a part of all,
"share"). Head h of q meets head h / (H / G) of k and v.
  w = softmax(scale * q k' + bias);  clipped: min(1, max(0, (zeta - gamma) * w + gamma))
  y = (w v) * gate

Example, with NumPy:
  import json, subprocess, numpy as np
  from safetensors.numpy import load_file, save_file
  q, k, v = np.random.randn(3, 5, 2, 16).astype(np.float32)
  save_file({"q": q, "k": k, "v": v}, "case.safetensors",
            metadata={"params": json.dumps({"gamma": -0.03})})
  subprocess.run("siskin run attention --in case.safetensors --out y.safetensors".split(), check=True)
  w = np.exp(np.einsum("thd,shd->hts", q, k) / 4)
  w = np.clip(1.03 * w / w.sum(-1, keepdims=True) - 0.03, 0, 1)
  assert np.allclose(load_file("y.safetensors")["y"], np.einsum("hts,shd->thd", w, v), atol=1e-5)
"#;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    scale: Option<f32>,
    gamma: Option<f32>,
    zeta: Option<f32>,
    alpha: Option<f32>,
    max_len: Option<usize>,
    causal: bool,
    window: Option<[usize; 2]>,
    empty_rows: Empty,
    block_q: Option<usize>,
    block_k: Option<usize>,
    y: YType,
    isa: Option<String>,
    threads: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            scale: None,
            gamma: None,
            zeta: None,
            alpha: None,
            max_len: None,
            causal: false,
            window: None,
            empty_rows: Empty::Zeros,
            block_q: None,
            block_k: None,
            y: YType::F32,
            isa: None,
            threads: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Empty {
    Zeros,
    Uniform,
}

pub fn main(args: &Args) -> Result<()> {
    let Files { input, out, params } = &args.files;
    write(out, &compute(input, &read(input)?, params.as_deref(), u128::MAX)?)
}

/// The bytes of the file that answers the bytes of a file, whose path only errors tell; there may be `most` pairs of a query
/// and a key.
pub fn compute(path: &Path, bytes: &[u8], own: Option<&str>, most: u128) -> Result<Vec<u8>> {
    let file = parse(path, bytes)?;
    let params: Params = params(path, bytes, own)?;
    check_run(params.threads, 0)?;
    let ctx = ctx(params.isa.as_deref(), params.threads)?;
    let (y, shape, skipped) =
        on_threads(params.threads, || attention(&params, Tensors::new(file), &ctx, most))?;
    let (dtype, bytes) = stored(y);
    let view = TensorView::new(dtype, shape, &bytes).map_err(|e| Error::file(path, e))?;
    let counts = to_json(&serde_json::json!({
        "pairs": skipped.pairs,
        "zeros": skipped.zeros,
        "skipped": skipped.skipped,
        "share": skipped.share(),
    }));
    let metadata = HashMap::from([("skipped".to_string(), counts)]);
    safetensors::serialize([("y", view)], Some(metadata)).map_err(|e| Error::file(path, e))
}

fn stored(y: Data) -> (Dtype, Vec<u8>) {
    match y {
        Data::F32(y) => (Dtype::F32, y.into_iter().flat_map(f32::to_le_bytes).collect()),
        Data::Bf16(y) => (Dtype::BF16, y.into_iter().flat_map(siskin::bf16::to_le_bytes).collect()),
        Data::F16(y) => (Dtype::F16, y.into_iter().flat_map(siskin::f16::to_le_bytes).collect()),
        Data::U8(y) => (Dtype::U8, y),
        Data::I8(y) => (Dtype::I8, y.into_iter().map(|v| v as u8).collect()),
    }
}

/// q, k or v.
pub struct Heads {
    pub data: Data,
    pub params: Vec<QuantParams>,
    /// Of four dimensions the first.
    pub batch: Option<usize>,
    /// Of a sequence, where there is a batch.
    pub len: usize,
    pub place: Place,
}

/// A tensor of tokens, and the quantizers of one of bytes.
pub fn heads(t: &mut Tensors<'_>, name: &str) -> Result<Heads> {
    let tensor = t.view(name)?;
    let (batch, len, heads, head_dim) = match *tensor.shape() {
        [tokens, heads, head_dim] => (None, tokens, heads, head_dim),
        [batch, len, heads, head_dim] => (Some(batch), len, heads, head_dim),
        _ => return Err(Error::input(name, "3 or 4 dimensions", format_args!("{:?}", tensor.shape()))),
    };
    // What has nothing in it takes no room in a file, but could here.
    if heads == 0 || head_dim == 0 || batch.unwrap_or(1) > 1 << 24 {
        let expected = "heads, features, and at most 2^24 sequences";
        return Err(Error::input(name, expected, format_args!("{:?}", tensor.shape())));
    }
    let (data, dtype) = match tensor.dtype() {
        Dtype::F32 => (Data::F32(elements(&tensor)), None),
        Dtype::BF16 => (Data::Bf16(elements(&tensor)), None),
        Dtype::F16 => (Data::F16(elements(&tensor)), None),
        Dtype::U8 => (Data::U8(elements(&tensor)), Some(QuantType::U8)),
        Dtype::I8 => (Data::I8(elements(&tensor)), Some(QuantType::I8)),
        other => return Err(Error::input(name, "F32, BF16, F16, U8 or I8", format_args!("{other:?}"))),
    };
    let params = dtype.map(|dtype| quantizers(t, name, dtype)).transpose()?.unwrap_or_default();
    let place = Place::by_tokens(batch.unwrap_or(1) * len, heads, head_dim);
    Ok(Heads { data, params, batch, len, place })
}

/// Of `NAME_scale` and `NAME_zero_point`, each for all heads or head by head.
fn quantizers(t: &mut Tensors<'_>, name: &str, dtype: QuantType) -> Result<Vec<QuantParams>> {
    let (scale, zero) = (format!("{name}_scale"), format!("{name}_zero_point"));
    let scales: Vec<f32> = t.vector(&scale)?;
    let zeros: Vec<i32> = t.vector(&zero)?;
    if scales.is_empty() {
        return Err(Error::input(&scale, "a tensor of this name, of at least one number", "none"));
    }
    let count = scales.len().max(zeros.len());
    if [scales.len(), zeros.len().max(1)].iter().any(|&n| n != 1 && n != count) {
        let got = format_args!("{} and {}", scales.len(), zeros.len());
        return Err(Error::input(format_args!("{scale} and {zero}"), "one, or one for each head", got));
    }
    let at = |i: usize, len: usize| if len == 1 { 0 } else { i };
    (0..count)
        .map(|i| {
            let zero_point = zeros.get(at(i, zeros.len())).copied().unwrap_or(0);
            QuantParams::new(scales[at(i, scales.len())], zero_point, dtype)
                .map_err(|e| Error::input(format_args!("{scale} and {zero}"), "a quantizer", e))
        })
        .collect()
}

fn attention(
    params: &Params,
    mut tensors: Tensors<'_>,
    ctx: &Ctx,
    most: u128,
) -> Result<(Data, Vec<usize>, Skipped)> {
    let t = &mut tensors;
    let (q, k, v) = (heads(t, "q")?, heads(t, "k")?, heads(t, "v")?);
    if (q.batch, k.batch) != (k.batch, v.batch) {
        return Err(Error::input("k and v", "as many dimensions and sequences as q", "others"));
    }
    let lengths = lengths(t, &q, &k)?;
    let key_lengths: Option<Vec<usize>> = optional(t, "key_lengths")?;
    let positions: Option<Vec<usize>> = optional(t, "positions")?;
    let bias = match t.has("bias") {
        true => {
            let (data, shape) = t.take::<f32, 4>("bias")?;
            Some(Biases { data, shape })
        }
        false => None,
    };
    let mask = mask(t, params)?;
    let gates = gates(t, &q)?;
    let int8 = int8(t, q.data.is_bytes())?;
    let to = match params.y {
        YType::U8 => quantizer(t, "y", QuantType::U8)?,
        YType::I8 => quantizer(t, "y", QuantType::I8)?,
        _ => QuantParams::u8(1.0, 0)?,
    };
    tensors.finish()?;

    let pairs = (0..lengths.count())
        .map(|b| lengths.queries(b).1 as u128 * lengths.keys(b).1 as u128)
        .sum::<u128>()
        .saturating_mul(q.place.heads as u128);
    if pairs > most {
        return Err(Error::input(
            "q and k",
            format_args!("at most {most} pairs of a query and a key"),
            pairs,
        ));
    }
    let mut attention = Attention::new(q.place.heads, k.place.heads, q.place.head_dim)?
        .softmax(Softmax::new(params.gamma, params.zeta, params.alpha, params.max_len)?.library()?)
        .empty_rows(match params.empty_rows {
            Empty::Zeros => EmptyRow::Zeros,
            Empty::Uniform => EmptyRow::Uniform,
        });
    if let Some(scale) = params.scale {
        attention = attention.scale(scale)?;
    }
    if params.causal {
        attention = attention.causal();
    }
    if let Some([left, right]) = params.window {
        attention = attention.window(left, right);
    }
    let mut call = Call::new(lengths.sequences()).int8(int8);
    if let Some(lengths) = &key_lengths {
        call = call.key_lengths(lengths);
    }
    if let Some(positions) = &positions {
        call = call.positions(positions);
    }
    if let Some(Biases { data, shape: [b, h, q, k] }) = &bias {
        call = call.bias(Bias::new(data, *b, *h, *q, *k)?);
    }
    if let Some(m) = &mask {
        call = call.block_mask(BlockMask::new(&m.live, m.rows, m.cols, m.block_q, m.block_k)?);
    }
    if let Some(gates) = &gates {
        call = call.gates(MatRef::new(gates, q.place.tokens, q.place.heads)?);
    }
    let mut y = Data::zeros(params.y, q.place.elements())?;
    let out = y.output(&q.place, to)?;
    let skipped = attention.forward(
        q.data.input(&q.place, &q.params)?,
        k.data.input(&k.place, &k.params)?,
        v.data.input(&v.place, &v.params)?,
        &call,
        out,
        ctx,
        &mut Scratch::new(),
    )?;
    let Place { heads, head_dim, .. } = q.place;
    let shape = q.batch.into_iter().chain([q.len, heads, head_dim]).collect();
    Ok((y, shape, skipped))
}

fn lengths(t: &mut Tensors<'_>, q: &Heads, k: &Heads) -> Result<Lengths> {
    if !t.has("cu_seqlens") {
        return Ok(Lengths::Batch { batch: q.batch.unwrap_or(1), q_len: q.len, kv_len: k.len });
    }
    if q.batch.is_some() {
        return Err(Error::input("cu_seqlens", "none for q of 4 dimensions", "one"));
    }
    let of_q = cu_seqlens(t, "cu_seqlens", q.len)?;
    let of_k = match t.has("cu_seqlens_k") {
        true => cu_seqlens(t, "cu_seqlens_k", k.len)?,
        false if q.len == k.len => of_q.clone(),
        false => {
            let expected = format_args!("one, as k has not the {} tokens of q", q.len);
            return Err(Error::input("cu_seqlens_k", expected, "none"));
        }
    };
    if of_q.len() != of_k.len() {
        let expected = format_args!("{} numbers, as cu_seqlens", of_q.len());
        return Err(Error::input("cu_seqlens_k", expected, of_k.len()));
    }
    Ok(Lengths::Packed { q: of_q, kv: of_k })
}

/// Where packed sequences of so many tokens begin and end.
pub fn cu_seqlens(t: &mut Tensors<'_>, name: &str, tokens: usize) -> Result<Vec<i32>> {
    let list: Vec<i32> = indices(t, name)?;
    let rises = list.first() == Some(&0) && list.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rises || list.last().is_none_or(|&last| last as usize != tokens) {
        let expected = format_args!("0 to {tokens}, which is all tokens, and never falling");
        return Err(Error::input(name, expected, "other numbers"));
    }
    Ok(list)
}

fn optional<T: TryFrom<i64>>(t: &mut Tensors<'_>, name: &str) -> Result<Option<Vec<T>>> {
    t.has(name).then(|| indices(t, name)).transpose()
}

fn mask(t: &mut Tensors<'_>, params: &Params) -> Result<Option<Mask>> {
    let blocks = (params.block_q, params.block_k);
    if !t.has("block_mask") {
        return match blocks {
            (None, None) => Ok(None),
            _ => Err(Error::input("block_q and block_k", "a tensor block_mask", "none")),
        };
    }
    let tensor = t.view("block_mask")?;
    let (Some(block_q), Some(block_k)) = blocks else {
        return Err(Error::input("block_q and block_k", "both for a block_mask", "not both"));
    };
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::BOOL | Dtype::U8, &[rows, cols]) => {
            let live = tensor.data().iter().map(|&b| b != 0).collect();
            Ok(Some(Mask { live, rows, cols, block_q, block_k }))
        }
        (dtype, shape) => {
            let got = format_args!("{dtype:?} of shape {shape:?}");
            Err(Error::input("block_mask", "BOOL or U8 of two dimensions", got))
        }
    }
}

fn gates(t: &mut Tensors<'_>, q: &Heads) -> Result<Option<Vec<f32>>> {
    if !t.has("gates") {
        return Ok(None);
    }
    let tensor = t.view("gates")?;
    let flat = [q.place.tokens, q.place.heads];
    let same = match q.batch {
        Some(batch) => tensor.shape() == [batch, q.len, q.place.heads],
        None => false,
    };
    if tensor.dtype() != Dtype::F32 || !(same || tensor.shape() == flat) {
        let got = format_args!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
        return Err(Error::input("gates", format_args!("F32 of shape {flat:?}"), got));
    }
    Ok(Some(elements(&tensor)))
}

/// Floats leave what is meant for bytes to be refused.
fn int8(t: &mut Tensors<'_>, bytes: bool) -> Result<Int8> {
    let mut int8 = Int8::default();
    if bytes {
        if t.has("scores_scale") {
            int8.scores = Some(quantizer(t, "scores", QuantType::U8)?);
        }
        if t.has("context_scale") {
            int8.context = Some(quantizer(t, "context", QuantType::U8)?);
        }
        if let Some(scale) = t.number("weights_scale")? {
            int8.weights_scale = scale;
        }
    }
    Ok(int8)
}
