//! Attention of any shapes, strides, masks, sequences and types: never a panic; what scalar refuses every tier refuses alike;
//! every tier of this CPU does what the scalar tier does, bit for bit but for the payload of a NaN and, where pairs of bfloat16
//! are multiplied, as far as their tolerance goes.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{Ctx, Element, ElementType, Isa, MatRef, Scratch, TensorMut, TensorRef, bf16, f16};

/// How a tensor lies: token stride, head stride.
type Strides = Option<(usize, usize)>;

#[derive(Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Queries and keys of each sequence, whose numbers packed ones may lie about.
    lengths: Vec<(usize, usize)>,
    cu: Option<(Vec<i32>, Vec<i32>)>,
    key_lengths: Option<Vec<usize>>,
    positions: Option<Vec<usize>>,
    causal: bool,
    window: Option<(usize, usize)>,
    bias: Option<([usize; 4], Vec<f32>)>,
    blocks: Option<(usize, usize, u64)>,
    gates: Option<Vec<f32>>,
    clipped: Option<(f32, f32)>,
    scale: Option<f32>,
    uniform: bool,
    types: [u8; 4],
    strides: [Strides; 4],
    data: [Vec<f32>; 3],
    int8: AttentionQuantizers,
    params: [QuantParams; 4],
    /// Which of q, k and v have a scale for each token, of bytes.
    per_token: [bool; 3],
}

