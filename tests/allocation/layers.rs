//! Layers, and activations that are packed for them.

use super::allocations;
use crate::common::{BLOCKS, Manner, Rng, cases, custom, isas, serial};
use siskin::internal::linear::{PanelLayout, pack_in, packed_in};
use siskin::linear::InputQuantization::{PerToken, Static};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// A layer that quantizes floats token by token, and by each of two quantizers.
fn layers(b: Option<(usize, usize)>, w: &[i8], n: usize, k: usize, zero: &[i32], ctx: &Ctx) -> [Linear; 3] {
    let dense = MatRef::new(w, n, k).unwrap();
    let (p, pi) = (QuantParams::u8(0.1, 100).unwrap(), QuantParams::i8(0.1, 10).unwrap());
    [PerToken, Static(p), Static(pi)].map(|how| match b {
        None => Linear::dense(dense).zero_points(zero).input_quantization(how).build(ctx).unwrap(),
        Some((r, c)) => {
            let w = Bsr::from_dense(dense, BlockShape::new(r, c).unwrap()).unwrap();
            Linear::sparse(&w).input_quantization(how).build(ctx).unwrap()
        }
    })
}

#[test]
fn the_second_call_allocates_nothing() {
    let (n, k) = (70, 45);
    let mut r = Rng::new(1);
    let w = r.signed(n * k);
    let p = QuantParams::u8(0.1, 100).unwrap();
    let pi = QuantParams::i8(0.1, 10).unwrap();
    let layouts = [PanelLayout::Rows, PanelLayout::KMajor, PanelLayout::KMajor4];
    for isa in isas("the_second_call_allocates_nothing") {
        let ctx = serial(isa);
        let with_zeros = BLOCKS.into_iter().map(|b| (b, vec![])).chain([(None, vec![5])]);
        for (b, zero) in with_zeros {
            let layers = layers(b, &w, n, k, &zero, &ctx);
            for m in [1, 20, 64, 130] {
                let (bytes, signed) = (r.bytes(m * k), r.signed(m * k));
                let floats: Vec<f32> = (0..m * k).map(|_| r.float(-3.0, 3.0)).collect();
                let bf16s: Vec<bf16> = floats.iter().map(|&v| bf16::from_f32(v)).collect();
                let u8s = LinearInput::from((MatRef::new(&bytes, m, k).unwrap(), p));
                let f = MatRef::new(&floats, m, k).unwrap();
                let h = MatRef::new(&bf16s, m, k).unwrap();
                let mut scratch = Scratch::new();
                let packed: Vec<PackedActivations> = layouts
                    .iter()
                    .map(|&layout| {
                        let mut x = PackedActivations::new();
                        pack_in(&mut x, u8s, (layout, PerToken), &ctx, &mut scratch).unwrap();
                        for input in [u8s, LinearInput::from(f)] {
                            pack_in(&mut x, input, (layout, PerToken), &ctx, &mut scratch).unwrap();
                            pack_in(&mut x, input, (layout, PerToken), &ctx, &mut scratch).unwrap();
                            let n = allocations(|| {
                                pack_in(&mut x, input, (layout, PerToken), &ctx, &mut scratch).unwrap()
                            });
                            assert_eq!(n, 0, "{isa} pack {layout:?} m={m}");
                        }
                        x
                    })
                    .collect();
                let inputs = [
                    u8s,
                    LinearInput::from((MatRef::new(&signed, m, k).unwrap(), pi)),
                    LinearInput::from(f),
                    LinearInput::from(h),
                    LinearInput::from(f),
                    LinearInput::from(h),
                    LinearInput::from(&packed[0]),
                    LinearInput::from(&packed[1]),
                    LinearInput::from(&packed[2]),
                ];
                let (mut y32, mut yf, mut yh) =
                    (vec![0i32; m * n], vec![0f32; m * n], vec![bf16::ZERO; m * n]);
                let (mut y8, mut yi) = (vec![0u8; m * n], vec![0i8; m * n]);
                let mut yp = PackedActivations::new();
                for (i, x) in inputs.into_iter().enumerate() {
                    let layer = &layers[[0, 0, 0, 0, 1, 2, 0, 0, 0][i]];
                    let e = Epilogue::new().activation(Activation::Gelu);
                    let mut scratch = Scratch::new();
                    for out in 0..8 {
                        let mut call = || {
                            let y = match out {
                                0 => LinearOutput::from(MatMut::new(&mut y32, m, n).unwrap()),
                                1 => LinearOutput::from(MatMut::new(&mut yf, m, n).unwrap()),
                                2 => LinearOutput::from(MatMut::new(&mut yh, m, n).unwrap()),
                                3 => LinearOutput::from((MatMut::new(&mut y8, m, n).unwrap(), p)),
                                4 => LinearOutput::from((MatMut::new(&mut yi, m, n).unwrap(), pi)),
                                layout => packed_in(&mut yp, Some(p), layouts[layout - 5]),
                            };
                            let e = if out == 0 { Epilogue::new() } else { e };
                            layer.forward(x, e, y, &ctx, &mut scratch).unwrap();
                        };
                        call();
                        let n = allocations(call);
                        assert_eq!(n, 0, "{isa} {b:?} m={m} input {i} output {out}");
                    }
                }
            }
        }
    }
}

