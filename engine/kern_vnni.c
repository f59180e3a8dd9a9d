/* engine/kern_vnni.c - AVX-512 with VNNI (int8 dot) and, as a table of its own, with BF16 dot.
 *
 * Only matmul differs from kern_avx512.c. SPDX-License-Identifier: Apache-2.0 */
#include "engine/kern_priv.h"

#if defined(__x86_64__)
#define TGT                                                                                        \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")))
#include "engine/kern_avx512.h"

enum { MR_F32 = 12, MR_I8 = 6, X_BYTES = 1 };
#define NV_I8          2
#define EACH_MR_F32(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define EACH_MR_I8(X)  X(1) X(2) X(3) X(4) X(5) X(6)
#include "engine/kern_avx512_i8.h"
#include "engine/kern_simd_tile.h"

typedef __m512i vw;

KEEP vw vw_load(const char *p)
{
    return _mm512_loadu_si512(p);
}

KEEP vi vi_dot(vi acc, vw w, const char *x)
{
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, w, (__m512i)vi_load1(x));
}
#include "engine/kern_simd_i8.h"

/* Runs of 16 pairs of the interleaved x: those of row r are 64 bytes further on. */
KEEP void tile_dot(const struct kern_tile *t, int mr, int nv)
{
    const char *w = (const char *)t->w + (int64_t)(t->k0 / 2) * PANEL * 4;
    v16 acc[MR_F32][2];
    const char *next = t->next;
    begin(acc, t, 0, mr, nv);
    for (int32_t k = t->k0 / 2, end, last = (t->k1 + 1) / 2; k < last; k = end) {
        const char *x = (const char *)t->x + ((int64_t)(k / 16) * mr * 16 + k % 16) * 4;
        end = (k | 15) + 1 < last ? (k | 15) + 1 : last;
        for (int32_t i = k; i < end; i++, x += 4, w += PANEL * 4, next += t->next_step) {
            fetch_ahead(next);
            __m512bh b0 = (__m512bh)_mm512_loadu_si512(w);
            __m512bh b1 = (__m512bh)_mm512_loadu_si512(w + 64);
            UNROLL for (int r = 0; r < mr; r++)
            {
                __m512bh a = (__m512bh)vi_load1(x + 64 * r);
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], b0, a);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], b1, a);
            }
        }
    }
    finish(acc, t, 0, mr, nv);
}

#define DEFINE_TILE_DOT(mr)                                                                        \
    TGT static void tile_dot_##mr(const struct kern_tile *t)                                       \
    {                                                                                              \
        tile_dot(t, mr, 2);                                                                        \
    }
#define NAME_TILE_DOT(mr) tile_dot_##mr,
EACH_MR_F32(DEFINE_TILE_DOT)
static kern_tile_fn *const tiles_dot[] = { EACH_MR_F32(NAME_TILE_DOT) };

/* 32 x of one row as 16 bf16 pairs, nearest even; beyond n zero. */
TGT static void round_run(char *to, const float *x, int64_t n)
{
    uint16_t pair[32] = { 0 };
    if (n < 32)
        for (int64_t i = 0; i < n; i++) pair[i] = kern_bf16(x[i]);
    else {
        __m512bh b = _mm512_cvtne2ps_pbh(v_load(x + 16), v_load(x));
        memcpy(pair, &b, sizeof pair);
    }
    memcpy(to, pair, sizeof pair);
}

static void prep_dot(const struct kern_prep *a, int part, int n_part)
{
    int64_t lo, hi, n_run = (a->k + 31) / 32;
    kern_split(n_run, part, n_part, &lo, &hi);
    for (int32_t i = 0, r0 = 0, mr; r0 < a->m; i++, r0 += mr) {
        mr = kern_row_panel(a->m, MR_F32, i, &r0);
        char *to = (char *)a->xp + r0 * n_run * 64;
        for (int64_t b = lo; b < hi; b++)
            for (int32_t r = 0; r < mr; r++)
                round_run(to + (b * mr + r) * 64, a->x + (r0 + r) * a->ldx + b * 32, a->k - b * 32);
    }
}

