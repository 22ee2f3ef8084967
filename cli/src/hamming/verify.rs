//! Random cases of binary codes for `siskin verify`.

use super::case::Case;
use super::problem::Problem;
use crate::base::error::{Error, Result};
use crate::base::random::Rng;
use crate::base::settings::tier;
use siskin::{Isa, Scratch};

/// Bits that the plain loops look at, about.
const CHECKED: usize = 1 << 20;

/// Runs a case on these tiers.
pub fn verify(case: &Case, tiers: &[Isa]) -> Result<()> {
    let problem = Problem::new(case)?;
    let run = |isa: Isa, threads: usize| {
        let mut out = problem.output();
        problem.forward(&mut out, &tier(isa, threads)?, &mut Scratch::new())?;
        Ok::<_, Error>(out)
    };
    let want = run(Isa::Scalar, 1)?;
    problem.check(&want, CHECKED)?;
    for &isa in tiers {
        if run(isa, case.threads)? != want {
            return Err(Error::Wrong(format!("{isa} finds other distances or codes than scalar")));
        }
    }
    Ok(())
}

/// A case that fits its seed.
pub fn random(seed: u64, rng: &mut Rng) -> Case {
    let n = 1 + rng.below(200);
    Case {
        m: (rng.below(3) > 0).then(|| 1 + rng.below(200)),
        n,
        bits: match rng.below(2) {
            0 => rng.pick(&[16, 32, 64, 128, 256]),
            _ => 1 + rng.below(256),
        },
        k: (rng.below(2) == 0).then(|| 1 + rng.below(n + 3)),
        threads: 1 + rng.below(2) * 2,
        min_ms: 0,
        seed,
        ..Case::default()
    }
}
