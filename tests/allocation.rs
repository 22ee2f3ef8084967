//! The second call with the same scratch allocates nothing.

#[path = "common/attention.rs"]
mod attention;
#[path = "common/mod.rs"]
mod common;

use attention::{Case, Tensor, Type};
use common::{BLOCKS, Rng, cases, isas, serial};
use siskin::attention::AttentionInputs;
use siskin::internal::linear::{PanelLayout, pack_in, packed_in};
use siskin::linear::InputQuantization::{PerToken, Static};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: the harness has others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: the system's allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as the caller.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    f();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| {}), 0);
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))) > 0);
}

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

/// A scratch that has seen the most tokens of a kind of call has room for fewer, on one thread.
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
    for isa in isas("fewer_tokens_need_no_more") {
        let ctx = serial(isa);
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
                        assert_eq!(scratch.capacity(), held, "{isa}, layer {i}, {m} tokens");
                    }
                }
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

/// Prefill and decode, of every type, with every mask; the same scratch for all, which has grown after the first round.
#[test]
fn attention_allocates_nothing() {
    let mut r = Rng::new(4);
    for isa in isas("attention_allocates_nothing") {
        let ctx = serial(isa);
        for types in [[Type::F32; 3], [Type::F16; 3], [Type::Bf16; 3], [Type::U8; 3], [Type::I8; 3]] {
            for (q_len, kv_len) in [(1, 600), (1, 5), (3, 1100), (70, 70), (130, 65)] {
                for clipped in [None, Some((-0.01, 1.0))] {
                    let mut case = Case::plain(r.next(), 4, 40, q_len, kv_len);
                    case.lengths = vec![(q_len, kv_len); 2];
                    (case.kv_heads, case.clipped) = (2, clipped);
                    (case.causal, case.gates, case.packed) =
                        (r.below(2) == 0, r.below(2) == 0, r.below(2) == 0);
                    case.key_lengths = (r.below(2) == 0).then(|| vec![kv_len, kv_len / 2]);
                    case.bias = (r.below(2) == 0).then_some([1, 1, 1, kv_len]);
                    case.types = [types[0], types[1], types[2], Type::F32];
                    let d = case.data();
                    let (q_shape, kv_shape) = ((2 * q_len, 4, 40), (2 * kv_len, 2, 40));
                    let place = d.case.places[0];
                    let q = Tensor::new(types[0], &d.q, q_shape, place, 0.0);
                    let k = Tensor::new(types[1], &d.k, kv_shape, place, 0.0);
                    let v = Tensor::new(types[2], &d.v, kv_shape, place, 0.0);
                    let (q, k, v) = (q.input(&d.params[0]), k.input(&d.params[1]), v.input(&d.params[2]));
                    for out in [Type::F32, Type::Bf16, Type::F16, Type::U8, Type::I8] {
                        let mut scratch = Scratch::new();
                        let mut y = Tensor::new(out, &d.q, q_shape, place, 0.0);
                        let params = out.params(0.01, 100);
                        let mut n = 0;
                        for _ in 0..2 {
                            let y = y.output(params);
                            d.with_call(|attention, call| {
                                n = allocations(|| {
                                    attention
                                        .forward(AttentionInputs::new(q, k, v), call, y, &ctx, &mut scratch)
                                        .unwrap();
                                });
                            });
                        }
                        assert_eq!(n, 0, "{isa} to {out:?}: {:?}", d.case);
                    }
                }
            }
        }
    }
}

/// A cache that grows by a token a call needs no more than its largest.
#[test]
fn decoding_allocates_nothing() {
    let mut r = Rng::new(5);
    for isa in isas("decoding_allocates_nothing") {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for keys in (1..700).rev().step_by(37) {
            let mut case = Case::plain(r.next(), 2, 24, 1, keys);
            case.clipped = Some((-0.01, 1.0));
            let d = case.data();
            let (q_shape, kv_shape, place) = ((1, 2, 24), (keys, 2, 24), d.case.places[0]);
            let q = Tensor::new(Type::F32, &d.q, q_shape, place, 0.0);
            let k = Tensor::new(Type::F32, &d.k, kv_shape, place, 0.0);
            let v = Tensor::new(Type::F32, &d.v, kv_shape, place, 0.0);
            let mut y = Tensor::new(Type::F32, &d.q, q_shape, place, 0.0);
            let (q, k, v) = (q.input(&[]), k.input(&[]), v.input(&[]));
            let mut n = 0;
            d.with_call(|attention, call| {
                let y = y.output(d.out);
                n = allocations(|| {
                    attention.forward(AttentionInputs::new(q, k, v), call, y, &ctx, &mut scratch).unwrap();
                });
            });
            assert!(n == 0 || keys == 699, "{isa} {keys} keys after more");
        }
    }
}

