//! The loops of EcoFormer around its matrix products: tokens to features to bits, and sums of signed rows looked up
//! by the bits of a code.
//!
//! ```text
//! features: f[a][t]   = exp(-|x_t / |x_t| - anchor_a|^2 / (2 sigma)) - centring[a]
//! signs:    bit t of masks[b] = y[b][t] > 0
//! lookup:   out[t][c] = factors[t] * (base[c] + own_factor * own[t][c]
//!                                     + sum over groups g:  table[g][bits g of code[t]][c])
//! tables:   table[g][value][c] = sum over i in 0..4:  (bit i of value ? +1 : -1) * rows[4 g + i][c]
//! ```
//!
//! A group is 4 bits of a code; a panel is 64 tokens. The loops that are not written over `Simd` are plain Rust, left
//! to the compiler to vectorize.

use super::attention::PANEL;
use super::attention::exponentials::{Exact, exp2};
use super::simd::Simd;

/// Bits of a code that select a row of a table.
pub const GROUP: usize = 4;

/// A panel of tokens and the anchors of a head.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// `[anchors][PANEL]`: inner products of anchors and tokens, which are replaced by features.
    pub rows: *mut f32,
    /// The number of anchors.
    pub anchors: usize,
    /// The inverse norm of each token; 0 for a token that has no direction.
    pub inverse: *const f32,
    /// The squared norm of each anchor.
    pub squares: *const f32,
    /// What is subtracted from the features of each anchor.
    pub centring: *const f32,
    /// `-log2(e) / (2 sigma)`.
    pub rate: f32,
}

/// `exp(-|x / |x| - a|^2 / (2 sigma))`, centred, for all anchors a and tokens x.
#[inline(always)]
pub unsafe fn features<S: Simd>(f: &Features) {
    // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
    unsafe {
        let zero = S::splat_f(0.0);
        let smallest = S::splat_f(f32::MIN_POSITIVE);
        for token in (0..PANEL).step_by(4 * S::LANES) {
            let (mut inverse, mut square) = ([zero; 4], [zero; 4]);
            for i in 0..4 {
                inverse[i] = S::load_f(f.inverse.add(token + i * S::LANES));
                square[i] = S::at_least(S::splat_f(1.0), inverse[i], smallest);
            }
            for anchor in 0..f.anchors {
                let at = f.rows.add(anchor * PANEL + token);
                let mut distance = [zero; 4];
                for i in 0..4 {
                    // A product with a token that has no direction may be anything: it is replaced by 0.
                    let product = S::at_least(S::load_f(at.add(i * S::LANES)), inverse[i], smallest);
                    let cosine = S::mul_f(product, inverse[i]);
                    let squares = S::add_f(square[i], S::splat_f(*f.squares.add(anchor)));
                    distance[i] = S::max_f(S::fma(cosine, S::splat_f(-2.0), squares), zero);
                }
                let similarity = exp2::<S, Exact, 4>(distance, f.rate);
                for i in 0..4 {
                    let centred = S::sub_f(similarity[i], S::splat_f(*f.centring.add(anchor)));
                    S::store_f(at.add(i * S::LANES), centred);
                }
            }
        }
    }
}

/// Sets bit t of `masks[b]` to whether `y[b][t] > 0`, for `y` of `[bits][PANEL]`.
#[inline(always)]
pub unsafe fn signs<S: Simd>(y: *const f32, bits: usize, masks: *mut u64) {
    // SAFETY: the caller vouches for the tier, for `bits` rows of a panel at `y`, and as many masks.
    unsafe {
        for b in 0..bits {
            let mut mask = 0;
            for token in (0..PANEL).step_by(S::LANES) {
                // The maximum of NaN and 0 is 0.
                let above = S::max_f(S::load_f(y.add(b * PANEL + token)), S::splat_f(0.0));
                mask |= u64::from(S::nonzero(S::as_v(above))) << token;
            }
            *masks.add(b) = mask;
        }
    }
}

