//! What the fuzz targets call, with limits that keep a call short.

use crate::case::{AnyCase, Case, Format};
use crate::{attention, ecoformer, hamming, run, serve, survey};
use std::path::Path;

/// Answers a line of `bench --serve`. A case that would run is made small.
pub fn serve(line: &[u8]) -> String {
    serve::reply(line, |case| match case {
        AnyCase::Linear(case) if case.check().is_ok() => AnyCase::Linear(small_linear(case)),
        AnyCase::Attention(case) if case.check().is_ok() => AnyCase::Attention(small_attention(case)),
        AnyCase::Hamming(case) if case.check().is_ok() => AnyCase::Hamming(small_hamming(case)),
        AnyCase::Ecoformer(case) if case.check().is_ok() => AnyCase::Ecoformer(small_ecoformer(case)),
        refused => refused,
    })
}

fn small_linear(case: Case) -> Case {
    let small = |size: usize| size.min(100);
    let block = match case.block {
        Format::Sparse(block) if block.area() > 1024 => Format::default(),
        block => block,
    };
    let sizes = (small(case.m), small(case.n), small(case.k));
    Case { m: sizes.0, n: sizes.1, k: sizes.2, block, min_ms: 0, threads: case.threads.min(2), ..case }
}

fn small_attention(case: attention::Case) -> attention::Case {
    let small = |size: usize| size.min(70);
    // Lists are cut off, and sequences with them.
    let short = |list: &[i32]| list.iter().take(8).map(|&n| n.min(100)).collect();
    attention::Case {
        seq: case.seq.map(small).or((!case.is_packed()).then_some(70)),
        kv_len: case.kv_len.map(small),
        heads: case.heads.min(4),
        kv_heads: case.kv_heads.map(|n| n.min(4)),
        batch: case.batch.map(|n| n.min(3)),
        cu_seqlens: short(&case.cu_seqlens),
        cu_seqlens_k: short(&case.cu_seqlens_k),
        min_ms: 0,
        threads: case.threads.min(2),
        ..case
    }
}

fn small_hamming(case: hamming::Case) -> hamming::Case {
    let small = |size: usize| size.min(200);
    hamming::Case {
        m: case.m.map(small),
        n: small(case.n),
        k: case.k.map(small),
        min_ms: 0,
        threads: case.threads.min(2),
        ..case
    }
}

fn small_ecoformer(case: ecoformer::Case) -> ecoformer::Case {
    ecoformer::Case {
        n: case.n.min(200),
        batch: case.batch.min(3),
        heads: case.heads.min(4),
        anchors: case.anchors.min(50),
        min_ms: 0,
        threads: case.threads.min(2),
        ..case
    }
}

/// `run linear` on the bytes of a file: those of the answer, or an error's text.
pub fn run_linear(bytes: &[u8]) -> Result<Vec<u8>, String> {
    run::compute(Path::new("input"), bytes, None, 1 << 16).map_err(|e| e.to_string())
}

/// `run attention` on the bytes of a file: those of the answer, or an error's text.
pub fn run_attention(bytes: &[u8]) -> Result<Vec<u8>, String> {
    attention::compute(Path::new("input"), bytes, None, 1 << 18).map_err(|e| e.to_string())
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
        assert!(run_attention(b"").is_err());
    }
}
