//! Normalization: LayerNorm of tokens, of their sums with a residual, and straight to bytes.
//!
//! LayerNorm (J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization, 2016, section 3), as encoders of transformers use it. Of each
//! token of `h = x`, or `h = x + residual`, `[M tokens, K features]`:
//!
//! ```text
//! mean     = sum over k of h[k] / K
//! variance = sum over k of (h[k] - mean)^2 / K
//! y[k]     = (h[k] - mean) * (1 / sqrt(variance + eps)) * gamma[k] + beta[k]
//! ```
//!
//! All of it is f32, each operation rounded once as IEEE 754 says, sums in one fixed order: the same bits on every tier, for any number
//! of threads, and for a token alone or among others. Infinities and NaN go the way that IEEE 754 says, and stay in their own token.
//!
//! A layer of INT8 that comes next reads bytes: they are made in the same pass over the row, by one quantizer that was calibrated before,
//! or by one for each token, which is found in the token's own range as [`Linear`](crate::linear::Linear) does it. The layer takes either,
//! and sums up what it would have of the floats. Before they are quantized, features can be multiplied by factors
//! ([`LayerNorm::with_byte_factors`]).
//!
//! ```
//! use siskin::linear::{Epilogue, Linear};
//! use siskin::norm::{LayerNorm, NormOutput};
//! use siskin::quant::QuantParams;
//! use siskin::{Ctx, MatMut, MatRef, Scratch};
//!
//! let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
//! let norm = LayerNorm::new(&[1.0; 8], &[0.0; 8], 1e-12)?;
//! let w: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
//! let next = Linear::quantize_dense(MatRef::new(&w, 4, 8)?)?.build(&ctx)?;
//!
//! let x: Vec<f32> = (0..16).map(|i| (i as f32 * 0.3).cos()).collect();
//! let (x, residual) = (MatRef::new(&x, 2, 8)?, [0.25; 16]);
//! let residual = MatRef::new(&residual, 2, 8)?;
//! let (mut y, mut bytes) = ([0.0; 16], [0; 16]); // The next residual, and what the next layer reads.
//! let mut params = [QuantParams::u8(1.0, 0)?; 2];
//! let to = NormOutput::from(MatMut::new(&mut y, 2, 8)?)
//!     .with_bytes((MatMut::new(&mut bytes, 2, 8)?, &mut params[..]));
//! norm.forward(x, Some(residual), to, &ctx, &mut scratch)?;
//!
//! let mut z = [0.0; 8];
//! let bytes = (MatRef::new(&bytes, 2, 8)?, &params[..]);
//! next.forward(bytes, Epilogue::new(), MatMut::new(&mut z, 2, 4)?, &ctx, &mut scratch)?;
//! # Ok::<(), siskin::Error>(())
//! ```

mod output;

pub use output::{NormBytes, NormOutput};

use crate::base::buffer::{Buffer, elements};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::view::{MatMut, MatRef};
use crate::driver::norm::{self as driver, Job};
use crate::kernels::norm::Affine;

/// The parameters of a LayerNorm of so many features. Immutable; any number of threads may call it.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    features: usize,
    gamma: Buffer,
    beta: Buffer,
    eps: f32,
    by: Option<Buffer>,
    /// Whether no token of ordinary size can overflow.
    tame: bool,
}

impl LayerNorm {
    /// A LayerNorm with a factor `gamma` and an addend `beta` for each feature, `[features]` both, and `eps` added to the variance.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no feature or `beta` has not as many; [`Error::Value`] if `gamma` or `beta` has a number that is
    /// not finite, or if `eps` is not a positive finite number.
    pub fn new(gamma: &[f32], beta: &[f32], eps: f32) -> Result<Self> {
        if gamma.is_empty() {
            return Err(Error::shape("gamma", "at least one feature", 0));
        }
        check_features("beta", beta, gamma.len())?;
        check_finite("gamma", gamma)?;
        check_finite("beta", beta)?;
        if !(eps.is_finite() && eps > 0.0) {
            return Err(Error::value("eps", "a positive finite number", format_args!("{eps:?}")));
        }
        let tame = driver::tame(Affine { gamma, beta, eps }, None);
        Ok(Self {
            features: gamma.len(),
            gamma: on_a_line(gamma),
            beta: on_a_line(beta),
            eps,
            by: None,
            tame,
        })
    }

