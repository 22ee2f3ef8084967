//! AVX-512 BF16: two bfloat16 products and their sum in one instruction (`vdpbf16ps`).
//!
//! ```text
//! acc[l] += x[2l] * w[2l] + x[2l + 1] * w[2l + 1]        in f32, rounded as the instruction does it
//! ```

use crate::kernels::simd::{Bf16, Simd};
use std::arch::x86_64::*;

/// 512-bit registers, with `vdpbf16ps`. Kernels of other elements run on the registers of other ISAs.
#[derive(Clone, Copy)]
pub struct Avx512Bf16;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for Avx512Bf16 {
    vnni!();
    gathers!();
}

// SAFETY: the instruction of that meaning.
unsafe impl Bf16 for Avx512Bf16 {
    #[inline(always)]
    unsafe fn zip(a: __m512i, b: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe { [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)] }
    }
    #[inline(always)]
    unsafe fn dot_bf16<const I: i32>(acc: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: the caller vouches for the tier; any bits are a valid register of bfloat16.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(x),
                std::mem::transmute::<__m512i, __m512bh>(w),
            )
        }
    }
}
