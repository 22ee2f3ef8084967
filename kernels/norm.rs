//! LayerNorm of a row: J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization (2016), section 3.
//!
//! ```text
//! h[i]     = x[i] + residual[i]                                the residual is optional
//! mean     = sum(h) / n
//! variance = sum((h[i] - mean)^2) / n
//! y[i]     = (h[i] - mean) * (1 / sqrt(variance + eps)) * gamma[i] + beta[i]
//! multiply:  y[i] = x[i] * by[i]
//! reach:     the largest |x[i] + residual[i]|
//! ```
//!
//! Every operation is rounded once, from left to right; nothing is fused. Sums are taken in [`LANES`] lanes, whatever the width of a
//! register: lane l adds elements l, l + LANES, .. in order, and lanes are added in halves. So the bits are the same on every tier.
//! Bodies are plain Rust that the compiler turns into vectors, as in `quantize.rs`.

use crate::base::isa::Isa;

/// Lanes of a sum: as many as it takes for additions that wait for each other not to be what a row waits for.
const LANES: usize = 32;

/// What a row is scaled and moved by.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// The factor of each feature.
    pub gamma: &'a [f32],
    /// The addend of each feature.
    pub beta: &'a [f32],
    /// What is added to the variance.
    pub eps: f32,
}

/// A kernel: of x and the residual, which are empty where there are none, to the row. All others have the row's length. Safe to
/// call where the ISA that it was picked for is supported; slices of other lengths panic.
pub type Row = unsafe fn(&[f32], &[f32], Affine<'_>, &mut [f32]);

/// The kernel for an ISA: whether the row is made of x (else it is normalized where it is), and whether a residual is added.
pub fn row(isa: Isa, from_x: bool, residual: bool) -> Row {
    match (from_x, residual) {
        (false, false) => in_place::pick(isa),
        (false, true) => in_place_sum::pick(isa),
        (true, false) => of_x::pick(isa),
        (true, true) => of_sum::pick(isa),
    }
}

autovec!(fn in_place(x: &[f32], residual: &[f32], to: Affine<'_>, h: &mut [f32]) = row_body::<false, false>);
autovec!(fn in_place_sum(x: &[f32], residual: &[f32], to: Affine<'_>, h: &mut [f32]) = row_body::<false, true>);
autovec!(fn of_x(x: &[f32], residual: &[f32], to: Affine<'_>, h: &mut [f32]) = row_body::<true, false>);
autovec!(fn of_sum(x: &[f32], residual: &[f32], to: Affine<'_>, h: &mut [f32]) = row_body::<true, true>);
autovec!(
    /// Products, up to the shortest length.
    pub fn multiply(x: &[f32], by: &[f32], y: &mut [f32]) = multiply_body
);
autovec!(
    /// The largest magnitude of a row, as bits; of a NaN, more than those of infinity.
    pub fn reach(x: &[f32]) -> u32 = reach_body
);
autovec!(
    /// [`reach`] of the sums of two rows.
    pub fn reach_of_sum(x: &[f32], residual: &[f32]) -> u32 = reach_of_sum_body
);

#[inline(always)]
fn row_body<const FROM_X: bool, const SUM: bool>(x: &[f32], residual: &[f32], to: Affine<'_>, h: &mut [f32]) {
    let n = h.len();
    let (x, residual) = (if FROM_X { &x[..n] } else { x }, if SUM { &residual[..n] } else { residual });
    let (gamma, beta) = (&to.gamma[..n], &to.beta[..n]);
    let mean = sum::<FROM_X, SUM>(x, residual, h) / n as f32;
    let variance = squares(h, mean) / n as f32;
    let reciprocal = 1.0 / (variance + to.eps).sqrt();
    for i in 0..n {
        h[i] = (h[i] - mean) * reciprocal * gamma[i] + beta[i];
    }
}

/// Makes the row, and its sum.
#[inline(always)]
fn sum<const FROM_X: bool, const SUM: bool>(x: &[f32], residual: &[f32], h: &mut [f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = h.len() / LANES * LANES;
    let mut at = 0;
    while at < whole {
        let some = at..at + LANES;
        let (x, residual): (&[f32], &[f32]) =
            (if FROM_X { &x[some.clone()] } else { x }, if SUM { &residual[some.clone()] } else { residual });
        let h = &mut h[some];
        for l in 0..LANES {
            let own = if FROM_X { x[l] } else { h[l] };
            let own = if SUM { own + residual[l] } else { own };
            if FROM_X || SUM {
                h[l] = own;
            }
            lanes[l] += own;
        }
        at += LANES;
    }
    for i in whole..h.len() {
        let own = if FROM_X { x[i] } else { h[i] };
        h[i] = if SUM { own + residual[i] } else { own };
    }
    finish(&lanes, &h[whole..], None)
}

/// The sum of squared differences from the mean.
#[inline(always)]
fn squares(h: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (body, tail) = h.as_chunks::<LANES>();
    for h in body {
        for l in 0..LANES {
            let less = h[l] - mean;
            lanes[l] += less * less;
        }
    }
    finish(&lanes, tail, Some(mean))
}

/// Adds what is left of a row to the lanes, as it is or as the squares of differences from a mean, and then the upper half of the
/// lanes to the lower until one is left. A function of its own: what is inlined here becomes a hundred scalar operations, because
/// the compiler sees all lanes as variables.
#[inline(never)]
fn finish(lanes: &[f32; LANES], tail: &[f32], mean: Option<f32>) -> f32 {
    let mut lanes = *lanes;
    for (lane, &h) in lanes.iter_mut().zip(tail) {
        *lane += mean.map_or(h, |mean| (h - mean) * (h - mean));
    }
    let mut sixteen = [0.0; 16];
    for l in 0..16 {
        sixteen[l] = lanes[l] + lanes[l + 16];
    }
    let mut eight = [0.0; 8];
    for l in 0..8 {
        eight[l] = sixteen[l] + sixteen[l + 8];
    }
    let mut four = [0.0; 4];
    for l in 0..4 {
        four[l] = eight[l] + eight[l + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

#[inline(always)]
fn multiply_body(x: &[f32], by: &[f32], y: &mut [f32]) {
    for ((y, x), by) in y.iter_mut().zip(x).zip(by) {
        *y = x * by;
    }
}

#[inline(always)]
fn reach_body(x: &[f32]) -> u32 {
    x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
}

#[inline(always)]
fn reach_of_sum_body(x: &[f32], residual: &[f32]) -> u32 {
    let sums = x.iter().zip(residual).map(|(x, residual)| x + residual);
    sums.fold(0, |most, h| most.max(h.to_bits() & 0x7fff_ffff))
}