#[test]
fn codes_allocate_nothing() {
    use siskin::ecoformer::BitCodes;
    let mut r = Rng::new(6);
    for isa in isas("codes_allocate_nothing") {
        let ctx = serial(isa);
        for bits in [16, 64, 150, 256] {
            let (y, (m, n, k)) = (r.signed(90 * bits), (40, 90, 7));
            let rows = |rows: usize| MatRef::new(&y[..rows * bits], rows, bits).unwrap();
            let b = BitCodes::from_signs(rows(n)).unwrap();
            let mut a = BitCodes::with_capacity(n, bits).unwrap();
            assert_eq!(allocations(|| a.set_signs(rows(n)).unwrap()), 0);
            assert_eq!(allocations(|| a.set_signs(rows(m)).unwrap()), 0);
            let (mut out, mut products) = (vec![0u16; m * n], vec![0i16; m * n]);
            let (mut indices, mut distances) = (vec![0u32; m * k], vec![0u16; m * k]);
            let mut scratch = Scratch::new();
            let mut calls = || {
                a.hamming(&b, MatMut::new(&mut out, m, n).unwrap(), &ctx, &mut scratch).unwrap();
                a.similarities(&b, MatMut::new(&mut out, m, n).unwrap(), &ctx, &mut scratch).unwrap();
                let to = MatMut::new(&mut products, m, n).unwrap();
                a.inner_products(&b, to, &ctx, &mut scratch).unwrap();
                let indices = MatMut::new(&mut indices, m, k).unwrap();
                let distances = MatMut::new(&mut distances, m, k).unwrap();
                a.nearest(&b, indices, distances, &ctx, &mut scratch).unwrap();
            };
            calls();
            assert_eq!(allocations(&mut calls), 0, "{isa}, {bits} bits");
        }
    }
}

/// Into the same codes and the same context; also of fewer tokens.
#[test]
fn hashes_and_linear_attention_allocate_nothing() {
    use siskin::ecoformer::{Bandwidth, BitCodes, KernelHash, LinearAttention, Numerator};
    use siskin::ecoformer::{LinearAttentionInputs, Sequences};
    use siskin::{HeadsMut, HeadsRef, TensorRef};
    let mut r = Rng::new(7);
    let (heads, dim, anchors, tokens) = (2, 24, 25, 1100);
    for isa in isas("hashes_and_linear_attention_allocate_nothing") {
        let ctx = serial(isa);
        for bits in [16, 70] {
            let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| r.float(-1.0, 1.0)).collect() };
            let (anchor, projection) = (floats(heads * anchors * dim), floats(heads * bits * anchors));
            let hash = KernelHash::from_parts(heads, dim, anchor, floats(heads * anchors), projection);
            let hash = hash.and_then(|hash| hash.with_sigma(vec![1.0; heads])).unwrap();
            let x = floats(tokens * heads * dim);
            let (bytes, params) = (vec![3u8; x.len()], QuantParams::u8(0.1, 100).unwrap());
            let mut out = vec![0.0; x.len()];
            let (mut codes, mut scratch) = (BitCodes::with_capacity(0, 1).unwrap(), Scratch::new());
            let mut calls = |cu_seqlens: &[i32]| {
                let n = *cu_seqlens.last().unwrap() as usize;
                let shape = n * heads * dim;
                let x = HeadsRef::new(&x[..shape], n, heads, dim).unwrap();
                let sequences = Sequences::own_packed(cu_seqlens);
                for bandwidth in [Bandwidth::Sequence, Bandwidth::Frozen] {
                    hash.encode(x, &sequences, bandwidth, &mut codes, &ctx, &mut scratch).unwrap();
                }
                let attention = LinearAttention::new(heads, bits).unwrap();
                let consistent = attention.numerator(Numerator::Consistent);
                for attention in [attention, consistent, consistent.causal()] {
                    let bytes = HeadsRef::new(&bytes[..shape], n, heads, dim).unwrap();
                    for v in [TensorRef::from(x), TensorRef::from((bytes, params))] {
                        let out = HeadsMut::new(&mut out[..shape], n, heads, dim).unwrap();
                        let inputs = LinearAttentionInputs::new(&codes, &codes, v);
                        attention.forward(inputs, &sequences, out, &ctx, &mut scratch).unwrap();
                    }
                }
            };
            calls(&[0, 500, 500, 1100]);
            for cu_seqlens in [&[0, 500, 500, 1100][..], &[0, 512, 1024], &[0, 1]] {
                assert_eq!(allocations(|| calls(cu_seqlens)), 0, "{isa}, {bits} bits, {cu_seqlens:?}");
            }
        }
    }
}

