//! A case to measure or verify: the same struct as flags and as a line of JSON.

use crate::error::{Error, Result};
use crate::json::from_json;
use crate::{attention, ecoformer, hamming};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use siskin::sparse::BlockShape;
use siskin::{Ctx, Isa, Parallelism};
use std::fmt;
use std::str::FromStr;

/// Elements that a matrix of a case may have: more is refused before it is allocated.
const MOST: u128 = 1 << 27;

#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// What is computed.
    #[arg(long, value_enum, default_value_t)]
    pub op: Op,
    /// Tokens.
    #[arg(long, short, default_value_t = 384)]
    pub m: usize,
    /// Output features.
    #[arg(long, short, default_value_t = 768)]
    pub n: usize,
    /// Input features.
    #[arg(long, short, default_value_t = 768)]
    pub k: usize,
    /// Weights; with those of floats the layer computes in floats.
    #[arg(long, value_enum, default_value_t)]
    pub w: WType,
    /// Compute in floats with i8 weights too.
    #[arg(long)]
    pub weight_only: bool,
    /// Input features that share a scale of i8 weights, a multiple of 4, which makes them weight-only; 0 for one scale for
    /// each output feature.
    #[arg(long, default_value_t = 0)]
    pub group_size: usize,
    /// Input; where the layer computes in bytes, floats are quantized on the fly, token by token. If not given: as the
    /// weights, u8 for i8 ones, f32 for weight-only ones.
    #[arg(long, value_enum)]
    pub x: Option<XType>,
    /// Output; if not given, as x if not given.
    #[arg(long, value_enum)]
    pub y: Option<YType>,
    /// Block of the weights, rows x columns, or "dense".
    #[arg(long, default_value_t)]
    pub block: Format,
    /// Fraction of the blocks that are pruned, chosen at random; no matter for dense weights.
    #[arg(long, default_value_t = 0.8)]
    pub sparsity: f64,
    /// What happens to the sums, comma-separated: bias, residual, and one activation.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub epilogue: Vec<Step>,
    /// Whether x comes as rows or packed for the layer.
    #[arg(long = "in", value_enum, default_value_t)]
    #[serde(rename = "in")]
    pub input: Place,
    /// Whether y leaves as rows or packed for a following layer of the same format. Packed floats have the type that this
    /// layer would read, f32 or (where the CPU multiplies them) bf16.
    #[arg(long, value_enum, default_value_t)]
    pub out: Place,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Milliseconds to measure for.
    #[arg(long, default_value_t = 200)]
    pub min_ms: u64,
    /// Tier of instructions; the best of this CPU if not given.
    #[arg(long)]
    pub isa: Option<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Random weights, symmetric or (dense ones) with zero points.
    #[arg(long, value_enum, default_value_t)]
    pub weights: Values,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            op: Op::Linear,
            m: 384,
            n: 768,
            k: 768,
            w: WType::I8,
            weight_only: false,
            group_size: 0,
            x: None,
            y: None,
            block: Format::default(),
            sparsity: 0.8,
            epilogue: Vec::new(),
            input: Place::Tokens,
            out: Place::Tokens,
            threads: 1,
            min_ms: 200,
            isa: None,
            seed: 1,
            weights: Values::Random,
        }
    }
}

/// `default` goes to the first variant alone.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $first:ident $(, $variant:ident)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
        #[serde(rename_all = "snake_case")]
        #[value(rename_all = "snake_case")]
        pub enum $name { #[default] $first $(, $variant)* }
    )* };
}

pub(crate) use choices;

choices! {
    Op { Linear, Attention, Hamming, Ecoformer }
    WType { I8, F32, Bf16, F16 }
    XType { U8, I8, F32, Bf16, F16 }
    YType { U8, I8, I32, F32, Bf16, F16 }
    Place { Tokens, Packed }
    Values { Random, ZeroPoints }
    Step { Bias, Residual, Relu, Clamp, Gelu, GeluTanh, Silu, GeluTable, GeluTanhTable, SiluTable }
}

