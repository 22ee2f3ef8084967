//! Vectors as they are done: lines of JSON, or a file of NumPy or of safetensors that grows.
//!
//! Between two batches a file is whole: its header says how many vectors are behind it. A signal waits while a batch is written.

use super::batches::Embedded;
use crate::base::case::choices;
use crate::base::error::{Error, Result};
use crate::base::json::to_json;
use crate::base::output::Output;
use crate::base::signals::Held;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write, stdout};
use std::path::Path;

choices! {
    Format {
        /// A line of JSON for each text: its number, the text and its vector.
        Jsonl,
        /// NumPy's array of f32, [texts, features].
        Npy,
        /// The tensor `embeddings`, f32, [texts, features].
        Safetensors,
    }
}

/// Bytes in front of the numbers of a file, whatever it holds: room for shapes of any size.
const HEADER: u64 = 128;

impl Format {
    /// The format that the name of a file ends with.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Format::Npy,
            Some("safetensors") => Format::Safetensors,
            _ => Format::Jsonl,
        }
    }

    /// What stands in front of so many vectors.
    fn header(self, texts: u64, features: usize) -> Vec<u8> {
        let bytes = texts * features as u64 * 4;
        let (mut header, text) = match self {
            Format::Jsonl => return Vec::new(),
            Format::Npy => {
                let magic = b"\x93NUMPY\x01\x00".iter().copied().chain((HEADER as u16 - 10).to_le_bytes());
                let shape = format!("({texts}, {features})");
                (
                    magic.collect::<Vec<u8>>(),
                    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"),
                )
            }
            Format::Safetensors => {
                let tensor =
                    format!("\"dtype\":\"F32\",\"shape\":[{texts},{features}],\"data_offsets\":[0,{bytes}]");
                ((HEADER - 8).to_le_bytes().to_vec(), format!("{{\"embeddings\":{{{tensor}}}}}"))
            }
        };
        header.extend_from_slice(text.as_bytes());
        header.resize(HEADER as usize, b' ');
        if self == Format::Npy {
            header[HEADER as usize - 1] = b'\n';
        }
        header
    }

    /// The number of vectors that a header tells.
    fn texts(self, header: &[u8]) -> Option<u64> {
        let open: &[u8] = if self == Format::Npy { b"'shape': (" } else { b"\"shape\":[" };
        let at = header.windows(open.len()).position(|part| part == open)? + open.len();
        let digits = header[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&header[at..at + digits]).ok()?.parse().ok()
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    text: &'a str,
    embedding: &'a [f32],
}

/// What is looked at of a line that is there.
#[derive(Deserialize)]
struct Seen {
    index: u64,
    embedding: Vec<f32>,
}

/// A place that vectors are written to as they are done.
pub struct Sink<'a> {
    output: &'a Output,
    format: Format,
    features: usize,
    to: To,
    /// Vectors that are there.
    pub texts: u64,
}

enum To {
    Standard,
    File(File),
}

