//! Learning a hash: against the original's vectors, a plain fit, and itself on other tiers and threads.

use crate::common::golden::Golden;
use crate::common::ksh;
use crate::common::*;
use siskin::attention::HeadsRef;
use siskin::ecoformer::{BitCodes, FitOptions, Learned, MAX_TOKENS, fit};
use siskin::{Ctx, Error, Isa};

const GOLDEN: [&[u8]; 2] = [
    include_bytes!("../golden/eco_fit_h1_d16_b8.safetensors"),
    include_bytes!("../golden/eco_fit_h2_d32_b16.safetensors"),
];

#[track_caller]
fn near(what: &str, got: &[f32], expected: impl IntoIterator<Item = f64>, tolerance: f64) {
    let expected: Vec<f64> = expected.into_iter().collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(got) - expected).abs() <= tolerance, "{what}[{i}]: {got} for {expected}");
    }
}

/// The original adds up in f32 in orders of its own: 1e-4 on what 100 steps made of it, 1e-6 on what is made at once.
/// Its losses are exact but for their last rounding.
#[test]
fn the_numbers_of_the_original_are_met() {
    for (file, neighbours) in GOLDEN.into_iter().zip([6, 10]) {
        let g = Golden::new(file);
        let shape = g.shape("in.qk");
        let [_, heads, tokens, head_dim] = shape[..] else { panic!("{shape:?}") };
        let x = g.f32("in.qk");
        let sequences: Vec<_> = x
            .chunks(heads * tokens * head_dim)
            .map(|x| HeadsRef::with_strides(x, tokens, heads, head_dim, head_dim, tokens * head_dim).unwrap())
            .collect();
        let [_, bits, anchors] = g.shape("in.A_init")[..] else { panic!() };
        let options = FitOptions::default()
            .bits(bits)
            .anchors(anchors)
            .neighbours(neighbours)
            .anchor_tokens(Some(g.i32("in.perm").iter().map(|&token| token as usize).collect()))
            .projection(Some(g.f32("in.A_init")));
        let learned = fit(&sequences, &options, &Ctx::new().unwrap()).unwrap();
        let expected = |name: &str| g.f32(name).into_iter().map(f64::from);
        near("anchors", &learned.anchors, expected("out.anchor"), 1e-6);
        near("centring", &learned.centring, expected("out.mvec"), 1e-6);
        near("projection", &learned.projection, expected("out.A"), 1e-4);
        let accepted: Vec<bool> = g.u8("mid.accepted").iter().map(|&a| a != 0).collect();
        assert_eq!(learned.accepted, accepted);
        let losses = |f: fn(&siskin::ecoformer::BitLoss) -> f64| -> Vec<f32> {
            learned.losses.iter().map(|l| f(l) as f32).collect()
        };
        near("before", &losses(|l| l.before), expected("mid.loss_prev"), 1e-5);
        near("after", &losses(|l| l.after), expected("mid.loss_cur"), 1e-5);
    }
}

/// Tokens of some heads, in groups that are alike.
fn tokens(r: &mut Rng, tokens: usize, heads: usize, head_dim: usize) -> Vec<f32> {
    let centres: Vec<f32> = (0..5 * head_dim).map(|_| r.float(-1.0, 1.0)).collect();
    let mut x = Vec::with_capacity(tokens * heads * head_dim);
    for _ in 0..tokens * heads {
        let (centre, scale) = (r.below(5), r.float(0.1, 10.0));
        x.extend((0..head_dim).map(|i| scale * (centres[centre * head_dim + i] + r.float(-0.7, 0.7))));
    }
    x
}

fn views<'a>(x: &'a [Vec<f32>], heads: usize, head_dim: usize) -> Vec<HeadsRef<'a, f32>> {
    let view = |x: &'a Vec<f32>| HeadsRef::new(x, x.len() / (heads * head_dim), heads, head_dim).unwrap();
    x.iter().map(view).collect()
}

