/* bench/suite_micro.c - products, attention, element-wise work and sampling, one operation at a time.
 *
 * Values are small multiples of a power of two, exact in bf16, so that a reference in double differs
 * by rounding of the sums only (int8: by quantisation). Weights are used in rotation, more of them
 * than the last cache holds; so are KV blocks. A job makes what it needs and frees it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "bench/suite_team.h"
#include "engine/kern.h"

enum { MAX_COPY = 64, ROWS = 64, BLOCK = 16, LOOKED_AT = 8, MAX_SEQ = 64 };

/* Value i of a stream: a multiple of 2^-7 in [-1, 1). */
static float value(uint64_t stream, uint64_t i)
{
    return (float)((int)(mix_pair(stream, i) & 255) - 128) / 128;
}

static void fill(float *x, int64_t n, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++) x[i] = value(stream, (uint64_t)i);
}

static struct backend *device(struct suite *s, int threads, struct err *e)
{
    struct team *t = suite_team(s, threads, e);
    return t ? (s->o.backend ? s->o.backend : backend_cpu_open)(t, s->o.kernels, e) : NULL;
}

static float *floats(struct backend *b, int64_t n, struct err *e)
{
    return b->ops->alloc(b, (size_t)n * sizeof(float), e);
}

/* The largest difference as a share of the largest value of the reference. */
struct worst {
    double off, largest;
};

static void compare(struct worst *w, double got, double want)
{
    double off = fabs(got - want);
    if (!(off <= w->off)) w->off = off; /* a NaN stays */
    w->largest = fmax(w->largest, fabs(want));
}

static double worst_error(const struct worst *w)
{
    return w->largest > 0 ? w->off / w->largest : w->off;
}

/* ---- products: a job for one matrix, a point for each number of rows */

struct product {
    struct suite *s;
    struct backend *b;
    struct backend_mat *w[MAX_COPY];
    int n_copy, at;
    struct backend_mm mm;
};

static int multiply(void *arg, struct err *e)
{
    struct product *p = arg;
    (void)e;
    p->mm.w = p->w[p->at++ % p->n_copy];
    p->b->ops->mm(p->b, &p->mm);
    return ST_OK;
}

static int make_copies(struct product *p, enum backend_type type, int64_t n, int64_t k,
                       struct err *e)
{
    double one = (double)(n * k) * suite_weight_bytes(type == BACKEND_INT8   ? POINTS_INT8
                                                      : type == BACKEND_BF16 ? POINTS_BF16
                                                                             : POINTS_F32);
    double want = ceil(1.5 * (double)p->s->cache_bytes / one) + 1;
    p->n_copy = want > MAX_COPY ? MAX_COPY : (int)want;
    for (int i = 0; i < p->n_copy; i++) {
        p->w[i] = p->b->ops->mat_new(p->b, type, (int)n, (int)k, e);
        if (!p->w[i]) return ST_DEVICE;
    }
    float *rows = mem_alloc((size_t)(ROWS * k) * sizeof *rows);
    for (int64_t at = 0; at < n; at += ROWS) {
        int64_t m = n - at < ROWS ? n - at : ROWS;
        for (int64_t i = 0; i < m * k; i++) rows[i] = value(1, (uint64_t)(at * k + i));
        for (int i = 0; i < p->n_copy; i++)
            p->b->ops->mat_rows(p->b, p->w[i], (int)at, (int)m, ELT_F32, rows);
    }
    free(rows);
    return ST_OK;
}

/* First and last row, outputs all over. */
static double check_product(const struct product *p, int64_t m, int64_t n, int64_t k)
{
    struct worst w = { 0 };
    for (int64_t r = 0; r<m; r += m> 1 ? m - 1 : 1)
        for (int64_t i = 0; i < LOOKED_AT; i++) {
            int64_t o = (n - 1) * i / (LOOKED_AT - 1);
            double sum = 0;
            for (int64_t c = 0; c < k; c++)
                sum += (double)p->mm.x[r * k + c] * value(1, (uint64_t)(o * k + c));
            compare(&w, p->mm.y[r * n + o], sum);
        }
    return worst_error(&w);
}

