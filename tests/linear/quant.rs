//! Quantizers, observers and whole matrices, on every tier of this CPU.

use proptest::prelude::*;
use safetensors::SafeTensors;
use siskin::Element;
use siskin::quant::{self, MinMax, MseGrid, Observer, Percentile, QuantParams, RunningMinMax, Scheme};
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Error, Isa, MatMut, MatRef, bf16};

const U8: Scheme = Scheme::Asymmetric(Element::U8);
const I8: Scheme = Scheme::Symmetric(Element::I8);

/// The argument that an error names.
fn blamed<T: std::fmt::Debug>(result: siskin::Result<T>) -> &'static str {
    match result.expect_err("bad input was accepted") {
        Error::Shape { argument, .. } | Error::Value { argument, .. } => argument,
        Error::Index { argument, .. } | Error::Unsupported { argument, .. } => argument,
        other => panic!("{other}"),
    }
}

fn scalar() -> Ctx {
    Ctx::serial().unwrap().with_isa(Isa::Scalar).unwrap()
}

/// Every tier that this CPU has; says which ran and which could not.
fn tiers() -> Vec<Ctx> {
    let (ran, skipped): (Vec<_>, Vec<_>) = Isa::ALL.iter().partition(|isa| isa.is_supported());
    println!("tiers run: {ran:?}, skipped: {skipped:?}");
    ran.into_iter().map(|&isa| Ctx::serial().unwrap().with_isa(isa).unwrap()).collect()
}

/// Finite and not, large and small, ties, and everything around the ends of a range.
fn real() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -300.0..300.0_f32,
        2 => (-600..600).prop_map(|i| i as f32 / 2.0),
        1 => any::<u32>().prop_map(f32::from_bits),
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(-0.0), Just(f32::MAX)],
    ]
}

fn params() -> impl Strategy<Value = QuantParams> {
    let scale = prop_oneof![Just(1.0), 1e-3..3.0_f32, Just(1e-8), Just(f32::MIN_POSITIVE * 2.0), Just(1e30)];
    (scale, 0..256, any::<bool>()).prop_map(|(scale, zero, signed)| match signed {
        true => QuantParams::i8(scale, zero - 128).unwrap(),
        false => QuantParams::u8(scale, zero).unwrap(),
    })
}

/// The golden vectors of the authors' code.
mod golden {
    use super::*;

    struct Golden<'a>(SafeTensors<'a>);

    impl Golden<'_> {
        fn words<T>(&self, name: &str, f: impl Fn([u8; 4]) -> T) -> Vec<T> {
            self.0.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|&b| f(b)).collect()
        }

        fn f32(&self, name: &str) -> Vec<f32> {
            self.words(name, f32::from_le_bytes)
        }

        /// Compares all of one case, scales bit for bit; the rows share one quantizer or have one each.
        fn check(&self, case: &str, params: &[QuantParams]) {
            let x = self.f32(&format!("in.{case}.x"));
            let scales: Vec<f32> = params.iter().map(QuantParams::scale).collect();
            assert_eq!(scales, self.f32(&format!("out.{case}.scale")), "{case}");
            let zero = self.f32(&format!("out.{case}.zero_point"))[0];
            let integers = self.words(&format!("out.{case}.int"), i32::from_le_bytes);
            let reals = self.f32(&format!("out.{case}.dequant"));
            for (i, &x) in x.iter().enumerate() {
                let p = params[i / (integers.len() / params.len())];
                assert_eq!(p.zero_point() as f32, zero, "{case}");
                assert_eq!(p.quantize(x), integers[i], "{case}[{i}]");
                assert_eq!(p.dequantize(integers[i]), reals[i], "{case}[{i}]");
            }
        }

        fn observe(&self, case: &str, inputs: &[&str], mut observer: impl Observer) {
            for input in inputs {
                observer.observe(&self.f32(&format!("in.{case}.{input}"))).unwrap();
            }
            self.check(case, &[observer.params().unwrap()]);
        }
    }

    #[test]
    fn every_8_bit_case_of_the_original_is_met() {
        let file = include_bytes!("../golden/quantizers.safetensors");
        let g = Golden(SafeTensors::deserialize(file).unwrap());
        for case in ["asym8_cur", "asym8_pos", "asym8_neg"] {
            g.observe(case, &["x"], MinMax::new(U8));
        }
        for case in ["sym8_signed", "sym8_unsigned", "sym8_ties"] {
            g.observe(case, &["x"], MinMax::new(Scheme::SymmetricAuto));
        }
        let batches = ["batch0", "batch1", "batch2", "batch3"];
        g.observe("asym8_run", &batches, RunningMinMax::new(U8));
        let running = RunningMinMax::new(U8).with_percentile(99.0).unwrap();
        g.observe("asym8_run_pct", &batches[..3], running);
        g.observe("sym8_mse_grid", &["x"], MseGrid::new(Scheme::SymmetricAuto).unwrap().with_authors_grid());

        let x = g.f32("in.sym8_perch.x");
        let x = MatRef::new(&x, 8, 20).unwrap();
        g.check("sym8_perch", &quant::per_channel(x, Scheme::SymmetricAuto, &scalar()).unwrap());
    }
}

