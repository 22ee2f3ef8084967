//! Linear layers, dense and block-sparse, of INT8, f32, bfloat16 and f16: `y = epilogue(x · wᵀ)`, as in a PyTorch `Linear`.
//!
//! x is `[M tokens, K in_features]`, w is `[N out_features, K]`, y is `[M, N]`. Weights are packed once, when the layer
//! is built; a call packs or quantizes x, multiplies, and finishes each output in a fixed order (see [`Epilogue`]).
//!
//! # What is summed up
//!
//! | weights | x | sums |
//! |---|---|---|
//! | `i8` | 8 bits, or floats that the layer quantizes | exact: `sum over k of (x - x_zero_point) * (w - w_zero_point)` in i32 |
//! | `f32`, `f16` | floats | f32: one chain of fused multiply-adds in the order of k, from 0 |
//! | `i8`, [`LinearBuilder::weight_only`] | floats | the same, of the 8-bit numbers; the scale comes with the epilogue |
//! | `i8`, [`LinearBuilder::group_scales`] | floats | the same within each group; `total = fma(sum, scale, total)` from group to group |
//! | `bf16` | floats | as `f32`; or, on the tier `avx512-bf16`, by the CPU's own product of pairs, see below |
//!
//! Narrow weights and x are widened, which is exact. Chains are never split, so floats too have the same bits on every tier,
//! at every number of threads, in any batch, and in a sparse layer as in the dense one with the same zeros. Pruned blocks
//! are not multiplied; zeros inside stored blocks are. Infinities, NaN and subnormals go the way that IEEE 754 says (a
//! NaN's sign and payload are not promised), and stay in their own token. Activations of a NaN are NaN. Where the output is
//! bytes, NaN becomes the zero point, whatever the activation's limits, and infinities clamp; with a table, NaN becomes the
//! zero point of the table's input, and the output is the table's byte for that.
//!
//! **bfloat16 in pairs.** Where the CPU has `vdpbf16ps` (the tier `avx512-bf16`) and its core is faster so, dense layers of bfloat16,
//! and block-sparse ones whose blocks are an even number of columns wide, use it
//! ([`Ctx::with_bf16_pairs`](crate::Ctx::with_bf16_pairs) says always or never). x is rounded to bfloat16 then, if it is not that already; each
//! instruction adds two products to a sum with roundings of its own, and takes subnormals for zero. With S the sum of
//! `|x * w|`, a sum is within `(2^-9 + K * 2^-23) * S` of the exact one, without the first term if x is bfloat16. Within the
//! tier the bits are the same for any threads and batch. [`Bf16Pairs::Never`](crate::Bf16Pairs) has the bits of all other tiers.
//!
//! ```
//! use siskin::linear::{Epilogue, Linear};
//! use siskin::sparse::{BlockShape, Norm, prune};
//! use siskin::{Ctx, MatMut, MatRef, Scratch, bf16};
//!
//! // Pruned, but not quantized: w in bfloat16, x and y in f32.
//! let w: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin()).collect();
//! let w = prune::magnitude(MatRef::new(&w, 8, 16)?, BlockShape::new(4, 4)?, 0.5, Norm::L2)?;
//! let ctx = Ctx::new()?;
//! let layer = Linear::sparse(&w.map(|_, v| bf16::from_f32(v))).build(&ctx)?;
//!
//! let (x, mut y) = (vec![0.5f32; 2 * 16], vec![0.0f32; 2 * 8]);
//! let (x, y) = (MatRef::new(&x, 2, 16)?, MatMut::new(&mut y, 2, 8)?);
//! layer.forward(x, Epilogue::new(), y, &ctx, &mut Scratch::new())?;
//! # Ok::<(), siskin::Error>(())
//! ```
//!
//! # INT8
//!
//! ```
//! use siskin::linear::{Epilogue, Linear};
//! use siskin::sparse::{BlockShape, Norm, prune};
//! use siskin::{Ctx, MatMut, MatRef, Scratch};
//!
//! // w [8, 16], pruned to a quarter of its 4x1 blocks and quantized by output channel; x [2, 16].
//! let w: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin()).collect();
//! let w = prune::magnitude(MatRef::new(&w, 8, 16)?, BlockShape::B4X1, 0.75, Norm::L2)?;
//! let ctx = Ctx::new()?;
//! let layer = Linear::quantize_sparse(&w)?.bias(&[0.5; 8]).build(&ctx)?;
//!
//! let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.3).cos()).collect();
//! let mut y = vec![0.0; 16];
//! let (x, y) = (MatRef::new(&x, 2, 16)?, MatMut::new(&mut y, 2, 8)?); // x is quantized token by token
//! layer.forward(x, Epilogue::new(), y, &ctx, &mut Scratch::new())?;
//! # Ok::<(), siskin::Error>(())
//! ```

mod builder;
mod epilogue;
mod forward;
#[cfg(feature = "internal")]
pub(crate) mod internal;
mod io;
mod packed;

