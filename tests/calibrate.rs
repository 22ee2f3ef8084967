//! Calibration: the quantizers of the original from the original's batches, masks, and what is refused.

mod common;
#[path = "common/golden.rs"]
mod golden;

use common::Rng;
use golden::Golden;
use siskin::attention::{
    Attention, Bias, BlockMask, BlockQuantizers, Calibrator, Call, Clipped, ContextOrder, EmptyRow, Gate,
    HeadsMut, HeadsRef, Input, Output, Sequences,
};
use siskin::quant::{MinMax, Observer, QuantParams, QuantType, RunningMinMax, Scheme};
use siskin::{Ctx, Error, MatMut, MatRef, Scratch};

const FILE: &[u8] = include_bytes!("golden/int8_attention.safetensors");
const U8: Scheme = Scheme::Asymmetric(QuantType::U8);

/// A case of the original: 2 heads of 16 features.
struct Case {
    g: Golden<'static>,
    opt: bool,
    tokens: usize,
    attention: Attention,
    key_lengths: Vec<usize>,
    gate: Option<Gate>,
}

const HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const FEATURES: usize = HEADS * HEAD_DIM;

impl Case {
    fn new(case: &str) -> Case {
        let g = Golden::case(FILE, case);
        let opt = case.contains("opt");
        let mask = g.u8("in.attention_mask");
        let mut attention = Attention::new(HEADS, HEADS, HEAD_DIM).unwrap();
        if case.contains("clip") {
            attention = attention.softmax(Clipped::new(-0.03, 1.0).unwrap());
        }
        if opt {
            attention = attention.causal();
        }
        let gate = g.has("param.gate.weight").then(|| {
            let weight = g.f32("param.gate.weight");
            Gate::linear(MatRef::new(&weight, HEADS, HEAD_DIM).unwrap(), &g.f32("param.gate.bias")).unwrap()
        });
        let live = mask.iter().filter(|&&m| m != 0).count();
        Case { g, opt, tokens: mask.len(), attention, key_lengths: vec![live], gate }
    }

    /// q, k or v of a batch, before their quantizers; weights are those that the original quantized.
    fn project(&self, which: usize, x: &[f32]) -> Vec<f32> {
        let name = self.projection(which);
        let (w, b) =
            (self.g.f32(&format!("param.{name}.weight_q")), self.g.f32(&format!("param.{name}.bias")));
        let token = |x: &[f32]| {
            let dot = |w: &[f32]| w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>();
            w.chunks(FEATURES).zip(&b).map(|(w, &b)| (dot(w) + f64::from(b)) as f32).collect::<Vec<f32>>()
        };
        x.chunks(FEATURES).flat_map(token).collect()
    }

    fn projection(&self, which: usize) -> &'static str {
        match self.opt {
            true => ["q_proj", "k_proj", "v_proj"][which],
            false => ["query", "key", "value"][which],
        }
    }

    fn sequences(&self) -> Sequences<'static> {
        Sequences::Batch { batch: 1, q_len: self.tokens, kv_len: self.tokens }
    }

    fn gates(&self, x: &[f32], ctx: &Ctx) -> Option<Vec<f32>> {
        let gate = self.gate.as_ref()?;
        let mut gates = vec![0.0; self.tokens * HEADS];
        let x = MatRef::new(x, self.tokens, FEATURES).unwrap();
        gate.evaluate(x, &self.sequences(), MatMut::new(&mut gates, self.tokens, HEADS).unwrap(), ctx)
            .unwrap();
        Some(gates)
    }

    fn call<'a>(&'a self, gates: &'a Option<Vec<f32>>) -> Call<'a> {
        let call = Call::new(self.sequences()).key_lengths(&self.key_lengths);
        match gates {
            Some(gates) => call.gates(MatRef::new(gates, self.tokens, HEADS).unwrap()),
            None => call,
        }
    }

    fn calibrate(&self, observer: RunningMinMax) -> BlockQuantizers {
        let ctx = Ctx::new().unwrap();
        let order = if self.opt { ContextOrder::BeforeGate } else { ContextOrder::AfterGate };
        let mut calibrator = Calibrator::new(self.attention, order, observer);
        for batch in 0.. {
            let name = format!("in.calib.{batch}");
            if !self.g.has(&name) {
                break;
            }
            let x = self.g.f32(&name);
            let [q, k, v] = [0, 1, 2].map(|i| self.project(i, &x));
            let gates = self.gates(&x, &ctx);
            calibrator
                .observe(self.heads(&q), self.heads(&k), self.heads(&v), &self.call(&gates), &ctx)
                .unwrap();
        }
        calibrator.finish().unwrap()
    }

    fn heads<'a, T: siskin::Element>(&self, x: &'a [T]) -> HeadsRef<'a, T> {
        HeadsRef::new(x, self.tokens, HEADS, HEAD_DIM).unwrap()
    }

    /// The original's own, `[scale, zero point, smallest, largest integer]`.
    fn params(&self, name: &str) -> QuantParams {
        let p = self.g.f32(&format!("param.{name}"));
        assert_eq!(p[2..], [0.0, 255.0], "{name}");
        QuantParams::u8(p[0], p[1] as i32).unwrap()
    }
}

const CASES: [&str; 5] =
    ["int8_bert_clip", "int8_bert_vanilla", "int8_bert_gate_w4a8", "int8_opt_clip_mse", "int8_opt_gate_pct"];

#[test]
fn the_quantizers_of_the_original_are_met() {
    for case in CASES {
        let c = Case::new(case);
        let running = RunningMinMax::new(U8);
        let observer = if case.ends_with("pct") { running.with_percentile(99.9).unwrap() } else { running };
        let got = c.calibrate(observer);
        let close = |got: QuantParams, name: &str| {
            let expected = c.params(name);
            let off = (got.scale() / expected.scale() - 1.0).abs();
            println!("{case} {name} {off:e}");
            // The original sums up in f32, in an order of its own.
            assert!(off < 2e-6, "{case} {name}: {got:?} for {expected:?}");
            assert_eq!(got.zero_point(), expected.zero_point(), "{case} {name}");
        };
        for (i, params) in [got.q, got.k, got.v].into_iter().enumerate() {
            close(params, &format!("{}.act_qparams", c.projection(i)));
        }
        close(got.int8.scores.unwrap(), "attn_scores_act_quantizer.qparams");
        close(QuantParams::u8(got.int8.weights_scale, 0).unwrap(), "attn_probs_act_quantizer.qparams");
        assert_eq!(got.int8.context.is_some(), c.opt);
        close(got.int8.context.unwrap_or(got.output), "context_act_quantizer.qparams");
        if c.gate.is_none() {
            assert_eq!(got.int8.context.unwrap_or(got.output), got.output);
        }
    }
}
