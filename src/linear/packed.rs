//! Activations in the layout that a layer's kernels read.

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::kernels::buffer::Buffer;
use crate::kernels::pack::{Tokens, quad_offset};
use crate::kernels::panel::{Panel, PanelLayout, Shape, row_stride};
use crate::kernels::quantize;
use crate::kernels::table::Tier;
use crate::quant::{QuantParams, QuantType};
use crate::view::{MatMut, MatRef};

use super::io::{Input, OnTheFly};

/// x as unsigned bytes, packed once and read by any number of layers (Q, K and V), or written by one layer for the next.
///
/// Empty when new; [`PackedActivations::pack`] and `Linear::forward` fill it and reuse its memory.
#[derive(Debug, Clone, Default)]
pub struct PackedActivations {
    pub(super) shape: Option<Shape>,
    pub(super) data: Buffer,
    pub(super) scale: Scale,
}

/// What the bytes stand for, in unsigned terms.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    Tensor { scale: f32, zero: i32 },
    Token { scale: Vec<f32>, zero: Vec<i32> },
}

impl Default for Scale {
    fn default() -> Self {
        Scale::Tensor { scale: 1.0, zero: 0 }
    }
}

impl Scale {
    pub fn of(p: &QuantParams) -> Self {
        Scale::Tensor { scale: p.scale(), zero: unsigned_zero(p) }
    }
}

/// The zero point once signed bytes have been moved up by 128.
pub(super) fn unsigned_zero(p: &QuantParams) -> i32 {
    p.zero_point() - p.dtype().min()
}

