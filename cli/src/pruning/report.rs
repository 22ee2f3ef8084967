//! What `siskin bert accuracy` prints.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub domains: Vec<Domain>,
    pub graded: Pairs,
    pub rows: Vec<Row>,
}

/// Texts of one kind.
#[derive(Serialize)]
pub struct Domain {
    pub name: String,
    pub texts: usize,
    /// Pairs of them whose similarities are compared.
    pub pairs: usize,
}

/// Pairs of texts of which it is known how related they are.
#[derive(Serialize)]
pub struct Pairs {
    pub name: String,
    pub pairs: usize,
}

/// A model in a precision on the texts of a domain, against the whole model in f32.
#[derive(Serialize)]
pub struct Row {
    pub domain: String,
    pub weights: String,
    /// The blocks that its zeros lie in.
    pub block: Option<String>,
    pub precision: String,
    /// Of all linear layers: the part of the weights that is 0.
    pub sparsity: f64,
    pub cosine_mean: f64,
    pub cosine_median: f64,
    pub cosine_least: f64,
    /// Null where all similarities are the same.
    pub spearman: Option<f64>,
    /// As `spearman`, of the graded pairs; the same for all domains.
    pub spearman_pairs: Option<f64>,
    /// Of the similarities of graded pairs with their grades; the same for all domains.
    pub spearman_graded: Option<f64>,
    /// The part of the nearest neighbours that are the same, and of the ten nearest.
    pub top_1: f64,
    pub top_10: f64,
}

impl Report {
    /// A table for each domain.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}; graded: {} pairs of {}", self.model, self.graded.pairs, self.graded.name)?;
        for domain in &self.domains {
            writeln!(out, "\n{}: {} texts, {} pairs of them", domain.name, domain.texts, domain.pairs)?;
            writeln!(out, "{}", table(self.rows.iter().filter(|row| row.domain == domain.name)))?;
        }
        Ok(())
    }
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "weights",
        "blocks",
        "",
        "zeros",
        "cosine mean",
        "median",
        "least",
        "Spearman",
        "of pairs",
        "graded",
        "top 1",
        "top 10",
    ]);
    for row in rows {
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let known = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.4}"));
        let first = [row.weights.clone(), row.block.clone().unwrap_or("-".into()), row.precision.clone()];
        let cosines = [row.cosine_mean, row.cosine_median, row.cosine_least].map(|v| format!("{v:.4}"));
        let ranks = [row.spearman, row.spearman_pairs, row.spearman_graded].map(known);
        let cells = first.into_iter().chain([percent(row.sparsity)]).chain(cosines).chain(ranks);
        table.add_row(cells.chain([row.top_1, row.top_10].map(percent)));
    }
    table.column_iter_mut().skip(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
