//! What a row of the kernel table has for bytes, and the macros that make it. Dense tiles of floats are described here too.

use super::epilogue::{self, Finish};
use super::lookup::Lookup;
use super::panel::PanelLayout;
use super::sparse::Band;
use super::{dense, pack};
use crate::base::element::Element;

/// A block-sparse kernel that finishes its sums in registers.
pub type ToBytes = unsafe fn(&Band<'_>, &Finish<'_>, *mut u8);

/// A block-sparse kernel: some groups of rows times one panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct SparseKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// The layout of x it reads.
    pub layout: PanelLayout,
    /// The height of its groups.
    pub rows: usize,
    /// The tokens of its panel.
    pub tokens: usize,
    /// Exact i32 to `[row][tokens]`: of 64 tokens in the order of `sparse::place`, of fewer in their own.
    pub spill: unsafe fn(&Band<'_>, *mut i32),
    /// Bytes to `[row][64]`, without a curve, where `tokens` is 64.
    pub requantize: Option<ToBytes>,
}

/// A block-sparse kernel for a single token (GEMV): gathers into the second argument.
#[derive(Debug, Clone, Copy)]
pub struct GemvKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// How its indices are to be read.
    pub layout: PanelLayout,
    /// The height of its groups.
    pub rows: usize,
    /// Exact i32 to `[row]`.
    pub spill: unsafe fn(&Band<'_>, *mut u32, *mut i32),
}

/// A block-sparse kernel for few tokens: see `kernels::few`.
#[derive(Debug, Clone, Copy)]
pub struct FewKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// The layout of x it reads.
    pub layout: PanelLayout,
    /// The height of its groups.
    pub rows: usize,
    /// The tokens of its panel.
    pub tokens: usize,
    /// Exact i32 to `[token][few::STRIDE]`.
    pub spill: unsafe fn(&Band<'_>, *mut i32),
}

/// A dense kernel: some tokens times a panel of output features.
#[derive(Debug, Clone, Copy)]
pub struct DenseKernel {
    /// See `kernels::table`.
    pub name: &'static str,
    /// Output features of a panel of weights.
    pub nr: usize,
    /// 32-bit lanes of a register: the inner order of packed weights.
    pub lanes: usize,
    /// Bytes of an element of x, of which a step has 4. Bytes are widened to 2 or 4 where that is more than 1.
    pub x_bytes: usize,
    /// What K is padded to a multiple of.
    pub padded: usize,
    /// Elements of K of a feature that lie side by side: those of a step, or of more.
    pub together: usize,
    /// What packed weights are stored as.
    pub stored: Element,
    /// `run[m - 1]` takes m tokens and one panel.
    pub run: &'static [dense::Run],
    /// `several[m - 1]` takes m tokens and more panels than one: for fewer tokens than keep a core busy.
    pub several: &'static [Several],
}

impl DenseKernel {
    /// Elements of K in a step.
    pub fn per_step(&self) -> usize {
        4 / self.x_bytes
    }
}

/// A dense kernel for several panels at once.
#[derive(Debug, Clone, Copy)]
pub struct Several {
    /// How many.
    pub panels: usize,
    /// The kernel.
    pub run: dense::Run,
}

/// What a kind of registers does around layers of bytes: nothing in it multiplies bytes.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// Tokens to K-major panels.
    pub pack_kmajor: pack::Run,
    /// Tokens to K-major panels, interleaved by 4.
    pub pack_kmajor4: pack::Run,
    /// K-major panels to tokens.
    pub unpack_kmajor: pack::Run,
    /// A K-major panel of 64 tokens, of so many features, to one interleaved by 4.
    pub interleave_kmajor: unsafe fn(*const u8, usize, *mut u8),
    /// `[features][width]` sums to `[tokens][ld]`: the sums, features, width, and where they go, with ld.
    pub sums_to_rows: unsafe fn(*const i32, usize, usize, *mut i32, usize),
    /// Exact sums `[features][64]`, in the order of registers, to `[tokens][ld]`: the sums, features, and where they go, with ld.
    pub registers_to_rows: unsafe fn(*const i32, usize, *mut i32, usize),
    /// Lanes of these registers, which tests give to `sparse::place`.
    #[cfg(feature = "internal")]
    pub lanes: usize,
    /// The end of a tile of exact sums.
    pub epilogue: epilogue::Run,
    /// Exact sums `[row][64]` of a band, in the order of registers, to bytes of a K-major panel: the call's parameters, sums, the first output feature, how many,
    /// and where bytes go.
    pub requantize_rows: unsafe fn(&Finish<'_>, *const i32, usize, usize, *mut u8),
}

