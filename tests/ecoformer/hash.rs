//! The kernelized hash: against its definition, and against itself on other tiers, threads, layouts and divisions into sequences.

use crate::common::ecoformer::*;
use crate::common::*;
use siskin::attention::HeadsRef;
use siskin::ecoformer::{Bandwidth, BitCodes, FitOptions, KernelHash, fit};
use siskin::{Ctx, Isa};

const BANDWIDTHS: [Bandwidth; 2] = [Bandwidth::Sequence, Bandwidth::Frozen];

/// y of each bit in f64, `[heads, tokens, bits]`, each with what an f32 computation may be off by; x as `[tokens, heads, dim]`.
fn reference(parts: &Parts, x: &[f32], cu: &[i32], bandwidth: Bandwidth) -> Vec<(f64, f64)> {
    let Parts { heads, dim, m, bits, .. } = *parts;
    let n = x.len() / heads / dim;
    let mut y = vec![(0.0, 0.0); heads * n * bits];
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| x.into()).collect() };
    for h in 0..heads {
        let anchors = wide(&parts.anchors[h * m * dim..][..m * dim]);
        let largest = anchors.chunks(dim).map(|a| a.iter().map(|a| a * a).sum()).fold(1.0, f64::max);
        for ends in cu.windows(2) {
            let tokens = ends[0] as usize..ends[1] as usize;
            let squares = tokens.clone().flat_map(|t| {
                let x = wide(&x[(t * heads + h) * dim..][..dim]);
                let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                let apart = move |a: &[f64]| x.iter().zip(a).map(|(x, a)| (x / norm - a).powi(2)).sum();
                anchors.chunks(dim).map(apart).collect::<Vec<f64>>()
            });
            let squares: Vec<f64> = squares.collect();
            let sigma = match bandwidth {
                Bandwidth::Sequence => squares.iter().sum::<f64>() / squares.len() as f64,
                Bandwidth::Frozen => f64::from(parts.sigma[h]),
            };
            for (t, squares) in tokens.zip(squares.chunks(m)) {
                for b in 0..bits {
                    let (mut sum, mut most) = (0.0, 0.0);
                    for (i, square) in squares.iter().enumerate() {
                        let a = f64::from(parts.projection[(h * bits + b) * m + i]);
                        sum += a * ((-square / (2.0 * sigma)).exp() - f64::from(parts.centring[h * m + i]));
                        most += a.abs();
                    }
                    let off = 2e-6 * most * (1.0 + largest / sigma);
                    y[(h * n + t) * bits + b] = (sum, off);
                }
            }
        }
    }
    y
}

/// Lengths of sequences that end and begin everywhere in panels and chunks; one of them may be long.
fn lengths(r: &mut Rng) -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..r.below(4)).map(|_| [0, 1, 2, 17, 63, 64, 65][r.below(7)]).collect();
    lengths.push([1, 64, 511, 513][r.below(4)]);
    lengths
}

#[test]
fn the_definition_is_met_on_every_tier() {
    let isas = isas("the_definition_is_met_on_every_tier");
    let mut r = Rng::new(511);
    let (mut compared, mut all) = (0, 0);
    for round in 0..cases(48) as usize {
        let dim = [1, 7, 16, 24, 32, 64, 100, 256][round % 8];
        let m = [1 + r.below(60), 25][r.below(2)];
        let shape = [1 + r.below(3), dim, m, [1 + r.below(256), 16, 64, 1 + r.below(70)][r.below(4)]];
        let parts = Parts::random(&mut r, shape);
        let cu = cu_seqlens(&lengths(&mut r));
        let n = *cu.last().unwrap() as usize;
        let size = [1.0, 1e-12, 1e15][r.below(3)];
        let x = floats(&mut r, n * parts.heads * dim, size);
        let placed = Placed::new(&x, [n, parts.heads, dim], PLACES[r.below(4)], f32::NAN);
        let (hash, bandwidth) = (parts.hash(), BANDWIDTHS[r.below(2)]);
        let case = format!("{shape:?} {cu:?} {bandwidth:?}");
        let run = |ctx: &Ctx| encode(&hash, placed.view(), &cu, bandwidth, ctx);
        let (codes, encoded) = run(&serial(Isa::Scalar));
        assert_eq!((codes.len(), codes.bits(), encoded.without_direction), (parts.heads * n, parts.bits, 0));
        for (i, (y, off)) in reference(&parts, &x, &cu, bandwidth).into_iter().enumerate() {
            all += 1;
            if y.abs() > off {
                compared += 1;
                let bit = codes.bit(i / parts.bits, i % parts.bits);
                assert_eq!(bit, y > 0.0, "{case}: code {}, bit {}: y = {y}", i / parts.bits, i % parts.bits);
            }
        }
        for &isa in &isas {
            for way in [0, round % WAYS, (round * 7 + 3) % WAYS] {
                assert_eq!(in_parallel(isa, way, run), (codes.clone(), encoded), "{case}: {isa} {way}");
            }
        }
    }
    say(&format!("the_definition_is_met_on_every_tier: {compared} of {all} bits are far enough from 0"));
    assert!(compared * 100 > all * 99);
}