static int run_product(struct suite *s, const struct suite_job *j, struct suite_value *v,
                       struct err *e)
{
    static const enum backend_type type[] = { BACKEND_F32, BACKEND_BF16, BACKEND_INT8 };
    const struct points_row *r = &s->row[j->first], *last = &s->row[j->first + j->n - 1];
    struct product p = { .s = s, .b = device(s, r->threads, e) };
    int st = p.b ? make_copies(&p, type[j->arg[0]], r->n, r->k, e) : ST_DEVICE;
    if (st == ST_OK) st = p.b->ops->reserve(p.b, (int32_t)last->m, e);
    float *x = st == ST_OK ? floats(p.b, last->m * r->k, e) : NULL;
    float *y = x ? floats(p.b, last->m * r->n, e) : NULL;
    if (!y) st = ST_DEVICE;
    if (st == ST_OK) fill(x, last->m * r->k, 2);
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        p.mm = (struct backend_mm){
            .x = x, .ldx = r->k, .y = y, .ldy = r->n, .m = (int32_t)r[i].m, .n_split = 1
        };
        st = suite_repeat(s, multiply, &p, &v[i], e);
        if (st == ST_OK) suite_error(s, j->first + i, check_product(&p, r[i].m, r->n, r->k));
    }
    if (p.b) p.b->ops->close(p.b);
    return st;
}

static void add_product(struct suite *s, const int64_t nk[2], int type, int threads)
{
    static const int32_t full[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 0 };
    static const int32_t few[] = { 1, 16, 128, 0 };
    static const enum points_dtype dtype[] = { POINTS_F32, POINTS_BF16, POINTS_INT8 };
    static const char *const name[] = { "f32", "bf16", "int8" };
    double run_s = 1.5 * (double)s->cache_bytes / 5e8; /* packing the copies */
    char what[96];
    snprintf(what, sizeof what, "product %lld x %lld %s by %d", (long long)nk[0], (long long)nk[1],
             name[type], threads);
    struct suite_job *j = suite_add_job(s, what, 0);
    j->run = run_product;
    j->arg[0] = type;
    for (const int32_t *m = s->o.kind == SUITE_FULL ? full : few; *m && *m <= s->o.max_tok; m++) {
        struct points_row r = suite_gemm(dtype[type], *m, nk[0], nk[1]);
        double once = suite_guess_s(s, r.bytes, r.flop) * s->cpus / threads;
        r.threads = threads;
        run_s += once + fmax(once, s->o.run_s);
        suite_add_row(s, &r);
    }
    s->job[s->n_job - 1].run_s = run_s;
}

static void add_products(struct suite *s, int threads)
{
    const struct arch *a = &s->spec.a;
    const struct shard *d = &s->shard;
    int64_t q = (int64_t)a->head_dim * d->n_head, kv = 2 * (int64_t)a->head_dim * d->n_kv;
    const int64_t shape[][2] = { { q + kv, a->hidden },
                                 { a->hidden, q },
                                 { (a->gated_mlp ? 2 : 1) * (int64_t)d->n_ffn, a->hidden },
                                 { a->hidden, d->n_ffn },
                                 { d->n_vocab, a->hidden } };
    int own = s->o.weight == MODEL_F32 ? 0 : s->o.weight == MODEL_BF16 ? 1 : 2;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int type = 0; type < 3; type++)
            if (s->o.kind == SUITE_FULL || type == own) add_product(s, shape[i], type, threads);
}

/* ---- attention over a pool of KV blocks, a point for each batch */

struct batch_shape {
    int n;
    int32_t q[MAX_SEQ], p[MAX_SEQ];
};

struct attention {
    struct backend *b;
    struct backend_attn a;
    struct backend_seq seq[MAX_SEQ];
    struct suite_heads h;
    int32_t *block, n_block, at; /* block[2 * n_block], a permutation twice */
};

/* A slot of the pool holds the values that its place asks for, wherever it is used. */
static float kv_value(const struct attention *x, bool is_v, int64_t slot, int64_t i)
{
    uint64_t width = (uint64_t)(x->h.n_kv_head * x->h.head_dim);
    return value(is_v ? 4 : 3, (uint64_t)slot * width + (uint64_t)i);
}

