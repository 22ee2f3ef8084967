//! Packed activations of floats: from every layer to every layout, and on to the next.

use crate::common::float::*;
use crate::common::{Rng, cases, in_parallel, isas, serial};
use siskin::internal::linear::{PanelLayout, input_layout, pack_in, packed_in};
use siskin::linear::InputQuantization::PerToken;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16};

/// From floats to an INT8 layer and back, without leaving packed activations.
#[test]
fn a_chain_through_bytes() {
    let mut r = Rng::new(34);
    let (m, k, n) = (37, 24, 40);
    let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
    let w: Vec<f32> = (0..n * k).map(|_| r.float(-0.2, 0.2)).collect();
    let back: Vec<i8> = (0..k * n).map(|_| r.below(256) as u8 as i8).collect();
    let ctx = Ctx::new().unwrap();
    let mut scratch = Scratch::new();
    let first = Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap();
    let second = Linear::dense(MatRef::new(&back, k, n).unwrap()).scales(&[0.01]).build(&ctx).unwrap();
    let p = QuantParams::u8(0.02, 128).unwrap();
    let x = LinearInput::from(MatRef::new(&x, m, k).unwrap());
    let (mut bytes, mut packed, mut reals) =
        (vec![0u8; m * n], PackedActivations::new(), PackedActivations::new());
    first
        .forward(
            x,
            Epilogue::new(),
            LinearOutput::from((MatMut::new(&mut bytes, m, n).unwrap(), p)),
            &ctx,
            &mut scratch,
        )
        .unwrap();
    let out = LinearOutput::packed(&mut packed, p, &second);
    first.forward(x, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let mut y = vec![0.0; m * k];
    let input = LinearInput::from((MatRef::new(&bytes, m, n).unwrap(), p));
    let out = LinearOutput::from(MatMut::new(&mut y, m, k).unwrap());
    second.forward(input, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let out = LinearOutput::packed_floats(&mut reals, &first);
    second.forward(LinearInput::from(&packed), Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let mut again = vec![0.0; m * k];
    reals.unpack_f32(MatMut::new(&mut again, m, k).unwrap()).unwrap();
    assert_eq!(bits(&again), bits(&y));
}

/// An odd number of features leaves half a pair, where a call before may have left a NaN.
#[test]
fn half_pairs_are_zero() {
    let mut r = Rng::new(38);
    let (m, k, n) = (5, 7, 33);
    for isa in isas("half_pairs_are_zero") {
        let ctx = serial(isa);
        let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
        let x = LinearInput::from(MatRef::new(&x, m, k).unwrap());
        let w = floats(&(0..n * k).map(|_| r.float(-1.0, 1.0)).collect::<Vec<_>>());
        let back = floats(&(0..k * n).map(|_| r.float(-1.0, 1.0)).collect::<Vec<_>>());
        let nan = vec![f32::NAN; m * 40];
        for block in ["dense", "4x4", "4x1"] {
            let layer = |w: &[bf16], n, k| {
                let w = MatRef::new(w, n, k).unwrap();
                match block.parse::<BlockShape>() {
                    Ok(block) => Linear::sparse(&Bsr::from_dense(w, block).unwrap()).build(&ctx).unwrap(),
                    Err(_) => Linear::dense(w).build(&ctx).unwrap(),
                }
            };
            let (first, second) = (layer(&w, n, k), layer(&back, k, n));
            let (mut packed, mut scratch) = (PackedActivations::new(), Scratch::new());
            let nan = LinearInput::from(MatRef::new(&nan, m, 40).unwrap());
            let layout = (input_layout(&second), PerToken);
            pack_in(&mut packed, nan, layout, &ctx, &mut scratch).unwrap();
            let out = LinearOutput::packed_floats(&mut packed, &second);
            first.forward(x, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
            let mut y = vec![0.0; m * k];
            let out = LinearOutput::from(MatMut::new(&mut y, m, k).unwrap());
            second.forward(LinearInput::from(&packed), Epilogue::new(), out, &ctx, &mut scratch).unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{isa} {block}");
        }
    }
}

/// From every kind of layer into every layout, through the panels that the two have in common or not.
#[test]
fn every_layer_fills_every_layout() {
    use PanelLayout::*;
    let mut r = Rng::new(39);
    let p = QuantParams::u8(0.05, 120).unwrap();
    for isa in isas("every_layer_fills_every_layout") {
        for _ in 0..cases(40) {
            let (m, n, k) = (1 + r.below(100), 1 + r.below(140), 1 + r.below(40));
            let w: Vec<f32> =
                (0..n * k).map(|i| if i / 4 % 2 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
            let w = MatRef::new(&w, n, k).unwrap();
            let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
            let x = MatRef::new(&x, m, k).unwrap();
            let block = BlockShape::new([4, 1, 4, 3][r.below(4)], [1, 4, 4, 2][r.below(4)]).unwrap();
            let bsr = Bsr::from_dense(w, block).unwrap();
            let way = r.below(20);
            in_parallel(isa, way, |ctx| {
                let layers = [
                    Linear::dense(w).build(ctx).unwrap(),
                    Linear::sparse(&bsr).build(ctx).unwrap(),
                    Linear::sparse(&bsr.map(|_, v| bf16::from_f32(v))).build(ctx).unwrap(),
                    Linear::quantize_dense(w).unwrap().build(ctx).unwrap(),
                    Linear::quantize_sparse(&bsr).unwrap().build(ctx).unwrap(),
                ];
                for (i, layer) in layers.iter().enumerate() {
                    let mut scratch = Scratch::new();
                    let mut call = |y: LinearOutput<'_>| {
                        layer.forward(LinearInput::from(x), Epilogue::new(), y, ctx, &mut scratch).unwrap();
                    };
                    let what = format!("{isa} layer {i} {block} {m} x {n} x {k}");
                    let mut want = vec![0u8; m * n];
                    call(LinearOutput::from((MatMut::new(&mut want, m, n).unwrap(), p)));
                    for layout in [Rows, KMajor, KMajor4] {
                        let mut y = PackedActivations::new();
                        call(packed_in(&mut y, Some(p), layout));
                        let mut got = vec![0u8; m * n];
                        y.unpack(MatMut::new(&mut got, m, n).unwrap(), ctx).unwrap();
                        assert_eq!(got, want, "{what} {layout:?}");
                    }
                    let (mut want, mut half) = (vec![0f32; m * n], vec![bf16::ZERO; m * n]);
                    call(LinearOutput::from(MatMut::new(&mut want, m, n).unwrap()));
                    call(LinearOutput::from(MatMut::new(&mut half, m, n).unwrap()));
                    let half: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
                    for layout in [F32Rows, F32KMajor, Bf16Rows, Bf16KMajor2] {
                        let mut y = PackedActivations::new();
                        call(packed_in(&mut y, None, layout));
                        let mut got = vec![0f32; m * n];
                        y.unpack_f32(MatMut::new(&mut got, m, n).unwrap()).unwrap();
                        let want = if matches!(layout, F32Rows | F32KMajor) { &want } else { &half };
                        assert_eq!(bits(&got), bits(want), "{what} {layout:?}");
                    }
                }
            });
        }
    }
}
