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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_cases_of_attention_are_made_small() {
        for line in [
            r#"{"op":"attention"}"#,
            r#"{"op":"attention","seq":9000,"heads":32,"kv_heads":8,"head_dim":4,"min_ms":60000}"#,
            r#"{"op":"attention","cu_seqlens":[0,5000,9000],"cu_seqlens_k":[0,1,4000],"threads":200}"#,
            r#"{"op":"attention","layout":"fused","seq":8000,"dtype":"int8","batch":2}"#,
        ] {
            assert!(serve(line.as_bytes()).contains("\"checked\":true"), "{line}");
        }
        assert!(run(b"").iter().all(Result::is_err));
    }
}
