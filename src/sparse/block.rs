//! The shape of a block.

use crate::base::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Rows x columns of one block of a weight: `4x1` is four output features of one input feature.
///
/// ```
/// use siskin::sparse::BlockShape;
///
/// assert_eq!("4x1".parse::<BlockShape>()?, BlockShape::B4X1);
/// assert_eq!(BlockShape::new(16, 4)?.to_string(), "16x4");
/// assert!(BlockShape::new(0, 4).is_err());
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct BlockShape {
    rows: usize,
    cols: usize,
}

impl BlockShape {
    /// Single elements: CSR.
    pub const B1X1: Self = Self { rows: 1, cols: 1 };
    /// One output feature, four input features.
    pub const B1X4: Self = Self { rows: 1, cols: 4 };
    /// Four output features, one input feature.
    pub const B4X1: Self = Self { rows: 4, cols: 1 };
    /// Four by four.
    pub const B4X4: Self = Self { rows: 4, cols: 4 };
    /// Sixteen output features, one input feature.
    pub const B16X1: Self = Self { rows: 16, cols: 1 };
    /// Sixteen output features, four input features.
    pub const B16X4: Self = Self { rows: 16, cols: 4 };

    /// `rows` x `cols`, any but zero.
    ///
    /// # Errors
    /// [`Error::Value`] if either is zero, or if their product overflows.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        match rows.checked_mul(cols) {
            None | Some(0) => Err(Error::value(
                "block",
                "rows and columns above 0 whose product fits usize",
                format_args!("{rows}x{cols}"),
            )),
            Some(_) => Ok(Self { rows, cols }),
        }
    }

    /// Rows of a block.
    pub const fn rows(self) -> usize {
        self.rows
    }

    /// Columns of a block.
    pub const fn cols(self) -> usize {
        self.cols
    }

    /// Values of a block: rows times columns.
    pub const fn area(self) -> usize {
        self.rows * self.cols
    }

    /// The rows of the matrix that block row `i` covers; the last may be cut short by the edge.
    pub(crate) fn row_range(self, i: usize, rows: usize) -> Range<usize> {
        clipped(i, self.rows, rows)
    }

    /// The columns of the matrix that block column `j` covers; the last may be cut short by the edge.
    pub(crate) fn col_range(self, j: usize, cols: usize) -> Range<usize> {
        clipped(j, self.cols, cols)
    }
}

/// The `i`-th run of `step` numbers below `end`. Its start is below `end`, so that only its end can overflow.
fn clipped(i: usize, step: usize, end: usize) -> Range<usize> {
    let start = i * step;
    start..start.saturating_add(step).min(end)
}

impl fmt::Display for BlockShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

#[cfg(feature = "serde")]
impl From<BlockShape> for String {
    fn from(block: BlockShape) -> String {
        block.to_string()
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for BlockShape {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for BlockShape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once(['x', 'X']).and_then(|(r, c)| Some((r.parse().ok()?, c.parse().ok()?)));
        let (rows, cols) = parsed
            .ok_or_else(|| Error::value("block", "rows x columns such as 4x1", format_args!("{text:?}")))?;
        Self::new(rows, cols)
    }
}
