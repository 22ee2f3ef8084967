//! `siskin survey`: what block sparsity and INT8 cost, and gain, on the weights of a real checkpoint.

use super::tour;
use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::json::to_json;
use crate::base::measure::{repeat, us};
use crate::base::progress;
use crate::base::random::Rng;
use crate::base::tensors::{floats, parse};
use crate::linear::{Scales, Stored, WType, Weights};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use siskin::linear::{Epilogue, Linear, MAX_FEATURES};
use siskin::quant::{QuantParams, sqnr_db};
use siskin::sparse::{BlockShape, Bsr, Norm, prune};
use siskin::{Ctx, Element, MatMut, MatRef, Scratch, bf16, f16};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

/// Prune, quantize and time every weight of a checkpoint.
///
/// Takes each 2-D tensor [out, in] of F32, F16 or BF16 but embeddings, keeps its heaviest blocks (L2), quantizes it by
/// output channel (or rounds it to --dtype), and times the dense and the sparse layer on random tokens of that type, on one
/// thread. Errors are signal-to-noise ratios in decibels against the weight as it came: higher is better, 20 dB is a tenth.
/// That of pruning is what training would have to make good: nothing is retrained here.
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint, a safetensors file; - is standard input.
    model: PathBuf,
    /// Fraction of the blocks to prune, 0 to below 1.
    #[arg(long, default_value_t = 0.8)]
    sparsity: f64,
    /// Rows x columns of a block.
    #[arg(long, default_value_t = BlockShape::B4X1)]
    block: BlockShape,
    /// Type of the layers and of their tokens.
    #[arg(long, value_enum, default_value_t)]
    dtype: WType,
    /// Tokens to time with.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Milliseconds to time each layer for.
    #[arg(long, default_value_t = 20)]
    min_ms: u64,
    /// Take embeddings too.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV.
    #[arg(long)]
    csv: bool,
}

#[derive(Serialize)]
struct Survey {
    model: String,
    block: String,
    dtype: WType,
    tokens: usize,
    isa: &'static str,
    weights: Vec<Row>,
    skipped: Vec<Skipped>,
}

/// Decibels of what did not change at all are infinite: null in JSON.
#[derive(Serialize)]
struct Row {
    name: String,
    dtype: String,
    out: usize,
    #[serde(rename = "in")]
    input: usize,
    /// Reached.
    sparsity: f64,
    quantized_db: f64,
    pruned_db: f64,
    both_db: f64,
    dense_us: f64,
    sparse_us: f64,
    speed_up: f64,
}

#[derive(Serialize)]
struct Skipped {
    name: String,
    why: String,
}

pub fn main(args: &Args) -> Result<()> {
    if !(1..=1 << 16).contains(&args.tokens) {
        return Err(Error::input("--tokens", "1 to 65536", args.tokens));
    }
    if !(0.0..1.0).contains(&args.sparsity) {
        return Err(Error::input("--sparsity", "0 to below 1", args.sparsity));
    }
    print(args, &survey(args, &input::read(&args.model)?)?)
}

