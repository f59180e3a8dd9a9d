/* engine/kern_simd.h - the vector kernels, written once over a vector of 16 floats.
 *
 * Included by one file per instruction set, which first defines ISA (the infix of its functions),
 * TGT (its target attribute), KEEP (always inlined, with that target), the types v16 (16 floats)
 * and the functions on them below, and the tile shapes. Everything here has the order of summation
 * that kern.h states, so all instruction sets give the same bits.
 *   v_zero v_set1 v_load v_store v_load_n v_store_n (first n lanes, the others 0 / untouched)
 *   v_add v_sub v_mul v_div v_fma (a b + c) v_max v_min (x86: b if unordered) v_rint v_exp2i
 *   v_zero_if_below(v, x, bound) (v, or 0 in lanes where x < bound) v_below_else(x, bound, a, b)
 *   v_sign_of(v, x) (|v| with x's signs) v_abs v_sum (lanes i and i + 8, then 4, 2, 1 apart)
 *   v_top (the largest lane) v_bf16 (16 bf16) v_bf16_n (first n) v_even v_odd (of 16 bf16 pairs)
 *   v_set_pair (x[0], x[1], x[0], ...) v_pair_add (16 sums of neighbours, of a then of b)
 *   v_lanes(v, lo, hi, other) (v in lanes lo <= i < hi, `other` elsewhere)
 * SPDX-License-Identifier: Apache-2.0 */

#include "engine/kern_simd_tile.h"

#define PASTE_(a, b, c) a##b##c
#define PASTE(a, b, c)  PASTE_(a, b, c)
#define NAME(f)         PASTE(kern_, ISA, _##f)

enum { KEYS = KERN_ATTN_KEYS };

/* ---- matmul tiles ------------------------------------------------------------------------------ */
/* Runs of 16 k of the interleaved x: x of row r is 16 r further on. */
KEEP void tile_f32(const struct kern_tile *t, int mr, int nv)
{
    for (int col = 0; col < PANEL; col += 16 * nv) {
        const float *w = (const float *)t->w + (int64_t)t->k0 * PANEL + col;
        v16 acc[MR_F32][2];
        const char *next = t->next;
        begin(acc, t, col, mr, nv);
        for (int32_t k = t->k0, end; k < t->k1; k = end) {
            const float *x = (const float *)t->x + (int64_t)(k / 16) * mr * 16 + k % 16;
            end = (k | 15) + 1 < t->k1 ? (k | 15) + 1 : t->k1;
            for (int32_t i = k; i < end; i++, x++, w += PANEL, next += t->next_step) {
                fetch_ahead(next);
                v16 b[2];
                UNROLL for (int v = 0; v < nv; v++) b[v] = v_load(w + 16 * v);
                UNROLL for (int r = 0; r < mr; r++)
                {
                    v16 a = v_set1(x[16 * r]);
                    UNROLL for (int v = 0; v < nv; v++) acc[r][v] = v_fma(a, b[v], acc[r][v]);
                }
            }
        }
        finish(acc, t, col, mr, nv);
    }
}

KEEP void tile_bf16(const struct kern_tile *t, int mr, int nv)
{
    for (int col = 0; col < PANEL; col += 16 * nv) {
        const char *w = (const char *)t->w + ((int64_t)(t->k0 / 2) * PANEL + col) * 4;
        v16 acc[MR_F32][2];
        const char *next = t->next;
        begin(acc, t, col, mr, nv);
        for (int32_t k = t->k0, end; k < t->k1; k = end) {
            const float *x = (const float *)t->x + (int64_t)(k / 16) * mr * 16 + k % 16;
            end = (k | 15) + 1 < t->k1 ? (k | 15) + 1 : t->k1;
            for (int32_t i = k; i < end; i += 2, x += 2, w += PANEL * 4, next += t->next_step) {
                fetch_ahead(next);
                v16 b[2];
                UNROLL for (int v = 0; v < nv; v++) b[v] = v_even(w + 64 * v);
                UNROLL for (int r = 0; r < mr; r++)
                {
                    v16 a = v_set1(x[16 * r]);
                    UNROLL for (int v = 0; v < nv; v++) acc[r][v] = v_fma(a, b[v], acc[r][v]);
                }
                UNROLL for (int v = 0; v < nv; v++) b[v] = v_odd(w + 64 * v);
                UNROLL for (int r = 0; r < mr; r++)
                {
                    v16 a = v_set1(x[16 * r + 1]);
                    UNROLL for (int v = 0; v < nv; v++) acc[r][v] = v_fma(a, b[v], acc[r][v]);
                }
            }
        }
        finish(acc, t, col, mr, nv);
    }
}

