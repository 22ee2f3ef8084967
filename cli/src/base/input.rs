//! Where the bytes of a file come from: a file, or standard input.

use super::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::ops::Deref;
use std::path::Path;

/// What is in a file: mapped, so that no more of it is in memory than is looked at; or as it came through a pipe.
pub enum Bytes {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
        }
    }
}

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

/// A file, or standard input, to be read from its beginning to its end, and its bytes if they can be known.
pub fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if is_standard(path) {
        return Ok((Box::new(BufReader::new(stdin())), None));
    }
    let blame = |e| Error::file(path, e);
    let found = std::fs::metadata(path).map_err(blame)?;
    if found.is_dir() {
        return Err(Error::input(path.display(), "a file, or - for standard input", "a directory"));
    }
    let file = File::open(path).map_err(blame)?;
    Ok((Box::new(BufReader::new(file)), found.is_file().then_some(found.len())))
}

/// The bytes of a file, which nobody must change while they are looked at.
pub fn read(path: &Path) -> Result<Bytes> {
    let blame = |e| Error::file(name(path), e);
    if is_standard(path) {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).map_err(blame)?;
        return Ok(Bytes::Read(bytes));
    }
    let found = std::fs::metadata(path).map_err(blame)?;
    // A device or a pipe might never end.
    if !found.is_file() {
        let got = if found.is_dir() { "a directory" } else { "a device or a pipe" };
        return Err(Error::input(path.display(), "a file, or - for standard input", got));
    }
    let file = File::open(path).map_err(blame)?;
    // SAFETY: the map is read only, and the command writes to no file that it reads. That nobody else writes or shortens the file
    // meanwhile is for whoever starts the command to see to, as its help says.
    match unsafe { Mmap::map(&file) } {
        Ok(bytes) => Ok(Bytes::Mapped(bytes)),
        // Not every file system can map, and nothing can be mapped of nothing.
        Err(_) => std::fs::read(path).map(Bytes::Read).map_err(blame),
    }
}
