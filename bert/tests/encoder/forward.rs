//! What an encoder computes, against the same in f64.

use crate::common::{batch, calibration, config, embed, encoders, least_cosine};
use crate::reference;
use siskin::sparse::BlockShape;
use siskin::{Ctx, MatMut, MatRef};
use siskin_bert::{
    Activation, Encoder, Error, Family, Format, LinearId, Model, Options, Part, Pooling, PoolingMode,
    Precision, Pruning, Stage, Tokens, Visitor, Workspace,
};

#[test]
fn all_precisions_are_near_the_reference() {
    let ctx = Ctx::new().unwrap();
    for family in [Family::Bert, Family::DistilBert] {
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            let mut config = config(family);
            config.activation = activation;
            let model = Model::generated(config, 3).unwrap();
            let least = [1.0 - 1e-9, 0.9999, 0.999, 0.99, 0.98];
            for ((name, encoder), least) in encoders(&model, &ctx).into_iter().zip(least) {
                let got = least_cosine(&model, &encoder, &ctx);
                assert!(got >= least, "{family:?} {activation:?} {name}: {got}");
            }
        }
    }
}

#[test]
fn floats_are_those_of_the_reference_token_by_token() {
    let ctx = Ctx::new().unwrap();
    let model = Model::generated(config(Family::Bert), 9).unwrap();
    let encoder = Encoder::build(&model, &ctx, &Options::new(Precision::F32)).unwrap();
    let text = batch(&[33], 8);
    let mut got = vec![0.0; 33 * 32];
    let out = MatMut::new(&mut got, 33, 32).unwrap();
    encoder.hidden_states(text.tokens(), out, &ctx, &mut Workspace::new()).unwrap();
    let expected = reference::hidden_states(&model, text.tokens().ids());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() < 1e-4, "{i}: {got} {expected}");
    }
}

#[test]
fn every_pooling() {
    let ctx = Ctx::new().unwrap();
    for mode in [PoolingMode::Mean, PoolingMode::Cls] {
        for normalize in [false, true] {
            let model = Model::generated(config(Family::Bert), 4).unwrap();
            let model = model.with_pooling(Pooling { mode, normalize });
            let encoder = Encoder::build(&model, &ctx, &Options::default()).unwrap();
            let text = batch(&[6], 2);
            let expected = reference::embed(&model, text.tokens().ids());
            for (got, expected) in embed(&encoder, text.tokens(), &ctx).iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-4, "{mode:?} {normalize}: {got} {expected}");
            }
        }
    }
}

#[test]
fn pruned_layers_are_found_and_kept() {
    let ctx = Ctx::new().unwrap();
    for block in [BlockShape::B1X1, BlockShape::B4X1, BlockShape::B4X4, BlockShape::B16X4, BlockShape::B1X4] {
        let mut model = Model::generated(config(Family::Bert), 6).unwrap();
        assert_eq!(model.block_shape(), None);
        // Query, key and value are not stored alike: query stays dense.
        let mut pruning = Pruning::uniform(model.config(), block, 0.75);
        pruning = pruning.layer(LinearId { layer: 0, part: Part::Query }, block, 0.0);
        model.prune(&pruning).unwrap();
        assert!((0.70..0.76).contains(&model.sparsity()), "{block:?}: {}", model.sparsity());
        assert_eq!(model.block_shape(), Some(block));
        let least = [1.0 - 1e-9, 0.9999, 0.999, 0.99, 0.985];
        for ((name, encoder), least) in encoders(&model, &ctx).into_iter().zip(least) {
            let got = least_cosine(&model, &encoder, &ctx);
            assert!(got >= least, "{block:?} {name}: {got}");
        }
        let bytes = |format| {
            let options = Options::new(Precision::F32).format(format);
            Encoder::build(&model, &ctx, &options).unwrap().packed_bytes()
        };
        assert!(bytes(Format::Auto) < bytes(Format::Dense), "{block:?}");
        assert!(bytes(Format::Blocks(block)) < bytes(Format::Dense), "{block:?}");
    }
}

