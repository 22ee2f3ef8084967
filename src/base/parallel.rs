//! Threads: the caller's executor, and the one place where tasks write to disjoint parts of one output.

/// Threads that the caller brings: implement it for a pool of your own and pass it as
/// [`Parallelism::Custom`](crate::Parallelism::Custom).
pub trait Executor: Send + Sync {
    /// How many tasks can run at the same time.
    fn threads(&self) -> usize;

    /// Calls `task(0)`, .. `task(tasks - 1)`, each exactly once, and returns when all have returned.
    ///
    /// siskin takes each call as a turn and hands out the tasks itself, so an executor that repeats or forgets a
    /// number changes nothing but the speed.
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

use crate::base::ctx::Ctx;

/// A pointer that tasks may share: each makes a slice of its own part.
struct Parts(*mut u8);
// SAFETY: the only use is `for_each_chunk`, where no two tasks touch the same bytes.
unsafe impl Sync for Parts {}

/// A pointer to items that tasks share out among them.
struct Items<T>(*mut T);
// SAFETY: the only use is `for_each_item`, where each item goes to one task, perhaps on another thread.
unsafe impl<T: Send> Sync for Items<T> {}

impl<T> Items<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

impl Ctx {
    /// Calls `f(i, chunk i of each buffer)` for chunks of `len` bytes (those at a buffer's end may be shorter, or empty),
    /// perhaps at the same time.
    pub(crate) fn for_each_chunks<const N: usize>(
        &self,
        tasks: usize,
        buffers: [&mut [u8]; N],
        len: [usize; N],
        f: &(dyn Fn(usize, [&mut [u8]; N]) + Sync),
    ) {
        let parts = buffers.map(|b| (Parts(b.as_mut_ptr()), b.len()));
        let parts = &parts;
        self.for_each(tasks, &|i| {
            let mut n = 0;
            let chunks = [(); N].map(|()| {
                let (p, total) = &parts[n];
                let start = (i * len[n]).min(*total);
                let end = (start + len[n]).min(*total);
                n += 1;
                // SAFETY: inside the buffer, which is borrowed mutably for all of this; `for_each` runs each i once, and
                // the chunks of different i do not overlap.
                unsafe { std::slice::from_raw_parts_mut(p.0.add(start), end - start) }
            });
            f(i, chunks);
        });
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
        let (first, len) = (Items(items.as_mut_ptr()), items.len());
        self.for_each(len, &|i| {
            // SAFETY: inside the items, which are borrowed mutably for all of this; `for_each` runs each i once.
            f(i, unsafe { &mut *first.at(i) });
        });
    }
}
