//! Quantization: real numbers to 8-bit integers and back.

mod params;

pub(crate) use params::check_scale;
pub use params::{QuantParams, QuantType};
