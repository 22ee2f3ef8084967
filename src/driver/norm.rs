//! Rows of a LayerNorm: which thread takes which tokens, and what is done to a few rows while they are in the first-level cache.

use crate::base::buffer::{Buffer, as_f32, memory_mut};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::params::QuantParams;
use crate::base::view::{MatMut, MatRef};
use crate::kernels::norm::{self as kernels, Affine, ROWS, Row};
use crate::kernels::quantize;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Elements below which a task is not worth its turn.
const LEAST: usize = 4096;

/// Bits of the largest magnitude whose rows cannot overflow, 2^50, if parameters are tame: squares of differences are below 2^102,
/// and sums of at most 2^24 of them below 2^126.
const TAME: u32 = (127 + 50) << 23;

/// Bytes of a token's scale and zero point.
const PARAMS: usize = 8;

/// A normalization of rows, all of whose slices have as many elements as a row.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The rows, or nothing where the output has them.
    pub x: Option<MatRef<'a, f32>>,
    /// What is added to the rows.
    pub residual: Option<MatRef<'a, f32>>,
    /// The parameters of the layer.
    pub affine: Affine<'a>,
    /// What features are multiplied by before they become bytes.
    pub by: Option<&'a [f32]>,
    /// Whether no row of at most [`TAME`] can have an output that is not finite.
    pub tame: bool,
}

/// Whether parameters cannot make a row overflow whose magnitudes are at most [`TAME`]: normalized elements are below 2^13 then, for
/// a square is at most the sum of 2^24.
pub fn tame(affine: Affine<'_>, by: Option<&[f32]>) -> bool {
    let below = |x: &[f32], power: u32| x.iter().all(|x| x.abs() < f32::from_bits((127 + power) << 23));
    let n = affine.gamma.len();
    n <= 1 << 24 && below(affine.gamma, 40) && below(affine.beta, 50) && by.is_none_or(|by| below(by, 40))
}

/// Bytes to be written: rows, and one quantizer for all, or else each token's own, which are left for the caller.
#[derive(Debug)]
pub struct Bytes<'a> {
    /// A row for each token.
    pub to: MatMut<'a, u8>,
    /// The one quantizer, or a place for each token's.
    pub params: Params<'a>,
}

/// How tokens are quantized.
#[derive(Debug)]
pub enum Params<'a> {
    /// All alike.
    All(QuantParams),
    /// Each by its own range.
    PerToken(&'a mut [QuantParams]),
}

/// How rows are shared out.
#[derive(Clone, Copy)]
struct Shares {
    tasks: usize,
    /// Tokens of a task.
    each: usize,
}

impl Shares {
    fn most_tasks(ctx: &Ctx) -> usize {
        if ctx.threads() == 1 { 1 } else { 4 * ctx.threads() }
    }

    fn new(tokens: usize, features: usize, ctx: &Ctx) -> Self {
        let tasks = match ctx.threads() {
            1 => 1,
            _ => Self::most_tasks(ctx).min(tokens.div_ceil(LEAST.div_ceil(features))),
        };
        let each = tokens.div_ceil(tasks.max(1)).max(1);
        Self { tasks: tokens.div_ceil(each), each }
    }
}

/// Normalizes the rows of `job` into `y`, into bytes, or both. Without `y`, the job has an x. Where each token is quantized by its own
/// range and one is not finite, returns its number, and has written nothing.
pub fn run(
    job: &Job<'_>,
    mut y: Option<MatMut<'_, f32>>,
    bytes: Option<Bytes<'_>>,
    ctx: &Ctx,
    [rows, token_params]: [&mut Buffer; 2],
) -> Result<(), usize> {
    let n = job.affine.gamma.len();
    let tokens = match (&job.x, &y) {
        (Some(x), _) => x.rows(),
        (None, Some(y)) => y.rows(),
        (None, None) => unreachable!("rows to be normalized"),
    };
    let shares = Shares::new(tokens, n, ctx);
    // Rows on their way to bytes, and the products of one with the factors of features; for as many tasks as more tokens may need, so
    // that fewer never need more memory.
    let row_bytes = (ROWS + 1) * 4 * n;
    rows.grow(Shares::most_tasks(ctx) * row_bytes);
    let at_once = rows_at_once(job, ctx);
    let mut per_token = None;
    let bytes = bytes.map(|Bytes { to, params }| match params {
        Params::All(params) => (to, Some(params)),
        Params::PerToken(all) => {
            per_token = Some(all);
            (to, None)
        }
    });
    if per_token.is_some() {
        let job = Job { x: job.x.or(y.as_ref().map(MatMut::as_ref)), ..*job };
        match first_infinite(&job, shares, ctx, rows) {
            None => {}
            Some(token) => return Err(token),
        }
        token_params.grow(PARAMS * tokens);
    }

    let has_y = y.is_some();
    let y_stride = y.as_ref().map_or(0, MatMut::stride);
    let y = y.take().map_or(&mut [][..], |y| memory_mut(y.into_data()));
    let (to_stride, params) = bytes.as_ref().map_or((0, None), |(to, params)| (to.stride(), *params));
    let has_bytes = bytes.is_some();
    let to = bytes.map_or(&mut [][..], |(to, _)| to.into_data());
    let own = if per_token.is_some() { &mut token_params.bytes_mut()[..PARAMS * tokens] } else { &mut [] };
    let run = kernels::rows(ctx.isa(), job.x.is_some(), job.residual.is_some());
    let of_task = |stride: usize, bytes: usize| shares.each.saturating_mul(stride).saturating_mul(bytes);
    let len = [of_task(y_stride, 4), of_task(to_stride, 1), of_task(PARAMS, 1), row_bytes];
    let buffers = [y, to, own, rows.bytes_mut()];
    ctx.for_each_chunks(shares.tasks, buffers, len, &|task, [y, to, own, rows]| {
        let (y, own) = (as_f32(y), as_f32(own));
        let (own_rows, products) = as_f32(rows).split_at_mut(ROWS * n);
        let (first, last) = (task * shares.each, ((task + 1) * shares.each).min(tokens));
        for start in (first..last).step_by(at_once) {
            let some = start..last.min(start + at_once);
            let (h, stride) = match has_y {
                true => (&mut y[(start - first) * y_stride..], y_stride),
                false => (&mut *own_rows, n),
            };
            normalize(job, run, some.clone(), h, stride);
            for (token, h) in some.zip(h.chunks(stride)).take_while(|_| has_bytes) {
                let (h, at) = (&h[..n], token - first);
                let to = &mut to[at * to_stride..][..n];
                if let (Some(params), Some(by)) = (&params, job.by) {
                    quantize::quantize_products(h, by, params, to, ctx);
                    continue;
                }
                let reals = reals(job, h, products, ctx);
                let params = params.or_else(|| params_of(reals, ctx)).unwrap_or_else(|| {
                    unreachable!("token {token} was seen to be finite");
                });
                if let Some(own) = own.get_mut(2 * at..2 * at + 2) {
                    own.copy_from_slice(&[params.scale(), params.zero_point() as f32]);
                }
                quantize::quantize(reals, &params, to, ctx);
            }
        }
    });
    if let Some(all) = per_token {
        let own = as_f32(&mut token_params.bytes_mut()[..PARAMS * tokens]);
        for (params, own) in all.iter_mut().zip(own.chunks_exact(2)) {
            // Zero points are small integers, exact as floats.
            let valid = QuantParams::u8(own[0], own[1] as i32);
            *params = valid.unwrap_or_else(|_| unreachable!("parameters that were valid before"));
        }
    }
    Ok(())
}

