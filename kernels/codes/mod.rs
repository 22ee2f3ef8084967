//! Hamming distances of binary codes: exclusive or, population count, and what is made of the count.
//!
//! ```text
//! distance[i][j] = sum over slices s of 16 bits:  popcount(a[i][s] ^ b[j][s])
//! pairwise:  out[i][j] = distance[i][j], or from - 2 * distance[i][j]
//! nearest:   best = the k smallest of (distance[j], number of j)
//! ```
//!
//! A code is cut into slices of 16 bits. Codes of b are packed in panels, `[slices][LANES codes]`, so that each lane
//! adds up the counts of its own code and the sums leave as 16-bit integers in order, with nothing to narrow or to
//! shuffle. Codes of a stay as they are; each of their slices is broadcast to a register.

pub mod scalar;
pub mod table;

/// Registers of 16-bit lanes that count bits.
///
/// # Safety
/// Implementors compute what each method says. Callers of any method run on a CPU that has the instructions; pointers
/// are valid for `LANES` elements.
pub unsafe trait Popcount: Copy + 'static {
    /// 16-bit lanes in a register, at most 64.
    const LANES: usize;
    /// A register.
    type V: Copy;

    /// All lanes `value`.
    unsafe fn splat(value: u16) -> Self::V;
    /// Loads `LANES` integers at `p`.
    unsafe fn load(p: *const u16) -> Self::V;
    /// Stores `LANES` integers at `p`.
    unsafe fn store(p: *mut u16, v: Self::V);
    /// Bitwise exclusive or.
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    /// Counts the bits of each lane, perhaps as counts of parts of a lane, which [`Popcount::total`] adds up.
    unsafe fn count(v: Self::V) -> Self::V;
    /// Adds counts of parts, of up to 16 registers.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// The bits of each lane, from the sums of its parts.
    unsafe fn total(parts: Self::V) -> Self::V;
    /// `a - 2 * b` in each lane, wrapping.
    unsafe fn less_twice(a: Self::V, b: Self::V) -> Self::V;
    /// Lane by lane the smaller, as signed integers.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Bit l is set where lane l of a is below lane l of b, as signed integers.
    unsafe fn below(a: Self::V, b: Self::V) -> u64;
}

/// Some codes of a, some panels of b, and the output of each pair.
#[derive(Debug)]
pub struct Tile {
    /// The first code of a; the others follow it.
    pub a: *const u64,
    /// Words of 64 bits from one code of a to the next.
    pub words: usize,
    /// The panels of b.
    pub b: *const u16,
    /// The number of codes of b, at least one; the last panel may have fewer than it has lanes.
    pub codes: usize,
    /// The first row of the output.
    pub out: *mut u16,
    /// Integers from one row to the next.
    pub stride: usize,
    /// The number that twice the distance is subtracted from, where that is the output.
    pub from: u16,
}

/// A kernel over a [`Tile`].
pub type Run = unsafe fn(&Tile);

/// One code of a, some panels of b, and the nearest codes found so far.
#[derive(Debug)]
pub struct Search {
    /// The code of a.
    pub a: *const u64,
    /// The panels of b.
    pub b: *const u16,
    /// The number of codes of b, at least one.
    pub codes: usize,
    /// The number of the first code of b.
    pub first: u32,
    /// The nearest codes so far: a heap of `k` words, see [`offer`].
    pub best: *mut u64,
    /// How many of the nearest are kept.
    pub k: usize,
}

/// The slices of `R` codes, each broadcast to a register.
///
/// # Safety
/// The CPU has the instructions; `R` codes of at least `S` slices are at `a`.
#[inline(always)]
unsafe fn broadcast<P: Popcount, const S: usize, const R: usize>(
    a: *const u64,
    words: usize,
) -> [[P::V; S]; R] {
    // SAFETY: the caller vouches for the instructions, and for `R` codes of `S` slices.
    unsafe {
        let mut all = [[P::splat(0); S]; R];
        for r in 0..R {
            for s in 0..S {
                all[r][s] = P::splat((*a.add(r * words + s / 4) >> (16 * (s % 4))) as u16);
            }
        }
        all
    }
}

