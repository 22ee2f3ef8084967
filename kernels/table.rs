//! The one table: a row for each set of CPU features, with everything that runs on it. A row here puts kernels into
//! dispatch, the sweeps of the tests and the benchmarks.
//!
//! A row has five parts. Each is either its own, or `of` a parent row: then functions are compiled once, for the parent's
//! features, and shared. A row that is missing, or a part of one, is an error of compilation. What plain loops are
//! vectorized for stands in the list of ISAs (`base::isa`). What the parts say:
//!
//! * `sparse [rows x tokens by registers, ..]`: groups of rows times a panel of tokens, so many registers of it at a time.
//! * `dense tokens x features: registers x [tokens unroll steps, ..], panels [tokens x panels, ..]`: the largest tile; then
//!   the number of tokens of each tile that is one panel wide, and how far it is unrolled; then tiles of several panels.
//! * `attention queries x keys [registers x [queries, ..], ..]`: the largest tile; then the tiles of each width.
//! * `gather [rows x tokens by registers, ..]` and `scatter [tokens by registers, ..]`: sparse weights of floats.
//! * `codes`: `codes x codes of a register: [slices of 16 bits x codes, ..]`.
//!
//! **Names of kernels** are `set-types-operation-layout-rowsxcolumns`:
//!
//! * set: the features that it is compiled for, as `base::isa` names them.
//! * types: the elements of x, then those of w (attention: of q and k; codes: of both): `u8 i8 bf16 f16 f32`, and `b1` for bits.
//! * operation: `dense`; `sparse`, and of floats `gather` and `scatter`; `gemv`, a single token through sparse weights;
//!   `attention`; `hamming`.
//! * layout of x (attention: of k; codes: of b): `rows`; `kmajor`, and with 2, 4 or 16 that many elements of K interleaved.
//! * rows and columns of the largest tile: tokens x output features of a dense one, rows of w x tokens of a sparse one, queries x
//!   keys, codes x codes.

#[cfg(target_arch = "aarch64")]
use super::aarch64::{Neon, NeonBf16, NeonCounts, NeonDot, NeonI8mm};
use super::attention::table::Multiply;
use super::byte_table::{bytes, packing};
use super::codes::scalar::Plain;
use super::codes::table::{Codes, codes};
use super::float_table::{FloatKernels, FloatTier, floats, pairs};
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{
    Avx2, Avx2Nibbles, Avx512, Avx512Bf16, Avx512Nibbles, Avx512Vbmi, Avx512Vnni, Avx512Words, AvxVnni,
};
use crate::base::core::Target;
use crate::base::element::Element;
use crate::base::isa::{FeatureSet, Isa};

pub use super::byte_table::{
    ByteKernels, DenseKernel, GemvKernel, Packing, SparseKernel, ThreadState, ToBytes,
};
pub use super::panel::PanelLayout as Layout;

/// A row.
#[derive(Debug)]
pub struct Tier {
    /// The features that it needs.
    pub set: &'static FeatureSet,
    /// The ISA that they belong to.
    pub isa: Isa,
    /// Tokens to panels and back, and the end of a tile of sums of bytes.
    #[cfg(feature = "linear")]
    pub packing: Packing,
    /// Layers of bytes.
    #[cfg(feature = "linear")]
    pub bytes: ByteKernels,
    /// What its registers do with floats.
    pub float: &'static FloatTier,
    /// Layers of pairs of bfloat16, where the CPU multiplies them.
    #[cfg(feature = "linear")]
    pub pairs: Option<&'static FloatKernels>,
    /// Tiles of attention, of bytes.
    #[cfg(any(feature = "attention", feature = "ecoformer"))]
    pub multiply: &'static Multiply,
    /// Tiles of attention, of pairs of bfloat16, where the CPU multiplies them.
    #[cfg(feature = "attention")]
    pub multiply_pairs: Option<&'static Multiply>,
    /// Binary codes.
    #[cfg(feature = "ecoformer")]
    pub codes: &'static Codes,
    /// The dot products of registers alone, for the peak: so many times the number of operations returned.
    pub peak: unsafe fn(u64) -> u64,
}

