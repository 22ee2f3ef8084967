//! `siskin run attention`: a context from a file to a file, for anyone to compare with.

use super::case::Softmax;
use super::problem::{Biases, Mask, Problem};
use crate::base::case::params;
use crate::base::data::Place;
use crate::base::error::{Error, Result};
use crate::base::files::{FileOperation, Files, Written};
use crate::base::heads::{Heads, Shape, cu_seqlens};
use crate::base::lengths::Lengths;
use crate::base::tensors::{Tensors, elements, floats};
use crate::base::types::YType;
use safetensors::Dtype;
use serde::Deserialize;
use siskin::Element;
use siskin::attention::{AttentionQuantizers, EmptyRow};
use siskin::quant::QuantParams;
use siskin::{Ctx, Scratch};

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
  [bias]          [n or 1, H or 1, T or 1, S], dimensions in front may be missing: floats
                  that are added to the scaled scores (-inf is a key that is not there),
                  or BOOL, false being -inf. Of packed sequences T and S are the longest
  [block_mask]    [ceil(T / block_q), ceil(S / block_k)]  BOOL or U8: tiles that are there
  [gates]         [T, H], or [B, T, H]  F32: the context of a head is multiplied by it
  of bytes:
  X_scale, [X_zero_point]      F32 and I32, [1] or one for each head; X is q, k or v; or
  X_token_scale, [X_zero_point]  [T] or [B, T], and [1]: a scale for each token
  [scores_scale], [scores_zero_point]    [1]: the scaled scores are quantized to U8
  [weights_scale]                        [1]: one step for all weights, which are U8;
                                         if missing each 512 keys of a query have their
                                         own, the largest weight / 255. The authors of
                                         Quantizable Transformers have 1 / 255
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
clip, or rounded to 0 with it ("zeros"), and those whose v was not multiplied ("skipped"; as a part of all,
"share"); of bytes, by how much of a query's weight its rounded weights are off ("lost",
on average, and "most_lost"). Head h of q meets head h / (H / G) of k and v.
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

params! {
    scale: Option<f32>,
    gamma: Option<f32>,
    zeta: Option<f32>,
    alpha: Option<f32>,
    max_len: Option<usize>,
    causal: bool,
    window: Option<[usize; 2]>,
    empty_rows: Empty = Empty::Zeros,
    block_q: Option<usize>,
    block_k: Option<usize>,
    y: YType = YType::F32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Empty {
    Zeros,
    Uniform,
}

impl FileOperation for Args {
    const NAME: &'static str = "attention";
    const FUZZED: Option<u128> = Some(1 << 18);

    type Params = Params;

    fn files(&self) -> &Files {
        &self.files
    }

    /// There may be `most` pairs of a query and a key.
    fn compute(&self, params: &Params, tensors: Tensors<'_>, most: u128, ctx: &Ctx) -> Result<Written> {
        let (problem, shape) = problem(params, tensors)?;
        let pairs = (0..problem.lengths.count())
            .map(|b| problem.lengths.queries(b).1 as u128 * problem.lengths.keys(b).1 as u128)
            .sum::<u128>()
            .saturating_mul(problem.heads as u128);
        if pairs > most {
            let expected = format_args!("at most {most} pairs of a query and a key");
            return Err(Error::input("q and k", expected, pairs));
        }
        let mut y = problem.output();
        let skipped = problem.forward(&problem.attention()?, &mut y, ctx, &mut Scratch::new())?;
        let (dtype, bytes) = y.stored();
        let counts = serde_json::json!({
            "pairs": skipped.pairs,
            "zeros": skipped.zeros,
            "skipped": skipped.skipped,
            "share": skipped.share(),
            "lost": skipped.lost_weight(),
            "most_lost": skipped.most_lost_weight(),
        });
        Ok(Written {
            tensors: vec![("y", dtype, shape.with(problem.head_dim), bytes)],
            report: Some(("skipped", counts)),
        })
    }
}

/// What the tensors and the parameters say is to be computed.
fn problem(params: &Params, mut tensors: Tensors<'_>) -> Result<(Problem, Shape)> {
    let t = &mut tensors;
    let [q, k, v] = [Heads::take(t, "q")?, Heads::take(t, "k")?, Heads::take(t, "v")?];
    let batches = [&q, &k, &v].map(|x| x.shape.batch);
    if batches != [batches[0]; 3] {
        return Err(Error::input("k and v", "as many dimensions and sequences as q", "others"));
    }
    let softmax = Softmax::new(params.gamma, params.zeta, params.alpha, params.max_len)?;
    let y = params.y.element().ok_or_else(|| Error::input("y", "anything but i32", "i32"))?;
    let Place { heads, head_dim, .. } = q.place;
    let problem = Problem {
        heads,
        kv_heads: k.place.heads,
        head_dim,
        scale: params.scale.unwrap_or((1.0 / (head_dim as f64).sqrt()) as f32),
        softmax: softmax.library()?,
        causal: params.causal,
        window: params.window,
        empty_rows: match params.empty_rows {
            Empty::Zeros => EmptyRow::Zeros,
            Empty::Uniform => EmptyRow::Uniform,
        },
        places: [q.place, k.place, v.place],
        lengths: lengths(t, &q.shape, &k.shape)?,
        key_lengths: t.optional("key_lengths", Tensors::indices)?,
        positions: t.optional("positions", Tensors::indices)?,
        bias: t.optional("bias", biases)?,
        mask: mask(t, params)?,
        gates: gates(t, &q.shape)?,
        int8: int8(t, q.data.is_bytes())?,
        y,
        y_place: q.place,
        y_params: match y.quant() {
            Some(dtype) => t.quantizer("y", dtype)?,
            None => QuantParams::u8(1.0, 0)?,
        },
        buffers: vec![q.data, k.data, v.data],
        params: [q.params, k.params, v.params],
    };
    tensors.finish()?;
    Ok((problem, q.shape))
}

fn lengths(t: &mut Tensors<'_>, q: &Shape, k: &Shape) -> Result<Lengths> {
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
        let expected = format!("{} numbers, as cu_seqlens", of_q.len());
        return Err(Error::input("cu_seqlens_k", expected, of_k.len()));
    }
    Ok(Lengths::Packed { q: of_q, kv: of_k })
}

