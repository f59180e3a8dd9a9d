/* tests/test_gpu_fibre.c - the host GPU itself: thread blocks, queue, memory, recordings, faults.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/gpu_block.h"
#include "engine/gpu_block_mma.h"
#include "tests/gpu_fibre.h"
#include "tests/gpu_host.h"
#include "tests/test.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

enum { N_ORDER = 6 }; /* of threads: forward, backward, four shuffles */

static int run_block(void (*fn)(const void *, char *), const void *args, int threads,
                     uint64_t order, struct err *e)
{
    char *shared = aligned_alloc(16, 16384);
    struct gpu_fibre *f = gpu_fibre_new(e);
    if (!f || !shared) abort();
    memset(shared, 0xff, 16384);
    int st = gpu_fibre_run(f,
                           &(struct gpu_fibre_block){ .name = "trial",
                                                      .fn = fn,
                                                      .args = args,
                                                      .shared = shared,
                                                      .threads = threads,
                                                      .n_x = 1,
                                                      .order = order },
                           e);
    gpu_fibre_free(f);
    free(shared);
    return st;
}

/* ---- meetings ------------------------------------------------------------------------------- */
struct turn {
    float *out;
    int32_t rounds, meet;
};

/* Each round every thread takes its left neighbour's value. */
GPU_KERNEL(turn, struct turn)
{
    float *v = (float *)(void *)shared, mine = (float)gpu_tid();
    for (int i = 0; i < a.rounds; i++) {
        v[gpu_tid()] = mine;
        gpu_sync();
        mine = v[(gpu_tid() + gpu_threads() - 1) % gpu_threads()];
        if (a.meet) gpu_sync(); /* without: some overwrite what others have yet to read */
    }
    a.out[gpu_tid()] = mine;
}

TEST(gpu_fibre_blocks_meet_in_any_order_of_threads)
{
    struct err e = { 0 };
    float out[1024];
    static const int size[] = { 32, 96, 256, 1024 };
    for (int s = 0; s < 4; s++)
        for (uint64_t order = 0; order < N_ORDER; order++) {
            struct turn t = { out, 5, 1 };
            CHECK_OK(run_block(gpu_host_k_turn, &t, size[s], order, &e), &e);
            for (int i = 0; i < size[s]; i++) CHECK_INT(out[i], (i + size[s] - 5) % size[s]);
        }
}

TEST(gpu_fibre_shows_a_missing_barrier)
{
    struct err e = { 0 };
    float out[64];
    int n_wrong = 0;
    for (uint64_t order = 0; order < N_ORDER; order++) {
        struct turn t = { out, 5, 0 };
        bool right = true;
        CHECK_OK(run_block(gpu_host_k_turn, &t, 64, order, &e), &e);
        for (int i = 0; i < 64; i++) right = right && out[i] == (float)((i + 59) % 64);
        n_wrong += !right;
    }
    CHECK(n_wrong >= 3);
}

struct lanes {
    float *out; /* [threads][4] */
};

GPU_KERNEL(lanes, struct lanes)
{
    float *out = a.out + 4 * gpu_tid(), v = (float)gpu_tid();
    out[0] = gpu_shfl(v, 5);
    out[1] = gpu_shfl_xor(v, 16);
    out[2] = (float)gpu_shfl_i(gpu_tid(), gpu_lane() + 1);
    gpu_sync_warp();
    for (int m = 1; m < 32; m *= 2) v += (float)gpu_shfl_xor_i((int32_t)v, m);
    out[3] = v;
}

TEST(gpu_fibre_lanes_trade_values)
{
    struct err e = { 0 };
    float out[96 * 4];
    for (uint64_t order = 0; order < N_ORDER; order++) {
        struct lanes l = { out };
        CHECK_OK(run_block(gpu_host_k_lanes, &l, 96, order, &e), &e);
        for (int t = 0; t < 96; t++) {
            int base = t / 32 * 32;
            CHECK_INT(out[4 * t], base + 5);
            CHECK_INT(out[4 * t + 1], t ^ 16);
            CHECK_INT(out[4 * t + 2], base + (t + 1) % 32);
            CHECK_INT(out[4 * t + 3], 32 * base + 31 * 16);
        }
    }
}

