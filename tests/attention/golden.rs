//! Against contexts that the original code of Quantizable Transformers and ByteTransformer gave (PyTorch, f32, CPU), and
//! against a softmax in two passes over split keys as LeanAttention has it. `tests/golden/attention.safetensors` holds the tensors
//! of each case that attention itself needs, by the names that their code has for them.

use crate::common::{isas, serial};
use safetensors::SafeTensors;
use siskin::Element;
use siskin::attention::*;
use siskin::linear::{Activation, Epilogue, Linear};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch, TensorMut, TensorRef, f16};

struct Golden<'a>(SafeTensors<'a>, &'a str);

static FILE: &[u8] = include_bytes!("../golden/attention.safetensors");

fn golden(case: &str) -> Golden<'_> {
    Golden(SafeTensors::deserialize(FILE).unwrap(), case)
}

impl Golden<'_> {
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.tensor(&format!("{}/{name}", self.1)).unwrap().data().to_vec()
    }
    fn has(&self, name: &str) -> bool {
        self.0.tensor(&format!("{}/{name}", self.1)).is_ok()
    }
    fn f32(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }
    fn i32(&self, name: &str) -> Vec<i32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b)).collect()
    }
    fn f16(&self, name: &str) -> Vec<f16> {
        self.bytes(name).as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b)).collect()
    }
    fn params(&self, name: &str) -> QuantParams {
        let p = self.f32(name);
        assert_eq!((p[2], p[3]), (0.0, 255.0));
        QuantParams::u8(p[0], p[1] as i32).unwrap()
    }
}

fn near(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let most = want.iter().fold(0f32, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-5 * most, "{what}: element {i} is {g}, not {w}");
    }
}

/// `[tokens, heads, head_dim]`, next to each other.
fn heads(x: &[f32], heads: usize, head_dim: usize) -> TensorRef<'_> {
    TensorRef::from(HeadsRef::new(x, x.len() / (heads * head_dim), heads, head_dim).unwrap())
}

fn attend(
    a: &Attention,
    (h, d): (usize, usize),
    [q, k, v]: [&[f32]; 3],
    call: &AttentionCall<'_>,
    ctx: &Ctx,
) -> Vec<f32> {
    let mut context = vec![f32::NAN; q.len()];
    let out = HeadsMut::new(&mut context, q.len() / (h * d), h, d).unwrap();
    a.forward(
        AttentionInputs::new(heads(q, h, d), heads(k, h, d), heads(v, h, d)),
        call,
        out,
        ctx,
        &mut Scratch::new(),
    )
    .unwrap();
    context
}

fn softmax(gamma: f32, zeta: f32) -> Softmax {
    if (gamma, zeta) == (0.0, 1.0) { Softmax::Standard } else { Clipped::new(gamma, zeta).unwrap().into() }
}

