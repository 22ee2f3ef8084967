//! The clipped softmax and gates.

use crate::checkpoint::{edit_config, message, rewrite, saved, vectors};
use crate::common::{batch, config, cosine, embed, encoders, least_cosine};
use crate::reference;
use serde_json::json;
use siskin::attention::{Clipped, Softmax};
use siskin::{Ctx, MatMut};
use siskin_bert::{Config, Encoder, Family, GateForm, Gating, Model, Options, Workspace};
use tempfile::TempDir;

/// All that attention can be beside BERT's.
pub fn variants(family: Family) -> Vec<Config> {
    let config = || config(family);
    let gated = |gating| config().with_gating(gating);
    let clipped = |gamma, zeta| Clipped::new(gamma, zeta).unwrap();
    vec![
        config().with_softmax(clipped(-0.03, 1.0)),
        config().with_softmax(clipped(-0.1, 1.1)),
        config().with_softmax(Clipped::from_alpha(4.0, 160).unwrap()),
        gated(Gating::new(GateForm::Unconditional)),
        gated(Gating::new(GateForm::Linear)),
        gated(Gating::new(GateForm::Linear).pooled()),
        gated(Gating::new(GateForm::Linear).fine_tuned(0.5)),
        gated(Gating::new(GateForm::Mlp)),
        gated(Gating::new(GateForm::Mlp2).pooled()).with_softmax(clipped(-0.02, 1.0)),
        gated(Gating::new(GateForm::AllFeatures)),
    ]
}

/// What a variant is, in messages.
pub fn name(config: &Config) -> String {
    format!("{:?} {:?} {:?}", config.family, config.softmax, config.gating)
}

#[test]
fn it_is_that_of_the_reference_in_every_precision() {
    let ctx = Ctx::new().unwrap();
    for config in [&variants(Family::Bert)[..], &variants(Family::DistilBert)[7..9]].concat() {
        let model = Model::generated(config, 3).unwrap();
        let least = [1.0 - 1e-9, 0.9999, 0.9995, 0.98, 0.975];
        for ((precision, encoder), least) in encoders(&model, &ctx).into_iter().zip(least) {
            let got = least_cosine(&model, &encoder, &ctx);
            assert!(got >= least, "{} {precision}: {got}", name(model.config()));
        }
    }
}

#[test]
fn floats_are_those_of_the_reference_token_by_token() {
    let ctx = Ctx::new().unwrap();
    let text = batch(&[33], 8);
    for config in variants(Family::Bert) {
        let model = Model::generated(config, 9).unwrap();
        let encoder = Encoder::build(&model, &ctx, &Options::default()).unwrap();
        let mut got = vec![0.0; 33 * 32];
        let out = MatMut::new(&mut got, 33, 32).unwrap();
        encoder.hidden_states(text.tokens(), out, &ctx, &mut Workspace::new()).unwrap();
        let expected = reference::hidden_states(&model, text.tokens().ids());
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(
                (f64::from(*got) - expected).abs() < 1e-4,
                "{} {i}: {got} {expected}",
                name(model.config())
            );
        }
    }
}

/// So that no precision can be near the reference without computing them.
#[test]
fn it_matters() {
    let ctx = Ctx::serial().unwrap();
    let text = batch(&[150], 5);
    for config in variants(Family::Bert) {
        let model = Model::generated(config, 3).unwrap();
        let mut without = model.config().clone();
        (without.softmax, without.gating) = (Softmax::Standard, None);
        let without = Model::generated(without, 3).unwrap();
        let got = cosine(
            &embed(&Encoder::build(&model, &ctx, &Options::default()).unwrap(), text.tokens(), &ctx),
            &embed(&Encoder::build(&without, &ctx, &Options::default()).unwrap(), text.tokens(), &ctx),
        );
        assert!(got < 0.96, "{}: {got}", name(model.config()));
    }
}

#[test]
fn it_is_saved_and_read_again() {
    for config in [variants(Family::Bert), variants(Family::DistilBert)].concat() {
        let (dir, model) = (TempDir::new().unwrap(), Model::generated(config, 12).unwrap());
        model.save(dir.path()).unwrap();
        let again = Model::read(dir.path()).unwrap();
        assert_eq!(again.config(), model.config());
        assert_eq!(vectors(&again), vectors(&model), "{}", name(model.config()));
    }
}

#[test]
fn softmax_is_asked_for_as_in_the_original() {
    let clipped = |gamma, zeta| Softmax::from(Clipped::new(gamma, zeta).unwrap());
    for (fields, expected) in [
        (json!({ "attn_softmax": "vanilla" }), Softmax::Standard),
        (json!({ "attn_softmax": null, "alpha": null }), Softmax::Standard),
        (json!({ "attn_softmax": "clipped(-.025:1)" }), clipped(-0.025, 1.0)),
        (json!({ "attn_softmax": "clipped(0:1.003)" }), clipped(0.0, 1.003)),
        (json!({ "attn_softmax": "clipped(-0.005:1.005)" }), clipped(-0.005, 1.005)),
        (json!({ "alpha": 4, "max_seq_length": 128 }), clipped(-4.0 / 128.0, 1.0)),
        (json!({ "alpha": 3.2, "max_seq_length": 128, "attn_softmax": "vanilla" }), clipped(-0.025, 1.0)),
    ] {
        let mut config = config(Family::Bert).to_json();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(Config::from_json(&config).unwrap().softmax, expected, "{fields}");
    }
}

