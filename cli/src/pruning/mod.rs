//! Encoders that are pruned, and how near their vectors stay.

pub mod accuracy;
pub mod prune;
mod rank;
mod samples;
