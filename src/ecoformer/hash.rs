//! The kernelized hash: tokens to binary codes.

use super::{BitCodes, Learned};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::heads::HeadsRef;
use crate::base::scratch::Scratch;
use crate::base::sequences::Sequences;
use crate::driver::ecoformer::{Encode, Hash};
use crate::driver::tensor::MAX_HEAD_DIM;

/// The most anchors of a head.
const MAX_ANCHORS: usize = 4096;

/// Where the bandwidth sigma of the kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bandwidth {
    /// Of each sequence and head its own: the mean squared distance of its tokens to the anchors, as the originals have it. So each
    /// token's code depends on all tokens of its sequence.
    #[default]
    Sequence,
    /// That of the fit, [`KernelHash::sigma`]: a token's code depends on nothing else, as decode and padding need it.
    Frozen,
}

/// What became of some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// How many heads of tokens have no direction: the square of their norm is 0 (as of a norm below 2e-23), beyond the floats (as
    /// of one above 1.8e19), or NaN. They count as vectors of zeros.
    pub without_direction: usize,
}

/// A learned hash (EcoFormer, section 4.1; `pvt/hashing/ksh.py` of its code), with parts of its own for each head:
///
/// ```text
/// x      = x / |x|
/// kappa  = exp(-|x - anchor_i|² / (2 sigma)) - centring_i      for each anchor i
/// y      = projection kappa
/// bit b  = y_b > 0                                             1 for +1, 0 for -1
/// ```
///
/// Distances are taken by `|x|² + |a|² - 2 x·a`. A token without a direction counts as a vector of zeros, in its own code and in its
/// sequence's sigma; the originals make NaN of the whole sequence. No y is NaN.
///
/// ```
/// use siskin::ecoformer::{Bandwidth, BitCodes, FitOptions, KernelHash, Sequences, fit};
/// use siskin::{Ctx, HeadsRef, Scratch};
///
/// let x: Vec<f32> = (0..40 * 8).map(|i| ((i * i) as f32 * 0.37).sin()).collect(); // 40 tokens, 1 head of 8 features
/// let x = HeadsRef::new(&x, 40, 1, 8)?;
/// let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
/// let learned = fit(&[x], &FitOptions::default().anchors(10), &ctx)?;
/// let hash = KernelHash::new(learned)?;
///
/// let mut codes = BitCodes::with_capacity(40, hash.bits())?;
/// hash.encode(x, &Sequences::own(1, 40), Bandwidth::Sequence, &mut codes, &ctx, &mut scratch)?;
/// assert_eq!((codes.len(), codes.bits()), (40, 16));
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KernelHash {
    hash: Hash<'static>,
    sigma: Option<Vec<f32>>,
}

impl KernelHash {
    /// What was learned, with its bandwidth.
    ///
    /// # Errors
    /// As [`KernelHash::from_parts`] and [`KernelHash::with_sigma`].
    pub fn new(learned: Learned) -> Result<Self> {
        let Learned { heads, head_dim, anchors, centring, projection, sigma, .. } = learned;
        Self::from_parts(heads, head_dim, anchors, centring, projection)?.with_sigma(sigma)
    }

    /// The tensors of a checkpoint: anchors `[heads, m, head_dim]` (its `anchor`), centring `[heads, m]` (its `mvec`), projection
    /// `[heads, bits, m]` (its `A`). m and the number of bits follow from the lengths. There is no frozen bandwidth then.
    ///
    /// # Errors
    /// [`Error::Shape`] if lengths do not fit each other, or there are no heads; [`Error::Value`] if a head has not 1 to 256 features,
    /// 1 to 4096 anchors and 1 to 256 bits; [`Error::Index`] for a number that is not finite, or an anchor the square of whose norm
    /// is not.
    pub fn from_parts(
        heads: usize,
        head_dim: usize,
        anchors: Vec<f32>,
        centring: Vec<f32>,
        projection: Vec<f32>,
    ) -> Result<Self> {
        if heads == 0 {
            return Err(Error::shape("heads", "at least 1", heads));
        }
        check_head_dim(head_dim)?;
        let of_head = |name, len: usize, each: usize| match len.is_multiple_of(heads)
            && (len / heads).is_multiple_of(each)
        {
            true => Ok(len / heads / each),
            false => Err(Error::shape(name, format_args!("{heads} heads of a multiple of {each}"), len)),
        };
        let m = of_head("anchors", anchors.len(), head_dim)?;
        if !(1..=MAX_ANCHORS).contains(&m) {
            return Err(Error::value("anchors", format_args!("1 to {MAX_ANCHORS} of a head"), m));
        }
        if centring.len() != heads * m {
            return Err(Error::shape(
                "centring",
                format_args!("{heads} heads of {m} anchors"),
                centring.len(),
            ));
        }
        let bits = of_head("projection", projection.len(), m)?;
        super::codes::check_bits(bits)?;
        for (name, part) in [("anchors", &anchors), ("centring", &centring), ("projection", &projection)] {
            if let Some(i) = part.iter().position(|x| !x.is_finite()) {
                return Err(Error::index(name, i, "a finite number", part[i]));
            }
        }
        let square = |anchor: &[f32]| -> f64 { anchor.iter().map(|&x| f64::from(x) * f64::from(x)).sum() };
        let squares: Vec<f32> = anchors.chunks_exact(head_dim).map(|anchor| square(anchor) as f32).collect();
        // So no inner product with a token that has a direction can overflow.
        if let Some(i) = squares.iter().position(|square| !square.is_finite()) {
            return Err(Error::index(
                "anchors",
                i * head_dim,
                "an anchor of a finite squared norm",
                squares[i],
            ));
        }
        let mean_square = |anchors: &[f32]| square(anchors) / m as f64;
        let mut mean = vec![0.0; heads * head_dim];
        for (mean, anchors) in mean.chunks_exact_mut(head_dim).zip(anchors.chunks_exact(m * head_dim)) {
            for anchor in anchors.chunks_exact(head_dim) {
                mean.iter_mut().zip(anchor).for_each(|(mean, &x)| *mean += f64::from(x));
            }
            mean.iter_mut().for_each(|mean| *mean /= m as f64);
        }
        let hash = Hash {
            heads,
            head_dim,
            anchors_per_head: m,
            bits,
            squares: squares.into(),
            mean: mean.into(),
            mean_square: anchors.chunks_exact(m * head_dim).map(mean_square).collect(),
            anchors: anchors.into(),
            centring: centring.into(),
            projection: projection.into(),
        };
        Ok(Self { hash, sigma: None })
    }

