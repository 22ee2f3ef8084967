//! Tensors of any type at any strides, poison between their rows.
#![allow(dead_code, reason = "each test uses its own part")]

use crate::common::Rng;
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{TensorMut, TensorRef, bf16, f16};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    F32,
    Bf16,
    F16,
    U8,
    I8,
}
pub const FLOATS: [Type; 3] = [Type::F32, Type::Bf16, Type::F16];

impl Type {
    pub fn round(self, v: f32) -> f32 {
        match self {
            Type::F32 => v,
            Type::Bf16 => bf16::from_f32(v).to_f32(),
            Type::F16 => f16::from_f32(v).to_f32(),
            Type::U8 => f32::from(v as u8),
            Type::I8 => f32::from(v as i8),
        }
    }
    pub fn is_bytes(self) -> bool {
        matches!(self, Type::U8 | Type::I8)
    }
    pub fn params(self, scale: f32, zero_point: u8) -> QuantParams {
        match self {
            Type::I8 => QuantParams::i8(scale, i32::from(zero_point) - 128).unwrap(),
            _ => QuantParams::u8(scale, i32::from(zero_point)).unwrap(),
        }
    }
}

/// What the bytes of a tensor stand for; nothing for floats.
#[derive(Debug, Clone)]
pub enum Params {
    /// One for all heads, or one for each.
    Heads(Vec<QuantParams>),
    /// One for each token.
    Tokens(Vec<QuantParams>),
}

impl Params {
    pub const NONE: &'static Params = &Params::Heads(Vec::new());

    /// Those of some tokens.
    pub fn of_tokens(&self, tokens: std::ops::Range<usize>) -> Self {
        match self {
            Params::Heads(_) => self.clone(),
            Params::Tokens(all) => Params::Tokens(all[tokens].to_vec()),
        }
    }

    /// Those of a token's head.
    pub fn of(&self, token: usize, head: usize) -> QuantParams {
        match self {
            Params::Heads(all) if all.len() == 1 => all[0],
            Params::Heads(all) => all[head],
            Params::Tokens(all) => all[token],
        }
    }

    pub fn each(&mut self) -> &mut Vec<QuantParams> {
        match self {
            Params::Heads(all) | Params::Tokens(all) => all,
        }
    }

    /// As the library takes them.
    pub fn borrowed(&self) -> HeadParams<'_> {
        match self {
            Params::Heads(all) if all.len() == 1 => HeadParams::All(all[0]),
            Params::Heads(all) => HeadParams::PerHead(all),
            Params::Tokens(all) => HeadParams::PerToken(all),
        }
    }
}

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// `[heads, tokens, head_dim]`, not `[tokens, heads, head_dim]`.
    pub heads_first: bool,
    /// Elements behind each head of a token, behind each row of those, and before all.
    pub gaps: (usize, usize, usize),
}

impl Place {
    pub fn random(r: &mut Rng, row: usize) -> Self {
        let gaps = match r.below(4) {
            0 => (0, 0, 0),
            // One part of a fused buffer.
            1 => (0, 2 * row, r.below(3) * row),
            2 => (r.below(3) * 3, r.below(20), r.below(4)),
            _ => (r.below(2), 0, 0),
        };
        Place { heads_first: r.below(3) == 0, gaps }
    }

    /// Of tokens and of heads.
    pub fn strides(self, tokens: usize, heads: usize, head_dim: usize) -> (usize, usize) {
        let inner = head_dim + self.gaps.0;
        match self.heads_first {
            true => (inner, tokens.max(1) * inner + self.gaps.1),
            false => (heads * inner + self.gaps.1, inner),
        }
    }
}

