//! Layers against i64 sums and the documented epilogue, bit for bit: every tier, type, epilogue, block shape and way to
//! share the work out.

use crate::common::layer::*;
use crate::common::{BLOCKS, Rng, WAYS, cases, in_parallel, isas, serial};
use proptest::prelude::*;
use siskin::internal::kernels::table::TIERS;
use siskin::internal::linear::PanelLayout;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

/// A scratch full of another call's data.
fn stale(isa: Isa) -> Scratch {
    let case = Case {
        seed: 99,
        m: 150,
        n: 140,
        k: 150,
        block: None,
        weight_zeros: true,
        input: In::F32PerToken,
        to: To::Packed(PanelLayout::KMajor),
        residual: Res::F32,
        act: Act::Gelu,
    };
    let mut scratch = Scratch::new();
    for block in [None, Some((4, 1)), Some((4, 4))] {
        let data = Case { block, ..case }.valid().data();
        let ctx = serial(isa);
        data.forward(&data.layer(&ctx), (0, case.m), &ctx, &mut scratch);
    }
    scratch
}

fn check(case: Case, way: usize, isas: &[Isa], scratches: &mut [Scratch]) -> Result<(), TestCaseError> {
    let case = case.valid();
    let mut data = case.data();
    let want = data.expected();
    for (&isa, scratch) in isas.iter().zip(scratches) {
        let ctx = serial(isa);
        let layer = data.layer(&ctx);
        let got = data.forward(&layer, (0, case.m), &ctx, scratch);
        prop_assert_eq!(&got, &want, "{} alone", isa);
        let got = data.forward(&layer, (0, case.m), &ctx, &mut Scratch::new());
        prop_assert_eq!(&got, &want, "{}, new scratch", isa);
        let got = in_parallel(isa, way, |ctx| data.forward(&layer, (0, case.m), ctx, &mut Scratch::new()));
        prop_assert_eq!(&got, &want, "{}, way {}", isa, way);
        if case.m > 0 {
            let t = way * 7 % case.m;
            let row = data.forward(&layer, (t, 1), &ctx, scratch);
            prop_assert_eq!(&row[..], &want[t * case.n..][..case.n], "{}: row {} alone", isa, t);
        }
        // What lies between rows of x and of the residual is nothing's business.
        let (k, n, xs, rs) = (case.k, case.n, data.x_stride, data.y_stride);
        for t in 0..case.m {
            data.x_bytes[t * xs + k..(t + 1) * xs].iter_mut().for_each(|b| *b ^= 0xff);
            data.x_signed[t * xs + k..(t + 1) * xs].iter_mut().for_each(|b| *b ^= 0x55);
            data.x_f32[t * xs + k..(t + 1) * xs].fill(f32::NAN);
            data.x_bf16[t * xs + k..(t + 1) * xs].fill(siskin::bf16::INFINITY);
            data.r_f32[t * rs + n..(t + 1) * rs].fill(f32::NAN);
            data.r_bytes[t * rs + n..(t + 1) * rs].fill(1);
        }
    }
    Ok(())
}

#[test]
fn every_combination_bit_for_bit() {
    let isas = isas("every_combination_bit_for_bit");
    let scratches: Vec<Scratch> = isas.iter().map(|&isa| stale(isa)).collect();
    let scratches = std::cell::RefCell::new(scratches);
    let sizes =
        |most: usize| prop_oneof![0..most, prop::sample::select(vec![1usize, 15, 16, 17, 63, 64, 65])];
    let strategy = (
        any::<u64>(),
        (sizes(135), sizes(140), sizes(120)),
        prop::sample::select(BLOCKS.to_vec()),
        any::<bool>(),
        prop::sample::select(INS.to_vec()),
        prop::sample::select(TOS.to_vec()),
        prop::sample::select(RESIDUALS.to_vec()),
        prop::sample::select(ACTS.to_vec()),
        0..WAYS,
    );
    let config =
        ProptestConfig { cases: cases(1200), failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((seed, (m, n, k), block, weight_zeros, input, to, residual, act, way) in strategy)| {
        let residual = if seed % 3 == 0 { residual } else { Res::None };
        let case = Case { seed, m, n, k, block, weight_zeros, input, to, residual, act };
        check(case, way, &isas, &mut scratches.borrow_mut())?;
    });
}

