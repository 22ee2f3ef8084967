//! Block-sparse matrices: the format, pruning to it, and what it holds.
//!
//! ```
//! use siskin::MatRef;
//! use siskin::sparse::{BlockShape, Norm, prune};
//!
//! // Eight output features, four input features; keep the heaviest quarter of the 4x1 blocks.
//! let w: Vec<f32> = (0..32).map(|i| (i as f32).sin()).collect();
//! let w = prune::magnitude(MatRef::new(&w, 8, 4)?, BlockShape::B4X1, 0.75, Norm::L2)?;
//! assert_eq!(w.num_blocks(), 2);
//! assert_eq!(w.statistics().sparsity(), 0.75);
//! # Ok::<(), siskin::Error>(())
//! ```

mod block;
mod bsr;
mod elements;
pub mod prune;
mod statistics;

pub use block::BlockShape;
pub use bsr::Bsr;
pub use prune::Norm;
pub use statistics::Statistics;
