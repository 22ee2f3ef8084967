//! Binary codes through the public interface: every width, against a loop over bits; threads, strides, limits, errors.

use crate::common::{Rng, WAYS, cases, in_parallel, isas, serial};
use proptest::prelude::*;
use siskin::ecoformer::BitCodes;
use siskin::{Ctx, Error, Isa, MatMut, MatRef, Scratch, bf16, f16};

fn random(len: usize, bits: usize, r: &mut Rng) -> BitCodes {
    let signs: Vec<i8> = (0..len * bits).map(|_| if r.next() & 1 == 1 { 1 } else { -1 }).collect();
    BitCodes::from_signs(MatRef::new(&signs, len, bits).unwrap()).unwrap()
}

fn all(len: usize, bits: usize, sign: i8) -> BitCodes {
    BitCodes::from_signs(MatRef::new(&vec![sign; len * bits], len, bits).unwrap()).unwrap()
}

fn distance(a: &BitCodes, i: usize, b: &BitCodes, j: usize) -> u16 {
    (0..a.bits()).filter(|&bit| a.bit(i, bit) != b.bit(j, bit)).count() as u16
}

/// Distances `[a.len(), b.len()]`, bit by bit.
fn plain(a: &BitCodes, b: &BitCodes) -> Vec<u16> {
    (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| distance(a, i, b, j))).collect()
}

fn hamming(a: &BitCodes, b: &BitCodes, ctx: &Ctx) -> Vec<u16> {
    let mut out = vec![0xffff; a.len() * b.len()];
    let to = MatMut::new(&mut out, a.len(), b.len()).unwrap();
    a.hamming(b, to, ctx, &mut Scratch::new()).unwrap();
    out
}

fn nearest(a: &BitCodes, b: &BitCodes, k: usize, ctx: &Ctx) -> (Vec<u32>, Vec<u16>) {
    let (mut indices, mut distances) = (vec![5; a.len() * k], vec![5; a.len() * k]);
    let to =
        (MatMut::new(&mut indices, a.len(), k).unwrap(), MatMut::new(&mut distances, a.len(), k).unwrap());
    a.nearest(b, to.0, to.1, ctx, &mut Scratch::new()).unwrap();
    (indices, distances)
}

/// The first k of a sort by distance and number.
fn sorted(a: &BitCodes, b: &BitCodes, k: usize, distances: &[u16]) -> (Vec<u32>, Vec<u16>) {
    let (mut indices, mut nearest) = (vec![], vec![]);
    for i in 0..a.len() {
        let mut row: Vec<(u16, u32)> = (0..b.len()).map(|j| (distances[i * b.len() + j], j as u32)).collect();
        row.sort_unstable();
        row.resize(row.len().max(k), (u16::MAX, BitCodes::NONE));
        indices.extend(row[..k].iter().map(|&(_, j)| j));
        nearest.extend(row[..k].iter().map(|&(d, _)| d));
    }
    (indices, nearest)
}

#[test]
fn every_width_and_length() {
    let lengths = [0, 1, 2, 5, 31, 32, 33, 63, 64, 65, 130];
    let mut r = Rng::new(1);
    let mut scratch = Scratch::new();
    let isas = isas("every_width_and_length");
    // All of them, but where tests are to be short.
    let step = 256 / cases(256).min(256) as usize;
    for bits in (1..=256).step_by(step) {
        let (m, n) = (lengths[r.below(lengths.len())], lengths[bits % lengths.len()]);
        let (a, b) = (random(m, bits, &mut r), random(n, bits, &mut r));
        let want = plain(&a, &b);
        let k = 1 + r.below(n + 3);
        let neighbours = sorted(&a, &b, k, &want);
        for &isa in &isas {
            let ctx = serial(isa);
            let what = format!("{isa}: {m} x {n} codes of {bits} bits");
            assert_eq!(hamming(&a, &b, &ctx), want, "{what}");
            let mut products = vec![-9i16; m * n];
            let to = MatMut::new(&mut products, m, n).unwrap();
            a.inner_products(&b, to, &ctx, &mut scratch).unwrap();
            let mut similarities = vec![9u16; m * n];
            let to = MatMut::new(&mut similarities, m, n).unwrap();
            a.similarities(&b, to, &ctx, &mut scratch).unwrap();
            for (i, &d) in want.iter().enumerate() {
                let product = bits as i16 - 2 * d as i16;
                assert_eq!(products[i], product, "{what}");
                assert_eq!(similarities[i] as i16, product + bits as i16 + 1, "{what}");
            }
            assert_eq!(nearest(&a, &b, k, &ctx), neighbours, "{what}, {k} nearest");
        }
    }
}

