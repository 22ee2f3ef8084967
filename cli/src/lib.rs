//! The command `siskin`, as a library so that its parts can be fuzzed.

mod answer;
mod attention;
mod bench;
mod case;
mod check;
mod ecoformer;
mod energy;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod hamming;
mod info;
mod json;
mod measure;
mod plot;
mod problem;
mod progress;
mod run;
mod serve;
mod survey;
mod tensors;
mod tour;
mod verify;
mod weights;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Kernels for sparse, quantized and binarized transformers on ordinary CPUs: checked, measured and run.
///
/// Without a subcommand: a tour, under half a minute.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    Bench(bench::Args),
    #[command(hide = true, override_usage = "siskin bench --op attention [OPTIONS]")]
    BenchAttention(attention::BenchArgs),
    #[command(hide = true, override_usage = "siskin bench --op hamming [OPTIONS]")]
    BenchHamming(hamming::Args),
    #[command(hide = true, override_usage = "siskin bench --op ecoformer [OPTIONS]")]
    BenchEcoformer(ecoformer::BenchArgs),
    Energy(energy::Args),
    Info(info::Args),
    Verify(verify::Args),
    Survey(survey::Args),
    Plot(plot::Args),
    /// Compute one operation from a file to a file.
    #[command(subcommand)]
    Run(run::Operation),
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    let done = match Command::parse_from(bench::by_op(std::env::args_os())).what {
        None => tour::main(),
        Some(What::Bench(args)) => bench::main(&args),
        Some(What::BenchAttention(args)) => attention::bench(&args),
        Some(What::BenchHamming(args)) => hamming::main(&args),
        Some(What::BenchEcoformer(args)) => ecoformer::bench(&args),
        Some(What::Energy(args)) => energy::main(&args),
        Some(What::Info(args)) => info::main(&args),
        Some(What::Verify(args)) => verify::main(&args),
        Some(What::Survey(args)) => survey::main(&args),
        Some(What::Plot(args)) => plot::main(&args),
        Some(What::Run(operation)) => run::main(&operation),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}
