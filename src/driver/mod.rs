//! The loops over tiles: which panel is multiplied by which weights, in what order, on which thread.
//!
//! A driver knows nothing of instructions, a kernel nothing of threads or shapes. The drivers live in this room because
//! they call kernels; what they are given is proven: weights by their constructors, views by theirs, and the shapes
//! here.
#![allow(unsafe_code)]

#[cfg(feature = "attention")]
pub mod attention;
#[cfg(feature = "ecoformer")]
pub mod codes;
#[cfg(feature = "ecoformer")]
pub mod ecoformer;
#[cfg(feature = "linear")]
pub mod linear;
mod multiply;
pub mod norm;
pub mod tensor;
mod workers;

use std::ops::Range;

/// `0 .. n` in `parts` about equal ranges: the i-th.
fn share(n: usize, parts: usize, i: usize) -> Range<usize> {
    n * i / parts..n * (i + 1) / parts
}
