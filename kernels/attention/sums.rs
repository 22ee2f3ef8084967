//! Sums of chunks to those of a row, and those to floats: left to the compiler to vectorize.

autovec!(
    /// Onto the sums before.
    pub fn add_floats(sums: &[f32], total: &mut [f32]) = add_floats_body
);
autovec!(
    /// Onto the sums before, which fit.
    pub fn add_ints(sums: &[i32], total: &mut [i32]) = add_ints_body
);
autovec!(
    /// Onto the sums before.
    pub fn add_wide(sums: &[i32], total: &mut [i64]) = add_wide_body
);
autovec!(
    /// Less an offset, times a scale. The difference fits, whatever the operands.
    pub fn dequantize(sums: &[i32], offset: i32, scale: f32, out: &mut [f32]) = dequantize_body
);
autovec!(
    /// Less an offset, times a scale.
    pub fn dequantize_wide(sums: &[i64], offset: i64, scale: f32, out: &mut [f32]) = dequantize_wide_body
);
autovec!(
    /// Times a gate; 0 is never -0 before.
    pub fn gate(x: &mut [f32], gate: f32) = gate_body
);
autovec!(
    /// Whether there is an infinity or a NaN.
    pub fn finite(x: &[f32]) -> bool = finite_body
);

#[inline(always)]
fn add_floats_body(sums: &[f32], total: &mut [f32]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total += *sum;
    }
}

#[inline(always)]
fn add_ints_body(sums: &[i32], total: &mut [i32]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total = total.wrapping_add(*sum);
    }
}

#[inline(always)]
fn add_wide_body(sums: &[i32], total: &mut [i64]) {
    for (total, sum) in total.iter_mut().zip(sums) {
        *total += i64::from(*sum);
    }
}

#[inline(always)]
fn dequantize_body(sums: &[i32], offset: i32, scale: f32, out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum.wrapping_sub(offset) as f32 * scale;
    }
}

#[inline(always)]
fn dequantize_wide_body(sums: &[i64], offset: i64, scale: f32, out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum - offset) as f32 * scale;
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
    // All bits of the exponent.
    x.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7f80_0000)) != 0x7f80_0000
}
