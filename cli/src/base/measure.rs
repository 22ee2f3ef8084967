//! Time, and what a time is held against.

use super::error::Result;
use serde::Serialize;
use siskin::{Isa, measure};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How long a yardstick runs at a time, and how much measured work lies between two.
const BURST: Duration = Duration::from_millis(1);
const BETWEEN: Duration = Duration::from_millis(20);

/// Seconds of one call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub min: f64,
    pub median: f64,
}

/// Seconds as microseconds, to the nanosecond.
pub fn us(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3
}

/// Repeats a call for at least `min_ms` and at least 5 times, after warming up. `between` runs before, after and every
/// now and then: what it measures has met the same clock frequency.
pub fn repeat(min_ms: u64, mut call: impl FnMut() -> Result<()>, between: impl FnMut()) -> Result<Times> {
    Ok(in_turn(1, min_ms, |_| call(), between)?.swap_remove(0))
}

/// As [`repeat`], of the calls 0 to below `count`: they take turns, so all have met the same clock frequency.
pub fn in_turn(
    count: usize,
    min_ms: u64,
    mut call: impl FnMut(usize) -> Result<()>,
    mut between: impl FnMut(),
) -> Result<Vec<Times>> {
    let enough = Duration::from_millis(min_ms);
    for which in 0..count {
        let warm = Instant::now();
        call(which)?;
        call(which)?;
        while warm.elapsed() < enough / 10 {
            call(which)?;
        }
    }
    between();
    let mut times: Vec<_> = (0..count).map(|_| (Vec::with_capacity(1 << 16), Duration::ZERO)).collect();
    let done = |times: &Vec<f64>, spent| times.len() >= 5 && spent >= enough;
    while !times.iter().all(|(times, spent)| done(times, *spent)) {
        for (which, (times, spent)) in times.iter_mut().enumerate() {
            let mut since = Duration::ZERO;
            while since <= BETWEEN && !done(times, *spent) {
                let start = Instant::now();
                call(which)?;
                let time = start.elapsed();
                times.push(time.as_secs_f64());
                *spent += time;
                since += time;
            }
        }
        between();
    }
    let sorted = |(mut times, _): (Vec<f64>, _)| {
        times.sort_unstable_by(f64::total_cmp);
        Times { min: times[0], median: times[times.len() / 2] }
    };
    Ok(times.into_iter().map(sorted).collect())
}

/// What is multiplied, whose peak a result is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeakOf {
    Int8,
    F32,
    Bf16,
    Exponentials,
    /// Exclusive or, population count and sum, in bits compared.
    Popcount,
    /// Exclusive or and population count without the sum.
    PopcountAlone,
}

impl PeakOf {
    pub fn name(self) -> &'static str {
        match self {
            PeakOf::Int8 => "INT8",
            PeakOf::F32 => "f32",
            PeakOf::Bf16 => "bf16",
            PeakOf::Exponentials => "exponentials",
            PeakOf::Popcount | PeakOf::PopcountAlone => "bits",
        }
    }

    fn run(self, isa: Isa, rounds: u64) -> u64 {
        match self {
            PeakOf::Int8 => measure::dot_products(isa, rounds),
            PeakOf::F32 => measure::fused_multiply_adds(isa, rounds),
            PeakOf::Bf16 => measure::bf16_dot_products(isa, rounds),
            PeakOf::Exponentials => measure::exponentials(isa, rounds),
            PeakOf::Popcount => measure::population_counts(isa, rounds),
            PeakOf::PopcountAlone => measure::population_counts_alone(isa, rounds),
        }
    }
}

/// The fastest that the tier multiplies, on as many threads.
pub struct Peak {
    of: PeakOf,
    isa: Isa,
    threads: usize,
    rounds: u64,
    pub gops: f64,
}

impl Peak {
    pub fn new(of: PeakOf, isa: Isa, threads: usize) -> Self {
        let mut rounds = 1 << 10;
        let time = |rounds| {
            let start = Instant::now();
            of.run(isa, rounds);
            start.elapsed()
        };
        while time(rounds) < BURST {
            rounds *= 2;
        }
        Self { of, isa, threads, rounds, gops: 0.0 }
    }

    pub fn burst(&mut self) {
        // Three times: one may be interrupted.
        for _ in 0..3 {
            let (ops, seconds) = together(self.threads, &|_| self.of.run(self.isa, self.rounds));
            self.gops = self.gops.max(ops as f64 / seconds / 1e9);
        }
    }
}

/// The fastest that a plain loop reads so many bytes again and again, on as many threads.
pub struct Reader {
    isa: Isa,
    threads: usize,
    words: Vec<u64>,
    pub gbps: f64,
}

impl Reader {
    pub fn new(isa: Isa, threads: usize, bytes: usize) -> Self {
        Self { isa, threads, words: vec![1; bytes.div_ceil(8).max(1)], gbps: 0.0 }
    }

    pub fn burst(&mut self) {
        let share = self.words.len().div_ceil(self.threads);
        let start = Instant::now();
        // At least three times: the first may find another's data in the caches.
        for i in 0.. {
            if i >= 3 && start.elapsed() > BURST {
                return;
            }
            let read = |i: usize| match self.words.chunks(share).nth(i) {
                Some(words) => std::hint::black_box(measure::read(self.isa, words)),
                None => 0,
            };
            let (_, seconds) = together(self.threads, &read);
            self.gbps = self.gbps.max(self.words.len() as f64 * 8.0 / seconds / 1e9);
        }
    }
}

/// Does the same on every thread of the pool at once: what they return in sum, and the seconds from the first start to
/// the last end.
fn together(threads: usize, work: &(dyn Fn(usize) -> u64 + Sync)) -> (u64, f64) {
    if threads == 1 {
        let start = Instant::now();
        let done = work(0);
        return (done, start.elapsed().as_secs_f64());
    }
    let barrier = Barrier::new(threads);
    let spans = rayon::broadcast(|thread| {
        barrier.wait();
        let start = Instant::now();
        let done = work(thread.index());
        (done, start, Instant::now())
    });
    let first = spans.iter().map(|s| s.1).min();
    let last = spans.iter().map(|s| s.2).max();
    let seconds = last.zip(first).map_or(0.0, |(last, first)| (last - first).as_secs_f64());
    (spans.iter().map(|s| s.0).sum(), seconds)
}
