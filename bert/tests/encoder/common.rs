//! Small models and texts of random tokens.

use crate::reference;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Config, Encoder, Family, Model, Options, Precision, Range, Source, Tokens, Workspace,
};

/// Two layers of 32 features, 4 heads.
pub fn config(family: Family) -> Config {
    let mut config = Config::new(family, 2, 32, 4);
    config.vocab_size = 50;
    config.max_positions = 160;
    config
}

/// Texts of these lengths, of random tokens.
pub fn batch(lengths: &[usize], seed: u32) -> Batch {
    let (mut batch, mut state) = (Batch::new(), seed);
    for &length in lengths {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % 50
        };
        let ids: Vec<u32> = (0..length).map(|_| next()).collect();
        batch.push(&ids).unwrap();
    }
    batch
}

pub fn calibration(model: &dyn Source, ctx: &Ctx) -> Calibration {
    let samples = batch(&[5, 17, 1, 140, 23, 9, 31, 12], 77);
    Calibration::collect(model, [samples.tokens()], Range::Absolute, ctx).unwrap()
}

/// An encoder of each precision.
pub fn encoders(model: &dyn Source, ctx: &Ctx) -> Vec<(&'static str, Encoder)> {
    let calibration = calibration(model, ctx);
    let build = |options: Options<'_>| Encoder::build(model, ctx, &options).unwrap();
    vec![
        ("f32", build(Options::new(Precision::F32))),
        ("bf16", build(Options::new(Precision::Bf16))),
        ("int8", build(Options::new(Precision::Int8))),
        ("int8 static, exact GELU", build(Options::calibrated(&calibration).exact_gelu(true))),
        ("int8 static", build(Options::calibrated(&calibration))),
    ]
}

pub fn embed(encoder: &Encoder, tokens: Tokens<'_>, ctx: &Ctx) -> Vec<f32> {
    let hidden = encoder.config().hidden_size;
    let mut out = vec![f32::NAN; tokens.texts() * hidden];
    let to = MatMut::new(&mut out, tokens.texts(), hidden).unwrap();
    encoder.forward(tokens, to, ctx, &mut Workspace::new()).unwrap();
    out
}

/// The cosine of the angle between two vectors.
pub fn cosine<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    let dot = a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).sum::<f64>();
    let length = |squares: f64| squares.sqrt();
    let (aa, bb) = (
        a.iter().map(|&v| v.into() * v.into()).sum::<f64>(),
        b.iter().map(|&v| v.into() * v.into()).sum::<f64>(),
    );
    dot / (length(aa) * length(bb))
}

/// The least cosine of any of some texts, short and long, to f64.
pub fn least_cosine(model: &Model, encoder: &Encoder, ctx: &Ctx) -> f64 {
    const LENGTHS: [usize; 6] = [7, 1, 150, 16, 3, 2];
    let texts = batch(&LENGTHS, 5);
    let got = embed(encoder, texts.tokens(), ctx);
    let ends = texts.tokens().cu_seqlens();
    let hidden = model.config().hidden_size;
    let each = (0..LENGTHS.len()).map(|text| {
        let ids = &texts.tokens().ids()[ends[text] as usize..ends[text + 1] as usize];
        cosine(&got[text * hidden..][..hidden], &reference::embed(model, ids))
    });
    each.fold(1.0, f64::min)
}