/// Rows whose columns reach beyond 16 bits are two groups, added in memory.
#[test]
fn split_rows_allocate_nothing() {
    let (n, k, m) = (8, 65_700, 3);
    let mut r = Rng::new(2);
    let mut w = vec![0i8; n * k];
    for f in 0..n {
        (w[f * k], w[f * k + k - 1]) = (1, 2);
    }
    let x = r.bytes(m * k);
    for isa in isas("split_rows_allocate_nothing") {
        let ctx = serial(isa);
        let [layer, ..] = layers(Some((4, 1)), &w, n, k, &[], &ctx);
        let mut scratch = Scratch::new();
        let mut y = vec![0i32; m * n];
        let mut call = || {
            let x = LinearInput::from((MatRef::new(&x, m, k).unwrap(), QuantParams::u8(1.0, 9).unwrap()));
            let y = LinearOutput::from(MatMut::new(&mut y, m, n).unwrap());
            layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
        };
        call();
        assert_eq!(allocations(call), 0, "{isa}");
    }
}

/// Layers of floats: every type of weights, x and y, in rows and packed.
#[test]
fn floats_allocate_nothing() {
    let (n, k) = (70, 45);
    let mut r = Rng::new(3);
    let w = r.signed(n * k);
    let real: Vec<f32> = w.iter().map(|&w| f32::from(w) / 64.0).collect();
    let bf: Vec<bf16> = real.iter().map(|&v| bf16::from_f32(v)).collect();
    let hf: Vec<f16> = real.iter().map(|&v| f16::from_f32(v)).collect();
    fn of<T: Weight>(w: &[T], (n, k): (usize, usize), b: Option<(usize, usize)>, ctx: &Ctx) -> Linear {
        let w = MatRef::new(w, n, k).unwrap();
        match b {
            None => Linear::dense(w).build(ctx).unwrap(),
            Some((r, c)) => Linear::sparse(&Bsr::from_dense(w, BlockShape::new(r, c).unwrap()).unwrap())
                .build(ctx)
                .unwrap(),
        }
    }
    let groups = vec![0.5; n * 2];
    for isa in isas("floats_allocate_nothing") {
        let ctx = serial(isa);
        let dense = || Linear::dense(MatRef::new(&w, n, k).unwrap());
        let mut layers = vec![
            dense().weight_only().build(&ctx).unwrap(),
            dense().group_scales(32, &groups).build(&ctx).unwrap(),
        ];
        for block in [BlockShape::B4X1, BlockShape::B1X4] {
            let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block).unwrap();
            layers.push(Linear::sparse(&bsr).weight_only().build(&ctx).unwrap());
            layers.push(Linear::sparse(&bsr).group_scales(32, &groups).build(&ctx).unwrap());
        }
        for b in BLOCKS {
            layers.push(of(&real, (n, k), b, &ctx));
            layers.push(of(&bf, (n, k), b, &ctx));
            layers.push(of(&hf, (n, k), b, &ctx));
        }
        let some = cases(layers.len() as u32) as usize;
        for (i, layer) in layers.iter().enumerate().step_by(layers.len().div_ceil(some)) {
            for m in [1, 20, 33] {
                let x: Vec<f32> = (0..m * k).map(|_| r.float(-3.0, 3.0)).collect();
                let xb: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
                let xh: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
                let f = LinearInput::from(MatRef::new(&x, m, k).unwrap());
                let mut scratch = Scratch::new();
                let mut packed = PackedActivations::new();
                layer.pack(f, &mut packed, &ctx, &mut scratch).unwrap();
                let again = allocations(|| layer.pack(f, &mut packed, &ctx, &mut scratch).unwrap());
                assert_eq!(again, 0, "{isa} layer {i} pack m={m}");
                let inputs = [
                    f,
                    LinearInput::from(MatRef::new(&xb, m, k).unwrap()),
                    LinearInput::from(MatRef::new(&xh, m, k).unwrap()),
                    LinearInput::from(&packed),
                ];
                let (mut yf, mut yb) = (vec![0f32; m * n], vec![bf16::ZERO; m * n]);
                let (mut yh, mut yp) = (vec![f16::ZERO; m * n], PackedActivations::new());
                for x in inputs {
                    for out in 0..7 {
                        let mut call = || {
                            let y = match out {
                                0 => LinearOutput::from(MatMut::new(&mut yf, m, n).unwrap()),
                                1 => LinearOutput::from(MatMut::new(&mut yb, m, n).unwrap()),
                                2 => LinearOutput::from(MatMut::new(&mut yh, m, n).unwrap()),
                                3 => packed_in(&mut yp, None, PanelLayout::F32Rows),
                                4 => packed_in(&mut yp, None, PanelLayout::F32KMajor),
                                5 => packed_in(&mut yp, None, PanelLayout::Bf16Rows),
                                _ => packed_in(&mut yp, None, PanelLayout::Bf16KMajor2),
                            };
                            layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                        };
                        call();
                        assert_eq!(allocations(call), 0, "{isa} layer {i} m={m} output {out}");
                    }
                }
            }
        }
    }
}

