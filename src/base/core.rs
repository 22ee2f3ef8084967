//! What a core is good at. The ISA says which kernels can run, the core which of them should.

use crate::base::error::{Error, Result};
use crate::base::isa::Isa;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What a core is good at, beside what it can do: what the choice of kernels and the sizes of their blocks depend on. No answer
/// depends on it, but for bfloat16 in pairs: see [`Bf16Pairs`].
///
/// As text it is what decides, `bf16-pairs=2 division=0.6 sparse=1,1,1,2,1.5 l1d=32768 l2=1048576`, from which it can be had again: what
/// [`Ctx::tuned`](crate::Ctx::tuned) measured can be kept, and given to [`Ctx::with_core`](crate::Ctx::with_core).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Core {
    /// As people call it.
    pub name: &'static str,
    /// Where its figures are from.
    pub source: &'static str,
    /// What starts in a cycle; none where nobody said.
    pub starts: Option<Starts>,
    /// How many times as fast as one by fused multiply-adds, with bfloat16 widened, a layer by products of pairs is where arithmetic
    /// is what binds it. Only where the ISA has such products.
    pub bf16_pairs: f32,
    /// How many times as long numbers take to be quantized by divisions as by a reciprocal that is corrected.
    pub division: f32,
    /// Of layers of INT8, how many times as long a stored weight takes in a block-sparse layer as one in a dense layer, where arithmetic
    /// is what binds both.
    pub sparse: SparseCost,
    /// Bytes of the first-level cache of data.
    pub l1d: usize,
    /// Bytes of the second-level cache.
    pub l2: usize,
}

/// Costs of a stored weight, in times of a dense one, by what a block lets four columns of K be, and by how many rows share them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SparseCost {
    /// Blocks of a multiple of eight rows, and of any width (8x1), where there are kernels that take eight rows at once.
    pub any_8: f32,
    /// Other blocks of a multiple of four rows, and of any width (4x1).
    pub any_4: f32,
    /// Blocks of a multiple of four rows and of four columns (4x4, 16x16).
    pub adjacent_4: f32,
    /// Single rows, of any width (1x1).
    pub any_1: f32,
    /// Single rows, of a multiple of four columns (1x4).
    pub adjacent_1: f32,
}

impl SparseCost {
    /// What layers are packed by: of eight rows, of four or of one, of adjacent columns or not.
    pub(crate) fn of(&self, rows: usize, adjacent: bool) -> f32 {
        match (rows, adjacent) {
            (8, false) => self.any_8,
            (1, false) => self.any_1,
            (1, true) => self.adjacent_1,
            (_, false) => self.any_4,
            (_, true) => self.adjacent_4,
        }
    }
}

/// How many instructions on the widest registers that kernels use start in a cycle.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Starts {
    /// Bits of these registers.
    pub bits: u32,
    /// Fused multiply-adds of f32.
    pub fmas: f32,
    /// Dot products of bytes; without such an instruction, `vpmaddwd`, of which an exact one takes two.
    pub dots: f32,
    /// Shuffles of bytes.
    pub shuffles: f32,
}

impl Core {
    /// What suits every core: a second-level cache of 512 KiB, as Zen 3 has it, and all products that the ISA has.
    pub const ANY: Core = Core {
        name: "unknown",
        source: "what suits every core",
        starts: None,
        bf16_pairs: 2.0,
        division: 1.0,
        sparse: SparseCost { any_8: 1.0, any_4: 1.0, adjacent_4: 1.0, any_1: 1.0, adjacent_1: 1.0 },
        l1d: 32 << 10,
        l2: 512 << 10,
    };

    /// Bytes of packed x, or of weights, that are kept in the second-level cache while they are used again.
    pub(crate) const fn block_bytes(self) -> usize {
        self.l2 / 2
    }

    /// Bytes of weights that a thread keeps in its second-level cache, beside a panel.
    pub(crate) const fn share_bytes(self) -> usize {
        self.l2 / 32 * 25
    }

