//! Attention of single queries (decode), one for each head, over k and v as they lie in memory.
//!
//! ```text
//! scores:   out[head][key] = sum over words c of a head:  dot(q[head][c], k[key][head][c])
//! context:  out[head][c]   = sum over keys:  weights[head][key] * v[key][head][c]
//! ```
//!
//! k and v are used once, so they are not packed: rows are transposed in registers on their way to the products, and
//! keys of bytes are multiplied as they lie. The heads of a token are adjacent in memory, so heads take *turns*: each
//! processes a few keys before the next head does, and memory is read about in order while what follows is
//! prefetched.

use super::LANES;
use crate::kernels::dense::{Parts, Product};
use crate::kernels::simd::Simd;
use std::mem::MaybeUninit;

/// Rows of k or v of some heads, which take turns.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// Row 0 of the first head.
    pub rows: *const u8,
    /// Bytes from a row of a head to the next.
    pub stride: usize,
    /// Bytes from a head to the next, in one row.
    pub head: usize,
    /// The number of heads.
    pub heads: usize,
    /// Bytes of a row of one head.
    pub bytes: usize,
}

/// A turn of all heads, and what is prefetched meanwhile: as many bytes as are read.
struct Turn {
    /// The number of rows of the turn.
    rows: usize,
    /// Whether heads and rows are contiguous, so that the memory behind these rows is prefetched in order; else the
    /// following rows of each head are.
    line: bool,
    /// Whether to prefetch into the first-level cache; else into the second.
    near: bool,
    /// What is prefetched next, where heads and rows are contiguous.
    at: *const u8,
}

impl Turns {
    /// The address of a row of a head.
    #[inline(always)]
    fn at(&self, head: usize, row: usize) -> *const u8 {
        self.rows.wrapping_add(head * self.head + row * self.stride)
    }

    /// The turn that begins at `row`, of `least` rows or a multiple of them, or of 64 where these do not fit the
    /// first-level cache.
    #[inline(always)]
    fn turn(&self, row: usize, least: usize) -> Turn {
        /// The most bytes of a turn that fit the first-level cache beside those that are prefetched; and the bytes
        /// that a turn takes unless `least` rows need more, which is faster.
        const NEAR: [usize; 2] = [24 << 10, 16 << 10];
        /// The rows of a turn that does not fit.
        const FAR: usize = 64;
        let token = self.heads * self.bytes;
        let near = least * token <= NEAR[0];
        let rows = if near { (NEAR[1] / token / least * least).max(least) } else { FAR };
        let line = token == self.stride && self.head == self.bytes;
        Turn { rows, line, near, at: self.at(0, row + rows) }
    }
}

impl Turn {
    /// Prefetches as much as is read now, which is `bytes` bytes at `now` of `rows` rows of `heads` heads.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(
        &mut self,
        t: &Turns,
        now: *const u8,
        heads: usize,
        rows: usize,
        bytes: usize,
    ) {
        // SAFETY: the caller vouches for the tier; what is prefetched need not be readable.
        unsafe {
            if !self.line {
                for (head, row) in (0..heads).flat_map(|head| (0..rows).map(move |row| (head, row))) {
                    for line in (0..bytes).step_by(64) {
                        S::prefetch_far(
                            now.wrapping_add(head * t.head + (self.rows + row) * t.stride + line),
                        );
                    }
                }
                return;
            }
            let end = self.at.wrapping_add(heads * rows * bytes);
            // Each cache line is prefetched once: begin at the next line.
            self.at = self.at.wrapping_add(self.at.align_offset(64));
            while self.at < end {
                if self.near {
                    S::prefetch(self.at.cast());
                } else {
                    S::prefetch_far(self.at);
                }
                self.at = self.at.wrapping_add(64);
            }
            self.at = end;
        }
    }
}

/// Queries, the keys that they attend to, and their scores.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// The heads, with rows of k.
    pub k: Turns,
    /// The number of keys: a multiple of 16.
    pub keys: usize,
    /// The first query, in words of 4 bytes.
    pub x: *const u8,
    /// Bytes from one query to the next.
    pub x_stride: usize,
    /// Words of 4 bytes of a query: a multiple of 4.
    pub words: usize,
    /// XORed with each byte of k.
    pub flip: u8,
    /// The factor, -255 to 0, of the sum of the bytes of a key, which is added to its score: minus the zero point of
    /// q. Only integers use it.
    pub by_sum: i32,
    /// The scores of the first query.
    pub out: *mut u8,
    /// Bytes from the scores of one query to those of the next.
    pub out_stride: usize,
}

