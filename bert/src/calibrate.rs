//! Ranges of all that flows through a model, seen on sample texts.

use crate::batch::Tokens;
use crate::config::Config;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::mse::{self, Sample};
use crate::names::{LinearId, Part};
use crate::options::{Options, Precision};
use crate::source::Source;
use crate::visitor::Visitor;
use crate::workspace::Workspace;
use siskin::{Ctx, MatRef};
use std::fmt;
use std::str::FromStr;

/// Which part of the values that were seen is to be covered. What is beyond is clipped.
///
/// As texts: `absolute`, `percentile:99.99`, `mse`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Range {
    /// All: from the smallest to the largest.
    #[default]
    Absolute,
    /// From the percentile `100 - p` to `p` of each batch, the widest of all batches; p is 50 to 100, such as 99.99. It is of what comes
    /// out of the activation, whose features are not scaled to reach alike; of all else it is [`Range::Absolute`].
    Percentile(f64),
    /// The part that eight bits keep with the least squared error, of rows from all over what was seen.
    Mse,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Absolute => f.write_str("absolute"),
            Range::Percentile(p) => write!(f, "percentile:{p}"),
            Range::Mse => f.write_str("mse"),
        }
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let range = match text.split_once(':') {
            None if text == "absolute" => Some(Range::Absolute),
            None if text == "mse" => Some(Range::Mse),
            Some(("percentile", p)) => p.parse().ok().map(Range::Percentile),
            _ => None,
        };
        match range {
            Some(range) => range.checked(),
            None => Err(Error::argument("range", "absolute, mse or such as percentile:99.99", text)),
        }
    }
}

impl Range {
    fn checked(self) -> Result<Self> {
        match self {
            Range::Percentile(p) if !(50.0..=100.0).contains(&p) => {
                Err(Error::argument("percentile", "50 to 100", p))
            }
            _ => Ok(self),
        }
    }
}

/// Texts of many kinds and lengths, written for this crate: to calibrate a model where there are no better ones.
pub fn sample_texts() -> impl Iterator<Item = &'static str> {
    include_str!("samples.txt").lines()
}

/// The ranges of all that flows through a model, seen on sample texts: for [`Precision::Int8Static`].
#[derive(Debug, Clone)]
pub struct Calibration {
    layers: Vec<LayerRanges>,
}

/// Of a transformer layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerRanges {
    /// The input of query, key and value.
    pub input: Ends,
    pub qkv: [Ends; 3],
    /// What comes out of attention.
    pub context: Ends,
    /// The input of the feed-forward network.
    pub middle: Ends,
    /// After its activation.
    pub inside: Ends,
}

/// The ends of a tensor's values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// By feature, all values.
    pub low: Vec<f32>,
    pub high: Vec<f32>,
    /// Of all features together, as far as is to be covered.
    pub covered: (f32, f32),
    /// Rows, where ranges are by their error.
    pub sample: Sample,
}

impl Ends {
    /// The largest magnitude of each feature, never 0.
    pub fn reach(&self) -> impl Iterator<Item = f32> {
        self.low.iter().zip(&self.high).map(|(low, high)| low.abs().max(high.abs()).max(f32::MIN_POSITIVE))
    }

    /// The range of all features, each times its factor, as far as it is to be covered. With 0 in it.
    pub fn scaled(&self, factors: &[f32]) -> Result<(f32, f32)> {
        let ends = self.low.iter().zip(&self.high).zip(factors);
        let all =
            ends.fold((0.0f32, 0.0f32), |all, ((low, high), f)| (all.0.min(low * f), all.1.max(high * f)));
        if self.sample.rows.is_empty() {
            return Ok(all);
        }
        let rows = self.sample.rows.chunks_exact(factors.len());
        Ok(mse::range(rows.flat_map(|row| row.iter().zip(factors).map(|(v, f)| v * f)), all)?)
    }
}

