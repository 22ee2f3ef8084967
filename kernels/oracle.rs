//! The safe side of oracle.c: an independent, slow, obviously right implementation to test against.
//!
//! Everything here panics on arguments that do not fit each other: it is for tests, and a wrong test should stop.

use std::ffi::c_void;
use std::ptr;

mod sealed {
    pub trait Sealed {}
}

/// The element types that the oracle reads.
pub trait Element: Copy + sealed::Sealed {
    /// The type's number in oracle.c.
    const CODE: i32;
}

/// The 8-bit element types.
pub trait Byte: Element {}

macro_rules! elements { ($($t:ty = $code:literal),*) => { $(
    impl sealed::Sealed for $t {}
    impl Element for $t { const CODE: i32 = $code; }
)* } }
elements!(u8 = 0, i8 = 1, f32 = 2);
impl Byte for u8 {}
impl Byte for i8 {}

/// Rows next to each other, with their zero points: none, one for all, or one a row.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// `rows * cols` elements.
    pub data: &'a [T],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Zero points: 0, 1 or `rows` of them.
    pub zero: &'a [i32],
}

/// A block-sparse matrix as SciPy and PyTorch have it. What no block covers is a real zero.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a, T, P, I> {
    /// The values of block 0, row by row, then those of block 1, ...
    pub values: &'a [T],
    /// Where each block row's blocks begin, and where the last one's end.
    pub indptr: &'a [P],
    /// The block column of each block.
    pub indices: &'a [I],
    /// Rows and columns of a block.
    pub block: (usize, usize),
    /// Number of rows; blocks may reach beyond.
    pub rows: usize,
    /// Number of columns; blocks may reach beyond.
    pub cols: usize,
    /// Zero points: 0, 1 or `rows` of them.
    pub zero: &'a [i32],
}

/// What follows the sum: `activation(sum * scale + bias + residual)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// 0, 1 or n factors.
    pub scale: &'a [f64],
    /// n addends, or none.
    pub bias: Option<&'a [f64]>,
    /// m x n addends, or none.
    pub residual: Option<&'a [f64]>,
    /// The last step.
    pub activation: Activation,
}

/// Activations by their textbook formulas.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// max(v, 0)
    Relu,
    /// v Phi(v)
    GeluErf,
    /// The approximation of GELU by tanh.
    GeluTanh,
    /// v / (1 + exp(-v))
    Silu,
    /// Between two bounds.
    Clamp(f64, f64),
}

impl Activation {
    fn code(self) -> (i32, f64, f64) {
        match self {
            Activation::Identity => (0, 0.0, 0.0),
            Activation::Relu => (1, 0.0, 0.0),
            Activation::GeluErf => (2, 0.0, 0.0),
            Activation::GeluTanh => (3, 0.0, 0.0),
            Activation::Silu => (4, 0.0, 0.0),
            Activation::Clamp(low, high) => (5, low, high),
        }
    }
}

#[repr(C)]
struct RawMatrix {
    data: *const c_void,
    zero: *const i32,
    zeros: usize,
    rows: usize,
    cols: usize,
    element: i32,
}

#[repr(C)]
struct RawBlocks {
    indptr: *const i64,
    indices: *const i64,
    br: usize,
    bc: usize,
}

unsafe extern "C" {
    fn siskin_oracle_matmul_i32(
        x: *const RawMatrix,
        w: *const RawMatrix,
        s: *const RawBlocks,
        y: *mut i32,
    ) -> usize;
    fn siskin_oracle_matmul_f64(
        x: *const RawMatrix,
        w: *const RawMatrix,
        s: *const RawBlocks,
        y: *mut f64,
        size: *mut f64,
    );
    safe fn siskin_oracle_activate(kind: i32, low: f64, high: f64, v: f64) -> f64;
    fn siskin_oracle_epilogue(
        m: usize,
        n: usize,
        y: *mut f64,
        scale: *const f64,
        scales: usize,
        bias: *const f64,
        residual: *const f64,
        kind: i32,
        low: f64,
        high: f64,
    );
    safe fn siskin_oracle_requantize(v: f64, scale: f64, zero: i32, low: i32, high: i32) -> i32;
}

fn raw<T: Element>(data: &[T], rows: usize, cols: usize, zero: &[i32]) -> RawMatrix {
    assert!(zero.len() <= 1 || zero.len() == rows, "{} zero points for {rows} rows", zero.len());
    RawMatrix {
        data: data.as_ptr().cast(),
        zero: zero.as_ptr(),
        zeros: zero.len(),
        rows,
        cols,
        element: T::CODE,
    }
}

impl<T: Element> Matrix<'_, T> {
    fn raw(&self) -> RawMatrix {
        assert_eq!(Some(self.data.len()), self.rows.checked_mul(self.cols), "elements of a matrix");
        raw(self.data, self.rows, self.cols, self.zero)
    }
}

fn wide<I: Copy + TryInto<i64>>(all: &[I]) -> Vec<i64> {
    all.iter().map(|&i| i.try_into().unwrap_or_else(|_| panic!("an index beyond i64"))).collect()
}

/// Index arrays in the oracle's own type, every entry proven.
struct Index {
    indptr: Vec<i64>,
    indices: Vec<i64>,
}

