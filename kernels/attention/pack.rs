//! Rows of k and v on their way to tiles: prefetches and interleaving.
//!
//! ```text
//! pairs:  out[i] = a[i] | b[i] << 16                                             two rows of bfloat16
//! quads:  out[i] = (a[i] | b[i] << 8 | c[i] << 16 | d[i] << 24) ^ flip           four rows of bytes
//! flip:   to[i]  = from[i] ^ flip;  returns the sum of to[i]
//! ```

/// Prefetches some bytes, which need not be readable, into the second-level cache: rows of a head lie far apart,
/// which the prefetchers of CPUs do not predict.
pub fn prefetch(p: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        let mut line = 0;
        while line < bytes {
            // SAFETY: a prefetch never faults.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(line).cast());
            }
            line += 64;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, bytes);
}

/// Prefetches some rows, so many bytes apart, which need not exist.
pub fn prefetch_rows(mut p: *const u8, (rows, stride): (usize, usize), bytes: usize) {
    for _ in 0..rows {
        prefetch(p, bytes);
        p = p.wrapping_add(stride);
    }
}

autovec!(
    /// Interleaves two rows of bfloat16: element i of both is one word.
    pub fn pairs(a: &[u16], b: &[u16], out: &mut [u32]) = pairs_body
);
autovec!(
    /// Interleaves four rows of bytes, each XORed with `flip`: element i of all four is one word.
    pub fn quads(rows: [&[u8]; 4], flip: u8, out: &mut [u32]) = quads_body
);
autovec!(
    /// Copies bytes, each XORed with `flip`; returns their sum as unsigned bytes.
    pub fn flip(from: &[u8], flip: u8, to: &mut [u8]) -> i32 = flip_body
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
fn flip_body(from: &[u8], flip: u8, to: &mut [u8]) -> i32 {
    let mut sum = 0;
    for (from, to) in from.iter().zip(to) {
        *to = from ^ flip;
        sum += i32::from(*to);
    }
    sum
}
