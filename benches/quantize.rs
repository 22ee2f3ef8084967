//! Quantize and dequantize on every tier of this CPU, beside a copy of the same bytes.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::Element;
use siskin::quant::{self, QuantParams, Scheme};
use siskin::{Ctx, Isa, MatMut, MatRef, bf16};

/// Tokens x features of a BERT-base activation: 384 KiB of f32, more than L1 and less than L2.
const SHAPE: (usize, usize) = (128, 768);

fn quantize(c: &mut Criterion) {
    let (rows, cols) = SHAPE;
    let len = rows * cols;
    let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let half: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let params = QuantParams::u8(0.025, 117).unwrap();
    let mut each = vec![params; rows];
    let (mut q, mut back) = (vec![0_u8; len], vec![0.0_f32; len]);

    let mut group = c.benchmark_group("quantize");
    group.throughput(Throughput::Elements(len as u64));
    // The copy reads what quantize reads; dequantize writes as much.
    group.bench_function("copy", |b| b.iter(|| back.copy_from_slice(std::hint::black_box(&x))));
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let x = MatRef::new(&x, rows, cols).unwrap();
        let half = MatRef::new(&half, rows, cols).unwrap();
        group.bench_function(BenchmarkId::new("f32-u8", isa), |b| {
            b.iter(|| quant::quantize(x, &params, MatMut::new(&mut q, rows, cols).unwrap(), &ctx).unwrap());
        });
        group.bench_function(BenchmarkId::new("bf16-u8", isa), |b| {
            b.iter(|| {
                quant::quantize(half, &params, MatMut::new(&mut q, rows, cols).unwrap(), &ctx).unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("f32-u8-per-token", isa), |b| {
            let scheme = Scheme::Asymmetric(Element::U8);
            b.iter(|| {
                let y = MatMut::new(&mut q, rows, cols).unwrap();
                quant::quantize_per_token(x, scheme, y, &mut each, &ctx).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("u8-f32", isa), |b| {
            b.iter(|| {
                let (q, y) = (MatRef::new(&q, rows, cols), MatMut::new(&mut back, rows, cols));
                quant::dequantize(q.unwrap(), &params, y.unwrap(), &ctx).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quantize);
criterion_main!(benches);