/// Calls of any family and any shape share a scratch: once it has seen the largest of each, it grows no more, in whatever order they
/// come.
#[test]
fn families_take_turns_at_a_scratch() {
    use siskin::attention::{Attention, AttentionCall, Clipped};
    use siskin::ecoformer::{Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs};
    use siskin::ecoformer::{Numerator, Sequences};
    use siskin::{HeadsMut, HeadsRef};
    let mut r = Rng::new(8);
    let (heads, dim, anchors, bits, most) = (2, 24, 25, 16, 700);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| r.float(-1.0, 1.0)).collect() };
    let (anchor, projection) = (floats(heads * anchors * dim), floats(heads * bits * anchors));
    let hash = KernelHash::from_parts(heads, dim, anchor, floats(heads * anchors), projection).unwrap();
    let x = floats(most * heads * dim);
    let attention = Attention::new(heads, heads, dim).unwrap().softmax(Clipped::new(-0.01, 1.0).unwrap());
    let linear = LinearAttention::new(heads, bits).unwrap().numerator(Numerator::Consistent).causal();
    let mut out = vec![0.0; x.len()];
    let mut distances = vec![0; 40 * 90];
    for isa in isas("families_take_turns_at_a_scratch") {
        let (ctx, mut scratch) = (serial(isa), Scratch::new());
        let mut codes = BitCodes::with_capacity(most * heads, bits).unwrap();
        let some = [BitCodes::from_signs(MatRef::new(&x[..40 * 64], 40, 64).unwrap()).unwrap(), {
            BitCodes::from_signs(MatRef::new(&x[..90 * 64], 90, 64).unwrap()).unwrap()
        }];
        let mut call = |which: usize, n: usize| {
            let shape = n * heads * dim;
            let x = HeadsRef::new(&x[..shape], n, heads, dim).unwrap();
            match which {
                0 => {
                    let call = AttentionCall::new(Sequences::own(1, n));
                    let inputs = AttentionInputs::new(x, x, x);
                    let out = HeadsMut::new(&mut out[..shape], n, heads, dim).unwrap();
                    attention.forward(inputs, &call, out, &ctx, &mut scratch).unwrap();
                }
                1 => {
                    let q = HeadsRef::with_strides(x.head(0, 0), 1, heads, dim, 0, 0).unwrap();
                    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 1, kv_len: n });
                    let inputs = AttentionInputs::new(q, x, x);
                    let out = HeadsMut::new(&mut out[..heads * dim], 1, heads, dim).unwrap();
                    attention.forward(inputs, &call, out, &ctx, &mut scratch).unwrap();
                }
                2 => {
                    let own = Sequences::own(1, n);
                    hash.encode(x, &own, Bandwidth::Sequence, &mut codes, &ctx, &mut scratch).unwrap();
                    let inputs = LinearAttentionInputs::new(&codes, &codes, x);
                    let out = HeadsMut::new(&mut out[..shape], n, heads, dim).unwrap();
                    linear.forward(inputs, &own, out, &ctx, &mut scratch).unwrap();
                }
                _ => {
                    let to = MatMut::new(&mut distances, 40, 90).unwrap();
                    some[0].hamming(&some[1], to, &ctx, &mut scratch).unwrap();
                }
            }
        };
        let sizes = [most, 1, 300, 65, 600];
        let mut all: Vec<_> = (0..4).flat_map(|which| sizes.map(|n| (which, n))).collect();
        all.iter().for_each(|&(which, n)| call(which, n));
        // Families, and then sizes, alternate; then both grow, and shrink.
        all.sort_by_key(|&(which, n)| (n % 7, which));
        for _ in 0..2 {
            for &(which, n) in &all {
                assert_eq!(allocations(|| call(which, n)), 0, "{isa}, {which} of {n}");
            }
            all.sort_by_key(|&(which, n)| (which % 2, n, which));
            for &(which, n) in all.iter().chain(all.iter().rev()) {
                assert_eq!(allocations(|| call(which, n)), 0, "{isa}, {which} of {n}");
            }
        }
    }
}

/// Not even the first token of a stream.
#[test]
fn streams_allocate_nothing() {
    use siskin::ecoformer::{BitCodes, LinearAttention, Numerator, Stream};
    use siskin::{HeadsMut, HeadsRef};
    let (heads, dim, bits) = (3, 20, 70);
    let attention = LinearAttention::new(heads, bits).unwrap().numerator(Numerator::Consistent);
    let code = BitCodes::from_words([5, 1].repeat(heads), bits).unwrap();
    let (v, mut out) = (vec![0.5; heads * dim], vec![0.0; heads * dim]);
    for isa in isas("streams_allocate_nothing") {
        let ctx = serial(isa);
        let mut stream = Stream::new(&attention, dim).unwrap();
        for _ in 0..2 {
            let n = allocations(|| {
                for _ in 0..600 {
                    let v = HeadsRef::new(&v, 1, heads, dim).unwrap();
                    stream.append(&code, v).unwrap();
                    let out = HeadsMut::new(&mut out, 1, heads, dim).unwrap();
                    stream.query(&code, out, &ctx).unwrap();
                }
                stream.clear();
            });
            assert_eq!(n, 0, "{isa}");
        }
    }
}
