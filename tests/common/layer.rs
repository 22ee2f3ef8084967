//! A layer and a call of it, made from a seed, and what must come out: i64 sums, and the epilogue as its documentation
//! has it, one f32 operation a step.
#![allow(dead_code, reason = "each test uses its own part")]

use crate::common::Rng;
use siskin::Element;
use siskin::TensorRef;
use siskin::internal::kernels::activation::{Curve, evaluate};
use siskin::internal::linear::{PanelLayout, layout as layout_of, pack_in, packed_in};
use siskin::linear::InputQuantization::PerToken;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, MatMut, MatRef, Scratch, bf16};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum In {
    U8,
    I8,
    F32PerToken,
    Bf16PerToken,
    F32Fixed,
    Bf16Fixed,
    Packed(PanelLayout),
    PackedPerToken(PanelLayout),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum To {
    I32,
    F32,
    Bf16,
    U8,
    I8,
    Packed(PanelLayout),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Res {
    None,
    F32,
    Bf16,
    U8,
    I8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    Identity,
    Relu,
    Clamp,
    Gelu,
    GeluTanh,
    Silu,
    TableGelu,
    TableGeluTanh,
    TableSilu,
    TableNegate,
}

use PanelLayout::{KMajor, KMajor4, Rows};
pub const INS: [In; 12] = [
    In::U8,
    In::I8,
    In::F32PerToken,
    In::Bf16PerToken,
    In::F32Fixed,
    In::Bf16Fixed,
    In::Packed(Rows),
    In::Packed(KMajor),
    In::Packed(KMajor4),
    In::PackedPerToken(Rows),
    In::PackedPerToken(KMajor),
    In::PackedPerToken(KMajor4),
];
pub const TOS: [To; 8] =
    [To::I32, To::F32, To::Bf16, To::U8, To::I8, To::Packed(Rows), To::Packed(KMajor), To::Packed(KMajor4)];
pub const RESIDUALS: [Res; 5] = [Res::None, Res::F32, Res::Bf16, Res::U8, Res::I8];
pub const ACTS: [Act; 10] = [
    Act::Identity,
    Act::Relu,
    Act::Clamp,
    Act::Gelu,
    Act::GeluTanh,
    Act::Silu,
    Act::TableGelu,
    Act::TableGeluTanh,
    Act::TableSilu,
    Act::TableNegate,
];

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub seed: u64,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub block: Option<(usize, usize)>,
    pub weight_zeros: bool,
    pub input: In,
    pub to: To,
    pub residual: Res,
    pub act: Act,
}

/// Everything a call reads, in memory.
pub struct Data {
    pub case: Case,
    pub w: Vec<i8>,
    pub w_scale: Vec<f32>,
    pub w_zero: Vec<i32>,
    pub bias: Vec<f32>,
    /// Elements from a row of x to the next; of y and the residual.
    pub x_stride: usize,
    pub y_stride: usize,
    pub x_bytes: Vec<u8>,
    pub x_signed: Vec<i8>,
    pub x_f32: Vec<f32>,
    pub x_bf16: Vec<bf16>,
    pub x_u8_params: QuantParams,
    pub x_i8_params: QuantParams,
    pub r_f32: Vec<f32>,
    pub r_bf16: Vec<bf16>,
    pub r_bytes: Vec<u8>,
    pub r_signed: Vec<i8>,
    pub r_u8_params: QuantParams,
    pub r_i8_params: QuantParams,
    pub y_params: QuantParams,
    pub table: Option<ByteTable>,
    pub clamp: (f32, f32),
}

impl Case {
    /// Without the combinations that are refused.
    pub fn valid(mut self) -> Self {
        let bytes = matches!(self.to, To::U8 | To::I8 | To::Packed(_));
        if self.to == To::I32 {
            (self.residual, self.act) = (Res::None, Act::Identity);
        }
        if !bytes
            && matches!(self.act, Act::TableGelu | Act::TableGeluTanh | Act::TableSilu | Act::TableNegate)
        {
            self.act = Act::Silu;
        }
        self.weight_zeros &= self.block.is_none();
        self
    }

    pub fn data(self) -> Data {
        let Case { m, n, k, .. } = self;
        let mut r = Rng::new(self.seed);
        let density = [2, 4, 10][r.below(3)];
        let mut w = r.signed(n * k);
        if let Some((br, bc)) = self.block {
            // Whole blocks of zeros, and a few zeros inside blocks.
            let across = k.div_ceil(bc).max(1);
            let keep: Vec<bool> = (0..n.div_ceil(br) * across).map(|_| r.below(density) == 0).collect();
            for (i, w) in w.iter_mut().enumerate() {
                if !keep[i / k / br * across + i % k / bc] {
                    *w = 0;
                }
            }
        }
        let x_scale = r.float(0.005, 0.1);
        let w_scale: Vec<f32> = match r.below(3) {
            0 => vec![],
            1 => vec![r.float(0.005, 0.1)],
            _ => (0..n).map(|_| r.float(0.005, 0.1)).collect(),
        };
        let typical = x_scale * w_scale.first().copied().unwrap_or(1.0) * 5000.0 * (k.max(1) as f32).sqrt();
        let typical = typical.max(1e-3);
        let bias =
            if r.below(3) == 0 { vec![] } else { (0..n).map(|_| r.float(-typical, typical) / 4.0).collect() };
        let w_zero = match (self.weight_zeros, r.below(2)) {
            (false, _) => vec![],
            (true, 0) => vec![r.below(256) as i32 - 128],
            (true, _) => (0..n).map(|_| r.below(256) as i32 - 128).collect(),
        };
        let (x_stride, y_stride) = (k + r.below(3) * r.below(9), n + r.below(3) * r.below(9));
        let zero = [0, 255, 128, r.below(256)][r.below(4)] as i32;
        let signed = self.to == To::I8 || (matches!(self.to, To::Packed(_)) && r.below(2) == 0);
        let dtype = if signed { Element::I8 } else { Element::U8 };
        let params = |r: &mut Rng, step: f32| {
            QuantParams::new(
                step * r.float(0.5, 2.0),
                r.below(256) as i32 + dtype.quantized_range().unwrap().0,
                dtype,
            )
            .unwrap()
        };
        let y_params = params(&mut r, typical / 64.0);
        let before = QuantParams::u8(typical / 64.0, 100).unwrap();
        let before = if r.below(2) == 0 { before } else { params(&mut r, typical / 64.0) };
        let table = match self.act {
            Act::TableGelu => Some(gelu_table(before, y_params)),
            Act::TableGeluTanh => Some(gelu_tanh_table(before, y_params)),
            Act::TableSilu => Some(silu_table(before, y_params)),
            Act::TableNegate => Some(ByteTable::new(before, y_params, |v| -v)),
            _ => None,
        };
        let low = r.float(-typical, typical);
        let clamp = match r.below(4) {
            0 => (low, low),
            1 => (f32::NEG_INFINITY, low),
            _ => (low, low + r.float(0.0, typical)),
        };
        let xs = m * x_stride;
        let rs = m * y_stride;
        let floats = |r: &mut Rng, n: usize, most: f32| -> Vec<f32> {
            let special = r.below(3) == 0;
            (0..n)
                .map(|_| match special && r.below(50) == 0 {
                    true => [0.0, -0.0, most * 20.0, -most * 20.0, 1e-30][r.below(5)],
                    false => r.float(-most, most),
                })
                .collect()
        };
        let x_f32 = floats(&mut r, xs, 100.0 * x_scale);
        let r_f32 = floats(&mut r, rs, typical);
        Data {
            case: self,
            w,
            w_scale,
            w_zero,
            bias,
            x_stride,
            y_stride,
            x_bytes: r.bytes(xs),
            x_signed: r.signed(xs),
            x_bf16: x_f32.iter().map(|&v| bf16::from_f32(v)).collect(),
            x_f32,
            x_u8_params: QuantParams::u8(x_scale, zero).unwrap(),
            x_i8_params: QuantParams::i8(x_scale, zero - 128).unwrap(),
            r_bf16: r_f32.iter().map(|&v| bf16::from_f32(v)).collect(),
            r_f32,
            r_bytes: r.bytes(rs),
            r_signed: r.signed(rs),
            r_u8_params: QuantParams::u8(typical / 100.0, zero).unwrap(),
            r_i8_params: QuantParams::i8(typical / 100.0, zero - 128).unwrap(),
            y_params,
            table,
            clamp,
        }
    }
}

fn part<T: siskin::ElementType>(
    v: &[T],
    first: usize,
    rows: usize,
    cols: usize,
    stride: usize,
) -> MatRef<'_, T> {
    let end = if rows == 0 { first * stride } else { (first + rows - 1) * stride + cols };
    MatRef::with_stride(&v[first * stride..end], rows, cols, stride).unwrap()
}

