/* bench/suite_check.c - see suite_check.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench/suite_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "engine/shard.h"

enum { KEPT = SUITE_CHECK_VALUES, ROWS = 3, GROUP = 64 };

/* A matrix, and some of its rows. */
struct mat {
    const struct backend_mat *at;
    enum backend_type type;
    int64_t n, k, row[KEPT];
    float *w; /* [KEPT][k] */
};

struct worst {
    double off, largest;
    bool any;
};

struct check {
    struct backend b;
    struct backend_ops ops;
    struct backend *in, *outer;
    struct mat *mat;
    int n_mat, n_kv;
    const struct backend_kv *kv; /* of the first layer */
    int32_t shape[4];
    bool half;       /* its values are bf16 */
    float *shadow;   /* [slot][2][head_dim] of its last KV head */
    bool on, summed; /* summed: there was a sync since `pending` */
    uint64_t seed;
    int64_t calls[BACKEND_TIMED_N_PART];
    const float *pending; /* what a sum over ranks may be made of */
    size_t n_pending;
    struct worst worst[BACKEND_TIMED_N_PART];
    struct suite_check_seen seen;
    double *tmp;
    size_t n_tmp;
};

static engine_backend_fn compute;

void suite_check_use(engine_backend_fn fn)
{
    compute = fn;
}

static struct check *check_of(struct backend *b)
{
    return (struct check *)b;
}

/* ---- comparing */

static void compare(struct check *c, enum backend_timed_part part, double got, double want)
{
    struct worst *w = &c->worst[part];
    double off = fabs(got - want);
    w->any = true;
    if (!(off <= w->off)) w->off = off; /* a NaN stays */
    w->largest = fmax(w->largest, fabs(want));
}

/* Draw i of the step, below n. */
static int64_t draw(const struct check *c, uint64_t i, int64_t n)
{
    return (int64_t)(mix_pair(c->seed, i) % (uint64_t)n);
}

/* The first row, the last one, one between. */
static int64_t row_of(const struct check *c, int i, int64_t m)
{
    return i == 0 ? 0 : i == 1 ? m - 1 : draw(c, 100, m);
}

static double *tmp(struct check *c, int64_t n)
{
    if ((size_t)n > c->n_tmp) {
        c->n_tmp = (size_t)n;
        c->tmp = mem_resize(c->tmp, c->n_tmp, sizeof *c->tmp);
    }
    return c->tmp;
}

static double *row_copy(struct check *c, const float *x, int64_t n)
{
    double *t = tmp(c, n);
    for (int64_t i = 0; i < n; i++) t[i] = (double)x[i];
    return t;
}

/* Begins an operation: whether it is looked at. `every`: of a step there is one. */
static bool begin(struct check *c, enum backend_timed_part part, bool every)
{
    if (!c->on) return false;
    if (c->pending && c->summed && c->seen.n_sum < SUITE_CHECK_SUMS) {
        struct suite_check_sum *s = &c->seen.sum[c->seen.n_sum++];
        for (int i = 0; i < SUITE_CHECK_VALUES; i++)
            s->sum[i] = c->pending[draw(c, (uint64_t)i, (int64_t)c->n_pending)];
    }
    if (c->summed) c->pending = NULL;
    int64_t call = c->calls[part]++;
    return every || call == (c->n_kv ? draw(c, 200, c->n_kv) : 0);
}

/* What was just written at y is this rank's share of a sum, if one follows. */
static void may_sum(struct check *c, const float *y, size_t n)
{
    if (!c->on || c->seen.n_sum == SUITE_CHECK_SUMS) return;
    struct suite_check_sum *s = &c->seen.sum[c->seen.n_sum];
    for (int i = 0; i < SUITE_CHECK_VALUES; i++) s->own[i] = y[draw(c, (uint64_t)i, (int64_t)n)];
    c->pending = y;
    c->n_pending = n;
    c->summed = false;
}

/* ---- memory, matrices, caches */

static void check_close(struct backend *b)
{
    struct check *c = check_of(b);
    c->in->ops->close(c->in);
    for (int i = 0; i < c->n_mat; i++) free(c->mat[i].w);
    free(c->mat);
    free(c->shadow);
    free(c->tmp);
    free(c);
}

static void *check_alloc(struct backend *b, size_t bytes, struct err *e)
{
    struct backend *in = check_of(b)->in;
    return in->ops->alloc(in, bytes, e);
}