/// State of a thread that kernels need, such as how tile registers are configured.
#[derive(Debug, Clone, Copy)]
pub struct ThreadState {
    /// Sets it, before a task.
    pub set: unsafe fn(),
    /// Releases it, after the task.
    pub release: unsafe fn(),
}

/// The kernels of layers of bytes.
#[derive(Debug, Clone, Copy)]
pub struct ByteKernels {
    /// Whether x is multiplied as signed bytes: those of activations with the top bit flipped, which is to move them down by 128.
    pub signed: bool,
    /// Block-sparse kernels.
    pub sparse: &'static [SparseKernel],
    /// Of two groups of four rows that share their columns, where that is faster: see `kernels::tall`.
    pub tall: Option<&'static SparseKernel>,
    /// Block-sparse kernels for 4 and 8 tokens.
    pub few: &'static [FewKernel],
    /// Block-sparse kernels for one token.
    pub gemv: &'static [GemvKernel],
    /// Block-sparse kernels for up to 4 tokens, of entries of any four columns, where bytes are looked up in registers.
    pub lookup: Option<&'static Lookup>,
    /// The dense kernel.
    pub dense: DenseKernel,
    /// What all of them need of their thread.
    pub state: Option<ThreadState>,
}

/// A module with `KERNEL`, a dense kernel:
///
/// `dense_kernel! { module: set, Registers, Product, Storage => Element, memory as step, "types", tokens x features: registers x [..], [..] }`
///
/// `memory as step` are the bytes of an element of x where it lies and in a step. The first list has a tile for each number of tokens,
/// `tokens` or `tokens unroll steps`; the second one the tiles of several panels, `tokens x panels`.
macro_rules! dense_kernel {
    (
        $name:ident: $set:ident, $simd:ty, $product:ty, $storage:ty => $stored:ident, $bytes:literal as $x_bytes:expr, $types:literal,
        $most:literal x $features:literal: $nv:literal x [$($mr:literal $(unroll $unroll:literal)?),*],
        [$($few:literal x $panels:literal),*]
    ) => {
        pub mod $name {
            use super::*;
            use crate::base::element::Element;
            use crate::kernels::byte_table::DenseKernel;
            use crate::kernels::dense::{Kernel, Product, Tile};
            use crate::kernels::simd::{Simd, TOGETHER};

            compile! { $set: fn tile[const MR: usize, const PANELS: usize, const UNROLL: usize](t: &Tile)
                = Kernel::<$simd, $product, $storage, MR, $nv, PANELS, UNROLL>::run }

            const STEP: usize = if <$product as Product<$simd>>::MATRIX { TOGETHER } else { 4 };

            pub const KERNEL: DenseKernel = DenseKernel {
                name: concat!(stringify!($set), "-", $types, "-dense-rows-", $most, "x", $features),
                nr: $nv * <$simd as Simd>::LANES,
                lanes: <$simd as Simd>::LANES,
                x_bytes: $x_bytes,
                padded: STEP / $bytes,
                together: STEP / $x_bytes,
                stored: Element::$stored,
                run: &[$(tile::<$mr, 1, { 1 $(* $unroll)? }>),*],
                several: &[$(crate::kernels::byte_table::Several { panels: $panels, run: tile::<$few, $panels, 1> }),*],
            };
        }
    };
}
pub(crate) use dense_kernel;

