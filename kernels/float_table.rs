//! What a row of the kernel table has for floats, and the macros that make it.

use super::attention::table::{Multiply, Passes};
use super::byte_table::DenseKernel;
use super::ecoformer::{AddRows, Features, Lookup, Norms, Signed};
use super::epilogue::{self, Finish, Lines};
use super::float::{Band, Columns};
use super::{convert, pack};
use crate::base::element::Element;

/// A kernel for the groups of a band.
pub type Gather = unsafe fn(&Band<'_>, *mut f32);

/// A block-sparse kernel that gathers lines: some groups of rows times one panel of tokens, or two.
#[derive(Debug, Clone, Copy)]
pub struct GatherKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// The height of its groups.
    pub rows: usize,
    /// The tokens of its panel, or of both.
    pub tokens: usize,
    /// Sums to `[row][tokens of a panel]`.
    pub run: Gather,
}

/// A block-sparse kernel that scatters to sums: some columns of a band times one panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct ScatterKernel {
    /// See `kernels::table`.
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
    /// Block-sparse, rows that are gathered.
    pub gather: &'static [GatherKernel],
    /// Block-sparse, rows that are gathered from two neighbouring whole panels at once: of all heights, or of none where nothing is gained.
    pub two: &'static [GatherKernel],
    /// Block-sparse, rows that are scattered.
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