static void check_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend *in = check_of(b)->in;
    in->ops->upload(in, to, from, bytes);
}

static void check_download(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct backend *in = check_of(b)->in;
    in->ops->download(in, to, from, bytes);
}

static const void *check_view(struct backend *b, const void *p)
{
    struct backend *in = check_of(b)->in;
    return in->ops->view(in, p);
}

static void check_sync(struct backend *b)
{
    struct check *c = check_of(b);
    c->in->ops->sync(c->in);
    c->summed = true;
}

/* Rows 7 and 38 are those of the first tokens of a step (bench/suite_model.c). */
static struct backend_mat *check_mat_new(struct backend *b, enum backend_type type, int n, int k,
                                         struct err *e)
{
    struct check *c = check_of(b);
    struct backend_mat *at = c->in->ops->mat_new(c->in, type, n, k, e);
    if (!at) return NULL;
    struct mat m = { .at = at, .type = type, .n = n, .k = k };
    for (int i = 0; i < KEPT; i++)
        m.row[i] = i == 0   ? 7 % n
                   : i == 1 ? 38 % n
                            : (int64_t)(mix_pair((uint64_t)c->n_mat, (uint64_t)i) % (uint64_t)n);
    m.w = mem_zalloc((size_t)KEPT * (size_t)k, sizeof *m.w);
    c->mat = mem_resize(c->mat, (size_t)c->n_mat + 1, sizeof *c->mat);
    c->mat[c->n_mat++] = m;
    return at;
}

static struct mat *find(struct check *c, const struct backend_mat *at)
{
    for (int i = 0; i < c->n_mat; i++)
        if (c->mat[i].at == at) return &c->mat[i];
    return NULL;
}

static void check_mat_rows(struct backend *b, struct backend_mat *w, int n_at, int n_row,
                           enum elt from, const void *rows)
{
    struct check *c = check_of(b);
    struct mat *m = find(c, w);
    for (int i = 0; m && i < KEPT; i++) {
        if (m->row[i] < n_at || m->row[i] >= n_at + n_row) continue;
        size_t at = (size_t)(m->row[i] - n_at) * (size_t)m->k;
        for (int64_t j = 0; j < m->k; j++) {
            float v = elt_get(from, rows, at + (size_t)j);
            m->w[i * m->k + j] = m->type == BACKEND_BF16 ? elt_from_bf16(elt_to_bf16(v)) : v;
        }
    }
    c->in->ops->mat_rows(c->in, w, n_at, n_row, from, rows);
}

static struct backend_kv *check_kv_new(struct backend *b, enum backend_type type,
                                       const int32_t shape[4], struct err *e)
{
    struct check *c = check_of(b);
    struct backend_kv *kv = c->in->ops->kv_new(c->in, type, shape, e);
    if (!kv || c->n_kv++ > 0) return kv;
    c->kv = kv;
    c->half = type != BACKEND_F32;
    memcpy(c->shape, shape, sizeof c->shape);
    c->shadow =
        mem_zalloc((size_t)shape[0] * (size_t)shape[2] * 2 * (size_t)shape[3], sizeof *c->shadow);
    return kv;
}

static int check_reserve(struct backend *b, int32_t m, struct err *e)
{
    struct backend *in = check_of(b)->in;
    return in->ops->reserve(in, m, e);
}

/* ---- operations */

static void check_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok,
                        int32_t m, int32_t row0, float *x)
{
    struct check *c = check_of(b);
    const struct mat *a = c->on ? find(c, w) : NULL;
    bool look = begin(c, BACKEND_TIMED_EMBED, true);
    c->in->ops->embed(c->in, w, tok, m, row0, x);
    for (int32_t r = 0; look && a && r < m && r < 64; r++) {
        int64_t row = (int64_t)tok[r] - row0;
        bool own = row >= 0 && row < a->n;
        int kept = 0;
        while (kept < KEPT && a->row[kept] != row) kept++;
        if (own && kept == KEPT) continue;
        for (int i = 0; i < SUITE_CHECK_VALUES; i++) {
            int64_t at = draw(c, (uint64_t)(300 + i), a->k), g = at / GROUP * GROUP;
            const float *v = a->w + kept * a->k;
            double want = own ? (double)v[at] : 0, got = (double)x[r * a->k + at], top = 0;
            for (int64_t j = g; own && a->type == BACKEND_INT8 && j < g + GROUP && j < a->k; j++)
                top = fmax(top, fabs((double)v[j]));
            bool rounded = fabs(got - want) <= 1.02 * top / 254;
            compare(c, BACKEND_TIMED_EMBED, rounded ? want : got, want);
        }
    }
    may_sum(c, x, (size_t)m * (size_t)(a ? a->k : 1));
}

