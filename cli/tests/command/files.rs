//! Files as people have them: of other kinds, in several parts, with shapes and types of other programs.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use siskin::{bf16, f16};
use std::fs;
use std::path::Path;

#[test]
fn what_is_no_safetensors_file_is_named() {
    let folder = folder("kinds");
    let npz = [b"PK\x03\x04", &[0; 26][..], b"arr_0.npy"].concat();
    let zip = [b"PK\x03\x04", &[0; 26][..], b"archive/data.pkl"].concat();
    let kinds: [(&[u8], &str); 12] = [
        (b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file"),
        (&npz, "an .npz file"),
        (&zip, "torch.save"),
        (b"\x80\x02}q\0.", "torch.save"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "an .npy file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "gzip"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.13", "an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"{\"weight_map\": {}}", "this is JSON"),
        (b"neither this nor that", "expected safetensors"),
    ];
    for (bytes, says) in kinds {
        let path = folder.join("model");
        fs::write(&path, bytes).unwrap();
        refused(&siskin(&["survey", path.to_str().unwrap()]), says);
    }
}

/// A download that was cut off is not taken for another kind of file, whatever the length of its header looks like.
#[test]
fn what_was_cut_off_is_still_safetensors() {
    let path = folder("cut").join("model");
    for length in [0x280u64, 0x380, 0x7b, 0x0812] {
        fs::write(&path, [&length.to_le_bytes()[..], b"{\"w\":{"].concat()).unwrap();
        let output = siskin(&["survey", path.to_str().unwrap()]);
        refused(&output, "expected safetensors");
        assert!(!text(&output.stderr).contains("this "), "{}", text(&output.stderr));
    }
}

const M: usize = 6;
const N: usize = 8;
const K: usize = 12;

/// Small whole numbers, exact in every type.
fn whole(len: usize) -> Vec<i8> {
    (0..len).map(|i| (i * 31 % 23) as i8 - 11).collect()
}

fn reals(len: usize) -> Vec<f32> {
    whole(len).into_iter().map(|v| f32::from(v) / 8.0).collect()
}

fn f64s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

fn bytes_of(values: &[i8]) -> Vec<u8> {
    values.iter().map(|&v| v as u8).collect()
}

/// y of `run linear`: its shape and its bytes.
fn linear(folder: &Path, tensors: &[Tensor], params: &str) -> (Vec<usize>, Vec<u8>) {
    let (input, out) = (folder.join("case.safetensors"), folder.join("y.safetensors"));
    save(&input, tensors, Some(params));
    let output = siskin(&["run", "linear", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let y = file.tensor("y").unwrap();
    (y.shape().to_vec(), y.data().to_vec())
}

/// Scales, zero points and biases of other types and shapes, x of more dimensions: what comes out is what comes out of the plain case.
#[test]
fn a_layer_takes_other_shapes_and_types() {
    let folder = folder("shapes");
    let scales: Vec<f32> = (0..N).map(|n| 0.25 * (1 + n) as f32).collect();
    let zeros: Vec<i32> = (0..N as i32).map(|n| n - 3).collect();
    let bias = reals(N);
    let x = ("x", Dtype::F32, vec![M, K], f32s(&reals(M * K)));
    let w = ("w", Dtype::I8, vec![N, K], bytes_of(&whole(N * K)));
    let plain = [
        x.clone(),
        w.clone(),
        ("w_scale", Dtype::F32, vec![N], f32s(&scales)),
        ("w_zero_point", Dtype::I32, vec![N], i32s(&zeros)),
        ("bias", Dtype::F32, vec![N], f32s(&bias)),
    ];
    let want = linear(&folder, &plain, "{}");
    assert_eq!(want.0, [M, N]);
    let wide = zeros.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect();
    let narrow = zeros.iter().map(|&v| v as i8 as u8).collect();
    let other = [
        ("x", Dtype::F32, vec![2, 3, K], f32s(&reals(M * K))),
        w.clone(),
        ("w_scale", Dtype::F64, vec![N, 1], f64s(&scales)),
        ("w_zero_point", Dtype::I64, vec![N, 1], wide),
        ("bias", Dtype::F16, vec![N, 1], f16s(&bias)),
    ];
    let got = linear(&folder, &other, "{}");
    assert_eq!((got.0, got.1), (vec![2, 3, N], want.1.clone()));
    let narrow = [
        x.clone(),
        w,
        ("w_scale", Dtype::F16, vec![N], f16s(&scales)),
        ("w_zero_point", Dtype::I8, vec![N], narrow),
        ("bias", Dtype::BF16, vec![N], bias.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()),
    ];
    assert_eq!(linear(&folder, &narrow, "{}").1, want.1);

    // Feature 2 has no weight but 0, and the scale 0.
    let (mut weights, mut scales) = (whole(N * K), scales);
    weights[2 * K..3 * K].fill(0);
    let case = |scales: &[f32]| {
        [
            x.clone(),
            ("w", Dtype::I8, vec![N, K], bytes_of(&weights)),
            ("w_scale", Dtype::F32, vec![N], f32s(scales)),
        ]
    };
    let want = linear(&folder, &case(&scales), "{}");
    scales[2] = 0.0;
    assert_eq!(linear(&folder, &case(&scales), "{}"), want);
    scales[3] = 0.0;
    let input = folder.join("case.safetensors");
    save(&input, &case(&scales), None);
    let out = folder.join("z.safetensors");
    let args = ["run", "linear", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()];
    refused(&siskin(&args), "scales");
}

/// A file of a few bytes that speaks of more than there is memory, or time, is refused.
#[test]
fn sizes_that_are_only_said_are_refused() {
    let path = folder("said").join("case.safetensors");
    let out = path.with_file_name("y");
    let case = |w_scale: usize, indptr: &[i32]| {
        [
            ("x", Dtype::U8, vec![1, 1], vec![1]),
            ("x_scale", Dtype::F32, vec![1], f32s(&[1.0])),
            ("indptr", Dtype::I32, vec![indptr.len()], i32s(indptr)),
            ("indices", Dtype::I32, vec![0], vec![]),
            ("values", Dtype::I8, vec![0, 1, 1 << 30], vec![]),
            ("w_scale", Dtype::F32, vec![w_scale], f32s(&vec![0.0; w_scale])),
        ]
    };
    let unordered: Vec<i32> = (0..100_000).map(|i| i % 2).collect();
    for (tensors, shape) in [
        (case(1, &[0, 0]), "[1, 4611686018427387904]"),
        (case(1000, &[0, 0]), "[1, 4398046511104]"),
        (case(1, &unordered), "[99999, 4398046511104]"),
    ] {
        save(&path, &tensors, Some(&format!(r#"{{"y":"i32","shape":{shape}}}"#)));
        let args = ["run", "linear", "--in", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
        refused(&siskin(&args), ":");
    }
}

/// Blocks of a block row in any order are those in the order of columns.
#[test]
fn blocks_come_in_any_order() {
    let folder = folder("order");
    let values = whole(4 * 8);
    let case = |indices: &[i32], order: [usize; 4]| {
        let values: Vec<i8> = order.iter().flat_map(|&block| &values[block * 8..][..8]).copied().collect();
        [
            ("x", Dtype::F32, vec![M, K], f32s(&reals(M * K))),
            ("indptr", Dtype::I32, vec![3], i32s(&[0, 3, 4])),
            ("indices", Dtype::I32, vec![4], i32s(indices)),
            ("values", Dtype::I8, vec![4, 4, 2], bytes_of(&values)),
        ]
    };
    let params = format!(r#"{{"shape":[{N},{K}]}}"#);
    let want = linear(&folder, &case(&[0, 2, 5, 1], [0, 1, 2, 3]), &params);
    assert_eq!(linear(&folder, &case(&[5, 0, 2, 1], [2, 0, 1, 3]), &params), want);
    let input = folder.join("case.safetensors");
    save(&input, &case(&[5, 0, 5, 1], [2, 0, 1, 3]), Some(&params));
    let out = folder.join("z.safetensors");
    refused(
        &siskin(&["run", "linear", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()]),
        "indices",
    );
}

/// The survey of a path, as JSON.
fn survey(path: &Path, flags: &[&str]) -> Value {
    let quick = ["survey", path.to_str().unwrap(), "--json", "--tokens", "2", "--min-ms", "0"];
    let half = if flags.contains(&"--sparsity") { &[][..] } else { &["--sparsity", "0.5"] };
    let output = siskin(&[&quick[..], half, flags].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of the weights that were measured, and of the tensors that were not.
fn names(survey: &Value) -> (Vec<&str>, Vec<&str>) {
    let of = |list: &'static str| {
        survey[list].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
    };
    (of("weights"), of("skipped"))
}

/// Every tensor is measured or listed, whatever it is.
#[test]
fn a_survey_counts_every_tensor() {
    let folder = folder("tensors");
    let path = folder.join("model.safetensors");
    let values = reals(N * K);
    let mut nan = values.clone();
    nan[K + 2] = f32::NAN;
    let mut huge = f64s(&values);
    huge[..8].copy_from_slice(&1e300f64.to_le_bytes());
    // Whole numbers up to 8 in floats of 8 bits: of 4 bits of exponent and 3 of mantissa, and of 5 and 2.
    let small: Vec<f32> = (0..N * K).map(|i| (i % 5) as f32 - 2.0).collect();
    let e4m3 = small.iter().map(|v| match v.abs() as u8 {
        0 => 0,
        1 => 0x38,
        _ => 0x40,
    } | if *v < 0.0 { 0x80 } else { 0 });
    let e5m2 = small.iter().map(|&v| (f16::from_f32(v).to_bits() >> 8) as u8);
    let shape = || vec![N, K];
    let tensors = [
        ("a.f64", Dtype::F64, shape(), f64s(&values)),
        ("b.f32", Dtype::F32, shape(), f32s(&values)),
        ("c.e4m3", Dtype::F8_E4M3, shape(), e4m3.collect()),
        ("d.e5m2", Dtype::F8_E5M2, shape(), e5m2.collect()),
        ("e.i8", Dtype::I8, shape(), bytes_of(&whole(N * K))),
        ("e.i8_scale", Dtype::F32, vec![N, 1], f32s(&[0.5; N])),
        ("f.experts", Dtype::F32, vec![3, N, K], f32s(&reals(3 * N * K))),
        ("g.nan", Dtype::F32, shape(), f32s(&nan)),
        ("h.huge", Dtype::F64, shape(), huge),
        ("i.i8", Dtype::I8, shape(), bytes_of(&whole(N * K))),
        ("j.ids", Dtype::I64, vec![2, 2], vec![0; 32]),
        ("k.bias", Dtype::F32, vec![N], f32s(&reals(N))),
        ("l.one", Dtype::F32, vec![], f32s(&[1.0])),
        ("m.conv", Dtype::F32, vec![2, 2, 2, 2], f32s(&reals(16))),
        ("n.wte.weight", Dtype::F32, shape(), f32s(&values)),
        ("o.patch_embed.proj", Dtype::F32, shape(), f32s(&values)),
        ("p.\u{1b}[2J", Dtype::F32, shape(), f32s(&values)),
    ];
    save(&path, &tensors, None);
    let found = survey(&path, &[]);
    let (weights, skipped) = names(&found);
    let layers =
        ["a.f64", "b.f32", "c.e4m3", "d.e5m2", "e.i8", "f.experts[0]", "f.experts[1]", "f.experts[2]"];
    assert_eq!(weights, [&layers[..], &["o.patch_embed.proj", "p.\u{1b}[2J"]].concat());
    let others = ["g.nan", "h.huge", "i.i8", "j.ids", "k.bias", "l.one", "m.conv", "n.wte.weight"];
    assert_eq!(skipped, [&["e.i8_scale"], &others[..]].concat());
    let why = |name: &str| {
        let all = found["skipped"].as_array().unwrap();
        all.iter().find(|row| row["name"] == name).unwrap()["why"].as_str().unwrap().to_string()
    };
    assert_eq!(why("g.nan"), "NaN as f32 in row 1, column 2");
    assert_eq!(why("h.huge"), "inf as f32 in row 0, column 0");
    assert!(why("i.i8").contains("without scales") && why("j.ids").contains("I64"), "{found}");
    assert_eq!((why("k.bias"), why("m.conv")), ("1 dimension".into(), "4 dimensions".into()));
    assert!(why("n.wte.weight").contains("--all"));

    // The numbers of the narrow types are those of f32.
    let rows = found["weights"].as_array().unwrap();
    for (name, values) in [
        ("c.e4m3", small.clone()),
        ("d.e5m2", small),
        ("e.i8", whole(N * K).iter().map(|&v| f32::from(v) / 2.0).collect()),
    ] {
        let other = folder.join("one.safetensors");
        save(&other, &[("w", Dtype::F32, shape(), f32s(&values))], None);
        let one = survey(&other, &[]);
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        for field in ["quantized_db", "pruned_db", "both_db", "zeros", "zero_blocks", "sparsity"] {
            assert_eq!(row[field], one["weights"][0][field], "{name} {field}");
        }
    }

    // As text and as CSV nothing is lost either, and no terminal is told what to do.
    for (flag, lines) in [("--csv", 1 + weights.len() + skipped.len()), ("--all", 0)] {
        let args = ["survey", path.to_str().unwrap(), "--tokens", "2", "--min-ms", "0", flag];
        let output = siskin(&args);
        let printed = text(&output.stdout);
        assert!(!printed.contains('\u{1b}') && printed.contains("p.\\u{1b}[2J"), "{printed}");
        assert!(printed.contains("m.conv") && printed.contains("g.nan"), "{printed}");
        assert!(lines == 0 || printed.lines().count() == lines, "{printed}");
    }

    let (picked, rest) =
        (survey(&path, &["--include", "f.*", "--include", "?.f32"]), survey(&path, &["--exclude", "f.*"]));
    assert_eq!(names(&picked).0, ["b.f32", "f.experts[0]", "f.experts[1]", "f.experts[2]"]);
    assert!(!names(&rest).0.iter().any(|name| name.starts_with("f.")));
    assert!(names(&survey(&path, &["--all"])).0.contains(&"n.wte.weight"));
    let turned = survey(&path, &["--transpose", "--include", "b.f32"]);
    assert_eq!((&turned["weights"][0]["out"], &turned["weights"][0]["in"]), (&json!(K), &json!(N)));
}

/// What cannot be read as it is meant is listed, not measured wrongly; one weight that cannot be measured leaves the others.
#[test]
fn a_survey_does_not_guess() {
    let path = folder("guess").join("model.safetensors");
    let values = reals(N * K);
    let bytes = || bytes_of(&whole(N * K));
    let tensors = [
        ("a", Dtype::I8, vec![N, K], bytes()),
        ("a_scale", Dtype::F32, vec![2, 4], f32s(&[0.5; 8])),
        ("b", Dtype::I8, vec![N, K], bytes()),
        ("b_scale", Dtype::F32, vec![1], f32s(&[0.5])),
        ("b_zero_point", Dtype::I8, vec![N, 1], vec![3; N]),
        ("c", Dtype::F8_E4M3, vec![N, K], vec![0x38; N * K]),
        ("c_scale_inv", Dtype::F32, vec![1, 2], f32s(&[0.5; 2])),
        ("conv1d", Dtype::F32, vec![40, 1, 4], f32s(&reals(160))),
        ("large", Dtype::F32, vec![N, K], f32s(&values.iter().map(|v| v * 1e6).collect::<Vec<_>>())),
        ("fine", Dtype::F32, vec![N, K], f32s(&values)),
    ];
    save(&path, &tensors, None);
    let found = survey(&path, &["--dtype", "f16"]);
    let (weights, mut skipped) = names(&found);
    skipped.sort_unstable();
    assert_eq!(weights, ["fine"]);
    let others = ["a", "a_scale", "b", "b_scale", "b_zero_point", "c", "c_scale_inv", "conv1d", "large"];
    assert_eq!(skipped, others);
    // Scales of output features, which are columns of weights [in, out].
    let scales: Vec<f32> = (0..K).map(|i| (1 + i) as f32).collect();
    let tensors = [("w", Dtype::I8, vec![N, K], bytes()), ("w_scale", Dtype::F32, vec![K], f32s(&scales))];
    save(&path, &tensors, None);
    assert_eq!(names(&survey(&path, &["--transpose"])).0, ["w"]);
    assert!(names(&survey(&path, &[])).0.is_empty());
}

/// A weight that was pruned is measured as it came, unless more is to be pruned.
#[test]
fn what_was_pruned_stays_as_it_came() {
    let folder = folder("pruned");
    let path = folder.join("model.safetensors");
    let mut values: Vec<f32> = (0..16 * 8).map(|i| 1.0 + (i % 7) as f32).collect();
    // Of 32 blocks of 4x1, 24 are zero; one more number is.
    values.iter_mut().enumerate().filter(|(i, _)| i % 8 >= 2).for_each(|(_, v)| *v = 0.0);
    values[0] = 0.0;
    save(&path, &[("w", Dtype::F32, vec![16, 8], f32s(&values))], None);
    let row = |flags: &[&str]| survey(&path, flags)["weights"][0].clone();
    let as_it_came = row(&[]);
    assert_eq!((&as_it_came["sparsity"], &as_it_came["zero_blocks"]), (&json!(0.75), &json!(0.75)));
    assert_eq!(as_it_came["zeros"], json!(97.0 / 128.0));
    assert!(as_it_came["pruned_db"].is_null(), "nothing was pruned: {as_it_came}");
    assert!(as_it_came["note"].as_str().unwrap().contains("75.0 %"));
    let more = row(&["--sparsity", "0.875"]);
    assert_eq!(more["sparsity"], json!(0.875));
    assert!(more["pruned_db"].is_number());
    let large = row(&["--block", "32X32"]);
    assert!(large["note"].as_str().unwrap().contains("larger than 16 x 8"), "{large}");
    // Nothing of it is pruned, and it is padded: multiplied as a dense weight, whatever the core.
    let dense = row(&["--dtype", "i8", "--sparsity", "0", "--block", "3x5"]);
    assert!(dense["note"].as_str().unwrap().contains("runs dense"), "{dense}");
    assert!(dense["dense_below"].as_f64().unwrap() > 0.0, "{dense}");
}

/// A checkpoint in several files is read as one: by its index, or as a folder.
#[test]
fn shards_are_one_checkpoint() {
    let folder = folder("shards");
    let values = reals(N * K);
    let [one, two, old] =
        ["model-1.safetensors", "model-2.safetensors", "old.safetensors"].map(|name| folder.join(name));
    save(&one, &[("a", Dtype::F32, vec![N, K], f32s(&values))], None);
    save(&two, &[("b", Dtype::F32, vec![N, K], f32s(&values))], None);
    save(&old, &[("c", Dtype::F32, vec![N, K], f32s(&values))], None);
    assert_eq!(names(&survey(&folder, &[])).0, ["a", "b", "c"]);
    let index = folder.join("model.safetensors.index.json");
    let map = json!({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
    fs::write(&index, map.to_string()).unwrap();
    assert_eq!(names(&survey(&folder, &[])).0, ["a", "b"]);
    assert_eq!(names(&survey(&index, &[])).0, ["a", "b"]);
    for (map, says) in [
        (json!({"weight_map": {"a": "../one.safetensors"}}), "beside it"),
        (json!({"weight_map": {"a": "missing.safetensors"}}), "missing.safetensors"),
        (json!({"weights": {}}), "index of a checkpoint"),
        (json!({"weight_map": {}}), "names no file"),
        (json!({"weight_map": {"a": "-"}}), "beside it"),
    ] {
        fs::write(&index, map.to_string()).unwrap();
        refused(&siskin(&["survey", index.to_str().unwrap()]), says);
    }
    let none = folder.join("none");
    fs::create_dir(&none).unwrap();
    refused(&siskin(&["survey", none.to_str().unwrap()]), "no file in this folder");
}
