/* tests/test_backend_gpu.c - the engine on a GPU that the CPU plays, or with ORRERY_TEST_GPU=cuda on a
 * real one, against the engine on the CPU. Metric of logits as in test_engine.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/backend_gpu.h"
#include "engine/kern.h"
#include "tests/engine_env.h"
#include "tests/gpu_env.h"
#include "tests/test.h"

static void set_prompts(struct engine_expect *x)
{
    static const int n[ENGINE_PROMPTS] = { 1, 11, 27 };
    struct rng r = rng_stream(3, "prompts");
    uint64_t k = 0;
    *x = (struct engine_expect){ .vocab = GPU_ENV_VOCAB };
    for (int i = 0; i < ENGINE_PROMPTS; i++) {
        x->n_prompt[i] = n[i];
        for (int t = 0; t < n[i]; t++)
            x->prompt[i][t] = (int32_t)(rng_bits(r, k++) % GPU_ENV_VOCAB);
    }
}

struct answers {
    float logits[ENGINE_PROMPTS][64 * GPU_ENV_VOCAB];
    int32_t tok[ENGINE_PROMPTS][ENGINE_GREEDY];
};

static bool ask(const struct engine_opts *o, int chunk, struct answers *out)
{
    struct engine_expect x;
    struct err e = { 0 };
    set_prompts(&x);
    struct engine *g = engine_open(o, &e);
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < ENGINE_PROMPTS && g; i++)
        CHECK_INT(engine_env_run(g, &x, i, chunk, out->logits[i], out->tok[i], &e), ST_OK);
    CHECK_TEXT(e.text, "");
    engine_close(g);
    return g != NULL;
}

/* Asks both; most: of the difference of logits. */
static void both(const struct engine_opts *cpu, const struct engine_opts *dev, double most,
                 bool tokens)
{
    struct answers *a = calloc(2, sizeof *a), *b = a + 1;
    struct engine_expect x;
    set_prompts(&x);
    if (ask(cpu, 32, a) && ask(dev, dev->tp > 1 ? 7 : 32, b))
        for (int i = 0; i < ENGINE_PROMPTS; i++) {
            double miss = engine_env_miss(b->logits[i], a->logits[i], x.n_prompt[i], GPU_ENV_VOCAB);
            if (getenv("ENGINE_SHOW")) printf("%s: %.3g\n", dev->model, miss);
            if (!(miss <= most)) printf("%s prompt %d: %g\n", dev->model, i, miss);
            CHECK(miss <= most);
            if (tokens) CHECK(memcmp(a->tok[i], b->tok[i], sizeof a->tok[i]) == 0);
        }
    free(a);
}

static int width(int i)
{
    return i == 0 ? 64 : i == 5 ? 128 : 32;
}

TEST_LIMIT(backend_gpu_equals_the_cpu_in_f32, 240)
{
    gpu_env_real(0);
    for (int i = 0; i < ENGINE_CASES; i++) {
        struct engine_opts o = gpu_env_drawn(gpu_env_model(engine_case[i], width(i)), 1, 1),
                           d = gpu_env_on(o);
        both(&o, &d, 1e-4, true);
    }
}

static void sixteen_bits(enum model_weight w, enum backend_type kv)
{
    gpu_env_real(w == MODEL_BF16 ? 80 : 0);
    for (int i = 0; i < ENGINE_CASES; i++) {
        struct engine_opts o = gpu_env_drawn(gpu_env_model(engine_case[i], width(i)), 1, 1),
                           d = gpu_env_on(o);
        d.m.weight = w;
        d.m.kv = kv;
        o.m.weight = MODEL_BF16; /* the nearest that the CPU has */
        o.m.kv = BACKEND_BF16;
        both(&o, &d, 2e-2, false);
    }
}

TEST_LIMIT(backend_gpu_equals_the_cpu_in_bf16, 240)
{
    sixteen_bits(MODEL_BF16, BACKEND_BF16);
}

TEST_LIMIT(backend_gpu_equals_the_cpu_in_f16, 240)
{
    sixteen_bits(MODEL_F16, BACKEND_F16);
}

