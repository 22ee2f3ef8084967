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
