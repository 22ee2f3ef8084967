//! Rows of scores, and the first passes of a softmax over them. Then come `exponentials.rs` and, to weights, `normalize.rs`.
//!
//! ```text
//! prepare:       s[key] = quantize(raw[key] * by[key] * scale) + bias[key]       quantize and by are optional
//! maximum:       most   = max over live keys of s[key]
//! ```
//!
//! A row has 4 bytes for each key: f32 scores, or i32 scores to which an offset is added. Sums are taken in 16 lanes,
//! key by key, whatever the width of a register, so that they are the same on every tier. A call takes many rows: the
//! work at the beginning and end of a row then overlaps with that of its neighbours.

use super::LANES;
use crate::kernels::simd::Simd;
use std::marker::PhantomData;
use std::ops::Range;

/// A row of scores on its way to weights, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// The score of key 0, at a cache line.
    pub p: *mut u8,
    /// The first key that the row attends to.
    pub first: usize,
    /// One more than the last key that the row attends to.
    pub last: usize,
    /// What is added to integer scores.
    pub offset: i32,
    /// The factor of scores.
    pub scale: f32,
    /// Null, or the factors of scores beside, one number for each key from key 0 on.
    pub by: *const f32,
    /// Null, or the bias that is added to scaled scores, one number for each key from key 0 on.
    pub bias: *const f32,
    /// The largest score so far.
    pub most: f32,
    /// The sum of exponentials so far.
    pub total: f32,
    /// The number of weights so far that are not 0, where weights are clipped.
    pub nonzero: u32,
    /// The sum of weights so far, where weights are bytes.
    pub weights: i64,
    /// The sum of what is rounded to bytes, of the keys of a chunk.
    pub exact: f32,
    /// The largest of what is rounded to bytes, of the keys of a chunk.
    pub largest: f32,
}

/// A range of keys.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first key.
    pub first: usize,
    /// One more than the last key.
    pub last: usize,
}

impl Scores {
    /// A row without keys.
    pub const NONE: Self = Self {
        p: std::ptr::null_mut(),
        first: 0,
        last: 0,
        offset: 0,
        scale: 1.0,
        by: std::ptr::null(),
        bias: std::ptr::null(),
        most: 0.0,
        total: 0.0,
        nonzero: 0,
        weights: 0,
        exact: 0.0,
        largest: 0.0,
    };

    /// The keys of a span that the row attends to.
    #[inline(always)]
    pub(super) fn own(&self, span: &Span) -> Span {
        let first = span.first.max(self.first);
        Span { first, last: span.last.min(self.last).max(first) }
    }
}

/// What is done to scores before the maximum is taken.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// The real size of a step of the quantizer of scaled scores. A step of 0 does not quantize.
    pub step: f32,
    /// The smallest integer of the quantizer, less its zero point.
    pub low: f32,
    /// The largest integer of the quantizer, less its zero point.
    pub high: f32,
}