/* Caches and weights of different formats; checkpoints whose tensors differ. */
TEST_LIMIT(backend_gpu_mixes_formats, 120)
{
    gpu_env_real(80);
    struct engine_opts o = gpu_env_drawn(gpu_env_model("llama-bias", 32), 1, 1), d = gpu_env_on(o);
    d.m.kv = o.m.kv = BACKEND_BF16;
    both(&o, &d, 2e-2, false);
    d.m.kv = o.m.kv = BACKEND_F32;
    d.m.weight = o.m.weight = MODEL_BF16;
    both(&o, &d, 2e-2, false);
}

TEST_LIMIT(backend_gpu_in_any_division, 240)
{
    gpu_env_real(0); /* the ranks share one */
    static const int way[][2] = { { 2, 1 }, { 1, 2 }, { 2, 2 }, { 4, 1 } };
    static const char *const name[] = { "llama31", "falcon-40b" };
    for (size_t k = 0; k < sizeof name / sizeof *name; k++)
        for (size_t w = k ? 2 : 0; w < (k ? 3 : sizeof way / sizeof *way); w++) {
            struct engine_opts o = gpu_env_drawn(gpu_env_model(name[k], 32), 1, 1),
                               d = gpu_env_on(o);
            d.tp = way[w][0];
            d.pp = way[w][1];
            both(&o, &d, 1e-4, true);
        }
}

/* ---- fp8 */

TEST(backend_gpu_e4m3_is_the_nearest)
{
    double at[127];
    for (int c = 0; c < 127; c++) {
        at[c] = (double)elt_from_e4m3((uint8_t)c);
        CHECK(c == 0 ? at[c] == 0 : at[c] > at[c - 1]);
        CHECK_INT(elt_to_e4m3((float)at[c]), c);
        CHECK_INT(elt_to_e4m3(-(float)at[c]), c | 0x80);
        CHECK(elt_from_e4m3((uint8_t)(c | 0x80)) == -(float)at[c]);
    }
    CHECK(at[126] == 448 && at[1] == 0x1p-9);
    CHECK(isnan(elt_from_e4m3(0x7f)) && elt_to_e4m3(NAN) == 0x7f);
    CHECK_INT(elt_to_e4m3(1e30f), 126);
    CHECK_INT(elt_to_e4m3(-INFINITY), 126 | 0x80);
    for (int c = 0; c < 126; c++) {
        double mid = 0.5 * (at[c] + at[c + 1]);
        CHECK_INT(elt_to_e4m3((float)mid), c + c % 2); /* ties to even */
        CHECK_INT(elt_to_e4m3((float)(mid * (1 - 1e-6))), c);
        CHECK_INT(elt_to_e4m3((float)(mid * (1 + 1e-6))), c + 1);
    }
}

/* Against the sum of what the operands round to. */
TEST(backend_gpu_fp8_products_are_those_of_rounded_values)
{
    enum { M = 3, N = 32, K = 48 };
    static const enum backend_type type[] = { BACKEND_FP8, BACKEND_FP8_TENSOR };
    static float w[N][K], x[M][K], y[M][N];
    struct rng r = rng_stream(5, "fp8");
    struct err e = { 0 };
    double top = 0, all = 0;
    for (int i = 0; i < N * K; i++) {
        w[i / K][i % K] = (float)((rng_unit(r, (uint64_t)i) - 0.5) * (1 + i / K));
        all = fmax(all, fabs((double)w[i / K][i % K]));
    }
    for (int i = 0; i < M * K; i++) {
        x[i / K][i % K] = (float)(rng_unit(r, (uint64_t)(N * K + i)) - 0.3);
        top = fmax(top, fabs((double)x[i / K][i % K]));
    }
    gpu_env_real(89);
    for (int t = 0; t < 2; t++) {
        struct backend *b = backend_gpu_open(gpu_env_open(0, &e), NULL, &e);
        struct backend_mat *m = b->ops->mat_new(b, type[t], N, K, &e);
        b->ops->mat_rows(b, m, 20, N - 20, ELT_F32, w[20]);
        b->ops->mat_rows(b, m, 0, 20, ELT_F32, w);
        float *dx = b->ops->alloc(b, sizeof x, &e), *dy = b->ops->alloc(b, sizeof y, &e);
        CHECK_OK(b->ops->reserve(b, M, &e), &e);
        struct backend_mm mm = { .w = m, .x = dx, .ldx = K, .y = dy, .ldy = N, .m = M };
        b->ops->upload(b, dx, x, sizeof x);
        b->ops->mm(b, &mm);
        b->ops->download(b, y, dy, sizeof y);
        CHECK_OK(backend_sync(b, &e), &e);
        float xs = (float)top / 448;
        for (int i = 0; i < M * N; i++) {
            double most = 0, sum = 0, size = 0;
            for (int k = 0; k < K; k++) most = fmax(most, fabs((double)w[i % N][k]));
            float ws = (float)(t ? all : most) / 448;
            for (int k = 0; k < K; k++) {
                double p = (double)elt_from_e4m3(elt_to_e4m3(x[i / N][k] / xs)) *
                           (double)elt_from_e4m3(elt_to_e4m3(w[i % N][k] / ws));
                sum += p * (double)xs * (double)ws;
                size += fabs(p) * (double)xs * (double)ws;
            }
            /* a division rounded otherwise may move one operand to its neighbour */
            CHECK(fabs((double)y[i / N][i % N] - sum) <= 2e-3 * size);
        }
        b->ops->close(b);
    }
}

