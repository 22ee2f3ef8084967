//! AVX-512 VBMI beside VNNI: lookups of bytes in tables that are held in registers.
//!
//! ```text
//! lookup256:  result[i] = table[v[i]]     vpermi2b on each 128 bytes of the table, chosen by the top bit
//! token:      sums of a group for one token (GEMV)        x is looked up in registers, see `token.rs`
//! ```

use super::token;
use crate::kernels::simd::Simd;
use std::arch::x86_64::*;

/// 512-bit registers, with `vpdpbusd`, `vpermb` and `vpermi2b`.
#[derive(Clone, Copy)]
pub struct Avx512Vbmi;

// SAFETY: each method is the instruction of that meaning; `vpdpbusd` (without s) does not saturate.
unsafe impl Simd for Avx512Vbmi {
    vnni!();

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
}
