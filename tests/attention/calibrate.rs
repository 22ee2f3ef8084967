//! Calibration: the quantizers of the original from the original's batches, masks, and what is refused.

use crate::common::Rng;
use crate::common::golden::Golden;
use siskin::Element;
use siskin::attention::{
    Attention, AttentionCall, AttentionInputs, Bias, BlockMask, BlockQuantizers, Calibrator, Clipped,
    ContextOrder, EmptyRow, Gate, HeadsMut, HeadsRef, Sequences,
};
use siskin::quant::{MinMax, Observer, QuantParams, RunningMinMax, Scheme};
use siskin::{Ctx, Error, MatMut, MatRef, Scratch, TensorRef};
use std::sync::{Arc, Mutex};

const FILE: &[u8] = include_bytes!("../golden/int8_attention.safetensors");
const U8: Scheme = Scheme::Asymmetric(Element::U8);

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

    fn call<'a>(&'a self, gates: &'a Option<Vec<f32>>) -> AttentionCall<'a> {
        let call = AttentionCall::new(self.sequences()).key_lengths(&self.key_lengths);
        match gates {
            Some(gates) => call.gates(MatRef::new(gates, self.tokens, HEADS).unwrap()),
            None => call,
        }
    }

    fn calibrate(&self, observer: RunningMinMax) -> BlockQuantizers {
        let ctx = Ctx::new().unwrap();
        let order = if self.opt { ContextOrder::BeforeGate } else { ContextOrder::AfterGate };
        let mut calibrator = Calibrator::new(self.attention, order, observer).with_authors_weights_scale();
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

    fn heads<'a, T: siskin::ElementType>(&self, x: &'a [T]) -> HeadsRef<'a, T> {
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
        close(got.attention.scores.unwrap(), "attn_scores_act_quantizer.qparams");
        close(
            QuantParams::u8(got.attention.weights_scale.unwrap(), 0).unwrap(),
            "attn_probs_act_quantizer.qparams",
        );
        assert_eq!(got.attention.context.is_some(), c.opt);
        close(got.attention.context.unwrap_or(got.output), "context_act_quantizer.qparams");
        if c.gate.is_none() {
            assert_eq!(got.attention.context.unwrap_or(got.output), got.output);
        }
    }
}

/// From the block's input to the quantized context, by the quantizers found.
#[test]
fn a_block_calibrated_so_has_the_context_of_the_original() {
    let ctx = Ctx::new().unwrap();
    for case in CASES {
        let c = Case::new(case);
        let running = RunningMinMax::new(U8);
        let observer = if case.ends_with("pct") { running.with_percentile(99.9).unwrap() } else { running };
        let found = c.calibrate(observer);
        let x = c.g.f32("in.hidden");
        let params = [found.q, found.k, found.v];
        let bytes = [0, 1, 2]
            .map(|i| -> Vec<u8> { c.project(i, &x).iter().map(|&x| params[i].quantize(x) as u8).collect() });
        let [q, k, v] = [0, 1, 2].map(|i| TensorRef::from((c.heads(&bytes[i]), params[i])));
        // OPT quantizes before the gate: without one that is what comes out.
        let gates = if c.opt { None } else { c.gates(&x, &ctx) };
        let call = c.call(&gates).quantizers(found.attention);
        let mut scratch = Scratch::new();
        let context: Vec<f32> = if c.opt {
            let mut y = vec![0.0; x.len()];
            let out = HeadsMut::new(&mut y, c.tokens, HEADS, HEAD_DIM).unwrap();
            c.attention.forward(AttentionInputs::new(q, k, v), &call, out, &ctx, &mut scratch).unwrap();
            y
        } else {
            let mut y = vec![0u8; x.len()];
            let out = (HeadsMut::new(&mut y, c.tokens, HEADS, HEAD_DIM).unwrap(), found.output);
            c.attention.forward(AttentionInputs::new(q, k, v), &call, out, &ctx, &mut scratch).unwrap();
            y.iter().map(|&q| found.output.dequantize(q.into())).collect()
        };
        let expected = c.g.f32("mid.context_act_quantizer.out");
        let step = found.attention.context.unwrap_or(found.output).scale();
        let mut same = 0;
        for (i, got) in context.iter().enumerate() {
            let (token, head, feature) = (i / FEATURES, i % FEATURES / HEAD_DIM, i % HEAD_DIM);
            // [H, T, d] for OPT.
            let at = if c.opt { (head * c.tokens + token) * HEAD_DIM + feature } else { i };
            let off = (got - expected[at]).abs() / step;
            assert!(off < 1.01, "{case} {i}: {off} steps");
            same += usize::from(off < 0.01);
        }
        assert!(same * 100 >= context.len() * 99, "{case}: {same} of {}", context.len());
    }
}

