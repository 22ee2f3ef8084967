//! How tokens belong to sequences.

use crate::base::error::{Error, Result};

/// How tokens belong to sequences.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Sequences<'a> {
    /// `batch` sequences of the same lengths, one after the other: q has `batch * q_len` tokens, k and v `batch * kv_len`.
    Batch {
        /// Sequences.
        batch: usize,
        /// Queries of each.
        q_len: usize,
        /// Keys of each.
        kv_len: usize,
    },
    /// Sequences of any lengths, packed: sequence b has the queries `q[b] .. q[b + 1]` and the keys `kv[b] .. kv[b + 1]`. Both
    /// begin with 0, end with the number of tokens and never fall; a sequence may be empty.
    Packed {
        /// Where queries begin and end.
        q: &'a [i32],
        /// Where keys begin and end.
        kv: &'a [i32],
    },
}

impl<'a> Sequences<'a> {
    /// `batch` sequences of `len` tokens, each of which is a query and a key.
    pub fn own(batch: usize, len: usize) -> Self {
        Sequences::Batch { batch, q_len: len, kv_len: len }
    }

    /// Packed sequences whose tokens are queries and keys.
    pub fn own_packed(cu_seqlens: &'a [i32]) -> Self {
        Sequences::Packed { q: cu_seqlens, kv: cu_seqlens }
    }

    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Sequences::Batch { batch, .. } => *batch,
            Sequences::Packed { q, .. } => q.len().saturating_sub(1),
        }
    }

    /// The queries of sequence b, first and last + 1. Sequences are checked before.
    pub(crate) fn queries(&self, b: usize) -> (usize, usize) {
        match *self {
            Sequences::Batch { q_len, .. } => (b * q_len, (b + 1) * q_len),
            Sequences::Packed { q, .. } => (q[b] as usize, q[b + 1] as usize),
        }
    }

    /// The keys of sequence b.
    pub(crate) fn keys(&self, b: usize) -> (usize, usize) {
        match *self {
            Sequences::Batch { kv_len, .. } => (b * kv_len, (b + 1) * kv_len),
            Sequences::Packed { kv, .. } => (kv[b] as usize, kv[b + 1] as usize),
        }
    }

    /// The most queries and the most keys of a sequence.
    pub(crate) fn longest(&self) -> (usize, usize) {
        match *self {
            Sequences::Batch { q_len, kv_len, .. } => (q_len, kv_len),
            Sequences::Packed { q, kv } => {
                let most = |ends: &[i32]| ends.windows(2).map(|e| (e[1] - e[0]) as usize).max().unwrap_or(0);
                (most(q), most(kv))
            }
        }
    }

    /// Whether each has as many keys as queries.
    pub(crate) fn check_own(&self) -> Result<()> {
        let different = match self {
            Sequences::Batch { batch, .. } => 1.min(*batch),
            Sequences::Packed { .. } => self.count(),
        };
        for b in 0..different {
            let [q, kv] = [self.queries(b), self.keys(b)].map(|(first, last)| last - first);
            if q != kv {
                return Err(Error::shape(
                    "sequences",
                    format_args!("{q} keys of sequence {b}, as queries"),
                    kv,
                ));
            }
        }
        Ok(())
    }

    /// Whether they are what so many tokens can be.
    pub(crate) fn check(&self, q_tokens: usize, kv_tokens: usize) -> Result<()> {
        match *self {
            Sequences::Batch { batch, q_len, kv_len } => {
                for (name, len, tokens) in [("q", q_len, q_tokens), ("k", kv_len, kv_tokens)] {
                    if batch.checked_mul(len) != Some(tokens) {
                        let expected = format_args!("{batch} sequences of {len} tokens");
                        return Err(Error::shape(name, expected, format_args!("{tokens} tokens")));
                    }
                }
                Ok(())
            }
            Sequences::Packed { q, kv } => {
                if q.len() != kv.len() {
                    return Err(Error::shape(
                        "cu_seqlens",
                        format_args!("as many of keys as of queries, {}", q.len()),
                        kv.len(),
                    ));
                }
                check_cumulative("cu_seqlens of q", q, q_tokens)?;
                check_cumulative("cu_seqlens of k", kv, kv_tokens)
            }
        }
    }
}

fn check_cumulative(name: &'static str, cu_seqlens: &[i32], tokens: usize) -> Result<()> {
    match cu_seqlens.first() {
        None => return Err(Error::shape(name, "at least one entry, 0", "none")),
        Some(0) => {}
        Some(first) => return Err(Error::index(name, 0, 0, first)),
    }
    for (i, pair) in cu_seqlens.windows(2).enumerate() {
        if pair[1] < pair[0] {
            return Err(Error::index(name, i + 1, format_args!("at least {}", pair[0]), pair[1]));
        }
    }
    let last = cu_seqlens[cu_seqlens.len() - 1];
    if last as usize != tokens {
        let expected = format_args!("{tokens}, the number of tokens");
        return Err(Error::index(name, cu_seqlens.len() - 1, expected, last));
    }
    Ok(())
}
