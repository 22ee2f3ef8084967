//! Borrowed tensors `[tokens, heads, head_dim]` with any strides, bounds proven once at construction.

use crate::base::element::ElementType;
use crate::base::error::{Error, Result};
use std::ops::Range;

/// Tokens, heads, features of a head, and elements from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub token_stride: usize,
    pub head_stride: usize,
}

impl Layout {
    /// Where the features of one token's head are; panics if there is no such token or head.
    fn features(&self, token: usize, head: usize) -> Range<usize> {
        let Layout { tokens, heads, head_dim, .. } = *self;
        assert!(token < tokens && head < heads, "token {token} of {tokens}, head {head} of {heads}");
        // Of no features there may be no data.
        let start = if head_dim == 0 { 0 } else { token * self.token_stride + head * self.head_stride };
        start..start + head_dim
    }

    /// Elements from the first to the last, or what is wrong.
    fn check(&self, len: usize) -> Result<()> {
        let Layout { tokens, heads, head_dim, token_stride, head_stride } = *self;
        if tokens == 0 || heads == 0 || head_dim == 0 {
            return Ok(());
        }
        let last = (tokens - 1)
            .checked_mul(token_stride)
            .and_then(|t| (heads - 1).checked_mul(head_stride)?.checked_add(t)?.checked_add(head_dim));
        match last {
            Some(needed) if needed <= len => Ok(()),
            Some(needed) => Err(Error::shape(
                "data",
                format_args!(
                    "at least {needed} elements for {tokens} tokens x {heads} heads x {head_dim}, strides \
                     {token_stride} and {head_stride}"
                ),
                len,
            )),
            None => Err(Error::shape(
                "strides",
                "a size that fits usize",
                format_args!("{tokens} tokens by {token_stride}, {heads} heads by {head_stride}"),
            )),
        }
    }

    /// Whether no element belongs to two places.
    fn check_disjoint(&self) -> Result<()> {
        let Layout { tokens, heads, head_dim, token_stride, head_stride } = *self;
        if tokens == 0 || heads == 0 {
            return Ok(());
        }
        let apart = |inner: usize, n: usize, outer: usize, m: usize| {
            let inner_ok = n <= 1 || inner >= head_dim;
            let extent =
                if n <= 1 { head_dim } else { (n - 1).saturating_mul(inner).saturating_add(head_dim) };
            inner_ok && (m <= 1 || outer >= extent)
        };
        if apart(head_stride, heads, token_stride, tokens) || apart(token_stride, tokens, head_stride, heads)
        {
            return Ok(());
        }
        Err(Error::shape(
            "strides",
            format_args!("heads of {head_dim} elements that do not overlap, to be written"),
            format_args!("token stride {token_stride}, head stride {head_stride}"),
        ))
    }
}

macro_rules! shape_methods {
    () => {
        /// Number of tokens.
        pub fn tokens(&self) -> usize {
            self.layout.tokens
        }
        /// Number of heads.
        pub fn heads(&self) -> usize {
            self.layout.heads
        }
        /// Features of a head.
        pub fn head_dim(&self) -> usize {
            self.layout.head_dim
        }
        pub(crate) fn layout(&self) -> Layout {
            self.layout
        }
    };
}

/// A borrowed tensor `[tokens, heads, head_dim]`: element (t, h, i) is `data[t * token_stride + h * head_stride + i]`.
///
/// A fused buffer `[tokens, 3, heads, head_dim]` is three of them: `token_stride` is `3 * heads * head_dim`, and k starts
/// `heads * head_dim` elements after q. `[heads, tokens, head_dim]` is one with `head_stride = tokens * head_dim`.
#[derive(Debug, Clone, Copy)]
pub struct HeadsRef<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T: ElementType> HeadsRef<'a, T> {
    /// Next to each other: `[tokens, heads, head_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` does not hold exactly `tokens * heads * head_dim` elements.
    pub fn new(data: &'a [T], tokens: usize, heads: usize, head_dim: usize) -> Result<Self> {
        let elements = tokens.checked_mul(heads).and_then(|n| n.checked_mul(head_dim));
        if elements != Some(data.len()) {
            let expected = format_args!("exactly {tokens} x {heads} x {head_dim} elements");
            return Err(Error::shape("data", expected, data.len()));
        }
        let token_stride = heads.saturating_mul(head_dim);
        Ok(Self { data, layout: Layout { tokens, heads, head_dim, token_stride, head_stride: head_dim } })
    }

    /// With strides in elements, 0 included: what is read may be read again.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` ends before the last element, or if the size overflows.
    pub fn with_strides(
        data: &'a [T],
        tokens: usize,
        heads: usize,
        head_dim: usize,
        token_stride: usize,
        head_stride: usize,
    ) -> Result<Self> {
        // A stride that is never taken is none.
        let token_stride = if tokens > 1 { token_stride } else { 0 };
        let head_stride = if heads > 1 { head_stride } else { 0 };
        let layout = Layout { tokens, heads, head_dim, token_stride, head_stride };
        layout.check(data.len())?;
        Ok(Self { data, layout })
    }

    shape_methods!();

    /// The features of one token's head.
    ///
    /// # Panics
    /// If there is no such token or head.
    pub fn head(&self, token: usize, head: usize) -> &'a [T] {
        &self.data[self.layout.features(token, head)]
    }

    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }
}

/// A mutably borrowed tensor `[tokens, heads, head_dim]`, as [`HeadsRef`]. With `head_stride = head_dim` heads are merged as
/// they are written: each token's row is the input of the output projection.
#[derive(Debug)]
pub struct HeadsMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

impl<'a, T: ElementType> HeadsMut<'a, T> {
    /// Next to each other: `[tokens, heads, head_dim]`.
    ///
    /// # Errors
    /// As [`HeadsRef::new`].
    pub fn new(data: &'a mut [T], tokens: usize, heads: usize, head_dim: usize) -> Result<Self> {
        let layout = HeadsRef::new(&*data, tokens, heads, head_dim)?.layout;
        Ok(Self { data, layout })
    }

    /// With strides in elements. What lies between is never written.
    ///
    /// # Errors
    /// As [`HeadsRef::with_strides`], and [`Error::Shape`] if two heads or tokens overlap.
    pub fn with_strides(
        data: &'a mut [T],
        tokens: usize,
        heads: usize,
        head_dim: usize,
        token_stride: usize,
        head_stride: usize,
    ) -> Result<Self> {
        let layout =
            HeadsRef::with_strides(&*data, tokens, heads, head_dim, token_stride, head_stride)?.layout;
        layout.check_disjoint()?;
        Ok(Self { data, layout })
    }

    shape_methods!();

    /// The features of one token's head.
    ///
    /// # Panics
    /// If there is no such token or head.
    pub fn head_mut(&mut self, token: usize, head: usize) -> &mut [T] {
        &mut self.data[self.layout.features(token, head)]
    }

    pub(crate) fn into_data(self) -> &'a mut [T] {
        self.data
    }
}
