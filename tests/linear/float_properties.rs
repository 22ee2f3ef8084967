//! What must not change the result of a layer of floats, or change it only so: scaling, how weights are stored, other tokens.

use crate::common::float::*;
use crate::common::{Rng, cases, isas, serial};
use siskin::linear::InputQuantization::{PerToken, Static};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// A sparse layer has the bits of the dense layer of the same matrix, and a power of two passes through.
#[test]
fn sparse_is_dense_and_powers_of_two_pass() {
    let mut r = Rng::new(35);
    for isa in isas("sparse_is_dense_and_powers_of_two_pass") {
        let ctx = serial(isa);
        for _ in 0..cases(60) {
            let case = Case { weights: Weights::Float(Kind::F32), x: Kind::F32, ..Case::random(&mut r) };
            let Case { m, n, k, block: Some((rows, cols)), .. } = case else { continue };
            let w: Vec<f32> = case.data().w.iter().map(|w| if w.is_finite() { *w } else { 0.5 }).collect();
            let x: Vec<f32> = (0..m * k).map(|_| r.float(-2.0, 2.0)).collect();
            let dense = Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap();
            let block = BlockShape::new(rows, cols).unwrap();
            let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block).unwrap();
            let sparse = Linear::sparse(&bsr).build(&ctx).unwrap();
            let want = forward_f32(&dense, &x, m, &ctx);
            assert_eq!(bits(&forward_f32(&sparse, &x, m, &ctx)), bits(&want), "{isa} {case:?}");
            // Not where something is subnormal or near infinity.
            if want.iter().all(|y| *y == 0.0 || (1e-30..1e30).contains(&y.abs())) {
                let eight: Vec<f32> = x.iter().map(|x| 8.0 * x).collect();
                let want: Vec<f32> = want.iter().map(|y| 8.0 * y).collect();
                let got = forward_f32(&sparse, &eight, m, &ctx);
                let tiny = w.iter().any(|w| *w != 0.0 && w.abs() < 1e-20);
                assert!(tiny || bits(&got) == bits(&want), "{isa} {case:?}");
            }
        }
    }
}

/// A case whose numbers are exact when they are scaled, and whose output is the sums alone.
fn plain(r: &mut Rng) -> Data {
    let mut d = Case { residual: None, act: 0, y: Kind::F32, ..Case::random(r) }.data();
    let tame = |v: &mut f32| match v.abs() {
        0.0 => *v = 0.0,
        1e-3..1e3 => {}
        _ => *v = 0.5,
    };
    d.w.iter_mut().for_each(tame);
    d.x.iter_mut().for_each(tame);
    d.bias.clear();
    d
}

/// The bits of a layer's outputs.
fn all_bits(d: &Data, ctx: &Ctx, scratch: &mut Scratch) -> Vec<u32> {
    bits(&d.forward(&d.layer(ctx), (0, d.case.m), ctx, scratch))
}

/// Of every type of weights: what is stored of a matrix changes nothing, and a power of two in w or its scales passes
/// through.
#[test]
fn storage_and_powers_of_two_of_w_pass() {
    let mut r = Rng::new(42);
    let mut scratch = Scratch::new();
    let isas = isas("storage_and_powers_of_two_of_w_pass");
    for _ in 0..cases(150) {
        let d = plain(&mut r);
        let dense = Data { case: Case { block: None, ..d.case }, ..d.clone() };
        let mut eight = d.clone();
        let scaled =
            if matches!(d.case.weights, Weights::Float(_)) { &mut eight.w } else { &mut eight.scales };
        scaled.iter_mut().for_each(|v| *v *= 8.0);
        for &isa in &isas {
            let ctx = serial(isa);
            let what = format!("{isa} {:?}", d.case);
            let layer = d.layer(&ctx);
            let y = d.forward(&layer, (0, d.case.m), &ctx, &mut scratch);
            // Blocks of an odd width are not multiplied in pairs, and x keeps its bits.
            if pairs(&layer) == pairs(&dense.layer(&ctx)) {
                assert!(all_bits(&dense, &ctx, &mut scratch) == bits(&y), "dense {what}");
            }
            let want: Vec<f32> = y.iter().map(|y| 8.0 * y).collect();
            assert!(all_bits(&eight, &ctx, &mut scratch) == bits(&want), "times 8 {what}");
        }
    }
}

/// One group of scales that reaches beyond K is a scale for each row; bytes whose scale is 1 are the floats of the same
/// numbers.
#[test]
fn bytes_are_floats() {
    let mut r = Rng::new(43);
    let mut scratch = Scratch::new();
    let isas = isas("bytes_are_floats");
    for _ in 0..cases(80) {
        let mut d = plain(&mut r);
        (d.case.weights, d.scales) = (Weights::Bytes, (0..d.case.n).map(|_| r.float(0.01, 0.1)).collect());
        d.w.iter_mut().filter(|w| **w != 0.0).for_each(|w| *w = (1 + r.below(127)) as f32 * w.signum());
        let size = d.case.k.next_multiple_of(4) + 4 * r.below(3);
        let with = |weights, scales: &[f32]| Data {
            case: Case { weights, ..d.case },
            scales: scales.to_vec(),
            ..d.clone()
        };
        let ones = vec![1.0; d.case.n];
        for &isa in &isas {
            let ctx = serial(isa);
            let mut run = |d: Data| all_bits(&d, &ctx, &mut scratch);
            let what = format!("{isa} {:?}", d.case);
            let rows = run(with(Weights::Bytes, &d.scales));
            assert_eq!(run(with(Weights::Groups(size), &d.scales)), rows, "a group of {size} {what}");
            let plain = run(with(Weights::Bytes, &ones));
            for kind in [Kind::F32, Kind::F16] {
                assert_eq!(run(with(Weights::Float(kind), &ones)), plain, "{kind:?} {what}");
            }
        }
    }
}

