//! Memory that calls reuse.

use crate::base::buffer::Buffer;

/// The most purposes for which a call needs memory whose size is known at a time of its own.
const SLOTS: usize = 12;

/// Working memory of calls, owned by the caller. It grows to what the largest call needs and is kept: the second call of the same
/// shape allocates nothing, nor does one of the same layer with fewer tokens, or no more sequences, queries and keys.
#[derive(Debug, Default)]
pub struct Scratch {
    /// One for each purpose of a call. Calls of all families share them: there is no slot of a family.
    slots: [Buffer; SLOTS],
}

impl Scratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory for the purposes of one call: each slot grows to what it is asked for and is kept, whatever was in it.
    pub(crate) fn slots<const N: usize>(&mut self) -> [&mut Buffer; N] {
        const { assert!(N <= SLOTS) };
        let mut slots = self.slots.iter_mut();
        [(); N].map(|()| slots.next().unwrap_or_else(|| unreachable!("as many slots as the assertion says")))
    }

    /// Bytes held.
    pub fn capacity(&self) -> usize {
        self.slots.iter().map(Buffer::len).sum::<usize>()
    }
}
