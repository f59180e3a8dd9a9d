/* bench/suite_cuda_elt.c - what a GPU does between products, by the kernels that a step has, and
 * sampling. What follows reads a 16-bit image where the model's weights are of such a type.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/suite_cuda.h"
#include "engine/elt.h"
#include "engine/kern.h"

enum { SEED_X = 31, SEED_ADD = 32, SEED_W = 33, SEED_TABLE = 34, SEED_LOGIT = 35 };
enum { TABLE_ROWS = 256, MAX_POS = 4096, TOP_K = 50 };
static const float TOP_P = 0.9F;

/* One kernel's work; buffers hold n_var calls' rows, each call has its own. */
struct elt_work {
    struct suite *s;
    const struct points_row *r;
    int n_var;
    int64_t width; /* values of a row of x */
    enum gpu_elt image;
    float *x, *add, *out;
    char *image_at;
    float *weight, *cs;
    void *table;
    struct gpu_step step;
    struct gpu_kv kv;
};

static bool has_image(const struct elt_work *k)
{
    return k->image != GPU_F32;
}

static int issue(void *arg, int i, struct err *e)
{
    struct elt_work *k = arg;
    const struct suite *s = k->s;
    int32_t m = (int32_t)k->r->m, n = (int32_t)k->r->n;
    int64_t at = (int64_t)i * m;
    float *x = k->x + at * k->width, *out = k->out + at * n;
    void *image = has_image(k) ? k->image_at + (size_t)(at * n) * 2 : NULL;
    switch (k->r->part) {
    case POINTS_EMBED:
        return suite_cuda_launch(k->s, GPU_K_embed,
                                 &(struct gpu_embed){ .s = k->step,
                                                      .w = k->table,
                                                      .x = out,
                                                      .type = (int32_t)suite_cuda_weight(s),
                                                      .n_row_w = TABLE_ROWS,
                                                      .m = m,
                                                      .n = n },
                                 e);
    case POINTS_NORM:
        return suite_cuda_launch(k->s, GPU_K_norm,
                                 &(struct gpu_norm){ .x = x,
                                                     .add = k->add + at * n,
                                                     .weight = k->weight,
                                                     .y = image ? NULL : out,
                                                     .image = image,
                                                     .image_type = (int32_t)k->image,
                                                     .m = m,
                                                     .n = n,
                                                     .mean = s->spec.a.layer_norm,
                                                     .eps = (float)s->spec.norm_eps },
                                 e);
    case POINTS_ACT:
        return suite_cuda_launch(k->s, GPU_K_act,
                                 &(struct gpu_act){ .x = x,
                                                    .y = image ? NULL : out,
                                                    .image = image,
                                                    .image_type = (int32_t)k->image,
                                                    .m = m,
                                                    .n = n,
                                                    .gated = s->spec.a.gated_mlp },
                                 e);
    default:
        return suite_cuda_launch(k->s, GPU_K_rope_put,
                                 &(struct gpu_rope_put){ .s = k->step,
                                                         .kv = k->kv,
                                                         .qkv = x,
                                                         .cs = k->cs,
                                                         .m = m,
                                                         .n_head = s->shard.n_head,
                                                         .ld = k->width,
                                                         .eps = (float)s->spec.norm_eps },
                                 e);
    }
}

/* ---- the last row against double: on fresh values, as some kernels work in place */

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double want_norm(const struct elt_work *k, int64_t row, int64_t i, double mean, double var)
{
    int64_t n = k->r->n;
    double x = suite_cuda_value(GPU_F32, SEED_X, row * n + i) +
               suite_cuda_value(GPU_F32, SEED_ADD, row * n + i);
    return (x - mean) / sqrt(var + (double)(float)k->s->spec.norm_eps) *
           suite_cuda_value(GPU_F32, SEED_W, i);
}

static void moments(const struct elt_work *k, int64_t row, double *mean, double *var)
{
    int64_t n = k->r->n;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = suite_cuda_value(GPU_F32, SEED_X, row * n + i) +
                   suite_cuda_value(GPU_F32, SEED_ADD, row * n + i);
        sum += x;
        square += x * x;
    }
    *mean = k->s->spec.a.layer_norm ? sum / (double)n : 0;
    *var = square / (double)n - *mean * *mean;
}

