//! Gates: the numbers of the original, the same bits everywhere, and what is refused.

use crate::common::golden::Golden;
use crate::common::{Rng, WAYS, in_parallel, isas, serial};
use siskin::attention::{Gate, Sequences};
use siskin::{Ctx, Error, Isa, MatMut, MatRef};

const FILE: &[u8] = include_bytes!("../golden/gates.safetensors");

fn mat(data: &[f32], rows: usize) -> MatRef<'_, f32> {
    MatRef::new(data, rows, data.len() / rows).unwrap()
}

fn batch(batch: usize, q_len: usize) -> Sequences<'static> {
    Sequences::Batch { batch, q_len, kv_len: q_len }
}

fn evaluate(gate: &Gate, x: MatRef<'_, f32>, sequences: &Sequences<'_>, ctx: &Ctx) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * gate.num_heads()];
    let to = MatMut::new(&mut out, x.rows(), gate.num_heads()).unwrap();
    gate.evaluate(x, sequences, to, ctx).unwrap();
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// The gate of a case, by the parameters that are there.
fn gate(case: &str, g: &Golden<'_>) -> Gate {
    if g.has("param.gate.alpha") {
        return Gate::unconditional(&g.f32("param.gate.alpha")).unwrap();
    }
    if g.has("param.gate.fc1.weight") {
        let [w1, b1, w2, b2] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
            .map(|name| (g.shape(&format!("param.gate.{name}")), g.f32(&format!("param.gate.{name}"))));
        let (heads, hidden) = (b1.0[0], b1.0[1]);
        return Gate::mlp(mat(&w1.1, heads * hidden), mat(&b1.1, heads), mat(&w2.1, heads), &b2.1).unwrap();
    }
    let (shape, weight, bias) =
        (g.shape("param.gate.weight"), g.f32("param.gate.weight"), g.f32("param.gate.bias"));
    let gate = match shape.len() {
        2 => Gate::all_features(mat(&weight, shape[0]), &bias).unwrap(),
        _ => Gate::linear(mat(&weight, shape[0]), &bias).unwrap(),
    };
    if case.contains("pooled") { gate.pooled().unwrap() } else { gate }
}

#[test]
fn the_gates_of_the_original_are_met() {
    let cases = [
        "bert_gate_uncond",
        "bert_gate_linear",
        "bert_gate_linear_initbias",
        "bert_gate_perhead_pooled",
        "bert_gate_mlp",
        "bert_gate_mlp2",
        "bert_gate_allfeat",
        "bert_gate_finetune",
        "bert_clip_and_gate",
        "opt_gate_linear",
        "opt_gate_allfeat",
    ];
    for case in cases {
        let g = Golden::case(FILE, case);
        let gate = gate(case, &g);
        let (shape, x, expected) = (g.shape("in.hidden"), g.f32("in.hidden"), g.f32("mid.gate"));
        let (b, t, h) = (shape[0], shape[1], gate.num_heads());
        assert_eq!(gate.features().unwrap_or(shape[2]), shape[2]);
        // [H], [B, H, 1, 1] or [B, H, T, 1].
        let expected = |token: usize, head: usize| match expected.len() {
            n if n == h => expected[head],
            n if n == b * h => expected[token / t * h + head],
            _ => expected[(token / t * h + head) * t + token % t],
        };
        let got = evaluate(&gate, mat(&x, b * t), &batch(b, t), &Ctx::serial().unwrap());
        let fine =
            evaluate(&gate.fine_tuned(0.25).unwrap(), mat(&x, b * t), &batch(b, t), &Ctx::new().unwrap());
        for token in 0..b * t {
            for head in 0..h {
                let (got, fine, expected) =
                    (got[token * h + head], fine[token * h + head], expected(token, head));
                // The sums of the original are f32, in an order of its own.
                assert!((got - expected).abs() <= 2e-7, "{case} {token} {head}: {got} for {expected}");
                assert_eq!(fine, got * 4.0);
            }
        }
    }
}

