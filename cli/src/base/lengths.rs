//! How tokens belong to sequences.

use siskin::attention::Sequences;

/// How tokens belong to sequences.
#[derive(Debug, Clone)]
pub enum Lengths {
    Batch { batch: usize, q_len: usize, kv_len: usize },
    Packed { q: Vec<i32>, kv: Vec<i32> },
}

impl Lengths {
    pub fn sequences(&self) -> Sequences<'_> {
        match self {
            &Lengths::Batch { batch, q_len, kv_len } => Sequences::Batch { batch, q_len, kv_len },
            Lengths::Packed { q, kv } => Sequences::Packed { q, kv },
        }
    }

    pub fn count(&self) -> usize {
        self.sequences().count()
    }

    /// The first query and the number of queries of a sequence.
    pub fn queries(&self, b: usize) -> (usize, usize) {
        match self {
            Lengths::Batch { q_len, .. } => (b * q_len, *q_len),
            Lengths::Packed { q, .. } => (q[b] as usize, (q[b + 1] - q[b]) as usize),
        }
    }

    /// The first key and the number of keys of a sequence.
    pub fn keys(&self, b: usize) -> (usize, usize) {
        match self {
            Lengths::Batch { kv_len, .. } => (b * kv_len, *kv_len),
            Lengths::Packed { kv, .. } => (kv[b] as usize, (kv[b + 1] - kv[b]) as usize),
        }
    }

    /// The sequence of a query.
    pub fn sequence_of(&self, token: usize) -> usize {
        match self {
            Lengths::Batch { q_len, .. } => token / q_len,
            Lengths::Packed { q, .. } => q.partition_point(|&first| first as usize <= token) - 1,
        }
    }

    /// Of q, and of k and v.
    pub fn tokens(&self) -> (usize, usize) {
        match self {
            Lengths::Batch { batch, q_len, kv_len } => (batch * q_len, batch * kv_len),
            Lengths::Packed { q, kv } => {
                let last = |list: &[i32]| list.last().map_or(0, |&n| n as usize);
                (last(q), last(kv))
            }
        }
    }
}