static void check_mm(struct backend *b, const struct backend_mm *a)
{
    struct check *c = check_of(b);
    enum backend_timed_part part = backend_timed_now(c->outer);
    bool look = begin(c, part, part == BACKEND_TIMED_HEAD);
    c->in->ops->mm(c->in, a);
    const struct mat *w = c->on ? find(c, a->w) : NULL;
    for (int i = 0; look && w && i < ROWS; i++) {
        int64_t r = row_of(c, i, a->m);
        for (int o = 0; o < KEPT; o++) {
            double sum = 0, xx = 0, ww = 0;
            for (int64_t k = 0; k < w->k; k++) {
                double x = (double)a->x[r * a->ldx + k], v = (double)w->w[o * w->k + k];
                sum += x * v;
                xx += x * x;
                ww += v * v;
            }
            /* the largest of many sums of such terms: where few are looked at, none may be large */
            c->worst[part].largest = fmax(c->worst[part].largest, 2 * sqrt(xx * ww / (double)w->k));
            compare(c, part, (double)a->y[r * a->ldy + w->row[o]], sum);
        }
    }
    if (part == BACKEND_TIMED_OUT || part == BACKEND_TIMED_DOWN)
        may_sum(c, a->y, (size_t)a->m * (size_t)a->ldy);
    for (int32_t r = 0; c->on && part == BACKEND_TIMED_HEAD && w && r < a->m; r++) {
        if (c->seen.n_top == SUITE_CHECK_TOPS) break;
        struct suite_check_top top = { a->y[r * a->ldy], 0 };
        for (int32_t o = 1; o < w->n; o++)
            if (a->y[r * a->ldy + o] > top.logit)
                top = (struct suite_check_top){ a->y[r * a->ldy + o], o };
        c->seen.top[c->seen.n_top++] = top;
    }
}

static void norm_row(struct check *c, enum backend_timed_part part, const struct backend_norm *w,
                     const double *x, const float *got, int64_t n)
{
    double mean = 0, square = 0;
    for (int64_t i = 0; w->mean && i < n; i++) mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++)
        compare(c, part, (double)got[i],
                (x[i] - mean) / sqrt(square + (double)w->eps) * (double)w->weight[i] +
                    (w->bias ? (double)w->bias[i] : 0));
}

/* The residual stream as a stage finds it: what its first norm reads. */
static void check_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                       const int32_t s[2])
{
    struct check *c = check_of(b);
    enum backend_timed_part part = backend_timed_now(c->outer);
    bool look = begin(c, part, part == BACKEND_TIMED_NORM_FINAL);
    int64_t r = look ? draw(c, 100, s[0]) : 0;
    if (c->on && !c->seen.has_first && part == BACKEND_TIMED_NORM) {
        c->seen.has_first = true;
        for (int i = 0; i < SUITE_CHECK_VALUES; i++)
            c->seen.first[i] = x[draw(c, (uint64_t)i, (int64_t)s[0] * s[1])];
    }
    const double *before = look ? row_copy(c, x + r * s[1], s[1]) : NULL;
    c->in->ops->norm(c->in, w, x, y, s);
    if (look) norm_row(c, part, w, before, y + r * s[1], s[1]);
}

static void check_head_norm(struct backend *b, const struct backend_norm *w,
                            const struct backend_rope *a)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_NORM_HEAD, false);
    int64_t r = look ? draw(c, 100, a->m) : 0, h = look ? draw(c, 101, a->n_head) : 0;
    float *at = a->x + r * a->ldx + h * a->head_dim;
    const double *before = look ? row_copy(c, at, a->head_dim) : NULL;
    c->in->ops->head_norm(c->in, w, a);
    if (look) norm_row(c, BACKEND_TIMED_NORM_HEAD, w, before, at, a->head_dim);
}

