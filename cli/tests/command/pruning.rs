//! `siskin bert prune` and `siskin bert accuracy`, with a small generated model and a tokenizer of a few words.

use crate::common::{check_xml, refused, siskin, text};
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

    let also = format!("{ours},by magnitude={plain}");
    let accuracy = ["bert", "accuracy", "--model", &model, "--texts", &others, "--also", &also];
    let report = answered(&[&accuracy[..], &["--json"]].concat());
    assert_eq!(report["domains"], json!([{ "name": "others", "texts": 50, "pairs": 50 * 49 / 2 }]));
    assert_eq!(report["graded"], json!({ "name": "the command", "pairs": 63 }));
    let rows = report["rows"].as_array().unwrap();
    let row = |weights: &str, precision: &str| {
        let found = rows.iter().find(|r| r["weights"] == weights && r["precision"] == precision);
        let row = found.unwrap_or_else(|| panic!("no {weights} {precision} in {rows:?}"));
        ["cosine_mean", "cosine_median", "cosine_least", "spearman", "top_1", "top_10", "sparsity"]
            .map(|f| row[f].as_f64().unwrap())
    };
    assert_eq!(rows.len(), 3 + 3 + 3);
    // The whole model in f32 agrees with itself.
    for is in row("dense", "f32").into_iter().take(6) {
        assert!((is - 1.0).abs() < 1e-6, "{rows:?}");
    }
    for precision in ["INT8", "INT8 static"] {
        let [mean, median, least, spearman, top_1, top_10, sparsity] = row("dense", precision);
        assert!(
            least > 0.9 && mean > 0.98 && median > 0.98 && spearman > 0.98 && sparsity < 0.01,
            "{rows:?}"
        );
        assert!(top_1 > 0.5 && top_10 > 0.8 && top_10 < 1.0, "{rows:?}");
    }
    for precision in ["f32", "INT8", "INT8 static"] {
        let [[ours, .., near, sparsity], [plain, .., far, _]] =
            [row(&ours, precision), row("by magnitude", precision)];
        assert!(1.0 - ours < 0.6 * (1.0 - plain) && sparsity == 0.5, "{precision}: {ours} {plain}");
        assert!(near > far && far > 10.0 / 49.0, "{precision}: {near} {far}");
    }
    assert!(
        rows.iter().all(|r| r["block"] == if r["weights"] == "dense" { Value::Null } else { json!("4x4") })
    );
    let output = siskin(&[&accuracy[..], &["--ranges", "absolute,mse"]].concat());
    let table = text(&output.stdout);
    for part in ["Spearman", "INT8 static, mse", "graded", "top 10", "others: 50 texts", "by magnitude"] {
        assert!(table.contains(part), "no {part} in {table}");
    }

    // The same without a checkpoint between.
    let pruned = ["--sparsity", "0.5", "--block", "4x4", "--calibrate", &texts, "--json"];
    let again = answered(&[&accuracy[..6], &pruned].concat());
    let again = again["rows"].as_array().unwrap();
    assert_eq!((again.len(), &again[3]["weights"]), (3 + 6, &json!("surgeon")));
    assert_eq!(
        (&again[3]["cosine_mean"], &again[6]["cosine_mean"]),
        (&rows[3]["cosine_mean"], &rows[6]["cosine_mean"])
    );
}