/// Not by chance: each output with each block shape, and each input with each block shape, at least once.
#[test]
fn every_pair_of_block_and_type() {
    let isas = isas("every_pair_of_block_and_type");
    let mut scratches: Vec<Scratch> = isas.iter().map(|_| Scratch::new()).collect();
    let mut seed = 0;
    let stride = (1.0 / f64::from(cases(1000)) * 1000.0).max(1.0) as u64;
    for block in BLOCKS {
        for i in 0..INS.len() * 2 {
            seed += 1;
            if seed % stride != 0 {
                continue;
            }
            let case = Case {
                seed,
                m: [1, 2, 18, 64, 81, 129][(seed % 6) as usize],
                n: [1, 37, 70, 128][(seed % 4) as usize],
                k: [3, 33, 64, 101][(seed / 4 % 4) as usize],
                block,
                weight_zeros: seed % 2 == 0,
                input: INS[i % INS.len()],
                to: TOS[(i + seed as usize) % TOS.len()],
                residual: RESIDUALS[if seed % 2 == 0 { 0 } else { i % 5 }],
                act: ACTS[(seed % 10) as usize],
            };
            if let Err(e) = check(case, seed as usize % WAYS, &isas, &mut scratches) {
                panic!("{case:?}: {e}");
            }
        }
    }
}

/// Blocks of eight rows and more, whose groups of four rows may be taken in pairs: odd ones, tails of rows, tails of K, every width of
/// a panel, with ends of each kind.
#[test]
fn tall_blocks() {
    let isas = isas("tall_blocks");
    let mut scratches: Vec<Scratch> = isas.iter().map(|_| Scratch::new()).collect();
    let mut seed = 0;
    for block in [(8, 1), (16, 1), (24, 1), (12, 1), (6, 1), (13, 3), (20, 2), (64, 1), (100, 1)] {
        for (n, k) in [(8, 1), (5, 6), (23, 33), (64, 70), (101, 131), (130, 300)] {
            for m in [64, 1 + seed as usize % 63, 65 + seed as usize % 70] {
                seed += 1;
                let case = Case {
                    seed,
                    m,
                    n,
                    k,
                    block: Some(block),
                    weight_zeros: seed % 2 == 0,
                    input: INS[seed as usize % INS.len()],
                    to: TOS[seed as usize % TOS.len()],
                    residual: Res::None,
                    act: if seed % 3 == 0 { ACTS[seed as usize % ACTS.len()] } else { Act::Identity },
                };
                if let Err(e) = check(case, seed as usize % WAYS, &isas, &mut scratches) {
                    panic!("{case:?}: {e}");
                }
            }
        }
    }
    // Eight rows at a time are not an accident: a tier either has such a kernel and says so, or takes four.
    for &isa in &isas {
        let layer = plain(64, 64, 64, (8, 1), 3).layer(&serial(isa));
        let (wide, narrow) = (layer.kernel(64), layer.kernel(32));
        let tall = TIERS.iter().any(|t| t.isa == isa && t.bytes.tall.is_some());
        assert!(
            wide.ends_with(if tall { "-8x64" } else { "-4x64" }) && narrow.ends_with("-4x32"),
            "{wide}, {narrow}"
        );
    }
}

fn sums(layer: &Linear, x: &[u8], m: usize, zero: i32, ctx: &Ctx, scratch: &mut Scratch) -> Vec<i32> {
    let mut y = vec![-1; m * layer.out_features()];
    let p = QuantParams::u8(1.0, zero).unwrap();
    layer
        .forward(
            LinearInput::from((MatRef::new(x, m, layer.in_features()).unwrap(), p)),
            Epilogue::new(),
            LinearOutput::from(MatMut::new(&mut y, m, layer.out_features()).unwrap()),
            ctx,
            scratch,
        )
        .unwrap();
    y
}

fn block(b: (usize, usize)) -> BlockShape {
    BlockShape::new(b.0, b.1).unwrap()
}

