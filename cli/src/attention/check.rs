//! Whether the result of attention is right: beside the plain reference, and tiers beside the scalar one.

use super::problem::Problem;
use crate::base::data::Data;
use crate::base::error::{Error, Result};
use crate::base::types::XType;
use siskin::{Isa, measure};

/// Whether a tier multiplies pairs of bfloat16.
pub fn has_pairs(isa: Isa) -> bool {
    measure::bf16_dot_products(isa, 1) > 0
}

impl Problem {
    /// Whether attention of all of its inputs in pairs of bfloat16 is what the tier does.
    pub fn in_pairs(&self, isa: Isa) -> bool {
        self.all_bf16() && has_pairs(isa)
    }

    /// Compares some rows of an output with the plain reference.
    pub fn check(&self, y: &Data, isa: Isa, budget: usize) -> Result<()> {
        let rows = self.some_rows(budget);
        let want: Vec<_> = rows.iter().map(|&(t, h)| self.plain(t, h)).collect();
        let largest = want.iter().flat_map(|row| &row.values).fold(0f64, |m, v| m.max(v.abs()));
        let of_v = if self.in_pairs(isa) { 0.02 * self.largest_v() } else { 0.0 };
        for (&(token, head), row) in rows.iter().zip(&want) {
            let gate = self.gates.get(token * self.heads + head).map_or(1.0, |g| f64::from(g.abs()));
            let got = y.head(&self.y_place, token, head);
            for (f, got) in got.into_iter().enumerate() {
                let (got, want, rounding) = self.stored(got, row.values[f]);
                let tolerance = 1e-5 * largest + of_v * gate + row.slack[f] + rounding;
                // NaN is no further off than anything.
                if got.is_nan() || (got - want).abs() > tolerance {
                    return Err(Error::Wrong(format!(
                        "{isa} computes {got:?} of token {token}, head {head}, feature {f}, a plain loop {want:?}, which may \
                         be off by {tolerance:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// What an output stands for, what it should, and how far the type may round that.
    fn stored(&self, got: f64, want: f64) -> (f64, f64, f64) {
        let (step, zero) = (f64::from(self.y_params.scale()), f64::from(self.y_params.zero_point()));
        let (low, high) = self.y_params.range();
        match self.y {
            XType::Bf16 => (got, want, want.abs() / 256.0),
            XType::F16 => (got, want, want.abs() / 2048.0 + 3e-8),
            XType::U8 | XType::I8 => {
                let end = |end: i32| (f64::from(end) - zero) * step;
                (((got - zero) * step), want.clamp(end(low), end(high)), 0.501 * step)
            }
            XType::F32 => (got, want, 0.0),
        }
    }

    fn largest_v(&self) -> f64 {
        let place = &self.places[2];
        let rows = (0..place.tokens).flat_map(|t| (0..place.heads).map(move |h| (t, h)));
        rows.flat_map(|(t, h)| self.data(2).head(place, t, h)).fold(0f64, |m, v| m.max(v.abs()))
    }

    /// Compares the whole output of a tier with that of the scalar one, bit for bit.
    pub fn same(&self, got: &Data, want: &Data, isa: Isa) -> Result<()> {
        match got.bits().iter().zip(want.bits()).position(|(got, want)| *got != want) {
            None => Ok(()),
            Some(i) => Err(Error::Wrong(format!(
                "{isa} computes other bits than scalar of element {i} of the output: {:#x}, not {:#x}",
                got.bits()[i],
                want.bits()[i]
            ))),
        }
    }
}
