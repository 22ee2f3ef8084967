//! Matrix products of any size, by the micro-kernels of attention.

use crate::kernels::attention::LANES;
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::table::Multiply;

/// Some rows times some columns, by tiles of about equal height.
///
/// # Safety
/// As for [`Tile`], of so many rows and columns (a multiple of 16).
pub unsafe fn multiply_all(kernels: &Multiply, t: &Tile, rows: usize, columns: usize) {
    let tiles = rows.div_ceil(kernels.rows());
    let (low, mut higher, mut first) = (rows / tiles.max(1), rows % tiles.max(1), 0);
    for i in 0..tiles {
        let rows = first..first + low + usize::from(higher > 0);
        (first, higher) = (rows.end, higher.saturating_sub(1));
        let mut column = 0;
        for width in kernels.widths {
            while column + width.columns <= columns {
                let tile = Tile {
                    x: t.x.wrapping_add(rows.start * t.x_stride),
                    w: t.w.wrapping_add(4 * column),
                    init: if t.init.is_null() { t.init } else { t.init.wrapping_add(column) },
                    out: t.out.wrapping_add(rows.start * t.out_stride + 4 * column),
                    most: if t.most.is_null() { t.most } else { t.most.wrapping_add(LANES * rows.start) },
                    // The first rows prefetch: the others read the columns that they have brought.
                    ahead: if i > 0 || t.ahead.is_null() {
                        std::ptr::null()
                    } else {
                        t.ahead.wrapping_add(4 * column)
                    },
                    ..*t
                };
                // SAFETY: part of what the caller vouches for.
                unsafe { width.run[rows.len() - 1](&tile) };
                column += width.columns;
            }
        }
    }
}