/// The type of raw scores in a row.
pub trait Raw<S: Simd>: 'static {
    /// The largest score, in all lanes, in the form that scores are subtracted from.
    type Most: Copy;
    /// The bits of the smallest score: the maximum of no scores.
    const NOTHING: u32;
    /// Lane by lane the larger; the second where the first is NaN.
    unsafe fn larger(a: S::F, b: S::F) -> S::F;
    /// The real value of the largest of 16 scores; -inf for the maximum of no scores. None is NaN.
    fn largest(lanes: [u32; LANES], offset: i32) -> f32;
    /// Loads a register of scores and converts them to real values.
    unsafe fn load(p: *const u8, offset: i32) -> S::F;
    /// The largest score, in all lanes.
    unsafe fn most(most: f32, offset: i32) -> Self::Most;
    /// Loads a register of scores: the real values, less the largest.
    unsafe fn less(p: *const u8, most: Self::Most) -> S::F;
}
/// f32 scores.
pub struct Floats;
/// i32 scores, whose magnitude is below 2^24 with the offset added.
pub struct Ints;
impl<S: Simd> Raw<S> for Floats {
    type Most = S::F;
    const NOTHING: u32 = f32::NEG_INFINITY.to_bits();
    #[inline(always)]
    unsafe fn larger(a: S::F, b: S::F) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::max_f(a, b) }
    }
    #[inline(always)]
    fn largest(lanes: [u32; LANES], _offset: i32) -> f32 {
        // The maximum of 0 and -0 may be either; the addition makes it 0.
        halves(lanes.map(f32::from_bits), |a, b| if b > a { b } else { a }) + 0.0
    }
    #[inline(always)]
    unsafe fn load(p: *const u8, _offset: i32) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::load_f(p.cast()) }
    }
    #[inline(always)]
    unsafe fn most(most: f32, _offset: i32) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::splat_f(most) }
    }
    #[inline(always)]
    unsafe fn less(p: *const u8, most: S::F) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::sub_f(S::load_f(p.cast()), most) }
    }
}
impl<S: Simd> Raw<S> for Ints {
    type Most = S::V;
    const NOTHING: u32 = i32::MIN as u32;
    #[inline(always)]
    unsafe fn larger(a: S::F, b: S::F) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::as_f(S::max(S::as_v(a), S::as_v(b))) }
    }
    #[inline(always)]
    fn largest(lanes: [u32; LANES], offset: i32) -> f32 {
        match halves(lanes.map(|lane| lane as i32), i32::max) {
            i32::MIN => f32::NEG_INFINITY,
            most => (most + offset) as f32,
        }
    }
    #[inline(always)]
    unsafe fn load(p: *const u8, offset: i32) -> S::F {
        // SAFETY: the caller promises what the callee asks for.
        unsafe { S::to_f32(S::add(S::load(p), S::splat(offset))) }
    }
    #[inline(always)]
    unsafe fn most(most: f32, offset: i32) -> S::V {
        // SAFETY: the caller vouches for the tier. The largest score is an integer; its offset is subtracted, as
        // scores in the row have none.
        unsafe { S::splat((most as i32).wrapping_sub(offset)) }
    }
    #[inline(always)]
    unsafe fn less(p: *const u8, most: S::V) -> S::F {
        // SAFETY: the caller vouches for the tier and a register of scores. The difference is exact, and rounded as
        // that of floats would be.
        unsafe { S::to_f32(S::sub(S::load(p), most)) }
    }
}

/// Reduces 16 lanes to one: joins the upper half to the lower, then halves again.
#[inline(always)]
pub(super) fn halves<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// 16 keys, in as many registers as that takes.
pub(super) type Group<S> = [<S as Simd>::F; 4];

/// Loads the bits of the 16 words at `p`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(p: *const f32) -> Group<S> {
    // SAFETY: the caller vouches for the words, and for the tier.
    unsafe {
        let mut group = [S::splat_f(0.0); 4];
        for i in 0..LANES / S::LANES {
            group[i] = S::load_f(p.add(i * S::LANES));
        }
        group
    }
}

/// Stores 16 words at `p`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(p: *mut f32, group: Group<S>) {
    // SAFETY: the caller vouches for the words, and for the tier.
    unsafe {
        for i in 0..LANES / S::LANES {
            S::store_f(p.add(i * S::LANES), group[i]);
        }
    }
}

/// `inside` in the lanes of `keys`, `outside` in the other lanes of a group of 16, bit for bit.
#[inline(always)]
pub(super) unsafe fn choose<S: Simd>(keys: &Range<usize>, inside: Group<S>, outside: Group<S>) -> Group<S> {
    /// l in lane l, and -l.
    const LANE: [[f32; LANES]; 2] = {
        let mut lane = [[0.0; LANES]; 2];
        let mut l = 0;
        while l < LANES {
            lane[0][l] = l as f32;
            lane[1][l] = -(l as f32);
            l += 1;
        }
        lane
    };
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let (first, last) = (keys.start as f32, keys.end as f32);
        let mut group = inside;
        for i in 0..LANES / S::LANES {
            let lane = S::load_f(LANE[0].as_ptr().add(i * S::LANES));
            let less = S::load_f(LANE[1].as_ptr().add(i * S::LANES));
            let own = S::at_least(inside[i], lane, S::splat_f(first));
            let own = S::at_least(own, less, S::splat_f(1.0 - last));
            let before = S::at_least(outside[i], less, S::splat_f(1.0 - first));
            let behind = S::at_least(outside[i], lane, S::splat_f(last));
            group[i] = S::as_f(S::xor(S::as_v(own), S::xor(S::as_v(before), S::as_v(behind))));
        }
        group
    }
}

