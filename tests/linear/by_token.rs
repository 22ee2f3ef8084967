//! Layers of bytes that bring a quantizer for each token: the bits of layers that quantize the floats themselves.

use crate::common::errors::{Kind, named};
use crate::common::{BLOCKS, Rng, in_parallel, isas, serial};
use siskin::linear::{Epilogue, Linear, PackedActivations};
use siskin::quant::{QuantParams, Scheme, quantize_per_token};
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Element, MatMut, MatRef, Scratch};

const U8: Scheme = Scheme::Asymmetric(Element::U8);

fn layer(
    w: &[i8],
    (n, k): (usize, usize),
    block: Option<(usize, usize)>,
    zeros: &[i32],
    ctx: &Ctx,
) -> Linear {
    let w = MatRef::new(w, n, k).unwrap();
    let scales: Vec<f32> = (0..n).map(|i| 0.01 + i as f32 * 1e-4).collect();
    match block {
        None if !zeros.is_empty() => Linear::dense(w).scales(&scales).zero_points(zeros).build(ctx).unwrap(),
        None => Linear::dense(w).scales(&scales).build(ctx).unwrap(),
        Some((rows, cols)) => {
            let w = Bsr::from_dense(w, BlockShape::new(rows, cols).unwrap()).unwrap();
            Linear::sparse(&w).scales(&scales).build(ctx).unwrap()
        }
    }
}

#[test]
fn bytes_with_their_own_quantizers_are_the_floats_they_were() {
    let mut r = Rng::new(7);
    for isa in isas("bytes_with_their_own_quantizers_are_the_floats_they_were") {
        let mut scratch = Scratch::new();
        for (i, block) in BLOCKS.into_iter().chain([None]).enumerate() {
            for m in [1, 3, 8, 33, 70] {
                let (n, k) = ([5, 66, 131][r.below(3)], [1, 17, 64, 130][r.below(4)]);
                let (w, zeros): (_, Vec<i32>) = (r.signed(n * k), (0..n).map(|f| f as i32 % 7 - 3).collect());
                let zeros = if i > 0 { &zeros[..] } else { &[] };
                let layer = layer(&w, (n, k), block, zeros, &serial(isa));
                let x: Vec<f32> = (0..m * k).map(|at| r.float(-((1 + at / k % 3) as f32), 2.0)).collect();
                let x = MatRef::new(&x, m, k).unwrap();
                let (mut bytes, mut params) = (vec![0; m * k], vec![QuantParams::u8(1.0, 0).unwrap(); m]);
                let to = MatMut::new(&mut bytes, m, k).unwrap();
                quantize_per_token(x, U8, to, &mut params, &serial(isa)).unwrap();
                let differ = params.windows(2).any(|p| p[0].zero_point() != p[1].zero_point());
                assert!(m < 3 || k == 1 || differ);
                let bytes = (MatRef::new(&bytes, m, k).unwrap(), &params[..]);

                let mut y = [vec![0f32; m * n], vec![1.0; m * n], vec![2.0; m * n], vec![3.0; m * n]];
                let [of_floats, of_bytes, of_packed, of_threads] =
                    y.each_mut().map(|y| MatMut::new(y, m, n).unwrap());
                let e = Epilogue::new;
                let ctx = serial(isa);
                layer.forward(x, e(), of_floats, &ctx, &mut scratch).unwrap();
                layer.forward(bytes, e(), of_bytes, &ctx, &mut scratch).unwrap();
                let mut packed = PackedActivations::new();
                layer.pack(bytes, &mut packed, &ctx, &mut scratch).unwrap();
                layer.forward(&packed, e(), of_packed, &ctx, &mut scratch).unwrap();
                in_parallel(isa, 5 + i, |ctx| {
                    layer.forward(bytes, e(), of_threads, ctx, &mut Scratch::new()).unwrap();
                });
                let [floats, others @ ..] = y.map(|y| y.into_iter().map(f32::to_bits).collect::<Vec<u32>>());
                for (way, other) in others.into_iter().enumerate() {
                    assert!(other == floats, "{isa} {block:?} {m} x {n} x {k}, way {way}");
                }
            }
        }
    }
}

#[test]
fn quantizers_that_do_not_fit_are_refused() {
    let (ctx, mut scratch) = (Ctx::serial().unwrap(), Scratch::new());
    let int8 = layer(&[1; 8], (2, 4), None, &[], &ctx);
    let float = Linear::dense(MatRef::new(&[1.0f32; 8], 2, 4).unwrap()).build(&ctx).unwrap();
    let (x, mut y) = ([1u8; 12], [7.0f32; 6]);
    let x = MatRef::new(&x, 3, 4).unwrap();
    let (u8, i8) = (QuantParams::u8(0.5, 3).unwrap(), QuantParams::i8(0.5, 3).unwrap());
    let mut call = |layer: &Linear, params: &[QuantParams]| {
        let y = MatMut::new(&mut y, 3, 2).unwrap();
        layer.forward((x, params), Epilogue::new(), y, &ctx, &mut scratch)
    };
    named(call(&int8, &[u8; 2]), Kind::Shape, "input");
    named(call(&int8, &[u8, u8, i8]), Kind::Unsupported, "input");
    named(call(&float, &[u8; 3]), Kind::Unsupported, "input");
    call(&int8, &[u8; 3]).unwrap();
    assert!(y.iter().all(|&y| y != 7.0));
}
