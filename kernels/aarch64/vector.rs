//! 128-bit registers of Arm (NEON): every method of `Simd` but the dot products of bytes.
//!
//! ```text
//! 4 lanes of 32 bits; one 16-byte part; methods are the NEON instructions of their meaning:
//!     interleave  zip1, zip2     transpose4  trn1, trn2, then zip1, zip2     fma  fmla     lookup16, lookup256  tbl
//! ```

/// Loads a register from `p` plus a constant, by `ldur`: on the Neoverse N1 `ldr` with a scaled offset is two
/// operations, and `ldp` is three.
macro_rules! ldur {
    ($to:expr, $p:expr, $offset:expr) => {
        std::arch::asm!(
            "ldur {0:q}, [{1}, #{2}]", lateout(vreg) $to, in(reg) $p, const $offset,
            options(pure, readonly, nostack, preserves_flags)
        )
    };
}

/// Loads a register from `p` plus an offset in a register, by `ldr`: for `ldur` the compiler would add them first.
macro_rules! ldr {
    ($to:expr, $p:expr, $offset:expr) => {
        std::arch::asm!(
            "ldr {0:q}, [{1}, {2}]", lateout(vreg) $to, in(reg) $p, in(reg) $offset,
            options(pure, readonly, nostack, preserves_flags)
        )
    };
}

