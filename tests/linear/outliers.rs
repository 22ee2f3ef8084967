//! The outlier metrics.

use crate::common::golden::Golden;
use siskin::quant::{OutlierMetrics, OutlierSummary, infinity_norm, kurtosis};
use siskin::{Error, MatRef};

#[test]
fn the_numbers_of_the_original_are_met() {
    let g = Golden::new(include_bytes!("../golden/outlier_metrics.safetensors"));
    let (x, kurtoses, norms) = (g.f32("in.x"), g.f32("out.kurtosis"), g.f32("out.inf_norm"));
    let rows: Vec<&[f32]> = x.chunks(300).collect();
    for (i, row) in rows.iter().enumerate() {
        let (got, expected) = (kurtosis(row), f64::from(kurtoses[i]));
        // The original is in f32.
        assert!((got - expected).abs() <= 1e-6 * expected, "{i}: {got} for {expected}");
        assert_eq!(infinity_norm(row), norms[i], "{i}");
    }
    // Row 3 is constant; row 4 is so small that the 1e-6 swallows it.
    assert_eq!(kurtosis(rows[3]), 0.0);
    assert!(kurtosis(rows[4]) < 1e-4 && kurtosis(&rows[4].iter().map(|v| v * 1e3).collect::<Vec<_>>()) > 1.0);
}

#[test]
fn batches_make_a_tensor_and_tensors_a_model() {
    let g = Golden::new(include_bytes!("../golden/outlier_metrics.safetensors"));
    let x = g.f32("in.x");
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let kurtoses: Vec<f64> = x.chunks(300).map(kurtosis).collect();
    let norms: Vec<f64> = x.chunks(300).map(|row| infinity_norm(row).into()).collect();

    let (mut all, mut some, mut none) =
        (OutlierMetrics::new(), OutlierMetrics::new(), OutlierMetrics::default());
    // What lies between rows is not read.
    let mut strided = vec![f32::NAN; 5 * 310];
    strided.chunks_mut(310).zip(x.chunks(300)).for_each(|(to, row)| to[..300].copy_from_slice(row));
    all.observe(MatRef::with_stride(&strided[..620], 2, 300, 310).unwrap()).unwrap();
    all.observe(MatRef::with_stride(&strided[620..], 3, 300, 310).unwrap()).unwrap();
    assert_eq!((all.kurtosis(), all.infinity_norm()), (Some(mean(&kurtoses)), Some(mean(&norms))));
    // The kurtosis of the first batches only.
    some.observe(MatRef::new(&x[..600], 2, 300).unwrap()).unwrap();
    some.observe_infinity_norm(MatRef::new(&x[600..], 3, 300).unwrap()).unwrap();
    assert_eq!((some.kurtosis(), some.infinity_norm()), (Some(mean(&kurtoses[..2])), Some(mean(&norms))));
    none.observe_infinity_norm(MatRef::new(&[-1e6], 1, 1).unwrap()).unwrap();
    assert_eq!((none.kurtosis(), none.infinity_norm()), (None, Some(1e6)));

    let (a, b) = (mean(&kurtoses), mean(&kurtoses[..2]));
    let summary = OutlierSummary {
        max_infinity_norm: Some(1e6),
        average_kurtosis: Some((a + b) / 2.0),
        max_kurtosis: Some(a.max(b)),
    };
    assert_eq!(OutlierSummary::new(&[all, some, none]), summary);
    assert_eq!(OutlierSummary::new(&[]), OutlierSummary::default());
    assert_eq!(OutlierSummary::new(&[none]).average_kurtosis, None);
}

#[test]
fn nan_is_seen_and_short_rows_are_refused() {
    for at in 0..3 {
        let mut x = [1.0, -2.0, 3.0];
        x[at] = f32::NAN;
        assert!(infinity_norm(&x).is_nan() && kurtosis(&x).is_nan());
        let mut tensor = OutlierMetrics::new();
        tensor.observe(MatRef::new(&x, 1, 3).unwrap()).unwrap();
        let mut other = OutlierMetrics::new();
        other.observe(MatRef::new(&[1.0, 2.0, 3.0], 1, 3).unwrap()).unwrap();
        for tensors in [[tensor, other], [other, tensor]] {
            let summary = OutlierSummary::new(&tensors);
            let all = [summary.max_infinity_norm, summary.average_kurtosis, summary.max_kurtosis];
            assert!(all.iter().all(|v| v.is_some_and(f64::is_nan)), "{summary:?}");
        }
    }
    assert_eq!((infinity_norm(&[]), infinity_norm(&[f32::NEG_INFINITY])), (0.0, f32::INFINITY));
    assert!(kurtosis(&[]).is_nan() && kurtosis(&[1.0]).is_nan() && kurtosis(&[f32::INFINITY, 1.0]).is_nan());

    let mut tensor = OutlierMetrics::new();
    let one = MatRef::new(&[1.0, 2.0], 2, 1).unwrap();
    assert!(matches!(tensor.observe(one), Err(Error::Shape { argument: "batch", .. })));
    let none = MatRef::new(&[], 2, 0).unwrap();
    assert!(matches!(tensor.observe_infinity_norm(none), Err(Error::Shape { argument: "batch", .. })));
    assert_eq!(tensor, OutlierMetrics::new());
}
