//! What a family of operations gives the commands, and what the list of families holds of each.

use super::answer::{Answer, show};
use super::error::{Error, Result};
use super::files::Run;
use super::json::{from_json, to_json};
use super::random::Rng;
use super::settings::Settings;
use clap::{ArgMatches, Command};
use serde::{Serialize, de::DeserializeOwned};
use siskin::{Ctx, Isa};

/// A family of operations, implemented by its `Case`: what is measured and verified, as flags and as JSON.
pub trait Family: Settings + clap::Args + Serialize + DeserializeOwned + 'static {
    /// The name that `siskin bench --op` and the "op" of a line of JSON have for it.
    const OP: &'static str;
    /// Its part of the random cases of `siskin verify`, beside those of the other families.
    const SHARE: u64;
    /// What random cases are of, and what is random about them.
    const VERIFIED: &'static str;
    /// What `siskin run` computes from a file to a file.
    const RUNS: &'static [Run];

    type Answer: Answer;

    /// Refuses everything that can be refused before memory is taken, but for the settings.
    fn validate(&self) -> Result<()>;

    /// Measures a case that was checked, and checks the result, on the threads of the case.
    fn measure(&self, ctx: &Ctx) -> Result<Self::Answer>;

    /// A random case of a seed.
    fn random(seed: u64, rng: &mut Rng) -> Self;

    /// Compares the scalar tier with a plain loop, and these tiers with the scalar one.
    fn verify(&self, rng: &mut Rng, tiers: &[Isa]) -> Result<()>;

    /// As much of a case as can be computed in no time.
    fn small(self) -> Self;
}

/// Everything that can be refused before memory is taken.
pub fn check(case: &impl Family) -> Result<()> {
    case.check_settings()?;
    case.validate()
}

/// Runs a case.
pub fn answer<F: Family<Answer: Send>>(case: &F) -> Result<F::Answer> {
    check(case)?;
    case.on_threads(|ctx| case.measure(ctx))
}

fn verify<F: Family>(seed: u64, tiers: &[Isa]) -> Result<()> {
    let mut rng = Rng(seed);
    let case = F::random(seed, &mut rng);
    check(&case)?;
    case.verify(&mut rng, tiers).map_err(|e| match e {
        Error::Wrong(what) => Error::Wrong(format!("{what}; `verify --seed {seed}`, {}", to_json(&case))),
        other => other,
    })
}

/// A case of any family.
pub trait AnyCase {
    /// Runs it: the answer as JSON.
    fn reply(&self) -> Result<String>;

    /// Runs it and prints the answer.
    fn show(&self, json: bool) -> Result<()>;

    /// The case, small where it would run.
    fn small(self: Box<Self>) -> Box<dyn AnyCase>;
}

impl<F: Family<Answer: Send>> AnyCase for F {
    fn reply(&self) -> Result<String> {
        Ok(to_json(&answer(self)?))
    }

    fn show(&self, json: bool) -> Result<()> {
        show(&answer(self)?, json)
    }

    fn small(self: Box<Self>) -> Box<dyn AnyCase> {
        if check(&*self).is_ok() { Box::new(F::small(*self)) } else { self }
    }
}

/// What the commands use of a family.
pub struct Listed {
    pub op: &'static str,
    pub share: u64,
    pub verified: &'static str,
    pub runs: &'static [Run],
    /// Gives a command the flags of a case.
    pub flags: fn(Command) -> Command,
    pub of_flags: fn(&ArgMatches) -> clap::error::Result<Box<dyn AnyCase>>,
    pub of_json: fn(&[u8]) -> Result<Box<dyn AnyCase>>,
    /// Runs the case of a seed on these tiers.
    pub verify: fn(u64, &[Isa]) -> Result<()>,
}

impl Listed {
    pub const fn new<F: Family<Answer: Send>>() -> Self {
        Self {
            op: F::OP,
            share: F::SHARE,
            verified: F::VERIFIED,
            runs: F::RUNS,
            flags: F::augment_args,
            of_flags: |matches| Ok(Box::new(F::from_arg_matches(matches)?)),
            of_json: |text| Ok(Box::new(from_json::<F>("case", text)?)),
            verify: verify::<F>,
        }
    }
}
