//! Sparse, quantized and binarized transformer kernels for ordinary CPUs.
#![deny(unsafe_code)]

#[path = "../kernels/mod.rs"]
mod kernels;

mod ctx;
mod error;
mod isa;
mod parallel;
pub mod quant;
pub mod sparse;
mod view;

#[cfg(siskin_oracle)]
#[doc(hidden)]
pub use kernels::oracle;

pub use ctx::{Ctx, Parallelism};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use isa::Isa;
pub use parallel::Executor;
pub use view::{DType, Element, MatMut, MatRef};
