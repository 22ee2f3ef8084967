//! Block sparse rows: the triple of SciPy's `bsr_matrix` and PyTorch's `sparse_bsr`.

use super::{BlockShape, Statistics};
use crate::base::element::ElementType;
use crate::base::error::{Error, Result};
use crate::base::view::MatRef;

/// A block-sparse matrix of `rows` x `cols`, the blocks of a block row in ascending order of column.
///
/// * `indptr`, `[block_rows + 1]`: block row i owns blocks `indptr[i]..indptr[i + 1]`.
/// * `indices`, `[num_blocks]`: the block column of each.
/// * `values`, `[num_blocks, block.rows(), block.cols()]`, row-major.
///
/// Where the block does not divide the matrix, the last blocks reach over the edge. What they hold there is
/// always zero, so that a kernel may read it and no result depends on it.
///
/// ```
/// use siskin::MatRef;
/// use siskin::sparse::{BlockShape, Bsr};
///
/// let dense = [1.0, 0.0, 0.0, 0.0, //
///              2.0, 0.0, 0.0, 3.0];
/// let w = Bsr::from_dense(MatRef::new(&dense, 2, 4)?, "2x1".parse()?)?;
/// assert_eq!((w.indptr(), w.indices()), (&[0, 2][..], &[0, 3][..]));
/// assert_eq!(w.values(), [1.0, 2.0, 0.0, 3.0]);
/// assert_eq!(w.to_dense()?, dense);
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bsr<T> {
    rows: usize,
    cols: usize,
    block: BlockShape,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<T>,
}

impl<T: ElementType + PartialEq> Bsr<T> {
    /// A matrix from its parts, every one of them checked.
    ///
    /// # Errors
    /// * [`Error::Shape`] if `rows` or `cols` has more than 2^32 blocks, or if a part has the wrong length;
    /// * [`Error::Index`] if `indptr` does not start at 0, falls, or does not end at the number of blocks, if
    ///   `indices` are not strictly ascending within a block row or are out of range, or if `values` are not
    ///   zero beyond the edge of the matrix.
    pub fn from_parts(
        (rows, cols): (usize, usize),
        block: BlockShape,
        indptr: Vec<usize>,
        indices: Vec<u32>,
        values: Vec<T>,
    ) -> Result<Self> {
        let (_, block_cols) = check_size(rows, cols, block)?;
        let this = Self { rows, cols, block, indptr, indices, values };
        this.check_lengths()?;
        this.check_indptr()?;
        for i in 0..this.block_rows() {
            this.check_indices(i, block_cols)?;
            this.check_padding(i)?;
        }
        Ok(this)
    }

    /// The blocks of a dense matrix that hold anything but zeros (a NaN is not zero, -0.0 is).
    ///
    /// # Errors
    /// [`Error::Shape`] if `w` has more than 2^32 block rows or columns, or more block rows than memory.
    pub fn from_dense(w: MatRef<'_, T>, block: BlockShape) -> Result<Self> {
        Self::gather(w, block, |i, keep| {
            for r in block.row_range(i, w.rows()) {
                for (keep, values) in keep.iter_mut().zip(w.row(r).chunks(block.cols())) {
                    *keep |= values.iter().any(|&v| v != T::default());
                }
            }
        })
    }

    /// The blocks of a dense matrix that `choose(block row, flags)` flags; the flags, one for each block column,
    /// come in false.
    pub(super) fn gather(
        w: MatRef<'_, T>,
        block: BlockShape,
        mut choose: impl FnMut(usize, &mut [bool]),
    ) -> Result<Self> {
        let (block_rows, block_cols) = check_size(w.rows(), w.cols(), block)?;
        let (mut indptr, mut indices, mut values) = (Vec::new(), Vec::new(), Vec::new());
        // Rows of no columns cost the caller no memory, but here they would.
        indptr
            .try_reserve_exact(block_rows + 1)
            .map_err(|_| Error::shape("w", "an indptr that fits in memory", w.rows()))?;
        indptr.push(0);
        let mut keep = vec![false; if block_rows == 0 { 0 } else { block_cols }];
        for i in 0..block_rows {
            keep.fill(false);
            // Rows of no columns are as many as the caller says: not to be walked.
            if block_cols > 0 {
                choose(i, &mut keep);
            }
            for j in (0..block_cols).filter(|&j| keep[j]) {
                let (rows, cols) = (block.row_range(i, w.rows()), block.col_range(j, w.cols()));
                let start = values.len();
                values.resize(start + block.area(), T::default());
                for (to, r) in values[start..].chunks_mut(block.cols()).zip(rows) {
                    to[..cols.len()].copy_from_slice(&w.row(r)[cols.clone()]);
                }
                indices.push(j as u32);
            }
            indptr.push(indices.len());
        }
        Ok(Self { rows: w.rows(), cols: w.cols(), block, indptr, indices, values })
    }