/// A token alone, among others, and in any sequence.
#[test]
fn a_frozen_bandwidth_makes_tokens_independent() {
    let mut r = Rng::new(512);
    for isa in isas("a_frozen_bandwidth_makes_tokens_independent") {
        let ctx = serial(isa);
        for shape in [[2, 24, 25, 16], [1, 64, 9, 130], [3, 7, 40, 5]] {
            let parts = Parts::random(&mut r, shape);
            let (hash, n, row) = (parts.hash(), 150, parts.heads * parts.dim);
            let x = floats(&mut r, n * row, 1.0);
            let run = |x: &[f32], cu: &[i32]| {
                let view = HeadsRef::new(x, x.len() / row, parts.heads, parts.dim).unwrap();
                encode(&hash, view, cu, Bandwidth::Frozen, &ctx).0
            };
            let codes = run(&x, &cu_seqlens(&[n]));
            assert_eq!(run(&x, &cu_seqlens(&vec![1; n])), codes);
            assert_eq!(run(&x, &cu_seqlens(&[63, 0, 66, 1, 20])), codes);
            for t in (0..n).step_by(7) {
                let alone = run(&x[t * row..][..row], &[0, 1]);
                assert_eq!(alone, some_codes(&codes, parts.heads, t..t + 1), "{isa} {shape:?} token {t}");
            }
        }
    }
}

/// Packed sequences have the codes that each has alone, whatever the others are.
#[test]
fn sequences_have_bandwidths_of_their_own() {
    let mut r = Rng::new(513);
    for isa in isas("sequences_have_bandwidths_of_their_own") {
        let ctx = serial(isa);
        for bandwidth in BANDWIDTHS {
            let parts = Parts::random(&mut r, [2, 24, 25, 33]);
            let (hash, row) = (parts.hash(), parts.heads * parts.dim);
            let cu = cu_seqlens(&[1, 63, 0, 65, 515, 2]);
            let mut x = floats(&mut r, *cu.last().unwrap() as usize * row, 1.0);
            let run = |x: &[f32], cu: &[i32]| {
                let view = HeadsRef::new(x, x.len() / row, parts.heads, parts.dim).unwrap();
                encode(&hash, view, cu, bandwidth, &ctx).0
            };
            let codes = run(&x, &cu);
            let each: Vec<_> = cu.windows(2).map(|ends| ends[0] as usize..ends[1] as usize).collect();
            for tokens in &each {
                let x = &x[tokens.start * row..tokens.end * row];
                let alone = run(x, &[0, tokens.len() as i32]);
                assert_eq!(alone, some_codes(&codes, parts.heads, tokens.clone()), "{isa} {tokens:?}");
            }
            // The last but one has other tokens, and some that are not numbers.
            for (i, x) in x[each[4].start * row..each[4].end * row].iter_mut().enumerate() {
                *x = if i % 100 == 0 { f32::NAN } else { 3.0 - *x };
            }
            let changed = run(&x, &cu);
            assert_ne!(changed, codes);
            for tokens in [&each[0], &each[1], &each[3], &each[5]] {
                let [now, before] =
                    [&changed, &codes].map(|codes| some_codes(codes, parts.heads, tokens.clone()));
                assert_eq!(now, before, "{isa} {tokens:?}");
            }
        }
    }
}

