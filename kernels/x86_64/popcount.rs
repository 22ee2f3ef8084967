//! Population counts on x86-64: by a table of nibbles in a register (`vpshufb`), or by an instruction (`vpopcntw`).
//!
//! ```text
//! Nibbles:  count(byte) = table[byte & 15] + table[byte >> 4], one count a byte;  total = low byte + high byte
//! Words:    count(lane) = vpopcntw(lane), one count for 16 bits;                  total unchanged
//! ```

use crate::kernels::codes::Popcount;
use std::arch::x86_64::*;

/// 256-bit registers, with counts by `vpshufb`.
#[derive(Clone, Copy)]
pub struct Avx2Nibbles;

/// 512-bit registers, with counts by `vpshufb`.
#[derive(Clone, Copy)]
pub struct Avx512Nibbles;

/// 512-bit registers, with counts by `vpopcntw` (AVX-512 BITALG).
#[derive(Clone, Copy)]
pub struct Avx512Words;

/// The number of bits set in each of the 16 nibbles, as a table.
macro_rules! nibbles {
    () => {
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4)
    };
}

// SAFETY: each method is, or is made of, the AVX2 instructions of that meaning. Parts are bytes: 16 counts add up to
// at most 128.
unsafe impl Popcount for Avx2Nibbles {
    const LANES: usize = 16;
    type V = __m256i;

    #[inline(always)]
    unsafe fn splat(value: u16) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_set1_epi16(value as i16) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u16) -> __m256i {
        // SAFETY: the caller vouches for the tier and 32 bytes.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u16, v: __m256i) {
        // SAFETY: the caller vouches for the tier and 32 bytes.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }

    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn count(v: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let (table, low) = (_mm256_broadcastsi128_si256(nibbles!()), _mm256_set1_epi8(15));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(v), low);
            let low = _mm256_and_si256(v, low);
            _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high))
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_add_epi8(a, b) }
    }

    #[inline(always)]
    unsafe fn total(parts: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let low = _mm256_and_si256(parts, _mm256_set1_epi16(0xff));
            _mm256_add_epi16(low, _mm256_srli_epi16::<8>(parts))
        }
    }

    #[inline(always)]
    unsafe fn less_twice(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_sub_epi16(a, _mm256_add_epi16(b, b)) }
    }

    #[inline(always)]
    unsafe fn min(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_min_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn below(a: __m256i, b: __m256i) -> u64 {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let lanes = _mm256_cmpgt_epi16(b, a);
            // The results are bits 0 to 7 and 16 to 23.
            let bits = _mm256_movemask_epi8(_mm256_packs_epi16(lanes, _mm256_setzero_si256())) as u64;
            (bits | bits >> 8) & 0xffff
        }
    }
}

/// The methods that 512-bit registers share.
macro_rules! words {
    () => {
        const LANES: usize = 32;
        type V = __m512i;

        #[inline(always)]
        unsafe fn splat(value: u16) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_set1_epi16(value as i16) }
        }

        #[inline(always)]
        unsafe fn load(p: *const u16) -> __m512i {
            // SAFETY: the caller vouches for the tier and 64 bytes.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn store(p: *mut u16, v: __m512i) {
            // SAFETY: the caller vouches for the tier and 64 bytes.
            unsafe { _mm512_storeu_si512(p.cast(), v) }
        }

        #[inline(always)]
        unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_xor_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn less_twice(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_sub_epi16(a, _mm512_add_epi16(b, b)) }
        }

        #[inline(always)]
        unsafe fn min(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_min_epi16(a, b) }
        }

        #[inline(always)]
        unsafe fn below(a: __m512i, b: __m512i) -> u64 {
            // SAFETY: the caller vouches for the tier.
            unsafe { u64::from(_mm512_cmplt_epi16_mask(a, b)) }
        }
    };
}

// SAFETY: each method is, or is made of, the AVX-512 instructions of that meaning. Parts are bytes: 16 counts add up
// to at most 128.
unsafe impl Popcount for Avx512Nibbles {
    words!();

    #[inline(always)]
    unsafe fn count(v: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let (table, low) = (_mm512_broadcast_i32x4(nibbles!()), _mm512_set1_epi8(15));
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(v), low);
            let low = _mm512_and_si512(v, low);
            _mm512_add_epi8(_mm512_shuffle_epi8(table, low), _mm512_shuffle_epi8(table, high))
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm512_add_epi8(a, b) }
    }

    #[inline(always)]
    unsafe fn total(parts: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let low = _mm512_and_si512(parts, _mm512_set1_epi16(0xff));
            _mm512_add_epi16(low, _mm512_srli_epi16::<8>(parts))
        }
    }
}

// SAFETY: each method is, or is made of, the AVX-512 instructions of that meaning. A part is a whole 16-bit lane.
unsafe impl Popcount for Avx512Words {
    words!();

    #[inline(always)]
    unsafe fn count(v: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm512_popcnt_epi16(v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm512_add_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn total(parts: __m512i) -> __m512i {
        parts
    }
}
