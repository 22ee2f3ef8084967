//! Every refusal that the documentation of attention names: the kind of error, the argument it names, and the output untouched;
//! and the empty calls that are none.

use crate::common::errors::Kind::{self, Index, Shape, Unsupported, Value};
use crate::common::errors::named;
use crate::common::{isas, serial};
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{Error, Isa, MatMut, MatRef, Scratch, TensorRef, bf16, f16};

/// The largest position, and the most keys: 2^40, and 2^20 where addresses have 32 bits.
const MOST: usize = 1 << (usize::BITS / 8 * 5);

// 4 heads on 2, of 8 features; 2 sequences of 3 queries and 5 keys.
const H: usize = 4;
const KV: usize = 2;
const D: usize = 8;
const Q: usize = 6;
const K: usize = 10;

fn attention() -> Attention {
    Attention::new(H, KV, D).unwrap()
}

fn batch() -> Sequences<'static> {
    Sequences::Batch { batch: 2, q_len: 3, kv_len: 5 }
}

fn call() -> AttentionCall<'static> {
    AttentionCall::new(batch())
}

fn heads<T: siskin::ElementType>(x: &[T], tokens: usize, heads: usize, d: usize) -> HeadsRef<'_, T> {
    HeadsRef::new(&x[..tokens * heads * d], tokens, heads, d).unwrap()
}

fn floats(x: &[f32], tokens: usize, n: usize, d: usize) -> TensorRef<'_> {
    TensorRef::from(heads(x, tokens, n, d))
}

/// Calls with every output; each must fail alike and leave the context as it was.
fn refused(
    q: TensorRef<'_>,
    k: TensorRef<'_>,
    v: TensorRef<'_>,
    call: &AttentionCall<'_>,
    kind: fn() -> Kind,
    name: &str,
) {
    let ctx = serial(Isa::Scalar);
    let s = &mut Scratch::new();
    macro_rules! untouched {
        ($poison:expr $(, $p:expr)?) => {{
            let mut y = [$poison; Q * H * D];
            let out = HeadsMut::new(&mut y, Q, H, D).unwrap();
            $(let out = (out, $p);)?
            named(attention().forward(AttentionInputs::new(q, k, v), call, out, &ctx, s), kind(), name);
            assert!(y.iter().all(|v| *v == $poison), "the context was written: {name}");
        }};
    }
    untouched!(7f32);
    untouched!(bf16::ONE);
    untouched!(f16::ONE);
    untouched!(7u8, u8p());
    untouched!(7i8, i8p());
}

/// A call of good tensors that must be refused.
fn refused_call(call: &AttentionCall<'_>, kind: fn() -> Kind, name: &str) {
    let x = [0.5; K * H * D];
    refused(floats(&x, Q, H, D), floats(&x, K, KV, D), floats(&x, K, KV, D), call, kind, name);
}

fn u8p() -> QuantParams {
    QuantParams::u8(0.5, 3).unwrap()
}

fn i8p() -> QuantParams {
    QuantParams::i8(0.5, 3).unwrap()
}

#[test]
fn heads_and_features() {
    for (h, kv) in [(0, 0), (0, 1), (1, 0), (3, 2), (2, 3), (1, 2), (usize::MAX, 2)] {
        named(Attention::new(h, kv, 8), Shape, "num_heads");
    }
    for d in [0, 257, usize::MAX] {
        named(Attention::new(1, 1, d), Shape, "head_dim");
    }
    for (h, kv, d) in [(1, 1, 1), (12, 1, 256), (12, 4, 64), (5, 5, 255)] {
        Attention::new(h, kv, d).unwrap();
    }
}

#[test]
fn numbers() {
    let bad = [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
    for scale in bad {
        named(attention().scale(scale), Value, "scale");
        refused_call(
            &call().quantizers(AttentionQuantizers::default().weights_scale(scale)),
            || Value,
            "weights_scale",
        );
    }
    attention().scale(f32::MIN_POSITIVE).unwrap().scale(1e38).unwrap();
    named(attention().scale(f32::MAX), Value, "scale");
    for gamma in [1e-9, 0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        named(Clipped::new(gamma, 1.0), Value, "gamma");
    }
    for zeta in [0.999, 0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        named(Clipped::new(-0.1, zeta), Value, "zeta");
    }
    for alpha in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        named(Clipped::from_alpha(alpha, 128), Value, "alpha");
    }
    named(Clipped::from_alpha(4.0, 0), Value, "max_len");
    let c = Clipped::from_alpha(12.0, 512).unwrap();
    assert_eq!((c.gamma(), c.zeta()), (-0.0234375, 1.0));
    let c = Clipped::new(-0.0, 1.0).unwrap();
    assert!(c.gamma() == 0.0 && c.gamma().is_sign_positive());
    assert_eq!(Clipped::from_alpha(0.0, 1).unwrap(), c);
}

