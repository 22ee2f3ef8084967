//! Dot products: four byte products and their sum in one instruction, of bytes that are all signed or all unsigned.

use super::Quad;
use crate::isa::Isa;
use crate::kernels::simd::Simd;
use std::arch::aarch64::*;
use std::arch::asm;

/// `name!(acc, a, b)`: one instruction of three registers, and `name!(acc, a, quad b)`, of an element of the last.
macro_rules! dot {
    ($name:ident, $instruction:literal) => {
        macro_rules! $name {
                            ($acc:expr, $a:expr, $b:expr) => {{
                                let mut acc = $acc;
                                asm!(
                                    concat!($instruction, " {0:v}.4s, {1:v}.16b, {2:v}.16b"),
                                    inout(vreg) acc, in(vreg) $a, in(vreg) $b,
                                    options(pure, nomem, nostack, preserves_flags)
                                );
                                acc
                            }};
                            ($acc:expr, $a:expr, $b:expr, $element:literal) => {{
                                let mut acc = $acc;
                                asm!(
                                    concat!($instruction, " {0:v}.4s, {1:v}.16b, {2:v}.4b[", $element, "]"),
                                    inout(vreg) acc, in(vreg) $a, in(vreg) $b,
                                    options(pure, nomem, nostack, preserves_flags)
                                );
                                acc
                            }};
                            ($acc:expr, $a:expr, quad $b:expr) => {
                                match $b.element {
                                    0 => $name!($acc, $a, $b.register, 0),
                                    1 => $name!($acc, $a, $b.register, 1),
                                    2 => $name!($acc, $a, $b.register, 2),
                                    _ => $name!($acc, $a, $b.register, 3),
                                }
                            };
                        }
    };
}
dot!(sdot, "sdot");
dot!(udot, "udot");

/// 128-bit `sdot` and `udot`.
#[derive(Clone, Copy)]
pub struct NeonDot;

// SAFETY: each method is the instruction of that meaning.
unsafe impl Simd for NeonDot {
    const ISA: Isa = Isa::NeonDot;
    const MIXED: bool = false;
    type X = int32x4_t;
    type W = int32x4_t;
    vector!();

    #[inline(always)]
    unsafe fn x(quads: int32x4_t) -> int32x4_t {
        quads
    }

    #[inline(always)]
    unsafe fn w(quads: int32x4_t) -> int32x4_t {
        quads
    }

    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, x, w) }
    }

    #[inline(always)]
    unsafe fn dot_quad(acc: int32x4_t, x: int32x4_t, w: Quad) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, x, quad w) }
    }

    #[inline(always)]
    unsafe fn dense_dot(acc: int32x4_t, x: Quad, w: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { sdot!(acc, w, quad x) }
    }

    #[inline(always)]
    unsafe fn dot_columns(acc: int32x4_t, x: Quad, columns: int32x4_t) -> int32x4_t {
        // SAFETY: the caller vouches for the tier.
        unsafe { udot!(acc, columns, quad x) }
    }
}
