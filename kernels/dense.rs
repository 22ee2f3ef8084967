//! Dense layers: a tile of tokens times panels of output features.
//!
//! ```text
//! for each token m of MR, feature n of the tile's panels:
//!     out[m][n] = (init[n], or out[m][n] to resume, or 0) + sum over steps s:  dot(x[m][s], w[s][n])  (+ bias[n], of floats)
//!         a step s is 4 bytes of x: four bytes, two bfloat16 or one float
//! with scales by groups of K:
//!     out[m][n] = sum over groups g:  scales[g][n] * (sum over the steps of g)
//! ```
//!
//! x is read row by row where it lies, and the 4 bytes of a step are broadcast to all lanes. Weights are packed in
//! panels of `NR` output features, step by step, `NR / LANES` registers a step. Integer sums are exact and start at
//! `init`. Each float sum starts at 0 and is one chain in the order of K, of fused multiply-adds of f32 or of dot
//! products of bfloat16 pairs. A tier that multiplies matrices of bytes takes two steps at a time, side by side in
//! each feature's weights, and rows in pairs.

use super::attention::multiply;
use super::simd::{Bf16, Simd};
use std::marker::PhantomData;

/// What a dense kernel reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// The row of token 0.
    pub x: *const u8,
    /// Bytes from the row of a token to the next.
    pub stride: usize,
    /// The first panel of weights.
    pub weights: *const u8,
    /// Bytes from a panel to the next.
    pub panel_bytes: usize,
    /// Steps of K, 4 bytes of x each.
    pub steps: usize,
    /// The number that the sums of each of the `NR` features start from. Only integer sums use it.
    pub init: *const i32,
    /// Whether float sums continue from what is in `out`.
    pub resume: bool,
    /// Null, or the scales of the first group of K, one for each feature: the sums of each group of K are scaled and
    /// added up.
    pub scales: *const f32,
    /// Steps of a group of K; without scales, all steps.
    pub group: usize,
    /// Scales from one group of K to the next.
    pub scales_stride: usize,
    /// Sums, `[token][panel][NR]`, i32 or f32.
    pub out: *mut i32,
    /// Elements from the sums of a token to those of the next.
    pub out_stride: usize,
    /// Null, or a number for each feature that is added to its float sums when all steps are done; null where there are scales.
    pub bias: *const f32,
    /// What to prefetch into the second-level cache while a tile of many tokens is computed, so that the weights that come next do
    /// not have to be waited for: so many cache lines ..
    pub ahead: *const u8,
    /// .. in each [`LINE`] steps.
    pub ahead_lines: usize,
    /// The output of token 0. Kernels of many tokens prefetch the outputs near the end of a tile, because stores that miss the caches
    /// hold up the instructions behind them.
    pub y: *const u8,
    /// Bytes from the output of a token to that of the next.
    pub y_stride: usize,
    /// Bytes of the output of a token; 0 if no output follows this tile.
    pub y_bytes: usize,
}

/// Steps of K whose 4 bytes of x are a cache line.
pub const LINE: usize = 16;
/// How many steps ahead rows of x are prefetched.
const TWO_LINES: usize = 2 * LINE;
/// Cache lines of the next panel of weights that a single token prefetches when it ends one.
const AHEAD: usize = 16;

/// A kernel for some number of tokens and panels.
///
/// # Safety
/// The CPU has the kernel's tier; x holds `steps * 4` bytes for each token, each panel of weights `steps` steps, init,
/// the bias and each group's scales a number for each feature, and out has room.
pub type Run = unsafe fn(&Tile);

