//! What zeros and subnormal numbers cost: each case beside the ordinary one that computes as much, on every tier of this CPU. Many CPUs
//! take a hundred cycles or more for an instruction with a subnormal number.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, Bias, HeadsMut, HeadsRef, Sequences};
use siskin::linear::{Epilogue, Linear};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

/// Output and input features.
const N: usize = 1536;
const K: usize = 384;

/// Numbers from -2 to 2 that look random.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 255) as f32 - 127.0) / 64.0).collect()
}

/// The numbers, those that `odd` picks by their position being another one.
fn with(len: usize, other: f32, odd: impl Fn(usize) -> bool) -> Vec<f32> {
    numbers(len).into_iter().enumerate().map(|(i, v)| if odd(i) { other } else { v }).collect()
}

fn layers(c: &mut Criterion) {
    let rows_of_zeros = with(N * K, 0.0, |i| (1..4).contains(&(i / K % 4)));
    let subnormal = with(N * K, 1e-40, |i| i % 8 == 0);
    let weights =
        [("ordinary", &numbers(N * K)), ("rows of zeros", &rows_of_zeros), ("subnormal", &subnormal)];
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut scratch = Scratch::new();
        for m in [1, 64] {
            let mut group = c.benchmark_group(format!("odd-numbers-{N}x{K}-m{m}/{isa}"));
            if isa == Isa::Scalar {
                group.sample_size(10);
            }
            let tokens_of_zeros = with(m * K, 0.0, |i| (1..4).contains(&(i / K % 4)));
            let subnormal = with(m * K, 1e-40, |i| i % 8 == 0);
            let mut y = vec![0f32; m * N];
            for (dtype, quantized) in [("int8", true), ("f32", false)] {
                for (of_w, w) in weights {
                    let w = MatRef::new(w, N, K).unwrap();
                    let layer = match quantized {
                        true => Linear::quantize_dense(w).unwrap().build(&ctx).unwrap(),
                        false => Linear::dense(w).build(&ctx).unwrap(),
                    };
                    let inputs = [
                        ("ordinary", &numbers(m * K)),
                        ("tokens of zeros", &tokens_of_zeros),
                        ("subnormal", &subnormal),
                    ];
                    for (of_x, x) in inputs.into_iter().filter(|x| x.0 == "ordinary" || of_w == "ordinary") {
                        group.bench_function(BenchmarkId::new(dtype, format!("w {of_w}, x {of_x}")), |b| {
                            b.iter(|| {
                                let (x, y) =
                                    (MatRef::new(x, m, K).unwrap(), MatMut::new(&mut y, m, N).unwrap());
                                layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                            });
                        });
                    }
                }
            }
            group.finish();
        }
    }
}

/// Scores that fall with the distance of a key: weights of any magnitude, many of them below the smallest normal number where the
/// slope is steep.
fn attention(c: &mut Criterion) {
    const HEADS: usize = 4;
    const HEAD_DIM: usize = 64;
    const TOKENS: usize = 512;
    let x = numbers(TOKENS * HEADS * HEAD_DIM);
    let heads = || HeadsRef::new(&x, TOKENS, HEADS, HEAD_DIM).unwrap();
    let mut y = vec![0f32; x.len()];
    let mut scratch = Scratch::new();
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut group = c.benchmark_group(format!("odd-numbers-attention/{isa}"));
        if isa == Isa::Scalar {
            group.sample_size(10);
        }
        for (name, slope) in [("ordinary", 0.0), ("tiny weights", 0.25f32)] {
            let bias: Vec<f32> =
                (0..TOKENS * TOKENS).map(|i| -slope * (i / TOKENS).abs_diff(i % TOKENS) as f32).collect();
            let layer = Attention::new(HEADS, HEADS, HEAD_DIM).unwrap();
            let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: TOKENS, kv_len: TOKENS })
                .bias(Bias::new(&bias, 1, 1, TOKENS, TOKENS).unwrap());
            group.bench_function(name, |b| {
                b.iter(|| {
                    let inputs = AttentionInputs::new(heads(), heads(), heads());
                    let y = HeadsMut::new(&mut y, TOKENS, HEADS, HEAD_DIM).unwrap();
                    layer.forward(inputs, &call, y, &ctx, &mut scratch).unwrap();
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers, attention);
criterion_main!(benches);
