//! Encoders of the BERT family, made of the siskin kernels.

#![forbid(unsafe_code)]

pub mod prune;
