//! Packed weights: indices proven, sums computed, in the order that the kernels read.

mod dense;
mod lookup;
mod sparse;

pub use dense::Dense;
pub use sparse::{HEIGHTS, Sparse};

/// Output features of a band: the unit in which sparse work is shared out.
pub const BAND: usize = 64;

/// Weights of any format, as their work is shared out: in bands of output features.
pub trait Bands: Sync {
    /// How many there are.
    fn bands(&self) -> usize;
    /// The i-th of `parts` ranges of bands that cost about as much as each other.
    fn bands_by_cost(&self, parts: usize, i: usize) -> std::ops::Range<usize>;
}

/// The largest K for which every sum of u8 x i8 fits 32 bits: floor((2^31 - 1) / (255 * 128)).
pub const MAX_FEATURES: usize = 65_793;

/// The largest K with weight zero points, where a factor can be 255 on both sides.
pub const MAX_FEATURES_ZERO_POINTS: usize = 33_025;

/// A block-sparse matrix, as packing reads it: block rows of blocks in ascending order of their columns.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a, T> {
    /// Rows and columns of the matrix.
    pub size: (usize, usize),
    /// Rows and columns of a block.
    pub block: (usize, usize),
    /// Block row i has the blocks `indptr[i] .. indptr[i + 1]`.
    pub indptr: &'a [usize],
    /// The block column of each block.
    pub indices: &'a [u32],
    /// `[blocks][rows of a block][columns of a block]`; what lies beyond the edge of the matrix is 0.
    pub values: &'a [T],
}

impl<'a, T> Blocks<'a, T> {
    /// Block columns and values of a block row.
    fn block_row(&self, i: usize) -> (&'a [u32], &'a [T]) {
        let (first, last) = (self.indptr[i], self.indptr[i + 1]);
        let area = self.block.0 * self.block.1;
        (&self.indices[first..last], &self.values[first * area..last * area])
    }
}

/// Scales of weights by groups of K.
#[derive(Debug, Clone)]
pub struct GroupScales {
    /// Elements of K in a group.
    pub size: usize,
    /// `[group][stride]`, by output feature.
    pub scales: Vec<f32>,
    /// Padded output features.
    pub stride: usize,
}

impl GroupScales {
    /// From `[out_features][groups]`, padded for kernels that read whole panels.
    pub fn new(size: usize, scales: &[f32], out_features: usize) -> Self {
        let groups = scales.len() / out_features.max(1);
        let stride = out_features.next_multiple_of(BAND);
        let mut this = GroupScales { size, scales: vec![0.0; groups * stride], stride };
        for (n, row) in scales.chunks(groups.max(1)).enumerate() {
            for (g, &scale) in row.iter().enumerate() {
                this.scales[g * stride + n] = scale;
            }
        }
        this
    }
}
