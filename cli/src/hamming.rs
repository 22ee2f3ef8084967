//! `siskin bench --op hamming`: binary codes against binary codes, every distance or the nearest.

use crate::answer::{self, Check, show};
use crate::case::{Op, check_run, ctx, on_threads};
use crate::error::{Error, Result};
use crate::measure::{Peak, PeakOf, repeat};
use crate::problem::{Rng, spread};
use serde::{Deserialize, Serialize};
use siskin::ecoformer::BitCodes;
use siskin::{MatMut, Scratch, measure};
use std::io::Write;
use std::time::Instant;

/// Pairs of codes that a case may have, and words and neighbours: more is refused before memory is taken.
const MOST: u128 = 1 << 30;

/// Bits that a check of a result looks at, about.
const CHECKED: usize = 1 << 24;

#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// What is computed.
    #[arg(long, value_enum, default_value_t = Op::Hamming)]
    pub op: Op,
    /// Codes on the left; as many as on the right if not given.
    #[arg(long, short)]
    pub m: Option<usize>,
    /// Codes on the right.
    #[arg(long, short, default_value_t = 512)]
    pub n: usize,
    /// Bits of a code, 1 to 256.
    #[arg(long, default_value_t = 64)]
    pub bits: usize,
    /// Find the K nearest on the right to each code on the left, instead of all distances.
    #[arg(long, short)]
    pub k: Option<usize>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Milliseconds to measure for.
    #[arg(long, default_value_t = 200)]
    pub min_ms: u64,
    /// Tier of instructions; the best of this CPU if not given.
    #[arg(long)]
    pub isa: Option<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            op: Op::Hamming,
            m: None,
            n: 512,
            bits: 64,
            k: None,
            threads: 1,
            min_ms: 200,
            isa: None,
            seed: 1,
        }
    }
}

impl Case {
    /// Everything that can be refused before memory is taken.
    pub fn check(&self) -> Result<()> {
        if self.op != Op::Hamming {
            return Err(Error::input("op", "hamming for these fields", "another"));
        }
        check_run(self.threads, self.min_ms)?;
        BitCodes::with_capacity(0, self.bits)?;
        for (name, size) in [("m", self.m()), ("n", self.n), ("k", self.k.unwrap_or(1))] {
            if size == 0 {
                return Err(Error::input(name, "at least 1", size));
            }
        }
        let (m, n) = (self.m() as u128, self.n as u128);
        for (name, a, b) in [("m * n", m, n), ("m * k", m, self.k.unwrap_or(1) as u128)] {
            if a * b > MOST {
                let got = format_args!("{a} x {b}");
                return Err(Error::input(name, format_args!("at most {MOST} elements"), got));
            }
        }
        Ok(())
    }

    fn m(&self) -> usize {
        self.m.unwrap_or(self.n)
    }
}

/// Measure one case of binary codes.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    case: Case,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

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
    /// The same tier's exclusive or, population count and sum on registers alone, on as many threads, measured in between.
    pub peak_gbits: f64,
    pub pct_peak: f64,
    /// The same without the sum: no kernel reaches it that adds counts up or narrows them.
    pub peak_alone_gbits: f64,
    pub pct_peak_alone: f64,
    /// The bytes of all distances / us_min; not of the nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_gbps: Option<f64>,
    /// What one thread writes of the same value to the same buffer, measured in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_gbps: Option<f64>,
    #[serde(flatten)]
    pub check: Check,
}

