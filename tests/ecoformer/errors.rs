//! Every refusal that the documentation of the hash and of linear attention names: the kind of error, the argument it names, and
//! what there was before untouched.

use crate::common::errors::Kind::{self, Index, Shape, Unsupported, Value};
use crate::common::errors::named;
use crate::common::serial;
use siskin::Element;
use siskin::attention::{HeadParams, HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{
    Bandwidth, BitCodes, KernelHash, Learned, LinearAttention, LinearAttentionInputs, Numerator,
};
use siskin::quant::QuantParams;
use siskin::{Isa, Scratch, TensorRef};

// 2 heads of 8 features, 3 anchors and 5 bits; 6 tokens.
const H: usize = 2;
const D: usize = 8;
const M: usize = 3;
const B: usize = 5;
const N: usize = 6;

fn ones(n: usize) -> Vec<f32> {
    vec![1.0; n]
}

/// Heads, features of a head, and how many numbers each part has.
fn parts(
    heads: usize,
    dim: usize,
    [anchors, centring, projection]: [usize; 3],
) -> siskin::Result<KernelHash> {
    KernelHash::from_parts(heads, dim, ones(anchors), ones(centring), ones(projection))
}

const LENGTHS: [usize; 3] = [H * M * D, H * M, H * B * M];

fn hash() -> KernelHash {
    parts(H, D, LENGTHS).unwrap()
}

#[test]
fn parts_of_a_hash() {
    let [anchors, centring, projection] = LENGTHS;
    assert_eq!((hash().anchors_per_head(), hash().bits(), hash().sigma()), (M, B, None));
    named(parts(0, D, [0; 3]), Shape, "heads");
    for dim in [0, 257, usize::MAX] {
        named(parts(H, dim, LENGTHS), Value, "head_dim");
    }
    for wrong in [anchors + 1, anchors - 1, anchors + D] {
        named(parts(H, D, [wrong, centring, projection]), Shape, "anchors");
    }
    named(parts(H, D, [0, 0, projection]), Value, "anchors");
    named(parts(usize::MAX, D, [0, 0, 0]), Value, "anchors");
    named(parts(H, 1, [2 * 4097, 2 * 4097, 2 * 4097]), Value, "anchors");
    assert!(parts(H, 1, [2 * 4096; 3]).is_ok());
    for wrong in [0, centring - 1, centring + 1, 2 * centring] {
        named(parts(H, D, [anchors, wrong, projection]), Shape, "centring");
    }
    for wrong in [projection - 1, projection + 1, projection + M] {
        named(parts(H, D, [anchors, centring, wrong]), Shape, "projection");
    }
    named(parts(H, D, [anchors, centring, 0]), Value, "bits");
    named(parts(H, D, [anchors, centring, H * 257 * M]), Value, "bits");
    assert!(parts(H, 256, [H * M * 256, centring, H * 256 * M]).is_ok());
}

#[test]
fn numbers_of_a_hash() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (part, name) in ["anchors", "centring", "projection"].into_iter().enumerate() {
            for at in [0, 4, LENGTHS[part] - 1] {
                let mut all = LENGTHS.map(ones);
                all[part][at] = bad;
                let [anchors, centring, projection] = all;
                named(KernelHash::from_parts(H, D, anchors, centring, projection), Index(at), name);
            }
        }
    }
    // Each number is finite, the norm of the second anchor is not.
    let [mut anchors, centring, projection] = LENGTHS.map(ones);
    anchors[D..2 * D].fill(1e19);
    named(KernelHash::from_parts(H, D, anchors.clone(), centring, projection), Index(D), "anchors");
    anchors[D..2 * D].fill(6e18);
    let [_, centring, projection] = LENGTHS.map(ones);
    assert!(KernelHash::from_parts(H, D, anchors, centring, projection).is_ok());
}

