//! `siskin bert accuracy`: how near the vectors of quantized and pruned models are to those of the model in f32.

use super::prune::{Calibrate, Method, Plan};
use super::{rank, samples};
use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::json::to_json;
use crate::base::progress;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Encoder, Model, Options, Precision, Range, Tokenizer, Workspace, sample_texts,
};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Texts that are embedded at once.
const BATCH: usize = 64;

/// Texts that static INT8 is calibrated on, at most.
const RANGES: usize = 512;

/// Compare the vectors of quantized and pruned models with those of the model in f32.
///
/// Cosines are those of a text's vector with its vector by the whole model in f32. Spearman's correlation is that of the similarities of
/// pairs of texts: whether neighbours stay neighbours. Measure on texts that were not used for calibration.
#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Texts to compare on, one a line; without it, a few of many kinds that come with the command.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// Texts that are used, from all over the file.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Sparsities to prune to, as 0.65,0.8.
    #[arg(long, value_delimiter = ',')]
    sparsity: Vec<f64>,
    /// Blocks, rows x columns, as 4x1,4x4.
    #[arg(long, value_delimiter = ',', default_values_t = [BlockShape::B4X1])]
    block: Vec<BlockShape>,
    /// How blocks are chosen.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Method::Surgeon, Method::Magnitude])]
    method: Vec<Method>,
    /// Which part of what was seen the bytes of static INT8 cover: absolute, mse, or such as percentile:99.99; several are compared.
    #[arg(long, value_name = "RANGE", value_delimiter = ',', default_values_t = [Range::Absolute])]
    ranges: Vec<Range>,
    #[command(flatten)]
    calibrate: Calibrate,
    /// Folders of models that were pruned or trained elsewhere, to compare too.
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    also: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    texts: usize,
    pairs: usize,
    rows: Vec<Row>,
}

/// A model in a precision, against the whole model in f32.
#[derive(Serialize)]
struct Row {
    weights: String,
    precision: String,
    /// Of all linear layers: the part of the weights that is 0.
    sparsity: f64,
    cosine_mean: f64,
    cosine_median: f64,
    cosine_least: f64,
    /// Null where all similarities are the same.
    spearman: Option<f64>,
}

/// What all models are compared by.
struct Comparison {
    ctx: Ctx,
    batches: Vec<Batch>,
    /// For ranges of static INT8.
    calibration: Vec<Batch>,
    ranges: Vec<Range>,
    pairs: Vec<(usize, usize)>,
    /// By the whole model in f32: unit vectors, and the similarities of the pairs.
    vectors: Vec<Vec<f32>>,
    similarities: Vec<f64>,
}

pub fn main(args: &Args) -> Result<()> {
    args.sparsity.iter().try_for_each(|&sparsity| samples::check_sparsity("--sparsity", sparsity))?;
    let files = [&args.texts, &args.calibrate.calibrate];
    input::check(&files.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    if args.count < 2 {
        return Err(Error::input("--count", "2 or more", args.count));
    }
    let model = Model::read(&args.model)?;
    let tokenizer = Tokenizer::read(&args.model, model.config())?;
    let texts = match &args.texts {
        Some(path) => samples::read(path, args.count)?,
        None => sample_texts().map(str::to_string).collect(),
    };
    let calibrate = args.calibrate.read()?;
    let comparison =
        Comparison::new(&model, &tokenizer, (&texts, calibrate.as_deref()), args.ranges.clone())?;
    let tokens = |texts: Vec<String>| samples::tokens(&tokenizer, &texts, args.calibrate.tokens);
    let pruning = calibrate.map(tokens).transpose()?;
    let mut rows = comparison.rows("dense".into(), &model, &[Precision::Int8, Precision::Int8Static])?;
    let all = [Precision::F32, Precision::Int8, Precision::Int8Static];
    for (&block, &sparsity) in args.block.iter().flat_map(|b| args.sparsity.iter().map(move |s| (b, s))) {
        for &method in &args.method {
            let plan = Plan { method, block, sparsity, calibrate: &args.calibrate, texts: pruning.as_ref() };
            let (pruned, _) = plan.prune(&args.model, &model, &comparison.ctx)?;
            let name = format!("{} {:.0} % {block}", method.name(), 100.0 * sparsity);
            rows.extend(comparison.rows(name, &pruned, &all)?);
        }
    }
    for folder in &args.also {
        let other = Model::read(folder)?;
        if other.config().hidden_size != model.config().hidden_size {
            let expected = format_args!("vectors of {} features", model.config().hidden_size);
            return Err(Error::file(
                folder,
                format_args!("expected {expected}, got {}", other.config().hidden_size),
            ));
        }
        rows.extend(comparison.rows(folder.display().to_string(), &other, &all)?);
    }
    let report = Report {
        model: args.model.display().to_string(),
        texts: texts.len(),
        pairs: comparison.pairs.len(),
        rows,
    };
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(&report))?);
    }
    writeln!(out, "{}: {} texts, {} pairs of them", report.model, report.texts, report.pairs)?;
    Ok(writeln!(out, "{}", table(&report.rows))?)
}

