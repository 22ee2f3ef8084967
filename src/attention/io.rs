//! What goes into attention and what comes out.

use super::{HeadsMut, HeadsRef};
use crate::base::element::Element;
use crate::base::error::Result;
use crate::base::tensor::HeadParams;
use crate::quant::QuantParams;
use half::{bf16, f16};

/// q, k or v: `[tokens, heads, head_dim]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Floats.
    F32(HeadsRef<'a, f32>),
    /// Floats: multiplied in pairs where q, k and v are all of them and the CPU has the instruction, else widened.
    Bf16(HeadsRef<'a, bf16>),
    /// Floats, widened.
    F16(HeadsRef<'a, f16>),
    /// Unsigned bytes and what they stand for.
    U8(HeadsRef<'a, u8>, HeadParams<'a>),
    /// Signed bytes and what they stand for.
    I8(HeadsRef<'a, i8>, HeadParams<'a>),
}

impl Input<'_> {
    /// Tokens, heads, features of a head.
    pub fn shape(&self) -> (usize, usize, usize) {
        let l = self.layout();
        (l.tokens, l.heads, l.head_dim)
    }

    pub(crate) fn layout(&self) -> crate::base::heads::Layout {
        match self {
            Input::F32(x) => x.layout(),
            Input::Bf16(x) => x.layout(),
            Input::F16(x) => x.layout(),
            Input::U8(x, _) => x.layout(),
            Input::I8(x, _) => x.layout(),
        }
    }

    /// Of bytes, the largest real size of a step.
    pub(crate) fn largest_scale(&self) -> f32 {
        match self {
            Input::U8(_, params) | Input::I8(_, params) => match params {
                HeadParams::All(params) => params.scale(),
                HeadParams::PerHead(params) => params.iter().map(|p| p.scale()).fold(0.0, f32::max),
            },
            _ => 1.0,
        }
    }

    /// Whether it is of bytes.
    pub fn is_quantized(&self) -> bool {
        matches!(self, Input::U8(..) | Input::I8(..))
    }

    pub(crate) fn check(&self, name: &'static str) -> Result<()> {
        match self {
            Input::U8(x, params) => params.check(name, x.heads(), Element::U8),
            Input::I8(x, params) => params.check(name, x.heads(), Element::I8),
            _ => Ok(()),
        }
    }
}

/// The context: `[q tokens, num_heads, head_dim]`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Floats.
    F32(HeadsMut<'a, f32>),
    /// Floats, rounded to nearest even.
    Bf16(HeadsMut<'a, bf16>),
    /// Floats, rounded to nearest even.
    F16(HeadsMut<'a, f16>),
    /// Quantized, after the gate.
    U8(HeadsMut<'a, u8>, QuantParams),
    /// Quantized, after the gate.
    I8(HeadsMut<'a, i8>, QuantParams),
}

impl Output<'_> {
    pub(crate) fn layout(&self) -> crate::base::heads::Layout {
        match self {
            Output::F32(x) => x.layout(),
            Output::Bf16(x) => x.layout(),
            Output::F16(x) => x.layout(),
            Output::U8(x, _) => x.layout(),
            Output::I8(x, _) => x.layout(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let (params, dtype) = match self {
            Output::U8(_, params) => (params, Element::U8),
            Output::I8(_, params) => (params, Element::I8),
            _ => return Ok(()),
        };
        HeadParams::All(*params).check("out", 1, dtype)
    }
}
