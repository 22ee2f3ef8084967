//! EcoFormer (Liu et al., NeurIPS 2022): attention over binary codes.

mod codes;

pub use codes::BitCodes;
