/* tests/test_kern.c - CPU kernels: each table against float64, and bit for bit against the portable
 * twin; bits independent of batch, partition, chunking and block size; hostile values.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/kern.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

static uint64_t draw;
static int below(int n)
{
    return (int)rng_below(rng_stream(11, "kern"), draw++, (uint64_t)n);
}

static void fill(float *x, int64_t n, double scale)
{
    struct rng r = rng_child(rng_stream(11, "kern.fill"), draw++);
    for (int64_t i = 0; i < n; i++) {
        double u = rng_unit(r, (uint64_t)i), v = rng_unit(r, (uint64_t)(n + i));
        x[i] = (float)(scale * (u + v - 1) * (i % 17 == 3 ? 4 : 1));
    }
}

static float *floats(int64_t n)
{
    return calloc((size_t)n + 1, sizeof(float));
}

static bool same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (isnan(a[i]) ? isnan(b[i]) : a[i] == b[i]) continue;
        printf("  element %lld: %.9g against %.9g\n", (long long)i, (double)a[i], (double)b[i]);
        return false;
    }
    return true;
}

static const struct kern *portable(void)
{
    return kern_named("portable");
}

static bool rounds_x(const struct kern *k)
{
    return !strcmp(k->name, "avx512_bf16");
}

/* ---- packed weights ---------------------------------------------------------------------------- */
TEST(kern_tables_are_named_and_the_best_rounds_nothing)
{
    CHECK(kern_at(0) == portable());
    for (int i = 0; kern_at(i); i++) CHECK(kern_named(kern_at(i)->name) == kern_at(i));
    CHECK(kern_named("sse9") == NULL);
    CHECK(kern_best() != NULL && !rounds_x(kern_best()));
}

TEST(kern_converts_halves)
{
    static const struct {
        uint16_t half;
        float f;
    } h[] = { { 0x0000, 0 },          { 0x3c00, 1 },
              { 0xc000, -2 },         { 0x7bff, 65504 },
              { 0x0001, 0x1p-24f },   { 0x8001, -0x1p-24f },
              { 0x03ff, 0x3ffp-24f }, { 0x0400, 0x1p-14f },
              { 0x7c00, INFINITY },   { 0x3555, 0.333251953125f } };
    float out;
    for (size_t i = 0; i < sizeof h / sizeof *h; i++) {
        kern_to_f32(&out, &h[i].half, KERN_F16, 1);
        CHECK(out == h[i].f);
    }
    uint16_t nan = 0x7c01;
    kern_to_f32(&out, &nan, KERN_F16, 1);
    CHECK(isnan(out));
    CHECK_INT(kern_bf16(1.0f), 0x3f80);
    CHECK_INT(kern_bf16(0x1.01p0f), 0x3f80); /* a tie goes to the even one */
    CHECK_INT(kern_bf16(0x1.03p0f), 0x3f82);
    CHECK_INT(kern_bf16(3.4e38f), 0x7f80); /* beyond the largest bf16 */
    CHECK(isnan(kern_f32(kern_bf16(NAN))));
    for (uint32_t b = 0; b < 0x7f80; b++)
        if (kern_bf16(kern_f32((uint16_t)b)) != b) CHECK_INT(kern_bf16(kern_f32((uint16_t)b)), b);
}

TEST(kern_unpacks_what_it_packed)
{
    static const struct {
        enum kern_type type;
        int32_t n, k, group;
    } c[] = { { KERN_F32, 33, 7, 0 },  { KERN_BF16, 65, 9, 0 }, { KERN_I8, 31, 100, 32 },
              { KERN_I8, 70, 64, 64 }, { KERN_F32, 1, 1, 0 },   { KERN_BF16, 5, 1100, 0 },
              { KERN_I8, 3, 5, 8 },    { KERN_I8, 40, 77, 12 } };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct kern_mat w;
        kern_mat_init(&w, c[i].type, c[i].n, c[i].k, c[i].group);
        int64_t ld = c[i].k + 3;
        float *src = floats(c[i].n * ld), *row = floats(c[i].k);
        fill(src, c[i].n * ld, 1);
        w.data = malloc(w.bytes);
        int32_t cut = c[i].n / 3; /* from two sources, the second a bf16 or f32 one */
        kern_pack(&w, 0, cut, &(struct kern_src){ src, KERN_F32, ld });
        kern_pack(&w, cut, c[i].n - cut, &(struct kern_src){ src + cut * ld, KERN_F32, ld });
        double worst = 0;
        for (int32_t r = 0; r < c[i].n; r++) {
            kern_unpack_row(&w, r, row);
            for (int32_t k = 0; k < c[i].k; k++) {
                float want = src[r * ld + k], top = 0;
                int32_t g = c[i].group ? k / c[i].group * c[i].group : 0;
                for (int32_t j = g; j < g + c[i].group && j < c[i].k; j++)
                    top = fmaxf(top, fabsf(src[r * ld + j]));
                double bound = c[i].type == KERN_F32    ? 0
                               : c[i].type == KERN_BF16 ? fabs((double)want) / 256
                                                        : (double)top / 127 * 1.01 / 2;
                worst = fmax(worst, fabs((double)row[k] - (double)want) - bound);
            }
        }
        CHECK(worst <= 1e-12);
        free(src);
        free(row);
        free(w.data);
    }
}