/// Tables of sums, and the codes that look them up.
#[derive(Debug, Clone, Copy)]
pub struct Lookup {
    /// `[groups][16][columns]`: for each value of [`GROUP`] bits, the sum of as many rows, each added where its bit
    /// is set and subtracted where it is not.
    pub table: *const f32,
    /// The number of groups of bits.
    pub groups: usize,
    /// The number of columns: a multiple of 16.
    pub columns: usize,
    /// The code of the first token.
    pub codes: *const u64,
    /// Words of 64 bits of a code.
    pub words: usize,
    /// The number of tokens.
    pub tokens: usize,
    /// Null, or a row that is added to the sums of every token.
    pub base: *const f32,
    /// Null, or the first token's own row, which is added to its sums, times `own_factor`.
    pub own: *const u8,
    /// Bytes from the own row of a token to that of the next.
    pub own_stride: usize,
    /// The factor of own rows.
    pub own_factor: f32,
    /// Null, or the factor that the sums of each token are multiplied with at the end.
    pub factors: *const f32,
    /// The sums of the first token.
    pub out: *mut u8,
    /// Bytes from the sums of a token to those of the next.
    pub out_stride: usize,
}

/// The sums of all tokens: those of the groups are added in order, then the base, then the token's own row.
#[inline(always)]
pub unsafe fn lookup<S: Simd>(l: &Lookup) {
    // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
    unsafe {
        let mut column = 0;
        while column + 4 * S::LANES <= l.columns {
            columns::<S, 4>(l, column);
            column += 4 * S::LANES;
        }
        while column < l.columns {
            columns::<S, 1>(l, column);
            column += S::LANES;
        }
    }
}

/// `N` registers of columns of all tokens, from `column` on.
#[inline(always)]
unsafe fn columns<S: Simd, const N: usize>(l: &Lookup, column: usize) {
    // SAFETY: the caller of `lookup` vouches for the tier, and for the memory that `l` describes.
    unsafe {
        let own_factor = S::splat_f(l.own_factor);
        let table = l.table.add(column);
        for token in 0..l.tokens {
            let code = l.codes.add(token * l.words);
            let mut sums = [S::splat_f(0.0); N];
            for group in 0..l.groups {
                let value = (*code.add(group / 16) >> (GROUP * (group % 16)) & 15) as usize;
                let row = table.add((16 * group + value) * l.columns);
                for n in 0..N {
                    let part = S::load_f(row.add(n * S::LANES));
                    sums[n] = if group == 0 { part } else { S::add_f(sums[n], part) };
                }
            }
            if !l.base.is_null() {
                for n in 0..N {
                    sums[n] = S::add_f(sums[n], S::load_f(l.base.add(column + n * S::LANES)));
                }
            }
            if !l.own.is_null() {
                let own = l.own.add(token * l.own_stride).cast::<f32>().add(column);
                for n in 0..N {
                    sums[n] = S::fma(own_factor, S::load_f(own.add(n * S::LANES)), sums[n]);
                }
            }
            if !l.factors.is_null() {
                let factor = S::splat_f(*l.factors.add(token));
                for n in 0..N {
                    sums[n] = S::mul_f(sums[n], factor);
                }
            }
            let out = l.out.add(token * l.out_stride).cast::<f32>().add(column);
            for n in 0..N {
                S::store_f(out.add(n * S::LANES), sums[n]);
            }
        }
    }
}

autovec!(
    /// The inverse norms of the tokens of a panel, `[features][PANEL]`; 0 where there is none: for a norm that is 0
    /// or NaN, or that is or would be beyond the floats.
    pub fn inverse_norms(lines: &[f32], inverse: &mut [f32; PANEL]) = inverse_norms_body
);
autovec!(
    /// +1.0 for each bit of the mask that is set, else -1.0.
    pub fn spread(mask: u64, signs: &mut [f32]) = spread_body
);
autovec!(
    /// 1 for each bit of the mask that is set, else 0.
    pub fn spread_bytes(mask: u64, bits: &mut [u8]) = spread_bytes_body
);
autovec!(
    /// The table of [`Lookup`] for `[rows][columns]`.
    pub fn tables(rows: &[f32], columns: usize, table: &mut [f32]) = tables_body
);
autovec!(
    /// Bytes to the integers that they stand for, less the zero point: `(byte ^ flip) as i8 - zero`.
    pub fn centre(bytes: &[u8], flip: u8, zero: i32, out: &mut [f32]) = centre_body
);
autovec!(
    /// `sums += factor * row`, rounded once.
    pub fn add_multiple(factor: f32, row: &[f32], sums: &mut [f32]) = add_multiple_body
);

