//! What a row of the table is made of, and the macro that writes rows (see `table`).

use super::attention::table::Multiply;
use super::byte_table::{ByteKernels, FewKernel, GemvKernel, Packing, SparseKernel, ToBytes};
use super::codes::table::Codes;
use super::float_table::{FloatKernels, FloatTier};
use super::panel::PanelLayout as Layout;
use crate::base::element::Element;
use crate::base::isa::{FeatureSet, Isa};

/// All kernels of a set of CPU features.
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

/// What a row of the table makes.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// All that the set of features has.
    pub tier: &'static Tier,
    /// Without products of pairs of bfloat16, for cores where to widen them is faster.
    pub widening: &'static Tier,
}

/// `tiers! { set { packing { .. } bytes { .. } floats { .. } pairs { .. } codes { .. } } .. }`: `ROWS`, in that order.
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
        use crate::kernels::tier::Row;

        $(
            $(#[$cfg])*
            pub mod $set {
                #[allow(unused_imports, reason = "a row may have all of its parts from others")]
                use super::*;
                use crate::base::isa::FeatureSet;
                use crate::kernels::byte_table::{bytes, packing};
                use crate::kernels::codes::table::codes;
                use crate::kernels::float_table::{floats, pairs};
                use crate::kernels::tier::Tier;

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

        /// The rows, each beside itself without products of pairs of bfloat16.
        pub const ROWS: &[Row] = &[$($(#[$cfg])* Row { tier: &$set::TIER, widening: &$set::WIDENING }),*];
    };
}
pub(crate) use tiers;

impl Tier {
    /// Whether this CPU can run it.
    pub fn is_supported(&self) -> bool {
        self.set.is_supported()
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

    /// The kernel of groups of eight rows of panels of 64 tokens of a layout, where there is one.
    pub fn tall_kernel(&self, layout: Layout) -> Option<&'static SparseKernel> {
        self.bytes.tall.filter(|k| k.layout == layout)
    }

    /// The kernel for a layout and a height of groups that makes bytes of 64 tokens in its registers.
    pub fn to_bytes(&self, layout: Layout, rows: usize) -> ToBytes {
        Self::ends(self.sparse_kernel(layout, rows, 64))
    }

    /// What makes bytes in the registers of a kernel of 64 tokens: all of these have that.
    pub fn ends(kernel: &SparseKernel) -> ToBytes {
        kernel.requantize.unwrap_or_else(|| unreachable!("{} makes no bytes", kernel.name))
    }

    /// The float kernels that read packed activations of an element.
    pub fn floats(&self, element: Element) -> &'static FloatKernels {
        match self.pairs {
            Some(pairs) if element == Element::Bf16 => pairs,
            _ => &self.float.f32,
        }
    }

    /// The kernel for a panel of few tokens, 4 or 8.
    pub fn few_kernel(&self, layout: Layout, rows: usize, tokens: usize) -> &'static FewKernel {
        let fits = |k: &&FewKernel| k.layout == layout && k.rows == rows && k.tokens == tokens;
        self.bytes.few.iter().find(fits).unwrap_or_else(|| unreachable!("no {layout:?} {rows}x{tokens}"))
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
