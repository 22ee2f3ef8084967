//! Looking into a model while it computes.

use crate::names::LinearId;
use siskin::MatRef;

/// Sees what goes into every linear layer of a batch, and what attention computes with, in f32: see
/// [`Encoder::observe`](crate::Encoder::observe).
pub trait Visitor {
    /// Sees the input `[tokens, in_features]` of the layers `ids`: of query, key and value at once, which have the same, and of each
    /// other layer alone. Its columns are those of the layers' weights.
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>);

    /// Sees the output `[tokens, out_features]` of query, key or value.
    fn output(&mut self, _id: LinearId, _y: MatRef<'_, f32>) {}
}

/// A closure sees inputs.
impl<F: FnMut(&[LinearId], MatRef<'_, f32>)> Visitor for F {
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>) {
        self(ids, x);
    }
}
