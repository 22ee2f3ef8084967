//! An encoder in f64, written as plainly as it can be: what the crate's own is compared with.

use siskin_bert::{Activation, Family, LinearId, Model, Part, PoolingMode};

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
            for i in 0..ids.len() {
                let at = |token: usize| token * hidden + head * size;
                let score = |j: usize| {
                    let dot: f64 = (0..size).map(|f| q[at(i) + f] * k[at(j) + f]).sum();
                    (dot / (size as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..ids.len()).map(score).collect();
                let sum: f64 = weights.iter().sum();
                for f in 0..size {
                    context[at(i) + f] = (0..ids.len()).map(|j| weights[j] / sum * v[at(j) + f]).sum();
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