pub enum Store {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

/// q, k, v or the context, in its place.
pub struct Tensor {
    pub store: Store,
    pub shape: (usize, usize, usize),
    pub strides: (usize, usize),
    front: usize,
}

impl Tensor {
    /// `values` is `[tokens, heads, head_dim]`; whatever lies between is `poison`.
    pub fn new(t: Type, values: &[f32], shape: (usize, usize, usize), place: Place, poison: f32) -> Self {
        let (tokens, heads, head_dim) = shape;
        let strides = place.strides(tokens, heads, head_dim);
        let front = place.gaps.2;
        let mut all = vec![poison; Self::end(shape, strides, front)];
        for token in 0..tokens {
            for head in 0..heads {
                let from = &values[(token * heads + head) * head_dim..][..head_dim];
                all[front + token * strides.0 + head * strides.1..][..head_dim].copy_from_slice(from);
            }
        }
        let store = match t {
            Type::F32 => Store::F32(all),
            Type::Bf16 => Store::Bf16(all.iter().map(|&v| bf16::from_f32(v)).collect()),
            Type::F16 => Store::F16(all.iter().map(|&v| f16::from_f32(v)).collect()),
            Type::U8 => Store::U8(all.iter().map(|&v| v as u8).collect()),
            Type::I8 => Store::I8(all.iter().map(|&v| v as i8).collect()),
        };
        Tensor { store, shape, strides, front }
    }

    fn end((tokens, heads, head_dim): (usize, usize, usize), strides: (usize, usize), front: usize) -> usize {
        match tokens * heads {
            0 => front,
            _ => front + (tokens - 1) * strides.0 + (heads - 1) * strides.1 + head_dim,
        }
    }

    pub fn input<'a>(&'a self, params: &'a Params) -> TensorRef<'a> {
        self.view(self.front, self.shape, self.strides, params)
    }

    /// Any part of the buffer.
    pub fn view<'a>(
        &'a self,
        first: usize,
        (t, h, d): (usize, usize, usize),
        (ts, hs): (usize, usize),
        params: &'a Params,
    ) -> TensorRef<'a> {
        macro_rules! view {
            ($v:expr) => {
                HeadsRef::with_strides(&$v[first.min($v.len())..], t, h, d, ts, hs).unwrap()
            };
        }
        match &self.store {
            Store::F32(v) => TensorRef::from(view!(v)),
            Store::Bf16(v) => TensorRef::from(view!(v)),
            Store::F16(v) => TensorRef::from(view!(v)),
            Store::U8(v) => TensorRef::from((view!(v), params.borrowed())),
            Store::I8(v) => TensorRef::from((view!(v), params.borrowed())),
        }
    }

    pub fn output(&mut self, params: QuantParams) -> TensorMut<'_> {
        let ((t, h, d), (ts, hs)) = (self.shape, self.strides);
        macro_rules! view {
            ($v:expr) => {
                HeadsMut::with_strides(&mut $v[self.front..], t, h, d, ts, hs).unwrap()
            };
        }
        match &mut self.store {
            Store::F32(v) => TensorMut::from(view!(v)),
            Store::Bf16(v) => TensorMut::from(view!(v)),
            Store::F16(v) => TensorMut::from(view!(v)),
            Store::U8(v) => TensorMut::from((view!(v), params)),
            Store::I8(v) => TensorMut::from((view!(v), params)),
        }
    }

    fn all_bits(&self) -> Vec<u32> {
        match &self.store {
            Store::F32(v) => v.iter().map(|v| v.to_bits()).collect(),
            Store::Bf16(v) => v.iter().map(|v| u32::from(v.to_bits())).collect(),
            Store::F16(v) => v.iter().map(|v| u32::from(v.to_bits())).collect(),
            Store::U8(v) => v.iter().map(|&v| u32::from(v)).collect(),
            Store::I8(v) => v.iter().map(|&v| u32::from(v as u8)).collect(),
        }
    }

    /// Which of all elements belong to the tensor, in its order.
    fn places(&self) -> Vec<usize> {
        let ((tokens, heads, d), (ts, hs)) = (self.shape, self.strides);
        let mut places = Vec::with_capacity(tokens * heads * d);
        for token in 0..tokens {
            for head in 0..heads {
                let first = self.front + token * ts + head * hs;
                places.extend(first..first + d);
            }
        }
        places
    }

    /// `[tokens, heads, head_dim]`, and everything else.
    pub fn bits(&self) -> (Vec<u32>, Vec<u32>) {
        let (all, places) = (self.all_bits(), self.places());
        let mut outside = vec![true; all.len()];
        places.iter().for_each(|&i| outside[i] = false);
        let between = all.iter().zip(outside).filter(|(_, outside)| *outside).map(|(v, _)| *v).collect();
        (places.into_iter().map(|i| all[i]).collect(), between)
    }
}