#[inline(always)]
fn inverse_norms_body(lines: &[f32], inverse: &mut [f32; PANEL]) {
    let mut squares = [0.0f32; PANEL];
    for line in lines.chunks_exact(PANEL) {
        for (square, x) in squares.iter_mut().zip(line) {
            *square = x.mul_add(*x, *square);
        }
    }
    for (inverse, square) in inverse.iter_mut().zip(squares) {
        *inverse = if square > 0.0 && square < f32::INFINITY { 1.0 / square.sqrt() } else { 0.0 };
    }
}

#[inline(always)]
fn spread_body(mask: u64, signs: &mut [f32]) {
    for (t, sign) in signs.iter_mut().enumerate() {
        let minus = !(mask >> t) as u32 & 1;
        *sign = f32::from_bits(1f32.to_bits() | minus << 31);
    }
}

#[inline(always)]
fn spread_bytes_body(mask: u64, bits: &mut [u8]) {
    for (t, bit) in bits.iter_mut().enumerate() {
        *bit = (mask >> t) as u8 & 1;
    }
}

#[inline(always)]
fn tables_body(rows: &[f32], columns: usize, table: &mut [f32]) {
    for (rows, table) in rows.chunks(GROUP * columns).zip(table.chunks_exact_mut(16 * columns)) {
        for (value, sums) in table.chunks_exact_mut(columns).enumerate() {
            for (bit, row) in rows.chunks_exact(columns).enumerate() {
                let sign = if value >> bit & 1 == 1 { 1.0 } else { -1.0 };
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum = if bit == 0 { sign * x } else { *sum + sign * x };
                }
            }
        }
    }
}

#[inline(always)]
fn centre_body(bytes: &[u8], flip: u8, zero: i32, out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = (i32::from((byte ^ flip) as i8) - zero) as f32;
    }
}

#[inline(always)]
fn add_multiple_body(factor: f32, row: &[f32], sums: &mut [f32]) {
    for (sum, x) in sums.iter_mut().zip(row) {
        *sum = factor.mul_add(*x, *sum);
    }
}

autovec!(
    /// Masks of 64 tokens, one a bit, to the codes of the tokens, and back: bit j of word i becomes bit i of word j. A code has `bits`
    /// bits, 64 at most.
    pub fn transpose(words: &mut [u64; 64], to_codes: bool, bits: usize) = transpose_body
);

#[inline(always)]
fn transpose_body(words: &mut [u64; 64], to_codes: bool, bits: usize) {
    if bits > 16 {
        return swap::<32, 64>(words);
    }
    // Four tokens that are 16 apart share a word: 16 words of four 16 x 16 bits.
    let mut four = [0; 16];
    if to_codes {
        four.copy_from_slice(&words[..16]);
        swap::<8, 16>(&mut four);
        for (i, word) in words.iter_mut().enumerate() {
            *word = four[i % 16] >> (i / 16 * 16) & 0xffff;
        }
    } else {
        for (i, four) in four.iter_mut().enumerate() {
            *four = words[i] | words[16 + i] << 16 | words[32 + i] << 32 | words[48 + i] << 48;
        }
        swap::<8, 16>(&mut four);
        words[..16].copy_from_slice(&four);
        words[16..].fill(0);
    }
}

/// Transposes squares of N x N bits that lie side by side in N words: off-diagonal quarters of blocks change places, for blocks of
/// N, N / 2 .. 2 bits. HALF is N / 2.
#[inline(always)]
fn swap<const HALF: usize, const N: usize>(words: &mut [u64; N]) {
    const { assert!(N == 2 * HALF && 64 % N == 0) };
    let mut size = HALF;
    while size > 0 {
        // The lower half of each 2 * size bits.
        let mask = !0 / ((1u64 << size) + 1);
        for block in (0..N).step_by(2 * size) {
            for i in block..block + size {
                let moved = (words[i] >> size ^ words[i + size]) & mask;
                words[i] ^= moved << size;
                words[i + size] ^= moved;
            }
        }
        size /= 2;
    }
}
