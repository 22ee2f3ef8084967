//! The one error type. Every message names the argument, says what was expected and what came.

use std::fmt;

/// What went wrong. Nothing was written to any output when an error is returned.
///
/// siskin alone makes errors; they are matched by their kind:
///
/// ```
/// # use siskin::{Error, MatRef};
/// match MatRef::new(&[0.0f32; 5], 2, 3) {
///     Err(Error::Shape { argument, expected, got, .. }) => {
///         assert_eq!((argument, got.as_str()), ("data", "5"));
///         assert_eq!(expected, "exactly 2 x 3 elements");
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A length, a width, a stride or another count does not fit the other arguments.
    #[non_exhaustive]
    Shape {
        /// The argument at fault.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A single number is outside what it may be (a scale of 0, a sparsity of 1, a NaN).
    #[non_exhaustive]
    Value {
        /// The argument at fault.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// An entry of an index array is wrong: out of range, unsorted, duplicated, not monotonic.
    #[non_exhaustive]
    Index {
        /// The array at fault.
        argument: &'static str,
        /// The position in the array.
        position: usize,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A combination of arguments that has no meaning, or that this version does not compute.
    #[non_exhaustive]
    Unsupported {
        /// The argument at fault.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
}

impl Error {
    /// A count that does not fit.
    pub(crate) fn shape(argument: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Shape { argument, expected: expected.to_string(), got: got.to_string() }
    }

    /// A number that is outside its range.
    pub(crate) fn value(argument: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Value { argument, expected: expected.to_string(), got: got.to_string() }
    }

    /// A wrong entry of an index array.
    pub(crate) fn index(
        argument: &'static str,
        position: usize,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Error::Index { argument, position, expected: expected.to_string(), got: got.to_string() }
    }

    /// A combination that is not computed.
    pub(crate) fn unsupported(
        argument: &'static str,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Error::Unsupported { argument, expected: expected.to_string(), got: got.to_string() }
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
            Error::Index { argument, position, expected, got } => {
                write!(f, "{argument}[{position}]: expected {expected}, got {got}")
            }
            Error::Unsupported { argument, expected, got } => {
                write!(f, "{argument}: unsupported: expected {expected}, got {got}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// `std::result::Result` with [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