impl Comparison {
    fn new(
        model: &Model,
        tokenizer: &Tokenizer,
        (texts, calibrate): (&[String], Option<&[String]>),
        ranges: Vec<Range>,
    ) -> Result<Self> {
        let limit = tokenizer.limit();
        let batches = |texts: &[String]| {
            texts
                .chunks(BATCH)
                .map(|texts| samples::tokens(tokenizer, texts, limit))
                .collect::<Result<Vec<_>>>()
        };
        // Ranges need fewer texts than least squares do.
        let samples: Vec<String> = match calibrate {
            Some(texts) => texts.iter().step_by(texts.len().div_ceil(RANGES)).cloned().collect(),
            None => sample_texts().map(str::to_string).collect(),
        };
        let mut this = Self {
            ctx: Ctx::new()?,
            batches: batches(texts)?,
            calibration: batches(&samples)?,
            ranges,
            pairs: rank::pairs(texts.len()),
            vectors: Vec::new(),
            similarities: Vec::new(),
        };
        this.vectors = this.embed(model, (Precision::F32, Range::Absolute))?;
        this.similarities = this.similarities(&this.vectors);
        Ok(this)
    }

    /// Unit vectors of all texts.
    fn embed(&self, model: &Model, (precision, range): (Precision, Range)) -> Result<Vec<Vec<f32>>> {
        let calibration;
        let options = match precision {
            Precision::Int8Static => {
                let batches = self.calibration.iter().map(Batch::tokens);
                calibration = Calibration::collect(model, batches, range, &self.ctx)?;
                Options::calibrated(&calibration)
            }
            other => Options::new(other),
        };
        let encoder = Encoder::build(model, &self.ctx, &options)?;
        let features = model.config().hidden_size;
        let (mut memory, mut vectors) = (Workspace::new(), Vec::new());
        let bar = progress::bar(self.batches.len(), "embedding");
        for batch in &self.batches {
            let mut out = vec![0.0; batch.texts() * features];
            encoder.forward(
                batch.tokens(),
                MatMut::new(&mut out, batch.texts(), features)?,
                &self.ctx,
                &mut memory,
            )?;
            vectors.extend(out.chunks(features).map(|vector| {
                let length = dot(vector, vector).sqrt().max(f64::MIN_POSITIVE) as f32;
                vector.iter().map(|v| v / length).collect::<Vec<f32>>()
            }));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(vectors)
    }

    fn similarities(&self, vectors: &[Vec<f32>]) -> Vec<f64> {
        self.pairs.iter().map(|&(a, b)| dot(&vectors[a], &vectors[b])).collect()
    }

    fn rows(&self, weights: String, model: &Model, precisions: &[Precision]) -> Result<Vec<Row>> {
        let sparsity = model.sparsity();
        let ways = precisions.iter().flat_map(|&precision| match precision {
            Precision::Int8Static => self.ranges.iter().map(|&range| (precision, range)).collect(),
            _ => vec![(precision, Range::Absolute)],
        });
        let row = |(precision, range): (Precision, Range)| {
            let vectors = self.embed(model, (precision, range))?;
            let mut cosines: Vec<f64> = vectors.iter().zip(&self.vectors).map(|(a, b)| dot(a, b)).collect();
            cosines.sort_by(f64::total_cmp);
            Ok(Row {
                weights: weights.clone(),
                precision: match (precision, range) {
                    (Precision::Int8, _) => "INT8".into(),
                    (Precision::Int8Static, Range::Absolute) => "INT8 static".into(),
                    (Precision::Int8Static, range) => format!("INT8 static, {range}"),
                    _ => "f32".into(),
                },
                sparsity,
                cosine_mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
                cosine_median: cosines[cosines.len() / 2],
                cosine_least: cosines[0],
                spearman: rank::spearman(&self.similarities(&vectors), &self.similarities),
            })
        };
        ways.map(row).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "weights",
        "",
        "zeros",
        "cosine mean",
        "median",
        "least",
        "Spearman",
    ]);
    for row in rows {
        let cosines = [row.cosine_mean, row.cosine_median, row.cosine_least].map(|v| format!("{v:.4}"));
        let zeros = format!("{:.1} %", 100.0 * row.sparsity);
        let spearman = row.spearman.map_or("-".into(), |v| format!("{v:.4}"));
        let first = [row.weights.clone(), row.precision.clone(), zeros];
        table.add_row(first.into_iter().chain(cosines).chain([spearman]));
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
