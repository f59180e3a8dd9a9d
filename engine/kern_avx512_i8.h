/* engine/kern_avx512_i8.h - int8 vectors of kern_simd_i8.h in AVX-512; the dot is its includer's.
 * SPDX-License-Identifier: Apache-2.0 */
/* Not __m512i: gcc keeps every sum of such twice, as the dot's 32-bit lanes and as its own 64-bit
 * ones, and runs out of registers. */
typedef int32_t vi __attribute__((vector_size(64)));

KEEP vi vi_load1(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return (vi)_mm512_set1_epi32(x);
}

KEEP v16 vi_float(vi v)
{
    return _mm512_cvtepi32_ps((__m512i)v);
}

KEEP v16 v_set1_at(const char *p)
{
    float x;
    memcpy(&x, p, 4);
    return v_set1(x);
}

KEEP void v_round8(int8_t *to, v16 v)
{
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
