//! Block-sparse matrices: the format, its checks, pruning.

use proptest::prelude::*;
use siskin::sparse::{BlockShape, Bsr, Norm, prune};
use siskin::{Error, MatRef};

fn block(rows: usize, cols: usize) -> BlockShape {
    BlockShape::new(rows, cols).unwrap()
}

/// The argument that an error names.
fn blamed<T: std::fmt::Debug>(result: siskin::Result<T>) -> &'static str {
    match result.expect_err("bad input was accepted") {
        Error::Shape { argument, .. } | Error::Value { argument, .. } => argument,
        Error::Index { argument, .. } | Error::Unsupported { argument, .. } => argument,
        other => panic!("{other}"),
    }
}

/// A matrix, mostly zeros, inside a larger buffer: (rows, cols, stride, data).
fn matrix() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>)> {
    (0..20_usize, 0..20_usize, 0..3_usize).prop_flat_map(|(rows, cols, gap)| {
        let value = prop_oneof![3 => Just(0.0), 1 => -4.0..4.0_f32];
        let stride = cols + gap;
        proptest::collection::vec(value, rows * stride).prop_map(move |mut data| {
            for row in data.chunks_mut(stride.max(1)) {
                row[cols..].fill(f32::NAN);
            }
            (rows, cols, stride, data)
        })
    })
}

fn packed(w: MatRef<'_, f32>) -> Vec<f32> {
    w.iter_rows().flatten().copied().collect()
}

proptest! {
    #[test]
    fn dense_there_and_back((rows, cols, stride, data) in matrix(), br in 1..7_usize, bc in 1..7_usize) {
        let w = MatRef::with_stride(&data, rows, cols, stride).unwrap();
        let sparse = Bsr::from_dense(w, block(br, bc)).unwrap();
        prop_assert_eq!(sparse.to_dense().unwrap(), packed(w));

        // No stored block is all zeros, and the parts pass their own checks.
        prop_assert!(sparse.values().chunks(br * bc).all(|b| b.iter().any(|&v| v != 0.0)));
        let parts = (sparse.indptr().to_vec(), sparse.indices().to_vec(), sparse.values().to_vec());
        let again = Bsr::from_parts((rows, cols), block(br, bc), parts.0, parts.1, parts.2);
        prop_assert_eq!(again.unwrap(), sparse);
    }

    #[test]
    fn permuting_block_rows_permutes_their_blocks((rows, cols, _, data) in matrix(), turn in 0..20_usize) {
        // Rows from the strided buffer without its gaps, cut to whole block rows of three.
        let rows = rows / 3 * 3;
        let data: Vec<f32> = data.into_iter().filter(|v| !v.is_nan()).take(rows * cols).collect();
        let mut turned = data.clone();
        turned.rotate_left(if rows == 0 { 0 } else { turn % (rows / 3) * 3 * cols });
        let before = Bsr::from_dense(MatRef::new(&data, rows, cols).unwrap(), block(3, 2)).unwrap();
        let after = Bsr::from_dense(MatRef::new(&turned, rows, cols).unwrap(), block(3, 2)).unwrap();
        for i in 0..rows / 3 {
            prop_assert_eq!(before.block_row((i + turn) % (rows / 3)), after.block_row(i));
        }
    }

    #[test]
    fn map_keeps_structure_and_padding((rows, cols, stride, data) in matrix(), br in 1..7_usize, bc in 1..7_usize) {
        let w = MatRef::with_stride(&data, rows, cols, stride).unwrap();
        let sparse = Bsr::from_dense(w, block(br, bc)).unwrap();
        // A map that moves zero shows padding that was mapped; the row it is given shows up in the value.
        let mapped = sparse.map(|r, v| (v * 8.0) as i32 + 1000 * (r as i32 + 1));
        let parts = (mapped.indptr().to_vec(), mapped.indices().to_vec(), mapped.values().to_vec());
        let checked = Bsr::from_parts((rows, cols), block(br, bc), parts.0, parts.1, parts.2).unwrap();
        prop_assert_eq!((checked.indptr(), checked.indices()), (sparse.indptr(), sparse.indices()));
        let nonzero = checked.values().iter().filter(|&&v| v != 0).count();
        prop_assert_eq!(nonzero, sparse.stored_values());
        for (k, &v) in checked.to_dense().unwrap().iter().enumerate().filter(|(_, v)| **v != 0) {
            let (r, c) = (k / cols, k % cols);
            prop_assert_eq!(v, (w.row(r)[c] * 8.0) as i32 + 1000 * (r as i32 + 1));
        }
    }

    #[test]
    fn pruning_keeps_exactly_the_heaviest(
        (rows, cols, stride, data) in matrix(),
        br in 1..5_usize,
        bc in 1..5_usize,
        sparsity in 0.0..1.0_f64,
        norm in prop_oneof![Just(Norm::L1), Just(Norm::L2), Just(Norm::Max)],
    ) {
        let w = MatRef::with_stride(&data, rows, cols, stride).unwrap();
        let weight = |i: usize, j: usize| {
            let values = (i * br..((i + 1) * br).min(rows))
                .flat_map(|r| w.row(r)[j * bc..((j + 1) * bc).min(cols)].iter().map(|&v| f64::from(v).abs()));
            match norm {
                Norm::L1 => values.sum(),
                Norm::L2 => values.fold(0.0, |s, v| s + v * v),
                Norm::Max => values.fold(0.0, f64::max),
            }
        };
        // The oracle: a stable sort of all blocks by weight alone.
        let (block_rows, block_cols) = (rows.div_ceil(br), cols.div_ceil(bc));
        let best = |blocks: Vec<(usize, usize)>| {
            let kept = (blocks.len() as f64 * (1.0 - sparsity)).round() as usize;
            let mut blocks = blocks;
            blocks.sort_by(|&a, &b| f64::total_cmp(&weight(b.0, b.1), &weight(a.0, a.1)));
            blocks.truncate(kept);
            blocks.sort();
            blocks
        };
        let all = |i: usize| (0..block_cols).map(move |j| (i, j));
        let stored = |w: &Bsr<f32>| -> Vec<_> {
            (0..w.block_rows()).flat_map(|i| w.block_row(i).0.iter().map(move |&j| (i, j as usize))).collect()
        };

        let global = prune::magnitude(w, block(br, bc), sparsity, norm).unwrap();
        prop_assert_eq!(stored(&global), best((0..block_rows).flat_map(all).collect()));
        let even = prune::magnitude_balanced(w, block(br, bc), sparsity, norm).unwrap();
        let expected: Vec<_> = (0..block_rows).flat_map(|i| best(all(i).collect())).collect();
        prop_assert_eq!(stored(&even), expected);

        // What is kept is kept exactly, what is not is zero.
        let dense = packed(w);
        for (k, v) in global.to_dense().unwrap().into_iter().enumerate() {
            let kept = stored(&global).contains(&(k / cols / br, k % cols / bc));
            prop_assert_eq!(v, if kept { dense[k] } else { 0.0 });
        }
    }
}

