//! How the struct of a case and the parameters of a run are written down, and limits on what they say.

use super::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};

/// Enums that are values of flags and strings of JSON. `default` goes to the first variant.
macro_rules! choices {
    ($($name:ident { $($(#[$meta:meta])* $variant:ident),* $(,)? })*) => { $(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
        #[serde(rename_all = "snake_case")]
        #[value(rename_all = "snake_case")]
        pub enum $name { $($(#[$meta])* $variant),* }

        impl Default for $name {
            fn default() -> Self {
                [$(Self::$variant),*][0]
            }
        }
    )* };
}

macro_rules! or_default {
    () => {
        Default::default()
    };
    ($value:expr) => {
        $value
    };
}

/// The struct `Case` of a family: the same fields as flags and as a line of JSON, with the same defaults, and those that every
/// case has. Its documentation is what `siskin bench` says about itself.
macro_rules! case {
    ($(#[$of:meta])* { $($(#[$meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)* }) => {
        $(#[$of])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        pub struct Case {
            /// The name of the family.
            #[arg(skip = Self::name())]
            #[serde(deserialize_with = "Case::own_name")]
            pub op: $crate::base::case::Op,
            $($(#[$meta])* $(#[arg(default_value_t = $default)])? pub $field: $type,)*
            /// Threads.
            #[arg(long, default_value_t = 1)]
            pub threads: usize,
            /// Milliseconds to measure for; where there are several measurements, for each.
            #[arg(long, default_value_t = 200)]
            pub min_ms: u64,
            /// Tier of instructions; the best of this CPU if not given.
            #[arg(long)]
            pub isa: Option<String>,
            /// How bfloat16 is multiplied on a tier that has products of pairs.
            #[arg(long, value_enum, default_value_t)]
            pub bf16_pairs: $crate::base::settings::Bf16Pairs,
            /// Seed of everything random.
            #[arg(long, default_value_t = 1)]
            pub seed: u64,
        }

        impl Default for Case {
            fn default() -> Self {
                Self {
                    op: Self::name(),
                    $($field: $crate::base::case::or_default!($($default)?),)*
                    threads: 1,
                    min_ms: 200,
                    isa: None,
                    bf16_pairs: Default::default(),
                    seed: 1,
                }
            }
        }

        impl Case {
            fn name() -> $crate::base::case::Op {
                $crate::base::case::Op(<Self as $crate::base::family::Family>::OP)
            }

            fn own_name<'de, D: serde::Deserializer<'de>>(
                from: D,
            ) -> std::result::Result<$crate::base::case::Op, D::Error> {
                Self::name().read(from)
            }
        }

        impl $crate::base::settings::Settings for Case {
            fn isa(&self) -> Option<&str> {
                self.isa.as_deref()
            }

            fn bf16_pairs(&self) -> $crate::base::settings::Bf16Pairs {
                self.bf16_pairs
            }

            fn threads(&self) -> usize {
                self.threads
            }

            fn min_ms(&self) -> u64 {
                self.min_ms
            }
        }
    };
}

/// The struct `Params` of a run from a file to a file, with the parameters that all of them have.
macro_rules! params {
    ($($(#[$meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)*) => {
        #[derive(Debug, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Params {
            $($(#[$meta])* $field: $type,)*
            isa: Option<String>,
            bf16_pairs: $crate::base::settings::Bf16Pairs,
            threads: usize,
        }

        impl Default for Params {
            fn default() -> Self {
                Self { $($field: $crate::base::case::or_default!($($default)?),)* isa: None, bf16_pairs: Default::default(), threads: 1 }
            }
        }

        impl $crate::base::settings::Settings for Params {
            fn isa(&self) -> Option<&str> {
                self.isa.as_deref()
            }

            fn bf16_pairs(&self) -> $crate::base::settings::Bf16Pairs {
                self.bf16_pairs
            }

            fn threads(&self) -> usize {
                self.threads
            }
        }
    };
}

pub(crate) use {case, choices, or_default, params};

/// The name of a family, which a case says in JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Op(pub &'static str);

impl Op {
    /// This name, which must be the one that is written.
    pub fn read<'de, D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self, D::Error> {
        let written = String::deserialize(from)?;
        match written == self.0 {
            true => Ok(self),
            false => Err(serde::de::Error::custom(format_args!("op `{written}` of a case of {}", self.0))),
        }
    }
}

/// Refuses a size of 0.
pub fn at_least_one(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, size)) => Err(Error::input(name, "at least 1", size)),
        None => Ok(()),
    }
}

/// Refuses a product above `most` elements.
pub fn at_most(most: u128, name: &str, factors: &[u128]) -> Result<()> {
    if factors.iter().fold(1, |product: u128, &factor| product.saturating_mul(factor)) <= most {
        return Ok(());
    }
    let product = factors.iter().map(u128::to_string).collect::<Vec<_>>().join(" x ");
    Err(Error::input(name, format_args!("at most {most} elements"), product))
}
