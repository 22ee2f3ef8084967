//! The end: from sums to the caller's tensor.

use super::{Group, Mode, Plan, Row};
use crate::attention::Output;
use crate::attention::forward::MAX_HEAD_DIM;
use crate::kernels::attention::pack::prefetch;
use crate::kernels::attention::sums;
use crate::kernels::quantize;
use crate::quant::QuantParams;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Where the context goes.
pub struct Target {
    p: *mut u8,
    kind: Kind,
    /// Of an element.
    bytes: usize,
    /// Bytes from one to the next.
    token: usize,
    head: usize,
}

enum Kind {
    F32,
    Bf16,
    F16,
    Bytes(QuantParams),
}

// SAFETY: a pointer to the caller's output, borrowed for the call; tasks write disjoint rows.
unsafe impl Sync for Target {}

impl Target {
    pub fn new(out: Output<'_>) -> Target {
        let layout = out.layout();
        let (p, kind, bytes) = match out {
            Output::F32(mut x) => (x.as_mut_ptr().cast(), Kind::F32, 4),
            Output::Bf16(mut x) => (x.as_mut_ptr().cast(), Kind::Bf16, 2),
            Output::F16(mut x) => (x.as_mut_ptr().cast(), Kind::F16, 2),
            Output::U8(mut x, params) => (x.as_mut_ptr(), Kind::Bytes(params), 1),
            Output::I8(mut x, params) => (x.as_mut_ptr().cast(), Kind::Bytes(params), 1),
        };
        Target { p, kind, bytes, token: layout.token_stride * bytes, head: layout.head_stride * bytes }
    }
}

impl Plan<'_> {
    /// Asks for where a row of context goes: rows of a head lie far apart, and stores that miss stop everything.
    pub fn prefetch_output(&self, g: &Group, row: Row) {
        let to = &self.out;
        let p = to.p.wrapping_add((g.q + row.token) * to.token + row.head * to.head);
        prefetch(p, self.job.head_dim * to.bytes);
    }

    /// A row of context through the gate to the output.
    ///
    /// # Safety
    /// The row is one of the output, and nobody else writes it.
    pub unsafe fn finish(&self, g: &Group, row: Row, context: &mut [f32]) {
        let d = self.job.head_dim;
        let context = &mut context[..d];
        let token = g.q + row.token;
        if let (Mode::Bytes, Some(params)) = (self.mode, &self.job.int8.context) {
            let bytes = &mut [0; MAX_HEAD_DIM][..d];
            quantize::quantize(context, params, bytes, self.ctx);
            quantize::dequantize(bytes, params, context, self.ctx);
        }
        // Without a gate the product is that with 1, for what it makes of -0: no integer is.
        if self.job.gates.is_some() || self.mode != Mode::Bytes {
            let gate = self.job.gates.map_or(1.0, |gates| gates.row(token)[row.head]);
            // SAFETY: the tier is supported.
            unsafe { sums::gate::pick(self.ctx.isa())(context, gate) };
        }
        let to = &self.out;
        let p = to.p.wrapping_add(token * to.token + row.head * to.head);
        // SAFETY: the output's constructor proved that the head is there and overlaps no other; each row is finished once.
        unsafe {
            match &to.kind {
                Kind::F32 => std::slice::from_raw_parts_mut(p.cast::<f32>(), d).copy_from_slice(context),
                Kind::Bf16 => {
                    std::slice::from_raw_parts_mut(p.cast::<bf16>(), d).convert_from_f32_slice(context);
                }
                Kind::F16 => {
                    std::slice::from_raw_parts_mut(p.cast::<f16>(), d).convert_from_f32_slice(context)
                }
                Kind::Bytes(params) => {
                    quantize::quantize(context, params, std::slice::from_raw_parts_mut(p, d), self.ctx);
                }
            }
        }
    }
}
