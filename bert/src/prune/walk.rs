//! An encoder one step at a time, for all sample texts at once: between the steps, layers are pruned.

use crate::batch::Tokens;
use crate::build::gate;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::names::{EMBEDDING_NORM, LinearId, POSITIONS, TOKEN_TYPES, WORDS};
use siskin::attention::{Attention, AttentionCall, AttentionInputs, Sequences};
use siskin::linear::{Activation, Epilogue, Linear};
use siskin::norm::LayerNorm;
use siskin::{Ctx, HeadsMut, HeadsRef, MatMut, MatRef, Scratch};

/// The texts, and what calls need. Tensors are `[tokens, features]` of all texts.
pub(super) struct Walk<'a> {
    config: Config,
    tokens: Tokens<'a>,
    ctx: &'a Ctx,
    scratch: Scratch,
}

impl<'a> Walk<'a> {
    /// Refuses texts that are none at all or too long, and tokens outside the vocabulary.
    pub fn new(model: &Model, tokens: Tokens<'a>, ctx: &'a Ctx) -> Result<Self> {
        let config = model.config().clone();
        if tokens.tokens() == 0 {
            return Err(Error::argument("texts", "a token or more", 0));
        }
        tokens.check(&config)?;
        Ok(Self { config, tokens, ctx, scratch: Scratch::new() })
    }

    /// All features of all tokens as a matrix.
    pub fn matrix<'x>(&self, x: &'x [f32]) -> Result<MatRef<'x, f32>> {
        let tokens = self.tokens.tokens();
        Ok(MatRef::new(x, tokens, x.len() / tokens)?)
    }

    /// What goes into the first layer.
    pub fn embed(&mut self, model: &Model) -> Result<Vec<f32>> {
        let hidden = self.config.hidden_size;
        let (words, positions) = (model.tensor(WORDS)?, model.tensor(POSITIONS)?);
        let kind = match self.config.num_token_types {
            0 => vec![0.0; hidden],
            _ => model.tensor(TOKEN_TYPES)?[..hidden].to_vec(),
        };
        let mut x = Vec::with_capacity(self.tokens.tokens() * hidden);
        for ends in self.tokens.cu_seqlens().windows(2) {
            let ids = &self.tokens.ids()[ends[0] as usize..ends[1] as usize];
            for (&id, position) in ids.iter().zip(positions.chunks_exact(hidden)) {
                let word = &words[id as usize * hidden..][..hidden];
                x.extend(word.iter().zip(position).zip(&kind).map(|((w, p), k)| w + (p + k)));
            }
        }
        self.norm(model, EMBEDDING_NORM, &mut x)?;
        Ok(x)
    }

    /// A linear layer as it is now.
    pub fn linear(&mut self, model: &Model, id: LinearId, x: &[f32]) -> Result<Vec<f32>> {
        self.forward(model, id, x, Epilogue::new())
    }

    /// A linear layer with the activation of the feed-forward network.
    pub fn activated(&mut self, model: &Model, id: LinearId, x: &[f32]) -> Result<Vec<f32>> {
        let activation = match self.config.activation {
            config::Activation::Gelu => Activation::Gelu,
            config::Activation::GeluTanh => Activation::GeluTanh,
            config::Activation::Relu => Activation::Relu,
        };
        self.forward(model, id, x, Epilogue::new().activation(activation))
    }

    /// A linear layer with its residual.
    pub fn added(&mut self, model: &Model, id: LinearId, x: &[f32], residual: &[f32]) -> Result<Vec<f32>> {
        let residual = self.matrix(residual)?;
        self.forward(model, id, x, Epilogue::new().residual(residual))
    }

    fn forward(
        &mut self,
        model: &Model,
        id: LinearId,
        x: &[f32],
        epilogue: Epilogue<'_>,
    ) -> Result<Vec<f32>> {
        let layer = Linear::dense(model.weight(id)?).bias(model.bias(id)?).build(self.ctx)?;
        let (tokens, features) = (self.tokens.tokens(), layer.out_features());
        let mut y = vec![0.0; tokens * features];
        let to = MatMut::new(&mut y, tokens, features)?;
        layer.forward(self.matrix(x)?, epilogue, to, self.ctx, &mut self.scratch)?;
        Ok(y)
    }

    /// Attention of a layer within each text, from its input, queries, keys and values.
    pub fn attend(&mut self, model: &Model, layer: usize, [x, q, k, v]: [&[f32]; 4]) -> Result<Vec<f32>> {
        let (tokens, heads, size) = (self.tokens.tokens(), self.config.num_heads, self.config.head_size());
        let texts = Sequences::own_packed(self.tokens.cu_seqlens());
        let (mut call, mut gates) = (AttentionCall::new(texts), vec![0.0; tokens * heads]);
        if let Some(gate) = gate(model, layer)? {
            gate.evaluate(self.matrix(x)?, &texts, MatMut::new(&mut gates, tokens, heads)?, self.ctx)?;
            call = call.gates(MatRef::new(&gates, tokens, heads)?);
        }
        let view = |x| HeadsRef::new(x, tokens, heads, size);
        let mut context = vec![0.0; q.len()];
        Attention::new(heads, heads, size)?.softmax(self.config.softmax).forward(
            AttentionInputs::new(view(q)?, view(k)?, view(v)?),
            &call,
            HeadsMut::new(&mut context, tokens, heads, size)?,
            self.ctx,
            &mut self.scratch,
        )?;
        Ok(context)
    }

    /// A LayerNorm by its name, in place.
    pub fn norm(&mut self, model: &Model, name: &str, x: &mut [f32]) -> Result<()> {
        let part = |part| model.tensor(&format!("{name}.{part}"));
        let norm = LayerNorm::new(part("weight")?, part("bias")?, self.config.layer_norm_eps)?;
        let x = MatMut::new(x, self.tokens.tokens(), norm.features())?;
        Ok(norm.forward_in_place(x, None, None, self.ctx, &mut self.scratch)?)
    }
}