    /// Multiplies each feature by a factor of its own before it becomes a byte; floats stay as they are. To move outliers from
    /// activations to weights these are the reciprocals of the smoothing factors s by which the input features of the next layer's
    /// weights were multiplied: G. Xiao et al., SmoothQuant (2022), section 4, `x diag(s)^-1`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one of `factors` for each feature; [`Error::Value`] if one is not finite.
    pub fn with_byte_factors(mut self, factors: &[f32]) -> Result<Self> {
        check_features("factors", factors, self.features())?;
        check_finite("factors", factors)?;
        self.tame = driver::tame(self.affine(), Some(factors));
        self.by = Some(on_a_line(factors));
        Ok(self)
    }

    /// Features of a token.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Normalizes x, or x + residual, both `[M tokens, features]`: to floats, to bytes, or to both.
    ///
    /// Bytes are exactly [`QuantParams::quantize`](crate::quant::QuantParams::quantize) of the floats (of NaN the zero point).
    ///
    /// # Errors
    /// [`Error::Shape`] if x, the residual or the output do not fit; [`Error::Unsupported`] if bytes are quantized to another type than
    /// u8; [`Error::Value`] naming `x` if a token is quantized by its own range and has an output that is not finite. Nothing is written
    /// then.
    pub fn forward<'a>(
        &self,
        x: MatRef<'_, f32>,
        residual: Option<MatRef<'_, f32>>,
        to: impl Into<NormOutput<'a>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let NormOutput { floats, bytes } = to.into();
        check_shape("x", (x.rows(), x.cols()), (x.rows(), self.features()))?;
        if let Some(y) = &floats {
            check_shape("y", (y.rows(), y.cols()), (x.rows(), x.cols()))?;
        }
        self.run(Some(x), residual, (floats, x.rows()), bytes, ctx, scratch)
    }

    /// Normalizes h, or h + residual, both `[M tokens, features]`, into h; bytes are made beside, if they are asked for.
    ///
    /// # Errors
    /// As [`LayerNorm::forward`], naming `h`.
    pub fn forward_in_place(
        &self,
        h: MatMut<'_, f32>,
        residual: Option<MatRef<'_, f32>>,
        bytes: Option<NormBytes<'_>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let tokens = h.rows();
        check_shape("h", (tokens, h.cols()), (tokens, self.features()))?;
        self.run(None, residual, (Some(h), tokens), bytes, ctx, scratch)
    }

    fn run(
        &self,
        x: Option<MatRef<'_, f32>>,
        residual: Option<MatRef<'_, f32>>,
        (y, tokens): (Option<MatMut<'_, f32>>, usize),
        bytes: Option<NormBytes<'_>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let shape = (tokens, self.features());
        if let Some(residual) = &residual {
            check_shape("residual", (residual.rows(), residual.cols()), shape)?;
        }
        let bytes = bytes.map(|bytes| bytes.checked(shape)).transpose()?;
        let by = self.by.as_ref().map(|by| self.floats(by));
        let job = Job { x, residual, affine: self.affine(), by, tame: self.tame };
        let name = if x.is_some() { "x" } else { "h" };
        driver::run(&job, y, bytes, ctx, scratch.slots()).map_err(|token| {
            let got = format_args!("NaN or infinity in token {token}");
            Error::value(name, "tokens whose output is finite, to be quantized by their own range", got)
        })
    }

    fn affine(&self) -> Affine<'_> {
        Affine { gamma: self.floats(&self.gamma), beta: self.floats(&self.beta), eps: self.eps }
    }

    fn floats<'a>(&self, buffer: &'a Buffer) -> &'a [f32] {
        elements(&buffer.bytes()[..4 * self.features])
    }
}

/// A copy that begins on a cache line, so that no register of it is on two.
fn on_a_line(x: &[f32]) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.floats(x.len()).copy_from_slice(x);
    buffer
}

fn check_features(argument: &'static str, of: &[f32], features: usize) -> Result<()> {
    if of.len() == features {
        return Ok(());
    }
    Err(Error::shape(argument, format_args!("one for each of {features} features"), of.len()))
}

fn check_finite(argument: &'static str, of: &[f32]) -> Result<()> {
    match of.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => {
            Err(Error::value(argument, "finite numbers", format_args!("{:?} at position {at}", of[at])))
        }
    }
}

/// Whether something is of a shape.
fn check_shape(argument: &'static str, got: (usize, usize), expected: (usize, usize)) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let shape = |(tokens, features): (usize, usize)| format!("{tokens} tokens x {features}");
    Err(Error::shape(argument, shape(expected), shape(got)))
}
