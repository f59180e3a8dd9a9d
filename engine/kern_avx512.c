/* engine/kern_avx512.c - the kernels in AVX-512 without its dot products (Skylake-X and later).
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/kern_priv.h"

#if defined(__x86_64__)
#define ISA avx512
#define TGT __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#include "engine/kern_avx512.h"

/* 24 accumulators of 32 registers, whatever the tile. */
enum { MR_F32 = 12, MR_I8 = 6, MR_ATTN = 12, X_BYTES = 2 };
#define NV_F32(mr)      2
#define NV_I8           2
#define EACH_MR_F32(X)  X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define EACH_MR_I8(X)   X(1) X(2) X(3) X(4) X(5) X(6)
#define EACH_MR_ATTN(X) X(12) X(8) X(6) X(4) X(3) X(2) X(1)
#include "engine/kern_avx512_i8.h"
#include "engine/kern_simd.h"

/* u8 x s8 by 16-bit pairs: bytes 0 2 and 1 3 of each four, x in that order. Exact: below 2^17. */
typedef struct {
    __m512i even, odd;
} vw;

KEEP vw vw_load(const char *p)
{
    __m512i v = _mm512_loadu_si512(p);
    return (vw){ _mm512_and_si512(v, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(v, 8) };
}

KEEP vi vi_dot(vi acc, vw w, const char *x)
{
    acc += (vi)_mm512_madd_epi16(w.even, (__m512i)vi_load1(x));
    return acc + (vi)_mm512_madd_epi16(w.odd, (__m512i)vi_load1(x + 4));
}
#include "engine/kern_simd_i8.h"

static const struct kern_tiles tiles = {
    .of = { [KERN_F32] = { MR_F32, kern_avx512_tiles_f32 },
            [KERN_BF16] = { MR_F32, kern_avx512_tiles_bf16 } },
    .i8 = tile_i8,
    .x_bytes = X_BYTES,
    .add = kern_avx512_add,
};

void kern_avx512_prep(const struct kern_prep *a, int part, int n_part)
{
    if (a->type == KERN_I8)
        prep_i8(a, part, n_part);
    else
        kern_prep_f32(a, part, n_part, MR_F32);
}

void kern_avx512_mm(const struct kern_mm *a, int part, int n_part)
{
    kern_mm_drive(a, part, n_part, &tiles);
}

TGT uint64_t kern_avx512_read(const void *p, size_t n)
{
    __m512i sum[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512() };
    const char *c = p;
    size_t i = 0;
    for (; i + 256 <= n; i += 256)
        UNROLL for (int j = 0; j < 4; j++) sum[j] =
            _mm512_add_epi64(sum[j], _mm512_loadu_si512(c + i + 64 * j));
    __m512i all =
        _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
    uint64_t rest = 0;
    for (; i < n; i++) rest += (unsigned char)c[i];
    return (uint64_t)_mm512_reduce_add_epi64(all) + rest;
}

TGT double kern_avx512_peak(enum kern_peak what, int64_t times)
{
    v16 acc[12], half = v_set1(0.5f), one = v_set1(1);
    volatile float sink;
    if (what != KERN_PEAK_FMA) return 0;
    UNROLL for (int i = 0; i < 12; i++) acc[i] = v_set1((float)i); /* lest they be one */
    for (int64_t t = 0; t < times; t++)
        UNROLL for (int i = 0; i < 12; i++) acc[i] = v_fma(acc[i], half, one);
    UNROLL for (int i = 1; i < 12; i++) acc[0] = v_add(acc[0], acc[i]);
    sink = v_sum(acc[0]);
    (void)sink;
    return 12 * 32.0 * (double)times;
}

const struct kern kern_avx512 = {
    .name = "avx512",
    .prep = kern_avx512_prep,
    .mm = kern_avx512_mm,
    .attn = kern_avx512_attn,
    .rmsnorm = kern_avx512_rmsnorm,
    .layernorm = kern_avx512_layernorm,
    .rope = kern_avx512_rope,
    .silu_mul = kern_avx512_silu_mul,
    .gelu = kern_avx512_gelu,
    .gelu_tanh = kern_avx512_gelu_tanh,
    .add = kern_avx512_add,
    .exp_from = kern_avx512_exp_from,
    .largest = kern_avx512_largest,
    .mass_from = kern_avx512_mass_from,
    .keep_from = kern_avx512_keep_from,
    .read = kern_avx512_read,
    .peak = kern_avx512_peak,
};
#endif
