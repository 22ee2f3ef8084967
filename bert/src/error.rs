//! The one error type: every message names the file, the field, the tensor or the limit, what was expected and what came.

use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be: no JSON, no safetensors, no tokenizer.
    File {
        /// The file.
        path: PathBuf,
        /// What its parser said.
        message: String,
    },
    /// A field of a configuration is missing, or has a value that this encoder does not compute.
    Config {
        /// The field, as it is called in its file.
        field: String,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A tensor of a checkpoint is missing, or has another shape or type.
    Tensor {
        /// The tensor, as it is called without the prefix of its model.
        name: String,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The tokenizer and the model do not have the same vocabulary, or a token is outside of it.
    Vocabulary {
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A text has more tokens than the model has positions.
    TooLong {
        /// Which text of the batch, counted from 0.
        text: usize,
        /// The most tokens.
        limit: usize,
        /// The tokens of the text.
        got: usize,
    },
    /// An argument does not fit the others.
    Argument {
        /// The argument.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A kernel refused its arguments.
    Kernel(siskin::Error),
}

/// `std::result::Result` with [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }

    pub(crate) fn file(path: &Path, message: impl fmt::Display) -> Self {
        Error::File { path: path.into(), message: message.to_string() }
    }

    pub(crate) fn config(
        field: impl Into<String>,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Error::Config { field: field.into(), expected: expected.to_string(), got: got.to_string() }
    }

    pub(crate) fn tensor(name: &str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Tensor { name: name.into(), expected: expected.to_string(), got: got.to_string() }
    }

    pub(crate) fn vocabulary(expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Vocabulary { expected: expected.to_string(), got: got.to_string() }
    }

    pub(crate) fn argument(
        argument: &'static str,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Error::Argument { argument, expected: expected.to_string(), got: got.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::File { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Config { field, expected, got } => write!(f, "{field}: expected {expected}, got {got}"),
            Error::Tensor { name, expected, got } => {
                write!(f, "tensor {name}: expected {expected}, got {got}")
            }
            Error::Vocabulary { expected, got } => write!(f, "vocabulary: expected {expected}, got {got}"),
            Error::TooLong { text, limit, got } => {
                write!(f, "text {text}: expected at most {limit} tokens, got {got}")
            }
            Error::Argument { argument, expected, got } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Error::Kernel(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Kernel(e) => Some(e),
            _ => None,
        }
    }
}

impl From<siskin::Error> for Error {
    fn from(e: siskin::Error) -> Self {
        Error::Kernel(e)
    }
}
