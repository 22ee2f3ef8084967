//! A sweep over the passes of a softmax in the table, one call each: every tier against the scalar one bit for bit, and against
//! plain loops.

use crate::common::{Rng, cases, say, tiers};
use siskin::bf16;
use siskin::internal::kernels::attention::LANES;
use siskin::internal::kernels::attention::gather::PADDING;
use siskin::internal::kernels::attention::normalize::Normalize;
use siskin::internal::kernels::attention::softmax::{Prepare, Scores, Span};
use siskin::internal::kernels::attention::table::Passes;
use siskin::internal::kernels::table::TIERS;
use std::f32::consts::LOG2_E;
use std::ptr;

const POISON: u32 = 0x7fa5_5a5a;
/// Words of poison behind what is written.
const FENCE: usize = 32;

/// Fewer where the CPU is emulated.
pub fn leaves_out(r: &mut Rng) -> bool {
    r.below(1000) >= cases(1000) as usize
}

pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Keys of a row here: more than the most registers that a pass takes at a time.
pub const KEYS: usize = 208;

/// A row of scores: at a cache line, as drivers keep them.
#[repr(align(64))]
#[derive(Clone)]
pub struct Row(pub [u32; KEYS]);

impl Row {
    /// What is not a key of the span is larger than any score of integers, and an infinity of floats.
    pub fn new(first: usize, last: usize, mut score: impl FnMut(usize) -> u32) -> Self {
        let inside = |key: usize| (first..last).contains(&key);
        Row(std::array::from_fn(|key| if inside(key) { score(key) } else { f32::INFINITY.to_bits() }))
    }

    pub fn scores(&mut self, first: usize, last: usize, offset: i32) -> Scores {
        Scores { p: self.0.as_mut_ptr().cast(), first, last, offset, most: f32::NEG_INFINITY, ..Scores::NONE }
    }

    pub fn float(&self, key: usize) -> f32 {
        f32::from_bits(self.0[key])
    }
}

fn same_words(a: &[u32], b: &[u32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(f32::from_bits(a), f32::from_bits(b)))
}

/// The first and the last key of each span.
pub fn spans() -> impl Iterator<Item = (usize, usize)> {
    let short = (0..=40).flat_map(|first| (first..=40).map(move |last| (first, last)));
    let long =
        [0, 1, 15, 16].into_iter().flat_map(|first| [64, 127, 128, 131, 200, KEYS].map(|last| (first, last)));
    short.chain(long)
}

/// All keys.
pub const ALL: &[Span] = &[Span { first: 0, last: KEYS }];

/// Some keys up to whole groups.
pub fn groups(first: usize, last: usize) -> Span {
    Span { first: first / LANES * LANES, last: last.next_multiple_of(LANES) }
}

