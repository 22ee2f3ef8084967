//! EcoFormer of any parts, shapes, strides and sequences: never a panic; what scalar refuses every tier refuses alike; every tier of
//! this CPU does what the scalar tier does, bit for bit but for the payload of a NaN; distances and the nearest are those of a loop
//! over bits; a stream is causal attention.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use siskin::Element;
use siskin::attention::{HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{
    Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Stream,
};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, MatMut, Scratch, TensorRef, bf16, f16};

/// Numbers as they are in practice, or any bits at all, from bytes over and over.
fn fill(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<f32>> {
    let any: bool = u.ratio(1, 6)?;
    let some = u.int_in_range(1..=48)?;
    let seed = u.bytes(some.min(u.len()))?;
    if seed.is_empty() {
        return Ok(vec![0.5; len]);
    }
    let byte = |i: usize| seed[i % seed.len()].wrapping_add((i / seed.len()).wrapping_mul(0x6b) as u8);
    Ok((0..len)
        .map(|i| match any {
            true => f32::from_le_bytes([byte(4 * i), byte(4 * i + 1), byte(4 * i + 2), byte(4 * i + 3)]),
            false => f32::from(byte(i) as i8) / 32.0,
        })
        .collect())
}

/// Mostly what fits.
fn length(u: &mut Unstructured<'_>, fits: usize) -> Result<usize> {
    if u.ratio(1, 20)? { u.int_in_range(0..=2 * fits + 1) } else { Ok(fits) }
}

#[derive(Debug)]
struct Case {
    heads: usize,
    dim: usize,
    bits: usize,
    parts: [Vec<f32>; 4],
    tokens: usize,
    /// Token stride, head stride.
    strides: [Option<(usize, usize)>; 2],
    cu: Option<Vec<i32>>,
    batch: (usize, usize),
    frozen: bool,
    released: bool,
    causal: bool,
    x: Vec<f32>,
    v: Vec<f32>,
    kind: u8,
    params: (f32, i32),
    words: Vec<u64>,
    nearest: usize,
}

impl Case {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let heads = u.int_in_range(1..=3)?;
        let dim = match u.int_in_range(0..=3)? {
            0 => [16, 32, 64, 128][u.int_in_range(0..=3)?],
            _ => u.int_in_range(1..=40)?,
        };
        let m = u.int_in_range(1..=33)?;
        let bits = if u.ratio(1, 4)? { u.int_in_range(1..=256)? } else { u.int_in_range(1..=32)? };
        let mut cu = vec![0i32];
        for _ in 0..u.int_in_range(0..=3)? {
            let len = if u.ratio(1, 30)? { u.int_in_range(0..=1100)? } else { u.int_in_range(0..=70)? };
            cu.push(cu[cu.len() - 1] + len);
        }
        let tokens = cu[cu.len() - 1] as usize;
        if u.ratio(1, 12)? {
            let at = u.choose_index(cu.len())?;
            cu[at] = cu[at].wrapping_add(u.arbitrary()?);
        }
        let row = heads * dim;
        let mut strides = [None; 2];
        for s in &mut strides {
            *s = match u.int_in_range(0..=4)? {
                0..=1 => None,
                2 => Some((row + u.int_in_range(0..=2 * row)?, dim)),
                3 => Some((dim + u.int_in_range(0..=9)?, (dim + 9) * tokens.max(1))),
                // Overlapping: fine to read.
                _ => Some((u.int_in_range(0..=row)?, u.int_in_range(0..=row)?)),
            };
        }
        let lengths = [heads * m * dim, heads * m, heads * bits * m, heads];
        let mut parts = [(); 4].map(|()| vec![]);
        for (part, fits) in parts.iter_mut().zip(lengths) {
            let n = length(u, fits)?;
            *part = fill(u, n)?;
        }
        if u.arbitrary()? {
            parts[3].iter_mut().for_each(|sigma| *sigma = sigma.abs().max(1e-3));
        }
        let batch = match u.int_in_range(0..=7)? {
            0 => (u.arbitrary()?, u.arbitrary()?),
            1 => (u.arbitrary()?, 0),
            _ => (1, tokens),
        };
        Ok(Self {
            heads,
            dim,
            bits,
            parts,
            tokens,
            strides,
            cu: u.ratio(2, 3)?.then_some(cu),
            batch,
            frozen: u.arbitrary()?,
            released: u.arbitrary()?,
            causal: u.arbitrary()?,
            x: fill(u, 1 + tokens * row)?,
            v: fill(u, 1 + tokens * row)?,
            kind: u.int_in_range(0..=4)?,
            params: (f32::from(u.int_in_range(1..=255u8)?) / 1024.0, u.int_in_range(0..=255)?),
            words: (0..u.int_in_range(0..=60)?).map(|_| u.arbitrary()).collect::<Result<_>>()?,
            nearest: u.int_in_range(0..=9)?,
        })
    }

    fn sequences(&self) -> Sequences<'_> {
        match &self.cu {
            Some(cu) => Sequences::own_packed(cu),
            None => Sequences::own(self.batch.0, self.batch.1),
        }
    }

    /// Elements from the first to the last of a layout.
    fn reach(&self, strides: Option<(usize, usize)>) -> usize {
        let (token, head) = strides.unwrap_or((self.heads * self.dim, self.dim));
        if self.tokens == 0 { 0 } else { (self.tokens - 1) * token + (self.heads - 1) * head + self.dim }
    }

    fn encode(&self, isa: Isa) -> siskin::Result<(BitCodes, usize)> {
        let [anchors, centring, projection, sigma] = self.parts.clone();
        let mut hash = KernelHash::from_parts(self.heads, self.dim, anchors, centring, projection)?;
        if self.frozen {
            hash = hash.with_sigma(sigma)?;
        }
        let x: Vec<f32> = self.x.iter().copied().cycle().take(self.reach(self.strides[0])).collect();
        let (ctx, mut scratch) = (Ctx::serial()?.with_isa(isa)?, Scratch::new());
        let bandwidth = if self.frozen { Bandwidth::Frozen } else { Bandwidth::Sequence };
        let mut codes = BitCodes::with_capacity(0, 1)?;
        let x = view(&x, self, self.strides[0])?;
        let encoded = hash.encode(x, &self.sequences(), bandwidth, &mut codes, &ctx, &mut scratch)?;
        assert_eq!((codes.len(), codes.bits()), (self.heads * self.tokens, hash.bits()));
        // Bits beyond the last are 0.
        assert_eq!(BitCodes::from_words(codes.words().to_vec(), codes.bits())?, codes);
        Ok((codes, encoded.without_direction))
    }

    fn attend(&self, q: &BitCodes, k: &BitCodes, isa: Isa) -> siskin::Result<Vec<f32>> {
        let n = self.reach(self.strides[1]);
        let reals = || self.v.iter().copied().cycle().take(n);
        let floats: Vec<f32> = reals().collect();
        let bfloats: Vec<bf16> = reals().map(bf16::from_f32).collect();
        let halves: Vec<f16> = reals().map(f16::from_f32).collect();
        let unsigned: Vec<u8> = reals().map(|x| (x * 32.0) as i32 as u8).collect();
        let signed: Vec<i8> = unsigned.iter().map(|x| *x as i8).collect();
        let (scale, zero) = self.params;
        let strides = self.strides[1];
        let v = match self.kind {
            0 => TensorRef::from(view(&floats, self, strides)?),
            1 => TensorRef::from(view(&bfloats, self, strides)?),
            2 => TensorRef::from(view(&halves, self, strides)?),
            3 => TensorRef::from((view(&unsigned, self, strides)?, QuantParams::u8(scale, zero)?)),
            _ => TensorRef::from((
                view(&signed, self, strides)?,
                QuantParams::new(scale, zero - 128, Element::I8)?,
            )),
        };
        let numerator = if self.released { Numerator::Released } else { Numerator::Consistent };
        let mut attention = LinearAttention::new(self.heads, self.bits)?.numerator(numerator);
        if self.causal {
            attention = attention.causal();
        }
        let mut out = vec![7.0; n];
        let (ctx, mut scratch) = (Ctx::serial()?.with_isa(isa)?, Scratch::new());
        let (token, head) = strides.unwrap_or((self.heads * self.dim, self.dim));
        let to = HeadsMut::with_strides(&mut out, self.tokens, self.heads, self.dim, token, head)?;
        attention.forward(LinearAttentionInputs::new(q, k, v), &self.sequences(), to, &ctx, &mut scratch)?;
        let alone = self.cu.as_ref().is_some_and(|cu| cu.len() == 2);
        if self.causal && alone && self.tokens > 0 {
            // As the last query, at once.
            let mut stream = Stream::new(&attention, self.dim)?;
            stream.append(k, v)?;
            let last = (0..self.heads).flat_map(|h| q.code((h + 1) * self.tokens - 1).to_vec()).collect();
            let mut context = vec![0.0; self.heads * self.dim];
            let to = HeadsMut::new(&mut context, 1, self.heads, self.dim)?;
            stream.query(&BitCodes::from_words(last, self.bits)?, to, &ctx)?;
            for (h, context) in context.chunks(self.dim).enumerate() {
                let own = &out[(self.tokens - 1) * token + h * head..][..self.dim];
                assert!(same(own, context), "{own:?} {context:?}");
            }
        }
        Ok(out)
    }
}

