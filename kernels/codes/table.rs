//! The entry of a row of the kernel table for binary codes, and the macro that makes it.
//!
//! ```text
//! codes! { set, Registers, most rows x lanes: [slices x rows, ..] }  =>  mod codes { static CODES: Codes }
//! ```

use super::{Run, Search};
use crate::base::isa::FeatureSet;

/// The kernels of one kind of registers.
#[derive(Debug)]
pub struct Codes {
    /// The name of the kernels; see `kernels::table` for the grammar.
    pub name: &'static str,
    /// The CPU features that they are compiled for.
    pub set: &'static FeatureSet,
    /// Codes of b in a panel.
    pub lanes: usize,
    /// The kernels by the number of slices of 16 bits, ascending to 16 slices.
    pub widths: &'static [Width],
    /// Runs exclusive or, count and sum on registers alone, so many times; returns the number of bits.
    pub peak: unsafe fn(u64) -> u64,
    /// [`Codes::peak`] without the sum.
    pub peak_alone: unsafe fn(u64) -> u64,
}

/// The kernels for codes of so many slices of 16 bits.
#[derive(Debug)]
pub struct Width {
    /// Slices of 16 bits.
    pub slices: usize,
    /// Codes of a that are computed at once.
    pub rows: usize,
    /// Kernels whose output is the distance.
    pub distances: Distances,
    /// Kernels whose output is a number less twice the distance.
    pub less_twice: Distances,
    /// The nearest codes of b to one code of a.
    pub nearest: unsafe fn(&Search),
}

/// The kernels of one kind of output.
#[derive(Debug, Clone, Copy)]
pub struct Distances {
    /// For `Width::rows` codes of a.
    pub several: Run,
    /// For one code of a.
    pub one: Run,
}

/// `codes! { set, Registers, most rows x lanes: [slices x rows, ..] }` makes a module `codes` with `CODES`. `codes! {
/// set, of parent }` reuses that of another row of the table.
macro_rules! codes {
    ($set:ident, of $parent:ident) => {
        pub use super::$parent::codes;
    };
    ($set:ident, $counts:ty, $most:literal x $lanes:literal: [$($slices:literal x $rows:literal),* $(,)?]) => {
        pub mod codes {
            use super::*;
            use crate::base::isa::FeatureSet;
            use crate::kernels::codes::table::{Codes, Distances, Width};
            use crate::kernels::codes::{Popcount, Search, Tile, nearest, pairwise, peak};

            compile! { $set: fn run[const SLICES: usize, const ROWS: usize, const TWICE: bool](t: &Tile)
                = pairwise::<$counts, SLICES, ROWS, TWICE> }
            compile! { $set: fn search[const SLICES: usize](t: &Search) = nearest::<$counts, SLICES> }
            compile! { $set: fn most[const SUM: bool](times: u64) -> u64 = peak::<$counts, SUM> }

            pub static CODES: Codes = Codes {
                name: concat!(stringify!($set), "-b1b1-hamming-kmajor16-", $most, "x", $lanes),
                set: FeatureSet::named(stringify!($set)),
                lanes: <$counts as Popcount>::LANES,
                widths: &[$(Width {
                    slices: $slices,
                    rows: $rows,
                    distances: Distances {
                        several: run::<$slices, $rows, false>,
                        one: run::<$slices, 1, false>,
                    },
                    less_twice: Distances {
                        several: run::<$slices, $rows, true>,
                        one: run::<$slices, 1, true>,
                    },
                    nearest: search::<$slices>,
                }),*],
                peak: most::<true>,
                peak_alone: most::<false>,
            };
        }
    };
}
pub(crate) use codes;

impl Codes {
    /// The narrowest kernels for codes of so many bits, 1 to 256.
    pub fn width(&self, bits: usize) -> &'static Width {
        let wide = |w: &&Width| 16 * w.slices >= bits;
        self.widths.iter().find(wide).unwrap_or_else(|| unreachable!("no width for {bits} bits"))
    }
}
