//! Arm tiers: the registers of each, as implementations of `Simd` and `Popcount`, and the loops of products that are
//! not dot products within the lanes of a register.
//!
//! ```text
//! vector!   the methods that all 128-bit registers share  neon, dotprod, i8mm, bf16   dot products
//! matrix    tiles by products of matrices                  sve   tiles in C, of vectors of any length
//! ```
//!
//! What stable Rust has no intrinsic for is one instruction in `asm!`, which leaves registers to the compiler. The
//! assembler accepts it only in a function compiled for the features it needs.
// NEON is part of the architecture, so an intrinsic that takes no pointer is safe here; those of other tiers are not.
#![allow(unused_unsafe)]

/// Makes `name!(acc, a, b)`, one instruction of three registers, and `name!(acc, a, b, I)`, which takes element I of
/// the last.
macro_rules! dot {
    ($name:ident, $instruction:literal, $elements:literal, $quad:literal) => {
        macro_rules! $name {
                    ($acc:expr, $a:expr, $b:expr) => {{
                        let mut acc = $acc;
                        std::arch::asm!(
                            concat!($instruction, " {0:v}.4s, {1:v}.", $elements, ", {2:v}.", $elements),
                            inout(vreg) acc, in(vreg) $a, in(vreg) $b,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                        acc
                    }};
                    ($acc:expr, $a:expr, $b:expr, $i:ident) => {{
                        let mut acc = $acc;
                        std::arch::asm!(
                            concat!($instruction, " {0:v}.4s, {1:v}.", $elements, ", {2:v}.", $quad, "[{3}]"),
                            inout(vreg) acc, in(vreg) $a, in(vreg) $b, const $i,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                        acc
                    }};
                }
    };
}

#[macro_use]
mod vector;
#[macro_use]
mod i8mm;
mod bf16;
mod dotprod;
mod matrix;
mod neon;
mod popcount;
#[cfg(siskin_sve)]
pub mod sve;

pub use bf16::NeonBf16;
pub use dotprod::NeonDot;
pub use i8mm::NeonI8mm;
pub use neon::Neon;
pub use popcount::NeonCounts;
