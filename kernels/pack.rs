//! Tokens to K-major panels and back: transposes of bytes and of 4-byte words, written once over the registers of a
//! tier.
//!
//! ```text
//! pack_kmajor        panel[f][t]                     = rows[t][f] ^ flip
//! pack_kmajor4       panel[f / 4][place(t)][f % 4]   = rows[t][f] ^ flip       place: see quad_offset
//! unpack_kmajor      rows[t][f]                      = panel[f][t] ^ flip
//! interleave_kmajor  [f][64] to [f / 4][64][4]
//! pack_words_kmajor  panel[f][t] = rows[t][f] ^ flip, of words of 4 bytes
//! sums_to_rows       rows[t][f]  = sums[f][t],        of words of 4 bytes
//! registers_to_rows  rows[t][f]  = sums[f][place(t)], of 64 tokens: see `sparse::place`
//! ```
//!
//! A 16 x 16 transpose of bytes is two rounds of `interleave`; a register of n 16-byte parts does n of them at once.
//! Whole cache lines are read on one side and written on the other, so rows a power of two apart cost no more. What moves
//! between parts is loaded from memory.

use super::simd::Simd;
use super::sparse::place;
use crate::base::view::{MatMut, MatRef};
use std::mem::MaybeUninit;

/// Some tokens, and the panel that they are packed into or unpacked from.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// The row of token 0.
    pub rows: *mut u8,
    /// Bytes from a token's row to the next.
    pub stride: usize,
    /// How many tokens there are: at most the panel's width.
    pub tokens: usize,
    /// Elements of a row: bytes, or words of 4 bytes.
    pub features: usize,
    /// The panel.
    pub panel: *mut u8,
    /// Tokens of the panel: 64, 32, 16, 8, 4 or 1 of bytes; 1, 4 or any multiple of 16 of words.
    pub width: usize,
    /// XORed with each byte: 0x80 turns signed bytes into unsigned ones and back.
    pub flip: u8,
    /// Null, or, for rows of 4-byte elements, the memory that is prefetched while they are packed: as many bytes as
    /// the rows have, one after another.
    pub ahead: *const u8,
}

/// The signature of the kernels over [`Tokens`].
///
/// # Safety
/// The CPU has the tier; rows and panel are as described, the panel of [`pack_kmajor4`] with its features rounded up
/// to a multiple of 4.
pub type Run = unsafe fn(&Tokens);

impl Tokens {
    /// Packs rows into a panel of `width` tokens, with a kernel of a tier that this CPU has.
    pub fn pack(rows: MatRef<'_, u8>, panel: &mut [u8], width: usize, flip: u8, run: Run) {
        assert!(rows.rows() <= width && panel.len() >= rows.cols() * width);
        let tokens = Tokens {
            rows: rows.as_ptr().cast_mut(),
            stride: rows.stride(),
            tokens: rows.rows(),
            features: rows.cols(),
            panel: panel.as_mut_ptr(),
            width,
            flip,
            ahead: std::ptr::null(),
        };
        // SAFETY: the view vouches for the rows, which are only read; the panel's length was checked (a panel
        // interleaved by 4 is as long, its features rounded up by the caller).
        unsafe { run(&tokens) }
    }

    /// Unpacks a panel of `width` tokens into rows, with a kernel of a tier that this CPU has.
    pub fn unpack(panel: &[u8], width: usize, flip: u8, mut rows: MatMut<'_, u8>, run: Run) {
        assert!(rows.rows() <= width && panel.len() >= rows.cols() * width);
        let tokens = Tokens {
            stride: rows.stride(),
            tokens: rows.rows(),
            features: rows.cols(),
            rows: rows.as_mut_ptr(),
            panel: panel.as_ptr().cast_mut(),
            width,
            flip,
            ahead: std::ptr::null(),
        };
        // SAFETY: the view vouches for the rows; the panel is only read and its length was checked.
        unsafe { run(&tokens) }
    }
}