/// All the kinds, of 5 heads of 7 features, and of sizes around what goes together.
fn gates(rng: &mut Rng, heads: usize, d: usize) -> Vec<(&'static str, Gate)> {
    let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.float(-1.0, 1.0)).collect() };
    let mut all = Vec::new();
    let (w, c) = (random(heads * d), random(heads));
    let linear = Gate::linear(mat(&w, heads), &c).unwrap();
    all.push(("unconditional", Gate::unconditional(&c).unwrap()));
    all.push(("pooled linear", linear.clone().pooled().unwrap()));
    all.push(("linear", linear));
    for hidden in [1, d.div_ceil(4), 16, 33] {
        let (w1, b1, w2) = (random(heads * hidden * d), random(heads * hidden), random(heads * hidden));
        let mlp = Gate::mlp(mat(&w1, heads * hidden), mat(&b1, heads), mat(&w2, heads), &c).unwrap();
        all.push(("pooled mlp", mlp.clone().pooled().unwrap()));
        all.push(("mlp", mlp));
    }
    let w = random(heads * heads * d);
    all.push(("all features", Gate::all_features(mat(&w, heads), &c).unwrap().fine_tuned(0.3).unwrap()));
    all
}

#[test]
fn the_same_bits_on_every_tier_and_at_any_number_of_threads() {
    let mut rng = Rng::new(1);
    for (heads, d, tokens) in [(5, 7, 3), (3, 64, 150), (2, 130, 64), (1, 1, 200), (35, 3, 17)] {
        let x: Vec<f32> = (0..tokens * heads * d).map(|_| rng.float(-2.0, 2.0)).collect();
        let cu: Vec<i32> = [0, 0, tokens as i32 / 3, tokens as i32 / 3, tokens as i32].to_vec();
        let sequences = Sequences::Packed { q: &cu, kv: &cu };
        for (name, gate) in gates(&mut rng, heads, d) {
            let expected = evaluate(&gate, mat(&x, tokens), &sequences, &serial(Isa::Scalar));
            assert!(expected.iter().all(|g| (0.0..4.0).contains(g)), "{name}");
            for isa in isas("gates") {
                for way in 0..WAYS {
                    let got = in_parallel(isa, way, |ctx| evaluate(&gate, mat(&x, tokens), &sequences, ctx));
                    assert_eq!(bits(&got), bits(&expected), "{name} {isa} {way}");
                }
            }
        }
    }
}

#[test]
fn a_token_alone_and_a_sequence_alone_are_as_in_a_batch() {
    let mut rng = Rng::new(2);
    let (heads, d, b, t) = (3, 20, 4, 21);
    let x: Vec<f32> = (0..b * t * heads * d).map(|_| rng.float(-2.0, 2.0)).collect();
    let ctx = Ctx::new().unwrap();
    for (name, gate) in gates(&mut rng, heads, d) {
        let all = evaluate(&gate, mat(&x, b * t), &batch(b, t), &ctx);
        for (i, x) in x.chunks(t * heads * d).enumerate() {
            let alone = evaluate(&gate, mat(x, t), &batch(1, t), &ctx);
            assert_eq!(bits(&alone), bits(&all[i * t * heads..][..t * heads]), "{name}");
        }
        if !name.contains("pooled") {
            for (i, x) in x.chunks(heads * d).enumerate() {
                let alone = evaluate(&gate, mat(x, 1), &batch(1, 1), &ctx);
                assert_eq!(bits(&alone), bits(&all[i * heads..][..heads]), "{name}");
            }
        }
    }
}