static void check_rope(struct backend *b, const struct backend_rope *a)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_ROPE, false);
    int64_t r = look ? draw(c, 100, a->m) : 0, h = look ? draw(c, 101, a->n_head) : 0;
    float *at = a->x + r * a->ldx + h * a->head_dim;
    const double *x = look ? row_copy(c, at, a->head_dim) : NULL;
    c->in->ops->rope(c->in, a);
    if (!look) return;
    int64_t half = a->head_dim / 2;
    const float *cs = a->cs + (int64_t)a->at[r] * a->head_dim;
    for (int64_t i = 0; i < half; i++) {
        double cosine = (double)cs[i], sine = (double)cs[half + i];
        compare(c, BACKEND_TIMED_ROPE, (double)at[i], x[i] * cosine - x[half + i] * sine);
        compare(c, BACKEND_TIMED_ROPE, (double)at[half + i], x[half + i] * cosine + x[i] * sine);
    }
}

/* ---- attention */

static int64_t slot_of(const struct check *c, const struct backend_seq *q, int64_t pos)
{
    int64_t block_tok = c->shape[2];
    return q->block[pos / block_tok] * block_tok + pos % block_tok;
}

static void check_kv_put(struct backend *b, const struct backend_attn *a)
{
    struct check *c = check_of(b);
    (void)begin(c, BACKEND_TIMED_KV_PUT, false);
    c->in->ops->kv_put(c->in, a);
    if (!c->on || a->kv != c->kv) return;
    int64_t d = c->shape[3], head = (c->shape[1] - 1) * d;
    for (int32_t s = 0; s < a->n_seq; s++)
        for (int32_t t = 0; t < a->seq[s].n_q; t++) {
            int64_t row = a->seq[s].row + t;
            float *to = c->shadow + slot_of(c, &a->seq[s], a->seq[s].pos + t) * 2 * d;
            for (int64_t i = 0; i < d; i++) {
                float k = a->k[row * a->ld + head + i], v = a->v[row * a->ld + head + i];
                to[i] = c->half ? elt_from_bf16(elt_to_bf16(k)) : k;
                to[d + i] = c->half ? elt_from_bf16(elt_to_bf16(v)) : v;
            }
        }
}

/* The last row of a sequence, a query head of the last KV head, against softmax in double. */
static void attn_head(struct check *c, const struct backend_attn *a, const struct backend_seq *q)
{
    int64_t d = c->shape[3], group = a->n_head / c->shape[1];
    int64_t head = a->n_head - 1 - draw(c, 101, group > 0 ? group : 1), row = q->row + q->n_q - 1;
    int64_t n = (int64_t)q->pos + q->n_q, from = a->window > 0 && n > a->window ? n - a->window : 0;
    const float *query = a->q + row * a->ld + head * d, *got = a->out + row * a->ldo + head * d;
    double *p = tmp(c, n), top = -INFINITY, sum = 0;
    for (int64_t t = from; t < n; t++) {
        const float *key = c->shadow + slot_of(c, q, t) * 2 * d;
        p[t] = 0;
        for (int64_t i = 0; i < d; i++) p[t] += (double)query[i] * (double)key[i];
        p[t] *= (double)a->scale;
        top = fmax(top, p[t]);
    }
    for (int64_t t = from; t < n; t++) sum += p[t] = exp(p[t] - top);
    for (int64_t i = 0; i < d; i++) {
        double want = 0;
        for (int64_t t = from; t < n; t++)
            want += p[t] / sum * (double)c->shadow[slot_of(c, q, t) * 2 * d + d + i];
        compare(c, BACKEND_TIMED_ATTN, (double)got[i], want);
        compare(c, BACKEND_TIMED_KV_PUT, (double)got[i], want);
    }
}

static void check_attn(struct backend *b, const struct backend_attn *a)
{
    struct check *c = check_of(b);
    (void)begin(c, BACKEND_TIMED_ATTN, false);
    c->in->ops->attn(c->in, a);
    if (!c->on || a->kv != c->kv) return;
    attn_head(c, a, &a->seq[draw(c, 102, a->n_seq)]);
    attn_head(c, a, &a->seq[a->n_seq - 1]);
}

/* ---- element-wise work */

static void check_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_ACT, false);
    double want[SUITE_CHECK_VALUES];
    int64_t row = look ? draw(c, 100, m) : 0;
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++) {
        int64_t at = draw(c, (uint64_t)(300 + i), n);
        double g = (double)x[row * 2 * n + at];
        want[i] = g / (1 + exp(-g)) * (double)x[row * 2 * n + n + at];
    }
    c->in->ops->silu_mul(c->in, x, y, m, n);
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++)
        compare(c, BACKEND_TIMED_ACT, (double)y[row * n + draw(c, (uint64_t)(300 + i), n)],
                want[i]);
}

