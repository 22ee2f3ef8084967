//! What is not finite stays in its own rows.

use crate::common::attention::*;
use crate::common::{Rng, cases, isas, serial};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, EmptyRow, HeadsMut, HeadsRef, Sequences};
use siskin::{Isa, Scratch, TensorRef};

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// A call with several masks, where no weight is near the clip or 0 but by them.
fn case(r: &mut Rng) -> Case {
    let mut case = Case::random(r);
    case.types[..3].fill([Type::F32, Type::F32, Type::Bf16, Type::F16][r.below(4)]);
    case.bias = None;
    case.peak = case.peak.min(2.0);
    case.lengths.iter_mut().for_each(|l| *l = (l.0.clamp(1, 40), l.1.max(1)));
    if !case.packed {
        let first = case.lengths[0];
        case.lengths.fill(first);
    }
    case.key_lengths.iter_mut().for_each(|list| {
        list.iter_mut().zip(&case.lengths).for_each(|(n, l)| *n = (*n).min(l.1));
    });
    case
}

/// Equal bits; where pairs are multiplied near enough, because what is next to a row decides how.
fn unchanged(isa: Isa, d: &Data, want: &[u32], got: &[u32]) -> bool {
    let near = |(a, b): (f32, f32)| (a - b).abs() <= 0.02;
    match isa.pairs_bf16() && d.case.types[..3] == [Type::Bf16; 3] {
        false => want == got,
        true => real(want).into_iter().zip(real(got)).all(near),
    }
}

/// Sequence, head and query of each row of the context.
fn rows(d: &Data) -> Vec<(usize, usize, usize)> {
    let mut rows = vec![];
    for (b, l) in d.case.lengths.iter().enumerate() {
        (0..l.0).for_each(|i| rows.extend((0..d.case.heads).map(|h| (b, h, i))));
    }
    rows
}

/// A key of some sequence and its token.
fn some_key(d: &Data, r: &mut Rng) -> (usize, usize, usize) {
    let b = r.below(d.case.lengths.len());
    let j = r.below(d.case.lengths[b].1);
    (b, j, d.case.lengths[..b].iter().map(|l| l.1).sum::<usize>() + j)
}

#[test]
fn a_bad_query_is_alone() {
    let isas = isas("a_bad_query_is_alone");
    let mut r = Rng::new(80);
    let mut scratch = Scratch::new();
    for round in 0..cases(60) as usize {
        let clean = case(&mut r).data();
        let (mut d, width) = (clean.clone(), clean.case.head_dim);
        let rows = rows(&d);
        let bad = r.below(rows.len());
        d.q[bad * width + r.below(width)] = BAD[round % 3];
        let (b, _, i) = rows[bad];
        let meets = (0..d.case.lengths[b].1).any(|j| d.meets(b, i, j));
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            for (row, (want, got)) in want.chunks_exact(width).zip(got.chunks_exact(width)).enumerate() {
                if row != bad || !meets {
                    assert!(unchanged(isa, &d, want, got), "{isa} row {row}, bad {bad}: {:?}", d.case);
                } else if BAD[round % 3].is_nan() {
                    assert!(real(got).iter().all(|v| v.is_nan()), "{isa} row {row}: {:?}", d.case);
                }
            }
        }
    }
}

#[test]
fn a_bad_key_is_met_by_those_it_is_there_for() {
    let isas = isas("a_bad_key_is_met_by_those_it_is_there_for");
    let mut r = Rng::new(81);
    let mut scratch = Scratch::new();
    let (mut met, mut missed) = (0, 0);
    for round in 0..cases(80) as usize {
        let clean = case(&mut r).data();
        let (mut d, width) = (clean.clone(), clean.case.head_dim);
        let (b, j, token) = some_key(&d, &mut r);
        let head = r.below(d.case.kv_heads);
        d.k[(token * d.case.kv_heads + head) * width + r.below(width)] = BAD[round % 3];
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            for (n, &(row_b, h, i)) in rows(&d).iter().enumerate() {
                let (want, got) = (&want[n * width..][..width], &got[n * width..][..width]);
                let its_head = h / (d.case.heads / d.case.kv_heads);
                if row_b != b || its_head != head || !d.meets(b, i, j) {
                    assert!(unchanged(isa, &d, want, got), "{isa} row {n}, key {j} of {b}: {:?}", d.case);
                    missed += 1;
                } else if BAD[round % 3].is_nan() {
                    assert!(real(got).iter().all(|v| v.is_nan()), "{isa} row {n}, key {j}: {:?}", d.case);
                    met += 1;
                }
            }
        }
    }
    assert!(met > 0 && missed > 0);
}

