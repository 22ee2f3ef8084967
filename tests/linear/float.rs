//! Layers that compute in floats, against the definition: bit for bit on every tier but where bfloat16 is multiplied in
//! pairs, which has a tolerance.

use crate::common::float::*;
use crate::common::{Rng, cases, in_parallel, isas, serial};
use siskin::internal::linear::{PanelLayout, pack_in, packed_in};
use siskin::linear::InputQuantization::PerToken;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch};

#[test]
fn every_tier_has_the_bits_of_the_definition() {
    let mut r = Rng::new(31);
    let mut scratch = Scratch::new();
    let isas = isas("float layers");
    for _ in 0..cases(400) {
        let case = Case::random(&mut r);
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let layer = d.layer(&ctx);
            let got = d.forward(&layer, (0, case.m), &ctx, &mut scratch);
            check(&d, &layer, &got, &format!("{isa} {} {case:?}", layer.kernel(case.m)));
        }
    }
}

/// Equal bits alone, in a batch, and on any number of threads, on every tier.
#[test]
fn batches_and_threads_change_nothing() {
    let mut r = Rng::new(32);
    let mut scratch = Scratch::new();
    let isas = isas("float layers in batches");
    for i in 0..cases(120) {
        let case = Case::random(&mut r);
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let layer = d.layer(&ctx);
            let whole = d.forward(&layer, (0, case.m), &ctx, &mut scratch);
            for way in [i as usize, i as usize + 1, i as usize + 2] {
                let got =
                    in_parallel(isa, way, |ctx| d.forward(&layer, (0, case.m), ctx, &mut Scratch::new()));
                assert_eq!(bits(&got), bits(&whole), "{isa} way {way} {case:?}");
            }
            let (t, n) = (r.below(case.m), case.n);
            let alone = d.forward(&layer, (t, 1), &ctx, &mut scratch);
            assert_eq!(bits(&alone), bits(&whole[t * n..(t + 1) * n]), "{isa} token {t} alone, {case:?}");
        }
    }
}

/// Sums of single rows and of pairs of rows, which go on from block to block of K, and whole panels in pairs and alone.
#[test]
fn blocks_of_k() {
    let mut r = Rng::new(41);
    let mut scratch = Scratch::new();
    let isas = isas("float layers by blocks of K");
    for i in 0..cases(40) as usize {
        let case = Case::by_blocks_of_k(&mut r);
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let layer = d.layer(&ctx);
            let what = format!("{isa} {} {case:?}", layer.kernel(case.m));
            let whole = d.forward(&layer, (0, case.m), &ctx, &mut scratch);
            check(&d, &layer, &whole, &what);
            let got = in_parallel(isa, i, |ctx| d.forward(&layer, (0, case.m), ctx, &mut Scratch::new()));
            assert_eq!(bits(&got), bits(&whole), "threads {what}");
            let (t, n) = (r.below(case.m), case.n);
            let alone = d.forward(&layer, (t, 1), &ctx, &mut scratch);
            assert_eq!(bits(&alone), bits(&whole[t * n..(t + 1) * n]), "token {t} alone, {what}");
        }
    }
}

/// Dense layers of so many columns that sums go on from block to block of K, and of few tokens, which take several panels at a time; with
/// a bias, which is added when sums are stored where all of K is taken at once.
#[test]
fn dense_blocks_of_k() {
    let mut r = Rng::new(42);
    let n = 130;
    let bias: Vec<f32> = (0..n).map(|_| r.float(-1.0, 1.0)).collect();
    let heights: &[usize] = if cases(100) < 100 { &[3] } else { &[1, 2, 3, 4, 7, 8, 13] };
    for k in [70, 2100, 4100] {
        let w: Vec<f32> = (0..n * k).map(|_| r.float(-1.0, 1.0)).collect();
        let x: Vec<f32> = (0..13 * k).map(|_| r.float(-1.0, 1.0)).collect();
        let sum = |t: usize, f: usize| (0..k).fold(0f32, |acc, i| x[t * k + i].mul_add(w[f * k + i], acc));
        let want: Vec<f32> = (0..13 * n).map(|i| sum(i / n, i % n) + bias[i % n]).collect();
        for isa in isas("dense float layers by blocks of K") {
            for &m in heights {
                let forward = |ctx: &Ctx| {
                    let w = MatRef::new(&w, n, k).unwrap();
                    let layer = Linear::dense(w).bias(&bias).build(ctx).unwrap();
                    // Rows that are further apart than they are long.
                    let mut y = vec![7.0f32; m * (n + 3)];
                    let x = LinearInput::from(MatRef::new(&x[..m * k], m, k).unwrap());
                    let out = LinearOutput::from(MatMut::with_stride(&mut y, m, n, n + 3).unwrap());
                    layer.forward(x, Epilogue::new(), out, ctx, &mut Scratch::new()).unwrap();
                    assert!(y.chunks(n + 3).all(|y| y[n..] == [7.0; 3]));
                    y.chunks(n + 3).flat_map(|y| y[..n].to_vec()).collect::<Vec<f32>>()
                };
                assert_eq!(bits(&forward(&serial(isa))), bits(&want[..m * n]), "{isa} m={m} k={k}");
                let got = in_parallel(isa, m, |ctx| forward(ctx));
                assert_eq!(bits(&got), bits(&want[..m * n]), "{isa} m={m} k={k}, threads");
            }
        }
    }
}