/// Transposes 16 x 16 bytes in each 16-byte part. Before, register r is token r, with features `16 l ..` in part l;
/// after, part l of register r is feature 16 l + r of 16 tokens. The transposition is its own inverse.
#[inline(always)]
unsafe fn transpose16<S: Simd>(v: &[S::V; 16]) -> [S::V; 16] {
    // Not loops over arrays: where a compiler leaves one of them rolled up, all registers go through memory.
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let a = S::interleave(v[0], v[4], v[8], v[12]);
        let b = S::interleave(v[1], v[5], v[9], v[13]);
        let c = S::interleave(v[2], v[6], v[10], v[14]);
        let d = S::interleave(v[3], v[7], v[11], v[15]);
        let [e0, e1, e2, e3] = S::interleave(a[0], b[0], c[0], d[0]);
        let [f0, f1, f2, f3] = S::interleave(a[1], b[1], c[1], d[1]);
        let [g0, g1, g2, g3] = S::interleave(a[2], b[2], c[2], d[2]);
        let [h0, h1, h2, h3] = S::interleave(a[3], b[3], c[3], d[3]);
        [e0, e1, e2, e3, f0, f1, f2, f3, g0, g1, g2, g3, h0, h1, h2, h3]
    }
}

/// The byte offset of token `t` in four interleaved features `q` (features `4 q .. 4 q + 4`) of a panel interleaved
/// by 4.
#[inline(always)]
pub fn quad_offset(width: usize, q: usize, t: usize) -> usize {
    match width {
        // Token 16 l + 4 j + i is element i of part l of register j: see `sparse`.
        64 => q * 256 + (t / 4 % 4) * 64 + (t / 16) * 16 + (t % 4) * 4,
        _ => (q * width + t) * 4,
    }
}

/// A register of the bytes at `offset` of token t, or of zeros where there is no such token.
#[inline(always)]
unsafe fn token_bytes<S: Simd>(x: &Tokens, t: usize, offset: usize, flip: S::V) -> S::V {
    // SAFETY: the caller vouches for the tier, and for a register of bytes from `offset` on in the rows that there are.
    unsafe {
        if t < x.tokens { S::xor(S::load(x.rows.add(t * x.stride + offset)), flip) } else { S::splat(0) }
    }
}

/// Packs rows of bytes into `[features][width]`. Tokens that do not exist are zero.
#[inline(always)]
pub unsafe fn pack_kmajor<S: Simd>(x: &Tokens) {
    let whole = S::LANES * 4;
    let features = if x.width == 1 { 0 } else { x.features / whole * whole };
    // SAFETY: the caller vouches for the tier, the rows and the panel; all offsets are inside these.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([x.flip; 4]));
        let mut f = 0;
        while f < features && x.width < 16 {
            narrow::<S>(x, f, flip);
            f += whole;
        }
        while const { S::LANES == 16 } && x.tokens == 64 && f < features {
            square::<S>(x, f, flip);
            f += whole;
        }
        // A line of features of all tokens, and then the next: the lines of the panel that are written stay in the
        // first-level cache until they are full.
        for f in (f..features).step_by(64) {
            for first in (0..x.width / 16 * 16).step_by(16) {
                for f in (f..features.min(f + 64)).step_by(whole) {
                    let mut v = [S::splat(0); 16];
                    for r in 0..16 {
                        v[r] = token_bytes::<S>(x, first + r, f, flip);
                    }
                    // Of tokens that do not exist there is nothing to transpose.
                    if first < x.tokens {
                        v = transpose16::<S>(&v);
                    }
                    for r in 0..16 {
                        S::store_parts(x.panel.add((f + r) * x.width + first), 16 * x.width, v[r]);
                    }
                }
            }
        }
        for t in 0..x.width {
            for f in features..x.features {
                let byte = if t < x.tokens { *x.rows.add(t * x.stride + f) ^ x.flip } else { 0 };
                *x.panel.add(f * x.width + t) = byte;
            }
        }
    }
}

/// 64 x 64 bytes on their way through the first-level cache.
#[repr(align(64))]
struct Square([MaybeUninit<u8>; 64 * 64]);

