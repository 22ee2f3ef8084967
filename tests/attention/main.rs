//! Attention through its public calls: its numbers, what may not change them, what is refused; calibration and gates.

mod bytes;
mod calibrate;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod finite;
mod floats;
mod gates;
mod golden;
mod many_keys;
mod properties;
