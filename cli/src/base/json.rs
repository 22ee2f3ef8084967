//! JSON in and out.

use super::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON on one line. Our structs have nothing in them that could fail.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}

/// A struct from a JSON object, and from nothing else: serde would take an array of its fields too.
pub fn from_json<T: DeserializeOwned>(argument: &str, text: &[u8]) -> Result<T> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(Error::input(argument, "a JSON object", String::from_utf8_lossy(text.trim_ascii())));
    }
    serde_json::from_slice(text).map_err(|e| Error::input(argument, "a JSON object with known fields", e))
}
