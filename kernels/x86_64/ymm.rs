//! 256-bit registers of x86-64 (AVX2, FMA, F16C): every method of `Simd` but the dot products of bytes.
//!
//! ```text
//! 8 lanes of 32 bits; two 16-byte parts; methods are the AVX2 instructions of their meaning:
//!     interleave  vpunpck{l,h}bw, then vpunpck{l,h}wd     pack4  vpackssdw, vpaddsw, vpackuswb     fma  vfmadd
//! ```

/// The methods of [`Simd`](crate::kernels::simd::Simd) that need nothing beyond this tier. A tier that uses them adds
/// its own dot products.
macro_rules! ymm {
    () => {
        gather!();
        const REGISTERS: usize = 16;
        const LANES: usize = 8;
        const MIXED: bool = true;
        const QUADS: usize = 1;
        type V = __m256i;
        type Q = __m256i;
        type F = __m256;

        #[inline(always)]
        unsafe fn splat(value: i32) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_set1_epi32(value) }
        }

        #[inline(always)]
        unsafe fn load(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }

        #[inline(always)]
        unsafe fn store(p: *mut u8, v: __m256i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_storeu_si256(p.cast(), v) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn interleave(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> [__m256i; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let (ab0, ab1) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let (cd0, cd1) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
                [
                    _mm256_unpacklo_epi16(ab0, cd0),
                    _mm256_unpackhi_epi16(ab0, cd0),
                    _mm256_unpacklo_epi16(ab1, cd1),
                    _mm256_unpackhi_epi16(ab1, cd1),
                ]
            }
        }

        #[inline(always)]
        unsafe fn gather16(lines: [*const u8; 4]) -> [__m256i; 4] {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let a = _mm_loadu_si128(lines[0].cast());
                let b = _mm_loadu_si128(lines[1].cast());
                let c = _mm_loadu_si128(lines[2].cast());
                let d = _mm_loadu_si128(lines[3].cast());
                let (ab0, ab1) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
                let (cd0, cd1) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
                let (q0, q1) = (_mm_unpacklo_epi16(ab0, cd0), _mm_unpackhi_epi16(ab0, cd0));
                let (q2, q3) = (_mm_unpacklo_epi16(ab1, cd1), _mm_unpackhi_epi16(ab1, cd1));
                let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(q0), q1);
                let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(q2), q3);
                [low, high, low, high]
            }
        }

        #[inline(always)]
        unsafe fn gather_tokens<const TOKENS: usize, const VECS: usize>(
            lines: [*const u8; 4],
        ) -> [__m256i; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                if TOKENS == 4 {
                    return [_mm256_castsi128_si256($crate::kernels::x86_64::quads_of_4(lines)); VECS];
                }
                let [low, high] = $crate::kernels::x86_64::quads_of_8(lines);
                [_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high); VECS]
            }
        }

        #[inline(always)]
        unsafe fn load_tokens<const TOKENS: usize, const VECS: usize>(p: *const u8) -> [__m256i; VECS] {
            // SAFETY: the caller vouches for the tier, and for four bytes of each token.
            unsafe {
                match TOKENS {
                    4 => [_mm256_castsi128_si256(_mm_loadu_si128(p.cast())); VECS],
                    _ => [_mm256_loadu_si256(p.cast()); VECS],
                }
            }
        }

        #[inline(always)]
        unsafe fn zip_lanes(a: __m256i, b: __m256i) -> [__m256i; 2] {
            // SAFETY: the caller vouches for the tier.
            unsafe { [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)] }
        }

        #[inline(always)]
        unsafe fn each_part(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for 16 bytes at p.
            unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())) }
        }

        #[inline(always)]
        unsafe fn each_token<const TOKENS: usize, const VECS: usize>(
            lines: [*const u8; 4],
        ) -> [__m256i; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                let mut v = [_mm256_setzero_si256(); VECS];
                for half in 0..TOKENS / 4 {
                    // Four bytes of each column, in both parts.
                    let a = Self::quad(lines[0].add(4 * half));
                    let b = Self::quad(lines[1].add(4 * half));
                    let c = Self::quad(lines[2].add(4 * half));
                    let d = Self::quad(lines[3].add(4 * half));
                    let ab = _mm256_blend_epi32::<0b1010_1010>(a, b);
                    let cd = _mm256_blend_epi32::<0b1010_1010>(c, d);
                    let all = _mm256_blend_epi32::<0b1100_1100>(ab, cd);
                    // Byte `4 c + t` is column c of token t: token 0 to the lower part and 1 to the upper, then 2 and 3.
                    let (low, high) = (0x0c08_0400, 0x0d09_0501);
                    let first = _mm256_setr_epi32(low, low, low, low, high, high, high, high);
                    let second = _mm256_add_epi8(first, _mm256_set1_epi8(2));
                    v[2 * half] = _mm256_shuffle_epi8(all, first);
                    v[2 * half + 1] = _mm256_shuffle_epi8(all, second);
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn quad(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn quad_of_each(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for a register of bytes at p.
            unsafe { Self::load(p) }
        }

        #[inline(always)]
        unsafe fn all<const I: i32>(q: __m256i) -> __m256i {
            q
        }

        #[inline(always)]
        unsafe fn dot_quad<const I: i32>(acc: __m256i, x: Self::X, w: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, x, Self::w(w)) }
        }

        #[inline(always)]
        unsafe fn dot_columns<const I: i32>(acc: __m256i, x: __m256i, columns: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { Self::dot(acc, Self::x(x), Self::w(columns)) }
        }

        #[inline(always)]
        unsafe fn lane_sums(v: [__m256i; 4]) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab =
                    _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
                let cd =
                    _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
                _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
            }
        }

        #[inline(always)]
        unsafe fn part_sums(v: [__m256i; 4]) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(v[0], v[1]),
                    _mm256_permute2x128_si256::<0x31>(v[0], v[1]),
                )
            }
        }

        #[inline(always)]
        unsafe fn transpose4(v: [__m256i; 4]) -> [__m256i; 4] {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let ab0 = _mm256_unpacklo_epi32(v[0], v[1]);
                let ab1 = _mm256_unpackhi_epi32(v[0], v[1]);
                let cd0 = _mm256_unpacklo_epi32(v[2], v[3]);
                let cd1 = _mm256_unpackhi_epi32(v[2], v[3]);
                [
                    _mm256_unpacklo_epi64(ab0, cd0),
                    _mm256_unpackhi_epi64(ab0, cd0),
                    _mm256_unpacklo_epi64(ab1, cd1),
                    _mm256_unpackhi_epi64(ab1, cd1),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store_parts(p: *mut u8, stride: usize, v: __m256i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(v));
                _mm_storeu_si128(p.add(stride).cast(), _mm256_extracti128_si256::<1>(v));
            }
        }

        #[inline(always)]
        unsafe fn load_parts(p: *const u8, stride: usize) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_castsi128_si256(_mm_loadu_si128(p.cast()));
                _mm256_inserti128_si256::<1>(v, _mm_loadu_si128(p.add(stride).cast()))
            }
        }

        #[inline(always)]
        unsafe fn load_bf16_parts(p: *const u8, stride: usize) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_cvtepu16_epi32($crate::kernels::x86_64::two_parts(p, stride));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v))
            }
        }

        #[inline(always)]
        unsafe fn load_f16_parts(p: *const u8, stride: usize) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_cvtph_ps($crate::kernels::x86_64::two_parts(p, stride)) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_mullo_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_sub_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn max(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_max_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_xor_si256(a, b) }
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
        unsafe fn sum(v: __m256i) -> i32 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
                _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
            }
        }

        #[inline(always)]
        unsafe fn add_bytes(acc: __m256i, bytes: __m256i) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_add_epi32(acc, _mm256_sad_epu8(bytes, _mm256_setzero_si256())) }
        }

        #[inline(always)]
        unsafe fn repeat<const R: usize>(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                match R {
                    4 => {
                        let quads = _mm256_castsi128_si256(_mm_loadl_epi64(p.cast()));
                        _mm256_permutevar8x32_epi32(quads, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
                    }
                    8 => Self::quad(p),
                    _ => Self::load(p),
                }
            }
        }

        #[inline(always)]
        unsafe fn as_f(v: __m256i) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_castsi256_ps(v) }
        }

        #[inline(always)]
        unsafe fn as_v(f: __m256) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_castps_si256(f) }
        }

        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v))
            }
        }

        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }

        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        }

        #[inline(always)]
        unsafe fn store_bf16(p: *mut u16, f: __m256) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let bits = _mm256_castps_si256(f);
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                let rounded = _mm256_add_epi32(bits, half);
                // Rounding could turn a NaN into infinity, so a NaN keeps its bits with the quiet bit set.
                let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
                let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(f, f));
                let v = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
                let v = _mm256_packus_epi32(v, v);
                let v = _mm256_permute4x64_epi64::<0b1000>(v);
                _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(v));
            }
        }

        #[inline(always)]
        unsafe fn store_f16(p: *mut u16, f: __m256) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(f)) }
        }

        #[inline(always)]
        unsafe fn to_f32(v: __m256i) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_cvtepi32_ps(v) }
        }

        #[inline(always)]
        unsafe fn round(f: __m256) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_cvtps_epi32(f) }
        }

        #[inline(always)]
        unsafe fn splat_f(value: f32) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load_f(p: *const f32) -> __m256 {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_loadu_ps(p) }
        }

        #[inline(always)]
        unsafe fn store_f(p: *mut f32, v: __m256) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe { _mm256_storeu_ps(p, v) }
        }

        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        $crate::kernels::x86_64::four_floats! {}

        #[inline(always)]
        unsafe fn add_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn sub_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn div_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_div_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn min_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_min_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn max_f(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn abs_min_f(a: __m256, limit: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_min_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a), limit) }
        }

        #[inline(always)]
        unsafe fn reduce_f(a: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                _mm256_sub_ps(a, _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
            }
        }

        #[inline(always)]
        unsafe fn lookup16(table: &[f32; 16], i: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let index = _mm256_castps_si256(i);
                let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index);
                let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr().add(8)), index);
                _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
            }
        }

        #[inline(always)]
        unsafe fn ldexp(a: __m256, magic: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(magic));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), n))
            }
        }

        #[inline(always)]
        unsafe fn power(a: __m256, n: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }

        #[inline(always)]
        unsafe fn at_least(a: __m256, t: __m256, limit: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_NLT_UQ>(t, limit)) }
        }

        #[inline(always)]
        unsafe fn nonzero(v: __m256i) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let zero = _mm256_cmpeq_epi32(v, _mm256_setzero_si256());
                !_mm256_movemask_ps(_mm256_castsi256_ps(zero)) as u32 & 0xff
            }
        }

        #[inline(always)]
        unsafe fn nonzero_bytes(v: __m256i) -> u32 {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                (_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256())) as u32).count_zeros()
            }
        }

        #[inline(always)]
        unsafe fn pack4(v: [__m256i; 4], zero: i32) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let zero = _mm256_set1_epi16(zero as i16);
                let low = _mm256_adds_epi16(_mm256_packs_epi32(v[0], v[1]), zero);
                let high = _mm256_adds_epi16(_mm256_packs_epi32(v[2], v[3]), zero);
                _mm256_packus_epi16(low, high)
            }
        }

        #[inline(always)]
        unsafe fn pack_in_order(v: [__m256i; 4], zero: i32) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let parts = Self::pack4(v, zero);
                _mm256_permutevar8x32_epi32(parts, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
            }
        }

        #[inline(always)]
        unsafe fn store_pack2(p: *mut u8, a: __m256i, b: __m256i, zero: i32, low: u8, high: u8) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_adds_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16(zero as i16));
                let v = Self::clamp_bytes(_mm256_packus_epi16(v, v), low, high);
                _mm_storel_epi64(p.cast(), _mm256_castsi256_si128(v));
                _mm_storel_epi64(p.add(16).cast(), _mm256_extracti128_si256::<1>(v));
            }
        }

        #[inline(always)]
        unsafe fn clamp_bytes(v: __m256i, low: u8, high: u8) -> __m256i {
            // SAFETY: the caller vouches for the tier.
            unsafe {
                let low = _mm256_set1_epi8(low as i8);
                let high = _mm256_set1_epi8(high as i8);
                _mm256_min_epu8(_mm256_max_epu8(v, low), high)
            }
        }

        #[inline(always)]
        unsafe fn store_bytes(p: *mut u8, v: __m256i) {
            // SAFETY: the caller vouches for the tier, and for the bytes at pointers that `Simd` names.
            unsafe {
                let v = _mm256_shuffle_epi8(v, _mm256_set1_epi32(0x0c08_0400));
                let v = _mm_unpacklo_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                _mm_storel_epi64(p.cast(), v);
            }
        }
    };
}
