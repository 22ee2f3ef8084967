//! The ground floor: what a family of operations is, and what all of them share. It knows none of them.

pub mod answer;
pub mod case;
pub mod data;
pub mod error;
pub mod family;
pub mod files;
pub mod heads;
pub mod input;
pub mod json;
pub mod lengths;
pub mod measure;
pub mod output;
pub mod picture;
pub mod progress;
pub mod random;
pub mod recognize;
pub mod settings;
pub mod signals;
pub mod tensors;
pub mod types;
