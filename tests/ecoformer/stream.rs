//! Tokens that come one by one: the context of each is that of causal attention over all, bit for bit.

use crate::common::ecoformer::{random_codes, some_codes};
use crate::common::*;
use siskin::Element;
use siskin::attention::{HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{BitCodes, LinearAttention, LinearAttentionInputs, Numerator, Stream};
use siskin::quant::QuantParams;
use siskin::{Error, Scratch, TensorRef, bf16};

#[test]
fn a_stream_is_causal_attention() {
    let isas = isas("a_stream_is_causal_attention");
    let mut r = Rng::new(601);
    for round in 0..cases(12) {
        let isa = isas[round as usize % isas.len()];
        let (heads, dim) = (1 + r.below(2), [1, 16, 20, 64][r.below(4)]);
        let bits = [1, 6, 16, 70][r.below(4)];
        let tokens = [1, 31, 32, 33, 100, 511, 512, 513, 600, 1100][r.below(10)];
        let floats: Vec<f32> = (0..tokens * heads * dim).map(|_| r.float(-2.0, 2.0)).collect();
        let bfloats: Vec<bf16> = floats.iter().map(|&x| bf16::from_f32(x)).collect();
        let bytes = r.bytes(tokens * heads * dim);
        let params = QuantParams::new(0.02, 90, Element::U8).unwrap();
        let input = |first: usize, last: usize| {
            let own = first * heads * dim..last * heads * dim;
            let n = last - first;
            match round % 3 {
                0 => TensorRef::from(HeadsRef::new(&floats[own], n, heads, dim).unwrap()),
                1 => TensorRef::from(HeadsRef::new(&bfloats[own], n, heads, dim).unwrap()),
                _ => TensorRef::from((HeadsRef::new(&bytes[own], n, heads, dim).unwrap(), params)),
            }
        };
        let [q, k] = [(); 2].map(|()| random_codes(&mut r, tokens * heads, bits));
        let attention = LinearAttention::new(heads, bits).unwrap().numerator(Numerator::Consistent);
        let ctx = serial(isa);
        let mut want = vec![0.0; tokens * heads * dim];
        attention
            .causal()
            .forward(
                LinearAttentionInputs::new(&q, &k, input(0, tokens)),
                &Sequences::own(1, tokens),
                HeadsMut::new(&mut want, tokens, heads, dim).unwrap(),
                &ctx,
                &mut Scratch::new(),
            )
            .unwrap();
        let mut stream = Stream::new(&attention, dim).unwrap();
        for again in 0..2 {
            let mut at = 0;
            while at < tokens {
                // Several at once too: a query then meets the last of them.
                let next = (at + 1 + r.below(3) * r.below(40) * again).min(tokens);
                stream.append(&some_codes(&k, heads, at..next), input(at, next)).unwrap();
                at = next;
                assert_eq!(stream.tokens(), at);
                let mut got = vec![f32::NAN; heads * dim];
                let query = some_codes(&q, heads, at - 1..at);
                stream.query(&query, HeadsMut::new(&mut got, 1, heads, dim).unwrap(), &ctx).unwrap();
                let want = &want[(at - 1) * heads * dim..at * heads * dim];
                let same = got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa} {heads} heads of {dim}, {bits} bits, token {at} of {tokens}");
                let mut narrow = vec![bf16::NAN; heads * dim];
                stream.query(&query, HeadsMut::new(&mut narrow, 1, heads, dim).unwrap(), &ctx).unwrap();
                assert!(
                    narrow.iter().zip(want).all(|(a, b)| *a == bf16::from_f32(*b)),
                    "{isa} {heads} {dim}"
                );
            }
            stream.clear();
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let attention = LinearAttention::new(2, 5).unwrap();
    assert!(matches!(Stream::new(&attention, 4), Err(Error::Unsupported { argument: "numerator", .. })));
    let attention = attention.numerator(Numerator::Consistent);
    for dim in [0, 257] {
        assert!(matches!(Stream::new(&attention, dim), Err(Error::Value { argument: "head_dim", .. })));
    }
    // On 64 bits the last is refused by the allocator, not by a product that overflows.
    let shifts: &[u32] = if usize::BITS == 64 { &[0, 12, 14] } else { &[0, 4] };
    for heads in shifts.iter().map(|shift| usize::MAX >> shift) {
        let endless = LinearAttention::new(heads, 5).unwrap().numerator(Numerator::Consistent);
        assert!(matches!(Stream::new(&endless, 4), Err(Error::Shape { argument: "heads", .. })));
    }
    let mut stream = Stream::new(&attention, 4).unwrap();
    let (v, mut out) = ([1.0f32; 24], [7.0f32; 24]);
    let codes = |n, bits| BitCodes::from_words(vec![1; n], bits).unwrap();
    let input = |heads, dim| TensorRef::from(HeadsRef::new(&v[..heads * dim], 1, heads, dim).unwrap());
    assert!(matches!(stream.append(&codes(3, 5), input(3, 4)), Err(Error::Shape { argument: "v", .. })));
    assert!(matches!(stream.append(&codes(2, 5), input(2, 5)), Err(Error::Shape { argument: "v", .. })));
    assert!(stream.append(&codes(3, 5), input(2, 4)).is_err());
    assert!(stream.append(&codes(2, 6), input(2, 4)).is_err());
    let ctx = serial(siskin::Isa::Scalar);
    let query = |stream: &Stream, out: &mut [f32], n, bits, dim| {
        stream.query(&codes(n, bits), HeadsMut::new(out, 1, 2, dim).unwrap(), &ctx)
    };
    assert!(matches!(query(&stream, &mut out[..8], 2, 5, 4), Err(Error::Shape { argument: "stream", .. })));
    let bytes = [1u8; 8];
    let quantized = |scale| {
        let params = QuantParams::new(scale, 3, Element::U8).unwrap();
        TensorRef::from((HeadsRef::new(&bytes, 1, 2, 4).unwrap(), params))
    };
    stream.append(&codes(2, 5), quantized(0.5)).unwrap();
    assert!(matches!(stream.append(&codes(2, 5), quantized(0.25)), Err(Error::Value { argument: "v", .. })));
    assert!(matches!(stream.append(&codes(2, 5), input(2, 4)), Err(Error::Value { argument: "v", .. })));
    assert_eq!(stream.tokens(), 1);
    assert!(matches!(query(&stream, &mut out[..10], 2, 5, 5), Err(Error::Shape { argument: "out", .. })));
    assert!(query(&stream, &mut out[..8], 1, 5, 4).is_err());
    assert_eq!(out, [7.0; 24]);
    query(&stream, &mut out[..8], 2, 5, 4).unwrap();
    assert_eq!(out[..8], [-1.0; 8]);
    stream.clear();
    stream.append(&codes(2, 5), quantized(0.25)).unwrap();
}
