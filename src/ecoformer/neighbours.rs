//! Which tokens are like which: the sparse part of the similarity that a hash learns, a block of rows at a time.

use crate::base::ctx::Ctx;
use crate::base::error::Result;
use crate::base::parallel::Parallelism;
use crate::base::scratch::Scratch;
use crate::base::view::{MatMut, MatRef};
use crate::kernels::fit::{BLOCK, GATHERED, next_beyond};
use crate::linear::{Epilogue, Linear};

/// Rows that are multiplied at a time.
const ROWS: usize = 32;
/// Columns that are: with [`ROWS`], half of a second-level cache.
const COLUMNS: usize = 4096;
/// Rows of a task.
const TASK: usize = 256;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// For each of N tokens the tokens that are summed up in `(S + Sᵀ) y`, where S is 1, -1 or mostly 0.
///
/// An entry below N is a token; one from N to 2N is token `entry - N`, to be taken away; 2N is nothing. So they index
/// `[y, -y, 0]`.
pub(super) struct Neighbours {
    /// N + 1 positions in `entries`.
    pub starts: Vec<usize>,
    pub entries: Vec<[u32; GATHERED]>,
}

impl Neighbours {
    /// Of rows of unit length. Row n of S is 1 at the `count` tokens whose dot product with n is largest (n among
    /// them), then -1 at the `count` for which it is smallest, even if it was 1; of equals the first tokens are
    /// taken.
    pub(super) fn find(x: MatRef<'_, f32>, count: usize, ctx: &Ctx) -> Result<Self> {
        let own = nearest_and_farthest(x, count, ctx)?;
        Ok(Self::symmetric(x.rows(), &own, 2 * count))
    }

    /// Each row's own entries, then those of the rows that have it, in order.
    fn symmetric(n: usize, own: &[u32], stride: usize) -> Self {
        let edges = |row: usize| own[row * stride..][..stride].iter().filter(|&&e| e != NONE);
        // A token's part of an entry, and the entry that means `row` with its sign.
        let token = |entry: u32| entry as usize % n;
        let mirrored = |row: usize, entry: u32| (row + (entry as usize - token(entry))) as u32;
        let mut lengths = vec![0; n];
        for row in 0..n {
            for &entry in edges(row) {
                lengths[row] += 1;
                lengths[token(entry)] += 1;
            }
        }
        let mut starts = vec![0; n + 1];
        for row in 0..n {
            starts[row + 1] = starts[row] + usize::div_ceil(lengths[row], GATHERED);
        }
        let mut entries = vec![[2 * n as u32; GATHERED]; starts[n]];
        let flat = entries.as_flattened_mut();
        let mut next: Vec<usize> = starts[..n].iter().map(|start| start * GATHERED).collect();
        let mut put = |row: usize, entry: u32| {
            flat[next[row]] = entry;
            next[row] += 1;
        };
        for row in 0..n {
            edges(row).for_each(|&entry| put(row, entry));
        }
        for row in 0..n {
            edges(row).for_each(|&entry| put(token(entry), mirrored(row, entry)));
        }
        Self { starts, entries }
    }
}

/// The rows of S, `2 * count` entries each.
fn nearest_and_farthest(x: MatRef<'_, f32>, count: usize, ctx: &Ctx) -> Result<Vec<u32>> {
    let n = x.rows();
    let layers = (0..n)
        .step_by(COLUMNS)
        .map(|from| Linear::dense(x.rows_from(from, COLUMNS.min(n - from))).build(ctx))
        .collect::<Result<Vec<_>>>()?;
    let serial = ctx.clone().with_parallelism(Parallelism::Serial);
    let mut own = vec![NONE; n * 2 * count];
    let mut tasks: Vec<_> = own.chunks_mut(TASK * 2 * count).map(|own| (own, Ok(()))).collect();
    ctx.for_each_item(&mut tasks, &|i, (own, done)| {
        let rows = x.rows_from(i * TASK, own.len() / (2 * count));
        *done = Search::new(n, count).run(rows, &layers, own, &serial);
    });
    tasks.into_iter().try_for_each(|(_, done)| done)?;
    Ok(own)
}

/// The memory of a task.
struct Search {
    tokens: usize,
    /// Of each of [`ROWS`] rows the nearest and the farthest.
    best: Vec<[Best; 2]>,
    products: Vec<f32>,
    scratch: Scratch,
}

impl Search {
    fn new(tokens: usize, count: usize) -> Self {
        let best = (0..ROWS).map(|_| [Best::new(count), Best::new(count)]).collect();
        Self { tokens, best, products: vec![0.0; ROWS * COLUMNS.min(tokens)], scratch: Scratch::new() }
    }

    fn run(&mut self, x: MatRef<'_, f32>, layers: &[Linear], own: &mut [u32], ctx: &Ctx) -> Result<()> {
        let stride = own.len() / x.rows();
        for (i, own) in own.chunks_mut(ROWS * stride).enumerate() {
            let rows = own.len() / stride;
            let x = x.rows_from(i * ROWS, rows);
            self.best.iter_mut().flatten().for_each(Best::clear);
            for (c, layer) in layers.iter().enumerate() {
                let columns = layer.out_features();
                let products = &mut self.products[..rows * columns];
                let y = MatMut::new(products, rows, columns)?;
                layer.forward(x, Epilogue::new(), y, ctx, &mut self.scratch)?;
                for (best, products) in self.best.iter_mut().zip(products.chunks(columns)) {
                    scan(best, products, c * COLUMNS, ctx);
                }
            }
            for ([nearest, farthest], own) in self.best.iter().zip(own.chunks_mut(stride)) {
                let far = farthest.found.iter().map(|&(_, token)| token);
                let near = nearest.found.iter().map(|&(_, token)| token);
                let near = near.filter(|&token| farthest.found.iter().all(|&(_, far)| far != token));
                let entries = near.chain(far.map(|token| token + self.tokens as u32));
                own.iter_mut().zip(entries).for_each(|(to, entry)| *to = entry);
            }
        }
        Ok(())
    }
}

/// The largest of the numbers seen, from the largest down; of equals those seen first.
struct Best {
    count: usize,
    found: Vec<(f32, u32)>,
}

impl Best {
    fn new(count: usize) -> Self {
        Self { count, found: Vec::with_capacity(count + 1) }
    }

    fn clear(&mut self) {
        self.found.clear();
    }

    /// What a number must be above to be taken.
    fn limit(&self) -> f32 {
        if self.found.len() < self.count { f32::NEG_INFINITY } else { self.found[self.count - 1].0 }
    }

    fn see(&mut self, value: f32, token: u32) {
        if value > self.limit() {
            let at = self.found.iter().rposition(|&(v, _)| v >= value).map_or(0, |i| i + 1);
            self.found.insert(at, (value, token));
            self.found.truncate(self.count);
        }
    }
}

/// Shows products with tokens from `first` to the nearest and, with the other sign, to the farthest.
fn scan([nearest, farthest]: &mut [Best; 2], products: &[f32], first: usize, ctx: &Ctx) {
    let mut block = 0;
    loop {
        block = next_beyond(products, block, nearest.limit(), -farthest.limit(), ctx);
        let from = block * BLOCK;
        for (i, &product) in products.iter().enumerate().skip(from).take(BLOCK) {
            nearest.see(product, (first + i) as u32);
            farthest.see(-product, (first + i) as u32);
        }
        block += 1;
        if from + BLOCK >= products.len() {
            return;
        }
    }
}
