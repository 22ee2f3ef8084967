//! `siskin run` of EcoFormer: a hash is learned, tokens are encoded, and contexts are computed by codes.

pub mod attend;
pub mod encode;
pub mod fit;
mod tensor;
