//! Calls of every family, each with its shapes, strides, element types and threads from a seed.

use crate::common::attention as heads;
use crate::common::ecoformer::{PLACES, Parts, Placed, cu_seqlens, floats, random_codes, some_codes};
use crate::common::{BLOCKS, Manner, Rng, custom, serial};
use crate::common::{float, layer};
use siskin::attention::{AttentionCall, Calibrator, ContextOrder, Gate, Sequences};
use siskin::ecoformer::{
    Bandwidth, BitCodes, FitOptions, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Stream,
    fit,
};
use siskin::norm::{LayerNorm, NormOutput};
use siskin::quant::{MinMax, Observer, QuantParams, Scheme};
use siskin::sparse::{BlockShape, Norm, prune};
use siskin::{Ctx, Element, HeadsMut, HeadsRef, Isa, MatMut, MatRef, Scratch, TensorRef, bf16};

/// The calling thread alone, or an executor of some threads.
fn ctx(i: usize) -> Ctx {
    match i % 4 {
        0 => serial(Isa::Scalar),
        1 => custom(Isa::Scalar, 2, Manner::Repeats),
        2 => custom(Isa::Scalar, 3, Manner::Drops),
        _ => custom(Isa::Scalar, 2, Manner::Backwards),
    }
}

fn pick<T: Copy>(r: &mut Rng, all: &[T]) -> T {
    all[r.below(all.len())]
}

#[test]
fn layers_of_bytes() {
    use crate::common::layer::{ACTS, Act, Case, INS, RESIDUALS, TOS};
    let (mut r, mut scratch) = (Rng::new(1), Scratch::new());
    for i in 0..36 {
        let case = Case {
            seed: i as u64,
            m: [1, 2, 5, 17][i % 4],
            n: 1 + r.below(9),
            k: 1 + r.below(9),
            block: BLOCKS[i % BLOCKS.len()],
            weight_zeros: r.below(2) == 0,
            input: INS[i % INS.len()],
            to: TOS[(i + i / 8) % TOS.len()],
            residual: pick(&mut r, &RESIDUALS),
            // Tables of 256 bytes take longer to make than all else; one is enough.
            act: if i == 3 { Act::TableNegate } else { ACTS[i % 6] },
        };
        check_bytes(case, &ctx(i / 4), &mut scratch);
    }
}

/// Several panels and bands, so that they are shared out among threads.
#[test]
fn layers_of_bytes_in_many_panels() {
    use crate::common::layer::{Act, Case, In, Res, To};
    use siskin::internal::linear::PanelLayout::{KMajor, KMajor4, Rows};
    let mut scratch = Scratch::new();
    let blocks = [None, Some((4, 1)), Some((1, 4)), Some((4, 4)), Some((3, 2))];
    let ends = [(In::U8, To::U8), (In::F32PerToken, To::F32), (In::I8, To::Packed(KMajor))];
    let packed = [(In::Packed(KMajor), To::Packed(KMajor4)), (In::Packed(KMajor4), To::Packed(Rows))];
    let ends = ends.into_iter().chain(packed).chain([(In::Packed(Rows), To::I8)]).cycle();
    for (i, (input, to)) in ends.take(10).enumerate() {
        let (m, n) = [(70, 3), (2, 70), (130, 1)][i % 3];
        let (seed, k, block, residual, act) = (100 + i as u64, 4, blocks[i % 5], Res::None, Act::Identity);
        let case = Case { seed, m, n, k, block, weight_zeros: false, input, to, residual, act };
        check_bytes(case, &ctx(i), &mut scratch);
    }
}

fn check_bytes(case: layer::Case, ctx: &Ctx, scratch: &mut Scratch) {
    let data = case.valid().data();
    let got = data.forward(&data.layer(ctx), (0, case.m), ctx, scratch);
    assert_eq!(got, data.expected(), "{case:?}");
}

