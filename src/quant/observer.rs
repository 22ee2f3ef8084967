//! Observers: from tensors seen to a quantizer. The range estimators of Quantizable Transformers: to the bit with
//! `with_authors_floor` or `with_authors_grid`; without these there is no absolute floor or margin.

use super::{QuantParams, Scheme};
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::params::{Floor, from_range};
use crate::kernels::quantize::{Range, range_body};

/// Sees the tensors of one place in a model, one after the other, and then says how to quantize them.
pub trait Observer {
    /// Sees one tensor, flattened.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is empty, [`Error::Value`] if it holds a NaN or an infinity. Either leaves the
    /// observer as it was.
    fn observe(&mut self, x: &[f32]) -> Result<()>;

    /// The quantizer for what was seen.
    ///
    /// # Errors
    /// [`Error::Value`] if nothing was seen yet, or as [`QuantParams::from_range`].
    fn params(&self) -> Result<QuantParams>;
}

/// The way to the authors' floor, of observers that have a `floor`.
macro_rules! authors_floor {
    () => {
        /// With the floor of the authors of Quantizable Transformers under the range and its step, 1e-8: see
        /// [`QuantParams::from_range_with_authors_floor`]. Without it, ranges of every magnitude are taken alike.
        #[must_use]
        pub fn with_authors_floor(mut self) -> Self {
            self.floor = Floor::Authors;
            self
        }
    };
}

/// The range of the last tensor: for weights, which are seen once.
#[derive(Debug, Clone)]
pub struct MinMax {
    scheme: Scheme,
    floor: Floor,
    range: Option<(f32, f32)>,
}

impl MinMax {
    /// An observer that has seen nothing.
    pub fn new(scheme: Scheme) -> Self {
        Self { scheme, floor: Floor::Normal, range: None }
    }

    authors_floor!();
}

impl Observer for MinMax {
    fn observe(&mut self, x: &[f32]) -> Result<()> {
        self.range = Some(min_max("x", x)?);
        Ok(())
    }

    fn params(&self) -> Result<QuantParams> {
        let (min, max) = seen(self.range)?;
        from_range(min, max, self.scheme, self.floor)
    }
}

/// The percentiles `100 - p` and `p` of the last tensor, interpolated linearly as NumPy's `percentile` does.
#[derive(Debug, Clone)]
pub struct Percentile {
    scheme: Scheme,
    floor: Floor,
    p: f64,
    range: Option<(f64, f64)>,
}

impl Percentile {
    /// An observer that has seen nothing. `p` is in percent, such as 99.999.
    ///
    /// # Errors
    /// [`Error::Value`] if `p` is not in 50 to 100.
    pub fn new(scheme: Scheme, p: f64) -> Result<Self> {
        check_percentile(p)?;
        Ok(Self { scheme, floor: Floor::Normal, p, range: None })
    }

    authors_floor!();
}

impl Observer for Percentile {
    fn observe(&mut self, x: &[f32]) -> Result<()> {
        self.range = Some(percentiles(x, self.p)?);
        Ok(())
    }

    fn params(&self) -> Result<QuantParams> {
        let (min, max) = seen(self.range)?;
        from_range(min, max, self.scheme, self.floor)
    }
}

/// A moving average of the ranges of all tensors, `range = (1 - momentum) * new + momentum * range`: for
/// activations. The first tensor sets it.
#[derive(Debug, Clone)]
pub struct RunningMinMax {
    scheme: Scheme,
    floor: Floor,
    momentum: f64,
    percentile: Option<f64>,
    range: Option<(f64, f64)>,
}

impl RunningMinMax {
    /// An observer that has seen nothing, of momentum 0.9.
    pub fn new(scheme: Scheme) -> Self {
        Self { scheme, floor: Floor::Normal, momentum: 0.9, percentile: None, range: None }
    }

    authors_floor!();

    /// The weight of what was seen before, instead of 0.9.
    ///
    /// # Errors
    /// [`Error::Value`] if `momentum` is not in 0 to below 1.
    pub fn with_momentum(mut self, momentum: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::value("momentum", "0 to below 1", format_args!("{momentum:?}")));
        }
        self.momentum = momentum;
        Ok(self)
    }

    /// Averages the percentiles `100 - p` and `p` of each tensor (see [`Percentile`]) instead of its ends.
    ///
    /// # Errors
    /// [`Error::Value`] if `p` is not in 50 to 100.
    pub fn with_percentile(mut self, p: f64) -> Result<Self> {
        check_percentile(p)?;
        self.percentile = Some(p);
        Ok(self)
    }

    /// One end after one more tensor. The original holds ends in f32 and percentiles in f64.
    fn average(&self, old: f64, new: f64) -> f64 {
        let (m, n) = (self.momentum, 1.0 - self.momentum);
        match self.percentile {
            Some(_) => n * new + m * old,
            None => f64::from(n as f32 * new as f32 + m as f32 * old as f32),
        }
    }
}

impl Observer for RunningMinMax {
    fn observe(&mut self, x: &[f32]) -> Result<()> {
        let new = match self.percentile {
            Some(p) => percentiles(x, p)?,
            None => min_max("x", x).map(|(min, max)| (min.into(), max.into()))?,
        };
        self.range = Some(match self.range {
            None => new,
            Some(old) => (self.average(old.0, new.0), self.average(old.1, new.1)),
        });
        Ok(())
    }