/* ---- matmul ------------------------------------------------------------------------------------ */
struct mm_case {
    enum kern_type type;
    int32_t m, n, k, group, n_slice;
    struct kern_mat w;
    float *x, *src;
    double *want, *mass; /* sum w x in double with the packed weights, and sum |w| |x| */
};

static void mm_setup(struct mm_case *c)
{
    kern_mat_init(&c->w, c->type, c->n, c->k, c->group);
    c->w.data = malloc(c->w.bytes);
    c->x = floats((int64_t)c->m * c->k);
    c->src = floats((int64_t)c->n * c->k);
    c->want = calloc((size_t)c->m * (size_t)c->n, sizeof(double));
    c->mass = calloc((size_t)c->m * (size_t)c->n, sizeof(double));
    fill(c->x, (int64_t)c->m * c->k, 1);
    fill(c->src, (int64_t)c->n * c->k, 0.1);
    kern_pack(&c->w, 0, c->n, &(struct kern_src){ c->src, KERN_F32, c->k });
    float *row = floats(c->k);
    for (int32_t j = 0; j < c->n; j++) {
        kern_unpack_row(&c->w, j, row);
        for (int32_t i = 0; i < c->m; i++)
            for (int32_t k = 0; k < c->k; k++) {
                double p = (double)row[k] * (double)c->x[(int64_t)i * c->k + k];
                c->want[i * c->n + j] += p;
                c->mass[i * c->n + j] += fabs(p);
            }
    }
    free(row);
}

static void mm_release(struct mm_case *c)
{
    free(c->w.data);
    free(c->x);
    free(c->src);
    free(c->want);
    free(c->mass);
}

/* Rows [i0, i0 + m) by n_part parts into y[m][n + 3]; the scratch deliberately off its alignment. */
static void mm_run(const struct kern *kern, const struct mm_case *c, int32_t i0, int32_t m,
                   int n_part, float *y)
{
    size_t xp_bytes = kern_xp_bytes(c->type, c->group, m, c->k);
    char *xp = malloc(xp_bytes + 4);
    void *tmp = malloc(kern_mm_tmp_bytes(m, c->n_slice));
    struct kern_prep p = { c->x + (int64_t)i0 * c->k, c->k, m, c->k, c->type, c->group, xp + 4 };
    struct kern_mm a = { &c->w, xp + 4, y, c->n + 3, m, c->n_slice, tmp };
    for (int i = 0; i < n_part; i++) kern->prep(&p, i, n_part);
    for (int i = n_part; i-- > 0;) kern->mm(&a, i, n_part);
    free(xp);
    free(tmp);
}

static void mm_check(struct mm_case *c)
{
    int64_t size = (int64_t)c->m * (c->n + 3);
    float *twin = floats(size), *y = floats(size);
    mm_setup(c);
    mm_run(portable(), c, 0, c->m, 1, twin);
    for (int t = 0; kern_at(t); t++) {
        const struct kern *kern = kern_at(t);
        mm_run(kern, c, 0, c->m, 1 + t % 3, y);
        double worst = 0;
        for (int32_t i = 0; i < c->m; i++)
            for (int32_t j = 0; j < c->n; j++) {
                double err = fabs((double)y[i * (c->n + 3) + j] - c->want[i * c->n + j]);
                worst = fmax(worst, err / (c->mass[i * c->n + j] + 1e-30));
            }
        if (!CHECK(worst <= kern_mm_tolerance(kern, c->type, c->k)))
            printf("  %s type %d m %d n %d k %d group %d: %g\n", kern->name, (int)c->type, c->m,
                   c->n, c->k, c->group, worst);
        if (c->type == KERN_BF16 && rounds_x(kern)) continue;
        if (!CHECK(same_bits(y, twin, size)))
            printf("  %s type %d m %d n %d k %d group %d slices %d\n", kern->name, (int)c->type,
                   c->m, c->n, c->k, c->group, c->n_slice);
    }
    free(twin);
    free(y);
    mm_release(c);
}

