//! The first half of a transformer layer: queries, keys and values, and attention.

use crate::error::Result;
use crate::layer::{Call, Flow, Layer, Qkv};
use crate::names::{LinearId, Part};
use crate::norm::Norm;
use crate::visitor::Visitor;
use crate::workspace::{Stage, Workspace, grown};
use siskin::attention::{AttentionCall, AttentionInputs, Sequences};
use siskin::linear::{Epilogue, LinearInput, LinearOutput};
use siskin::quant::{QuantParams, Scheme, per_tensor, quantize};
use siskin::{Ctx, Element, ElementType, HeadsMut, HeadsRef, MatMut, MatRef, Scratch};
use std::ops::Range;

const QKV: [Part; 3] = [Part::Query, Part::Key, Part::Value];

impl Layer {
    /// From `x`, or its bytes, to the context.
    pub(crate) fn attend(
        &self,
        layer: usize,
        before: &Norm,
        call: &Call<'_>,
        memory: &mut Workspace,
        visitor: Option<&mut (dyn Visitor + '_)>,
    ) -> Result<()> {
        let (m, hidden, ctx) = (call.tokens, call.config.hidden_size, call.ctx);
        let heads = call.config.num_heads;
        let Workspace { qkv, qkv_u8, qkv_i8, context, context_u8, gates, ends, scratch, clock, .. } = memory;
        let x = MatRef::new(memory.x.first(m * hidden), m, hidden)?;
        let gates = match &self.gate {
            None => None,
            Some(gate) => {
                let gates = grown(gates, m * heads);
                let to = MatMut::new(gates, m, heads)?;
                gate.evaluate(x, &Sequences::own_packed(call.cu_seqlens), to, ctx)?;
                clock.lap(Stage::Attention);
                Some(&*gates)
            }
        };
        // Those of some neighbouring tokens.
        let gates = |tokens: Range<usize>| -> Result<_> {
            let gates = gates.map(|gates| &gates[tokens.start * heads..tokens.end * heads]);
            Ok(gates.map(|gates| MatRef::new(gates, tokens.len(), heads)).transpose()?)
        };
        let next = before.next(x, &memory.norm)?;
        match &self.flow {
            Flow::Static(flow) => {
                // The scales of the three were made part of their weights and biases: here a byte is a byte.
                let plain = QuantParams::u8(1.0, 0)?;
                let qkv = qkv_u8.grown(3 * m * hidden);
                self.qkv.forward(next, qkv, |y| (y, plain).into(), hidden, ctx, scratch)?;
                clock.lap(Stage::Qkv);
                let part = |i: usize| -> Result<_> { Ok((call.heads(qkv, i)?, flow.qkv[i])) };
                let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
                let to = HeadsMut::new(context_u8.grown(m * hidden), m, heads, call.config.head_size())?;
                let texts = texts(call.cu_seqlens, gates(0..m)?);
                call.attention.forward(inputs, &texts, (to, flow.context), ctx, scratch)?;
            }
            Flow::Floats | Flow::Dynamic => {
                let qkv = qkv.grown(3 * m * hidden);
                self.qkv.forward(next, qkv, |y| y.into(), hidden, ctx, scratch)?;
                if let Some(visitor) = visitor {
                    visitor.input(&QKV.map(|part| LinearId { layer, part }), x);
                    for (i, part) in QKV.into_iter().enumerate() {
                        let y = MatRef::with_stride(&qkv[i * hidden..], m, hidden, 3 * hidden)?;
                        visitor.output(LinearId { layer, part }, y);
                    }
                }
                clock.lap(Stage::Qkv);
                let context = context.grown(m * hidden);
                if let Flow::Floats = self.flow {
                    call.attend_floats(&texts(call.cu_seqlens, gates(0..m)?), qkv, context, scratch)?;
                } else {
                    let mut text = 0;
                    while let Some(run) = run(call.cu_seqlens, text, ends) {
                        let tokens = run.tokens;
                        let qkv = &qkv[3 * hidden * tokens.start..3 * hidden * tokens.end];
                        let context = &mut context[hidden * tokens.start..hidden * tokens.end];
                        let texts = texts(ends, gates(tokens.clone())?);
                        if run.short {
                            call.attend_floats(&texts, qkv, context, scratch)?;
                        } else {
                            call.attend_bytes(&texts, qkv, qkv_i8.grown(qkv.len()), context, scratch)?;
                        }
                        text = run.next;
                    }
                }
            }
        }
        clock.lap(Stage::Attention);
        Ok(())
    }
}

/// A call for texts that begin and end so, whose contexts are multiplied by gates `[tokens, heads]`.
fn texts<'a>(cu_seqlens: &'a [i32], gates: Option<MatRef<'a, f32>>) -> AttentionCall<'a> {
    let call = AttentionCall::new(Sequences::own_packed(cu_seqlens));
    gates.map_or(call, |gates| call.gates(gates))
}

impl Call<'_> {
    /// Queries, keys or values: part `i` of `[tokens, 3, hidden]`, head by head.
    fn heads<'a, T: ElementType>(&self, qkv: &'a [T], i: usize) -> Result<HeadsRef<'a, T>> {
        let (hidden, heads, size) = (self.config.hidden_size, self.config.num_heads, self.config.head_size());
        let tokens = qkv.len() / (3 * hidden);
        Ok(HeadsRef::with_strides(&qkv[i * hidden..], tokens, heads, size, 3 * hidden, size)?)
    }

    /// Attention in floats. `qkv` is `[tokens, 3, hidden]`, `context` `[tokens, hidden]`.
    fn attend_floats(
        &self,
        texts: &AttentionCall<'_>,
        qkv: &[f32],
        context: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let m = context.len() / self.config.hidden_size;
        if m == 0 {
            return Ok(());
        }
        let inputs = AttentionInputs::new(self.heads(qkv, 0)?, self.heads(qkv, 1)?, self.heads(qkv, 2)?);
        let to = HeadsMut::new(context, m, self.config.num_heads, self.config.head_size())?;
        self.attention.forward(inputs, texts, to, self.ctx, scratch)?;
        Ok(())
    }

    /// As [`Call::attend_floats`], of a single text, of q, k and v as bytes, each by its own range.
    fn attend_bytes(
        &self,
        text: &AttentionCall<'_>,
        qkv: &[f32],
        bytes: &mut [i8],
        context: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let hidden = self.config.hidden_size;
        let m = context.len() / hidden;
        let mut params = [QuantParams::i8(1.0, 0)?; 3];
        for (i, params) in params.iter_mut().enumerate() {
            let x = MatRef::with_stride(&qkv[i * hidden..], m, hidden, 3 * hidden)?;
            *params = per_tensor(x, Scheme::Symmetric(Element::I8), self.ctx)?;
            let y = MatMut::with_stride(&mut bytes[i * hidden..], m, hidden, 3 * hidden)?;
            quantize(x, params, y, self.ctx)?;
        }
        let part = |i: usize| -> Result<_> { Ok((self.heads(bytes, i)?, params[i])) };
        let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
        let to = HeadsMut::new(context, m, self.config.num_heads, self.config.head_size())?;
        self.attention.forward(inputs, text, to, self.ctx, scratch)?;
        Ok(())
    }
}