static void check_gelu(struct backend *b, float *x, int64_t n)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_ACT, false);
    double want[SUITE_CHECK_VALUES];
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++) {
        double v = (double)x[draw(c, (uint64_t)(300 + i), n)];
        want[i] = 0.5 * v * (1 + erf(v / sqrt(2)));
    }
    c->in->ops->gelu(c->in, x, n);
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++)
        compare(c, BACKEND_TIMED_ACT, (double)x[draw(c, (uint64_t)(300 + i), n)], want[i]);
}

/* The residual stream as a stage leaves it: what its last sum wrote. */
static void check_add(struct backend *b, float *y, const float *x, int64_t n)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_ADD, false);
    double want[SUITE_CHECK_VALUES];
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++) {
        int64_t at = draw(c, (uint64_t)i, n);
        want[i] = (double)y[at] + (double)x[at];
    }
    c->in->ops->add(c->in, y, x, n);
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++)
        compare(c, BACKEND_TIMED_ADD, (double)y[draw(c, (uint64_t)i, n)], want[i]);
    for (int i = 0; c->on && i < SUITE_CHECK_VALUES; i++)
        c->seen.last[i] = y[draw(c, (uint64_t)i, n)];
    c->seen.has_last |= c->on;
}

static void check_add_bias(struct backend *b, float *y, const float *bias, int32_t m, int32_t n)
{
    struct check *c = check_of(b);
    bool look = begin(c, BACKEND_TIMED_BIAS, false);
    double want[SUITE_CHECK_VALUES];
    int64_t row = look ? draw(c, 100, m) * n : 0;
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++) {
        int64_t at = draw(c, (uint64_t)(300 + i), n);
        want[i] = (double)y[row + at] + (double)bias[at];
    }
    c->in->ops->add_bias(c->in, y, bias, m, n);
    for (int i = 0; look && i < SUITE_CHECK_VALUES; i++)
        compare(c, BACKEND_TIMED_BIAS, (double)y[row + draw(c, (uint64_t)(300 + i), n)], want[i]);
}

static void check_pick(struct backend *b, const float *x, const int32_t *at, float *y,
                       const int32_t s[2])
{
    struct check *c = check_of(b);
    (void)begin(c, BACKEND_TIMED_PICK, false);
    c->in->ops->pick(c->in, x, at, y, s);
}

/* ---- the whole */

static void set_ops(struct check *c)
{
    c->ops = *c->in->ops; /* mat_bytes and kv_bytes know no backend */
    c->ops.close = check_close;
    c->ops.alloc = check_alloc;
    c->ops.upload = check_upload;
    c->ops.download = check_download;
    c->ops.view = check_view;
    c->ops.sync = check_sync;
    c->ops.mat_new = check_mat_new;
    c->ops.mat_rows = check_mat_rows;
    c->ops.kv_new = check_kv_new;
    c->ops.reserve = check_reserve;
    c->ops.embed = check_embed;
    c->ops.mm = check_mm;
    c->ops.norm = check_norm;
    c->ops.head_norm = check_head_norm;
    c->ops.rope = check_rope;
    c->ops.kv_put = check_kv_put;
    c->ops.attn = check_attn;
    c->ops.silu_mul = check_silu_mul;
    c->ops.gelu = check_gelu;
    c->ops.add = check_add;
    c->ops.add_bias = check_add_bias;
    c->ops.pick = check_pick;
    c->b.ops = &c->ops;
}

struct backend *suite_check_open(struct team *t, const char *kernels, struct err *e)
{
    struct backend *in = (compute ? compute : backend_cpu_open)(t, kernels, e);
    if (!in) return NULL;
    struct check *c = mem_zalloc(1, sizeof *c);
    c->in = in;
    set_ops(c);
    c->outer = backend_timed_wrap(&c->b);
    suite_check_set(c->outer, true, 0);
    return c->outer;
}

bool suite_check_is(const struct backend *b)
{
    return backend_timed_is(b) && backend_timed_inner(b)->ops->mm == check_mm;
}

void suite_check_set(struct backend *b, bool on, uint64_t seed)
{
    struct check *c = check_of(backend_timed_inner(b));
    c->on = on;
    if (!on) return;
    c->seed = mix64(seed);
    c->pending = NULL;
    c->summed = false;
    memset(c->calls, 0, sizeof c->calls);
    memset(c->worst, 0, sizeof c->worst);
    c->seen = (struct suite_check_seen){ .n_sum = 0 };
}

