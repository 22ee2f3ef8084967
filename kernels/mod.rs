//! Every hand-written kernel, and nothing else. Nothing here spawns or keeps state, and memory is the caller's scratch.
#![allow(unsafe_code)]

/// `compile! { set: fn name(args) -> ret = body }`: the `#[inline(always)]` function `body`, compiled for a set of CPU features
/// (see `base::isa`). Safe to call where the CPU has them and the body's own promises are kept. Parameters of types and constants
/// stand in brackets behind the name.
macro_rules! compile {
    (
        $set:ident: $vis:vis fn $name:ident $([$($param:tt)*])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?
            = $body:path
    ) => {
        crate::base::isa::features! { $set
            #[inline(never)]
            #[allow(unused_unsafe, reason = "some bodies are safe")]
            $vis unsafe fn $name $(<$($param)*>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller keeps the promises of the body, and vouches for the features.
                unsafe { $body($($arg),*) }
            }
        }
    };
}

/// One plain Rust body, left to the compiler to vectorize for each kind of CPU.
///
/// `autovec!(pub fn name(args) -> ret = body);` makes `name::pick(isa)`, which returns the version of the
/// `#[inline(always)]` function `body` that the list of ISAs names for `isa`.
macro_rules! autovec {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::base::isa::{Isa, Loops};

            /// The kernel's type. Safe to call where the ISA it was picked for is supported.
            pub type Fn = unsafe fn($($ty),*) $(-> $ret)?;

            compile! { scalar: fn baseline($($arg: $ty),*) $(-> $ret)? = $body }
            #[cfg(target_arch = "x86_64")]
            compile! { avx2: fn avx2($($arg: $ty),*) $(-> $ret)? = $body }
            #[cfg(target_arch = "x86_64")]
            compile! { avx512: fn avx512($($arg: $ty),*) $(-> $ret)? = $body }

            /// The version for an ISA.
            pub fn pick(isa: Isa) -> Fn {
                match isa.loops() {
                    Loops::Baseline => baseline,
                    #[cfg(target_arch = "x86_64")]
                    Loops::Avx2 => avx2,
                    #[cfg(target_arch = "x86_64")]
                    Loops::Avx512 => avx512,
                    #[cfg(not(target_arch = "x86_64"))]
                    Loops::Avx2 | Loops::Avx512 => unreachable!("{isa} is of another architecture"),
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
pub mod byte_table;
pub mod codes;
pub mod convert;
pub mod core;
pub mod dense;
pub mod ecoformer;
pub mod epilogue;
pub mod few;
pub mod fit;
pub mod float;
pub mod float_few;
pub mod float_table;
pub mod gemv;
pub mod lookup;
#[cfg(all(feature = "linear", feature = "attention", feature = "ecoformer"))]
pub mod measure;
pub mod norm;
#[cfg(feature = "internal")]
pub mod odd;
#[cfg(siskin_oracle)]
pub mod oracle;
pub mod pack;
pub mod panel;
pub mod parameters;
pub mod peak;
pub mod quantize;
pub mod requantize;
pub mod scalar;
pub mod simd;
pub mod sparse;
pub mod table;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no other row has tall groups"))]
pub mod tall;
pub mod tier;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;
