/* bench/suite_cuda_attn.c - attention of a GPU over a pool of KV blocks: decode batches, prompts and
 * chunks after a past. Each call reads other blocks than the one before, as long as there are others.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/suite_cuda.h"
#include "engine/elt.h"

enum {
    MAX_SHAPE = 96,
    MAX_SEQ = 1024,
    MAX_VAR = 8,
    STRIDE = 7,
    SEED_K = 21,
    SEED_V = 22,
    SEED_Q = 23
};

/* n sequences of q new tokens after p cached ones each, the last one after `last`. */
struct batch_shape {
    int32_t n, q, p, last;
};

struct attention {
    struct suite *s;
    struct suite_heads h;
    struct gpu_attn a;
    const struct batch_shape *b;
    int32_t n_block, n_var, *block; /* block[var][of the shape]: host's copy of the tables */
    const int32_t *table[MAX_VAR];
    bool f32;
};

static int32_t past_of(const struct batch_shape *b, int32_t i)
{
    return i == b->n - 1 ? b->last : b->p;
}

static int32_t blocks_of(const struct suite *s, const struct batch_shape *b)
{
    int32_t n = 0, t = s->o.block_tok;
    for (int32_t i = 0; i < b->n; i++) n += (past_of(b, i) + b->q + t - 1) / t;
    return n;
}

static struct suite_heads heads(const struct suite *s)
{
    return (struct suite_heads){ s->shard.n_head, s->shard.n_kv, s->spec.a.head_dim,
                                 s->o.kv == BACKEND_F32 ? 4 : 2 };
}

static double block_bytes(const struct suite *s)
{
    struct suite_heads h = heads(s);
    return 2.0 * s->o.block_tok * (double)(h.n_kv_head * h.head_dim * h.elt_bytes);
}

static int attend(void *arg, int i, struct err *e)
{
    struct attention *x = arg;
    x->a.s.table = x->table[i];
    if (x->a.n_tile > 0)
        return suite_cuda_launch(x->s, x->f32 ? GPU_K_attn_prefill_f32 : GPU_K_attn_prefill, &x->a,
                                 e);
    int st = suite_cuda_launch(x->s, GPU_K_attn_decode, &x->a, e);
    if (st == ST_OK && x->a.n_split > 1) st = suite_cuda_launch(x->s, GPU_K_attn_combine, &x->a, e);
    return st;
}

/* ---- a step's arrays */

static const int32_t *ints(struct suite *s, const int32_t *from, int64_t n, struct err *e)
{
    return suite_cuda_given(s, from, (size_t)n * sizeof *from, e);
}

/* Tables walk through the pool in scattered order, each from where the last one ended. */
static int tables(struct attention *x, struct err *e)
{
    int32_t n = blocks_of(x->s, x->b);
    x->n_var = x->n_block / n < MAX_VAR ? x->n_block / n : MAX_VAR;
    x->block = mem_alloc((size_t)n * (size_t)x->n_var * sizeof *x->block);
    for (int32_t i = 0; i < n * x->n_var; i++)
        x->block[i] = (int32_t)(((int64_t)i * STRIDE + 3) % x->n_block);
    for (int32_t v = 0; v < x->n_var; v++) {
        x->table[v] = ints(x->s, x->block + (ptrdiff_t)v * n, n, e);
        if (!x->table[v]) return ST_DEVICE;
    }
    return ST_OK;
}

