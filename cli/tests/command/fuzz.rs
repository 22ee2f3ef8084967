//! What the fuzz targets call answers in time.

use siskin_cli::fuzz::{run, serve};

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
