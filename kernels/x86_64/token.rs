//! One token through groups of sparse rows (GEMV), with columns of x looked up in registers by VBMI's permutations of
//! bytes.
//!
//! ```text
//! for each 16 entries of a group (64 columns of x, ascending):
//!     for each window of 256 columns that they are in:
//!         found[i] = window[index[i] % 256]   where index[i] / 256 is this window
//!     for each row r:  acc[r] += dot(found, weights of row r)
//! ```
//!
//! A load for each column, as the plain gather does, costs about four times as much.

use super::lookup::REPEAT;
use std::arch::x86_64::*;

/// Columns that one step of the search covers: those whose numbers have one upper byte in common.
const WINDOW: usize = 256;

/// The numbers of the bytes 2 i + `odd` of two registers, in order.
const fn every_other(odd: u8) -> [u8; 64] {
    let mut select = [0; 64];
    let mut i = 0;
    while i < 64 {
        select[i] = 2 * i as u8 + odd;
        i += 1;
    }
    select
}
const LOWER: [u8; 64] = every_other(0);
const UPPER: [u8; 64] = every_other(1);

/// The most entries that [`few_quads`] loads.
const FEW: usize = 4;

/// A mask of the lowest n bits; all bits if n is 64 or more.
#[inline(always)]
fn lowest(n: usize) -> u64 {
    if n < 64 { (1 << n) - 1 } else { !0 }
}

/// The bytes of window `number` of x, with zeros beyond the end of x.
///
/// # Safety
/// The CPU has AVX-512 BW.
#[inline(always)]
unsafe fn window(x: &[u8], number: usize) -> [__m512i; 4] {
    let start = number * WINDOW;
    let p = x.as_ptr().wrapping_add(start).cast::<i8>();
    // SAFETY: the caller vouches for AVX-512 BW; loads are inside x, or masked where they are not.
    unsafe {
        if start + WINDOW <= x.len() {
            return [
                _mm512_loadu_epi8(p),
                _mm512_loadu_epi8(p.add(64)),
                _mm512_loadu_epi8(p.add(128)),
                _mm512_loadu_epi8(p.add(192)),
            ];
        }
        let left = x.len().saturating_sub(start);
        [
            _mm512_maskz_loadu_epi8(lowest(left), p),
            _mm512_maskz_loadu_epi8(lowest(left.saturating_sub(64)), p.wrapping_add(64)),
            _mm512_maskz_loadu_epi8(lowest(left.saturating_sub(128)), p.wrapping_add(128)),
            _mm512_maskz_loadu_epi8(lowest(left.saturating_sub(192)), p.wrapping_add(192)),
        ]
    }
}

/// The bytes of x for each lane of a register, by a search of the windows from `$first` to `$last`: where the lane's window,
/// `$high`, is that one, byte `$low` of it. A window is two tables of 128 bytes: `$second` says which lanes take the second.
macro_rules! search {
    ($x:ident, $first:expr, $last:expr, $high:ident $same:ident $splat:ident $element:ty, $low:ident $second:ident, $take:ident) => {{
        let (mut number, last) = (usize::from($first), usize::from($last));
        let mut found = _mm512_setzero_si512();
        loop {
            let here = $same($high, $splat(number as $element));
            let table = window($x, number);
            let one = _mm512_permutex2var_epi8(table[0], $low, table[1]);
            let two = _mm512_permutex2var_epi8(table[2], $low, table[3]);
            found = $take(found, here & !$second, one);
            found = $take(found, here & $second, two);
            if number >= last {
                break found;
            }
            number += 1;
        }
    }};
}

/// The bytes of x at 64 columns. Only the first `4 * n` indices are read, and only as many results count.
///
/// # Safety
/// The CPU has AVX-512 BW and VBMI; n is 1 to 16; the indices of n entries can be read, ascend, and are columns of x.
#[inline(always)]
unsafe fn columns<const WHOLE: bool>(x: &[u8], indices: *const u16, n: usize) -> __m512i {
    // SAFETY: the caller vouches for the instructions and the indices; masked loads do not read what is masked.
    unsafe {
        let (p, count) = (indices.cast::<i16>(), 4 * n);
        let (a, b) = if WHOLE {
            (_mm512_loadu_epi16(p), _mm512_loadu_epi16(p.add(32)))
        } else {
            let mask = lowest(count);
            let upper = _mm512_maskz_loadu_epi16((mask >> 32) as u32, p.wrapping_add(32));
            (_mm512_maskz_loadu_epi16(mask as u32, p), upper)
        };
        let low = _mm512_permutex2var_epi8(a, _mm512_loadu_si512(LOWER.as_ptr().cast()), b);
        let high = _mm512_permutex2var_epi8(a, _mm512_loadu_si512(UPPER.as_ptr().cast()), b);
        // The top bit of the lower byte says which table.
        let second = _mm512_movepi8_mask(low);
        search!(x, *indices >> 8, *indices.add(count - 1) >> 8, high _mm512_cmpeq_epi8_mask _mm512_set1_epi8 i8, low second, _mm512_mask_mov_epi8)
    }
}

