//! Population counts of bytes on Arm (`cnt`), added up in pairs.
//!
//! ```text
//! count(byte) = cnt(byte), one count a byte;  total = low byte + high byte of each 16-bit lane (uaddlp)
//! ```

use crate::kernels::codes::Popcount;
use std::arch::aarch64::*;

/// 128-bit registers, with counts by `cnt`.
#[derive(Clone, Copy)]
pub struct NeonCounts;

// SAFETY: each method is, or is made of, the NEON instructions of that meaning. Parts are bytes: 16 counts add up to
// at most 128.
unsafe impl Popcount for NeonCounts {
    const LANES: usize = 8;
    type V = uint16x8_t;

    #[inline(always)]
    unsafe fn splat(value: u16) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vdupq_n_u16(value) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u16) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier and 16 bytes.
        unsafe { vld1q_u16(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u16, v: uint16x8_t) {
        // SAFETY: the caller vouches for the tier and 16 bytes.
        unsafe { vst1q_u16(p, v) }
    }

    #[inline(always)]
    unsafe fn xor(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { veorq_u16(a, b) }
    }

    #[inline(always)]
    unsafe fn count(v: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vreinterpretq_u16_u8(vcntq_u8(vreinterpretq_u8_u16(v))) }
    }

    #[inline(always)]
    unsafe fn add(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vreinterpretq_u16_u8(vaddq_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b))) }
    }

    #[inline(always)]
    unsafe fn total(parts: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vpaddlq_u8(vreinterpretq_u8_u16(parts)) }
    }

    #[inline(always)]
    unsafe fn less_twice(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vsubq_u16(a, vaddq_u16(b, b)) }
    }

    #[inline(always)]
    unsafe fn min(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { vreinterpretq_u16_s16(vminq_s16(vreinterpretq_s16_u16(a), vreinterpretq_s16_u16(b))) }
    }

    #[inline(always)]
    unsafe fn below(a: uint16x8_t, b: uint16x8_t) -> u64 {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let lanes = vcltq_s16(vreinterpretq_s16_u16(a), vreinterpretq_s16_u16(b));
            let bits = [1u16, 2, 4, 8, 16, 32, 64, 128];
            u64::from(vaddvq_u16(vandq_u16(lanes, vld1q_u16(bits.as_ptr()))))
        }
    }
}
