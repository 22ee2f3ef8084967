//! What sparse weights have beside their entries where the tier looks bytes of x up in registers.

use super::sparse::Section;
use crate::kernels::lookup::{Chunk, FEATURES, Lookup, PADDING, cut};
use std::ops::Range;

/// The chunks of a section, group after group.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    chunks: Vec<Chunk>,
    places: Vec<u8>,
    /// The first chunk of each band.
    first: Vec<usize>,
    entries: usize,
}

impl Chunks {
    /// Cuts the entries of a section, four indices each, for rows of x of so many features, and lays them out in the order of
    /// the groups of each band.
    pub fn of(
        section: &mut Section,
        bands: impl Iterator<Item = Range<usize>>,
        features: usize,
        height: usize,
    ) -> Self {
        let mut this = Chunks::default();
        let Section { groups, indices, weights, .. } = section;
        let (before, old) = (std::mem::take(indices), std::mem::take(weights));
        indices.reserve_exact(before.len());
        weights.reserve_exact(old.len() + PADDING);
        this.places.reserve_exact(before.len() + PADDING);
        for band in bands {
            this.first.push(this.chunks.len());
            for group in &mut groups[band] {
                let own = group.start as usize..(group.start + group.len) as usize;
                // No more than before, which fitted.
                group.start = (indices.len() / 4) as u32;
                let columns = &before[4 * own.start..4 * own.end];
                cut(columns, features, &mut this.chunks, &mut this.places);
                indices.extend_from_slice(columns);
                weights.extend_from_slice(&old[4 * height * own.start..4 * height * own.end]);
            }
        }
        this.entries = indices.len() / 4;
        weights.extend([0; PADDING]);
        this.places.extend([0; PADDING]);
        this.chunks.shrink_to_fit();
        this
    }

    /// Whether layers of so many features have them.
    pub fn takes(features: usize) -> bool {
        FEATURES.contains(&features)
    }

    /// Whether kernels that read them are the fastest for so many tokens.
    pub fn serve(&self, lookup: &Lookup, height: usize, tokens: usize) -> bool {
        4 * self.entries >= lookup.kernel(height, tokens).least * self.chunks.len()
    }

    /// Those of a band and all that follow, and the places of their entries, of which this is the first.
    pub fn after(&self, band: usize, entry: usize) -> (&[Chunk], &[u8]) {
        (&self.chunks[self.first[band]..], &self.places[4 * entry..])
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * std::mem::size_of::<Chunk>()
            + self.places.len()
            + self.first.len() * std::mem::size_of::<usize>()
    }
}