#[test]
fn percentiles_interpolate_as_numpy_does() {
    // np.percentile([0, 10, 20, 40], (10, 90)) == (3, 34)
    let mut observer = Percentile::new(U8, 90.0).unwrap();
    observer.observe(&[20.0, 0.0, 40.0, 10.0]).unwrap();
    assert_eq!(
        observer.params().unwrap(),
        QuantParams::from_range_asymmetric(0.0, 34.0, Element::U8).unwrap()
    );
    let mut whole = Percentile::new(I8, 100.0).unwrap();
    whole.observe(&[20.0, -50.0, 40.0, 10.0]).unwrap();
    assert_eq!(whole.params().unwrap().scale(), 50.0 / 127.0);
}

#[test]
fn observers_forget_average_and_accumulate_as_documented() {
    let seen = |observer: &mut dyn Observer| {
        observer.observe(&[-1.0, 1.0]).unwrap();
        observer.observe(&[0.0, 3.0]).unwrap();
        observer.params().unwrap()
    };
    let range = |min, max| QuantParams::from_range_asymmetric(min, max, Element::U8).unwrap();
    assert_eq!(seen(&mut MinMax::new(U8)), range(0.0, 3.0));
    assert_eq!(seen(&mut Percentile::new(U8, 100.0).unwrap()), range(0.0, 3.0));
    assert_eq!(seen(&mut RunningMinMax::new(U8).with_momentum(0.5).unwrap()), range(-0.5, 2.0));
    // The grid is that of the first tensor, however large the second is: to 1, and the authors' to 1.5.
    assert_eq!(seen(&mut MseGrid::new(I8).unwrap()).scale(), 1.0 / 127.0);
    assert_eq!(seen(&mut MseGrid::new(I8).unwrap().with_authors_grid()).scale(), 1.5 / 127.0);
    assert_eq!(seen(&mut MseGrid::new(Scheme::SymmetricAuto).unwrap()).dtype(), Element::I8);
}

#[test]
fn the_mse_grid_clips_an_outlier_where_that_pays() {
    let mut x: Vec<f32> = (0..100_000).map(|i| ((i * 7919 % 100_000) as f32 / 50_000.0) - 1.0).collect();
    x[17] = 1.5;
    for (mut grid, last) in
        [(MseGrid::new(I8).unwrap(), 1.5), (MseGrid::new(I8).unwrap().with_authors_grid(), 2.0)]
    {
        grid.observe(&x).unwrap();
        let best = grid.params().unwrap();
        let error = |p: QuantParams| -> f64 {
            x.iter().map(|&v| f64::from(v - p.dequantize(p.quantize(v))).powi(2)).sum()
        };
        for i in 1..=100 {
            let p = QuantParams::from_range_symmetric(0.0, (f64::from(i) * last / 100.0) as f32, Element::I8);
            assert!(error(best) <= error(p.unwrap()) * (1.0 + 1e-6), "candidate {i} up to {last}");
        }
        assert!(best.scale() * 127.0 < 1.5, "{best:?}");
    }
}

