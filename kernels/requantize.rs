//! The fused end of a sparse tile: i32 to bytes of the next layer, without leaving the registers.

use super::activation::{Activation, Function, apply_scaled};
use super::simd::Simd;

/// i32 to bytes: `q = clamp(round(post * f(acc * scale + bias)) + zero, low, high)`, then perhaps a table.
#[derive(Clone, Copy)]
pub struct Requantize<'a> {
    /// Per output feature.
    pub scale: &'a [f32],
    /// Per output feature.
    pub bias: &'a [f32],
    /// f. The identity is already in steps of the output: `post` is then not used.
    pub activation: Activation,
    /// Output steps per unit.
    pub post: f32,
    /// Output zero point, unsigned.
    pub zero: i32,
    /// Lowest byte.
    pub low: u8,
    /// Highest byte.
    pub high: u8,
    /// What each byte becomes at last.
    pub table: Option<&'a [u8; 256]>,
}

impl Requantize<'_> {
    /// Stores the bytes of `VECS` registers of one row: a whole register of them if VECS is 4, 8 of each 16 if it is 2.
    #[inline(always)]
    pub unsafe fn store<S: Simd, A: Function, const VECS: usize>(
        &self,
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
            if A::F != Activation::Identity {
                apply_scaled::<S, A, VECS>(&mut y);
                for v in 0..VECS {
                    y[v] = S::mul_f(y[v], S::splat_f(self.post / A::SCALE));
                }
            }
            let mut q = *acc;
            for v in 0..VECS {
                q[v] = S::round(y[v]);
            }
            if VECS == 4 {
                let bytes = S::pack4([q[0], q[1], q[2], q[3]], self.zero);
                let bytes = match (self.low, self.high) {
                    (0, 255) => bytes,
                    (low, high) => S::clamp_bytes(bytes, low, high),
                };
                match self.table {
                    None => S::store(out, bytes),
                    Some(table) => S::store(out, S::lookup256(table, bytes)),
                }
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
