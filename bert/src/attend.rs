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
        let Workspace { qkv, qkv_u8, qkv_i8, context, context_u8, packed, scratch, clock, .. } = memory;
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
                let to = HeadsMut::new(grown(context, m * hidden), m, heads, head_size)?;
                if let Flow::Floats = self.flow {
                    let part = |i: usize| {
                        HeadsRef::with_strides(&qkv[i * hidden..], m, heads, head_size, 3 * hidden, head_size)
                    };
                    let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
                    call.attention.forward(inputs, &sequences, to, ctx, scratch)?;
                } else {
                    let bytes = grown(qkv_i8, 3 * m * hidden);
                    let params = grown_params(&mut memory.params, 3 * m)?;
                    for i in 0..3 {
                        let x = MatRef::with_stride(&qkv[i * hidden..], m, hidden, 3 * hidden)?;
                        let y = MatMut::with_stride(&mut bytes[i * hidden..], m, hidden, 3 * hidden)?;
                        let scheme = Scheme::Symmetric(Element::I8);
                        quantize_per_token(x, scheme, y, &mut params[i * m..][..m], ctx)?;
                    }
                    let part = |i: usize| -> Result<_> {
                        let bytes = HeadsRef::with_strides(
                            &bytes[i * hidden..],
                            m,
                            heads,
                            head_size,
                            3 * hidden,
                            head_size,
                        )?;
                        Ok((bytes, HeadParams::PerToken(&params[i * m..][..m])))
                    };
                    let inputs = AttentionInputs::new(part(0)?, part(1)?, part(2)?);
                    call.attention.forward(inputs, &sequences, to, ctx, scratch)?;
                }
            }
        }
        clock.lap(Stage::Attention);
        Ok(())
    }
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