static int fill_pool(struct attention *x, struct err *e)
{
    int64_t width = x->h.n_kv_head * x->h.head_dim;
    float *kv = floats(x->b, 2 * BLOCK * width, e);
    if (!kv) return ST_DEVICE;
    for (int32_t b = 0; b < x->n_block; b++) {
        struct backend_seq seq = { 0, BLOCK, 0, &b };
        struct backend_attn put = x->a;
        for (int64_t t = 0; t < BLOCK; t++)
            for (int64_t i = 0; i < width; i++) {
                kv[2 * t * width + i] = kv_value(x, false, (int64_t)b * BLOCK + t, i);
                kv[(2 * t + 1) * width + i] = kv_value(x, true, (int64_t)b * BLOCK + t, i);
            }
        put.seq = &seq;
        put.n_seq = 1;
        put.n_row = BLOCK;
        put.k = kv;
        put.v = kv + width;
        put.ld = 2 * width;
        x->b->ops->kv_put(x->b, &put);
    }
    return ST_OK;
}

/* Blocks of the next call: others than those of the last one, as long as there are others. */
static int attend(void *arg, struct err *e)
{
    struct attention *x = arg;
    int32_t at = x->at;
    (void)e;
    for (int32_t i = 0; i < x->a.n_seq; i++) {
        x->seq[i].block = x->block + at;
        at += (x->seq[i].pos + x->seq[i].n_q + BLOCK - 1) / BLOCK;
    }
    x->b->ops->attn(x->b, &x->a);
    x->at = at % x->n_block;
    return ST_OK;
}

/* The last row of sequence i, one head, against softmax in double. */
static void check_head(const struct attention *x, int32_t i, int64_t head, struct worst *w)
{
    int64_t d = x->h.head_dim, kv = head / (x->h.n_head / x->h.n_kv_head) * d;
    int64_t row = x->seq[i].row + x->seq[i].n_q - 1, n = x->seq[i].pos + x->seq[i].n_q;
    double *p = mem_alloc((size_t)n * sizeof *p), top = -INFINITY, sum = 0;
    for (int64_t t = 0; t < n; t++) {
        int64_t slot = (int64_t)x->seq[i].block[t / BLOCK] * BLOCK + t % BLOCK;
        p[t] = 0;
        for (int64_t c = 0; c < d; c++)
            p[t] += (double)x->a.q[row * x->a.ld + head * d + c] * kv_value(x, false, slot, kv + c);
        p[t] *= (double)x->a.scale;
        top = fmax(top, p[t]);
    }
    for (int64_t t = 0; t < n; t++) sum += p[t] = exp(p[t] - top);
    for (int64_t c = 0; c<d; c += d / 4> 0 ? d / 4 : 1) {
        double want = 0;
        for (int64_t t = 0; t < n; t++) {
            int64_t slot = (int64_t)x->seq[i].block[t / BLOCK] * BLOCK + t % BLOCK;
            want += p[t] / sum * kv_value(x, true, slot, kv + c);
        }
        compare(w, x->a.out[row * x->a.ldo + head * d + c], want);
    }
    free(p);
}

static int open_attention(struct suite *s, const struct suite_job *j, struct attention *x,
                          struct err *e)
{
    const struct points_row *r = &s->row[j->first];
    enum backend_type type = x->h.elt_bytes == 4 ? BACKEND_F32 : BACKEND_BF16;
    int64_t q = x->h.n_head * x->h.head_dim;
    const int32_t shape[4] = { x->n_block, (int32_t)x->h.n_kv_head, BLOCK, (int32_t)x->h.head_dim };
    x->b = device(s, r->threads, e);
    if (!x->b) return ST_DEVICE;
    x->a.kv = x->b->ops->kv_new(x->b, type, shape, e);
    if (!x->a.kv || x->b->ops->reserve(x->b, (int32_t)j->arg[1] + BLOCK, e) != ST_OK)
        return ST_DEVICE;
    float *in = floats(x->b, j->arg[1] * q, e), *out = in ? floats(x->b, j->arg[1] * q, e) : NULL;
    if (!out) return ST_DEVICE;
    fill(in, j->arg[1] * q, 5);
    x->block = arena_array(&s->arena, 2 * (size_t)x->n_block, sizeof *x->block);
    for (int32_t i = 0; i < 2 * x->n_block; i++)
        x->block[i] = (int32_t)(((int64_t)(i % x->n_block) * 7 + 3) % x->n_block);
    x->a.seq = x->seq;
    x->a.n_head = (int32_t)x->h.n_head;
    x->a.q = in;
    x->a.ld = x->a.ldo = q;
    x->a.out = out;
    x->a.scale = (float)(1 / sqrt((double)x->h.head_dim));
    return fill_pool(x, e);
}

