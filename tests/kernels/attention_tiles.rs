//! A sweep over the products of attention in the table, one call each, against plain loops: every tile, and the sums of few rows.

use super::attention_operands::*;
use crate::common::Rng;
use siskin::bf16;
use siskin::internal::kernels::attention::gather::{PADDING, Rows, Weights};
use siskin::internal::kernels::attention::multiply::Tile;
use siskin::internal::kernels::attention::{LANES, PANEL};
use std::ptr;

/// Whether a sum is what a plain loop over products says.
fn is_sum(kind: Kind, fill: Fill, got: u32, start: u32, terms: &[([u8; 4], [u8; 4])]) -> bool {
    match kind {
        Kind::Float => {
            let float = f32::from_le_bytes;
            let want =
                terms.iter().fold(f32::from_bits(start), |sum, &(x, w)| float(x).mul_add(float(w), sum));
            same(f32::from_bits(got), want)
        }
        Kind::Quad(_) => {
            let product = |(x, w): (u8, u8)| i32::from(x) * kind.column(w);
            let quad = |(x, w): &([u8; 4], [u8; 4])| x.iter().copied().zip(*w).map(product).sum::<i32>();
            got as i32 == terms.iter().fold(start as i32, |sum, term| sum.wrapping_add(quad(term)))
        }
        Kind::Pair => {
            let half = |w: [u8; 4], i: usize| bf16::from_le_bytes([w[2 * i], w[2 * i + 1]]).to_f64();
            let products = terms.iter().flat_map(|&(x, w)| [0, 1].map(|i| half(x, i) * half(w, i)));
            let start = f64::from(f32::from_bits(start));
            let (mut want, mut most, mut n) = (start, start.abs(), 1);
            for product in products {
                (want, most, n) = (want + product, most + product.abs(), n + 1);
            }
            let got = f64::from(f32::from_bits(got));
            // Each addition rounds a partial sum once, by half a unit at the most.
            if fill == Fill::Small { got == want } else { (got - want).abs() <= f64::from(n) * most * 6e-8 }
        }
    }
}

/// Where there is nothing to be read: only a prefetch may go there.
fn nowhere(r: &mut Rng) -> *const u8 {
    if r.below(2) == 0 { ptr::null() } else { ptr::without_provenance(64 + r.below(4096)) }
}

