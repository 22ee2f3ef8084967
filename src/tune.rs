//! The core as it is measured now, where nobody knows the model of the CPU.

use crate::base::ctx::Ctx;
use crate::base::error::Result;
use crate::kernels::core::measured;

impl Ctx {
    /// As [`Ctx::new`], for the core as it is measured now, on this thread: where nobody knows the CPU's model. Pairs of bfloat16,
    /// divisions and the costs of sparse weights of INT8 are timed, which takes about a millisecond; the caches are those that the CPU
    /// tells. Keep the context, or its [`Ctx::core`]: where pairs are about as fast as multiply-adds, another moment could choose
    /// otherwise, and the bits of bfloat16 with it ([`Bf16Pairs::Never`](crate::Bf16Pairs::Never) has the same everywhere).
    ///
    /// # Errors
    /// As [`Ctx::new`]: the layers that are timed cannot fail.
    pub fn tuned() -> Result<Self> {
        let ctx = Self::new()?;
        #[allow(unused_mut, reason = "without linear layers there are no sparse weights")]
        let mut core = measured(ctx.isa());
        #[cfg(feature = "linear")]
        {
            core.sparse = sparse::costs(ctx.isa())?;
            core.source = "measured just now; caches as the CPU tells";
        }
        Ok(ctx.with_core(core))
    }
}

/// What weights cost in sparse layers of INT8.
#[cfg(feature = "linear")]
mod sparse {
    use crate::base::core::SparseCost;
    use crate::base::ctx::Ctx;
    use crate::base::error::Result;
    use crate::base::isa::Isa;
    use crate::base::params::QuantParams;
    use crate::base::scratch::Scratch;
    use crate::base::view::{MatMut, MatRef};
    use crate::kernels::core::{least, two_digits};
    use crate::linear::{Epilogue, Linear, PackedActivations};
    use crate::sparse::{BlockShape, Bsr};

    /// Tokens, output features and input features of the layers that are timed: a panel, a band, and K as small models have it, for
    /// what the start and the end of a group take counts too.
    const SIZE: (usize, usize, usize) = (64, 64, 384);

    /// Layers of which every second block is pruned, timed beside a dense one. Their x is packed before, for the cost is that of weights.
    pub fn costs(isa: Isa) -> Result<SparseCost> {
        let ctx = Ctx::serial()?.with_isa(isa)?;
        let (_, n, k) = SIZE;
        let w = vec![1i8; n * k];
        let dense = time(&Linear::dense(MatRef::new(&w, n, k)?).build(&ctx)?, &ctx)?;
        let cost = |rows, cols| -> Result<f32> {
            let half = every_second(BlockShape::new(rows, cols)?)?;
            let sparse = time(&Linear::sparse(&half).keep_sparse().build(&ctx)?, &ctx)?;
            Ok(two_digits(2.0 * sparse / dense.max(1e-9)))
        };
        Ok(SparseCost {
            any_8: cost(8, 1)?,
            any_4: cost(4, 1)?,
            adjacent_4: cost(4, 4)?,
            any_1: cost(1, 1)?,
            adjacent_1: cost(1, 4)?,
        })
    }

    fn every_second(block: BlockShape) -> Result<Bsr<i8>> {
        let (_, n, k) = SIZE;
        let (down, across) = (n / block.rows(), k / block.cols() / 2);
        let indices = (0..down).flat_map(|i| (0..across).map(move |j| (2 * j + i % 2) as u32)).collect();
        Bsr::from_parts(
            (n, k),
            block,
            (0..=down).map(|i| i * across).collect(),
            indices,
            vec![1; down * across * block.area()],
        )
    }

    /// Seconds that a layer takes.
    fn time(layer: &Linear, ctx: &Ctx) -> Result<f64> {
        let (m, n, k) = SIZE;
        let (x, mut y, params) = (vec![1u8; m * k], vec![0u8; m * n], QuantParams::u8(1.0, 0)?);
        let (mut packed, mut scratch) = (PackedActivations::new(), Scratch::new());
        layer.pack((MatRef::new(&x, m, k)?, params), &mut packed, ctx, &mut scratch)?;
        let mut result = Ok(());
        let seconds = least(&mut || {
            let y = MatMut::new(&mut y, m, n);
            result = y.and_then(|y| layer.forward(&packed, Epilogue::new(), (y, params), ctx, &mut scratch));
        });
        result.map(|()| seconds)
    }
}
