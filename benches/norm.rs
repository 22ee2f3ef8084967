//! LayerNorm with a residual on every tier of this CPU: to floats, to bytes, to both.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::norm::{LayerNorm, NormOutput};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

/// Tokens x features of MiniLM and of BERT-base.
const SHAPES: [(usize, usize); 2] = [(128, 384), (128, 768)];

fn layer_norm(c: &mut Criterion) {
    for (rows, cols) in SHAPES {
        let len = rows * cols;
        let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let norm = LayerNorm::new(&vec![1.5; cols], &vec![0.25; cols], 1e-12).unwrap();
        let params = QuantParams::u8(0.025, 117).unwrap();
        let mut each = vec![params; rows];
        let (mut q, mut y, mut scratch) = (vec![0_u8; len], vec![0.0_f32; len], Scratch::new());
        let x = MatRef::new(&x, rows, cols).unwrap();

        let mut group = c.benchmark_group(format!("layer_norm/{rows}x{cols}"));
        group.throughput(Throughput::Elements(len as u64));
        for isa in Isa::supported() {
            let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
            group.bench_function(BenchmarkId::new("f32", isa), |b| {
                b.iter(|| {
                    let to = MatMut::new(&mut y, rows, cols).unwrap();
                    norm.forward(x, Some(x), to, &ctx, &mut scratch).unwrap();
                });
            });
            group.bench_function(BenchmarkId::new("u8", isa), |b| {
                b.iter(|| {
                    let to = (MatMut::new(&mut q, rows, cols).unwrap(), params);
                    norm.forward(x, Some(x), to, &ctx, &mut scratch).unwrap();
                });
            });
            group.bench_function(BenchmarkId::new("f32-u8-per-token", isa), |b| {
                b.iter(|| {
                    let to = NormOutput::from(MatMut::new(&mut y, rows, cols).unwrap());
                    let bytes = (MatMut::new(&mut q, rows, cols).unwrap(), &mut each[..]);
                    norm.forward(x, Some(x), to.with_bytes(bytes), &ctx, &mut scratch).unwrap();
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layer_norm);
criterion_main!(benches);
