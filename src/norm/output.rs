//! Where normalized tokens go.

use super::check_shape;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::params::QuantParams;
use crate::base::view::MatMut;
use crate::driver::norm::{Bytes, Params};

/// Normalized tokens, `[M tokens, features]`: as floats or as bytes, made by `From`, or as both.
#[derive(Debug)]
pub struct NormOutput<'a> {
    pub(super) floats: Option<MatMut<'a, f32>>,
    pub(super) bytes: Option<NormBytes<'a>>,
}

/// Normalized tokens as unsigned bytes, `[M tokens, features]`.
#[derive(Debug)]
#[non_exhaustive]
pub enum NormBytes<'a> {
    /// Statically: all tokens by parameters that were calibrated before.
    Static(MatMut<'a, u8>, QuantParams),
    /// Dynamically: each token by its own range (asymmetric), whose parameters are left here, `[M]`.
    PerToken(MatMut<'a, u8>, &'a mut [QuantParams]),
}

impl<'a> NormOutput<'a> {
    /// With bytes beside the floats, or in the place of other bytes.
    #[must_use]
    pub fn with_bytes(self, bytes: impl Into<NormBytes<'a>>) -> Self {
        Self { bytes: Some(bytes.into()), ..self }
    }
}

impl<'a> From<MatMut<'a, f32>> for NormOutput<'a> {
    fn from(y: MatMut<'a, f32>) -> Self {
        Self { floats: Some(y), bytes: None }
    }
}

impl<'a, B: Into<NormBytes<'a>>> From<B> for NormOutput<'a> {
    fn from(bytes: B) -> Self {
        Self { floats: None, bytes: Some(bytes.into()) }
    }
}

impl<'a> From<(MatMut<'a, u8>, QuantParams)> for NormBytes<'a> {
    fn from((to, params): (MatMut<'a, u8>, QuantParams)) -> Self {
        NormBytes::Static(to, params)
    }
}

impl<'a> From<(MatMut<'a, u8>, &'a mut [QuantParams])> for NormBytes<'a> {
    fn from((to, params): (MatMut<'a, u8>, &'a mut [QuantParams])) -> Self {
        NormBytes::PerToken(to, params)
    }
}

impl<'a> NormBytes<'a> {
    /// As the driver takes them, if they are of the shape.
    pub(super) fn checked(self, shape: (usize, usize)) -> Result<Bytes<'a>> {
        let (to, params) = match self {
            NormBytes::Static(to, params) => {
                if params.dtype() != Element::U8 {
                    return Err(Error::unsupported("params", Element::U8, params.dtype()));
                }
                (to, Params::All(params))
            }
            NormBytes::PerToken(to, params) => {
                if params.len() != shape.0 {
                    let expected = format_args!("one for each of {} tokens", shape.0);
                    return Err(Error::shape("params", expected, params.len()));
                }
                (to, Params::PerToken(params))
            }
        };
        check_shape("bytes", (to.rows(), to.cols()), shape)?;
        Ok(Bytes { to, params })
    }
}
