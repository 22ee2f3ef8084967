//! Shared by the tests: tiers, cases, random numbers and contexts.
#![allow(dead_code, reason = "each test uses its own part")]

pub mod attention;
pub mod ecoformer;
pub mod errors;
pub mod float;
pub mod golden;
pub mod ksh;
pub mod layer;

use siskin::internal::isa::FeatureSet;
use siskin::internal::kernels::codes::table::Codes;
use siskin::internal::kernels::table::{TIERS, Tier};
use siskin::{Bf16Pairs, Ctx, Executor, Isa, Parallelism};
use std::io::Write;
use std::sync::Arc;

/// Past libtest's capture, so that it is seen without `--nocapture` too.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn required(isa: Isa) -> bool {
    let list = std::env::var("SISKIN_REQUIRE_ISA").unwrap_or_default();
    list.split(',').filter(|n| !n.trim().is_empty()).any(|n| n.trim().parse() == Ok(isa))
}

/// The tiers of this CPU; says which run and which do not. A tier of `SISKIN_REQUIRE_ISA` must be there.
pub fn isas(test: &str) -> Vec<Isa> {
    let (run, skipped): (Vec<Isa>, Vec<Isa>) = Isa::ALL.iter().partition(|isa| isa.is_supported());
    for &isa in &skipped {
        assert!(!required(isa), "SISKIN_REQUIRE_ISA names {isa}, which this CPU does not have");
    }
    say(&format!("{test}: ran {run:?}, skipped {skipped:?}"));
    run
}

/// As [`isas`], the rows of the kernel table: two of them can share an [`Isa`].
pub fn tiers(test: &str) -> Vec<&'static Tier> {
    isas(test);
    TIERS.iter().copied().filter(|tier| tier.is_supported()).collect()
}

/// The kernels of binary codes, each once, whether this CPU can run them or not: of each row that has its own.
pub fn all_codes() -> impl Iterator<Item = &'static Codes> {
    TIERS.iter().filter(|tier| tier.set.is(tier.codes.set)).map(|tier| tier.codes)
}

/// Whether a CPU with the features of a set has those of another.
pub fn implies(set: &FeatureSet, other: &FeatureSet) -> bool {
    other.features.iter().all(|feature| set.features.contains(feature))
}

/// `usual` times `SISKIN_TEST_CASES` (a factor, 1 where it is not set), at least one.
pub fn cases(usual: u32) -> u32 {
    let factor = match std::env::var("SISKIN_TEST_CASES") {
        Ok(v) if !v.is_empty() => v.parse().expect("SISKIN_TEST_CASES is a factor"),
        _ => 1.0,
    };
    ((f64::from(usual) * factor) as u32).max(1)
}

/// xorshift64*.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }
    /// 0 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() & 0xff_ffff) as f32 / 16_777_216.0
    }
    pub fn float(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }
    pub fn signed(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.byte() as i8).collect()
    }
}

/// A context of an ISA, with all kernels that it has, where block-sparse layers stay so.
pub fn serial(isa: Isa) -> Ctx {
    let core = "bf16-pairs=2 division=1 sparse=0,0,0,0,0 l1d=32768 l2=524288".parse().unwrap();
    Ctx::serial().unwrap().with_isa(isa).unwrap().with_core(core).with_bf16_pairs(Bf16Pairs::Always)
}

/// What an executor does with the numbers it is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    Honest,
    Repeats,
    Drops,
    Backwards,
}

/// Some threads of its own for each call.
pub struct Threads(pub usize, pub Manner);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let order: Vec<usize> = match self.1 {
            Manner::Honest => (0..tasks).collect(),
            Manner::Repeats => (0..tasks).chain(0..tasks).chain([0]).collect(),
            Manner::Drops => (0..tasks).filter(|i| i % 3 == 1).collect(),
            Manner::Backwards => (0..tasks).rev().collect(),
        };
        let order = &order;
        // An emulator has none: the order alone is odd then.
        if std::env::var_os("SISKIN_TEST_NO_THREADS").is_some() {
            return order.iter().for_each(|&i| task(i));
        }
        std::thread::scope(|scope| {
            for t in 0..self.0 {
                scope.spawn(move || order.iter().skip(t).step_by(self.0).for_each(|&i| task(i)));
            }
        });
    }
}

pub fn custom(isa: Isa, threads: usize, manner: Manner) -> Ctx {
    serial(isa).with_parallelism(Parallelism::Custom(Arc::new(Threads(threads, manner))))
}

/// Calls f with the i-th of some ways to share work out.
pub fn in_parallel<R: Send>(isa: Isa, way: usize, f: impl FnOnce(&Ctx) -> R + Send) -> R {
    let threads = [1, 2, 3, 7][way % 4];
    match way / 4 % 5 {
        #[cfg(feature = "rayon")]
        0 => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| f(&serial(isa).with_parallelism(Parallelism::Rayon)))
        }
        1 => f(&custom(isa, threads, Manner::Repeats)),
        2 => f(&custom(isa, threads, Manner::Drops)),
        3 => f(&custom(isa, threads, Manner::Backwards)),
        _ => f(&custom(isa, threads, Manner::Honest)),
    }
}

pub const WAYS: usize = 20;

/// Block shapes that meet every path: both layouts, every height of groups, odd sizes. None is dense.
pub const BLOCKS: [Option<(usize, usize)>; 18] = [
    None,
    Some((4, 1)),
    Some((1, 4)),
    Some((4, 4)),
    Some((16, 4)),
    Some((1, 16)),
    Some((16, 16)),
    Some((32, 32)),
    Some((1, 1)),
    Some((3, 2)),
    Some((5, 8)),
    Some((7, 1)),
    Some((2, 3)),
    Some((64, 64)),
    Some((6, 4)),
    Some((3, 5)),
    Some((100, 3)),
    Some((8, 1)),
];
