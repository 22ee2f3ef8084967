//! How an encoder computes.

use crate::calibrate::Calibration;
use crate::names::LinearId;
use siskin::sparse::BlockShape;
use std::collections::BTreeMap;

/// What linear layers and attention compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Weights of bfloat16, which are half as large; all else in f32.
    Bf16,
    /// INT8, dynamically: weights by output feature, inputs of layers token by token, and those of attention text by text, by the range
    /// that they have.
    Int8,
    /// INT8, statically: by ranges that a [`Calibration`] saw, so that bytes flow from layer to layer.
    Int8Static,
}

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Format {
    /// As the zeros in the weights suggest: the largest blocks that hold little but what is not 0, or dense.
    #[default]
    Auto,
    /// All of them.
    Dense,
    /// The blocks of this shape that hold anything but zeros.
    Blocks(BlockShape),
}

/// How an [`Encoder`](crate::Encoder) is built.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    pub(crate) precision: Precision,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) format: Format,
    pub(crate) formats: BTreeMap<LinearId, Format>,
    pub(crate) exact_gelu: bool,
}

impl<'a> Options<'a> {
    /// An encoder that computes so.
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// [`Precision::Int8Static`], with the ranges that `calibration` saw.
    pub fn calibrated(calibration: &'a Calibration) -> Self {
        Self { calibration: Some(calibration), ..Self::new(Precision::Int8Static) }
    }

    /// How all linear layers are stored, but those that [`Options::layer`] names.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// How this linear layer is stored.
    #[must_use]
    pub fn layer(mut self, id: LinearId, format: Format) -> Self {
        self.formats.insert(id, format);
        self
    }

    /// Of [`Precision::Int8Static`]: whether GELU is computed of floats. Otherwise, as by default, its input is rounded to a byte, and
    /// what comes out is looked up, which is faster and less exact.
    #[must_use]
    pub fn exact_gelu(mut self, exact: bool) -> Self {
        self.exact_gelu = exact;
        self
    }

    pub(crate) fn format_of(&self, id: LinearId) -> Format {
        self.formats.get(&id).copied().unwrap_or(self.format)
    }
}
