//! Random cases of EcoFormer for `siskin verify`.

use super::case::{Bandwidth, Case, Numerator};
use super::problem::Problem;
use crate::attention::{Lengths, Place};
use crate::case::XType;
use crate::error::{Error, Result};
use crate::hamming;
use crate::json::to_json;
use crate::problem::Rng;
use clap::ValueEnum;
use siskin::{Ctx, Isa, Parallelism, Scratch};

/// Steps that the plain references take, about.
const CHECKED: usize = 1 << 17;

/// Runs the case of a seed on all tiers.
pub fn verify(seed: u64, tiers: &[Isa]) -> Result<()> {
    let mut rng = Rng(seed);
    let (case, mut problem) = random(seed, &mut rng)?;
    let blame = |e: Error| match e {
        Error::Wrong(what) => Error::Wrong(format!("{what}; `verify --seed {seed}`, {}", to_json(&case))),
        other => other,
    };
    if rng.below(3) == 0 {
        without_direction(&mut problem, &mut rng);
    }
    // Keys of their own, or those that are queries.
    let keys = match rng.below(3) {
        0 => Some(hamming::random(problem.tokens() * problem.heads(), case.bits, &mut rng)?),
        _ => None,
    };
    let run = |isa: Isa, threads: usize| {
        let parallelism = if threads == 1 { Parallelism::Serial } else { Parallelism::Rayon };
        let ctx = Ctx::serial()?.with_isa(isa)?.with_parallelism(parallelism);
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
    let (codes, want) = run(Isa::Scalar, 1).map_err(blame)?;
    problem.check_codes(&codes, CHECKED).map_err(blame)?;
    problem.check_context(&codes, keys.as_ref().unwrap_or(&codes), &want, CHECKED).map_err(blame)?;
    for &isa in tiers {
        let (own, y) = run(isa, case.threads).map_err(blame)?;
        if own != codes {
            return Err(blame(Error::Wrong(format!("{isa} makes other codes than scalar"))));
        }
        if let Some(i) = (0..y.len()).find(|&i| y[i].to_bits() != want[i].to_bits()) {
            let what = format!(
                "{isa} computes other bits than scalar of element {i}: {:?}, not {:?}",
                y[i], want[i]
            );
            return Err(blame(Error::Wrong(what)));
        }
    }
    Ok(())
}

fn random(seed: u64, rng: &mut Rng) -> Result<(Case, Problem)> {
    let dim = |rng: &mut Rng| match rng.below(3) {
        0 => 1 + rng.below(140),
        _ => rng.pick(&[8, 16, 32, 64, 80, 128, 256]),
    };
    let (head_dim, v_dim) = (dim(rng), dim(rng));
    let longest = rng.pick(&[5, 140, 140, 1200]);
    let numerator = rng.pick(Numerator::value_variants());
    let case = Case {
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
    };
    case.check()?;
    let lengths = match rng.below(3) {
        0 => {
            // Some of them empty.
            let mut ends = vec![0];
            for _ in 0..4 {
                let len = if rng.below(6) == 0 { 0 } else { rng.below(140) as i32 };
                ends.push(ends[ends.len() - 1] + len);
            }
            Lengths::Packed { q: ends.clone(), kv: ends }
        }
        _ => Lengths::Batch { batch: case.batch, q_len: case.n, kv_len: case.n },
    };
    let v = rng.pick(XType::value_variants());
    let layout = rng.pick(&[Place::by_tokens as fn(usize, usize, usize) -> Place, Place::by_heads]);
    let problem = Problem::with(&case, lengths, v, v_dim, layout)?;
    Ok((case, problem))
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
