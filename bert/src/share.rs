//! How work beside the kernels is shared out among threads: by rows, so that every row has the same bits at any number of them.

use siskin::{Ctx, MatMut};

/// Elements below which a task is not worth its turn.
const LEAST: usize = 1 << 14;

/// Rows of a task, of rows that take about so many elements each: several tasks for a thread, so that none waits long for another.
pub(crate) fn rows_of_task(rows: usize, elements: usize, ctx: &Ctx) -> usize {
    match ctx.threads() {
        1 => rows.max(1),
        threads => rows.div_ceil(4 * threads).max(LEAST.div_ceil(elements.max(1))),
    }
}

/// Calls `f(r, row r)` for each row of `y`, which takes about so many elements.
pub(crate) fn for_each_row(
    y: MatMut<'_, f32>,
    elements: usize,
    ctx: &Ctx,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let (rows, cols, stride) = (y.rows(), y.cols(), y.stride());
    if cols == 0 {
        return;
    }
    let each = rows_of_task(rows, elements, ctx);
    ctx.for_each_part(y.into_data(), each.saturating_mul(stride), &|i, part| {
        let first = i * each;
        for (r, row) in part.chunks_mut(stride).enumerate().take(rows.saturating_sub(first)) {
            f(first + r, &mut row[..cols]);
        }
    });
}
