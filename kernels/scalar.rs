//! The reference tier: plain Rust over four lanes, on every CPU.
//!
//! What becomes calls of the math library on the oldest CPUs of its architecture (a fused multiply-add, a round half to even) or
//! dozens of instructions (f16) is a function of its own: inlined into every kernel it was a third of the whole library.

use super::simd::Simd;
use half::{bf16, f16};

/// `[lane of 0, lane of 1, ..]`. `from_fn` would be functions within functions for the compiler to inline, wherever a kernel has a
/// register of this tier.
macro_rules! lanes {
    ($l:ident => $lane:expr) => {
        lanes!($l => $lane, 0 1 2 3)
    };
    ($l:ident => $lane:expr, $($number:literal)*) => {
        [$({
            let $l: usize = $number;
            $lane
        }),*]
    };
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Scalar;

/// `a * b + c`, rounded once.
#[cfg_attr(any(target_arch = "x86_64", target_arch = "x86"), inline(never))]
fn fused(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
    lanes!(l => a[l].mul_add(b[l], c[l]))
}

/// To the nearest integer, ties to even.
#[cfg_attr(any(target_arch = "x86_64", target_arch = "x86"), inline(never))]
fn rounded(a: [f32; 4]) -> [f32; 4] {
    a.map(f32::round_ties_even)
}

/// To the nearest integers, ties to even; what is too large becomes the largest, NaN 0.
#[inline(never)]
fn to_integers(f: [f32; 4]) -> [i32; 4] {
    f.map(|f| f.round_ties_even() as i32)
}

/// Each of 16 integers plus `zero` as the nearest byte.
#[inline(never)]
fn to_bytes(v: &[[i32; 4]; 4], zero: i32) -> [i32; 4] {
    lanes!(j => i32::from_le_bytes(v[j].map(|q| q.saturating_add(zero).clamp(0, 255) as u8)))
}

/// f16 to f32.
#[inline(never)]
fn from_f16(bits: [u16; 4]) -> [f32; 4] {
    bits.map(|v| f16::from_bits(v).to_f32())
}

/// f32 to f16, rounded to nearest even.
#[inline(never)]
fn to_f16(f: [f32; 4]) -> [u16; 4] {
    f.map(|f| f16::from_f32(f).to_bits())
}

/// f32 to bfloat16, rounded to nearest even.
#[inline(never)]
fn to_bf16(f: [f32; 4]) -> [u16; 4] {
    f.map(|f| bf16::from_f32(f).to_bits())
}

/// Byte `i` of a register of four lanes.
fn byte(v: [i32; 4], i: usize) -> u8 {
    v[i / 4].to_le_bytes()[i % 4]
}

// SAFETY: plain arithmetic on every CPU; pointers are used for exactly the bytes the trait names.
unsafe impl Simd for Scalar {
    const REGISTERS: usize = 16;
    const LANES: usize = 4;
    const X_BYTES: usize = 1;
    const ONE_INSTRUCTION: bool = false;
    const MIXED: bool = true;
    const QUADS: usize = 1;
    type V = [i32; 4];
    type R = [f32; 4];
    type F = [f32; 4];
    type X = [i32; 4];
    type W = [i32; 4];
    type Q = [i32; 4];

    #[inline(always)]
    unsafe fn splat(value: i32) -> [i32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> [i32; 4] {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { p.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, v: [i32; 4]) {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { p.cast::<[i32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes!(l => a[l].wrapping_add(b[l]))
    }
    #[inline(always)]
    unsafe fn x(quads: [i32; 4]) -> [i32; 4] {
        quads
    }
    #[inline(always)]
    unsafe fn w(quads: [i32; 4]) -> [i32; 4] {
        quads
    }
    #[inline(always)]
    unsafe fn dot(acc: [i32; 4], x: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        lanes!(l => {
            let (x, w) = (x[l].to_le_bytes(), w[l].to_le_bytes());
            let [a, b, c, d] = lanes!(i => i32::from(x[i]) * i32::from(w[i] as i8));
            acc[l].wrapping_add(a).wrapping_add(b).wrapping_add(c).wrapping_add(d)
        })
    }
    #[inline(always)]
    unsafe fn interleave(a: [i32; 4], b: [i32; 4], c: [i32; 4], d: [i32; 4]) -> [[i32; 4]; 4] {
        lanes!(j => {
            lanes!(l => {
                let i = 4 * j + l;
                i32::from_le_bytes([byte(a, i), byte(b, i), byte(c, i), byte(d, i)])
            })
        })
    }
    #[inline(always)]
    unsafe fn gather16(lines: [*const u8; 4]) -> [[i32; 4]; 4] {
        // SAFETY: the caller vouches for 16 bytes at each pointer.
        unsafe {
            Self::interleave(
                Self::load(lines[0]),
                Self::load(lines[1]),
                Self::load(lines[2]),
                Self::load(lines[3]),
            )
        }
    }
    #[inline(always)]
    unsafe fn zip_lanes(a: [i32; 4], b: [i32; 4]) -> [[i32; 4]; 2] {
        [[a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]]]
    }
    #[inline(always)]
    unsafe fn each_part(p: *const u8) -> [i32; 4] {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn quad(p: *const u8) -> [i32; 4] {
        // SAFETY: the caller vouches for 4 bytes.
        [unsafe { p.cast::<i32>().read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn all<const I: i32>(q: [i32; 4]) -> [i32; 4] {
        q
    }
    #[inline(always)]
    unsafe fn dot_quad<const I: i32>(acc: [i32; 4], x: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        // SAFETY: plain arithmetic.
        unsafe { Self::dot(acc, x, w) }
    }
    #[inline(always)]
    unsafe fn dot_columns<const I: i32>(acc: [i32; 4], x: [i32; 4], columns: [i32; 4]) -> [i32; 4] {
        // SAFETY: plain arithmetic.
        unsafe { Self::dot(acc, x, columns) }
    }
    #[inline(always)]
    unsafe fn transpose4(v: [[i32; 4]; 4]) -> [[i32; 4]; 4] {
        lanes!(c => lanes!(r => v[r][c]))
    }
    #[inline(always)]
    unsafe fn store_parts(p: *mut u8, _stride: usize, v: [i32; 4]) {
        // SAFETY: one part: the caller vouches for 16 bytes.
        unsafe { Self::store(p, v) }
    }
    #[inline(always)]
    unsafe fn load_parts(p: *const u8, _stride: usize) -> [i32; 4] {
        // SAFETY: one part: the caller vouches for 16 bytes.
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn mul(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes!(l => a[l].wrapping_mul(b[l]))
    }
    #[inline(always)]
    unsafe fn sub(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes!(l => a[l].wrapping_sub(b[l]))
    }
    #[inline(always)]
    unsafe fn max(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes!(l => a[l].max(b[l]))
    }
    #[inline(always)]
    unsafe fn xor(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes!(l => a[l] ^ b[l])
    }
    #[inline(always)]
    unsafe fn quad_of_each(p: *const u8) -> [i32; 4] {
        // SAFETY: as the caller.
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn sum(v: [i32; 4]) -> i32 {
        v[0].wrapping_add(v[1]).wrapping_add(v[2]).wrapping_add(v[3])
    }
    #[inline(always)]
    unsafe fn add_bytes(acc: [i32; 4], bytes: [i32; 4]) -> [i32; 4] {
        lanes!(l => {
            let [a, b, c, d] = bytes[l].to_le_bytes();
            acc[l].wrapping_add(i32::from(a) + i32::from(b) + i32::from(c) + i32::from(d))
        })
    }
    #[inline(always)]
    unsafe fn dense_w(p: *const i8) -> [i32; 4] {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { Self::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn dense_dot<const I: i32>(acc: [i32; 4], x: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        // SAFETY: plain arithmetic.
        unsafe { Self::dot(acc, x, w) }
    }
    #[inline(always)]
    unsafe fn repeat<const R: usize>(p: *const u8) -> [i32; 4] {
        // SAFETY: the caller vouches for 16 bytes where R is 1, else for 4.
        unsafe { if R == 1 { Self::load(p) } else { Self::quad(p) } }
    }
    #[inline(always)]
    unsafe fn as_f(v: [i32; 4]) -> [f32; 4] {
        lanes!(l => f32::from_bits(v[l] as u32))
    }
    #[inline(always)]
    unsafe fn as_v(f: [f32; 4]) -> [i32; 4] {
        lanes!(l => f[l].to_bits() as i32)
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> [f32; 4] {
        // SAFETY: the caller vouches for 8 bytes.
        let v = unsafe { p.cast::<[u16; 4]>().read_unaligned() };
        lanes!(l => f32::from_bits(u32::from(v[l]) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> [f32; 4] {
        // SAFETY: the caller vouches for 8 bytes.
        from_f16(unsafe { p.cast::<[u16; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> [f32; 4] {
        // SAFETY: the caller vouches for 4 bytes.
        let v = unsafe { p.cast::<[i8; 4]>().read_unaligned() };
        lanes!(l => f32::from(v[l]))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, f: [f32; 4]) {
        // SAFETY: the caller vouches for 8 bytes.
        unsafe { p.cast::<[u16; 4]>().write_unaligned(to_bf16(f)) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, f: [f32; 4]) {
        // SAFETY: the caller vouches for 8 bytes.
        unsafe { p.cast::<[u16; 4]>().write_unaligned(to_f16(f)) }
    }
    #[inline(always)]
    unsafe fn to_f32(v: [i32; 4]) -> [f32; 4] {
        lanes!(l => v[l] as f32)
    }
    #[inline(always)]
    unsafe fn round(f: [f32; 4]) -> [i32; 4] {
        to_integers(f)
    }
    #[inline(always)]
    unsafe fn splat_f(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for 4 floats.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_f(p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller vouches for 4 floats.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        fused(a, b, c)
    }
    #[inline(always)]
    unsafe fn load_r<const ROWS: usize>(p: *const f32) -> [f32; 4] {
        let mut v = [0.0; 4];
        // SAFETY: the caller vouches for as many floats.
        unsafe { p.cast::<u8>().copy_to_nonoverlapping(v.as_mut_ptr().cast(), 4 * ROWS) };
        v
    }
    #[inline(always)]
    unsafe fn store_r<const ROWS: usize>(p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller vouches for as many floats.
        unsafe { v.as_ptr().cast::<u8>().copy_to_nonoverlapping(p.cast(), 4 * ROWS) };
    }
    #[inline(always)]
    unsafe fn add_product(acc: [f32; 4], x: *const f32, w: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller vouches for a float at x.
        fused([unsafe { x.read_unaligned() }; 4], w, acc)
    }
    #[inline(always)]
    unsafe fn add_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => a[l] + b[l])
    }
    #[inline(always)]
    unsafe fn sub_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => a[l] - b[l])
    }
    #[inline(always)]
    unsafe fn mul_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => a[l] * b[l])
    }
    #[inline(always)]
    unsafe fn div_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => a[l] / b[l])
    }
    #[inline(always)]
    unsafe fn min_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => if a[l] < b[l] { a[l] } else { b[l] })
    }
    #[inline(always)]
    unsafe fn max_f(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes!(l => if a[l] > b[l] { a[l] } else { b[l] })
    }
    #[inline(always)]
    unsafe fn abs_min_f(a: [f32; 4], limit: [f32; 4]) -> [f32; 4] {
        lanes!(l => if a[l].abs() < limit[l] { a[l].abs() } else { limit[l] })
    }
    #[inline(always)]
    unsafe fn reduce_f(a: [f32; 4]) -> [f32; 4] {
        let whole = rounded(a);
        lanes!(l => a[l] - whole[l])
    }
    #[inline(always)]
    unsafe fn lookup16(table: &[f32; 16], i: [f32; 4]) -> [f32; 4] {
        lanes!(l => table[(i[l].to_bits() % 16) as usize])
    }
    #[inline(always)]
    unsafe fn ldexp(a: [f32; 4], magic: [f32; 4]) -> [f32; 4] {
        lanes!(l => f32::from_bits(a[l].to_bits().wrapping_add(magic[l].to_bits() << 23)))
    }
    #[inline(always)]
    unsafe fn power(a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        lanes!(l => a[l] * f32::from_bits(((n[l] as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn at_least(a: [f32; 4], t: [f32; 4], limit: [f32; 4]) -> [f32; 4] {
        lanes!(l => if t[l] < limit[l] { 0.0 } else { a[l] })
    }
    #[inline(always)]
    unsafe fn nonzero(v: [i32; 4]) -> u32 {
        let [a, b, c, d] = lanes!(l => u32::from(v[l] != 0) << l);
        a | b | c | d
    }
    #[inline(always)]
    unsafe fn nonzero_bytes(v: [i32; 4]) -> u32 {
        v.map(|v| v.to_le_bytes().map(|b| u32::from(b != 0)).iter().sum::<u32>()).iter().sum()
    }
    #[inline(always)]
    unsafe fn pack4(v: [[i32; 4]; 4], zero: i32) -> [i32; 4] {
        to_bytes(&v, zero)
    }
    #[inline(always)]
    unsafe fn pack_in_order(v: [[i32; 4]; 4], zero: i32) -> [i32; 4] {
        // SAFETY: any CPU. A register is one part.
        unsafe { Self::pack4(v, zero) }
    }
    #[inline(always)]
    unsafe fn store_pack2(p: *mut u8, a: [i32; 4], b: [i32; 4], zero: i32, low: u8, high: u8) {
        let q = |q: i32| (q.saturating_add(zero).clamp(0, 255) as u8).clamp(low, high);
        // SAFETY: one part: the caller vouches for 8 bytes.
        unsafe { p.cast::<[[u8; 4]; 2]>().write_unaligned([lanes!(l => q(a[l])), lanes!(l => q(b[l]))]) }
    }
    #[inline(always)]
    unsafe fn clamp_bytes(v: [i32; 4], low: u8, high: u8) -> [i32; 4] {
        lanes!(l => {
            let v = v[l].to_le_bytes();
            i32::from_le_bytes(lanes!(i => v[i].clamp(low, high)))
        })
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: [i32; 4]) {
        // SAFETY: the caller vouches for 4 bytes.
        unsafe { p.cast::<[u8; 4]>().write_unaligned(lanes!(l => v[l] as u8)) }
    }
}
