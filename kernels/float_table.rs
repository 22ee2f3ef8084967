//! The list of kernels for floats. A tier of bytes names the registers its floats run on.

#[cfg(target_arch = "aarch64")]
use super::aarch64::{Neon, NeonBf16};
use super::attention::table::{Direct, Multiply, Passes, multiply, passes, single};
use super::convert::{self, to_bf16, widen};
use super::dense::{Bfloats, Bytes, F32, Halves, Kernel, Product, Tile, Words, float_peak};
use super::ecoformer::{Features, Lookup};
use super::float::{Band, Columns, gather, scatter};
use super::scalar::Scalar;
use super::simd::{Simd, TOGETHER};
use super::table::{DenseKernel, Several};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512, Avx512Bf16};
use super::{ecoformer, epilogue, float_token, pack};
use crate::base::element::Element;

/// A block-sparse kernel that gathers lines: some groups of rows times one panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct GatherKernel {
    /// Registers, product, rows x tokens.
    pub name: &'static str,
    /// The height of its groups.
    pub rows: usize,
    /// The tokens of its panel.
    pub tokens: usize,
    /// Sums to `[row][tokens]`.
    pub run: unsafe fn(&Band<'_>, *mut f32),
}

/// A block-sparse kernel that scatters to sums: some columns of a band times one panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct ScatterKernel {
    /// Registers, product, columns x tokens.
    pub name: &'static str,
    /// The tokens of its panel.
    pub tokens: usize,
    /// Sums to `[row][tokens]`, for so many rows.
    pub run: unsafe fn(&Columns<'_>, usize, *mut f32),
}

/// The kernels of one product.
#[derive(Debug)]
pub struct FloatKernels {
    /// Dense: by how weights are stored (of pairs, one).
    pub dense: &'static [DenseKernel],
    /// Block-sparse, rows of blocks of more than one row.
    pub gather: &'static [GatherKernel],
    /// Block-sparse, rows of blocks of one row.
    pub scatter: &'static [ScatterKernel],
    /// The products of registers alone, for the peak: so many times the number of operations returned.
    pub peak: unsafe fn(u64) -> u64,
}

impl FloatKernels {
    /// The dense kernel for weights of an element type.
    pub fn dense_of(&self, stored: Element) -> &DenseKernel {
        let fits = |k: &&DenseKernel| k.stored == stored;
        self.dense.iter().find(fits).unwrap_or_else(|| unreachable!("no dense kernel for {stored}"))
    }
}