static int run_attention(struct suite *s, const struct suite_job *j, struct suite_value *v,
                         struct err *e)
{
    const struct batch_shape *shape = j->own;
    struct attention x = { .h = { s->shard.n_head, s->shard.n_kv, s->spec.a.head_dim,
                                  s->o.kv == BACKEND_F32 ? 4 : 2 },
                           .n_block = (int32_t)j->arg[0] };
    int st = open_attention(s, j, &x, e);
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        struct worst w = { 0 };
        int32_t row = 0;
        for (int k = 0; k < shape[i].n; k++) {
            x.seq[k] = (struct backend_seq){ row, shape[i].q[k], shape[i].p[k], NULL };
            row += shape[i].q[k];
        }
        x.a.n_seq = shape[i].n;
        x.a.n_row = row;
        st = suite_repeat(s, attend, &x, &v[i], e);
        if (st != ST_OK) break;
        check_head(&x, 0, 0, &w);
        check_head(&x, shape[i].n - 1, x.h.n_head - 1, &w);
        suite_error(s, j->first + i, worst_error(&w));
    }
    if (x.b) x.b->ops->close(x.b);
    return st;
}

static void set_batch(struct batch_shape *b, int n, int32_t q, int32_t p)
{
    for (int i = 0; i < n && b->n < MAX_SEQ; i++) {
        b->q[b->n] = q;
        b->p[b->n++] = p;
    }
}

/* Decode batches of equal contexts, prompts and chunks after a past, mixed and skewed batches. */
static int attention_shapes(const struct suite *s, struct batch_shape *b)
{
    int32_t last = s->o.max_ctx - 1 < 4096 ? s->o.max_ctx - 1 : 4096, half = last / 2;
    int32_t chunk = s->o.max_tok < half ? s->o.max_tok : half;
    bool few = s->o.kind == SUITE_QUICK;
    int n = 0;
    for (int batch = 1; batch <= MAX_SEQ; batch *= few ? 8 : 2)
        for (int32_t ctx = last; ctx >= 16; ctx /= few ? 8 : 4)
            if ((int64_t)batch * ctx <= 32768) set_batch(&b[n++], batch, 1, ctx);
    for (int32_t q = chunk; q >= 8; q /= few ? 8 : 2)
        for (int32_t p = 0; p <= half; p += half > 0 ? half : 1) set_batch(&b[n++], 1, q, p);
    set_batch(&b[n], 15, 1, 16); /* one long among short ones */
    set_batch(&b[n++], 1, 1, last);
    set_batch(&b[n], 16, 1, half); /* decodes beside a chunk */
    set_batch(&b[n++], 1, chunk / 2 > 0 ? chunk / 2 : 1, 0);
    return n;
}

static int32_t blocks_of(const struct batch_shape *b)
{
    int32_t n = 0;
    for (int i = 0; i < b->n; i++) n += (b->p[i] + b->q[i] + BLOCK - 1) / BLOCK;
    return n;
}