TEST(kern_mm_agrees_with_float64_and_with_its_twin)
{
    static const enum kern_type types[] = { KERN_F32, KERN_BF16, KERN_I8 };
    static const int32_t groups[] = { 32, 64, 8, 128, 36, 256 };
    for (int i = 0; i < 90; i++) {
        struct mm_case c = { .type = types[i % 3], .m = 1 + i % 40, .n_slice = 1 };
        c.n = 1 + below(i % 2 ? 100 : 40);
        c.k = 1 + below(i % 5 ? 130 : 700);
        c.group = c.type == KERN_I8 ? groups[i / 3 % 6] : 0;
        mm_check(&c);
    }
}

TEST(kern_mm_blocks_many_rows)
{
    mm_check(&(struct mm_case){ .type = KERN_F32, .m = 500, .n = 290, .k = 40, .n_slice = 1 });
    mm_check(&(struct mm_case){ .type = KERN_F32, .m = 60, .n = 33, .k = 530, .n_slice = 2 });
    mm_check(&(struct mm_case){ .type = KERN_BF16, .m = 45, .n = 300, .k = 96, .n_slice = 8 });
    mm_check(&(struct mm_case){
        .type = KERN_I8, .m = 50, .n = 65, .k = 2304, .group = 32, .n_slice = 8 });
    /* 32 rows are the most that one row panel holds */
    for (int32_t m = 31; m <= 33; m++)
        mm_check(&(struct mm_case){
            .type = KERN_I8, .m = m, .n = 95, .k = 1024, .group = 64, .n_slice = 8 });
}

TEST(kern_mm_bits_do_not_depend_on_batch_or_partition)
{
    static const enum kern_type types[] = { KERN_F32, KERN_BF16, KERN_I8 };
    for (int i = 0; i < 3; i++) {
        struct mm_case c = { .type = types[i], .m = 70, .n = 150, .k = 192, .n_slice = 2 };
        c.group = c.type == KERN_I8 ? 32 : 0;
        int64_t ld = c.n + 3;
        float *y = floats(c.m * ld), *part = floats(c.m * ld);
        mm_setup(&c);
        for (int t = 1; kern_at(t); t++) {
            mm_run(kern_at(t), &c, 0, c.m, 1, y);
            for (int j = 0; j < 24; j++) {
                int32_t m = j < 12 ? 1 + j : 1 + below(40), i0 = below(c.m - m + 1);
                mm_run(kern_at(t), &c, i0, m, 1 + below(7), part);
                CHECK(same_bits(part, y + i0 * ld, m * ld));
            }
        }
        free(y);
        free(part);
        mm_release(&c);
    }
}

/* Row-parallel ranks: each has a share of k and of the slices; their sums, added as a tree. */
TEST(kern_mm_slices_make_a_split_over_ranks_exact)
{
    enum { N = 37, K = 512, M = 5, LD = N + 3 };
    static const enum kern_type types[] = { KERN_F32, KERN_BF16, KERN_I8 };
    for (int i = 0; i < 6; i++) {
        struct mm_case c = { .type = types[i % 3], .m = M, .n = N, .k = K, .n_slice = 8 };
        c.group = c.type == KERN_I8 ? 64 : 0;
        const struct kern *kern = i < 3 ? portable() : kern_best();
        float whole[M * LD] = { 0 };
        mm_setup(&c);
        mm_run(kern, &c, 0, M, 2, whole);
        for (int tp = 2; tp <= 8; tp *= 2) {
            float y[8][M * LD] = { 0 };
            for (int r = 0; r < tp; r++) {
                struct mm_case s = {
                    .type = c.type, .m = M, .n = N, .k = K / tp, .group = c.group, .n_slice = 8 / tp
                };
                kern_mat_init(&s.w, s.type, N, s.k, s.group);
                s.w.data = malloc(s.w.bytes);
                s.x = floats(M * s.k);
                for (int j = 0; j < M; j++)
                    memcpy(s.x + j * s.k, c.x + j * K + r * s.k, (size_t)s.k * 4);
                kern_pack(&s.w, 0, N, &(struct kern_src){ c.src + r * s.k, KERN_F32, K });
                mm_run(kern, &s, 0, M, 1, y[r]);
                mm_release(&s);
            }
            for (int step = 1; step < tp; step *= 2)
                for (int r = 0; r < tp; r += 2 * step) kern->add(y[r], y[r + step], M * LD);
            CHECK(same_bits(y[0], whole, M * LD));
        }
        mm_release(&c);
    }
    CHECK(kern_slice_ok(KERN_I8, 64, 512, 8) && !kern_slice_ok(KERN_I8, 128, 512, 8));
    CHECK(!kern_slice_ok(KERN_F32, 0, 512, 3) && !kern_slice_ok(KERN_BF16, 0, 24, 8));
    CHECK(kern_slice_ok(KERN_F32, 0, 17, 1) && !kern_slice_ok(KERN_F32, 0, 512, 32));
}

