//! Optimal brain surgeon for the blocks of one layer.

use super::order::Order;
use super::positive::Factor;
use super::sensitivity::Curve;
use super::{Error, Hessian, Result, Target};
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;
use siskin::MatRef;
use siskin::sparse::BlockShape;
use std::ops::Range;

/// How a layer is pruned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Which weights go together. Where it does not divide the weights, the blocks at the edges are cut short, as everywhere in siskin.
    pub block: BlockShape,
    /// Added to the diagonal of the Hessian, as a part of the mean variance of an input feature: pulls weights to what they were, more
    /// where the samples say less. 0.01 unless said.
    pub damping: f64,
    /// The part of the blocks that are left that is removed before the others are corrected, in 0 to 1. 1/16 unless said; less is slower
    /// and closer to removing one after the other.
    pub step: f64,
}

impl Options {
    /// With the damping and the steps that are usual.
    pub fn new(block: BlockShape) -> Self {
        Self { block, damping: 0.01, step: 1.0 / 16.0 }
    }
}

/// A layer whose blocks are in the order in which they should go: any sparsity can be had of it.
///
/// Finding the order takes nearly all of the time. Rows of blocks are worked on by the threads of the current rayon pool, each with a
/// copy of the inverse of the Hessian: K² floats.
#[derive(Debug)]
pub struct Surgeon {
    options: Options,
    tokens: usize,
    /// As they were, `[N, K]` and `[N]`.
    weights: DMatrix<f64>,
    bias: Vec<f32>,
    /// Whether the wanted outputs are those of these weights for these inputs.
    own_target: bool,
    /// Means of inputs and wanted outputs.
    mean: DVector<f64>,
    wanted_mean: DVector<f64>,
    /// Sum of the variances of the wanted outputs.
    variance: f64,
    /// Damped: `[K, K]`, `[N, K]`.
    hessian: DMatrix<f64>,
    covariance: DMatrix<f64>,
    damping: f64,
    bands: Vec<Order>,
}

/// A layer after pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruned {
    /// `[N, K]`, row-major: zero in all blocks that were removed.
    pub weights: Vec<f32>,
    /// `[N]`.
    pub bias: Vec<f32>,
    /// The mean squared error of the outputs over the samples, as a part of the variance of the wanted outputs (0 where that is 0).
    pub error: f64,
}

impl Surgeon {
    /// Orders the blocks of a layer with weights `[N, K]` and a bias `[N]`, for inputs `hessian`.
    ///
    /// `target` has the wanted outputs for the same inputs; without it they are what the layer gives now.
    ///
    /// # Errors
    /// * [`Error::Shape`] if widths differ, or the samples of `hessian` and `target`, or if there are no samples;
    /// * [`Error::Value`] if a weight or a bias is NaN or infinite, or an option is outside what it may be;
    /// * [`Error::NotPositiveDefinite`] if there is too little damping for the samples.
    pub fn new(
        w: MatRef<'_, f32>,
        bias: &[f32],
        hessian: &Hessian,
        target: Option<&Target>,
        options: &Options,
    ) -> Result<Self> {
        check(w, bias, hessian, target, options)?;
        let (n, k) = (w.rows(), w.cols());
        let mut weights = DMatrix::zeros(n, k);
        for (r, row) in w.iter_rows().enumerate() {
            row.iter().enumerate().for_each(|(c, &v)| weights[(r, c)] = f64::from(v));
        }
        let mean = hessian.mean();
        let mut damped = hessian.covariance();
        let (wanted_mean, mut covariance, variance) = match target {
            Some(target) => (target.mean(), target.covariance(&mean), target.variance().sum()),
            None => {
                let covariance = &weights * &damped;
                let variance = covariance.dot(&weights);
                let bias = DVector::from_iterator(n, bias.iter().map(|&b| f64::from(b)));
                (&weights * &mean + bias, covariance, variance)
            }
        };
        let damping = options.damping * damped.trace() / (k as f64).max(1.0);
        (0..k).for_each(|i| damped[(i, i)] += damping);
        covariance += &weights * damping;

        let singular =
            || Error::NotPositiveDefinite { features: k, tokens: hessian.tokens(), damping: options.damping };
        let inverse = Factor::new(damped.clone()).ok_or_else(singular)?.inverse();
        let best = (&covariance * &inverse).map(|v| v as f32);
        let inverse = inverse.map(|v| v as f32);
        let rows = options.block.rows().min(n.max(1));
        let bands: Option<Vec<Order>> = (0..n.div_ceil(rows))
            .into_par_iter()
            .map(|i| {
                let rows = band(i, rows, n);
                let best = best.rows(rows.start, rows.len()).into_owned();
                Order::new(&damped, &inverse, best, options.block.cols().min(k), options.step)
            })
            .collect();
        Ok(Self {
            options: *options,
            tokens: hessian.tokens(),
            bands: bands.ok_or_else(singular)?,
            weights,
            bias: bias.to_vec(),
            own_target: target.is_none(),
            mean,
            wanted_mean,
            variance,
            hessian: damped,
            covariance,
            damping,
        })
    }

