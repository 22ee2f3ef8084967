//! An encoder, measured: the time of a call, and of its stages.

use super::build;
use crate::base::case::choices;
use crate::base::error::{Error, Result};
use crate::base::measure::us;
use serde::Serialize;
use siskin::attention::Clipped;
use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Config, Encoder, GateForm, Gating, Model, Options, PRESETS, Precision, Pruning,
    Range, Stage, Workspace,
};
use std::time::{Duration, Instant};

choices! {
    Dtype { F32, Bf16, Int8 }
    Heads {
        /// As BERT has them.
        Standard,
        /// A clipped softmax, gamma = -0.025.
        Clipped,
        /// A gate for each token and head, of a hidden layer.
        Gated,
    }
}

/// What is measured.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// A folder, or the name of a model whose weights are generated.
    pub model: String,
    /// Of generated weights.
    pub attention: Heads,
    /// The part of the blocks of all linear layers that is pruned by magnitude.
    pub sparsity: f64,
    /// Rows x columns.
    pub block: String,
    pub dtype: Dtype,
    /// Whether INT8 is by ranges that were seen before.
    #[serde(rename = "static")]
    pub by_ranges: bool,
    /// Tokens of the longest text.
    pub seq: usize,
    /// Texts.
    pub batch: usize,
    /// Tokens of each text, if they were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<usize>,
    pub threads: usize,
}

/// What came of it: times in microseconds.
#[derive(Debug, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub case: Case,
    pub isa: &'static str,
    /// Whether weights are random.
    pub generated: bool,
    /// What pruning means for the answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// The part of the weights of all linear layers that is 0.
    pub zeros: f64,
    pub packed_bytes: usize,
    pub calls: usize,
    pub us_min: f64,
    pub us_p50: f64,
    pub us_p99: f64,
    /// The texts one by one, the least times added up: where their lengths were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_one_by_one: Option<f64>,
    pub tokens_per_s: f64,
    /// The mean of each stage, measured in calls of their own.
    pub stages: serde_json::Map<String, serde_json::Value>,
}

/// What is said of pruned weights.
const PRUNED: &str = "pruned by magnitude without training: for speed alone, the vectors mean nothing";

/// Parses rows x columns.
pub fn block(text: &str) -> std::result::Result<BlockShape, String> {
    let sides = text.split_once('x').and_then(|(rows, cols)| Some((rows.parse().ok()?, cols.parse().ok()?)));
    let (rows, cols) = sides.ok_or("expected rows x columns, such as 4x1")?;
    BlockShape::new(rows, cols).map_err(|e| e.to_string())
}

/// Generated weights may have another attention; a folder's have what they have.
fn model(name: &str, attention: Heads) -> Result<Model> {
    let generated = PRESETS.contains(&name);
    if attention != Heads::Standard && !generated {
        let expected = format!("{}, whose weights are generated", PRESETS.join(", "));
        return Err(Error::input("--attention", expected, name));
    }
    let config = match attention {
        Heads::Standard => return build::model(name),
        Heads::Clipped => Config::preset(name)?.with_softmax(Clipped::new(-0.025, 1.0)?),
        Heads::Gated => Config::preset(name)?.with_gating(Gating::new(GateForm::Mlp)),
    };
    Ok(Model::generated(config, 1)?)
}

