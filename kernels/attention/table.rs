//! What a row of the kernel table has for attention, and the macros that make it.

use super::decode;
use super::gather::{Rows, Weights};
use super::multiply::Run;
use super::normalize::Normalize;
use super::softmax::{Prepare, Scores, Span};
use crate::base::element::Element;

/// Tiles of one product.
#[derive(Debug)]
pub struct Multiply {
    /// See `kernels::table`.
    pub name: &'static str,
    /// What columns of bytes are; rows are unsigned.
    pub columns: Element,
    /// From wide to narrow, the narrowest a divisor of 16 columns; all go up to as many rows.
    pub widths: &'static [Width],
    /// A row of few words.
    pub gather: unsafe fn(&Rows),
    /// Rows of few words each.
    pub gather_rows: unsafe fn(&Weights),
    /// Single queries.
    pub decode: Decode,
    /// Whether tiles find the largest sums of their rows.
    pub finds_most: bool,
    /// What columns are to be a multiple of for its context.
    pub context_columns: usize,
}

/// A query of each head, with k and v as they lie.
#[derive(Debug, Clone, Copy)]
pub struct Decode {
    /// And their keys.
    pub scores: decode::Run,
    /// Their weights and v.
    pub context: decode::RunValues,
}

/// Tiles of one width.
#[derive(Debug)]
pub struct Width {
    /// Columns.
    pub columns: usize,
    /// `run[m - 1]` takes m rows.
    pub run: &'static [Run],
}

impl Multiply {
    /// The most rows of a tile.
    pub fn rows(&self) -> usize {
        self.widths[0].run.len()
    }
}

/// Rows of scores, of live keys, to what is scaled, quantized and biased.
pub type Preparation = unsafe fn(&mut [Scores], &[Span], &Prepare);

/// The largest of rows of scores, of live keys.
pub type Maximum = unsafe fn(&mut [Scores], &[Span]);

/// Rows of scores, of live keys, to exponentials, and all of some keys that are not live to 0.
pub type Exponentials = unsafe fn(&mut [Scores], &Span, &[Span]);

/// Rows of scores, all of whose keys are in one chunk, to bytes of weights.
pub type ByteWeights = unsafe fn(&mut [Scores], &Span);

/// What the weights of some keys of rows are together; weights are multiplied by factors of the keys before.
pub type Gauging = unsafe fn(&mut [Scores], &Span, *const f32);

/// Rows of exponentials to weights, of some keys.
pub type Normalizing = unsafe fn(&mut [Scores], &Span, &Normalize);

/// Everything else that a kind of registers does.
#[derive(Debug)]
pub struct Passes {
    /// Scale, quantizer and bias, of scores that are floats, and of integers.
    pub prepare: [Preparation; 2],
    /// The largest score, of floats, and of integers.
    pub maximum: [Maximum; 2],
    /// Exponentials, and 255 times as much for bytes; of scores that are floats, and of integers.
    pub exponentials: [[Exponentials; 2]; 2],
    /// Byte weights at once, of scores that are floats, and of integers.
    pub byte_weights: [ByteWeights; 2],
    /// As they are, and with factors of the keys.
    pub gauge: [Gauging; 2],
    /// To f32, bfloat16, u8; as they are, and clipped.
    pub normalize: [[Normalizing; 2]; 3],
    /// A single query, with k or v of bfloat16.
    pub decode_bf16: Decode,
    /// A single query, with k or v of f16.
    pub decode_f16: Decode,
    /// The words of weights that are not 0.
    pub collect: unsafe fn(*const u32, usize, *mut u32, *mut u32) -> usize,
}

/// `multiply! { set, Registers, Product, "types", "layout", rows x columns [registers x [rows, ..], ..] }`: a module `multiply` with
/// `KERNELS`.
macro_rules! multiply {
    (
        $set:ident, $simd:ty, $product:ty, $types:literal, $layout:literal, $most:literal x $widest:literal
        [$($nv:literal x [$($mr:literal),*]),* $(,)?]
    ) => {
        pub mod multiply {
            use super::*;
            use crate::base::element::Element;
            use crate::kernels::attention::gather::{Rows, Weights};
            use crate::kernels::attention::multiply::Tile;
            use crate::kernels::attention::table::{Multiply, Width, single};
            use crate::kernels::attention::{gather, multiply};
            use crate::kernels::dense::{Product, Words};
            use crate::kernels::simd::Simd;

            compile! { $set: fn tile[const MR: usize, const NV: usize](t: &Tile) = multiply::multiply::<$simd, $product, MR, NV> }
            compile! { $set: fn row(r: &Rows) = gather::gather::<$simd, $product> }
            compile! { $set: fn rows(w: &Weights) = gather::gather_rows::<$simd, $product> }
            single! { single: $set, $simd, $product, Words }

            pub static KERNELS: Multiply = Multiply {
                name: concat!(stringify!($set), "-", $types, "-attention-", $layout, "-", $most, "x", $widest),
                columns: if <$simd as Simd>::MIXED { Element::I8 } else { Element::U8 },
                widths: &[$(Width { columns: $nv * <$simd as Simd>::LANES, run: &[$(tile::<$mr, $nv>),*] }),*],
                gather: row,
                gather_rows: rows,
                decode: single::DECODE,
                finds_most: !<$product as Product<$simd>>::MATRIX,
                context_columns: <$simd as Simd>::LANES * <$product as Product<$simd>>::ELEMENTS,
            };
        }
    };
}
pub(crate) use multiply;