#[test]
fn pruning_nothing_keeps_zero_blocks() {
    let zeros = [0.0; 30];
    let w = prune::magnitude(MatRef::new(&zeros, 6, 5).unwrap(), BlockShape::B4X1, 0.0, Norm::L1).unwrap();
    assert_eq!((w.num_blocks(), w.values().len(), w.stored_values()), (10, 40, 30));
    assert_eq!(w.statistics().density(), 1.0);
}

#[test]
fn equal_blocks_are_kept_from_the_front() {
    let ones = [1.0; 12];
    let w = MatRef::new(&ones, 3, 4).unwrap();
    let global = prune::magnitude(w, BlockShape::B1X1, 0.5, Norm::Max).unwrap();
    assert_eq!((global.indptr(), global.indices()), (&[0, 4, 6, 6][..], &[0, 1, 2, 3, 0, 1][..]));
    let even = prune::magnitude_balanced(w, BlockShape::B1X1, 0.5, Norm::Max).unwrap();
    assert_eq!((even.indptr(), even.indices()), (&[0, 2, 4, 6][..], &[0, 1, 0, 1, 0, 1][..]));
}

#[test]
fn pruning_refuses_what_has_no_order() {
    let mut data = [1.0; 6];
    for sparsity in [-0.1, 1.0, 1.5, f64::NAN] {
        let w = MatRef::new(&data, 2, 3).unwrap();
        assert_eq!(blamed(prune::magnitude(w, BlockShape::B1X1, sparsity, Norm::L2)), "sparsity");
        assert_eq!(blamed(prune::magnitude_balanced(w, BlockShape::B1X1, sparsity, Norm::L2)), "sparsity");
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        data[5] = bad;
        let w = MatRef::new(&data, 2, 3).unwrap();
        let error = prune::magnitude(w, BlockShape::B1X1, 0.5, Norm::L2).unwrap_err();
        assert!(error.to_string().ends_with("at row 1, column 2"), "{error}");
        assert_eq!(blamed(prune::magnitude_balanced(w, BlockShape::B1X1, 0.5, Norm::L2)), "w");
    }
}

