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
mod sve;
#[cfg(siskin_sve)]
mod sve_tiles;

/// The four bytes of four columns for each of four tokens, those from `first` on.
///
/// # Safety
/// Four bytes can be read at each pointer plus `first`.
#[inline(always)]
unsafe fn quads_of_4(lines: [*const u8; 4], first: usize) -> std::arch::aarch64::int32x4_t {
    use std::arch::aarch64::*;
    // Byte `4 c + t` is column c of token t.
    const OF: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
    // SAFETY: the caller vouches for four bytes at each place.
    unsafe {
        let four = |c: usize| lines[c].add(first).cast::<i32>().read_unaligned();
        let all = vsetq_lane_s32::<0>(four(0), vdupq_n_s32(0));
        let all = vsetq_lane_s32::<1>(four(1), all);
        let all = vsetq_lane_s32::<2>(four(2), all);
        let all = vsetq_lane_s32::<3>(four(3), all);
        vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(all), vld1q_u8(OF.as_ptr())))
    }
}

/// The rows of these CPUs, lowest first: see `kernels::table`.
pub mod rows {
    use super::bf16::NeonBf16;
    use super::dotprod::NeonDot;
    use super::i8mm::NeonI8mm;
    use super::neon::Neon;
    use super::popcount::NeonCounts;
    #[cfg(siskin_sve)]
    use super::sve_tiles;
    use crate::kernels::tier::tiers;

    tiers! {
        neon {
            packing { Neon }
            bytes {
                Neon, types "i8i8",
                sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 4, 4 x 16 by 2, 1 x 16 by 4],
                dense 2 x 8: 2 registers x [1 unroll 2, 2],
                attention "u8u8" 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
            }
            floats {
                Neon,
                dense 4 x 16: 4 registers x [1, 2, 3, 4], panels [1 x 4, 2 x 2],
                gather [4 x 32 by 4, 2 x 32 by 8, 1 x 32 by 8, 4 x 16 by 4, 2 x 16 by 4, 1 x 16 by 4],
                two [], scatter [32 by 4, 16 by 4],
                attention 5 x 16 [4 x [1, 2, 3, 4, 5], 2 x [1, 2, 3, 4, 5], 1 x [1, 2, 3, 4, 5]]
            }
            pairs { none }
            codes { NeonCounts, 4 x 8: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
        }

        #[cfg(siskin_sve)]
        sve {
            packing { of neon }
            bytes { of sve_tiles }
            floats { of sve_tiles }
            pairs { none }
            codes { of neon }
        }

        neon_dot {
            packing { of neon }
            bytes {
                NeonDot, types "i8i8",
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 4, 1 x 32 by 4, 4 x 16 by 4, 1 x 16 by 4],
                dense 5 x 16: 4 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5],
                attention "u8u8" 5 x 16 [4 x [1, 2, 3, 4, 5], 2 x [1, 2, 3, 4, 5], 1 x [1, 2, 3, 4, 5]]
            }
            floats { of neon }
            pairs { none }
            codes { of neon }
        }

        neon_i8mm {
            packing { of neon }
            bytes {
                NeonI8mm, types "u8i8",
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 4, 1 x 32 by 4, 4 x 16 by 4, 1 x 16 by 4],
                dense 6 x 16: 4 registers x [1, 2, 3, 4, 5, 6],
                attention "u8i8" 6 x 16 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            floats { of neon }
            pairs { none }
            codes { of neon }
        }

        neon_bf16 {
            packing { of neon }
            bytes { of neon_i8mm }
            floats { of neon }
            pairs {
                NeonBf16,
                dense 6 x 16: 4 registers x [1, 2, 3, 4, 5, 6], panels [],
                gather [4 x 64 by 4, 2 x 64 by 8, 1 x 64 by 8, 4 x 16 by 4, 2 x 16 by 4, 1 x 16 by 4],
                two [], scatter [64 by 8, 16 by 4],
                attention 6 x 16 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            codes { of neon }
        }
    }
}