/// A register of 64 features of 64 tokens into their panel. Whole registers are read and written: rows of tokens may be
/// any power of two apart, and lines of the panel are full at once. Between, the 16-byte parts change places in memory, where
/// loads put them together: shuffles of registers are what the transposes in the parts have enough of.
///
/// # Safety
/// As for [`pack_kmajor`], with registers of 64 bytes and a panel of 64 tokens that all exist; there is a register of
/// features from `f` on.
#[inline(always)]
unsafe fn square<S: Simd>(x: &Tokens, f: usize, flip: S::V) {
    let mut square = Square([MaybeUninit::uninit(); 64 * 64]);
    let parts = square.0.as_mut_ptr().cast::<u8>();
    // SAFETY: the caller vouches for the tier, the rows and the panel. All 64 x 64 bytes of the square are written
    // before any is read.
    unsafe {
        for group in 0..4 {
            let row = x.rows.add(16 * group * x.stride + f);
            let mut v = [flip; 16];
            for r in 0..16 {
                let line = row.add(r * x.stride);
                v[r] = S::xor(S::load(line), flip);
                S::prefetch(line.wrapping_add(64).cast());
            }
            // Part l of register r is feature 16 l + r of the tokens of this group.
            let v = transpose16::<S>(&v);
            for r in 0..16 {
                S::store(parts.add(1024 * group + 64 * r), v[r]);
            }
        }
        for l in 0..4 {
            for r in 0..16 {
                let line = S::load_parts(parts.add(64 * r + 16 * l), 1024);
                S::store(x.panel.add((f + 16 * l + r) * 64), line);
            }
        }
    }
}

/// A register of features of 4 or 8 tokens into their panel.
///
/// # Safety
/// As for [`pack_kmajor`]; there is a register of features from `f` on.
#[inline(always)]
unsafe fn narrow<S: Simd>(x: &Tokens, f: usize, flip: S::V) {
    // SAFETY: the caller vouches for the tier, the rows and the panel.
    unsafe {
        let mut fours = [[S::splat(0); 4]; 2];
        for half in 0..2 {
            let mut v = [S::splat(0); 4];
            for r in 0..4 {
                v[r] = token_bytes::<S>(x, 4 * half + r, f, flip);
            }
            // Lane i of part l of register j: four tokens of feature 16 l + 4 j + i.
            fours[half] = S::interleave(v[0], v[1], v[2], v[3]);
        }
        for j in 0..4 {
            let to = x.panel.add((f + 4 * j) * x.width);
            if x.width == 4 {
                S::store_parts(to, 16 * 4, fours[0][j]);
            } else {
                let [low, high] = S::zip_lanes(fours[0][j], fours[1][j]);
                S::store_parts(to, 16 * 8, low);
                S::store_parts(to.add(16), 16 * 8, high);
            }
        }
    }
}

/// Packs rows of bytes into `[features / 4][width][4]`, in the token order of [`quad_offset`], with zeros for missing
/// features and tokens.
#[inline(always)]
pub unsafe fn pack_kmajor4<S: Simd>(x: &Tokens) {
    let whole = S::LANES * 4;
    let features = if x.width == 1 { 0 } else { x.features / whole * whole };
    // SAFETY: the caller vouches for the tier, the rows and the panel; all offsets are inside these.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([x.flip; 4]));
        let mut f = 0;
        while const { S::LANES == 16 } && x.tokens == 64 && f < features {
            square4::<S>(x, f, flip);
            f += whole;
        }
        for f in (f..features).step_by(whole) {
            for first in (0..x.width).step_by(4) {
                let mut v = [S::splat(0); 4];
                for r in 0..4 {
                    v[r] = token_bytes::<S>(x, first + r, f, flip);
                }
                let v = S::transpose4(v);
                for c in 0..4 {
                    let at = quad_offset(x.width, f / 4 + c, first);
                    S::store_parts(x.panel.add(at), 16 * x.width, v[c]);
                }
            }
        }
        for t in 0..x.width {
            for f in features..x.features.next_multiple_of(4) {
                let inside = t < x.tokens && f < x.features;
                let byte = if inside { *x.rows.add(t * x.stride + f) ^ x.flip } else { 0 };
                *x.panel.add(quad_offset(x.width, f / 4, t) + f % 4) = byte;
            }
        }
    }
}

/// A register of 64 features of 64 tokens into their panel, interleaved by 4: parts of four rows 16 tokens apart make a
/// register, so that whole lines of the panel are written.
///
/// # Safety
/// As for [`pack_kmajor4`], with registers of 64 bytes and a panel of 64 tokens that all exist; there is a register of
/// features from `f` on.
#[inline(always)]
unsafe fn square4<S: Simd>(x: &Tokens, f: usize, flip: S::V) {
    // SAFETY: the caller vouches for the tier, the rows and the panel.
    unsafe {
        for j in 0..4 {
            for part in 0..4 {
                let row = x.rows.add(4 * j * x.stride + f + 16 * part);
                let mut v = [flip; 4];
                for i in 0..4 {
                    v[i] = S::xor(S::load_parts(row.add(i * x.stride), 16 * x.stride), flip);
                }
                // Part l of register c is the quad c of tokens 16 l + 4 j ..: see `quad_offset`.
                let v = S::transpose4(v);
                let quads = x.panel.add((f / 4 + 4 * part) * 256 + 64 * j);
                for c in 0..4 {
                    S::store(quads.add(256 * c), v[c]);
                }
            }
        }
    }
}

