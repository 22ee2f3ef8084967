//! The ground floor: what every other room stands on, and what knows nothing of them.

#[allow(unsafe_code)]
pub mod buffer;
pub mod ctx;
pub mod element;
pub mod error;
pub mod exp;
pub mod heads;
pub mod isa;
pub mod mask;
#[allow(unsafe_code)]
pub mod parallel;
pub mod params;
pub mod scratch;
pub mod sequences;
pub mod tensor;
pub mod view;
