//! Tensors of any element type, strided, bounds proven by the typed view that they come from.
//!
//! One pair of types for everything that is read and written: a [`TensorRef`] comes from a [`MatRef`] or a [`HeadsRef`], a
//! [`TensorMut`] from a [`MatMut`] or a [`HeadsMut`]; bytes come with the parameters that say what they stand for.

use crate::base::buffer::{elements, memory, memory_mut};
use crate::base::element::{Element, ElementType};
use crate::base::error::{Error, Result};
use crate::base::heads::{HeadsMut, HeadsRef, Layout};
use crate::base::params::QuantParams;
use crate::base::view::{MatMut, MatRef};
use half::{bf16, f16};

/// What the bytes of a tensor stand for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum HeadParams<'a> {
    /// One quantizer for all heads.
    All(QuantParams),
    /// One quantizer for each head.
    PerHead(&'a [QuantParams]),
    /// One quantizer for each token, for all of its heads: dynamic quantization, as
    /// [`quantize_per_token`](crate::quant::quantize_per_token) leaves it. All have one zero point, as those of a symmetric scheme
    /// have. Only attention takes such tensors.
    PerToken(&'a [QuantParams]),
}

impl From<QuantParams> for HeadParams<'_> {
    fn from(params: QuantParams) -> Self {
        HeadParams::All(params)
    }
}

impl<'a> From<&'a [QuantParams]> for HeadParams<'a> {
    fn from(params: &'a [QuantParams]) -> Self {
        HeadParams::PerHead(params)
    }
}

impl HeadParams<'_> {
    /// All quantizers.
    fn all(&self) -> &[QuantParams] {
        match self {
            HeadParams::All(params) => std::slice::from_ref(params),
            HeadParams::PerHead(params) | HeadParams::PerToken(params) => params,
        }
    }

    /// The zero point of a head.
    fn zero_point(&self, head: usize) -> i32 {
        match self {
            HeadParams::All(params) => params.zero_point(),
            HeadParams::PerHead(params) => params[head].zero_point(),
            HeadParams::PerToken(params) => params.first().map_or(0, QuantParams::zero_point),
        }
    }

    /// The real size of a step of a head; 1 where tokens have sizes of their own.
    fn scale_of_head(&self, head: usize) -> f32 {
        match self {
            HeadParams::All(params) => params.scale(),
            HeadParams::PerHead(params) => params[head].scale(),
            HeadParams::PerToken(_) => 1.0,
        }
    }

    /// The largest real size of a step.
    fn largest_scale(&self) -> f32 {
        self.all().iter().map(QuantParams::scale).fold(0.0, f32::max)
    }

    fn check(&self, name: &'static str, (tokens, heads): (usize, usize), element: Element) -> Result<()> {
        let (got, needed, what) = match self {
            HeadParams::All(_) => (1, 1, ""),
            HeadParams::PerHead(params) => (params.len(), heads, "heads"),
            HeadParams::PerToken(params) => (params.len(), tokens, "tokens"),
        };
        if got != needed {
            return Err(Error::shape(name, format_args!("parameters of {needed} {what}"), got));
        }
        if let Some(p) = self.all().iter().find(|p| p.dtype() != element) {
            return Err(Error::unsupported(name, format_args!("parameters of {element}"), p.dtype()));
        }
        if let HeadParams::PerToken([first, rest @ ..]) = self
            && let Some(p) = rest.iter().find(|p| p.zero_point() != first.zero_point())
        {
            let zero_point = first.zero_point();
            let expected = format_args!("one zero point, {zero_point}, for all tokens");
            return Err(Error::unsupported(name, expected, p.zero_point()));
        }
        Ok(())
    }
}

