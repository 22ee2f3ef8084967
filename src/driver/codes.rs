//! Binary codes: which thread takes which rows and columns, and what stays in its cache.

use super::share;
use crate::base::buffer::{Buffer, as_u16, as_u64};
use crate::base::ctx::Ctx;
use crate::base::element::ElementType;
use crate::base::view::MatMut;
use crate::kernels::codes::table::{Codes, Distances, Width};
use crate::kernels::codes::{Search, Tile, offer, pack};
use crate::kernels::table::Tier;
use std::ops::Range;

/// Bytes of panels that stay in the second-level cache while rows pass: rows of the output are as long as can be.
const LONG: usize = 128 << 10;

/// Bytes of panels that stay in the first-level cache while rows pass. Also what the nearest are bounded by first, which is
/// worth its while only for so many.
const SHORT: usize = 16 << 10;

/// Rows whose neighbours a task keeps at a time.
const ROWS: usize = 256;

/// Codes as they are kept: so many words each, bits that no code has are 0.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// `[codes][words]`.
    pub words: &'a [u64],
    /// Codes.
    pub len: usize,
    /// Bits of a code, 1 to 256.
    pub bits: usize,
}

impl Operand<'_> {
    fn words_each(&self) -> usize {
        self.bits.div_ceil(64)
    }
}

/// Codes of as many bits, whose words are all there: panics if they are not.
fn check(a: &Operand<'_>, b: &Operand<'_>) {
    assert!(a.bits == b.bits && (1..=256).contains(&a.bits));
    assert!([a, b].iter().all(|codes| Some(codes.words.len()) == codes.len.checked_mul(codes.words_each())));
}

/// 16-bit integers.
pub trait Short: ElementType {}
impl Short for u16 {}
impl Short for i16 {}

/// Rows of an output that tasks share.
struct Rows<T> {
    first: *mut T,
    cols: usize,
    stride: usize,
}

// SAFETY: tasks touch disjoint parts of the rows.
unsafe impl<T> Sync for Rows<T> {}

impl<T: ElementType> Rows<T> {
    fn new(m: &mut MatMut<'_, T>) -> Self {
        Self { first: m.as_mut_ptr(), cols: m.cols(), stride: m.stride() }
    }

    /// # Safety
    /// There is such a row, and no other task has it.
    #[allow(clippy::mut_from_ref, reason = "each row has one task")]
    unsafe fn row(&self, r: usize) -> &mut [T] {
        // SAFETY: as the caller.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(r * self.stride), self.cols) }
    }
}

/// b in panels.
struct Panels<'a> {
    kernels: &'static Codes,
    width: &'static Width,
    words: &'a [u16],
    codes: usize,
}

impl<'a> Panels<'a> {
    fn new(b: Operand<'_>, threads: usize, ctx: &Ctx, memory: &'a mut Buffer) -> Self {
        let kernels = Tier::of(ctx.target()).codes;
        let width = kernels.width(b.bits);
        let (lanes, slices, words) = (kernels.lanes, width.slices, b.words_each());
        let panels = b.len.div_ceil(lanes);
        let all = panels * slices * lanes * 2;
        memory.grow(all);
        let tasks = if threads == 1 { 1 } else { threads.saturating_mul(4).min(panels) };
        let each = panels.div_ceil(tasks.max(1));
        let bytes = &mut memory.bytes_mut()[..all];
        let run = pack::pick(ctx.isa());
        ctx.for_each_chunk(tasks, bytes, each * slices * lanes * 2, &|i, to| {
            let from = (i * each * lanes * words).min(b.words.len());
            let codes = &b.words[from..b.words.len().min(from + each * lanes * words)];
            // SAFETY: the context's tier is supported.
            unsafe { run(codes, words, slices, lanes, as_u16(to)) };
        });
        Self { kernels, width, words: as_u16(bytes), codes: b.len }
    }

    fn len(&self) -> usize {
        self.codes.div_ceil(self.kernels.lanes)
    }

    /// Ranges of panels of at most so many bytes, each with its first code, how many there are, and where they lie.
    fn blocks(&self, panels: Range<usize>, bytes: usize) -> impl Iterator<Item = (usize, usize, *const u16)> {
        let (lanes, slices) = (self.kernels.lanes, self.width.slices);
        let most = (bytes / (2 * slices * lanes)).max(1);
        panels.clone().step_by(most).map(move |panel| {
            let (first, end) = (panel * lanes, (panel + most).min(panels.end) * lanes);
            (first, end.min(self.codes) - first, self.words[first * slices..].as_ptr())
        })
    }
}

/// Parts that rows and panels are shared out in: panels only where rows are too few.
fn grid(threads: usize, rows: usize, panels: usize) -> (usize, usize) {
    match threads {
        1 => (1, 1),
        threads => {
            let all = threads.saturating_mul(4);
            let parts = rows.min(all);
            let few = parts < threads;
            (parts, if few { all.div_ceil(parts.max(1)).min(panels) } else { 1 })
        }
    }
}