impl XType {
    pub fn is_bytes(self) -> bool {
        matches!(self, XType::U8 | XType::I8)
    }
}

impl YType {
    pub fn is_bytes(self) -> bool {
        matches!(self, YType::U8 | YType::I8)
    }
}

impl Step {
    pub fn is_table(self) -> bool {
        matches!(self, Step::GeluTable | Step::GeluTanhTable | Step::SiluTable)
    }
}

/// Dense, or blocks of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Format {
    Dense,
    Sparse(BlockShape),
}

impl Default for Format {
    fn default() -> Self {
        Format::Sparse(BlockShape::B4X1)
    }
}

impl FromStr for Format {
    type Err = siskin::Error;

    fn from_str(text: &str) -> siskin::Result<Self> {
        match text {
            "dense" => Ok(Format::Dense),
            _ => text.parse().map(Format::Sparse),
        }
    }
}

impl TryFrom<String> for Format {
    type Error = siskin::Error;

    fn try_from(text: String) -> siskin::Result<Self> {
        text.parse()
    }
}

impl From<Format> for String {
    fn from(f: Format) -> String {
        f.to_string()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Dense => f.write_str("dense"),
            Format::Sparse(block) => block.fmt(f),
        }
    }
}

impl Case {
    /// Everything that can be refused before memory is taken.
    pub fn check(&self) -> Result<()> {
        if self.op != Op::Linear {
            return Err(Error::input("op", "linear for these fields", "another"));
        }
        let (m, n, k) = (self.m as u128, self.n as u128, self.k as u128);
        for (name, size) in [("m", m), ("n", n), ("k", k)] {
            if size == 0 {
                return Err(Error::input(name, "at least 1", size));
            }
        }
        let mut sizes = vec![("m * n", m, n), ("n * k", n, k), ("m * k", m, k)];
        if let Format::Sparse(block) = self.block {
            // With what lies beyond the edge.
            let (rows, cols) = (block.rows() as u128, block.cols() as u128);
            sizes.push((
                "block",
                n.div_ceil(rows).saturating_mul(rows),
                k.div_ceil(cols).saturating_mul(cols),
            ));
        }
        for (name, a, b) in sizes {
            if a.checked_mul(b).is_none_or(|size| size > MOST) {
                return Err(Error::input(
                    name,
                    format_args!("at most {MOST} elements"),
                    format_args!("{a} x {b}"),
                ));
            }
        }
        if !(0.0..1.0).contains(&self.sparsity) {
            return Err(Error::input("sparsity", "0 to below 1", self.sparsity));
        }
        check_run(self.threads, self.min_ms)?;
        if self.weights == Values::ZeroPoints && self.block != Format::Dense {
            return Err(Error::input("weights", "\"random\" for sparse weights", "\"zero_points\""));
        }
        self.check_types()?;
        self.check_epilogue()
    }

    fn check_types(&self) -> Result<()> {
        if !self.group_size.is_multiple_of(4) {
            return Err(Error::input("group_size", "0 or a multiple of 4", self.group_size));
        }
        if self.w != WType::I8 && self.weight_only {
            return Err(Error::input("weight_only", "i8 weights", format_args!("{:?}", self.w)));
        }
        if self.w != WType::I8 && self.group_size > 0 {
            return Err(Error::input("group_size", "i8 weights", format_args!("{:?}", self.w)));
        }
        let (x, y) = (self.x(), self.y());
        if !self.in_floats() {
            return match self.out {
                Place::Packed if !y.is_bytes() => {
                    Err(Error::input("out", "\"tokens\" for an output that is not bytes", "\"packed\""))
                }
                _ => Ok(()),
            };
        }
        if self.weights == Values::ZeroPoints {
            return Err(Error::input("weights", "\"random\" to compute in floats", "\"zero_points\""));
        }
        if x.is_bytes() {
            return Err(Error::input("x", "f32, bf16 or f16 to compute in floats", format_args!("{x:?}")));
        }
        if y == YType::I32 {
            return Err(Error::input("y", "anything but i32 to compute in floats", "i32"));
        }
        Ok(())
    }

