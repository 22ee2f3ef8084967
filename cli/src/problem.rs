//! The random data of a case, and its result by the shortest way there is.

use crate::case::{Case, Format, Place, Step, Values, WType, XType, YType};
use crate::error::Result;
use crate::weights::{Scales, Stored, Weights};
use siskin::linear::{
    Activation, ByteTable, Epilogue, Input, Linear, OnTheFly, Output, PackedActivations, PanelLayout,
    Residual, Weight, gelu_table, gelu_tanh_table, silu_table,
};
use siskin::quant::{QuantParams, QuantType};
use siskin::sparse::Bsr;
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// 0 to below 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// x or a residual.
#[derive(Debug)]
pub enum Matrix {
    U8(Vec<u8>, QuantParams),
    I8(Vec<i8>, QuantParams),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Matrix {
    fn random(len: usize, dtype: XType, scale: f32, rng: &mut Rng) -> Result<Self> {
        let zero = rng.below(256) as i32;
        let mut float = || 256.0 * scale * (rng.unit() + rng.unit() - 0.9);
        Ok(match dtype {
            XType::F32 => Matrix::F32((0..len).map(|_| float()).collect()),
            XType::Bf16 => Matrix::Bf16((0..len).map(|_| bf16::from_f32(float())).collect()),
            XType::F16 => Matrix::F16((0..len).map(|_| f16::from_f32(float())).collect()),
            XType::U8 => {
                Matrix::U8((0..len).map(|_| rng.next() as u8).collect(), QuantParams::u8(scale, zero)?)
            }
            XType::I8 => {
                Matrix::I8((0..len).map(|_| rng.next() as i8).collect(), QuantParams::i8(scale, zero - 128)?)
            }
        })
    }

    pub fn rows(&self, rows: &[usize], cols: usize) -> Self {
        fn some<T: Copy>(data: &[T], rows: &[usize], cols: usize) -> Vec<T> {
            rows.iter().flat_map(|r| &data[r * cols..][..cols]).copied().collect()
        }
        match self {
            Matrix::U8(d, p) => Matrix::U8(some(d, rows, cols), *p),
            Matrix::I8(d, p) => Matrix::I8(some(d, rows, cols), *p),
            Matrix::F32(d) => Matrix::F32(some(d, rows, cols)),
            Matrix::Bf16(d) => Matrix::Bf16(some(d, rows, cols)),
            Matrix::F16(d) => Matrix::F16(some(d, rows, cols)),
        }
    }

    pub fn input(&self, rows: usize, cols: usize, how: OnTheFly) -> Result<Input<'_>> {
        Ok(match self {
            Matrix::U8(d, p) => Input::U8(MatRef::new(d, rows, cols)?, *p),
            Matrix::I8(d, p) => Input::I8(MatRef::new(d, rows, cols)?, *p),
            Matrix::F32(d) => Input::F32(MatRef::new(d, rows, cols)?, how),
            Matrix::Bf16(d) => Input::Bf16(MatRef::new(d, rows, cols)?, how),
            Matrix::F16(d) => Input::F16(MatRef::new(d, rows, cols)?, how),
        })
    }

    fn residual(&self, rows: usize, cols: usize) -> Result<Residual<'_>> {
        Ok(match self {
            Matrix::U8(d, p) => Residual::U8(MatRef::new(d, rows, cols)?, *p),
            Matrix::I8(d, p) => Residual::I8(MatRef::new(d, rows, cols)?, *p),
            Matrix::F32(d) => Residual::F32(MatRef::new(d, rows, cols)?),
            Matrix::Bf16(d) => Residual::Bf16(MatRef::new(d, rows, cols)?),
            Matrix::F16(d) => Residual::F16(MatRef::new(d, rows, cols)?),
        })
    }

    /// A row as whole numbers from the zero point.
    pub fn integers(&self, row: usize, cols: usize) -> Result<Vec<i64>> {
        let at = row * cols..(row + 1) * cols;
        let floats = |row: Vec<f32>| -> Result<Vec<i64>> {
            let (min, max) = row.iter().fold((0.0f32, 0.0f32), |(a, b), &v| (a.min(v), b.max(v)));
            let p = QuantParams::from_range_asymmetric(min, max, QuantType::U8)?;
            Ok(row.iter().map(|&v| i64::from(p.quantize(v) - p.zero_point())).collect())
        };
        match self {
            Matrix::U8(d, p) => Ok(d[at].iter().map(|&v| i64::from(v) - i64::from(p.zero_point())).collect()),
            Matrix::I8(d, p) => Ok(d[at].iter().map(|&v| i64::from(v) - i64::from(p.zero_point())).collect()),
            Matrix::F32(d) => floats(d[at].to_vec()),
            Matrix::Bf16(d) => floats(d[at].iter().map(|v| v.to_f32()).collect()),
            Matrix::F16(d) => floats(d[at].iter().map(|v| v.to_f32()).collect()),
        }
    }

    /// All of it; whole numbers for bytes.
    pub fn floats(&self) -> Vec<f32> {
        match self {
            Matrix::U8(d, _) => d.iter().map(|&v| v.into()).collect(),
            Matrix::I8(d, _) => d.iter().map(|&v| v.into()).collect(),
            Matrix::F32(d) => d.clone(),
            Matrix::Bf16(d) => d.iter().map(|v| v.to_f32()).collect(),
            Matrix::F16(d) => d.iter().map(|v| v.to_f32()).collect(),
        }
    }
}

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