TEST(kern_mm_passes_on_infinities_nans_and_denormals)
{
    enum { K = 64, N = 33 };
    static const enum kern_type types[] = { KERN_F32, KERN_BF16, KERN_I8 };
    for (int i = 0; i < 3; i++)
        for (int t = 0; kern_at(t); t++) {
            struct mm_case c = { .type = types[i], .m = 4, .n = N, .k = K, .n_slice = 1 };
            float y[4 * (N + 3)] = { 0 };
            c.group = c.type == KERN_I8 ? 32 : 0;
            mm_setup(&c);
            c.x[K + 5] = NAN;
            c.x[2 * K + 40] = INFINITY;
            for (int k = 0; k < K; k++) c.x[3 * K + k] = 1e-40f;
            mm_run(kern_at(t), &c, 0, 4, 1, y);
            bool rounds = c.type == KERN_I8 || rounds_x(kern_at(t));
            for (int j = 0; j < N; j++) {
                CHECK(isfinite(y[j]) && isnan(y[(N + 3) + j]) && !isfinite(y[2 * (N + 3) + j]));
                if (!rounds) CHECK(y[3 * (N + 3) + j] != 0 || c.want[3 * N + j] == 0);
                CHECK(fabsf(y[3 * (N + 3) + j]) < 1e-37f);
            }
            mm_release(&c);
        }
}

/* ---- attention --------------------------------------------------------------------------------- */
struct attn_case {
    int32_t n_head, group, dim, block_tok, n_seq, window;
    enum kern_type type;
    int32_t past[4], n_q[4]; /* tokens cached before this step; in it */
};

struct attn_data {
    float *k[4], *v[4], *q[4]; /* per sequence, every position */
    int32_t *block[4];
    struct kern_kv kv;
};

static void attn_setup(const struct attn_case *c, struct attn_data *d)
{
    int32_t n_block = 0, width = c->n_head * c->dim;
    for (int32_t s = 0; s < c->n_seq; s++) {
        int32_t len = c->past[s] + c->n_q[s], need = (len + c->block_tok - 1) / c->block_tok;
        d->k[s] = floats((int64_t)len * width);
        d->v[s] = floats((int64_t)len * width);
        d->q[s] = floats((int64_t)len * width * c->group);
        fill(d->k[s], (int64_t)len * width, 1);
        fill(d->v[s], (int64_t)len * width, 1);
        fill(d->q[s], (int64_t)len * width * c->group, 1);
        d->block[s] = calloc((size_t)need, sizeof(int32_t));
        for (int32_t i = 0; i < need; i++) d->block[s][i] = 3 * n_block++ + 1;
    }
}

/* A cache of this block size in which every slot not written is NaN. */
static void kv_setup(const struct attn_case *c, struct attn_data *d)
{
    int32_t n_block = 0;
    for (int32_t s = 0; s < c->n_seq; s++)
        n_block += (c->past[s] + c->n_q[s] + c->block_tok - 1) / c->block_tok;
    d->kv = (struct kern_kv){ c->type, c->n_head, c->dim, c->block_tok, NULL, NULL };
    size_t bytes = kern_kv_block_bytes(&d->kv) * (3 * (size_t)n_block + 1);
    d->kv.k = malloc(bytes);
    d->kv.v = malloc(bytes);
    memset(d->kv.k, 0xff, bytes);
    memset(d->kv.v, 0xff, bytes);
}

