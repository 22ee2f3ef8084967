//! A case of a linear layer.

use crate::base::case::{at_least_one, at_most, case, choices};
use crate::base::error::{Error, Result};
use crate::base::types::{XType, YType};
use serde::{Deserialize, Serialize};
use siskin::linear::{Activation, ByteTable, gelu_table, gelu_tanh_table, silu_table};
use siskin::quant::QuantParams;
use siskin::sparse::BlockShape;
use std::fmt;
use std::str::FromStr;

/// Elements that a matrix of a case may have: more is refused before it is allocated.
const MOST: u128 = 1 << 27;

case! {
    /// Measure one case of a linear layer
    {
        /// Tokens.
        #[arg(long, short, visible_alias = "tokens")]
        #[serde(alias = "tokens")]
        m: usize = 384,
        /// Output features.
        #[arg(long, short)]
        n: usize = 768,
        /// Input features.
        #[arg(long, short)]
        k: usize = 768,
        /// Weights; with those of floats the layer computes in floats.
        #[arg(long, value_enum)]
        w: WType = WType::I8,
        /// Compute in floats with i8 weights too.
        #[arg(long)]
        weight_only: bool,
        /// Input features that share a scale of i8 weights, a multiple of 4, which makes them weight-only; 0 for one scale for
        /// each output feature.
        #[arg(long)]
        group_size: usize = 0,
        /// Input; where the layer computes in bytes, floats are quantized on the fly, token by token. If not given: as the
        /// weights, u8 for i8 ones, f32 for weight-only ones.
        #[arg(long, value_enum)]
        x: Option<XType>,
        /// Output; if not given, as x if not given.
        #[arg(long, value_enum)]
        y: Option<YType>,
        /// Block of the weights, rows x columns, or "dense".
        #[arg(long)]
        block: Format = Format::default(),
        /// Fraction of the blocks that are pruned, chosen at random; no matter for dense weights.
        #[arg(long)]
        sparsity: f64 = 0.8,
        /// Keep pruned weights of INT8 block-sparse where dense ones are faster.
        #[arg(long)]
        keep_sparse: bool,
        /// What happens to the sums, comma-separated: bias, residual, and one activation.
        #[arg(long, value_enum, value_delimiter = ',')]
        epilogue: Vec<Step>,
        /// Whether x comes as rows or packed for the layer.
        #[arg(long = "in", value_enum)]
        #[serde(rename = "in")]
        input: Place = Place::Tokens,
        /// Whether y leaves as rows or packed for a following layer of the same format. Packed floats have the type that this
        /// layer would read, f32 or (where the CPU multiplies them) bf16.
        #[arg(long, value_enum)]
        out: Place = Place::Tokens,
        /// Random weights, symmetric or (dense ones) with zero points.
        #[arg(long, value_enum)]
        weights: Values = Values::Random,
    }
}

choices! {
    WType { I8, F32, Bf16, F16 }
    Place { Tokens, Packed }
    Values { Random, ZeroPoints }
    Step { Bias, Residual, Relu, Clamp, Gelu, GeluTanh, Silu, GeluTable, GeluTanhTable, SiluTable }
}

choices! {
    Act { Relu, Clamp, Gelu, GeluTanh, Silu, GeluTable, GeluTanhTable, SiluTable }
}

/// An activation is a step; bias and residual are steps too, but of a file they are tensors.
impl From<Act> for Step {
    fn from(activation: Act) -> Step {
        match activation {
            Act::Relu => Step::Relu,
            Act::Clamp => Step::Clamp,
            Act::Gelu => Step::Gelu,
            Act::GeluTanh => Step::GeluTanh,
            Act::Silu => Step::Silu,
            Act::GeluTable => Step::GeluTable,
            Act::GeluTanhTable => Step::GeluTanhTable,
            Act::SiluTable => Step::SiluTable,
        }
    }
}

impl Step {
    pub fn is_activation(self) -> bool {
        !matches!(self, Step::Bias | Step::Residual)
    }

    /// Makes the table of an activation that is looked up, for the quantizers before and after it.
    pub fn table(self) -> Option<fn(QuantParams, QuantParams) -> ByteTable> {
        match self {
            Step::GeluTable => Some(gelu_table),
            Step::GeluTanhTable => Some(gelu_tanh_table),
            Step::SiluTable => Some(silu_table),
            _ => None,
        }
    }

    /// The activation that a table is of, or this one.
    pub fn untabled(self) -> Self {
        match self {
            Step::GeluTable => Step::Gelu,
            Step::GeluTanhTable => Step::GeluTanh,
            Step::SiluTable => Step::Silu,
            other => other,
        }
    }

    /// As the library has it; `clamp` tells its ends.
    pub fn library(this: Option<Self>, clamp: (f32, f32)) -> Activation<'static> {
        match this {
            Some(Step::Relu) => Activation::Relu,
            Some(Step::Clamp) => Activation::Clamp { low: clamp.0, high: clamp.1 },
            Some(Step::Gelu) => Activation::Gelu,
            Some(Step::GeluTanh) => Activation::GeluTanh,
            Some(Step::Silu) => Activation::Silu,
            _ => Activation::Identity,
        }
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
    pub fn check_fields(&self) -> Result<()> {
        at_least_one(&[("m", self.m), ("n", self.n), ("k", self.k)])?;
        let (m, n, k) = (self.m as u128, self.n as u128, self.k as u128);
        at_most(MOST, "m * n", &[m, n])?;
        at_most(MOST, "n * k", &[n, k])?;
        at_most(MOST, "m * k", &[m, k])?;
        if let Format::Sparse(block) = self.block {
            // With what lies beyond the edge.
            let whole = |size: u128, step: usize| size.div_ceil(step as u128).saturating_mul(step as u128);
            at_most(MOST, "block", &[whole(n, block.rows()), whole(k, block.cols())])?;
        }
        if !(0.0..1.0).contains(&self.sparsity) {
            return Err(Error::input("sparsity", "0 to below 1", self.sparsity));
        }
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
        for (name, given) in [("weight_only", self.weight_only), ("group_size", self.group_size > 0)] {
            if self.w != WType::I8 && given {
                return Err(Error::input(name, "i8 weights", format_args!("{:?}", self.w)));
            }
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
            Some(step) if step.table().is_some() && !self.y().is_bytes() => {
                Err(Error::input("epilogue", "a table for an output of bytes only", format_args!("{step:?}")))
            }
            _ => Ok(()),
        }
    }

    pub fn has(&self, step: Step) -> bool {
        self.epilogue.contains(&step)
    }

    pub fn activation(&self) -> Option<Step> {
        self.epilogue.iter().copied().find(|step| step.is_activation())
    }
}
