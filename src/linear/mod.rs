//! INT8 linear layers, dense and block-sparse: `y = epilogue(x · wᵀ)`, as in a PyTorch `Linear`.
//!
//! x is `[M tokens, K in_features]`, w is `[N out_features, K]`, y is `[M, N]`. Weights are packed once, when the layer
//! is built; a call packs or quantizes x, multiplies, and finishes each output in a fixed order (see [`Epilogue`]).
//! The sums are exact: `sum over k of (x - x_zero_point) * (w - w_zero_point)` in i32, on every CPU.
//!
//! ```
//! use siskin::linear::{Epilogue, Input, Linear, OnTheFly, Output};
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
//! layer.forward(
//!     Input::F32(MatRef::new(&x, 2, 16)?, OnTheFly::PerToken),
//!     Epilogue::new(),
//!     Output::F32(MatMut::new(&mut y, 2, 8)?),
//!     &ctx,
//!     &mut Scratch::new(),
//! )?;
//! # Ok::<(), siskin::Error>(())
//! ```

mod builder;
mod epilogue;
mod forward;
mod io;
mod packed;

pub use crate::kernels::panel::PanelLayout;
pub use crate::kernels::weights::{MAX_FEATURES, MAX_FEATURES_ZERO_POINTS};
pub use builder::{Builder, MAX_OUT_FEATURES};
pub use epilogue::{Activation, ByteTable, Epilogue, Residual, gelu_table, gelu_tanh_table, silu_table};
pub use io::{Input, OnTheFly, Output};
pub use packed::PackedActivations;

use crate::isa::Isa;
use crate::kernels::table::{Layout, Tier};
use crate::kernels::weights::{Dense, Sparse};

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
}

#[derive(Debug, Clone)]
enum Packed {
    Dense(Dense),
    Sparse(Sparse),
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

    /// The layout of x that needs no further packing.
    pub fn input_layout(&self) -> PanelLayout {
        match &self.weights {
            Packed::Dense(_) => PanelLayout::Rows,
            Packed::Sparse(w) => match w.layout() {
                Layout::Lines => PanelLayout::Lines,
                Layout::Quads => PanelLayout::Quads,
            },
        }
    }

    /// The name of the kernel that multiplies `tokens` tokens (most of them, where a tail goes to another).
    pub fn kernel(&self, tokens: usize) -> &'static str {
        match &self.weights {
            Packed::Dense(w) => w.kernel().name,
            Packed::Sparse(w) => match tokens {
                1 => self.tier.token_kernel(w.layout(), w.height()).name,
                2..=32 => self.tier.sparse_kernel(w.layout(), w.height(), 16).name,
                _ => self.tier.sparse_kernel(w.layout(), w.height(), 64).name,
            },
        }
    }

    /// Values that are stored: all of a dense weight, the blocks of a sparse one (without what lies beyond the edge).
    pub fn stored_values(&self) -> usize {
        self.stored
    }

    /// Bytes of the packed weights and their indices.
    pub fn packed_bytes(&self) -> usize {
        match &self.weights {
            Packed::Dense(w) => w.bytes(),
            Packed::Sparse(w) => w.bytes(),
        }
    }
}
