//! Attention of floats against a naive one in f64, and every tier against scalar, bit for bit.

use crate::common::attention::*;
use crate::common::{Rng, cases, in_parallel, isas, serial};
use siskin::attention::*;
use siskin::{Isa, Scratch};

/// Against the reference on scalar, every tier against scalar; gives how far the scalar tier was off.
fn check(d: &Data, isas: &[Isa], scratch: &mut Scratch, way: usize) -> f64 {
    let (want, skipped) = d.run(&serial(Isa::Scalar), scratch);
    let reference = d.reference();
    let off = distance(&want, &reference.context, &d.v);
    assert!(off <= 1.0, "{off} tolerances from the reference: {:?}", d.case);
    if d.case.bias.is_none() && !d.case.uniform {
        assert_eq!(skipped.pairs, reference.pairs, "pairs: {:?}", d.case);
        if d.case.clipped.is_some() {
            let (least, most) = reference.zeros;
            assert!(
                (least..=most).contains(&skipped.zeros),
                "{skipped:?}, not {least} to {most} zeros: {:?}",
                d.case
            );
        }
    }
    assert!(skipped.skipped <= skipped.zeros && skipped.zeros <= skipped.pairs, "{skipped:?} {:?}", d.case);
    for &isa in isas {
        let (got, theirs) = in_parallel(isa, way, |ctx| d.run(ctx, &mut Scratch::new()));
        assert!(got == want, "{isa} is not scalar: {:?}", d.case);
        assert_eq!((theirs.pairs, theirs.zeros), (skipped.pairs, skipped.zeros), "{isa}: {:?}", d.case);
        assert!(theirs.skipped <= theirs.zeros, "{isa} {theirs:?}");
    }
    off
}

#[test]
fn any_call() {
    let isas = isas("any_call");
    let mut r = Rng::new(50);
    let mut scratch = Scratch::new();
    let mut off = 0f64;
    for way in 0..cases(150) {
        off = off.max(check(&Case::random(&mut r).data(), &isas, &mut scratch, way as usize));
    }
    println!("at most {off:.3} of the tolerance");
}

/// The lengths and widths where loops end, nothing masked and causal.
#[test]
fn every_edge() {
    let isas = isas("every_edge");
    let mut r = Rng::new(51);
    let mut scratch = Scratch::new();
    let (lengths, widths) = (
        [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 511, 512, 513, 1025],
        [1, 8, 15, 16, 17, 32, 64, 80, 96, 128],
    );
    for (i, kv_len) in lengths.into_iter().enumerate() {
        for (j, head_dim) in widths.into_iter().enumerate() {
            if (i * widths.len() + j) % 100 >= cases(100) as usize {
                continue;
            }
            for q_len in [1, 2, 7, 16, 17, 33] {
                let mut case = Case::plain(r.next(), 1, head_dim, q_len, kv_len);
                case.causal = (i + j) % 2 == 0;
                case.clipped = [None, Some((-0.01, 1.0)), Some((-0.02, 1.02))][r.below(3)];
                check(&case.data(), &isas, &mut scratch, i + j);
            }
        }
    }
}

/// Many keys of few features: sums over many chunks.
#[test]
fn long_contexts() {
    let isas = isas("long_contexts");
    let mut r = Rng::new(52);
    for (i, kv_len) in [4_096, 5_000, 8_191].into_iter().enumerate() {
        for clipped in [None, Some((-1.0 / 4096.0, 1.0))] {
            let mut case = Case::plain(r.next(), 2, 20, [1, 3, 9][i], kv_len);
            (case.kv_heads, case.causal, case.clipped) = (1, i != 1, clipped);
            check(&case.data(), &isas, &mut Scratch::new(), i);
        }
    }
}