/// Texts of at most so many tokens are attended to in floats where bytes would have to be made first: that takes longer than the
/// products save, as measured on a Zen 4. It is for each text to say, so that it has the same bits in any batch.
const SHORT: i32 = 32;

/// A long text, or neighbouring texts that are all short.
struct Run {
    short: bool,
    tokens: Range<usize>,
    /// The first text behind them.
    next: usize,
}

/// The texts from `text` on that go together, if there is one left; `ends` gets where they begin and end, from 0.
fn run(cu_seqlens: &[i32], text: usize, ends: &mut Vec<i32>) -> Option<Run> {
    let short = |text: usize| Some(cu_seqlens.get(text + 1)? - cu_seqlens[text] <= SHORT);
    let all = short(text)?;
    let mut next = text + 1;
    while all && short(next) == Some(true) {
        next += 1;
    }
    let first = cu_seqlens[text];
    ends.clear();
    // As many as there can be: a later call of as many texts needs no more.
    ends.reserve(cu_seqlens.len());
    ends.extend(cu_seqlens[text..=next].iter().map(|end| end - first));
    Some(Run { short: all, tokens: first as usize..cu_seqlens[next] as usize, next })
}

impl Qkv {
    /// From x `[tokens, hidden]` to `qkv`, `[tokens, 3, hidden]`. `to` says what its numbers stand for.
    fn forward<T: ElementType>(
        &self,
        x: LinearInput<'_>,
        qkv: &mut [T],
        to: impl for<'a> Fn(MatMut<'a, T>) -> LinearOutput<'a>,
        hidden: usize,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (m, _) = x.shape();
        match self {
            Qkv::One(layer) => {
                let y = to(MatMut::new(qkv, m, 3 * hidden)?);
                layer.forward(x, Epilogue::new(), y, ctx, scratch)?;
            }
            // Not packed for all three: they may read it in different forms.
            Qkv::Three(layers) => {
                for (i, layer) in layers.iter().enumerate() {
                    let y = MatMut::with_stride(&mut qkv[i * hidden..], m, hidden, 3 * hidden)?;
                    layer.forward(x, Epilogue::new(), to(y), ctx, scratch)?;
                }
            }
        }
        Ok(())
    }
}
