//! The random data of a case of a linear layer, and its result by the shortest way there is.

use super::case::{Case, Format, Place, Step, Values, WType};
use super::matrix::{Matrix, Rows, Y};
use super::weights::{Scales, Stored, Weights};
use crate::base::data::Data;
use crate::base::error::Result;
use crate::base::random::{Rng, spread};
use crate::base::types::{XType, YType};
use siskin::Element;
use siskin::linear::{
    Activation, ByteTable, Epilogue, Linear, LinearInput, LinearOutput, PackedActivations, Weight,
};
use siskin::quant::QuantParams;
use siskin::sparse::Bsr;
use siskin::{Ctx, MatRef, Scratch};

/// Random weights for the case's block and sparsity.
fn random_weights<T: Weight>(case: &Case, rng: &mut Rng, value: impl Fn(&mut Rng) -> T) -> Result<Stored<T>> {
    let Format::Sparse(block) = case.block else {
        return Ok(Stored::Dense((0..case.n * case.k).map(|_| value(rng)).collect(), case.n, case.k));
    };
    let (rows, cols) = (case.n.div_ceil(block.rows()), case.k.div_ceil(block.cols()));
    let total = rows * cols;
    let mut kept = (total as f64 * (1.0 - case.sparsity)).round() as usize;
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for row in 0..rows {
        for col in 0..cols {
            // Every choice of `kept` blocks is equally likely.
            if rng.below(total - row * cols - col) >= kept {
                continue;
            }
            kept -= 1;
            indices.push(col as u32);
            for i in 0..block.area() {
                let inside = row * block.rows() + i / block.cols() < case.n
                    && col * block.cols() + i % block.cols() < case.k;
                values.push(if inside { value(rng) } else { T::default() });
            }
        }
        indptr.push(indices.len());
    }
    Ok(Stored::Sparse(Bsr::from_parts((case.n, case.k), block, indptr, indices, values)?))
}

fn weights(case: &Case, rng: &mut Rng) -> Result<Weights> {
    if case.w != WType::I8 {
        let w = random_weights(case, rng, |rng| 0.1 * (rng.unit() + rng.unit() - 1.0))?;
        if let Some(w) = Weights::of_floats(w, case.w) {
            return Ok(w);
        }
    }
    Ok(Weights::I8(random_weights(case, rng, |rng| rng.next() as i8)?))
}

/// Some tokens with their residual.
pub struct Tokens {
    pub m: usize,
    pub x: Matrix,
    pub residual: Option<Matrix>,
}

/// A case with its data, for any tier.
pub struct Problem {
    pub n: usize,
    pub k: usize,
    pub y: YType,
    pub out: Place,
    pub in_floats: bool,
    pub weight_only: bool,
    pub keep_sparse: bool,
    pub group_size: usize,
    pub weights: Weights,
    pub scales: Vec<f32>,
    pub zero_points: Vec<i32>,
    pub bias: Vec<f32>,
    pub tokens: Tokens,
    pub step: Option<Step>,
    pub clamp: (f32, f32),
    pub params: QuantParams,
    pub table: Option<ByteTable>,
    /// The layer that packed bytes of a layer of floats are for: a layer of bytes in the case's blocks.
    next: Option<Linear>,
}

impl Problem {
    /// Random data for a case that was checked. `ctx` only finds out what range the outputs have.
    pub fn new(case: &Case, ctx: &Ctx) -> Result<Self> {
        let mut rng = Rng(case.seed);
        let (m, n, k) = (case.m, case.n, case.k);
        let weights = weights(case, &mut rng)?;
        let groups = if case.group_size == 0 { 1 } else { k.div_ceil(case.group_size) };
        let zero_points = match case.weights {
            Values::Random => Vec::new(),
            Values::ZeroPoints => (0..n).map(|_| rng.below(256) as i32 - 128).collect(),
        };
        let mut this = Self {
            n,
            k,
            y: case.y(),
            out: case.out,
            in_floats: case.in_floats(),
            weight_only: case.weight_only,
            keep_sparse: case.keep_sparse,
            group_size: case.group_size,
            weights,
            scales: (0..n * groups).map(|_| 0.001 * (0.5 + rng.unit())).collect(),
            zero_points,
            bias: Vec::new(),
            tokens: Tokens { m, x: Matrix::random(m * k, case.x(), 0.02, &mut rng)?, residual: None },
            step: None,
            clamp: (0.0, 0.0),
            params: QuantParams::u8(1.0, 0)?,
            table: None,
            next: None,
        };
        if case.in_floats() && case.y().is_bytes() && case.out == Place::Packed {
            this.next = Some(layer_of_bytes(case.block, ctx)?);
        }
        if case.y() != YType::I32 {
            this.finish(case, ctx, &mut rng)?;
        }
        Ok(this)
    }

