//! AVX-512 VNNI: four byte products and their sum in one instruction; with VBMI also byte tables in registers; with BF16
//! also two bfloat16 products and their sum.

use super::token;
use crate::base::isa::Isa;
use crate::kernels::simd::{Bf16, Simd};
use std::arch::x86_64::*;

macro_rules! vnni {
    ($isa:ident) => {
        const ISA: Isa = Isa::$isa;
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
            // SAFETY: the caller vouches for the tier and 64 bytes.
            unsafe { Self::load(p.cast()) }
        }

        #[inline(always)]
        unsafe fn dense_dot<const I: i32>(acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, x, w) }
        }
    };
}

macro_rules! vbmi {
    () => {
        // Measured on Zen 4: the fewer, the more windows of 256 columns are searched for the same.
        const LOOKS_UP: [usize; 2] = [10, 33];

        #[inline(always)]
        unsafe fn token<const R: usize, const QUADS: bool>(
            x: &[u8],
            indices: *const u16,
            weights: *const i8,
            len: usize,
        ) -> [i32; 4] {
            // SAFETY: the caller vouches for the tier, the indices and the weights.
            unsafe { token::group::<R, QUADS>(x, indices, weights, len) }
        }

        #[inline(always)]
        unsafe fn lookup256(table: &[u8; 256], v: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier; the table has four registers of bytes.
            unsafe {
                let quarters = table.as_ptr().cast::<__m512i>();
                let low =
                    _mm512_permutex2var_epi8(quarters.read_unaligned(), v, quarters.add(1).read_unaligned());
                let high = _mm512_permutex2var_epi8(
                    quarters.add(2).read_unaligned(),
                    v,
                    quarters.add(3).read_unaligned(),
                );
                _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high)
            }
        }
    };
}

/// 512-bit `vpdpbusd`.
#[derive(Clone, Copy)]
pub struct Avx512Vnni;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for Avx512Vnni {
    vnni!(Avx512Vnni);
}

/// The same on CPUs that also have VBMI (Ice Lake, Zen 4 and later).
#[derive(Clone, Copy)]
pub struct Avx512VnniVbmi;

// SAFETY: as above.
unsafe impl Simd for Avx512VnniVbmi {
    vnni!(Avx512Vnni);
    vbmi!();
}

/// The same on CPUs that also have BF16 (Sapphire Rapids, Zen 4 and later).
#[derive(Clone, Copy)]
pub struct Avx512Bf16;

// SAFETY: as above.
unsafe impl Simd for Avx512Bf16 {
    vnni!(Avx512Bf16);
    vbmi!();
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
        // SAFETY: the caller vouches for the tier; a register of pairs is any bits.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(x),
                std::mem::transmute::<__m512i, __m512bh>(w),
            )
        }
    }
}
