//! Heads of one query each: k and v are read as they lie, and heads take turns inside the kernel.

use super::{Part, Split, Workspace};
use crate::driver::attention::Group;
use crate::kernels::attention::LANES;
use std::ops::Range;

impl Split<'_> {
    /// Scores of parts of one row by most of some keys, as they lie; the keys that are left, less than 16.
    ///
    /// # Safety
    /// As [`Split::scores`].
    pub unsafe fn scores_directly(
        &self,
        parts: Range<usize>,
        keys: Range<usize>,
        room: &Workspace<'_>,
    ) -> Range<usize> {
        let plan = self.plan;
        let left = keys.start + keys.len() / LANES * LANES;
        let mut first = parts.start;
        while first < parts.end {
            let (part, g) = self.part(first);
            let heads = self.alike(first..parts.end, |other| self.part(other).1.zeros.q == g.zeros.q);
            let x = room.q[(first - parts.start) * plan.q_row..].as_ptr();
            let out = (self.shared.at(part.scores + 4 * keys.start), self.apart(first, |part| part.scores));
            // SAFETY: as the caller.
            unsafe { plan.scores_directly(g, heads, x, keys.start..left, out) };
            first += heads;
        }
        left..keys.end
    }

    /// How many parts from the first on are of heads of k and v that follow each other, and alike.
    fn alike(&self, parts: Range<usize>, alike: impl Fn(usize) -> bool) -> usize {
        let head = self.part(parts.start).1.kv_head;
        let follows = |part: usize| self.part(part).1.kv_head == head + part - parts.start;
        parts.clone().take_while(|part| follows(*part) && alike(*part)).count()
    }

    /// Bytes from what parts of a sequence have to what the next has.
    fn apart(&self, part: usize, of: impl Fn(&Part) -> usize) -> usize {
        let first = part / self.groups * self.groups;
        if self.groups == 1 { 0 } else { of(&self.parts[first + 1]) - of(&self.parts[first]) }
    }

    /// Contexts of parts of one row, of whole words of weights, from v as it lies.
    ///
    /// # Safety
    /// As [`Split::context`].
    pub unsafe fn context_directly(&self, chunk: usize, parts: Range<usize>) {
        let plan = self.plan;
        let mut first = parts.start;
        while first < parts.end {
            let (part, g) = self.part(first);
            // SAFETY: as the caller.
            unsafe {
                let keys = self.whole_words(g, part, chunk);
                let heads = self.alike(first..parts.end, |other| {
                    let (part, g) = self.part(other);
                    self.whole_words(g, part, chunk) == keys
                });
                if !keys.is_empty() {
                    let weights = plan.weights(self.shared.at(part.scores), keys.start);
                    let x = (weights.cast_const(), self.apart(first, |part| part.scores));
                    let out = (self.contexts(g, part, chunk).cast(), self.apart(first, |part| part.contexts));
                    plan.context_directly(g, heads, x, keys, out);
                }
                first += heads;
            }
        }
    }

    /// Of the keys that a part multiplies all, those of whole words of weights.
    ///
    /// # Safety
    /// As [`Split::dense`].
    pub unsafe fn whole_words(&self, g: &Group, part: &Part, chunk: usize) -> Range<usize> {
        // SAFETY: as the caller.
        let keys = unsafe { self.dense(g, part, chunk) };
        let each = self.plan.keys_per_word();
        keys.start..keys.start + keys.len() / each * each
    }
}