static double want_rope(const struct elt_work *k, int64_t row, int64_t i)
{
    int64_t d = k->s->spec.a.head_dim, at = i % d, pair = at < d / 2 ? i + d / 2 : i - d / 2;
    int64_t pos = row % (k->s->o.max_ctx < MAX_POS ? k->s->o.max_ctx : MAX_POS);
    double x = suite_cuda_value(GPU_F32, SEED_X, row * k->width + i);
    double other = suite_cuda_value(GPU_F32, SEED_X, row * k->width + pair);
    double angle = (double)pos * spec_rope_rate(&k->s->spec, (int)(at % (d / 2)));
    return x * cos(angle) + (at < d / 2 ? -other : other) * sin(angle);
}

static double want_act(const struct elt_work *k, int64_t row, int64_t i)
{
    double g = suite_cuda_value(GPU_F32, SEED_X, row * k->width + i);
    if (!k->s->spec.a.gated_mlp) return 0.5 * g * (1 + erf(g / sqrt(2)));
    return silu(g) * suite_cuda_value(GPU_F32, SEED_X, row * k->width + k->r->n + i);
}

static int results(const struct elt_work *k, int64_t row, float *got, struct err *e)
{
    int64_t n = k->r->n;
    size_t count = (size_t)n;
    bool image = has_image(k) && (k->r->part == POINTS_NORM || k->r->part == POINTS_ACT);
    if (k->r->part == POINTS_ROPE)
        return suite_cuda_get(k->s, got, k->x + row * k->width, count * sizeof *got, e);
    if (!image) return suite_cuda_get(k->s, got, k->out + row * n, count * sizeof *got, e);
    uint16_t *bits = mem_alloc(count * sizeof *bits);
    int st = suite_cuda_get(k->s, bits, k->image_at + (size_t)(row * n) * 2, count * 2, e);
    for (size_t i = 0; i < count && st == ST_OK; i++)
        got[i] = k->image == GPU_BF16 ? elt_from_bf16(bits[i]) : elt_from_f16(bits[i]);
    free(bits);
    return st;
}

static int check(struct elt_work *k, int row_no, struct err *e)
{
    struct gpu *g = k->s->cuda->g;
    struct suite_cuda_worst w = { 0 };
    int64_t row = k->r->m - 1, n = k->r->part == POINTS_ROPE ? k->s->spec.a.head_dim : k->r->n;
    double mean = 0, var = 1;
    struct gpu_fill again = { .x = k->x, .seed = SEED_X, .n = k->r->m * k->width };
    int st = suite_cuda_launch(k->s, GPU_K_fill, &again, e);
    if (st == ST_OK) st = issue(k, 0, e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    float *got = mem_alloc((size_t)(k->r->n + 1) * sizeof *got);
    if (st == ST_OK) st = results(k, row, got, e);
    if (k->r->part == POINTS_NORM) moments(k, row, &mean, &var);
    for (int64_t i = 0; i < n && st == ST_OK; i++) {
        double want = 0;
        switch (k->r->part) {
        case POINTS_NORM: want = want_norm(k, row, i, mean, var); break;
        case POINTS_ACT: want = want_act(k, row, i); break;
        case POINTS_ROPE: want = want_rope(k, row, i); break;
        default:
            want = suite_cuda_value(suite_cuda_weight(k->s), SEED_TABLE, row % TABLE_ROWS * n + i);
        }
        suite_cuda_compare(&w, (double)got[i], want);
    }
    free(got);
    if (st == ST_OK) suite_error(k->s, row_no, suite_cuda_error(&w));
    return st;
}

/* ---- what they work on */

/* Tokens, positions and slots of the most rows. */
static int open_step(struct elt_work *k, int64_t most, struct err *e)
{
    struct suite *s = k->s;
    int32_t *v = mem_alloc(3 * (size_t)most * sizeof *v), ctx = s->o.max_ctx;
    for (int64_t i = 0; i < most; i++) {
        v[i] = (int32_t)(i % TABLE_ROWS);
        v[most + i] = (int32_t)(i % (ctx < MAX_POS ? ctx : MAX_POS));
        v[2 * most + i] = (int32_t)i;
    }
    const int32_t *p = suite_cuda_given(s, v, 3 * (size_t)most * sizeof *v, e);
    free(v);
    if (!p) return ST_DEVICE;
    k->step = (struct gpu_step){ .tok = p, .pos = p + most, .slot = p + 2 * most };
    return ST_OK;
}

static int64_t positions(const struct suite *s)
{
    return s->o.max_ctx < MAX_POS ? s->o.max_ctx : MAX_POS;
}

static int open_rope(struct elt_work *k, int64_t most, struct err *e)
{
    struct suite *s = k->s;
    int64_t d = s->spec.a.head_dim, half = d / 2, n = positions(s), bt = s->o.block_tok;
    int64_t blocks = (most + bt - 1) / bt;
    enum gpu_elt type = suite_cuda_kv(s);
    size_t bytes = (size_t)(blocks * bt * s->shard.n_kv * d) * gpu_elt_bytes(type);
    float *cs = mem_alloc((size_t)(n * d) * sizeof *cs);
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * spec_rope_rate(&s->spec, (int)i);
            cs[p * d + i] = (float)cos(angle);
            cs[p * d + half + i] = (float)sin(angle);
        }
    k->cs = suite_cuda_given(s, cs, (size_t)(n * d) * sizeof *cs, e);
    free(cs);
    k->kv = (struct gpu_kv){ .k = suite_cuda_take(s, bytes),
                             .v = suite_cuda_take(s, bytes),
                             .type = (int32_t)type,
                             .n_head = s->shard.n_kv,
                             .head_dim = (int32_t)d,
                             .block_tok = (int32_t)bt };
    return k->cs ? ST_OK : ST_DEVICE;
}

