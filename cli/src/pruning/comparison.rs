//! Models against the whole model in f32, on texts of several domains and on graded pairs.

use super::graded::Graded;
use super::neighbours::{agreement, nearest};
use super::rank::{self, dot};
use super::report::Row;
use super::samples;
use crate::base::error::Result;
use crate::base::progress;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Encoder, Model, Options, Precision, Range, Tokenizer, Workspace, sample_texts,
};

/// Texts that are embedded at once.
const BATCH: usize = 64;

/// Texts that static INT8 is calibrated on, at most.
const RANGES: usize = 512;

/// Neighbours of a text that are looked at.
const NEIGHBOURS: usize = 10;

/// What all models are compared by.
pub struct Comparison {
    pub ctx: Ctx,
    /// What each model is computed in; of static INT8, by which ranges.
    ways: Vec<(Precision, Range)>,
    /// For ranges of static INT8.
    calibration: Vec<Batch>,
    domains: Vec<Domain>,
    grades: Vec<f64>,
    graded: Vec<Batch>,
    /// The similarities of the graded pairs by the whole model.
    whole: Vec<f64>,
}

/// Texts of one kind, and what the whole model in f32 makes of them.
struct Domain {
    name: String,
    batches: Vec<Batch>,
    pairs: Vec<(usize, usize)>,
    whole: Seen,
}

/// What a model makes of the texts of a domain.
#[derive(Default)]
struct Seen {
    /// Of the length 1.
    vectors: Vec<Vec<f32>>,
    /// Of the pairs.
    similarities: Vec<f64>,
    nearest: Vec<Vec<usize>>,
}

impl Seen {
    fn new(vectors: Vec<Vec<f32>>, pairs: &[(usize, usize)]) -> Self {
        let similarities = pairs.iter().map(|&(a, b)| dot(&vectors[a], &vectors[b])).collect();
        let nearest = nearest(&vectors, NEIGHBOURS);
        Self { vectors, similarities, nearest }
    }
}

impl Comparison {
    /// On domains of a name and of texts; `calibrate` are those that static INT8 is calibrated on, if not on a few of many kinds, by each
    /// of `ranges`.
    pub fn new(
        model: &Model,
        tokenizer: &Tokenizer,
        domains: &[(String, Vec<String>)],
        graded: &Graded,
        (calibrate, ranges): (Option<&[String]>, &[Range]),
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
        let domain = |(name, texts): &(String, Vec<String>)| {
            Ok(Domain {
                name: name.clone(),
                batches: batches(texts)?,
                pairs: rank::pairs(texts.len()),
                whole: Seen::default(),
            })
        };
        let floating = [(Precision::F32, Range::Absolute), (Precision::Int8, Range::Absolute)];
        let by_ranges = ranges.iter().map(|&range| (Precision::Int8Static, range));
        let mut this = Self {
            ctx: Ctx::new()?,
            ways: floating.into_iter().chain(by_ranges).collect(),
            calibration: batches(&samples)?,
            domains: domains.iter().map(domain).collect::<Result<_>>()?,
            grades: graded.grades.clone(),
            graded: batches(&graded.texts)?,
            whole: Vec::new(),
        };
        let encoder = this.encoder(model, this.ways[0])?;
        this.whole = this.graded_similarities(&encoder, model)?;
        for i in 0..this.domains.len() {
            let vectors = this.embed(&encoder, model, &this.domains[i].batches)?;
            this.domains[i].whole = Seen::new(vectors, &this.domains[i].pairs);
        }
        Ok(this)
    }

    /// A model in each precision, on each domain. Rows are of models of a name, pruned in blocks or not.
    pub fn rows(&self, weights: &str, model: &Model) -> Result<Vec<Row>> {
        let sparsity = model.sparsity();
        let block = model.block_shape().map(|block| block.to_string());
        let mut rows = Vec::new();
        for &way in &self.ways {
            let encoder = self.encoder(model, way)?;
            let similarities = self.graded_similarities(&encoder, model)?;
            let spearman_graded = rank::spearman(&similarities, &self.grades);
            let spearman_pairs = rank::spearman(&similarities, &self.whole);
            for domain in &self.domains {
                let seen = Seen::new(self.embed(&encoder, model, &domain.batches)?, &domain.pairs);
                let whole = &domain.whole;
                let pairs = seen.vectors.iter().zip(&whole.vectors);
                let mut cosines: Vec<f64> = pairs.map(|(a, b)| dot(a, b)).collect();
                cosines.sort_by(f64::total_cmp);
                rows.push(Row {
                    domain: domain.name.clone(),
                    weights: weights.to_string(),
                    block: block.clone(),
                    precision: match way {
                        (Precision::Int8, _) => "INT8".into(),
                        (Precision::Int8Static, Range::Absolute) => "INT8 static".into(),
                        (Precision::Int8Static, range) => format!("INT8 static, {range}"),
                        _ => "f32".into(),
                    },
                    sparsity,
                    cosine_mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
                    cosine_median: cosines[cosines.len() / 2],
                    cosine_least: cosines[0],
                    spearman: rank::spearman(&seen.similarities, &whole.similarities),
                    spearman_pairs,
                    spearman_graded,
                    top_1: agreement(&seen.nearest, &whole.nearest, 1),
                    top_10: agreement(&seen.nearest, &whole.nearest, NEIGHBOURS),
                });
            }
        }
        Ok(rows)
    }

    fn encoder(&self, model: &Model, (precision, range): (Precision, Range)) -> Result<Encoder> {
        let calibration;
        let options = match precision {
            Precision::Int8Static => {
                let batches = self.calibration.iter().map(Batch::tokens);
                calibration = Calibration::collect(model, batches, range, &self.ctx)?;
                Options::calibrated(&calibration)
            }
            other => Options::new(other),
        };
        Ok(Encoder::build(model, &self.ctx, &options)?)
    }

    fn graded_similarities(&self, encoder: &Encoder, model: &Model) -> Result<Vec<f64>> {
        let vectors = self.embed(encoder, model, &self.graded)?;
        Ok(vectors.chunks(2).map(|pair| dot(&pair[0], &pair[1])).collect())
    }

    /// Unit vectors of all texts.
    fn embed(&self, encoder: &Encoder, model: &Model, batches: &[Batch]) -> Result<Vec<Vec<f32>>> {
        let features = model.config().hidden_size;
        let (mut memory, mut vectors) = (Workspace::new(), Vec::new());
        let bar = progress::bar(batches.len(), "embedding");
        for batch in batches {
            let mut out = vec![0.0; batch.texts() * features];
            let rows = MatMut::new(&mut out, batch.texts(), features)?;
            encoder.forward(batch.tokens(), rows, &self.ctx, &mut memory)?;
            vectors.extend(out.chunks(features).map(|vector| {
                let length = dot(vector, vector).sqrt().max(f64::MIN_POSITIVE) as f32;
                vector.iter().map(|v| v / length).collect::<Vec<f32>>()
            }));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(vectors)
    }
}