#[test]
fn bandwidths_of_a_hash() {
    for wrong in [0, 1, 3] {
        named(hash().with_sigma(ones(wrong)), Shape, "sigma");
    }
    for bad in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY] {
        named(hash().with_sigma(vec![1.0, bad]), Index(1), "sigma");
    }
    assert!(hash().with_sigma(vec![1e-45, f32::MAX]).is_ok());
    let learned = Learned {
        heads: H,
        anchors_per_head: M,
        head_dim: D,
        bits: B,
        anchors: ones(H * M * D),
        centring: ones(H * M),
        projection: ones(H * B * M),
        sigma: ones(H),
        accepted: vec![true; B],
        losses: vec![],
    };
    assert_eq!(KernelHash::new(learned.clone()).unwrap().sigma(), Some(&[1.0, 1.0][..]));
    let sigma = vec![1.0, -1.0];
    named(KernelHash::new(Learned { sigma, ..learned.clone() }), Index(1), "sigma");
    let centring = ones(1);
    named(KernelHash::new(Learned { centring, ..learned }), Shape, "centring");
}

#[test]
fn calls_of_a_hash() {
    let (ctx, scratch) = (serial(Isa::Scalar), &mut Scratch::new());
    let x = ones(1000);
    let x = |tokens: usize, heads: usize, dim: usize| {
        HeadsRef::new(&x[..tokens * heads * dim], tokens, heads, dim).unwrap()
    };
    let before = BitCodes::from_words(vec![1, 2, 3], 7).unwrap();
    let mut codes = before.clone();
    let mut refused = |hash: KernelHash, x, sequences, bandwidth, kind, name| {
        named(hash.encode(x, &sequences, bandwidth, &mut codes, &ctx, scratch), kind, name);
        assert_eq!(codes, before, "{name}");
    };
    let (own, packed) = (Sequences::own(1, N), Sequences::own_packed);
    for wrong in [x(N, H, D + 1), x(N, H + 1, D), x(N, D, H), x(N, 1, H * D)] {
        refused(hash(), wrong, own, Bandwidth::Sequence, Shape, "x");
    }
    for sequences in [Sequences::own(1, N - 1), Sequences::own(2, N), Sequences::own(usize::MAX, 2)] {
        refused(hash(), x(N, H, D), sequences, Bandwidth::Sequence, Shape, "q");
    }
    let q = "cu_seqlens of q";
    refused(hash(), x(N, H, D), packed(&[]), Bandwidth::Sequence, Shape, q);
    refused(hash(), x(N, H, D), packed(&[1, 6]), Bandwidth::Sequence, Index(0), q);
    refused(hash(), x(N, H, D), packed(&[0, 4, 3, 6]), Bandwidth::Sequence, Index(2), q);
    refused(hash(), x(N, H, D), packed(&[0, 4, 7]), Bandwidth::Sequence, Index(2), q);
    refused(hash(), x(N, H, D), packed(&[0, -1, 6]), Bandwidth::Sequence, Index(1), q);
    let other = Sequences::Packed { q: &[0, 2, 6], kv: &[0, 3, 6] };
    refused(hash(), x(N, H, D), other, Bandwidth::Sequence, Shape, "sequences");
    refused(hash(), x(N, H, D), own, Bandwidth::Frozen, Unsupported, "bandwidth");
    // As many tokens as there is no memory for, all of them the same.
    let one = ones(H * D);
    let tokens = usize::MAX / 16;
    let endless = HeadsRef::with_strides(&one, tokens, H, D, 0, D).unwrap();
    refused(hash(), endless, Sequences::own(tokens, 1), Bandwidth::Sequence, Shape, "x");
}

/// One refused call of attention.
struct Call<'a> {
    codes: [BitCodes; 2],
    v: TensorRef<'a>,
    sequences: Sequences<'a>,
    attention: LinearAttention,
}

impl Call<'_> {
    #[track_caller]
    fn refused(&self, kind: Kind, name: &str) {
        let mut out = [7.0f32; N * H * D];
        let to = HeadsMut::new(&mut out, N, H, D).unwrap();
        let [q, k] = &self.codes;
        let (ctx, scratch) = (serial(Isa::Scalar), &mut Scratch::new());
        named(
            self.attention.forward(
                LinearAttentionInputs::new(q, k, self.v),
                &self.sequences,
                to,
                &ctx,
                scratch,
            ),
            kind,
            name,
        );
        assert!(out.iter().all(|x| *x == 7.0), "{name}: the context was written");
    }
}

