//! An encoder as the flags of a command describe it.

use super::texts::Texts;
use crate::base::case::choices;
use crate::base::error::{Error, Result};
use crate::base::settings::{Bf16Pairs, Settings};
use siskin::Ctx;
use siskin_bert::{
    Batch, Calibration, Checkpoint, Config, Encoder, Model, Options, PRESETS, Precision as Computed, Range,
    Source, Tokenizer, TooLong, sample_texts,
};
use std::path::Path;

/// Sample texts that a calibration reads at most, and the tokens of a batch of them.
const SAMPLES: usize = 1024;
const SAMPLE_TOKENS: usize = 1024;

choices! {
    Precision {
        /// f32 throughout.
        F32,
        /// Weights of bfloat16, all else f32.
        Bf16,
        /// INT8, each token by its own range.
        Int8,
        /// INT8, by ranges seen on sample texts.
        #[value(name = "int8-static")]
        Int8Static,
    }
}

/// The threads of a command, on the best tier of this CPU.
pub struct Threads(pub usize);

impl Settings for Threads {
    fn isa(&self) -> Option<&str> {
        None
    }

    fn bf16_pairs(&self) -> Bf16Pairs {
        Bf16Pairs::IfFaster
    }

    fn threads(&self) -> usize {
        self.0
    }
}

/// All threads of this machine, as far as a command takes them.
pub fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(256))
}

/// A model with its tokenizer, packed.
pub struct Packed {
    pub encoder: Encoder,
    pub tokenizer: Tokenizer,
}

/// The model of a folder, or one of a well-known shape whose weights are generated: it has no folder.
pub fn model(name: &str) -> Result<Model> {
    if PRESETS.contains(&name) {
        return Ok(Model::generated(Config::preset(name)?, 1)?);
    }
    let folder = Path::new(name);
    if !folder.is_dir() {
        let expected = format!("a folder, or {}", PRESETS.join(", "));
        return Err(Error::input("--model", expected, name));
    }
    Ok(Model::read(folder)?)
}

/// Reads and packs the model of a folder. INT8 is calibrated, where it is static, by the texts of a file, or else by sample texts that
/// the encoder's crate has.
pub fn read(
    folder: &Path,
    precision: Precision,
    (calibrate, range): (Option<&Path>, Range),
    ctx: &Ctx,
) -> Result<Packed> {
    let model = Checkpoint::open(folder)?;
    let tokenizer = Tokenizer::read(folder, model.config())?;
    let computed = match precision {
        Precision::F32 => Computed::F32,
        Precision::Bf16 => Computed::Bf16,
        Precision::Int8 => Computed::Int8,
        Precision::Int8Static => {
            let calibration = calibration(&model, &tokenizer, (calibrate, range), ctx)?;
            let encoder = Encoder::build(&model, ctx, &Options::calibrated(&calibration))?;
            return Ok(Packed { encoder, tokenizer });
        }
    };
    Ok(Packed { encoder: Encoder::build(&model, ctx, &Options::new(computed))?, tokenizer })
}

fn calibration(
    model: &Checkpoint,
    tokenizer: &Tokenizer,
    (from, range): (Option<&Path>, Range),
    ctx: &Ctx,
) -> Result<Calibration> {
    let mut texts = match from {
        Some(path) => Texts::read(path)?,
        None => Texts::given(sample_texts().map(str::to_string).collect()),
    };
    let mut batches = vec![Batch::new()];
    for _ in 0..SAMPLES {
        let Some(text) = texts.next()? else { break };
        let tokens = tokenizer.encode(&[text.content], TooLong::Cut)?.batch;
        if batches.last().is_some_and(|batch| batch.tokens().tokens() >= SAMPLE_TOKENS) {
            batches.push(Batch::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(tokens.tokens().ids())?;
        }
    }
    if batches[0].texts() == 0 {
        return Err(Error::input("--calibrate", "a text or more", "none"));
    }
    Ok(Calibration::collect(model, batches.iter().map(Batch::tokens), range, ctx)?)
}
