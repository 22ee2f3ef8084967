//! `siskin verify`: random cases of all families, every tier against scalar, and scalar against a plain loop.

use crate::base::error::{Error, Result};
use crate::base::settings::ctx;
use crate::families::FAMILIES;
use siskin::Isa;
use std::io::{Write, stdout};

/// Check every tier of this CPU on random cases, bit for bit
#[derive(clap::Args)]
#[command(long_about = about())]
pub struct Args {
    /// Check this tier only.
    #[arg(long)]
    isa: Option<String>,
    /// Random cases.
    #[arg(long, default_value_t = 2000)]
    cases: usize,
    /// Seed of the first case; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn about() -> String {
    let shares = FAMILIES.iter().map(|family| format!("  {} are {}.\n", family.share, family.verified));
    format!(
        "Check every tier of this CPU on random cases, bit for bit.\n\nOf {} cases\n{}\nWhat multiplies pairs of bfloat16 sums up \
         in another order: layers have a tolerance of a hundred-thousandth of the terms' magnitudes and one step of the output, \
         attention of 0.02 of the largest v. Exit status 1 if anything disagrees.",
        all_shares(),
        shares.collect::<String>()
    )
}

fn all_shares() -> u64 {
    FAMILIES.iter().map(|family| family.share).sum()
}

pub fn main(args: &Args) -> Result<()> {
    let tiers = match &args.isa {
        None => Isa::supported().collect(),
        Some(isa) => vec![ctx(Some(isa), 1)?.isa()],
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .map_err(|e| Error::input("threads", "3 that can be started", e))?;
    pool.install(|| (0..args.cases).try_for_each(|i| verify(args.seed.wrapping_add(i as u64), &tiers)))?;
    let mut out = stdout().lock();
    for isa in Isa::ALL {
        match isa {
            isa if tiers.contains(isa) => {
                writeln!(out, "{:<12} ran      {} cases, all right", isa.name(), args.cases)?
            }
            isa if isa.is_supported() => writeln!(out, "{:<12} SKIPPED  not asked for", isa.name())?,
            isa => writeln!(out, "{:<12} SKIPPED  this CPU does not have it", isa.name())?,
        }
    }
    Ok(())
}

/// Runs the case of a seed, of the family whose share it falls to.
fn verify(seed: u64, tiers: &[Isa]) -> Result<()> {
    let mut place = seed % all_shares();
    for family in &FAMILIES {
        match place.checked_sub(family.share) {
            None => return (family.verify)(seed, tiers),
            Some(left) => place = left,
        }
    }
    Ok(())
}