/* 3 fraction bits: each operand of a product is off by some 2.6%, and a layer has four in a row. */
TEST_LIMIT(backend_gpu_fp8_is_near, 60)
{
    static const enum model_weight way[] = { MODEL_FP8, MODEL_FP8_TENSOR };
    static const char *const name[] = { "llama31", "falcon-7b" };
    gpu_env_real(89);
    for (int w = 0; w < 2; w++) {
        struct engine_opts o = gpu_env_drawn(gpu_env_model(name[w], 32), 1, 1), d = gpu_env_on(o);
        d.m.weight = way[w];
        d.m.kv = BACKEND_BF16;
        both(&o, &d, 0.3, false);
    }
}

/* ---- steps as a scheduler makes them */

enum { N_SEQ = 5, POOL = 64, SHARED = 2 * ENGINE_BLOCK, N_STEP = 24 };

struct flow {
    int32_t tok[64], block[GPU_ENV_PER_SEQ];
    int n, done; /* known tokens, those in the cache */
};

struct script {
    struct flow f[N_SEQ];
    int32_t next_block;
    uint64_t draws;
};

static uint64_t draw(struct script *s, uint64_t n)
{
    return rng_bits(rng_stream(11, "script"), s->draws++) % n;
}

static void fresh_blocks(struct script *s, struct flow *f, int from)
{
    for (int i = from; i < GPU_ENV_PER_SEQ; i++) {
        f->block[i] = s->next_block;
        s->next_block = (s->next_block + 7) % POOL;
    }
}

/* The first two sequences begin alike. */
static void script_start(struct script *s)
{
    *s = (struct script){ .next_block = 3 };
    for (int k = 0; k < N_SEQ; k++) {
        struct flow *f = &s->f[k];
        f->n = k < 2 ? SHARED + 3 + k : 2 + 9 * k;
        for (int i = 0; i < f->n; i++) f->tok[i] = (int32_t)draw(s, GPU_ENV_VOCAB);
        if (k == 1) memcpy(f->tok, s->f[0].tok, SHARED * sizeof *f->tok);
        fresh_blocks(s, f, 0);
    }
}

/* A sequence loses its cache: it begins again, or where its shared prefix ends. */
static void script_preempt(struct script *s, int k)
{
    struct flow *f = &s->f[k];
    f->done = 0;
    fresh_blocks(s, f, 0);
    if (k == 1 && s->f[0].done >= SHARED) {
        memcpy(f->block, s->f[0].block, 2 * sizeof *f->block);
        f->done = SHARED;
    }
}

/* Prompt chunks and single tokens of a random choice of sequences. Of pool 64 and 5 x 8 blocks, the
 * last 40 given out are of one owner each. */
static int script_step(struct script *s, struct engine_seq *seq, int *who, int32_t *tok)
{
    int n = 0, row = 0;
    for (int k = 0; k < N_SEQ; k++) {
        struct flow *f = &s->f[k];
        if (f->n >= 60 || draw(s, 12) == 0) {
            f->n = f->n < 60 ? f->n : 20;
            if (k != 0) script_preempt(s, k);
            if (k == 0 && f->done > f->n - 1) f->done = f->n - 1;
        }
        if (draw(s, 4) == 0) continue;
        int left = f->n - f->done, m = left < 2 ? left : 1 + (int)draw(s, 9);
        if (m > left) m = left;
        if (m < 1 || row + m > 32) continue;
        seq[n] = (struct engine_seq){ row, m, f->done, GPU_ENV_PER_SEQ, f->block };
        memcpy(tok + row, f->tok + f->done, (size_t)m * sizeof *tok);
        who[n++] = k;
        row += m;
    }
    return n;
}

