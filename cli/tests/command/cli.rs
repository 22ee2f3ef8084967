//! The command as its users meet it: what it prints, what it writes, how it ends.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Bytes that look random.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        })
        .collect()
}

const M: usize = 5;
const N: usize = 9;
const K: usize = 14;

/// Bytes x and dense w with a zero point each.
fn case() -> Vec<Tensor> {
    vec![
        ("x", Dtype::U8, vec![M, K], bytes(M * K, 1)),
        ("w", Dtype::I8, vec![N, K], bytes(N * K, 2)),
        ("x_scale", Dtype::F32, vec![1], f32s(&[0.5])),
        ("x_zero_point", Dtype::I32, vec![1], i32s(&[7])),
    ]
}

/// The sums of [`case`].
fn sums() -> Vec<i32> {
    let (x, w) = (bytes(M * K, 1), bytes(N * K, 2));
    let sum = |m: usize, n: usize| -> i32 {
        (0..K).map(|k| (i32::from(x[m * K + k]) - 7) * i32::from(w[n * K + k] as i8)).sum()
    };
    (0..M * N).map(|i| sum(i / N, i % N)).collect()
}

fn run(folder: &Path, tensors: &[Tensor], params: &str) -> Output {
    let (input, out) = (folder.join("case.safetensors"), folder.join("y.safetensors"));
    save(&input, tensors, Some(params));
    siskin(&["run", "linear", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()])
}

