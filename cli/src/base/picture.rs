//! Pictures as SVG, all in one style: on a white ground, so that they can be read on a dark page too.

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

/// What fails in drawing, whatever it is.
pub type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A picture, or a part of it.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Lines of a grid that have a label, and those between them.
pub const GRID: RGBColor = RGBColor(0xd0, 0xd0, 0xd0);
pub const FAINT: RGBColor = RGBColor(0xec, 0xec, 0xec);

/// A picture of this size with a title, a line below it, and what is drawn into the rest.
pub fn svg(size: (u32, u32), [title, of]: [&str; 2], draw: impl FnOnce(&Area<'_>) -> Drawn) -> Drawn<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let rest = root.margin(10, 6, 6, 14).titled(title, ("sans-serif", 24))?;
        draw(&rest.titled(of, ("sans-serif", 15))?)?;
        root.present()?;
    }
    Ok(svg)
}

/// Says in a corner of a chart which line is which.
pub fn key<'a, 'b: 'a, X: Ranged, Y: Ranged>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    corner: SeriesLabelPosition,
) -> Drawn {
    chart
        .configure_series_labels()
        .position(corner)
        .label_font(("sans-serif", 15))
        .background_style(WHITE)
        .border_style(GRID)
        .draw()?;
    Ok(())
}