/// What makes a vector one without a direction.
const LOST: [[f32; 2]; 8] = [
    [0.0, 0.0],
    [-0.0, 0.0],
    [f32::NAN, 1.0],
    [1.0, f32::INFINITY],
    [f32::NEG_INFINITY, f32::INFINITY],
    [2e19, 1.0],
    [f32::MAX, f32::MIN],
    [1e-23, 1e-30],
];

#[test]
fn tokens_without_a_direction_count_as_zeros() {
    let isas = isas("tokens_without_a_direction_count_as_zeros");
    let mut r = Rng::new(514);
    for dim in [2, 24, 32, 100] {
        for bandwidth in BANDWIDTHS {
            let parts = Parts::random(&mut r, [2, dim, 25, 20]);
            let (hash, heads, n) = (parts.hash(), 2, 200);
            let cu = cu_seqlens(&[3, 70, 127]);
            let mut x = floats(&mut r, n * heads * dim, 1.0);
            let mut zeros = x.clone();
            let mut lost = 0;
            for (i, (x, zeros)) in x.chunks_mut(dim).zip(zeros.chunks_mut(dim)).enumerate() {
                // Of the first sequence all.
                if i < 6 || r.below(9) == 0 {
                    x.fill(0.0);
                    (x[0], x[dim - 1]) = LOST[i % 8].into();
                    zeros.fill(0.0);
                    lost += 1;
                }
            }
            let view = |x| HeadsRef::new(x, n, heads, dim).unwrap();
            let (want, _) = encode(&hash, view(&zeros), &cu, bandwidth, &serial(Isa::Scalar));
            for &isa in &isas {
                for way in 0..4 {
                    let (got, encoded) =
                        in_parallel(isa, way, |ctx| encode(&hash, view(&x), &cu, bandwidth, ctx));
                    assert_eq!(encoded.without_direction, lost, "{isa} {dim} {bandwidth:?}");
                    assert_eq!(got, want, "{isa} {dim} {bandwidth:?}");
                }
            }
        }
    }
}

/// The largest and the smallest vectors that have a direction have the codes of others of that direction.
#[test]
fn the_length_of_a_vector_does_not_matter() {
    let mut r = Rng::new(515);
    let parts = Parts::random(&mut r, [1, 24, 25, 40]);
    let (hash, n) = (parts.hash(), 70);
    let x = floats(&mut r, n * 24, 1.0);
    for isa in isas("the_length_of_a_vector_does_not_matter") {
        for bandwidth in BANDWIDTHS {
            // Powers of two change no bit of a product.
            let run = |power: i32| {
                let x: Vec<f32> = x.iter().map(|x| x * 2f32.powi(power)).collect();
                encode(&hash, HeadsRef::new(&x, n, 1, 24).unwrap(), &[0, n as i32], bandwidth, &serial(isa))
            };
            let want = run(0);
            assert_eq!(want.1.without_direction, 0);
            for power in [-50, -1, 1, 30, 61] {
                assert_eq!(run(power), want, "{isa} 2^{power}");
            }
        }
    }
}

#[test]
fn few_tokens_and_many_anchors() {
    let mut r = Rng::new(516);
    for isa in isas("few_tokens_and_many_anchors") {
        let ctx = serial(isa);
        for shape in [[1, 1, 1, 1], [2, 3, 300, 256], [3, 256, 60, 65]] {
            let parts = Parts::random(&mut r, shape);
            let hash = parts.hash();
            for bandwidth in BANDWIDTHS {
                for cu in [&[0][..], &[0, 0], &[0, 0, 0]] {
                    let none = HeadsRef::new(&[], 0, parts.heads, parts.dim).unwrap();
                    let (codes, encoded) = encode(&hash, none, cu, bandwidth, &ctx);
                    assert_eq!((codes.len(), codes.bits()), (0, parts.bits));
                    assert_eq!(encoded.without_direction, 0);
                }
                let x = floats(&mut r, parts.heads * parts.dim, 1.0);
                let one = HeadsRef::new(&x, 1, parts.heads, parts.dim).unwrap();
                let (codes, _) = encode(&hash, one, &[0, 1], bandwidth, &ctx);
                for (i, (y, off)) in reference(&parts, &x, &[0, 1], bandwidth).into_iter().enumerate() {
                    let bit = codes.bit(i / parts.bits, i % parts.bits);
                    assert!(y.abs() <= off || bit == (y > 0.0), "{isa} {shape:?} {bandwidth:?} {i}");
                }
            }
        }
    }
}

