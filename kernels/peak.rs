//! The most that a tier can multiply: independent chains of products, of registers where that is possible.

use super::dense::Product;
use super::simd::Simd;

/// Aligned to a cache line: a load across two lines would cost two loads.
#[repr(align(64))]
struct Aligned([u8; 8 * 64]);

/// Runs `times` rounds of independent chains of dot products, or of products of matrices: the fastest that the tier
/// can multiply. Returns the operations done (a multiplication and an addition are two).
///
/// Where a dot product is one instruction it runs on registers alone. Where it is a multiplication and an addition,
/// or plain Rust, the compiler would multiply only once, so one operand comes from the first-level cache, which keeps
/// up with it.
#[inline(always)]
pub unsafe fn peak<S: Simd>(times: u64) -> u64 {
    // SAFETY: the caller vouches for the tier; the buffer holds all that is loaded.
    unsafe {
        let buffer = Aligned([3u8; 8 * 64]);
        let x = S::quad([3u8, 2, 1, 3].as_ptr());
        let w = S::splat(0x0102_fe04);
        let registers = S::ONE_INSTRUCTION;
        let chains = if registers { 12 } else { 8 };
        let mut acc = [S::splat(0); 12];
        for _ in 0..times {
            let buffer = std::hint::black_box(&buffer).0.as_ptr();
            for (i, chain) in acc.iter_mut().take(chains).enumerate() {
                let w = if registers { w } else { S::load(buffer.add(i * S::LANES * 4)) };
                *chain = if S::MATRIX { S::matrix(*chain, w, w) } else { S::dense_dot::<0>(*chain, x, w) };
            }
        }
        let mut sum = acc[0];
        for chain in &acc[1..] {
            sum = S::add(sum, *chain);
        }
        std::hint::black_box(S::sum(sum));
        let products = if S::MATRIX { 32 } else { S::LANES * 4 / S::X_BYTES };
        times * chains as u64 * products as u64 * 2
    }
}

/// [`peak`] for float sums of `ELEMENTS` products a lane, on registers alone.
#[inline(always)]
pub unsafe fn float_peak<S: Simd, P: Product<S, Acc = S::F>, const ELEMENTS: u64>(times: u64) -> u64 {
    // SAFETY: the caller vouches for the tier.
    unsafe {
        // 1.0 as bfloat16 in both halves of a lane; read as a float, a little above 1.
        let x = S::quad(std::hint::black_box(&[0x80u8, 0x3f, 0x80, 0x3f]).as_ptr());
        let w = S::splat(std::hint::black_box(0x3f80_3f80));
        let mut acc = [P::zero(); 12];
        for _ in 0..times {
            for chain in &mut acc {
                *chain = if P::MATRIX { P::matrix(*chain, w, w) } else { P::dot::<0>(*chain, x, w) };
            }
        }
        let mut sum = acc[0];
        for chain in &acc[1..] {
            sum = P::add(sum, *chain);
        }
        std::hint::black_box(S::sum(S::as_v(sum)));
        let products = S::LANES as u64 * ELEMENTS * if P::MATRIX { 2 } else { 1 };
        times * 12 * products * 2
    }
}
