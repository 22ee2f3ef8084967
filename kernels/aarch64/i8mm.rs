//! Dot products of unsigned bytes with signed ones, and with BF16 also of bfloat16 pairs.

use crate::isa::Isa;
use crate::kernels::simd::{Bf16, Simd};
use std::arch::aarch64::*;

dot!(usdot, "usdot", "16b", "4b");
dot!(sudot, "sudot", "16b", "4b");
dot!(bfdot, "bfdot", "8h", "2h");

macro_rules! mixed {
    ($isa:ident) => {
        const ISA: Isa = Isa::$isa;
        const MIXED: bool = true;
        vector!();

        #[inline(always)]
        unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { usdot!(acc, x, w) }
        }

        #[inline(always)]
        unsafe fn dot_quad<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { usdot!(acc, x, w, I) }
        }

        #[inline(always)]
        unsafe fn dense_dot<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { sudot!(acc, w, x, I) }
        }

        #[inline(always)]
        unsafe fn dot_columns<const I: i32>(acc: int32x4_t, x: int32x4_t, columns: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { sudot!(acc, columns, x, I) }
        }
    };
}

/// 128-bit `usdot` and `sudot`.
#[derive(Clone, Copy)]
pub struct NeonI8mm;

// SAFETY: each method is the instruction of that meaning.
unsafe impl Simd for NeonI8mm {
    mixed!(NeonI8mm);
}

/// The same on CPUs that also have BF16.
#[derive(Clone, Copy)]
pub struct NeonBf16;

// SAFETY: as above.
unsafe impl Simd for NeonBf16 {
    mixed!(NeonBf16);
}

// SAFETY: the instruction of that meaning.
unsafe impl Bf16 for NeonBf16 {
    #[inline(always)]
    unsafe fn zip(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let (a, b) = (vreinterpretq_u16_s32(a), vreinterpretq_u16_s32(b));
            [vreinterpretq_s32_u16(vzip1q_u16(a, b)), vreinterpretq_s32_u16(vzip2q_u16(a, b))]
        }
    }

    #[inline(always)]
    unsafe fn dot_bf16<const I: i32>(acc: float32x4_t, x: int32x4_t, w: int32x4_t) -> float32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { bfdot!(acc, w, x, I) }
    }
}
