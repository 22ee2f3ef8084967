//! Attention of bytes against exact integers, and every tier against scalar, bit for bit.

use crate::common::attention::*;
use crate::common::{Rng, cases, in_parallel, isas, serial};
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{Isa, Scratch, TensorRef};

/// Against the reference on scalar, every tier against scalar; gives how many rows were held against the reference.
fn check(d: &Data, isas: &[Isa], scratch: &mut Scratch, way: usize) -> usize {
    let (want, skipped) = d.run(&serial(Isa::Scalar), scratch);
    let mut held = 0;
    for (n, (got, range)) in real(&want).iter().zip(d.reference_bytes()).enumerate() {
        let Some((low, high)) = range else { continue };
        held += 1;
        let got = f64::from(*got);
        assert!(
            low <= got && got <= high,
            "element {n}: {got}, not {low} to {high}: {:?} {:?}",
            d.int8,
            d.case
        );
    }
    if d.case.bias.is_none() && !d.case.uniform {
        assert_eq!(skipped.pairs, d.reference().pairs, "{:?}", d.case);
    }
    for &isa in isas {
        let (got, theirs) = in_parallel(isa, way, |ctx| d.run(ctx, &mut Scratch::new()));
        assert!(got == want, "{isa} is not scalar: {:?} {:?}", d.int8, d.case);
        assert_eq!((theirs.pairs, theirs.zeros), (skipped.pairs, skipped.zeros), "{isa}: {:?}", d.case);
    }
    held
}

#[test]
fn any_call() {
    let isas = isas("any_call");
    let mut r = Rng::new(90);
    let mut scratch = Scratch::new();
    let (mut held, mut all) = (0, 0);
    for way in 0..cases(150) {
        let d = Case::random(&mut r).bytes(&mut r).data();
        held += check(&d, &isas, &mut scratch, way as usize);
        all += d.q.len();
    }
    println!("{held} of {all} elements held against the reference");
    assert!(held > all / 2);
}

#[test]
fn every_edge() {
    let isas = isas("every_edge");
    let mut r = Rng::new(91);
    let mut scratch = Scratch::new();
    let (lengths, widths) =
        ([1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1025], [1, 3, 4, 5, 15, 16, 17, 32, 64, 80]);
    for (i, kv_len) in lengths.into_iter().enumerate() {
        for (j, head_dim) in widths.into_iter().enumerate() {
            if (i * widths.len() + j) % 100 >= cases(100) as usize {
                continue;
            }
            for q_len in [1, 2, 7, 16, 17, 33] {
                let mut case = Case::plain(r.next(), 1, head_dim, q_len, kv_len);
                case.causal = (i + j) % 2 == 0;
                case.clipped =
                    [None, Some((-0.01, 1.0)), Some((-0.02, 1.02)), Some((-0.01, 1.0005))][r.below(4)];
                check(&case.bytes(&mut r).data(), &isas, &mut scratch, i + j);
            }
        }
    }
}

/// The largest sums there are: nothing saturates. Few queries and many, on both sides of where scores are floats as they leave their
/// sums: 64 features where k is unsigned, 128 where it is signed.
#[test]
fn extremes_do_not_saturate() {
    let isas = isas("extremes_do_not_saturate");
    let mut scratch = Scratch::new();
    let mut r = Rng::new(92);
    for (zero, byte) in [(0, 255.0), (255, 0.0), (255, 255.0), (0, 0.0)] {
        let shapes = [(256, 3, 1), (256, 3, 64), (256, 3, 2000), (256, 40, 70)];
        let edges = [64, 65, 128, 129].map(|head_dim| (head_dim, 40, 600));
        for (head_dim, q_len, kv_len) in shapes.into_iter().chain(edges) {
            let mut case = Case::plain(r.next(), 1, head_dim, q_len, kv_len);
            case.types[..3].fill(Type::U8);
            // Scores of a size that can be told apart, though every product is the largest.
            case.scale = Some(1e-5);
            let mut d = case.data();
            d.int8 = AttentionQuantizers::default().weights_scale([None, Some(1e-6)][r.below(2)]);
            for x in [&mut d.q, &mut d.k, &mut d.v] {
                x.fill(byte);
            }
            d.params = [(); 3].map(|()| Params::Heads(vec![Type::U8.params(0.01, zero)]));
            assert!(check(&d, &isas, &mut scratch, 0) > 0);
        }
    }
}

