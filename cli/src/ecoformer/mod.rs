//! EcoFormer: cases and their data, a plain reference, and what the commands do with it.

mod bench;
mod case;
mod check;
mod problem;
mod run;
mod verify;

use crate::base::error::Result;
use crate::base::family::Family;
use crate::base::files::Run;
use crate::base::random::Rng;
use siskin::{Ctx, Isa};

pub use bench::Answer;
pub use case::Case;
pub use problem::Problem;

impl Family for Case {
    const OP: &'static str = "ecoformer";
    const SHARE: u64 = 1;
    const VERIFIED: &'static str = "EcoFormer: shapes, types and layouts, sequences, hashes, tokens without a direction, \
                                    numerators and bandwidths are random";
    const RUNS: &'static [Run] =
        &[Run::new::<run::fit::Args>(), Run::new::<run::encode::Args>(), Run::new::<run::attend::Args>()];

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

    fn verify(&self, rng: &mut Rng, tiers: &[Isa]) -> Result<()> {
        verify::verify(self, rng, tiers)
    }

    fn small(self) -> Self {
        Self {
            n: self.n.min(200),
            batch: self.batch.min(3),
            heads: self.heads.min(4),
            anchors: self.anchors.min(50),
            min_ms: 0,
            threads: self.threads.min(2),
            ..self
        }
    }
}
