//! The loops of EcoFormer around its matrix products: tokens to features to bits, sums of rows by the bits of their codes, and sums
//! looked up by the bits of a code.
//!
//! ```text
//! norms:    squares[t] = |x_t|^2, in 16 lanes
//! features: f[a][t]   = exp(-|x_t / |x_t| - anchor_a|^2 / (2 sigma)) - centring[a]
//! signs:    bit t of masks[b] = y[b][t] > 0
//! add_rows: sums[g][bits g of code[t]][c] += rows[t][c]
//! signed:   out[b][c] = sum over values:  (bit b of the value ? +1 : -1) * sums[group of b][value][c]
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

/// The rows of up to a panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Norms {
    /// The first token's row, of floats.
    pub rows: *const u8,
    /// Bytes from the row of a token to that of the next.
    pub stride: usize,
    /// The number of tokens, 1 to [`PANEL`].
    pub tokens: usize,
    /// Features of a row.
    pub dim: usize,
    /// `[PANEL]`; of tokens that are not there it becomes 0.
    pub squares: *mut f32,
}

/// Lanes in which the squares of a row are added up, before those sums are added in pairs.
const NORM_LANES: usize = 16;

/// The squared norm of each row: feature c is added, by a multiply-add, to lane c % 16; lanes become one of four, and these one, by adding
/// `(0 + 1) + (2 + 3)`.
#[inline(always)]
pub unsafe fn norms<S: Simd>(n: &Norms) {
    // Of four tokens: the sums of four lanes each, [four][token].
    let mut fours = [[[0.0f32; 4]; NORM_LANES / 4]; PANEL / 4];
    let whole = n.tokens / 4;
    // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
    unsafe {
        for (i, fours) in fours[..whole].iter_mut().enumerate() {
            let rows = [0, 1, 2, 3].map(|t| n.rows.add((4 * i + t) * n.stride));
            squares_of_four::<S>(rows, n.dim, fours.as_mut_ptr().cast());
        }
        if whole < n.tokens.div_ceil(4) {
            // The last comes again.
            let rows = [0, 1, 2, 3].map(|t| n.rows.add((4 * whole + t).min(n.tokens - 1) * n.stride));
            squares_of_four::<S>(rows, n.dim, fours[whole].as_mut_ptr().cast());
        }
    }
    let mut squares = [0.0; PANEL];
    for (squares, fours) in squares.as_chunks_mut::<4>().0.iter_mut().zip(&fours) {
        for t in 0..4 {
            squares[t] = (fours[0][t] + fours[1][t]) + (fours[2][t] + fours[3][t]);
        }
    }
    squares[n.tokens..].fill(0.0);
    // SAFETY: the caller has a panel of squares.
    unsafe { n.squares.copy_from_nonoverlapping(squares.as_ptr(), PANEL) };
}

/// The sums of four lanes each of four rows, `[four][row]`.
#[inline(always)]
unsafe fn squares_of_four<S: Simd>(rows: [*const u8; 4], dim: usize, fours: *mut f32) {
    let whole = dim / NORM_LANES * NORM_LANES;
    // SAFETY: the caller of `norms` vouches for the tier and for rows; there is room for 16 sums.
    unsafe {
        let mut sums = [[S::splat_f(0.0); 4]; 4];
        for column in (0..whole).step_by(NORM_LANES) {
            sums = add_squares::<S>(sums, rows, column);
        }
        if whole < dim {
            let (mut tails, mut of_tails) = ([[0.0f32; NORM_LANES]; 4], rows);
            for t in 0..4 {
                let from = rows[t].cast::<f32>().add(whole);
                tails[t].as_mut_ptr().copy_from_nonoverlapping(from, dim - whole);
                of_tails[t] = tails[t].as_ptr().cast();
            }
            sums = add_squares::<S>(sums, of_tails, 0);
        }
        for v in 0..const { NORM_LANES / S::LANES } {
            let mut lanes = [S::splat(0); 4];
            for t in 0..4 {
                lanes[t] = S::as_v(sums[v][t]);
            }
            let lanes = S::transpose4(lanes);
            let even = S::add_f(S::as_f(lanes[0]), S::as_f(lanes[1]));
            let odd = S::add_f(S::as_f(lanes[2]), S::as_f(lanes[3]));
            S::store_f(fours.add(v * S::LANES), S::add_f(even, odd));
        }
    }
}

