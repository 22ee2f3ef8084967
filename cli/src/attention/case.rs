//! A case of attention.

use crate::base::case::{at_least_one, at_most, case, choices};
use crate::base::error::{Error, Result};
use crate::base::types::{DType, YType};
use clap::{ArgMatches, Command, FromArgMatches};
use serde::{Deserialize, Serialize};
use siskin::attention::{Clipped, Softmax as LibrarySoftmax};

/// Elements that q, k or v may have, and pairs of a query and a key, over all heads: more is refused before memory is taken.
const MOST: u128 = 1 << 27;
const MOST_PAIRS: u128 = 1 << 32;

case! {
    /// Measure one case of attention
    {
        /// q, k and v; int8 is unsigned bytes.
        #[arg(long, value_enum)]
        dtype: DType = DType::F32,
        /// Queries of a sequence; 384 if not given.
        #[arg(long)]
        seq: Option<usize>,
        /// Keys of a sequence; as many as queries if not given.
        #[arg(long)]
        kv_len: Option<usize>,
        /// Heads of q.
        #[arg(long)]
        heads: usize = 12,
        /// Heads of k and v; as many as of q if not given.
        #[arg(long)]
        kv_heads: Option<usize>,
        /// Features of a head.
        #[arg(long)]
        head_dim: usize = 64,
        #[command(flatten)]
        softmax: Softmax,
        /// No query meets a key behind its position; the last query is at the last key.
        #[arg(long)]
        causal: bool,
        /// A query at position p meets the keys p - LEFT to p + RIGHT only.
        #[arg(long, value_name = "LEFT,RIGHT", value_parser = window)]
        window: Option<[usize; 2]>,
        /// Sequences of the same lengths; 1 if not given.
        #[arg(long)]
        batch: Option<usize>,
        /// Where packed sequences begin and end, comma-separated and from 0, instead of seq, kv_len and batch.
        #[arg(long, value_delimiter = ',')]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        cu_seqlens: Vec<i32>,
        /// Where the keys of packed sequences begin and end; as their queries if not given.
        #[arg(long, value_delimiter = ',')]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        cu_seqlens_k: Vec<i32>,
        /// "tokens": [tokens, heads, head_dim]; "heads": [heads, tokens, head_dim]; "fused": q, k and v in one buffer
        /// [tokens, 3, heads, head_dim].
        #[arg(long, value_enum)]
        layout: Layout = Layout::Tokens,
        /// Scores that are spread by 1, by 4 (a few keys of a row carry most of its weight), or hardly at all.
        #[arg(long, value_enum)]
        scores: Scores = Scores::Random,
        /// q, k and v of bytes with a scale for each token.
        #[arg(long)]
        token_scales: bool,
        /// Multiply each head's context by a random gate.
        #[arg(long)]
        gate: bool,
        /// Output; if not given, f32, or u8 for int8.
        #[arg(long, value_enum)]
        y: Option<YType>,
    }
}

choices! {
    Layout { Tokens, Heads, Fused }
    Scores { Random, Peaked, Flat }
}

/// What turns scores into weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "\"standard\", {\"gamma\", \"zeta\"} or {\"alpha\", \"max_len\"}"
)]
pub enum Softmax {
    Named(Name),
    Clipped {
        gamma: f32,
        #[serde(default = "one")]
        zeta: f32,
    },
    Alpha {
        alpha: f32,
        max_len: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    Standard,
}

fn one() -> f32 {
    1.0
}

impl Default for Softmax {
    fn default() -> Self {
        Softmax::Named(Name::Standard)
    }
}

impl Softmax {
    /// Of what was given, by flags or as parameters.
    pub fn new(
        gamma: Option<f32>,
        zeta: Option<f32>,
        alpha: Option<f32>,
        max_len: Option<usize>,
    ) -> Result<Self> {
        match (gamma, zeta, alpha, max_len) {
            (None, None, None, None) => Ok(Self::default()),
            (gamma, zeta, None, None) => {
                Ok(Softmax::Clipped { gamma: gamma.unwrap_or(0.0), zeta: zeta.unwrap_or(1.0) })
            }
            (None, None, Some(alpha), Some(max_len)) => Ok(Softmax::Alpha { alpha, max_len }),
            _ => Err(Error::input("softmax", "gamma and zeta, or alpha and max_len", "a part or a mixture")),
        }
    }

    /// gamma and zeta of one that clips.
    pub fn clipped(self) -> Result<Option<Clipped>> {
        Ok(match self {
            Softmax::Named(Name::Standard) => None,
            Softmax::Clipped { gamma, zeta } => Some(Clipped::new(gamma, zeta)?),
            Softmax::Alpha { alpha, max_len } => Some(Clipped::from_alpha(alpha, max_len)?),
        })
    }