static int arrays(struct attention *x, struct err *e)
{
    const struct batch_shape *b = x->b;
    int32_t n_tok = b->n * b->q, per = (b->q + GPU_TILE_Q - 1) / GPU_TILE_Q, bt = x->s->o.block_tok;
    int32_t *v =
        mem_zalloc((size_t)n_tok + 3 * (size_t)b->n + 2 * (size_t)(b->n * per) + 8, sizeof *v);
    int32_t *pos = v, *row = pos + n_tok, *n_q = row + b->n, *first = n_q + b->n;
    int32_t *tile = first + b->n, at = 0, n_tile = b->q > 1 ? b->n * per : 0;
    for (int32_t i = 0; i < b->n; i++) {
        row[i] = i * b->q;
        n_q[i] = b->q;
        first[i] = at;
        at += (past_of(b, i) + b->q + bt - 1) / bt;
        for (int32_t k = 0; k < b->q; k++) pos[i * b->q + k] = past_of(b, i) + k;
        for (int32_t k = 0; k < per && n_tile; k++) {
            int32_t nth = (per - 1 - k) * b->n + i; /* the longest first, as the engine has them */
            tile[2 * nth] = i;
            tile[2 * nth + 1] = k * GPU_TILE_Q;
        }
    }
    x->a.s = (struct gpu_step){ .pos = ints(x->s, pos, n_tok, e),
                                .row = ints(x->s, row, b->n, e),
                                .n_q = ints(x->s, n_q, b->n, e),
                                .first = ints(x->s, first, b->n, e),
                                .tile = ints(x->s, tile, 2 * (n_tile ? n_tile : 1), e) };
    const struct gpu_step *t = &x->a.s;
    bool fine = t->pos && t->row && t->n_q && t->first && t->tile;
    free(v);
    x->a.n_seq = b->n;
    x->a.n_tile = n_tile;
    return fine ? tables(x, e) : ST_DEVICE;
}

/* ---- memory */

static int64_t split_of(const struct suite *s, const struct batch_shape *b)
{
    int32_t most = b->last > b->p ? b->last : b->p;
    return b->q > 1
               ? 1
               : gpu_kern_split(&s->cuda->g->info, b->n, (int)s->shard.n_kv, (int64_t)most + 1);
}

static double part_bytes(const struct suite *s, const struct batch_shape *b)
{
    double rows = (double)b->n * (double)s->shard.n_head * (double)split_of(s, b);
    return split_of(s, b) > 1 ? 4 * rows * (s->spec.a.head_dim + 1.0) : 0;
}

static double row_bytes(const struct suite *s)
{
    double d = s->spec.a.head_dim;
    return 4 * d * (double)(2 * s->shard.n_head + 2 * s->shard.n_kv);
}

/* arg: blocks of the pool. */
static int open_pool(struct attention *x, int64_t n_block, struct err *e)
{
    struct suite *s = x->s;
    enum gpu_elt type = suite_cuda_kv(s);
    int64_t n = n_block * s->o.block_tok * x->h.n_kv_head * x->h.head_dim;
    x->n_block = (int32_t)n_block;
    x->f32 = type == GPU_F32;
    x->a.kv = (struct gpu_kv){ .k = suite_cuda_drawn(s, type, n, SEED_K, e),
                               .type = (int32_t)type,
                               .n_head = (int32_t)x->h.n_kv_head,
                               .head_dim = (int32_t)x->h.head_dim,
                               .block_tok = s->o.block_tok };
    if (x->a.kv.k) x->a.kv.v = suite_cuda_drawn(s, type, n, SEED_V, e);
    x->a.n_head = (int32_t)x->h.n_head;
    x->a.ld = (x->h.n_head + 2 * x->h.n_kv_head) * x->h.head_dim;
    x->a.scale = (float)(1 / sqrt((double)x->h.head_dim));
    return x->a.kv.v ? ST_OK : ST_DEVICE;
}

/* The step's arrays, queries, and where results go: as an engine's step has them, a 16-bit image of
 * what follows reads it. */
static int open_batch(struct attention *x, struct err *e)
{
    struct suite *s = x->s;
    int64_t n_tok = (int64_t)x->b->n * x->b->q, n = n_tok * x->h.n_head * x->h.head_dim;
    int64_t split = split_of(s, x->b), part = (int64_t)x->b->n * x->h.n_head * split;
    enum gpu_elt w = suite_cuda_weight(s);
    bool image = w == GPU_BF16 || w == GPU_F16;
    int st = arrays(x, e);
    if (st != ST_OK) return st;
    x->a.q = suite_cuda_drawn(s, GPU_F32, n_tok * x->a.ld, SEED_Q, e);
    if (!x->a.q) return ST_DEVICE;
    x->a.image_type = image ? (int32_t)w : GPU_F32;
    x->a.image = image ? suite_cuda_take(s, (size_t)n * 2) : NULL;
    x->a.out = image ? NULL : suite_cuda_take(s, (size_t)n * sizeof(float));
    x->a.n_split = (int32_t)split;
    if (split == 1) return ST_OK;
    x->a.part = suite_cuda_take(s, (size_t)(part * x->h.head_dim) * sizeof(float));
    x->a.lse = suite_cuda_take(s, (size_t)part * sizeof(float));
    return ST_OK;
}

