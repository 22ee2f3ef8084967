//! An INT8 attention block of BERT, with a clipped softmax and with a gate, against the numbers of the original code
//! (Quantizable Transformers, the authors' simulation of INT8).
//!
//! Weights of 8 bits (4 in the gated block) and sample batches are given; the quantizers come from a calibration. Then a
//! block goes from its input to bytes of context: projections that write bytes, attention of bytes, bytes out. The example
//! fails if a byte is more than one step from the original's.

use safetensors::SafeTensors;
use siskin::Element;
use siskin::attention::{
    Attention, AttentionCall, AttentionInputs, Calibrator, Clipped, ContextOrder, Gate, HeadsMut, HeadsRef,
    Sequences,
};
use siskin::linear::{Epilogue, Linear};
use siskin::quant::{QuantParams, RunningMinMax, Scheme};
use siskin::{Ctx, MatMut, MatRef, Scratch};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const MODEL: usize = HEADS * HEAD_DIM;

fn main() -> Result<()> {
    let file = SafeTensors::deserialize(include_bytes!("../tests/golden/int8_attention.safetensors"))?;
    let attention = Attention::new(HEADS, HEADS, HEAD_DIM)?;
    let clipped = attention.softmax(Clipped::new(-0.03, 1.0)?);
    run(&Case { file: &file, name: "int8_bert_clip" }, clipped)?;
    run(&Case { file: &file, name: "int8_bert_gate_w4a8" }, attention)
}

fn run(case: &Case<'_>, attention: Attention) -> Result<()> {
    let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
    let hidden = case.floats("in.hidden")?;
    let tokens = hidden.len() / MODEL;

    // Once: the layers, whose input stays in floats here as it does in the original, and the gate, where there is one.
    let mut layers = Vec::new();
    for name in ["query", "key", "value"] {
        let scale = case.floats(&format!("param.{name}.weight_qparams"))?[0];
        let weight = case.floats(&format!("param.{name}.weight_q"))?;
        let weight: Vec<i8> = weight.iter().map(|w| (w / scale).round() as i8).collect();
        let bias = case.floats(&format!("param.{name}.bias"))?;
        let layer = Linear::dense(MatRef::new(&weight, MODEL, MODEL)?);
        layers.push(layer.scales(&[scale]).bias(&bias).weight_only().build(&ctx)?);
    }
    let gate = match case.floats("param.gate.weight") {
        Ok(weight) => {
            let bias = case.floats("param.gate.bias")?;
            Some(Gate::linear(MatRef::new(&weight, HEADS, HEAD_DIM)?, &bias)?)
        }
        Err(_) => None,
    };
    // Padding is at the end.
    let key_lengths = [case.bytes("in.attention_mask")?.iter().filter(|&&m| m != 0).count()];
    let sequences = Sequences::Batch { batch: 1, q_len: tokens, kv_len: tokens };
    let call = AttentionCall::new(sequences).key_lengths(&key_lengths);
    let gates = |x: &[f32]| -> Result<Vec<f32>> {
        let mut gates = vec![1.0; tokens * HEADS];
        if let Some(gate) = &gate {
            let to = MatMut::new(&mut gates, tokens, HEADS)?;
            gate.evaluate(MatRef::new(x, tokens, MODEL)?, &sequences, to, &ctx)?;
        }
        Ok(gates)
    };

    // Once: the quantizers, from sample batches in floats.
    let observer = RunningMinMax::new(Scheme::Asymmetric(Element::U8));
    // The original has one step for all weights.
    let mut calibrator =
        Calibrator::new(attention, ContextOrder::AfterGate, observer).with_authors_weights_scale();
    for batch in 0.. {
        let Ok(x) = case.floats(&format!("in.calib.{batch}")) else { break };
        let mut projected = [(); 3].map(|()| vec![0.0; tokens * MODEL]);
        for (layer, y) in layers.iter().zip(&mut projected) {
            let (x, y) = (MatRef::new(&x, tokens, MODEL)?, MatMut::new(y, tokens, MODEL)?);
            layer.forward(x, Epilogue::new(), y, &ctx, &mut scratch)?;
        }
        let [q, k, v] = &projected;
        let heads = |x| HeadsRef::new(x, tokens, HEADS, HEAD_DIM);
        let gates = gates(&x)?;
        let call = call.gates(MatRef::new(&gates, tokens, HEADS)?);
        calibrator.observe(heads(q)?, heads(k)?, heads(v)?, &call, &ctx)?;
    }
    let quantizers = calibrator.finish()?;

    // For each batch: bytes from the projections on.
    let mut projected = [(); 3].map(|()| vec![0u8; tokens * MODEL]);
    let params = [quantizers.q, quantizers.k, quantizers.v];
    for ((layer, y), params) in layers.iter().zip(&mut projected).zip(params) {
        let y = (MatMut::new(y, tokens, MODEL)?, params);
        layer.forward(MatRef::new(&hidden, tokens, MODEL)?, Epilogue::new(), y, &ctx, &mut scratch)?;
    }
    let [q, k, v] = &projected;
    let heads = |x, params: QuantParams| -> Result<(HeadsRef<'_, u8>, QuantParams)> {
        Ok((HeadsRef::new(x, tokens, HEADS, HEAD_DIM)?, params))
    };
    let gates = gates(&hidden)?;
    let mut context = vec![0u8; tokens * MODEL];
    let skipped = attention.forward(
        AttentionInputs::new(heads(q, params[0])?, heads(k, params[1])?, heads(v, params[2])?),
        &call.gates(MatRef::new(&gates, tokens, HEADS)?).quantizers(quantizers.attention),
        (HeadsMut::new(&mut context, tokens, HEADS, HEAD_DIM)?, quantizers.output),
        &ctx,
        &mut scratch,
    )?;

    let expected = case.floats("mid.context_act_quantizer.out")?;
    let step = quantizers.output.scale();
    let steps = |(&q, expected): (&u8, f32)| (quantizers.output.dequantize(q.into()) - expected).abs() / step;
    let off: Vec<f32> = context.iter().zip(expected).map(steps).collect();
    let most = off.iter().fold(0.0, |most: f32, &v| most.max(v));
    println!(
        "{}: {} of {} bytes are the original's, none is more than {most:.3} steps off; {:.0} % of the weights are 0",
        case.name,
        off.iter().filter(|&&v| v < 0.5).count(),
        off.len(),
        100.0 * skipped.zeros as f64 / skipped.pairs as f64,
    );
    // Scales from a calibration are not the original's to the last bit; all of 255 steps may differ by a little.
    if most > 1.01 {
        return Err(format!("a byte of context is {most} steps from the original's").into());
    }
    Ok(())
}

/// The tensors of a case.
struct Case<'a> {
    file: &'a SafeTensors<'a>,
    name: &'static str,
}

impl Case<'_> {
    fn bytes(&self, tensor: &str) -> Result<Vec<u8>> {
        Ok(self.file.tensor(&format!("{}/{tensor}", self.name))?.data().to_vec())
    }

    fn floats(&self, tensor: &str) -> Result<Vec<f32>> {
        let bytes = self.bytes(tensor)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }
}