/// A borrowed tensor `[tokens, heads, head_dim]` of any element type, to be read. A matrix `[tokens, features]` is one of a
/// single head.
///
/// ```
/// use siskin::quant::QuantParams;
/// use siskin::{MatRef, TensorRef};
///
/// let (floats, bytes) = ([0.5f32; 6], [7u8; 6]);
/// let x: TensorRef = MatRef::new(&floats, 2, 3)?.into();
/// let q: TensorRef = (MatRef::new(&bytes, 2, 3)?, QuantParams::u8(0.25, 5)?).into();
/// assert_eq!(x.shape(), q.shape());
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    bytes: &'a [u8],
    element: Element,
    layout: Layout,
    params: Option<HeadParams<'a>>,
}

/// A mutably borrowed tensor `[tokens, heads, head_dim]` of any element type, to be written. A matrix `[tokens, features]` is one
/// of a single head.
#[derive(Debug)]
pub struct TensorMut<'a> {
    bytes: &'a mut [u8],
    element: Element,
    layout: Layout,
    params: Option<QuantParams>,
}

macro_rules! common_methods {
    () => {
        /// Tokens, heads, features of a head.
        pub fn shape(&self) -> (usize, usize, usize) {
            (self.layout.tokens, self.layout.heads, self.layout.head_dim)
        }

        /// What it is made of.
        pub fn element(&self) -> Element {
            self.element
        }

        /// Bytes from one token to the next.
        pub(crate) fn token_stride(&self) -> usize {
            self.element.bytes_of(self.layout.token_stride)
        }

        /// Bytes from one head to the next.
        pub(crate) fn head_stride(&self) -> usize {
            self.element.bytes_of(self.layout.head_stride)
        }

        /// Bytes of one token's head.
        pub(crate) fn row_bytes(&self) -> usize {
            self.element.bytes_of(self.layout.head_dim)
        }
    };
}

/// A layout as the rows of a matrix, if heads lie side by side: tokens, features, and elements from a token to the next.
fn as_matrix(layout: Layout, name: &'static str) -> Result<(usize, usize, usize)> {
    let Layout { tokens, heads, head_dim, token_stride, head_stride } = layout;
    if heads > 1 && head_stride != head_dim {
        return Err(Error::unsupported(
            name,
            "heads side by side",
            format_args!("heads {head_stride} elements apart"),
        ));
    }
    let features = heads.saturating_mul(head_dim);
    // The stride of a single row is never taken.
    Ok((tokens, features, if tokens > 1 { token_stride } else { features }))
}

fn check_matrix(layout: Layout, name: &'static str, rows: usize, cols: usize) -> Result<()> {
    let (tokens, features, _) = as_matrix(layout, name)?;
    if (tokens, features) != (rows, cols) {
        let expected = format_args!("{rows} tokens x {cols} out_features");
        return Err(Error::shape(name, expected, format_args!("{tokens} x {features}")));
    }
    Ok(())
}

impl<'a> TensorRef<'a> {
    common_methods!();

    /// The tensor as a matrix of its element type, if heads lie side by side and tokens do not overlap.
    pub(crate) fn matrix<T: ElementType>(&self, name: &'static str) -> Result<MatRef<'a, T>> {
        let (rows, cols, stride) = as_matrix(self.layout, name)?;
        MatRef::with_stride(elements(self.bytes), rows, cols, stride)
    }

    /// Whether it is a matrix of this size: the addend of an output.
    pub(crate) fn check_matrix(&self, name: &'static str, rows: usize, cols: usize) -> Result<()> {
        check_matrix(self.layout, name, rows, cols)
    }

    /// Elements from a row of the matrix to the next.
    pub(crate) fn matrix_stride(&self) -> usize {
        self.layout.token_stride
    }

    /// What bytes stand for; none for other elements.
    pub fn params(&self) -> Option<HeadParams<'a>> {
        self.params
    }

