//! Binary codes by the command: cases measured and refused.

use crate::common::*;
use serde_json::Value;

#[test]
fn serve_answers_lines_of_codes() {
    let good = [
        r#"{"op":"hamming","m":30,"n":70,"bits":64,"threads":1,"min_ms":0,"seed":3}"#,
        r#"{"op":"hamming","n":65,"bits":256,"isa":"scalar","min_ms":0}"#,
        r#"{"op":"hamming","m":2,"n":1000,"bits":17,"k":9,"threads":2,"min_ms":0}"#,
        r#"{"op":"hamming","n":5,"bits":1,"k":8,"min_ms":0}"#,
    ];
    let bad = [
        r#"{"op":"hamming","n":0}"#,
        r#"{"op":"hamming","bits":257}"#,
        r#"{"op":"hamming","k":0}"#,
        r#"{"op":"hamming","heads":2}"#,
        r#"{"op":"hamming","isa":"mmx"}"#,
        r#"{"bits":64}"#,
    ];
    for answer in &served(&bad, &good) {
        for field in ["us_min", "us_median", "gpairs", "gbits", "peak_gbits", "pct_peak", "pct_peak_alone"] {
            assert!(answer[field].as_f64().unwrap() > 0.0, "{field}: {answer}");
        }
        for field in ["write_gbps", "fill_gbps"] {
            assert_eq!(answer[field].is_f64(), answer["k"].is_null(), "{field}: {answer}");
        }
    }
}

#[test]
fn flags_are_fields() {
    let with =
        |more: &[&str]| siskin(&[&["bench", "--op", "hamming", "-n", "50", "--min-ms", "0"], more].concat());
    let plain = with(&["--bits", "30"]);
    assert!(
        text(&plain.stdout).contains("50 x 50 codes of 30 bits, all distances"),
        "{}",
        text(&plain.stderr)
    );
    assert!(text(&plain.stdout).contains("% of the peak"));
    let nearest = with(&["-m", "3", "-k", "2", "--json"]);
    let nearest: Value = serde_json::from_slice(&nearest.stdout).unwrap();
    assert_eq!((&nearest["m"], &nearest["k"]), (&3.into(), &2.into()));
    refused(&with(&["--bits", "0"]), "bits:");
    refused(&with(&["--heads", "2"]), "--heads");
    refused(&siskin(&["bench", "--bits", "64"]), "--bits");
    let help = siskin(&["bench", "--op=hamming", "--help"]);
    assert!(text(&help.stdout).contains("siskin bench --op hamming"));
}