/// An operation on the keys of a row.
pub(super) trait Pass<S: Simd> {
    /// The most registers of keys that are computed at a time: 4, or where there are 32 registers 8.
    const AT_ONCE: usize = MOST;
    /// Computes `N` registers of keys from `key` on.
    unsafe fn whole<const N: usize>(&mut self, key: usize);
    /// Computes `keys` of the group of 16 that begins at `key`; the others must stay as they are.
    unsafe fn edge(&mut self, key: usize, keys: Range<usize>);
}

/// Registers of keys that a pass takes at a time, so that as many independent chains of operations overlap. More than
/// 4 are taken only where there are 32 registers.
const MOST: usize = 8;

/// Runs a pass over a range of keys, in order, some registers at a time. Incomplete groups at both ends are handled
/// outside of the loop, which then has no decisions to take.
#[inline(always)]
pub(super) unsafe fn pass<S: Simd, P: Pass<S>>(span: Span, pass: &mut P) {
    let (first, last) = (span.first.next_multiple_of(LANES), span.last / LANES * LANES);
    // SAFETY: the caller vouches for the tier, and for the row that the pass reads and writes.
    unsafe {
        if first > span.first {
            let group = first - LANES;
            pass.edge(group, span.first - group..first.min(span.last) - group);
        }
        let mut key = first;
        while S::REGISTERS == 32 && P::AT_ONCE == MOST && key + MOST * S::LANES <= last {
            pass.whole::<MOST>(key);
            key += MOST * S::LANES;
        }
        while key + 4 * S::LANES <= last {
            pass.whole::<4>(key);
            key += 4 * S::LANES;
        }
        while key < last {
            match LANES / S::LANES {
                1 => pass.whole::<1>(key),
                _ => pass.whole::<2>(key),
            }
            key += LANES;
        }
        if last >= first && last < span.last {
            pass.edge(last, 0..span.last - last);
        }
    }
}

/// Scales, optionally quantizes and biases the raw scores of live keys; the results are floats.
#[inline(always)]
pub unsafe fn prepare<S: Simd, R: Raw<S>>(rows: &mut [Scores], live: &[Span], p: &Prepare) {
    // SAFETY: the caller vouches for the rows, for a bias and a factor of each live key, and for the tier.
    unsafe {
        for row in rows {
            for span in live {
                pass::<S, _>(row.own(span), &mut Preparing::<R> { row, p, raw: PhantomData });
            }
        }
    }
}

/// The pass of [`prepare`].
struct Preparing<'a, R> {
    row: &'a Scores,
    p: &'a Prepare,
    raw: PhantomData<R>,
}

impl<R> Preparing<'_, R> {
    /// A register of prepared scores.
    #[inline(always)]
    unsafe fn prepare<S: Simd>(&self, score: S::F, bias: S::F) -> S::F {
        let (p, scale) = (self.p, self.row.scale);
        // SAFETY: the caller vouches for the tier.
        unsafe {
            // A bias below `f32::MIN` masks a key out: its score must not matter, even if it is infinite or NaN.
            let score = S::at_least(score, bias, S::splat_f(f32::MIN));
            if p.step == 0.0 {
                return S::fma(score, S::splat_f(scale), bias);
            }
            let steps = S::div_f(S::mul_f(score, S::splat_f(scale)), S::splat_f(p.step));
            let steps = S::max_f(S::splat_f(p.low), S::min_f(S::splat_f(p.high), steps));
            S::fma(S::to_f32(S::round(steps)), S::splat_f(p.step), bias)
        }
    }
}

