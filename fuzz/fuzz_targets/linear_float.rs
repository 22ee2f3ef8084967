//! Layers that compute in floats: every tier of this CPU does what the scalar tier does, bit for bit but for the payload of a
//! NaN and, where pairs of bfloat16 are multiplied, as far as their tolerance goes.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use siskin::internal::linear::{PanelLayout, input_layout, packed_in};
use siskin::linear::{Activation, Epilogue, Linear, LinearInput, LinearOutput, PackedActivations, Weight};
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch, TensorRef, bf16, f16};

const LAYOUTS: [PanelLayout; 4] =
    [PanelLayout::F32Rows, PanelLayout::F32KMajor, PanelLayout::Bf16Rows, PanelLayout::Bf16KMajor2];

struct Case {
    /// M, K, N.
    size: (usize, usize, usize),
    block: Option<BlockShape>,
    weights: u8,
    group: usize,
    w: Vec<f32>,
    scales: Vec<f32>,
    x: Vec<f32>,
    x_type: u8,
    packed: bool,
    y_type: u8,
    residual: bool,
    activation: u8,
}

/// Numbers as they are in practice, or any bits at all, from bytes over and over.
fn fill(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<f32>> {
    let any: bool = u.ratio(1, 4)?;
    let some = u.int_in_range(1..=48)?;
    let seed = u.bytes(some.min(u.len()))?;
    if seed.is_empty() {
        return Ok(vec![0.0; len]);
    }
    let byte = |i: usize| seed[i % seed.len()].wrapping_add((i / seed.len()).wrapping_mul(0x6b) as u8);
    Ok((0..len)
        .map(|i| match any {
            true => f32::from_le_bytes([byte(4 * i), byte(4 * i + 1), byte(4 * i + 2), byte(4 * i + 3)]),
            false => f32::from(byte(i) as i8) / 16.0,
        })
        .collect())
}

impl Case {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let (m, k, n) = (u.int_in_range(0..=70)?, u.int_in_range(0..=90)?, u.int_in_range(0..=140)?);
        let block = match u.int_in_range(0..=9)? {
            0..=1 => None,
            2 => Some((4, 1)),
            3 => Some((1, 4)),
            4 => Some((4, 4)),
            5 => Some((16, 1)),
            6 => Some((1, 16)),
            _ => Some((u.int_in_range(1..=40)?, u.int_in_range(1..=40)?)),
        };
        let mut w = fill(u, n * k)?;
        // A pattern of blocks that are left out.
        let pattern = u.arbitrary::<u64>()?;
        let (rows, cols) = block.unwrap_or((1, 1));
        for (i, w) in w.iter_mut().enumerate() {
            if pattern >> ((i / k / rows * 7 + i % k / cols) % 64) & 1 == 0 {
                *w = 0.0;
            }
        }
        let group = [0, 0, 4, 32, 64][u.int_in_range(0..=4)?];
        let groups = if group > 0 { k.div_ceil(group).max(1) } else { 1 };
        Ok(Self {
            size: (m, k, n),
            block: block.map(|(rows, cols)| BlockShape::new(rows, cols).unwrap()),
            weights: u.arbitrary()?,
            group,
            w,
            scales: fill(u, n * groups)?.into_iter().map(|s| s.abs().max(1e-3).min(1e3)).collect(),
            x: fill(u, m * k)?,
            x_type: u.arbitrary()?,
            packed: u.arbitrary()?,
            y_type: u.arbitrary()?,
            residual: u.arbitrary()?,
            activation: u.arbitrary()?,
        })
    }

    fn float<T: Weight>(&self, ctx: &Ctx, of: impl Fn(f32) -> T) -> siskin::Result<Linear> {
        let (_, k, n) = self.size;
        let w: Vec<T> = self.w.iter().map(|&v| of(v)).collect();
        let w = MatRef::new(&w, n, k)?;
        match self.block {
            None => Linear::dense(w).build(ctx),
            Some(block) => Linear::sparse(&Bsr::from_dense(w, block)?).build(ctx),
        }
    }

    fn layer(&self, ctx: &Ctx) -> siskin::Result<Linear> {
        let (_, k, n) = self.size;
        match self.weights % 4 {
            0 => return self.float(ctx, |v| v),
            1 => return self.float(ctx, bf16::from_f32),
            2 => return self.float(ctx, f16::from_f32),
            _ => {}
        }
        let w: Vec<i8> = self.w.iter().map(|&v| v as i8).collect();
        let (w, bsr) = (MatRef::new(&w, n, k)?, &mut None);
        let builder = match self.block {
            None => Linear::dense(w),
            Some(block) => Linear::sparse(bsr.insert(Bsr::from_dense(w, block)?)),
        };
        match self.group {
            0 => builder.scales(&self.scales).weight_only().build(ctx),
            size => builder.group_scales(size, &self.scales).build(ctx),
        }
    }

    /// The output, and whether pairs were multiplied.
    fn run(&self, isa: Isa) -> siskin::Result<(Vec<f32>, bool)> {
        let ctx = Ctx::serial()?.with_isa(isa)?;
        let (m, k, n) = self.size;
        let layer = self.layer(&ctx)?;
        let mut scratch = Scratch::new();
        let (xb, xh): (Vec<bf16>, Vec<f16>) =
            self.x.iter().map(|&v| (bf16::from_f32(v), f16::from_f32(v))).unzip();
        let x = match self.x_type % 3 {
            0 => LinearInput::from(MatRef::new(&self.x, m, k)?),
            1 => LinearInput::from(MatRef::new(&xb, m, k)?),
            _ => LinearInput::from(MatRef::new(&xh, m, k)?),
        };
        let mut packed = PackedActivations::new();
        let x = if self.packed {
            layer.pack(x, &mut packed, &ctx, &mut scratch)?;
            LinearInput::from(&packed)
        } else {
            x
        };
        let other: Vec<f16> = (0..m * n).map(|i| f16::from_f32((i % 37) as f32 / 16.0)).collect();
        let epilogue = Epilogue::new().activation(match self.activation % 5 {
            0 => Activation::Identity,
            1 => Activation::Relu,
            2 => Activation::Gelu,
            3 => Activation::Silu,
            _ => Activation::Clamp { low: -0.5, high: 2.5 },
        });
        let epilogue = match self.residual {
            true => epilogue.residual(TensorRef::from(MatRef::new(&other, m, n)?)),
            false => epilogue,
        };
        let mut call = |y: LinearOutput<'_>| layer.forward(x, epilogue, y, &ctx, &mut scratch);
        let mut y = vec![0f32; m * n];
        match self.y_type % 7 {
            0 => call(LinearOutput::from(MatMut::new(&mut y, m, n)?))?,
            1 => {
                let mut half = vec![bf16::ZERO; m * n];
                call(LinearOutput::from(MatMut::new(&mut half, m, n)?))?;
                y = half.iter().map(|v| v.to_f32()).collect();
            }
            2 => {
                let mut half = vec![f16::ZERO; m * n];
                call(LinearOutput::from(MatMut::new(&mut half, m, n)?))?;
                y = half.iter().map(|v| v.to_f32()).collect();
            }
            i => {
                let mut to = PackedActivations::new();
                call(packed_in(&mut to, None, LAYOUTS[usize::from(i) - 3]))?;
                to.unpack_f32(MatMut::new(&mut y, m, n)?)?;
            }
        }
        let pairs = matches!(input_layout(&layer), PanelLayout::Bf16Rows | PanelLayout::Bf16KMajor2);
        Ok((y, pairs))
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = Case::new(&mut Unstructured::new(data)) else { return };
    let (want, _) = case.run(Isa::Scalar).expect("a valid case");
    // |x| * |w| of a whole row is at most this.
    let most = |v: &[f32]| v.iter().fold(0f32, |most, v| most.max(v.abs()));
    let reach = most(&case.x) * most(&case.w) * case.size.1 as f32 * most(&case.scales).max(1.0);
    for isa in Isa::supported().filter(|&isa| isa != Isa::Scalar) {
        let (got, pairs) = case.run(isa).expect("a valid case");
        assert_eq!(want.len(), got.len());
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            let same = want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan() || *want == *got;
            // Beyond what a float holds a tolerance means nothing; pairs take subnormals for zero, and a half has steps of 6e-8.
            let near =
                pairs && (!(reach < 1e30) || (want - got).abs() <= reach / 128.0 + want.abs() / 64.0 + 1e-6);
            assert!(same || near, "{isa}: element {i}: {got}, scalar {want}");
        }
    }
});
