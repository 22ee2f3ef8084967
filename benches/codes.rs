//! Distances between binary codes of 16, 64 and 256 bits, and the ten nearest of 64 bits, on every tier of this CPU.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::ecoformer::BitCodes;
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

/// Codes that look random.
fn codes(len: usize, bits: usize, seed: u64) -> BitCodes {
    // SplitMix64.
    let random = |i: usize| {
        let z = ((seed << 32) + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let signs: Vec<i8> = (0..len * bits).map(|i| if random(i) & 1 == 1 { 1 } else { -1 }).collect();
    BitCodes::from_signs(MatRef::new(&signs, len, bits).unwrap()).unwrap()
}

/// Whether benchmarks only have to run, not to tell anything.
fn is_test() -> bool {
    !std::env::args().any(|arg| arg == "--bench") || std::env::args().any(|arg| arg == "--test")
}

/// In pairs. The distances of 512 x 512 stay in the second-level cache, those of 3136 x 3136 (PVTv2's first stage) do not.
fn pairs(c: &mut Criterion) {
    const K: usize = 10;
    let lengths: &[usize] = if is_test() { &[20] } else { &[512, 3136] };
    let mut scratch = Scratch::new();
    for (isa, &n) in Isa::supported().flat_map(|isa| lengths.iter().map(move |n| (isa, n))) {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut group = c.benchmark_group(format!("codes-{n}/{isa}"));
        if isa == Isa::Scalar {
            group.sample_size(10);
        }
        group.throughput(Throughput::Elements((n * n) as u64));
        for bits in [16, 64, 256] {
            let (a, b) = (codes(n, bits, 1), codes(n, bits, 2));
            let mut out = vec![0u16; n * n];
            group.bench_function(BenchmarkId::new("hamming", bits), |bench| {
                bench.iter(|| {
                    let out = MatMut::new(&mut out, n, n).unwrap();
                    a.hamming(&b, out, &ctx, &mut scratch).unwrap();
                });
            });
        }
        let (a, b) = (codes(n, 64, 1), codes(n, 64, 2));
        let (mut indices, mut distances) = (vec![0u32; n * K], vec![0u16; n * K]);
        group.bench_function(BenchmarkId::new("nearest", 64), |bench| {
            bench.iter(|| {
                let indices = MatMut::new(&mut indices, n, K).unwrap();
                let distances = MatMut::new(&mut distances, n, K).unwrap();
                a.nearest(&b, indices, distances, &ctx, &mut scratch).unwrap();
            });
        });
        group.finish();
    }
}

criterion_group!(benches, pairs);
criterion_main!(benches);
