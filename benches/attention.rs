//! Attention of f32, bfloat16 and bytes, with the standard and a clipped softmax, and of one query over a long cache, on every
//! tier of this CPU.
#![allow(missing_docs)] // criterion_group! makes a public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, Clipped, HeadsMut, HeadsRef, Sequences};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, Scratch, TensorRef, bf16, f16};

/// The heads of BERT-base.
const HEADS: usize = 12;
const HEAD_DIM: usize = 64;

/// Numbers that look random, spread by about 1.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    // SplitMix64.
    let random = |i: u64| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let number = |i: usize| (random((seed << 32) + i as u64) >> 40) as f32 / (1 << 22) as f32 - 2.0;
    (0..len).map(number).collect()
}

/// q, k or v in all types.
struct Heads {
    tokens: usize,
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    f16: Vec<f16>,
    u8: Vec<u8>,
    params: QuantParams,
}

impl Heads {
    fn new(tokens: usize, spread: f32, seed: u64) -> Self {
        let f32: Vec<f32> = numbers(tokens * HEADS * HEAD_DIM, seed).iter().map(|v| v * spread).collect();
        let params = QuantParams::u8(spread * 4.0 / 255.0, 128).unwrap();
        Self {
            tokens,
            bf16: f32.iter().map(|&v| bf16::from_f32(v)).collect(),
            f16: f32.iter().map(|&v| f16::from_f32(v)).collect(),
            u8: f32.iter().map(|&v| params.quantize(v) as u8).collect(),
            f32,
            params,
        }
    }

    fn input(&self, dtype: &str) -> TensorRef<'_> {
        let n = self.tokens;
        match dtype {
            "bf16" => TensorRef::from(HeadsRef::new(&self.bf16, n, HEADS, HEAD_DIM).unwrap()),
            "f16" => TensorRef::from(HeadsRef::new(&self.f16, n, HEADS, HEAD_DIM).unwrap()),
            "int8" => TensorRef::from((HeadsRef::new(&self.u8, n, HEADS, HEAD_DIM).unwrap(), self.params)),
            _ => TensorRef::from(HeadsRef::new(&self.f32, n, HEADS, HEAD_DIM).unwrap()),
        }
    }
}

/// Queries over keys in all types, in operations: four for each pair and feature.
fn measure(c: &mut Criterion, name: &str, dtypes: &[&str], q_len: usize, kv_len: usize) {
    // Scores spread by 4, as trained models have them: a few keys of a row weigh most.
    let (q, k, v) = (Heads::new(q_len, 2.0, 1), Heads::new(kv_len, 2.0, 2), Heads::new(kv_len, 1.0, 3));
    let mut y = vec![0f32; q_len * HEADS * HEAD_DIM];
    let mut scratch = Scratch::new();
    let standard = Attention::new(HEADS, HEADS, HEAD_DIM).unwrap();
    let clipped = standard.softmax(Clipped::new(-0.025, 1.0).unwrap());
    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len, kv_len });
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut group = c.benchmark_group(format!("{name}/{isa}"));
        if isa == Isa::Scalar {
            group.sample_size(10);
        }
        group.throughput(Throughput::Elements((4 * HEADS * HEAD_DIM * q_len * kv_len) as u64));
        for dtype in dtypes {
            for (softmax, attention) in [("standard", &standard), ("clipped", &clipped)] {
                group.bench_function(BenchmarkId::new(*dtype, softmax), |b| {
                    b.iter(|| {
                        let out = HeadsMut::new(&mut y, q_len, HEADS, HEAD_DIM).unwrap();
                        let (q, k, v) = (q.input(dtype), k.input(dtype), v.input(dtype));
                        attention
                            .forward(AttentionInputs::new(q, k, v), &call, out, &ctx, &mut scratch)
                            .unwrap();
                    });
                });
            }
        }
        group.finish();
    }
}

/// Whether benchmarks only have to run, not to tell anything.
fn is_test() -> bool {
    !std::env::args().any(|arg| arg == "--bench") || std::env::args().any(|arg| arg == "--test")
}

fn attention(c: &mut Criterion) {
    let lengths: &[usize] = if is_test() { &[20] } else { &[128, 384, 1024] };
    for &len in lengths {
        measure(c, &format!("attention-{len}"), &["f32", "bf16", "int8"], len, len);
    }
}

fn decode(c: &mut Criterion) {
    let keys = if is_test() { 100 } else { 4096 };
    measure(c, &format!("decode-{keys}"), &["f32", "bf16", "f16", "int8"], 1, keys);
}

criterion_group!(benches, attention, decode);
criterion_main!(benches);
