//! Ranges of static INT8: what is covered of what was seen.

use crate::common::{batch, config, cosine, embed};
use siskin::Ctx;
use siskin::Element;
use siskin::quant::QuantParams;
use siskin_bert::{Calibration, Encoder, Family, Model, Options, Range};

#[path = "../../src/mse.rs"]
#[allow(dead_code, reason = "how rows are kept is not used here")]
mod mse;

/// A value far from many others, so far that one end is to be clipped, and so little that not all of it is.
fn values() -> (Vec<f32>, (f32, f32)) {
    let many = (0..1 << 20).map(|i| {
        let (a, b) = ((i % 1021) as f32 / 1020.0, (i % 1031) as f32 / 1030.0);
        a - b
    });
    (many.chain([8.0]).collect(), (-1.0, 8.0))
}

fn error(values: &[f32], (low, high): (f32, f32)) -> f64 {
    let params = QuantParams::from_range_asymmetric(low, high, Element::U8).unwrap();
    let one = |&v: &f32| f64::from(v - params.dequantize(params.quantize(v))).powi(2);
    values.iter().map(one).sum()
}

#[test]
fn the_range_of_least_error_is_found() {
    let (values, all) = values();
    let found = mse::range(values.iter().copied(), all).unwrap();
    let got = error(&values, found);
    assert!(got < 0.6 * error(&values, all), "{found:?}");
    assert!(found.1 < 7.0 && found.0 < -0.8, "{found:?}");
    // No other end of either side does better, but for what is between the values of a bin.
    let few: Vec<f32> = values.iter().rev().step_by(64).copied().collect();
    let weighted = |range| 64.0 * error(&few[1..], range) + error(&few[..1], range);
    for i in 1..20 {
        let part = i as f32 / 20.0;
        for other in [(all.0 * part, found.1), (found.0, all.1 * part)] {
            assert!(weighted(other) > 0.97 * weighted(found), "{other:?} is better than {found:?}");
        }
    }
    for nothing in [(0.0, 0.0), (0.0, f32::MIN_POSITIVE)] {
        assert_eq!(mse::range([0.0; 3].into_iter(), nothing).unwrap(), nothing);
    }
}

#[test]
fn rows_are_kept_from_all_over() {
    let mut sample = mse::Sample::default();
    for row in 0..10_000 {
        sample.see(&[row as f32, -1.0]);
    }
    let kept: Vec<f32> = sample.rows.chunks(2).map(|row| row[0]).collect();
    assert!((256..=512).contains(&kept.len()), "{}", kept.len());
    assert!(kept.windows(2).all(|rows| rows[1] - rows[0] == 32.0) && kept[0] == 0.0, "{kept:?}");
    assert!(sample.rows.chunks(2).all(|row| row[1] == -1.0));
}

#[test]
fn every_kind_of_range_gives_an_encoder() {
    let ctx = Ctx::serial().unwrap();
    let model = Model::generated(config(Family::Bert), 3).unwrap();
    let samples = batch(&[5, 17, 1, 140, 23, 9, 31, 12], 77);
    let (text, exact) = (batch(&[50], 4), Encoder::build(&model, &ctx, &Options::default()).unwrap());
    let exact = embed(&exact, text.tokens(), &ctx);
    let mut all = Vec::new();
    for range in ["absolute", "percentile:99.9", "mse"] {
        let range: Range = range.parse().unwrap();
        let calibration = Calibration::collect(&model, [samples.tokens()], range, &ctx).unwrap();
        let encoder = Encoder::build(&model, &ctx, &Options::calibrated(&calibration)).unwrap();
        let got = embed(&encoder, text.tokens(), &ctx);
        assert!(cosine(&got, &exact) > 0.98, "{range}: {}", cosine(&got, &exact));
        assert!(!all.contains(&got), "{range} is like another");
        all.push(got);
    }
}

#[test]
fn ranges_have_names() {
    for range in [Range::Absolute, Range::Percentile(99.99), Range::Mse] {
        assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
    }
    for wrong in ["", "mse:1", "percentile", "percentile:x", "Absolute"] {
        let refused = wrong.parse::<Range>().unwrap_err().to_string();
        assert!(
            refused.starts_with("range: expected absolute, mse or such as percentile:99.99"),
            "{refused}"
        );
    }
    for wrong in ["percentile:49", "percentile:101", "percentile:NaN"] {
        let refused = wrong.parse::<Range>().unwrap_err().to_string();
        assert!(refused.starts_with("percentile: expected 50 to 100"), "{refused}");
    }
}