/// `packing! { set, Registers }`: a module `packing`, which turns tokens to panels and back, and has the general epilogue of sums
/// of bytes. Nothing in it multiplies bytes. `packing! { set, of parent }`: that of another row.
macro_rules! packing {
    ($set:ident, of $parent:ident) => {
        pub use super::$parent::packing;
    };
    ($set:ident, $simd:ty) => {
        pub mod packing {
            use super::*;
            use crate::kernels::byte_table::Packing;
            use crate::kernels::epilogue::{self, Finish, Sums};
            use crate::kernels::requantize;
            use crate::kernels::pack::{self, Tokens};

            compile! { $set: fn pack_kmajor(t: &Tokens) = pack::pack_kmajor::<$simd> }
            compile! { $set: fn pack_kmajor4(t: &Tokens) = pack::pack_kmajor4::<$simd> }
            compile! { $set: fn unpack_kmajor(t: &Tokens) = pack::unpack_kmajor::<$simd> }
            compile! { $set: fn interleave_kmajor(lines: *const u8, n: usize, quads: *mut u8) = pack::interleave_kmajor::<$simd> }
            compile! { $set: fn sums_to_rows(sums: *const i32, n: usize, width: usize, rows: *mut i32, stride: usize)
                = pack::sums_to_rows::<$simd> }
            compile! { $set: fn registers_to_rows(sums: *const i32, n: usize, rows: *mut i32, stride: usize)
                = pack::registers_to_rows::<$simd> }
            compile! { $set: fn epilogue(finish: &Finish<'_>, sums: &Sums) = epilogue::run::<$simd, false> }
            compile! { $set: fn requantize_rows(finish: &Finish<'_>, sums: *const i32, first: usize, rows: usize, out: *mut u8)
                = requantize::rows::<$simd> }

            pub const PACKING: Packing = Packing {
                pack_kmajor,
                pack_kmajor4,
                unpack_kmajor,
                interleave_kmajor,
                sums_to_rows,
                registers_to_rows,
                #[cfg(feature = "internal")]
                lanes: <$simd as crate::kernels::simd::Simd>::LANES,
                epilogue,
                requantize_rows,
            };
        }
    };
}
pub(crate) use packing;

/// A module `bytes`, of all that multiplies bytes:
///
/// * `bytes! { set, Registers, types "..", sparse [..] and tall, dense .., attention "types" .. }`; without `and tall` where groups of
///   eight rows gain nothing.
/// * `bytes! { set, of parent }`: that of another row.
/// * `bytes! { set, Registers, types "..", sums of parent, lookup by module, sparse [..] and tall }`, for registers that are tables of bytes too: what looks bytes
///   up, which is up to 16 tokens and the end of a tile, is this row's; all other sums are the parent's. The module has the loops of `lookup`.
macro_rules! bytes {
    ($set:ident, of $parent:ident) => {
        pub use super::$parent::bytes;
    };
    ($set:ident, $simd:ty, types $types:literal, sums of $parent:ident, lookup by $lookup:ident, sparse $sparse:tt $(and $tall:ident)?) => {
        pub mod bytes {
            use super::*;
            use super::super::$parent::bytes::{self as parent, spill};
            use crate::kernels::byte_table::ByteKernels;
            pub use super::super::$parent::bytes::{multiply, peak};
            use crate::kernels::sparse::{Band, Layout, spill as sums};

            compile! { $set: fn narrow[L: Layout, const ROWS: usize, const VECS: usize](band: &Band<'_>, out: *mut i32)
                = sums::<$simd, L, ROWS, VECS> }
            crate::kernels::byte_table::sparse_kernels! { $set, $simd, $types, $sparse $($tall)? }

            use crate::kernels::byte_table::lookup_kernels;
            use crate::kernels::lookup::{Call, Lookup};

            compile! { $set: fn look_up[const ROWS: usize, const TOKENS: usize](call: &Call<'_>, out: *mut i32)
                = $lookup::sums::<ROWS, TOKENS> }
            compile! { $set: fn rows(panel: *const u8, features: usize, to: *mut u8, stride: usize) = $lookup::rows }

            pub const BYTES: ByteKernels = ByteKernels {
                sparse: SPARSE,
                tall: TALL,
                few: FEW,
                gemv: GEMV,
                lookup: Some(&Lookup {
                    // Where each is as fast as the kernel of a panel was measured on Golden Cove.
                    kernels: [
                        lookup_kernels!($set, $types, 4 x [1 from 0, 2 from 22, 3 from 30, 4 from 46]),
                        lookup_kernels!($set, $types, 1 x [1 from 0, 2 from 22, 3 from 26, 4 from 34]),
                    ],
                    rows,
                }),
                ..parent::BYTES
            };
        }
    };
    (
        $set:ident, $simd:ty, types $types:literal,
        sparse $sparse:tt $(and $tall:ident)?,
        dense $dense_rows:literal x $dense_columns:literal: $nv:literal registers x $dense:tt,
        attention $columns:literal $rows:literal x $widest:literal $attention:tt
    ) => {
        pub mod bytes {
            use super::*;
            use crate::kernels::byte_table::{ByteKernels, dense_kernel};
            use crate::kernels::dense::{Int8, Quad8};
            use crate::kernels::peak::peak as most;
            use crate::kernels::simd::Simd;
            use crate::kernels::sparse::{Band, Layout, spill as sums};

            compile! { $set: pub fn spill[L: Layout, const ROWS: usize, const VECS: usize](band: &Band<'_>, out: *mut i32)
                = sums::<$simd, L, ROWS, VECS> }
            use spill as narrow;
            compile! { $set: pub fn peak(times: u64) -> u64 = most::<$simd> }
            crate::kernels::byte_table::sparse_kernels! { $set, $simd, $types, $sparse $($tall)? }
            dense_kernel! { tiles: $set, $simd, Int8, Quad8 => I8, 1 as <$simd as Simd>::X_BYTES, $types,
                $dense_rows x $dense_columns: $nv x $dense, [] }
            crate::kernels::attention::table::multiply! { $set, $simd, crate::kernels::attention::multiply::Bytes, $columns, "kmajor4",
                $rows x $widest $attention }

            pub const BYTES: ByteKernels =
                ByteKernels {
                signed: !<$simd as Simd>::MIXED,
                sparse: SPARSE,
                tall: TALL,
                few: FEW,
                gemv: GEMV,
                lookup: None,
                dense: tiles::KERNEL,
                state: None,
            };
        }
    };
}
pub(crate) use bytes;

/// Kernels of [`Lookup`], which `look_up` makes: for groups of so many rows, and so many tokens from so many entries of four chunks.
#[cfg(target_arch = "x86_64")]
macro_rules! lookup_kernels {
    ($set:ident, $types:literal, $rows:literal x [$($tokens:literal from $least:literal),*]) => {
        [$(crate::kernels::lookup::LookupKernel {
            name: concat!(stringify!($set), "-", $types, "-lookup-rows-", $rows, "x", $tokens),
            rows: $rows,
            tokens: $tokens,
            least: $least,
            spill: look_up::<$rows, $tokens>,
        }),*]
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use lookup_kernels;

/// What [`bytes`] has for sparse weights, of sums that `spill` makes: `SPARSE`, `TALL`, `FEW` and `GEMV`.
macro_rules! sparse_kernels {
    ($set:ident, $simd:ty, $types:literal, [$($rows:literal x $tokens:tt by $vecs:literal),*] $($tall:ident)?) => {
        use crate::kernels::byte_table::{FewKernel, SparseKernel, ToBytes, GemvKernel, sparse_kernels};
        use crate::kernels::panel::PanelLayout;
        use crate::kernels::epilogue::Finish;
        use crate::kernels::{few as of_few, gemv as single, sparse as walk};
        use crate::kernels::simd::Simd as Registers;

        compile! { $set: fn requantize[L: walk::Layout, const ROWS: usize, const VECS: usize](
            band: &walk::Band<'_>, to: &Finish<'_>, out: *mut u8
        ) = walk::requantize::<$simd, L, ROWS, VECS> }
        compile! { $set: fn gemv[L: walk::Layout, const ROWS: usize](band: &walk::Band<'_>, quads: *mut u32, out: *mut i32)
            = single::gemv::<$simd, L, ROWS> }

        const SPARSE: &[SparseKernel] = &[
            $(SparseKernel {
                name: concat!(stringify!($set), "-", $types, "-sparse-kmajor-", $rows, "x", $tokens),
                layout: PanelLayout::KMajor,
                rows: $rows,
                tokens: $tokens,
                spill: sparse_kernels!(@ $tokens spill::<[KMajor KMajor32 KMajor16], $rows, $vecs>),
                requantize: sparse_kernels!(@ $tokens requantize::<KMajor, $rows, $vecs>),
            },)*
            $(SparseKernel {
                name: concat!(stringify!($set), "-", $types, "-sparse-kmajor4-", $rows, "x", $tokens),
                layout: PanelLayout::KMajor4,
                rows: $rows,
                tokens: $tokens,
                spill: sparse_kernels!(@ $tokens spill::<[KMajor4 KMajor4x32 KMajor4x16], $rows, $vecs>),
                requantize: sparse_kernels!(@ $tokens requantize::<KMajor4, $rows, $vecs>),
            },)*
        ];
        const TALL: Option<&SparseKernel> = sparse_kernels!(@tall $set, $simd, $types $(, $tall)?);
        compile! { $set: fn few[const QUADS: bool, const ROWS: usize, const TOKENS: usize, const VECS: usize](
            band: &walk::Band<'_>, out: *mut i32
        ) = of_few::few::<$simd, QUADS, ROWS, TOKENS, VECS> }

        const FEW: &[FewKernel] = &[
            sparse_kernels!(@few $set, $simd, $types, "kmajor", KMajor false 4 x 8),
            sparse_kernels!(@few $set, $simd, $types, "kmajor", KMajor false 1 x 8),
            sparse_kernels!(@few $set, $simd, $types, "kmajor", KMajor false 4 x 4),
            sparse_kernels!(@few $set, $simd, $types, "kmajor", KMajor false 1 x 4),
            sparse_kernels!(@few $set, $simd, $types, "kmajor4", KMajor4 true 4 x 8),
            sparse_kernels!(@few $set, $simd, $types, "kmajor4", KMajor4 true 1 x 8),
            sparse_kernels!(@few $set, $simd, $types, "kmajor4", KMajor4 true 4 x 4),
            sparse_kernels!(@few $set, $simd, $types, "kmajor4", KMajor4 true 1 x 4),
        ];
        const GEMV: &[GemvKernel] = &[
            sparse_kernels!(@gemv $set, $types, "kmajor", KMajor 4),
            sparse_kernels!(@gemv $set, $types, "kmajor", KMajor 1),
            sparse_kernels!(@gemv $set, $types, "kmajor4", KMajor4 4),
            sparse_kernels!(@gemv $set, $types, "kmajor4", KMajor4 1),
        ];
    };
    (@ 64 spill::<[$a:ident $b:ident $c:ident], $rows:literal, $vecs:literal>) => { spill::<walk::$a, $rows, $vecs> };
    (@ 32 spill::<[$a:ident $b:ident $c:ident], $rows:literal, $vecs:literal>) => { spill::<walk::$b, $rows, $vecs> };
    (@ 16 spill::<[$a:ident $b:ident $c:ident], $rows:literal, $vecs:literal>) => { narrow::<walk::$c, $rows, $vecs> };
    (@ 64 requantize::<$walk:ident, $rows:literal, $vecs:literal>) => {
        Some(requantize::<walk::$walk, $rows, $vecs> as ToBytes)
    };
    (@ $tokens:literal requantize::<$walk:ident, $rows:literal, $vecs:literal>) => { None };
    (@tall $set:ident, $simd:ty, $types:literal) => { None };
    (@tall $set:ident, $simd:ty, $types:literal, tall) => {{
        compile! { $set: fn tall_sums(band: &walk::Band<'_>, out: *mut i32) = crate::kernels::tall::spill::<$simd> }
        compile! { $set: fn tall_bytes(band: &walk::Band<'_>, to: &Finish<'_>, out: *mut u8)
            = crate::kernels::tall::requantize::<$simd> }
        Some(&SparseKernel {
            name: concat!(stringify!($set), "-", $types, "-sparse-kmajor-8x64"),
            layout: PanelLayout::KMajor,
            rows: crate::kernels::tall::ROWS,
            tokens: 64,
            spill: tall_sums,
            requantize: Some(tall_bytes as ToBytes),
        })
    }};
    (@few $set:ident, $simd:ty, $types:literal, $name:literal, $layout:ident $quads:literal $rows:literal x $tokens:literal) => {
        FewKernel {
            name: concat!(stringify!($set), "-", $types, "-sparse-", $name, "-", $rows, "x", $tokens),
            layout: PanelLayout::$layout,
            rows: $rows,
            tokens: $tokens,
            spill: few::<$quads, $rows, $tokens, { of_few::registers(<$simd as Registers>::LANES, $rows, $tokens) }>,
        }
    };
    (@gemv $set:ident, $types:literal, $layout:literal, $walk:ident $rows:literal) => {
        GemvKernel {
            name: concat!(stringify!($set), "-", $types, "-gemv-", $layout, "-", $rows, "x1"),
            layout: PanelLayout::$walk,
            rows: $rows,
            spill: gemv::<walk::$walk, $rows>,
        }
    };
}
pub(crate) use sparse_kernels;
