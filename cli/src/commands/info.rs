//! `siskin info`: what this CPU has, and what siskin uses of it.

use crate::base::error::Result;
use crate::base::json::to_json;
use serde::Serialize;
use siskin::{Ctx, Isa, measure};
use std::fs::read_to_string;
use std::io::{Write, stdout};

/// Say what this CPU has and which kernels run on it.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What there is.
#[derive(Serialize)]
pub struct Info {
    pub version: &'static str,
    pub cpu: String,
    pub arch: &'static str,
    pub threads: usize,
    /// The tier in use.
    pub isa: &'static str,
    /// Whether its kernels are those with AVX-512 VBMI.
    pub vbmi: bool,
    pub tiers: Vec<TierInfo>,
    /// Of the first core, where the system tells.
    pub caches: Vec<Cache>,
    /// What is known of the core.
    pub core: CoreInfo,
}

#[derive(Serialize)]
pub struct CoreInfo {
    pub name: &'static str,
    pub source: &'static str,
    /// What is chosen by it, as `Core` reads it again.
    pub text: String,
    /// How bfloat16 is multiplied, and why.
    pub bf16: String,
    /// How numbers are quantized, and why.
    pub quantize: String,
}

impl CoreInfo {
    pub fn new(ctx: &Ctx) -> Self {
        let core = ctx.core();
        let gain = format!("times {} of multiply-adds of f32 on this core", core.bf16_pairs);
        let bf16 = match (ctx.isa().pairs_bf16(), ctx.pairs_bf16()) {
            (false, _) => "widened to f32: the tier has no products of pairs".into(),
            (true, true) => format!("in pairs: {gain}"),
            (true, false) => format!("widened to f32: pairs are {gain}"),
        };
        let quantize = match core.division {
            1.0 => "by divisions".into(),
            d if d > 1.0 => {
                format!("by a corrected reciprocal: divisions take {d} times as long on this core")
            }
            d => format!("by divisions, which take {d} of the time of a corrected reciprocal on this core"),
        };
        Self { name: core.name, source: core.source, text: core.to_string(), bf16, quantize }
    }

    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "  core: {} ({})", self.name, self.source)?;
        writeln!(out, "    chosen by: {}", self.text)?;
        writeln!(out, "    bfloat16: {}", self.bf16)?;
        Ok(writeln!(out, "    quantizing: {}", self.quantize)?)
    }
}

#[derive(Serialize)]
pub struct TierInfo {
    pub isa: &'static str,
    pub supported: bool,
    pub kernels: Vec<&'static str>,
}

#[derive(Serialize)]
pub struct Cache {
    pub level: u32,
    pub kind: String,
    pub kib: u64,
}

impl Info {
    pub fn new() -> Result<Self> {
        let ctx = Ctx::new()?;
        let isa = ctx.isa();
        let tier = |&isa: &Isa| TierInfo {
            isa: isa.name(),
            supported: isa.is_supported(),
            kernels: if isa.is_supported() { measure::kernels(isa) } else { Vec::new() },
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            arch: std::env::consts::ARCH,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            isa: isa.name(),
            vbmi: measure::uses_vbmi(isa),
            tiers: Isa::ALL.iter().map(tier).collect(),
            caches: caches(),
            core: CoreInfo::new(&ctx),
        })
    }

    /// The first lines of the tour and of the report.
    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "siskin {} on {} ({}, {} threads)", self.version, self.cpu, self.arch, self.threads)?;
        for tier in &self.tiers {
            let state = match tier.supported {
                false => "not on this CPU",
                true if tier.isa != self.isa => "yes",
                true if self.vbmi => "in use, with VBMI",
                true => "in use",
            };
            writeln!(out, "  {:<12} {state}", tier.isa)?;
        }
        let cache = |c: &Cache| format!("L{} {} {} KiB", c.level, c.kind, c.kib);
        if !self.caches.is_empty() {
            writeln!(out, "  {}", self.caches.iter().map(cache).collect::<Vec<_>>().join(", "))?;
        }
        self.core.print(out)
    }
}

pub fn main(args: &Args) -> Result<()> {
    let info = Info::new()?;
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", to_json(&info))?);
    }
    info.print(&mut out)?;
    for tier in info.tiers.iter().filter(|t| t.isa == info.isa) {
        writeln!(out, "kernels in use")?;
        for kernel in &tier.kernels {
            writeln!(out, "  {kernel}")?;
        }
    }
    Ok(())
}

pub fn cpu_name() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "an unknown CPU".into(), |(_, name)| name.trim().into())
}

fn caches() -> Vec<Cache> {
    let read = |index: u32, what: &str| {
        let text = read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}")).ok()?;
        Some(text.trim().to_string())
    };
    let cache = |index| {
        Some(Cache {
            level: read(index, "level")?.parse().ok()?,
            kind: read(index, "type")?.to_lowercase(),
            kib: read(index, "size")?.strip_suffix('K')?.parse().ok()?,
        })
    };
    (0..8).map_while(cache).collect()
}
