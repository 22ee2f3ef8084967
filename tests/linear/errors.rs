//! Every refusal that the documentation of layers names: the kind of error, the argument it names, and y untouched.

use crate::common::{isas, serial};
use siskin::Element;
use siskin::TensorRef;
use siskin::internal::linear::{PanelLayout, pack_in, packed_in};
use siskin::linear::InputQuantization::PerToken;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Error, HeadsRef, Isa, MatMut, MatRef, Scratch, bf16};

#[derive(Debug, PartialEq)]
enum Kind {
    Shape,
    Value,
    Unsupported,
}
use Kind::{Shape, Unsupported, Value};

fn named<T: std::fmt::Debug>(result: Result<T, Error>, kind: Kind, name: &str) {
    let e = result.expect_err(name);
    let (got, argument) = match &e {
        Error::Shape { argument, .. } => (Shape, *argument),
        Error::Value { argument, .. } => (Value, *argument),
        Error::Unsupported { argument, .. } => (Unsupported, *argument),
        other => panic!("{other}"),
    };
    assert_eq!((got, argument), (kind, name), "{e}");
    assert!(e.to_string().contains(name));
}

const M: usize = 3;
const N: usize = 6;
const K: usize = 5;

fn layer(ctx: &Ctx) -> Linear {
    let w: Vec<i8> = (0..N * K).map(|i| i as i8 - 9).collect();
    Linear::dense(MatRef::new(&w, N, K).unwrap()).build(ctx).unwrap()
}

fn u8p() -> QuantParams {
    QuantParams::u8(0.5, 3).unwrap()
}

fn i8p() -> QuantParams {
    QuantParams::i8(0.5, 3).unwrap()
}

/// Calls with every output; each must fail alike and leave y as it was.
fn refused(layer: &Linear, x: LinearInput<'_>, e: Epilogue<'_>, ctx: &Ctx, kind: Kind, name: &str) {
    let s = &mut Scratch::new();
    macro_rules! untouched {
        (@out $y:expr) => { LinearOutput::from($y) };
        (@out $y:expr, $p:expr) => { LinearOutput::from(($y, $p)) };
        ($poison:expr $(, $p:expr)?) => {{
            let mut y = [$poison; M * N];
            let out = MatMut::new(&mut y, M, N).unwrap();
            let out = untouched!(@out out $(, $p)?);
            let result = layer.forward(x, e, out, ctx, s);
            assert!(y.iter().all(|v| *v == $poison), "y was written: {name}");
            result
        }};
    }
    named(untouched!(7.5f32), kind, name);
    assert!(untouched!(bf16::ONE).is_err());
    assert!(untouched!(7u8, u8p()).is_err());
    assert!(untouched!(7i8, i8p()).is_err());
    assert!(untouched!(7i32).is_err());
    // A packed output keeps what it had.
    let mut y = PackedActivations::new();
    let old = [9u8; 4];
    let old_x = (MatRef::new(&old, 2, 2).unwrap(), u8p());
    pack_in(&mut y, old_x, (PanelLayout::KMajor, PerToken), ctx, s).unwrap();
    assert!(layer.forward(x, e, packed_in(&mut y, Some(u8p()), PanelLayout::Rows), ctx, s).is_err());
    let mut back = [0u8; 4];
    y.unpack(MatMut::new(&mut back, 2, 2).unwrap(), ctx).unwrap();
    assert_eq!(back, old);
}

#[test]
fn inputs() {
    for isa in isas("inputs") {
        let ctx = serial(isa);
        let l = layer(&ctx);
        let e = Epilogue::new();
        let bytes = [1u8; M * K];
        let signed = [1i8; M * K];
        let x = MatRef::new(&bytes, M, K).unwrap();
        let wide = [1u8; M * (K + 1)];
        refused(
            &l,
            LinearInput::from((MatRef::new(&wide, M, K + 1).unwrap(), u8p())),
            e,
            &ctx,
            Shape,
            "input",
        );
        refused(&l, LinearInput::from((x, i8p())), e, &ctx, Unsupported, "input");
        refused(
            &l,
            LinearInput::from((MatRef::new(&signed, M, K).unwrap(), u8p())),
            e,
            &ctx,
            Unsupported,
            "input",
        );
        refused(&l, LinearInput::from(&PackedActivations::new()), e, &ctx, Shape, "input");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, M * K - 1] {
                let mut f = [1f32; M * K];
                f[at] = bad;
                let h = f.map(bf16::from_f32);
                let f = LinearInput::from(MatRef::new(&f, M, K).unwrap());
                refused(&l, f, e, &ctx, Value, "x");
                let h = LinearInput::from(MatRef::new(&h, M, K).unwrap());
                refused(&l, h, e, &ctx, Value, "x");
                let mut p = PackedActivations::new();
                named(
                    pack_in(&mut p, f, (PanelLayout::KMajor4, PerToken), &ctx, &mut Scratch::new()),
                    Value,
                    "x",
                );
                assert_eq!((p.tokens(), p.features()), (0, 0), "what was in there is gone");
            }
        }
        // The widest range has a scale.
        let mut f = [0f32; M * K];
        (f[0], f[1]) = (f32::MAX, f32::MIN);
        let (f, mut y) = (MatRef::new(&f, M, K).unwrap(), [0f32; M * N]);
        l.forward(f, e, MatMut::new(&mut y, M, N).unwrap(), &ctx, &mut Scratch::new()).unwrap();
    }
}

