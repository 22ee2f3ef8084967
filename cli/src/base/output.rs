//! Where a result goes: a file that is replaced whole or not at all, a device or a pipe, or standard output.
//!
//! A place is looked at before the work, so that a long computation is not lost to a mistake in a path.

use super::error::{Error, Result};
use super::input;
use super::signals::Held;
use same_file::Handle;
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What every command says about its `--out`, after what goes there.
pub const RULE: &str = "A file is replaced whole or not at all: an error or an interruption leaves the old file as it was, and \
nothing beside it. It keeps its mode, and a symbolic link to it stays one. A device or a pipe is written to; - is standard \
output, and messages go to standard error then. A directory, a file that is also read and a place that cannot be written are \
refused before the work.";

/// Bytes between two looks at whether the user wants to stop.
const CHUNK: usize = 1 << 20;

/// Symbolic links that lead to a file; Linux follows as many.
const LINKS: usize = 40;

/// A place that was found fit to be written.
pub struct Output {
    /// As the user gave it.
    path: PathBuf,
    place: Place,
}

enum Place {
    Standard,
    /// A device or a pipe.
    Stream,
    /// A regular file at the end of all links, which may be still to come.
    File(PathBuf),
}

impl Output {
    /// Refuses a place that cannot be written, or that is one of the files that are read.
    pub fn new(path: &Path, inputs: &[&Path]) -> Result<Self> {
        let place = Place::find(path)?;
        if let Some(input) = inputs.iter().find(|input| place.is(input)) {
            let got = format!("the input {}", input::name(input).display());
            return Err(Error::input(name(path).display(), "a file other than the input", got));
        }
        Ok(Self { path: path.to_owned(), place })
    }

    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let done = match &self.place {
            Place::Standard => {
                let mut out = stdout().lock();
                out.write_all(bytes)?;
                return Ok(out.flush()?);
            }
            Place::Stream => {
                OpenOptions::new().write(true).open(&self.path).and_then(|mut f| f.write_all(bytes))
            }
            Place::File(target) => replace(target, bytes),
        };
        done.map_err(|e| Error::file(&self.path, e))
    }

    /// The regular file that it is, which may be still to come.
    pub fn file(&self) -> Option<&Path> {
        if let Place::File(target) = &self.place { Some(target) } else { None }
    }

    /// A device or a pipe, opened to be written bit by bit.
    pub fn stream(&self) -> io::Result<Option<File>> {
        match &self.place {
            Place::Stream => OpenOptions::new().write(true).open(&self.path).map(Some),
            _ => Ok(None),
        }
    }

    /// An error that names the place.
    pub fn blame(&self, why: impl Display) -> Error {
        Error::file(name(&self.path), why)
    }

    /// Prints a message: on standard error where standard output has the result.
    pub fn say(&self, message: &str) -> Result<()> {
        if let Place::Standard = self.place {
            // Where nobody hears it, the result is still there.
            let _ = stderr().write_all(message.as_bytes());
            return Ok(());
        }
        Ok(stdout().write_all(message.as_bytes())?)
    }
}

/// What messages call a path that a user gave.
fn name(path: &Path) -> &Path {
    if is_standard(path) { Path::new("standard output") } else { path }
}

fn is_standard(path: &Path) -> bool {
    let path = path.as_os_str();
    path == "-" || (cfg!(unix) && path == "/dev/stdout")
}

