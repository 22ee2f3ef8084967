//! What an instruction set has to provide: registers of 32-bit lanes, and a dot product of bytes into them.
//!
//! ```text
//! dot:      acc[l] += x[4l] * w[4l] + x[4l+1] * w[4l+1] + x[4l+2] * w[4l+2] + x[4l+3] * w[4l+3]  exact, in i32
//! matrix:   acc[2i + j] += sum over k in 0..8:  x[8i + k] * w[8j + k]                            exact, in i32
//! fma:      a[l] * b[l] + c[l]                                                               rounded once, in f32
//! ```
//!
//! All loops (sparse and dense layers, attention, the epilogue, activations) are written once over the trait
//! [`Simd`]. Every operation is exact, or rounded once as IEEE 754 says, so all tiers give the same bits.
//!
//! Words in this file: *four bytes* (`quad`) are four elements of K that one lane multiplies; a *16-byte part* is one
//! of the `LANES / 4` parts of a register inside which `interleave` and the packs work.

use super::attention::multiply::Tile;

/// Mask of a column's number after that number was multiplied by 64, the bytes of a column of K in a panel.
pub const LINE: usize = 0xffff << 6;

/// Bytes of K of one row that a product of matrices multiplies at a time.
pub const TOGETHER: usize = 8;

/// One kind of registers: `LANES` 32-bit lanes, seen as i32 (`V`) or f32 (`F`). Methods that say so work inside each
/// 16-byte part of a register, as the instructions of x86 and Arm do.
///
/// # Safety
/// Implementors compute what each method says. Callers of any method run on a CPU with the features that the
/// registers are made for; pointer arguments are valid for the bytes named.
pub unsafe trait Simd: Copy + 'static {
    /// 32-bit lanes in a register: 4, 8 or 16.
    const LANES: usize;
    /// Bytes of one element of x in the dense loop: 1 where the dot product takes four bytes, 2 where it takes a pair
    /// of 16-bit integers. A step of the dense loop is 4 bytes of x, that is `4 / X_BYTES` elements of K.
    const X_BYTES: usize;
    /// Whether a dot product of bytes is one instruction that works on registers alone.
    const ONE_INSTRUCTION: bool = Self::X_BYTES == 1;
    /// Whether a dot product takes unsigned bytes of x and signed ones of w. Where the CPU multiplies only bytes of
    /// one kind, linear layers flip the top bit of x, which makes it signed like w, and attention flips that of its
    /// columns, which makes them unsigned like x.
    const MIXED: bool;
    /// How many groups of four bytes [`Simd::quads`] loads: 1, broadcast to every lane, or 4, each of which a product
    /// uses as element `I` of the register.
    const QUADS: usize;
    /// A register as i32 lanes, or as bytes.
    type V: Copy;
    /// A register as f32 lanes.
    type F: Copy;
    /// Four bytes of x in each lane, ready for [`Simd::dot`].
    type X: Copy;
    /// Four bytes of w in each lane, ready for [`Simd::dot`].
    type W: Copy;
    /// Four bytes that every lane is multiplied with: broadcast, or an element of a register (see `QUADS`).
    type Q: Copy;

    /// Four floats: of one token, the sums of a group of up to four rows.
    type R: Copy;

    /// All lanes `value`.
    unsafe fn splat(value: i32) -> Self::V;
    /// Loads `LANES * 4` bytes at `p`.
    unsafe fn load(p: *const u8) -> Self::V;
    /// Loads `N` adjacent registers, those from register `I * N` on.
    #[inline(always)]
    unsafe fn loads<const N: usize, const I: i32>(p: *const u8) -> [Self::V; N] {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            let p = p.add(I as usize * N * Self::LANES * 4);
            let mut v = [Self::load(p); N];
            for i in 1..N {
                v[i] = Self::load(p.add(i * Self::LANES * 4));
            }
            v
        }
    }
    /// Loads `N` registers, 64 bytes from each to the next.
    #[inline(always)]
    unsafe fn loads_apart<const N: usize>(p: *const u8) -> [Self::V; N] {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            let mut v = [Self::load(p); N];
            for i in 1..N {
                v[i] = Self::load(p.add(64 * i));
            }
            v
        }
    }
    /// Loads one register from each of four columns of K of a panel. A column is 64 bytes; the numbers of the columns
    /// are the 16-bit parts of `four`.
    #[inline(always)]
    unsafe fn lines(p: *const u8, four: u64) -> [Self::V; 4] {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            [
                Self::load(p.add((four << 6) as usize & LINE)),
                Self::load(p.add((four >> 10) as usize & LINE)),
                Self::load(p.add((four >> 26) as usize & LINE)),
                Self::load(p.add((four >> 42) as usize & LINE)),
            ]
        }
    }
    /// Stores `LANES * 4` bytes at `p`.
    unsafe fn store(p: *mut u8, v: Self::V);
    /// Lane by lane `a + b`, wrapping.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;

    /// Prepares four bytes of x a lane for [`Simd::dot`].
    unsafe fn x(quads: Self::V) -> Self::X;
    /// Prepares four bytes of w a lane for [`Simd::dot`].
    unsafe fn w(quads: Self::V) -> Self::W;
    /// `acc[l] += sum over i of x[4l + i] * w[4l + i]`, exact, wrapping at 2^32.
    unsafe fn dot(acc: Self::V, x: Self::X, w: Self::W) -> Self::V;
    /// Interleaves four columns of bytes by 4, inside each 16-byte part: byte b of the four columns becomes lane b %
    /// 4 of that part in result b / 4.
    unsafe fn interleave(a: Self::V, b: Self::V, c: Self::V, d: Self::V) -> [Self::V; 4];
    /// Interleaves four columns of 16 tokens by 4: each lane holds the four bytes of a token, result i those of
    /// tokens `i * LANES ..`. 16 bytes are read at each pointer; only the first `16 / LANES` results count.
    unsafe fn gather16(lines: [*const u8; 4]) -> [Self::V; 4];
    /// Interleaves four columns of 32 tokens by 4. Where a register is 64 bytes wide, the lower half of result i, 0 or 1, holds
    /// tokens `8 i ..` and the upper one tokens `8 i + 16 ..`.
    #[inline(always)]
    unsafe fn gather32(_lines: [*const u8; 4]) -> [Self::V; 2] {
        unreachable!("registers are narrower than the four bytes of 16 tokens")
    }
    /// Stores the lower half of a register of 64 bytes at `p`, and the upper one 64 bytes further.
    #[inline(always)]
    unsafe fn store_halves(_p: *mut u8, _v: Self::V) {
        unreachable!("registers are narrower than 64 bytes")
    }
    /// The four bytes of four columns for each of `TOKENS` tokens, 4 or 8, repeated in the four lanes of a 16-byte part: part p of
    /// result j is token `LANES / 4 * j + p`. `TOKENS` bytes are read at each pointer.
    #[inline(always)]
    unsafe fn each_token<const TOKENS: usize, const VECS: usize>(lines: [*const u8; 4]) -> [Self::V; VECS] {
        let mut quads = [[0u8; 4]; 8];
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers; `repeat` reads the quads of its own tokens.
        unsafe {
            for t in 0..TOKENS {
                for c in 0..4 {
                    quads[t][c] = *lines[c].add(t);
                }
            }
            let mut v = [Self::splat(0); VECS];
            for j in 0..VECS {
                v[j] = Self::repeat::<4>(quads.as_ptr().cast::<u8>().add(j * Self::LANES));
            }
            v
        }
    }
    /// The four bytes of four columns for each of `TOKENS` tokens, 4 or 8, one in each lane, in order: what is left of the last
    /// register is anything. `TOKENS` bytes are read at each pointer.
    #[inline(always)]
    unsafe fn gather_tokens<const TOKENS: usize, const VECS: usize>(
        lines: [*const u8; 4],
    ) -> [Self::V; VECS] {
        let mut quads = [[0u8; 4]; 8];
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            for t in 0..TOKENS {
                for c in 0..4 {
                    quads[t][c] = *lines[c].add(t);
                }
            }
            Self::load_tokens::<TOKENS, VECS>(quads.as_ptr().cast())
        }
    }
    /// Loads the four bytes of each of `TOKENS` tokens, 4 or 8, one in each lane: what is left of the last register is anything.
    #[inline(always)]
    unsafe fn load_tokens<const TOKENS: usize, const VECS: usize>(p: *const u8) -> [Self::V; VECS] {
        const { assert!(Self::LANES == 4) };
        // SAFETY: the caller vouches for the tier, and for four bytes of each token.
        unsafe { Self::loads::<VECS, 0>(p) }
    }
    /// Loads 16 bytes at `p` into each 16-byte part.
    unsafe fn each_part(p: *const u8) -> Self::V;
    /// Loads four bytes at `p`, as element 0.
    unsafe fn quad(p: *const u8) -> Self::Q;
    /// Loads `QUADS * 4` bytes, `16 * I` bytes behind `p`.
    #[inline(always)]
    unsafe fn quads<const I: i32>(p: *const u8) -> Self::Q {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe { Self::quad(p.add(16 * I as usize)) }
    }
    /// The four bytes of element `I`, in every lane.
    unsafe fn all<const I: i32>(q: Self::Q) -> Self::V;
    /// [`Simd::dot`] with one group of four bytes of w, element `I`, for all lanes.
    unsafe fn dot_quad<const I: i32>(acc: Self::V, x: Self::X, w: Self::Q) -> Self::V;
    /// A step of attention: element `I` of x, four unsigned bytes, times the four bytes of each column; these are
    /// signed where [`Simd::MIXED`], else unsigned.
    unsafe fn dot_columns<const I: i32>(acc: Self::V, x: Self::Q, columns: Self::V) -> Self::V;
    /// [`Simd::dot_columns`] with a register of x, lane by lane.
    #[inline(always)]
    unsafe fn dot_key(acc: Self::V, x: Self::X, key: Self::V) -> Self::V {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe { Self::dot(acc, x, Self::w(key)) }
    }
    /// Loads four bytes of its own into each lane, in the type that is otherwise broadcast. Only where `QUADS` is 1.
    #[inline(always)]
    unsafe fn quad_of_each(_p: *const u8) -> Self::Q {
        unreachable!("elements of a register multiply")
    }
    /// Whether [`Simd::X`] has room for bytes moved by 255 either way, so that [`Simd::shift`] exists.
    const SHIFTS: bool = false;
    /// Adds `by` to each byte of x.
    #[inline(always)]
    unsafe fn shift(_x: Self::X, _by: i32) -> Self::X {
        unreachable!("x are bytes")
    }
    /// Lane i of each 16-byte part is the sum of the lanes of that part in register i.
    #[inline(always)]
    unsafe fn lane_sums(v: [Self::V; 4]) -> Self::V {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            let v = Self::transpose4(v);
            Self::add(Self::add(v[0], v[1]), Self::add(v[2], v[3]))
        }
    }
    /// 16-byte part p is the sum of all parts of register p, of as many registers as there are parts.
    #[inline(always)]
    unsafe fn part_sums(v: [Self::V; 4]) -> Self::V {
        const { assert!(Self::LANES == 4) };
        v[0]
    }
    /// Transposes 4 x 4 lanes inside each 16-byte part: result c holds lane c of v[0], v[1], v[2], v[3].
    unsafe fn transpose4(v: [Self::V; 4]) -> [Self::V; 4];
    /// The lanes of a and b by turns, inside each 16-byte part: those of its lower half, then of its upper half.
    unsafe fn zip_lanes(a: Self::V, b: Self::V) -> [Self::V; 2];
    /// Stores 16-byte part i of the register at `p + i * stride` (bytes).
    unsafe fn store_parts(p: *mut u8, stride: usize, v: Self::V);
    /// Loads 16-byte part i of the register from `p + i * stride` (bytes).
    unsafe fn load_parts(p: *const u8, stride: usize) -> Self::V;
    /// Loads four bfloat16 for each 16-byte part, exactly widened: those of part i from `p + i * stride` (bytes).
    #[inline(always)]
    unsafe fn load_bf16_parts(p: *const u8, _stride: usize) -> Self::F {
        const { assert!(Self::LANES == 4) };
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe { Self::load_bf16(p.cast()) }
    }
    /// Loads four f16 for each 16-byte part, exactly widened: those of part i from `p + i * stride` (bytes).
    #[inline(always)]
    unsafe fn load_f16_parts(p: *const u8, _stride: usize) -> Self::F {
        const { assert!(Self::LANES == 4) };
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe { Self::load_f16(p.cast()) }
    }
    /// Lane by lane `a * b`, wrapping.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// Lane by lane `a - b`, wrapping.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// Lane by lane the larger.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise exclusive or.
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    /// The wrapping sum of all lanes.
    unsafe fn sum(v: Self::V) -> i32;
    /// Adds unsigned bytes to the lanes of `acc`. Only the sum of all lanes is defined: a byte may go to any lane.
    unsafe fn add_bytes(acc: Self::V, bytes: Self::V) -> Self::V;

    /// Prefetches the cache line at `p`, which need not be readable, into the first-level cache.
    #[inline(always)]
    unsafe fn prefetch(_p: *const i8) {}
    /// Prefetches the cache line at `p`, which need not be readable, no nearer than the second-level cache: what
    /// comes from memory should not hold up what is needed now.
    #[inline(always)]
    unsafe fn prefetch_far(_p: *const u8) {}
    /// Loads one step of K of `LANES` output features: `LANES * 4 / X_BYTES` bytes, feature by feature.
    unsafe fn dense_w(p: *const i8) -> Self::V;
    /// Adds one step of the dense loop: four bytes of x, element `I`, times those of each output feature.
    unsafe fn dense_dot<const I: i32>(acc: Self::V, x: Self::Q, w: Self::V) -> Self::V;

    /// How many registers the CPU has.
    const REGISTERS: usize;
    /// Whether the CPU multiplies matrices, 2x8 by 8x2 bytes, so that the methods up to [`Simd::rows4`] exist.
    const MATRIX: bool = false;
    /// Adds the products of two rows of eight unsigned bytes with two rows of eight signed ones. Lanes are the
    /// products of rows (0, 0), (0, 1), (1, 0), (1, 1).
    #[inline(always)]
    unsafe fn matrix(_acc: Self::V, _x: Self::V, _w: Self::V) -> Self::V {
        unreachable!("no products of matrices")
    }
    /// A tile of `MR` rows times `NV` registers of columns. Columns are laid out by [`TOGETHER`] bytes of K if
    /// `READY`, else interleaved by 4.
    #[inline(always)]
    unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(_t: &Tile) {
        unreachable!("no products of matrices")
    }
    /// Sums of four rows of weights, started from the four numbers at `init`, in the order of lanes that the tier
    /// multiplies in.
    #[inline(always)]
    unsafe fn sums4<const VECS: usize>(_init: *const i32) -> [[Self::V; VECS]; 4] {
        unreachable!("no products of matrices")
    }
    /// Adds two entries of four rows: four bytes of x a lane, and four bytes of w for each row and entry.
    #[inline(always)]
    unsafe fn entries4<const VECS: usize>(
        _sums: &mut [[Self::V; VECS]; 4],
        _x: [[Self::X; VECS]; 2],
        _w: [Self::V; 2],
    ) {
        unreachable!("no products of matrices")
    }
    /// The sums of [`Simd::sums4`] after their entries, row by row.
    #[inline(always)]
    unsafe fn rows4<const VECS: usize>(_sums: [[Self::V; VECS]; 4]) -> [[Self::V; VECS]; 4] {
        unreachable!("no products of matrices")
    }

    /// Loads the bytes of x of one token so that each group of four is there for `R` rows of weights: lane l is the
    /// four bytes numbered `l / R` at `p`. R is 1, 4 or 8; `max(LANES / R, 1)` groups of four are read.
    unsafe fn repeat<const R: usize>(p: *const u8) -> Self::V;

    /// The bits of i32 lanes as f32 lanes.
    unsafe fn as_f(v: Self::V) -> Self::F;
    /// The bits of f32 lanes as i32 lanes.
    unsafe fn as_v(f: Self::F) -> Self::V;
    /// Loads `LANES` bfloat16 at `p`, exactly widened.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// Loads `LANES` f16 at `p`, exactly widened.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// Loads `LANES` signed bytes at `p`, exactly widened.
    unsafe fn load_i8(p: *const i8) -> Self::F;
    /// Stores `LANES` bfloat16 at `p`, rounded to nearest even; NaN stays NaN.
    unsafe fn store_bf16(p: *mut u16, f: Self::F);
    /// [`Simd::store_bf16`] of two registers, one after the other.
    #[inline(always)]
    unsafe fn store_2_bf16(p: *mut u16, f: [Self::F; 2]) {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            Self::store_bf16(p, f[0]);
            Self::store_bf16(p.add(Self::LANES), f[1]);
        }
    }
    /// Stores `LANES` f16 at `p`, rounded to nearest even; NaN stays NaN.
    unsafe fn store_f16(p: *mut u16, f: Self::F);

    /// Gathers four entries of any four columns for one token: 16 indices are read, 16 bytes of x written.
    #[inline(always)]
    unsafe fn gather4(x: *const u8, indices: *const u16, to: *mut u32) {
        for i in 0..16 {
            // SAFETY: the caller vouches for 16 indices, which are inside x, and for 16 bytes at `to`.
            unsafe { *to.cast::<u8>().add(i) = *x.add(usize::from(*indices.add(i))) };
        }
    }
    /// From how many stored columns of 256 [`Simd::token`] is faster than to gather x into memory first: where
    /// entries are any four columns, and where they are four adjacent ones.
    const LOOKS_UP: [usize; 2] = [usize::MAX; 2];
    /// The sums of one group for one token: `R` rows, 1 or 4, and `len` entries. An index is a column of x, or, with
    /// `QUADS`, the number of four adjacent columns; those of a group ascend.
    #[inline(always)]
    unsafe fn token<const R: usize, const QUADS: bool>(
        x: &[u8],
        indices: *const u16,
        weights: *const i8,
        len: usize,
    ) -> [i32; 4] {
        let mut sums = [0i32; 4];
        for i in 0..4 * len {
            for r in 0..R {
                // SAFETY: the caller vouches for the entries: indices inside x, weights `[R][4]` each.
                let (x, w) = unsafe {
                    let index = |i: usize| usize::from(*indices.add(i));
                    let at = if QUADS { 4 * index(i / 4) + i % 4 } else { index(i) };
                    (*x.get_unchecked(at), *weights.add((i / 4 * R + r) * 4 + i % 4))
                };
                sums[r] = sums[r].wrapping_add(i32::from(x) * i32::from(w));
            }
        }
        sums
    }

    /// Converts i32 to f32, rounded to nearest even.
    unsafe fn to_f32(v: Self::V) -> Self::F;
    /// Converts f32 to i32, rounded to nearest even. The value must be inside i32; NaN gives an integer whose low byte is 0.
    unsafe fn round(f: Self::F) -> Self::V;
    /// All lanes `value`.
    unsafe fn splat_f(value: f32) -> Self::F;
    /// Loads `LANES` f32 at `p`.
    unsafe fn load_f(p: *const f32) -> Self::F;
    /// Stores `LANES` f32 at `p`.
    unsafe fn store_f(p: *mut f32, v: Self::F);
    /// Lane by lane `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Loads `ROWS` f32 at `p`, 4, 2 or 1, which need not be aligned, as weights are not; the others are 0.
    unsafe fn load_r<const ROWS: usize>(p: *const f32) -> Self::R;
    /// Stores the first `ROWS` f32 at `p`, 4, 2 or 1.
    unsafe fn store_r<const ROWS: usize>(p: *mut f32, v: Self::R);
    /// Lane by lane `acc + *x * w[l]`, rounded once; x need not be aligned.
    unsafe fn add_product(acc: Self::R, x: *const f32, w: Self::R) -> Self::R;
    /// Lane by lane `a + b`.
    unsafe fn add_f(a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane `a - b`.
    unsafe fn sub_f(a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane `a * b`.
    unsafe fn mul_f(a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane `a / b`.
    unsafe fn div_f(a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane the smaller; `b` if either is NaN.
    unsafe fn min_f(a: Self::F, b: Self::F) -> Self::F;
    /// Lane by lane the larger; `b` if either is NaN.
    unsafe fn max_f(a: Self::F, b: Self::F) -> Self::F;
    /// `min(|a|, limit)` for a positive limit; the limit if a is NaN.
    unsafe fn abs_min_f(a: Self::F, limit: Self::F) -> Self::F;
    /// `a` minus the integer nearest to it, ties to even; |a| is below 2^22.
    unsafe fn reduce_f(a: Self::F) -> Self::F;
    /// `table[bits(i) % 16]` per lane.
    unsafe fn lookup16(table: &[f32; 16], i: Self::F) -> Self::F;
    /// `a * 2^n`, where `magic = n + 1.5 * 2^23`, by adding n to the exponent: a is in [0.5, 2], n in [-126, 126].
    unsafe fn ldexp(a: Self::F, magic: Self::F) -> Self::F;

    /// `a * 2^n`, exact for an integer n in -126 ..= 126 and a in [0.5, 2]; NaN if a is.
    unsafe fn power(a: Self::F, n: Self::F) -> Self::F;
    /// `a` in lanes where t is not below `limit` (NaN is not), else 0.
    unsafe fn at_least(a: Self::F, t: Self::F, limit: Self::F) -> Self::F;
    /// Bit l is set where lane l is not 0.
    unsafe fn nonzero(v: Self::V) -> u32;
    /// The number of bytes that are not 0.
    unsafe fn nonzero_bytes(v: Self::V) -> u32;
    /// Stores the lanes whose bit is set, in order, at `p`, where a whole register fits.
    #[inline(always)]
    unsafe fn compress(p: *mut u32, v: Self::V, mut mask: u32) {
        let mut lanes = [0u32; 16];
        // SAFETY: the caller vouches for the tier; no more lanes are written than a register has.
        unsafe {
            Self::store(lanes.as_mut_ptr().cast(), v);
            let mut p = p;
            while mask != 0 {
                *p = lanes[mask.trailing_zeros() as usize];
                p = p.add(1);
                mask &= mask - 1;
            }
        }
    }

    /// Narrows four registers of i32 to one of bytes, inside each 16-byte part: adds `zero` and saturates to 0 ..=
    /// 255.
    unsafe fn pack4(v: [Self::V; 4], zero: i32) -> Self::V;
    /// As [`Simd::pack4`], in the order of memory.
    unsafe fn pack_in_order(v: [Self::V; 4], zero: i32) -> Self::V;
    /// Stores the first half of a register at `first`, the second at `second`.
    #[inline(always)]
    unsafe fn store_apart(first: *mut u8, second: *mut u8, v: Self::V) {
        let mut bytes = [0u8; 64];
        let half = const { Self::LANES * 2 };
        // SAFETY: the caller vouches for the tier, and for half a register at each pointer; no register is wider than 64 bytes.
        unsafe {
            Self::store(bytes.as_mut_ptr(), v);
            first.copy_from_nonoverlapping(bytes.as_ptr(), half);
            second.copy_from_nonoverlapping(bytes.as_ptr().add(half), half);
        }
    }
    /// Narrows two registers as [`Simd::pack4`] does and limits the bytes to `low ..= high`: the 8 bytes of part i go
    /// to `p + 16 * i`.
    unsafe fn store_pack2(p: *mut u8, a: Self::V, b: Self::V, zero: i32, low: u8, high: u8);
    /// Bytes limited to `low ..= high`.
    unsafe fn clamp_bytes(v: Self::V, low: u8, high: u8) -> Self::V;
    /// Whether [`Simd::lookup256`] is made of instructions on registers.
    const LOOKS_UP_BYTES: bool = false;
    /// `table[b]` for each byte b.
    #[inline(always)]
    unsafe fn lookup256(table: &[u8; 256], v: Self::V) -> Self::V {
        let mut bytes = [0u8; 64];
        // SAFETY: the caller vouches for the tier; no register is wider than 64 bytes.
        unsafe {
            Self::store(bytes.as_mut_ptr(), v);
            for byte in &mut bytes[..Self::LANES * 4] {
                *byte = table[usize::from(*byte)];
            }
            Self::load(bytes.as_ptr())
        }
    }
    /// Stores the low byte of each of `LANES` i32 at `p`.
    unsafe fn store_bytes(p: *mut u8, v: Self::V);
    /// [`Simd::store_bytes`] of two registers, one after the other.
    #[inline(always)]
    unsafe fn store_2_bytes(p: *mut u8, v: [Self::V; 2]) {
        // SAFETY: the caller vouches for the tier, and for the bytes at pointers.
        unsafe {
            Self::store_bytes(p, v[0]);
            Self::store_bytes(p.add(Self::LANES), v[1]);
        }
    }
}

/// A tier with a dot product of bfloat16 pairs.
///
/// # Safety
/// Implementors and callers keep the promises of [`Simd`].
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "no other row multiplies pairs")
)]
pub unsafe trait Bf16: Simd {
    /// Interleaves the 2-byte elements of a and b inside each 16-byte part: result 0 those of the first half of the
    /// part, result 1 those of the second.
    unsafe fn zip(a: Self::V, b: Self::V) -> [Self::V; 2];
    /// `acc[l] + x[0] * w[2l] + x[1] * w[2l + 1]`, where x is the pair of element `I`, rounded as the instruction
    /// does it.
    unsafe fn dot_bf16<const I: i32>(acc: Self::F, x: Self::Q, w: Self::V) -> Self::F;
    /// [`Simd::matrix`] of bfloat16, 2x4 by 4x2: gives the bits of a dot product of the first pairs, then of the
    /// second.
    #[inline(always)]
    unsafe fn matrix_bf16(_acc: Self::F, _x: Self::V, _w: Self::V) -> Self::F {
        unreachable!("no products of matrices")
    }
    /// [`Simd::tile`] of bfloat16.
    #[inline(always)]
    unsafe fn tile_bf16<const MR: usize, const NV: usize, const READY: bool>(_t: &Tile) {
        unreachable!("no products of matrices")
    }
}
