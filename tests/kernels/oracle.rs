//! The C oracle against cases worked out by hand and against an i64 loop in Rust: it is trusted because both agree.

/// Says so where there is nothing to test with (no C compiler): never a silent pass.
#[cfg(not(siskin_oracle))]
#[test]
fn the_oracle_is_missing() {
    use std::io::Write;
    assert!(std::env::var("CI").is_err(), "CI needs a C compiler");
    std::io::stderr().write_all(b"NOT RUN: the C oracle: kernels/oracle.c was not compiled\n").unwrap();
}

#[cfg(siskin_oracle)]
mod with_oracle {
    use proptest::prelude::*;
    use siskin::internal::oracle::*;

    fn dense<T>(data: &[T], rows: usize, cols: usize) -> Matrix<'_, T> {
        Matrix { data, rows, cols, zero: &[] }
    }

    #[test]
    fn two_by_two_by_hand() {
        let (x, w) = ([1u8, 2, 3, 255], [5i8, -6, 7, -128]);
        // rows of x times rows of w: 1*5 + 2*-6, 1*7 + 2*-128; 3*5 + 255*-6, 3*7 + 255*-128
        assert_eq!(gemm(dense(&x, 2, 2), dense(&w, 2, 2)), [-7, -249, -1515, -32619]);
        assert_eq!(gemm_f64(dense(&x, 2, 2), dense(&w, 2, 2)).1, [17.0, 263.0, 1545.0, 32661.0]);
    }

    #[test]
    fn zero_points_by_hand() {
        let (x, w) = ([10u8, 0, 4, 4], [1i8, -3]);
        let x = Matrix { zero: &[10, 3], ..dense(&x, 2, 2) };
        // (0, -10) . (1 - 2, -3 - 2) = 50; (1, 1) . (-1, -5) = -6
        assert_eq!(gemm(x, Matrix { zero: &[2], ..dense(&w, 1, 2) }), [50, -6]);
        let w = [i8::MIN];
        let x = Matrix { zero: &[127], ..dense(&[i8::MIN], 1, 1) };
        assert_eq!(gemm(x, Matrix { zero: &[127], ..dense(&w, 1, 1) }), [255 * 255]);
    }

    #[test]
    fn blocks_by_hand() {
        // 4 x 3 in blocks of 2 x 1: column 2 of rows 0, 1 and column 0 of rows 2, 3
        let w = Blocks {
            values: &[3i8, 4, -5, 6],
            indptr: &[0u32, 1, 2],
            indices: &[2u32, 0],
            block: (2, 1),
            rows: 4,
            cols: 3,
            zero: &[],
        };
        assert_eq!(spmm(dense(&[7u8, 100, 11], 1, 3), w), [33, 44, -35, 42]);
        // a stored value is taken less the zero point; what is not stored stays 0
        let w = Blocks { zero: &[1], ..w };
        assert_eq!(spmm(dense(&[7u8, 100, 11], 1, 3), w), [22, 33, -42, 35]);
        // a block that reaches beyond the last row and column
        let w = Blocks {
            values: &[1i8, 2, 3, 4],
            indptr: &[0i32, 1],
            indices: &[1i32],
            block: (2, 2),
            rows: 1,
            cols: 3,
            zero: &[],
        };
        assert_eq!(spmm(dense(&[9i8, 9, -9], 1, 3), w), [-9]);
    }

    #[test]
    fn no_rows_and_no_columns() {
        assert_eq!(gemm(dense::<u8>(&[], 0, 3), dense(&[1i8, 2, 3], 1, 3)), [0i32; 0]);
        assert_eq!(gemm(dense::<u8>(&[], 2, 0), dense::<i8>(&[], 1, 0)), [0, 0]);
    }

    #[test]
    fn the_largest_depth_fits_and_the_next_does_not() {
        let run = |k: usize| {
            let (x, w) = (vec![255u8; k], vec![-128i8; k]);
            std::panic::catch_unwind(|| gemm(dense(&x, 1, k), dense(&w, 1, k)))
        };
        assert_eq!(run(65_793).unwrap(), [-255 * 128 * 65_793]);
        assert!(run(65_794).is_err(), "-2147516160 does not fit");
    }

    #[test]
    fn wrong_lengths_never_reach_c() {
        let panics = |f: fn()| assert!(std::panic::catch_unwind(f).is_err());
        panics(|| drop(gemm(dense(&[0u8; 3], 2, 2), dense(&[0i8; 4], 2, 2))));
        panics(|| drop(gemm(dense(&[0u8; 4], 2, 2), dense(&[0i8; 6], 2, 3))));
        panics(|| drop(gemm(Matrix { zero: &[1, 2, 3], ..dense(&[0u8; 4], 2, 2) }, dense(&[0i8; 4], 2, 2))));
        const W: Blocks<'_, i8, usize, i32> = Blocks {
            values: &[0; 4],
            indptr: &[0, 1, 2],
            indices: &[0, 1],
            block: (1, 2),
            rows: 2,
            cols: 4,
            zero: &[],
        };
        let x = dense(&[0u8; 4], 1, 4);
        assert_eq!(spmm(x, W), [0, 0]);
        panics(|| drop(spmm(dense(&[0u8; 4], 1, 4), Blocks { values: &[0; 3], ..W })));
        panics(|| drop(spmm(dense(&[0u8; 4], 1, 4), Blocks { indices: &[0, 2], ..W })));
        panics(|| drop(spmm(dense(&[0u8; 4], 1, 4), Blocks { indices: &[0, -1], ..W })));
        panics(|| drop(spmm(dense(&[0u8; 4], 1, 4), Blocks { indptr: &[0, 2, 1], ..W })));
        panics(|| drop(spmm(dense(&[0u8; 4], 1, 4), Blocks { indptr: &[0, 2], ..W })));
        panics(|| drop(epilogue(&[0.0; 4], 2, Epilogue { scale: &[1.0; 3], ..Epilogue::default() })));
        panics(|| drop(epilogue(&[0.0; 4], 2, Epilogue { bias: Some(&[1.0]), ..Epilogue::default() })));
        panics(|| drop(epilogue(&[0.0; 3], 2, Epilogue::default())));
    }

    #[test]
    fn epilogue_by_hand() {
        let e = Epilogue {
            scale: &[0.5, 2.0],
            bias: Some(&[1.0, -1.0]),
            residual: Some(&[0.0, -10.0, 0.25, 0.0]),
            activation: Activation::Relu,
        };
        assert_eq!(epilogue(&[4.0, 5.0, -3.0, 6.0], 2, e), [3.0, 0.0, 0.0, 11.0]);
        let e = Epilogue { scale: &[3.0], activation: Activation::Clamp(-1.0, 6.0), ..Epilogue::default() };
        assert_eq!(epilogue(&[-7.0, 1.0, 5.0], 3, e), [-1.0, 3.0, 6.0]);
        assert_eq!(epilogue(&[-7.0], 1, Epilogue::default()), [-7.0]);
        assert!(activate(Activation::Relu, f64::NAN).is_nan());
    }

    #[test]
    fn activations_by_their_known_values() {
        use Activation::*;
        let near = |a, v: f64, want: f64| {
            let got = activate(a, v);
            assert!((got - want).abs() <= 1e-15 * want.abs().max(1e-300), "{a:?}({v}): {got}, not {want}");
        };
        near(GeluErf, 1.0, 0.841_344_746_068_542_9);
        near(GeluErf, -1.0, -0.158_655_253_931_457_05);
        near(GeluErf, 0.0, 0.0);
        // the tanh form: 0.5 (1 + tanh(sqrt(2 / pi) * 1.044715))
        let u = (2.0 / std::f64::consts::PI).sqrt() * 1.044_715;
        near(GeluTanh, 1.0, 0.5 * (1.0 + u.tanh()));
        near(Silu, 1.0, 0.731_058_578_630_004_9);
        near(Silu, -1.0, -0.268_941_421_369_995_1);
        for a in [GeluErf, GeluTanh, Silu] {
            near(a, 100.0, 100.0);
            assert!(activate(a, -40.0).abs() < 1e-15);
        }
    }

    #[test]
    fn requantization_rounds_half_to_even() {
        let q = |v| requantize(v, 0.5, 3, 0..=255);
        let steps = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.499, 2.501];
        assert_eq!(steps.map(|s| q(s * 0.5)), [1, 1, 3, 3, 5, 5, 5, 6]);
        assert_eq!([q(1e300), q(-1e300), q(f64::INFINITY), q(f64::NEG_INFINITY)], [255, 0, 255, 0]);
        assert_eq!(q(f64::NAN), 3);
        assert_eq!(requantize(-1000.0, 1.0, 0, -128..=127), -128);
    }

    /// The third opinion: i64, in Rust, over a plain matrix.
    fn loops(x: &[i64], w: &[i64], k: usize) -> Vec<i32> {
        let dot = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>();
        x.chunks(k).flat_map(|a| w.chunks(k).map(move |b| i32::try_from(dot(a, b)).unwrap())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_loops(
            (m, n, k) in (1usize..5, 1usize..10, 1usize..12),
            block in (1usize..5, 1usize..5),
            seed in prop::collection::vec(any::<(u8, i8, bool)>(), 200),
            zero in (0i32..256, -128i32..128),
        ) {
            let x: Vec<u8> = (0..m * k).map(|i| seed[i % 200].0).collect();
            let w: Vec<i8> = (0..n * k).map(|i| seed[(i + 90) % 200].1).collect();
            let (xz, wz) = ([zero.0], [zero.1]);
            let wide_x: Vec<i64> = x.iter().map(|&v| i64::from(v) - i64::from(zero.0)).collect();
            let wide_w: Vec<i64> = w.iter().map(|&v| i64::from(v) - i64::from(zero.1)).collect();
            let xs = Matrix { data: &x, rows: m, cols: k, zero: &xz };
            let ws = Matrix { data: &w, rows: n, cols: k, zero: &wz };
            prop_assert_eq!(gemm(xs, ws), loops(&wide_x, &wide_w, k));
            // the same bytes as i8 on both sides
            let signed: Vec<i8> = x.iter().map(|&v| v as i8).collect();
            let wide: Vec<i64> = signed.iter().map(|&v| i64::from(v) + 5).collect();
            let xi = Matrix { data: &signed, rows: m, cols: k, zero: &[-5] };
            prop_assert_eq!(gemm(xi, ws), loops(&wide, &wide_w, k));

            // some of the blocks; the dense matrix keeps what they cover
            let (br, bc) = block;
            let (mut values, mut indptr, mut indices) = (vec![], vec![0usize], vec![]);
            let mut kept = vec![0i64; n * k];
            for i in 0..n.div_ceil(br) {
                for j in 0..k.div_ceil(bc) {
                    if !seed[(i * 13 + j) % 200].2 {
                        continue;
                    }
                    indices.push(j);
                    for (r, c) in (0..br).flat_map(|r| (0..bc).map(move |c| (i * br + r, j * bc + c))) {
                        let inside = r < n && c < k;
                        values.push(if inside { w[r * k + c] } else { 99 });
                        if inside {
                            kept[r * k + c] = wide_w[r * k + c];
                        }
                    }
                }
                indptr.push(indices.len());
            }
            let sparse = Blocks {
                values: &values, indptr: &indptr, indices: &indices, block, rows: n, cols: k, zero: &wz,
            };
            let want = loops(&wide_x, &kept, k);
            let reals: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
            prop_assert_eq!(spmm(xs, sparse), want);
            prop_assert_eq!(spmm_f64(xs, sparse).0, reals);
        }
    }
}