/// Unpacks `[features][width]` bytes into rows.
#[inline(always)]
pub unsafe fn unpack_kmajor<S: Simd>(x: &Tokens) {
    let whole = S::LANES * 4;
    let groups = x.tokens / 16;
    let features = if x.width < 16 { 0 } else { x.features / whole * whole };
    // SAFETY: the caller vouches for the tier, the rows and the panel; all offsets are inside these.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([x.flip; 4]));
        let mut f = 0;
        while f < features {
            for g in 0..groups {
                let mut v = [flip; 16];
                for r in 0..16 {
                    let at = x.panel.add((f + r) * x.width + g * 16);
                    v[r] = S::load_parts(at, 16 * x.width);
                }
                let v = transpose16::<S>(&v);
                let row = x.rows.add(g * 16 * x.stride + f);
                for r in 0..16 {
                    S::store(row.add(r * x.stride), S::xor(v[r], flip));
                }
            }
            f += whole;
        }
        for t in 0..x.tokens {
            let start = if t < groups * 16 { features } else { 0 };
            for f in start..x.features {
                *x.rows.add(t * x.stride + f) = *x.panel.add(f * x.width + t) ^ x.flip;
            }
        }
    }
}

/// Interleaves `lines`, `[features][64]` bytes, into `quads`, `[features / 4][64][4]`. Features is a multiple of 4,
/// or the columns of K missing to one can be read.
#[inline(always)]
pub unsafe fn interleave_kmajor<S: Simd>(lines: *const u8, features: usize, quads: *mut u8) {
    // SAFETY: the caller vouches for four columns of 64 bytes to read and 256 bytes to write in each round.
    unsafe {
        for q in 0..features.div_ceil(4) {
            let mut offset = 0;
            while offset < 64 {
                let line = lines.add(q * 256 + offset);
                let v = S::interleave(
                    S::load(line),
                    S::load(line.add(64)),
                    S::load(line.add(128)),
                    S::load(line.add(192)),
                );
                for j in 0..4 {
                    S::store(quads.add(q * 256 + 64 * j + offset), v[j]);
                }
                offset += S::LANES * 4;
            }
        }
    }
}

/// Lanes of the widest registers.
const MOST_LANES: usize = 16;

/// Packs rows of 4-byte elements into `[features][width]` of them, features rounded up to a multiple of 4 with zeros;
/// the width is 1, 4 or a multiple of 16. Tokens that do not exist are zero.
#[inline(always)]
pub unsafe fn pack_words_kmajor<S: Simd>(x: &Tokens) {
    if x.width == 1 {
        // SAFETY: the caller vouches for one row, and for a panel as long, rounded up to four elements.
        unsafe {
            x.panel.write_bytes(0, 4 * x.features.next_multiple_of(4));
            std::ptr::copy_nonoverlapping(x.rows, x.panel, 4 * x.features);
        }
        return;
    }
    let four = if x.width == 4 { 0 } else { x.features / 4 * 4 };
    // SAFETY: the caller vouches for the tier, the rows and the panel; all offsets are inside these.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([x.flip; 4]));
        let mut ahead = x.ahead;
        let mut t = 0;
        while t < x.width {
            // Part l of register r is four features of token 4 l + r. Transposed, each register is one feature of
            // tokens in order.
            let inside = x.tokens.saturating_sub(t).min(S::LANES);
            let row = x.rows.wrapping_add(t * x.stride);
            let mut f = 0;
            while f < four {
                if !x.ahead.is_null() {
                    for line in (0..16 * S::LANES).step_by(64) {
                        S::prefetch_far(ahead.wrapping_add(line));
                    }
                    ahead = ahead.wrapping_add(16 * S::LANES);
                }
                let mut v = [S::splat(0); 4];
                if inside == S::LANES {
                    for r in 0..4 {
                        v[r] = S::xor(S::load_parts(row.add(r * x.stride + 4 * f), 4 * x.stride), flip);
                    }
                    v = S::transpose4(v);
                } else if inside > 0 {
                    // Tokens that do not exist are 0 after the flip.
                    let mut own = [[x.flip; 16]; MOST_LANES];
                    for i in 0..inside {
                        own[i] = row.add(i * x.stride + 4 * f).cast::<[u8; 16]>().read_unaligned();
                    }
                    for r in 0..4 {
                        v[r] = S::xor(S::load_parts(own[r].as_ptr(), 64), flip);
                    }
                    v = S::transpose4(v);
                }
                for c in 0..4 {
                    S::store(x.panel.add(((f + c) * x.width + t) * 4), v[c]);
                }
                f += 4;
            }
            for token in t..(t + S::LANES).min(x.width) {
                for f in four..x.features.next_multiple_of(4) {
                    let inside = token < x.tokens && f < x.features;
                    let from = x.rows.wrapping_add(token * x.stride + 4 * f).cast::<u32>();
                    let flip = u32::from_ne_bytes([x.flip; 4]);
                    let value = if inside { from.read_unaligned() ^ flip } else { 0 };
                    x.panel.add((f * x.width + token) * 4).cast::<u32>().write(value);
                }
            }
            t += S::LANES;
        }
    }
}