#[test]
fn layers_of_floats() {
    let (mut r, mut scratch) = (Rng::new(2), Scratch::new());
    for i in 0..24 {
        let mut case = float::Case::random(&mut r);
        (case.n, case.k) = (1 + case.n % 9, 1 + case.k % 9);
        case.m = [1, 3, 17, 2, 5, 70][i % 6];
        // Panels of y beyond the first of tokens, and beyond the first of features.
        if let 5 | 9 | 11 = i {
            (case.packed, case.y) = (true, if i == 5 { float::Kind::F32 } else { float::Kind::Bf16 });
            case.n = if i == 9 { 70 } else { case.n };
        }
        let (data, ctx) = (case.data(), ctx(i / 4));
        let got = data.forward(&data.layer(&ctx), (0, case.m), &ctx, &mut scratch);
        let sums = (0..case.m * case.n).map(|i| (i / case.n, i % case.n));
        let want: Vec<f32> = sums.map(|(t, f)| data.finish(data.sum(t, f).0, t, f)).collect();
        assert_eq!(float::bits(&got), float::bits(&want), "{case:?}");
    }
}

#[test]
fn heads_of_attention() {
    use heads::{Case, Type};
    let (mut r, mut scratch, mut done) = (Rng::new(3), Scratch::new(), 0);
    let real = [Type::F32, Type::Bf16, Type::F16];
    // Miri takes minutes for each: one of bytes, one of floats.
    let (cases, most) = if cfg!(miri) { (2, 200) } else { (15, 1500) };
    while done < cases {
        let mut case = Case::random(&mut r);
        let work: usize = case.lengths.iter().map(|l| l.0 * l.1 * case.heads * case.head_dim).sum();
        // A decode may have more than one chunk of 512 keys; all in all it stays small.
        if work == 0 || work > most || case.kv_tokens() * case.kv_heads * case.head_dim > most {
            continue;
        }
        case.types = [(); 4].map(|()| pick(&mut r, &real));
        if done % 3 == 0 {
            case = case.bytes(&mut r);
            case.types[3] = pick(&mut r, &[Type::F32, Type::Bf16, Type::U8, Type::I8]);
        }
        let data = case.data();
        let (alone, shared) = (serial(Isa::Scalar), ctx(1 + done % 3));
        let want = data.run(&alone, &mut Scratch::new());
        assert_eq!(data.run(&shared, &mut scratch), want, "{:?}", data.case);
        done += 1;
    }
}

#[test]
fn gates_and_calibration() {
    let mut r = Rng::new(4);
    let (tokens, heads, dim) = (11, 2, 3);
    let [x, k, v, weight] = [(); 4].map(|()| floats(&mut r, tokens * heads * dim, 1.0));
    let wide = |x| MatRef::with_stride(x, tokens, heads * dim, heads * dim).unwrap();
    let all = MatRef::new(&weight[..heads * heads * dim], heads, heads * dim).unwrap();
    let gates = [
        Gate::unconditional(&[0.5, -0.5]).unwrap(),
        Gate::linear(MatRef::new(&weight[..heads * dim], heads, dim).unwrap(), &[0.1, 0.2]).unwrap(),
        Gate::all_features(all, &[0.1, 0.2]).unwrap(),
    ];
    let own = [0, 4, 4, 11];
    let sequences = Sequences::own_packed(&own);
    for gate in &gates {
        let outs = [0, 1].map(|i| {
            let mut out = vec![f32::NAN; tokens * (heads + 1)];
            let to = MatMut::with_stride(&mut out, tokens, heads, heads + 1).unwrap();
            gate.evaluate(wide(&x), &sequences, to, &ctx(i)).unwrap();
            out.retain(|gate| !gate.is_nan());
            out
        });
        assert_eq!(outs[0].len(), tokens * heads);
        assert_eq!(outs[0], outs[1]);
    }
    let attention = siskin::attention::Attention::new(heads, heads, dim).unwrap();
    let observer = MinMax::new(Scheme::Asymmetric(Element::U8));
    let mut calibrator = Calibrator::new(attention, ContextOrder::AfterGate, observer);
    let view = |x| HeadsRef::new(x, tokens, heads, dim).unwrap();
    let call = AttentionCall::new(Sequences::own(1, tokens));
    calibrator.observe(view(&x), view(&k), view(&v), &call, &ctx(1)).unwrap();
    calibrator.finish().unwrap();
}