/// As the documentation has it, a number at a time.
#[test]
fn a_logit_is_one_chain() {
    let mut rng = Rng::new(3);
    let (heads, d, hidden, t) = (2, 70, 19, 18);
    let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.float(-1.0, 1.0)).collect() };
    let x = random(t * heads * d);
    let (w1, b1, w2, b2) =
        (random(heads * hidden * d), random(heads * hidden), random(heads * hidden), random(heads));
    let dot = |x: &[f32], w: &[f32]| {
        x.iter().zip(w).fold(0.0, |sum, (&x, &w)| f64::from(x).mul_add(f64::from(w), sum))
    };
    let mlp = Gate::mlp(mat(&w1, heads * hidden), mat(&b1, heads), mat(&w2, heads), &b2).unwrap();
    let got = evaluate(&mlp, mat(&x, t), &batch(1, t), &Ctx::serial().unwrap());
    for token in 0..t {
        for h in 0..heads {
            let x = &x[(token * heads + h) * d..][..d];
            let units: Vec<f32> = (h * hidden..(h + 1) * hidden)
                .map(|u| (dot(x, &w1[u * d..][..d]) + f64::from(b1[u])).max(0.0) as f32)
                .collect();
            let logit = dot(&units, &w2[h * hidden..][..hidden]) + f64::from(b2[h]);
            let expected = (1.0 / (1.0 + (-logit).exp())) as f32;
            let got = got[token * heads + h];
            assert!(
                (i64::from(got.to_bits()) - i64::from(expected.to_bits())).abs() <= 1,
                "{got} {expected}"
            );
        }
    }
}

#[test]
fn nan_stays_where_it_is_and_rows_may_be_apart() {
    let mut rng = Rng::new(4);
    let (heads, d, b, t) = (3, 16, 2, 18);
    let features = heads * d;
    let clean: Vec<f32> = (0..b * t * features).map(|_| rng.float(-2.0, 2.0)).collect();
    let mut x = clean.clone();
    let (token, head) = (20, 1);
    x[token * features + head * d + 3] = f32::NAN;
    for (name, gate) in gates(&mut rng, heads, d) {
        let without = evaluate(&gate, mat(&clean, b * t), &batch(b, t), &Ctx::serial().unwrap());
        // What is between rows is neither read nor written.
        let (x_stride, out_stride) = (features + 3, heads + 2);
        let mut apart = vec![f32::NAN; b * t * x_stride];
        for (to, row) in apart.chunks_mut(x_stride).zip(x.chunks(features)) {
            to[..features].copy_from_slice(row);
        }
        let mut out = vec![-7.0; b * t * out_stride - 2];
        gate.evaluate(
            MatRef::with_stride(&apart, b * t, features, x_stride).unwrap(),
            &batch(b, t),
            MatMut::with_stride(&mut out, b * t, heads, out_stride).unwrap(),
            &Ctx::new().unwrap(),
        )
        .unwrap();
        for (i, &got) in out.iter().enumerate() {
            let (at, h) = (i / out_stride, i % out_stride);
            if h >= heads {
                assert_eq!(got, -7.0, "{name}");
                continue;
            }
            let reached = match name {
                "unconditional" => false,
                "all features" => at == token,
                _ if name.contains("pooled") => at / t == token / t && h == head,
                _ => at == token && h == head,
            };
            match reached {
                true => assert!(got.is_nan(), "{name} {at} {h}"),
                false => assert_eq!(got.to_bits(), without[at * heads + h].to_bits(), "{name} {at} {h}"),
            }
        }
    }
    // In the parameters too, through the hidden layer.
    let mlp = |w1: f32, b2: f32| Gate::mlp(mat(&[w1], 1), mat(&[-1.0], 1), mat(&[1.0], 1), &[b2]).unwrap();
    for (gate, nan) in [(mlp(f32::NAN, 0.0), true), (mlp(0.0, f32::NAN), true), (mlp(0.0, 0.0), false)] {
        assert_eq!(evaluate(&gate, mat(&[1.0], 1), &batch(1, 1), &Ctx::serial().unwrap())[0].is_nan(), nan);
    }
}

#[test]
fn nothing_is_no_work() {
    let ctx = Ctx::new().unwrap();
    for (_, gate) in gates(&mut Rng::new(5), 2, 3) {
        let none = MatRef::new(&[], 0, 6).unwrap();
        // More sequences than there is time for.
        for sequences in [batch(0, 5), batch(usize::MAX, 0), Sequences::Packed { q: &[0, 0], kv: &[0, 4] }] {
            assert!(evaluate(&gate, none, &sequences, &ctx).is_empty());
        }
    }
    // Any number of columns, none included.
    let alpha = Gate::unconditional(&[0.0, -800.0]).unwrap();
    let x = MatRef::new(&[], 2, 0).unwrap();
    assert_eq!(evaluate(&alpha, x, &batch(1, 2), &ctx), [0.5, 0.0, 0.5, 0.0]);
}

