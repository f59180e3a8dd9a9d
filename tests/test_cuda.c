/* tests/test_cuda.c - the CUDA device itself: what is said where there is none, and, on a machine
 * with a GPU, memory, products, recordings, failures and two ranks on it. Without one the latter are
 * skipped, counted. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/prov.h"
#include "base/rng.h"
#include "engine/elt.h"
#include "engine/gpu.h"
#include "tests/test.h"

static bool built_in(void)
{
    return strcmp(prov_cuda(), "no CUDA") != 0;
}

TEST(cuda_says_why_there_is_no_gpu)
{
    struct err e = { 0 }, of_open = { 0 };
    if (gpu_cuda_count(&e) > 0) {
        CHECK(!gpu_cuda_open(1000, &of_open));
        CHECK_HAS(of_open.text, "there is no GPU 1000: ");
        return;
    }
    CHECK_INT(e.status, ST_DEVICE);
    CHECK(!gpu_cuda_open(0, &of_open));
    CHECK_TEXT(of_open.text, e.text);
    if (built_in())
        CHECK(strstr(e.text, "no NVIDIA driver") || strstr(e.text, "driver is too old") ||
              strstr(e.text, "no NVIDIA GPU is visible") || strstr(e.text, "CUDA cannot start"));
    else
        CHECK_HAS(e.text, "built without CUDA");
}

/* ---- with a GPU */

static struct gpu *open_or_skip(struct err *e)
{
    if (gpu_cuda_count(e) == 0) SKIP(e->text);
    struct gpu *g = gpu_cuda_open(0, e);
    CHECK_TEXT(e->text, "");
    if (!g) exit(1);
    return g;
}

static uint64_t draws;
static double unit(void)
{
    return rng_unit(rng_stream(1, "test.cuda"), draws++);
}

/* n values of the type in v, and as bits in device memory. */
static int matrix(struct gpu *g, enum gpu_elt type, size_t n, double *v, void **out, struct err *e)
{
    unsigned char *bits = mem_zalloc(n, 4);
    for (size_t i = 0; i < n; i++) {
        double f = unit() * 2 - 1;
        if (type == GPU_E4M3) { /* 1.b2 b1 b0 * 2^x, x in -6..0, and its sign */
            int x = (int)(unit() * 7), fraction = (int)(unit() * 8);
            bits[i] = (unsigned char)((f < 0 ? 128 : 0) | (x + 1) << 3 | fraction);
            v[i] = copysign((1 + fraction / 8.0) * pow(2, x - 6), f);
            continue;
        }
        enum elt t = type == GPU_F32 ? ELT_F32 : type == GPU_F16 ? ELT_F16 : ELT_BF16;
        elt_put(t, bits, i, (float)f);
        v[i] = elt_get(t, bits, i);
    }
    int st = g->ops->alloc(g, n * 4, out, e);
    if (st == ST_OK) st = g->ops->put(g, *out, bits, n * gpu_elt_bytes(type), e);
    free(bits);
    return st;
}

/* Error over the sum of the absolute products. Inputs are exact; sums are f32, which tensor cores
 * cut instead of rounding. Those of 8-bit products are kept to about 13 bits on sm_90. */
static double worst(const struct gpu_mm *a, const double *x, const double *w, const float *y)
{
    double most = 0, factor = a->type == GPU_E4M3 ? 0.25 * 3 : 1;
    for (int i = 0; i < a->m; i++)
        for (int j = 0; j < a->n; j++) {
            double sum = 0, all = 0;
            for (int k = 0; k < a->k; k++) {
                double p = factor * x[(size_t)i * (size_t)a->k + (size_t)k] *
                           w[(size_t)j * (size_t)a->k + (size_t)k];
                sum += p, all += fabs(p);
            }
            double off = fabs(y[(size_t)i * (size_t)a->n + (size_t)j] - sum) / all;
            if (!(off <= most)) most = off;
        }
    return most;
}

