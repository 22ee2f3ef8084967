//! Sample texts of a file, as tokens.

use crate::base::error::{Error, Result};
use crate::base::input;
use siskin_bert::{Batch, Tokenizer, TooLong};
use std::path::Path;

/// What is in a file of text.
pub fn text(path: &Path) -> Result<String> {
    match std::str::from_utf8(&input::read(path)?) {
        Ok(text) => Ok(text.to_string()),
        Err(e) => Err(Error::file(input::name(path), format_args!("expected UTF-8: {e}"))),
    }
}

/// At most `most` lines of a file of texts, one a line, taken from all over it at equal distances; empty lines are no texts.
pub fn read(path: &Path, most: usize) -> Result<Vec<String>> {
    let text = text(path)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(Error::file(input::name(path), "expected a text on each line, got none"));
    }
    let count = most.min(lines.len());
    Ok((0..count).map(|i| lines[i * lines.len() / count].to_string()).collect())
}

/// Texts as tokens; of longer ones the first `limit` tokens.
pub fn tokens<T: AsRef<str>>(tokenizer: &Tokenizer, texts: &[T], limit: usize) -> Result<Batch> {
    let limited = tokenizer.clone().with_limit(limit.min(tokenizer.limit()))?;
    Ok(limited.encode(texts, TooLong::Cut)?.batch)
}

/// Refuses a part of the blocks that cannot be removed.
pub fn check_sparsity(flag: &str, sparsity: f64) -> Result<()> {
    if (0.0..1.0).contains(&sparsity) {
        return Ok(());
    }
    Err(Error::input(flag, "0 to below 1", sparsity))
}
