/* tests/test_cuda_rt.c - the device over the CUDA runtime: order, copies, recordings, every failure.
 *
 * The runtime and cuBLASLt are fakes, so the file under test is compiled here once more, against
 * them. Builds with CUDA only. SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake_cudart.h"

#include "engine/backend_cuda_rt.c"

#include "tests/fake_cublaslt.h"
#include "tests/test.h"

static struct gpu *fresh(struct err *e)
{
    fake_rt_reset();
    fake_lt_reset();
    return gpu_cuda_open(0, e);
}

static void done(struct gpu *g)
{
    if (g) g->ops->close(g);
    CHECK_INT(fake_rt.live, 0);
    CHECK_INT(fake_lt.live, 0);
    fake_rt_reset();
}

static int add(struct gpu *g, float *y, const float *x, int64_t n, struct err *e)
{
    struct gpu_add a = { .y = y, .x = x, .n = n };
    struct gpu_dim d = { 1, 1, 1, 128, 0 };
    return g->ops->launch(g, GPU_K_add, &d, &a, e);
}

TEST(cuda_rt_says_what_is_missing)
{
    static const struct {
        cudaError_t rc;
        int n, driver, major;
        cudaError_t kernel_rc;
        int index;
        const char *says;
    } is[] = {
        { cudaErrorInsufficientDriver, 0, 0, 9, cudaSuccess, 0,
          "no NVIDIA driver on this machine" },
        { cudaErrorInsufficientDriver, 0, 11040, 9, cudaSuccess, 0,
          "the NVIDIA driver is too old: it knows CUDA 11.4, this build uses CUDA 13.0; update the "
          "driver, or build with a toolkit of CUDA 11" },
        { cudaErrorNoDevice, 0, 13000, 9, cudaSuccess, 0,
          "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES is '7')" },
        { cudaSuccess, 0, 13000, 9, cudaSuccess, 0, "no NVIDIA GPU is visible" },
        { cudaErrorSystemDriverMismatch, 0, 12020, 9, cudaSuccess, 0, "CUDA cannot start: " },
        { cudaSuccess, 2, 13000, 9, cudaSuccess, 2,
          "there is no GPU 2: 2 are visible, numbered from 0" },
        { cudaSuccess, 1, 13000, 9, cudaSuccess, -1, "there is no GPU -1: 1 is visible" },
        { cudaSuccess, 1, 13000, 7, cudaSuccess, 0,
          "GPU 0 (Fake GPU) has compute capability 7.0: 7.5 (Turing) is the least" },
        { cudaSuccess, 1, 13000, 12, cudaErrorNoKernelImageForDevice, 0,
          "this build has no code for compute capability 12.0 of GPU 0 (Fake GPU): it was made "
          "for" }
    };
    setenv("CUDA_VISIBLE_DEVICES", "7", 1);
    for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
        struct err e = { 0 };
        fake_rt_reset();
        fake_rt.count_rc = is[i].rc, fake_rt.n_device = is[i].n, fake_rt.driver = is[i].driver;
        fake_rt.major = is[i].major, fake_rt.kernel_rc = is[i].kernel_rc;
        CHECK(!gpu_cuda_open(is[i].index, &e));
        CHECK_INT(e.status, ST_DEVICE);
        CHECK_HAS(e.text, is[i].says);
        done(NULL);
    }
}

TEST(cuda_rt_describes_the_device)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    CHECK_TEXT(e.text, "");
    CHECK_TEXT(g->info.name, "Fake GPU");
    CHECK_INT(g->info.sm, 90);
    CHECK_INT(g->info.n_sm, 132);
    CHECK_INT(g->info.max_shared_bytes, 232448);
    CHECK_INT(g->info.l2_bytes, 1 << 20);
    CHECK_INT(g->info.driver, 13000);
    CHECK_INT(g->info.memory_bytes, 1000000000);
    CHECK_INT(g->info.free_bytes, 1000000000 - (int64_t)fake_rt.used_bytes);
    done(g);
}

TEST(cuda_rt_runs_in_order_and_copies_what_it_was_given)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    void *x, *y, *pin;
    float *host = NULL, plain[4] = { 1, 2, 3, 4 }, back[4] = { 0 };
    CHECK_OK(g->ops->alloc(g, sizeof plain, &x, &e), &e);
    CHECK_OK(g->ops->alloc(g, sizeof plain, &y, &e), &e);
    CHECK_OK(g->ops->alloc_pinned(g, sizeof plain, &pin, &e), &e);
    host = pin;
    fake_rt.busy = 3;
    CHECK_OK(g->ops->put(g, x, plain, sizeof plain, &e), &e);
    for (int i = 0; i < 4; i++) plain[i] = 99; /* unpinned: copied before the call returned */
    CHECK_OK(add(g, y, x, 4, &e), &e);
    CHECK_OK(add(g, y, x, 4, &e), &e);
    CHECK_OK(g->ops->get(g, host, y, sizeof plain, &e), &e);
    CHECK_NEAR(host[3], 0, 0); /* pinned: issued only */
    fake_rt.busy = 5;
    CHECK_OK(g->ops->wait(g, &e), &e);
    for (int i = 0; i < 4; i++) CHECK_NEAR(host[i], 2 * (i + 1), 0);
    CHECK_OK(g->ops->get(g, back, y, sizeof plain, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_NEAR(back[3], 8, 0);
    CHECK_OK(g->ops->put(g, x, y, sizeof plain, &e), &e); /* device to device */
    CHECK_OK(g->ops->put(g, x, y, 0, &e), &e);
    done(g);
}

/* Where a kernel waits for the one before, and it is asked for. */
TEST(cuda_rt_lets_kernels_come_early)
{
    static const struct {
        int major, minor, ptx;
        const char *say;
        int early;
    } of[] = {
        { 9, 0, 90, "1", 1 }, { 10, 0, 100, "1", 1 }, { 9, 0, 90, NULL, 0 },
        { 8, 9, 89, "1", 0 }, { 9, 0, 90, "0", 0 },   { 9, 0, 80, "1", 0 }
    }; /* code for an older one, compiled when it was loaded */
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct err e = { 0 };
        float *x = NULL;
        fake_rt_reset();
        fake_rt.major = of[i].major, fake_rt.minor = of[i].minor, fake_rt.ptx = of[i].ptx;
        if (of[i].say) setenv("ORRERY_GPU_OVERLAP", of[i].say, 1);
        struct gpu *g = gpu_cuda_open(0, &e);
        CHECK_TEXT(e.text, "");
        CHECK_OK(g->ops->alloc(g, 64, (void **)&x, &e), &e);
        int before = fake_rt.early;
        CHECK_OK(add(g, x, x, 4, &e), &e);
        CHECK_INT(fake_rt.early - before, of[i].early);
        done(g);
        unsetenv("ORRERY_GPU_OVERLAP");
    }
}