#[test]
fn ends_of_the_range() {
    for isa in isas("ends_of_the_range") {
        let ctx = serial(isa);
        for bits in [1, 15, 16, 17, 63, 64, 65, 128, 200, 255, 256] {
            let (ones, zeros) = (all(67, bits, 1), all(67, bits, -1));
            assert_eq!(hamming(&ones, &zeros, &ctx), vec![bits as u16; 67 * 67]);
            assert_eq!(hamming(&zeros, &zeros, &ctx), vec![0; 67 * 67]);
            assert_eq!(hamming(&ones, &ones, &ctx), vec![0; 67 * 67]);
            let mut similarities = vec![0u16; 67 * 67];
            for (other, want) in [(&ones, 2 * bits + 1), (&zeros, 1)] {
                let to = MatMut::new(&mut similarities, 67, 67).unwrap();
                ones.similarities(other, to, &ctx, &mut Scratch::new()).unwrap();
                assert!(similarities.iter().all(|&s| usize::from(s) == want), "{isa}, {bits} bits");
            }
            // All as near: the first.
            let (indices, distances) = nearest(&ones, &zeros, 66, &ctx);
            for row in indices.chunks(66) {
                assert!(row.iter().copied().eq(0..66), "{isa}, {bits} bits");
            }
            assert!(distances.iter().all(|&d| usize::from(d) == bits));
        }
    }
}

