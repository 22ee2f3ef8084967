//! The loops of attention: products of tiles, the passes of a softmax over rows of scores, sums of few rows of v.
//!
//! All see some keys of one row, or some rows, at a time; which, and why, is the driver's business.

pub mod byte_weights;
pub mod decode;
pub mod exponentials;
pub mod finish;
pub mod gather;
pub mod multiply;
pub mod normalize;
pub mod pack;
pub mod softmax;
pub mod sums;
pub mod table;

/// Keys that are summed as one: partial sums of such chunks of a sequence are added up in order, wherever and whenever they were
/// made.
pub const CHUNK: usize = 512;

/// Keys of a packed panel of k.
pub const PANEL: usize = 64;

/// Lanes in which sums over keys are taken, on every tier; rows of v are padded to a multiple of it.
pub const LANES: usize = 16;
