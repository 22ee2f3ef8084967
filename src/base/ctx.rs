//! What a call may use: instructions and threads. Passed in, never global.

use crate::base::error::{Error, Result};
use crate::base::isa::Isa;
use crate::base::parallel::Executor;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where a call's threads come from.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Parallelism {
    /// The calling thread alone.
    #[cfg_attr(not(feature = "rayon"), default)]
    Serial,
    /// The rayon pool the call is made from (`pool.install(|| ..)`), or rayon's global one.
    #[cfg(feature = "rayon")]
    #[cfg_attr(feature = "rayon", default)]
    Rayon,
    /// The caller's own threads.
    Custom(Arc<dyn Executor>),
}

impl fmt::Debug for Parallelism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parallelism::Serial => f.write_str("Serial"),
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => f.write_str("Rayon"),
            Parallelism::Custom(e) => write!(f, "Custom({} threads)", e.threads()),
        }
    }
}

/// The instructions and threads that a call may use. Cheap to clone; holds no state.
#[derive(Debug, Clone)]
pub struct Ctx {
    isa: Isa,
    parallelism: Parallelism,
}

impl Ctx {
    /// The best instructions of this CPU (lowered by `SISKIN_MAX_ISA`) and, with the feature `rayon`,
    /// the current rayon pool.
    ///
    /// # Errors
    /// [`Error::Value`] if `SISKIN_MAX_ISA` is set to something that is not a tier.
    pub fn new() -> Result<Self> {
        Ok(Self { isa: Isa::detect()?, parallelism: Parallelism::default() })
    }

    /// As [`Ctx::new`], on the calling thread alone.
    ///
    /// # Errors
    /// As [`Ctx::new`].
    pub fn serial() -> Result<Self> {
        Ok(Self::new()?.with_parallelism(Parallelism::Serial))
    }

    /// Never uses instructions above `cap`. Can only lower.
    #[must_use]
    pub fn with_max_isa(mut self, cap: Isa) -> Self {
        let capped = Isa::capped(cap);
        if self.isa.implies(capped) {
            self.isa = capped;
        }
        self
    }

    /// Exactly the tier `isa`, even where it is not the best or is above `SISKIN_MAX_ISA`: for tests and benchmarks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if this CPU does not have it.
    pub fn with_isa(mut self, isa: Isa) -> Result<Self> {
        if !isa.is_supported() {
            let have: Vec<_> = Isa::supported().map(Isa::name).collect();
            return Err(Error::unsupported(
                "isa",
                format_args!("a tier of this CPU ({})", have.join(", ")),
                isa,
            ));
        }
        self.isa = isa;
        Ok(self)
    }

    /// Where the threads come from.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: Parallelism) -> Self {
        self.parallelism = parallelism;
        self
    }

    /// The tier in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads that a call may use now.
    pub fn threads(&self) -> usize {
        match &self.parallelism {
            Parallelism::Serial => 1,
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => rayon::current_num_threads(),
            Parallelism::Custom(e) => e.threads().max(1),
        }
    }

    /// Calls `f(0)`, .. `f(tasks - 1)`, in any order, perhaps at the same time.
    pub(crate) fn for_each(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 {
            return (0..tasks).for_each(f);
        }
        match &self.parallelism {
            Parallelism::Serial => (0..tasks).for_each(f),
            #[cfg(feature = "rayon")]
            Parallelism::Rayon if rayon::current_num_threads() == 1 => (0..tasks).for_each(f),
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => {
                use rayon::prelude::*;
                (0..tasks).into_par_iter().with_max_len(1).for_each(f);
            }
            Parallelism::Custom(e) => run_each_once(&**e, tasks, f),
        }
    }
}

/// An executor is safe code and may be wrong: what it passes is only taken as a turn, so that every task runs
/// exactly once even if it repeats or forgets some.
fn run_each_once(executor: &dyn Executor, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let turn = |_: usize| match next.fetch_add(1, Ordering::Relaxed) {
        task if task < tasks => {
            f(task);
            true
        }
        _ => false,
    };
    executor.for_each(tasks, &|i| {
        turn(i);
    });
    while turn(0) {}
}
