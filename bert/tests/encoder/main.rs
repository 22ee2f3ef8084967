//! Encoders of small generated models, and of a real one where there is one.

mod attention;
mod checkpoint;
mod common;
mod forward;
mod minilm;
mod ranges;
mod reference;
mod same_bits;
mod tokens;
