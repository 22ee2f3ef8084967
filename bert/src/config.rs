//! The shape of a model, from the `config.json` of its checkpoint.

use crate::attention::{self, Gating};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use siskin::attention::Softmax;
use std::path::Path;

/// Whose names tensors and fields have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// BERT and what has its form: MiniLM and most encoders of sentence-transformers.
    Bert,
    /// DistilBERT: half of the layers, no token types, other names.
    DistilBert,
}

/// The function between the two layers of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// GELU by the error function: `gelu`.
    Gelu,
    /// GELU by the hyperbolic tangent: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `relu`.
    Relu,
}

/// The shape of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whose names its tensors have.
    pub family: Family,
    /// Different tokens.
    pub vocab_size: usize,
    /// Features of a token.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Heads of attention; they divide the hidden size.
    pub num_heads: usize,
    /// Features inside a feed-forward network.
    pub intermediate_size: usize,
    /// The most tokens of a text.
    pub max_positions: usize,
    /// Token types; none in DistilBERT. All tokens are of the first.
    pub num_token_types: usize,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f32,
    /// The function inside a feed-forward network.
    pub activation: Activation,
    /// What turns scores of attention into weights.
    pub softmax: Softmax,
    /// What multiplies the contexts of heads, if anything does.
    pub gating: Option<Gating>,
}

/// The names that [`Config::preset`] knows.
pub const PRESETS: [&str; 5] = ["minilm", "bert-mini", "distilbert", "bert-base", "bert-large"];

impl Config {
    /// The shape of a well-known model: one of [`PRESETS`].
    ///
    /// # Errors
    /// [`Error::Config`] for another name.
    pub fn preset(name: &str) -> Result<Self> {
        let (family, num_layers, hidden_size, num_heads) = match name {
            "minilm" => (Family::Bert, 6, 384, 12),
            "bert-mini" => (Family::Bert, 4, 256, 4),
            "distilbert" => (Family::DistilBert, 6, 768, 12),
            "bert-base" => (Family::Bert, 12, 768, 12),
            "bert-large" => (Family::Bert, 24, 1024, 16),
            _ => return Err(Error::config("model", PRESETS.join(", "), name)),
        };
        Ok(Self::new(family, num_layers, hidden_size, num_heads))
    }

    /// A model with the vocabulary and the positions of BERT, and four times the hidden features inside its feed-forward networks.
    pub fn new(family: Family, num_layers: usize, hidden_size: usize, num_heads: usize) -> Self {
        Self {
            family,
            vocab_size: 30522,
            hidden_size,
            num_layers,
            num_heads,
            intermediate_size: 4 * hidden_size,
            max_positions: 512,
            num_token_types: if family == Family::Bert { 2 } else { 0 },
            layer_norm_eps: 1e-12,
            activation: Activation::Gelu,
            softmax: Softmax::Standard,
            gating: None,
        }
    }

    /// With this softmax, such as [`Clipped::new`](siskin::attention::Clipped::new) gives it.
    #[must_use]
    pub fn with_softmax(self, softmax: impl Into<Softmax>) -> Self {
        Self { softmax: softmax.into(), ..self }
    }

