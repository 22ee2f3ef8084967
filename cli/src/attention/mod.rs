//! Attention: cases and their data, a plain reference, and what the commands do with them.

mod bench;
mod case;
mod check;
mod problem;
mod reference;
mod run;
mod tensor;
mod verify;

pub use bench::{Args as BenchArgs, answer, main as bench};
pub use case::Case;
pub use run::{Args as RunArgs, compute, main as run};
pub use verify::verify;