/// Batch, tokens, heads, head_dim; gamma, zeta.
type Layer = (&'static str, [usize; 4], (f32, f32));

const BERT: [Layer; 16] = [
    ("bert_vanilla_pad", [2, 24, 4, 16], (0.0, 1.0)),
    ("bert_clip_m0p025", [2, 24, 4, 16], (-0.025, 1.0)),
    ("bert_clip_m0p1_1p1", [1, 33, 2, 32], (-0.1, 1.1)),
    ("bert_clip_0_1p003", [2, 16, 3, 8], (0.0, 1.003)),
    ("bert_alpha4", [2, 32, 2, 64], (-4.0 / 32.0, 1.0)),
    ("bert_fullmask_row", [2, 16, 2, 16], (-0.03, 1.0)),
    ("bert_headmask", [1, 16, 4, 8], (-0.01, 1.01)),
    ("bert_gate_uncond", [2, 16, 4, 16], (0.0, 1.0)),
    ("bert_gate_linear", [2, 20, 4, 16], (0.0, 1.0)),
    ("bert_gate_linear_initbias", [1, 12, 2, 16], (0.0, 1.0)),
    ("bert_gate_perhead_pooled", [2, 20, 4, 16], (0.0, 1.0)),
    ("bert_gate_mlp", [2, 20, 4, 16], (0.0, 1.0)),
    ("bert_gate_mlp2", [1, 16, 2, 16], (0.0, 1.0)),
    ("bert_gate_allfeat", [2, 16, 4, 16], (0.0, 1.0)),
    ("bert_gate_finetune", [1, 16, 2, 16], (0.0, 1.0)),
    ("bert_clip_and_gate", [1, 24, 2, 32], (-0.03, 1.0)),
];

const OPT: [Layer; 8] = [
    ("opt_vanilla_causal", [2, 20, 4, 16], (0.0, 1.0)),
    ("opt_alpha12_T512", [1, 40, 2, 64], (-12.0 / 512.0, 1.0)),
    ("opt_clip_m0p03", [2, 24, 2, 32], (-0.03, 1.0)),
    ("opt_clip_leftpad", [2, 16, 2, 16], (-0.04, 1.0)),
    ("opt_decode_step", [3, 1, 4, 16], (-0.015, 1.0)),
    ("opt_chunk_decode", [1, 5, 2, 16], (-0.02, 1.0)),
    ("opt_gate_linear", [2, 18, 4, 16], (0.0, 1.0)),
    ("opt_gate_allfeat", [1, 18, 4, 16], (0.0, 1.0)),
];

impl Golden<'_> {
    /// `[tokens, heads]` of a gate for each token, each sequence or all of them; a mask of heads is one too.
    fn gates(&self, [batch, tokens, h, _]: [usize; 4]) -> Option<Vec<f32>> {
        let mask = self.has("in.head_mask");
        let gate = match (mask, self.has("mid.gate")) {
            (true, _) => self.f32("in.head_mask"),
            (_, true) => self.f32("mid.gate"),
            _ => return None,
        };
        let (per_batch, per_token) = (gate.len() / h / batch > 0, gate.len() == batch * h * tokens);
        // Divided by what the gates began with.
        let by = if self.1 == "bert_gate_finetune" { 1.0 / 0.25 } else { 1.0 };
        let mut gates = vec![];
        for b in 0..batch {
            for t in 0..tokens {
                for head in 0..h {
                    let row = if per_batch { b * h + head } else { head };
                    gates.push(by * if per_token { gate[row * tokens + t] } else { gate[row] });
                }
            }
        }
        Some(gates)
    }

    /// Past tokens `[batch, heads, past, head_dim]` and new ones, to `[batch, past + new, heads, head_dim]`.
    fn cached(&self, which: &str, [batch, tokens, h, d]: [usize; 4]) -> Vec<f32> {
        let new = self.f32(&format!("mid.{which}"));
        if !self.has("in.past_k") {
            return new;
        }
        let past = self.f32(&format!("in.past_{which}"));
        let n = past.len() / (batch * h * d);
        let mut all = vec![];
        for b in 0..batch {
            for t in 0..n {
                for head in 0..h {
                    all.extend_from_slice(&past[((b * h + head) * n + t) * d..][..d]);
                }
            }
            all.extend_from_slice(&new[b * tokens * h * d..][..tokens * h * d]);
        }
        all
    }
}

#[test]
fn bert() {
    for isa in isas("bert") {
        let ctx = serial(isa);
        for (name, shape @ [batch, tokens, h, d], (gamma, zeta)) in BERT {
            let g = golden(name);
            let [q, k, v] = ["mid.q", "mid.k", "mid.v"].map(|n| g.f32(n));
            let a = Attention::new(h, h, d).unwrap().softmax(softmax(gamma, zeta));
            let mask = g.bytes("in.attention_mask");
            let bias: Vec<f32> = mask.iter().map(|&m| if m == 0 { f32::MIN } else { 0.0 }).collect();
            let lengths: Vec<usize> =
                mask.chunks_exact(tokens).map(|m| m.iter().filter(|m| **m != 0).count()).collect();
            let gates = g.gates(shape);
            let mut call = AttentionCall::new(Sequences::Batch { batch, q_len: tokens, kv_len: tokens });
            if let Some(gates) = &gates {
                call = call.gates(MatRef::new(gates, batch * tokens, h).unwrap());
            }
            let want = g.f32("out.context");
            let added = call.bias(Bias::new(&bias, batch, 1, 1, tokens).unwrap());
            near(&attend(&a, (h, d), [&q, &k, &v], &added, &ctx), &want, &format!("{isa} {name} by bias"));
            let a = a.empty_rows(EmptyRow::Uniform);
            let cut = call.key_lengths(&lengths);
            near(&attend(&a, (h, d), [&q, &k, &v], &cut, &ctx), &want, &format!("{isa} {name} by lengths"));
        }
    }
}