/// The largest K with the largest factors of either sign.
#[test]
fn extremes_at_the_largest_k() {
    let (n, k) = (5, MAX_FEATURES);
    assert_eq!(k, 65_793);
    for isa in isas("extremes_at_the_largest_k") {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for b in [None, Some((4, 1)), Some((1, 1)), Some((1, 4)), Some((4, 4)), Some((2, 3))] {
            for (x, w) in [(255u8, -128i8), (255, 127), (0, -128), (1, 127)] {
                let weights = vec![w; n * k];
                let dense = MatRef::new(&weights, n, k).unwrap();
                let layer = match b {
                    None => Linear::dense(dense).build(&ctx).unwrap(),
                    Some(b) => {
                        Linear::sparse(&Bsr::from_dense(dense, block(b)).unwrap()).build(&ctx).unwrap()
                    }
                };
                for m in [1, 3, 33] {
                    for zero in [0, 255] {
                        let got = sums(&layer, &vec![x; m * k], m, zero, &ctx, &mut scratch);
                        let want = (i64::from(x) - i64::from(zero)) * i64::from(w) * k as i64;
                        let want = i32::try_from(want).unwrap();
                        assert!(
                            got.iter().all(|&s| s == want),
                            "{isa} {b:?} {x} {w} {zero}: {got:?}, not {want}"
                        );
                    }
                }
            }
        }
    }
}

/// Columns on both sides of 65,535, where rows are split over two groups.
#[test]
fn columns_beyond_sixteen_bits() {
    let (n, k) = (9, MAX_FEATURES);
    for isa in isas("columns_beyond_sixteen_bits") {
        let ctx = serial(isa);
        let mut r = Rng::new(5);
        for b in [(4, 1), (1, 1), (3, 2), (1, 4), (5, 8), (8, 1), (16, 2)] {
            let mut w = vec![0i8; n * k];
            for f in 0..n {
                for c in [0, 1, 65_534, 65_535, 65_536, 65_537, 65_700, k - 1] {
                    // Some rows have columns on one side only.
                    if !(f / 4 == 1 && c < 65_536 || f == 8 && c > 65_535) {
                        w[f * k + c] = r.byte() as i8 | 1;
                    }
                }
            }
            let dense = MatRef::new(&w, n, k).unwrap();
            let layer = Linear::sparse(&Bsr::from_dense(dense, block(b)).unwrap()).build(&ctx).unwrap();
            let mut scratch = Scratch::new();
            for m in [1, 2, 17, 64] {
                let x = r.bytes(m * k);
                let got = sums(&layer, &x, m, 77, &ctx, &mut scratch);
                for (i, got) in got.into_iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                    let want: i64 = x.iter().zip(w).map(|(&x, &w)| (i64::from(x) - 77) * i64::from(w)).sum();
                    assert_eq!(i64::from(got), want, "{isa} {b:?} m={m} i={i}");
                }
                // And through the epilogue to bytes, which must not be fused here.
                let p = QuantParams::u8(1.0, 77).unwrap();
                let q = QuantParams::u8(3000.0, 120).unwrap();
                let mut y = vec![0u8; m * n];
                layer
                    .forward(
                        LinearInput::from((MatRef::new(&x, m, k).unwrap(), p)),
                        Epilogue::new(),
                        LinearOutput::from((MatMut::new(&mut y, m, n).unwrap(), q)),
                        &ctx,
                        &mut scratch,
                    )
                    .unwrap();
                let exact = sums(&layer, &x, m, 77, &ctx, &mut scratch);
                for (y, s) in y.iter().zip(exact) {
                    let want = (s as f32).mul_add(1.0 / 3000.0, 0.0).round_ties_even() + 120.0;
                    assert_eq!(*y, want.clamp(0.0, 255.0) as u8, "{isa} {b:?} m={m}");
                }
            }
        }
    }
}

#[test]
fn weight_zero_points_at_their_largest_k() {
    let (n, k) = (3, MAX_FEATURES_ZERO_POINTS);
    for isa in isas("weight_zero_points_at_their_largest_k") {
        let ctx = serial(isa);
        for (x, w, zero, w_zero) in [(255u8, 127i8, 0, -128), (0, 127, 255, -128), (255, -128, 0, 127)] {
            let weights = vec![w; n * k];
            let layer = Linear::dense(MatRef::new(&weights, n, k).unwrap())
                .zero_points(&[w_zero])
                .build(&ctx)
                .unwrap();
            let got = sums(&layer, &vec![x; 2 * k], 2, zero, &ctx, &mut Scratch::new());
            let want = (i64::from(x) - i64::from(zero)) * (i64::from(w) - i64::from(w_zero)) * k as i64;
            assert_eq!(got, vec![i32::try_from(want).unwrap(); 2 * n], "{isa}");
        }
    }
}

