//! Binary codes: packed bits, distances between them, and the nearest of them.

use crate::base::ctx::Ctx;
use crate::base::element::ElementType;
use crate::base::error::{Error, Result};
use crate::base::scratch::Scratch;
use crate::base::view::{MatMut, MatRef};
use crate::driver::codes::{self, Operand, Short};

/// Codes of as many bits each, 1 to 256: the signs that a hash gives, or any other.
///
/// A bit is 1 for +1 and 0 for -1. A code is whole words: bit b is bit `b % 64` of word `b / 64`, and what the last word has
/// beyond the last bit is 0; so a code is also `bits.div_ceil(64) * 8` little-endian bytes. Codes follow each other.
///
/// ```
/// use siskin::ecoformer::BitCodes;
/// use siskin::{Ctx, MatMut, MatRef, Scratch};
///
/// let y = [0.5, -1.0, 2.0, 0.0, 0.1, 3.0]; // two codes of three bits
/// let codes = BitCodes::from_signs(MatRef::new(&y, 2, 3)?)?;
/// assert_eq!((codes.code(0), codes.code(1)), (&[0b101][..], &[0b110][..]));
///
/// let (ctx, mut scratch) = (Ctx::new()?, Scratch::new());
/// let mut distances = [0u16; 4];
/// codes.hamming(&codes, MatMut::new(&mut distances, 2, 2)?, &ctx, &mut scratch)?;
/// assert_eq!(distances, [0, 2, 2, 0]);
/// # Ok::<(), siskin::Error>(())
/// ```
///
/// # Between codes
///
/// [`hamming`](Self::hamming), [`inner_products`](Self::inner_products) and [`similarities`](Self::similarities) fill a matrix
/// `[self.len(), other.len()]`; [`nearest`](Self::nearest) never forms it. All are exact, so the same on every tier and for any
/// number of threads; they allocate nothing after the first call with the same [`Scratch`], and return
///
/// * [`Error::Shape`] if the codes have not as many bits, or an output does not fit them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitCodes {
    words: Vec<u64>,
    len: usize,
    bits: usize,
}

impl BitCodes {
    /// The most bits of a code.
    pub const MAX_BITS: usize = 256;

    /// The index that [`BitCodes::nearest`] leaves where there is no such neighbour.
    pub const NONE: u32 = u32::MAX;

    /// No codes of `bits` bits, with room for `len`.
    ///
    /// # Errors
    /// [`Error::Value`] if `bits` is not 1 to 256; [`Error::Shape`] if so many codes do not fit memory.
    pub fn with_capacity(len: usize, bits: usize) -> Result<Self> {
        check_bits(bits)?;
        let mut words = Vec::new();
        let room = len.checked_mul(bits.div_ceil(64)).map(|n| words.try_reserve_exact(n).is_ok());
        if room != Some(true) {
            return Err(Error::shape(
                "len",
                "as many codes as fit memory",
                format_args!("{len} of {bits} bits"),
            ));
        }
        Ok(Self { words, len: 0, bits })
    }

    /// Codes that are packed already.
    ///
    /// # Errors
    /// [`Error::Value`] if `bits` is not 1 to 256; [`Error::Shape`] if `words` is not a whole number of codes;
    /// [`Error::Index`] for a word with a bit beyond the last of its code.
    pub fn from_words(words: Vec<u64>, bits: usize) -> Result<Self> {
        check_bits(bits)?;
        let each = bits.div_ceil(64);
        if !words.len().is_multiple_of(each) {
            return Err(Error::shape(
                "words",
                format_args!("a multiple of {each} words, for codes of {bits} bits"),
                words.len(),
            ));
        }
        let beyond = if bits.is_multiple_of(64) { 0 } else { u64::MAX << (bits % 64) };
        let bad = words.iter().skip(each - 1).step_by(each).position(|word| word & beyond != 0);
        if let Some(code) = bad {
            let at = code * each + each - 1;
            return Err(Error::index(
                "words",
                at,
                format_args!("zeros beyond bit {} of a code", bits - 1),
                format_args!("{:#018x}", words[at]),
            ));
        }
        Ok(Self { len: words.len() / each, words, bits })
    }

    /// The signs of `y`, `[codes, bits]`: bit b of code i is whether `y[i, b] > 0`, which no zero and no NaN is.
    ///
    /// # Errors
    /// [`Error::Value`] if `y` has not 1 to 256 columns; [`Error::Shape`] if so many codes do not fit memory.
    pub fn from_signs<T: ElementType + PartialOrd>(y: MatRef<'_, T>) -> Result<Self> {
        let mut codes = Self::with_capacity(y.rows(), y.cols())?;
        codes.set_signs(y)?;
        Ok(codes)
    }

    /// As [`BitCodes::from_signs`], in place of the codes that were there: allocates only what there is no room for.
    ///
    /// # Errors
    /// As [`BitCodes::from_signs`]; the codes are as they were then.
    pub fn set_signs<T: ElementType + PartialOrd>(&mut self, y: MatRef<'_, T>) -> Result<()> {
        check_bits(y.cols())?;
        let each = y.cols().div_ceil(64);
        self.try_reserve(1, y.rows(), y.cols())?;
        let words = self.reset(y.rows(), y.cols());
        for (code, row) in words.chunks_exact_mut(each).zip(y.iter_rows()) {
            for (word, signs) in code.iter_mut().zip(row.chunks(64)) {
                *word = signs.iter().rev().fold(0, |bits, sign| bits << 1 | u64::from(*sign > T::default()));
            }
        }
        Ok(())
    }

