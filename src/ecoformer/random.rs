//! Random numbers from a seed: the same on every platform, which the logarithm of `std` is not.

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    /// Streams of one seed have nothing to do with each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed);
        Random(random.next() ^ Random(!stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Between -1 and 1, and neither.
    fn symmetric(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 52) as f64 - 1.0
    }

    /// Of mean 0 and variance 1 (Marsaglia's polar method).
    pub(super) fn normal(&mut self) -> f32 {
        loop {
            let (u, v) = (self.symmetric(), self.symmetric());
            let square = u * u + v * v;
            if square < 1.0 && square > 0.0 {
                return (u * (-2.0 * ln(square) / square).sqrt()) as f32;
            }
        }
    }

    /// `count` different numbers below n, which is not smaller, in a random order.
    pub(super) fn choose(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        for i in 0..count {
            let other = i + self.below(n - i);
            all.swap(i, other);
        }
        all.truncate(count);
        all
    }
}

/// The logarithm of a normal number above 0, to within a few parts in 10^16 of 1.
///
/// x = m 2^n with m about 1, and ln m = 2 artanh((m - 1) / (m + 1)): each step one rounded operation of f64.
pub(super) fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let mut n = (x.to_bits() >> 52) as i64 - 1023;
    let mut m = f64::from_bits(x.to_bits() & MANTISSA | 1023 << 52);
    if m > std::f64::consts::SQRT_2 {
        (m, n) = (m / 2.0, n + 1);
    }
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    // |t| is below 0.172, so the term behind t^21 is below 10^-18.
    let series = (0..=10).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    2.0 * t * series + n as f64 * std::f64::consts::LN_2
}