/// Parts that are finite and no more: what overflows is the same everywhere.
#[test]
fn extreme_parts() {
    let isas = isas("extreme_parts");
    let mut r = Rng::new(517);
    const SIZES: [f32; 6] = [f32::MAX, 1e30, 1.0, 1e-30, 1e-45, 0.0];
    for round in 0..cases(60) as usize {
        let mut parts = Parts::random(&mut r, [2, [5, 16][round % 2], 10, 70]);
        let (a, c, p) = ([1e18, 1.0, 1e-20, 1e-44, 0.0][r.below(5)], SIZES[r.below(6)], SIZES[r.below(6)]);
        parts.anchors.iter_mut().for_each(|x| *x *= a);
        parts.centring.iter_mut().for_each(|x| *x *= c);
        parts.projection.iter_mut().for_each(|x| *x *= p);
        parts.sigma = vec![1e-45, f32::MAX];
        let size = [1.0, 1e18, 1e-18][r.below(3)];
        let x = floats(&mut r, 80 * 2 * parts.dim, size);
        let view = HeadsRef::new(&x, 80, 2, parts.dim).unwrap();
        let hash = parts.hash();
        for bandwidth in BANDWIDTHS {
            let want = encode(&hash, view, &[0, 80], bandwidth, &serial(Isa::Scalar));
            assert_eq!(want.1.without_direction, 0);
            if p == 0.0 {
                assert!(want.0.words().iter().all(|word| *word == 0));
            }
            for &isa in &isas {
                assert_eq!(encode(&hash, view, &[0, 80], bandwidth, &serial(isa)), want, "{isa} {a} {c} {p}");
            }
        }
    }
}

/// What is beyond the floats stays there: no two infinities ever meet.
#[test]
fn no_sum_is_nan() {
    let mut r = Rng::new(518);
    let mut parts = Parts::random(&mut r, [1, 8, 2, 4]);
    parts.centring.fill(-1e30);
    parts.projection = vec![1e30, -1e30, -1e30, 1e30, 1e30, 1e30, 1e-30, -1e30];
    let x = floats(&mut r, 70 * 8, 1.0);
    for isa in isas("no_sum_is_nan") {
        let view = HeadsRef::new(&x, 70, 1, 8).unwrap();
        let (codes, _) = encode(&parts.hash(), view, &[0, 70], Bandwidth::Sequence, &serial(isa));
        assert!(codes.words().iter().all(|code| *code == 0b0101), "{isa}: {:?}", codes.words());
    }
}

/// What was learned on any tier encodes alike, and what it learned from is told apart.
#[test]
fn a_learned_hash_encodes_alike_everywhere() {
    let isas = isas("a_learned_hash_encodes_alike_everywhere");
    let mut r = Rng::new(519);
    let (n, heads, dim) = (90, 2, 24);
    let x = floats(&mut r, n * heads * dim, 1.0);
    let view = HeadsRef::new(&x, n, heads, dim).unwrap();
    let options = FitOptions::default().bits(9).anchors(12).iterations(10);
    let run = |ctx: &Ctx| {
        let hash = KernelHash::new(fit(&[view], &options, ctx).unwrap()).unwrap();
        BANDWIDTHS.map(|bandwidth| encode(&hash, view, &[0, n as i32], bandwidth, ctx))
    };
    let want = run(&serial(Isa::Scalar));
    // Fitted to this sequence, so both bandwidths are its own, but for their last bits.
    let differ = |a: &BitCodes, b: &BitCodes| -> u32 {
        a.words().iter().zip(b.words()).map(|(a, b)| (a ^ b).count_ones()).sum()
    };
    assert!(differ(&want[0].0, &want[1].0) <= 2, "{}", differ(&want[0].0, &want[1].0));
    assert!((0..9).all(|b| (0..n).any(|t| want[0].0.bit(t, b)) && (0..n).any(|t| !want[0].0.bit(t, b))));
    for &isa in &isas {
        for way in 0..4 {
            assert_eq!(in_parallel(isa, way, run), want, "{isa} {way}");
        }
    }
}
