//! Which instructions this CPU has, and which of them may be used: an ISA is a set of CPU features.

use crate::base::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected as has;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as has;

/// Makes everything that follows from the list of ISAs: the enum, names and features, detection, and the macro [`features`] that
/// compiles a function for a set of them.
///
/// A row is: variant, name, the targets that it belongs to, what plain loops are vectorized for, and its set of features; after
/// `if`, the only configuration in which it has kernels. Where CPUs of an ISA differ in features that deserve kernels of their own,
/// further sets follow, each with more features.
macro_rules! isas {
    (($d:tt) $(
        $(#[$doc:meta])*
        $isa:ident $name:literal on $arch:meta, loops $loops:ident:
            $set:ident [$($feature:tt),*] $(if $built:meta)?
            $(, $more:ident [$($extra:tt),*])*;
    )*) => {
        /// An instruction set: CPU features that kernels may use. Those of one architecture are ordered. A CPU of an ISA can run
        /// the kernels of every other ISA whose features it has, which its documentation lists as implied.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Isa {
            $($(#[$doc])* $isa,)*
        }

        impl Isa {
            /// All ISAs this version of siskin has kernels for on this architecture, lowest first.
            pub const ALL: &'static [Isa] = &[$(#[cfg($arch)] Isa::$isa),*];

            /// The name used by `SISKIN_MAX_ISA`, the command and the reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Isa::$isa => $name,)*
                }
            }

            /// The CPU features that it needs, as Rust names them.
            const fn features(self) -> &'static [&'static str] {
                match self {
                    $(Isa::$isa => &[$($feature),*],)*
                }
            }

            /// What loops that are left to the compiler are vectorized for.
            pub(crate) const fn loops(self) -> Loops {
                match self {
                    $(Isa::$isa => Loops::$loops,)*
                }
            }
        }

        /// The sets of features that there are kernels for, in the order of their ISAs, each ISA's own features first.
        static SETS: &[FeatureSet] = &[$(
            #[cfg($arch)]
            $(#[cfg($built)])?
            FeatureSet {
                name: stringify!($set),
                isa: Isa::$isa,
                features: &[$($feature),*],
                detect: || true $(&& has!($feature))*,
            },
            $(
                #[cfg($arch)]
                FeatureSet {
                    name: stringify!($more),
                    isa: Isa::$isa,
                    features: &[$($extra),*],
                    detect: || true $(&& has!($extra))*,
                },
            )*
        )*];

        /// `features! { set function }`: the function, compiled for a set of features.
        macro_rules! features {
            $(
                ($set $d($d item:tt)*) => { $(#[target_feature(enable = $feature)])* $d($d item)* };
                $(($more $d($d item:tt)*) => { $(#[target_feature(enable = $extra)])* $d($d item)* };)*
            )*
        }
        pub(crate) use features;
    };
}

isas! { ($)
    /// Plain Rust, on every CPU: the reference.
    Scalar "scalar" on all(), loops Baseline: scalar [];
    /// x86-64 AVX2 with FMA (and F16C): Haswell, Zen and later.
    Avx2 "avx2" on target_arch = "x86_64", loops Avx2: avx2 ["popcnt", "avx2", "fma", "f16c"];
    /// x86-64 AVX-VNNI: 256-bit byte dot products without AVX-512 (Alder Lake and later). Implies `Avx2`.
    AvxVnni "avx-vnni" on target_arch = "x86_64", loops Avx2:
        avx_vnni ["popcnt", "avx2", "fma", "f16c", "avxvnni"];
    /// x86-64 AVX-512 F, BW, DQ, VL: Skylake-SP. Implies `Avx2`.
    Avx512 "avx512" on target_arch = "x86_64", loops Avx512:
        avx512 ["popcnt", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"];
    /// x86-64 AVX-512 VNNI: Cascade Lake, Ice Lake, Zen 4 and later. Implies `Avx512`. Where the CPU has VBMI and BITALG too
    /// (Ice Lake and later), kernels use them.
    Avx512Vnni "avx512-vnni" on target_arch = "x86_64", loops Avx512:
        avx512_vnni ["popcnt", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"],
        avx512_vbmi ["popcnt", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni",
            "avx512vbmi", "avx512bitalg"];
    /// x86-64 AVX-512 BF16, VBMI and BITALG: Sapphire Rapids, Zen 4 and later. Implies `Avx512Vnni`. The one ISA of x86-64 whose
    /// sums of bfloat16 layers round differently.
    Avx512Bf16 "avx512-bf16" on target_arch = "x86_64", loops Avx512:
        avx512_bf16 ["popcnt", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni",
            "avx512vbmi", "avx512bitalg", "avx512bf16"];
    /// Arm NEON, of every 64-bit Arm CPU: exact products of bytes by widening multiplications.
    Neon "neon" on target_arch = "aarch64", loops Baseline: neon ["neon"];
    /// Arm SVE, of any length: tiles of dense layers and of blocks of four rows and columns, where there is no `NeonDot` (A64FX).
    /// Implies `Neon`.
    Sve "sve" on target_arch = "aarch64", loops Baseline: sve ["neon", "sve"] if siskin_sve;
    /// Arm dot products of bytes: Cortex-A76, Neoverse N1, Apple M1 and later. Implies `Neon`.
    NeonDot "neon-dot" on target_arch = "aarch64", loops Baseline: neon_dot ["neon", "dotprod"];
    /// Arm matrix products of bytes: Neoverse V1, Apple M2 and later. Implies `NeonDot`.
    NeonI8mm "neon-i8mm" on target_arch = "aarch64", loops Baseline: neon_i8mm ["neon", "dotprod", "i8mm"];
    /// Arm products of bfloat16: most CPUs with `NeonI8mm`, which it implies. As on `Avx512Bf16`, sums of bfloat16 layers round
    /// differently.
    NeonBf16 "neon-bf16" on target_arch = "aarch64", loops Baseline: neon_bf16 ["neon", "dotprod", "i8mm", "bf16"];
}

/// CPU features that kernels are compiled for together.
#[derive(Debug)]
pub struct FeatureSet {
    /// How names of kernels begin.
    pub name: &'static str,
    /// The ISA whose set it is.
    pub isa: Isa,
    /// The features, as Rust names them.
    pub features: &'static [&'static str],
    detect: fn() -> bool,
}

impl FeatureSet {
    /// All sets that there are kernels for on this architecture, lowest first.
    pub const fn all() -> &'static [FeatureSet] {
        SETS
    }

    /// The set of a name. One that is not in the list stops the compiler where this makes a constant.
    pub const fn named(name: &str) -> &'static FeatureSet {
        let mut i = 0;
        while i < SETS.len() {
            if same(SETS[i].name, name) {
                return &SETS[i];
            }
            i += 1;
        }
        panic!("no set of features has this name")
    }

    /// Whether this is that set.
    pub const fn is(&self, other: &FeatureSet) -> bool {
        same(self.name, other.name)
    }

    /// Whether this CPU has all of them.
    pub fn is_supported(&self) -> bool {
        (self.detect)()
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// What loops that are left to the compiler are vectorized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// What every CPU of the architecture has.
    Baseline,
    /// The features of [`Isa::Avx2`].
    Avx2,
    /// The features of [`Isa::Avx512`].
    Avx512,
}

impl Isa {
    /// Whether it multiplies bfloat16 in pairs: sums of bfloat16 layers and attention then round differently than on the
    /// others.
    pub fn pairs_bf16(self) -> bool {
        ["avx512bf16", "bf16"].iter().any(|pairs| self.features().contains(pairs))
    }

    /// Whether this CPU can execute it.
    pub fn is_supported(self) -> bool {
        SETS.iter().find(|set| set.isa == self).is_some_and(FeatureSet::is_supported)
    }

    /// The ISAs this CPU has, lowest first. Not capped by `SISKIN_MAX_ISA`.
    pub fn supported() -> impl Iterator<Item = Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
    }

    /// Whether a CPU of ISA `self` may run kernels of ISA `other`: it has all features that the other needs.
    pub fn implies(self, other: Isa) -> bool {
        other.features().iter().all(|feature| self.features().contains(feature))
    }

    /// The highest ISA of this CPU, lowered by the environment variable `SISKIN_MAX_ISA` where it is set.
    ///
    /// # Errors
    /// [`Error::Value`] if `SISKIN_MAX_ISA` is not the name of an ISA.
    pub fn detect() -> Result<Isa> {
        static DETECTED: OnceLock<Result<Isa>> = OnceLock::new();
        DETECTED
            .get_or_init(|| match std::env::var("SISKIN_MAX_ISA") {
                Ok(name) if !name.is_empty() => Ok(Isa::capped(
                    name.parse()
                        .map_err(|_| Error::value("SISKIN_MAX_ISA", names(), format_args!("{name:?}")))?,
                )),
                _ => Ok(Isa::capped(*Isa::ALL.last().unwrap_or(&Isa::Scalar))),
            })
            .clone()
    }

    /// The highest ISA of this CPU that is not above `cap`.
    pub fn capped(cap: Isa) -> Isa {
        let order = |isa: Isa| Isa::ALL.iter().position(|&i| i == isa);
        Isa::supported().filter(|&isa| order(isa) <= order(cap)).last().unwrap_or(Isa::Scalar)
    }
}

fn names() -> String {
    let names: Vec<_> = Isa::ALL.iter().map(|isa| isa.name()).collect();
    format!("one of {}", names.join(", "))
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let same = |isa: &Isa| {
            let plain = |s: &str| s.to_ascii_lowercase().replace(['-', '_'], "");
            plain(isa.name()) == plain(name)
        };
        Isa::ALL
            .iter()
            .copied()
            .find(same)
            .ok_or_else(|| Error::value("isa", names(), format_args!("{name:?}")))
    }
}
