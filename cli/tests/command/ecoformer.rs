//! EcoFormer by the command.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use siskin::Ctx;
use siskin::HeadsRef;
use siskin::ecoformer::{FitOptions, fit};
use std::fs;
use std::path::Path;
use std::process::Output;

#[test]
fn energy_is_that_of_the_paper() {
    let table = siskin(&["energy"]);
    let table = text(&table.stdout);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}"));
        line.split(['│', '┆'])
            .map(|cell| cell.trim().to_string())
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(row("pvtv2-b0")[1..8], ["2.016", "1.993", "9.253", "0.535", "0.565", "2.489", "73.1 %"]);
    assert_eq!(row("pvtv2-b4")[3..8], ["73.432", "9.571", "9.824", "44.255", "39.7 %"]);
    assert_eq!(row("twins-svt-s")[3..8], ["27.363", "2.719", "2.808", "12.587", "54.0 %"]);
    for note in ["squarings", "normalization", "overstated"] {
        assert!(table.contains(note), "{note}");
    }

    let one = siskin(&["energy", "pvtv2-b0", "--json"]);
    let one: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["ecoformer"]["multiplications"], 535_392_840_u64);
    assert_eq!(one[0]["softmax"]["additions"], 1_993_315_712_u64);
    let shorter = siskin(&["energy", "pvtv2-b0", "--json", "--bits", "8", "--anchors", "10"]);
    let shorter: Value = serde_json::from_slice(&shorter.stdout).unwrap();
    assert!(shorter[0]["saved"].as_f64() > one[0]["saved"].as_f64());

    refused(&siskin(&["energy", "pvtv2-b7"]), "model");
    refused(&siskin(&["energy", "--bits", "x"]), "--bits");
}

fn run(folder: &Path, tensors: &[Tensor], params: &str) -> Output {
    let (input, out) = (folder.join("x.safetensors"), folder.join("hash.safetensors"));
    save(&input, tensors, Some(params));
    siskin(&["run", "ecoformer-fit", "--in", input.to_str().unwrap(), "--out", out.to_str().unwrap()])
}

/// Name, shape and bytes.
type Stored = (String, Vec<usize>, Vec<u8>);

/// The tensors of the last [`run`] and its metadata.
fn result(folder: &Path, output: &Output) -> (Vec<Stored>, Value) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = fs::read(folder.join("hash.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let report = serde_json::from_str(&header.metadata().as_ref().unwrap()["fit"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::F32);
            (name, tensor.shape().to_vec(), tensor.data().to_vec())
        })
        .collect();
    tensors.sort();
    (tensors, report)
}

const N: usize = 12;
const H: usize = 2;
const D: usize = 4;
const PARAMS: &str = r#"{"bits":3,"anchors":5,"neighbours":2,"iterations":4,"learning_rate":0.1,"momentum":0.5,"seed":9,"threads":2}"#;

fn tokens() -> Vec<f32> {
    (0..N * H * D).map(|i| (i as f32 * 1.7).sin()).collect()
}

#[test]
fn a_fit_is_that_of_the_library() {
    let folder = folder("ecoformer-fit");
    let x = tokens();
    let one = |more: &[Tensor], params: &str| {
        let tensors = [&[("x", Dtype::F32, vec![N, H, D], f32s(&x))], more].concat();
        result(&folder, &run(&folder, &tensors, params))
    };
    let (tensors, report) = one(&[], PARAMS);
    let mut options = FitOptions::default().bits(3).anchors(5).neighbours(2).iterations(4);
    options = options.learning_rate(0.1).momentum(0.5).seed(9);
    let ctx = Ctx::new().unwrap();
    let whole = [HeadsRef::new(&x, N, H, D).unwrap()];
    let learned = fit(&whole, &options, &ctx).unwrap();
    let expected = [
        ("anchors".to_string(), vec![H, 5, D], f32s(&learned.anchors)),
        ("centring".to_string(), vec![H, 5], f32s(&learned.centring)),
        ("projection".to_string(), vec![H, 3, 5], f32s(&learned.projection)),
        ("sigma".to_string(), vec![H], f32s(&learned.sigma)),
    ];
    assert_eq!(tensors, expected);
    for bit in 0..3 {
        assert_eq!(report["accepted"][bit], learned.accepted[bit]);
        assert_eq!(report["before"][bit], learned.losses[bit].before);
        assert_eq!(report["after"][bit], learned.losses[bit].after);
    }

    // What is given is not drawn.
    let start: Vec<f32> = (0..H * 3 * 5).map(|i| (i as f32).cos()).collect();
    let given = one(
        &[
            ("anchor_tokens", Dtype::I32, vec![5], i32s(&[3, 1, 4, 11, 5])),
            ("projection", Dtype::F32, vec![H, 3, 5], f32s(&start)),
        ],
        PARAMS,
    );
    options.anchor_tokens = Some(vec![3, 1, 4, 11, 5]);
    options.projection = Some(start);
    let learned = fit(&whole, &options, &ctx).unwrap();
    assert_eq!((&given.0[0].2, &given.0[2].2), (&f32s(&learned.anchors), &f32s(&learned.projection)));
    assert_ne!(given.0, tensors);

    // A batch is its sequences packed.
    let batch = [("x", Dtype::F32, vec![2, N / 2, H, D], f32s(&x))];
    let batch = result(&folder, &run(&folder, &batch, PARAMS));
    let packed = one(&[("cu_seqlens", Dtype::I32, vec![3], i32s(&[0, N as i32 / 2, N as i32]))], PARAMS);
    assert_eq!(batch, packed);
    assert_ne!(batch.0, tensors);

    // Narrow floats are widened.
    let narrow: Vec<u8> = x.iter().flat_map(|v| siskin::bf16::from_f32(*v).to_le_bytes()).collect();
    let wide: Vec<f32> = x.iter().map(|v| siskin::bf16::from_f32(*v).to_f32()).collect();
    let narrow = result(&folder, &run(&folder, &[("x", Dtype::BF16, vec![N, H, D], narrow)], PARAMS));
    let wide = result(&folder, &run(&folder, &[("x", Dtype::F32, vec![N, H, D], f32s(&wide))], PARAMS));
    assert_eq!(narrow, wide);
}