#define DEFINE_TILE_F32(mr)                                                                        \
    TGT static void tile_f32_##mr(const struct kern_tile *t)                                       \
    {                                                                                              \
        tile_f32(t, mr, NV_F32(mr));                                                               \
    }
#define DEFINE_TILE_BF16(mr)                                                                       \
    TGT static void tile_bf16_##mr(const struct kern_tile *t)                                      \
    {                                                                                              \
        tile_bf16(t, mr, NV_F32(mr));                                                              \
    }
#define NAME_TILE_F32(mr)  tile_f32_##mr,
#define NAME_TILE_BF16(mr) tile_bf16_##mr,
EACH_MR_F32(DEFINE_TILE_F32)
EACH_MR_F32(DEFINE_TILE_BF16)
kern_tile_fn *const NAME(tiles_f32)[] = { EACH_MR_F32(NAME_TILE_F32) };
kern_tile_fn *const NAME(tiles_bf16)[] = { EACH_MR_F32(NAME_TILE_BF16) };

/* ---- exp and its kin --------------------------------------------------------------------------- */
KEEP v16 v_exp(v16 x)
{
    v16 held = v_min(v_set1(KERN_EXP_HI), v_max(v_set1(KERN_EXP_LO), x));
    v16 n = v_rint(v_mul(held, v_set1(KERN_LOG2E)));
    v16 r = v_fma(n, v_set1(-KERN_LN2_TOP), held), p = v_set1(KERN_EXP_C7);
    r = v_fma(n, v_set1(-KERN_LN2_LOW), r);
    p = v_fma(p, r, v_set1(KERN_EXP_C6));
    p = v_fma(p, r, v_set1(KERN_EXP_C5));
    p = v_fma(p, r, v_set1(KERN_EXP_C4));
    p = v_fma(p, r, v_set1(KERN_EXP_C3));
    p = v_fma(p, r, v_set1(KERN_EXP_C2));
    p = v_fma(p, r, v_set1(1));
    p = v_fma(p, r, v_set1(1));
    return v_zero_if_below(v_mul(p, v_exp2i(n)), x, KERN_EXP_LO);
}

KEEP v16 v_silu_mul(v16 gate, v16 up)
{
    v16 e = v_exp(v_sub(v_zero(), gate));
    return v_mul(v_div(gate, v_add(v_set1(1), e)), up);
}

KEEP v16 v_erf(v16 x)
{
    static const float p[] = KERN_ERF_P, q[] = KERN_ERF_Q;
    v16 a = v_abs(x), s = v_mul(x, x), near = v_set1(p[7]), far = v_set1(q[8]);
    UNROLL for (int i = 6; i >= 0; i--) near = v_fma(near, s, v_set1(p[i]));
    v16 held = v_min(v_set1(4), a);
    UNROLL for (int i = 7; i >= 0; i--) far = v_fma(far, held, v_set1(q[i]));
    far = v_sign_of(v_sub(v_set1(1), v_exp(v_sub(v_zero(), far))), x);
    return v_below_else(a, 1, v_mul(near, x), far);
}

KEEP v16 v_gelu(v16 x)
{
    v16 h = v_mul(x, v_set1(0.5f));
    return v_fma(h, v_erf(v_mul(x, v_set1(KERN_SQRT1_2))), h);
}

KEEP v16 v_gelu_tanh(v16 x)
{
    v16 z = v_fma(v_mul(v_mul(x, x), x), v_set1(KERN_GELU_B), x);
    z = v_mul(v_set1(KERN_GELU_A), z);
    return v_sub(x, v_div(x, v_add(v_set1(1), v_exp(v_add(z, z)))));
}

