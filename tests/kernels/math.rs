//! Functions of one number and random numbers that are siskin's own, because those of `std` are not the same on every platform.

#[path = "../../src/base/exp.rs"]
mod exp;
#[path = "../../src/ecoformer/random.rs"]
mod random;

use exp::{exp, sigmoid};
use random::{Random, ln};

#[test]
fn it_is_the_exponential() {
    for i in 0..70_000 {
        let x = -f64::from(i) * 0.01;
        assert!((exp(x) / x.exp() - 1.0).abs() < 4e-15, "{x}");
    }
    assert_eq!((exp(0.0), exp(-0.0), exp(-1e300), exp(f64::NEG_INFINITY)), (1.0, 1.0, 0.0, 0.0));
    assert!(exp(f64::NAN).is_nan());
}

#[test]
fn the_sigmoid_is_rounded_once_and_ends_at_0_and_1() {
    for i in -11_000..11_000 {
        let x = f64::from(i) * 0.01;
        let exact = 1.0 / (1.0 + (-x).exp());
        assert!((f64::from(sigmoid(x)) - exact).abs() <= exact * 6e-8 + 1e-45, "{x}");
    }
    assert_eq!((sigmoid(0.0), sigmoid(-0.0)), (0.5, 0.5));
    assert_eq!((sigmoid(f64::INFINITY), sigmoid(f64::NEG_INFINITY)), (1.0, 0.0));
    assert_eq!((sigmoid(1e300), sigmoid(-1e300)), (1.0, 0.0));
    assert!(sigmoid(f64::NAN).is_nan());
}

#[test]
fn it_is_the_logarithm() {
    for i in 1..50_000 {
        for x in [f64::from(i) * 1e-3, 1.0 / f64::from(i), f64::from(i) * 1e-300] {
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1.0), "{x}");
        }
    }
    assert_eq!(ln(1.0), 0.0);
}

#[test]
fn normal_numbers_are_normal() {
    let mut random = Random::new(7, 0);
    let n = 100_000;
    let x: Vec<f64> = (0..n).map(|_| random.normal().into()).collect();
    let moment = |k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / f64::from(n);
    assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02, "{} {}", moment(1), moment(2));
    assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1, "{} {}", moment(3), moment(4));
}

#[test]
fn choices_are_different() {
    for (n, count) in [(1, 1), (10, 10), (100, 7), (5, 0)] {
        let mut chosen = Random::new(3, 1).choose(n, count);
        assert_ne!((chosen.len(), &chosen[..]), (100, &[][..]));
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() == count && chosen.iter().all(|&i| i < n));
    }
    let streams = [(3, 0), (3, 1), (4, 0)].map(|(seed, stream)| Random::new(seed, stream).choose(1000, 5));
    assert!(streams[0] != streams[1] && streams[0] != streams[2] && streams[1] != streams[2]);
}
