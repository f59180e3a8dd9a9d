/* bench/suite_cuda_mm.c - products of a GPU: the model's matrices over numbers of rows, and squares,
 * which are as fast as any. A matrix is used in rotation, more copies than L2 holds.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/suite_cuda.h"

enum { SEED_X = 11, SEED_W = 12, LOOKED_AT = 8, SQUARE = 8192, SQUARE_F32 = 4096, FP8_UNIT = 16 };

struct product {
    struct suite *s;
    struct gpu_mm mm;
    char *w;
    size_t w_bytes;
};

static int multiply(void *arg, int i, struct err *e)
{
    struct product *p = arg;
    struct gpu *g = p->s->cuda->g;
    p->mm.w = p->w + (size_t)i * p->w_bytes;
    return g->ops->mm(g, &p->mm, e);
}

/* First and last row, outputs all over. */
static int check(struct suite *s, const struct gpu_mm *a, int row, struct err *e)
{
    struct suite_cuda_worst w = { 0 };
    float *y = mem_alloc((size_t)a->n * sizeof *y);
    int st = ST_OK;
    for (int64_t r = 0; r < a->m && st == ST_OK; r += a->m > 1 ? a->m - 1 : 1) {
        st = suite_cuda_get(s, y, a->y + r * a->n, (size_t)a->n * sizeof *y, e);
        for (int64_t i = 0; i < LOOKED_AT && st == ST_OK; i++) {
            int64_t o = (a->n - 1) * i / (LOOKED_AT - 1);
            double sum = 0;
            for (int64_t c = 0; c < a->k; c++)
                sum += suite_cuda_value(a->type, SEED_X, r * a->k + c) *
                       suite_cuda_value(a->type, SEED_W, o * a->k + c);
            suite_cuda_compare(&w, y[o], sum);
        }
    }
    free(y);
    if (st == ST_OK) suite_error(s, row, suite_cuda_error(&w));
    return st;
}

/* The engine has timed algorithms for the rows of its recordings; a chunk of prompts takes that of the
 * next power of two, or of the most rows. What is no part of it is to be as fast as can be. */
static int32_t planned_rows(const struct suite *s, const struct points_row *r, int64_t most)
{
    int64_t n = 1;
    if (r->part == POINTS_NO_PART || r->m <= s->o.max_seqs) return (int32_t)r->m;
    while (n < r->m) n *= 2;
    return (int32_t)(n < most ? n : most);
}

/* arg: type, copies of the matrix. Points: numbers of rows, rising. */
static int run_product(struct suite *s, const struct suite_job *j, struct suite_value *v,
                       struct err *e)
{
    struct gpu *g = s->cuda->g;
    const struct points_row *r = &s->row[j->first];
    const float one[2] = { 1, 1 };
    enum gpu_elt type = (enum gpu_elt)j->arg[0];
    int64_t most = r[j->n - 1].m, n = r->n, k = r->k;
    struct product p = { .s = s, .w_bytes = (size_t)(n * k) * gpu_elt_bytes(type) };
    int st = suite_cuda_start(s, e);
    if (st != ST_OK) return st;
    p.mm = (struct gpu_mm){ .type = type, .n = (int32_t)n, .k = (int32_t)k };
    p.mm.x = suite_cuda_drawn(s, type, most * k, SEED_X, e);
    p.mm.y = suite_cuda_take(s, (size_t)(most * n) * sizeof(float));
    for (int i = 0; i < (int)j->arg[1] && p.mm.x; i++) {
        char *w = suite_cuda_drawn(s, type, n * k, SEED_W, e);
        if (i == 0) p.w = w;
        /* from one copy to the next; each begins at a multiple of 256 bytes */
        if (i == 1) p.w_bytes = (size_t)(w - p.w);
        if (!w) return ST_DEVICE;
    }
    const float *scale = p.mm.x ? suite_cuda_given(s, one, sizeof one, e) : NULL;
    if (!scale) return ST_DEVICE;
    if (type == GPU_E4M3) p.mm.x_scale = p.mm.w_scale = scale;
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        const struct suite_cuda_work w = { multiply, &p, (int)j->arg[1] };
        p.mm.m = planned_rows(s, &r[i], most);
        p.mm.w = p.w;
        st = g->ops->plan(g, &p.mm, e);
        p.mm.m = (int32_t)r[i].m;
        if (st == ST_OK) st = suite_cuda_time(s, &w, &v[i], e);
        if (st == ST_OK && r[i].error < 0) st = check(s, &p.mm, j->first + i, e);
    }
    return st;
}

