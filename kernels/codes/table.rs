//! What a row of the kernel table has for binary codes, and the macro that makes it.

use super::{Run, Search};
use crate::base::isa::FeatureSet;

/// The kernels of one kind of registers.
#[derive(Debug)]
pub struct Codes {
    /// See `kernels::table`.
    pub name: &'static str,
    /// What they are compiled for.
    pub set: &'static FeatureSet,
    /// Codes of a panel.
    pub lanes: usize,
    /// By slices of 16 bits, ascending to 16.
    pub widths: &'static [Width],
    /// Exclusive or, count and sum on registers alone: so many times the number of bits returned.
    pub peak: unsafe fn(u64) -> u64,
    /// Exclusive or and population count without the sum.
    pub peak_alone: unsafe fn(u64) -> u64,
}

/// The kernels for codes of so many slices.
#[derive(Debug)]
pub struct Width {
    /// Slices of 16 bits.
    pub slices: usize,
    /// Codes of a that are taken at once.
    pub rows: usize,
    /// Distances.
    pub distances: Distances,
    /// Something less twice the distance.
    pub less_twice: Distances,
    /// The nearest to one code of a.
    pub nearest: unsafe fn(&Search),
}

/// Kernels of one output.
#[derive(Debug, Clone, Copy)]
pub struct Distances {
    /// Of as many codes of a as are taken at once.
    pub several: Run,
    /// Of one code of a.
    pub one: Run,
}

/// `codes! { set, Registers, most rows x lanes: [slices x rows, ..] }`: a module `codes` with `CODES`. `codes! { set, of parent }`:
/// those of another row.
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
