//! From weights to a layer.

use super::forward::PADDING;
use super::{InputQuantization, Linear, MAX_FEATURES, MAX_FEATURES_ZERO_POINTS, Packed, PanelLayout, Weight};
use crate::base::core::SparseCost;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::params::{check_scale, symmetric_step};
use crate::base::view::MatRef;
use crate::driver::linear::weights::{Blocks, Dense, GroupScales, Sparse};
use crate::kernels::table::Tier;
use crate::sparse::Bsr;
use std::borrow::Cow;

/// The largest N. A few bytes can stand for a sparse matrix, or one of no columns, of any number of rows.
pub const MAX_OUT_FEATURES: usize = 1 << 24;

/// What a layer is built from: see [`Linear::dense`], [`Linear::sparse`] and their `quantize_` forms.
#[derive(Debug, Clone)]
pub struct LinearBuilder<'a, T: Weight = i8> {
    weights: Weights<'a, T>,
    scales: Cow<'a, [f32]>,
    zero_points: &'a [i32],
    /// Elements of K in a group, and a scale for each output feature and group.
    groups: Option<(usize, Cow<'a, [f32]>)>,
    weight_only: bool,
    bias: &'a [f32],
    input: Option<InputQuantization>,
    keep_sparse: bool,
}

#[derive(Debug, Clone)]
enum Weights<'a, T: Weight> {
    Dense(MatRef<'a, T>),
    OwnDense(Vec<T>, usize, usize),
    Sparse(Cow<'a, Bsr<T>>),
}

impl Linear {
    /// A layer of dense weights `[N, K]`.
    ///
    /// `i8`: weight q stands for `scale * (q - zero_point)`, and scale is 1 until said; x is quantized to 8 bits, unless the
    /// layer is made [`LinearBuilder::weight_only`]. `f32`, `bf16`, `f16`: the layer computes in floats (see
    /// [`crate::linear`]).
    pub fn dense<T: Weight>(w: MatRef<'_, T>) -> LinearBuilder<'_, T> {
        LinearBuilder::new(Weights::Dense(w))
    }

    /// A layer of block-sparse weights `[N, K]`, of the same types; `i8` have no zero points.
    pub fn sparse<T: Weight>(w: &Bsr<T>) -> LinearBuilder<'_, T> {
        LinearBuilder::new(Weights::Sparse(Cow::Borrowed(w)))
    }

    /// A layer of real dense weights, each output feature quantized symmetrically by its own largest magnitude:
    /// `scale[n] = max |w[n]| / 127`.
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite.
    pub fn quantize_dense<'a>(w: MatRef<'_, f32>) -> Result<LinearBuilder<'a>> {
        let (q, scales) = quantize_groups(w, w.cols().max(1))?;
        let mut this = LinearBuilder::new(Weights::OwnDense(q, w.rows(), w.cols()));
        this.scales = Cow::Owned(scales);
        Ok(this)
    }

    /// A [`LinearBuilder::weight_only`] layer of real dense weights, each group of `group_size` input features of an output feature
    /// quantized symmetrically by its own largest magnitude.
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite, or the group size is not a multiple of 4 up to [`MAX_GROUP_SIZE`].
    pub fn quantize_dense_groups<'a>(w: MatRef<'_, f32>, group_size: usize) -> Result<LinearBuilder<'a>> {
        check_group_size(group_size)?;
        let (q, scales) = quantize_groups(w, group_size)?;
        let mut this = LinearBuilder::new(Weights::OwnDense(q, w.rows(), w.cols())).weight_only();
        this.groups = Some((group_size, Cow::Owned(scales)));
        Ok(this)
    }

    /// A layer of real block-sparse weights, quantized as in [`Linear::quantize_dense`].
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite.
    pub fn quantize_sparse<'a>(w: &Bsr<f32>) -> Result<LinearBuilder<'a>> {
        let (q, scales) = quantize_bsr(w, w.cols().max(1))?;
        let mut this = LinearBuilder::new(Weights::Sparse(Cow::Owned(q)));
        this.scales = Cow::Owned(scales);
        Ok(this)
    }

    /// A [`LinearBuilder::weight_only`] layer of real block-sparse weights, quantized as in [`Linear::quantize_dense_groups`].
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite, or the group size is not a multiple of 4 up to [`MAX_GROUP_SIZE`].
    pub fn quantize_sparse_groups<'a>(w: &Bsr<f32>, group_size: usize) -> Result<LinearBuilder<'a>> {
        check_group_size(group_size)?;
        let (q, scales) = quantize_bsr(w, group_size)?;
        let mut this = LinearBuilder::new(Weights::Sparse(Cow::Owned(q))).weight_only();
        this.groups = Some((group_size, Cow::Owned(scales)));
        Ok(this)
    }
}

