//! Packed weights: indices proven, sums computed, in the order that the kernels read.

use super::buffer::{Buffer, as_i8};
use super::sparse::{GATHER, Group};
use super::table::{DenseKernel, Layout};
use crate::error::{Error, Result};
use crate::sparse::Bsr;
use crate::view::MatRef;

/// Output features of a band: the unit in which sparse work is shared out.
pub const BAND: usize = 64;

/// The largest K for which every sum of u8 x i8 fits 32 bits: floor((2^31 - 1) / (255 * 128)).
pub const MAX_FEATURES: usize = 65_793;

/// The largest K with weight zero points, where a factor can be 255 on both sides.
pub const MAX_FEATURES_ZERO_POINTS: usize = 33_025;

/// Groups of one height.
#[derive(Debug, Clone, Default)]
struct Section {
    groups: Vec<Group>,
    indices: Vec<u16>,
    weights: Vec<i8>,
}

/// Block-sparse weights.
#[derive(Debug, Clone)]
pub struct Sparse {
    layout: Layout,
    /// Groups of four rows, and of one.
    sections: [Section; 2],
    /// The groups of each band in each section.
    bands: Vec<Band>,
    /// Whether some rows are spread over two groups: their sums must be added in memory.
    split_rows: bool,
}

/// The rows of a group of each section.
pub const HEIGHTS: [usize; 2] = [4, 1];

/// 64 output features.
#[derive(Debug, Clone)]
pub struct Band {
    groups: [std::ops::Range<usize>; 2],
    /// What the bands before it and it cost: entries, weighted by height.
    cost: usize,
    /// The most entries of a section, as a gather pads them.
    entries: usize,
}

/// Dense weights in panels of `kernel.nr` features.
#[derive(Debug, Clone)]
pub struct Dense {
    kernel: DenseKernel,
    panels: Buffer,
    /// Steps of a panel.
    steps: usize,
}

