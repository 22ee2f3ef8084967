//! The command `siskin`, as a library so that its parts can be tested and fuzzed.
#![allow(
    missing_docs,
    reason = "only `main` is for others: the rest is as internal as in a command without a library"
)]

mod attention;
mod base;
mod commands;
mod ecoformer;
mod encoder;
mod families;
#[doc(hidden)]
pub mod fuzz;
mod hamming;
mod linear;
mod pruning;

/// What the tests see beside what the command prints: cases, the data made of them, and the checks of results.
#[doc(hidden)]
pub mod internal {
    pub use crate::base::data::Data;
    pub use crate::base::error::Result;
    pub use crate::base::family::check;
    pub use crate::base::json::from_json;
    pub use crate::base::settings::tier;

    /// Attention.
    pub mod attention {
        pub use crate::attention::{Case, Problem, Softmax};
    }

    /// EcoFormer.
    pub mod ecoformer {
        pub use crate::ecoformer::{Case, Problem};
    }

    /// Distances of binary codes.
    pub mod hamming {
        pub use crate::hamming::{Case, Out, Problem};
    }
}

use base::error::{Error, Result};
use base::signals;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{bench, bert, embed, energy, info, plot, run, survey, tour, tune, verify};
use std::io::{Write, stdout};
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
    Embed(embed::Args),
    Bert(bert::Args),
    Energy(energy::Args),
    Info(info::Args),
    Tune(tune::Args),
    Verify(verify::Args),
    Survey(survey::Args),
    Plot(plot::Args),
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    // Where this fails, a file that grows over its limit ends the process, as the system has it.
    let _ = signals::fail_over_the_limit();
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = Siskin::command().subcommand(bench::command(&arguments));
    let command = What::augment_subcommands(command)
        .subcommand_required(false)
        .arg_required_else_help(false)
        .subcommand(run::command());
    let done = match command.try_get_matches_from(&arguments) {
        Ok(matches) => obey(&matches),
        Err(e) => return answer(&e),
    };
    // What is not printed yet would be lost without a word.
    match done.and_then(|()| Ok(stdout().flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}

fn obey(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        None => tour::main(),
        Some(("bench", matches)) => bench::main(matches),
        Some(("run", matches)) => run::main(matches),
        Some(_) => match What::from_arg_matches(matches).unwrap_or_else(|e| e.exit()) {
            What::Embed(args) => embed::main(&args),
            What::Bert(args) => bert::main(&args),
            What::Energy(args) => energy::main(&args),
            What::Info(args) => info::main(&args),
            What::Tune(args) => tune::main(&args),
            What::Verify(args) => verify::main(&args),
            What::Survey(args) => survey::main(&args),
            What::Plot(args) => plot::main(&args),
        },
    }
}

/// Prints help, the version or what is wrong with the arguments.
fn answer(e: &clap::Error) -> ExitCode {
    match e.print().and_then(|()| stdout().flush()) {
        Err(failed) if !e.use_stderr() => Error::from(failed).report(),
        _ => ExitCode::from(e.exit_code() as u8),
    }
}