#[test]
fn epilogues() {
    let ctx = serial(Isa::Scalar);
    let l = layer(&ctx);
    let bytes = [1u8; M * K];
    let x = LinearInput::from((MatRef::new(&bytes, M, K).unwrap(), u8p()));
    let (r, rb, ri) = ([1f32; M * N], [1u8; M * N], [1i8; M * N]);
    let e = Epilogue::new();
    let few = MatRef::new(&r[..N], 1, N).unwrap();
    refused(&l, x, e.residual(TensorRef::from(few)), &ctx, Shape, "residual");
    let turned = MatRef::new(&r, N, M).unwrap();
    refused(&l, x, e.residual(TensorRef::from(turned)), &ctx, Shape, "residual");
    let of_u8 = TensorRef::from((MatRef::new(&rb, M, N).unwrap(), i8p()));
    refused(&l, x, e.residual(of_u8), &ctx, Unsupported, "residual");
    let of_i8 = TensorRef::from((MatRef::new(&ri, M, N).unwrap(), u8p()));
    refused(&l, x, e.residual(of_i8), &ctx, Unsupported, "residual");
    for (low, high) in [(1.0, 0.5), (f32::NAN, 1.0), (0.0, f32::NAN), (f32::INFINITY, 0.0)] {
        refused(&l, x, e.activation(Activation::Clamp { low, high }), &ctx, Value, "activation");
    }
    // To the parameters of neither 8-bit output here.
    let table = silu_table(u8p(), QuantParams::u8(0.75, 3).unwrap());
    refused(&l, x, e.activation(Activation::Table(&table)), &ctx, Unsupported, "activation");
    let mut y = [7u8; M * N];
    let out = LinearOutput::from((MatMut::new(&mut y, M, N).unwrap(), u8p()));
    let result = l.forward(x, e.activation(Activation::Table(&table)), out, &ctx, &mut Scratch::new());
    named(result, Value, "activation");
    assert_eq!(y, [7; M * N]);
    // Sums have no epilogue.
    let good = TensorRef::from(MatRef::new(&r, M, N).unwrap());
    for e in [e.residual(good), e.activation(Activation::Relu), e.activation(Activation::Gelu)] {
        let mut y = [7i32; M * N];
        let out = LinearOutput::from(MatMut::new(&mut y, M, N).unwrap());
        named(l.forward(x, e, out, &ctx, &mut Scratch::new()), Unsupported, "epilogue");
        assert_eq!(y, [7; M * N]);
    }
}

#[test]
fn outputs() {
    let ctx = serial(Isa::Scalar);
    let l = layer(&ctx);
    let bytes = [1u8; M * K];
    let x = LinearInput::from((MatRef::new(&bytes, M, K).unwrap(), u8p()));
    let e = Epilogue::new();
    let s = &mut Scratch::new();
    for (rows, cols) in [(N, M), (M, N - 1), (M - 1, N), (0, N), (M, 0)] {
        let mut y = vec![7f32; rows * cols];
        let out = LinearOutput::from(MatMut::new(&mut y, rows, cols).unwrap());
        named(l.forward(x, e, out, &ctx, s), Shape, "output");
        assert!(y.iter().all(|v| *v == 7.0));
    }
    let mut y = [7u8; M * N];
    named(
        l.forward(x, e, LinearOutput::from((MatMut::new(&mut y, M, N).unwrap(), i8p())), &ctx, s),
        Unsupported,
        "output",
    );
    assert_eq!(y, [7; M * N]);
    let mut y = [7i8; M * N];
    named(
        l.forward(x, e, LinearOutput::from((MatMut::new(&mut y, M, N).unwrap(), u8p())), &ctx, s),
        Unsupported,
        "output",
    );
    assert_eq!(y, [7; M * N]);
    named(MatMut::with_stride(&mut [0u8; 10], 2, 5, 4).map(|_| ()), Shape, "stride");
    named(MatMut::with_stride(&mut [0u8; 10], 2, 5, 6).map(|_| ()), Shape, "data");
    let mut p = PackedActivations::new();
    pack_in(&mut p, x, (PanelLayout::KMajor, PerToken), &ctx, s).unwrap();
    named(p.unpack(MatMut::new(&mut [0u8; M * K], K, M).unwrap(), &ctx), Shape, "y");
    named(
        pack_in(
            &mut p,
            (MatRef::new(&bytes, M, K).unwrap(), i8p()),
            (PanelLayout::KMajor, PerToken),
            &ctx,
            s,
        ),
        Unsupported,
        "input",
    );
}