impl Data {
    pub fn layer(&self, ctx: &Ctx) -> Linear {
        self.builder(|b| b.build(ctx).unwrap())
    }

    /// The layer that `build` makes of all that is said about it.
    pub fn builder(&self, build: impl Fn(LinearBuilder<'_>) -> Linear) -> Linear {
        let Case { n, k, block, .. } = self.case;
        let dense = MatRef::new(&self.w, n, k).unwrap();
        fn of<'a>(data: &'a Data, layer: LinearBuilder<'a>) -> LinearBuilder<'a> {
            let how = match data.case.input {
                In::F32Fixed => InputQuantization::Static(data.x_i8_params),
                In::Bf16Fixed => InputQuantization::Static(data.x_u8_params),
                _ => PerToken,
            };
            layer.scales(&data.w_scale).bias(&data.bias).input_quantization(how)
        }
        match block {
            None => build(of(self, Linear::dense(dense).zero_points(&self.w_zero))),
            Some((r, c)) => {
                let w = Bsr::from_dense(dense, BlockShape::new(r, c).unwrap()).unwrap();
                build(of(self, Linear::sparse(&w)))
            }
        }
    }

    pub fn input<'a>(
        &'a self,
        first: usize,
        m: usize,
        packed: &'a mut PackedActivations,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> LinearInput<'a> {
        let (k, s) = (self.case.k, self.x_stride);
        let u8s = LinearInput::from((part(&self.x_bytes, first, m, k, s), self.x_u8_params));
        let f32s = part(&self.x_f32, first, m, k, s);
        let bf16s = part(&self.x_bf16, first, m, k, s);
        match self.case.input {
            In::U8 => u8s,
            In::I8 => LinearInput::from((part(&self.x_signed, first, m, k, s), self.x_i8_params)),
            In::F32PerToken => LinearInput::from(f32s),
            In::Bf16PerToken => LinearInput::from(bf16s),
            In::F32Fixed => LinearInput::from(f32s),
            In::Bf16Fixed => LinearInput::from(bf16s),
            In::Packed(layout) => {
                pack_in(packed, u8s, (layout, PerToken), ctx, scratch).unwrap();
                LinearInput::from(&*packed)
            }
            In::PackedPerToken(layout) => {
                pack_in(packed, f32s, (layout, PerToken), ctx, scratch).unwrap();
                LinearInput::from(&*packed)
            }
        }
    }

    pub fn epilogue(&self, first: usize, m: usize) -> Epilogue<'_> {
        let (n, s) = (self.case.n, self.y_stride);
        let e = Epilogue::new();
        let e = match self.case.residual {
            Res::None => e,
            Res::F32 => e.residual(TensorRef::from(part(&self.r_f32, first, m, n, s))),
            Res::Bf16 => e.residual(TensorRef::from(part(&self.r_bf16, first, m, n, s))),
            Res::U8 => e.residual(TensorRef::from((part(&self.r_bytes, first, m, n, s), self.r_u8_params))),
            Res::I8 => e.residual(TensorRef::from((part(&self.r_signed, first, m, n, s), self.r_i8_params))),
        };
        e.activation(match (self.case.act, &self.table) {
            (_, Some(table)) => Activation::Table(table),
            (Act::Relu, _) => Activation::Relu,
            (Act::Clamp, _) => Activation::Clamp { low: self.clamp.0, high: self.clamp.1 },
            (Act::Gelu, _) => Activation::Gelu,
            (Act::GeluTanh, _) => Activation::GeluTanh,
            (Act::Silu, _) => Activation::Silu,
            _ => Activation::Identity,
        })
    }

