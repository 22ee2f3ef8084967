//! Linear layers: cases and their data, checks, and what the commands do with them.

mod bench;
mod bytes;
mod case;
mod check;
mod matrix;
mod problem;
mod run;
mod verify;
mod weights;

use crate::base::error::Result;
use crate::base::family::{self, Family};
use crate::base::files::Run;
use crate::base::random::Rng;
use crate::base::settings::Settings;
use siskin::{Ctx, Isa, Scratch};

pub use bench::Answer;
pub use case::{Case, Format, Step, WType};
pub use weights::{Scales, Stored, Weights};

impl Family for Case {
    const OP: &'static str = "linear";
    const SHARE: u64 = 5;
    const VERIFIED: &'static str = "linear layers: shapes, blocks, types of weights, input and output, groups of scales, \
                                    zero points, epilogues and threads are random";
    const RUNS: &'static [Run] = &[Run::new::<run::Args>()];

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
        let small = |size: usize| size.min(100);
        let block = match self.block {
            Format::Sparse(block) if block.area() > 1024 => Format::default(),
            block => block,
        };
        let (m, n, k) = (small(self.m), small(self.n), small(self.k));
        Self { m, n, k, block, min_ms: 0, threads: self.threads.min(2), ..self }
    }
}

/// Runs a case once on a tier, and checks it.
pub fn check(case: &Case) -> Result<()> {
    family::check(case)?;
    case.on_threads(|ctx| {
        let problem = problem::Problem::new(case, ctx)?;
        let mut y = problem.output();
        let layer = problem.layer(ctx)?;
        problem.forward(&layer, &problem.tokens, None, &mut y, ctx, &mut Scratch::new())?;
        problem.check(&y, &layer, ctx)
    })
}
