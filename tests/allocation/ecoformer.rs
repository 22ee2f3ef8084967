//! Codes, hashes, linear attention and its streams.

use super::allocations;
use crate::common::{Manner, Rng, custom, isas, serial};
use siskin::ecoformer::{
    Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Sequences, Stream,
};
use siskin::quant::QuantParams;
use siskin::{HeadsMut, HeadsRef, MatMut, MatRef, Scratch, TensorRef};

#[test]
fn codes_allocate_nothing() {
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

/// A scratch that has seen the most tokens and codes has room for fewer, on one thread and on several.
#[test]
fn fewer_tokens_and_codes_need_no_more() {
    let mut r = Rng::new(12);
    let (heads, dim, anchors, bits, tokens) = (3, 24, 25, 70, 1500);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| r.float(-1.0, 1.0)).collect() };
    let (anchor, projection) = (floats(heads * anchors * dim), floats(heads * bits * anchors));
    let hash = KernelHash::from_parts(heads, dim, anchor, floats(heads * anchors), projection);
    let hash = hash.and_then(|hash| hash.with_sigma(vec![1.0; heads])).unwrap();
    let x = floats(tokens * heads * dim);
    let mut out = vec![0.0; x.len()];
    let isas = isas("fewer_tokens_and_codes_need_no_more");
    // Each tier on one thread, the best on several.
    let best = isas[isas.len() - 1];
    let several = [3, 16].map(|threads| custom(best, threads, Manner::Backwards));
    for ctx in isas.into_iter().map(serial).chain(several) {
        // Encoding, the three kinds of attention, and comparing codes.
        for kind in 0..5usize {
            let (mut codes, mut scratch, mut held) =
                (BitCodes::with_capacity(0, 1).unwrap(), Scratch::new(), None);
            for n in [tokens, 1499, 1025, 1024, 700, 513, 512, 300, 129, 64, 63, 17, 2, 1] {
                let shape = n * heads * dim;
                let x = HeadsRef::new(&x[..shape], n, heads, dim).unwrap();
                let cu_seqlens = [0, n as i32 / 3, n as i32];
                let sequences = Sequences::own_packed(&cu_seqlens);
                let own = if kind == 0 { &mut scratch } else { &mut Scratch::new() };
                hash.encode(x, &sequences, Bandwidth::Sequence, &mut codes, &ctx, own).unwrap();
                let attention = LinearAttention::new(heads, bits).unwrap();
                let consistent = attention.numerator(Numerator::Consistent);
                if let Some(attention) =
                    [attention, consistent, consistent.causal()].get(kind.wrapping_sub(1))
                {
                    let out = HeadsMut::new(&mut out[..shape], n, heads, dim).unwrap();
                    let inputs = LinearAttentionInputs::new(&codes, &codes, TensorRef::from(x));
                    attention.forward(inputs, &sequences, out, &ctx, &mut scratch).unwrap();
                }
                if kind == 4 {
                    let (mut nearest, mut distances) = (vec![0u32; 3 * n], vec![0u16; 3 * n]);
                    let some = BitCodes::from_words(codes.words()[..2 * n].to_vec(), bits).unwrap();
                    let (to, at) = (MatMut::new(&mut nearest, n, 3), MatMut::new(&mut distances, n, 3));
                    some.nearest(&codes, to.unwrap(), at.unwrap(), &ctx, &mut scratch).unwrap();
                }
                let held = *held.get_or_insert(scratch.capacity());
                let case = format!("{}, {} threads, kind {kind}, {n} tokens", ctx.isa(), ctx.threads());
                assert_eq!(scratch.capacity(), held, "{case}");
            }
        }
    }
}

/// Not even the first token of a stream.
#[test]
fn streams_allocate_nothing() {
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
