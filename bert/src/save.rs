//! Writing a checkpoint of Hugging Face: safetensors in one file, and what goes with it.

use crate::checkpoint::WEIGHTS;
use crate::error::{Error, Result};
use crate::model::{Model, Other};
use crate::pooling::Modules;
use safetensors::{Dtype, View};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

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