#[test]
fn another_tier() {
    let isas = isas("another_tier");
    for &built in &isas {
        let l = layer(&serial(built));
        for &called in isas.iter().filter(|&&isa| isa != built) {
            let bytes = [1u8; M * K];
            let x = LinearInput::from((MatRef::new(&bytes, M, K).unwrap(), u8p()));
            refused(&l, x, Epilogue::new(), &serial(called), Unsupported, "ctx");
        }
    }
}

#[test]
fn layers() {
    let ctx = serial(Isa::Scalar);
    let w = [1i8; N * K];
    let dense = MatRef::new(&w, N, K).unwrap();
    let sparse = Bsr::from_dense(dense, BlockShape::B4X1).unwrap();
    let ok = [1f32; N];
    for builder in [Linear::dense(dense), Linear::sparse(&sparse)] {
        assert!(builder.clone().scales(&ok).bias(&ok).build(&ctx).is_ok());
        for len in [2, N - 1] {
            named(builder.clone().scales(&ok[..len]).build(&ctx), Shape, "scales");
            named(builder.clone().zero_points(&[0; N][..len]).build(&ctx), Shape, "zero_points");
            named(builder.clone().bias(&ok[..len]).build(&ctx), Shape, "bias");
        }
        named(builder.clone().bias(&[1.0; N + 1]).build(&ctx), Shape, "bias");
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40, f32::MAX] {
            let mut scales = ok;
            scales[N - 1] = bad;
            named(builder.clone().scales(&scales).build(&ctx), Value, "scales");
            named(builder.clone().scales(&[bad]).build(&ctx), Value, "scales");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut bias = ok;
            bias[1] = bad;
            named(builder.clone().bias(&bias).build(&ctx), Value, "bias");
        }
        for bad in [-129, 128, i32::MIN, i32::MAX] {
            named(builder.clone().zero_points(&[bad]).build(&ctx), Value, "zero_points");
        }
    }
    named(Linear::sparse(&sparse).zero_points(&[1]).build(&ctx), Unsupported, "zero_points");
    assert!(Linear::sparse(&sparse).zero_points(&[0]).build(&ctx).is_ok());

    let w = vec![0i8; MAX_FEATURES + 1];
    let build = |k: usize, zero: i32| {
        Linear::dense(MatRef::new(&w[..k], 1, k).unwrap()).zero_points(&[zero]).build(&ctx)
    };
    named(build(MAX_FEATURES + 1, 0), Shape, "weights");
    named(build(MAX_FEATURES_ZERO_POINTS + 1, 1), Shape, "weights");
    assert!(build(MAX_FEATURES, 0).is_ok() && build(MAX_FEATURES_ZERO_POINTS, 1).is_ok());
    let wide = Bsr::from_dense(MatRef::new(&w, 1, w.len()).unwrap(), BlockShape::B4X1).unwrap();
    named(Linear::sparse(&wide).build(&ctx), Shape, "weights");

    for bad in [f32::NAN, f32::INFINITY] {
        let w = [1.0, bad, 0.5, 0.25];
        let dense = MatRef::new(&w, 2, 2).unwrap();
        named(Linear::quantize_dense(dense).map(|_| ()), Value, "w");
        let sparse = Bsr::from_dense(dense, BlockShape::new(1, 1).unwrap()).unwrap();
        named(Linear::quantize_sparse(&sparse).map(|_| ()), Value, "w");
    }
}

#[test]
fn parameters() {
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        named(QuantParams::u8(bad, 0), Value, "scale");
    }
    for (bad, dtype) in [(-1, Element::U8), (256, Element::U8), (128, Element::I8), (-129, Element::I8)] {
        named(QuantParams::new(1.0, bad, dtype), Value, "zero_point");
    }
}