/// The Hamming distances of `R` codes to the codes of a panel.
///
/// # Safety
/// The CPU has the instructions; `b` is a panel of `S` slices.
#[inline(always)]
unsafe fn distances<P: Popcount, const S: usize, const R: usize>(
    a: &[[P::V; S]; R],
    b: *const u16,
) -> [P::V; R] {
    // SAFETY: the caller vouches for the instructions, and for a panel of `S` slices.
    unsafe {
        let mut sums = [P::splat(0); R];
        for s in 0..S {
            let b = P::load(b.add(s * P::LANES));
            for r in 0..R {
                let counts = P::count(P::xor(a[r][s], b));
                sums[r] = if s == 0 { counts } else { P::add(sums[r], counts) };
            }
        }
        for r in 0..R {
            sums[r] = P::total(sums[r]);
        }
        sums
    }
}

/// The distances of `R` codes of a to all codes of b, or, with `TWICE`, `from` less twice the distance.
///
/// # Safety
/// The CPU has the instructions; a has `R` codes of at least `S` slices, b panels of `S` slices, out `R` rows.
#[inline(always)]
pub unsafe fn pairwise<P: Popcount, const S: usize, const R: usize, const TWICE: bool>(t: &Tile) {
    // SAFETY: the caller vouches for the instructions, codes, panels and rows; a part of a panel is copied through an
    // array.
    unsafe {
        let a = broadcast::<P, S, R>(t.a, t.words);
        let from = P::splat(t.from);
        let mut part = [[0u16; 64]; R];
        let (mut b, mut left) = (t.b, t.codes);
        while left > 0 {
            let (out, stride) = if left < P::LANES {
                (part.as_mut_ptr().cast::<u16>(), 64)
            } else {
                (t.out.add(t.codes - left), t.stride)
            };
            let sums = distances::<P, S, R>(&a, b);
            for r in 0..R {
                P::store(
                    out.add(r * stride),
                    if const { TWICE } { P::less_twice(from, sums[r]) } else { sums[r] },
                );
            }
            b = b.add(S * P::LANES);
            left = left.saturating_sub(P::LANES);
        }
        let rest = t.codes % P::LANES;
        if rest > 0 {
            for r in 0..R {
                std::ptr::copy_nonoverlapping(
                    part[r].as_ptr(),
                    t.out.add(r * t.stride + t.codes - rest),
                    rest,
                );
            }
        }
    }
}

/// Offers all codes of b for the list of those nearest to one code of a.
///
/// # Safety
/// The CPU has the instructions; a has at least `S` slices, b panels of `S` slices; `k` is not 0, and `k` words are
/// at `best`.
#[inline(always)]
pub unsafe fn nearest<P: Popcount, const S: usize>(t: &Search) {
    // SAFETY: the caller vouches for the instructions, the code, the panels, and `k` words at `best`.
    unsafe {
        let a = broadcast::<P, S, 1>(t.a, 0);
        let best = std::slice::from_raw_parts_mut(t.best, t.k);
        // With an empty list nearly every code would enter it, to be pushed out again: a bound on the distance avoids
        // that.
        let most = if best[0] == u64::MAX { bound::<P, S>(&a, t) } else { i16::MAX as u16 };
        let mut limit = P::splat(most.min(limit(best)));
        let (mut b, mut first) = (t.b, 0);
        while first < t.codes {
            let [sums] = distances::<P, S, 1>(&a, b);
            let mut better = P::below(sums, limit);
            if better != 0 {
                let left = t.codes - first;
                if left < P::LANES {
                    better &= (1 << left) - 1;
                }
                let mut row = [0u16; 64];
                P::store(row.as_mut_ptr(), sums);
                compete(best, &row, better, t.first + first as u32);
                limit = P::splat(most.min(self::limit(best)));
            }
            b = b.add(S * P::LANES);
            first += P::LANES;
        }
    }
}