#[test]
fn views() {
    let x = [0f32; 100];
    for (t, h, d, len) in
        [(2, 3, 4, 23), (2, 3, 4, 25), (0, 3, 4, 1), (usize::MAX, 2, 1, 2), (2, usize::MAX, 2, 0)]
    {
        named(HeadsRef::new(&x[..len], t, h, d), Shape, "data");
        named(HeadsMut::new(&mut { x }[..len], t, h, d), Shape, "data");
    }
    // The last element is number 1 * 20 + 2 * 5 + 3.
    assert!(HeadsRef::with_strides(&x[..34], 2, 3, 4, 20, 5).is_ok());
    named(HeadsRef::with_strides(&x[..33], 2, 3, 4, 20, 5), Shape, "data");
    named(HeadsMut::with_strides(&mut { x }[..33], 2, 3, 4, 20, 5), Shape, "data");
    let huge = usize::MAX / 2 + 1;
    for (ts, hs) in [(huge, 1), (1, huge), (huge, huge), (usize::MAX, 0), (huge - 1, usize::MAX / 4)] {
        named(HeadsRef::with_strides(&x, 3, 3, 4, ts, hs).map(|_| ()), Shape, "strides");
        named(HeadsMut::with_strides(&mut { x }, 3, 3, 4, ts, hs).map(|_| ()), Shape, "strides");
    }
    // What is only read may overlap; what is written may not.
    for (ts, hs) in [(0, 4), (12, 0), (0, 0), (12, 3), (11, 4), (3, 8), (4, 7), (1, 1)] {
        assert!(HeadsRef::with_strides(&x, 2, 3, 4, ts, hs).is_ok());
        named(HeadsMut::with_strides(&mut { x }, 2, 3, 4, ts, hs).map(|_| ()), Shape, "strides");
    }
    for (ts, hs) in [(12, 4), (4, 8), (13, 4), (20, 6), (4, 9), (5, 12)] {
        assert!(HeadsMut::with_strides(&mut { x }, 2, 3, 4, ts, hs).is_ok(), "{ts} {hs}");
    }
    // One token or one head has no neighbour.
    assert!(HeadsMut::with_strides(&mut { x }, 1, 3, 4, 0, 4).is_ok());
    assert!(HeadsMut::with_strides(&mut { x }, 3, 1, 4, 4, 0).is_ok());
    // As heads before tokens lie where there are no tokens.
    assert!(HeadsRef::with_strides(&x[..0], 0, 3, 4, 4, 0).is_ok());
    assert!(HeadsMut::with_strides(&mut { x }[..0], 0, 3, 4, 4, 0).is_ok(), "no tokens overlap");
}

#[test]
fn shapes() {
    let x = [0.5; 2 * K * H * D];
    let good = (floats(&x, Q, H, D), floats(&x, K, KV, D));
    for q in [floats(&x, Q, KV, D), floats(&x, Q, H, D - 1), floats(&x, Q, 1, H * D)] {
        refused(q, good.1, good.1, &call(), || Shape, "q");
    }
    for k in [floats(&x, K, H, D), floats(&x, K, KV, D + 1), floats(&x, K, 1, D)] {
        refused(good.0, k, good.1, &call(), || Shape, "k");
        refused(good.0, good.1, k, &call(), || Shape, "v");
    }
    for v in [floats(&x, K - 1, KV, D), floats(&x, K + 1, KV, D), floats(&x, 0, KV, D)] {
        refused(good.0, good.1, v, &call(), || Shape, "v");
    }
    let (ctx, s) = (serial(Isa::Scalar), &mut Scratch::new());
    for (t, h, d) in [(Q - 1, H, D), (Q + 1, H, D), (Q, H - 1, D), (Q, H, D - 1), (0, H, D), (H, Q, D)] {
        let mut y = vec![7.0; t * h * d];
        let out = HeadsMut::new(&mut y, t, h, d).unwrap();
        named(
            attention().forward(AttentionInputs::new(good.0, good.1, good.1), &call(), out, &ctx, s),
            Shape,
            "out",
        );
        assert!(y.iter().all(|y| *y == 7.0));
    }
    // Lengths that are not the tensors'.
    for (batch, q_len, kv_len) in [(2, 2, 5), (1, 3, 5), (3, 3, 5), (2, 4, 5), (0, 3, 5), (usize::MAX, 3, 5)]
    {
        refused_call(&AttentionCall::new(Sequences::Batch { batch, q_len, kv_len }), || Shape, "q");
    }
    for kv_len in [4, 6, 0, usize::MAX] {
        refused_call(&AttentionCall::new(Sequences::Batch { batch: 2, q_len: 3, kv_len }), || Shape, "k");
    }
}

