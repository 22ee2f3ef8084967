//! What turns scores into weights.

use crate::base::error::{Error, Result};

/// The parameters of a clipped softmax (Quantizable Transformers, section 4.1):
/// `w = min(1, max(0, (zeta - gamma) * softmax(s) + gamma))`, never renormalized.
///
/// With gamma < 0 a key whose probability is at most `-gamma / (zeta - gamma)` weighs exactly nothing, and at most
/// `(zeta - gamma) / -gamma` keys of a row weigh anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped {
    gamma: f32,
    zeta: f32,
}

impl Clipped {
    /// # Errors
    /// [`Error::Value`] unless `gamma <= 0` and `zeta >= 1`, both finite, and so their difference.
    pub fn new(gamma: f32, zeta: f32) -> Result<Self> {
        if !(gamma.is_finite() && gamma <= 0.0) {
            return Err(Error::value("gamma", "a finite number, at most 0", gamma));
        }
        if !(zeta.is_finite() && zeta >= 1.0) {
            return Err(Error::value("zeta", "a finite number, at least 1", zeta));
        }
        if !(zeta - gamma).is_finite() {
            return Err(Error::value(
                "zeta",
                format_args!("zeta - gamma to be finite, gamma = {gamma}"),
                zeta,
            ));
        }
        // Not -0.0, so that a weight never is.
        Ok(Self { gamma: gamma + 0.0, zeta })
    }

    /// `gamma = -alpha / max_len`, `zeta = 1`: the parametrization of the paper's experiments. `max_len` is the length that the
    /// model was configured with, whatever the length of a call.
    ///
    /// # Errors
    /// [`Error::Value`] unless `alpha >= 0` is finite and `max_len >= 1`.
    pub fn from_alpha(alpha: f32, max_len: usize) -> Result<Self> {
        if !(alpha.is_finite() && alpha >= 0.0) {
            return Err(Error::value("alpha", "a finite number, at least 0", alpha));
        }
        if max_len == 0 {
            return Err(Error::value("max_len", "at least 1", 0));
        }
        Self::new((-f64::from(alpha) / max_len as f64) as f32, 1.0)
    }

    /// The lower stretch.
    pub fn gamma(&self) -> f32 {
        self.gamma
    }

    /// The upper stretch.
    pub fn zeta(&self) -> f32 {
        self.zeta
    }
}

/// What turns scores into weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Softmax {
    /// `exp(s_j) / sum over k of exp(s_k)`: what gamma = 0, zeta = 1 give.
    #[default]
    Standard,
    /// Stretched and clipped.
    Clipped(Clipped),
}

impl From<Clipped> for Softmax {
    fn from(clipped: Clipped) -> Self {
        Softmax::Clipped(clipped)
    }
}

/// What becomes of a query that has no key to attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmptyRow {
    /// Attends to nothing: its context is 0.
    #[default]
    Zeros,
    /// Attends to all keys of its sequence alike, those that are masked included, before the clip: what a mask of the smallest
    /// float does in the originals.
    Uniform,
}
