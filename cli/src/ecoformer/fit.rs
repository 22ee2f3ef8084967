//! `siskin run ecoformer-fit`: a hash learned from a file, to a file.

use crate::case::{check_run, ctx, on_threads};
use crate::error::{Error, Result};
use crate::json::to_json;
use crate::run::{Files, indices, params};
use crate::tensors::{Tensors, floats, parse, read, write};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use siskin::Ctx;
use siskin::attention::HeadsRef;
use siskin::ecoformer::{FitOptions, Learned, fit};
use std::collections::HashMap;
use std::path::Path;

/// Learn EcoFormer's hash from tokens, from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  x                [N, H, D], or [B, N, H, D]: B sequences of N tokens; what queries and
                   keys share, F32, BF16 or F16
  [cu_seqlens]     [n + 1]  I32 or I64: where packed sequences begin and end in x
                   [N, H, D], from 0 to N, none empty; one sequence if missing
  [anchor_tokens]  [anchors]  I32 or I64: tokens of the first sequence; drawn if missing
  [projection]     [H, bits, anchors]  F32: to begin with; drawn if missing

Parameters, a JSON object in the metadata of the file under "params", or --params:
  "bits"           of a code, 1 to 256; 16 if missing
  "anchors"        of the kernel, 1 to N; 25 if missing
  "neighbours"     most and least similar tokens, 1 to N; 10 if missing
  "iterations"     of the descent of a bit; 100 if missing
  "learning_rate"  5e-4 if missing
  "momentum"       0 to below 1; 0.9 if missing
  "seed"           of what is drawn; 0 if missing
  "isa"            a tier of instructions; the best of this CPU if missing
  "threads"        1 if missing

Tensors out, F32:
  anchors     [H, anchors, D]     of unit length
  centring    [H, anchors]        the mean of the kernel
  projection  [H, bits, anchors]
  sigma       [H]                 the bandwidth, the mean over the sequences
Metadata out: "fit", a JSON object of what became of each bit: "accepted", and the losses
"before" and "after" its descent.
  x = x / |x|;  d[i] = |x - anchors[i]|^2;  sigma = mean of d over tokens and anchors
  code = sign(projection (exp(-d / (2 sigma)) - centring))

Example, with NumPy:
  import subprocess, numpy as np
  from safetensors.numpy import load_file, save_file
  save_file({"x": np.random.randn(100, 2, 16).astype(np.float32)}, "x.safetensors")
  subprocess.run("siskin run ecoformer-fit --in x.safetensors --out hash.safetensors".split(), check=True)
  h = load_file("hash.safetensors")
  assert h["projection"].shape == (2, 16, 25)
  assert np.allclose(np.linalg.norm(h["anchors"], axis=-1), 1)
"#;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    bits: usize,
    anchors: usize,
    neighbours: usize,
    iterations: usize,
    learning_rate: f32,
    momentum: f32,
    seed: u64,
    isa: Option<String>,
    threads: usize,
}

impl Default for Params {
    fn default() -> Self {
        let FitOptions { bits, anchors, neighbours, iterations, learning_rate, momentum, seed, .. } =
            FitOptions::default();
        Self { bits, anchors, neighbours, iterations, learning_rate, momentum, seed, isa: None, threads: 1 }
    }
}

pub fn main(args: &Args) -> Result<()> {
    let Files { input, out, params } = &args.files;
    write(out, &compute(input, &read(input)?, params.as_deref())?)
}

/// The bytes of the file that answers the bytes of a file, whose path only errors tell.
fn compute(path: &Path, bytes: &[u8], own: Option<&str>) -> Result<Vec<u8>> {
    let file = parse(path, bytes)?;
    let params: Params = params(path, bytes, own)?;
    check_run(params.threads, 0)?;
    let ctx = ctx(params.isa.as_deref(), params.threads)?;
    let l = on_threads(params.threads, || learn(&params, Tensors::new(file), &ctx))?;
    let (h, m) = (l.heads, l.anchors_per_head);
    let stored = [
        ("anchors", &l.anchors, vec![h, m, l.head_dim]),
        ("centring", &l.centring, vec![h, m]),
        ("projection", &l.projection, vec![h, l.bits, m]),
        ("sigma", &l.sigma, vec![h]),
    ]
    .map(|(name, values, shape)| {
        (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    });
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| Error::file(path, e))?;
    let report = to_json(&serde_json::json!({
        "accepted": l.accepted,
        "before": l.losses.iter().map(|loss| loss.before).collect::<Vec<_>>(),
        "after": l.losses.iter().map(|loss| loss.after).collect::<Vec<_>>(),
    }));
    let metadata = HashMap::from([("fit".to_string(), report)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(path, e))
}

fn learn(params: &Params, mut tensors: Tensors<'_>, ctx: &Ctx) -> Result<Learned> {
    let t = &mut tensors;
    let tensor = t.view("x")?;
    let (batch, n, heads, head_dim) = match *tensor.shape() {
        [n, heads, head_dim] => (None, n, heads, head_dim),
        [batch, n, heads, head_dim] => (Some(batch), n, heads, head_dim),
        _ => return Err(Error::input("x", "3 or 4 dimensions", format_args!("{:?}", tensor.shape()))),
    };
    // What has nothing in it takes no room in a file, but could here.
    if tensor.shape().contains(&0) {
        return Err(Error::input("x", "no dimension of 0", format_args!("{:?}", tensor.shape())));
    }
    let x = floats(&tensor)
        .ok_or_else(|| Error::input("x", "F32, BF16 or F16", format_args!("{:?}", tensor.dtype())))?;
    let ends: Vec<usize> = match t.has("cu_seqlens") {
        true if batch.is_some() => {
            return Err(Error::input("cu_seqlens", "none for x of 4 dimensions", "one"));
        }
        true => indices(t, "cu_seqlens")?,
        false => (0..=batch.unwrap_or(1)).map(|b| b * n).collect(),
    };
    let all = batch.unwrap_or(1) * n;
    let rises = ends.first() == Some(&0) && ends.windows(2).all(|pair| pair[0] < pair[1]);
    if !rises || ends.last() != Some(&all) {
        let expected = format_args!("0 to {all}, which is all tokens, and always rising");
        return Err(Error::input("cu_seqlens", expected, "other numbers"));
    }
    let anchor_tokens = t.has("anchor_tokens").then(|| indices(t, "anchor_tokens")).transpose()?;
    let projection = match t.has("projection") {
        true => {
            let (projection, shape) = t.take::<f32, 3>("projection")?;
            let expected = [heads, params.bits, params.anchors];
            if shape != expected {
                let got = format_args!("{shape:?}");
                return Err(Error::input("projection", format_args!("{expected:?}"), got));
            }
            Some(projection)
        }
        false => None,
    };
    tensors.finish()?;

    let row = heads * head_dim;
    let sequences = ends
        .windows(2)
        .map(|ends| HeadsRef::new(&x[ends[0] * row..ends[1] * row], ends[1] - ends[0], heads, head_dim))
        .collect::<siskin::Result<Vec<_>>>()?;
    let &Params { bits, anchors, neighbours, iterations, learning_rate, momentum, seed, .. } = params;
    let options = FitOptions {
        bits,
        anchors,
        neighbours,
        iterations,
        learning_rate,
        momentum,
        seed,
        anchor_tokens,
        projection,
    };
    Ok(fit(&sequences, &options, ctx)?)
}