static struct points_row row_of(enum gpu_elt type, int64_t m, int64_t n, int64_t k)
{
    double elt = (double)gpu_elt_bytes(type);
    struct points_row r = suite_gemm(suite_cuda_dtype(type), m, n, k);
    r.bytes = elt * (double)(n * k + m * k) + 4 * (double)(m * n);
    return r;
}

/* size: n, k. m: rows, rising, 0 at the end; those of more than `most` are left out. */
static void add_product(struct suite *s, enum gpu_elt type, enum points_part part,
                        const int64_t size[2], const int32_t *m, int64_t most)
{
    static const char *const name[] = { "f32", "bf16", "f16", "e4m3" };
    double elt = (double)gpu_elt_bytes(type), one = elt * (double)(size[0] * size[1]), x = 0;
    char what[96];
    int copies = suite_cuda_copies(s, one), n = 0;
    if (type == GPU_E4M3 && (size[0] % FP8_UNIT || size[1] % FP8_UNIT)) return;
    while (m[n] && m[n] <= most) n++;
    if (n == 0) return;
    x = (double)m[n - 1] * ((double)size[1] * elt + 4.0 * (double)size[0]);
    if (!suite_cuda_fits(s, copies * (one + 256) + x)) return;
    snprintf(what, sizeof what, "product %lld x %lld %s", (long long)size[0], (long long)size[1],
             name[type]);
    struct suite_job *j = suite_add_job(s, what, 0);
    j->run = run_product;
    j->arg[0] = type;
    j->arg[1] = copies;
    for (int i = 0; i < n; i++) {
        struct points_row r = row_of(type, m[i], size[0], size[1]);
        r.part = (uint8_t)part;
        suite_cuda_row(s, r);
        suite_cuda_guess(s, r.bytes, r.flop);
    }
}

/* arg-less jobs of their own: as few rows as there are are the side's. */
static void add_square(struct suite *s, enum gpu_elt type)
{
    int64_t side = s->o.square ? s->o.square : type == GPU_F32 ? SQUARE_F32 : SQUARE;
    for (int i = 0; i < 2; i++, side /= 2) {
        const int32_t m[] = { (int32_t)side, 0 };
        const int64_t size[] = { side, side };
        add_product(s, type, POINTS_NO_PART, size, m, side);
    }
}

static void add_shapes(struct suite *s, enum gpu_elt type, bool own)
{
    static const int32_t dense[] = { 1,   2,   4,   8,   16,  24,   32,   48,   64,   96,   128,
                                     192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 0 },
                         few[] = { 1, 16, 128, 1024, 4096, 0 };
    const struct arch *a = &s->spec.a;
    const struct shard *d = &s->shard;
    int64_t q = (int64_t)a->head_dim * d->n_head, kv = 2 * (int64_t)a->head_dim * d->n_kv;
    const struct {
        enum points_part part;
        int64_t size[2], most;
    } shape[] = {
        { POINTS_QKV, { q + kv, a->hidden }, s->o.max_tok },
        { POINTS_OUT, { a->hidden, q }, s->o.max_tok },
        { POINTS_GATE_UP, { (a->gated_mlp ? 2 : 1) * (int64_t)d->n_ffn, a->hidden }, s->o.max_tok },
        { POINTS_DOWN, { a->hidden, d->n_ffn }, s->o.max_tok },
        { POINTS_HEAD, { d->n_vocab, a->hidden }, s->o.max_seqs }
    };
    bool full = s->o.kind == SUITE_FULL;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        add_product(s, type, own ? shape[i].part : POINTS_NO_PART, shape[i].size,
                    own && full ? dense : few, shape[i].most);
}

int suite_cuda_mm_add(struct suite *s, struct err *e)
{
    enum gpu_elt own = suite_cuda_weight(s);
    (void)e;
    for (int t = 0; t < GPU_N_ELT; t++) {
        bool is_own = t == (int)own, full = s->o.kind == SUITE_FULL;
        if (!suite_cuda_can(s, (enum gpu_elt)t)) {
            if (full)
                suite_skip(s, t == GPU_E4M3 ? "8-bit products: compute capability below 8.9"
                                            : "bf16 products: compute capability below 8.0");
            continue;
        }
        if (is_own || full) add_square(s, (enum gpu_elt)t);
        if (s->o.kind != SUITE_MODEL && (is_own || full)) add_shapes(s, (enum gpu_elt)t, is_own);
    }
    return ST_OK;
}
