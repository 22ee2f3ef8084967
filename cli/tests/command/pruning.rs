//! `siskin bert prune` and `siskin bert accuracy`, with a small generated model and a tokenizer of a few words.

use crate::common::{refused, siskin, text};
use serde_json::{Value, json};
use siskin_bert::{Config, Family, Model};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const WORDS: [&str; 16] = [
    "a", "bird", "sings", "rain", "falls", "on", "the", "green", "hill", "dog", "runs", "to", "old", "house",
    "and", "waits",
];

/// A model in `model`, 300 texts in `texts.txt`, 50 others in `others.txt`.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut config = Config::new(Family::Bert, 2, 32, 4);
    (config.vocab_size, config.max_positions, config.intermediate_size) = (20, 24, 64);
    Model::generated(config, 5).unwrap().save(dir.path().join("model")).unwrap();

    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let vocabulary: serde_json::Map<_, _> =
        special.iter().chain(&WORDS).enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    let piece = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]")],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] }
            }
        },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary }
    });
    fs::write(dir.path().join("model/tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut state = 1u32;
    for (name, count) in [("texts.txt", 300), ("others.txt", 50)] {
        let mut texts = String::new();
        for line in 0..count {
            for _ in 0..3 + line % 12 {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                write!(texts, "{} ", WORDS[(state >> 28) as usize]).unwrap();
            }
            texts.push('\n');
        }
        fs::write(dir.path().join(name), texts).unwrap();
    }
    dir
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_string()
}

fn answered(args: &[&str]) -> Value {
    let output = siskin(args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_pruned_checkpoint_is_written_and_is_nearer_than_by_magnitude() {
    let dir = folder();
    let [model, texts, others, ours, plain] =
        ["model", "texts.txt", "others.txt", "ours", "plain"].map(|name| at(dir.path(), name));
    let prune = ["bert", "prune", "--model", &model, "--sparsity", "0.5", "--block", "4x4", "--json"];
    let report = answered(&[&prune[..], &["--calibrate", &texts, "--out", &ours]].concat());
    assert_eq!(
        (&report["texts"], &report["sparsity"], &report["block"]),
        (&json!(300), &json!(0.5), &json!("4x4"))
    );
    let layers = report["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[0]["name"]), (12, &json!("encoder.layer.0.attention.self.query")));
    assert!(layers.iter().all(|layer| layer["error"].as_f64().unwrap() > 0.0));
    let report = answered(&[&prune[..], &["--method", "magnitude", "-o", &plain]].concat());
    assert_eq!((&report["texts"], &report["sparsity"]), (&json!(0), &json!(0.5)));

    // Whatever else reads checkpoints finds the same names, and the tokenizer beside them.
    assert_eq!(Model::read(&ours).unwrap().sparsity(), 0.5);
    assert!(Path::new(&ours).join("tokenizer.json").exists());

    let also = format!("{ours},{plain}");
    let accuracy = ["bert", "accuracy", "--model", &model, "--texts", &others, "--also", &also];
    let report = answered(&[&accuracy[..], &["--json"]].concat());
    assert_eq!((&report["texts"], &report["pairs"]), (&json!(50), &json!(50 * 49 / 2)));
    let rows = report["rows"].as_array().unwrap();
    let row = |weights: &str, precision: &str| {
        let found = rows.iter().find(|r| r["weights"] == weights && r["precision"] == precision);
        let row = found.unwrap_or_else(|| panic!("no {weights} {precision} in {rows:?}"));
        ["cosine_mean", "cosine_median", "cosine_least", "spearman", "sparsity"]
            .map(|f| row[f].as_f64().unwrap())
    };
    assert_eq!(rows.len(), 2 + 3 + 3);
    for precision in ["INT8", "INT8 static"] {
        let [mean, median, least, spearman, sparsity] = row("dense", precision);
        assert!(
            least > 0.9 && mean > 0.98 && median > 0.98 && spearman > 0.98 && sparsity < 0.01,
            "{rows:?}"
        );
    }
    for precision in ["f32", "INT8", "INT8 static"] {
        let [[ours, .., sparsity], [plain, ..]] = [row(&ours, precision), row(&plain, precision)];
        assert!(1.0 - ours < 0.6 * (1.0 - plain) && sparsity == 0.5, "{precision}: {ours} {plain}");
    }
    let output = siskin(&[&accuracy[..6], &["--ranges", "absolute,mse"]].concat());
    let table = text(&output.stdout);
    assert!(table.contains("Spearman") && table.contains("INT8 static, mse"), "{table}");

    // The same without a checkpoint between.
    let pruned = ["--sparsity", "0.5", "--block", "4x4", "--calibrate", &texts, "--json"];
    let again = answered(&[&accuracy[..6], &pruned].concat());
    let again = again["rows"].as_array().unwrap();
    assert_eq!((again.len(), &again[2]["weights"]), (2 + 6, &json!("surgeon 50 % 4x4")));
    assert_eq!(
        (&again[2]["cosine_mean"], &again[5]["cosine_mean"]),
        (&rows[2]["cosine_mean"], &rows[5]["cosine_mean"])
    );
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let dir = folder();
    let [model, texts, out] = ["model", "texts.txt", "out"].map(|name| at(dir.path(), name));
    let prune = |more: &[&str]| siskin(&[&["bert", "prune", "--model", &model], more].concat());
    refused(&prune(&["--out", &out]), "--calibrate: expected a file of sample texts");
    refused(
        &prune(&["--out", &model, "--calibrate", &texts]),
        "--out: expected a folder other than the model's",
    );
    refused(&prune(&["--out", &out, "--sparsity", "1"]), "--sparsity: expected 0 to below 1, got 1");
    refused(&prune(&["--out", &out, "--calibrate", &texts, "--samples", "0"]), "--samples");
    refused(&prune(&["--out", &out, "--calibrate", &out]), &out);
    refused(&prune(&["--out", &out, "--calibrate", &texts, "--damping=-1"]), "damping: expected 0 or more");
    refused(&prune(&["--out", &out, "--calibrate", &texts, "--most", "0.5"]), "most: expected at least");
    fs::write(&texts, "\n \n").unwrap();
    refused(&prune(&["--out", &out, "--calibrate", &texts]), "expected a text on each line, got none");
    assert!(!Path::new(&out).exists());
    refused(&siskin(&["bert", "accuracy", "--model", &out]), "config.json");
    let twice = ["bert", "accuracy", "--model", &model, "--texts", "-", "--calibrate", "-"];
    refused(&siskin(&twice), "standard input");
}
