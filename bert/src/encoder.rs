//! An encoder: a model, packed for the CPU at hand.

use crate::batch::Tokens;
use crate::build;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layer::{Call, Layer};
use crate::names::WORDS;
use crate::norm::Norm;
use crate::options::{Options, Precision};
use crate::pooling::{Pooling, pool};
use crate::share::{for_each_row, rows_of_task};
use crate::source::Source;
use crate::visitor::Visitor;
use crate::workspace::{Stage, Workspace};
use siskin::attention::Attention;
use siskin::{Ctx, MatMut};
use std::sync::Arc;

/// An encoder: a [`Model`](crate::Model) whose weights are packed for the CPU at hand. Immutable; any number of threads may call it,
/// each with a [`Workspace`] of its own.
///
/// A text has the same bits alone and in any batch, at any number of threads.
///
/// ```
/// use siskin::{Ctx, MatMut};
/// use siskin_bert::{Config, Encoder, Family, Model, Options, Precision, Tokens, Workspace};
///
/// let mut config = Config::new(Family::Bert, 2, 32, 4); // 2 layers of 32 features, 4 heads
/// config.vocab_size = 100;
/// let model = Model::generated(config, 1)?; // or Model::read("a folder")
/// let ctx = Ctx::new()?;
/// let encoder = Encoder::build(&model, &ctx, &Options::new(Precision::Int8))?;
///
/// let texts = Tokens::new(&[2, 40, 41, 3, 2, 50, 3], &[0, 4, 7])?; // one of four tokens, one of three
/// let mut vectors = vec![0.0; 2 * 32];
/// encoder.forward(texts, MatMut::new(&mut vectors, 2, 32)?, &ctx, &mut Workspace::new())?;
/// # Ok::<(), siskin_bert::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Encoder {
    config: Config,
    precision: Precision,
    pooling: Pooling,
    /// `[vocab_size, hidden]`: those of the model.
    words: Arc<Vec<f32>>,
    /// `[max_positions, hidden]`, with the first token type in them.
    positions: Vec<f32>,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    attention: Attention,
}

impl Encoder {
    /// Packs a model for the tier of `ctx`, which later calls must have too.
    ///
    /// Of a [`Checkpoint`](crate::Checkpoint), a layer at a time is in memory beside what is packed; of a [`Model`](crate::Model), all
    /// of it, and the embeddings of words are shared with it.
    ///
    /// # Errors
    /// What reading tensors answers;
    /// [`Error::Argument`] if INT8 is to be static, but no calibration of this model is given; [`Error::Kernel`] if weights cannot be
    /// packed so.
    pub fn build(source: &dyn Source, ctx: &Ctx, options: &Options<'_>) -> Result<Self> {
        let config = source.config().clone();
        let parts = build::Parts::new(source, ctx, options)?;
        let attention = Attention::new(config.num_heads, config.num_heads, config.head_size())?;
        let attention = attention.softmax(config.softmax);
        Ok(Self {
            precision: options.precision,
            pooling: source.pooling(),
            words: source.read(WORDS)?,
            positions: parts.positions,
            embedding_norm: parts.embedding_norm,
            layers: parts.layers,
            attention,
            config,
        })
    }

    /// The shape of its model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How the vectors of tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Bytes of the packed weights of all linear layers and their indices.
    pub fn packed_bytes(&self) -> usize {
        self.layers.iter().flat_map(Layer::linears).map(|linear| linear.packed_bytes()).sum()
    }

    /// The vector of each text, `out` `[texts, hidden]`. Of a text of no tokens it is 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if `out` has another shape; [`Error::TooLong`] if a text has more tokens than the model has positions;
    /// [`Error::Vocabulary`] if a token is outside the vocabulary; [`Error::Kernel`] if `ctx` has another tier than the encoder was built
    /// for, or if numbers overflow.
    pub fn forward(
        &self,
        tokens: Tokens<'_>,
        out: MatMut<'_, f32>,
        ctx: &Ctx,
        memory: &mut Workspace,
    ) -> Result<()> {
        self.check_out(&out, "texts", tokens.texts())?;
        self.run(tokens, ctx, memory, None)?;
        let x = memory.x.first(tokens.tokens() * self.config.hidden_size);
        pool(self.pooling, tokens.cu_seqlens(), x, out, ctx);
        memory.clock.lap(Stage::Pool);
        Ok(())
    }

