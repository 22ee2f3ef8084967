//! Types of elements as cases name them.

use super::case::choices;
use siskin::Element;

choices! {
    XType { U8, I8, F32, Bf16, F16 }
    YType { U8, I8, I32, F32, Bf16, F16 }
    DType { F32, Bf16, F16, #[serde(alias = "u8")] #[value(alias = "u8")] Int8 }
}

impl XType {
    /// What numbers of this type are quantized to, where they are bytes.
    pub fn quant(self) -> Option<Element> {
        match self {
            XType::U8 => Some(Element::U8),
            XType::I8 => Some(Element::I8),
            XType::F32 | XType::Bf16 | XType::F16 => None,
        }
    }

    pub fn is_bytes(self) -> bool {
        self.quant().is_some()
    }
}

impl YType {
    /// The type of elements, unless it is that of sums.
    pub fn element(self) -> Option<XType> {
        match self {
            YType::U8 => Some(XType::U8),
            YType::I8 => Some(XType::I8),
            YType::I32 => None,
            YType::F32 => Some(XType::F32),
            YType::Bf16 => Some(XType::Bf16),
            YType::F16 => Some(XType::F16),
        }
    }

    pub fn is_bytes(self) -> bool {
        self.element().is_some_and(XType::is_bytes)
    }
}

impl DType {
    pub fn element(self) -> XType {
        match self {
            DType::F32 => XType::F32,
            DType::Bf16 => XType::Bf16,
            DType::F16 => XType::F16,
            DType::Int8 => XType::U8,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::Int8 => 1,
        }
    }
}
