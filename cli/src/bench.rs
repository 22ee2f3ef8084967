//! `siskin bench`: one case, or a case per line.

use crate::answer::{self, Check, show};
use crate::case::{Case, Format, Place};
use crate::error::{Error, Result};
use crate::measure::{Peak, PeakOf, Reader, Times, repeat};
use crate::problem::{Problem, Y};
use serde::Serialize;
use siskin::Scratch;
use siskin::linear::PackedActivations;
use std::ffi::OsString;
use std::io::Write;

/// Measure one case.
///
/// Of a linear layer; `siskin bench --op attention --help`, `--op hamming --help` and `--op ecoformer --help` tell the flags of
/// attention, of binary codes and of EcoFormer.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    case: Case,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read cases from standard input, a line of JSON each, and answer each with a line of JSON.
    ///
    /// The fields of a case are the flags of this command, or with "op": "attention", "hamming" or "ecoformer" those of that operation;
    /// all have the same defaults. The softmax of attention is a field of its own: "standard", {"gamma": .., "zeta": ..} or
    /// {"alpha": .., "max_len": ..}. A bad case is answered by {"error": "..."}.
    #[arg(long, exclusive = true)]
    serve: bool,
}

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
    pub us_unpack_is: &'static str,
    pub stored_values: usize,
    /// 2 x m x stored values / us_min.
    pub gops: f64,
    /// The same tier's multiplications of the same numbers on registers alone, on as many threads, measured in between.
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

/// The arguments of the process, with the command that has the flags of the operation asked for.
pub fn by_op(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<_> = args.collect();
    for (op, with) in
        [("attention", "bench-attention"), ("hamming", "bench-hamming"), ("ecoformer", "bench-ecoformer")]
    {
        let asked = args.windows(2).any(|pair| pair[0] == "--op" && pair[1] == op)
            || args.iter().any(|arg| *arg == *format!("--op={op}"));
        if asked && args.get(1).is_some_and(|command| command == "bench") {
            args[1] = with.into();
        }
    }
    args
}

pub fn main(args: &Args) -> Result<()> {
    if args.serve {
        return crate::serve::main();
    }
    let answer = answer(&args.case)?;
    show(&answer, args.json)
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

/// Runs a case once on a tier, and checks it.
pub fn check(case: &Case) -> Result<()> {
    case.check()?;
    case.on_threads(|| {
        let ctx = case.ctx()?;
        let problem = Problem::new(case, &ctx)?;
        let mut y = problem.output();
        let layer = problem.layer(&ctx)?;
        problem.forward(&layer, &problem.tokens, None, &mut y, &ctx, &mut Scratch::new())?;
        problem.check(&y, &layer, &ctx)
    })
}

/// Runs a case.
pub fn answer(case: &Case) -> Result<Answer> {
    case.check()?;
    case.on_threads(|| on_its_threads(case))
}

fn on_its_threads(case: &Case) -> Result<Answer> {
    let ctx = case.ctx()?;
    let problem = Problem::new(case, &ctx)?;
    let layer = problem.layer(&ctx)?;
    let mut scratch = Scratch::new();
    let mut packed = PackedActivations::new();
    problem.pack(&mut packed, layer.input_layout(), &ctx, &mut scratch)?;
    let packed = packed;
    let x = (case.input == Place::Packed).then_some(&packed);

    let mut y = problem.output();
    let peak_of = PeakOf::layer(&layer);
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
        || problem.forward(&layer, &problem.tokens, x, &mut y, &ctx, &mut scratch),
        yardsticks,
    )?;
    let mismatch = match problem.check(&y, &layer, &ctx) {
        Ok(()) => None,
        Err(Error::Wrong(what)) => Some(what),
        Err(e) => return Err(e),
    };

    let mut pack = Times::default();
    if case.input == Place::Tokens {
        let mut to = PackedActivations::new();
        let once = || problem.pack(&mut to, layer.input_layout(), &ctx, &mut scratch);
        pack = repeat(case.min_ms / 4, once, || ())?;
    }
    let mut unpack = 0.0;
    if case.out == Place::Tokens && case.y().is_bytes() && !case.in_floats() {
        let mut y = Y::Packed(PackedActivations::new());
        let once = || problem.forward(&layer, &problem.tokens, x, &mut y, &ctx, &mut scratch);
        unpack = (call.min - repeat(case.min_ms / 4, once, || ())?.min).max(0.0);
    }

    let us = |seconds: f64| (seconds * 1e9).round() / 1e3;
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
        us_unpack: us(unpack),
        us_unpack_is: "the call less the same call with packed output",
        stored_values: layer.stored_values(),
        gops,
        peak_gops: peak.gops,
        peak_of,
        pct_peak: 100.0 * gops / peak.gops,
        packed_bytes: layer.packed_bytes(),
        bytes_per_value: layer.packed_bytes() as f64 / layer.stored_values().max(1) as f64,
        read_gbps: reader.is_some().then(|| layer.packed_bytes() as f64 / call.min / 1e9),
        loop_gbps: reader.map(|r| r.gbps),
        check: Check::new(
            match peak_of {
                PeakOf::Bf16 => {
                    "as the scalar tier with x in bf16, but for 1e-5 of the terms and a step of y"
                }
                PeakOf::Int8
                | PeakOf::F32
                | PeakOf::Exponentials
                | PeakOf::Popcount
                | PeakOf::PopcountAlone => "the same bits as the scalar tier",
            },
            mismatch,
        ),
    })
}