struct product {
    const float *x, *w; /* [16][16], [16][8] */
    float *y;           /* [16][8] */
    int32_t type, plain;
};

/* Where element (row, column) of A, B and D lies is looked up in the other direction than by the
 * tables of the PTX ISA: lane and register of each element. */
GPU_KERNEL(product, struct product)
{
    enum gpu_elt type = (enum gpu_elt)a.type;
    uint32_t fa[4] = { 0 }, fb[2] = { 0 };
    float d[4] = { 0, 0, 0, 0 };
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++) {
            uint32_t word =
                gpu_pack2(type, k % 2 ? 0 : a.x[row * 16 + k], k % 2 ? a.x[row * 16 + k] : 0);
            if (gpu_lane() == row % 8 * 4 + k % 8 / 2) fa[row / 8 + k / 8 * 2] |= word;
        }
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < 8; n++) {
            uint32_t word = gpu_pack2(type, k % 2 ? 0 : a.w[k * 8 + n], k % 2 ? a.w[k * 8 + n] : 0);
            if (gpu_lane() == n * 4 + k % 8 / 2) fb[k / 8] |= word;
        }
    if (a.plain)
        gpu_mma_bf16_plain(d, fa, fb);
    else
        gpu_mma(type, d, fa, fb);
    gpu_mma(type, d, fa, fb);
    for (int row = 0; row < 16; row++)
        for (int n = 0; n < 8; n++)
            if (gpu_lane() == row % 8 * 4 + n / 2) a.y[row * 8 + n] = d[row / 8 * 2 + n % 2];
}

TEST(gpu_fibre_multiplies_fragments)
{
    struct err e = { 0 };
    float x[256], w[128], y[128];
    for (int i = 0; i < 256; i++) x[i] = (float)(i * 7 % 31 - 15) / 8; /* exact in both types */
    for (int i = 0; i < 128; i++) w[i] = (float)(i * 5 % 29 - 14) / 4;
    for (int way = 0; way < 3; way++) {
        struct product p = { x, w, y, way == 1 ? GPU_F16 : GPU_BF16, way == 2 };
        CHECK_OK(run_block(gpu_host_k_product, &p, 32, (uint64_t)way, &e), &e);
        for (int row = 0; row < 16; row++)
            for (int n = 0; n < 8; n++) {
                double sum = 0;
                for (int k = 0; k < 16; k++) sum += (double)x[row * 16 + k] * (double)w[k * 8 + n];
                CHECK_NEAR(y[row * 8 + n], 2 * sum, 1e-7);
            }
    }
}

struct stage {
    const float *x; /* [2][threads][4] */
    float *out;     /* [4] */
};

GPU_KERNEL(stage, struct stage)
{
    float *v = (float *)(void *)shared + 4 * gpu_tid(), *later = v + 4 * gpu_threads();
    gpu_stage16(v, a.x + 4 * gpu_tid());
    gpu_stage_close();
    gpu_stage16(later, a.x + 4 * (gpu_tid() + gpu_threads()));
    gpu_stage_close();
    if (gpu_tid() == 3) a.out[0] = v[0];
    gpu_stage_wait(1);
    if (gpu_tid() == 3) a.out[1] = v[0];
    if (gpu_tid() == 3) a.out[2] = later[0];
    gpu_stage_wait(0);
    gpu_sync();
    if (gpu_tid() == 3) a.out[3] = later[0];
}

TEST(gpu_fibre_staged_copies_arrive_when_waited_for)
{
    struct err e = { 0 };
    float *x = aligned_alloc(16, sizeof *x * 2 * 32 * 4), out[4];
    for (int i = 0; i < 256; i++) x[i] = (float)i;
    struct stage s = { x, out };
    CHECK_OK(run_block(gpu_host_k_stage, &s, 32, 0, &e), &e);
    CHECK(isnan(out[0]) && isnan(out[2]));
    CHECK_INT(out[1], 12);
    CHECK_INT(out[3], 128 + 12);
    free(x);
}

/* ---- what a block can do wrong -------------------------------------------------------------- */
struct wrong {
    char *p;
    int32_t how;
};