#[test]
fn ranges_of_zeros_and_of_anything_wide() {
    let asymmetric = QuantParams::from_range_asymmetric(0.0, 0.0, Element::I8).unwrap();
    assert_eq!((asymmetric.scale(), asymmetric.zero_point(), asymmetric.quantize(0.0)), (1.0, -128, -128));
    assert_eq!(QuantParams::from_range_symmetric(0.0, 0.0, Element::U8).unwrap().scale(), 1.0);
    let authors = |min, max| {
        QuantParams::from_range_with_authors_floor(min, max, Scheme::Asymmetric(Element::I8)).unwrap()
    };
    assert_eq!((authors(0.0, 0.0).scale(), authors(0.0, 0.0).zero_point()), (1e-8, -128));
    assert_eq!(authors(-1e-7, 1e-7).scale(), 1e-8);
    assert_eq!(authors(-1.0, 1.0), QuantParams::from_range_asymmetric(-1.0, 1.0, Element::I8).unwrap());
    let auto = |min, max| QuantParams::from_range(min, max, Scheme::SymmetricAuto).unwrap().dtype();
    assert_eq!((auto(-0.0, 1.0), auto(-1e-30, 1.0)), (Element::U8, Element::I8));
    assert!(QuantParams::from_range_symmetric(-f32::MAX, f32::MAX, Element::I8).is_ok());
    let widest = QuantParams::from_range_asymmetric(-f32::MAX, f32::MAX, Element::U8).unwrap();
    assert_eq!((widest.quantize(-f32::MAX), widest.quantize(0.0), widest.quantize(f32::MAX)), (0, 128, 255));
    assert_eq!(blamed(QuantParams::from_range_asymmetric(f32::NAN, 1.0, Element::U8)), "min");
    assert_eq!(blamed(QuantParams::from_range_asymmetric(0.0, f32::INFINITY, Element::U8)), "max");
    assert_eq!(blamed(QuantParams::from_range_asymmetric(2.0, 1.0, Element::U8)), "min");
    assert_eq!(blamed(QuantParams::from_range_symmetric(-1.0, 1.0, Element::U8)), "min");
}

/// 2^n times the reals have 2^n times the scale and the same integers, by every observer, as long as the scale is normal.
#[test]
fn every_magnitude_is_taken_alike() {
    let x: Vec<f32> = (0..997).map(|i| ((i * 7919 % 1000) as f32 - 380.0) / 1024.0).collect();
    let observers = || -> Vec<Box<dyn Observer>> {
        vec![
            Box::new(MinMax::new(U8)),
            Box::new(MinMax::new(I8)),
            Box::new(MinMax::new(Scheme::Asymmetric(Element::I8))),
            Box::new(Percentile::new(U8, 99.0).unwrap()),
            Box::new(RunningMinMax::new(U8)),
            Box::new(RunningMinMax::new(U8).with_percentile(99.9).unwrap()),
            Box::new(MseGrid::new(Scheme::SymmetricAuto).unwrap()),
        ]
    };
    let ctx = scalar();
    for (which, mut observer) in observers().into_iter().enumerate() {
        observer.observe(&x).unwrap();
        let p = observer.params().unwrap();
        for n in [-117, -100, -64, -30, -10, 10, 30, 64, 100, 127] {
            let factor = 2f64.powi(n);
            let scaled: Vec<f32> = x.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
            let mut observer = observers().remove(which);
            observer.observe(&scaled).unwrap();
            let q = observer.params().unwrap();
            let case = format!("observer {which}, 2^{n}");
            assert_eq!(f64::from(q.scale()), f64::from(p.scale()) * factor, "{case}");
            assert_eq!(q.zero_point(), p.zero_point(), "{case}");
            for (&v, &s) in x.iter().zip(&scaled) {
                assert_eq!(q.quantize(s), p.quantize(v), "{case} {v}");
            }
        }
    }
    // Each token, and each row of weights, by its own range.
    for n in [-117, -40, 40, 127] {
        let factor = 2f64.powi(n);
        let scaled: Vec<f32> = x.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
        let bytes = |x: &[f32]| {
            let mut params = vec![QuantParams::i8(1.0, 0).unwrap()];
            let mut y = vec![0i8; x.len()];
            let y_of = MatMut::new(&mut y, 1, x.len()).unwrap();
            let x = MatRef::new(x, 1, x.len()).unwrap();
            quant::quantize_per_token(x, I8, y_of, &mut params, &ctx).unwrap();
            y
        };
        assert_eq!(bytes(&scaled), bytes(&x), "2^{n}");
    }
}

