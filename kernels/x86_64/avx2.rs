//! AVX2: exact dot products from 16-bit multiply-adds (`vpmaddubsw` would saturate).

use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// 256-bit AVX2 with FMA.
#[derive(Clone, Copy)]
pub struct Avx2;

// SAFETY: each method is the AVX2 instruction of that meaning.
unsafe impl Simd for Avx2 {
    const X_BYTES: usize = 2;
    /// Even bytes and odd bytes, each widened to 16 bits.
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
        // SAFETY: the caller vouches for the tier and 16 bytes.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(x, w)) }
    }
}
