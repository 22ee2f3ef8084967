//! EcoFormer (Liu, Pan, He, Cai, Zhuang, NeurIPS 2022): attention by the Hamming similarity of binary codes, in time linear in the
//! number of tokens. Codes come from a kernelized hash that is learned once; [`energy`] counts what is saved.

pub mod energy;
mod models;