/// The independent implementation in C.
#[cfg(siskin_oracle)]
#[test]
fn the_c_oracle_agrees() {
    use siskin::internal::oracle::{Blocks, Matrix, gemm, spmm};
    for isa in isas("the_c_oracle_agrees") {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for seed in 0..u64::from(cases(60)) {
            let mut r = Rng::new(seed + 1000);
            let (m, n, k) = (1 + r.below(80), 1 + r.below(90), 1 + r.below(130));
            let case = Case {
                seed,
                m,
                n,
                k,
                block: BLOCKS[seed as usize % BLOCKS.len()],
                weight_zeros: true,
                input: In::U8,
                to: To::I32,
                residual: Res::None,
                act: Act::Identity,
            }
            .valid();
            let data = case.data();
            let x: Vec<u8> = (0..m).flat_map(|t| data.x_bytes[t * data.x_stride..][..k].to_vec()).collect();
            let zero = [data.x_u8_params.zero_point()];
            let x = Matrix { data: &x, rows: m, cols: k, zero: &zero };
            let want = match case.block {
                None => gemm(x, Matrix { data: &data.w, rows: n, cols: k, zero: &data.w_zero }),
                Some(b) => {
                    let w = Bsr::from_dense(MatRef::new(&data.w, n, k).unwrap(), block(b)).unwrap();
                    let (values, indptr, indices) = (w.values(), w.indptr(), w.indices());
                    spmm(x, Blocks { values, indptr, indices, block: b, rows: n, cols: k, zero: &[] })
                }
            };
            let want: Vec<u32> = want.into_iter().map(|v| v as u32).collect();
            assert_eq!(data.forward(&data.layer(&ctx), (0, m), &ctx, &mut scratch), want, "{isa} {case:?}");
        }
    }
}

/// The curves against C's erf, tanh and exp in f64.
#[cfg(siskin_oracle)]
#[test]
fn activations_are_near_f64() {
    use siskin::internal::kernels::activation::{Curve, evaluate};
    use siskin::internal::oracle::{Activation as Exact, activate};
    for (curve, exact) in
        [(Curve::Gelu, Exact::GeluErf), (Curve::GeluTanh, Exact::GeluTanh), (Curve::Silu, Exact::Silu)]
    {
        let steps = cases(200_000);
        for i in 0..=steps {
            let x = -20.0 + 40.0 * (i as f32 / steps as f32);
            let (got, want) = (f64::from(evaluate(curve, x)), activate(exact, f64::from(x)));
            let most = 2e-7 + 1.2e-7 * want.abs();
            assert!((got - want).abs() <= most, "{curve:?}({x}) = {got}, not {want}");
        }
        for x in [1e10f32, -1e10, f32::MAX, f32::MIN, f32::INFINITY, -1e-30, 0.0, -0.0] {
            let (got, want) = (f64::from(evaluate(curve, x)), activate(exact, f64::from(x)));
            assert!(
                got == want || (got - want).abs() <= 2e-7 + 1.2e-7 * want.abs(),
                "{curve:?}({x}) = {got}"
            );
        }
    }
}

fn plain(m: usize, n: usize, k: usize, b: (usize, usize), seed: u64) -> Data {
    Case {
        seed,
        m,
        n,
        k,
        block: Some(b),
        weight_zeros: false,
        input: In::U8,
        to: To::I32,
        residual: Res::None,
        act: Act::Identity,
    }
    .data()
}

#[test]
fn inserting_zero_blocks_changes_nothing() {
    for isa in isas("inserting_zero_blocks_changes_nothing") {
        let ctx = serial(isa);
        for (i, b) in [(4, 1), (1, 4), (4, 4), (3, 2), (16, 16), (1, 1)].into_iter().enumerate() {
            let (m, n, k) = (70, 67, 90);
            let data = plain(m, n, k, b, i as u64);
            let x = Rng::new(3).bytes(m * k);
            let few = Bsr::from_dense(MatRef::new(&data.w, n, k).unwrap(), block(b)).unwrap();
            // Every block there is, most of them zeros.
            let across = k.div_ceil(b.1);
            let (mut values, mut indices, mut indptr) = (vec![], vec![], vec![0]);
            for i in 0..n.div_ceil(b.0) {
                for j in 0..across {
                    indices.push(j as u32);
                    for (r, c) in (0..b.0).flat_map(|r| (0..b.1).map(move |c| (r, c))) {
                        let (r, c) = (i * b.0 + r, j * b.1 + c);
                        values.push(if r < n && c < k { data.w[r * k + c] } else { 0 });
                    }
                }
                indptr.push(indices.len());
            }
            let all = Bsr::from_parts((n, k), block(b), indptr, indices, values).unwrap();
            assert!(all.num_blocks() > few.num_blocks());
            let run = |w: &Bsr<i8>| {
                sums(&Linear::sparse(w).build(&ctx).unwrap(), &x, m, 9, &ctx, &mut Scratch::new())
            };
            assert_eq!(run(&few), run(&all), "{isa} {b:?}");
        }
    }
}

