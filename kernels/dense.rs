//! Dense layers: a tile of tokens times a panel of output features.
//!
//! x is read where it lies, row by row; the four bytes of a step are broadcast. Weights are packed in panels of `NR`
//! output features, `[K step][NR / LANES][LANES][4 / X_BYTES]`, so a step is `NR / LANES` loads. Sums start at `init`.

use super::simd::Simd;
use crate::isa::Isa;

/// What a dense kernel reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// Token 0; `X_BYTES` an element.
    pub x: *const u8,
    /// Bytes from a token to the next.
    pub stride: usize,
    /// The panel of weights.
    pub weights: *const i8,
    /// Steps of 4 bytes of x.
    pub steps: usize,
    /// What each of the `NR` features starts from.
    pub init: *const i32,
    /// `[token][NR]`.
    pub out: *mut i32,
}

/// Cache lines of the next panel that a single token asks for at the end of one.
const AHEAD: usize = 16;

/// A kernel for a number of tokens.
///
/// # Safety
/// The CPU has the kernel's tier; x holds `steps * 4` bytes for each token, weights `steps` steps, init `NR` numbers,
/// and out has room.
pub type Run = unsafe fn(&Tile);

/// `MR` tokens times `NV * LANES` features; `UNROLL` steps at a time into sums of their own, so that a few tokens do
/// not wait for one chain of additions.
#[inline(always)]
pub unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const UNROLL: usize>(t: &Tile) {
    // SAFETY: as `Run`.
    unsafe {
        let bytes = S::LANES * 4 / S::X_BYTES;
        let mut acc = [[[S::splat(0); NV]; MR]; UNROLL];
        for v in 0..NV {
            let init = S::load(t.init.add(v * S::LANES).cast());
            for m in 0..MR {
                acc[0][m][v] = init;
            }
        }
        let (mut x, mut w) = (t.x, t.weights);
        for _ in 0..t.steps / UNROLL {
            for u in 0..UNROLL {
                step::<S, MR, NV>(&mut acc[u], x.add(4 * u), t.stride, w.add(u * NV * bytes));
            }
            x = x.add(4 * UNROLL);
            w = w.add(UNROLL * NV * bytes);
        }
        for _ in 0..t.steps % UNROLL {
            step::<S, MR, NV>(&mut acc[0], x, t.stride, w);
            x = x.add(4);
            w = w.add(NV * bytes);
        }
        if MR == 1 {
            // Bound by the stream of weights: it must not stop while this panel is finished.
            for line in 0..AHEAD {
                S::prefetch(w.wrapping_add(64 * line));
            }
        }
        for m in 0..MR {
            for v in 0..NV {
                let mut sum = acc[0][m][v];
                for u in 1..UNROLL {
                    sum = S::add(sum, acc[u][m][v]);
                }
                S::store(t.out.add((m * NV + v) * S::LANES).cast(), sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NV: usize>(
    acc: &mut [[S::V; NV]; MR],
    x: *const u8,
    stride: usize,
    weights: *const i8,
) {
    // SAFETY: as `Run`.
    unsafe {
        let bytes = S::LANES * 4 / S::X_BYTES;
        let mut w = [acc[0][0]; NV];
        for v in 0..NV {
            w[v] = S::dense_w(weights.add(v * bytes));
        }
        for m in 0..MR {
            let x = S::splat_quad(x.add(m * stride).cast());
            for v in 0..NV {
                acc[m][v] = S::dense_dot(acc[m][v], x, w[v]);
            }
        }
    }
}

/// `times` rounds of independent chains of dot products: the fastest that the tier can multiply. Returns the operations
/// done (a multiplication and an addition are two).
///
/// Where a dot product is one instruction it runs on registers alone. Where it is a multiplication and an addition, or
/// plain Rust, the compiler would multiply only once, so one operand comes from the first-level cache, which keeps up
/// with it.
#[inline(always)]
pub unsafe fn peak<S: Simd>(times: u64) -> u64 {
    // SAFETY: the caller vouches for the tier; the buffer holds all that is loaded.
    unsafe {
        let buffer = [3u8; 8 * 64];
        let x = S::splat(0x0301_0203);
        let w = S::splat(0x0102_fe04);
        let registers = S::X_BYTES == 1 && S::ISA != Isa::Scalar;
        let chains = if registers { 12 } else { 8 };
        let mut acc = [S::splat(0); 12];
        for _ in 0..times {
            let buffer = std::hint::black_box(&buffer).as_ptr();
            for (i, chain) in acc.iter_mut().take(chains).enumerate() {
                let w = if registers { w } else { S::load(buffer.add(i * S::LANES * 4)) };
                *chain = S::dense_dot(*chain, x, w);
            }
        }
        let mut sum = acc[0];
        for chain in &acc[1..] {
            sum = S::add(sum, *chain);
        }
        std::hint::black_box(S::sum(sum));
        times * chains as u64 * (S::LANES * 4 / S::X_BYTES) as u64 * 2
    }
}