#[test]
fn each_file_of_texts_is_measured_alone_and_drawn() {
    let dir = folder();
    let [model, texts, others, picture] =
        ["model", "texts.txt", "others.txt", "accuracy.svg"].map(|name| at(dir.path(), name));
    let magnitude = ["--method", "magnitude", "--sparsity", "0.5,0.8", "--block", "4x4,1x1", "--json"];
    let accuracy = [&["bert", "accuracy", "--model", &model, "--count", "60"], &magnitude[..]].concat();
    let files = format!("{texts},{others}");
    let report = answered(&[&accuracy[..], &["--texts", &files, "--plot", &picture]].concat());
    assert_eq!(
        report["domains"],
        json!([{ "name": "texts", "texts": 60, "pairs": 60 * 59 / 2 }, { "name": "others", "texts": 50, "pairs": 50 * 49 / 2 }])
    );
    let rows = |report: &Value, domain: &str| -> Vec<Value> {
        let rows = report["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["domain"] == domain).cloned().collect()
    };
    assert_eq!(rows(&report, "texts").len(), 3 + 4 * 3);
    let copy = at(dir.path(), "model/others.txt");
    fs::copy(&others, &copy).unwrap();
    let twice = answered(&[&accuracy[..], &["--texts", &others, "--texts", &copy]].concat());
    assert_eq!((&twice["domains"][0]["name"], &twice["domains"][1]["name"]), (&json!(others), &json!(copy)));
    // A domain's rows are the same whatever else is measured; what is said of graded pairs is the same in all domains.
    let alone = answered(&[&accuracy[..], &["--texts", &others]].concat());
    assert_eq!(rows(&report, "others"), rows(&alone, "others"));
    for (a, b) in rows(&report, "texts").iter().zip(rows(&report, "others")) {
        assert_eq!(a["spearman_graded"], b["spearman_graded"]);
        assert_eq!(a["spearman_pairs"], b["spearman_pairs"]);
        let whole = a["weights"] == "dense" && a["precision"] == "f32";
        assert_eq!(a["spearman_pairs"].as_f64().unwrap() > 1.0 - 1e-9, whole, "{a}");
        assert!(a["cosine_mean"] != b["cosine_mean"] && a["spearman_graded"].is_f64(), "{a} {b}");
    }

    let svg = fs::read_to_string(picture).unwrap();
    check_xml(&svg);
    for part in
        ["magnitude 4x4", "magnitude 1x1", "dense", ", texts", ", others", "grades of 63 pairs", "INT8"]
    {
        assert!(svg.contains(part), "{part} is not drawn");
    }
    // In each of three charts two lines of two points, and in the first a sample of each beside its name.
    let thick =
        svg.lines().filter(|l| l.starts_with("<polyline") && l.contains("stroke-width=\"2\"")).count();
    let crosses = svg.lines().filter(|l| l.starts_with("<line") && l.contains("stroke-width=\"2\"")).count();
    assert_eq!((thick, crosses), (3 * 2 + 2, 2 * (3 + 1)));
}

#[test]
fn similarities_of_graded_pairs_have_their_order() {
    let dir = folder();
    let [model, pairs] = ["model", "pairs.tsv"].map(|name| at(dir.path(), name));
    let graded = |file: &str| {
        fs::write(&pairs, file).unwrap();
        let accuracy = ["bert", "accuracy", "--model", &model, "--pairs", &pairs, "--json"];
        let report = answered(&accuracy);
        assert_eq!(report["graded"], json!({ "name": pairs, "pairs": 4 }));
        report["rows"][0]["spearman_graded"].as_f64().unwrap()
    };
    // Texts that are the same are as near as can be; lines without a text count as none.
    let file = |same: &str, different: &str| {
        format!(
            "{same}\tthe old bird sings\tthe old bird sings\n\n{different}\ta hill\tdog runs to the house and waits\r\n\
             {same}\train\train\n{different}\tgreen\tthe dog falls on a bird\n"
        )
    };
    // Two pairs tie in the grades, and two in the similarities as far as they are rounded alike.
    let right = graded(&file("2", "0"));
    assert!((0.85..=0.95).contains(&right), "{right}");
    assert_eq!(graded(&file("-1", "0.5")), -right);
}

#[test]
fn a_generated_model_is_written_without_a_tokenizer() {
    let dir = TempDir::new().unwrap();
    let out = at(dir.path(), "out");
    let prune = ["bert", "prune", "--model", "bert-mini", "--sparsity", "0.75", "--out", &out, "--json"];
    refused(&siskin(&prune), "--method: expected magnitude, for generated weights, got surgeon");
    assert!(!Path::new(&out).exists());
    let report = answered(&[&prune[..], &["--method", "magnitude"]].concat());
    assert_eq!((&report["sparsity"], &report["texts"]), (&json!(0.75), &json!(0)));
    let written = Model::read(&out).unwrap();
    assert_eq!((written.config(), written.sparsity()), (&Config::preset("bert-mini").unwrap(), 0.75));
    assert!(!Path::new(&out).join("tokenizer.json").exists());
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
    refused(
        &siskin(&["bert", "prune", "--model", "none", "--out", &out]),
        "--model: expected a folder, or minilm",
    );
}

#[test]
fn texts_and_pairs_that_cannot_be_compared_are_refused() {
    let dir = folder();
    let [model, texts, pairs, picture] =
        ["model", "others.txt", "pairs.tsv", "a.svg"].map(|name| at(dir.path(), name));
    let accuracy = |more: &[&str]| siskin(&[&["bert", "accuracy", "--model", &model], more].concat());
    refused(&accuracy(&["--texts", "-", "--calibrate", "-"]), "standard input");
    refused(&accuracy(&["--texts", "-", "--texts", "-"]), "standard input");
    refused(&accuracy(&["--pairs", "-", "--texts", "-"]), "standard input");
    refused(&accuracy(&["--texts", &texts, "--count", "1"]), "--count: expected 2 or more, got 1");
    refused(&accuracy(&["--texts", &texts, "--texts", &texts]), "--texts: expected each file once");
    refused(&accuracy(&["--texts", &pairs]), &pairs);
    refused(&accuracy(&["--also", &format!("name={pairs}")]), &pairs);
    refused(
        &accuracy(&["--plot", &picture]),
        "--plot: expected pruned models, by --sparsity or --also, got none",
    );
    let drawn = ["--sparsity", "0.5", "--method", "magnitude", "--plot"];
    refused(&accuracy(&[&drawn[..], &[&texts, "--texts", &texts]].concat()), "other than the input");
    refused(&accuracy(&[&drawn[..], &[&at(dir.path(), "no/a.svg")]].concat()), "no/a.svg");

    let mut small = Config::new(Family::Bert, 1, 16, 2);
    (small.vocab_size, small.max_positions, small.intermediate_size) = (20, 24, 32);
    let other = at(dir.path(), "small");
    Model::generated(small, 5).unwrap().save(&other).unwrap();
    refused(&accuracy(&["--also", &other]), "expected vectors of 32 features, got 16");

    let with = |file: &[u8], names: &str| {
        fs::write(&pairs, file).unwrap();
        refused(&accuracy(&["--pairs", &pairs]), &format!("{pairs}: {names}"));
    };
    with(
        b"1\ta\tb\n\n2\tb\n",
        "line 3: expected three fields with tabs between, a number and two texts, got 2",
    );
    with(b"1\ta\tb\tc\n", "line 1: expected three fields with tabs between, a number and two texts, got 4");
    with(
        b"1\ta\tb\nhigh\ta\tb\n",
        "line 2: expected a number that says how related the texts are, got \"high\"",
    );
    with(b"NaN\ta\tb\n", "line 1: expected a number");
    with(b"1\ta\t \n", "line 1: expected two texts, got an empty one");
    with(b"1\ta\tb\n1\tb\ta\n", "expected pairs of two grades or more, got 1 alone");
    with(b"\n \n", "expected a pair of texts on each line, got none");
    with(b"1\t\xff\tb\n", "expected UTF-8");
    fs::write(&texts, "a bird\n").unwrap();
    refused(&accuracy(&["--texts", &texts]), "expected two texts or more, got 1");
}
