//! Random cases of a linear layer for `siskin verify`.

use super::case::{Case, Format, Place, Step, Values, WType};
use super::check::Wants;
use super::problem::Problem;
use crate::base::error::Result;
use crate::base::random::Rng;
use crate::base::settings::tier;
use crate::base::types::{XType, YType};
use clap::ValueEnum;
use siskin::Isa;
use siskin::sparse::BlockShape;

/// Runs a case on these tiers.
pub fn verify(case: &Case, tiers: &[Isa]) -> Result<()> {
    let scalar = tier(Isa::Scalar, 1)?;
    let problem = Problem::new(case, &scalar)?;
    problem.check_plain(&problem.tokens, &scalar)?;
    let mut wants = Wants::default();
    tiers
        .iter()
        .try_for_each(|&isa| problem.check_tier(case.input, &mut wants, &tier(isa, case.threads)?))?;
    let tokens = problem.with_odd_numbers(&mut Rng(case.seed))?;
    for &isa in tiers {
        let ctx = tier(isa, case.threads)?;
        problem.check_magnitudes(&mut Rng(case.seed), &ctx)?;
        if problem.y.is_bytes() {
            problem.check_bytes(case.input, &tokens, &ctx)?;
        }
    }
    Ok(())
}

/// A case that fits its seed.
pub fn random(seed: u64, rng: &mut Rng) -> Case {
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
        if step.is_activation() && (y.is_bytes() || step.table().is_none()) {
            epilogue.push(step);
        }
    }
    Case {
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
        seed,
        weights: if zero_points { rng.pick(Values::value_variants()) } else { Values::Random },
        ..Case::default()
    }
}
