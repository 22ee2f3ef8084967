//! From a model to the parts of an encoder.

use crate::attention::{GateForm, Gating};
use crate::calibrate::LayerRanges;
use crate::error::{Error, Result};
use crate::fold;
use crate::layer::{Flow, Layer, Qkv};
use crate::names::{EMBEDDING_NORM, LinearId, POSITIONS, Part, TOKEN_TYPES};
use crate::norm::{Next, Norm};
use crate::options::{Options, Precision};
use crate::source::Source;
use crate::weights::Weights;
use siskin::attention::Gate;
use siskin::linear::Linear;
use siskin::norm::LayerNorm;
use siskin::{Ctx, MatRef};

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
    pub fn new(source: &dyn Source, ctx: &Ctx, options: &Options<'_>) -> Result<Self> {
        let config = source.config();
        let hidden = config.hidden_size;
        let mut positions = source.read(POSITIONS)?.to_vec();
        if config.num_token_types > 0 {
            let first = &source.read(TOKEN_TYPES)?[..hidden];
            for position in positions.chunks_exact_mut(hidden) {
                position.iter_mut().zip(first).for_each(|(p, t)| *p += t);
            }
        }
        let ranges = match (options.precision, options.calibration) {
            (Precision::Int8Static, None) => {
                return Err(Error::argument("options", "a calibration, for static INT8", "none"));
            }
            (Precision::Int8Static, Some(calibration)) => Some(calibration.layers_of(config)?),
            _ => None,
        };
        let mut this = Self { positions, embedding_norm: norm(source, EMBEDDING_NORM)?, layers: Vec::new() };
        for layer in 0..config.num_layers {
            let weights = LayerWeights::new(source, layer, options)?;
            let built = match ranges {
                None => Layer::pack(weights, source, layer, options.precision, ctx)?,
                Some(ranges) => {
                    let ranges: &LayerRanges = &ranges[layer];
                    let before = match this.layers.last_mut() {
                        None => &mut this.embedding_norm,
                        Some(layer) => &mut layer.output_norm,
                    };
                    let place = fold::Place { source, layer, ranges, before };
                    fold::build(weights, place, options.exact_gelu, ctx)?
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
    fn new(source: &dyn Source, layer: usize, options: &Options<'_>) -> Result<Self> {
        let weights = |part| Weights::new(source, LinearId { layer, part }, options);
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
        source: &dyn Source,
        layer: usize,
        precision: Precision,
        ctx: &Ctx,
    ) -> Result<Self> {
        let [attention_norm, output_norm] = source.config().norm_names(layer);
        Ok(Self {
            qkv: Qkv::build(&weights.qkv, precision, ctx)?,
            output: weights.output.build(precision, ctx)?,
            up: weights.up.build(precision, ctx)?,
            down: weights.down.build(precision, ctx)?,
            attention_norm: norm(source, &attention_norm)?,
            output_norm: norm(source, &output_norm)?,
            gate: gate(source, layer)?,
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

fn norm(source: &dyn Source, name: &str) -> Result<Norm> {
    let [weight, bias] = source.both(name)?;
    Ok(Norm { norm: LayerNorm::new(&weight, &bias, source.config().layer_norm_eps)?, next: Next::Floats })
}

/// The gates of a layer, if it has any.
pub(crate) fn gate(source: &dyn Source, layer: usize) -> Result<Option<Gate>> {
    let config = source.config();
    let Some(Gating { form, pooled, fine_tuned, .. }) = config.gating else { return Ok(None) };
    let (name, heads, size) = (config.gates_name(layer), config.num_heads, config.head_size());
    // Of all heads, one after the other.
    let each = |part: &str| -> Result<Vec<f32>> {
        let heads = (0..heads).map(|head| source.read(&format!("{name}.{head}{part}")));
        Ok(heads.collect::<Result<Vec<_>>>()?.iter().flat_map(|head| head.iter().copied()).collect())
    };
    let gate = match form {
        GateForm::Unconditional => Gate::unconditional(&source.read(&name)?)?,
        GateForm::AllFeatures => {
            let [weight, bias] = source.both(&name)?;
            Gate::all_features(MatRef::new(&weight, heads, config.hidden_size)?, &bias)?
        }
        GateForm::Linear => {
            let (weight, bias) = (each(".weight")?, each(".bias")?);
            Gate::linear(MatRef::new(&weight, heads, size)?, &bias)?
        }
        GateForm::Mlp | GateForm::Mlp2 => {
            let [w1, b1, w2, b2] =
                [each(".0.weight")?, each(".0.bias")?, each(".2.weight")?, each(".2.bias")?];
            let hidden = b1.len() / heads;
            let (w1, b1) = (MatRef::new(&w1, heads * hidden, size)?, MatRef::new(&b1, heads, hidden)?);
            Gate::mlp(w1, b1, MatRef::new(&w2, heads, hidden)?, &b2)?
        }
    };
    let gate = if pooled { gate.pooled()? } else { gate };
    Ok(Some(match fine_tuned {
        Some(initial) => gate.fine_tuned(initial)?,
        None => gate,
    }))
}
