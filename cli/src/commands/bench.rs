//! `siskin bench`: a case of any family, or a case per line.

use super::serve;
use crate::base::error::Result;
use crate::base::family::Listed;
use crate::families::{FAMILIES, named, names};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::ffi::OsString;

#[derive(clap::Args)]
struct Output {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read cases from standard input, a line of JSON each, and answer each with a line of JSON.
    ///
    /// The fields of a case are the flags of this command with the same defaults, those of the family that "op" names. The
    /// softmax of attention is a field of its own: "standard", {"gamma": .., "zeta": ..} or {"alpha": .., "max_len": ..}. A bad
    /// case is answered by {"error": "..."}.
    #[arg(long, exclusive = true)]
    serve: bool,
}

/// The command with the flags of the family that the arguments of the process name.
pub fn command(arguments: &[OsString]) -> Command {
    let family = asked(arguments);
    let op = Arg::new("op")
        .long("op")
        .help("What is computed; each has flags of its own, which --help with it tells")
        .value_parser(PossibleValuesParser::new(names()))
        .default_value(family.op);
    let command = Output::augment_args((family.flags)(Command::new("bench").arg(op)));
    if family.op == FAMILIES[0].op {
        return command
            .about("Measure one case, and check its result: of a linear layer, or of what --op names");
    }
    command.override_usage(format!("siskin bench --op {} [OPTIONS]", family.op))
}

/// The family whose name follows `--op`: it decides which flags there are, so it is looked up before they are parsed.
fn asked(arguments: &[OsString]) -> &'static Listed {
    let is_asked = |family: &&Listed| {
        arguments.windows(2).any(|pair| pair[0] == "--op" && pair[1] == family.op)
            || arguments.iter().any(|argument| *argument == *format!("--op={}", family.op))
    };
    FAMILIES.iter().find(is_asked).unwrap_or(&FAMILIES[0])
}

pub fn main(matches: &ArgMatches) -> Result<()> {
    let output = Output::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
    if output.serve {
        return serve::main();
    }
    let family = matches.get_one::<String>("op").and_then(|op| named(op)).unwrap_or(&FAMILIES[0]);
    let case = (family.of_flags)(matches).unwrap_or_else(|e| e.exit());
    case.show(output.json)
}
