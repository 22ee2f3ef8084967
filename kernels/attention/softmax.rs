//! The passes of a softmax over a row of scores: prepare, maximum, exponentials and their sum, weights.
//!
//! A row has 4 bytes for each key. Sums are taken in 16 lanes, key by key, whatever the width of a register, so that they are the
//! same on every tier.

use super::LANES;
use crate::kernels::simd::Simd;
use std::marker::PhantomData;
use std::ops::Range;

/// Some keys of a row.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Key 0 of the row: at a cache line.
    pub row: *mut u8,
    /// The first key.
    pub first: usize,
    /// The key behind the last.
    pub last: usize,
    /// Added to integer scores.
    pub offset: i32,
}

/// What scores go through before the maximum is taken.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// What raw scores are multiplied by.
    pub scale: f32,
    /// The quantizer of scaled scores: the real size of a step, and the ends of the integers less the zero point. A step of 0
    /// does not quantize.
    pub step: f32,
    /// The smallest integer.
    pub low: f32,
    /// The largest integer.
    pub high: f32,
    /// Null, or what is added to the scores, key by key from key 0 of the row.
    pub bias: *const f32,
}

/// What exponentials become.
#[derive(Debug, Clone, Copy)]
pub struct Weigh {
    /// What they are multiplied by.
    pub factor: f32,
    /// What is added then.
    pub gamma: f32,
    /// The largest weight.
    pub limit: f32,
}

/// How raw scores lie in a row.
pub trait Scores<S: Simd>: 'static {
    /// A register of them as they lie.
    type Raw: Copy;
    /// 16 that nothing is smaller than.
    const NOTHING: [u32; LANES];
    /// From memory.
    unsafe fn load_raw(p: *const u8) -> Self::Raw;
    /// To memory.
    unsafe fn store_raw(p: *mut u8, raw: Self::Raw);
    /// The larger of each lane; the second where the first is NaN.
    unsafe fn larger(a: Self::Raw, b: Self::Raw) -> Self::Raw;
    /// What a lane stands for; -inf for what nothing is smaller than.
    fn value(lane: u32, offset: i32) -> f32;
    /// A register of what they stand for.
    unsafe fn load(p: *const u8, offset: i32) -> S::F;
}
/// Floats.
pub struct Floats;
/// Integers, below 2^24 with the offset.
pub struct Ints;
impl<S: Simd> Scores<S> for Floats {
    type Raw = S::F;
    const NOTHING: [u32; LANES] = [f32::NEG_INFINITY.to_bits(); LANES];
    #[inline(always)]
    unsafe fn load_raw(p: *const u8) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::load_f(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_raw(p: *mut u8, raw: S::F) {
        // SAFETY: as the caller.
        unsafe { S::store_f(p.cast(), raw) }
    }
    #[inline(always)]
    unsafe fn larger(a: S::F, b: S::F) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::max_f(a, b) }
    }
    #[inline(always)]
    fn value(lane: u32, _offset: i32) -> f32 {
        f32::from_bits(lane)
    }
    #[inline(always)]
    unsafe fn load(p: *const u8, _offset: i32) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::load_f(p.cast()) }
    }
}
impl<S: Simd> Scores<S> for Ints {
    type Raw = S::V;
    const NOTHING: [u32; LANES] = [i32::MIN as u32; LANES];
    #[inline(always)]
    unsafe fn load_raw(p: *const u8) -> S::V {
        // SAFETY: as the caller.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn store_raw(p: *mut u8, raw: S::V) {
        // SAFETY: as the caller.
        unsafe { S::store(p, raw) }
    }
    #[inline(always)]
    unsafe fn larger(a: S::V, b: S::V) -> S::V {
        // SAFETY: as the caller.
        unsafe { S::max(a, b) }
    }
    #[inline(always)]
    fn value(lane: u32, offset: i32) -> f32 {
        match lane as i32 {
            i32::MIN => f32::NEG_INFINITY,
            lane => (lane + offset) as f32,
        }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8, offset: i32) -> S::F {
        // SAFETY: as the caller.
        unsafe { S::to_f32(S::add(S::load(p), S::splat(offset))) }
    }
}

/// 16 keys.
type Group<S> = [<S as Simd>::F; 4];