/// What is computed from 4 bytes of x and of w in every lane.
pub trait Product<S: Simd>: 'static {
    /// A register of sums.
    type Acc: Copy;
    /// Whether sums are exact, so that they can be split and added up in any order.
    const EXACT: bool;
    /// Elements of x in 4 bytes.
    const ELEMENTS: usize;
    /// Interleaves `ELEMENTS` rows, one register of each, so that each lane holds one column of all rows: column c of
    /// a 16-byte part becomes lane c % 4 of that part in register c / 4.
    unsafe fn columns(rows: [S::V; 4]) -> [S::V; 4];
    /// Loads the sums at `p`, one for each lane.
    unsafe fn load(p: *const i32) -> Self::Acc;
    /// Stores sums at `p`.
    unsafe fn store(p: *mut i32, acc: Self::Acc);
    /// The bits of sums as floats.
    unsafe fn as_f(acc: Self::Acc) -> S::F;
    /// Adds, in each lane, the product of that lane of w with the 4 bytes of x that are element `I` of the register.
    unsafe fn dot<const I: i32>(acc: Self::Acc, x: S::Q, w: S::V) -> Self::Acc;
    /// Lane by lane `a + b`.
    unsafe fn add(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    /// All lanes 0.
    unsafe fn zero() -> Self::Acc;
    /// `a + times * b` for integer sums; `a` for float sums.
    unsafe fn add_scaled(a: Self::Acc, b: Self::Acc, times: i32) -> Self::Acc;
    /// `a * scale + b` for float sums, rounded once; `a` for integer sums.
    unsafe fn scale(a: Self::Acc, scale: S::F, b: Self::Acc) -> Self::Acc;
    /// Whether the CPU multiplies matrices of these elements, so that the methods below exist.
    const MATRIX: bool = false;
    /// See [`Simd::matrix`].
    #[inline(always)]
    unsafe fn matrix(_acc: Self::Acc, _x: S::V, _w: S::V) -> Self::Acc {
        unreachable!("no products of matrices")
    }
    /// See [`Simd::tile`].
    #[inline(always)]
    unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(_t: &multiply::Tile) {
        unreachable!("no products of matrices")
    }
}

/// u8 x i8 to i32, in the layout in which the tier multiplies dense tiles.
pub struct Int8;
/// f32, by fused multiply-adds.
pub struct F32;
/// Pairs of bfloat16, with sums in f32.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "no other row multiplies pairs")
)]
pub struct Pairs;

/// The methods of [`Product`] that all integer sums share.
macro_rules! integer_sums {
    () => {
        type Acc = S::V;
        const EXACT: bool = true;
        const ELEMENTS: usize = 4;
        #[inline(always)]
        unsafe fn columns(rows: [S::V; 4]) -> [S::V; 4] {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::interleave(rows[0], rows[1], rows[2], rows[3]) }
        }
        #[inline(always)]
        unsafe fn load(p: *const i32) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::load(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut i32, acc: S::V) {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::store(p.cast(), acc) }
        }
        #[inline(always)]
        unsafe fn as_f(acc: S::V) -> S::F {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::as_f(acc) }
        }
        #[inline(always)]
        unsafe fn add(a: S::V, b: S::V) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::add(a, b) }
        }
        #[inline(always)]
        unsafe fn zero() -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::splat(0) }
        }
        #[inline(always)]
        unsafe fn add_scaled(a: S::V, b: S::V, times: i32) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::add(a, S::mul(b, S::splat(times))) }
        }
        #[inline(always)]
        unsafe fn scale(a: S::V, _scale: S::F, _b: S::V) -> S::V {
            a
        }
        const MATRIX: bool = S::MATRIX;
        #[inline(always)]
        unsafe fn matrix(acc: S::V, x: S::V, w: S::V) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::matrix(acc, x, w) }
        }
        #[inline(always)]
        unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(
            t: &crate::kernels::attention::multiply::Tile,
        ) {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::tile::<MR, NV, READY>(t) }
        }
    };
}
pub(crate) use integer_sums;

impl<S: Simd> Product<S> for Int8 {
    integer_sums!();
    #[inline(always)]
    unsafe fn dot<const I: i32>(acc: S::V, x: S::Q, w: S::V) -> S::V {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::dense_dot::<I>(acc, x, w) }
    }
}

/// The methods of [`Product`] that all float sums share.
macro_rules! float_sums {
    () => {
        type Acc = S::F;
        const EXACT: bool = false;
        #[inline(always)]
        unsafe fn load(p: *const i32) -> S::F {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::load_f(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut i32, acc: S::F) {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::store_f(p.cast(), acc) }
        }
        #[inline(always)]
        unsafe fn as_f(acc: S::F) -> S::F {
            acc
        }
        #[inline(always)]
        unsafe fn add(a: S::F, b: S::F) -> S::F {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::add_f(a, b) }
        }
        #[inline(always)]
        unsafe fn zero() -> S::F {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::splat_f(0.0) }
        }
        #[inline(always)]
        unsafe fn add_scaled(a: S::F, _b: S::F, _times: i32) -> S::F {
            a
        }
        #[inline(always)]
        unsafe fn scale(a: S::F, scale: S::F, b: S::F) -> S::F {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { S::fma(a, scale, b) }
        }
    };
}

impl<S: Simd> Product<S> for F32 {
    float_sums!();
    const ELEMENTS: usize = 1;
    #[inline(always)]
    unsafe fn columns(rows: [S::V; 4]) -> [S::V; 4] {
        rows
    }
    #[inline(always)]
    unsafe fn dot<const I: i32>(acc: S::F, x: S::Q, w: S::V) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::fma(S::as_f(S::all::<I>(x)), S::as_f(w), acc) }
    }
}

