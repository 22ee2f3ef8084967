//! What tensors are made of: one list of element types for views, weights, packed activations and quantizers.

use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Element {
    /// Unsigned 8-bit integers.
    U8,
    /// Signed 8-bit integers.
    I8,
    /// Unsigned 16-bit integers: Hamming distances.
    U16,
    /// Signed 16-bit integers: products of binary codes.
    I16,
    /// Unsigned 32-bit integers: numbers of rows.
    U32,
    /// Signed 32-bit integers: exact sums.
    I32,
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Element {
    /// Bits of one element in memory.
    pub const fn bits(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 8,
            Element::U16 | Element::I16 | Element::Bf16 | Element::F16 => 16,
            Element::U32 | Element::I32 | Element::F32 => 32,
        }
    }

    /// Bytes that `n` elements take, packed next to each other.
    pub(crate) const fn bytes_of(self, n: usize) -> usize {
        (n * self.bits()).div_ceil(8)
    }

    /// Whether the elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, Element::F32 | Element::Bf16 | Element::F16)
    }

    /// Whether the elements are integers that real numbers are quantized to: `U8` and `I8`.
    pub const fn is_quantized(self) -> bool {
        matches!(self, Element::U8 | Element::I8)
    }

    /// The smallest and the largest integer of a type that real numbers are quantized to.
    pub const fn quantized_range(self) -> Option<(i32, i32)> {
        match self {
            Element::U8 => Some((0, 255)),
            Element::I8 => Some((-128, 127)),
            _ => None,
        }
    }

    /// The name in messages and reports: `u8`, `bf16`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Element::U8 => "u8",
            Element::I8 => "i8",
            Element::U16 => "u16",
            Element::I16 => "i16",
            Element::U32 => "u32",
            Element::I32 => "i32",
            Element::F32 => "f32",
            Element::Bf16 => "bf16",
            Element::F16 => "f16",
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}

    /// What packing needs of an element.
    pub trait Store: Copy {
        /// Writes element `i` of a packed row that starts at `row`.
        fn store(self, row: &mut [u8], i: usize);
    }
}
pub(crate) use sealed::Store;

/// The Rust types of elements: `u8`, `i8`, `u16`, `i16`, `u32`, `i32`, `f32`, [`bf16`] and [`struct@f16`].
pub trait ElementType: Copy + Default + Send + Sync + 'static + sealed::Sealed {
    /// The type as a value.
    const ELEMENT: Element;
}

macro_rules! elements { ($($t:ty => $d:ident),*) => { $(
    impl sealed::Sealed for $t {}
    impl ElementType for $t { const ELEMENT: Element = Element::$d; }
)* } }
elements!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bf16 => Bf16, f16 => F16);

/// The element types of weights: `i8`, `f32`, [`bf16`] and [`struct@f16`].
pub trait Weight: ElementType + PartialEq + Store {}

macro_rules! weights { ($($t:ty),*) => { $(
    impl Weight for $t {}
    impl Store for $t {
        #[inline(always)]
        fn store(self, row: &mut [u8], i: usize) {
            row[i * size_of::<$t>()..][..size_of::<$t>()].copy_from_slice(&self.to_le_bytes());
        }
    }
)* } }
weights!(i8, f32, bf16, f16);