/// A sequence longer than a chunk, one longer than a task of rows, short ones, one token and one anchor; neighbours
/// that overlap.
#[test]
fn a_plain_fit_learns_the_same() {
    let mut r = Rng::new(5);
    for (lengths, heads, head_dim, bits, anchors, neighbours) in [
        (&[60][..], 2, 8, 6, 5, 4),
        (&[40, 33, 64], 1, 12, 4, 7, 10),
        (&[20, 31], 3, 5, 5, 20, 15),
        (&[9, 1, 3], 2, 3, 3, 1, 1),
        (&[540], 1, 16, 3, 9, 10),
    ] {
        let x: Vec<Vec<f32>> = lengths.iter().map(|&n| tokens(&mut r, n, heads, head_dim)).collect();
        let x = views(&x, heads, head_dim);
        let options = FitOptions::default()
            .bits(bits)
            .anchors(anchors)
            .neighbours(neighbours)
            .iterations(20)
            .learning_rate(0.05)
            .anchor_tokens(Some((0..anchors).map(|i| (i * 7 + 3) % lengths[0]).collect()))
            .projection(Some((0..heads * bits * anchors).map(|_| r.float(-1.5, 1.5)).collect()));
        let plain = ksh::fit(&x, &options);
        let learned = fit(&x, &options, &Ctx::new().unwrap()).unwrap();
        // Else a sign could be either.
        assert!(plain.margin > 1e-6, "{lengths:?}: {}", plain.margin);
        near("anchors", &learned.anchors, plain.anchors, 1e-6);
        near("centring", &learned.centring, plain.centring, 1e-6);
        near("sigma", &learned.sigma, plain.sigma, 1e-6);
        assert_eq!(learned.accepted, plain.accepted, "{lengths:?}");
        near("projection", &learned.projection, plain.projection, 1e-4);
        for (got, expected) in learned.losses.iter().zip(plain.losses) {
            for (got, expected) in [got.before, got.after].into_iter().zip(expected) {
                assert!((got - expected).abs() < 1e-9 * expected.abs().max(1.0), "{got} for {expected}");
            }
        }
    }
}

#[test]
fn every_tier_and_number_of_threads_learns_the_same_bits() {
    let mut r = Rng::new(6);
    let isas = isas("ecoformer_fit");
    for (lengths, heads, head_dim) in [(&[700, 45][..], 1, 19), (&[130][..], 5, 32)] {
        let x: Vec<Vec<f32>> = lengths.iter().map(|&n| tokens(&mut r, n, heads, head_dim)).collect();
        let x = views(&x, heads, head_dim);
        let options = FitOptions::default().bits(5).iterations(8).learning_rate(0.1);
        let bits = |learned: &Learned| -> Vec<u32> {
            let tensors = [&learned.anchors, &learned.centring, &learned.projection, &learned.sigma];
            tensors.into_iter().flatten().map(|v| v.to_bits()).collect()
        };
        let expected = fit(&x, &options, &serial(Isa::Scalar)).unwrap();
        assert!(expected.accepted.contains(&true) && bits(&expected).len() > 100);
        let same = |learned: Learned, what: &str| {
            assert!(bits(&learned) == bits(&expected) && learned == expected, "{what}");
        };
        for &isa in &isas {
            same(fit(&x, &options, &serial(isa)).unwrap(), &format!("{isa}"));
        }
        for way in 0..WAYS {
            let isa = isas[way % isas.len()];
            same(in_parallel(isa, way, |ctx| fit(&x, &options, ctx).unwrap()), &format!("{isa}, way {way}"));
        }
    }
}

#[test]
fn seeds_decide_what_is_drawn() {
    let x = [tokens(&mut Rng::new(7), 90, 2, 8)];
    let x = views(&x, 2, 8);
    let ctx = Ctx::new().unwrap();
    let learn = |seed: u64| fit(&x, &FitOptions::default().seed(seed).bits(4).iterations(3), &ctx).unwrap();
    assert_eq!(learn(1), learn(1));
    let (one, two) = (learn(1), learn(2));
    assert!(one.anchors != two.anchors && one.projection != two.projection);
    // Each token of a head is a direction of its own, so anchors are all different.
    let mut rows: Vec<Vec<u32>> =
        one.anchors[..25 * 8].chunks(8).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), 25);
}