GPU_KERNEL(wrong, struct wrong)
{
    int32_t t = gpu_tid();
    if (a.how == 0 && t == 40) return; /* does not come to the barrier */
    if (a.how == 1 && t % 32 < 16) (void)gpu_shfl(1, 0);
    if (a.how == 2) (void)(t % 2 ? gpu_shfl(1, 0) : (gpu_sync_warp(), 0.0f));
    if (a.how == 3 && t == 7) (void)gpu_load16(a.p + 4);
    if (a.how == 4 && t >= 32) (void)gpu_shfl(1, 0);
    if (a.how == 4 && t < 32) return;
    gpu_sync();
    if (a.how == 5 && t > 3) gpu_sync();
}

TEST(gpu_fibre_names_who_does_not_meet)
{
    static const char *const says[] = { "thread 40 has ended",
                                        "is in a gpu_shfl",
                                        "is in gpu_sync_warp",
                                        "thread 7: a wide access",
                                        "",
                                        "thread 4 is in gpu_sync" };
    char *p = aligned_alloc(16, 32);
    for (int how = 0; how < 6; how++)
        for (uint64_t order = 0; order < N_ORDER; order++) {
            struct err e = { 0 };
            struct wrong w = { p, how };
            int st = run_block(gpu_host_k_wrong, &w, 64, order, &e);
            if (how == 4) { /* a warp of its own may end early, if no one waits for it later */
                CHECK_INT(st, ST_DEVICE);
                CHECK_HAS(e.text, "never meet");
                continue;
            }
            CHECK_INT(st, ST_DEVICE);
            CHECK_HAS(e.text, "kernel trial, block (0, 0, 0)");
            CHECK_HAS(e.text, says[how]);
        }
    free(p);
}

/* ---- the device ----------------------------------------------------------------------------- */
static struct gpu *host(const struct gpu_host_opts *o)
{
    struct err e = { 0 };
    struct gpu *g = gpu_host_open(o, &e);
    if (!CHECK(g != NULL)) abort();
    return g;
}

static int issue(struct gpu *g, enum gpu_kern k, const void *args, struct err *e)
{
    struct gpu_dim d;
    gpu_kern_dim(k, args, &g->info, &d);
    return g->ops->launch(g, k, &d, args, e);
}

TEST(gpu_host_runs_what_was_issued_at_wait)
{
    struct err e = { 0 };
    struct gpu *g = host(NULL);
    float *x, *y, *pinned, in[100], out[100];
    CHECK_OK(g->ops->alloc(g, sizeof in, (void **)&x, &e), &e);
    CHECK_OK(g->ops->alloc(g, sizeof in, (void **)&y, &e), &e);
    CHECK_OK(g->ops->alloc_pinned(g, sizeof in, (void **)&pinned, &e), &e);
    for (int i = 0; i < 100; i++) in[i] = pinned[i] = (float)i, out[i] = -1;
    CHECK_OK(g->ops->put(g, x, in, sizeof in, &e), &e);
    CHECK_OK(g->ops->put(g, y, pinned, sizeof in, &e), &e);
    struct gpu_add a = { y, x, 100 };
    CHECK_OK(issue(g, GPU_K_add, &a, &e), &e);
    a.n = 0;                                     /* arguments were copied */
    memset(in, 0, sizeof in);                    /* so was unpinned memory */
    for (int i = 0; i < 100; i++) pinned[i] = 7; /* too early: still to be read */
    CHECK_OK(g->ops->get(g, out, y, sizeof out, &e), &e);
    CHECK_INT(out[5], -1);
    CHECK_OK(g->ops->wait(g, &e), &e);
    for (int i = 0; i < 100; i++) CHECK_INT(out[i], 7 + i);
    CHECK_INT(gpu_host_tally(g)->call[GPU_HOST_WAIT], 1);
    CHECK_INT(gpu_host_tally(g)->kern[GPU_K_add], 1);
    g->ops->close(g);
}

