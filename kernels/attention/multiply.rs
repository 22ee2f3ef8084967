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
    /// Null, or what is prefetched: as many bytes in each step as the step reads columns.
    pub ahead: *const u8,
    /// Bytes from a step to the next.
    pub ahead_stride: usize,
}

impl Tile {
    /// No step, from and to nowhere: what the fields of a tile are unless it says so.
    pub const NOTHING: Tile = Tile {
        x: std::ptr::null(),
        x_stride: 0,
        w: std::ptr::null(),
        w_stride: 0,
        steps: 0,
        init: std::ptr::null(),
        out: std::ptr::null_mut(),
        out_stride: 0,
        resume: false,
        ahead: std::ptr::null(),
        ahead_stride: 0,
    };
}

/// A kernel for a number of rows and columns.
///
/// # Safety
/// The CPU has the kernel's tier; all that the tile describes is there.
pub type Run = unsafe fn(&Tile);

/// Bytes to i32, four at a time as they lie in memory.
pub struct Bytes;

impl<S: Simd> Product<S> for Bytes {
    integer_sums!();
    #[inline(always)]
    unsafe fn dot<const I: i32>(acc: S::V, x: S::Q, w: S::V) -> S::V {
        // SAFETY: as the caller.
        unsafe { S::dot_columns::<I>(acc, x, w) }
    }
}

/// All steps, with or without prefetching what is ahead.
#[inline(always)]
unsafe fn steps<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const AHEAD: bool>(
    acc: &mut [[P::Acc; NV]; MR],
    t: &Tile,
) {
    // SAFETY: as `Run`.
    unsafe {
        let (mut x, mut w, mut ahead) = (t.x, t.w, t.ahead);
        for _ in 0..t.steps / S::QUADS {
            if S::QUADS == 4 {
                let mut quads = [S::quads::<0>(x); MR];
                for m in 1..MR {
                    quads[m] = S::quads::<0>(x.add(m * t.x_stride));
                }
                step::<S, P, MR, NV, 0, AHEAD>(acc, Ok(&quads), &mut w, &mut ahead, t);
                step::<S, P, MR, NV, 1, AHEAD>(acc, Ok(&quads), &mut w, &mut ahead, t);
                step::<S, P, MR, NV, 2, AHEAD>(acc, Ok(&quads), &mut w, &mut ahead, t);
                step::<S, P, MR, NV, 3, AHEAD>(acc, Ok(&quads), &mut w, &mut ahead, t);
            } else {
                step::<S, P, MR, NV, 0, AHEAD>(acc, Err(x), &mut w, &mut ahead, t);
            }
            x = x.add(4 * S::QUADS);
        }
        for _ in 0..t.steps % S::QUADS {
            step::<S, P, MR, NV, 0, AHEAD>(acc, Err(x), &mut w, &mut ahead, t);
            x = x.add(4);
        }
    }
}

/// One step, whose quads of x come in registers, or from the first row's on.
#[inline(always)]
unsafe fn step<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const I: i32, const AHEAD: bool>(
    acc: &mut [[P::Acc; NV]; MR],
    x: Result<&[S::Q; MR], *const u8>,
    w: &mut *const u8,
    ahead: &mut *const u8,
    t: &Tile,
) {
    // SAFETY: as `Run`.
    unsafe {
        let columns = S::loads::<NV, 0>(*w);
        if AHEAD {
            for v in 0..NV {
                S::prefetch_far(ahead.wrapping_add(v * S::LANES * 4));
            }
            *ahead = ahead.wrapping_add(t.ahead_stride);
        }
        for m in 0..MR {
            let x = match x {
                Ok(quads) => quads[m],
                Err(row) => S::quad(row.add(m * t.x_stride)),
            };
            for v in 0..NV {
                acc[m][v] = P::dot::<I>(acc[m][v], x, columns[v]);
            }
        }
        // Perhaps beyond the end of the last row, where nothing is read.
        *w = w.wrapping_add(t.w_stride);
    }
}

/// `MR` rows times `NV` registers of columns.
#[inline(always)]
pub unsafe fn multiply<S: Simd, P: Product<S>, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: as `Run`.
    unsafe {
        if P::MATRIX {
            return P::tile::<MR, NV, false>(t);
        }
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
        if t.ahead.is_null() {
            steps::<S, P, MR, NV, false>(&mut acc, t);
        } else {
            steps::<S, P, MR, NV, true>(&mut acc, t);
        }
        for m in 0..MR {
            for v in 0..NV {
                P::store(t.out.add(m * t.out_stride + v * S::LANES * 4).cast(), acc[m][v]);
            }
        }
    }
}