    /// With ratios that are numbers and sizes that caches have: what is beyond becomes the nearest that is inside.
    pub(crate) fn limited(self) -> Core {
        let ratio = |ratio: f32| if ratio.is_nan() { 1.0 } else { ratio.clamp(0.0, 1000.0) };
        let bytes = |bytes: usize| bytes.clamp(1 << 12, 1 << 30);
        let SparseCost { any_8, any_4, adjacent_4, any_1, adjacent_1 } = self.sparse;
        Core {
            bf16_pairs: ratio(self.bf16_pairs),
            division: ratio(self.division),
            sparse: SparseCost {
                any_8: ratio(any_8),
                any_4: ratio(any_4),
                adjacent_4: ratio(adjacent_4),
                any_1: ratio(any_1),
                adjacent_1: ratio(adjacent_1),
            },
            l1d: bytes(self.l1d),
            l2: bytes(self.l2),
            ..self
        }
    }

    /// Whether products of pairs of bfloat16 are faster than to widen bfloat16 and multiply floats.
    pub fn prefers_pairs(self) -> bool {
        self.bf16_pairs > 1.0
    }
}

/// A family and models of CPUs of one vendor.
pub(crate) struct Known {
    /// As CPUID spells it.
    pub vendor: &'static str,
    pub family: u32,
    pub models: &'static [RangeInclusive<u32>],
    pub core: Core,
}

const MEASURED: &str = "measured by siskin (docs/benchmarks); caches as the CPU tells";
const TABLES: &str = "public tables of instructions; caches as the CPU tells";

const fn core(
    name: &'static str,
    source: &'static str,
    starts: [f32; 4],
    [bf16_pairs, division]: [f32; 2],
    [any_8, any_4, adjacent_4, any_1, adjacent_1]: [f32; 5],
) -> Core {
    let sparse = SparseCost { any_8, any_4, adjacent_4, any_1, adjacent_1 };
    let [bits, fmas, dots, shuffles] = starts;
    let starts = Some(Starts { bits: bits as u32, fmas, dots, shuffles });
    Core { name, source, starts, bf16_pairs, division, sparse, ..Core::ANY }
}

/// Cores that are known. Of each: bits of its widest registers; multiply-adds, dot products and byte shuffles that start in a cycle;
/// what pairs of bfloat16 gain, and what divisions cost (1 where it was not measured); and the costs of sparse weights, as in
/// [`SparseCost`]. Of several that fit, the first.
pub(crate) const KNOWN: &[Known] = &[
    Known {
        vendor: "AuthenticAMD",
        family: 25,
        models: &[0x00..=0x0f, 0x20..=0x2f, 0x40..=0x5f],
        core: core("AMD Zen 3", MEASURED, [256.0, 2.0, 2.0, 2.0], [2.0, 0.6], [1.5, 1.5, 1.1, 2.8, 1.4]),
    },
    // Its units are 256 bits wide: a register of 512 takes each of them twice, which still pays, for it is one instruction.
    Known {
        vendor: "AuthenticAMD",
        family: 25,
        models: &[0x10..=0x1f, 0x60..=0x7f, 0xa0..=0xaf],
        core: core("AMD Zen 4", MEASURED, [512.0, 1.0, 1.0, 1.0], [2.0, 1.0], [1.0, 1.0, 1.0, 2.0, 1.5]),
    },
    Known {
        vendor: "AuthenticAMD",
        family: 26,
        models: &[0x00..=0xff],
        core: core("AMD Zen 5", MEASURED, [512.0, 2.0, 2.0, 2.0], [1.85, 1.0], [1.0, 1.0, 1.0, 2.0, 1.5]),
    },
    // Sapphire Rapids and Emerald Rapids: a product of pairs starts every second cycle.
    Known {
        vendor: "GenuineIntel",
        family: 6,
        models: &[143..=143, 207..=207],
        core: core(
            "Intel Golden Cove",
            MEASURED,
            [512.0, 2.0, 2.0, 1.0],
            [0.5, 2.0],
            [1.25, 1.5, 1.1, 3.6, 2.0],
        ),
    },
    Known {
        vendor: "GenuineIntel",
        family: 6,
        models: &[151..=151, 154..=154, 183..=183, 186..=186, 191..=191],
        core: core("Intel Golden Cove, clients", TABLES, [256.0, 2.0, 2.0, 2.0], [0.5, 1.0], [1.0; 5]),
    },
    // Their ports are those of Golden Cove, from which the costs of sparse weights are taken.
    Known {
        vendor: "GenuineIntel",
        family: 6,
        models: &[85..=85, 106..=106, 108..=108],
        core: core(
            "Intel Skylake or Ice Lake, servers",
            TABLES,
            [512.0, 2.0, 2.0, 1.0],
            [0.5, 1.0],
            [1.25, 1.5, 1.1, 3.6, 2.0],
        ),
    },
    // No core of Intel's is known on which pairs win: others can be measured.
    Known {
        vendor: "GenuineIntel",
        family: 6,
        models: &[0x00..=0xff],
        core: Core {
            bf16_pairs: 0.5,
            source: "what suits every core, and of pairs what Golden Cove has",
            ..Core::ANY
        },
    },
];