/* ---- the last row of sequence i, one head, against softmax in double; its table is the first */

static double kv_at(const struct attention *x, int32_t i, int64_t t, int64_t head, int64_t c,
                    uint64_t seed)
{
    const int32_t bt = x->s->o.block_tok;
    /* those before it are of equal length */
    int64_t at = (int64_t)i * ((x->b->p + x->b->q + bt - 1) / bt);
    int64_t block = x->block[at + t / bt];
    int64_t v = ((block * x->h.n_kv_head + head) * bt + t % bt) * x->h.head_dim + c;
    return suite_cuda_value((enum gpu_elt)x->a.kv.type, seed, v);
}

static int results(const struct attention *x, int64_t at, float *out, struct err *e)
{
    uint16_t bits[GPU_MAX_HEAD_DIM];
    int64_t d = x->h.head_dim;
    if (!x->a.image) return suite_cuda_get(x->s, out, x->a.out + at, (size_t)d * sizeof *out, e);
    int st = suite_cuda_get(x->s, bits, (const uint16_t *)x->a.image + at, (size_t)d * 2, e);
    for (int64_t c = 0; c < d && st == ST_OK; c++)
        out[c] = x->a.image_type == GPU_BF16 ? elt_from_bf16(bits[c]) : elt_from_f16(bits[c]);
    return st;
}

static int check_head(const struct attention *x, int32_t i, int64_t head,
                      struct suite_cuda_worst *w, struct err *e)
{
    int64_t d = x->h.head_dim, kv = head / (x->h.n_head / x->h.n_kv_head);
    int64_t row = (int64_t)(i + 1) * x->b->q - 1, n = (int64_t)past_of(x->b, i) + x->b->q;
    double *p = mem_alloc((size_t)n * sizeof *p), top = -INFINITY, sum = 0;
    float got[GPU_MAX_HEAD_DIM] = { 0 };
    int st = results(x, (row * x->h.n_head + head) * d, got, e);
    for (int64_t t = 0; t < n; t++) {
        p[t] = 0;
        for (int64_t c = 0; c < d; c++)
            p[t] += suite_cuda_value(GPU_F32, SEED_Q, row * x->a.ld + head * d + c) *
                    kv_at(x, i, t, kv, c, SEED_K);
        p[t] *= (double)x->a.scale;
        top = fmax(top, p[t]);
    }
    for (int64_t t = 0; t < n; t++) sum += p[t] = exp(p[t] - top);
    for (int64_t c = 0; c < d; c += d / 4) {
        double want = 0;
        for (int64_t t = 0; t < n; t++) want += p[t] / sum * kv_at(x, i, t, kv, c, SEED_V);
        suite_cuda_compare(w, got[c], want);
    }
    free(p);
    return st;
}

static int check(struct attention *x, int row, struct err *e)
{
    struct gpu *g = x->s->cuda->g;
    struct suite_cuda_worst w = { 0 };
    int st = attend(x, 0, e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    if (st == ST_OK) st = check_head(x, 0, 0, &w, e);
    if (st == ST_OK) st = check_head(x, x->b->n - 1, x->h.n_head - 1, &w, e);
    if (st == ST_OK) suite_error(x->s, row, suite_cuda_error(&w));
    return st;
}

/* ---- jobs: one for decode, one for prefill */

static int run_attention(struct suite *s, const struct suite_job *j, struct suite_value *v,
                         struct err *e)
{
    const struct batch_shape *shape = j->own;
    struct attention x = { .s = s, .h = heads(s) };
    int st = suite_cuda_start(s, e);
    if (st == ST_OK) st = open_pool(&x, j->arg[0], e);
    size_t held = s->cuda->used;
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        s->cuda->used = held;
        x.b = &shape[i];
        st = open_batch(&x, e);
        const struct suite_cuda_work w = { attend, &x, x.n_var };
        if (st == ST_OK) st = suite_cuda_time(s, &w, &v[i], e);
        if (st == ST_OK && s->row[j->first + i].error < 0) st = check(&x, j->first + i, e);
        free(x.block);
        x.block = NULL;
    }
    return st;
}

