//! q, k and v, and their way into tiles.

use super::{Group, Mode, Plan, multiply_all};
use crate::attention::Input;
use crate::attention::forward::MAX_HEAD_DIM;
use crate::base::element::Element;
use crate::base::params::QuantParams;
use crate::kernels::attention::direct::{Keys, Turns, Values};
use crate::kernels::attention::multiply::Tile;
use crate::kernels::attention::table::Direct;
use crate::kernels::attention::{PANEL, pack, sums};
use crate::kernels::pack::Tokens;
use std::ops::Range;

/// A query that adds up the bytes of a key.
const ONES: [u8; MAX_HEAD_DIM] = [1; MAX_HEAD_DIM];

/// What the cache is asked for while rows pass: memory that nobody has to be able to read.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// For the first row; null for nothing.
    pub p: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
}

impl Ahead {
    pub const NOTHING: Ahead = Ahead { p: std::ptr::null(), stride: 0 };
}

/// What a tensor is made of.
fn element_of(x: &Input<'_>) -> Element {
    match x {
        Input::F32(_) => Element::F32,
        Input::Bf16(_) => Element::Bf16,
        Input::F16(_) => Element::F16,
        Input::U8(..) => Element::U8,
        Input::I8(..) => Element::I8,
    }
}

/// A tensor that the call borrows.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    p: *const u8,
    element: Element,
    /// Bytes from one to the next.
    token: usize,
    head: usize,
    /// How many.
    tokens: usize,
    heads: usize,
    dim: usize,
    input: Input<'a>,
}

// SAFETY: it is only read, and borrowed for the call.
unsafe impl Sync for Operand<'_> {}

impl<'a> Operand<'a> {
    pub fn new(input: &Input<'a>) -> Self {
        let (layout, element) = (input.layout(), element_of(input));
        let p: *const u8 = match input {
            Input::F32(x) => x.as_ptr().cast(),
            Input::Bf16(x) => x.as_ptr().cast(),
            Input::F16(x) => x.as_ptr().cast(),
            Input::U8(x, _) => x.as_ptr(),
            Input::I8(x, _) => x.as_ptr().cast(),
        };
        let bytes = element.bytes_of(1);
        Self {
            p,
            element,
            token: layout.token_stride * bytes,
            head: layout.head_stride * bytes,
            tokens: layout.tokens,
            heads: layout.heads,
            dim: layout.head_dim,
            input: *input,
        }
    }

    /// What the tensor is made of.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Features of a head.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes from a token to the next.
    pub fn stride(&self) -> usize {
        self.token
    }

    /// Where the features of a token's head are, or would be.
    pub fn at(&self, token: usize, head: usize) -> *const u8 {
        self.p.wrapping_add(token.wrapping_mul(self.token).wrapping_add(head.wrapping_mul(self.head)))
    }

    /// The same, as bytes.
    pub fn row(&self, token: usize, head: usize) -> &'a [u8] {
        assert!(token < self.tokens && head < self.heads);
        // SAFETY: the tensor's constructor proved that all its heads are there.
        unsafe { std::slice::from_raw_parts(self.at(token, head), self.element.bytes_of(self.dim)) }
    }

    /// Of bytes: what they stand for, and 0.
    pub fn params(&self, head: usize) -> (f32, i32) {
        let params: QuantParams = match &self.input {
            Input::U8(_, params) | Input::I8(_, params) => params.of(head),
            _ => return (1.0, 0),
        };
        (params.scale(), params.zero_point())
    }

    /// What is flipped to make bytes unsigned, or signed, and what that adds to the zero point.
    pub fn flip(&self, to: Element) -> (u8, i32) {
        match (self.element, to) {
            (Element::I8, Element::U8) => (0x80, 128),
            (Element::U8, Element::I8) => (0x80, -128),
            _ => (0, 0),
        }
    }

    /// The rows of a head from a token on.
    pub fn ahead_of(&self, token: usize, head: usize) -> Ahead {
        Ahead { p: self.at(token, head), stride: self.token }
    }

    /// What some heads that take turns ask for while one of them, the i-th of n, reads as many tokens as follow: together they
    /// ask for the next tokens, in the order in which they lie.
    pub fn next_tokens(&self, token: usize, tokens: usize, head: usize, (i, n): (usize, usize)) -> Ahead {
        let row = self.element.bytes_of(self.dim);
        if n * row != self.token || self.head != row {
            // Other things lie between, or heads far apart.
            return self.ahead_of(token, head);
        }
        Ahead { p: self.at(token, head - i).wrapping_add(i * tokens * row), stride: row }
    }

    /// Asks for the row of a token, if there is one.
    pub fn prefetch(&self, token: usize, head: usize) {
        pack::prefetch(self.at(token, head), self.element.bytes_of(self.dim));
    }

    /// The zero point of bytes made unsigned, or signed.
    pub fn zero(&self, head: usize, to: Element) -> i32 {
        self.params(head).1 + self.flip(to).1
    }
}