#[test]
fn a_bad_fit_leaves_no_file() {
    let folder = folder("ecoformer-fit-bad");
    let x = ("x", Dtype::F32, vec![N, H, D], f32s(&tokens()));
    let with = |more: Tensor| vec![x.clone(), more];
    let mut infinite = tokens();
    infinite[7] = f32::INFINITY;
    for (tensors, params, names) in [
        (vec![], PARAMS, "x:"),
        (vec![("x", Dtype::F32, vec![N * H, D], f32s(&tokens()))], PARAMS, "x:"),
        (vec![("x", Dtype::I32, vec![N, H, D], f32s(&tokens()))], PARAMS, "x:"),
        (vec![("x", Dtype::F32, vec![1 << 40, 0, H, D], vec![])], PARAMS, "x:"),
        (vec![("x", Dtype::F32, vec![N, H, D], f32s(&infinite))], PARAMS, "sequences:"),
        (with(("extra", Dtype::U8, vec![1], vec![1])), PARAMS, "extra"),
        (with(("cu_seqlens", Dtype::I32, vec![2], i32s(&[0, 5]))), PARAMS, "cu_seqlens"),
        (with(("cu_seqlens", Dtype::I32, vec![3], i32s(&[0, 0, 12]))), PARAMS, "cu_seqlens"),
        (with(("cu_seqlens", Dtype::I32, vec![0], vec![])), PARAMS, "cu_seqlens"),
        (with(("anchor_tokens", Dtype::I32, vec![1], i32s(&[3]))), PARAMS, "anchor_tokens"),
        (with(("anchor_tokens", Dtype::I32, vec![5], i32s(&[0, 1, 2, 3, 12]))), PARAMS, "anchor_tokens[4]"),
        (with(("anchor_tokens", Dtype::I32, vec![5], i32s(&[0, 1, -2, 3, 4]))), PARAMS, "anchor_tokens[2]"),
        (with(("projection", Dtype::F32, vec![1], f32s(&[1.0]))), PARAMS, "projection"),
        (with(("projection", Dtype::F32, vec![H, 1, 1], f32s(&[1.0; H]))), PARAMS, "projection"),
        (vec![x.clone()], "{}", "anchors"),
        (vec![x.clone()], r#"{"anchors":5,"bits":257}"#, "bits"),
        (vec![x.clone()], r#"{"anchors":5,"neighbours":13}"#, "neighbours"),
        (vec![x.clone()], r#"{"anchors":5,"learning_rate":0}"#, "learning_rate"),
        (vec![x.clone()], r#"{"anchors":5,"momentum":1}"#, "momentum"),
        (vec![x.clone()], r#"{"seed":-1}"#, "params"),
        (vec![x.clone()], r#"{"threads":0}"#, "threads"),
        (vec![x.clone()], r#"{"isa":"mmx"}"#, "isa"),
        (vec![x.clone()], r#"{"topk":1}"#, "params"),
    ] {
        refused(&run(&folder, &tensors, params), names);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{params} left a file behind");
    }
    let help = siskin(&["run", "ecoformer-fit", "--help"]);
    assert!(text(&help.stdout).contains("anchor_tokens"));
}
