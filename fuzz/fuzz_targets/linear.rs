//! Every tier of this CPU does what the scalar tier does, bit for bit: the same numbers, or an error of the same kind.
//!
//! The input picks a layer (sizes, block, weights, scales, zero points, bias) and a call (tokens, types, layouts,
//! epilogue); what it does not say is zero.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use siskin::internal::linear::{PanelLayout, pack_in, packed_in};
use siskin::linear::{
    Activation, Epilogue, InputQuantization, Linear, LinearInput, LinearOutput, PackedActivations,
    gelu_table, silu_table,
};
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Error, Isa, MatMut, MatRef, Scratch, TensorRef, bf16};

const LAYOUTS: [PanelLayout; 3] = [PanelLayout::Rows, PanelLayout::KMajor, PanelLayout::KMajor4];

struct Case {
    /// M, K and N; now and then x, the residual, or the output is of another shape.
    size: (usize, usize, usize),
    wrong: u8,
    block: Option<BlockShape>,
    w: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    bias: Vec<f32>,
    x_type: u8,
    x: Vec<u8>,
    x_params: (f32, i32),
    /// Packed before the call, and in which layout.
    packed: Option<PanelLayout>,
    y_type: u8,
    y_params: (f32, i32),
    y_layout: PanelLayout,
    residual: Option<u8>,
    activation: u8,
}

