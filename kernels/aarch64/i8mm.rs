//! Dot products and products of matrices of unsigned bytes with signed ones (I8MM: `usdot`, `sudot`, `usmmla`).
//!
//! ```text
//! dot:     acc[l]      += sum over i in 0..4:  x[4l + i] * w[4l + i]
//! matrix:  acc[2i + j] += sum over k in 0..8:  x[8i + k] * w[8j + k]
//! ```

use super::matrix;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::simd::{LINE, Simd};
use std::arch::aarch64::*;

dot!(usdot, "usdot", "16b", "4b");
dot!(sudot, "sudot", "16b", "4b");

/// The methods of [`Simd`] for products of matrices.
macro_rules! matrix {
    () => {
        const MATRIX: bool = true;

        #[inline(always)]
        unsafe fn matrix(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { matrix::product(acc, x, w) }
        }

        #[inline(always)]
        unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(t: &Tile) {
            // SAFETY: the caller vouches for the tier and for the tile.
            unsafe { matrix::tile::<Self, matrix::Bytes, MR, NV, READY>(t) }
        }

        #[inline(always)]
        unsafe fn sums4<const VECS: usize>(init: *const i32) -> [[int32x4_t; VECS]; 4] {
            // SAFETY: the caller vouches for four numbers at `init`.
            unsafe { matrix::sums4(init) }
        }

        #[inline(always)]
        unsafe fn entries4<const VECS: usize>(
            sums: &mut [[int32x4_t; VECS]; 4],
            x: [[int32x4_t; VECS]; 2],
            w: [int32x4_t; 2],
        ) {
            // SAFETY: the caller vouches for the tier.
            unsafe { matrix::entries4(sums, x, w) }
        }

        #[inline(always)]
        unsafe fn rows4<const VECS: usize>(sums: [[int32x4_t; VECS]; 4]) -> [[int32x4_t; VECS]; 4] {
            matrix::rows4(sums)
        }
    };
}

/// The methods of [`Simd`] with the instructions of I8MM. An ISA above this one uses them and adds its own.
macro_rules! mixed {
    () => {
        const MIXED: bool = true;
        vector!();
        matrix!();

        #[inline(always)]
        unsafe fn dot(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { usdot!(acc, x, w) }
        }

        #[inline(always)]
        unsafe fn dot_quad<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { usdot!(acc, x, w, I) }
        }

        #[inline(always)]
        unsafe fn dense_dot<const I: i32>(acc: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { sudot!(acc, w, x, I) }
        }

        #[inline(always)]
        unsafe fn dot_columns<const I: i32>(acc: int32x4_t, x: int32x4_t, columns: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { sudot!(acc, columns, x, I) }
        }
    };
}

/// 128-bit registers, with `usdot`, `sudot` and `usmmla`.
#[derive(Clone, Copy)]
pub struct NeonI8mm;

// SAFETY: each method is the instruction of that meaning.
unsafe impl Simd for NeonI8mm {
    mixed!();
}
