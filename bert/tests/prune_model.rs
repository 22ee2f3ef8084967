//! Pruning a whole encoder: the errors that are reported against those of the encoder itself, and the result against magnitude.

use siskin::attention::Clipped;
use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut, MatRef};
use siskin_bert::prune::{Error, ModelOptions, Options as LayerOptions, Step, prune_model};
use siskin_bert::{
    Batch, Config, Encoder, Family, GateForm, Gating, LinearId, Model, Options, Part, Precision, Pruning,
    Workspace,
};
use std::collections::BTreeMap;

const HIDDEN: usize = 32;

fn model(family: Family) -> Model {
    let mut config = Config::new(family, 2, HIDDEN, 4);
    (config.vocab_size, config.max_positions, config.intermediate_size) = (60, 24, 64);
    Model::generated(config, 7).unwrap()
}

/// Texts of 3 to 20 tokens, of which each depends on the one before.
fn texts(count: u32, seed: u32) -> Batch {
    let mut batch = Batch::new();
    let mut state = seed;
    for text in 0..count {
        let mut ids = vec![1];
        for _ in 0..2 + text % 18 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            ids.push((ids[ids.len() - 1] * 3 + 2 + (state >> 28)) % 60);
        }
        batch.push(&ids).unwrap();
    }
    batch
}

fn options(block: BlockShape, sparsity: f64, most: Option<f64>) -> ModelOptions {
    ModelOptions { layer: LayerOptions::new(block), sparsity, most }
}

fn pruned(model: &Model, options: &ModelOptions) -> (Model, Vec<Step>) {
    let mut steps = Vec::new();
    let ctx = Ctx::serial().unwrap();
    let batch = texts(200, 1);
    let pruned = prune_model(model, batch.tokens(), options, &ctx, |step| steps.push(step)).unwrap();
    (pruned, steps)
}

fn encoder(model: &Model) -> Encoder {
    Encoder::build(model, &Ctx::serial().unwrap(), &Options::new(Precision::F32)).unwrap()
}

/// The mean cosine of the vectors of texts that were not used for pruning.
fn cosine(a: &Model, b: &Model) -> f64 {
    let batch = texts(100, 2);
    let [a, b] = [a, b].map(|model| {
        let mut out = vec![0.0; 100 * HIDDEN];
        let to = MatMut::new(&mut out, 100, HIDDEN).unwrap();
        encoder(model).forward(batch.tokens(), to, &Ctx::serial().unwrap(), &mut Workspace::new()).unwrap();
        out
    });
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let all = a.chunks(HIDDEN).zip(b.chunks(HIDDEN));
    all.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).sum::<f64>() / 100.0
}

fn zero_blocks(model: &Model, id: LinearId, block: BlockShape) -> f64 {
    let kept = siskin::sparse::Bsr::from_dense(model.weight(id).unwrap(), block).unwrap();
    1.0 - kept.num_blocks() as f64 / (kept.block_rows() * kept.block_cols()) as f64
}

#[test]
fn every_layer_is_as_sparse_as_asked_for_and_beats_magnitude() {
    for family in [Family::Bert, Family::DistilBert] {
        let dense = model(family);
        for block in [BlockShape::B4X1, BlockShape::B4X4] {
            let (ours, steps) = pruned(&dense, &options(block, 0.5, None));
            let ids: Vec<LinearId> = steps.iter().map(|step| step.layer).collect();
            assert_eq!(ids, dense.config().linear_layers().collect::<Vec<_>>());
            for &id in &ids {
                assert_eq!(zero_blocks(&ours, id, block), 0.5, "{id}");
            }
            let mut plain = dense.clone();
            plain.prune(&Pruning::uniform(dense.config(), block, 0.5)).unwrap();
            let (ours, plain) = (1.0 - cosine(&ours, &dense), 1.0 - cosine(&plain, &dense));
            assert!(ours < 0.5 * plain, "{family:?} {block}: {ours} from 1, by magnitude {plain}");
        }
    }
}

#[test]
fn nothing_removed_changes_next_to_nothing() {
    let dense = model(Family::Bert);
    let (same, steps) = pruned(&dense, &options(BlockShape::B4X1, 0.0, None));
    assert!(steps.iter().all(|step| step.error < 1e-4), "{steps:?}");
    assert!(cosine(&same, &dense) > 0.99999);
}

/// The inputs of all layers for the texts that pruning saw, as the encoder itself computes them.
fn inputs(model: &Model) -> BTreeMap<LinearId, Vec<f32>> {
    let mut seen = BTreeMap::new();
    let mut see = |ids: &[LinearId], x: MatRef<'_, f32>| {
        seen.insert(ids[0], x.iter_rows().flatten().copied().collect());
    };
    let (batch, ctx) = (texts(200, 1), Ctx::serial().unwrap());
    encoder(model).observe(batch.tokens(), &ctx, &mut Workspace::new(), &mut see).unwrap();
    seen
}