/// Numbers as they are in practice, or any bits at all, from bytes over and over.
fn fill(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<f32>> {
    let any: bool = u.ratio(1, 6)?;
    let some = u.int_in_range(1..=48)?;
    let seed = u.bytes(some.min(u.len()))?;
    if seed.is_empty() {
        return Ok(vec![0.0; len]);
    }
    let byte = |i: usize| seed[i % seed.len()].wrapping_add((i / seed.len()).wrapping_mul(0x6b) as u8);
    Ok((0..len)
        .map(|i| match any {
            true => f32::from_le_bytes([byte(4 * i), byte(4 * i + 1), byte(4 * i + 2), byte(4 * i + 3)]),
            false => f32::from(byte(i) as i8) / 32.0,
        })
        .collect())
}

fn some<T>(
    u: &mut Unstructured<'_>,
    f: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if u.ratio(1, 3)? { f(u).map(Some) } else { Ok(None) }
}

fn params(u: &mut Unstructured<'_>, dtype: Option<Element>) -> Result<QuantParams> {
    let scale = f32::from(u.int_in_range(1..=255u8)?) / [64.0, 2048.0, 25500.0][u.int_in_range(0..=2)?];
    let dtype = match dtype {
        Some(dtype) => dtype,
        None => [Element::U8, Element::I8][usize::from(u.arbitrary::<bool>()?)],
    };
    Ok(QuantParams::new(scale, dtype.quantized_range().unwrap().0 + i32::from(u.arbitrary::<u8>()?), dtype)
        .unwrap())
}

impl Case {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let kv_heads = u.int_in_range(1..=3)?;
        let heads = kv_heads * u.int_in_range(1..=3)?;
        let head_dim = match u.int_in_range(0..=3)? {
            0 => [32, 64, 80, 128, 256][u.int_in_range(0..=4)?],
            _ => u.int_in_range(1..=40)?,
        };
        let n = u.int_in_range(1..=4)?;
        let mut lengths = vec![];
        for _ in 0..n {
            let kv = if u.ratio(1, 6)? { u.int_in_range(0..=1200)? } else { u.int_in_range(0..=70)? };
            let q = if kv > 100 { u.int_in_range(0..=4)? } else { u.int_in_range(0..=40)? };
            lengths.push((q, kv));
        }
        let packed: bool = u.arbitrary()?;
        if !packed {
            let first = lengths[0];
            lengths.fill(first);
        }
        let cu = if packed {
            let sums = |f: fn(&(usize, usize)) -> usize| {
                let mut sums = vec![0i32];
                lengths.iter().for_each(|l| sums.push(sums.last().unwrap() + f(l) as i32));
                sums
            };
            let mut cu = (sums(|l| l.0), sums(|l| l.1));
            if u.ratio(1, 10)? {
                let at = u.choose_index(n + 1)?;
                cu.0[at] = cu.0[at].wrapping_add(u.arbitrary()?);
            }
            if u.ratio(1, 10)? {
                let at = u.choose_index(n + 1)?;
                cu.1[at] = cu.1[at].wrapping_add(u.arbitrary()?);
            }
            Some(cu)
        } else {
            None
        };
        let most = lengths.iter().fold((0, 0), |m, l| (m.0.max(l.0), m.1.max(l.1)));
        let (q_tokens, kv_tokens) = lengths.iter().fold((0, 0), |m, l| (m.0 + l.0, m.1 + l.1));
        let bytes: bool = u.ratio(1, 3)?;
        let mut types = [0; 4];
        for t in &mut types[..3] {
            *t = if bytes { 3 + u.int_in_range(0..=1u8)? } else { u.int_in_range(0..=2)? };
        }
        if u.ratio(1, 3)? {
            types = [types[0]; 4];
        }
        types[3] = u.int_in_range(0..=4)?;
        let row = heads * head_dim;
        let mut strides = [None; 4];
        for (i, s) in strides.iter_mut().enumerate() {
            let (h, tokens) = if i % 3 == 0 { (heads, q_tokens) } else { (kv_heads, kv_tokens) };
            *s = match u.int_in_range(0..=4)? {
                0..=1 => None,
                2 => Some((h * head_dim + u.int_in_range(0..=2 * row)?, head_dim)),
                3 => Some((head_dim + u.int_in_range(0..=9)?, (head_dim + 9) * tokens.max(1))),
                // Overlapping: fine to read.
                _ => Some((u.int_in_range(0..=row)?, u.int_in_range(0..=row)?)),
            };
        }
        let dtype = |t: u8| if t == 4 { Element::I8 } else { Element::U8 };
        let per_token = [u.ratio(1, 4)?, u.ratio(1, 4)?, u.ratio(1, 4)?];
        let one_step = some(u, |u| Ok(f32::from(u.int_in_range(1..=255u8)?) / 65025.0))?;
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
            cu,
            key_lengths: some(u, |u| {
                let past = usize::from(u.ratio(1, 20)?);
                lengths.iter().map(|l| u.int_in_range(0..=l.1 + past)).collect()
            })?,
            positions: some(u, |u| lengths.iter().map(|_| u.int_in_range(0..=1300)).collect())?,
            causal: u.arbitrary()?,
            window: some(u, |u| match u.arbitrary()? {
                true => Ok((u.int_in_range(0..=100)?, u.int_in_range(0..=100)?)),
                false => Ok((u.arbitrary()?, u.arbitrary()?)),
            })?,
            bias: some(u, |u| {
                let dims = [
                    if u.arbitrary()? { n } else { 1 },
                    if u.arbitrary()? { heads } else { 1 },
                    if u.arbitrary()? { most.0 } else { 1 },
                    (most.1 + 3).saturating_sub(u.int_in_range(0..=3)?),
                ];
                let mut bias = fill(u, dims.iter().product())?;
                let masked = [f32::NEG_INFINITY, f32::MIN][u.int_in_range(0..=1)?];
                let pattern: u32 = u.arbitrary()?;
                for (i, b) in bias.iter_mut().enumerate() {
                    *b = if pattern >> (i % 31) & 3 == 3 { masked } else { *b };
                }
                Ok((dims, bias))
            })?,
            blocks: some(u, |u| Ok((u.int_in_range(1..=70)?, u.int_in_range(1..=70)?, u.arbitrary()?)))?,
            gates: some(u, |u| fill(u, q_tokens * heads))?,
            clipped: some(u, |u| {
                let gamma = -f32::from(u.arbitrary::<u8>()?) / [256.0, 8192.0][u.int_in_range(0..=1)?];
                Ok((
                    gamma,
                    1.0 + f32::from(u.arbitrary::<u8>()?) / 1024.0 * f32::from(u.int_in_range(0..=1u8)?),
                ))
            })?,
            scale: some(u, |u| Ok(f32::from(u.int_in_range(1..=255u8)?) / 256.0))?,
            uniform: u.arbitrary()?,
            data: [
                fill(u, q_tokens * heads * head_dim)?,
                fill(u, kv_tokens * kv_heads * head_dim)?,
                fill(u, kv_tokens * kv_heads * head_dim)?,
            ],
            int8: AttentionQuantizers::default()
                .scores(some(u, |u| params(u, None))?)
                .weights_scale(one_step.filter(|_| !per_token[2]))
                .context(some(u, |u| params(u, None))?),
            params: [
                params(u, Some(dtype(types[0])))?,
                params(u, Some(dtype(types[1])))?,
                params(u, Some(dtype(types[2])))?,
                params(u, Some(dtype(types[3])))?,
            ],
            per_token,
            lengths,
            types,
            strides,
        })
    }

    /// Whether pairs of bfloat16 may be multiplied.
    fn pairs(&self) -> bool {
        self.types[..3] == [1; 3]
    }

    fn run(&self, isa: Isa) -> siskin::Result<(Vec<f32>, u64, u64)> {
        let (heads, kv_heads, d) = (self.heads, self.kv_heads, self.head_dim);
        let (q_tokens, kv_tokens) = self.lengths.iter().fold((0, 0), |m, l| (m.0 + l.0, m.1 + l.1));
        let mut a = Attention::new(heads, kv_heads, d)?;
        if let Some((gamma, zeta)) = self.clipped {
            a = a.softmax(Clipped::new(gamma, zeta)?);
        }
        if let Some(scale) = self.scale {
            a = a.scale(scale)?;
        }
        if self.causal {
            a = a.causal();
        }
        if let Some((left, right)) = self.window {
            a = a.window(left, right);
        }
        if self.uniform {
            a = a.empty_rows(EmptyRow::Uniform);
        }
        let sequences = match &self.cu {
            Some((q, kv)) => Sequences::Packed { q, kv },
            None => {
                let (q_len, kv_len) = self.lengths[0];
                Sequences::Batch { batch: self.lengths.len(), q_len, kv_len }
            }
        };
        let most = self.lengths.iter().fold((0, 0), |m, l| (m.0.max(l.0), m.1.max(l.1)));
        let mut call = AttentionCall::new(sequences).quantizers(self.int8);
        if let Some(lengths) = &self.key_lengths {
            call = call.key_lengths(lengths);
        }
        if let Some(positions) = &self.positions {
            call = call.positions(positions);
        }
        if let Some(([b, h, i, j], bias)) = &self.bias {
            call = call.bias(Bias::new(bias, *b, *h, *i, *j)?);
        }
        let (mut live, mut grid) = (vec![], (0, 0));
        if let Some((bq, bk, pattern)) = self.blocks {
            grid = (most.0.div_ceil(bq), most.1.div_ceil(bk));
            live.extend((0..grid.0 * grid.1).map(|i| pattern >> (i * 7 % 64) & 1 == 1));
        }
        if let Some((bq, bk, _)) = self.blocks {
            call = call.block_mask(BlockMask::new(&live, grid.0, grid.1, bq, bk)?);
        }
        if let Some(gates) = &self.gates {
            call = call.gates(MatRef::new(gates, q_tokens, heads)?);
        }
        let shapes = [(q_tokens, heads), (kv_tokens, kv_heads), (kv_tokens, kv_heads)];
        let stores: Vec<Store> =
            (0..3).map(|i| Store::new(self.types[i], &self.data[i], shapes[i], d, self.strides[i])).collect();
        // Scales that differ from token to token.
        let each: Vec<Vec<QuantParams>> = (0..3)
            .map(|i| {
                let p = self.params[i];
                let scale =
                    |token: usize| p.scale() * [1.0, 0.25, 3.0, 1e12][token % if i == 2 { 4 } else { 3 }];
                let of = |token| QuantParams::new(scale(token), p.zero_point(), p.dtype()).unwrap();
                (0..shapes[i].0).map(of).collect()
            })
            .collect();
        let [q, k, v] = [0, 1, 2].map(|i| {
            let params = match self.per_token[i] {
                true => HeadParams::PerToken(&each[i]),
                false => HeadParams::All(self.params[i]),
            };
            stores[i].input(shapes[i], d, self.strides[i], params)
        });
        let mut out = Store::new(self.types[3], &[], shapes[0], d, self.strides[3]);
        let (ctx, mut scratch) = (Ctx::serial()?.with_isa(isa)?, Scratch::new());
        let y = out.output(shapes[0], d, self.strides[3], self.params[3])?;
        let skipped = a.forward(AttentionInputs::new(q?, k?, v?), &call, y, &ctx, &mut scratch)?;
        assert!(skipped.skipped <= skipped.zeros && skipped.zeros <= skipped.pairs, "{skipped:?}");
        Ok((out.reals(), skipped.pairs, skipped.zeros))
    }
}