static void attn_release(const struct attn_case *c, struct attn_data *d)
{
    for (int32_t s = 0; s < c->n_seq; s++) {
        free(d->k[s]);
        free(d->v[s]);
        free(d->q[s]);
        free(d->block[s]);
    }
    free(d->kv.k);
    free(d->kv.v);
}

/* Runs positions [past - n, past) of the cache in, then all queries in chunks of at most `chunk`
 * tokens of each sequence; out[s] has the rows of sequence s. */
static void attn_run(const struct kern *kern, const struct attn_case *c, struct attn_data *d,
                     int32_t chunk, int n_part, float **out)
{
    int64_t kw = (int64_t)c->n_head * c->dim, qw = kw * c->group;
    for (int32_t s = 0; s < c->n_seq; s++)
        for (int32_t at = -c->past[s], n; at < c->n_q[s]; at += n) {
            n = at < 0 ? c->past[s] : c->n_q[s] - at < chunk ? c->n_q[s] - at : chunk;
            struct kern_seq q = { 0, n, c->past[s] + at, d->block[s] };
            struct kern_put p = { &d->kv, &q, 1, d->k[s] + q.pos * kw, d->v[s] + q.pos * kw, kw };
            for (int i = 0; i < n_part; i++) kern_kv_put(&p, i, n_part);
            if (at < 0) continue;
            struct kern_attn a = { &d->kv,
                                   &q,
                                   1,
                                   c->n_head * c->group,
                                   d->q[s] + q.pos * qw,
                                   qw,
                                   out[s] + at * qw,
                                   qw,
                                   1 / sqrtf((float)c->dim),
                                   c->window };
            for (int i = 0; i < n_part; i++) kern->attn(&a, i, n_part);
        }
}

static float rounded(const struct attn_case *c, float x)
{
    return c->type == KERN_BF16 ? kern_f32(kern_bf16(x)) : x;
}

/* One query head of one position in double; NaN-free by construction. */
static double attn_error(const struct attn_case *c, const struct attn_data *d, int32_t s,
                         int32_t pos, int32_t h, const float *got)
{
    int64_t kw = (int64_t)c->n_head * c->dim, qw = kw * c->group, at = h / c->group * c->dim;
    const float *q = d->q[s] + pos * qw + (int64_t)h * c->dim;
    int32_t lo = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
    double *p = calloc((size_t)pos + 1, sizeof(double)), top = -INFINITY, den = 0, worst = 0;
    for (int32_t t = lo; t <= pos; t++) {
        for (int32_t i = 0; i < c->dim; i++)
            p[t] += (double)q[i] * (double)rounded(c, d->k[s][t * kw + at + i]) / sqrt(c->dim);
        top = fmax(top, p[t]);
    }
    for (int32_t t = lo; t <= pos; t++) den += p[t] = exp(p[t] - top);
    for (int32_t i = 0; i < c->dim; i++) {
        double want = 0;
        for (int32_t t = lo; t <= pos; t++)
            want += p[t] / den * (double)rounded(c, d->v[s][t * kw + at + i]);
        worst = fmax(worst, fabs(want - (double)got[i]));
    }
    free(p);
    return worst;
}

static void attn_check(const struct attn_case *c)
{
    struct attn_data d = { .k = { 0 } };
    int64_t qw = (int64_t)c->n_head * c->group * c->dim;
    float *twin[4], *out[4];
    attn_setup(c, &d);
    kv_setup(c, &d);
    for (int32_t s = 0; s < c->n_seq; s++) {
        twin[s] = floats(c->n_q[s] * qw);
        out[s] = floats(c->n_q[s] * qw);
    }
    attn_run(portable(), c, &d, 1000, 1, twin);
    for (int32_t s = 0; s < c->n_seq; s++)
        for (int j = 0; j < 4; j++) {
            int32_t i = below(c->n_q[s]), h = below(c->n_head * c->group);
            const float *got = twin[s] + i * qw + (int64_t)h * c->dim;
            CHECK(attn_error(c, &d, s, c->past[s] + i, h, got) < KERN_TOL_ATTN);
        }
    for (int t = 1; kern_at(t); t++) {
        attn_run(kern_at(t), c, &d, t % 2 ? 1000 : 5, 1 + t % 3, out);
        for (int32_t s = 0; s < c->n_seq; s++)
            if (!CHECK(same_bits(out[s], twin[s], c->n_q[s] * qw)))
                printf("  %s heads %d x %d dim %d block %d type %d window %d past %d q %d\n",
                       kern_at(t)->name, c->n_head, c->group, c->dim, c->block_tok, (int)c->type,
                       c->window, c->past[s], c->n_q[s]);
    }
    for (int32_t s = 0; s < c->n_seq; s++) {
        free(twin[s]);
        free(out[s]);
    }
    attn_release(c, &d);
}