pub use crate::base::element::Weight;
pub use crate::driver::linear::weights::{MAX_FEATURES, MAX_FEATURES_ZERO_POINTS};
use crate::kernels::panel::{PanelLayout, Shape};
pub use builder::{LinearBuilder, MAX_GROUP_SIZE, MAX_OUT_FEATURES};
pub use epilogue::{Activation, ByteTable, Epilogue, gelu_table, gelu_tanh_table, silu_table};
pub use io::{InputQuantization, LinearInput, LinearOutput};
pub use packed::PackedActivations;

use crate::base::element::Element;
use crate::base::isa::Isa;
use crate::driver::linear::weights::{Dense, Sparse};
use crate::kernels::table::Tier;

/// A layer: weights packed for one tier, their scales, and a bias. Immutable; any number of threads may call it.
#[derive(Debug, Clone)]
pub struct Linear {
    in_features: usize,
    out_features: usize,
    weights: Packed,
    tier: &'static Tier,
    /// Real size of a weight step, by output feature.
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// Sum of each output feature's weights.
    sums: Vec<i32>,
    /// The most that any sum of x · w can reach, times its scale.
    reach: f32,
    /// The largest magnitude of a bias.
    most_bias: f32,
    /// Weight zero points, where any is not 0.
    zero_points: Option<Vec<i32>>,
    /// Values that the caller stored.
    stored: usize,
    /// The sparsity below which these blocks are faster as dense weights.
    dense_below: Option<f64>,
    /// How an x of floats becomes bytes, where the layer computes in bytes.
    input: InputQuantization,
}

#[derive(Debug, Clone)]
enum Packed {
    /// With the layout of x.
    Dense(Dense, PanelLayout),
    Sparse(Box<Sparse>),
}

impl Linear {
    /// K.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// N.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The tier whose kernels read the weights: a call's [`Ctx`](crate::Ctx) must have the same.
    pub fn isa(&self) -> Isa {
        self.tier.isa
    }

    /// What x is multiplied as: `U8` in a layer of INT8 (signed bytes are moved up by 128), `F32`, or `Bf16` where the CPU multiplies
    /// pairs of bfloat16.
    pub fn input_element(&self) -> Element {
        self.input_layout().element()
    }

    /// The layout of x that needs no further packing.
    pub(crate) fn input_layout(&self) -> PanelLayout {
        match &self.weights {
            Packed::Dense(_, layout) => *layout,
            Packed::Sparse(w) => w.layout(),
        }
    }

    /// The name of the kernel that multiplies `tokens` tokens (most of them, where a tail goes to another).
    pub fn kernel(&self, tokens: usize) -> &'static str {
        let shape = Shape { tokens, features: self.in_features, layout: self.input_layout() };
        // Of no tokens there is no panel; any will do.
        let width = if tokens == 0 { 1 } else { shape.panel(0).width };
        if let (Packed::Sparse(w), Some(lookup)) = (&self.weights, self.tier.bytes.lookup)
            && let Some(kernel) = w.looked_up(lookup, tokens.max(1))
        {
            return kernel.name;
        }
        if let (Packed::Sparse(w), Some(few)) = (&self.weights, self.tier.float.few(width))
            && w.layout().element() == Element::F32
        {
            return few.name;
        }
        match &self.weights {
            Packed::Dense(w, _) => w.kernel().name,
            Packed::Sparse(w) => match (w.layout().element(), w.height(), width) {
                (Element::U8, height, 1) => self.tier.gemv_kernel(w.layout(), height).name,
                (Element::U8, height, 4 | 8) => self.tier.few_kernel(w.layout(), height, width).name,
                (Element::U8, height, _) => {
                    let tall =
                        if width == 64 && w.is_tall() { self.tier.tall_kernel(w.layout()) } else { None };
                    tall.unwrap_or_else(|| self.tier.sparse_kernel(w.layout(), height, width)).name
                }
                (element, 0, _) => self.tier.floats(element).scatter(width).name,
                (element, height, _) => {
                    let kernels = self.tier.floats(element);
                    let two = kernels.panels() == 2 && tokens >= 2 * width;
                    if two { kernels.two(height).name } else { kernels.gather(height, width).name }
                }
            },
        }
    }

    /// Of a block-sparse layer of INT8: the fraction of pruned weights below which weights of this pattern run as dense ones, because
    /// they are faster so on the core that the layer was packed for.
    pub fn dense_below(&self) -> Option<f64> {
        self.dense_below
    }

    /// Whether weights are packed as those of a dense layer.
    pub fn is_dense(&self) -> bool {
        matches!(self.weights, Packed::Dense(..))
    }

    /// Values that are stored: all of a dense weight, the blocks of a sparse one (without what lies beyond the edge).
    pub fn stored_values(&self) -> usize {
        self.stored
    }

    /// Bytes of the packed weights and their indices.
    pub fn packed_bytes(&self) -> usize {
        match &self.weights {
            Packed::Dense(w, _) => w.bytes(),
            Packed::Sparse(w) => w.bytes(),
        }
    }
}
