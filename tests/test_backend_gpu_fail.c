/* tests/test_backend_gpu_fail.c - what goes wrong with GPUs is told: a device that the CPU plays fails
 * at a given call. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "engine/need.h"
#include "tests/engine_env.h"
#include "tests/gpu_env.h"
#include "tests/test.h"

/* ---- failures */

static const enum gpu_host_call fails[] = {
    GPU_HOST_ALLOC,        GPU_HOST_ALLOC_PINNED, GPU_HOST_PUT,    GPU_HOST_GET,
    GPU_HOST_LAUNCH,       GPU_HOST_MM,           GPU_HOST_PLAN,   GPU_HOST_WAIT,
    GPU_HOST_EVENT_SET,    GPU_HOST_EVENT_WAIT,   GPU_HOST_RECORD, GPU_HOST_RECORDED,
    GPU_HOST_GRAPH_LAUNCH, GPU_HOST_RUN
};
enum { N_FAIL = sizeof fails / sizeof *fails };

TEST_LIMIT(backend_gpu_failures_while_opening_are_told, 120)
{
    struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    for (int k = 0; k < N_FAIL; k++)
        for (int64_t nth = 1; nth < 60; nth = nth * 3 + 1) {
            struct err e = { 0 };
            gpu_env_opts = (struct gpu_host_opts){ 0 };
            gpu_env_opts.fail_at[fails[k]] = nth;
            struct engine *g = engine_open(&o, &e);
            if (g) { /* so many calls are not made before steps */
                engine_close(g);
                continue;
            }
            CHECK_INT(e.status, ST_DEVICE);
            CHECK_HAS(e.text, "rank 0: host GPU: ");
            CHECK_HAS(e.text, "fails as it was told to");
        }
}

/* Steps until one fails; each call of a step is made within the first three. */
static void must_fail(struct engine *g, int rank, struct err *e)
{
    struct engine_result r;
    char says[32];
    int st = ST_OK;
    for (int i = 0; i < 8 && st == ST_OK; i++) st = gpu_env_decode(g, 3, i, &r, e);
    CHECK_INT(st, ST_DEVICE);
    snprintf(says, sizeof says, "rank %d: host GPU: ", rank);
    CHECK_HAS(e->text, says);
    CHECK_HAS(e->text, "fails as it was told to");
}

TEST_LIMIT(backend_gpu_failures_in_steps_are_told, 120)
{
    struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    for (int k = 2; k < N_FAIL; k++)
        for (int n = 1; n <= 3; n += 2) {
            struct err e = { 0 };
            bool once = fails[k] == GPU_HOST_RECORD || fails[k] == GPU_HOST_RECORDED;
            if ((n > 1 && once) || fails[k] == GPU_HOST_PLAN) continue; /* planned before steps */
            struct engine *g = engine_open(&o, &e);
            CHECK_TEXT(e.text, "");
            if (!g) return;
            gpu_host_fail(gpu_env_gpu[0], fails[k], n);
            must_fail(g, 0, &e);
            engine_close(g);
        }
}

TEST_LIMIT(backend_gpu_failures_of_other_ranks_are_told, 120)
{
    static const int way[][2] = { { 2, 1 }, { 1, 2 }, { 2, 2 } };
    static const enum gpu_host_call what[] = { GPU_HOST_PUT, GPU_HOST_LAUNCH, GPU_HOST_RUN };
    for (int w = 0; w < 3; w++)
        for (int k = 0; k < 3; k++)
            for (int rank = 0; rank < way[w][0] * way[w][1]; rank++) {
                struct engine_opts o =
                    gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), way[w][0], way[w][1]));
                struct err e = { 0 };
                struct engine *g = engine_open(&o, &e);
                CHECK_TEXT(e.text, "");
                if (!g) return;
                gpu_host_fail(gpu_env_gpu[rank], what[k], 2);
                must_fail(g, rank, &e);
                engine_close(g);
            }
}

static void refused(struct engine_opts o, int status, const char *says)
{
    struct err e = { 0 };
    struct engine *g = engine_open(&o, &e);
    CHECK(g == NULL);
    CHECK_INT(e.status, status);
    CHECK_HAS(e.text, says);
    engine_close(g);
}

