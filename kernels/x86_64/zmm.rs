//! 512-bit registers of x86-64 (AVX-512 F, BW, DQ, VL): every method of `Simd` but the dot products of bytes.
//!
//! ```text
//! 16 lanes of 32 bits; four 16-byte parts; methods are the AVX-512 instructions of their meaning:
//!     interleave  vpunpck{l,h}bw, then vpunpck{l,h}wd    pack4  vpackssdw, vpaddsw, vpackuswb    compress  vpcompressd
//! ```

/// The methods of [`Simd`](crate::kernels::simd::Simd) that need nothing beyond this tier. A tier that uses them adds
/// its own dot products, and how it gathers bytes of few tokens.
macro_rules! zmm {
    () => {
        gather!();
        const REGISTERS: usize = 32;
        const LANES: usize = 16;
        const MIXED: bool = true;
        const QUADS: usize = 1;
        type V = __m512i;
        type Q = __m512i;
        type F = __m512;

        #[inline(always)]
        unsafe fn splat(value: i32) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_set1_epi32(value) }
        }

        #[inline(always)]
        unsafe fn load(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn store(p: *mut u8, v: __m512i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_storeu_si512(p.cast(), v) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn interleave(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let (ab0, ab1) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
                let (cd0, cd1) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
                [
                    _mm512_unpacklo_epi16(ab0, cd0),
                    _mm512_unpackhi_epi16(ab0, cd0),
                    _mm512_unpacklo_epi16(ab1, cd1),
                    _mm512_unpackhi_epi16(ab1, cd1),
                ]
            }
        }

        #[inline(always)]
        unsafe fn gather32(lines: [*const u8; 4]) -> [__m512i; 2] {
            const PAIRS: [u16; 32] = {
                let mut select = [0; 32];
                let mut i = 0;
                while i < 32 {
                    select[i] = (i / 2 + i % 2 * 16) as u16;
                    i += 1;
                }
                select
            };
            // SAFETY: the caller vouches for the tier, and for 32 bytes at each pointer.
            unsafe {
                let (a, b) = (_mm256_loadu_si256(lines[0].cast()), _mm256_loadu_si256(lines[1].cast()));
                let (c, d) = (_mm256_loadu_si256(lines[2].cast()), _mm256_loadu_si256(lines[3].cast()));
                let ac = _mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(a), 0xf0, c);
                let bd = _mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(b), 0xf0, d);
                // Pairs of columns 0 and 1 in the lower half, of 2 and 3 in the upper: a lane takes one of each.
                let pairs = _mm512_loadu_si512(PAIRS.as_ptr().cast());
                [
                    _mm512_permutexvar_epi16(pairs, _mm512_unpacklo_epi8(ac, bd)),
                    _mm512_permutexvar_epi16(pairs, _mm512_unpackhi_epi8(ac, bd)),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store_halves(p: *mut u8, v: __m512i) {
            // SAFETY: the caller vouches for the tier, and for 32 bytes at both places.
            unsafe {
                _mm256_storeu_si256(p.cast(), _mm512_castsi512_si256(v));
                _mm256_storeu_si256(p.add(64).cast(), _mm512_extracti64x4_epi64::<1>(v));
            }
        }

        #[inline(always)]
        unsafe fn load_tokens<const TOKENS: usize, const VECS: usize>(p: *const u8) -> [__m512i; VECS] {
            // SAFETY: the caller vouches for the tier, and for four bytes of each token.
            unsafe {
                match TOKENS {
                    4 => [_mm512_castsi128_si512(_mm_loadu_si128(p.cast())); VECS],
                    _ => [_mm512_castsi256_si512(_mm256_loadu_si256(p.cast())); VECS],
                }
            }
        }

        #[inline(always)]
        unsafe fn zip_lanes(a: __m512i, b: __m512i) -> [__m512i; 2] {
            // SAFETY: the caller vouches for the tier.
            unsafe { [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)] }
        }

        #[inline(always)]
        unsafe fn each_part(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for 16 bytes at p.
            unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(p.cast())) }
        }

        #[inline(always)]
        unsafe fn quad(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn quad_of_each(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for a register of bytes at p.
            unsafe { Self::load(p) }
        }

        #[inline(always)]
        unsafe fn all<const I: i32>(q: __m512i) -> __m512i {
            q
        }

        #[inline(always)]
        unsafe fn dot_quad<const I: i32>(acc: __m512i, x: Self::X, w: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, x, Self::w(w)) }
        }

        #[inline(always)]
        unsafe fn dot_columns<const I: i32>(acc: __m512i, x: __m512i, columns: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, Self::x(x), Self::w(columns)) }
        }

        #[inline(always)]
        unsafe fn lane_sums(v: [__m512i; 4]) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab =
                    _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
                let cd =
                    _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
            }
        }

        #[inline(always)]
        unsafe fn part_sums(v: [__m512i; 4]) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab = _mm512_add_epi32(
                    _mm512_shuffle_i32x4::<0x44>(v[0], v[1]),
                    _mm512_shuffle_i32x4::<0xee>(v[0], v[1]),
                );
                let cd = _mm512_add_epi32(
                    _mm512_shuffle_i32x4::<0x44>(v[2], v[3]),
                    _mm512_shuffle_i32x4::<0xee>(v[2], v[3]),
                );
                _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd))
            }
        }

        #[inline(always)]
        unsafe fn transpose4(v: [__m512i; 4]) -> [__m512i; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab0 = _mm512_unpacklo_epi32(v[0], v[1]);
                let ab1 = _mm512_unpackhi_epi32(v[0], v[1]);
                let cd0 = _mm512_unpacklo_epi32(v[2], v[3]);
                let cd1 = _mm512_unpackhi_epi32(v[2], v[3]);
                [
                    _mm512_unpacklo_epi64(ab0, cd0),
                    _mm512_unpackhi_epi64(ab0, cd0),
                    _mm512_unpacklo_epi64(ab1, cd1),
                    _mm512_unpackhi_epi64(ab1, cd1),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store_parts(p: *mut u8, stride: usize, v: __m512i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                _mm_storeu_si128(p.cast(), _mm512_castsi512_si128(v));
                _mm_storeu_si128(p.add(stride).cast(), _mm512_extracti32x4_epi32::<1>(v));
                _mm_storeu_si128(p.add(2 * stride).cast(), _mm512_extracti32x4_epi32::<2>(v));
                _mm_storeu_si128(p.add(3 * stride).cast(), _mm512_extracti32x4_epi32::<3>(v));
            }
        }

        #[inline(always)]
        unsafe fn load_parts(p: *const u8, stride: usize) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm512_castsi128_si512(_mm_loadu_si128(p.cast()));
                let v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128(p.add(stride).cast()));
                let v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128(p.add(2 * stride).cast()));
                _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128(p.add(3 * stride).cast()))
            }
        }

        #[inline(always)]
        unsafe fn load_bf16_parts(p: *const u8, stride: usize) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_set_m128i(
                    $crate::kernels::x86_64::two_parts(p.add(2 * stride), stride),
                    $crate::kernels::x86_64::two_parts(p, stride),
                );
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v)))
            }
        }

        #[inline(always)]
        unsafe fn load_f16_parts(p: *const u8, stride: usize) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                _mm512_cvtph_ps(_mm256_set_m128i(
                    $crate::kernels::x86_64::two_parts(p.add(2 * stride), stride),
                    $crate::kernels::x86_64::two_parts(p, stride),
                ))
            }
        }

        #[inline(always)]
        unsafe fn mul(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_mullo_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_sub_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn max(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_max_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_xor_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch(p: *const i8) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p) }
        }

        #[inline(always)]
        unsafe fn sum(v: __m512i) -> i32 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_reduce_add_epi32(v) }
        }

        #[inline(always)]
        unsafe fn add_bytes(acc: __m512i, bytes: __m512i) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_add_epi32(acc, _mm512_sad_epu8(bytes, _mm512_setzero_si512())) }
        }

        #[inline(always)]
        unsafe fn repeat<const R: usize>(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match R {
                    4 => {
                        let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                        let quads = _mm512_castsi128_si512(_mm_loadu_si128(p.cast()));
                        _mm512_permutexvar_epi32(each, quads)
                    }
                    8 => {
                        let each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
                        let quads = _mm512_castsi128_si512(_mm_loadl_epi64(p.cast()));
                        _mm512_permutexvar_epi32(each, quads)
                    }
                    _ => Self::load(p),
                }
            }
        }

        #[inline(always)]
        unsafe fn as_f(v: __m512i) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_castsi512_ps(v) }
        }

        #[inline(always)]
        unsafe fn as_v(f: __m512) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_castps_si512(f) }
        }

        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v))
            }
        }

        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }

        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        }

        #[inline(always)]
        unsafe fn store_bf16(p: *mut u16, f: __m512) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm512_srli_epi32::<16>($crate::kernels::x86_64::round_to_bf16(f));
                _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(v));
            }
        }

        #[inline(always)]
        unsafe fn store_2_bf16(p: *mut u16, f: [__m512; 2]) {
            // Selects the upper 16 bits of the lanes of both registers, in order.
            const UPPER: [u16; 32] = {
                let mut select = [0; 32];
                let mut i = 0;
                while i < 32 {
                    select[i] = 2 * i as u16 + 1;
                    i += 1;
                }
                select
            };
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let a = $crate::kernels::x86_64::round_to_bf16(f[0]);
                let b = $crate::kernels::x86_64::round_to_bf16(f[1]);
                let select = _mm512_loadu_si512(UPPER.as_ptr().cast());
                _mm512_storeu_si512(p.cast(), _mm512_permutex2var_epi16(a, select, b));
            }
        }

        #[inline(always)]
        unsafe fn store_f16(p: *mut u16, f: __m512) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(f)) }
        }

        #[inline(always)]
        unsafe fn to_f32(v: __m512i) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_cvtepi32_ps(v) }
        }

        #[inline(always)]
        unsafe fn round(f: __m512) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_cvtps_epi32(f) }
        }

        #[inline(always)]
        unsafe fn splat_f(value: f32) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load_f(p: *const f32) -> __m512 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_loadu_ps(p) }
        }

        #[inline(always)]
        unsafe fn store_f(p: *mut f32, v: __m512) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm512_storeu_ps(p, v) }
        }

        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        $crate::kernels::x86_64::four_floats! {}

        #[inline(always)]
        unsafe fn add_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn sub_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn div_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_div_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn min_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_min_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn max_f(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn abs_min_f(a: __m512, limit: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_range_ps::<0b1010>(a, limit) }
        }

        #[inline(always)]
        unsafe fn reduce_f(a: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_reduce_ps::<0>(a) }
        }

        #[inline(always)]
        unsafe fn lookup16(table: &[f32; 16], i: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_permutexvar_ps(_mm512_castps_si512(i), _mm512_loadu_ps(table.as_ptr())) }
        }

        #[inline(always)]
        unsafe fn ldexp(a: __m512, magic: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(magic));
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), n))
            }
        }

        #[inline(always)]
        unsafe fn power(a: __m512, n: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_scalef_ps(a, n) }
        }

        #[inline(always)]
        unsafe fn at_least(a: __m512, t: __m512, limit: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(t, limit), a) }
        }

        #[inline(always)]
        unsafe fn nonzero(v: __m512i) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe { u32::from(_mm512_test_epi32_mask(v, v)) }
        }

        #[inline(always)]
        unsafe fn nonzero_bytes(v: __m512i) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_test_epi8_mask(v, v).count_ones() }
        }

        #[inline(always)]
        unsafe fn compress(p: *mut u32, v: __m512i, mask: u32) {
            // SAFETY: the caller vouches for the tier and for the pointer.
            unsafe { _mm512_storeu_si512(p.cast(), _mm512_maskz_compress_epi32(mask as u16, v)) }
        }

        #[inline(always)]
        unsafe fn pack4(v: [__m512i; 4], zero: i32) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let zero = _mm512_set1_epi16(zero as i16);
                let low = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), zero);
                let high = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), zero);
                _mm512_packus_epi16(low, high)
            }
        }

        #[inline(always)]
        unsafe fn pack_in_order(v: [__m512i; 4], zero: i32) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let parts = Self::pack4(v, zero);
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_permutexvar_epi32(order, parts)
            }
        }

        #[inline(always)]
        unsafe fn store_pack2(p: *mut u8, a: __m512i, b: __m512i, zero: i32, low: u8, high: u8) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm512_adds_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(zero as i16));
                let v = Self::clamp_bytes(_mm512_packus_epi16(v, v), low, high);
                _mm_storel_epi64(p.cast(), _mm512_castsi512_si128(v));
                _mm_storel_epi64(p.add(16).cast(), _mm512_extracti32x4_epi32::<1>(v));
                _mm_storel_epi64(p.add(32).cast(), _mm512_extracti32x4_epi32::<2>(v));
                _mm_storel_epi64(p.add(48).cast(), _mm512_extracti32x4_epi32::<3>(v));
            }
        }

        #[inline(always)]
        unsafe fn clamp_bytes(v: __m512i, low: u8, high: u8) -> __m512i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let low = _mm512_set1_epi8(low as i8);
                let high = _mm512_set1_epi8(high as i8);
                _mm512_min_epu8(_mm512_max_epu8(v, low), high)
            }
        }

        #[inline(always)]
        unsafe fn store_bytes(p: *mut u8, v: __m512i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(v));
            }
        }
    };
}
