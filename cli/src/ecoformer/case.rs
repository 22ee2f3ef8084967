//! A case of EcoFormer.

use crate::attention;
use crate::base::case::{at_least_one, at_most, case, choices};
use crate::base::error::{Error, Result};
use crate::base::family;
use crate::base::types::DType;
use siskin::ecoformer as library;

/// Elements that x, a part of the hash or all bits may have: more is refused before memory is taken.
const MOST: u128 = 1 << 27;

case! {
    /// Measure one case of EcoFormer
    ///
    /// Codes of tokens by a random hash, and linear attention by these codes, which are queries and keys: apart, and one after
    /// the other. All that is measured takes turns.
    {
        /// Tokens of a sequence.
        #[arg(long, short, visible_alias = "seq")]
        #[serde(alias = "seq")]
        n: usize = 3136,
        /// Sequences.
        #[arg(long)]
        batch: usize = 1,
        /// Heads.
        #[arg(long)]
        heads: usize = 1,
        /// Features of a head, of x and of v.
        #[arg(long)]
        head_dim: usize = 64,
        /// Bits of a code, 1 to 256.
        #[arg(long)]
        bits: usize = 16,
        /// Anchors of a head.
        #[arg(long)]
        anchors: usize = 25,
        /// Values; int8 is unsigned bytes.
        #[arg(long, value_enum, visible_alias = "dtype")]
        #[serde(alias = "dtype")]
        v: DType = DType::F32,
        /// No query meets a key behind it; of the consistent numerator only.
        #[arg(long)]
        causal: bool,
        /// Whether the bias of the similarity multiplies a token's own value, as released, or the sum of all.
        #[arg(long, value_enum)]
        numerator: Numerator = Numerator::Released,
        /// Whether the kernel's bandwidth is that of each sequence, or frozen.
        #[arg(long, value_enum)]
        bandwidth: Bandwidth = Bandwidth::Sequence,
        /// Measure softmax attention in f32 too, of as many tokens, heads and features.
        #[arg(long)]
        softmax: bool,
    }
}

choices! {
    Numerator { Released, Consistent }
    Bandwidth { Sequence, Frozen }
}

impl Numerator {
    pub fn library(self) -> library::Numerator {
        match self {
            Numerator::Released => library::Numerator::Released,
            Numerator::Consistent => library::Numerator::Consistent,
        }
    }
}

impl Bandwidth {
    pub fn library(self) -> library::Bandwidth {
        match self {
            Bandwidth::Sequence => library::Bandwidth::Sequence,
            Bandwidth::Frozen => library::Bandwidth::Frozen,
        }
    }
}

/// The published form has no causal one.
pub fn check_causal(causal: bool, numerator: Numerator) -> Result<()> {
    if causal && numerator == Numerator::Released {
        return Err(Error::input("numerator", "\"consistent\", to be causal", "\"released\""));
    }
    Ok(())
}

impl Case {
    pub fn check_fields(&self) -> Result<()> {
        check_causal(self.causal, self.numerator)?;
        library::LinearAttention::new(self.heads, self.bits)?;
        let (dim, anchors) = (("head_dim", self.head_dim), ("anchors", self.anchors));
        at_least_one(&[("n", self.n), ("batch", self.batch), dim, anchors])?;
        for ((name, size), most) in [(dim, 256), (anchors, 4096)] {
            if size > most {
                return Err(Error::input(name, format_args!("at most {most}"), size));
            }
        }
        let heads = self.heads as u128;
        let each = self.head_dim.max(self.bits) as u128;
        at_most(MOST, "anchors", &[heads, self.anchors as u128, each])?;
        at_most(MOST, "n", &[self.n as u128, self.batch as u128, heads, each])?;
        if self.softmax { family::check(&self.softmax()) } else { Ok(()) }
    }

    /// Softmax attention of as much.
    pub fn softmax(&self) -> attention::Case {
        attention::Case {
            seq: Some(self.n),
            batch: Some(self.batch),
            heads: self.heads,
            head_dim: self.head_dim,
            causal: self.causal,
            threads: self.threads,
            min_ms: self.min_ms,
            isa: self.isa.clone(),
            seed: self.seed,
            ..attention::Case::default()
        }
    }
}