#[test]
fn cumulative_lengths() {
    let (q, k) = ("cu_seqlens of q", "cu_seqlens of k");
    let packed = |q, kv| AttentionCall::new(Sequences::Packed { q, kv });
    refused_call(&packed(&[0, 6], &[0, 5, 10]), || Shape, "cu_seqlens");
    refused_call(&packed(&[], &[]), || Shape, q);
    refused_call(&packed(&[], &[0]), || Shape, "cu_seqlens");
    refused_call(&packed(&[1, 6], &[0, 10]), || Index(0), q);
    refused_call(&packed(&[-1, 6], &[0, 10]), || Index(0), q);
    refused_call(&packed(&[0, 6], &[i32::MIN, 10]), || Index(0), k);
    refused_call(&packed(&[0, 4, 3, 6], &[0, 1, 2, 10]), || Index(2), q);
    refused_call(&packed(&[0, 3, 6, 6], &[0, 11, 10, 10]), || Index(2), k);
    refused_call(&packed(&[0, -3, 6], &[0, 5, 10]), || Index(1), q);
    refused_call(&packed(&[0, 6, -1], &[0, 5, 10]), || Index(2), q);
    refused_call(&packed(&[0, 3, 7], &[0, 5, 10]), || Index(2), q);
    refused_call(&packed(&[0, 3, 5], &[0, 5, 10]), || Index(2), q);
    refused_call(&packed(&[0, 3, i32::MAX], &[0, 5, 10]), || Index(2), q);
    refused_call(&packed(&[0, 3, 6], &[0, 5, 11]), || Index(2), k);
    refused_call(&packed(&[0, 3, 6], &[0, 5, i32::MAX]), || Index(2), k);
    refused_call(&packed(&[0], &[0]), || Index(0), q);
}

#[test]
fn lengths_and_positions() {
    for n in [0, 1, 3] {
        refused_call(&call().key_lengths(&[5; 3][..n]), || Shape, "key_lengths");
        refused_call(&call().positions(&[5; 3][..n]), || Shape, "positions");
    }
    refused_call(&call().key_lengths(&[5, 6]), || Index(1), "key_lengths");
    refused_call(&call().key_lengths(&[usize::MAX, 5]), || Index(0), "key_lengths");
    let packed = AttentionCall::new(Sequences::Packed { q: &[0, 3, 6], kv: &[0, 2, 10] });
    refused_call(&packed.key_lengths(&[3, 8]), || Index(0), "key_lengths");
    refused_call(&packed.key_lengths(&[2, 9]), || Index(1), "key_lengths");
    refused_call(&call().positions(&[0, usize::MAX]), || Index(1), "positions");
    refused_call(&call().positions(&[usize::MAX / 2, 0]), || Index(0), "positions");
}