    /// The one quantizer of all bytes, whatever head they belong to; none for other elements.
    pub(crate) fn one_quantizer(&self, name: &'static str) -> Result<Option<QuantParams>> {
        let by = match self.params {
            None => return Ok(None),
            Some(HeadParams::All(params)) => return Ok(Some(params)),
            Some(HeadParams::PerHead([first, rest @ ..])) if rest.iter().all(|p| p == first) => {
                return Ok(Some(*first));
            }
            Some(HeadParams::PerHead(all)) => format!("{} by head", all.len()),
            Some(HeadParams::PerToken(all)) => format!("{} by token", all.len()),
        };
        Err(Error::unsupported(name, "one quantizer for all features", by))
    }

    /// As [`TensorRef::check`], and no token has a scale of its own.
    pub(crate) fn check_by_heads(&self, name: &'static str) -> Result<()> {
        self.check(name)?;
        if self.is_per_token() {
            return Err(Error::unsupported(
                name,
                "a quantizer for all, or for each head",
                "one for each token",
            ));
        }
        Ok(())
    }

    /// Of bytes, whether each token has a scale of its own.
    pub(crate) fn is_per_token(&self) -> bool {
        matches!(self.params, Some(HeadParams::PerToken(_)))
    }

    /// The scale of a token, beside that of its head: 1 where tokens have none.
    pub(crate) fn scale_of_token(&self, token: usize) -> f32 {
        match self.params {
            Some(HeadParams::PerToken(params)) => params[token].scale(),
            _ => 1.0,
        }
    }

    /// Of bytes, the largest real size of a step.
    pub(crate) fn largest_scale(&self) -> f32 {
        self.params.map_or(1.0, |params| params.largest_scale())
    }

    /// Scale and zero point of a head's bytes; 1 and 0 of other elements. Where tokens have scales the scale is 1.
    pub(crate) fn affine(&self, head: usize) -> (f32, i32) {
        self.params.map_or((1.0, 0), |params| (params.scale_of_head(head), params.zero_point(head)))
    }

    /// The bytes of one token's head.
    ///
    /// # Panics
    /// If there is no such token or head.
    #[inline]
    pub(crate) fn row(&self, token: usize, head: usize) -> &'a [u8] {
        assert!(token < self.layout.tokens && head < self.layout.heads);
        if self.layout.head_dim == 0 {
            return &[];
        }
        &self.bytes[token * self.token_stride() + head * self.head_stride()..][..self.row_bytes()]
    }

    /// Where the features of a token's head are, or would be if the tensor went on: beyond its end only to be prefetched.
    #[inline]
    pub(crate) fn at(&self, token: usize, head: usize) -> *const u8 {
        let byte =
            token.wrapping_mul(self.token_stride()).wrapping_add(head.wrapping_mul(self.head_stride()));
        self.bytes.as_ptr().wrapping_add(byte)
    }

    /// Whether the parameters are there where the element is a byte, one or one a head or token, and of its type.
    pub(crate) fn check(&self, name: &'static str) -> Result<()> {
        let shape = (self.layout.tokens, self.layout.heads);
        self.params.map_or(Ok(()), |params| params.check(name, shape, self.element))
    }
}

impl<'a> TensorMut<'a> {
    common_methods!();

    /// What bytes are to stand for; none for other elements.
    pub fn params(&self) -> Option<QuantParams> {
        self.params
    }

    /// The tensor for a shorter time.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut { bytes: self.bytes, ..*self }
    }

    /// Whether it is a matrix of this size.
    pub(crate) fn check_matrix(&self, name: &'static str, rows: usize, cols: usize) -> Result<()> {
        check_matrix(self.layout, name, rows, cols)
    }

    /// Elements from a row of the matrix to the next.
    pub(crate) fn matrix_stride(&self) -> usize {
        self.layout.token_stride
    }

    /// The first element.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Whether the parameters are of the type of the bytes.
    pub(crate) fn check(&self, name: &'static str) -> Result<()> {
        self.params.map_or(Ok(()), |params| HeadParams::All(params).check(name, (1, 1), self.element))
    }

    /// Whether real numbers can be written: to floats, or to bytes whose parameters are of their type.
    pub(crate) fn check_reals(&self, name: &'static str) -> Result<()> {
        if !(self.element.is_float() || self.element.is_quantized()) {
            return Err(Error::unsupported(name, "floats or bytes", self.element));
        }
        self.check(name)
    }
}

