//! SVE: calls of the tiles in `sve.c`, in the places of those of NEON. Everything else of the tier is NEON.
//!
//! ```text
//! dense:   out[m][n] = init[n] (bytes), 0 or out[m][n] (floats) + sum over steps s:  dot(x[m][s], w[s][n])  (+ bias[n], floats)
//! quads:   the sums of `sparse::spill` for groups of four rows, of entries of four adjacent columns
//! gather:  the sums of `float::gather` for groups of four rows
//! ```

use crate::kernels::dense::{Run, Tile};
use crate::kernels::float;
use crate::kernels::sparse::Band;

macro_rules! dense {
    ($($rows:literal: $i8_name:ident $i8_run:ident, $f32_name:ident $f32_run:ident;)*) => {
        unsafe extern "C" {
            $(
                fn $i8_name(x: *const u8, stride: usize, w: *const u8, steps: usize, init: *const i32, out: *mut i32, out_stride: usize);
                fn $f32_name(x: *const u8, stride: usize, w: *const u8, steps: usize, resume: i32, out: *mut i32, out_stride: usize);
            )*
        }
        $(
            unsafe fn $i8_run(t: &Tile) {
                // SAFETY: the caller keeps the promises of `Run`.
                unsafe { $i8_name(t.x, t.stride, t.weights, t.steps, t.init, t.out, t.out_stride) }
            }
            unsafe fn $f32_run(t: &Tile) {
                // SAFETY: the caller keeps the promises of `Run`.
                unsafe {
                    $f32_name(t.x, t.stride, t.weights, t.steps, t.resume.into(), t.out, t.out_stride);
                    if !t.bias.is_null() {
                        add_bias(t, $rows);
                    }
                }
            }
        )*
        /// Dense tiles of bytes, by the number of tokens.
        pub const DENSE_I8: &[Run] = &[$($i8_run),*];
        /// Dense tiles of floats, by the number of tokens.
        pub const DENSE_F32: &[Run] = &[$($f32_run),*];
    };
}
dense! {
    1: siskin_sve_dense_i8_1 i8_1, siskin_sve_dense_f32_1 f32_1;
    2: siskin_sve_dense_i8_2 i8_2, siskin_sve_dense_f32_2 f32_2;
    3: siskin_sve_dense_i8_3 i8_3, siskin_sve_dense_f32_3 f32_3;
    4: siskin_sve_dense_i8_4 i8_4, siskin_sve_dense_f32_4 f32_4;
}
/// Adds the bias to the sums of a tile of so many tokens.
///
/// # Safety
/// The caller keeps the promises of [`Run`]; there is a bias.
unsafe fn add_bias(t: &Tile, tokens: usize) {
    for m in 0..tokens {
        // SAFETY: the caller vouches for the sums of each token, and for a number of the bias for each feature.
        unsafe {
            let sums = std::slice::from_raw_parts_mut(t.out.add(m * t.out_stride).cast::<f32>(), FEATURES);
            let bias = std::slice::from_raw_parts(t.bias, FEATURES);
            sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
    }
}

/// Output features of a panel of dense weights: as many as a vector of 2048 bits has lanes.
pub const FEATURES: usize = 64;

unsafe extern "C" {
    fn siskin_sve_quads(
        panel: *const u8,
        tokens: usize,
        indices: *const u16,
        weights: *const u8,
        len: usize,
        sums: *mut i32,
    );
    fn siskin_sve_gather(
        panel: *const u8,
        tokens: usize,
        indices: *const u16,
        weights: *const u8,
        len: usize,
        sums: *mut f32,
    );
}

/// The sums of groups of four rows whose entries are four adjacent columns (`KMajor4`), as `sparse::spill` computes
/// them.
///
/// # Safety
/// The caller keeps the promises of `sparse::spill`; the CPU has SVE.
pub unsafe fn quads<const TOKENS: usize>(band: &Band<'_>, out: *mut i32) {
    for group in band.groups {
        // SAFETY: the caller vouches for SVE, the group's entries, its rows of sums and the numbers that they start
        // from.
        unsafe {
            let (start, row) = (group.start as usize, group.row as usize);
            let mut sums = [[0; 64]; 4];
            let flat = sums.as_mut_ptr().cast::<i32>();
            for r in 0..4 {
                for t in 0..TOKENS {
                    *flat.add(r * TOKENS + t) = *band.init.as_ptr().add(row + r);
                }
            }
            siskin_sve_quads(
                band.panel.as_ptr().add(group.base as usize * TOKENS),
                TOKENS,
                band.indices.as_ptr().add(start),
                band.weights.as_ptr().add(16 * start),
                group.len as usize,
                flat,
            );
            for r in 0..group.rows as usize {
                let to = out.add((row + r - band.first_row) * TOKENS);
                let from = flat.add(r * TOKENS);
                for four in 0..TOKENS / 4 {
                    // The tokens of a panel of 64 are in another order: see `sparse`.
                    let token = if TOKENS == 64 { four % 4 * 16 + four / 4 * 4 } else { 4 * four };
                    std::ptr::copy_nonoverlapping(from.add(4 * four), to.add(token), 4);
                }
            }
        }
    }
}

/// The sums of groups of four rows, as `float::gather` computes them.
///
/// # Safety
/// The caller keeps the promises of `float::gather`; the CPU has SVE.
pub unsafe fn gather<const TOKENS: usize>(band: &float::Band<'_>, out: *mut f32) {
    for group in band.groups {
        // SAFETY: the caller vouches for SVE, and for the group's entries, rows and scales.
        unsafe {
            let (start, row, rows) = (group.start as usize, group.row as usize, group.rows as usize);
            let to = out.add((row - band.first_row) * TOKENS);
            let mut sums = [[0.0; 32]; 4];
            let flat = sums.as_mut_ptr().cast::<f32>();
            // Without scales, a later part of a row continues the chains of sums of the part before it.
            if group.base > 0 && band.scales.is_none() {
                std::ptr::copy_nonoverlapping(to, flat, rows * TOKENS);
            }
            siskin_sve_gather(
                band.panel.as_ptr().add(group.base as usize * TOKENS * 4),
                TOKENS,
                band.indices.as_ptr().add(start),
                band.weights_of(group, 4).cast(),
                group.len as usize,
                flat,
            );
            if let Some(scales) = band.scales {
                for r in 0..rows {
                    let scale = *scales.get_unchecked(band.scale_row(group) + r);
                    for t in r * TOKENS..(r + 1) * TOKENS {
                        let before = if group.base > 0 { *to.add(t) } else { 0.0 };
                        *flat.add(t) = (*flat.add(t)).mul_add(scale, before);
                    }
                }
            }
            std::ptr::copy_nonoverlapping(flat, to, rows * TOKENS);
        }
    }
}
