//! Checkpoints of Hugging Face, read tensor by tensor: safetensors, in one file or in shards.

use crate::config::{Config, read_json};
use crate::error::{Error, Result};
use crate::model::{Model, Other, check_finite};
use crate::names::WORDS;
use crate::pooling::Pooling;
use crate::source::{Source, Tensors};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;
use siskin::{bf16, f16};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint in a folder: what it holds is known and checked, and its tensors are read when they are asked for.
///
/// An encoder that is built from it needs no more memory than itself and one layer. Its files are open until it is dropped.
#[derive(Debug)]
pub struct Checkpoint {
    config: Config,
    pooling: Pooling,
    folder: PathBuf,
    /// What is in front of the names of its tensors.
    prefix: &'static str,
    files: Vec<Shard>,
    /// By the names of [`Config::tensors`]: all of them, of the right shapes.
    tensors: HashMap<String, Place>,
    /// What it holds beside them, by its own names.
    others: Vec<(String, Place)>,
}

/// A file of tensors.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// From the beginning of its file.
    first: u64,
    bytes: usize,
}

impl Checkpoint {
    /// Opens a folder: `config.json`, `model.safetensors` or the shards that `model.safetensors.index.json` names, and what
    /// sentence-transformers says of the pooling. Tensors of f32, f16 and bf16 are read; their names may have the prefix `bert.`,
    /// `distilbert.` or none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] name the file; [`Error::Config`] a field; [`Error::Tensor`] a tensor that is missing, has
    /// another shape or type, or is of gates that `config.json` does not ask for; [`Error::Vocabulary`] if there are embeddings for another
    /// number of tokens. What is not finite is found when it is read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = Config::read(dir)?;
        let wanted: HashMap<String, Vec<usize>> = config.tensors().into_iter().collect();
        let mut this = Self {
            pooling: Pooling::read(dir)?,
            folder: dir.to_path_buf(),
            prefix: "",
            files: Vec::new(),
            tensors: HashMap::new(),
            others: Vec::new(),
            config,
        };
        for path in files(dir)? {
            for (full, place) in this.add(path)? {
                this.see(full, place, &wanted)?;
            }
        }
        // In the order of the model, so that the first one that is missing is named.
        for (name, shape) in this.config.tensors() {
            if !this.tensors.contains_key(&name) {
                return Err(Error::tensor(&name, format_args!("a tensor of {shape:?}"), "none"));
            }
        }
        Ok(this)
    }

    /// Opens a file: its tensors, in their order.
    fn add(&mut self, path: PathBuf) -> Result<Vec<(String, Place)>> {
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let (first, metadata) = header(&mut file, &path)?;
        let shard = self.files.len();
        let places = metadata.offset_keys().into_iter().filter_map(|name| {
            let TensorInfo { dtype, shape, data_offsets: (start, end) } = metadata.info(&name)?;
            let place = Place {
                shard,
                dtype: *dtype,
                shape: shape.clone(),
                first: first + *start as u64,
                bytes: end - start,
            };
            Some((name, place))
        });
        let places = places.collect();
        self.files.push(Shard { path, file: Mutex::new(file) });
        Ok(places)
    }

    /// A tensor that there is.
    fn see(&mut self, full: String, place: Place, wanted: &HashMap<String, Vec<usize>>) -> Result<()> {
        let stripped = full.strip_prefix(self.config.prefix());
        let name = modern(stripped.unwrap_or(&full));
        let Some(shape) = wanted.get(&name) else {
            if (0..self.config.num_layers).any(|layer| name.starts_with(&self.config.gates_name(layer))) {
                let gates =
                    self.config.gating.map_or("no gate".into(), |gating| format!("{:?} gates", gating.form));
                let expected = format_args!("a tensor of {gates}, as config.json says");
                return Err(Error::tensor(&name, expected, "another"));
            }
            self.others.push((full, place));
            return Ok(());
        };
        if stripped.is_some() {
            self.prefix = self.config.prefix();
        }
        check_shape(&name, shape, &place.shape)?;
        if !matches!(place.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::tensor(&name, "F32, F16 or BF16", format_args!("{:?}", place.dtype)));
        }
        match self.tensors.insert(name.clone(), place) {
            None => Ok(()),
            Some(_) => Err(Error::tensor(&name, "one tensor", "one with and one without a prefix")),
        }
    }

    /// All of it, in memory.
    ///
    /// # Errors
    /// [`Error::Io`] names the file; [`Error::Tensor`] a tensor that holds what is not finite.
    pub fn model(&self) -> Result<Model> {
        let tensors = self.config.tensors().into_iter().map(|(name, _)| {
            let data = self.read(&name)?;
            Ok((name, data))
        });
        let others = self.others.iter().map(|(name, place)| {
            let mut data = Vec::with_capacity(place.bytes);
            self.files[place.shard].read(place, |bytes| data.extend_from_slice(bytes))?;
            Ok(Other { name: name.clone(), dtype: place.dtype, shape: place.shape.clone(), data })
        });
        Ok(Model {
            tensors: tensors.collect::<Result<BTreeMap<_, _>>>()?,
            others: others.collect::<Result<_>>()?,
            config: self.config.clone(),
            prefix: self.prefix,
            pooling: self.pooling,
            source: Some(self.folder.clone()),
        })
    }
}

