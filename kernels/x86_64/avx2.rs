//! AVX2: exact dot products of bytes from 16-bit multiply-adds (`vpmaddwd`); `vpmaddubsw` would saturate.
//!
//! ```text
//! x even, x odd:  even and odd bytes, zero-extended to 16 bits        w even, w odd:  likewise, sign-extended
//! acc[l] += (x even * w even + x odd * w odd) summed over the two 16-bit elements of lane l
//! dense:  x and w are 16-bit in memory order:  acc[l] += x[2l] * w[2l] + x[2l + 1] * w[2l + 1]
//! ```

use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// 256-bit registers of AVX2 with FMA.
#[derive(Clone, Copy)]
pub struct Avx2;

// SAFETY: each method is, or is made of, the AVX2 instructions of that meaning.
unsafe impl Simd for Avx2 {
    const X_BYTES: usize = 2;
    /// Even bytes and odd bytes, each extended to 16 bits.
    type X = [__m256i; 2];
    type W = [__m256i; 2];
    ymm!();

    #[inline(always)]
    unsafe fn x(quads: __m256i) -> [__m256i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe { [_mm256_and_si256(quads, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(quads)] }
    }

    const SHIFTS: bool = true;

    #[inline(always)]
    unsafe fn shift(x: [__m256i; 2], by: i32) -> [__m256i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let by = _mm256_set1_epi16(by as i16);
            [_mm256_add_epi16(x[0], by), _mm256_add_epi16(x[1], by)]
        }
    }

    #[inline(always)]
    unsafe fn w(quads: __m256i) -> [__m256i; 2] {
        // SAFETY: the caller vouches for the tier.
        unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads)), _mm256_srai_epi16::<8>(quads)] }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x[0], w[0]));
            _mm256_add_epi32(acc, _mm256_madd_epi16(x[1], w[1]))
        }
    }

    #[inline(always)]
    unsafe fn dense_w(p: *const i8) -> __m256i {
        // SAFETY: the caller vouches for the tier and for 16 bytes at p.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(x, w)) }
    }
}
