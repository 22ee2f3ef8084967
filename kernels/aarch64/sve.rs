//! SVE: the tiles of `sve.c`, put into the places of NEON's. Everything else of the tier is NEON.

use crate::kernels::dense::{Run, Tile};
use crate::kernels::float;
use crate::kernels::sparse::Band;

macro_rules! dense {
    ($($rows:literal: $i8_name:ident $i8_run:ident, $f32_name:ident $f32_run:ident;)*) => {
        unsafe extern "C" {
            $(
                fn $i8_name(x: *const u8, stride: usize, w: *const u8, steps: usize, init: *const i32, out: *mut i32);
                fn $f32_name(x: *const u8, stride: usize, w: *const u8, steps: usize, resume: i32, out: *mut i32);
            )*
        }
        $(
            unsafe fn $i8_run(t: &Tile) {
                // SAFETY: as the caller.
                unsafe { $i8_name(t.x, t.stride, t.weights, t.steps, t.init, t.out) }
            }
            unsafe fn $f32_run(t: &Tile) {
                // SAFETY: as the caller.
                unsafe { $f32_name(t.x, t.stride, t.weights, t.steps, t.resume.into(), t.out) }
            }
        )*
        /// Bytes, by tokens.
        pub const DENSE_I8: &[Run] = &[$($i8_run),*];
        /// Floats, by tokens.
        pub const DENSE_F32: &[Run] = &[$($f32_run),*];
    };
}
dense! {
    1: siskin_sve_dense_i8_1 i8_1, siskin_sve_dense_f32_1 f32_1;
    2: siskin_sve_dense_i8_2 i8_2, siskin_sve_dense_f32_2 f32_2;
    3: siskin_sve_dense_i8_3 i8_3, siskin_sve_dense_f32_3 f32_3;
    4: siskin_sve_dense_i8_4 i8_4, siskin_sve_dense_f32_4 f32_4;
}
/// Output features of a panel of dense weights: a vector of 2048 bits.
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

/// Groups of four rows of quads, as `sparse::spill`.
///
/// # Safety
/// As it; the CPU has SVE.
pub unsafe fn quads<const TOKENS: usize>(band: &Band<'_>, out: *mut i32) {
    for group in band.groups {
        // SAFETY: as the caller; the group's entries, its rows of sums and their starts are there.
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
                    // A panel of 64 has its tokens in another order: see `sparse`.
                    let token = if TOKENS == 64 { four % 4 * 16 + four / 4 * 4 } else { 4 * four };
                    std::ptr::copy_nonoverlapping(from.add(4 * four), to.add(token), 4);
                }
            }
        }
    }
}

/// Groups of four rows of floats, as `float::gather`.
///
/// # Safety
/// As it; the CPU has SVE.
pub unsafe fn gather<const TOKENS: usize>(band: &float::Band<'_>, out: *mut f32) {
    for group in band.groups {
        // SAFETY: as the caller; the group's entries and rows are there.
        unsafe {
            let (start, row, rows) = (group.start as usize, group.row as usize, group.rows as usize);
            let to = out.add((row - band.first_row) * TOKENS);
            let mut sums = [[0.0; 32]; 4];
            let flat = sums.as_mut_ptr().cast::<f32>();
            // Without scales a later part goes on with the chains of the one before it.
            if group.base > 0 && band.scales.is_none() {
                std::ptr::copy_nonoverlapping(to, flat, rows * TOKENS);
            }
            siskin_sve_gather(
                band.panel.as_ptr().add(group.base as usize * TOKENS * 4),
                TOKENS,
                band.indices.as_ptr().add(start),
                band.weights_of::<4>(group).cast(),
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
