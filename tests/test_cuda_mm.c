/* tests/test_cuda_mm.c - products: what is asked of cuBLASLt, which algorithm is kept, what fails.
 *
 * The library is a fake (fake_cublaslt.h), the device a clock. Builds with CUDA only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/rng.h"
#include "engine/elt.h"
#include "tests/fake_cublaslt.h"
#include "tests/test.h"

/* ---- a device that only keeps time */

struct gpu_graph {
    double ns;
};
struct gpu_event {
    double ns;
};
static struct {
    void *mem[8];
    int n_mem, graphs, fills, gemvs, fail_wait;
    double gemv_ns;
} dev;

static int dev_alloc(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    (void)g, (void)e;
    *out = dev.mem[dev.n_mem++] = mem_zalloc(1, bytes);
    return ST_OK;
}
static int dev_launch(struct gpu *g, enum gpu_kern k, const struct gpu_dim *d, const void *args,
                      struct err *e)
{
    (void)g, (void)d, (void)args, (void)e;
    CHECK(k == GPU_K_fill || k == GPU_K_gemv);
    dev.fills += k == GPU_K_fill;
    if (k == GPU_K_gemv && fake_lt.recording) fake_lt.recorded_ns += dev.gemv_ns;
    dev.gemvs += k == GPU_K_gemv && !fake_lt.recording;
    return ST_OK;
}
static int dev_wait(struct gpu *g, struct err *e)
{
    (void)g;
    if (dev.fail_wait && --dev.fail_wait == 0) return err_set(e, ST_DEVICE, "the device is gone");
    return ST_OK;
}
static int dev_record(struct gpu *g, struct err *e)
{
    (void)g, (void)e;
    fake_lt.recording = true;
    fake_lt.recorded_ns = 0;
    return ST_OK;
}
static int dev_recorded(struct gpu *g, struct gpu_graph **out, struct err *e)
{
    (void)g, (void)e;
    fake_lt.recording = false;
    *out = mem_alloc(sizeof **out);
    (*out)->ns = fake_lt.recorded_ns;
    dev.graphs++;
    return ST_OK;
}
static int dev_graph_launch(struct gpu *g, struct gpu_graph *graph, struct err *e)
{
    (void)g, (void)e;
    fake_lt.now_ns += graph->ns;
    return ST_OK;
}
static void dev_graph_free(struct gpu *g, struct gpu_graph *graph)
{
    (void)g;
    dev.graphs--;
    free(graph);
}
static int dev_event_new(struct gpu *g, struct gpu_event **out, struct err *e)
{
    (void)g, (void)e;
    *out = dev.mem[dev.n_mem++] = mem_zalloc(1, sizeof **out);
    return ST_OK;
}
static int dev_event_set(struct gpu *g, struct gpu_event *ev, struct err *e)
{
    (void)g, (void)e;
    ev->ns = fake_lt.now_ns;
    return ST_OK;
}
static int dev_event_ns(struct gpu *g, const struct gpu_event *from, const struct gpu_event *to,
                        double *ns, struct err *e)
{
    (void)g, (void)e;
    *ns = to->ns - from->ns;
    return ST_OK;
}
static void *dev_queue(struct gpu *g)
{
    return g;
}

static const struct gpu_ops dev_ops = { .name = "clock",
                                        .alloc = dev_alloc,
                                        .launch = dev_launch,
                                        .wait = dev_wait,
                                        .record = dev_record,
                                        .recorded = dev_recorded,
                                        .graph_launch = dev_graph_launch,
                                        .graph_free = dev_graph_free,
                                        .event_new = dev_event_new,
                                        .event_set = dev_event_set,
                                        .event_ns = dev_event_ns,
                                        .queue = dev_queue };

static struct gpu gpu_of_sm(int sm)
{
    struct gpu g = { .ops = &dev_ops, .info = { .name = "clock", .sm = sm, .n_sm = 8 } };
    dev.n_mem = dev.graphs = dev.fills = dev.gemvs = dev.fail_wait = 0;
    fake_lt_reset();
    return g;
}

static void done(struct backend_cuda_mm *m)
{
    backend_cuda_mm_close(m, false);
    CHECK_INT(fake_lt.live, 0);
    CHECK_INT(dev.graphs, 0);
    while (dev.n_mem) free(dev.mem[--dev.n_mem]);
}

/* ---- products */

static double unit(void)
{
    static uint64_t i;
    return rng_unit(rng_stream(1, "test.cuda_mm"), i++);
}

