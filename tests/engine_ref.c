/* tests/engine_ref.c - the operations of engine/backend.h as their definitions say, sums in double.
 *
 * Weights are kept in f32 after rounding to the asked type; int8 is not offered.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/engine_ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

struct backend_mat {
    enum backend_type type;
    int n, k;
    float *w;
};

struct backend_kv {
    enum backend_type type;
    int32_t n_head, block_tok, d;
    size_t n;
    float *k, *v; /* [block][head][token][d] */
};

struct ref {
    struct backend b;
    struct arena a;
};

static struct arena *arena(struct backend *b)
{
    return &((struct ref *)b)->a;
}
static void ref_close(struct backend *b)
{
    arena_release(arena(b));
    free(b);
}
static void *ref_alloc(struct backend *b, size_t bytes, struct err *e)
{
    (void)e;
    return arena_alloc(arena(b), bytes);
}
static void ref_copy(struct backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    memcpy(to, from, bytes);
}
/* As a device with memory of its own would. */
static const void *ref_view(struct backend *b, const void *p)
{
    (void)b, (void)p;
    return NULL;
}

static void ref_sync(struct backend *b)
{
    (void)b;
}
static float rounded(enum backend_type t, float x)
{
    return t == BACKEND_BF16 ? elt_from_bf16(elt_to_bf16(x)) : x;
}
static struct backend_mat *ref_mat_new(struct backend *b, enum backend_type t, int n, int k,
                                       struct err *e)
{
    (void)e;
    struct backend_mat *w = arena_alloc(arena(b), sizeof *w);
    *w = (struct backend_mat){ t, n, k, NULL };
    w->w = arena_array(arena(b), (size_t)n * (size_t)k, sizeof *w->w);
    return w;
}
static void ref_mat_rows(struct backend *b, struct backend_mat *w, int n_at, int n_row,
                         enum elt from, const void *rows)
{
    (void)b;
    size_t k = (size_t)w->k;
    for (size_t i = 0; i < (size_t)n_row * k; i++)
        w->w[(size_t)n_at * k + i] = rounded(w->type, elt_get(from, rows, i));
}
static size_t ref_mat_bytes(const struct backend_mat *w)
{
    return (size_t)w->n * (size_t)w->k * sizeof *w->w;
}
static struct backend_kv *ref_kv_new(struct backend *b, enum backend_type t, const int32_t s[4],
                                     struct err *e)
{
    (void)e;
    struct backend_kv *kv = arena_alloc(arena(b), sizeof *kv);
    *kv = (struct backend_kv){ t, s[1], s[2], s[3], 0, NULL, NULL };
    kv->n = (size_t)s[0] * (size_t)s[1] * (size_t)s[2] * (size_t)s[3];
    kv->k = arena_array(arena(b), kv->n, sizeof *kv->k);
    kv->v = arena_array(arena(b), kv->n, sizeof *kv->v);
    return kv;
}
static size_t ref_kv_bytes(const struct backend_kv *kv)
{
    return 2 * kv->n * sizeof *kv->k;
}
static int ref_reserve(struct backend *b, int32_t m, struct err *e)
{
    (void)b, (void)m, (void)e;
    return ST_OK;
}
static void ref_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok, int32_t m,
                      int32_t row0, float *x)
{
    (void)b;
    for (int32_t i = 0; i < m; i++)
        for (int32_t c = 0; c < w->k; c++) {
            int32_t row = tok[i] - row0;
            x[i * w->k + c] = row >= 0 && row < w->n ? w->w[row * w->k + c] : 0;
        }
}
static void ref_mm(struct backend *b, const struct backend_mm *a)
{
    (void)b;
    for (int32_t i = 0; i < a->m; i++)
        for (int32_t j = 0; j < a->w->n; j++) {
            double sum = 0;
            for (int32_t c = 0; c < a->w->k; c++)
                sum += (double)a->x[i * a->ldx + c] * (double)a->w->w[j * a->w->k + c];
            a->y[i * a->ldy + j] = (float)sum;
        }
}
static void normalise(const struct backend_norm *w, const float *x, float *y, int n)
{
    double mean = 0, square = 0;
    for (int c = 0; c < n && w->mean; c++) mean += (double)x[c] / n;
    for (int c = 0; c < n; c++) square += ((double)x[c] - mean) * ((double)x[c] - mean) / n;
    double scale = 1 / sqrt(square + (double)w->eps);
    for (int c = 0; c < n; c++)
        y[c] = (float)(((double)x[c] - mean) * scale * (double)w->weight[c] +
                       (w->bias ? (double)w->bias[c] : 0));
}
static void ref_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                     const int32_t s[2])
{
    (void)b;
    for (int32_t i = 0; i < s[0]; i++) normalise(w, x + i * s[1], y + i * s[1], s[1]);
}
static void ref_head_norm(struct backend *b, const struct backend_norm *w,
                          const struct backend_rope *a)
{
    (void)b;
    for (int32_t i = 0; i < a->m; i++)
        for (int32_t h = 0; h < a->n_head; h++) {
            float *x = a->x + i * a->ldx + h * a->head_dim;
            normalise(w, x, x, a->head_dim);
        }
}
static void ref_rope(struct backend *b, const struct backend_rope *a)
{
    (void)b;
    int32_t half = a->head_dim / 2;
    for (int32_t i = 0; i < a->m; i++)
        for (int32_t h = 0; h < a->n_head * half; h++) {
            const float *cs = a->cs + (int64_t)a->at[i] * 2 * half;
            int32_t c = h % half;
            float *x = a->x + i * a->ldx + h / half * a->head_dim + c, u = x[0], v = x[half];
            x[0] = u * cs[c] - v * cs[half + c];
            x[half] = v * cs[c] + u * cs[half + c];
        }
}
static int64_t at(const struct backend_kv *kv, const struct backend_seq *s, int32_t pos,
                  int32_t head)
{
    int64_t block = s->block[pos / kv->block_tok];
    return ((block * kv->n_head + head) * kv->block_tok + pos % kv->block_tok) * kv->d;
}
static void ref_kv_put(struct backend *b, const struct backend_attn *a)
{
    (void)b;
    struct backend_kv *kv = a->kv;
    for (int32_t s = 0; s < a->n_seq; s++)
        for (int32_t i = 0; i < a->seq[s].n_q; i++)
            for (int32_t c = 0; c < kv->n_head * kv->d; c++) {
                int64_t row = (a->seq[s].row + i) * a->ld + c;
                int64_t to = at(kv, &a->seq[s], a->seq[s].pos + i, c / kv->d) + c % kv->d;
                kv->k[to] = rounded(kv->type, a->k[row]);
                kv->v[to] = rounded(kv->type, a->v[row]);
            }
}
static void attend(const struct backend_attn *a, const struct backend_seq *s, int32_t i, int32_t h)
{
    const struct backend_kv *kv = a->kv;
    int32_t g = h / (a->n_head / kv->n_head), p = s->pos + i, d = kv->d;
    int32_t from = a->window > 0 && p + 1 > a->window ? p + 1 - a->window : 0;
    const float *q = a->q + (s->row + i) * a->ld + h * d;
    float *out = a->out + (s->row + i) * a->ldo + h * d;
    double most = -INFINITY, total = 0, sum[256] = { 0 };
    for (int pass = 0; pass < 2; pass++)
        for (int32_t t = from; t <= p; t++) {
            double score = 0;
            for (int32_t c = 0; c < d; c++)
                score += (double)q[c] * (double)kv->k[at(kv, s, t, g) + c];
            score *= (double)a->scale;
            if (pass == 0) {
                most = fmax(most, score);
                continue;
            }
            double e = exp(score - most);
            total += e;
            for (int32_t c = 0; c < d; c++) sum[c] += e * (double)kv->v[at(kv, s, t, g) + c];
        }
    for (int32_t c = 0; c < d; c++) out[c] = (float)(sum[c] / total);
}
static void ref_attn(struct backend *b, const struct backend_attn *a)
{
    (void)b;
    for (int32_t s = 0; s < a->n_seq; s++)
        for (int32_t i = 0; i < a->seq[s].n_q; i++)
            for (int32_t h = 0; h < a->n_head; h++) attend(a, &a->seq[s], i, h);
}
static void ref_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    (void)b;
    for (int32_t i = 0; i < m; i++)
        for (int32_t c = 0; c < n; c++) {
            double g = (double)x[2 * i * n + c];
            y[i * n + c] = (float)(g / (1 + exp(-g)) * (double)x[(2 * i + 1) * n + c]);
        }
}
static void ref_gelu(struct backend *b, float *x, int64_t n)
{
    (void)b;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(0.5 * (double)x[i] * (1 + erf((double)x[i] / sqrt(2.0))));
}
static void ref_add(struct backend *b, float *y, const float *x, int64_t n)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
static void ref_add_bias(struct backend *b, float *y, const float *bias, int32_t m, int32_t n)
{
    (void)b;
    for (int32_t i = 0; i < m * n; i++) y[i] += bias[i % n];
}
static void ref_pick(struct backend *b, const float *x, const int32_t *rows, float *y,
                     const int32_t s[2])
{
    (void)b;
    for (int32_t i = 0; i < s[0]; i++)
        memcpy(y + i * s[1], x + rows[i] * s[1], (size_t)s[1] * sizeof *y);
}

static const struct backend_ops ops = {
    .name = "reference",
    .close = ref_close,
    .alloc = ref_alloc,
    .upload = ref_copy,
    .download = ref_copy,
    .view = ref_view,
    .sync = ref_sync,
    .mat_new = ref_mat_new,
    .mat_rows = ref_mat_rows,
    .mat_bytes = ref_mat_bytes,
    .kv_new = ref_kv_new,
    .kv_bytes = ref_kv_bytes,
    .reserve = ref_reserve,
    .embed = ref_embed,
    .mm = ref_mm,
    .norm = ref_norm,
    .head_norm = ref_head_norm,
    .rope = ref_rope,
    .kv_put = ref_kv_put,
    .attn = ref_attn,
    .silu_mul = ref_silu_mul,
    .gelu = ref_gelu,
    .add = ref_add,
    .add_bias = ref_add_bias,
    .pick = ref_pick,
};

struct backend *engine_ref_open(void)
{
    struct ref *r = mem_zalloc(1, sizeof *r);
    r->b.ops = &ops;
    arena_init(&r->a);
    return &r->b;
}
