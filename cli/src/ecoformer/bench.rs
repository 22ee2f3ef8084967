//! `siskin bench --op ecoformer`: one case, the hash and the attention apart and together.

use super::case::{Case, Numerator};
use super::problem::Problem;
use crate::attention;
use crate::base::answer::{self, Check};
use crate::base::error::Result;
use crate::base::measure::{Peak, PeakOf, Reader, in_turn, us};
use serde::Serialize;
use siskin::{Ctx, Scratch};
use std::io::Write;

/// Steps that a check of a result takes, about.
const CHECKED: usize = 1 << 23;

/// Pairs of a query and a key that a check of softmax attention looks at, about.
const CHECKED_PAIRS: usize = 1 << 20;

/// The case as it ran, and what it took.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    pub case: Case,
    /// The hash, then attention.
    pub us_min: f64,
    pub us_median: f64,
    /// Of all sequences, / us_min.
    pub tokens_per_s: f64,
    pub hash_us_min: f64,
    pub hash_us_median: f64,
    /// The two products: 2 x tokens x heads x anchors x (head_dim + bits) / hash_us_min.
    pub hash_gops: f64,
    /// Multiply-adds of f32 by this tier on registers alone, on as many threads, measured in between.
    pub peak_gops: f64,
    pub hash_pct_peak: f64,
    /// Exponentials by this tier on a row in the first-level cache, on as many threads, measured in between.
    pub peak_gexps: f64,
    /// Its products at peak_gops, then tokens x heads x anchors exponentials at peak_gexps: what the hash cannot do without.
    pub hash_bound_us: f64,
    pub hash_pct_bound: f64,
    pub attend_us_min: f64,
    pub attend_us_median: f64,
    /// Additions of values to sums, and of those to contexts: 2 x tokens x heads x bits x head_dim / attend_us_min, as many as
    /// there are with each sign for itself, not causal. Four bits of a code at a time, there are fewer.
    pub attend_gadds: f64,
    /// Half of peak_gops: a multiply-add counts as two.
    pub peak_gadds: f64,
    pub attend_pct_additions: f64,
    /// The bytes of the codes, as queries and as keys, of v, of v once more where the numerator is the released one, and of the
    /// output, / attend_us_min.
    pub attend_gbps: f64,
    /// What a plain loop reads of a buffer of as many bytes, on as many threads, measured in between.
    pub read_gbps: f64,
    pub attend_pct_bytes: f64,
    /// The share of the slower of both bounds, which is the larger share.
    pub attend_pct: f64,
    pub attend_bound: Bound,
    /// This crate's softmax attention in f32 of as many tokens, heads and features, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax_us_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax_us_median: Option<f64>,
    /// softmax_us_min / us_min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax_ratio: Option<f64>,
    #[serde(flatten)]
    pub check: Check,
}

/// What attention cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    Additions,
    Bytes,
}

impl answer::Answer for Answer {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let a = self;
        let c = &a.case;
        writeln!(
            out,
            "{} x {} tokens, {} heads of {}, {} anchors, {} bits; {}",
            c.batch,
            c.n,
            c.heads,
            c.head_dim,
            c.anchors,
            c.bits,
            c.isa.as_deref().unwrap_or_default()
        )?;
        let (us, median) = (a.us_min, a.us_median);
        writeln!(out, "  {us:>10.1} us   least of hash and attention (median {median:.1})")?;
        writeln!(out, "  {:>10.2} million tokens a second", a.tokens_per_s / 1e6)?;
        writeln!(out, "  {:>10.1} us   of the hash (median {:.1})", a.hash_us_min, a.hash_us_median)?;
        writeln!(
            out,
            "  {:>10.1} GOP/s of its products, {:.1} % of the peak of {:.1} in f32",
            a.hash_gops, a.hash_pct_peak, a.peak_gops
        )?;
        writeln!(
            out,
            "  {:>10.1} us   of these at the peak and of its exponentials at {:.2} billion a second: {:.1} %",
            a.hash_bound_us, a.peak_gexps, a.hash_pct_bound
        )?;
        writeln!(out, "  {:>10.1} us   of attention (median {:.1})", a.attend_us_min, a.attend_us_median)?;
        let mark = |bound| if a.attend_bound == bound { " <- the bound" } else { "" };
        writeln!(
            out,
            "  {:>10.1} billion additions a second, {:.1} % of the {:.1} that the peak allows{}",
            a.attend_gadds,
            a.attend_pct_additions,
            a.peak_gadds,
            mark(Bound::Additions)
        )?;
        writeln!(
            out,
            "  {:>10.1} GB/s of codes, values and output, {:.1} % of the {:.1} that a plain loop reads{}",
            a.attend_gbps,
            a.attend_pct_bytes,
            a.read_gbps,
            mark(Bound::Bytes)
        )?;
        if let (Some(us), Some(median), Some(ratio)) =
            (a.softmax_us_min, a.softmax_us_median, a.softmax_ratio)
        {
            writeln!(
                out,
                "  {us:>10.1} us   of softmax attention in f32 (median {median:.1}): {ratio:.1} times as long"
            )?;
        }
        Ok(())
    }

    fn check(&self) -> &Check {
        &self.check
    }
}

