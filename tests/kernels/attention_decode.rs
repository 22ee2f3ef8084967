//! A sweep over the products of attention that take k and v of single queries as they lie, against the tiles of packed ones.

use super::attention_operands::*;
use crate::common::{Rng, tiers};
use siskin::internal::kernels::attention::PANEL;
use siskin::internal::kernels::attention::decode::{Keys, Turns, Values};
use siskin::internal::kernels::attention::multiply::Tile;
use siskin::internal::kernels::attention::table::{Decode, Multiply};
use siskin::{bf16, f16};
use std::ptr;

/// Bytes between rows as a caller may have them: of whole elements.
fn own_gap(r: &mut Rng, kind: Kind) -> usize {
    r.below(20) * 4 / kind.elements()
}

/// Bytes a mask flips.
fn flipped(word: [u8; 4], flip: u8) -> [u8; 4] {
    word.map(|b| b ^ flip)
}

/// Rows of heads as they lie: head by head in each row, or row by row of each head; no byte behind the last.
struct Heads {
    rows: Table,
    words: usize,
    turns: Turns,
}

impl Heads {
    fn new(
        r: &mut Rng,
        (heads, rows, words): (usize, usize, usize),
        kind: Kind,
        mut word: impl FnMut(&mut Rng) -> [u8; 4],
    ) -> Self {
        let (by_row, gap) = (r.below(3) > 0, if r.below(2) == 0 { 0 } else { own_gap(r, kind) });
        let (n, across) = if by_row { (rows, heads * words) } else { (heads * rows, words) };
        let mut rows_of = Table::new(n, across, gap, |_, _| word(r));
        rows_of.bytes.truncate((n * rows_of.stride).saturating_sub(gap));
        let head = if by_row { 4 * words } else { rows * rows_of.stride };
        let (p, stride) = (rows_of.bytes.as_ptr(), rows_of.stride);
        Heads { rows: rows_of, words, turns: Turns { rows: p, stride, head, heads, bytes: 4 * words } }
    }

    fn word(&self, head: usize, row: usize, at: usize) -> [u8; 4] {
        assert!(at < self.words);
        let from = head * self.turns.head + row * self.turns.stride + 4 * at;
        self.rows.bytes[from..from + 4].try_into().unwrap()
    }

    fn byte(&self, head: usize, row: usize, at: usize) -> u8 {
        self.word(head, row, at / 4)[at % 4]
    }
}

/// How many heads: fewer than a register has parts, as many, and more; so many that words are not laid side by side.
const HEADS: [usize; 8] = [1, 2, 3, 4, 5, 8, 12, 20];

