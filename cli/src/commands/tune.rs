//! `siskin tune`: the core, measured.

use super::info::CoreInfo;
use crate::base::error::Result;
use crate::base::json::to_json;
use siskin::Ctx;
use std::io::Write;
use std::io::stdout;

/// Time what kernels are chosen by (pairs of bfloat16, divisions, sparse weights), in a moment, where nobody knows this CPU.
///
/// The line after "chosen by" is what a program can keep, and give to `Ctx::with_core`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Result<()> {
    let core = CoreInfo::new(&Ctx::tuned()?);
    let mut out = stdout().lock();
    match args.json {
        true => Ok(writeln!(out, "{}", to_json(&core))?),
        false => core.print(&mut out),
    }
}