#[test]
fn codes_and_their_distances() {
    let mut r = Rng::new(5);
    let mut scratch = Scratch::new();
    for (i, bits) in [1, 16, 17, 65].into_iter().enumerate() {
        let (n, m, k) = (1 + r.below(3), 1 + r.below(20), 2);
        let (a, b) = (random_codes(&mut r, n, bits), random_codes(&mut r, m, bits));
        let (mut distances, mut products) = (vec![0u16; n * m], vec![0i16; n * m]);
        let ctx = ctx(i);
        a.hamming(&b, MatMut::new(&mut distances, n, m).unwrap(), &ctx, &mut scratch).unwrap();
        a.inner_products(&b, MatMut::new(&mut products, n, m).unwrap(), &ctx, &mut scratch).unwrap();
        for (j, (&distance, &product)) in distances.iter().zip(&products).enumerate() {
            let (a, b) = (a.code(j / m), b.code(j % m));
            let expected: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(
                (u32::from(distance), i32::from(product)),
                (expected, bits as i32 - 2 * expected as i32)
            );
        }
        if k <= m {
            let (mut numbers, mut nearest) = (vec![0u32; n * k], vec![0u16; n * k]);
            let to = MatMut::new(&mut nearest, n, k).unwrap();
            a.nearest(&b, MatMut::new(&mut numbers, n, k).unwrap(), to, &ctx, &mut scratch).unwrap();
            for (row, first) in distances.chunks(m).zip(nearest.chunks(k)) {
                assert_eq!(row.iter().min(), first.first());
            }
        }
        let signs: Vec<f32> = a.to_signs().into_iter().map(f32::from).collect();
        assert_eq!(BitCodes::from_signs(MatRef::new(&signs, n, bits).unwrap()).unwrap().words(), a.words());
    }
}

#[test]
fn codes_of_a_hash_and_attention_by_them() {
    let mut r = Rng::new(6);
    let mut scratch = Scratch::new();
    for (i, [heads, dim, m, bits]) in [[1, 2, 3, 7], [2, 3, 2, 16], [1, 17, 2, 66]].into_iter().enumerate() {
        let hash = Parts::random(&mut r, [heads, dim, m, bits]).hash();
        let cu = cu_seqlens(&[1, 0, 1 + r.below(if i == 0 && !cfg!(miri) { 66 } else { 4 })]);
        let tokens = *cu.last().unwrap() as usize;
        let sequences = Sequences::own_packed(&cu);
        let x = Placed::new(
            &floats(&mut r, tokens * heads * dim, 1.0),
            [tokens, heads, dim],
            PLACES[i],
            f32::NAN,
        );
        let v = floats(&mut r, tokens * heads * dim, 1.0);
        let halves: Vec<bf16> = v.iter().map(|&v| bf16::from_f32(v)).collect();
        let bytes = r.bytes(v.len());
        let params = QuantParams::u8(0.02, 90).unwrap();
        let input = |tokens: std::ops::Range<usize>| {
            let (n, own) = (tokens.len(), tokens.start * heads * dim..tokens.end * heads * dim);
            match i % 3 {
                0 => TensorRef::from(HeadsRef::new(&v[own], n, heads, dim).unwrap()),
                1 => HeadsRef::new(&halves[own], n, heads, dim).unwrap().into(),
                _ => (HeadsRef::new(&bytes[own], n, heads, dim).unwrap(), params).into(),
            }
        };
        // The bandwidth of the fit, and causal attention, where a stream is to give the same.
        let causal = i > 0;
        let bandwidth = if causal { Bandwidth::Frozen } else { Bandwidth::Sequence };
        let attention = LinearAttention::new(heads, bits).unwrap().numerator(Numerator::Consistent);
        let results = [ctx(0), ctx(1 + i)].map(|ctx| {
            let mut codes = BitCodes::with_capacity(0, 1).unwrap();
            hash.encode(x.view(), &sequences, bandwidth, &mut codes, &ctx, &mut scratch).unwrap();
            let attention = if causal { attention.causal() } else { attention };
            let mut out = Placed::new(&v, [tokens, heads, dim], PLACES[i + 1], 7.0);
            let inputs = LinearAttentionInputs::new(&codes, &codes, input(0..tokens));
            attention.forward(inputs, &sequences, out.view_mut(), &ctx, &mut scratch).unwrap();
            let (out, untouched) = out.taken_out(7.0);
            assert!(untouched && out.iter().all(|x| x.is_finite()));
            (codes.words().to_vec(), out)
        });
        assert!(results[0] == results[1]);
        if !causal {
            continue;
        }
        let (codes, out) = &results[0];
        let codes = BitCodes::from_words(codes.clone(), bits).unwrap();
        let mut stream = Stream::new(&attention, dim).unwrap();
        // The first token is a sequence of its own.
        for t in 1..tokens {
            let own = some_codes(&codes, heads, t..t + 1);
            stream.append(&own, input(t..t + 1)).unwrap();
            let mut got = vec![f32::NAN; heads * dim];
            stream.query(&own, HeadsMut::new(&mut got, 1, heads, dim).unwrap(), &ctx(0)).unwrap();
            assert_eq!(got, out[t * heads * dim..(t + 1) * heads * dim]);
        }
    }
}