    /// What removing blocks adds to the error, from no block to all.
    pub fn curve(&self) -> Curve {
        let costs = self.bands.iter().flat_map(|band| &band.costs).copied().collect();
        Curve::new(self.weights.len(), costs, self.variance)
    }

    /// The layer without the cheapest blocks: `round(blocks * (1 - sparsity))` of all blocks are kept, in some rows of blocks more
    /// than in others. Kept weights and the bias are those of least error, damped ([`Options::damping`]). Where no target was given, a row of blocks that
    /// loses none is as it was.
    ///
    /// # Errors
    /// [`Error::Value`] if `sparsity` is not in 0 to below 1.
    pub fn prune(&self, sparsity: f64) -> Result<Pruned> {
        if !(0.0..1.0).contains(&sparsity) {
            return Err(Error::value("sparsity", "0 to below 1", format_args!("{sparsity:?}")));
        }
        let (n, k) = self.weights.shape();
        let solved: Option<Vec<(DMatrix<f64>, f64)>> = self
            .removed(sparsity)
            .into_par_iter()
            .enumerate()
            .map(|(i, removed)| self.solve(i, removed))
            .collect();
        let solved = solved.ok_or(Error::NotPositiveDefinite {
            features: k,
            tokens: self.tokens,
            damping: self.options.damping,
        })?;

        let (mut weights, mut bias) = (Vec::with_capacity(n * k), Vec::with_capacity(n));
        let mut explained = 0.0;
        for (band, (solved, part)) in solved.iter().enumerate() {
            explained += part;
            let whole = self.own_target && solved == &self.weights.rows(band * self.rows(), solved.nrows());
            for (r, row) in solved.row_iter().enumerate() {
                let feature = band * self.rows() + r;
                let shift = (row * &self.mean)[0];
                weights.extend(row.iter().map(|&v| v as f32));
                bias.push(if whole {
                    self.bias[feature]
                } else {
                    (self.wanted_mean[feature] - shift) as f32
                });
            }
        }
        let error =
            if self.variance > 0.0 { ((self.variance - explained) / self.variance).max(0.0) } else { 0.0 };
        Ok(Pruned { weights, bias, error })
    }

    /// Output features of a row of blocks.
    fn rows(&self) -> usize {
        self.options.block.rows().min(self.weights.nrows().max(1))
    }

    /// How many blocks each row of blocks loses: the cheapest of all, of equal ones those above.
    fn removed(&self, sparsity: f64) -> Vec<usize> {
        let mut costs: Vec<(f64, usize)> = (self.bands.iter().enumerate())
            .flat_map(|(band, order)| order.costs.iter().map(move |&cost| (cost, band)))
            .collect();
        costs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let kept = (costs.len() as f64 * (1.0 - sparsity)).round() as usize;
        let mut removed = vec![0; self.bands.len()];
        costs[..costs.len() - kept].iter().for_each(|&(_, band)| removed[band] += 1);
        removed
    }

