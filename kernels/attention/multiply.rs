//! A tile of rows times columns, for attention: scores of queries by keys, and context of weights by rows of v.
//!
//! ```text
//! for each row m of MR, column c of NV * LANES:
//!     out[m][c] = (out[m][c] to resume, or init[c], or 0) + sum over steps s:  dot(x[m][s], w[s][c])
//!     most[m][c mod 16] = max(most[m][c mod 16], out[m][c] as f32)                  if it is asked for; NaN is not the largest
//! ```
//!
//! A step is 4 bytes of K: one float, two bfloat16 or four bytes. Sums stay in registers; w is read once, x is
//! broadcast. Float sums are one chain of products in the order of steps.

use super::LANES;
use crate::kernels::dense::{Product, integer_sums};
use crate::kernels::simd::Simd;

/// What a tile reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// The first step of row 0.
    pub x: *const u8,
    /// Bytes from one row of x to the next.
    pub x_stride: usize,
    /// The columns of step 0, 4 bytes each.
    pub w: *const u8,
    /// Bytes from one step of w to the next.
    pub w_stride: usize,
    /// The number of steps.
    pub steps: usize,
    /// Null, or the integers that the sums of each column start from.
    pub init: *const i32,
    /// Sums of row 0, 4 bytes each.
    pub out: *mut u8,
    /// Bytes from one row of sums to the next.
    pub out_stride: usize,
    /// Whether sums continue from what is in `out`.
    pub resume: bool,
    /// Null, or 16 numbers for each row, one row after another: the largest sums so far, which become those of the tile's where these
    /// are larger. The bits of integer sums are taken as those of floats. Only where [`super::table::Multiply::finds_most`].
    pub most: *mut f32,
    /// Null, or the memory to prefetch while the tile is computed: in each step as many bytes as the step reads of w.
    pub ahead: *const u8,
    /// Bytes from what one step prefetches to what the next does.
    pub ahead_stride: usize,
}

impl Tile {
    /// An empty tile: no steps, all pointers null. Callers override the fields that they use.
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
        most: std::ptr::null_mut(),
        ahead: std::ptr::null(),
        ahead_stride: 0,
    };
}

/// A kernel for some number of rows and columns.
///
/// # Safety
/// The CPU has the kernel's tier; all memory that the tile describes is there.
pub type Run = unsafe fn(&Tile);

/// Bytes, four a step as they are in memory, with sums in i32.
pub struct Bytes;

impl<S: Simd> Product<S> for Bytes {
    integer_sums!();
    #[inline(always)]
    unsafe fn dot<const I: i32>(acc: S::V, x: S::Q, w: S::V) -> S::V {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::dot_columns::<I>(acc, x, w) }
    }
}

/// Adds all steps to the sums, and prefetches at `t.ahead` if `AHEAD`.
#[inline(always)]
unsafe fn steps<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const AHEAD: bool>(
    acc: &mut [[P::Acc; NV]; MR],
    t: &Tile,
) {
    // SAFETY: the caller keeps the promises of `Run`: all rows of x and all steps of w are there.
    unsafe {
        let (mut x, mut w, mut ahead) = (t.x, t.w, t.ahead);
        for _ in 0..t.steps / S::QUADS {
            if const { S::QUADS == 4 } {
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

/// Adds one step. The 4 bytes of x of each row come in registers (`Ok`), or from memory at the first row (`Err`).
#[inline(always)]
unsafe fn step<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const I: i32, const AHEAD: bool>(
    acc: &mut [[P::Acc; NV]; MR],
    x: Result<&[S::Q; MR], *const u8>,
    w: &mut *const u8,
    ahead: &mut *const u8,
    t: &Tile,
) {
    // SAFETY: the caller keeps the promises of `Run`, and vouches for this step of x and w.
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
        // The pointer may end beyond the last row, where nothing is read.
        *w = w.wrapping_add(t.w_stride);
    }
}

/// Where sums are larger than the largest of their row so far, lane by lane, replaces those.
#[inline(always)]
unsafe fn largest<S: Simd, P: Product<S>, const MR: usize, const NV: usize>(
    acc: &[[P::Acc; NV]; MR],
    most: *mut f32,
) {
    let each = LANES / S::LANES;
    // SAFETY: the caller vouches for the tier, and for 16 numbers of each row.
    unsafe {
        for i in 0..if NV < each { NV } else { each } {
            let most = most.add(i * S::LANES);
            let mut larger = [S::splat_f(0.0); MR];
            for m in 0..MR {
                larger[m] = S::load_f(most.add(m * LANES));
            }
            for v in (i..NV).step_by(each) {
                for m in 0..MR {
                    // The second where the first is NaN.
                    larger[m] = S::max_f(P::as_f(acc[m][v]), larger[m]);
                }
            }
            for m in 0..MR {
                S::store_f(most.add(m * LANES), larger[m]);
            }
        }
    }
}

/// Computes a tile of `MR` rows times `NV` registers of columns.
#[inline(always)]
pub unsafe fn multiply<S: Simd, P: Product<S>, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: the caller keeps the promises of `Run`: the tier, and all memory that the tile describes.
    unsafe {
        if const { P::MATRIX } {
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
        if !t.most.is_null() {
            largest::<S, P, MR, NV>(&acc, t.most);
        }
    }
}
