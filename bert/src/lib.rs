//! Encoders of the BERT family, made of the siskin kernels: BERT, MiniLM and DistilBERT, dense or pruned, in f32 or INT8.
//!
//! A [`Model`] is read from a folder of Hugging Face or sentence-transformers, or generated; its weights can be pruned and
//! written again. An [`Encoder`] is built from it, as [`Options`] say, and turns a batch of [`Tokens`] into a vector for each text. A batch is
//! one list of tokens: there is no padding. The memory of calls is the caller's [`Workspace`]. [`prune`] takes weights away so that the model
//! still works.
#![forbid(unsafe_code)]

mod attend;
mod attention;
mod batch;
mod build;
mod calibrate;
mod checkpoint;
mod config;
mod encoder;
mod error;
mod fold;
mod layer;
mod model;
mod mse;
mod names;
mod norm;
mod options;
mod pooling;
pub mod prune;
mod save;
mod share;
mod source;
mod tokenize;
mod visitor;
mod weights;
mod workspace;

pub use attention::{GateForm, Gating};
pub use batch::{Batch, Tokens};
pub use calibrate::{Calibration, Range, sample_texts};
pub use checkpoint::Checkpoint;
pub use config::{Activation, Config, Family, PRESETS};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use model::{Model, Pruning};
pub use names::{LinearId, Part};
pub use options::{Format, Options, Precision};
pub use pooling::{Pooling, PoolingMode};
pub use source::Source;
pub use tokenize::{Tokenized, Tokenizer, TooLong};
pub use visitor::Visitor;
pub use workspace::{Stage, StageTimes, Workspace};

/// The samples of the guide, which `cargo test --doc` compiles.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/embed.md")]
    mod embed {}
}
