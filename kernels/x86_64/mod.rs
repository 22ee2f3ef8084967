//! x86-64 tiers: registers only. Loops live one level up.

#[macro_use]
mod ymm;
#[macro_use]
mod zmm;
mod avx2;
mod avx512;
mod avx512_vnni;
mod avx_vnni;
mod token;

pub use avx_vnni::AvxVnni;
pub use avx2::Avx2;
pub use avx512::Avx512;
pub use avx512_vnni::{Avx512Vnni, Avx512VnniVbmi};
