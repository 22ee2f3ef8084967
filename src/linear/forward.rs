//! A call: checked, planned, and handed to a driver.

use super::epilogue::{Activation, Epilogue, Residual};
use super::io::{Input, OnTheFly, Output};
use super::packed::{Packer, Scale, ScaleRef, flip, unsigned_zero};
use super::{Linear, Packed};
use crate::base::ctx::Ctx;
use crate::base::element::Element;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::driver::{self, Job, Memory, Out, Source};
use crate::kernels::activation;
use crate::kernels::epilogue::{Addend, Plan, Rank1, Target};
use crate::kernels::panel::{Shape, check_bytes, row_stride};
use crate::kernels::requantize::Requantize;
use crate::quant::QuantParams;

/// Parameter arrays are padded by this much, so that kernels read whole registers.
pub(super) const PADDING: usize = 128;

impl Linear {
    /// y = epilogue(x · wᵀ).
    ///
    /// Packs or quantizes x on the way, unless it is packed already in [`Linear::input_layout`] (packed otherwise it is
    /// packed again, which costs more than from rows). Results are the same bits on every tier, for any number of
    /// threads, and for a token alone or among others.
    ///
    /// # Errors
    /// [`Error::Shape`] if x, y or the residual do not fit the layer; [`Error::Unsupported`] if a type and its
    /// parameters do not go together, if an i32 output has an epilogue, or if `ctx` has another tier than the layer was
    /// built for; [`Error::Value`] if x has NaN or infinity and is quantized by its own range. Nothing is written then.
    pub fn forward(
        &self,
        x: Input<'_>,
        epilogue: Epilogue<'_>,
        mut y: Output<'_>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (m, k) = x.shape();
        self.check(&x, &epilogue, &y, ctx)?;
        let shape = Shape { tokens: m, features: k, layout: self.input_layout() };
        let Scratch {
            x: x_memory,
            tiles,
            rows,
            y_rows,
            scale,
            bias,
            init,
            token_scale,
            token_zero,
            token_sum,
            ..
        } = scratch;

        // Where x must be seen whole before anything is written, it is packed here, else by the driver.
        let by_token = x.on_the_fly() == Some(OnTheFly::PerToken);
        let packed = match x {
            Input::Packed(p) if p.shape == Some(shape) => Some(p.data.bytes()),
            _ if by_token || self.zero_points.is_some() => {
                x_memory.grow(shape.bytes());
                let to = &mut x_memory.bytes_mut()[..shape.bytes()];
                Packer { x: &x, shape, ctx }.pack_all(to, rows, tiles, (token_scale, token_zero))?;
                Some(x_memory.bytes())
            }
            _ => None,
        };
        let x_scale = match x {
            Input::Packed(p) => p.scale.as_ref(),
            _ if by_token => ScaleRef::Token { scale: token_scale, zero: token_zero },
            _ => Packer { x: &x, shape, ctx }.tensor_scale(),
        };
        if let Output::Packed(to, params, layout) = &mut y {
            to.resize(Shape { tokens: m, features: self.out_features, layout: *layout })?;
            to.scale = Scale::of(params);
        }
        if let Output::PackedFloats(to, layout) = &mut y {
            let shape = Shape { tokens: m, features: self.out_features, layout: *layout };
            to.resize(shape)?;
            to.clear_last_four(shape);
            to.scale = Scale::default();
        }
        if m == 0 || self.out_features == 0 {
            return Ok(());
        }

        let finish = Finish::new(&epilogue, &y, x_scale);
        self.parameters(x_scale, &finish, scale, bias, init);
        let token_correction = match x_scale {
            ScaleRef::Tensor { .. } => None,
            ScaleRef::Token { zero, .. } => Some(Rank1 { feature: &self.sums, token: zero }),
        };
        let weight_correction = match (&self.zero_points, packed) {
            (Some(feature), Some(rows)) => {
                sum_tokens(rows, shape, x_scale, token_sum);
                Some(Rank1 { feature, token: token_sum })
            }
            _ => None,
        };
        // The first one there is comes first.
        let corrections = match token_correction {
            None => [weight_correction, None],
            some => [some, weight_correction],
        };
        let requantize = finish.fused(self, x_scale, scale, bias);
        let (target, out) = target(&mut y, m);
        let job = Job {
            shape,
            source: Source::Packed(&[]),
            out_features: self.out_features,
            init,
            plan: Plan {
                scale,
                bias,
                token_scale: match x_scale {
                    ScaleRef::Tensor { .. } => None,
                    ScaleRef::Token { scale, .. } => Some(scale),
                },
                corrections,
                addend: epilogue.residual.map(addend),
                activation: finish.activation,
                clamp: finish.clamp,
                post: finish.post,
                zero: finish.zero,
                low: finish.low,
                high: finish.high,
                table: finish.table,
                target,
            },
            requantize,
            out,
            tier: self.tier,
            epilogue: if shape.layout.is_float() { self.tier.float.epilogue } else { self.tier.epilogue },
            piece_rows: x.piece_rows(shape),
        };
        let pack = |panel, to: &mut [u8], rows: &mut [u8]| {
            Packer { x: &x, shape, ctx }.pack_panel(x_scale, panel, to, rows);
        };
        let (source, memory) = match packed {
            // x_memory is lent to the job then.
            Some(bytes) => (Source::Packed(bytes), Memory { x: None, tiles, rows, y_rows }),
            None => (Source::Pack(&pack), Memory { x: Some(x_memory), tiles, rows, y_rows }),
        };
        let job = Job { source, ..job };
        match &self.weights {
            Packed::Dense(w, _) => driver::dense(&job, w, ctx, memory),
            Packed::Sparse(w) if shape.layout.is_float() => driver::sparse_floats(&job, w, ctx, memory),
            Packed::Sparse(w) => driver::sparse(&job, w, ctx, memory),
        }
        Ok(())
    }