/// f16 and mixtures are what they widen to; bfloat16 alone too, but on the tier that multiplies pairs.
#[test]
fn narrow_floats_are_widened() {
    let mut r = Rng::new(53);
    let mut scratch = Scratch::new();
    let isas = isas("narrow_floats_are_widened");
    for round in 0..cases(80) {
        let mut case = Case::random(&mut r);
        case.peak = case.peak.min(4.0);
        case.types = match round % 4 {
            0 => [Type::Bf16, Type::Bf16, Type::Bf16, Type::F32],
            1 => [Type::F16, Type::F16, Type::F16, Type::F32],
            _ => [FLOATS[r.below(3)], FLOATS[r.below(3)], FLOATS[r.below(3)], Type::F32],
        };
        let all_bf16 = case.types[..3] == [Type::Bf16; 3];
        let d = case.data();
        let (want, _) = d.widened().run(&serial(Isa::Scalar), &mut scratch);
        for &isa in &isas {
            let (got, _) = d.run(&serial(isa), &mut scratch);
            if all_bf16 && isa.pairs_bf16() {
                let most = d.v.iter().fold(0f32, |m, v| m.max(v.abs()));
                let far = real(&got).iter().zip(real(&want)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(far <= 0.02 * most, "{isa}: {far} of {most}: {:?}", d.case);
                assert!(real(&got).iter().all(|v| v.is_finite()), "{isa}: {:?}", d.case);
            } else {
                assert!(got == want, "{isa}: {:?}", d.case);
            }
        }
    }
}

/// Any other output is the f32 one, rounded or quantized.
#[test]
fn outputs_are_rounded() {
    let mut r = Rng::new(54);
    let mut scratch = Scratch::new();
    let isas = isas("outputs_are_rounded");
    for round in 0..cases(120) as usize {
        let mut case = Case::random(&mut r);
        if round % 2 == 0 {
            case = case.bytes(&mut r);
        }
        case.types[3] = [Type::Bf16, Type::F16, Type::U8, Type::I8][round / 2 % 4];
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let (got, _) = d.run(&ctx, &mut scratch);
            let wide = real(&d.to_f32().run(&ctx, &mut scratch).0);
            assert!(got == d.rounded(&wide), "{isa} {:?}", d.case);
        }
    }
}

/// The ordinary softmax is gamma = 0, zeta = 1.
#[test]
fn the_standard_softmax_is_one_that_clips_nothing() {
    let mut r = Rng::new(55);
    let mut scratch = Scratch::new();
    let isas = isas("the_standard_softmax_is_one_that_clips_nothing");
    for _ in 0..cases(60) {
        let mut d = Case::random(&mut r).data();
        d.case.clipped = None;
        let mut clipped = d.clone();
        clipped.case.clipped = Some((0.0, 1.0));
        for &isa in &isas {
            let ctx = serial(isa);
            assert!(d.run(&ctx, &mut scratch).0 == clipped.run(&ctx, &mut scratch).0, "{isa} {:?}", d.case);
        }
    }
}

/// Where few keys hold all the weight, most of v is not read, by many queries and by one.
#[test]
fn keys_without_weight_are_skipped() {
    let isas = isas("keys_without_weight_are_skipped");
    let mut r = Rng::new(56);
    for (q_len, kv_len, few) in [(200, 600, 3), (1, 600, 3), (64, 64, 1), (3, 1500, 10)] {
        let mut case = Case::plain(r.next(), 2, 64, q_len, kv_len);
        case.clipped = Some((-0.03, 1.0));
        let mut d = case.data();
        // The first features are large in all queries and in few keys.
        for (t, row) in d.q.chunks_exact_mut(64).enumerate() {
            row[0] = 10.0 + (t % 3) as f32;
        }
        for (t, row) in d.k.chunks_exact_mut(64).enumerate() {
            row[0] = if t / 2 < few { 10.0 } else { 0.0 };
        }
        check(&d, &isas, &mut Scratch::new(), 1);
        for &isa in &isas {
            let (_, skipped) = d.run(&serial(isa), &mut Scratch::new());
            assert_eq!(skipped.pairs, (2 * q_len * kv_len) as u64);
            if kv_len >= 600 {
                assert!(skipped.share() > 0.5, "{isa} {skipped:?}");
            }
            assert!(skipped.zeros as f64 > 0.9 * skipped.pairs as f64, "{isa} {skipped:?}");
        }
    }
}