/// Heads side by side, of as many tokens as kernels take at once and of one more, attended to without causality.
#[test]
fn codes_of_several_heads() {
    let mut r = Rng::new(8);
    let mut scratch = Scratch::new();
    for (i, [heads, dim, bits, tokens]) in
        [[2, 17, 18, 4], [3, 5, 5, 64], [2, 3, 66, 5]].into_iter().enumerate()
    {
        let hash = Parts::random(&mut r, [heads, dim, 2, bits]).hash();
        let sequences = Sequences::own(1, tokens);
        let v = floats(&mut r, tokens * heads * dim, 1.0);
        let attention = LinearAttention::new(heads, bits).unwrap();
        for bandwidth in [Bandwidth::Frozen, Bandwidth::Sequence] {
            let x = Placed::new(&v, [tokens, heads, dim], PLACES[i % 2], f32::NAN);
            let [alone, shared] = [ctx(0), ctx(1 + i)].map(|ctx| {
                let mut codes = BitCodes::with_capacity(0, 1).unwrap();
                hash.encode(x.view(), &sequences, bandwidth, &mut codes, &ctx, &mut scratch).unwrap();
                let mut out = vec![f32::NAN; v.len()];
                let to = HeadsMut::new(&mut out, tokens, heads, dim).unwrap();
                let inputs = LinearAttentionInputs::new(&codes, &codes, x.view());
                attention.forward(inputs, &sequences, to, &ctx, &mut scratch).unwrap();
                assert!(out.iter().all(|x| x.is_finite()));
                (codes.words().to_vec(), out)
            });
            assert!(alone == shared, "{heads} heads of {dim}, {bits} bits, {tokens} tokens");
        }
    }
}

#[test]
fn a_hash_is_learned() {
    let mut r = Rng::new(7);
    let (tokens, heads, dim) = (6, 2, 3);
    let x = floats(&mut r, tokens * heads * dim, 1.0);
    let options = FitOptions::default().bits(1).anchors(2).neighbours(2).iterations(1);
    let view = HeadsRef::new(&x, tokens, heads, dim).unwrap();
    let [alone, shared] = [0, 1].map(|i| fit(&[view, view], &options, &ctx(i)).unwrap());
    assert_eq!(alone, shared);
    KernelHash::new(alone).unwrap();
}

