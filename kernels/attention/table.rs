//! The list of attention kernels: those of floats by the registers they run on, those of bytes and of pairs by tier.

use super::direct;
use super::gather::{Rows, Weights};
use super::multiply::Run;
use super::softmax::{Prepare, Scores, Span};
use super::weigh::Weigh;
use crate::base::element::Element;

/// Tiles of one product.
#[derive(Debug)]
pub struct Multiply {
    /// Registers, product.
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
    pub direct: Direct,
    /// What columns are to be a multiple of for its context.
    pub context_columns: usize,
}

/// A query of each head, with k and v as they lie.
#[derive(Debug, Clone, Copy)]
pub struct Direct {
    /// And their keys.
    pub scores: direct::Run,
    /// Their weights and v.
    pub context: direct::RunValues,
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

/// Rows of scores, of live keys, to exponentials of a scale, and all of some keys that are not live to 0.
pub type Exponentials = unsafe fn(&mut [Scores], &Span, &[Span], f32);

/// Rows of exponentials to weights, of some keys.
pub type Weighing = unsafe fn(&mut [Scores], &Span, &Weigh);

/// Everything else that a kind of registers does.
#[derive(Debug)]
pub struct Passes {
    /// Of scores that are floats, and integers.
    pub prepare: [Preparation; 2],
    /// The same.
    pub maximum: [Maximum; 2],
    /// The same.
    pub exponentials: [Exponentials; 2],
    /// To f32, bfloat16, u8; as they are, and clipped.
    pub weigh: [[Weighing; 2]; 3],
    /// The words of weights that are not 0.
    pub collect: unsafe fn(*const u32, usize, *mut u32, *mut u32) -> usize,
}

/// `multiply!(NAME: "label", Simd Product, #[features], [width x [runs], ..])`.
macro_rules! multiply {
    ($id:ident: $name:expr, $simd:ident $product:ident, #[$features:meta], [$($width:ident: $nv:literal x [$($run:ident: $mr:literal),*]),*]) => {
        mod $id {
            use super::*;
            $(
                mod $width {
                    use super::*;
                    $(
                        #[$features]
                        pub unsafe fn $run(t: &crate::kernels::attention::multiply::Tile) {
                            // SAFETY: as the caller, who also vouches for the tier.
                            unsafe { crate::kernels::attention::multiply::multiply::<$simd, $product, $mr, $nv>(t) }
                        }
                    )*
                }
            )*
            #[$features]
            unsafe fn gather(r: &crate::kernels::attention::gather::Rows) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { crate::kernels::attention::gather::gather::<$simd, $product>(r) }
            }
            #[$features]
            unsafe fn gather_rows(w: &crate::kernels::attention::gather::Weights) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { crate::kernels::attention::gather::gather_rows::<$simd, $product>(w) }
            }
            crate::kernels::attention::table::single!(single: $simd $product Words, #[$features]);
            pub static KERNELS: crate::kernels::attention::table::Multiply = crate::kernels::attention::table::Multiply {
                name: $name,
                columns: if <$simd as crate::kernels::simd::Simd>::MIXED {
                    crate::base::element::Element::I8
                } else {
                    crate::base::element::Element::U8
                },
                widths: &[$(crate::kernels::attention::table::Width {
                    columns: $nv * <$simd as crate::kernels::simd::Simd>::LANES,
                    run: &[$($width::$run),*],
                }),*],
                gather,
                gather_rows,
                direct: single::DIRECT,
                context_columns: <$simd as crate::kernels::simd::Simd>::LANES
                    * <$product as crate::kernels::dense::Product<$simd>>::ELEMENTS,
            };
        }
    };
}
pub(crate) use multiply;

/// `single!(NAME: Simd Product Storage, #[features])`: a module with `DIRECT`.
macro_rules! single {
    ($id:ident: $simd:ident $product:ident $storage:ident, #[$features:meta]) => {
        mod $id {
            use super::*;
            use crate::kernels::attention::{direct, table::Direct};
            use crate::kernels::dense::$storage;
            #[$features]
            unsafe fn scores(t: &direct::Keys) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { direct::scores::<$simd, $product, $storage>(t) }
            }
            #[$features]
            unsafe fn context(t: &direct::Values) {
                // SAFETY: as the caller, who also vouches for the tier.
                unsafe { direct::context::<$simd, $product, $storage>(t) }
            }
            pub const DIRECT: Direct = Direct { scores, context };
        }
    };
}
pub(crate) use single;

/// `passes!(Simd, #[features])`: a module `passes` with `PASSES`.
macro_rules! passes {
    ($simd:ident, #[$features:meta]) => {
        mod passes {
            use super::*;
            use crate::kernels::attention::{gather, softmax, table::Passes, weigh};
            use softmax::{Floats, Ints, Prepare, Scores, Span};
            use weigh::{ToBf16, ToF32, ToU8, Weigh};
            passes!(@ #[$features] prepare_floats(r: &mut [Scores], live: &[Span], p: &Prepare) => softmax::prepare::<$simd, Floats>);
            passes!(@ #[$features] prepare_ints(r: &mut [Scores], live: &[Span], p: &Prepare) => softmax::prepare::<$simd, Ints>);
            passes!(@ #[$features] maximum_floats(r: &mut [Scores], live: &[Span]) => softmax::maximum::<$simd, Floats>);
            passes!(@ #[$features] maximum_ints(r: &mut [Scores], live: &[Span]) => softmax::maximum::<$simd, Ints>);
            passes!(@ #[$features] exp_floats(r: &mut [Scores], keys: &Span, live: &[Span], a: f32) => softmax::exponentials::<$simd, Floats>);
            passes!(@ #[$features] exp_ints(r: &mut [Scores], keys: &Span, live: &[Span], a: f32) => softmax::exponentials::<$simd, Ints>);
            passes!(@ #[$features] plain_f32(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToF32, false>);
            passes!(@ #[$features] clip_f32(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToF32, true>);
            passes!(@ #[$features] plain_bf16(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToBf16, false>);
            passes!(@ #[$features] clip_bf16(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToBf16, true>);
            passes!(@ #[$features] plain_u8(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToU8, false>);
            passes!(@ #[$features] clip_u8(r: &mut [Scores], keys: &Span, w: &Weigh) => weigh::weigh::<$simd, ToU8, true>);
            passes!(@ #[$features] collect(w: *const u32, n: usize, at: *mut u32, to: *mut u32) -> usize => gather::collect::<$simd>);
            pub static PASSES: Passes = Passes {
                prepare: [prepare_floats, prepare_ints],
                maximum: [maximum_floats, maximum_ints],
                exponentials: [exp_floats, exp_ints],
                weigh: [[plain_f32, clip_f32], [plain_bf16, clip_bf16], [plain_u8, clip_u8]],
                collect,
            };
        }
    };
    (@ #[$features:meta] $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? => $body:path) => {
        #[$features]
        unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: as the caller, who also vouches for the tier.
            unsafe { $body($($arg),*) }
        }
    };
}
pub(crate) use passes;