/// The search for the least squared error is never worse than the range itself, of weights of any magnitude.
#[test]
fn the_mse_grid_is_no_worse_than_the_range() {
    let x: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 500.0).collect();
    for factor in [1e-30f32, 1e-9, 1.0, 3e30] {
        let x: Vec<f32> = x.iter().map(|v| v * factor).collect();
        let db = |observer: &mut dyn Observer| {
            observer.observe(&x).unwrap();
            let p = observer.params().unwrap();
            let back: Vec<f32> = x.iter().map(|&v| p.dequantize(p.quantize(v))).collect();
            quant::sqnr_db(&x, &back).unwrap()
        };
        let symmetric = Scheme::Symmetric(Element::I8);
        let (grid, range) = (db(&mut MseGrid::new(symmetric).unwrap()), db(&mut MinMax::new(symmetric)));
        assert!(grid >= range && range > 40.0, "{factor:e}: {grid} {range}");
    }
}

#[test]
fn observers_refuse_what_has_no_range() {
    let new = || -> Vec<Box<dyn Observer>> {
        vec![
            Box::new(MinMax::new(U8)),
            Box::new(Percentile::new(U8, 99.0).unwrap()),
            Box::new(RunningMinMax::new(U8)),
            Box::new(RunningMinMax::new(U8).with_percentile(99.0).unwrap()),
            Box::new(MseGrid::new(I8).unwrap()),
        ]
    };
    for mut observer in new() {
        assert_eq!(blamed(observer.params()), "observer");
        assert_eq!(blamed(observer.observe(&[])), "x");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // Beyond the first vector, and in its tail.
            for at in [0, 20, 36] {
                let mut x = [1.0; 37];
                x[at] = bad;
                let error = observer.observe(&x).unwrap_err();
                assert!(error.to_string().ends_with(&format!("{bad:?} at position {at}")), "{error}");
            }
        }
        assert_eq!(blamed(observer.params()), "observer", "a refused tensor left a trace");
        observer.observe(&[1.0, -2.0]).unwrap();
        let before = observer.params().unwrap();
        observer.observe(&[f32::NAN]).unwrap_err();
        assert_eq!(observer.params().unwrap(), before);
    }
    for p in [f64::NAN, 49.9, 100.1] {
        assert_eq!(blamed(Percentile::new(U8, p)), "p");
        assert_eq!(blamed(RunningMinMax::new(U8).with_percentile(p)), "p");
    }
    for momentum in [f64::NAN, -0.1, 1.0] {
        assert_eq!(blamed(RunningMinMax::new(U8).with_momentum(momentum)), "momentum");
    }
    assert_eq!(blamed(MseGrid::new(U8)), "scheme");
    let mut unsigned = MseGrid::new(Scheme::Symmetric(Element::U8)).unwrap();
    assert_eq!(blamed(unsigned.observe(&[-1.0])), "min");
}