#[test]
fn tensors_of_gates_are_called_as_in_the_original() {
    for (form, expected) in [
        (GateForm::Unconditional, vec![("alpha", vec![4])]),
        (GateForm::Linear, vec![("alpha.0.weight", vec![1, 8]), ("alpha.3.bias", vec![1])]),
        (
            GateForm::Mlp,
            vec![
                ("alpha.0.0.weight", vec![2, 8]),
                ("alpha.1.0.bias", vec![2]),
                ("alpha.2.2.weight", vec![1, 2]),
                ("alpha.3.2.bias", vec![1]),
            ],
        ),
        (GateForm::Mlp2, vec![("alpha.3.0.weight", vec![8, 8]), ("alpha.0.2.weight", vec![1, 8])]),
        (GateForm::AllFeatures, vec![("alpha.weight", vec![4, 32]), ("alpha.bias", vec![4])]),
    ] {
        let (dir, _, tensors) = saved(config(Family::Bert).with_gating(Gating::new(form)));
        for (name, shape) in expected {
            let full = format!("encoder.layer.1.attention.self.{name}");
            assert_eq!(tensors[&full].1, shape, "{full}");
            let mut without = tensors.clone();
            without.remove(&full);
            rewrite(dir.path(), &without);
            assert_eq!(
                message(dir.path()),
                format!("tensor {full}: expected a tensor of {shape:?}, got none")
            );
            let mut turned = tensors.clone();
            turned.get_mut(&full).unwrap().1.insert(0, 1);
            rewrite(dir.path(), &turned);
            let expected = format!("tensor {full}: expected {shape:?}, got [1, ");
            assert!(message(dir.path()).starts_with(&expected), "{}", message(dir.path()));
        }
        rewrite(dir.path(), &tensors);
        edit_config(dir.path(), "attn_gate_type", json!("none"));
        let refused = message(dir.path());
        assert!(
            refused.ends_with("expected a tensor of no gate, as config.json says, got another"),
            "{refused}"
        );
    }
}

#[test]
fn what_is_not_computed_is_refused_by_field() {
    let mlp = |kind: &str| json!({ "attn_gate_type": kind, "attn_gate_mlp": true });
    for (fields, expected) in [
        (json!({ "attn_softmax": "sparsemax" }), "attn_softmax: expected vanilla, or clipped(gamma:zeta)"),
        (
            json!({ "attn_softmax": "clipped(0.1:1)" }),
            "attn_softmax: expected a clipped softmax, got gamma: ",
        ),
        (
            json!({ "attn_softmax": "clipped(-.005:1.005)" }),
            "attn_softmax: expected clipped(-0.003:1.005), which",
        ),
        (
            json!({ "attn_softmax": "clipped(-.1:1)", "alpha": 4, "max_seq_length": 128 }),
            "attn_softmax: expected vanilla, beside alpha, got clipped(-.1:1)",
        ),
        (json!({ "alpha": 4 }), "max_seq_length: expected a number, got nothing"),
        (json!({ "alpha": "4" }), "alpha: expected a number, got \"4\""),
        (json!({ "alpha": -1, "max_seq_length": 128 }), "alpha: expected a clipped softmax, got "),
        (
            json!({ "attn_gate_type": "per_layer" }),
            "attn_gate_type: expected none, unconditional_per_head, conditional_per_head or conditional_per_token, got per_layer",
        ),
        (mlp("unconditional_per_head"), "attn_gate_mlp: expected false, beside what else is said of gates"),
        (
            json!({ "attn_gate_type": "conditional_per_token", "attn_gate_mlp": true, "attn_gate_mlp2": true }),
            "attn_gate_mlp2: expected false, beside",
        ),
        (
            json!({ "attn_gate_type": "conditional_per_token", "attn_gate_mlp": 1 }),
            "attn_gate_mlp: expected true or false, got 1",
        ),
        (
            json!({ "attn_gate_type": "conditional_per_head", "attn_gate_linear_all_features": true }),
            "attn_gate_type: expected conditional_per_token, or gates of a head's own features, got conditional_per_head",
        ),
        (
            json!({ "attn_gate_type": "conditional_per_token", "fine_tuning": true }),
            "attn_gate_init: expected a number, beside fine_tuning, got nothing",
        ),
        (
            json!({ "attn_gate_type": "conditional_per_token", "fine_tuning": true, "attn_gate_init": 0 }),
            "attn_gate_init: expected above 0 and at most 1, got 0",
        ),
        (json!({ "skip_attn": true }), "skip_attn: expected false, got true"),
    ] {
        let mut config = config(Family::Bert).to_json();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let refused = Config::from_json(&config).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
    let narrow = Config::new(Family::Bert, 1, 12, 4).with_gating(Gating::new(GateForm::Mlp));
    let refused = Model::generated(narrow, 1).map(drop).unwrap_err().to_string();
    assert_eq!(refused, "attn_gate_type: expected heads of at least 4 features for attn_gate_mlp, got 3");
}
