//! Encoders that are pruned, and how near their vectors stay.

pub mod accuracy;
mod chart;
mod comparison;
mod graded;
mod neighbours;
pub mod prune;
mod rank;
mod report;
mod samples;
