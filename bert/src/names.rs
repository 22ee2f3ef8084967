//! Names of tensors, as Hugging Face has them, without the prefix of the model.

use crate::attention::GateForm;
use crate::config::{Config, Family};
use std::fmt;

/// One of the six linear layers of a transformer layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The queries of attention, `[hidden, hidden]`.
    Query,
    /// The keys of attention, `[hidden, hidden]`.
    Key,
    /// The values of attention, `[hidden, hidden]`.
    Value,
    /// What comes after attention, `[hidden, hidden]`.
    Output,
    /// The first layer of the feed-forward network, `[intermediate, hidden]`.
    Up,
    /// The second, `[hidden, intermediate]`.
    Down,
}

impl Part {
    /// All six, in the order in which data passes them.
    pub const ALL: [Part; 6] = [Part::Query, Part::Key, Part::Value, Part::Output, Part::Up, Part::Down];

    fn name(self, family: Family) -> &'static str {
        match (family, self) {
            (Family::Bert, Part::Query) => "attention.self.query",
            (Family::Bert, Part::Key) => "attention.self.key",
            (Family::Bert, Part::Value) => "attention.self.value",
            (Family::Bert, Part::Output) => "attention.output.dense",
            (Family::Bert, Part::Up) => "intermediate.dense",
            (Family::Bert, Part::Down) => "output.dense",
            (Family::DistilBert, Part::Query) => "attention.q_lin",
            (Family::DistilBert, Part::Key) => "attention.k_lin",
            (Family::DistilBert, Part::Value) => "attention.v_lin",
            (Family::DistilBert, Part::Output) => "attention.out_lin",
            (Family::DistilBert, Part::Up) => "ffn.lin1",
            (Family::DistilBert, Part::Down) => "ffn.lin2",
        }
    }
}

/// A linear layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinearId {
    /// The transformer layer, from 0.
    pub layer: usize,
    /// Which of its six.
    pub part: Part,
}

impl fmt::Display for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} {:?}", self.layer, self.part)
    }
}

impl Config {
    /// All linear layers, in the order in which data passes them.
    pub fn linear_layers(&self) -> impl Iterator<Item = LinearId> + use<> {
        (0..self.num_layers).flat_map(|layer| Part::ALL.map(|part| LinearId { layer, part }))
    }

    /// The name of a linear layer, such as `encoder.layer.0.attention.self.query`, or in DistilBERT
    /// `transformer.layer.0.attention.q_lin`. Its tensors are called so too, and `.weight` or `.bias`.
    pub fn linear_name(&self, id: LinearId) -> String {
        format!("{}.{}", self.layer_name(id.layer), id.part.name(self.family))
    }

    /// The linear layer of a name, if there is one; the prefix of the model may be in front.
    pub fn linear_id(&self, name: &str) -> Option<LinearId> {
        let name = name.strip_prefix(self.prefix()).unwrap_or(name);
        let rest = name.strip_prefix(self.layers_name())?.strip_prefix('.')?;
        let (layer, part) = rest.split_once('.')?;
        let layer = layer.parse().ok().filter(|&layer| layer < self.num_layers)?;
        let part = Part::ALL.into_iter().find(|p| p.name(self.family) == part)?;
        Some(LinearId { layer, part })
    }

    /// Output and input features of a linear layer.
    pub fn linear_shape(&self, part: Part) -> (usize, usize) {
        match part {
            Part::Up => (self.intermediate_size, self.hidden_size),
            Part::Down => (self.hidden_size, self.intermediate_size),
            _ => (self.hidden_size, self.hidden_size),
        }
    }

    /// The shapes of all tensors that an encoder is built from, by name.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden_size;
        let mut all = vec![
            (WORDS.to_string(), vec![self.vocab_size, h]),
            (POSITIONS.to_string(), vec![self.max_positions, h]),
        ];
        if self.num_token_types > 0 {
            all.push((TOKEN_TYPES.to_string(), vec![self.num_token_types, h]));
        }
        let mut both = |name: String, weight: Vec<usize>| {
            let bias = vec![weight[0]];
            all.push((format!("{name}.weight"), weight));
            all.push((format!("{name}.bias"), bias));
        };
        both(EMBEDDING_NORM.to_string(), vec![h]);
        for layer in 0..self.num_layers {
            for part in Part::ALL {
                let (n, k) = self.linear_shape(part);
                both(self.linear_name(LinearId { layer, part }), vec![n, k]);
            }
            for name in self.norm_names(layer) {
                both(name, vec![h]);
            }
        }
        all.extend((0..self.num_layers).flat_map(|layer| self.gate_tensors(layer)));
        all
    }

    /// The shapes of the tensors of a layer's gates, by name: those of a predictor one after the other, head by head.
    pub(crate) fn gate_tensors(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let Some(gating) = self.gating else { return Vec::new() };
        let (name, heads, size) = (self.gates_name(layer), self.num_heads, self.head_size());
        let both = |name: String, n: usize, k: usize| {
            [(format!("{name}.weight"), vec![n, k]), (format!("{name}.bias"), vec![n])]
        };
        match (gating.form, gating.hidden(size)) {
            (GateForm::Unconditional, _) => vec![(name, vec![heads])],
            (GateForm::AllFeatures, _) => both(name, heads, self.hidden_size).into(),
            (_, None) => (0..heads).flat_map(|head| both(format!("{name}.{head}"), 1, size)).collect(),
            (_, Some(hidden)) => (0..heads)
                .flat_map(|head| {
                    let first = both(format!("{name}.{head}.0"), hidden, size);
                    first.into_iter().chain(both(format!("{name}.{head}.2"), 1, hidden))
                })
                .collect(),
        }
    }

    /// What names of a layer's gates begin with.
    pub(crate) fn gates_name(&self, layer: usize) -> String {
        let attention = match self.family {
            Family::Bert => "attention.self",
            Family::DistilBert => "attention",
        };
        format!("{}.{attention}.alpha", self.layer_name(layer))
    }

    /// The two norms of a layer: after attention, and after the feed-forward network.
    pub(crate) fn norm_names(&self, layer: usize) -> [String; 2] {
        let names = match self.family {
            Family::Bert => ["attention.output.LayerNorm", "output.LayerNorm"],
            Family::DistilBert => ["sa_layer_norm", "output_layer_norm"],
        };
        names.map(|name| format!("{}.{name}", self.layer_name(layer)))
    }

    /// What may be in front of every name.
    pub(crate) fn prefix(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.",
            Family::DistilBert => "distilbert.",
        }
    }

    fn layers_name(&self) -> &'static str {
        match self.family {
            Family::Bert => "encoder.layer",
            Family::DistilBert => "transformer.layer",
        }
    }

    fn layer_name(&self, layer: usize) -> String {
        format!("{}.{layer}", self.layers_name())
    }
}

pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";
pub(crate) const POSITIONS: &str = "embeddings.position_embeddings.weight";
pub(crate) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";
pub(crate) const EMBEDDING_NORM: &str = "embeddings.LayerNorm";