/// A query of each head and keys as they lie: the scores of the tile that packed keys make.
#[test]
fn scores_of_one_query() {
    let mut r = Rng::new(73);
    for (kernel, kind) in kernels("scores_of_one_query") {
        for (words, fill) in (4..=68).step_by(4).flat_map(|words| FILLS.map(|fill| (words, fill))) {
            for (flip, by_sum) in [(0, 0), (0, -255), (0, -128), (0x80, -77), (0x80, -128), (0x80, 0)] {
                // Those are of integers.
                if !kind.is_quad() && (flip, by_sum) != (0, 0) || leaves_out(&mut r) {
                    continue;
                }
                let (heads, keys) = (HEADS[r.below(8)], [16, 32, 48, 64, 128, 144][r.below(6)]);
                let k = Heads::new(&mut r, (heads, keys, words), kind, |r| word(r, kind, fill, false));
                let x = Table::new(heads, words, gap(&mut r), |_, _| word(&mut r, kind, fill, true));
                let mut want = Sums::new(heads, keys, keys + 5, || POISON);
                let mut got = Sums::new(heads, keys, keys + 5, || POISON);
                // SAFETY: the tier is supported; queries, all keys and room for their scores are there.
                unsafe {
                    for head in 0..heads {
                        let panel =
                            Table::new(words, keys, 0, |word, key| flipped(k.word(head, key, word), flip));
                        let tile = Tile {
                            x: x.bytes.as_ptr().add(head * x.stride),
                            x_stride: 0,
                            w: panel.bytes.as_ptr(),
                            w_stride: panel.stride,
                            steps: words,
                            init: ptr::null(),
                            out: want.p().add(head * 4 * want.stride),
                            out_stride: 0,
                            resume: false,
                            most: ptr::null_mut(),
                            ahead: ptr::null(),
                            ahead_stride: 0,
                        };
                        multiply_row(kernel, &tile, keys);
                    }
                    (kernel.decode.scores)(&Keys {
                        k: k.turns,
                        keys,
                        x: x.bytes.as_ptr(),
                        x_stride: x.stride,
                        words,
                        flip,
                        by_sum,
                        out: got.p(),
                        out_stride: 4 * got.stride,
                    });
                }
                let case = format!(
                    "{} {heads} heads {keys} keys {words} words flip {flip} by {by_sum} {fill:?} {:?}",
                    kernel.name, k.turns
                );
                for (head, key) in (0..heads).flat_map(|head| (0..keys).map(move |key| (head, key))) {
                    let (got, want) = (got.row(head)[key], want.row(head)[key]);
                    let bytes =
                        (0..words).flat_map(|w| flipped(k.word(head, key, w), flip)).map(|b| kind.column(b));
                    let more = bytes.sum::<i32>().wrapping_mul(by_sum) as u32;
                    let nan = !kind.is_quad() && same(f32::from_bits(got), f32::from_bits(want));
                    assert!(nan || got == want.wrapping_add(more), "{case}: head {head} key {key}");
                }
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}

/// A query's weights of each head and rows of v as they lie: the sums of the tile that packed rows make.
#[test]
fn context_of_one_query() {
    let mut r = Rng::new(74);
    for (kernel, kind) in kernels("context_of_one_query") {
        let (elements, size) = (kind.elements(), 4 / kind.elements());
        for (registers, words) in (1..=6).flat_map(|n| STEPS.map(|words| (n, words))) {
            for (fill, flip) in FILLS.into_iter().flat_map(|fill| [(fill, 0), (fill, 0x80)]) {
                if !kind.is_quad() && flip != 0 || leaves_out(&mut r) {
                    continue;
                }
                let (columns, heads) = (registers * kernel.context_columns, HEADS[r.below(8)]);
                let per_row = columns / elements;
                let x = Table::new(heads, words, gap(&mut r), |_, _| word(&mut r, kind, fill, true));
                let v = Heads::new(&mut r, (heads, words * elements, per_row), kind, |r| {
                    word(r, kind, fill, false)
                });
                let mut got = Sums::new(heads, columns, columns + 5, || 0);
                let mut want = Sums::new(heads, columns, columns + 5, || 0);
                // SAFETY: the tier is supported; weights, all rows and their sums are there.
                unsafe {
                    for head in 0..heads {
                        // Word w of a column is that column of so many rows.
                        let packed = Table::new(words, columns, 0, |word, column| {
                            let mut out = [0; 4];
                            for (i, to) in out.iter_mut().enumerate() {
                                *to = v.byte(head, word * elements + i / size, column * size + i % size);
                            }
                            flipped(out, flip)
                        });
                        let tile = Tile {
                            x: x.bytes.as_ptr().add(head * x.stride),
                            x_stride: 0,
                            w: packed.bytes.as_ptr(),
                            w_stride: packed.stride,
                            steps: words,
                            init: ptr::null(),
                            out: want.p().add(head * 4 * want.stride),
                            out_stride: 0,
                            resume: true,
                            most: ptr::null_mut(),
                            ahead: ptr::null(),
                            ahead_stride: 0,
                        };
                        multiply_row(kernel, &tile, columns);
                    }
                    (kernel.decode.context)(&Values {
                        v: v.turns,
                        words,
                        x: x.bytes.as_ptr(),
                        x_stride: x.stride,
                        flip,
                        columns,
                        out: got.p(),
                        out_stride: 4 * got.stride,
                    });
                }
                let case = format!(
                    "{} {heads} heads {words} words x {columns} flip {flip} {fill:?} {:?}",
                    kernel.name, v.turns
                );
                for (head, column) in (0..heads).flat_map(|h| (0..columns).map(move |column| (h, column))) {
                    let (got, want) = (got.row(head)[column], want.row(head)[column]);
                    let nan = !kind.is_quad() && same(f32::from_bits(got), f32::from_bits(want));
                    assert!(nan || got == want, "{case}: head {head} column {column}");
                }
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}

/// One query, k and v of bfloat16 or of halves as they lie: the bits of the same numbers as floats.
#[test]
fn narrow_keys_and_values() {
    let mut r = Rng::new(75);
    let mut seen: Vec<*const Multiply> = vec![];
    for tier in tiers("narrow_keys_and_values") {
        let float = tier.float;
        if seen.iter().any(|&other| ptr::eq(other, float.multiply)) {
            continue;
        }
        seen.push(float.multiply);
        let widen: [fn(u16) -> f32; 2] = [|x| bf16::from_bits(x).to_f32(), |x| f16::from_bits(x).to_f32()];
        for (of, (direct, widen)) in
            [float.passes.decode_bf16, float.passes.decode_f16].iter().zip(widen).enumerate()
        {
            for (n, gap) in [(16, 0), (32, 3), (64, 0), (64, 8), (80, 1), (96, 0), (128, 64), (256, 5)] {
                let finite = |r: &mut Rng| loop {
                    let bits = r.next() as u16;
                    // Now and then not a number.
                    if widen(bits).abs() < 1e4 || r.below(4000) == 0 {
                        return bits;
                    }
                };
                let x: Vec<f32> = (0..n.max(PANEL)).map(|_| r.float(-1.0, 1.0)).collect();
                // No byte behind the last row.
                let rows: Vec<u16> = (0..(PANEL - 1) * (n + gap) + n).map(|_| finite(&mut r)).collect();
                let wide: Vec<f32> = rows.iter().map(|&x| widen(x)).collect();
                let run = |p: *const u8, bytes: usize, direct: &Decode| {
                    let (mut scores, mut context) = (vec![7.0; PANEL], vec![0.0; n]);
                    let turns = Turns {
                        rows: p,
                        stride: (n + gap) * bytes,
                        head: n * bytes,
                        heads: 1,
                        bytes: n * bytes,
                    };
                    // SAFETY: the tier is supported; rows, the query, weights and room for the sums are there.
                    unsafe {
                        (direct.scores)(&Keys {
                            k: turns,
                            keys: PANEL,
                            x: x.as_ptr().cast(),
                            x_stride: 0,
                            words: n,
                            flip: 0,
                            by_sum: 0,
                            out: scores.as_mut_ptr().cast(),
                            out_stride: 0,
                        });
                        (direct.context)(&Values {
                            v: turns,
                            words: PANEL,
                            x: x.as_ptr().cast(),
                            x_stride: 0,
                            flip: 0,
                            columns: n,
                            out: context.as_mut_ptr().cast(),
                            out_stride: 0,
                        });
                    }
                    (scores, context)
                };
                let got = run(rows.as_ptr().cast(), 2, direct);
                let want = run(wide.as_ptr().cast(), 4, &float.multiply.decode);
                let equal = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| same(*a, *b));
                assert!(equal(&got.0, &want.0), "{} {of} {n}: scores", float.multiply.name);
                assert!(equal(&got.1, &want.1), "{} {of} {n}: context", float.multiply.name);
            }
        }
    }
}
