//! A call: checked, planned, and handed to a driver.

use super::epilogue::Epilogue;
use super::io::{Input, LinearInput, LinearOutput, To};
use super::packed::{Packer, ScaleRef, too_large};
use super::{Linear, Packed};
use crate::base::buffer::elements;
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::driver::linear::{self as driver, Job, Memory, Out, Source};
use crate::kernels::epilogue::{Finish, Rank1};
use crate::kernels::panel::{Shape, check_bytes, row_stride};

/// Parameter arrays are padded by this much, so that kernels read whole registers.
pub(super) const PADDING: usize = 128;

impl Linear {
    /// y = epilogue(x · wᵀ).
    ///
    /// Packs or quantizes x on the way, unless it is packed already as this layer reads it (packed otherwise it is packed again, which
    /// costs more than from rows). Results are the same bits on every tier, for any number of
    /// threads, and for a token alone or among others.
    ///
    /// # Errors
    /// [`Error::Shape`] if x, y or the residual do not fit the layer; [`Error::Unsupported`] if a type and its
    /// parameters do not go together, if an i32 output has an epilogue, or if `ctx` has another tier than the layer was
    /// built for; [`Error::Value`] if x has NaN or infinity and is quantized by its own range. Nothing is written then.
    pub fn forward<'a>(
        &self,
        x: impl Into<LinearInput<'a>>,
        epilogue: Epilogue<'a>,
        y: impl Into<LinearOutput<'a>>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.run(x.into(), epilogue, y.into(), ctx, scratch)
    }

    fn run(
        &self,
        x: LinearInput<'_>,
        epilogue: Epilogue<'_>,
        mut y: LinearOutput<'_>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (m, k) = x.shape();
        let x = self.check(x, &epilogue, &y, ctx)?;
        let shape = Shape { tokens: m, features: k, layout: self.input_layout() };
        let [x_memory, tiles, rows, y_rows, scale, bias, init, token_scale, token_zero, token_sum] =
            scratch.slots();

        // Where x must be seen whole before anything is written, it is packed here, else by the driver.
        let by_token = x.by_token();
        let packed = match x {
            Input::Packed(p) if p.shape == Some(shape) => Some(p.data.bytes()),
            _ if by_token || self.zero_points.is_some() => {
                if !x_memory.try_grow(shape.bytes()) {
                    return Err(too_large(shape));
                }
                let to = &mut x_memory.bytes_mut()[..shape.bytes()];
                Packer { x: &x, shape, ctx }.pack_all(to, rows, tiles, (token_scale, token_zero))?;
                Some(x_memory.bytes())
            }
            _ => None,
        };
        let x_scale = match x {
            Input::Packed(p) => p.scale.as_ref(),
            _ if by_token => ScaleRef::Token {
                scale: elements(&token_scale.bytes()[..4 * m]),
                zero: elements(&token_zero.bytes()[..4 * m]),
            },
            _ => match x.own_scales(token_scale, token_zero) {
                Some(scales) => scales,
                None => Packer { x: &x, shape, ctx }.tensor_scale(),
            },
        };
        if let To::Packed(to, layout, params) = &mut y.to {
            let shape = Shape { tokens: m, features: self.out_features, layout: *layout };
            to.resize(shape)?;
            to.clear_last_four(shape);
            to.scale.set(params.as_ref().map_or(ScaleRef::NONE, ScaleRef::of));
        }
        if m == 0 || self.out_features == 0 {
            return Ok(());
        }

        let by_token = matches!(x_scale, ScaleRef::Token { .. });
        let (end, fold) = epilogue.finish(&y, by_token);
        let padded = self.out_features + PADDING;
        let (scale, bias, init) = (scale.floats(padded), bias.floats(padded), init.integers(padded));
        self.parameters(x_scale, fold, scale, bias, init);
        let token_correction = match x_scale {
            ScaleRef::Tensor { .. } => None,
            ScaleRef::Token { zero, .. } => Some(Rank1 { feature: &self.sums, token: zero }),
        };
        let weight_correction = match (&self.zero_points, packed) {
            (Some(feature), Some(rows)) => {
                let sums = token_sum.integers(m);
                sum_tokens(rows, shape, x_scale, sums);
                Some(Rank1 { feature, token: sums })
            }
            _ => None,
        };
        let job = Job {
            shape,
            source: Source::Packed(&[]),
            out_features: self.out_features,
            init,
            finish: Finish {
                scale,
                bias,
                token_scale: match x_scale {
                    ScaleRef::Tensor { .. } => None,
                    ScaleRef::Token { scale, .. } => Some(scale),
                },
                // The first one there is comes first.
                corrections: match token_correction {
                    None => [weight_correction, None],
                    some => [some, weight_correction],
                },
                saturating: self.saturates(&end, x_scale, fold),
                ..end
            },
            out: out(&mut y, m),
            tier: self.tier,
            epilogue: if shape.layout.is_float() {
                self.tier.float.epilogue
            } else {
                self.tier.packing.epilogue
            },
            piece_rows: x.piece_rows(shape),
        };
        let pack = |panel, to: &mut [u8], rows: &mut [u8]| {
            Packer { x: &x, shape, ctx }.pack_panel(x_scale, panel, to, rows);
        };
        let (source, memory) = match packed {
            // x_memory is lent to the job then.
            Some(bytes) => (Source::Packed(bytes), Memory { x: None, tiles, rows, y_rows }),
            None => {
                let source = match (&self.weights, x.rows_as_they_lie(shape)) {
                    (Packed::Dense(w, _), Some((rows, stride))) if k.is_multiple_of(w.kernel().padded) => {
                        Source::Rows(rows, stride)
                    }
                    _ => Source::Pack(&pack),
                };
                (source, Memory { x: Some(x_memory), tiles, rows, y_rows })
            }
        };
        let job = Job { source, ..job };
        match &self.weights {
            Packed::Dense(w, _) => driver::dense(&job, w, ctx, memory),
            Packed::Sparse(w) if shape.layout.is_float() => driver::sparse_floats(&job, w, ctx, memory),
            Packed::Sparse(w) => driver::sparse(&job, w, ctx, memory),
        }
        Ok(())
    }

    /// x as it is to be packed, if everything fits.
    fn check<'a>(
        &self,
        x: LinearInput<'a>,
        epilogue: &Epilogue<'_>,
        y: &LinearOutput<'_>,
        ctx: &Ctx,
    ) -> Result<Input<'a>> {
        let (m, k) = x.shape();
        self.check_input(&x, ctx)?;
        let input = Input::new(x, self.input_layout(), self.input)?;
        if self.input_layout().is_float() && y.element() == Element::I32 {
            return Err(Error::unsupported("output", "floats or bytes of a float layer", "i32"));
        }
        check_bytes(m, k)?;
        check_bytes(m, self.out_features)?;
        y.check(m, self.out_features)?;
        epilogue.check(m, self.out_features, y)?;
        Ok(input)
    }

    /// Whether x has the features of the layer, and `ctx` its instructions.
    pub(super) fn check_input(&self, x: &LinearInput<'_>, ctx: &Ctx) -> Result<()> {
        let (m, k) = x.shape();
        if k != self.in_features {
            return Err(Error::shape(
                "input",
                format_args!("{} in_features", self.in_features),
                format_args!("{m} tokens x {k}"),
            ));
        }
        if ctx.isa() != self.tier.isa {
            return Err(Error::unsupported(
                "ctx",
                format_args!("the tier the weights were packed for, {}", self.tier.isa),
                ctx.isa(),
            ));
        }
        Ok(())
    }

    /// Scale, bias and start of each output feature, the former two times `fold`.
    fn parameters(
        &self,
        x_scale: ScaleRef<'_>,
        fold: f32,
        scale: &mut [f32],
        bias: &mut [f32],
        init: &mut [i32],
    ) {
        let (x_scale, zero) = match x_scale {
            ScaleRef::Tensor { scale, zero } => (scale, zero),
            ScaleRef::Token { .. } => (1.0, 0),
        };
        // Signed bytes are 128 less, as their zero point is.
        let zero = if self.tier.bytes.signed { zero.wrapping_sub(128) } else { zero };
        let n = self.out_features;
        if self.input_layout().is_float() && fold == 1.0 {
            // As they are: a small layer would notice.
            scale[..n].copy_from_slice(&self.scale);
            bias[..n].copy_from_slice(&self.bias);
        } else {
            driver::scaled(self.tier, &self.scale, x_scale, fold, scale);
            driver::scaled(self.tier, &self.bias, 1.0, fold, bias);
        }
        scale[n..].fill(0.0);
        bias[n..].fill(0.0);
        // `sums` is padded.
        driver::start(self.tier, &self.sums, zero, init);
    }

    /// Whether bytes can be made of sums by packing with saturation: nothing leaves the range of i32 before.
    fn saturates(&self, end: &Finish<'_>, x_scale: ScaleRef<'_>, fold: f32) -> bool {
        let ScaleRef::Tensor { scale: x_scale, .. } = x_scale else { return false };
        let plain = end.element.is_quantized() && end.residual.is_none() && self.zero_points.is_none();
        let exact = !self.input_layout().is_float();
        // NaN and infinity compare as they should: not tame.
        let most = (self.reach * x_scale + self.most_bias) * fold;
        let tame = most * end.post.max(1.0) < (1u32 << 30) as f32;
        plain && exact && tame
    }
}

/// Where the kernels write.
fn out(y: &mut LinearOutput<'_>, m: usize) -> Out {
    match &mut y.to {
        To::Tensor(y) => Out::Rows(y.as_mut_ptr(), y.matrix_stride()),
        To::Packed(y, ..) => {
            let shape = Shape { tokens: m, features: y.features(), layout: y.layout() };
            Out::Panels(y.data.bytes_mut().as_mut_ptr(), shape)
        }
    }
}

/// Each token's `sum of x - K * zero point`: what a weight zero point takes away.
fn sum_tokens(rows: &[u8], shape: Shape, x_scale: ScaleRef<'_>, sums: &mut [i32]) {
    for (t, (sum, row)) in sums.iter_mut().zip(rows.chunks(row_stride(shape.features))).enumerate() {
        let zero = match x_scale {
            ScaleRef::Tensor { zero, .. } => zero,
            ScaleRef::Token { zero, .. } => zero[t],
        };
        *sum =
            row[..shape.features].iter().map(|&b| i32::from(b)).sum::<i32>() - zero * shape.features as i32;
    }
}
