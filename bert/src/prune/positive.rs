//! Positive definite systems: Cholesky's factor by blocks, so that nearly all work is products of matrices.

use nalgebra::{Cholesky, DMatrix};

/// Columns of a block. Its own factor is nalgebra's, whose columns would wait for memory in a larger matrix.
const BLOCK: usize = 64;

/// The least part of its diagonal element that a pivot may be. Sums of f32 have an error of about this size.
const LEAST_PIVOT: f64 = 1e-6;

/// `a = L Lᵀ`.
pub(super) struct Factor {
    /// Below the blocks on the diagonal.
    lower: DMatrix<f64>,
    /// Inverses of the blocks on the diagonal.
    diagonal: Vec<DMatrix<f64>>,
}

impl Factor {
    /// Of a symmetric matrix, whose upper half is not read. None if it is not safely positive definite.
    pub(super) fn new(mut a: DMatrix<f64>) -> Option<Self> {
        let n = a.nrows();
        let least = a.diagonal() * LEAST_PIVOT;
        let mut diagonal = Vec::new();
        for from in (0..n).step_by(BLOCK) {
            let size = BLOCK.min(n - from);
            let below = n - from - size;
            let factor = Cholesky::new(a.view((from, from), (size, size)).into_owned())?;
            let l = factor.l_dirty();
            if (0..size).any(|i| l[(i, i)].powi(2) <= least[from + i]) {
                return None;
            }
            let mut inverse = DMatrix::identity(size, size);
            if !l.solve_lower_triangular_mut(&mut inverse) {
                return None;
            }
            if below > 0 {
                let panel = a.view((from + size, from), (below, size)) * inverse.transpose();
                let transposed = panel.transpose();
                for at in (0..below).step_by(BLOCK) {
                    let width = BLOCK.min(below - at);
                    let mut column = a.view_mut((from + size + at, from + size + at), (below - at, width));
                    column.gemm(-1.0, &panel.rows(at, below - at), &transposed.columns(at, width), 1.0);
                }
                a.view_mut((from + size, from), (below, size)).copy_from(&panel);
            }
            diagonal.push(inverse);
        }
        Some(Self { lower: a, diagonal })
    }

    /// `a⁻¹ b` in the place of b, `[n, any]`.
    pub(super) fn solve(&self, b: &mut DMatrix<f64>) {
        let (n, width) = b.shape();
        for (i, inverse) in self.diagonal.iter().enumerate() {
            let (from, size) = (i * BLOCK, inverse.nrows());
            let solved = inverse * b.rows(from, size);
            b.rows_mut(from, size).copy_from(&solved);
            let below = n - from - size;
            let lower = self.lower.view((from + size, from), (below, size));
            b.view_mut((from + size, 0), (below, width)).gemm(-1.0, &lower, &solved, 1.0);
        }
        for (i, inverse) in self.diagonal.iter().enumerate().rev() {
            let (from, size) = (i * BLOCK, inverse.nrows());
            let solved = inverse.transpose() * b.rows(from, size);
            b.rows_mut(from, size).copy_from(&solved);
            let left = self.lower.view((from, 0), (size, from)).transpose();
            b.view_mut((0, 0), (from, width)).gemm(-1.0, &left, &solved, 1.0);
        }
    }

    /// `a⁻¹`.
    pub(super) fn inverse(&self) -> DMatrix<f64> {
        let n = self.lower.nrows();
        let mut inverse = DMatrix::identity(n, n);
        self.solve(&mut inverse);
        inverse
    }
}
