//! A case of binary codes.

use crate::base::case::{at_least_one, at_most, case};
use crate::base::error::Result;
use siskin::ecoformer::BitCodes;

/// Pairs of codes that a case may have, and words and neighbours: more is refused before memory is taken.
const MOST: u128 = 1 << 30;

case! {
    /// Measure one case of binary codes
    {
        /// Codes on the left; as many as on the right if not given.
        #[arg(long, short)]
        m: Option<usize>,
        /// Codes on the right.
        #[arg(long, short)]
        n: usize = 512,
        /// Bits of a code, 1 to 256.
        #[arg(long)]
        bits: usize = 64,
        /// Find the K nearest on the right to each code on the left, instead of all distances.
        #[arg(long, short)]
        k: Option<usize>,
    }
}

impl Case {
    pub fn check_fields(&self) -> Result<()> {
        BitCodes::with_capacity(0, self.bits)?;
        let k = self.k.unwrap_or(1);
        at_least_one(&[("m", self.m()), ("n", self.n), ("k", k)])?;
        let m = self.m() as u128;
        at_most(MOST, "m * n", &[m, self.n as u128])?;
        at_most(MOST, "m * k", &[m, k as u128])
    }

    pub fn m(&self) -> usize {
        self.m.unwrap_or(self.n)
    }
}