#[test]
fn what_is_learned_is_like_the_tokens() {
    let (heads, head_dim) = (2, 8);
    let x = [tokens(&mut Rng::new(8), 300, heads, head_dim)];
    let options = FitOptions::default().learning_rate(0.05);
    let learned = fit(&views(&x, heads, head_dim), &options, &Ctx::new().unwrap()).unwrap();
    assert_eq!((learned.heads, learned.anchors_per_head, learned.head_dim, learned.bits), (2, 25, 8, 16));
    assert!(learned.sigma.iter().all(|s| (0.1..4.0).contains(s)));
    assert_eq!(learned.accepted.len(), 16);
    for (accepted, loss) in learned.accepted.iter().zip(&learned.losses) {
        assert_eq!(*accepted, loss.after < loss.before);
    }
    for anchor in learned.anchors.chunks(head_dim) {
        let norm: f32 = anchor.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-6);
    }
}

/// Tokens of 1 and -1 have few different similarities, all exact: the first tokens are taken.
#[test]
fn ties_go_to_the_first_tokens() {
    let mut r = Rng::new(9);
    let x: Vec<f32> = (0..120 * 4).map(|i| [1.0, -1.0][r.below(2)] * [1.0, 2.0, 0.5][i / 4 % 3]).collect();
    let options = FitOptions::default()
        .bits(4)
        .anchors(6)
        .neighbours(17)
        .iterations(10)
        .learning_rate(0.05)
        .anchor_tokens(Some((0..6).collect()))
        .projection(Some((0..24).map(|_| r.float(-1.0, 1.0)).collect()));
    let views = [HeadsRef::new(&x, 120, 1, 4).unwrap()];
    let learned = fit(&views, &options, &Ctx::new().unwrap()).unwrap();
    let plain = ksh::fit(&views, &options);
    assert_eq!(learned.accepted, plain.accepted);
    for (got, expected) in learned.losses.iter().zip(plain.losses) {
        assert!((got.before - expected[0]).abs() < 1e-9 && (got.after - expected[1]).abs() < 1e-9);
    }
}

#[test]
fn extremes_are_learned_from() {
    let ctx = Ctx::new().unwrap();
    // Norms that overflow or vanish in f32.
    let mut x = tokens(&mut Rng::new(10), 40, 1, 4);
    let plain = fit(&[HeadsRef::new(&x, 40, 1, 4).unwrap()], &FitOptions::default(), &ctx).unwrap();
    x.iter_mut().enumerate().for_each(|(i, v)| *v *= [2f32.powi(120), 2f32.powi(-90)][i / 4 % 2]);
    let scaled = fit(&[HeadsRef::new(&x, 40, 1, 4).unwrap()], &FitOptions::default(), &ctx).unwrap();
    assert_eq!(plain, scaled);

    // A descent that flies away is refused, and leaves finite parts.
    let wild = FitOptions::default().learning_rate(f32::MAX);
    let learned = fit(&[HeadsRef::new(&x, 40, 1, 4).unwrap()], &wild, &ctx).unwrap();
    assert!(learned.projection.iter().all(|v| v.is_finite()));
    assert!(learned.losses.iter().all(|l| l.before.is_finite() && l.after.is_finite()));

    // No step: nothing is gained, so nothing is taken.
    let still = FitOptions::default().iterations(0).bits(3);
    let learned = fit(&[HeadsRef::new(&x, 40, 1, 4).unwrap()], &still, &ctx).unwrap();
    assert_eq!(learned.accepted, [false; 3]);
    assert!(learned.losses.iter().all(|l| l.before == l.after));

    // The most bits; two tokens.
    let most = FitOptions::default().bits(BitCodes::MAX_BITS).anchors(2).neighbours(1).iterations(1);
    let learned = fit(&[HeadsRef::new(&x[..8], 2, 1, 4).unwrap()], &most, &ctx).unwrap();
    assert_eq!(learned.projection.len(), 2 * BitCodes::MAX_BITS);
    assert!(learned.projection.iter().all(|v| v.is_finite()));
}