    pub fn library(self) -> Result<LibrarySoftmax> {
        Ok(self.clipped()?.map_or(LibrarySoftmax::Standard, LibrarySoftmax::Clipped))
    }
}

/// The flags of a softmax that clips.
#[derive(clap::Args)]
struct SoftmaxFlags {
    /// Clip the softmax: the lower stretch, at most 0.
    #[arg(long, allow_negative_numbers = true)]
    gamma: Option<f32>,
    /// Clip the softmax: the upper stretch, at least 1; 1 if not given.
    #[arg(long)]
    zeta: Option<f32>,
    /// Clip the softmax with gamma = -ALPHA / MAX_LEN.
    #[arg(long, requires = "max_len", conflicts_with_all = ["gamma", "zeta"])]
    alpha: Option<f32>,
    /// The length that the model was configured with.
    #[arg(long, requires = "alpha")]
    max_len: Option<usize>,
}

impl clap::Args for Softmax {
    fn augment_args(command: Command) -> Command {
        SoftmaxFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        SoftmaxFlags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Softmax {
    fn from_arg_matches(matches: &ArgMatches) -> clap::error::Result<Self> {
        let SoftmaxFlags { gamma, zeta, alpha, max_len } = SoftmaxFlags::from_arg_matches(matches)?;
        Softmax::new(gamma, zeta, alpha, max_len)
            .map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, e))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> clap::error::Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn window(text: &str) -> std::result::Result<[usize; 2], String> {
    let pair = text.split_once(',').and_then(|(l, r)| Some([l.trim().parse().ok()?, r.trim().parse().ok()?]));
    pair.ok_or_else(|| "expected two whole numbers, as in 128,0".into())
}

impl Case {
    pub fn check_fields(&self) -> Result<()> {
        self.softmax.library()?;
        if self.y().element().is_none() {
            return Err(Error::input("y", "anything but i32", "i32"));
        }
        let (heads, kv_heads) = (self.heads, self.kv_heads());
        siskin::attention::Attention::new(heads, kv_heads, self.head_dim)?;
        self.check_sequences()?;
        if self.token_scales && self.dtype != DType::Int8 {
            return Err(Error::input("token_scales", "none for floats", "some"));
        }
        if self.layout == Layout::Fused && (kv_heads != heads || !self.is_self()) {
            return Err(Error::input("layout", "as many keys and heads of k as of q if fused", "others"));
        }
        let (q, k) = self.tokens();
        for (name, tokens, heads) in [("q", q, heads), ("k", k, kv_heads)] {
            at_most(MOST, name, &[tokens, heads as u128, self.head_dim as u128])?;
        }
        let pairs = self.lengths().fold(0u128, |sum, (q, k)| sum.saturating_add(q.saturating_mul(k)));
        if pairs.saturating_mul(heads as u128) > MOST_PAIRS {
            let expected = format_args!("at most {MOST_PAIRS} pairs of a query and a key, over all heads");
            return Err(Error::input("seq", expected, format_args!("{pairs} a head")));
        }
        Ok(())
    }

    fn check_sequences(&self) -> Result<()> {
        if !self.is_packed() {
            at_least_one(&[("seq", self.seq()), ("kv_len", self.kv_len()), ("batch", self.batch())])?;
            if !self.cu_seqlens_k.is_empty() {
                return Err(Error::input("cu_seqlens_k", "none without cu_seqlens", "some"));
            }
            return Ok(());
        }
        for (name, given) in [("seq", self.seq), ("kv_len", self.kv_len), ("batch", self.batch)] {
            if let Some(given) = given {
                return Err(Error::input(name, "none with cu_seqlens", given));
            }
        }
        for (name, list) in [("cu_seqlens", &self.cu_seqlens), ("cu_seqlens_k", self.cu_seqlens_k())] {
            if list[0] != 0 || list.windows(2).any(|pair| pair[1] < pair[0]) {
                return Err(Error::input(name, "0 and then numbers that never fall", "others"));
            }
        }
        let (q, k) = (self.cu_seqlens.len(), self.cu_seqlens_k().len());
        if q != k {
            return Err(Error::input("cu_seqlens_k", format_args!("{q} numbers, as cu_seqlens"), k));
        }
        Ok(())
    }

    pub fn is_packed(&self) -> bool {
        !self.cu_seqlens.is_empty()
    }

    /// Whether there are as many keys as queries.
    fn is_self(&self) -> bool {
        if self.is_packed() { self.cu_seqlens == *self.cu_seqlens_k() } else { self.seq() == self.kv_len() }
    }

    pub fn seq(&self) -> usize {
        self.seq.unwrap_or(384)
    }

    pub fn kv_len(&self) -> usize {
        self.kv_len.unwrap_or(self.seq())
    }

    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    pub fn kv_heads(&self) -> usize {
        self.kv_heads.unwrap_or(self.heads)
    }

    pub fn cu_seqlens_k(&self) -> &Vec<i32> {
        if self.cu_seqlens_k.is_empty() { &self.cu_seqlens } else { &self.cu_seqlens_k }
    }

    pub fn y(&self) -> YType {
        self.y.unwrap_or(if self.dtype == DType::Int8 { YType::U8 } else { YType::F32 })
    }

    /// Of q, and of k and v.
    pub fn tokens(&self) -> (u128, u128) {
        let last = |list: &[i32]| list.last().map_or(0, |&n| n as u128);
        let all = |len: usize| self.batch() as u128 * len as u128;
        if self.is_packed() {
            (last(&self.cu_seqlens), last(self.cu_seqlens_k()))
        } else {
            (all(self.seq()), all(self.kv_len()))
        }
    }

    /// Queries and keys of each sequence; of sequences of the same lengths all in one, as far as pairs go.
    fn lengths(&self) -> impl Iterator<Item = (u128, u128)> {
        let len = |pair: &[i32]| (pair[1] - pair[0]) as u128;
        let packed = self
            .cu_seqlens
            .windows(2)
            .zip(self.cu_seqlens_k().windows(2))
            .map(move |(q, k)| (len(q), len(k)));
        let same = (self.batch() as u128 * self.seq() as u128, self.kv_len() as u128);
        packed.chain((!self.is_packed()).then_some(same))
    }

    /// Few queries over many keys, which is a matter of reading.
    pub fn is_decode(&self) -> bool {
        let (q, k) = if self.is_packed() {
            self.lengths().fold((0, 0), |(q, k), next| (q.max(next.0), k.max(next.1)))
        } else {
            (self.seq() as u128, self.kv_len() as u128)
        };
        q <= 16 && k >= 1024
    }
}