pub fn main(args: &Args) -> Result<()> {
    let answer = answer(&args.case)?;
    show(&answer, args.json)
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

/// Runs a case.
pub fn answer(case: &Case) -> Result<Answer> {
    case.check()?;
    on_threads(case.threads, || on_its_threads(case))
}

/// What comes out, `[m, n]` or twice `[m, k]`.
enum Out {
    All(Vec<u16>),
    Nearest(Vec<u32>, Vec<u16>),
}

fn on_its_threads(case: &Case) -> Result<Answer> {
    let ctx = ctx(case.isa.as_deref(), case.threads)?;
    let (m, n, isa) = (case.m(), case.n, ctx.isa());
    let mut rng = Rng(case.seed);
    let (a, b) = (random(m, case.bits, &mut rng)?, random(n, case.bits, &mut rng)?);
    let mut scratch = Scratch::new();
    let mut out = match case.k {
        None => Out::All(vec![0; m * n]),
        Some(k) => Out::Nearest(vec![0; m * k], vec![0; m * k]),
    };

    let mut peak = Peak::new(PeakOf::Popcount, isa, case.threads);
    let mut alone = Peak::new(PeakOf::PopcountAlone, isa, case.threads);
    let mut fill = Fill { to: case.k.is_none().then(|| vec![0; m * n]), gbps: 0.0 };
    let call = repeat(
        case.min_ms,
        || {
            match (&mut out, case.k) {
                (Out::Nearest(indices, distances), Some(k)) => {
                    let (i, d) = (MatMut::new(indices, m, k)?, MatMut::new(distances, m, k)?);
                    a.nearest(&b, i, d, &ctx, &mut scratch)?;
                }
                (Out::All(distances), _) => {
                    a.hamming(&b, MatMut::new(distances, m, n)?, &ctx, &mut scratch)?
                }
                (Out::Nearest(..), None) => {}
            }
            Ok(())
        },
        || {
            peak.burst();
            alone.burst();
            fill.burst();
        },
    )?;
    let mismatch = check(&a, &b, &out);

    let us = |seconds: f64| (seconds * 1e9).round() / 1e3;
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
        check: Check::new("as a loop over bits, in some rows", mismatch),
    })
}

/// Random codes; all bits equally likely.
pub fn random(len: usize, bits: usize, rng: &mut Rng) -> Result<BitCodes> {
    let each = bits.div_ceil(64);
    let last = u64::MAX >> (64 * each - bits);
    let word = |i: usize| rng.next() & if i % each == each - 1 { last } else { u64::MAX };
    Ok(BitCodes::from_words((0..len * each).map(word).collect(), bits)?)
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

/// Compares some rows with loops over bits: what is wrong.
fn check(a: &BitCodes, b: &BitCodes, out: &Out) -> Option<String> {
    let n = b.len();
    let affordable = CHECKED / (n * a.bits());
    spread(a.len(), affordable.clamp(2, 65)).into_iter().find_map(|i| {
        let distance = |j: usize| (0..a.bits()).filter(|&bit| a.bit(i, bit) != b.bit(j, bit)).count() as u16;
        let want: Vec<u16> = (0..n).map(distance).collect();
        let right = match out {
            Out::All(got) => got[i * n..][..n] == want,
            Out::Nearest(indices, distances) => {
                let k = indices.len() / a.len();
                let mut order: Vec<u32> = (0..n as u32).collect();
                order.sort_by_key(|&j| want[j as usize]);
                order.resize(order.len().max(k), BitCodes::NONE);
                let near = |j: &u32| want.get(*j as usize).copied().unwrap_or(u16::MAX);
                indices[i * k..][..k] == order[..k]
                    && distances[i * k..][..k].iter().copied().eq(order[..k].iter().map(near))
            }
        };
        (!right).then(|| format!("row {i} is not that of a loop over bits"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::from_json;

    #[test]
    fn sizes_are_limited_before_memory_is_taken() {
        for bad in [
            r#"{"n":0}"#,
            r#"{"m":0}"#,
            r#"{"k":0}"#,
            r#"{"bits":0}"#,
            r#"{"bits":257}"#,
            r#"{"n":100000}"#,
            r#"{"m":18446744073709551615,"n":18446744073709551615}"#,
            r#"{"m":1000,"k":18446744073709551615}"#,
            r#"{"threads":0}"#,
            r#"{"op":"linear"}"#,
        ] {
            let case: Case = from_json("case", bad.as_bytes()).unwrap();
            assert!(case.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let mut rng = Rng(1);
        let (a, b) = (random(3, 70, &mut rng).unwrap(), random(5, 70, &mut rng).unwrap());
        let (ctx, mut scratch) = (siskin::Ctx::serial().unwrap(), Scratch::new());
        let mut all = vec![0; 15];
        a.hamming(&b, MatMut::new(&mut all, 3, 5).unwrap(), &ctx, &mut scratch).unwrap();
        assert_eq!(check(&a, &b, &Out::All(all.clone())), None);
        all[7] += 1;
        assert!(check(&a, &b, &Out::All(all)).is_some());
        let (mut indices, mut distances) = (vec![0; 18], vec![0; 18]);
        let (i, d) = (MatMut::new(&mut indices, 3, 6).unwrap(), MatMut::new(&mut distances, 3, 6).unwrap());
        a.nearest(&b, i, d, &ctx, &mut scratch).unwrap();
        assert_eq!(check(&a, &b, &Out::Nearest(indices.clone(), distances.clone())), None);
        indices.swap(12, 13);
        assert!(check(&a, &b, &Out::Nearest(indices, distances)).is_some());
    }
}