/// A kernel for queries and their keys.
///
/// # Safety
/// The CPU has the kernel's tier; all memory that is described is there.
pub type Run = unsafe fn(&Keys);

/// The scores of all queries. Those of floats are the chain of products that a tile computes; those of bytes are
/// exact sums.
#[inline(always)]
pub unsafe fn scores<S: Simd, P: Product<S>, W: Parts<S>>(t: &Keys) {
    // SAFETY: the caller keeps the promises of `Run`.
    unsafe {
        if const { P::EXACT } && t.words.is_multiple_of(S::LANES) {
            // Queries that are signed, with zero in the middle of their range, need no sums of keys.
            let signed = S::MIXED && !S::SHIFTS && t.by_sum == -128;
            return match (t.words / S::LANES, signed) {
                (1, true) => scores_by_key::<S, 1, true>(t),
                (2, true) => scores_by_key::<S, 2, true>(t),
                (1, false) => scores_by_key::<S, 1, false>(t),
                (2, false) => scores_by_key::<S, 2, false>(t),
                (4, false) => scores_by_key::<S, 4, false>(t),
                _ => scores_by_key::<S, 0, false>(t),
            };
        }
        let parts = S::LANES / 4;
        if const { !P::EXACT && S::QUADS == 1 } && t.k.heads.is_multiple_of(parts) {
            let mut queries = Queries([MaybeUninit::uninit(); MOST_WORDS]);
            if t.k.heads / parts * t.words * S::LANES <= MOST_WORDS {
                return scores_by_heads::<S, P, W>(t, &mut queries);
            }
        }
        let mut first = 0;
        while first < t.keys {
            let mut turn = t.k.turn(first, LANES);
            let keys = turn.rows.min(t.keys - first);
            // The scores of a register of keys are one chain of products, each waiting for the one before: two
            // registers are computed at a time.
            let (each, mut i) = (keys / S::LANES, 0);
            while i < t.k.heads * each {
                let own = [i, i + 1].map(|i| (i / each, first + i % each * S::LANES));
                if i + 1 < t.k.heads * each {
                    chains::<S, P, W, 2>(t, own, &mut turn);
                } else {
                    chains::<S, P, W, 1>(t, [own[0]], &mut turn);
                }
                i += 2;
            }
            first += keys;
        }
    }
}

/// The most words of queries that are copied side by side on the stack.
const MOST_WORDS: usize = 4096;

/// Queries, word by word: those of as many heads as a register has 16-byte parts are adjacent, each word four times.
#[repr(align(64))]
struct Queries([MaybeUninit<u32>; MOST_WORDS]);

/// Scores of four keys of as many heads as a register has 16-byte parts at a time: so a turn can be as short as four
/// keys.
#[inline(always)]
unsafe fn scores_by_heads<S: Simd, P: Product<S>, W: Parts<S>>(t: &Keys, queries: &mut Queries) {
    // SAFETY: the caller keeps the promises of `Run`; the queries fit their array.
    unsafe {
        let parts = S::LANES / 4;
        let to = queries.0.as_mut_ptr().cast::<u32>();
        for head in 0..t.k.heads {
            let from = t.x.add(head * t.x_stride).cast::<u32>();
            for word in 0..t.words {
                let to = to.add(((head / parts * t.words) + word) * S::LANES + head % parts * 4);
                for i in 0..4 {
                    to.add(i).write(from.add(word).read());
                }
            }
        }
        let (groups, mut first) = (t.k.heads / parts, 0);
        while first < t.keys {
            let mut turn = t.k.turn(first, 4);
            let keys = turn.rows.min(t.keys - first);
            for key in (first..first + keys).step_by(4) {
                let mut group = 0;
                while group + 3 <= groups {
                    heads::<S, P, W, 3>(t, key, group, to, &mut turn);
                    group += 3;
                }
                match groups - group {
                    2 => heads::<S, P, W, 2>(t, key, group, to, &mut turn),
                    1 => heads::<S, P, W, 1>(t, key, group, to, &mut turn),
                    _ => {}
                }
            }
            first += keys;
        }
    }
}