/// Block-sparse kernels for panels of one token or four.
#[derive(Debug, Clone, Copy)]
pub struct FewKernels {
    /// See `kernels::table`.
    pub name: &'static str,
    /// The tokens of a panel.
    pub tokens: usize,
    /// Sums to `[row][tokens]`, of groups of 4, 2 and 1 rows: of any columns, and of entries each four of which are neighbouring columns.
    pub gather: [[Gather; 2]; 3],
    /// Sums to `[row][tokens]`, for so many rows.
    pub scatter: unsafe fn(&Columns<'_>, usize, *mut f32),
}

impl FewKernels {
    /// The gathering kernel for a height of groups, 4, 2 or 1.
    pub fn gather(&self, rows: usize, adjacent: bool) -> Gather {
        let height = match rows {
            4 => 0,
            2 => 1,
            _ => 2,
        };
        self.gather[height][usize::from(adjacent)]
    }
}

/// Conversions to bfloat16, one for each element type but bytes, which never are.
#[derive(Debug, Clone, Copy)]
pub struct ToBf16 {
    /// Of f32.
    pub f32: convert::Run,
    /// Of bfloat16.
    pub bf16: convert::Run,
    /// Of f16.
    pub f16: convert::Run,
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

/// What EcoFormer needs beside products: of its hash, and of attention by codes.
#[derive(Debug, Clone, Copy)]
pub struct Hashing {
    /// The squared norms of rows.
    pub norms: unsafe fn(&Norms),
    /// Inner products to features of a kernelized hash.
    pub features: unsafe fn(&Features),
    /// Rows of floats to masks of what is above 0.
    pub signs: unsafe fn(*const f32, usize, *mut u64),
    /// Rows to their sums by the values of codes.
    pub add_rows: unsafe fn(&AddRows),
    /// Sums by the values of codes to sums of signed rows.
    pub signed: unsafe fn(&Signed),
    /// Sums of signed rows to what they add up to for each value.
    pub tables: unsafe fn(&Signed),
    /// Sums of signed rows.
    pub lookup: unsafe fn(&Lookup),
}

/// Everything that a kind of registers does with floats.
#[derive(Debug)]
pub struct FloatTier {
    /// Layers, of fused multiply-adds of f32.
    #[cfg(feature = "linear")]
    pub f32: FloatKernels,
    /// One token and four through block-sparse weights.
    #[cfg(feature = "linear")]
    pub few: [FewKernels; 2],
    /// To f32, by what is stored.
    pub widen: Stored<convert::Run>,
    /// To bfloat16, by what is stored.
    pub to_bf16: ToBf16,
    /// Rows of 4-byte elements to a K-major panel.
    pub pack_kmajor: pack::Run,
    /// The end of a tile of f32 sums.
    #[cfg(feature = "linear")]
    pub epilogue: epilogue::Run,
    /// f32 sums of a sparse tile to lines of the next layer's panel.
    #[cfg(feature = "linear")]
    pub lines: unsafe fn(&Finish<'_>, &Lines),
    /// Tiles of attention.
    #[cfg(any(feature = "attention", feature = "ecoformer"))]
    pub multiply: &'static Multiply,
    /// The rest of attention.
    #[cfg(feature = "attention")]
    pub passes: &'static Passes,
    /// What EcoFormer needs beside products: of its hash, and of attention by codes.
    #[cfg(feature = "ecoformer")]
    pub hashing: Hashing,
}

/// `floats! { set, Registers, dense .., gather [..], two [..], scatter [..], attention .. }`: a module `floats` with `FLOATS`. `floats! { set, of parent }`: that of another row.
macro_rules! floats {
    ($set:ident, of $parent:ident) => {
        pub use super::$parent::floats;
    };
    (
        $set:ident, $simd:ty,
        dense $dense_rows:literal x $dense_columns:literal: $nv:literal registers x $dense:tt, panels $several:tt,
        gather $gather:tt, two $two:tt, scatter $scatter:tt,
        attention $rows:literal x $widest:literal $attention:tt
    ) => {
        pub mod floats {
            use super::*;
            use crate::kernels::attention::table::{multiply, passes};
            use crate::kernels::byte_table::dense_kernel;
            use crate::kernels::convert::{to_bf16, widen};
            use crate::kernels::dense::{StoredBf16, Bytes, F32, StoredF16, Words};
            use crate::kernels::peak::float_peak;
            use crate::kernels::ecoformer::{self, AddRows, Features, Lookup, Norms, Signed};
            use crate::kernels::epilogue::{self, Finish, Lines, Sums};
            use crate::kernels::float::{Band, Columns};
            use crate::kernels::float_table::{FloatKernels, FloatTier, FewKernels, Hashing, Stored, ToBf16, sparse_floats};
            use crate::kernels::{float_few, pack};

            dense_kernel! { f32_weights: $set, $simd, F32, Words => F32, 4 as 4, "f32f32", $dense_rows x $dense_columns: $nv x $dense, $several }
            dense_kernel! { bf16_weights: $set, $simd, F32, StoredBf16 => Bf16, 4 as 4, "f32bf16", $dense_rows x $dense_columns: $nv x $dense, $several }
            dense_kernel! { f16_weights: $set, $simd, F32, StoredF16 => F16, 4 as 4, "f32f16", $dense_rows x $dense_columns: $nv x $dense, $several }
            dense_kernel! { i8_weights: $set, $simd, F32, Bytes => I8, 4 as 4, "f32i8", $dense_rows x $dense_columns: $nv x $dense, $several }
            sparse_floats! { $set, $simd, F32, 4, "f32f32", "kmajor", gather $gather, two $two, scatter $scatter }
            multiply! { $set, $simd, F32, "f32f32", "kmajor", $rows x $widest $attention }
            passes! { $set, $simd }
            compile! { $set: fn few[const ROWS: usize, const TOKENS: usize, const VECS: usize, const ADJACENT: bool, const GROUPS: usize, const HALF: usize](band: &Band<'_>, out: *mut f32)
                = float_few::gather::<$simd, ROWS, TOKENS, VECS, ADJACENT, GROUPS, HALF> }
            compile! { $set: fn few_scatter[const TOKENS: usize](columns: &Columns<'_>, rows: usize, out: *mut f32) = float_few::scatter::<$simd, TOKENS> }
            compile! { $set: fn widen_f32(from: *const u8, n: usize, to: *mut u8) = widen::<$simd, Words> }
            compile! { $set: fn widen_bf16(from: *const u8, n: usize, to: *mut u8) = widen::<$simd, StoredBf16> }
            compile! { $set: fn widen_f16(from: *const u8, n: usize, to: *mut u8) = widen::<$simd, StoredF16> }
            compile! { $set: fn widen_i8(from: *const u8, n: usize, to: *mut u8) = widen::<$simd, Bytes> }
            compile! { $set: fn f32_to_bf16(from: *const u8, n: usize, to: *mut u8) = to_bf16::<$simd, Words> }
            compile! { $set: fn bf16_to_bf16(from: *const u8, n: usize, to: *mut u8) = to_bf16::<$simd, StoredBf16> }
            compile! { $set: fn f16_to_bf16(from: *const u8, n: usize, to: *mut u8) = to_bf16::<$simd, StoredF16> }
            compile! { $set: fn pack_kmajor(t: &pack::Tokens) = pack::pack_words_kmajor::<$simd> }
            compile! { $set: fn norms(n: &Norms) = ecoformer::norms::<$simd> }
            compile! { $set: fn features(f: &Features) = ecoformer::features::<$simd> }
            compile! { $set: fn signs(y: *const f32, bits: usize, masks: *mut u64) = ecoformer::signs::<$simd> }
            compile! { $set: fn add_rows(a: &AddRows) = ecoformer::add_rows::<$simd> }
            compile! { $set: fn signed(s: &Signed) = ecoformer::signed::<$simd> }
            compile! { $set: fn tables(s: &Signed) = ecoformer::tables::<$simd> }
            compile! { $set: fn lookup(l: &Lookup) = ecoformer::lookup::<$simd> }
            compile! { $set: fn epilogue(finish: &Finish<'_>, sums: &Sums) = epilogue::run::<$simd, true> }
            compile! { $set: fn lines(finish: &Finish<'_>, lines: &Lines) = epilogue::lines::<$simd> }
            compile! { $set: fn peak(times: u64) -> u64 = float_peak::<$simd, F32, 1> }

            pub static FLOATS: FloatTier = FloatTier {
                #[cfg(feature = "linear")]
                f32: FloatKernels {
                    dense: &[f32_weights::KERNEL, bf16_weights::KERNEL, f16_weights::KERNEL, i8_weights::KERNEL],
                    gather: GATHER,
                    two: TWO,
                    scatter: SCATTER,
                    peak,
                },
                #[cfg(feature = "linear")]
                few: [
                    FewKernels {
                        name: concat!(stringify!($set), "-f32f32-gemv-kmajor-4x1"),
                        tokens: 1,
                        gather: [
                            [few::<4, 1, 1, false, 8, 4>, few::<4, 1, 1, true, 8, 4>],
                            [few::<2, 1, 1, false, 8, 4>, few::<2, 1, 1, true, 8, 4>],
                            [few::<1, 1, 1, false, 4, 2>, few::<1, 1, 1, true, 8, 4>],
                        ],
                        scatter: few_scatter::<1>,
                    },
                    FewKernels {
                        name: concat!(stringify!($set), "-f32f32-gather-kmajor-4x4"),
                        tokens: 4,
                        gather: [
                            [few::<4, 4, 4, false, 2, 1>, few::<4, 4, 4, true, 2, 1>],
                            [few::<2, 4, 2, false, 4, 2>, few::<2, 4, 2, true, 4, 2>],
                            [few::<1, 4, 1, false, 4, 2>, few::<1, 4, 1, true, 8, 4>],
                        ],
                        scatter: few_scatter::<4>,
                    },
                ],
                widen: Stored { f32: widen_f32, bf16: widen_bf16, f16: widen_f16, i8: widen_i8 },
                to_bf16: ToBf16 { f32: f32_to_bf16, bf16: bf16_to_bf16, f16: f16_to_bf16 },
                pack_kmajor,
                #[cfg(feature = "linear")]
                epilogue,
                #[cfg(feature = "linear")]
                lines,
                #[cfg(any(feature = "attention", feature = "ecoformer"))]
                multiply: &multiply::KERNELS,
                #[cfg(feature = "attention")]
                passes: &passes::PASSES,
                #[cfg(feature = "ecoformer")]
                hashing: Hashing { norms, features, signs, add_rows, signed, tables, lookup },
            };
        }
    };
}
pub(crate) use floats;

/// `pairs! { set, Registers, dense .., gather [..], two [..], scatter [..], attention .. }`: a module `pairs` with `KERNELS` and `MULTIPLY`, of
/// pairs of bfloat16. `pairs! { set, none }`: on registers that do not multiply them.
macro_rules! pairs {
    ($set:ident, none) => {
        pub mod pairs {
            use crate::kernels::attention::table::Multiply;
            use crate::kernels::float_table::FloatKernels;
            pub const KERNELS: Option<&FloatKernels> = None;
            pub const MULTIPLY: Option<&Multiply> = None;
        }
    };
    (
        $set:ident, $simd:ty,
        dense $dense_rows:literal x $dense_columns:literal: $nv:literal registers x $dense:tt, panels $several:tt,
        gather $gather:tt, two $two:tt, scatter $scatter:tt,
        attention $rows:literal x $widest:literal $attention:tt
    ) => {
        pub mod pairs {
            use super::*;
            use crate::kernels::attention::table::{Multiply, multiply};
            use crate::kernels::byte_table::dense_kernel;
            use crate::kernels::dense::{Pairs, Words};
            use crate::kernels::peak::float_peak;
            use crate::kernels::float::{Band, Columns};
            use crate::kernels::float_table::{FloatKernels, sparse_floats};

            dense_kernel! { bf16_weights: $set, $simd, Pairs, Words => Bf16, 2 as 2, "bf16bf16", $dense_rows x $dense_columns: $nv x $dense, $several }
            sparse_floats! { $set, $simd, Pairs, 2, "bf16bf16", "kmajor2", gather $gather, two $two, scatter $scatter }
            multiply! { $set, $simd, Pairs, "bf16bf16", "kmajor2", $rows x $widest $attention }
            compile! { $set: fn peak(times: u64) -> u64 = float_peak::<$simd, Pairs, 2> }

            static ALL: FloatKernels = FloatKernels { dense: &[bf16_weights::KERNEL], gather: GATHER, two: TWO, scatter: SCATTER, peak };
            pub const KERNELS: Option<&FloatKernels> = Some(&ALL);
            pub const MULTIPLY: Option<&Multiply> = Some(&multiply::KERNELS);
        }
    };
}
pub(crate) use pairs;

/// What [`floats`] and [`pairs`] have for sparse weights, so many lines at a time: `GATHER`, `TWO` and `SCATTER`.
macro_rules! sparse_floats {
    (
        $set:ident, $simd:ty, $product:ty, $lines:literal, $types:literal, $layout:literal,
        gather [$($rows:literal x $tokens:literal by $vecs:literal),*],
        two [$($two_rows:literal x $both:literal by $two_vecs:literal),*],
        scatter [$($to:literal by $parts:literal),*]
    ) => {
        use crate::kernels::float;
        use crate::kernels::float_table::{GatherKernel, ScatterKernel};

        compile! { $set: fn gather[const PANELS: usize, const ROWS: usize, const VECS: usize, const TOKENS: usize](band: &Band<'_>, out: *mut f32)
            = float::gather::<$simd, $product, ROWS, VECS, TOKENS, PANELS> }
        compile! { $set: fn scatter[const VECS: usize, const TOKENS: usize](columns: &Columns<'_>, rows: usize, out: *mut f32)
            = float::scatter::<$simd, $product, $lines, VECS, TOKENS> }

        pub const GATHER: &[GatherKernel] = &[$(GatherKernel {
            name: concat!(stringify!($set), "-", $types, "-gather-", $layout, "-", $rows, "x", $tokens),
            rows: $rows,
            tokens: $tokens,
            run: gather::<1, $rows, $vecs, $tokens>,
        }),*];
        pub const TWO: &[GatherKernel] = &[$(GatherKernel {
            name: concat!(stringify!($set), "-", $types, "-gather-", $layout, "-", $two_rows, "x", $both),
            rows: $two_rows,
            tokens: $both,
            run: gather::<2, $two_rows, $two_vecs, { $both / 2 }>,
        }),*];
        pub const SCATTER: &[ScatterKernel] = &[$(ScatterKernel {
            name: concat!(stringify!($set), "-", $types, "-scatter-", $layout, "-4x", $to),
            tokens: $to,
            run: scatter::<$parts, $to>,
        }),*];
    };
}
pub(crate) use sparse_floats;

#[cfg(feature = "linear")]
impl FloatTier {
    /// The kernels for panels of one token or four.
    pub fn few(&self, width: usize) -> Option<&FewKernels> {
        self.few.iter().find(|few| few.tokens == width)
    }
}

impl FloatKernels {
    /// The gathering kernel for a height of groups and a width of panels: every list has all of them.
    pub fn gather(&self, rows: usize, tokens: usize) -> &'static GatherKernel {
        let fits = |k: &&GatherKernel| k.rows == rows && k.tokens == tokens;
        self.gather.iter().find(fits).unwrap_or_else(|| unreachable!("no gather {rows}x{tokens}"))
    }

    /// How many whole panels are gathered from at once.
    pub fn panels(&self) -> usize {
        if self.two.is_empty() { 1 } else { 2 }
    }

    /// The gathering kernel for a height of groups and two panels: a list that is not empty has all of them.
    pub fn two(&self, rows: usize) -> &'static GatherKernel {
        let fits = |k: &&GatherKernel| k.rows == rows;
        self.two.iter().find(fits).unwrap_or_else(|| unreachable!("no gather of two panels for {rows} rows"))
    }

    /// The scattering kernel for a width of panels.
    pub fn scatter(&self, tokens: usize) -> &'static ScatterKernel {
        let fits = |k: &&ScatterKernel| k.tokens == tokens;
        self.scatter.iter().find(fits).unwrap_or_else(|| unreachable!("no scatter x{tokens}"))
    }
}