/// A bias of -inf is a key that is not there either.
#[test]
fn a_bad_key_behind_a_bias_is_not_there() {
    let isas = isas("a_bad_key_behind_a_bias_is_not_there");
    let mut r = Rng::new(82);
    let mut scratch = Scratch::new();
    for round in 0..cases(20) as usize {
        let (q_len, kv_len) = ([1, 5, 33][round % 3], [3, 65, 600][round / 3 % 3]);
        let mut case = Case::plain(r.next(), 1, 24, q_len, kv_len);
        (case.bias, case.clipped) = (Some([1, 1, 1, kv_len]), [None, Some((-1e-4, 1.0))][r.below(2)]);
        let mut clean = case.data();
        let bad = r.below(kv_len);
        clean.bias.fill(0.25);
        clean.bias[bad] = f32::NEG_INFINITY;
        let mut d = clean.clone();
        d.k[bad * 24 + r.below(24)] = BAD[round % 3];
        d.v[bad * 24..][..24].fill(f32::NAN);
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            assert!(unchanged(isa, &d, &want, &got), "{isa} {} in key {bad}: {:?}", BAD[round % 3], d.case);
        }
    }
}

/// Of v, one feature of the rows in which the key weighs something.
#[test]
fn a_bad_value_is_met_by_those_it_weighs_for() {
    let isas = isas("a_bad_value_is_met_by_those_it_weighs_for");
    let mut r = Rng::new(83);
    let mut scratch = Scratch::new();
    let (mut met, mut missed) = (0, 0);
    for round in 0..cases(80) as usize {
        let mut case = case(&mut r);
        case.uniform = false;
        // Half of them with keys that are there and weigh nothing.
        case.clipped = [None, Some((-0.05, 1.0))][round % 2];
        let clean = case.data();
        let (mut d, width) = (clean.clone(), clean.case.head_dim);
        let (b, j, token) = some_key(&d, &mut r);
        let (head, feature) = (r.below(d.case.kv_heads), r.below(width));
        // The weights themselves, from a v that is 1 at this key only.
        let mut alone = clean.clone();
        let at = (token * d.case.kv_heads + head) * width;
        alone.v.fill(0.0);
        alone.v[at..at + width].fill(1.0);
        alone.case.gates = false;
        let weights = alone.reference().context;
        d.v[at + feature] = BAD[round % 3];
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            for (n, &(row_b, h, i)) in rows(&d).iter().enumerate() {
                let (want, got) = (&want[n * width..][..width], &got[n * width..][..width]);
                let weight = weights[n * width];
                let others = row_b != b || h / (d.case.heads / d.case.kv_heads) != head || !d.meets(b, i, j);
                if weight > 0.0 && weight < 1e-4 {
                    continue; // near the clip
                }
                for f in 0..width {
                    if f != feature || weight == 0.0 {
                        let same = unchanged(isa, &d, &want[f..=f], &got[f..=f]);
                        assert!(same, "{isa} row {n} feature {f}, key {j}: {:?}", d.case);
                        missed += 1;
                    } else {
                        assert!(!others);
                        assert!(!f32::from_bits(got[f]).is_finite(), "{isa} row {n}, key {j}: {:?}", d.case);
                        met += 1;
                    }
                }
            }
        }
    }
    assert!(met > 0 && missed > 0);
}

/// Nor is it read where the clip leaves a key nothing, or the exponential is 0.
#[test]
fn values_without_weight_are_not_read() {
    let isas = isas("values_without_weight_are_not_read");
    let mut r = Rng::new(84);
    let mut scratch = Scratch::new();
    for round in 0..cases(20) as usize {
        let (q_len, kv_len) = ([1, 6, 40][round % 3], [40, 300, 1100][round / 3 % 3]);
        let mut case = Case::plain(r.next(), 2, 33, q_len, kv_len);
        (case.kv_heads, case.bias) = (1, Some([1, 1, 1, kv_len]));
        case.clipped = [None, Some((-0.03, 1.0))][round % 2];
        case.types[..3].fill([Type::F32, Type::Bf16][round / 2 % 2]);
        let mut clean = case.data();
        let away = if round % 2 == 0 { -200.0 } else { -30.0 };
        clean.bias.iter_mut().enumerate().for_each(|(j, b)| *b = if j % 20 == 7 { 0.0 } else { away });
        let mut d = clean.clone();
        for (j, v) in d.v.chunks_exact_mut(33).enumerate().filter(|(j, _)| j % 20 != 7) {
            v.fill(BAD[j % 3]);
        }
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            assert!(real(&want).iter().all(|v| v.is_finite()));
            assert!(unchanged(isa, &d, &want, &got), "{isa}: {:?}", d.case);
        }
    }
}

