//! EcoFormer's codes and contexts from files: those of the original, and what is refused.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use siskin::Scratch;
use siskin::attention::Sequences;
use siskin::ecoformer::{Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator};
use siskin::{Ctx, HeadsMut, HeadsRef, bf16};
use std::fs;
use std::path::Path;
use std::process::Output;

const GOLDEN: [&[u8]; 4] = [
    include_bytes!("../../../tests/golden/eco_infer_h1_d32_b16.safetensors"),
    include_bytes!("../../../tests/golden/eco_infer_h2_d64_b16.safetensors"),
    include_bytes!("../../../tests/golden/eco_infer_h3_d16_b8_m10.safetensors"),
    include_bytes!("../../../tests/golden/eco_infer_h3_d32_b32_m50.safetensors"),
];

/// `[batch, heads, tokens, n]` with `size` bytes a number to `[batch, tokens, heads, n]`.
fn tokens_first(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let &[batch, heads, tokens, n] = shape else { panic!("{shape:?}") };
    let mut out = Vec::new();
    for b in 0..batch {
        for t in 0..tokens {
            for h in 0..heads {
                out.extend(&data[((b * heads + h) * tokens + t) * n * size..][..n * size]);
            }
        }
    }
    out
}

/// A tensor of the original, as siskin lays it out.
fn of(golden: &SafeTensors<'_>, name: &str, as_name: &'static str) -> Tensor {
    let tensor = golden.tensor(name).unwrap();
    let &[batch, heads, tokens, n] = tensor.shape() else { panic!("{name}") };
    let size = if tensor.dtype() == Dtype::I8 { 1 } else { 4 };
    let data = tokens_first(tensor.data(), tensor.shape(), size);
    (as_name, tensor.dtype(), vec![batch, tokens, heads, n], data)
}

fn original_hash(golden: &SafeTensors<'_>) -> [Tensor; 3] {
    ["anchor", "mvec", "A"].map(|name| {
        let tensor = golden.tensor(&format!("param.{name}")).unwrap();
        (name, tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())
    })
}

/// As `ecoformer-fit` would write it.
fn own_hash(original: &[Tensor; 3]) -> [Tensor; 3] {
    let [(_, _, a, anchors), (_, _, _, centring), (_, _, p, projection)] = original.clone();
    let m = a[2];
    [
        ("anchors", Dtype::F32, a[1..].to_vec(), anchors),
        ("centring", Dtype::F32, vec![a[1], m], centring),
        ("projection", Dtype::F32, p, projection),
    ]
}

