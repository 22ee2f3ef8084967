//! Attention.

use crate::attention::{Bias, BlockMask, Input, Int8, Output, Sequences, Skipped};
use crate::ctx::Ctx;
use crate::kernels::buffer::Buffer;
use crate::view::MatRef;

/// One call: all of it checked.
pub struct Job<'a> {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    /// gamma and zeta.
    pub clipped: Option<(f32, f32)>,
    pub causal: bool,
    pub window: Option<(usize, usize)>,
    pub uniform: bool,
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub v: Input<'a>,
    pub sequences: Sequences<'a>,
    pub key_lengths: Option<&'a [usize]>,
    pub positions: Option<&'a [usize]>,
    pub bias: Option<Bias<'a>>,
    pub block_mask: Option<BlockMask<'a>>,
    pub gates: Option<MatRef<'a, f32>>,
    pub int8: Int8,
}

/// Memory of a call.
#[derive(Debug, Default)]
pub struct Memory {
    /// Each thread's.
    pub workers: Buffer,
    /// Scores of few queries.
    pub scores: Buffer,
}

/// The context of all queries.
pub fn attention(_job: &Job<'_>, _out: Output<'_>, _ctx: &Ctx, _memory: &mut Memory) -> Skipped {
    Skipped::default()
}
