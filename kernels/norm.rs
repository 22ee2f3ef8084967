//! LayerNorm of some rows: J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization (2016), section 3.
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

/// A row to be made of x and the residual, which are empty where there are none.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub x: &'a [f32],
    pub residual: &'a [f32],
    pub h: &'a mut [f32],
}

/// The most rows that a kernel works on at a time: while the lanes of one row are added up, the next is read.
pub const ROWS: usize = 4;

/// A kernel: of up to [`ROWS`] rows, all as long as the factors. Safe to call where the ISA that it was picked for is supported; slices of
/// other lengths panic.
pub type Rows = unsafe fn(&mut [Row<'_>], Affine<'_>);

/// The kernel for an ISA: whether rows are made of x (else they are normalized where they are), and whether a residual is added.
pub fn rows(isa: Isa, from_x: bool, residual: bool) -> Rows {
    match (from_x, residual) {
        (false, false) => in_place::pick(isa),
        (false, true) => in_place_sum::pick(isa),
        (true, false) => of_x::pick(isa),
        (true, true) => of_sum::pick(isa),
    }
}

autovec!(fn in_place(rows: &mut [Row<'_>], to: Affine<'_>) = rows_body::<false, false>);
autovec!(fn in_place_sum(rows: &mut [Row<'_>], to: Affine<'_>) = rows_body::<false, true>);
autovec!(fn of_x(rows: &mut [Row<'_>], to: Affine<'_>) = rows_body::<true, false>);
autovec!(fn of_sum(rows: &mut [Row<'_>], to: Affine<'_>) = rows_body::<true, true>);
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
fn rows_body<const FROM_X: bool, const SUM: bool>(rows: &mut [Row<'_>], to: Affine<'_>) {
    let n = to.gamma.len();
    let (gamma, beta) = (to.gamma, &to.beta[..n]);
    let (mut means, mut reciprocals) = ([0.0; ROWS], [0.0; ROWS]);
    let means = &mut means[..rows.len()];
    for (mean, row) in means.iter_mut().zip(&mut *rows) {
        let x = if FROM_X { &row.x[..n] } else { row.x };
        let residual = if SUM { &row.residual[..n] } else { row.residual };
        *mean = sum::<FROM_X, SUM>(x, residual, &mut row.h[..n]) / n as f32;
    }
    for ((reciprocal, mean), row) in reciprocals.iter_mut().zip(&*means).zip(&*rows) {
        let variance = squares(&row.h[..n], *mean) / n as f32;
        *reciprocal = 1.0 / (variance + to.eps).sqrt();
    }
    for ((reciprocal, mean), row) in reciprocals.iter().zip(&*means).zip(rows) {
        let h = &mut row.h[..n];
        for i in 0..n {
            h[i] = (h[i] - mean) * reciprocal * gamma[i] + beta[i];
        }
    }
}

/// Makes the row, and its sum.
#[inline(always)]
fn sum<const FROM_X: bool, const SUM: bool>(x: &[f32], residual: &[f32], h: &mut [f32]) -> f32 {
    let mut lanes = Lanes([0.0; LANES]);
    let (body, tail) = h.as_chunks_mut::<LANES>();
    let ((x, x_tail), (residual, residual_tail)) = (x.as_chunks::<LANES>(), residual.as_chunks::<LANES>());
    let x = if FROM_X { &x[..body.len()] } else { x };
    let residual = if SUM { &residual[..body.len()] } else { residual };
    for i in 0..body.len() {
        let mut own = if FROM_X { x[i] } else { body[i] };
        for l in 0..LANES {
            own[l] = if SUM { own[l] + residual[i][l] } else { own[l] };
            lanes.0[l] += own[l];
        }
        if FROM_X || SUM {
            body[i] = own;
        }
    }
    for (i, h) in tail.iter_mut().enumerate() {
        let own = if FROM_X { x_tail[i] } else { *h };
        *h = if SUM { own + residual_tail[i] } else { own };
    }
    finish(lanes, tail, None)
}

/// The sum of squared differences from the mean.
#[inline(always)]
fn squares(h: &[f32], mean: f32) -> f32 {
    let mut lanes = Lanes([0.0; LANES]);
    let (body, tail) = h.as_chunks::<LANES>();
    for h in body {
        for l in 0..LANES {
            let less = h[l] - mean;
            lanes.0[l] += less * less;
        }
    }
    finish(lanes, tail, Some(mean))
}

/// Sums, in the lanes of a row. On a cache line, and given away by value: as a reference they would be in memory all the time, and
/// would be stored again with each addition.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lanes([f32; LANES]);

/// Adds what is left of a row to the lanes, as it is or as the squares of differences from a mean, and then the upper half of the
/// lanes to the lower until one is left. A function of its own: what is inlined here becomes a hundred scalar operations, because
/// the compiler sees all lanes as variables.
#[inline(never)]
fn finish(lanes: Lanes, tail: &[f32], mean: Option<f32>) -> f32 {
    let mut lanes = lanes.0;
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