    /// Rows `first ..` through the layer, as bits; asserts that the padding of y survives.
    pub fn forward(
        &self,
        layer: &Linear,
        (first, m): (usize, usize),
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let (mut packed, n, stride) = (PackedActivations::new(), self.case.n, self.y_stride);
        let x = self.input(first, m, &mut packed, ctx, scratch);
        let e = self.epilogue(first, m);
        let p = self.y_params;
        macro_rules! rows {
            (@view $view:ident) => { LinearOutput::from($view) };
            (@view $view:ident, $p:ident) => { LinearOutput::from(($view, $p)) };
            ([$($p:ident)?], $poison:expr, $bits:expr) => {{
                let mut y = vec![$poison; m * stride];
                let view = MatMut::with_stride(&mut y, m, n, stride).unwrap();
                let view = rows!(@view view $(, $p)?);
                layer.forward(x, e, view, ctx, scratch).unwrap();
                let bits = $bits;
                let mut out = Vec::new();
                for row in y.chunks(stride.max(1)).take(m) {
                    out.extend(row[..n].iter().map(|&v| bits(v)));
                    let poison = bits($poison);
                    assert!(row[n..].iter().all(|&v| bits(v) == poison), "the padding of y was written");
                }
                out
            }};
        }
        match self.case.to {
            To::I32 => rows!([], 0x5a5a_5a5ai32, |v: i32| v as u32),
            To::F32 => rows!([], f32::NAN, |v: f32| v.to_bits()),
            To::Bf16 => rows!([], bf16::NAN, |v: bf16| u32::from(v.to_bits())),
            To::U8 => rows!([p], 0xa5u8, u32::from),
            To::I8 => rows!([p], 0x5ai8, |v: i8| u32::from(v as u8)),
            To::Packed(layout) => {
                let mut y = PackedActivations::new();
                layer.forward(x, e, packed_in(&mut y, Some(p), layout), ctx, scratch).unwrap();
                assert_eq!((y.tokens(), y.features(), layout_of(&y)), (m, n, layout));
                let mut back = vec![0u8; m * n];
                y.unpack(MatMut::new(&mut back, m, n).unwrap(), ctx).unwrap();
                back.into_iter().map(u32::from).collect()
            }
        }
    }