const struct suite_check_seen *suite_check_read(const struct backend *b)
{
    struct check *c = check_of(backend_timed_inner(b));
    for (int i = 0; i < BACKEND_TIMED_N_PART; i++) {
        const struct worst *w = &c->worst[i];
        c->seen.error[i] = !w->any ? -1 : w->largest > 0 ? w->off / w->largest : w->off;
    }
    return &c->seen;
}

/* ---- all ranks */

/* NULL: of another process, or without. */
static const struct suite_check_seen *seen_by(const struct engine *g, int rank)
{
    const struct backend *b = engine_backend(g, rank);
    return suite_check_is(b) ? suite_check_read(b) : NULL;
}

static void keep(double *worst, double error)
{
    if (!(error <= *worst)) *worst = error;
}

/* The sums of a stage's ranks; the values are those of each rank behind the sum. */
static double sums_of(const struct engine *g, int rank0, int tp)
{
    const struct suite_check_seen *first = seen_by(g, rank0), *s;
    double off = 0, largest = 0;
    int n = first ? first->n_sum : 0;
    for (int r = 1; r < tp; r++) {
        if (!(s = seen_by(g, rank0 + r))) return -1;
        n = s->n_sum < n ? s->n_sum : n;
    }
    for (int k = 0; k < n; k++)
        for (int i = 0; i < SUITE_CHECK_VALUES; i++) {
            double want = 0, size = 0;
            for (int r = 0; r < tp; r++) {
                double own = (double)seen_by(g, rank0 + r)->sum[k].own[i];
                want += own;
                size += fabs(own);
            }
            largest = fmax(largest, size);
            for (int r = 0; r < tp; r++)
                keep(&off, fabs((double)seen_by(g, rank0 + r)->sum[k].sum[i] - want));
        }
    return n == 0 ? -1 : largest > 0 ? off / largest : off;
}

static double sent(const struct suite_check_seen *a, const struct suite_check_seen *b)
{
    double off = 0, largest = 0;
    if (!a || !b || !a->has_last || !b->has_first) return -1;
    for (int i = 0; i < SUITE_CHECK_VALUES; i++) {
        keep(&off, fabs((double)a->last[i] - (double)b->first[i]));
        largest = fmax(largest, fabs((double)a->last[i]));
    }
    return largest > 0 ? off / largest : off;
}

static double tokens_of(const struct engine *g, int tp, int pp, const struct engine_result *got)
{
    double worst = -1;
    for (int32_t i = 0; i < got->n_out && i < SUITE_CHECK_TOPS; i++) {
        struct suite_check_top best = { -INFINITY, -1 };
        for (int r = (pp - 1) * tp; r < pp * tp; r++) {
            const struct suite_check_seen *s = seen_by(g, r);
            struct shard d;
            if (!s || i >= s->n_top) return worst;
            shard_of(&engine_spec(g)->a, tp, pp, NULL, r, &d);
            if (s->top[i].logit > best.logit) {
                best = s->top[i];
                best.column += d.vocab0;
            }
        }
        keep(&worst, got->tok[i] == best.column ? 0 : 1);
    }
    return worst;
}

void suite_check_all(const struct engine *g, int tp, int pp, const struct engine_result *got,
                     struct suite_check_all *out)
{
    *out = (struct suite_check_all){ .sum = -1, .send = -1 };
    for (int i = 0; i < BACKEND_TIMED_N_PART; i++) out->part[i] = -1;
    for (int r = 0; r < tp * pp; r++) {
        const struct suite_check_seen *s = seen_by(g, r);
        for (int i = 0; s && i < BACKEND_TIMED_N_PART; i++) keep(&out->part[i], s->error[i]);
    }
    for (int p = 0; p < pp; p++) {
        if (tp > 1) keep(&out->sum, sums_of(g, p * tp, tp));
        if (p > 0) keep(&out->send, sent(seen_by(g, (p - 1) * tp), seen_by(g, p * tp)));
    }
    out->token = tokens_of(g, tp, pp, got);
}

void suite_check_set_all(const struct engine *g, bool on, uint64_t seed)
{
    for (int r = 0; r < engine_n_rank(g); r++) {
        struct backend *b = engine_backend(g, r);
        if (suite_check_is(b)) suite_check_set(b, on, seed);
    }
}
