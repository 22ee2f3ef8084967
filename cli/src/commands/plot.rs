//! `siskin plot`: time against the length of a sequence, of three kinds of attention, as a picture.

use super::info::cpu_name;
use crate::attention::{self, Softmax};
use crate::base::error::{Error, Result};
use crate::base::family::{answer, check};
use crate::base::output::{self, Output};
use crate::base::picture::{self, Drawn};
use crate::base::progress;
use crate::base::settings::ctx;
use crate::base::types::DType;
use crate::ecoformer;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use plotters::prelude::*;
use std::path::PathBuf;

/// Draw the time of attention against the length of a sequence.
///
/// Of softmax attention in f32, of clipped softmax attention in INT8 (gamma is -4 / N) and of EcoFormer, hash included, on one
/// thread, each result checked: prints the times and writes an SVG, both axes logarithmic. All lengths are measured in rounds, two or
/// more (one with --quick) until the two fastest agree within 5 %, six at most: a point is the fastest, a bar reaches to the slowest.
#[derive(clap::Args)]
pub struct Args {
    /// Where the picture goes, an SVG file; - is standard output.
    #[arg(long, long_help = format!("Where the picture goes, an SVG file.\n\n{}", output::RULE))]
    out: PathBuf,
    /// Lengths, comma-separated, at least two.
    #[arg(long, value_delimiter = ',', default_values_t = [196, 392, 784, 1568, 3136, 6272, 12544])]
    lengths: Vec<usize>,
    /// Heads.
    #[arg(long, default_value_t = 1)]
    heads: usize,
    /// Features of a head.
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    /// Milliseconds to measure each for.
    #[arg(long, default_value_t = 100)]
    min_ms: u64,
    /// Draw short lengths, each measured as few times as can be: to see that it works.
    #[arg(long, conflicts_with_all = ["lengths", "min_ms"])]
    quick: bool,
    /// Tier of instructions; the best of this CPU if not given.
    #[arg(long)]
    isa: Option<String>,
}

/// What is drawn, in this order, and its colour.
const SERIES: [(&str, RGBColor); 3] = [
    ("softmax, f32", RGBColor(0xb0, 0x3a, 0x2e)),
    ("clipped softmax, INT8", RGBColor(0xb9, 0x77, 0x0e)),
    ("EcoFormer: hash + attention", RGBColor(0x1f, 0x61, 0x8d)),
];

/// Microseconds at a length.
struct Point {
    n: usize,
    /// The least of all rounds.
    us: [f64; 3],
    /// The least of the slowest round.
    most: [f64; 3],
}

/// Rounds over all lengths: at least so many, and at most, until the two fastest of each time agree.
const ROUNDS: (usize, usize) = (2, 6);
/// How near is agreement.
const AGREE: f64 = 1.05;

