//! Elementwise loops over the sums of a row of context, left to the compiler to vectorize.
//!
//! ```text
//! add:          total[i] += sums[i]                       sums of a chunk onto those of a row
//! add_scaled:   total[i] += (sums[i] - offset) * scale    exact sums of a chunk onto those of a row
//! scale_from:   sums[i] = from + sums[i] * scale
//! gate:         x[i] = (x[i] + 0) * gate
//! finite:       whether every x[i] is finite
//! ```

autovec!(
    /// Adds the sums of a chunk to those before.
    pub fn add(sums: &[f32], total: &mut [f32]) = add_body
);
autovec!(
    /// Adds what the exact sums of a chunk stand for to those before. The difference fits, whatever the operands.
    pub fn add_scaled(sums: &[i32], offset: i32, scale: f32, total: &mut [f32]) = add_scaled_body
);
autovec!(
    /// Multiplies sums by a number and adds another; the products fit, and the sums as they are or as the bits of floats.
    pub fn scale_from(from: i32, scale: i32, sums: &mut [i32]) = scale_from_body
);
autovec!(
    /// Multiplies by a gate, with -0 made 0 before.
    pub fn gate(x: &mut [f32], gate: f32) = gate_body
);
autovec!(
    /// Whether no number is infinite or NaN.
    pub fn finite(x: &[f32]) -> bool = finite_body
);

#[inline(always)]
fn add_body(sums: &[f32], total: &mut [f32]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total += *sum;
    }
}

#[inline(always)]
fn add_scaled_body(sums: &[i32], offset: i32, scale: f32, total: &mut [f32]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total += sum.wrapping_sub(offset) as f32 * scale;
    }
}

#[inline(always)]
fn scale_from_body(from: i32, scale: i32, sums: &mut [i32]) {
    for sum in sums {
        *sum = sum.wrapping_mul(scale).wrapping_add(from);
    }
}

#[inline(always)]
fn gate_body(x: &mut [f32], gate: f32) {
    for x in x {
        *x = (*x + 0.0) * gate;
    }
}

#[inline(always)]
fn finite_body(x: &[f32]) -> bool {
    // The exponent of an infinity or NaN has all bits set.
    x.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7f80_0000)) != 0x7f80_0000
}