#[test]
fn sqnr_is_in_decibels() {
    assert_eq!(quant::sqnr_db(&[10.0, 0.0], &[10.0, 1.0]).unwrap(), 20.0);
    assert_eq!(quant::sqnr_db(&[1.0], &[1.0]).unwrap(), f64::INFINITY);
    assert_eq!(quant::sqnr_db(&[0.0], &[1.0]).unwrap(), f64::NEG_INFINITY);
    assert_eq!(blamed(quant::sqnr_db(&[], &[])), "reference");
    assert_eq!(blamed(quant::sqnr_db(&[f32::NAN], &[1.0])), "reference");
    assert_eq!(blamed(quant::sqnr_db(&[1.0], &[1.0, 2.0])), "got");
    assert_eq!(blamed(quant::sqnr_db(&[1.0], &[f32::INFINITY])), "got");
}

proptest! {
    #[test]
    fn there_and_back_is_within_half_a_step(p in params(), steps in -255.0..255.0_f32) {
        let (low, high) = p.range();
        let (low, high) = (p.dequantize(low), p.dequantize(high));
        let x = (steps * p.scale()).clamp(low, high);
        let back = p.dequantize(p.quantize(x));
        // Half a step, and the rounding of a division and of a product.
        prop_assert!((back - x).abs() <= p.scale() * 0.5 * (1.0 + 1e-4), "{p:?} {x} {back}");
    }

    #[test]
    fn quantizing_is_monotonic_and_undone_by_dequantizing(p in params(), a in real(), b in real(), q in 0..256) {
        if a <= b {
            prop_assert!(p.quantize(a) <= p.quantize(b));
        }
        let q = q + p.range().0;
        prop_assert_eq!(p.quantize(p.dequantize(q)), q);
    }

    #[test]
    fn scaling_by_a_power_of_two_scales_the_scale(min in -100.0..0.0_f32, max in 1.0..100.0_f32, x in -200.0..200.0_f32) {
        for scheme in [U8, I8] {
            let p = QuantParams::from_range(min, max, scheme).unwrap();
            let q = QuantParams::from_range(min * 8.0, max * 8.0, scheme).unwrap();
            prop_assert_eq!((q.scale(), q.zero_point()), (p.scale() * 8.0, p.zero_point()));
            prop_assert_eq!(q.quantize(x * 8.0), p.quantize(x));
        }
    }

    #[test]
    fn every_tier_is_the_scalar_quantizer(
        p in params(),
        (rows, cols, gap) in (0..4_usize, 0..70_usize, 0..3_usize),
        x in proptest::collection::vec(real(), 4 * 73),
    ) {
        match p.dtype() {
            Element::U8 => matrix_is_elementwise::<u8>(p, rows, cols, gap, &x),
            _ => matrix_is_elementwise::<i8>(p, rows, cols, gap, &x),
        }
    }

    #[test]
    fn per_token_is_each_row_by_its_own_range(
        (rows, cols, gap) in (1..4_usize, 1..70_usize, 0..3_usize),
        x in proptest::collection::vec(-1e3..1e3_f32, 4 * 73),
    ) {
        let stride = cols + gap;
        let mut x = x;
        for row in x.chunks_mut(stride) {
            let width = cols.min(row.len());
            row[width..].fill(f32::NAN);
        }
        let x = MatRef::with_stride(&x, rows, cols, stride).unwrap();
        let params: Vec<QuantParams> = x.iter_rows().map(|row| {
            let mut observer = MinMax::new(U8);
            observer.observe(row).unwrap();
            observer.params().unwrap()
        }).collect();
        let mut expected = vec![0; rows * cols];
        quant::quantize_rows(x, &params, MatMut::new(&mut expected, rows, cols).unwrap(), &scalar()).unwrap();
        for ctx in tiers() {
            let mut q = vec![7_u8; rows * stride];
            let mut got = vec![QuantParams::u8(1.0, 0).unwrap(); rows];
            let y = MatMut::with_stride(&mut q, rows, cols, stride).unwrap();
            quant::quantize_per_token(x, U8, y, &mut got, &ctx).unwrap();
            prop_assert_eq!(&got, &params, "{}", ctx.isa());
            prop_assert_eq!(&quant::per_channel(x, U8, &ctx).unwrap(), &params);
            for (got, expected) in q.chunks(stride).zip(expected.chunks(cols)) {
                prop_assert_eq!(&got[..cols], expected, "{}", ctx.isa());
                prop_assert!(got[cols..].iter().all(|&b| b == 7), "wrote between the rows");
            }
        }
    }
}

