//! Block-sparse weights: groups of rows that share their columns, and single rows column by column.

use super::lookup::Chunks;
use super::{BAND, Bands, Blocks, GroupScales};
use crate::base::core::SparseCost;
use crate::base::element::{Element, Weight};
use crate::base::error::{Error, Result};
use crate::kernels::float::Chunk;
use crate::kernels::gemv::GATHER;
use crate::kernels::lookup::{self, Lookup, LookupKernel};
use crate::kernels::panel::PanelLayout;
use crate::kernels::sparse::Group;
use std::ops::Range;

/// Groups of one height.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Its groups, band by band.
    pub groups: Vec<Group>,
    /// The indices of their entries.
    pub indices: Vec<u16>,
    /// The weights of their entries.
    pub weights: Vec<u8>,
    /// How its entries are looked up, where they can be.
    pub chunks: Option<Chunks>,
    /// Whether every four entries of a group are neighbouring lines of x.
    pub adjacent: bool,
}

impl Section {
    fn finds_adjacent(&self) -> bool {
        let of = |g: &Group| &self.indices[g.start as usize..][..g.len as usize];
        let follow = |four: &[u16]| four.windows(2).all(|two| two[1] == two[0] + 1);
        self.groups.iter().all(|g| g.len % 4 == 0 && of(g).chunks(4).all(follow))
    }
}

/// Single rows, column by column.
#[derive(Debug, Clone, Default)]
struct Columns {
    chunks: Vec<Chunk>,
    rows: Vec<u8>,
    weights: Vec<u8>,
}

/// Block-sparse weights.
#[derive(Debug, Clone)]
pub struct Sparse {
    layout: PanelLayout,
    stored: Element,
    /// Groups of four rows, of two, and of one.
    sections: [Section; HEIGHTS.len()],
    columns: Columns,
    /// Columns of K in a part of a row, for each section, where there are no scales.
    reach: [usize; HEIGHTS.len()],
    /// What of them each band has.
    bands: Vec<Band>,
    /// Of groups of four rows, those that share their columns with the next one, each pair as one group, and the others: see
    /// `kernels::tall`. Both are empty where a band has no pairs.
    tall: Vec<Group>,
    alone: Vec<Group>,
    /// Whether some rows are spread over several groups: their sums must be added in memory.
    split_rows: bool,
    scatters: bool,
    scales: Option<GroupScales>,
}

/// The rows of a group of each section. Only floats have groups of two.
pub const HEIGHTS: [usize; 3] = [4, 2, 1];

/// The section of groups of so many rows: of the least height that has room for them.
fn section_of(rows: usize, layout: PanelLayout) -> usize {
    match rows {
        1 => 2,
        2 if layout.is_float() => 1,
        _ => 0,
    }
}

/// Bytes of the lines of a panel of floats in a block of K, for each section. All rows of a band go through one block before
/// the next, with sums in memory between. Groups of four rows use each line often enough without; of groups of two, a block
/// stays in the second-level cache beside the weights; single rows load a line for each product, so it stays in the first.
const BLOCK_BYTES: [usize; HEIGHTS.len()] = [usize::MAX, 64 << 10, 32 << 10];

/// Columns of K in a part of a row, for each section: at most what 16 bits can index.
fn reach(layout: PanelLayout, panels: usize) -> [usize; HEIGHTS.len()] {
    let columns = layout.line_columns();
    let line = layout.width() * columns * layout.element_bytes();
    let most = 1 << 16;
    let of = |s: usize| match layout.is_float() {
        true => (BLOCK_BYTES[s] / line / if HEIGHTS[s] == 1 { panels } else { 1 }).min(most),
        false => most,
    };
    std::array::from_fn(|s| of(s) * columns)
}

/// 64 output features.
#[derive(Debug, Clone)]
struct Band {
    groups: [Range<usize>; HEIGHTS.len()],
    tall: Range<usize>,
    alone: Range<usize>,
    /// Of the entries of each section.
    entries: [Range<usize>; HEIGHTS.len()],
    chunks: Range<usize>,
    /// Of the rows of the columns.
    items: Range<usize>,
    /// What the bands before it and it cost: entries, weighted by height.
    cost: usize,
    /// The most entries of a section, as a gather pads them.
    gathered: usize,
}

/// Rows of one group: as many as share their columns, at most 4, none beyond a band.
struct Rows {
    first: usize,
    rows: usize,
}

