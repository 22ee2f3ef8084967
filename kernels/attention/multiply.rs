//! A tile of rows times some columns: scores of queries by keys, and context of weights by v.

use crate::kernels::dense::{Product, integer_sums};
use crate::kernels::simd::Simd;

/// What a tile reads and writes. A step is 4 bytes of each row: a float, two bfloat16 or four bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// Row 0.
    pub x: *const u8,
    /// Bytes from a row to the next.
    pub x_stride: usize,
    /// The columns of step 0, 4 bytes each.
    pub w: *const u8,
    /// Bytes from a step to the next.
    pub w_stride: usize,
    /// Steps.
    pub steps: usize,
    /// Null, or what each column's sums start from: integers.
    pub init: *const i32,
    /// Sums, 4 bytes each.
    pub out: *mut u8,
    /// Bytes from a row of sums to the next.
    pub out_stride: usize,
    /// Whether sums go on from what is in `out`.
    pub resume: bool,
    /// Null, or what the cache is asked for: as many bytes in each step as the step reads columns.
    pub ahead: *const u8,
    /// Bytes from a step to the next.
    pub ahead_stride: usize,
}

/// A kernel for a number of rows and columns.
///
/// # Safety
/// The CPU has the kernel's tier; all that the tile describes is there.
pub type Run = unsafe fn(&Tile);

/// Bytes to i32, four at a time as they lie in memory.
pub struct Quads;

impl<S: Simd> Product<S> for Quads {
    integer_sums!();
    #[inline(always)]
    unsafe fn dot(acc: S::V, x: S::Q, w: S::V) -> S::V {
        // SAFETY: as the caller.
        unsafe { S::dot_columns(acc, x, w) }
    }
}

/// Asks for what a step is to.
#[inline(always)]
unsafe fn ask<S: Simd, const NV: usize>(t: &Tile, ahead: &mut *const u8) {
    if !ahead.is_null() {
        for v in 0..NV {
            // SAFETY: as the caller; nothing is read.
            unsafe { S::prefetch_far(ahead.wrapping_add(v * S::LANES * 4)) };
        }
        *ahead = ahead.wrapping_add(t.ahead_stride);
    }
}

/// `MR` rows times `NV` registers of columns.
#[inline(always)]
pub unsafe fn multiply<S: Simd, P: Product<S>, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: as `Run`.
    unsafe {
        let mut acc = [[P::zero(); NV]; MR];
        for v in 0..NV {
            if t.resume {
                for m in 0..MR {
                    acc[m][v] = P::load(t.out.add(m * t.out_stride + v * S::LANES * 4).cast());
                }
            } else if !t.init.is_null() {
                for m in 0..MR {
                    acc[m][v] = P::load(t.init.add(v * S::LANES));
                }
            }
        }
        let (mut x, mut w, mut ahead) = (t.x, t.w, t.ahead);
        let at_once = S::QUADS;
        for _ in 0..t.steps / at_once {
            let mut quads = [[S::quad(x); 4]; MR];
            if S::QUADS == 4 {
                for m in 0..MR {
                    quads[m] = S::quads(x.add(m * t.x_stride));
                }
            }
            for q in 0..at_once {
                ask::<S, NV>(t, &mut ahead);
                let mut columns = [S::load(w); NV];
                for v in 1..NV {
                    columns[v] = S::load(w.add(v * S::LANES * 4));
                }
                for m in 0..MR {
                    let x = if S::QUADS == 4 { quads[m][q] } else { S::quad(x.add(m * t.x_stride)) };
                    for v in 0..NV {
                        acc[m][v] = P::dot(acc[m][v], x, columns[v]);
                    }
                }
                // Perhaps beyond the end of the last row, where nothing is read.
                w = w.wrapping_add(t.w_stride);
            }
            x = x.add(4 * at_once);
        }
        for _ in 0..t.steps % at_once {
            for v in 0..NV {
                let columns = S::load(w.add(v * S::LANES * 4));
                for m in 0..MR {
                    acc[m][v] = P::dot(acc[m][v], S::quad(x.add(m * t.x_stride)), columns);
                }
            }
            x = x.add(4);
            w = w.wrapping_add(t.w_stride);
        }
        for m in 0..MR {
            for v in 0..NV {
                P::store(t.out.add(m * t.out_stride + v * S::LANES * 4).cast(), acc[m][v]);
            }
        }
    }
}