/* Fills p, aligned as malloc has it, and returns what the values are. */
static double *random_matrix(enum gpu_elt type, size_t n, void **out)
{
    double *v = mem_alloc(n * sizeof *v);
    *out = mem_alloc(n * 4);
    for (size_t i = 0; i < n; i++) {
        float f = (float)(unit() * 2 - 1);
        if (type == GPU_E4M3) { /* 1.b2 b1 b0 * 2^e, e in -6..0, and its sign */
            int exponent = (int)(unit() * 7), fraction = (int)(unit() * 8);
            ((uint8_t *)*out)[i] = (uint8_t)((f < 0 ? 128 : 0) | (exponent + 1) << 3 | fraction);
            v[i] = copysign((1 + fraction / 8.0) * pow(2, exponent - 6), (double)f);
            continue;
        }
        enum elt t = type == GPU_F32 ? ELT_F32 : type == GPU_F16 ? ELT_F16 : ELT_BF16;
        elt_put(t, *out, i, f);
        v[i] = elt_get(t, *out, i);
    }
    return v;
}

static void check_product(struct backend_cuda_mm *m, enum gpu_elt type)
{
    struct err e = { 0 };
    int whole = type == GPU_E4M3 ? 16 : 1;
    struct gpu_mm a = { .type = type, .m = 1 + (int)(unit() * 9) };
    a.n = whole * (1 + (int)(unit() * 5)), a.k = whole * (1 + (int)(unit() * 7));
    void *x, *w;
    double *vx = random_matrix(type, (size_t)a.m * (size_t)a.k, &x);
    double *vw = random_matrix(type, (size_t)a.n * (size_t)a.k, &w);
    float *y = mem_zalloc((size_t)a.m * (size_t)a.n, sizeof *y), scale[2] = { 0.5F, 3.0F };
    a.x = x, a.w = w, a.y = y;
    double factor = 1;
    if (type == GPU_E4M3) a.x_scale = &scale[0], a.w_scale = &scale[1], factor = 1.5;
    CHECK_INT(backend_cuda_mm_run(m, &a, &e), ST_OK);
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < a.m; i++)
        for (int j = 0; j < a.n; j++) {
            double sum = 0;
            for (int k = 0; k < a.k; k++) sum += vx[i * a.k + k] * vw[j * a.k + k];
            CHECK(fabs(y[i * a.n + j] - factor * sum) <= 1e-6 * (1 + fabs(factor * sum)));
        }
    free(x), free(w), free(vx), free(vw), free(y);
}

TEST(cuda_mm_multiplies_rows_by_rows)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(90);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    for (int i = 0; i < 40; i++) check_product(m, (enum gpu_elt)(i % GPU_N_ELT));
    done(m);
}

static float zone[3 * 64 * 64];

static struct gpu_mm square(int32_t m)
{
    return (struct gpu_mm){ .type = GPU_F32,
                            .m = m,
                            .n = 32,
                            .k = 64,
                            .x = zone,
                            .w = zone + 64 * 64,
                            .y = zone + 2 * 64 * 64 };
}

TEST(cuda_mm_plans_keep_the_fastest)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = square(4);
    fake_lt.cost_ns[0] = 900, fake_lt.cost_ns[1] = 700, fake_lt.cost_ns[3] = 800;
    CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    CHECK_INT(fake_lt.issued[0], 1); /* the first guess */
    CHECK_INT(fake_lt.asked, 1);
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(dev.fills, 1);
    CHECK(fake_lt.n_recorded >= 3 * 4);
    CHECK(fake_lt.first_w != fake_lt.last_w); /* rotated */
    CHECK(fake_lt.first_w != a.w);
    int issued = fake_lt.issued[1], asked = fake_lt.asked;
    for (int i = 0; i < 3; i++) CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    CHECK_INT(fake_lt.issued[1], issued + 3);
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(fake_lt.asked, asked); /* once for a shape */
    CHECK_INT(dev.fills, 1);
    done(m);
}

/* The kernel for few rows is one candidate of 16-bit products, where timing is asked for. */
TEST(cuda_mm_takes_the_own_kernel_where_it_is_faster)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    static _Alignas(16) uint16_t x[8 * 64], w[32 * 64];
    static _Alignas(16) float y[8 * 32];
    for (int rows = 1; rows <= 8; rows++)
        for (int faster = 0; faster < 2; faster++) {
            struct gpu_mm a = { .type = rows % 2 ? GPU_BF16 : GPU_F16,
                                .m = rows,
                                .n = faster ? 32 : 16,
                                .k = 64,
                                .x = x,
                                .w = w,
                                .y = y };
            dev.gemv_ns = faster ? 999 : 1001;
            int before = dev.gemvs;
            CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
            CHECK_INT(dev.gemvs, before);
            CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
            before = dev.gemvs;
            CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
            CHECK_INT(dev.gemvs - before, faster && rows <= GPU_GEMV_MAX);
        }
    struct gpu_mm odd = { .type = GPU_BF16, .m = 1, .n = 8, .k = 60, .x = x, .w = w, .y = y };
    int before = dev.gemvs;
    CHECK_OK(backend_cuda_mm_plan(m, &odd, &e), &e); /* rows do not begin at 16 bytes */
    CHECK_OK(backend_cuda_mm_run(m, &odd, &e), &e);
    CHECK_INT(dev.gemvs, before);
    done(m);
}

