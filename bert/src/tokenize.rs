//! From texts to tokens, by the `tokenizer.json` of a model.

use crate::batch::Batch;
use crate::config::Config;
use crate::error::{Error, Result};
use std::path::Path;
use tokenizers::TruncationParams;

/// What becomes of a text that has more tokens than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TooLong {
    /// It is an error.
    #[default]
    Refuse,
    /// Its end is cut off, and [`Tokenized::cut`] says so.
    Cut,
}

/// The tokenizer of a model. Texts are not padded, and special tokens (`[CLS]`, `[SEP]`) are added.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    limit: usize,
}

/// Texts as tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// The tokens of all texts.
    pub batch: Batch,
    /// The texts whose end was cut off, counted from 0, and the tokens that they had.
    pub cut: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder. What it says of padding and of truncation is not used: the limit is the positions of the
    /// model.
    ///
    /// # Errors
    /// [`Error::File`] names the file; [`Error::Vocabulary`] if it has tokens that the model has not.
    pub fn read(dir: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let path = dir.as_ref().join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| Error::file(&path, e))?;
        let words = inner.get_vocab_size(true);
        if words > config.vocab_size {
            let expected =
                format_args!("at most vocab_size = {} tokens in tokenizer.json", config.vocab_size);
            return Err(Error::vocabulary(expected, words));
        }
        Self { inner, limit: 0 }.with_limit(config.max_positions)
    }

    /// With another limit of tokens, special ones included.
    ///
    /// # Errors
    /// [`Error::Argument`] if the limit leaves no room beside the special tokens.
    pub fn with_limit(mut self, limit: usize) -> Result<Self> {
        let special = self.inner.get_post_processor().map_or(0, |p| {
            use tokenizers::PostProcessor;
            p.added_tokens(false)
        });
        if limit <= special {
            return Err(Error::argument("limit", format_args!("more than {special} special tokens"), limit));
        }
        let truncation = TruncationParams { max_length: limit, ..TruncationParams::default() };
        let path = Path::new("tokenizer.json");
        self.inner.with_padding(None);
        self.inner.with_truncation(Some(truncation)).map_err(|e| Error::file(path, e))?;
        self.limit = limit;
        Ok(self)
    }

    /// The most tokens of a text.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The tokens of texts, one text after the other.
    ///
    /// # Errors
    /// [`Error::TooLong`] names the text and the limit, unless texts are to be cut; [`Error::Argument`] if there are more than 2^31 - 1
    /// tokens, or a text cannot be tokenized.
    pub fn encode<T: AsRef<str>>(&self, texts: &[T], too_long: TooLong) -> Result<Tokenized> {
        let mut all = Tokenized::default();
        for (text, content) in texts.iter().enumerate() {
            let encoding = self
                .inner
                .encode_fast(content.as_ref(), true)
                .map_err(|e| Error::argument("texts", "a text that can be tokenized", e))?;
            if !encoding.get_overflowing().is_empty() {
                // Each part has special tokens of its own.
                let words = |mask: &[u32]| mask.iter().filter(|&&special| special == 0).count();
                let first = encoding.get_special_tokens_mask();
                let rest = encoding.get_overflowing().iter().map(|e| words(e.get_special_tokens_mask()));
                let got = first.len() + rest.sum::<usize>();
                if too_long == TooLong::Refuse {
                    return Err(Error::TooLong { text, limit: self.limit, got });
                }
                all.cut.push((text, got));
            }
            all.batch.push(encoding.get_ids())?;
        }
        Ok(all)
    }
}
