/* tests/test_gpu_kern.c - the GPU's element-wise kernels against f64, the sampler against kern_sample;
 * on the host GPU, threads and blocks in several orders. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/gpu_block.h"
#include "engine/kern.h"
#include "tests/gpu_host.h"
#include "tests/logits.h"
#include "tests/test.h"

static uint64_t drawn;
static double unit(void)
{
    return rng_unit(rng_stream(5, "gpu kernels"), drawn++);
}

static int below(int n)
{
    return (int)rng_below(rng_stream(5, "gpu kernels"), drawn++, (uint64_t)n);
}

static double normal(void)
{
    return sqrt(-2 * log(1 - unit())) * cos(6.283185307 * unit());
}

static struct err e;

static struct gpu *host(uint64_t order)
{
    struct gpu *g =
        gpu_host_or_cuda(&(struct gpu_host_opts){ .sm = 89, .n_sm = 3, .order = order }, &e);
    if (!g) abort();
    return g;
}

/* Device memory with these contents (NULL: zeros); odd: 4 bytes past an aligned address. */
static void *on(struct gpu *g, const void *from, size_t bytes, bool odd)
{
    void *p = NULL;
    if (g->ops->alloc(g, bytes + 4, &p, &e)) abort();
    p = (char *)p + (odd ? 4 : 0);
    if (from && g->ops->put(g, p, from, bytes, &e)) abort();
    return p;
}

static float *floats(struct gpu *g, const float *from, int64_t n, bool odd)
{
    return on(g, from, (size_t)n * 4, odd);
}

static void back(struct gpu *g, void *to, const void *from, size_t bytes)
{
    if (g->ops->get(g, to, from, bytes, &e)) abort();
}

/* Issues and waits; false, once said, if that failed. */
static bool run(struct gpu *g, enum gpu_kern k, const void *args)
{
    struct gpu_dim d;
    gpu_kern_dim(k, args, &g->info, &d);
    int st = g->ops->launch(g, k, &d, args, &e);
    return CHECK_TEXT(st ? e.text : "", "");
}

static bool finish(struct gpu *g)
{
    int st = g->ops->wait(g, &e);
    return CHECK_TEXT(st ? e.text : "", "");
}

static float *random_floats(int64_t n, double scale)
{
    float *x = malloc((size_t)n * sizeof *x + 1);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * normal());
    return x;
}

/* |got - want| within rel of the scale of the values. */
static bool close_to(const float *got, const double *want, int64_t n, double rel, double scale)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= rel * (fabs(want[i]) + scale))) {
            printf("  element %d of %d: %.9g, not %.9g\n", (int)i, (int)n, (double)got[i], want[i]);
            return false;
        }
    return true;
}

/* image is y in its type, bit by bit. */
static bool image_of(enum gpu_elt type, const void *image, const float *y, int64_t n)
{
    unsigned char one[4] = { 0 };
    size_t bytes = gpu_elt_bytes(type);
    for (int64_t i = 0; i < n; i++) {
        gpu_put(type, one, 0, y[i]);
        if (memcmp(one, (const char *)image + (size_t)i * bytes, bytes) != 0) return false;
    }
    return true;
}

/* ---- formats -------------------------------------------------------------------------------- */
TEST(gpu_block_rounds_to_the_nearest_e4m3)
{
    double value[127];
    for (int b = 0; b < 127; b++) {
        uint8_t byte = (uint8_t)b, minus = (uint8_t)(b | 0x80);
        value[b] = b < 8 ? b * ldexp(1, -9) : ldexp(1 + b % 8 / 8.0, b / 8 - 7);
        CHECK(gpu_get(GPU_E4M3, &byte, 0) == (float)value[b]);
        CHECK(gpu_get(GPU_E4M3, &minus, 0) == (float)-value[b]);
    }
    CHECK(value[126] == 448);
    for (int i = 0; i < 20000; i++) {
        float x =
            (float)(i % 3 ? exp(18 * unit() - 12) : value[below(126)] / 2 + value[below(126)] / 2);
        int best = 0;
        uint8_t got;
        for (int b = 1; b < 127; b++) {
            double nearer = fabs((double)x - value[best]) - fabs((double)x - value[b]);
            if (nearer > 0 || (nearer == 0 && b % 2 == 0)) best = b;
        }
        gpu_put(GPU_E4M3, &got, 0, x);
        CHECK_INT(got, best);
        gpu_put(GPU_E4M3, &got, 0, -x);
        CHECK_INT(got, best | 0x80);
    }
    uint8_t got;
    gpu_put(GPU_E4M3, &got, 0, INFINITY);
    CHECK_INT(got, 126);
    gpu_put(GPU_E4M3, &got, 0, NAN);
    CHECK_INT(got, 127);
    uint8_t nan = 0xff;
    CHECK(isnan(gpu_get(GPU_E4M3, &nan, 0)));
    uint16_t pair[2];
    uint32_t word = gpu_pack2(GPU_F16, 1.5f, -2);
    memcpy(pair, &word, 4);
    CHECK(gpu_get(GPU_F16, pair, 0) == 1.5f && gpu_get(GPU_F16, pair, 1) == -2);
}

