//! Whether a layer's bytes follow the rule by which reals become integers, on each tier by itself: comparing tiers cannot find what
//! all of them do wrong.
//!
//! ```text
//! y[i] = clamp(round_half_even(v[i] / scale) + zero_point), and zero_point where v[i] is NaN
//! ```
//!
//! v is what the layer gives as f32. Some tokens of a layer of floats have NaN and infinities in x. An x of f32 that a layer quantizes
//! is tried at another magnitude too: 2^n times the reals have the same integers, and sums of them are near those of the reals.

use super::case::Place;
use super::matrix::{Matrix, Rows, Y};
use super::problem::{Problem, Tokens};
use crate::base::data::Data;
use crate::base::error::{Error, Result};
use crate::base::random::{Rng, spread};
use crate::base::types::{XType, YType};
use siskin::linear::Epilogue;
use siskin::{Ctx, MatMut, MatRef, Scratch};

impl Problem {
    /// The tokens of the case; of a layer of floats a fourth of them with a NaN or an infinity somewhere.
    pub fn with_odd_numbers(&self, rng: &mut Rng) -> Result<Tokens> {
        let mut tokens = self.some_tokens(&(0..self.tokens.m).collect::<Vec<_>>());
        if self.in_floats {
            let mut x = tokens.x.data.floats();
            for token in (0..tokens.m).filter(|_| rng.below(4) == 0).collect::<Vec<_>>() {
                let odd = rng.pick(&[f32::NAN, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                x[token * self.k + rng.below(self.k)] = odd;
            }
            let dtype = match tokens.x.data {
                Data::Bf16(_) => XType::Bf16,
                Data::F16(_) => XType::F16,
                _ => XType::F32,
            };
            tokens.x = Matrix::new(Data::from_floats(x.into_iter(), dtype))?;
        }
        Ok(tokens)
    }

    /// Compares the bytes of a tier with the rule, for some tokens.
    pub fn check_bytes(&self, input: Place, tokens: &Tokens, ctx: &Ctx) -> Result<()> {
        let (layer, mut y) = (self.layer(ctx)?, self.output());
        self.forward_from(input, &layer, tokens, &mut y, ctx)?;
        let mut reals = Y::Rows(Rows::new(YType::F32, tokens.m * self.n));
        self.forward_from(input, &layer, tokens, &mut reals, ctx)?;
        let rows: Vec<usize> = (0..tokens.m).collect();
        let bytes = y.values(&rows, (tokens.m, self.n), ctx)?;
        let reals = reals.values(&rows, (tokens.m, self.n), ctx)?;
        for (i, (&byte, &v)) in bytes.iter().zip(&reals).enumerate() {
            let (want, off) = self.byte_of(v);
            if (byte - want).abs() > off {
                return Err(Error::Wrong(format!(
                    "{} makes the byte {byte} of the real {v:?} of token {}, feature {}, the rule {want}",
                    ctx.isa(),
                    i / self.n,
                    i % self.n
                )));
            }
        }
        Ok(())
    }

    /// Compares the sums of an x of f32 that a tier quantizes token by token with those of 2^n times x, and with sums of the reals in
    /// f64: each x may be off by half a step of its token, `(max - min) / 255`, and at the ends of the range, which are shifted to whole
    /// steps, by as much again.
    pub fn check_magnitudes(&self, rng: &mut Rng, ctx: &Ctx) -> Result<()> {
        let Data::F32(x) = &self.tokens.x.data else { return Ok(()) };
        if self.in_floats {
            return Ok(());
        }
        let (m, n, k, layer) = (self.tokens.m, self.n, self.k, self.layer(ctx)?);
        // The steps of x are about 2^-7.
        let factor = 2f64.powi(rng.below(226) as i32 - 112);
        let scaled: Vec<f32> = x.iter().map(|&x| (f64::from(x) * factor) as f32).collect();
        let sums = |x: &[f32]| -> Result<Vec<i32>> {
            let mut sums = vec![0; m * n];
            let (x, y) = (MatRef::new(x, m, k)?, MatMut::new(&mut sums, m, n)?);
            layer.forward(x, Epilogue::new(), y, ctx, &mut Scratch::new())?;
            Ok(sums)
        };
        let (plain, scaled) = (sums(x)?, sums(&scaled)?);
        let wrong = |token: usize, feature: usize, what: String| {
            Error::Wrong(format!(
                "{} of {factor:e} times x, token {token}, feature {feature}: {what}",
                ctx.isa()
            ))
        };
        if let Some(i) = (0..m * n).find(|&i| plain[i] != scaled[i]) {
            let what = format!("the sum {}, of x itself {}", scaled[i], plain[i]);
            return Err(wrong(i / n, i % n, what));
        }
        for feature in spread(n, 5) {
            let zero = self.zero_points.get(feature).map_or(0.0, |&z| f64::from(z));
            let w: Vec<f64> = self.weights.row(feature).iter().map(|&w| f64::from(w) - zero).collect();
            let magnitudes: f64 = w.iter().map(|w| w.abs()).sum();
            for token in spread(m, 5) {
                let x = &x[token * k..][..k];
                let (low, high) =
                    x.iter().fold((0.0f64, 0.0f64), |(a, b), &x| (a.min(x.into()), b.max(x.into())));
                let step = (high - low) / 255.0;
                let exact: f64 = x.iter().zip(&w).map(|(&x, w)| f64::from(x) * w).sum();
                let got = f64::from(plain[token * n + feature]) * step;
                if (got - exact).abs() > 1.01 * step * magnitudes {
                    return Err(wrong(token, feature, format!("{got}, of reals {exact}")));
                }
            }
        }
        Ok(())
    }

    /// The byte of a real output, counted from the smallest, and how far a right one may be from it: a step, for the scale may have
    /// been applied in another order. What a table gives of a number follows from the quantizer before it, not from the real.
    pub fn byte_of(&self, v: f64) -> (f64, f64) {
        let (low, high) = self.params.range();
        let zero = f64::from(self.params.zero_point() - low);
        if v.is_nan() {
            return (zero, 0.0);
        }
        let most = f64::from(high - low);
        let off = if self.table.is_some() { most } else { 1.0 };
        (((v / f64::from(self.params.scale())).round_ties_even() + zero).clamp(0.0, most), off)
    }
}
