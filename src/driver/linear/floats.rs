//! Block-sparse layers of floats: a panel of tokens times a band of 64 output features.

use super::schedule::{self, Multiply};
use super::weights::{BAND, Bands, HEIGHTS, Sparse};
use super::{Job, Memory, Out, TileOf, finish, same_panels, through_rows};
use crate::base::buffer::{as_f32, as_i32};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::kernels::epilogue::Lines;
use crate::kernels::float::{Band, Columns};
use crate::kernels::float_table::FloatKernels;
use crate::kernels::panel::{Panel, PanelLayout};
use std::ops::Range;

/// Bytes of a tile of sums, or of what comes out of one: a band of a panel of 64 tokens.
const SUMS: usize = BAND * 64 * 4;

/// Where the weights of columns lie among widened ones: after those of each section.
const COLUMNS: usize = HEIGHTS.len();

/// y = x · wᵀ with block-sparse w, in floats.
pub fn sparse_floats(job: &Job<'_>, w: &Sparse, ctx: &Ctx, memory: Memory<'_>) {
    let pairs = w.layout().element() == Element::Bf16;
    let kernels = job.tier.floats(w.layout().element());
    let widens = !pairs && w.stored() != Element::F32;
    let lanes = job.tier.float.f32.dense[0].lanes;
    through_rows(job, !same_panels(job), ctx, memory, |job, memory| {
        schedule::run(job, &Floats { job, w, kernels, widens, lanes }, ctx, memory);
    });
}

struct Floats<'a> {
    job: &'a Job<'a>,
    w: &'a Sparse,
    kernels: &'static FloatKernels,
    /// Whether weights are stored narrower than kernels read them: those of some bands are widened to memory, for all the
    /// panels that meet them.
    widens: bool,
    /// Floats of a register.
    lanes: usize,
}

impl Floats<'_> {
    /// Where the weights of some bands lie when widened, in floats: the entries of each section, then the columns, then
    /// the end of them.
    fn widened(&self, bands: &Range<usize>) -> [usize; COLUMNS + 2] {
        let mut at = [0; COLUMNS + 2];
        for s in 0..COLUMNS {
            at[s + 1] = at[s] + self.w.entries_of(bands, s).len() * HEIGHTS[s];
        }
        at[COLUMNS + 1] = at[COLUMNS] + 4 * self.w.columns(bands).1.len();
        at
    }
}

impl Multiply for Floats<'_> {
    fn weights(&self) -> &impl Bands {
        self.w
    }

    fn weight_bytes(&self) -> usize {
        if self.widens { self.w.bytes() * 32 / self.w.stored().bits() } else { self.w.bytes() }
    }

    fn begins(&self) -> bool {
        self.widens
    }

    fn tile_bytes(&self, chunks: usize) -> usize {
        let chunk = |i| self.widened(&self.w.bands_by_cost(chunks, i))[COLUMNS + 1];
        let most = if self.widens { (0..chunks).map(chunk).max() } else { None };
        3 * SUMS + 4 * most.unwrap_or(0)
    }

    fn begin(&self, bands: Range<usize>, tile: &mut [u8]) {
        if !self.widens {
            return;
        }
        let at = self.widened(&bands);
        let to = &mut tile[3 * SUMS..][..4 * at[COLUMNS + 1]];
        let stored = self.w.stored();
        let widen = self.job.tier.float.widen.of(stored);
        for s in 0..HEIGHTS.len() {
            let own = self.w.entries_of(&bands, s);
            let at_entry = |entry: usize| stored.bytes_of(entry * HEIGHTS[s]);
            let from = &self.w.entries(s).1[at_entry(own.start)..at_entry(own.end)];
            // SAFETY: the tier is supported; there is room for as many floats.
            unsafe {
                widen(from.as_ptr(), own.len() * HEIGHTS[s], to[4 * at[s]..4 * at[s + 1]].as_mut_ptr())
            };
        }
        let from = self.w.columns(&bands).2;
        // SAFETY: as above.
        unsafe { widen(from.as_ptr(), 8 * from.len() / stored.bits(), to[4 * at[COLUMNS]..].as_mut_ptr()) };
    }

    fn multiply(&self, panel: Panel, x: &[u8], bands: Range<usize>, tile: &mut [u8]) {
        self.multiply_all(&[panel], x, bands, tile);
    }

    fn takes_two(&self) -> bool {
        self.w.height() > 0 && self.kernels.panels() == 2
    }

    fn multiply_two(&self, panels: [Panel; 2], x: &[u8], bands: Range<usize>, tile: &mut [u8]) {
        self.multiply_all(&panels, x, bands, tile);
    }
}

