//! From weights to a layer.

use super::forward::PADDING;
use super::{Linear, MAX_FEATURES, MAX_FEATURES_ZERO_POINTS, Packed};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::kernels::table::Tier;
use crate::kernels::weights::{Dense, Sparse};
use crate::quant::check_scale;
use crate::sparse::Bsr;
use crate::view::MatRef;
use std::borrow::Cow;

/// The largest N. A few bytes can stand for a sparse matrix, or one of no columns, of any number of rows.
pub const MAX_OUT_FEATURES: usize = 1 << 24;

/// What a layer is built from: see [`Linear::dense`], [`Linear::sparse`] and their `quantize_` forms.
#[derive(Debug, Clone)]
pub struct Builder<'a> {
    weights: Weights<'a>,
    scales: Cow<'a, [f32]>,
    zero_points: &'a [i32],
    bias: &'a [f32],
}

#[derive(Debug, Clone)]
enum Weights<'a> {
    Dense(MatRef<'a, i8>),
    OwnDense(Vec<i8>, usize, usize),
    Sparse(Cow<'a, Bsr<i8>>),
}

impl Linear {
    /// A layer of dense weights `[N, K]`; weight q stands for `scale * (q - zero_point)`, and scale is 1 until said.
    pub fn dense(w: MatRef<'_, i8>) -> Builder<'_> {
        Builder::new(Weights::Dense(w))
    }

    /// A layer of block-sparse weights `[N, K]`; weight q stands for `scale * q`, and scale is 1 until said.
    pub fn sparse(w: &Bsr<i8>) -> Builder<'_> {
        Builder::new(Weights::Sparse(Cow::Borrowed(w)))
    }

    /// A layer of real dense weights, each output feature quantized symmetrically by its own largest magnitude:
    /// `scale[n] = max |w[n]| / 127`.
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite.
    pub fn quantize_dense<'a>(w: MatRef<'_, f32>) -> Result<Builder<'a>> {
        let mut scales = Vec::with_capacity(w.rows());
        let mut q = Vec::with_capacity(w.rows() * w.cols());
        for row in w.iter_rows() {
            let scale = row_scale(row.iter().copied())?;
            q.extend(row.iter().map(|&v| quantize(v, scale)));
            scales.push(scale);
        }
        let mut this = Builder::new(Weights::OwnDense(q, w.rows(), w.cols()));
        this.scales = Cow::Owned(scales);
        Ok(this)
    }

    /// A layer of real block-sparse weights, quantized as in [`Linear::quantize_dense`].
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite.
    pub fn quantize_sparse<'a>(w: &Bsr<f32>) -> Result<Builder<'a>> {
        let mut most = vec![0.0f32; w.rows()];
        let mut bad = None;
        // `map` visits each stored value with its row.
        let _: Bsr<f32> = w.map(|row, v| {
            if !v.is_finite() {
                bad = Some(v);
            }
            most[row] = most[row].max(v.abs());
            v
        });
        if let Some(v) = bad {
            return Err(Error::value("w", "finite weights", v));
        }
        let scales: Vec<f32> = most.iter().map(|&m| scale_of(m)).collect();
        let q = w.map(|row, v| quantize(v, scales[row]));
        let mut this = Builder::new(Weights::Sparse(Cow::Owned(q)));
        this.scales = Cow::Owned(scales);
        Ok(this)
    }
}

fn row_scale(row: impl Iterator<Item = f32>) -> Result<f32> {
    let mut most = 0.0f32;
    for v in row {
        if !v.is_finite() {
            return Err(Error::value("w", "finite weights", v));
        }
        most = most.max(v.abs());
    }
    Ok(scale_of(most))
}

/// `most / 127`, kept where a scale may be: a row of zeros, or of next to nothing, gets the smallest.
fn scale_of(most: f32) -> f32 {
    (most / 127.0).max(f32::MIN_POSITIVE * 4.0)
}