    /// The vector of each token, `out` `[tokens, hidden]`: what Hugging Face calls the last hidden state.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn hidden_states(
        &self,
        tokens: Tokens<'_>,
        out: MatMut<'_, f32>,
        ctx: &Ctx,
        memory: &mut Workspace,
    ) -> Result<()> {
        self.check_out(&out, "tokens", tokens.tokens())?;
        self.run(tokens, ctx, memory, None)?;
        let hidden = self.config.hidden_size;
        let x = memory.x.first(tokens.tokens() * hidden);
        for_each_row(out, hidden, ctx, |token, y| y.copy_from_slice(&x[token * hidden..][..hidden]));
        memory.clock.lap(Stage::Pool);
        Ok(())
    }

    /// Computes a batch for what `visitor` sees of it: the inputs of all linear layers.
    ///
    /// # Errors
    /// As [`Encoder::forward`]; [`Error::Argument`] if what flows between the layers is not floats.
    pub fn observe(
        &self,
        tokens: Tokens<'_>,
        ctx: &Ctx,
        memory: &mut Workspace,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        if self.precision == Precision::Int8Static {
            return Err(Error::argument("precision", "an encoder in which floats flow", "Int8Static"));
        }
        self.run(tokens, ctx, memory, Some(visitor))
    }

    fn check_out(&self, out: &MatMut<'_, f32>, what: &str, rows: usize) -> Result<()> {
        let hidden = self.config.hidden_size;
        if (out.rows(), out.cols()) == (rows, hidden) {
            return Ok(());
        }
        let expected = format_args!("{rows} {what} x {hidden} features");
        Err(Error::argument("out", expected, format_args!("{} x {}", out.rows(), out.cols())))
    }

    /// Leaves the vectors of all tokens in `memory.x`.
    fn run(
        &self,
        tokens: Tokens<'_>,
        ctx: &Ctx,
        memory: &mut Workspace,
        mut visitor: Option<&mut dyn Visitor>,
    ) -> Result<()> {
        tokens.check(&self.config)?;
        let size = tokens.tokens() * self.config.hidden_size;
        memory.clock.start();
        let x = memory.x.grown(size);
        if size == 0 {
            return Ok(());
        }
        self.embed(tokens, x, ctx);
        memory.clock.lap(Stage::Embed);
        self.embedding_norm.apply(memory.x.first_mut(size), &mut memory.norm, ctx, &mut memory.scratch)?;
        memory.clock.lap(Stage::Norm);
        let call = Call {
            config: &self.config,
            cu_seqlens: tokens.cu_seqlens(),
            tokens: tokens.tokens(),
            attention: &self.attention,
            ctx,
        };
        let mut before = &self.embedding_norm;
        for (index, layer) in self.layers.iter().enumerate() {
            match &mut visitor {
                None => layer.forward(index, before, &call, memory, None)?,
                Some(visitor) => layer.forward(index, before, &call, memory, Some(&mut **visitor))?,
            }
            before = &layer.output_norm;
        }
        Ok(())
    }

    /// Word and position of each token, `x` `[tokens, hidden]`.
    fn embed(&self, tokens: Tokens<'_>, x: &mut [f32], ctx: &Ctx) {
        let hidden = self.config.hidden_size;
        let ends = tokens.cu_seqlens();
        let each = rows_of_task(tokens.tokens(), hidden, ctx);
        ctx.for_each_part(x, each * hidden, &|i, x| {
            let first = i * each;
            // The text of the first token: the last that begins there or before.
            let mut text = ends.partition_point(|&end| end as usize <= first) - 1;
            for (x, token) in x.chunks_exact_mut(hidden).zip(first..) {
                while ends[text + 1] as usize <= token {
                    text += 1;
                }
                let word = &self.words[tokens.ids()[token] as usize * hidden..][..hidden];
                let position = &self.positions[(token - ends[text] as usize) * hidden..][..hidden];
                for ((x, word), position) in x.iter_mut().zip(word).zip(position) {
                    *x = word + position;
                }
            }
        });
    }
}