/// Nothing is skipped, or weighs nothing, where the softmax does not clip.
#[test]
fn shares_are_of_pairs() {
    let none = AttentionStats::default();
    assert_eq!(none.share(), 0.0);
    let mut case = Case::plain(1, 3, 8, 5, 7);
    case.causal = true;
    for isa in isas("shares_are_of_pairs") {
        let (_, skipped) = case.clone().data().run(&serial(isa), &mut Scratch::new());
        // 3, 4, 5, 6, 7 keys.
        assert_eq!((skipped.pairs, skipped.zeros), (3 * 25, 0), "{isa}");
    }
}

fn with_empty_rows(r: &mut Rng) -> Data {
    let mut case = Case::plain(r.next(), 2, [8, 33, 64][r.below(3)], 20, [12, 30, 70, 600][r.below(4)]);
    case.lengths = vec![case.lengths[0]; 3];
    case.kv_heads = 1;
    case.uniform = true;
    case.clipped = [None, Some((-0.01, 1.0)), Some((-0.001, 1.002)), Some((-0.5, 1.0))][r.below(4)];
    case.key_lengths = Some(vec![0, 5, 12]);
    // The second meets keys that are there by its last queries only.
    case.blocks = Some((10, 5));
    let mut d = case.data();
    let cols = d.live.len() / 2;
    d.live.fill(true);
    d.live[0] = cols > 5;
    d
}

/// A row that meets nothing is 0, or the mean of all keys of its sequence, clipped.
#[test]
fn rows_that_meet_nothing() {
    let isas = isas("rows_that_meet_nothing");
    let mut r = Rng::new(57);
    let mut scratch = Scratch::new();
    for _ in 0..cases(30) {
        let mut d = with_empty_rows(&mut r);
        check(&d, &isas, &mut scratch, 2);
        let (uniform, _) = d.run(&serial(Isa::Scalar), &mut scratch);
        d.case.uniform = false;
        check(&d, &isas, &mut scratch, 3);
        let (zeros, _) = d.run(&serial(Isa::Scalar), &mut scratch);
        let row = 2 * d.case.head_dim;
        assert!(zeros[..20 * row].iter().all(|v| *v == 0), "not +0: {:?}", d.case);
        let n = d.case.lengths[0].1 as f32;
        let weighs = d.case.clipped.is_none_or(|(gamma, zeta)| (zeta - gamma) / n + gamma > 0.0);
        assert_eq!(uniform[..20 * row].iter().any(|v| *v != 0), weighs, "{:?}", d.case);
        // Rows that meet something do not care.
        assert_eq!(uniform[40 * row..], zeros[40 * row..]);
    }
}

/// A bias of -inf empties a row as any mask does; the smallest float leaves it uniform over what it meets.
#[test]
fn rows_that_a_bias_empties() {
    let isas = isas("rows_that_a_bias_empties");
    let mut r = Rng::new(58);
    let mut scratch = Scratch::new();
    for round in 0..cases(24) as usize {
        let (q_len, kv_len) = (9, [7, 16, 65, 530][round % 4]);
        let mut case = Case::plain(r.next(), 2, 24, q_len, kv_len);
        case.clipped = [None, Some((-1e-4, 1.0)), Some((-1e-4, 1.01))][r.below(3)];
        case.bias = Some([1, 2, q_len, kv_len]);
        let mut d = case.data();
        let rows = |d: &mut Data, fill: f32| {
            for h in 0..2 {
                for i in [0, 4, 8] {
                    d.bias[(h * q_len + i) * kv_len..][..kv_len].fill(fill);
                }
            }
        };
        d.bias.iter_mut().for_each(|b| *b = b.max(-3.0));
        rows(&mut d, f32::NEG_INFINITY);
        check(&d, &isas, &mut scratch, round);
        let (zeros, _) = d.run(&serial(Isa::Scalar), &mut scratch);
        assert!(zeros[..48].iter().all(|v| *v == 0));
        d.case.uniform = true;
        check(&d, &isas, &mut scratch, round);
        let (uniform, _) = d.run(&serial(Isa::Scalar), &mut scratch);
        rows(&mut d, f32::MIN);
        d.case.uniform = round % 2 == 0;
        check(&d, &isas, &mut scratch, round);
        let (smallest, _) = d.run(&serial(Isa::Scalar), &mut scratch);
        assert_eq!(uniform, smallest, "{:?}", d.case);
        assert_ne!(uniform[..48], zeros[..48]);
    }
}