/// An observer that keeps what it and its copies see.
#[derive(Clone)]
struct Recorder {
    inner: MinMax,
    seen: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Recorder {
    fn new() -> Self {
        Self { inner: MinMax::new(U8), seen: Arc::default() }
    }
}

impl Observer for Recorder {
    fn observe(&mut self, x: &[f32]) -> siskin::Result<()> {
        self.inner.observe(x)?;
        self.seen.lock().unwrap().push(x.to_vec());
        Ok(())
    }

    fn params(&self) -> siskin::Result<QuantParams> {
        self.inner.params()
    }
}

/// Calibrates on one batch, calls on the same with the quantizers found, and compares the contexts; then what an observer of
/// weights saw.
fn compare(
    name: &str,
    attention: Attention,
    kv_heads: usize,
    lens: (usize, usize),
    call: &AttentionCall<'_>,
) -> Vec<f32> {
    let (heads, d) = (4, 24);
    let mut rng = Rng::new(7);
    let mut random = |tokens: usize, heads: usize| {
        (0..tokens * heads * d).map(|_| rng.float(-2.0, 2.0)).collect::<Vec<f32>>()
    };
    let (q, k, v) = (random(lens.0, heads), random(lens.1, kv_heads), random(lens.1, kv_heads));
    let ctx = Ctx::new().unwrap();
    let mut weights = Vec::new();
    for order in [ContextOrder::AfterGate, ContextOrder::BeforeGate] {
        let recorder = Recorder::new();
        let mut calibrator = Calibrator::new(attention, order, recorder.clone()).with_authors_weights_scale();
        let heads_of = |x, tokens, heads| HeadsRef::new(x, tokens, heads, d).unwrap();
        calibrator
            .observe(
                heads_of(&q, lens.0, heads),
                heads_of(&k, lens.1, kv_heads),
                heads_of(&v, lens.1, kv_heads),
                call,
                &ctx,
            )
            .unwrap();
        let found = calibrator.finish().unwrap();
        let seen = recorder.seen.lock().unwrap();
        assert_eq!(seen.len(), if order == ContextOrder::BeforeGate { 7 } else { 6 });
        weights = seen[4].clone();

        let bytes = |x: &[f32], p: QuantParams| x.iter().map(|&x| p.quantize(x) as u8).collect::<Vec<u8>>();
        let (q, k, v) = (bytes(&q, found.q), bytes(&k, found.k), bytes(&v, found.v));
        let input = |x, tokens, heads, p: QuantParams| {
            TensorRef::from((HeadsRef::new(x, tokens, heads, d).unwrap(), p))
        };
        let mut out = vec![0.0; lens.0 * heads * d];
        // The observers saw the context before it was quantized.
        let int8 = found.attention.context(None);
        attention
            .forward(
                AttentionInputs::new(
                    input(&q, lens.0, heads, found.q),
                    input(&k, lens.1, kv_heads, found.k),
                    input(&v, lens.1, kv_heads, found.v),
                ),
                &call.quantizers(int8),
                HeadsMut::new(&mut out, lens.0, heads, d).unwrap(),
                &ctx,
                &mut Scratch::new(),
            )
            .unwrap();
        let off: Vec<f32> = out.iter().zip(&seen[seen.len() - 1]).map(|(a, b)| (a - b).abs()).collect();
        // A weight or a score may fall on the other side of a half: a step of the weights times v.
        let same = off.iter().filter(|&&off| off < 2e-5).count();
        assert!(off.iter().all(|&off| off < 0.1), "{name}: {:?}", off.iter().copied().fold(0.0, f32::max));
        assert!(same * 100 >= off.len() * 95, "{name}: {same} of {}", off.len());
    }
    weights
}

#[test]
fn masks_are_those_of_a_call() {
    let new = || Attention::new(4, 4, 24).unwrap();
    let batch = |batch, q_len, kv_len| Sequences::Batch { batch, q_len, kv_len };
    let two = AttentionCall::new(batch(2, 9, 13));
    let clip = Clipped::new(-0.02, 1.1).unwrap();
    compare("plain", new(), 4, (18, 26), &two);
    compare("clipped", new().softmax(clip), 4, (18, 26), &two);
    compare("causal", new().causal(), 4, (18, 26), &two);
    compare("window", new().window(3, 1), 4, (18, 26), &two);
    compare("far window", new().window(usize::MAX, 0), 4, (18, 26), &two);
    compare("positions", new().causal().window(5, 9), 4, (18, 26), &two.positions(&[0, 3]));
    compare("grouped", Attention::new(4, 2, 24).unwrap().causal(), 2, (18, 26), &two);

    // Sequences without queries or with one key more than the other, and queries that meet none.
    let (q, kv) = ([0, 3, 3, 12, 18], [0, 7, 9, 9, 26]);
    let packed = AttentionCall::new(Sequences::Packed { q: &q, kv: &kv });
    for empty in [EmptyRow::Zeros, EmptyRow::Uniform] {
        compare("packed", new().causal().empty_rows(empty), 4, (18, 26), &packed);
        let lengths = two.key_lengths(&[0, 5]);
        let weights = compare("lengths", new().empty_rows(empty), 4, (18, 26), &lengths);
        let alone = if empty == EmptyRow::Uniform { 1.0 / 13.0 } else { 0.0 };
        assert!(weights[..4 * 9 * 13].iter().all(|&w| w == alone), "{empty:?}");
        assert!(weights[4 * 9 * 13..].chunks(13).all(|row| row[5..].iter().all(|&w| w == 0.0)));
        // More queries than keys: the first are before all keys.
        compare("early", new().causal().empty_rows(empty), 4, (26, 18), &AttentionCall::new(batch(2, 13, 9)));
        let mut bias: Vec<f32> = (0..4 * 9 * 13).map(|i| (i as f32).sin()).collect();
        bias.iter_mut().step_by(3).for_each(|b| *b = f32::NEG_INFINITY);
        bias[..13].fill(f32::NEG_INFINITY);
        bias[13..26].fill(f32::MIN);
        let bias = Bias::new(&bias, 1, 4, 9, 13).unwrap();
        compare("bias", new().empty_rows(empty).softmax(clip), 4, (18, 26), &two.bias(bias));
    }
    let bias: Vec<f32> = (0..2 * 13).map(|i| (i as f32).cos()).collect();
    compare("key bias", new(), 4, (18, 26), &two.bias(Bias::new(&bias, 2, 1, 1, 13).unwrap()));
    let live = [true, false, true, false, true, true, true, false, false, true];
    let mask = BlockMask::new(&live, 2, 5, 5, 3).unwrap();
    compare("blocks", new().causal(), 4, (18, 26), &two.block_mask(mask));
    let gates: Vec<f32> = (0..18 * 4).map(|i| (i % 7) as f32 / 7.0).collect();
    compare("gates", new(), 4, (18, 26), &two.gates(MatRef::new(&gates, 18, 4).unwrap()));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let ctx = Ctx::new().unwrap();
    let attention = Attention::new(1, 1, 4).unwrap();
    let mut calibrator = Calibrator::new(attention, ContextOrder::AfterGate, RunningMinMax::new(U8))
        .with_authors_weights_scale();
    let nothing = calibrator.finish().unwrap_err();
    assert!(matches!(nothing, Error::Value { argument: "observer", .. }));

    let good: Vec<f32> = (0..12).map(|i| i as f32 - 5.0).collect();
    let with = |at: usize, v: f32| {
        let mut x = good.clone();
        x[at] = v;
        x
    };
    let heads = |x| HeadsRef::new(x, 3, 1, 4).unwrap();
    let three = Sequences::Batch { batch: 1, q_len: 3, kv_len: 3 };
    let call = AttentionCall::new(three);
    calibrator.observe(heads(&good), heads(&good), heads(&good), &call, &ctx).unwrap();
    let before = calibrator.finish().unwrap();
    let mut refused = |q, k, v, call: &AttentionCall<'_>| {
        let error = calibrator.observe(q, k, v, call, &ctx).unwrap_err();
        assert_eq!(calibrator.finish().unwrap(), before);
        match error {
            Error::Shape { argument, .. } | Error::Value { argument, .. } => argument,
            other => panic!("{other}"),
        }
    };
    let (nan, huge) = (with(7, f32::NAN), with(2, 1e30));
    assert_eq!(refused(heads(&nan), heads(&good), heads(&good), &call), "q");
    assert_eq!(refused(heads(&good), heads(&nan), heads(&good), &call), "k");
    assert_eq!(refused(heads(&good), heads(&good), heads(&nan), &call), "v");
    assert_eq!(refused(heads(&huge), heads(&huge), heads(&good), &call), "scores");
    let bias = [f32::NAN, 0.0, 0.0];
    let biased = call.bias(Bias::new(&bias, 1, 1, 1, 3).unwrap());
    assert_eq!(refused(heads(&good), heads(&good), heads(&good), &biased), "weights");
    let gates = [1.0, f32::INFINITY, 1.0];
    let gated = call.gates(MatRef::new(&gates, 3, 1).unwrap());
    assert_eq!(refused(heads(&good), heads(&good), heads(&good), &gated), "context");
    // As a call refuses it.
    let other = AttentionCall::new(Sequences::Batch { batch: 2, q_len: 3, kv_len: 3 });
    assert_eq!(refused(heads(&good), heads(&good), heads(&good), &other), "q");
    let none = HeadsRef::new(&[], 0, 1, 4).unwrap();
    let endless = AttentionCall::new(Sequences::Batch { batch: usize::MAX, q_len: 0, kv_len: 0 });
    assert_eq!(refused(none, none, none, &endless), "q");
    let no_keys = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 3, kv_len: 0 });
    assert_eq!(refused(heads(&good), none, none, &no_keys), "k");
    // One row that stands for more than there is memory for.
    let many = HeadsRef::with_strides(&good[..4], usize::MAX / 8, 1, 4, 0, 4).unwrap();
    let long = AttentionCall::new(Sequences::Batch { batch: 1, q_len: usize::MAX / 8, kv_len: 3 });
    assert_eq!(refused(many, heads(&good), heads(&good), &long), "q");

    // Weights need all steps of a byte: those of a symmetric i8 have half of them.
    for (scheme, fits) in [
        (Scheme::Asymmetric(Element::I8), true),
        (Scheme::SymmetricAuto, true),
        (Scheme::Symmetric(Element::I8), false),
    ] {
        let calibrator = Calibrator::new(attention, ContextOrder::BeforeGate, MinMax::new(scheme));
        let mut steps_of_their_own = calibrator.clone();
        steps_of_their_own.observe(heads(&good), heads(&good), heads(&good), &call, &ctx).unwrap();
        assert_eq!(steps_of_their_own.finish().unwrap().attention.weights_scale, None, "{scheme:?}");
        let mut calibrator = calibrator.with_authors_weights_scale();
        calibrator.observe(heads(&good), heads(&good), heads(&good), &call, &ctx).unwrap();
        match calibrator.finish() {
            Ok(found) => assert!(fits && found.attention.weights_scale == Some(1.0 / 255.0), "{scheme:?}"),
            Err(e) => assert!(!fits && matches!(e, Error::Unsupported { argument: "observer", .. }), "{e}"),
        }
    }
}
