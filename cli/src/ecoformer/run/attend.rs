//! `siskin run ecoformer-attention`: a context by codes from a file, to a file.

use super::tensor::{X, codes, hash_from};
use crate::base::case::params;
use crate::base::error::{Error, Result};
use crate::base::files::{FileOperation, Files, Written};
use crate::base::heads::{Heads, Shape};
use crate::base::tensors::Tensors;
use crate::ecoformer::case::{Bandwidth, Numerator, check_causal};
use safetensors::Dtype;
use siskin::HeadsMut;
use siskin::ecoformer::{BitCodes, LinearAttention, LinearAttentionInputs};
use siskin::{Ctx, Scratch};
use std::path::{Path, PathBuf};

/// EcoFormer's linear attention by binary codes, from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// The hash, a safetensors file, to encode x with, if its tensors are not in the other; - is standard input.
    #[arg(long)]
    hash: Option<PathBuf>,
    /// As the parameter, which it comes before.
    #[arg(long, value_enum)]
    bandwidth: Option<Bandwidth>,
    /// As the parameter, which it comes before.
    #[arg(long, value_enum)]
    numerator: Option<Numerator>,
    /// As the parameter.
    #[arg(long)]
    causal: bool,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  v             [N, H, D], or [B, N, H, D]: B sequences of N tokens; F32, BF16, F16, U8
                or I8
  v_scale, [v_zero_point]    of bytes: F32 and I32, [1] or [H]
  [cu_seqlens]  [n + 1]  I32 or I64: where packed sequences begin and end in v [N, H, D],
                from 0 to N; one sequence if missing
and the codes, as one of these:
  codes         [.., H, bits]  I8, +1 or -1: of queries and keys
  q, k          the same, each its own
  x             [.., H, E], F32, BF16 or F16: tokens that are encoded by a hash, whose
                tensors are there or in the file of --hash; `siskin run ecoformer-encode
                --help` names them

Parameters, a JSON object in the metadata of the file under "params", or --params:
  "numerator"   "released" (if missing): the bias multiplies a token's own value, as in
                the published code; or "consistent": the sum of all
  "causal"      true: no query meets a key behind it; of the consistent numerator only
  "bandwidth"   "sequence" (if missing) or "frozen", to encode x
  "isa"         a tier of instructions; the best of this CPU if missing
  "threads"     1 if missing

Tensor out: y, F32, of v's shape. With c = bits + 1, q and k of +1 and -1:
  released      y[i] = (sum over j of (q[i].k[j]) v[j] + c v[i]) / sum over j of (q[i].k[j] + c)
  consistent    y[i] = sum over j of (q[i].k[j] + c) v[j] / sum over j of (q[i].k[j] + c)

Example, with NumPy:
  import subprocess, numpy as np
  from safetensors.numpy import load_file, save_file
  q, k = np.random.choice(np.int8([-1, 1]), (2, 5, 3, 16))
  v = np.random.randn(5, 3, 8).astype(np.float32)
  save_file({"q": q, "k": k, "v": v}, "case.safetensors")
  subprocess.run("siskin run ecoformer-attention --numerator consistent --in case.safetensors "
                 "--out y.safetensors".split(), check=True)
  w = np.einsum("ihb,jhb->hij", q.astype(int), k.astype(int)) + 17
  y = np.einsum("hij,jhd->ihd", w / w.sum(-1, keepdims=True), v)
  assert np.allclose(load_file("y.safetensors")["y"], y, atol=1e-5)
"#;

params! {
    numerator: Numerator = Numerator::Released,
    causal: bool,
    /// Only x has one.
    bandwidth: Option<Bandwidth>,
}

impl FileOperation for Args {
    const NAME: &'static str = "ecoformer-attention";

    type Params = Params;

    fn files(&self) -> &Files {
        &self.files
    }

    fn also_reads(&self) -> Option<&Path> {
        self.hash.as_deref()
    }

    fn compute(&self, params: &Params, tensors: Tensors<'_>, _: u128, ctx: &Ctx) -> Result<Written> {
        let params = Params {
            numerator: self.numerator.unwrap_or(params.numerator),
            causal: self.causal || params.causal,
            bandwidth: self.bandwidth.or(params.bandwidth),
            ..Params::default()
        };
        check_causal(params.causal, params.numerator)?;
        attend(&params, self.hash.as_deref(), tensors, ctx)
    }
}

/// Codes of queries, and of keys where those have others.
struct Codes {
    q: BitCodes,
    k: Option<BitCodes>,
}

fn attend(params: &Params, hash: Option<&Path>, mut tensors: Tensors<'_>, ctx: &Ctx) -> Result<Written> {
    let t = &mut tensors;
    let v = Heads::take(t, "v")?;
    let shape = v.shape;
    let lengths = shape.lengths(t)?;
    let has_codes = t.has("codes");
    let codes = if t.has("x") {
        let x = X::take(t)?;
        same("x", &x.shape, &shape)?;
        let hash = hash_from(hash, t)?;
        let (q, _) = x.encode(&hash, &lengths, params.bandwidth.unwrap_or_default(), ctx)?;
        Codes { q, k: None }
    } else if hash.is_some() || params.bandwidth.is_some() {
        return Err(Error::input("x", "a tensor of this name for a hash or a bandwidth", "none"));
    } else {
        let mut own = |name: &str| {
            let (codes, of_codes) = codes(t, name)?;
            same(name, &of_codes, &shape)?;
            Ok::<_, Error>(codes)
        };
        match has_codes {
            true => Codes { q: own("codes")?, k: None },
            false => Codes { q: own("q")?, k: Some(own("k")?) },
        }
    };
    tensors.finish()?;

    let (tokens, heads, head_dim) = (shape.tokens(), shape.heads, v.place.head_dim);
    let mut attention = LinearAttention::new(heads, codes.q.bits())?.numerator(params.numerator.library());
    if params.causal {
        attention = attention.causal();
    }
    let mut y = vec![0.0; tokens * heads * head_dim];
    let (k, v) = (codes.k.as_ref().unwrap_or(&codes.q), v.data.input(&v.place, &v.params)?);
    let out = HeadsMut::new(&mut y, tokens, heads, head_dim)?;
    let inputs = LinearAttentionInputs::new(&codes.q, k, v);
    attention.forward(inputs, &lengths.sequences(), out, ctx, &mut Scratch::new())?;
    let bytes = y.into_iter().flat_map(f32::to_le_bytes).collect();
    Ok(Written { tensors: vec![("y", Dtype::F32, shape.with(head_dim), bytes)], report: None })
}

/// Whether a tensor is of the tokens and heads of v.
fn same(name: &str, shape: &Shape, of_v: &Shape) -> Result<()> {
    if shape == of_v {
        return Ok(());
    }
    Err(Error::input(name, format_args!("{of_v}, as v"), shape))
}
