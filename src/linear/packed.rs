//! Activations in the layout that a layer's kernels read.

use super::Linear;
use crate::base::buffer::{Buffer, as_f32, as_i32};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::view::{MatMut, MatRef};
use crate::kernels::convert;
use crate::kernels::pack::{Tokens, quad_offset};
use crate::kernels::panel::{Panel, PanelLayout, Shape, check_bytes, row_stride};
use crate::kernels::quantize;
use crate::kernels::table::Tier;
use crate::quant::QuantParams;
use half::bf16;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::io::{Floats, Input, InputQuantization, LinearInput, with_floats};

/// x as unsigned bytes, or as floats, packed once and read by any number of layers (Q, K and V), or written by one layer for the next.
///
/// Empty when new; [`Linear::pack`] and [`Linear::forward`] fill it and reuse its memory.
#[derive(Debug, Clone, Default)]
pub struct PackedActivations {
    pub(super) shape: Option<Shape>,
    pub(super) data: Buffer,
    pub(super) scale: Scale,
}

/// What the bytes stand for, in unsigned terms: one scale and zero point, or one for each token.
#[derive(Debug, Clone, Default)]
pub(super) struct Scale {
    by_token: bool,
    scale: Vec<f32>,
    zero: Vec<i32>,
}

impl Scale {
    pub fn as_ref(&self) -> ScaleRef<'_> {
        match (self.by_token, self.scale.first(), self.zero.first()) {
            (true, ..) => ScaleRef::Token { scale: &self.scale, zero: &self.zero },
            (false, Some(&scale), Some(&zero)) => ScaleRef::Tensor { scale, zero },
            (false, ..) => ScaleRef::NONE,
        }
    }

    /// Makes room for as many tokens, whether or not each gets a scale of its own; false if there is not so much memory.
    fn try_reserve(&mut self, tokens: usize) -> bool {
        let (scale, zero) = (tokens.saturating_sub(self.scale.len()), tokens.saturating_sub(self.zero.len()));
        self.scale.try_reserve(scale).is_ok() && self.zero.try_reserve(zero).is_ok()
    }

    /// Becomes `from`; memory that is there is used again.
    pub fn set(&mut self, from: ScaleRef<'_>) {
        let one;
        let (by_token, scale, zero) = match from {
            ScaleRef::Token { scale, zero } => (true, scale, zero),
            ScaleRef::Tensor { scale, zero } => {
                one = ([scale], [zero]);
                (false, &one.0[..], &one.1[..])
            }
        };
        self.by_token = by_token;
        self.scale.clear();
        self.scale.extend_from_slice(scale);
        self.zero.clear();
        self.zero.extend_from_slice(zero);
    }
}

/// The zero point once signed bytes have been moved up by 128.
pub(super) fn unsigned_zero(p: &QuantParams) -> i32 {
    p.zero_point() - p.range().0
}

/// The flip that makes bytes of the type unsigned.
pub(super) fn flip(dtype: Element) -> u8 {
    if dtype == Element::I8 { 0x80 } else { 0 }
}

impl PackedActivations {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// M.
    pub fn tokens(&self) -> usize {
        self.shape.map_or(0, |s| s.tokens)
    }

    /// K of the layers that read it.
    pub fn features(&self) -> usize {
        self.shape.map_or(0, |s| s.features)
    }

    /// What they are made of: `U8`, `F32` or `Bf16`.
    pub fn element(&self) -> Element {
        self.layout().element()
    }

    /// How the bytes lie.
    pub(super) fn layout(&self) -> PanelLayout {
        self.shape.map_or(PanelLayout::Rows, |s| s.layout)
    }

    /// Packs x as a layout. What was in here is gone; its memory is used again.
    pub(super) fn pack_in(
        &mut self,
        x: Input<'_>,
        layout: PanelLayout,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (tokens, features) = x.shape();
        let shape = Shape { tokens, features, layout };
        let packer = Packer { x: &x, shape, ctx };
        self.resize(shape)?;
        let [rows, tiles, token_scale, token_zero] = scratch.slots();
        let data = &mut self.data.bytes_mut()[..shape.bytes()];
        if let Err(e) = packer.pack_all(data, rows, tiles, (token_scale, token_zero)) {
            self.shape = None;
            return Err(e);
        }
        match x {
            Input::Packed(x) => self.scale.set(x.scale.as_ref()),
            Input::PerToken(..) => {
                self.scale.set(x.own_scales(token_scale, token_zero).unwrap_or(ScaleRef::NONE));
            }
            _ if x.by_token() => self.scale.set(ScaleRef::Token {
                scale: token_scale.floats(tokens),
                zero: token_zero.integers(tokens),
            }),
            _ => self.scale.set(packer.tensor_scale()),
        }
        Ok(())
    }