#[test]
fn what_does_not_fit_is_refused_and_says_what_would() {
    let six = [1.0; 6];
    let (wide, tall) = (mat(&six, 2), mat(&six, 3));
    let none = MatRef::new(&[], 2, 0).unwrap();
    let no_rows = MatRef::new(&[], 0, 3).unwrap();
    let shape = |result: Result<Gate, Error>, blamed: &str| match result.unwrap_err() {
        Error::Shape { argument, expected, got, .. } => {
            assert_eq!(argument, blamed, "expected {expected}, got {got}");
        }
        other => panic!("{other}"),
    };
    shape(Gate::unconditional(&[]), "gate");
    shape(Gate::linear(wide, &[0.0; 3]), "bias");
    shape(Gate::linear(none, &[0.0; 2]), "weight");
    shape(Gate::linear(no_rows, &[]), "gate");
    shape(Gate::all_features(wide, &[0.0]), "bias");
    shape(Gate::all_features(none, &[0.0; 2]), "weight");
    shape(Gate::all_features(no_rows, &[]), "gate");
    shape(Gate::mlp(wide, none, none, &[0.0; 2]), "b1");
    shape(Gate::mlp(tall, wide, wide, &[0.0; 2]), "w1");
    shape(Gate::mlp(mat(&[1.0; 12], 6), wide, tall, &[0.0; 2]), "w2");
    shape(Gate::mlp(mat(&[1.0; 12], 6), wide, wide, &[0.0; 3]), "b2");
    shape(Gate::mlp(MatRef::new(&[], 6, 0).unwrap(), wide, wide, &[0.0; 2]), "w1");
    shape(Gate::mlp(no_rows, no_rows, no_rows, &[]), "gate");

    for gate in [Gate::unconditional(&[1.0]), Gate::all_features(wide, &[0.0; 2])] {
        assert!(matches!(gate.unwrap().pooled(), Err(Error::Unsupported { argument: "gate", .. })));
    }
    for initial in [0.0, -0.5, 1.5, f32::NAN, f32::INFINITY, 1e-45] {
        let gate = Gate::linear(wide, &[0.0; 2]).unwrap();
        assert!(matches!(gate.fine_tuned(initial), Err(Error::Value { argument: "initial", .. })));
    }

    let gate = Gate::linear(wide, &[0.0; 2]).unwrap();
    let ctx = Ctx::new().unwrap();
    let x = [1.0; 24];
    let refused = |x, sequences: Sequences<'_>, rows, cols| {
        let mut out = vec![-7.0; rows * cols];
        let to = MatMut::new(&mut out, rows, cols).unwrap();
        let error = gate.evaluate(x, &sequences, to, &ctx).unwrap_err();
        assert!(out.iter().all(|&v| v == -7.0), "written");
        match error {
            Error::Shape { argument, .. } | Error::Index { argument, .. } => argument,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(mat(&x, 3), batch(1, 3), 3, 2), "hidden");
    assert_eq!(refused(mat(&x, 4), batch(1, 4), 3, 2), "out");
    assert_eq!(refused(mat(&x, 4), batch(1, 4), 4, 3), "out");
    assert_eq!(refused(mat(&x, 4), batch(2, 3), 4, 2), "q");
    assert_eq!(refused(mat(&x, 4), batch(usize::MAX, 3), 4, 2), "q");
    let packed = |q, kv| Sequences::Packed { q, kv };
    assert_eq!(refused(mat(&x, 4), packed(&[], &[]), 4, 2), "cu_seqlens of q");
    assert_eq!(refused(mat(&x, 4), packed(&[0, 3], &[0, 3]), 4, 2), "cu_seqlens of q");
    assert_eq!(refused(mat(&x, 4), packed(&[0, 5, 4], &[0, 1, 2]), 4, 2), "cu_seqlens of q");
    assert_eq!(refused(mat(&x, 4), packed(&[0, 4], &[0, 1, 2]), 4, 2), "cu_seqlens");
    assert_eq!(refused(mat(&x, 4), packed(&[0, 4], &[0, -1]), 4, 2), "cu_seqlens of k");
}