#[test]
fn permuted_block_rows_permute_the_output() {
    for isa in isas("permuted_block_rows_permute_the_output") {
        let ctx = serial(isa);
        for b in [(4, 1), (1, 4), (4, 4), (3, 2), (16, 16)] {
            let (m, rows, k) = (67, 9, 70);
            let n = rows * b.0;
            let data = plain(m, n, k, b, 8);
            let x = Rng::new(4).bytes(m * k);
            let order: Vec<usize> = (0..rows).map(|i| (i * 4 + 3) % rows).collect();
            let row = |f: usize| order[f / b.0] * b.0 + f % b.0;
            let moved: Vec<i8> = (0..n).flat_map(|f| data.w[row(f) * k..][..k].to_vec()).collect();
            let run = |w: &[i8]| {
                let w = Bsr::from_dense(MatRef::new(w, n, k).unwrap(), block(b)).unwrap();
                sums(&Linear::sparse(&w).build(&ctx).unwrap(), &x, m, 200, &ctx, &mut Scratch::new())
            };
            let (y, moved) = (run(&data.w), run(&moved));
            for i in 0..m * n {
                assert_eq!(moved[i], y[i / n * n + row(i % n)], "{isa} {b:?}");
            }
        }
    }
}

#[test]
fn scales_of_powers_of_two_scale_exactly() {
    for isa in isas("scales_of_powers_of_two_scale_exactly") {
        let ctx = serial(isa);
        for b in [None, Some((4, 1)), Some((4, 4))] {
            let case = Case { block: b, to: To::F32, act: Act::Relu, ..plain(66, 45, 77, (4, 1), 5).case };
            let mut data = case.data();
            data.w_scale = (0..45).map(|i| 0.01 + i as f32 * 0.003).collect();
            let once = data.forward(&data.layer(&ctx), (0, 66), &ctx, &mut Scratch::new());
            data.w_scale.iter_mut().for_each(|s| *s *= 8.0);
            data.bias.iter_mut().for_each(|s| *s *= 8.0);
            let more = data.forward(&data.layer(&ctx), (0, 66), &ctx, &mut Scratch::new());
            for (a, b) in once.iter().zip(more) {
                assert_eq!((f32::from_bits(*a) * 8.0).to_bits(), b, "{isa}");
            }
        }
    }
}

#[test]
fn a_shift_of_x_and_its_zero_point_changes_nothing() {
    for isa in isas("a_shift_of_x_and_its_zero_point_changes_nothing") {
        let ctx = serial(isa);
        for b in BLOCKS {
            let (m, n, k) = (33, 21, 50);
            let data = Case { block: b, ..plain(m, n, k, (4, 1), 6).case }.data();
            let layer = data.layer(&ctx);
            let x: Vec<u8> = Rng::new(9).bytes(m * k).iter().map(|b| b / 2).collect();
            let shifted: Vec<u8> = x.iter().map(|b| b + 100).collect();
            let mut scratch = Scratch::new();
            let one = sums(&layer, &x, m, 30, &ctx, &mut scratch);
            assert_eq!(one, sums(&layer, &shifted, m, 130, &ctx, &mut scratch), "{isa} {b:?}");
        }
    }
}