/// Scores of four keys from `key` on, of the heads of `N` groups from `group` on. Each register is one chain of
/// products, so several groups are computed at a time.
#[inline(always)]
unsafe fn heads<S: Simd, P: Product<S>, W: Parts<S>, const N: usize>(
    t: &Keys,
    key: usize,
    group: usize,
    queries: *const u32,
    turn: &mut Turn,
) {
    // SAFETY: the caller keeps the promises of `Run`: queries, four keys of these heads and room for their scores are
    // there.
    unsafe {
        let (parts, word_bytes) = (S::LANES / 4, W::BYTES / S::LANES);
        let mut acc = [P::zero(); N];
        for word in (0..t.words).step_by(4) {
            for i in 0..N {
                let k = t.k.at((group + i) * parts, key).add(word_bytes * word);
                turn.prefetch::<S>(&t.k, k, parts, 4, 4 * word_bytes);
                // Part l of register r is key r of head l. Transposed, each register is one word of four keys of all
                // heads.
                let mut v = [S::splat(0); 4];
                for r in 0..4 {
                    v[r] = W::parts(k.add(r * t.k.stride), t.k.head);
                }
                let v = S::transpose4(v);
                let x = queries.add(((group + i) * t.words + word) * S::LANES);
                for r in 0..4 {
                    acc[i] = P::dot::<0>(acc[i], S::quad_of_each(x.add(r * S::LANES).cast()), v[r]);
                }
            }
        }
        for i in 0..N {
            let out = t.out.add((group + i) * parts * t.out_stride + 4 * key);
            let mut lanes = [0i32; 16];
            P::store(lanes.as_mut_ptr(), acc[i]);
            S::store_parts(out, t.out_stride, S::load(lanes.as_ptr().cast()));
        }
    }
}

/// `N` registers of scores: each of one head, for keys from one on.
#[inline(always)]
unsafe fn chains<S: Simd, P: Product<S>, W: Parts<S>, const N: usize>(
    t: &Keys,
    own: [(usize, usize); N],
    turn: &mut Turn,
) {
    // SAFETY: the caller keeps the promises of `Run`: a register of keys of each head, and room for its scores, are
    // there.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([t.flip; 4]));
        let ones = S::quad([1u8; 4].as_ptr());
        // Stored bytes of a word.
        let word_bytes = W::BYTES / S::LANES;
        let (mut acc, mut sums) = ([P::zero(); N], [P::zero(); N]);
        let (mut keys, mut queries) = ([t.k.rows; N], [t.x; N]);
        for i in 0..N {
            keys[i] = t.k.at(own[i].0, own[i].1);
            queries[i] = t.x.add(own[i].0 * t.x_stride);
        }
        for word in (0..t.words).step_by(4) {
            for i in 0..N {
                // Part l of register r is key 4 l + r. Transposed, each register is one word of all keys in order.
                let k = keys[i].add(word_bytes * word);
                turn.prefetch::<S>(&t.k, k, 1, S::LANES, 4 * word_bytes);
                let mut v = [flip; 4];
                for r in 0..4 {
                    v[r] = S::xor(W::parts(k.add(r * t.k.stride), 4 * t.k.stride), flip);
                }
                let v = S::transpose4(v);
                for r in 0..4 {
                    let x = S::quad(queries[i].add(4 * (word + r)));
                    acc[i] = P::dot::<0>(acc[i], x, v[r]);
                    if P::EXACT {
                        sums[i] = P::dot::<0>(sums[i], ones, v[r]);
                    }
                }
            }
        }
        for i in 0..N {
            let out = t.out.add(own[i].0 * t.out_stride + 4 * own[i].1).cast();
            P::store(out, P::add_scaled(acc[i], sums[i], t.by_sum));
        }
    }
}