static void script_compare(const struct engine_opts *cpu, const struct engine_opts *dev,
                           double most)
{
    struct script *s = calloc(1, sizeof *s);
    struct err e = { 0 };
    struct engine *g[2] = { engine_open(cpu, &e), NULL };
    g[1] = g[0] ? engine_open(dev, &e) : NULL;
    CHECK_TEXT(e.text, "");
    script_start(s);
    for (int step = 0; step < N_STEP && g[1]; step++) {
        struct engine_seq seq[N_SEQ];
        struct engine_out out[N_SEQ] = { 0 };
        struct engine_result r[2] = { 0 };
        int32_t tok[32];
        int who[N_SEQ], n = script_step(s, seq, who, tok);
        if (n == 0) continue;
        for (int i = 0; i < n; i++) out[i].row = seq[i].row + seq[i].n_q - 1;
        struct engine_step t = { seq[n - 1].row + seq[n - 1].n_q, n, n, tok, seq, out };
        for (int i = 0; i < 2; i++) {
            CHECK_OK(engine_submit(g[i], &t, &e), &e);
            CHECK_OK(engine_collect(g[i], &r[i], &e), &e);
        }
        CHECK(engine_env_miss(r[1].logits, r[0].logits, n, GPU_ENV_VOCAB) <= most);
        CHECK(memcmp(r[0].tok, r[1].tok, (size_t)n * sizeof(int32_t)) == 0);
        for (int i = 0; i < n; i++) {
            struct flow *f = &s->f[who[i]];
            f->done += seq[i].n_q;
            if (f->done == f->n) f->tok[f->n++] = r[0].tok[i];
        }
    }
    engine_close(g[0]);
    engine_close(g[1]);
    free(s);
}

TEST_LIMIT(backend_gpu_chunks_prefixes_and_preemption, 240)
{
    gpu_env_real(0);
    static const char *const name[] = { "llama31", "mistral", "falcon-40b" };
    for (int k = 0; k < 3; k++) {
        struct engine_opts o = gpu_env_drawn(gpu_env_model(name[k], 32), 1, 1), d;
        o.m.n_block = POOL;
        d = gpu_env_on(o);
        if (k == 1) d.tp = d.pp = 2;
        script_compare(&o, &d, 1e-4);
    }
}

/* ---- recordings */

