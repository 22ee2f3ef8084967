//! The end of rows whose context needs no more than its format: no gate, no quantizer of its own, no chunk to be added to another.
//!
//! ```text
//! floats:  out[row][i] = sums[row][i] + 0;  returns whether all are finite
//! bytes:   out[row][i] = quantize((sums[row][i] - offset[row]) * scale[row] + 0)
//! ```

use crate::kernels::quantize::Affine;

/// Rows of sums, 4 bytes each, and where they go.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// How many rows there are.
    pub rows: usize,
    /// Numbers of a row that leave.
    pub columns: usize,
    /// The sums of row 0.
    pub sums: *const u8,
    /// Bytes from one row of sums to the next.
    pub sums_stride: usize,
    /// The output of row 0.
    pub out: *mut u8,
    /// Bytes from one row of the output to the next.
    pub out_stride: usize,
}

/// What exact sums of a row stand for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// The real value of 1 in the sums.
    pub scale: f32,
    /// What the zero point of v adds to them.
    pub offset: i32,
}

autovec!(
    /// Rows of floats to floats; whether all are finite.
    pub fn floats(ends: &Ends) -> bool = floats_body
);
autovec!(
    /// Rows of integers to bytes, a part for each, by divisions.
    pub fn divided(ends: &Ends, parts: &[Part], to: Affine) = bytes_body::<false>
);
autovec!(
    /// As [`divided`], by corrected reciprocals: `quantize::corrects` the scale.
    pub fn corrected(ends: &Ends, parts: &[Part], to: Affine) = bytes_body::<true>
);

#[inline(always)]
fn floats_body(ends: &Ends) -> bool {
    let mut most = 0u32;
    for row in 0..ends.rows {
        // SAFETY: the caller vouches for the sums and for the output, which is no other row's and not the sums.
        let (sums, out) = unsafe {
            let sums = ends.sums.add(row * ends.sums_stride).cast::<f32>();
            let out = ends.out.add(row * ends.out_stride).cast::<f32>();
            (
                std::slice::from_raw_parts(sums, ends.columns),
                std::slice::from_raw_parts_mut(out, ends.columns),
            )
        };
        for (out, sum) in out.iter_mut().zip(sums) {
            // The exponent of an infinity or NaN has all bits set.
            most = most.max(sum.to_bits() & 0x7f80_0000);
            *out = *sum + 0.0;
        }
    }
    most != 0x7f80_0000
}

#[inline(always)]
fn bytes_body<const CORRECT: bool>(ends: &Ends, parts: &[Part], to: Affine) {
    let reciprocal = to.reciprocal();
    for (row, part) in parts.iter().take(ends.rows).enumerate() {
        let Part { scale, offset } = *part;
        // SAFETY: the caller vouches for the sums and for the output, which is no other row's and not the sums.
        let (sums, out) = unsafe {
            let sums = ends.sums.add(row * ends.sums_stride).cast::<i32>();
            let out = ends.out.add(row * ends.out_stride);
            (
                std::slice::from_raw_parts(sums, ends.columns),
                std::slice::from_raw_parts_mut(out, ends.columns),
            )
        };
        for (out, sum) in out.iter_mut().zip(sums) {
            // The addition makes -0 what it is after sums of several chunks.
            let x = 0.0 + sum.wrapping_sub(offset) as f32 * scale;
            *out = if CORRECT { to.corrected(x, reciprocal) } else { to.divided(x) };
        }
    }
}