fn row_groups<T>(w: &Blocks<'_, T>, block_row: usize) -> impl Iterator<Item = Rows> + use<T> {
    let mut first = block_row * w.block.0;
    let end = (first + w.block.0).min(w.size.0);
    std::iter::from_fn(move || {
        let rows = (end - first).min(4).min(BAND - first % BAND);
        first += rows;
        (rows > 0).then_some(Rows { first: first - rows, rows })
    })
}

/// A stored column: its number, its block, and which of the block's columns it is.
type Column = (usize, usize, usize);

/// Four columns of a single row, on their way to [`Columns`].
struct Item {
    quad: u32,
    row: u8,
    weights: [u8; 16],
}

impl Sparse {
    /// Packs for kernels that read `layout`, so many panels of it at once.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are 2^32 entries or more.
    pub fn pack<T: Weight>(
        w: &Blocks<'_, T>,
        layout: PanelLayout,
        panels: usize,
        scales: Option<GroupScales>,
    ) -> Result<Self> {
        let mut this = Sparse {
            layout,
            stored: T::ELEMENT,
            sections: Default::default(),
            columns: Columns::default(),
            reach: reach(layout, panels),
            bands: Vec::new(),
            tall: Vec::new(),
            alone: Vec::new(),
            split_rows: false,
            // Only floats have kernels for it, and scales by groups would have to be applied in the middle.
            scatters: layout.is_float() && scales.is_none() && w.block.1.is_multiple_of(4),
            scales,
        };
        let mut columns = Vec::new();
        let mut items = Vec::new();
        for block_row in 0..w.indptr.len() - 1 {
            let (blocks, values) = w.block_row(block_row);
            columns.clear();
            for (b, &block) in blocks.iter().enumerate() {
                let first = block as usize * w.block.1;
                let end = (first + w.block.1).min(w.size.1);
                columns.extend((first..end).map(|k| (k, b, k - first)));
            }
            for Rows { first, rows } in row_groups(w, block_row) {
                if first / BAND > this.bands.len() {
                    this.end_band(&mut items);
                }
                let value = |r: usize, (_, b, c): Column| {
                    let row = first + r - block_row * w.block.0;
                    values[(b * w.block.0 + row) * w.block.1 + c]
                };
                if rows == 1 && this.scatters {
                    this.push_items((first % BAND) as u8, &columns, value, &mut items);
                } else {
                    this.push_group(first, rows, &columns, value)?;
                }
            }
        }
        if w.size.0 > 0 {
            this.end_band(&mut items);
        }
        for section in &mut this.sections {
            section.weights.extend([0; 64]);
            section.indices.shrink_to_fit();
            section.weights.shrink_to_fit();
            section.adjacent = layout.is_float() && section.finds_adjacent();
        }
        Ok(this)
    }

    /// One group, or several where the columns reach beyond a block of K, or have scales by groups of K.
    fn push_group<T: Weight>(
        &mut self,
        first: usize,
        rows: usize,
        columns: &[Column],
        value: impl Fn(usize, Column) -> T,
    ) -> Result<()> {
        let (slots, line, layout) = (self.layout.slots(), self.layout.line_columns(), self.layout);
        let s = section_of(rows, layout);
        let (section, height) = (&mut self.sections[s], HEIGHTS[s]);
        let stored = self.stored;
        // Columns of a part.
        let reach = match &self.scales {
            Some(scales) => scales.size,
            None => self.reach[s],
        };
        let mut rest = columns;
        let mut part = 0;
        loop {
            let (own, later) = rest.split_at(rest.partition_point(|c| c.0 < (part + 1) * reach));
            rest = own;
            let base = part * reach / line;
            let start = section.weights.len() / stored.bytes_of(height * slots);
            let mut entries = 0;
            while let Some(&(k, ..)) = rest.first() {
                // Up to `slots` columns: any, or those of one aligned line.
                let taken = match layout {
                    PanelLayout::KMajor => rest.len().min(slots),
                    _ => rest.iter().take_while(|c| c.0 / slots == k / slots).count(),
                };
                let mut of = [None; 4];
                for (i, &column) in rest[..taken].iter().enumerate() {
                    of[if layout == PanelLayout::KMajor { i } else { column.0 % slots }] = Some(column);
                }
                match layout {
                    PanelLayout::KMajor => {
                        // What is missing is the last there is, so that indices ascend.
                        section.indices.extend(of.map(|c| (c.unwrap_or(rest[taken - 1]).0 - base) as u16));
                    }
                    _ => section.indices.push((k / line - base) as u16),
                }
                let entry = section.weights.len();
                section.weights.resize(entry + stored.bytes_of(height * slots), 0);
                for r in 0..height {
                    for (i, column) in of[..slots].iter().enumerate() {
                        let value = match column {
                            Some(column) if r < rows => value(r, *column),
                            _ => T::default(),
                        };
                        value.store(&mut section.weights[entry..], r * slots + i);
                    }
                }
                entries += 1;
                rest = &rest[taken..];
            }
            section.groups.push(Group {
                row: number(first)?,
                rows: rows as u32,
                start: number(start)?,
                len: entries,
                base: number(base)?,
            });
            rest = later;
            let Some(next) = rest.first() else { return Ok(()) };
            self.split_rows = true;
            part = next.0 / reach;
        }
    }

