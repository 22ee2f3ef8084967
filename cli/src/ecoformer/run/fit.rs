//! `siskin run ecoformer-fit`: a hash learned from a file, to a file.

use super::tensor::X;
use crate::base::case::params;
use crate::base::error::{Error, Result};
use crate::base::files::{FileOperation, Files, Written};
use crate::base::lengths::Lengths;
use crate::base::tensors::Tensors;
use safetensors::Dtype;
use siskin::Ctx;
use siskin::HeadsRef;
use siskin::ecoformer::{FitOptions, Learned, fit};

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

params! {
    bits: usize = FitOptions::default().bits,
    anchors: usize = FitOptions::default().anchors,
    neighbours: usize = FitOptions::default().neighbours,
    iterations: usize = FitOptions::default().iterations,
    learning_rate: f32 = FitOptions::default().learning_rate,
    momentum: f32 = FitOptions::default().momentum,
    seed: u64 = FitOptions::default().seed,
}

impl FileOperation for Args {
    const NAME: &'static str = "ecoformer-fit";

    type Params = Params;

    fn files(&self) -> &Files {
        &self.files
    }

    fn compute(&self, params: &Params, tensors: Tensors<'_>, _: u128, ctx: &Ctx) -> Result<Written> {
        let l = learn(params, tensors, ctx)?;
        let (h, m) = (l.heads, l.anchors_per_head);
        let tensor = |name, values: &[f32], shape| {
            (name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        let report = serde_json::json!({
            "accepted": l.accepted,
            "before": l.losses.iter().map(|loss| loss.before).collect::<Vec<_>>(),
            "after": l.losses.iter().map(|loss| loss.after).collect::<Vec<_>>(),
        });
        Ok(Written {
            tensors: vec![
                tensor("anchors", &l.anchors, vec![h, m, l.head_dim]),
                tensor("centring", &l.centring, vec![h, m]),
                tensor("projection", &l.projection, vec![h, l.bits, m]),
                tensor("sigma", &l.sigma, vec![h]),
            ],
            report: Some(("fit", report)),
        })
    }
}

fn learn(params: &Params, mut tensors: Tensors<'_>, ctx: &Ctx) -> Result<Learned> {
    let t = &mut tensors;
    let x = X::take(t)?;
    let lengths = x.shape.lengths(t)?;
    let heads = x.shape.heads;
    let anchor_tokens = t.optional("anchor_tokens", Tensors::indices)?;
    let projection = match t.optional("projection", Tensors::take::<f32, 3>)? {
        Some((projection, shape)) => {
            let expected = [heads, params.bits, params.anchors];
            if shape != expected {
                let got = format_args!("{shape:?}");
                return Err(Error::input("projection", format_args!("{expected:?}"), got));
            }
            Some(projection)
        }
        None => None,
    };
    tensors.finish()?;

    let options = FitOptions::default()
        .bits(params.bits)
        .anchors(params.anchors)
        .neighbours(params.neighbours)
        .iterations(params.iterations)
        .learning_rate(params.learning_rate)
        .momentum(params.momentum)
        .seed(params.seed)
        .anchor_tokens(anchor_tokens)
        .projection(projection);
    Ok(fit(&sequences(&x, &lengths)?, &options, ctx)?)
}

/// The tokens of each sequence, of which none may be empty.
fn sequences<'a>(x: &'a X, lengths: &Lengths) -> Result<Vec<HeadsRef<'a, f32>>> {
    let row = x.shape.heads * x.head_dim;
    let count = lengths.count();
    if count == 0 || (0..count).any(|b| lengths.queries(b).1 == 0) {
        let name = if matches!(lengths, Lengths::Packed { .. }) { "cu_seqlens" } else { "x" };
        return Err(Error::input(name, "sequences that are not empty", "none, or an empty one"));
    }
    let of = |b: usize| {
        let (first, len) = lengths.queries(b);
        HeadsRef::new(&x.values[first * row..][..len * row], len, x.shape.heads, x.head_dim)
    };
    Ok((0..count).map(of).collect::<siskin::Result<_>>()?)
}
