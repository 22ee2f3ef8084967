//! Checkpoints: read, written, and refused.

use crate::attention::variants;
use crate::common::{batch, config, embed, encoders};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use siskin::{Ctx, bf16, f16};
use siskin_bert::{
    Checkpoint, Config, Encoder, Error, Family, LinearId, Model, Options, Part, Pooling, PoolingMode,
};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder with a generated model, and its tensors.
pub fn saved(config: Config) -> (TempDir, Model, Tensors) {
    let (dir, model) = (TempDir::new().unwrap(), Model::generated(config, 12).unwrap());
    model.save(dir.path()).unwrap();
    let tensors = tensors(dir.path());
    (dir, model, tensors)
}

fn tensors(dir: &Path) -> Tensors {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, t): (&str, TensorView<'_>)| {
        (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
    };
    file.iter().map(entry).collect()
}

fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

pub fn rewrite(dir: &Path, tensors: &Tensors) {
    write(tensors, &dir.join("model.safetensors"));
}

pub fn edit_config(dir: &Path, field: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

pub fn vectors(model: &Model) -> Vec<f32> {
    let ctx = Ctx::serial().unwrap();
    let encoder = Encoder::build(model, &ctx, &Options::default()).unwrap();
    embed(&encoder, batch(&[4, 13], 1).tokens(), &ctx)
}

pub fn message(dir: &Path) -> String {
    Model::read(dir).map(drop).unwrap_err().to_string()
}

#[test]
fn what_was_saved_is_read_again() {
    for family in [Family::Bert, Family::DistilBert] {
        let (dir, model, _) = saved(config(family));
        let again = Model::read(dir.path()).unwrap();
        assert_eq!((again.config(), again.pooling()), (model.config(), model.pooling()));
        assert_eq!(vectors(&again), vectors(&model));
        // A changed weight is saved, also over the folder that the model came from.
        let mut changed = again;
        let id = LinearId { layer: 1, part: Part::Up };
        let mut weight =
            changed.tensor(&format!("{}.weight", changed.config().linear_name(id))).unwrap().to_vec();
        weight[..200].fill(0.0);
        changed.set_weight(id, weight).unwrap();
        changed.save(dir.path()).unwrap();
        let again = Model::read(dir.path()).unwrap();
        assert_eq!(vectors(&again), vectors(&changed));
        assert_ne!(vectors(&again), vectors(&model));
    }
}

#[test]
fn encoders_of_a_checkpoint_are_those_of_its_model() {
    let ctx = Ctx::serial().unwrap();
    for config in [config(Family::Bert), variants(Family::DistilBert).remove(8)] {
        let (dir, model, mut tensors) = saved(config);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let (whole, parts) = (encoders(&model, &ctx), encoders(&checkpoint, &ctx));
        let texts = batch(&[4, 140], 1);
        for ((name, whole), (_, part)) in whole.into_iter().zip(parts) {
            assert_eq!(embed(&part, texts.tokens(), &ctx), embed(&whole, texts.tokens(), &ctx), "{name}");
        }
        // What is not finite is found when it is read.
        let name = model.config().linear_name(LinearId { layer: 1, part: Part::Up }) + ".weight";
        tensors.get_mut(&name).unwrap().2[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes());
        rewrite(dir.path(), &tensors);
        let refused =
            Encoder::build(&Checkpoint::open(dir.path()).unwrap(), &ctx, &Options::default()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("tensor {name}: expected finite numbers, got inf at position 2")
        );
    }
}

#[test]
fn companions_and_other_tensors_are_kept() {
    let (dir, _, mut tensors) = saved(config(Family::Bert));
    tensors.insert("pooler.dense.bias".into(), (Dtype::I64, vec![2], (0..16).collect()));
    rewrite(dir.path(), &tensors);
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    edit_config(dir.path(), "label", json!("kept"));
    let to = TempDir::new().unwrap();
    let to = to.path().join("new/folder");
    Model::read(dir.path()).unwrap().save(&to).unwrap();
    assert_eq!(self::tensors(&to), tensors);
    for name in [
        "tokenizer.json",
        "vocab.txt",
        "tokenizer_config.json",
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
    ] {
        assert_eq!(
            std::fs::read(dir.path().join(name)).unwrap(),
            std::fs::read(to.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn names_may_have_a_prefix_and_be_old() {
    for (family, prefix) in [(Family::Bert, "bert."), (Family::DistilBert, "distilbert.")] {
        let (dir, model, tensors) = saved(config(family));
        let renamed: Tensors = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let old = name
                    .replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta");
                (format!("{prefix}{old}"), tensor)
            })
            .collect();
        rewrite(dir.path(), &renamed);
        let again = Model::read(dir.path()).unwrap();
        assert_eq!(vectors(&again), vectors(&model));
        again.save(dir.path()).unwrap();
        assert!(self::tensors(dir.path()).keys().all(|name| name.starts_with(prefix)));
        let id = LinearId { layer: 1, part: Part::Value };
        let name = model.config().linear_name(id);
        assert_eq!(model.config().linear_id(&format!("{prefix}{name}")), Some(id));
        assert_eq!(again.tensor(&format!("{prefix}{name}.bias")).unwrap(), model.bias(id).unwrap());
    }
}

#[test]
fn narrow_floats_are_widened() {
    let (dir, model, tensors) = saved(config(Family::Bert));
    for dtype in [Dtype::F16, Dtype::BF16] {
        let narrow: Tensors = tensors
            .iter()
            .map(|(name, (_, shape, data))| {
                let floats = data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
                let bytes = floats.flat_map(|v| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_le_bytes(),
                    _ => bf16::from_f32(v).to_le_bytes(),
                });
                (name.clone(), (dtype, shape.clone(), bytes.collect()))
            })
            .collect();
        rewrite(dir.path(), &narrow);
        let read = Model::read(dir.path()).unwrap();
        let id = LinearId { layer: 0, part: Part::Key };
        for (got, &exact) in read.bias(id).unwrap().iter().zip(model.bias(id).unwrap()) {
            let expected = if dtype == Dtype::F16 {
                f16::from_f32(exact).to_f32()
            } else {
                bf16::from_f32(exact).to_f32()
            };
            assert_eq!(*got, expected);
        }
    }
}

#[test]
fn shards_are_read_by_their_index() {
    let (dir, model, tensors) = saved(config(Family::Bert));
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (mut shards, mut map) = ([Tensors::new(), Tensors::new(), Tensors::new()], serde_json::Map::new());
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        map.insert(name.clone(), json!(format!("part-{}.safetensors", i % 3)));
        shards[i % 3].insert(name.clone(), tensor.clone());
    }
    for (i, shard) in shards.iter().enumerate() {
        write(shard, &dir.path().join(format!("part-{i}.safetensors")));
    }
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(vectors(&Model::read(dir.path()).unwrap()), vectors(&model));

    std::fs::remove_file(dir.path().join("part-1.safetensors")).unwrap();
    assert!(message(dir.path()).contains("part-1.safetensors"));
    for outside in ["../part.safetensors", "/part.safetensors", ""] {
        std::fs::write(&index, json!({ "weight_map": { "a": outside } }).to_string()).unwrap();
        assert!(message(dir.path()).contains("expected a file beside it"), "{outside}");
    }
    std::fs::write(&index, "{}").unwrap();
    assert!(message(dir.path()).contains("weight_map"));
}

#[test]
fn wrong_tensors_are_named() {
    let (dir, _, tensors) = saved(config(Family::Bert));
    let name = "encoder.layer.1.intermediate.dense.weight";
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        rewrite(dir.path(), &tensors);
        message(dir.path())
    };
    let missing = with(&|t| drop(t.remove(name)));
    assert_eq!(missing, format!("tensor {name}: expected a tensor of [128, 32], got none"));
    let turned = with(&|t| t.get_mut(name).unwrap().1 = vec![32, 128]);
    assert_eq!(turned, format!("tensor {name}: expected [128, 32], got [32, 128]"));
    let integers = with(&|t| t.get_mut(name).unwrap().0 = Dtype::I32);
    assert_eq!(integers, format!("tensor {name}: expected F32, F16 or BF16, got I32"));
    let nan = with(&|t| t.get_mut(name).unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_eq!(nan, format!("tensor {name}: expected finite numbers, got NaN at position 1"));
    let twice = with(&|t| {
        let tensor = t[name].clone();
        t.insert(format!("bert.{name}"), tensor);
    });
    assert!(twice.starts_with(&format!("tensor {name}: expected one tensor")), "{twice}");
    std::fs::write(dir.path().join("model.safetensors"), "no tensors").unwrap();
    assert!(message(dir.path()).contains("model.safetensors: "));
    rewrite(dir.path(), &tensors);
    let whole = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    for (bytes, expected) in [
        (&whole[..5], "expected a header of safetensors, got 5 bytes".to_string()),
        (&whole[..100], "expected a header of at most 92 bytes".into()),
        (
            &whole[..whole.len() - 1],
            format!("expected {} bytes, as its header says, got {}", whole.len(), whole.len() - 1),
        ),
        (
            &[whole.clone(), vec![0]].concat()[..],
            format!("expected {} bytes, as its header says", whole.len()),
        ),
    ] {
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        assert!(matches!(Model::read(dir.path()), Err(Error::File { .. })));
        assert!(message(dir.path()).contains(&expected), "{}", message(dir.path()));
    }
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(message(dir.path()).contains("model.safetensors: "));

    rewrite(dir.path(), &tensors);
    edit_config(dir.path(), "vocab_size", json!(60));
    assert!(matches!(Model::read(dir.path()), Err(Error::Vocabulary { .. })));
    assert_eq!(message(dir.path()), "vocabulary: expected embeddings of vocab_size = 60 tokens, got 50");
}

#[test]
fn wrong_configurations_are_refused_by_field() {
    for (family, field, value, expected) in [
        (
            Family::Bert,
            "model_type",
            json!("roberta"),
            "model_type: expected bert or distilbert, got roberta",
        ),
        (Family::Bert, "model_type", json!(null), "model_type: expected bert or distilbert, got none"),
        (
            Family::Bert,
            "position_embedding_type",
            json!("relative_key_query"),
            "position_embedding_type: expected absolute, got relative_key_query",
        ),
        (Family::Bert, "is_decoder", json!(true), "is_decoder: expected false, for an encoder, got true"),
        (
            Family::Bert,
            "hidden_act",
            json!("silu"),
            "hidden_act: expected gelu, gelu_new, gelu_pytorch_tanh or relu, got silu",
        ),
        (
            Family::DistilBert,
            "activation",
            json!("swish"),
            "activation: expected gelu, gelu_new, gelu_pytorch_tanh or relu, got swish",
        ),
        (
            Family::Bert,
            "num_attention_heads",
            json!(5),
            "num_attention_heads: expected a divisor of hidden_size = 32, with at most 256 features a head, got 5",
        ),
        (
            Family::DistilBert,
            "n_heads",
            json!(3),
            "n_heads: expected a divisor of dim = 32, with at most 256 features a head, got 3",
        ),
        (Family::Bert, "hidden_size", json!(0), "hidden_size: expected 1 to 16777216, got 0"),
        (Family::Bert, "hidden_size", json!(-3), "hidden_size: expected a number, 0 or more, got -3"),
        (
            Family::Bert,
            "num_hidden_layers",
            json!("two"),
            "num_hidden_layers: expected a number, 0 or more, got \"two\"",
        ),
        (
            Family::Bert,
            "layer_norm_eps",
            json!(-1.0),
            "layer_norm_eps: expected a number between 0 and 1, got -1.0",
        ),
    ] {
        let (dir, _, _) = saved(config(family));
        edit_config(dir.path(), field, value);
        assert!(matches!(Model::read(dir.path()), Err(Error::Config { .. })), "{field}");
        assert_eq!(message(dir.path()), expected);
    }
    let (dir, _, _) = saved(config(Family::Bert));
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(matches!(Model::read(dir.path()), Err(Error::File { .. })));
    assert!(matches!(Model::read(dir.path().join("nowhere")), Err(Error::Io { .. })));
    assert!(Config::preset("gpt").unwrap_err().to_string().contains("bert-large"));
}

#[test]
fn poolings_are_read_from_modules() {
    let (dir, _, _) = saved(config(Family::Bert));
    let pooling = |text: Value| {
        std::fs::write(dir.path().join("1_Pooling/config.json"), text.to_string()).unwrap();
        Model::read(dir.path()).map(|model| model.pooling())
    };
    let mean = Pooling { mode: PoolingMode::Mean, normalize: true };
    let cls = Pooling { mode: PoolingMode::Cls, normalize: true };
    assert_eq!(pooling(json!({ "pooling_mode_mean_tokens": true })).unwrap(), mean);
    assert_eq!(
        pooling(json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false })).unwrap(),
        cls
    );
    assert_eq!(pooling(json!({ "pooling_mode": "cls" })).unwrap(), cls);
    for wrong in [
        json!({ "pooling_mode_max_tokens": true }),
        json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }),
        json!({ "pooling_mode": "max" }),
        json!({}),
        json!([]),
    ] {
        assert!(matches!(pooling(wrong.clone()), Err(Error::Config { .. })), "{wrong}");
    }
    let modules = |text: Value| {
        std::fs::write(dir.path().join("modules.json"), text.to_string()).unwrap();
        Model::read(dir.path()).map(|model| model.pooling())
    };
    let module = |kind: &str, path: &str| json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path });
    let only = Pooling { mode: PoolingMode::Mean, normalize: false };
    assert_eq!(modules(json!([module("Transformer", "")])).unwrap(), only);
    for wrong in [json!([module("Dense", "2_Dense")]), json!([module("Pooling", "../1_Pooling")]), json!({})]
    {
        assert!(matches!(modules(wrong.clone()), Err(Error::Config { .. })), "{wrong}");
    }
    std::fs::remove_file(dir.path().join("modules.json")).unwrap();
    assert_eq!(Model::read(dir.path()).unwrap().pooling(), mean);
}
