//! The command `siskin`.

mod bench;
mod case;
mod error;
mod measure;
mod problem;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Kernels for sparse, quantized transformers on ordinary CPUs: checked, measured and run.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Command::parse().what {
        None => Ok(()),
        Some(What::Bench(args)) => bench::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}
