//! Whether distances of codes, and the nearest codes, are right: beside loops over bits.

use super::problem::{Out, Problem};
use crate::base::error::{Error, Result};
use crate::base::random::spread;
use siskin::ecoformer::BitCodes;

impl Problem {
    /// Compares some rows with loops over bits, of which a check looks at about `budget`.
    pub fn check(&self, out: &Out, budget: usize) -> Result<()> {
        let (a, b, n) = (&self.a, &self.b, self.b.len());
        for i in spread(a.len(), (budget / (n * a.bits())).clamp(2, 65)) {
            let distance =
                |j: usize| (0..a.bits()).filter(|&bit| a.bit(i, bit) != b.bit(j, bit)).count() as u16;
            let want: Vec<u16> = (0..n).map(distance).collect();
            let right = match out {
                Out::All(got) => got[i * n..][..n] == want,
                Out::Nearest { k, indices, distances } => {
                    let mut order: Vec<u32> = (0..n as u32).collect();
                    order.sort_by_key(|&j| want[j as usize]);
                    order.resize(order.len().max(*k), BitCodes::NONE);
                    let near = |j: &u32| want.get(*j as usize).copied().unwrap_or(u16::MAX);
                    indices[i * k..][..*k] == order[..*k]
                        && distances[i * k..][..*k].iter().copied().eq(order[..*k].iter().map(near))
                }
            };
            if !right {
                return Err(Error::Wrong(format!("row {i} is not that of a loop over bits")));
            }
        }
        Ok(())
    }
}