/// A gate of its own head and query.
#[test]
fn a_bad_gate_is_alone() {
    let isas = isas("a_bad_gate_is_alone");
    let mut r = Rng::new(85);
    let mut scratch = Scratch::new();
    for round in 0..cases(20) as usize {
        let mut case = case(&mut r);
        case.gates = true;
        let clean = case.data();
        let (mut d, width) = (clean.clone(), clean.case.head_dim);
        let bad = r.below(d.gates.len());
        d.gates[bad] = BAD[round % 3];
        for &isa in &isas {
            let ctx = serial(isa);
            let (mut want, mut got) = (clean.run(&ctx, &mut scratch).0, d.run(&ctx, &mut scratch).0);
            let row = bad * width..(bad + 1) * width;
            if BAD[round % 3].is_nan() {
                assert!(real(&got[row.clone()]).iter().all(|v| v.is_nan()), "{isa} {:?}", d.case);
            }
            want[row.clone()].fill(0);
            got[row].fill(0);
            assert!(unchanged(isa, &d, &want, &got), "{isa} {:?}", d.case);
        }
    }
}

/// Any bits anywhere: tiers agree on what is NaN and on all else.
#[test]
fn any_bits_are_the_same_on_every_tier() {
    let isas = isas("any_bits_are_the_same_on_every_tier");
    let mut r = Rng::new(86);
    let mut scratch = Scratch::new();
    for round in 0..cases(200) as usize {
        let types = [Type::F32, Type::Bf16, Type::F16][round % 3];
        let mut case = Case::random(&mut r);
        case.bias = None;
        case.types[..3].fill(types);
        case.lengths.iter_mut().for_each(|l| l.0 = l.0.min(20));
        let mut d = case.data();
        let odd = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1e30, 1e-40, -0.0];
        let which = round / 3 % 3;
        let x = [&mut d.q, &mut d.k, &mut d.v];
        let x = x.into_iter().nth(which).unwrap();
        for _ in 0..x.len().min(r.below(12) + 1) {
            let at = r.below(x.len());
            x[at] = types.round(odd[r.below(odd.len())]);
        }
        let want = d.run(&serial(Isa::Scalar), &mut scratch).0;
        for &isa in isas.iter().filter(|i| !i.pairs_bf16() || types != Type::Bf16) {
            let got = d.run(&serial(isa), &mut scratch).0;
            let first = got.iter().zip(&want).position(|(a, b)| !same(&[*a], &[*b]));
            let values = first.map(|i| (i, real(&got[i..=i])[0], real(&want[i..=i])[0]));
            assert!(first.is_none(), "{isa}, bits in {}: {values:?} {:?}", ["q", "k", "v"][which], d.case);
        }
    }
}

/// Scores of -infinity leave a uniform row nothing but keys that no query of the tile was to meet: none of them is stale.
#[test]
fn uniform_rows_of_overflowing_scores() {
    let (tokens, live) = (40, 7);
    let x = vec![3e38f32; tokens];
    let k = vec![-3e38f32; tokens];
    let v: Vec<f32> = (0..tokens).map(|i| i as f32).collect();
    for isa in isas("uniform_rows_of_overflowing_scores") {
        let mut scratch = Scratch::new();
        let attention = Attention::new(1, 1, 1).unwrap().empty_rows(EmptyRow::Uniform);
        let sequences = Sequences::Batch { batch: 1, q_len: tokens, kv_len: tokens };
        fn input(x: &[f32]) -> TensorRef<'_> {
            TensorRef::from(HeadsRef::new(x, x.len(), 1, 1).unwrap())
        }
        let mut run = |v: &[f32], k: &[f32], lengths: &[usize]| {
            let mut y = vec![0.0f32; tokens];
            let out = HeadsMut::new(&mut y, tokens, 1, 1).unwrap();
            let call = AttentionCall::new(sequences).key_lengths(lengths);
            attention
                .forward(
                    AttentionInputs::new(input(&x), input(k), input(v)),
                    &call,
                    out,
                    &serial(isa),
                    &mut scratch,
                )
                .unwrap();
            y
        };
        run(&vec![1e30; tokens], &x, &[tokens]);
        let y = run(&v, &k, &[live]);
        let mean = (tokens - 1) as f32 / 2.0;
        assert!(y.iter().all(|y| (y - mean).abs() < 1e-4), "{isa}: {y:?}");
    }
}
