//! Which instructions this CPU has, and which of them may be used.

use crate::base::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A tier of instructions. Tiers of one architecture are ordered; a kernel of a tier may use everything
/// that the tiers listed under "implies" have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on every CPU: the reference.
    Scalar,
    /// x86-64 AVX2 with FMA (and F16C): Haswell, Zen and later.
    Avx2,
    /// x86-64 AVX-VNNI: 256-bit byte dot products without AVX-512 (Alder Lake and later). Implies `Avx2`.
    AvxVnni,
    /// x86-64 AVX-512 F, BW, DQ, VL: Skylake-SP. Implies `Avx2`.
    Avx512,
    /// x86-64 AVX-512 VNNI: Cascade Lake, Ice Lake, Zen 4 and later. Implies `Avx512`.
    Avx512Vnni,
    /// x86-64 AVX-512 BF16 and VBMI: Sapphire Rapids, Zen 4 and later. Implies `Avx512Vnni`. The one tier whose sums of
    /// bfloat16 layers round differently.
    Avx512Bf16,
    /// Arm NEON, of every 64-bit Arm CPU: exact products of bytes by widening multiplications.
    Neon,
    /// Arm SVE, of any length: tiles of dense layers and of blocks of four rows and columns, where there is no `NeonDot` (A64FX).
    /// Implies `Neon`.
    Sve,
    /// Arm dot products of bytes: Cortex-A76, Neoverse N1, Apple M1 and later. Implies `Neon`.
    NeonDot,
    /// Arm matrix products of bytes: Neoverse V1, Apple M2 and later. Implies `NeonDot`.
    NeonI8mm,
    /// Arm products of bfloat16: most CPUs with `NeonI8mm`, which it implies. As `Avx512Bf16`, sums of bfloat16 layers round
    /// differently.
    NeonBf16,
}

impl Isa {
    /// All tiers this version of siskin has kernels for on this architecture, lowest first.
    pub const ALL: &'static [Isa] = if cfg!(target_arch = "x86_64") {
        &[Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16]
    } else if cfg!(target_arch = "aarch64") {
        &[Isa::Scalar, Isa::Neon, Isa::Sve, Isa::NeonDot, Isa::NeonI8mm, Isa::NeonBf16]
    } else {
        &[Isa::Scalar]
    };

    /// The name used by `SISKIN_MAX_ISA`, the command and the reports.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Neon => "neon",
            Isa::Sve => "sve",
            Isa::NeonDot => "neon-dot",
            Isa::NeonI8mm => "neon-i8mm",
            Isa::NeonBf16 => "neon-bf16",
        }
    }

    /// Whether it multiplies bfloat16 in pairs: sums of bfloat16 layers and attention then round differently than on the
    /// others.
    pub const fn pairs_bf16(self) -> bool {
        matches!(self, Isa::Avx512Bf16 | Isa::NeonBf16)
    }

    /// Whether this CPU can execute the tier.
    pub fn is_supported(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = || has!("popcnt") && has!("avx2") && has!("fma") && has!("f16c");
            let avx512 =
                || avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match self {
                Isa::Scalar => true,
                Isa::Avx2 => avx2(),
                Isa::AvxVnni => avx2() && has!("avxvnni"),
                Isa::Avx512 => avx512(),
                Isa::Avx512Vnni => avx512() && has!("avx512vnni"),
                Isa::Avx512Bf16 => avx512() && has!("avx512vnni") && has!("avx512vbmi") && has!("avx512bf16"),
                _ => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            let dot = || has!("neon") && has!("dotprod");
            match self {
                Isa::Scalar => true,
                Isa::Neon => has!("neon"),
                Isa::Sve => cfg!(siskin_sve) && has!("neon") && has!("sve"),
                Isa::NeonDot => dot(),
                Isa::NeonI8mm => dot() && has!("i8mm"),
                Isa::NeonBf16 => dot() && has!("i8mm") && has!("bf16"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Isa::Scalar
        }
    }

    /// The tiers this CPU has, lowest first. Not capped by `SISKIN_MAX_ISA`.
    pub fn supported() -> impl Iterator<Item = Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
    }

    /// Whether a CPU of tier `self` may run kernels of tier `other`.
    pub fn implies(self, other: Isa) -> bool {
        use Isa::*;
        match self {
            Scalar => other == Scalar,
            Avx2 => matches!(other, Scalar | Avx2),
            AvxVnni => matches!(other, Scalar | Avx2 | AvxVnni),
            Avx512 => matches!(other, Scalar | Avx2 | Avx512),
            Avx512Vnni => matches!(other, Scalar | Avx2 | Avx512 | Avx512Vnni),
            Avx512Bf16 => matches!(other, Scalar | Avx2 | Avx512 | Avx512Vnni | Avx512Bf16),
            Neon => matches!(other, Scalar | Neon),
            Sve => matches!(other, Scalar | Neon | Sve),
            NeonDot => matches!(other, Scalar | Neon | NeonDot),
            NeonI8mm => matches!(other, Scalar | Neon | NeonDot | NeonI8mm),
            NeonBf16 => matches!(other, Scalar | Neon | NeonDot | NeonI8mm | NeonBf16),
        }
    }

    /// The highest tier of this CPU, lowered by the environment variable `SISKIN_MAX_ISA` where it is set.
    ///
    /// # Errors
    /// [`Error::Value`] if `SISKIN_MAX_ISA` is not the name of a tier.
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

    /// The highest tier of this CPU that is not above `cap`.
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
