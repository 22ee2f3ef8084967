//! Whether the result of a linear layer is right: tiers against the scalar one, and that one against a plain loop.

use super::case::Place;
use super::matrix::{Matrix, Rows, Y};
use super::problem::{Problem, Tokens};
use super::weights::{Scales, Weights};
use crate::base::data::Data;
use crate::base::error::{Error, Result};
use crate::base::measure::PeakOf;
use crate::base::random::spread;
use crate::base::settings::tier;
use crate::base::types::{XType, YType};
use siskin::Element;
use siskin::linear::{Epilogue, Linear, PackedActivations};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, Scratch};

/// What some tokens should come out as.
pub struct Want {
    rows: Vec<usize>,
    values: Vec<f64>,
    /// How far each may be off; the same bits where there is none.
    tolerance: Option<Vec<f64>>,
}

/// What was wanted last, for layers that multiply so: most tiers want the same.
#[derive(Default)]
pub struct Wants(Option<(PeakOf, Want)>);

/// What a layer multiplies.
pub fn peak_of(layer: &Linear) -> PeakOf {
    match layer.input_element() {
        Element::F32 => PeakOf::F32,
        Element::Bf16 => PeakOf::Bf16,
        _ => PeakOf::Int8,
    }
}

impl Problem {
    /// The call, x coming as rows or packed.
    pub fn forward_from(
        &self,
        input: Place,
        layer: &Linear,
        tokens: &Tokens,
        y: &mut Y,
        ctx: &Ctx,
    ) -> Result<()> {
        let (mut packed, mut scratch) = (PackedActivations::new(), Scratch::new());
        let x = match input {
            Place::Tokens => None,
            Place::Packed => {
                layer.pack(tokens.x.tensor(tokens.m, self.k)?, &mut packed, ctx, &mut scratch)?;
                Some(&packed)
            }
        };
        self.forward(layer, tokens, x, y, ctx, &mut scratch)
    }

    /// Compares an output of the case with the scalar tier on some of its tokens, and that tier's sums with a plain loop on
    /// some of theirs.
    pub fn check(&self, y: &Y, layer: &Linear, ctx: &Ctx) -> Result<()> {
        // Checking should not take much longer than measuring; plain Rust may call a function for each fused operation.
        let budget = if self.in_floats { 1 << 23 } else { 1 << 27 };
        let affordable = budget / layer.stored_values().max(1);
        let rows = spread(self.tokens.m, affordable.clamp(2, 65));
        let scalar = tier(Isa::Scalar, 1)?;
        self.check_plain(&self.some_tokens(&rows), &scalar)?;
        let want = self.want(peak_of(layer), &rows)?;
        let got = y.values(&rows, (self.tokens.m, self.n), ctx)?;
        self.compare(&got, &want, ctx.isa())
    }

    /// What the scalar tier makes of some tokens, for layers that multiply `of`.
    ///
    /// Those that multiply pairs of bfloat16 round x to it first, which is done here too, and then sum up in an order of
    /// their own: what is left between them and the scalar tier is small enough to notice a single weight.
    pub fn want(&self, of: PeakOf, rows: &[usize]) -> Result<Want> {
        let scalar = tier(Isa::Scalar, 1)?;
        let (m, n) = (rows.len(), self.n);
        let all: Vec<usize> = (0..m).collect();
        let mut some = self.some_tokens(rows);
        let mut scratch = Scratch::new();
        // A layer that packs floats packs f32 here: y of any type is what it was before it was rounded.
        let y = match self.out {
            Place::Packed if !self.y.is_bytes() => YType::F32,
            _ => self.y,
        };
        let mut y = Y::Rows(Rows::new(y, m * n));
        let mut tolerance = None;
        if of == PeakOf::Bf16 {
            let x = Data::from_floats(some.x.data.floats().into_iter(), XType::Bf16);
            let magnitudes = Data::F32(x.floats().into_iter().map(f32::abs).collect());
            some.x = Matrix::new(x)?;
            let abs = Weights::F32(self.weights.abs()).build(&Scales::default(), &[], &scalar)?;
            let sums = float_sums(&abs, &Matrix::new(magnitudes)?, m, &scalar)?;
            tolerance = Some(sums);
        }
        self.forward(&self.layer(&scalar)?, &some, None, &mut y, &scalar, &mut scratch)?;
        let values = y.values(&all, (m, n), &scalar)?;
        let tolerance = tolerance
            .map(|sums| values.iter().zip(sums).map(|(&v, sum)| self.tolerance(v, f64::from(sum))).collect());
        Ok(Want { rows: rows.to_vec(), values, tolerance })
    }

    /// How far an output of pairs may be from `want`, the magnitudes of its terms having a sum.
    fn tolerance(&self, want: f64, sum: f64) -> f64 {
        let sum = 1e-5 * sum + 1e-6;
        let step = f64::from(self.params.scale());
        // One step of y. The curves are no steeper than 1.13.
        match (self.y, &self.table) {
            (YType::U8 | YType::I8, None) => 1.13 * sum / step + 1.0,
            (_, Some(table)) => 1.13 * (sum + f64::from(table.before().scale())) / step + 1.0,
            (YType::F32, _) if self.out == Place::Tokens => 1.13 * sum + 1e-6 * want.abs(),
            (YType::F16, _) if self.out == Place::Tokens => 1.13 * sum + 0.001 * want.abs(),
            _ => 1.13 * sum + 0.008 * want.abs(),
        }
    }

