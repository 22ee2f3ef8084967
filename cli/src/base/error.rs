//! What can go wrong, and the exit status it gives.

use std::fmt::{self, Display};
use std::io::{Write, stderr};
use std::path::Path;
use std::process::ExitCode;

/// Bad input ends the command with status 2, a wrong result with status 1.
#[derive(Debug)]
pub enum Error {
    /// An argument, a field or a tensor is not what it must be.
    Input { argument: String, expected: String, got: String },
    /// The library refused.
    Library(siskin::Error),
    /// The encoder refused.
    Encoder(siskin_bert::Error),
    /// A file cannot be read or written.
    File { path: String, why: String },
    /// Two computations of the same thing disagree.
    Wrong(String),
    /// Nobody reads what is printed.
    Closed,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn input(argument: impl Display, expected: impl Display, got: impl Display) -> Self {
        Error::Input { argument: argument.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    pub fn file(path: &Path, why: impl Display) -> Self {
        Error::File { path: path.display().to_string(), why: why.to_string() }
    }

    /// Prints the error; the exit status.
    pub fn report(&self) -> ExitCode {
        if let Error::Closed = self {
            return ExitCode::SUCCESS;
        }
        // Where nobody hears it, the status still says it.
        let _ = writeln!(stderr(), "siskin: {self}");
        ExitCode::from(if matches!(self, Error::Wrong(_)) { 1 } else { 2 })
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Input { argument, expected, got } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Error::Library(e) => e.fmt(f),
            Error::Encoder(e) => e.fmt(f),
            Error::File { path, why } => write!(f, "{path}: {why}"),
            Error::Wrong(what) => write!(f, "wrong result: {what}"),
            Error::Closed => f.write_str("output closed"),
        }
    }
}

impl std::error::Error for Error {}

impl From<siskin::Error> for Error {
    fn from(e: siskin::Error) -> Self {
        Error::Library(e)
    }
}

impl From<siskin_bert::Error> for Error {
    fn from(e: siskin_bert::Error) -> Self {
        Error::Encoder(e)
    }
}

/// Only writing to standard output ends here: files name their path.
impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::File { path: "standard output".into(), why: e.to_string() },
        }
    }
}