/// Sums in 16 lanes to one, as passes do it.
fn folded(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Of each kind of registers once.
pub fn passes(test: &str) -> Vec<(&'static str, &'static Passes)> {
    let mut all: Vec<(&'static str, &'static Passes)> = vec![];
    for tier in tiers(test) {
        if !all.iter().any(|&(_, other)| ptr::eq(other, tier.float.passes)) {
            all.push((tier.float.multiply.name, tier.float.passes));
        }
    }
    say(&format!("{test}: rows {:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>()));
    all
}

pub fn scalar() -> &'static Passes {
    TIERS[0].float.passes
}

/// A score: mostly usual, and whatever can be one. Of integers, below 2^24 with any offset here.
pub fn score(r: &mut Rng, ints: bool, odd: &[f32]) -> u32 {
    match r.below(8) {
        _ if ints => [(r.next() % 16_000_000) as i32 - 8_000_000, r.below(100) as i32][r.below(2)] as u32,
        0 if !odd.is_empty() => odd[r.below(odd.len())].to_bits(),
        _ => r.float(-30.0, 30.0).to_bits(),
    }
}

/// How a row of floats is made: what is among the scores.
pub const ODD: [&[f32]; 4] = [
    &[],
    &[f32::NEG_INFINITY, -0.0, 0.0],
    &[f32::NAN, f32::NEG_INFINITY, 3e38, -3e38, 1e-42],
    &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN],
];

pub const OFFSETS: [i32; 4] = [0, 1, -8_000_000, 8_000_000];

#[test]
fn prepared_scores() {
    let mut r = Rng::new(75);
    for (name, passes) in passes("prepared_scores") {
        for ((first, last), ints) in spans().flat_map(|span| [(span, 0), (span, 1)]) {
            for round in 0..8 {
                if leaves_out(&mut r) {
                    continue;
                }
                let quantizes = round % 2 == 1;
                // A score that is not a number has no integer.
                let odd = ODD[if quantizes { r.below(2) } else { r.below(4) }];
                let offset = OFFSETS[r.below(4)];
                let mut got = Row::new(first, last, |_| score(&mut r, ints == 1, odd));
                let (raw, mut want) = (got.clone(), got.clone());
                // No longer than the span: nothing behind it is a bias.
                let bias: Vec<f32> = (0..last)
                    .map(|_| [f32::NEG_INFINITY, f32::MIN, 0.0, -0.0, r.float(-9.0, 9.0)][r.below(5)])
                    .collect();
                let scale = [0.125, -0.7, 1e-6, 1e30][r.below(4)];
                let by: Vec<f32> = (0..last).map(|_| [1.0, 0.3, 1e-3][r.below(3)]).collect();
                let p = Prepare {
                    step: if quantizes { [0.01, 3.0, 1e-30][r.below(3)] } else { 0.0 },
                    low: [-255.0, -128.0, 0.0][r.below(3)],
                    high: [0.0, 127.0, 255.0][r.below(3)],
                };
                let biased = round / 2 % 2 == 1;
                let own_bias = if biased { bias.as_ptr() } else { ptr::null() };
                let scaled = round / 4 % 2 == 1;
                let own_by = if scaled { by.as_ptr() } else { ptr::null() };
                for (row, passes) in [(&mut got, passes), (&mut want, scalar())] {
                    let row = row.scores(first, last, offset);
                    let mut rows = [Scores { bias: own_bias, by: own_by, scale, ..row }];
                    // SAFETY: the tier is supported; the row has whole groups, and each of its keys a bias and a factor.
                    unsafe { (passes.prepare[ints])(&mut rows, ALL, &p) };
                }
                let case = format!("{name} {first}..{last} ints {ints} offset {offset} scale {scale} {p:?}");
                assert!(same_words(&got.0, &want.0), "{case}\n{:x?}\n{:x?}\n{:x?}", raw.0, got.0, want.0);
                for key in 0..KEYS {
                    if !(first..last).contains(&key) {
                        assert_eq!(got.0[key], raw.0[key], "{case}: key {key} is not of the span");
                        continue;
                    }
                    let bias = if biased { bias[key] } else { 0.0 };
                    let mut x = match ints {
                        0 => raw.float(key),
                        _ => (raw.0[key] as i32 + offset) as f32,
                    };
                    if scaled {
                        x *= by[key];
                    }
                    if bias == f32::NEG_INFINITY {
                        x = 0.0;
                    }
                    let want = if quantizes {
                        (x * scale / p.step).clamp(p.low, p.high).round_ties_even().mul_add(p.step, bias)
                    } else {
                        x.mul_add(scale, bias)
                    };
                    // A rounded -0 is the integer 0.
                    let zero = want == 0.0 && got.float(key) == 0.0;
                    assert!(zero || same(got.float(key), want), "{case}: key {key}");
                }
            }
        }
    }
}

#[test]
fn largest_scores() {
    let mut r = Rng::new(76);
    for (name, passes) in passes("largest_scores") {
        for ((first, last), ints) in spans().flat_map(|span| [(span, 0), (span, 1)]) {
            for odd in ODD {
                if leaves_out(&mut r) {
                    continue;
                }
                let offset = OFFSETS[r.below(4)];
                let all_odd = r.below(4) == 0 && !odd.is_empty();
                let mut row = Row::new(first, last, |_| match ints {
                    0 if all_odd => odd[r.below(odd.len())].to_bits(),
                    _ => score(&mut r, ints == 1, odd),
                });
                let before = row.0;
                let [got, scalar] = [passes, scalar()].map(|passes| {
                    let mut rows = [row.scores(first, last, offset)];
                    // SAFETY: the tier is supported; the row has whole groups.
                    unsafe { (passes.maximum[ints])(&mut rows, ALL) };
                    rows[0].most
                });
                let value = |key: usize| match ints {
                    0 => row.float(key),
                    _ => (row.0[key] as i32 + offset) as f32,
                };
                // It ignores NaN.
                let want = (first..last).map(value).fold(f32::NEG_INFINITY, f32::max);
                let case = format!("{name} {first}..{last} ints {ints} offset {offset} {odd:?}");
                assert_eq!(got.to_bits(), scalar.to_bits(), "{case}");
                assert_eq!(got, want, "{case}");
                assert_eq!(row.0, before, "{case}: the row");
            }
        }
    }
}

/// What 2^0 is, and what exponentials may be off by: exact ones, and those that become bytes.
const KINDS: [(f32, f64); 2] = [(1.0, 3e-7), (255.0, 1.1e-4)];

#[test]
fn exponentials() {
    for kind in [0, 1] {
        exponentials_of(kind);
    }
}

fn exponentials_of(kind: usize) {
    let (one, relative) = KINDS[kind];
    let mut r = Rng::new(77);
    let mut worst = 0.0f64;
    for (name, passes) in passes("exponentials") {
        for ((first, last), ints) in spans().flat_map(|span| [(span, 0), (span, 1)]) {
            for (odd, a) in ODD.into_iter().flat_map(|odd| [1.0, 0.002, 8.0, 1e20].map(|a| (odd, a))) {
                if leaves_out(&mut r) {
                    continue;
                }
                let offset = OFFSETS[r.below(4)];
                let mut got = Row::new(first, last, |_| score(&mut r, ints == 1, odd));
                let (raw, mut want) = (got.clone(), got.clone());
                let (start, keys) = (r.float(0.0, 2.0), groups(first, last));
                let [found, scalar] = [(&mut got, passes), (&mut want, scalar())].map(|(row, passes)| {
                    let mut rows = [Scores { total: start, scale: a, ..row.scores(first, last, offset) }];
                    // SAFETY: the tier is supported; the row has whole groups.
                    unsafe {
                        (passes.maximum[ints])(&mut rows, ALL);
                        (passes.exponentials[kind][ints])(&mut rows, &keys, ALL);
                    }
                    rows[0]
                });
                let most = found.most;
                let case = format!("{name} {first}..{last} ints {ints} offset {offset} a {a} {odd:?}");
                assert!(same_words(&got.0, &want.0), "{case}\n{:x?}\n{:x?}\n{:x?}", raw.0, got.0, want.0);
                assert!(same(found.total, scalar.total), "{case}: {} {}", found.total, scalar.total);
                let mut lanes = [0.0; LANES];
                for key in 0..KEYS {
                    if !(first..last).contains(&key) {
                        let rest = if (keys.first..keys.last).contains(&key) { 0 } else { raw.0[key] };
                        assert_eq!(got.0[key], rest, "{case}: key {key} is not of the span");
                        continue;
                    }
                    lanes[key % LANES] += got.float(key);
                    let x = match ints {
                        0 => raw.float(key),
                        _ => (raw.0[key] as i32 + offset) as f32,
                    };
                    let (t, e) = (f64::from(x - most) * f64::from(a * LOG2_E), got.float(key));
                    let want = f64::from(one) * t.exp2();
                    if t.is_nan() {
                        assert!(e.is_nan(), "{case}: 2^NaN = {e}");
                    } else if t < -124.5 {
                        assert_eq!(e.to_bits(), 0, "{case}: 2^{t}");
                    } else {
                        let off = (f64::from(e) / want - 1.0).abs();
                        assert!(off <= relative, "{case}: 2^{t} = {e}, off by {off}");
                        assert!(t != 0.0 || e == one, "{case}: 2^0 = {e}");
                        worst = worst.max(off);
                    }
                }
                let total = start + folded(lanes);
                assert!(same(found.total, total), "{case}: {} {total}", found.total);
            }
        }
    }
    say(&format!("exponentials of {one}: off by {worst:.2e} of {relative:.0e}"));
}

/// Evenly from 2^-126 to 1.
#[test]
fn exponentials_of_a_grid() {
    for kind in [0, 1] {
        grid_of(kind);
    }
}

fn grid_of(kind: usize) {
    let (one, relative) = KINDS[kind];
    let mut worst = 0.0f64;
    for (name, passes) in passes("exponentials_of_a_grid") {
        let steps = (cases(1 << 16) as usize).next_multiple_of(KEYS);
        for at in (0..steps).step_by(KEYS) {
            // From -126 to 0, the last one 0 itself.
            let t = |key: usize| 126.0 * ((at + key + 1) as f32 / steps as f32 - 1.0);
            let mut row = Row::new(0, KEYS, |key| t(key).to_bits());
            let scale = LOG2_E.recip();
            let mut rows = [Scores { most: 0.0, scale, ..row.scores(0, KEYS, 0) }];
            // SAFETY: the tier is supported; the row has whole groups.
            unsafe { (passes.exponentials[kind][0])(&mut rows, &ALL[0], ALL) };
            for key in 0..KEYS {
                let (t, e) = (t(key) * (scale * LOG2_E), row.float(key));
                if t < -124.5 {
                    assert_eq!(e.to_bits(), 0, "{name}: 2^{t}");
                } else {
                    let off = (f64::from(e) / (f64::from(one) * f64::from(t).exp2()) - 1.0).abs();
                    assert!(off <= relative, "{name}: 2^{t} = {e}, off by {off}");
                    worst = worst.max(off);
                }
            }
        }
    }
    say(&format!("exponentials_of_a_grid of {one}: off by {worst:.2e} of {relative:.0e}"));
}

/// Many rows at once, of their own keys among segments that begin and end anywhere: the same as each alone, segment by segment.
#[test]
fn rows_and_segments() {
    let mut r = Rng::new(80);
    let live =
        [(1, 3), (5, 17), (17, 18), (30, 47), (48, 64), (70, 200)].map(|(first, last)| Span { first, last });
    for (name, passes) in passes("rows_and_segments") {
        for (kind, ints, round) in (0..80).map(|i| (i / 40, i / 20 % 2, i % 20)) {
            if leaves_out(&mut r) {
                continue;
            }
            let bounds: [(usize, usize); 5] =
                std::array::from_fn(|_| [(0, KEYS), (6, 90), (18, 30), (0, 0), (31, 71)][r.below(5)]);
            let mut rows =
                bounds.map(|(first, last)| Row::new(first, last, |_| score(&mut r, ints == 1, &[])));
            let mut alone = rows.clone();
            let mut all = [0, 1, 2, 3, 4].map(|i| rows[i].scores(bounds[i].0, bounds[i].1, OFFSETS[i % 4]));
            all.iter_mut().zip([0.01, 0.02, 0.03, 0.04, 0.05]).for_each(|(s, scale)| s.scale = scale);
            // SAFETY: the tier is supported; rows have whole groups.
            unsafe {
                (passes.maximum[ints])(&mut all, &live);
                (passes.exponentials[kind][ints])(&mut all, &ALL[0], &live);
            }
            for (i, row) in alone.iter_mut().enumerate() {
                let own = |span: &Span| span.first.max(bounds[i].0)..span.last.min(bounds[i].1);
                let value = |key: usize| match ints {
                    0 => row.float(key),
                    _ => (row.0[key] as i32 + OFFSETS[i % 4]) as f32,
                };
                let most = live.iter().flat_map(own).map(value).fold(f32::NEG_INFINITY, f32::max);
                let case = format!("{name} kind {kind} ints {ints} round {round} row {i} {:?}", bounds[i]);
                assert_eq!(all[i].most, most, "{case}");
                let mut keys = [0; KEYS];
                for span in &live {
                    for key in own(span) {
                        keys[key] = 1;
                    }
                }
                let mut one = row.scores(bounds[i].0, bounds[i].1, OFFSETS[i % 4]);
                (one.most, one.scale) = (most, all[i].scale);
                // Of all keys alone: what is not live is taken away after.
                // SAFETY: as above.
                unsafe { (passes.exponentials[kind][ints])(std::slice::from_mut(&mut one), &ALL[0], ALL) };
                let mut lanes = [0.0; LANES];
                for key in 0..KEYS {
                    let want = if keys[key] == 1 { row.float(key) } else { 0.0 };
                    assert!(
                        same(rows[i].float(key), want),
                        "{case} key {key}: {} {want}",
                        rows[i].float(key)
                    );
                    lanes[key % LANES] += want;
                }
                assert!(same(all[i].total, folded(lanes)), "{case}: {} {}", all[i].total, folded(lanes));
            }
        }
    }
}

/// What one weight is before it is stored, by steps of this size; `most` is the largest exponential.
fn weight(e: f32, (total, most): (f32, f32), w: &Normalize, largest: f32, to: usize, clips: bool) -> f32 {
    let stretch = w.stretch / if total < 1.0 || w.normalized { 1.0 } else { total };
    let (factor, gamma) = match w.step {
        0.0 if largest == 0.0 => (0.0, 0.0),
        // Of the largest exponential, whatever the total.
        0.0 if w.gamma == 0.0 && most < 2f32.powi(-100) => (0.0, 0.0),
        0.0 if w.gamma == 0.0 => (255.0 / most, 0.0),
        0.0 => (stretch * (255.0 / largest), w.gamma * (255.0 / largest)),
        step => (stretch / step, w.gamma / step),
    };
    // Of a NaN in the first of two, the second remains.
    let (at_least, at_most) =
        (|a: f32, b: f32| if b < a { a } else { b }, |a: f32, b: f32| if b > a { a } else { b });
    match clips {
        true => at_most(w.limit, at_least(0.0, e.mul_add(factor, gamma))),
        false if to == 2 => at_most(w.limit, e * factor),
        false if to == 0 && e * factor < f32::MIN_POSITIVE => 0.0,
        false => e * factor,
    }
}

#[test]
fn weights() {
    let mut r = Rng::new(78);
    let odd: [&[f32]; 3] = [&[0.0], &[0.0, 1e-42, 1.0, f32::MIN_POSITIVE], &[f32::NAN, 1.0, 0.0]];
    for (name, passes) in passes("weights") {
        for first in (0..=48).step_by(LANES) {
            for last in (first..=96).step_by(LANES) {
                for round in 0..300 {
                    if leaves_out(&mut r) {
                        continue;
                    }
                    let (to, clips, odd) = (round % 3, round / 3 % 2, odd[round / 6 % 3]);
                    let most = [1.0, 0.3, 1e-25, 1e-38, 0.0, 1.9][r.below(6)];
                    let row = Row::new(first, last, |_| match r.below(4) {
                        0 => (most * odd[r.below(odd.len())]).to_bits(),
                        _ => (most * r.float(0.0, 1.0)).to_bits(),
                    });
                    let total = [1.0, 1.7, 300.0, 0.0, f32::NAN][r.below(5)];
                    let w = Normalize {
                        stretch: [1.0, 1.4, 1e5, 1e12][r.below(4)],
                        gamma: [0.0, -0.4, -100.0][r.below(3)],
                        step: if to == 2 { [1.0 / 255.0, 0.01, 1.0, 0.0][r.below(4)] } else { 1.0 },
                        limit: if to == 2 { [255.0, 100.0][r.below(2)] } else { [1.0, 0.5][r.below(2)] },
                        normalized: false,
                    };
                    // Steps of their own are for what a softmax makes: exponentials up to 1, or weights times factors.
                    let plain = Normalize { stretch: 1.0, gamma: 0.0, ..w };
                    let w = match (clips, w.step == 0.0) {
                        (_, true) if most > 1.0 => Normalize { normalized: true, limit: 255.0, ..plain },
                        (0, true) => plain,
                        _ => w,
                    };
                    if most > 1.0 && !w.normalized {
                        continue;
                    }
                    let largest = (first..last).map(|key| row.float(key)).fold(0.0, f32::max);
                    let real = largest * (w.stretch / if total < 1.0 { 1.0 } else { total }) + w.gamma;
                    let real = if w.normalized { largest } else { real.min(1.0) };
                    let real = if real < 2f32.powi(-100) * w.stretch { 0.0 } else { real };
                    let step = if w.step == 0.0 { real * (1.0 / 255.0) } else { w.step };
                    let size = [4, 2, 1][to];
                    let bytes = size * (last - first);
                    let keys = Span { first, last };
                    let (mut got, mut scalar_row) = (row.clone(), row.clone());
                    let [n, scalar_n] =
                        [(&mut got, passes), (&mut scalar_row, scalar())].map(|(row, passes)| {
                            let mut rows = [Scores { total, largest, ..row.scores(0, KEYS, 0) }];
                            // SAFETY: the tier is supported; the row has whole groups.
                            unsafe { (passes.normalize[to][clips])(&mut rows, &keys, &w) };
                            (rows[0].nonzero, rows[0].weights, rows[0].exact)
                        });
                    // Weights begin where the chunk does.
                    let [got, scalar_out] = [got, scalar_row].map(|row| {
                        let all: Vec<u8> = row.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
                        all[size * first..].to_vec()
                    });
                    let case =
                        format!("{name} {first}..{last} to {to} clips {clips} total {total} {w:?} {odd:?}");
                    assert!((n.0, n.1) == (scalar_n.0, scalar_n.1) && same(n.2, scalar_n.2), "{case}");
                    let (mut nonzero, mut sum, mut exact) = (0, 0, [0.0; LANES]);
                    for key in first..last {
                        let want = weight(row.float(key), (total, largest), &w, real, to, clips == 1);
                        exact[key % LANES] += want;
                        let at = (key - first) * size;
                        let both = [&got[at..][..size], &scalar_out[at..][..size]];
                        match to {
                            0 => {
                                let both = both.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                                assert!(
                                    both.iter().all(|&b| same(b, want)),
                                    "{case}: key {key} {both:?} {want}"
                                );
                            }
                            1 => {
                                let both = both.map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32());
                                let want = bf16::from_f32(want).to_f32();
                                assert!(
                                    both.iter().all(|&b| same(b, want)),
                                    "{case}: key {key} {both:?} {want}"
                                );
                            }
                            _ => {
                                let q = want.max(0.0).round_ties_even() as u8;
                                assert_eq!(both, [&[q][..]; 2], "{case}: key {key} {want}");
                                sum += i64::from(q);
                            }
                        }
                        // A bfloat16 counts as it was before it was rounded.
                        nonzero += u32::from(if to == 2 { got[at] != 0 } else { want.to_bits() != 0 });
                    }
                    assert_eq!((n.0, n.1), (if clips == 1 { nonzero } else { 0 }, sum), "{case}");
                    // What rounding put above the limit need not be limited.
                    let exact = if clips == 1 && to == 2 { folded(exact) * step } else { 0.0 };
                    let near = same(n.2, exact) || (n.2 - exact).abs() <= 1e-6 * exact;
                    assert!(near, "{case} {n:?} {exact}");
                    // In place of exponentials, and no others.
                    let before: Vec<u8> = row.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
                    for out in [got, scalar_out] {
                        assert_eq!(out[bytes..], before[size * first + bytes..], "{case}: wrote too far");
                    }
                }
            }
        }
    }
}