/// Floats that are added to the scores, or which keys each query attends to; missing dimensions in front are 1.
fn biases(t: &mut Tensors<'_>, name: &str) -> Result<Biases> {
    let tensor = t.view(name)?;
    let attends = |&byte: &u8| if byte == 0 { f32::NEG_INFINITY } else { 0.0 };
    let data = match tensor.dtype() {
        Dtype::BOOL => Some(tensor.data().iter().map(attends).collect()),
        _ => floats(&tensor),
    };
    let mut shape = [1; 4];
    match (data, 4usize.checked_sub(tensor.shape().len())) {
        (Some(data), Some(missing)) => {
            shape[missing..].copy_from_slice(tensor.shape());
            Ok(Biases { data, shape })
        }
        _ => {
            let got = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
            Err(Error::input(name, "floats or BOOL, of at most 4 dimensions", got))
        }
    }
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

fn gates(t: &mut Tensors<'_>, q: &Shape) -> Result<Vec<f32>> {
    if !t.has("gates") {
        return Ok(Vec::new());
    }
    let tensor = t.view("gates")?;
    let flat = [q.tokens(), q.heads];
    let same = match q.batch {
        Some(batch) => tensor.shape() == [batch, q.len, q.heads],
        None => false,
    };
    if tensor.dtype() != Dtype::F32 || !(same || tensor.shape() == flat) {
        let got = format_args!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
        return Err(Error::input("gates", format_args!("F32 of shape {flat:?}"), got));
    }
    Ok(elements(&tensor))
}

/// Floats leave what is meant for bytes to be refused.
fn int8(t: &mut Tensors<'_>, bytes: bool) -> Result<AttentionQuantizers> {
    let mut int8 = AttentionQuantizers::default();
    if bytes {
        if t.has("scores_scale") {
            int8.scores = Some(t.quantizer("scores", Element::U8)?);
        }
        if t.has("context_scale") {
            int8.context = Some(t.quantizer("context", Element::U8)?);
        }
        int8.weights_scale = t.real("weights_scale")?;
    }
    Ok(int8)
}
