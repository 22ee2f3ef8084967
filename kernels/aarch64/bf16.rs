//! Dot products and products of matrices of bfloat16 (`bfdot`, `bfmmla`), beside those of bytes.
//!
//! ```text
//! dot:     acc[l]      += x[2I] * w[2l] + x[2I + 1] * w[2l + 1]        of the pair in element I of x
//! matrix:  acc[2i + j] += sum over k in 0..4:  x[4i + k] * w[4j + k]
//! ```

use super::matrix;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::simd::{Bf16, LINE, Simd};
use std::arch::aarch64::*;

dot!(bfdot, "bfdot", "8h", "2h");

/// 128-bit registers, with `bfdot` and `bfmmla`. Kernels of other elements run on the registers of other ISAs.
#[derive(Clone, Copy)]
pub struct NeonBf16;

// SAFETY: each method is the instruction of that meaning.
unsafe impl Simd for NeonBf16 {
    mixed!();
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

    #[inline(always)]
    unsafe fn matrix_bf16(acc: float32x4_t, x: int32x4_t, w: int32x4_t) -> float32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::as_f(matrix::product_bf16(Self::as_v(acc), x, w)) }
    }

    #[inline(always)]
    unsafe fn tile_bf16<const MR: usize, const NV: usize, const READY: bool>(t: &Tile) {
        // SAFETY: the caller vouches for the tier and for the tile.
        unsafe { matrix::tile::<Self, matrix::Pairs, MR, NV, READY>(t) }
    }
}