/// The flip that makes bytes of the type unsigned.
pub(super) fn flip(dtype: QuantType) -> u8 {
    match dtype {
        QuantType::U8 => 0,
        QuantType::I8 => 0x80,
    }
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

    /// How the bytes lie.
    pub fn layout(&self) -> PanelLayout {
        self.shape.map_or(PanelLayout::Rows, |s| s.layout)
    }

    /// Packs x for layers that read `layout`. What was in here is gone; its memory is used again.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the parameters' type is not that of x; [`Error::Value`] if x has NaN or infinity and is
    /// quantized by its own range; [`Error::Shape`] if the size overflows.
    pub fn pack(&mut self, x: &Input<'_>, layout: PanelLayout, ctx: &Ctx) -> Result<()> {
        x.check()?;
        let (tokens, features) = x.shape();
        let shape = Shape { tokens, features, layout };
        self.resize(shape)?;
        if let Input::F32(_, OnTheFly::PerToken) | Input::Bf16(_, OnTheFly::PerToken) = x {
            let (mut scale, mut zero) = (vec![1.0; tokens], vec![0; tokens]);
            token_scales(x, 0..tokens, &mut scale, &mut zero, ctx)?;
            self.scale = Scale::Token { scale, zero };
        } else {
            self.scale = tensor_scale(x);
        }
        let mut rows = Buffer::default();
        let data = &mut self.data.bytes_mut()[..shape.bytes()];
        for panel in (0..shape.pieces()).flat_map(|i| shape.piece(i)) {
            pack_panel(x, &self.scale, shape, panel, &mut data[shape.range(panel)], &mut rows, ctx);
        }
        Ok(())
    }

    /// The bytes back, token by token, unsigned (signed ones were moved up by 128).
    ///
    /// # Errors
    /// [`Error::Shape`] if y is not `[tokens, features]`.
    pub fn unpack(&self, mut y: MatMut<'_, u8>, ctx: &Ctx) -> Result<()> {
        let shape = self.shape.unwrap_or(Shape { tokens: 0, features: 0, layout: PanelLayout::Rows });
        if (y.rows(), y.cols()) != (shape.tokens, shape.features) {
            return Err(Error::shape(
                "y",
                format_args!("{} x {}", shape.tokens, shape.features),
                format_args!("{} x {}", y.rows(), y.cols()),
            ));
        }
        let data = &self.data.bytes()[..shape.bytes()];
        for panel in (0..shape.pieces()).flat_map(|i| shape.piece(i)) {
            unpack_panel(&data[shape.range(panel)], shape, panel, &mut y, ctx);
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, shape: Shape) -> Result<()> {
        check_bytes(shape.tokens, shape.features)?;
        self.data.grow(shape.bytes());
        self.shape = Some(shape);
        Ok(())
    }
}

/// Refuses shapes whose padded bytes, sums or floats would not fit the address space.
pub(super) fn check_bytes(tokens: usize, features: usize) -> Result<()> {
    let bytes = features
        .checked_add(256)
        .and_then(|f| f.checked_mul(tokens.checked_add(64)?))
        .and_then(|n| n.checked_mul(8));
    if bytes.is_none_or(|n| n > isize::MAX as usize) {
        return Err(Error::shape(
            "x",
            "tokens * features to fit the address space",
            format_args!("{tokens} x {features}"),
        ));
    }
    Ok(())
}

/// The scale of everything that is not quantized token by token.
pub(super) fn tensor_scale(x: &Input<'_>) -> Scale {
    match x {
        Input::U8(_, p)
        | Input::I8(_, p)
        | Input::F32(_, OnTheFly::Fixed(p))
        | Input::Bf16(_, OnTheFly::Fixed(p)) => Scale::of(p),
        Input::Packed(x) => x.scale.clone(),
        _ => Scale::default(),
    }
}

/// The range of each token in `range`, as scale and unsigned zero point.
pub(super) fn token_scales(
    x: &Input<'_>,
    range: std::ops::Range<usize>,
    scale: &mut [f32],
    zero: &mut [i32],
    ctx: &Ctx,
) -> Result<()> {
    for (t, (scale, zero)) in range.zip(scale.iter_mut().zip(zero)) {
        let r = match x {
            Input::F32(x, _) => quantize::range(x.row(t), ctx),
            Input::Bf16(x, _) => quantize::range(x.row(t), ctx),
            _ => return Ok(()),
        };
        if r.magnitude >= quantize::Range::INFINITE {
            return Err(Error::value("x", "finite numbers", format_args!("NaN or infinity in token {t}")));
        }
        let (min, max) = if r.min > r.max { (0.0, 0.0) } else { (r.min, r.max) };
        let p = QuantParams::from_range_asymmetric(min, max, QuantType::U8)?;
        (*scale, *zero) = (p.scale(), p.zero_point());
    }
    Ok(())
}

/// Packs the tokens of one panel into its bytes. `rows` is for tokens that are quantized first.
pub(super) fn pack_panel(
    x: &Input<'_>,
    scale: &Scale,
    shape: Shape,
    panel: Panel,
    to: &mut [u8],
    rows: &mut Buffer,
    ctx: &Ctx,
) {
    let k = shape.features;
    let stride = row_stride(k);
    match x {
        Input::U8(x, _) => bytes_to_panel(*x, 0, shape, panel, to, ctx),
        Input::I8(x, _) => bytes_to_panel(x.as_bytes(), 0x80, shape, panel, to, ctx),
        Input::F32(..) | Input::Bf16(..) => {
            let direct = shape.layout == PanelLayout::Rows;
            if !direct {
                rows.grow(panel.tokens * stride);
            }
            for t in 0..panel.tokens {
                let p = params_of(scale, panel.token + t);
                let row = if direct { &mut to[t * stride..][..k] } else { &mut rows.bytes_mut()[t * stride..][..k] };
                match x {
                    Input::F32(x, _) => quantize::quantize(x.row(panel.token + t), &p, row, ctx),
                    Input::Bf16(x, _) => quantize::quantize(x.row(panel.token + t), &p, row, ctx),
                    _ => {}
                }
            }
            if !direct
                && let Ok(bytes) =
                    MatRef::with_stride(&rows.bytes()[..panel.tokens * stride], panel.tokens, k, stride)
            {
                bytes_to_panel(bytes, 0, shape, Panel { token: 0, ..panel }, to, ctx);
            }
        }
        Input::Packed(x) => {
            // The other layout: through rows.
            let Some(from) = x.shape else { return };
            rows.grow(panel.tokens * stride);
            let (first, last) = (panel.token, panel.token + panel.tokens);
            for p in (0..from.pieces()).flat_map(|i| from.piece(i)) {
                let bytes = &x.data.bytes()[from.range(p)];
                if p.token < last && first < p.token + p.tokens {
                    copy_rows(bytes, from, p, (first, last), rows.bytes_mut(), stride);
                }
            }
            if let Ok(bytes) =
                MatRef::with_stride(&rows.bytes()[..panel.tokens * stride], panel.tokens, k, stride)
            {
                bytes_to_panel(bytes, 0, shape, Panel { token: 0, ..panel }, to, ctx);
            }
        }
    }
}

fn params_of(scale: &Scale, token: usize) -> QuantParams {
    let (s, z) = match scale {
        Scale::Tensor { scale, zero } => (*scale, *zero),
        Scale::Token { scale, zero } => (scale[token], zero[token]),
    };
    // Both came out of valid parameters.
    QuantParams::u8(s, z).unwrap_or_else(|_| unreachable!("a scale that was valid before"))
}

fn copy_rows(
    from: &[u8],
    shape: Shape,
    p: Panel,
    (first, last): (usize, usize),
    to: &mut [u8],
    stride: usize,
) {
    for token in p.token.max(first)..(p.token + p.tokens).min(last) {
        let t = token - p.token;
        let to = &mut to[(token - first) * stride..][..shape.features];
        match shape.layout {
            PanelLayout::Rows => to.copy_from_slice(&from[t * row_stride(shape.features)..][..to.len()]),
            PanelLayout::Lines => {
                for (f, to) in to.iter_mut().enumerate() {
                    *to = from[f * p.width + t];
                }
            }
            PanelLayout::Quads => {
                for (f, to) in to.iter_mut().enumerate() {
                    *to = from[quad_offset(p.width, f / 4, t) + f % 4];
                }
            }
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
            let tier = Tier::of(ctx.isa());
            let run =
                if layout == PanelLayout::Lines { tier.rows_to_lines } else { tier.rows_to_quads };
            Tokens::pack(x, to, panel.width, flip, run);
        }
    }
}

/// One panel to rows of y, which is the whole `[tokens, features]`.
fn unpack_panel(
    from: &[u8],
    shape: Shape,
    panel: Panel,
    y: &mut MatMut<'_, u8>,
    ctx: &Ctx,
) {
    if shape.layout == PanelLayout::Lines {
        let run = Tier::of(ctx.isa()).lines_to_rows;
        return Tokens::unpack(from, panel.width, 0, y.rows_from(panel.token, panel.tokens), run);
    }
    for token in panel.token..panel.token + panel.tokens {
        let row = y.row_mut(token);
        copy_rows(from, shape, panel, (token, token + 1), row, 0);
    }
}
