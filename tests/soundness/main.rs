//! Memory: every kind of call on shapes so small that Miri, which watches each access, runs them all in minutes; and
//! executors that say what no executor should. `.ci/run miri` runs this with Miri on the scalar tier.
//!
//! A binary of its own: Miri has no use for the others, which reach kernels that it cannot run.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod executors;