    /// The bytes back, token by token, unsigned (signed ones were moved up by 128).
    ///
    /// # Errors
    /// [`Error::Shape`] if y is not `[tokens, features]`; [`Error::Unsupported`] if these are floats.
    pub fn unpack(&self, mut y: MatMut<'_, u8>, ctx: &Ctx) -> Result<()> {
        let shape = self.shape.unwrap_or(Shape { tokens: 0, features: 0, layout: PanelLayout::Rows });
        if shape.layout.is_float() {
            return Err(Error::unsupported("y", "floats (unpack_f32)", "bytes"));
        }
        check_unpacked(shape, y.rows(), y.cols())?;
        let data = &self.data.bytes()[..shape.bytes()];
        for panel in (0..shape.pieces()).flat_map(|i| shape.piece(i)) {
            unpack_panel(&data[shape.range(panel)], shape, panel, &mut y, ctx);
        }
        Ok(())
    }

    /// The floats back, token by token.
    ///
    /// # Errors
    /// [`Error::Shape`] if y is not `[tokens, features]`; [`Error::Unsupported`] if these are bytes.
    pub fn unpack_f32(&self, mut y: MatMut<'_, f32>) -> Result<()> {
        let shape = self.shape.unwrap_or(Shape { tokens: 0, features: 0, layout: PanelLayout::F32Rows });
        if !shape.layout.is_float() {
            return Err(Error::unsupported("y", "bytes (unpack)", "floats"));
        }
        check_unpacked(shape, y.rows(), y.cols())?;
        let (size, data) = (shape.layout.element_bytes(), self.data.bytes());
        for panel in (0..shape.pieces()).flat_map(|i| shape.piece(i)) {
            let bytes = &data[shape.range(panel)];
            for t in 0..panel.tokens {
                for (f, y) in y.row_mut(panel.token + t).iter_mut().enumerate() {
                    let at = offset(shape, panel, t, f);
                    *y = match bytes[at..at + size] {
                        [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                        _ => unreachable!("floats of {size} bytes"),
                    };
                }
            }
        }
        Ok(())
    }

    /// Zeros what rows leave of the last four bfloat16: it is multiplied by 0, in pairs or in matrices, which what was there before
    /// might not survive.
    pub(super) fn clear_last_four(&mut self, shape: Shape) {
        if shape.layout == PanelLayout::Bf16Rows && !shape.features.is_multiple_of(4) {
            for row in self.data.bytes_mut().chunks_mut(shape.features_padded()).take(shape.tokens) {
                row[2 * shape.features..2 * shape.features.next_multiple_of(4)].fill(0);
            }
        }
    }

    pub(super) fn resize(&mut self, shape: Shape) -> Result<()> {
        check_bytes(shape.tokens, shape.features)?;
        let by_token = if shape.layout.is_float() { 0 } else { shape.tokens };
        if !(self.data.try_grow(shape.bytes()) && self.scale.try_reserve(by_token)) {
            return Err(too_large(shape));
        }
        self.shape = Some(shape);
        Ok(())
    }
}

/// There is not so much memory.
pub(super) fn too_large(shape: Shape) -> Error {
    let got = format_args!("{} x {}", shape.tokens, shape.features);
    Error::shape("x", "activations that fit in memory", got)
}

fn check_unpacked(shape: Shape, rows: usize, cols: usize) -> Result<()> {
    if (rows, cols) == (shape.tokens, shape.features) {
        return Ok(());
    }
    let expected = format_args!("{} x {}", shape.tokens, shape.features);
    Err(Error::shape("y", expected, format_args!("{rows} x {cols}")))
}

/// [`Scale`], lent.
#[derive(Clone, Copy)]
pub(super) enum ScaleRef<'a> {
    Tensor { scale: f32, zero: i32 },
    Token { scale: &'a [f32], zero: &'a [i32] },
}