impl<S: Bf16> Product<S> for Pairs {
    float_sums!();
    const ELEMENTS: usize = 2;
    #[inline(always)]
    unsafe fn columns(rows: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: the caller promises what the callee asks for.
        unsafe {
            let [low, high] = S::zip(rows[0], rows[1]);
            [low, high, low, high]
        }
    }
    #[inline(always)]
    unsafe fn dot<const I: i32>(acc: S::F, x: S::Q, w: S::V) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::dot_bf16::<I>(acc, x, w) }
    }
    const MATRIX: bool = S::MATRIX;
    #[inline(always)]
    unsafe fn matrix(acc: S::F, x: S::V, w: S::V) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::matrix_bf16(acc, x, w) }
    }
    #[inline(always)]
    unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(t: &multiply::Tile) {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::tile_bf16::<MR, NV, READY>(t) }
    }
}

/// How packed weights are stored, and how a register of them is made ready for products.
pub trait Storage<S: Simd>: 'static {
    /// Stored bytes that fill a register.
    const BYTES: usize;
    /// Whether weights may have scales by groups of K.
    const SCALED: bool;
    /// Whether the stored bytes are a register of operands as they are.
    const READY: bool;
    /// Loads a register of operands from `BYTES` stored bytes.
    unsafe fn load(p: *const u8) -> S::V;
}

/// Four signed bytes a lane, in the form in which the registers of the ISA multiply them.
pub struct Quad8;
/// 32 bits a lane, unchanged: floats, or pairs of bfloat16.
pub struct Words;
/// bfloat16, widened to f32.
pub struct StoredBf16;
/// f16, widened to f32.
pub struct StoredF16;
/// Signed bytes, converted to f32.
pub struct Bytes;

macro_rules! storages { ($($name:ident: $bytes:expr, scaled $scaled:literal, ready $ready:expr, $p:ident => $load:expr;)*) => { $(
    impl<S: Simd> Storage<S> for $name {
        const BYTES: usize = $bytes;
        const SCALED: bool = $scaled;
        const READY: bool = $ready;
        #[inline(always)]
        unsafe fn load($p: *const u8) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { $load }
        }
    }
)* } }
storages! {
    Quad8: S::LANES * 4 / S::X_BYTES, scaled false, ready S::X_BYTES == 1, p => S::dense_w(p.cast());
    Words: S::LANES * 4, scaled false, ready true, p => S::load(p);
    StoredBf16: S::LANES * 2, scaled false, ready false, p => S::as_v(S::load_bf16(p.cast()));
    StoredF16: S::LANES * 2, scaled false, ready false, p => S::as_v(S::load_f16(p.cast()));
    Bytes: S::LANES, scaled true, ready false, p => S::as_v(S::load_i8(p.cast()));
}

/// Loads a register whose 16-byte parts come from different rows of unpacked memory.
pub trait Parts<S: Simd>: Storage<S> {
    /// 4 elements for each 16-byte part of a register: those of part i from `p + i * stride` (bytes).
    unsafe fn parts(p: *const u8, stride: usize) -> S::V;
}

macro_rules! parts { ($($name:ident: $p:ident, $stride:ident => $load:expr;)*) => { $(
    impl<S: Simd> Parts<S> for $name {
        #[inline(always)]
        unsafe fn parts($p: *const u8, $stride: usize) -> S::V {
            // SAFETY: the caller promises what the callee asks for.
            unsafe { $load }
        }
    }
)* } }
parts! {
    Words: p, stride => S::load_parts(p, stride);
    StoredBf16: p, stride => S::as_v(S::load_bf16_parts(p, stride));
    StoredF16: p, stride => S::as_v(S::load_f16_parts(p, stride));
}

/// The shape of a tile as a type: `MR` tokens times `PANELS` panels of `NV` registers. Where sums are exact, `UNROLL`
/// steps at a time are added to sums of their own, so that a tile of few tokens does not wait for one chain of
/// additions.
pub struct Kernel<S, P, W, const MR: usize, const NV: usize, const PANELS: usize, const UNROLL: usize>(
    PhantomData<(S, P, W)>,
);

impl<S, P, W, const MR: usize, const NV: usize, const PANELS: usize, const UNROLL: usize>
    Kernel<S, P, W, MR, NV, PANELS, UNROLL>
