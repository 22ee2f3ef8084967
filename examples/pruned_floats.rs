//! A weight pruned but not quantized: f32, bfloat16, and 8 bits in groups of 64, beside the dense f32 layer.

use siskin::linear::{Epilogue, Linear};
use siskin::quant::sqnr_db;
use siskin::sparse::{BlockShape, Norm, prune};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16};
use std::time::Instant;

const M: usize = 128;
const N: usize = 1024;

fn main() -> siskin::Result<()> {
    let number = |i: usize| ((i as f32 * 0.37).sin() + (i as f32 * 0.011).cos()) * 0.05;
    let w: Vec<f32> = (0..N * N).map(number).collect();
    let x: Vec<f32> = (0..M * N).map(|i| (i as f32 * 0.36).cos()).collect();
    let ctx = Ctx::serial()?;
    let kept = prune::magnitude(MatRef::new(&w, N, N)?, BlockShape::B4X1, 0.8, Norm::L2)?;
    let dense = kept.to_dense()?;
    let dense = MatRef::new(&dense, N, N)?;

    let run = |layer: &Linear| -> siskin::Result<(Vec<f32>, f64)> {
        let (mut y, mut scratch) = (vec![0.0; M * N], Scratch::new());
        let mut best = f64::MAX;
        for _ in 0..10 {
            let start = Instant::now();
            let x = MatRef::new(&x, M, N)?;
            layer.forward(x, Epilogue::new(), MatMut::new(&mut y, M, N)?, &ctx, &mut scratch)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((y, best))
    };
    // All of the same, pruned matrix.
    let (exact, time) = run(&Linear::dense(dense).build(&ctx)?)?;
    for (name, layer) in [
        ("4x1 f32", Linear::sparse(&kept).build(&ctx)?),
        ("4x1 bf16", Linear::sparse(&kept.map(|_, v| bf16::from_f32(v))).build(&ctx)?),
        ("4x1 i8 weights", Linear::quantize_sparse(&kept)?.weight_only().build(&ctx)?),
        ("dense i8 weights by 64", Linear::quantize_dense_groups(dense, 64)?.build(&ctx)?),
    ] {
        let (y, own) = run(&layer)?;
        let (bytes, db) = (layer.packed_bytes() >> 10, sqnr_db(&exact, &y)?);
        println!("{name:<22} {bytes:>5} KiB, {db:>6.1} dB, {:.1} times the speed of dense f32", time / own);
    }
    Ok(())
}