/// The 16 keys from `key` on.
#[inline(always)]
unsafe fn load<S: Simd, R: Scores<S>>(span: &Span, key: usize) -> Group<S> {
    // SAFETY: rows are padded to whole groups.
    unsafe {
        let mut group = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            group[i] = R::load(span.row.add(4 * (key + i * S::LANES)), span.offset);
        }
        group
    }
}

/// Writes the 16 keys from `key` on.
#[inline(always)]
unsafe fn store<S: Simd>(span: &Span, key: usize, group: Group<S>) {
    // SAFETY: rows are padded to whole groups.
    unsafe {
        for i in 0..LANES / S::LANES {
            S::store_f(span.row.add(4 * (key + i * S::LANES)).cast(), group[i]);
        }
    }
}

#[inline(always)]
unsafe fn to_lanes<S: Simd>(group: Group<S>) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for i in 0..LANES / S::LANES {
        // SAFETY: the array holds a group.
        unsafe { S::store_f(lanes.as_mut_ptr().add(i * S::LANES), group[i]) };
    }
    lanes
}

#[inline(always)]
unsafe fn from_lanes<S: Simd>(lanes: &[f32; LANES]) -> Group<S> {
    // SAFETY: the array holds a group.
    unsafe {
        let mut group = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            group[i] = S::load_f(lanes.as_ptr().add(i * S::LANES));
        }
        group
    }
}

/// What is done to 16 keys: those of `keys` are the span's, the others of the group must stay as they are.
trait Pass<S: Simd> {
    /// All 16.
    unsafe fn whole(&mut self, span: &Span, key: usize);
    /// Some of them.
    unsafe fn edge(&mut self, span: &Span, key: usize, keys: Range<usize>);
}

/// A pass over all keys of a span, in order. Edges are apart from the loop, which then decides nothing.
#[inline(always)]
unsafe fn pass<S: Simd>(span: &Span, pass: &mut impl Pass<S>) {
    let (first, last) = (span.first.next_multiple_of(LANES), span.last / LANES * LANES);
    // SAFETY: as the caller.
    unsafe {
        if first > span.first {
            pass.edge(span, first - LANES, span.first..first.min(span.last));
        }
        let mut key = first;
        while key < last {
            pass.whole(span, key);
            key += LANES;
        }
        if last >= first && last < span.last {
            pass.edge(span, last, last..span.last);
        }
    }
}

/// Scales, quantizes and biases raw scores; what is left in the row are floats.
#[inline(always)]
pub unsafe fn prepare<S: Simd, R: Scores<S>>(span: &Span, p: &Prepare) {
    // SAFETY: the caller vouches for the row, and for a bias of all keys of the span.
    unsafe { pass::<S>(span, &mut Preparing::<R> { p, scores: PhantomData }) }
}

struct Preparing<'a, R> {
    p: &'a Prepare,
    scores: PhantomData<R>,
}

impl<R> Preparing<'_, R> {
    #[inline(always)]
    unsafe fn prepare<S: Simd>(&self, mut group: Group<S>, bias: Group<S>) -> Group<S> {
        let p = self.p;
        // SAFETY: the caller vouches for the tier.
        unsafe {
            for i in 0..LANES / S::LANES {
                // A key that is not there is not there, whatever its score.
                group[i] = S::at_least(group[i], bias[i], S::splat_f(f32::MIN));
                if p.step == 0.0 {
                    group[i] = S::fma(group[i], S::splat_f(p.scale), bias[i]);
                } else {
                    let steps = S::div_f(S::mul_f(group[i], S::splat_f(p.scale)), S::splat_f(p.step));
                    let steps = S::max_f(S::splat_f(p.low), S::min_f(S::splat_f(p.high), steps));
                    group[i] = S::fma(S::to_f32(S::round(steps)), S::splat_f(p.step), bias[i]);
                }
            }
        }
        group
    }
}

