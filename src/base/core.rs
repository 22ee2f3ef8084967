//! What a core is good at. The ISA says which kernels can run, the core which of them should.

use crate::base::ctx::Ctx;
use crate::base::isa::Isa;

/// What the choice of kernels and the sizes of their blocks depend on. Cache sizes change no answer; pairs of bfloat16 round
/// differently than floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core {
    /// Bytes of the second-level cache.
    pub l2: usize,
    /// Whether products of pairs of bfloat16, where the ISA has them, are faster than to widen bfloat16 and multiply floats.
    pub bf16_pairs: bool,
}

impl Core {
    /// What suits every core: a second-level cache of 512 KiB, as Zen 3 has it, and all products that the ISA has.
    pub const ANY: Core = Core { l2: 512 << 10, bf16_pairs: true };

    /// Bytes of packed x, or of weights, that are kept in the second-level cache while they are used again.
    pub const fn block_bytes(self) -> usize {
        self.l2 / 2
    }

    /// Bytes of weights that a thread keeps in its second-level cache, beside a panel.
    pub const fn share_bytes(self) -> usize {
        self.l2 / 32 * 25
    }
}

/// What kernels are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// What can run.
    pub isa: Isa,
    /// What should.
    pub core: Core,
}

impl Ctx {
    /// What the kernels of a call are chosen for.
    pub(crate) fn target(&self) -> Target {
        Target { isa: self.isa(), core: Core::ANY }
    }
}