#[test]
fn opt() {
    for isa in isas("opt") {
        let ctx = serial(isa);
        for (name, shape @ [batch, tokens, h, d], (gamma, zeta)) in OPT {
            let g = golden(name);
            let (q, k, v) = (g.f32("mid.q"), g.cached("k", shape), g.cached("v", shape));
            let keys = k.len() / (batch * h * d);
            // q is scaled already.
            let a = Attention::new(h, h, d).unwrap().softmax(softmax(gamma, zeta)).scale(1.0).unwrap();
            let gates = g.gates(shape);
            let mut call = AttentionCall::new(Sequences::Batch { batch, q_len: tokens, kv_len: keys });
            if let Some(gates) = &gates {
                call = call.gates(MatRef::new(gates, batch * tokens, h).unwrap());
            }
            let want = g.f32("out.context");
            let mask = g.bytes("in.attention_mask");
            assert_eq!(mask.len(), batch * keys);
            // Causal and padding in one bias, as the original has it.
            let mut bias = vec![];
            for b in 0..batch {
                for i in 0..tokens {
                    let there = |j: usize| mask[b * keys + j] != 0 && j <= keys - tokens + i;
                    bias.extend((0..keys).map(|j| if there(j) { 0.0 } else { f32::MIN }));
                }
            }
            let added = call.bias(Bias::new(&bias, batch, 1, tokens, keys).unwrap());
            near(&attend(&a, (h, d), [&q, &k, &v], &added, &ctx), &want, &format!("{isa} {name} by bias"));
            // Causal as it is, padding by a bias, or by lengths where it is on the right.
            let a = a.causal().empty_rows(EmptyRow::Uniform);
            let padding: Vec<f32> =
                mask.iter().map(|&m| if m == 0 { f32::NEG_INFINITY } else { 0.0 }).collect();
            let added = call.bias(Bias::new(&padding, batch, 1, 1, keys).unwrap());
            near(&attend(&a, (h, d), [&q, &k, &v], &added, &ctx), &want, &format!("{isa} {name} causal"));
            if name != "opt_clip_leftpad" {
                let lengths: Vec<usize> =
                    mask.chunks_exact(keys).map(|m| m.iter().filter(|m| **m != 0).count()).collect();
                let cut = call.key_lengths(&lengths);
                near(
                    &attend(&a, (h, d), [&q, &k, &v], &cut, &ctx),
                    &want,
                    &format!("{isa} {name} by lengths"),
                );
            }
        }
    }
}

/// Rows of logits as a bias, with a v that shows the weights.
fn weights(logits: &[f32], n: usize, gamma: f32, zeta: f32, ctx: &Ctx) -> Vec<f32> {
    let rows = logits.len() / n;
    let a = Attention::new(1, 1, n).unwrap().softmax(softmax(gamma, zeta));
    let identity: Vec<f32> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    let (q, k) = (vec![0.0; rows * n], vec![0.0; n * n]);
    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: rows, kv_len: n })
        .bias(Bias::new(logits, 1, 1, rows, n).unwrap());
    attend(&a, (1, n), [&q, &k, &identity], &call, ctx)
}