/* y[i] = f(x[i]) with `expr` of a (and b, from z) over the whole and the last, partial vector. */
#define OVER(n, expr_full, expr_last)                                                              \
    int64_t i = 0;                                                                                 \
    for (; i + 16 <= (n); i += 16) v_store(y + i, expr_full);                                      \
    if (i < (n)) v_store_n(y + i, expr_last, (int)((n)-i))
#define FULL(x) v_load((x) + i)
#define LAST(x) v_load_n((x) + i, (int)(n - i))

TGT void NAME(silu_mul)(float *y, const float *gate, const float *up, int64_t n)
{
    OVER(n, v_silu_mul(FULL(gate), FULL(up)), v_silu_mul(LAST(gate), LAST(up)));
}

TGT void NAME(gelu)(float *y, const float *x, int64_t n)
{
    OVER(n, v_gelu(FULL(x)), v_gelu(LAST(x)));
}

TGT void NAME(gelu_tanh)(float *y, const float *x, int64_t n)
{
    OVER(n, v_gelu_tanh(FULL(x)), v_gelu_tanh(LAST(x)));
}

TGT void NAME(add)(float *y, const float *x, int64_t n)
{
    OVER(n, v_add(FULL(y), FULL(x)), v_add(LAST(y), LAST(x)));
}

KEEP v16 v_exp_from(v16 x, const float *by)
{
    v16 v = v_mul(v_sub(x, v_set1(by[0])), v_set1(by[1]));
    return v_exp(v_max(v, v_set1(2 * KERN_EXP_LO))); /* of a NaN: the second */
}

TGT void NAME(exp_from)(float *y, const float *x, int64_t n, const float by[2])
{
    OVER(n, v_exp_from(FULL(x), by), v_exp_from(LAST(x), by));
}

/* ---- sums for sampling ------------------------------------------------------------------------- */
TGT float NAME(largest)(const float *x, int64_t n)
{
    v16 top[4], none = v_set1(-INFINITY);
    int64_t i = 0;
    UNROLL for (int j = 0; j < 4; j++) top[j] = none;
    for (; i + 64 <= n; i += 64) /* of a NaN and another v_max takes the second */
        UNROLL for (int j = 0; j < 4; j++) top[j] = v_max(FULL(x + 16 * j), top[j]);
    for (; i + 16 <= n; i += 16) top[0] = v_max(FULL(x), top[0]);
    if (i < n) top[1] = v_max(v_lanes(LAST(x), 0, (int)(n - i), -INFINITY), top[1]);
    return v_top(v_max(v_max(top[0], top[1]), v_max(top[2], top[3])));
}

TGT void NAME(mass_from)(double mass[KERN_N_FROM], const float *w, const float *x, int64_t n,
                         const float at[KERN_N_FROM])
{
    for (int j = 0; j < KERN_N_FROM; j++) mass[j] = 0;
    for (int64_t i = 0, end; i < n; i = end) {
        v16 sum[KERN_N_FROM];
        end = n - i < KERN_SUM_BLOCK ? n : i + KERN_SUM_BLOCK;
        UNROLL for (int j = 0; j < KERN_N_FROM; j++) sum[j] = v_zero();
        for (; i < end; i += 16) {
            bool full = i + 16 <= end;
            v16 vw = full ? FULL(w) : LAST(w), vx = full ? FULL(x) : LAST(x);
            UNROLL for (int j = 0; j < KERN_N_FROM; j++) sum[j] =
                v_add(sum[j], v_zero_if_below(vw, vx, at[j]));
        }
        UNROLL for (int j = 0; j < KERN_N_FROM; j++) mass[j] += (double)v_sum(sum[j]);
    }
}

TGT void NAME(keep_from)(float *sum, float *w, const float *x, int64_t n, float at)
{
    for (int64_t i = 0, end; i < n; i = end) {
        v16 s = v_zero();
        end = n - i < KERN_SUM_BLOCK ? n : i + KERN_SUM_BLOCK;
        for (; i < end; i += 16) {
            bool full = i + 16 <= end;
            v16 v = v_zero_if_below(full ? FULL(w) : LAST(w), full ? FULL(x) : LAST(x), at);
            s = v_add(s, v);
            if (full)
                v_store(w + i, v);
            else
                v_store_n(w + i, v, (int)(end - i));
        }
        *sum++ = v_sum(s);
    }
}