#[test]
fn calls_of_attention() {
    named(LinearAttention::new(0, B), Shape, "heads");
    for bits in [0, 257, usize::MAX] {
        named(LinearAttention::new(H, bits), Value, "bits");
    }
    let codes = |n: usize, bits: usize| BitCodes::from_words(vec![0; n * bits.div_ceil(64)], bits).unwrap();
    let floats = ones(2000);
    let v = |tokens: usize, heads: usize, dim: usize| {
        TensorRef::from(HeadsRef::new(&floats[..tokens * heads * dim], tokens, heads, dim).unwrap())
    };
    let good = || Call {
        codes: [codes(N * H, B), codes(N * H, B)],
        v: v(N, H, D),
        sequences: Sequences::own(2, 3),
        attention: LinearAttention::new(H, B).unwrap(),
    };
    for (i, name) in ["q", "k"].into_iter().enumerate() {
        for wrong in
            [codes(N * H - 1, B), codes(N, B), codes(0, B), codes(N * H, B + 1), codes(N * H, B + 64)]
        {
            let mut call = good();
            call.codes[i] = wrong;
            call.refused(Shape, name);
        }
    }
    Call { v: v(N * H, 1, D), codes: [codes(N * H * H, B), codes(N * H * H, B)], ..good() }
        .refused(Shape, "v");
    Call { v: v(N + 1, H, D), ..good() }.refused(Shape, "q");
    Call { v: v(N, H, D + 1), ..good() }.refused(Shape, "out");
    Call { v: v(N, H, 0), ..good() }.refused(Value, "head_dim");
    let long = ones(N * H * 257);
    let v = TensorRef::from(HeadsRef::new(&long, N, H, 257).unwrap());
    Call { v, ..good() }.refused(Value, "head_dim");
    let bytes = [1u8; N * H * D];
    let bytes = HeadsRef::new(&bytes, N, H, D).unwrap();
    let params = |dtype| QuantParams::new(0.1, 0, dtype).unwrap();
    Call { v: TensorRef::from((bytes, params(Element::I8))), ..good() }.refused(Unsupported, "v");
    let three = [params(Element::U8); 3];
    Call { v: TensorRef::from((bytes, HeadParams::PerHead(&three))), ..good() }.refused(Shape, "v");
    let tokens = [params(Element::U8); N];
    Call { v: TensorRef::from((bytes, HeadParams::PerToken(&tokens))), ..good() }.refused(Unsupported, "v");
    Call { sequences: Sequences::own(2, 2), ..good() }.refused(Shape, "q");
    Call { sequences: Sequences::own_packed(&[0, 7]), ..good() }.refused(Index(1), "cu_seqlens of q");
    Call { sequences: Sequences::own_packed(&[0, 5, 4, 6]), ..good() }.refused(Index(2), "cu_seqlens of q");
    let other = Sequences::Packed { q: &[0, 2, 6], kv: &[0, 3, 6] };
    Call { sequences: other, ..good() }.refused(Shape, "sequences");
    Call { attention: good().attention.causal(), ..good() }.refused(Unsupported, "numerator");
    let causal = good().attention.causal().numerator(Numerator::Released);
    Call { attention: causal, ..good() }.refused(Unsupported, "numerator");
}

/// As many sequences as there are numbers, each of nothing, are soon done with.
#[test]
fn endless_sequences_of_nothing() {
    let (ctx, scratch) = (serial(Isa::Scalar), &mut Scratch::new());
    let none = Sequences::own(usize::MAX, 0);
    let mut codes = BitCodes::from_words(vec![1], 1).unwrap();
    let x = HeadsRef::new(&[], 0, H, D).unwrap();
    hash().encode(x, &none, Bandwidth::Sequence, &mut codes, &ctx, scratch).unwrap();
    assert_eq!((codes.len(), codes.bits()), (0, B));
    let out = HeadsMut::<f32>::new(&mut [], 0, H, D).unwrap();
    let attention = LinearAttention::new(H, B).unwrap();
    attention.forward(LinearAttentionInputs::new(&codes, &codes, x), &none, out, &ctx, scratch).unwrap();
}