TEST(kern_attn_agrees_with_float64_and_with_its_twin)
{
    static const int32_t dims[] = { 64, 80, 96, 128, 2, 18, 40, 256 };
    static const int32_t blocks[] = { 16, 8, 64, 24, 32 };
    for (int i = 0; i < 24; i++) {
        struct attn_case c = { .dim = dims[i % 8], .group = 1 + i % 8, .n_head = 1 + i % 3 };
        c.block_tok = blocks[i % 5];
        c.type = i % 2 ? KERN_BF16 : KERN_F32;
        c.window = i % 6 == 5 ? 1 + below(90) : 0;
        c.n_seq = 2;
        c.past[0] = below(i % 4 ? 100 : 300);
        c.n_q[0] = 1;
        c.past[1] = i % 3 ? below(70) : 0;
        c.n_q[1] = 1 + below(12);
        attn_check(&c);
    }
}

TEST(kern_attn_holds_over_a_long_context)
{
    attn_check(&(struct attn_case){ .n_head = 1,
                                    .group = 4,
                                    .dim = 64,
                                    .block_tok = 16,
                                    .type = KERN_F32,
                                    .n_seq = 1,
                                    .past = { 1999 },
                                    .n_q = { 1 } });
    attn_check(&(struct attn_case){ .n_head = 1,
                                    .group = 71,
                                    .dim = 64,
                                    .block_tok = 8,
                                    .type = KERN_BF16,
                                    .n_seq = 1,
                                    .past = { 63 },
                                    .n_q = { 3 } });
    attn_check(&(struct attn_case){ .n_head = 2,
                                    .group = 2,
                                    .dim = 32,
                                    .block_tok = 16,
                                    .type = KERN_F32,
                                    .n_seq = 1,
                                    .past = { 0 },
                                    .n_q = { 130 } });
}

TEST(kern_attn_bits_do_not_depend_on_chunks_blocks_or_parts)
{
    struct attn_case c = { .n_head = 2,
                           .group = 3,
                           .dim = 48,
                           .block_tok = 16,
                           .type = KERN_F32,
                           .n_seq = 1,
                           .past = { 0 },
                           .n_q = { 150 } };
    static const int32_t chunks[] = { 1, 7, 64, 65, 149 }, blocks[] = { 8, 64, 40, 16, 32 };
    struct attn_data d = { .k = { 0 } };
    int64_t size = (int64_t)c.n_q[0] * c.n_head * c.group * c.dim;
    float *whole = floats(size), *out = floats(size);
    attn_setup(&c, &d);
    kv_setup(&c, &d);
    attn_run(kern_best(), &c, &d, 1000, 1, &whole);
    for (int i = 0; i < 5; i++) {
        free(d.kv.k);
        free(d.kv.v);
        free(d.block[0]);
        c.block_tok = blocks[i];
        int32_t n = (c.n_q[0] + c.block_tok - 1) / c.block_tok;
        d.block[0] = calloc((size_t)n, sizeof(int32_t));
        for (int32_t b = 0; b < n; b++) d.block[0][b] = 3 * (n - 1 - b);
        kv_setup(&c, &d);
        attn_run(kern_best(), &c, &d, chunks[i], 1 + i, &out);
        CHECK(same_bits(out, whole, size));
    }
    attn_release(&c, &d);
    free(whole);
    free(out);
}