#[test]
fn matrices_to_bytes_and_back() {
    use siskin::quant;
    let mut r = Rng::new(8);
    let (rows, cols, stride) = (3, 19, 23);
    let x = floats(&mut r, rows * stride, 3.0);
    let halves: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    let x = MatRef::with_stride(&x, rows, cols, stride).unwrap();
    let halves = MatRef::with_stride(&halves, rows, cols, stride).unwrap();
    let ctx = ctx(0);
    let params = quant::per_tensor(x, Scheme::Asymmetric(Element::U8), &ctx).unwrap();
    let each = quant::per_channel(halves, Scheme::Symmetric(Element::I8), &ctx).unwrap();
    let (mut bytes, mut signed) = (vec![7u8; rows * stride], vec![7i8; rows * stride]);
    let mut back = vec![0.0f32; rows * stride];
    let mut own = vec![params; rows];
    macro_rules! out {
        ($y:expr) => {
            MatMut::with_stride(&mut $y, rows, cols, stride).unwrap()
        };
    }
    macro_rules! bytes {
        ($y:expr) => {
            MatRef::with_stride(&$y, rows, cols, stride).unwrap()
        };
    }
    quant::quantize(x, &params, out!(bytes), &ctx).unwrap();
    quant::dequantize(bytes!(bytes), &params, out!(back), &ctx).unwrap();
    quant::quantize_rows(halves, &each, out!(signed), &ctx).unwrap();
    quant::dequantize_rows(bytes!(signed), &each, out!(back), &ctx).unwrap();
    quant::quantize_per_token(x, Scheme::Asymmetric(Element::U8), out!(bytes), &mut own, &ctx).unwrap();
    quant::dequantize_rows(bytes!(bytes), &own, out!(back), &ctx).unwrap();
    for (i, &back) in back.iter().enumerate() {
        let (r, c) = (i / stride, i % stride);
        if c < cols {
            assert!((back - x.row(r)[c]).abs() <= own[r].scale());
        } else {
            assert_eq!((bytes[i], signed[i], back), (7, 7, 0.0));
        }
    }
    let mut observer = MinMax::new(Scheme::Asymmetric(Element::U8));
    observer.observe(x.row(0)).unwrap();
    observer.params().unwrap();
    let pruned = prune::magnitude(x, BlockShape::new(2, 3).unwrap(), 0.5, Norm::L2).unwrap();
    pruned.statistics();
}

#[test]
fn layer_norms() {
    let (mut r, mut scratch) = (Rng::new(9), Scratch::new());
    // So many tokens that they are shared out.
    for (i, (m, n, stride)) in [(1, 1, 1), (3, 5, 7), (2, 33, 33), (130, 70, 71)].into_iter().enumerate() {
        let (gamma, beta, x) =
            (floats(&mut r, n, 1.0), floats(&mut r, n, 1.0), floats(&mut r, m * stride, 3.0));
        let x = MatRef::with_stride(&x, m, n, stride).unwrap();
        let norm = LayerNorm::new(&gamma, &beta, 1e-5).unwrap().with_byte_factors(&gamma).unwrap();
        let (mut y, mut bytes) = (vec![7.0; m * stride], vec![7u8; m * stride]);
        let params = QuantParams::u8(0.1, 9).unwrap();
        let mut each = vec![params; m];
        let ctx = ctx(i);
        let to = NormOutput::from(MatMut::with_stride(&mut y, m, n, stride).unwrap())
            .with_bytes((MatMut::with_stride(&mut bytes, m, n, stride).unwrap(), &mut each[..]));
        norm.forward(x, Some(x), to, &ctx, &mut scratch).unwrap();
        let to = (MatMut::with_stride(&mut bytes, m, n, stride).unwrap(), params);
        norm.forward(x, None, to, &ctx, &mut scratch).unwrap();
        let to = Some((MatMut::with_stride(&mut bytes, m, n, stride).unwrap(), &mut each[..]).into());
        let h = MatMut::with_stride(&mut y, m, n, stride).unwrap();
        norm.forward_in_place(h, Some(x), to, &ctx, &mut scratch).unwrap();
        for at in (0..m * stride).filter(|at| at % stride >= n) {
            assert_eq!((y[at], bytes[at]), (7.0, 7));
        }
    }
}
