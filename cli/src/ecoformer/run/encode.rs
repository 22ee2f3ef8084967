//! `siskin run ecoformer-encode`: codes of tokens from a file, to a file.

use super::tensor::{X, hash_from, signs, words};
use crate::base::case::params;
use crate::base::error::Result;
use crate::base::files::{FileOperation, Files, Written};
use crate::base::tensors::Tensors;
use crate::ecoformer::case::Bandwidth;
use safetensors::Dtype;
use siskin::Ctx;
use std::path::{Path, PathBuf};

/// Encode tokens to EcoFormer's binary codes, from a safetensors file to another.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// The hash, a safetensors file, if its tensors are not in the other; - is standard input.
    #[arg(long)]
    hash: Option<PathBuf>,
    /// As the parameter, which it comes before.
    #[arg(long, value_enum)]
    bandwidth: Option<Bandwidth>,
}

const HELP: &str = r#"Tensors in (those in brackets may be missing):
  x             [N, H, D], or [B, N, H, D]: B sequences of N tokens; what queries and keys
                share, F32, BF16 or F16
  [cu_seqlens]  [n + 1]  I32 or I64: where packed sequences begin and end in x [N, H, D],
                from 0 to N; one sequence if missing
and those of the hash, all F32, there or in the file of --hash. As `siskin run
ecoformer-fit` writes them, or as the checkpoints of EcoFormer have them:
  anchors       [H, anchors, D]       anchor  [1, H, anchors, D]
  centring      [H, anchors]          mvec    [1, H, 1, anchors]
  projection    [H, bits, anchors]    A       [H, bits, anchors]
  [sigma]       [H], a frozen bandwidth

Parameters, a JSON object in the metadata of the file under "params", or --params:
  "bandwidth"   "sequence" (if missing): of each sequence and head its own, as the
                originals have it; or "frozen": sigma
  "isa"         a tier of instructions; the best of this CPU if missing
  "threads"     1 if missing

Tensors out, of x's shape but for the last dimension:
  codes         [.., H, bits]  I8, +1 or -1
  words         [.., H, ceil(bits / 64)]  U64: the same, a bit each, 1 for +1; bit b is bit
                b % 64 of word b / 64
Metadata out: "encoded", a JSON object of how many heads of tokens have no direction, their
norm being 0, infinite or NaN ("without_direction"): they count as vectors of zeros.
  x = x / |x|;  d[i] = |x - anchors[i]|^2;  sigma = mean of d over tokens and anchors
  code = +1 where projection (exp(-d / (2 sigma)) - centring) > 0, else -1

Example, with NumPy:
  import subprocess, numpy as np
  from safetensors.numpy import load_file, save_file
  save_file({"x": np.random.randn(100, 2, 16).astype(np.float32)}, "x.safetensors")
  subprocess.run("siskin run ecoformer-fit --in x.safetensors --out hash.safetensors".split(), check=True)
  subprocess.run("siskin run ecoformer-encode --in x.safetensors --hash hash.safetensors "
                 "--out codes.safetensors".split(), check=True)
  y = load_file("codes.safetensors")
  assert y["codes"].shape == (100, 2, 16)
  assert (y["words"][..., 0] == ((y["codes"] > 0) << np.arange(16, dtype=np.uint64)).sum(-1)).all()
"#;

params! {
    bandwidth: Bandwidth = Bandwidth::Sequence,
}

impl FileOperation for Args {
    const NAME: &'static str = "ecoformer-encode";

    type Params = Params;

    fn files(&self) -> &Files {
        &self.files
    }

    fn also_reads(&self) -> Option<&Path> {
        self.hash.as_deref()
    }

    fn compute(&self, params: &Params, mut tensors: Tensors<'_>, _: u128, ctx: &Ctx) -> Result<Written> {
        let x = X::take(&mut tensors)?;
        let lengths = x.shape.lengths(&mut tensors)?;
        let hash = hash_from(self.hash.as_deref(), &mut tensors)?;
        tensors.finish()?;
        let bandwidth = self.bandwidth.unwrap_or(params.bandwidth);
        let (codes, encoded) = x.encode(&hash, &lengths, bandwidth, ctx)?;
        let each = codes.bits().div_ceil(64);
        Ok(Written {
            tensors: vec![
                ("codes", Dtype::I8, x.shape.with(codes.bits()), signs(&codes, &x.shape)),
                ("words", Dtype::U64, x.shape.with(each), words(&codes, &x.shape)),
            ],
            report: Some(("encoded", serde_json::json!({ "without_direction": encoded.without_direction }))),
        })
    }
}
