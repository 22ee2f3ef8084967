//! The time of an encoder on one thread, and where it goes.
//!
//! `cargo run --release -p siskin-bert --example speed -- MODEL PRECISION [SPARSITY [BLOCK [TEXTSxTOKENS ..]]]`: MODEL is a folder, or one of
//! minilm, bert-mini, distilbert, bert-base and bert-large with generated weights; PRECISION is f32, bf16, int8, static or exact
//! (static, with GELU in floats); weights are pruned by magnitude, in blocks such as 4x1.

use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Config, Encoder, Model, Options, PRESETS, Precision, Pruning, Range, Stage, Workspace,
};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default.to_string(), String::clone);
    let (name, precision) = (argument(0, "minilm"), argument(1, "f32"));
    let (sparsity, block): (f64, String) = (argument(2, "0").parse()?, argument(3, "4x1"));
    let mut model = match PRESETS.contains(&name.as_str()) {
        true => Model::generated(Config::preset(&name)?, 1)?,
        false => Model::read(&name)?,
    };
    if sparsity > 0.0 {
        let (rows, cols) = block.split_once('x').ok_or("a block is such as 4x1")?;
        let block = BlockShape::new(rows.parse()?, cols.parse()?)?;
        model.prune(&Pruning::uniform(&model.config().clone(), block, sparsity))?;
    }
    let ctx = Ctx::serial()?;
    let calibration = |ctx: &Ctx| Calibration::collect(&model, [batch(4, 32).tokens()], Range::Absolute, ctx);
    let encoder = match precision.as_str() {
        "f32" => Encoder::build(&model, &ctx, &Options::new(Precision::F32))?,
        "bf16" => Encoder::build(&model, &ctx, &Options::new(Precision::Bf16))?,
        "int8" => Encoder::build(&model, &ctx, &Options::new(Precision::Int8))?,
        "static" => Encoder::build(&model, &ctx, &Options::calibrated(&calibration(&ctx)?))?,
        "exact" => Encoder::build(&model, &ctx, &Options::calibrated(&calibration(&ctx)?).exact_gelu(true))?,
        _ => return Err("expected f32, bf16, int8, static or exact".into()),
    };
    let mut memory = Workspace::new();
    let shapes: Vec<String> = match arguments.get(4..) {
        Some(given) if !given.is_empty() => given.to_vec(),
        _ => ["1x16", "1x128", "1x512", "8x128"].map(String::from).to_vec(),
    };
    for shape in shapes {
        let (texts, length) = shape.split_once('x').ok_or("a shape is such as 1x128")?;
        let (texts, length): (usize, usize) = (texts.parse()?, length.parse()?);
        let batch = batch(texts, length);
        let hidden = encoder.config().hidden_size;
        let mut out = vec![0.0; texts * hidden];
        let mut call = |memory: &mut Workspace| -> Result<Duration, siskin_bert::Error> {
            let start = Instant::now();
            encoder.forward(batch.tokens(), MatMut::new(&mut out, texts, hidden)?, &ctx, memory)?;
            Ok(start.elapsed())
        };
        call(&mut memory)?;
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < 5 || start.elapsed() < Duration::from_millis(1500) {
            times.push(call(&mut memory)?);
        }
        times.sort();
        memory.measure_stages(true);
        memory.take_stages();
        for _ in 0..times.len() / 2 + 1 {
            call(&mut memory)?;
        }
        memory.measure_stages(false);
        let stages = memory.take_stages();
        let part = |stage: Stage| {
            let share = 100.0 * stages.of(stage).as_secs_f64() / stages.total().as_secs_f64();
            format!("{} {share:.1}", stage.name())
        };
        println!(
            "{name} {precision} {sparsity} {block} {texts}x{length}: min {:.3} median {:.3} ms; %: {}",
            times[0].as_secs_f64() * 1e3,
            times[times.len() / 2].as_secs_f64() * 1e3,
            Stage::ALL.map(part).join(", ")
        );
    }
    Ok(())
}

/// Texts of random tokens.
fn batch(texts: usize, length: usize) -> Batch {
    let (mut batch, mut state) = (Batch::new(), 1u32);
    for _ in 0..texts {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1000 + (state >> 16) % 20_000
        };
        let ids: Vec<u32> = (0..length).map(|_| next()).collect();
        batch.push(&ids).expect("few tokens");
    }
    batch
}