/// `single! { name: set, Registers, Product, Storage }`: a module with `DECODE`.
macro_rules! single {
    ($name:ident: $set:ident, $simd:ty, $product:ty, $storage:ty) => {
        pub mod $name {
            use super::*;
            use crate::kernels::attention::decode::{self, Keys, Values};
            use crate::kernels::attention::table::Decode;

            compile! { $set: fn scores(t: &Keys) = decode::scores::<$simd, $product, $storage> }
            compile! { $set: fn context(t: &Values) = decode::context::<$simd, $product, $storage> }

            pub const DECODE: Decode = Decode { scores, context };
        }
    };
}
pub(crate) use single;

/// `passes! { set, Registers }`: a module `passes` with `PASSES`.
macro_rules! passes {
    ($set:ident, $simd:ty) => {
        pub mod passes {
            use super::*;
            use crate::kernels::attention::exponentials::{self, Exact, OfBytes};
            use crate::kernels::attention::{byte_weights, gather};
            use crate::kernels::attention::softmax::{self, Floats, Ints, Prepare, Scores, Span};
            use crate::kernels::attention::table::{Passes, single};
            use crate::kernels::dense::{F32, StoredBf16, StoredF16};
            use crate::kernels::attention::normalize::{ToBf16, ToF32, ToU8, Normalize, gauge, normalize};

            compile! { $set: fn prepare_floats(r: &mut [Scores], live: &[Span], p: &Prepare) = softmax::prepare::<$simd, Floats> }
            compile! { $set: fn prepare_ints(r: &mut [Scores], live: &[Span], p: &Prepare) = softmax::prepare::<$simd, Ints> }
            compile! { $set: fn maximum_floats(r: &mut [Scores], live: &[Span]) = softmax::maximum::<$simd, Floats> }
            compile! { $set: fn maximum_ints(r: &mut [Scores], live: &[Span]) = softmax::maximum::<$simd, Ints> }
            compile! { $set: fn exp_floats(r: &mut [Scores], keys: &Span, live: &[Span])
                = exponentials::exponentials::<$simd, Floats, Exact> }
            compile! { $set: fn exp_ints(r: &mut [Scores], keys: &Span, live: &[Span])
                = exponentials::exponentials::<$simd, Ints, Exact> }
            compile! { $set: fn exp_floats_of_bytes(r: &mut [Scores], keys: &Span, live: &[Span])
                = exponentials::exponentials::<$simd, Floats, OfBytes> }
            compile! { $set: fn exp_ints_of_bytes(r: &mut [Scores], keys: &Span, live: &[Span])
                = exponentials::exponentials::<$simd, Ints, OfBytes> }
            compile! { $set: fn bytes_of_floats(r: &mut [Scores], keys: &Span) = byte_weights::byte_weights::<$simd, Floats> }
            compile! { $set: fn bytes_of_ints(r: &mut [Scores], keys: &Span) = byte_weights::byte_weights::<$simd, Ints> }
            compile! { $set: fn gauges[const BY: bool](r: &mut [Scores], keys: &Span, by: *const f32) = gauge::<$simd, BY> }
            compile! { $set: fn to_f32[const CLIP: bool](r: &mut [Scores], keys: &Span, w: &Normalize) = normalize::<$simd, ToF32, CLIP> }
            compile! { $set: fn to_bf16[const CLIP: bool](r: &mut [Scores], keys: &Span, w: &Normalize) = normalize::<$simd, ToBf16, CLIP> }
            compile! { $set: fn to_u8[const CLIP: bool](r: &mut [Scores], keys: &Span, w: &Normalize) = normalize::<$simd, ToU8, CLIP> }
            compile! { $set: fn collect(w: *const u32, n: usize, at: *mut u32, to: *mut u32) -> usize = gather::collect::<$simd> }

            single! { decode_bf16: $set, $simd, F32, StoredBf16 }
            single! { decode_f16: $set, $simd, F32, StoredF16 }

            pub static PASSES: Passes = Passes {
                prepare: [prepare_floats, prepare_ints],
                maximum: [maximum_floats, maximum_ints],
                exponentials: [[exp_floats, exp_ints], [exp_floats_of_bytes, exp_ints_of_bytes]],
                byte_weights: [bytes_of_floats, bytes_of_ints],
                gauge: [gauges::<false>, gauges::<true>],
                normalize: [
                    [to_f32::<false>, to_f32::<true>],
                    [to_bf16::<false>, to_bf16::<true>],
                    [to_u8::<false>, to_u8::<true>],
                ],
                decode_bf16: decode_bf16::DECODE,
                decode_f16: decode_f16::DECODE,
                collect,
            };
        }
    };
}
pub(crate) use passes;
