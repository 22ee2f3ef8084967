//! Arm tiers: registers, and the loops of products that are no dot products of a register's lanes.
//!
//! What stable Rust has no intrinsic for is one instruction in `asm!`, which leaves registers to the compiler; the assembler
//! holds it to the features of the function that it ends up in.
// NEON is part of the architecture, so an intrinsic that takes no pointer is safe here; other tiers' are not.
#![allow(unused_unsafe)]

use std::arch::aarch64::int32x4_t;

#[cfg(target_endian = "big")]
compile_error!("siskin's Arm kernels are for little-endian CPUs: a lane's first byte must be its lowest");

/// A quad: an element of the register that brought it.
#[derive(Clone, Copy)]
pub struct Quad {
    register: int32x4_t,
    element: u32,
}

#[macro_use]
mod vector;
mod dotprod;
mod neon;

pub use dotprod::NeonDot;
pub use neon::Neon;
