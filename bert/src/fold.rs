//! Static INT8: what bytes stand for, made part of weights and biases.
//!
//! Features of very different reach would leave the smaller ones few of 256 steps. So features are scaled to reach alike where the
//! scale can go into what is there already: SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han, 2023). A LayerNorm writes bytes by steps of
//! each feature, and the next layer's weights are multiplied by them; the features of v are scaled in the rows of their layer, and
//! those of the context back in the columns of the layer after attention; those of q and k are balanced against each other, because only
//! their products count.

use crate::build::LayerWeights;
use crate::calibrate::{Ends, LayerRanges};
use crate::config::Activation;
use crate::error::Result;
use crate::layer::{Flow, Layer, Static};
use crate::norm::{Next, Norm};
use crate::options::Precision;
use crate::source::Source;
use crate::weights::Weights;
use siskin::linear::{gelu_table, gelu_tanh_table};
use siskin::quant::QuantParams;
use siskin::{Ctx, Element};
use std::sync::Arc;

/// Where a layer is.
pub(crate) struct Place<'a> {
    pub source: &'a dyn Source,
    pub layer: usize,
    pub ranges: &'a LayerRanges,
    /// The norm in front of it, which is to write its input.
    pub before: &'a mut Norm,
}

/// A layer in which bytes flow.
pub(crate) fn build(mut weights: LayerWeights, place: Place<'_>, exact: bool, ctx: &Ctx) -> Result<Layer> {
    let Place { source, layer, ranges, before } = place;
    let [query, key, value] = &mut weights.qkv;
    smooth(&ranges.input, &mut [query, key, value])?.write(before)?;

    let [q, k, v] = &ranges.qkv;
    let balance: Vec<f32> = q.reach().zip(k.reach()).map(|(q, k)| power(k / q, 0.5)).collect();
    let q = q.scaled(&balance)?;
    query.scale_outputs(balance.iter().copied());
    let inverse: Vec<f32> = balance.iter().map(|b| 1.0 / b).collect();
    let k = k.scaled(&inverse)?;
    key.scale_outputs(inverse.iter().copied());

    let most = v.reach().fold(0.0, f32::max);
    let up: Vec<f32> = v.reach().map(|reach| power(most / reach, VALUES)).collect();
    let down: Vec<f32> = up.iter().map(|s| 1.0 / s).collect();
    let (v, context) = (v.scaled(&up)?, ranges.context.scaled(&up)?);
    value.scale_outputs(up.iter().copied());
    weights.output.scale_inputs(&down);

    let qkv = [params(q)?, params(k)?, params(v)?];
    for (weights, params) in weights.qkv.iter_mut().zip(&qkv) {
        to_bytes(weights, params);
    }
    let inside = params(ranges.inside.covered)?;
    let from = params((FLAT, ranges.inside.covered.1 + LOST))?;
    let table = match source.config().activation {
        Activation::Gelu if !exact => Some(gelu_table(from, inside)),
        Activation::GeluTanh if !exact => Some(gelu_tanh_table(from, inside)),
        _ => None,
    };
    let flow = Static { qkv, context: params(context)?, inside, table };
    let factors = smooth(&ranges.middle, &mut [&mut weights.up])?;
    let mut built = Layer::pack(weights, source, layer, Precision::Int8Static, ctx)?;
    factors.write(&mut built.attention_norm)?;
    built.flow = Flow::Static(Box::new(flow));
    Ok(built)
}

/// Below this GELU is within 0.0041 of 0. A table has one byte for all that is below, so that it can tell apart more of the rest.
const FLAT: f32 = -3.0;

/// A positive number is at most by this more than its GELU.
const LOST: f32 = 0.1701;

/// How much of the differences between features goes from inputs into weights: 0 is nothing, 1 all.
const INPUTS: f32 = 0.5;
const VALUES: f32 = 1.0;

/// Scales input features to reach alike, as far as weights do not differ too much then, and says how they become bytes.
fn smooth(ends: &Ends, weights: &mut [&mut Weights]) -> Result<Smooth> {
    let mut reach = vec![0.0f32; ends.low.len()];
    for weights in weights.iter() {
        for row in weights.weight.chunks_exact(weights.in_features) {
            reach.iter_mut().zip(row).for_each(|(reach, w)| *reach = reach.max(w.abs()));
        }
    }
    let factors: Vec<f32> = ends
        .reach()
        .zip(&reach)
        .map(|(x, &w)| if w > 0.0 { power(x, INPUTS) / power(w, 1.0 - INPUTS) } else { 1.0 })
        .collect();
    for weights in weights {
        weights.scale_inputs(&factors);
    }
    let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
    let params = params(ends.scaled(&inverse)?)?;
    Ok(Smooth { params, inverse })
}

/// What a norm's features are multiplied by before they become bytes, and what these stand for.
struct Smooth {
    params: QuantParams,
    inverse: Vec<f32>,
}

impl Smooth {
    fn write(&self, norm: &mut Norm) -> Result<()> {
        norm.norm = norm.norm.clone().with_byte_factors(&self.inverse)?;
        norm.next = Next::Static(self.params);
        Ok(())
    }
}

/// A power that stays within what scales can be.
fn power(x: f32, exponent: f32) -> f32 {
    x.powf(exponent).clamp(1e-4, 1e4)
}

fn params((low, high): (f32, f32)) -> Result<QuantParams> {
    Ok(QuantParams::from_range_asymmetric(low, high, Element::U8)?)
}

/// Makes the output's scale and zero point part of the layer: its output is then the bytes themselves, as reals.
fn to_bytes(weights: &mut Weights, params: &QuantParams) {
    weights.scale_outputs(std::iter::repeat(1.0 / params.scale()));
    Arc::make_mut(&mut weights.bias).iter_mut().for_each(|bias| *bias += params.zero_point() as f32);
}