/// The sum and the largest of a chunk's weights, and weights times factors of their keys.
#[test]
fn gauges() {
    let mut r = Rng::new(81);
    for (name, passes) in passes("gauges") {
        for first in (0..=48).step_by(LANES) {
            for last in (first..=KEYS).step_by(LANES) {
                for round in 0..8 {
                    if leaves_out(&mut r) {
                        continue;
                    }
                    let odd: &[f32] = [&[0.0][..], &[f32::NAN, 0.0, 1.0]][round / 2 % 2];
                    let row = Row::new(first, last, |_| match r.below(4) {
                        0 => odd[r.below(odd.len())].to_bits(),
                        _ => r.float(0.0, 1.0).to_bits(),
                    });
                    let by: Vec<f32> =
                        (first..last).map(|_| [0.0, 0.7, 1e-30, f32::MAX][r.below(4)]).collect();
                    let scaled = round % 2 == 1;
                    let (mut got, keys) = (row.clone(), Span { first, last });
                    let mut rows = [got.scores(0, KEYS, 0)];
                    let factors = if scaled { by.as_ptr() } else { ptr::null() };
                    // SAFETY: the tier is supported; the row has whole groups, and each of its keys a factor.
                    unsafe { (passes.gauge[usize::from(scaled)])(&mut rows, &keys, factors) };
                    let (mut exact, mut largest) = ([0.0f32; LANES], 0.0f32);
                    let case = format!("{name} {first}..{last} scaled {scaled} {odd:?}");
                    for key in 0..KEYS {
                        if !(first..last).contains(&key) {
                            assert_eq!(got.0[key], row.0[key], "{case}: key {key} is not of the span");
                            continue;
                        }
                        let want = if scaled { row.float(key) * by[key - first] } else { row.float(key) };
                        assert!(same(got.float(key), want), "{case}: key {key}");
                        exact[key % LANES] += want;
                        largest = largest.max(want);
                    }
                    let exact = folded(exact);
                    assert!(same(rows[0].exact, exact), "{case}: {} {exact}", rows[0].exact);
                    assert_eq!(rows[0].largest, largest, "{case}");
                }
            }
        }
    }
}