pub fn measure(case: &Case, ctx: &Ctx) -> Result<Answer> {
    let isa = ctx.isa();
    let problem = Problem::new(case)?;
    let (mut codes, mut y, mut scratch) = (problem.codes()?, problem.output(), Scratch::new());
    let softmax = case.softmax.then(|| attention::Problem::new(&case.softmax())).transpose()?;
    let mut softmax = match &softmax {
        Some(problem) => Some((problem, problem.attention()?, problem.output())),
        None => None,
    };

    let all = (case.n * case.batch * case.heads) as f64;
    let times_v = if case.numerator == Numerator::Released { 2 } else { 1 };
    let of_codes = 2 * 8 * case.bits.div_ceil(64);
    let each = of_codes + case.head_dim * (times_v * case.v.bytes() + size_of::<f32>());
    let bytes = case.n * case.batch * case.heads * each;
    let mut peak = Peak::new(PeakOf::F32, isa, case.threads);
    let mut exponentials = Peak::new(PeakOf::Exponentials, isa, case.threads);
    let mut reader = Reader::new(isa, case.threads, bytes);
    let times = in_turn(
        if case.softmax { 4 } else { 3 },
        case.min_ms,
        |part| {
            if part == 3 {
                if let Some((problem, attention, y)) = &mut softmax {
                    problem.forward(attention, y, ctx, &mut scratch)?;
                }
                return Ok(());
            }
            // Attention alone is of the codes of the call before.
            if part != 2 {
                problem.encode(&mut codes, ctx, &mut scratch)?;
            }
            if part != 1 {
                problem.attend(&codes, &codes, &mut y, ctx, &mut scratch)?;
            }
            Ok(())
        },
        || {
            peak.burst();
            exponentials.burst();
            reader.burst();
        },
    )?;
    let right = problem
        .check_codes(&codes, CHECKED)
        .and_then(|()| problem.check_context(&codes, &codes, &y, CHECKED))
        .and_then(|()| match &softmax {
            Some((problem, _, y)) => problem.check(y, isa, CHECKED_PAIRS),
            None => Ok(()),
        });
    let check =
        Check::new("as plain loops in f64, but for bits too near to tell and 1e-5 of the largest y", right)?;

    let (both, hash, attend) = (times[0], times[1], times[2]);
    let hash_ops = 2.0 * all * (case.anchors * (case.head_dim + case.bits)) as f64;
    let hash_gops = hash_ops / hash.min / 1e9;
    let hash_bound = hash_ops / peak.gops / 1e9 + all * case.anchors as f64 / exponentials.gops / 1e9;
    let attend_gadds = 2.0 * all * (case.bits * case.head_dim) as f64 / attend.min / 1e9;
    let attend_gbps = bytes as f64 / attend.min / 1e9;
    let attend_pct_additions = 100.0 * attend_gadds / (peak.gops / 2.0);
    let attend_pct_bytes = 100.0 * attend_gbps / reader.gbps;
    let of_softmax = times.get(3);
    Ok(Answer {
        case: Case { isa: Some(isa.name().into()), ..case.clone() },
        us_min: us(both.min),
        us_median: us(both.median),
        tokens_per_s: (case.n * case.batch) as f64 / both.min,
        hash_us_min: us(hash.min),
        hash_us_median: us(hash.median),
        hash_gops,
        peak_gops: peak.gops,
        hash_pct_peak: 100.0 * hash_gops / peak.gops,
        peak_gexps: exponentials.gops,
        hash_bound_us: us(hash_bound),
        hash_pct_bound: 100.0 * hash_bound / hash.min,
        attend_us_min: us(attend.min),
        attend_us_median: us(attend.median),
        attend_gadds,
        peak_gadds: peak.gops / 2.0,
        attend_pct_additions,
        attend_gbps,
        read_gbps: reader.gbps,
        attend_pct_bytes,
        attend_pct: attend_pct_additions.max(attend_pct_bytes),
        attend_bound: if attend_pct_additions > attend_pct_bytes { Bound::Additions } else { Bound::Bytes },
        softmax_us_min: of_softmax.map(|times| us(times.min)),
        softmax_us_median: of_softmax.map(|times| us(times.median)),
        softmax_ratio: of_softmax.map(|times| times.min / both.min),
        check,
    })
}
