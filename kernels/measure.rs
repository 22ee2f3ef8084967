//! What this CPU can do at most: the yardsticks that a measurement is held against.

use super::attention::CHUNK;
use super::attention::softmax::{Scores, Span};
use super::codes::table::Codes;
use super::table::Tier;
use crate::base::isa::Isa;

/// Scores at a cache line: a row that stays in the first-level cache.
#[repr(align(64))]
struct Row([f32; CHUNK]);

impl Tier {
    /// Runs the tier's dot products on registers alone, `rounds` times; the operations done, a multiplication and an
    /// addition being two. Of a tier that this CPU has not, nothing is run.
    pub fn dot_products(&self, rounds: u64) -> u64 {
        if !self.is_supported() {
            return 0;
        }
        // SAFETY: the tier is supported.
        unsafe { (self.peak)(rounds) }
    }

    /// As [`Tier::dot_products`], of the fused multiply-adds of f32.
    pub fn fused_multiply_adds(&self, rounds: u64) -> u64 {
        if !self.is_supported() {
            return 0;
        }
        // SAFETY: the tier is supported.
        unsafe { (self.float.f32.peak)(rounds) }
    }

    /// As [`Tier::dot_products`], of pairs of bfloat16; 0 where the tier has no such instruction.
    pub fn bf16_dot_products(&self, rounds: u64) -> u64 {
        match self.pairs {
            // SAFETY: the tier is supported.
            Some(pairs) if self.is_supported() => unsafe { (pairs.peak)(rounds) },
            _ => 0,
        }
    }

    /// As [`Tier::dot_products`], of exponentials: of a row of scores as attention and EcoFormer take them, again and again.
    pub fn exponentials(&self, rounds: u64) -> u64 {
        if !self.is_supported() {
            return 0;
        }
        let mut row = Row([0.0; CHUNK]);
        let keys = Span { first: 0, last: CHUNK };
        // Of 0 times the score: it stays a number.
        let mut scores = Scores { p: row.0.as_mut_ptr().cast(), last: CHUNK, scale: 0.0, ..Scores::NONE };
        for _ in 0..rounds {
            let rows = std::slice::from_mut(&mut scores);
            // SAFETY: the tier is supported; the row has its scores.
            unsafe { (self.float.passes.exponentials[0][0])(rows, &keys, &[keys]) };
        }
        std::hint::black_box(scores);
        rounds * row.0.len() as u64
    }
}

impl Codes {
    /// As [`Tier::dot_products`], of exclusive or, population count and sum of binary codes: the bits compared.
    pub fn population_counts(&self, rounds: u64) -> u64 {
        if !self.set.is_supported() {
            return 0;
        }
        // SAFETY: the kernels are supported.
        unsafe { (self.peak)(rounds) }
    }

    /// Exclusive or and population count without the sum.
    pub fn population_counts_alone(&self, rounds: u64) -> u64 {
        if !self.set.is_supported() {
            return 0;
        }
        // SAFETY: the kernels are supported.
        unsafe { (self.peak_alone)(rounds) }
    }
}

/// Reads all words once, in order.
pub fn read(words: &[u64], isa: Isa) -> u64 {
    let isa = if isa.is_supported() { isa } else { Isa::Scalar };
    // SAFETY: the tier is supported.
    unsafe { sum::pick(isa)(words) }
}

autovec!(fn sum(words: &[u64]) -> u64 = sum_body);

/// Enough independent sums to wait for memory alone.
#[inline(always)]
fn sum_body(words: &[u64]) -> u64 {
    let mut sums = [0u64; 64];
    let (chunks, tail) = words.as_chunks::<64>();
    for chunk in chunks {
        for i in 0..64 {
            sums[i] = sums[i].wrapping_add(chunk[i]);
        }
    }
    sums.iter().chain(tail).fold(0, |a, b| a.wrapping_add(*b))
}
