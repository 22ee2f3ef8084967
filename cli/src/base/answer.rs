//! What a measured case says, as text or as JSON.

use super::error::{Error, Result};
use super::json::to_json;
use serde::Serialize;
use std::io::{Write, stdout};

/// Whether a case's result is right, and by what.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub checked: bool,
    pub checked_is: &'static str,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
}

impl Check {
    /// Of a comparison; what kept it from being made is an error.
    pub fn new(checked_is: &'static str, compared: Result<()>) -> Result<Self> {
        let mismatch = match compared {
            Ok(()) => None,
            Err(Error::Wrong(what)) => Some(what),
            Err(e) => return Err(e),
        };
        Ok(Self { checked: mismatch.is_none(), checked_is, mismatch })
    }
}

/// The answer to a case.
pub trait Answer: Serialize {
    /// For people, but for the check.
    fn print(&self, out: &mut dyn Write) -> Result<()>;

    fn check(&self) -> &Check;
}

/// Prints an answer; a wrong result is an error.
pub fn show(answer: &impl Answer, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    let check = answer.check();
    if json {
        writeln!(out, "{}", to_json(answer))?;
    } else {
        answer.print(&mut out)?;
        writeln!(out, "  {}{}", if check.checked { "" } else { "NOT " }, check.checked_is)?;
    }
    match &check.mismatch {
        Some(mismatch) => Err(Error::Wrong(mismatch.clone())),
        None => Ok(()),
    }
}
