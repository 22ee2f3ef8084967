//! `siskin run`: an operation from a file to a file, for anyone to compare with.

use crate::base::error::Result;
use crate::base::files::Run;
use crate::families::FAMILIES;
use clap::{ArgMatches, Command};

/// All that can be run.
pub fn runs() -> impl Iterator<Item = &'static Run> {
    FAMILIES.iter().flat_map(|family| family.runs)
}

pub fn command() -> Command {
    Command::new("run")
        .about("Compute one operation from a file to a file")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(runs().map(|run| (run.flags)(Command::new(run.name))))
}

pub fn main(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some((name, matches)) => {
            runs().filter(|run| run.name == name).try_for_each(|run| (run.main)(matches))
        }
        None => Ok(()),
    }
}
