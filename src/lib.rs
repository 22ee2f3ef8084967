//! Sparse, quantized and binarized transformer kernels for ordinary CPUs.
#![deny(unsafe_code)]

#[path = "../kernels/mod.rs"]
#[doc(hidden)]
pub mod kernels;

mod ctx;
mod error;
mod isa;
pub mod linear;
#[allow(unsafe_code)]
mod parallel;
pub mod quant;
mod scratch;
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
pub use scratch::Scratch;
pub use view::{DType, Element, MatMut, MatRef};
