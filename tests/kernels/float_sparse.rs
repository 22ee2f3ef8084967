//! A sweep over the other kernels of floats in the table, one call each, against plain Rust: gather and scatter of every
//! height and width, those for one token, and what moves rows from one format or layout to another.

use crate::common::{Rng, cases, tiers};
use siskin::Element;
use siskin::internal::kernels::float::{Band, Chunk, Columns};
use siskin::internal::kernels::pack::Tokens;
use siskin::internal::kernels::sparse::Group;
use siskin::{bf16, f16};

/// None of its bytes is 0.
const POISON: f32 = 123.456;

/// The bytes of 4-byte elements, aligned as the kernels for one token need them.
fn bytes(words: &[u32]) -> &[u8] {
    // SAFETY: any bits of a word are bytes.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// A float, or two bfloat16 of which the first is below.
fn word(r: &mut Rng, pairs: bool) -> u32 {
    let mut half = || bf16::from_f32(r.float(-3.0, 3.0)).to_bits();
    if pairs { u32::from(half()) | u32::from(half()) << 16 } else { r.float(-3.0, 3.0).to_bits() }
}

/// A sum on its way, and the magnitudes that a tolerance for pairs comes from.
#[derive(Clone, Copy)]
struct Sum {
    value: f32,
    magnitude: f32,
}

impl Sum {
    fn of(value: f32) -> Self {
        Sum { value, magnitude: value.abs() }
    }

    fn add(&mut self, x: f32, w: f32) {
        self.value = x.mul_add(w, self.value);
        self.magnitude += (x * w).abs();
    }

    fn dot(&mut self, x: u32, w: u32, pairs: bool) {
        if !pairs {
            return self.add(f32::from_bits(x), f32::from_bits(w));
        }
        for shift in [0, 16] {
            let part = |v: u32| bf16::from_bits((v >> shift) as u16).to_f32();
            self.add(part(x), part(w));
        }
    }

    /// Bit for bit, or for pairs within a rounding of each of `steps`.
    fn check(self, got: f32, pairs: bool, steps: usize, what: &str) {
        let near =
            pairs && (got - self.value).abs() <= self.magnitude * (steps + 2) as f32 / (1 << 22) as f32;
        assert!(near || got.to_bits() == self.value.to_bits(), "{what}: {got} != {}", self.value);
    }
}

/// Groups whose rows lie apart: between them, and around the output, poison must survive.
struct Gather {
    rows: usize,
    /// Of a panel.
    tokens: usize,
    panels: usize,
    pairs: bool,
    /// Parts of K, scaled or not.
    parts: usize,
    scaled: bool,
    /// Whether columns come in fours.
    adjacent: bool,
}

const FIRST_ROW: usize = 7;
const PART: usize = 12;

impl Gather {
    fn run(&self, r: &mut Rng, what: &str, call: impl Fn(&Band<'_>, *mut f32)) {
        let Gather { rows, tokens, panels, pairs, parts, scaled, adjacent } = *self;
        let panel: Vec<u32> = (0..panels * PART * parts * tokens).map(|_| word(r, pairs)).collect();
        // More than eight, and not a multiple of it: one token goes through eight at a time.
        let count = 1 + r.below(19);
        let own: Vec<usize> = (0..count).map(|_| 1 + r.below(rows)).collect();
        let height = count * (rows + 1);
        let (mut groups, mut indices, mut weights) = (vec![], vec![], vec![]);
        for part in 0..parts {
            for (g, &own) in own.iter().enumerate() {
                let start = indices.len();
                let keep = r.below(4);
                let kept: Vec<bool> = (0..PART).map(|_| r.below(4) >= keep).collect();
                let has = |i: &usize| kept[if adjacent { i / 4 } else { *i }];
                indices.extend((0..PART).filter(has).map(|i| i as u16));
                let len = indices.len() - start;
                for _ in 0..len {
                    // Rows that do not exist have weights of 0.
                    weights.extend((0..rows).map(|i| if i < own { word(r, pairs) } else { 0 }));
                }
                groups.push(Group {
                    row: (FIRST_ROW + g * (rows + 1)) as u32,
                    rows: own as u32,
                    start: start as u32,
                    len: len as u32,
                    base: (part * PART) as u32,
                });
            }
        }
        let stride = FIRST_ROW + height + 3;
        let scales: Vec<f32> = (0..parts * stride).map(|_| r.float(0.1, 2.0)).collect();
        // Between the sums of panels too.
        let out_stride = height * tokens + 16;
        let mut got = vec![POISON; panels * out_stride + 64];
        call(
            &Band {
                groups: &groups,
                indices: &indices,
                weights: bytes(&weights).as_ptr(),
                first_entry: 0,
                panel: bytes(&panel),
                panel_stride: PART * parts * tokens * 4,
                out_stride,
                scales: scaled.then_some(&scales[..]),
                scales_stride: stride,
                scale_lines: PART,
                first_row: FIRST_ROW,
            },
            got.as_mut_ptr(),
        );
        let mut want: Vec<Option<Sum>> = vec![None; got.len()];
        for group in &groups {
            for i in 0..group.rows as usize {
                let row = group.row as usize + i;
                for (p, t) in (0..panels).flat_map(|p| (0..tokens).map(move |t| (p, t))) {
                    let panel = &panel[p * PART * parts * tokens..];
                    let to = &mut want[p * out_stride + (row - FIRST_ROW) * tokens + t];
                    let before = to.unwrap_or(Sum::of(0.0));
                    let mut sum = if scaled { Sum::of(0.0) } else { before };
                    for e in group.start as usize..(group.start + group.len) as usize {
                        let line = group.base as usize + usize::from(indices[e]);
                        sum.dot(panel[line * tokens + t], weights[e * rows + i], pairs);
                    }
                    if scaled {
                        let scale = scales[group.base as usize / PART * stride + row];
                        sum.value = sum.value.mul_add(scale, before.value);
                        sum.magnitude = sum.magnitude * scale + before.magnitude;
                    }
                    *to = Some(sum);
                }
            }
        }
        for (i, (&got, want)) in got.iter().zip(&want).enumerate() {
            let what = format!("{what}, {parts} parts, scaled {scaled}, sum {i}");
            match want {
                Some(sum) => sum.check(got, pairs, 2 * PART * parts, &what),
                None => assert_eq!(got, POISON, "{what}: written"),
            }
        }
    }
}

fn scatter(
    (tokens, pairs): (usize, bool),
    r: &mut Rng,
    what: &str,
    call: impl Fn(&Columns<'_>, usize, *mut f32),
) {
    let lines = if pairs { 2 } else { 4 };
    let (quads, height) = (1 + r.below(6), 1 + r.below(64));
    let panel: Vec<u32> = (0..quads * lines * tokens).map(|_| word(r, pairs)).collect();
    let (mut chunks, mut rows, mut weights) = (vec![], vec![], vec![]);
    for quad in 0..quads {
        let start = rows.len();
        rows.extend((0..height).filter(|_| r.below(3) == 0).map(|row| row as u8));
        weights.extend((start * lines..rows.len() * lines).map(|_| word(r, pairs)));
        // A chunk that no row has is allowed, but not always there.
        if rows.len() > start || r.below(2) == 0 {
            chunks.push(Chunk { quad: quad as u32, rows: (rows.len() - start) as u32 });
        }
    }
    let mut got = vec![POISON; height * tokens + 64];
    let columns = Columns {
        chunks: &chunks,
        rows: rows.as_ptr(),
        weights: bytes(&weights).as_ptr(),
        panel: bytes(&panel),
    };
    call(&columns, height, got.as_mut_ptr());
    let mut want = vec![Sum::of(0.0); height * tokens];
    let mut item = 0;
    for chunk in &chunks {
        for _ in 0..chunk.rows {
            for t in 0..tokens {
                let sum = &mut want[usize::from(rows[item]) * tokens + t];
                for l in 0..lines {
                    let line = chunk.quad as usize * lines + l;
                    sum.dot(panel[line * tokens + t], weights[item * lines + l], pairs);
                }
            }
            item += 1;
        }
    }
    for (i, sum) in want.iter().enumerate() {
        sum.check(got[i], pairs, 8 * quads, &format!("{what}, sum {i} of {height} x {tokens}"));
    }
    assert!(got[want.len()..].iter().all(|&v| v == POISON), "{what} wrote too far");
}

#[test]
fn sparse_kernels_of_floats() {
    let mut r = Rng::new(51);
    for tier in tiers("sparse_kernels_of_floats") {
        let both = [(Some(&tier.float.f32), false), (tier.pairs, true)];
        for (kernels, pairs) in both.into_iter().filter_map(|(k, pairs)| Some((k?, pairs))) {
            for _ in 0..cases(25) {
                let one = kernels.gather.iter().map(|k| (k, 1));
                for (kernel, panels) in one.chain(kernels.two.iter().map(|k| (k, 2))) {
                    for (parts, scaled) in [(1, false), (3, false), (1, true), (3, true)] {
                        let (rows, tokens) = (kernel.rows, kernel.tokens / panels);
                        let gather = Gather { rows, tokens, panels, pairs, parts, scaled, adjacent: false };
                        // SAFETY: the tier is supported, and everything has the lengths that the band names.
                        gather.run(&mut r, kernel.name, |band, out| unsafe { (kernel.run)(band, out) });
                    }
                }
                for kernel in kernels.scatter {
                    scatter((kernel.tokens, pairs), &mut r, kernel.name, |columns, rows, out| {
                        // SAFETY: as above.
                        unsafe { (kernel.run)(columns, rows, out) }
                    });
                }
            }
        }
        for (token, _) in tier.float.few.iter().flat_map(|few| (0..cases(100)).map(move |i| (few, i))) {
            for (rows, adjacent) in [4, 2, 1].into_iter().flat_map(|rows| [(rows, false), (rows, true)]) {
                let run = token.gather(rows, adjacent);
                for (parts, scaled) in [(1, false), (3, false), (1, true), (3, true)] {
                    let gather = Gather {
                        rows,
                        tokens: token.tokens,
                        panels: 1,
                        pairs: false,
                        parts,
                        scaled,
                        adjacent,
                    };
                    // SAFETY: as above.
                    gather.run(&mut r, token.name, |band, out| unsafe { run(band, out) });
                }
            }
            scatter((token.tokens, false), &mut r, token.name, |columns, rows, out| {
                // SAFETY: as above.
                unsafe { (token.scatter)(columns, rows, out) }
            });
        }
    }
}

fn same(got: f32, want: f32) -> bool {
    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan()
}

/// Every bfloat16, half and byte, floats of any bits and those that are halfway; then every length of a tail.
#[test]
fn every_number_is_converted() {
    let mut r = Rng::new(52);
    let floats: Vec<u32> = (0..cases(40_000))
        .map(|i| match i % 4 {
            0 => (r.next() as u32) << 16 | 0x8000,
            1 => ((r.next() as u32) << 16 | 0x7fff) + 2 * (i % 8 / 4),
            2 => r.float(-4.0, 4.0).to_bits(),
            _ => (r.next() >> 8) as u32,
        })
        .collect();
    // Fewer where the CPU is emulated.
    let step = if cases(100) < 100 { 13 } else { 1 };
    let halves = || (0..=u16::MAX).step_by(step).flat_map(u16::to_le_bytes).collect();
    /// What an element's bytes stand for.
    type Number = fn(&[u8]) -> f32;
    let stored: [(Vec<u8>, Element, Number); 4] = [
        (bytes(&floats).to_vec(), Element::F32, |b| f32::from_le_bytes(b.try_into().unwrap())),
        (halves(), Element::Bf16, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        (halves(), Element::F16, |b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
        ((0..=u8::MAX).collect(), Element::I8, |b| f32::from(b[0] as i8)),
    ];
    for tier in tiers("every_number_is_converted") {
        for (s, (all, element, number)) in stored.iter().enumerate() {
            let size = element.bits() / 8;
            let most = all.len() / size;
            for n in (0..70).map(|n: usize| n.min(most)).chain([most]) {
                // Wherever in a line of memory.
                let from = &all[(most - n) * size..];
                let mut wide = vec![POISON; n + 32];
                // SAFETY: the tier is supported; both have room for n.
                unsafe { (tier.float.widen.of(*element))(from.as_ptr(), n, wide.as_mut_ptr().cast()) };
                let mut narrow = vec![0xa5a5u16; n + 32];
                let runs = tier.float.to_bf16;
                if let Some(run) = [runs.f32, runs.bf16, runs.f16].get(s) {
                    // SAFETY: as above.
                    unsafe { run(from.as_ptr(), n, narrow.as_mut_ptr().cast()) };
                }
                for (i, bytes) in from.chunks(size).enumerate() {
                    let want = number(bytes);
                    assert!(same(wide[i], want), "{:?} stored {s}: {} != {want}", tier.isa, wide[i]);
                    if s < 3 {
                        let (got, want) =
                            (bf16::from_bits(narrow[i]).to_f32(), bf16::from_f32(want).to_f32());
                        assert!(same(got, want), "{:?} stored {s}: {got} != {want}", tier.isa);
                    }
                }
                assert!(wide[n..].iter().all(|&v| v == POISON), "{:?} stored {s}: wrote too far", tier.isa);
                assert!(narrow[n..].iter().all(|&v| v == 0xa5a5), "{:?} stored {s}: wrote too far", tier.isa);
            }
        }
    }
}

#[test]
fn rows_become_lines() {
    let mut r = Rng::new(53);
    for tier in tiers("rows_become_lines") {
        for _ in 0..cases(200) {
            let width = [1, 16, 32, 64][r.below(4)];
            let (tokens, features) = (r.below(width + 1).max(usize::from(width == 1)), r.below(40));
            let stride = features + r.below(3);
            let rows: Vec<u32> = (0..tokens * stride).map(|_| r.next() as u32).collect();
            let padded = features.next_multiple_of(4);
            let mut panel = vec![POISON.to_bits(); padded * width + 32];
            // SAFETY: the tier is supported; rows are only read, and the panel has room for the padded features.
            unsafe {
                (tier.float.pack_kmajor)(&Tokens {
                    rows: rows.as_ptr().cast_mut().cast(),
                    stride: 4 * stride,
                    tokens,
                    features,
                    panel: panel.as_mut_ptr().cast(),
                    width,
                    flip: 0,
                    ahead: std::ptr::null(),
                });
            }
            for (i, &got) in panel[..padded * width].iter().enumerate() {
                let (f, t) = (i / width, i % width);
                let want = if t < tokens && f < features { rows[t * stride + f] } else { 0 };
                assert_eq!(got, want, "{:?} {tokens} of {width} x {features}: ({t}, {f})", tier.isa);
            }
            let after = &panel[padded * width..];
            assert!(after.iter().all(|&v| v == POISON.to_bits()), "{:?} wrote too far", tier.isa);
        }
    }
}
