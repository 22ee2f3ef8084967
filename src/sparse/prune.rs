//! Magnitude pruning: keep the heaviest blocks (Han et al. 2015, by blocks as in Gray et al. 2017).

use super::bsr::check_size;
use super::elements::check_n_m;
use super::{BlockShape, Bsr};
use crate::base::error::{Error, Result};
use crate::base::view::MatRef;

/// What makes a block heavy. Summed in f64, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Norm {
    /// The sum of the absolute values.
    L1,
    /// The Euclidean length.
    L2,
    /// The largest absolute value.
    Max,
}

/// Keeps the heaviest `round(blocks * (1 - sparsity))` of all blocks of `w`; of equally heavy ones those of the
/// lower block row, then of the lower block column. A kept block is stored even where it is all zeros.
///
/// # Errors
/// * [`Error::Value`] if `sparsity` is not in 0 to below 1, or if `w` holds a NaN or an infinity;
/// * [`Error::Shape`] if `w` has more than 2^32 block rows or columns.
pub fn magnitude(w: MatRef<'_, f32>, block: BlockShape, sparsity: f64, norm: Norm) -> Result<Bsr<f32>> {
    let norms = norms(w, block, norm)?;
    let keep = heaviest(&norms, kept(norms.len(), sparsity)?);
    gather(w, block, &keep)
}

/// As [`magnitude`], with the same number of blocks, `round(block columns * (1 - sparsity))`, in every block row:
/// threads that share the block rows then have equal work.
///
/// # Errors
/// As [`magnitude`].
pub fn magnitude_balanced(
    w: MatRef<'_, f32>,
    block: BlockShape,
    sparsity: f64,
    norm: Norm,
) -> Result<Bsr<f32>> {
    let norms = norms(w, block, norm)?;
    let block_cols = w.cols().div_ceil(block.cols());
    let kept = kept(block_cols, sparsity)?;
    let keep: Vec<bool> = norms.chunks(block_cols.max(1)).flat_map(|row| heaviest(row, kept)).collect();
    gather(w, block, &keep)
}

/// Keeps the `n` largest magnitudes of each `m` neighbouring columns (2:4 and the like), counted from column 0; of equal ones the first. Of
/// what is left over at the end of a row, `n` too. Blocks are 1x1.
///
/// # Errors
/// * [`Error::Value`] if `n` is 0 or above `m`, or if `w` holds a NaN or an infinity;
/// * [`Error::Shape`] if `w` has more than 2^32 rows or columns.
pub fn n_m(w: MatRef<'_, f32>, n: usize, m: usize) -> Result<Bsr<f32>> {
    check_n_m(n, m)?;
    let norms = norms(w, BlockShape::B1X1, Norm::L1)?;
    let rows = norms.chunks(w.cols().max(1));
    let keep: Vec<bool> = rows.flat_map(|row| row.chunks(m).flat_map(|group| heaviest(group, n))).collect();
    gather(w, BlockShape::B1X1, &keep)
}

fn gather(w: MatRef<'_, f32>, block: BlockShape, keep: &[bool]) -> Result<Bsr<f32>> {
    Bsr::gather(w, block, |i, flags| flags.copy_from_slice(&keep[i * flags.len()..][..flags.len()]))
}

fn kept(blocks: usize, sparsity: f64) -> Result<usize> {
    if !(0.0..1.0).contains(&sparsity) {
        return Err(Error::value("sparsity", "0 to below 1", format_args!("{sparsity:?}")));
    }
    Ok((blocks as f64 * (1.0 - sparsity)).round() as usize)
}

/// The weight of every block, `[block rows, block columns]`; squared for L2, which orders them alike.
fn norms(w: MatRef<'_, f32>, block: BlockShape, norm: Norm) -> Result<Vec<f64>> {
    let (block_rows, block_cols) = check_size(w.rows(), w.cols(), block)?;
    let mut norms = vec![0.0; block_rows * block_cols];
    for (r, row) in w.iter_rows().enumerate() {
        if let Some(c) = row.iter().position(|v| !v.is_finite()) {
            let got = format_args!("{:?} at row {r}, column {c}", row[c]).to_string();
            return Err(Error::value("w", "finite numbers", got));
        }
        let sums = &mut norms[r / block.rows() * block_cols..][..block_cols];
        for (sum, values) in sums.iter_mut().zip(row.chunks(block.cols())) {
            for v in values.iter().map(|&v| f64::from(v).abs()) {
                *sum = match norm {
                    Norm::L1 => *sum + v,
                    Norm::L2 => *sum + v * v,
                    Norm::Max => sum.max(v),
                };
            }
        }
    }
    Ok(norms)
}

/// Flags the `kept` largest, of equal ones the first.
fn heaviest(norms: &[f64], kept: usize) -> Vec<bool> {
    if kept == 0 || kept >= norms.len() {
        return vec![kept > 0; norms.len()];
    }
    let mut sorted = norms.to_vec();
    let (heavier, &mut lightest, _) = sorted.select_nth_unstable_by(kept - 1, |a, b| b.total_cmp(a));
    // Those as heavy as the lightest that is kept, as far as there is room.
    let heavier = heavier.iter().filter(|norm| **norm > lightest).count();
    let mut room = kept - heavier;
    let mut keep = |&norm: &f64| {
        let equal = norm == lightest && room > 0;
        room -= usize::from(equal);
        norm > lightest || equal
    };
    norms.iter().map(&mut keep).collect()
}