static void add_attention(struct suite *s, int threads)
{
    enum { MOST = 160 };
    struct batch_shape *b = arena_array(&s->arena, MOST, sizeof *b);
    struct suite_heads h = { s->shard.n_head, s->shard.n_kv, s->spec.a.head_dim,
                             s->o.kv == BACKEND_F32 ? 4 : 2 };
    double block_bytes = 2.0 * BLOCK * (double)(h.n_kv_head * h.head_dim * h.elt_bytes);
    int64_t blocks = (int64_t)(1.5 * (double)s->cache_bytes / block_bytes) + 1, rows = 0;
    int n = attention_shapes(s, b);
    char what[64];
    snprintf(what, sizeof what, "attention by %d", threads);
    struct suite_job *j = suite_add_job(s, what, 0);
    double run_s = 0;
    j->run = run_attention;
    for (int i = 0; i < n; i++) {
        struct points_row r = suite_attn(&h, b[i].n, b[i].q, b[i].p);
        double once = suite_guess_s(s, r.bytes, 2 * r.flop) * s->cpus / threads;
        r.threads = threads;
        if (blocks_of(&b[i]) > blocks) blocks = blocks_of(&b[i]);
        if (r.m > rows) rows = r.m;
        run_s += once + fmax(once, s->o.run_s);
        suite_add_row(s, &r);
    }
    while (blocks % 7 == 0) blocks++; /* the stride of the permutation */
    j = &s->job[s->n_job - 1];
    j->run_s = run_s + (double)blocks * block_bytes / 2e8;
    j->own = b;
    j->arg[0] = blocks;
    j->arg[1] = rows;
}

/* ---- element-wise work: a job for each part */

struct elt_work {
    struct suite *s;
    struct backend *b;
    const struct points_row *r;
    struct backend_norm norm;
    struct backend_mat *w;
    float *x, *y, *weight, *cs;
    int32_t *at;
    int64_t rows, turn; /* rows held; the next call's first one */
};

static int elt_call(void *arg, struct err *e)
{
    struct elt_work *k = arg;
    const struct points_row *r = k->r;
    const struct backend_ops *op = k->b->ops;
    int32_t m = (int32_t)r->m, n = (int32_t)r->n, d = k->s->spec.a.head_dim;
    int64_t at = k->turn;
    float *x = k->x + at * n, *y = k->y + at * n;
    (void)e;
    k->turn = at + 2 * m <= k->rows ? at + m : 0;
    switch (r->part) {
    case POINTS_NORM: op->norm(k->b, &k->norm, x, y, (const int32_t[2]){ m, n }); break;
    case POINTS_ADD: op->add(k->b, y, x, (int64_t)m * n); break;
    case POINTS_ACT: op->silu_mul(k->b, x, y, m, n); break; /* 2n a row: within the memory */
    case POINTS_EMBED: op->embed(k->b, k->w, k->at, m, 0, y); break;
    default:
        op->rope(k->b, &(struct backend_rope){ .x = x,
                                               .ldx = n,
                                               .m = m,
                                               .n_head = n / d,
                                               .head_dim = d,
                                               .cs = k->cs,
                                               .at = k->at });
    }
    return ST_OK;
}

/* One call on fresh values, its last row against double. */
static double check_elt(struct elt_work *k)
{
    const struct points_row *r = k->r;
    int64_t n = r->n, row = r->m - 1, d = k->s->spec.a.head_dim;
    struct worst w = { 0 };
    double square = 0;
    k->turn = 0;
    fill(k->x, r->m * n * (r->part == POINTS_ACT ? 2 : 1), 6);
    fill(k->y, r->m * n, 7);
    elt_call(k, NULL);
    for (int64_t i = 0; i < n; i++) square += pow(value(6, (uint64_t)(row * n + i)), 2);
    for (int64_t i = 0; i < n; i++) {
        double x = value(6, (uint64_t)(row * n + i)), want = 0, got = k->y[row * n + i];
        if (r->part == POINTS_NORM)
            want = x / sqrt(square / (double)n + (double)k->norm.eps) * k->weight[i];
        else if (r->part == POINTS_ADD)
            want = x + value(7, (uint64_t)(row * n + i));
        else if (r->part == POINTS_EMBED)
            want = value(1, (uint64_t)(k->at[row] * n + i));
        else if (r->part == POINTS_ACT) {
            double g = value(6, (uint64_t)(2 * row * n + i)), up;
            up = value(6, (uint64_t)((2 * row + 1) * n + i));
            want = g / (1 + exp(-g)) * up;
        } else {
            int64_t at = i % d, pair = at < d / 2 ? i + d / 2 : i - d / 2;
            double other = value(6, (uint64_t)(row * n + pair));
            double angle = (double)k->at[row] * spec_rope_rate(&k->s->spec, (int)(at % (d / 2)));
            want = x * cos(angle) + (at < d / 2 ? -other : other) * sin(angle);
            got = k->x[row * n + i];
        }
        compare(&w, got, want);
    }
    return worst_error(&w);
}

