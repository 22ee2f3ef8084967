//! `siskin bench --op attention`: one case.

use super::case::Case;
use super::check::has_pairs;
use super::problem::Problem;
use crate::base::answer::{self, Check};
use crate::base::error::{Error, Result};
use crate::base::measure::{Peak, PeakOf, Reader, repeat, us};
use crate::base::types::DType;
use serde::Serialize;
use siskin::attention::AttentionStats;
use siskin::{Ctx, Scratch};
use std::io::Write;

/// Pairs of a query and a key that a check of a result looks at, about.
const CHECKED: usize = 1 << 20;

/// The case as it ran, and what it took.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    pub case: Case,
    pub us_min: f64,
    pub us_median: f64,
    /// Pairs of a query and a key that is there, over all heads.
    pub pairs: u64,
    /// 4 x head_dim x pairs / us_min, whatever was skipped.
    pub gops: f64,
    /// Multiplications of these numbers by this tier on registers alone, on as many threads, measured in between.
    pub peak_gops: f64,
    pub peak_of: PeakOf,
    pub pct_peak: f64,
    /// The bytes of k and v, once, / us_min.
    pub gbps: f64,
    /// What a plain loop reads of a buffer as large as k and v, on as many threads, measured in between; of few queries over
    /// many keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_gbps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pct_read: Option<f64>,
    /// Shares of the pairs: whose v was not multiplied, and whose weight is 0 by the clip.
    pub skipped: f64,
    pub zeros: f64,
    /// Of bytes, by how much of a query's weight its rounded weights are off, on average.
    pub lost: f64,
    #[serde(flatten)]
    pub check: Check,
}

impl answer::Answer for Answer {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let a = self;
        let c = &a.case;
        let of = if c.is_packed() {
            format!("{} packed sequences", c.cu_seqlens.len() - 1)
        } else {
            format!("{} x {} queries over {} keys", c.batch(), c.seq(), c.kv_len())
        };
        writeln!(out, "{of}, {} heads of {}; {}", c.heads, c.head_dim, c.isa.as_deref().unwrap_or_default())?;
        writeln!(out, "  {:>10.1} us   least of a call (median {:.1})", a.us_min, a.us_median)?;
        let (percent, peak, of) = (a.pct_peak, a.peak_gops, a.peak_of.name());
        writeln!(out, "  {:>10.1} GOP/s, {percent:.1} % of the peak of {peak:.1} in {of}", a.gops)?;
        match a.read_gbps {
            Some(read) => writeln!(out, "  {:>10.1} GB/s of k and v; a plain loop reads {read:.1}", a.gbps)?,
            None => writeln!(out, "  {:>10.1} GB/s of k and v, read once", a.gbps)?,
        }
        let (zeros, skipped) = (100.0 * a.zeros, 100.0 * a.skipped);
        writeln!(
            out,
            "  {zeros:>10.1} % of the weights are 0 by the clip, {skipped:.1} % were not multiplied"
        )?;
        Ok(())
    }

    fn check(&self) -> &Check {
        &self.check
    }
}

pub fn measure(case: &Case, ctx: &Ctx) -> Result<Answer> {
    let isa = ctx.isa();
    let problem = Problem::new(case)?;
    let attention = problem.attention()?;
    let (mut y, mut scratch) = (problem.output(), Scratch::new());
    let mut skipped = AttentionStats::default();

    let peak_of = match case.dtype {
        DType::Int8 => PeakOf::Int8,
        DType::Bf16 if has_pairs(isa) => PeakOf::Bf16,
        DType::F32 | DType::Bf16 | DType::F16 => PeakOf::F32,
    };
    let bytes = 2 * problem.places[1].elements() * case.dtype.bytes();
    let mut peak = Peak::new(peak_of, isa, case.threads);
    let mut reader = case.is_decode().then(|| Reader::new(isa, case.threads, bytes));
    let yardsticks = || {
        peak.burst();
        if let Some(reader) = &mut reader {
            reader.burst();
        }
    };
    let call = repeat(
        case.min_ms,
        || {
            skipped = problem.forward(&attention, &mut y, ctx, &mut scratch)?;
            Ok(())
        },
        yardsticks,
    )?;

    let (pairs, _) = problem.pairs();
    let counted = if skipped.pairs == pairs {
        Ok(())
    } else {
        Err(Error::Wrong(format!("{} pairs were counted of {pairs}", skipped.pairs)))
    };
    let check = Check::new(
        match (problem.in_bytes(), problem.in_pairs(isa)) {
            (true, _) => {
                "as a plain loop in f64 with the same quantizers, but for a step where two bytes are as near"
            }
            (_, true) => "as a plain loop in f64, but for 0.02 of the largest v and the rounding of y",
            _ => "as a plain loop in f64, but for 1e-5 of the largest y and the rounding of y",
        },
        counted.and_then(|()| problem.check(&y, isa, CHECKED)),
    )?;

    let gops = 4.0 * case.head_dim as f64 * pairs as f64 / call.min / 1e9;
    let gbps = bytes as f64 / call.min / 1e9;
    let read_gbps = reader.map(|r| r.gbps);
    let same_lengths = |len: usize| (!case.is_packed()).then_some(len);
    Ok(Answer {
        case: Case {
            isa: Some(isa.name().into()),
            seq: same_lengths(case.seq()),
            kv_len: same_lengths(case.kv_len()),
            batch: same_lengths(case.batch()),
            kv_heads: Some(case.kv_heads()),
            y: Some(case.y()),
            ..case.clone()
        },
        us_min: us(call.min),
        us_median: us(call.median),
        pairs,
        gops,
        peak_gops: peak.gops,
        peak_of,
        pct_peak: 100.0 * gops / peak.gops,
        gbps,
        read_gbps,
        pct_read: read_gbps.map(|read| 100.0 * gbps / read),
        skipped: skipped.share(),
        zeros: skipped.zeros as f64 / skipped.pairs.max(1) as f64,
        lost: skipped.lost_weight(),
        check,
    })
}