    /// With gates.
    #[must_use]
    pub fn with_gating(self, gating: Gating) -> Self {
        Self { gating: Some(gating), ..self }
    }

    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`] if it is no JSON, and as [`Config::from_json`].
    pub fn read(dir: &Path) -> Result<Self> {
        Self::from_json(&read_json(&dir.join("config.json"))?)
    }

    /// From a parsed `config.json` of Hugging Face.
    ///
    /// # Errors
    /// [`Error::Config`] names the field: one that is missing, a `model_type` other than `bert` and `distilbert`, relative positions, an
    /// activation, a softmax or gates that are not computed, heads that do not divide the hidden size, sizes of 0.
    pub fn from_json(value: &Value) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(Error::config("config.json", "an object", kind(value)));
        };
        let fields = Fields(fields);
        let family = match fields.text("model_type")? {
            Some("bert") => Family::Bert,
            Some("distilbert") => Family::DistilBert,
            other => return Err(Error::config("model_type", "bert or distilbert", other.unwrap_or("none"))),
        };
        match fields.text("position_embedding_type")? {
            None | Some("absolute") => {}
            Some(other) => return Err(Error::config("position_embedding_type", "absolute", other)),
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if fields.flag(field)? {
                return Err(Error::config(field, "false, for an encoder", true));
            }
        }
        let names = match family {
            Family::Bert => {
                ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"]
            }
            Family::DistilBert => ["dim", "n_layers", "n_heads", "hidden_dim", "activation"],
        };
        let activation = match fields.text(names[4])? {
            None | Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => {
                return Err(Error::config(names[4], "gelu, gelu_new, gelu_pytorch_tanh or relu", other));
            }
        };
        let layer_norm_eps = match (family, fields.0.get("layer_norm_eps")) {
            (_, Some(eps)) => match eps.as_f64() {
                Some(eps) if eps > 0.0 && eps < 1.0 => eps as f32,
                _ => return Err(Error::config("layer_norm_eps", "a number between 0 and 1", eps)),
            },
            (_, None) => 1e-12,
        };
        let (softmax, gating) = attention::from_json(&fields)?;
        let this = Self {
            family,
            vocab_size: fields.size("vocab_size")?,
            hidden_size: fields.size(names[0])?,
            num_layers: fields.size(names[1])?,
            num_heads: fields.size(names[2])?,
            intermediate_size: fields.size(names[3])?,
            max_positions: fields.size("max_position_embeddings")?,
            num_token_types: match family {
                Family::Bert if fields.0.contains_key("type_vocab_size") => fields.size("type_vocab_size")?,
                Family::Bert => 2,
                Family::DistilBert => 0,
            },
            layer_norm_eps,
            activation,
            softmax,
            gating,
        };
        this.check()?;
        Ok(this)
    }

    /// Whether the sizes go together.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn check(&self) -> Result<()> {
        let (hidden, heads) = match self.family {
            Family::Bert => ("hidden_size", "num_attention_heads"),
            Family::DistilBert => ("dim", "n_heads"),
        };
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            (hidden, self.hidden_size),
            (heads, self.num_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_positions),
        ] {
            if size == 0 || size > MAX_SIZE {
                return Err(Error::config(field, format_args!("1 to {MAX_SIZE}"), size));
            }
        }
        if self.num_layers > MAX_LAYERS {
            return Err(Error::config(
                "num_hidden_layers",
                format_args!("at most {MAX_LAYERS}"),
                self.num_layers,
            ));
        }
        if !self.hidden_size.is_multiple_of(self.num_heads) || self.head_size() > MAX_HEAD_SIZE {
            let expected = format_args!(
                "a divisor of {hidden} = {}, with at most {MAX_HEAD_SIZE} features a head",
                self.hidden_size
            );
            return Err(Error::config(heads, expected, self.num_heads));
        }
        attention::check(self)
    }

    /// Features of a head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// The `config.json` of such a model.
    pub fn to_json(&self) -> Value {
        let activation = match self.activation {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::Relu => "relu",
        };
        let mut value = match self.family {
            Family::Bert => json!({
                "architectures": ["BertModel"],
                "model_type": "bert",
                "hidden_act": activation,
                "hidden_size": self.hidden_size,
                "intermediate_size": self.intermediate_size,
                "layer_norm_eps": attention::shortest(self.layer_norm_eps),
                "max_position_embeddings": self.max_positions,
                "num_attention_heads": self.num_heads,
                "num_hidden_layers": self.num_layers,
                "pad_token_id": 0,
                "position_embedding_type": "absolute",
                "type_vocab_size": self.num_token_types,
                "vocab_size": self.vocab_size,
            }),
            Family::DistilBert => json!({
                "architectures": ["DistilBertModel"],
                "model_type": "distilbert",
                "activation": activation,
                "dim": self.hidden_size,
                "hidden_dim": self.intermediate_size,
                "max_position_embeddings": self.max_positions,
                "n_heads": self.num_heads,
                "n_layers": self.num_layers,
                "pad_token_id": 0,
                "sinusoidal_pos_embds": false,
                "vocab_size": self.vocab_size,
            }),
        };
        for (field, content) in attention::to_json(self) {
            value[field] = content;
        }
        value
    }
}

/// No field is larger in any checkpoint; so sizes of tensors do not overflow.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
/// What the kernels of attention take.
const MAX_HEAD_SIZE: usize = 256;

/// The fields of a `config.json`.
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    pub fn text(&self, field: &str) -> Result<Option<&str>> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::config(field, "a text", other)),
        }
    }

    /// False if it is not there.
    pub fn flag(&self, field: &str) -> Result<bool> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Error::config(field, "true or false", other)),
        }
    }

    pub fn number(&self, field: &str) -> Result<Option<f32>> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number as f32)),
                None => Err(Error::config(field, "a number", value)),
            },
        }
    }

    pub fn size(&self, field: &str) -> Result<usize> {
        match self.0.get(field) {
            None => Err(Error::config(field, "a number", "nothing")),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(n),
                None => Err(Error::config(field, "a number, 0 or more", value)),
            },
        }
    }
}

/// The JSON of a file.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, e))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
