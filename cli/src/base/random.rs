//! Random numbers from a seed, and rows that are spread evenly.

use super::error::Result;
use siskin::ecoformer::BitCodes;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// 0 to below 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// About normally distributed, mean 0 and variance 1: the sum of four uniform numbers.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum = (0..4).map(|i| (bits >> (16 * i) & 0xffff) as f32).sum::<f32>();
        (sum / 65535.0 - 2.0) * 3f32.sqrt()
    }

    /// Where packed sequences of at most so many tokens begin and end; some are empty.
    pub fn cu_seqlens(&mut self, longest: usize) -> Vec<i32> {
        let mut ends = vec![0];
        for _ in 0..4 {
            let len = if self.below(6) == 0 { 0 } else { self.below(longest) as i32 };
            ends.push(ends[ends.len() - 1] + len);
        }
        ends
    }

    /// Binary codes, all bits equally likely.
    pub fn codes(&mut self, len: usize, bits: usize) -> Result<BitCodes> {
        let each = bits.div_ceil(64);
        let last = u64::MAX >> (64 * each - bits);
        let word = |i: usize| self.next() & if i % each == each - 1 { last } else { u64::MAX };
        Ok(BitCodes::from_words((0..len * each).map(word).collect(), bits)?)
    }
}

/// Up to `most` numbers below `end`, evenly spread, with the first and the last.
pub fn spread(end: usize, most: usize) -> Vec<usize> {
    let most = most.max(2);
    if end <= most {
        return (0..end).collect();
    }
    (0..most).map(|i| (i as u128 * (end - 1) as u128 / (most - 1) as u128) as usize).collect()
}