    /// The best weights of a row of blocks without the first `removed` blocks of its order, `[rows, K]`, and how much of the variance
    /// of the wanted outputs they explain.
    fn solve(&self, i: usize, removed: usize) -> Option<(DMatrix<f64>, f64)> {
        let (n, k) = self.weights.shape();
        let rows = band(i, self.rows(), n);
        let count = rows.len();
        let mut keep = vec![true; k];
        for &block in &self.bands[i].blocks[..removed] {
            let from = block as usize * self.options.block.cols();
            keep[from..from.saturating_add(self.options.block.cols()).min(k)].fill(false);
        }
        let kept: Vec<usize> = (0..k).filter(|&c| keep[c]).collect();
        let own = self.weights.rows(rows.start, count);
        let wanted = self.covariance.rows(rows.start, count).select_columns(&kept);

        let mut solved = DMatrix::zeros(count, k);
        let values = if self.own_target && removed == 0 {
            own.into_owned()
        } else {
            let hessian = DMatrix::from_fn(kept.len(), kept.len(), |a, b| self.hessian[(kept[a], kept[b])]);
            let mut values = wanted.transpose();
            Factor::new(hessian)?.solve(&mut values);
            values.transpose()
        };
        // At the least squares of the damped system, w H wᵀ = w Cᵀ; damping is taken out of both.
        let pull = values.dot(&own.select_columns(&kept));
        let explained = values.dot(&wanted) + self.damping * (values.norm_squared() - 2.0 * pull);
        kept.iter().enumerate().for_each(|(from, &c)| solved.set_column(c, &values.column(from)));
        Some((solved, explained))
    }
}

fn band(i: usize, rows: usize, n: usize) -> Range<usize> {
    i * rows..((i + 1) * rows).min(n)
}

fn check(
    w: MatRef<'_, f32>,
    bias: &[f32],
    hessian: &Hessian,
    target: Option<&Target>,
    options: &Options,
) -> Result<()> {
    let (n, k) = (w.rows(), w.cols());
    if hessian.in_features() != k {
        return Err(Error::shape(
            "hessian",
            format_args!("the {k} input features of w"),
            hessian.in_features(),
        ));
    }
    if hessian.tokens() == 0 {
        return Err(Error::shape("hessian", "a sample or more", 0));
    }
    if bias.len() != n {
        return Err(Error::shape("bias", format_args!("the {n} output features of w"), bias.len()));
    }
    if let Some(target) = target {
        if (target.out_features(), target.in_features()) != (n, k) {
            let got = format!("{} x {}", target.out_features(), target.in_features());
            return Err(Error::shape("target", format_args!("{n} output x {k} input features, as w"), got));
        }
        if target.tokens() != hessian.tokens() {
            return Err(Error::shape(
                "target",
                format_args!("the {} samples of the hessian", hessian.tokens()),
                target.tokens(),
            ));
        }
    }
    for (r, row) in w.iter_rows().enumerate() {
        if let Some(c) = row.iter().position(|v| !v.is_finite()) {
            let got = format_args!("{} at row {r}, column {c}", row[c]).to_string();
            return Err(Error::value("w", "finite numbers", got));
        }
    }
    if let Some(i) = bias.iter().position(|v| !v.is_finite()) {
        return Err(Error::value("bias", "finite numbers", format_args!("{} at {i}", bias[i])));
    }
    if !(options.damping >= 0.0 && options.damping.is_finite()) {
        return Err(Error::value("damping", "0 or more", format_args!("{:?}", options.damping)));
    }
    if !(options.step > 0.0 && options.step <= 1.0) {
        return Err(Error::value("step", "above 0 to 1", format_args!("{:?}", options.step)));
    }
    Ok(())
}