    fn check(&self, x: &Input<'_>, epilogue: &Epilogue<'_>, y: &Output<'_>, ctx: &Ctx) -> Result<()> {
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
        x.check()?;
        x.check_layout(self.input_layout())?;
        if self.input_layout().is_float() && matches!(y, Output::I32(_)) {
            return Err(Error::unsupported("output", "floats or bytes of a float layer", "i32"));
        }
        check_bytes(m, k)?;
        check_bytes(m, self.out_features)?;
        y.check(m, self.out_features)?;
        epilogue.check(m, self.out_features, y)
    }

    /// Scale, bias and start of each output feature.
    fn parameters(
        &self,
        x_scale: ScaleRef<'_>,
        finish: &Finish<'_>,
        scale: &mut Vec<f32>,
        bias: &mut Vec<f32>,
        init: &mut Vec<i32>,
    ) {
        let (x_scale, zero) = match x_scale {
            ScaleRef::Tensor { scale, zero } => (scale, zero),
            ScaleRef::Token { .. } => (1.0, 0),
        };
        let fold = finish.fold;
        scale.clear();
        bias.clear();
        init.clear();
        if self.input_layout().is_float() && fold == 1.0 {
            // As they are: a small layer would notice.
            scale.extend_from_slice(&self.scale);
            bias.extend_from_slice(&self.bias);
        } else {
            scale.extend(self.scale.iter().map(|s| x_scale * s * fold));
            bias.extend(self.bias.iter().map(|b| b * fold));
        }
        scale.resize(self.out_features + PADDING, 0.0);
        bias.resize(self.out_features + PADDING, 0.0);
        // Signed bytes are 128 less, as their zero point is.
        let zero = if self.tier.signed { zero.wrapping_sub(128) } else { zero };
        // `sums` is padded.
        init.extend(self.sums.iter().map(|s| s.wrapping_mul(zero).wrapping_neg()));
    }
}

/// An epilogue in terms of the kernels.
struct Finish<'a> {
    activation: activation::Activation,
    clamp: (f32, f32),
    /// What scale and bias are multiplied by in advance.
    fold: f32,
    post: f32,
    zero: i32,
    low: u8,
    high: u8,
    table: Option<&'a [u8; 256]>,
    bytes: bool,
    residual: bool,
}

