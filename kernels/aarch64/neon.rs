//! NEON alone: exact dot products of bytes from widening multiplications, whose products are added in pairs.
//!
//! ```text
//! acc[l] += sum over i in 0..4:  x[4l + i] * w[4l + i]        smull to 16 bits, saddlp to 32 bits, addp
//! ```
//!
//! Linear layers multiply signed bytes with signed ones, attention unsigned bytes with unsigned ones.

use crate::kernels::simd::{LINE, Simd};
use std::arch::aarch64::*;

/// 128-bit registers of NEON.
#[derive(Clone, Copy)]
pub struct Neon;

// SAFETY: each method is the NEON instruction of that meaning.
unsafe impl Simd for Neon {
    const ONE_INSTRUCTION: bool = false;
    const MIXED: bool = false;
    vector!();

    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            // The sum of two products of -128 by -128 does not fit 16 bits, so products are added in 32 bits.
            let (x, w) = (vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w)));
            let high = vpaddlq_s16(vmull_high_s8(x, w));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn dot_quad<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::dot(acc, x, Self::all::<I>(w)) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::dot(acc, Self::all::<I>(x), w) }
    }

    #[inline(always)]
    unsafe fn dot_columns<const I: i32>(acc: int32x4_t, x: int32x4_t, columns: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::dot_key(acc, Self::all::<I>(x), columns) }
    }

    #[inline(always)]
    unsafe fn dot_key(acc: int32x4_t, x: int32x4_t, key: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let (x, w) = (vreinterpretq_u8_s32(x), vreinterpretq_u8_s32(key));
            let low = vpaddlq_u16(vmull_u8(vget_low_u8(x), vget_low_u8(w)));
            let high = vpaddlq_u16(vmull_high_u8(x, w));
            vaddq_s32(acc, vreinterpretq_s32_u32(vpaddq_u32(low, high)))
        }
    }
}
