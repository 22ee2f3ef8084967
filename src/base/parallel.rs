//! Threads: where a call's tasks run, and the one place where tasks write to disjoint parts of one output.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most threads that a call plans for.
pub const MAX_THREADS: usize = 1024;

/// Threads that the caller brings: implement it for a pool of your own and pass it as [`Parallelism::Custom`].
pub trait Executor: Send + Sync {
    /// How many tasks can run at the same time. Asked once, when a [`Ctx`](crate::Ctx) is given the executor: a pool that
    /// has changed its size is given again. 0 counts as 1, and more than 1024 as 1024.
    fn threads(&self) -> usize;

    /// Calls `task(0)`, .. `task(tasks - 1)`, each exactly once, and returns when all have returned.
    ///
    /// siskin takes each call as a turn and hands out the tasks itself, so an executor that repeats or forgets a
    /// number changes nothing but the speed.
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

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
        f.write_str(match self {
            Parallelism::Serial => "Serial",
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => "Rayon",
            Parallelism::Custom(_) => "Custom",
        })
    }
}

impl Parallelism {
    /// The number of threads there are now, from 1 to [`MAX_THREADS`]. An executor may answer otherwise the next time.
    pub(crate) fn threads(&self) -> usize {
        let threads = match self {
            Parallelism::Serial => 1,
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => rayon::current_num_threads(),
            Parallelism::Custom(executor) => executor.threads(),
        };
        threads.clamp(1, MAX_THREADS)
    }

    /// Calls `f(0)`, .. `f(tasks - 1)`, each exactly once, in any order, perhaps at the same time.
    pub(crate) fn for_each(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 {
            return (0..tasks).for_each(f);
        }
        match self {
            Parallelism::Serial => (0..tasks).for_each(f),
            #[cfg(feature = "rayon")]
            Parallelism::Rayon if rayon::current_num_threads() == 1 => (0..tasks).for_each(f),
            #[cfg(feature = "rayon")]
            Parallelism::Rayon => {
                use rayon::prelude::*;
                (0..tasks).into_par_iter().with_max_len(1).for_each(f);
            }
            Parallelism::Custom(executor) => run_each_once(&**executor, tasks, f),
        }
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
        let parts = buffers.map(|b| (Items(b.as_mut_ptr()), b.len()));
        let parts = &parts;
        self.for_each(tasks, &|i| {
            let chunks = std::array::from_fn(|n| {
                let (first, total) = &parts[n];
                let start = i.saturating_mul(len[n]).min(*total);
                let end = start.saturating_add(len[n]).min(*total);
                // SAFETY: inside the buffer, which is borrowed mutably for all of this; `for_each` runs each i once, and
                // the chunks of different i do not overlap.
                unsafe { std::slice::from_raw_parts_mut(first.at(start), end - start) }
            });
            f(i, chunks);
        });
    }

    /// Calls `f(i, part i of the items)` for parts of `len` items (the last may be shorter), perhaps at the same time.
    pub(crate) fn for_each_part<T: Send>(
        &self,
        items: &mut [T],
        len: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let len = len.max(1);
        let (first, total) = (Items(items.as_mut_ptr()), items.len());
        self.for_each(total.div_ceil(len), &|i| {
            // It does not overflow: there are items behind it.
            let start = i * len;
            // SAFETY: inside the items, which are borrowed mutably for all of this; `for_each` runs each i once, and the parts
            // of different i do not overlap.
            f(i, unsafe { std::slice::from_raw_parts_mut(first.at(start), len.min(total - start)) });
        });
    }

    /// Calls `f(i, item i)` for each item, perhaps at the same time.
    pub(crate) fn for_each_item<T: Send>(&self, items: &mut [T], f: &(dyn Fn(usize, &mut T) + Sync)) {
        self.for_each_part(items, 1, &|i, part| f(i, &mut part[0]));
    }
}

/// A pointer to items that tasks share out among them.
struct Items<T>(*mut T);
// SAFETY: the only uses are `for_each_chunks` and `for_each_part`, where each item goes to one task, perhaps on another
// thread.
unsafe impl<T: Send> Sync for Items<T> {}

impl<T> Items<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
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