/// A distance that at least k codes of b are below. The smallest distances of different lanes are those of different
/// codes, so the k-th smallest of these is such a bound. Where that gives no bound, the largest i16 is returned.
///
/// # Safety
/// The caller keeps the promises of [`nearest`].
#[inline(always)]
unsafe fn bound<P: Popcount, const S: usize>(a: &[[P::V; S]; 1], t: &Search) -> u16 {
    /// The most registers of smallest distances, a power of two.
    const MOST: usize = 8;
    // SAFETY: the caller keeps the promises of `nearest`.
    unsafe {
        let none = P::splat(i16::MAX as u16);
        // With fewer than twice as many lanes as neighbours, the k-th smallest would be far from the k-th nearest.
        let used = (2 * t.k).div_ceil(P::LANES).next_power_of_two();
        if used > MOST {
            return i16::MAX as u16;
        }
        let mut smallest = [none; MOST];
        for i in 0..t.codes / P::LANES {
            let [sums] = distances::<P, S, 1>(a, t.b.add(i * S * P::LANES));
            let at = &mut smallest[i & (used - 1)];
            *at = P::min(*at, sums);
        }
        // The smallest number that k are below, between a number that fewer than k are below and one that all distances are below.
        let (mut low, mut high) = (0, 16 * S as u16 + 1);
        while high - low > 1 {
            let middle = (low + high) / 2;
            let limit = P::splat(middle);
            let mut below = 0;
            for smallest in &smallest[..used] {
                below += P::below(*smallest, limit).count_ones() as usize;
            }
            *(if below < t.k { &mut low } else { &mut high }) = middle;
        }
        high
    }
}

/// What a distance must be below to enter the list, as a signed 16-bit integer.
#[inline(always)]
fn limit(best: &[u64]) -> u16 {
    (best[0] >> 32).min(0x7fff) as u16
}

/// A code of b as a word that is ordered by distance, then by number.
fn neighbour(distance: u16, number: u32) -> u64 {
    u64::from(distance) << 32 | u64::from(number)
}

/// Offers the codes of a panel whose bit is set in `which`.
#[inline(never)]
fn compete(best: &mut [u64], distances: &[u16; 64], mut which: u64, first: u32) {
    while which != 0 {
        let l = which.trailing_zeros();
        which &= which - 1;
        offer(best, neighbour(distances[l as usize], first + l));
    }
}

/// Replaces the worst neighbour of the list by a new one, if that is better. `best` is a heap with the worst on top.
pub fn offer(best: &mut [u64], new: u64) {
    if new >= best[0] {
        return;
    }
    let mut at = 0;
    loop {
        let mut child = 2 * at + 1;
        if child + 1 < best.len() && best[child + 1] > best[child] {
            child += 1;
        }
        if child >= best.len() || best[child] <= new {
            break;
        }
        best[at] = best[child];
        at = child;
    }
    best[at] = new;
}

autovec! {
    /// Packs codes of so many words into panels of so many slices and lanes; lanes without a code are 0.
    pub fn pack(codes: &[u64], words: usize, slices: usize, lanes: usize, to: &mut [u16]) = pack_body
}

#[inline(always)]
fn pack_body(codes: &[u64], words: usize, slices: usize, lanes: usize, to: &mut [u16]) {
    match words {
        1 => pack_words::<1>(codes, slices, lanes, to),
        2 => pack_words::<2>(codes, slices, lanes, to),
        3 => pack_words::<3>(codes, slices, lanes, to),
        _ => pack_words::<4>(codes, slices, lanes, to),
    }
}

#[inline(always)]
fn pack_words<const W: usize>(codes: &[u64], slices: usize, lanes: usize, to: &mut [u16]) {
    let panels = codes.as_chunks::<W>().0.chunks(lanes);
    for (panel, to) in panels.zip(to.chunks_exact_mut(slices * lanes)) {
        for (s, to) in to.chunks_exact_mut(lanes).enumerate() {
            let (filled, empty) = to.split_at_mut(panel.len());
            for (to, code) in filled.iter_mut().zip(panel) {
                *to = (code[s / 4] >> (16 * (s % 4))) as u16;
            }
            empty.fill(0);
        }
    }
}

/// Runs the operations of a distance on registers alone, `times` times; returns the number of bits compared. `SUM`
/// includes the addition of counts.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
pub unsafe fn peak<P: Popcount, const SUM: bool>(times: u64) -> u64 {
    /// Chains of operations: enough that none waits for another, and with what else is needed no more than there are
    /// registers.
    const CHAINS: usize = 20;
    // SAFETY: the caller vouches for the instructions; only arrays of this function are written.
    unsafe {
        let mut sums = [P::splat(0); CHAINS];
        let with = P::splat(0x5a5a);
        for _ in 0..times {
            for sum in &mut sums {
                let counts = P::count(P::xor(*sum, with));
                *sum = if SUM { P::add(*sum, counts) } else { counts };
            }
        }
        let mut row = [0u16; 64];
        for sum in sums {
            P::store(row.as_mut_ptr(), sum);
            std::hint::black_box(&row);
        }
        times * (CHAINS * P::LANES * 16) as u64
    }
}
