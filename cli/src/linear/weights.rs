//! Weights of any type, dense or block-sparse, and the layers of them.

use super::case::WType;
use crate::base::error::Result;
use siskin::linear::{InputQuantization, Linear, LinearBuilder, Weight};
use siskin::sparse::Bsr;
use siskin::{Ctx, MatRef, bf16, f16};

/// Weights `[n, k]` of one type.
pub enum Stored<T: Weight> {
    Dense(Vec<T>, usize, usize),
    Sparse(Bsr<T>),
}

impl<T: Weight + Into<f32>> Stored<T> {
    pub fn builder(&self) -> Result<LinearBuilder<'_, T>> {
        Ok(match self {
            Stored::Dense(w, n, k) => Linear::dense(MatRef::new(w, *n, *k)?),
            Stored::Sparse(w) => Linear::sparse(w),
        })
    }

    fn map<U: Weight>(&self, f: impl Fn(f32) -> U) -> Stored<U> {
        match self {
            Stored::Dense(w, n, k) => Stored::Dense(w.iter().map(|&v| f(v.into())).collect(), *n, *k),
            Stored::Sparse(w) => Stored::Sparse(w.map(|_, v| f(v.into()))),
        }
    }

    /// As [`Weights::rows_of`]. What is not stored is 0, and has no zero point; what is stored is looked at once.
    fn rows_of(&self, n: usize, zero: impl Fn(usize) -> f32) -> Vec<bool> {
        match self {
            Stored::Dense(w, _, k) => {
                (0..n).map(|row| w[row * k..][..*k].iter().all(|&w| w.into() == zero(row))).collect()
            }
            Stored::Sparse(w) => {
                let block = w.block();
                let mut rows = vec![true; n];
                for (i, rows) in rows.chunks_mut(block.rows()).enumerate() {
                    for values in w.block_row(i).1.chunks(block.area()) {
                        for (row, values) in rows.iter_mut().zip(values.chunks(block.cols())) {
                            *row &= values.iter().all(|&w| w.into() == 0.0);
                        }
                    }
                }
                rows
            }
        }
    }

    /// Row `n`, with the zeros.
    fn row(&self, n: usize) -> Vec<f32> {
        match self {
            Stored::Dense(w, _, k) => w[n * k..][..*k].iter().map(|&w| w.into()).collect(),
            Stored::Sparse(w) => {
                let mut row = vec![0.0; w.cols()];
                let block = w.block();
                let (indices, values) = w.block_row(n / block.rows());
                for (&j, values) in indices.iter().zip(values.chunks(block.area())) {
                    let values = &values[n % block.rows() * block.cols()..][..block.cols()];
                    for (to, &w) in row[j as usize * block.cols()..].iter_mut().zip(values) {
                        *to = w.into();
                    }
                }
                row
            }
        }
    }
}

/// Weights of some type.
pub enum Weights {
    I8(Stored<i8>),
    F32(Stored<f32>),
    Bf16(Stored<bf16>),
    F16(Stored<f16>),
}

/// What i8 weights stand for, and whether they are all that is quantized.
#[derive(Default)]
pub struct Scales<'a> {
    /// By output feature, or by output feature and group.
    pub scales: &'a [f32],
    pub zero_points: &'a [i32],
    pub weight_only: bool,
    pub keep_sparse: bool,
    /// 0: no groups.
    pub group_size: usize,
    /// How a layer of bytes quantizes an x of floats, where not token by token.
    pub input: Option<InputQuantization>,
}

impl Weights {
    /// Floats in a type: `None` for i8, which takes more than a type to say.
    pub fn of_floats(w: Stored<f32>, dtype: WType) -> Option<Self> {
        match dtype {
            WType::I8 => None,
            WType::F32 => Some(Weights::F32(w)),
            WType::Bf16 => Some(Weights::Bf16(w.map(bf16::from_f32))),
            WType::F16 => Some(Weights::F16(w.map(f16::from_f32))),
        }
    }

    pub fn build(&self, of_i8: &Scales<'_>, bias: &[f32], ctx: &Ctx) -> Result<Linear> {
        Ok(match self {
            Weights::I8(w) => {
                let mut builder = w.builder()?.zero_points(of_i8.zero_points);
                if of_i8.keep_sparse {
                    builder = builder.keep_sparse();
                }
                if let Some(input) = of_i8.input {
                    builder = builder.input_quantization(input);
                }
                match of_i8 {
                    Scales { scales, group_size: 0, weight_only: false, .. } => builder.scales(scales),
                    Scales { scales, group_size: 0, .. } => builder.scales(scales).weight_only(),
                    Scales { scales, group_size, .. } => builder.group_scales(*group_size, scales),
                }
                .bias(bias)
                .build(ctx)?
            }
            Weights::F32(w) => w.builder()?.bias(bias).build(ctx)?,
            Weights::Bf16(w) => w.builder()?.bias(bias).build(ctx)?,
            Weights::F16(w) => w.builder()?.bias(bias).build(ctx)?,
        })
    }

    /// Row `n` as stored, with the zeros.
    pub fn row(&self, n: usize) -> Vec<f32> {
        match self {
            Weights::I8(w) => w.row(n),
            Weights::F32(w) => w.row(n),
            Weights::Bf16(w) => w.row(n),
            Weights::F16(w) => w.row(n),
        }
    }

    /// Of each of the first `n` rows, whether all of its weights are the row's `zero`.
    pub fn rows_of(&self, n: usize, zero: impl Fn(usize) -> f32) -> Vec<bool> {
        match self {
            Weights::I8(w) => w.rows_of(n, zero),
            Weights::F32(w) => w.rows_of(n, zero),
            Weights::Bf16(w) => w.rows_of(n, zero),
            Weights::F16(w) => w.rows_of(n, zero),
        }
    }

    /// The magnitudes.
    pub fn abs(&self) -> Stored<f32> {
        match self {
            Weights::I8(w) => w.map(f32::abs),
            Weights::F32(w) => w.map(f32::abs),
            Weights::Bf16(w) => w.map(f32::abs),
            Weights::F16(w) => w.map(f32::abs),
        }
    }
}
