//! A call of attention made from a seed, and what must come out of it, computed in f64 one query at a time.
#![allow(dead_code, reason = "each test uses its own part")]

use crate::common::Rng;
use siskin::attention::*;
use siskin::quant::QuantParams;
use siskin::{Ctx, MatRef, Scratch, bf16, f16};

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

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// `[heads, tokens, head_dim]`, not `[tokens, heads, head_dim]`.
    pub heads_first: bool,
    /// Elements behind each head of a token, behind each row of those, and before all.
    pub gaps: (usize, usize, usize),
}

impl Place {
    fn random(r: &mut Rng, row: usize) -> Self {
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

    /// `params` is of all heads where it is one, else of each.
    pub fn input<'a>(&'a self, params: &'a [QuantParams]) -> Input<'a> {
        self.view(self.front, self.shape, self.strides, params)
    }

    /// Any part of the buffer.
    pub fn view<'a>(
        &'a self,
        first: usize,
        (t, h, d): (usize, usize, usize),
        (ts, hs): (usize, usize),
        params: &'a [QuantParams],
    ) -> Input<'a> {
        macro_rules! view {
            ($v:expr) => {
                HeadsRef::with_strides(&$v[first.min($v.len())..], t, h, d, ts, hs).unwrap()
            };
        }
        let params = || match params {
            [one] => HeadParams::All(*one),
            each => HeadParams::PerHead(each),
        };
        match &self.store {
            Store::F32(v) => Input::F32(view!(v)),
            Store::Bf16(v) => Input::Bf16(view!(v)),
            Store::F16(v) => Input::F16(view!(v)),
            Store::U8(v) => Input::U8(view!(v), params()),
            Store::I8(v) => Input::I8(view!(v), params()),
        }
    }

    pub fn output(&mut self, params: QuantParams) -> Output<'_> {
        let ((t, h, d), (ts, hs)) = (self.shape, self.strides);
        macro_rules! view {
            ($v:expr) => {
                HeadsMut::with_strides(&mut $v[self.front..], t, h, d, ts, hs).unwrap()
            };
        }
        match &mut self.store {
            Store::F32(v) => Output::F32(view!(v)),
            Store::Bf16(v) => Output::Bf16(view!(v)),
            Store::F16(v) => Output::F16(view!(v)),
            Store::U8(v) => Output::U8(view!(v), params),
            Store::I8(v) => Output::I8(view!(v), params),
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

#[derive(Debug, Clone)]
pub struct Case {
    pub seed: u64,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Queries and keys of each sequence.
    pub lengths: Vec<(usize, usize)>,
    /// By cumulative lengths.
    pub packed: bool,
    pub key_lengths: Option<Vec<usize>>,
    pub positions: Option<Vec<usize>>,
    pub causal: bool,
    pub window: Option<(usize, usize)>,
    /// `[batch, heads, queries, keys]`.
    pub bias: Option<[usize; 4]>,
    /// Queries and keys of a block.
    pub blocks: Option<(usize, usize)>,
    pub gates: bool,
    pub clipped: Option<(f32, f32)>,
    pub uniform: bool,
    pub scale: Option<f32>,
    /// Of q, k, v and the context.
    pub types: [Type; 4],
    pub places: [Place; 4],
    /// How far scores are apart.
    pub peak: f32,
}

#[derive(Debug, Clone)]
pub struct Data {
    pub case: Case,
    /// `[tokens, heads, head_dim]`; bytes as what they are, before parameters.
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub bias: Vec<f32>,
    pub live: Vec<bool>,
    pub gates: Vec<f32>,
    pub params: [Vec<QuantParams>; 3],
    pub int8: Int8,
    pub out: QuantParams,
}

const LENGTHS: [usize; 11] = [1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 600];

fn length(r: &mut Rng) -> usize {
    match r.below(8) {
        0..3 => LENGTHS[r.below(LENGTHS.len())],
        3 => r.below(601),
        4 => r.below(3),
        _ => r.below(70) + 1,
    }
}

fn some<T>(r: &mut Rng, one_in: usize, f: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (r.below(one_in) == 0).then(|| f(r))
}

impl Case {
    /// One sequence, next to each other, nothing masked.
    pub fn plain(seed: u64, heads: usize, head_dim: usize, q_len: usize, kv_len: usize) -> Self {
        Case {
            seed,
            heads,
            kv_heads: heads,
            head_dim,
            lengths: vec![(q_len, kv_len)],
            packed: false,
            key_lengths: None,
            positions: None,
            causal: false,
            window: None,
            bias: None,
            blocks: None,
            gates: false,
            clipped: None,
            uniform: false,
            scale: None,
            types: [Type::F32; 4],
            places: [Place::default(); 4],
            peak: 2.0,
        }
    }

    /// Anything that the library takes, of floats; see [`Case::bytes`].
    pub fn random(r: &mut Rng) -> Self {
        let kv_heads = [1, 1, 2, 3][r.below(4)];
        let heads = kv_heads * [1, 1, 2, 3, 5][r.below(5)];
        let head_dim = match r.below(3) {
            0 => [32, 64, 80, 96, 128][r.below(5)],
            1 => [1, 3, 7, 17, 33, 47, 63, 65, 79, 129, 255, 256][r.below(12)],
            _ => r.below(100) + 1,
        };
        let packed = r.below(2) == 0;
        let n = [1, 1, 2, 3, 5][r.below(5)];
        let mut lengths: Vec<(usize, usize)> = (0..n).map(|_| (length(r), length(r))).collect();
        for l in &mut lengths {
            match r.below(4) {
                0 => l.0 = l.1,
                1 => l.0 = 1,
                _ => {}
            }
        }
        if !packed {
            let first = lengths[0];
            lengths.fill(first);
        }
        let causal = r.below(2) == 0;
        let window = some(r, 4, |r| {
            [(r.below(100), r.below(100)), (usize::MAX, 0), (0, usize::MAX), (700, 3)][r.below(4)]
        });
        // Work that the scalar tier does in some milliseconds.
        while lengths.iter().map(|l| l.0 * l.1 * heads * head_dim).sum::<usize>() > 3_000_000 {
            let most = lengths.iter().map(|l| l.0).max().unwrap();
            for l in &mut lengths {
                l.0 = l.0.min(most.div_ceil(2));
            }
            if most == 1 {
                lengths.truncate(lengths.len().div_ceil(2));
            }
        }
        let n = lengths.len();
        let (q_most, kv_most) = most(&lengths);
        let row = heads * head_dim;
        Case {
            seed: r.next(),
            heads,
            kv_heads,
            head_dim,
            packed,
            key_lengths: some(r, 3, |r| lengths.iter().map(|l| r.below(l.1 + 1)).collect()),
            positions: some(r, 4, |r| (0..n).map(|_| r.below(kv_most + 30)).collect()),
            causal,
            window,
            bias: some(r, 4, |r| {
                let or_one = |r: &mut Rng, n: usize, more: usize| if r.below(2) == 0 { 1 } else { n + more };
                let more = r.below(3);
                [or_one(r, n, more), or_one(r, heads, 0), or_one(r, q_most, more), kv_most + more * 5]
            }),
            blocks: some(r, 5, |r| {
                let size = |r: &mut Rng| [1, 7, 16, 32, 64, 100, 512][r.below(7)];
                (size(r), size(r))
            }),
            gates: r.below(4) == 0,
            clipped: [
                None,
                Some((-0.03, 1.0)),
                Some((-0.1, 1.1)),
                Some((0.0, 1.003)),
                Some((-12.0 / 512.0, 1.0)),
                Some((-3e-4, 1.0)),
            ][r.below(6)],
            uniform: r.below(3) == 0,
            scale: some(r, 4, |r| r.float(0.1, 1.2) / (head_dim as f32).sqrt()),
            types: [Type::F32; 4],
            places: [(); 4].map(|()| Place::random(r, row)),
            lengths,
            peak: [0.5, 2.0, 2.0, 5.0, 10.0][r.below(5)],
        }
    }

    /// The same of bytes.
    pub fn bytes(mut self, r: &mut Rng) -> Self {
        let mut byte = || [Type::U8, Type::I8][r.below(2)];
        self.types = [byte(), byte(), byte(), Type::F32];
        self
    }

    pub fn q_tokens(&self) -> usize {
        self.lengths.iter().map(|l| l.0).sum()
    }
    pub fn kv_tokens(&self) -> usize {
        self.lengths.iter().map(|l| l.1).sum()
    }

    /// Where the first query of a sequence is.
    pub fn position(&self, b: usize) -> i128 {
        match &self.positions {
            Some(positions) => positions[b] as i128,
            None => self.lengths[b].1 as i128 - self.lengths[b].0 as i128,
        }
    }

    pub fn softmax(&self) -> Softmax {
        match self.clipped {
            None => Softmax::Standard,
            Some((gamma, zeta)) => Clipped::new(gamma, zeta).unwrap().into(),
        }
    }

    pub fn attention(&self) -> Attention {
        let mut a = Attention::new(self.heads, self.kv_heads, self.head_dim).unwrap().softmax(self.softmax());
        if let Some(scale) = self.scale {
            a = a.scale(scale).unwrap();
        }
        if self.causal {
            a = a.causal();
        }
        if let Some((left, right)) = self.window {
            a = a.window(left, right);
        }
        a.empty_rows(if self.uniform { EmptyRow::Uniform } else { EmptyRow::Zeros })
    }

    pub fn data(self) -> Data {
        let mut r = Rng::new(self.seed);
        let (d, peak) = (self.head_dim, self.peak.sqrt());
        let (q_tokens, kv_tokens) = (self.q_tokens(), self.kv_tokens());
        let mut fill = |n: usize, t: Type, most: f32| -> Vec<f32> {
            (0..n)
                .map(|_| match t {
                    Type::U8 => f32::from(r.byte()),
                    Type::I8 => f32::from(r.byte() as i8),
                    float => float.round(r.float(-most, most)),
                })
                .collect()
        };
        let q = fill(q_tokens * self.heads * d, self.types[0], 1.7 * peak);
        let k = fill(kv_tokens * self.kv_heads * d, self.types[1], 1.7 * peak);
        let v = fill(kv_tokens * self.kv_heads * d, self.types[2], 1.0);
        let bias = (0..self.bias.map_or(0, |dims| dims.iter().product()))
            .map(|_| match r.below(12) {
                0 => f32::NEG_INFINITY,
                1 => f32::MIN,
                _ => r.float(-2.0, 2.0),
            })
            .collect();
        let (rows, cols) = self.grid();
        let live = (0..rows * cols).map(|_| r.below(3) > 0).collect();
        let gates =
            (0..q_tokens * self.heads * usize::from(self.gates)).map(|_| r.float(-0.2, 1.0)).collect();
        let heads = [self.heads, self.kv_heads, self.kv_heads];
        let params = [0, 1, 2].map(|i| {
            let n = if r.below(2) == 0 { 1 } else { heads[i] };
            let step = if i == 2 { 1.0 / 128.0 } else { peak / 74.0 };
            // Zero points about the middle, so that scores are not all alike.
            (0..n).map(|_| self.types[i].params(step * r.float(0.7, 1.3), 100 + r.below(56) as u8)).collect()
        });
        let int8 = Int8 {
            scores: some(&mut r, 2, |r| Type::U8.params(self.peak * r.float(0.02, 0.05), 128)),
            weights_scale: [1.0 / 255.0, 1.0 / 255.0, 0.5 / 255.0, 0.02 / 255.0][r.below(4)],
            context: some(&mut r, 3, |r| Type::I8.params(r.float(0.002, 0.01), 128)),
        };
        let out = Type::params(self.types[3], r.float(0.001, 0.01), r.byte());
        Data { case: self, q, k, v, bias, live, gates, params, int8, out }
    }

    /// Rows and columns of blocks.
    fn grid(&self) -> (usize, usize) {
        let (q, kv) = most(&self.lengths);
        self.blocks.map_or((0, 0), |(bq, bk)| (q.div_ceil(bq), kv.div_ceil(bk)))
    }
}

fn most(lengths: &[(usize, usize)]) -> (usize, usize) {
    lengths.iter().fold((0, 0), |m, l| (m.0.max(l.0), m.1.max(l.1)))
}

/// 0 and the sums so far.
pub fn cumulative(lengths: impl Iterator<Item = usize>) -> Vec<i32> {
    let sums = lengths.scan(0, |sum, n| {
        *sum += n as i32;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

/// What a call gave: the context's bits and how much it skipped.
pub type Got = (Vec<u32>, Skipped);

impl Data {
    pub fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Got {
        self.run_poisoned(ctx, scratch, f32::NAN)
    }

    /// What lies between rows is poison: nothing of it may change.
    pub fn run_poisoned(&self, ctx: &Ctx, scratch: &mut Scratch, poison: f32) -> Got {
        let Case { heads, kv_heads, head_dim: d, types, places, .. } = self.case;
        let (q_shape, kv_shape) = ((self.case.q_tokens(), heads, d), (self.case.kv_tokens(), kv_heads, d));
        let q = Tensor::new(types[0], &self.q, q_shape, places[0], poison);
        let k = Tensor::new(types[1], &self.k, kv_shape, places[1], poison);
        let v = Tensor::new(types[2], &self.v, kv_shape, places[2], poison);
        let unwritten = vec![77.0; self.q.len()];
        let mut out = Tensor::new(types[3], &unwritten, q_shape, places[3], poison);
        let before = out.bits().1;
        let skipped = self.forward(
            q.input(&self.params[0]),
            k.input(&self.params[1]),
            v.input(&self.params[2]),
            out.output(self.out),
            ctx,
            scratch,
        );
        let (bits, after) = out.bits();
        assert_eq!(before, after, "between rows of the context: {:?}", self.case);
        (bits, skipped)
    }

    /// Any tensors by this call.
    pub fn forward(
        &self,
        q: Input<'_>,
        k: Input<'_>,
        v: Input<'_>,
        out: Output<'_>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Skipped {
        self.with_call(|attention, call| attention.forward(q, k, v, call, out, ctx, scratch))
            .unwrap_or_else(|e| panic!("{e}: {:?}", self.case))
    }

    /// What the library takes for this call.
    pub fn with_call<R>(&self, f: impl FnOnce(&Attention, &Call<'_>) -> R) -> R {
        let case = &self.case;
        let cu = (cumulative(case.lengths.iter().map(|l| l.0)), cumulative(case.lengths.iter().map(|l| l.1)));
        let sequences = match case.packed {
            true => Sequences::Packed { q: &cu.0, kv: &cu.1 },
            false => {
                let (q_len, kv_len) = case.lengths[0];
                Sequences::Batch { batch: case.lengths.len(), q_len, kv_len }
            }
        };
        let mut call = Call::new(sequences).int8(self.int8);
        if let Some(lengths) = &case.key_lengths {
            call = call.key_lengths(lengths);
        }
        if let Some(positions) = &case.positions {
            call = call.positions(positions);
        }
        if let Some([b, h, i, j]) = case.bias {
            call = call.bias(Bias::new(&self.bias, b, h, i, j).unwrap());
        }
        if let Some((bq, bk)) = case.blocks {
            let (rows, cols) = case.grid();
            call = call.block_mask(BlockMask::new(&self.live, rows, cols, bq, bk).unwrap());
        }
        if case.gates {
            call = call.gates(MatRef::new(&self.gates, case.q_tokens(), case.heads).unwrap());
        }
        f(&case.attention(), &call)
    }

    /// The same call, its context in f32.
    pub fn to_f32(&self) -> Self {
        let mut d = self.clone();
        d.case.types[3] = Type::F32;
        d
    }

    /// A context in f32 as the bits that this call's type has for it.
    pub fn rounded(&self, context: &[f32]) -> Vec<u32> {
        let round = |&v: &f32| match self.case.types[3] {
            Type::F32 => v.to_bits(),
            Type::Bf16 => u32::from(bf16::from_f32(v).to_bits()),
            Type::F16 => u32::from(f16::from_f32(v).to_bits()),
            Type::U8 | Type::I8 => u32::from(self.out.quantize(v) as u8),
        };
        context.iter().map(round).collect()
    }

    /// The same call of floats, q, k and v widened to f32.
    pub fn widened(&self) -> Self {
        let mut d = self.clone();
        d.case.types[..3].fill(Type::F32);
        d
    }

    /// Sequence b by itself.
    pub fn alone(&self, b: usize) -> Self {
        let mut d = self.clone();
        let case = &self.case;
        let first = |f: fn(&(usize, usize)) -> usize| case.lengths[..b].iter().map(f).sum::<usize>();
        let (q, kv) = (first(|l| l.0), first(|l| l.1));
        let (q_len, kv_len) = case.lengths[b];
        let (q_row, kv_row) = (case.heads * case.head_dim, case.kv_heads * case.head_dim);
        d.q = self.q[q * q_row..(q + q_len) * q_row].to_vec();
        d.k = self.k[kv * kv_row..(kv + kv_len) * kv_row].to_vec();
        d.v = self.v[kv * kv_row..(kv + kv_len) * kv_row].to_vec();
        if case.gates {
            d.gates = self.gates[q * case.heads..(q + q_len) * case.heads].to_vec();
        }
        d.case.lengths = vec![case.lengths[b]];
        d.case.packed = false;
        d.case.key_lengths = case.key_lengths.as_ref().map(|l| vec![l[b]]);
        d.case.positions = case.positions.as_ref().map(|l| vec![l[b]]);
        if let Some([batch, h, i, j]) = case.bias {
            let b = if batch == 1 { 0 } else { b };
            d.bias = self.bias[b * h * i * j..(b + 1) * h * i * j].to_vec();
            d.case.bias = Some([1, h, i, j]);
        }
        if case.blocks.is_some() {
            let ((rows, cols), old) = (d.case.grid(), case.grid().1);
            d.live = (0..rows * cols).map(|i| self.live[i / cols * old + i % cols]).collect();
        }
        d
    }

    /// Head h by itself.
    pub fn head(&self, h: usize) -> Self {
        let mut d = self.clone();
        let (heads, kv_heads, width) = (self.case.heads, self.case.kv_heads, self.case.head_dim);
        let kv = h / (heads / kv_heads);
        let pick = |x: &[f32], heads: usize, h: usize, width: usize| -> Vec<f32> {
            x.chunks_exact(heads * width).flat_map(|row| row[h * width..][..width].to_vec()).collect()
        };
        d.q = pick(&self.q, heads, h, width);
        (d.k, d.v) = (pick(&self.k, kv_heads, kv, width), pick(&self.v, kv_heads, kv, width));
        if self.case.gates {
            d.gates = pick(&self.gates, heads, h, 1);
        }
        if let Some([b, bias_heads, i, j]) = self.case.bias.filter(|dims| dims[1] > 1) {
            d.bias = pick(&self.bias, bias_heads, h, i * j);
            d.case.bias = Some([b, 1, i, j]);
        }
        d.params = [(0, h), (1, kv), (2, kv)].map(|(which, head)| vec![self.params_of(which, head)]);
        (d.case.heads, d.case.kv_heads) = (1, 1);
        d
    }

    /// Query i of the only sequence by itself; it must have a position.
    pub fn query(&self, i: usize) -> Self {
        let mut d = self.clone();
        let row = self.case.heads * self.case.head_dim;
        d.q = self.q[i * row..][..row].to_vec();
        if self.case.gates {
            d.gates = self.gates[i * self.case.heads..][..self.case.heads].to_vec();
        }
        if let Some([_, heads, queries, keys]) = self.case.bias.filter(|dims| dims[2] > 1) {
            d.bias =
                (0..heads).flat_map(|h| self.bias[(h * queries + i) * keys..][..keys].to_vec()).collect();
            d.case.bias = Some([1, heads, 1, keys]);
        }
        if let Some((bq, bk)) = self.case.blocks {
            let cols = self.case.grid().1;
            d.live = self.live[i / bq * cols..][..cols].to_vec();
            d.case.blocks = Some((1, bk));
        }
        d.case.lengths = vec![(1, self.case.lengths[0].1)];
        d.case.positions = Some(vec![(self.case.position(0) + i as i128).try_into().unwrap()]);
        d
    }

    /// Sequences one after the other with room for equally many queries and keys; what fills them is not finite. Only for
    /// queries that have a position, and without blocks.
    pub fn padded(&self, q_len: usize, kv_len: usize) -> Self {
        let mut d = self.clone();
        let case = &self.case;
        assert!(case.blocks.is_none() && !case.uniform);
        let pad = |values: &[f32], row: usize, to: usize, lengths: &[usize], fill: f32| {
            let (mut from, mut all) = (0, Vec::new());
            for n in lengths {
                all.extend_from_slice(&values[from * row..(from + n) * row]);
                all.resize(all.len() + (to - n) * row, fill);
                from += n;
            }
            all
        };
        let (ql, kl): (Vec<_>, Vec<_>) = case.lengths.iter().copied().unzip();
        let (q_row, kv_row) = (case.heads * case.head_dim, case.kv_heads * case.head_dim);
        d.q = pad(&self.q, q_row, q_len, &ql, f32::NAN);
        d.k = pad(&self.k, kv_row, kv_len, &kl, f32::NAN);
        d.v = pad(&self.v, kv_row, kv_len, &kl, f32::INFINITY);
        if case.gates {
            d.gates = pad(&self.gates, case.heads, q_len, &ql, f32::NAN);
        }
        d.case.lengths.fill((q_len, kv_len));
        d.case.packed = false;
        d.case.key_lengths = Some(case.key_lengths.clone().unwrap_or(kl));
        d.case.positions = Some((0..ql.len()).map(|b| case.position(b).max(0) as usize).collect());
        if let Some([b, h, i, j]) = case.bias {
            let (queries, keys) = (if i == 1 { 1 } else { i.max(q_len) }, j.max(kv_len));
            d.case.bias = Some([b, h, queries, keys]);
            d.bias = vec![f32::NAN; b * h * queries * keys];
            for row in 0..b * h * i {
                let to = (row / i * queries + row % i) * keys;
                d.bias[to..to + j].copy_from_slice(&self.bias[row * j..(row + 1) * j]);
            }
        }
        d
    }

    fn bias_of(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let Some([batch, heads, queries, keys]) = self.case.bias else { return 0.0 };
        let of = |n: usize, at: usize| if n == 1 { 0 } else { at };
        let at = (of(batch, b) * heads + of(heads, h)) * queries + of(queries, i);
        f64::from(self.bias[at * keys + j])
    }

    /// Whether a query meets a key, whatever the bias says.
    pub fn meets(&self, b: usize, i: usize, j: usize) -> bool {
        let case = &self.case;
        let (p, key) = (case.position(b) + i as i128, j as i128);
        let window = |(left, right)| key + left as i128 >= p && key <= p + right as i128;
        let cols = case.grid().1;
        case.key_lengths.as_ref().is_none_or(|l| j < l[b])
            && (!case.causal || key <= p)
            && case.window.is_none_or(|(left, right): (usize, usize)| window((left, right)))
            && case.blocks.is_none_or(|(bq, bk)| self.live[i / bq * cols + j / bk])
    }

    /// The parameters of a head of q, k or v.
    fn params_of(&self, which: usize, head: usize) -> QuantParams {
        match &self.params[which][..] {
            [one] => *one,
            each => each[head],
        }
    }

    /// Sequence, head and query of every row of the context, in its order.
    fn rows(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let heads = self.case.heads;
        let queries = self.case.lengths.iter().enumerate().flat_map(|(b, l)| (0..l.0).map(move |i| (b, i)));
        queries.flat_map(move |(b, i)| (0..heads).map(move |h| (b, h, i)))
    }

    /// The probabilities of a row's keys before the clip, from their scaled scores; None of a row that attends to nothing.
    fn probabilities(&self, (b, h, i): (usize, usize, usize), scores: &[f64]) -> Option<Vec<f64>> {
        let there = |j: usize| self.meets(b, i, j) && self.bias_of(b, h, i, j) != f64::NEG_INFINITY;
        let keys = scores.len();
        let live: Vec<usize> = (0..keys).filter(|&j| there(j)).collect();
        if live.is_empty() {
            return (self.case.uniform && keys > 0).then(|| vec![1.0 / keys as f64; keys]);
        }
        let mut p = vec![0.0; keys];
        let score = |j: usize| scores[j] + self.bias_of(b, h, i, j);
        let max = live.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = live.iter().map(|&j| (score(j) - max).exp()).sum();
        for &j in &live {
            p[j] = (score(j) - max).exp() / sum;
        }
        Some(p)
    }

    fn clip(&self, p: f64) -> f64 {
        match self.case.clipped {
            None => p,
            Some((gamma, zeta)) => {
                let (gamma, zeta) = (f64::from(gamma), f64::from(zeta));
                ((zeta - gamma) * p + gamma).clamp(0.0, 1.0)
            }
        }
    }

    fn scale(&self) -> f64 {
        self.case.scale.map_or_else(|| 1.0 / (self.case.head_dim as f64).sqrt(), f64::from)
    }

    fn dot(&self, q: usize, k: usize, zero: (i32, i32)) -> f64 {
        let d = self.case.head_dim;
        let pairs = self.q[q * d..][..d].iter().zip(&self.k[k * d..][..d]);
        // Bytes: integers that f64 holds exactly.
        pairs.map(|(&q, &k)| (f64::from(q) - f64::from(zero.0)) * (f64::from(k) - f64::from(zero.1))).sum()
    }

    /// First tokens of a sequence: of q, and of k and v.
    fn first(&self, b: usize) -> (usize, usize) {
        self.case.lengths[..b].iter().fold((0, 0), |at, l| (at.0 + l.0, at.1 + l.1))
    }

    /// The context of floats.
    pub fn reference(&self) -> Reference {
        let case = &self.case;
        let d = case.head_dim;
        let mut all = Reference { context: Vec::with_capacity(self.q.len()), pairs: 0, zeros: (0, 0) };
        for row @ (b, h, i) in self.rows() {
            let (q0, k0) = self.first(b);
            let (head, keys) = (h / (case.heads / case.kv_heads), case.lengths[b].1);
            let at = |j: usize| (k0 + j) * case.kv_heads + head;
            let query = (q0 + i) * case.heads + h;
            let scores: Vec<f64> = (0..keys)
                .map(
                    |j| if self.meets(b, i, j) { self.scale() * self.dot(query, at(j), (0, 0)) } else { 0.0 },
                )
                .collect();
            let mut context = vec![0.0; d];
            if let Some(p) = self.probabilities(row, &scores) {
                for (j, &p) in p.iter().enumerate() {
                    let w = self.clip(p);
                    if self.meets(b, i, j) {
                        all.pairs += 1;
                        // Those so near to the clip that rounding decides.
                        let (gamma, zeta) = case.clipped.unwrap_or((0.0, 1.0));
                        let x = (f64::from(zeta) - f64::from(gamma)) * p + f64::from(gamma);
                        let near = 1e-4 * f64::from(-gamma);
                        all.zeros.0 += u64::from(x < -near || p == 0.0);
                        all.zeros.1 += u64::from(x <= near || p < 1e-37);
                    }
                    if w != 0.0 {
                        let v = &self.v[at(j) * d..][..d];
                        context.iter_mut().zip(v).for_each(|(c, &v)| *c += w * f64::from(v));
                    }
                }
            } else {
                all.pairs += (0..keys).filter(|&j| self.meets(b, i, j)).count() as u64;
            }
            if case.gates {
                let gate = f64::from(self.gates[query]);
                context.iter_mut().for_each(|c| *c *= gate);
            }
            all.context.extend(context);
        }
        all
    }

    /// Of bytes, in f32: the least and the largest that each element can be, where f32 may round a weight either way;
    /// nothing of a row whose quantized scores it may.
    pub fn reference_bytes(&self) -> Vec<Option<(f64, f64)>> {
        let case = &self.case;
        let d = case.head_dim;
        let mut all = Vec::with_capacity(self.q.len());
        'rows: for row @ (b, h, i) in self.rows() {
            let (q0, k0) = self.first(b);
            let (head, keys) = (h / (case.heads / case.kv_heads), case.lengths[b].1);
            let [pq, pk, pv] =
                [(0, h), (1, head), (2, head)].map(|(which, head)| self.params_of(which, head));
            let at = |j: usize| (k0 + j) * case.kv_heads + head;
            let query = (q0 + i) * case.heads + h;
            let step = self.scale() * f64::from(pq.scale()) * f64::from(pk.scale());
            let mut scores = vec![0.0; keys];
            for j in (0..keys).filter(|&j| self.meets(b, i, j)) {
                let s = step * self.dot(query, at(j), (pq.zero_point(), pk.zero_point()));
                scores[j] = match self.int8.scores {
                    None => s,
                    Some(p) => {
                        let near = s.abs() * 1e-6;
                        let (low, high) = (p.quantize((s - near) as f32), p.quantize((s + near) as f32));
                        if low != high {
                            all.extend(vec![None; d]);
                            continue 'rows;
                        }
                        f64::from(p.scale()) * f64::from(low - p.zero_point())
                    }
                };
            }
            let weights_step = f64::from(self.int8.weights_scale);
            let stretch = case.clipped.map_or(1.0, |(gamma, zeta)| f64::from(zeta) - f64::from(gamma));
            let p = self.probabilities(row, &scores).unwrap_or_default();
            let mut context = vec![(0.0, 0.0); d];
            for (j, &p) in p.iter().enumerate() {
                let (w, near) = (self.clip(p), 3e-5 * stretch * p + 1e-7);
                let code = |w: f64| (w / weights_step).round_ties_even().clamp(0.0, 255.0);
                let (low, high) = (code(w - near), code(w + near));
                let v = &self.v[at(j) * d..][..d];
                for (c, &v) in context.iter_mut().zip(v) {
                    let v = f64::from(v) - f64::from(pv.zero_point());
                    c.0 += (low * v).min(high * v);
                    c.1 += (low * v).max(high * v);
                }
            }
            for (low, high) in context {
                let step = weights_step * f64::from(pv.scale());
                let near = 1e-6 * step * f64::max(low.abs(), high.abs());
                let (mut low, mut high) = (step * low - near, step * high + near);
                if let Some(p) = self.int8.context {
                    let whole =
                        |c: f64| f64::from(p.scale()) * f64::from(p.quantize(c as f32) - p.zero_point());
                    (low, high) = (whole(low), whole(high));
                }
                if case.gates {
                    let gate = f64::from(self.gates[query]);
                    (low, high) = ((gate * low).min(gate * high), (gate * low).max(gate * high));
                }
                let near = 1e-6 * f64::max(low.abs(), high.abs());
                all.push(Some((low - near, high + near)));
            }
        }
        all
    }
}

pub struct Reference {
    /// `[tokens, heads, head_dim]`.
    pub context: Vec<f64>,
    /// Pairs that meet, and the least and most of them whose weight is 0.
    pub pairs: u64,
    pub zeros: (u64, u64),
}

pub fn real(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&b| f32::from_bits(b)).collect()
}

/// Whether both are the same bits, or both NaN: its payload is free.
pub fn same(a: &[u32], b: &[u32]) -> bool {
    let nan = |v: u32| f32::from_bits(v).is_nan();
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == b || nan(a) && nan(b))
}

/// The largest distance, as a part of the tolerance of `1e-5 * max |reference|`.
pub fn distance(got: &[u32], want: &[f64], v: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(0f64, |m, w| m.max(w.abs()));
    let v = v.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    // Where everything is clipped the reference may be 0, and a weight next to the clip is not.
    let tolerance = 1e-5 * most + 2e-7 * v;
    let far = |(&got, &want): (&u32, &f64)| {
        let distance = (f64::from(f32::from_bits(got)) - want).abs();
        if distance.is_nan() {
            f64::INFINITY
        } else if distance == 0.0 {
            0.0
        } else {
            distance / tolerance
        }
    };
    got.iter().zip(want).map(far).fold(0.0, f64::max)
}