/* Sequences in one call, decode and prefill mixed, are those alone. */
TEST(kern_attn_mixes_sequences)
{
    struct attn_case c = { .n_head = 2,
                           .group = 2,
                           .dim = 16,
                           .block_tok = 8,
                           .type = KERN_BF16,
                           .n_seq = 4,
                           .past = { 30, 0, 7, 100 },
                           .n_q = { 1, 40, 1, 9 } };
    struct attn_data d = { .k = { 0 } };
    int64_t qw = 64, kw = 32, rows = 51;
    float *alone[4], *k = floats(rows * kw), *v = floats(rows * kw), *q = floats(rows * qw);
    float *out = floats(rows * qw);
    struct kern_seq seq[4];
    attn_setup(&c, &d);
    kv_setup(&c, &d);
    int32_t row = 0;
    for (int s = 0; s < 4; row += c.n_q[s], s++) {
        alone[s] = floats(c.n_q[s] * qw);
        seq[s] = (struct kern_seq){ row, c.n_q[s], c.past[s], d.block[s] };
        memcpy(k + row * kw, d.k[s] + c.past[s] * kw, (size_t)(c.n_q[s] * kw) * 4);
        memcpy(v + row * kw, d.v[s] + c.past[s] * kw, (size_t)(c.n_q[s] * kw) * 4);
        memcpy(q + row * qw, d.q[s] + c.past[s] * qw, (size_t)(c.n_q[s] * qw) * 4);
    }
    attn_run(kern_best(), &c, &d, 1000, 1, alone); /* leaves the past in the cache */
    struct kern_put p = { &d.kv, seq, 4, k, v, kw };
    for (int i = 0; i < 3; i++) kern_kv_put(&p, i, 3);
    struct kern_attn a = { &d.kv, seq, 4, 4, q, qw, out, qw, 0.25f, 0 };
    for (int i = 0; i < 5; i++) kern_best()->attn(&a, i, 5);
    for (int s = 0; s < 4; s++) {
        CHECK(same_bits(out + seq[s].row * qw, alone[s], c.n_q[s] * qw));
        free(alone[s]);
    }
    attn_release(&c, &d);
    free(k);
    free(v);
    free(q);
    free(out);
}

/* ---- the small rest ---------------------------------------------------------------------------- */
typedef void unary_fn(float *y, const float *x, int64_t n);
static double gelu_exact(double x)
{
    return 0.5 * x * (1 + erf(x * sqrt(0.5)));
}
static double gelu_by_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}
static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void check_unary(int which, double (*want)(double))
{
    enum { N = 4003 };
    float *x = floats(N), *y = floats(N), *twin = floats(N), *one = floats(N);
    for (int i = 0; i < N; i++) {
        x[i] = (float)((i - N / 2) * (i % 3 ? 0.004 : 0.06));
        one[i] = 1;
    }
    x[0] = -INFINITY;
    x[1] = 1e-40f;
    x[2] = NAN;
    x[3] = 1e30f;
    for (int t = 0; kern_at(t); t++) {
        const struct kern *k = kern_at(t);
        unary_fn *f[] = { NULL, k->gelu, k->gelu_tanh };
        float *to = t ? y : twin;
        double worst = 0;
        if (which == 0)
            k->silu_mul(to + 1, x, one, N - 1); /* off its alignment, an odd length */
        else
            f[which](to + 1, x, N - 1);
        for (int i = 4; i < N - 1; i++) {
            double w = want((double)x[i]), err = fabs((double)to[i + 1] - w);
            worst = fmax(worst, err / (fabs((double)x[i]) + 1e-30));
        }
        CHECK(worst < KERN_TOL_UNARY);
        CHECK(isnan(to[3]) && to[4] == 1e30f && fabsf(to[2]) <= 1e-40f);
        CHECK(same_bits(to + 2, twin + 2, N - 2));
    }
    free(x);
    free(y);
    free(twin);
    free(one);
}

TEST(kern_activations_agree_with_libm)
{
    check_unary(0, silu);
    check_unary(1, gelu_exact);
    check_unary(2, gelu_by_tanh);
}

TEST(kern_exp_from_agrees_with_libm)
{
    enum { N = 1003 };
    float x[N], y[N], twin[N];
    const float by[2] = { 2, 1.7f };
    fill(x, N, 9);
    x[1] = NAN;
    x[2] = -INFINITY;
    x[3] = 2;
    x[4] = 2 - 87.5f / 1.7f;
    for (int t = 0; kern_at(t); t++) {
        kern_at(t)->exp_from(t ? y : twin, x, N, by);
        CHECK(!t || same_bits(y, twin, N));
    }
    CHECK(twin[1] == 0 && twin[2] == 0 && twin[3] == 1 && twin[4] == 0);
    for (int i = 5; i < N; i++) {
        float v = (x[i] - by[0]) * by[1]; /* as it is rounded */
        CHECK(fabs((double)twin[i] / exp((double)v) - 1) < KERN_TOL_UNARY);
    }
}

