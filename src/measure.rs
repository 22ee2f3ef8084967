//! Yardsticks for benchmarks: how fast this CPU multiplies and reads when it does nothing else.

use crate::isa::Isa;
use crate::kernels::measure;
use crate::kernels::table::Tier;

/// Runs the dot products of a tier on registers alone, `rounds` times, and returns the operations done (a
/// multiplication and an addition are two); 0 where this CPU does not have the tier.
pub fn dot_products(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { Tier::of(isa).dot_products(rounds) } else { 0 }
}

/// Reads all words once, in order, with the instructions of a tier; returns their sum, so that none is left out.
pub fn read(isa: Isa, words: &[u64]) -> u64 {
    measure::read(words, isa)
}

/// Whether the kernels of the tier are those with AVX-512 VBMI.
pub fn uses_vbmi(isa: Isa) -> bool {
    Tier::of(isa).vbmi
}

/// The names of the kernels of a tier.
pub fn kernels(isa: Isa) -> Vec<&'static str> {
    let tier = Tier::of(isa);
    let sparse = tier.sparse.iter().map(|k| k.name);
    let token = tier.token.iter().map(|k| k.name);
    sparse.chain(token).chain([tier.dense.name]).collect()
}