TEST(gpu_host_replays_recordings)
{
    struct err e = { 0 };
    struct gpu *g = host(NULL);
    struct gpu_graph *graph;
    struct gpu_event *from, *to;
    float *x, *y, *pinned;
    double ns;
    CHECK_OK(g->ops->alloc(g, 4, (void **)&x, &e), &e);
    CHECK_OK(g->ops->alloc(g, 4, (void **)&y, &e), &e);
    CHECK_OK(g->ops->alloc_pinned(g, 4, (void **)&pinned, &e), &e);
    struct gpu_add a = { y, x, 1 };
    CHECK_OK(g->ops->record(g, &e), &e);
    CHECK_OK(g->ops->put(g, x, pinned, 4, &e), &e);
    CHECK_OK(issue(g, GPU_K_add, &a, &e), &e);
    CHECK_OK(issue(g, GPU_K_add, &a, &e), &e);
    CHECK_OK(g->ops->get(g, pinned, y, 4, &e), &e);
    CHECK_OK(g->ops->recorded(g, &graph, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_INT(gpu_host_tally(g)->kern[GPU_K_add], 0);
    CHECK_OK(g->ops->event_new(g, &from, &e), &e);
    CHECK_OK(g->ops->event_new(g, &to, &e), &e);
    pinned[0] = 3;
    CHECK_OK(g->ops->event_set(g, from, &e), &e);
    CHECK_OK(g->ops->graph_launch(g, graph, &e), &e); /* y = 2 * 3 */
    CHECK_OK(g->ops->graph_launch(g, graph, &e), &e); /* x = 6, y = 6 + 2 * 6 */
    CHECK_OK(g->ops->event_set(g, to, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_INT(pinned[0], 18);
    CHECK_OK(g->ops->event_ns(g, from, to, &ns, &e), &e);
    CHECK_INT(ns, 8);
    g->ops->graph_free(g, graph);
    CHECK(g->ops->queue(g) == NULL);
    g->ops->close(g);
}

TEST(gpu_host_multiplies)
{
    struct err e = { 0 };
    struct gpu *g = host(&(struct gpu_host_opts){ .sm = 89 });
    enum { M = 3, N = 5, K = 7 };
    for (int type = 0; type < GPU_N_ELT; type++) {
        float x[M * K], w[N * K], y[M * N], scale[2] = { 0.5f, 4 };
        unsigned char packed[2][N * K * 4];
        void *d[4];
        size_t one = gpu_elt_bytes((enum gpu_elt)type);
        for (int i = 0; i < N * K; i++) w[i] = (float)(i % 9 - 4) / 4;
        for (int i = 0; i < M * K; i++) x[i] = (float)(i % 5 - 2) / 2;
        for (int i = 0; i < N * K; i++) gpu_put((enum gpu_elt)type, packed[1], i, w[i]);
        for (int i = 0; i < M * K; i++) gpu_put((enum gpu_elt)type, packed[0], i, x[i]);
        for (int i = 0; i < 4; i++) CHECK_OK(g->ops->alloc(g, 512, &d[i], &e), &e);
        CHECK_OK(g->ops->put(g, d[0], packed[0], M * K * one, &e), &e);
        CHECK_OK(g->ops->put(g, d[1], packed[1], N * K * one, &e), &e);
        CHECK_OK(g->ops->put(g, d[3], scale, sizeof scale, &e), &e);
        struct gpu_mm a = { d[0], d[1], d[2], (enum gpu_elt)type, M, N, K, NULL, NULL };
        if (type == GPU_E4M3) a.x_scale = d[3], a.w_scale = (float *)d[3] + 1;
        CHECK_OK(g->ops->mm(g, &a, &e), &e);
        CHECK_OK(g->ops->get(g, y, d[2], sizeof y, &e), &e);
        CHECK_OK(g->ops->wait(g, &e), &e);
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int k = 0; k < K; k++) sum += (double)x[m * K + k] * (double)w[n * K + k];
                CHECK_NEAR(y[m * N + n], type == GPU_E4M3 ? 2 * sum : sum, 1e-7);
            }
    }
    g->ops->close(g);
}

/* Each is refused, with words, and then so is everything. */
TEST(gpu_host_refuses_what_a_device_would)
{
    static const char *const says[] = { "put to what is not",
                                        "put to what is not",
                                        "get from what is not",
                                        "argument y of kernel add",
                                        "cannot be launched",
                                        "alloc while recording",
                                        "wait while recording",
                                        "unplanned product",
                                        "unpinned memory while recording",
                                        "out of memory",
                                        "no product of that type",
                                        "past the memory" };
    for (int how = 0; how < 12; how++) {
        struct err e = { 0 };
        struct gpu *g = host(&(struct gpu_host_opts){ .sm = 75, .memory_bytes = 1000 });
        const struct gpu_ops *o = g->ops;
        float *x, here[100] = { 0 };
        void *more;
        int st = ST_OK;
        CHECK_OK(o->alloc(g, 400, (void **)&x, &e), &e);
        struct gpu_add add = { here, x, 100 };
        struct gpu_dim dim = { 1, 1, 1, 33, 0 };
        struct gpu_mm mm = { x, x, x, GPU_F32, 2, 2, 2, NULL, NULL };
        if ((how >= 5 && how <= 8)) CHECK_OK(o->record(g, &e), &e);
        switch (how) {
        case 0: st = o->put(g, here, x, 4, &e); break;
        case 1: st = o->put(g, x + 1, here, 400, &e); break;
        case 2: st = o->get(g, here, x, 401, &e); break;
        case 3: st = issue(g, GPU_K_add, &add, &e); break;
        case 4: add.y = x, st = o->launch(g, GPU_K_add, &dim, &add, &e); break;
        case 5: st = o->alloc(g, 4, &more, &e); break;
        case 6: st = o->wait(g, &e); break;
        case 7: st = o->mm(g, &mm, &e); break;
        case 8: st = o->put(g, x, here, 4, &e); break;
        case 9: st = o->alloc(g, 700, &more, &e); break;
        case 10: mm.type = GPU_BF16, st = o->mm(g, &mm, &e); break;
        case 11: mm.k = 100, st = o->mm(g, &mm, &e); break;
        }
        CHECK_INT(st, ST_DEVICE);
        CHECK_HAS(e.text, says[how]);
        CHECK_INT(o->put(g, x, here, 4, NULL), ST_DEVICE);
        CHECK_INT(o->wait(g, NULL), ST_DEVICE);
        o->close(g);
    }
}

TEST(gpu_host_finds_writes_past_the_end)
{
#ifndef WITH_ASAN /* which ends the program at the write */
    struct err e = { 0 };
    struct gpu *g = host(NULL);
    float *x, *y;
    CHECK_OK(g->ops->alloc(g, 400, (void **)&x, &e), &e);
    CHECK_OK(g->ops->alloc(g, 404, (void **)&y, &e), &e);
    struct gpu_add a = { x, y, 101 };
    CHECK_OK(issue(g, GPU_K_add, &a, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_INT(gpu_host_check(g, &e), ST_DEVICE);
    CHECK_HAS(e.text, "past the end");
    g->ops->close(g);
#else
    SKIP("the sanitizer finds them first");
#endif
}

TEST(gpu_host_fails_where_it_is_told_to)
{
    for (int what = GPU_HOST_ALLOC; what < GPU_HOST_N_CALL; what++) {
        struct err e = { 0 };
        struct gpu *g = host(NULL);
        const struct gpu_ops *o = g->ops;
        float *x = NULL, *p = NULL;
        struct gpu_graph *graph = NULL;
        struct gpu_event *ev = NULL;
        double ns;
        gpu_host_fail(g, (enum gpu_host_call)what, 1);
        int st = o->alloc(g, 64, (void **)&x, &e);
        if (!st) st = o->alloc_pinned(g, 64, (void **)&p, &e);
        struct gpu_add a = { x, x, 1 };
        struct gpu_mm mm = { x, x, x, GPU_F32, 1, 1, 1, NULL, NULL };
        if (!st) st = o->put(g, x, p, 4, &e);
        if (!st) st = o->get(g, p, x, 4, &e);
        if (!st) st = issue(g, GPU_K_add, &a, &e);
        if (!st) st = o->plan(g, &mm, &e);
        if (!st) st = o->mm(g, &mm, &e);
        if (!st) st = o->record(g, &e);
        if (!st) st = o->recorded(g, &graph, &e);
        if (!st) st = o->graph_launch(g, graph, &e);
        if (!st) st = o->event_new(g, &ev, &e);
        if (!st) st = o->event_set(g, ev, &e);
        if (!st) st = o->event_wait(g, ev, &e);
        if (!st) st = o->wait(g, &e);
        if (!st) st = o->event_ns(g, ev, ev, &ns, &e);
        CHECK_INT(st, ST_DEVICE);
        CHECK_HAS(e.text, "as it was told to");
        o->close(g);
    }
}
