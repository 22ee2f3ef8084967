//! `siskin bench --op hamming`: binary codes against binary codes, every distance or the nearest.

use super::case::Case;
use super::problem::Problem;
use crate::base::answer::{self, Check};
use crate::base::error::Result;
use crate::base::measure::{Peak, PeakOf, repeat, us};
use serde::Serialize;
use siskin::{Ctx, Scratch, measure};
use std::io::Write;
use std::time::Instant;

/// Bits that a check of a result looks at, about.
const CHECKED: usize = 1 << 24;

/// The case as it ran, and what it took.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    pub case: Case,
    pub kernel: &'static str,
    pub us_min: f64,
    pub us_median: f64,
    /// Pairs of codes / us_min.
    pub gpairs: f64,
    /// Bits compared / us_min.
    pub gbits: f64,
    /// This tier's exclusive or, population count and sum on registers alone, on as many threads, measured in between.
    pub peak_gbits: f64,
    pub pct_peak: f64,
    /// As peak_gbits, without the sum: no kernel reaches it that adds counts up or narrows them.
    pub peak_alone_gbits: f64,
    pub pct_peak_alone: f64,
    /// The bytes of all distances / us_min; not of the nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_gbps: Option<f64>,
    /// What one thread writes of one value to the same buffer, measured in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_gbps: Option<f64>,
    #[serde(flatten)]
    pub check: Check,
}

impl answer::Answer for Answer {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let a = self;
        let c = &a.case;
        let what = c.k.map_or("all distances".into(), |k| format!("the {k} nearest"));
        writeln!(out, "{} x {} codes of {} bits, {what}; {}", c.m(), c.n, c.bits, a.kernel)?;
        writeln!(out, "  {:>10.1} us   least of a call (median {:.1})", a.us_min, a.us_median)?;
        writeln!(out, "  {:>10.2} billion pairs a second, {:.0} Gbit/s", a.gpairs, a.gbits)?;
        let (percent, peak) = (a.pct_peak, a.peak_gbits);
        writeln!(
            out,
            "  {percent:>10.1} % of the peak of {peak:.0}: exclusive or, population count and sum"
        )?;
        let (percent, peak) = (a.pct_peak_alone, a.peak_alone_gbits);
        writeln!(out, "  {percent:>10.1} % of the peak of {peak:.0} without the sum")?;
        if let (Some(write), Some(fill)) = (a.write_gbps, a.fill_gbps) {
            writeln!(out, "  {write:>10.1} GB/s of distances; a plain fill writes {fill:.1}")?;
        }
        Ok(())
    }

    fn check(&self) -> &Check {
        &self.check
    }
}

pub fn measure(case: &Case, ctx: &Ctx) -> Result<Answer> {
    let (m, n, isa) = (case.m(), case.n, ctx.isa());
    let problem = Problem::new(case)?;
    let (mut out, mut scratch) = (problem.output(), Scratch::new());
    let mut peak = Peak::new(PeakOf::Popcount, isa, case.threads);
    let mut alone = Peak::new(PeakOf::PopcountAlone, isa, case.threads);
    let mut fill = Fill { to: case.k.is_none().then(|| vec![0; m * n]), gbps: 0.0 };
    let call = repeat(
        case.min_ms,
        || problem.forward(&mut out, ctx, &mut scratch),
        || {
            peak.burst();
            alone.burst();
            fill.burst();
        },
    )?;
    let check = Check::new("as a loop over bits, in some rows", problem.check(&out, CHECKED))?;

    let gpairs = (m * n) as f64 / call.min / 1e9;
    let gbits = gpairs * case.bits as f64;
    let stores = case.k.is_none();
    Ok(Answer {
        case: Case { isa: Some(isa.name().into()), m: Some(m), ..case.clone() },
        kernel: measure::codes_kernel(isa),
        us_min: us(call.min),
        us_median: us(call.median),
        gpairs,
        gbits,
        peak_gbits: peak.gops,
        pct_peak: 100.0 * gbits / peak.gops,
        peak_alone_gbits: alone.gops,
        pct_peak_alone: 100.0 * gbits / alone.gops,
        write_gbps: stores.then_some(2.0 * gpairs),
        fill_gbps: stores.then_some(fill.gbps),
        check,
    })
}

/// The fastest that a buffer as large as the output is filled.
struct Fill {
    to: Option<Vec<u16>>,
    gbps: f64,
}

impl Fill {
    fn burst(&mut self) {
        let Some(to) = &mut self.to else { return };
        for value in 0..3 {
            let start = Instant::now();
            to.fill(std::hint::black_box(value));
            std::hint::black_box(&*to);
            self.gbps = self.gbps.max(2.0 * to.len() as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
    }
}