/// Whether products of bfloat16 may be made in pairs, where the ISA has the instruction ([`Isa::pairs_bf16`]). Pairs round in a way of their
/// own, within a stated tolerance of the one answer that all other kernels give ([`linear`](crate::linear),
/// [`attention`](crate::attention)). It is the one choice that an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bf16Pairs {
    /// Where the core is faster so.
    #[default]
    IfFaster,
    /// Wherever the ISA has the instruction.
    Always,
    /// Nowhere: the same bits on every CPU.
    Never,
}

/// What kernels are chosen for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// What can run.
    pub isa: Isa,
    /// Whether bfloat16 is multiplied in pairs, where the ISA can.
    pub pairs: bool,
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SparseCost { any_8, any_4, adjacent_4, any_1, adjacent_1 } = self.sparse;
        write!(f, "bf16-pairs={} division={}", self.bf16_pairs, self.division)?;
        write!(f, " sparse={any_8},{any_4},{adjacent_4},{any_1},{adjacent_1} l1d={} l2={}", self.l1d, self.l2)
    }
}

impl FromStr for Core {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::value(
                "core",
                "bf16-pairs=, division=, sparse=, l1d= and l2=, each once",
                format_args!("{text:?}"),
            )
        };
        let field = |name: &str| {
            let mut values = text.split_whitespace().filter_map(|f| f.strip_prefix(name)?.strip_prefix('='));
            match (values.next(), values.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(wrong()),
            }
        };
        let bytes = |name| match field(name)?.parse::<usize>() {
            Ok(bytes) if (1 << 12..=1 << 30).contains(&bytes) => Ok(bytes),
            _ => Err(Error::value(
                "core",
                format_args!("{name} of 4096 bytes to 1 GiB"),
                format_args!("{text:?}"),
            )),
        };
        let (l1d, l2) = (bytes("l1d")?, bytes("l2")?);
        let number = |value: &str| match value.parse::<f32>() {
            Ok(ratio) if (0.0..=1000.0).contains(&ratio) => Ok(ratio),
            _ => Err(Error::value("core", "ratios of 0 to 1000", format_args!("{text:?}"))),
        };
        let ratio = |name| number(field(name)?);
        let costs: Vec<f32> = field("sparse")?.split(',').map(number).collect::<Result<_>>()?;
        let [any_8, any_4, adjacent_4, any_1, adjacent_1] = match costs[..] {
            // As it was written before groups of eight rows had a cost of their own.
            [any_4, adjacent_4, any_1, adjacent_1] => [any_4, any_4, adjacent_4, any_1, adjacent_1],
            [any_8, any_4, adjacent_4, any_1, adjacent_1] => [any_8, any_4, adjacent_4, any_1, adjacent_1],
            _ => return Err(wrong()),
        };
        let sparse = SparseCost { any_8, any_4, adjacent_4, any_1, adjacent_1 };
        let (bf16_pairs, division) = (ratio("bf16-pairs")?, ratio("division")?);
        if text.split_whitespace().count() != 5 {
            return Err(wrong());
        }
        Ok(Core { name: "as given", source: "text", bf16_pairs, division, sparse, l1d, l2, ..Core::ANY })
    }
}
