//! From the vectors of tokens to one vector of a text.

use crate::config::read_json;
use crate::error::{Error, Result};
use crate::share::for_each_row;
use serde_json::Value;
use siskin::{Ctx, MatMut};
use std::path::{Component, Path};

/// Which tokens make the vector of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PoolingMode {
    /// The mean of all tokens.
    #[default]
    Mean,
    /// The first token, `[CLS]`.
    Cls,
}

/// How the vectors of tokens become one vector of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pooling {
    /// Which tokens.
    pub mode: PoolingMode,
    /// Whether the vector is then scaled to the length 1.
    pub normalize: bool,
}

impl Default for Pooling {
    /// The mean, scaled to the length 1.
    fn default() -> Self {
        Self { mode: PoolingMode::Mean, normalize: true }
    }
}

/// The types of modules that there are, as their names end.
const TRANSFORMER: &str = "Transformer";
const POOLING: &str = "Pooling";
const NORMALIZE: &str = "Normalize";

impl Pooling {
    /// Reads `modules.json` of a folder of sentence-transformers, and the configuration of its pooling. A folder without one has the
    /// mean, scaled to the length 1.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if a file is no JSON; [`Error::Config`] for modules other than a transformer, a pooling and a
    /// normalization, and for other poolings than the mean and `[CLS]`.
    pub fn read(dir: &Path) -> Result<Self> {
        let Some(modules) = Modules::read(dir)? else { return Ok(Self::default()) };
        let mode = match &modules.pooling {
            Some(path) => mode(&read_json(&dir.join(path).join("config.json"))?)?,
            None => PoolingMode::default(),
        };
        Ok(Self { mode, normalize: modules.normalize })
    }

    /// `modules.json` and the configuration of the pooling in `1_Pooling`, for a model of so many features.
    pub(crate) fn to_json(self, features: usize) -> (Value, Value) {
        let module = |i: usize, path: &str, kind: &str| {
            let kind = format!("sentence_transformers.models.{kind}");
            serde_json::json!({ "idx": i, "name": i.to_string(), "path": path, "type": kind })
        };
        let mut modules = vec![module(0, "", TRANSFORMER), module(1, "1_Pooling", POOLING)];
        if self.normalize {
            modules.push(module(2, "2_Normalize", NORMALIZE));
        }
        let pooling = serde_json::json!({
            "word_embedding_dimension": features,
            "pooling_mode_cls_token": self.mode == PoolingMode::Cls,
            "pooling_mode_mean_tokens": self.mode == PoolingMode::Mean,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
        });
        (Value::Array(modules), pooling)
    }
}

/// What `modules.json` says.
pub(crate) struct Modules {
    /// The folder of the pooling.
    pub pooling: Option<String>,
    pub normalize: bool,
}

impl Modules {
    /// Nothing if there is no such file.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("modules.json");
        if !path.exists() {
            return Ok(None);
        }
        let value = read_json(&path)?;
        let Value::Array(list) = &value else {
            return Err(Error::config("modules.json", "an array of modules", &value));
        };
        let mut modules = Self { pooling: None, normalize: false };
        for module in list {
            let text = |field: &str| module.get(field).and_then(Value::as_str).unwrap_or_default();
            let kind = text("type");
            match kind.rsplit('.').next() {
                Some(TRANSFORMER) if text("path").is_empty() => {}
                Some(POOLING) => modules.pooling = Some(inside(text("path"))?),
                Some(NORMALIZE) => modules.normalize = true,
                _ => {
                    let expected = "a Transformer in the folder itself, a Pooling or a Normalize";
                    return Err(Error::config("modules.json: type", expected, kind));
                }
            }
        }
        Ok(Some(modules))
    }
}

/// A path that stays inside of its folder.
fn inside(path: &str) -> Result<String> {
    if Path::new(path).components().all(|c| matches!(c, Component::Normal(_))) {
        return Ok(path.to_string());
    }
    Err(Error::config("modules.json: path", "a folder inside the model's", path))
}

fn mode(config: &Value) -> Result<PoolingMode> {
    // Newer files have one name in place of a field for each.
    if let Some(mode) = config.get("pooling_mode").and_then(Value::as_str) {
        return match mode {
            "mean" => Ok(PoolingMode::Mean),
            "cls" => Ok(PoolingMode::Cls),
            other => Err(Error::config("pooling_mode", "mean or cls", other)),
        };
    }
    let Value::Object(fields) = config else {
        return Err(Error::config("the pooling's config.json", "an object", config));
    };
    let mut mode = None;
    for (field, value) in fields.iter().filter(|(field, _)| field.starts_with("pooling_mode_")) {
        if *value != Value::Bool(true) {
            continue;
        }
        let this = match field.as_str() {
            "pooling_mode_mean_tokens" => PoolingMode::Mean,
            "pooling_mode_cls_token" => PoolingMode::Cls,
            _ => return Err(Error::config(field, "false: mean or cls is computed", true)),
        };
        if mode.replace(this).is_some() {
            return Err(Error::config(field, "one pooling, not several side by side", true));
        }
    }
    mode.ok_or_else(|| Error::config("pooling_mode_mean_tokens", "one pooling to be true", "none"))
}

/// Pools the vectors `x` `[tokens, features]` of each sequence to `y` `[sequences, features]`. A sequence of no tokens becomes 0.
pub(crate) fn pool(pooling: Pooling, cu_seqlens: &[i32], x: &[f32], y: MatMut<'_, f32>, ctx: &Ctx) {
    let (sequences, features) = (y.rows(), y.cols());
    for_each_row(y, x.len() / sequences.max(1), ctx, |sequence, y| {
        let (first, last) = (cu_seqlens[sequence] as usize, cu_seqlens[sequence + 1] as usize);
        let tokens = x[first * features..last * features].chunks_exact(features);
        y.fill(0.0);
        match pooling.mode {
            PoolingMode::Mean => {
                for token in tokens {
                    y.iter_mut().zip(token).for_each(|(y, x)| *y += x);
                }
                let part = 1.0 / (last - first).max(1) as f32;
                y.iter_mut().for_each(|y| *y *= part);
            }
            PoolingMode::Cls => {
                if let Some(first) = tokens.into_iter().next() {
                    y.copy_from_slice(first);
                }
            }
        }
        if pooling.normalize {
            let squares: f32 = y.iter().map(|y| y * y).sum();
            // As PyTorch's `normalize`: nothing is divided by 0.
            let part = 1.0 / squares.sqrt().max(1e-12);
            y.iter_mut().for_each(|y| *y *= part);
        }
    });
}