impl<S: Simd, R: Raw<S>> Pass<S> for Preparing<'_, R> {
    #[inline(always)]
    unsafe fn whole<const N: usize>(&mut self, key: usize) {
        // SAFETY: the caller vouches for the tier, and for the keys in the row, the bias and the factors.
        unsafe {
            let mut bias = [S::splat_f(0.0); N];
            if !self.row.bias.is_null() {
                for i in 0..N {
                    bias[i] = S::load_f(self.row.bias.wrapping_add(key + i * S::LANES));
                }
            }
            for i in 0..N {
                let at = self.row.p.add(4 * (key + i * S::LANES));
                let mut score = R::load(at, self.row.offset);
                if !self.row.by.is_null() {
                    score = S::mul_f(score, S::load_f(self.row.by.wrapping_add(key + i * S::LANES)));
                }
                S::store_f(at.cast(), self.prepare::<S>(score, bias[i]));
            }
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, key: usize, keys: Range<usize>) {
        // SAFETY: the caller vouches for the tier, and for the group of 16 in the row; of the bias and the factors
        // only `keys` are read.
        unsafe {
            let (mut bias, mut by) = ([0.0; LANES], [1.0; LANES]);
            for (of, to) in [(self.row.bias, &mut bias), (self.row.by, &mut by)] {
                if !of.is_null() {
                    for at in keys.clone() {
                        to[at] = *of.wrapping_add(key + at);
                    }
                }
            }
            let p = self.row.p.add(4 * key);
            let (raw, bias, by) = (load::<S>(p.cast()), load::<S>(bias.as_ptr()), load::<S>(by.as_ptr()));
            let mut own = raw;
            for i in 0..LANES / S::LANES {
                let score = S::mul_f(R::load(p.add(4 * i * S::LANES), self.row.offset), by[i]);
                own[i] = self.prepare::<S>(score, bias[i]);
            }
            store::<S>(p.cast(), choose::<S>(&keys, own, raw));
        }
    }
}

/// Sets `most` to the largest score of live keys, if that is larger; NaN is not.
#[inline(always)]
pub unsafe fn maximum<S: Simd, R: Raw<S>>(rows: &mut [Scores], live: &[Span]) {
    // SAFETY: the caller vouches for the rows, and for the tier.
    unsafe {
        let nothing = S::as_f(S::splat(R::NOTHING as i32));
        for row in rows {
            let mut maximum = Maximum::<S, R> { p: row.p, most: [nothing; MOST], raw: PhantomData };
            for span in live {
                pass::<S, _>(row.own(span), &mut maximum);
            }
            let (mut most, each) = ([nothing; 4], LANES / S::LANES);
            for i in 0..MOST {
                most[i % each] = R::larger(maximum.most[i], most[i % each]);
            }
            let mut lanes = [0; LANES];
            store::<S>(lanes.as_mut_ptr().cast(), most);
            row.most = row.most.max(R::largest(lanes, row.offset));
        }
    }
}

/// The pass of [`maximum`].
struct Maximum<S: Simd, R> {
    p: *const u8,
    most: [S::F; MOST],
    raw: PhantomData<R>,
}

impl<S: Simd, R: Raw<S>> Pass<S> for Maximum<S, R> {
    #[inline(always)]
    unsafe fn whole<const N: usize>(&mut self, key: usize) {
        for i in 0..N {
            // SAFETY: the caller vouches for the tier, and for the keys in the row.
            unsafe {
                let raw = S::load_f(self.p.add(4 * (key + i * S::LANES)).cast());
                self.most[i] = R::larger(raw, self.most[i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn edge(&mut self, key: usize, keys: Range<usize>) {
        // SAFETY: the caller vouches for the tier, and for the group of 16 in the row.
        unsafe {
            let nothing = [S::as_f(S::splat(R::NOTHING as i32)); 4];
            let own = choose::<S>(&keys, load::<S>(self.p.add(4 * key).cast()), nothing);
            for i in 0..LANES / S::LANES {
                self.most[i] = R::larger(own[i], self.most[i]);
            }
        }
    }
}
