//! In which order the blocks of a band are removed, and what each costs.
//!
//! A band is the output features that share their blocks. For kept input features S the best weights are `w = C_S (H_SS)⁻¹`; without
//! those of R the sum of squares grows by `w_R (H⁻¹_RR)⁻¹ w_Rᵀ`. So the cheapest blocks go, the weights of the others are corrected by
//! `w_R (H⁻¹_RR)⁻¹ H⁻¹_R.`, and R is eliminated from the inverse, which is a product of matrices: a third of n³ multiplications for the
//! whole way from all blocks to none, however many steps there are.

use super::positive::Factor;
use nalgebra::{Cholesky, DMatrix};

/// Columns of the inverse that are updated at once: of its lower half little more than that is computed.
const PANEL: usize = 256;

/// Blocks of a band, from the first that is removed to the last.
#[derive(Debug)]
pub(super) struct Order {
    pub blocks: Vec<u32>,
    /// What the removal of each adds to the sum of squares. Where one cost less than the one before, both have their mean: they go together
    /// or not at all.
    pub costs: Vec<f64>,
}

/// A band with some of its blocks removed.
struct Band<'a> {
    hessian: &'a DMatrix<f64>,
    /// Input features of a block.
    width: usize,
    /// Blocks that are left, ascending.
    live: Vec<u32>,
    /// Their input features.
    columns: Vec<u32>,
    /// `[rows, columns]`, in as many columns of a larger matrix: the best weights.
    weights: DMatrix<f32>,
    /// The lower half of `[columns, columns]`, in a larger matrix: the inverse of the Hessian of these columns.
    inverse: DMatrix<f32>,
}

impl Order {
    /// Of a band whose best weights with all blocks are `weights`, `[rows, K]`.
    ///
    /// `hessian` `[K, K]` and its `inverse` are both damped; blocks are `width` input features wide (the last perhaps less). In a step
    /// the part `step` of the blocks that are left is removed, at least one. None if the Hessian is not positive definite.
    pub(super) fn new(
        hessian: &DMatrix<f64>,
        inverse: &DMatrix<f32>,
        weights: DMatrix<f32>,
        width: usize,
        step: f64,
    ) -> Option<Self> {
        let features = hessian.nrows();
        let blocks = features.div_ceil(width);
        let mut order = Self { blocks: Vec::with_capacity(blocks), costs: Vec::with_capacity(blocks) };
        let mut band = Band {
            hessian,
            width,
            live: (0..blocks as u32).collect(),
            columns: (0..features as u32).collect(),
            weights,
            inverse: inverse.clone(),
        };
        while !band.live.is_empty() {
            // The inverse is of f32, and errors of its updates add up: where they show, it is made anew.
            let costs = match band.costs() {
                Some(costs) => costs,
                None => {
                    band.invert()?;
                    band.costs()?
                }
            };
            let mut cheapest: Vec<usize> = (0..costs.len()).collect();
            cheapest.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(a.cmp(&b)));
            cheapest.truncate(((costs.len() as f64 * step).ceil() as usize).max(1));
            order.blocks.extend(cheapest.iter().map(|&i| band.live[i]));
            let mut own: Vec<f64> = cheapest.iter().map(|&i| costs[i]).collect();
            if cheapest.len() < costs.len() {
                cheapest.sort_unstable();
                let together = match band.remove(&cheapest) {
                    Some(together) => together,
                    None => {
                        band.invert()?;
                        band.remove(&cheapest)?
                    }
                };
                // Blocks that say the same cost little one by one and much together.
                let sum: f64 = own.iter().sum();
                if sum > 0.0 {
                    own.iter_mut().for_each(|cost| *cost *= together / sum);
                }
            } else {
                band.live.clear();
            }
            order.costs.extend(own);
        }
        ascend(&mut order.costs);
        Some(order)
    }
}