impl Calibration {
    /// Computes sample batches in f32 and sees what flows.
    ///
    /// # Errors
    /// As [`Encoder::build`] and [`Encoder::forward`]; [`Error::Argument`] if there is no token, or a percentile is out of range.
    pub fn collect<'a>(
        source: &dyn Source,
        batches: impl IntoIterator<Item = Tokens<'a>>,
        range: Range,
        ctx: &Ctx,
    ) -> Result<Self> {
        let range = range.checked()?;
        let encoder = Encoder::build(source, ctx, &Options::new(Precision::F32))?;
        let mut seen = Seen {
            layers: vec![LayerRanges::default(); source.config().num_layers],
            range,
            sorted: Vec::new(),
        };
        let (mut memory, mut tokens) = (Workspace::new(), 0);
        for batch in batches.into_iter().filter(|batch| batch.tokens() > 0) {
            encoder.observe(batch, ctx, &mut memory, &mut seen)?;
            tokens += batch.tokens();
        }
        if tokens == 0 {
            return Err(Error::argument("batches", "at least one token", "none"));
        }
        for ends in seen.layers.iter_mut().map(|layer| &mut layer.inside) {
            let sample = std::mem::take(&mut ends.sample);
            if !sample.rows.is_empty() {
                ends.covered = mse::range(sample.rows.into_iter(), ends.covered)?;
            }
        }
        Ok(Self { layers: seen.layers })
    }

    /// The ranges of a model's layers, if they are of such a model.
    pub(crate) fn layers_of(&self, config: &Config) -> Result<&[LayerRanges]> {
        let fits = |layer: &LayerRanges| {
            (layer.input.low.len(), layer.inside.low.len()) == (config.hidden_size, config.intermediate_size)
        };
        if self.layers.len() == config.num_layers && self.layers.iter().all(fits) {
            return Ok(&self.layers);
        }
        Err(Error::argument("calibration", "one of a model of this shape", "one of another"))
    }
}

struct Seen {
    layers: Vec<LayerRanges>,
    range: Range,
    sorted: Vec<f32>,
}

impl Seen {
    fn see(&mut self, id: LinearId, x: MatRef<'_, f32>, ends: impl Fn(&mut LayerRanges) -> &mut Ends) {
        let ends = ends(&mut self.layers[id.layer]);
        let first = ends.low.is_empty();
        if first {
            ends.low = vec![f32::INFINITY; x.cols()];
            ends.high = vec![f32::NEG_INFINITY; x.cols()];
        }
        let mut all = (0.0f32, 0.0f32);
        for row in x.iter_rows() {
            if self.range == Range::Mse {
                ends.sample.see(row);
            }
            for ((low, high), &v) in ends.low.iter_mut().zip(&mut ends.high).zip(row) {
                (*low, *high) = (low.min(v), high.max(v));
                all = (all.0.min(v), all.1.max(v));
            }
        }
        if let Range::Percentile(p) = self.range {
            self.sorted.clear();
            self.sorted.extend(x.iter_rows().flatten());
            let last = self.sorted.len() - 1;
            let mut at = |p: f64| {
                let index = (p / 100.0 * last as f64).round() as usize;
                *self.sorted.select_nth_unstable_by(index, f32::total_cmp).1
            };
            all = (at(100.0 - p).min(0.0), at(p).max(0.0));
        }
        ends.covered = (ends.covered.0.min(all.0), ends.covered.1.max(all.1));
    }
}

impl Visitor for Seen {
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>) {
        match ids[0].part {
            Part::Query | Part::Key | Part::Value => self.see(ids[0], x, |layer| &mut layer.input),
            Part::Output => self.see(ids[0], x, |layer| &mut layer.context),
            Part::Up => self.see(ids[0], x, |layer| &mut layer.middle),
            Part::Down => self.see(ids[0], x, |layer| &mut layer.inside),
        }
    }

    fn output(&mut self, id: LinearId, y: MatRef<'_, f32>) {
        match id.part {
            Part::Query => self.see(id, y, |layer| &mut layer.qkv[0]),
            Part::Key => self.see(id, y, |layer| &mut layer.qkv[1]),
            Part::Value => self.see(id, y, |layer| &mut layer.qkv[2]),
            Part::Output | Part::Up | Part::Down => {}
        }
    }
}
