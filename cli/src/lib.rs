//! The command `siskin`, as a library so that its parts can be fuzzed.

mod attention;
mod base;
mod commands;
mod ecoformer;
mod families;
#[doc(hidden)]
pub mod fuzz;
mod hamming;
mod linear;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{bench, energy, info, plot, run, survey, tour, verify};
use std::process::ExitCode;

/// Kernels for sparse, quantized and binarized transformers on ordinary CPUs: checked, measured and run.
///
/// Without a subcommand: a tour, under half a minute.
#[derive(Parser)]
#[command(name = "siskin", version)]
struct Siskin;

// The commands whose flags do not come from the list of families. (A doc comment would become the help of the whole command.)
#[derive(Subcommand)]
enum What {
    Energy(energy::Args),
    Info(info::Args),
    Verify(verify::Args),
    Survey(survey::Args),
    Plot(plot::Args),
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = Siskin::command().subcommand(bench::command(&arguments));
    let matches = What::augment_subcommands(command)
        .subcommand_required(false)
        .arg_required_else_help(false)
        .subcommand(run::command())
        .get_matches_from(&arguments);
    let done = match matches.subcommand() {
        None => tour::main(),
        Some(("bench", matches)) => bench::main(matches),
        Some(("run", matches)) => run::main(matches),
        Some(_) => match What::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()) {
            What::Energy(args) => energy::main(&args),
            What::Info(args) => info::main(&args),
            What::Verify(args) => verify::main(&args),
            What::Survey(args) => survey::main(&args),
            What::Plot(args) => plot::main(&args),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}