impl Band<'_> {
    /// Where the columns of block i of those that are left lie among the columns that are left. All blocks but the last of the matrix
    /// have the same width.
    fn range(&self, i: usize) -> std::ops::Range<usize> {
        i * self.width..((i + 1) * self.width).min(self.columns.len())
    }

    /// What the removal of each block adds. None if a part of the inverse is not positive definite.
    fn costs(&self) -> Option<Vec<f64>> {
        let mut part = Vec::new();
        (0..self.live.len())
            .map(|i| {
                let range = self.range(i);
                if range.len() == 1 {
                    let pivot = f64::from(self.inverse[(range.start, range.start)]);
                    let squares: f64 =
                        self.weights.column(range.start).iter().map(|&w| f64::from(w).powi(2)).sum();
                    return (pivot > 0.0 && squares.is_finite()).then(|| squares / pivot);
                }
                factor_lower(&mut part, range.len(), |a, b| {
                    f64::from(self.inverse[(range.start + a, range.start + b)])
                })?;
                let mut cost = 0.0;
                let mut solved = vec![0.0; range.len()];
                for r in 0..self.weights.nrows() {
                    for (a, row) in part.chunks(range.len()).enumerate() {
                        let known: f64 = row[..a].iter().zip(&solved).map(|(l, s)| l * s).sum();
                        solved[a] = (f64::from(self.weights[(r, range.start + a)]) - known) / row[a];
                        cost += solved[a].powi(2);
                    }
                }
                cost.is_finite().then_some(cost)
            })
            .collect()
    }

    /// Removes blocks, given by their places among those that are left, ascending; not all of them. Returns what that adds to the sum
    /// of squares. None, and nothing is changed, if their part of the inverse is not positive definite.
    fn remove(&mut self, blocks: &[usize]) -> Option<f64> {
        let removed: Vec<usize> = blocks.iter().flat_map(|&i| self.range(i)).collect();
        let mut gone = vec![false; self.columns.len()];
        removed.iter().for_each(|&c| gone[c] = true);
        let left: Vec<usize> = (0..gone.len()).filter(|&c| !gone[c]).collect();
        let at = |a: usize, b: usize| self.inverse[(a.max(b), a.min(b))];

        let own =
            DMatrix::from_fn(removed.len(), removed.len(), |a, b| f64::from(at(removed[a], removed[b])));
        let mut root = DMatrix::identity(removed.len(), removed.len());
        if !Cholesky::new(own)?.l_dirty().solve_lower_triangular_mut(&mut root) {
            return None;
        }
        // With L Lᵀ the part of the inverse that goes: rows of `root` are L⁻¹, and z is (the part between) L⁻ᵀ.
        let root = root.map(|v: f64| v as f32).transpose();
        let z = DMatrix::from_fn(left.len(), removed.len(), |a, b| at(left[a], removed[b])) * &root;
        let zt = z.transpose();
        let correction = self.weights.select_columns(&removed) * &root;

        let height = self.inverse.nrows();
        let values = self.inverse.as_mut_slice();
        let mut column = Vec::with_capacity(left.len());
        for (to, &from) in left.iter().enumerate() {
            let source = &values[from * height..][..height];
            column.clear();
            column.extend(left[to..].iter().map(|&row| source[row]));
            values[to * height + to..][..column.len()].copy_from_slice(&column);
            for r in 0..self.weights.nrows() {
                self.weights[(r, to)] = self.weights[(r, from)];
            }
        }
        for from in (0..left.len()).step_by(PANEL) {
            let (height, width) = (left.len() - from, PANEL.min(left.len() - from));
            let mut panel = self.inverse.view_mut((from, from), (height, width));
            panel.gemm(-1.0, &z.rows(from, height), &zt.columns(from, width), 1.0);
        }
        self.weights.columns_mut(0, left.len()).gemm(-1.0, &correction, &zt, 1.0);

        self.columns = left.iter().map(|&c| self.columns[c]).collect();
        let mut gone = blocks.iter().copied().peekable();
        let mut place = 0;
        self.live.retain(|_| {
            let goes = gone.next_if_eq(&place).is_some();
            place += 1;
            !goes
        });
        Some(correction.iter().map(|&v| f64::from(v).powi(2)).sum())
    }

    /// The inverse, made anew from the Hessian. None if that is not positive definite.
    fn invert(&mut self) -> Option<()> {
        let own = DMatrix::from_fn(self.columns.len(), self.columns.len(), |a, b| {
            self.hessian[(self.columns[a] as usize, self.columns[b] as usize)]
        });
        let inverse = Factor::new(own)?.inverse();
        for c in 0..self.columns.len() {
            for r in c..self.columns.len() {
                self.inverse[(r, c)] = inverse[(r, c)] as f32;
            }
        }
        Some(())
    }
}

/// Makes costs ascend, with the same sum: neighbours that descend get their mean, as far as is needed.
fn ascend(costs: &mut [f64]) {
    let mut runs: Vec<(f64, usize)> = Vec::new(); // mean, length
    for &cost in costs.iter() {
        let mut run = (cost, 1);
        while let Some(&(mean, length)) = runs.last().filter(|(mean, _)| *mean > run.0) {
            runs.pop();
            let both = run.1 + length;
            run = ((run.0 * run.1 as f64 + mean * length as f64) / both as f64, both);
        }
        runs.push(run);
    }
    let means = runs.iter().flat_map(|&(mean, length)| std::iter::repeat_n(mean, length));
    costs.iter_mut().zip(means).for_each(|(cost, mean)| *cost = mean);
}

/// Cholesky's factor, row-major, of the lower half `a` of a small matrix. None if it is not positive definite.
fn factor_lower(l: &mut Vec<f64>, n: usize, a: impl Fn(usize, usize) -> f64) -> Option<()> {
    l.clear();
    l.resize(n * n, 0.0);
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let left = a(i, j) - known;
            if i == j {
                if left.is_nan() || left <= 0.0 {
                    return None;
                }
                l[i * n + i] = left.sqrt();
            } else {
                l[i * n + j] = left / l[j * n + j];
            }
        }
    }
    Some(())
}
