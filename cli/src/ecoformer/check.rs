//! Whether codes and contexts are right: beside plain loops in f64.

use super::problem::Problem;
use crate::base::error::{Error, Result};
use crate::base::random::spread;
use siskin::ecoformer::{Bandwidth, BitCodes, Numerator};
use std::collections::BTreeMap;

/// How far f32 may be off in a squared distance of unit vectors.
const OF_DISTANCE: f64 = 5e-6;

/// How far a context may be off, as a share of the largest.
const OF_CONTEXT: f64 = 1e-5;

impl Problem {
    /// Compares some codes with plain loops; a bit may be either where they are too near to tell.
    pub fn check_codes(&self, codes: &BitCodes, budget: usize) -> Result<()> {
        let hash = &self.hash;
        let cost = hash.anchors_per_head() * (hash.head_dim() + hash.bits());
        let mut sigmas = BTreeMap::new();
        for i in spread(self.tokens() * self.heads(), (budget / cost).clamp(2, 257)) {
            let (head, token) = (i / self.tokens(), i % self.tokens());
            let sequence = self.lengths.sequence_of(token);
            let sigma = *sigmas.entry((sequence, head)).or_insert_with(|| self.sigma(sequence, head));
            for (bit, (y, slack)) in self.projected(token, head, sigma).into_iter().enumerate() {
                let got = codes.bit(i, bit);
                if y.abs() > slack && got != (y > 0.0) {
                    return Err(Error::Wrong(format!(
                        "bit {bit} of token {token}, head {head} is {got}, where a plain loop has {y:?}, which may be off by \
                         {slack:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Compares some rows of an output with plain loops over these codes.
    pub fn check_context(&self, q: &BitCodes, k: &BitCodes, y: &[f32], budget: usize) -> Result<()> {
        let (tokens, heads, dim) = (self.tokens(), self.heads(), self.v_place.head_dim);
        let longest = (0..self.lengths.count()).map(|b| self.lengths.queries(b).1).max().unwrap_or(0);
        let cost = longest * (q.bits() + dim);
        let rows = spread(tokens * heads, (budget / cost.max(1)).clamp(2, 65));
        let want: Vec<_> = rows.iter().map(|i| self.context(q, k, i / heads, i % heads)).collect();
        let largest = want.iter().flatten().fold(0f64, |most, y| most.max(y.abs()));
        for (i, want) in rows.into_iter().zip(want) {
            let got = &y[i * dim..][..dim];
            for (feature, (&got, want)) in got.iter().zip(want).enumerate() {
                // NaN is no further off than anything.
                if got.is_nan() || (f64::from(got) - want).abs() > OF_CONTEXT * largest {
                    let (token, head) = (i / heads, i % heads);
                    return Err(Error::Wrong(format!(
                        "y is {got:?} of token {token}, head {head}, feature {feature}, a plain loop has {want:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Heads of tokens that have no direction.
    pub fn without_direction(&self) -> usize {
        let all = (0..self.tokens()).flat_map(|t| (0..self.heads()).map(move |h| (t, h)));
        all.filter(|&(t, h)| self.unit(t, h).iter().all(|&x| x == 0.0)).count()
    }

    /// A head of a token, of length 1, or zeros.
    fn unit(&self, token: usize, head: usize) -> Vec<f64> {
        let x = &self.x[self.x_place.at(token, head)..][..self.x_place.head_dim];
        let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        let some = norm > 0.0 && norm.is_finite();
        x.iter().map(|&x| if some { f64::from(x) / norm } else { 0.0 }).collect()
    }

    fn anchors(&self, head: usize) -> impl Iterator<Item = &[f32]> {
        let (m, dim) = (self.hash.anchors_per_head(), self.hash.head_dim());
        self.hash.anchors()[head * m * dim..][..m * dim].chunks_exact(dim)
    }

    /// The mean squared distance of a sequence's tokens to the anchors: |x|² + |a|² - 2 x·a is linear in what it is the mean of.
    fn sigma(&self, sequence: usize, head: usize) -> f64 {
        if let (Bandwidth::Frozen, Some(sigma)) = (self.bandwidth, self.hash.sigma()) {
            return sigma[head].into();
        }
        let (first, len) = self.lengths.queries(sequence);
        let mean = |rows: &mut dyn Iterator<Item = Vec<f64>>, count: usize| {
            let (mut sums, mut squares) = (vec![0.0; self.hash.head_dim()], 0.0);
            for row in rows {
                squares += row.iter().map(|x| x * x).sum::<f64>() / count as f64;
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / count as f64);
            }
            (sums, squares)
        };
        let (x, of_x) = mean(&mut (first..first + len).map(|token| self.unit(token, head)), len);
        let wide = |anchor: &[f32]| anchor.iter().map(|&a| a.into()).collect();
        let (a, of_a) = mean(&mut self.anchors(head).map(wide), self.hash.anchors_per_head());
        of_x + of_a - 2.0 * x.iter().zip(a).map(|(x, a)| x * a).sum::<f64>()
    }

    /// What the bits of a code are the signs of, and how far f32 may be off there.
    fn projected(&self, token: usize, head: usize, sigma: f64) -> Vec<(f64, f64)> {
        let m = self.hash.anchors_per_head();
        let x = self.unit(token, head);
        let centring = &self.hash.centring()[head * m..][..m];
        let features: Vec<(f64, f64)> = self
            .anchors(head)
            .zip(centring)
            .map(|(anchor, &centring)| {
                let d = x.iter().zip(anchor).map(|(x, &a)| (x - f64::from(a)).powi(2)).sum::<f64>();
                let rate = 1.0 / (2.0 * sigma).max(f64::from(f32::MIN_POSITIVE));
                let kernel = (-d * rate).exp();
                (kernel - f64::from(centring), kernel * rate * (1.0 + 2.0 * d * rate) * OF_DISTANCE + 1e-6)
            })
            .collect();
        let bits = self.hash.projection()[head * self.hash.bits() * m..].chunks_exact(m);
        bits.take(self.hash.bits())
            .map(|row| {
                let with = |of: fn(&(f64, f64), f64) -> f64| {
                    features.iter().zip(row).map(|(f, &p)| of(f, p.into())).sum::<f64>()
                };
                (with(|f, p| f.0 * p), with(|f, p| f.1 * p.abs()))
            })
            .collect()
    }

    /// A query's context, similarity by similarity.
    fn context(&self, q: &BitCodes, k: &BitCodes, token: usize, head: usize) -> Vec<f64> {
        let (first, len) = self.lengths.queries(self.lengths.sequence_of(token));
        let (bias, last) = (q.bits() as f64 + 1.0, if self.causal { token + 1 } else { first + len });
        let code = |token: usize| head * self.tokens() + token;
        let (mut sum, mut y) = (0.0, vec![0.0; self.v_place.head_dim]);
        for key in first..last {
            let same = (0..q.bits()).filter(|&bit| q.bit(code(token), bit) == k.bit(code(key), bit)).count();
            let product = 2.0 * same as f64 - q.bits() as f64;
            sum += product + bias;
            let of_bias = match self.numerator {
                Numerator::Released if key != token => 0.0,
                Numerator::Released | Numerator::Consistent => bias,
            };
            let v = self.value(key, head);
            y.iter_mut().zip(v).for_each(|(y, v)| *y += (product + of_bias) * v);
        }
        y.into_iter().map(|y| y / sum).collect()
    }

    fn value(&self, token: usize, head: usize) -> Vec<f64> {
        let mut v = self.v.head(&self.v_place, token, head);
        if self.v.is_bytes() {
            let p = self.v_params.of(0, head);
            v.iter_mut().for_each(|v| *v = (*v - f64::from(p.zero_point())) * f64::from(p.scale()));
        }
        v
    }
}
