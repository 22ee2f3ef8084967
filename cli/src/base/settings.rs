//! The tier and the threads that cases and runs ask for.

use super::case::choices;
use super::error::{Error, Result};
use siskin::{Ctx, Isa, Parallelism};

choices! {
    Bf16Pairs {
        /// In pairs where the core is faster so.
        IfFaster,
        /// In pairs wherever the tier has the instruction.
        Always,
        /// Widened: the same bits on every CPU.
        Never,
    }
}

impl From<Bf16Pairs> for siskin::Bf16Pairs {
    fn from(pairs: Bf16Pairs) -> Self {
        match pairs {
            Bf16Pairs::IfFaster => Self::IfFaster,
            Bf16Pairs::Always => Self::Always,
            Bf16Pairs::Never => Self::Never,
        }
    }
}

/// What every case and every run says about how it is computed.
pub trait Settings: Sync {
    fn isa(&self) -> Option<&str>;

    fn bf16_pairs(&self) -> Bf16Pairs;

    fn threads(&self) -> usize;

    fn min_ms(&self) -> u64 {
        0
    }

    fn check_settings(&self) -> Result<()> {
        if !(1..=256).contains(&self.threads()) {
            return Err(Error::input("threads", "1 to 256", self.threads()));
        }
        if self.min_ms() > 60_000 {
            return Err(Error::input("min_ms", "at most 60000", self.min_ms()));
        }
        Ok(())
    }

    /// Calls `f` where so many threads are.
    fn on_threads<T: Send>(&self, f: impl FnOnce(&Ctx) -> Result<T> + Send) -> Result<T> {
        let (ctx, threads) = (ctx(self.isa(), self.threads())?, self.threads());
        let ctx = ctx.with_bf16_pairs(self.bf16_pairs().into());
        if threads == 1 {
            return f(&ctx);
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| Error::input("threads", "as many as can be started", e))?;
        pool.install(|| f(&ctx))
    }
}

/// The tier asked for, or the best. Threads are those of the pool that the call is made from.
pub fn ctx(isa: Option<&str>, threads: usize) -> Result<Ctx> {
    let ctx = Ctx::new()?;
    Ok(match isa {
        None => ctx,
        Some(isa) => ctx.with_isa(isa.parse::<Isa>()?)?,
    }
    .with_parallelism(parallelism(threads)))
}

/// A tier that this CPU has, with all kernels that it has, where block-sparse layers stay so.
pub fn tier(isa: Isa, threads: usize) -> Result<Ctx> {
    let ctx = Ctx::serial()?.with_isa(isa)?.with_parallelism(parallelism(threads));
    let core = "bf16-pairs=2 division=1 sparse=0,0,0,0,0 l1d=32768 l2=524288".parse()?;
    Ok(ctx.with_core(core).with_bf16_pairs(siskin::Bf16Pairs::Always))
}

fn parallelism(threads: usize) -> Parallelism {
    if threads == 1 { Parallelism::Serial } else { Parallelism::Rayon }
}
