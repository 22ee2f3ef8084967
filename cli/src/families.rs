//! The families of operations, a line each: `siskin bench`, `--serve`, `verify`, `run` and the fuzzer's entry come from it.

use crate::base::family::Listed;
use crate::{attention, ecoformer, hamming, linear};

/// The first is what `siskin bench` and a line of JSON are about if they do not say.
pub static FAMILIES: [Listed; 4] = [
    Listed::new::<linear::Case>(),
    Listed::new::<attention::Case>(),
    Listed::new::<hamming::Case>(),
    Listed::new::<ecoformer::Case>(),
];

/// The family of a name.
pub fn named(op: &str) -> Option<&'static Listed> {
    FAMILIES.iter().find(|family| family.op == op)
}

/// The names of all families.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.op)
}
