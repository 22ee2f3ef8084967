//! Which core this is, and what a call makes of it.

use super::quantize::{Affine, Real};
#[cfg(feature = "linear")]
use super::table::Tier;
use crate::base::core::{Bf16Pairs, Core, KNOWN, Known, Target};
use crate::base::ctx::Ctx;
use crate::base::isa::Isa;
use std::hint::black_box;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::Instant;

/// What CPUID says of this CPU.
struct Identity {
    vendor: String,
    family: u32,
    model: u32,
    /// Bytes of the first-level cache of data and of the second level; 0 where it does not say.
    l1d: usize,
    l2: usize,
}

/// Other architectures do not tell it to programs.
#[cfg(not(target_arch = "x86_64"))]
fn identity() -> Option<Identity> {
    None
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "CPUID is safe from a later Rust on")]
fn identity() -> Option<Identity> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // SAFETY: every x86-64 CPU has CPUID, and leaves are asked for up to those that it says it has.
    unsafe {
        let first = __cpuid(0);
        let vendor = [first.ebx, first.edx, first.ecx].map(u32::to_le_bytes).concat();
        let signature = __cpuid(1).eax;
        let (family, model) = (signature >> 8 & 15, signature >> 4 & 15);
        let extended = model | signature >> 12 & 0xf0;
        let (family, model) = match family {
            15 => (15 + (signature >> 20 & 0xff), extended),
            6 => (6, extended),
            other => (other, model),
        };
        let vendor = String::from_utf8(vendor).ok()?;
        // The leaf that lists caches.
        let leaf = match &vendor[..] {
            "AuthenticAMD" if __cpuid(0x8000_0000).eax >= 0x8000_001d => 0x8000_001d,
            "GenuineIntel" if first.eax >= 4 => 4,
            _ => return Some(Identity { vendor, family, model, l1d: 0, l2: 0 }),
        };
        let (mut l1d, mut l2) = (0, 0);
        for i in 0..16 {
            let cache = __cpuid_count(leaf, i);
            let part = |low: u32, bits: u32| (cache.ebx >> low & ((1 << bits) - 1)) as usize + 1;
            let bytes = part(22, 10) * part(12, 10) * part(0, 12) * (cache.ecx as usize + 1);
            // The kind, 0 after the last: 1 is data, 2 instructions, 3 both; and the level.
            match (cache.eax & 31, cache.eax >> 5 & 7) {
                (0, _) => break,
                (1 | 3, 1) => l1d = bytes,
                (1 | 3, 2) => l2 = bytes,
                _ => {}
            }
        }
        Some(Identity { vendor, family, model, l1d, l2 })
    }
}

/// What is known of the core of this CPU. Looked up once.
pub fn detected() -> Core {
    static CORE: OnceLock<Core> = OnceLock::new();
    *CORE.get_or_init(|| {
        let Some(own) = identity() else { return Core::ANY };
        let fits = |k: &&Known| {
            k.vendor == own.vendor
                && k.family == own.family
                && k.models.iter().any(|m| m.contains(&own.model))
        };
        let core = KNOWN.iter().find(fits).map_or(Core::ANY, |k| k.core);
        // What is not believable is as good as not said.
        let or = |said: usize, range: RangeInclusive<usize>, else_| {
            if range.contains(&said) { said } else { else_ }
        };
        Core {
            l1d: or(own.l1d, 16 << 10..=256 << 10, core.l1d),
            l2: or(own.l2, 256 << 10..=4 << 20, core.l2),
            ..core
        }
    })
}

/// The core with what single kernels tell of it now, on this thread: in well under a millisecond.
pub(crate) fn measured(isa: Isa) -> Core {
    let core = Core { name: "measured", source: "measured just now, all else as known", ..detected() };
    Core { bf16_pairs: pairs(isa).unwrap_or(core.bf16_pairs), division: division(isa), ..core }
}

/// How long a call takes, in seconds: the least of eight, or of four where these took long. One alone may have been interrupted.
pub(crate) fn least(call: &mut dyn FnMut()) -> f64 {
    let (mut least, mut spent) = (f64::INFINITY, 0.0);
    for i in 0..8 {
        if i >= 4 && spent > 0.5e-3 {
            break;
        }
        let start = Instant::now();
        call();
        let seconds = start.elapsed().as_secs_f64();
        (least, spent) = (seconds.min(least), spent + seconds);
    }
    least
}

/// As a number of two digits, which is what such a moment can tell.
pub(crate) fn two_digits(ratio: f64) -> f32 {
    ((ratio * 100.0).round() / 100.0).clamp(0.0, 1000.0) as f32
}

/// The operations of pairs of bfloat16 in a time over those of multiply-adds; none where there are none.
#[cfg(feature = "linear")]
fn pairs(isa: Isa) -> Option<f32> {
    let tier = Tier::of(Target { isa, pairs: true });
    let pairs = tier.pairs.filter(|_| tier.is_supported())?;
    let rate = |operations: unsafe fn(u64) -> u64| {
        // SAFETY: the tier is supported; the kernel works on registers alone.
        let run = |rounds| unsafe { operations(rounds) };
        // Some ten thousand cycles, whatever a round does.
        let rounds = 1 + 500_000 / run(1).max(1);
        let mut done = 0;
        let time = least(&mut || done = black_box(run(rounds)));
        done as f64 / time.max(1e-9)
    };
    Some(two_digits(rate(pairs.peak) / rate(tier.float.f32.peak)))
}

/// Nothing that depends on it is in this build.
#[cfg(not(feature = "linear"))]
fn pairs(_isa: Isa) -> Option<f32> {
    None
}

/// The time of quantizing by divisions over that by corrected reciprocals.
fn division(isa: Isa) -> f32 {
    let x: [f32; 2048] = std::array::from_fn(|i| i as f32 * 0.1 - 100.0);
    let mut y = [0; 2048];
    let to = Affine::UNIT;
    let [divide, correct] = f32::quantize(isa).map(|run| {
        least(&mut || {
            // SAFETY: the ISA is that of a context, so this CPU has it.
            unsafe { run(black_box(&x), to, black_box(&mut y)) }
        })
    });
    two_digits(divide / correct.max(1e-9))
}

impl Ctx {
    /// The core that kernels are chosen for: what is known of this CPU's, unless [`Ctx::with_core`] said otherwise.
    pub fn core(&self) -> Core {
        self.given_core().unwrap_or_else(detected)
    }

    /// Whether bfloat16 is multiplied in pairs: the ISA has the instruction, and [`Ctx::with_bf16_pairs`] and the core agree.
    pub fn pairs_bf16(&self) -> bool {
        self.isa().pairs_bf16()
            && match self.bf16_pairs() {
                Bf16Pairs::IfFaster => self.core().prefers_pairs(),
                Bf16Pairs::Always => true,
                Bf16Pairs::Never => false,
            }
    }

    /// What the kernels of a call are chosen for.
    pub(crate) fn target(&self) -> Target {
        Target { isa: self.isa(), pairs: self.pairs_bf16() }
    }
}