/// The bytes of x of 16 entries of four adjacent columns. Only the first `n` indices are read, and only as many
/// results count.
///
/// # Safety
/// The caller keeps the promises of [`columns`]; an index is the number of four adjacent columns of x.
#[inline(always)]
unsafe fn quads<const WHOLE: bool>(x: &[u8], indices: *const u16, n: usize) -> __m512i {
    // SAFETY: the caller vouches for the instructions and the indices; masked loads do not read what is masked.
    unsafe {
        let p = indices.cast::<i16>();
        let mask = if WHOLE { !0 } else { lowest(n) as u16 };
        let all = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
        // The number of the first byte of each entry in its four bytes, plus 0, 1, 2, 3.
        let each = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
        let low = _mm512_shuffle_epi8(_mm512_slli_epi32::<2>(all), each);
        let low = _mm512_or_si512(low, _mm512_set1_epi32(0x0302_0100));
        let high = _mm512_srli_epi32::<6>(all);
        let second = _mm512_test_epi32_mask(all, _mm512_set1_epi32(32));
        search!(x, *indices >> 6, *indices.add(n - 1) >> 6, high _mm512_cmpeq_epi32_mask _mm512_set1_epi32 i32, low second, _mm512_mask_mov_epi32)
    }
}

/// [`quads`] for so few entries that a load for each is faster than to search the windows. Results beyond entry n are
/// copies of the last: their weights are 0.
///
/// # Safety
/// The caller keeps the promises of [`quads`]; n is 1 to [`FEW`].
#[inline(always)]
unsafe fn few_quads(x: &[u8], indices: *const u16, n: usize) -> __m512i {
    // SAFETY: the caller vouches for n indices inside x; entries beyond the last load the last again.
    unsafe {
        let quad = |i: usize| {
            let at = usize::from(*indices.add(i.min(n - 1)));
            x.as_ptr().add(4 * at).cast::<i32>().read_unaligned()
        };
        _mm512_castsi128_si512(_mm_setr_epi32(quad(0), quad(1), quad(2), quad(3)))
    }
}

/// Adds `n` entries, up to 16, of `ROWS` rows.
///
/// # Safety
/// The caller keeps the promises of [`columns`] or [`quads`], and the CPU has VNNI; there are weights for `n`
/// entries.
#[inline(always)]
unsafe fn entries<const ROWS: usize, const QUADS: bool, const WHOLE: bool>(
    acc: &mut [__m512i; 4],
    x: &[u8],
    indices: *const u16,
    weights: *const i8,
    n: usize,
) {
    // SAFETY: the caller vouches for the instructions, indices and weights; masked loads read nothing and give zeros.
    unsafe {
        let quads = match QUADS {
            true if !WHOLE && n <= FEW => few_quads(x, indices, n),
            true => quads::<WHOLE>(x, indices, n),
            false => columns::<WHOLE>(x, indices, n),
        };
        for j in 0..ROWS {
            let w = weights.wrapping_add(64 * j).cast::<i32>();
            let w = if WHOLE {
                _mm512_loadu_epi32(w)
            } else {
                _mm512_maskz_loadu_epi32(lowest((n * ROWS).saturating_sub(16 * j)) as u16, w)
            };
            let x = if ROWS == 4 {
                _mm512_permutexvar_epi32(_mm512_loadu_epi32(REPEAT[j].as_ptr()), quads)
            } else {
                quads
            };
            acc[j] = _mm512_dpbusd_epi32(acc[j], x, w);
        }
    }
}

/// The sums of a group of `ROWS` rows, 1 or 4, over `len` entries, of four adjacent columns if `QUADS`, else of any
/// four.
///
/// # Safety
/// The caller keeps the promises of [`entries`] for all `len` entries.
#[inline(always)]
pub unsafe fn group<const ROWS: usize, const QUADS: bool>(
    x: &[u8],
    mut indices: *const u16,
    mut weights: *const i8,
    mut len: usize,
) -> [i32; 4] {
    // SAFETY: the caller vouches for the instructions, and for the indices and weights of `len` entries.
    unsafe {
        let mut acc = [_mm512_setzero_si512(); 4];
        while len >= 16 {
            entries::<ROWS, QUADS, true>(&mut acc, x, indices, weights, 16);
            indices = indices.add(if QUADS { 16 } else { 64 });
            weights = weights.add(64 * ROWS);
            len -= 16;
        }
        if len > 0 {
            entries::<ROWS, QUADS, false>(&mut acc, x, indices, weights, len);
        }
        if ROWS == 1 {
            return [_mm512_reduce_add_epi32(acc[0]), 0, 0, 0];
        }
        let all = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
        let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let rows = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        std::mem::transmute::<__m128i, [i32; 4]>(rows)
    }
}
