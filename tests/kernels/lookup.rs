//! Looking x up in registers, against loops over the entries: every density, rows of x that end where the next byte kills the
//! process, groups of fewer rows than their height and of no entries, and bytes at their extremes.

use crate::common::{Rng, cases, isas, serial, tiers};
use crate::guard::{Guarded, Side};
use siskin::internal::buffer::memory;
use siskin::internal::kernels::few::STRIDE;
use siskin::internal::kernels::lookup::{Call, Chunk, ENTRIES, PADDING, WINDOW, WINDOWS, cut};
use siskin::internal::kernels::sparse::Group;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{MatMut, MatRef, Scratch};

const POISON: i32 = 0x5aa5_5aa5;
const DENSITIES: [usize; 7] = [500, 300, 200, 100, 50, 10, 5];
const FEATURES: [usize; 13] = [64, 65, 100, 127, 128, 255, 256, 257, 300, 511, 513, 4096, 65_536];

/// Ascending columns, so many of 1000, four to an entry, the last repeated where one lacks.
fn columns(r: &mut Rng, features: usize, density: usize) -> Vec<u16> {
    let mut all: Vec<u16> = (0..features).filter(|_| r.below(1000) < density).map(|c| c as u16).collect();
    if r.below(4) == 0 && all.last() != Some(&((features - 1) as u16)) {
        all.push((features - 1) as u16);
    }
    if let Some(&last) = all.last() {
        all.resize(all.len().next_multiple_of(4), last);
    }
    all
}

#[test]
fn chunks_name_every_column() {
    let mut r = Rng::new(1);
    for features in FEATURES {
        for density in DENSITIES {
            let columns = columns(&mut r, features, density);
            let (mut chunks, mut places) = (Vec::<Chunk>::new(), vec![]);
            cut(&columns, features, &mut chunks, &mut places);
            assert_eq!(places.len(), columns.len());
            let mut at = 0;
            for chunk in &chunks {
                let n = usize::from(chunk.entries);
                assert!((1..=ENTRIES).contains(&n));
                assert!(chunk.windows.iter().all(|&w| usize::from(w) + WINDOW <= features));
                for i in at..at + 4 * n {
                    let (window, column) = (usize::from(places[i]) / WINDOW, usize::from(places[i]) % WINDOW);
                    assert!(window < WINDOWS);
                    assert_eq!(usize::from(chunk.windows[window]) + column, usize::from(columns[i]));
                }
                at += 4 * n;
            }
            assert_eq!(at, columns.len());
        }
    }
}