TEST(backend_gpu_refuses_with_sizes)
{
    struct engine_opts o = gpu_env_on(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    struct err e = { 0 };
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    int64_t whole = gpu_host_tally(gpu_env_gpu[0])->device_bytes;
    engine_close(g);
    gpu_env_opts.memory_bytes = 1 << 18;
    refused(o, ST_USAGE, "GB for weights and");
    gpu_env_opts.memory_bytes = whole - 1;
    refused(o, ST_DEVICE, "rank 0: host GPU: out of memory: asked for");
}

/* What is set aside before the KV cache is sized covers what an engine then takes; the shares of split
 * attention and vectors in f32, some KB here, are part of the allowance. */
TEST(backend_gpu_takes_no_more_than_is_set_aside)
{
    static const char *const name[] = { "llama31", "falcon-40b", "llama-bias" };
    for (int k = 0; k < 12; k++) {
        struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model(name[k % 3], 32), 1, 1));
        struct err e = { 0 };
        if (k & 1) o.m.weight = MODEL_BF16;
        if (k & 2) o.m.max_tok = 512;
        if (k & 4) o.m.max_out = 100;
        struct engine *g = engine_open(&o, &e);
        CHECK_TEXT(e.text, "");
        if (!g) return;
        const struct spec *s = engine_spec(g);
        double whole = (double)gpu_host_tally(gpu_env_gpu[0])->device_bytes;
        double rest = whole - need_weight_bytes(s, &o.m) - need_kv_bytes(s, &o.m);
        double aside = need_device_step_bytes(s, &o.m);
        CHECK(rest > 0 && rest <= aside + 1e5 && aside < 3 * rest);
        engine_close(g);
    }
}

TEST(backend_gpu_refuses_formats)
{
    struct engine_opts o = gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1), d = gpu_env_on(o);
    d.m.weight = MODEL_INT8;
    refused(d, ST_USAGE, "int8 weights are for the CPU; a GPU keeps them as f32, bf16, f16 or fp8");
    d.m.weight = MODEL_FP8;
    refused(d, ST_USAGE, "fp8 weights need compute capability 8.9");
    gpu_env_opts.sm = 75;
    d.m.weight = MODEL_BF16;
    refused(d, ST_USAGE, "bf16 weights need compute capability 8.0");
    refused(d, ST_USAGE, "has 7.5: take f16");
    d.m.weight = MODEL_F16;
    d.m.kv = BACKEND_BF16;
    refused(d, ST_USAGE, "a KV cache in bf16 needs compute capability 8.0");
    d.kernels = "avx2";
    refused(d, ST_USAGE, "kernels 'avx2' are for the CPU");
    o.m.weight = MODEL_F16;
    refused(o, ST_USAGE, "f16 weights need a GPU (--device=cuda)");
    o.m.weight = MODEL_FP8_TENSOR;
    refused(o, ST_USAGE, "fp8 weights need a GPU (--device=cuda)");
    o.m.weight = MODEL_BF16;
    o.m.kv = BACKEND_F16;
    refused(o, ST_USAGE, "a KV cache in f16 needs a GPU");
    refused(gpu_env_on(engine_env_opts("tests/golden/engine/llama2", 1, 1)), ST_USAGE,
            "heads of 8: the GPU kernels take multiples of 8 from 32 to 256");
}

TEST(backend_gpu_devices_have_names)
{
    struct device d = { .count = gpu_env_count };
    struct err e = { 0 };
    CHECK_INT(device_parse("cpu", &d, &e), ST_OK);
    CHECK_INT(d.kind, DEVICE_CPU);
    CHECK_INT(device_parse("cuda", &d, &e), ST_OK);
    CHECK(d.kind == DEVICE_CUDA && d.first == 0);
    CHECK_INT(device_parse("cuda:3", &d, &e), ST_OK);
    CHECK(d.kind == DEVICE_CUDA && d.first == 3);
    CHECK_INT(device_check(&d, 5, &e), ST_OK);
    CHECK_INT(device_check(&d, 6, &e), ST_USAGE);
    CHECK_HAS(e.text, "6 ranks from cuda:3 on need a GPU each, and 8 are visible here");
    CHECK_HAS(e.text, "--share-device");
    d.share = true;
    CHECK_INT(device_check(&d, 6, NULL), ST_OK);
    CHECK(device_shared(&d, 9) && !device_shared(&d, 8));
    d.first = 8;
    err_clear(&e);
    CHECK_INT(device_check(&d, 1, &e), ST_USAGE);
    CHECK_HAS(e.text, "device cuda:8; 8 are visible here");
    static const char *const wrong[] = { "",          "gpu",     "cuda:",
                                         "cuda:-1",   "cuda:1x", "cuda: 1",
                                         "cuda:1024", "CUDA",    "cuda:99999999999999999999" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err_clear(&e);
        CHECK_INT(device_parse(wrong[i], &d, &e), ST_USAGE);
        CHECK_HAS(e.text, "is not one of cpu, cuda, cuda:N");
    }
}
