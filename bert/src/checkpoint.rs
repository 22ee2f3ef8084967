//! Checkpoints of Hugging Face: safetensors, in one file or in shards.

use crate::config::{Config, read_json};
use crate::error::{Error, Result};
use crate::model::{Model, Other, check_finite};
use crate::names::WORDS;
use crate::pooling::{Modules, Pooling};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, View};
use serde_json::Value;
use siskin::{bf16, f16};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files that go with a model and do not change with its weights.
const COMPANIONS: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

impl Model {
    /// Reads a folder: `config.json`, `model.safetensors` or the shards that `model.safetensors.index.json` names, and what
    /// sentence-transformers says of the pooling. Tensors of f32, f16 and bf16 are read; their names may have the prefix `bert.`,
    /// `distilbert.` or none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] name the file; [`Error::Config`] a field; [`Error::Tensor`] a tensor that is missing, has
    /// another shape or type, or holds what is not finite; [`Error::Vocabulary`] if there are embeddings for another number of tokens.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = Config::read(dir)?;
        let pooling = Pooling::read(dir)?;
        let wanted: HashMap<String, Vec<usize>> = config.tensors().into_iter().collect();
        let mut this =
            Self { config, tensors: BTreeMap::new(), others: Vec::new(), prefix: "", pooling, source: None };
        for path in files(dir)? {
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let file = SafeTensors::deserialize(&bytes).map_err(|e| Error::file(&path, e))?;
            for (full, tensor) in file.iter() {
                let stripped = full.strip_prefix(this.config.prefix());
                let name = modern(stripped.unwrap_or(full));
                let Some(shape) = wanted.get(&name) else {
                    this.others.push(Other {
                        name: full.to_string(),
                        dtype: tensor.dtype(),
                        shape: tensor.shape().to_vec(),
                        data: tensor.data().to_vec(),
                    });
                    continue;
                };
                if stripped.is_some() {
                    this.prefix = this.config.prefix();
                }
                check_shape(&name, shape, tensor.shape())?;
                let data = floats(&name, &tensor)?;
                check_finite(&name, &data)?;
                if this.tensors.insert(name.clone(), Arc::new(data)).is_some() {
                    return Err(Error::tensor(&name, "one tensor", "one with and one without a prefix"));
                }
            }
        }
        // In the order of the model, so that the first one that is missing is named.
        for (name, shape) in this.config.tensors() {
            if !this.tensors.contains_key(&name) {
                return Err(Error::tensor(&name, format_args!("a tensor of {shape:?}"), "none"));
            }
        }
        this.source = Some(dir.to_path_buf());
        Ok(this)
    }

    /// Writes a checkpoint that others can load too: `config.json`, `model.safetensors` in f32, and the files of the tokenizer and of
    /// the pooling, if the model was read from a folder that has them. What is there already is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] name the file.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        create_dir(dir)?;
        // First under another name: what is there is replaced by a whole file only.
        let (part, path) = (dir.join(format!("{WEIGHTS}.part")), dir.join(WEIGHTS));
        let tensors = self.config.tensors().into_iter().map(|(name, shape)| {
            let data = &self.tensors[&name];
            (format!("{}{name}", self.prefix), Out::Floats(shape, data))
        });
        let others = self.others.iter().map(|other| (other.name.clone(), Out::Other(other)));
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::serialize_to_file(tensors.chain(others), Some(metadata), &part)
            .map_err(|e| Error::file(&part, e))?;
        std::fs::rename(&part, &path).map_err(|e| Error::io(&path, e))?;

        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        match &self.source {
            Some(source) if same(source, dir) => Ok(()),
            Some(source) => {
                for name in COMPANIONS.into_iter().filter(|name| source.join(name).exists()) {
                    copy(&source.join(name), &dir.join(name))?;
                }
                if let Some(folder) = Modules::read(source)?.and_then(|modules| modules.pooling) {
                    create_dir(&dir.join(&folder))?;
                    let name = Path::new(&folder).join("config.json");
                    copy(&source.join(&name), &dir.join(&name))?;
                }
                Ok(())
            }
            None => {
                let (modules, pooling) = self.pooling.to_json(self.config.hidden_size);
                create_dir(&dir.join("1_Pooling"))?;
                write_json(&dir.join("config.json"), &self.config.to_json())?;
                write_json(&dir.join("modules.json"), &modules)?;
                write_json(&dir.join("1_Pooling/config.json"), &pooling)
            }
        }
    }
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
        (WORDS, &[words, features]) if features == expected[1] => Err(Error::Vocabulary {
            expected: format!("embeddings of vocab_size = {} tokens", expected[0]),
            got: words.to_string(),
        }),
        _ => Err(Error::tensor(name, format_args!("{expected:?}"), format_args!("{got:?}"))),
    }
}

fn floats(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>> {
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(Error::tensor(name, "F32, F16 or BF16", format_args!("{other:?}"))),
    })
}

/// A tensor on its way into a file: bytes are made of it when it is its turn.
enum Out<'a> {
    Floats(Vec<usize>, &'a [f32]),
    Other(&'a Other),
}

impl View for Out<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Out::Floats(..) => Dtype::F32,
            Out::Other(other) => other.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Out::Floats(shape, _) => shape,
            Out::Other(other) => &other.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Out::Floats(_, data) => Cow::Owned(data.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Out::Other(other) => Cow::Borrowed(&other.data),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Out::Floats(_, data) => size_of_val(*data),
            Out::Other(other) => other.data.len(),
        }
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).map_err(|e| Error::io(from, e))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).map_err(|e| Error::io(path, e))
}
