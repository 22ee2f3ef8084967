//! `siskin` alone: what this CPU can do, and what sparsity is worth on it.

use super::info::Info;
use crate::base::error::{Error, Result};
use crate::base::family::answer;
use crate::base::measure::{Peak, PeakOf};
use crate::base::progress;
use crate::linear::{Case, Format, Step, check};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use siskin::sparse::BlockShape;
use siskin::{Ctx, Isa};
use std::io::{Write, stdout};

/// The linear layers of BERT-base: out x in, and what follows.
const LAYERS: [(&str, usize, usize, &[Step]); 3] = [
    ("attention", 768, 768, &[Step::Bias]),
    ("up, GELU", 3072, 768, &[Step::Bias, Step::Gelu]),
    ("down", 768, 3072, &[Step::Bias]),
];

pub fn main() -> Result<()> {
    let mut out = stdout().lock();
    let info = Info::new()?;
    info.print(&mut out)?;
    let isa = Ctx::new()?.isa();
    let mut peak = Peak::new(PeakOf::Int8, isa, 1);
    (0..50).for_each(|_| peak.burst());
    writeln!(out, "  {:.0} GOP/s of INT8 dot products at most, on one thread\n", peak.gops)?;

    writeln!(out, "BERT-base layers, the same bits on every tier as on scalar?")?;
    verify(&mut out)?;

    // Without vector instructions a text's 384 tokens would take longer than anyone looks at a table.
    let m = if isa == Isa::Scalar { 64 } else { 384 };
    writeln!(out, "\nBERT-base layers, {m} tokens, one thread: bytes in, bytes out, packing included")?;
    writeln!(out, "{}", measured(m)?)?;
    writeln!(out, "GOP/s counts what is stored: 2 x tokens x weights that were kept.")?;
    Ok(())
}

fn verify(out: &mut impl Write) -> Result<()> {
    let tiers: Vec<_> = Isa::supported().filter(|&isa| isa != Isa::Scalar).collect();
    let bar = progress::bar(tiers.len() * LAYERS.len() * 2, "checking");
    for isa in &tiers {
        for (_, n, k, epilogue) in LAYERS {
            for block in [Format::Dense, Format::default()] {
                let isa = Some(isa.name().into());
                check(&Case { m: 70, n, k, block, epilogue: epilogue.to_vec(), isa, ..Case::default() })?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    for isa in Isa::ALL.iter().filter(|&&isa| isa != Isa::Scalar) {
        let found = if tiers.contains(isa) { "yes" } else { "SKIPPED: this CPU does not have it" };
        writeln!(out, "  {:<12} {found}", isa.name())?;
    }
    Ok(())
}

fn measured(m: usize) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["layer", "out x in", "weights", "us", "GOP/s", "% of peak", "speed-up"]);
    (3..7).for_each(|i| right(&mut table, i));
    let sparse = |block, sparsity| (Format::Sparse(block), sparsity);
    let formats = [
        (Format::Dense, 0.0),
        sparse(BlockShape::B4X1, 0.7),
        sparse(BlockShape::B4X1, 0.8),
        sparse(BlockShape::B4X1, 0.9),
        sparse(BlockShape::B16X4, 0.8),
    ];
    let bar = progress::bar(LAYERS.len() * formats.len(), "measuring");
    for (name, n, k, epilogue) in LAYERS {
        let mut dense = 0.0;
        for (block, sparsity) in formats {
            let case = Case {
                m,
                n,
                k,
                block,
                sparsity,
                epilogue: epilogue.to_vec(),
                min_ms: 150,
                ..Case::default()
            };
            let a = answer(&case)?;
            if let Some(mismatch) = a.check.mismatch {
                return Err(Error::Wrong(mismatch));
            }
            let weights = match block {
                Format::Dense => "dense".into(),
                block => format!("{block}, {:.0} % pruned", sparsity * 100.0),
            };
            if block == Format::Dense {
                dense = a.us_min;
            }
            table.add_row([
                name.to_string(),
                format!("{n} x {k}"),
                weights,
                format!("{:.0}", a.us_min),
                format!("{:.0}", a.gops),
                format!("{:.0}", a.pct_peak),
                format!("{:.2}", dense / a.us_min),
            ]);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

/// Aligns a column of numbers.
pub fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