static const struct kern_tiles tiles = {
    .of = { [KERN_F32] = { MR_F32, kern_avx512_tiles_f32 },
            [KERN_BF16] = { MR_F32, kern_avx512_tiles_bf16 } },
    .i8 = tile_i8,
    .x_bytes = X_BYTES,
    .add = kern_avx512_add,
};
static const struct kern_tiles tiles_bf16dp = {
    .of = { [KERN_F32] = { MR_F32, kern_avx512_tiles_f32 }, [KERN_BF16] = { MR_F32, tiles_dot } },
    .i8 = tile_i8,
    .x_bf16 = true,
    .x_bytes = X_BYTES,
    .add = kern_avx512_add,
};

static void prep(const struct kern_prep *a, int part, int n_part)
{
    if (a->type == KERN_I8)
        prep_i8(a, part, n_part);
    else
        kern_prep_f32(a, part, n_part, MR_F32);
}

static void prep_bf16dp(const struct kern_prep *a, int part, int n_part)
{
    if (a->type == KERN_BF16)
        prep_dot(a, part, n_part);
    else
        prep(a, part, n_part);
}

static void mm(const struct kern_mm *a, int part, int n_part)
{
    kern_mm_drive(a, part, n_part, &tiles);
}

static void mm_bf16dp(const struct kern_mm *a, int part, int n_part)
{
    kern_mm_drive(a, part, n_part, &tiles_bf16dp);
}

/* Twelve chains of `op` on acc[i], which is of a type whose lanes add up in `total`. */
#define CHAINS(op)                                                                                 \
    for (int64_t t = 0; t < times; t++) UNROLL for (int i = 0; i < 12; i++) acc[i] = op

TGT static double peak_bf16(int64_t times)
{
    v16 acc[12];
    volatile float sink;
    __m512bh half = (__m512bh)_mm512_set1_epi32(0x3e803e80); /* 0.25, 0.25 */
    UNROLL for (int i = 0; i < 12; i++) acc[i] = v_set1((float)i);
    CHAINS(_mm512_dpbf16_ps(acc[i], half, half));
    UNROLL for (int i = 1; i < 12; i++) acc[0] = v_add(acc[0], acc[i]);
    sink = v_sum(acc[0]);
    (void)sink;
    return 12 * 64.0 * (double)times;
}

TGT static double peak(enum kern_peak what, int64_t times)
{
    __m512i acc[12], one = _mm512_set1_epi32(0x01010101);
    volatile int32_t sink;
    if (what != KERN_PEAK_I8) return kern_avx512_peak(what, times);
    UNROLL for (int i = 0; i < 12; i++) acc[i] = _mm512_set1_epi32(i);
    CHAINS(_mm512_dpbusd_epi32(acc[i], one, one));
    UNROLL for (int i = 1; i < 12; i++) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    sink = _mm512_reduce_add_epi32(acc[0]);
    (void)sink;
    return 12 * 128.0 * (double)times;
}

static double peak_bf16dp(enum kern_peak what, int64_t times)
{
    return what == KERN_PEAK_BF16 ? peak_bf16(times) : peak(what, times);
}

#define TABLE(name_, prep_, mm_, peak_)                                                            \
    {                                                                                              \
        .name = (name_), .prep = (prep_), .mm = (mm_), .attn = kern_avx512_attn,                   \
        .rmsnorm = kern_avx512_rmsnorm, .layernorm = kern_avx512_layernorm,                        \
        .rope = kern_avx512_rope, .silu_mul = kern_avx512_silu_mul, .gelu = kern_avx512_gelu,      \
        .gelu_tanh = kern_avx512_gelu_tanh, .add = kern_avx512_add,                                \
        .exp_from = kern_avx512_exp_from, .largest = kern_avx512_largest,                          \
        .mass_from = kern_avx512_mass_from, .keep_from = kern_avx512_keep_from,                    \
        .read = kern_avx512_read, .peak = (peak_)                                                  \
    }
const struct kern kern_vnni = TABLE("avx512_vnni", prep, mm, peak);
const struct kern kern_bf16dp = TABLE("avx512_bf16", prep_bf16dp, mm_bf16dp, peak_bf16dp);
#endif
