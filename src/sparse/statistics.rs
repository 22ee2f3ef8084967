//! How full a block-sparse matrix is.

/// How full a block-sparse matrix is, and how evenly its blocks lie over the block rows.
///
/// ```
/// use siskin::MatRef;
/// use siskin::sparse::{BlockShape, Bsr};
///
/// let dense = [1, 0, 1, 1, //
///              0, 0, 1, 0_i8];
/// let s = Bsr::from_dense(MatRef::new(&dense, 2, 4)?, BlockShape::B1X1)?.statistics();
/// assert_eq!(s.density(), 0.5);
/// assert_eq!(s.counts(), [3, 1]);
/// assert_eq!((s.min(), s.mean(), s.max()), (1, 2.0, 3));
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    density: f64,
    counts: Vec<usize>,
}

impl Statistics {
    pub(super) fn new(stored: usize, (rows, cols): (usize, usize), counts: Vec<usize>) -> Self {
        // An empty matrix has nothing that is not stored.
        let size = rows as f64 * cols as f64;
        Self { density: if size == 0.0 { 1.0 } else { stored as f64 / size }, counts }
    }

    /// Stored values, of all values of the matrix: 0 to 1. Zeros within a stored block count as stored.
    pub fn density(&self) -> f64 {
        self.density
    }

    /// Values that are not stored, of all values of the matrix: 0 to 1.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.density
    }

    /// Blocks in each block row, `[block rows]`.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Blocks in the emptiest block row; 0 without any.
    pub fn min(&self) -> usize {
        self.counts.iter().copied().min().unwrap_or(0)
    }

    /// Blocks in the fullest block row; 0 without any.
    pub fn max(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// Mean number of blocks in a block row; 0 without any.
    pub fn mean(&self) -> f64 {
        self.counts.iter().sum::<usize>() as f64 / self.counts.len().max(1) as f64
    }

    /// The number of blocks that at least `p` percent of the block rows do not exceed (nearest rank);
    /// `p` clamps to 0 to 100.
    pub fn percentile(&self, p: f64) -> usize {
        let mut sorted = self.counts.clone();
        sorted.sort_unstable();
        let rank = (p / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1).min(sorted.len()).wrapping_sub(1)).copied().unwrap_or(0)
    }

    /// How many block rows hold each number of blocks: `(blocks, block rows)`, ascending, without empty entries.
    pub fn histogram(&self) -> Vec<(usize, usize)> {
        let mut sorted = self.counts.clone();
        sorted.sort_unstable();
        sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
    }
}
