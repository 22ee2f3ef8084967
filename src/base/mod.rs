//! The ground floor: what every other room stands on, and what knows nothing of them.

#[allow(unsafe_code)]
pub mod buffer;
#[allow(unsafe_code)]
pub mod parallel;

#[forbid(unsafe_code)]
pub mod core;
#[forbid(unsafe_code)]
pub mod ctx;
#[forbid(unsafe_code)]
pub mod element;
#[forbid(unsafe_code)]
pub mod error;
#[forbid(unsafe_code)]
pub mod exp;
#[forbid(unsafe_code)]
pub mod heads;
#[forbid(unsafe_code)]
pub mod isa;
#[forbid(unsafe_code)]
pub mod mask;
#[forbid(unsafe_code)]
pub mod params;
#[forbid(unsafe_code)]
pub mod scratch;
#[forbid(unsafe_code)]
pub mod sequences;
#[forbid(unsafe_code)]
pub mod tensor;
#[forbid(unsafe_code)]
pub mod view;