/// Runs an operation on tensors, with a file for the hash if there is one.
fn run(folder: &Path, operation: &str, tensors: &[Tensor], hash: &[Tensor], more: &[&str]) -> Output {
    let [input, own, out] = ["in", "hash", "out"].map(|name| folder.join(format!("{name}.safetensors")));
    save(&input, tensors, None);
    let mut args = vec!["run", operation, "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()];
    if !hash.is_empty() {
        save(&own, hash, None);
        args.extend(["--hash", own.to_str().unwrap()]);
    }
    siskin(&[&args, more].concat())
}

/// A tensor of the last [`run`]: its type, shape and bytes.
#[track_caller]
fn result(folder: &Path, output: &Output, name: &str) -> (Dtype, Vec<usize>, Vec<u8>) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = fs::read(folder.join("out.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn codes_and_contexts_of_the_original_are_met() {
    let folder = folder("ecoformer-golden");
    for file in GOLDEN {
        let golden = SafeTensors::deserialize(file).unwrap();
        let (x, v) = ([of(&golden, "in.qk", "x")], of(&golden, "in.v", "v"));
        let codes = of(&golden, "out.codes", "codes");
        let original = original_hash(&golden);
        let own = own_hash(&original);

        let together = [&x[..], &original].concat();
        for (tensors, hash) in [(&together[..], &[][..]), (&x, &original), (&x, &own)] {
            let output = run(&folder, "ecoformer-encode", tensors, hash, &[]);
            let got = result(&folder, &output, "codes");
            assert_eq!(got, (Dtype::I8, codes.2.clone(), codes.3.clone()));
        }
        let bits = codes.2[3];
        let words: Vec<u8> = codes
            .3
            .chunks(bits)
            .map(|signs| signs.iter().rev().fold(0u64, |word, &sign| word << 1 | u64::from(sign == 1)))
            .flat_map(u64::to_le_bytes)
            .collect();
        let output = run(&folder, "ecoformer-encode", &x, &own, &["--bandwidth", "sequence"]);
        let shape = [&codes.2[..3], &[1]].concat();
        assert_eq!(result(&folder, &output, "words"), (Dtype::U64, shape, words));

        // By their codes, and by their tokens.
        let (_, _, shape, expected) = of(&golden, "out.attn", "y");
        let expected = floats(&expected);
        let largest = expected.iter().fold(0f32, |most, y| most.max(y.abs()));
        for (given, hash) in [(&codes, &[][..]), (&x[0], &own)] {
            let output = run(&folder, "ecoformer-attention", &[given.clone(), v.clone()], hash, &[]);
            let (dtype, got_shape, y) = result(&folder, &output, "y");
            assert_eq!((dtype, &got_shape), (Dtype::F32, &shape));
            for (got, want) in floats(&y).iter().zip(&expected) {
                assert!((got - want).abs() <= 1e-6 * largest, "{got} for {want}");
            }
        }
    }
}

const N: usize = 12;
const H: usize = 2;
const D: usize = 4;
const BITS: usize = 70;
const ANCHORS: usize = 5;

fn numbers(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * i) as f32 * 0.37 + seed).sin()).collect()
}

fn hash(sigma: bool) -> Vec<Tensor> {
    let anchors = numbers(H * ANCHORS * D, 3.0);
    let projection = numbers(H * BITS * ANCHORS, 5.0);
    let mut hash = vec![
        ("anchors", Dtype::F32, vec![H, ANCHORS, D], f32s(&anchors)),
        ("centring", Dtype::F32, vec![H, ANCHORS], f32s(&[0.5; H * ANCHORS])),
        ("projection", Dtype::F32, vec![H, BITS, ANCHORS], f32s(&projection)),
    ];
    if sigma {
        hash.push(("sigma", Dtype::F32, vec![H], f32s(&[1.5, 2.5])));
    }
    hash
}

/// The codes of [`hash`] by the library.
fn library_codes(x: &[f32], sequences: &Sequences<'_>, bandwidth: Bandwidth) -> BitCodes {
    let (anchors, projection) = (numbers(H * ANCHORS * D, 3.0), numbers(H * BITS * ANCHORS, 5.0));
    let hash = KernelHash::from_parts(H, D, anchors, vec![0.5; H * ANCHORS], projection)
        .unwrap()
        .with_sigma(vec![1.5, 2.5])
        .unwrap();
    let mut codes = BitCodes::with_capacity(0, BITS).unwrap();
    let x = HeadsRef::new(x, N, H, D).unwrap();
    hash.encode(x, sequences, bandwidth, &mut codes, &Ctx::new().unwrap(), &mut Scratch::new()).unwrap();
    codes
}

/// Head by head to token by token.
fn signs(codes: &BitCodes) -> Vec<u8> {
    let all = codes.to_signs();
    let of = |t, h: usize| &all[(h * N + t) * BITS..][..BITS];
    (0..N * H).flat_map(|i| of(i / H, i % H)).map(|&sign| sign as u8).collect()
}