    /// One row, four columns at a time.
    fn push_items<T: Weight>(
        &mut self,
        row: u8,
        columns: &[Column],
        value: impl Fn(usize, Column) -> T,
        items: &mut Vec<Item>,
    ) {
        for four in columns.chunk_by(|a, b| a.0 / 4 == b.0 / 4) {
            let mut item = Item { quad: (four[0].0 / 4) as u32, row, weights: [0; 16] };
            for &column in four {
                value(0, column).store(&mut item.weights, column.0 % 4);
            }
            items.push(item);
        }
    }

    /// Everything since the last band is one. Orders its groups by length, which branch predictors like.
    fn end_band(&mut self, items: &mut Vec<Item>) {
        let before = self.bands.last().cloned().unwrap_or_else(Band::none);
        let mut band = Band { cost: before.cost, ..Band::none() };
        for (s, section) in self.sections.iter_mut().enumerate() {
            let per_entry = self.stored.bytes_of(HEIGHTS[s] * self.layout.slots());
            band.groups[s] = before.groups[s].end..section.groups.len();
            band.entries[s] = before.entries[s].end..section.weights.len() / per_entry;
            let Section { groups, indices, weights, .. } = section;
            let own = &mut groups[band.groups[s].clone()];
            in_order(own);
            if self.layout.is_float() {
                lay_out(own, band.entries[s].start, indices, weights);
            }
            let gathered = own.iter().map(|g| (g.len as usize).next_multiple_of(GATHER)).sum();
            band.gathered = band.gathered.max(gathered);
        }
        items.sort_by_key(|item| (item.quad, item.row));
        for own in items.chunk_by(|a, b| a.quad == b.quad) {
            self.columns.chunks.push(Chunk { quad: own[0].quad, rows: own.len() as u32 });
            for item in own {
                self.columns.rows.push(item.row);
                self.columns.weights.extend_from_slice(&item.weights[..self.stored.bytes_of(4)]);
            }
        }
        band.chunks = before.chunks.end..self.columns.chunks.len();
        band.items = before.items.end..self.columns.rows.len();
        band.cost += 4 * items.len();
        items.clear();
        self.bands.push(band);
    }

    /// Finds the groups of four rows that share their columns with the next one: once, after packing, when entries lie where they stay.
    pub fn pair_groups(&mut self) {
        if self.layout != PanelLayout::KMajor {
            return;
        }
        let Section { groups, indices, .. } = &self.sections[0];
        for band in &mut self.bands {
            let before = (self.tall.len(), self.alone.len());
            pair(&groups[band.groups[0].clone()], indices, &mut self.tall, &mut self.alone);
            if self.tall.len() == before.0 {
                self.alone.truncate(before.1);
            }
            band.tall = before.0..self.tall.len();
            band.alone = before.1..self.alone.len();
        }
    }

    /// Makes what kernels read that look x up, of so many features: once, after packing.
    pub fn look_up(&mut self, features: usize) {
        if self.layout != PanelLayout::KMajor || !Chunks::takes(features) {
            return;
        }
        for (s, section) in self.sections.iter_mut().enumerate() {
            if !section.groups.is_empty() {
                let bands = self.bands.iter().map(|b| b.groups[s].clone());
                section.chunks = Some(Chunks::of(section, bands, features, HEIGHTS[s]));
            }
        }
    }

    /// Whether section s looks x up, of so many tokens.
    pub fn looks_up(&self, lookup: &Lookup, s: usize, tokens: usize) -> bool {
        let fits = |c: &Chunks| tokens <= lookup::TOKENS && c.serve(lookup, HEIGHTS[s], tokens);
        self.sections[s].chunks.as_ref().is_some_and(fits)
    }