impl Dense {
    /// Packs for a kernel.
    pub fn pack(w: MatRef<'_, i8>, kernel: DenseKernel) -> Self {
        let per_step = 4 / kernel.x_bytes;
        let steps = w.cols().div_ceil(4) * kernel.x_bytes;
        let mut this = Dense { kernel, panels: Buffer::default(), steps };
        let panel_bytes = this.panel_bytes();
        this.panels.grow(w.rows().div_ceil(kernel.nr) * panel_bytes);
        let bytes = this.panels.bytes_mut();
        for n in 0..w.rows() {
            let panel = &mut bytes[n / kernel.nr * panel_bytes..][..panel_bytes];
            let (register, lane) = (n % kernel.nr / kernel.lanes, n % kernel.lanes);
            for (k, &value) in w.row(n).iter().enumerate() {
                let step = k / per_step * kernel.nr + register * kernel.lanes + lane;
                panel[step * per_step + k % per_step] = value as u8;
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

    /// The weights of a panel of features.
    pub fn panel(&self, i: usize) -> &[i8] {
        as_i8(&self.panels.bytes()[i * self.panel_bytes()..][..self.panel_bytes()])
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// All bytes, as they lie: what a call with one token reads.
    pub fn as_bytes(&self) -> &[u8] {
        self.panels.bytes()
    }

    fn panel_bytes(&self) -> usize {
        self.steps * self.kernel.nr * 4 / self.kernel.x_bytes
    }
}

/// Rows of one group: as many as share their columns, at most 4, none beyond a band.
struct Rows {
    first: usize,
    rows: usize,
}

fn row_groups(w: &Bsr<i8>, block_row: usize) -> impl Iterator<Item = Rows> + use<> {
    let mut first = block_row * w.block().rows();
    let end = (first + w.block().rows()).min(w.rows());
    std::iter::from_fn(move || {
        let rows = (end - first).min(4).min(BAND - first % BAND);
        first += rows;
        (rows > 0).then_some(Rows { first: first - rows, rows })
    })
}

impl Sparse {
    /// Packs.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are 2^32 entries or more.
    pub fn pack(w: &Bsr<i8>) -> Result<Self> {
        let layout = if w.block().cols().is_multiple_of(4) { Layout::Quads } else { Layout::Lines };
        let mut this = Sparse { layout, sections: Default::default(), bands: Vec::new(), split_rows: false };
        let mut columns = Vec::new();
        for block_row in 0..w.block_rows() {
            let (blocks, values) = w.block_row(block_row);
            columns.clear();
            for (b, &block) in blocks.iter().enumerate() {
                let first = block as usize * w.block().cols();
                let end = (first + w.block().cols()).min(w.cols());
                columns.extend((first..end).map(|k| (k, b, k - first)));
            }
            for Rows { first, rows } in row_groups(w, block_row) {
                let value = |r: usize, (_, b, c): (usize, usize, usize)| {
                    let row = first + r - block_row * w.block().rows();
                    values[(b * w.block().rows() + row) * w.block().cols() + c]
                };
                this.push_group(first, rows, &columns, value)?;
            }
        }
        this.finish(w.rows());
        Ok(this)
    }

    /// One group, or two where the columns reach beyond what 16 bits can index.
    fn push_group(
        &mut self,
        first: usize,
        rows: usize,
        columns: &[(usize, usize, usize)],
        value: impl Fn(usize, (usize, usize, usize)) -> i8,
    ) -> Result<()> {
        const REACH: usize = 1 << 16;
        let layout = self.layout;
        let section = &mut self.sections[usize::from(rows == 1)];
        let height = HEIGHTS[usize::from(rows == 1)];
        let near = match layout {
            Layout::Lines => columns.partition_point(|c| c.0 < REACH),
            // A quarter of the index: reaches four times as far.
            Layout::Quads => columns.len(),
        };
        for (base, columns) in [(0, &columns[..near]), (REACH, &columns[near..])] {
            if base > 0 && columns.is_empty() {
                continue;
            }
            self.split_rows |= base > 0;
            let start = section.weights.len() / (height * 4);
            let mut entries = 0;
            let mut rest = columns;
            while let Some(&(k, ..)) = rest.first() {
                // Up to four columns: any, or those of one aligned quad.
                let taken = match layout {
                    Layout::Lines => rest.len().min(4),
                    Layout::Quads => rest.iter().take_while(|c| c.0 / 4 == k / 4).count(),
                };
                let mut slots = [None; 4];
                for (i, &column) in rest[..taken].iter().enumerate() {
                    slots[if layout == Layout::Quads { column.0 % 4 } else { i }] = Some(column);
                }
                match layout {
                    Layout::Lines => {
                        // What is missing is the last there is, so that indices ascend.
                        let index = |c: Option<(usize, usize, usize)>| c.unwrap_or(rest[taken - 1]).0 - base;
                        section.indices.extend(slots.map(|c| index(c) as u16));
                    }
                    Layout::Quads => section.indices.push((k / 4) as u16),
                }
                for r in 0..height {
                    let byte = |c: Option<_>| c.map_or(0, |c| if r < rows { value(r, c) } else { 0 });
                    section.weights.extend(slots.map(byte));
                }
                entries += 1;
                rest = &rest[taken..];
            }
            let number = |n: usize| {
                u32::try_from(n).map_err(|_| {
                    Error::shape("weights", "fewer than 2^32 entries and rows", format_args!("{n}"))
                })
            };
            section.groups.push(Group {
                row: number(first)?,
                rows: rows as u32,
                start: number(start)?,
                len: entries,
                base: base as u32,
            });
        }
        Ok(())
    }

    /// Divides the groups into bands, orders those of a band by length (loops of the same length follow each other,
    /// which branch predictors like), and pads.
    fn finish(&mut self, rows: usize) {
        let mut start = [0; 2];
        let mut cost = 0;
        for band in 0..rows.div_ceil(BAND) {
            let mut groups = [0..0, 0..0];
            let mut most = 0;
            for (s, section) in self.sections.iter_mut().enumerate() {
                let after = |g: &Group| (g.row as usize) < (band + 1) * BAND;
                let end = start[s] + section.groups[start[s]..].partition_point(after);
                let own = &mut section.groups[start[s]..end];
                own.sort_by_key(|g| (g.base, std::cmp::Reverse(g.len), g.row));
                let entries: usize = own.iter().map(|g| g.len as usize).sum();
                let gathered = own.iter().map(|g| (g.len as usize).next_multiple_of(GATHER)).sum();
                cost += (entries + own.len()) * HEIGHTS[s];
                most = most.max(gathered);
                groups[s] = start[s]..end;
                start[s] = end;
            }
            self.bands.push(Band { groups, cost, entries: most });
        }
        for section in &mut self.sections {
            section.weights.extend([0; 64]);
            section.indices.shrink_to_fit();
            section.weights.shrink_to_fit();
        }
    }

    /// How the panels of x must be laid out.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The height of most groups.
    pub fn height(&self) -> usize {
        HEIGHTS[usize::from(self.sections[0].groups.is_empty())]
    }

    /// The bands of 64 output features.
    pub fn bands(&self) -> &[Band] {
        &self.bands
    }

    /// The i-th of `parts` ranges of bands that cost about the same.
    pub fn bands_by_cost(&self, parts: usize, i: usize) -> std::ops::Range<usize> {
        let total = self.bands.last().map_or(0, |b| b.cost);
        let cut = |i: usize| match i {
            0 => 0,
            i if i == parts => self.bands.len(),
            // The cut that is nearest to its share.
            i => {
                let share = total * i / parts;
                let after = self.bands.partition_point(|b| b.cost <= share);
                let cost = |b: usize| if b == 0 { 0 } else { self.bands[b - 1].cost };
                let next = (after + 1).min(self.bands.len());
                if share - cost(after) <= cost(next) - share { after } else { next }
            }
        };
        cut(i)..cut(i + 1).max(cut(i))
    }

    /// The most entries that a band has in a section, as a gather pads them.
    pub fn most_entries(&self) -> usize {
        self.bands.iter().map(|b| b.entries).max().unwrap_or(0)
    }

    /// The groups of a band in section s (of height `HEIGHTS[s]`).
    pub fn groups(&self, band: usize, s: usize) -> &[Group] {
        &self.sections[s].groups[self.bands[band].groups[s].clone()]
    }

    /// Indices and weights of section s.
    pub fn entries(&self, s: usize) -> (&[u16], &[i8]) {
        (&self.sections[s].indices, &self.sections[s].weights)
    }

    /// Whether some rows' sums are added in memory.
    pub fn split_rows(&self) -> bool {
        self.split_rows
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let section = |s: &Section| {
            s.weights.len() + s.indices.len() * 2 + s.groups.len() * std::mem::size_of::<Group>()
        };
        self.sections.iter().map(section).sum()
    }
}