/// Where the sums of a whole panel's band go, if it is to lines of a panel that has the same tokens: from output feature `first` on.
fn lines_of(job: &Job<'_>, token: usize, tokens: usize, width: usize, first: usize) -> Option<*mut f32> {
    let Out::Panels(y, to) = job.out else { return None };
    if to.layout != PanelLayout::F32KMajor || tokens < to.layout.width() || job.finish.residual.is_some() {
        return None;
    }
    let own = to.panel_of(token);
    assert!(own == Panel { token, tokens, width }, "panels of x and y have the same tokens");
    Some(y.wrapping_add(to.range(own).start).cast::<f32>().wrapping_add(first * width))
}

impl Floats<'_> {
    /// One panel, or two whole neighbouring ones, times some bands.
    fn multiply_all(&self, panels: &[Panel], x: &[u8], bands: Range<usize>, tile: &mut [u8]) {
        let Self { job, w, kernels, .. } = *self;
        let (sums, rest) = tile.split_at_mut(SUMS);
        let (rows, rest) = rest.split_at_mut(SUMS);
        let (bytes, widened) = rest.split_at_mut(SUMS);
        let at = self.widened(&bands);
        let width = panels[0].width;
        // Each panel has sums of its own.
        assert!(panels.len() * BAND * width * 4 <= SUMS);
        let (panel_stride, out_stride) = (x.len() / panels.len(), BAND * width);
        for band in bands.clone() {
            let own = band..band + 1;
            let first = band * BAND;
            let features = (job.out_features - first).min(BAND);
            let sums = as_f32(sums).as_mut_ptr();
            let (chunks, items, weights, item) = w.columns(&own);
            // SAFETY: the weights' constructor proved groups, indices, chunks and rows for x of this many features, of which
            // these are whole panels; a tile has room for a band of each; parameters are padded to whole bands; the output
            // belongs to this call and these tiles of it to this task.
            unsafe {
                let few = job.tier.float.few(width);
                for p in 0..panels.len() {
                    let sums = sums.add(p * out_stride);
                    if !chunks.is_empty() {
                        let weights = match self.widens {
                            false => weights.as_ptr(),
                            true => widened[4 * (at[COLUMNS] + 4 * (item - w.columns(&bands).3))..].as_ptr(),
                        };
                        let panel = &x[p * panel_stride..][..panel_stride];
                        let columns = Columns { chunks, rows: items.as_ptr(), weights, panel };
                        let run = few.map_or_else(|| kernels.scatter(width).run, |few| few.scatter);
                        run(&columns, features, sums);
                    } else if w.scatters() {
                        sums.write_bytes(0, features * width);
                    }
                }
                for s in 0..HEIGHTS.len() {
                    let groups = w.groups(band, s);
                    if groups.is_empty() {
                        continue;
                    }
                    let (indices, weights) = w.entries(s);
                    let (weights, first_entry) = match self.widens {
                        false => (weights.as_ptr(), 0),
                        true => (widened[4 * at[s]..].as_ptr(), self.w.entries_of(&bands, s).start),
                    };
                    let (scales, scales_stride, scale_lines) = match w.scales() {
                        None => (None, 0, 1),
                        Some(s) => (Some(&s.scales[..]), s.stride, s.size / w.layout().line_columns()),
                    };
                    let run = match few {
                        Some(few) => few.gather(HEIGHTS[s], w.adjacent(s)),
                        None if panels.len() == 2 => kernels.two(HEIGHTS[s]).run,
                        None => kernels.gather(HEIGHTS[s], width).run,
                    };
                    let band = Band {
                        groups,
                        indices,
                        weights,
                        first_entry,
                        panel: x,
                        panel_stride,
                        out_stride,
                        scales,
                        scales_stride,
                        scale_lines,
                        first_row: first,
                    };
                    run(&band, sums);
                }
                for (p, &Panel { token, tokens, width }) in panels.iter().enumerate() {
                    let sums = sums.add(p * out_stride);
                    if let Some(out) = lines_of(job, token, tokens, width, first) {
                        (job.tier.float.lines)(
                            &job.finish,
                            &Lines { sums, feature: first, features, width, out },
                        );
                        continue;
                    }
                    let whole = features.is_multiple_of(2 * self.lanes)
                        && few.is_none()
                        && job.finish.residual.is_none();
                    let (sums, ld) = if whole {
                        (sums.cast(), width)
                    } else if width == 1 {
                        // The sums of one token are a row.
                        (sums.cast(), BAND)
                    } else {
                        let rows = as_i32(rows);
                        let padded = features.next_multiple_of(4);
                        (job.tier.packing.sums_to_rows)(sums.cast(), padded, width, rows.as_mut_ptr(), BAND);
                        (rows.as_mut_ptr(), BAND)
                    };
                    finish(job, TileOf { token, tokens, feature: first, features }, (sums, ld, whole), bytes);
                }
            }
        }
    }
}