impl<S: Simd, R: Scores<S>> Pass<S> for Preparing<'_, R> {
    #[inline(always)]
    unsafe fn whole(&mut self, span: &Span, key: usize) {
        // SAFETY: as the caller.
        unsafe {
            let mut bias = [S::splat_f(0.0); 4];
            if !self.p.bias.is_null() {
                for i in 0..LANES / S::LANES {
                    bias[i] = S::load_f(self.p.bias.add(key + i * S::LANES));
                }
            }
            store::<S>(span, key, self.prepare::<S>(load::<S, R>(span, key), bias));
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, span: &Span, key: usize, keys: Range<usize>) {
        // SAFETY: as the caller; of the bias only the span's keys are read.
        unsafe {
            let mut bias = [0.0; LANES];
            if !self.p.bias.is_null() {
                for at in keys.clone() {
                    bias[at - key] = *self.p.bias.add(at);
                }
            }
            let lanes = to_lanes::<S>(self.prepare::<S>(load::<S, R>(span, key), from_lanes::<S>(&bias)));
            for at in keys {
                span.row.cast::<f32>().add(at).write(lanes[at - key]);
            }
        }
    }
}

/// The largest score that is a number; -inf if there is none.
#[inline(always)]
pub unsafe fn maximum<S: Simd, R: Scores<S>>(span: &Span) -> f32 {
    // SAFETY: the caller vouches for the row.
    unsafe {
        let mut maximum = Maximum::<S, R> { most: [R::load_raw(R::NOTHING.as_ptr().cast()); 4] };
        pass::<S>(span, &mut maximum);
        let mut lanes = [0u32; LANES];
        for i in 0..LANES / S::LANES {
            R::store_raw(lanes.as_mut_ptr().add(i * S::LANES).cast(), maximum.most[i]);
        }
        let mut values = lanes.map(|lane| R::value(lane, span.offset));
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                if values[i + width] > values[i] {
                    values[i] = values[i + width];
                }
            }
            width /= 2;
        }
        values[0]
    }
}

struct Maximum<S: Simd, R: Scores<S>> {
    most: [R::Raw; 4],
}

