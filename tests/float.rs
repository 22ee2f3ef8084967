//! Layers that compute in floats, against the definition: one chain of fused multiply-adds an output, in the order of K,
//! then the epilogue. Bit for bit on every tier but where bfloat16 is multiplied in pairs, which has a tolerance.

mod common;

use common::{Rng, cases, in_parallel, isas, serial};
use siskin::kernels::activation::{Activation as Curve, evaluate};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16, f16};

/// A float format, as numbers that are exact in it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F32,
    Bf16,
    F16,
}
const KINDS: [Kind; 3] = [Kind::F32, Kind::Bf16, Kind::F16];

impl Kind {
    fn round(self, v: f32) -> f32 {
        match self {
            Kind::F32 => v,
            Kind::Bf16 => bf16::from_f32(v).to_f32(),
            Kind::F16 => f16::from_f32(v).to_f32(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Weights {
    Float(Kind),
    /// 8 bits, a scale for each output feature.
    Bytes,
    /// 8 bits, a scale for each group of K.
    Groups(usize),
}

#[derive(Debug, Clone, Copy)]
struct Case {
    seed: u64,
    m: usize,
    n: usize,
    k: usize,
    block: Option<(usize, usize)>,
    weights: Weights,
    x: Kind,
    y: Kind,
    residual: Option<Kind>,
    act: usize,
    packed: bool,
}

#[derive(Clone)]
struct Data {
    case: Case,
    w: Vec<f32>,
    scales: Vec<f32>,
    keep: Vec<bool>,
    bias: Vec<f32>,
    x: Vec<f32>,
    r: Vec<f32>,
}

fn floats(v: &[f32]) -> Vec<bf16> {
    v.iter().map(|&v| bf16::from_f32(v)).collect()
}

fn halves(v: &[f32]) -> Vec<f16> {
    v.iter().map(|&v| f16::from_f32(v)).collect()
}

impl Case {
    fn random(r: &mut Rng) -> Self {
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

    fn data(self) -> Data {
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

fn build<T: Weight>(w: &[T], d: &Data, ctx: &Ctx) -> Linear {
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
    fn layer(&self, ctx: &Ctx) -> Linear {
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
    fn forward(
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
            Kind::F32 => Input::F32(MatRef::new(x, m, k).unwrap(), OnTheFly::Never),
            Kind::Bf16 => Input::Bf16(MatRef::new(&bf, m, k).unwrap(), OnTheFly::Never),
            Kind::F16 => Input::F16(MatRef::new(&hf, m, k).unwrap(), OnTheFly::Never),
        };
        let mut packed = PackedActivations::new();
        let x = if self.case.packed {
            packed.pack(&x, layer.input_layout(), ctx, scratch).unwrap();
            Input::Packed(&packed)
        } else {
            x
        };
        let r = &self.r[first * n..(first + m) * n];
        let (rb, rh) = (floats(r), halves(r));
        let e = match self.case.residual {
            None => Epilogue::new(),
            Some(Kind::F32) => Epilogue::new().residual(Residual::F32(MatRef::new(r, m, n).unwrap())),
            Some(Kind::Bf16) => Epilogue::new().residual(Residual::Bf16(MatRef::new(&rb, m, n).unwrap())),
            Some(Kind::F16) => Epilogue::new().residual(Residual::F16(MatRef::new(&rh, m, n).unwrap())),
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
                Kind::F32 => [PanelLayout::F32Rows, PanelLayout::F32Lines],
                _ => [PanelLayout::Bf16Rows, PanelLayout::Bf16Pairs],
            };
            let out = layouts.map(|layout| {
                let mut to = PackedActivations::new();
                layer.forward(x, e, Output::PackedFloats(&mut to, layout), ctx, scratch).unwrap();
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
                layer.forward(x, e, Output::F32(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch).unwrap();
                y
            }
            Kind::Bf16 => {
                let mut y = vec![bf16::NAN; m * n];
                layer.forward(x, e, Output::Bf16(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch).unwrap();
                y.iter().map(|v| v.to_f32()).collect()
            }
            Kind::F16 => {
                let mut y = vec![f16::NAN; m * n];
                layer.forward(x, e, Output::F16(MatMut::new(&mut y, m, n).unwrap()), ctx, scratch).unwrap();
                y.iter().map(|v| v.to_f32()).collect()
            }
        }
    }

    /// The sum of an output before the epilogue, and the sum of the magnitudes of its terms.
    fn sum(&self, t: usize, f: usize) -> (f32, f32) {
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

    fn finish(&self, sum: f32, t: usize, f: usize) -> f32 {
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
fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { (v + 0.0).to_bits() }).collect()
}

fn pairs(layer: &Linear) -> bool {
    matches!(layer.input_layout(), PanelLayout::Bf16Rows | PanelLayout::Bf16Pairs)
}

/// Against the definition, or where pairs are multiplied within their tolerance.
fn check(d: &Data, layer: &Linear, got: &[f32], what: &str) {
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

#[test]
fn every_tier_has_the_bits_of_the_definition() {
    let mut r = Rng::new(31);
    let mut scratch = Scratch::new();
    let isas = isas("float layers");
    for _ in 0..cases(400) {
        let case = Case::random(&mut r);
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let layer = d.layer(&ctx);
            let got = d.forward(&layer, (0, case.m), &ctx, &mut scratch);
            check(&d, &layer, &got, &format!("{isa} {} {case:?}", layer.kernel(case.m)));
        }
    }
}

/// The same bits alone, in a batch, and on any number of threads, on every tier.
#[test]
fn batches_and_threads_change_nothing() {
    let mut r = Rng::new(32);
    let mut scratch = Scratch::new();
    let isas = isas("float layers in batches");
    for i in 0..cases(120) {
        let case = Case::random(&mut r);
        let d = case.data();
        for &isa in &isas {
            let ctx = serial(isa);
            let layer = d.layer(&ctx);
            let whole = d.forward(&layer, (0, case.m), &ctx, &mut scratch);
            for way in [i as usize, i as usize + 1, i as usize + 2] {
                let got =
                    in_parallel(isa, way, |ctx| d.forward(&layer, (0, case.m), ctx, &mut Scratch::new()));
                assert_eq!(bits(&got), bits(&whole), "{isa} way {way} {case:?}");
            }
            let (t, n) = (r.below(case.m), case.n);
            let alone = d.forward(&layer, (t, 1), &ctx, &mut scratch);
            assert_eq!(bits(&alone), bits(&whole[t * n..(t + 1) * n]), "{isa} token {t} alone, {case:?}");
        }
    }
}

/// Columns beyond what 16 bits can index, whose sums go on in a second part.
#[test]
fn many_columns() {
    let mut r = Rng::new(33);
    let (k, n, m) = (70_001, 5, if cases(100) < 100 { 1 } else { 3 });
    let w: Vec<f32> = (0..n * k).map(|i| if (i / 8) % 9 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
    let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
    for block in ["4x1", "1x4", "1x1", "4x2"] {
        let block: BlockShape = block.parse().unwrap();
        let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block).unwrap();
        for isa in isas("float layers of many columns") {
            let ctx = serial(isa);
            let layer = Linear::sparse(&bsr).build(&ctx).unwrap();
            let mut y = vec![0.0; m * n];
            let x_in = Input::F32(MatRef::new(&x, m, k).unwrap(), OnTheFly::Never);
            let out = Output::F32(MatMut::new(&mut y, m, n).unwrap());
            layer.forward(x_in, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
            for (i, y) in y.iter().enumerate() {
                let (t, f) = (i / n, i % n);
                let want = (0..k).fold(0f32, |acc, i| match w[f * k + i] {
                    0.0 => acc,
                    w => x[t * k + i].mul_add(w, acc),
                });
                assert_eq!(y.to_bits(), want.to_bits(), "{isa} {block} ({t}, {f})");
            }
        }
    }
}

/// From floats to an INT8 layer and back, without leaving packed activations.
#[test]
fn a_chain_through_bytes() {
    let mut r = Rng::new(34);
    let (m, k, n) = (37, 24, 40);
    let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
    let w: Vec<f32> = (0..n * k).map(|_| r.float(-0.2, 0.2)).collect();
    let back: Vec<i8> = (0..k * n).map(|_| r.below(256) as u8 as i8).collect();
    let ctx = Ctx::new().unwrap();
    let mut scratch = Scratch::new();
    let first = Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap();
    let second = Linear::dense(MatRef::new(&back, k, n).unwrap()).scales(&[0.01]).build(&ctx).unwrap();
    let p = QuantParams::u8(0.02, 128).unwrap();
    let x = Input::F32(MatRef::new(&x, m, k).unwrap(), OnTheFly::Never);
    let (mut bytes, mut packed, mut reals) =
        (vec![0u8; m * n], PackedActivations::new(), PackedActivations::new());
    first
        .forward(
            x,
            Epilogue::new(),
            Output::U8(MatMut::new(&mut bytes, m, n).unwrap(), p),
            &ctx,
            &mut scratch,
        )
        .unwrap();
    let out = Output::Packed(&mut packed, p, second.input_layout());
    first.forward(x, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let mut y = vec![0.0; m * k];
    let input = Input::U8(MatRef::new(&bytes, m, n).unwrap(), p);
    let out = Output::F32(MatMut::new(&mut y, m, k).unwrap());
    second.forward(input, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let out = Output::PackedFloats(&mut reals, first.input_layout());
    second.forward(Input::Packed(&packed), Epilogue::new(), out, &ctx, &mut scratch).unwrap();
    let mut again = vec![0.0; m * k];
    reals.unpack_f32(MatMut::new(&mut again, m, k).unwrap()).unwrap();
    assert_eq!(bits(&again), bits(&y));
}

/// What does not go together is refused, and says so.
#[test]
fn errors() {
    let ctx = Ctx::new().unwrap();
    let (f, b, s) = (vec![0.5f32; 64], vec![1u8; 64], vec![1i8; 64]);
    let p = QuantParams::u8(0.1, 0).unwrap();
    let real = Linear::dense(MatRef::new(&f, 8, 8).unwrap()).build(&ctx).unwrap();
    let bytes = Linear::dense(MatRef::new(&s, 8, 8).unwrap()).build(&ctx).unwrap();
    let mut y = vec![0.0; 64];
    let mut run = |layer: &Linear, x: Input<'_>| {
        let out = Output::F32(MatMut::new(&mut y, 8, 8).unwrap());
        layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).map_err(|e| e.to_string())
    };
    let floats = |how| Input::F32(MatRef::new(&f, 8, 8).unwrap(), how);
    run(&real, floats(OnTheFly::Never)).unwrap();
    run(&bytes, floats(OnTheFly::PerToken)).unwrap();
    assert!(run(&real, floats(OnTheFly::PerToken)).unwrap_err().contains("OnTheFly::Never"));
    assert!(run(&real, floats(OnTheFly::Fixed(p))).is_err());
    assert!(run(&real, Input::U8(MatRef::new(&b, 8, 8).unwrap(), p)).is_err());
    assert!(run(&bytes, floats(OnTheFly::Never)).unwrap_err().contains("how to quantize"));
    let mut packed = PackedActivations::new();
    packed.pack(&floats(OnTheFly::Never), PanelLayout::F32Lines, &ctx, &mut Scratch::new()).unwrap();
    run(&real, Input::Packed(&packed)).unwrap();
    assert!(run(&bytes, Input::Packed(&packed)).is_err());
    assert!(packed.unpack(MatMut::new(&mut [0; 64], 8, 8).unwrap(), &ctx).is_err());
    let mut sums = vec![0i32; 64];
    let out = Output::I32(MatMut::new(&mut sums, 8, 8).unwrap());
    assert!(real.forward(floats(OnTheFly::Never), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    let mut to = PackedActivations::new();
    let out = Output::PackedFloats(&mut to, PanelLayout::Lines);
    assert!(real.forward(floats(OnTheFly::Never), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    let out = Output::Packed(&mut to, p, PanelLayout::F32Rows);
    assert!(real.forward(floats(OnTheFly::Never), Epilogue::new(), out, &ctx, &mut Scratch::new()).is_err());
    // Groups of scales.
    let w = MatRef::new(&s, 8, 8).unwrap();
    assert!(Linear::dense(w).group_scales(4, &[0.1; 15]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(3, &[0.1; 24]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(0, &[0.1; 8]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.0; 16]).build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.1; 16]).scales(&[1.0]).build(&ctx).is_err());
    assert!(Linear::dense(w).zero_points(&[1]).weight_only().build(&ctx).is_err());
    assert!(Linear::dense(w).group_scales(4, &[0.1; 16]).build(&ctx).is_ok());
    assert!(Linear::quantize_dense_groups(MatRef::new(&f, 8, 8).unwrap(), 0).is_err());
}

fn forward_f32(layer: &Linear, x: &[f32], m: usize, ctx: &Ctx) -> Vec<f32> {
    let mut y = vec![0.0; m * layer.out_features()];
    let x = Input::F32(MatRef::new(x, m, layer.in_features()).unwrap(), OnTheFly::Never);
    let out = Output::F32(MatMut::new(&mut y, m, layer.out_features()).unwrap());
    layer.forward(x, Epilogue::new(), out, ctx, &mut Scratch::new()).unwrap();
    y
}

/// A sparse layer has the bits of the dense layer of the same matrix, and a power of two passes through.
#[test]
fn sparse_is_dense_and_powers_of_two_pass() {
    let mut r = Rng::new(35);
    for isa in isas("sparse_is_dense_and_powers_of_two_pass") {
        let ctx = serial(isa);
        for _ in 0..cases(60) {
            let case = Case { weights: Weights::Float(Kind::F32), x: Kind::F32, ..Case::random(&mut r) };
            let Case { m, n, k, block: Some((rows, cols)), .. } = case else { continue };
            let w: Vec<f32> = case.data().w.iter().map(|w| if w.is_finite() { *w } else { 0.5 }).collect();
            let x: Vec<f32> = (0..m * k).map(|_| r.float(-2.0, 2.0)).collect();
            let dense = Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap();
            let block = BlockShape::new(rows, cols).unwrap();
            let bsr = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), block).unwrap();
            let sparse = Linear::sparse(&bsr).build(&ctx).unwrap();
            let want = forward_f32(&dense, &x, m, &ctx);
            assert_eq!(bits(&forward_f32(&sparse, &x, m, &ctx)), bits(&want), "{isa} {case:?}");
            // Not where something is subnormal or near infinity.
            if want.iter().all(|y| *y == 0.0 || (1e-30..1e30).contains(&y.abs())) {
                let eight: Vec<f32> = x.iter().map(|x| 8.0 * x).collect();
                let want: Vec<f32> = want.iter().map(|y| 8.0 * y).collect();
                let got = forward_f32(&sparse, &eight, m, &ctx);
                let tiny = w.iter().any(|w| *w != 0.0 && w.abs() < 1e-20);
                assert!(tiny || bits(&got) == bits(&want), "{isa} {case:?}");
            }
        }
    }
}

/// A case whose numbers are exact when they are scaled, and whose output is the sums alone.
fn plain(r: &mut Rng) -> Data {
    let mut d = Case { residual: None, act: 0, y: Kind::F32, ..Case::random(r) }.data();
    let tame = |v: &mut f32| match v.abs() {
        0.0 => *v = 0.0,
        1e-3..1e3 => {}
        _ => *v = 0.5,
    };
    d.w.iter_mut().for_each(tame);
    d.x.iter_mut().for_each(tame);
    d.bias.clear();
    d
}

/// The bits of a layer's outputs.
fn all_bits(d: &Data, ctx: &Ctx, scratch: &mut Scratch) -> Vec<u32> {
    bits(&d.forward(&d.layer(ctx), (0, d.case.m), ctx, scratch))
}

/// Of every type of weights: what is stored of a matrix changes nothing, and a power of two in w or its scales passes
/// through.
#[test]
fn storage_and_powers_of_two_of_w_pass() {
    let mut r = Rng::new(42);
    let mut scratch = Scratch::new();
    let isas = isas("storage_and_powers_of_two_of_w_pass");
    for _ in 0..cases(150) {
        let d = plain(&mut r);
        let dense = Data { case: Case { block: None, ..d.case }, ..d.clone() };
        let mut eight = d.clone();
        let scaled =
            if matches!(d.case.weights, Weights::Float(_)) { &mut eight.w } else { &mut eight.scales };
        scaled.iter_mut().for_each(|v| *v *= 8.0);
        for &isa in &isas {
            let ctx = serial(isa);
            let what = format!("{isa} {:?}", d.case);
            let layer = d.layer(&ctx);
            let y = d.forward(&layer, (0, d.case.m), &ctx, &mut scratch);
            // Blocks of an odd width are not multiplied in pairs, and x keeps its bits.
            if pairs(&layer) == pairs(&dense.layer(&ctx)) {
                assert!(all_bits(&dense, &ctx, &mut scratch) == bits(&y), "dense {what}");
            }
            let want: Vec<f32> = y.iter().map(|y| 8.0 * y).collect();
            assert!(all_bits(&eight, &ctx, &mut scratch) == bits(&want), "times 8 {what}");
        }
    }
}

/// One group of scales that reaches beyond K is a scale for each row; bytes whose scale is 1 are the floats of the same
/// numbers.
#[test]
fn bytes_are_floats() {
    let mut r = Rng::new(43);
    let mut scratch = Scratch::new();
    let isas = isas("bytes_are_floats");
    for _ in 0..cases(80) {
        let mut d = plain(&mut r);
        (d.case.weights, d.scales) = (Weights::Bytes, (0..d.case.n).map(|_| r.float(0.01, 0.1)).collect());
        d.w.iter_mut().filter(|w| **w != 0.0).for_each(|w| *w = (1 + r.below(127)) as f32 * w.signum());
        let size = d.case.k.next_multiple_of(4) + 4 * r.below(3);
        let with = |weights, scales: &[f32]| Data {
            case: Case { weights, ..d.case },
            scales: scales.to_vec(),
            ..d.clone()
        };
        let ones = vec![1.0; d.case.n];
        for &isa in &isas {
            let ctx = serial(isa);
            let mut run = |d: Data| all_bits(&d, &ctx, &mut scratch);
            let what = format!("{isa} {:?}", d.case);
            let rows = run(with(Weights::Bytes, &d.scales));
            assert_eq!(run(with(Weights::Groups(size), &d.scales)), rows, "a group of {size} {what}");
            let plain = run(with(Weights::Bytes, &ones));
            for kind in [Kind::F32, Kind::F16] {
                assert_eq!(run(with(Weights::Float(kind), &ones)), plain, "{kind:?} {what}");
            }
        }
    }
}

/// Of every type of weights, x and y: what one token holds does not reach another.
#[test]
fn tokens_of_every_type_do_not_meet() {
    let mut r = Rng::new(44);
    let mut scratch = Scratch::new();
    let isas = isas("tokens_of_every_type_do_not_meet");
    for _ in 0..cases(100) {
        let clean = Case::random(&mut r).data();
        let Case { m, n, k, .. } = clean.case;
        let (mut d, bad) = (clean.clone(), r.below(m));
        for x in &mut d.x[bad * k..][..k] {
            *x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-42, 6e-8][r.below(5)];
            *x = d.case.x.round(*x);
        }
        for &isa in &isas {
            let ctx = serial(isa);
            let mut want = all_bits(&clean, &ctx, &mut scratch);
            let mut got = all_bits(&d, &ctx, &mut scratch);
            for y in [&mut want, &mut got] {
                y[bad * n..][..n].fill(0);
            }
            assert_eq!(got, want, "{isa} token {bad} {:?}", clean.case);
        }
    }
}

/// What is not finite stays in its token.
#[test]
fn tokens_do_not_meet() {
    let mut r = Rng::new(36);
    let (m, n, k) = (37, 70, 50);
    for isa in isas("tokens_do_not_meet") {
        let ctx = serial(isa);
        for block in ["dense", "4x1", "1x4", "4x4", "1x1"] {
            let w: Vec<f32> =
                (0..n * k).map(|i| if i / 4 % 3 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
            let w: Vec<bf16> = floats(&w);
            let w = MatRef::new(&w, n, k).unwrap();
            let layer = match block.parse::<BlockShape>() {
                Ok(block) => Linear::sparse(&Bsr::from_dense(w, block).unwrap()).build(&ctx).unwrap(),
                Err(_) => Linear::dense(w).build(&ctx).unwrap(),
            };
            let mut x: Vec<f32> = (0..m * k).map(|_| r.float(-2.0, 2.0)).collect();
            let clean = forward_f32(&layer, &x, m, &ctx);
            let bad = r.below(m);
            for (i, v) in
                [f32::NAN, f32::INFINITY, 1e-42, f32::NEG_INFINITY].into_iter().cycle().take(k).enumerate()
            {
                x[bad * k + i] = v;
            }
            let got = forward_f32(&layer, &x, m, &ctx);
            for t in (0..m).filter(|&t| t != bad) {
                assert_eq!(got[t * n..][..n], clean[t * n..][..n], "{isa} {block} token {t}");
            }
            assert!(got[bad * n..][..n].iter().any(|y| y.is_nan()), "{isa} {block}");
        }
    }
}

/// f16 quantized on the fly is its f32 quantized on the fly.
#[test]
fn halves_are_quantized_as_floats() {
    let mut r = Rng::new(37);
    let (m, n, k) = (19, 33, 41);
    let w = r.signed(n * k);
    let x: Vec<f16> = (0..m * k)
        .map(|_| f16::from_f32([r.float(-9.0, 9.0), 6e-8, -65504.0, 0.0, 1e-5][r.below(30).min(4)]))
        .collect();
    let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    for isa in isas("halves_are_quantized_as_floats") {
        let ctx = serial(isa);
        let layer = Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap();
        let run = |x: Input<'_>| {
            let mut y = vec![0i32; m * n];
            let out = Output::I32(MatMut::new(&mut y, m, n).unwrap());
            layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
            y
        };
        for how in [OnTheFly::PerToken, OnTheFly::Fixed(QuantParams::u8(0.1, 100).unwrap())] {
            let of_halves = run(Input::F16(MatRef::new(&x, m, k).unwrap(), how));
            assert_eq!(of_halves, run(Input::F32(MatRef::new(&wide, m, k).unwrap(), how)), "{isa}");
        }
    }
}

/// An odd number of features leaves half a pair, where a call before may have left a NaN.
#[test]
fn half_pairs_are_zero() {
    let mut r = Rng::new(38);
    let (m, k, n) = (5, 7, 33);
    for isa in isas("half_pairs_are_zero") {
        let ctx = serial(isa);
        let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
        let x = Input::F32(MatRef::new(&x, m, k).unwrap(), OnTheFly::Never);
        let w = floats(&(0..n * k).map(|_| r.float(-1.0, 1.0)).collect::<Vec<_>>());
        let back = floats(&(0..k * n).map(|_| r.float(-1.0, 1.0)).collect::<Vec<_>>());
        let nan = vec![f32::NAN; m * 40];
        for block in ["dense", "4x4", "4x1"] {
            let layer = |w: &[bf16], n, k| {
                let w = MatRef::new(w, n, k).unwrap();
                match block.parse::<BlockShape>() {
                    Ok(block) => Linear::sparse(&Bsr::from_dense(w, block).unwrap()).build(&ctx).unwrap(),
                    Err(_) => Linear::dense(w).build(&ctx).unwrap(),
                }
            };
            let (first, second) = (layer(&w, n, k), layer(&back, k, n));
            let (mut packed, mut scratch) = (PackedActivations::new(), Scratch::new());
            let nan = Input::F32(MatRef::new(&nan, m, 40).unwrap(), OnTheFly::Never);
            packed.pack(&nan, second.input_layout(), &ctx, &mut scratch).unwrap();
            let out = Output::PackedFloats(&mut packed, second.input_layout());
            first.forward(x, Epilogue::new(), out, &ctx, &mut scratch).unwrap();
            let mut y = vec![0.0; m * k];
            let out = Output::F32(MatMut::new(&mut y, m, k).unwrap());
            second.forward(Input::Packed(&packed), Epilogue::new(), out, &ctx, &mut scratch).unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{isa} {block}");
        }
    }
}

/// From every kind of layer into every layout, through the panels that the two have in common or not.
#[test]
fn every_layer_fills_every_layout() {
    use PanelLayout::*;
    let mut r = Rng::new(39);
    let p = QuantParams::u8(0.05, 120).unwrap();
    for isa in isas("every_layer_fills_every_layout") {
        for _ in 0..cases(40) {
            let (m, n, k) = (1 + r.below(100), 1 + r.below(140), 1 + r.below(40));
            let w: Vec<f32> =
                (0..n * k).map(|i| if i / 4 % 2 == 0 { r.float(-1.0, 1.0) } else { 0.0 }).collect();
            let w = MatRef::new(&w, n, k).unwrap();
            let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
            let x = MatRef::new(&x, m, k).unwrap();
            let block = BlockShape::new([4, 1, 4, 3][r.below(4)], [1, 4, 4, 2][r.below(4)]).unwrap();
            let bsr = Bsr::from_dense(w, block).unwrap();
            let way = r.below(20);
            in_parallel(isa, way, |ctx| {
                let layers = [
                    (Linear::dense(w).build(ctx).unwrap(), OnTheFly::Never),
                    (Linear::sparse(&bsr).build(ctx).unwrap(), OnTheFly::Never),
                    (Linear::sparse(&bsr.map(|_, v| bf16::from_f32(v))).build(ctx).unwrap(), OnTheFly::Never),
                    (Linear::quantize_dense(w).unwrap().build(ctx).unwrap(), OnTheFly::PerToken),
                    (Linear::quantize_sparse(&bsr).unwrap().build(ctx).unwrap(), OnTheFly::PerToken),
                ];
                for (i, (layer, how)) in layers.iter().enumerate() {
                    let mut scratch = Scratch::new();
                    let mut call = |y: Output<'_>| {
                        layer.forward(Input::F32(x, *how), Epilogue::new(), y, ctx, &mut scratch).unwrap();
                    };
                    let what = format!("{isa} layer {i} {block} {m} x {n} x {k}");
                    let mut want = vec![0u8; m * n];
                    call(Output::U8(MatMut::new(&mut want, m, n).unwrap(), p));
                    for layout in [Rows, Lines, Quads] {
                        let mut y = PackedActivations::new();
                        call(Output::Packed(&mut y, p, layout));
                        let mut got = vec![0u8; m * n];
                        y.unpack(MatMut::new(&mut got, m, n).unwrap(), ctx).unwrap();
                        assert_eq!(got, want, "{what} {layout:?}");
                    }
                    let (mut want, mut half) = (vec![0f32; m * n], vec![bf16::ZERO; m * n]);
                    call(Output::F32(MatMut::new(&mut want, m, n).unwrap()));
                    call(Output::Bf16(MatMut::new(&mut half, m, n).unwrap()));
                    let half: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
                    for layout in [F32Rows, F32Lines, Bf16Rows, Bf16Pairs] {
                        let mut y = PackedActivations::new();
                        call(Output::PackedFloats(&mut y, layout));
                        let mut got = vec![0f32; m * n];
                        y.unpack_f32(MatMut::new(&mut got, m, n).unwrap()).unwrap();
                        let want = if matches!(layout, F32Rows | F32Lines) { &want } else { &half };
                        assert_eq!(bits(&got), bits(want), "{what} {layout:?}");
                    }
                }
            });
        }
    }
}

/// Sums of nothing are the bias.
#[test]
fn no_columns() {
    let (m, n, bias) = (3, 5, [1.0, 2.0, 3.0, 4.0, 5.0]);
    for isa in isas("no_columns") {
        let ctx = serial(isa);
        let w: MatRef<'_, f32> = MatRef::new(&[], n, 0).unwrap();
        let q: MatRef<'_, i8> = MatRef::new(&[], n, 0).unwrap();
        let bsr = Bsr::from_dense(w, BlockShape::B4X1).unwrap();
        let layers = [
            Linear::dense(w).bias(&bias).build(&ctx).unwrap(),
            Linear::sparse(&bsr).bias(&bias).build(&ctx).unwrap(),
            Linear::dense(q).bias(&bias).weight_only().build(&ctx).unwrap(),
            Linear::dense(q).bias(&bias).group_scales(4, &[1.0; 5]).build(&ctx).unwrap(),
        ];
        for layer in &layers {
            assert_eq!(forward_f32(layer, &[], m, &ctx), bias.repeat(m), "{isa}");
        }
        let layer = Linear::dense(q).bias(&bias).build(&ctx).unwrap();
        let mut y = vec![0.0; m * n];
        let x = Input::F32(MatRef::new(&[], m, 0).unwrap(), OnTheFly::PerToken);
        let out = Output::F32(MatMut::new(&mut y, m, n).unwrap());
        layer.forward(x, Epilogue::new(), out, &ctx, &mut Scratch::new()).unwrap();
        assert_eq!(y, bias.repeat(m), "{isa}");
    }
}
