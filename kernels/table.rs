//! The one table: a row for each set of CPU features, with everything that runs on it. A row puts kernels into dispatch, the
//! sweeps of the tests and the benchmarks. The row of what every CPU runs stands here, those of an architecture in the `mod.rs` of
//! its folder, beside the registers that they name.
//!
//! A row has five parts. Each is either its own, or `of` a parent row: then functions are compiled once, for the parent's
//! features, and shared. A row that is missing, or a part of one, is an error of compilation. What plain loops are
//! vectorized for stands in the list of ISAs (`base::isa`). What the parts say:
//!
//! * `sparse [rows x tokens by registers, ..]`: groups of rows times a panel of tokens, so many registers of it at a time. `and tall`:
//!   of eight rows too.
//! * `dense tokens x features: registers x [tokens unroll steps, ..], panels [tokens x panels, ..]`: the largest tile; then
//!   the number of tokens of each tile that is one panel wide, and how far it is unrolled; then tiles of several panels.
//! * `attention queries x keys [registers x [queries, ..], ..]`: the largest tile; then the tiles of each width.
//! * `gather [rows x tokens by registers, ..]` and `scatter [tokens by registers, ..]`: sparse weights of floats; `two [..]`: the
//!   same as `gather`, with the tokens of two panels, and so many registers of each. Panels of one token and of four are not listed.
//! * `codes`: `codes x codes of a register: [slices of 16 bits x codes, ..]`.
//!
//! **Names of kernels** are `set-types-operation-layout-rowsxcolumns`:
//!
//! * set: the features that it is compiled for, as `base::isa` names them.
//! * types: the elements of x, then those of w (attention: of q and k; codes: of both): `u8 i8 bf16 f16 f32`, and `b1` for bits.
//! * operation: `dense`; `sparse`, and of floats `gather` and `scatter`; `gemv`, a single token through sparse weights; `lookup`, up
//!   to four tokens through sparse weights, with x looked up in registers;
//!   `attention`; `hamming`.
//! * layout of x (attention: of k; codes: of b): `rows`; `kmajor`, and with 2, 4 or 16 that many elements of K interleaved.
//! * rows and columns of the largest tile: tokens x output features of a dense one, rows of w x tokens of a sparse one, queries x
//!   keys, codes x codes.

#[cfg(target_arch = "aarch64")]
use super::aarch64::rows as architecture;
#[cfg(target_arch = "x86_64")]
use super::x86_64::rows as architecture;
use crate::base::core::Target;
use crate::base::isa::FeatureSet;

pub use super::tier::Tier;

/// What every CPU runs.
mod portable {
    use crate::kernels::codes::scalar::Plain;
    use crate::kernels::scalar::Scalar;
    use crate::kernels::tier::tiers;

    tiers! {
        scalar {
            packing { Scalar }
            bytes {
                Scalar, types "u8i8",
                sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 32 by 4, 1 x 32 by 4, 4 x 16 by 4, 1 x 16 by 4],
                dense 3 x 8: 2 registers x [1, 2, 3],
                attention "u8i8" 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
            }
            floats {
                Scalar,
                dense 3 x 8: 2 registers x [1, 2, 3], panels [1 x 2],
                gather [4 x 32 by 2, 2 x 32 by 4, 1 x 32 by 4, 4 x 16 by 2, 2 x 16 by 4, 1 x 16 by 4],
                two [4 x 64 by 2, 2 x 64 by 2, 1 x 64 by 2], scatter [32 by 2, 16 by 2],
                attention 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
            }
            pairs { none }
            codes { Plain, 1 x 8: [1 x 1, 2 x 1, 3 x 1, 4 x 1, 6 x 1, 8 x 1, 12 x 1, 16 x 1] }
        }
    }
}

/// Other architectures have no rows of their own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod architecture {
    pub const ROWS: &[crate::kernels::tier::Row] = &[];
}

/// All rows, the best of each ISA last.
pub static TIERS: &[&Tier] = &{
    let mut all = [portable::ROWS[0].tier; 1 + architecture::ROWS.len()];
    let mut i = 1;
    while i < all.len() {
        all[i] = architecture::ROWS[i - 1].tier;
        i += 1;
    }
    all
};

/// Each set of features in the list of ISAs has a row, in that order.
const _: () = {
    let sets = FeatureSet::all();
    assert!(sets.len() == TIERS.len(), "an ISA without a row");
    let mut i = 0;
    while i < sets.len() {
        assert!(sets[i].is(TIERS[i].set), "a row in another place than its ISA");
        i += 1;
    }
};

impl Tier {
    /// The kernels to use for a target, whose ISA this CPU has.
    pub fn of(target: Target) -> &'static Tier {
        let fits = |row: &&super::tier::Row| row.tier.isa == target.isa && row.tier.is_supported();
        let Some(row) = architecture::ROWS.iter().rev().chain(portable::ROWS).find(fits) else {
            unreachable!("this CPU has no {}", target.isa)
        };
        if target.pairs { row.tier } else { row.widening }
    }
}
