//! A sweep over the passes of a softmax in the table, one call each: every tier against the scalar one bit for bit, and against
//! plain loops.

mod common;

use common::{Rng, cases, say, tiers};
use siskin::bf16;
use siskin::kernels::attention::LANES;
use siskin::kernels::attention::gather::PADDING;
use siskin::kernels::attention::softmax::{Prepare, Span, Weigh};
use siskin::kernels::attention::table::Passes;
use siskin::kernels::table::TIERS;
use std::f32::consts::LOG2_E;
use std::ptr;

const POISON: u32 = 0x7fa5_5a5a;
/// Words of poison behind what is written.
const FENCE: usize = 32;

/// Fewer where the CPU is emulated.
fn leaves_out(r: &mut Rng) -> bool {
    r.below(1000) >= cases(1000) as usize
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Keys of a row here.
const KEYS: usize = 48;

/// A row of scores: at a cache line, as drivers keep them.
#[repr(align(64))]
#[derive(Clone)]
struct Row([u32; KEYS]);

impl Row {
    /// What is not a key of the span is larger than any score of integers, and an infinity of floats.
    fn new(first: usize, last: usize, mut score: impl FnMut(usize) -> u32) -> Self {
        let inside = |key: usize| (first..last).contains(&key);
        Row(std::array::from_fn(|key| if inside(key) { score(key) } else { f32::INFINITY.to_bits() }))
    }

    fn span(&mut self, first: usize, last: usize, offset: i32) -> Span {
        Span { row: self.0.as_mut_ptr().cast(), first, last, offset }
    }

    fn float(&self, key: usize) -> f32 {
        f32::from_bits(self.0[key])
    }
}

fn same_words(a: &[u32], b: &[u32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(f32::from_bits(a), f32::from_bits(b)))
}

/// The first and the last key of each span.
fn spans() -> impl Iterator<Item = (usize, usize)> {
    (0..=40).flat_map(|first| (first..=40).map(move |last| (first, last)))
}

/// Of each kind of registers once.
fn passes(test: &str) -> Vec<(&'static str, &'static Passes)> {
    let mut all: Vec<(&'static str, &'static Passes)> = vec![];
    for tier in tiers(test) {
        if !all.iter().any(|&(_, other)| ptr::eq(other, tier.float.passes)) {
            all.push((tier.float.multiply.name, tier.float.passes));
        }
    }
    say(&format!("{test}: rows {:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>()));
    all
}

fn scalar() -> &'static Passes {
    TIERS[0].float.passes
}

/// A score: mostly usual, and whatever can be one. Of integers, below 2^24 with any offset here.
fn score(r: &mut Rng, ints: bool, odd: &[f32]) -> u32 {
    match r.below(8) {
        _ if ints => [(r.next() % 16_000_000) as i32 - 8_000_000, r.below(100) as i32][r.below(2)] as u32,
        0 if !odd.is_empty() => odd[r.below(odd.len())].to_bits(),
        _ => r.float(-30.0, 30.0).to_bits(),
    }
}

/// How a row of floats is made: what is among the scores.
const ODD: [&[f32]; 4] = [
    &[],
    &[f32::NEG_INFINITY, -0.0, 0.0],
    &[f32::NAN, f32::NEG_INFINITY, 3e38, -3e38, 1e-42],
    &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN],
];

const OFFSETS: [i32; 4] = [0, 1, -8_000_000, 8_000_000];

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
                let p = Prepare {
                    scale: [0.125, -0.7, 1e-6, 1e30][r.below(4)],
                    step: if quantizes { [0.01, 3.0, 1e-30][r.below(3)] } else { 0.0 },
                    low: [-255.0, -128.0, 0.0][r.below(3)],
                    high: [0.0, 127.0, 255.0][r.below(3)],
                    bias: if round / 2 % 2 == 1 { bias.as_ptr() } else { ptr::null() },
                };
                // SAFETY: the tier is supported; the row has whole groups, and each key of the span a bias.
                unsafe {
                    (passes.prepare[ints])(&got.span(first, last, offset), &p);
                    (scalar().prepare[ints])(&want.span(first, last, offset), &p);
                }
                let case = format!("{name} {first}..{last} ints {ints} offset {offset} {p:?}");
                assert!(same_words(&got.0, &want.0), "{case}\n{:x?}\n{:x?}\n{:x?}", raw.0, got.0, want.0);
                for key in 0..KEYS {
                    if !(first..last).contains(&key) {
                        assert_eq!(got.0[key], raw.0[key], "{case}: key {key} is not of the span");
                        continue;
                    }
                    let bias = if p.bias.is_null() { 0.0 } else { bias[key] };
                    let mut x = match ints {
                        0 => raw.float(key),
                        _ => (raw.0[key] as i32 + offset) as f32,
                    };
                    if bias == f32::NEG_INFINITY {
                        x = 0.0;
                    }
                    let want = if quantizes {
                        (x * p.scale / p.step).clamp(p.low, p.high).round_ties_even().mul_add(p.step, bias)
                    } else {
                        x.mul_add(p.scale, bias)
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
                // SAFETY: the tier is supported; the row has whole groups.
                let (got, scalar) = unsafe {
                    let span = row.span(first, last, offset);
                    ((passes.maximum[ints])(&span), (scalar().maximum[ints])(&span))
                };
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

/// What exponentials may be off by.
const RELATIVE: f64 = 3e-7;

#[test]
fn exponentials() {
    let mut r = Rng::new(77);
    let mut worst = 0.0f64;
    for (name, passes) in passes("exponentials") {
        for ((first, last), ints) in spans().flat_map(|span| [(span, 0), (span, 1)]) {
            for (odd, a) in ODD.into_iter().flat_map(|odd| [LOG2_E, 0.003, 12.0, 1e20].map(|a| (odd, a))) {
                if leaves_out(&mut r) {
                    continue;
                }
                let offset = OFFSETS[r.below(4)];
                let mut got = Row::new(first, last, |_| score(&mut r, ints == 1, odd));
                let (raw, mut want) = (got.clone(), got.clone());
                let start: [f32; LANES] = std::array::from_fn(|_| r.float(0.0, 2.0));
                let (mut sums, mut scalar_sums) = (start, start);
                // SAFETY: the tier is supported; the row has whole groups, and there are 16 sums.
                let most = unsafe {
                    let most = (passes.maximum[ints])(&got.span(first, last, offset));
                    (passes.exponentials[ints])(&got.span(first, last, offset), a, most, sums.as_mut_ptr());
                    let span = want.span(first, last, offset);
                    (scalar().exponentials[ints])(&span, a, most, scalar_sums.as_mut_ptr());
                    most
                };
                let case = format!("{name} {first}..{last} ints {ints} offset {offset} a {a} {odd:?}");
                assert!(same_words(&got.0, &want.0), "{case}\n{:x?}\n{:x?}\n{:x?}", raw.0, got.0, want.0);
                let bits = |sums: [f32; LANES]| sums.map(f32::to_bits);
                assert!(same_words(&bits(sums), &bits(scalar_sums)), "{case}: {sums:?} {scalar_sums:?}");
                let mut total = start;
                for key in 0..KEYS {
                    if !(first..last).contains(&key) {
                        assert_eq!(got.0[key], raw.0[key], "{case}: key {key} is not of the span");
                        continue;
                    }
                    total[key % LANES] += got.float(key);
                    let x = match ints {
                        0 => raw.float(key),
                        _ => (raw.0[key] as i32 + offset) as f32,
                    };
                    let (t, e) = (((x - most) * a), got.float(key));
                    let want = f64::from(t).exp2();
                    if t.is_nan() {
                        assert!(e.is_nan(), "{case}: 2^NaN = {e}");
                    } else if t < -124.0 {
                        assert_eq!(e.to_bits(), 0, "{case}: 2^{t}");
                    } else {
                        let off = (f64::from(e) / want - 1.0).abs();
                        assert!(off <= RELATIVE, "{case}: 2^{t} = {e}, off by {off}");
                        assert!(t != 0.0 || e == 1.0, "{case}: 2^0 = {e}");
                        worst = worst.max(off);
                    }
                }
                assert!(same_words(&bits(sums), &bits(total)), "{case}: {sums:?} {total:?}");
            }
        }
    }
    say(&format!("exponentials: off by {worst:.2e} of {RELATIVE:.0e}"));
}

/// Evenly from 2^-126 to 1.
#[test]
fn exponentials_of_a_grid() {
    let mut worst = 0.0f64;
    for (name, passes) in passes("exponentials_of_a_grid") {
        let steps = (cases(1 << 16) as usize).next_multiple_of(KEYS);
        for at in (0..steps).step_by(KEYS) {
            // From -126 to 0, the last one 0 itself.
            let t = |key: usize| 126.0 * ((at + key + 1) as f32 / steps as f32 - 1.0);
            let mut row = Row::new(0, KEYS, |key| t(key).to_bits());
            let mut sums = [0.0; LANES];
            // SAFETY: the tier is supported; the row has whole groups, and there are 16 sums.
            unsafe { (passes.exponentials[0])(&row.span(0, KEYS, 0), 1.0, 0.0, sums.as_mut_ptr()) };
            for key in 0..KEYS {
                let (t, e) = (t(key), row.float(key));
                if t < -124.0 {
                    assert_eq!(e.to_bits(), 0, "{name}: 2^{t}");
                } else {
                    let off = (f64::from(e) / f64::from(t).exp2() - 1.0).abs();
                    assert!(off <= RELATIVE, "{name}: 2^{t} = {e}, off by {off}");
                    worst = worst.max(off);
                }
            }
        }
    }
    say(&format!("exponentials_of_a_grid: off by {worst:.2e} of {RELATIVE:.0e}"));
}

/// What one weight is before it is stored.
fn weight(e: f32, w: &Weigh, to: usize, clips: bool) -> f32 {
    // Of a NaN in the first of two, the second remains.
    let (at_least, at_most) =
        (|a: f32, b: f32| if b < a { a } else { b }, |a: f32, b: f32| if b > a { a } else { b });
    match clips {
        true => at_most(w.limit, at_least(0.0, e.mul_add(w.factor, w.gamma))),
        false if to == 2 => at_most(w.limit, e * w.factor),
        false => e * w.factor,
    }
}

#[test]
fn weights() {
    let mut r = Rng::new(78);
    let odd: [&[f32]; 3] = [&[0.0], &[0.0, 1e-42, 1.0, f32::MIN_POSITIVE], &[f32::NAN, 1.0, 0.0]];
    for (name, passes) in passes("weights") {
        for first in (0..=KEYS).step_by(LANES) {
            for last in (first..=KEYS).step_by(LANES) {
                for round in 0..300 {
                    if leaves_out(&mut r) {
                        continue;
                    }
                    let (to, clips, odd) = (round % 3, round / 3 % 2, odd[round / 6 % 3]);
                    let mut row = Row::new(first, last, |_| match r.below(4) {
                        0 => odd[r.below(odd.len())].to_bits(),
                        _ => r.float(0.0, 1.0).to_bits(),
                    });
                    let w = Weigh {
                        factor: [1.0, 255.0, 0.031, 1e-3, 1e5][r.below(5)],
                        gamma: [0.0, -0.4, 0.1, -100.0][r.below(4)],
                        limit: if to == 2 { [255.0, 100.0][r.below(2)] } else { [1.0, 0.5][r.below(2)] },
                    };
                    let size = [4, 2, 1][to];
                    let bytes = size * (last - first);
                    let mut out = [(); 2].map(|()| vec![0xa5u8; 4 * KEYS + 64]);
                    let [got, scalar_out] = &mut out;
                    let (n, scalar_n, in_place, n_in_place);
                    let mut own = row.clone();
                    // SAFETY: the tier is supported; the row has whole groups, and there is room for the weights, which lie no
                    // farther in a row than their exponentials.
                    unsafe {
                        let span = row.span(first, last, 0);
                        n = (passes.weigh[to][clips])(&span, &w, got.as_mut_ptr());
                        scalar_n = (scalar().weigh[to][clips])(&span, &w, scalar_out.as_mut_ptr());
                        let span = own.span(first, last, 0);
                        let place = span.row.add(size * first);
                        n_in_place = (passes.weigh[to][clips])(&span, &w, place);
                        in_place = std::slice::from_raw_parts(place, bytes).to_vec();
                    }
                    let case = format!("{name} {first}..{last} to {to} clips {clips} {w:?} {odd:?}");
                    assert_eq!(n, scalar_n, "{case}");
                    assert_eq!(n, n_in_place, "{case}: in place");
                    assert_eq!(in_place, got[..bytes], "{case}: in place");
                    let (mut nonzero, mut sum) = (0, 0);
                    for key in first..last {
                        let want = weight(row.float(key), &w, to, clips == 1);
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
                                sum += i32::from(q);
                            }
                        }
                        // A bfloat16 counts as it was before it was rounded.
                        nonzero += u32::from(if to == 2 { got[at] != 0 } else { want.to_bits() != 0 });
                    }
                    assert_eq!(n, (if clips == 1 { nonzero } else { 0 }, sum), "{case}");
                    for out in [got, scalar_out] {
                        assert!(out[bytes..].iter().all(|&b| b == 0xa5), "{case}: wrote too far");
                    }
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
