//! The exponential and the sigmoid where speed does not matter: the same bits on every platform, which the one of `std` is not.

/// e to the x for x <= 0, to within a few parts in 10^15; 0 below -700.
///
/// x = n ln 2 + r, a polynomial in r, times 2^n: each step one rounded operation of f64.
pub(crate) fn exp(x: f64) -> f64 {
    /// 1.5 * 2^52: adding it rounds to an integer.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    /// ln 2 in two parts, the first exact when multiplied by a small integer.
    const LN_2: (f64, f64) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);
    debug_assert!(x.is_nan() || x <= 0.0);
    if x < -700.0 {
        return 0.0;
    }
    let n = (x * std::f64::consts::LOG2_E + MAGIC) - MAGIC;
    let r = (x - n * LN_2.0) - n * LN_2.1;
    // The sum of r^k / k! up to k = 13: |r| <= ln 2 / 2, so the next term is below 10^-17.
    let mut p = 1.0;
    for k in (1..=13).rev() {
        p = 1.0 + p * r / f64::from(k);
    }
    p * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// `1 / (1 + e^-x)`, by the exponential of what is not positive: no overflow.
pub(crate) fn sigmoid(x: f64) -> f32 {
    let e = exp(-x.abs());
    let top = if x < 0.0 { e } else { 1.0 };
    (top / (1.0 + e)) as f32
}