impl Plan<'_> {
    /// The steps of a head of q to `x`; the sum of what is there, of bytes.
    pub fn pack_q(&self, token: usize, head: usize, x: &mut [u8]) -> i32 {
        self.row_to_words(&self.q, self.q.row(token, head), Element::U8, x)
    }

    /// A head's features, as tiles take them, padded with zeros to whole words; of bytes their sum, unsigned.
    fn row_to_words(&self, operand: &Operand<'_>, row: &[u8], to: Element, out: &mut [u8]) -> i32 {
        let n = operand.dim;
        let mut sum = 0;
        match self.mode {
            Mode::F32 => {
                assert!(out.len() >= 4 * n);
                // SAFETY: the tier is supported; n elements are there, and room for them.
                unsafe {
                    self.tier.float.widen.of(operand.element)(row.as_ptr(), n, out.as_mut_ptr());
                }
            }
            Mode::Pairs => {
                out[..row.len()].copy_from_slice(row);
                out[row.len()..4 * self.words].fill(0);
            }
            Mode::Bytes => {
                let (flip, _) = operand.flip(to);
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
    #[allow(clippy::too_many_arguments)]
    pub fn pack_k(
        &self,
        g: &Group,
        keys: Range<usize>,
        panel: &mut [u8],
        init: &mut [i32],
        stage: &mut [u8],
        ahead: Ahead,
    ) {
        let direct = self.k_as_it_is();
        let (rows, stride, flip) = if direct {
            (self.k.at(g.kv + keys.start, g.kv_head), self.k.token, self.k.flip(self.multiply.columns).0)
        } else {
            let stride = 4 * self.words;
            for (i, key) in keys.clone().enumerate() {
                let row = self.k.row(g.kv + key, g.kv_head);
                self.row_to_words(&self.k, row, self.multiply.columns, &mut stage[i * stride..][..stride]);
            }
            (stage.as_ptr(), stride, 0)
        };
        let row_bytes = self.k.element.bytes_of(self.k.dim);
        let linear = ahead.stride == row_bytes;
        if !linear && !ahead.p.is_null() {
            (0..PANEL).for_each(|i| pack::prefetch(ahead.p.wrapping_add(i * ahead.stride), row_bytes));
        }
        assert!(keys.len() <= PANEL && g.kv + keys.end <= self.k.tokens && g.kv_head < self.k.heads);
        assert!(panel.len() >= self.panel_bytes);
        // SAFETY: the tier is supported; rows are there, the tensor's or those just made; the panel was checked.
        unsafe {
            (self.tier.float.rows_to_lines)(&Tokens {
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
            let tile = Tile {
                x: ONES.as_ptr(),
                x_stride: 0,
                w: panel.as_ptr(),
                w_stride: 4 * PANEL,
                steps: self.words,
                init: std::ptr::null(),
                out: init.as_mut_ptr().cast(),
                out_stride: 0,
                resume: false,
                ahead: std::ptr::null(),
                ahead_stride: 0,
            };
            let init = &mut init[..PANEL];
            // SAFETY: the tier is supported; the panel was made; there are as many ones as a head has bytes.
            unsafe {
                multiply_all(self.multiply, &tile, 1, PANEL);
                sums::scale::pick(self.ctx.isa())(-g.zeros.q, init);
            }
        }
    }

    /// Heads, from a group's on, that take turns at the rows of an operand from one on.
    fn turns(&self, operand: &Operand<'_>, g: &Group, row: usize, heads: usize) -> Turns {
        Turns {
            rows: operand.at(row, g.kv_head),
            stride: operand.token,
            head: operand.head,
            heads,
            bytes: operand.element.bytes_of(operand.dim),
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
            k: self.turns(&self.k, g, g.kv + keys.start, heads),
            keys: keys.len(),
            x,
            x_stride: self.q_row,
            words: self.words,
            flip: self.k.flip(self.multiply.columns).0,
            by_sum: -g.zeros.q,
            out,
            out_stride,
        };
        // SAFETY: as the caller; the tier is supported.
        unsafe { (self.direct(&self.k).scores)(&keys) }
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
            v: self.turns(&self.v, g, g.kv + keys.start, heads),
            words: keys.len() / self.keys_per_word(),
            x,
            x_stride,
            flip: self.v.flip(self.multiply.columns).0,
            columns: self.columns,
            out,
            out_stride,
        };
        // SAFETY: as the caller; the tier is supported.
        unsafe { (self.direct(&self.v).context)(&values) }
    }

    /// Whether rows of v are of whole registers, without padding.
    pub fn takes_v_directly(&self) -> bool {
        self.v.dim == self.columns && self.v.dim.is_multiple_of(self.multiply.context_columns)
    }

    /// The kernels that widen a tensor which is multiplied as f32.
    fn narrow(&self, x: &Operand<'_>) -> Option<&'static Direct> {
        match (self.mode, x.element) {
            (Mode::F32, Element::Bf16) => Some(&self.tier.float.single_bf16),
            (Mode::F32, Element::F16) => Some(&self.tier.float.single_f16),
            _ => None,
        }
    }

    /// The kernels of a single query that read a tensor as it lies.
    fn direct(&self, x: &Operand<'_>) -> &'static Direct {
        self.narrow(x).unwrap_or(&self.multiply.direct)
    }

    /// Whether rows of k are whole words of what is multiplied.
    fn k_as_it_is(&self) -> bool {
        match self.mode {
            Mode::F32 => self.k.element == Element::F32,
            Mode::Pairs => self.k.dim.is_multiple_of(2),
            Mode::Bytes => self.k.dim.is_multiple_of(4),
        }
    }

    /// Whether keys can be multiplied as they lie, four words at a time.
    pub fn reads_k_directly(&self) -> bool {
        (self.k_as_it_is() || self.narrow(&self.k).is_some()) && self.words.is_multiple_of(4)
    }

    /// Keys from one on, a multiple of 4, to rows of v as tiles take them; what fills up the last step is 0.
    pub fn pack_v(&self, g: &Group, keys: Range<usize>, out: &mut [u8], ahead: Ahead) {
        let first = keys.start;
        let (d, columns) = (self.v.dim, self.columns);
        let row = |key: usize| {
            let at = ahead.p.wrapping_add((key - first) * ahead.stride);
            pack::prefetch(at, if ahead.p.is_null() { 0 } else { self.v.element.bytes_of(d) });
            self.v.row(g.kv + key, g.kv_head)
        };
        match self.mode {
            Mode::F32 => {
                for (key, out) in keys.zip(out.chunks_exact_mut(4 * columns)) {
                    // SAFETY: the tier is supported; d elements are there, and room for them.
                    unsafe {
                        let widen = self.tier.float.widen.of(self.v.element);
                        widen(row(key).as_ptr(), d, out.as_mut_ptr());
                    }
                    out[4 * d..].fill(0);
                }
            }
            Mode::Pairs => {
                let run = pack::pairs::pick(self.ctx.isa());
                for (key, out) in keys.clone().step_by(2).zip(out.chunks_exact_mut(4 * columns)) {
                    let (words, tail) = as_u32(out).split_at_mut(d);
                    let second =
                        if key + 1 < keys.end { as_u16(row(key + 1)) } else { &[0; MAX_HEAD_DIM][..d] };
                    // SAFETY: the tier is supported.
                    unsafe { run(as_u16(row(key)), second, words) };
                    tail.fill(0);
                }
            }
            Mode::Bytes => {
                let run = pack::quads::pick(self.ctx.isa());
                let (flip, _) = self.v.flip(self.multiply.columns);
                for (key, out) in keys.clone().step_by(4).zip(out.chunks_exact_mut(4 * columns)) {
                    let (words, tail) = as_u32(out).split_at_mut(d);
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

/// Aligned bytes as words.
pub fn as_u32(bytes: &mut [u8]) -> &mut [u32] {
    // SAFETY: any bytes are u32s.
    unsafe { bytes.align_to_mut().1 }
}

/// A row of 2-byte elements.
fn as_u16(bytes: &[u8]) -> &[u16] {
    // SAFETY: any bytes are u16s; the rows of such a tensor are aligned.
    unsafe { bytes.align_to().1 }
}
