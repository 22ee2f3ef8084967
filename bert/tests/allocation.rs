//! Once a workspace has seen the largest batch, calls allocate nothing.
//!
//! A binary of its own: a counter stands in for the allocator of the whole process.
#![allow(unsafe_code)]

#[path = "../../tests/common/counting.rs"]
mod counting;

use counting::allocations;
use siskin::attention::Clipped;
use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut};
use siskin_bert::{
    Batch, Calibration, Config, Encoder, Family, GateForm, Gating, LinearId, Model, Options, Part, Precision,
    Pruning, Range, Workspace,
};

fn batch(lengths: &[usize]) -> Batch {
    let mut batch = Batch::new();
    for &length in lengths {
        let ids: Vec<u32> = (0..length as u32).map(|i| i * 7 % 50).collect();
        batch.push(&ids).unwrap();
    }
    batch
}

#[test]
fn calls_allocate_nothing_after_the_largest() {
    let ctx = Ctx::serial().unwrap();
    let mut config = Config::new(Family::Bert, 2, 32, 4);
    (config.vocab_size, config.max_positions) = (50, 160);
    let dense = Model::generated(config, 1).unwrap();
    let mut pruned = dense.clone();
    pruned.prune(&Pruning::uniform(dense.config(), BlockShape::B4X1, 0.8)).unwrap();
    let gating = Gating::new(GateForm::Mlp2).pooled();
    let clipped = Clipped::new(-0.02, 1.0).unwrap();
    let gated =
        Model::generated(dense.config().clone().with_softmax(clipped).with_gating(gating), 1).unwrap();
    let mut mixed = dense.clone();
    let key = LinearId { layer: 1, part: Part::Key };
    mixed.prune(&Pruning::new().layer(key, BlockShape::B4X4, 0.8)).unwrap();
    // The first has the most tokens, the most texts and the longest text.
    let (large, small) = (batch(&[160, 40, 129, 30, 2]), batch(&[3, 130, 1, 0, 12]));
    for model in [dense, pruned, mixed, gated] {
        let ranges = Calibration::collect(&model, [large.tokens()], Range::Absolute, &ctx).unwrap();
        for options in [
            Options::new(Precision::F32),
            Options::new(Precision::Bf16),
            Options::new(Precision::Int8),
            Options::calibrated(&ranges),
        ] {
            let encoder = Encoder::build(&model, &ctx, &options).unwrap();
            let (mut memory, mut out) = (Workspace::new(), vec![0.0; 5 * 32]);
            let mut call = |batch: &Batch| {
                let texts = batch.texts();
                let to = MatMut::new(&mut out[..texts * 32], texts, 32).unwrap();
                allocations(|| encoder.forward(batch.tokens(), to, &ctx, &mut memory).unwrap())
            };
            assert!(call(&large) > 0, "the counter counts");
            for (i, batch) in [&large, &small, &large].into_iter().enumerate() {
                assert_eq!(call(batch), 0, "call {i} of {:?}", encoder.precision());
            }
        }
    }
}
