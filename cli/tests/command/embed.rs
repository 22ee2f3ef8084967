//! Texts to vectors, and encoders measured: by a small generated model in a folder.

use crate::common::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use siskin_bert::{Config, Family, Model};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const FEATURES: usize = 16;
const WORDS: [&str; 9] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "sings", "##ing", "green"];

/// A folder with a model of one layer and a few words, of texts of at most 12 tokens.
fn model(name: &str) -> PathBuf {
    let folder = folder(name);
    let mut config = Config::new(Family::Bert, 1, FEATURES, 2);
    (config.vocab_size, config.max_positions) = (WORDS.len(), 12);
    Model::generated(config, 7).unwrap().save(folder.join("model")).unwrap();
    let vocabulary: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(i, word)| (word.to_string(), json!(i))).collect();
    let special = |id: usize| {
        json!({ "id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let piece = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let sequence = |id: &str, kind: usize| json!({ "Sequence": { "id": id, "type_id": kind } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), sequence("A", 0), piece("[SEP]")],
            "pair": [sequence("A", 0), sequence("B", 1)],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] }
            }
        },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary }
    });
    fs::write(folder.join("model/tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn embed(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siskin"));
    command.args(["embed", "--model", "model", "--threads", "1"]).args(args).current_dir(folder);
    command
}

#[track_caller]
fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_string()
}

/// The vectors in lines of JSON, whose numbers are in order.
fn vectors(lines: &str) -> Vec<Vec<f32>> {
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let vector = |(i, line): (usize, Value)| {
        assert_eq!(line["index"], i);
        let numbers = line["embedding"].as_array().unwrap().iter();
        numbers.map(|v| v.as_f64().unwrap() as f32).collect::<Vec<f32>>()
    };
    lines.enumerate().map(vector).collect()
}

/// Some texts, each with its number in binary as words.
fn texts(n: usize) -> String {
    (0..n)
        .map(|i| {
            (0..7).map(|bit| if i >> bit & 1 == 1 { "bird " } else { "green " }).collect::<String>() + "\n"
        })
        .collect()
}

