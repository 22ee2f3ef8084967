//! Random cases of EcoFormer for `siskin verify`.

use super::case::{Bandwidth, Case, Numerator};
use super::problem::Problem;
use crate::base::data::Place;
use crate::base::error::{Error, Result};
use crate::base::lengths::Lengths;
use crate::base::random::Rng;
use crate::base::settings::tier;
use crate::base::types::XType;
use clap::ValueEnum;
use siskin::{Isa, Scratch};

/// Steps that the plain references take, about.
const CHECKED: usize = 1 << 17;

/// Runs a case on these tiers, with what it has no field for.
pub fn verify(case: &Case, rng: &mut Rng, tiers: &[Isa]) -> Result<()> {
    let mut problem = complicated(case, rng)?;
    if rng.below(3) == 0 {
        without_direction(&mut problem, rng);
    }
    // Keys of their own, or those that are queries.
    let keys = match rng.below(3) {
        0 => Some(rng.codes(problem.tokens() * problem.heads(), case.bits)?),
        _ => None,
    };
    let run = |isa: Isa, threads: usize| {
        let ctx = tier(isa, threads)?;
        let (mut codes, mut y, mut scratch) = (problem.codes()?, problem.output(), Scratch::new());
        let encoded = problem.encode(&mut codes, &ctx, &mut scratch)?;
        let count = problem.without_direction();
        if encoded.without_direction != count {
            let what = format!("{isa} counts {} of {count} without direction", encoded.without_direction);
            return Err(Error::Wrong(what));
        }
        problem.attend(&codes, keys.as_ref().unwrap_or(&codes), &mut y, &ctx, &mut scratch)?;
        Ok((codes, y))
    };
    let (codes, want) = run(Isa::Scalar, 1)?;
    problem.check_codes(&codes, CHECKED)?;
    problem.check_context(&codes, keys.as_ref().unwrap_or(&codes), &want, CHECKED)?;
    for &isa in tiers {
        let (own, y) = run(isa, case.threads)?;
        if own != codes {
            return Err(Error::Wrong(format!("{isa} makes other codes than scalar")));
        }
        if let Some(i) = (0..y.len()).find(|&i| y[i].to_bits() != want[i].to_bits()) {
            let what = format!(
                "{isa} computes other bits than scalar of element {i}: {:?}, not {:?}",
                y[i], want[i]
            );
            return Err(Error::Wrong(what));
        }
    }
    Ok(())
}

fn dim(rng: &mut Rng) -> usize {
    match rng.below(3) {
        0 => 1 + rng.below(140),
        _ => rng.pick(&[8, 16, 32, 64, 80, 128, 256]),
    }
}

/// A case that fits its seed.
pub fn random(seed: u64, rng: &mut Rng) -> Case {
    let head_dim = dim(rng);
    let longest = rng.pick(&[5, 140, 140, 1200]);
    let numerator = rng.pick(Numerator::value_variants());
    Case {
        n: 1 + rng.below(longest),
        batch: 1 + rng.below(3),
        heads: 1 + rng.below(4),
        head_dim,
        bits: match rng.below(2) {
            0 => 16,
            _ => 1 + rng.below(256),
        },
        anchors: match rng.below(2) {
            0 => 25,
            _ => 1 + rng.below(60),
        },
        causal: numerator == Numerator::Consistent && rng.below(2) == 0,
        numerator,
        bandwidth: rng.pick(Bandwidth::value_variants()),
        threads: 1 + rng.below(2) * 2,
        min_ms: 0,
        seed,
        ..Case::default()
    }
}

/// What a case has no field for: packed sequences, a layout, and values of any type and any number of features.
fn complicated(case: &Case, rng: &mut Rng) -> Result<Problem> {
    let v_dim = dim(rng);
    let lengths = match rng.below(3) {
        0 => {
            let ends = rng.cu_seqlens(140);
            Lengths::Packed { q: ends.clone(), kv: ends }
        }
        _ => Lengths::Batch { batch: case.batch, q_len: case.n, kv_len: case.n },
    };
    let v = rng.pick(XType::value_variants());
    let layout = rng.pick(&[Place::by_tokens as fn(usize, usize, usize) -> Place, Place::by_heads]);
    Problem::with(case, lengths, v, v_dim, layout)
}

/// Takes the direction from some heads of tokens.
fn without_direction(problem: &mut Problem, rng: &mut Rng) {
    let place = problem.x_place;
    for _ in 0..(1 + rng.below(3)).min(place.tokens) {
        let (token, head) = (rng.below(place.tokens), rng.below(place.heads));
        let row = &mut problem.x[place.at(token, head)..][..place.head_dim];
        match rng.below(3) {
            0 => row.fill(0.0),
            1 => row[rng.below(place.head_dim)] = f32::NAN,
            _ => row[rng.below(place.head_dim)] = f32::NEG_INFINITY,
        }
    }
}