#[test]
fn masks_and_gates() {
    let ones = [1f32; 2000];
    let bias = |b, h, i, j| Bias::new(&ones[..b * h * i * j], b, h, i, j).unwrap();
    let dims = [
        (0, 1, 1, 5),
        (2, 2, 1, 5),
        (2, 3, 1, 5),
        (2, 5, 1, 5),
        (2, 8, 1, 5),
        (1, 0, 1, 5),
        (1, 1, 2, 5),
        (1, 1, 0, 5),
        (1, 1, 1, 4),
        (1, 1, 1, 1),
        (1, 1, 1, 0),
    ];
    for (b, h, i, j) in dims {
        refused_call(&call().bias(bias(b, h, i, j)), || Shape, "bias");
    }
    named(Bias::new(&ones[..7], 1, 1, 2, 4).map(|_| ()), Shape, "bias");
    named(Bias::new(&ones[..9], 1, 1, 2, 4).map(|_| ()), Shape, "bias");
    named(Bias::new(&ones, usize::MAX, 2, 1, 1).map(|_| ()), Shape, "bias");

    let live = [true; 100];
    for (rows, cols, bq, bk) in [(1, 3, 2, 2), (2, 2, 2, 2), (0, 3, 2, 2), (2, 0, 2, 2), (3, 4, 1, 1)] {
        let mask = BlockMask::new(&live[..rows * cols], rows, cols, bq, bk).unwrap();
        refused_call(&call().block_mask(mask), || Shape, "block_mask");
    }
    for (bq, bk) in [(0, 1), (1, 0), (0, 0)] {
        named(BlockMask::new(&live, 10, 10, bq, bk).map(|_| ()), Value, "block");
    }
    for (rows, cols) in [(10, 9), (11, 10), (usize::MAX, 2)] {
        named(BlockMask::new(&live, rows, cols, 1, 1).map(|_| ()), Shape, "live");
    }

    for (rows, cols) in [(Q - 1, H), (Q + 1, H), (Q, KV), (Q, H + 1), (H, Q), (0, H)] {
        let gates = MatRef::new(&ones[..rows * cols], rows, cols).unwrap();
        refused_call(&call().gates(gates), || Shape, "gates");
    }
}

#[test]
fn bytes() {
    let (f, b, i) = ([0.5f32; K * H * D], [3u8; K * H * D], [3i8; K * H * D]);
    let (fq, fk) = (floats(&f, Q, H, D), floats(&f, K, KV, D));
    let (bq, bk) =
        (TensorRef::from((heads(&b, Q, H, D), u8p())), TensorRef::from((heads(&b, K, KV, D), u8p())));
    refused(fq, bk, fk, &call(), || Unsupported, "k");
    refused(fq, fk, bk, &call(), || Unsupported, "v");
    refused(bq, fk, bk, &call(), || Unsupported, "k");
    refused(bq, bk, fk, &call(), || Unsupported, "v");
    // Parameters of the other type, or of another number of heads.
    let wrong = TensorRef::from((heads(&b, Q, H, D), i8p()));
    refused(wrong, bk, bk, &call(), || Unsupported, "q");
    let wrong = TensorRef::from((heads(&i, K, KV, D), u8p()));
    refused(bq, wrong, bk, &call(), || Unsupported, "k");
    let one = [u8p(), i8p()];
    let wrong = TensorRef::from((heads(&b, K, KV, D), HeadParams::PerHead(&one)));
    refused(bq, bk, wrong, &call(), || Unsupported, "v");
    let many = [u8p(); H + 1];
    for n in [0, 1, H + 1] {
        let wrong = TensorRef::from((heads(&b, Q, H, D), HeadParams::PerHead(&many[..n])));
        refused(wrong, bk, bk, &call(), || Shape, "q");
    }
    let wrong = TensorRef::from((heads(&b, K, KV, D), HeadParams::PerHead(&many[..H])));
    refused(bq, wrong, bk, &call(), || Shape, "k");
    // Scales of tokens: one for each, with one zero point.
    let tokens = [u8p(); Q];
    for n in [0, 1, Q - 1] {
        let wrong = TensorRef::from((heads(&b, Q, H, D), HeadParams::PerToken(&tokens[..n])));
        refused(wrong, bk, bk, &call(), || Shape, "q");
    }
    let mut tokens = [u8p(); K];
    let by_token = TensorRef::from((heads(&b, K, KV, D), HeadParams::PerToken(&tokens)));
    let one_step = call().quantizers(AttentionQuantizers::default().with_authors_weights_scale());
    refused(bq, bk, by_token, &one_step, || Unsupported, "weights_scale");
    tokens[K - 1] = QuantParams::u8(0.5, 4).unwrap();
    let wrong = TensorRef::from((heads(&b, K, KV, D), HeadParams::PerToken(&tokens)));
    refused(bq, bk, wrong, &call(), || Unsupported, "v");
    refused(bq, wrong, bk, &call(), || Unsupported, "k");
    tokens[K - 1] = i8p();
    let wrong = TensorRef::from((heads(&b, K, KV, D), HeadParams::PerToken(&tokens)));
    refused(bq, wrong, bk, &call(), || Unsupported, "k");
    // Outputs.
    let (ctx, s) = (serial(Isa::Scalar), &mut Scratch::new());
    let mut y = [7u8; Q * H * D];
    let out = (HeadsMut::new(&mut y, Q, H, D).unwrap(), i8p());
    named(attention().forward(AttentionInputs::new(bq, bk, bk), &call(), out, &ctx, s), Unsupported, "out");
    assert_eq!(y, [7; Q * H * D]);
    let mut y = [7i8; Q * H * D];
    let out = (HeadsMut::new(&mut y, Q, H, D).unwrap(), u8p());
    named(attention().forward(AttentionInputs::new(fq, fk, fk), &call(), out, &ctx, s), Unsupported, "out");
    assert_eq!(y, [7; Q * H * D]);
    // A context has no exact sums.
    let mut y = [7i32; Q * D];
    let floats = [0.5f32; Q * D];
    let x = heads(&floats, Q, 1, D);
    let one = Attention::new(1, 1, D).unwrap();
    let own = AttentionCall::new(Sequences::own(1, Q));
    let out = MatMut::new(&mut y, Q, D).unwrap();
    named(one.forward(AttentionInputs::new(x, x, x), &own, out, &ctx, s), Unsupported, "out");
    assert_eq!(y, [7; Q * D]);
}

