//! Texts one by one: those of the command line, or the lines of a file, of which one is in memory at a time.

use crate::base::error::{Error, Result};
use crate::base::input;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

/// The longest line.
const LONGEST: u64 = 16 << 20;

/// A text, and the bytes of input that it took.
pub struct Text {
    pub content: String,
    pub bytes: u64,
}

/// Where texts come from.
pub struct Texts {
    source: Source,
    /// Texts that came.
    count: u64,
    /// Bytes of all input, if that is known.
    pub total: Option<u64>,
}

enum Source {
    Given(std::vec::IntoIter<String>),
    Lines(PathBuf, Box<dyn BufRead + Send>),
}

impl Texts {
    /// These.
    pub fn given(texts: Vec<String>) -> Self {
        let total = texts.iter().map(|text| text.len() as u64).sum();
        Self { source: Source::Given(texts.into_iter()), count: 0, total: Some(total) }
    }

    /// A text on each line of a file, or of standard input. A line may end with a carriage return, the last one with the file; an
    /// empty line is an empty text.
    pub fn read(path: &Path) -> Result<Self> {
        let (lines, total) = input::open(path)?;
        Ok(Self { source: Source::Lines(input::name(path).to_owned(), lines), count: 0, total })
    }

    /// The next text.
    pub fn next(&mut self) -> Result<Option<Text>> {
        let next = match &mut self.source {
            Source::Given(texts) => texts.next().map(|content| Text { bytes: content.len() as u64, content }),
            Source::Lines(name, lines) => line(name, lines, self.count + 1)?,
        };
        self.count += u64::from(next.is_some());
        Ok(next)
    }

    /// Passes over texts; the bytes of input that they took.
    pub fn skip(&mut self, texts: u64) -> Result<u64> {
        let mut bytes = 0;
        for there in 0..texts {
            match self.next()? {
                Some(text) => bytes += text.bytes,
                None => {
                    let expected = format_args!("the {texts} texts that are embedded there, and more");
                    return Err(Error::input("--resume", expected, format_args!("{there} texts")));
                }
            }
        }
        Ok(bytes)
    }
}

fn line(name: &Path, lines: &mut Box<dyn BufRead + Send>, number: u64) -> Result<Option<Text>> {
    let mut bytes = Vec::new();
    let read = lines.by_ref().take(LONGEST + 1).read_until(b'\n', &mut bytes);
    let read = read.map_err(|e| Error::file(name, e))? as u64;
    if read == 0 {
        return Ok(None);
    }
    if read > LONGEST {
        let why = format_args!("line {number}: expected at most {LONGEST} bytes, got more");
        return Err(Error::file(name, why));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    match String::from_utf8(bytes) {
        Ok(content) => Ok(Some(Text { content, bytes: read })),
        Err(e) => Err(Error::file(name, format_args!("line {number}: expected UTF-8, got {e}"))),
    }
}