TEST(backend_gpu_rounds_up_to_recorded_sizes)
{
    static const int32_t want[][3] = { { 1, 100, 1 },   { 2, 100, 2 },    { 3, 100, 4 },
                                       { 5, 100, 8 },   { 8, 100, 8 },    { 9, 100, 16 },
                                       { 17, 100, 24 }, { 97, 100, 100 }, { 100, 100, 100 },
                                       { 101, 100, 0 }, { 3, 3, 3 },      { 1, 0, 0 } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        CHECK_INT(backend_gpu_round(want[i][0], want[i][1]), want[i][2]);
}

/* Once by itself, once recorded, once replayed; and in other company. */
static void replayed(struct engine_opts o, bool padded, bool real)
{
    static float first[16 * GPU_ENV_VOCAB];
    struct err e = { 0 };
    struct engine_result r = { 0 };
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    struct backend *b = engine_backend(g, 0);
    for (int pos = 0; pos < 3; pos++)
        for (int n = 1; n <= 11; n += 2) {
            struct backend_gpu_count c0 = backend_gpu_counts(b), c1;
            for (int turn = 0; turn < 3; turn++) {
                CHECK_OK(gpu_env_decode(g, n, pos, &r, &e), &e);
                size_t bytes = (size_t)n * GPU_ENV_VOCAB * sizeof *first;
                if (turn == 0) memcpy(first, r.logits, bytes);
                CHECK(memcmp(first, r.logits, bytes) == 0);
            }
            c1 = backend_gpu_counts(b);
            CHECK(c1.replays > c0.replays && c1.steps == c0.steps + 3);
        }
    struct backend_gpu_count c = backend_gpu_counts(b);
    CHECK_INT(c.records, padded ? 4 : 6); /* 1 3 5 7 9 11; or 1 4 8 16 */
    /* a product of other sizes may have another algorithm on a real device */
    for (int n = 1; n <= 11 && padded && !real; n++) {
        CHECK_OK(gpu_env_decode(g, n, 2, &r, &e), &e);
        CHECK(memcmp(r.logits, first, (size_t)n * GPU_ENV_VOCAB * sizeof *first) == 0);
    }
    engine_close(g);
}

TEST_LIMIT(backend_gpu_replays_bit_for_bit, 120)
{
    struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    bool real = gpu_env_real(80);
    replayed(o, true, real);
    o.m.weight = MODEL_BF16;
    o.m.kv = BACKEND_BF16;
    replayed(o, true, real);
    o.model = gpu_env_model("falcon-40b", 32);
    replayed(o, true, real);
    gpu_env_real(89); /* rows share a scale: alike only in the same company */
    o.model = gpu_env_model("llama31", 32);
    o.m.weight = MODEL_FP8;
    replayed(o, false, real);
}

/* Algorithms are timed before the first step, for all sizes that recordings have: 1 2 4 8 16. */
TEST(backend_gpu_plans_before_the_first_step)
{
    struct err e = { 0 };
    struct engine_result r;
    struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    const struct gpu_host_tally *t = gpu_host_tally(gpu_env_gpu[0]);
    int64_t planned = t->planned, bytes = t->device_bytes;
    CHECK(planned > 0);
    for (int n = 1; n <= 16; n++)
        for (int i = 0; i < 3; i++) {
            CHECK_OK(gpu_env_decode(g, n, i, &r, &e), &e);
            CHECK_INT(t->planned, planned);
        }
    CHECK_INT(t->device_bytes, bytes);
    engine_close(g);
}

/* Long contexts in small company are split; each split has a recording. */
TEST_LIMIT(backend_gpu_splits_long_contexts, 120)
{
    enum { CTX = 520, FIRST = 508 };
    static int32_t tok[CTX], block[CTX / ENGINE_BLOCK];
    struct err e = { 0 };
    struct engine_result r[2] = { 0 };
    struct engine_opts o = gpu_env_drawn(gpu_env_model_of("llama31", 32, CTX), 1, 1), d;
    bool real = gpu_env_real(0);
    o.m.max_ctx = CTX;
    o.m.n_block = o.max_table = CTX / ENGINE_BLOCK;
    o.m.max_tok = CTX;
    d = gpu_env_on(o);
    struct engine *g[2] = { engine_open(&o, &e), engine_open(&d, &e) };
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < CTX; i++) tok[i] = (i * 37 + i / 9) % GPU_ENV_VOCAB;
    for (int i = 0; i < CTX / ENGINE_BLOCK; i++) block[i] = (i * 6 + 2) % (CTX / ENGINE_BLOCK);
    for (int at = 0, m = FIRST; at < CTX && g[0] && g[1]; at += m, m = 1) {
        struct engine_seq seq = { 0, m, at, CTX / ENGINE_BLOCK, block };
        struct engine_out out = { .row = m - 1 };
        struct engine_step s = { m, 1, 1, tok + at, &seq, &out };
        for (int i = 0; i < 2; i++) {
            CHECK_OK(engine_submit(g[i], &s, &e), &e);
            CHECK_OK(engine_collect(g[i], &r[i], &e), &e);
        }
        CHECK(engine_env_miss(r[1].logits, r[0].logits, 1, GPU_ENV_VOCAB) <= 1e-4);
    }
    if (!real) CHECK(gpu_host_tally(gpu_env_gpu[0])->kern[GPU_K_attn_combine] > 0);
    if (g[1]) CHECK_INT(backend_gpu_counts(engine_backend(g[1], 0)).records, 2);
    engine_close(g[0]);
    engine_close(g[1]);
}

/* ---- what a step costs */