impl<T: Element, P: Copy + TryInto<i64>, I: Copy + TryInto<i64>> Blocks<'_, T, P, I> {
    fn index(&self) -> Index {
        let index = Index { indptr: wide(self.indptr), indices: wide(self.indices) };
        let (br, bc) = self.block;
        assert!(br > 0 && bc > 0, "a block of {br} x {bc}");
        assert_eq!(index.indptr.len(), self.rows.div_ceil(br) + 1, "entries of indptr");
        assert_eq!(index.indptr[0], 0, "the first of indptr");
        assert!(index.indptr.windows(2).all(|w| w[0] <= w[1]), "indptr goes down");
        assert_eq!(index.indptr[index.indptr.len() - 1], index.indices.len() as i64, "the last of indptr");
        let block_cols = self.cols.div_ceil(bc) as i64;
        assert!(index.indices.iter().all(|i| (0..block_cols).contains(i)), "a block column out of range");
        let expected = index.indices.len().checked_mul(br).and_then(|n| n.checked_mul(bc));
        assert_eq!(Some(self.values.len()), expected, "values of the blocks");
        index
    }

    fn raw(&self, index: &Index) -> (RawMatrix, RawBlocks) {
        (
            raw(self.values, self.rows, self.cols, self.zero),
            RawBlocks {
                indptr: index.indptr.as_ptr(),
                indices: index.indices.as_ptr(),
                br: self.block.0,
                bc: self.block.1,
            },
        )
    }
}

fn integers(x: &RawMatrix, w: &RawMatrix, s: Option<&RawBlocks>) -> Vec<i32> {
    assert_eq!(x.cols, w.cols, "columns of x and of w");
    let mut y = vec![0; x.rows * w.rows];
    let s = s.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `raw` and `index` have proven that both matrices hold what their shapes and indices reach, as
    // integers (the callers take `Byte` only), and y has a place for each output.
    let unfit = unsafe { siskin_oracle_matmul_i32(x, w, s, y.as_mut_ptr()) };
    assert_eq!(unfit, 0, "outputs that do not fit i32");
    y
}

fn reals(x: &RawMatrix, w: &RawMatrix, s: Option<&RawBlocks>) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(x.cols, w.cols, "columns of x and of w");
    let mut y = vec![0.0; x.rows * w.rows];
    let mut size = y.clone();
    let s = s.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: as in `integers`; `size` is as long as y.
    unsafe { siskin_oracle_matmul_f64(x, w, s, y.as_mut_ptr(), size.as_mut_ptr()) };
    (y, size)
}

/// x times the transpose of w, exactly; `x.rows` rows of `w.rows`. Panics where a result does not fit i32.
pub fn gemm<X: Byte, W: Byte>(x: Matrix<'_, X>, w: Matrix<'_, W>) -> Vec<i32> {
    integers(&x.raw(), &w.raw(), None)
}

/// As [`gemm`] with a block-sparse w.
pub fn spmm<X, W, P, I>(x: Matrix<'_, X>, w: Blocks<'_, W, P, I>) -> Vec<i32>
where
    X: Byte,
    W: Byte,
    P: Copy + TryInto<i64>,
    I: Copy + TryInto<i64>,
{
    let index = w.index();
    let (matrix, blocks) = w.raw(&index);
    integers(&x.raw(), &matrix, Some(&blocks))
}

/// x times the transpose of w in doubles, and for each output the sum of the magnitudes of its products, which
/// bounds what rounding may do to it.
pub fn gemm_f64<X: Element, W: Element>(x: Matrix<'_, X>, w: Matrix<'_, W>) -> (Vec<f64>, Vec<f64>) {
    reals(&x.raw(), &w.raw(), None)
}

/// As [`gemm_f64`] with a block-sparse w.
pub fn spmm_f64<X, W, P, I>(x: Matrix<'_, X>, w: Blocks<'_, W, P, I>) -> (Vec<f64>, Vec<f64>)
where
    X: Element,
    W: Element,
    P: Copy + TryInto<i64>,
    I: Copy + TryInto<i64>,
{
    let index = w.index();
    let (matrix, blocks) = w.raw(&index);
    reals(&x.raw(), &matrix, Some(&blocks))
}

/// Applies an epilogue to the sums of `n` columns.
pub fn epilogue(sums: &[f64], n: usize, e: Epilogue<'_>) -> Vec<f64> {
    let m = sums.len().checked_div(n).unwrap_or(0);
    assert_eq!(sums.len(), m * n, "sums in {n} columns");
    assert!(e.scale.len() <= 1 || e.scale.len() == n, "{} scales for {n} columns", e.scale.len());
    assert!(e.bias.is_none_or(|b| b.len() == n), "bias for {n} columns");
    assert!(e.residual.is_none_or(|r| r.len() == sums.len()), "residual for {m} x {n}");
    let mut y = sums.to_vec();
    let of = |s: Option<&[f64]>| s.map_or(ptr::null(), <[f64]>::as_ptr);
    let (kind, low, high) = e.activation.code();
    // SAFETY: the lengths of all slices against m and n were asserted above.
    unsafe {
        siskin_oracle_epilogue(
            m,
            n,
            y.as_mut_ptr(),
            e.scale.as_ptr(),
            e.scale.len(),
            of(e.bias),
            of(e.residual),
            kind,
            low,
            high,
        );
    }
    y
}

/// One activation.
pub fn activate(activation: Activation, v: f64) -> f64 {
    let (kind, low, high) = activation.code();
    siskin_oracle_activate(kind, low, high, v)
}

/// The integer nearest to `v / scale`, even of two as near, plus `zero`, clamped to `range`; `zero` for NaN.
pub fn requantize(v: f64, scale: f64, zero: i32, range: std::ops::RangeInclusive<i32>) -> i32 {
    siskin_oracle_requantize(v, scale, zero, *range.start(), *range.end())
}