    /// The dense matrix, `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] if it does not fit in memory: a few blocks can stand for a matrix of any size.
    pub fn to_dense(&self) -> Result<Vec<T>> {
        let too_large = || {
            Error::shape(
                "rows",
                "rows * cols to fit in memory",
                format_args!("{} x {}", self.rows, self.cols),
            )
        };
        let len = self.rows.checked_mul(self.cols).ok_or_else(too_large)?;
        let mut dense = Vec::new();
        dense.try_reserve_exact(len).map_err(|_| too_large())?;
        dense.resize(len, T::default());
        for i in 0..self.block_rows() {
            let (indices, values) = self.block_row(i);
            for (&j, values) in indices.iter().zip(values.chunks(self.block.area())) {
                let cols = self.block.col_range(j as usize, self.cols);
                let rows = self.block.row_range(i, self.rows);
                for (r, from) in rows.zip(values.chunks(self.block.cols())) {
                    dense[r * self.cols..][cols.clone()].copy_from_slice(&from[..cols.len()]);
                }
            }
        }
        Ok(dense)
    }

    /// A matrix of equal structure with each value `v` of row `r` replaced by `f(r, v)`. Beyond the edge stay zeros.
    ///
    /// What is not stored stays zero too, so `f(r, 0)` should be zero: quantize symmetrically.
    pub fn map<U: ElementType + PartialEq>(&self, mut f: impl FnMut(usize, T) -> U) -> Bsr<U> {
        self.map_at(|r, _, v| f(r, v))
    }

    /// As [`Bsr::map`], by `f(r, c, v)` of each value `v` at row `r` and column `c`.
    pub fn map_at<U: ElementType + PartialEq>(&self, mut f: impl FnMut(usize, usize, T) -> U) -> Bsr<U> {
        let mut values = vec![U::default(); self.values.len()];
        self.visit(|at, r, c| values[at] = f(r, c, self.values[at]));
        Bsr {
            rows: self.rows,
            cols: self.cols,
            block: self.block,
            indptr: self.indptr.clone(),
            indices: self.indices.clone(),
            values,
        }
    }

    /// Calls `f(r, c, v)` for each stored value `v`, at row `r` and column `c`; not for what lies beyond the edge.
    pub fn for_each(&self, mut f: impl FnMut(usize, usize, T)) {
        self.visit(|at, r, c| f(r, c, self.values[at]));
    }

    /// The place of each stored value in `values`, its row and its column.
    fn visit(&self, mut f: impl FnMut(usize, usize, usize)) {
        for i in 0..self.block_rows() {
            for b in self.indptr[i]..self.indptr[i + 1] {
                let cols = self.block.col_range(self.indices[b] as usize, self.cols);
                for (k, r) in self.block.row_range(i, self.rows).enumerate() {
                    let at = b * self.block.area() + k * self.block.cols();
                    for (at, c) in (at..).zip(cols.clone()) {
                        f(at, r, c);
                    }
                }
            }
        }
    }

    fn check_lengths(&self) -> Result<()> {
        let same = |argument, expected: Option<usize>, what: &str, got: usize| match expected {
            Some(expected) if expected == got => Ok(()),
            Some(expected) => Err(Error::shape(argument, format_args!("{expected} elements ({what})"), got)),
            None => Err(Error::shape(argument, format_args!("{what} to fit usize"), got)),
        };
        let blocks = self.indices.len();
        same("indptr", self.block_rows().checked_add(1), "block rows + 1", self.indptr.len())?;
        let area = self.block.area();
        same("values", blocks.checked_mul(area), "blocks x block rows x block columns", self.values.len())
    }