#[test]
fn texts_become_vectors_in_order() {
    let folder = model("embed_order");
    let out = succeeded(embed(&folder, &["A bird sings", "", "green bird"]));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let contents: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(contents, ["A bird sings", "", "green bird"]);
    let all = vectors(&out);
    for vector in &all {
        let length: f32 = vector.iter().map(|v| v * v).sum();
        assert!(vector.len() == FEATURES && (length - 1.0).abs() < 1e-5, "{vector:?}");
    }
    assert!(all[0] != all[1] && all[1] != all[2]);

    // Lines of a file that ends without a line feed, of another system, and in batches of another size.
    fs::write(folder.join("texts"), "A bird sings\r\n\ngreen bird").unwrap();
    for size in ["1", "4096"] {
        let same = succeeded(embed(&folder, &["--file", "texts", "--batch-tokens", size]));
        assert_eq!(same, out, "batches of {size} tokens");
    }
    let mut child =
        command(&folder, &["--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"A bird sings\n\ngreen bird\n").unwrap();
    assert_eq!(succeeded(child.wait_with_output().unwrap()), out);
}

#[test]
fn every_format_has_the_same_vectors() {
    let folder = model("embed_formats");
    fs::write(folder.join("texts"), texts(50)).unwrap();
    let lines = vectors(&succeeded(embed(&folder, &["--file", "texts"])));
    assert_eq!(lines.len(), 50);
    for name in ["v.npy", "v.safetensors", "v.jsonl", "v"] {
        succeeded(embed(&folder, &["--file", "texts", "-o", name, "--batch-tokens", "40"]));
    }
    let expected: Vec<u8> = lines.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    for name in ["v.jsonl", "v"] {
        assert_eq!(vectors(&fs::read_to_string(folder.join(name)).unwrap()), lines);
    }
    let bytes = fs::read(folder.join("v.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    assert_eq!((tensor.shape(), tensor.data()), (&[50, FEATURES][..], &expected[..]));
    let bytes = fs::read(folder.join("v.npy")).unwrap();
    assert_eq!(bytes[..10], *b"\x93NUMPY\x01\x00\x76\x00");
    let header = text(&bytes[10..128]);
    assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (50, 16), }");
    assert!(header.ends_with('\n') && bytes[128..] == expected);
    // A header has to be written again: that goes only into a file.
    refused(&embed(&folder, &["a", "--format", "npy"]), "--out: expected a file");
}

/// What was cut off anywhere, and what another file is.
#[test]
fn a_file_is_gone_on_with() {
    let folder = model("embed_resume");
    fs::write(folder.join("all"), texts(60)).unwrap();
    fs::write(folder.join("some"), texts(23)).unwrap();
    for name in ["v.npy", "v.safetensors", "v.jsonl"] {
        let out = folder.join(name);
        succeeded(embed(&folder, &["--file", "all", "-o", name]));
        let whole = fs::read(&out).unwrap();
        fs::remove_file(&out).unwrap();
        succeeded(embed(&folder, &["--file", "some", "-o", name]));
        let part = fs::read(&out).unwrap();
        refused(&embed(&folder, &["--file", "all", "-o", name]), "a file that is not there yet, or --resume");
        assert_eq!(fs::read(&out).unwrap(), part);
        // A batch that was written in part, as by a loss of power.
        for extra in [0, 3, 70] {
            fs::write(&out, [&part[..], &whole[part.len()..part.len() + extra]].concat()).unwrap();
            succeeded(embed(&folder, &["--file", "all", "-o", name, "--resume", "--batch-tokens", "50"]));
            assert!(fs::read(&out).unwrap() == whole, "{name}, {extra} bytes more");
        }
        // Nothing is left to do, or less than is there.
        succeeded(embed(&folder, &["--file", "all", "-o", name, "--resume"]));
        refused(
            &embed(&folder, &["--file", "some", "-o", name, "--resume"]),
            "--resume: expected the 60 texts",
        );
        assert!(fs::read(&out).unwrap() == whole, "{name}");
        for other in ["another file\n", "{\"index\":1,\"embedding\":[1.0]}\n"] {
            fs::write(&out, other).unwrap();
            refused(&embed(&folder, &["--file", "all", "-o", name, "--resume"]), "to go on with");
            assert_eq!(fs::read_to_string(&out).unwrap(), other);
        }
    }
}

/// A signal in the middle leaves a file that can be gone on with.
#[cfg(unix)]
#[test]
fn an_interruption_keeps_what_is_written() {
    use rustix::process::{Pid, Signal, kill_process};
    let folder = model("embed_interrupted");
    fs::write(folder.join("all"), texts(100)).unwrap();
    succeeded(embed(&folder, &["--file", "all", "-o", "expected.safetensors"]));
    let out = folder.join("v.safetensors");
    let mut child = command(&folder, &["--file", "-", "-o", "v.safetensors", "--batch-tokens", "1"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    // It waits for more than these.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(texts(40).as_bytes()).unwrap();
    stdin.flush().unwrap();
    while fs::read(&out).map_or(0, |bytes| bytes.len()) < 128 + 10 * FEATURES * 4 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    drop(stdin);
    let bytes = fs::read(&out).unwrap();
    assert!(SafeTensors::deserialize(&bytes).unwrap().tensor("embeddings").unwrap().shape()[0] >= 10);
    succeeded(embed(&folder, &["--file", "all", "-o", "v.safetensors", "--resume"]));
    assert!(fs::read(&out).unwrap() == fs::read(folder.join("expected.safetensors")).unwrap());
}

#[test]
fn the_nearest_texts_are_found() {
    let folder = model("embed_similar");
    fs::write(folder.join("texts"), texts(64)).unwrap();
    let query = texts(38).lines().last().unwrap().to_string();
    let found = |args: &[&str]| {
        succeeded(embed(&folder, &[&["--file", "texts", "--similar", &query], args].concat()))
    };
    let lines = found(&["--top", "3", "--batch-tokens", "60", "--format", "jsonl"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["index"], 37);
    assert_eq!(lines[0]["text"], query);
    let scores: Vec<f64> = lines.iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!((scores[0] - 1.0).abs() < 1e-6 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let all = vectors(&succeeded(embed(&folder, &["--file", "texts"])));
    let second = lines[1]["index"].as_u64().unwrap() as usize;
    let dot: f64 = all[37].iter().zip(&all[second]).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    assert!((dot - scores[1]).abs() < 1e-6, "{dot} is not {}", scores[1]);
    // For people, 10 of them.
    let people = found(&[]);
    assert_eq!(people.lines().count(), 10);
    assert!(people.lines().next().unwrap().contains("1.0000") && people.contains(&query));
}

#[test]
fn precisions_are_near_each_other() {
    let folder = model("embed_precisions");
    fs::write(folder.join("texts"), texts(40)).unwrap();
    let of = |args: &[&str]| vectors(&succeeded(embed(&folder, &[&["--file", "texts"], args].concat())));
    let exact = of(&[]);
    let ways: [&[&str]; 6] = [
        &["--precision", "bf16"],
        &["--precision", "int8"],
        &["--precision", "int8-static"],
        &["--precision", "int8-static", "--calibrate", "texts"],
        &["--precision", "int8-static", "--ranges", "mse"],
        &["--precision", "int8-static", "--ranges", "percentile:99.9"],
    ];
    for way in ways {
        let (mut differ, mut least) = (false, 1.0f32);
        for (a, b) in of(way).iter().zip(&exact) {
            differ |= a != b;
            least = least.min(a.iter().zip(b).map(|(a, b)| a * b).sum());
        }
        assert!(differ && least > 0.97, "{way:?}: {least}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let folder = model("embed_wrong");
    let long = "bird ".repeat(20);
    fs::write(folder.join("texts"), format!("a\nbird\n{long}\nsings\n")).unwrap();
    let output = embed(&folder, &["--file", "texts", "-o", "v.jsonl"]);
    refused(&output, "text 2: expected at most 12 tokens (--truncate cuts what is beyond), got 22");
    // Those before it are there.
    assert_eq!(vectors(&fs::read_to_string(folder.join("v.jsonl")).unwrap()).len(), 2);
    let output = embed(&folder, &["--file", "texts", "-o", "v.jsonl", "--truncate", "--resume"]);
    assert!(text(&output.stderr).contains("1 of 2 texts were cut to 12 tokens"));
    succeeded(output);
    assert_eq!(vectors(&fs::read_to_string(folder.join("v.jsonl")).unwrap()).len(), 4);

    fs::write(folder.join("bytes"), b"a\n\xff\n").unwrap();
    refused(&embed(&folder, &["--file", "bytes"]), "bytes: line 2: expected UTF-8");
    refused(&embed(&folder, &["--file", "none"]), "none");
    refused(
        &embed(&folder, &["--file", "texts", "-o", "texts"]),
        "texts: expected a file other than the input",
    );
    refused(&embed(&folder, &[]), "<TEXTS");
    refused(&embed(&folder, &["a", "--calibrate", "texts"]), "--calibrate: expected --precision int8-static");
    refused(&embed(&folder, &["a", "--ranges", "mse"]), "--ranges: expected --precision int8-static");
    refused(
        &embed(&folder, &["a", "--ranges", "most"]),
        "range: expected absolute, mse or such as percentile:99.99",
    );
    refused(&embed(&folder, &["a", "--batch-tokens", "0"]), "--batch-tokens: expected 1 to");
    refused(&embed(&folder, &["a", "--top", "3"]), "--similar");
    let none = siskin(&["embed", "a", "--model", "none", "--threads", "0"]);
    refused(&none, "threads: expected 1 to 256");
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_siskin"))
        .args(["embed", "a", "--model", "none"])
        .current_dir(&folder)
        .output()
        .unwrap();
    refused(&elsewhere, "none/config.json");
    fs::write(folder.join("empty"), "").unwrap();
    assert_eq!(succeeded(embed(&folder, &["--file", "empty"])), "");
    assert!(File::open(folder.join("empty")).is_ok());
}

#[test]
fn an_encoder_is_measured() {
    let folder = model("bert_bench");
    let of = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siskin"));
        command.args(["bert", "bench", "--model", "model", "--min-ms", "5"]).args(args);
        command.current_dir(&folder).output().unwrap()
    };
    let pruned = [
        "--seq",
        "12",
        "--sparsity",
        "0.5",
        "--block",
        "4x4",
        "--dtype",
        "int8",
        "--static",
        "--batch",
        "3",
        "--json",
    ];
    let (f32, bf16, int8) = (["f32", "--json"], ["bf16", "--json"], ["int8", "--json"]);
    let short = |dtype: [&'static str; 2]| ["--seq", "12", "--dtype", dtype[0], dtype[1]].to_vec();
    for args in [short(f32), short(bf16), short(int8), pruned.to_vec()] {
        let out = succeeded(of(&args));
        let m: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let us = |field: &str| m[field].as_f64().unwrap();
        assert!(0.0 < us("us_min") && us("us_min") <= us("us_p50") && us("us_p50") <= us("us_p99"), "{m}");
        assert!(us("tokens_per_s") > 0.0);
        let tokens = 12.0 * m["batch"].as_f64().unwrap();
        assert!((us("tokens_per_s") * us("us_p50") / 1e6 / tokens - 1.0).abs() < 0.01, "{m}");
        let stages = m["stages"].as_object().unwrap();
        assert_eq!(stages.len(), 8);
        assert!(stages.values().all(|time| time.as_f64().is_some_and(|time| time >= 0.0)));
        let is_pruned = args.contains(&"--sparsity");
        assert_eq!(m["note"].is_string(), is_pruned);
        assert!((m["zeros"].as_f64().unwrap() - if is_pruned { 0.5 } else { 0.0 }).abs() < 0.05, "{m}");
        assert_eq!(m["generated"], false);
    }
    let people = succeeded(of(&["--seq", "12", "--sparsity", "0.5"]));
    for part in ["for speed alone", "tokens/s", "attention", "ffn1", "us median"] {
        assert!(people.contains(part), "{people}");
    }
    let ragged = succeeded(of(&["--lengths", "3,12,1", "--json"]));
    let m: Value = serde_json::from_str(ragged.lines().last().unwrap()).unwrap();
    assert_eq!((m["batch"].as_u64(), m["seq"].as_u64()), (Some(3), Some(12)));
    let us = |field: &str| m[field].as_f64().unwrap();
    assert!((us("tokens_per_s") * us("us_p50") / 1e6 / 16.0 - 1.0).abs() < 0.01, "{m}");
    assert!(us("us_one_by_one") > 0.0);
    assert!(succeeded(of(&["--lengths", "3,12,1"])).contains("one by one"));
    assert_eq!(m["lengths"], serde_json::json!([3, 12, 1]));
    refused(&of(&["--lengths", "3,13"]), "--lengths: expected at most 12");
    refused(&of(&["--lengths", "13,13"]), "--lengths: expected at most 12");
    refused(&of(&["--lengths", "3,0"]), "--lengths: expected 1 to 65536");
    refused(&of(&["--lengths", "3", "--seq", "3"]), "--seq");
    refused(&of(&["--seq", "13"]), "--seq: expected at most 12");
    refused(&of(&["--static"]), "--static: expected --dtype int8");
    refused(&of(&["--sparsity", "1"]), "--sparsity: expected 0 to below 1");
    refused(&of(&["--block", "4"]), "rows x columns");
    refused(&of(&["--attention", "gated"]), "--attention: expected minilm, ");
    let unknown = siskin(&["bert", "bench", "--model", "no-such-model"]);
    refused(&unknown, "--model: expected a folder, or minilm");
}
