//! Scores to bytes of weights in one pass: the bits that two passes give, on every tier, and the nearest bytes to exponentials in f64.

use crate::attention_passes::{
    ALL, KEYS, ODD, OFFSETS, Row, groups, leaves_out, passes, same, scalar, score, spans,
};
use crate::common::Rng;
use siskin::internal::kernels::attention::normalize::Normalize;
use siskin::internal::kernels::attention::softmax::Scores;
use siskin::internal::kernels::attention::table::Passes;

/// As a driver asks for bytes of exponentials of one chunk.
const NORMALIZE: Normalize =
    Normalize { stretch: 1.0, gamma: 0.0, step: 0.0, limit: 255.0, normalized: false };

fn bytes(row: &Row) -> Vec<u8> {
    row.0.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn one_pass_for_two() {
    let mut r = Rng::new(82);
    for (name, passes) in passes("one_pass_for_two") {
        for ((first, last), ints) in spans().flat_map(|span| [(span, 0), (span, 1)]) {
            for (odd, scale) in ODD.into_iter().flat_map(|odd| [0.3, 2e-5, 8.0].map(|scale| (odd, scale))) {
                if leaves_out(&mut r) {
                    continue;
                }
                let offset = OFFSETS[r.below(4)];
                let row = Row::new(first, last, |_| score(&mut r, ints == 1, odd));
                // All keys, or no more than the row's own.
                let keys = [groups(first, last), ALL[0]][r.below(2)];
                let run = |passes: &Passes, at_once: bool| {
                    let mut row = row.clone();
                    let mut rows = [Scores { scale, largest: 255.0, ..row.scores(first, last, offset) }];
                    // SAFETY: the tier is supported; the row has whole groups.
                    unsafe {
                        (passes.maximum[ints])(&mut rows, ALL);
                        if at_once {
                            (passes.byte_weights[ints])(&mut rows, &keys);
                        } else {
                            (passes.exponentials[1][ints])(&mut rows, &keys, ALL);
                            (passes.normalize[2][0])(&mut rows, &keys, &NORMALIZE);
                        }
                    }
                    (bytes(&row), rows[0])
                };
                let (got, found) = run(passes, true);
                let case = format!("{name} {first}..{last} of {keys:?} ints {ints} scale {scale} {odd:?}");
                for (other, (want, expected)) in
                    [("two", run(passes, false)), ("scalar", run(scalar(), true))]
                {
                    // Weights begin where the chunk does, which is the row's beginning.
                    let own = keys.first..keys.last;
                    assert_eq!(got[own.clone()], want[own], "{case}: {other}");
                    assert!(same(found.total, expected.total), "{case}: {other}");
                    assert_eq!(found.weights, expected.weights, "{case}: {other}");
                }
                let after = 4 * last.next_multiple_of(16).max(keys.last.div_ceil(4));
                assert_eq!(got[after..], bytes(&row)[after..], "{case}: wrote too far");
                let mut sum = 0;
                for key in keys.first..keys.last {
                    let byte = got[key];
                    sum += i64::from(byte);
                    if !(first..last).contains(&key) {
                        assert_eq!(byte, 0, "{case}: key {key} is not of the row");
                        continue;
                    }
                    let real = match ints {
                        0 => row.float(key),
                        _ => (row.0[key] as i32 + offset) as f32,
                    };
                    let exact = 255.0 * (f64::from(real - found.most) * f64::from(scale)).exp();
                    if exact.is_nan() {
                        assert_eq!(byte, 0, "{case}: key {key} is NaN");
                    } else {
                        let off = (f64::from(byte) - exact).abs();
                        assert!(off <= 0.5 + 0.03, "{case}: key {key} is {byte}, {exact}");
                    }
                }
                assert_eq!(found.weights, sum, "{case}");
                // The largest of numbers is 255, whatever the others are.
                let finite = found.most.is_finite() && !(0..KEYS).any(|key| row.float(key).is_nan());
                if first < last && finite {
                    assert_eq!(got[keys.first..keys.last].iter().max(), Some(&255), "{case}");
                }
            }
        }
    }
}