/* ---- norms and rope ---------------------------------------------------------------------------- */
TGT void NAME(rmsnorm)(const struct kern_norm *a, int part, int n_part)
{
    int64_t lo, hi, n = a->n;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        const float *x = a->x + row * a->ldx, *w = a->weight;
        float *y = a->y + row * a->ldy;
        v16 sum = v_zero();
        for (int64_t i = 0; i < n; i += 16) {
            v16 v = i + 16 <= n ? FULL(x) : LAST(x);
            sum = v_fma(v, v, sum);
        }
        v16 per = v_set1(1 / sqrtf(v_sum(sum) / (float)n + a->eps));
        OVER(n, v_mul(v_mul(FULL(x), per), FULL(w)), v_mul(v_mul(LAST(x), per), LAST(w)));
    }
}

KEEP v16 v_centred(v16 x, v16 mean, int64_t left)
{
    return v_lanes(v_sub(x, mean), 0, left < 16 ? (int)left : 16, 0);
}

TGT void NAME(layernorm)(const struct kern_norm *a, int part, int n_part)
{
    int64_t lo, hi, n = a->n;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        const float *x = a->x + row * a->ldx, *w = a->weight, *b = a->bias;
        float *y = a->y + row * a->ldy;
        v16 sum = v_zero();
        for (int64_t i = 0; i < n; i += 16) sum = v_add(sum, i + 16 <= n ? FULL(x) : LAST(x));
        v16 mean = v_set1(v_sum(sum) / (float)n);
        sum = v_zero();
        for (int64_t i = 0; i < n; i += 16) {
            v16 v = v_centred(i + 16 <= n ? FULL(x) : LAST(x), mean, n - i);
            sum = v_fma(v, v, sum);
        }
        v16 per = v_set1(1 / sqrtf(v_sum(sum) / (float)n + a->eps));
        OVER(n, v_fma(v_mul(v_sub(FULL(x), mean), per), FULL(w), b ? FULL(b) : v_zero()),
             v_fma(v_mul(v_sub(LAST(x), mean), per), LAST(w), b ? LAST(b) : v_zero()));
    }
}

KEEP void rope_run(float *x, const float *c, const float *s, int32_t half, int n)
{
    v16 u = n < 16 ? v_load_n(x, n) : v_load(x);
    v16 v = n < 16 ? v_load_n(x + half, n) : v_load(x + half);
    v16 cos = n < 16 ? v_load_n(c, n) : v_load(c), sin = n < 16 ? v_load_n(s, n) : v_load(s);
    v16 lo = v_fma(u, cos, v_sub(v_zero(), v_mul(v, sin))), hi = v_fma(v, cos, v_mul(u, sin));
    if (n < 16) {
        v_store_n(x, lo, n);
        v_store_n(x + half, hi, n);
    } else {
        v_store(x, lo);
        v_store(x + half, hi);
    }
}

TGT void NAME(rope)(const struct kern_rope *a, int part, int n_part)
{
    int64_t lo, hi;
    kern_split(a->m, part, n_part, &lo, &hi);
    for (int64_t row = lo; row < hi; row++) {
        const float *c = a->cs + (a->at ? a->at[row] : row) * 2 * a->half, *s = c + a->half;
        for (int32_t h = 0; h < a->n_head; h++) {
            float *x = a->x + row * a->ldx + (int64_t)h * a->head_dim;
            for (int32_t i = 0; i < a->half; i += 16)
                rope_run(x + i, c + i, s + i, a->half, a->half - i < 16 ? a->half - i : 16);
        }
    }
}

/* ---- attention --------------------------------------------------------------------------------- */
/* Where the KV of 64 positions lies, 8 positions a pointer. */
struct places {
    const char *k[KEYS / 8], *v[KEYS / 8];
};

/* A row tile: queries scaled, their running numerators, maxima and denominators, and the scores of
 * 64 keys, which become weights. */
struct tile {
    float q[KERN_ATTN_ROWS * KERN_MAX_HEAD_DIM], acc[KERN_ATTN_ROWS * KERN_MAX_HEAD_DIM];
    float s[KERN_ATTN_ROWS][KEYS];
    float top[KERN_ATTN_ROWS], den[KERN_ATTN_ROWS], fade[KERN_ATTN_ROWS];
    struct places now, next; /* next: asked for line by line while now is read */
    int64_t head_bytes;      /* of one KV head of a block */
    int32_t dim, rows;
    int32_t key0, key1; /* of the 64: the first and one past the last that any row sees */
};

