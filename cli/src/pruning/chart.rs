//! What is left of a model against its sparsity, as a picture: a chart for the texts of each domain, and one for graded pairs.

use super::report::{Report, Row};
use crate::base::picture::{self, Area, Drawn};
use plotters::prelude::*;

/// The rows that are drawn.
pub const PRECISION: &str = "INT8";

const COLOURS: [RGBColor; 8] = [
    RGBColor(0x1f, 0x61, 0x8d),
    RGBColor(0xb0, 0x3a, 0x2e),
    RGBColor(0x1e, 0x84, 0x49),
    RGBColor(0xb9, 0x77, 0x0e),
    RGBColor(0x6c, 0x34, 0x83),
    RGBColor(0x11, 0x7a, 0x8b),
    RGBColor(0x7b, 0x5b, 0x3a),
    RGBColor(0x56, 0x5f, 0x66),
];

/// Width and height of a chart.
const CHART: (u32, u32) = (620, 460);

/// Points of models of one name in one block shape, by sparsity.
struct Line<'a> {
    name: String,
    colour: RGBColor,
    rows: Vec<&'a Row>,
}

/// The picture, as SVG.
pub fn draw(report: &Report, title: &str) -> Drawn<String> {
    let charts = report.domains.len() + 1;
    let down = charts.div_ceil(2);
    let size = (2 * CHART.0, 70 + down as u32 * CHART.1);
    let of = format!("computed in {PRECISION}; models of one method and block shape are joined by lines");
    picture::svg(size, [title, &of], |area| {
        let areas = area.split_evenly((down, 2));
        for (i, (area, domain)) in areas.iter().zip(&report.domains).enumerate() {
            let what = format!("mean cosine to the whole model in f32, {}", domain.name);
            let (dense, lines) = series(report, &domain.name);
            chart(area, &what, i == 0, &dense, &lines, |row| Some(row.cosine_mean))?;
        }
        let what = format!("Spearman with the grades of {} pairs", report.graded.pairs);
        let (dense, lines) = series(report, &report.domains[0].name);
        chart(&areas[charts - 1], &what, false, &dense, &lines, |row| row.spearman_graded)
    })
}

/// The rows of a domain: those of whole models, and a line for each name and block shape.
fn series<'a>(report: &'a Report, domain: &str) -> (Vec<&'a Row>, Vec<Line<'a>>) {
    let rows = report.rows.iter().filter(|row| row.domain == domain && row.precision == PRECISION);
    let (pruned, dense): (Vec<_>, Vec<_>) = rows.partition(|row| row.block.is_some());
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in pruned {
        let name = format!("{} {}", row.weights, row.block.as_deref().unwrap_or_default());
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.rows.push(row),
            None => {
                let colour = COLOURS[lines.len() % COLOURS.len()];
                lines.push(Line { name, colour, rows: vec![row] });
            }
        }
    }
    lines.iter_mut().for_each(|line| line.rows.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity)));
    (dense, lines)
}

/// One chart: whole models as crosses, and lines.
fn chart(
    area: &Area<'_>,
    what: &str,
    keyed: bool,
    dense: &[&Row],
    lines: &[Line<'_>],
    value: impl Fn(&Row) -> Option<f64>,
) -> Drawn {
    let point = |row: &Row| Some((100.0 * row.sparsity, value(row)?));
    let all = dense.iter().chain(lines.iter().flat_map(|line| &line.rows));
    let least = all.clone().filter_map(|row| value(row)).fold(0.9, f64::min);
    let far = all.map(|row| 100.0 * row.sparsity).fold(50.0, f64::max);
    let (from, to) = ((10.0 * least - 0.5).floor() / 10.0, 5.0 + far);
    let mut chart = ChartBuilder::on(area)
        .caption(what, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(-3.0..to, from..1.02)?;
    chart
        .configure_mesh()
        .x_desc("part of the weights that is 0, in %")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| format!("{v:.2}"))
        .label_style(("sans-serif", 14))
        .light_line_style(picture::FAINT)
        .bold_line_style(picture::GRID)
        .draw()?;
    for line in lines {
        let colour = line.colour;
        let points = line.rows.iter().filter_map(|row| point(row));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(4))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
    }
    let crosses =
        dense.iter().filter_map(|row| point(row)).map(|at| Cross::new(at, 6, BLACK.stroke_width(2)));
    chart
        .draw_series(crosses)?
        .label("dense")
        .legend(|(x, y)| Cross::new((x + 11, y), 6, BLACK.stroke_width(2)));
    if keyed { picture::key(&mut chart, SeriesLabelPosition::LowerLeft) } else { Ok(()) }
}