/// Mode 0: from nothing; 1: on from what is there; 2, of integers: from a number for each column.
#[test]
fn tiles() {
    let mut r = Rng::new(71);
    for (kernel, kind) in kernels("tiles") {
        for (width, rows) in kernel.widths.iter().flat_map(|w| (1..=w.run.len()).map(move |rows| (w, rows))) {
            assert_eq!(width.run.len(), kernel.rows(), "{}", kernel.name);
            let columns = width.columns;
            for (steps, fill) in STEPS.iter().flat_map(|&s| FILLS.map(|fill| (s, fill))) {
                for mode in 0..if kind.is_quad() { 3 } else { 2 } {
                    if leaves_out(&mut r) {
                        continue;
                    }
                    let (x_gap, w_gap, out_gap) = (gap(&mut r), gap(&mut r), gap(&mut r) / 4);
                    let x = Table::new(rows, steps, x_gap, |_, _| word(&mut r, kind, fill, true));
                    let w = Table::new(steps, columns, w_gap, |_, _| word(&mut r, kind, fill, false));
                    let mut start = || match kind {
                        Kind::Quad(_) => r.next() as u32,
                        _ if fill == Fill::Small => (r.below(200) as f32 - 100.0).to_bits(),
                        _ => r.float(-1.0, 1.0).to_bits(),
                    };
                    let mut out = Sums::new(rows, columns, columns + out_gap, &mut start);
                    let init: Vec<i32> = (0..columns).map(|_| start() as i32).collect();
                    // NaN and infinities are among the bits of integer sums.
                    let finds = kernel.finds_most && r.below(2) == 0;
                    let lanes: Vec<u32> = (0..rows * LANES).map(|_| r.float(-2.0, 2.0).to_bits()).collect();
                    let mut lane = lanes.iter().copied();
                    let mut most = Sums::new(rows, LANES, LANES, || lane.next().unwrap_or(POISON));
                    let before: Vec<Vec<u32>> = (0..rows).map(|m| out.row(m).to_vec()).collect();
                    // SAFETY: the tier is supported, and everything has the lengths that the tile names.
                    unsafe {
                        width.run[rows - 1](&Tile {
                            x: x.bytes.as_ptr(),
                            x_stride: x.stride,
                            w: w.bytes.as_ptr(),
                            w_stride: w.stride,
                            steps,
                            init: if mode == 2 { init.as_ptr() } else { ptr::null() },
                            out: out.p(),
                            out_stride: 4 * out.stride,
                            resume: mode == 1,
                            most: if finds { most.p().cast() } else { ptr::null_mut() },
                            ahead: nowhere(&mut r),
                            ahead_stride: 4 * columns,
                        });
                    }
                    let case = format!("{} {rows} x {columns} x {steps} mode {mode} {fill:?}", kernel.name);
                    for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
                        let terms: Vec<_> = (0..steps).map(|s| (x.word(m, s), w.word(s, n))).collect();
                        let start = [0, before[m][n], init[n] as u32][mode];
                        assert!(
                            is_sum(kind, fill, out.row(m)[n], start, &terms),
                            "{case}: row {m}, column {n}"
                        );
                    }
                    assert!(out.is_fenced() && most.is_fenced(), "{case}: wrote too far");
                    for m in 0..rows {
                        let largest = |sums: &[u32]| {
                            sums.iter().map(|&sum| f32::from_bits(sum)).fold(f32::NEG_INFINITY, f32::max)
                        };
                        let old = largest(&lanes[m * LANES..][..LANES]);
                        let want = if finds { old.max(largest(out.row(m))) } else { old };
                        assert_eq!(largest(most.row(m)), want, "{case}: the largest of row {m}");
                        assert!(!most.row(m).iter().any(|&lane| f32::from_bits(lane).is_nan()), "{case}");
                    }
                }
            }
        }
    }
}

/// All columns of a driver are a multiple of the narrowest tile, and of 16.
#[test]
fn widths_reach_every_number_of_columns() {
    for (kernel, kind) in kernels("widths_reach_every_number_of_columns") {
        let columns: Vec<usize> = kernel.widths.iter().map(|w| w.columns).collect();
        assert!(columns.is_sorted_by(|a, b| a > b && a % b == 0), "{} {columns:?}", kernel.name);
        assert_eq!(LANES % columns[columns.len() - 1], 0, "{} {columns:?}", kernel.name);
        assert_eq!(kernel.context_columns % kind.elements(), 0, "{}", kernel.name);
        assert_eq!(PANEL % columns[0], 0, "{} {columns:?}", kernel.name);
    }
}

