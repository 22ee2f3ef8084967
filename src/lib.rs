//! Kernels for sparse, quantized and binarized transformers on ordinary CPUs: block-sparse and dense [linear] layers of INT8, f32,
//! bfloat16 and f16, [attention] with the clipped softmax and the gates of Quantizable Transformers, and [EcoFormer](ecoformer)'s
//! over binary codes, [layer normalization](norm) straight to bytes; hand-written for x86-64 (AVX2 to AVX-512 BF16) and Arm (NEON to BF16, SVE), behind a safe API, with run-time
//! dispatch and a scalar reference.
//!
//! ```
//! use siskin::linear::{Epilogue, Linear};
//! use siskin::sparse::{BlockShape, Norm, prune};
//! use siskin::{Ctx, MatMut, MatRef, Scratch};
//!
//! let w = vec![0.25f32; 64 * 32]; // [64 output features, 32 input features]
//! let w = prune::magnitude(MatRef::new(&w, 64, 32)?, BlockShape::B4X1, 0.8, Norm::L2)?;
//! let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
//! let layer = Linear::quantize_sparse(&w)?.build(&ctx)?;
//!
//! let (x, mut y) = (vec![1.0f32; 3 * 32], vec![0.0f32; 3 * 64]); // 3 tokens
//! let (x, y) = (MatRef::new(&x, 3, 32)?, MatMut::new(&mut y, 3, 64)?); // x becomes bytes token by token
//! layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch)?;
//! # Ok::<(), siskin::Error>(())
//! ```
//!
//! # The way of the data
//!
//! A caller's slice becomes a [`MatRef`], whose bounds are proven once. Weights become a [`linear::Linear`], packed for
//! the CPU's best tier and checked. A call, [`linear::Linear::forward`], checks the shapes, packs or quantizes x, and
//! writes each output once, through an [`linear::Epilogue`]. Layers that follow each other hand over
//! [`linear::PackedActivations`] and never leave INT8.
//!
//! # Promises
//!
//! 1. **The same answer everywhere.** The same bits on every tier, for any number of threads, for a token alone or in a
//!    batch. Integer sums are exact: no saturating multiply-add, ever. Float sums of products are one chain of fused
//!    multiply-adds, other sums have one order. The one exception is stated: products of bfloat16 pairs on the tier that has them
//!    ([`linear`]).
//! 2. **No undefined behaviour from safe code.** Any slice, any index array: a typed [`enum@Error`] that says what was
//!    expected and what came, never a panic, an over-read or a wrong answer. What would overflow is refused.
//! 3. **The caller owns the resources.** No global state, no pool of its own: [`Ctx::new`] uses the rayon pool that it is called in, or
//!    rayon's global one, which rayon starts then (feature `rayon`, on by default); [`Ctx::serial`] the calling thread alone; and
//!    [`Executor`] is a pool of yours. No allocation once the largest shape was seen with the same [`Scratch`]
//!    and context.
//! 4. **One binary, every CPU.** Kernels are chosen at run time; the variable `SISKIN_MAX_ISA` and [`Ctx`] only lower the
//!    choice.
//!
//! # Features
//!
//! `linear`, `attention` and `ecoformer` (which needs `linear`) are the families; `rayon` takes threads from rayon. All four are on
//! by default. Normalization, quantizers and pruning are always there. `serde` makes plain parameters serializable.
#![deny(unsafe_code)]
// The ground floor and the kernels serve all families: without one of them, what it alone needs is left out by the compiler.
#![cfg_attr(
    not(all(feature = "linear", feature = "attention", feature = "ecoformer")),
    allow(dead_code, unused_imports, unused_macros)
)]

#[cfg(target_endian = "big")]
compile_error!("siskin is for little-endian CPUs: its kernels take the first byte of a lane for the lowest");

mod base;
#[cfg_attr(feature = "internal", allow(missing_docs, clippy::missing_safety_doc))]
mod driver;
#[cfg_attr(feature = "internal", allow(missing_docs, clippy::missing_safety_doc))]
#[path = "../kernels/mod.rs"]
mod kernels;

#[cfg(feature = "attention")]
#[forbid(unsafe_code)]
pub mod attention;
#[cfg(feature = "ecoformer")]
#[forbid(unsafe_code)]
pub mod ecoformer;
#[cfg(feature = "linear")]
#[forbid(unsafe_code)]
pub mod linear;
#[cfg(all(feature = "linear", feature = "attention", feature = "ecoformer"))]
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod measure;
#[forbid(unsafe_code)]
pub mod norm;
#[forbid(unsafe_code)]
pub mod quant;
#[forbid(unsafe_code)]
pub mod sparse;
#[forbid(unsafe_code)]
mod tune;

/// What siskin's own tests and benchmarks reach: no part of the API, and not sound for every argument.
///
/// ```
/// use siskin::internal::{driver::linear::weights, kernels::table};
/// ```
///
/// There is no other way to it:
///
/// ```compile_fail,E0603
/// use siskin::kernels::table;
/// ```
///
/// ```compile_fail,E0603
/// use siskin::driver::linear::weights;
/// ```
///
/// ```compile_fail,E0603
/// use siskin::base::buffer;
/// ```
#[cfg(feature = "internal")]
#[doc(hidden)]
pub mod internal {
    pub use crate::base::{buffer, core, isa, params};
    #[cfg(siskin_oracle)]
    pub use crate::kernels::oracle;

    /// Layouts of packed activations.
    pub mod linear {
        pub use crate::linear::internal::*;
    }

    /// Macro-kernels and packed weights.
    pub mod driver {
        pub use crate::driver::*;
    }

    /// Micro-kernels and their table.
    pub mod kernels {
        pub use crate::kernels::*;
    }
}

pub use base::core::{Bf16Pairs, Core, SparseCost, Starts};
pub use base::ctx::Ctx;
pub use base::element::{Element, ElementType};
pub use base::error::{Error, Result};
pub use base::heads::{HeadsMut, HeadsRef};
pub use base::isa::Isa;
pub use base::parallel::{Executor, Parallelism};
pub use base::scratch::Scratch;
pub use base::tensor::{HeadParams, TensorMut, TensorRef};
pub use base::view::{MatMut, MatRef};
pub use half::{bf16, f16};

/// The samples of the README and of the guide, which `cargo test --doc` runs.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/linear.md")]
    mod linear {}
    #[doc = include_str!("../docs/norm.md")]
    mod norm {}
    #[doc = include_str!("../docs/attention.md")]
    mod attention {}
    #[doc = include_str!("../docs/ecoformer.md")]
    mod ecoformer {}
    #[doc = include_str!("../docs/quantization.md")]
    mod quantization {}
    #[doc = include_str!("../docs/pruning.md")]
    mod pruning {}
}
