/* engine/kern_avx512.h - the vector of kern_simd.h in AVX-512 (F, BW, DQ, VL): one register.
 * SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "engine/kern_priv.h"

#define KEEP TGT static inline __attribute__((always_inline))

typedef __m512 v16;

KEEP __mmask16 first_n(int n)
{
    return (__mmask16)((1u << n) - 1);
}

KEEP v16 v_zero(void)
{
    return _mm512_setzero_ps();
}

KEEP v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}

KEEP v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

KEEP void v_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

KEEP v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

KEEP v16 v_bf16(const char *p)
{
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}

KEEP v16 v_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_n(n), p);
}

KEEP void v_store_n(float *p, v16 v, int n)
{
    _mm512_mask_storeu_ps(p, first_n(n), v);
}

KEEP v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

KEEP v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

KEEP v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

KEEP v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

KEEP v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

KEEP v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

KEEP v16 v_rint(v16 v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

KEEP v16 v_exp2i(v16 n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

KEEP v16 v_zero_if_below(v16 v, v16 x, float bound)
{
    /* not less than: a NaN in x keeps v */
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, v_set1(bound), _CMP_NLT_UQ), v);
}

KEEP v16 v_below_else(v16 x, float bound, v16 below, v16 other)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, v_set1(bound), _CMP_LT_OQ), other, below);
}

KEEP v16 v_abs(v16 v)
{
    return _mm512_and_ps(v, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)));
}

KEEP v16 v_sign_of(v16 v, v16 x)
{
    return _mm512_or_ps(v_abs(v), _mm512_and_ps(x, v_set1(-0.0f)));
}

KEEP float v_sum(v16 v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

KEEP float v_top(v16 v)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

KEEP v16 v_bf16_n(const char *p, int n)
{
    __m512i u = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_n(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}

KEEP v16 v_even(const char *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}

KEEP v16 v_odd(const char *p)
{
    __m512i top = _mm512_set1_epi32((int)0xffff0000u);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), top));
}

KEEP v16 v_set_pair(const float *p)
{
    __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_broadcastq_epi64(two));
}

KEEP v16 v_pair_add(v16 a, v16 b)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return v_add(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b));
}

KEEP v16 v_lanes(v16 v, int lo, int hi, float other)
{
    const __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 in = _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(lo));
    in = _mm512_mask_cmplt_epi32_mask(in, at, _mm512_set1_epi32(hi));
    return _mm512_mask_blend_ps(in, v_set1(other), v);
}