/// Adds the squares of 16 features of four rows, in registers `[of a row][row]`.
#[inline(always)]
unsafe fn add_squares<S: Simd>(
    mut sums: [[S::F; 4]; 4],
    rows: [*const u8; 4],
    column: usize,
) -> [[S::F; 4]; 4] {
    // SAFETY: the caller vouches for the tier, and for 16 features from `column` on.
    unsafe {
        for v in 0..const { NORM_LANES / S::LANES } {
            for t in 0..4 {
                let x = S::load_f(rows[t].cast::<f32>().add(column + v * S::LANES));
                sums[v][t] = S::fma(x, x, sums[v][t]);
            }
        }
    }
    sums
}

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

/// Rows of tokens, and the codes by which they are added up.
#[derive(Debug, Clone, Copy)]
pub struct AddRows {
    /// The row of the first token, of floats.
    pub rows: *const u8,
    /// Bytes from the row of a token to that of the next.
    pub stride: usize,
    /// The code of the first token.
    pub codes: *const u64,
    /// Words of 64 bits of a code.
    pub words: usize,
    /// The number of tokens: one at least.
    pub tokens: usize,
    /// The number of groups of bits.
    pub groups: usize,
    /// The number of columns: a multiple of 16.
    pub columns: usize,
    /// `[groups]`, [`sums_of_group`] from one to the next, of `[16][columns]`: to the sums of the value that a group's bits have in a
    /// token's code, the token's row is added.
    pub sums: *mut f32,
}

/// Floats from the sums of a group to those of the next: not a power of two, so that sums of one value of several groups do not share a
/// set of the cache.
pub const fn sums_of_group(columns: usize) -> usize {
    16 * columns + 16
}

/// Groups whose sums are added to at once: with 64 columns they are half of a first-level cache, and their bits are in one word.
const GROUPS: usize = 4;

/// Adds the rows of all tokens in their order.
#[inline(always)]
pub unsafe fn add_rows<S: Simd>(a: &AddRows) {
    let whole = a.groups / GROUPS * GROUPS;
    // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
    unsafe {
        for group in (0..whole).step_by(GROUPS) {
            add_to_groups::<S, GROUPS>(a, group);
        }
        for group in whole..a.groups {
            add_to_groups::<S, 1>(a, group);
        }
    }
}

/// As [`add_rows`], to the sums of `G` groups from `group` on.
#[inline(always)]
unsafe fn add_to_groups<S: Simd, const G: usize>(a: &AddRows, group: usize) {
    // SAFETY: as the caller.
    unsafe {
        let mut column = 0;
        while column + 4 * S::LANES <= a.columns {
            add_columns::<S, G, 4>(a, group, column);
            column += 4 * S::LANES;
        }
        while column < a.columns {
            add_columns::<S, G, 1>(a, group, column);
            column += S::LANES;
        }
    }
}

/// `N` registers of columns, from `column` on.
#[inline(always)]
unsafe fn add_columns<S: Simd, const G: usize, const N: usize>(a: &AddRows, group: usize, column: usize) {
    let stride = sums_of_group(a.columns);
    // SAFETY: the caller of `add_rows` vouches for the tier, and for the memory that `a` describes.
    unsafe {
        let (mut row, mut code) = (a.rows.add(4 * column), a.codes.add(GROUP * group / 64));
        let sums = a.sums.add(group * stride + column);
        for _ in 0..a.tokens {
            let bits = *code >> (GROUP * group % 64);
            let mut x = [S::splat_f(0.0); N];
            for n in 0..N {
                x[n] = S::load_f(row.cast::<f32>().add(n * S::LANES));
            }
            for g in 0..G {
                let value = (bits >> (GROUP * g) & 15) as usize;
                let to = sums.add(g * stride + value * a.columns);
                for n in 0..N {
                    let to = to.add(n * S::LANES);
                    S::store_f(to, S::add_f(S::load_f(to), x[n]));
                }
            }
            row = row.wrapping_add(a.stride);
            code = code.wrapping_add(a.words);
        }
    }
}

