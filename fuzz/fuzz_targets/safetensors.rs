//! A file of any bytes is surveyed and run, or refused: what comes out of a run is a file of one tensor.
//!
//! Run it with `-malloc_limit_mb=64`: no file of a few kilobytes may make the command allocate much.
#![no_main]

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

fuzz_target!(|bytes: &[u8]| {
    for y in siskin_cli::fuzz::run(bytes).into_iter().flatten() {
        assert_eq!(SafeTensors::deserialize(&y).unwrap().names(), ["y"]);
    }
    if let Ok(survey) = siskin_cli::fuzz::survey(bytes) {
        assert!(serde_json::from_str::<serde_json::Value>(&survey).unwrap().is_object());
    }
});