    /// A token's unsigned bytes, their scale and zero point.
    fn token(&self, t: usize) -> (Vec<i64>, f32, i64) {
        let (k, s) = (self.case.k, self.x_stride);
        let range = t * s..t * s + k;
        let fixed = |x: &[f32], p: QuantParams| {
            let min = p.range().0;
            let q = x.iter().map(|&v| i64::from(p.quantize(v) - min)).collect();
            (q, p.scale(), i64::from(p.zero_point() - min))
        };
        let own = |x: &[f32]| {
            let (low, high) = x.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
            fixed(x, QuantParams::from_range_asymmetric(low, high, Element::U8).unwrap())
        };
        let wide = || self.x_bf16[range.clone()].iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        match self.case.input {
            In::U8 | In::Packed(_) => {
                let q = self.x_bytes[range].iter().map(|&b| i64::from(b)).collect();
                (q, self.x_u8_params.scale(), i64::from(self.x_u8_params.zero_point()))
            }
            In::I8 => {
                let q = self.x_signed[range].iter().map(|&b| i64::from(b)).collect();
                (q, self.x_i8_params.scale(), i64::from(self.x_i8_params.zero_point()))
            }
            In::F32PerToken | In::PackedPerToken(_) => own(&self.x_f32[range]),
            In::Bf16PerToken => own(&wide()),
            In::F32Fixed => fixed(&self.x_f32[range], self.x_i8_params),
            In::Bf16Fixed => fixed(&wide(), self.x_u8_params),
        }
    }

