//! Where the bytes of a file come from: a file, or standard input.

use super::error::{Error, Result};
use std::io::{Read, stdin};
use std::path::Path;

/// Whether a path that a user gave means standard input.
pub fn is_standard(path: &Path) -> bool {
    let path = path.as_os_str();
    path == "-" || (cfg!(unix) && path == "/dev/stdin")
}

/// What messages call a path that a user gave.
pub fn name(path: &Path) -> &Path {
    if is_standard(path) { Path::new("standard input") } else { path }
}

/// Refuses to read standard input more than once.
pub fn check(inputs: &[&Path]) -> Result<()> {
    match inputs.iter().filter(|path| is_standard(path)).count() {
        0 | 1 => Ok(()),
        more => Err(Error::input("standard input", "at most one file that is read from it", more)),
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let blame = |e| Error::file(name(path), e);
    if is_standard(path) {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).map_err(blame)?;
        return Ok(bytes);
    }
    let found = std::fs::metadata(path).map_err(blame)?;
    // A device or a pipe might never end.
    if !found.is_file() {
        let got = if found.is_dir() { "a directory" } else { "a device or a pipe" };
        return Err(Error::input(path.display(), "a file, or - for standard input", got));
    }
    std::fs::read(path).map_err(blame)
}
