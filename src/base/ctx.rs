//! What a call may use: instructions and threads. Passed in, never global.

use crate::base::core::{Bf16Pairs, Core};
use crate::base::error::{Error, Result};
use crate::base::isa::Isa;
use crate::base::parallel::Parallelism;

/// The instructions and threads that a call may use. Cheap to clone; holds no state.
#[derive(Debug, Clone)]
pub struct Ctx {
    isa: Isa,
    parallelism: Parallelism,
    /// What a caller's executor answered when it was given: a call that asked twice could be told two numbers.
    executor_threads: usize,
    /// In the place of the core of this CPU.
    core: Option<Core>,
    bf16_pairs: Bf16Pairs,
}

impl Ctx {
    /// Uses rayon's threads and the best instructions of this CPU.
    ///
    /// With the feature `rayon`, calls run in the rayon pool that they are made in, or in rayon's global pool, which rayon starts then
    /// if the program has not. Without the feature, on the calling thread alone, as with [`Ctx::serial`]. `SISKIN_MAX_ISA` lowers the
    /// instructions.
    ///
    /// # Errors
    /// [`Error::Value`] if `SISKIN_MAX_ISA` is set to something that is not a tier.
    pub fn new() -> Result<Self> {
        Ok(Self {
            isa: Isa::detect()?,
            parallelism: Parallelism::default(),
            executor_threads: 1,
            core: None,
            bf16_pairs: Bf16Pairs::default(),
        })
    }

    /// Uses the calling thread alone, and starts no other: else as [`Ctx::new`].
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

    /// Where the threads come from. An [`Executor`](crate::Executor) is asked here how many threads it has.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: Parallelism) -> Self {
        if let Parallelism::Custom(_) = parallelism {
            self.executor_threads = parallelism.threads();
        }
        self.parallelism = parallelism;
        self
    }

    /// Chooses kernels and the sizes of their blocks for `core`, in the place of what is known of this CPU's. Ratios are limited to 0 to
    /// 1000 (NaN is 1), sizes of caches to 4 KiB to 1 GiB.
    #[must_use]
    pub fn with_core(mut self, core: Core) -> Self {
        self.core = Some(core.limited());
        self
    }

    /// Whether bfloat16 is multiplied in pairs. A layer keeps what its context said when it was packed.
    #[must_use]
    pub fn with_bf16_pairs(mut self, pairs: Bf16Pairs) -> Self {
        self.bf16_pairs = pairs;
        self
    }

    /// What [`Ctx::with_core`] gave.
    pub(crate) fn given_core(&self) -> Option<Core> {
        self.core
    }

    /// What [`Ctx::with_bf16_pairs`] gave.
    pub fn bf16_pairs(&self) -> Bf16Pairs {
        self.bf16_pairs
    }

    /// The tier in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads that a call may use now, from 1 to 1024.
    pub fn threads(&self) -> usize {
        match self.parallelism {
            Parallelism::Custom(_) => self.executor_threads,
            _ => self.parallelism.threads(),
        }
    }

    /// Calls `f(i, part i of the items)` for parts of `len` items, of which the last may be shorter: each exactly once, in any order,
    /// perhaps at the same time. It is how work beside siskin's own can use the same threads.
    ///
    /// ```
    /// let mut x = [1.0f32; 10];
    /// siskin::Ctx::new()?.for_each_part(&mut x, 4, &|i, part| part.fill(i as f32));
    /// assert_eq!(x, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
    /// # Ok::<(), siskin::Error>(())
    /// ```
    pub fn for_each_part<T: Send>(&self, items: &mut [T], len: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
        self.parallelism.for_each_part(items, len, f);
    }

    /// Calls `f(0)`, .. `f(tasks - 1)`, each exactly once, in any order, perhaps at the same time.
    pub(crate) fn for_each(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        self.parallelism.for_each(tasks, f);
    }

    /// Calls `f(i, chunk i of each buffer)` for chunks of `len` bytes (those at a buffer's end may be shorter, or empty),
    /// perhaps at the same time.
    pub(crate) fn for_each_chunks<const N: usize>(
        &self,
        tasks: usize,
        buffers: [&mut [u8]; N],
        len: [usize; N],
        f: &(dyn Fn(usize, [&mut [u8]; N]) + Sync),
    ) {
        self.parallelism.for_each_chunks(tasks, buffers, len, f);
    }

    /// [`Ctx::for_each_chunks`] of one buffer.
    pub(crate) fn for_each_chunk(
        &self,
        tasks: usize,
        bytes: &mut [u8],
        len: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) {
        self.for_each_chunks(tasks, [bytes], [len], &|i, [chunk]| f(i, chunk));
    }

    /// Calls `f(i, item i)` for each item, perhaps at the same time.
    pub(crate) fn for_each_item<T: Send>(&self, items: &mut [T], f: &(dyn Fn(usize, &mut T) + Sync)) {
        self.parallelism.for_each_item(items, f);
    }
}
