//! Borrowed matrices: row-major, unit inner stride, bounds proven once at construction.

use crate::base::buffer::memory;
use crate::base::element::ElementType;
use crate::base::error::{Error, Result};

/// Elements from the first of row 0 to the last of the last row; an error names what overflowed or is short.
fn check(len: usize, rows: usize, cols: usize, stride: usize) -> Result<()> {
    if stride < cols {
        return Err(Error::shape("stride", format_args!("at least cols = {cols}"), stride));
    }
    let needed = match rows.checked_sub(1) {
        None => Some(0),
        Some(last) => last.checked_mul(stride).and_then(|n| n.checked_add(cols)),
    };
    match needed {
        None => Err(Error::shape(
            "rows",
            "rows * stride to fit usize",
            format_args!("{rows} rows of stride {stride}"),
        )),
        Some(needed) if needed > len => Err(Error::shape(
            "data",
            format_args!("at least {needed} elements for {rows} x {cols}, stride {stride}"),
            len,
        )),
        Some(_) => Ok(()),
    }
}

/// A borrowed matrix, row-major: element (r, c) is `data[r * stride + c]`.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T: ElementType> MatRef<'a, T> {
    /// `rows` x `cols`, rows next to each other.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` does not hold exactly `rows * cols` elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(Error::shape("data", format_args!("exactly {rows} x {cols} elements"), data.len()));
        }
        Ok(Self { data, rows, cols, stride: cols })
    }

    /// `rows` x `cols`, row r starting at element `r * stride`. What lies between rows is never read.
    ///
    /// # Errors
    /// [`Error::Shape`] if `stride < cols`, if the size overflows, or if `data` ends before the last row does.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        check(data.len(), rows, cols, stride)?;
        Ok(Self { data, rows, cols, stride })
    }

    /// Rows of memory that the caller made: as [`MatRef::with_stride`] where that cannot fail.
    ///
    /// # Panics
    /// If `data` ends before the last row does.
    pub(crate) fn of_rows(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(check(data.len(), rows, cols, stride).is_ok(), "{rows} rows of {stride} in {}", data.len());
        Self { data, rows, cols, stride }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from the start of one row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `r`.
    ///
    /// # Panics
    /// If `r >= rows`.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // Zero columns may leave nothing to slice at r * stride.
        if self.cols == 0 {
            return &[];
        }
        &self.data[r * self.stride..][..self.cols]
    }

    /// All rows in order.
    pub fn iter_rows(&self) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        let this = *self;
        (0..this.rows).map(move |r| this.row(r))
    }

    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    /// `rows` rows from row `first`.
    ///
    /// # Panics
    /// If they are not all inside the matrix.
    pub(crate) fn rows_from(&self, first: usize, rows: usize) -> MatRef<'a, T> {
        assert!(first <= self.rows && rows <= self.rows - first, "{rows} rows from {first} of {}", self.rows);
        let start = if rows == 0 { 0 } else { first * self.stride };
        MatRef { data: &self.data[start..], rows, ..*self }
    }
}

impl<'a> MatRef<'a, i8> {
    /// The memory as unsigned bytes.
    pub(crate) fn as_bytes(&self) -> MatRef<'a, u8> {
        let data = memory(self.data);
        MatRef { data, rows: self.rows, cols: self.cols, stride: self.stride }
    }
}

/// A mutably borrowed matrix, row-major: element (r, c) is `data[r * stride + c]`.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T: ElementType> MatMut<'a, T> {
    /// `rows` x `cols`, rows next to each other.
    ///
    /// # Errors
    /// As [`MatRef::new`].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        MatRef::new(&*data, rows, cols)?;
        Ok(Self { data, rows, cols, stride: cols })
    }

    /// `rows` x `cols`, row r starting at element `r * stride`. What lies between rows is never written.
    ///
    /// # Errors
    /// As [`MatRef::with_stride`].
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        check(data.len(), rows, cols, stride)?;
        Ok(Self { data, rows, cols, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from the start of one row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The matrix, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    /// The matrix, borrowed to be read.
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    /// Row `r`.
    ///
    /// # Panics
    /// If `r >= rows`.
    #[inline]
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        if self.cols == 0 {
            return &mut [];
        }
        &mut self.data[r * self.stride..][..self.cols]
    }

    /// What it is a view of: row r is at `r * stride`. Behind the last row there may be less than a stride.
    pub fn into_data(self) -> &'a mut [T] {
        self.data
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }

    /// `rows` rows from row `first`.
    ///
    /// # Panics
    /// If they are not all inside the matrix.
    pub(crate) fn rows_from(&mut self, first: usize, rows: usize) -> MatMut<'_, T> {
        assert!(first <= self.rows && rows <= self.rows - first, "{rows} rows from {first} of {}", self.rows);
        let start = if rows == 0 { 0 } else { first * self.stride };
        MatMut { data: &mut self.data[start..], rows, cols: self.cols, stride: self.stride }
    }

    /// The first `rows` rows, and those behind them.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn split_rows(self, rows: usize) -> (MatMut<'a, T>, MatMut<'a, T>) {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        let MatMut { data, rows: all, cols, stride } = self;
        // Behind the last row there may be no whole stride.
        let end = (rows * stride).min(data.len());
        let (first, rest) = data.split_at_mut(end);
        (MatMut { data: first, rows, cols, stride }, MatMut { data: rest, rows: all - rows, cols, stride })
    }
}