fn of_matrix(rows: usize, cols: usize, stride: usize) -> Layout {
    Layout { tokens: rows, heads: 1, head_dim: cols, token_stride: stride, head_stride: 0 }
}

impl<'a> TensorRef<'a> {
    fn of_mat<T: ElementType>(x: MatRef<'a, T>, params: Option<HeadParams<'a>>) -> Self {
        let layout = of_matrix(x.rows(), x.cols(), x.stride());
        Self { bytes: memory(x.data()), element: T::ELEMENT, layout, params }
    }

    fn of_heads<T: ElementType>(x: HeadsRef<'a, T>, params: Option<HeadParams<'a>>) -> Self {
        Self { bytes: memory(x.data()), element: T::ELEMENT, layout: x.layout(), params }
    }
}

impl<'a> TensorMut<'a> {
    fn of_mat<T: ElementType>(y: MatMut<'a, T>, params: Option<QuantParams>) -> Self {
        let layout = of_matrix(y.rows(), y.cols(), y.stride());
        Self { bytes: memory_mut(y.into_data()), element: T::ELEMENT, layout, params }
    }

    fn of_heads<T: ElementType>(y: HeadsMut<'a, T>, params: Option<QuantParams>) -> Self {
        let layout = y.layout();
        Self { bytes: memory_mut(y.into_data()), element: T::ELEMENT, layout, params }
    }
}

/// Reals stand for themselves.
macro_rules! reals { ($($t:ty),*) => { $(
    impl<'a> From<MatRef<'a, $t>> for TensorRef<'a> {
        fn from(x: MatRef<'a, $t>) -> Self {
            Self::of_mat(x, None)
        }
    }
    impl<'a> From<HeadsRef<'a, $t>> for TensorRef<'a> {
        fn from(x: HeadsRef<'a, $t>) -> Self {
            Self::of_heads(x, None)
        }
    }
    impl<'a> From<MatMut<'a, $t>> for TensorMut<'a> {
        fn from(y: MatMut<'a, $t>) -> Self {
            Self::of_mat(y, None)
        }
    }
    impl<'a> From<HeadsMut<'a, $t>> for TensorMut<'a> {
        fn from(y: HeadsMut<'a, $t>) -> Self {
            Self::of_heads(y, None)
        }
    }
)* } }
reals!(f32, bf16, f16);

/// Exact sums.
impl<'a> From<MatMut<'a, i32>> for TensorMut<'a> {
    fn from(y: MatMut<'a, i32>) -> Self {
        Self::of_mat(y, None)
    }
}

/// Bytes stand for what their parameters say.
macro_rules! bytes { ($($t:ty),*) => { $(
    impl<'a> From<(MatRef<'a, $t>, QuantParams)> for TensorRef<'a> {
        fn from((x, params): (MatRef<'a, $t>, QuantParams)) -> Self {
            Self::of_mat(x, Some(params.into()))
        }
    }
    impl<'a, P: Into<HeadParams<'a>>> From<(HeadsRef<'a, $t>, P)> for TensorRef<'a> {
        fn from((x, params): (HeadsRef<'a, $t>, P)) -> Self {
            Self::of_heads(x, Some(params.into()))
        }
    }
    impl<'a> From<(MatMut<'a, $t>, QuantParams)> for TensorMut<'a> {
        fn from((y, params): (MatMut<'a, $t>, QuantParams)) -> Self {
            Self::of_mat(y, Some(params))
        }
    }
    impl<'a> From<(HeadsMut<'a, $t>, QuantParams)> for TensorMut<'a> {
        fn from((y, params): (HeadsMut<'a, $t>, QuantParams)) -> Self {
            Self::of_heads(y, Some(params))
        }
    }
)* } }
bytes!(u8, i8);
