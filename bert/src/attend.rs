//! The first half of a transformer layer: queries, keys and values, and attention.

use crate::error::Result;
use crate::layer::{Call, Flow, Layer, Qkv};
use crate::names::{LinearId, Part};
use crate::norm::Norm;
use crate::visitor::Visitor;
use crate::workspace::{Stage, Workspace, grown, grown_params};
use siskin::attention::{AttentionCall, AttentionInputs, Sequences};
use siskin::linear::{Epilogue, LinearInput, LinearOutput, PackedActivations};
use siskin::quant::{QuantParams, Scheme, quantize_per_token};
use siskin::{Ctx, Element, ElementType, HeadParams, HeadsMut, HeadsRef, MatMut, MatRef, Scratch};
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
        let sequences = AttentionCall::new(Sequences::own_packed(call.cu_seqlens));
        let (heads, head_size) = (call.config.num_heads, call.config.head_size());
        let Workspace { qkv, qkv_u8, qkv_i8, context, context_u8, ends, packed, scratch, clock, .. } = memory;
        let x = MatRef::new(&memory.x[..m * hidden], m, hidden)?;
        let next = before.next(x, &memory.norm)?;
        match &self.flow {
            Flow::Static(flow) => {
                // The scales of the three were made part of their weights and biases: here a byte is a byte.
                let plain = QuantParams::u8(1.0, 0)?;
                let qkv = grown(qkv_u8, 3 * m * hidden);
                self.qkv.forward(next, qkv, |y| (y, plain).into(), hidden, ctx, (packed, scratch))?;
                clock.lap(Stage::Qkv);
                let part = |i: usize| -> Result<_> {
                    let bytes = HeadsRef::with_strides(
                        &qkv[i * hidden..],
                        m,
                        heads,
                        head_size,
                        3 * hidden,
                        head_size,
                    )?;
                    Ok((bytes, flow.qkv[i]))
                };
                let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
                let to = HeadsMut::new(grown(context_u8, m * hidden), m, heads, head_size)?;
                call.attention.forward(inputs, &sequences, (to, flow.context), ctx, scratch)?;
            }
            Flow::Floats | Flow::Dynamic => {
                let qkv = grown(qkv, 3 * m * hidden);
                self.qkv.forward(next, qkv, |y| y.into(), hidden, ctx, (packed, scratch))?;
                if let Some(visitor) = visitor {
                    visitor.input(&QKV.map(|part| LinearId { layer, part }), x);
                    for (i, part) in QKV.into_iter().enumerate() {
                        let y = MatRef::with_stride(&qkv[i * hidden..], m, hidden, 3 * hidden)?;
                        visitor.output(LinearId { layer, part }, y);
                    }
                }
                clock.lap(Stage::Qkv);
                let context = grown(context, m * hidden);
                if let Flow::Floats = self.flow {
                    call.attend_floats(call.cu_seqlens, qkv, context, scratch)?;
                } else {
                    let mut text = 0;
                    while let Some(run) = run(call.cu_seqlens, text, ends) {
                        let tokens = run.tokens;
                        let qkv = &qkv[3 * hidden * tokens.start..3 * hidden * tokens.end];
                        let context = &mut context[hidden * tokens.start..hidden * tokens.end];
                        if run.short {
                            call.attend_floats(ends, qkv, context, scratch)?;
                        } else {
                            let bytes = grown(qkv_i8, qkv.len());
                            let params = grown_params(&mut memory.params, 3 * tokens.len())?;
                            call.attend_bytes(ends, qkv, (bytes, params), context, scratch)?;
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

impl Call<'_> {
    /// Attention in floats, of texts that begin and end so. `qkv` is `[tokens, 3, hidden]`, `context` `[tokens, hidden]`.
    fn attend_floats(
        &self,
        cu_seqlens: &[i32],
        qkv: &[f32],
        context: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (hidden, heads, head_size) =
            (self.config.hidden_size, self.config.num_heads, self.config.head_size());
        let m = context.len() / hidden;
        if m == 0 {
            return Ok(());
        }
        let part =
            |i: usize| HeadsRef::with_strides(&qkv[i * hidden..], m, heads, head_size, 3 * hidden, head_size);
        let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
        let sequences = AttentionCall::new(Sequences::own_packed(cu_seqlens));
        let to = HeadsMut::new(context, m, heads, head_size)?;
        self.attention.forward(inputs, &sequences, to, self.ctx, scratch)?;
        Ok(())
    }

    /// As [`Call::attend_floats`], of q, k and v as bytes, each token of each by its own range.
    fn attend_bytes(
        &self,
        cu_seqlens: &[i32],
        qkv: &[f32],
        (bytes, params): (&mut [i8], &mut [QuantParams]),
        context: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (hidden, heads, head_size) =
            (self.config.hidden_size, self.config.num_heads, self.config.head_size());
        let m = context.len() / hidden;
        for i in 0..3 {
            let x = MatRef::with_stride(&qkv[i * hidden..], m, hidden, 3 * hidden)?;
            let y = MatMut::with_stride(&mut bytes[i * hidden..], m, hidden, 3 * hidden)?;
            quantize_per_token(x, Scheme::Symmetric(Element::I8), y, &mut params[i * m..][..m], self.ctx)?;
        }
        let part = |i: usize| -> Result<_> {
            let bytes = &bytes[i * hidden..];
            let bytes = HeadsRef::with_strides(bytes, m, heads, head_size, 3 * hidden, head_size)?;
            Ok((bytes, HeadParams::PerToken(&params[i * m..][..m])))
        };
        let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
        let sequences = AttentionCall::new(Sequences::own_packed(cu_seqlens));
        let to = HeadsMut::new(context, m, heads, head_size)?;
        self.attention.forward(inputs, &sequences, to, self.ctx, scratch)?;
        Ok(())
    }
}

/// Texts of at most so many tokens are attended to in floats where bytes would have to be made first: that takes longer than the
/// products save, as measured on a Golden Cove. It is for each text to say, so that it has the same bits in any batch.
const SHORT: i32 = 128;

/// Neighbouring texts that are all short, or all long.
struct Run {
    short: bool,
    tokens: Range<usize>,
    /// The first text behind them.
    next: usize,
}

/// The texts from `text` on that go together, if there is one; `ends` gets where they begin and end, from 0.
fn run(cu_seqlens: &[i32], text: usize, ends: &mut Vec<i32>) -> Option<Run> {
    let short = |text: usize| Some(cu_seqlens.get(text + 1)? - cu_seqlens[text] <= SHORT);
    let all = short(text)?;
    let mut next = text + 1;
    while short(next) == Some(all) {
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
        (packed, scratch): (&mut PackedActivations, &mut Scratch),
    ) -> Result<()> {
        let (m, _) = x.shape();
        match self {
            Qkv::One(layer) => {
                let y = to(MatMut::new(qkv, m, 3 * hidden)?);
                layer.forward(x, Epilogue::new(), y, ctx, scratch)?;
            }
            Qkv::Three(layers) => {
                layers[0].pack(x, packed, ctx, scratch)?;
                for (i, layer) in layers.iter().enumerate() {
                    let y = MatMut::with_stride(&mut qkv[i * hidden..], m, hidden, 3 * hidden)?;
                    layer.forward(&*packed, Epilogue::new(), to(y), ctx, scratch)?;
                }
            }
        }
        Ok(())
    }
}
