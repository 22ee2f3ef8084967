//! `siskin verify`: random cases, every tier against scalar, and scalar against a plain loop.

use crate::attention;
use crate::case::{Case, Format, Op, Place, Step, Values, WType, XType, YType};
use crate::check::Wants;
use crate::ecoformer;
use crate::error::{Error, Result};
use crate::json::to_json;
use crate::problem::{Problem, Rng};
use clap::ValueEnum;
use siskin::sparse::BlockShape;
use siskin::{Ctx, Isa, Parallelism};
use std::io::{Write, stdout};

/// Check every tier of this CPU on random cases, bit for bit.
///
/// Five of eight cases are linear layers: shapes, blocks, types of weights, input and output, groups of scales, zero points,
/// epilogues and threads are random. Every fourth is attention: shapes, types, layouts, sequences, masks, biases, softmax,
/// gates and quantizers are. Every eighth is EcoFormer: shapes, types and layouts, sequences, hashes, tokens without a direction,
/// numerators and bandwidths are.
///
/// What multiplies pairs of bfloat16 sums up in another order: layers have a tolerance of a hundred-thousandth of the terms'
/// magnitudes and one step of the output, attention of 0.02 of the largest v. Exit status 1 if anything disagrees.
#[derive(clap::Args)]
pub struct Args {
    /// Check this tier only.
    #[arg(long)]
    isa: Option<String>,
    /// Random cases.
    #[arg(long, default_value_t = 2000)]
    cases: usize,
    /// Seed of the first case; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn main(args: &Args) -> Result<()> {
    let mut out = stdout().lock();
    let tiers = match &args.isa {
        None => Isa::supported().collect(),
        Some(isa) => vec![Ctx::new()?.with_isa(isa.parse()?)?.isa()],
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .map_err(|e| Error::input("threads", "3 that can be started", e))?;
    pool.install(|| {
        (0..args.cases).map(|i| args.seed.wrapping_add(i as u64)).try_for_each(|seed| match seed % 8 {
            0 | 4 => attention::verify(seed, &tiers),
            6 => ecoformer::verify(seed, &tiers),
            _ => verify(&random(seed), &tiers),
        })
    })?;
    for isa in Isa::ALL {
        match isa {
            isa if tiers.contains(isa) => {
                writeln!(out, "{:<12} ran      {} cases, all right", isa.name(), args.cases)?
            }
            isa if isa.is_supported() => writeln!(out, "{:<12} SKIPPED  not asked for", isa.name())?,
            isa => writeln!(out, "{:<12} SKIPPED  this CPU does not have it", isa.name())?,
        }
    }
    Ok(())
}

/// Runs one case on all tiers.
fn verify(case: &Case, tiers: &[Isa]) -> Result<()> {
    let blame = |e: Error| match e {
        Error::Wrong(what) => Error::Wrong(format!("{what}; case {}", to_json(case))),
        other => other,
    };
    case.check()?;
    let ctx = Ctx::serial()?.with_isa(Isa::Scalar)?;
    let problem = Problem::new(case, &ctx)?;
    problem.check_plain(&problem.tokens, &ctx).map_err(blame)?;
    let mut wants = Wants::default();
    for &isa in tiers {
        let parallelism = if case.threads == 1 { Parallelism::Serial } else { Parallelism::Rayon };
        let ctx = Ctx::serial()?.with_isa(isa)?.with_parallelism(parallelism);
        problem.check_tier(case.input, &mut wants, &ctx).map_err(blame)?;
    }
    Ok(())
}

/// A case that fits its seed.
fn random(seed: u64) -> Case {
    let mut rng = Rng(seed);
    let mut size = |most: usize| match rng.below(4) {
        0 => 1 + rng.below(4),
        1 => 16 * (1 + rng.below(most.div_ceil(16))),
        _ => 1 + rng.below(most),
    };
    let (m, n, k) = (size(140), size(200), size(300));
    let block = match rng.below(10) {
        0..3 => Format::Dense,
        3..5 => Format::Sparse(BlockShape::B4X1),
        i => {
            let shapes = ["1x1", "1x4", "4x4", "16x1", "16x4", "16x16", "32x32", "8x2", "3x5", "7x1", "5x8"];
            let own = format!("{}x{}", 1 + rng.below(20), 1 + rng.below(20));
            let text = if i == 9 { own.as_str() } else { rng.pick(&shapes) };
            text.parse().unwrap_or_default()
        }
    };
    let (w, weight_only, group_size) = match rng.below(8) {
        0 => (WType::I8, true, 0),
        1 => (WType::I8, rng.below(2) == 0, rng.pick(&[4, 32, 64, 128])),
        2 | 3 => (rng.pick(&[WType::F32, WType::Bf16, WType::F16]), false, 0),
        _ => (WType::I8, false, 0),
    };
    let in_floats = w != WType::I8 || weight_only || group_size > 0;
    let x = loop {
        let x = rng.pick(XType::value_variants());
        if !(in_floats && x.is_bytes()) {
            break x;
        }
    };
    let y = loop {
        let y = rng.pick(YType::value_variants());
        if !(in_floats && y == YType::I32) {
            break y;
        }
    };
    let zero_points = block == Format::Dense && !in_floats;
    let mut epilogue: Vec<Step> = Vec::new();
    if y != YType::I32 {
        epilogue.extend([Step::Bias, Step::Residual].into_iter().filter(|_| rng.below(2) == 0));
        let step = rng.pick(Step::value_variants());
        if !matches!(step, Step::Bias | Step::Residual) && (y.is_bytes() || !step.is_table()) {
            epilogue.push(step);
        }
    }
    Case {
        op: Op::Linear,
        m,
        n,
        k,
        w,
        weight_only,
        group_size,
        x: Some(x),
        y: Some(y),
        block,
        sparsity: rng.pick(&[0.0, 0.5, 0.7, 0.8, 0.9, 0.99]),
        epilogue,
        input: rng.pick(Place::value_variants()),
        out: if y.is_bytes() || in_floats { rng.pick(Place::value_variants()) } else { Place::Tokens },
        threads: 1 + rng.below(2) * 2,
        min_ms: 0,
        isa: None,
        seed,
        weights: if zero_points { rng.pick(Values::value_variants()) } else { Values::Random },
    }
}
