//! What quantization costs.

use crate::base::error::{Error, Result};

/// The signal-to-quantization-noise ratio in decibels, `10 log10(sum reference^2 / sum (reference - got)^2)`,
/// summed in f64; infinite where the two are equal.
///
/// # Errors
/// * [`Error::Shape`] if the lengths differ or are 0;
/// * [`Error::Value`] if either holds a NaN or an infinity.
pub fn sqnr_db(reference: &[f32], got: &[f32]) -> Result<f64> {
    super::observer::min_max("reference", reference)?;
    if got.len() != reference.len() {
        return Err(Error::shape("got", format_args!("{} elements", reference.len()), got.len()));
    }
    super::observer::min_max("got", got)?;
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&r, &g) in reference.iter().zip(got) {
        let (r, g) = (f64::from(r), f64::from(g));
        signal += r * r;
        noise += (r - g) * (r - g);
    }
    Ok(if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() })
}
