//! Real weights to a sparse INT8 layer, real numbers in and out.

use siskin::linear::{Epilogue, Linear};
use siskin::sparse::{BlockShape, Norm, prune};
use siskin::{Ctx, MatMut, MatRef, Scratch};

fn main() -> siskin::Result<()> {
    // w [out 768, in 768] as in a PyTorch `Linear`, x [32 tokens, 768].
    let w: Vec<f32> = (0..768 * 768).map(|i| (i as f32 * 0.37).sin() * 0.05).collect();
    let x: Vec<f32> = (0..32 * 768).map(|i| (i as f32 * 0.36).cos()).collect();
    let mut y = vec![0.0; 32 * 768];

    let ctx = Ctx::new()?;
    let kept = prune::magnitude(MatRef::new(&w, 768, 768)?, BlockShape::B4X1, 0.8, Norm::L2)?;
    let layer = Linear::quantize_sparse(&kept)?.build(&ctx)?;
    let input = MatRef::new(&x, 32, 768)?;
    let output = MatMut::new(&mut y, 32, 768)?;
    layer.forward(input, Epilogue::new(), output, &ctx, &mut Scratch::new())?;

    let exact: f32 = kept.to_dense()?[..768].iter().zip(&x).map(|(w, x)| w * x).sum();
    println!("{}: y[0] = {:.3}, in f32 {exact:.3}", ctx.isa(), y[0]);
    Ok(())
}