/// y of the last [`run`], and nothing else beside it.
fn result(folder: &Path, output: &Output, dtype: Dtype) -> Vec<u8> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "something else was left behind");
    let bytes = fs::read(folder.join("y.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let y = file.tensor("y").unwrap();
    assert_eq!((y.dtype(), y.shape()), (dtype, &[M, N][..]));
    y.data().to_vec()
}

#[test]
fn dense_sums_are_those_of_a_plain_loop() {
    let folder = folder("dense");
    for params in [r#"{"y":"i32"}"#, r#"{"y":"i32","isa":"scalar"}"#, r#"{"y":"i32","threads":2}"#] {
        let output = run(&folder, &case(), params);
        assert_eq!(result(&folder, &output, Dtype::I32), i32s(&sums()));
    }
}

#[test]
fn weight_zero_points_are_taken_off() {
    let folder = folder("zero");
    let mut tensors = case();
    let zero: Vec<i32> = (0..N as i32).map(|n| 3 * n - 11).collect();
    tensors.push(("w_zero_point", Dtype::I32, vec![N], i32s(&zero)));
    let x = bytes(M * K, 1);
    let of_x = |m: usize| -> i32 { x[m * K..][..K].iter().map(|&x| i32::from(x) - 7).sum() };
    let want: Vec<_> = sums().iter().enumerate().map(|(i, s)| s - of_x(i / N) * zero[i % N]).collect();
    let output = run(&folder, &tensors, r#"{"y":"i32"}"#);
    assert_eq!(result(&folder, &output, Dtype::I32), i32s(&want));
}

#[test]
fn sparse_sums_are_those_of_a_plain_loop() {
    // Blocks of 4x2, the last block row over the edge: block columns 1, 6 / none / 0, 3.
    let folder = folder("sparse");
    let (indptr, indices) = ([0, 2, 2, 4], [1, 6, 0, 3]);
    let mut values = bytes(4 * 8, 3);
    for block in 2..4 {
        values[block * 8 + 2..][..6].fill(0);
    }
    let mut w = vec![0i32; N * K];
    for row in 0..3 {
        for block in indptr[row]..indptr[row + 1] {
            for i in 0..8 {
                let (n, k) = (row * 4 + i / 2, indices[block] * 2 + i % 2);
                if n < N {
                    w[n * K + k] = i32::from(values[block * 8 + i] as i8);
                }
            }
        }
    }
    let x = bytes(M * K, 1);
    let sum =
        |m: usize, n: usize| -> i32 { (0..K).map(|k| (i32::from(x[m * K + k]) - 7) * w[n * K + k]).sum() };
    let want: Vec<i32> = (0..M * N).map(|i| sum(i / N, i % N)).collect();

    let mut tensors = case();
    tensors.retain(|t| t.0 != "w");
    tensors.push(("indptr", Dtype::I32, vec![4], i32s(&indptr.map(|v| v as i32))));
    let wide = indices.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect();
    tensors.push(("indices", Dtype::I64, vec![4], wide));
    tensors.push(("values", Dtype::I8, vec![4, 4, 2], values));
    let params = format!(r#"{{"y":"i32","shape":[{N},{K}]}}"#);
    let output = run(&folder, &tensors, &params);
    assert_eq!(result(&folder, &output, Dtype::I32), i32s(&want));

    let refusal = run(&folder, &tensors, r#"{"y":"i32"}"#);
    refused(&refusal, "shape");
    tensors.iter_mut().filter(|t| t.0 == "indptr").for_each(|t| t.3 = i32s(&[0, 3, 2, 4]));
    refused(&run(&folder, &tensors, &params), "indptr");
    tensors.iter_mut().filter(|t| t.0 == "indptr").for_each(|t| t.3 = i32s(&[0, -1, 2, 4]));
    refused(&run(&folder, &tensors, &params), "indptr[1]");
}

#[test]
fn floats_and_bytes_follow_the_order_of_the_steps() {
    let folder = folder("steps");
    let bias: Vec<f32> = (0..N).map(|n| n as f32 - 3.5).collect();
    let residual: Vec<f32> = (0..M * N).map(|i| (i as f32 * 0.7).sin() * 50.0).collect();
    let scale: Vec<f32> = (0..N).map(|n| 0.001 * (n + 1) as f32).collect();
    let mut tensors = case();
    tensors.push(("w_scale", Dtype::F32, vec![N], f32s(&scale)));
    tensors.push(("bias", Dtype::F32, vec![N], f32s(&bias)));
    tensors.push(("residual", Dtype::F32, vec![M, N], f32s(&residual)));
    let real = |i: usize| {
        let v = (sums()[i] as f32).mul_add(0.5 * scale[i % N], bias[i % N]) + residual[i];
        v.max(0.0)
    };
    let output = run(&folder, &tensors, r#"{"activation":"relu"}"#);
    let want: Vec<f32> = (0..M * N).map(real).collect();
    assert_eq!(result(&folder, &output, Dtype::F32), f32s(&want));

    tensors.push(("y_scale", Dtype::F32, vec![], f32s(&[0.3])));
    tensors.push(("y_zero_point", Dtype::I32, vec![1], i32s(&[10])));
    let output = run(&folder, &tensors, r#"{"y":"u8","activation":"relu"}"#);
    let byte = |v: &f32| ((v * (1.0 / 0.3f32)).round_ties_even() + 10.0).clamp(0.0, 255.0) as u8;
    assert_eq!(result(&folder, &output, Dtype::U8), want.iter().map(byte).collect::<Vec<_>>());
}

/// A case of floats: x and w, which every type holds exactly.
fn floats(dtype: Dtype) -> (Vec<Tensor>, Vec<f32>, Vec<f32>) {
    let small = |b: &u8| f32::from(*b as i8) / 16.0;
    let x: Vec<f32> = bytes(M * K, 4).iter().map(small).collect();
    let w: Vec<f32> = bytes(N * K, 5).iter().map(small).collect();
    let tensors =
        vec![("x", dtype, vec![M, K], stored(dtype, &x)), ("w", dtype, vec![N, K], stored(dtype, &w))];
    (tensors, x, w)
}

fn stored(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|v| siskin::bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| siskin::f16::from_f32(*v).to_le_bytes()).collect(),
        _ => f32s(values),
    }
}

/// The products and their sums are exact here, in any order.
fn product(x: &[f32], w: &[f32]) -> Vec<f32> {
    let sum = |m: usize, n: usize| (0..K).map(|k| x[m * K + k] * w[n * K + k]).sum::<f32>();
    (0..M * N).map(|i| sum(i / N, i % N)).collect()
}

#[test]
fn floats_stay_floats() {
    let folder = folder("floats");
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let (mut tensors, x, w) = floats(dtype);
        let bias: Vec<f32> = (0..N).map(|n| n as f32 - 3.5).collect();
        tensors.push(("bias", Dtype::F32, vec![N], f32s(&bias)));
        let want: Vec<f32> = product(&x, &w).iter().enumerate().map(|(i, v)| v + bias[i % N]).collect();
        for (y, params) in
            [(Dtype::F32, "{}"), (Dtype::BF16, r#"{"y":"bf16"}"#), (Dtype::F16, r#"{"y":"f16"}"#)]
        {
            let output = run(&folder, &tensors, params);
            assert_eq!(result(&folder, &output, y), stored(y, &want), "{dtype:?} {params}");
        }
        // The same as blocks of 1x2, all of them.
        let blocks = (N * K / 2) as i32;
        let indices: Vec<i32> = (0..blocks).map(|i| i % (K as i32 / 2)).collect();
        let indptr: Vec<i32> = (0..=N as i32).map(|n| n * K as i32 / 2).collect();
        tensors.retain(|t| t.0 != "w");
        tensors.push(("values", dtype, vec![blocks as usize, 1, 2], stored(dtype, &w)));
        tensors.push(("indices", Dtype::I32, vec![blocks as usize], i32s(&indices)));
        tensors.push(("indptr", Dtype::I32, vec![N + 1], i32s(&indptr)));
        let output = run(&folder, &tensors, r#"{"shape":[9,14]}"#);
        assert_eq!(result(&folder, &output, Dtype::F32), f32s(&want), "{dtype:?}");
    }
}

#[test]
fn weights_alone_are_bytes() {
    let folder = folder("weight-only");
    let (mut tensors, x, _) = floats(Dtype::F16);
    let q = bytes(N * K, 2);
    tensors[1] = ("w", Dtype::I8, vec![N, K], q.clone());
    let real = |scale: &dyn Fn(usize, usize) -> f32| {
        let w: Vec<f32> = (0..N * K).map(|i| f32::from(q[i] as i8) * scale(i / K, i % K)).collect();
        f32s(&product(&x, &w))
    };
    // Powers of 2, with which all is exact.
    let scales: Vec<f32> = (0..N * 4).map(|i| [0.5, 0.25, 2.0][i % 3]).collect();
    tensors.push(("w_scale", Dtype::F32, vec![N], f32s(&scales[..N])));
    let output = run(&folder, &tensors, r#"{"weight_only":true}"#);
    assert_eq!(result(&folder, &output, Dtype::F32), real(&|n, _| scales[n]));
    tensors[2] = ("w_scale", Dtype::F32, vec![N, 4], f32s(&scales));
    let output = run(&folder, &tensors, r#"{"group_size":4}"#);
    assert_eq!(result(&folder, &output, Dtype::F32), real(&|n, k| scales[n * 4 + k / 4]));

    refused(&run(&folder, &tensors, r#"{"group_size":8}"#), "w_scale");
    refused(&run(&folder, &tensors, r#"{"group_size":3}"#), "group_size");
    refused(&run(&folder, &tensors, "{}"), "w_scale");
    refused(&run(&folder, &tensors, r#"{"group_size":4,"y":"i32"}"#), "y:");
}

#[test]
fn bad_cases_of_floats_are_refused() {
    let folder = folder("bad-floats");
    let and = |extra: &[Tensor]| [floats(Dtype::F32).0, extra.to_vec()].concat();
    let one = f32s(&[1.0]);
    let mut bytes_in = case();
    bytes_in[1] = floats(Dtype::F32).0.remove(1);
    for (tensors, params, names) in [
        (and(&[("w_scale", Dtype::F32, vec![1], one.clone())]), "{}", "w_scale"),
        (and(&[("x_scale", Dtype::F32, vec![1], one.clone())]), "{}", "x_scale"),
        (and(&[("w_zero_point", Dtype::I32, vec![1], i32s(&[1]))]), "{}", "w_zero_point"),
        (and(&[]), r#"{"weight_only":true}"#, "weight_only"),
        (and(&[]), r#"{"group_size":4}"#, "group_size"),
        (and(&[]), r#"{"y":"i32"}"#, "y:"),
        (bytes_in, "{}", "input"),
        (case(), r#"{"weight_only":true}"#, "input"),
        (case(), r#"{"group_size":-4}"#, "params"),
    ] {
        refused(&run(&folder, &tensors, params), names);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{params} left a file behind");
    }
}

#[test]
fn a_bad_case_leaves_no_file() {
    let folder = folder("bad");
    let without = |name: &str| case().into_iter().filter(|t| t.0 != name).collect::<Vec<_>>();
    let with = |tensor: Tensor| {
        let mut tensors = without(tensor.0);
        tensors.push(tensor);
        tensors
    };
    let i32 = r#"{"y":"i32"}"#;
    for (tensors, params, names) in [
        (without("x"), i32, "x:"),
        (without("w"), i32, "w:"),
        (without("x_scale"), i32, "x_scale"),
        (with(("extra", Dtype::U8, vec![1], vec![1])), i32, "extra"),
        (with(("bias", Dtype::F32, vec![N], f32s(&[1.0; N]))), i32, "bias"),
        (with(("x", Dtype::I64, vec![1, 1], vec![0; 8])), i32, "x:"),
        (with(("x", Dtype::U8, vec![M * K], bytes(M * K, 1))), i32, "x:"),
        (with(("x", Dtype::U8, vec![M, K + 1], bytes(M * (K + 1), 1))), i32, "input"),
        (with(("x", Dtype::U8, vec![1 << 40, 0], vec![])), i32, "x:"),
        (with(("w", Dtype::I8, vec![1 << 40, 0], vec![])), i32, "w:"),
        (with(("w", Dtype::U8, vec![N, K], bytes(N * K, 1))), i32, "w:"),
        (with(("x_scale", Dtype::F32, vec![2], f32s(&[1.0, 1.0]))), i32, "x_scale"),
        (with(("x_scale", Dtype::F32, vec![1], f32s(&[f32::NAN]))), i32, "x_scale"),
        (with(("x_zero_point", Dtype::I32, vec![1], i32s(&[256]))), i32, "x_zero_point"),
        (with(("w_scale", Dtype::F32, vec![2], f32s(&[1.0, 1.0]))), i32, "scales"),
        (with(("w_zero_point", Dtype::I32, vec![1], i32s(&[1000]))), i32, "zero_points"),
        (with(("residual", Dtype::F32, vec![1, N], f32s(&[0.0; N]))), "{}", "residual"),
        (with(("residual", Dtype::U8, vec![M, N], bytes(M * N, 1))), "{}", "residual_scale"),
        (case(), r#"{"y":"u8"}"#, "y_scale"),
        (case(), r#"{"y":"u4"}"#, "u4"),
        (case(), r#"{"z":1}"#, "z"),
        (case(), "{", "params"),
        (case(), r#"{"activation":"bias"}"#, "expected one of `relu`, `clamp`"),
        (case(), r#"{"activation":"clamp","low":1}"#, "low and high"),
        (case(), r#"{"activation":"clamp","low":1,"high":0}"#, "low"),
        (case(), r#"{"activation":"relu","low":1}"#, "low"),
        (case(), r#"{"activation":"gelu_table"}"#, "table"),
        (case(), r#"{"y":"i32","activation":"relu"}"#, "epilogue"),
        (case(), r#"{"isa":"mmx"}"#, "isa"),
        (case(), r#"{"threads":0}"#, "threads"),
        (case(), r#"{"shape":[9,14]}"#, "shape"),
    ] {
        refused(&run(&folder, &tensors, params), names);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{params} left a file behind");
    }
}

#[test]
fn a_bad_file_leaves_no_file() {
    let folder = folder("bad-file");
    let (good, bad, out) = (folder.join("good"), folder.join("bad"), folder.join("out"));
    save(&good, &case(), None);
    let whole = fs::read(&good).unwrap();
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let header = br#"{"x":{"dtype":"U8","shape":[18446744073709551615,2],"data_offsets":[0,1]}}"#;
    let overflow = [&(header.len() as u64).to_le_bytes()[..], header, &[0]].concat();
    for content in
        [&whole[..whole.len() - 1], &whole[..20], &whole[..4], b"", b"not safetensors", &huge, &overflow]
    {
        fs::write(&bad, content).unwrap();
        let (input, output) = (bad.to_str().unwrap(), out.to_str().unwrap());
        refused(&siskin(&["run", "linear", "--in", input, "--out", output]), "bad: expected safetensors");
        refused(&siskin(&["survey", input]), "bad: expected safetensors");
    }
    let (missing, output) = (folder.join("missing"), out.to_str().unwrap());
    for input in [missing.to_str().unwrap(), folder.to_str().unwrap()] {
        refused(&siskin(&["run", "linear", "--in", input, "--out", output]), input);
        refused(&siskin(&["survey", input]), input);
    }
    let nowhere = folder.join("none/out");
    let args = ["run", "linear", "--in", good.to_str().unwrap(), "--out", nowhere.to_str().unwrap()];
    refused(&siskin(&args), "none/out");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn serve_answers_every_line() {
    let good = [
        r#"{"op":"linear","m":7,"n":70,"k":37,"x":"u8","y":"u8","block":"4x1","sparsity":0.8,"epilogue":["bias","gelu"],"in":"tokens","out":"packed","threads":1,"min_ms":0}"#,
        r#"{"m":40,"n":70,"k":37,"x":"i8","y":"i8","block":"dense","epilogue":["residual","silu_table"],"threads":2,"min_ms":0}"#,
        r#"{"m":1,"n":64,"k":64,"x":"f32","y":"f32","block":"16x4","in":"packed","isa":"scalar","min_ms":0}"#,
        r#"{"m":70,"n":66,"k":64,"w":"f32","y":"u8","block":"4x1","out":"packed","min_ms":0}"#,
        r#"{"m":70,"n":66,"k":64,"w":"bf16","x":"f32","y":"i8","block":"4x4","out":"packed","min_ms":0}"#,
        r#"{"m":3,"n":64,"k":64,"x":"bf16","y":"i32","block":"dense","weights":"zero_points","min_ms":0}"#,
        r#"{"m":5,"n":30,"k":64,"x":"f16","y":"f16","block":"4x4","epilogue":["bias","residual"],"min_ms":0}"#,
    ];
    let bad = [
        "nonsense",
        "[]",
        r#"{"m":-1}"#,
        r#"{"m":0}"#,
        r#"{"n":18446744073709551615,"k":18446744073709551615}"#,
        r#"{"block":"0x4"}"#,
        r#"{"block":"4294967296x4294967295"}"#,
        r#"{"sparsity":1.5}"#,
        r#"{"isa":"mmx"}"#,
        r#"{"threads":100000}"#,
        r#"{"epilogue":["relu","gelu"]}"#,
        r#"{"y":"f32","out":"packed"}"#,
        r#"{"unknown":1}"#,
        r#"{"w":"u8"}"#,
        r#"{"w":"f32","x":"u8"}"#,
        r#"{"w":"bf16","x":"i8"}"#,
        r#"{"w":"f16","y":"i32"}"#,
        r#"{"w":"f32","weight_only":true}"#,
        r#"{"w":"f32","group_size":64}"#,
        r#"{"w":"f32","block":"dense","weights":"zero_points"}"#,
        r#"{"w":"f32","y":"f32","epilogue":["gelu_table"]}"#,
        r#"{"weight_only":true,"x":"u8"}"#,
        r#"{"weight_only":true,"y":"i32"}"#,
        r#"{"weight_only":true,"block":"dense","weights":"zero_points"}"#,
        r#"{"weight_only":1}"#,
        r#"{"group_size":6}"#,
        r#"{"group_size":-4}"#,
        r#"{"group_size":64,"x":"i8"}"#,
        r#"{"k":70000,"n":1,"m":1}"#,
    ];
    for answer in &served(&bad, &good) {
        for field in ["us_min", "us_median", "gops", "peak_gops", "pct_peak", "bytes_per_value"] {
            assert!(answer[field].as_f64().unwrap() > 0.0, "{field}: {answer}");
        }
        assert_eq!(answer["loop_gbps"].is_f64(), answer["m"] == 1);
    }
}

/// Every type of weights in every format, packed and not, one token and some.
#[test]
fn serve_measures_layers_of_floats() {
    let weights = [
        r#""w":"f32""#,
        r#""w":"bf16""#,
        r#""w":"f16""#,
        r#""weight_only":true"#,
        r#""group_size":4"#,
        r#""group_size":32,"y":"f16","x":"bf16""#,
    ];
    let others = [
        r#""m":1"#,
        r#""m":35,"epilogue":["bias","residual","gelu"],"threads":2"#,
        r#""m":7,"in":"packed","out":"packed","epilogue":["clamp"]"#,
        r#""m":3,"x":"f16","y":"i8","epilogue":["silu_table"]"#,
    ];
    let mut cases = Vec::new();
    for w in weights {
        for block in ["dense", "4x1", "1x4", "4x4", "16x1", "1x16", "16x16", "3x5"] {
            for other in others {
                let known = other.contains("\"x\"") && w.contains("\"x\"");
                if !known {
                    let block = format!(r#""block":"{block}","sparsity":0.6"#);
                    cases.push(format!(r#"{{{w},{block},{other},"n":37,"k":70,"min_ms":0}}"#));
                }
            }
        }
    }
    let answers = serve(&cases);
    assert_eq!(answers.len(), cases.len());
    for (case, answer) in cases.iter().zip(&answers) {
        assert_eq!(answer["checked"], true, "{case}: {answer}");
        let peak_of = answer["peak_of"].as_str().unwrap();
        // Where pairs are slower than floats, they are widened.
        let pairs = answer["kernel"].as_str().unwrap().contains("bf16bf16");
        assert!(peak_of == "f32" || (peak_of == "bf16" && pairs), "{case}: {answer}");
        if pairs && answer["block"] == "dense" {
            assert_eq!(peak_of, "bf16", "{case}");
        }
        assert!(answer["peak_gops"].as_f64().unwrap() > 0.0, "{case}: {answer}");
        assert_eq!(answer["read_gbps"].is_f64() && answer["loop_gbps"].is_f64(), answer["m"] == 1, "{case}");
    }
    // What is not said is as the weights.
    for (w, types) in [("f32", "f32"), ("bf16", "bf16"), ("f16", "f16"), ("i8", "f32")] {
        let answer = answers.iter().find(|a| a["w"] == w).unwrap();
        assert_eq!((&answer["x"], &answer["y"]), (&types.into(), &types.into()));
    }
}

#[test]
fn bench_prints_a_case() {
    let small = ["bench", "-m", "3", "-n", "8", "-k", "8", "--min-ms", "0"];
    let plain = siskin(&small);
    assert!(text(&plain.stdout).contains("GOP/s"), "{}", text(&plain.stderr));
    let json = siskin(&[&small[..], &["--json", "--epilogue", "bias,gelu_tanh"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["epilogue"], serde_json::json!(["bias", "gelu_tanh"]));
    let floats = siskin(&[&small[..], &["--w", "f16", "--block", "dense"]].concat());
    assert!(text(&floats.stdout).contains("in f32"), "{}", text(&floats.stderr));
    assert!(siskin(&[&small[..], &["--weight-only", "--group-size", "4"]].concat()).status.success());
    refused(&siskin(&["bench", "--w", "f32", "--x", "u8"]), "x:");
    refused(&siskin(&["bench", "--group-size", "2"]), "group_size:");
    refused(&siskin(&["bench", "-m", "0"]), "m:");
    refused(&siskin(&["bench", "--x", "u4"]), "u4");
    refused(&siskin(&["bench", "--block", "4"]), "block");
    refused(&siskin(&["bench", "--isa", "mmx"]), "isa");
}

#[test]
fn info_and_verify_report() {
    let info: Value = serde_json::from_slice(&siskin(&["info", "--json"]).stdout).unwrap();
    assert!(info["cpu"].is_string() && info["vbmi"].is_boolean());
    let tiers = info["tiers"].as_array().unwrap();
    assert!(tiers.iter().any(|t| t["isa"] == info["isa"] && t["supported"] == true));

    // A quarter of them are of attention.
    let verify = siskin(&["verify", "--cases", "60", "--seed", "5"]);
    assert!(verify.status.success(), "{}", text(&verify.stderr));
    let report = text(&verify.stdout);
    for tier in tiers {
        let line = report.lines().find(|l| l.split(' ').next() == tier["isa"].as_str()).unwrap();
        assert_eq!(line.contains("ran"), tier["supported"] == true, "{line}");
    }
    assert!(siskin(&["verify", "--isa", "scalar", "--cases", "3"]).status.success());
    refused(&siskin(&["verify", "--isa", "mmx"]), "isa");
}

#[test]
fn survey_reads_every_float() {
    let folder = folder("survey");
    let path = folder.join("model.safetensors");
    let values: Vec<f32> = (0..8 * 12).map(|i| (i as f32 * 0.37).sin()).collect();
    let bf16: Vec<u8> = values.iter().flat_map(|v| siskin::bf16::from_f32(*v).to_le_bytes()).collect();
    let f16: Vec<u8> = values.iter().flat_map(|v| siskin::f16::from_f32(*v).to_le_bytes()).collect();
    let tensors = [
        ("a", Dtype::F32, vec![8, 12], f32s(&values)),
        ("b", Dtype::BF16, vec![8, 12], bf16),
        ("c", Dtype::F16, vec![8, 12], f16),
        ("bias", Dtype::F32, vec![96], f32s(&values)),
        ("ids", Dtype::I8, vec![8, 12], vec![0; 96]),
        ("word_embedding", Dtype::F32, vec![8, 12], f32s(&values)),
    ];
    save(&path, &tensors, None);
    let model = path.to_str().unwrap();
    let flags = ["survey", model, "--sparsity", "0.5", "--block", "4x1", "--tokens", "3", "--min-ms", "0"];
    let output = siskin(&[&flags[..], &["--json"]].concat());
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = survey["weights"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for row in rows {
        assert_eq!(row["sparsity"], 0.5);
        assert!(row["quantized_db"].as_f64().unwrap() > row["pruned_db"].as_f64().unwrap());
    }
    assert_eq!(survey["skipped"].as_array().unwrap().len(), 3);
    for dtype in ["i8", "f32", "bf16", "f16"] {
        let output = siskin(&[&flags[..], &["--json", "--dtype", dtype]].concat());
        let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(survey["dtype"], dtype);
        for row in survey["weights"].as_array().unwrap() {
            assert!(row["dense_us"].as_f64().unwrap() > 0.0 && row["sparse_us"].as_f64().unwrap() > 0.0);
            // Nothing is lost where nothing is rounded.
            let same = row["dtype"].as_str().unwrap().eq_ignore_ascii_case(dtype);
            assert!(row["quantized_db"].is_null() || !(same || dtype == "f32"), "{dtype}: {row}");
        }
    }
    refused(&siskin(&["survey", model, "--dtype", "u8"]), "u8");
    let csv = siskin(&[&flags[..], &["--csv"]].concat());
    assert_eq!(text(&csv.stdout).lines().count(), 7);
    let table = siskin(&[&flags[..], &["--all"]].concat());
    assert!(text(&table.stdout).contains("word_embedding"));

    refused(&siskin(&["survey", model, "--sparsity", "1"]), "sparsity");
    refused(&siskin(&["survey", model, "--block", "x"]), "block");
    refused(&siskin(&["survey", model, "--tokens", "0"]), "tokens");
}
