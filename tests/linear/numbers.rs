//! What is no ordinary number: NaN and infinities that become bytes, rows and tokens of zeros, numbers of any magnitude.

use crate::common::{isas, serial};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// A layer of each type of weights that computes in floats, `[n, k]`, dense and in blocks. Weights of feature 0 are 0 but for the last.
fn float_layers(n: usize, k: usize, ctx: &Ctx) -> Vec<(String, Linear)> {
    let w: Vec<f32> =
        (0..n * k).map(|i| if i < k - 1 { 0.0 } else { (i * 7919 % 13) as f32 - 6.0 }).collect();
    let half: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
    let f16s: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
    let bytes: Vec<i8> = w.iter().map(|&v| v as i8).collect();
    let mat = MatRef::new(&w, n, k).unwrap();
    let mut layers = vec![
        ("f32".to_string(), Linear::dense(mat).build(ctx).unwrap()),
        ("bf16".to_string(), Linear::dense(MatRef::new(&half, n, k).unwrap()).build(ctx).unwrap()),
        ("f16".to_string(), Linear::dense(MatRef::new(&f16s, n, k).unwrap()).build(ctx).unwrap()),
        (
            "i8".to_string(),
            Linear::dense(MatRef::new(&bytes, n, k).unwrap())
                .scales(&[1.0])
                .weight_only()
                .build(ctx)
                .unwrap(),
        ),
    ];
    for block in ["4x1", "1x4", "16x16"] {
        // A block of zeros would not be stored, nor multiplied by what is no number.
        let bsr = Bsr::from_dense(mat, block.parse::<BlockShape>().unwrap()).unwrap();
        layers.push((format!("f32 {block}"), Linear::sparse(&bsr).build(ctx).unwrap()));
        layers.push((
            format!("bf16 {block}"),
            Linear::sparse(&bsr.map(|_, v| bf16::from_f32(v))).build(ctx).unwrap(),
        ));
    }
    layers
}

/// NaN becomes the zero point, whatever the activation's limits, and infinities the ends: in whole registers and in what is left of
/// them, in rows and in panels.
#[test]
fn nan_becomes_the_zero_point_and_infinities_the_ends() {
    let (n, k) = (70, 24);
    let to = QuantParams::u8(0.5, 100).unwrap();
    let before = QuantParams::u8(0.25, 77).unwrap();
    let tables = [gelu_table(before, to), gelu_tanh_table(before, to), silu_table(before, to)];
    let mut activations = vec![
        Activation::Identity,
        Activation::Relu,
        Activation::Clamp { low: 3.0, high: 9.0 },
        Activation::Clamp { low: -9.0, high: -3.0 },
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];
    activations.extend(tables.iter().map(Activation::Table));
    for isa in isas("nan_becomes_the_zero_point_and_infinities_the_ends") {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for (name, layer) in float_layers(n, k, &ctx) {
            for m in [1, 3, 17, 64, 70] {
                // Token 0 is NaN in every feature; of token 1 (and of all, if there is one) the last column is infinite.
                let mut x: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 17) as f32 - 8.0) / 8.0).collect();
                x[..k].fill(f32::NAN);
                if m > 1 {
                    x[2 * k - 1] = f32::INFINITY;
                }
                let x = MatRef::new(&x, m, k).unwrap();
                for activation in &activations {
                    let case = format!("{isa} {name}, {m} tokens, {activation:?}");
                    let epilogue = || Epilogue::new().activation(*activation);
                    let mut y = vec![1u8; m * n];
                    let out = (MatMut::new(&mut y, m, n).unwrap(), to);
                    layer.forward(x, epilogue(), out, &ctx, &mut scratch).unwrap();
                    let table = matches!(activation, Activation::Table(_));
                    // What every row's stored weights multiply: of feature 0 in blocks perhaps the last column alone.
                    for f in 0..n {
                        assert_eq!(y[f], 100, "{case}, feature {f}");
                    }
                    if m > 1 && !table {
                        let mut reals = vec![0f32; m * n];
                        let out = MatMut::new(&mut reals, m, n).unwrap();
                        layer.forward(x, epilogue(), out, &ctx, &mut scratch).unwrap();
                        for f in 0..n {
                            let v = reals[n + f];
                            let off = i32::from(y[n + f]) - to.quantize(v);
                            assert!(off.abs() <= i32::from(v.is_finite()), "{case}, feature {f}: {v}");
                        }
                    }
                    // Panels of a following layer hold these bytes too.
                    let mut packed = PackedActivations::new();
                    let none = MatRef::<i8>::new(&[], 0, 0).unwrap();
                    let next = Linear::dense(none).build(&ctx).unwrap();
                    let out = LinearOutput::packed(&mut packed, to, &next);
                    layer.forward(x, epilogue(), out, &ctx, &mut scratch).unwrap();
                    let mut unpacked = vec![0u8; m * n];
                    packed.unpack(MatMut::new(&mut unpacked, m, n).unwrap(), &ctx).unwrap();
                    assert_eq!(unpacked, y, "{case}, packed");
                }
            }
        }
    }
}

