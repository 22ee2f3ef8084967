//! From f32 weights to a linear layer of the kernels.

use crate::error::Result;
use crate::names::LinearId;
use crate::options::{Format, Options, Precision};
use crate::source::Source;
use siskin::linear::Linear;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatRef, bf16};
use std::sync::Arc;

/// The weights of a linear layer, on their way to it.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub out_features: usize,
    pub in_features: usize,
    /// `[out_features, in_features]`: those of the model, as long as they are not changed.
    pub weight: Arc<Vec<f32>>,
    pub bias: Arc<Vec<f32>>,
    pub format: Format,
}

impl Weights {
    pub fn new(source: &dyn Source, id: LinearId, options: &Options<'_>) -> Result<Self> {
        let (out_features, in_features) = source.config().linear_shape(id.part);
        let [weight, bias] = source.linear(id)?;
        let format = match options.format_of(id) {
            Format::Auto => find(MatRef::new(&weight, out_features, in_features)?, options.precision),
            given => given,
        };
        Ok(Self { out_features, in_features, weight, bias, format })
    }

    /// Several layers of one input as one.
    pub fn concat(all: &[Weights]) -> Self {
        let together =
            |part: fn(&Weights) -> &[f32]| Arc::new(all.iter().map(part).collect::<Vec<_>>().concat());
        Self {
            out_features: all.iter().map(|part| part.out_features).sum(),
            weight: together(|part| &part.weight),
            bias: together(|part| &part.bias),
            ..all[0]
        }
    }

    /// Each input feature's weights times its factor: for inputs that were divided by it.
    pub fn scale_inputs(&mut self, factors: &[f32]) {
        for row in Arc::make_mut(&mut self.weight).chunks_exact_mut(self.in_features) {
            row.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
        }
    }

    /// Each output feature times its factor.
    pub fn scale_outputs(&mut self, factors: impl Iterator<Item = f32>) {
        let rows = Arc::make_mut(&mut self.weight).chunks_exact_mut(self.in_features);
        for ((row, bias), factor) in rows.zip(Arc::make_mut(&mut self.bias)).zip(factors) {
            row.iter_mut().for_each(|w| *w *= factor);
            *bias *= factor;
        }
    }

    pub fn build(&self, precision: Precision, ctx: &Ctx) -> Result<Linear> {
        let w = MatRef::new(&self.weight, self.out_features, self.in_features)?;
        let bias = &self.bias[..];
        Ok(match (self.format, precision) {
            (Format::Blocks(block), Precision::F32) => {
                Linear::sparse(&Bsr::from_dense(w, block)?).bias(bias).build(ctx)?
            }
            (Format::Blocks(block), Precision::Bf16) => {
                let w = Bsr::from_dense(w, block)?.map(|_, v| bf16::from_f32(v));
                Linear::sparse(&w).bias(bias).build(ctx)?
            }
            (Format::Blocks(block), Precision::Int8 | Precision::Int8Static) => {
                Linear::quantize_sparse(&Bsr::from_dense(w, block)?)?.bias(bias).build(ctx)?
            }
            (_, Precision::F32) => Linear::dense(w).bias(bias).build(ctx)?,
            (_, Precision::Bf16) => {
                let w: Vec<bf16> = self.weight.iter().map(|&v| bf16::from_f32(v)).collect();
                let w = MatRef::new(&w, self.out_features, self.in_features)?;
                Linear::dense(w).bias(bias).build(ctx)?
            }
            (_, Precision::Int8 | Precision::Int8Static) => {
                Linear::quantize_dense(w)?.bias(bias).build(ctx)?
            }
        })
    }
}

/// Shapes of blocks that weights are looked at for, the largest first.
const SHAPES: [(usize, usize); 8] = [(16, 4), (8, 4), (4, 4), (16, 1), (8, 1), (4, 1), (1, 4), (1, 1)];

/// The blocks that weights are computed in: those that hold their zeros, if so few are kept that they are faster than dense ones.
fn find(w: MatRef<'_, f32>, precision: Precision) -> Format {
    let Some((block, stored)) = blocks_of(w) else { return Format::Dense };
    // The library makes such layers of INT8 dense by itself. Those of floats stay as they are: below these densities the
    // kernels of pruned weights are faster.
    let most = match precision {
        Precision::Int8 | Precision::Int8Static => 1.0,
        _ if block.rows().is_multiple_of(4) => 0.75,
        _ => 0.4,
    };
    let pays = stored as f64 <= most * (w.rows() * w.cols()) as f64;
    if pays { Format::Blocks(block) } else { Format::Dense }
}

/// The largest blocks that hold little but what is not 0, and the weights in them; none where hardly anything is 0.
pub(crate) fn blocks_of(w: MatRef<'_, f32>) -> Option<(BlockShape, usize)> {
    let kept = w.iter_rows().flatten().filter(|&&v| v != 0.0).count();
    if kept as f64 > 0.95 * (w.rows() * w.cols()) as f64 {
        return None;
    }
    // A kept block may hold a few zeros.
    let fits = |&(_, stored): &(BlockShape, usize)| stored as f64 <= 1.02 * kept as f64 + 16.0;
    let shapes = SHAPES.iter().filter_map(|&(rows, cols)| BlockShape::new(rows, cols).ok());
    shapes.map(|block| (block, stored(w, block))).find(fits)
}

/// Weights in blocks that hold anything but zeros.
fn stored(w: MatRef<'_, f32>, block: BlockShape) -> usize {
    let (rows, cols) = (block.rows(), block.cols());
    let across = w.cols().div_ceil(cols);
    let mut live = vec![false; across];
    let mut stored = 0;
    for first in (0..w.rows()).step_by(rows) {
        live.fill(false);
        let height = rows.min(w.rows() - first);
        for row in first..first + height {
            for (live, values) in live.iter_mut().zip(w.row(row).chunks(cols)) {
                *live |= values.iter().any(|&v| v != 0.0);
            }
        }
        let widths = live.iter().enumerate().filter(|(_, live)| **live);
        stored += height * widths.map(|(j, _)| cols.min(w.cols() - j * cols)).sum::<usize>();
    }
    stored
}
