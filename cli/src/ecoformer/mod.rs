//! EcoFormer: what the commands do with it.

mod fit;

pub use fit::{Args as FitArgs, main as fit};