/// Transposes 4-byte elements `[features][width]` to `[tokens][ld]`; features is a multiple of 4.
///
/// # Safety
/// The CPU has the tier; both matrices are there.
#[inline(always)]
pub unsafe fn sums_to_rows<S: Simd>(
    sums: *const i32,
    features: usize,
    width: usize,
    rows: *mut i32,
    ld: usize,
) {
    // SAFETY: as the caller.
    unsafe { transpose::<S, false>(sums, features, width, rows, ld) }
}

/// Transposes exact sums of 64 tokens, as kernels of panels store them, to `[tokens][ld]`; features is a multiple of 4.
///
/// # Safety
/// The CPU has the tier, and the kernel had one of as many lanes; both matrices are there.
#[inline(always)]
pub unsafe fn registers_to_rows<S: Simd>(sums: *const i32, features: usize, rows: *mut i32, ld: usize) {
    // SAFETY: as the caller.
    unsafe { transpose::<S, true>(sums, features, 64, rows, ld) }
}

#[inline(always)]
unsafe fn transpose<S: Simd, const REGISTERS: bool>(
    sums: *const i32,
    features: usize,
    width: usize,
    rows: *mut i32,
    ld: usize,
) {
    // Four neighbouring tokens lie side by side in either order.
    let at = |t| if REGISTERS { place(S::LANES, t) } else { t };
    // SAFETY: the caller vouches for the tier and both matrices; all offsets are inside these.
    unsafe {
        if width < 16 {
            for f in 0..features {
                for t in 0..width {
                    *rows.add(t * ld + f) = *sums.add(f * width + t);
                }
            }
            return;
        }
        // Part l of register r is feature 4 l + r of four tokens. Transposed, each register is a token's features in
        // order.
        let whole = features / S::LANES * S::LANES;
        for f in (0..whole).step_by(S::LANES) {
            for t in (0..width).step_by(4) {
                let from = sums.add(f * width + at(t));
                let mut v = [S::splat(0); 4];
                for r in 0..4 {
                    v[r] = S::load_parts(from.add(r * width).cast(), 16 * width);
                }
                let v = S::transpose4(v);
                for c in 0..4 {
                    S::store(rows.add((t + c) * ld + f).cast(), v[c]);
                }
            }
        }
        for f in (whole..features).step_by(4) {
            let mut t = 0;
            while t < width {
                let from = sums.add(f * width + t);
                let mut v = [S::splat(0); 4];
                for r in 0..4 {
                    v[r] = S::load(from.add(r * width).cast());
                }
                let v = S::transpose4(v);
                // Part l holds tokens `t + 4 l ..`, or in the order of registers `16 l + 4 j ..` of the register's step.
                let (first, apart) = match REGISTERS {
                    true => (t / (4 * S::LANES) * (4 * S::LANES) + t % (4 * S::LANES) / S::LANES * 4, 16),
                    false => (t, 4),
                };
                for c in 0..4 {
                    S::store_parts(rows.add((first + c) * ld + f).cast(), 4 * apart * ld, v[c]);
                }
                t += S::LANES;
            }
        }
    }
}
