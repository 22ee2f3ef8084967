//! Where the weights of an encoder come from.

use crate::config::Config;
use crate::error::Result;
use crate::names::LinearId;
use crate::pooling::Pooling;
use std::sync::Arc;

/// What an encoder is built from: a [`Model`](crate::Model), which is in memory as a whole, or a [`Checkpoint`](crate::Checkpoint), of
/// which a layer at a time is.
pub trait Source: Tensors {
    /// The shape of the model.
    fn config(&self) -> &Config;

    /// How the vectors of its tokens become one.
    fn pooling(&self) -> Pooling;
}

/// Tensors by name. Nobody else implements it: what is read was checked.
pub trait Tensors {
    /// One of those that [`Config::tensors`] names.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if there is none of that name.
    fn read(&self, name: &str) -> Result<Arc<Vec<f32>>>;
}

impl dyn Source + '_ {
    /// The weight and the bias of a linear layer.
    pub(crate) fn linear(&self, id: LinearId) -> Result<[Arc<Vec<f32>>; 2]> {
        self.both(&self.config().linear_name(id))
    }

    /// The weight and the bias of this name.
    pub(crate) fn both(&self, name: &str) -> Result<[Arc<Vec<f32>>; 2]> {
        Ok([self.read(&format!("{name}.weight"))?, self.read(&format!("{name}.bias"))?])
    }
}