where
    S: Simd,
    P: Product<S>,
    W: Storage<S>,
{
    /// Computes one tile.
    #[inline(always)]
    pub unsafe fn run(t: &Tile) {
        const { assert!(P::EXACT || UNROLL == 1, "a float sum is one chain") };
        const { assert!(!P::MATRIX || PANELS * UNROLL == 1, "a tile of matrices is one panel's") };
        // SAFETY: the caller keeps the promises of `Run`: the tier, and all arrays of the tile.
        unsafe {
            if const { P::MATRIX } {
                P::tile::<MR, NV, true>(&multiply::Tile {
                    x: t.x,
                    x_stride: t.stride,
                    w: t.weights,
                    w_stride: NV * W::BYTES,
                    steps: t.steps,
                    init: if P::EXACT { t.init } else { std::ptr::null() },
                    out: t.out.cast(),
                    out_stride: t.out_stride * 4,
                    resume: !P::EXACT && t.resume,
                    most: std::ptr::null_mut(),
                    ahead: std::ptr::null(),
                    ahead_stride: 0,
                });
                if !P::EXACT && !t.bias.is_null() {
                    let mut acc = [[[[P::zero(); NV]; PANELS]; MR]; UNROLL];
                    for m in 0..MR {
                        for v in 0..NV {
                            acc[0][m][0][v] = P::load(Self::out(t, m, 0, v));
                        }
                    }
                    Self::store(&acc, t);
                }
                return Self::prefetch_next(t.weights.wrapping_add(t.steps * NV * W::BYTES));
            }
            let (mut x, mut w, mut scales, mut left) = (t.x, t.weights, t.scales, t.steps);
            let scaled = W::SCALED && !scales.is_null();
            if scaled {
                for m in 0..MR {
                    for i in 0..PANELS * NV {
                        P::store(Self::out(t, m, 0, i), P::zero());
                    }
                }
                if left == 0 {
                    return;
                }
            }
            loop {
                let steps = left.min(t.group);
                let mut acc = [[[[P::zero(); NV]; PANELS]; MR]; UNROLL];
                for p in 0..PANELS {
                    for v in 0..NV {
                        for m in 0..MR {
                            if P::EXACT {
                                acc[0][m][p][v] = P::load(t.init.add((p * NV + v) * S::LANES));
                            } else if t.resume {
                                acc[0][m][p][v] = P::load(Self::out(t, m, p, v));
                            }
                        }
                    }
                }
                Self::steps(&mut acc, &mut x, &mut w, t, steps);
                if !scaled {
                    return Self::store(&acc, t);
                }
                for p in 0..PANELS {
                    for v in 0..NV {
                        let scale = S::load_f(scales.add((p * NV + v) * S::LANES));
                        for m in 0..MR {
                            let out = Self::out(t, m, p, v);
                            P::store(out, P::scale(acc[0][m][p][v], scale, P::load(out)));
                        }
                    }
                }
                left -= steps;
                if left == 0 {
                    return;
                }
                scales = scales.add(t.scales_stride);
            }
        }
    }

    /// Adds the next `steps` steps of K to the sums, and moves `x` and `w` behind them.
    #[inline(always)]
    unsafe fn steps(
        acc: &mut [[[[P::Acc; NV]; PANELS]; MR]; UNROLL],
        x: &mut *const u8,
        w: &mut *const u8,
        t: &Tile,
        steps: usize,
    ) {
        let bytes = NV * W::BYTES;
        // SAFETY: the caller keeps the promises of `Run`; `steps` is no more than what is left at `x` and `w`.
        unsafe {
            let at_once = if S::QUADS == 4 { 4 } else { UNROLL };
            let mut steps = steps;
            if const { MR >= 8 && S::QUADS * UNROLL == 1 } {
                // Each of many rows is a stream of its own, more than the CPU follows by itself. When there is no more of them to come,
                // what is prefetched is where the tile's outputs go: not before, or weights would evict it again.
                let mut ahead = t.ahead;
                while steps > 0 {
                    let line = steps.min(LINE);
                    let (rows, stride) = match steps {
                        ..=LINE if t.y_bytes > 0 => (t.y.wrapping_add(t.y_bytes - 1), t.y_stride),
                        ..=TWO_LINES if t.y_bytes > 0 => (t.y, t.y_stride),
                        _ => (x.wrapping_add(4 * TWO_LINES), t.stride),
                    };
                    for m in 0..MR {
                        S::prefetch(rows.wrapping_add(m * stride).cast());
                    }
                    for _ in 0..t.ahead_lines {
                        S::prefetch_far(ahead);
                        ahead = ahead.wrapping_add(64);
                    }
                    for _ in 0..line {
                        Self::step::<0>(&mut acc[0], Err(*x), *w, t);
                        *x = x.add(4);
                        *w = w.add(bytes);
                    }
                    steps -= line;
                }
            }
            for _ in 0..steps / at_once {
                if const { S::QUADS == 4 } {
                    let mut quads = [S::quads::<0>(*x); MR];
                    for m in 1..MR {
                        quads[m] = S::quads::<0>(x.add(m * t.stride));
                    }
                    Self::step::<0>(&mut acc[0], Ok(&quads), *w, t);
                    Self::step::<1>(&mut acc[1 % UNROLL], Ok(&quads), *w, t);
                    Self::step::<2>(&mut acc[2 % UNROLL], Ok(&quads), *w, t);
                    Self::step::<3>(&mut acc[3 % UNROLL], Ok(&quads), *w, t);
                } else {
                    for u in 0..UNROLL {
                        Self::step::<0>(&mut acc[u], Err(x.add(4 * u)), w.add(u * bytes), t);
                    }
                }
                *x = x.add(4 * at_once);
                *w = w.add(at_once * bytes);
            }
            for _ in 0..steps % at_once {
                Self::step::<0>(&mut acc[0], Err(*x), *w, t);
                *x = x.add(4);
                *w = w.add(bytes);
            }
            Self::prefetch_next(*w);
        }
    }

    /// Prefetches the start of the next panel for a single token: its speed is that of the stream of weights, which
    /// must not stop while a panel is finished.
    #[inline(always)]
    unsafe fn prefetch_next(next: *const u8) {
        if MR == 1 && PANELS == 1 {
            for line in 0..AHEAD {
                // SAFETY: the caller vouches for the tier; a prefetch reads nothing.
                unsafe { S::prefetch(next.wrapping_add(64 * line).cast()) };
            }
        }
    }

    /// Adds step `I` from `weights` on. The 4 bytes of x of each token come in registers (`Ok`), or from memory at
    /// the row of the first token (`Err`).
    #[inline(always)]
    unsafe fn step<const I: i32>(
        acc: &mut [[[P::Acc; NV]; PANELS]; MR],
        x: Result<&[S::Q; MR], *const u8>,
        weights: *const u8,
        t: &Tile,
    ) {
        // SAFETY: the caller keeps the promises of `Run`, and vouches for this step of x and of the weights.
        unsafe {
            for p in 0..PANELS {
                let weights = weights.add(p * t.panel_bytes);
                let w = if W::READY {
                    S::loads::<NV, I>(weights)
                } else {
                    let weights = weights.add(I as usize * NV * W::BYTES);
                    let mut w = [W::load(weights); NV];
                    for v in 1..NV {
                        w[v] = W::load(weights.add(v * W::BYTES));
                    }
                    w
                };
                for m in 0..MR {
                    let x = match x {
                        Ok(quads) => quads[m],
                        Err(row) => S::quad(row.add(m * t.stride)),
                    };
                    for v in 0..NV {
                        acc[m][p][v] = P::dot::<I>(acc[m][p][v], x, w[v]);
                    }
                }
            }
        }
    }

    /// Where a register of sums goes.
    #[inline(always)]
    unsafe fn out(t: &Tile, m: usize, p: usize, v: usize) -> *mut i32 {
        // SAFETY: the caller keeps the promises of `Run`: out has room for the tile.
        unsafe { t.out.add(m * t.out_stride + (p * NV + v) * S::LANES) }
    }

    /// Adds up the sums of all `UNROLL` chains, and the bias to sums of floats, and stores them.
    #[inline(always)]
    unsafe fn store(acc: &[[[[P::Acc; NV]; PANELS]; MR]; UNROLL], t: &Tile) {
        // SAFETY: the caller keeps the promises of `Run`: out has room for the tile, and the bias a number for each feature.
        unsafe {
            let bias = !P::EXACT && !t.bias.is_null();
            for p in 0..PANELS {
                for v in 0..NV {
                    let own =
                        if bias { P::load(t.bias.add((p * NV + v) * S::LANES).cast()) } else { P::zero() };
                    for m in 0..MR {
                        let mut sum = acc[0][m][p][v];
                        for u in 1..UNROLL {
                            sum = P::add(sum, acc[u][m][p][v]);
                        }
                        if bias {
                            sum = P::add(sum, own);
                        }
                        P::store(Self::out(t, m, p, v), sum);
                    }
                }
            }
        }
    }
}
