//! AVX-512 VNNI: four byte products and their sum in one instruction (`vpdpbusd`).
//!
//! ```text
//! acc[l] += x[4l] * w[4l] + x[4l+1] * w[4l+1] + x[4l+2] * w[4l+2] + x[4l+3] * w[4l+3]       x unsigned, w signed
//! ```

use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// The methods of [`Simd`] with `vpdpbusd`. An ISA above this one uses them and adds its own.
macro_rules! vnni {
    () => {
        const X_BYTES: usize = 1;
        type X = __m512i;
        type W = __m512i;
        zmm!();

        #[inline(always)]
        unsafe fn x(quads: __m512i) -> __m512i {
            quads
        }

        #[inline(always)]
        unsafe fn w(quads: __m512i) -> __m512i {
            quads
        }

        #[inline(always)]
        unsafe fn dot(acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_dpbusd_epi32(acc, x, w) }
        }

        #[inline(always)]
        unsafe fn dense_w(p: *const i8) -> __m512i {
            // SAFETY: the caller vouches for the tier and for 64 bytes at p.
            unsafe { Self::load(p.cast()) }
        }

        #[inline(always)]
        unsafe fn dense_dot<const I: i32>(acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, x, w) }
        }
    };
}

/// 512-bit registers, with `vpdpbusd`.
#[derive(Clone, Copy)]
pub struct Avx512Vnni;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for Avx512Vnni {
    vnni!();
    gathers!();
}
