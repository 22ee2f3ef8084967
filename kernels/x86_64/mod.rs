//! x86-64 tiers: the registers of each, as implementations of `Simd` and `Popcount`. All loops but those of
//! `lookup.rs` and `token.rs` are written over these traits, one level up.
//!
//! ```text
//! ymm!, zmm!    the methods that 256-bit and 512-bit registers share     avx2, avx_vnni, avx512 ..  dot products
//! four_floats!  registers of four floats
//! gather!       to[4 e + i] = x[indices[4 e + i]], for four entries e of four columns
//! ```

/// Registers of four floats, for any width of the others.
macro_rules! four_floats {
    () => {
        type R = __m128;

        #[inline(always)]
        unsafe fn load_r<const ROWS: usize>(p: *const f32) -> __m128 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match ROWS {
                    1 => _mm_set_ss(p.read_unaligned()),
                    2 => _mm_castsi128_ps(_mm_loadl_epi64(p.cast())),
                    _ => _mm_loadu_ps(p),
                }
            }
        }

        #[inline(always)]
        unsafe fn store_r<const ROWS: usize>(p: *mut f32, v: __m128) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match ROWS {
                    1 => _mm_store_ss(p, v),
                    2 => _mm_storel_epi64(p.cast(), _mm_castps_si128(v)),
                    _ => _mm_storeu_ps(p, v),
                }
            }
        }

        #[inline(always)]
        unsafe fn add_product(acc: __m128, x: *const f32, w: __m128) -> __m128 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm_fmadd_ps(_mm_set1_ps(x.read_unaligned()), w, acc) }
        }
    };
}
pub(crate) use four_floats;

/// Gathers four entries of any four columns, by a load for each byte. To insert bytes one by one costs less than to
/// combine whole registers.
macro_rules! gather {
    () => {
        #[inline(always)]
        unsafe fn gather4(x: *const u8, indices: *const u16, to: *mut u32) {
            // SAFETY: the caller vouches for the tier, for 16 indices inside x, and for 16 bytes at `to`.
            unsafe {
                let mut quads = _mm_setzero_si128();
                macro_rules! insert {
                    ($four:literal: $a:literal $b:literal $c:literal $d:literal) => {
                        let four = indices.add(4 * $four).cast::<u64>().read_unaligned() as usize;
                        quads = _mm_insert_epi8::<$a>(quads, i32::from(*x.add(four & 0xffff)));
                        quads = _mm_insert_epi8::<$b>(quads, i32::from(*x.add(four >> 16 & 0xffff)));
                        quads = _mm_insert_epi8::<$c>(quads, i32::from(*x.add(four >> 32 & 0xffff)));
                        quads = _mm_insert_epi8::<$d>(quads, i32::from(*x.add(four >> 48)));
                    };
                }
                insert!(0: 0 1 2 3);
                insert!(1: 4 5 6 7);
                insert!(2: 8 9 10 11);
                insert!(3: 12 13 14 15);
                _mm_storeu_si128(to.cast(), quads);
            }
        }
    };
}

#[macro_use]
mod ymm;
#[macro_use]
mod zmm;
#[macro_use]
mod zmm_gathers;
#[macro_use]
mod avx512_vnni;
mod avx2;
mod avx512;
mod avx512_bf16;
mod avx512_vbmi;
mod avx_vnni;
mod lookup;
mod popcount;
mod token;

/// The rows of these CPUs, lowest first: see `kernels::table`.
pub mod rows {
    use super::avx_vnni::AvxVnni;
    use super::avx2::Avx2;
    use super::avx512::Avx512;
    use super::avx512_bf16::Avx512Bf16;
    use super::avx512_vbmi::Avx512Vbmi;
    use super::avx512_vnni::Avx512Vnni;
    use super::lookup;
    use super::popcount::{Avx2Nibbles, Avx512Nibbles, Avx512Words};
    use crate::kernels::tier::tiers;

