/* engine/kern_avx2.c - the kernels in AVX2 with FMA: a vector of 16 floats is two registers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/kern_priv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ISA  avx2
#define TGT  __attribute__((target("avx2,fma")))
#define KEEP TGT static inline __attribute__((always_inline))

typedef struct {
    __m256 lo, hi;
} v16;

#define BOTH(f, a)        ((v16){ f((a).lo), f((a).hi) })
#define BOTH2(f, a, b)    ((v16){ f((a).lo, (b).lo), f((a).hi, (b).hi) })
#define BOTH3(f, a, b, c) ((v16){ f((a).lo, (b).lo, (c).lo), f((a).hi, (b).hi, (c).hi) })

KEEP v16 v_zero(void)
{
    return (v16){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

KEEP v16 v_set1(float x)
{
    return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}

KEEP v16 v_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

KEEP void v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}

KEEP __m256i first_n(int n, int from)
{
    const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - from), at);
}

KEEP v16 v_load_n(const float *p, int n)
{
    if (n <= 8) return (v16){ _mm256_maskload_ps(p, first_n(n, 0)), _mm256_setzero_ps() };
    return (v16){ _mm256_loadu_ps(p), _mm256_maskload_ps(p + 8, first_n(n, 8)) };
}

KEEP void v_store_n(float *p, v16 v, int n)
{
    _mm256_maskstore_ps(p, first_n(n, 0), v.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, first_n(n, 8), v.hi);
}

KEEP v16 v_add(v16 a, v16 b)
{
    return BOTH2(_mm256_add_ps, a, b);
}

KEEP v16 v_sub(v16 a, v16 b)
{
    return BOTH2(_mm256_sub_ps, a, b);
}

KEEP v16 v_mul(v16 a, v16 b)
{
    return BOTH2(_mm256_mul_ps, a, b);
}

KEEP v16 v_div(v16 a, v16 b)
{
    return BOTH2(_mm256_div_ps, a, b);
}

KEEP v16 v_fma(v16 a, v16 b, v16 c)
{
    return BOTH3(_mm256_fmadd_ps, a, b, c);
}

KEEP v16 v_max(v16 a, v16 b)
{
    return BOTH2(_mm256_max_ps, a, b);
}

KEEP v16 v_min(v16 a, v16 b)
{
    return BOTH2(_mm256_min_ps, a, b);
}

#define RINT(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
KEEP v16 v_rint(v16 v)
{
    return BOTH(RINT, v);
}

KEEP __m256 exp2i(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

KEEP v16 v_exp2i(v16 n)
{
    return BOTH(exp2i, n);
}

/* not less than: a NaN in x keeps v */
#define AND_NOT_LESS(v, x, b) _mm256_and_ps(v, _mm256_cmp_ps(x, b, _CMP_NLT_UQ))
KEEP v16 v_zero_if_below(v16 v, v16 x, float bound)
{
    v16 b = v_set1(bound);
    return BOTH3(AND_NOT_LESS, v, x, b);
}

#define IS_LESS(x, b) _mm256_cmp_ps(x, b, _CMP_LT_OQ)
KEEP v16 v_below_else(v16 x, float bound, v16 below, v16 other)
{
    v16 b = v_set1(bound), less = BOTH2(IS_LESS, x, b);
    return BOTH3(_mm256_blendv_ps, other, below, less);
}

KEEP v16 v_abs(v16 v)
{
    v16 sign = v_set1(-0.0f);
    return BOTH2(_mm256_andnot_ps, sign, v);
}

KEEP v16 v_sign_of(v16 v, v16 x)
{
    v16 mag = v_abs(v), sign = v_set1(-0.0f), s = BOTH2(_mm256_and_ps, x, sign);
    return BOTH2(_mm256_or_ps, mag, s);
}

KEEP float v_sum(v16 v)
{
    __m256 h = _mm256_add_ps(v.lo, v.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

KEEP float v_top(v16 v)
{
    __m256 h = _mm256_max_ps(v.lo, v.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

KEEP __m256 widen(__m128i u)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(u), 16));
}

KEEP v16 v_bf16(const char *p)
{
    return (v16){ widen(_mm_loadu_si128((const __m128i *)(const void *)p)),
                  widen(_mm_loadu_si128((const __m128i *)(const void *)(p + 16))) };
}

KEEP v16 v_bf16_n(const char *p, int n)
{
    char some[32] = { 0 };
    memcpy(some, p, (size_t)n * 2);
    return v_bf16(some);
}

KEEP __m256i load_256(const char *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

KEEP v16 v_even(const char *p)
{
    return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(load_256(p), 16)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(load_256(p + 32), 16)) };
}

KEEP v16 v_odd(const char *p)
{
    const __m256i top = _mm256_set1_epi32((int)0xffff0000u);
    return (v16){ _mm256_castsi256_ps(_mm256_and_si256(load_256(p), top)),
                  _mm256_castsi256_ps(_mm256_and_si256(load_256(p + 32), top)) };
}

KEEP v16 v_set_pair(const float *p)
{
    __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)p);
    __m256 all = _mm256_castsi256_ps(_mm256_broadcastq_epi64(two));
    return (v16){ all, all };
}

/* hadd leaves the pairs as 0 1 4 5 2 3 6 7. */
KEEP __m256 pair_add(__m256 a, __m256 b)
{
    __m256d mixed = _mm256_castps_pd(_mm256_hadd_ps(a, b));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(mixed, 0xd8));
}

KEEP v16 v_pair_add(v16 a, v16 b)
{
    return (v16){ pair_add(a.lo, a.hi), pair_add(b.lo, b.hi) };
}

