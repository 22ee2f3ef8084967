//! AVX-512 without VNNI: exact dot products of bytes from 16-bit multiply-adds (`vpmaddwd`), as in AVX2.
//!
//! ```text
//! x even, x odd:  even and odd bytes, zero-extended to 16 bits        w even, w odd:  likewise, sign-extended
//! acc[l] += (x even * w even + x odd * w odd) summed over the two 16-bit elements of lane l
//! dense:  x and w are 16-bit in memory order:  acc[l] += x[2l] * w[2l] + x[2l + 1] * w[2l + 1]
//! ```

use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// 512-bit registers of AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub struct Avx512;

// SAFETY: each method is, or is made of, the AVX-512 instructions of that meaning.
unsafe impl Simd for Avx512 {
    const X_BYTES: usize = 2;
    /// Even bytes and odd bytes, each extended to 16 bits.
    type X = [__m512i; 2];
    type W = [__m512i; 2];
    zmm!();
    gathers!();

    #[inline(always)]
    unsafe fn x(quads: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe { [_mm512_and_si512(quads, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(quads)] }
    }

    const SHIFTS: bool = true;

    #[inline(always)]
    unsafe fn shift(x: [__m512i; 2], by: i32) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let by = _mm512_set1_epi16(by as i16);
            [_mm512_add_epi16(x[0], by), _mm512_add_epi16(x[1], by)]
        }
    }

    #[inline(always)]
    unsafe fn w(quads: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe { [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(quads)), _mm512_srai_epi16::<8>(quads)] }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m512i, x: [__m512i; 2], w: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let acc = _mm512_add_epi32(acc, _mm512_madd_epi16(x[0], w[0]));
            _mm512_add_epi32(acc, _mm512_madd_epi16(x[1], w[1]))
        }
    }

    #[inline(always)]
    unsafe fn dense_w(p: *const i8) -> __m512i {
        // SAFETY: the caller vouches for the tier and for 32 bytes at p.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(x, w)) }
    }
}