/// Signed bytes are unsigned ones moved by 128, zero points with them.
#[test]
fn signs_do_not_matter() {
    let isas = isas("signs_do_not_matter");
    let mut r = Rng::new(93);
    let mut scratch = Scratch::new();
    for _ in 0..cases(30) {
        let mut case = Case::random(&mut r);
        case.types[..3].fill(Type::U8);
        case.per_token = [(); 3].map(|()| r.below(3) == 0);
        let d = case.data();
        let mut signed = d.clone();
        signed.case.types[..3].fill(Type::I8);
        for x in [&mut signed.q, &mut signed.k, &mut signed.v] {
            x.iter_mut().for_each(|x| *x -= 128.0);
        }
        for p in signed.params.iter_mut().flat_map(Params::each) {
            *p = Type::I8.params(p.scale(), p.zero_point() as u8);
        }
        for &isa in &isas {
            let ctx = serial(isa);
            let (want, got) = (d.run(&ctx, &mut scratch), signed.run(&ctx, &mut scratch));
            assert!(want == got, "{isa} {:?}", d.case);
        }
    }
}

/// Keys without weight are not multiplied.
#[test]
fn keys_without_weight_are_skipped() {
    let isas = isas("keys_without_weight_are_skipped");
    let mut r = Rng::new(95);
    for q_len in [1, 50] {
        let mut case = Case::plain(r.next(), 1, 64, q_len, 700);
        case.types[..3].fill(Type::U8);
        (case.clipped, case.bias) = (Some((-0.03, 1.0)), Some([1, 1, 1, 700]));
        let mut d = case.data();
        d.bias.iter_mut().enumerate().for_each(|(j, b)| *b = if j < 4 { 0.0 } else { -20.0 });
        check(&d, &isas, &mut Scratch::new(), 0);
        for &isa in &isas {
            let (_, skipped) = d.run(&serial(isa), &mut Scratch::new());
            assert!(skipped.share() > 0.5 && skipped.skipped <= skipped.zeros, "{isa} {skipped:?}");
        }
    }
}

/// So many keys that the sum of all products does not fit 32 bits, all of the largest weight and the largest v.
#[test]
fn sums_of_many_keys_fit() {
    let keys = 40_000;
    let scale = 1.0 / (255.0 * keys as f32);
    let expected = (255i64 * 255 * keys as i64) as f32 * scale;
    let zero = vec![7u8; keys];
    let most = vec![255u8; keys];
    for isa in isas("sums_of_many_keys_fit") {
        // Few queries and many.
        for queries in [1, 20] {
            let params = HeadParams::All(QuantParams::u8(0.1, 7).unwrap());
            let q = TensorRef::from((HeadsRef::new(&zero[..queries], queries, 1, 1).unwrap(), params));
            let k = TensorRef::from((HeadsRef::new(&zero, keys, 1, 1).unwrap(), params));
            let v = HeadsRef::new(&most, keys, 1, 1).unwrap();
            let v = TensorRef::from((v, HeadParams::All(QuantParams::u8(1.0, 0).unwrap())));
            let mut context = vec![0.0f32; queries];
            let out = HeadsMut::new(&mut context, queries, 1, 1).unwrap();
            let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: queries, kv_len: keys });
            let one = call.quantizers(AttentionQuantizers::default().weights_scale(scale));
            let attention = Attention::new(1, 1, 1).unwrap();
            let (inputs, ctx) = (AttentionInputs::new(q, k, v), serial(isa));
            attention.forward(inputs, &one, out, &ctx, &mut Scratch::new()).unwrap();
            let mut own = vec![0.0f32; queries];
            let out = HeadsMut::new(&mut own, queries, 1, 1).unwrap();
            attention.forward(inputs, &call, out, &ctx, &mut Scratch::new()).unwrap();
            assert!(own.iter().all(|c| (c / 255.0 - 1.0).abs() < 1e-5), "{isa}, {queries}: {:?}", &own[..1]);
            // Sums of 512 keys are exact, and are added up in f32.
            let near = |c: &f32| (c / expected - 1.0).abs() < 1e-5;
            assert!(context.iter().all(near), "{isa}, {queries}: {:?}", &context[..1]);
        }
    }
}