/// The most that a call takes is no error.
#[test]
fn what_is_taken() {
    let (x, live, gates) = ([0.5f32; K * H * D], [true; 15], [1.0; Q * H]);
    let bias = [0.25; 2 * H * 3 * 6];
    for isa in isas("what_is_taken") {
        let call = call()
            .key_lengths(&[0, 5])
            .positions(&[0, MOST])
            .bias(Bias::new(&bias, 2, H, 3, 6).unwrap())
            .block_mask(BlockMask::new(&live, 3, 5, 1, 1).unwrap())
            .gates(MatRef::new(&gates, Q, H).unwrap());
        let mut y = [7.0; Q * H * D];
        let out = HeadsMut::new(&mut y, Q, H, D).unwrap();
        let a = attention().causal().window(usize::MAX, usize::MAX);
        let (q, k) = (floats(&x, Q, H, D), floats(&x, K, KV, D));
        a.forward(AttentionInputs::new(q, k, k), &call, out, &serial(isa), &mut Scratch::new()).unwrap();
        assert_eq!(y[..Q / 2 * H * D], [0.0; Q / 2 * H * D], "{isa}");
        assert!(y[Q / 2 * H * D..].iter().all(|y| (y - 0.5).abs() < 1e-6), "{isa} {y:?}");
    }
}

/// No tokens, no keys, no sequences.
#[test]
fn nothing_is_allowed() {
    let x = [0.5f32; K * H * D];
    for isa in isas("nothing_is_allowed") {
        for uniform in [EmptyRow::Zeros, EmptyRow::Uniform] {
            for clipped in [Softmax::Standard, Clipped::new(-0.1, 1.1).unwrap().into()] {
                let a = attention().empty_rows(uniform).softmax(clipped);
                let run = |sequences, q: usize, kv: usize| {
                    let mut y = vec![7.0; q * H * D];
                    let out = HeadsMut::new(&mut y, q, H, D).unwrap();
                    let (q, k) = (floats(&x, q, H, D), floats(&x, kv, KV, D));
                    let (ctx, s) = (serial(isa), &mut Scratch::new());
                    let skipped = a
                        .forward(AttentionInputs::new(q, k, k), &AttentionCall::new(sequences), out, &ctx, s)
                        .unwrap();
                    (y, skipped.pairs)
                };
                for batch in [0, 1, 3, 1000] {
                    assert_eq!(
                        run(Sequences::Batch { batch, q_len: 0, kv_len: 0 }, 0, 0),
                        (vec![], 0),
                        "{isa}"
                    );
                }
                assert_eq!(run(Sequences::Batch { batch: 0, q_len: 9, kv_len: 9 }, 0, 0), (vec![], 0));
                assert_eq!(run(Sequences::Batch { batch: 2, q_len: 0, kv_len: 5 }, 0, 10), (vec![], 0));
                let (y, pairs) = run(Sequences::Batch { batch: 2, q_len: 3, kv_len: 0 }, 6, 0);
                assert_eq!((&y[..], pairs), (&[0.0; 6 * H * D][..], 0), "{isa} no keys");
                assert_eq!(run(Sequences::Packed { q: &[0], kv: &[0] }, 0, 0), (vec![], 0));
                let some = Sequences::Packed { q: &[0, 0, 0, 2, 2, 6], kv: &[0, 3, 3, 3, 10, 10] };
                let (y, pairs) = run(some, 6, 10);
                assert_eq!((&y[..], pairs), (&[0.0; 6 * H * D][..], 0), "{isa} keys without queries");
            }
        }
    }
}

