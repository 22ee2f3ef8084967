//! AVX-VNNI: four byte products and their sum in one instruction (`vpdpbusd`), on 256-bit registers.
//!
//! ```text
//! acc[l] += x[4l] * w[4l] + x[4l+1] * w[4l+1] + x[4l+2] * w[4l+2] + x[4l+3] * w[4l+3]       x unsigned, w signed
//! ```

use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// 256-bit registers, with `vpdpbusd`.
#[derive(Clone, Copy)]
pub struct AvxVnni;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for AvxVnni {
    const X_BYTES: usize = 1;
    type X = __m256i;
    type W = __m256i;
    ymm!();

    #[inline(always)]
    unsafe fn x(quads: __m256i) -> __m256i {
        quads
    }

    #[inline(always)]
    unsafe fn w(quads: __m256i) -> __m256i {
        quads
    }

    #[inline(always)]
    unsafe fn dot(acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_dpbusd_avx_epi32(acc, x, w) }
    }

    #[inline(always)]
    unsafe fn dense_w(p: *const i8) -> __m256i {
        // SAFETY: the caller vouches for the tier and for 32 bytes at p.
        unsafe { Self::load(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::dot(acc, x, w) }
    }
}
