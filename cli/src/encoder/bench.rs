//! `siskin bert bench`: an encoder as a whole, measured.

use super::measure::{Case, Dtype, Heads, Measured, block, run};
use crate::base::error::{Error, Result};
use crate::base::json::to_json;
use crate::base::settings::{Bf16Pairs, Settings};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use siskin::sparse::BlockShape;
use siskin_bert::Stage;
use std::io::{Write, stdout};

/// Measure an encoder: the time of a call, and where it goes.
///
/// Times are of whole calls, from tokens to vectors, on texts of random tokens. Those of stages are the mean of further calls.
#[derive(clap::Args)]
pub struct Args {
    /// A folder with a checkpoint, or minilm, bert-mini, distilbert, bert-base or bert-large: generated weights of that shape.
    #[arg(long, default_value = "minilm")]
    model: String,
    /// What attention of generated weights is: the recipes of Quantizable Transformers for BERT.
    #[arg(long, value_enum, default_value_t)]
    attention: Heads,
    /// Part of the blocks of all linear layers that is pruned by magnitude: for speed alone.
    #[arg(long, default_value_t = 0.0)]
    sparsity: f64,
    /// Block, rows x columns.
    #[arg(long, default_value = "4x1", value_parser = block)]
    block: BlockShape,
    /// Tokens of a text.
    #[arg(long, default_value_t = 128)]
    seq: usize,
    /// Texts.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Texts of these many tokens in one batch, such as 16,128,300. Its time stands beside that of the texts one by one.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["seq", "batch"])]
    lengths: Vec<usize>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// What is computed in.
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// INT8 by ranges that were seen before, not token by token.
    #[arg(long = "static")]
    by_ranges: bool,
    /// Milliseconds to measure for.
    #[arg(long, default_value_t = 1000)]
    min_ms: u64,
    /// Print JSON, on one line.
    #[arg(long)]
    json: bool,
}

impl Settings for Args {
    fn isa(&self) -> Option<&str> {
        None
    }

    fn bf16_pairs(&self) -> Bf16Pairs {
        Bf16Pairs::IfFaster
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn min_ms(&self) -> u64 {
        self.min_ms
    }
}

pub fn main(args: &Args) -> Result<()> {
    args.check_settings()?;
    if !(0.0..1.0).contains(&args.sparsity) {
        return Err(Error::input("--sparsity", "0 to below 1", args.sparsity));
    }
    if args.by_ranges && args.dtype != Dtype::Int8 {
        return Err(Error::input("--static", "--dtype int8", "another type"));
    }
    let lengths = args.lengths.iter().map(|&length| ("--lengths", length));
    for (flag, count) in [("--seq", args.seq), ("--batch", args.batch)].into_iter().chain(lengths) {
        if !(1..=1 << 16).contains(&count) {
            return Err(Error::input(flag, "1 to 65536", count));
        }
    }
    let (flag, tokens, seq, batch) = match args.lengths.iter().max() {
        None => ("--batch", args.seq * args.batch, args.seq, args.batch),
        Some(&most) => ("--lengths", args.lengths.iter().sum(), most, args.lengths.len()),
    };
    if tokens > 1 << 20 {
        return Err(Error::input(flag, "at most 1048576 tokens of all texts", tokens));
    }
    let case = Case {
        model: args.model.clone(),
        attention: args.attention,
        sparsity: args.sparsity,
        block: format!("{}x{}", args.block.rows(), args.block.cols()),
        dtype: args.dtype,
        by_ranges: args.by_ranges,
        seq,
        batch,
        lengths: args.lengths.clone(),
        threads: args.threads,
    };
    let measured = args.on_threads(|ctx| run(&case, args.block, args.min_ms, ctx))?;
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(&measured))?);
    }
    print(&measured, &mut out)
}

fn print(m: &Measured, out: &mut impl Write) -> Result<()> {
    let case = &m.case;
    let weights = if m.generated { "generated weights" } else { "the folder's weights" };
    let how = if case.by_ranges { ", static" } else { "" };
    let heads = match case.attention {
        Heads::Standard => "",
        Heads::Clipped => ", clipped attention",
        Heads::Gated => ", gated attention",
    };
    let (dtype, threads) = (case.dtype, case.threads);
    writeln!(out, "{}: {weights}{heads}, {dtype:?}{how}, {} on {threads} threads", case.model, m.isa)?;
    let up_to = if m.us_one_by_one.is_some() { "up to " } else { "" };
    writeln!(out, "{} texts of {up_to}{} tokens, {} calls", case.batch, case.seq, m.calls)?;
    if let Some(note) = m.note {
        writeln!(out, "{:.1} % in blocks of {}: {note}", 100.0 * m.zeros, case.block)?;
    }
    writeln!(
        out,
        "  {:>12.1} us at least\n  {:>12.1} us median\n  {:>12.1} us 99 %",
        m.us_min, m.us_p50, m.us_p99
    )?;
    if let Some(us) = m.us_one_by_one {
        writeln!(out, "  {us:>12.1} us one by one, at least")?;
    }
    writeln!(out, "  {:>12.0} tokens/s", m.tokens_per_s)?;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["stage", "us", "%"]);
    let time = |stage: Stage| m.stages.get(stage.name()).and_then(|time| time.as_f64()).unwrap_or_default();
    let total: f64 = Stage::ALL.map(time).iter().sum();
    for stage in Stage::ALL {
        let (us, part) = (time(stage), 100.0 * time(stage) / total.max(f64::MIN_POSITIVE));
        table.add_row([stage.name().to_string(), format!("{us:.1}"), format!("{part:.1}")]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(writeln!(out, "{table}")?)
}
