//! EcoFormer: learning the hash, beside f32 layers of as many operations.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::attention::HeadsRef;
use siskin::ecoformer::{FitOptions, fit};
use siskin::linear::{Epilogue, Input, Linear, OnTheFly, Output};
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
                    let x = Input::F32(MatRef::new(&x, tokens, k).unwrap(), OnTheFly::Never);
                    let y = Output::F32(MatMut::new(&mut y, tokens, k).unwrap());
                    layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                });
            });
        }
        let ctx = Ctx::new().unwrap();
        group.bench_function("all threads", |b| b.iter(|| fit(&[x], &options, &ctx).unwrap()));
        group.finish();
    }
}

criterion_group!(benches, fits);
criterion_main!(benches);