#[test]
fn nothing_is_embedded_as_nothing() {
    let ctx = Ctx::new().unwrap();
    let model = Model::generated(config(Family::Bert), 1).unwrap();
    for (name, encoder) in encoders(&model, &ctx) {
        assert!(embed(&encoder, Tokens::new(&[], &[0]).unwrap(), &ctx).is_empty(), "{name}");
        let zeros = embed(&encoder, Tokens::new(&[], &[0, 0, 0]).unwrap(), &ctx);
        assert_eq!(zeros, [0.0; 64], "{name}");
        let some = embed(&encoder, Tokens::new(&[1, 2], &[0, 0, 2, 2]).unwrap(), &ctx);
        let alone = embed(&encoder, Tokens::new(&[1, 2], &[0, 2]).unwrap(), &ctx);
        assert_eq!(some, [&[0.0; 32][..], &alone, &[0.0; 32]].concat(), "{name}");
    }
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let ctx = Ctx::new().unwrap();
    let model = Model::generated(config(Family::Bert), 1).unwrap();
    let encoder = Encoder::build(&model, &ctx, &Options::default()).unwrap();
    let call = |ids: &[u32], cu_seqlens: &[i32], rows: usize| {
        let mut out = vec![0.0; rows * 32];
        let out = MatMut::new(&mut out, rows, 32).unwrap();
        let tokens = Tokens::new(ids, cu_seqlens)?;
        encoder.forward(tokens, out, &ctx, &mut Workspace::new())
    };
    assert!(call(&[1, 2], &[0, 2], 1).is_ok());
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(message(call(&[1; 161], &[0, 161], 1)), "text 0: expected at most 160 tokens, got 161");
    assert_eq!(message(call(&[1, 50], &[0, 2], 1)), "vocabulary: expected tokens below 50, got 50");
    assert_eq!(message(call(&[1], &[0, 1], 2)), "out: expected 1 texts x 32 features, got 2 x 32");
    for ends in [&[][..], &[1, 2], &[0, 1], &[0, 3, 2], &[0, -1, 2]] {
        assert!(message(call(&[1, 2], ends, 1)).starts_with("cu_seqlens: expected"), "{ends:?}");
    }
    assert!(
        message(Encoder::build(&model, &ctx, &Options::new(Precision::Int8Static)).map(drop))
            .contains("calibration")
    );
    let other = Model::generated(siskin_bert::Config::new(Family::Bert, 1, 32, 4), 1).unwrap();
    let ranges = calibration(&model, &ctx);
    assert!(Encoder::build(&other, &ctx, &Options::calibrated(&ranges)).is_err());
}

#[derive(Default)]
struct Seen {
    inputs: Vec<(Vec<LinearId>, Vec<f32>)>,
    outputs: Vec<(LinearId, Vec<f32>)>,
}

impl Visitor for Seen {
    fn input(&mut self, ids: &[LinearId], x: MatRef<'_, f32>) {
        self.inputs.push((ids.to_vec(), x.iter_rows().flatten().copied().collect()));
    }
    fn output(&mut self, id: LinearId, y: MatRef<'_, f32>) {
        self.outputs.push((id, y.iter_rows().flatten().copied().collect()));
    }
}

#[test]
fn a_visitor_sees_the_input_of_every_linear_layer() {
    let ctx = Ctx::new().unwrap();
    let model = Model::generated(config(Family::Bert), 1).unwrap();
    let texts = batch(&[5, 9], 3);
    for precision in [Precision::F32, Precision::Int8] {
        let encoder = Encoder::build(&model, &ctx, &Options::new(precision)).unwrap();
        let mut seen = Seen::default();
        encoder.observe(texts.tokens(), &ctx, &mut Workspace::new(), &mut seen).unwrap();
        let ids: Vec<LinearId> = seen.inputs.iter().flat_map(|(ids, _)| ids.clone()).collect();
        assert_eq!(ids, model.config().linear_layers().collect::<Vec<_>>());
        let of_attention = |id: &LinearId| matches!(id.part, Part::Query | Part::Key | Part::Value);
        let ids: Vec<LinearId> = seen.outputs.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, model.config().linear_layers().filter(of_attention).collect::<Vec<_>>());
        // Outputs are weights times inputs.
        for (id, y) in &seen.outputs {
            let (_, x) = seen.inputs.iter().find(|(ids, _)| ids.contains(id)).unwrap();
            let (w, b) = (model.weight(*id).unwrap(), model.bias(*id).unwrap());
            let x = &x[4 * w.cols()..][..w.cols()];
            for (n, &got) in y[4 * w.rows()..][..w.rows()].iter().enumerate() {
                let expected: f32 = w.row(n).iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b[n];
                let most = if precision == Precision::F32 { 1e-4 } else { 0.1 };
                assert!((got - expected).abs() < most, "{id} {n}: {got} {expected}");
            }
        }
    }
    let ranges = calibration(&model, &ctx);
    let encoder = Encoder::build(&model, &ctx, &Options::calibrated(&ranges)).unwrap();
    assert!(encoder.observe(texts.tokens(), &ctx, &mut Workspace::new(), &mut Seen::default()).is_err());
}

#[test]
fn stages_are_measured_when_asked_for() {
    let ctx = Ctx::new().unwrap();
    let model = Model::generated(config(Family::Bert), 1).unwrap();
    let encoder = Encoder::build(&model, &ctx, &Options::default()).unwrap();
    let (texts, mut memory, mut out) = (batch(&[30], 3), Workspace::new(), vec![0.0; 32]);
    let mut call = |memory: &mut Workspace| {
        encoder.forward(texts.tokens(), MatMut::new(&mut out, 1, 32).unwrap(), &ctx, memory).unwrap();
        memory.take_stages()
    };
    assert!(call(&mut memory).total().is_zero());
    memory.measure_stages(true);
    let times = call(&mut memory);
    for stage in Stage::ALL {
        assert!(!times.of(stage).is_zero(), "{}", stage.name());
    }
    assert!(memory.take_stages().total().is_zero());
}
