//! `siskin bert prune`: a checkpoint of which most weights are zero.

use super::samples;
use crate::base::case::choices;
use crate::base::error::{Error, Result};
use crate::base::json::to_json;
use crate::base::progress;
use crate::encoder::build::model;
use serde::Serialize;
use siskin::Ctx;
use siskin::sparse::BlockShape;
use siskin_bert::prune::{ModelOptions, Options, prune_model};
use siskin_bert::{Batch, Model, Pruning, Tokenizer};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

choices! {
    Method {
        /// Blocks are removed, and the weights that are left corrected, so that on sample texts each layer's outputs stay near those
        /// of the whole model: optimal brain surgeon by blocks.
        Surgeon,
        /// The lightest blocks are removed: for speed alone, for the model no longer works.
        Magnitude,
    }
}

/// What pruning is told beside how much.
#[derive(clap::Args, Clone)]
pub struct Calibrate {
    /// Sample texts for the surgeon, one a line, like those that will be embedded; - is standard input.
    #[arg(long, value_name = "TEXTS")]
    pub calibrate: Option<PathBuf>,
    /// Sample texts that are used, from all over the file.
    #[arg(long, default_value_t = 3000)]
    pub samples: usize,
    /// Tokens of a sample text that are used.
    #[arg(long, default_value_t = 64)]
    pub tokens: usize,
    /// How much weights are pulled to what they were, as a part of the mean variance of a layer's inputs.
    #[arg(long, default_value_t = 0.01)]
    pub damping: f64,
    /// Prune layers as far as they bear it, not all alike, but none beyond this sparsity. Takes twice as long.
    #[arg(long, value_name = "SPARSITY")]
    pub most: Option<f64>,
}

/// Prune the linear layers of an encoder and write a checkpoint that others can load too.
///
/// The surgeon goes through the model layer by layer, with the inputs that the layers before it, pruned already, give for the sample
/// texts. MiniLM takes a minute or two on two cores. The threads are RAYON_NUM_THREADS, or all cores.
#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json; or, by magnitude, minilm, bert-mini, distilbert, bert-base or
    /// bert-large: generated weights of that shape, without a tokenizer.
    #[arg(long)]
    model: String,
    /// Part of the blocks that is removed, 0 to below 1.
    #[arg(long, default_value_t = 0.8)]
    sparsity: f64,
    /// Rows x columns of a block.
    #[arg(long, default_value_t = BlockShape::B4X1)]
    block: BlockShape,
    /// How blocks are chosen.
    #[arg(long, value_enum, default_value_t)]
    method: Method,
    #[command(flatten)]
    calibrate: Calibrate,
    /// The folder of the new checkpoint, another than the model's.
    #[arg(short, long)]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How a model is pruned.
pub struct Plan<'a> {
    pub method: Method,
    pub block: BlockShape,
    pub sparsity: f64,
    pub calibrate: &'a Calibrate,
    /// The sample texts, for the surgeon.
    pub texts: Option<&'a Batch>,
}

#[derive(Serialize)]
struct Report {
    out: String,
    method: Method,
    block: String,
    /// Of the weights of all linear layers, reached.
    sparsity: f64,
    texts: usize,
    tokens: usize,
    seconds: f64,
    layers: Vec<Layer>,
}

/// A linear layer that was pruned.
#[derive(Serialize)]
pub struct Layer {
    name: String,
    sparsity: f64,
    /// The mean squared error of its outputs, as a part of their variance.
    error: f64,
}

impl Method {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Method::Surgeon => "surgeon",
            Method::Magnitude => "magnitude",
        }
    }
}

impl Calibrate {
    /// The sample texts, if there are any.
    pub fn read(&self) -> Result<Option<Vec<String>>> {
        if self.samples == 0 {
            return Err(Error::input("--samples", "1 or more", 0));
        }
        self.calibrate.as_ref().map(|path| samples::read(path, self.samples)).transpose()
    }
}

impl Plan<'_> {
    /// A pruned copy, and its layers, of which the surgeon alone says something.
    pub fn prune(&self, name: &Path, model: &Model, ctx: &Ctx) -> Result<(Model, Vec<Layer>)> {
        let config = model.config();
        let Method::Surgeon = self.method else {
            let mut pruned = model.clone();
            pruned.prune(&Pruning::uniform(config, self.block, self.sparsity))?;
            return Ok((pruned, Vec::new()));
        };
        let Some(texts) = self.texts else {
            return Err(Error::input("--calibrate", "a file of sample texts, for the surgeon", "none"));
        };
        let layer = Options { damping: self.calibrate.damping, ..Options::new(self.block) };
        let options = ModelOptions { layer, sparsity: self.sparsity, most: self.calibrate.most };
        let bar = progress::bar(config.linear_layers().count(), "pruning");
        let mut layers = Vec::new();
        let pruned = prune_model(model, texts.tokens(), &options, ctx, |step| {
            bar.inc(1);
            layers.push(Layer {
                name: config.linear_name(step.layer),
                sparsity: step.sparsity,
                error: step.error,
            });
        });
        bar.finish_and_clear();
        Ok((pruned.map_err(|e| Error::file(name, e))?, layers))
    }
}

pub fn main(args: &Args) -> Result<()> {
    samples::check_sparsity("--sparsity", args.sparsity)?;
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let folder = Path::new(&args.model);
    if same(folder, &args.out) {
        return Err(Error::input("--out", "a folder other than the model's", args.out.display()));
    }
    let start = Instant::now();
    let model = model(&args.model)?;
    let texts = match args.method {
        Method::Surgeon if model.folder().is_none() => {
            return Err(Error::input("--method", "magnitude, for generated weights", args.method.name()));
        }
        Method::Surgeon => {
            let tokenizer = Tokenizer::read(folder, model.config())?;
            let read = args.calibrate.read()?;
            read.map(|texts| samples::tokens(&tokenizer, &texts, args.calibrate.tokens)).transpose()?
        }
        Method::Magnitude => None,
    };
    let plan = Plan {
        method: args.method,
        block: args.block,
        sparsity: args.sparsity,
        calibrate: &args.calibrate,
        texts: texts.as_ref(),
    };
    let (pruned, layers) = plan.prune(folder, &model, &Ctx::new()?)?;
    pruned.save(&args.out)?;
    let report = Report {
        out: args.out.display().to_string(),
        method: args.method,
        block: args.block.to_string(),
        sparsity: pruned.sparsity(),
        texts: texts.as_ref().map_or(0, Batch::texts),
        tokens: texts.as_ref().map_or(0, |texts| texts.tokens().tokens()),
        seconds: start.elapsed().as_secs_f64(),
        layers,
    };
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(&report))?);
    }
    for layer in &report.layers {
        let (sparsity, error) = (100.0 * layer.sparsity, 100.0 * layer.error);
        writeln!(out, "{:<45} {sparsity:>5.1} % pruned, error {error:>5.1} % of the variance", layer.name)?;
    }
    let (percent, seconds) = (100.0 * report.sparsity, report.seconds);
    Ok(writeln!(
        out,
        "{}: {percent:.1} % zeros in blocks of {}, in {seconds:.0} s",
        report.out, report.block
    )?)
}