/// A residual of NaN, in a layer of bytes.
#[test]
fn a_residual_of_nan_becomes_the_zero_point() {
    let (m, n, k) = (19, 70, 12);
    let w: Vec<i8> = (0..n * k).map(|i| (i % 7) as i8 - 3).collect();
    let x: Vec<u8> = (0..m * k).map(|i| (i % 251) as u8).collect();
    let from = QuantParams::u8(0.01, 9).unwrap();
    let to = QuantParams::i8(0.5, -11).unwrap();
    let mut residual: Vec<f32> = (0..m * n).map(|i| (i % 11) as f32).collect();
    residual.iter_mut().step_by(3).for_each(|r| *r = f32::NAN);
    for isa in isas("a_residual_of_nan_becomes_the_zero_point") {
        let ctx = serial(isa);
        let layer = Linear::dense(MatRef::new(&w, n, k).unwrap()).scales(&[0.1]).build(&ctx).unwrap();
        for activation in [Activation::Identity, Activation::Relu, Activation::Gelu] {
            let mut y = vec![1i8; m * n];
            let x = (MatRef::new(&x, m, k).unwrap(), from);
            let epilogue =
                Epilogue::new().activation(activation).residual(MatRef::new(&residual, m, n).unwrap());
            let out = (MatMut::new(&mut y, m, n).unwrap(), to);
            layer.forward(x, epilogue, out, &ctx, &mut Scratch::new()).unwrap();
            for (i, &y) in y.iter().enumerate().step_by(3) {
                assert_eq!(y, -11, "{isa} {activation:?}, element {i}");
            }
        }
    }
}

/// x and w times powers of two: the same bytes, as the sums show, and y times the powers, bit for bit.
#[test]
fn layers_of_bytes_take_every_magnitude_alike() {
    let (m, n, k) = (5, 33, 40);
    let number = |i: usize| ((i * 7919 % 255) as f32 - 127.0) / 128.0;
    let (x, w) = ((0..m * k).map(number).collect::<Vec<_>>(), (0..n * k).map(number).collect::<Vec<_>>());
    let times =
        |v: &[f32], n: i32| -> Vec<f32> { v.iter().map(|&v| (f64::from(v) * 2f64.powi(n)) as f32).collect() };
    for isa in isas("layers_of_bytes_take_every_magnitude_alike") {
        let ctx = serial(isa);
        let run = |x: &[f32], w: &[f32]| {
            let layer = Linear::quantize_dense(MatRef::new(w, n, k).unwrap()).unwrap().build(&ctx).unwrap();
            let (mut sums, mut y) = (vec![0i32; m * n], vec![0f32; m * n]);
            let (x, mut scratch) = (MatRef::new(x, m, k).unwrap(), Scratch::new());
            layer
                .forward(x, Epilogue::new(), MatMut::new(&mut sums, m, n).unwrap(), &ctx, &mut scratch)
                .unwrap();
            layer
                .forward(x, Epilogue::new(), MatMut::new(&mut y, m, n).unwrap(), &ctx, &mut scratch)
                .unwrap();
            (sums, y)
        };
        let (sums, y) = run(&x, &w);
        for (of_x, of_w) in [(-117, 0), (-30, 0), (-27, 3), (20, 20), (126, -40), (0, -100), (0, 126)] {
            let (got, scaled) = run(&times(&x, of_x), &times(&w, of_w));
            assert_eq!(got, sums, "{isa} 2^{of_x} x, 2^{of_w} w");
            // The products of the scales are normal in all of these but the first.
            if of_x > -117 {
                assert_eq!(scaled, times(&y, of_x + of_w), "{isa} 2^{of_x} x, 2^{of_w} w");
            }
        }
    }
}

/// Rows of zeros have the scale 1: nothing about them is subnormal.
#[test]
fn rows_and_tokens_of_zeros_have_the_scale_1() {
    let zeros = [0f32; 12];
    let x = MatRef::new(&zeros, 3, 4).unwrap();
    let symmetric = siskin::quant::Scheme::Symmetric(siskin::Element::I8);
    let ctx = Ctx::serial().unwrap();
    for params in siskin::quant::per_channel(x, symmetric, &ctx).unwrap() {
        assert_eq!(params.scale(), 1.0);
    }
    let bias = [1.5f32, -2.0, 0.0];
    for isa in isas("rows_and_tokens_of_zeros_have_the_scale_1") {
        let ctx = serial(isa);
        let layer = Linear::quantize_dense(x).unwrap().bias(&bias).build(&ctx).unwrap();
        let mut y = [9f32; 9];
        layer
            .forward(x, Epilogue::new(), MatMut::new(&mut y, 3, 3).unwrap(), &ctx, &mut Scratch::new())
            .unwrap();
        assert_eq!(y, [1.5, -2.0, 0.0, 1.5, -2.0, 0.0, 1.5, -2.0, 0.0], "{isa}");
    }
}
