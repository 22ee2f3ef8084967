//! Single elements as blocks of 1x1: compressed rows, and N of each M.

use super::{BlockShape, Bsr};
use crate::base::element::ElementType;
use crate::base::error::{Error, Result};
use crate::base::view::MatRef;

impl<T: ElementType + PartialEq> Bsr<T> {
    /// A matrix from compressed sparse rows (CSR), as SciPy and PyTorch have them: row `r` has the values
    /// `values[indptr[r]..indptr[r + 1]]`, in the columns that `indices` names, ascending. Its blocks are 1x1.
    ///
    /// # Errors
    /// As [`Bsr::from_parts`].
    pub fn from_csr(
        size: (usize, usize),
        indptr: Vec<usize>,
        indices: Vec<u32>,
        values: Vec<T>,
    ) -> Result<Self> {
        Self::from_parts(size, BlockShape::B1X1, indptr, indices, values)
    }

    /// The elements of a dense matrix that are not zero, of which there are at most `n` in each `m` neighbouring columns (2:4 and the
    /// like), counted from column 0. Its blocks are 1x1.
    ///
    /// # Errors
    /// [`Error::Value`] if `n` is 0 or above `m`, or if more than `n` of `m` columns are not zero, the first of which is named; else as
    /// [`Bsr::from_dense`].
    pub fn from_n_m(w: MatRef<'_, T>, n: usize, m: usize) -> Result<Self> {
        check_n_m(n, m)?;
        for (r, row) in w.iter_rows().enumerate() {
            for (i, group) in row.chunks(m).enumerate() {
                let there = group.iter().filter(|&&v| v != T::default()).count();
                if there > n {
                    let got = format_args!("{there} in row {r} from column {} on", i * m).to_string();
                    return Err(Error::value(
                        "w",
                        format_args!("at most {n} of {m} columns that are not zero"),
                        got,
                    ));
                }
            }
        }
        Self::from_dense(w, BlockShape::B1X1)
    }
}

pub(super) fn check_n_m(n: usize, m: usize) -> Result<()> {
    if n == 0 || n > m {
        return Err(Error::value("n", format_args!("1 to m, which is {m}"), n));
    }
    Ok(())
}