static int open_elt(struct elt_work *k, int64_t most, struct err *e)
{
    const struct points_row *r = k->r;
    struct suite *s = k->s;
    int64_t d = s->spec.a.head_dim, half = d / 2;
    k->b = device(s, r->threads, e);
    if (!k->b) return ST_DEVICE;
    k->rows = (int64_t)(suite_memory_bytes(s) / (8 * (size_t)r->n));
    if (k->rows < 2 * most) {
        err_set(e, ST_DEVICE, "rows of %lld values are too long", (long long)r->n);
        return ST_DEVICE;
    }
    k->x = suite_memory(s, SUITE_VALUES, e);
    if (!k->x) return ST_DEVICE;
    k->y = k->x + k->rows * r->n;
    k->weight = floats(k->b, r->n, e);
    if (k->weight) k->cs = floats(k->b, (int64_t)s->o.max_ctx * d, e);
    k->at = arena_array(&s->arena, (size_t)most, sizeof *k->at);
    if (!k->cs) return ST_DEVICE;
    for (int64_t i = 0; i < r->n; i++) k->weight[i] = 1 + value(8, (uint64_t)i) / 4;
    for (int64_t i = 0; i < most; i++)
        k->at[i] = (int32_t)(i % (s->o.max_ctx < 256 ? s->o.max_ctx : 256));
    for (int64_t p = 0; p < 256 && p < s->o.max_ctx; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * spec_rope_rate(&s->spec, (int)i);
            k->cs[p * d + i] = (float)cos(angle);
            k->cs[p * d + half + i] = (float)sin(angle);
        }
    k->norm = (struct backend_norm){ .weight = k->weight, .eps = (float)s->spec.norm_eps };
    if (r->part != POINTS_EMBED) return ST_OK;
    k->w = k->b->ops->mat_new(k->b, BACKEND_BF16, 256, (int)r->n, e);
    if (!k->w) return ST_DEVICE;
    float *rows = mem_alloc((size_t)(256 * r->n) * sizeof *rows);
    fill(rows, 256 * r->n, 1);
    k->b->ops->mat_rows(k->b, k->w, 0, 256, ELT_F32, rows);
    free(rows);
    return ST_OK;
}

static int run_elt(struct suite *s, const struct suite_job *j, struct suite_value *v, struct err *e)
{
    struct elt_work k = { .s = s, .r = &s->row[j->first] };
    int st = open_elt(&k, s->row[j->first + j->n - 1].m, e);
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        k.r = &s->row[j->first + i];
        suite_error(s, j->first + i, check_elt(&k));
        k.turn = 0;
        st = suite_repeat(s, elt_call, &k, &v[i], e);
    }
    if (k.b) k.b->ops->close(k.b);
    return st;
}

static void add_elts(struct suite *s, int threads)
{
    static const int32_t full[] = { 1, 4, 16, 64, 256, 512, 0 }, few[] = { 1, 64, 0 };
    const struct arch *a = &s->spec.a;
    const struct shard *d = &s->shard;
    int64_t qk = (int64_t)a->head_dim * (d->n_head + d->n_kv);
    const struct {
        enum points_part part;
        int64_t n;
        const char *name;
    } elt[] = { { POINTS_NORM, a->hidden, "norm" },
                { POINTS_ROPE, qk, "rope" },
                { POINTS_ACT, d->n_ffn, "activation" },
                { POINTS_ADD, a->hidden, "residual" },
                { POINTS_EMBED, a->hidden, "embedding" } };
    for (size_t i = 0; i < sizeof elt / sizeof *elt; i++) {
        char what[64];
        const int32_t *m = s->o.kind == SUITE_FULL ? full : few;
        double run_s = 0.02;
        snprintf(what, sizeof what, "%s by %d", elt[i].name, threads);
        suite_add_job(s, what, 0)->run = run_elt;
        for (; *m && *m <= s->o.max_tok; m++) {
            struct points_row r = suite_elt(elt[i].part, *m, elt[i].n, 2);
            if (16.0 * *m * (double)elt[i].n > (double)suite_memory_bytes(s)) break;
            r.threads = threads;
            run_s += 2 * s->o.run_s;
            suite_add_row(s, &r);
        }
        s->job[s->n_job - 1].run_s = run_s;
    }
}

