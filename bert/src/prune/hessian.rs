//! What is kept of the samples: sums over tokens, multiplied by the kernels of siskin.

use super::{Error, Result};
use nalgebra::{DMatrix, DVector};
use siskin::linear::{Epilogue, Linear};
use siskin::{Ctx, MatMut, MatRef, Scratch};

/// Tokens that are multiplied at once: sums of this many products are of f32, sums of those of f64.
const CHUNK: usize = 1024;

/// Second moments of the inputs of a layer of K input features: of the squared error of its outputs, the Hessian.
#[derive(Debug, Clone)]
pub struct Hessian {
    tokens: usize,
    /// Sum of `xᵀ x`, `[K, K]`.
    products: DMatrix<f64>,
    /// Sum of x, `[K]`.
    sum: DVector<f64>,
}

impl Hessian {
    /// Of no samples yet.
    pub fn new(in_features: usize) -> Self {
        Self {
            tokens: 0,
            products: DMatrix::zeros(in_features, in_features),
            sum: DVector::zeros(in_features),
        }
    }

    /// Adds inputs, `[tokens, K]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if x is not K wide; [`Error::Value`] if it holds a NaN or an infinity. Nothing is added then.
    pub fn add(&mut self, x: MatRef<'_, f32>, ctx: &Ctx) -> Result<()> {
        check("x", x, self.in_features())?;
        let mut multiply = Multiply::default();
        for from in (0..x.rows()).step_by(CHUNK) {
            let xt = Columns::of(x, from);
            multiply.add(&xt, &xt, &mut self.products, ctx)?;
            xt.add_sums(&mut self.sum, |v| v);
        }
        self.tokens += x.rows();
        Ok(())
    }

    /// K.
    pub fn in_features(&self) -> usize {
        self.sum.len()
    }

    /// Samples seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Means of the inputs, `[K]`.
    pub(super) fn mean(&self) -> DVector<f64> {
        &self.sum / self.tokens as f64
    }

    /// Covariances of the inputs, `[K, K]`.
    pub(super) fn covariance(&self) -> DMatrix<f64> {
        let mean = self.mean();
        let mut covariance = &self.products / self.tokens as f64;
        covariance.ger(-1.0, &mean, &mean, 1.0);
        // The two halves are sums in different orders.
        covariance.fill_upper_triangle_with_lower_triangle();
        covariance
    }
}

/// Outputs that a layer of K input and N output features should have for the inputs of a [`Hessian`]: their products with the inputs.
///
/// Where a model is pruned layer by layer, inputs are those of the model pruned so far and wanted outputs those of the whole model, so
/// that each layer corrects errors of those before it.
#[derive(Debug, Clone)]
pub struct Target {
    tokens: usize,
    /// Sum of `yᵀ x`, `[N, K]`.
    products: DMatrix<f64>,
    /// Sum of y, `[N]`.
    sum: DVector<f64>,
    /// Sum of y², `[N]`.
    squares: DVector<f64>,
}

impl Target {
    /// Of no samples yet.
    pub fn new(out_features: usize, in_features: usize) -> Self {
        Self {
            tokens: 0,
            products: DMatrix::zeros(out_features, in_features),
            sum: DVector::zeros(out_features),
            squares: DVector::zeros(out_features),
        }
    }

    /// Adds inputs, `[tokens, K]`, with the outputs that are wanted for them, `[tokens, N]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a width is another or tokens differ; [`Error::Value`] for a NaN or an infinity. Nothing is added then.
    pub fn add(&mut self, x: MatRef<'_, f32>, y: MatRef<'_, f32>, ctx: &Ctx) -> Result<()> {
        check("x", x, self.in_features())?;
        check("y", y, self.out_features())?;
        if x.rows() != y.rows() {
            return Err(Error::shape("y", format_args!("the {} tokens of x", x.rows()), y.rows()));
        }
        let mut multiply = Multiply::default();
        for from in (0..x.rows()).step_by(CHUNK) {
            let (xt, yt) = (Columns::of(x, from), Columns::of(y, from));
            multiply.add(&yt, &xt, &mut self.products, ctx)?;
            yt.add_sums(&mut self.sum, |v| v);
            yt.add_sums(&mut self.squares, |v| v * v);
        }
        self.tokens += x.rows();
        Ok(())
    }

