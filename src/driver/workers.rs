//! Workers that take turns at the tasks of a call, and the memory that they work in.

use crate::base::buffer::Buffer;
use crate::base::ctx::Ctx;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Plain numbers, and structs of nothing else.
///
/// # Safety
/// Any bytes are a value, and no byte of a value is padding.
pub unsafe trait Plain: Copy {}

// SAFETY: any bytes are such a number, which has no padding.
unsafe impl Plain for u32 {}
// SAFETY: any bytes are such a number, which has no padding.
unsafe impl Plain for u64 {}
// SAFETY: any bytes are such a number, which has no padding.
unsafe impl Plain for i64 {}
// SAFETY: any bytes are such a number, which has no padding.
unsafe impl Plain for usize {}

/// Bytes that begin on a cache line, as values of another type: as many as there are whole ones.
pub fn as_plain<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: any bytes are values of such a type, and any values are bytes.
    unsafe { bytes.align_to_mut().1 }
}

/// Room for `n` parts of `each` bytes; false if there is not so much memory.
#[must_use]
pub fn grow(buffer: &mut Buffer, n: usize, each: usize) -> bool {
    n.checked_mul(each).is_some_and(|bytes| buffer.try_grow(bytes))
}

/// What [`carve`] needs for parts of so many bytes.
pub fn carved<const N: usize>(parts: [usize; N]) -> usize {
    parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.next_multiple_of(64)))
}

/// Cuts memory into parts of at least so many bytes, each of which is whole cache lines.
pub fn carve<const N: usize>(bytes: &mut [u8], parts: [usize; N]) -> [&mut [u8]; N] {
    let mut rest = bytes;
    parts.map(|part| {
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(part.next_multiple_of(64));
        rest = behind;
        part
    })
}

/// Memory that all tasks of a call see. They touch disjoint parts of it, or read only.
#[derive(Clone, Copy)]
pub struct Shared(*mut u8);

// SAFETY: a pointer; what is done with it is vouched for where it is done.
unsafe impl Sync for Shared {}

impl Shared {
    /// Memory that is borrowed for as long as tasks run.
    pub fn new<T>(memory: &mut [T]) -> Self {
        Self(memory.as_mut_ptr().cast())
    }

    /// What is so many bytes from the beginning.
    pub fn at<T>(&self, byte: usize) -> *mut T {
        self.0.wrapping_add(byte).cast()
    }
}

/// What a worker does with its memory and its turns.
type Run<'a> = dyn Fn(&mut [u8], &mut dyn Iterator<Item = usize>) + Sync + 'a;

/// Some workers, each with memory of its own.
pub struct Workers<'a> {
    ctx: &'a Ctx,
    count: usize,
    each: usize,
    memory: &'a mut [u8],
}

impl<'a> Workers<'a> {
    /// So many, with `each` bytes for each; none if there is not so much memory.
    pub fn new(ctx: &'a Ctx, count: usize, each: usize, memory: &'a mut Buffer) -> Option<Self> {
        if !grow(memory, count, each) {
            return None;
        }
        Some(Self { ctx, count, each, memory: &mut memory.bytes_mut()[..count * each] })
    }

    /// Calls `run(memory, turns)` once for each worker that is needed: together, the turns are the tasks below `tasks`.
    pub fn share_out(&mut self, tasks: usize, run: &Run<'_>) {
        let next = AtomicUsize::new(0);
        let workers = self.count.min(tasks);
        self.ctx.for_each_chunk(workers, self.memory, self.each, &|_, bytes| {
            run(bytes, &mut turns(&next, tasks))
        });
    }
}

/// Tasks below n that no other worker took.
fn turns(next: &AtomicUsize, n: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let task = next.fetch_add(1, Ordering::Relaxed);
        (task < n).then_some(task)
    })
}
