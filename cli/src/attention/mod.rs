//! Attention: cases and their data, a plain reference, and what the commands do with them.

mod bench;
mod case;
mod check;
mod problem;
mod reference;
mod run;
mod verify;

use crate::base::error::Result;
use crate::base::family::Family;
use crate::base::files::Run;
use crate::base::random::Rng;
use siskin::{Ctx, Isa};

pub use bench::Answer;
pub use case::{Case, Softmax};
pub use problem::Problem;

impl Family for Case {
    const OP: &'static str = "attention";
    const SHARE: u64 = 2;
    const VERIFIED: &'static str = "attention: shapes, types, layouts, sequences, masks, biases, softmax, gates and \
                                    quantizers are random";
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

    fn verify(&self, rng: &mut Rng, tiers: &[Isa]) -> Result<()> {
        verify::verify(self, rng, tiers)
    }

    fn small(self) -> Self {
        let small = |size: usize| size.min(70);
        // Lists are cut off, and sequences with them.
        let short = |list: &[i32]| list.iter().take(8).map(|&n| n.min(100)).collect();
        Self {
            seq: self.seq.map(small).or((!self.is_packed()).then_some(70)),
            kv_len: self.kv_len.map(small),
            heads: self.heads.min(4),
            kv_heads: self.kv_heads.map(|n| n.min(4)),
            batch: self.batch.map(|n| n.min(3)),
            cu_seqlens: short(&self.cu_seqlens),
            cu_seqlens_k: short(&self.cu_seqlens_k),
            min_ms: 0,
            threads: self.threads.min(2),
            ..self
        }
    }
}
