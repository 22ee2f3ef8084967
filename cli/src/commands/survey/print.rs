//! What a survey found, as a table, JSON or CSV.

use super::{Args, Row, Survey};
use crate::base::error::Result;
use crate::base::json::to_json;
use crate::commands::tour;
use crate::linear::WType;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use std::io::{Write, stdout};

/// A name without control characters, which a terminal would obey.
fn visible(name: &str) -> String {
    name.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// A field of CSV.
fn quoted(text: &str) -> String {
    format!("\"{}\"", visible(text).replace('"', "\"\""))
}

pub fn print(args: &Args, survey: &Survey) -> Result<()> {
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(survey))?);
    }
    if args.csv {
        return csv(&mut out, survey);
    }
    let rounded = match args.dtype {
        WType::I8 => "INT8 dB",
        WType::F32 => "f32 dB",
        WType::Bf16 => "bf16 dB",
        WType::F16 => "f16 dB",
    };
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let columns = [
        "weight",
        "out x in",
        "zeros %",
        "pruned %",
        rounded,
        "pruned dB",
        "both dB",
        "dense us",
        "sparse us",
    ];
    table.set_header(columns.into_iter().chain(["speed-up"]));
    for r in &survey.weights {
        table.add_row([
            visible(&r.name),
            format!("{} x {}", r.out, r.input),
            format!("{:.1}", r.zeros * 100.0),
            format!("{:.1}", r.sparsity * 100.0),
            format!("{:.1}", r.quantized_db),
            format!("{:.1}", r.pruned_db),
            format!("{:.1}", r.both_db),
            format!("{:.0}", r.dense_us),
            format!("{:.0}", r.sparse_us),
            format!("{:.2}", r.speed_up),
        ]);
    }
    (2..10).for_each(|i| tour::right(&mut table, i));
    writeln!(out, "{}: {} blocks, {} tokens, {}", survey.model, survey.block, survey.tokens, survey.isa)?;
    writeln!(out, "{table}")?;
    let sum = |f: fn(&Row) -> f64| survey.weights.iter().map(f).sum::<f64>() / 1e3;
    let (dense, sparse) = (sum(|r| r.dense_us), sum(|r| r.sparse_us));
    if sparse > 0.0 {
        writeln!(out, "all {}: dense {dense:.2} ms, sparse {sparse:.2} ms", survey.weights.len())?;
    }
    for r in &survey.weights {
        if let Some(note) = &r.note {
            writeln!(out, "{}: {note}", visible(&r.name))?;
        }
    }
    for s in &survey.skipped {
        writeln!(out, "skipped {}: {}", visible(&s.name), visible(&s.why))?;
    }
    Ok(())
}

/// A line for each weight, then one for each tensor that was skipped, which has no numbers.
fn csv(out: &mut impl Write, survey: &Survey) -> Result<()> {
    write!(out, "name,dtype,out,in,sparsity,quantized_db,pruned_db,both_db,dense_us,sparse_us,speed_up,")?;
    writeln!(out, "zeros,zero_blocks,dense_below,note")?;
    for r in &survey.weights {
        write!(out, "{},{},{},{},{:.4},", quoted(&r.name), r.dtype, r.out, r.input, r.sparsity)?;
        write!(out, "{:.2},{:.2},{:.2},", r.quantized_db, r.pruned_db, r.both_db)?;
        write!(out, "{},{},{:.3},", r.dense_us, r.sparse_us, r.speed_up)?;
        let note = r.note.as_deref().map(quoted).unwrap_or_default();
        let turn = r.dense_below.map(|turn| format!("{turn:.4}")).unwrap_or_default();
        writeln!(out, "{:.4},{:.4},{turn},{note}", r.zeros, r.zero_blocks)?;
    }
    for s in &survey.skipped {
        writeln!(out, "{},,,,,,,,,,,,,{}", quoted(&s.name), quoted(&format!("skipped: {}", s.why)))?;
    }
    Ok(())
}