static int64_t width_of(const struct suite *s, const struct points_row *r)
{
    int64_t d = s->spec.a.head_dim;
    if (r->part == POINTS_ACT) return s->spec.a.gated_mlp ? 2 * r->n : r->n;
    if (r->part == POINTS_ROPE) return d * (s->shard.n_head + 2 * s->shard.n_kv);
    return r->n;
}

/* As many calls' rows as exceed L2 twice, of the smallest number of rows; larger ones use fewer. */
static int vars_of(const struct suite *s, const struct points_row *r, int64_t rows)
{
    int n = suite_cuda_copies(s, 8.0 * (double)(r->m * width_of(s, r)));
    int64_t fit = rows / r->m;
    return fit < n ? (int)fit : n;
}

/* Rows that buffers have: of the job's largest point once, or more calls of the smaller ones. */
static int64_t rows_of(const struct suite *s, const struct points_row *r, int n)
{
    int64_t rows = r[n - 1].m;
    for (int i = 0; i < n; i++) {
        int64_t all = r[i].m * suite_cuda_copies(s, 8.0 * (double)(r[i].m * width_of(s, &r[i])));
        if (all > rows) rows = all;
    }
    return rows;
}

static int open_elt(struct elt_work *k, int64_t rows, int64_t most, struct err *e)
{
    struct suite *s = k->s;
    int64_t n = k->r->n;
    int st = suite_cuda_start(s, e);
    if (st != ST_OK) return st;
    k->image = suite_cuda_weight(s) == GPU_BF16 || suite_cuda_weight(s) == GPU_F16
                   ? suite_cuda_weight(s)
                   : GPU_F32;
    k->width = width_of(s, k->r);
    k->x = suite_cuda_drawn(s, GPU_F32, rows * k->width, SEED_X, e);
    if (k->x) k->add = suite_cuda_drawn(s, GPU_F32, rows * n, SEED_ADD, e);
    if (k->add) k->weight = suite_cuda_drawn(s, GPU_F32, n, SEED_W, e);
    if (k->weight)
        k->table = suite_cuda_drawn(s, suite_cuda_weight(s), TABLE_ROWS * n, SEED_TABLE, e);
    if (!k->table) return ST_DEVICE;
    k->out = suite_cuda_take(s, (size_t)(rows * n) * sizeof(float));
    k->image_at = suite_cuda_take(s, (size_t)(rows * n) * 2);
    st = open_step(k, most, e);
    return st == ST_OK && k->r->part == POINTS_ROPE ? open_rope(k, most, e) : st;
}

static double bytes_of(const struct suite *s, const struct points_row *r, int n)
{
    double rows = (double)rows_of(s, r, n), most = (double)r[n - 1].m, d = s->spec.a.head_dim;
    return rows * (4.0 * (double)width_of(s, r) + 10.0 * (double)r->n) +
           4.0 * (TABLE_ROWS + 1.0) * (double)r->n + 12 * most +
           4 * d * ((double)positions(s) + 2 * (most + s->o.block_tok) * (double)s->shard.n_kv);
}

/* Of rotation and cache write: their shares of the kernel's bytes, the row after this one's. */
static void share(const struct points_row *r, struct suite_value *v)
{
    double all = r[0].bytes + r[1].bytes, t = v[0].s_per_call;
    v[1] = v[0];
    v[0].s_per_call = t * r[0].bytes / all;
    v[1].s_per_call = t * r[1].bytes / all;
}

