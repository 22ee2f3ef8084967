//! An encoder in f64, written as plainly as it can be: what the crate's own is compared with.

use siskin::attention::Softmax;
use siskin_bert::{Activation, Family, GateForm, LinearId, Model, Part, PoolingMode};

/// The vectors of the tokens of one text, `[tokens, hidden]`.
pub fn hidden_states(model: &Model, ids: &[u32]) -> Vec<f64> {
    let config = model.config();
    let hidden = config.hidden_size;
    let tensor = |name: &str| -> Vec<f64> { model.tensor(name).unwrap().iter().map(|&v| v.into()).collect() };
    let words = tensor("embeddings.word_embeddings.weight");
    let positions = tensor("embeddings.position_embeddings.weight");
    let types = match config.family {
        Family::DistilBert => vec![0.0; hidden],
        _ => tensor("embeddings.token_type_embeddings.weight"),
    };
    let mut x = Vec::new();
    for (position, &id) in ids.iter().enumerate() {
        for f in 0..hidden {
            x.push(words[id as usize * hidden + f] + positions[position * hidden + f] + types[f]);
        }
    }
    let norm = |x: &mut [f64], name: &str| {
        let (weight, bias) = (tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
        for row in x.chunks_mut(hidden) {
            let mean = row.iter().sum::<f64>() / hidden as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hidden as f64;
            for (f, v) in row.iter_mut().enumerate() {
                *v = (*v - mean) / (variance + f64::from(config.layer_norm_eps)).sqrt() * weight[f] + bias[f];
            }
        }
    };
    norm(&mut x, "embeddings.LayerNorm");
    for layer in 0..config.num_layers {
        let linear = |part: Part, x: &[f64]| -> Vec<f64> {
            let id = LinearId { layer, part };
            let (weight, bias) = (model.weight(id).unwrap(), model.bias(id).unwrap());
            let token = |x: &[f64]| {
                let dot = |w: &[f32]| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
                let row = |(w, &b): (&[f32], &f32)| dot(w) + f64::from(b);
                weight.iter_rows().zip(bias).map(row).collect::<Vec<_>>()
            };
            x.chunks(weight.cols()).flat_map(token).collect()
        };
        let (q, k, v) = (linear(Part::Query, &x), linear(Part::Key, &x), linear(Part::Value, &x));
        let size = config.head_size();
        let mut context = vec![0.0; x.len()];
        for head in 0..config.num_heads {
            let gates = gates(model, layer, head, &x);
            for i in 0..ids.len() {
                let at = |token: usize| token * hidden + head * size;
                let score = |j: usize| {
                    let dot: f64 = (0..size).map(|f| q[at(i) + f] * k[at(j) + f]).sum();
                    (dot / (size as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..ids.len()).map(score).collect();
                let sum: f64 = weights.iter().sum();
                let weights: Vec<f64> = weights.iter().map(|w| clip(config.softmax, w / sum)).collect();
                for f in 0..size {
                    context[at(i) + f] =
                        gates[i] * (0..ids.len()).map(|j| weights[j] * v[at(j) + f]).sum::<f64>();
                }
            }
        }
        let names = match config.family {
            Family::DistilBert => {
                ["sa_layer_norm", "output_layer_norm"].map(|n| format!("transformer.layer.{layer}.{n}"))
            }
            _ => ["attention.output.LayerNorm", "output.LayerNorm"]
                .map(|n| format!("encoder.layer.{layer}.{n}")),
        };
        let mut h: Vec<f64> = linear(Part::Output, &context).iter().zip(&x).map(|(a, b)| a + b).collect();
        norm(&mut h, &names[0]);
        let mut inside = linear(Part::Up, &h);
        inside.iter_mut().for_each(|v| *v = activate(config.activation, *v));
        x = linear(Part::Down, &inside).iter().zip(&h).map(|(a, b)| a + b).collect();
        norm(&mut x, &names[1]);
    }
    x
}

/// A probability, stretched and clipped.
fn clip(softmax: Softmax, p: f64) -> f64 {
    match softmax {
        Softmax::Clipped(clipped) => {
            let (gamma, zeta) = (f64::from(clipped.gamma()), f64::from(clipped.zeta()));
            ((zeta - gamma) * p + gamma).clamp(0.0, 1.0)
        }
        _ => p,
    }
}

/// What the contexts of a head are multiplied by, token by token of `x`, the input of the layer.
fn gates(model: &Model, layer: usize, head: usize, x: &[f64]) -> Vec<f64> {
    let config = model.config();
    let (hidden, size) = (config.hidden_size, config.head_size());
    let Some(gating) = config.gating else { return vec![1.0; x.len() / hidden] };
    let attention = match config.family {
        Family::DistilBert => format!("transformer.layer.{layer}.attention"),
        _ => format!("encoder.layer.{layer}.attention.self"),
    };
    let tensor = |name: &str| model.tensor(&format!("{attention}.alpha{name}")).unwrap();
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let (weight, bias) = (tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
        let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
        weight.chunks(x.len()).zip(bias).map(|(row, &bias)| dot(row) + f64::from(bias)).collect()
    };
    let logit = |all: &[f64]| {
        let own = &all[head * size..][..size];
        match gating.form {
            GateForm::Unconditional => f64::from(tensor("")[head]),
            GateForm::AllFeatures => linear("", all)[head],
            GateForm::Linear => linear(&format!(".{head}"), own)[0],
            _ => {
                let mut inside = linear(&format!(".{head}.0"), own);
                inside.iter_mut().for_each(|v| *v = v.max(0.0));
                linear(&format!(".{head}.2"), &inside)[0]
            }
        }
    };
    let mut logits: Vec<f64> = x.chunks(hidden).map(logit).collect();
    if gating.pooled {
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        logits.fill(mean);
    }
    let divisor = f64::from(gating.fine_tuned.unwrap_or(1.0));
    logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp()) / divisor).collect()
}

/// The vector of one text.
pub fn embed(model: &Model, ids: &[u32]) -> Vec<f64> {
    let hidden = model.config().hidden_size;
    let x = hidden_states(model, ids);
    let mut y: Vec<f64> = match model.pooling().mode {
        PoolingMode::Cls => x[..hidden].to_vec(),
        _ => (0..hidden).map(|f| x.iter().skip(f).step_by(hidden).sum::<f64>() / ids.len() as f64).collect(),
    };
    if model.pooling().normalize {
        let length = y.iter().map(|v| v * v).sum::<f64>().sqrt();
        y.iter_mut().for_each(|v| *v /= length);
    }
    y
}

fn activate(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Gelu => v * (1.0 + erf(v / 2f64.sqrt())) / 2.0,
        Activation::GeluTanh => {
            v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh()) / 2.0
        }
        Activation::Relu => v.max(0.0),
        other => panic!("{other:?}"),
    }
}

/// By its series, which converges everywhere; beyond 5 it is 1 but for 1e-12.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut sum, mut term) = (0.0, x);
    for n in 0..150 {
        sum += term / f64::from(2 * n + 1);
        term *= -x * x / f64::from(n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
