//! LayerNorm of the rows of a matrix, in f32, and as bytes for the layer that comes next.

use siskin::quant::QuantParams;

/// The parameters of a LayerNorm.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
    /// What its output is as bytes, if the next layer takes them.
    pub bytes: Option<Bytes>,
}

/// What bytes of a tensor stand for: feature f of a token is `smooth[f] * scale * (byte - zero_point)`.
#[derive(Debug, Clone)]
pub(crate) struct Bytes {
    pub params: QuantParams,
    /// `1 / (smooth * scale)`, by feature.
    pub steps: Vec<f32>,
}

/// Sums are taken in so many lanes, and then added up in order.
const LANES: usize = 16;

impl Norm {
    /// Normalizes the rows of `x`, `[tokens, features]`, where they are; `bytes` gets them as bytes, if they are wanted so.
    pub fn apply(&self, x: &mut [f32], bytes: &mut [u8]) {
        let features = self.weight.len();
        for row in x.chunks_exact_mut(features) {
            self.row(row);
        }
        if let Some(to) = &self.bytes {
            for (row, bytes) in x.chunks_exact(features).zip(bytes.chunks_exact_mut(features)) {
                to.row(row, bytes);
            }
        }
    }

    fn row(&self, row: &mut [f32]) {
        let n = row.len() as f32;
        let (mut sums, mut squares) = ([0f32; LANES], [0f32; LANES]);
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                sums[i] += chunk[i];
            }
        }
        let mean = (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / n;
        for chunk in chunks {
            for i in 0..LANES {
                let d = chunk[i] - mean;
                squares[i] += d * d;
            }
        }
        let of_rest: f32 = rest.iter().map(|v| (v - mean) * (v - mean)).sum();
        let variance = (squares.iter().sum::<f32>() + of_rest) / n;
        let inverse = 1.0 / (variance + self.eps).sqrt();
        for ((v, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *v = (*v - mean) * inverse * weight + bias;
        }
    }
}

impl Bytes {
    fn row(&self, row: &[f32], bytes: &mut [u8]) {
        /// Where a float's ulp is 1: adding it rounds to nearest even, and its lowest bits are the integer then.
        const WHOLE: f32 = 12_582_912.0;
        let zero = self.params.zero_point() as f32;
        for ((byte, v), step) in bytes.iter_mut().zip(row).zip(&self.steps) {
            let v = (v * step + zero).clamp(0.0, 255.0);
            *byte = (v + WHOLE).to_bits() as u8;
        }
    }
}
