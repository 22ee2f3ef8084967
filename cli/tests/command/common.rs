//! What tests of the command share.
#![allow(dead_code, reason = "each test uses its own part")]

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub fn siskin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siskin")).args(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Ends with status 2 and says what is at fault, without panicking.
#[track_caller]
pub fn refused(output: &Output, names: &str) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(names), "{names:?} is not in {message:?}");
    assert!(!message.contains("panicked"), "{message}");
}

/// What `bench --serve` answers to lines.
pub fn serve<L: std::fmt::Display>(lines: impl IntoIterator<Item = L>) -> Vec<Value> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_siskin"))
        .args(["bench", "--serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        writeln!(stdin, "{line}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Answers of `bench --serve` to the good cases, all of which are checked and say each field of their case; the bad ones, asked
/// before them, are refused.
pub fn served(bad: &[&str], good: &[&str]) -> Vec<Value> {
    let mut answers = serve(bad.iter().chain(good));
    assert_eq!(answers.len(), bad.len() + good.len());
    for (case, answer) in bad.iter().zip(&answers) {
        assert!(answer["error"].is_string(), "{case}: {answer}");
    }
    answers.drain(..bad.len());
    for (case, answer) in good.iter().zip(&answers) {
        assert_eq!(answer["checked"], true, "{case}: {answer}");
        let case: Value = serde_json::from_str(case).unwrap();
        for (field, value) in case.as_object().unwrap() {
            assert_eq!(&answer[field], value, "{field}");
        }
    }
    answers
}

/// An SVG's elements are opened and closed in order; what it says is between them.
#[track_caller]
pub fn check_xml(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("{tag:?} has no end"));
        assert!(!text.contains('>'), "{text:?}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag:?}");
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

/// An empty folder of a test's own.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Name, type, shape and bytes.
pub type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

pub fn save(path: &Path, tensors: &[Tensor], params: Option<&str>) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let metadata = params.map(|p| HashMap::from([("params".to_string(), p.to_string())]));
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}
