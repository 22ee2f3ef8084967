//! Bytes out of exact sums that stay inside the range of i32: of the next layer's panel, in the registers of a sparse tile or of sums in
//! memory, and of rows, of the sums of a dense tile.
//!
//! `byte = clamp(round(post * f(sum * scale + bias)) + zero, low, high)`, then perhaps a table. Without a curve f the factor post
//! is in scale and bias already.

use super::activation::{Function, apply_scaled, with_curve};
use super::epilogue::{Finish, Sums};
use super::simd::Simd;

/// Exact sums `[row][64 tokens]`, in the order of `sparse::place`, of rows from output feature `first` on, to bytes `[row][64]`.
///
/// # Safety
/// The CPU has the tier; the call has parameters for these features; sums are there, and room for bytes.
#[inline(always)]
pub unsafe fn rows<S: Simd>(finish: &Finish<'_>, sums: *const i32, first: usize, rows: usize, out: *mut u8) {
    // SAFETY: as the caller.
    unsafe { with_curve!(finish.curve, f => rows_of::<S, _>(f, finish, sums, first, rows, out)) }
}

#[inline(always)]
unsafe fn rows_of<S: Simd, A: Function>(
    f: A,
    finish: &Finish<'_>,
    sums: *const i32,
    first: usize,
    rows: usize,
    out: *mut u8,
) {
    for row in 0..rows {
        let mut offset = 0;
        while offset < 64 {
            // SAFETY: as `rows`.
            unsafe {
                let mut acc = [S::splat(0); 4];
                for j in 0..4 {
                    acc[j] = S::load(sums.add(row * 64 + offset + j * S::LANES).cast());
                }
                finish.store::<S, A, 4>(f, &acc, first + row, out.add(row * 64 + offset));
            }
            offset += 4 * S::LANES;
        }
    }
}

/// A dense tile whose features fill pairs of registers, without a curve, token by token: those of two tokens are packed at once.
///
/// # Safety
/// As `epilogue::Run`.
#[inline(always)]
pub unsafe fn tokens<S: Simd>(finish: &Finish<'_>, tile: &Sums) {
    let mut c = 0;
    while c < tile.features {
        // SAFETY: as the caller, who has parameters for these features, sums of these tokens, and their outputs.
        unsafe {
            let (mut scale, mut bias) = ([S::splat_f(0.0); 2], [S::splat_f(0.0); 2]);
            for v in 0..2 {
                scale[v] = S::load_f(finish.scale.as_ptr().add(tile.feature + c + v * S::LANES));
                bias[v] = S::load_f(finish.bias.as_ptr().add(tile.feature + c + v * S::LANES));
            }
            let mut m = 0;
            while m < tile.tokens {
                // Of an odd number the last comes twice.
                let two = [m, (m + 1).min(tile.tokens - 1)];
                let mut q = [S::splat(0); 4];
                for i in 0..2 {
                    for v in 0..2 {
                        let sum = S::load(tile.sums.add(two[i] * tile.ld + c + v * S::LANES).cast());
                        q[2 * i + v] = S::round(S::fma(S::to_f32(sum), scale[v], bias[v]));
                    }
                }
                let bytes = finish.bounded::<S>(S::pack_in_order(q, finish.zero));
                let first = tile.out.add(two[0] * tile.stride + c);
                S::store_apart(first, tile.out.add(two[1] * tile.stride + c), bytes);
                m += 2;
            }
        }
        c += 2 * S::LANES;
    }
}

impl Finish<'_> {
    /// Saturated bytes inside their limits, and what the table makes of them.
    #[inline(always)]
    unsafe fn bounded<S: Simd>(&self, bytes: S::V) -> S::V {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let bytes = match (self.low, self.high) {
                (0, 255) => bytes,
                (low, high) => S::clamp_bytes(bytes, low, high),
            };
            match self.table {
                None => bytes,
                Some(table) => S::lookup256(table, bytes),
            }
        }
    }

    /// Stores the bytes of `VECS` registers of one row: a whole register of them if VECS is 4, 8 of each 16 if it is 2.
    #[inline(always)]
    pub unsafe fn store<S: Simd, A: Function, const VECS: usize>(
        &self,
        f: A,
        acc: &[S::V; VECS],
        row: usize,
        out: *mut u8,
    ) {
        // SAFETY: the caller vouches for the row, the tier and the room at out.
        unsafe {
            let scale = S::splat_f(*self.scale.get_unchecked(row) * A::SCALE);
            let bias = S::splat_f(*self.bias.get_unchecked(row) * A::SCALE);
            let mut y = [scale; VECS];
            for v in 0..VECS {
                y[v] = S::fma(S::to_f32(acc[v]), scale, bias);
            }
            if !A::IDENTITY {
                apply_scaled::<S, A, VECS>(f, &mut y);
                for v in 0..VECS {
                    y[v] = S::mul_f(y[v], S::splat_f(self.post / A::SCALE));
                }
            }
            let mut q = *acc;
            for v in 0..VECS {
                q[v] = S::round(y[v]);
            }
            if const { VECS == 4 } {
                S::store(out, self.bounded::<S>(S::pack4([q[0], q[1], q[2], q[3]], self.zero)));
            } else {
                S::store_pack2(out, q[0], q[1], self.zero, self.low, self.high);
                if let Some(table) = self.table {
                    for part in 0..S::LANES / 4 {
                        for byte in 0..8 {
                            let p = out.add(16 * part + byte);
                            *p = table[usize::from(*p)];
                        }
                    }
                }
            }
        }
    }
}
