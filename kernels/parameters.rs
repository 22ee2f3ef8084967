//! What each output feature of a call starts from and is scaled by, left to the compiler to vectorize: of a single token they cost
//! about as much as the end of the tiles.
//!
//! ```text
//! scaled:  to[i] = by * x[i] * fold
//! start:   to[i] = -(sums[i] * zero)
//! ```

autovec!(
    /// Multiplies by two numbers, one after the other.
    pub fn scaled(x: &[f32], by: f32, fold: f32, to: &mut [f32]) = scaled_body
);
autovec!(
    /// What sums of products start from where x has a zero point.
    pub fn start(sums: &[i32], zero: i32, to: &mut [i32]) = start_body
);

#[inline(always)]
fn scaled_body(x: &[f32], by: f32, fold: f32, to: &mut [f32]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = by * x * fold;
    }
}

#[inline(always)]
fn start_body(sums: &[i32], zero: i32, to: &mut [i32]) {
    for (to, sum) in to.iter_mut().zip(sums) {
        *to = sum.wrapping_mul(zero).wrapping_neg();
    }
}