/// As [`quantize_groups`], of what is stored.
fn quantize_bsr(w: &Bsr<f32>, size: usize) -> Result<(Bsr<i8>, Vec<f32>)> {
    let groups = w.cols().div_ceil(size).max(1);
    let mut most = vec![0.0f32; w.rows() * groups];
    let mut bad = None;
    w.for_each(|row, col, v| {
        if !v.is_finite() {
            bad = Some(v);
        }
        let most = &mut most[row * groups + col / size];
        *most = most.max(v.abs());
    });
    if let Some(v) = bad {
        return Err(Error::value("w", "finite weights", v));
    }
    let scales: Vec<f32> = most.iter().map(|&m| symmetric_step(m)).collect();
    let q = w.map_at(|row, col, v| quantize(v, scales[row * groups + col / size]));
    Ok((q, scales))
}

/// The largest group of input features that have a scale: columns are counted from its first in 16 bits.
pub const MAX_GROUP_SIZE: usize = 1 << 16;

fn check_group_size(size: usize) -> Result<()> {
    if size == 0 || !size.is_multiple_of(4) || size > MAX_GROUP_SIZE {
        return Err(Error::value(
            "group_size",
            format_args!("a multiple of 4, from 4 to {MAX_GROUP_SIZE}"),
            size,
        ));
    }
    Ok(())
}

/// Each group of columns of each row by its own scale: the bytes, and `[rows][groups]` scales.
fn quantize_groups(w: MatRef<'_, f32>, size: usize) -> Result<(Vec<i8>, Vec<f32>)> {
    let mut scales = Vec::with_capacity(w.rows() * w.cols().div_ceil(size));
    let mut q = Vec::with_capacity(w.rows() * w.cols());
    for row in w.iter_rows() {
        if row.is_empty() {
            scales.push(symmetric_step(0.0));
        }
        for group in row.chunks(size) {
            let scale = row_scale(group.iter().copied())?;
            q.extend(group.iter().map(|&v| quantize(v, scale)));
            scales.push(scale);
        }
    }
    Ok((q, scales))
}

fn row_scale(row: impl Iterator<Item = f32>) -> Result<f32> {
    let mut most = 0.0f32;
    for v in row {
        if !v.is_finite() {
            return Err(Error::value("w", "finite weights", v));
        }
        most = most.max(v.abs());
    }
    Ok(symmetric_step(most))
}

/// `round_half_even(v / scale)`, for v of at most 127 steps: where its ulp is 1, adding rounds, and needs no call.
fn quantize(v: f32, scale: f32) -> i8 {
    const WHOLE: f32 = 12_582_912.0;
    ((v / scale + WHOLE) - WHOLE).clamp(-127.0, 127.0) as i8
}

impl<'a> LinearBuilder<'a, i8> {
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

    /// Only the weights are 8-bit numbers: x stays in floats, and the products are summed up in f32. For one or a few tokens,
    /// where reading the weights is what takes the time.
    #[must_use]
    pub fn weight_only(mut self) -> Self {
        self.weight_only = true;
        self
    }

    /// As [`LinearBuilder::weight_only`], each group of `group_size` input features of an output feature having a scale of its own:
    /// `[N, ceil(K / group_size)]`, in place of [`LinearBuilder::scales`]. The sum of each group is scaled, and the groups are
    /// added up in order: one fused multiply-add each.
    #[must_use]
    pub fn group_scales(mut self, group_size: usize, scales: &'a [f32]) -> Self {
        self.groups = Some((group_size, Cow::Borrowed(scales)));
        self.weight_only()
    }
}

impl<'a, T: Weight> LinearBuilder<'a, T> {
    fn new(weights: Weights<'a, T>) -> Self {
        Self {
            weights,
            scales: Cow::Borrowed(&[]),
            zero_points: &[],
            groups: None,
            weight_only: T::ELEMENT.is_float(),
            bias: &[],
            input: None,
            keep_sparse: false,
        }
    }