#[test]
fn clipped_softmax() {
    for isa in isas("clipped_softmax") {
        let ctx = serial(isa);
        let g = golden("clipsm_raw_f32");
        let logits = g.f32("in.logits");
        for (name, gamma, zeta) in [
            ("vanilla", 0.0, 1.0),
            ("clip_m0p025_1", -0.025, 1.0),
            ("clip_m0p1_1p1", -0.1, 1.1),
            ("clip_0_1p003", 0.0, 1.003),
            ("clip_m0p003_1p005", -0.003, 1.005),
            ("alpha12_T512", -12.0 / 512.0, 1.0),
        ] {
            let got = weights(&logits, 65, gamma, zeta, &ctx);
            near(&got, &g.f32(&format!("out.{name}")), &format!("{isa} {name}"));
        }
        let g = golden("clipsm_named_variants");
        let logits = g.f32("in.logits");
        // The first is -0.003 in the original, whatever its name says.
        for (i, (gamma, zeta)) in
            [(-0.003, 1.005), (-0.01, 1.01), (-0.00001, 1.0), (0.0, 1.0003)].into_iter().enumerate()
        {
            let got = weights(&logits, 33, gamma, zeta, &ctx);
            near(&got, &g.f32(&format!("out.{i}")), &format!("{isa} variant {i}"));
        }
        let g = golden("clipsm_raw_f16in");
        let logits: Vec<f32> = g.f16("in.logits").iter().map(|x| x.to_f32()).collect();
        let got = weights(&logits, 65, -0.025, 1.0, &ctx);
        near(&got, &g.f32("out.f32"), &format!("{isa} of f16"));
        for (got, want) in got.iter().zip(g.f16("out.f16")) {
            let (got, want) = (f16::from_f32(*got), want);
            assert!(got.to_bits().abs_diff(want.to_bits()) <= 1, "{isa} to f16: {got}, not {want}");
        }
    }
}

#[test]
fn packed_sequences() {
    let g = golden("varlen_clipped_packed");
    let [q, k, v] = ["in.q", "in.k", "in.v"].map(|n| g.f32(n));
    let cu = g.i32("in.cu_seqlens");
    for isa in isas("packed_sequences") {
        for (name, gamma, zeta, causal) in [
            ("vanilla", 0.0, 1.0, false),
            ("clip_m0p03_1p02", -0.03, 1.02, false),
            ("clip_m0p05_causal", -0.05, 1.0, true),
        ] {
            let mut a = Attention::new(2, 2, 16).unwrap().softmax(softmax(gamma, zeta));
            if causal {
                a = a.causal();
            }
            let call = AttentionCall::new(Sequences::Packed { q: &cu, kv: &cu });
            let got = attend(&a, (2, 16), [&q, &k, &v], &call, &serial(isa));
            near(&got, &g.f32(&format!("out.{name}")), &format!("{isa} {name}"));
        }
    }
}

/// One query whose keys are `[heads, keys, head_dim]`.
#[test]
fn split_keys() {
    let g = golden("lean_splitkv_decode");
    let [q, k, v] = ["in.q", "in.k", "in.v"].map(|n| g.f32(n));
    let view = |x| TensorRef::from(HeadsRef::with_strides(x, 101, 2, 32, 32, 101 * 32).unwrap());
    for isa in isas("split_keys") {
        for (name, gamma) in [("out.vanilla", 0.0), ("out.clipped", -0.015)] {
            let a = Attention::new(2, 2, 32).unwrap().softmax(softmax(gamma, 1.0));
            let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 1, kv_len: 101 });
            let mut got = vec![f32::NAN; 64];
            let out = HeadsMut::new(&mut got, 1, 2, 32).unwrap();
            a.forward(
                AttentionInputs::new(heads(&q, 2, 32), view(&k), view(&v)),
                &call,
                out,
                &serial(isa),
                &mut Scratch::new(),
            )
            .unwrap();
            near(&got, &g.f32(name), &format!("{isa} {name}"));
        }
    }
}