    /// Compares what came out of a tier for the tokens that are wanted.
    pub fn compare(&self, got: &[f64], want: &Want, isa: Isa) -> Result<()> {
        // Float layers may differ in the sign of a zero that a maximum chose.
        let differ = |i: usize, got: f64, want_v: f64| match &want.tolerance {
            Some(tolerance) => got.is_nan() || (got - want_v).abs() > tolerance[i],
            None if self.in_floats => got != want_v && !(got.is_nan() && want_v.is_nan()),
            None => got.to_bits() != want_v.to_bits(),
        };
        match (0..want.values.len()).find(|&i| differ(i, got[i], want.values[i])) {
            None => Ok(()),
            Some(i) => Err(Error::Wrong(format!(
                "{isa} computes {:?} of token {}, feature {}, scalar {:?}",
                got[i],
                want.rows[i / self.n],
                i % self.n,
                want.values[i]
            ))),
        }
    }

    /// Compares the whole output of a tier with what is wanted for what its layer multiplies.
    pub fn check_tier(&self, input: Place, want: &mut Wants, ctx: &Ctx) -> Result<()> {
        let (layer, mut y) = (self.layer(ctx)?, self.output());
        self.forward_from(input, &layer, &self.tokens, &mut y, ctx)?;
        let rows: Vec<usize> = (0..self.tokens.m).collect();
        let got = y.values(&rows, (self.tokens.m, self.n), ctx)?;
        let of = peak_of(&layer);
        let want = match want {
            Wants(Some((for_of, want))) if *for_of == of => want,
            wants => &mut wants.0.insert((of, self.want(of, &rows)?)).1,
        };
        self.compare(&got, want, ctx.isa())
    }

    /// Compares sums of a tier with a plain loop; of a float layer what it makes of them before any epilogue.
    pub fn check_plain(&self, tokens: &Tokens, ctx: &Ctx) -> Result<()> {
        let layer = self.layer(ctx)?;
        if self.in_floats {
            return self.check_floats(&float_sums(&layer, &tokens.x, tokens.m, ctx)?, tokens);
        }
        let mut sums = Y::Rows(Rows::new(YType::I32, tokens.m * self.n));
        self.forward(&layer, tokens, None, &mut sums, ctx, &mut Scratch::new())?;
        match &sums {
            Y::Rows(Rows::Sums(sums)) => self.check_sums(sums, tokens),
            _ => Ok(()),
        }
    }

    fn check_floats(&self, y: &[f32], tokens: &Tokens) -> Result<()> {
        let x = tokens.x.data.floats();
        let is_i8 = matches!(self.weights, Weights::I8(_));
        let group = if self.group_size == 0 { self.k } else { self.group_size };
        for feature in spread(self.n, 66) {
            let w = self.weights.row(feature);
            let bias = self.bias.get(feature).copied().unwrap_or(0.0);
            let scales = &self.scales[feature * self.k.div_ceil(group)..];
            for token in spread(tokens.m, 4) {
                let x = &x[token * self.k..][..self.k];
                let dot = |(x, w): (&[f32], &[f32])| {
                    // What was pruned is not added, nor does adding it change anything but the sign of a zero.
                    x.iter().zip(w).filter(|(_, w)| **w != 0.0).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum))
                };
                let want = match (is_i8, self.group_size) {
                    (false, _) => dot((x, &w)) + bias,
                    (true, 0) => dot((x, &w)).mul_add(scales[0], bias),
                    (true, _) => {
                        let groups = x.chunks(group).zip(w.chunks(group)).map(dot).zip(scales);
                        groups.fold(0f32, |sum, (dot, scale)| dot.mul_add(*scale, sum)) + bias
                    }
                };
                let got = y[token * self.n + feature];
                if got != want {
                    return Err(Error::Wrong(format!(
                        "scalar computes {got:?} of token {token}, feature {feature}, a plain loop {want:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn check_sums(&self, sums: &[i32], tokens: &Tokens) -> Result<()> {
        let rows: Vec<_> = spread(tokens.m, 4);
        let x = rows.iter().map(|&t| tokens.x.integers(t, self.k)).collect::<Result<Vec<_>>>()?;
        for feature in spread(self.n, 66) {
            let zero = self.zero_points.get(feature).map_or(0, |&z| i64::from(z));
            let w = self.weights.row(feature);
            for (&token, x) in rows.iter().zip(&x) {
                let want: i64 = x.iter().zip(&w).map(|(x, &w)| x * (w as i64 - zero)).sum();
                let got = i64::from(sums[token * self.n + feature]);
                if got != want {
                    return Err(Error::Wrong(format!(
                        "scalar computes the sum {got} of token {token}, feature {feature}, a plain loop {want}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// What a layer that computes in floats makes of some tokens before any epilogue.
fn float_sums(layer: &Linear, x: &Matrix, m: usize, ctx: &Ctx) -> Result<Vec<f32>> {
    let (n, k) = (layer.out_features(), layer.in_features());
    let mut y = Rows::new(YType::F32, m * n);
    let out = y.output(m, n, QuantParams::u8(1.0, 0)?)?;
    layer.forward(x.tensor(m, k)?, Epilogue::new(), out, ctx, &mut Scratch::new())?;
    match y {
        Rows::Elements(y) => Ok(y.floats()),
        Rows::Sums(_) => Ok(Vec::new()),
    }
}