/// Parts of a 3x5 matrix of 2x2 blocks; three blocks, two of which reach over the edge.
#[derive(Clone)]
struct Parts {
    size: (usize, usize),
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

fn parts() -> Parts {
    let values = [[1., 2., 3., 4.], [5., 0., 6., 0.], [7., 8., 0., 0.]].concat();
    Parts { size: (3, 5), indptr: vec![0, 2, 3], indices: vec![0, 2, 1], values }
}

fn build(change: impl Fn(&mut Parts)) -> siskin::Result<Bsr<f32>> {
    let mut p = parts();
    change(&mut p);
    Bsr::from_parts(p.size, block(2, 2), p.indptr, p.indices, p.values)
}

#[test]
fn good_parts_are_what_they_say() {
    let w = build(|_| ()).unwrap();
    let dense = [[1., 2., 0., 0., 5.], [3., 4., 0., 0., 6.], [0., 0., 7., 8., 0.]].concat();
    assert_eq!(w.to_dense().unwrap(), dense);
    assert_eq!((w.rows(), w.cols(), w.block()), (3, 5, block(2, 2)));
    assert_eq!((w.block_rows(), w.block_cols(), w.num_blocks(), w.stored_values()), (2, 3, 3, 8));
    assert_eq!(w.block_row(1), (&[1][..], &[7., 8., 0., 0.][..]));
}

#[test]
fn bad_parts_are_refused() {
    assert_eq!(blamed(build(|p| p.indptr.push(3))), "indptr");
    assert_eq!(blamed(build(|p| p.indptr.clear())), "indptr");
    assert_eq!(blamed(build(|p| p.indptr[0] = 1)), "indptr");
    assert_eq!(blamed(build(|p| p.indptr[1] = 4)), "indptr");
    assert_eq!(blamed(build(|p| p.indptr[1] = usize::MAX)), "indptr");
    assert_eq!(blamed(build(|p| p.indptr[2] = 2)), "indptr");
    assert_eq!(blamed(build(|p| p.indptr[2] = 4)), "indptr");
    assert_eq!(blamed(build(|p| p.indices.swap(0, 1))), "indices");
    assert_eq!(blamed(build(|p| p.indices[1] = 0)), "indices");
    assert_eq!(blamed(build(|p| p.indices[1] = 3)), "indices");
    assert_eq!(blamed(build(|p| p.indices[2] = u32::MAX)), "indices");
    assert_eq!(blamed(build(|p| p.values.truncate(11))), "values");
    assert_eq!(blamed(build(|p| p.values.push(0.0))), "values");
    assert_eq!(blamed(build(|p| p.values[7] = 1.0)), "values");
    assert_eq!(blamed(build(|p| p.values[10] = f32::NAN)), "values");
    // With addresses of 32 bits no matrix has more block rows or columns than 32 bits number.
    if usize::BITS == 64 {
        assert_eq!(blamed(build(|p| p.size = (usize::MAX, 5))), "rows");
        assert_eq!(blamed(build(|p| p.size = (3, usize::MAX))), "cols");
    }
    assert!(matches!(build(|p| p.values[10] = 1.0), Err(Error::Index { position: 10, .. })));
}

#[cfg(target_pointer_width = "64")] // Sizes of 64 bits.
#[test]
fn sizes_that_overflow_are_refused() {
    let huge = block(1 << 40, 1 << 20);
    let one = Bsr::<u8>::from_parts((1 << 40, 1 << 40), huge, vec![0, 1], vec![0], vec![0]);
    assert_eq!(blamed(one), "values");
    let none = Bsr::<u8>::from_parts((1 << 40, 1 << 40), huge, vec![0, 0], vec![], vec![]).unwrap();
    assert_eq!(blamed(none.to_dense()), "rows");
    let overflow = Bsr::<u8>::from_parts((1, 1 << 40), block(1, 1 << 63), vec![0, 2], vec![0, 1], vec![]);
    assert_eq!(blamed(overflow), "values");
    let empty_rows = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    assert_eq!(blamed(Bsr::from_dense(empty_rows, BlockShape::B1X1)), "rows");
    assert_eq!(blamed(prune::magnitude(empty_rows, BlockShape::B1X1, 0.5, Norm::L1)), "rows");
}

#[test]
fn block_shapes_parse_and_refuse() {
    for shape in [BlockShape::B1X4, BlockShape::B16X4, block(3, 7)] {
        assert_eq!(shape.to_string().parse::<BlockShape>().unwrap(), shape);
    }
    for text in ["", "4", "4x", "x1", "0x4", "4x0", "4x1x1", "-4x1", "4 x 1", "99999999999999999999x1"] {
        assert_eq!(blamed(text.parse::<BlockShape>()), "block", "{text}");
    }
    assert_eq!(blamed(BlockShape::new(usize::MAX, 2)), "block");
}

#[test]
fn statistics_count() {
    let dense: [u8; 12] = [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let w = Bsr::from_dense(MatRef::new(&dense, 4, 3).unwrap(), BlockShape::B1X1).unwrap();
    let s = w.statistics();
    assert_eq!((s.density(), s.counts()), (4.0 / 12.0, &[3, 0, 1, 0][..]));
    assert_eq!((s.min(), s.mean(), s.max()), (0, 1.0, 3));
    assert_eq!(s.histogram(), [(0, 2), (1, 1), (3, 1)]);
    let percentiles = [0.0, 50.0, 75.0, 76.0, 100.0, f64::NAN, -5.0, 1e9];
    assert_eq!(percentiles.map(|p| s.percentile(p)), [0, 0, 1, 3, 3, 0, 0, 3]);

    let nothing = Bsr::from_dense(MatRef::<f32>::new(&[], 0, 7).unwrap(), BlockShape::B4X4).unwrap();
    let s = nothing.statistics();
    assert_eq!((s.min(), s.mean(), s.max(), s.percentile(50.0)), (0, 0.0, 0, 0));
}

/// Compressed rows are blocks of 1x1, with the same checks.
#[test]
fn compressed_rows() {
    let (indptr, indices, values) = (vec![0, 2, 2, 3], vec![1, 3, 0], vec![5_i8, -6, 7]);
    let w = Bsr::from_csr((3, 4), indptr.clone(), indices, values.clone()).unwrap();
    assert_eq!(w.to_dense().unwrap(), [0, 5, 0, -6, 0, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(w.block(), block(1, 1));
    let unsorted = Bsr::from_csr((3, 4), indptr.clone(), vec![3, 1, 0], values.clone());
    assert_eq!(blamed(unsorted), "indices");
    assert_eq!(blamed(Bsr::from_csr((3, 4), indptr, vec![1, 4, 0], values.clone())), "indices");
    assert_eq!(blamed(Bsr::from_csr((3, 4), vec![0, 3], vec![1, 3, 0], values)), "indptr");
}

proptest! {
    /// What is pruned to N of M is taken as that, and one more is not.
    #[test]
    fn n_of_m((rows, cols, stride, data) in matrix(), n in 1..5_usize, more in 0..5_usize) {
        let m = n + more;
        let w = MatRef::with_stride(&data, rows, cols, stride).unwrap();
        let pruned = prune::n_m(w, n, m).unwrap();
        let dense = pruned.to_dense().unwrap();
        let view = MatRef::new(&dense, rows, cols).unwrap();
        for (kept, row) in view.iter_rows().zip(w.iter_rows()) {
            for (kept, group) in kept.chunks(m).zip(row.chunks(m)) {
                let there = |values: &[f32]| values.iter().filter(|v| **v != 0.0).count();
                prop_assert_eq!(there(kept), there(group).min(n));
                // What was left out is no heavier than what was kept.
                let least = kept.iter().filter(|v| **v != 0.0).map(|v| v.abs()).fold(f32::INFINITY, f32::min);
                let out = kept.iter().zip(group).filter(|(kept, _)| **kept == 0.0).map(|(_, v)| v.abs());
                prop_assert!(there(kept) < n || out.fold(0.0, f32::max) <= least);
            }
        }
        prop_assert_eq!(Bsr::from_n_m(view, n, m).unwrap().to_dense().unwrap(), dense);
        let most = w.iter_rows().flat_map(|row| row.chunks(m)).map(|g| g.iter().filter(|v| **v != 0.0).count()).max();
        prop_assert_eq!(Bsr::from_n_m(w, n, m).is_ok(), most.unwrap_or(0) <= n);
    }
}

#[test]
fn n_of_m_is_1_to_m() {
    let w = [1.0f32, 2.0, 3.0, 4.0];
    let w = MatRef::new(&w, 1, 4).unwrap();
    for (n, m) in [(0, 4), (5, 4), (0, 0)] {
        assert_eq!(blamed(prune::n_m(w, n, m)), "n");
        assert_eq!(blamed(Bsr::from_n_m(w, n, m)), "n");
    }
    assert_eq!(blamed(Bsr::from_n_m(w, 2, 4)), "w");
    assert_eq!(prune::n_m(w, 2, 4).unwrap().to_dense().unwrap(), [0.0, 0.0, 3.0, 4.0]);
}
