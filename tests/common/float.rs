//! A layer that computes in floats and a call of it, made from a seed, and what must come out: one chain of fused
//! multiply-adds an output, in the order of K, then the epilogue.
#![allow(dead_code, reason = "each test uses its own part")]

use crate::common::Rng;
use siskin::TensorRef;
use siskin::internal::kernels::activation::{Curve, evaluate};
use siskin::internal::linear::{PanelLayout, input_layout, packed_in};
use siskin::linear::*;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// A float format, as numbers that are exact in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    F32,
    Bf16,
    F16,
}
pub const KINDS: [Kind; 3] = [Kind::F32, Kind::Bf16, Kind::F16];

impl Kind {
    pub fn round(self, v: f32) -> f32 {
        match self {
            Kind::F32 => v,
            Kind::Bf16 => bf16::from_f32(v).to_f32(),
            Kind::F16 => f16::from_f32(v).to_f32(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weights {
    Float(Kind),
    /// 8 bits, a scale for each output feature.
    Bytes,
    /// 8 bits, a scale for each group of K.
    Groups(usize),
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub seed: u64,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub block: Option<(usize, usize)>,
    pub weights: Weights,
    pub x: Kind,
    pub y: Kind,
    pub residual: Option<Kind>,
    pub act: usize,
    pub packed: bool,
}

#[derive(Clone)]
pub struct Data {
    pub case: Case,
    pub w: Vec<f32>,
    pub scales: Vec<f32>,
    pub keep: Vec<bool>,
    pub bias: Vec<f32>,
    pub x: Vec<f32>,
    pub r: Vec<f32>,
}

pub fn floats(v: &[f32]) -> Vec<bf16> {
    v.iter().map(|&v| bf16::from_f32(v)).collect()
}

pub fn halves(v: &[f32]) -> Vec<f16> {
    v.iter().map(|&v| f16::from_f32(v)).collect()
}

impl Case {
    pub fn random(r: &mut Rng) -> Self {
        const BLOCKS: [(usize, usize); 12] = [
            (4, 1),
            (1, 4),
            (4, 4),
            (16, 4),
            (16, 1),
            (1, 16),
            (16, 16),
            (32, 32),
            (1, 1),
            (3, 2),
            (5, 4),
            (70, 3),
        ];
        let block = (r.below(4) > 0).then(|| BLOCKS[r.below(BLOCKS.len())]);
        let weights = match r.below(6) {
            0 => Weights::Bytes,
            1 => Weights::Groups([4, 32, 64, 128][r.below(4)]),
            i => Weights::Float(KINDS[i % 3]),
        };
        let size = |r: &mut Rng, most: usize| match r.below(3) {
            0 => r.below(4) + 1,
            _ => r.below(most) + 1,
        };
        Case {
            seed: r.next(),
            m: size(r, 80),
            n: size(r, 150),
            k: size(r, 200),
            block,
            weights,
            x: KINDS[r.below(3)],
            y: KINDS[r.below(3)],
            residual: [None, None, Some(Kind::F32), Some(Kind::Bf16), Some(Kind::F16)][r.below(5)],
            act: r.below(5),
            packed: r.below(3) == 0,
        }
    }

    /// Rows, alone or in pairs, whose K may be several blocks long, for tokens enough for a few panels.
    pub fn by_blocks_of_k(r: &mut Rng) -> Self {
        const BLOCKS: [(usize, usize); 9] =
            [(1, 1), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 4), (3, 1), (6, 1)];
        Case {
            m: [1, 7, 16, 20, 32, 33, 64, 65, 100, 130][r.below(10)],
            n: 1 + r.below(70),
            k: [250, 511, 512, 513, 700, 1300][r.below(6)] + r.below(10),
            block: Some(BLOCKS[r.below(BLOCKS.len())]),
            ..Case::random(r)
        }
    }

    pub fn data(self) -> Data {
        let Case { m, n, k, .. } = self;
        let mut r = Rng::new(self.seed);
        let special = r.below(4) == 0;
        let number = |r: &mut Rng, most: f32| match special && r.below(40) == 0 {
            true => [0.0, -0.0, 1e-40, -3e-39, f32::INFINITY, f32::NAN, 3e38, -1e-20][r.below(8)],
            false => r.float(-most, most),
        };
        let (rows, cols) = self.block.unwrap_or((1, 1));
        let across = k.div_ceil(cols);
        let density = if self.block.is_some() { [2, 4, 10][r.below(3)] } else { 1 };
        let blocks: Vec<bool> = (0..n.div_ceil(rows) * across).map(|_| r.below(density) == 0).collect();
        let keep: Vec<bool> = (0..n * k).map(|i| blocks[i / k / rows * across + i % k / cols]).collect();
        let w = (0..n * k)
            .map(|i| match (keep[i], self.weights) {
                (false, _) => 0.0,
                (true, Weights::Float(kind)) => kind.round(number(&mut r, 1.0)),
                // Never 0, so that the block is stored.
                (true, _) => f32::from((1 + r.below(127) as i8) * [1, -1][r.below(2)]),
            })
            .collect();
        let groups = match self.weights {
            Weights::Groups(size) => k.div_ceil(size),
            _ => 1,
        };
        let bytes = !matches!(self.weights, Weights::Float(_));
        Data {
            case: self,
            w,
            keep,
            scales: (0..n * groups).map(|_| if bytes { r.float(0.01, 0.1) } else { 1.0 }).collect(),
            bias: if r.below(2) == 0 { vec![] } else { (0..n).map(|_| r.float(-1.0, 1.0)).collect() },
            x: (0..m * k).map(|_| self.x.round(number(&mut r, 2.0))).collect(),
            r: (0..m * n).map(|_| self.residual.unwrap_or(Kind::F32).round(r.float(-1.0, 1.0))).collect(),
        }
    }
}

pub fn build<T: Weight>(w: &[T], d: &Data, ctx: &Ctx) -> Linear {
    let Case { n, k, block, .. } = d.case;
    let w = MatRef::new(w, n, k).unwrap();
    match block {
        None => Linear::dense(w).bias(&d.bias).build(ctx).unwrap(),
        Some((r, c)) => {
            let w = Bsr::from_dense(w, BlockShape::new(r, c).unwrap()).unwrap();
            Linear::sparse(&w).bias(&d.bias).build(ctx).unwrap()
        }
    }
}

impl Data {
    pub fn layer(&self, ctx: &Ctx) -> Linear {
        let Case { n, k, block, .. } = self.case;
        let size = match self.case.weights {
            Weights::Float(Kind::F32) => return build(&self.w, self, ctx),
            Weights::Float(Kind::Bf16) => return build(&floats(&self.w), self, ctx),
            Weights::Float(Kind::F16) => return build(&halves(&self.w), self, ctx),
            Weights::Bytes => None,
            Weights::Groups(size) => Some(size),
        };
        let q: Vec<i8> = self.w.iter().map(|&v| v as i8).collect();
        let w = MatRef::new(&q, n, k).unwrap();
        let bsr;
        let builder = match block {
            None => Linear::dense(w),
            Some((r, c)) => {
                bsr = Bsr::from_dense(w, BlockShape::new(r, c).unwrap()).unwrap();
                Linear::sparse(&bsr)
            }
        };
        match size {
            None => builder.scales(&self.scales).weight_only(),
            Some(size) => builder.group_scales(size, &self.scales),
        }
        .bias(&self.bias)
        .build(ctx)
        .unwrap()
    }

    /// Tokens `first ..` through the layer, as f32.
    pub fn forward(
        &self,
        layer: &Linear,
        (first, m): (usize, usize),
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let Case { n, k, .. } = self.case;
        let x = &self.x[first * k..(first + m) * k];
        let (bf, hf) = (floats(x), halves(x));
        let x = match self.case.x {
            Kind::F32 => LinearInput::from(MatRef::new(x, m, k).unwrap()),
            Kind::Bf16 => LinearInput::from(MatRef::new(&bf, m, k).unwrap()),
            Kind::F16 => LinearInput::from(MatRef::new(&hf, m, k).unwrap()),
        };
        let mut packed = PackedActivations::new();
        let x = if self.case.packed {
            layer.pack(x, &mut packed, ctx, scratch).unwrap();
            LinearInput::from(&packed)
        } else {
            x
        };
        let r = &self.r[first * n..(first + m) * n];
        let (rb, rh) = (floats(r), halves(r));
        let e = match self.case.residual {
            None => Epilogue::new(),
            Some(Kind::F32) => Epilogue::new().residual(TensorRef::from(MatRef::new(r, m, n).unwrap())),
            Some(Kind::Bf16) => Epilogue::new().residual(TensorRef::from(MatRef::new(&rb, m, n).unwrap())),
            Some(Kind::F16) => Epilogue::new().residual(TensorRef::from(MatRef::new(&rh, m, n).unwrap())),
        };
        let e = e.activation(
            [
                Activation::Identity,
                Activation::Relu,
                Activation::Gelu,
                Activation::Silu,
                Activation::Clamp { low: -0.5, high: 0.75 },
            ][self.case.act],
        );
        if self.case.packed && self.case.y != Kind::F16 {
            // Every layout of the element, all of which must hold the same.
            let layouts = match self.case.y {
                Kind::F32 => [PanelLayout::F32Rows, PanelLayout::F32KMajor],
                _ => [PanelLayout::Bf16Rows, PanelLayout::Bf16KMajor2],
            };
            let out = layouts.map(|layout| {
                let mut to = PackedActivations::new();
                layer.forward(x, e, packed_in(&mut to, None, layout), ctx, scratch).unwrap();
                let mut y = vec![0.0; m * n];
                to.unpack_f32(MatMut::new(&mut y, m, n).unwrap()).unwrap();
                y
            });
            assert_eq!(bits(&out[0]), bits(&out[1]), "layouts of y");
            return out[0].clone();
        }
        match self.case.y {
            Kind::F32 => {
                let mut y = vec![f32::NAN; m * n];
                layer
                    .forward(x, e, LinearOutput::from(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch)
                    .unwrap();
                y
            }
            Kind::Bf16 => {
                let mut y = vec![bf16::NAN; m * n];
                layer
                    .forward(x, e, LinearOutput::from(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch)
                    .unwrap();
                y.iter().map(|v| v.to_f32()).collect()
            }
            Kind::F16 => {
                let mut y = vec![f16::NAN; m * n];
                layer
                    .forward(x, e, LinearOutput::from(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch)
                    .unwrap();
                y.iter().map(|v| v.to_f32()).collect()
            }
        }
    }

    /// The sum of an output before the epilogue, and the sum of the magnitudes of its terms.
    pub fn sum(&self, t: usize, f: usize) -> (f32, f32) {
        let k = self.case.k;
        let (x, w, keep) = (&self.x[t * k..][..k], &self.w[f * k..][..k], &self.keep[f * k..][..k]);
        // A block is stored if any of its weights is not 0.
        let group = match self.case.weights {
            Weights::Groups(size) => size,
            _ => k,
        };
        let stored = |i: usize| match self.case.block {
            None => true,
            Some((rows, cols)) => {
                let (r, c) = (f / rows * rows, i / cols * cols);
                keep[i]
                    && (r..(r + rows).min(self.case.n))
                        .any(|r| (c..(c + cols).min(k)).any(|c| self.w[r * k + c] != 0.0))
            }
        };
        let groups = k.div_ceil(group);
        let (mut total, mut magnitude) = (0f32, 0f32);
        for g in 0..groups {
            let mut acc = 0f32;
            for i in g * group..((g + 1) * group).min(k) {
                if stored(i) {
                    acc = x[i].mul_add(w[i], acc);
                    magnitude += (x[i] * w[i]).abs();
                }
            }
            match self.case.weights {
                Weights::Groups(_) => total = acc.mul_add(self.scales[f * groups + g], total),
                _ => total = acc,
            }
        }
        (total, magnitude)
    }

    pub fn finish(&self, sum: f32, t: usize, f: usize) -> f32 {
        let bias = self.bias.get(f).copied().unwrap_or(0.0);
        let scale = if self.case.weights == Weights::Bytes { self.scales[f] } else { 1.0 };
        let mut v = sum.mul_add(scale, bias);
        if self.case.residual.is_some() {
            v += self.r[t * self.case.n + f];
        }
        let v = match self.case.act {
            0 => v,
            1 if v < 0.0 => 0.0,
            1 => v,
            2 => evaluate(Curve::Gelu, v),
            3 => evaluate(Curve::Silu, v),
            _ if v.is_nan() => v,
            _ => v.clamp(-0.5, 0.75),
        };
        self.case.y.round(v)
    }
}

/// Bits, all NaN being one: their payload depends on the order of operands. So may, through a maximum, a zero's sign.
pub fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { (v + 0.0).to_bits() }).collect()
}

pub fn pairs(layer: &Linear) -> bool {
    matches!(input_layout(layer), PanelLayout::Bf16Rows | PanelLayout::Bf16KMajor2)
}

/// Against the definition, or where pairs are multiplied within their tolerance.
pub fn check(d: &Data, layer: &Linear, got: &[f32], what: &str) {
    let Case { m, n, .. } = d.case;
    assert_eq!(got.len(), m * n);
    for t in 0..m {
        for f in 0..n {
            let (sum, magnitude) = d.sum(t, f);
            let (want, got) = (d.finish(sum, t, f), got[t * n + f]);
            if !pairs(layer) {
                assert_eq!(bits(&[got]), bits(&[want]), "{what}: ({t}, {f}): {got} != {want}");
                continue;
            }
            // Where anything is not finite, or subnormal, the instruction has its own rules.
            if !magnitude.is_finite() || !want.is_finite() || magnitude > 1e30 {
                continue;
            }
            // x is rounded to bfloat16, each step to f32 (as documented), and y to its type; an activation's slope is below 1.2.
            let rounded = if d.case.x == Kind::Bf16 { 0.0 } else { 1.0 / 512.0 };
            let sum = magnitude * (rounded + d.case.k as f32 / (1u32 << 23) as f32);
            let tolerance = 1.2 * sum + want.abs() / 127.0 + 1e-37;
            assert!((got - want).abs() <= tolerance, "{what}: ({t}, {f}): {got} is not near {want}");
        }
    }
}

/// f32 in, f32 out, no epilogue.
pub fn forward_f32(layer: &Linear, x: &[f32], m: usize, ctx: &Ctx) -> Vec<f32> {
    let mut y = vec![0.0; m * layer.out_features()];
    let x = LinearInput::from(MatRef::new(x, m, layer.in_features()).unwrap());
    let out = LinearOutput::from(MatMut::new(&mut y, m, layer.out_features()).unwrap());
    layer.forward(x, Epilogue::new(), out, ctx, &mut Scratch::new()).unwrap();
    y
}