    /// Added to each output feature.
    #[must_use]
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = bias;
        self
    }

    /// How an x of floats is quantized to bytes; [`InputQuantization::PerToken`] if not said. For layers that compute in bytes.
    #[must_use]
    pub fn input_quantization(mut self, quantization: InputQuantization) -> Self {
        self.input = Some(quantization);
        self
    }

    /// Keeps block-sparse weights of INT8 block-sparse, however few of them are pruned: for measurements, and where a few tokens at a
    /// time are multiplied by weights from memory, of which there are fewer so.
    #[must_use]
    pub fn keep_sparse(mut self) -> Self {
        self.keep_sparse = true;
        self
    }

    /// Packs the weights for the tier of `ctx`.
    ///
    /// Block-sparse weights of INT8 of which too few are pruned to gain by it, on the core of `ctx`, are packed as dense ones (see
    /// [`Linear::dense_below`]). The answer is the same: its sums are exact.
    ///
    /// # Errors
    /// [`Error::Shape`] if scales, zero points or bias have the wrong length, if N is above [`MAX_OUT_FEATURES`], or, where
    /// sums are integers, if K is above [`MAX_FEATURES`] (with zero points [`MAX_FEATURES_ZERO_POINTS`]): they could
    /// overflow. [`Error::Value`] if a scale is not positive and normal, a zero point is outside i8, a bias is NaN or
    /// infinite, or a group size is not a multiple of 4 up to [`MAX_GROUP_SIZE`]. [`Error::Unsupported`] for zero points of sparse
    /// weights (a pruned weight is 0) or of weight-only layers, for both scales and group scales, and for an input quantization of a
    /// layer that computes in floats.
    pub fn build(&self, ctx: &Ctx) -> Result<Linear> {
        self.build_for(Tier::of(ctx.target()), &ctx.core().sparse)
    }

    /// As [`LinearBuilder::build`], on tier i of those that only tests have, for a scalar [`Ctx`].
    #[cfg(feature = "internal")]
    #[doc(hidden)]
    pub fn build_odd(&self, i: usize) -> Result<Linear> {
        self.build_for(crate::kernels::odd::ODD[i], &crate::base::core::Core::ANY.sparse)
    }

    fn build_for(&self, tier: &'static Tier, cost: &SparseCost) -> Result<Linear> {
        let (n, k) = match &self.weights {
            Weights::Dense(w) => (w.rows(), w.cols()),
            Weights::OwnDense(_, n, k) => (*n, *k),
            Weights::Sparse(w) => (w.rows(), w.cols()),
        };
        let is_sparse = matches!(self.weights, Weights::Sparse(_));
        if n > MAX_OUT_FEATURES {
            return Err(Error::shape("weights", format_args!("at most {MAX_OUT_FEATURES} out_features"), n));
        }
        let scale = spread("scales", &self.scales, n, 1.0)?;
        let groups = self.groups(n, k)?;
        for &s in scale.iter().chain(self.groups.iter().flat_map(|g| g.1.iter())) {
            check_scale("scales", s)?;
        }
        let zero_points = spread("zero_points", self.zero_points, n, 0)?;
        if let Some(z) = zero_points.iter().find(|z| !(-128..=127).contains(*z)) {
            return Err(Error::value("zero_points", "-128 to 127", z));
        }
        let zero_points = zero_points.iter().any(|&z| z != 0).then_some(zero_points);
        if zero_points.is_some() && is_sparse {
            return Err(Error::unsupported("zero_points", "none for sparse weights", "some"));
        }
        if zero_points.is_some() && self.weight_only {
            return Err(Error::unsupported("zero_points", "none for weight-only layers", "some"));
        }
        if self.input.is_some() && self.weight_only {
            return Err(Error::unsupported(
                "input_quantization",
                "none for a layer that computes in floats",
                "one",
            ));
        }
        let most = match (self.weight_only, zero_points.is_some()) {
            (true, _) => u32::MAX as usize,
            (false, true) => MAX_FEATURES_ZERO_POINTS,
            (false, false) => MAX_FEATURES,
        };
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
        let mut count = |row: usize, w: T| {
            if !self.weight_only {
                let mut byte = [0; 1];
                w.store(&mut byte, 0);
                let w = i32::from(byte[0] as i8);
                sums[row] += w;
                magnitudes[row] += w.abs();
            }
        };
        let mut dense = |w: MatRef<'_, T>| {
            for (r, row) in w.iter_rows().enumerate() {
                row.iter().for_each(|&v| count(r, v));
            }
            let (kernel, layout) = match (self.weight_only, T::ELEMENT, tier.pairs) {
                (false, ..) => (tier.bytes.dense, PanelLayout::Rows),
                (true, Element::Bf16, Some(pairs)) => (pairs.dense[0], PanelLayout::Bf16Rows),
                (true, stored, _) => (*tier.float.f32.dense_of(stored), PanelLayout::F32Rows),
            };
            (Packed::Dense(Dense::pack(w, kernel, groups.clone()), layout), n * k)
        };
        let mut dense_below = None;
        let (weights, stored) = match &self.weights {
            Weights::Dense(w) => dense(*w),
            Weights::OwnDense(q, n, k) => dense(MatRef::new(q, *n, *k)?),
            Weights::Sparse(w) => {
                w.for_each(|row, _, v| count(row, v));
                let pairs = T::ELEMENT == Element::Bf16 && tier.pairs.is_some();
                let layout = match (self.weight_only, w.block().cols()) {
                    (false, cols) if cols.is_multiple_of(4) => PanelLayout::KMajor4,
                    (false, _) => PanelLayout::KMajor,
                    (true, cols) if pairs && cols.is_multiple_of(2) => PanelLayout::Bf16KMajor2,
                    (true, _) => PanelLayout::F32KMajor,
                };
                let blocks = Blocks {
                    size: (w.rows(), w.cols()),
                    block: (w.block().rows(), w.block().cols()),
                    indptr: w.indptr(),
                    indices: w.indices(),
                    values: w.values(),
                };
                let panels = if layout.is_float() { tier.floats(layout.element()).panels() } else { 1 };
                let mut sparse = Sparse::pack(&blocks, layout, panels, groups)?;
                if tier.bytes.lookup.is_some() {
                    sparse.look_up(k);
                }
                if tier.tall_kernel(layout).is_some() {
                    sparse.pair_groups();
                }
                let of_all = |weights: f64| weights / (n as f64 * k as f64).max(1.0);
                // Cost grows with what is stored: where it reaches that of a dense layer, both are equally fast.
                let relative = if self.weight_only { 0.0 } else { of_all(sparse.cost(cost)) };
                if relative > 0.0 {
                    dense_below = Some((1.0 - of_all(w.stored_values() as f64) / relative).max(0.0));
                }
                if relative <= 1.0 || self.keep_sparse {
                    (Packed::Sparse(Box::new(sparse)), w.stored_values())
                } else {
                    drop(sparse);
                    let packed = Dense::pack(MatRef::new(&w.to_dense()?, n, k)?, tier.bytes.dense, None);
                    (Packed::Dense(packed, PanelLayout::Rows), w.stored_values())
                }
            }
        };
        // Kernels read whole registers of these.
        sums.resize(n + PADDING, 0);
        let zero_points = zero_points.map(|mut z| {
            z.resize(n + PADDING, 0);
            z
        });
        // Nothing times a scale beyond all floats is NaN, not nothing.
        let reach = magnitudes.iter().zip(&scale).map(|(&m, s)| m.max(1) as f32 * 255.0 * s);
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
            dense_below,
            input: self.input.unwrap_or_default(),
        })
    }

    /// The scales by groups of K, checked.
    fn groups(&self, n: usize, k: usize) -> Result<Option<GroupScales>> {
        let Some((size, scales)) = &self.groups else { return Ok(None) };
        check_group_size(*size)?;
        if !self.scales.is_empty() {
            return Err(Error::unsupported("scales", "none beside group scales", "some"));
        }
        let expected = k.div_ceil(*size).max(1).checked_mul(n);
        if expected != Some(scales.len()) {
            return Err(Error::shape(
                "group_scales",
                format_args!("{n} x {} numbers", k.div_ceil(*size).max(1)),
                scales.len(),
            ));
        }
        Ok(Some(GroupScales::new(*size, scales, n)))
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