/// Strided matrices of poison, through quantize and dequantize, against [`QuantParams`] element by element.
fn matrix_is_elementwise<Q: quant::Quantized + Into<i32> + PartialEq + std::fmt::Debug>(
    p: QuantParams,
    rows: usize,
    cols: usize,
    gap: usize,
    x: &[f32],
) {
    let stride = cols + gap;
    let half: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let each = vec![p; rows];
    for ctx in tiers() {
        let mut q = vec![Q::default(); rows * stride];
        let mut q_half = q.clone();
        let mut q_rows = q.clone();
        fn to<Q: quant::Quantized>(
            q: &mut [Q],
            (rows, cols, stride): (usize, usize, usize),
        ) -> MatMut<'_, Q> {
            MatMut::with_stride(q, rows, cols, stride).unwrap()
        }
        let shape = (rows, cols, stride);
        let from = MatRef::with_stride(x, rows, cols, stride).unwrap();
        quant::quantize(from, &p, to(&mut q, shape), &ctx).unwrap();
        quant::quantize_rows(from, &each, to(&mut q_rows, shape), &ctx).unwrap();
        assert_eq!(q, q_rows);
        let half = MatRef::with_stride(&half, rows, cols, stride).unwrap();
        quant::quantize(half, &p, to(&mut q_half, shape), &ctx).unwrap();

        let mut back = vec![f32::MAX; rows * stride];
        let from = MatRef::with_stride(&q, rows, cols, stride).unwrap();
        let y = MatMut::with_stride(&mut back, rows, cols, stride).unwrap();
        quant::dequantize(from, &p, y, &ctx).unwrap();
        let y = MatMut::with_stride(&mut back, rows, cols, stride).unwrap();
        quant::dequantize_rows(from, &each, y, &ctx).unwrap();

        for i in 0..rows * stride {
            let (r, c) = (i / stride, i % stride);
            if c >= cols {
                assert_eq!(
                    (q[i], q_half[i], back[i]),
                    (Q::default(), Q::default(), f32::MAX),
                    "between the rows"
                );
                continue;
            }
            let place = format!("{} {p:?} at ({r}, {c})", ctx.isa());
            assert_eq!(q[i].into(), p.quantize(x[i]), "{place}: {:?}", x[i]);
            assert_eq!(q_half[i].into(), p.quantize(half.row(r)[c].to_f32()), "{place}: {:?}", x[i]);
            assert_eq!(back[i].to_bits(), p.dequantize(q[i].into()).to_bits(), "{place}");
        }
    }
}

#[test]
fn per_tensor_is_the_range_of_every_row() {
    let x: Vec<f32> = (0..150).map(|i| (i as f32).cos() * i as f32).collect();
    let mut observer = MinMax::new(U8);
    observer.observe(&x).unwrap();
    let half: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let widened: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
    for ctx in tiers() {
        let p = quant::per_tensor(MatRef::new(&x, 3, 50).unwrap(), U8, &ctx).unwrap();
        assert_eq!(p, observer.params().unwrap());
        let half = quant::per_tensor(MatRef::new(&half, 5, 30).unwrap(), U8, &ctx).unwrap();
        assert_eq!(half, quant::per_tensor(MatRef::new(&widened, 5, 30).unwrap(), U8, &ctx).unwrap());
    }
}