KEEP v16 v_kv(const char *p, bool wide)
{
    return wide ? v_load((const float *)(const void *)p) : v_bf16(p);
}

/* Scores of rows [r0, r0 + mr) with the 16 keys of k[2 j] and k[2 j + 1]. */
KEEP void score_tile(struct tile *t, int r0, int j, int mr, bool wide)
{
    const float *q = t->q + (int64_t)r0 * t->dim;
    const char *k0 = t->now.k[2 * j], *k1 = t->now.k[2 * j + 1];
    const char *next0 = t->next.k[2 * j], *next1 = t->next.k[2 * j + 1];
    int64_t step = wide ? 64 : 32;
    v16 acc[MR_ATTN][2];
    UNROLL for (int r = 0; r < mr; r++) acc[r][0] = acc[r][1] = v_zero();
    for (int32_t d = 0; d < t->dim; d += 2, k0 += step, k1 += step) {
        __builtin_prefetch(next0 + d / 2 * step, 0, 3);
        __builtin_prefetch(next1 + d / 2 * step, 0, 3);
        v16 b0 = v_kv(k0, wide), b1 = v_kv(k1, wide);
        UNROLL for (int r = 0; r < mr; r++)
        {
            v16 a = v_set_pair(q + (int64_t)r * t->dim + d);
            acc[r][0] = v_fma(a, b0, acc[r][0]);
            acc[r][1] = v_fma(a, b1, acc[r][1]);
        }
    }
    UNROLL for (int r = 0; r < mr; r++)
        v_store(t->s[r0 + r] + j * 16, v_pair_add(acc[r][0], acc[r][1]));
}

/* acc[rows][16 nv from dim d] = acc fade + weights . values; last: only `last` dims, nv = 1. */
KEEP void value_tile(struct tile *t, int r0, int d, int mr, int shape)
{
    const bool wide = shape & 1;
    const int nv = shape & 2 ? 2 : 1, last = shape & 4 ? t->dim - d : 0;
    const int64_t size = wide ? 4 : 2, step = t->dim * size;
    float *out = t->acc + (int64_t)r0 * t->dim + d;
    v16 acc[MR_ATTN][2];
    FOR_ROWS_AND_VECS
    {
        const float *p = out + (int64_t)r * t->dim + 16 * v;
        acc[r][v] = v_mul(last ? v_load_n(p, last) : v_load(p), v_set1(t->fade[r0 + r]));
    }
    for (int32_t i = t->key0; i < t->key1; i++) {
        const int64_t off = i % 8 * step + d * size;
        const char *p = t->now.v[i / 8] + off, *next = t->next.v[i / 8] + off;
        __builtin_prefetch(next, 0, 3);
        if (wide) __builtin_prefetch(next + 64, 0, 3);
        v16 b[2];
        if (last)
            b[0] = wide ? v_load_n((const float *)(const void *)p, last) : v_bf16_n(p, last);
        else
            UNROLL for (int v = 0; v < nv; v++) b[v] = v_kv(p + 16 * v * size, wide);
        UNROLL for (int r = 0; r < mr; r++)
        {
            v16 a = v_set1(t->s[r0 + r][i]);
            UNROLL for (int v = 0; v < nv; v++) acc[r][v] = v_fma(a, b[v], acc[r][v]);
        }
    }
    FOR_ROWS_AND_VECS
    {
        float *p = out + (int64_t)r * t->dim + 16 * v;
        if (last)
            v_store_n(p, acc[r][v], last);
        else
            v_store(p, acc[r][v]);
    }
}