TEST(cuda_rt_replays_recordings)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    struct gpu_graph *twice, *once;
    void *x, *y, *pin;
    CHECK_OK(g->ops->alloc(g, 4, &x, &e), &e);
    CHECK_OK(g->ops->alloc(g, 4, &y, &e), &e);
    CHECK_OK(g->ops->alloc_pinned(g, 4, &pin, &e), &e);
    float *host = pin;
    *host = 1;
    CHECK_OK(g->ops->record(g, &e), &e);
    CHECK_OK(g->ops->put(g, x, host, 4, &e), &e);
    CHECK_OK(add(g, y, x, 1, &e), &e);
    CHECK_OK(add(g, y, x, 1, &e), &e);
    CHECK_OK(g->ops->recorded(g, &twice, &e), &e);
    CHECK_OK(g->ops->record(g, &e), &e);
    CHECK_OK(add(g, y, x, 1, &e), &e);
    CHECK_OK(g->ops->recorded(g, &once, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_INT(fake_rt.launched, 0);
    for (int i = 0; i < 3; i++) {
        *host = (float)(10 * i); /* read when the recording runs */
        CHECK_OK(g->ops->graph_launch(g, twice, &e), &e);
        CHECK_OK(g->ops->wait(g, &e), &e);
    }
    g->ops->graph_free(g, twice);
    CHECK_OK(g->ops->graph_launch(g, once, &e), &e);
    CHECK_OK(g->ops->get(g, host, y, 4, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_NEAR(*host, 2 * 10 + 2 * 20 + 20, 0);
    CHECK_INT(fake_rt.graph_launches, 4);
    done(g); /* `once` goes with the device */
}

TEST(cuda_rt_has_events_and_products)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    struct gpu_event *from, *to;
    double ns;
    void *p;
    CHECK_OK(g->ops->event_new(g, &from, &e), &e);
    CHECK_OK(g->ops->event_new(g, &to, &e), &e);
    CHECK_OK(g->ops->alloc(g, 3 * 1024, &p, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    float *x = p, *w = x + 256, *y = w + 256;
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 7), w[i] = (float)(i % 5);
    struct gpu_mm a = { .x = x, .w = w, .y = y, .type = GPU_F32, .m = 16, .n = 16, .k = 16 };
    fake_lt.cost_ns[3] = 1;
    CHECK_OK(g->ops->plan(g, &a, &e), &e);
    CHECK_OK(g->ops->event_set(g, from, &e), &e);
    CHECK_OK(g->ops->mm(g, &a, &e), &e);
    CHECK_OK(g->ops->event_set(g, to, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_OK(g->ops->event_ns(g, from, to, &ns, &e), &e);
    CHECK(ns > 0);
    double sum = 0;
    for (int k = 0; k < 16; k++) sum += x[3 * 16 + k] * w[5 * 16 + k];
    CHECK_NEAR(y[3 * 16 + 5], sum, 1e-6);
    CHECK(g->ops->queue(g) != NULL);
    done(g);
}

TEST(cuda_rt_tells_when_memory_is_out_and_goes_on)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    void *p;
    CHECK_INT(g->ops->alloc(g, (size_t)2000000000, &p, &e), ST_DEVICE);
    CHECK_HAS(e.text, "engine/backend_cuda_rt.c:");
    CHECK_HAS(e.text, ": out of memory on GPU 0 (Fake GPU): asked for 2.00 GB, free 9");
    CHECK_HAS(e.text, " of 1.00 GB");
    CHECK(p == NULL);
    err_clear(&e);
    CHECK_INT(g->ops->alloc_pinned(g, (size_t)2000000000, &p, &e), ST_DEVICE);
    CHECK_HAS(e.text, "out of pinned memory");
    err_clear(&e);
    CHECK_OK(g->ops->alloc(g, 0, &p, &e), &e);
    CHECK(p != NULL);
    done(g);
}

TEST(cuda_rt_refuses_what_does_not_fit_a_kernel)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    struct gpu_add a = { .n = 0 };
    struct gpu_dim d = { 1, 1, 1, 128, 232448 };
    CHECK_INT(g->ops->launch(g, GPU_K_add, &d, &a, &e), ST_DEVICE);
    CHECK_HAS(e.text,
              "kernel add cannot be issued as 1 x 1 x 1 blocks of 128 threads with 232448 B");
    err_clear(&e);
    d = (struct gpu_dim){ 1, 1, 1, 512, 0 };
    CHECK_INT(g->ops->launch(g, GPU_K_add, &d, &a, &e), ST_DEVICE);
    CHECK_HAS(e.text, "gives it 256 threads");
    err_clear(&e);
    d = (struct gpu_dim){ 0, 1, 1, 128, 0 };
    CHECK_OK(g->ops->launch(g, GPU_K_add, &d, &a, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    CHECK_INT(fake_rt.launched, 0); /* two refused, and no blocks are nothing to do */
    done(g);
}

TEST(cuda_rt_repeats_what_broke_it)
{
    struct err e = { 0 };
    char first[sizeof e.text];
    struct gpu *g = fresh(&e);
    void *p;
    CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
    CHECK_OK(add(g, p, p, 1, &e), &e);
    fake_rt.run_rc = cudaErrorIllegalAddress;
    CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
    CHECK_HAS(e.text, "engine/backend_cuda_rt.c:");
    CHECK_HAS(e.text,
              "(cudaErrorIllegalAddress) on GPU 0 (Fake GPU), the last kernel issued was add");
    strcpy(first, e.text);
    err_clear(&e);
    CHECK_INT(add(g, p, p, 1, &e), ST_DEVICE);
    CHECK_TEXT(e.text, first);
    err_clear(&e);
    CHECK_INT(g->ops->alloc(g, 64, &p, &e), ST_DEVICE);
    CHECK_TEXT(e.text, first);
    done(g);
}

/* A thread that is left in a capture has most of its other calls refused. */
TEST(cuda_rt_ends_a_recording_that_broke)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    struct gpu_graph *graph;
    void *p;
    CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
    CHECK_OK(g->ops->record(g, &e), &e);
    fake_rt.fail_at = fake_rt.calls + 2; /* cudaSetDevice, cudaLaunchKernelExC */
    fake_rt.fail_rc = cudaErrorLaunchFailure;
    CHECK_INT(add(g, p, p, 1, &e), ST_DEVICE);
    CHECK_HAS(e.text, "cudaLaunchKernelExC");
    CHECK_INT(g->ops->recorded(g, &graph, NULL), ST_DEVICE);
    CHECK(!graph && !fake_lt.recording);
    CHECK_INT(g->ops->wait(g, NULL), ST_DEVICE);
    done(g);
}

TEST(cuda_rt_does_not_wait_for_ever)
{
    struct err e = { 0 };
    void *p;
    float plain = 1;
    setenv("ORRERY_GPU_TIMEOUT_S", "0.01", 1);
    struct gpu *g = fresh(&e);
    CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
    CHECK_OK(add(g, p, p, 1, &e), &e);
    fake_rt.busy = -1;
    int live = fake_rt.live;
    CHECK_INT(g->ops->put(g, p, &plain, sizeof plain, &e), ST_DEVICE);
    CHECK_HAS(e.text, "GPU 0 (Fake GPU) has not finished after 0.01 s ($ORRERY_GPU_TIMEOUT_S)");
    CHECK_HAS(e.text, "the last one issued was add");
    err_clear(&e);
    CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
    g->ops->close(g);
    CHECK_INT(fake_rt.live, live); /* freeing would wait */
}

/* ---- not far ahead of the device, whose queue blocks when it is full */

enum { AHEAD_MAX = 600 };

static struct {
    int asked;
    int64_t limit_ns;
} watched;

static int watch_says(void *arg, int64_t waited_ns, struct err *e)
{
    (void)arg;
    watched.asked++;
    if (waited_ns < watched.limit_ns) return ST_OK;
    return err_set(e, ST_DEVICE, "rank 3 is gone");
}

TEST(cuda_rt_is_never_far_ahead_of_the_device)
{
    struct err e = { 0 };
    struct gpu *g = fresh(&e);
    struct gpu_graph *graph;
    void *p;
    CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
    CHECK_OK(g->ops->wait(g, &e), &e);
    fake_rt.most = 0;
    for (int i = 0; i < 5000; i++) CHECK_OK(add(g, p, p, 1, &e), &e);
    CHECK(fake_rt.most > 0 && fake_rt.most <= AHEAD_MAX);
    CHECK_OK(g->ops->record(g, &e), &e); /* what is recorded is not ahead of anything */
    fake_rt.busy = -1;
    for (int i = 0; i < 2000; i++) CHECK_OK(add(g, p, p, 1, &e), &e);
    CHECK_OK(g->ops->recorded(g, &graph, &e), &e);
    fake_rt.busy = 0;
    done(g);
}

/* The device waits for a rank that is gone: issuing comes to an end and says so. */
TEST(cuda_rt_asks_its_watch_while_it_waits)
{
    for (int how = 0; how < 2; how++) {
        struct err e = { 0 };
        struct gpu *g = fresh(&e);
        struct gpu_event *ev;
        void *p;
        int n = 0;
        CHECK_OK(g->ops->alloc(g, 64, &p, &e), &e);
        CHECK_OK(g->ops->event_new(g, &ev, &e), &e);
        CHECK_OK(g->ops->event_wait(g, ev, &e), &e); /* never set */
        watched.asked = 0;
        watched.limit_ns = 5000000;
        g->ops->watch(g, watch_says, NULL);
        CHECK_OK(g->ops->event_set(g, ev, &e), &e);
        fake_rt.busy = -1;
        fake_rt.most = 0;
        if (how == 1) CHECK_INT(g->ops->event_wait(g, ev, &e), ST_DEVICE);
        while (how == 0 && n < 5000 && add(g, p, p, 1, &e) == ST_OK) n++;
        CHECK(n < AHEAD_MAX && fake_rt.most <= AHEAD_MAX);
        CHECK_TEXT(e.text, "rank 3 is gone");
        CHECK(watched.asked > 1);
        err_clear(&e);
        CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
        CHECK_TEXT(e.text, "rank 3 is gone");
        g->ops->watch(g, NULL, NULL);
        fake_rt.busy = 0;
        done(g);
    }
}

/* Work that does not end after a failure: freeing would wait for it. */
TEST(cuda_rt_leaves_behind_what_does_not_end)
{
    struct err e = { 0 };
    setenv("ORRERY_GPU_TIMEOUT_S", "0.01", 1);
    struct gpu *g = fresh(&e);
    watched.limit_ns = 0;
    g->ops->watch(g, watch_says, NULL);
    fake_rt.busy = -1;
    int live = fake_rt.live;
    CHECK_INT(g->ops->wait(g, &e), ST_DEVICE);
    CHECK_TEXT(e.text, "rank 3 is gone");
    g->ops->watch(g, NULL, NULL);
    g->ops->close(g);
    CHECK_INT(fake_rt.live, live);
}

/* A life with every operation; its error is the first. */
static void live(struct err *e)
{
    struct gpu_graph *graph = NULL;
    struct gpu_event *ev[2];
    void *x, *pin;
    float plain[16] = { 0 };
    double ns;
    struct gpu *g = gpu_cuda_open(0, e);
    if (!g) return;
    const struct gpu_ops *o = g->ops;
    int st = o->alloc(g, 4096, &x, e);
    if (st == ST_OK) st = o->alloc_pinned(g, 64, &pin, e);
    if (st == ST_OK) st = o->put(g, x, plain, sizeof plain, e);
    if (st == ST_OK) st = o->event_new(g, &ev[0], e);
    if (st == ST_OK) st = o->event_new(g, &ev[1], e);
    if (st == ST_OK) st = o->wait(g, e);
    struct gpu_mm a = { .x = x, .w = x, .y = x, .type = GPU_F32, .m = 1, .n = 1, .k = 1 };
    if (st == ST_OK) st = o->mm(g, &a, e);
    if (st == ST_OK) st = o->record(g, e);
    if (st == ST_OK) st = o->put(g, x, pin, 64, e);
    if (st == ST_OK) st = add(g, x, x, 16, e);
    if (st == ST_OK) st = o->recorded(g, &graph, e);
    if (st == ST_OK) st = o->event_set(g, ev[0], e);
    if (st == ST_OK) st = o->graph_launch(g, graph, e);
    if (st == ST_OK) st = o->event_set(g, ev[1], e);
    if (st == ST_OK) st = o->get(g, pin, x, 64, e);
    if (st == ST_OK) st = o->wait(g, e);
    if (st == ST_OK) st = o->event_wait(g, ev[1], e);
    if (st == ST_OK) st = o->event_ns(g, ev[0], ev[1], &ns, e);
    if (st == ST_OK) o->graph_free(g, graph);
    o->close(g);
}

/* Each call in turn fails: one sentence, and nothing is left behind. */
TEST(cuda_rt_survives_any_failure)
{
    int at = 0, told = 0, more = 0;
    for (const cudaError_t rc[] = { cudaErrorUnknown, cudaErrorMemoryAllocation }; more < 2; more++)
        for (at = 1;; at++) {
            struct err e = { 0 };
            fake_rt_reset();
            fake_lt_reset();
            fake_rt.fail_at = at;
            fake_rt.fail_rc = rc[more];
            live(&e);
            CHECK_INT(fake_rt.live, 0);
            CHECK_INT(fake_lt.live, 0);
            if (fake_rt.calls < at) break;
            told += e.status == ST_DEVICE && e.text[0];
        }
    CHECK(at > 60);
    CHECK(told > 2 * 60 - 10);
    fake_rt_reset();
}