/// Block-sparse kernels for one token.
#[derive(Debug, Clone, Copy)]
pub struct TokenKernels {
    /// Registers.
    pub name: &'static str,
    /// Sums to `[row]`, of groups of 4 rows and of 1.
    pub gather: [unsafe fn(&Band<'_>, *mut f32); 2],
    /// Sums to `[row]`, for so many rows.
    pub scatter: unsafe fn(&Columns<'_>, usize, *mut f32),
}

/// One entry for each element type that the weights of float kernels are stored as.
#[derive(Debug, Clone, Copy)]
pub struct Stored<T> {
    /// Of f32.
    pub f32: T,
    /// Of bfloat16.
    pub bf16: T,
    /// Of f16.
    pub f16: T,
    /// Of signed bytes.
    pub i8: T,
}

impl<T> Stored<T> {
    /// The entry of an element type that weights are stored as.
    pub fn of(&self, element: Element) -> &T {
        match element {
            Element::F32 => &self.f32,
            Element::Bf16 => &self.bf16,
            Element::F16 => &self.f16,
            Element::I8 | Element::U8 => &self.i8,
            other => unreachable!("no weights of {other}"),
        }
    }
}

/// Everything that a kind of registers does with floats.
#[derive(Debug)]
pub struct FloatTier {
    /// Fused multiply-adds of f32.
    pub f32: FloatKernels,
    /// One token through block-sparse weights.
    pub token: TokenKernels,
    /// To f32, by what is stored.
    pub widen: Stored<convert::Run>,
    /// To bfloat16, by what is stored (bytes never are).
    pub to_bf16: [convert::Run; 3],
    /// Rows of 4-byte elements to a panel of lines.
    pub rows_to_lines: pack::Run,
    /// The end of a tile of f32 sums.
    pub epilogue: epilogue::Run,
    /// Tiles of attention.
    pub multiply: &'static Multiply,
    /// A single query, with k or v of bfloat16 and of halves.
    pub narrow: [Direct; 2],
    /// The rest of attention.
    pub passes: &'static Passes,
    /// Inner products to features of a kernelized hash.
    pub features: unsafe fn(&Features),
    /// Rows of floats to masks of what is above 0.
    pub signs: unsafe fn(*const f32, usize, *mut u64),
    /// Sums of signed rows.
    pub lookup: unsafe fn(&Lookup),
}

macro_rules! dense {
    (
        $id:ident: $name:expr, $simd:ident $product:ident $storage:ident of $stored:ident, x $x_bytes:literal bytes,
        #[$features:meta], $nv:literal x [$($run:ident: $mr:literal),*], [$($several:ident: $few:literal x $panels:literal),*]
    ) => {
        mod $id {
            use super::*;
            $(
                #[$features]
                unsafe fn $run(t: &Tile) {
                    // SAFETY: as the caller, who also vouches for the tier.
                    unsafe { Kernel::<$simd, $product, $storage, $mr, $nv, 1, 1>::run(t) }
                }
            )*
            $(
                #[$features]
                unsafe fn $several(t: &Tile) {
                    // SAFETY: as the caller, who also vouches for the tier.
                    unsafe { Kernel::<$simd, $product, $storage, $few, $nv, $panels, 1>::run(t) }
                }
            )*
            const STEP: usize = if <$product as Product<$simd>>::MATRIX { TOGETHER } else { 4 };
            pub const KERNEL: DenseKernel = DenseKernel {
                name: $name,
                nr: $nv * <$simd as Simd>::LANES,
                lanes: <$simd as Simd>::LANES,
                x_bytes: $x_bytes,
                padded: STEP / $x_bytes,
                together: STEP / $x_bytes,
                stored: Element::$stored,
                run: &[$($run),*],
                several: &[$(Several { panels: $panels, run: $several }),*],
            };
        }
    };
}

macro_rules! sparse {
    (
        $product:ident, $label:expr, $simd:ident, lines $lines:literal, #[$features:meta],
        gather [$($gather:ident: $rows:literal x $gtokens:literal by $gvecs:literal),*],
        scatter [$($scatter:ident: $stokens:literal by $svecs:literal),*]
    ) => {
        $(
            #[$features]
            unsafe fn $gather(band: &Band<'_>, out: *mut f32) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { gather::<$simd, $product, $rows, $gvecs, $gtokens>(band, out) }
            }
        )*
        $(
            #[$features]
            unsafe fn $scatter(columns: &Columns<'_>, rows: usize, out: *mut f32) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { scatter::<$simd, $product, $lines, $svecs, $stokens>(columns, rows, out) }
            }
        )*
        const GATHER: &[GatherKernel] = &[$(GatherKernel {
            name: concat!($label, "-gather-", $rows, "x", $gtokens), rows: $rows, tokens: $gtokens, run: $gather
        }),*];
        const SCATTER: &[ScatterKernel] = &[$(ScatterKernel {
            name: concat!($label, "-scatter-4x", $stokens), tokens: $stokens, run: $scatter
        }),*];
    };
}

macro_rules! tier {
    (
        $(#[$cfg:meta])* $module:ident: $simd:ident, $label:literal, #[$features:meta],
        dense $nv:literal x $runs:tt, $several:tt,
        gather $gather:tt, scatter $scatter:tt, attention $widths:tt,
    ) => {
        $(#[$cfg])*
        pub mod $module {
            use super::*;
            dense!(words: concat!($label, "-f32-dense"), $simd F32 Words of F32, x 4 bytes, #[$features], $nv x $runs, $several);
            dense!(bfloats: concat!($label, "-f32-bf16-dense"), $simd F32 Bfloats of Bf16, x 4 bytes, #[$features], $nv x $runs, $several);
            dense!(halves: concat!($label, "-f32-f16-dense"), $simd F32 Halves of F16, x 4 bytes, #[$features], $nv x $runs, $several);
            dense!(bytes: concat!($label, "-f32-i8-dense"), $simd F32 Bytes of I8, x 4 bytes, #[$features], $nv x $runs, $several);
            tier!(@fn #[$features] token_four(band: &Band<'_>, out: *mut f32) => float_token::gather::<4>);
            tier!(@fn #[$features] token_one(band: &Band<'_>, out: *mut f32) => float_token::gather::<1>);
            tier!(@fn #[$features] token_scatter(columns: &Columns<'_>, rows: usize, out: *mut f32) => float_token::scatter);
            multiply!(multiply: concat!($label, "-f32-attention"), $simd F32, #[$features], $widths);
            single!(single_bfloats: $simd F32 Bfloats, #[$features]);
            single!(single_halves: $simd F32 Halves, #[$features]);
            passes!($simd, #[$features]);
            sparse!(F32, concat!($label, "-f32"), $simd, lines 4, #[$features], gather $gather, scatter $scatter);
            tier!(@fn #[$features] widen_words(from: *const u8, n: usize, to: *mut u8) => widen::<$simd, Words>);
            tier!(@fn #[$features] widen_bfloats(from: *const u8, n: usize, to: *mut u8) => widen::<$simd, Bfloats>);
            tier!(@fn #[$features] widen_halves(from: *const u8, n: usize, to: *mut u8) => widen::<$simd, Halves>);
            tier!(@fn #[$features] widen_bytes(from: *const u8, n: usize, to: *mut u8) => widen::<$simd, Bytes>);
            tier!(@fn #[$features] words_to_bf16(from: *const u8, n: usize, to: *mut u8) => to_bf16::<$simd, Words>);
            tier!(@fn #[$features] bfloats_to_bf16(from: *const u8, n: usize, to: *mut u8) => to_bf16::<$simd, Bfloats>);
            tier!(@fn #[$features] halves_to_bf16(from: *const u8, n: usize, to: *mut u8) => to_bf16::<$simd, Halves>);
            tier!(@fn #[$features] rows_to_lines(t: &pack::Tokens) => pack::words_to_lines::<$simd>);
            tier!(@fn #[$features] features(f: &Features) => ecoformer::features::<$simd>);
            tier!(@fn #[$features] signs(y: *const f32, bits: usize, masks: *mut u64) => ecoformer::signs::<$simd>);
            tier!(@fn #[$features] lookup(l: &Lookup) => ecoformer::lookup::<$simd>);
            tier!(@fn #[$features] run_epilogue(plan: &epilogue::Plan<'_>, sums: &epilogue::Sums) => epilogue::run::<$simd, true>);
            #[$features]
            unsafe fn peak(times: u64) -> u64 {
                // SAFETY: as the caller, who vouches for the tier.
                unsafe { float_peak::<$simd, F32, 1>(times) }
            }
            /// The kernels.
            pub static TIER: FloatTier = FloatTier {
                f32: FloatKernels {
                    dense: &[words::KERNEL, bfloats::KERNEL, halves::KERNEL, bytes::KERNEL],
                    gather: GATHER,
                    scatter: SCATTER,
                    peak,
                },
                token: TokenKernels {
                    name: concat!($label, "-f32-token"),
                    gather: [token_four, token_one],
                    scatter: token_scatter,
                },
                widen: Stored { f32: widen_words, bf16: widen_bfloats, f16: widen_halves, i8: widen_bytes },
                to_bf16: [words_to_bf16, bfloats_to_bf16, halves_to_bf16],
                rows_to_lines,
                epilogue: run_epilogue,
                multiply: &multiply::KERNELS,
                narrow: [single_bfloats::DIRECT, single_halves::DIRECT],
                passes: &passes::PASSES,
                features,
                signs,
                lookup,
            };
        }
    };
    (@fn #[$features:meta] $name:ident($($arg:ident: $ty:ty),*) => $body:path) => {
        #[$features]
        unsafe fn $name($($arg: $ty),*) {
            // SAFETY: as the caller, who also vouches for the tier.
            unsafe { $body($($arg),*) }
        }
    };
}

tier! {
    scalar: Scalar, "scalar", #[inline(never)],
    dense 2 x [m1: 1, m2: 2, m3: 3], [s1: 1 x 2],
    gather [g4: 4 x 32 by 2, g1: 1 x 32 by 4, g4s: 4 x 16 by 2, g1s: 1 x 16 by 4],
    scatter [s32: 32 by 2, s16: 16 by 2],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3], w1: 1 x [r1: 1, r2: 2, r3: 3]],
}

tier! {
    #[cfg(target_arch = "x86_64")]
    avx2: Avx2, "avx2", #[target_feature(enable = "popcnt,avx2,fma,f16c")],
    dense 2 x [m1: 1, m2: 2, m3: 3, m4: 4, m5: 5, m6: 6], [s1: 1 x 4, s2: 2 x 2, s3: 3 x 2],
    gather [g4: 4 x 32 by 2, g1: 1 x 32 by 4, g4s: 4 x 16 by 2, g1s: 1 x 16 by 2],
    scatter [s32: 32 by 2, s16: 16 by 2],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

tier! {
    #[cfg(target_arch = "x86_64")]
    avx512: Avx512, "avx512",
    #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")],
    dense 2 x [m1: 1, m2: 2, m3: 3, m4: 4, m5: 5, m6: 6, m7: 7, m8: 8, m9: 9, m10: 10, m11: 11, m12: 12],
        [s1: 1 x 4, s2: 2 x 2, s3: 3 x 2],
    gather [g4: 4 x 32 by 2, g1: 1 x 32 by 2, g4s: 4 x 16 by 1, g1s: 1 x 16 by 1],
    scatter [s32: 32 by 2, s16: 16 by 1],
    attention [w4: 4 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

tier! {
    #[cfg(target_arch = "aarch64")]
    neon: Neon, "neon", #[target_feature(enable = "neon")],
    dense 4 x [m1: 1, m2: 2, m3: 3, m4: 4], [s1: 1 x 4, s2: 2 x 2],
    gather [g4: 4 x 32 by 4, g1: 1 x 32 by 8, g4s: 4 x 16 by 4, g1s: 1 x 16 by 4],
    scatter [s32: 32 by 4, s16: 16 by 4],
    attention [w4: 4 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5], w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5]],
}

/// NEON's, with tiles of SVE in their places.
#[cfg(siskin_sve)]
pub static SVE: FloatTier = {
    use super::aarch64::sve;
    const NEON: &FloatKernels = &neon::TIER.f32;
    const fn four(of: usize, tokens: usize) -> GatherKernel {
        assert!(NEON.gather[of].rows == 4 && NEON.gather[of].tokens == tokens);
        NEON.gather[of]
    }
    FloatTier {
        f32: FloatKernels {
            dense: &[
                DenseKernel {
                    name: "sve-f32-dense",
                    nr: sve::FEATURES,
                    run: sve::DENSE_F32,
                    several: &[],
                    ..NEON.dense[0]
                },
                NEON.dense[1],
                NEON.dense[2],
                NEON.dense[3],
            ],
            gather: &[
                GatherKernel { name: "sve-f32-gather-4x32", run: sve::gather::<32>, ..four(0, 32) },
                NEON.gather[1],
                GatherKernel { name: "sve-f32-gather-4x16", run: sve::gather::<16>, ..four(2, 16) },
                NEON.gather[3],
            ],
            scatter: NEON.scatter,
            peak: NEON.peak,
        },
        ..neon::TIER
    }
};

/// Pairs of bfloat16, on CPUs that multiply them.
#[allow(unused_macros, reason = "not on every architecture")]
macro_rules! pairs {
    (
        $(#[$cfg:meta])* $module:ident: $simd:ident, $label:literal, #[$features:meta], dense $nv:literal x $runs:tt, $several:tt,
        gather $gather:tt, scatter $scatter:tt, attention $widths:tt,
    ) => {
        /// Pairs of bfloat16.
        $(#[$cfg])*
        pub mod $module {
            use super::*;
            use crate::kernels::dense::Pairs;
            dense!(pairs: concat!($label, "-dense"), $simd Pairs Words of Bf16, x 2 bytes, #[$features], $nv x $runs, $several);
            multiply!(multiply: concat!($label, "-attention"), $simd Pairs, #[$features], $widths);
            sparse!(Pairs, $label, $simd, lines 2, #[$features], gather $gather, scatter $scatter);
            #[$features]
            unsafe fn peak(times: u64) -> u64 {
                // SAFETY: as the caller, who vouches for the tier.
                unsafe { float_peak::<$simd, Pairs, 2>(times) }
            }
            /// Tiles of attention.
            pub static MULTIPLY: &Multiply = &multiply::KERNELS;
            /// The kernels.
            pub static KERNELS: FloatKernels =
                FloatKernels { dense: &[pairs::KERNEL], gather: GATHER, scatter: SCATTER, peak };
        }
    };
}

pairs! {
    #[cfg(target_arch = "x86_64")]
    avx512_bf16: Avx512Bf16, "avx512_bf16",
    #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16")],
    dense 2 x [m1: 1, m2: 2, m3: 3, m4: 4, m5: 5, m6: 6, m7: 7, m8: 8, m9: 9, m10: 10, m11: 11, m12: 12],
        [s1: 1 x 4, s2: 2 x 2, s3: 3 x 2],
    gather [g4: 4 x 64 by 4, g1: 1 x 64 by 4, g4s: 4 x 16 by 1, g1s: 1 x 16 by 1],
    scatter [s64: 64 by 4, s16: 16 by 1],
    attention [w4: 4 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

pairs! {
    #[cfg(target_arch = "aarch64")]
    neon_bf16: NeonBf16, "neon_bf16", #[target_feature(enable = "neon,dotprod,i8mm,bf16")],
    dense 4 x [m1: 1, m2: 2, m3: 3, m4: 4, m5: 5, m6: 6], [],
    gather [g4: 4 x 64 by 4, g1: 1 x 64 by 8, g4s: 4 x 16 by 4, g1s: 1 x 16 by 4],
    scatter [s64: 64 by 8, s16: 16 by 4],
    attention [w4: 4 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

impl FloatKernels {
    /// The gathering kernel for a height of groups and a width of panels: every list has all of them.
    pub fn gather(&self, rows: usize, tokens: usize) -> &'static GatherKernel {
        let fits = |k: &&GatherKernel| k.rows == rows && k.tokens == tokens;
        self.gather.iter().find(fits).unwrap_or_else(|| unreachable!("no gather {rows}x{tokens}"))
    }

    /// The scattering kernel for a width of panels.
    pub fn scatter(&self, tokens: usize) -> &'static ScatterKernel {
        let fits = |k: &&ScatterKernel| k.tokens == tokens;
        self.scatter.iter().find(fits).unwrap_or_else(|| unreachable!("no scatter x{tokens}"))
    }
}