/// Scores of bytes, whose products may be added in any order: each key is multiplied in registers along K, then lanes
/// are added up. A key has `N` registers, or any number if `N` is 0.
///
/// Without `SIGNED` the query is unsigned, and the key's bytes are added up as well where the tier needs that. With
/// `SIGNED` the query is signed and the key unsigned, and what its offset of 128 adds to each score is subtracted.
#[inline(always)]
unsafe fn scores_by_key<S: Simd, const N: usize, const SIGNED: bool>(t: &Keys) {
    // SAFETY: the caller keeps the promises of `Run`.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([if SIGNED { t.flip ^ 0x80 } else { t.flip }; 4]));
        // What each byte of a key is multiplied by less, as a query.
        let less = S::x(S::splat(i32::from_ne_bytes([-t.by_sum as u8; 4])));
        let words = if N > 0 { N * S::LANES } else { t.words };
        let mut first = 0;
        while first < t.keys {
            let mut turn = t.k.turn(first, LANES);
            let keys = turn.rows.min(t.keys - first);
            for head in 0..t.k.heads {
                let query = t.x.add(head * t.x_stride);
                let out = t.out.add(head * t.out_stride + 4 * first);
                let (mut unsigned, mut signed) = ([less; N], [S::w(flip); N]);
                let mut start = S::splat(0);
                for n in 0..N {
                    let x = S::load(query.add(4 * n * S::LANES));
                    unsigned[n] = moved::<S>(t, x);
                    if SIGNED {
                        let x = S::xor(x, S::splat(i32::from_ne_bytes([0x80; 4])));
                        signed[n] = S::w(x);
                        // Keys are 128 higher.
                        start = S::dot(start, S::x(S::splat(i32::from_ne_bytes([0x80; 4]))), signed[n]);
                    }
                }
                let start = S::sub(S::splat(0), start);
                for register in (0..keys).step_by(S::LANES) {
                    // Of four keys, part by part.
                    let mut scores = [S::splat(0); 4];
                    for four in 0..S::LANES / 4 {
                        let keys = t.k.at(head, first + register + 4 * four);
                        turn.prefetch::<S>(&t.k, keys, 1, 4, 4 * words);
                        let (mut sums, mut sums_less) = ([start; 4], [S::splat(0); 4]);
                        for n in 0..words / S::LANES {
                            let byte = 4 * n * S::LANES;
                            let x = if n < N { unsigned[n] } else { moved::<S>(t, S::load(query.add(byte))) };
                            for i in 0..4 {
                                let key = S::xor(S::load(keys.add(i * t.k.stride + byte)), flip);
                                if SIGNED {
                                    sums[i] = S::dot(sums[i], S::x(key), signed[n]);
                                    continue;
                                }
                                sums[i] = S::dot_key(sums[i], x, key);
                                if !S::SHIFTS {
                                    sums_less[i] = S::dot_key(sums_less[i], less, key);
                                }
                            }
                        }
                        if !S::SHIFTS && !SIGNED {
                            for i in 0..4 {
                                sums[i] = S::sub(sums[i], sums_less[i]);
                            }
                        }
                        scores[four] = S::lane_sums(sums);
                    }
                    S::store(out.add(4 * register), S::part_sums(scores));
                }
            }
            first += keys;
        }
    }
}

/// A register of a query, less its zero point where the tier has room for that.
#[inline(always)]
unsafe fn moved<S: Simd>(t: &Keys, x: S::V) -> S::X {
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let x = S::x(x);
        if S::SHIFTS { S::shift(x, t.by_sum) } else { x }
    }
}

/// Weights of queries, rows of v, and their context.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// The heads, with rows of v.
    pub v: Turns,
    /// Words of weights of a query; a word has as many weights as rows of v are multiplied at a time.
    pub words: usize,
    /// The weights of the first query, in words of 4 bytes.
    pub x: *const u8,
    /// Bytes from the weights of one query to those of the next.
    pub x_stride: usize,
    /// XORed with each byte of v.
    pub flip: u8,
    /// Columns of v: whole registers of elements.
    pub columns: usize,
    /// The sums of the first query, which are 0 before.
    pub out: *mut u8,
    /// Bytes from the sums of one query to those of the next.
    pub out_stride: usize,
}

/// A kernel for the context of queries.
///
/// # Safety
/// The CPU has the kernel's tier; all memory that is described is there.
pub type RunValues = unsafe fn(&Values);

