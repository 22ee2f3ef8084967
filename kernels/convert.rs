//! Rows of floats from one format to another, and to the layouts of packed activations.
//!
//! ```text
//! widen:   to[i] = f32(from[i])                     exact; from f32, bfloat16, f16 or INT8
//! to_bf16: to[i] = bf16(f32(from[i]))               rounded to nearest even
//! ```

use super::dense::Storage;
use super::float_table::FloatTier;
use super::pack::Tokens;
use super::simd::Simd;
use crate::base::element::{Element, ElementType, Weight};
use crate::base::view::MatRef;

/// Converts so many elements from the first pointer to the second.
///
/// # Safety
/// The CPU has the tier; both pointers are valid for that many elements of their formats.
pub type Run = unsafe fn(*const u8, usize, *mut u8);

/// `n` elements stored as `W` to f32, exact.
#[inline(always)]
pub unsafe fn widen<S: Simd, W: Storage<S>>(from: *const u8, n: usize, to: *mut u8) {
    // SAFETY: the caller keeps the promises of `Run`; elements that do not fill a register are copied through arrays
    // of 64 bytes.
    unsafe {
        let bytes = W::BYTES / S::LANES;
        let whole = n / S::LANES * S::LANES;
        let mut i = 0;
        while i < whole {
            S::store(to.add(4 * i), W::load(from.add(bytes * i)));
            i += S::LANES;
        }
        if whole < n {
            let (mut input, mut output) = ([0u8; 64], [0u8; 64]);
            std::ptr::copy_nonoverlapping(from.add(bytes * whole), input.as_mut_ptr(), bytes * (n - whole));
            S::store(output.as_mut_ptr(), W::load(input.as_ptr()));
            std::ptr::copy_nonoverlapping(output.as_ptr(), to.add(4 * whole), 4 * (n - whole));
        }
    }
}

/// `n` elements stored as `W` to bfloat16, rounded to nearest even.
#[inline(always)]
pub unsafe fn to_bf16<S: Simd, W: Storage<S>>(from: *const u8, n: usize, to: *mut u8) {
    // SAFETY: the caller keeps the promises of `Run`; elements that do not fill a register are copied through arrays
    // of a register.
    unsafe {
        let bytes = W::BYTES / S::LANES;
        let whole = n / S::LANES * S::LANES;
        let mut i = 0;
        while i < whole {
            S::store_bf16(to.add(2 * i).cast(), S::as_f(W::load(from.add(bytes * i))));
            i += S::LANES;
        }
        if whole < n {
            let (mut input, mut output) = ([0u8; 64], [0u16; 16]);
            std::ptr::copy_nonoverlapping(from.add(bytes * whole), input.as_mut_ptr(), bytes * (n - whole));
            S::store_bf16(output.as_mut_ptr(), S::as_f(W::load(input.as_ptr())));
            std::ptr::copy_nonoverlapping(output.as_ptr().cast(), to.add(2 * whole), 2 * (n - whole));
        }
    }
}

/// Converts a row of floats to the bytes of packed activations of a float layout, with a tier that this CPU has.
pub fn row<T: Weight>(from: &[T], element: Element, to: &mut [u8], tier: &FloatTier) {
    let run = match (element, T::ELEMENT) {
        (Element::Bf16, Element::F32) => tier.to_bf16.f32,
        (Element::Bf16, Element::Bf16) => tier.to_bf16.bf16,
        (Element::Bf16, Element::F16) => tier.to_bf16.f16,
        (_, stored) => *tier.widen.of(stored),
    };
    assert!(to.len() >= element.bytes_of(from.len()));
    // SAFETY: the assert gives room; the caller vouches for the tier.
    unsafe { run(from.as_ptr().cast(), from.len(), to.as_mut_ptr()) }
}

/// Packs rows of 4-byte elements, or of pairs of 2-byte ones, unchanged into a K-major panel of 4 bytes a token.
pub fn pack_kmajor<T: ElementType>(rows: MatRef<'_, T>, panel: &mut [u8], width: usize, tier: &FloatTier) {
    let size = size_of::<T>();
    let words = rows.cols() * size / 4;
    let padded = words.next_multiple_of(4);
    assert!((rows.cols() * size).is_multiple_of(4) && (matches!(width, 1 | 4) || width.is_multiple_of(16)));
    assert!(rows.rows() <= width && panel.len() >= 4 * padded * width);
    // SAFETY: the view vouches for the rows, which are only read; the assert for the panel; the caller for the tier.
    unsafe {
        (tier.pack_kmajor)(&Tokens {
            rows: rows.as_ptr().cast_mut().cast(),
            stride: rows.stride() * size,
            tokens: rows.rows(),
            features: words,
            panel: panel.as_mut_ptr(),
            width,
            flip: 0,
            ahead: std::ptr::null(),
        });
    }
}
