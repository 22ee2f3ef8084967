//! `siskin survey`: what pruning and quantizing cost the weights of a checkpoint, and what they gain.

mod checkpoint;
mod measure;
mod print;

use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::json::to_json;
use crate::base::progress;
use crate::base::tensors::parse;
use crate::linear::WType;
use checkpoint::Wanted;
use glob::Pattern;
use serde::Serialize;
use siskin::sparse::BlockShape;
use siskin::{Ctx, Scratch};
use std::path::{Path, PathBuf};

/// Prune, quantize and time every weight of a checkpoint.
///
/// Takes each tensor [out, in] of floats (F64, F32, F16, BF16, F8), and of I8 with scales (NAME_scale), but embeddings; of a stack
/// [experts, out, in] each. Keeps its heaviest blocks (L2), or what is there where as many blocks are zero already; quantizes it by
/// output channel (or rounds it to --dtype), and times the dense and the sparse layer on random tokens of that type, on one thread.
/// All other tensors are listed, and why. Errors are signal-to-noise ratios in decibels against the weight as it came: higher is better, 20 dB is a tenth.
/// That of pruning is what training would have to make good: nothing is retrained here.
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint: a safetensors file, the index of one in several files (model.safetensors.index.json), or the folder of
    /// either, which nobody may write meanwhile; - is standard input.
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
    /// Take embeddings too: tables that are looked up, by their names (embed, wte, wpe, shared, but no projection).
    #[arg(long)]
    all: bool,
    /// Take tensors of these names only: a pattern with *, ? and [..], as often as you like.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Pattern>,
    /// Leave out tensors of these names.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Weights are [in, out], as GPT-2's are.
    #[arg(long)]
    transpose: bool,
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
    /// Of the weights as they came.
    zeros: f64,
    /// Of the blocks as they came.
    zero_blocks: f64,
    /// Reached.
    sparsity: f64,
    quantized_db: f64,
    pruned_db: f64,
    both_db: f64,
    dense_us: f64,
    sparse_us: f64,
    speed_up: f64,
    /// The sparsity below which such blocks run as dense weights, which are faster then.
    dense_below: Option<f64>,
    /// What is to be known of it.
    note: Option<String>,
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
    let mut survey = Survey::new(args)?;
    let files = checkpoint::files(&args.model)?;
    // One file at a time is mapped.
    for file in &files {
        survey.add(args, file, &input::read(file)?)?;
    }
    print::print(args, &survey)
}

impl Survey {
    fn new(args: &Args) -> Result<Self> {
        Ok(Self {
            model: input::name(&args.model).display().to_string(),
            block: args.block.to_string(),
            dtype: args.dtype,
            tokens: args.tokens,
            isa: Ctx::serial()?.isa().name(),
            weights: Vec::new(),
            skipped: Vec::new(),
        })
    }

    /// All tensors of a file.
    fn add(&mut self, args: &Args, path: &Path, bytes: &[u8]) -> Result<()> {
        let (ctx, mut scratch) = (Ctx::serial()?, Scratch::new());
        let wanted = Wanted {
            include: &args.include,
            exclude: &args.exclude,
            embeddings: args.all,
            transpose: args.transpose,
        };
        let file = parse(path, bytes)?;
        let bar = progress::bar(file.len(), "surveying");
        let Self { weights, skipped, .. } = self;
        let mut others = Vec::new();
        checkpoint::each(
            &file,
            &wanted,
            |weight| {
                match measure::refuse(args, weight.out, weight.input) {
                    Some(why) => skipped.push(Skipped { name: weight.name, why }),
                    // One odd weight is no reason to lose all others.
                    None => match measure::row(args, &weight, &ctx, &mut scratch) {
                        Ok(row) => weights.push(row),
                        Err(e) => skipped.push(Skipped { name: weight.name, why: e.to_string() }),
                    },
                }
                bar.inc(1);
                Ok(())
            },
            |name, why| others.push(Skipped { name: name.into(), why }),
        )?;
        bar.finish_and_clear();
        skipped.append(&mut others);
        Ok(())
    }
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
        include: Vec::new(),
        exclude: Vec::new(),
        transpose: bytes.len().is_multiple_of(2),
        json: true,
        csv: false,
    };
    let mut survey = Survey::new(&args)?;
    survey.add(&args, path, bytes)?;
    Ok(to_json(&survey))
}
