//! What attention costs in additions, multiplications and energy, as EcoFormer's authors count it.
//!
//! The counts are those of the authors' code (`pvt/get_energy.py`), exact. Of a layer of N tokens, H heads of D
//! features, b bits and m anchors:
//!
//! | | multiplications | additions |
//! |---|---|---|
//! | [`softmax`] | `2 N² H D + H N²` | `2 N² H D` |
//! | [`ecoformer`] | `2 H N m + H N m b + H N b + H N + H N D` | `2 H N m D + H N m b + 2 H N b + 2 H N b D + H N D` |
//!
//! An operation costs what it does in f32 at 45 nm: 3.7 pJ or 7,700 µm² a multiplication, 0.9 pJ or 4,184 µm² an
//! addition. This is a model of hardware that adds only where it need not multiply. It says nothing of memory, and
//! nothing of the time of a CPU, whose fused multiply-add costs what its addition does.
//!
//! # What the authors leave out
//!
//! The squarings of the kernel's distances, the normalization of tokens, and the sum of the bandwidth are not counted
//! as [`ecoformer`]'s: [`uncounted`] has them. Both sides leave out exponentials, roots and divisions by a norm. The
//! baseline of Twins takes every block of its first three stages for attention over all tokens; half of them attend
//! within windows of 7 x 7, so that what Twins saves is overstated.
//!
//! ```
//! use siskin::ecoformer::energy::{self, Attention, Layer, Model};
//!
//! let layer = Layer::new(3136, 1, 32)?; // tokens, heads, head_dim
//! assert_eq!(energy::softmax(&layer).multiplications, 639_242_240);
//! assert_eq!(energy::ecoformer(&layer, 16, 25).multiplications, 1_564_864);
//!
//! let b0 = Model::named("pvtv2-b0").expect("a known model");
//! let [eco, softmax] = [Attention::PUBLISHED, Attention::Softmax].map(|a| b0.counts(a).energy_pj());
//! assert_eq!(format!("{:.3} of {:.3} G pJ", eco / 1e9, softmax / 1e9), "2.489 of 9.253 G pJ");
//! # Ok::<(), siskin::Error>(())
//! ```

pub use super::models::{Attention, Model, Stage};
use crate::base::error::{Error, Result};
use std::iter::Sum;
use std::ops::{Add, Mul};

/// The most tokens, heads, or features of a head that a [`Layer`] has: no count overflows.
pub const MAX_SIZE: usize = 1 << 24;

/// An attention layer's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    tokens: u128,
    heads: u128,
    head_dim: u128,
}

impl Layer {
    /// `tokens` tokens, `heads` heads of `head_dim` features each.
    ///
    /// # Errors
    /// [`Error::Value`] if one of them is above [`MAX_SIZE`].
    pub fn new(tokens: usize, heads: usize, head_dim: usize) -> Result<Self> {
        for (name, size) in [("tokens", tokens), ("heads", heads), ("head_dim", head_dim)] {
            if size > MAX_SIZE {
                return Err(Error::value(name, format_args!("at most {MAX_SIZE}"), size));
            }
        }
        Ok(Self { tokens: tokens as u128, heads: heads as u128, head_dim: head_dim as u128 })
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads as usize
    }

    /// Features of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim as usize
    }
}

/// Operations of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Multiplications.
    pub multiplications: u128,
    /// Additions.
    pub additions: u128,
}

impl Counts {
    /// 3.7 pJ a multiplication and 0.9 pJ an addition, rounded once.
    pub fn energy_pj(&self) -> f64 {
        (37 * self.multiplications + 9 * self.additions) as f64 / 10.0
    }

    /// 7,700 µm² a multiplication and 4,184 µm² an addition.
    pub fn area_um2(&self) -> u128 {
        7700 * self.multiplications + 4184 * self.additions
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            multiplications: self.multiplications + other.multiplications,
            additions: self.additions + other.additions,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// So many layers of one kind.
impl Mul<u32> for Counts {
    type Output = Self;

    fn mul(self, layers: u32) -> Self {
        let layers = u128::from(layers);
        Self { multiplications: self.multiplications * layers, additions: self.additions * layers }
    }
}

/// Of softmax attention over all tokens: scores, weights, context. Projections are not in it.
pub fn softmax(layer: &Layer) -> Counts {
    let Layer { tokens, heads, head_dim } = *layer;
    let pairs = heads * tokens * tokens;
    Counts { multiplications: pairs * (2 * head_dim + 1), additions: pairs * 2 * head_dim }
}

/// Of EcoFormer's attention, with so many bits of code and anchors: hash, codes, context. Projections are not in it.
pub fn ecoformer(layer: &Layer, bits: u32, anchors: u32) -> Counts {
    let Layer { tokens, heads, head_dim } = *layer;
    let (rows, b, m) = (heads * tokens, u128::from(bits), u128::from(anchors));
    Counts {
        multiplications: rows * (2 * m + m * b + b + 1 + head_dim),
        additions: rows * (2 * m * head_dim + m * b + 2 * b + 2 * b * head_dim + head_dim),
    }
}

/// What [`ecoformer`] leaves out: a squaring for each token, anchor and feature; of the normalization two
/// multiplications for each token and feature, and the additions of the norm; the additions of the mean distance,
/// which is the bandwidth.
pub fn uncounted(layer: &Layer, anchors: u32) -> Counts {
    let Layer { tokens, heads, head_dim } = *layer;
    let (rows, m) = (heads * tokens, u128::from(anchors));
    Counts { multiplications: rows * head_dim * (m + 2), additions: rows * (head_dim.saturating_sub(1) + m) }
}