/* ---- rows ----------------------------------------------------------------------------------- */
struct norm_case {
    int m, n, how; /* bits: add, bias, bias2, shift, mean, no y, odd address */
    enum gpu_elt image;
    uint64_t order;
};

static void check_norm(const struct norm_case *c)
{
    struct gpu *g = host(c->order);
    int m = c->m, n = c->n;
    int64_t all = (int64_t)m * n;
    bool odd = c->how & 64;
    float *x = random_floats(all, 3), *add = random_floats(all, 1), *by_n = random_floats(4 * n, 1);
    float *y = calloc((size_t)all, 4), *sum = calloc((size_t)all, 4);
    double *want = calloc((size_t)all, 8), *added = calloc((size_t)all, 8);
    char *image = calloc((size_t)all, 4);
    struct gpu_norm a = { .x = floats(g, x, all, odd), .m = m, .n = n, .eps = 1e-5f };
    float *rows = floats(g, by_n, 4 * n, odd && n % 2);
    for (int i = 0; i < m * n; i++)
        x[i] += (c->how & 1 ? add[i] : 0), x[i] += (c->how & 2 ? by_n[i % n] : 0);
    if (c->how & 1) a.add = floats(g, add, all, false);
    if (c->how & 2) a.bias = rows;
    if (c->how & 4) a.bias2 = rows + n;
    if (c->how & 8) a.shift = rows + 2 * n;
    a.weight = rows + 3 * n;
    a.mean = (c->how & 16) != 0;
    if (!(c->how & 32)) a.y = floats(g, NULL, all, false);
    a.image_type = (int32_t)c->image;
    a.image = on(g, NULL, (size_t)all * 4, false);
    for (int r = 0; r < m; r++) {
        double mean = 0, square = 0;
        for (int i = 0; i < n; i++) {
            added[r * n + i] = (double)x[r * n + i] + (c->how & 4 ? (double)by_n[n + i] : 0);
            mean += added[r * n + i] / n;
        }
        mean = c->how & 16 ? mean : 0;
        for (int i = 0; i < n; i++) square += pow(added[r * n + i] - mean, 2) / n;
        for (int i = 0; i < n; i++)
            want[r * n + i] =
                (added[r * n + i] - mean) / sqrt(square + 1e-5) * (double)by_n[3 * n + i] +
                (c->how & 8 ? (double)by_n[2 * n + i] : 0);
    }
    if (run(g, GPU_K_norm, &a)) {
        back(g, sum, a.x, (size_t)all * 4);
        if (a.y) back(g, y, a.y, (size_t)all * 4);
        back(g, image, a.image, (size_t)all * gpu_elt_bytes(c->image));
        CHECK(finish(g) && close_to(sum, added, all, 3e-7, 1));
        if (a.y) CHECK(close_to(y, want, all, 2e-6, 1) && image_of(c->image, image, y, all));
        for (int64_t i = 0; i < all; i++)
            if (!a.y) y[i] = gpu_get(c->image, image, i);
        if (!a.y && !CHECK(close_to(y, want, all, c->image == GPU_E4M3 ? 0.07 : 0.005, 0.02)))
            printf("  m %d, n %d, how %d\n", m, n, c->how);
    }
    g->ops->close(g);
    free(x), free(add), free(by_n), free(y), free(sum), free(want), free(added), free(image);
}

TEST(gpu_norm_adds_and_normalises_rows)
{
    static const int size[] = { 1, 3, 31, 64, 100, 130, 1021, 1024, 4100, 5120, 8193 };
    for (int i = 0; i < 33; i++) {
        struct norm_case c = { 1 + below(i < 22 ? 3 : 1), size[i % 11], below(128),
                               (enum gpu_elt)(i % GPU_N_ELT), (uint64_t)(i % 4) };
        check_norm(&c);
    }
}

