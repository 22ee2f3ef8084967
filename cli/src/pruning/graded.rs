//! Pairs of texts of which it is known how related they are.

use super::samples;
use crate::base::error::{Error, Result};
use crate::base::input;
use std::fmt::Display;
use std::path::Path;

/// The pairs that come with the command, written for it: 2 for the same said in other words, 1 for another thing said about the same
/// subject, 0 for two subjects.
const OURS: &str = include_str!("graded.tsv");

/// Pairs of texts with a grade each: the more related, the larger.
pub struct Graded {
    pub name: String,
    pub grades: Vec<f64>,
    /// Two for each grade.
    pub texts: Vec<String>,
}

impl Graded {
    /// Of a file, a pair a line: the grade and the two texts, with tabs between. Without a file those that come with the command.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        match path {
            Some(path) => parse(input::name(path), &samples::text(path)?),
            None => parse(Path::new("the command"), OURS),
        }
    }
}

fn parse(name: &Path, text: &str) -> Result<Graded> {
    let mut this = Graded { name: name.display().to_string(), grades: Vec::new(), texts: Vec::new() };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let blame = |expected: &str, got: &dyn Display| {
            Error::file(name, format_args!("line {}: expected {expected}, got {got}", number + 1))
        };
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [grade, a, b] = fields[..] else {
            return Err(blame("three fields with tabs between, a number and two texts", &fields.len()));
        };
        match grade.parse::<f64>() {
            Ok(grade) if grade.is_finite() => this.grades.push(grade),
            _ => {
                return Err(blame(
                    "a number that says how related the texts are",
                    &format_args!("{grade:?}"),
                ));
            }
        }
        if a.is_empty() || b.is_empty() {
            return Err(blame("two texts", &"an empty one"));
        }
        this.texts.extend([a.to_string(), b.to_string()]);
    }
    match this.grades.first() {
        None => Err(Error::file(name, "expected a pair of texts on each line, got none")),
        Some(first) if this.grades.iter().all(|grade| grade == first) => {
            let got = format_args!("expected pairs of two grades or more, got {first} alone");
            Err(Error::file(name, got))
        }
        Some(_) => Ok(this),
    }
}