/// Sums by the values of groups, and sums of signed rows: of what [`AddRows`] leaves the latter, and of these what [`Lookup`] reads.
#[derive(Debug, Clone, Copy)]
pub struct Signed {
    /// The number of bits of a code.
    pub bits: usize,
    /// The number of columns: a multiple of 16.
    pub columns: usize,
    /// `[bits][columns]`: sums of rows, each with the sign that it has by a bit.
    pub rows: *mut f32,
    /// Groups of `[16][columns]`: sums for the values of each group.
    pub values: *mut f32,
    /// Floats from a group to the next.
    pub stride: usize,
}

/// From sums of rows by the values of groups to sums of signed rows, and behind these, as row `bits`, the sum of all rows.
#[inline(always)]
pub unsafe fn signed<S: Simd>(s: &Signed) {
    for first in (0..s.bits).step_by(GROUP) {
        for column in (0..s.columns).step_by(S::LANES) {
            // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
            unsafe {
                let from = s.values.add(first / GROUP * s.stride + column);
                let mut values = [S::splat_f(0.0); 16];
                for value in 0..16 {
                    values[value] = S::load_f(from.add(value * s.columns));
                }
                let mut signed = [S::splat_f(0.0); GROUP];
                (signed[0], values) = pairs::<S, 8>(values);
                (signed[1], values) = pairs::<S, 4>(values);
                (signed[2], values) = pairs::<S, 2>(values);
                (signed[3], values) = pairs::<S, 1>(values);
                let to = s.rows.add(first * s.columns + column);
                for bit in 0..GROUP.min(s.bits - first) {
                    S::store_f(to.add(bit * s.columns), signed[bit]);
                }
                if first == 0 {
                    S::store_f(to.add(s.bits * s.columns), values[0]);
                }
            }
        }
    }
}

/// Sums of values whose order is that of their bits, in pairs that differ in the lowest: all differences added up, which is the signed sum
/// of that bit, and the sum of each pair, which are the values of the bits that are left.
#[inline(always)]
unsafe fn pairs<S: Simd, const PAIRS: usize>(mut values: [S::F; 16]) -> (S::F, [S::F; 16]) {
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let mut signed = S::sub_f(values[1], values[0]);
        values[0] = S::add_f(values[0], values[1]);
        for pair in 1..PAIRS {
            signed = S::add_f(signed, S::sub_f(values[2 * pair + 1], values[2 * pair]));
            values[pair] = S::add_f(values[2 * pair], values[2 * pair + 1]);
        }
        (signed, values)
    }
}

/// The table of [`Lookup`]: of each value of a group the sum of its rows, added in order, a row subtracted where its bit is 0.
#[inline(always)]
pub unsafe fn tables<S: Simd>(s: &Signed) {
    for first in (0..s.bits).step_by(GROUP) {
        for column in (0..s.columns).step_by(S::LANES) {
            // SAFETY: the caller vouches for the tier, and for the memory that the argument describes.
            unsafe {
                let row = S::load_f(s.rows.add(first * s.columns + column));
                let mut values = [row; 16];
                values[0] = S::sub_f(S::splat_f(-0.0), row);
                for bit in 1..GROUP {
                    let half = 1 << bit;
                    for value in 0..half {
                        values[half + value] = values[value];
                    }
                    if first + bit < s.bits {
                        let row = S::load_f(s.rows.add((first + bit) * s.columns + column));
                        for value in 0..half {
                            values[half + value] = S::add_f(values[value], row);
                            values[value] = S::sub_f(values[value], row);
                        }
                    }
                }
                let to = s.values.add(first / GROUP * s.stride + column);
                for value in 0..16 {
                    S::store_f(to.add(value * s.columns), values[value]);
                }
            }
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
    /// Squared norms to inverse norms; 0 where there is none: for a norm that is 0 or NaN, or that is or would be beyond the floats.
    pub fn inverse_norms(norms: &mut [f32; PANEL]) = inverse_norms_body
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
    /// `scale / (sum + more)`, computed in f64.
    pub fn reciprocals(sums: &[i64; PANEL], more: i64, scale: f64, out: &mut [f32; PANEL]) = reciprocals_body
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
fn inverse_norms_body(norms: &mut [f32; PANEL]) {
    for norm in norms {
        let square = *norm;
        *norm = if square > 0.0 && square < f32::INFINITY { 1.0 / square.sqrt() } else { 0.0 };
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
fn reciprocals_body(sums: &[i64; PANEL], more: i64, scale: f64, out: &mut [f32; PANEL]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (scale / (sum + more) as f64) as f32;
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