TEST(kern_norms_agree_with_float64)
{
    for (int n = 1; n < 300; n = n * 2 + 1) {
        enum { M = 5 };
        int64_t ld = n + 2;
        float *x = floats(M * ld), *y = floats(M * ld), *twin = floats(M * ld);
        float *w = floats(n), *b = floats(n);
        fill(x, M * ld, 3);
        fill(w, n, 1);
        fill(b, n, 1);
        for (int which = 0; which < 3; which++) {
            struct kern_norm a = { y, ld, x, ld, M, n, w, which == 2 ? b : NULL, 1e-5f };
            for (int t = 0; kern_at(t); t++) {
                a.y = t ? y : twin;
                for (int i = 0; i < 3; i++)
                    (which ? kern_at(t)->layernorm : kern_at(t)->rmsnorm)(&a, i, 3);
                if (t) CHECK(same_bits(y, twin, M * ld));
            }
            for (int i = 0; i < M; i++) {
                double mean = 0, square = 0;
                for (int j = 0; which && j < n; j++) mean += (double)x[i * ld + j] / n;
                for (int j = 0; j < n; j++) square += pow((double)x[i * ld + j] - mean, 2) / n;
                for (int j = 0; j < n; j++) {
                    double v = ((double)x[i * ld + j] - mean) / sqrt(square + 1e-5);
                    double want = v * (double)w[j] + (which == 2 ? (double)b[j] : 0);
                    double bound = KERN_TOL_NORM * (1 + fabs(want) + 50 * fabs(mean));
                    CHECK(fabs((double)twin[i * ld + j] - want) < (n == 1 ? 1e-3 : bound));
                }
            }
        }
        free(x);
        free(y);
        free(twin);
        free(w);
        free(b);
    }
}

TEST(kern_rope_rotates_halves)
{
    enum { M = 3, HEADS = 2, DIM = 44, HALF = 19, LD = HEADS * DIM + 1 };
    float freq[HALF], cs[M][2 * HALF], x[M * LD], y[M * LD], twin[M * LD];
    int32_t pos[M] = { 0, 17, 4000 }, at[M] = { 2, 0, 1 };
    for (int i = 0; i < HALF; i++) freq[i] = powf(10000, -(float)i / HALF);
    for (int i = 0; i < M; i++) kern_rope_cs(cs[i], freq, HALF, pos[i]);
    fill(x, M * LD, 1);
    for (int t = 0; kern_at(t); t++) {
        float *to = t ? y : twin;
        struct kern_rope a = { to, LD, M, HEADS, DIM, HALF, cs[0], at };
        memcpy(to, x, sizeof x);
        for (int i = 0; i < 2; i++) kern_at(t)->rope(&a, i, 2);
        CHECK(same_bits(to, twin, M * LD));
    }
    for (int r = 0; r < M; r++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < DIM; i++) {
                int j = i % HALF;
                const float *in = x + r * LD + h * DIM;
                double angle = (double)(freq[j] * (float)pos[at[r]]), want = (double)in[i];
                double a = (double)in[j], b = (double)in[j + HALF];
                if (i < HALF)
                    want = a * cos(angle) - b * sin(angle);
                else if (i < 2 * HALF)
                    want = b * cos(angle) + a * sin(angle);
                double most = i < 2 * HALF ? KERN_TOL_ROPE * (fabs(a) + fabs(b)) : 0;
                CHECK(fabs((double)twin[r * LD + h * DIM + i] - want) <= most);
            }
}

TEST(kern_adds_reads_and_counts)
{
    float x[37], y[37], bias[37], want[37];
    unsigned char bytes[1000];
    for (int i = 0; i < 37; i++) x[i] = (float)i;
    for (int i = 0; i < 1000; i++) bytes[i] = (unsigned char)i;
    for (int t = 0; kern_at(t); t++) {
        for (int i = 0; i < 37; i++) {
            y[i] = 0.5f;
            want[i] = (float)i + 0.5f;
        }
        kern_at(t)->add(y, x, 37);
        CHECK(same_bits(y, want, 37));
        uint64_t sum = kern_at(t)->read(bytes, 1000);
        bytes[999]++;
        CHECK(kern_at(t)->read(bytes, 1000) != sum);
        CHECK(kern_at(t)->peak(KERN_PEAK_FMA, 10) > 0);
        kern_at(t)->peak(KERN_PEAK_I8, 10);
        kern_at(t)->peak(KERN_PEAK_BF16, 10);
    }
    fill(bias, 37, 1);
    kern_add_bias(y, 18, bias, 2, 18);
    for (int i = 0; i < 36; i++) CHECK(y[i] == want[i] + bias[i % 18]);
    CHECK(y[36] == want[36]);
}
