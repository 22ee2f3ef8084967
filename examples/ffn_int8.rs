//! A feed-forward network of two sparse layers that never leaves INT8: x + down(GELU(up(x))).
//!
//! The first layer writes its output as bytes in the layout that the second reads. The scales come from a run in f32 on
//! the same weights, as a calibration would find them, and that run is what the result is compared with.

use siskin::Element;
use siskin::linear::{Activation, Epilogue, Linear, LinearOutput, PackedActivations, gelu_table};
use siskin::quant::{Scheme, per_tensor, quantize, sqnr_db};
use siskin::sparse::{BlockShape, Bsr, Norm, prune};
use siskin::{Ctx, MatMut, MatRef, Result, Scratch};

const TOKENS: usize = 64;
const MODEL: usize = 768;
const HIDDEN: usize = 3072;

fn main() -> Result<()> {
    let ctx = Ctx::new()?;
    let mut scratch = Scratch::new();

    // Weights [out, in], pruned to a fifth of their 4x1 blocks, as your training would leave them; biases; x.
    let mut random = Random(1);
    let up = pruned(&random.vector(HIDDEN * MODEL, 0.12), HIDDEN, MODEL)?;
    let down = pruned(&random.vector(MODEL * HIDDEN, 0.08), MODEL, HIDDEN)?;
    let (up_bias, down_bias) = (random.vector(HIDDEN, 0.5), random.vector(MODEL, 0.5));
    let x = random.vector(TOKENS * MODEL, 1.5);

    // In f32, to know the range of everything and what the result should be.
    let hidden = reference(&x, &up, &up_bias)?;
    let activated: Vec<f32> = hidden.iter().map(|&v| gelu(v)).collect();
    let mut exact = reference(&activated, &down, &down_bias)?;
    exact.iter_mut().zip(&x).for_each(|(y, x)| *y += x);
    let params =
        |v: &[f32], cols| per_tensor(MatRef::new(v, TOKENS, cols)?, Scheme::Asymmetric(Element::U8), &ctx);
    let x_params = params(&x, MODEL)?;
    let before = params(&hidden, HIDDEN)?;
    let after = params(&activated, HIDDEN)?;
    let y_params = params(&exact, MODEL)?;

    // Once: the layers, and GELU as a table from bytes to bytes (`Activation::Gelu` is the exact one).
    let first = Linear::quantize_sparse(&up)?.bias(&up_bias).build(&ctx)?;
    let second = Linear::quantize_sparse(&down)?.bias(&down_bias).build(&ctx)?;
    let table = gelu_table(before, after);
    let mut x_bytes = vec![0u8; TOKENS * MODEL];
    quantize(MatRef::new(&x, TOKENS, MODEL)?, &x_params, MatMut::new(&mut x_bytes, TOKENS, MODEL)?, &ctx)?;

    // For each batch, bytes all the way; these buffers and the scratch memory are there to be used again.
    let (mut packed, mut between) = (PackedActivations::new(), PackedActivations::new());
    let mut y = vec![0u8; TOKENS * MODEL];
    let tokens = MatRef::new(&x_bytes, TOKENS, MODEL)?;
    first.pack((tokens, x_params), &mut packed, &ctx, &mut scratch)?;
    first.forward(
        &packed,
        Epilogue::new().activation(Activation::Table(&table)),
        LinearOutput::packed(&mut between, after, &second),
        &ctx,
        &mut scratch,
    )?;
    second.forward(
        &between,
        Epilogue::new().residual((tokens, x_params)),
        (MatMut::new(&mut y, TOKENS, MODEL)?, y_params),
        &ctx,
        &mut scratch,
    )?;

    let real: Vec<f32> = y.iter().map(|&q| y_params.dequantize(i32::from(q))).collect();
    println!("{} and {} on {}", first.kernel(TOKENS), second.kernel(TOKENS), ctx.isa());
    println!("{:.1} dB of signal to noise, against the same network in f32", sqnr_db(&exact, &real)?);
    Ok(())
}

fn pruned(w: &[f32], out: usize, input: usize) -> Result<Bsr<f32>> {
    prune::magnitude(MatRef::new(w, out, input)?, BlockShape::B4X1, 0.8, Norm::L2)
}

/// x · wᵀ + bias in f32.
fn reference(x: &[f32], w: &Bsr<f32>, bias: &[f32]) -> Result<Vec<f32>> {
    let dense = w.to_dense()?;
    let token = |x: &[f32]| {
        let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        dense.chunks(w.cols()).zip(bias).map(|(w, bias)| dot(w) + bias).collect::<Vec<_>>()
    };
    Ok(x.chunks(w.cols()).flat_map(token).collect())
}

/// v times the normal distribution's integral up to v, which is summed in steps here: slow and plain.
fn gelu(v: f32) -> f32 {
    let (v, steps) = (f64::from(v), 200);
    let step = v / f64::from(steps);
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let integral: f64 = (0..steps).map(|i| density((f64::from(i) + 0.5) * step) * step).sum();
    (v * (0.5 + integral)) as f32
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Numbers around 0, three of four within `size`.
    fn vector(&mut self, len: usize, size: f32) -> Vec<f32> {
        let mut unit = || {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..len).map(|_| (unit() + unit()) * size).collect()
    }
}
