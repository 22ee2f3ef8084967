//! Executors that say what no executor should: calls give what a serial call gives, or an error, and never more threads
//! than can be.

use crate::common::ecoformer::{Parts, cu_seqlens, encode, floats, random_codes};
use crate::common::{BLOCKS, Rng, attention, float, serial};
use siskin::attention::{Gate, Sequences};
use siskin::ecoformer::{Bandwidth, FitOptions, LinearAttention, LinearAttentionInputs, Numerator, fit};
use siskin::{Ctx, Executor, HeadsMut, HeadsRef, Isa, MatMut, MatRef, Parallelism, Scratch};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Gives one answer after the other, round and round; the tasks run one after the other.
struct Says {
    answers: &'static [usize],
    asked: AtomicUsize,
}

impl Executor for Says {
    fn threads(&self) -> usize {
        self.answers[self.asked.fetch_add(1, Ordering::Relaxed) % self.answers.len()]
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        assert!(tasks <= 100_000, "{tasks} tasks");
        (0..tasks).for_each(task);
    }
}

const ANSWERS: [&[usize]; 7] =
    [&[1 << 62], &[usize::MAX], &[usize::MAX / 4 + 2], &[0], &[1, 7], &[7, 1, 3], &[0, 5000, 1, 1 << 62]];

/// What every executor must get of a call.
fn check<R: PartialEq>(what: &str, call: impl Fn(&Ctx) -> R) {
    let want = call(&serial(Isa::Scalar));
    for answers in ANSWERS {
        let says = Arc::new(Says { answers, asked: AtomicUsize::new(0) });
        let ctx = serial(Isa::Scalar).with_parallelism(Parallelism::Custom(says.clone()));
        assert!((1..=1024).contains(&ctx.threads()), "{answers:?}");
        assert!(call(&ctx) == want, "{what} with {answers:?} threads");
        assert_eq!(says.asked.load(Ordering::Relaxed), 1, "{what}: threads were asked for again");
    }
}

#[test]
fn layers() {
    use crate::common::layer::{Act, Case, In, Res, To};
    for block in BLOCKS[..4].iter().copied() {
        for (m, n) in [(1, 70), (70, 5)] {
            let (input, to, residual, act) = (In::F32PerToken, To::F32, Res::None, Act::Identity);
            let case = Case { seed: 1, m, n, k: 5, block, weight_zeros: false, input, to, residual, act };
            check("a layer of bytes", |ctx| {
                let data = case.data();
                data.forward(&data.layer(ctx), (0, m), ctx, &mut Scratch::new())
            });
            let mut case = float::Case::random(&mut Rng::new(2));
            (case.m, case.n, case.k, case.block, case.weights) =
                (m, n, 5, block, float::Weights::Float(float::Kind::F32));
            check("a layer of floats", |ctx| {
                let data = case.data();
                float::bits(&data.forward(&data.layer(ctx), (0, m), ctx, &mut Scratch::new()))
            });
        }
    }
}

#[test]
fn heads() {
    // One query of few heads and many keys, which are split; many queries; both.
    for (heads, queries, keys) in [(1, 1, 600), (3, 1, 40), (2, 33, 33), (1, 3, 520)] {
        let data = attention::Case::plain(3, heads, 4, queries, keys).data();
        check("attention", |ctx| data.run(ctx, &mut Scratch::new()));
    }
}

#[test]
fn gates() {
    let x = floats(&mut Rng::new(4), 100, 1.0);
    let gate = Gate::linear(MatRef::new(&x[..4], 2, 2).unwrap(), &[0.1, 0.2]).unwrap();
    for cu in [&[0, 25][..], &[0, 3, 20, 25]] {
        check("gates", |ctx| {
            let mut out = vec![f32::NAN; 50];
            let to = MatMut::new(&mut out, 25, 2).unwrap();
            gate.evaluate(MatRef::new(&x, 25, 4).unwrap(), &Sequences::own_packed(cu), to, ctx).unwrap();
            out.iter().map(|gate| gate.to_bits()).collect::<Vec<_>>()
        });
    }
}

#[test]
fn codes() {
    let mut r = Rng::new(5);
    for (n, m) in [(2, 70), (40, 3)] {
        let (a, b) = (random_codes(&mut r, n, 20), random_codes(&mut r, m, 20));
        check("distances of codes", |ctx| {
            let (mut all, mut first, mut numbers) = (vec![0u16; n * m], vec![0u16; n], vec![0u32; n]);
            let mut scratch = Scratch::new();
            a.hamming(&b, MatMut::new(&mut all, n, m).unwrap(), ctx, &mut scratch).unwrap();
            let to = MatMut::new(&mut first, n, 1).unwrap();
            a.nearest(&b, MatMut::new(&mut numbers, n, 1).unwrap(), to, ctx, &mut scratch).unwrap();
            (all, first, numbers)
        });
    }
}

#[test]
fn hashes() {
    let mut r = Rng::new(6);
    let [heads, dim, m, bits] = [2, 4, 3, 9];
    let hash = Parts::random(&mut r, [heads, dim, m, bits]).hash();
    let cu = cu_seqlens(&[40, 3]);
    let tokens = 43;
    let x = floats(&mut r, tokens * heads * dim, 1.0);
    let view = HeadsRef::new(&x, tokens, heads, dim).unwrap();
    for bandwidth in [Bandwidth::Sequence, Bandwidth::Frozen] {
        check("attention by codes", |ctx| {
            let (codes, _) = encode(&hash, view, &cu, bandwidth, ctx);
            let mut out = vec![f32::NAN; x.len()];
            let attention = LinearAttention::new(heads, bits).unwrap().numerator(Numerator::Consistent);
            let attention = attention.causal();
            let to = HeadsMut::new(&mut out, tokens, heads, dim).unwrap();
            let (inputs, sequences) =
                (LinearAttentionInputs::new(&codes, &codes, view), Sequences::own_packed(&cu));
            attention.forward(inputs, &sequences, to, ctx, &mut Scratch::new()).unwrap();
            (codes.words().to_vec(), float::bits(&out))
        });
    }
    let options = FitOptions::default().bits(2).anchors(3).neighbours(2).iterations(1);
    let few = HeadsRef::new(&x[..12 * heads * dim], 12, heads, dim).unwrap();
    check("a hash that is learned", |ctx| fit(&[few], &options, ctx).unwrap());
}
