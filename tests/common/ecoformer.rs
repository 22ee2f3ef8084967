//! Random hashes, codes and tensors for the tests of EcoFormer.

#![allow(dead_code, reason = "each test uses its own part")]

use crate::common::Rng;
use siskin::attention::{HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{Bandwidth, BitCodes, Encoded, KernelHash};
use siskin::{Ctx, Scratch};

/// What a hash is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub heads: usize,
    pub dim: usize,
    pub m: usize,
    pub bits: usize,
    pub anchors: Vec<f32>,
    pub centring: Vec<f32>,
    pub projection: Vec<f32>,
    pub sigma: Vec<f32>,
}

impl Parts {
    /// Anchors of any norm around 1.
    pub fn random(r: &mut Rng, [heads, dim, m, bits]: [usize; 4]) -> Self {
        let size = (3.0 / dim as f32).sqrt();
        Parts {
            heads,
            dim,
            m,
            bits,
            anchors: floats(r, heads * m * dim, size),
            centring: (0..heads * m).map(|_| r.float(0.4, 0.8)).collect(),
            projection: floats(r, heads * bits * m, 1.0),
            sigma: (0..heads).map(|_| r.float(0.5, 3.0)).collect(),
        }
    }

    pub fn hash(&self) -> KernelHash {
        let Parts { heads, dim, .. } = *self;
        KernelHash::from_parts(
            heads,
            dim,
            self.anchors.clone(),
            self.centring.clone(),
            self.projection.clone(),
        )
        .and_then(|hash| hash.with_sigma(self.sigma.clone()))
        .unwrap()
    }
}

pub fn floats(r: &mut Rng, n: usize, size: f32) -> Vec<f32> {
    (0..n).map(|_| r.float(-size, size)).collect()
}

pub fn random_codes(r: &mut Rng, n: usize, bits: usize) -> BitCodes {
    let mut words = Vec::new();
    for _ in 0..n {
        words
            .extend((0..bits.div_ceil(64)).map(|w| (bits - 64 * w).min(64)).map(|n| any_bits(r) >> (64 - n)));
    }
    BitCodes::from_words(words, bits).unwrap()
}

/// The generator's own are of 48 bits.
fn any_bits(r: &mut Rng) -> u64 {
    r.next() << 32 ^ r.next()
}

/// Of `[heads, tokens]` codes, those of some tokens.
pub fn some_codes(codes: &BitCodes, heads: usize, tokens: std::ops::Range<usize>) -> BitCodes {
    let n = codes.len() / heads;
    let all = (0..heads).flat_map(|h| tokens.clone().map(move |t| h * n + t));
    BitCodes::from_words(all.flat_map(|i| codes.code(i).to_vec()).collect(), codes.bits()).unwrap()
}

/// How a tensor `[tokens, heads, dim]` lies in memory.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Packed,
    /// The second of three in `[tokens, 3, heads, dim]`.
    Fused,
    HeadsFirst,
    /// Between tokens and between heads lies something else.
    Apart,
}

pub const PLACES: [Place; 4] = [Place::Packed, Place::Fused, Place::HeadsFirst, Place::Apart];

/// A tensor in its place: what lies between its elements is `between`.
pub struct Placed {
    pub data: Vec<f32>,
    pub shape: [usize; 3],
    first: usize,
    strides: [usize; 2],
}

impl Placed {
    pub fn new(x: &[f32], shape: [usize; 3], place: Place, between: f32) -> Self {
        let [tokens, heads, dim] = shape;
        assert_eq!(x.len(), tokens * heads * dim);
        let (first, strides) = match place {
            Place::Packed => (0, [heads * dim, dim]),
            Place::Fused => (heads * dim, [3 * heads * dim, dim]),
            Place::HeadsFirst => (0, [dim, tokens * dim]),
            Place::Apart => (5, [heads * (dim + 3) + 1, dim + 3]),
        };
        let reach = tokens * strides[0].max(dim) + heads * strides[1];
        let mut this = Self { data: vec![between; first + reach + 7], shape, first, strides };
        for (i, &x) in x.iter().enumerate() {
            let at = this.at(i / dim / heads, i / dim % heads) + i % dim;
            this.data[at] = x;
        }
        this
    }

    fn at(&self, token: usize, head: usize) -> usize {
        self.first + token * self.strides[0] + head * self.strides[1]
    }

    pub fn view(&self) -> HeadsRef<'_, f32> {
        let ([tokens, heads, dim], [token, head]) = (self.shape, self.strides);
        HeadsRef::with_strides(&self.data[self.first..], tokens, heads, dim, token, head).unwrap()
    }

    pub fn view_mut(&mut self) -> HeadsMut<'_, f32> {
        let ([tokens, heads, dim], [token, head]) = (self.shape, self.strides);
        HeadsMut::with_strides(&mut self.data[self.first..], tokens, heads, dim, token, head).unwrap()
    }

    /// The elements, `[tokens, heads, dim]`, and whether nothing else was written.
    pub fn taken_out(&self, between: f32) -> (Vec<f32>, bool) {
        let [tokens, heads, dim] = self.shape;
        let mut rest = self.data.clone();
        let mut out = Vec::new();
        for (t, h) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
            let own = &mut rest[self.at(t, h)..][..dim];
            out.extend_from_slice(own);
            own.fill(between);
        }
        (out, rest.iter().all(|x| x.to_bits() == between.to_bits()))
    }
}

pub fn cu_seqlens(lengths: &[usize]) -> Vec<i32> {
    let mut cu = vec![0];
    lengths.iter().for_each(|&len| cu.push(cu.last().unwrap() + len as i32));
    cu
}

pub fn encode(
    hash: &KernelHash,
    x: HeadsRef<'_, f32>,
    cu_seqlens: &[i32],
    bandwidth: Bandwidth,
    ctx: &Ctx,
) -> (BitCodes, Encoded) {
    let mut codes = BitCodes::with_capacity(0, 1).unwrap();
    let sequences = Sequences::own_packed(cu_seqlens);
    let encoded = hash.encode(x, &sequences, bandwidth, &mut codes, ctx, &mut Scratch::new()).unwrap();
    (codes, encoded)
}