/// Bytes of the input, over and over with a change each time: small inputs make whole matrices.
fn fill(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<u8>> {
    let some = u.int_in_range(1..=48)?;
    let seed = u.bytes(some.min(u.len()))?;
    if seed.is_empty() {
        return Ok(vec![0; len]);
    }
    let turn = |i: usize| (i / seed.len()).wrapping_mul(0x6b) as u8;
    Ok((0..len).map(|i| seed[i % seed.len()].wrapping_add(turn(i) & !seed[0])).collect())
}

fn scale(u: &mut Unstructured<'_>) -> Result<f32> {
    Ok(match u.int_in_range(0..=15)? {
        0 => 1e30,
        1 => 1e-30,
        2 => f32::from_bits(u.arbitrary()?),
        3 => 1.0,
        i => i as f32 * 0.003,
    })
}

fn params(u: &mut Unstructured<'_>) -> Result<(f32, i32)> {
    Ok((scale(u)?, i32::from(u.arbitrary::<u8>()?)))
}

impl Case {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let (m, k, n) = (u.int_in_range(0..=140)?, u.int_in_range(0..=90)?, u.int_in_range(0..=90)?);
        let block = match u.int_in_range(0..=11)? {
            0..=2 => None,
            3..=5 => Some((4, 1)),
            6 => Some((1, 4)),
            7 => Some((4, 4)),
            8 => Some((16, 16)),
            _ => Some((u.int_in_range(1..=40)?, u.int_in_range(1..=40)?)),
        };
        let mut w = fill(u, n * k)?;
        // A pattern of blocks that are left out.
        let pattern = u.arbitrary::<u64>()?;
        let (rows, cols) = block.unwrap_or((1, 1));
        for (i, w) in w.iter_mut().enumerate() {
            let at = (i / k / rows * 7 + i % k / cols) % 64;
            *w *= (pattern >> at & 1) as u8;
        }
        let count = |u: &mut Unstructured<'_>| Ok([0, 0, 1, n, n, n, n + 1][u.int_in_range(0..=6)?]);
        let scales = (0..count(u)?).map(|_| scale(u)).collect::<Result<_>>()?;
        let zero_points = match u.int_in_range(0..=3)? {
            0 => (0..count(u)?).map(|_| Ok(i32::from(u.arbitrary::<i8>()?))).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        let bias = (0..count(u)?).map(|_| Ok(f32::from(u.arbitrary::<i16>()?) / 64.0));
        let bias = bias.collect::<Result<_>>()?;
        Ok(Self {
            size: (m, k, n),
            wrong: u.arbitrary()?,
            block: block.map(|(rows, cols)| BlockShape::new(rows, cols).unwrap()),
            w: w.into_iter().map(|w| w as i8).collect(),
            scales,
            zero_points,
            bias,
            x_type: u.arbitrary()?,
            // Enough for floats, and for one token or feature too many.
            x: fill(u, (m + 1) * (k + 1) * 4)?,
            x_params: params(u)?,
            packed: if u.arbitrary()? { Some(*u.choose(&LAYOUTS)?) } else { None },
            y_type: u.arbitrary()?,
            y_params: params(u)?,
            y_layout: *u.choose(&LAYOUTS)?,
            residual: if u.arbitrary()? { Some(u.arbitrary()?) } else { None },
            activation: u.arbitrary()?,
        })
    }

    /// The bits of the output.
    fn run(&self, isa: Isa) -> siskin::Result<Vec<u32>> {
        let ctx = Ctx::serial()?.with_isa(isa)?;
        let (m, k, n) = self.size;
        let sparse;
        let builder = match self.block {
            None => Linear::dense(MatRef::new(&self.w, n, k)?),
            Some(block) => {
                sparse = Bsr::from_dense(MatRef::new(&self.w, n, k)?, block)?;
                Linear::sparse(&sparse)
            }
        };
        let (scale, zero) = self.x_params;
        let quantization = match self.x_type & 1 {
            0 => InputQuantization::PerToken,
            _ => InputQuantization::Static(QuantParams::u8(scale, zero)?),
        };
        let builder = builder.scales(&self.scales).zero_points(&self.zero_points).bias(&self.bias);
        let layer = builder.input_quantization(quantization).keep_sparse().build(&ctx)?;
        assert_eq!((layer.in_features(), layer.out_features()), (k, n));

        let mut scratch = Scratch::new();
        let k = if self.wrong == 1 { k + 1 } else { k };
        let floats: Vec<f32> = self.x.chunks_exact(4).map(|b| self.float([b[0], b[1], b[2], b[3]])).collect();
        let half: Vec<bf16> = floats.iter().map(|&v| bf16::from_f32(v)).collect();
        let signed: Vec<i8> = self.x.iter().map(|&b| b as i8).collect();
        let x = match self.x_type >> 1 & 3 {
            0 => LinearInput::from((MatRef::new(&self.x[..m * k], m, k)?, QuantParams::u8(scale, zero)?)),
            1 => {
                LinearInput::from((MatRef::new(&signed[..m * k], m, k)?, QuantParams::i8(scale, zero - 128)?))
            }
            2 => LinearInput::from(MatRef::new(&floats[..m * k], m, k)?),
            _ => LinearInput::from(MatRef::new(&half[..m * k], m, k)?),
        };
        let mut packed = PackedActivations::new();
        let x = match self.packed {
            None => x,
            Some(layout) => {
                pack_in(&mut packed, x, (layout, quantization), &ctx, &mut scratch)?;
                LinearInput::from(&packed)
            }
        };

        let bytes: Vec<u8> = (0..m * n).map(|i| self.x[i % self.x.len()] ^ 0x5a).collect();
        let signed: Vec<i8> = bytes.iter().map(|&b| b as i8).collect();
        let floats: Vec<f32> = bytes.iter().map(|&b| f32::from(b) - 100.5).collect();
        let half: Vec<bf16> = floats.iter().map(|&v| bf16::from_f32(v)).collect();
        let rows = if self.wrong == 2 { m.saturating_sub(1) } else { m };
        let mut epilogue = Epilogue::new();
        epilogue = match self.residual.map(|r| r & 3) {
            None => epilogue,
            Some(0) => epilogue.residual(TensorRef::from(MatRef::new(&floats[..rows * n], rows, n)?)),
            Some(1) => epilogue.residual(TensorRef::from(MatRef::new(&half[..rows * n], rows, n)?)),
            Some(2) => epilogue.residual(TensorRef::from((
                MatRef::new(&bytes[..rows * n], rows, n)?,
                QuantParams::u8(0.5, 3)?,
            ))),
            _ => epilogue.residual(TensorRef::from((
                MatRef::new(&signed[..rows * n], rows, n)?,
                QuantParams::i8(0.5, -3)?,
            ))),
        };

        let (scale, zero) = self.y_params;
        let i8s = self.y_type % 6 == 4;
        let to = if i8s { QuantParams::i8(scale, zero - 128)? } else { QuantParams::u8(scale, zero)? };
        let table = match self.activation & 8 {
            0 => gelu_table(QuantParams::u8(0.05, 128)?, to),
            _ => silu_table(to, to),
        };
        let epilogue = epilogue.activation(match self.activation & 7 {
            0 | 1 => Activation::Identity,
            2 => Activation::Relu,
            3 => Activation::Clamp { low: -0.5, high: f32::from(self.activation >> 3) - 2.0 },
            4 => Activation::Gelu,
            5 => Activation::GeluTanh,
            6 => Activation::Silu,
            _ => Activation::Table(&table),
        });

        let m = if self.wrong == 3 { m + 1 } else { m };
        let len = m * n;
        let mut call = |y: LinearOutput<'_>| layer.forward(x, epilogue, y, &ctx, &mut scratch);
        Ok(match self.y_type % 6 {
            0 => {
                let mut y = vec![0i32; len];
                call(LinearOutput::from(MatMut::new(&mut y, m, n)?))?;
                y.iter().map(|&v| v as u32).collect()
            }
            1 => {
                let mut y = vec![0f32; len];
                call(LinearOutput::from(MatMut::new(&mut y, m, n)?))?;
                // One NaN is as good as another.
                y.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
            }
            2 => {
                let mut y = vec![bf16::ZERO; len];
                call(LinearOutput::from(MatMut::new(&mut y, m, n)?))?;
                y.iter().map(|v| if v.is_nan() { bf16::NAN } else { *v }.to_bits().into()).collect()
            }
            3 => {
                let mut y = vec![0u8; len];
                call(LinearOutput::from((MatMut::new(&mut y, m, n)?, to)))?;
                y.iter().map(|&v| v.into()).collect()
            }
            4 => {
                let mut y = vec![0i8; len];
                call(LinearOutput::from((MatMut::new(&mut y, m, n)?, to)))?;
                y.iter().map(|&v| v as u32).collect()
            }
            _ => {
                let mut y = PackedActivations::new();
                call(packed_in(&mut y, Some(to), self.y_layout))?;
                let mut rows = vec![0; y.tokens() * y.features()];
                y.unpack(MatMut::new(&mut rows, y.tokens(), y.features())?, &ctx)?;
                rows.iter().map(|&v| v.into()).collect()
            }
        })
    }

    /// Any bits at all, or numbers as they are in practice.
    fn float(&self, bytes: [u8; 4]) -> f32 {
        match self.x_type >> 3 & 7 {
            0 => f32::from_le_bytes(bytes),
            _ => f32::from(i16::from_le_bytes([bytes[0], bytes[1]])) / 4096.0,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = Case::new(&mut Unstructured::new(data)) else { return };
    let want = case.run(Isa::Scalar);
    if let Err(e) = &want {
        let known = matches!(e, Error::Shape { .. } | Error::Value { .. } | Error::Unsupported { .. });
        assert!(known, "an error of another kind: {e}");
    }
    assert!(case.wrong != 1 || want.is_err(), "a wrong shape was taken");
    for isa in Isa::supported().filter(|&isa| isa != Isa::Scalar) {
        let got = case.run(isa);
        match (&want, &got) {
            (Ok(want), Ok(got)) => {
                assert_eq!(want.len(), got.len());
                let differ = want.iter().zip(got).position(|(a, b)| a != b);
                assert!(differ.is_none(), "{isa}: element {}", differ.unwrap());
            }
            (Err(want), Err(got)) => assert_eq!(want, got, "{isa}"),
            _ => panic!("{isa}: {got:?}, scalar {want:?}"),
        }
    }
});