    /// Bias, residual and output parameters, each fitting the spread of what comes before it.
    fn finish(&mut self, case: &Case, ctx: &Ctx, rng: &mut Rng) -> Result<()> {
        let (_, deviation) = moments(&self.sample(ctx)?);
        let deviation = deviation.max(1e-3);
        if case.has(Step::Bias) {
            self.bias = (0..self.n).map(|_| deviation * (rng.unit() - 0.5)).collect();
        }
        if case.has(Step::Residual) {
            let dtype = case.y().element().unwrap_or(XType::U8);
            let residual = Matrix::random(self.tokens.m * self.n, dtype, deviation / 128.0, rng)?;
            self.tokens.residual = Some(residual);
        }
        let dtype = if case.y() == YType::I8 { Element::I8 } else { Element::U8 };
        let before = self.sample(ctx)?;
        let (mean, deviation) = moments(&before);
        self.clamp = (mean - deviation, mean + deviation);
        self.step = case.activation().map(Step::untabled);
        self.params = span(&self.sample(ctx)?, dtype)?;
        let before = span(&before, dtype)?;
        self.step = case.activation();
        self.table = self.step.and_then(Step::table).map(|make| make(before, self.params));
        Ok(())
    }

    /// Real outputs of some tokens, as things stand.
    fn sample(&self, ctx: &Ctx) -> Result<Vec<f32>> {
        let layer = self.layer(ctx)?;
        let some = self.some_tokens(&spread(self.tokens.m, 16));
        let mut y = Y::Rows(Rows::new(YType::F32, some.m * self.n));
        self.forward(&layer, &some, None, &mut y, ctx, &mut Scratch::new())?;
        match y {
            Y::Rows(Rows::Elements(y)) => Ok(y.floats()),
            _ => Ok(Vec::new()),
        }
    }

    pub fn layer(&self, ctx: &Ctx) -> Result<Linear> {
        let of_i8 = Scales {
            scales: &self.scales,
            zero_points: &self.zero_points,
            weight_only: self.weight_only,
            keep_sparse: self.keep_sparse,
            group_size: self.group_size,
            input: None,
        };
        self.weights.build(&of_i8, &self.bias, ctx)
    }

    pub fn some_tokens(&self, rows: &[usize]) -> Tokens {
        Tokens {
            m: rows.len(),
            x: self.tokens.x.rows(rows, self.k),
            residual: self.tokens.residual.as_ref().map(|r| r.rows(rows, self.n)),
        }
    }

    /// Room for the output of the case.
    pub fn output(&self) -> Y {
        match self.out {
            Place::Tokens => Y::Rows(Rows::new(self.y, self.tokens.m * self.n)),
            Place::Packed => Y::Packed(PackedActivations::new()),
        }
    }

    /// x packed as the layer reads it.
    pub fn pack(
        &self,
        layer: &Linear,
        to: &mut PackedActivations,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        Ok(layer.pack(self.tokens.x.tensor(self.tokens.m, self.k)?, to, ctx, scratch)?)
    }

    /// The call. `packed` stands for the tokens' x where it is given.
    pub fn forward(
        &self,
        layer: &Linear,
        tokens: &Tokens,
        packed: Option<&PackedActivations>,
        y: &mut Y,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (m, n) = (tokens.m, self.n);
        let x = match packed {
            Some(packed) => LinearInput::from(packed),
            None => tokens.x.tensor(m, self.k)?.into(),
        };
        let in_f32 = matches!(y, Y::Rows(Rows::Elements(Data::F32(_))));
        let activation = match &self.table {
            Some(table) if !in_f32 => Activation::Table(table),
            _ => Step::library(self.step, self.clamp),
        };
        let mut epilogue = Epilogue::new().activation(activation);
        if let Some(residual) = &tokens.residual {
            epilogue = epilogue.residual(residual.tensor(m, n)?);
        }
        let y = match y {
            Y::Rows(rows) => {
                if matches!(rows, Rows::Sums(_)) {
                    epilogue = Epilogue::new();
                }
                rows.output(m, n, self.params)?.into()
            }
            Y::Packed(y) if self.y.is_bytes() => {
                LinearOutput::packed(y, self.params, self.next.as_ref().unwrap_or(layer))
            }
            Y::Packed(y) => LinearOutput::packed_floats(y, layer),
        };
        Ok(layer.forward(x, epilogue, y, ctx, scratch)?)
    }
}

/// A layer of bytes without features, for the layout that layers in these blocks read.
fn layer_of_bytes(block: Format, ctx: &Ctx) -> Result<Linear> {
    let none = MatRef::<i8>::new(&[], 0, 0)?;
    Ok(match block {
        Format::Dense => Linear::dense(none).build(ctx)?,
        Format::Sparse(block) => Linear::sparse(&Bsr::from_dense(none, block)?).build(ctx)?,
    })
}

/// Mean and standard deviation.
fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

/// Parameters that nearly all of the values fit in.
fn span(values: &[f32], dtype: Element) -> Result<QuantParams> {
    let (mean, deviation) = moments(values);
    let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let (low, high) = (min.max(mean - 3.5 * deviation), max.min(mean + 3.5 * deviation));
    Ok(QuantParams::from_range_asymmetric(low.min(high), high.max(low), dtype)?)
}