    tiers! {
        avx2 {
            packing { Avx2 }
            bytes {
                Avx2, types "u8i8",
                sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 4, 4 x 16 by 2, 1 x 16 by 2],
                dense 6 x 16: 2 registers x [1 unroll 2, 2, 3, 4, 5, 6],
                attention "u8i8" 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            floats {
                Avx2,
                dense 6 x 16: 2 registers x [1, 2, 3, 4, 5, 6], panels [1 x 4, 2 x 2, 3 x 2],
                gather [4 x 32 by 2, 2 x 32 by 4, 1 x 32 by 4, 4 x 16 by 2, 2 x 16 by 2, 1 x 16 by 2],
                two [], scatter [32 by 2, 16 by 2],
                attention 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            pairs { none }
            codes { Avx2Nibbles, 2 x 16: [1 x 2, 2 x 2, 3 x 2, 4 x 1, 6 x 1, 8 x 1, 12 x 1, 16 x 1] }
        }

        avx_vnni {
            packing { of avx2 }
            bytes {
                AvxVnni, types "u8i8",
                sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 4, 4 x 16 by 2, 1 x 16 by 2],
                dense 6 x 16: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6],
                attention "u8i8" 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            floats { of avx2 }
            pairs { none }
            codes { of avx2 }
        }

        avx512 {
            packing { Avx512 }
            bytes {
                Avx512, types "u8i8",
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 2, 4 x 16 by 1, 1 x 16 by 1],
                dense 12 x 32: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                attention "u8i8" 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            floats {
                Avx512,
                dense 12 x 32: 2 registers x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels [1 x 4, 2 x 2, 3 x 2],
                gather [4 x 32 by 2, 2 x 32 by 2, 1 x 32 by 2, 4 x 16 by 1, 2 x 16 by 1, 1 x 16 by 1],
                two [4 x 64 by 2, 2 x 64 by 2, 1 x 64 by 2], scatter [32 by 2, 16 by 1],
                attention 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            pairs { none }
            codes { Avx512Nibbles, 4 x 32: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
        }

        avx512_vnni {
            packing { of avx512 }
            bytes {
                Avx512Vnni, types "u8i8",
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 2, 4 x 16 by 1, 1 x 16 by 1] and tall,
                dense 12 x 32: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                attention "u8i8" 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            floats { of avx512 }
            pairs { none }
            codes { of avx512 }
        }

        avx512_vbmi {
            packing { Avx512Vbmi }
            bytes {
                Avx512Vbmi, types "u8i8", sums of avx512_vnni, lookup by lookup,
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 2, 1 x 32 by 2, 4 x 16 by 1, 1 x 16 by 1] and tall
            }
            floats { of avx512 }
            pairs { none }
            codes { Avx512Words, 4 x 32: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
        }

        avx512_bf16 {
            packing { of avx512_vbmi }
            bytes { of avx512_vbmi }
            floats { of avx512 }
            pairs {
                Avx512Bf16,
                dense 12 x 32: 2 registers x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels [1 x 4, 2 x 2, 3 x 2],
                gather [4 x 64 by 4, 2 x 64 by 4, 1 x 64 by 4, 4 x 16 by 1, 2 x 16 by 1, 1 x 16 by 1],
                two [], scatter [64 by 4, 16 by 1],
                attention 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
            }
            codes { of avx512_vbmi }
        }
    }
}

/// Loads four elements of 2 bytes from `p`, and four from `p + stride` (bytes).
///
/// # Safety
/// 8 bytes can be read at both places.
#[inline(always)]
unsafe fn two_parts(p: *const u8, stride: usize) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for 8 bytes at both places.
    unsafe { _mm_unpacklo_epi64(_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(stride).cast())) }
}

/// A mask of lanes that the compiler cannot see through. With a known constant it makes moves and shuffles of masked broadcasts from
/// memory, and shuffles are what there is one port for on Intel's cores.
#[inline(always)]
fn opaque<const MASK: u16>() -> u16 {
    let mask: u32;
    // SAFETY: the instruction writes its one register and nothing else.
    unsafe {
        std::arch::asm!("mov {0:e}, {1}", out(reg) mask, const MASK, options(pure, nomem, nostack, preserves_flags));
    }
    mask as u16
}

/// The four bytes of four columns for each of four tokens.
///
/// # Safety
/// The CPU has AVX; four bytes can be read at each pointer.
#[inline(always)]
unsafe fn quads_of_4(lines: [*const u8; 4]) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for four bytes at each pointer.
    unsafe {
        let four = |c: usize| _mm_cvtsi32_si128(lines[c].cast::<i32>().read_unaligned());
        let (ab, cd) = (_mm_unpacklo_epi8(four(0), four(1)), _mm_unpacklo_epi8(four(2), four(3)));
        _mm_unpacklo_epi16(ab, cd)
    }
}

/// The four bytes of four columns for each of eight tokens.
///
/// # Safety
/// The CPU has AVX; eight bytes can be read at each pointer.
#[inline(always)]
unsafe fn quads_of_8(lines: [*const u8; 4]) -> [std::arch::x86_64::__m128i; 2] {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for eight bytes at each pointer.
    unsafe {
        let eight = |c: usize| _mm_loadl_epi64(lines[c].cast());
        let (ab, cd) = (_mm_unpacklo_epi8(eight(0), eight(1)), _mm_unpacklo_epi8(eight(2), eight(3)));
        [_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)]
    }
}

/// Rounds f32 to bfloat16, to nearest even, into the upper half of each lane; NaN stays NaN. The lower half is
/// undefined.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn round_to_bf16(f: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let bits = _mm512_castps_si512(f);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        // Rounding could turn a NaN into infinity, so a NaN keeps its bits with the quiet bit set.
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(f, f);
        _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000))
    }
}