TEST(gpu_norm_may_only_add)
{
    struct gpu *g = host(1);
    float x[2 * 37], add[2 * 37], got[2 * 37];
    for (int i = 0; i < 74; i++) x[i] = (float)i, add[i] = (float)(i * i);
    struct gpu_norm a = {
        .x = floats(g, x, 74, false), .add = floats(g, add, 74, false), .m = 2, .n = 37
    };
    CHECK(run(g, GPU_K_norm, &a));
    back(g, got, a.x, sizeof got);
    CHECK(finish(g));
    for (int i = 0; i < 74; i++) CHECK_INT(got[i], i + i * i);
    g->ops->close(g);
}

static void check_act(int m, int n, bool gated, int how, uint64_t order)
{
    struct gpu *g = host(order);
    int wide = gated ? 2 * n : n;
    int64_t all = (int64_t)m * n;
    enum gpu_elt type = (enum gpu_elt)(how % GPU_N_ELT);
    float *x = random_floats((int64_t)m * wide, 4), *bias = random_floats(wide, 1);
    float *y = calloc((size_t)all, 4);
    double *want = calloc((size_t)all, 8);
    char *image = calloc((size_t)all, 4);
    struct gpu_act a = { .x = floats(g, x, (int64_t)m * wide, how & 4),
                         .bias = how & 8 ? floats(g, bias, wide, how & 16) : NULL,
                         .y = floats(g, NULL, all, false),
                         .image = on(g, NULL, (size_t)all * 4, false),
                         .image_type = (int32_t)type,
                         .m = m,
                         .n = n,
                         .gated = gated };
    for (int64_t i = 0; i < all; i++) {
        int64_t r = i / n, k = i % n;
        double v = (double)x[r * wide + k] + (a.bias ? (double)bias[k] : 0);
        double up = gated ? (double)x[r * wide + n + k] + (a.bias ? (double)bias[n + k] : 0) : 0;
        want[i] = gated ? v / (1 + exp(-v)) * up : v / 2 * (1 + erf(v * sqrt(0.5)));
    }
    if (run(g, GPU_K_act, &a)) {
        back(g, y, a.y, (size_t)all * 4);
        back(g, image, a.image, (size_t)all * gpu_elt_bytes(type));
        CHECK(finish(g) && close_to(y, want, all, 1.5e-6, 0.5) && image_of(type, image, y, all));
    }
    g->ops->close(g);
    free(x), free(bias), free(y), free(want), free(image);
}

TEST(gpu_act_is_silu_times_up_or_exact_gelu)
{
    static const int size[] = { 1, 7, 256, 1022, 1024, 2052 };
    for (int i = 0; i < 36; i++)
        check_act(1 + below(4), size[i % 6], i % 2, below(32), (uint64_t)(i % 4));
}

TEST(gpu_embed_takes_rows_of_its_part_of_the_vocabulary)
{
    enum { M = 9, W = 20 };
    static const int size[] = { 3, 64, 1028, 4112, 4101 }; /* two with accesses of 16 bytes */
    for (int round = 0; round < 20; round++) {
        struct gpu *g = host((uint64_t)round % 5);
        int n = size[round % 5];
        enum gpu_elt type = (enum gpu_elt)(round % GPU_N_ELT);
        float *w = random_floats(W * n, 1), *x = random_floats(M * n, 1),
              *scale = random_floats(W, 1);
        char *packed = calloc(W * (size_t)n, 4);
        int32_t tok[M], pos[M];
        for (int i = 0; i < W * n; i++) gpu_put(type, packed, i, w[i]);
        for (int i = 0; i < M; i++) tok[i] = below(3 * W), pos[i] = below(5) ? below(100) : -1;
        struct gpu_embed a = { .w = on(g, packed, (size_t)(W * n) * gpu_elt_bytes(type), false),
                               .x = floats(g, x, M * n, round & 8),
                               .type = (int32_t)type,
                               .row0 = W,
                               .n_row_w = W,
                               .m = M,
                               .n = n };
        a.s.tok = on(g, tok, sizeof tok, false);
        a.s.pos = on(g, pos, sizeof pos, false);
        if (type == GPU_E4M3) a.w_scale = floats(g, scale, W, false);
        CHECK(run(g, GPU_K_embed, &a));
        back(g, x, a.x, (size_t)(M * n) * 4);
        CHECK(finish(g));
        for (int i = 0; i < M * n; i++) {
            int row = pos[i / n] < 0 ? -1 : tok[i / n] - W;
            float by = type == GPU_E4M3 && row >= 0 && row < W ? scale[row] : 1;
            float want = row < 0 || row >= W ? 0 : by * gpu_get(type, packed, row * n + i % n);
            CHECK(x[i] == want);
        }
        g->ops->close(g);
        free(w), free(x), free(scale), free(packed);
    }
}

