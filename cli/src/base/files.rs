//! What computes a safetensors file from another.

use super::error::{Error, Result};
use super::input;
use super::json::{from_json, to_json};
use super::output::{self, Output};
use super::settings::Settings;
use super::tensors::{Tensors, parse};
use clap::{ArgMatches, Command};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::Value;
use siskin::Ctx;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is read and written.
#[derive(clap::Args)]
pub struct Files {
    /// The case, a safetensors file, which nobody may write meanwhile; - is standard input.
    #[arg(long = "in")]
    pub input: PathBuf,
    /// Where the result goes, a safetensors file; - is standard output.
    #[arg(long, long_help = format!("Where the result goes, a safetensors file.\n\n{}", output::RULE))]
    pub out: PathBuf,
    /// Parameters as JSON, instead of those in the file.
    #[arg(long)]
    pub params: Option<String>,
}

/// The flags of an operation from a file to a file, and what it does.
pub trait FileOperation: clap::Args + Sync {
    /// What `siskin run` calls it.
    const NAME: &'static str;
    /// How much it may compute of the file of a fuzzer, in units of its own, if it is fuzzed.
    const FUZZED: Option<u128> = None;

    type Params: Settings + DeserializeOwned + Default;

    fn files(&self) -> &Files;

    /// Another file that is read, if there is one.
    fn also_reads(&self) -> Option<&Path> {
        None
    }

    /// Computes at most so much.
    fn compute(&self, params: &Self::Params, tensors: Tensors<'_>, most: u128, ctx: &Ctx) -> Result<Written>;
}

/// What goes into the file that is written.
pub struct Written {
    /// Names, types, shapes and bytes.
    pub tensors: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
    /// Metadata: a name and an object.
    pub report: Option<(&'static str, Value)>,
}

impl Written {
    fn serialize(&self) -> std::result::Result<Vec<u8>, SafeTensorError> {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<std::result::Result<Vec<_>, SafeTensorError>>()?;
        let report = self.report.as_ref();
        let metadata = report.map(|(name, value)| HashMap::from([(name.to_string(), to_json(value))]));
        safetensors::serialize(views, metadata)
    }
}

/// What the commands use of an operation from a file to a file.
pub struct Run {
    pub name: &'static str,
    /// Gives a command its flags.
    pub flags: fn(Command) -> Command,
    pub main: fn(&ArgMatches) -> Result<()>,
    /// Of the bytes of a file those of the answer, if it is fuzzed.
    pub fuzz: fn(&[u8]) -> Option<Result<Vec<u8>>>,
}

impl Run {
    pub const fn new<O: FileOperation>() -> Self {
        Self { name: O::NAME, flags: O::augment_args, main: main::<O>, fuzz: fuzz::<O> }
    }
}

fn main<O: FileOperation>(matches: &ArgMatches) -> Result<()> {
    let operation = O::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
    let Files { input, out, .. } = operation.files();
    let inputs: Vec<&Path> = std::iter::once(input.as_path()).chain(operation.also_reads()).collect();
    input::check(&inputs)?;
    let out = Output::new(out, &inputs)?;
    out.write(&compute(&operation, &input::read(input)?, u128::MAX)?)
}

fn fuzz<O: FileOperation>(bytes: &[u8]) -> Option<Result<Vec<u8>>> {
    let most = O::FUZZED?;
    let command = O::augment_args(Command::new(O::NAME).no_binary_name(true));
    let matches = command.try_get_matches_from(["--in", "input", "--out", "output"]).ok()?;
    Some(compute(&O::from_arg_matches(&matches).ok()?, bytes, most))
}

/// The bytes of the file that answers the bytes of a file.
fn compute<O: FileOperation>(operation: &O, bytes: &[u8], most: u128) -> Result<Vec<u8>> {
    let Files { input, params: own, .. } = operation.files();
    let file = parse(input, bytes)?;
    let params: O::Params = params(input, bytes, own.as_deref())?;
    params.check_settings()?;
    let written = params.on_threads(|ctx| operation.compute(&params, Tensors::new(file), most, ctx))?;
    written.serialize().map_err(|e| Error::file(input::name(input), e))
}

/// Parameters that are given, or in the metadata of a file, or none.
fn params<P: DeserializeOwned + Default>(path: &Path, bytes: &[u8], own: Option<&str>) -> Result<P> {
    if let Some(text) = own {
        return from_json("--params", text.as_bytes());
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::file(input::name(path), e))?;
    match header.metadata().as_ref().and_then(|m| m.get("params")) {
        Some(text) => from_json("params", text.as_bytes()),
        None => Ok(P::default()),
    }
}