TEST(backend_gpu_waits_once_and_copies_once)
{
    struct err e = { 0 };
    struct engine_result r;
    struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
    o.logits = false;
    o.m.weight = MODEL_BF16;
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    for (int i = 0; i < 3; i++) CHECK_OK(gpu_env_decode(g, 5, i, &r, &e), &e);
    struct gpu_host_tally t0 = *gpu_host_tally(gpu_env_gpu[0]);
    for (int i = 3; i < 13; i++) CHECK_OK(gpu_env_decode(g, 5, i, &r, &e), &e);
    const struct gpu_host_tally *t1 = gpu_host_tally(gpu_env_gpu[0]);
    static const int64_t want[GPU_HOST_N_CALL] = {
        [GPU_HOST_PUT] = 10,          [GPU_HOST_GET] = 10,       [GPU_HOST_WAIT] = 10,
        [GPU_HOST_GRAPH_LAUNCH] = 10, [GPU_HOST_EVENT_SET] = 10, /* the copy of a step's arrays; */
        [GPU_HOST_EVENT_WAIT] = 10 /* it has been made since, several steps ago */
    };
    for (int i = 0; i < GPU_HOST_RUN; i++) CHECK_INT(t1->call[i] - t0.call[i], want[i]);
    CHECK_INT(t1->device_bytes, t0.device_bytes);
    CHECK_INT(t1->pinned_bytes, t0.pinned_bytes);
    /* a step that is no recording: kernels one by one, but one copy each way and one wait */
    int32_t tok[7] = { 1, 2, 3, 4, 5, 6, 7 }, block[] = { 0, 1, 2, 3 };
    struct engine_seq seq = { 0, 7, 0, 4, block };
    struct engine_out out = { .row = 6 };
    struct engine_step s = { 7, 1, 1, tok, &seq, &out };
    t0 = *t1;
    CHECK_OK(engine_submit(g, &s, &e), &e);
    CHECK_OK(engine_collect(g, &r, &e), &e);
    CHECK_INT(t1->call[GPU_HOST_PUT] - t0.call[GPU_HOST_PUT], 1);
    CHECK_INT(t1->call[GPU_HOST_GET] - t0.call[GPU_HOST_GET], 1);
    CHECK_INT(t1->call[GPU_HOST_WAIT] - t0.call[GPU_HOST_WAIT], 1);
    CHECK_INT(t1->device_bytes, t0.device_bytes);
    engine_close(g);
}

/* Choosing algorithms takes long: it is done before the first step, for a few numbers of rows. */
TEST(backend_gpu_plans_products_before_steps)
{
    enum { MAX_TOK = 40, PROMPT = 23, RECORDED = 3, PROMPTS = 4 }; /* 1 2 4; 8 16 32 40 */
    static const enum model_weight weight[] = { MODEL_BF16, MODEL_FP8 };
    for (int k = 0; k < 2; k++) {
        struct err e = { 0 };
        struct engine_result r;
        struct engine_opts o = gpu_env_many(gpu_env_drawn(gpu_env_model("llama31", 32), 1, 1));
        gpu_env_opts.sm = 90;
        o.m.weight = weight[k];
        o.m.max_tok = MAX_TOK;
        o.m.max_out = 4;
        struct engine *g = engine_open(&o, &e);
        CHECK_TEXT(e.text, "");
        if (!g) return;
        const struct gpu_host_tally *t = gpu_host_tally(gpu_env_gpu[0]);
        int64_t plans = t->call[GPU_HOST_PLAN], shapes = 5; /* embedding and head are one */
        CHECK(plans <= shapes * (RECORDED + PROMPTS) &&
              plans >= (shapes - 1) * (RECORDED + PROMPTS));
        int32_t tok[PROMPT] = { 0 }, block[] = { 0, 1, 2, 3 };
        struct engine_seq seq = { 0, PROMPT, 0, 4, block };
        struct engine_out out = { .row = PROMPT - 1 };
        struct engine_step s = { PROMPT, 1, 1, tok, &seq, &out };
        CHECK_OK(engine_submit(g, &s, &e), &e);
        CHECK_OK(engine_collect(g, &r, &e), &e);
        for (int i = 0; i < 3; i++) CHECK_OK(gpu_env_decode(g, 3, i, &r, &e), &e);
        CHECK_INT(t->call[GPU_HOST_PLAN], plans);
        engine_close(g);
    }
}

/* Steps laid out while earlier ones have not run: as many as there are pieces, beyond which the copy
 * from a piece is waited for and nothing else. */