TEST(cuda_mm_plans_pass_over_what_is_refused)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = square(4);
    fake_lt.cost_ns[0] = 100, fake_lt.cost_ns[2] = 500;
    fake_lt.refuses[0] = true;
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    int issued = fake_lt.issued[2];
    CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    CHECK_INT(fake_lt.issued[2], issued + 1);
    for (int i = 0; i < 4; i++) fake_lt.refuses[i] = true;
    a = square(5);
    CHECK_INT(backend_cuda_mm_plan(m, &a, &e), ST_DEVICE);
    CHECK_HAS(e.text, "engine/backend_cuda_mm.c:");
    CHECK_HAS(e.text, "cublasLtMatmul: CUBLAS_STATUS_NOT_SUPPORTED on clock");
    done(m);
}

static int issued_with(struct backend_cuda_mm *m, int32_t rows, int algo)
{
    struct gpu_mm a = square(rows);
    struct err e = { 0 };
    int before = fake_lt.issued[algo];
    CHECK_INT(backend_cuda_mm_run(m, &a, &e), ST_OK);
    return fake_lt.issued[algo] - before;
}

/* Chunks of prompts have any number of rows; some numbers are timed. */
TEST(cuda_mm_takes_the_algorithm_of_the_next_timed_number_of_rows)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    const int best[] = { 1, 2, 3 };
    for (int i = 0; i < 3; i++) { /* 8, 16, 32 rows */
        struct gpu_mm a = square(8 << i);
        fake_lt.cost_ns[best[i]] = 100 - i;
        CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    }
    int asked = fake_lt.asked, recorded = fake_lt.n_recorded;
    CHECK_INT(issued_with(m, 3, 1), 1);
    CHECK_INT(issued_with(m, 9, 2), 1);
    CHECK_INT(issued_with(m, 31, 3), 1);
    CHECK_INT(fake_lt.asked, asked); /* the library is only asked whether it takes them */
    CHECK_INT(fake_lt.checked, 3);
    CHECK_INT(fake_lt.n_recorded, recorded);
    CHECK_INT(issued_with(m, 33, 0), 1); /* none was timed with so many: its first guess */
    fake_lt.unfit[2] = true;
    CHECK_INT(issued_with(m, 10, 0), 1);
    fake_lt.unfit[2] = false;
    fake_lt.refuses[2] = true; /* though the check has taken it */
    for (int i = 0; i < 2; i++) CHECK_INT(issued_with(m, 12, 0), 1);
    fake_lt.refuses[2] = false;
    CHECK_INT(issued_with(m, 12, 0), 1);
    fake_lt.work_bytes[2] = (size_t)1 << 30;
    CHECK_INT(issued_with(m, 11, 0), 1);
    CHECK_INT(issued_with(m, 9, 2), 1); /* as it was */
    struct gpu_mm a = square(10);       /* timed after all */
    fake_lt.cost_ns[3] = 1;
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(issued_with(m, 10, 3), 1);
    done(m);
}

/* Few enough rows for the own kernel take it where it was the fastest with more. */
TEST(cuda_mm_takes_the_own_kernel_of_the_next_timed_number_of_rows)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    static _Alignas(16) uint16_t x[8 * 64], w[32 * 64];
    static _Alignas(16) float y[8 * 32];
    struct gpu_mm a = {
        .type = GPU_BF16, .m = GPU_GEMV_MAX, .n = 32, .k = 64, .x = x, .w = w, .y = y
    };
    dev.gemv_ns = 1;
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    int before = dev.gemvs;
    a.m = 1;
    CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    CHECK_INT(dev.gemvs, before + (GPU_GEMV_MAX > 1));
    done(m);
}

TEST(cuda_mm_times_large_operands_of_the_caller_once_a_round)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = square(64);
    a.n = 16;
    a.k = 1 << 19; /* the pool has 8 MiB, the weights 32 */
    float *x = mem_zalloc((size_t)a.k, sizeof *x), *w = mem_zalloc(16 * (size_t)a.k, sizeof *w);
    a.x = x, a.w = w;
    a.m = 1;
    fake_lt.cost_ns[1] = 1, fake_lt.cost_ns[2] = 2000;
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    /* a recording of one product for each of 4 */
    CHECK_INT(fake_lt.n_recorded, 4);
    CHECK(fake_lt.first_w == a.w && fake_lt.last_w == a.w);
    free(x), free(w);
    done(m);
}