/* pick, add_bias, col_scale, add: exact. */
TEST(gpu_small_kernels_do_what_they_say)
{
    static const int size[] = { 1, 5, 63, 1024, 1025, 2500, 3000 };
    for (int round = 0; round < 28; round++) {
        struct gpu *g = host((uint64_t)round % 5);
        int m = 1 + below(5), n = size[round % 7], all = m * n;
        bool odd = round & 8;
        float *x = random_floats(all, 1), *row = random_floats(n, 1),
              *got = calloc((size_t)all * 4, 4);
        int32_t out[8];
        for (int i = 0; i < m; i++) out[i] = below(m);
        struct gpu_pick pick = {
            .x = floats(g, x, all, odd), .y = floats(g, NULL, all, false), .m = m, .n = n
        };
        pick.s.out = on(g, out, sizeof out, false);
        struct gpu_add_bias bias = { floats(g, x, all, false), floats(g, row, n, odd), m, n };
        struct gpu_col_scale scale = { floats(g, x, all, odd), floats(g, row, n, odd), m, n };
        struct gpu_add add = { floats(g, x, all, false), floats(g, x, all, odd),
                               all - round % 3 % all };
        CHECK(run(g, GPU_K_pick, &pick) && run(g, GPU_K_add_bias, &bias));
        CHECK(run(g, GPU_K_col_scale, &scale) && run(g, GPU_K_add, &add));
        size_t bytes = (size_t)all * 4;
        back(g, got, pick.y, bytes);
        back(g, got + all, bias.y, bytes);
        back(g, got + 2 * all, scale.y, bytes);
        back(g, got + 3 * all, add.y, bytes);
        CHECK(finish(g));
        for (int i = 0; i < all; i++) {
            CHECK(got[i] == x[out[i / n] * n + i % n]);
            CHECK(got[all + i] == x[i] + row[i % n]);
            CHECK(got[2 * all + i] == x[i] * row[i % n]);
            CHECK(got[3 * all + i] == (i < add.n ? x[i] + x[i] : x[i]));
        }
        g->ops->close(g);
        free(x), free(row), free(got);
    }
}

/* Products of few rows, of numbers of the type, to the rounding of f32 sums. */
TEST(gpu_gemv_multiplies_rows_by_rows)
{
    static const int depth[] = { 8, 256, 1032, 264, 2048, 1000 }, rows[] = { 1, 2, 15, 16, 17, 40 };
    for (int round = 0; round < 48; round++) {
        struct gpu *g = host((uint64_t)round % 5);
        int m = 1 + round % GPU_GEMV_MAX, n = rows[round % 6], k = depth[round / 4 % 6];
        enum gpu_elt type = round / 2 % 2 ? GPU_F16 : GPU_BF16;
        float *x = random_floats((int64_t)m * k, 1), *w = random_floats((int64_t)n * k, 1);
        uint16_t *px = calloc((size_t)(m * k), 2), *pw = calloc((size_t)(n * k), 2);
        for (int i = 0; i < m * k; i++) gpu_put(type, px, i, x[i]);
        for (int i = 0; i < n * k; i++) gpu_put(type, pw, i, w[i]);
        struct gpu_gemv a = { .x = on(g, px, (size_t)(m * k) * 2, false),
                              .w = on(g, pw, (size_t)(n * k) * 2, false),
                              .y = floats(g, NULL, (int64_t)m * n, round & 8),
                              .type = (int32_t)type,
                              .m = m,
                              .n = n,
                              .k = k };
        float *got = calloc((size_t)(m * n), sizeof *got);
        CHECK(run(g, GPU_K_gemv, &a));
        back(g, got, a.y, (size_t)(m * n) * 4);
        CHECK(finish(g));
        for (int i = 0; i < m * n; i++) {
            double sum = 0, size = 0;
            for (int c = 0; c < k; c++) {
                double v = (double)gpu_get(type, px, i / n * k + c) *
                           (double)gpu_get(type, pw, i % n * k + c);
                sum += v;
                size += fabs(v);
            }
            CHECK(fabs((double)got[i] - sum) <= 2e-6 * size);
        }
        g->ops->close(g);
        free(x), free(w), free(px), free(pw), free(got);
    }
}