#[test]
fn per_channel_decides_the_sign_once() {
    let w = [1.0, 2.0, -1.0, 4.0];
    let w = MatRef::new(&w, 2, 2).unwrap();
    let p = quant::per_channel(w, Scheme::SymmetricAuto, &scalar()).unwrap();
    assert_eq!(p, [QuantParams::i8(2.0 / 127.0, 0).unwrap(), QuantParams::i8(4.0 / 127.0, 0).unwrap()]);
    assert_eq!(blamed(quant::per_channel(w, Scheme::Symmetric(Element::U8), &scalar())), "x");
}

#[test]
fn block_sparse_weights_quantize_as_dense_ones_do() {
    let w: Vec<f32> = (0..77).map(|i| if i % 3 == 0 { 0.0 } else { (i as f32).sin() }).collect();
    let dense = MatRef::new(&w, 7, 11).unwrap();
    let params = quant::per_channel(dense, I8, &scalar()).unwrap();
    let mut expected = [0_i8; 77];
    quant::quantize_rows(dense, &params, MatMut::new(&mut expected, 7, 11).unwrap(), &scalar()).unwrap();
    let sparse = Bsr::from_dense(dense, BlockShape::B4X4).unwrap().map(|r, v| params[r].quantize(v) as i8);
    assert_eq!(sparse.to_dense().unwrap(), expected);
}

#[test]
fn bad_matrices_are_refused_and_nothing_is_written() {
    let ctx = scalar();
    let mut x = [1.0_f32; 6];
    let mut q = [9_u8; 6];
    let p = QuantParams::u8(1.0, 0).unwrap();
    let signed = QuantParams::i8(1.0, 0).unwrap();
    let mut params = [p; 2];
    fn view<T: siskin::ElementType>(x: &[T]) -> MatRef<'_, T> {
        MatRef::new(x, 2, 3).unwrap()
    }
    macro_rules! out {
        ($rows:expr, $cols:expr) => {
            MatMut::new(&mut q, $rows, $cols).unwrap()
        };
    }
    assert_eq!(blamed(quant::quantize(view(&x), &p, out!(3, 2), &ctx)), "y");
    assert_eq!(blamed(quant::quantize(view(&x), &signed, out!(2, 3), &ctx)), "params");
    assert_eq!(blamed(quant::quantize_rows(view(&x), &[p; 3], out!(2, 3), &ctx)), "params");
    assert_eq!(blamed(quant::quantize_rows(view(&x), &[p, signed], out!(2, 3), &ctx)), "params");
    assert_eq!(blamed(quant::quantize_per_token(view(&x), U8, out!(3, 2), &mut params, &ctx)), "y");
    assert_eq!(blamed(quant::quantize_per_token(view(&x), U8, out!(2, 3), &mut [p], &ctx)), "params");
    for scheme in [I8, Scheme::SymmetricAuto] {
        assert_eq!(
            blamed(quant::quantize_per_token(view(&x), scheme, out!(2, 3), &mut params, &ctx)),
            "scheme"
        );
    }
    let mut back = [0.0; 6];
    assert_eq!(
        blamed(quant::dequantize(view(&q), &signed, MatMut::new(&mut back, 2, 3).unwrap(), &ctx)),
        "params"
    );
    assert_eq!(
        blamed(quant::dequantize_rows(view(&q), &[p], MatMut::new(&mut back, 2, 3).unwrap(), &ctx)),
        "params"
    );
    assert_eq!(blamed(quant::dequantize(view(&q), &p, MatMut::new(&mut back, 1, 6).unwrap(), &ctx)), "y");

    for ctx in tiers() {
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY] {
            x[4] = bad;
            let y = MatMut::new(&mut q, 2, 3).unwrap();
            let error = quant::quantize_per_token(view(&x), U8, y, &mut params, &ctx).unwrap_err();
            assert!(error.to_string().ends_with("at row 1, column 1"), "{error}");
            assert_eq!(blamed(quant::per_tensor(view(&x), U8, &ctx)), "x");
            assert_eq!(blamed(quant::per_channel(view(&x), U8, &ctx)), "x");
            let half = x.map(bf16::from_f32);
            assert_eq!(blamed(quant::per_tensor(view(&half), U8, &ctx)), "x");
        }
        (x[3], x[4]) = (f32::MAX, -f32::MAX);
        assert_eq!(quant::per_channel(view(&x), U8, &ctx).unwrap()[1].quantize(f32::MAX), 255);
        let error = quant::per_channel(view(&x), Scheme::Symmetric(Element::U8), &ctx).unwrap_err();
        assert!(error.to_string().starts_with("x: ") && error.to_string().contains("row 1"), "{error}");
    }
    assert_eq!((q, params), ([9; 6], [p; 2]));

    let none = MatRef::<f32>::new(&[], 0, 3).unwrap();
    assert_eq!(blamed(quant::per_tensor(none, U8, &ctx)), "x");
    assert_eq!(quant::per_channel(none, Scheme::SymmetricAuto, &ctx).unwrap(), []);
    let thin = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    assert_eq!(blamed(quant::per_channel(thin, U8, &ctx)), "x");
    assert_eq!(blamed(quant::per_tensor(thin, U8, &ctx)), "x");
    quant::quantize(thin, &p, MatMut::<u8>::new(&mut [], usize::MAX, 0).unwrap(), &ctx).unwrap();
}

