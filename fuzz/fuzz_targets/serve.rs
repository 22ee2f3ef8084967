//! Any line to `siskin bench --serve` has one line of JSON for an answer: an object with what was measured, which
//! agrees with the scalar tier, or with an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|line: &[u8]| {
    let answer = siskin_cli::fuzz::serve(line);
    assert!(!answer.contains('\n'), "more than a line");
    let Ok(Value::Object(answer)) = serde_json::from_str(&answer) else { panic!("no JSON object: {answer}") };
    if answer.contains_key("error") {
        assert_eq!(answer.len(), 1);
    } else {
        assert_eq!(answer["checked"], true, "{answer:?}");
    }
});