#define DEFINE_ATTN(mr)                                                                            \
    TGT static void score_f32_##mr(struct tile *t, int r0, int j)                                  \
    {                                                                                              \
        score_tile(t, r0, j, mr, true);                                                            \
    }                                                                                              \
    TGT static void score_bf16_##mr(struct tile *t, int r0, int j)                                 \
    {                                                                                              \
        score_tile(t, r0, j, mr, false);                                                           \
    }                                                                                              \
    TGT static void value_f32_##mr(struct tile *t, int r0)                                         \
    {                                                                                              \
        int d = 0;                                                                                 \
        for (; d + 32 <= t->dim; d += 32) value_tile(t, r0, d, mr, 3);                             \
        for (; d + 16 <= t->dim; d += 16) value_tile(t, r0, d, mr, 1);                             \
        if (d < t->dim) value_tile(t, r0, d, mr, 5);                                               \
    }                                                                                              \
    TGT static void value_bf16_##mr(struct tile *t, int r0)                                        \
    {                                                                                              \
        int d = 0;                                                                                 \
        for (; d + 32 <= t->dim; d += 32) value_tile(t, r0, d, mr, 2);                             \
        for (; d + 16 <= t->dim; d += 16) value_tile(t, r0, d, mr, 0);                             \
        if (d < t->dim) value_tile(t, r0, d, mr, 4);                                               \
    }