/// What comes out.
pub enum Y {
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    Packed(PackedActivations),
}

impl Y {
    pub fn new(dtype: YType, len: usize) -> Self {
        match dtype {
            YType::I32 => Y::I32(vec![0; len]),
            YType::F32 => Y::F32(vec![0.0; len]),
            YType::Bf16 => Y::Bf16(vec![bf16::ZERO; len]),
            YType::F16 => Y::F16(vec![f16::ZERO; len]),
            YType::U8 => Y::U8(vec![0; len]),
            YType::I8 => Y::I8(vec![0; len]),
        }
    }

    /// Some of its `m` rows of `n`, exact; bytes as unsigned ones, which is what packed ones are.
    pub fn values(&self, rows: &[usize], (m, n): (usize, usize), ctx: &Ctx) -> Result<Vec<f64>> {
        fn some<T: Copy>(y: &[T], rows: &[usize], n: usize, f: impl Fn(T) -> f64) -> Vec<f64> {
            rows.iter().flat_map(|r| &y[r * n..][..n]).map(|&v| f(v)).collect()
        }
        Ok(match self {
            Y::I32(y) => some(y, rows, n, f64::from),
            Y::F32(y) => some(y, rows, n, f64::from),
            Y::Bf16(y) => some(y, rows, n, f64::from),
            Y::F16(y) => some(y, rows, n, f64::from),
            Y::U8(y) => some(y, rows, n, f64::from),
            Y::I8(y) => some(y, rows, n, |v| f64::from(v as u8 ^ 0x80)),
            Y::Packed(y) if y.layout().is_float() => {
                let mut floats = vec![0.0; m * n];
                y.unpack_f32(MatMut::new(&mut floats, m, n)?)?;
                some(&floats, rows, n, f64::from)
            }
            Y::Packed(y) => {
                let mut bytes = vec![0; m * n];
                y.unpack(MatMut::new(&mut bytes, m, n)?, ctx)?;
                some(&bytes, rows, n, f64::from)
            }
        })
    }
}

