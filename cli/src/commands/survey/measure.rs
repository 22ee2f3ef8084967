//! One weight: what pruning and rounding lose of it, and how long its layers take.

use super::checkpoint::Weight;
use super::{Args, Row};
use crate::base::error::{Error, Result};
use crate::base::measure::{repeat, us};
use crate::base::random::Rng;
use crate::linear::{Scales, Stored, WType, Weights};
use rayon::prelude::*;
use siskin::linear::{Epilogue, Linear, MAX_FEATURES};
use siskin::quant::{QuantParams, sqnr_db};
use siskin::sparse::{BlockShape, Bsr, Norm, prune};
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
    let zero_blocks = zero_blocks(matrix, args.block);
    let enough = zero_blocks > 0.0 && zero_blocks >= args.sparsity;
    // On all threads; calls of layers are timed on one.
    let prepare = || {
        let pruned = if enough {
            Bsr::from_dense(matrix, args.block)?
        } else {
            prune::magnitude(matrix, args.block, args.sparsity, Norm::L2)?
        };
        let sparsity = pruned.statistics().sparsity();
        Ok::<_, Error>((sparsity, decibels(args.dtype, matrix, &pruned)?, sparse(args.dtype, pruned, ctx)?))
    };
    let (dense, prepared) = rayon::join(|| dense(args.dtype, matrix, ctx), prepare);
    let (sparsity, [quantized_db, pruned_db, both_db], sparse) = prepared?;
    let dense_us = time(args, &dense?, ctx, scratch)?;
    let sparse_us = time(args, &sparse, ctx, scratch)?;
    let (rows, cols) = (args.block.rows(), args.block.cols());
    let larger = rows > n || cols > k;
    let mut notes = Vec::new();
    match (enough, larger) {
        (_, true) => notes.push(format!("the block {} is larger than {n} x {k}", args.block)),
        (true, _) => {
            notes.push(format!("pruned as it came: {:.1} % of its blocks are zero", 100.0 * zero_blocks))
        }
        _ => {}
    }
    if sparse.is_dense() {
        let turn = 100.0 * sparse.dense_below().unwrap_or_default();
        notes.push(format!("runs dense: blocks of {} pay above {turn:.0} % on this core", args.block));
    }
    Ok(Row {
        name: name.clone(),
        dtype: dtype.clone(),
        out: n,
        input: k,
        zeros: w.iter().filter(|v| **v == 0.0).count() as f64 / w.len() as f64,
        zero_blocks,
        sparsity,
        quantized_db,
        pruned_db,
        both_db,
        dense_us,
        sparse_us,
        speed_up: dense_us / sparse_us,
        dense_below: sparse.dense_below(),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

/// The part of the values that are in blocks of nothing but 0.
fn zero_blocks(w: MatRef<'_, f32>, block: BlockShape) -> f64 {
    let (block_rows, block_cols) = (w.rows().div_ceil(block.rows()), w.cols().div_ceil(block.cols()));
    let stored = |i: usize| {
        let rows = i * block.rows()..((i + 1) * block.rows()).min(w.rows());
        let mut has = vec![false; block_cols];
        for r in rows.clone() {
            for (has, values) in has.iter_mut().zip(w.row(r).chunks(block.cols())) {
                *has |= values.iter().any(|v| *v != 0.0);
            }
        }
        let width =
            |(j, has): (usize, &bool)| if *has { block.cols().min(w.cols() - j * block.cols()) } else { 0 };
        rows.len() * has.iter().enumerate().map(width).sum::<usize>()
    };
    let stored: usize = (0..block_rows).into_par_iter().map(stored).sum();
    1.0 - stored as f64 / (w.rows() as f64 * w.cols() as f64)
}

fn dense(dtype: WType, w: MatRef<'_, f32>, ctx: &Ctx) -> Result<Linear> {
    if dtype == WType::I8 {
        return Ok(Linear::quantize_dense(w)?.build(ctx)?);
    }
    let stored = Stored::Dense(w.iter_rows().flatten().copied().collect(), w.rows(), w.cols());
    floats(stored, dtype, ctx)
}

fn sparse(dtype: WType, w: Bsr<f32>, ctx: &Ctx) -> Result<Linear> {
    if dtype == WType::I8 {
        return Ok(Linear::quantize_sparse(&w)?.build(ctx)?);
    }
    floats(Stored::Sparse(w), dtype, ctx)
}

/// A layer of weights that are no bytes.
fn floats(w: Stored<f32>, dtype: WType, ctx: &Ctx) -> Result<Linear> {
    let weights =
        Weights::of_floats(w, dtype).ok_or_else(|| Error::input("--dtype", "a type of floats", "i8"))?;
    weights.build(&Scales::default(), &[], ctx)
}

/// What quantizing, pruning, and both leave of a weight.
fn decibels(dtype: WType, w: MatRef<'_, f32>, pruned: &Bsr<f32>) -> Result<[f64; 3]> {
    let (k, block) = (w.cols(), pruned.block());
    let of_block_row = |i: usize| -> Result<(f64, [f64; 3])> {
        let (mut signal, mut noise) = (0.0, [0.0; 3]);
        // Its rows, without what was pruned.
        let mut kept = vec![0.0; block.rows() * k];
        let (cols, blocks) = pruned.block_row(i);
        for (&col, values) in cols.iter().zip(blocks.chunks(block.rows() * block.cols())) {
            let first = col as usize * block.cols();
            for (row, values) in kept.chunks_mut(k).zip(values.chunks(block.cols())) {
                let there = block.cols().min(k - first);
                row[first..first + there].copy_from_slice(&values[..there]);
            }
        }
        for (r, kept) in (i * block.rows()..w.rows()).zip(kept.chunks(k)) {
            let row = w.row(r);
            let add = |sum: f64, v: &f32| sum + f64::from(*v) * f64::from(*v);
            signal = row.iter().fold(signal, add);
            for (noise, got) in
                noise.iter_mut().zip([&*quantized(dtype, row), kept, &*quantized(dtype, kept)])
            {
                // What is no number any more is refused as that of one row.
                sqnr_db(row, got)?;
                let less = row.iter().zip(got).map(|(w, got)| f64::from(*w) - f64::from(*got));
                *noise += less.map(|d| d * d).sum::<f64>();
            }
        }
        Ok((signal, noise))
    };
    let all: Vec<_> = (0..pruned.block_rows()).into_par_iter().map(of_block_row).collect::<Result<_>>()?;
    // In order, so that the number of threads is no matter.
    let (mut signal, mut noise) = (0.0, [0.0; 3]);
    for (own_signal, own_noise) in all {
        signal += own_signal;
        noise.iter_mut().zip(own_noise).for_each(|(noise, own)| *noise += own);
    }
    Ok(noise.map(|noise| if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }))
}

/// The row of a weight that a layer computes with: of an INT8 one in steps of its largest magnitude / 127.
fn quantized(dtype: WType, row: &[f32]) -> Vec<f32> {
    match dtype {
        WType::I8 => {
            let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let step = QuantParams::from_range_symmetric(-most, most, Element::I8).map_or(1.0, |p| p.scale());
            // At most 127 steps: added to a number whose ulp is 1, they are rounded without a call.
            const WHOLE: f32 = 12_582_912.0;
            row.iter().map(|v| ((v / step + WHOLE) - WHOLE) * step).collect()
        }
        WType::F32 => row.to_vec(),
        WType::Bf16 => row.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
        WType::F16 => row.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
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