EACH_MR_ATTN(DEFINE_ATTN)
struct attn_fn {
    int mr;
    void (*score[2])(struct tile *t, int r0, int j); /* by wide */
    void (*value[2])(struct tile *t, int r0);
};
#define NAME_ATTN(mr)                                                                              \
    { mr, { score_bf16_##mr, score_f32_##mr }, { value_bf16_##mr, value_f32_##mr } },
static const struct attn_fn attn_fns[] = { EACH_MR_ATTN(NAME_ATTN) }; /* descending mr, ends in 1 */

/* Scores of row r become weights exp(score - top); keys outside [lo, hi) weigh nothing. */
KEEP void soften(struct tile *t, int r, int32_t lo, int32_t hi)
{
    float *s = t->s[r];
    if (lo >= hi) {
        for (int j = 0; j < KEYS; j += 16) v_store(s + j, v_zero());
        t->fade[r] = 1;
        return;
    }
    v16 top = v_set1(t->top[r]), sum = v_zero();
    UNROLL for (int j = 0; j < KEYS; j += 16)
    {
        v16 v = v_lanes(v_load(s + j), lo - j, hi - j, -INFINITY);
        v_store(s + j, v);
        top = v_max(v, top);
    }
    float new_top = v_top(top);
    top = v_set1(new_top);
    UNROLL for (int j = 0; j < KEYS; j += 16)
    {
        v16 v = v_lanes(v_exp(v_sub(v_load(s + j), top)), lo - j, hi - j, 0);
        v_store(s + j, v);
        sum = v_add(sum, v);
    }
    float fade[16];
    v_store(fade, v_exp(v_sub(v_set1(t->top[r]), top)));
    t->fade[r] = fade[0];
    v_store(fade, v_fma(v_set1(t->den[r]), v_set1(fade[0]), v_set1(v_sum(sum))));
    t->den[r] = fade[0];
    t->top[r] = new_top;
}

/* Of positions [key, key + 64) of a tile's sequence, of which [key + lo, key + hi) are seen; the others
 * stand at one that is. */
KEEP void locate(struct places *p, const struct tile *t, const struct kern_attn_tile *a,
                 int32_t key, int32_t lo, int32_t hi)
{
    const struct kern_kv *kv = a->a->kv;
    int64_t tok_bytes = t->dim * (kv->type == KERN_F32 ? 4 : 2);
    for (int32_t j = 0; j < KEYS / 8; j++) {
        bool seen = j * 8 < hi && (j + 1) * 8 > lo;
        int32_t at = key + (seen ? j : lo / 8) * 8, slot = at % kv->block_tok;
        int64_t block = a->s->block[at / kv->block_tok];
        int64_t off = (block * kv->n_head + a->head) * t->head_bytes + slot * tok_bytes;
        p->k[j] = (const char *)kv->k + off;
        p->v[j] = (const char *)kv->v + off;
    }
}

/* All at once: what is in work is too short to do it on the way. */
KEEP void fetch(const struct places *p, int64_t bytes)
{
    for (int32_t j = 0; j < KEYS / 8; j++)
        for (int64_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(p->k[j] + i, 0, 3);
            __builtin_prefetch(p->v[j] + i, 0, 3);
        }
}

/* What comes after the keys in work, of tile `of`; of NULL: nothing. */
struct coming {
    const struct kern_attn_tile *of;
    int32_t at, lo, end; /* of [at, at + 64) those in [lo, end) are seen */
};

KEEP struct coming after(const struct kern_attn_tile *a, int32_t key, int32_t end)
{
    struct coming c = { a, key + KEYS, key + KEYS, end };
    int32_t any;
    if (c.at >= end) {
        if (!(c.of = a->next)) return c;
        kern_attn_seen(c.of, c.of->r0, &c.lo, &any);
        kern_attn_seen(c.of, c.of->r1 - 1, &any, &c.end);
        c.at = c.lo / KEYS * KEYS;
    }
    if (c.end > c.at + KEYS) c.end = c.at + KEYS;
    return c;
}

KEEP void visit_keys(struct tile *t, const struct kern_attn_tile *a, int32_t key, int32_t end)
{
    bool wide = a->a->kv->type == KERN_F32;
    struct coming c = after(a, key, end);
    locate(&t->now, t, a, key, t->key0, t->key1);
    t->next = t->now;
    if (c.of) {
        locate(&t->next, t, c.of, c.at, c.lo - c.at, c.end - c.at);
        if (t->key1 - t->key0 < KEYS) fetch(&t->next, 8 * t->dim * (wide ? 4 : 2));
    }
    for (int j = t->key0 / 16; j * 16 < t->key1; j++) {
        const struct attn_fn *f = attn_fns;
        for (int r = 0; r < t->rows; r += f->mr) {
            while (f->mr > t->rows - r) f++;
            f->score[wide](t, r, j);
        }
    }
    for (int r = 0; r < t->rows; r++) {
        int32_t lo, hi;
        kern_attn_seen(a, a->r0 + r, &lo, &hi);
        soften(t, r, lo > key ? lo - key : 0, hi - key < KEYS ? hi - key : KEYS);
    }
    const struct attn_fn *f = attn_fns;
    for (int r = 0; r < t->rows; r += f->mr) {
        while (f->mr > t->rows - r) f++;
        f->value[wide](t, r);
    }
}

KEEP void scaled(float *y, const float *x, int64_t n, float by)
{
    OVER(n, v_mul(FULL(x), v_set1(by)), v_mul(LAST(x), v_set1(by)));
}

KEEP void divided(float *y, const float *x, int64_t n, float by)
{
    OVER(n, v_div(FULL(x), v_set1(by)), v_div(LAST(x), v_set1(by)));
}

TGT static void attn_tile(const struct kern_attn_tile *a)
{
    struct tile t;
    int32_t group = a->a->n_q_head / a->a->kv->n_head, lo, hi, any;
    t.dim = a->a->kv->head_dim;
    t.rows = a->r1 - a->r0;
    t.head_bytes = (int64_t)kern_kv_block_bytes(a->a->kv) / a->a->kv->n_head;
    for (int32_t r = 0; r < t.rows; r++) {
        int64_t row = a->s->row + (a->r0 + r) / group, h = a->head * group + (a->r0 + r) % group;
        const float *q = a->a->q + row * a->a->ldq + h * t.dim;
        scaled(t.q + r * t.dim, q, t.dim, a->a->scale);
        t.top[r] = -INFINITY;
        t.den[r] = 0;
    }
    memset(t.acc, 0, (size_t)t.rows * (size_t)t.dim * sizeof *t.acc);
    kern_attn_seen(a, a->r0, &lo, &any);
    kern_attn_seen(a, a->r1 - 1, &any, &hi);
    for (int32_t key = lo / KEYS * KEYS; key < hi; key += KEYS) {
        t.key0 = lo > key ? lo - key : 0;
        t.key1 = hi - key < KEYS ? hi - key : KEYS;
        visit_keys(&t, a, key, hi);
    }
    for (int32_t r = 0; r < t.rows; r++) {
        int64_t row = a->s->row + (a->r0 + r) / group, h = a->head * group + (a->r0 + r) % group;
        float *out = a->a->out + row * a->a->ldo + h * t.dim;
        divided(out, t.acc + r * t.dim, t.dim, t.den[r]);
    }
}

TGT void NAME(attn)(const struct kern_attn *a, int part, int n_part)
{
    kern_attn_drive(a, part, n_part, attn_tile);
}
