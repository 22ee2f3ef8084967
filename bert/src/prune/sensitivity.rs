//! How sparse each layer should be, where all layers together have a target.

use super::{Error, Result};

/// Points of a curve after the first: steps of a hundredth.
const STEPS: usize = 100;

/// What a layer loses by sparsity: the error that pruning adds to its outputs, as a part of their variance.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    weights: usize,
    /// At sparsities 0, 1/100, .. 1. Convex, for the cheapest blocks come first.
    losses: Vec<f64>,
}

impl Curve {
    /// Of a layer of so many weights, whose blocks cost so much each and whose outputs have so much variance.
    pub(super) fn new(weights: usize, mut costs: Vec<f64>, variance: f64) -> Self {
        costs.sort_by(f64::total_cmp);
        let unit = if variance > 0.0 { 1.0 / variance } else { 0.0 };
        let mut losses = vec![0.0];
        let (mut sum, mut from) = (0.0, 0);
        for step in 1..=STEPS {
            let to = costs.len() * step / STEPS;
            sum += costs[from..to].iter().sum::<f64>();
            from = to;
            losses.push(sum * unit);
        }
        Self { weights, losses }
    }

    /// Of a layer of so many weights, measured in another way: losses at sparsities in equal steps from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Value`] if a loss is NaN or infinite; [`Error::Shape`] if there are fewer than two.
    pub fn from_losses(weights: usize, losses: &[f64]) -> Result<Self> {
        if losses.len() < 2 {
            return Err(Error::shape("losses", "two or more", losses.len()));
        }
        if let Some(i) = losses.iter().position(|v| !v.is_finite()) {
            return Err(Error::value("losses", "finite numbers", format_args!("{} at {i}", losses[i])));
        }
        Ok(Self { weights, losses: losses.to_vec() })
    }

    /// Weights of the layer.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// The loss at a sparsity in 0 to 1, between points of the curve in a straight line.
    pub fn loss(&self, sparsity: f64) -> f64 {
        let at = sparsity.clamp(0.0, 1.0) * self.steps() as f64;
        let i = (at as usize).min(self.steps() - 1);
        self.losses[i] + (at - i as f64) * (self.losses[i + 1] - self.losses[i])
    }

    fn steps(&self) -> usize {
        self.losses.len() - 1
    }

    /// What a step costs for each weight that it removes.
    fn slope(&self, step: usize) -> f64 {
        (self.losses[step + 1] - self.losses[step]) * self.steps() as f64 / self.weights as f64
    }
}

/// A sparsity for each layer, so that all layers together have `sparsity` and the sum of their losses is small; none above `most`.
///
/// The layer whose next step costs least for each weight goes on, until enough are removed: with convex curves no other choice of the
/// same steps loses less. The idea of a search layer by layer for what a model does not need is AxFormer's (Nagarajan et al., *Optimizing
/// Transformers with Approximate Computing*, 2020), which measures the accuracy of the whole model instead.
///
/// # Errors
/// [`Error::Value`] if `sparsity` or `most` is not in 0 to below 1, or `most` is less than `sparsity`.
pub fn allocate(curves: &[Curve], sparsity: f64, most: f64) -> Result<Vec<f64>> {
    for (argument, value) in [("sparsity", sparsity), ("most", most)] {
        if !(0.0..1.0).contains(&value) {
            return Err(Error::value(argument, "0 to below 1", format_args!("{value:?}")));
        }
    }
    if most < sparsity {
        return Err(Error::value("most", format_args!("at least the sparsity {sparsity}"), most));
    }
    let mut chosen = vec![0.0; curves.len()];
    let mut next = vec![0; curves.len()];
    let mut left = sparsity * curves.iter().map(|c| c.weights as f64).sum::<f64>();
    while left > 0.0 {
        let open = (0..curves.len()).filter(|&i| curves[i].weights > 0 && chosen[i] < most);
        let Some(i) = open.min_by(|&a, &b| curves[a].slope(next[a]).total_cmp(&curves[b].slope(next[b])))
        else {
            break;
        };
        let (curve, all) = (&curves[i], curves[i].weights as f64);
        let to = ((next[i] + 1) as f64 / curve.steps() as f64).min(most).min(chosen[i] + left / all);
        left -= (to - chosen[i]) * all;
        // What is left may be too little to change a sum of f64.
        if to <= chosen[i] {
            break;
        }
        chosen[i] = to;
        next[i] += usize::from(to >= (next[i] + 1) as f64 / curve.steps() as f64);
    }
    Ok(chosen)
}
