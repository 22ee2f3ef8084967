//! A transformer layer: attention and a feed-forward network, each with its residual and its norm.

use crate::config::{self, Config};
use crate::error::Result;
use crate::names::{LinearId, Part};
use crate::norm::Norm;
use crate::visitor::Visitor;
use crate::workspace::{Stage, Workspace};
use siskin::attention::{Attention, Gate};
use siskin::linear::{Activation, ByteTable, Epilogue, Linear, LinearOutput};
use siskin::quant::QuantParams;
use siskin::{Ctx, MatMut, MatRef};

/// A transformer layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub qkv: Qkv,
    pub output: Linear,
    pub up: Linear,
    pub down: Linear,
    pub attention_norm: Norm,
    pub output_norm: Norm,
    /// What multiplies the contexts of heads.
    pub gate: Option<Gate>,
    pub flow: Flow,
}

/// Queries, keys and values.
#[derive(Debug, Clone)]
pub(crate) enum Qkv {
    /// As one layer of `[3, hidden]` output features.
    One(Box<Linear>),
    /// As three, where they are not stored alike.
    Three(Box<[Linear; 3]>),
}

/// What flows between the linear layers.
#[derive(Debug, Clone)]
pub(crate) enum Flow {
    /// Floats.
    Floats,
    /// Floats, which layers and attention quantize token by token.
    Dynamic,
    /// Bytes, by parameters that were calibrated.
    Static(Box<Static>),
}

/// What the bytes inside of a layer stand for.
#[derive(Debug, Clone)]
pub(crate) struct Static {
    /// Queries, keys and values, as attention reads them.
    pub qkv: [QuantParams; 3],
    /// What comes out of attention.
    pub context: QuantParams,
    /// What is between its two layers, after the activation.
    pub inside: QuantParams,
    /// The activation as a table of bytes, if it is not computed of floats.
    pub table: Option<ByteTable>,
}

/// What the layers of a call have in common.
pub(crate) struct Call<'a> {
    pub config: &'a Config,
    pub cu_seqlens: &'a [i32],
    pub tokens: usize,
    pub attention: &'a Attention,
    pub ctx: &'a Ctx,
}

impl Layer {
    /// From `x`, and what `before` wrote beside it, to the next `x`. `index` is the layer's own, for the visitor.
    pub fn forward(
        &self,
        index: usize,
        before: &Norm,
        call: &Call<'_>,
        memory: &mut Workspace,
        mut visitor: Option<&mut (dyn Visitor + '_)>,
    ) -> Result<()> {
        let size = call.tokens * call.config.hidden_size;
        self.attend(index, before, call, memory, visitor.as_deref_mut())?;
        self.after_attention(index, call, memory, visitor.as_deref_mut())?;
        memory.clock.lap(Stage::Output);
        self.attention_norm.apply(
            memory.h.first_mut(size),
            &mut memory.norm,
            call.ctx,
            &mut memory.scratch,
        )?;
        memory.clock.lap(Stage::Norm);
        self.feed_forward(index, call, memory, visitor)?;
        memory.clock.lap(Stage::Down);
        self.output_norm.apply(memory.x.first_mut(size), &mut memory.norm, call.ctx, &mut memory.scratch)?;
        memory.clock.lap(Stage::Norm);
        Ok(())
    }

    /// From the context and `x` to `h`, before its norm.
    fn after_attention(
        &self,
        layer: usize,
        call: &Call<'_>,
        memory: &mut Workspace,
        visitor: Option<&mut (dyn Visitor + '_)>,
    ) -> Result<()> {
        let (m, hidden) = (call.tokens, call.config.hidden_size);
        let x = MatRef::new(memory.x.first(m * hidden), m, hidden)?;
        let h = MatMut::new(memory.h.grown(m * hidden), m, hidden)?;
        let epilogue = Epilogue::new().residual(x);
        if let Flow::Static(flow) = &self.flow {
            let context = MatRef::new(memory.context_u8.first(m * hidden), m, hidden)?;
            self.output.forward((context, flow.context), epilogue, h, call.ctx, &mut memory.scratch)?;
        } else {
            let context = MatRef::new(memory.context.first(m * hidden), m, hidden)?;
            if let Some(visitor) = visitor {
                visitor.input(&[LinearId { layer, part: Part::Output }], context);
            }
            self.output.forward(context, epilogue, h, call.ctx, &mut memory.scratch)?;
        }
        Ok(())
    }

    /// From `h`, and its bytes, to `x` before its norm.
    fn feed_forward(
        &self,
        layer: usize,
        call: &Call<'_>,
        memory: &mut Workspace,
        mut visitor: Option<&mut (dyn Visitor + '_)>,
    ) -> Result<()> {
        let (m, hidden, ctx) = (call.tokens, call.config.hidden_size, call.ctx);
        let inside = call.config.intermediate_size;
        let h = MatRef::new(memory.h.first(m * hidden), m, hidden)?;
        let x = MatMut::new(memory.x.first_mut(m * hidden), m, hidden)?;
        let activate = Epilogue::new().activation(match (&self.flow, call.config.activation) {
            (Flow::Static(flow), _) if flow.table.is_some() => {
                flow.table.as_ref().map_or(Activation::Identity, Activation::Table)
            }
            (_, config::Activation::Gelu) => Activation::Gelu,
            (_, config::Activation::GeluTanh) => Activation::GeluTanh,
            (_, config::Activation::Relu) => Activation::Relu,
        });
        let residual = Epilogue::new().residual(h);
        let next = self.attention_norm.next(h, &memory.norm)?;
        let (between, scratch) = (&mut memory.between, &mut memory.scratch);
        match &self.flow {
            Flow::Static(flow) => {
                let to = LinearOutput::packed(between, flow.inside, &self.down);
                self.up.forward(next, activate, to, ctx, scratch)?;
                memory.clock.lap(Stage::Up);
                self.down.forward(&*between, residual, x, ctx, scratch)?;
            }
            Flow::Floats if visitor.is_none() => {
                let to = LinearOutput::packed_floats(between, &self.down);
                self.up.forward(next, activate, to, ctx, scratch)?;
                memory.clock.lap(Stage::Up);
                self.down.forward(&*between, residual, x, ctx, scratch)?;
            }
            Flow::Floats | Flow::Dynamic => {
                let rows = memory.inside.grown(m * inside);
                if let Some(visitor) = visitor.as_deref_mut() {
                    visitor.input(&[LinearId { layer, part: Part::Up }], h);
                }
                self.up.forward(next, activate, MatMut::new(rows, m, inside)?, ctx, scratch)?;
                memory.clock.lap(Stage::Up);
                let rows = MatRef::new(rows, m, inside)?;
                if let Some(visitor) = visitor {
                    visitor.input(&[LinearId { layer, part: Part::Down }], rows);
                }
                self.down.forward(rows, residual, x, ctx, scratch)?;
            }
        }
        Ok(())
    }
}