    /// The kernel that looks x up for most groups, if one does.
    pub fn looked_up<'a>(&self, lookup: &'a Lookup, tokens: usize) -> Option<&'a LookupKernel> {
        let s = HEIGHTS.iter().position(|&h| h == self.height())?;
        self.looks_up(lookup, s, tokens).then(|| lookup.kernel(HEIGHTS[s], tokens))
    }

    /// The chunks of a band and those after it, and the places and weights of their entries.
    pub fn chunks(&self, band: usize, s: usize) -> Option<(&[lookup::Chunk], &[u8], &[u8])> {
        let section = &self.sections[s];
        let entry = section.groups[self.bands[band].groups[s].clone()].first()?.start as usize;
        let (chunks, places) = section.chunks.as_ref()?.after(band, entry);
        Some((chunks, places, &section.weights[4 * HEIGHTS[s] * entry..]))
    }

    /// Whether any section can look x up.
    pub fn has_chunks(&self) -> bool {
        self.sections.iter().any(|s| s.chunks.is_some())
    }

    /// What weights of INT8 cost on a core, in times of those of a dense layer.
    pub fn cost(&self, of: &SparseCost) -> f64 {
        let adjacent = self.layout == PanelLayout::KMajor4;
        let cost = |s: usize| {
            let per_entry = HEIGHTS[s] * self.layout.slots();
            let weights = self.bands.last().map_or(0, |b| b.entries[s].end) * per_entry;
            let tall = if HEIGHTS[s] == 4 { self.tall_entries() * per_entry } else { 0 };
            let of = |rows| f64::from(of.of(rows, adjacent));
            (weights - tall) as f64 * of(HEIGHTS[s]) + tall as f64 * of(8)
        };
        (0..HEIGHTS.len()).map(cost).sum()
    }

    /// The entries of groups of four rows that are half of a group of eight.
    fn tall_entries(&self) -> usize {
        let tall = (0..self.bands.len()).filter_map(|band| self.tall(band));
        2 * tall.flat_map(|[pairs, _]| pairs).map(|pair| pair.len as usize).sum::<usize>()
    }

    /// How the panels of x must be laid out.
    pub fn layout(&self) -> PanelLayout {
        self.layout
    }

    /// How weights are stored.
    pub fn stored(&self) -> Element {
        self.stored
    }

    /// The height of most groups; 0 where rows are taken column by column.
    pub fn height(&self) -> usize {
        match self.sections.iter().position(|s| !s.groups.is_empty()) {
            Some(s) if HEIGHTS[s] > 1 => HEIGHTS[s],
            _ if self.columns.chunks.is_empty() => 1,
            _ => 0,
        }
    }

    /// The most entries that a band has in a section, as a gather pads them.
    pub fn most_gathered(&self) -> usize {
        self.bands.iter().map(|b| b.gathered).max().unwrap_or(0)
    }

    /// The groups of a band in section s (of height `HEIGHTS[s]`).
    pub fn groups(&self, band: usize, s: usize) -> &[Group] {
        &self.sections[s].groups[self.bands[band].groups[s].clone()]
    }

    /// Of the groups of four rows of a band, pairs that share their columns as groups of eight, and the groups that are left. `None`
    /// if there is no pair.
    pub fn tall(&self, band: usize) -> Option<[&[Group]; 2]> {
        let Band { tall, alone, .. } = &self.bands[band];
        (!tall.is_empty()).then(|| [&self.tall[tall.clone()], &self.alone[alone.clone()]])
    }

    /// Whether most rows belong to groups of eight.
    pub fn is_tall(&self) -> bool {
        4 * self.tall.len() > self.sections[0].groups.len()
    }

    /// Indices and weights of section s.
    pub fn entries(&self, s: usize) -> (&[u16], &[u8]) {
        (&self.sections[s].indices, &self.sections[s].weights)
    }

    /// Whether every four entries of a group of section s are neighbouring lines of x.
    pub fn adjacent(&self, s: usize) -> bool {
        self.sections[s].adjacent
    }

    /// The entries of some bands in section s.
    pub fn entries_of(&self, bands: &Range<usize>, s: usize) -> Range<usize> {
        of(&self.bands[bands.clone()], |b| &b.entries[s])
    }

    /// The single rows of some bands, column by column: chunks, rows and weights, and the number of the first row.
    pub fn columns(&self, bands: &Range<usize>) -> (&[Chunk], &[u8], &[u8], usize) {
        let bands = &self.bands[bands.clone()];
        let items = of(bands, |b| &b.items);
        let four = self.stored.bytes_of(4);
        (
            &self.columns.chunks[of(bands, |b| &b.chunks)],
            &self.columns.rows[items.clone()],
            &self.columns.weights[items.start * four..items.end * four],
            items.start,
        )
    }

    /// Whether single rows are taken column by column.
    pub fn scatters(&self) -> bool {
        self.scatters
    }

    /// Scales by groups of K.
    pub fn scales(&self) -> Option<&GroupScales> {
        self.scales.as_ref()
    }

    /// Whether some rows' sums are added in memory.
    pub fn split_rows(&self) -> bool {
        self.split_rows
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let section = |s: &Section| {
            let chunks = s.chunks.as_ref().map_or(0, Chunks::bytes);
            s.weights.len() + s.indices.len() * 2 + s.groups.len() * std::mem::size_of::<Group>() + chunks
        };
        let columns = self.columns.weights.len() + self.columns.rows.len() + 8 * self.columns.chunks.len();
        let scales = self.scales.as_ref().map_or(0, |s| 4 * s.scales.len());
        let tall = (self.tall.len() + self.alone.len()) * std::mem::size_of::<Group>();
        self.sections.iter().map(section).sum::<usize>() + tall + columns + scales
    }
}

