//! Texts as tokens: one list for all, without padding.

use crate::config::Config;
use crate::error::{Error, Result};

/// Texts as tokens, one after the other: text b has the tokens `cu_seqlens[b] .. cu_seqlens[b + 1]`.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    ids: &'a [u32],
    cu_seqlens: &'a [i32],
}

impl<'a> Tokens<'a> {
    /// `cu_seqlens` begins with 0, never falls, and ends with the number of `ids`; a text may be empty, and there may be no text.
    ///
    /// # Errors
    /// [`Error::Argument`] if it does not.
    pub fn new(ids: &'a [u32], cu_seqlens: &'a [i32]) -> Result<Self> {
        let wrong = |expected: &str, got: String| Err(Error::argument("cu_seqlens", expected, got));
        match (cu_seqlens.first(), cu_seqlens.last()) {
            (Some(0), Some(&last)) if usize::try_from(last) == Ok(ids.len()) => {}
            (Some(0), Some(last)) => {
                return wrong(&format!("{} tokens at the end", ids.len()), last.to_string());
            }
            (first, _) => return wrong("0 at the start", format!("{first:?}")),
        }
        if let Some(at) = cu_seqlens.windows(2).position(|ends| ends[0] > ends[1]) {
            let got = format!("{} after {}", cu_seqlens[at + 1], cu_seqlens[at]);
            return wrong("numbers that never fall", got);
        }
        Ok(Self { ids, cu_seqlens })
    }

    /// Whether no text is too long for a model, and no token outside of its vocabulary.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let limit = config.max_positions;
        for (text, ends) in self.cu_seqlens.windows(2).enumerate() {
            let got = (ends[1] - ends[0]) as usize;
            if got > limit {
                return Err(Error::TooLong { text, limit, got });
            }
        }
        match self.ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            None => Ok(()),
            Some(id) => Err(Error::vocabulary(format_args!("tokens below {}", config.vocab_size), id)),
        }
    }

    /// The tokens of all texts.
    pub fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Where texts begin and end.
    pub fn cu_seqlens(&self) -> &'a [i32] {
        self.cu_seqlens
    }

    /// How many texts.
    pub fn texts(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// How many tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Texts as tokens, with their memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub(crate) ids: Vec<u32>,
    pub(crate) cu_seqlens: Vec<i32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { ids: Vec::new(), cu_seqlens: vec![0] }
    }
}

impl Batch {
    /// No text.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more text.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are more than 2^31 - 1 tokens then.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let end = i32::try_from(self.ids.len() + ids.len())
            .map_err(|_| Error::argument("texts", "at most 2147483647 tokens", self.ids.len() + ids.len()))?;
        self.ids.extend_from_slice(ids);
        self.cu_seqlens.push(end);
        Ok(())
    }

    /// As a call takes them.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { ids: &self.ids, cu_seqlens: &self.cu_seqlens }
    }

    /// How many texts.
    pub fn texts(&self) -> usize {
        self.cu_seqlens.len() - 1
    }
}
