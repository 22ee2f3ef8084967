//! Attention by the command: cases measured and refused, files run and refused.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Output;

/// Every field with every value somewhere.
#[test]
fn serve_answers_lines_of_attention() {
    let good = [
        r#"{"op":"attention","dtype":"f32","seq":35,"kv_len":50,"heads":4,"kv_heads":2,"head_dim":24,"softmax":"standard","causal":true,"window":[20,3],"batch":2,"layout":"tokens","scores":"random","gate":true,"threads":1,"min_ms":0,"seed":3,"y":"f32"}"#,
        r#"{"op":"attention","seq":40,"heads":2,"softmax":{"gamma":-0.025,"zeta":1.0},"layout":"fused","scores":"peaked","min_ms":0}"#,
        r#"{"op":"attention","seq":40,"heads":2,"softmax":{"alpha":12.0,"max_len":512},"layout":"heads","scores":"flat","threads":2,"min_ms":0}"#,
        r#"{"op":"attention","dtype":"bf16","seq":70,"heads":2,"y":"bf16","min_ms":0}"#,
        r#"{"op":"attention","dtype":"bf16","seq":70,"heads":2,"isa":"scalar","y":"f32","min_ms":0}"#,
        r#"{"op":"attention","dtype":"f16","seq":33,"heads":2,"y":"f16","gate":true,"layout":"fused","min_ms":0}"#,
        r#"{"op":"attention","dtype":"int8","seq":70,"heads":2,"min_ms":0}"#,
        r#"{"op":"attention","dtype":"int8","seq":70,"heads":2,"y":"f32","layout":"fused","scores":"peaked","softmax":{"gamma":-0.03,"zeta":1.0},"min_ms":0}"#,
        r#"{"op":"attention","dtype":"int8","seq":20,"heads":2,"y":"i8","layout":"heads","causal":true,"min_ms":0}"#,
        r#"{"op":"attention","heads":2,"cu_seqlens":[0,5,5,32,40],"causal":true,"min_ms":0}"#,
        r#"{"op":"attention","heads":2,"cu_seqlens":[0,5,9],"cu_seqlens_k":[0,7,99],"y":"u8","min_ms":0}"#,
        r#"{"op":"attention","seq":1,"kv_len":1500,"heads":4,"kv_heads":1,"softmax":{"gamma":-0.03,"zeta":1.0},"scores":"peaked","min_ms":0}"#,
    ];
    let bad = [
        r#"{"op":"convolution"}"#,
        r#"{"op":"attention","m":5}"#,
        r#"{"op":"attention","op":"attention"}"#,
        r#"{"seq":5}"#,
        r#"{"op":"attention","seq":0}"#,
        r#"{"op":"attention","seq":18446744073709551615}"#,
        r#"{"op":"attention","heads":5,"kv_heads":2}"#,
        r#"{"op":"attention","head_dim":1000}"#,
        r#"{"op":"attention","softmax":{"gamma":0.5}}"#,
        r#"{"op":"attention","softmax":{"gamma":-0.5,"eta":1}}"#,
        r#"{"op":"attention","cu_seqlens":[0,-5]}"#,
        r#"{"op":"attention","layout":"fused","kv_len":7}"#,
        r#"{"op":"attention","dtype":"f64"}"#,
        r#"{"op":"attention","y":"i32"}"#,
        r#"{"op":"attention","isa":"mmx"}"#,
        r#"{"op":"attention","threads":0}"#,
        r#"{"op":"attention","min_ms":100000000}"#,
    ];
    // Linear cases among them are what they were.
    let linear = r#"{"m":3,"n":8,"k":8,"min_ms":0}"#;
    let answers = served(&bad, &[&good[..], &[linear]].concat());
    for answer in &answers[..good.len()] {
        for field in ["us_min", "us_median", "gops", "peak_gops", "pct_peak", "gbps", "pairs"] {
            assert!(answer[field].as_f64().unwrap() > 0.0, "{field}: {answer}");
        }
        let (zeros, skipped) = (answer["zeros"].as_f64().unwrap(), answer["skipped"].as_f64().unwrap());
        assert!((0.0..=zeros).contains(&skipped) && zeros <= 1.0, "{answer}");
        assert!(zeros == 0.0 || answer["softmax"].is_object(), "{answer}");
        if answer["softmax"].is_object() && answer["scores"] == "peaked" {
            assert!(zeros > 0.5 && zeros < 1.0, "{answer}");
        }
        for field in ["read_gbps", "pct_read"] {
            assert_eq!(answer[field].is_f64(), answer["kv_len"] == 1500, "{field}: {answer}");
        }
    }
    assert_eq!(answers[answers.len() - 1]["op"], "linear");
    // Of all keys, and of each query's own and those before it.
    assert_eq!(answers[1]["pairs"], 2 * 40 * 40);
    assert_eq!(answers[9]["pairs"], 2 * (5 * 6 / 2 + 27 * 28 / 2 + 8 * 9 / 2));
    assert_eq!(answers[6]["peak_of"], "int8");
    assert_eq!(answers[6]["y"], "u8");
}

