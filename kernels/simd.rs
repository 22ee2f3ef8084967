//! What an instruction set hand-writes: one register of 32-bit lanes, and a dot product of bytes into it.
//!
//! Everything above (the sparse and dense loops, the epilogue, the activations) is written once over [`Simd`].
//! Every operation here is exact or IEEE-rounded once, so all tiers give the same bits.

use super::attention::multiply::Tile;

/// Where the number of a line is in its offset.
pub const LINE: usize = 0xffff << 6;

/// Bytes of a row that a product of matrices multiplies at a time.
pub const TOGETHER: usize = 8;

/// One register of `LANES` 32-bit lanes, seen as i32 (`V`) or f32 (`F`); in memory order, lanes of 16 bytes matter:
/// `interleave` and the packs work inside each 16-byte part, as x86 and Arm do.
///
/// # Safety
/// Implementors compute what each method says. Callers of any method run on a CPU with the features that the registers are made for; pointer
/// arguments are valid for the bytes named.
pub unsafe trait Simd: Copy + 'static {
    /// 32-bit lanes in a register: 4, 8 or 16.
    const LANES: usize;
    /// Bytes of one element of x in the dense loop: 1 where the dot product takes four bytes, 2 where it takes a pair
    /// of 16-bit integers. A step of the dense loop is 4 bytes of x: `4 / X_BYTES` elements of K.
    const X_BYTES: usize;
    /// Whether a dot product of bytes is one instruction, on registers alone.
    const ONE_INSTRUCTION: bool = Self::X_BYTES == 1;
    /// Whether a dot product takes unsigned bytes of x and signed ones of w. Where the CPU multiplies only bytes of a kind,
    /// linear layers flip the top bit of x, which makes it signed too, and attention that of its columns, unsigned like x.
    const MIXED: bool;
    /// Quads that [`Simd::quads`] brings: 1, in every lane, or 4, each multiplied as element `I` of its register.
    const QUADS: usize;
    /// A register as i32 lanes, or as bytes.
    type V: Copy;
    /// A register as f32 lanes.
    type F: Copy;
    /// Quads of x, ready for [`Simd::dot`].
    type X: Copy;
    /// Quads of w, ready for [`Simd::dot`].
    type W: Copy;
    /// Quads that every lane is multiplied with.
    type Q: Copy;

    /// All lanes `value`.
    unsafe fn splat(value: i32) -> Self::V;
    /// `LANES * 4` bytes at `p`.
    unsafe fn load(p: *const u8) -> Self::V;
    /// `N` registers side by side, those from register `I * N` on.
    #[inline(always)]
    unsafe fn loads<const N: usize, const I: i32>(p: *const u8) -> [Self::V; N] {
        // SAFETY: as the caller.
        unsafe {
            let p = p.add(I as usize * N * Self::LANES * 4);
            let mut v = [Self::load(p); N];
            for i in 1..N {
                v[i] = Self::load(p.add(i * Self::LANES * 4));
            }
            v
        }
    }
    /// `N` registers, 64 bytes from each to the next.
    #[inline(always)]
    unsafe fn loads_apart<const N: usize>(p: *const u8) -> [Self::V; N] {
        // SAFETY: as the caller.
        unsafe {
            let mut v = [Self::load(p); N];
            for i in 1..N {
                v[i] = Self::load(p.add(64 * i));
            }
            v
        }
    }
    /// Four lines of 64 bytes at `p`, whose numbers are the 16-bit parts of `four`: a register of each.
    #[inline(always)]
    unsafe fn lines(p: *const u8, four: usize) -> [Self::V; 4] {
        // SAFETY: as the caller.
        unsafe {
            [
                Self::load(p.add((four << 6) & LINE)),
                Self::load(p.add((four >> 10) & LINE)),
                Self::load(p.add((four >> 26) & LINE)),
                Self::load(p.add((four >> 42) & LINE)),
            ]
        }
    }
    /// `LANES * 4` bytes to `p`.
    unsafe fn store(p: *mut u8, v: Self::V);
    /// Lane sums, wrapping.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;

    /// Makes quads of x ready.
    unsafe fn x(quads: Self::V) -> Self::X;
    /// Makes quads of w ready.
    unsafe fn w(quads: Self::V) -> Self::W;
    /// `acc[l] += sum over i of x[4l + i] * w[4l + i]`, exact, wrapping at 2^32.
    unsafe fn dot(acc: Self::V, x: Self::X, w: Self::W) -> Self::V;
    /// Four lines of bytes to quads, inside each 16-byte part: byte b of the four lines becomes lane b % 4 of part
    /// in result b / 4.
    unsafe fn interleave(a: Self::V, b: Self::V, c: Self::V, d: Self::V) -> [Self::V; 4];
    /// 16 tokens of four lines to quads: register i holds tokens `i * LANES ..`; 16 bytes are read at each pointer.
    /// Only the first `16 / LANES` results count.
    unsafe fn gather16(lines: [*const u8; 4]) -> [Self::V; 4];
    /// Four bytes at `p`, as element 0.
    unsafe fn quad(p: *const u8) -> Self::Q;
    /// `QUADS * 4` bytes, `16 * I` bytes behind `p`.
    #[inline(always)]
    unsafe fn quads<const I: i32>(p: *const u8) -> Self::Q {
        // SAFETY: as the caller.
        unsafe { Self::quad(p.add(16 * I as usize)) }
    }
    /// A quad, in every lane.
    unsafe fn all<const I: i32>(q: Self::Q) -> Self::V;
    /// As [`Simd::dot`], of one quad of w.
    unsafe fn dot_quad<const I: i32>(acc: Self::V, x: Self::X, w: Self::Q) -> Self::V;
    /// A step of attention: x is a quad of unsigned bytes, the columns are signed where [`Simd::MIXED`], else unsigned.
    unsafe fn dot_columns<const I: i32>(acc: Self::V, x: Self::Q, columns: Self::V) -> Self::V;
    /// As [`Simd::dot_columns`], of a register of x: lane by lane.
    #[inline(always)]
    unsafe fn dot_key(acc: Self::V, x: Self::X, key: Self::V) -> Self::V {
        // SAFETY: as the caller.
        unsafe { Self::dot(acc, x, Self::w(key)) }
    }
    /// A quad of its own in each lane, where a quad is in all of them: `QUADS` is 1.
    #[inline(always)]
    unsafe fn quad_of_each(_p: *const u8) -> Self::Q {
        unreachable!("elements of a register multiply")
    }
    /// Whether [`Simd::X`] has room for bytes moved by 255 either way, and so [`Simd::shift`] is there.
    const SHIFTS: bool = false;
    /// `by` added to each byte of x.
    #[inline(always)]
    unsafe fn shift(_x: Self::X, _by: i32) -> Self::X {
        unreachable!("x are bytes")
    }
    /// Lane i of each part is the sum of that part of register i.
    #[inline(always)]
    unsafe fn lane_sums(v: [Self::V; 4]) -> Self::V {
        // SAFETY: as the caller.
        unsafe {
            let v = Self::transpose4(v);
            Self::add(Self::add(v[0], v[1]), Self::add(v[2], v[3]))
        }
    }
    /// Part p is the sum of the parts of register p; of as many registers as there are parts.
    #[inline(always)]
    unsafe fn part_sums(v: [Self::V; 4]) -> Self::V {
        const { assert!(Self::LANES == 4) };
        v[0]
    }
    /// Four registers of four i32 a part, transposed inside each part: result c holds element c of a, b, c, d.
    unsafe fn transpose4(v: [Self::V; 4]) -> [Self::V; 4];
    /// 16-byte part i of the register to `p + i * stride` (bytes).
    unsafe fn store_parts(p: *mut u8, stride: usize, v: Self::V);
    /// 16-byte part i of the register from `p + i * stride` (bytes).
    unsafe fn load_parts(p: *const u8, stride: usize) -> Self::V;
    /// Four bfloat16 of each part, exact: those of part i from `p + i * stride` (bytes).
    #[inline(always)]
    unsafe fn load_bf16_parts(p: *const u8, _stride: usize) -> Self::F {
        const { assert!(Self::LANES == 4) };
        // SAFETY: as the caller.
        unsafe { Self::load_bf16(p.cast()) }
    }
    /// Elements of f16, taken by parts and widened.
    #[inline(always)]
    unsafe fn load_f16_parts(p: *const u8, _stride: usize) -> Self::F {
        const { assert!(Self::LANES == 4) };
        // SAFETY: as the caller.
        unsafe { Self::load_f16(p.cast()) }
    }
    /// Lane products, wrapping.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// Lane differences, wrapping.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each lane.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise exclusive or.
    unsafe fn xor(a: Self::V, b: Self::V) -> Self::V;
    /// The wrapping sum of all lanes.
    unsafe fn sum(v: Self::V) -> i32;
    /// Adds unsigned bytes, each to any lane.
    unsafe fn add_bytes(acc: Self::V, bytes: Self::V) -> Self::V;

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch(_p: *const i8) {}
    /// Asks for the cache line at `p`, which need not be readable, no nearer than the second-level cache: what comes from memory
    /// should not wait in line with what is needed now.
    #[inline(always)]
    unsafe fn prefetch_far(_p: *const u8) {}
    /// One step of K of `LANES` output features: `LANES * 4 / X_BYTES` bytes, feature by feature.
    unsafe fn dense_w(p: *const i8) -> Self::V;
    /// Adds one step of four bytes of x.
    unsafe fn dense_dot<const I: i32>(acc: Self::V, x: Self::Q, w: Self::V) -> Self::V;

    /// How many registers there are.
    const REGISTERS: usize;
    /// Whether the CPU multiplies matrices, 2x8 by 8x2 bytes, and so the methods up to [`Simd::rows4`] are there.
    const MATRIX: bool = false;
    /// Adds the products of two rows of eight unsigned bytes with two of signed ones: lanes are (0, 0), (0, 1), (1, 0), (1, 1).
    #[inline(always)]
    unsafe fn matrix(_acc: Self::V, _x: Self::V, _w: Self::V) -> Self::V {
        unreachable!("no products of matrices")
    }
    /// A tile of `MR` rows times `NV` registers of columns. `READY` columns lie by [`TOGETHER`] bytes, others by quads.
    #[inline(always)]
    unsafe fn tile<const MR: usize, const NV: usize, const READY: bool>(_t: &Tile) {
        unreachable!("no products of matrices")
    }
    /// Sums of four rows of weights, from their numbers at `init` on, in the tier's own order.
    #[inline(always)]
    unsafe fn sums4<const VECS: usize>(_init: *const i32) -> [[Self::V; VECS]; 4] {
        unreachable!("no products of matrices")
    }
    /// Adds two entries of four rows: quads of x, and each entry's four quads of w.
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

    /// Lane l is quad `l / R` at `p`: the quads of one token, each for `R` rows of weights. R is 1, 4 or 8;
    /// `max(LANES / R, 1)` quads are read.
    unsafe fn repeat<const R: usize>(p: *const u8) -> Self::V;

    /// The bits of i32 lanes as f32 lanes.
    unsafe fn as_f(v: Self::V) -> Self::F;
    /// The bits of f32 lanes as i32 lanes.
    unsafe fn as_v(f: Self::F) -> Self::V;
    /// `LANES` bfloat16 at `p`, exact.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// `LANES` halves at `p`, exact.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// `LANES` signed bytes at `p`, exact.
    unsafe fn load_i8(p: *const i8) -> Self::F;
    /// `LANES` bfloat16 to `p`, rounded to nearest even; NaN stays NaN.
    unsafe fn store_bf16(p: *mut u16, f: Self::F);
    /// As [`Simd::store_bf16`] of two registers, one after the other.
    #[inline(always)]
    unsafe fn store_2_bf16(p: *mut u16, f: [Self::F; 2]) {
        // SAFETY: as the caller.
        unsafe {
            Self::store_bf16(p, f[0]);
            Self::store_bf16(p.add(Self::LANES), f[1]);
        }
    }
    /// `LANES` halves to `p`, rounded to nearest even; NaN stays NaN.
    unsafe fn store_f16(p: *mut u16, f: Self::F);

    /// Four entries of lines of one token, gathered: 16 indices are read, 4 quads written.
    #[inline(always)]
    unsafe fn gather4(x: *const u8, indices: *const u16, to: *mut u32) {
        for i in 0..16 {
            // SAFETY: the caller vouches for the pointers.
            unsafe { *to.cast::<u8>().add(i) = *x.add(usize::from(*indices.add(i))) };
        }
    }
    /// How many of 256 columns must be stored, any and quads, for [`Simd::token`] to be faster than to gather x into
    /// memory first.
    const LOOKS_UP: [usize; 2] = [usize::MAX; 2];
    /// The sums of one group for one token: `R` rows, 1 or 4, and `len` entries, of quads or of any four columns. Indices
    /// ascend and are quads or columns of x.
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
                // SAFETY: the caller vouches for the entries, each `[R][4]`.
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

    /// i32 to f32, rounded to nearest even.
    unsafe fn to_f32(v: Self::V) -> Self::F;
    /// f32 to i32, rounded to nearest even. The value must be inside i32.
    unsafe fn round(f: Self::F) -> Self::V;
    /// All lanes `value`.
    unsafe fn splat_f(value: f32) -> Self::F;
    /// `LANES` floats at `p`.
    unsafe fn load_f(p: *const f32) -> Self::F;
    /// `LANES` floats to `p`.
    unsafe fn store_f(p: *mut f32, v: Self::F);
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Sum.
    unsafe fn add_f(a: Self::F, b: Self::F) -> Self::F;
    /// Difference.
    unsafe fn sub_f(a: Self::F, b: Self::F) -> Self::F;
    /// Product.
    unsafe fn mul_f(a: Self::F, b: Self::F) -> Self::F;
    /// Quotient.
    unsafe fn div_f(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    unsafe fn min_f(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN.
    unsafe fn max_f(a: Self::F, b: Self::F) -> Self::F;
    /// `min(|a|, limit)` for a positive limit; the limit if a is NaN.
    unsafe fn abs_min_f(a: Self::F, limit: Self::F) -> Self::F;
    /// `a` less the integer nearest to it, ties to even; |a| is below 2^22.
    unsafe fn reduce_f(a: Self::F) -> Self::F;
    /// `table[bits(i) % 16]` per lane.
    unsafe fn lookup16(table: &[f32; 16], i: Self::F) -> Self::F;
    /// `a * 2^n`, where `magic = n + 1.5 * 2^23`, by adding n to the exponent: a is in [0.5, 2], n in [-126, 126].
    unsafe fn ldexp(a: Self::F, magic: Self::F) -> Self::F;

    /// `a * 2^n`, exact for an integer n in -126 ..= 126 and a in [0.5, 2]; NaN if a is.
    unsafe fn power(a: Self::F, n: Self::F) -> Self::F;
    /// `a` where t is not below `limit`, else 0.
    unsafe fn at_least(a: Self::F, t: Self::F, limit: Self::F) -> Self::F;
    /// Bit l is whether lane l is not 0.
    unsafe fn nonzero(v: Self::V) -> u32;
    /// How many bytes are not 0.
    unsafe fn nonzero_bytes(v: Self::V) -> u32;
    /// The lanes whose bit is set, in order, to `p`, where a whole register fits.
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

    /// Four registers of i32 to one of bytes, adding `zero`, saturating to 0 ..= 255, inside each 16-byte part.
    unsafe fn pack4(v: [Self::V; 4], zero: i32) -> Self::V;
    /// Four registers of i32 to one of bytes, saturating to 0 ..= 255, in the order of memory.
    unsafe fn pack_in_order(v: [Self::V; 4]) -> Self::V;
    /// As [`Simd::pack4`] of two registers: the 8 bytes of part i go to `p + 16 * i`, limited to `low ..= high`.
    unsafe fn store_pack2(p: *mut u8, a: Self::V, b: Self::V, zero: i32, low: u8, high: u8);
    /// Bytes limited to `low ..= high`.
    unsafe fn clamp_bytes(v: Self::V, low: u8, high: u8) -> Self::V;
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
    /// `LANES` i32, known to be inside 0 ..= 255, to that many bytes at `p`.
    unsafe fn store_bytes(p: *mut u8, v: Self::V);
}

/// A tier with a dot product of bfloat16 pairs.
///
/// # Safety
/// As [`Simd`].
pub unsafe trait Bf16: Simd {
    /// Elements of 2 bytes of both in turn, inside each 16-byte part: those of its first half, and of its second.
    unsafe fn zip(a: Self::V, b: Self::V) -> [Self::V; 2];
    /// `acc[l] + x[0] * w[2l] + x[1] * w[2l + 1]`, rounded as the instruction does it.
    unsafe fn dot_bf16<const I: i32>(acc: Self::F, x: Self::Q, w: Self::V) -> Self::F;
    /// As [`Simd::matrix`], 2x4 by 4x2: the same bits as a dot product of the first pairs, then of the second.
    #[inline(always)]
    unsafe fn matrix_bf16(_acc: Self::F, _x: Self::V, _w: Self::V) -> Self::F {
        unreachable!("no products of matrices")
    }
    /// As [`Simd::tile`].
    #[inline(always)]
    unsafe fn tile_bf16<const MR: usize, const NV: usize, const READY: bool>(_t: &Tile) {
        unreachable!("no products of matrices")
    }
}
