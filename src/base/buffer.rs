//! Bytes that start on a cache line.

use crate::base::element::ElementType;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zero-initialized memory that starts on a cache line and only grows.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

#[allow(clippy::len_without_is_empty, reason = "nobody asks")]
impl Buffer {
    /// At least `bytes` bytes; what was in there stays.
    pub fn grow(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
    }

    /// Grows as [`Buffer::grow`] does; false if there is not so much memory.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.div_ceil(64).saturating_sub(self.lines.len());
        let there_is = self.lines.try_reserve(more).is_ok();
        if there_is {
            self.grow(bytes);
        }
        there_is
    }

    /// The first `n` floats, as they come: the memory keeps what was in it.
    pub fn floats(&mut self, n: usize) -> &mut [f32] {
        self.grow(4 * n);
        &mut as_f32(self.bytes_mut())[..n]
    }

    /// The first `n` integers, as they come: the memory keeps what was in it.
    pub fn integers(&mut self, n: usize) -> &mut [i32] {
        self.grow(4 * n);
        &mut as_i32(self.bytes_mut())[..n]
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.lines.len() * 64
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: lines are plain initialized bytes, 64 each.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: lines are plain initialized bytes, 64 each, any bytes are a line, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len()) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

/// Bytes as the 32-bit integers that lie in them. The start must be aligned and the length a multiple of 4, else what is
/// in front of the first and behind the last whole number is left out.
pub fn as_i32(bytes: &mut [u8]) -> &mut [i32] {
    // SAFETY: any bytes are i32s.
    unsafe { bytes.align_to_mut().1 }
}

/// Bytes as the 32-bit floats that lie in them; see [`as_i32`].
pub fn as_f32(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: any bytes are f32s.
    unsafe { bytes.align_to_mut().1 }
}

/// Bytes as the 16-bit integers that lie in them; see [`as_i32`].
pub fn as_u16(bytes: &mut [u8]) -> &mut [u16] {
    // SAFETY: any bytes are u16s.
    unsafe { bytes.align_to_mut().1 }
}

/// Bytes as the 64-bit integers that lie in them; see [`as_i32`].
pub fn as_u64(bytes: &mut [u8]) -> &mut [u64] {
    // SAFETY: any bytes are u64s.
    unsafe { bytes.align_to_mut().1 }
}

/// The memory of elements as bytes.
pub fn memory<T: ElementType>(x: &[T]) -> &[u8] {
    // SAFETY: the sealed element types are plain numbers, without padding.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// Bytes as the elements that they were made of.
///
/// # Panics
/// If the memory does not begin and end with an element.
pub fn elements<T: ElementType>(bytes: &[u8]) -> &[T] {
    // SAFETY: any bytes are some of the sealed element types, which are plain numbers.
    let (before, elements, after) = unsafe { bytes.align_to() };
    assert!(before.is_empty() && after.is_empty(), "bytes that are no elements");
    elements
}

/// The memory of elements as bytes.
pub fn memory_mut<T: ElementType>(x: &mut [T]) -> &mut [u8] {
    // SAFETY: the sealed element types are plain numbers, without padding, and any bytes are some of them; the only reference
    // to the memory is the one given up here.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}
