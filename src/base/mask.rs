//! What is added to scores, and which tiles of them are computed.

use crate::base::error::{Error, Result};

/// Numbers added to the scaled scores: `[batch or 1, heads or 1, queries or 1, keys]`, contiguous. What is 1 is the same for all.
/// Queries and keys are counted inside their sequence. -inf is a key that is not there; the smallest float, as the
/// originals have it, absorbs the score, so that a row of nothing else is uniform.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
}

impl<'a> Bias<'a> {
    /// # Errors
    /// [`Error::Shape`] if `data` does not hold exactly `batch * heads * queries * keys` elements.
    pub fn new(data: &'a [f32], batch: usize, heads: usize, queries: usize, keys: usize) -> Result<Self> {
        let elements = [heads, queries, keys].iter().try_fold(batch, |n, &m| n.checked_mul(m));
        if elements != Some(data.len()) {
            let expected = format_args!("exactly {batch} x {heads} x {queries} x {keys} elements");
            return Err(Error::shape("bias", expected, data.len()));
        }
        Ok(Self { data, batch, heads, queries, keys })
    }
}

/// Which tiles of queries times keys are there: `[query blocks, key blocks]` of `block_q x block_k`, for every sequence and head.
/// Queries and keys are counted inside their sequence. Tiles that are not there cost nothing.
#[derive(Debug, Clone, Copy)]
pub struct BlockMask<'a> {
    pub(crate) live: &'a [bool],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) block_q: usize,
    pub(crate) block_k: usize,
}

impl<'a> BlockMask<'a> {
    /// # Errors
    /// [`Error::Shape`] if `live` does not hold exactly `rows * cols` elements; [`Error::Value`] if a block has no extent.
    pub fn new(live: &'a [bool], rows: usize, cols: usize, block_q: usize, block_k: usize) -> Result<Self> {
        if block_q == 0 || block_k == 0 {
            return Err(Error::value("block", "at least 1 x 1", format_args!("{block_q} x {block_k}")));
        }
        if rows.checked_mul(cols) != Some(live.len()) {
            return Err(Error::shape("live", format_args!("exactly {rows} x {cols} elements"), live.len()));
        }
        Ok(Self { live, rows, cols, block_q, block_k })
    }
}
