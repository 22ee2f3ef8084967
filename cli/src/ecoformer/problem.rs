//! The random data of a case of EcoFormer, and its calls.

use super::case::Case;
use crate::base::data::{Data, Each, Place, Quantizers};
use crate::base::error::Result;
use crate::base::lengths::Lengths;
use crate::base::random::Rng;
use crate::base::types::XType;
use siskin::HeadsMut;
use siskin::ecoformer::{
    Bandwidth, BitCodes, Encoded, KernelHash, LinearAttention, LinearAttentionInputs, Numerator,
};
use siskin::{Ctx, Scratch};

/// A case with its data, for any tier.
pub struct Problem {
    pub hash: KernelHash,
    pub bandwidth: Bandwidth,
    pub numerator: Numerator,
    pub causal: bool,
    pub lengths: Lengths,
    pub x: Vec<f32>,
    pub x_place: Place,
    pub v: Data,
    pub v_place: Place,
    pub v_params: Quantizers,
}

impl Problem {
    /// Random data for a case that was checked.
    pub fn new(case: &Case) -> Result<Self> {
        let lengths = Lengths::Batch { batch: case.batch, q_len: case.n, kv_len: case.n };
        Self::with(case, lengths, case.v.element(), case.head_dim, Place::by_tokens)
    }

    /// With sequences, a type and a number of features of v, and a layout of its own.
    pub fn with(
        case: &Case,
        lengths: Lengths,
        v: XType,
        v_dim: usize,
        layout: fn(usize, usize, usize) -> Place,
    ) -> Result<Self> {
        let mut rng = Rng(case.seed);
        let tokens = lengths.tokens().0;
        let hash = hash(case, &mut rng)?;
        let x_place = layout(tokens, case.heads, case.head_dim);
        let x = (0..x_place.elements()).map(|_| rng.normal()).collect();
        let v_place = layout(tokens, case.heads, v_dim);
        let values: Vec<f32> = (0..v_place.elements()).map(|_| rng.normal()).collect();
        let (by_tokens, v_params) = Data::quantized(&values, v, &v_place, Each::Head)?;
        let mut v = by_tokens.like(v_place.elements());
        v.put(&by_tokens, &v_place);
        Ok(Self {
            hash,
            bandwidth: case.bandwidth.library(),
            numerator: case.numerator.library(),
            causal: case.causal,
            lengths,
            x,
            x_place,
            v,
            v_place,
            v_params,
        })
    }

    pub fn tokens(&self) -> usize {
        self.x_place.tokens
    }

    pub fn heads(&self) -> usize {
        self.x_place.heads
    }

    pub fn codes(&self) -> Result<BitCodes> {
        Ok(BitCodes::with_capacity(self.tokens() * self.heads(), self.hash.bits())?)
    }

    /// `[tokens, heads, features of v]`.
    pub fn output(&self) -> Vec<f32> {
        vec![0.0; self.v_place.elements()]
    }

    pub fn encode(&self, codes: &mut BitCodes, ctx: &Ctx, scratch: &mut Scratch) -> Result<Encoded> {
        let x = self.x_place.view(&self.x)?;
        Ok(self.hash.encode(x, &self.lengths.sequences(), self.bandwidth, codes, ctx, scratch)?)
    }

    pub fn attend(
        &self,
        q: &BitCodes,
        k: &BitCodes,
        y: &mut [f32],
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let mut attention = LinearAttention::new(self.heads(), self.hash.bits())?.numerator(self.numerator);
        if self.causal {
            attention = attention.causal();
        }
        let v = self.v.input(&self.v_place, &self.v_params)?;
        let y = HeadsMut::new(y, self.tokens(), self.heads(), self.v_place.head_dim)?;
        let inputs = LinearAttentionInputs::new(q, k, v);
        Ok(attention.forward(inputs, &self.lengths.sequences(), y, ctx, scratch)?)
    }
}

/// Anchors in random directions, and a centring near the mean of their kernel.
fn hash(case: &Case, rng: &mut Rng) -> Result<KernelHash> {
    let rows = case.heads * case.anchors;
    let mut anchors: Vec<f32> = (0..rows * case.head_dim).map(|_| rng.normal()).collect();
    for anchor in anchors.chunks_exact_mut(case.head_dim) {
        let norm = anchor.iter().map(|x| x * x).sum::<f32>().sqrt();
        anchor.iter_mut().for_each(|x| *x /= norm.max(f32::MIN_POSITIVE));
    }
    let centring = (0..rows).map(|_| 0.6 + 0.01 * rng.normal()).collect();
    let projection = (0..rows * case.bits).map(|_| rng.normal()).collect();
    let sigma = (0..case.heads).map(|_| 1.8 + 0.4 * rng.unit()).collect();
    Ok(KernelHash::from_parts(case.heads, case.head_dim, anchors, centring, projection)?.with_sigma(sigma)?)
}
