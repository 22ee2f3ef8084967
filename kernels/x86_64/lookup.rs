//! Up to four tokens through groups of sparse rows, with columns of x looked up in registers by VBMI's permutations of bytes.
//!
//! ```text
//! for each chunk of a group: up to 16 entries, in four windows of 64 columns (see `kernels::lookup`):
//!     found = vpermi2b of each two windows, chosen by the top bit of the place of the lane
//!     for each 4 entries:  acc += dot(found, each quad for four rows, by vpermd;  their weights as they lie)
//! ```
//!
//! Nothing is searched and no branch depends on columns but by how many entries a chunk has. Tokens share all but what is found.

use crate::kernels::few::STRIDE;
use crate::kernels::lookup::{Call, ENTRIES};
use std::arch::x86_64::*;

/// Which lane takes which of 16 entries where each entry is used by four rows: `REPEAT[j]` takes four entries from
/// entry 4 j.
pub const REPEAT: [[i32; 16]; 4] = {
    let mut all = [[0; 16]; 4];
    let mut i = 0;
    while i < 64 {
        all[i / 16][i % 16] = (i / 4) as i32;
        i += 1;
    }
    all
};

/// The bytes that belong to so many entries: what is found beyond them meets weights of other chunks.
#[repr(align(64))]
struct Live([[u8; 64]; ENTRIES + 1]);

static LIVE: Live = {
    let mut all = [[0; 64]; ENTRIES + 1];
    let mut n = 0;
    while n <= ENTRIES {
        let mut i = 0;
        while i < 4 * n {
            all[n][i] = 0xff;
            i += 1;
        }
        n += 1;
    }
    Live(all)
};

/// How far ahead of what is read weights are fetched into the first-level cache, two lines a chunk: the core's own prefetch
/// follows one stream, and stops at the end of a page.
const AHEAD: usize = 1536;

/// Adds the dot products of the entries in registers `FROM .. TO` of a chunk's weights.
///
/// # Safety
/// The CPU has AVX-512 F and VNNI; the registers of weights can be read.
#[inline(always)]
unsafe fn dots<const ROWS: usize, const TOKENS: usize, const FROM: usize, const TO: usize>(
    acc: &mut [[__m512i; 2]; TOKENS],
    found: &[__m512i; TOKENS],
    weights: *const u8,
) {
    for j in FROM..TO {
        // SAFETY: the caller vouches for the instructions and the weights; `REPEAT` has a register for each j.
        unsafe {
            let w = _mm512_loadu_si512(weights.add(64 * j).cast());
            for t in 0..TOKENS {
                let x = if ROWS == 4 {
                    _mm512_permutexvar_epi32(_mm512_loadu_epi32(REPEAT[j].as_ptr()), found[t])
                } else {
                    found[t]
                };
                acc[t][j % 2] = _mm512_dpbusd_epi32(acc[t][j % 2], x, w);
            }
        }
    }
}

