//! The caller's tensors, as tasks read and write them.

use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::params::QuantParams;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::kernels::attention::pack::{prefetch, prefetch_rows};
use crate::kernels::quantize;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::marker::PhantomData;

/// The most features of a head.
pub const MAX_HEAD_DIM: usize = 256;

/// What is prefetched while rows pass: memory that nobody has to be able to read.
#[derive(Clone, Copy)]
pub struct Prefetch {
    /// For the first row; null for nothing.
    pub p: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
}

impl Prefetch {
    /// Nothing is prefetched.
    pub const NOTHING: Prefetch = Prefetch { p: std::ptr::null(), stride: 0 };
}

impl TensorRef<'_> {
    /// The bit to flip in each byte so that signed bytes become unsigned or unsigned ones signed, and what that adds to the zero
    /// point.
    pub(crate) fn flip(&self, to: Element) -> (u8, i32) {
        match (self.element(), to) {
            (Element::I8, Element::U8) => (0x80, 128),
            (Element::U8, Element::I8) => (0x80, -128),
            _ => (0, 0),
        }
    }

    /// The zero point of bytes made unsigned, or signed.
    pub(crate) fn zero(&self, head: usize, to: Element) -> i32 {
        self.affine(head).1 + self.flip(to).1
    }

    /// The rows of a head from a token on.
    pub(crate) fn ahead_of(&self, token: usize, head: usize) -> Prefetch {
        Prefetch { p: self.at(token, head), stride: self.token_stride() }
    }

    /// What some heads that take turns prefetch while one of them, the i-th of n, reads as many tokens as follow: together they
    /// prefetch the next tokens, in the order in which they lie.
    pub(crate) fn next_tokens(
        &self,
        token: usize,
        tokens: usize,
        head: usize,
        (i, n): (usize, usize),
    ) -> Prefetch {
        let row = self.row_bytes();
        if n * row != self.token_stride() || self.head_stride() != row {
            // Other things lie between, or heads far apart.
            return self.ahead_of(token, head);
        }
        Prefetch { p: self.at(token, head - i).wrapping_add(i * tokens * row), stride: row }
    }

    /// Prefetches the row of a token, if there is one.
    pub(crate) fn prefetch(&self, token: usize, head: usize) {
        prefetch(self.at(token, head), self.row_bytes());
    }

    /// Prefetches the rows of some neighbouring tokens, if there are any.
    pub(crate) fn prefetch_rows(&self, token: usize, tokens: usize, head: usize) {
        prefetch_rows(self.at(token, head), (tokens, self.token_stride()), self.row_bytes());
    }
}

/// A tensor `[tokens, heads, head_dim]` that tasks write, each row by one of them.
pub struct SharedTensor<'a> {
    p: *mut u8,
    element: Element,
    params: Option<QuantParams>,
    /// Bytes from one to the next.
    token: usize,
    head: usize,
    dim: usize,
    row_bytes: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: a pointer to the caller's output, borrowed for the call; tasks write disjoint rows.
unsafe impl Sync for SharedTensor<'_> {}

impl<'a> SharedTensor<'a> {
    /// The caller's tensor, of floats or of bytes with parameters.
    pub fn new(mut x: TensorMut<'a>) -> Self {
        let (element, params, dim) = (x.element(), x.params(), x.shape().2);
        let (token, head, row_bytes) = (x.token_stride(), x.head_stride(), x.row_bytes());
        let p = x.as_mut_ptr();
        Self { p, element, params, token, head, dim, row_bytes, borrowed: PhantomData }
    }

    /// What it is made of.
    pub fn element(&self) -> Element {
        self.element
    }

    /// How it is quantized, if it is of bytes.
    pub fn params(&self) -> Option<&QuantParams> {
        self.params.as_ref()
    }

    /// Bytes from one token to the next.
    pub fn token_stride(&self) -> usize {
        self.token
    }

    /// Where the features of a token's head are.
    pub fn at(&self, token: usize, head: usize) -> *mut u8 {
        self.p.wrapping_add(token * self.token + head * self.head)
    }

    /// Prefetches a row: rows of a head lie far apart, and stores that miss stop everything.
    pub fn prefetch(&self, token: usize, head: usize) {
        prefetch(self.at(token, head), self.row_bytes);
    }

    /// As [`SharedTensor::prefetch`], the rows of some neighbouring tokens.
    pub fn prefetch_rows(&self, token: usize, tokens: usize, head: usize) {
        prefetch_rows(self.at(token, head), (tokens, self.token), self.row_bytes);
    }

    /// A row of f32 as it lies, if the tensor is of f32.
    ///
    /// # Safety
    /// The tensor has such a row, and nobody else uses it.
    #[allow(clippy::mut_from_ref, reason = "each row has one task")]
    pub unsafe fn floats(&self, token: usize, head: usize) -> Option<&mut [f32]> {
        if self.element != Element::F32 {
            return None;
        }
        // SAFETY: the tensor's constructor proved that the row is there and overlaps no other; as the caller.
        Some(unsafe { std::slice::from_raw_parts_mut(self.at(token, head).cast(), self.dim) })
    }

    /// Rounds or quantizes the row of a token's head to what the tensor is made of.
    ///
    /// # Safety
    /// The tensor has such a row, and nobody else uses it.
    pub unsafe fn write(&self, token: usize, head: usize, row: &[f32], ctx: &Ctx) {
        let (p, n) = (self.at(token, head), self.dim);
        // SAFETY: the tensor's constructor proved that the row is there and overlaps no other; as the caller.
        unsafe {
            match (self.element, &self.params) {
                (Element::F32, _) => std::slice::from_raw_parts_mut(p.cast::<f32>(), n).copy_from_slice(row),
                (Element::Bf16, _) => {
                    std::slice::from_raw_parts_mut(p.cast::<bf16>(), n).convert_from_f32_slice(row);
                }
                (Element::F16, _) => {
                    std::slice::from_raw_parts_mut(p.cast::<f16>(), n).convert_from_f32_slice(row);
                }
                (_, Some(params)) => {
                    quantize::quantize(row, params, std::slice::from_raw_parts_mut(p, n), ctx);
                }
                (other, None) => unreachable!("a tensor of {other} is refused before"),
            }
        }
    }
}