/// The context of all queries. Each sum is the chain of products that a tile computes.
#[inline(always)]
pub unsafe fn context<S: Simd, P: Product<S>, W: Parts<S>>(t: &Values) {
    // SAFETY: the caller keeps the promises of `RunValues`.
    unsafe {
        let width = S::LANES * P::ELEMENTS;
        let mut first = 0;
        while first < t.words {
            let mut turn = t.v.turn(first * P::ELEMENTS, 4);
            let words = (turn.rows / P::ELEMENTS).min(t.words - first);
            for head in 0..t.v.heads {
                let own = Words { head, first, words };
                let mut column = 0;
                // Where a word is one element, a register of columns is one chain of products: with more registers at
                // a time, less is spent waiting.
                while P::ELEMENTS == 1 && column + 8 * width <= t.columns {
                    columns::<S, P, W, 8>(t, own, column, &mut turn);
                    column += 8 * width;
                }
                while P::ELEMENTS == 1 && column + 4 * width <= t.columns {
                    columns::<S, P, W, 4>(t, own, column, &mut turn);
                    column += 4 * width;
                }
                while column + 2 * width <= t.columns {
                    columns::<S, P, W, 2>(t, own, column, &mut turn);
                    column += 2 * width;
                }
                if column < t.columns {
                    columns::<S, P, W, 1>(t, own, column, &mut turn);
                }
            }
            first += words;
        }
        for head in 0..t.v.heads {
            for column in (0..t.columns).step_by(width) {
                in_order::<S, P>(t.out.add(head * t.out_stride + 4 * column));
            }
        }
    }
}

/// Some words of the weights of a head: `words` of them from `first` on.
#[derive(Clone, Copy)]
struct Words {
    head: usize,
    first: usize,
    words: usize,
}

/// Adds the products of some words of weights with `N` registers of columns of v to the sums, which stay in the order
/// in which products make them.
#[inline(always)]
unsafe fn columns<S: Simd, P: Product<S>, W: Parts<S>, const N: usize>(
    t: &Values,
    own: Words,
    column: usize,
    turn: &mut Turn,
) {
    // SAFETY: the caller keeps the promises of `RunValues`: these weights, their rows of v and their sums are there.
    unsafe {
        let flip = S::splat(i32::from_ne_bytes([t.flip; 4]));
        let width = S::LANES * P::ELEMENTS;
        let out = t.out.add(own.head * t.out_stride + 4 * column).cast::<i32>();
        let mut acc = [[P::zero(); 4]; N];
        for n in 0..N {
            for j in 0..P::ELEMENTS {
                acc[n][j] = P::load(out.add(n * width + j * S::LANES));
            }
        }
        let mut v = t.v.at(own.head, own.first * P::ELEMENTS).add(column * W::BYTES / width);
        let x = t.x.add(own.head * t.x_stride + 4 * own.first);
        for word in 0..own.words {
            let x = S::quad(x.add(4 * word));
            turn.prefetch::<S>(&t.v, v, 1, P::ELEMENTS, N * W::BYTES);
            for n in 0..N {
                let mut rows = [flip; 4];
                for row in 0..P::ELEMENTS {
                    rows[row] = S::xor(W::load(v.add(row * t.v.stride + n * W::BYTES)), flip);
                }
                let columns = P::columns(rows);
                for j in 0..P::ELEMENTS {
                    acc[n][j] = P::dot::<0>(acc[n][j], x, columns[j]);
                }
            }
            v = v.wrapping_add(P::ELEMENTS * t.v.stride);
        }
        for n in 0..N {
            for j in 0..P::ELEMENTS {
                P::store(out.add(n * width + j * S::LANES), acc[n][j]);
            }
        }
    }
}

/// Brings sums of `ELEMENTS` registers of columns into the order of columns: part i of register j is that of columns
/// `4 (ELEMENTS i + j)` on.
#[inline(always)]
unsafe fn in_order<S: Simd, P: Product<S>>(out: *mut u8) {
    // SAFETY: the caller keeps the promises of `RunValues`: `ELEMENTS` registers of sums are at `out`.
    unsafe {
        let mut sums = [S::splat(0); 4];
        for j in 0..P::ELEMENTS {
            sums[j] = S::load(out.add(4 * j * S::LANES));
        }
        for j in 0..P::ELEMENTS {
            S::store_parts(out.add(16 * j), 16 * P::ELEMENTS, sums[j]);
        }
    }
}