#[test]
fn bad_arguments_are_refused() {
    let ctx = Ctx::new().unwrap();
    let x = tokens(&mut Rng::new(11), 30, 2, 4);
    let all = HeadsRef::new(&x, 30, 2, 4).unwrap();
    let good = FitOptions::default();
    let options = |change: &dyn Fn(&mut FitOptions)| {
        let mut options = good.clone();
        change(&mut options);
        options
    };
    let refused = |sequences: &[HeadsRef<'_, f32>], options: &FitOptions, expected: &str| {
        let error = fit(sequences, options, &ctx).unwrap_err();
        let argument = match &error {
            Error::Shape { argument, .. } => format!("shape {argument}"),
            Error::Value { argument, .. } => format!("value {argument}"),
            Error::Index { argument, position, .. } => format!("index {argument} {position}"),
            _ => format!("{error:?}"),
        };
        assert_eq!(argument, expected, "{error}");
    };
    refused(&[], &good, "shape sequences");
    refused(&[HeadsRef::new(&x, 60, 1, 4).unwrap(), all], &good, "shape sequences");
    refused(&[all, HeadsRef::new(&x, 30, 4, 2).unwrap()], &good, "shape sequences");
    refused(&[all, HeadsRef::new(&[], 0, 2, 4).unwrap()], &good, "shape sequences");
    refused(&[HeadsRef::new(&[], 0, 2, 4).unwrap()], &good, "shape anchors");
    refused(&[HeadsRef::new(&[], 30, 0, 4).unwrap()], &good, "shape sequences");
    refused(&[HeadsRef::new(&[], 30, 2, 0).unwrap()], &good, "shape sequences");
    // Views of next to nothing that claim to be large.
    let huge = |tokens, heads| HeadsRef::with_strides(&[1.0; 4], tokens, heads, 4, 0, 0).unwrap();
    refused(&[huge(MAX_TOKENS + 1, 1)], &good, "shape sequences");
    refused(&[huge(MAX_TOKENS, usize::MAX >> 8)], &good, "shape sequences");
    refused(&[huge(usize::MAX, usize::MAX)], &good, "shape sequences");

    refused(&[all], &options(&|o| o.bits = 0), "value bits");
    refused(&[all], &options(&|o| o.bits = BitCodes::MAX_BITS + 1), "value bits");
    refused(&[all], &options(&|o| o.anchors = 0), "shape anchors");
    refused(&[all], &options(&|o| o.anchors = 31), "shape anchors");
    refused(&[all], &options(&|o| o.neighbours = 0), "shape neighbours");
    refused(&[all], &options(&|o| o.neighbours = 31), "shape neighbours");
    for rate in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(&[all], &options(&|o| o.learning_rate = rate), "value learning_rate");
    }
    for momentum in [1.0, -0.1, f32::NAN] {
        refused(&[all], &options(&|o| o.momentum = momentum), "value momentum");
    }
    refused(&[all], &options(&|o| o.anchor_tokens = Some(vec![0; 24])), "shape anchor_tokens");
    refused(&[all], &options(&|o| o.anchor_tokens = Some((6..31).collect())), "index anchor_tokens 24");
    refused(&[all], &options(&|o| o.projection = Some(vec![0.0; 799])), "shape projection");
    refused(&[all], &options(&|o| o.projection = Some(vec![f32::NAN; 800])), "value projection");

    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = x.clone();
        x[100] = bad;
        refused(&[all, HeadsRef::new(&x, 30, 2, 4).unwrap()], &good, "value sequences");
    }
    let mut zeros = x.clone();
    zeros[4..8].fill(0.0);
    refused(&[HeadsRef::new(&zeros, 30, 2, 4).unwrap()], &good, "value sequences");
    // All tokens alike: a bandwidth of 0.
    refused(&[huge(30, 2)], &good, "value sequences");
}
