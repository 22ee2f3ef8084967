//! Kernels one by one, and what must hold of every row of their table: names, bounds of memory, the same bits as anywhere.

mod attention_byte_weights;
mod attention_decode;
mod attention_operands;
mod attention_passes;
mod attention_tiles;
mod bytes;
mod bytes_of_tokens;
mod codes;
#[path = "../common/mod.rs"]
mod common;
mod digests;
mod ecoformer;
mod float;
mod float_sparse;
#[cfg(unix)]
mod guard;
#[cfg(unix)]
mod lookup;
mod math;
mod names;
mod norm;
mod odd_tiles;
mod oracle;
mod tiers;