    /// Room for the codes of all heads' tokens, of `bits` bits, which are 1 to 256. The codes stay as they are.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit memory.
    pub(super) fn try_reserve(&mut self, heads: usize, tokens: usize, bits: usize) -> Result<()> {
        let words = heads.checked_mul(tokens).and_then(|len| len.checked_mul(bits.div_ceil(64)));
        let more = words.map(|words| words.saturating_sub(self.words.len()));
        match more.map(|more| self.words.try_reserve(more).is_ok()) {
            Some(true) => Ok(()),
            _ => Err(Error::shape("x", "as many tokens as fit memory", tokens)),
        }
    }

    /// `len` codes of `bits` bits, which are 1 to 256, all 0: their words, whose bits beyond the last of a code must stay 0.
    pub(super) fn reset(&mut self, len: usize, bits: usize) -> &mut [u64] {
        (self.len, self.bits) = (len, bits);
        self.words.clear();
        self.words.resize(len * bits.div_ceil(64), 0);
        &mut self.words
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All words, `[codes, bits.div_ceil(64)]`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words of code `i`.
    ///
    /// # Panics
    /// If `i >= len`.
    pub fn code(&self, i: usize) -> &[u64] {
        let each = self.bits.div_ceil(64);
        &self.words[i * each..][..each]
    }

    /// Bit `b` of code `i`.
    ///
    /// # Panics
    /// If `i >= len` or `b >= bits`.
    pub fn bit(&self, i: usize, b: usize) -> bool {
        assert!(b < self.bits, "bit {b} of {}", self.bits);
        self.code(i)[b / 64] >> (b % 64) & 1 == 1
    }

    /// `[codes, bits]`, each bit as +1 or -1.
    pub fn to_signs(&self) -> Vec<i8> {
        let code = |i| (0..self.bits).map(move |b| if self.bit(i, b) { 1 } else { -1 });
        (0..self.len).flat_map(code).collect()
    }

    /// The Hamming distance of each code to each of `other`, 0 to `bits`.
    ///
    /// # Errors
    /// As [above](Self#between-codes).
    pub fn hamming(
        &self,
        other: &BitCodes,
        out: MatMut<'_, u16>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.pairwise(other, None, out, ctx, scratch)
    }

    /// The inner product of each code with each of `other`, as vectors of +1 and -1: `bits - 2 * distance`.
    ///
    /// # Errors
    /// As [above](Self#between-codes).
    pub fn inner_products(
        &self,
        other: &BitCodes,
        out: MatMut<'_, i16>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.pairwise(other, Some(self.bits as u16), out, ctx, scratch)
    }

    /// EcoFormer's similarity of each code to each of `other`, the inner product + `bits` + 1, from 1 to `2 * bits + 1`: what its
    /// attention weighs values by (Liu et al., NeurIPS 2022, with the bias of their code).
    ///
    /// # Errors
    /// As [above](Self#between-codes).
    pub fn similarities(
        &self,
        other: &BitCodes,
        out: MatMut<'_, u16>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.pairwise(other, Some(2 * self.bits as u16 + 1), out, ctx, scratch)
    }

    fn pairwise<T: Short>(
        &self,
        other: &BitCodes,
        from: Option<u16>,
        out: MatMut<'_, T>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.check_bits_of(other)?;
        check_shape("out", &out, self.len, other.len)?;
        let [panels] = scratch.slots();
        codes::pairwise(self.operand(), other.operand(), from, out, ctx, panels);
        Ok(())
    }

    /// The k codes of `other` that are nearest to each code, where k is the width of the outputs `[self.len(), k]`: their
    /// numbers and Hamming distances, nearest first, and of those as near the lower number first. Where `other` has fewer
    /// codes than k, the rest of a row is [`BitCodes::NONE`], its distances `u16::MAX`.
    ///
    /// # Errors
    /// As [above](Self#between-codes), and if k is 0, the outputs differ in width, or `other` has 2^32 - 1 codes or more.
    pub fn nearest(
        &self,
        other: &BitCodes,
        indices: MatMut<'_, u32>,
        distances: MatMut<'_, u16>,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.check_bits_of(other)?;
        let k = indices.cols();
        if k == 0 {
            return Err(Error::shape("indices", "at least 1 column", k));
        }
        check_shape("indices", &indices, self.len, k)?;
        check_shape("distances", &distances, self.len, k)?;
        if u32::try_from(other.len).is_ok_and(|n| n != Self::NONE) {
            let memory = scratch.slots();
            codes::nearest(self.operand(), other.operand(), indices, distances, ctx, memory);
            return Ok(());
        }
        Err(Error::shape("other", format_args!("fewer than {} codes", Self::NONE), other.len))
    }

    fn operand(&self) -> Operand<'_> {
        Operand { words: &self.words, len: self.len, bits: self.bits }
    }

    fn check_bits_of(&self, other: &BitCodes) -> Result<()> {
        if other.bits != self.bits {
            return Err(Error::shape(
                "other",
                format_args!("codes of {} bits", self.bits),
                format_args!("codes of {}", other.bits),
            ));
        }
        Ok(())
    }
}

pub(super) fn check_bits(bits: usize) -> Result<()> {
    if !(1..=BitCodes::MAX_BITS).contains(&bits) {
        return Err(Error::value("bits", format_args!("1 to {}", BitCodes::MAX_BITS), bits));
    }
    Ok(())
}

fn check_shape<T: ElementType>(
    name: &'static str,
    out: &MatMut<'_, T>,
    rows: usize,
    cols: usize,
) -> Result<()> {
    if (out.rows(), out.cols()) != (rows, cols) {
        let got = format_args!("{} x {}", out.rows(), out.cols());
        return Err(Error::shape(name, format_args!("{rows} x {cols}"), got));
    }
    Ok(())
}