static int decode_shapes(const struct suite *s, struct batch_shape *b)
{
    int32_t end = s->o.max_ctx - 1 < 16384 ? s->o.max_ctx - 1 : 16384, n = 0;
    bool few = s->o.kind == SUITE_QUICK;
    for (int32_t batch = 1; batch <= s->o.max_seqs && batch <= MAX_SEQ; batch *= few ? 8 : 2)
        for (int32_t ctx = end; ctx >= 16; ctx /= few ? 8 : 2)
            if ((int64_t)batch * ctx <= 1 << 19 && n < MAX_SHAPE - 2)
                b[n++] = (struct batch_shape){ batch, 1, ctx, ctx };
    for (int32_t batch = 4; batch <= 16 && batch <= s->o.max_seqs; batch *= 4) /* one is long */
        b[n++] = (struct batch_shape){ batch, 1, 16, end };
    return n;
}

static int prefill_shapes(const struct suite *s, struct batch_shape *b)
{
    int32_t end = s->o.max_ctx - 1 < 16384 ? s->o.max_ctx - 1 : 16384, n = 0;
    bool few = s->o.kind == SUITE_QUICK;
    for (int32_t q = s->o.max_tok; q >= 8; q /= few ? 8 : 2)
        for (int32_t p = 0; p + q <= end + 1 && n<MAX_SHAPE - 2; p += end / 3> 0 ? end / 3 : 1)
            b[n++] = (struct batch_shape){ 1, q, p, p };
    for (int32_t q = s->o.max_tok / 4; q >= 8 && q <= end && n < MAX_SHAPE;
         q /= 4) /* four at once */
        b[n++] = (struct batch_shape){ 4, q, 0, 0 };
    return n;
}

/* Bytes that a shape takes beside the pool. */
static double beside(const struct suite *s, const struct batch_shape *b)
{
    double tok = (double)b->n * b->q;
    return tok * row_bytes(s) + part_bytes(s, b) + 8 * tok + 64.0 * b->n +
           4.0 * MAX_VAR * (blocks_of(s, b) + 64.0);
}

static struct points_row row_of(const struct suite *s, const struct batch_shape *b)
{
    struct suite_heads h = heads(s);
    int32_t q[MAX_SEQ], p[MAX_SEQ];
    for (int32_t i = 0; i < b->n; i++) {
        q[i] = b->q;
        p[i] = past_of(b, i);
    }
    struct points_row r = suite_attn(&h, b->n, q, p);
    r.dtype = (uint8_t)suite_cuda_dtype(suite_cuda_kv(s));
    return r;
}

static void add_job(struct suite *s, const char *what, const struct batch_shape *b, int n)
{
    double one = block_bytes(s), most = 0;
    int64_t blocks = (int64_t)(2 * (double)suite_cuda_l2(s) / one) + 1;
    for (int i = 0; i < n; i++) {
        if (2 * blocks_of(s, &b[i]) > blocks) blocks = 2 * (int64_t)blocks_of(s, &b[i]);
        most = fmax(most, beside(s, &b[i]));
    }
    blocks += blocks % STRIDE == 0; /* so that the walk comes to all */
    if (n == 0 || !suite_cuda_fits(s, (double)blocks * one + most)) return;
    struct suite_job *j = suite_add_job(s, what, 0);
    j->run = run_attention;
    j->own = (void *)(uintptr_t)b;
    j->arg[0] = blocks;
    for (int i = 0; i < n; i++) {
        struct points_row r = row_of(s, &b[i]);
        suite_cuda_row(s, r);
        suite_cuda_guess(s, r.bytes, r.flop);
    }
}

int suite_cuda_attn_add(struct suite *s, struct err *e)
{
    const struct suite_heads h = heads(s);
    struct batch_shape *b = arena_array(&s->arena, 2 * MAX_SHAPE, sizeof *b);
    (void)e;
    if (h.head_dim < 32 || h.head_dim % 8 || h.head_dim > GPU_MAX_HEAD_DIM) {
        suite_skip(s, "attention: the GPU's kernels take heads of 32 to 256 in steps of 8");
        return ST_OK;
    }
    int n = decode_shapes(s, b);
    add_job(s, "attention, decode", b, n);
    add_job(s, "attention, prefill", b + MAX_SHAPE, prefill_shapes(s, b + MAX_SHAPE));
    return ST_OK;
}