    fn params(&self) -> Result<QuantParams> {
        let (min, max) = seen(self.range)?;
        match self.percentile {
            Some(_) => from_range(min, max, self.scheme, self.floor),
            None => from_range(min as f32, max as f32, self.scheme, self.floor),
        }
    }
}

/// The symmetric range, of 100 candidates, that quantizes what was seen with the least squared error: for weights
/// with outliers.
///
/// Candidate i is `i * m / 100`, where m is the largest absolute value of the first tensor. The error is summed in f64; of equal
/// candidates the smallest wins. [`MseGrid::with_authors_grid`] searches where the authors do.
#[derive(Debug, Clone)]
pub struct MseGrid {
    scheme: Scheme,
    floor: Floor,
    grid: Vec<(QuantParams, f64)>,
}

impl MseGrid {
    const CANDIDATES: usize = 100;
    const AUTHORS_MARGIN: f64 = 0.5;

    /// An observer that has seen nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if `scheme` is asymmetric.
    pub fn new(scheme: Scheme) -> Result<Self> {
        if let Scheme::Asymmetric(_) = scheme {
            return Err(Error::unsupported("scheme", "a symmetric one", format_args!("{scheme:?}")));
        }
        Ok(Self { scheme, floor: Floor::Normal, grid: Vec::new() })
    }

    /// With the candidates of the authors of Quantizable Transformers, `i * (m + 0.5) / 100`, and their floor of 1e-8. The "range
    /// margin" of 0.5 is absolute: it puts most candidates outside weights that are small.
    #[must_use]
    pub fn with_authors_grid(mut self) -> Self {
        self.floor = Floor::Authors;
        self
    }

    fn candidates(&self, min: f32, max: f32) -> Result<Vec<(QuantParams, f64)>> {
        let dtype = match self.scheme {
            Scheme::Asymmetric(dtype) | Scheme::Symmetric(dtype) => dtype,
            Scheme::SymmetricAuto if min < 0.0 => Element::I8,
            Scheme::SymmetricAuto => Element::U8,
        };
        let scheme = Scheme::Symmetric(dtype);
        // A symmetric u8 refuses what is below 0 as any other observer does.
        from_range(min, max, scheme, self.floor)?;
        let margin = if self.floor == Floor::Authors { Self::AUTHORS_MARGIN } else { 0.0 };
        let step = (f64::from(min.abs().max(max.abs())) + margin) / Self::CANDIDATES as f64;
        (1..=Self::CANDIDATES)
            .map(|i| Ok((from_range(0.0, (step * i as f64) as f32, scheme, self.floor)?, 0.0)))
            .collect()
    }
}

impl Observer for MseGrid {
    fn observe(&mut self, x: &[f32]) -> Result<()> {
        let (min, max) = min_max("x", x)?;
        if self.grid.is_empty() {
            self.grid = self.candidates(min, max)?;
        }
        for (params, loss) in &mut self.grid {
            let error = |&x: &f32| f64::from(x) - f64::from(params.dequantize(params.quantize(x)));
            *loss += x.iter().map(error).map(|e| e * e).sum::<f64>();
        }
        Ok(())
    }

    fn params(&self) -> Result<QuantParams> {
        seen(self.grid.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|best| best.0))
    }
}

fn seen<R>(range: Option<R>) -> Result<R> {
    range.ok_or_else(|| Error::value("observer", "one that has seen a tensor", "one that has seen none"))
}

fn check_percentile(p: f64) -> Result<()> {
    if (50.0..=100.0).contains(&p) {
        return Ok(());
    }
    Err(Error::value("p", "50 to 100", format_args!("{p:?}")))
}

/// The smallest and the largest of at least one finite number.
pub(super) fn min_max(argument: &'static str, x: &[f32]) -> Result<(f32, f32)> {
    if x.is_empty() {
        return Err(Error::shape(argument, "at least one element", 0));
    }
    let Range { min, max, magnitude } = range_body(x);
    if magnitude < Range::INFINITE {
        return Ok((min, max));
    }
    let at = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(Error::value(argument, "finite numbers", format_args!("{:?} at position {at}", x[at])))
}

/// The percentiles `100 - p` and `p`.
fn percentiles(x: &[f32], p: f64) -> Result<(f64, f64)> {
    min_max("x", x)?;
    let mut x = x.to_vec();
    Ok((percentile(&mut x, 100.0 - p), percentile(&mut x, p)))
}

/// NumPy's `percentile` of f32 with its default method: the difference in f32, the rest in f64, from the nearer
/// neighbour. A difference beyond the largest f32, which is infinite there, is one of f64.
fn percentile(x: &mut [f32], p: f64) -> f64 {
    let position = p / 100.0 * (x.len() - 1) as f64;
    let (_, &mut low, above) = x.select_nth_unstable_by(position as usize, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    let step =
        if (high - low).is_finite() { f64::from(high - low) } else { f64::from(high) - f64::from(low) };
    let part = position.fract();
    if part < 0.5 { f64::from(low) + step * part } else { f64::from(high) - step * (1.0 - part) }
}
