//! Attention: prefill and decode.

use super::allocations;
use crate::common::attention::{Case, Params, Tensor, Type};
use crate::common::{Manner, Rng, custom, isas, serial};
use siskin::Scratch;
use siskin::attention::AttentionInputs;

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

/// Once the most queries attended to the most keys, calls of any other shape need no more, on one thread and on several.
#[test]
fn fewer_queries_and_keys_need_no_more() {
    let mut r = Rng::new(6);
    let shapes: [&[(usize, usize)]; 2] = [
        &[
            (100, 700),
            (1, 700),
            (8, 700),
            (16, 65),
            (100, 5),
            (1, 1),
            (17, 600),
            (70, 70),
            (2, 700),
            (100, 700),
        ],
        // So few queries that many keys are read where they lie, and few are packed.
        &[(8, 700), (8, 512), (8, 64), (4, 600), (4, 512), (2, 256), (2, 16), (1, 700), (1, 16), (8, 700)],
    ];
    let isas = isas("fewer_queries_and_keys_need_no_more");
    for ctx in isas.into_iter().flat_map(|isa| [serial(isa), custom(isa, 3, Manner::Backwards)]) {
        for dtype in [Type::F32, Type::F16, Type::Bf16, Type::U8] {
            for (clipped, shapes) in [None, Some((-0.01, 1.0))]
                .into_iter()
                .flat_map(|clipped| shapes.map(|shapes| (clipped, shapes)))
            {
                let (mut scratch, mut held) = (Scratch::new(), 0);
                for (i, &(q_len, kv_len)) in shapes.iter().enumerate() {
                    let mut case = Case::plain(r.next(), 4, 24, q_len, kv_len);
                    (case.kv_heads, case.clipped) = (2, clipped);
                    case.types = [dtype, dtype, dtype, Type::F32];
                    let mut d = case.data();
                    // A quantizer for each head would be another layer.
                    d.params.iter_mut().for_each(|params| params.each().truncate(1));
                    let (q_shape, kv_shape) = ((q_len, 4, 24), (kv_len, 2, 24));
                    let place = d.case.places[0];
                    let q = Tensor::new(dtype, &d.q, q_shape, place, 0.0);
                    let k = Tensor::new(dtype, &d.k, kv_shape, place, 0.0);
                    let v = Tensor::new(dtype, &d.v, kv_shape, place, 0.0);
                    let mut y = Tensor::new(Type::F32, &d.q, q_shape, place, 0.0);
                    let (q, k, v) = (q.input(&d.params[0]), k.input(&d.params[1]), v.input(&d.params[2]));
                    d.with_call(|attention, call| {
                        let y = y.output(d.out);
                        attention
                            .forward(AttentionInputs::new(q, k, v), call, y, &ctx, &mut scratch)
                            .unwrap();
                    });
                    if i == 0 {
                        held = scratch.capacity();
                    }
                    let case = format!("{}, {} threads, {dtype:?} {clipped:?}", ctx.isa(), ctx.threads());
                    assert_eq!(scratch.capacity(), held, "{case}: {q_len} queries, {kv_len} keys");
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
            let (q, k, v) = (q.input(Params::NONE), k.input(Params::NONE), v.input(Params::NONE));
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