fn survey(args: &Args, bytes: &[u8]) -> Result<Survey> {
    let file = parse(&args.model, bytes)?;
    let ctx = Ctx::serial()?;
    let mut survey = Survey {
        model: input::name(&args.model).display().to_string(),
        block: args.block.to_string(),
        dtype: args.dtype,
        tokens: args.tokens,
        isa: ctx.isa().name(),
        weights: Vec::new(),
        skipped: Vec::new(),
    };
    let mut tensors: Vec<_> = file.iter().filter(|(_, t)| t.shape().len() == 2).collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    let bar = progress::bar(tensors.len(), "surveying");
    let mut scratch = Scratch::new();
    for (name, tensor) in tensors {
        let (n, k) = (tensor.shape()[0], tensor.shape()[1]);
        match refuse(args, name, n, k) {
            Some(why) => survey.skipped.push(Skipped { name: name.into(), why }),
            None => match floats(&tensor) {
                None => {
                    let why = format!("{:?}, not F32, F16 or BF16", tensor.dtype());
                    survey.skipped.push(Skipped { name: name.into(), why });
                }
                Some(w) => {
                    let row = row(args, &w, (n, k), &ctx, &mut scratch);
                    let row =
                        row.map_err(|e| Error::file(input::name(&args.model), format_args!("{name}: {e}")))?;
                    survey.weights.push(Row {
                        name: name.into(),
                        dtype: format!("{:?}", tensor.dtype()),
                        ..row
                    });
                }
            },
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(survey)
}

/// The JSON for the bytes of a checkpoint, measured as little as can be.
pub fn quick(path: &Path, bytes: &[u8]) -> Result<String> {
    let args = Args {
        model: path.into(),
        sparsity: 0.5,
        block: BlockShape::B4X1,
        dtype: WType::I8,
        tokens: 3,
        min_ms: 0,
        all: true,
        json: true,
        csv: false,
    };
    Ok(to_json(&survey(&args, bytes)?))
}

/// Why a weight is no linear layer, where it is none.
fn refuse(args: &Args, name: &str, n: usize, k: usize) -> Option<String> {
    if n == 0 || k == 0 {
        return Some("empty".into());
    }
    if args.dtype == WType::I8 && k > MAX_FEATURES {
        return Some(format!("more than {MAX_FEATURES} input features"));
    }
    if args.tokens.max(k).saturating_mul(args.tokens.max(n)) > 1 << 28 {
        return Some(format!("{n} x {k} is too large"));
    }
    let padded = |size: usize, step: usize| size.div_ceil(step) as u128 * step as u128;
    if padded(n, args.block.rows()) * padded(k, args.block.cols()) > 1 << 28 {
        return Some(format!("blocks of {} are too large for {n} x {k}", args.block));
    }
    let lookup = name.to_lowercase().contains("embed");
    (lookup && !args.all).then(|| "an embedding; --all takes it".into())
}

fn row(args: &Args, w: &[f32], (n, k): (usize, usize), ctx: &Ctx, scratch: &mut Scratch) -> Result<Row> {
    let matrix = MatRef::new(w, n, k)?;
    let pruned = prune::magnitude(matrix, args.block, args.sparsity, Norm::L2)?;
    let (dense, sparse) = layers(args.dtype, matrix, &pruned, ctx)?;
    let kept = pruned.to_dense()?;
    let dense_us = time(args, &dense, ctx, scratch)?;
    let sparse_us = time(args, &sparse, ctx, scratch)?;
    Ok(Row {
        name: String::new(),
        dtype: String::new(),
        out: n,
        input: k,
        sparsity: pruned.statistics().sparsity(),
        quantized_db: sqnr_db(w, &quantized(args.dtype, w, k))?,
        pruned_db: sqnr_db(w, &kept)?,
        both_db: sqnr_db(w, &quantized(args.dtype, &kept, k))?,
        dense_us,
        sparse_us,
        speed_up: dense_us / sparse_us,
    })
}

/// The dense and the sparse layer.
fn layers(dtype: WType, w: MatRef<'_, f32>, pruned: &Bsr<f32>, ctx: &Ctx) -> Result<(Linear, Linear)> {
    let dense = Stored::Dense(w.iter_rows().flatten().copied().collect(), w.rows(), w.cols());
    match (Weights::of_floats(dense, dtype), Weights::of_floats(Stored::Sparse(pruned.clone()), dtype)) {
        (Some(dense), Some(sparse)) => {
            let none = Scales::default();
            Ok((dense.build(&none, &[], ctx)?, sparse.build(&none, &[], ctx)?))
        }
        _ => Ok((Linear::quantize_dense(w)?.build(ctx)?, Linear::quantize_sparse(pruned)?.build(ctx)?)),
    }
}

/// The weight that a layer computes with: of an INT8 one each row in steps of its largest magnitude / 127.
fn quantized(dtype: WType, w: &[f32], k: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let step = QuantParams::from_range_symmetric(-most, most, Element::I8).map_or(1.0, |p| p.scale());
        row.iter().map(|v| (v / step).round_ties_even() * step).collect::<Vec<_>>()
    };
    match dtype {
        WType::I8 => w.chunks(k).flat_map(row).collect(),
        WType::F32 => w.to_vec(),
        WType::Bf16 => w.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
        WType::F16 => w.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
    }
}

/// Microseconds of a call, tokens in and out in the layer's type.
fn time(args: &Args, layer: &Linear, ctx: &Ctx, scratch: &mut Scratch) -> Result<f64> {
    let (m, n, k) = (args.tokens, layer.out_features(), layer.in_features());
    let mut rng = Rng(1);
    let x: Vec<u8> = (0..m * k).map(|_| rng.next() as u8).collect();
    let real = |&x: &u8| 0.05 * (f32::from(x) - 128.0);
    let mut times = |call: &mut dyn FnMut(&mut Scratch) -> siskin::Result<()>| {
        Ok(us(repeat(args.min_ms, || Ok(call(scratch)?), || ())?.min))
    };
    let none = Epilogue::new();
    match args.dtype {
        WType::I8 => {
            let mut y = vec![0u8; m * n];
            let (from, to) = (QuantParams::u8(0.05, 128)?, QuantParams::u8(0.1, 128)?);
            times(&mut |scratch| {
                let x = (MatRef::new(&x, m, k)?, from);
                layer.forward(x, none, (MatMut::new(&mut y, m, n)?, to), ctx, scratch)
            })
        }
        WType::F32 => {
            let (x, mut y) = (x.iter().map(real).collect::<Vec<_>>(), vec![0f32; m * n]);
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
        WType::Bf16 => {
            let x: Vec<_> = x.iter().map(real).map(bf16::from_f32).collect();
            let mut y = vec![bf16::ZERO; m * n];
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
        WType::F16 => {
            let x: Vec<_> = x.iter().map(real).map(f16::from_f32).collect();
            let mut y = vec![f16::ZERO; m * n];
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
    }
}

fn print(args: &Args, survey: &Survey) -> Result<()> {
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(survey))?);
    }
    if args.csv {
        writeln!(
            out,
            "name,dtype,out,in,sparsity,quantized_db,pruned_db,both_db,dense_us,sparse_us,speed_up"
        )?;
        for r in &survey.weights {
            let name = r.name.replace('"', "\"\"");
            write!(out, "\"{name}\",{},{},{},{:.4},", r.dtype, r.out, r.input, r.sparsity)?;
            write!(out, "{:.2},{:.2},{:.2},", r.quantized_db, r.pruned_db, r.both_db)?;
            writeln!(out, "{},{},{:.3}", r.dense_us, r.sparse_us, r.speed_up)?;
        }
        return Ok(());
    }
    let rounded = match args.dtype {
        WType::I8 => "INT8 dB",
        WType::F32 => "f32 dB",
        WType::Bf16 => "bf16 dB",
        WType::F16 => "f16 dB",
    };
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "weight",
        "out x in",
        "pruned %",
        rounded,
        "pruned dB",
        "both dB",
        "dense us",
        "sparse us",
        "speed-up",
    ]);
    for r in &survey.weights {
        table.add_row([
            r.name.clone(),
            format!("{} x {}", r.out, r.input),
            format!("{:.1}", r.sparsity * 100.0),
            format!("{:.1}", r.quantized_db),
            format!("{:.1}", r.pruned_db),
            format!("{:.1}", r.both_db),
            format!("{:.0}", r.dense_us),
            format!("{:.0}", r.sparse_us),
            format!("{:.2}", r.speed_up),
        ]);
    }
    (2..9).for_each(|i| tour::right(&mut table, i));
    writeln!(out, "{}: {} blocks, {} tokens, {}", survey.model, survey.block, survey.tokens, survey.isa)?;
    writeln!(out, "{table}")?;
    let sum = |f: fn(&Row) -> f64| survey.weights.iter().map(f).sum::<f64>() / 1e3;
    let (dense, sparse) = (sum(|r| r.dense_us), sum(|r| r.sparse_us));
    if sparse > 0.0 {
        writeln!(out, "all {}: dense {dense:.2} ms, sparse {sparse:.2} ms", survey.weights.len())?;
    }
    for s in &survey.skipped {
        writeln!(out, "skipped {}: {}", s.name, s.why)?;
    }
    Ok(())
}