/// The sums of few rows: those of the tile of all rows, in which all other words are 0.
#[test]
fn gathers() {
    let mut r = Rng::new(72);
    for (kernel, kind) in kernels("gathers") {
        let columns = [16, 32, 48, 64, 80, 112, 128, 144];
        for (columns, rows) in columns.into_iter().flat_map(|c| STEPS.map(|rows| (c, rows))) {
            for density in [0, 1, 3, 10] {
                if leaves_out(&mut r) {
                    continue;
                }
                let fill = if kind.is_quad() { FILLS[r.below(3)] } else { FILLS[r.below(2)] };
                let v_gap = gap(&mut r);
                let v = Table::new(rows, columns, v_gap, |_, _| word(&mut r, kind, fill, false));
                let words = Table::new(1, rows, 4, |_, _| {
                    if r.below(10) < density { word(&mut r, kind, fill, true) } else { [0; 4] }
                });
                let places: Vec<u32> =
                    (0..rows as u32).filter(|&i| words.word(0, i as usize) != [0; 4]).collect();
                let values: Vec<u32> =
                    places.iter().map(|&i| u32::from_le_bytes(words.word(0, i as usize))).collect();
                let count = places.len();
                let padded = |list: Vec<u32>| [list, vec![0; PADDING]].concat();
                let (places, values) = (padded(places), padded(values));
                let mut want = Sums::new(1, columns, columns, || POISON);
                let mut got = Sums::new(1, columns, columns, || POISON);
                // SAFETY: the tier is supported; all rows and columns are there.
                unsafe {
                    let tile = Tile {
                        x: words.bytes.as_ptr(),
                        x_stride: 0,
                        w: v.bytes.as_ptr(),
                        w_stride: v.stride,
                        steps: rows,
                        init: ptr::null(),
                        out: want.p(),
                        out_stride: 0,
                        resume: false,
                        most: ptr::null_mut(),
                        ahead: ptr::null(),
                        ahead_stride: 0,
                    };
                    multiply_row(kernel, &tile, columns);
                    (kernel.gather)(&Rows {
                        count,
                        places: places.as_ptr(),
                        values: values.as_ptr(),
                        v: v.bytes.as_ptr(),
                        stride: v.stride,
                        columns,
                        out: got.p().cast(),
                    });
                }
                let case = format!("{} {count} of {rows} rows x {columns} {fill:?}", kernel.name);
                assert_eq!(got.row(0), want.row(0), "{case}");
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}

/// Rows of few words each, with v: the sums of the tile that takes all words.
#[test]
fn gathers_of_rows() {
    let mut r = Rng::new(81);
    for (kernel, kind) in kernels("gathers_of_rows") {
        for (columns, words) in [16, 64, 80, 128].into_iter().flat_map(|c| STEPS.map(|words| (c, words))) {
            for rows in [1, 2, 7] {
                if leaves_out(&mut r) {
                    continue;
                }
                let fill = if kind.is_quad() { FILLS[r.below(3)] } else { FILLS[r.below(2)] };
                let v = Table::new(words, columns, gap(&mut r), |_, _| word(&mut r, kind, fill, false));
                let x = Table::new(rows, words, gap(&mut r), |row, _| {
                    if r.below(10) < [1, 10, 0, 3][row % 4] { word(&mut r, kind, fill, true) } else { [0; 4] }
                });
                let mut want = Sums::new(rows, columns, columns, || POISON);
                let mut got = Sums::new(rows, columns, columns, || POISON);
                // SAFETY: the tier is supported; all rows and columns are there.
                unsafe {
                    for row in 0..rows {
                        let tile = Tile {
                            x: x.bytes.as_ptr().add(row * x.stride),
                            x_stride: 0,
                            w: v.bytes.as_ptr(),
                            w_stride: v.stride,
                            steps: words,
                            init: ptr::null(),
                            out: want.p().add(row * 4 * want.stride),
                            out_stride: 0,
                            resume: false,
                            most: ptr::null_mut(),
                            ahead: ptr::null(),
                            ahead_stride: 0,
                        };
                        multiply_row(kernel, &tile, columns);
                    }
                    (kernel.gather_rows)(&Weights {
                        rows,
                        x: x.bytes.as_ptr(),
                        x_stride: x.stride,
                        words,
                        v: v.bytes.as_ptr(),
                        stride: v.stride,
                        columns,
                        out: got.p().cast(),
                    });
                }
                let case = format!("{} {rows} rows of {words} words x {columns} {fill:?}", kernel.name);
                for row in 0..rows {
                    assert_eq!(got.row(row), want.row(row), "{case}: row {row}");
                }
                assert!(got.is_fenced(), "{case}: wrote too far");
            }
        }
    }
}