impl<'a> Sink<'a> {
    /// A new place, or one to go on with after the vectors that are there.
    pub fn new(output: &'a Output, format: Format, features: usize, resume: bool) -> Result<Self> {
        let Some(path) = output.file() else {
            if resume || format != Format::Jsonl {
                let got = "standard output, a device or a pipe";
                let expected =
                    if resume { "a file to go on with" } else { "a file, whose header is written again" };
                return Err(Error::input("--out", expected, got));
            }
            let to = match output.stream().map_err(|e| output.blame(e))? {
                Some(stream) => To::File(stream),
                None => To::Standard,
            };
            return Ok(Self { output, format, features, to, texts: 0 });
        };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|e| output.blame(e))?;
        let there = file.metadata().map_err(|e| output.blame(e))?.len();
        let texts = match there {
            0 => 0,
            _ if !resume => {
                let expected = "a file that is not there yet, or --resume to go on with it";
                return Err(output.blame(format_args!("{expected}, got one of {there} bytes")));
            }
            _ => Self::there(&mut file, format, features)
                .map_err(|e| output.blame(e))?
                .map_err(|expected| output.blame(format_args!("expected {expected} to go on with")))?,
        };
        let mut sink = Self { output, format, features, to: To::File(file), texts };
        if let To::File(file) = &mut sink.to {
            let done = Self::keep(file, format, texts, features);
            done.map_err(|e| output.blame(e))?;
        }
        Ok(sink)
    }

    /// How many vectors a file has, or what it should be.
    fn there(
        file: &mut File,
        format: Format,
        features: usize,
    ) -> io::Result<std::result::Result<u64, String>> {
        if format == Format::Jsonl {
            return lines(file, features);
        }
        let mut header = Vec::new();
        Read::by_ref(file).take(HEADER).read_to_end(&mut header)?;
        let whole = file.metadata()?.len().saturating_sub(HEADER) / (4 * features as u64);
        Ok(match format.texts(&header) {
            Some(texts) if texts <= whole && header == format.header(texts, features) => Ok(texts),
            _ => Err(format!("a file of vectors of {features} features that this command wrote")),
        })
    }

    /// Leaves so many vectors in a file, and goes to its end: a batch that was written in part goes.
    fn keep(file: &mut File, format: Format, texts: u64, features: usize) -> io::Result<()> {
        if format == Format::Jsonl {
            // `lines` stopped behind the last whole one.
            let end = file.stream_position()?;
            return file.set_len(end);
        }
        file.set_len(HEADER + texts * features as u64 * 4)?;
        file.rewind()?;
        file.write_all(&format.header(texts, features))?;
        file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Writes a batch.
    pub fn add(&mut self, batch: &Embedded<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        match self.format {
            Format::Jsonl => {
                let vectors = batch.vectors.chunks_exact(self.features);
                for (i, (text, embedding)) in batch.texts.iter().zip(vectors).enumerate() {
                    let line = Line { index: batch.first + i as u64, text, embedding };
                    bytes.extend_from_slice(to_json(&line).as_bytes());
                    bytes.push(b'\n');
                }
            }
            _ => bytes.extend(batch.vectors.iter().flat_map(|v| v.to_le_bytes())),
        }
        self.texts += batch.texts.len() as u64;
        let (format, texts, features) = (self.format, self.texts, self.features);
        match &mut self.to {
            To::Standard => {
                let mut out = stdout().lock();
                out.write_all(&bytes)?;
                Ok(out.flush()?)
            }
            To::File(file) => {
                let mut write = || {
                    let _held = Held::new()?;
                    file.write_all(&bytes)?;
                    if format != Format::Jsonl {
                        file.rewind()?;
                        file.write_all(&format.header(texts, features))?;
                        file.seek(SeekFrom::End(0))?;
                    }
                    io::Result::Ok(())
                };
                write().map_err(|e| self.output.blame(e))
            }
        }
    }

    /// Everything is written.
    pub fn finish(self) -> Result<()> {
        match &self.to {
            // Some disks say only now that they are full.
            To::File(file) if self.output.file().is_some() => {
                file.sync_all().map_err(|e| self.output.blame(e))
            }
            _ => Ok(()),
        }
    }
}

/// How many whole lines a file has, or what it should be. The file is left behind the last of them.
fn lines(file: &mut File, features: usize) -> io::Result<std::result::Result<u64, String>> {
    let (mut line, mut count, mut end, mut seen) = (Vec::new(), 0, 0, None);
    let mut reader = BufReader::new(&mut *file);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        (count, end) = (count + 1, end + read as u64);
        seen = Some(serde_json::from_slice::<Seen>(&line).ok());
        if count == 1 && !fits(&seen, 0, features) {
            break;
        }
    }
    file.seek(SeekFrom::Start(end))?;
    if count > 0 && !fits(&seen, count - 1, features) {
        let what = format!("line {count} to be text {} with a vector of {features} features,", count - 1);
        return Ok(Err(what));
    }
    Ok(Ok(count))
}

fn fits(seen: &Option<Option<Seen>>, index: u64, features: usize) -> bool {
    matches!(seen, Some(Some(seen)) if seen.index == index && seen.embedding.len() == features)
}