impl Bands for Sparse {
    fn bands(&self) -> usize {
        self.bands.len()
    }

    fn bands_by_cost(&self, parts: usize, i: usize) -> Range<usize> {
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
}

impl Band {
    fn none() -> Self {
        let none = || std::array::from_fn(|_| 0..0);
        Band {
            groups: none(),
            tall: 0..0,
            alone: 0..0,
            entries: none(),
            chunks: 0..0,
            items: 0..0,
            cost: 0,
            gathered: 0,
        }
    }
}

/// Orders groups by length: loops of the same length follow each other. Parts of rows further along K come last.
fn in_order(groups: &mut [Group]) {
    groups.sort_by_key(|g| (g.base, std::cmp::Reverse(g.len), g.row));
}

/// Finds groups of four rows whose columns are those of the next group, which has the rows behind them and lies behind them, and which is
/// not a part of its rows. Each such pair becomes one group in `tall`, all others go to `alone`. Groups are ordered by length, and
/// those of a length by rows, so that such groups follow each other.
fn pair(groups: &[Group], indices: &[u16], tall: &mut Vec<Group>, alone: &mut Vec<Group>) {
    let columns = |g: &Group| &indices[4 * g.start as usize..][..4 * g.len as usize];
    let mut rest = groups;
    while let [a, later @ ..] = rest {
        rest = later;
        match later {
            [b, after @ ..]
                if a.rows == 4
                    && b.row == a.row + 4
                    && a.len > 0
                    && (b.start, b.len) == (a.start + a.len, a.len)
                    && (a.base, b.base) == (0, 0)
                    && columns(a) == columns(b) =>
            {
                tall.push(Group { rows: 4 + b.rows, ..*a });
                rest = after;
            }
            _ => alone.push(*a),
        }
    }
}

/// Moves the entries of the groups of a band, of one index each, into the order of the groups: a kernel then reads all of
/// them as they lie. They are the last there are, from `first` on.
fn lay_out(groups: &mut [Group], first: usize, indices: &mut Vec<u16>, weights: &mut Vec<u8>) {
    let before = indices.split_off(first);
    let bytes = weights.len().checked_div(first + before.len()).unwrap_or(0);
    let old = weights.split_off(first * bytes);
    for group in groups {
        let start = group.start as usize - first;
        let own = start..start + group.len as usize;
        // No more than before, which fitted.
        group.start = indices.len() as u32;
        weights.extend_from_slice(&old[own.start * bytes..own.end * bytes]);
        indices.extend_from_slice(&before[own]);
    }
}

/// From the first of some bands to the last.
fn of(bands: &[Band], range: impl Fn(&Band) -> &Range<usize>) -> Range<usize> {
    match bands {
        [] => 0..0,
        [first, .., last] => range(first).start..range(last).end,
        [one] => range(one).clone(),
    }
}

fn number(n: usize) -> Result<u32> {
    u32::try_from(n)
        .map_err(|_| Error::shape("weights", "fewer than 2^32 entries and rows", format_args!("{n}")))
}
