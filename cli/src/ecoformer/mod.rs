//! EcoFormer: cases and their data, a plain reference, and what the commands do with it.

mod attend;
mod bench;
mod case;
mod check;
mod encode;
mod fit;
mod problem;
mod tensor;
mod verify;

pub use attend::{Args as AttendArgs, main as attend};
pub use bench::{Args as BenchArgs, answer, main as bench};
pub use case::Case;
pub use encode::{Args as EncodeArgs, main as encode};
pub use fit::{Args as FitArgs, main as fit};
pub use verify::verify;