static int product(struct gpu *g, struct gpu_mm *a, bool plan, double *off, struct err *e)
{
    size_t nx = (size_t)a->m * (size_t)a->k, nw = (size_t)a->n * (size_t)a->k;
    size_t ny = (size_t)a->m * (size_t)a->n;
    double *x = mem_alloc(nx * sizeof *x), *w = mem_alloc(nw * sizeof *w);
    float *y = mem_alloc(ny * sizeof *y);
    const float scale[8] = { 0.25F, 0, 0, 0, 3 };
    void *dx = NULL, *dw = NULL, *dy = NULL, *ds = NULL;
    int st = matrix(g, a->type, nx, x, &dx, e);
    if (st == ST_OK) st = matrix(g, a->type, nw, w, &dw, e);
    if (st == ST_OK) st = g->ops->alloc(g, ny * sizeof *y, &dy, e);
    if (st == ST_OK) st = g->ops->alloc(g, sizeof scale, &ds, e);
    if (st == ST_OK) st = g->ops->put(g, ds, scale, sizeof scale, e);
    a->x = dx, a->w = dw, a->y = dy;
    if (a->type == GPU_E4M3) a->x_scale = ds, a->w_scale = (const float *)ds + 4;
    if (st == ST_OK && plan) st = g->ops->plan(g, a, e);
    if (st == ST_OK) st = g->ops->mm(g, a, e);
    if (st == ST_OK) st = g->ops->get(g, y, dy, ny * sizeof *y, e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    if (st == ST_OK) *off = worst(a, x, w, y);
    free(x), free(w), free(y);
    return st;
}

static void check_products(struct gpu *g)
{
    static const double bound[GPU_N_ELT] = { 2e-6, 2e-5, 2e-5, 1e-3 };
    struct err e = { 0 };
    double off = NAN;
    for (int i = 0; i < 32; i++) {
        enum gpu_elt type = (enum gpu_elt)(i % GPU_N_ELT);
        if ((type == GPU_E4M3 && g->info.sm < 89) || (type == GPU_BF16 && g->info.sm < 80))
            continue;
        int unit_of = type == GPU_F32 ? 1 : 16;
        struct gpu_mm a = { .type = type,
                            .m = 1 + (int)(unit() * (i % 3 ? 16 : 200)),
                            .n = unit_of * (1 + (int)(unit() * 20)),
                            .k = unit_of * (1 + (int)(unit() * 40)) };
        CHECK_OK(product(g, &a, i % 8 >= 4, &off, &e), &e);
        CHECK(off <= bound[type]);
    }
}

TEST(cuda_products_against_f64)
{
    struct err e = { 0 };
    struct gpu *g = open_or_skip(&e);
    check_products(g);
    g->ops->close(g);
}

static int add(struct gpu *g, void *y, const void *x, int64_t n, struct err *e)
{
    struct gpu_add a = { .y = y, .x = x, .n = n };
    struct gpu_dim d;
    gpu_kern_dim(GPU_K_add, &a, &g->info, &d);
    return g->ops->launch(g, GPU_K_add, &d, &a, e);
}

static int replay(struct gpu *g, float *sum, struct err *e)
{
    enum { N = 1000 };
    struct gpu_graph *graph = NULL;
    void *x, *y, *pin;
    int st = g->ops->alloc(g, N * sizeof(float), &x, e);
    if (st == ST_OK) st = g->ops->alloc(g, N * sizeof(float), &y, e);
    if (st == ST_OK) st = g->ops->alloc_pinned(g, N * sizeof(float), &pin, e);
    if (st == ST_OK) st = g->ops->record(g, e);
    if (st == ST_OK) st = g->ops->put(g, x, pin, N * sizeof(float), e);
    for (int i = 0; i < 2 && st == ST_OK; i++) st = add(g, y, x, N, e);
    if (st == ST_OK) st = g->ops->recorded(g, &graph, e);
    for (int i = 0; i < 3 && st == ST_OK; i++) {
        for (int j = 0; j < N; j++) ((float *)pin)[j] = (float)(i + j);
        st = g->ops->graph_launch(g, graph, e);
        if (st == ST_OK) st = g->ops->wait(g, e);
    }
    if (st == ST_OK) st = g->ops->get(g, pin, y, N * sizeof(float), e);
    if (st == ST_OK) st = g->ops->wait(g, e);
    if (st == ST_OK) *sum = ((float *)pin)[N - 1];
    return st;
}

TEST(cuda_replays_recordings)
{
    struct err e = { 0 };
    struct gpu *g = open_or_skip(&e);
    float sum = 0;
    CHECK_OK(replay(g, &sum, &e), &e);
    CHECK_NEAR(sum, 2 * (999 + 1000 + 1001), 0);
    g->ops->close(g);
}

TEST(cuda_tells_when_memory_is_out_and_goes_on)
{
    struct err e = { 0 };
    struct gpu *g = open_or_skip(&e);
    void *p;
    CHECK_INT(g->ops->alloc(g, 2 * (size_t)g->info.memory_bytes, &p, &e), ST_DEVICE);
    CHECK_HAS(e.text, "out of memory on GPU 0");
    err_clear(&e);
    CHECK_OK(g->ops->alloc(g, 1 << 20, &p, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    g->ops->close(g);
}

TEST(cuda_tells_of_a_wild_address)
{
    struct err e = { 0 };
    struct gpu *g = open_or_skip(&e);
    void *p;
    CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
    CHECK_OK(add(g, (void *)(uintptr_t)4096, p, 16, &e), &e);
    CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
    CHECK_HAS(e.text, "the last kernel issued was add");
    err_clear(&e);
    CHECK_INT(g->ops->alloc(g, 64, &p, &e), ST_DEVICE);
    g->ops->close(g);
}

TEST(cuda_does_not_wait_for_ever)
{
    enum { BYTES = 1 << 28 };
    struct err e = { 0 };
    setenv("ORRERY_GPU_TIMEOUT_S", "30", 1);
    struct gpu *g = open_or_skip(&e);
    void *x;
    g->ops->close(g);
    setenv("ORRERY_GPU_TIMEOUT_S", "0.001", 1); /* many times less than what is issued takes */
    g = gpu_cuda_open(0, &e);
    if (!g) { /* opening takes longer on this machine */
        CHECK_HAS(e.text, "has not finished");
        return;
    }
    CHECK_OK(g->ops->alloc(g, BYTES, &x, &e), &e);
    for (int i = 0; i < 400; i++) CHECK_OK(add(g, x, x, BYTES / 4, &e), &e);
    CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
    CHECK_HAS(e.text, "has not finished after 0.001 s");
    g->ops->close(g);
}

static void *rank(void *at)
{
    struct err *e = at;
    struct gpu *g = gpu_cuda_open(0, e);
    float sum = 0;
    for (int i = 0; i < 20 && g && e->status == ST_OK; i++) {
        if (replay(g, &sum, e) == ST_OK && !(sum >= 6000 && sum <= 6000))
            err_set(e, ST_DEVICE, "sum %g, not 6000", (double)sum);
    }
    if (g) g->ops->close(g);
    return NULL;
}

TEST(cuda_two_ranks_share_a_gpu)
{
    struct err e[2] = { { 0 }, { 0 } };
    pthread_t t[2];
    if (gpu_cuda_count(&e[0]) == 0) SKIP(e[0].text);
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, rank, &e[i]);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++) CHECK_TEXT(e[i].text, "");
}