KEEP v16 v_lanes(v16 v, int lo, int hi, float other)
{
    v16 o = v_set1(other);
    v16 in = { _mm256_castsi256_ps(_mm256_andnot_si256(first_n(lo, 0), first_n(hi, 0))),
               _mm256_castsi256_ps(_mm256_andnot_si256(first_n(lo, 8), first_n(hi, 8))) };
    return BOTH3(_mm256_blendv_ps, o, v, in);
}

/* 12 accumulators of 16 registers: 6 rows of one vector (3 of two in attention); rows that are few
 * take whole panels at a time, to stream. */
enum { MR_F32 = 6, MR_I8 = 3, MR_ATTN = 3, X_BYTES = 2 };
#define NV_F32(mr)      ((mr) <= 3 ? 2 : 1)
#define NV_I8           1
#define EACH_MR_F32(X)  X(1) X(2) X(3) X(4) X(5) X(6)
#define EACH_MR_I8(X)   X(1) X(2) X(3)
#define EACH_MR_ATTN(X) X(3) X(2) X(1)
#include "engine/kern_simd.h"

typedef struct {
    __m256i lo, hi;
} vi;

/* u8 x s8 by 16-bit pairs: bytes 0 2 and 1 3 of each four, x in that order. Exact: below 2^17. */
typedef struct {
    __m256i even_lo, even_hi, odd_lo, odd_hi;
} vw;

KEEP vi vi_load1(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return (vi){ _mm256_set1_epi32(x), _mm256_set1_epi32(x) };
}

KEEP v16 v_set1_at(const char *p)
{
    float x;
    memcpy(&x, p, 4);
    return v_set1(x);
}

KEEP v16 vi_float(vi v)
{
    return BOTH(_mm256_cvtepi32_ps, v);
}

KEEP vw vw_load(const char *p)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i a = load_256(p), b = load_256(p + 32);
    return (vw){ _mm256_and_si256(a, low), _mm256_and_si256(b, low), _mm256_srli_epi16(a, 8),
                 _mm256_srli_epi16(b, 8) };
}

KEEP vi vi_dot(vi acc, vw w, const char *x)
{
    vi x02 = vi_load1(x), x13 = vi_load1(x + 4);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(w.even_lo, x02.lo));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(w.even_hi, x02.hi));
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(w.odd_lo, x13.lo));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(w.odd_hi, x13.hi));
    return acc;
}

KEEP void v_round8(int8_t *to, v16 v)
{
    int32_t q[16];
    __m256i lo = _mm256_cvtps_epi32(v.lo), hi = _mm256_cvtps_epi32(v.hi);
    memcpy(q, &lo, 32);
    memcpy(q + 8, &hi, 32);
    for (int i = 0; i < 16; i++) to[i] = (int8_t)q[i];
}
#include "engine/kern_simd_i8.h"

static const struct kern_tiles tiles = {
    .of = { [KERN_F32] = { MR_F32, kern_avx2_tiles_f32 },
            [KERN_BF16] = { MR_F32, kern_avx2_tiles_bf16 } },
    .i8 = tile_i8,
    .x_bytes = X_BYTES,
    .add = kern_avx2_add,
};

void kern_avx2_prep(const struct kern_prep *a, int part, int n_part)
{
    if (a->type == KERN_I8)
        prep_i8(a, part, n_part);
    else
        kern_prep_f32(a, part, n_part, MR_F32);
}

void kern_avx2_mm(const struct kern_mm *a, int part, int n_part)
{
    kern_mm_drive(a, part, n_part, &tiles);
}

TGT uint64_t kern_avx2_read(const void *p, size_t n)
{
    __m256i sum[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                       _mm256_setzero_si256() };
    const char *c = p;
    uint64_t rest = 0, part[4];
    size_t i = 0;
    for (; i + 128 <= n; i += 128)
        UNROLL for (int j = 0; j < 4; j++) sum[j] =
            _mm256_add_epi64(sum[j], load_256(c + i + 32 * j));
    for (; i < n; i++) rest += (unsigned char)c[i];
    for (int j = 0; j < 4; j++) {
        memcpy(part, &sum[j], 32);
        rest += part[0] + part[1] + part[2] + part[3];
    }
    return rest;
}

TGT double kern_avx2_peak(enum kern_peak what, int64_t times)
{
    v16 acc[6], half = v_set1(0.5f), one = v_set1(1);
    volatile float sink;
    if (what != KERN_PEAK_FMA) return 0;
    UNROLL for (int i = 0; i < 6; i++) acc[i] = v_set1((float)i); /* lest they be one */
    for (int64_t t = 0; t < times; t++)
        UNROLL for (int i = 0; i < 6; i++) acc[i] = v_fma(acc[i], half, one);
    UNROLL for (int i = 1; i < 6; i++) acc[0] = v_add(acc[0], acc[i]);
    sink = v_sum(acc[0]);
    (void)sink;
    return 6 * 32.0 * (double)times;
}

const struct kern kern_avx2 = {
    .name = "avx2",
    .prep = kern_avx2_prep,
    .mm = kern_avx2_mm,
    .attn = kern_avx2_attn,
    .rmsnorm = kern_avx2_rmsnorm,
    .layernorm = kern_avx2_layernorm,
    .rope = kern_avx2_rope,
    .silu_mul = kern_avx2_silu_mul,
    .gelu = kern_avx2_gelu,
    .gelu_tanh = kern_avx2_gelu_tanh,
    .add = kern_avx2_add,
    .exp_from = kern_avx2_exp_from,
    .largest = kern_avx2_largest,
    .mass_from = kern_avx2_mass_from,
    .keep_from = kern_avx2_keep_from,
    .read = kern_avx2_read,
    .peak = kern_avx2_peak,
};
#endif
