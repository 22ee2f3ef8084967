//! The range of values in which eight bits keep them best: with the least mean squared error, between what is rounded and what is clipped.
//!
//! Nagel, Fournarakis, Amjad, Bondarenko, van Baalen, Blankevoort, *A White Paper on Neural Network Quantization*, 2021, section 3.1. They
//! search over one end; here over both, by turns, because bytes have a zero point.

use siskin::Element;
use siskin::Result;
use siskin::quant::QuantParams;

/// Bins of the histogram that stands for the values: some to a step of eight bits.
const BINS: usize = 2048;
/// Parts of the whole range that an end is tried at.
const STEPS: usize = 100;

/// Of values from `low` to `high`, with 0 among them, the part of that range that is kept best.
pub(crate) fn range(values: impl Iterator<Item = f32>, (low, high): (f32, f32)) -> Result<(f32, f32)> {
    let width = (high - low) / BINS as f32;
    if !(width > 0.0 && width.is_finite()) {
        return Ok((low, high));
    }
    let mut counts = vec![0u32; BINS];
    for v in values {
        counts[(((v - low) / width) as usize).min(BINS - 1)] += 1;
    }
    let bins: Vec<(f32, f64)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(i, &count)| (low + (i as f32 + 0.5) * width, f64::from(count)))
        .collect();
    let parts = || (1..=STEPS).map(|i| i as f32 / STEPS as f32);
    let (mut best, mut least) = ((low, high), error(&bins, (low, high))?);
    loop {
        let before = best;
        let ends =
            parts().map(|part| (low * part, before.1)).chain(parts().map(|part| (before.0, high * part)));
        for ends in ends {
            let error = error(&bins, ends)?;
            if error < least {
                (best, least) = (ends, error);
            }
        }
        if best == before {
            return Ok(best);
        }
    }
}

/// The squared error of values in bins, by the bytes of a range.
fn error(bins: &[(f32, f64)], (low, high): (f32, f32)) -> Result<f64> {
    let params = QuantParams::from_range_asymmetric(low, high, Element::U8)?;
    let one = |&(v, count): &(f32, f64)| {
        let error = f64::from(v) - f64::from(params.dequantize(params.quantize(v)));
        count * error * error
    };
    Ok(bins.iter().map(one).sum())
}

/// Rows of a tensor that are kept while others pass: from all over what was seen, at equal distances.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// One after the other.
    pub rows: Vec<f32>,
    seen: usize,
    /// Every so many rows one is kept; 0 before the first.
    every: usize,
}

/// Rows that are kept at most.
const ROWS: usize = 512;

impl Sample {
    /// Sees one more row, as long as all others.
    pub fn see(&mut self, row: &[f32]) {
        self.every = self.every.max(1);
        if self.seen.is_multiple_of(self.every) {
            if self.rows.len() == ROWS * row.len() {
                // Every second stays.
                for i in 1..ROWS / 2 {
                    self.rows.copy_within(2 * i * row.len()..(2 * i + 1) * row.len(), i * row.len());
                }
                self.rows.truncate(ROWS / 2 * row.len());
                self.every *= 2;
            }
            if self.seen.is_multiple_of(self.every) {
                self.rows.extend_from_slice(row);
            }
        }
        self.seen += 1;
    }
}