/// However many sequences of nothing there are: a loop over them would never end.
#[test]
fn nothing_takes_no_time() {
    for (batch, q_len, kv_len) in [(usize::MAX, 0, 0), (0, 0, 1)] {
        let call = AttentionCall::new(Sequences::Batch { batch, q_len, kv_len });
        let out = HeadsMut::<f32>::new(&mut [], 0, H, D).unwrap();
        let (q, k) = (floats(&[], 0, H, D), floats(&[], 0, KV, D));
        attention()
            .forward(AttentionInputs::new(q, k, k), &call, out, &serial(Isa::Scalar), &mut Scratch::new())
            .unwrap();
    }
}

/// Keys that are there by a stride of 0 only, more than anything has memory for scores of.
#[test]
fn more_keys_than_memory() {
    for keys in [MOST + 1, usize::MAX / 4] {
        let x = [0.5f32; H * D];
        let q = TensorRef::from(HeadsRef::new(&x, 1, H, D).unwrap());
        let k = TensorRef::from(HeadsRef::with_strides(&x, keys, KV, D, 0, D).unwrap());
        let mut y = [0.0f32; H * D];
        let out = HeadsMut::new(&mut y, 1, H, D).unwrap();
        let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 1, kv_len: keys });
        let e = attention().forward(
            AttentionInputs::new(q, k, k),
            &call,
            out,
            &serial(Isa::Scalar),
            &mut Scratch::new(),
        );
        assert!(matches!(e, Err(Error::Shape { argument: "k", .. })), "{keys}: {e:?}");
    }
}

/// A stride that is never taken is nothing's business.
#[test]
fn strides_of_one() {
    let x = [0.5f32; D];
    let view = || HeadsRef::with_strides(&x, 1, 1, D, usize::MAX, usize::MAX - 1).unwrap();
    let input = TensorRef::from(view());
    let (mut y, mut z) = ([0.0f32; D], [0.0f32; D]);
    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 1, kv_len: 1 });
    let attention = Attention::new(1, 1, D).unwrap();
    let out = HeadsMut::with_strides(&mut y, 1, 1, D, usize::MAX, 3).unwrap();
    let ctx = serial(Isa::Scalar);
    attention
        .forward(AttentionInputs::new(input, input, input), &call, out, &ctx, &mut Scratch::new())
        .unwrap();
    let plain = TensorRef::from(HeadsRef::new(&x, 1, 1, D).unwrap());
    let out = HeadsMut::new(&mut z, 1, 1, D).unwrap();
    attention
        .forward(AttentionInputs::new(plain, plain, plain), &call, out, &ctx, &mut Scratch::new())
        .unwrap();
    assert_eq!(y, z);
}

#[test]
fn scales_that_overflow() {
    assert!(Clipped::new(-3e38, 3e38).is_err());
    assert!(attention().scale(2e38).is_err());
    let x = [1u8; H * D];
    let huge = HeadParams::All(QuantParams::u8(1e30, 0).unwrap());
    let small = HeadParams::All(QuantParams::u8(1.0, 0).unwrap());
    let view =
        |heads, params| TensorRef::from((HeadsRef::new(&x[..heads * D], 1, heads, D).unwrap(), params));
    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 1, kv_len: 1 });
    let run = |q, k, call: &AttentionCall<'_>| {
        let mut y = [0.0f32; H * D];
        let out = HeadsMut::new(&mut y, 1, H, D).unwrap();
        attention().forward(
            AttentionInputs::new(view(H, q), view(KV, k), view(KV, small)),
            call,
            out,
            &serial(Isa::Scalar),
            &mut Scratch::new(),
        )
    };
    assert!(matches!(run(huge, huge, &call), Err(Error::Value { argument: "scale", .. })));
    assert!(run(huge, small, &call).is_ok());
    // Scores are multiplied by the scales of tokens of k one after the other.
    let tokens = [QuantParams::u8(1e32, 0).unwrap()];
    let by_token = HeadParams::PerToken(&tokens);
    assert!(matches!(run(small, by_token, &call), Err(Error::Value { argument: "scale", .. })));
    assert!(run(small, HeadParams::All(tokens[0]), &call).is_ok());
    for weights_scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let call = call.quantizers(AttentionQuantizers::default().weights_scale(weights_scale));
        let e = run(small, small, &call);
        assert!(matches!(e, Err(Error::Value { argument: "weights_scale", .. })), "{weights_scale}: {e:?}");
    }
}
