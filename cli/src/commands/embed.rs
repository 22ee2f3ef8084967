//! `siskin embed`: texts to vectors, or to the texts that are nearest to one.

use crate::base::error::{Error, Result};
use crate::base::output::Output;
use crate::base::progress;
use crate::base::settings::Settings;
use crate::encoder::batches::Batches;
use crate::encoder::build::{Packed, Precision, Threads, all_threads, read};
use crate::encoder::similar::Nearest;
use crate::encoder::sink::{Format, Sink};
use crate::encoder::texts::Texts;
use siskin::Ctx;
use siskin_bert::{Range, TooLong};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};

/// Turn texts into vectors, by an encoder of the BERT family.
///
/// Texts are embedded in their order, in batches of about --batch-tokens tokens, and written as they are done: no more than a batch is
/// in memory. Ctrl-C keeps what is written, and --resume goes on after it.
#[derive(clap::Args)]
pub struct Args {
    /// A folder as Hugging Face and sentence-transformers have it: config.json, model.safetensors, tokenizer.json.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Texts to embed.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    texts: Vec<String>,
    /// A file with a text on each line; - is standard input.
    #[arg(long, value_name = "TEXTS")]
    file: Option<PathBuf>,
    /// Where vectors go; - is standard output. A file that is there is not replaced.
    #[arg(long, short, default_value = "-")]
    out: PathBuf,
    /// What is written; if not given, npy and safetensors where the name of the file ends so, else jsonl.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Go on with a file after the texts that are there.
    #[arg(long, conflicts_with = "similar")]
    resume: bool,
    /// Print the texts that are nearest to this one, by the cosine of the angle: with --format jsonl as JSON.
    #[arg(long, value_name = "QUERY")]
    similar: Option<String>,
    /// How many texts --similar prints.
    #[arg(long, default_value_t = 10, requires = "similar")]
    top: usize,
    /// What is computed in.
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Texts, one a line, of which int8-static learns its ranges; if not given, sample texts of its own.
    #[arg(long, value_name = "TEXTS")]
    calibrate: Option<PathBuf>,
    /// Which part of what int8-static saw its bytes cover: absolute, mse or such as percentile:99.99.
    #[arg(long, value_name = "RANGE", default_value_t)]
    ranges: Range,
    /// Cut texts that have more tokens than the model has positions. Without it they are an error.
    #[arg(long)]
    truncate: bool,
    /// Threads; if not given, as many as this machine has.
    #[arg(long, default_value_t = all_threads())]
    threads: usize,
    /// Tokens of a batch, which its last text may exceed.
    #[arg(long, default_value_t = 4096)]
    batch_tokens: usize,
}

pub fn main(args: &Args) -> Result<()> {
    let threads = Threads(args.threads);
    threads.check_settings()?;
    args.check()?;
    let inputs: Vec<&Path> =
        [&args.file, &args.calibrate].into_iter().flatten().map(PathBuf::as_path).collect();
    crate::base::input::check(&inputs)?;
    let output = Output::new(&args.out, &inputs)?;
    let texts = match &args.file {
        Some(path) => Texts::read(path)?,
        None => Texts::given(args.texts.clone()),
    };
    threads.on_threads(|ctx| {
        let packed = read(&args.model, args.precision, (args.calibrate.as_deref(), args.ranges), ctx)?;
        args.embed(&packed, ctx, texts, &output)
    })
}

impl Args {
    fn check(&self) -> Result<()> {
        if !(1..=1 << 20).contains(&self.batch_tokens) {
            return Err(Error::input("--batch-tokens", "1 to 1048576", self.batch_tokens));
        }
        if !(1..=100_000).contains(&self.top) {
            return Err(Error::input("--top", "1 to 100000", self.top));
        }
        if self.calibrate.is_some() && self.precision != Precision::Int8Static {
            return Err(Error::input("--calibrate", "--precision int8-static", "another precision"));
        }
        if self.ranges != Range::default() && self.precision != Precision::Int8Static {
            return Err(Error::input("--ranges", "--precision int8-static", "another precision"));
        }
        match self.format {
            Some(Format::Npy | Format::Safetensors) if self.similar.is_some() => {
                Err(Error::input("--format", "jsonl with --similar", "another"))
            }
            _ => Ok(()),
        }
    }

    fn embed(&self, packed: &Packed, ctx: &Ctx, mut texts: Texts, output: &Output) -> Result<()> {
        let too_long = if self.truncate { TooLong::Cut } else { TooLong::Refuse };
        let mut batches = Batches::new(packed, ctx, self.batch_tokens, too_long);
        let mut nearest = match &self.similar {
            Some(query) => {
                let query = packed.tokenizer.encode(&[query], too_long)?.batch;
                Some(Nearest::new(batches.embed(&query)?.to_vec(), self.top))
            }
            None => None,
        };
        let format = self.format.unwrap_or(Format::of(&self.out));
        let mut sink = match &nearest {
            Some(_) => None,
            None => Some(Sink::new(output, format, batches.features(), self.resume)?),
        };
        let first = sink.as_ref().map_or(0, |sink| sink.texts);
        let skipped = texts.skip(first)?;
        // Where vectors run over the screen, a bar would be torn.
        let seen = output.file().is_some() || nearest.is_some() || !stdout().is_terminal();
        let bar = progress::bytes(texts.total, "embedding", seen);
        bar.inc(skipped);
        let done = batches.run(&mut texts, first, |batch| {
            match (&mut sink, &mut nearest) {
                (Some(sink), _) => sink.add(&batch)?,
                (None, Some(nearest)) => nearest.see(&batch),
                (None, None) => {}
            }
            bar.inc(batch.bytes);
            Ok(())
        });
        bar.finish_and_clear();
        let (last, cut) = done?;
        if cut > 0 {
            let limit = packed.tokenizer.limit();
            // Where nobody hears it, the vectors are still there.
            let _ = writeln!(stderr(), "siskin: {cut} of {} texts were cut to {limit} tokens", last - first);
        }
        match (sink, nearest) {
            (Some(sink), _) => sink.finish(),
            (None, Some(nearest)) => {
                let mut lines = Vec::new();
                nearest.print(self.format.is_some() || Format::of(&self.out) != Format::Jsonl, &mut lines)?;
                output.write(&lines)
            }
            (None, None) => Ok(()),
        }
    }
}