impl Source for Checkpoint {
    fn config(&self) -> &Config {
        &self.config
    }

    fn pooling(&self) -> Pooling {
        self.pooling
    }
}

impl Tensors for Checkpoint {
    fn read(&self, name: &str) -> Result<Arc<Vec<f32>>> {
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::tensor(name, "a tensor of the encoder", "an unknown name"));
        };
        let mut data = Vec::with_capacity(place.shape.iter().product());
        self.files[place.shard].read(place, |bytes| match place.dtype {
            Dtype::F16 => data.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => data.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            _ => data.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        })?;
        check_finite(name, &data)?;
        Ok(Arc::new(data))
    }
}

/// Bytes of a tensor that are in memory as they are in the file: so many that a call of the system is cheap, and few enough for a cache.
const CHUNK: usize = 1 << 18;

impl Shard {
    /// The bytes of a tensor, piece by piece. All pieces but the last are a multiple of the element.
    fn read(&self, place: &Place, mut piece: impl FnMut(&[u8])) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = vec![0; CHUNK.min(place.bytes)];
        let mut read = || {
            file.seek(SeekFrom::Start(place.first))?;
            let mut left = place.bytes;
            while left > 0 {
                let part = &mut chunk[..left.min(CHUNK)];
                file.read_exact(part)?;
                piece(part);
                left -= part.len();
            }
            Ok(())
        };
        read().map_err(|e| Error::io(&self.path, e))
    }
}

/// The header of a file of safetensors, and where what it describes begins.
fn header(file: &mut File, path: &Path) -> Result<(u64, Metadata)> {
    let io = |e| Error::io(path, e);
    let total = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    if total < 8 {
        return Err(Error::file(path, format_args!("expected a header of safetensors, got {total} bytes")));
    }
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    // A file that is none of safetensors must not ask for all memory there is.
    if length > total - 8 {
        let got = format_args!("expected a header of at most {} bytes, got one of {length}", total - 8);
        return Err(Error::file(path, got));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| Error::file(path, e))?;
    let expected = 8 + length + metadata.data_len() as u64;
    if total != expected {
        return Err(Error::file(
            path,
            format_args!("expected {expected} bytes, as its header says, got {total}"),
        ));
    }
    Ok((8 + length, metadata))
}

/// The file of the weights, or all of its shards.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (whole, index) = (dir.join(WEIGHTS), dir.join(INDEX));
    // Where there is neither, the error names the file that is looked for first.
    if whole.exists() || !index.exists() {
        return Ok(vec![whole]);
    }
    let value = read_json(&index)?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(Error::file(&index, "expected weight_map, an object of tensors and their files"));
    };
    let mut names = BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().unwrap_or_default();
        let mut components = Path::new(name).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(Error::file(&index, format_args!("expected a file beside it, got {file}")));
        }
        names.insert(name);
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Old checkpoints have the names that TensorFlow gives to the tensors of a norm.
fn modern(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((norm, "gamma")) => format!("{norm}.weight"),
        Some((norm, "beta")) => format!("{norm}.bias"),
        _ => name.to_string(),
    }
}

fn check_shape(name: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    match (name, got) {
        (WORDS, &[words, features]) if features == expected[1] => {
            let expected = format_args!("embeddings of vocab_size = {} tokens", expected[0]);
            Err(Error::vocabulary(expected, words))
        }
        _ => Err(Error::tensor(name, format_args!("{expected:?}"), format_args!("{got:?}"))),
    }
}
