//! EcoFormer (Liu, Pan, He, Cai, Zhuang, NeurIPS 2022): attention by the Hamming similarity of binary codes, in time linear in the
//! number of tokens.
//!
//! Queries and keys share a projection, so a token has one code. [`fit()`] learns the hash, once, from sample batches;
//! [`KernelHash::encode`] makes codes of tokens; [`LinearAttention`] weighs values by the codes' similarity
//! `q·k + bits + 1`, for whole sequences, causal or not, and [`Stream`] token by token. [`BitCodes`] are of use on their own:
//! distances, similarities, nearest neighbours. [`energy`] counts the operations that are saved.
//!
//! Codes are the same bits on every CPU; so are contexts, whose sums are added up in an order of their own.

mod attention;
mod codes;
mod descent;
pub mod energy;
mod fit;
mod hash;
mod models;
mod neighbours;
mod random;
mod stream;

pub use crate::base::sequences::Sequences;
pub use attention::{LinearAttention, LinearAttentionInputs, Numerator};
pub use codes::BitCodes;
pub use fit::{BitLoss, FitOptions, Learned, MAX_TOKENS, fit};
pub use hash::{Bandwidth, Encoded, KernelHash};
pub use stream::Stream;
