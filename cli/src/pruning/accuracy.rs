//! `siskin bert accuracy`: how near the vectors of quantized and pruned models are to those of the model in f32.

use super::chart;
use super::comparison::Comparison;
use super::graded::Graded;
use super::prune::{Calibrate, Method, Plan};
use super::rank;
use super::report::{Domain, Pairs, Report};
use super::samples;
use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::json::to_json;
use crate::base::output::{self, Output};
use siskin::sparse::BlockShape;
use siskin_bert::{Model, Range, Tokenizer, sample_texts};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

/// Compare the vectors of quantized and pruned models with those of the model in f32.
///
/// Cosines are those of a text's vector with its vector by the whole model in f32. Spearman's correlation is that of the similarities of
/// pairs of texts with those by the whole model: whether neighbours stay neighbours. "of pairs" is that of the graded pairs, some of which
/// are alike and some not; "graded" is Spearman's correlation with what is known of them; the whole model in f32 says what can be had.
/// "top 1" and "top 10" are the parts of the nearest neighbours of the texts that are the same. Measure on texts that were not used for
/// calibration.
#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Texts to compare on, one a line; files of several domains, comma-separated or each with --texts, are measured one by one. Without
    /// it, a few texts of many kinds that come with the command.
    #[arg(long, value_delimiter = ',')]
    texts: Vec<PathBuf>,
    /// Texts that are used of each file, from all over it.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Pairs of texts, a pair a line: a number, the larger the more related, and the two texts, with tabs between. Without it, pairs that
    /// come with the command.
    #[arg(long)]
    pairs: Option<PathBuf>,
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
    /// Folders of models that were pruned or trained elsewhere, to compare too, as DIR or NAME=DIR. Models of one name and block shape
    /// are a line of the picture.
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    also: Vec<String>,
    /// Draw the mean cosine and "graded" of what is computed in INT8 against the sparsity, into an SVG file.
    #[arg(long, value_name = "SVG", long_help = format!("Draw the mean cosine and \"graded\" of what is computed in INT8 against the \
        sparsity, into an SVG file.\n\n{}", output::RULE))]
    plot: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Result<()> {
    args.sparsity.iter().try_for_each(|&sparsity| samples::check_sparsity("--sparsity", sparsity))?;
    let files = args.texts.iter().chain(&args.calibrate.calibrate).chain(&args.pairs);
    let files: Vec<&Path> = files.map(PathBuf::as_path).collect();
    input::check(&files)?;
    if args.count < 2 {
        return Err(Error::input("--count", "2 or more", args.count));
    }
    if args.plot.is_some() && args.sparsity.is_empty() && args.also.is_empty() {
        return Err(Error::input("--plot", "pruned models, by --sparsity or --also", "none"));
    }
    let plot = args.plot.as_ref().map(|path| Output::new(path, &files)).transpose()?;
    let model = Model::read(&args.model)?;
    let tokenizer = Tokenizer::read(&args.model, model.config())?;
    let domains = domains(args)?;
    let graded = Graded::read(args.pairs.as_deref())?;
    let calibrate = args.calibrate.read()?;
    // What is read last is refused before the work, too.
    let also = args.also.iter().map(|given| other(given, &model)).collect::<Result<Vec<_>>>()?;
    let comparison =
        Comparison::new(&model, &tokenizer, &domains, &graded, (calibrate.as_deref(), &args.ranges))?;
    let tokens = |texts: Vec<String>| samples::tokens(&tokenizer, &texts, args.calibrate.tokens);
    let pruning = calibrate.map(tokens).transpose()?;
    let mut rows = comparison.rows("dense", &model)?;
    for (&block, &sparsity) in args.block.iter().flat_map(|b| args.sparsity.iter().map(move |s| (b, s))) {
        for &method in &args.method {
            let plan = Plan { method, block, sparsity, calibrate: &args.calibrate, texts: pruning.as_ref() };
            let (pruned, _) = plan.prune(&args.model, &model, &comparison.ctx)?;
            rows.extend(comparison.rows(method.name(), &pruned)?);
        }
    }
    for (name, folder) in also {
        rows.extend(comparison.rows(&name, &Model::read(&folder)?)?);
    }
    let domain = |(name, texts): &(String, Vec<String>)| Domain {
        name: name.clone(),
        texts: texts.len(),
        pairs: rank::pairs(texts.len()).len(),
    };
    let report = Report {
        model: args.model.display().to_string(),
        domains: domains.iter().map(domain).collect(),
        graded: Pairs { pairs: graded.grades.len(), name: graded.name },
        rows,
    };
    if let Some(plot) = &plot {
        let picture = chart::draw(&report, &stem(&args.model));
        plot.write(picture.map_err(|e| plot.blame(format_args!("cannot be drawn: {e}")))?.as_bytes())?;
    }
    let mut out = stdout().lock();
    match args.json {
        true => writeln!(out, "{}", to_json(&report))?,
        false => report.print(&mut out)?,
    }
    Ok(())
}

/// The texts of each file, by the name of the file.
fn domains(args: &Args) -> Result<Vec<(String, Vec<String>)>> {
    if args.texts.is_empty() {
        return Ok(vec![("samples".into(), sample_texts().map(str::to_string).collect())]);
    }
    let repeated = args.texts.iter().enumerate().find(|&(i, path)| args.texts[..i].contains(path));
    if let Some((_, path)) = repeated {
        return Err(Error::input("--texts", "each file once", path.display()));
    }
    // Files of one name in several folders are told apart by their paths.
    let stems: Vec<String> = args.texts.iter().map(|path| stem(input::name(path))).collect();
    let apart = (0..stems.len()).all(|i| !stems[..i].contains(&stems[i]));
    let domain = |(path, stem): (&PathBuf, String)| {
        let texts = samples::read(path, args.count)?;
        if texts.len() < 2 {
            return Err(Error::file(input::name(path), "expected two texts or more, got 1"));
        }
        Ok((if apart { stem } else { path.display().to_string() }, texts))
    };
    args.texts.iter().zip(stems).map(domain).collect()
}

/// The last part of a path, without what comes after its last dot.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The name and the folder of a model that makes vectors of the same size.
fn other(given: &str, model: &Model) -> Result<(String, PathBuf)> {
    let (name, folder) = match given.split_once('=') {
        Some((name, folder)) if !Path::new(given).exists() => (name, folder),
        _ => (given, given),
    };
    let folder = PathBuf::from(folder);
    let (wanted, got) = (model.config().hidden_size, Model::read(&folder)?.config().hidden_size);
    if got != wanted {
        return Err(Error::file(&folder, format_args!("expected vectors of {wanted} features, got {got}")));
    }
    Ok((name.to_string(), folder))
}
