//! AVX-512 VBMI beside VNNI: lookups of bytes in tables that are held in registers.
//!
//! ```text
//! gather16, gather_tokens, each_token:  bytes of four columns to four bytes a token    vpermb of all of them in one register
//! lookup256:  result[i] = table[v[i]]     vpermi2b on each 128 bytes of the table, chosen by the top bit
//! store_2_bytes:  the low byte of each lane of two registers       vpermt2b, and one store
//! token:      sums of a group for one token (GEMV)        x is looked up in registers, see `token.rs`
//! ```

use super::{opaque, token};
use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// Which of the bytes of four columns, `width` tokens each, make the four bytes of tokens `first ..`, each of them `times`.
const fn of_four(width: usize, first: usize, times: usize) -> [u8; 64] {
    let mut select = [0; 64];
    let mut i = 0;
    while i < 64 {
        select[i] = (i % 4 * width + first + i / 4 / times) as u8;
        i += 1;
    }
    select
}

/// Four bytes at each of four pointers, one after another: masked broadcasts from memory, which leave the port of shuffles alone.
///
/// # Safety
/// The CPU has AVX-512 F and VL; four bytes can be read at each pointer.
#[inline(always)]
unsafe fn fours(lines: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller vouches for the instructions and the bytes.
    unsafe {
        let four = |c: usize| lines[c].cast::<i32>().read_unaligned();
        let all = _mm_set1_epi32(four(0));
        let all = _mm_mask_set1_epi32(all, opaque::<2>() as u8, four(1));
        let all = _mm_mask_set1_epi32(all, opaque::<4>() as u8, four(2));
        _mm512_castsi128_si512(_mm_mask_set1_epi32(all, opaque::<8>() as u8, four(3)))
    }
}

/// Eight bytes at each of four pointers, one after another.
///
/// # Safety
/// The CPU has AVX-512 F and VL; eight bytes can be read at each pointer.
#[inline(always)]
unsafe fn eights(lines: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller vouches for the instructions and the bytes.
    unsafe {
        let eight = |c: usize| lines[c].cast::<i64>().read_unaligned();
        let all = _mm256_set1_epi64x(eight(0));
        let all = _mm256_mask_set1_epi64(all, opaque::<2>() as u8, eight(1));
        let all = _mm256_mask_set1_epi64(all, opaque::<4>() as u8, eight(2));
        _mm512_castsi256_si512(_mm256_mask_set1_epi64(all, opaque::<8>() as u8, eight(3)))
    }
}

/// 512-bit registers, with `vpdpbusd`, `vpermb` and `vpermi2b`.
#[derive(Clone, Copy)]
pub struct Avx512Vbmi;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for Avx512Vbmi {
    vnni!();

    #[inline(always)]
    unsafe fn gather16(lines: [*const u8; 4]) -> [__m512i; 4] {
        const BYTES: [u8; 64] = of_four(16, 0, 1);
        // SAFETY: the caller vouches for the tier, and for 16 bytes at each pointer.
        unsafe {
            let line = |c: usize| _mm_loadu_si128(lines[c].cast());
            let all = _mm512_castsi128_si512(line(0));
            let all = _mm512_mask_broadcast_i32x4(all, 0x00f0, line(1));
            let all = _mm512_mask_broadcast_i32x4(all, 0x0f00, line(2));
            let all = _mm512_mask_broadcast_i32x4(all, 0xf000, line(3));
            [_mm512_permutexvar_epi8(_mm512_loadu_si512(BYTES.as_ptr().cast()), all); 4]
        }
    }

    #[inline(always)]
    unsafe fn each_token<const TOKENS: usize, const VECS: usize>(lines: [*const u8; 4]) -> [__m512i; VECS] {
        const FOUR: [u8; 64] = of_four(4, 0, 4);
        const EIGHT: [[u8; 64]; 2] = [of_four(8, 0, 4), of_four(8, 4, 4)];
        // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
        unsafe {
            if TOKENS == 4 {
                return [_mm512_permutexvar_epi8(_mm512_loadu_si512(FOUR.as_ptr().cast()), fours(lines));
                    VECS];
            }
            let all = eights(lines);
            let mut v = [all; VECS];
            for j in 0..VECS {
                v[j] = _mm512_permutexvar_epi8(_mm512_loadu_si512(EIGHT[j].as_ptr().cast()), all);
            }
            v
        }
    }

    #[inline(always)]
    unsafe fn gather_tokens<const TOKENS: usize, const VECS: usize>(
        lines: [*const u8; 4],
    ) -> [__m512i; VECS] {
        const FOUR: [u8; 64] = of_four(4, 0, 1);
        const EIGHT: [u8; 64] = of_four(8, 0, 1);
        // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
        unsafe {
            let (of, all) = if TOKENS == 4 { (&FOUR, fours(lines)) } else { (&EIGHT, eights(lines)) };
            [_mm512_permutexvar_epi8(_mm512_loadu_si512(of.as_ptr().cast()), all); VECS]
        }
    }

    // Measured on Zen 4. The fewer columns are stored, the more windows of 256 columns are searched for the same
    // number of them.
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

    const LOOKS_UP_BYTES: bool = true;

    #[inline(always)]
    unsafe fn lookup256(table: &[u8; 256], v: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier; a table of 256 bytes is four registers.
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

    #[inline(always)]
    unsafe fn store_2_bytes(p: *mut u8, v: [__m512i; 2]) {
        const LOW: [u8; 64] = {
            let mut select = [0; 64];
            let mut i = 0;
            while i < 64 {
                select[i] = (4 * i) as u8;
                i += 1;
            }
            select
        };
        // SAFETY: the caller vouches for the tier, and for as many bytes as both registers have lanes.
        unsafe {
            let bytes = _mm512_permutex2var_epi8(v[0], _mm512_loadu_si512(LOW.as_ptr().cast()), v[1]);
            _mm256_storeu_si256(p.cast(), _mm512_castsi512_si256(bytes));
        }
    }
}
