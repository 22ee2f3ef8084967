//! What products of attention are made of, and what their sums should be: shared by the sweeps over tiles and over single queries.

use crate::common::{Rng, cases, say, tiers};
use siskin::internal::kernels::attention::multiply::Tile;
use siskin::internal::kernels::attention::table::Multiply;
use siskin::{Element, bf16};
use std::ptr;

pub const POISON: u32 = 0x7fa5_5a5a;
/// Words of poison before and behind what is written.
pub const FENCE: usize = 32;

/// What a word of 4 bytes is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Float,
    Pair,
    /// Of columns of the type.
    Quad(Element),
}

impl Kind {
    pub fn elements(self) -> usize {
        match self {
            Kind::Float => 1,
            Kind::Pair => 2,
            Kind::Quad(_) => 4,
        }
    }

    pub fn is_quad(self) -> bool {
        matches!(self, Kind::Quad(_))
    }

    /// What a byte of a column is.
    pub fn column(self, byte: u8) -> i32 {
        if self == Kind::Quad(Element::U8) { byte.into() } else { (byte as i8).into() }
    }
}

/// What operands are filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    Random,
    /// Integers, so small that no product of any kind is rounded; of bytes the largest times the smallest.
    Small,
    /// Floats from large to small, and the ends of bytes.
    Extreme,
}

pub const FILLS: [Fill; 3] = [Fill::Random, Fill::Small, Fill::Extreme];

/// Of each tier of this CPU, also of one that another is always preferred to, the tiles of bytes, of pairs and of floats; those
/// that two tiers share once.
pub fn kernels(test: &str) -> Vec<(&'static Multiply, Kind)> {
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

pub fn pair(low: f32, high: f32) -> [u8; 4] {
    let ([a, b], [c, d]) = (bf16::from_f32(low).to_le_bytes(), bf16::from_f32(high).to_le_bytes());
    [a, b, c, d]
}

/// A word of what is broadcast (bytes unsigned), or of what is not.
pub fn word(r: &mut Rng, kind: Kind, fill: Fill, broadcast: bool) -> [u8; 4] {
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
pub struct Table {
    pub bytes: Vec<u8>,
    pub stride: usize,
}

impl Table {
    pub fn new(rows: usize, words: usize, gap: usize, mut word: impl FnMut(usize, usize) -> [u8; 4]) -> Self {
        let stride = 4 * words + gap;
        let mut bytes = vec![0x7f; rows * stride];
        for row in 0..rows {
            for at in 0..words {
                bytes[row * stride + 4 * at..][..4].copy_from_slice(&word(row, at));
            }
        }
        Table { bytes, stride }
    }

    pub fn word(&self, row: usize, at: usize) -> [u8; 4] {
        self.bytes[row * self.stride + 4 * at..][..4].try_into().unwrap()
    }
}

/// A gap between rows of words: none, or such that rows are at odd words.
pub fn gap(r: &mut Rng) -> usize {
    [0, 4, 20, 68][r.below(4)]
}

pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Sums between fences; between rows there is poison too.
pub struct Sums {
    words: Vec<u32>,
    columns: usize,
    pub stride: usize,
}

impl Sums {
    pub fn new(rows: usize, columns: usize, stride: usize, mut start: impl FnMut() -> u32) -> Self {
        let mut words = vec![POISON; 2 * FENCE + rows * stride];
        for row in 0..rows {
            words[FENCE + row * stride..][..columns].fill_with(&mut start);
        }
        Sums { words, columns, stride }
    }

    pub fn row(&self, row: usize) -> &[u32] {
        &self.words[FENCE + row * self.stride..][..self.columns]
    }

    pub fn p(&mut self) -> *mut u8 {
        self.words[FENCE..].as_mut_ptr().cast()
    }

    pub fn is_fenced(&self) -> bool {
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
pub unsafe fn multiply_row(kernel: &Multiply, t: &Tile, columns: usize) {
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

/// Fewer where the CPU is emulated.
pub fn leaves_out(r: &mut Rng) -> bool {
    r.below(1000) >= cases(1000) as usize
}

pub const STEPS: [usize; 7] = [0, 1, 2, 3, 7, 16, 33];
