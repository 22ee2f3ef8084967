//! From a model to the parts of an encoder.

use crate::calibrate::LayerRanges;
use crate::error::{Error, Result};
use crate::fold;
use crate::layer::{Flow, Layer, Qkv};
use crate::model::Model;
use crate::names::{EMBEDDING_NORM, LinearId, POSITIONS, Part, TOKEN_TYPES};
use crate::norm::{Next, Norm};
use crate::options::{Options, Precision};
use crate::weights::Weights;
use siskin::Ctx;
use siskin::linear::Linear;
use siskin::norm::LayerNorm;

/// What an encoder is made of, beside the words of its model.
pub(crate) struct Parts {
    pub positions: Vec<f32>,
    pub embedding_norm: Norm,
    pub layers: Vec<Layer>,
}

/// The weights of a transformer layer, on their way to it.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    /// Query, key and value.
    pub qkv: [Weights; 3],
    pub output: Weights,
    pub up: Weights,
    pub down: Weights,
}

impl Parts {
    pub fn new(model: &Model, ctx: &Ctx, options: &Options<'_>) -> Result<Self> {
        let config = model.config();
        let hidden = config.hidden_size;
        let mut positions = model.tensor(POSITIONS)?.to_vec();
        if config.num_token_types > 0 {
            let first = &model.tensor(TOKEN_TYPES)?[..hidden];
            for position in positions.chunks_exact_mut(hidden) {
                position.iter_mut().zip(first).for_each(|(p, t)| *p += t);
            }
        }
        let ranges = match (options.precision, options.calibration) {
            (Precision::Int8Static, None) => {
                return Err(Error::argument("options", "a calibration, for static INT8", "none"));
            }
            (Precision::Int8Static, Some(calibration)) => Some(calibration.layers_of(model)?),
            _ => None,
        };
        let mut this = Self { positions, embedding_norm: norm(model, EMBEDDING_NORM)?, layers: Vec::new() };
        for layer in 0..config.num_layers {
            let weights = LayerWeights::new(model, layer, options)?;
            let built = match ranges {
                None => Layer::pack(weights, model, layer, options.precision, ctx)?,
                Some(ranges) => {
                    let ranges: &LayerRanges = &ranges[layer];
                    let before = match this.layers.last_mut() {
                        None => &mut this.embedding_norm,
                        Some(layer) => &mut layer.output_norm,
                    };
                    let place = fold::Place { model, layer, ranges, before };
                    fold::build(weights, place, options.gelu_table, ctx)?
                }
            };
            this.layers.push(built);
        }
        if options.precision == Precision::Int8 {
            this.write_bytes_per_token();
        }
        Ok(this)
    }
}

impl Parts {
    /// Every norm with a layer behind it writes bytes.
    fn write_bytes_per_token(&mut self) {
        let last = self.layers.len();
        if last > 0 {
            self.embedding_norm.next = Next::PerToken;
        }
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.attention_norm.next = Next::PerToken;
            if i + 1 < last {
                layer.output_norm.next = Next::PerToken;
            }
        }
    }
}

impl LayerWeights {
    fn new(model: &Model, layer: usize, options: &Options<'_>) -> Result<Self> {
        let weights = |part| -> Result<Weights> {
            let id = LinearId { layer, part };
            let format = options.format_of(id);
            Ok(Weights::new(model.weight(id)?, model.bias(id)?, format, options.precision))
        };
        Ok(Self {
            qkv: [weights(Part::Query)?, weights(Part::Key)?, weights(Part::Value)?],
            output: weights(Part::Output)?,
            up: weights(Part::Up)?,
            down: weights(Part::Down)?,
        })
    }
}

impl Layer {
    /// A layer of these weights, in which floats flow, or what is quantized token by token.
    pub fn pack(
        weights: LayerWeights,
        model: &Model,
        layer: usize,
        precision: Precision,
        ctx: &Ctx,
    ) -> Result<Self> {
        let [attention_norm, output_norm] = model.config().norm_names(layer);
        Ok(Self {
            qkv: Qkv::build(&weights.qkv, precision, ctx)?,
            output: weights.output.build(precision, ctx)?,
            up: weights.up.build(precision, ctx)?,
            down: weights.down.build(precision, ctx)?,
            attention_norm: norm(model, &attention_norm)?,
            output_norm: norm(model, &output_norm)?,
            flow: if precision == Precision::Int8 { Flow::Dynamic } else { Flow::Floats },
        })
    }

    /// All of its linear layers.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let qkv = match &self.qkv {
            Qkv::One(one) => std::slice::from_ref(&**one),
            Qkv::Three(three) => &three[..],
        };
        qkv.iter().chain([&self.output, &self.up, &self.down])
    }
}

impl Qkv {
    fn build(parts: &[Weights; 3], precision: Precision, ctx: &Ctx) -> Result<Self> {
        if parts.iter().all(|part| part.format == parts[0].format) {
            return Ok(Qkv::One(Box::new(Weights::concat(parts).build(precision, ctx)?)));
        }
        let [query, key, value] = parts;
        let build = |part: &Weights| part.build(precision, ctx);
        Ok(Qkv::Three(Box::new([build(query)?, build(key)?, build(value)?])))
    }
}

fn norm(model: &Model, name: &str) -> Result<Norm> {
    let (weight, bias) = (model.tensor(&format!("{name}.weight"))?, model.tensor(&format!("{name}.bias"))?);
    Ok(Norm { norm: LayerNorm::new(weight, bias, model.config().layer_norm_eps)?, next: Next::Floats })
}
