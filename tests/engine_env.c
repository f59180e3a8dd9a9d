/* tests/engine_env.c - reads expected values, drives an engine over one prompt.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/engine_env.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const engine_case[ENGINE_CASES] = { "llama2",    "llama31",    "llama-bias",
                                                "mistral",   "qwen2",      "qwen3",
                                                "falcon-7b", "falcon-40b", "falcon-11b",
                                                "falcon-mha" };

/* Copies tensor "WHAT.I" to `to` (or to the arena where to is NULL); its length, or -1. */
static int64_t take(const struct safetensors *s, const char *what, int i, void *to, size_t room)
{
    char name[32];
    snprintf(name, sizeof name, "%s.%d", what, i);
    const struct safetensor *t = safetensors_find(s, name);
    if (!t || (size_t)t->bytes > room) return -1;
    memcpy(to, t->data, (size_t)t->bytes);
    return t->bytes / 4;
}

bool engine_expect_read(const char *dir, struct arena *a, struct engine_expect *x, struct err *e)
{
    struct safetensors s;
    char *path = arena_printf(a, "%s/expected.safetensors", dir);
    size_t room = 64 * 1024 * sizeof(float);
    bool ok = true;
    if (safetensors_open(&s, path, a, e) != ST_OK) return false;
    for (int i = 0; i < ENGINE_PROMPTS && ok; i++) {
        x->logits[i] = arena_alloc(a, room);
        x->n_prompt[i] = (int)take(&s, "prompt", i, x->prompt[i], sizeof x->prompt[i]);
        int64_t n = take(&s, "logits", i, x->logits[i], room);
        ok = x->n_prompt[i] > 0 && n > 0 &&
             take(&s, "greedy", i, x->greedy[i], sizeof x->greedy[i]) == ENGINE_GREEDY;
        if (ok) x->vocab = (int)(n / x->n_prompt[i]);
    }
    safetensors_close(&s);
    return ok;
}

struct engine_opts engine_env_opts(const char *dir, int tp, int pp)
{
    return (struct engine_opts){ .model = dir,
                                 .tp = tp,
                                 .pp = pp,
                                 .threads = 1,
                                 .logits = true,
                                 .max_table = 64,
                                 .m = { .kv = BACKEND_F32,
                                        .n_block = 16,
                                        .block_tok = ENGINE_BLOCK,
                                        .max_tok = 32,
                                        .max_out = 32,
                                        .max_ctx = 64 } };
}

static int one_step(struct engine *g, const int32_t *tok, int pos, int n, struct engine_result *r,
                    struct err *e)
{
    int32_t block[64 / ENGINE_BLOCK];
    struct engine_out out[32] = { 0 };
    /* Physical blocks in an order of their own: the table must be followed. */
    for (int i = 0; i < 64 / ENGINE_BLOCK; i++) block[i] = (i * 5 + 3) % 16;
    for (int i = 0; i < n; i++) out[i].row = i;
    struct engine_seq seq = { 0, n, pos, 64 / ENGINE_BLOCK, block };
    struct engine_step s = { n, 1, n, tok, &seq, out };
    int st = engine_submit(g, &s, e);
    return st == ST_OK ? engine_collect(g, r, e) : st;
}

int engine_env_run(struct engine *g, const struct engine_expect *x, int i, int chunk, float *logits,
                   int32_t *out, struct err *e)
{
    struct engine_result r = { 0 };
    int n = x->n_prompt[i], st = ST_OK;
    for (int at = 0; at < n && st == ST_OK; at += chunk) {
        int m = n - at < chunk ? n - at : chunk;
        st = one_step(g, x->prompt[i] + at, at, m, &r, e);
        if (st == ST_OK && logits)
            memcpy(logits + at * x->vocab, r.logits, (size_t)(m * x->vocab) * sizeof *logits);
    }
    for (int k = 0; k < ENGINE_GREEDY && st == ST_OK; k++) {
        out[k] = r.tok[r.n_out - 1];
        if (k + 1 < ENGINE_GREEDY) st = one_step(g, &out[k], n + k, 1, &r, e);
    }
    return st;
}

double engine_env_miss(const float *a, const float *b, int rows, int n)
{
    double worst = 0;
    for (int r = 0; r < rows; r++) {
        double miss = 0, size = 0;
        for (int c = r * n; c < (r + 1) * n; c++) {
            miss = fmax(miss, fabs((double)a[c] - (double)b[c]));
            size = fmax(size, fabs((double)b[c]));
            if (isnan(a[c])) return NAN;
        }
        worst = fmax(worst, miss / size);
    }
    return worst;
}
