//! Rows of k and v on their way to tiles.

/// Asks for some bytes, which need not be readable: rows of a head lie far apart, and no hardware guesses the next.
pub fn prefetch(p: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch never faults.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, bytes);
}

autovec!(
    /// Two rows of bfloat16 to pairs: element i of both is one word.
    pub fn pairs(a: &[u16], b: &[u16], out: &mut [u32]) = pairs_body
);
autovec!(
    /// Four rows of bytes, flipped by a mask, to quads: element i of all is one word.
    pub fn quads(rows: [&[u8]; 4], flip: u8, out: &mut [u32]) = quads_body
);
autovec!(
    /// The sum of signed bytes.
    pub fn sum(row: &[i8]) -> i32 = sum_body
);
autovec!(
    /// The sum of unsigned bytes.
    pub fn sum_unsigned(row: &[u8]) -> i32 = sum_unsigned_body
);
autovec!(
    /// Bytes, flipped by a mask.
    pub fn flip(from: &[u8], flip: u8, to: &mut [u8]) = flip_body
);

#[inline(always)]
fn pairs_body(a: &[u16], b: &[u16], out: &mut [u32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = u32::from(*a) | u32::from(*b) << 16;
    }
}

#[inline(always)]
fn quads_body(rows: [&[u8]; 4], flip: u8, out: &mut [u32]) {
    let n = out.len();
    let [a, b, c, d] = rows.map(|row| &row[..n]);
    let flip = u32::from_ne_bytes([flip; 4]);
    for i in 0..n {
        let word = u32::from(a[i]) | u32::from(b[i]) << 8 | u32::from(c[i]) << 16 | u32::from(d[i]) << 24;
        out[i] = word ^ flip;
    }
}

#[inline(always)]
fn sum_body(row: &[i8]) -> i32 {
    row.iter().map(|&x| i32::from(x)).sum()
}

#[inline(always)]
fn sum_unsigned_body(row: &[u8]) -> i32 {
    row.iter().map(|&x| i32::from(x)).sum()
}

#[inline(always)]
fn flip_body(from: &[u8], flip: u8, to: &mut [u8]) {
    for (from, to) in from.iter().zip(to) {
        *to = from ^ flip;
    }
}
