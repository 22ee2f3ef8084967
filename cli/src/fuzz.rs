//! What the fuzz targets call, with limits that keep a call short.

use crate::case::{Case, Format};
use crate::{run, serve, survey};
use std::path::Path;

/// Answers a line of `bench --serve`. A case that would run is made small.
pub fn serve(line: &[u8]) -> String {
    serve::reply(line, |case| {
        let small = |size: usize| size.min(100);
        let block = match case.block {
            Format::Sparse(block) if block.area() > 1024 => Format::default(),
            block => block,
        };
        let sizes = (small(case.m), small(case.n), small(case.k));
        match case.check() {
            Ok(()) => Case {
                m: sizes.0,
                n: sizes.1,
                k: sizes.2,
                block,
                min_ms: 0,
                threads: case.threads.min(2),
                ..case
            },
            Err(_) => case,
        }
    })
}

/// `run linear` on the bytes of a file: those of the answer, or an error's text.
pub fn run_linear(bytes: &[u8]) -> Result<Vec<u8>, String> {
    run::compute(Path::new("input"), bytes, None, 1 << 16).map_err(|e| e.to_string())
}

/// `survey` of the bytes of a file: its JSON, or an error's text.
pub fn survey(bytes: &[u8]) -> Result<String, String> {
    survey::quick(Path::new("input"), bytes).map_err(|e| e.to_string())
}
