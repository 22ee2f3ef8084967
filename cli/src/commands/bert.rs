//! `siskin bert`: an encoder as a whole.

use crate::base::error::Result;
use crate::pruning::{accuracy, prune};

/// Encoders of the BERT family
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Prune(prune::Args),
    Accuracy(accuracy::Args),
}

pub fn main(args: &Args) -> Result<()> {
    match &args.what {
        What::Prune(args) => prune::main(args),
        What::Accuracy(args) => accuracy::main(args),
    }
}
