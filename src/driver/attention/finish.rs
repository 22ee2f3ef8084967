//! The end: from sums to the caller's tensor.

use super::{Group, Mode, Plan, Row};
use crate::attention::Output;
use crate::attention::forward::MAX_HEAD_DIM;
use crate::base::element::Element;
use crate::base::params::QuantParams;
use crate::kernels::attention::pack::prefetch;
use crate::kernels::attention::sums;
use crate::kernels::quantize;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Where the context goes.
pub struct Target {
    p: *mut u8,
    element: Element,
    /// Of bytes.
    params: Option<QuantParams>,
    /// Bytes from one to the next.
    token: usize,
    head: usize,
}

// SAFETY: a pointer to the caller's output, borrowed for the call; tasks write disjoint rows.
unsafe impl Sync for Target {}

impl Target {
    pub fn new(out: Output<'_>) -> Target {
        let layout = out.layout();
        let (p, params, element) = match out {
            Output::F32(mut x) => (x.as_mut_ptr().cast(), None, Element::F32),
            Output::Bf16(mut x) => (x.as_mut_ptr().cast(), None, Element::Bf16),
            Output::F16(mut x) => (x.as_mut_ptr().cast(), None, Element::F16),
            Output::U8(mut x, params) => (x.as_mut_ptr(), Some(params), Element::U8),
            Output::I8(mut x, params) => (x.as_mut_ptr().cast(), Some(params), Element::I8),
        };
        let bytes = |elements| element.bytes_of(elements);
        Target { p, element, params, token: bytes(layout.token_stride), head: bytes(layout.head_stride) }
    }
}

impl Plan<'_> {
    /// Asks for where a row of context goes: rows of a head lie far apart, and stores that miss stop everything.
    pub fn prefetch_output(&self, g: &Group, row: Row) {
        let to = &self.out;
        let p = to.p.wrapping_add((g.q + row.token) * to.token + row.head * to.head);
        prefetch(p, to.element.bytes_of(self.job.head_dim));
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
            match (to.element, &to.params) {
                (Element::F32, _) => {
                    std::slice::from_raw_parts_mut(p.cast::<f32>(), d).copy_from_slice(context)
                }
                (Element::Bf16, _) => {
                    std::slice::from_raw_parts_mut(p.cast::<bf16>(), d).convert_from_f32_slice(context);
                }
                (Element::F16, _) => {
                    std::slice::from_raw_parts_mut(p.cast::<f16>(), d).convert_from_f32_slice(context)
                }
                (_, Some(params)) => {
                    quantize::quantize(context, params, std::slice::from_raw_parts_mut(p, d), self.ctx);
                }
                (other, None) => unreachable!("no context of {other}"),
            }
        }
    }
}
