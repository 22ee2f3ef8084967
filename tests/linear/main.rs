//! Layers of bytes and of floats, and what they are made of: quantizers, block-sparse matrices, parameters.

mod by_token;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod float;
mod float_packed;
mod float_properties;
mod layers;
mod numbers;
mod outliers;
mod quant;
mod quant_threads;
mod serde;
mod sparse;
