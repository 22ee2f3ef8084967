//! What can go wrong while a layer is pruned.

use std::fmt;

/// Why a layer was not pruned. The message names the argument, says what was expected and what came.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Two arguments do not go together: a width, a length.
    Shape {
        /// The argument at fault.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A number is outside what it may be.
    Value {
        /// The argument at fault.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The inputs of the samples, with the damping added, do not determine the weights.
    NotPositiveDefinite {
        /// Input features of the layer.
        features: usize,
        /// Samples that were seen.
        tokens: usize,
        /// The damping that was asked for, as a part of the mean variance of an input feature.
        damping: f64,
    },
    /// A layer of an encoder could not be pruned.
    Layer {
        /// Its name, such as `encoder.layer.0.attention.self.query`.
        name: String,
        /// Why.
        source: Box<Error>,
    },
    /// The encoder or its texts are not what they should be.
    Encoder(crate::Error),
    /// The library of kernels refused something.
    Library(siskin::Error),
}

impl Error {
    pub(super) fn shape(argument: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Shape { argument, expected: expected.to_string(), got: got.to_string() }
    }

    pub(super) fn layer(name: String, source: Error) -> Self {
        Error::Layer { name, source: Box::new(source) }
    }

    pub(super) fn value(argument: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Value { argument, expected: expected.to_string(), got: got.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { argument, expected, got } => {
                write!(f, "{argument}: wrong shape: expected {expected}, got {got}")
            }
            Error::Value { argument, expected, got } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Error::NotPositiveDefinite { features, tokens, damping } => write!(
                f,
                "hessian: {tokens} samples with a damping of {damping} do not determine {features} input features: \
                 expected more damping, or more samples of different inputs"
            ),
            Error::Layer { name, source } => write!(f, "layer {name}: {source}"),
            Error::Encoder(error) => error.fmt(f),
            Error::Library(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Layer { source, .. } => Some(source),
            Error::Encoder(error) => Some(error),
            Error::Library(error) => Some(error),
            _ => None,
        }
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Error::Encoder(error)
    }
}

impl From<siskin::Error> for Error {
    fn from(error: siskin::Error) -> Self {
        Error::Library(error)
    }
}

/// `std::result::Result` with [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