#[test]
fn words_that_are_not_zero() {
    let mut r = Rng::new(79);
    for (name, passes) in passes("words_that_are_not_zero") {
        for n in 0..=100 {
            for density in [0, 1, 5, 9, 10] {
                if leaves_out(&mut r) {
                    continue;
                }
                // -0, and what only one byte or half is of.
                let words: Vec<u32> = (0..n)
                    .map(|_| match r.below(10) < density {
                        true => {
                            [0x8000_0000, 1, 0x100, 0x1_0000, 0xff00_0000, r.next() as u32 | 4][r.below(6)]
                        }
                        false => 0,
                    })
                    .collect();
                let (mut places, mut values) =
                    (vec![POISON; n + PADDING + FENCE], vec![POISON; n + PADDING + FENCE]);
                // SAFETY: the tier is supported; there is room for n and the padding.
                let count =
                    unsafe { (passes.collect)(words.as_ptr(), n, places.as_mut_ptr(), values.as_mut_ptr()) };
                let want: Vec<u32> = (0..n as u32).filter(|&i| words[i as usize] != 0).collect();
                assert_eq!(count, want.len(), "{name} {n}");
                assert_eq!(places[..count], want, "{name} {n}");
                assert!((0..count).all(|i| values[i] == words[want[i] as usize]), "{name} {n}");
                for list in [places, values] {
                    assert_eq!(list[count..count + PADDING], [0; PADDING], "{name} {n}");
                    assert!(list[n + PADDING..].iter().all(|&v| v == POISON), "{name} {n}: wrote too far");
                }
            }
        }
    }
}