    /// What must come out, as bits.
    pub fn expected(&self) -> Vec<u32> {
        let Case { m, n, k, .. } = self.case;
        let pick = |v: &[f32], i: usize, default| match v {
            [] => default,
            [one] => *one,
            many => many[i],
        };
        let mut out = Vec::with_capacity(m * n);
        for t in 0..m {
            let (x, x_scale, x_zero) = self.token(t);
            for f in 0..n {
                let zero = match &self.w_zero[..] {
                    [] => 0,
                    [one] => i64::from(*one),
                    many => i64::from(many[f]),
                };
                let w = &self.w[f * k..(f + 1) * k];
                let sum: i64 = x.iter().zip(w).map(|(x, &w)| (x - x_zero) * (i64::from(w) - zero)).sum();
                let sum = i32::try_from(sum).unwrap();
                let (scale, bias) =
                    (pick(&self.w_scale, f, 1.0), if self.bias.is_empty() { 0.0 } else { self.bias[f] });
                out.push(self.finish(sum, x_scale, scale, bias, t * self.y_stride + f));
            }
        }
        out
    }

    /// The epilogue of one sum, from the documentation of `Epilogue`.
    fn finish(&self, sum: i32, x_scale: f32, w_scale: f32, bias: f32, at: usize) -> u32 {
        let to_bytes = match (self.case.to, &self.table) {
            (To::I32, _) => return sum as u32,
            (To::F32 | To::Bf16, _) => None,
            (_, Some(table)) => Some(table.before()),
            _ => Some(self.y_params),
        };
        let by_token = matches!(self.case.input, In::F32PerToken | In::Bf16PerToken | In::PackedPerToken(_));
        let curved = matches!(self.case.act, Act::Gelu | Act::GeluTanh | Act::Silu);
        let step = to_bytes.map_or(1.0, |p| 1.0 / p.scale());
        let folded = self.case.residual == Res::None && !curved && !by_token;
        let (ahead, after) = if folded { (step, 1.0) } else { (1.0, step) };
        let mut v = (sum as f32).mul_add(x_scale * w_scale * ahead, bias * ahead);
        v = match self.case.residual {
            Res::None => v,
            Res::F32 => v + self.r_f32[at],
            Res::Bf16 => v + self.r_bf16[at].to_f32(),
            Res::U8 => v + self.r_u8_params.dequantize(self.r_bytes[at].into()),
            Res::I8 => v + self.r_i8_params.dequantize(self.r_signed[at].into()),
        };
        v = match self.case.act {
            Act::Relu => v.max(0.0),
            Act::Clamp => v.max(self.clamp.0 * ahead).min(self.clamp.1 * ahead),
            Act::Gelu => evaluate(Curve::Gelu, v),
            Act::GeluTanh => evaluate(Curve::GeluTanh, v),
            Act::Silu => evaluate(Curve::Silu, v),
            _ => v,
        };
        let Some(p) = to_bytes else {
            return match self.case.to {
                To::Bf16 => u32::from(bf16::from_f32(v).to_bits()),
                // max(-0.0, 0.0) may be either zero.
                _ if v == 0.0 && self.case.act == Act::Relu => 0,
                _ => v.to_bits(),
            };
        };
        let unsigned = (v * after).round_ties_even() + (p.zero_point() - p.range().0) as f32;
        let mut q = unsigned.clamp(0.0, 255.0) as u8;
        if let Some(table) = &self.table {
            let real = table.before().dequantize(i32::from(q) + p.range().0);
            let f = |v: f32| match self.case.act {
                Act::TableGelu => evaluate(Curve::Gelu, v),
                Act::TableGeluTanh => evaluate(Curve::GeluTanh, v),
                Act::TableSilu => evaluate(Curve::Silu, v),
                _ => -v,
            };
            q = (self.y_params.quantize(f(real)) - self.y_params.range().0) as u8;
        }
        u32::from(if self.case.to == To::I8 { q ^ 0x80 } else { q })
    }
}
