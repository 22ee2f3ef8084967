//! The end: from sums to the caller's tensor.

use super::{Group, Mode, Plan, Row};
use crate::driver::tensor::MAX_HEAD_DIM;
use crate::kernels::attention::sums;
use crate::kernels::quantize;

impl Plan<'_> {
    /// A row of context through the gate to the output.
    ///
    /// # Safety
    /// The row is one of the output, and nobody else writes it.
    pub unsafe fn finish(&self, g: &Group, row: Row, context: &mut [f32]) {
        let call = self.problem.call;
        let d = self.problem.layer.head_dim;
        let context = &mut context[..d];
        let token = g.q + row.token;
        if let (Mode::Bytes, Some(params)) = (self.mode, &call.quantizers.context) {
            let bytes = &mut [0; MAX_HEAD_DIM][..d];
            quantize::quantize(context, params, bytes, self.ctx);
            quantize::dequantize(bytes, params, context, self.ctx);
        }
        // Without a gate the product is that with 1, for what it makes of -0: no integer is.
        if call.gates.is_some() || self.mode != Mode::Bytes {
            let gate = call.gates.map_or(1.0, |gates| gates.row(token)[row.head]);
            // SAFETY: the tier is supported.
            unsafe { sums::gate::pick(self.ctx.isa())(context, gate) };
        }
        // SAFETY: as the caller; each row is finished once.
        unsafe { self.out.write(token, row.head, context, self.ctx) };
    }
}