pub fn main(args: &Args) -> Result<()> {
    let (mut lengths, min_ms) = match args.quick {
        true => (vec![49, 98, 196], 0),
        false => (args.lengths.clone(), args.min_ms),
    };
    lengths.sort_unstable();
    lengths.dedup();
    if lengths.len() < 2 {
        return Err(Error::input("--lengths", "at least two", lengths.len()));
    }
    let isa = ctx(args.isa.as_deref(), 1)?.isa();
    let cases: Vec<_> = lengths.iter().map(|&n| Cases::new(args, n, min_ms)).collect::<Result<_>>()?;
    let out = Output::new(&args.out, &[])?;
    let (least, most) = if args.quick { (1, 1) } else { ROUNDS };
    let bar = progress::bar(cases.len() * least, "measuring");
    // Of each length, its rounds. The lengths take turns: what slows the machine down for a while hits one round of each.
    let mut rounds: Vec<Vec<[f64; 3]>> = vec![Vec::new(); cases.len()];
    for round in 0..most {
        for (cases, rounds) in cases.iter().zip(&mut rounds) {
            if round < least || !settled(rounds) {
                rounds.push(cases.measure()?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let points: Vec<_> = lengths.iter().zip(&rounds).map(|(&n, rounds)| Point::new(n, rounds)).collect();
    let of = format!("{} on one thread of {}", isa.name(), cpu_name());
    let heads = format!("{} {} of {} features", args.heads, plural(args.heads), args.head_dim);
    let picture = draw(&points, &format!("Attention, {heads}"), &of)
        .map_err(|e| Error::file(&args.out, format_args!("cannot be drawn: {e}")))?;
    out.write(picture.as_bytes())?;
    out.say(&format!("{heads}; {of}; microseconds\n{}\n", table(&points)))
}

/// Whether the two fastest rounds of each series agree.
fn settled(rounds: &[[f64; 3]]) -> bool {
    (0..3).all(|i| {
        let mut us: Vec<f64> = rounds.iter().map(|round| round[i]).collect();
        us.sort_unstable_by(f64::total_cmp);
        matches!(us[..], [first, second, ..] if second <= AGREE * first)
    })
}

impl Point {
    fn new(n: usize, rounds: &[[f64; 3]]) -> Self {
        let of = |pick: fn(f64, f64) -> f64| {
            let mut all = rounds.iter().copied();
            let first = all.next().unwrap_or([f64::NAN; 3]);
            all.fold(first, |a, b| [0, 1, 2].map(|i| pick(a[i], b[i])))
        };
        Self { n, us: of(f64::min), most: of(f64::max) }
    }
}

fn plural(heads: usize) -> &'static str {
    if heads == 1 { "head" } else { "heads" }
}

/// What is measured at a length.
struct Cases {
    ecoformer: ecoformer::Case,
    clipped: attention::Case,
}

impl Cases {
    /// All of it checked.
    fn new(args: &Args, n: usize, min_ms: u64) -> Result<Self> {
        let ecoformer = ecoformer::Case {
            n,
            heads: args.heads,
            head_dim: args.head_dim,
            softmax: true,
            min_ms,
            isa: args.isa.clone(),
            ..ecoformer::Case::default()
        };
        let clipped = attention::Case {
            dtype: DType::Int8,
            softmax: Softmax::Alpha { alpha: 4.0, max_len: n },
            ..ecoformer.softmax()
        };
        check(&ecoformer)?;
        check(&clipped)?;
        Ok(Self { ecoformer, clipped })
    }

    fn measure(&self) -> Result<[f64; 3]> {
        let eco = answer(&self.ecoformer)?;
        let clipped = answer(&self.clipped)?;
        if let Some(what) = eco.check.mismatch.or(clipped.check.mismatch) {
            return Err(Error::Wrong(what));
        }
        Ok([eco.softmax_us_min.unwrap_or(f64::NAN), clipped.us_min, eco.us_min])
    }
}

fn table(points: &[Point]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let names = SERIES.map(|(name, _)| name);
    table.set_header(["tokens"].into_iter().chain(names).chain(["times faster than f32"]));
    for p in points {
        let us = [0, 1, 2].map(|i| match p.most[i] > p.us[i] {
            true => format!("{:.1} to {:.1}", p.us[i], p.most[i]),
            false => format!("{:.1}", p.us[i]),
        });
        let ratio = format!("{:.1}", p.us[0] / p.us[2]);
        table.add_row([p.n.to_string()].into_iter().chain(us).chain([ratio]));
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// The picture, as SVG.
fn draw(points: &[Point], title: &str, of: &str) -> Drawn<String> {
    let all = || points.iter().flat_map(|p| p.us.into_iter().chain(p.most));
    let (least, most) = all().fold((f64::MAX, 0f64), |(least, most), us| (least.min(us), most.max(us)));
    let lengths: Vec<f64> = points.iter().map(|p| p.n as f64).collect();
    let x = (lengths[0]..lengths[lengths.len() - 1]).log_scale().with_key_points(lengths);
    let y = (least / 1.5..most * 1.5).log_scale();

    picture::svg((900, 600), [title, of], |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(48)
            .y_label_area_size(76)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc("tokens of a sequence")
            .y_desc("time of a call")
            .x_label_formatter(&|n| format!("{n}"))
            .y_label_formatter(&|us| time(*us))
            .label_style(("sans-serif", 14))
            .light_line_style(picture::FAINT)
            .bold_line_style(picture::GRID)
            .draw()?;
        for (i, (name, colour)) in SERIES.into_iter().enumerate() {
            let line = points.iter().map(|p| (p.n as f64, p.us[i]));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(4))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
            // From the fastest round to the slowest.
            let spread = |p: &Point| {
                let (n, us, most) = (p.n as f64, p.us[i], p.most[i]);
                ErrorBar::new_vertical(n, us, us, most, colour.stroke_width(1), 6)
            };
            chart.draw_series(points.iter().filter(|p| p.most[i] > p.us[i]).map(spread))?;
        }
        picture::key(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}

/// Microseconds in the unit that people would say.
fn time(us: f64) -> String {
    match us {
        ..1e3 => format!("{us} µs"),
        ..1e6 => format!("{} ms", us / 1e3),
        _ => format!("{} s", us / 1e6),
    }
}
