//! One scratch for calls of every family.

use super::allocations;
use crate::common::{Rng, isas, serial};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, Clipped};
use siskin::ecoformer::{
    Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Sequences,
};
use siskin::{HeadsMut, HeadsRef, MatMut, MatRef, Scratch};

/// Calls of any family and any shape share a scratch: once it has seen the largest of each, it grows no more, in whatever order they
/// come.
#[test]
fn families_take_turns_at_a_scratch() {
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
