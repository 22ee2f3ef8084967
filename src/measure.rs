//! Yardsticks for benchmarks: how fast this CPU multiplies and reads when it does nothing else.

use crate::base::core::Target;
use crate::base::isa::Isa;
use crate::kernels::float_table::FloatKernels;
use crate::kernels::measure;
use crate::kernels::table::Tier;

/// The kernels of an ISA; of one that this CPU does not have, those of [`Isa::Scalar`].
fn tier(isa: Isa) -> &'static Tier {
    let isa = if isa.is_supported() { isa } else { Isa::Scalar };
    Tier::of(Target { isa, pairs: true })
}

/// Runs the dot products of an ISA, or its products of matrices, on registers alone, `rounds` times, and returns the operations done (a
/// multiplication and an addition are two); 0 where this CPU does not have the ISA.
pub fn dot_products(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).dot_products(rounds) } else { 0 }
}

/// As [`dot_products`], of fused multiply-adds of f32.
pub fn fused_multiply_adds(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).fused_multiply_adds(rounds) } else { 0 }
}

/// As [`dot_products`], of pairs of bfloat16; 0 where the ISA has no such instruction.
pub fn bf16_dot_products(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).bf16_dot_products(rounds) } else { 0 }
}

/// As [`dot_products`], of exponentials of f32, as attention and EcoFormer take them.
pub fn exponentials(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).exponentials(rounds) } else { 0 }
}

/// As [`dot_products`], of binary codes: exclusive or, population count and sum; the bits compared.
pub fn population_counts(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).codes.population_counts(rounds) } else { 0 }
}

/// As [`population_counts`], without the sum.
pub fn population_counts_alone(isa: Isa, rounds: u64) -> u64 {
    if isa.is_supported() { tier(isa).codes.population_counts_alone(rounds) } else { 0 }
}

/// Reads all words once, in order, with the instructions of an ISA; returns their sum, so that none is left out.
pub fn read(isa: Isa, words: &[u64]) -> u64 {
    measure::read(words, isa)
}

/// Whether the kernels of an ISA are those with AVX-512 VBMI.
pub fn uses_vbmi(isa: Isa) -> bool {
    tier(isa).set.features.contains(&"avx512vbmi")
}

/// The name of the kernels of binary codes that an ISA uses.
pub fn codes_kernel(isa: Isa) -> &'static str {
    tier(isa).codes.name
}

/// The names of the kernels of an ISA.
pub fn kernels(isa: Isa) -> Vec<&'static str> {
    let tier = tier(isa);
    let sparse = tier.bytes.sparse.iter().chain(tier.bytes.tall).map(|k| k.name);
    let few = tier.bytes.few.iter().map(|k| k.name);
    let lookup = tier.bytes.lookup.iter().flat_map(|l| l.kernels.as_flattened()).map(|k| k.name);
    let token = few.chain(tier.bytes.gemv.iter().map(|k| k.name)).chain(lookup);
    let float = |k: &'static FloatKernels| {
        let dense = k.dense.iter().map(|k| k.name);
        let gather = k.gather.iter().chain(k.two).map(|k| k.name);
        dense.chain(gather).chain(k.scatter.iter().map(|k| k.name))
    };
    let floats = float(&tier.float.f32).chain(tier.float.few.iter().map(|k| k.name));
    let pairs = tier.pairs.into_iter().flat_map(float);
    let attention = [tier.multiply, tier.float.multiply].into_iter().chain(tier.multiply_pairs);
    let layers = sparse.chain(token).chain([tier.bytes.dense.name]).chain(floats).chain(pairs);
    layers.chain(attention.map(|k| k.name)).chain([tier.codes.name]).collect()
}
