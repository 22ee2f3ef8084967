//! A case of EcoFormer: the same struct as flags and as a line of JSON.

use crate::attention::{self, DType};
use crate::case::{Op, check_run, choices};
use crate::error::{Error, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use siskin::ecoformer as library;

/// Elements that x, a part of the hash or all bits may have: more is refused before memory is taken.
const MOST: u128 = 1 << 27;

#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// What is computed.
    #[arg(long, value_enum, default_value_t = Op::Ecoformer)]
    pub op: Op,
    /// Tokens of a sequence.
    #[arg(long, short, default_value_t = 3136)]
    pub n: usize,
    /// Sequences.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Heads.
    #[arg(long, default_value_t = 1)]
    pub heads: usize,
    /// Features of a head, of x and of v.
    #[arg(long, default_value_t = 64)]
    pub head_dim: usize,
    /// Bits of a code, 1 to 256.
    #[arg(long, default_value_t = 16)]
    pub bits: usize,
    /// Anchors of a head.
    #[arg(long, default_value_t = 25)]
    pub anchors: usize,
    /// Values; int8 is unsigned bytes.
    #[arg(long, value_enum, default_value_t)]
    pub v: DType,
    /// No query meets a key behind it; of the consistent numerator only.
    #[arg(long)]
    pub causal: bool,
    /// Whether the bias of the similarity multiplies a token's own value, as released, or the sum of all.
    #[arg(long, value_enum, default_value_t)]
    pub numerator: Numerator,
    /// Whether the kernel's bandwidth is that of each sequence, or frozen.
    #[arg(long, value_enum, default_value_t)]
    pub bandwidth: Bandwidth,
    /// Measure softmax attention in f32 too, of as many tokens, heads and features.
    #[arg(long)]
    pub softmax: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Milliseconds to measure each part for.
    #[arg(long, default_value_t = 200)]
    pub min_ms: u64,
    /// Tier of instructions; the best of this CPU if not given.
    #[arg(long)]
    pub isa: Option<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            op: Op::Ecoformer,
            n: 3136,
            batch: 1,
            heads: 1,
            head_dim: 64,
            bits: 16,
            anchors: 25,
            v: DType::F32,
            causal: false,
            numerator: Numerator::Released,
            bandwidth: Bandwidth::Sequence,
            softmax: false,
            threads: 1,
            min_ms: 200,
            isa: None,
            seed: 1,
        }
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
    /// Everything that can be refused before memory is taken.
    pub fn check(&self) -> Result<()> {
        if self.op != Op::Ecoformer {
            return Err(Error::input("op", "ecoformer for these fields", "another"));
        }
        check_run(self.threads, self.min_ms)?;
        check_causal(self.causal, self.numerator)?;
        library::LinearAttention::new(self.heads, self.bits)?;
        let least =
            [("n", self.n), ("batch", self.batch), ("head_dim", self.head_dim), ("anchors", self.anchors)];
        for (name, size) in least {
            if size == 0 {
                return Err(Error::input(name, "at least 1", size));
            }
        }
        for (name, size, most) in [("head_dim", self.head_dim, 256), ("anchors", self.anchors, 4096)] {
            if size > most {
                return Err(Error::input(name, format_args!("at most {most}"), size));
            }
        }
        let [n, batch, heads] = [self.n, self.batch, self.heads].map(|size| size as u128);
        let each = self.head_dim.max(self.bits) as u128;
        let hash = heads.saturating_mul((self.anchors * self.head_dim.max(self.bits)) as u128);
        let tokens = n.saturating_mul(batch).saturating_mul(heads).saturating_mul(each);
        for (name, size) in [("anchors", hash), ("n", tokens)] {
            if size > MOST {
                let expected = format_args!("at most {MOST} numbers over all heads");
                return Err(Error::input(name, expected, size));
            }
        }
        if self.softmax { self.softmax().check() } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::from_json;

    #[test]
    fn sizes_are_limited_before_memory_is_taken() {
        let parse = |text: &str| -> Result<()> { from_json::<Case>("case", text.as_bytes())?.check() };
        for bad in [
            r#"{"n":0}"#,
            r#"{"batch":0}"#,
            r#"{"heads":0}"#,
            r#"{"head_dim":0}"#,
            r#"{"head_dim":257}"#,
            r#"{"bits":0}"#,
            r#"{"bits":257}"#,
            r#"{"anchors":0}"#,
            r#"{"anchors":4097}"#,
            r#"{"n":18446744073709551615,"batch":18446744073709551615,"heads":18446744073709551615}"#,
            r#"{"n":1,"heads":100000}"#,
            r#"{"n":3000000}"#,
            r#"{"n":100000,"softmax":true}"#,
            r#"{"causal":true}"#,
            r#"{"v":"i32"}"#,
            r#"{"numerator":"both"}"#,
            r#"{"bandwidth":"own"}"#,
            r#"{"threads":0}"#,
            r#"{"seq":5}"#,
            r#"{"op":"linear"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        parse(r#"{"n":100000,"causal":true,"numerator":"consistent","bandwidth":"frozen"}"#).unwrap();
        parse("{}").unwrap();
    }
}
