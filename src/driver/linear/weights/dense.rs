//! Dense weights in panels of output features.

use super::GroupScales;
use crate::base::buffer::Buffer;
use crate::base::element::Weight;
use crate::base::view::MatRef;
use crate::kernels::byte_table::DenseKernel;

/// Dense weights in panels of `kernel.nr` features.
#[derive(Debug, Clone)]
pub struct Dense {
    kernel: DenseKernel,
    panels: Buffer,
    /// Steps of a panel.
    steps: usize,
    scales: Option<GroupScales>,
}

impl Dense {
    /// Packs for a kernel whose elements are of this type.
    pub fn pack<T: Weight>(w: MatRef<'_, T>, kernel: DenseKernel, scales: Option<GroupScales>) -> Self {
        let steps = w.cols().next_multiple_of(kernel.padded) / kernel.per_step();
        let mut this = Dense { kernel, panels: Buffer::default(), steps, scales };
        let panel_bytes = this.panel_bytes();
        this.panels.grow(w.rows().div_ceil(kernel.nr) * panel_bytes);
        let bytes = this.panels.bytes_mut();
        for n in 0..w.rows() {
            let panel = &mut bytes[n / kernel.nr * panel_bytes..][..panel_bytes];
            for (k, &value) in w.row(n).iter().enumerate() {
                let together = k / kernel.together * kernel.nr + n % kernel.nr;
                value.store(panel, together * kernel.together + k % kernel.together);
            }
        }
        this
    }

    /// The kernel that reads them.
    pub fn kernel(&self) -> &DenseKernel {
        &self.kernel
    }

    /// Steps of K in a panel, 4 bytes of x each.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The weights of some panels of features.
    pub fn panels(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.panels.bytes()[range.start * self.panel_bytes()..range.end * self.panel_bytes()]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.len() + self.scales.as_ref().map_or(0, |s| 4 * s.scales.len())
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.steps * self.step_bytes()
    }

    /// Bytes of a step of a panel.
    pub fn step_bytes(&self) -> usize {
        self.kernel.stored.bytes_of(self.kernel.nr * self.kernel.per_step())
    }

    /// Scales by groups of K.
    pub fn scales(&self) -> Option<&GroupScales> {
        self.scales.as_ref()
    }
}
