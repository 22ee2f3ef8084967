//! Every hand-written kernel, and nothing else.
//!
//! With `parallel.rs` this is the only room where `unsafe` is allowed. Nothing here spawns or keeps state, and memory is the caller's scratch.
#![allow(unsafe_code)]

/// One plain Rust body, compiled once per tier and left to the compiler to vectorize.
///
/// `autovec!(pub fn name(args) -> ret = body);` makes `name::pick(isa)`, which returns the version of the
/// `#[inline(always)]` function `body` for the tier `isa`.
macro_rules! autovec {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::base::isa::Isa;

            /// The kernel's type. Safe to call where the tier it was picked for is supported.
            pub type Fn = unsafe fn($($ty),*) $(-> $ret)?;

            unsafe fn scalar($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "popcnt,avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }

            /// The version for a tier.
            pub fn pick(isa: Isa) -> Fn {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 | Isa::AvxVnni => avx2,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => avx512,
                    _ => scalar,
                }
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod activation;
mod activation_tables;
pub mod attention;
pub mod codes;
pub mod convert;
pub mod dense;
pub mod ecoformer;
pub mod epilogue;
pub mod fit;
pub mod float;
pub mod float_table;
pub mod float_token;
pub mod measure;
#[cfg(feature = "internal")]
pub mod odd;
#[cfg(siskin_oracle)]
pub mod oracle;
pub mod pack;
pub mod panel;
pub mod quantize;
pub mod requantize;
pub mod scalar;
pub mod simd;
pub mod sparse;
pub mod table;
pub mod token;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;