/* ---- sampling */

struct sampling {
    const struct points_row *r;
    float *logit;
    void *tmp;
    struct kern_pick pick;
    int32_t got;
    uint64_t turn;
};

static int sample(void *arg, struct err *e)
{
    struct sampling *k = arg;
    (void)e;
    for (int64_t i = 0; i < k->r->m; i++) {
        const float *row = k->logit + i * k->r->n;
        k->got = k->pick.temperature > 0
                     ? kern_sample(row, (int32_t)k->r->n, &k->pick,
                                   (double)(k->turn++ % 64) / 64 + 1.0 / 128, k->tmp)
                     : kern_argmax(row, (int32_t)k->r->n);
    }
    return ST_OK;
}

/* The last row's token: the first largest; or where the sum of probabilities passes u. */
static double check_sample(const struct sampling *k)
{
    const float *row = k->logit + (k->r->m - 1) * k->r->n;
    double u = (double)((k->turn - 1) % 64) / 64 + 1.0 / 128, sum = 0, before = 0;
    int64_t best = 0;
    for (int64_t i = 1; i < k->r->n; i++)
        if (row[i] > row[best]) best = i;
    if (k->pick.temperature <= 0) return k->got == best ? 0 : 1;
    for (int64_t i = 0; i < k->r->n; i++) sum += exp((double)row[i] - row[best]);
    for (int64_t i = 0; i < k->got; i++) before += exp((double)row[i] - row[best]) / sum;
    double own = exp((double)row[k->got] - row[best]) / sum;
    return u > before - 1e-5 && u < before + own + 1e-5 ? 0 : 1;
}

static int run_sample(struct suite *s, const struct suite_job *j, struct suite_value *v,
                      struct err *e)
{
    const struct points_row *last = &s->row[j->first + j->n - 1];
    struct sampling k = { .pick = { .temperature = j->arg[0] ? 1 : 0, .top_p = 1 } };
    int st = suite_team(s, 1, e) ? ST_OK : ST_DEVICE;
    k.logit = mem_alloc((size_t)(last->m * last->n) * sizeof *k.logit);
    k.tmp = mem_alloc(kern_sample_bytes((int32_t)last->n) + 64);
    fill(k.logit, last->m * last->n, 9);
    for (int64_t i = 0; i < last->m * last->n; i++) k.logit[i] *= 4;
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        k.r = &s->row[j->first + i];
        st = suite_repeat(s, sample, &k, &v[i], e);
        if (st == ST_OK) suite_error(s, j->first + i, check_sample(&k));
    }
    free(k.logit);
    free(k.tmp);
    return st;
}

/* k: 0 the largest; 1 drawn at temperature 1. */
static void add_sampling(struct suite *s)
{
    for (int drawn = 0; drawn < 2; drawn++) {
        struct suite_job *j = suite_add_job(s, drawn ? "drawn tokens" : "likeliest tokens", 0);
        double run_s = 0;
        j->run = run_sample;
        j->arg[0] = drawn;
        for (int64_t m = 1; m <= (s->o.kind == SUITE_FULL ? 64 : 8); m *= 8) {
            struct points_row r = { .op = POINTS_SAMPLE,
                                    .dtype = POINTS_F32,
                                    .threads = 1,
                                    .m = m,
                                    .n = s->spec.a.vocab,
                                    .k = drawn,
                                    .bytes = 4.0 * (double)m * s->spec.a.vocab,
                                    .error = -1 };
            run_s += 2 * s->o.run_s + (double)m * s->spec.a.vocab * 1e-8;
            suite_add_row(s, &r);
        }
        s->job[s->n_job - 1].run_s = run_s;
    }
}

int suite_micro_add(struct suite *s, struct err *e)
{
    (void)e;
    add_products(s, s->o.threads);
    add_attention(s, s->o.threads);
    add_elts(s, s->o.threads);
    if (s->o.kind == SUITE_FULL && s->o.threads != 1) {
        add_products(s, 1);
        add_attention(s, 1);
        add_elts(s, 1);
    }
    add_sampling(s);
    return ST_OK;
}