static int run_elt(struct suite *s, const struct suite_job *j, struct suite_value *v, struct err *e)
{
    const struct points_row *r = &s->row[j->first];
    struct elt_work k = { .s = s, .r = r };
    int step = r->part == POINTS_ROPE ? 2 : 1, last = j->n - step;
    int64_t rows = j->arg[0];
    int st = open_elt(&k, rows, r[last].m, e);
    for (int i = 0; i < j->n && st == ST_OK; i += step) {
        k.r = &r[i];
        const struct suite_cuda_work w = { issue, &k, vars_of(s, k.r, rows) };
        if (k.r->error < 0) st = check(&k, j->first + i, e);
        if (st == ST_OK) st = suite_cuda_time(s, &w, &v[i], e);
        if (st == ST_OK && step == 2) share(&r[i], &v[i]);
    }
    return st;
}

static struct points_row row_of(const struct suite *s, enum points_part part, int64_t m, int64_t n)
{
    enum gpu_elt w = suite_cuda_weight(s);
    double image = w == GPU_F32 || w == GPU_E4M3 ? 4 : 2;
    struct points_row r =
        suite_elt(part, m, n, (double)gpu_elt_bytes(part == POINTS_KV_PUT ? suite_cuda_kv(s) : w));
    double size = (double)m * (double)n;
    if (part == POINTS_NORM) r.bytes = size * (12 + image); /* x, what is added; x, the image */
    if (part == POINTS_ACT) r.bytes = size * (4 * (s->spec.a.gated_mlp ? 2 : 1) + image);
    if (image < 4 && (part == POINTS_NORM || part == POINTS_ACT))
        r.dtype = (uint8_t)suite_cuda_dtype(w);
    return r;
}

static void add_elt(struct suite *s, enum points_part part, int64_t n, const char *name)
{
    enum { MOST = 16 };
    static const int32_t dense[] = { 1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 0 },
                         few[] = { 1, 64, 1024, 0 };
    struct points_row r[MOST];
    int64_t kv = 2 * (int64_t)s->spec.a.head_dim * s->shard.n_kv;
    int n_row = 0;
    for (const int32_t *m = s->o.kind == SUITE_FULL ? dense : few; *m && *m <= s->o.max_tok; m++)
        r[n_row++] = row_of(s, part, *m, n);
    if (n_row == 0 || !suite_cuda_fits(s, bytes_of(s, r, n_row))) return;
    struct suite_job *j = suite_add_job(s, name, 0);
    j->run = run_elt;
    j->arg[0] = rows_of(s, r, n_row);
    for (int i = 0; i < n_row; i++) {
        suite_cuda_row(s, r[i]);
        if (part == POINTS_ROPE) suite_cuda_row(s, row_of(s, POINTS_KV_PUT, r[i].m, kv));
        suite_cuda_guess(s, r[i].bytes, 0);
    }
}

/* ---- sampling */

struct sampling {
    struct suite *s;
    struct gpu_sample a;
    int64_t step; /* values of a call's logits, and calls */
    float *logits;
};

static int sample(void *arg, int i, struct err *e)
{
    struct sampling *k = arg;
    k->a.logits = k->logits + (int64_t)i * k->step;
    return suite_cuda_launch(k->s, GPU_K_sample, &k->a, e);
}

static double draw_of(int64_t row)
{
    return (double)(row % 64) / 64 + 1.0 / 128;
}

/* The last row's token against the definition in engine/kern.h. Drawn without a limit, rounding may
 * choose a neighbour: the chosen one's share of the probability has to hold u. */
static int check_sample(struct sampling *k, int row_no, struct err *e)
{
    int64_t m = k->a.m, n = k->a.n;
    struct suite *s = k->s;
    int32_t got = -1, want;
    double u = draw_of(m - 1), sum = 0, before = 0;
    int st = sample(k, 0, e);
    if (st == ST_OK) st = suite_cuda_get(s, &got, k->a.tok + m - 1, sizeof got, e);
    if (st != ST_OK) return st;
    float *row = mem_alloc((size_t)n * sizeof *row);
    for (int64_t i = 0; i < n; i++)
        row[i] = (float)suite_cuda_value(GPU_F32, SEED_LOGIT, (m - 1) * n + i);
    enum points_part part = (enum points_part)s->row[row_no].part;
    want = kern_argmax(row, (int32_t)n);
    if (part == POINTS_TOP_K) {
        void *tmp = mem_alloc(kern_sample_bytes((int32_t)n) + 64);
        const struct kern_pick pick = { .temperature = 1, .top_p = TOP_P, .top_k = TOP_K };
        want = kern_sample(row, (int32_t)n, &pick, u, tmp);
        free(tmp);
    }
    bool fine = got == want;
    if (part == POINTS_DRAWN && got >= 0 && got < n) {
        for (int64_t i = 0; i < n; i++) sum += exp((double)row[i]);
        for (int32_t i = 0; i < got; i++) before += exp((double)row[i]) / sum;
        fine = u > before - 1e-5 && u < before + exp((double)row[got]) / sum + 1e-5;
    }
    free(row);
    suite_error(s, row_no, fine ? 0 : 1);
    return ST_OK;
}

