//! How far a tensor reaches: the outlier metrics of Quantizable Transformers (section 5), as its authors measure them.

use crate::base::error::{Error, Result};
use crate::base::view::MatRef;

/// The kurtosis of a row, `mean((x - mean)^4) / (std^4 + 1e-6)`, std being that of a sample (`n - 1`): 3 for a normal
/// distribution, n for a single outlier. In f64.
///
/// The 1e-6 is the authors', and absolute: where std is well below 0.03 the result says nothing, and a constant row has
/// 0. NaN for less than two numbers, and if one is NaN or infinite.
pub fn kurtosis(row: &[f32]) -> f64 {
    let n = row.len() as f64;
    let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let (mut second, mut fourth) = (0.0, 0.0);
    for &v in row {
        let square = (f64::from(v) - mean).powi(2);
        second += square;
        fourth += square * square;
    }
    if row.len() < 2 {
        return f64::NAN;
    }
    let variance = second / (n - 1.0);
    fourth / n / (variance * variance + 1e-6)
}

/// The largest magnitude of a row: 0 if it is empty, NaN if one of its numbers is.
pub fn infinity_norm(row: &[f32]) -> f32 {
    // A plain maximum would lose a NaN.
    row.iter().map(|v| v.abs()).fold(0.0, |most, v| if v > most || v.is_nan() { v } else { most })
}

/// The outlier metrics of one tensor of a model (the output of a layer, say), over all batches: the means of its rows'
/// [`kurtosis`] and [`infinity_norm`].
///
/// *What a row is* decides what comes out. To the authors it is what the first dimension of the tensor counts: mostly a sample,
/// flattened, `[batch, tokens * features]`, padding included. But in their OPT the tensors of `fc2` and of each layer's
/// `final_layer_norm` are flattened already, and there a row is a token, `[batch * tokens, features]`. Numbers of the two
/// kinds do not compare.
///
/// ```
/// use siskin::MatRef;
/// use siskin::quant::{OutlierMetrics, OutlierSummary};
///
/// let x = [1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 8.0]; // two samples
/// let mut tensor = OutlierMetrics::new();
/// tensor.observe(MatRef::new(&x, 2, 4)?)?;
/// assert_eq!(tensor.infinity_norm(), Some(4.5));
/// let model = OutlierSummary::new(&[tensor]);
/// assert_eq!(model.max_infinity_norm, Some(4.5));
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OutlierMetrics {
    kurtosis: Mean,
    infinity_norm: Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Mean {
    sum: f64,
    rows: u64,
}

impl Mean {
    fn add(&mut self, v: f64) {
        self.sum += v;
        self.rows += 1;
    }

    fn get(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.sum / self.rows as f64)
    }
}

impl OutlierMetrics {
    /// Has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sees the rows of one batch.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows have less than two columns. A NaN is no error: it makes the means NaN.
    pub fn observe(&mut self, batch: MatRef<'_, f32>) -> Result<()> {
        check(batch, 2)?;
        for row in batch.iter_rows() {
            self.kurtosis.add(kurtosis(row));
            self.infinity_norm.add(infinity_norm(row).into());
        }
        Ok(())
    }

    /// As [`OutlierMetrics::observe`], of the infinity norm only: the authors take the kurtosis of the first batches alone (256
    /// for BERT, 100 for OPT), and of the input of a layer norm none.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows have no column.
    pub fn observe_infinity_norm(&mut self, batch: MatRef<'_, f32>) -> Result<()> {
        check(batch, 1)?;
        batch.iter_rows().for_each(|row| self.infinity_norm.add(infinity_norm(row).into()));
        Ok(())
    }

    /// The mean of the rows' kurtosis, if one was taken.
    pub fn kurtosis(&self) -> Option<f64> {
        self.kurtosis.get()
    }

    /// The mean of the rows' infinity norm, if one was taken.
    pub fn infinity_norm(&self) -> Option<f64> {
        self.infinity_norm.get()
    }
}

fn check(batch: MatRef<'_, f32>, columns: usize) -> Result<()> {
    if batch.cols() >= columns || batch.rows() == 0 {
        return Ok(());
    }
    Err(Error::shape("batch", format_args!("rows of {columns} columns at least"), batch.cols()))
}

/// The outlier metrics of a model: those of its tensors, together, as the paper's tables have them. A tensor that has
/// no number of a kind is left out there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OutlierSummary {
    /// The largest of the tensors' infinity norms ("max inf. norm"); NaN if one is.
    pub max_infinity_norm: Option<f64>,
    /// The mean of the tensors' kurtosis ("avg. kurtosis").
    pub average_kurtosis: Option<f64>,
    /// The largest of them; NaN if one is.
    pub max_kurtosis: Option<f64>,
}

impl OutlierSummary {
    /// Of the tensors of a model.
    pub fn new(tensors: &[OutlierMetrics]) -> Self {
        let mut average = Mean::default();
        let (mut max_norm, mut max_kurtosis) = (None, None);
        for tensor in tensors {
            max_norm = larger(max_norm, tensor.infinity_norm());
            max_kurtosis = larger(max_kurtosis, tensor.kurtosis());
            tensor.kurtosis().into_iter().for_each(|k| average.add(k));
        }
        Self { max_infinity_norm: max_norm, average_kurtosis: average.get(), max_kurtosis }
    }
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a > b || a.is_nan() { a } else { b }),
        (a, b) => a.or(b),
    }
}
