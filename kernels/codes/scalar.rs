//! The reference for binary codes: plain Rust over registers of eight 16-bit lanes, on every CPU.
//!
//! ```text
//! count: popcount(v[l])      total: unchanged, as a count has one part      less_twice: a[l] - 2 * b[l], wrapping
//! ```

use super::Popcount;
use std::array::from_fn;

/// Eight 16-bit lanes in an array.
#[derive(Clone, Copy)]
pub struct Plain;

// SAFETY: plain arithmetic on every CPU; pointers are used for exactly the elements the trait names.
unsafe impl Popcount for Plain {
    const LANES: usize = 8;
    type V = [u16; 8];

    #[inline(always)]
    unsafe fn splat(value: u16) -> [u16; 8] {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const u16) -> [u16; 8] {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { p.cast::<[u16; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u16, v: [u16; 8]) {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { p.cast::<[u16; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn xor(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        from_fn(|l| a[l] ^ b[l])
    }
    #[inline(always)]
    unsafe fn count(v: [u16; 8]) -> [u16; 8] {
        v.map(|v| v.count_ones() as u16)
    }
    #[inline(always)]
    unsafe fn add(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        from_fn(|l| a[l].wrapping_add(b[l]))
    }
    #[inline(always)]
    unsafe fn total(parts: [u16; 8]) -> [u16; 8] {
        parts
    }
    #[inline(always)]
    unsafe fn less_twice(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        from_fn(|l| a[l].wrapping_sub(b[l].wrapping_mul(2)))
    }
    #[inline(always)]
    unsafe fn min(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        from_fn(|l| (a[l] as i16).min(b[l] as i16) as u16)
    }
    #[inline(always)]
    unsafe fn below(a: [u16; 8], b: [u16; 8]) -> u64 {
        (0..8).fold(0, |bits, l| bits | u64::from((a[l] as i16) < b[l] as i16) << l)
    }
}