impl<'a> Finish<'a> {
    fn new(epilogue: &Epilogue<'a>, y: &Output<'_>, x_scale: ScaleRef<'_>) -> Self {
        let params = match (y, epilogue.activation) {
            (_, Activation::Table(table)) => Some(table.before()),
            (Output::U8(_, p) | Output::I8(_, p) | Output::Packed(_, p, _), _) => Some(*p),
            _ => None,
        };
        let (step, zero) = params.map_or((1.0, 0), |p| (1.0 / p.scale(), unsigned_zero(&p)));
        let byte = |v: f32| ((v * step).round_ties_even() + zero as f32).clamp(0.0, 255.0) as u8;
        let mut this = Finish {
            activation: activation::Activation::Identity,
            clamp: (f32::NEG_INFINITY, f32::INFINITY),
            fold: 1.0,
            post: step,
            zero,
            low: 0,
            high: 255,
            table: None,
            bytes: params.is_some(),
            residual: epilogue.residual.is_some(),
        };
        match epilogue.activation {
            Activation::Identity => {}
            Activation::Relu => (this.clamp, this.low) = ((0.0, f32::INFINITY), byte(0.0)),
            Activation::Clamp { low, high } => {
                (this.clamp, this.low, this.high) = ((low, high), byte(low), byte(high));
            }
            Activation::Gelu => this.activation = activation::Activation::Gelu,
            Activation::GeluTanh => this.activation = activation::Activation::GeluTanh,
            Activation::Silu => this.activation = activation::Activation::Silu,
            Activation::Table(table) => this.table = Some(&table.bytes),
        }
        let straight = this.activation == activation::Activation::Identity;
        if straight && !this.residual && matches!(x_scale, ScaleRef::Tensor { .. }) {
            (this.fold, this.post) = (step, 1.0);
        }
        this
    }

    /// The same for the registers of a sparse tile, where nothing can leave the range of i32.
    fn fused<'b>(
        &self,
        layer: &Linear,
        x_scale: ScaleRef<'_>,
        scale: &'b [f32],
        bias: &'b [f32],
    ) -> Option<Requantize<'b>>
    where
        'a: 'b,
    {
        let ScaleRef::Tensor { scale: x_scale, .. } = x_scale else { return None };
        let plain = self.bytes && !self.residual && layer.zero_points.is_none();
        let whole = matches!(&layer.weights, Packed::Sparse(w) if !w.split_rows() && !w.layout().is_float());
        // NaN and infinity compare as they should: not tame.
        let most = (layer.reach * x_scale + layer.most_bias) * self.fold;
        let tame = most * self.post.max(1.0) < (1u32 << 30) as f32;
        (plain && whole && tame).then_some(Requantize {
            scale,
            bias,
            activation: self.activation,
            post: self.post,
            zero: self.zero,
            low: self.low,
            high: self.high,
            table: self.table,
        })
    }
}

/// Where the kernels write.
fn target(y: &mut Output<'_>, m: usize) -> ((Target, usize), Out) {
    match y {
        Output::I32(y) => ((Target::I32(y.as_mut_ptr()), y.stride()), Out::Rows),
        Output::F32(y) => ((Target::F32(y.as_mut_ptr()), y.stride()), Out::Rows),
        Output::Bf16(y) => ((Target::Bf16(y.as_mut_ptr()), y.stride()), Out::Rows),
        Output::F16(y) => ((Target::F16(y.as_mut_ptr()), y.stride()), Out::Rows),
        Output::U8(y, _) => ((Target::U8(y.as_mut_ptr(), 0), y.stride()), Out::Rows),
        Output::I8(y, _) => ((Target::U8(y.as_mut_ptr().cast(), flip(Element::I8)), y.stride()), Out::Rows),
        Output::Packed(y, ..) | Output::PackedFloats(y, _) => {
            let shape = Shape { tokens: m, features: y.features(), layout: y.layout() };
            let p = y.data.bytes_mut().as_mut_ptr();
            ((Target::U8(p, 0), row_stride(shape.features)), Out::Panels(p, shape))
        }
    }
}

fn addend(residual: Residual<'_>) -> (Addend, usize) {
    let real = |p: &QuantParams| (p.scale(), p.zero_point());
    match residual {
        Residual::F32(r) => (Addend::F32(r.as_ptr()), r.stride()),
        Residual::Bf16(r) => (Addend::Bf16(r.as_ptr()), r.stride()),
        Residual::F16(r) => (Addend::F16(r.as_ptr()), r.stride()),
        Residual::U8(r, p) => (Addend::U8(r.as_ptr(), real(&p).0, real(&p).1), r.stride()),
        Residual::I8(r, p) => (Addend::I8(r.as_ptr(), real(&p).0, real(&p).1), r.stride()),
    }
}

/// Each token's `sum of x - K * zero point`: what a weight zero point takes away.
fn sum_tokens(rows: &[u8], shape: Shape, x_scale: ScaleRef<'_>, sums: &mut Vec<i32>) {
    sums.clear();
    sums.extend(rows.chunks(row_stride(shape.features)).take(shape.tokens).zip(0..).map(|(row, t)| {
        let zero = match x_scale {
            ScaleRef::Tensor { zero, .. } => zero,
            ScaleRef::Token { zero, .. } => zero[t],
        };
        let sum: i32 = row[..shape.features].iter().map(|&b| i32::from(b)).sum();
        sum - zero * shape.features as i32
    }));
}
