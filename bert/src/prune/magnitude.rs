//! The heaviest blocks, for comparison.

use super::Result;
use siskin::MatRef;
use siskin::sparse::{BlockShape, Norm, prune};

/// `w`, `[N, K]`, without its lightest blocks: of all blocks the heaviest `round(blocks * (1 - sparsity))` by their Euclidean length
/// stay as they are ([`prune::magnitude`]).
///
/// # Errors
/// [`super::Error::Library`] if `sparsity` is not in 0 to below 1, or if `w` holds a NaN or an infinity.
pub fn magnitude(w: MatRef<'_, f32>, block: BlockShape, sparsity: f64) -> Result<Vec<f32>> {
    Ok(prune::magnitude(w, block, sparsity, Norm::L2)?.to_dense()?)
}
