//! How 512-bit registers gather bytes of few tokens where there is no VBMI: unpacked in 16 bytes, or broadcast under masks and shuffled
//! inside each 16-byte part. With VBMI one permutation of bytes does it: see `avx512_vbmi.rs`.

/// The methods of 512-bit registers that gather bytes of few tokens, without VBMI.
macro_rules! gathers {
    () => {
        #[inline(always)]
        unsafe fn gather16(lines: [*const u8; 4]) -> [__m512i; 4] {
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
                [_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high); 4]
            }
        }

        #[inline(always)]
        unsafe fn each_token<const TOKENS: usize, const VECS: usize>(
            lines: [*const u8; 4],
        ) -> [__m512i; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                let mut v = [_mm512_setzero_si512(); VECS];
                for half in 0..TOKENS / 4 {
                    let four = |c: usize| lines[c].add(4 * half).cast::<i32>().read_unaligned();
                    // Four bytes of each column, in every part: one masked broadcast from memory each.
                    let all = _mm512_set1_epi32(four(0));
                    let all =
                        _mm512_mask_set1_epi32(all, $crate::kernels::x86_64::opaque::<0x2222>(), four(1));
                    let all =
                        _mm512_mask_set1_epi32(all, $crate::kernels::x86_64::opaque::<0x4444>(), four(2));
                    let all =
                        _mm512_mask_set1_epi32(all, $crate::kernels::x86_64::opaque::<0x8888>(), four(3));
                    // Byte `4 c + t` is column c of token t.
                    let (a, b, c, d) = (0x0c08_0400, 0x0d09_0501, 0x0e0a_0602, 0x0f0b_0703);
                    let of = _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
                    v[half] = _mm512_shuffle_epi8(all, of);
                }
                v
            }
        }

        #[inline(always)]
        unsafe fn gather_tokens<const TOKENS: usize, const VECS: usize>(
            lines: [*const u8; 4],
        ) -> [__m512i; VECS] {
            // SAFETY: the caller vouches for the tier, and for `TOKENS` bytes at each pointer.
            unsafe {
                if TOKENS == 4 {
                    return [_mm512_castsi128_si512($crate::kernels::x86_64::quads_of_4(lines)); VECS];
                }
                let [low, high] = $crate::kernels::x86_64::quads_of_8(lines);
                [_mm512_castsi256_si512(_mm256_set_m128i(high, low)); VECS]
            }
        }
    };
}