static int run_sample(struct suite *s, const struct suite_job *j, struct suite_value *v,
                      struct err *e)
{
    const struct points_row *r = &s->row[j->first];
    int64_t most = r[j->n - 1].m, n = r->n, held = j->arg[0];
    struct gpu_sample_row *row = mem_zalloc((size_t)most, sizeof *row);
    struct sampling k = { .s = s };
    for (int64_t i = 0; i < most; i++)
        row[i] = (struct gpu_sample_row){ .u = draw_of(i),
                                          .temperature = r->part == POINTS_NO_PART ? 0 : 1,
                                          .top_p = r->part == POINTS_TOP_K ? TOP_P : 1,
                                          .top_k = r->part == POINTS_TOP_K ? TOP_K : 0 };
    int st = suite_cuda_start(s, e);
    if (st == ST_OK) k.logits = suite_cuda_drawn(s, GPU_F32, held * n, SEED_LOGIT, e);
    if (k.logits) k.a.row = suite_cuda_given(s, row, (size_t)most * sizeof *row, e);
    free(row);
    if (!k.a.row) return ST_DEVICE;
    k.a.tok = suite_cuda_take(s, (size_t)most * sizeof *k.a.tok);
    k.a.n = (int32_t)n;
    for (int i = 0; i < j->n && st == ST_OK; i++) {
        int copies = suite_cuda_copies(s, r[i].bytes);
        k.a.m = (int32_t)r[i].m;
        k.step = r[i].m * n;
        const struct suite_cuda_work w = { sample, &k,
                                           held / r[i].m < copies ? (int)(held / r[i].m) : copies };
        st = suite_cuda_time(s, &w, &v[i], e);
        if (st == ST_OK && r[i].error < 0) st = check_sample(&k, j->first + i, e);
    }
    return st;
}

static void add_sampling(struct suite *s, enum points_part part)
{
    int64_t n = s->spec.a.vocab, held = 2 * (int64_t)suite_cuda_l2(s) / (4 * n) + 1, most = 1;
    while (4 * most <= s->o.max_seqs && most < 256) most *= 4;
    if (held > SUITE_CUDA_MAX_VAR) held = SUITE_CUDA_MAX_VAR;
    if (held < most) held = most;
    if (!suite_cuda_fits(s, 4.0 * (double)(held * n) + 64.0 * (double)most)) return;
    struct suite_job *j = suite_add_job(s,
                                        part == POINTS_NO_PART ? "likeliest tokens"
                                        : part == POINTS_DRAWN ? "drawn tokens"
                                                               : "tokens drawn of the top",
                                        0);
    j->run = run_sample;
    j->arg[0] = held;
    for (int64_t m = 1; m <= most; m *= s->o.kind == SUITE_FULL ? 4 : 16) {
        struct points_row r = { .op = POINTS_SAMPLE,
                                .dtype = POINTS_F32,
                                .part = (uint8_t)part,
                                .m = m,
                                .n = n,
                                .bytes = 4.0 * (double)(m * n),
                                .error = -1 };
        suite_cuda_row(s, r);
        suite_cuda_guess(s, r.bytes, 0);
    }
}

int suite_cuda_elt_add(struct suite *s, struct err *e)
{
    const struct arch *a = &s->spec.a;
    int64_t qk = (int64_t)a->head_dim * (s->shard.n_head + s->shard.n_kv);
    (void)e;
    add_elt(s, POINTS_EMBED, a->hidden, "embedding");
    add_elt(s, POINTS_NORM, a->hidden, "addition and norm");
    add_elt(s, POINTS_ROPE, qk, "rotation and cache");
    add_elt(s, POINTS_ACT, s->shard.n_ffn, "activation");
    add_sampling(s, POINTS_NO_PART);
    add_sampling(s, POINTS_DRAWN);
    add_sampling(s, POINTS_TOP_K);
    return ST_OK;
}