/// Measures a case for about so many milliseconds.
pub fn run(case: &Case, shape: BlockShape, min_ms: u64, ctx: &Ctx) -> Result<Measured> {
    let mut model = model(&case.model, case.attention)?;
    let generated = model.folder().is_none();
    let limit = model.config().max_positions;
    if case.seq > limit {
        let flag = if case.lengths.is_empty() { "--seq" } else { "--lengths" };
        return Err(Error::input(flag, format_args!("at most {limit} tokens"), case.seq));
    }
    if case.sparsity > 0.0 {
        model.prune(&Pruning::uniform(&model.config().clone(), shape, case.sparsity))?;
    }
    let words = model.config().vocab_size;
    let tokens = match case.lengths.as_slice() {
        [] => batch(&vec![case.seq; case.batch], words)?,
        lengths => batch(lengths, words)?,
    };
    let calibration;
    let options = match (case.dtype, case.by_ranges) {
        (Dtype::F32, _) => Options::new(Precision::F32),
        (Dtype::Bf16, _) => Options::new(Precision::Bf16),
        (Dtype::Int8, false) => Options::new(Precision::Int8),
        (Dtype::Int8, true) => {
            let samples = batch(&[case.seq.min(64); 4], words)?;
            calibration = Calibration::collect(&model, [samples.tokens()], Range::Absolute, ctx)?;
            Options::calibrated(&calibration)
        }
    };
    let encoder = Encoder::build(&model, ctx, &options)?;
    let zeros = model.sparsity();
    drop(model);

    let features = encoder.config().hidden_size;
    let (mut memory, mut out) = (Workspace::new(), vec![0.0; case.batch * features]);
    let mut call = |batch: &Batch, memory: &mut Workspace| -> Result<Duration> {
        let texts = batch.texts();
        let to = MatMut::new(&mut out[..texts * features], texts, features)?;
        let start = Instant::now();
        encoder.forward(batch.tokens(), to, ctx, memory)?;
        Ok(start.elapsed())
    };
    let enough = Duration::from_millis(min_ms);
    let mut all_times = |batch: &Batch, memory: &mut Workspace, enough: Duration| -> Result<Vec<Duration>> {
        let warm = Instant::now();
        call(batch, memory)?;
        while warm.elapsed() < enough / 10 {
            call(batch, memory)?;
        }
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < 5 || start.elapsed() < enough {
            times.push(call(batch, memory)?);
        }
        times.sort_unstable();
        Ok(times)
    };
    let times = all_times(&tokens, &mut memory, enough)?;
    let mut us_one_by_one = None;
    if !case.lengths.is_empty() {
        let mut total = Duration::ZERO;
        for &length in &case.lengths {
            let one = batch(&[length], words)?;
            total += all_times(&one, &mut memory, enough / case.batch as u32)?[0];
        }
        us_one_by_one = Some(us(total.as_secs_f64()));
    }
    memory.measure_stages(true);
    memory.take_stages();
    let rounds = times.len().div_ceil(4).max(3);
    for _ in 0..rounds {
        call(&tokens, &mut memory)?;
    }
    let stages = memory.take_stages();
    let mean = |stage: Stage| us(stages.of(stage).as_secs_f64() / rounds as f64);
    // The smallest time that 99 % of the calls did not exceed.
    let percentile = |p: usize| times[(times.len() * p).div_ceil(100) - 1].as_secs_f64();
    Ok(Measured {
        case: case.clone(),
        isa: ctx.isa().name(),
        generated,
        note: (case.sparsity > 0.0).then_some(PRUNED),
        zeros: (zeros * 1e4).round() / 1e4,
        packed_bytes: encoder.packed_bytes(),
        calls: times.len(),
        us_min: us(times[0].as_secs_f64()),
        us_p50: us(percentile(50)),
        us_p99: us(percentile(99)),
        us_one_by_one,
        tokens_per_s: (tokens.tokens().tokens() as f64 / percentile(50)).round(),
        stages: Stage::ALL.map(|stage| (stage.name().to_string(), mean(stage).into())).into_iter().collect(),
    })
}

/// Texts of so many random tokens each.
fn batch(lengths: &[usize], words: usize) -> Result<Batch> {
    let (mut batch, mut state) = (Batch::new(), 1u32);
    for &length in lengths {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % words as u32
        };
        let ids: Vec<u32> = (0..length).map(|_| next()).collect();
        batch.push(&ids)?;
    }
    Ok(batch)
}