/// The distance of every code of a to every code of b, or `from` less twice the distance; the output is `[a.len, b.len]`, and
/// both have as many bits.
pub fn pairwise<T: Short>(
    a: Operand<'_>,
    b: Operand<'_>,
    from: Option<u16>,
    mut out: MatMut<'_, T>,
    ctx: &Ctx,
    memory: &mut Buffer,
) {
    check(&a, &b);
    assert!((out.rows(), out.cols()) == (a.len, b.len));
    if a.len == 0 || b.len == 0 {
        return;
    }
    let threads = ctx.threads();
    let b = Panels::new(b, threads, ctx, memory);
    let words = a.words_each();
    let width = b.width;
    let Distances { several, one } = if from.is_some() { width.less_twice } else { width.distances };
    let out = &Rows::new(&mut out);
    let (rows, columns) = grid(threads, a.len.div_ceil(width.rows), b.len());
    ctx.for_each(rows * columns, &|task| {
        let groups = share(a.len.div_ceil(width.rows), rows, task / columns);
        let end = (groups.end * width.rows).min(a.len);
        for (first, codes, panels) in b.blocks(share(b.len(), columns, task % columns), LONG) {
            let mut row = groups.start * width.rows;
            while row < end {
                let (run, height) = if row + width.rows <= end { (several, width.rows) } else { (one, 1) };
                // SAFETY: the tier is supported; the codes, the panels and this task's part of the output are there.
                unsafe {
                    run(&Tile {
                        a: a.words[row * words..].as_ptr(),
                        words,
                        b: panels,
                        codes,
                        out: out.first.add(row * out.stride + first).cast(),
                        stride: out.stride,
                        from: from.unwrap_or(0),
                    });
                }
                row += height;
            }
        }
    });
}

/// The nearest codes of b to each code of a, by distance and then by number, in rows of `indices` and `distances`, whose
/// columns behind the last code of b are all ones. Both have as many bits, b fewer codes than 2^32 - 1.
pub fn nearest(
    a: Operand<'_>,
    b: Operand<'_>,
    mut indices: MatMut<'_, u32>,
    mut distances: MatMut<'_, u16>,
    ctx: &Ctx,
    [memory, lists]: [&mut Buffer; 2],
) {
    check(&a, &b);
    assert!([indices.rows(), distances.rows()] == [a.len; 2] && indices.cols() == distances.cols());
    let k = indices.cols().min(b.len);
    if k == 0 || a.len == 0 {
        for row in 0..a.len {
            indices.row_mut(row).fill(u32::MAX);
            distances.row_mut(row).fill(u16::MAX);
        }
        return;
    }
    let threads = ctx.threads();
    let b = &Panels::new(b, threads, ctx, memory);
    let words = a.words_each();
    let (rows, columns) = grid(threads, a.len, b.len());
    let height = a.len.div_ceil(rows.max(1)).min(ROWS);
    lists.grow(8 * height * k * rows * columns);
    let to = &(Rows::new(&mut indices), Rows::new(&mut distances));
    ctx.for_each_chunk(rows * columns, lists.bytes_mut(), 8 * height * k, &|task, bytes| {
        let lists = as_u64(bytes);
        let (mine, panels) = (share(a.len, rows, task / columns), share(b.len(), columns, task % columns));
        for start in mine.clone().step_by(height) {
            let some = start..(start + height).min(mine.end);
            lists.fill(u64::MAX);
            for (first, codes, panels) in b.blocks(panels.clone(), SHORT) {
                for (row, best) in some.clone().zip(lists.chunks_exact_mut(k)) {
                    // SAFETY: the tier is supported; the code and the panels are there.
                    unsafe {
                        (b.width.nearest)(&Search {
                            a: a.words[row * words..].as_ptr(),
                            b: panels,
                            codes,
                            first: first as u32,
                            best: best.as_mut_ptr(),
                            k,
                        });
                    }
                }
            }
            if columns == 1 {
                for (row, best) in some.zip(lists.chunks_exact_mut(k)) {
                    // SAFETY: this task's row.
                    unsafe { write(best, to.0.row(row), to.1.row(row)) };
                }
            }
        }
    });
    if columns > 1 {
        let lists = as_u64(lists.bytes_mut());
        for row in 0..a.len {
            // The task that a row was given to, and which of its rows it is.
            let part = (0..rows).find(|&i| share(a.len, rows, i).contains(&row)).unwrap_or(0);
            let at = row - share(a.len, rows, part).start;
            let list = |column: usize| ((part * columns + column) * height + at) * k;
            for column in 1..columns {
                for i in 0..k {
                    let other = lists[list(column) + i];
                    offer(&mut lists[list(0)..][..k], other);
                }
            }
            write(&mut lists[list(0)..][..k], indices.row_mut(row), distances.row_mut(row));
        }
    }
}

/// A finished list, nearest first.
fn write(best: &mut [u64], indices: &mut [u32], distances: &mut [u16]) {
    best.sort_unstable();
    let there = best.len();
    for (i, best) in best.iter().enumerate() {
        (indices[i], distances[i]) = (*best as u32, (*best >> 32) as u16);
    }
    indices[there..].fill(u32::MAX);
    distances[there..].fill(u16::MAX);
}
