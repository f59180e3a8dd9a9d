/* tests/gpu_env.c - see gpu_env.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu_env.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/engine_env.h"
#include "tests/test.h"

/* ---- devices */

struct gpu_host_opts gpu_env_opts;
struct gpu *gpu_env_gpu[GPU_ENV_DEVICES];
static bool real;

bool gpu_env_real(int sm)
{
    const char *name = getenv("ORRERY_TEST_GPU");
    struct err e = { 0 };
    if (sm) gpu_env_opts.sm = sm;
    real = name && strcmp(name, "cuda") == 0;
    if (!real || sm == 0) return real;
    struct gpu *g = gpu_cuda_open(0, &e);
    bool old = g && g->info.sm < sm;
    if (g) g->ops->close(g);
    CHECK_TEXT(e.text, "");
    if (old) SKIP("the GPU is too old for these formats");
    return real;
}

struct gpu *gpu_env_open(int index, struct err *e)
{
    gpu_env_gpu[index] = NULL;
    if (real) return gpu_cuda_open(0, e);
    return gpu_env_gpu[index] = gpu_host_open(&gpu_env_opts, e);
}

int gpu_env_count(struct err *e)
{
    (void)e;
    return GPU_ENV_DEVICES;
}

struct engine_opts gpu_env_on(struct engine_opts o)
{
    o.device = (struct device){ .kind = DEVICE_CUDA, .open = gpu_env_open, .count = gpu_env_count };
    return o;
}

/* ---- models */

static void widen(json_t *config, const char *key, int by)
{
    json_t *v = json_object_get(config, key);
    if (json_is_integer(v))
        json_object_set_new(config, key, json_integer(by * json_integer_value(v)));
}

static int64_t number(const json_t *config, const char *key)
{
    return json_integer_value(json_object_get(config, key));
}

const char *gpu_env_model_of(const char *name, int dim, int long_ctx)
{
    static char dir[256];
    char path[300];
    snprintf(path, sizeof path, "tests/golden/engine/%s/config.json", name);
    json_t *c = json_load_file(path, 0, NULL);
    if (!c) SKIP("tests run from the root of the repository");
    int64_t d = number(c, "head_dim");
    if (!d) d = number(c, "hidden_size") / number(c, "num_attention_heads");
    int by = dim / (int)d;
    widen(c, "hidden_size", by);
    widen(c, "head_dim", by);
    widen(c, "intermediate_size", by);
    widen(c, "ffn_hidden_size", by);
    json_object_set_new(c, "num_hidden_layers", json_integer(2));
    json_object_del(c, "layer_types");
    if (long_ctx) {
        json_object_set_new(c, "num_attention_heads", json_integer(2));
        json_object_set_new(c, "num_key_value_heads", json_integer(1));
        json_object_set_new(c, "max_position_embeddings", json_integer(long_ctx));
    }
    snprintf(dir, sizeof dir, "%s/%s-%d", test_dir(), name, dim);
    (void)mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/config.json", dir);
    CHECK_INT(json_dump_file(c, path, 0), 0);
    json_decref(c);
    return dir;
}

const char *gpu_env_model(const char *name, int dim)
{
    return gpu_env_model_of(name, dim, 0);
}

struct engine_opts gpu_env_drawn(const char *dir, int tp, int pp)
{
    struct engine_opts o = engine_env_opts(dir, tp, pp);
    o.random = true;
    o.seed = 7;
    o.m.weight = MODEL_F32;
    return o;
}

struct engine_opts gpu_env_many(struct engine_opts o)
{
    o.m.n_block = 128;
    o.max_table = 128;
    o.m.max_tok = o.m.max_out = 16;
    return gpu_env_on(o);
}

int gpu_env_decode(struct engine *g, int n, int pos, struct engine_result *r, struct err *e)
{
    struct engine_seq seq[16];
    struct engine_out out[16] = { 0 };
    int32_t tok[16], block[16][GPU_ENV_PER_SEQ];
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < GPU_ENV_PER_SEQ; k++)
            block[i][k] = (i * GPU_ENV_PER_SEQ + k * 5 + 1) % 128;
        seq[i] = (struct engine_seq){ i, 1, pos, GPU_ENV_PER_SEQ, block[i] };
        tok[i] = (i * 31 + pos * 7) % GPU_ENV_VOCAB;
        out[i].row = i;
    }
    struct engine_step s = { n, n, n, tok, seq, out };
    int st = engine_submit(g, &s, e);
    return st == ST_OK ? engine_collect(g, r, e) : st;
}