/// Rows of no columns cost nothing to pass: sizes that overflow must be refused, not computed.
#[cfg(target_pointer_width = "64")] // Sizes of 64 bits.
#[test]
fn sizes_that_overflow() {
    let ctx = serial(Isa::Scalar);
    let none: [u8; 0] = [];
    for rows in [usize::MAX, usize::MAX / 2, usize::MAX / 256, 1 << 56] {
        let x = MatRef::new(&none, rows, 0).unwrap();
        let x = LinearInput::from((x, u8p()));
        let s = &mut Scratch::new();
        for layout in [PanelLayout::Rows, PanelLayout::KMajor, PanelLayout::KMajor4] {
            named(pack_in(&mut PackedActivations::new(), x, (layout, PerToken), &ctx, s), Shape, "x");
        }
        let l = Linear::dense::<i8>(MatRef::new(&[], 0, 0).unwrap()).build(&ctx).unwrap();
        let y = LinearOutput::from(MatMut::<i32>::new(&mut [], rows, 0).unwrap());
        named(l.forward(x, Epilogue::new(), y, &ctx, s), Shape, "x");
        // Enough columns of y would need memory; a packed one has none yet.
        let l = Linear::dense::<i8>(MatRef::new(&[], 3, 0).unwrap()).build(&ctx).unwrap();
        let y = &mut PackedActivations::new();
        let y = packed_in(y, Some(u8p()), PanelLayout::KMajor);
        named(l.forward(x, Epilogue::new(), y, &ctx, s), Shape, "x");
    }
}

/// Bytes of heads with a quantizer each are no matrix: one scale could not stand for all.
#[test]
fn quantizers_by_head() {
    let ctx = serial(Isa::Scalar);
    let w: Vec<i8> = (0..N * 4).map(|i| i as i8 - 9).collect();
    let l = Linear::dense(MatRef::new(&w, N, 4).unwrap()).build(&ctx).unwrap();
    let (bytes, e) = ([5u8; M * N], Epilogue::new());
    let heads = |all| TensorRef::from((HeadsRef::new(&bytes[..M * 4], M, 2, 2).unwrap(), all));
    let residual = |all| TensorRef::from((HeadsRef::new(&bytes, M, 2, N / 2).unwrap(), all));
    let other = QuantParams::u8(0.25, 3).unwrap();
    let (differ, equal) = ([u8p(), other], [u8p(); 2]);
    refused(&l, heads(&differ[..]).into(), e, &ctx, Unsupported, "input");
    refused(&l, heads(&equal[..]).into(), e.residual(residual(&differ[..])), &ctx, Unsupported, "residual");
    // Those that are alike are one.
    let x = LinearInput::from((MatRef::new(&bytes[..M * 4], M, 4).unwrap(), u8p()));
    let plain = e.residual((MatRef::new(&bytes, M, N).unwrap(), u8p()));
    let calls = [(x, plain), (heads(&equal[..]).into(), e.residual(residual(&equal[..])))];
    let [one, each] = calls.map(|(x, e)| {
        let mut y = [0f32; M * N];
        l.forward(x, e, MatMut::new(&mut y, M, N).unwrap(), &ctx, &mut Scratch::new()).unwrap();
        y
    });
    assert_eq!(one, each);
    // No heads have no quantizer.
    let nothing = Linear::dense::<i8>(MatRef::new(&[], N, 0).unwrap()).build(&ctx).unwrap();
    let x = TensorRef::from((HeadsRef::<u8>::new(&[], M, 0, 7).unwrap(), &[][..]));
    refused(&nothing, x.into(), e, &ctx, Unsupported, "input");
}

/// Sizes of which only the product is small.
#[cfg(target_pointer_width = "64")] // Sizes of 64 bits.
#[test]
fn sizes_of_nothing() {
    let ctx = serial(Isa::Scalar);
    let s = &mut Scratch::new();
    let none: [f32; 0] = [];
    let many = HeadsRef::new(&none, 0, 1 << 40, 1 << 40).unwrap();
    refused(&layer(&ctx), many.into(), Epilogue::new(), &ctx, Shape, "input");
    // Scales of tokens without features.
    let x = MatRef::new(&none, 1 << 48, 0).unwrap();
    for block in [None, Some(BlockShape::B4X1), Some(BlockShape::new(4, 4).unwrap())] {
        for n in [0, 4] {
            let w = MatRef::new(&[], n, 0).unwrap();
            let l = match block {
                None => Linear::dense::<i8>(w).build(&ctx).unwrap(),
                Some(block) => Linear::sparse(&Bsr::from_dense(w, block).unwrap()).build(&ctx).unwrap(),
            };
            named(l.pack(x, &mut PackedActivations::new(), &ctx, s), Shape, "x");
            let y = &mut PackedActivations::new();
            let y = packed_in(y, Some(u8p()), PanelLayout::KMajor);
            named(l.forward(x, Epilogue::new(), y, &ctx, s), Shape, "x");
        }
    }
}