/// Scores far from 0, and far apart, and sums that rounding could spoil.
#[test]
fn scores_of_any_size() {
    let isas = isas("scores_of_any_size");
    let mut r = Rng::new(59);
    let mut scratch = Scratch::new();
    for offset in [-1e4, -300.0, 88.0, 1e4] {
        for clipped in [None, Some((-0.02, 1.0))] {
            let mut case = Case::plain(r.next(), 1, 16, 20, 70);
            (case.bias, case.clipped, case.peak) = (Some([1, 1, 1, 70]), clipped, 1e-6);
            let mut d = case.data();
            d.bias.iter_mut().enumerate().for_each(|(j, b)| *b = offset + (j % 7) as f32);
            check(&d, &isas, &mut scratch, 0);
        }
    }
    // Weights below 2^-124 are 0 and not read; those a little above are.
    let mut case = Case::plain(1, 1, 4, 1, 3);
    (case.bias, case.peak) = (Some([1, 1, 1, 3]), 1e-12);
    let mut d = case.data();
    d.v = vec![1.0, 1.0, 1.0, 1.0, 3e38, 3e38, 3e38, 3e38, f32::NAN, f32::NAN, f32::NAN, f32::NAN];
    d.bias = vec![0.0, -85.0, -87.0];
    for isa in isas {
        let (got, _) = d.run(&serial(isa), &mut scratch);
        let want = 1.0 + 3e38 * (-85f64).exp();
        assert!(
            real(&got).iter().all(|&g| (f64::from(g) - want).abs() < 1e-4 * want),
            "{isa} {:?}",
            real(&got)
        );
    }
}

/// Whatever is quantized between, floats do not care.
#[test]
fn floats_know_no_steps() {
    let mut r = Rng::new(60);
    let d = Case::random(&mut r).data();
    let plain = Data { int8: AttentionQuantizers::default(), ..d.clone() };
    for isa in isas("floats_know_no_steps") {
        let ctx = serial(isa);
        assert_eq!(d.run(&ctx, &mut Scratch::new()), plain.run(&ctx, &mut Scratch::new()), "{isa}");
    }
}

/// Rows that overlap, and are only read: every type and tier reads them as rows of their own.
#[test]
fn rows_that_overlap_are_read() {
    let isas = isas("rows_that_overlap_are_read");
    let mut r = Rng::new(61);
    let mut scratch = Scratch::new();
    for round in 0..cases(60) as usize {
        let (head_dim, tokens) = ([16, 5, 33, 64][round % 4], [11, 34, 1, 70, 130][r.below(5)]);
        let keys = [26, 28, 57, 64, 100][r.below(5)];
        let mut case = Case::plain(r.next(), 1, head_dim, tokens, keys);
        case.types[..3].fill(FLOATS[r.below(3)]);
        let mut d = case.data();
        let strides = [(); 3].map(|()| r.below(head_dim + 2));
        let [q, k, v] = [(0, &mut d.q, tokens), (1, &mut d.k, keys), (2, &mut d.v, keys)].map(|(i, x, n)| {
            let len = (n - 1) * strides[i] + head_dim;
            let short = Tensor::new(d.case.types[i], &x.repeat(2)[..len], (1, 1, len), Place::default(), 0.0);
            *x = (0..n * head_dim).map(|j| x[(j / head_dim * strides[i] + j % head_dim) % x.len()]).collect();
            short
        });
        for &isa in &isas {
            let ctx = serial(isa);
            let want = d.run(&ctx, &mut scratch).0;
            let shape = (tokens, 1, head_dim);
            let mut out = Tensor::new(Type::F32, &vec![0.0; d.q.len()], shape, Place::default(), 0.0);
            let part = |t, n, i: usize| Tensor::view(t, 0, (n, 1, head_dim), (strides[i], 0), Params::NONE);
            let (q, k, v) = (part(&q, tokens, 0), part(&k, keys, 1), part(&v, keys, 2));
            d.forward(q, k, v, out.output(d.out), &ctx, &mut scratch);
            assert!(out.bits().0 == want, "{isa} strides {strides:?} {:?}", d.case);
        }
    }
}