/// Columns beyond what 16 bits can index, whose sums go on in a second part.
#[test]
fn many_columns() {
    let mut r = Rng::new(33);
    let (k, n, m) = (70_001, 5, if cases(100) < 100 { 1 } else { 3 });
    let w: Vec<f32> = (0..n * k).map(|i| if (i / 8) % 9 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
    let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
    for block in ["4x1", "1x4", "1x1", "4x2", "2x1"] {
        let block: BlockShape = block.parse().unwrap();
        let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block).unwrap();
        for isa in isas("float layers of many columns") {
            let ctx = serial(isa);
            let layer = Linear::sparse(&bsr).build(&ctx).unwrap();
            let mut y = vec![0.0; m * n];
            let x_in = LinearInput::from(MatRef::new(&x, m, k).unwrap());
            let out = LinearOutput::from(MatMut::new(&mut y, m, n).unwrap());
            layer.forward(x_in, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
            for (i, y) in y.iter().enumerate() {
                let (t, f) = (i / n, i % n);
                let want = (0..k).fold(0f32, |acc, i| match w[f * k + i] {
                    0.0 => acc,
                    w => x[t * k + i].mul_add(w, acc),
                });
                assert_eq!(y.to_bits(), want.to_bits(), "{isa} {block} ({t}, {f})");
            }
        }
    }
}

/// What does not go together is refused, and says so.
#[test]
fn errors() {
    let ctx = Ctx::new().unwrap();
    let (f, b, s) = (vec![0.5f32; 64], vec![1u8; 64], vec![1i8; 64]);
    let p = QuantParams::u8(0.1, 0).unwrap();
    let real = Linear::dense(MatRef::new(&f, 8, 8).unwrap()).build(&ctx).unwrap();
    let bytes = Linear::dense(MatRef::new(&s, 8, 8).unwrap()).build(&ctx).unwrap();
    let mut y = vec![0.0; 64];
    let mut run = |layer: &Linear, x: LinearInput<'_>| {
        let out = LinearOutput::from(MatMut::new(&mut y, 8, 8).unwrap());
        layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).map_err(|e| e.to_string())
    };
    let floats = || LinearInput::from(MatRef::new(&f, 8, 8).unwrap());
    run(&real, floats()).unwrap();
    run(&bytes, floats()).unwrap();
    let quantized = Linear::dense(MatRef::new(&f, 8, 8).unwrap()).input_quantization(PerToken).build(&ctx);
    assert!(quantized.unwrap_err().to_string().contains("input_quantization"));
    assert!(run(&real, LinearInput::from((MatRef::new(&b, 8, 8).unwrap(), p))).is_err());
    let mut packed = PackedActivations::new();
    pack_in(&mut packed, floats(), (PanelLayout::F32KMajor, PerToken), &ctx, &mut Scratch::new()).unwrap();
    run(&real, LinearInput::from(&packed)).unwrap();
    assert!(run(&bytes, LinearInput::from(&packed)).is_err());
    assert!(packed.unpack(MatMut::new(&mut [0; 64], 8, 8).unwrap(), &ctx).is_err());
    let mut sums = vec![0i32; 64];
    let out = LinearOutput::from(MatMut::new(&mut sums, 8, 8).unwrap());
    assert!(real.forward(floats(), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    let mut to = PackedActivations::new();
    let out = packed_in(&mut to, None, PanelLayout::KMajor);
    assert!(real.forward(floats(), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    let out = packed_in(&mut to, Some(p), PanelLayout::F32Rows);
    assert!(real.forward(floats(), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    // Groups of scales.
    let w = MatRef::new(&s, 8, 8).unwrap();
    assert!(Linear::dense(w).group_scales(4, &[0.1; 15]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(3, &[0.1; 24]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(0, &[0.1; 8]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(MAX_GROUP_SIZE, &[0.1; 8]).build(&ctx).is_ok());
    assert!(Linear::dense(w).group_scales(MAX_GROUP_SIZE + 4, &[0.1; 8]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.0; 16]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.1; 16]).scales(&[1.0]).build(&ctx).is_err());
    assert!(Linear::dense(w).zero_points(&[1]).weight_only().build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.1; 16]).build(&ctx).is_ok());
    assert!(Linear::quantize_dense_groups(MatRef::new(&f, 8, 8).unwrap(), 0).is_err());
}

/// Sums of nothing are the bias.
#[test]
fn no_columns() {
    let (m, n, bias) = (3, 5, [1.0, 2.0, 3.0, 4.0, 5.0]);
    for isa in isas("no_columns") {
        let ctx = serial(isa);
        let w: MatRef<'_, f32> = MatRef::new(&[], n, 0).unwrap();
        let q: MatRef<'_, i8> = MatRef::new(&[], n, 0).unwrap();
        let bsr = Bsr::from_dense(w, BlockShape::B4X1).unwrap();
        let layers = [
            Linear::dense(w).bias(&bias).build(&ctx).unwrap(),
            Linear::sparse(&bsr).bias(&bias).build(&ctx).unwrap(),
            Linear::dense(q).bias(&bias).weight_only().build(&ctx).unwrap(),
            Linear::dense(q).bias(&bias).group_scales(4, &[1.0; 5]).build(&ctx).unwrap(),
        ];
        for layer in &layers {
            assert_eq!(forward_f32(layer, &[], m, &ctx), bias.repeat(m), "{isa}");
        }
        let layer = Linear::dense(q).bias(&bias).build(&ctx).unwrap();
        let mut y = vec![0.0; m * n];
        let x = LinearInput::from(MatRef::<f32>::new(&[], m, 0).unwrap());
        let out = LinearOutput::from(MatMut::new(&mut y, m, n).unwrap());
        layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
        assert_eq!(y, bias.repeat(m), "{isa}");
    }
}

/// Groups that begin beyond what 16 bits can index, and the largest there are.
#[test]
fn groups_of_many_columns() {
    let mut r = Rng::new(40);
    let (n, k) = (5, 70_002);
    let w: Vec<i8> = (0..n * k).map(|i| if i / 8 % 9 == 0 { 1 + r.below(100) as i8 } else { 0 }).collect();
    let x: Vec<f32> = (0..k).map(|_| r.float(-1.0, 1.0)).collect();
    for (block, size) in [("4x1", MAX_GROUP_SIZE), ("1x4", 128), ("4x2", 65_532)] {
        let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block.parse().unwrap()).unwrap();
        let groups = k.div_ceil(size);
        let scales: Vec<f32> = (0..n * groups).map(|_| r.float(0.1, 1.0)).collect();
        for isa in isas("groups_of_many_columns") {
            let ctx = serial(isa);
            let layer = Linear::sparse(&bsr).group_scales(size, &scales).build(&ctx).unwrap();
            let got = forward_f32(&layer, &x, 1, &ctx);
            for f in 0..n {
                let sum = |g: usize| {
                    let own = g * size..((g + 1) * size).min(k);
                    let stored = own.filter(|&i| w[f * k + i] != 0);
                    stored.fold(0f32, |sum, i| x[i].mul_add(f32::from(w[f * k + i]), sum))
                };
                let want = (0..groups).fold(0f32, |total, g| sum(g).mul_add(scales[f * groups + g], total));
                assert_eq!(got[f].to_bits(), want.to_bits(), "{isa} {block} by {size}, feature {f}");
            }
        }
    }
}
