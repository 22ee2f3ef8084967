//! q, k and v, and their way into tiles.

use super::{FLOAT, Group, Mode, Plan};
use crate::base::element::Element;
use crate::base::tensor::TensorRef;
use crate::driver::multiply::multiply_all;
use crate::driver::tensor::{MAX_HEAD_DIM, Prefetch};
use crate::driver::workers::as_plain;
use crate::kernels::attention::decode::{Keys, Turns, Values};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::table::Decode;
use crate::kernels::attention::{PANEL, pack, sums};
use crate::kernels::pack::Tokens;
use std::ops::Range;

/// A query that adds up the bytes of a key.
const ONES: [u8; MAX_HEAD_DIM] = [1; MAX_HEAD_DIM];

impl Plan<'_> {
    /// The steps of a head of q to `x`; the sum of what is there, of bytes.
    pub fn pack_q(&self, token: usize, head: usize, x: &mut [u8]) -> i32 {
        let q = &self.problem.q;
        self.row_to_words(q, q.row(token, head), Element::U8, x)
    }

    /// Some rows of a group as tiles take them where they lie, and bytes from one to the next: rows of one head, of which nothing is
    /// to be converted or added up.
    pub fn q_in_place(&self, g: &Group, rows: &Range<usize>) -> Option<(*const u8, usize)> {
        let (q, dim) = (&self.problem.q, self.problem.layer.head_dim);
        let as_it_is = match self.mode {
            Mode::F32 => q.element() == Element::F32,
            Mode::Pairs => dim.is_multiple_of(2),
            Mode::Bytes => dim.is_multiple_of(4) && q.flip(Element::U8).0 == 0 && self.floating,
        };
        let head = rows.start / g.q_len;
        (as_it_is && (rows.end - 1) / g.q_len == head)
            .then(|| (q.at(g.q + rows.start % g.q_len, g.head + head), q.token_stride()))
    }

    /// A head's features, as tiles take them, padded with zeros to whole words; of bytes their sum, unsigned.
    fn row_to_words(&self, x: &TensorRef<'_>, row: &[u8], to: Element, out: &mut [u8]) -> i32 {
        let n = self.problem.layer.head_dim;
        let mut sum = 0;
        match self.mode {
            Mode::F32 => {
                assert!(out.len() >= 4 * n);
                // SAFETY: the tier is supported; n elements are there, and room for them.
                unsafe {
                    self.tier.float.widen.of(x.element())(row.as_ptr(), n, out.as_mut_ptr());
                }
            }
            Mode::Pairs => {
                out[..row.len()].copy_from_slice(row);
                out[row.len()..4 * self.words].fill(0);
            }
            Mode::Bytes => {
                let (flip, _) = x.flip(to);
                // SAFETY: the tier is supported.
                sum = unsafe { pack::flip::pick(self.ctx.isa())(row, flip, &mut out[..n]) };
                if n < 4 * self.words {
                    out[n..4 * self.words].fill(0);
                }
            }
        }
        sum
    }

    /// Up to 64 keys from one on to a panel; of bytes, what each key's scores start from.
    pub fn pack_k(
        &self,
        g: &Group,
        keys: Range<usize>,
        panel: &mut [u8],
        init: &mut [i32],
        stage: &mut [u8],
        ahead: Prefetch,
    ) {
        let k = &self.problem.k;
        let (rows, stride, flip) = if self.k_as_it_is() {
            (k.at(g.kv + keys.start, g.kv_head), k.token_stride(), k.flip(self.multiply.columns).0)
        } else {
            let stride = 4 * self.words;
            for (i, key) in keys.clone().enumerate() {
                let row = k.row(g.kv + key, g.kv_head);
                self.row_to_words(k, row, self.multiply.columns, &mut stage[i * stride..][..stride]);
            }
            (stage.as_ptr(), stride, 0)
        };
        let (row_bytes, (tokens, heads, _)) = (k.row_bytes(), k.shape());
        let linear = ahead.stride == row_bytes;
        if !linear && !ahead.p.is_null() {
            (0..PANEL).for_each(|i| pack::prefetch(ahead.p.wrapping_add(i * ahead.stride), row_bytes));
        }
        assert!(keys.len() <= PANEL && g.kv + keys.end <= tokens && g.kv_head < heads);
        assert!(panel.len() >= self.panel_bytes);
        // SAFETY: the tier is supported; rows are there, the tensor's or those just made; the panel was checked.
        unsafe {
            (self.tier.float.pack_kmajor)(&Tokens {
                rows: rows.cast_mut(),
                stride,
                tokens: keys.len(),
                features: self.words,
                panel: panel.as_mut_ptr(),
                width: PANEL,
                flip,
                ahead: if linear { ahead.p } else { std::ptr::null() },
            });
        }
        if self.mode == Mode::Bytes {
            let init = &mut init[..PANEL];
            let tile = Tile {
                x: ONES.as_ptr(),
                w: panel.as_ptr(),
                w_stride: 4 * PANEL,
                steps: self.words,
                out: init.as_mut_ptr().cast(),
                ..Tile::NOTHING
            };
            // SAFETY: the tier is supported; the panel was made; there are as many ones as a head has bytes.
            unsafe {
                multiply_all(self.multiply, &tile, 1, PANEL);
                let from = if self.floating { FLOAT } else { 0 };
                sums::scale_from::pick(self.ctx.isa())(from, -g.zeros.q, init);
            }
        }
    }

    /// Heads, from a group's on, that take turns at the rows of k or v from one on.
    fn turns(&self, x: &TensorRef<'_>, g: &Group, row: usize, heads: usize) -> Turns {
        Turns {
            rows: x.at(row, g.kv_head),
            stride: x.token_stride(),
            head: x.head_stride(),
            heads,
            bytes: x.row_bytes(),
        }
    }

    /// Scores of the queries of some heads, from a group's on, by keys as they lie.
    ///
    /// # Safety
    /// The keys are there, a multiple of 16, and room for their scores; [`Plan::reads_k_directly`]; heads have one zero point.
    pub unsafe fn scores_directly(
        &self,
        g: &Group,
        heads: usize,
        x: *const u8,
        keys: Range<usize>,
        (out, out_stride): (*mut u8, usize),
    ) {
        let keys = Keys {
            k: self.turns(&self.problem.k, g, g.kv + keys.start, heads),
            keys: keys.len(),
            x,
            x_stride: self.q_row,
            words: self.words,
            flip: self.problem.k.flip(self.multiply.columns).0,
            by_sum: -g.zeros.q,
            out,
            out_stride,
        };
        // SAFETY: as the caller; the tier is supported.
        unsafe { (self.decode(&self.problem.k).scores)(&keys) }
    }

    /// Weights of the queries of some heads, from a group's on, times the rows of v as they lie, onto sums of 0.
    ///
    /// # Safety
    /// Whole words of weights, their rows and sums are there; [`Plan::takes_v_directly`].
    pub unsafe fn context_directly(
        &self,
        g: &Group,
        heads: usize,
        (x, x_stride): (*const u8, usize),
        keys: Range<usize>,
        (out, out_stride): (*mut u8, usize),
    ) {
        let values = Values {
            v: self.turns(&self.problem.v, g, g.kv + keys.start, heads),
            words: keys.len() / self.keys_per_word(),
            x,
            x_stride,
            flip: self.problem.v.flip(self.multiply.columns).0,
            columns: self.columns,
            out,
            out_stride,
        };
        // SAFETY: as the caller; the tier is supported.
        unsafe { (self.decode(&self.problem.v).context)(&values) }
    }

    /// Whether rows of v are of whole registers, without padding.
    pub fn takes_v_directly(&self) -> bool {
        let dim = self.problem.layer.head_dim;
        dim == self.columns && dim.is_multiple_of(self.multiply.context_columns)
    }

    /// The kernels that widen a tensor which is multiplied as f32.
    fn narrow(&self, x: &TensorRef<'_>) -> Option<&'static Decode> {
        match (self.mode, x.element()) {
            (Mode::F32, Element::Bf16) => Some(&self.tier.float.passes.decode_bf16),
            (Mode::F32, Element::F16) => Some(&self.tier.float.passes.decode_f16),
            _ => None,
        }
    }

    /// The kernels of a single query that read a tensor as it lies.
    fn decode(&self, x: &TensorRef<'_>) -> &'static Decode {
        self.narrow(x).unwrap_or(&self.multiply.decode)
    }

    /// Whether rows of k are whole words of what is multiplied.
    fn k_as_it_is(&self) -> bool {
        let dim = self.problem.layer.head_dim;
        match self.mode {
            Mode::F32 => self.problem.k.element() == Element::F32,
            Mode::Pairs => dim.is_multiple_of(2),
            Mode::Bytes => dim.is_multiple_of(4),
        }
    }

    /// Whether keys can be multiplied as they lie, four words at a time.
    pub fn reads_k_directly(&self) -> bool {
        (self.k_as_it_is() || self.narrow(&self.problem.k).is_some()) && self.words.is_multiple_of(4)
    }

    /// Keys from one on, a multiple of 4, to rows of v as tiles take them; what fills up the last step is 0.
    pub fn pack_v(&self, g: &Group, keys: Range<usize>, out: &mut [u8], ahead: Prefetch) {
        let first = keys.start;
        let (v, d, columns) = (&self.problem.v, self.problem.layer.head_dim, self.columns);
        let row_bytes = if ahead.p.is_null() { 0 } else { v.row_bytes() };
        let row = |key: usize| {
            let at = ahead.p.wrapping_add((key - first) * ahead.stride);
            pack::prefetch(at, row_bytes);
            v.row(g.kv + key, g.kv_head)
        };
        match self.mode {
            Mode::F32 => {
                for (key, out) in keys.zip(out.chunks_exact_mut(4 * columns)) {
                    // SAFETY: the tier is supported; d elements are there, and room for them.
                    unsafe {
                        let widen = self.tier.float.widen.of(v.element());
                        widen(row(key).as_ptr(), d, out.as_mut_ptr());
                    }
                    out[4 * d..].fill(0);
                }
            }
            Mode::Pairs => {
                let run = pack::pairs::pick(self.ctx.isa());
                for (key, out) in keys.clone().step_by(2).zip(out.chunks_exact_mut(4 * columns)) {
                    let (words, tail) = as_plain::<u32>(out).split_at_mut(d);
                    let second =
                        if key + 1 < keys.end { as_u16(row(key + 1)) } else { &[0; MAX_HEAD_DIM][..d] };
                    // SAFETY: the tier is supported.
                    unsafe { run(as_u16(row(key)), second, words) };
                    tail.fill(0);
                }
            }
            Mode::Bytes => {
                let run = pack::quads::pick(self.ctx.isa());
                let (flip, _) = self.problem.v.flip(self.multiply.columns);
                for (key, out) in keys.clone().step_by(4).zip(out.chunks_exact_mut(4 * columns)) {
                    let (words, tail) = as_plain::<u32>(out).split_at_mut(d);
                    // Keys behind the last weigh nothing: any bytes do.
                    let rows = [0, 1, 2, 3].map(|i| row((key + i).min(keys.end - 1)));
                    // SAFETY: the tier is supported.
                    unsafe { run(rows, flip, words) };
                    tail.fill(0);
                }
            }
        }
    }
}

/// A row of 2-byte elements.
fn as_u16(bytes: &[u8]) -> &[u16] {
    // SAFETY: any bytes are u16s; the rows of such a tensor are aligned.
    unsafe { bytes.align_to().1 }
}
