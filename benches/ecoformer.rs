//! EcoFormer: learning the hash, beside f32 layers of as many operations; encoding, attention and a stream, beside softmax
//! attention.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{
    Bandwidth, BitCodes, FitOptions, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Stream,
    fit,
};
use siskin::linear::{Epilogue, Linear};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

const HEADS: usize = 8;

/// Numbers that look random, between -2 and 2.
fn numbers(len: usize) -> Vec<f32> {
    // SplitMix64.
    let random = |i: u64| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len).map(|i| (random(i as u64) >> 40) as f32 / (1 << 22) as f32 - 2.0).collect()
}

/// Whether benchmarks only have to run, not to tell anything.
fn is_test() -> bool {
    !std::env::args().any(|arg| arg == "--bench") || std::env::args().any(|arg| arg == "--test")
}

/// Multiplications with an addition each that a fit takes, but for those of an element alone: similarities;
/// distances; and for each step of each bit the kernel twice, the bits before twice, and the neighbours.
fn products(n: usize, head_dim: usize, o: &FitOptions) -> usize {
    let step = 2 * o.anchors + (o.bits - 1) + 4 * o.neighbours;
    HEADS * n * (n * head_dim + o.anchors * head_dim + o.bits * o.iterations * step)
}

fn fits(c: &mut Criterion) {
    let n = if is_test() { 50 } else { 3136 };
    for head_dim in [32, 64] {
        let x = numbers(n * HEADS * head_dim);
        let x = HeadsRef::new(&x, n, HEADS, head_dim).unwrap();
        let options = FitOptions::default();
        let products = products(n, head_dim, &options);
        let mut group = c.benchmark_group(format!("ecoformer-fit-{n}x{HEADS}x{head_dim}"));
        group.sample_size(10).throughput(Throughput::Elements(2 * products as u64));
        for isa in Isa::supported() {
            let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
            group.bench_function(BenchmarkId::new("fit", isa), |b| {
                b.iter(|| fit(&[x], &options, &ctx).unwrap());
            });
            // A layer of 1024 x 1024 over so many tokens.
            let (k, tokens) = (1024, products.div_ceil(1024 * 1024));
            let (w, x) = (numbers(k * k), numbers(tokens * k));
            let mut y = vec![0.0; tokens * k];
            let layer = Linear::dense(MatRef::new(&w, k, k).unwrap()).build(&ctx).unwrap();
            let mut scratch = Scratch::new();
            group.bench_function(BenchmarkId::new("layer", isa), |b| {
                b.iter(|| {
                    let x = MatRef::new(&x, tokens, k).unwrap();
                    let y = MatMut::new(&mut y, tokens, k).unwrap();
                    layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                });
            });
        }
        let ctx = Ctx::new().unwrap();
        group.bench_function("all threads", |b| b.iter(|| fit(&[x], &options, &ctx).unwrap()));
        group.finish();
    }
}

/// One head of 64 features, 25 anchors and 16 bits, with what softmax attention takes for as many tokens.
fn contexts(c: &mut Criterion) {
    const DIM: usize = 64;
    let lens: &[usize] = if is_test() { &[100] } else { &[784, 3136, 50_176] };
    let parts = [25 * DIM, 25, 16 * 25].map(numbers);
    let [anchors, centring, projection] = parts;
    let hash = KernelHash::from_parts(1, DIM, anchors, centring, projection).unwrap();
    for &n in lens {
        let (x, v) = (numbers(n * DIM), numbers(n * DIM));
        let heads = |x| HeadsRef::new(x, n, 1, DIM).unwrap();
        let mut out = vec![0.0; n * DIM];
        let sequences = Sequences::own(1, n);
        let mut group = c.benchmark_group(format!("ecoformer-{n}x1x{DIM}"));
        group.throughput(Throughput::Elements(n as u64));
        for isa in Isa::supported() {
            let (ctx, mut scratch) = (Ctx::serial().unwrap().with_isa(isa).unwrap(), Scratch::new());
            let mut codes = BitCodes::with_capacity(n, 16).unwrap();
            group.bench_function(BenchmarkId::new("encode", isa), |b| {
                b.iter(|| {
                    let own = Bandwidth::Sequence;
                    hash.encode(heads(&x), &sequences, own, &mut codes, &ctx, &mut scratch).unwrap();
                });
            });
            let consistent = LinearAttention::new(1, 16).unwrap().numerator(Numerator::Consistent);
            for (name, attention) in [("attend", consistent), ("attend causal", consistent.causal())] {
                group.bench_function(BenchmarkId::new(name, isa), |b| {
                    b.iter(|| {
                        let inputs = LinearAttentionInputs::new(&codes, &codes, heads(&v));
                        let out = HeadsMut::new(&mut out, n, 1, DIM).unwrap();
                        attention.forward(inputs, &sequences, out, &ctx, &mut scratch).unwrap();
                    });
                });
            }
            let (mut stream, code) = (Stream::new(&consistent, DIM).unwrap(), vec![0x1234]);
            let code = BitCodes::from_words(code, 16).unwrap();
            group.bench_function(BenchmarkId::new("append and query", isa), |b| {
                b.iter(|| {
                    let token = HeadsRef::new(&v[..DIM], 1, 1, DIM).unwrap();
                    stream.append(&code, token).unwrap();
                    stream.query(&code, HeadsMut::new(&mut out[..DIM], 1, 1, DIM).unwrap(), &ctx).unwrap();
                });
            });
            if n > 4096 {
                continue;
            }
            group.sample_size(10).bench_function(BenchmarkId::new("softmax", isa), |b| {
                b.iter(|| {
                    let (inputs, call) = (
                        AttentionInputs::new(heads(&x), heads(&x), heads(&v)),
                        AttentionCall::new(sequences),
                    );
                    let out = HeadsMut::new(&mut out, n, 1, DIM).unwrap();
                    let attention = Attention::new(1, 1, DIM).unwrap();
                    attention.forward(inputs, &call, out, &ctx, &mut scratch).unwrap();
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, fits, contexts);
criterion_main!(benches);