    fn check_indptr(&self) -> Result<()> {
        if self.indptr[0] != 0 {
            return Err(Error::index("indptr", 0, 0, self.indptr[0]));
        }
        if let Some(i) = self.indptr.windows(2).position(|pair| pair[0] > pair[1]) {
            let expected = format!("at least {}, the entry before", self.indptr[i]);
            return Err(Error::index("indptr", i + 1, expected, self.indptr[i + 1]));
        }
        let (last, blocks) = (self.indptr.len() - 1, self.indices.len());
        if self.indptr[last] != blocks {
            let expected = format!("{blocks}, the number of indices");
            return Err(Error::index("indptr", last, expected, self.indptr[last]));
        }
        Ok(())
    }

    fn check_indices(&self, i: usize, block_cols: usize) -> Result<()> {
        let mut least = 0;
        for b in self.indptr[i]..self.indptr[i + 1] {
            let j = self.indices[b] as usize;
            if j < least || j >= block_cols {
                let expected = format!("ascending block columns, here {least} to below {block_cols}");
                return Err(Error::index("indices", b, expected, j));
            }
            least = j + 1;
        }
        Ok(())
    }

    fn check_padding(&self, i: usize) -> Result<()> {
        let height = self.block.row_range(i, self.rows).len();
        for b in self.indptr[i]..self.indptr[i + 1] {
            let width = self.block.col_range(self.indices[b] as usize, self.cols).len();
            let start = b * self.block.area();
            let inside = |k: usize| k / self.block.cols() < height && k % self.block.cols() < width;
            if (height, width) == (self.block.rows(), self.block.cols()) {
                continue;
            }
            let block = &self.values[start..][..self.block.area()];
            if let Some(k) = (0..block.len()).find(|&k| !inside(k) && block[k] != T::default()) {
                return Err(Error::index(
                    "values",
                    start + k,
                    "zero beyond the edge of the matrix",
                    "another value",
                ));
            }
        }
        Ok(())
    }
}

impl<T> Bsr<T> {
    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The shape of a block.
    pub fn block(&self) -> BlockShape {
        self.block
    }

    /// Block rows: `rows / block.rows()`, rounded up.
    pub fn block_rows(&self) -> usize {
        self.rows.div_ceil(self.block.rows())
    }

    /// Block columns: `cols / block.cols()`, rounded up.
    pub fn block_cols(&self) -> usize {
        self.cols.div_ceil(self.block.cols())
    }

    /// Stored blocks.
    pub fn num_blocks(&self) -> usize {
        self.indices.len()
    }

    /// Where each block row starts and ends, `[block_rows + 1]`.
    pub fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// The block column of each block, `[num_blocks]`.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The values with the zeros beyond the edge, `[num_blocks, block.rows(), block.cols()]`.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Stored values that lie within the matrix.
    pub fn stored_values(&self) -> usize {
        let height = |i| self.block.row_range(i, self.rows).len();
        let width = |&j: &u32| self.block.col_range(j as usize, self.cols).len();
        (0..self.block_rows()).map(|i| height(i) * self.indices_of(i).iter().map(width).sum::<usize>()).sum()
    }

    /// The block columns and the values of block row `i`: `[n]` and `[n, block.rows(), block.cols()]`.
    ///
    /// # Panics
    /// If `i >= block_rows()`.
    pub fn block_row(&self, i: usize) -> (&[u32], &[T]) {
        let area = self.block.area();
        (self.indices_of(i), &self.values[self.indptr[i] * area..self.indptr[i + 1] * area])
    }

    fn indices_of(&self, i: usize) -> &[u32] {
        &self.indices[self.indptr[i]..self.indptr[i + 1]]
    }

    /// How full the matrix is, and how evenly.
    pub fn statistics(&self) -> Statistics {
        Statistics::new(
            self.stored_values(),
            (self.rows, self.cols),
            self.indptr.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        )
    }
}

/// The numbers of block rows and of block columns; an index is 32 bits wide.
pub(super) fn check_size(rows: usize, cols: usize, block: BlockShape) -> Result<(usize, usize)> {
    let blocks = |argument, size: usize, step: usize| match size.div_ceil(step) {
        blocks if u32::try_from(blocks.saturating_sub(1)).is_ok() => Ok(blocks),
        _ => Err(Error::shape(argument, format_args!("at most 2^32 blocks of {step}"), size)),
    };
    Ok((blocks("rows", rows, block.rows())?, blocks("cols", cols, block.cols())?))
}