/// A linear layer whose weights are `[in, out]`.
fn project(g: &Golden<'_>, name: &str, x: &[f32], e: Epilogue<'_>, ctx: &Ctx) -> Vec<f32> {
    let (w, bias) = (g.f32(&format!("param.{name}_kernel")), g.f32(&format!("param.{name}_bias")));
    let (n, k) = (bias.len(), w.len() / bias.len());
    let turned: Vec<f32> = (0..n * k).map(|i| w[i % k * n + i / k]).collect();
    let layer = Linear::dense(MatRef::new(&turned, n, k).unwrap()).bias(&bias).build(ctx).unwrap();
    let m = x.len() / k;
    let mut y = vec![f32::NAN; m * n];
    let (x, y_rows) = (MatRef::new(x, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
    layer.forward(x, e, y_rows, ctx, &mut Scratch::new()).unwrap();
    y
}

fn normalize(g: &Golden<'_>, name: &str, x: &[f32]) -> Vec<f32> {
    let [gamma, beta] = ["gamma", "beta"].map(|n| g.f32(&format!("param.{name}_layernorm_{n}")));
    let mut y = vec![];
    for row in x.chunks_exact(gamma.len()) {
        let n = row.len() as f64;
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let one = |i: usize| (f64::from(row[i]) - mean) / (var + 1e-5).sqrt();
        y.extend((0..row.len()).map(|i| (one(i) * f64::from(gamma[i]) + f64::from(beta[i])) as f32));
    }
    y
}

/// A whole layer of BERT on packed tokens: q, k and v are parts of one product, heads are merged as they are written.
#[test]
fn packed_layer() {
    let g = golden("bt_bert_layer_a");
    let (x, cu) = (g.f32("mid.packed_input"), g.i32("mid.batch_idx"));
    let (tokens, h, d) = (x.len() / 16, 2, 8);
    for isa in isas("packed_layer") {
        let ctx = serial(isa);
        let qkv = project(&g, "qkv", &x, Epilogue::new(), &ctx);
        let part = |i: usize| {
            TensorRef::from(HeadsRef::with_strides(&qkv[i * h * d..], tokens, h, d, 48, d).unwrap())
        };
        let mut context = vec![f32::NAN; x.len()];
        let out = HeadsMut::new(&mut context, tokens, h, d).unwrap();
        let call = AttentionCall::new(Sequences::Packed { q: &cu, kv: &cu });
        let a = Attention::new(h, h, d).unwrap();
        a.forward(AttentionInputs::new(part(0), part(1), part(2)), &call, out, &ctx, &mut Scratch::new())
            .unwrap();
        let plus = |x| Epilogue::new().residual(MatRef::<f32>::new(x, tokens, 16).unwrap());
        let x1 = project(&g, "attr_output", &context, plus(&x), &ctx);
        let x1 = normalize(&g, "attr_output", &x1);
        let inner = project(&g, "inter", &x1, Epilogue::new().activation(Activation::Gelu), &ctx);
        let x2 = project(&g, "output", &inner, plus(&x1), &ctx);
        near(&normalize(&g, "output", &x2), &g.f32("out.packed"), &format!("{isa}"));
    }
}

/// Name, causal, tokens, gamma; 2 heads of 16.
const INT8: [(&str, bool, usize, f32); 5] = [
    ("int8_bert_clip", false, 16, -0.03),
    ("int8_bert_vanilla", false, 16, 0.0),
    ("int8_opt_clip_mse", true, 16, -0.03),
    ("int8_opt_gate_pct", true, 16, 0.0),
    ("int8_bert_gate_w4a8", false, 12, 0.0),
];

fn attend_bytes<'a>(
    a: &Attention,
    [q, k, v]: [(&[u8], QuantParams); 3],
    call: &AttentionCall<'_>,
    out: impl Into<TensorMut<'a>>,
    ctx: &Ctx,
) {
    let tokens = q.0.len() / 32;
    let input = |(x, p)| TensorRef::from((HeadsRef::new(x, tokens, 2, 16).unwrap(), HeadParams::All(p)));
    a.forward(AttentionInputs::new(input(q), input(k), input(v)), call, out, ctx, &mut Scratch::new())
        .unwrap();
}

/// Each stage of the INT8 simulation from the stage before: the quantized weights bit for bit, the codes of the context.
#[test]
fn int8_stages() {
    for isa in isas("int8_stages") {
        let ctx = serial(isa);
        for (name, opt, n, gamma) in INT8 {
            int8_case(name, opt, n, gamma, isa, &ctx);
        }
    }
}

fn int8_case(name: &str, opt: bool, n: usize, gamma: f32, isa: Isa, ctx: &Ctx) {
    let g = golden(name);
    let names = if opt { ["q_proj", "k_proj", "v_proj"] } else { ["query", "key", "value"] };
    let [q, k, v] = names.map(|name| {
        let p = g.params(&format!("param.{name}.act_qparams"));
        let codes: Vec<u8> = g.f32(&format!("mid.{name}")).iter().map(|&x| p.quantize(x) as u8).collect();
        (codes, p)
    });
    let step = g.params("param.attn_probs_act_quantizer.qparams").scale();
    let scores = g.params("param.attn_scores_act_quantizer.qparams");
    let context = g.params("param.context_act_quantizer.qparams");
    let mut a = Attention::new(2, 2, 16).unwrap().softmax(softmax(gamma, 1.0));
    if opt {
        a = a.causal();
    }
    let mask = g.bytes("in.attention_mask");
    let lengths = [mask.iter().filter(|m| **m != 0).count()];
    let gates = g.gates([1, n, 2, 16]);
    let plain = AttentionCall::new(Sequences::Batch { batch: 1, q_len: n, kv_len: n }).key_lengths(&lengths);
    let int8 = AttentionQuantizers::default().scores(scores).weights_scale(step);

    // The weights, by a v that shows them.
    let identity: Vec<u8> = (0..n * 32).map(|i| u8::from(i / 32 == i % 16)).collect();
    let one = QuantParams::u8(1.0, 0).unwrap();
    let mut w = vec![f32::NAN; n * 32];
    let out = HeadsMut::new(&mut w, n, 2, 16).unwrap();
    attend_bytes(&a, [(&q.0, q.1), (&k.0, k.1), (&identity, one)], &plain.quantizers(int8), out, ctx);
    let want = g.f32("mid.attn_probs_act_quantizer.out");
    for (i, &got) in w.iter().enumerate() {
        let (t, h, j) = (i / 32, i / 16 % 2, i % 16);
        let want = if j < n { want[(h * n + t) * n + j] } else { 0.0 };
        assert_eq!(got, want, "{isa} {name} weight of query {t}, head {h}, key {j}");
    }

    // The context in f32. OPT has its quantizer before the gate, and heads before tokens.
    let call = match &gates {
        Some(gates) if !opt => plain.gates(MatRef::new(gates, n, 2).unwrap()),
        _ => plain,
    };
    let merged = |x: Vec<f32>| -> Vec<f32> {
        if !opt {
            return x;
        }
        (0..n * 32).map(|i| x[(i / 16 % 2 * n + i / 32) * 16 + i % 16]).collect()
    };
    let bytes = [(&q.0[..], q.1), (&k.0[..], k.1), (&v.0[..], v.1)];
    let mut got = vec![f32::NAN; n * 32];
    let out = HeadsMut::new(&mut got, n, 2, 16).unwrap();
    attend_bytes(&a, bytes, &call.quantizers(int8), out, ctx);
    near(&got, &merged(g.f32("mid.context_act_quantizer.in")), &format!("{isa} {name} context"));

    // Its codes.
    let codes = merged(g.f32("mid.context_act_quantizer.out"));
    let mut got = vec![0u8; n * 32];
    let out = (HeadsMut::new(&mut got, n, 2, 16).unwrap(), context);
    attend_bytes(&a, bytes, &call.quantizers(int8), out, ctx);
    let want: Vec<u8> = codes.iter().map(|&x| context.quantize(x) as u8).collect();
    assert_eq!(got, want, "{isa} {name} codes");
    assert_eq!(context.dtype(), Element::U8);

    // As OPT goes on: quantized, then gated, in f32.
    if opt {
        let int8 = int8.context(Some(context));
        let mut call = plain.quantizers(int8);
        let ones = vec![1.0; n * 2];
        let gates = gates.unwrap_or(ones);
        call = call.gates(MatRef::new(&gates, n, 2).unwrap());
        let mut got = vec![f32::NAN; n * 32];
        let out = HeadsMut::new(&mut got, n, 2, 16).unwrap();
        attend_bytes(&a, bytes, &call, out, ctx);
        let want: Vec<f32> = codes.iter().enumerate().map(|(i, &c)| c * gates[i / 16]).collect();
        near(&got, &want, &format!("{isa} {name} gated"));
    }
}
