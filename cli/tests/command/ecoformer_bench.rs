//! EcoFormer by the command: cases measured and refused.

use crate::common::*;
use serde_json::Value;

#[test]
fn serve_answers_lines_of_ecoformer() {
    let good = [
        r#"{"op":"ecoformer","n":70,"batch":2,"heads":3,"head_dim":24,"bits":16,"anchors":25,"v":"f32","causal":false,"numerator":"released","bandwidth":"sequence","softmax":true,"threads":1,"min_ms":0,"seed":3}"#,
        r#"{"op":"ecoformer","n":65,"v":"bf16","numerator":"consistent","bandwidth":"frozen","isa":"scalar","min_ms":0}"#,
        r#"{"op":"ecoformer","n":600,"heads":2,"bits":130,"v":"int8","causal":true,"numerator":"consistent","softmax":true,"threads":2,"min_ms":0}"#,
        r#"{"op":"ecoformer","n":33,"anchors":1,"bits":1,"head_dim":7,"v":"f16","min_ms":0}"#,
        r#"{"op":"ecoformer","n":1,"anchors":50,"min_ms":0}"#,
    ];
    let bad = [
        r#"{"op":"ecoformer","n":0}"#,
        r#"{"op":"ecoformer","n":18446744073709551615}"#,
        r#"{"op":"ecoformer","bits":257}"#,
        r#"{"op":"ecoformer","anchors":0}"#,
        r#"{"op":"ecoformer","head_dim":300}"#,
        r#"{"op":"ecoformer","causal":true}"#,
        r#"{"op":"ecoformer","v":"i32"}"#,
        r#"{"op":"ecoformer","numerator":"exact"}"#,
        r#"{"op":"ecoformer","softmax":{"gamma":-0.1}}"#,
        r#"{"op":"ecoformer","m":2}"#,
        r#"{"op":"ecoformer","isa":"mmx"}"#,
        r#"{"anchors":25}"#,
    ];
    for answer in &served(&bad, &good) {
        let number = |field: &str| answer[field].as_f64().unwrap_or_else(|| panic!("{field}: {answer}"));
        for part in ["", "hash_", "attend_"] {
            let (min, median) = (number(&format!("{part}us_min")), number(&format!("{part}us_median")));
            assert!(0.0 < min && min <= median, "{part}: {answer}");
        }
        for field in
            ["tokens_per_s", "hash_pct_peak", "hash_pct_bound", "attend_pct_additions", "attend_pct_bytes"]
        {
            assert!(number(field) > 0.0, "{field}: {answer}");
        }
        let bound =
            if answer["attend_bound"] == "bytes" { "attend_pct_bytes" } else { "attend_pct_additions" };
        assert_eq!(answer["attend_pct"], answer[bound]);
        for field in ["softmax_us_min", "softmax_us_median", "softmax_ratio"] {
            assert_eq!(answer[field].is_f64(), answer["softmax"] == true, "{field}: {answer}");
        }
    }
}

#[test]
fn flags_are_fields() {
    let with = |more: &[&str]| {
        siskin(&[&["bench", "--op", "ecoformer", "-n", "50", "--min-ms", "0"], more].concat())
    };
    let plain = with(&["--bits", "30", "--softmax"]);
    let plain = text(&plain.stdout);
    assert!(plain.contains("1 x 50 tokens, 1 heads of 64, 25 anchors, 30 bits"), "{plain}");
    for part in
        ["of the hash", "of attention", "of softmax attention in f32", "<- the bound", "as plain loops"]
    {
        assert!(plain.contains(part), "{part} is not in {plain}");
    }
    let other = with(&[
        "--heads",
        "2",
        "--numerator",
        "consistent",
        "--causal",
        "--bandwidth",
        "frozen",
        "--v",
        "int8",
        "--json",
    ]);
    let other: Value = serde_json::from_slice(&other.stdout).unwrap();
    let given = [&other["numerator"], &other["bandwidth"], &other["v"]];
    assert_eq!(given, ["consistent", "frozen", "int8"]);
    assert_eq!((&other["heads"], &other["causal"]), (&2.into(), &true.into()));
    refused(&with(&["--bits", "0"]), "bits:");
    refused(&with(&["--causal"]), "numerator:");
    refused(&with(&["--sparsity", "0.5"]), "--sparsity");
    let help = siskin(&["bench", "--op=ecoformer", "--help"]);
    assert!(text(&help.stdout).contains("siskin bench --op ecoformer"));
}