    /// With the bandwidth of each head that [`Bandwidth::Frozen`] takes.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many as heads; [`Error::Index`] for one that is not a positive number.
    pub fn with_sigma(mut self, sigma: Vec<f32>) -> Result<Self> {
        if sigma.len() != self.hash.heads {
            return Err(Error::shape("sigma", format_args!("{} heads", self.hash.heads), sigma.len()));
        }
        if let Some(i) = sigma.iter().position(|sigma| !(sigma.is_finite() && *sigma > 0.0)) {
            return Err(Error::index("sigma", i, "a positive number", sigma[i]));
        }
        self.sigma = Some(sigma);
        Ok(self)
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.hash.heads
    }

    /// Features of a head.
    pub fn head_dim(&self) -> usize {
        self.hash.head_dim
    }

    /// Anchors of a head.
    pub fn anchors_per_head(&self) -> usize {
        self.hash.anchors_per_head
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.hash.bits
    }

    /// `[heads, anchors_per_head, head_dim]`.
    pub fn anchors(&self) -> &[f32] {
        &self.hash.anchors
    }

    /// `[heads, anchors_per_head]`.
    pub fn centring(&self) -> &[f32] {
        &self.hash.centring
    }

    /// `[heads, bits, anchors_per_head]`.
    pub fn projection(&self) -> &[f32] {
        &self.hash.projection
    }

    /// The frozen bandwidth of each head, if there is one.
    pub fn sigma(&self) -> Option<&[f32]> {
        self.sigma.as_deref()
    }

    /// The codes of x, `[tokens, heads, head_dim]`, in place of those that were there: head by head, so the code of head h and token
    /// t is number `h * tokens + t`. Bit-identical on every tier and for any number of threads; with a frozen bandwidth also for any
    /// division into sequences. No tokens give no codes.
    ///
    /// # Errors
    /// [`Error::Shape`] if x has other heads, the sequences are not those of x (with as many keys as queries each), or it all does not
    /// fit memory; [`Error::Index`] if `cu_seqlens` are wrong; [`Error::Unsupported`] if the bandwidth is to be frozen and there is
    /// none. The codes are as they were then.
    pub fn encode(
        &self,
        x: HeadsRef<'_, f32>,
        sequences: &Sequences<'_>,
        bandwidth: Bandwidth,
        codes: &mut BitCodes,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<Encoded> {
        let Hash { heads, head_dim, bits, .. } = self.hash;
        if (x.heads(), x.head_dim()) != (heads, head_dim) {
            let expected = format_args!("{heads} heads of {head_dim} features");
            return Err(Error::shape("x", expected, format_args!("{} of {}", x.heads(), x.head_dim())));
        }
        sequences.check(x.tokens(), x.tokens())?;
        sequences.check_own()?;
        let sigma = match (bandwidth, &self.sigma) {
            (Bandwidth::Sequence, _) => None,
            (Bandwidth::Frozen, Some(sigma)) => Some(&sigma[..]),
            (Bandwidth::Frozen, None) => {
                return Err(Error::unsupported("bandwidth", "a hash with sigma", "one without"));
            }
        };
        let call = Encode { hash: &self.hash, sigma, x: x.into(), sequences: *sequences };
        // Both find out whether there is enough memory before any code is written.
        codes.try_reserve(heads, x.tokens(), bits)?;
        let prepared = call.prepare(ctx, scratch)?;
        let codes = codes.reset(heads * x.tokens(), bits);
        Ok(Encoded { without_direction: prepared.run(codes) })
    }
}

pub(super) fn check_head_dim(head_dim: usize) -> Result<()> {
    if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
        return Err(Error::value("head_dim", format_args!("1 to {MAX_HEAD_DIM}"), head_dim));
    }
    Ok(())
}
