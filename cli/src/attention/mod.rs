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
pub use case::{Case, DType, Softmax};
pub use problem::{Lengths, Problem, normal};
pub use run::{Args as RunArgs, Heads, compute, cu_seqlens, heads, main as run};
pub use tensor::{Data, Place, of_head, span};
pub use verify::verify;
