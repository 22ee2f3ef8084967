//! What the fuzz targets call, with limits that keep a call short.

use crate::base::family::AnyCase;
use crate::commands::{run::runs, serve, survey};
use std::path::Path;

/// Answers a line of `bench --serve`. A case that would run is made small.
pub fn serve(line: &[u8]) -> String {
    serve::reply(line, AnyCase::small)
}

/// Every `siskin run` that is fuzzed on the bytes of a file: those of the answer, or an error's text.
pub fn run(bytes: &[u8]) -> Vec<Result<Vec<u8>, String>> {
    runs().filter_map(|run| (run.fuzz)(bytes)).map(|done| done.map_err(|e| e.to_string())).collect()
}

/// `survey` of the bytes of a file: its JSON, or an error's text.
pub fn survey(bytes: &[u8]) -> Result<String, String> {
    survey::quick(Path::new("input"), bytes).map_err(|e| e.to_string())
}