/// Quotients that a corrected reciprocal could round to the other side: next to every half, for scales of all magnitudes and of
/// mantissas that are all ones, all zeros and anything.
#[test]
fn quotients_next_to_halves() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for round in 0..400_u32 {
        let exponent =
            [1, 2, 66, 67, 68, 100, 120, 126, 127, 128, 186, 187, 188, 250, 251][round as usize % 15];
        let mantissa =
            [0, 1, 0x7f_ffff, 0x7f_fffe, 0x40_0000, 0x2a_aaaa, next() & 0x7f_ffff, next() & 0x7f_ffff];
        let scale = f32::from_bits(exponent << 23 | mantissa[round as usize % 8]);
        let p = QuantParams::u8(scale, (next() % 256) as i32).unwrap();
        let mut x = vec![
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            f32::MAX,
            f32::MIN,
            0.0,
            -0.0,
            f32::MIN_POSITIVE,
            1e-45,
        ];
        for k in -260..=260_i32 {
            let half = (k as f32 + 0.5) * scale;
            let ulps = if half.is_finite() { -3..=3 } else { 0..=0 };
            x.extend(ulps.map(|ulp: i32| f32::from_bits(half.to_bits().wrapping_add_signed(ulp))));
        }
        let want: Vec<i32> = x.iter().map(|&x| p.quantize(x)).collect();
        for isa in Isa::supported() {
            // By divisions, and by reciprocals.
            for core in ["division=0.5", "division=2"] {
                let core =
                    format!("bf16-pairs=1 {core} sparse=1,1,1,1,1 l1d=32768 l2=524288").parse().unwrap();
                let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap().with_core(core);
                let mut q = vec![0_u8; x.len()];
                let to = MatMut::new(&mut q, 1, x.len()).unwrap();
                quant::quantize(MatRef::new(&x, 1, x.len()).unwrap(), &p, to, &ctx).unwrap();
                for (i, &q) in q.iter().enumerate() {
                    assert_eq!(i32::from(q), want[i], "{} / {scale} on {isa}, {core}", x[i]);
                }
                // Of bfloat16, by a kernel of its own.
                let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
                let to = MatMut::new(&mut q, 1, x.len()).unwrap();
                quant::quantize(MatRef::new(&narrow, 1, x.len()).unwrap(), &p, to, &ctx).unwrap();
                for (i, &q) in q.iter().enumerate() {
                    assert_eq!(
                        i32::from(q),
                        p.quantize(narrow[i].to_f32()),
                        "{} / {scale}, bfloat16",
                        narrow[i]
                    );
                }
            }
        }
    }
}