fn view<'a, T: siskin::ElementType>(
    x: &'a [T],
    case: &Case,
    strides: Option<(usize, usize)>,
) -> siskin::Result<HeadsRef<'a, T>> {
    match strides {
        None => HeadsRef::new(x, case.tokens, case.heads, case.dim),
        Some((token, head)) => HeadsRef::with_strides(x, case.tokens, case.heads, case.dim, token, head),
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Some codes, and their distances and order by a loop over bits.
struct Distances {
    a: BitCodes,
    b: BitCodes,
    /// Distances of each of a to all of b.
    rows: Vec<Vec<u16>>,
}

impl Distances {
    fn new(a: &BitCodes, b: &BitCodes) -> Self {
        let some = |codes: &BitCodes, most: usize| {
            let words = codes.words()[..codes.len().min(most) * codes.bits().div_ceil(64)].to_vec();
            BitCodes::from_words(words, codes.bits()).unwrap()
        };
        let (a, b) = (some(a, 6), some(b, 100));
        let distance = |i, j| (0..a.bits()).map(|bit| u16::from(a.bit(i, bit) != b.bit(j, bit))).sum();
        let rows = (0..a.len()).map(|i| (0..b.len()).map(|j| distance(i, j)).collect()).collect();
        Self { a, b, rows }
    }

    fn check(&self, k: usize, isa: Isa) -> siskin::Result<()> {
        let (m, n) = (self.a.len(), self.b.len());
        let (ctx, mut scratch) = (Ctx::serial()?.with_isa(isa)?, Scratch::new());
        let mut distances = vec![0u16; m * n];
        self.a.hamming(&self.b, MatMut::new(&mut distances, m, n)?, &ctx, &mut scratch)?;
        assert_eq!(distances, self.rows.concat(), "{isa}");
        let (mut indices, mut nearest) = (vec![0u32; m * k], vec![0u16; m * k]);
        let to = (MatMut::new(&mut indices, m, k)?, MatMut::new(&mut nearest, m, k)?);
        let found = self.a.nearest(&self.b, to.0, to.1, &ctx, &mut scratch);
        assert_eq!(found.is_err(), k == 0);
        for (i, row) in self.rows.iter().enumerate() {
            let mut order: Vec<(u16, u32)> = row.iter().copied().zip(0..).collect();
            order.sort_unstable();
            order.resize(n.max(k), (u16::MAX, BitCodes::NONE));
            let got = nearest[i * k..][..k].iter().copied().zip(indices[i * k..][..k].iter().copied());
            assert!(got.eq(order[..k].iter().copied()), "{isa} row {i}: {:?}", &indices[i * k..][..k]);
        }
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(mut case) = Case::new(&mut Unstructured::new(data)) else { return };
    let tiers = || Isa::supported().filter(|&isa| isa != Isa::Scalar);
    let encoded = case.encode(Isa::Scalar);
    for isa in tiers() {
        assert_eq!(case.encode(isa), encoded, "{isa}: {case:?}");
    }
    // As they come, or without what is beyond the last bit.
    let each = case.bits.div_ceil(64);
    let _ = BitCodes::from_words(case.words.clone(), case.bits);
    case.words.truncate(case.words.len() / each * each);
    if case.bits % 64 > 0 {
        case.words
            .iter_mut()
            .skip(each - 1)
            .step_by(each)
            .for_each(|word| *word &= (1 << (case.bits % 64)) - 1);
    }
    let some = BitCodes::from_words(case.words.clone(), case.bits).unwrap();
    // As codes of all tokens, over and over.
    let n = case.heads * case.tokens * each;
    let all = BitCodes::from_words(
        case.words.iter().copied().chain([0; 4]).take(case.words.len() + each).cycle().take(n).collect(),
        case.bits,
    )
    .unwrap();
    let own = match &encoded {
        Ok((codes, _)) if codes.bits() == case.bits => codes,
        _ => &all,
    };
    let want = case.attend(own, &all, Isa::Scalar);
    for isa in tiers() {
        match (&want, &case.attend(own, &all, isa)) {
            (Ok(want), Ok(got)) => assert!(same(want, got), "{isa}: {case:?}\n{want:?}\n{got:?}"),
            (want, got) => assert_eq!(want, got, "{isa}: {case:?}"),
        }
    }
    let distances = Distances::new(&some, own);
    for isa in Isa::supported() {
        distances.check(case.nearest, isa).unwrap();
    }
});
