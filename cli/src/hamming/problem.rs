//! The random codes of a case, and what comes of comparing them.

use super::case::Case;
use crate::base::error::Result;
use crate::base::random::Rng;
use siskin::ecoformer::BitCodes;
use siskin::{Ctx, MatMut, Scratch};

/// A case with its codes, for any tier.
pub struct Problem {
    pub a: BitCodes,
    pub b: BitCodes,
    k: Option<usize>,
}

/// What comes out, `[m, n]` or twice `[m, k]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    All(Vec<u16>),
    Nearest { k: usize, indices: Vec<u32>, distances: Vec<u16> },
}

impl Problem {
    /// Random codes for a case that was checked.
    pub fn new(case: &Case) -> Result<Self> {
        let mut rng = Rng(case.seed);
        let (a, b) = (rng.codes(case.m(), case.bits)?, rng.codes(case.n, case.bits)?);
        Ok(Self { a, b, k: case.k })
    }

    pub fn output(&self) -> Out {
        let m = self.a.len();
        match self.k {
            None => Out::All(vec![0; m * self.b.len()]),
            Some(k) => Out::Nearest { k, indices: vec![0; m * k], distances: vec![0; m * k] },
        }
    }

    /// The call.
    pub fn forward(&self, out: &mut Out, ctx: &Ctx, scratch: &mut Scratch) -> Result<()> {
        let m = self.a.len();
        match out {
            Out::All(distances) => {
                self.a.hamming(&self.b, MatMut::new(distances, m, self.b.len())?, ctx, scratch)?;
            }
            Out::Nearest { k, indices, distances } => {
                let (indices, distances) = (MatMut::new(indices, m, *k)?, MatMut::new(distances, m, *k)?);
                self.a.nearest(&self.b, indices, distances, ctx, scratch)?;
            }
        }
        Ok(())
    }
}
