//! A sweep over the products of attention in the table, one call each, against plain loops: every tile, the sums of few rows, and
//! those with k and v as they lie.

mod common;

use common::{Rng, cases, say, tiers};
use siskin::Element;
use siskin::internal::kernels::attention::decode::{Keys, Turns, Values};
use siskin::internal::kernels::attention::gather::{PADDING, Rows, Weights};
use siskin::internal::kernels::attention::multiply::Tile;
use siskin::internal::kernels::attention::table::{Decode, Multiply};
use siskin::internal::kernels::attention::{LANES, PANEL};
use siskin::{bf16, f16};
use std::ptr;

const POISON: u32 = 0x7fa5_5a5a;
/// Words of poison before and behind what is written.
const FENCE: usize = 32;

/// What a word of 4 bytes is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float,
    Pair,
    /// Of columns of the type.
    Quad(Element),
}

impl Kind {
    fn elements(self) -> usize {
        match self {
            Kind::Float => 1,
            Kind::Pair => 2,
            Kind::Quad(_) => 4,
        }
    }

    fn is_quad(self) -> bool {
        matches!(self, Kind::Quad(_))
    }

    /// What a byte of a column is.
    fn column(self, byte: u8) -> i32 {
        if self == Kind::Quad(Element::U8) { byte.into() } else { (byte as i8).into() }
    }
}

/// What operands are filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    Random,
    /// Integers, so small that no product of any kind is rounded; of bytes the largest times the smallest.
    Small,
    /// Floats from large to small, and the ends of bytes.
    Extreme,
}

const FILLS: [Fill; 3] = [Fill::Random, Fill::Small, Fill::Extreme];