/// How many rows are normalized at a time: no more than the first-level cache holds, because each is read three times.
fn rows_at_once(job: &Job<'_>, ctx: &Ctx) -> usize {
    let arrays = 1 + usize::from(job.x.is_some()) + usize::from(job.residual.is_some());
    (ctx.core().l1d / (4 * job.affine.gamma.len() * arrays)).clamp(1, ROWS)
}

/// Normalizes the rows of up to [`ROWS`] tokens into `h`, or where they are: `stride` elements from each to the next.
fn normalize(job: &Job<'_>, run: kernels::Rows, tokens: Range<usize>, h: &mut [f32], stride: usize) {
    let (mut rows, n) = ([(); ROWS].map(|()| Row::default()), job.affine.gamma.len());
    let rows = &mut rows[..tokens.len()];
    for ((row, token), h) in rows.iter_mut().zip(tokens).zip(h.chunks_mut(stride)) {
        row.x = job.x.as_ref().map_or(&[], |x| x.row(token));
        row.residual = job.residual.as_ref().map_or(&[], |residual| residual.row(token));
        row.h = &mut h[..n];
    }
    // SAFETY: a context only holds a tier that this CPU has.
    unsafe { run(rows, job.affine) }
}

/// What becomes bytes of a normalized row: it, or its products.
fn reals<'a>(job: &Job<'_>, h: &'a [f32], products: &'a mut [f32], ctx: &Ctx) -> &'a [f32] {
    let Some(by) = job.by else { return h };
    let products = &mut products[..h.len()];
    // SAFETY: a context only holds a tier that this CPU has.
    unsafe { kernels::multiply::pick(ctx.isa())(h, by, products) };
    products
}

/// The quantizer of a row's own range, as layers of INT8 quantize tokens; none if the row is not finite.
fn params_of(row: &[f32], ctx: &Ctx) -> Option<QuantParams> {
    let quantize::Range { min, max, magnitude } = quantize::range(row, ctx);
    let finite = magnitude < quantize::Range::INFINITE;
    finite.then(|| QuantParams::from_range_asymmetric(min, max, Element::U8).ok()).flatten()
}

/// The first token whose reals are not finite. The job has an x. Most jobs are answered by the magnitude of what goes in; the
/// others are computed once for this alone.
fn first_infinite(job: &Job<'_>, shares: Shares, ctx: &Ctx, rows: &mut Buffer) -> Option<usize> {
    let Some(x) = job.x else { unreachable!("a job with an x") };
    let tokens_of = |task: usize| task * shares.each..((task + 1) * shares.each).min(x.rows());
    if job.tame {
        let most = AtomicU32::new(0);
        ctx.for_each(shares.tasks, &|task| {
            for token in tokens_of(task) {
                let reach = match &job.residual {
                    // SAFETY: a context only holds a tier that this CPU has.
                    None => unsafe { kernels::reach::pick(ctx.isa())(x.row(token)) },
                    // SAFETY: as before.
                    Some(residual) => unsafe {
                        kernels::reach_of_sum::pick(ctx.isa())(x.row(token), residual.row(token))
                    },
                };
                most.fetch_max(reach, Ordering::Relaxed);
            }
        });
        if most.into_inner() <= TAME {
            return None;
        }
    }
    let n = job.affine.gamma.len();
    let run = kernels::rows(ctx.isa(), true, job.residual.is_some());
    let bad = AtomicUsize::new(usize::MAX);
    ctx.for_each_chunk(shares.tasks, rows.bytes_mut(), 2 * 4 * n, &|task, rows| {
        let (row, products) = as_f32(rows).split_at_mut(n);
        for token in tokens_of(task) {
            normalize(job, run, token..token + 1, row, n);
            if params_of(reals(job, row, products, ctx), ctx).is_none() {
                bad.fetch_min(token, Ordering::Relaxed);
            }
        }
    });
    Some(bad.into_inner()).filter(|&token| token < usize::MAX)
}
