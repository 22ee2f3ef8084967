//! Texts in their order, embedded in batches of about so many tokens.

use super::build::Packed;
use super::texts::Texts;
use crate::base::error::{Error, Result};
use siskin::{Ctx, MatMut};
use siskin_bert::{Batch, Error as Refused, TooLong, Workspace};

/// Texts of a batch at most: texts without a word have few tokens.
const TEXTS: usize = 1024;

/// What a call embeds, and how.
pub struct Batches<'a> {
    pub packed: &'a Packed,
    pub ctx: &'a Ctx,
    /// Tokens of a batch, which its last text may exceed.
    pub tokens: usize,
    pub too_long: TooLong,
    memory: Workspace,
    vectors: Vec<f32>,
}

/// Texts that were embedded.
pub struct Embedded<'a> {
    /// The number of the first.
    pub first: u64,
    pub texts: &'a [String],
    /// `[texts, features]`.
    pub vectors: &'a [f32],
    /// Bytes of input that they took.
    pub bytes: u64,
}

impl<'a> Batches<'a> {
    pub fn new(packed: &'a Packed, ctx: &'a Ctx, tokens: usize, too_long: TooLong) -> Self {
        Self { packed, ctx, tokens, too_long, memory: Workspace::new(), vectors: Vec::new() }
    }

    /// Features of a vector.
    pub fn features(&self) -> usize {
        self.packed.encoder.config().hidden_size
    }

    /// Embeds all texts, the first of which is number `first`, and gives each batch to `done`. Where a text is wrong, those before it
    /// are embedded first. Returns the number behind the last text, and how many texts were cut.
    pub fn run(
        &mut self,
        texts: &mut Texts,
        first: u64,
        mut done: impl FnMut(Embedded<'_>) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let (mut next, mut cut) = (first, 0);
        loop {
            let (mut batch, mut contents, mut bytes, mut wrong) = (Batch::new(), Vec::new(), 0, None);
            let mut ended = false;
            while batch.tokens().tokens() < self.tokens && batch.texts() < TEXTS {
                let text = match texts.next() {
                    Ok(Some(text)) => text,
                    Ok(None) => {
                        ended = true;
                        break;
                    }
                    Err(e) => {
                        wrong = Some(e);
                        break;
                    }
                };
                match self.packed.tokenizer.encode(&[&text.content], self.too_long) {
                    Ok(tokenized) => {
                        batch.push(tokenized.batch.tokens().ids())?;
                        cut += tokenized.cut.len() as u64;
                    }
                    Err(e) => {
                        wrong = Some(blame(e, next + batch.texts() as u64));
                        break;
                    }
                }
                bytes += text.bytes;
                contents.push(text.content);
            }
            if batch.texts() > 0 {
                let vectors = self.embed(&batch)?;
                done(Embedded { first: next, texts: &contents, vectors, bytes })?;
                next += batch.texts() as u64;
            }
            match wrong {
                Some(e) => return Err(e),
                None if ended => return Ok((next, cut)),
                None => {}
            }
        }
    }

    /// The vectors of a batch.
    pub fn embed(&mut self, batch: &Batch) -> Result<&[f32]> {
        let (texts, features) = (batch.texts(), self.features());
        self.vectors.resize(texts * features, 0.0);
        let to = MatMut::new(&mut self.vectors, texts, features)?;
        self.packed.encoder.forward(batch.tokens(), to, self.ctx, &mut self.memory)?;
        Ok(&self.vectors)
    }
}

/// A text that is too long, by its number among all.
fn blame(e: Refused, number: u64) -> Error {
    match e {
        Refused::TooLong { limit, got, .. } => {
            let expected = format_args!("at most {limit} tokens (--truncate cuts what is beyond)");
            Error::input(format_args!("text {number}"), expected, got)
        }
        other => other.into(),
    }
}