/// More codes than a block of the cache, rows than a task keeps, neighbours than are bounded first.
#[test]
fn large_searches() {
    let mut r = Rng::new(3);
    for (m, n, bits, k) in [(3, 5000, 64, 10), (600, 70, 20, 3), (2, 3000, 250, 700), (1, 4100, 16, 1)] {
        let (a, b) = (random(m, bits, &mut r), random(n, bits, &mut r));
        let want = sorted(&a, &b, k, &plain(&a, &b));
        for isa in isas("large_searches") {
            assert_eq!(nearest(&a, &b, k, &serial(isa)), want, "{isa}: {m} x {n} of {bits} bits, {k}");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let mut r = Rng::new(4);
    let isa = Isa::detect().unwrap();
    for (m, n, bits) in [(1, 700, 64), (2, 1000, 17), (50, 33, 256), (301, 2, 100), (5, 0, 64), (0, 5, 64)] {
        let (a, b) = (random(m, bits, &mut r), random(n, bits, &mut r));
        let distances = plain(&a, &b);
        let neighbours = sorted(&a, &b, 7, &distances);
        for way in 0..WAYS {
            in_parallel(isa, way, |ctx| {
                assert_eq!(hamming(&a, &b, ctx), distances, "{m} x {n} of {bits} bits, {way}");
                assert_eq!(nearest(&a, &b, 7, ctx), neighbours, "{m} x {n} of {bits} bits, {way}");
            });
        }
    }
}

/// What lies between rows is not written, by one thread or many.
#[test]
fn outputs_with_strides() {
    let mut r = Rng::new(5);
    let (a, b) = (random(37, 64, &mut r), random(67, 64, &mut r));
    let want = plain(&a, &b);
    let neighbours = sorted(&a, &b, 5, &want);
    for isa in isas("outputs_with_strides") {
        for way in [0, 5, 19] {
            in_parallel(isa, way, |ctx| {
                let mut scratch = Scratch::new();
                let mut out = vec![0xa5a5u16; 37 * 70];
                let to = MatMut::with_stride(&mut out, 37, 67, 70).unwrap();
                a.hamming(&b, to, ctx, &mut scratch).unwrap();
                let (mut indices, mut distances) = (vec![77u32; 37 * 9], vec![77u16; 37 * 6]);
                let to = (
                    MatMut::with_stride(&mut indices, 37, 5, 9).unwrap(),
                    MatMut::with_stride(&mut distances, 37, 5, 6).unwrap(),
                );
                a.nearest(&b, to.0, to.1, ctx, &mut scratch).unwrap();
                for i in 0..37 {
                    assert_eq!(out[i * 70..][..67], want[i * 67..][..67]);
                    assert_eq!(out[i * 70..][67..70], [0xa5a5; 3]);
                    assert_eq!(indices[i * 9..][..5], neighbours.0[i * 5..][..5]);
                    assert_eq!(indices[i * 9..][5..9], [77; 4]);
                    assert_eq!(distances[i * 6..][..5], neighbours.1[i * 5..][..5]);
                    assert_eq!(distances[i * 6 + 5], 77);
                }
            });
        }
    }
}

#[test]
fn signs_of_every_type() {
    let y = [1.5f32, -0.0, 0.0, f32::NAN, -3.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];
    let codes = BitCodes::from_signs(MatRef::new(&y, 1, 8).unwrap()).unwrap();
    assert_eq!(codes.words(), [0b1010_0001]);
    assert_eq!(codes.to_signs(), [1, -1, -1, -1, -1, 1, -1, 1]);
    let b: Vec<bf16> = y.iter().map(|&v| bf16::from_f32(v)).collect();
    assert_eq!(BitCodes::from_signs(MatRef::new(&b, 1, 8).unwrap()).unwrap(), codes);
    let h: Vec<f16> = y.iter().map(|&v| f16::from_f32(if v.is_normal() { v * 1e38 } else { v })).collect();
    assert_eq!(BitCodes::from_signs(MatRef::new(&h, 1, 8).unwrap()).unwrap(), codes);
    let i = [0, 1, i32::MIN, i32::MAX];
    assert_eq!(BitCodes::from_signs(MatRef::new(&i, 2, 2).unwrap()).unwrap().words(), [0b10, 0b10]);

    // Rows of y apart from each other, codes of two words.
    let mut y = [-1i8; 2 * 100];
    (y[0], y[64], y[69], y[99], y[100 + 63]) = (1, 1, 1, 1, 1);
    let codes = BitCodes::from_signs(MatRef::with_stride(&y, 2, 70, 100).unwrap()).unwrap();
    assert_eq!((codes.len(), codes.bits()), (2, 70));
    assert_eq!(codes.words(), [1, 0b100001, 1 << 63, 0]);
    assert_eq!(codes.code(1), [1 << 63, 0]);
    assert!(codes.bit(0, 69) && !codes.bit(0, 68) && codes.bit(1, 63));
    assert_eq!(BitCodes::from_words(codes.words().to_vec(), 70).unwrap(), codes);
    let back = codes.to_signs();
    assert_eq!(BitCodes::from_signs(MatRef::new(&back, 2, 70).unwrap()).unwrap(), codes);
}

#[test]
fn codes_take_the_place_of_others() {
    let mut codes = BitCodes::with_capacity(3, 100).unwrap();
    assert!(codes.is_empty() && codes.bits() == 100);
    codes.set_signs(MatRef::new(&[1i8; 300], 3, 100).unwrap()).unwrap();
    codes.set_signs(MatRef::new(&[-1i8, 1, 1, -1], 2, 2).unwrap()).unwrap();
    assert_eq!((codes.len(), codes.bits(), codes.words()), (2, 2, &[0b10, 0b01][..]));
    let before = codes.clone();
    assert!(codes.set_signs(MatRef::new(&[1i8; 257], 1, 257).unwrap()).is_err());
    assert_eq!(codes, before);
}

#[test]
fn what_is_wrong_is_said() {
    for bits in [0, 257, usize::MAX] {
        assert!(matches!(BitCodes::from_words(vec![], bits), Err(Error::Value { argument: "bits", .. })));
        assert!(matches!(BitCodes::with_capacity(1, bits), Err(Error::Value { argument: "bits", .. })));
    }
    let y = MatRef::new(&[] as &[f32], 5, 0).unwrap();
    assert!(matches!(BitCodes::from_signs(y), Err(Error::Value { argument: "bits", .. })));
    let huge = BitCodes::with_capacity(usize::MAX / 2, 256);
    assert!(matches!(huge, Err(Error::Shape { argument: "len", .. })));
    assert!(matches!(BitCodes::from_words(vec![0; 3], 65), Err(Error::Shape { argument: "words", .. })));
    for (bits, word, at) in [(3, 0b1000, 2), (63, 1 << 63, 1), (65, 2, 3), (255, 1 << 63, 7)] {
        let mut words = vec![0; 8];
        words[at] = word;
        let error = BitCodes::from_words(words, bits).unwrap_err();
        assert!(
            matches!(error, Error::Index { argument: "words", position, .. } if position == at),
            "{error}"
        );
    }
    // The same bits where they belong.
    assert!(BitCodes::from_words(vec![u64::MAX, 1], 65).is_ok());

    let (ctx, mut scratch) = (Ctx::serial().unwrap(), Scratch::new());
    let (a, b, c) = (all(2, 64, 1), all(3, 64, 1), all(3, 63, 1));
    let mut out = [7u16; 6];
    let error = a.hamming(&c, MatMut::new(&mut out, 2, 3).unwrap(), &ctx, &mut scratch).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "other", .. }), "{error}");
    let error = a.hamming(&b, MatMut::new(&mut out, 3, 2).unwrap(), &ctx, &mut scratch).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "out", .. }), "{error}");
    let error = a.similarities(&b, MatMut::new(&mut out, 1, 6).unwrap(), &ctx, &mut scratch).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "out", .. }), "{error}");
    let mut products = [7i16; 6];
    let error =
        a.inner_products(&b, MatMut::new(&mut products, 6, 1).unwrap(), &ctx, &mut scratch).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "out", .. }), "{error}");
    let mut indices = [7u32; 6];
    let mut nearest = |b: &BitCodes, i: (usize, usize), d: (usize, usize)| {
        let indices = MatMut::with_stride(&mut indices, i.0, i.1, i.1).unwrap();
        let distances = MatMut::with_stride(&mut out, d.0, d.1, d.1).unwrap();
        match a.nearest(b, indices, distances, &ctx, &mut scratch) {
            Err(Error::Shape { argument, .. }) => argument,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(nearest(&c, (2, 3), (2, 3)), "other");
    assert_eq!(nearest(&b, (2, 0), (2, 0)), "indices");
    assert_eq!(nearest(&b, (3, 2), (2, 2)), "indices");
    assert_eq!(nearest(&b, (2, 2), (3, 2)), "distances");
    assert_eq!(nearest(&b, (2, 2), (2, 3)), "distances");
    assert_eq!((out, products, indices), ([7; 6], [7; 6], [7; 6]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64)))]

    #[test]
    fn a_distance_is_a_metric(seed: u64, n in 1usize..40, bits in 1usize..=256) {
        let codes = random(n, bits, &mut Rng::new(seed));
        let d = hamming(&codes, &codes, &Ctx::new().unwrap());
        for i in 0..n {
            prop_assert_eq!(d[i * n + i], 0);
            for j in 0..n {
                prop_assert!(usize::from(d[i * n + j]) <= bits);
                prop_assert_eq!(d[i * n + j], d[j * n + i]);
                for k in 0..n {
                    prop_assert!(d[i * n + j] <= d[i * n + k] + d[k * n + j]);
                }
            }
        }
        // Each code is its own nearest, or an equal one before it is.
        let (indices, distances) = nearest(&codes, &codes, 1, &Ctx::new().unwrap());
        for i in 0..n {
            prop_assert_eq!(distances[i], 0);
            prop_assert!(indices[i] as usize <= i && codes.code(indices[i] as usize) == codes.code(i));
        }
    }

    #[test]
    fn a_similarity_weighs_something(seed: u64, n in 1usize..40, bits in 1usize..=256) {
        let mut r = Rng::new(seed);
        let (a, b) = (random(n, bits, &mut r), random(n + 3, bits, &mut r));
        let mut out = vec![0u16; n * (n + 3)];
        let to = MatMut::new(&mut out, n, n + 3).unwrap();
        a.similarities(&b, to, &Ctx::new().unwrap(), &mut Scratch::new()).unwrap();
        for (i, &s) in out.iter().enumerate() {
            prop_assert!((1..=2 * bits + 1).contains(&usize::from(s)));
            let (x, y) = (a.to_signs(), b.to_signs());
            let (x, y) = (&x[i / (n + 3) * bits..][..bits], &y[i % (n + 3) * bits..][..bits]);
            let product: i32 = x.iter().zip(y).map(|(x, y)| i32::from(x * y)).sum();
            prop_assert_eq!(i32::from(s), product + bits as i32 + 1);
        }
    }
}
