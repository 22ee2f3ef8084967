//! The list of kernels for binary codes. A row here puts them into dispatch, the sweep and the yardstick.

use super::scalar::Plain;
use super::{Popcount, Run, Search, Tile, nearest, pairwise};
use crate::base::isa::Isa;
#[cfg(target_arch = "aarch64")]
use crate::kernels::aarch64::NeonCounts;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::{Avx2Nibbles, Avx512Nibbles, Avx512Words};

/// The kernels of one kind of registers.
#[derive(Debug)]
pub struct Codes {
    /// Registers.
    pub name: &'static str,
    /// The tier that it takes.
    pub isa: Isa,
    /// Whether it also needs AVX-512 BITALG.
    pub bitalg: bool,
    /// Codes of a panel.
    pub lanes: usize,
    /// By slices of 16 bits, ascending to 16.
    pub widths: &'static [Width],
    /// Exclusive or, count and sum on registers alone: so many times the number of bits returned.
    pub peak: unsafe fn(u64) -> u64,
    /// The same without the sum.
    pub peak_alone: unsafe fn(u64) -> u64,
}

/// The kernels for codes of so many slices.
#[derive(Debug)]
pub struct Width {
    /// Slices of 16 bits.
    pub slices: usize,
    /// Codes of a that are taken at once.
    pub rows: usize,
    /// Distances, of so many codes of a and of one.
    pub distances: [Run; 2],
    /// Something less twice the distance, the same.
    pub less_twice: [Run; 2],
    /// The nearest to one code of a.
    pub nearest: unsafe fn(&Search),
}

macro_rules! codes {
    (
        $(#[$cfg:meta])* $module:ident: $simd:ident, $isa:ident, bitalg $bitalg:literal, #[$features:meta],
        [$($width:ident: $slices:literal x $rows:literal),* $(,)?]
    ) => {
        $(#[$cfg])*
        mod $module {
            use super::*;
            $(
                mod $width {
                    use super::*;
                    codes!(@fn #[$features] several(t: &Tile) => pairwise::<$simd, $slices, $rows, false>);
                    codes!(@fn #[$features] one(t: &Tile) => pairwise::<$simd, $slices, 1, false>);
                    codes!(@fn #[$features] several_twice(t: &Tile) => pairwise::<$simd, $slices, $rows, true>);
                    codes!(@fn #[$features] one_twice(t: &Tile) => pairwise::<$simd, $slices, 1, true>);
                    codes!(@fn #[$features] search(t: &Search) => nearest::<$simd, $slices>);
                    pub const WIDTH: Width = Width {
                        slices: $slices,
                        rows: $rows,
                        distances: [several, one],
                        less_twice: [several_twice, one_twice],
                        nearest: search,
                    };
                }
            )*
            codes!(@fn #[$features] peak(times: u64) -> u64 => super::super::peak::<$simd, true>);
            codes!(@fn #[$features] peak_alone(times: u64) -> u64 => super::super::peak::<$simd, false>);
            pub static CODES: Codes = Codes {
                name: concat!(stringify!($module), "-codes"),
                isa: Isa::$isa,
                bitalg: $bitalg,
                lanes: <$simd as Popcount>::LANES,
                widths: &[$($width::WIDTH),*],
                peak,
                peak_alone,
            };
        }
    };
    (@fn #[$features:meta] $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? => $body:path) => {
        #[$features]
        unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: as the caller, who also vouches for the tier.
            unsafe { $body($($arg),*) }
        }
    };
}

codes! {
    scalar: Plain, Scalar, bitalg false, #[inline(never)],
    [s1: 1 x 1, s2: 2 x 1, s3: 3 x 1, s4: 4 x 1, s6: 6 x 1, s8: 8 x 1, s12: 12 x 1, s16: 16 x 1]
}

codes! {
    #[cfg(target_arch = "x86_64")]
    avx2: Avx2Nibbles, Avx2, bitalg false, #[target_feature(enable = "avx2,fma,f16c")],
    [s1: 1 x 2, s2: 2 x 2, s3: 3 x 2, s4: 4 x 1, s6: 6 x 1, s8: 8 x 1, s12: 12 x 1, s16: 16 x 1]
}

codes! {
    #[cfg(target_arch = "x86_64")]
    avx512: Avx512Nibbles, Avx512, bitalg false,
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")],
    [s1: 1 x 4, s2: 2 x 4, s3: 3 x 4, s4: 4 x 4, s6: 6 x 2, s8: 8 x 2, s12: 12 x 1, s16: 16 x 1]
}

codes! {
    #[cfg(target_arch = "x86_64")]
    avx512_bitalg: Avx512Words, Avx512Vnni, bitalg true,
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bitalg")],
    [s1: 1 x 4, s2: 2 x 4, s3: 3 x 4, s4: 4 x 4, s6: 6 x 2, s8: 8 x 2, s12: 12 x 1, s16: 16 x 1]
}

codes! {
    #[cfg(target_arch = "aarch64")]
    neon: NeonCounts, Neon, bitalg false, #[target_feature(enable = "neon")],
    [s1: 1 x 4, s2: 2 x 4, s3: 3 x 4, s4: 4 x 4, s6: 6 x 2, s8: 8 x 2, s12: 12 x 1, s16: 16 x 1]
}

/// All rows, the best last.
pub static CODES: &[&Codes] = &[
    &scalar::CODES,
    #[cfg(target_arch = "x86_64")]
    &avx2::CODES,
    #[cfg(target_arch = "x86_64")]
    &avx512::CODES,
    #[cfg(target_arch = "x86_64")]
    &avx512_bitalg::CODES,
    #[cfg(target_arch = "aarch64")]
    &neon::CODES,
];

impl Codes {
    /// Whether this CPU can run it.
    pub fn is_supported(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.bitalg && !std::arch::is_x86_feature_detected!("avx512bitalg") {
            return false;
        }
        self.isa.is_supported()
    }

    /// The kernels to use for `isa`, which this CPU has.
    pub fn of(isa: Isa) -> &'static Codes {
        CODES.iter().rev().find(|c| isa.implies(c.isa) && c.is_supported()).unwrap_or(&CODES[0])
    }

    /// The narrowest kernels for codes of so many bits, 1 to 256.
    pub fn width(&self, bits: usize) -> &'static Width {
        let wide = |w: &&Width| 16 * w.slices >= bits;
        self.widths.iter().find(wide).unwrap_or_else(|| unreachable!("no width for {bits} bits"))
    }
}