/// Of every type of weights, x and y: what one token holds does not reach another.
#[test]
fn tokens_of_every_type_do_not_meet() {
    let mut r = Rng::new(44);
    let mut scratch = Scratch::new();
    let isas = isas("tokens_of_every_type_do_not_meet");
    for _ in 0..cases(100) {
        let clean = Case::random(&mut r).data();
        let Case { m, n, k, .. } = clean.case;
        let (mut d, bad) = (clean.clone(), r.below(m));
        for x in &mut d.x[bad * k..][..k] {
            *x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-42, 6e-8][r.below(5)];
            *x = d.case.x.round(*x);
        }
        for &isa in &isas {
            let ctx = serial(isa);
            let mut want = all_bits(&clean, &ctx, &mut scratch);
            let mut got = all_bits(&d, &ctx, &mut scratch);
            for y in [&mut want, &mut got] {
                y[bad * n..][..n].fill(0);
            }
            assert_eq!(got, want, "{isa} token {bad} {:?}", clean.case);
        }
    }
}

/// What is not finite stays in its token.
#[test]
fn tokens_do_not_meet() {
    let mut r = Rng::new(36);
    let (m, n, k) = (37, 70, 50);
    for isa in isas("tokens_do_not_meet") {
        let ctx = serial(isa);
        for block in ["dense", "4x1", "1x4", "4x4", "1x1"] {
            let w: Vec<f32> =
                (0..n * k).map(|i| if i / 4 % 3 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
            let w: Vec<bf16> = floats(&w);
            let w = MatRef::new(&w, n, k).unwrap();
            let layer = match block.parse::<BlockShape>() {
                Ok(block) => Linear::sparse(&Bsr::from_dense(w, block).unwrap()).build(&ctx).unwrap(),
                Err(_) => Linear::dense(w).build(&ctx).unwrap(),
            };
            let mut x: Vec<f32> = (0..m * k).map(|_| r.float(-2.0, 2.0)).collect();
            let clean = forward_f32(&layer, &x, m, &ctx);
            let bad = r.below(m);
            for (i, v) in
                [f32::NAN, f32::INFINITY, 1e-42, f32::NEG_INFINITY].into_iter().cycle().take(k).enumerate()
            {
                x[bad * k + i] = v;
            }
            let got = forward_f32(&layer, &x, m, &ctx);
            for t in (0..m).filter(|&t| t != bad) {
                assert_eq!(got[t * n..][..n], clean[t * n..][..n], "{isa} {block} token {t}");
            }
            assert!(got[bad * n..][..n].iter().any(|y| y.is_nan()), "{isa} {block}");
        }
    }
}

/// f16 quantized on the fly is its f32 quantized on the fly.
#[test]
fn halves_are_quantized_as_floats() {
    let mut r = Rng::new(37);
    let (m, n, k) = (19, 33, 41);
    let w = r.signed(n * k);
    let x: Vec<f16> = (0..m * k)
        .map(|_| f16::from_f32([r.float(-9.0, 9.0), 6e-8, -65504.0, 0.0, 1e-5][r.below(30).min(4)]))
        .collect();
    let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    for isa in isas("halves_are_quantized_as_floats") {
        let ctx = serial(isa);
        let run = |layer: &Linear, x: LinearInput<'_>| {
            let mut y = vec![0i32; m * n];
            let out = LinearOutput::from(MatMut::new(&mut y, m, n).unwrap());
            layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
            y
        };
        for how in [PerToken, Static(QuantParams::u8(0.1, 100).unwrap())] {
            let layer = Linear::dense(MatRef::new(&w, n, k).unwrap()).input_quantization(how);
            let layer = layer.build(&ctx).unwrap();
            let of_halves = run(&layer, LinearInput::from(MatRef::new(&x, m, k).unwrap()));
            assert_eq!(of_halves, run(&layer, LinearInput::from(MatRef::new(&wide, m, k).unwrap())), "{isa}");
        }
    }
}

/// Real weights quantized by groups: within half a step of each, dense and block-sparse alike.
#[test]
fn weights_are_quantized_by_groups() {
    let mut r = Rng::new(41);
    let (n, k, size) = (12, 50, 16);
    let w: Vec<f32> = (0..n * k).map(|i| if i / 4 % 2 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
    let dense = MatRef::new(&w, n, k).unwrap();
    let bsr = Bsr::from_dense(dense, "4x1".parse().unwrap()).unwrap();
    // Each input feature alone shows its weights.
    let x: Vec<f32> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
    for isa in isas("weights_are_quantized_by_groups") {
        let ctx = serial(isa);
        let dense = Linear::quantize_dense_groups(dense, size).unwrap().build(&ctx).unwrap();
        let sparse = Linear::quantize_sparse_groups(&bsr, size).unwrap().build(&ctx).unwrap();
        let got = forward_f32(&dense, &x, k, &ctx);
        assert_eq!(bits(&got), bits(&forward_f32(&sparse, &x, k, &ctx)), "{isa}");
        for (i, got) in got.iter().enumerate() {
            let (c, f) = (i / n, i % n);
            let group = &w[f * k..][..k][c / size * size..((c / size + 1) * size).min(k)];
            let step = group.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
            assert!((got - w[f * k + c]).abs() <= 0.501 * step, "{isa} ({f}, {c})");
        }
        assert!(Linear::quantize_sparse_groups(&bsr, 6).is_err());
    }
}
