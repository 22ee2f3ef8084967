//! `siskin energy`: the operations and the energy of whole models, with softmax attention and with EcoFormer's.

use crate::base::error::{Error, Result};
use crate::base::json::to_json;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use siskin::ecoformer::energy::{Attention, Counts, Model};
use std::io::{Write, stdout};

/// Say what EcoFormer saves, by the operation counts of its authors.
///
/// For an image of 224 x 224 pixels, in f32 at 45 nm: 3.7 pJ a multiplication, 0.9 pJ an addition.
#[derive(clap::Args)]
pub struct Args {
    /// pvtv2-b0 .. pvtv2-b4, twins-svt-s, twins-svt-b or twins-svt-l; all if missing.
    model: Option<String>,
    /// Bits of a code.
    #[arg(long, default_value_t = 16)]
    bits: u32,
    /// Anchors of the kernel.
    #[arg(long, default_value_t = 25)]
    anchors: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    model: &'static str,
    bits: u32,
    anchors: u32,
    softmax: Cost,
    ecoformer: Cost,
    /// Of the energy.
    saved: f64,
    /// What the authors do not count of EcoFormer's operations.
    uncounted: Cost,
}

#[derive(Serialize)]
struct Cost {
    multiplications: u128,
    additions: u128,
    energy_pj: f64,
    area_um2: u128,
}

impl From<Counts> for Cost {
    fn from(counts: Counts) -> Self {
        Self {
            multiplications: counts.multiplications,
            additions: counts.additions,
            energy_pj: counts.energy_pj(),
            area_um2: counts.area_um2(),
        }
    }
}

impl Row {
    fn new(model: &Model, bits: u32, anchors: u32) -> Self {
        let [softmax, ecoformer]: [Cost; 2] =
            [Attention::Softmax, Attention::EcoFormer { bits, anchors }].map(|a| model.counts(a).into());
        let saved = 1.0 - ecoformer.energy_pj / softmax.energy_pj;
        let uncounted = model.uncounted(anchors).into();
        Self { model: model.name, bits, anchors, softmax, ecoformer, saved, uncounted }
    }
}

/// What a reader of the table must know.
const NOTES: &str = "\
mul, add    of a whole model, in thousand millions: attention as the authors count it, and each product of a
            convolution or linear layer as one of both
left out    what they do not count of EcoFormer's: the squarings of the kernel's distances, the L2 normalization and
            the bandwidth, as part of its energy. Exponentials, roots and divisions are counted on neither side
Twins       half of its blocks in the first three stages attend within 7 x 7 windows, but softmax is counted over all
            tokens: its saving is overstated
A model of hardware whose additions are cheap: a CPU's time is another matter.";

pub fn main(args: &Args) -> Result<()> {
    let models = match args.model.as_deref() {
        None => Model::ALL.to_vec(),
        Some(name) => match Model::named(name) {
            Some(model) => vec![model],
            None => {
                let names = Model::ALL.map(|model| model.name).join(", ");
                return Err(Error::input("model", format_args!("one of {names}"), name));
            }
        },
    };
    let rows: Vec<Row> = models.iter().map(|model| Row::new(model, args.bits, args.anchors)).collect();
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(&rows))?);
    }
    writeln!(out, "{}", table(&rows))?;
    Ok(writeln!(out, "{NOTES}")?)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "model",
        "softmax mul G",
        "add G",
        "G pJ",
        "ecoformer mul G",
        "add G",
        "G pJ",
        "saved",
        "left out",
    ]);
    for row in rows {
        let cost = |cost: &Cost| {
            [cost.multiplications as f64, cost.additions as f64, cost.energy_pj]
                .map(|v| format!("{:.3}", v / 1e9))
        };
        let left_out = row.uncounted.energy_pj / row.ecoformer.energy_pj;
        let shares = [format!("{:.1} %", 100.0 * row.saved), format!("{:.1} %", 100.0 * left_out)];
        let cells = [cost(&row.softmax), cost(&row.ecoformer)].into_iter().flatten().chain(shares);
        table.add_row(std::iter::once(row.model.to_string()).chain(cells));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