    /// Whether the layer computes in floats.
    pub fn in_floats(&self) -> bool {
        self.w != WType::I8 || self.weight_only || self.group_size > 0
    }

    pub fn x(&self) -> XType {
        self.x.unwrap_or(match self.w {
            WType::I8 if !self.in_floats() => XType::U8,
            WType::I8 | WType::F32 => XType::F32,
            WType::Bf16 => XType::Bf16,
            WType::F16 => XType::F16,
        })
    }

    pub fn y(&self) -> YType {
        self.y.unwrap_or(match self.w {
            WType::I8 if !self.in_floats() => YType::U8,
            WType::I8 | WType::F32 => YType::F32,
            WType::Bf16 => YType::Bf16,
            WType::F16 => YType::F16,
        })
    }

    fn check_epilogue(&self) -> Result<()> {
        let count = |step| self.epilogue.iter().filter(|&&s| s == step).count();
        if count(Step::Bias) > 1 || count(Step::Residual) > 1 {
            return Err(Error::input("epilogue", "each step once", "one twice"));
        }
        let activations = self.epilogue.len() - count(Step::Bias) - count(Step::Residual);
        if activations > 1 {
            return Err(Error::input("epilogue", "at most one activation", activations));
        }
        if self.y() == YType::I32 && !self.epilogue.is_empty() {
            return Err(Error::input("epilogue", "none for i32 sums", self.epilogue.len()));
        }
        match self.activation() {
            Some(step) if step.is_table() && !self.y().is_bytes() => {
                Err(Error::input("epilogue", "a table for an output of bytes only", format_args!("{step:?}")))
            }
            _ => Ok(()),
        }
    }

    pub fn has(&self, step: Step) -> bool {
        self.epilogue.contains(&step)
    }

    pub fn activation(&self) -> Option<Step> {
        self.epilogue.iter().copied().find(|s| !matches!(s, Step::Bias | Step::Residual))
    }

    pub fn ctx(&self) -> Result<Ctx> {
        ctx(self.isa.as_deref(), self.threads)
    }

    /// Calls `f` where the case's threads are.
    pub fn on_threads<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_threads(self.threads, f)
    }
}

/// What cases of all operations say about how they run.
pub fn check_run(threads: usize, min_ms: u64) -> Result<()> {
    if !(1..=256).contains(&threads) {
        return Err(Error::input("threads", "1 to 256", threads));
    }
    if min_ms > 60_000 {
        return Err(Error::input("min_ms", "at most 60000", min_ms));
    }
    Ok(())
}

/// The tier asked for. Threads are those of the pool that the call is made from.
pub fn ctx(isa: Option<&str>, threads: usize) -> Result<Ctx> {
    let ctx = Ctx::new()?;
    let ctx = match isa {
        None => ctx,
        Some(isa) => ctx.with_isa(isa.parse::<Isa>()?)?,
    };
    Ok(ctx.with_parallelism(if threads == 1 { Parallelism::Serial } else { Parallelism::Rayon }))
}

/// Calls `f` where so many threads are.
pub fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if threads == 1 {
        return f();
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::input("threads", "as many as can be started", e))?;
    pool.install(f)
}

/// A case of any operation, which `op` selects.
#[derive(Debug, Clone)]
pub enum AnyCase {
    Linear(Case),
    Attention(attention::Case),
    Hamming(hamming::Case),
    Ecoformer(ecoformer::Case),
}

impl AnyCase {
    /// Of a JSON object.
    pub fn parse(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Peek {
            #[serde(default)]
            op: Op,
        }
        Ok(match from_json::<Peek>("case", text)?.op {
            Op::Linear => AnyCase::Linear(from_json("case", text)?),
            Op::Attention => AnyCase::Attention(from_json("case", text)?),
            Op::Hamming => AnyCase::Hamming(from_json("case", text)?),
            Op::Ecoformer => AnyCase::Ecoformer(from_json("case", text)?),
        })
    }
}