#[test]
fn flags_are_fields() {
    let small = ["bench", "--op", "attention", "--seq", "20", "--heads", "2", "--min-ms", "0"];
    let with = |more: &[&str]| siskin(&[&small[..], more].concat());
    let plain = with(&[]);
    assert!(text(&plain.stdout).contains("GOP/s"), "{}", text(&plain.stderr));
    let answer = |more: &[&str]| -> Value {
        let output = with(&[more, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let clipped = answer(&["--gamma", "-0.025", "--window", "3,0", "--kv-heads", "1", "--dtype", "bf16"]);
    assert_eq!(clipped["softmax"], json!({"gamma": -0.025, "zeta": 1.0}));
    assert_eq!((&clipped["window"], &clipped["kv_heads"]), (&json!([3, 0]), &json!(1)));
    let alpha = answer(&["--alpha", "4", "--max-len", "128", "--layout", "fused", "--causal", "--gate"]);
    assert_eq!(alpha["softmax"], json!({"alpha": 4.0, "max_len": 128}));
    assert_eq!((&alpha["causal"], &alpha["gate"]), (&json!(true), &json!(true)));
    let packed = ["bench", "--op=attention", "--cu-seqlens", "0,4,9", "--min-ms", "0", "--json"];
    let packed: Value = serde_json::from_slice(&siskin(&packed).stdout).unwrap();
    assert_eq!((&packed["cu_seqlens"], &packed["seq"]), (&json!([0, 4, 9]), &Value::Null));

    refused(&with(&["-m", "5"]), "-m");
    refused(&with(&["--alpha", "4"]), "max-len");
    refused(&with(&["--alpha", "4", "--max-len", "128", "--gamma", "0"]), "gamma");
    refused(&with(&["--gamma", "0.5"]), "gamma:");
    refused(&with(&["--window", "3"]), "window");
    refused(&with(&["--kv-heads", "3"]), "num_heads");
    refused(&with(&["--y", "i32"]), "y:");
    refused(&siskin(&["bench", "--seq", "5"]), "--seq");
    let help = siskin(&["bench", "--op", "attention", "--help"]);
    assert!(text(&help.stdout).contains("siskin bench --op attention"));
}

fn run(folder: &Path, tensors: &[Tensor], params: &str) -> Output {
    let (input, out) = (folder.join("case.safetensors"), folder.join("y.safetensors"));
    save(&input, tensors, Some(params));
    siskin(&["run", "attention", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()])
}

/// y of the last [`run`] and its metadata, and nothing else beside it.
fn result(folder: &Path, output: &Output) -> (Dtype, Vec<usize>, Vec<u8>, Value) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "something else was left behind");
    let bytes = fs::read(folder.join("y.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let skipped = serde_json::from_str(&header.metadata().as_ref().unwrap()["skipped"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let y = file.tensor("y").unwrap();
    (y.dtype(), y.shape().to_vec(), y.data().to_vec(), skipped)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Numbers that look random, between -1 and 1.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

const T: usize = 5;
const S: usize = 7;
const H: usize = 4;
const G: usize = 2;
const D: usize = 6;

/// q, k and v of floats.
fn case() -> (Vec<Tensor>, [Vec<f32>; 3]) {
    let data = [numbers(T * H * D, 1), numbers(S * G * D, 2), numbers(S * G * D, 3)];
    let tensors = vec![
        ("q", Dtype::F32, vec![T, H, D], f32s(&data[0])),
        ("k", Dtype::F32, vec![S, G, D], f32s(&data[1])),
        ("v", Dtype::F32, vec![S, G, D], f32s(&data[2])),
    ];
    (tensors, data)
}

/// The context by its definition; `there` tells the keys of a query by number, `score` changes a score.
fn plain(
    [q, k, v]: &[Vec<f32>; 3],
    there: &dyn Fn(usize, usize) -> bool,
    score: &dyn Fn(usize, usize, usize, f64) -> f64,
    clip: Option<(f64, f64)>,
) -> Vec<f64> {
    let mut y = vec![0.0; T * H * D];
    for (t, h) in (0..T).flat_map(|t| (0..H).map(move |h| (t, h))) {
        let row = |x: &[f32], j: usize| -> Vec<f64> {
            x[(j * G + h / (H / G)) * D..][..D].iter().map(|&v| v.into()).collect()
        };
        let q = &q[(t * H + h) * D..][..D];
        let e = |j: usize| {
            let dot: f64 = q.iter().zip(row(k, j)).map(|(q, k)| f64::from(*q) * k).sum();
            if there(t, j) { score(h, t, j, dot / (D as f64).sqrt()).exp() } else { 0.0 }
        };
        let e: Vec<f64> = (0..S).map(e).collect();
        let sum: f64 = e.iter().sum();
        for j in 0..S {
            let p = if sum == 0.0 { 0.0 } else { e[j] / sum };
            let w = clip.map_or(p, |(gamma, zeta)| ((zeta - gamma) * p + gamma).clamp(0.0, 1.0));
            for (y, v) in y[(t * H + h) * D..][..D].iter_mut().zip(row(v, j)) {
                *y += w * v;
            }
        }
    }
    y
}

#[track_caller]
fn near(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 1e-5, "{i}: {got} {want}");
    }
}

#[test]
fn a_context_is_that_of_a_plain_loop() {
    let folder = folder("plain");
    let (tensors, data) = case();
    let (all, same) = (|_: usize, _: usize| true, |_: usize, _: usize, _: usize, s: f64| s);
    let (dtype, shape, y, skipped) = result(&folder, &run(&folder, &tensors, "{}"));
    assert_eq!((dtype, shape), (Dtype::F32, vec![T, H, D]));
    near(&floats(&y), &plain(&data, &all, &same, None));
    assert_eq!(skipped["pairs"], T * S * H);
    assert_eq!(skipped["zeros"], 0);

    let clipped = r#"{"gamma":-0.2,"zeta":1.1,"isa":"scalar","threads":2}"#;
    let (_, _, y, skipped) = result(&folder, &run(&folder, &tensors, clipped));
    near(&floats(&y), &plain(&data, &all, &same, Some((-0.2, 1.1))));
    assert!(skipped["zeros"].as_u64().unwrap() > 0);
    let alpha = result(&folder, &run(&folder, &tensors, r#"{"alpha":1.6,"max_len":8}"#));
    let gamma = result(&folder, &run(&folder, &tensors, r#"{"gamma":-0.2}"#));
    assert_eq!(alpha.2, gamma.2);

    let causal = run(&folder, &tensors, r#"{"causal":true,"window":[3,9],"scale":0.40824829}"#);
    let there = |t: usize, j: usize| j <= t + S - T && t + S - T <= j + 3;
    near(&floats(&result(&folder, &causal).2), &plain(&data, &there, &same, None));
}

#[test]
fn tensors_beside_have_their_say() {
    let folder = folder("beside");
    let (tensors, data) = case();
    let and = |more: &[Tensor]| [&tensors[..], more].concat();
    let same = |_: usize, _: usize, _: usize, s: f64| s;
    let all = |_: usize, _: usize| true;

    let bias = numbers(H * S, 4);
    let add = |h: usize, _: usize, j: usize, s: f64| s + f64::from(bias[h * S + j]);
    let biased = and(&[("bias", Dtype::F32, vec![1, H, 1, S], f32s(&bias))]);
    near(&floats(&result(&folder, &run(&folder, &biased, "{}")).2), &plain(&data, &all, &add, None));

    // Of fewer dimensions and of f16; and true and false.
    let half: Vec<f32> = (0..S).map(|j| j as f32 / 8.0 - 0.5).collect();
    let bytes = half.iter().flat_map(|&v| siskin::f16::from_f32(v).to_le_bytes()).collect();
    let biased = and(&[("bias", Dtype::F16, vec![S], bytes)]);
    let add = |_: usize, _: usize, j: usize, s: f64| s + f64::from(half[j]);
    near(&floats(&result(&folder, &run(&folder, &biased, "{}")).2), &plain(&data, &all, &add, None));
    let attends = |i: usize, j: usize| (i + j) % 3 != 1 || j == 0;
    let bytes = (0..T * S).map(|at| u8::from(attends(at / S, at % S))).collect();
    let masked = and(&[("bias", Dtype::BOOL, vec![T, S], bytes)]);
    let add = |_: usize, i: usize, j: usize, s: f64| if attends(i, j) { s } else { f64::NEG_INFINITY };
    near(&floats(&result(&folder, &run(&folder, &masked, "{}")).2), &plain(&data, &all, &add, None));

    let gates = numbers(T * H, 5);
    let gated = and(&[("gates", Dtype::F32, vec![T, H], f32s(&gates))]);
    let mut want = plain(&data, &all, &same, None);
    want.iter_mut().enumerate().for_each(|(i, y)| *y *= f64::from(gates[i / D]));
    near(&floats(&result(&folder, &run(&folder, &gated, "{}")).2), &want);

    let live = vec![1, 0, 1, 0, 1, 1];
    for dtype in [Dtype::BOOL, Dtype::U8] {
        let masked = and(&[("block_mask", dtype, vec![2, 3], live.clone())]);
        let there = |t: usize, j: usize| live[t / 3 * 3 + j / 3] == 1;
        let output = run(&folder, &masked, r#"{"block_q":3,"block_k":3}"#);
        near(&floats(&result(&folder, &output).2), &plain(&data, &there, &same, None));
    }

    let long = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let shorter = and(&[
        ("key_lengths", Dtype::I64, vec![1], long(&[4])),
        ("positions", Dtype::I32, vec![1], i32s(&[1])),
    ]);
    let there = |t: usize, j: usize| j < 4 && j <= t + 1;
    let output = run(&folder, &shorter, r#"{"causal":true}"#);
    near(&floats(&result(&folder, &output).2), &plain(&data, &there, &same, None));

    let packed = and(&[
        ("cu_seqlens", Dtype::I32, vec![4], i32s(&[0, 2, 2, 5])),
        ("cu_seqlens_k", Dtype::I64, vec![4], long(&[0, 3, 4, 7])),
    ]);
    let there = |t: usize, j: usize| if t < 2 { j < 3 } else { j >= 4 };
    let output = run(&folder, &packed, "{}");
    near(&floats(&result(&folder, &output).2), &plain(&data, &there, &same, None));

    // A sequence without a key that is there.
    let none = and(&[("key_lengths", Dtype::I32, vec![1], i32s(&[0]))]);
    let zeros = result(&folder, &run(&folder, &none, "{}"));
    assert!(floats(&zeros.2).iter().all(|y| *y == 0.0));
    let uniform = result(&folder, &run(&folder, &none, r#"{"empty_rows":"uniform"}"#));
    near(&floats(&uniform.2), &plain(&data, &all, &|_, _, _, _| 0.0, None));
}

#[test]
fn a_batch_is_its_sequences() {
    let folder = folder("batch");
    let (tensors, _) = case();
    let alone = result(&folder, &run(&folder, &tensors, r#"{"gamma":-0.1}"#));
    let mut twice: Vec<Tensor> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            (*name, *dtype, [&[2], &shape[..]].concat(), [&data[..], data].concat())
        })
        .collect();
    twice.push(("gates", Dtype::F32, vec![2, T, H], f32s(&[1.0; 2 * T * H])));
    let both = result(&folder, &run(&folder, &twice, r#"{"gamma":-0.1}"#));
    assert_eq!(both.1, [2, T, H, D]);
    assert_eq!(both.2, [&alone.2[..], &alone.2].concat());

    twice.push(("cu_seqlens", Dtype::I32, vec![2], i32s(&[0, 2 * T as i32])));
    refused(&run(&folder, &twice, "{}"), "cu_seqlens");
}

#[test]
fn bytes_stand_for_numbers() {
    let folder = folder("bytes");
    let (_, data) = case();
    let byte = |x: &f32| (x * 127.0).round() as i8;
    let q: Vec<u8> = data[0].iter().map(|x| (byte(x) as u8) ^ 0x80).collect();
    let [k, v] = [1, 2].map(|i| data[i].iter().map(|x| byte(x) as u8).collect::<Vec<u8>>());
    let step = 1.0 / 127.0;
    let mut tensors: Vec<Tensor> = vec![
        ("q", Dtype::U8, vec![T, H, D], q),
        ("k", Dtype::I8, vec![S, G, D], k),
        ("v", Dtype::I8, vec![S, G, D], v),
        ("q_scale", Dtype::F32, vec![1], f32s(&[step])),
        ("q_zero_point", Dtype::I32, vec![H], i32s(&[128; H])),
        ("k_scale", Dtype::F32, vec![G], f32s(&[step; G])),
        ("v_scale", Dtype::F32, vec![1], f32s(&[step])),
    ];
    let rounded = data.map(|x| x.iter().map(|x| f32::from(byte(x)) * step).collect::<Vec<f32>>());
    let want = plain(&rounded, &|_, _| true, &|_, _, _, s| s, None);
    // Each of the weights is rounded by half a step at most.
    let most = S as f64 * 0.5 / 255.0;
    let (_, _, y, _) = result(&folder, &run(&folder, &tensors, "{}"));
    for (got, want) in floats(&y).iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() < most, "{got} {want}");
    }
    tensors.push(("weights_scale", Dtype::F32, vec![1], f32s(&[0.6 / 255.0])));
    tensors.push(("y_scale", Dtype::F32, vec![1], f32s(&[0.008])));
    tensors.push(("y_zero_point", Dtype::I32, vec![1], i32s(&[100])));
    let (dtype, _, y, _) = result(&folder, &run(&folder, &tensors, r#"{"y":"u8"}"#));
    assert_eq!(dtype, Dtype::U8);
    for (got, want) in y.iter().zip(&want) {
        assert!((0.008 * (f64::from(*got) - 100.0) - want).abs() < most + 0.004, "{got} {want}");
    }
    tensors.push(("scores_scale", Dtype::F32, vec![1], f32s(&[0.05])));
    tensors.push(("scores_zero_point", Dtype::I32, vec![1], i32s(&[128])));
    tensors.push(("context_scale", Dtype::F32, vec![1], f32s(&[1e6])));
    let (_, _, y, _) = result(&folder, &run(&folder, &tensors, r#"{"y":"u8"}"#));
    assert!(y.iter().all(|y| *y == 100), "a context in steps of a million is 0");
}

/// A scale for each token; and what is said of the weights that were rounded.
#[test]
fn bytes_have_a_scale_for_each_token() {
    let folder = folder("token-bytes");
    let (_, data) = case();
    let quantized = |x: &[f32], row: usize| -> (Vec<u8>, Vec<f32>) {
        let largest = |row: &[f32]| row.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
        let bytes = x.chunks(row).flat_map(|row| row.iter().map(|x| (x / largest(row)).round() as i8 as u8));
        (bytes.collect(), x.chunks(row).map(largest).collect())
    };
    let [(q, of_q), (k, of_k), (v, of_v)] =
        [(&data[0], H * D), (&data[1], G * D), (&data[2], G * D)].map(|(x, row)| quantized(x, row));
    let tensors: Vec<Tensor> = vec![
        ("q", Dtype::I8, vec![T, H, D], q),
        ("k", Dtype::I8, vec![S, G, D], k),
        ("v", Dtype::I8, vec![S, G, D], v),
        ("q_token_scale", Dtype::F32, vec![T], f32s(&of_q)),
        ("k_token_scale", Dtype::F32, vec![S], f32s(&of_k)),
        ("v_token_scale", Dtype::F32, vec![S], f32s(&of_v)),
    ];
    let want = plain(&data, &|_, _| true, &|_, _, _, s| s, None);
    let (_, _, y, skipped) = result(&folder, &run(&folder, &tensors, "{}"));
    for (got, want) in floats(&y).iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() < 0.02, "{got} {want}");
    }
    let (lost, most) = (skipped["lost"].as_f64().unwrap(), skipped["most_lost"].as_f64().unwrap());
    assert!(0.0 < lost && lost <= most && most < 0.05, "{skipped}");
    for (name, dtype, shape, bytes) in [
        ("v_token_scale", Dtype::F32, vec![S + 1], f32s(&[0.1; S + 1])),
        ("v_zero_point", Dtype::I32, vec![S], i32s(&[0; S])),
        ("v_scale", Dtype::F32, vec![1], f32s(&[0.1])),
        ("weights_scale", Dtype::F32, vec![1], f32s(&[0.1])),
    ] {
        let mut wrong: Vec<_> = tensors.iter().filter(|t| t.0 != name).cloned().collect();
        wrong.push((name, dtype, shape, bytes));
        refused(&run(&folder, &wrong, "{}"), name);
    }
    let answer = siskin(&[
        "bench",
        "--op=attention",
        "--dtype=int8",
        "--token-scales",
        "--seq=40",
        "--min-ms=0",
        "--json",
    ]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["token_scales"], true);
    refused(&siskin(&["bench", "--op=attention", "--token-scales"]), "token_scales");
}

#[test]
fn other_floats_are_taken_and_given() {
    let folder = folder("types");
    let (mut tensors, data) = case();
    let bf16: Vec<u8> = data[1].iter().flat_map(|v| siskin::bf16::from_f32(*v).to_le_bytes()).collect();
    let f16: Vec<u8> = data[2].iter().flat_map(|v| siskin::f16::from_f32(*v).to_le_bytes()).collect();
    tensors[1] = ("k", Dtype::BF16, vec![S, G, D], bf16);
    tensors[2] = ("v", Dtype::F16, vec![S, G, D], f16);
    let want = plain(&data, &|_, _| true, &|_, _, _, s| s, None);
    for (y, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::BF16), ("f16", Dtype::F16)] {
        let (got, _, bytes, _) = result(&folder, &run(&folder, &tensors, &format!(r#"{{"y":"{y}"}}"#)));
        assert_eq!(got, dtype);
        let values: Vec<f32> = match dtype {
            Dtype::F32 => floats(&bytes),
            Dtype::BF16 => {
                bytes.chunks(2).map(|b| siskin::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            _ => bytes.chunks(2).map(|b| siskin::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        };
        for (got, want) in values.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 0.02, "{got} {want}");
        }
    }
}

#[test]
fn a_bad_case_leaves_no_file() {
    let folder = folder("attention-bad");
    let (good, data) = case();
    let with = |tensor: Tensor| {
        let mut tensors: Vec<_> = good.iter().filter(|t| t.0 != tensor.0).cloned().collect();
        tensors.push(tensor);
        tensors
    };
    let without = |name: &str| good.iter().filter(|t| t.0 != name).cloned().collect::<Vec<_>>();
    let one = f32s(&[1.0]);
    for (tensors, params, names) in [
        (without("q"), "{}", "q:"),
        (without("k"), "{}", "k:"),
        (with(("extra", Dtype::U8, vec![1], vec![1])), "{}", "extra"),
        (with(("q", Dtype::F32, vec![T * H, D], f32s(&data[0]))), "{}", "q:"),
        (with(("q", Dtype::I64, vec![1, 1, 1], vec![0; 8])), "{}", "q:"),
        (with(("q", Dtype::F32, vec![1, T, H, D], f32s(&data[0]))), "{}", "k and v"),
        (with(("q", Dtype::F32, vec![T, 0, D], vec![])), "{}", "q:"),
        (with(("q", Dtype::F32, vec![1 << 40, 0, H, D], vec![])), "{}", "q:"),
        (with(("q", Dtype::U8, vec![T, H, D], vec![0; T * H * D])), "{}", "q_scale"),
        (with(("v", Dtype::F32, vec![S, 1, G * D], f32s(&data[2]))), "{}", "v:"),
        (with(("v", Dtype::F32, vec![1, G, D], f32s(&data[2][..G * D]))), "{}", "v:"),
        (with(("q_scale", Dtype::F32, vec![1], one.clone())), "{}", "q_scale"),
        (with(("weights_scale", Dtype::F32, vec![1], one.clone())), "{}", "weights_scale"),
        (with(("bias", Dtype::F32, vec![1, 1, 1, 2], f32s(&[0.0; 2]))), "{}", "bias"),
        (with(("bias", Dtype::F32, vec![1; 5], f32s(&[0.0]))), "{}", "bias"),
        (with(("bias", Dtype::I32, vec![S], i32s(&[0; S]))), "{}", "bias"),
        (with(("gates", Dtype::F32, vec![T], f32s(&[0.0; T]))), "{}", "gates"),
        (with(("key_lengths", Dtype::I32, vec![1], i32s(&[8]))), "{}", "key_lengths"),
        (with(("key_lengths", Dtype::I32, vec![1], i32s(&[-1]))), "{}", "key_lengths[0]"),
        (with(("positions", Dtype::I32, vec![2], i32s(&[0, 0]))), "{}", "positions"),
        (with(("cu_seqlens", Dtype::I32, vec![2], i32s(&[0, T as i32]))), "{}", "cu_seqlens_k"),
        (with(("cu_seqlens", Dtype::I32, vec![3], i32s(&[0, 9, 5]))), "{}", "cu_seqlens"),
        (with(("cu_seqlens", Dtype::I32, vec![0], vec![])), "{}", "cu_seqlens"),
        (with(("cu_seqlens_k", Dtype::I32, vec![2], i32s(&[0, S as i32]))), "{}", "cu_seqlens_k"),
        (with(("block_mask", Dtype::BOOL, vec![1, 1], vec![1])), "{}", "block_q"),
        (
            with(("block_mask", Dtype::BOOL, vec![1, 1], vec![1])),
            r#"{"block_q":2,"block_k":9}"#,
            "block_mask",
        ),
        (with(("block_mask", Dtype::BOOL, vec![1, 1], vec![1])), r#"{"block_q":0,"block_k":9}"#, "block"),
        (good.clone(), r#"{"block_q":2,"block_k":9}"#, "block_mask"),
        (good.clone(), r#"{"y":"u8"}"#, "y_scale"),
        (good.clone(), r#"{"y":"i32"}"#, "y:"),
        (good.clone(), r#"{"gamma":1}"#, "gamma"),
        (good.clone(), r#"{"gamma":-1,"alpha":1}"#, "softmax"),
        (good.clone(), r#"{"alpha":1}"#, "softmax"),
        (good.clone(), r#"{"scale":0}"#, "scale"),
        (good.clone(), r#"{"window":[1,-1]}"#, "params"),
        (good.clone(), r#"{"empty_rows":"none"}"#, "params"),
        (good.clone(), r#"{"isa":"mmx"}"#, "isa"),
        (good.clone(), r#"{"threads":0}"#, "threads"),
        (good.clone(), r#"{"head":1}"#, "params"),
        (good.clone(), "[]", "params"),
    ] {
        refused(&run(&folder, &tensors, params), names);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{params} left a file behind");
    }
}
