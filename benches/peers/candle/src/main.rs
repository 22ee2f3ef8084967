//! candle's own BERT, as one that takes turns at an encoder: `siskin-peer-candle FOLDER` reads requests from standard input and answers on
//! standard output, a line of JSON each. `encoder_turns.py` says what they are.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

/// Calls of a turn that do not count, and those that there are at least, however long they take.
const WARMING: usize = 2;
const FEWEST: usize = 3;

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    /// Vectors of texts, each in a call of its own.
    Vectors { vectors: Vec<Vec<u32>> },
    /// Times of calls for texts of the same length, for so many milliseconds.
    Time { time: Vec<Vec<u32>>, ms: f64 },
}

struct Encoder {
    model: BertModel,
    device: Device,
}

impl Encoder {
    fn read(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut fields = serde_json::to_value(defaults())?;
        let read: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        if let (Some(fields), Some(read)) = (fields.as_object_mut(), read.as_object()) {
            fields.extend(read.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let (config, device): (Config, _) = (serde_json::from_value(fields)?, Device::Cpu);
        let weights = std::fs::read(folder.join("model.safetensors"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &device)?;
        Ok(Self { model: BertModel::load(weights, &config)?, device })
    }

    fn tokens(&self, texts: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let length = texts.first().map_or(0, Vec::len);
        Tensor::from_vec(texts.concat(), (texts.len(), length), &self.device)
    }

    /// The means of tokens, scaled to the length 1. Nothing is padded, so there is no mask.
    fn vectors(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = self.model.forward(ids, &ids.zeros_like()?, None)?;
        let mean = hidden.mean(1)?;
        mean.broadcast_div(&mean.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
    }

    fn answer(&self, request: Request) -> candle_core::Result<Value> {
        match request {
            Request::Vectors { vectors: texts } => {
                let alone = |text: &Vec<u32>| {
                    self.vectors(&self.tokens(std::slice::from_ref(text))?)?.to_vec2::<f32>()
                };
                let vectors: Vec<Vec<f32>> =
                    texts.iter().map(alone).collect::<candle_core::Result<Vec<_>>>()?.concat();
                Ok(json!({ "vectors": vectors }))
            }
            Request::Time { time: texts, ms } => {
                let ids = self.tokens(&texts)?;
                for _ in 0..WARMING {
                    black_box(self.vectors(&ids)?);
                }
                let (enough, begin, mut times) =
                    (Duration::from_secs_f64(ms / 1e3), Instant::now(), Vec::new());
                while times.len() < FEWEST || begin.elapsed() < enough {
                    let start = Instant::now();
                    black_box(self.vectors(&ids)?);
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
                times.sort_by(f64::total_cmp);
                Ok(json!({ "us_min": times[0], "us_p50": times[times.len() / 2] }))
            }
        }
    }
}

/// Fields that candle wants in config.json and that change nothing here, where a checkpoint lacks them.
fn defaults() -> Value {
    json!({ "hidden_dropout_prob": 0.0, "initializer_range": 0.02, "pad_token_id": 0 })
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("expected the folder of a checkpoint")?;
    let encoder = Encoder::read(Path::new(&folder))?;
    let products = if cfg!(feature = "mkl") { "MKL" } else { "gemm" };
    let mut out = stdout().lock();
    writeln!(
        out,
        "{}",
        json!({ "version": format!("candle {} with {products}", env!("CARGO_PKG_VERSION")) })
    )?;
    for line in stdin().lock().lines() {
        writeln!(out, "{}", encoder.answer(serde_json::from_str(&line?)?)?)?;
    }
    Ok(())
}