TEST(backend_gpu_prepares_steps_while_others_run)
{
    enum { K = 16, N = 16, STEPS = 8, DEPTH = 2 };
    static const int32_t kv[4] = { 4, 1, 8, 32 }, block[] = { 1 };
    const struct backend_room room = { .max_tok = 4,
                                       .max_out = 4,
                                       .max_ctx = 32,
                                       .max_table = 8,
                                       .n_head = 1,
                                       .n_part = 1,
                                       .depth = DEPTH };
    struct err e = { 0 };
    float w[N][K], got[STEPS][K], *x;
    for (int i = 0; i < N * K; i++) w[i / K][i % K] = (float)i;
    struct backend *b = backend_gpu_open(gpu_env_open(0, &e), NULL, &e);
    struct backend_mat *m = b->ops->mat_new(b, BACKEND_F32, N, K, &e);
    b->ops->mat_rows(b, m, 0, N, ELT_F32, w);
    CHECK(b->ops->kv_new(b, BACKEND_F32, kv, &e) != NULL);
    x = b->ops->alloc(b, sizeof got, &e);
    CHECK_OK(b->ops->reserve(b, 4, &e), &e);
    CHECK_OK(b->ops->room(b, &room, &e), &e);
    CHECK_OK(backend_sync(b, &e), &e);
    int64_t waits = gpu_host_tally(gpu_env_gpu[0])->call[GPU_HOST_WAIT];
    for (int i = 0; i < STEPS; i++) {
        int32_t tok = (i * 5) % N, pos = i;
        struct backend_seq seq = { 0, 1, i, block };
        struct backend_step s = { .n_tok = 1, .n_seq = 1, .tok = &tok, .pos = &pos, .seq = &seq };
        CHECK(!b->ops->begin(b, &s));
        b->ops->embed(b, m, NULL, 1, 0, x + i * K);
        b->ops->end(b);
        tok = pos = -1; /* the caller's again */
    }
    CHECK_INT(gpu_host_tally(gpu_env_gpu[0])->call[GPU_HOST_WAIT] - waits, 0);
    b->ops->download(b, got, x, sizeof got);
    CHECK_OK(backend_sync(b, &e), &e);
    for (int i = 0; i < STEPS; i++) CHECK(memcmp(got[i], w[i * 5 % N], sizeof got[i]) == 0);
    b->ops->embed(b, m, NULL, 1, 0, x);
    CHECK_INT(backend_sync(b, &e), ST_DEVICE);
    CHECK_HAS(e.text, "outside of a step");
    b->ops->close(b);
}

/* ---- tokens */

TEST_LIMIT(backend_gpu_samples_as_the_cpu, 120)
{
    enum { N = 24 };
    int32_t tok[N], block[] = { 2, 0, 1 };
    struct engine_opts o = gpu_env_on(gpu_env_drawn(gpu_env_model("falcon-40b", 32), 1, 1));
    struct engine_seq seq = { 0, N, 0, 3, block };
    struct engine_out out[N];
    struct engine_step s = { N, 1, N, tok, &seq, out };
    struct engine_result r = { 0 };
    struct err e = { 0 };
    bool real = gpu_env_real(0);
    for (int i = 0; i < N; i++) {
        tok[i] = (i * 37 + 5) % GPU_ENV_VOCAB;
        out[i] = (struct engine_out){ N - 1 - i, i % 4 == 2 ? 20 : 0, i % 5 ? 1.5f : 0,
                                      i % 3 ? 0.9f : 1, i / (N + 0.5) };
    }
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (!g) return;
    void *tmp = malloc(kern_sample_bytes(GPU_ENV_VOCAB));
    CHECK_OK(engine_submit(g, &s, &e), &e);
    CHECK_OK(engine_collect(g, &r, &e), &e);
    if (!real) CHECK(gpu_host_tally(gpu_env_gpu[0])->kern[GPU_K_sample] == 1);
    for (int i = 0; i < N; i++) {
        struct kern_pick p = { out[i].temperature, out[i].top_k, out[i].top_p };
        CHECK_INT(r.tok[i],
                  kern_sample(r.logits + i * GPU_ENV_VOCAB, GPU_ENV_VOCAB, &p, out[i].u, tmp));
    }
    free(tmp);
    engine_close(g);
}
