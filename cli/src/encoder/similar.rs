//! The texts that are nearest to one, by the cosine of the angle between vectors. No more than these are in memory.

use super::batches::Embedded;
use crate::base::error::Result;
use crate::base::json::to_json;
use serde::Serialize;
use std::io::Write;

/// A text that was found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The cosine.
    pub score: f64,
    /// The number of the text.
    pub index: u64,
    pub text: String,
}

/// The nearest so far, the nearest first.
pub struct Nearest {
    query: Vec<f32>,
    most: usize,
    found: Vec<Found>,
}

impl Nearest {
    /// At most so many.
    pub fn new(query: Vec<f32>, most: usize) -> Self {
        Self { query, most, found: Vec::new() }
    }

    /// Looks at some more texts. Of equally near ones the first counts more.
    pub fn see(&mut self, batch: &Embedded<'_>) {
        let vectors = batch.vectors.chunks_exact(self.query.len());
        for (i, (text, vector)) in batch.texts.iter().zip(vectors).enumerate() {
            let score = cosine(&self.query, vector);
            let at = self.found.partition_point(|found| found.score >= score);
            if at < self.most {
                self.found.truncate(self.most - 1);
                let found = Found { score, index: batch.first + i as u64, text: text.clone() };
                self.found.insert(at, found);
            }
        }
    }

    /// For people, or a line of JSON each.
    pub fn print(&self, json: bool, out: &mut Vec<u8>) -> Result<()> {
        for found in &self.found {
            match json {
                true => writeln!(out, "{}", to_json(found))?,
                false => writeln!(out, "{:7.4}  {:>6}  {}", found.score, found.index, found.text)?,
            }
        }
        Ok(())
    }
}

/// 0 where a vector is nothing.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}