/// A case with its data, for any tier.
pub struct Problem {
    pub n: usize,
    pub k: usize,
    pub y: YType,
    pub out: Place,
    pub block: Format,
    pub in_floats: bool,
    pub weight_only: bool,
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
            block: case.block,
            in_floats: case.in_floats(),
            weight_only: case.weight_only,
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
        };
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
            let dtype = match case.y() {
                YType::I8 => XType::I8,
                YType::F32 => XType::F32,
                YType::Bf16 => XType::Bf16,
                YType::F16 => XType::F16,
                YType::U8 | YType::I32 => XType::U8,
            };
            let residual = Matrix::random(self.tokens.m * self.n, dtype, deviation / 128.0, rng)?;
            self.tokens.residual = Some(residual);
        }
        let dtype = if case.y() == YType::I8 { QuantType::I8 } else { QuantType::U8 };
        let before = self.sample(ctx)?;
        let (mean, deviation) = moments(&before);
        self.clamp = (mean - deviation, mean + deviation);
        self.step = match case.activation() {
            Some(Step::GeluTable) => Some(Step::Gelu),
            Some(Step::GeluTanhTable) => Some(Step::GeluTanh),
            Some(Step::SiluTable) => Some(Step::Silu),
            other => other,
        };
        self.params = span(&self.sample(ctx)?, dtype)?;
        let before = span(&before, dtype)?;
        self.step = case.activation();
        self.table = match case.activation() {
            Some(Step::GeluTable) => Some(gelu_table(before, self.params)),
            Some(Step::GeluTanhTable) => Some(gelu_tanh_table(before, self.params)),
            Some(Step::SiluTable) => Some(silu_table(before, self.params)),
            _ => None,
        };
        Ok(())
    }

    /// Real outputs of some tokens, as things stand.
    fn sample(&self, ctx: &Ctx) -> Result<Vec<f32>> {
        let layer = self.layer(ctx)?;
        let some = self.some_tokens(&spread(self.tokens.m, 16));
        let mut y = Y::new(YType::F32, some.m * self.n);
        self.forward(&layer, &some, None, &mut y, ctx, &mut Scratch::new())?;
        match y {
            Y::F32(y) => Ok(y),
            _ => Ok(Vec::new()),
        }
    }

    pub fn layer(&self, ctx: &Ctx) -> Result<Linear> {
        let of_i8 = Scales {
            scales: &self.scales,
            zero_points: &self.zero_points,
            weight_only: self.weight_only,
            group_size: self.group_size,
        };
        self.weights.build(&of_i8, &self.bias, ctx)
    }

    pub fn on_the_fly(&self) -> OnTheFly {
        if self.in_floats { OnTheFly::Never } else { OnTheFly::PerToken }
    }

    pub fn some_tokens(&self, rows: &[usize]) -> Tokens {
        Tokens {
            m: rows.len(),
            x: self.tokens.x.rows(rows, self.k),
            residual: self.tokens.residual.as_ref().map(|r| r.rows(rows, self.n)),
        }
    }

    /// What an INT8 layer in the case's blocks reads.
    fn bytes_layout(&self) -> PanelLayout {
        match self.block {
            Format::Dense => PanelLayout::Rows,
            Format::Sparse(block) if block.cols().is_multiple_of(4) => PanelLayout::Quads,
            Format::Sparse(_) => PanelLayout::Lines,
        }
    }

    /// Room for the output of the case.
    pub fn output(&self) -> Y {
        match self.out {
            Place::Tokens => self.row_output(self.tokens.m),
            Place::Packed => Y::Packed(PackedActivations::new()),
        }
    }

    pub fn row_output(&self, m: usize) -> Y {
        Y::new(self.y, m * self.n)
    }

    pub fn pack(
        &self,
        to: &mut PackedActivations,
        layout: PanelLayout,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        Ok(to.pack(&self.tokens.x.input(self.tokens.m, self.k, self.on_the_fly())?, layout, ctx, scratch)?)
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
            Some(packed) => Input::Packed(packed),
            None => tokens.x.input(m, self.k, self.on_the_fly())?,
        };
        let mut epilogue = Epilogue::new().activation(match (self.step, &self.table) {
            (_, Some(table)) if !matches!(y, Y::F32(_)) => Activation::Table(table),
            (Some(Step::Relu), _) => Activation::Relu,
            (Some(Step::Clamp), _) => Activation::Clamp { low: self.clamp.0, high: self.clamp.1 },
            (Some(Step::Gelu), _) => Activation::Gelu,
            (Some(Step::GeluTanh), _) => Activation::GeluTanh,
            (Some(Step::Silu), _) => Activation::Silu,
            _ => Activation::Identity,
        });
        if let Some(residual) = &tokens.residual {
            epilogue = epilogue.residual(residual.residual(m, n)?);
        }
        let y = match y {
            Y::I32(y) => {
                epilogue = Epilogue::new();
                Output::I32(MatMut::new(y, m, n)?)
            }
            Y::F32(y) => Output::F32(MatMut::new(y, m, n)?),
            Y::Bf16(y) => Output::Bf16(MatMut::new(y, m, n)?),
            Y::F16(y) => Output::F16(MatMut::new(y, m, n)?),
            Y::U8(y) => Output::U8(MatMut::new(y, m, n)?, self.params),
            Y::I8(y) => Output::I8(MatMut::new(y, m, n)?, self.params),
            Y::Packed(y) if self.y.is_bytes() => Output::Packed(y, self.params, self.bytes_layout()),
            Y::Packed(y) => Output::PackedFloats(y, layer.input_layout()),
        };
        Ok(layer.forward(x, epilogue, y, ctx, scratch)?)
    }
}

/// Up to `most` numbers below `end`, evenly spread, with the first and the last.
pub fn spread(end: usize, most: usize) -> Vec<usize> {
    let most = most.max(2);
    if end <= most {
        return (0..end).collect();
    }
    (0..most).map(|i| (i as u128 * (end - 1) as u128 / (most - 1) as u128) as usize).collect()
}

/// Mean and standard deviation.
fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

/// Parameters that nearly all of the values fit in.
fn span(values: &[f32], dtype: QuantType) -> Result<QuantParams> {
    let (mean, deviation) = moments(values);
    let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let (low, high) = (min.max(mean - 3.5 * deviation), max.min(mean + 3.5 * deviation));
    Ok(QuantParams::from_range_asymmetric(low.min(high), high.max(low), dtype)?)
}