TEST(gpu_cast_and_absmax_make_e4m3_of_full_range)
{
    static const int size[] = { 1, 3, 100, 1027, 20003 };
    for (int round = 0; round < 20; round++) {
        struct gpu *g = host((uint64_t)round % 5);
        int n = size[round % 5];
        enum gpu_elt type = (enum gpu_elt)(round % GPU_N_ELT);
        float *x = random_floats(n, exp(20 * unit() - 10)), got_scale, top = 0;
        char *got = calloc((size_t)n, 4);
        if (round == 7) memset(x, 0, (size_t)n * 4);
        struct gpu_absmax most = { floats(g, x, n, round & 8), floats(g, NULL, GPU_MAX_PART, false),
                                   n };
        struct gpu_cast cast = { most.x,
                                 on(g, NULL, (size_t)n * 4, false),
                                 floats(g, NULL, 1, false),
                                 most.part,
                                 n,
                                 (int32_t)type,
                                 0 };
        struct gpu_dim d;
        gpu_kern_dim(GPU_K_absmax, &most, &g->info, &d);
        cast.n_part = d.x;
        CHECK(d.x >= 1 && d.x <= GPU_MAX_PART && (n < 8192 || d.x > 1));
        CHECK(run(g, GPU_K_absmax, &most) && run(g, GPU_K_cast, &cast));
        if (type == GPU_E4M3 && round & 4) { /* again, by the scale that is there */
            cast.part = NULL;
            CHECK(run(g, GPU_K_cast, &cast));
        }
        back(g, &got_scale, cast.scale, 4);
        back(g, got, cast.to, (size_t)n * gpu_elt_bytes(type));
        CHECK(finish(g));
        for (int i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
        CHECK_NEAR(got_scale, type == GPU_E4M3 ? fmax((double)top / 448, 0x1p-120) : 0, 1e-7);
        for (int i = 0; i < n; i++) {
            double by = type == GPU_E4M3 ? (double)got_scale : 1,
                   v = (double)gpu_get(type, got, i) * by;
            double step = type == GPU_F32    ? 0
                          : type == GPU_F16  ? 0x1p-11
                          : type == GPU_BF16 ? 0x1p-8
                                             : 0x1p-4;
            double least = type == GPU_E4M3 ? 0x1p-10 * by : type == GPU_F16 ? 0x1p-25 : 0;
            if (type == GPU_F16 && fabsf(x[i]) > 65000) continue;
            CHECK(fabs(v - (double)x[i]) <= 1.0001 * step * fabs((double)x[i]) + least);
        }
        g->ops->close(g);
        free(x), free(got);
    }
}

/* ---- rope_put ------------------------------------------------------------------------------- */
struct rope_case {
    int m, n_head, n_kv, dim, block_tok, how; /* bits: bias, norm, odd address, no rotation */
    enum gpu_elt type;
    uint64_t order;
};
enum { ROPE_BLOCKS = 4, ROPE_POS = 50 };

/* Row r, head h in f64: what has to be in q, or in the cache. */
static void rope_want(const struct rope_case *c, const float *x, const float *bias,
                      const float *norm, const float *cs, double *want)
{
    int half = c->dim / 2;
    double square = 0;
    for (int i = 0; i < c->dim; i++) {
        want[i] = (double)x[i] + (c->how & 1 ? (double)bias[i] : 0);
        square += want[i] * want[i] / c->dim;
    }
    for (int i = 0; norm && i < c->dim; i++) want[i] *= (double)norm[i] / sqrt(square + 1e-6);
    for (int i = 0; cs && i < half; i++) {
        double u = want[i], v = want[i + half];
        want[i] = u * (double)cs[i] - v * (double)cs[half + i];
        want[i + half] = v * (double)cs[i] + u * (double)cs[half + i];
    }
}

static void check_rope(const struct rope_case *c)
{
    struct gpu *g = host(c->order);
    int heads = c->n_head + 2 * c->n_kv, dim = c->dim, ld = heads * dim + (c->how & 4 ? 3 : 0);
    int n_cache = ROPE_BLOCKS * c->n_kv * c->block_tok * dim, m = c->m;
    float *x = random_floats((int64_t)m * ld, 2), *bias = random_floats(heads * dim, 1);
    float *norm = random_floats(2 * dim, 1), *cs = random_floats(ROPE_POS * dim, 1);
    float *q = calloc((size_t)(m * ld), 4), one[256];
    char *cache[2];
    int32_t pos[64], slot[64];
    double want[256], rel = c->type == GPU_F32 ? 0 : c->type == GPU_F16 ? 0x1p-11 : 0x1p-8;
    size_t bytes = (size_t)n_cache * gpu_elt_bytes(c->type);
    for (int i = 0; i < m; i++)
        pos[i] = below(6) ? below(ROPE_POS) : -1,
        slot[i] = (7 * i + 3) % (ROPE_BLOCKS * c->block_tok);
    struct gpu_rope_put a = { .kv = { on(g, NULL, bytes, false), on(g, NULL, bytes, false),
                                      (int32_t)c->type, c->n_kv, dim, c->block_tok },
                              .qkv = floats(g, x, m * ld, false),
                              .bias = c->how & 1 ? floats(g, bias, heads * dim, c->how & 4) : NULL,
                              .cs = c->how & 8 ? NULL : floats(g, cs, ROPE_POS * dim, false),
                              .m = m,
                              .n_head = c->n_head,
                              .ld = ld,
                              .eps = 1e-6f };
    if (c->how & 2) a.norm_q = floats(g, norm, 2 * dim, false), a.norm_k = a.norm_q + dim;
    a.s.pos = on(g, pos, sizeof pos, false);
    a.s.slot = on(g, slot, sizeof slot, false);
    for (int i = 0; i < 2; i++) cache[i] = calloc(bytes, 1);
    CHECK(run(g, GPU_K_rope_put, &a));
    back(g, q, a.qkv, (size_t)(m * ld) * 4);
    back(g, cache[0], a.kv.k, bytes);
    back(g, cache[1], a.kv.v, bytes);
    CHECK(finish(g));
    bool good = true;
    for (int r = 0; r < m; r++)
        for (int h = 0; h < heads; h++) {
            bool is_q = h < c->n_head, is_k = !is_q && h < c->n_head + c->n_kv;
            const float *row = x + r * ld + h * dim;
            int kv_head = (h - c->n_head) % c->n_kv;
            int at = ((slot[r] / c->block_tok * c->n_kv + kv_head) * c->block_tok +
                      slot[r] % c->block_tok) *
                     dim;
            for (int i = 0; i < dim; i++)
                one[i] = is_q ? q[r * ld + h * dim + i] : gpu_get(c->type, cache[!is_k], at + i);
            if (pos[r] < 0) { /* left alone */
                for (int i = 0; i < dim; i++) good = good && one[i] == (is_q ? row[i] : 0);
                continue;
            }
            rope_want(c, row, bias + h * dim,
                      c->how & 2 && (is_q || is_k) ? norm + (is_q ? 0 : dim) : NULL,
                      a.cs && (is_q || is_k) ? cs + pos[r] * dim : NULL, want);
            good = good && close_to(one, want, dim, 1e-6 + (is_q ? 0 : rel),
                                    is_q                 ? 3
                                    : c->type == GPU_F32 ? 3
                                                         : 1e-3);
        }
    if (!CHECK(good))
        printf("  m %d, heads %d %d, dim %d, how %d\n", m, c->n_head, c->n_kv, dim, c->how);
    g->ops->close(g);
    free(x), free(bias), free(norm), free(cs), free(q), free(cache[0]), free(cache[1]);
}

TEST(gpu_rope_put_rotates_and_writes_the_cache)
{
    static const int dims[] = { 2, 6, 8, 64, 80, 96, 128, 256, 130, 20 };
    for (int i = 0; i < 40; i++) {
        int n_kv = 1 + below(3);
        struct rope_case c = { 1 + below(6),          n_kv * (1 + below(4)), n_kv,
                               dims[i % 10],          8 + 8 * below(2),      below(16),
                               (enum gpu_elt)(i % 3), (uint64_t)(i % 5) };
        check_rope(&c);
    }
}

/* ---- measuring kernels ---------------------------------------------------------------------- */
TEST(gpu_bench_kernels_read_copy_and_fill)
{
    static const int64_t size[] = { 1, 5, 1000, 30011 };
    for (int round = 0; round < 4; round++) {
        struct gpu *g = host((uint64_t)round);
        int64_t n = size[round];
        size_t bytes = (size_t)n * 16;
        uint32_t *x = malloc(bytes), *y = calloc(bytes, 1), sum[1024] = { 0 }, want = 0;
        struct gpu_dim d;
        for (int64_t i = 0; i < 4 * n; i++)
            want += x[i] = (uint32_t)rng_bits(rng_stream(1, "x"), (uint64_t)i);
        struct gpu_read read = { on(g, x, bytes, false), on(g, NULL, sizeof sum, false), n };
        struct gpu_copy copy = { on(g, NULL, bytes, false), read.x, n };
        struct gpu_nothing nothing = { 0 };
        CHECK(run(g, GPU_K_read, &read) && run(g, GPU_K_copy, &copy) &&
              run(g, GPU_K_nothing, &nothing));
        gpu_kern_dim(GPU_K_read, &read, &g->info, &d);
        back(g, sum, read.sum, sizeof sum);
        back(g, y, copy.to, bytes);
        CHECK(finish(g));
        for (int i = 0; i < d.x; i++) want -= sum[i];
        CHECK_INT(want, 0);
        CHECK(memcmp(x, y, bytes) == 0);
        g->ops->close(g);
        free(x), free(y);
    }
}

TEST(gpu_fill_is_even_in_all_types)
{
    enum { N = 40000, BINS = 8 };
    for (int type = 0; type < GPU_N_ELT; type++) {
        struct gpu *g = host(0);
        char *got = calloc(N, 4);
        int bin[BINS] = { 0 };
        double sum = 0, neighbours = 0, last = 0;
        struct gpu_fill a = { on(g, NULL, N * 4, false), 77, N, type };
        CHECK(run(g, GPU_K_fill, &a));
        back(g, got, a.x, N * gpu_elt_bytes((enum gpu_elt)type));
        CHECK(finish(g));
        for (int i = 0; i < N; i++) {
            double v = (double)gpu_get((enum gpu_elt)type, got, i);
            if (!CHECK(v >= -1 && v < 1)) break;
            bin[(int)((v + 1) * BINS / 2)]++;
            sum += v;
            neighbours += v * last;
            last = v;
        }
        for (int b = 0; b < BINS; b++) CHECK(fabs(bin[b] - N / 8.0) < 5 * sqrt(N / 8.0));
        double lowest_bits = type == GPU_E4M3 ? 0.0625 : type == GPU_BF16 ? 0.004 : 0.0005;
        CHECK(fabs(sum / N + lowest_bits) < 5 * 0.58 / sqrt(N) + lowest_bits);
        CHECK(fabs(neighbours / N) < 5 * 0.34 / sqrt(N) + lowest_bits);
        g->ops->close(g);
        free(got);
    }
}

/* ---- sampling ------------------------------------------------------------------------------- */

static const float *sort_by;
static int by_logit(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_by[i] != sort_by[j]) return sort_by[i] > sort_by[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* Could rounding have made the draw come out as tok? Its interval of u, in f64 and with the cut by a
 * sort that may be one token further, has to hold u to 1e-5. */
static bool within_rounding(const float *x, int n, const struct gpu_sample_row *p, int32_t tok)
{
    int32_t *order = malloc((size_t)n * sizeof *order), m = 0;
    double *prob = calloc((size_t)n, sizeof *prob), all = 0, sum = 0, upto = 0;
    for (int32_t i = 0; i < n; i++)
        if (x[i] > -INFINITY) order[m++] = i;
    sort_by = x;
    qsort(order, (size_t)m, sizeof *order, by_logit);
    if (p->top_k > 0 && p->top_k < m) m = p->top_k;
    for (int32_t k = 0; k < m; k++)
        all += exp(((double)x[order[k]] - (double)x[order[0]]) / (double)p->temperature);
    for (int32_t k = 0; k < m && (k == 0 || sum < (double)p->top_p * all || p->top_p >= 1); k++)
        sum += prob[order[k]] =
            exp(((double)x[order[k]] - (double)x[order[0]]) / (double)p->temperature);
    for (int32_t i = 0; i < tok; i++) upto += prob[i] / sum;
    double most = 1 / sum; /* of one token: the cut may be one further */
    bool fits = upto <= p->u + 1e-5 + (p->top_p < 1 ? most : 0) &&
                p->u <= upto + prob[tok] / sum + 1e-5 + (p->top_p < 1 ? most : 0);
    free(order);
    free(prob);
    return fits && x[tok] > -INFINITY;
}

static int n_row_checked, n_row_apart;

static void check_sampling(int shape, int m, int n, uint64_t order)
{
    static const float temperature[] = { 0.05f, 0.8f, 30, 0, 1e-30f };
    struct gpu *g = host(order);
    float *x = malloc((size_t)(m * n) * sizeof *x);
    struct gpu_sample_row *row = calloc((size_t)m, sizeof *row);
    int32_t *tok = calloc((size_t)m, sizeof *tok);
    void *tmp = malloc(kern_sample_bytes(n));
    for (int i = 0; i < m * n; i++) x[i] = logits_shaped(shape, i % n, unit, normal);
    for (int i = 0; i < m; i++) {
        int t = below(20);
        row[i].temperature = temperature[t < 17 ? t % 3 : t - 15 < 5 ? t - 15 : 0];
        row[i].top_k = i % 4 < 2 ? 0 : 1 + below(i % 8 < 4 ? n : n < 50 ? n : 50);
        row[i].top_p = i % 2 ? 1 : (float)(1.05 * unit());
        row[i].u = below(30) ? unit() : below(2) ? 0 : 1 - 0x1p-53;
    }
    struct gpu_sample a = { floats(g, x, m * n, false), on(g, row, (size_t)m * sizeof *row, false),
                            on(g, NULL, (size_t)m * sizeof *tok, false), m, n };
    CHECK(run(g, GPU_K_sample, &a));
    back(g, tok, a.tok, (size_t)m * sizeof *tok);
    CHECK(finish(g));
    for (int i = 0; i < m; i++) {
        const struct kern_pick p = { row[i].temperature, row[i].top_k, row[i].top_p };
        int32_t want = kern_sample(x + i * n, n, &p, row[i].u, tmp);
        if (!isfinite(x[i * n + want])) want = -1;
        n_row_checked++;
        if (tok[i] == want) continue;
        n_row_apart++;
        bool fits = tok[i] >= 0 && tok[i] < n && p.temperature > 0 && p.top_k != 1;
        if (!CHECK(fits && within_rounding(x + i * n, n, &row[i], tok[i])))
            printf("  shape %d, n %d, k %d, p %g, T %g, u %g: %d, not %d\n", shape, n, p.top_k,
                   (double)p.top_p, (double)p.temperature, row[i].u, tok[i], want);
    }
    g->ops->close(g);
    free(x), free(row), free(tok), free(tmp);
}

TEST(gpu_sample_draws_the_tokens_of_kern_sample)
{
    static const int size[] = { 1, 2, 17, 64, 257, 600 };
    for (int shape = 0; shape < LOGITS_SHAPES; shape++)
        for (int z = 0; z < 6; z++) check_sampling(shape, 40, size[z], (uint64_t)(shape + z) % 5);
    printf("  %d rows, %d other tokens by rounding\n", n_row_checked, n_row_apart);
    CHECK(n_row_checked == 2400 && n_row_apart < 10);
}

TEST(gpu_sample_draws_from_large_vocabularies)
{
    for (int shape = 0; shape < LOGITS_SHAPES; shape++)
        check_sampling(shape, 3, 20011, (uint64_t)shape % 4);
    check_sampling(1, 1, 262144, 0);
    check_sampling(3, 1, 262144, 0);
    CHECK(n_row_apart < 3);
}

TEST(gpu_sample_without_a_finite_logit_is_no_token)
{
    struct gpu *g = host(0);
    float x[4][3] = {
        { NAN, NAN, NAN }, { -INFINITY, NAN, -INFINITY }, { 1, INFINITY, 2 }, { NAN, 1, 1 }
    };
    int32_t tok[4];
    for (int round = 0; round < 2; round++) {
        struct gpu_sample_row row[4];
        for (int i = 0; i < 4; i++)
            row[i] = (struct gpu_sample_row){ 0.1, (float)round, 0.9f, 0, 0 };
        struct gpu_sample a = { floats(g, x[0], 12, false), on(g, row, sizeof row, false),
                                on(g, NULL, sizeof tok, false), 4, 3 };
        CHECK(run(g, GPU_K_sample, &a));
        back(g, tok, a.tok, sizeof tok);
        CHECK(finish(g));
        for (int i = 0; i < 4; i++) CHECK_INT(tok[i], i < 3 ? -1 : 1);
    }
    g->ops->close(g);
}
