//! A norm between two blocks, and what it writes for the one that comes next.

use crate::error::Result;
use crate::workspace::{Memory, grown_params};
use siskin::linear::LinearInput;
use siskin::norm::{LayerNorm, NormBytes};
use siskin::quant::QuantParams;
use siskin::{Ctx, MatMut, MatRef, Scratch};

/// A LayerNorm, and the form in which the next linear layer reads what comes out of it.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub norm: LayerNorm,
    pub next: Next,
}

/// What the next linear layer reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// The floats.
    Floats,
    /// Bytes by the range of each token.
    PerToken,
    /// Bytes by parameters that were calibrated.
    Static(QuantParams),
}

/// The bytes that a norm writes, and what those of each token stand for.
#[derive(Debug, Default)]
pub(crate) struct NormMemory {
    bytes: Memory<u8>,
    params: Vec<QuantParams>,
}

impl Norm {
    /// Normalizes `x`, `[tokens, features]`, where it is, and writes bytes if the next layer reads them.
    pub fn apply(
        &self,
        x: &mut [f32],
        memory: &mut NormMemory,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let features = self.norm.features();
        let (m, size) = (x.len() / features, x.len());
        let x = MatMut::new(x, m, features)?;
        let bytes = match self.next {
            Next::Floats => None,
            Next::PerToken => {
                let bytes = MatMut::new(memory.bytes.grown(size), m, features)?;
                Some(NormBytes::PerToken(bytes, grown_params(&mut memory.params, m)?))
            }
            Next::Static(params) => {
                let bytes = MatMut::new(memory.bytes.grown(size), m, features)?;
                Some(NormBytes::Static(bytes, params))
            }
        };
        Ok(self.norm.forward_in_place(x, None, bytes, ctx, scratch)?)
    }

    /// What the next linear layer reads: `x`, or its bytes.
    pub fn next<'a>(&self, x: MatRef<'a, f32>, memory: &'a NormMemory) -> Result<LinearInput<'a>> {
        let (m, features) = (x.rows(), x.cols());
        let bytes = |memory: &'a NormMemory| MatRef::new(memory.bytes.first(m * features), m, features);
        Ok(match self.next {
            Next::Floats => x.into(),
            Next::PerToken => (bytes(memory)?, &memory.params[..m]).into(),
            Next::Static(params) => (bytes(memory)?, params).into(),
        })
    }
}
