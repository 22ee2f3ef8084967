//! `siskin bert`: an encoder as a whole.

use crate::base::error::Result;
use crate::encoder::bench;
use crate::pruning::{accuracy, prune};

/// Encoders of the BERT family
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Bench(bench::Args),
    Prune(prune::Args),
    Accuracy(accuracy::Args),
}

pub fn main(args: &Args) -> Result<()> {
    match &args.what {
        What::Bench(args) => bench::main(args),
        What::Prune(args) => prune::main(args),
        What::Accuracy(args) => accuracy::main(args),
    }
}