/// Of each tier of this CPU, also of one that another is always preferred to, the tiles of bytes, of pairs and of floats; those
/// that two tiers share once.
fn kernels(test: &str) -> Vec<(&'static Multiply, Kind)> {
    let mut all: Vec<(&'static Multiply, Kind)> = vec![];
    for tier in tiers(test) {
        let pairs = tier.multiply_pairs.map(|kernel| (kernel, Kind::Pair));
        let own = [(tier.multiply, Kind::Quad(tier.multiply.columns)), (tier.float.multiply, Kind::Float)];
        for (kernel, kind) in own.into_iter().chain(pairs) {
            if !all.iter().any(|&(other, _)| ptr::eq(other, kernel)) {
                all.push((kernel, kind));
            }
        }
    }
    let names: Vec<String> = all.iter().map(|(kernel, kind)| format!("{} {kind:?}", kernel.name)).collect();
    say(&format!("{test}: rows {names:?}"));
    all
}

fn pair(low: f32, high: f32) -> [u8; 4] {
    let ([a, b], [c, d]) = (bf16::from_f32(low).to_le_bytes(), bf16::from_f32(high).to_le_bytes());
    [a, b, c, d]
}

/// A word of what is broadcast (bytes unsigned), or of what is not.
fn word(r: &mut Rng, kind: Kind, fill: Fill, broadcast: bool) -> [u8; 4] {
    let mut float = || match fill {
        Fill::Random => r.float(-2.0, 2.0),
        Fill::Small => r.below(17) as f32 - 8.0,
        Fill::Extreme if kind == Kind::Float => {
            [0.0, -0.0, 1e30, -1e30, 1e-30, -3.0, f32::MIN_POSITIVE, 1e-42, 16_777_216.0][r.below(9)]
        }
        Fill::Extreme => [0.0, -0.0, 65536.0, -65536.0, 1.5e-5, -3.0, 0.5, 1.0][r.below(8)],
    };
    match kind {
        Kind::Float => float().to_le_bytes(),
        Kind::Pair => pair(float(), float()),
        Kind::Quad(_) => std::array::from_fn(|_| match (fill, broadcast) {
            (Fill::Random, _) => r.byte(),
            (Fill::Small, true) => 255,
            (Fill::Small, false) => -128i8 as u8,
            (Fill::Extreme, true) => [0, 255][r.below(2)],
            (Fill::Extreme, false) => [-128i8, 127][r.below(2)] as u8,
        }),
    }
}

/// Rows of words so many bytes apart; what is between them is poison.
struct Table {
    bytes: Vec<u8>,
    stride: usize,
}

impl Table {
    fn new(rows: usize, words: usize, gap: usize, mut word: impl FnMut(usize, usize) -> [u8; 4]) -> Self {
        let stride = 4 * words + gap;
        let mut bytes = vec![0x7f; rows * stride];
        for row in 0..rows {
            for at in 0..words {
                bytes[row * stride + 4 * at..][..4].copy_from_slice(&word(row, at));
            }
        }
        Table { bytes, stride }
    }

    fn word(&self, row: usize, at: usize) -> [u8; 4] {
        self.bytes[row * self.stride + 4 * at..][..4].try_into().unwrap()
    }
}

/// A gap between rows of words: none, or such that rows are at odd words.
fn gap(r: &mut Rng) -> usize {
    [0, 4, 20, 68][r.below(4)]
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Whether a sum is what a plain loop over products says.
fn is_sum(kind: Kind, fill: Fill, got: u32, start: u32, terms: &[([u8; 4], [u8; 4])]) -> bool {
    match kind {
        Kind::Float => {
            let float = f32::from_le_bytes;
            let want =
                terms.iter().fold(f32::from_bits(start), |sum, &(x, w)| float(x).mul_add(float(w), sum));
            same(f32::from_bits(got), want)
        }
        Kind::Quad(_) => {
            let product = |(x, w): (u8, u8)| i32::from(x) * kind.column(w);
            let quad = |(x, w): &([u8; 4], [u8; 4])| x.iter().copied().zip(*w).map(product).sum::<i32>();
            got as i32 == terms.iter().fold(start as i32, |sum, term| sum.wrapping_add(quad(term)))
        }
        Kind::Pair => {
            let half = |w: [u8; 4], i: usize| bf16::from_le_bytes([w[2 * i], w[2 * i + 1]]).to_f64();
            let products = terms.iter().flat_map(|&(x, w)| [0, 1].map(|i| half(x, i) * half(w, i)));
            let start = f64::from(f32::from_bits(start));
            let (mut want, mut most, mut n) = (start, start.abs(), 1);
            for product in products {
                (want, most, n) = (want + product, most + product.abs(), n + 1);
            }
            let got = f64::from(f32::from_bits(got));
            // Each addition rounds a partial sum once, by half a unit at the most.
            if fill == Fill::Small { got == want } else { (got - want).abs() <= f64::from(n) * most * 6e-8 }
        }
    }
}

/// Sums between fences; between rows there is poison too.
struct Sums {
    words: Vec<u32>,
    columns: usize,
    stride: usize,
}

impl Sums {
    fn new(rows: usize, columns: usize, stride: usize, mut start: impl FnMut() -> u32) -> Self {
        let mut words = vec![POISON; 2 * FENCE + rows * stride];
        for row in 0..rows {
            words[FENCE + row * stride..][..columns].fill_with(&mut start);
        }
        Sums { words, columns, stride }
    }

    fn row(&self, row: usize) -> &[u32] {
        &self.words[FENCE + row * self.stride..][..self.columns]
    }

    fn p(&mut self) -> *mut u8 {
        self.words[FENCE..].as_mut_ptr().cast()
    }

    fn is_fenced(&self) -> bool {
        let stride = self.stride.max(1);
        let inside =
            |i: usize| i >= FENCE && i < self.words.len() - FENCE && (i - FENCE) % stride < self.columns;
        self.words.iter().enumerate().all(|(i, &word)| inside(i) || word == POISON)
    }
}

/// A row and so many columns, by as many tiles as that takes.
///
/// # Safety
/// As each tile.
unsafe fn multiply_row(kernel: &Multiply, t: &Tile, columns: usize) {
    let mut column = 0;
    for width in kernel.widths {
        while column + width.columns <= columns {
            let (w, out) = (t.w.wrapping_add(4 * column), t.out.wrapping_add(4 * column));
            // SAFETY: part of what the caller vouches for.
            unsafe { width.run[0](&Tile { w, out, ..*t }) };
            column += width.columns;
        }
    }
    assert_eq!(column, columns);
}

/// Where there is nothing to be read: only a prefetch may go there.
fn nowhere(r: &mut Rng) -> *const u8 {
    if r.below(2) == 0 { ptr::null() } else { ptr::without_provenance(64 + r.below(4096)) }
}

/// Fewer where the CPU is emulated.
fn leaves_out(r: &mut Rng) -> bool {
    r.below(1000) >= cases(1000) as usize
}

const STEPS: [usize; 7] = [0, 1, 2, 3, 7, 16, 33];

/// Mode 0: from nothing; 1: on from what is there; 2, of integers: from a number for each column.
#[test]
fn tiles() {
    let mut r = Rng::new(71);
    for (kernel, kind) in kernels("tiles") {
        for (width, rows) in kernel.widths.iter().flat_map(|w| (1..=w.run.len()).map(move |rows| (w, rows))) {
            assert_eq!(width.run.len(), kernel.rows(), "{}", kernel.name);
            let columns = width.columns;
            for (steps, fill) in STEPS.iter().flat_map(|&s| FILLS.map(|fill| (s, fill))) {
                for mode in 0..if kind.is_quad() { 3 } else { 2 } {
                    if leaves_out(&mut r) {
                        continue;
                    }
                    let (x_gap, w_gap, out_gap) = (gap(&mut r), gap(&mut r), gap(&mut r) / 4);
                    let x = Table::new(rows, steps, x_gap, |_, _| word(&mut r, kind, fill, true));
                    let w = Table::new(steps, columns, w_gap, |_, _| word(&mut r, kind, fill, false));
                    let mut start = || match kind {
                        Kind::Quad(_) => r.next() as u32,
                        _ if fill == Fill::Small => (r.below(200) as f32 - 100.0).to_bits(),
                        _ => r.float(-1.0, 1.0).to_bits(),
                    };
                    let mut out = Sums::new(rows, columns, columns + out_gap, &mut start);
                    let init: Vec<i32> = (0..columns).map(|_| start() as i32).collect();
                    let before: Vec<Vec<u32>> = (0..rows).map(|m| out.row(m).to_vec()).collect();
                    // SAFETY: the tier is supported, and everything has the lengths that the tile names.
                    unsafe {
                        width.run[rows - 1](&Tile {
                            x: x.bytes.as_ptr(),
                            x_stride: x.stride,
                            w: w.bytes.as_ptr(),
                            w_stride: w.stride,
                            steps,
                            init: if mode == 2 { init.as_ptr() } else { ptr::null() },
                            out: out.p(),
                            out_stride: 4 * out.stride,
                            resume: mode == 1,
                            ahead: nowhere(&mut r),
                            ahead_stride: 4 * columns,
                        });
                    }
                    let case = format!("{} {rows} x {columns} x {steps} mode {mode} {fill:?}", kernel.name);
                    for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
                        let terms: Vec<_> = (0..steps).map(|s| (x.word(m, s), w.word(s, n))).collect();
                        let start = [0, before[m][n], init[n] as u32][mode];
                        assert!(
                            is_sum(kind, fill, out.row(m)[n], start, &terms),
                            "{case}: row {m}, column {n}"
                        );
                    }
                    assert!(out.is_fenced(), "{case}: wrote too far");
                }
            }
        }
    }
}

/// All columns of a driver are a multiple of the narrowest tile, and of 16.
#[test]
fn widths_reach_every_number_of_columns() {
    for (kernel, kind) in kernels("widths_reach_every_number_of_columns") {
        let columns: Vec<usize> = kernel.widths.iter().map(|w| w.columns).collect();
        assert!(columns.is_sorted_by(|a, b| a > b && a % b == 0), "{} {columns:?}", kernel.name);
        assert_eq!(LANES % columns[columns.len() - 1], 0, "{} {columns:?}", kernel.name);
        assert_eq!(kernel.context_columns % kind.elements(), 0, "{}", kernel.name);
        assert_eq!(PANEL % columns[0], 0, "{} {columns:?}", kernel.name);
    }
}

/// The sums of few rows: those of the tile of all rows, in which all other words are 0.
#[test]
fn gathers() {
    let mut r = Rng::new(72);
    for (kernel, kind) in kernels("gathers") {
        let columns = [16, 32, 48, 64, 80, 112, 128, 144];
        for (columns, rows) in columns.into_iter().flat_map(|c| STEPS.map(|rows| (c, rows))) {
            for density in [0, 1, 3, 10] {
                if leaves_out(&mut r) {
                    continue;
                }
                let fill = if kind.is_quad() { FILLS[r.below(3)] } else { FILLS[r.below(2)] };
                let v_gap = gap(&mut r);
                let v = Table::new(rows, columns, v_gap, |_, _| word(&mut r, kind, fill, false));
                let words = Table::new(1, rows, 4, |_, _| {
                    if r.below(10) < density { word(&mut r, kind, fill, true) } else { [0; 4] }
                });
                let places: Vec<u32> =
                    (0..rows as u32).filter(|&i| words.word(0, i as usize) != [0; 4]).collect();
                let values: Vec<u32> =
                    places.iter().map(|&i| u32::from_le_bytes(words.word(0, i as usize))).collect();
                let count = places.len();
                let padded = |list: Vec<u32>| [list, vec![0; PADDING]].concat();
                let (places, values) = (padded(places), padded(values));
                let mut want = Sums::new(1, columns, columns, || POISON);
                let mut got = Sums::new(1, columns, columns, || POISON);
                // SAFETY: the tier is supported; all rows and columns are there.
                unsafe {
                    let tile = Tile {
                        x: words.bytes.as_ptr(),
                        x_stride: 0,
                        w: v.bytes.as_ptr(),
                        w_stride: v.stride,
                        steps: rows,
                        init: ptr::null(),
                        out: want.p(),
                        out_stride: 0,
                        resume: false,
                        ahead: ptr::null(),
                        ahead_stride: 0,
                    };
                    multiply_row(kernel, &tile, columns);
                    (kernel.gather)(&Rows {
                        count,
                        places: places.as_ptr(),
                        values: values.as_ptr(),
                        v: v.bytes.as_ptr(),
                        stride: v.stride,
                        columns,
                        out: got.p().cast(),
                    });
                }
                let case = format!("{} {count} of {rows} rows x {columns} {fill:?}", kernel.name);
                assert_eq!(got.row(0), want.row(0), "{case}");
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}

/// Rows of few words each, with v: the sums of the tile that takes all words.
#[test]
fn gathers_of_rows() {
    let mut r = Rng::new(81);
    for (kernel, kind) in kernels("gathers_of_rows") {
        for (columns, words) in [16, 64, 80, 128].into_iter().flat_map(|c| STEPS.map(|words| (c, words))) {
            for rows in [1, 2, 7] {
                if leaves_out(&mut r) {
                    continue;
                }
                let fill = if kind.is_quad() { FILLS[r.below(3)] } else { FILLS[r.below(2)] };
                let v = Table::new(words, columns, gap(&mut r), |_, _| word(&mut r, kind, fill, false));
                let x = Table::new(rows, words, gap(&mut r), |row, _| {
                    if r.below(10) < [1, 10, 0, 3][row % 4] { word(&mut r, kind, fill, true) } else { [0; 4] }
                });
                let mut want = Sums::new(rows, columns, columns, || POISON);
                let mut got = Sums::new(rows, columns, columns, || POISON);
                // SAFETY: the tier is supported; all rows and columns are there.
                unsafe {
                    for row in 0..rows {
                        let tile = Tile {
                            x: x.bytes.as_ptr().add(row * x.stride),
                            x_stride: 0,
                            w: v.bytes.as_ptr(),
                            w_stride: v.stride,
                            steps: words,
                            init: ptr::null(),
                            out: want.p().add(row * 4 * want.stride),
                            out_stride: 0,
                            resume: false,
                            ahead: ptr::null(),
                            ahead_stride: 0,
                        };
                        multiply_row(kernel, &tile, columns);
                    }
                    (kernel.gather_rows)(&Weights {
                        rows,
                        x: x.bytes.as_ptr(),
                        x_stride: x.stride,
                        words,
                        v: v.bytes.as_ptr(),
                        stride: v.stride,
                        columns,
                        out: got.p().cast(),
                    });
                }
                let case = format!("{} {rows} rows of {words} words x {columns} {fill:?}", kernel.name);
                for row in 0..rows {
                    assert_eq!(got.row(row), want.row(row), "{case}: row {row}");
                }
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}

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