/// The methods of [`Simd`](crate::kernels::simd::Simd) that need nothing beyond NEON. Each tier adds its own dot
/// products.
macro_rules! vector {
    () => {
        const REGISTERS: usize = 32;
        const LANES: usize = 4;
        const X_BYTES: usize = 1;
        const QUADS: usize = 4;
        type V = int32x4_t;
        type R = float32x4_t;
        type F = float32x4_t;
        type Q = int32x4_t;
        type X = int32x4_t;
        type W = int32x4_t;

        #[inline(always)]
        unsafe fn x(quads: int32x4_t) -> int32x4_t {
            quads
        }

        #[inline(always)]
        unsafe fn w(quads: int32x4_t) -> int32x4_t {
            quads
        }

        #[inline(always)]
        unsafe fn splat(value: i32) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vdupq_n_s32(value) }
        }

        #[inline(always)]
        unsafe fn load(p: *const u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vreinterpretq_s32_u8(vld1q_u8(p)) }
        }

        #[inline(always)]
        unsafe fn loads<const N: usize, const I: i32>(p: *const u8) -> [int32x4_t; N] {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let mut v = [vdupq_n_s32(0); N];
                if N == 4 && I < 4 {
                    ldur!(v[0], p, 64 * (I % 4));
                    ldur!(v[1 % N], p, 64 * (I % 4) + 16);
                    ldur!(v[2 % N], p, 64 * (I % 4) + 32);
                    ldur!(v[3 % N], p, 64 * (I % 4) + 48);
                } else if N == 1 && I < 16 {
                    ldur!(v[0], p, 16 * (I % 16));
                } else if N == 2 && I < 8 {
                    ldur!(v[0], p, 32 * (I % 8));
                    ldur!(v[1 % N], p, 32 * (I % 8) + 16);
                } else {
                    for i in 0..N {
                        v[i] = Self::load(p.add(16 * (I as usize * N + i)));
                    }
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn loads_apart<const N: usize>(p: *const u8) -> [int32x4_t; N] {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                const { assert!(N <= 4) };
                let mut v = [vdupq_n_s32(0); N];
                ldur!(v[0], p, 0);
                if N > 1 {
                    ldur!(v[1 % N], p, 64);
                }
                if N > 2 {
                    ldur!(v[2 % N], p, 128);
                }
                if N > 3 {
                    ldur!(v[3 % N], p, 192);
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn lines(p: *const u8, four: u64) -> [int32x4_t; 4] {
            let four = four as usize;
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let line: usize;
                // The mask comes from an instruction that the compiler cannot see through: with a known constant, it
                // would not use `and` with a shifted operand, but a second operation.
                std::arch::asm!("mov {}, {}", out(reg) line, const LINE, options(pure, nomem, nostack, preserves_flags));
                let mut v = [vdupq_n_s32(0); 4];
                ldr!(v[0], p, (four << 6) & line);
                ldr!(v[1], p, (four >> 10) & line);
                ldr!(v[2], p, (four >> 26) & line);
                ldr!(v[3], p, (four >> 42) & line);
                v
            }
        }

        #[inline(always)]
        unsafe fn store(p: *mut u8, v: int32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vst1q_u8(p, vreinterpretq_u8_s32(v)) }
        }

        #[inline(always)]
        unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vaddq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn interleave(a: int32x4_t, b: int32x4_t, c: int32x4_t, d: int32x4_t) -> [int32x4_t; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let (a, b) = (vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b));
                let (c, d) = (vreinterpretq_u8_s32(c), vreinterpretq_u8_s32(d));
                let (ab0, ab1) = (vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(a, b)));
                let (cd0, cd1) = (vreinterpretq_u16_u8(vzip1q_u8(c, d)), vreinterpretq_u16_u8(vzip2q_u8(c, d)));
                [
                    vreinterpretq_s32_u16(vzip1q_u16(ab0, cd0)),
                    vreinterpretq_s32_u16(vzip2q_u16(ab0, cd0)),
                    vreinterpretq_s32_u16(vzip1q_u16(ab1, cd1)),
                    vreinterpretq_s32_u16(vzip2q_u16(ab1, cd1)),
                ]
            }
        }

        #[inline(always)]
        unsafe fn gather16(lines: [*const u8; 4]) -> [int32x4_t; 4] {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                Self::interleave(Self::load(lines[0]), Self::load(lines[1]), Self::load(lines[2]), Self::load(lines[3]))
            }
        }

        #[inline(always)]
        unsafe fn zip_lanes(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
            // SAFETY: the caller vouches for the tier.
            unsafe { [vzip1q_s32(a, b), vzip2q_s32(a, b)] }
        }

        #[inline(always)]
        unsafe fn each_part(p: *const u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for 16 bytes at p.
            unsafe { Self::load(p) }
        }

        #[inline(always)]
        unsafe fn each_token<const TOKENS: usize, const VECS: usize>(lines: [*const u8; 4]) -> [int32x4_t; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                let mut v = [vdupq_n_s32(0); VECS];
                for half in 0..TOKENS / 4 {
                    let quads = $crate::kernels::aarch64::quads_of_4(lines, 4 * half);
                    v[4 * half] = vdupq_laneq_s32::<0>(quads);
                    v[4 * half + 1] = vdupq_laneq_s32::<1>(quads);
                    v[4 * half + 2] = vdupq_laneq_s32::<2>(quads);
                    v[4 * half + 3] = vdupq_laneq_s32::<3>(quads);
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn gather_tokens<const TOKENS: usize, const VECS: usize>(lines: [*const u8; 4]) -> [int32x4_t; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                let mut v = [vdupq_n_s32(0); VECS];
                for four in 0..VECS {
                    v[four] = $crate::kernels::aarch64::quads_of_4(lines, 4 * four);
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn quad(p: *const u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vsetq_lane_s32::<0>(p.cast::<i32>().read_unaligned(), vdupq_n_s32(0)) }
        }

        #[inline(always)]
        unsafe fn quads<const I: i32>(p: *const u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let mut v = vdupq_n_s32(0);
                ldur!(v, p, 16 * I);
                v
            }
        }

        #[inline(always)]
        unsafe fn all<const I: i32>(q: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vdupq_laneq_s32::<I>(q) }
        }

        #[inline(always)]
        unsafe fn lane_sums(v: [int32x4_t; 4]) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])) }
        }

        #[inline(always)]
        unsafe fn transpose4(v: [int32x4_t; 4]) -> [int32x4_t; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab0 = vreinterpretq_s64_s32(vtrn1q_s32(v[0], v[1]));
                let ab1 = vreinterpretq_s64_s32(vtrn2q_s32(v[0], v[1]));
                let cd0 = vreinterpretq_s64_s32(vtrn1q_s32(v[2], v[3]));
                let cd1 = vreinterpretq_s64_s32(vtrn2q_s32(v[2], v[3]));
                [
                    vreinterpretq_s32_s64(vzip1q_s64(ab0, cd0)),
                    vreinterpretq_s32_s64(vzip1q_s64(ab1, cd1)),
                    vreinterpretq_s32_s64(vzip2q_s64(ab0, cd0)),
                    vreinterpretq_s32_s64(vzip2q_s64(ab1, cd1)),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store_parts(p: *mut u8, _stride: usize, v: int32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { Self::store(p, v) }
        }

        #[inline(always)]
        unsafe fn load_parts(p: *const u8, _stride: usize) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { Self::load(p) }
        }

        #[inline(always)]
        unsafe fn mul(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vmulq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vsubq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn max(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vmaxq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn xor(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { veorq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn sum(v: int32x4_t) -> i32 {
            // SAFETY: the caller vouches for the tier.
            unsafe { vaddvq_s32(v) }
        }

        #[inline(always)]
        unsafe fn add_bytes(acc: int32x4_t, bytes: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let sums = vpaddlq_u8(vreinterpretq_u8_s32(bytes));
                vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(acc), sums))
            }
        }

        #[inline(always)]
        unsafe fn prefetch(p: *const i8) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                std::arch::asm!("prfm pldl1keep, [{}]", in(reg) p, options(readonly, nostack, preserves_flags))
            }
        }

        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                std::arch::asm!("prfm pldl2keep, [{}]", in(reg) p, options(readonly, nostack, preserves_flags))
            }
        }

        #[inline(always)]
        unsafe fn dense_w(p: *const i8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { Self::load(p.cast()) }
        }

        #[inline(always)]
        unsafe fn repeat<const R: usize>(p: *const u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { if R == 1 { Self::load(p) } else { vld1q_dup_s32(p.cast()) } }
        }

        #[inline(always)]
        unsafe fn as_f(v: int32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vreinterpretq_f32_s32(v) }
        }

        #[inline(always)]
        unsafe fn as_v(f: float32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vreinterpretq_s32_f32(f) }
        }

        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
        }

        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                // The intrinsic is younger than the oldest compiler that the crate supports.
                let (halves, mut f) = (vld1_u16(p), vdupq_n_f32(0.0));
                std::arch::asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) f, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
                f
            }
        }

        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let bytes = vreinterpret_s8_u64(vcreate_u64(p.cast::<u32>().read_unaligned().into()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            }
        }

        #[inline(always)]
        unsafe fn store_bf16(p: *mut u16, f: float32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let bits = vreinterpretq_u32_f32(f);
                let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
                let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
                // Rounding could turn a NaN into infinity, so a NaN keeps its bits with the quiet bit set.
                let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
                vst1_u16(p, vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(f, f), rounded, quiet)));
            }
        }

        #[inline(always)]
        unsafe fn store_f16(p: *mut u16, f: float32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let mut halves = vdup_n_u16(0);
                std::arch::asm!("fcvtn {0:v}.4h, {1:v}.4s", lateout(vreg) halves, in(vreg) f, options(pure, nomem, nostack, preserves_flags));
                vst1_u16(p, halves);
            }
        }

        #[inline(always)]
        unsafe fn to_f32(v: int32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vcvtq_f32_s32(v) }
        }

        #[inline(always)]
        unsafe fn round(f: float32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vcvtnq_s32_f32(f) }
        }

        #[inline(always)]
        unsafe fn splat_f(value: f32) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        unsafe fn load_f(p: *const f32) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vld1q_f32(p) }
        }

        #[inline(always)]
        unsafe fn store_f(p: *mut f32, v: float32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vst1q_f32(p, v) }
        }

        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vfmaq_f32(c, a, b) }
        }

        #[inline(always)]
        unsafe fn load_r<const ROWS: usize>(p: *const f32) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match ROWS {
                    1 => vld1q_lane_f32::<0>(p, vdupq_n_f32(0.0)),
                    2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
                    _ => vld1q_f32(p),
                }
            }
        }

        #[inline(always)]
        unsafe fn store_r<const ROWS: usize>(p: *mut f32, v: float32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match ROWS {
                    1 => vst1q_lane_f32::<0>(p, v),
                    2 => vst1_f32(p, vget_low_f32(v)),
                    _ => vst1q_f32(p, v),
                }
            }
        }

        #[inline(always)]
        unsafe fn add_product(acc: float32x4_t, x: *const f32, w: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { vfmaq_f32(acc, vld1q_dup_f32(x), w) }
        }

        #[inline(always)]
        unsafe fn add_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vaddq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn sub_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vsubq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vmulq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn div_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vdivq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn min_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
        }

        #[inline(always)]
        unsafe fn max_f(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }

        #[inline(always)]
        unsafe fn abs_min_f(a: float32x4_t, limit: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::min_f(vabsq_f32(a), limit) }
        }

        #[inline(always)]
        unsafe fn reduce_f(a: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe { vsubq_f32(a, vrndnq_f32(a)) }
        }

        #[inline(always)]
        unsafe fn lookup16(table: &[f32; 16], i: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                // The numbers of the four bytes of each lane's entry in the table.
                let entry = vandq_u32(vreinterpretq_u32_f32(i), vdupq_n_u32(15));
                let bytes = vmlaq_u32(vdupq_n_u32(0x0302_0100), entry, vdupq_n_u32(0x0404_0404));
                let table = vld1q_u8_x4(table.as_ptr().cast());
                vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(bytes)))
            }
        }

        #[inline(always)]
        unsafe fn ldexp(a: float32x4_t, magic: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                vreinterpretq_f32_s32(vaddq_s32(Self::as_v(a), vshlq_n_s32::<23>(Self::as_v(magic))))
            }
        }

        #[inline(always)]
        unsafe fn power(a: float32x4_t, n: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            }
        }

        #[inline(always)]
        unsafe fn at_least(a: float32x4_t, t: float32x4_t, limit: float32x4_t) -> float32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(t, limit)))
            }
        }

        #[inline(always)]
        unsafe fn nonzero(v: int32x4_t) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let bits = [1u32, 2, 4, 8];
                vaddvq_u32(vandq_u32(vtstq_s32(v, v), vld1q_u32(bits.as_ptr())))
            }
        }

        #[inline(always)]
        unsafe fn nonzero_bytes(v: int32x4_t) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let bytes = vreinterpretq_u8_s32(v);
                u32::from(vaddvq_u8(vandq_u8(vtstq_u8(bytes, bytes), vdupq_n_u8(1))))
            }
        }

        #[inline(always)]
        unsafe fn pack_in_order(v: [int32x4_t; 4], zero: i32) -> int32x4_t {
            // SAFETY: the caller vouches for the tier. A register is one 16-byte part, so that the order is that of
            // memory.
            unsafe { Self::pack4(v, zero) }
        }

        #[inline(always)]
        unsafe fn pack4(v: [int32x4_t; 4], zero: i32) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let zero = vdupq_n_s16(zero as i16);
                let low = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(v[0]), v[1]), zero);
                let high = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(v[2]), v[3]), zero);
                vreinterpretq_s32_u8(vqmovun_high_s16(vqmovun_s16(low), high))
            }
        }

        #[inline(always)]
        unsafe fn store_pack2(p: *mut u8, a: int32x4_t, b: int32x4_t, zero: i32, low: u8, high: u8) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(a), b), vdupq_n_s16(zero as i16));
                let v = vmin_u8(vmax_u8(vqmovun_s16(v), vdup_n_u8(low)), vdup_n_u8(high));
                vst1_u8(p, v);
            }
        }

        #[inline(always)]
        unsafe fn clamp_bytes(v: int32x4_t, low: u8, high: u8) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let v = vmaxq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(low));
                vreinterpretq_s32_u8(vminq_u8(v, vdupq_n_u8(high)))
            }
        }

        const LOOKS_UP_BYTES: bool = true;

        #[inline(always)]
        unsafe fn lookup256(table: &[u8; 256], v: int32x4_t) -> int32x4_t {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let (table, index) = (table.as_ptr(), vreinterpretq_u8_s32(v));
                let mut bytes = vqtbl4q_u8(vld1q_u8_x4(table), index);
                for quarter in 1..4 {
                    // `tbx` leaves bytes unchanged whose index is outside of this quarter of the table.
                    let index = vsubq_u8(index, vdupq_n_u8(64 * quarter));
                    bytes = vqtbx4q_u8(bytes, vld1q_u8_x4(table.add(64 * usize::from(quarter))), index);
                }
                vreinterpretq_s32_u8(bytes)
            }
        }

        #[inline(always)]
        unsafe fn store_bytes(p: *mut u8, v: int32x4_t) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = vmovn_u16(vcombine_u16(vmovn_u32(vreinterpretq_u32_s32(v)), vdup_n_u16(0)));
                p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(v)));
            }
        }
    };
}
