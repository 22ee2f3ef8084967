//! One weight: what pruning and rounding lose of it, and how long its layers take.

use super::checkpoint::Weight;
use super::{Args, Row};
use crate::base::error::Result;
use crate::base::measure::{repeat, us};
use crate::base::random::Rng;
use crate::linear::{Scales, Stored, WType, Weights};
use siskin::linear::{Epilogue, Linear, MAX_FEATURES};
use siskin::quant::{QuantParams, sqnr_db};
use siskin::sparse::{Bsr, Norm, prune};
use siskin::{Ctx, Element, MatMut, MatRef, Scratch, bf16, f16};

/// Why a weight is not measured, where it is not.
pub fn refuse(args: &Args, n: usize, k: usize) -> Option<String> {
    if args.dtype == WType::I8 && k > MAX_FEATURES {
        return Some(format!("more than {MAX_FEATURES} input features"));
    }
    if args.tokens.max(k).saturating_mul(args.tokens.max(n)) > 1 << 28 {
        return Some(format!("{n} x {k} is too large"));
    }
    let padded = |size: usize, step: usize| size.div_ceil(step) as u128 * step as u128;
    if padded(n, args.block.rows()) * padded(k, args.block.cols()) > 1 << 28 {
        return Some(format!("blocks of {} are too large for {n} x {k}", args.block));
    }
    None
}

pub fn row(args: &Args, weight: &Weight, ctx: &Ctx, scratch: &mut Scratch) -> Result<Row> {
    let Weight { name, dtype, out, input, values: w } = weight;
    let (n, k) = (*out, *input);
    let matrix = MatRef::new(w, n, k)?;
    // What has as many zero blocks as are to be pruned stays as it came.
    let as_it_came = Bsr::from_dense(matrix, args.block)?;
    let zero_blocks = as_it_came.statistics().sparsity();
    let enough = zero_blocks > 0.0 && zero_blocks >= args.sparsity;
    let pruned =
        if enough { as_it_came } else { prune::magnitude(matrix, args.block, args.sparsity, Norm::L2)? };
    let (dense, sparse) = layers(args.dtype, matrix, &pruned, ctx)?;
    let kept = pruned.to_dense()?;
    let dense_us = time(args, &dense, ctx, scratch)?;
    let sparse_us = time(args, &sparse, ctx, scratch)?;
    let (rows, cols) = (args.block.rows(), args.block.cols());
    let larger = rows > n || cols > k;
    let note = match (enough, larger) {
        (_, true) => Some(format!("the block {} is larger than {n} x {k}", args.block)),
        (true, _) => Some(format!("pruned as it came: {:.1} % of its blocks are zero", 100.0 * zero_blocks)),
        _ => None,
    };
    Ok(Row {
        name: name.clone(),
        dtype: dtype.clone(),
        out: n,
        input: k,
        zeros: w.iter().filter(|v| **v == 0.0).count() as f64 / w.len() as f64,
        zero_blocks,
        sparsity: pruned.statistics().sparsity(),
        quantized_db: sqnr_db(w, &quantized(args.dtype, w, k))?,
        pruned_db: sqnr_db(w, &kept)?,
        both_db: sqnr_db(w, &quantized(args.dtype, &kept, k))?,
        dense_us,
        sparse_us,
        speed_up: dense_us / sparse_us,
        note,
    })
}

/// The dense and the sparse layer.
fn layers(dtype: WType, w: MatRef<'_, f32>, pruned: &Bsr<f32>, ctx: &Ctx) -> Result<(Linear, Linear)> {
    let dense = Stored::Dense(w.iter_rows().flatten().copied().collect(), w.rows(), w.cols());
    match (Weights::of_floats(dense, dtype), Weights::of_floats(Stored::Sparse(pruned.clone()), dtype)) {
        (Some(dense), Some(sparse)) => {
            let none = Scales::default();
            Ok((dense.build(&none, &[], ctx)?, sparse.build(&none, &[], ctx)?))
        }
        _ => Ok((Linear::quantize_dense(w)?.build(ctx)?, Linear::quantize_sparse(pruned)?.build(ctx)?)),
    }
}

/// The weight that a layer computes with: of an INT8 one each row in steps of its largest magnitude / 127.
fn quantized(dtype: WType, w: &[f32], k: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let step = QuantParams::from_range_symmetric(-most, most, Element::I8).map_or(1.0, |p| p.scale());
        row.iter().map(|v| (v / step).round_ties_even() * step).collect::<Vec<_>>()
    };
    match dtype {
        WType::I8 => w.chunks(k).flat_map(row).collect(),
        WType::F32 => w.to_vec(),
        WType::Bf16 => w.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
        WType::F16 => w.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
    }
}

/// Microseconds of a call, tokens in and out in the layer's type.
fn time(args: &Args, layer: &Linear, ctx: &Ctx, scratch: &mut Scratch) -> Result<f64> {
    let (m, n, k) = (args.tokens, layer.out_features(), layer.in_features());
    let mut rng = Rng(1);
    let x: Vec<u8> = (0..m * k).map(|_| rng.next() as u8).collect();
    let real = |&x: &u8| 0.05 * (f32::from(x) - 128.0);
    let mut times = |call: &mut dyn FnMut(&mut Scratch) -> siskin::Result<()>| {
        Ok(us(repeat(args.min_ms, || Ok(call(scratch)?), || ())?.min))
    };
    let none = Epilogue::new();
    match args.dtype {
        WType::I8 => {
            let mut y = vec![0u8; m * n];
            let (from, to) = (QuantParams::u8(0.05, 128)?, QuantParams::u8(0.1, 128)?);
            times(&mut |scratch| {
                let x = (MatRef::new(&x, m, k)?, from);
                layer.forward(x, none, (MatMut::new(&mut y, m, n)?, to), ctx, scratch)
            })
        }
        WType::F32 => {
            let (x, mut y) = (x.iter().map(real).collect::<Vec<_>>(), vec![0f32; m * n]);
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
        WType::Bf16 => {
            let x: Vec<_> = x.iter().map(real).map(bf16::from_f32).collect();
            let mut y = vec![bf16::ZERO; m * n];
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
        WType::F16 => {
            let x: Vec<_> = x.iter().map(real).map(f16::from_f32).collect();
            let mut y = vec![f16::ZERO; m * n];
            times(&mut |scratch| {
                let x = MatRef::new(&x, m, k)?;
                layer.forward(x, none, MatMut::new(&mut y, m, n)?, ctx, scratch)
            })
        }
    }
}
