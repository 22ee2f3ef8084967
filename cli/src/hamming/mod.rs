//! Binary codes against binary codes: cases and their codes, checks, and what the commands do with them.

mod bench;
mod case;
mod check;
mod problem;
mod verify;

use crate::base::error::Result;
use crate::base::family::Family;
use crate::base::files::Run;
use crate::base::random::Rng;
use bench::Answer;
use siskin::{Ctx, Isa};

pub use case::Case;
pub use problem::{Out, Problem};

impl Family for Case {
    const OP: &'static str = "hamming";
    const SHARE: u64 = 1;
    const VERIFIED: &'static str =
        "distances of binary codes, all or the nearest: numbers of codes and bits are random";
    const RUNS: &'static [Run] = &[];

    type Answer = Answer;

    fn validate(&self) -> Result<()> {
        self.check_fields()
    }

    fn measure(&self, ctx: &Ctx) -> Result<Answer> {
        bench::measure(self, ctx)
    }

    fn random(seed: u64, rng: &mut Rng) -> Self {
        verify::random(seed, rng)
    }

    fn verify(&self, _: &mut Rng, tiers: &[Isa]) -> Result<()> {
        verify::verify(self, tiers)
    }

    fn small(self) -> Self {
        let small = |size: usize| size.min(200);
        Self {
            m: self.m.map(small),
            n: small(self.n),
            k: self.k.map(small),
            min_ms: 0,
            threads: self.threads.min(2),
            ..self
        }
    }
}