fn outputs(model: &Model, id: LinearId, x: &[f32]) -> Vec<f64> {
    let (w, bias) = (model.weight(id).unwrap(), model.bias(id).unwrap());
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    x.chunks(w.cols())
        .flat_map(|x| (0..w.rows()).map(move |r| dot(x, w.row(r)) + f64::from(bias[r])))
        .collect()
}

/// Errors are those of the outputs (and for layers with a residual, of the sums) of the whole model and of the pruned one.
#[test]
fn reported_errors_are_those_of_the_encoder() {
    let plain = model(Family::Bert);
    let gated = plain.config().clone().with_softmax(Clipped::new(-0.05, 1.0).unwrap());
    let gated = gated.with_gating(Gating::new(GateForm::Linear));
    for dense in [plain, Model::generated(gated, 7).unwrap()] {
        check_errors(&dense);
    }
}

fn check_errors(dense: &Model) {
    let (pruned, steps) = pruned(dense, &options(BlockShape::B4X1, 0.6, None));
    let (whole, less) = (inputs(dense), inputs(&pruned));
    for step in &steps {
        let LinearId { layer, part } = step.layer;
        let own = |part| LinearId { layer, part };
        let (input, residual) = match part {
            Part::Query | Part::Key | Part::Value => (Part::Query, None),
            Part::Output => (Part::Output, Some(Part::Query)),
            Part::Up => (Part::Up, None),
            Part::Down => (Part::Down, Some(Part::Up)),
        };
        let mut wanted = outputs(dense, step.layer, &whole[&own(input)]);
        if let Some(residual) = residual {
            let both = whole[&own(residual)].iter().zip(&less[&own(residual)]);
            wanted
                .iter_mut()
                .zip(both)
                .for_each(|(y, (&whole, &less))| *y += f64::from(whole) - f64::from(less));
        }
        let got = outputs(&pruned, step.layer, &less[&own(input)]);
        let n = dense.bias(step.layer).unwrap().len();
        let tokens = (wanted.len() / n) as f64;
        let mean: Vec<f64> = (0..n).map(|i| wanted.iter().skip(i).step_by(n).sum::<f64>() / tokens).collect();
        let variance: f64 = wanted.iter().enumerate().map(|(i, y)| (y - mean[i % n]).powi(2)).sum();
        let error = got.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / variance;
        assert!(
            (error - step.error).abs() < 0.01 * error + 1e-3,
            "{}: {error}, says {}",
            step.layer,
            step.error
        );
    }
}

#[test]
fn sparsity_moves_to_where_it_costs_least() {
    let dense = model(Family::Bert);
    let (ours, steps) = pruned(&dense, &options(BlockShape::B4X1, 0.6, Some(0.9)));
    assert!((ours.sparsity() - 0.6).abs() < 0.01, "{}", ours.sparsity());
    assert!(steps.iter().all(|step| step.sparsity <= 0.9));
    let (least, largest) =
        steps.iter().fold((1.0f64, 0.0f64), |(l, h), s| (l.min(s.sparsity), h.max(s.sparsity)));
    assert!(largest > least + 0.05, "{steps:?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let (dense, ctx) = (model(Family::Bert), Ctx::serial().unwrap());
    let prune = |batch: &Batch, options| {
        prune_model(&dense, batch.tokens(), &options, &ctx, |_| ()).unwrap_err().to_string()
    };
    let good = options(BlockShape::B4X1, 0.5, None);
    let mut batch = texts(3, 1);
    assert!(prune(&batch, options(BlockShape::B4X1, 1.0, None)).contains("sparsity: expected 0 to below 1"));
    assert!(prune(&batch, options(BlockShape::B4X1, 0.5, Some(0.3))).contains("most: expected at least"));
    let mut undamped = good;
    undamped.layer.damping = 0.0;
    let error = prune_model(&dense, batch.tokens(), &undamped, &ctx, |_| ()).unwrap_err();
    assert!(
        matches!(&error, Error::Layer { name, .. } if name == "encoder.layer.0.attention.self.query"),
        "{error}"
    );
    assert!(prune(&Batch::new(), good).contains("texts: expected a token or more, got 0"));
    batch.push(&[1, 60]).unwrap();
    assert!(prune(&batch, good).contains("vocabulary: expected tokens below 60, got 60"));
    let mut batch = Batch::new();
    batch.push(&[2; 25]).unwrap();
    assert!(prune(&batch, good).contains("text 0: expected at most 24 tokens, got 25"));
}
