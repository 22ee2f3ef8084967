//! Looking into a model while it computes.

use crate::names::LinearId;
use siskin::MatRef;

/// Sees what goes into and comes out of every linear layer of a batch, in f32: see [`Encoder::observe`](crate::Encoder::observe).
pub trait Visitor {
    /// Sees the input `[tokens, in_features]` of the layers `ids`: of query, key and value at once, which have the same, and of each
    /// other layer alone. Its columns are those of the layers' weights.
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>);

    /// Sees the output `[tokens, out_features]` of a layer, before the activation and without the residual. It is seen of query, key,
    /// value and of the first layer of the feed-forward network.
    fn output(&mut self, _id: LinearId, _y: MatRef<'_, f32>) {}
}

/// A closure sees inputs.
impl<F: FnMut(&[LinearId], MatRef<'_, f32>)> Visitor for F {
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>) {
        self(ids, x);
    }
}