macro_rules! tiers {
    ($(
        $(#[$cfg:meta])* $set:ident {
            packing { $($packing:tt)* }
            bytes { $($bytes:tt)* }
            floats { $($floats:tt)* }
            pairs { $($pairs:tt)* }
            codes { $($codes:tt)* }
        }
    )*) => {
        $(
            $(#[$cfg])*
            mod $set {
                use super::*;
                packing! { $set, $($packing)* }
                bytes! { $set, $($bytes)* }
                floats! { $set, $($floats)* }
                pairs! { $set, $($pairs)* }
                codes! { $set, $($codes)* }

                pub static TIER: Tier = Tier {
                    set: FeatureSet::named(stringify!($set)),
                    isa: FeatureSet::named(stringify!($set)).isa,
                    #[cfg(feature = "linear")]
                    packing: packing::PACKING,
                    #[cfg(feature = "linear")]
                    bytes: bytes::BYTES,
                    float: &floats::FLOATS,
                    #[cfg(feature = "linear")]
                    pairs: pairs::KERNELS,
                    #[cfg(any(feature = "attention", feature = "ecoformer"))]
                    multiply: &bytes::multiply::KERNELS,
                    #[cfg(feature = "attention")]
                    multiply_pairs: pairs::MULTIPLY,
                    #[cfg(feature = "ecoformer")]
                    codes: &codes::CODES,
                    peak: bytes::peak,
                };
                pub static WIDENING: Tier = Tier {
                    #[cfg(feature = "linear")]
                    pairs: None,
                    #[cfg(feature = "attention")]
                    multiply_pairs: None,
                    ..TIER
                };
            }
        )*

        /// All rows, the best of each ISA last.
        pub static TIERS: &[&Tier] = &[$($(#[$cfg])* &$set::TIER),*];

        /// The rows without products of pairs of bfloat16, for cores where to widen them is faster.
        static WIDENING: &[&Tier] = &[$($(#[$cfg])* &$set::WIDENING),*];
    };
}

tiers! {
    scalar {
        packing { Scalar }
        bytes {
            Scalar, types "u8i8",
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 4, 1 x 16 by 4],
            dense 3 x 8: 2 registers x [1, 2, 3],
            attention "u8i8" 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
        }
        floats {
            Scalar,
            dense 3 x 8: 2 registers x [1, 2, 3], panels [1 x 2],
            gather [4 x 32 by 2, 1 x 32 by 4, 4 x 16 by 2, 1 x 16 by 4], scatter [32 by 2, 16 by 2],
            attention 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
        }
        pairs { none }
        codes { Plain, 1 x 8: [1 x 1, 2 x 1, 3 x 1, 4 x 1, 6 x 1, 8 x 1, 12 x 1, 16 x 1] }
    }

    #[cfg(target_arch = "x86_64")]
    avx2 {
        packing { Avx2 }
        bytes {
            Avx2, types "u8i8",
            sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 16 by 2, 1 x 16 by 2],
            dense 6 x 16: 2 registers x [1 unroll 2, 2, 3, 4, 5, 6],
            attention "u8i8" 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        floats {
            Avx2,
            dense 6 x 16: 2 registers x [1, 2, 3, 4, 5, 6], panels [1 x 4, 2 x 2, 3 x 2],
            gather [4 x 32 by 2, 1 x 32 by 4, 4 x 16 by 2, 1 x 16 by 2], scatter [32 by 2, 16 by 2],
            attention 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        pairs { none }
        codes { Avx2Nibbles, 2 x 16: [1 x 2, 2 x 2, 3 x 2, 4 x 1, 6 x 1, 8 x 1, 12 x 1, 16 x 1] }
    }

    #[cfg(target_arch = "x86_64")]
    avx_vnni {
        packing { of avx2 }
        bytes {
            AvxVnni, types "u8i8",
            sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 16 by 2, 1 x 16 by 2],
            dense 6 x 16: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6],
            attention "u8i8" 6 x 16 [2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        floats { of avx2 }
        pairs { none }
        codes { of avx2 }
    }

    #[cfg(target_arch = "x86_64")]
    avx512 {
        packing { Avx512 }
        bytes {
            Avx512, types "u8i8",
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 1, 1 x 16 by 1],
            dense 12 x 32: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            attention "u8i8" 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        floats {
            Avx512,
            dense 12 x 32: 2 registers x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels [1 x 4, 2 x 2, 3 x 2],
            gather [4 x 32 by 2, 1 x 32 by 2, 4 x 16 by 1, 1 x 16 by 1], scatter [32 by 2, 16 by 1],
            attention 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        pairs { none }
        codes { Avx512Nibbles, 4 x 32: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
    }

    #[cfg(target_arch = "x86_64")]
    avx512_vnni {
        packing { of avx512 }
        bytes {
            Avx512Vnni, types "u8i8",
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 1, 1 x 16 by 1],
            dense 12 x 32: 2 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            attention "u8i8" 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        floats { of avx512 }
        pairs { none }
        codes { of avx512 }
    }

    #[cfg(target_arch = "x86_64")]
    avx512_vbmi {
        packing { of avx512 }
        bytes {
            Avx512Vbmi, types "u8i8", sums of avx512_vnni,
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 1, 1 x 16 by 1]
        }
        floats { of avx512 }
        pairs { none }
        codes { Avx512Words, 4 x 32: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
    }

    #[cfg(target_arch = "x86_64")]
    avx512_bf16 {
        packing { of avx512 }
        bytes { of avx512_vbmi }
        floats { of avx512 }
        pairs {
            Avx512Bf16,
            dense 12 x 32: 2 registers x [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels [1 x 4, 2 x 2, 3 x 2],
            gather [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 1, 1 x 16 by 1], scatter [64 by 4, 16 by 1],
            attention 6 x 64 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        codes { of avx512_vbmi }
    }

    #[cfg(target_arch = "aarch64")]
    neon {
        packing { Neon }
        bytes {
            Neon, types "i8i8",
            sparse [4 x 64 by 2, 1 x 64 by 4, 4 x 16 by 2, 1 x 16 by 4],
            dense 2 x 8: 2 registers x [1 unroll 2, 2],
            attention "u8u8" 3 x 8 [2 x [1, 2, 3], 1 x [1, 2, 3]]
        }
        floats {
            Neon,
            dense 4 x 16: 4 registers x [1, 2, 3, 4], panels [1 x 4, 2 x 2],
            gather [4 x 32 by 4, 1 x 32 by 8, 4 x 16 by 4, 1 x 16 by 4], scatter [32 by 4, 16 by 4],
            attention 5 x 16 [4 x [1, 2, 3, 4, 5], 2 x [1, 2, 3, 4, 5], 1 x [1, 2, 3, 4, 5]]
        }
        pairs { none }
        codes { NeonCounts, 4 x 8: [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 1, 16 x 1] }
    }

    #[cfg(siskin_sve)]
    sve {
        packing { of neon }
        bytes { of sve_tiles }
        floats { of sve_tiles }
        pairs { none }
        codes { of neon }
    }

    #[cfg(target_arch = "aarch64")]
    neon_dot {
        packing { of neon }
        bytes {
            NeonDot, types "i8i8",
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 4, 1 x 16 by 4],
            dense 5 x 16: 4 registers x [1 unroll 4, 2 unroll 2, 3, 4, 5],
            attention "u8u8" 5 x 16 [4 x [1, 2, 3, 4, 5], 2 x [1, 2, 3, 4, 5], 1 x [1, 2, 3, 4, 5]]
        }
        floats { of neon }
        pairs { none }
        codes { of neon }
    }

    #[cfg(target_arch = "aarch64")]
    neon_i8mm {
        packing { of neon }
        bytes {
            NeonI8mm, types "u8i8",
            sparse [4 x 64 by 4, 1 x 64 by 4, 4 x 16 by 4, 1 x 16 by 4],
            dense 6 x 16: 4 registers x [1, 2, 3, 4, 5, 6],
            attention "u8i8" 6 x 16 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        floats { of neon }
        pairs { none }
        codes { of neon }
    }

    #[cfg(target_arch = "aarch64")]
    neon_bf16 {
        packing { of neon }
        bytes { of neon_i8mm }
        floats { of neon }
        pairs {
            NeonBf16,
            dense 6 x 16: 4 registers x [1, 2, 3, 4, 5, 6], panels [],
            gather [4 x 64 by 4, 1 x 64 by 8, 4 x 16 by 4, 1 x 16 by 4], scatter [64 by 8, 16 by 4],
            attention 6 x 16 [4 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 1 x [1, 2, 3, 4, 5, 6]]
        }
        codes { of neon }
    }
}

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

/// NEON's, with the tiles of `sve.c` in their places.
#[cfg(siskin_sve)]
mod sve_tiles {
    pub mod bytes {
        use super::super::neon::bytes;
        use crate::kernels::aarch64::sve::{DENSE_I8, FEATURES, quads};
        use crate::kernels::byte_table::{ByteKernels, DenseKernel, SparseKernel};
        use crate::kernels::panel::PanelLayout;

        pub use bytes::{multiply, peak};

        const NEON: ByteKernels = bytes::BYTES;
        const SPARSE: &[SparseKernel] = &{
            let mut all = [NEON.sparse[0]; NEON.sparse.len()];
            let mut i = 0;
            while i < all.len() {
                all[i] = NEON.sparse[i];
                if matches!(all[i].layout, PanelLayout::KMajor4) && all[i].rows == 4 {
                    (all[i].name, all[i].spill) = match all[i].tokens {
                        64 => ("sve-i8i8-sparse-kmajor4-4x64", quads::<64> as _),
                        16 => ("sve-i8i8-sparse-kmajor4-4x16", quads::<16> as _),
                        _ => panic!("no such tile of SVE"),
                    };
                }
                i += 1;
            }
            all
        };
        const DENSE: DenseKernel =
            DenseKernel { name: "sve-i8i8-dense-rows-4x64", nr: FEATURES, run: DENSE_I8, ..NEON.dense };
        pub const BYTES: ByteKernels = ByteKernels { sparse: SPARSE, dense: DENSE, ..NEON };
    }

    /// What is not for layers is NEON's.
    #[cfg(not(feature = "linear"))]
    pub use super::neon::floats;

    #[cfg(feature = "linear")]
    pub mod floats {
        use super::super::neon::floats;
        use crate::kernels::aarch64::sve;
        use crate::kernels::byte_table::DenseKernel;
        use crate::kernels::float_table::{FloatKernels, FloatTier, GatherKernel};

        const NEON: &FloatKernels = &floats::FLOATS.f32;

        /// A gathering kernel in the place of NEON's of four rows.
        const fn four(of: usize, tokens: usize) -> GatherKernel {
            assert!(NEON.gather[of].rows == 4 && NEON.gather[of].tokens == tokens);
            NEON.gather[of]
        }

        pub static FLOATS: FloatTier = FloatTier {
            f32: FloatKernels {
                dense: &[
                    DenseKernel {
                        name: "sve-f32f32-dense-rows-4x64",
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
                    GatherKernel {
                        name: "sve-f32f32-gather-kmajor-4x32",
                        run: sve::gather::<32>,
                        ..four(0, 32)
                    },
                    NEON.gather[1],
                    GatherKernel {
                        name: "sve-f32f32-gather-kmajor-4x16",
                        run: sve::gather::<16>,
                        ..four(2, 16)
                    },
                    NEON.gather[3],
                ],
                scatter: NEON.scatter,
                peak: NEON.peak,
            },
            ..floats::FLOATS
        };
    }
}

impl Tier {
    /// Whether this CPU can run it.
    pub fn is_supported(&self) -> bool {
        self.set.is_supported()
    }

    /// The kernels to use for a target, whose ISA this CPU has.
    pub fn of(target: Target) -> &'static Tier {
        let rows = if target.core.bf16_pairs { TIERS } else { WIDENING };
        let fits = |t: &&&Tier| t.isa == target.isa && t.is_supported();
        rows.iter().rev().find(fits).unwrap_or_else(|| unreachable!("this CPU has no {}", target.isa))
    }
}

/// Kernels of layers.
#[cfg(feature = "linear")]
impl Tier {
    /// The kernel for a layout, a height of groups and a width of panels: every tier has all of them.
    pub fn sparse_kernel(&self, layout: Layout, rows: usize, tokens: usize) -> &'static SparseKernel {
        let fits = |k: &&SparseKernel| k.layout == layout && k.rows == rows && k.tokens == tokens;
        self.bytes.sparse.iter().find(fits).unwrap_or_else(|| unreachable!("no {layout:?} {rows}x{tokens}"))
    }

    /// The kernel for a layout and a height of groups that makes bytes of 64 tokens in its registers.
    pub fn to_bytes(&self, layout: Layout, rows: usize) -> ToBytes {
        let kernel = self.sparse_kernel(layout, rows, 64);
        kernel.requantize.unwrap_or_else(|| unreachable!("{} makes no bytes", kernel.name))
    }

    /// The float kernels that read packed activations of an element.
    pub fn floats(&self, element: Element) -> &'static FloatKernels {
        match self.pairs {
            Some(pairs) if element == Element::Bf16 => pairs,
            _ => &self.float.f32,
        }
    }

    /// The kernel for one token.
    pub fn gemv_kernel(&self, layout: Layout, rows: usize) -> &'static GemvKernel {
        let fits = |k: &&GemvKernel| k.layout == layout && k.rows == rows;
        self.bytes.gemv.iter().find(fits).unwrap_or_else(|| unreachable!("no {layout:?} {rows}x1"))
    }
}

/// Two tiers are the same if they are the same row.
impl PartialEq for Tier {
    fn eq(&self, other: &Tier) -> bool {
        std::ptr::eq(self, other)
    }
}
