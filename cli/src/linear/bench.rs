//! `siskin bench` of a linear layer.

use super::case::{Case, Format, Place};
use super::check::peak_of;
use super::matrix::Y;
use super::problem::Problem;
use crate::base::answer::{self, Check};
use crate::base::error::Result;
use crate::base::measure::{Peak, PeakOf, Reader, Times, in_turn, repeat, us};
use serde::Serialize;
use siskin::linear::PackedActivations;
use siskin::{Ctx, Scratch};
use std::io::Write;

/// The case as it ran, and what it took.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    pub case: Case,
    pub kernel: &'static str,
    /// The whole call: packing where `in` is tokens, kernel, epilogue, unpacking where `out` is tokens.
    pub us_min: f64,
    pub us_median: f64,
    /// Packing alone, measured apart; 0 where x comes packed.
    pub us_pack: f64,
    /// The call less the same call to packed output; 0 where y leaves packed, or is not bytes of an INT8 layer.
    pub us_unpack: f64,
    pub us_unpack_median: f64,
    pub us_unpack_is: &'static str,
    pub stored_values: usize,
    /// 2 x m x stored values / us_min.
    pub gops: f64,
    /// Multiplications of these numbers by this tier on registers alone, on as many threads, measured in between.
    pub peak_gops: f64,
    pub peak_of: PeakOf,
    pub pct_peak: f64,
    pub packed_bytes: usize,
    pub bytes_per_value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_gbps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loop_gbps: Option<f64>,
    #[serde(flatten)]
    pub check: Check,
}

impl answer::Answer for Answer {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let a = self;
        let c = &a.case;
        let format = match c.block {
            Format::Dense => "dense".to_string(),
            block => format!("{block} blocks, {:.0} % pruned", c.sparsity * 100.0),
        };
        writeln!(out, "{} tokens, {} -> {} features, {format}; {}", c.m, c.k, c.n, a.kernel)?;
        writeln!(out, "  {:>10.1} us   least of a call (median {:.1})", a.us_min, a.us_median)?;
        writeln!(out, "  {:>10.1} us   of packing, {:.1} us of unpacking", a.us_pack, a.us_unpack)?;
        writeln!(
            out,
            "  {:>10.1} GOP/s, {:.1} % of the peak of {:.1} in {}",
            a.gops,
            a.pct_peak,
            a.peak_gops,
            a.peak_of.name()
        )?;
        if let (Some(read), Some(plain)) = (a.read_gbps, a.loop_gbps) {
            writeln!(out, "  {read:>10.1} GB/s of weights; a plain loop reads {plain:.1}")?;
        }
        writeln!(out, "  {:>10} bytes of weights, {:.2} a value", a.packed_bytes, a.bytes_per_value)?;
        Ok(())
    }

    fn check(&self) -> &Check {
        &self.check
    }
}

pub fn measure(case: &Case, ctx: &Ctx) -> Result<Answer> {
    let problem = Problem::new(case, ctx)?;
    let layer = problem.layer(ctx)?;
    let mut scratch = Scratch::new();
    let mut packed = PackedActivations::new();
    problem.pack(&layer, &mut packed, ctx, &mut scratch)?;
    let packed = packed;
    let x = (case.input == Place::Packed).then_some(&packed);

    let mut y = problem.output();
    let peak_of = peak_of(&layer);
    let mut peak = Peak::new(peak_of, ctx.isa(), case.threads);
    let mut reader = (case.m == 1).then(|| Reader::new(ctx.isa(), case.threads, layer.packed_bytes()));
    let yardsticks = || {
        peak.burst();
        if let Some(reader) = &mut reader {
            reader.burst();
        }
    };
    let call = repeat(
        case.min_ms,
        || problem.forward(&layer, &problem.tokens, x, &mut y, ctx, &mut scratch),
        yardsticks,
    )?;
    let check = Check::new(
        match peak_of {
            PeakOf::Bf16 => "as the scalar tier with x in bf16, but for 1e-5 of the terms and a step of y",
            _ => "the same bits as the scalar tier",
        },
        problem.check(&y, &layer, ctx),
    )?;

    let mut pack = Times::default();
    if case.input == Place::Tokens {
        let mut to = PackedActivations::new();
        let once = || problem.pack(&layer, &mut to, ctx, &mut scratch);
        pack = repeat(case.min_ms / 4, once, || ())?;
    }
    let mut unpack = Times::default();
    if case.out == Place::Tokens && case.y().is_bytes() && !case.in_floats() {
        // A difference of two times says something only where both met the same clock frequency.
        let mut packed = Y::Packed(PackedActivations::new());
        let mut once = |which: usize| {
            let y = if which == 0 { &mut y } else { &mut packed };
            problem.forward(&layer, &problem.tokens, x, y, ctx, &mut scratch)
        };
        let [whole, without] = in_turn(2, case.min_ms / 4, &mut once, || ())?[..] else {
            unreachable!("two calls")
        };
        unpack = Times {
            min: (whole.min - without.min).max(0.0),
            median: (whole.median - without.median).max(0.0),
        };
    }

    let gops = 2.0 * case.m as f64 * layer.stored_values() as f64 / call.min / 1e9;
    Ok(Answer {
        case: Case {
            isa: Some(ctx.isa().name().into()),
            x: Some(case.x()),
            y: Some(case.y()),
            ..case.clone()
        },
        kernel: layer.kernel(case.m),
        us_min: us(call.min),
        us_median: us(call.median),
        us_pack: us(pack.min),
        us_unpack: us(unpack.min),
        us_unpack_median: us(unpack.median),
        us_unpack_is: "the call less the same call with packed output, which take turns: of the least times, and of the medians",
        stored_values: layer.stored_values(),
        gops,
        peak_gops: peak.gops,
        peak_of,
        pct_peak: 100.0 * gops / peak.gops,
        packed_bytes: layer.packed_bytes(),
        bytes_per_value: layer.packed_bytes() as f64 / layer.stored_values().max(1) as f64,
        read_gbps: reader.is_some().then(|| layer.packed_bytes() as f64 / call.min / 1e9),
        loop_gbps: reader.map(|r| r.gbps),
        check,
    })
}