/// The exact sums of all groups of `ROWS` rows, 4 or 1, for `TOKENS` tokens, `out[t * STRIDE + row - first_row]`.
///
/// # Safety
/// The CPU has AVX-512 BW, VNNI and VBMI. The chunks are those that `cut` made of all the entries of the groups, in their order;
/// places and weights have as many entries, and the padding. Each of `TOKENS` rows has the features that chunks were cut
/// for. `init` and `out` have a place for each row of the groups.
#[inline(always)]
pub unsafe fn sums<const ROWS: usize, const TOKENS: usize>(call: &Call<'_>, out: *mut i32) {
    let &Call { groups, chunks, places, weights, x, stride, init, first_row } = call;
    let (mut chunk, mut places, mut weights) = (chunks.as_ptr(), places.as_ptr(), weights.as_ptr());
    let x = x.as_ptr();
    for group in groups {
        // SAFETY: the caller vouches for chunks, places and weights of as many entries as the groups have, a register of places
        // and four of weights beyond the last, windows inside x, and the rows of `init` and `out`. Prefetches fault nowhere.
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); 2]; TOKENS];
            let mut left = group.len as usize;
            while left > 0 {
                let windows = (*chunk).windows;
                let n = usize::from((*chunk).entries);
                for line in 0..ROWS.div_ceil(2) {
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(AHEAD + 128 * line).cast());
                }
                let place = _mm512_loadu_si512(places.cast());
                let upper = _mm512_movepi8_mask(place);
                let live = _mm512_load_si512(LIVE.0.as_ptr().add(n).cast());
                let mut found = [place; TOKENS];
                for t in 0..TOKENS {
                    let row = x.add(t * stride);
                    let a = _mm512_loadu_si512(row.add(usize::from(windows[0])).cast());
                    let b = _mm512_loadu_si512(row.add(usize::from(windows[1])).cast());
                    let c = _mm512_loadu_si512(row.add(usize::from(windows[2])).cast());
                    let d = _mm512_loadu_si512(row.add(usize::from(windows[3])).cast());
                    let lower = _mm512_permutex2var_epi8(a, place, b);
                    let all = _mm512_mask_blend_epi8(upper, lower, _mm512_permutex2var_epi8(c, place, d));
                    found[t] = _mm512_and_si512(all, live);
                }
                if ROWS == 1 {
                    dots::<ROWS, TOKENS, 0, 1>(&mut acc, &found, weights);
                } else {
                    dots::<ROWS, TOKENS, 0, 2>(&mut acc, &found, weights);
                    // Chunks of a layer are much alike: this is foreseen.
                    if n > 8 {
                        dots::<ROWS, TOKENS, 2, 4>(&mut acc, &found, weights);
                    }
                }
                places = places.add(4 * n);
                weights = weights.add(4 * ROWS * n);
                chunk = chunk.add(1);
                left -= n;
            }
            let init = init.as_ptr().add(group.row as usize);
            let out = out.add(group.row as usize - first_row);
            for t in 0..TOKENS {
                store::<ROWS>(_mm512_add_epi32(acc[t][0], acc[t][1]), group.rows, init, out.add(t * STRIDE));
            }
        }
    }
}

/// Stores the sums of the rows of a group for a token, whose parts are in the 16-byte parts of `acc`; of a single row in all lanes.
///
/// # Safety
/// The CPU has AVX-512 F; `init` and `out` have room for `rows` rows.
#[inline(always)]
unsafe fn store<const ROWS: usize>(acc: __m512i, rows: u32, init: *const i32, out: *mut i32) {
    // SAFETY: the caller vouches for the rows; others belong to other groups and are neither read nor written.
    unsafe {
        let half = _mm256_add_epi32(_mm512_castsi512_si256(acc), _mm512_extracti64x4_epi64::<1>(acc));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        if ROWS == 1 {
            let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
            let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums));
            *out = _mm_cvtsi128_si32(sums).wrapping_add(*init);
        } else if rows == 4 {
            _mm_storeu_si128(out.cast(), _mm_add_epi32(sums, _mm_loadu_si128(init.cast())));
        } else {
            let own = ((1u32 << rows) - 1) as u8;
            let init = _mm_maskz_loadu_epi32(own, init);
            _mm_mask_storeu_epi32(out, own, _mm_add_epi32(sums, init));
        }
    }
}

/// The four rows of a panel of four tokens, `[features][4]`.
///
/// # Safety
/// The CPU has AVX-512 BW and VBMI; the panel has so many features; there is room for four rows of as many bytes, rounded up to a
/// multiple of 16.
#[inline(always)]
pub unsafe fn rows(panel: *const u8, features: usize, to: *mut u8, stride: usize) {
    const BY_TOKEN: [u8; 64] = {
        let mut select = [0; 64];
        let mut i = 0;
        while i < 64 {
            select[i] = (i % 16 * 4 + i / 16) as u8;
            i += 1;
        }
        select
    };
    // SAFETY: the caller vouches for the panel and the rows; masked loads do not read what is masked.
    unsafe {
        let select = _mm512_loadu_si512(BY_TOKEN.as_ptr().cast());
        let mut f = 0;
        while f < features {
            let lines = panel.add(4 * f).cast::<i32>();
            let live = (features - f).min(16);
            let all = match live {
                16 => _mm512_loadu_epi32(lines),
                _ => _mm512_maskz_loadu_epi32((1 << live) - 1, lines),
            };
            let all = _mm512_permutexvar_epi8(select, all);
            let to = to.add(f);
            _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(all));
            _mm_storeu_si128(to.add(stride).cast(), _mm512_extracti32x4_epi32::<1>(all));
            _mm_storeu_si128(to.add(2 * stride).cast(), _mm512_extracti32x4_epi32::<2>(all));
            _mm_storeu_si128(to.add(3 * stride).cast(), _mm512_extracti32x4_epi32::<3>(all));
            f += 16;
        }
    }
}
