//! Dot products of Arm (`sdot`, `udot`): four byte products and their sum in one instruction, of bytes that are all
//! signed or all unsigned.
//!
//! ```text
//! acc[l] += sum over i in 0..4:  x[4l + i] * w[4l + i]                  or, of element I of one operand, x[4I + i]
//! ```

use crate::kernels::simd::{LINE, Simd};
use std::arch::aarch64::*;

dot!(sdot, "sdot", "16b", "4b");
dot!(udot, "udot", "16b", "4b");

/// 128-bit registers, with `sdot` for linear layers and `udot` for attention.
#[derive(Clone, Copy)]
pub struct NeonDot;

// SAFETY: each method is the instruction of that meaning.
unsafe impl Simd for NeonDot {
    const MIXED: bool = false;
    vector!();

    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, x, w) }
    }

    #[inline(always)]
    unsafe fn dot_quad<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, x, w, I) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, w, x, I) }
    }

    #[inline(always)]
    unsafe fn dot_key(acc: int32x4_t, x: int32x4_t, key: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { udot!(acc, x, key) }
    }

    #[inline(always)]
    unsafe fn dot_columns<const I: i32>(acc: int32x4_t, x: int32x4_t, columns: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { udot!(acc, columns, x, I) }
    }
}
