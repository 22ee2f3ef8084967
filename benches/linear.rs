//! Dense and 80 % sparse layers on every tier of this CPU, beside the tier's dot products on registers alone.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::linear::{Epilogue, Linear, LinearInput, LinearOutput, PackedActivations};
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Norm, prune};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch, bf16, measure};
use std::hint::black_box;

/// Tokens, and the features on either side: a BERT-base attention layer.
const M: usize = 128;
const N: usize = 768;

fn linear(c: &mut Criterion) {
    // SplitMix64.
    let random = |i: u64| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let w: Vec<f32> = (0..N * N).map(|i| (random(i as u64) >> 40) as f32 - (1 << 23) as f32).collect();
    let w = MatRef::new(&w, N, N).unwrap();
    let x: Vec<u8> = (0..M * N).map(|i| random(i as u64) as u8).collect();
    let from = QuantParams::u8(1e-6, 128).unwrap();
    let to = QuantParams::u8(500.0, 128).unwrap();
    let x = LinearInput::from((MatRef::new(&x, M, N).unwrap(), from));
    let mut y = vec![0u8; M * N];
    let mut scratch = Scratch::new();

    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut group = c.benchmark_group(format!("linear-{N}x{N}-m{M}/{isa}"));
        if isa == Isa::Scalar {
            group.sample_size(10);
        }
        // All in operations: two for each token and stored value.
        group.throughput(Throughput::Elements(measure::dot_products(isa, 1 << 10)));
        group.bench_function("peak", |b| b.iter(|| measure::dot_products(isa, black_box(1 << 10))));
        for format in ["dense", "4x1", "4x4", "16x16", "1x4"] {
            let builder = if format == "dense" {
                Linear::quantize_dense(w)
            } else {
                let block: BlockShape = format.parse().unwrap();
                Linear::quantize_sparse(&prune::magnitude(w, block, 0.8, Norm::L2).unwrap())
            };
            let layer = builder.unwrap().build(&ctx).unwrap();
            let (mut packed, mut next) = (PackedActivations::new(), PackedActivations::new());
            layer.pack(x, &mut packed, &ctx, &mut scratch).unwrap();
            group.throughput(Throughput::Elements(2 * (M * layer.stored_values()) as u64));
            group.bench_function(BenchmarkId::new("packed", format), |b| {
                b.iter(|| {
                    let y = LinearOutput::packed(&mut next, to, &layer);
                    layer
                        .forward(LinearInput::from(&packed), Epilogue::new(), y, &ctx, &mut scratch)
                        .unwrap();
                });
            });
            group.bench_function(BenchmarkId::new("tokens", format), |b| {
                b.iter(|| {
                    let y = LinearOutput::from((MatMut::new(&mut y, M, N).unwrap(), to));
                    layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                });
            });
        }
        group.finish();
    }
}

/// Layers of f32 and bfloat16, beside what each multiplies at most.
fn floats(c: &mut Criterion) {
    let number = |i: usize| ((i * 7919 % 255) as f32 - 127.0) / 64.0;
    let w: Vec<f32> = (0..N * N).map(number).collect();
    let w = MatRef::new(&w, N, N).unwrap();
    let x: Vec<f32> = (0..M * N).map(number).collect();
    let x = LinearInput::from(MatRef::new(&x, M, N).unwrap());
    let mut y = vec![0f32; M * N];
    let mut scratch = Scratch::new();
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut group = c.benchmark_group(format!("linear-floats-{N}x{N}-m{M}/{isa}"));
        if isa == Isa::Scalar {
            group.sample_size(10);
        }
        for (name, peak) in [
            ("peak f32", measure::fused_multiply_adds as fn(Isa, u64) -> u64),
            ("peak bf16", measure::bf16_dot_products),
        ] {
            group.throughput(Throughput::Elements(peak(isa, 1 << 10)));
            group.bench_function(name, |b| b.iter(|| peak(isa, black_box(1 << 10))));
        }
        for format in ["dense", "4x1", "16x1", "4x4", "16x16", "1x4", "1x16"] {
            let layers = match format.parse::<BlockShape>() {
                Err(_) => {
                    let half: Vec<bf16> = w.iter_rows().flatten().map(|&v| bf16::from_f32(v)).collect();
                    let half = Linear::dense(MatRef::new(&half, N, N).unwrap()).build(&ctx).unwrap();
                    [("f32", Linear::dense(w).build(&ctx).unwrap()), ("bf16", half)]
                }
                Ok(block) => {
                    let w = prune::magnitude(w, block, 0.8, Norm::L2).unwrap();
                    let half = Linear::sparse(&w.map(|_, v| bf16::from_f32(v))).build(&ctx).unwrap();
                    [("f32", Linear::sparse(&w).build(&ctx).unwrap()), ("bf16", half)]
                }
            };
            for (dtype, layer) in layers {
                group.throughput(Throughput::Elements(2 * (M * layer.stored_values()) as u64));
                group.bench_function(BenchmarkId::new(dtype, format), |b| {
                    b.iter(|| {
                        let y = LinearOutput::from(MatMut::new(&mut y, M, N).unwrap());
                        layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch).unwrap();
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, linear, floats);
criterion_main!(benches);