#[test]
fn what_is_asked_for_is_what_the_library_does() {
    let folder = folder("ecoformer-run");
    let values = numbers(N * H * D, 0.0);
    let x = ("x", Dtype::F32, vec![N, H, D], f32s(&values));
    let encode = |tensors: &[Tensor], more: &[&str]| {
        let output = run(&folder, "ecoformer-encode", tensors, &hash(true), more);
        result(&folder, &output, "codes").2
    };
    let whole = Sequences::own(1, N);
    let sequence = signs(&library_codes(&values, &whole, Bandwidth::Sequence));
    let frozen = signs(&library_codes(&values, &whole, Bandwidth::Frozen));
    assert!(sequence != frozen, "the bandwidth is the same");
    assert_eq!(encode(std::slice::from_ref(&x), &[]), sequence);
    assert_eq!(encode(std::slice::from_ref(&x), &["--bandwidth", "frozen"]), frozen);
    let params = r#"{"bandwidth":"frozen","threads":2,"isa":"scalar"}"#;
    assert_eq!(encode(std::slice::from_ref(&x), &["--params", params]), frozen);
    let flag = ["--params", params, "--bandwidth", "sequence"];
    assert_eq!(encode(std::slice::from_ref(&x), &flag), sequence);

    // A batch is its sequences packed.
    let halves = signs(&library_codes(&values, &Sequences::own(2, N / 2), Bandwidth::Sequence));
    assert!(halves != sequence, "both halves are alike");
    let batch = ("x", Dtype::F32, vec![2, N / 2, H, D], f32s(&values));
    assert_eq!(encode(&[batch], &[]), halves);
    let ends = ("cu_seqlens", Dtype::I32, vec![3], i32s(&[0, N as i32 / 2, N as i32]));
    assert_eq!(encode(&[x.clone(), ends.clone()], &[]), halves);

    // Narrow floats are widened, and what has no direction is counted.
    let mut narrow: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    narrow[5 * D..6 * D].fill(bf16::ZERO);
    let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
    let bytes = narrow.iter().flat_map(|v| v.to_le_bytes()).collect();
    let of_wide = signs(&library_codes(&wide, &whole, Bandwidth::Sequence));
    assert_eq!(encode(&[("x", Dtype::BF16, vec![N, H, D], bytes)], &[]), of_wide);
    let bytes = fs::read(folder.join("out.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let report: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["encoded"]).unwrap();
    assert_eq!(report["without_direction"], 1);

    // No tokens have no codes.
    assert!(encode(&[("x", Dtype::F32, vec![0, H, D], vec![])], &[]).is_empty());

    // Attention, by q and k of their own.
    let [q, k] = [Bandwidth::Sequence, Bandwidth::Frozen].map(|b| library_codes(&values, &whole, b));
    let v = numbers(N * H * 3, 9.0);
    let attend = |v: &[f32], numerator, causal: bool, sequences: &Sequences<'_>| {
        let mut y = vec![0.0; v.len()];
        let mut attention = LinearAttention::new(H, BITS).unwrap().numerator(numerator);
        if causal {
            attention = attention.causal();
        }
        let (from, to) = (HeadsRef::new(v, N, H, 3).unwrap(), HeadsMut::new(&mut y, N, H, 3).unwrap());
        let (ctx, mut scratch) = (Ctx::new().unwrap(), Scratch::new());
        let inputs = LinearAttentionInputs::new(&q, &k, from);
        attention.forward(inputs, sequences, to, &ctx, &mut scratch).unwrap();
        f32s(&y)
    };
    let case = [
        ("q", Dtype::I8, vec![N, H, BITS], signs(&q)),
        ("k", Dtype::I8, vec![N, H, BITS], signs(&k)),
        ("v", Dtype::F32, vec![N, H, 3], f32s(&v)),
    ];
    let y = |more: &[&str], extra: &[Tensor]| {
        let output = run(&folder, "ecoformer-attention", &[&case, extra].concat(), &[], more);
        result(&folder, &output, "y").2
    };
    assert_eq!(y(&[], &[]), attend(&v, Numerator::Released, false, &whole));
    let consistent = ["--numerator", "consistent", "--causal"];
    assert_eq!(y(&consistent[..2], &[]), attend(&v, Numerator::Consistent, false, &whole));
    assert_eq!(y(&consistent, &[]), attend(&v, Numerator::Consistent, true, &whole));
    let params = r#"{"numerator":"consistent","causal":true,"threads":2}"#;
    let packed = Sequences::own(2, N / 2);
    assert_eq!(y(&["--params", params], &[ends]), attend(&v, Numerator::Consistent, true, &packed));

    // Values of bytes.
    let bytes: Vec<u8> = (0..N * H * 3).map(|i| (i * 37) as u8).collect();
    let case = [
        case[0].clone(),
        case[1].clone(),
        ("v", Dtype::U8, vec![N, H, 3], bytes),
        ("v_scale", Dtype::F32, vec![H], f32s(&[0.5, 0.25])),
        ("v_zero_point", Dtype::I32, vec![1], i32s(&[100])),
    ];
    let output = run(&folder, "ecoformer-attention", &case, &[], &consistent[..2]);
    let got = floats(&result(&folder, &output, "y").2);
    let value = |i: usize| (f32::from((i * 37) as u8) - 100.0) * [0.5, 0.25][i / 3 % H];
    let wide: Vec<f32> = (0..N * H * 3).map(value).collect();
    for (got, want) in got.iter().zip(floats(&attend(&wide, Numerator::Consistent, false, &whole))) {
        assert!((got - want).abs() < 1e-4, "{got} for {want}");
    }
}

/// Tensors, those of a hash, flags, and what is at fault.
type Bad = (Vec<Tensor>, Vec<Tensor>, &'static [&'static str], &'static str);

#[test]
fn what_is_bad_leaves_no_file() {
    let folder = folder("ecoformer-run-bad");
    let x: Tensor = ("x", Dtype::F32, vec![N, H, D], f32s(&numbers(N * H * D, 0.0)));
    let v: Tensor = ("v", Dtype::F32, vec![N, H, 3], f32s(&numbers(N * H * 3, 0.0)));
    let codes: Tensor = ("codes", Dtype::I8, vec![N, H, 3], vec![1; N * H * 3]);
    let without = |name: &str| hash(false).into_iter().filter(|t| t.0 != name).collect::<Vec<_>>();
    let but = |tensor: Tensor| {
        let mut hash = without(tensor.0);
        hash.push(tensor);
        hash
    };
    let infinite = f32s(&[f32::INFINITY; H * ANCHORS]);
    let square = f32s(&numbers(H * D * ANCHORS, 0.0));
    let encode: Vec<Bad> = vec![
        (vec![], hash(false), &[], "x:"),
        (vec![x.clone()], vec![], &[], "anchor:"),
        (vec![x.clone(), codes.clone()], hash(false), &[], "codes:"),
        (vec![("x", Dtype::F32, vec![N * H, D], x.3.clone())], hash(false), &[], "x:"),
        (vec![("x", Dtype::I32, vec![N, H, D], x.3.clone())], hash(false), &[], "x:"),
        (vec![("x", Dtype::U8, vec![N, H, D], vec![0; N * H * D])], hash(false), &[], "x:"),
        (vec![("x", Dtype::F32, vec![N, D, H], x.3.clone())], hash(false), &[], "x:"),
        (vec![("x", Dtype::F32, vec![1 << 40, 0, H, D], vec![])], hash(false), &[], "x:"),
        (vec![("x", Dtype::F32, vec![1 << 60, 0, D], vec![])], hash(false), &[], "x:"),
        (vec![x.clone()], without("centring"), &[], "centring:"),
        (vec![x.clone()], without("projection"), &[], "projection:"),
        (vec![x.clone()], [hash(false), vec![v.clone()]].concat(), &[], "v:"),
        (vec![x.clone()], but(("anchors", Dtype::F32, vec![H, D, ANCHORS], square)), &[], "centring:"),
        (
            vec![x.clone()],
            but(("centring", Dtype::F32, vec![ANCHORS, H], infinite.clone())),
            &[],
            "centring:",
        ),
        (vec![x.clone()], but(("centring", Dtype::F32, vec![H, ANCHORS], infinite)), &[], "centring[0]"),
        (vec![x.clone()], but(("projection", Dtype::F32, vec![H, 0, ANCHORS], vec![])), &[], "bits:"),
        (vec![x.clone()], but(("sigma", Dtype::F32, vec![1], f32s(&[1.0]))), &[], "sigma:"),
        (vec![x.clone()], but(("sigma", Dtype::F32, vec![H], f32s(&[1.0, -1.0]))), &[], "sigma[1]"),
        (vec![x.clone()], hash(false), &["--bandwidth", "frozen"], "bandwidth:"),
        (vec![x.clone()], hash(false), &["--bandwidth", "own"], "--bandwidth"),
        (vec![x.clone()], hash(false), &["--params", r#"{"bits":5}"#], "params"),
        (vec![x.clone()], hash(false), &["--params", r#"{"isa":"mmx"}"#], "isa"),
        (vec![x.clone()], hash(false), &["--params", r#"{"threads":0}"#], "threads"),
    ];
    let attend: Vec<Bad> = vec![
        (vec![codes.clone()], vec![], &[], "v:"),
        (vec![v.clone()], vec![], &[], "q:"),
        (vec![v.clone(), ("q", codes.1, codes.2.clone(), codes.3.clone())], vec![], &[], "k:"),
        (vec![v.clone(), codes.clone(), x.clone()], hash(false), &[], "codes:"),
        (vec![v.clone(), codes.clone()], hash(false), &[], "x:"),
        (vec![v.clone(), codes.clone()], vec![], &["--bandwidth", "sequence"], "x:"),
        (vec![v.clone(), ("codes", Dtype::I8, vec![H, N, 3], codes.3.clone())], vec![], &[], "codes:"),
        (vec![v.clone(), ("codes", Dtype::I8, vec![N * H, 3], codes.3.clone())], vec![], &[], "codes:"),
        (vec![v.clone(), ("codes", Dtype::U8, codes.2.clone(), codes.3.clone())], vec![], &[], "codes:"),
        (vec![v.clone(), ("codes", Dtype::I8, codes.2.clone(), vec![0; N * H * 3])], vec![], &[], "codes[0]"),
        (vec![v.clone(), ("codes", Dtype::I8, vec![N, H, 0], vec![])], vec![], &[], "codes:"),
        (vec![v.clone(), ("codes", Dtype::I8, vec![N, H, 257], vec![1; N * H * 257])], vec![], &[], "bits:"),
        (vec![("v", Dtype::U8, vec![N, H, 3], vec![0; N * H * 3]), codes.clone()], vec![], &[], "v_scale"),
        (vec![("v", Dtype::F32, vec![N, H, 0], vec![]), codes.clone()], vec![], &[], "v:"),
        (vec![v.clone(), codes.clone()], vec![], &["--causal"], "numerator:"),
        (vec![v.clone(), codes.clone()], vec![], &["--numerator", "exact"], "--numerator"),
        (vec![v.clone(), codes.clone()], vec![], &["--params", r#"{"gamma":0}"#], "params"),
        (
            vec![v.clone(), codes.clone(), ("cu_seqlens", Dtype::I32, vec![2], i32s(&[0, 5]))],
            vec![],
            &[],
            "cu_seqlens:",
        ),
    ];
    for (operation, cases) in [("ecoformer-encode", encode), ("ecoformer-attention", attend)] {
        for (tensors, hash, more, names) in cases {
            refused(&run(&folder, operation, &tensors, &hash, more), names);
            assert!(!folder.join("out.safetensors").exists(), "{names} left a file behind");
        }
        let help = siskin(&["run", operation, "--help"]);
        assert!(text(&help.stdout).contains("[.., H, bits]"));
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "what is read, and no part of what is written");
}
