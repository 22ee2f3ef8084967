//! The reference for binary codes: plain Rust over registers of eight 16-bit lanes, on every CPU.
//!
//! ```text
//! count: popcount(v[l])      total: unchanged, as a count has one part      less_twice: a[l] - 2 * b[l], wrapping
//! ```

use super::Popcount;

/// `[lane of 0, lane of 1, ..]`. `from_fn` would be functions within functions for the compiler to inline, wherever a kernel has a
/// register of this tier.
macro_rules! lanes {
    ($l:ident => $lane:expr) => {
        lanes!($l => $lane, 0 1 2 3 4 5 6 7)
    };
    ($l:ident => $lane:expr, $($number:literal)*) => {
        [$({
            let $l: usize = $number;
            $lane
        }),*]
    };
}

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
        lanes!(l => a[l] ^ b[l])
    }
    #[inline(always)]
    unsafe fn count(v: [u16; 8]) -> [u16; 8] {
        lanes!(l => v[l].count_ones() as u16)
    }
    #[inline(always)]
    unsafe fn add(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        lanes!(l => a[l].wrapping_add(b[l]))
    }
    #[inline(always)]
    unsafe fn total(parts: [u16; 8]) -> [u16; 8] {
        parts
    }
    #[inline(always)]
    unsafe fn less_twice(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        lanes!(l => a[l].wrapping_sub(b[l].wrapping_mul(2)))
    }
    #[inline(always)]
    unsafe fn min(a: [u16; 8], b: [u16; 8]) -> [u16; 8] {
        lanes!(l => (a[l] as i16).min(b[l] as i16) as u16)
    }
    #[inline(always)]
    unsafe fn below(a: [u16; 8], b: [u16; 8]) -> u64 {
        let [a, b, c, d, e, f, g, h] = lanes!(l => u64::from((a[l] as i16) < b[l] as i16) << l);
        a | b | c | d | e | f | g | h
    }
}
