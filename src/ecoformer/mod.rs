//! EcoFormer (Liu, Pan, He, Cai, Zhuang, NeurIPS 2022): attention by the Hamming similarity of binary codes, in time linear in the
//! number of tokens. Codes come from a kernelized hash that is learned once ([`fit()`]); [`energy`] counts what is saved.

mod attention;
mod codes;
mod descent;
pub mod energy;
mod fit;
mod hash;
mod models;
mod neighbours;
mod random;

pub use attention::{LinearAttention, Numerator};
pub use codes::BitCodes;
pub use fit::{BitLoss, FitOptions, Learned, MAX_BITS, MAX_TOKENS, fit};
pub use hash::{Bandwidth, Encoded, KernelHash};
