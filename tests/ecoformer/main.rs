//! EcoFormer through its public calls: hashes and how they are learned, codes, linear attention and its streams, counts of operations.

mod attention;
mod codes;
#[path = "../common/mod.rs"]
mod common;
mod energy;
mod errors;
mod fit;
mod hash;
mod original;
mod stream;
