//! The end: from sums to the caller's tensor.

use super::{Group, Mode, Plan, Row};
use crate::base::element::Element;
use crate::driver::tensor::MAX_HEAD_DIM;
use crate::kernels::attention::finish::{self, Ends, Part};
use crate::kernels::attention::sums;
use crate::kernels::quantize;

impl Plan<'_> {
    /// Whether rows of context end as [`Plan::finish_rows`] has it.
    pub fn ends_at_once(&self) -> bool {
        let call = self.problem.call;
        call.gates.is_none()
            && match self.mode {
                Mode::Bytes => call.quantizers.context.is_none() && self.out.params().is_some(),
                _ => self.out.element() == Element::F32,
            }
    }

    /// Sums of some rows of one head, of their only chunk or, of floats, of all chunks, to the output; whether all are finite.
    ///
    /// # Safety
    /// The rows are of the output, and nobody else writes them; a row of sums, and of bytes a part, is there for each;
    /// [`Plan::ends_at_once`].
    pub unsafe fn finish_rows(
        &self,
        g: &Group,
        (first, rows): (Row, usize),
        sums: &[u8],
        parts: &[Part],
    ) -> bool {
        let (isa, row_bytes) = (self.ctx.isa(), 4 * self.columns);
        assert!(sums.len() >= rows * row_bytes);
        let ends = Ends {
            rows,
            columns: self.problem.layer.head_dim,
            sums: sums.as_ptr(),
            sums_stride: row_bytes,
            out: self.out.at(g.q + first.token, first.head),
            out_stride: self.out.token_stride(),
        };
        // SAFETY: the tier is supported; as the caller.
        unsafe {
            match self.out.params().filter(|_| self.mode == Mode::Bytes) {
                Some(params) if quantize::corrects(params, self.ctx) => {
                    finish::corrected::pick(isa)(&ends, parts, params.into());
                }
                Some(params) => finish::divided::pick(isa)(&ends, parts, params.into()),
                None => return finish::floats::pick(isa)(&ends),
            }
        }
        true
    }

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