fn quantize(v: f32, scale: f32) -> i8 {
    (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

impl<'a> Builder<'a> {
    fn new(weights: Weights<'a>) -> Self {
        Self { weights, scales: Cow::Borrowed(&[]), zero_points: &[], bias: &[] }
    }

    /// The real size of a weight step: one for all, or one for each output feature.
    #[must_use]
    pub fn scales(mut self, scales: &'a [f32]) -> Self {
        self.scales = Cow::Borrowed(scales);
        self
    }

    /// Zero points of dense weights, -128 to 127: one for all, or one for each output feature.
    #[must_use]
    pub fn zero_points(mut self, zero_points: &'a [i32]) -> Self {
        self.zero_points = zero_points;
        self
    }

    /// Added to each output feature.
    #[must_use]
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = bias;
        self
    }

    /// Packs the weights for the tier of `ctx`.
    ///
    /// # Errors
    /// [`Error::Shape`] if scales, zero points or bias have the wrong length, if N is above [`MAX_OUT_FEATURES`], or if K is above [`MAX_FEATURES`] (with
    /// zero points [`MAX_FEATURES_ZERO_POINTS`]): sums could overflow. [`Error::Value`] if a scale is not positive and
    /// normal, a zero point is outside i8, or a bias is NaN or infinite. [`Error::Unsupported`] for zero points of sparse
    /// weights: a pruned weight is 0.
    pub fn build(&self, ctx: &Ctx) -> Result<Linear> {
        self.build_for(Tier::of(ctx.isa()))
    }

    /// As [`Builder::build`], on tier i of those that only tests have, for a scalar [`Ctx`].
    #[cfg(feature = "oracle")]
    #[doc(hidden)]
    pub fn build_odd(&self, i: usize) -> Result<Linear> {
        self.build_for(crate::kernels::odd::ODD[i])
    }

    fn build_for(&self, tier: &'static Tier) -> Result<Linear> {
        let own;
        let dense = match &self.weights {
            Weights::Dense(w) => Some(*w),
            Weights::OwnDense(q, n, k) => {
                own = MatRef::new(q, *n, *k)?;
                Some(own)
            }
            Weights::Sparse(_) => None,
        };
        let (n, k) = match (&self.weights, dense) {
            (Weights::Sparse(w), _) => (w.rows(), w.cols()),
            (_, Some(w)) => (w.rows(), w.cols()),
            _ => (0, 0),
        };
        if n > MAX_OUT_FEATURES {
            return Err(Error::shape("weights", format_args!("at most {MAX_OUT_FEATURES} out_features"), n));
        }
        let scale = spread("scales", &self.scales, n, 1.0)?;
        for &s in &scale {
            check_scale("scales", s)?;
        }
        let zero_points = spread("zero_points", self.zero_points, n, 0)?;
        if let Some(z) = zero_points.iter().find(|z| !(-128..=127).contains(*z)) {
            return Err(Error::value("zero_points", "-128 to 127", z));
        }
        let zero_points = zero_points.iter().any(|&z| z != 0).then_some(zero_points);
        if zero_points.is_some() && dense.is_none() {
            return Err(Error::unsupported("zero_points", "none for sparse weights", "some"));
        }
        let most = if zero_points.is_some() { MAX_FEATURES_ZERO_POINTS } else { MAX_FEATURES };
        if k > most {
            return Err(Error::shape("weights", format_args!("at most {most} in_features"), k));
        }
        let bias = match self.bias {
            [] => vec![0.0; n],
            bias if bias.len() == n => bias.to_vec(),
            bias => return Err(Error::shape("bias", format_args!("{n} numbers, or none"), bias.len())),
        };
        if let Some(b) = bias.iter().find(|b| !b.is_finite()) {
            return Err(Error::value("bias", "finite numbers", b));
        }

        let (mut sums, mut magnitudes) = (vec![0i32; n], vec![0i32; n]);
        let mut count = |row: usize, w: i8| {
            sums[row] += i32::from(w);
            magnitudes[row] += i32::from(w).abs();
        };
        let (weights, stored) = match (&self.weights, dense) {
            (_, Some(w)) => {
                for (r, row) in w.iter_rows().enumerate() {
                    row.iter().for_each(|&v| count(r, v));
                }
                (Packed::Dense(Dense::pack(w, tier.dense)), n * k)
            }
            (Weights::Sparse(w), None) => {
                let _: Bsr<i8> = w.map(|row, v| {
                    count(row, v);
                    v
                });
                (Packed::Sparse(Sparse::pack(w)?), w.stored_values())
            }
            _ => return Err(Error::unsupported("weights", "dense or sparse weights", "neither")),
        };
        // Kernels read whole registers of these.
        sums.resize(n + PADDING, 0);
        let zero_points = zero_points.map(|mut z| {
            z.resize(n + PADDING, 0);
            z
        });
        let reach = magnitudes.iter().zip(&scale).map(|(&m, s)| m as f32 * 255.0 * s);
        let reach = reach.fold(0.0, f32::max);
        let most_bias = bias.iter().fold(0.0f32, |most, b| most.max(b.abs()));
        Ok(Linear {
            in_features: k,
            out_features: n,
            weights,
            tier,
            scale,
            bias,
            sums,
            reach,
            most_bias,
            zero_points,
            stored,
        })
    }
}

/// None, one or n values as n.
fn spread<T: Copy>(argument: &'static str, values: &[T], n: usize, default: T) -> Result<Vec<T>> {
    match values {
        [] => Ok(vec![default; n]),
        [one] => Ok(vec![*one; n]),
        many if many.len() == n => Ok(many.to_vec()),
        many => Err(Error::shape(argument, format_args!("1 or {n} values"), many.len())),
    }
}