impl<S: Simd, R: Scores<S>> Pass<S> for Maximum<S, R> {
    #[inline(always)]
    unsafe fn whole(&mut self, span: &Span, key: usize) {
        for i in 0..LANES / S::LANES {
            // SAFETY: as the caller.
            unsafe {
                let raw = R::load_raw(span.row.add(4 * (key + i * S::LANES)));
                self.most[i] = R::larger(raw, self.most[i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, span: &Span, key: usize, keys: Range<usize>) {
        let mut own = R::NOTHING;
        for at in keys {
            // SAFETY: as the caller.
            own[at - key] = unsafe { span.row.cast::<u32>().add(at).read() };
        }
        for i in 0..LANES / S::LANES {
            // SAFETY: the array holds a group.
            unsafe {
                let raw = R::load_raw(own.as_ptr().add(i * S::LANES).cast());
                self.most[i] = R::larger(raw, self.most[i]);
            }
        }
    }
}

/// 2^t is 0 below this.
const SMALLEST: f32 = -124.0;

/// 2^t, of t up to 0: relative error below 3e-7; NaN stays NaN.
///
/// t = n + f with |f| <= 1/2; a polynomial in f, times 2^n.
#[inline(always)]
pub unsafe fn exp2<S: Simd>(t: S::F) -> S::F {
    /// Minimax for the relative error on |f| <= 1/2, from degree 5 down to 1; the constant is 1.
    const TERMS: [f32; 5] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, LN_2_TERM];
    #[allow(clippy::approx_constant)] // Near ln 2, but the best for this degree.
    const LN_2_TERM: f32 = 6.931_47e-1;
    const MAGIC: f32 = 12_582_912.0;
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let n = S::sub_f(S::add_f(t, S::splat_f(MAGIC)), S::splat_f(MAGIC));
        let f = S::sub_f(t, n);
        let mut p = S::splat_f(TERMS[0]);
        for term in &TERMS[1..] {
            p = S::fma(p, f, S::splat_f(*term));
        }
        p = S::fma(p, f, S::splat_f(1.0));
        S::at_least(S::power(p, n), t, S::splat_f(SMALLEST))
    }
}

/// `2^(a * (score - b))` in place of each score, b being the largest; adds them up in the 16 lanes at `sums`.
#[inline(always)]
pub unsafe fn exponentials<S: Simd, R: Scores<S>>(span: &Span, a: f32, b: f32, sums: *mut f32) {
    // SAFETY: the caller vouches for the row and the sums.
    unsafe {
        let mut total = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            total[i] = S::load_f(sums.add(i * S::LANES));
        }
        let (scale, most) = (S::splat_f(a), S::splat_f(b));
        let mut exponentials = Exponentials::<S, R> { scale, most, total, scores: PhantomData };
        pass::<S>(span, &mut exponentials);
        for i in 0..LANES / S::LANES {
            S::store_f(sums.add(i * S::LANES), exponentials.total[i]);
        }
    }
}

struct Exponentials<S: Simd, R> {
    scale: S::F,
    most: S::F,
    total: Group<S>,
    scores: PhantomData<R>,
}

impl<S: Simd, R: Scores<S>> Exponentials<S, R> {
    #[inline(always)]
    unsafe fn exponentials(&self, span: &Span, key: usize) -> Group<S> {
        // SAFETY: as the caller.
        unsafe {
            let mut group = load::<S, R>(span, key);
            for i in 0..LANES / S::LANES {
                // The difference first: it is 0 for the largest, however large.
                group[i] = exp2::<S>(S::mul_f(S::sub_f(group[i], self.most), self.scale));
            }
            group
        }
    }
}

impl<S: Simd, R: Scores<S>> Pass<S> for Exponentials<S, R> {
    #[inline(always)]
    unsafe fn whole(&mut self, span: &Span, key: usize) {
        // SAFETY: as the caller.
        unsafe {
            let group = self.exponentials(span, key);
            for i in 0..LANES / S::LANES {
                self.total[i] = S::add_f(self.total[i], group[i]);
            }
            store::<S>(span, key, group);
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, span: &Span, key: usize, keys: Range<usize>) {
        // SAFETY: as the caller. A lane that is not the span's adds 0.
        unsafe {
            let lanes = to_lanes::<S>(self.exponentials(span, key));
            let mut own = [0.0; LANES];
            for at in keys {
                own[at - key] = lanes[at - key];
                span.row.cast::<f32>().add(at).write(lanes[at - key]);
            }
            let group = from_lanes::<S>(&own);
            for i in 0..LANES / S::LANES {
                self.total[i] = S::add_f(self.total[i], group[i]);
            }
        }
    }
}

/// What is known of weights that were stored.
struct Tally<S: Simd> {
    /// Those that are not 0.
    nonzero: u32,
    /// Of integers, lane by lane.
    sum: S::V,
}

/// How weights are stored.
pub trait Weights<S: Simd>: 'static {
    /// Bytes of one.
    const BYTES: usize;
    /// Registers that are stored at once where there are as many: 1, 2 or 4.
    const BATCH: usize;
}
/// As they are.
pub struct ToF32;
/// bfloat16.
pub struct ToBf16;
/// Unsigned bytes, rounded to nearest even.
pub struct ToU8;
impl<S: Simd> Weights<S> for ToF32 {
    const BYTES: usize = 4;
    const BATCH: usize = 1;
}
impl<S: Simd> Weights<S> for ToBf16 {
    const BYTES: usize = 2;
    const BATCH: usize = 2;
}
impl<S: Simd> Weights<S> for ToU8 {
    const BYTES: usize = 1;
    const BATCH: usize = 4;
}

impl<S: Simd> Tally<S> {
    /// Stores `N` registers of weights.
    #[inline(always)]
    unsafe fn store<W: Weights<S>, const N: usize, const COUNT: bool>(&mut self, p: *mut u8, w: [S::F; N]) {
        // SAFETY: the caller vouches for the tier, and for room. The limit keeps weights inside a byte from above; negative
        // ones saturate to 0, and so does what is not a number, which rounds to one.
        unsafe {
            if W::BYTES == 1 && N == 4 {
                let bytes =
                    S::pack_in_order([S::round(w[0]), S::round(w[1]), S::round(w[2]), S::round(w[3])]);
                S::store(p, bytes);
                let ones = 0x0101_0101i32;
                self.sum = if S::MIXED {
                    S::dot(self.sum, S::x(bytes), S::w(S::splat(ones)))
                } else {
                    S::dot_columns::<0>(self.sum, S::quad((&raw const ones).cast()), bytes)
                };
                if COUNT {
                    self.nonzero += S::nonzero_bytes(bytes);
                }
                return;
            }
            if W::BYTES == 2 && N == 2 {
                S::store_2_bf16(p.cast(), [w[0], w[1]]);
            }
            for i in 0..N {
                let mut stored = S::as_v(w[i]);
                if W::BYTES == 4 {
                    S::store_f(p.add(4 * i * S::LANES).cast(), w[i]);
                } else if W::BYTES == 2 && N != 2 {
                    S::store_bf16(p.add(2 * i * S::LANES).cast(), w[i]);
                } else if W::BYTES == 1 {
                    stored = S::round(S::max_f(w[i], S::splat_f(0.0)));
                    S::store_bytes(p.add(i * S::LANES), stored);
                    self.sum = S::add(self.sum, stored);
                }
                if COUNT {
                    self.nonzero += S::nonzero(stored).count_ones();
                }
            }
        }
    }
}

/// Weights of whole groups of keys from `first` to `last`, of exponentials in the row, to `out`; `CLIP` limits them from below by 0
/// and from above, and bytes are limited from above. Exponentials are at most 1, or NaN. Returns how many weights are not zero where
/// they are clipped, and the sum of integers.
#[inline(always)]
pub unsafe fn weigh<S: Simd, W: Weights<S>, const CLIP: bool>(
    span: &Span,
    w: &Weigh,
    out: *mut u8,
) -> (u32, i32) {
    // The weight of the largest exponential tells whether any is above the limit.
    let most = if CLIP { w.factor.mul_add(1.0, w.gamma) } else { w.factor };
    // SAFETY: as the caller.
    unsafe {
        if most <= w.limit || !CLIP && W::BYTES != 1 {
            weigh_up_to::<S, W, CLIP, false>(span, w, out)
        } else {
            weigh_up_to::<S, W, CLIP, true>(span, w, out)
        }
    }
}

#[inline(always)]
unsafe fn weigh_up_to<S: Simd, W: Weights<S>, const CLIP: bool, const LIMIT: bool>(
    span: &Span,
    w: &Weigh,
    out: *mut u8,
) -> (u32, i32) {
    // SAFETY: the caller vouches for the row, and for room at `out`, which may be where the exponentials are: what is written
    // never passes what was read.
    unsafe {
        let mut tally = Tally::<S> { nonzero: 0, sum: S::splat(0) };
        let (mut from, mut to) = (span.row.add(4 * span.first), out);
        let mut registers = (span.last - span.first).div_ceil(S::LANES);
        while registers >= W::BATCH {
            match W::BATCH {
                4 => tally.store::<W, 4, CLIP>(to, weights::<S, W, CLIP, LIMIT, 4>(from, w)),
                2 => tally.store::<W, 2, CLIP>(to, weights::<S, W, CLIP, LIMIT, 2>(from, w)),
                _ => tally.store::<W, 1, CLIP>(to, weights::<S, W, CLIP, LIMIT, 1>(from, w)),
            }
            (from, to) = (from.add(4 * W::BATCH * S::LANES), to.add(W::BYTES * W::BATCH * S::LANES));
            registers -= W::BATCH;
        }
        for _ in 0..registers {
            tally.store::<W, 1, CLIP>(to, weights::<S, W, CLIP, LIMIT, 1>(from, w));
            (from, to) = (from.add(4 * S::LANES), to.add(W::BYTES * S::LANES));
        }
        (tally.nonzero, if W::BYTES == 1 { S::sum(tally.sum) } else { 0 })
    }
}

/// The weights of `N` registers of exponentials; those that become bytes may be negative yet.
#[inline(always)]
unsafe fn weights<S: Simd, W: Weights<S>, const CLIP: bool, const LIMIT: bool, const N: usize>(
    from: *const u8,
    w: &Weigh,
) -> [S::F; N] {
    // SAFETY: as the caller.
    unsafe {
        let factor = S::splat_f(w.factor);
        let mut v = [factor; N];
        for i in 0..N {
            let e = S::load_f(from.add(4 * i * S::LANES).cast());
            // Of the two operands the maximum and the minimum keep a NaN in the second.
            v[i] = if CLIP { S::fma(e, factor, S::splat_f(w.gamma)) } else { S::mul_f(e, factor) };
            if CLIP && W::BYTES != 1 {
                v[i] = S::max_f(S::splat_f(0.0), v[i]);
            }
            if LIMIT {
                v[i] = S::min_f(S::splat_f(w.limit), v[i]);
            }
        }
        v
    }
}