#[test]
fn a_nan_residual_gives_nan_and_the_zero_point() {
    for isa in isas("a_nan_residual_gives_nan_and_the_zero_point") {
        let ctx = serial(isa);
        for b in [None, Some((4, 1)), Some((4, 4))] {
            for to in [To::F32, To::Bf16, To::U8] {
                let case = Case { block: b, to, residual: Res::F32, ..plain(5, 19, 20, (4, 1), 2).case };
                let mut data = case.data();
                let stride = data.y_stride;
                data.r_f32[2 * stride + 3] = f32::NAN;
                let clean = case.data().forward(&data.layer(&ctx), (0, 5), &ctx, &mut Scratch::new());
                let got = data.forward(&data.layer(&ctx), (0, 5), &ctx, &mut Scratch::new());
                for (i, (a, b)) in got.iter().zip(clean).enumerate() {
                    match (i == 2 * 19 + 3, to) {
                        (false, _) => assert_eq!(*a, b),
                        (true, To::F32) => assert!(f32::from_bits(*a).is_nan()),
                        (true, To::Bf16) => assert!(siskin::bf16::from_bits(*a as u16).is_nan()),
                        (true, _) => assert_eq!(*a as i32, data.y_params.zero_point()),
                    }
                }
            }
        }
    }
}

#[test]
fn threads_share_one_layer() {
    for isa in isas("threads_share_one_layer") {
        for b in [None, Some((4, 1)), Some((4, 4))] {
            let case = Case {
                block: b,
                to: To::U8,
                act: Act::Gelu,
                input: In::F32PerToken,
                ..plain(70, 65, 64, (4, 1), 2).case
            };
            let data = case.data();
            let layer = data.layer(&serial(isa));
            let want = data.expected();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut scratch = Scratch::new();
                        for _ in 0..5 {
                            assert_eq!(data.forward(&layer, (0, 70), &serial(isa), &mut scratch), want);
                        }
                    });
                }
            });
        }
    }
}

/// Calls from the threads of a pool, which share out their work in the same pool.
#[cfg(feature = "rayon")]
#[test]
fn a_call_from_inside_a_pool() {
    use rayon::prelude::*;
    for isa in isas("a_call_from_inside_a_pool") {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for b in [None, Some((4, 1)), Some((4, 4))] {
                let data = Case { block: b, ..plain(130, 65, 64, (4, 1), 2).case }.data();
                let layer = data.layer(&serial(isa));
                let want = data.expected();
                let ctx = serial(isa).with_parallelism(siskin::Parallelism::Rayon);
                pool.install(|| {
                    (0..8).into_par_iter().for_each(|_| {
                        assert_eq!(data.forward(&layer, (0, 130), &ctx, &mut Scratch::new()), want);
                    });
                });
            }
        }
    }
}

/// Another process, because the global pool of this one is made once.
#[cfg(feature = "rayon")]
#[test]
fn one_thread_by_the_environment() {
    const CHILD: &str = "SISKIN_TEST_ONE_THREAD";
    if std::env::var(CHILD).is_ok() {
        assert_eq!(Ctx::new().unwrap().threads(), 1);
        let isa = Ctx::new().unwrap().isa();
        let data = plain(130, 65, 64, (4, 1), 2);
        let layer = data.layer(&Ctx::new().unwrap());
        assert_eq!(layer.isa(), isa);
        let got = data.forward(&layer, (0, 130), &Ctx::new().unwrap(), &mut Scratch::new());
        assert_eq!(got, data.expected());
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["layers::one_thread_by_the_environment", "--exact", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RAYON_NUM_THREADS", "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// A scale beyond all floats makes NaN of an empty sum: the same byte on every tier.
#[test]
fn a_pruned_feature_with_an_infinite_scale() {
    let (m, n, k) = (64, 8, 8);
    let w: Vec<i8> = (0..n * k).map(|i| if i / k < 4 { 0 } else { 1 }).collect();
    let w = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block((4, 1))).unwrap();
    let x = vec![1u8; m * k];
    let outputs: Vec<Vec<u8>> = isas("a_pruned_feature_with_an_infinite_scale")
        .into_iter()
        .map(|isa| {
            let ctx = serial(isa);
            let layer = Linear::sparse(&w).scales(&[1e30; 8]).build(&ctx).unwrap();
            let x = LinearInput::from((MatRef::new(&x, m, k).unwrap(), QuantParams::u8(1e30, 0).unwrap()));
            let mut y = vec![0u8; m * n];
            let to =
                LinearOutput::from((MatMut::new(&mut y, m, n).unwrap(), QuantParams::u8(1e27, 10).unwrap()));
            layer.forward(x, Epilogue::new(), to, &ctx, &mut Scratch::new()).unwrap();
            y
        })
        .collect();
    assert!(outputs.iter().all(|y| *y == outputs[0]));
    assert_eq!(outputs[0][4..8], [255; 4], "infinity is the largest byte");
}