enum Store {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Store {
    fn new(t: u8, values: &[f32], (tokens, heads): (usize, usize), d: usize, strides: Strides) -> Self {
        let (ts, hs) = strides.unwrap_or((heads * d, d));
        let len = if tokens * heads == 0 { 0 } else { (tokens - 1) * ts + (heads - 1) * hs + d };
        let real = |i: usize| if values.is_empty() { 7.0 } else { values[i % values.len()] };
        let real = (0..len).map(real);
        match t {
            0 => Store::F32(real.collect()),
            1 => Store::Bf16(real.map(bf16::from_f32).collect()),
            2 => Store::F16(real.map(f16::from_f32).collect()),
            3 => Store::U8(real.map(|v| (v * 32.0) as i32 as u8).collect()),
            _ => Store::I8(real.map(|v| (v * 32.0) as i8).collect()),
        }
    }

    fn input<'a>(
        &'a self,
        (tokens, heads): (usize, usize),
        d: usize,
        strides: Strides,
        params: HeadParams<'a>,
    ) -> siskin::Result<TensorRef<'a>> {
        fn view<T: ElementType>(
            x: &[T],
            t: usize,
            h: usize,
            d: usize,
            s: Strides,
        ) -> siskin::Result<HeadsRef<'_, T>> {
            match s {
                None => HeadsRef::new(x, t, h, d),
                Some((ts, hs)) => HeadsRef::with_strides(x, t, h, d, ts, hs),
            }
        }
        Ok(match self {
            Store::F32(x) => TensorRef::from(view(x, tokens, heads, d, strides)?),
            Store::Bf16(x) => TensorRef::from(view(x, tokens, heads, d, strides)?),
            Store::F16(x) => TensorRef::from(view(x, tokens, heads, d, strides)?),
            Store::U8(x) => TensorRef::from((view(x, tokens, heads, d, strides)?, params)),
            Store::I8(x) => TensorRef::from((view(x, tokens, heads, d, strides)?, params)),
        })
    }

    fn output(
        &mut self,
        (tokens, heads): (usize, usize),
        d: usize,
        strides: Strides,
        params: QuantParams,
    ) -> siskin::Result<TensorMut<'_>> {
        fn view<T: ElementType>(
            x: &mut [T],
            t: usize,
            h: usize,
            d: usize,
            s: Strides,
        ) -> siskin::Result<HeadsMut<'_, T>> {
            match s {
                None => HeadsMut::new(x, t, h, d),
                Some((ts, hs)) => HeadsMut::with_strides(x, t, h, d, ts, hs),
            }
        }
        Ok(match self {
            Store::F32(x) => TensorMut::from(view(x, tokens, heads, d, strides)?),
            Store::Bf16(x) => TensorMut::from(view(x, tokens, heads, d, strides)?),
            Store::F16(x) => TensorMut::from(view(x, tokens, heads, d, strides)?),
            Store::U8(x) => TensorMut::from((view(x, tokens, heads, d, strides)?, params)),
            Store::I8(x) => TensorMut::from((view(x, tokens, heads, d, strides)?, params)),
        })
    }

    /// All of it, with what lies between.
    fn reals(&self) -> Vec<f32> {
        match self {
            Store::F32(x) => x.clone(),
            Store::Bf16(x) => x.iter().map(|v| v.to_f32()).collect(),
            Store::F16(x) => x.iter().map(|v| v.to_f32()).collect(),
            Store::U8(x) => x.iter().map(|&v| f32::from(v)).collect(),
            Store::I8(x) => x.iter().map(|&v| f32::from(v)).collect(),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = Case::new(&mut Unstructured::new(data)) else { return };
    let want = case.run(Isa::Scalar);
    // Weights are at most 1 and sum up to zeta; pairs are within 0.02 of the largest v, and of the gate times that.
    let most = |v: &[f32]| v.iter().fold(0f32, |most, v| most.max(v.abs()));
    let gate = case.gates.as_ref().map_or(1.0, |gates| most(gates));
    let (reach, sizes) = (most(&case.data[2]) * gate, most(&case.data[0]).max(most(&case.data[1])));
    let finite = case.data.iter().flatten().all(|v| v.abs() < 1e30);
    for isa in Isa::supported().filter(|&isa| isa != Isa::Scalar) {
        let got = case.run(isa);
        let (want, got) = match (&want, &got) {
            (Ok(want), Ok(got)) => (want, got),
            (Err(want), Err(got)) => {
                assert_eq!(want, got, "{isa}: {case:?}");
                continue;
            }
            _ => panic!("{isa}: {got:?}, scalar {want:?}: {case:?}"),
        };
        let pairs = case.pairs() && isa.pairs_bf16();
        assert!(pairs || (want.1, want.2) == (got.1, got.2), "{isa}: {case:?}");
        // Scores of pairs are far off where they are large, and nothing can be said of bytes that come of them.
        if pairs && (!finite || sizes > 4.0 || case.types[3] > 2) {
            continue;
        }
        for (i, (want, got)) in want.0.iter().zip(&got.0).enumerate() {
            let same = want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan();
            let near = pairs && (want - got).abs() <= 0.04 * reach + 1e-6;
            assert!(same || near, "{isa}: element {i}: {got}, scalar {want}: {case:?}");
        }
    }
});