TEST(cuda_mm_does_not_time_what_it_has_no_room_for)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = { .type = GPU_BF16, .m = 4096, .n = 4096, .k = 4096 };
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(fake_lt.n_recorded, 0);
    CHECK_INT(fake_lt.asked, 1);
    fake_lt.n_algo = 1; /* no choice, nothing to time */
    a = square(4);
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(fake_lt.n_recorded, 0);
    a.m = 0;
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    done(m);
}

TEST(cuda_mm_says_how_addresses_are_aligned)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = square(4);
    uintptr_t at = ((uintptr_t)zone + 15) / 16 * 16;
    for (unsigned off = 4; off <= 16; off *= 2) {
        a.x = (const void *)(at + off);
        a.w = (const void *)(at + 32 * 64 * 4);
        a.y = (void *)(at + 2 * 32 * 64 * 4);
        CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
        CHECK_INT(fake_lt.align, off);
    }
    CHECK_INT(fake_lt.asked, 3);
    a.x = (const void *)(at + 4); /* the last one asked for was another */
    CHECK_OK(backend_cuda_mm_plan(m, &a, &e), &e);
    CHECK_INT(fake_lt.align, 4);
    done(m);
}

TEST(cuda_mm_refuses_what_cannot_be)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm a = square(4);
    a.type = GPU_E4M3;
    CHECK_INT(backend_cuda_mm_run(m, &a, &e), ST_DEVICE);
    CHECK_TEXT(e.text, "a product of e4m3 x[4][64] . w[32][64]^T is not possible on clock (compute "
                       "capability 8.0): 8-bit floating point needs compute capability 8.9");
    err_clear(&e);
    g.info.sm = 89;
    a.n = 24;
    CHECK_INT(backend_cuda_mm_plan(m, &a, &e), ST_DEVICE);
    CHECK_HAS(e.text, "multiples of 16");
    err_clear(&e);
    fake_lt.n_algo = 0;
    a.n = 32;
    CHECK_INT(backend_cuda_mm_plan(m, &a, &e), ST_DEVICE);
    CHECK_HAS(e.text, "cuBLASLt knows no algorithm");
    done(m);
}

TEST(cuda_mm_forgets_guesses_and_keeps_plans)
{
    struct err e = { 0 };
    struct gpu g = gpu_of_sm(80);
    struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
    struct gpu_mm planned = square(7), a = square(1);
    fake_lt.cost_ns[2] = 1;
    CHECK_OK(backend_cuda_mm_plan(m, &planned, &e), &e);
    a.n = a.k = 1;
    for (a.m = 8; a.m < 4096 && e.status == ST_OK; a.m++)
        for (a.k = 1; a.k <= 3; a.k++) CHECK_OK(backend_cuda_mm_run(m, &a, &e), &e);
    CHECK(fake_lt.live < 4 * 5000);
    int issued = fake_lt.issued[2], asked = fake_lt.asked;
    CHECK_OK(backend_cuda_mm_run(m, &planned, &e), &e);
    CHECK_INT(fake_lt.issued[2], issued + 1);
    CHECK_INT(fake_lt.asked, asked);
    done(m);
}

/* Each call of the library in turn, and each wait, fails: a sentence, and nothing is left. */
TEST(cuda_mm_survives_any_failure)
{
    bool failed = true;
    for (int at = 1; failed && at < 4000; at += at < 120 ? 1 : 97) {
        struct err e = { 0 };
        struct gpu g = gpu_of_sm(89);
        struct gpu_mm a = square(4);
        a.type = at % 2 ? GPU_E4M3 : GPU_F32;
        fake_lt.fail_at = at / 2 + 1;
        struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
        if (m && backend_cuda_mm_plan(m, &a, &e) == ST_OK) backend_cuda_mm_run(m, &a, &e);
        failed = e.status != ST_OK || fake_lt.calls >= fake_lt.fail_at;
        CHECK_INT(e.status != ST_OK, e.text[0] != 0);
        done(m);
    }
    CHECK(!failed);
    for (int at = 1; at <= 4; at++) {
        struct err e = { 0 };
        struct gpu g = gpu_of_sm(80);
        struct gpu_mm a = square(4);
        struct backend_cuda_mm *m = backend_cuda_mm_open(&g, fake_lt_table(), &e);
        dev.fail_wait = at;
        CHECK_INT(backend_cuda_mm_plan(m, &a, &e), ST_DEVICE);
        CHECK_TEXT(e.text, "the device is gone");
        done(m);
    }
}