/// A scratch that has seen the most tokens of a kind of call has room for fewer, on one thread and on several.
#[test]
fn fewer_tokens_need_no_more() {
    let (n, k, most) = (330, 130, 300);
    let mut r = Rng::new(9);
    let w = r.signed(n * k);
    let real: Vec<f32> = w.iter().map(|&w| f32::from(w) / 64.0).collect();
    let half: Vec<f16> = real.iter().map(|&v| f16::from_f32(v)).collect();
    let x: Vec<f32> = (0..most * k).map(|_| r.float(-3.0, 3.0)).collect();
    let bytes = r.bytes(most * k);
    let p = QuantParams::u8(0.1, 100).unwrap();
    fn sparse<T: Weight>(w: &[T], (n, k): (usize, usize), block: (usize, usize)) -> Bsr<T> {
        let block = BlockShape::new(block.0, block.1).unwrap();
        Bsr::from_dense(MatRef::new(w, n, k).unwrap(), block).unwrap()
    }
    let mut y = vec![0f32; most * n];
    let isas = isas("fewer_tokens_need_no_more");
    // Each tier on one thread, the best on several.
    let best = isas[isas.len() - 1];
    let several = [3, 16].map(|threads| custom(best, threads, Manner::Backwards));
    for ctx in isas.into_iter().map(serial).chain(several) {
        let mut layers = vec![
            Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap(),
            Linear::dense(MatRef::new(&half, n, k).unwrap()).build(&ctx).unwrap(),
        ];
        for block in [(4, 1), (1, 4), (4, 4)] {
            layers.push(Linear::sparse(&sparse(&w, (n, k), block)).build(&ctx).unwrap());
            layers.push(Linear::sparse(&sparse(&real, (n, k), block)).build(&ctx).unwrap());
            layers.push(Linear::sparse(&sparse(&half, (n, k), block)).build(&ctx).unwrap());
        }
        for (i, layer) in layers.iter().enumerate() {
            let mut packed = PackedActivations::new();
            for input in 0..3 {
                for to in 0..2 {
                    let (mut scratch, mut yp, mut held) = (Scratch::new(), PackedActivations::new(), 0);
                    for m in [most, 299, 256, 193, 129, 128, 65, 64, 33, 32, 17, 2, 1] {
                        let f = MatRef::new(&x[..m * k], m, k).unwrap();
                        let input = match input {
                            0 => LinearInput::from(f),
                            // Layers of floats have no bytes: floats once more.
                            1 if layer.pack(f, &mut packed, &ctx, &mut Scratch::new()).is_ok() => {
                                LinearInput::from(&packed)
                            }
                            _ if i % 3 == 2 || i == 0 => {
                                LinearInput::from((MatRef::new(&bytes[..m * k], m, k).unwrap(), p))
                            }
                            _ => LinearInput::from(f),
                        };
                        let y = match to {
                            0 => LinearOutput::from(MatMut::new(&mut y[..m * n], m, n).unwrap()),
                            _ => packed_in(&mut yp, Some(p), PanelLayout::KMajor4),
                        };
                        layer.forward(input, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                        if m == most {
                            held = scratch.capacity();
                        }
                        let case =
                            format!("{} on {} threads, layer {i}, {m} tokens", ctx.isa(), ctx.threads());
                        assert_eq!(scratch.capacity(), held, "{case}");
                    }
                }
            }
        }
    }
}

/// So many tokens that there are more pieces than a few for each thread: a remainder by threads is shared out in another way.
#[test]
fn fewer_of_many_tokens_need_no_more() {
    let (n, k, most) = (64, 48, 2000);
    let mut r = Rng::new(11);
    let real: Vec<f32> = (0..n * k).map(|_| r.float(-1.0, 1.0)).collect();
    let x: Vec<f32> = (0..most * k).map(|_| r.float(-3.0, 3.0)).collect();
    let mut y = vec![0f32; most * n];
    for isa in isas("fewer_of_many_tokens_need_no_more") {
        let ctx = custom(isa, 2, Manner::Backwards);
        let dense = MatRef::new(&real, n, k).unwrap();
        let sparse = Bsr::from_dense(dense, BlockShape::B4X1).unwrap();
        for layer in
            [Linear::quantize_sparse(&sparse).unwrap().build(&ctx), Linear::sparse(&sparse).build(&ctx)]
        {
            let (layer, mut scratch, mut held) = (layer.unwrap(), Scratch::new(), 0);
            for m in [most, 1999, 1984, 1930, 1920, 1400, 1281, 1280, 1217, 1025, 1024, 513, 64, 1] {
                let x = MatRef::new(&x[..m * k], m, k).unwrap();
                let y = MatMut::new(&mut y[..m * n], m, n).unwrap();
                layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                if m == most {
                    held = scratch.capacity();
                }
                assert_eq!(scratch.capacity(), held, "{isa}, {m} tokens");
            }
        }
    }
}

/// Packed activations have room for what is as large as the largest before, quantized by token or not, and for less; what is unpacked
/// needs none.
#[test]
fn packed_activations_are_filled_again() {
    let (k, most) = (45, 130);
    let mut r = Rng::new(10);
    let x: Vec<f32> = (0..most * k).map(|_| r.float(-3.0, 3.0)).collect();
    let wb: Vec<bf16> = x[..k * k].iter().map(|&v| bf16::from_f32(v)).collect();
    let w = r.signed(k * k);
    let p = QuantParams::u8(0.1, 100).unwrap();
    let (mut floats, mut bytes) = (vec![0f32; most * k], vec![0u8; most * k]);
    for isa in isas("packed_activations_are_filled_again") {
        let ctx = serial(isa);
        for b in BLOCKS.into_iter().chain([None]) {
            let [by_token, by_call, _] = layers(b, &w, k, k, &[], &ctx);
            let dense = MatRef::new(&wb, k, k).unwrap();
            let real = match b {
                None => Linear::dense(dense).build(&ctx).unwrap(),
                Some((r, c)) => {
                    let w = Bsr::from_dense(dense, BlockShape::new(r, c).unwrap()).unwrap();
                    Linear::sparse(&w).build(&ctx).unwrap()
                }
            };
            let (mut scratch, mut quantized, mut plain) =
                (Scratch::new(), PackedActivations::new(), PackedActivations::new());
            let mut fill = |m: usize, way: usize| {
                let x = MatRef::new(&x[..m * k], m, k).unwrap();
                let e = Epilogue::new();
                match way {
                    0 => by_call.pack(x, &mut quantized, &ctx, &mut scratch).unwrap(),
                    1 => by_token.pack(x, &mut quantized, &ctx, &mut scratch).unwrap(),
                    2 => {
                        let y = LinearOutput::packed(&mut quantized, p, &by_token);
                        by_token.forward(x, e, y, &ctx, &mut scratch).unwrap();
                    }
                    3 => real.pack(x, &mut plain, &ctx, &mut scratch).unwrap(),
                    4 => {
                        let y = LinearOutput::packed_floats(&mut plain, &real);
                        real.forward(x, e, y, &ctx, &mut scratch).unwrap();
                    }
                    5 => quantized.unpack(MatMut::new(&mut bytes[..m * k], m, k).unwrap(), &ctx).unwrap(),
                    _ => plain.unpack_f32(MatMut::new(&mut floats[..m * k], m, k).unwrap()).unwrap(),
                }
            };
            // Quantized by token last: that has scales for each, which have room before.
            for way in [3, 0, 4] {
                fill(most, way);
            }
            for m in [most, 64, 17, 1, 33, most] {
                for way in [1, 5, 0, 2, 3, 6, 4, 5, 6] {
                    let n = allocations(|| fill(m, way));
                    // The first round grows the scratch, which knows no scales of tokens yet.
                    let first = m == most && matches!(way, 1 | 2);
                    assert!(n == 0 || first, "{isa} {b:?}, way {way} of {m}: {n}");
                }
            }
        }
    }
}