impl ScaleRef<'_> {
    /// That of what is not quantized.
    pub const NONE: ScaleRef<'static> = ScaleRef::Tensor { scale: 1.0, zero: 0 };

    pub fn of(p: &QuantParams) -> Self {
        ScaleRef::Tensor { scale: p.scale(), zero: unsigned_zero(p) }
    }

    fn params(&self, token: usize) -> QuantParams {
        let (s, z) = match self {
            ScaleRef::Tensor { scale, zero } => (*scale, *zero),
            ScaleRef::Token { scale, zero } => (scale[token], zero[token]),
        };
        // Both came out of valid parameters.
        QuantParams::u8(s, z).unwrap_or_else(|_| unreachable!("a scale that was valid before"))
    }
}

/// x on its way into panels of a shape.
#[derive(Clone, Copy)]
pub(super) struct Packer<'a> {
    pub x: &'a Input<'a>,
    pub shape: Shape,
    pub ctx: &'a Ctx,
}

impl Packer<'_> {
    /// The scale of everything that is not quantized token by token.
    pub fn tensor_scale(&self) -> ScaleRef<'static> {
        match self.x {
            Input::Bytes(.., p) => ScaleRef::of(p),
            x => match x.quantization() {
                Some(InputQuantization::Static(p)) => ScaleRef::of(&p),
                _ => ScaleRef::NONE,
            },
        }
    }

    /// Packs all tokens. Where each is quantized by its own range, their scales and zero points come out.
    pub fn pack_all(
        &self,
        to: &mut [u8],
        rows: &mut Buffer,
        scales: &mut Buffer,
        (scale, zero): (&mut Buffer, &mut Buffer),
    ) -> Result<()> {
        /// A piece's 64 scales and 64 zero points.
        const PIECE: usize = 64 * 8;
        let pieces = self.shape.pieces();
        let rows_each = self.x.piece_rows(self.shape);
        // A piece of no features is nothing, but its scales are not.
        if !(rows.try_grow(pieces * rows_each) && scales.try_grow(pieces * PIECE)) {
            return Err(too_large(self.shape));
        }
        let bad = AtomicUsize::new(usize::MAX);
        let each = [self.shape.piece_bytes(), rows_each, PIECE];
        let buffers = [to, rows.bytes_mut(), scales.bytes_mut()];
        self.ctx.for_each_chunks(pieces, buffers, each, &|i, [to, rows, scales]| {
            let (scale, zero) = scales.split_at_mut(PIECE / 2);
            let (scale, zero) = (as_f32(scale), as_i32(zero));
            let first = i * self.shape.piece_tokens();
            if self.x.by_token() {
                for token in first..(first + 64).min(self.shape.tokens) {
                    match self.token_params(token) {
                        Some(p) => (scale[token - first], zero[token - first]) = (p.scale(), p.zero_point()),
                        None => {
                            bad.fetch_min(token, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            }
            for panel in self.shape.piece(i) {
                let range = self.shape.range(panel);
                let start = i * self.shape.piece_bytes();
                let to = &mut to[range.start - start..range.end - start];
                let at = panel.token - first;
                let scales = match self.x.by_token() {
                    true => ScaleRef::Token { scale: &scale[at..], zero: &zero[at..] },
                    false => self.tensor_scale(),
                };
                self.pack_panel_at(scales, panel.token, panel, to, rows);
            }
        });
        let bad = bad.into_inner();
        if bad < usize::MAX {
            return Err(Error::value("x", "finite numbers", format_args!("NaN or infinity in token {bad}")));
        }
        if self.x.by_token() {
            let (scale, zero) = (scale.floats(self.shape.tokens), zero.integers(self.shape.tokens));
            let pieces = scales.bytes_mut().chunks_mut(PIECE);
            for ((scale, zero), piece) in scale.chunks_mut(64).zip(zero.chunks_mut(64)).zip(pieces) {
                let (s, z) = piece.split_at_mut(PIECE / 2);
                scale.copy_from_slice(&as_f32(s)[..scale.len()]);
                zero.copy_from_slice(&as_i32(z)[..zero.len()]);
            }
        }
        Ok(())
    }

    /// The range of a token as parameters; none if it is not finite.
    fn token_params(&self, token: usize) -> Option<QuantParams> {
        let Input::Floats(x, _) = self.x else { return None };
        let r = with_floats!(x, x => quantize::range(x.row(token), self.ctx));
        let (min, max) = if r.min > r.max { (0.0, 0.0) } else { (r.min, r.max) };
        if r.magnitude >= quantize::Range::INFINITE {
            return None;
        }
        QuantParams::from_range_asymmetric(min, max, Element::U8).ok()
    }

    /// Packs the tokens of one panel into its bytes; `scale` is by token of x.
    pub fn pack_panel(&self, scale: ScaleRef<'_>, panel: Panel, to: &mut [u8], rows: &mut [u8]) {
        self.pack_panel_at(scale, 0, panel, to, rows);
    }

    /// As [`Packer::pack_panel`], the first scale being that of token `first`.
    fn pack_panel_at(&self, scale: ScaleRef<'_>, first: usize, panel: Panel, to: &mut [u8], rows: &mut [u8]) {
        let (shape, ctx) = (self.shape, self.ctx);
        if shape.layout.is_float() {
            return self.pack_floats(panel, to, rows);
        }
        let (k, stride) = (shape.features, row_stride(shape.features));
        match self.x {
            Input::Bytes(x, flip, _) => return bytes_to_panel(*x, *flip, shape, panel, to, ctx),
            Input::PerToken(x, _) => return bytes_to_panel(*x, 0, shape, panel, to, ctx),
            Input::Floats(x, _) => {
                let direct = shape.layout == PanelLayout::Rows;
                let rows = if direct { &mut *to } else { &mut *rows };
                for (t, row) in rows.chunks_mut(stride).take(panel.tokens).enumerate() {
                    let token = panel.token + t;
                    let p = scale.params(token - first);
                    with_floats!(x, x => quantize::quantize(x.row(token), &p, &mut row[..k], ctx));
                }
                if direct {
                    return;
                }
            }
            Input::Packed(x) => repack_rows(x, panel, rows, stride),
        }
        let rows = MatRef::of_rows(&rows[..panel.tokens * stride], panel.tokens, k, stride);
        bytes_to_panel(rows, 0, shape, Panel { token: 0, ..panel }, to, ctx);
    }

    /// Packs the tokens of one panel for a layer that computes in floats.
    fn pack_floats(&self, panel: Panel, to: &mut [u8], rows: &mut [u8]) {
        let shape = self.shape;
        let (layout, element) = (shape.layout, shape.layout.element());
        let stride = Shape { layout: layout.rows(), ..shape }.features_padded();
        let bytes = shape.features * layout.element_bytes();
        let tier = Tier::of(self.ctx.target()).float;
        // Where nothing is to be converted, rows are read where they lie.
        match self.x {
            Input::Floats(Floats::F32(x), _) if layout == PanelLayout::F32KMajor => {
                let x = x.rows_from(panel.token, panel.tokens);
                return convert::pack_kmajor(x, to, panel.width, tier);
            }
            Input::Floats(Floats::Bf16(x), _)
                if layout == PanelLayout::Bf16KMajor2 && x.cols().is_multiple_of(2) =>
            {
                let x = x.rows_from(panel.token, panel.tokens);
                return convert::pack_kmajor(x, to, panel.width, tier);
            }
            _ => {}
        }
        let (rows, lines) = if layout.is_rows() { (to, None) } else { (rows, Some(to)) };
        if let Input::Packed(x) = self.x {
            repack_rows(x, panel, rows, stride);
        }
        for (t, row) in rows.chunks_mut(stride).take(panel.tokens).enumerate() {
            if let Input::Floats(x, _) = self.x {
                with_floats!(x, x => convert::row(x.row(panel.token + t), element, row, tier));
            }
            // The rest of a last pair, or of a last row of a matrix.
            row[bytes..bytes.next_multiple_of(8)].fill(0);
        }
        if let Some(lines) = lines {
            let words = bytes.next_multiple_of(4);
            let rows = MatRef::of_rows(&rows[..panel.tokens * stride], panel.tokens, words, stride);
            convert::pack_kmajor(rows, lines, panel.width, tier);
        }
    }
}

/// The rows of a panel's tokens, out of another layout of the same element.
fn repack_rows(x: &PackedActivations, panel: Panel, rows: &mut [u8], stride: usize) {
    let Some(from) = x.shape else { return };
    let (first, last) = (panel.token, panel.token + panel.tokens);
    for p in (0..from.pieces()).flat_map(|i| from.piece(i)) {
        let bytes = &x.data.bytes()[from.range(p)];
        if p.token < last && first < p.token + p.tokens {
            copy_rows(bytes, from, p, (first, last), rows, stride);
        }
    }
}

/// The first byte of feature f of token t of a panel, counted from the panel's first.
fn offset(shape: Shape, p: Panel, t: usize, f: usize) -> usize {
    let size = shape.layout.element_bytes();
    match shape.layout {
        layout if layout.is_rows() => t * shape.features_padded() + f * size,
        PanelLayout::KMajor4 => quad_offset(p.width, f / 4, t) + f % 4,
        PanelLayout::Bf16KMajor2 => (f / 2 * p.width + t) * 4 + f % 2 * 2,
        _ => (f * p.width + t) * size,
    }
}

fn copy_rows(
    from: &[u8],
    shape: Shape,
    p: Panel,
    (first, last): (usize, usize),
    to: &mut [u8],
    stride: usize,
) {
    let size = shape.layout.element_bytes();
    for token in p.token.max(first)..(p.token + p.tokens).min(last) {
        let t = token - p.token;
        let to = &mut to[(token - first) * stride..][..shape.features * size];
        if shape.layout.is_rows() {
            to.copy_from_slice(&from[t * shape.features_padded()..][..to.len()]);
            continue;
        }
        for (f, to) in to.chunks_mut(size).enumerate() {
            let at = offset(shape, p, t, f);
            to.copy_from_slice(&from[at..at + size]);
        }
    }
}

/// Rows of bytes to one piece of any layout.
pub(super) fn bytes_to_panel(
    x: MatRef<'_, u8>,
    flip: u8,
    shape: Shape,
    panel: Panel,
    to: &mut [u8],
    ctx: &Ctx,
) {
    match shape.layout {
        PanelLayout::Rows => {
            let stride = row_stride(shape.features);
            for t in 0..panel.tokens {
                let to = &mut to[t * stride..][..shape.features];
                to.copy_from_slice(x.row(panel.token + t));
                if flip != 0 {
                    to.iter_mut().for_each(|b| *b ^= flip);
                }
            }
        }
        layout => {
            let x = x.rows_from(panel.token, panel.tokens);
            let tier = Tier::of(ctx.target());
            let run = if layout == PanelLayout::KMajor {
                tier.packing.pack_kmajor
            } else {
                tier.packing.pack_kmajor4
            };
            Tokens::pack(x, to, panel.width, flip, run);
        }
    }
}

/// One panel to rows of y, which is the whole `[tokens, features]`.
fn unpack_panel(from: &[u8], shape: Shape, panel: Panel, y: &mut MatMut<'_, u8>, ctx: &Ctx) {
    if shape.layout == PanelLayout::KMajor {
        let run = Tier::of(ctx.target()).packing.unpack_kmajor;
        return Tokens::unpack(from, panel.width, 0, y.rows_from(panel.token, panel.tokens), run);
    }
    for token in panel.token..panel.token + panel.tokens {
        let row = y.row_mut(token);
        copy_rows(from, shape, panel, (token, token + 1), row, 0);
    }
}

impl Linear {
    /// Packs x as this layer reads it, for this layer and all others of the same K, tier, kind of blocks and input quantization
    /// (Q, K and V). What was in `to` is gone; its memory is used again.
    ///
    /// # Errors
    /// [`Error::Shape`] if x has another number of features, or is too large; [`Error::Unsupported`] if it is of a type that the
    /// layer does not read, or `ctx` has another tier; [`Error::Value`] if x has NaN or infinity and is quantized by its own range.
    pub fn pack<'a>(
        &self,
        x: impl Into<LinearInput<'a>>,
        to: &mut PackedActivations,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let x = x.into();
        self.check_input(&x, ctx)?;
        let layout = self.input_layout();
        to.pack_in(Input::new(x, layout, self.input)?, layout, ctx, scratch)
    }
}