impl Place {
    fn find(path: &Path) -> Result<Self> {
        if is_standard(path) {
            return Ok(Place::Standard);
        }
        let blame = |e| Error::file(path, format_args!("expected a place that can be written: {e}"));
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                Err(Error::input(path.display(), "a file, a device or a pipe", "a directory"))
            }
            Ok(found) if found.is_file() => {
                let target = path.canonicalize().map_err(blame)?;
                may_write(&target).and_then(|()| may_write(folder(&target))).map_err(blame)?;
                Ok(Place::File(target))
            }
            Ok(_) => may_write(path).map(|()| Place::Stream).map_err(blame),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let target = end_of_links(path).map_err(blame)?;
                if !is_named(&target) {
                    return Err(Error::file(path, "expected the name of a file"));
                }
                may_write(folder(&target)).map_err(blame)?;
                Ok(Place::File(target))
            }
            Err(e) => Err(blame(e)),
        }
    }

    /// Whether this is the file of an input, by whatever name.
    fn is(&self, input: &Path) -> bool {
        let read = if input::is_standard(input) { regular(Handle::stdin()) } else { at(input) };
        let written = match self {
            Place::Standard => regular(Handle::stdout()),
            Place::Stream => None,
            Place::File(target) => at(target),
        };
        // What cannot be opened is refused by whoever reads or writes it.
        read.is_some() && read == written
    }
}

/// A regular file. Nothing else is opened: a pipe would wait for its other end.
fn at(path: &Path) -> Option<Handle> {
    if std::fs::metadata(path).ok()?.is_file() { regular(Handle::from_path(path)) } else { None }
}

fn regular(handle: io::Result<Handle>) -> Option<Handle> {
    handle.ok().filter(|handle| handle.as_file().metadata().is_ok_and(|found| found.is_file()))
}

/// Where links lead that lead to nothing yet.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        if !at.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            return Ok(at);
        }
        at = folder(&at).join(at.read_link()?);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Whether a path ends with the name of a file: neither `new/` nor `new/.` does.
fn is_named(path: &Path) -> bool {
    let whole = path.as_os_str().as_encoded_bytes();
    path.file_name().is_some_and(|name| whole.ends_with(name.as_encoded_bytes()))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Asks the system, and opens nothing: a pipe would wait for its other end.
#[cfg(unix)]
fn may_write(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn may_write(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return tempfile::tempfile_in(path).map(drop);
    }
    OpenOptions::new().write(true).open(path).map(drop)
}

/// Writes a file beside its place, then moves it there. It is gone before a signal ends the process, for it is dropped before
/// what holds signals back.
fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let held = Held::new()?;
    let old = match std::fs::metadata(target) {
        Ok(old) => Some(old),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let mut part = beside(target, old.is_some())?;
    for chunk in bytes.chunks(CHUNK) {
        held.check()?;
        part.as_file_mut().write_all(chunk)?;
    }
    if let Some(old) = old {
        keep(&old, part.as_file())?;
    }
    // Some disks say only now that they are full; and after a loss of power the name must not stand for less.
    part.as_file().sync_all()?;
    held.check()?;
    part.persist(target).map_err(|e| e.error)?;
    Ok(())
}

/// A file of a name that no other has, for its owner alone until it gets the mode of the file that it replaces.
fn beside(target: &Path, replaces: bool) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".siskin-").suffix(".part");
    #[cfg(unix)]
    if !replaces {
        use std::os::unix::fs::PermissionsExt;
        // Less what the user's umask takes away.
        builder.permissions(PermissionsExt::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = replaces;
    builder.tempfile_in(folder(target))
}

/// Gives a file the mode of another, and where that is allowed its owner and its group.
#[cfg(unix)]
fn keep(old: &Metadata, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let mine = new.metadata()?;
    let owned = (mine.uid(), mine.gid()) == (old.uid(), old.gid())
        || fchown(new, Some(old.uid()), Some(old.gid())).is_ok();
    // The group alone may be allowed; if not, the file stays the user's.
    let grouped = owned || fchown(new, None, Some(old.gid())).is_ok();
    // Nobody but the old owner may have meant a program to run as its owner or its group.
    let mut mode = old.mode() & if owned { 0o7777 } else { 0o777 };
    if !grouped {
        // The group is another: it may do no more than everybody.
        mode &= !0o70 | (mode & 0o7) << 3;
    }
    new.set_permissions(PermissionsExt::from_mode(mode))
}

/// A file that is not read-only has nothing to keep.
#[cfg(not(unix))]
fn keep(_: &Metadata, _: &File) -> io::Result<()> {
    Ok(())
}