#[test]
fn lookup_kernels() {
    let mut r = Rng::new(2);
    for tier in tiers("lookup_kernels") {
        let Some(lookup) = tier.bytes.lookup else { continue };
        for kernel in lookup.kernels.as_flattened() {
            let (height, tokens) = (kernel.rows, kernel.tokens);
            for round in 0..cases(100) as usize {
                let (features, density) =
                    (FEATURES[round % FEATURES.len()], DENSITIES[round % DENSITIES.len()]);
                let first_row = [0, 64][r.below(2)];
                let (mut groups, mut chunks, mut places) = (vec![], vec![], vec![]);
                let (mut all, mut row) = (vec![], first_row);
                for g in 0..4 {
                    let own = if g == round % 5 { vec![] } else { columns(&mut r, features, density) };
                    let rows = if r.below(3) == 0 { 1 + r.below(height) } else { height };
                    let (start, len) = ((all.len() / 4) as u32, (own.len() / 4) as u32);
                    groups.push(Group { row: row as u32, rows: rows as u32, start, len, base: 0 });
                    cut(&own, features, &mut chunks, &mut places);
                    all.extend(own);
                    row += rows;
                }
                let stride = features + [0, 1, 64][r.below(3)];
                let mut x = r.bytes((tokens - 1) * stride + features);
                let mut weights = r.signed(all.len() * height);
                if round % 5 == 3 {
                    x.iter_mut().for_each(|b| *b = 255 * (*b & 1));
                    weights.iter_mut().for_each(|b| *b = if *b < 0 { -128 } else { 127 });
                }
                // What lies beyond may be anything.
                weights.extend(r.signed(PADDING));
                places.extend(r.bytes(PADDING));
                let init: Vec<i32> = (0..row).map(|_| r.next() as i32).collect();
                for side in [Side::Front, Side::Back] {
                    let (xs, ws) = (Guarded::of(&x, side), Guarded::of(memory(&weights), side));
                    let (ps, is) = (Guarded::of(&places, side), Guarded::of(&init, side));
                    let call = Call {
                        groups: &groups,
                        chunks: &chunks,
                        places: ps.slice_like(&places),
                        weights: ws.slice(weights.len()),
                        x: xs.slice_like(&x),
                        stride,
                        init: is.slice_like(&init),
                        first_row,
                    };
                    let mut got = vec![POISON; tokens * STRIDE];
                    // SAFETY: the tier is supported; chunks are those of the groups' entries, for rows of so many features.
                    unsafe { (kernel.spill)(&call, got.as_mut_ptr()) };
                    let mut want = vec![POISON; tokens * STRIDE];
                    for g in &groups {
                        for (t, row) in (0..tokens).flat_map(|t| (0..g.rows as usize).map(move |r| (t, r))) {
                            let mut sum = init[g.row as usize + row];
                            for i in 4 * g.start as usize..4 * (g.start + g.len) as usize {
                                let w = weights[(i / 4 * height + row) * 4 + i % 4];
                                let x = x[t * stride + usize::from(all[i])];
                                sum = sum.wrapping_add(i32::from(w) * i32::from(x));
                            }
                            want[t * STRIDE + g.row as usize + row - first_row] = sum;
                        }
                    }
                    assert_eq!(got, want, "{} {features} {density}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn rows_of_a_panel() {
    let mut r = Rng::new(3);
    for tier in tiers("rows_of_a_panel") {
        let Some(lookup) = tier.bytes.lookup else { continue };
        for features in [64, 65, 79, 80, 81, 300] {
            let panel = r.bytes(4 * features);
            let stride = features.next_multiple_of(16) + [0, 16][r.below(2)];
            let from = Guarded::of(&panel, Side::Back);
            let mut to = Guarded::new(3 * stride + features.next_multiple_of(16), Side::Back);
            let rows = to.slice_mut::<u8>(3 * stride + features.next_multiple_of(16));
            // SAFETY: the tier is supported; the panel has the features, and there is room for four rows.
            unsafe { (lookup.rows)(from.slice_like(&panel).as_ptr(), features, rows.as_mut_ptr(), stride) };
            for (t, f) in (0..4).flat_map(|t| (0..features).map(move |f| (t, f))) {
                assert_eq!(rows[t * stride + f], panel[4 * f + t]);
            }
        }
    }
}

/// Layers of one to five tokens, of every tier the same, also where rows are too short or too long to be looked up.
#[test]
fn few_tokens_of_layers() {
    let mut r = Rng::new(4);
    let isas = isas("few_tokens_of_layers");
    let p = QuantParams::u8(0.01, 100).unwrap();
    let mut scratches: Vec<Scratch> = isas.iter().map(|_| Scratch::new()).collect();
    for (round, k) in [1, 3, 4, 63, 64, 65, 255, 256, 257, 300, 511, 512, 513, 4096, 65_536, 65_793]
        .into_iter()
        .flat_map(|k| [k; 3])
        .enumerate()
    {
        let block = [(4, 1), (1, 1), (8, 2), (3, 1)][round % 4];
        let n = [1, 6, 67, 130][round / 2 % 4];
        let density = DENSITIES[round % DENSITIES.len()];
        let mut w = vec![0i8; n * k];
        for at in (0..n.div_ceil(block.0)).flat_map(|i| (0..k.div_ceil(block.1)).map(move |j| (i, j))) {
            if r.below(1000) < density {
                for (row, column) in (0..block.0).flat_map(|i| (0..block.1).map(move |j| (i, j))) {
                    let (row, column) = (at.0 * block.0 + row, at.1 * block.1 + column);
                    if row < n && column < k {
                        w[row * k + column] = if round % 3 == 0 { -128 } else { r.byte() as i8 };
                    }
                }
            }
        }
        let w = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), BlockShape::new(block.0, block.1).unwrap());
        let w = w.unwrap();
        for m in 1..=5 {
            let x = if round % 3 == 0 { vec![255; m * k] } else { r.bytes(m * k) };
            let mut first: Option<Vec<i32>> = None;
            for (&isa, scratch) in isas.iter().zip(&mut scratches) {
                let ctx = serial(isa);
                let layer = Linear::sparse(&w).keep_sparse().build(&ctx).unwrap();
                let mut y = vec![0i32; m * n];
                let input = (MatRef::new(&x, m, k).unwrap(), p);
                layer
                    .forward(input, Epilogue::new(), MatMut::new(&mut y, m, n).unwrap(), &ctx, scratch)
                    .unwrap();
                assert_eq!(*first.get_or_insert_with(|| y.clone()), y, "{isa} {m} x {k} x {n} {block:?}");
            }
        }
    }
}
