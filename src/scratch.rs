//! Memory that calls reuse.

use crate::kernels::buffer::Buffer;

/// Working memory of calls, owned by the caller. It grows to what the largest call needs and is kept: the second call
/// of the same shape allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Packed activations of the call.
    pub(crate) x: Buffer,
    /// Parameters of the output features, and of the tokens.
    pub(crate) parameters: Buffer,
    /// A tile of sums and bytes for each task.
    pub(crate) tiles: Buffer,
}

impl Scratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn capacity(&self) -> usize {
        self.x.len() + self.parameters.len() + self.tiles.len()
    }
}