    /// K.
    pub fn in_features(&self) -> usize {
        self.products.ncols()
    }

    /// N.
    pub fn out_features(&self) -> usize {
        self.products.nrows()
    }

    /// Samples seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Means of the outputs, `[N]`.
    pub(super) fn mean(&self) -> DVector<f64> {
        &self.sum / self.tokens as f64
    }

    /// Covariances of outputs with inputs, `[N, K]`, the inputs having means `mean`.
    pub(super) fn covariance(&self, mean: &DVector<f64>) -> DMatrix<f64> {
        let mut covariance = &self.products / self.tokens as f64;
        covariance.ger(-1.0, &self.mean(), mean, 1.0);
        covariance
    }

    /// Variances of the outputs, `[N]`.
    pub(super) fn variance(&self) -> DVector<f64> {
        let n = self.tokens as f64;
        self.squares.zip_map(&self.sum, |square, sum| (square / n - (sum / n).powi(2)).max(0.0))
    }
}

fn check(argument: &'static str, x: MatRef<'_, f32>, width: usize) -> Result<()> {
    if x.cols() != width {
        return Err(Error::shape(argument, format_args!("{width} columns"), x.cols()));
    }
    for (token, row) in x.iter_rows().enumerate() {
        if let Some(i) = row.iter().position(|v| !v.is_finite()) {
            let got = format_args!("{} of token {token}, feature {i}", row[i]).to_string();
            return Err(Error::value(argument, "finite numbers", got));
        }
    }
    Ok(())
}

/// A chunk of tokens, turned: `[features, tokens]`, as the kernels want both factors of a product over tokens.
struct Columns {
    values: Vec<f32>,
    features: usize,
    tokens: usize,
}

impl Columns {
    fn of(x: MatRef<'_, f32>, from: usize) -> Self {
        let (features, tokens) = (x.cols(), CHUNK.min(x.rows() - from));
        let mut values = vec![0.0; features * tokens];
        for t in 0..tokens {
            for (i, &v) in x.row(from + t).iter().enumerate() {
                values[i * tokens + t] = v;
            }
        }
        Self { values, features, tokens }
    }

    fn view(&self) -> siskin::Result<MatRef<'_, f32>> {
        MatRef::new(&self.values, self.features, self.tokens)
    }

    fn add_sums(&self, to: &mut DVector<f64>, f: impl Fn(f64) -> f64) {
        for (to, values) in to.iter_mut().zip(self.values.chunks(self.tokens)) {
            *to += values.iter().map(|&v| f(f64::from(v))).sum::<f64>();
        }
    }
}

#[derive(Default)]
struct Multiply {
    product: Vec<f32>,
    scratch: Scratch,
}

impl Multiply {
    /// Adds `a bᵀ`, `[features of a, features of b]`.
    fn add(&mut self, a: &Columns, b: &Columns, to: &mut DMatrix<f64>, ctx: &Ctx) -> Result<()> {
        let (rows, cols) = (a.features, b.features);
        self.product.resize(rows * cols, 0.0);
        let layer = Linear::dense(b.view()?).build(ctx)?;
        let product = MatMut::new(&mut self.product, rows, cols)?;
        layer.forward(a.view()?, Epilogue::new(), product, ctx, &mut self.scratch)?;
        for (j, mut column) in to.column_iter_mut().enumerate() {
            for (to, row) in column.iter_mut().zip(self.product.chunks(cols)) {
                *to += f64::from(row[j]);
            }
        }
        Ok(())
    }
}
