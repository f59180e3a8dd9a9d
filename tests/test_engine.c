/* tests/test_engine.c - the engine against Hugging Face transformers, and against itself divided.
 *
 * Metric of logits: per position max |ours - theirs| / max |theirs|, the worst over positions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kern.h"
#include "tests/engine_env.h"
#include "tests/engine_ref.h"
#include "tests/test.h"

static struct backend *ref(struct team *t, const char *kernels, struct err *e)
{
    (void)t, (void)kernels, (void)e;
    return engine_ref_open();
}

static const char *golden(const char *name)
{
    static char dir[256];
    snprintf(dir, sizeof dir, "tests/golden/engine/%s", name);
    if (access(dir, R_OK) != 0) SKIP("tests run from the root of the repository");
    return dir;
}

/* All prompts of a case in chunks; the worst logits, and whether greedy tokens agree. */
static double run_case(const struct engine_opts *o, const struct engine_expect *x, int chunk,
                       bool tokens)
{
    struct err e = { 0 };
    double worst = 0;
    float *logits = malloc(sizeof(float) * 64 * (size_t)x->vocab);
    struct engine *g = engine_open(o, &e);
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < ENGINE_PROMPTS && g; i++) {
        int32_t out[ENGINE_GREEDY] = { 0 };
        CHECK_INT(engine_env_run(g, x, i, chunk, logits, out, &e), ST_OK);
        CHECK_TEXT(e.text, "");
        double miss = engine_env_miss(logits, x->logits[i], x->n_prompt[i], x->vocab);
        if (!(miss <= worst)) worst = miss;
        for (int k = 0; k < ENGINE_GREEDY && tokens; k++) CHECK_INT(out[k], x->greedy[i][k]);
    }
    engine_close(g);
    free(logits);
    return worst;
}

static void each_case(struct engine_opts o, int chunk, double most, bool tokens)
{
    for (int i = 0; i < ENGINE_CASES; i++) {
        struct arena a;
        struct engine_expect x = { 0 };
        struct err e = { 0 };
        arena_init(&a);
        o.model = golden(engine_case[i]);
        CHECK(engine_expect_read(o.model, &a, &x, &e));
        double miss = run_case(&o, &x, chunk, tokens);
        if (getenv("ENGINE_SHOW"))
            printf("%s tp %d pp %d: %.3g\n", engine_case[i], o.tp, o.pp, miss);
        if (!(miss <= most)) printf("%s: %g\n", engine_case[i], miss);
        CHECK(miss <= most);
        arena_release(&a);
    }
}

TEST(engine_reference_backend_matches_transformers)
{
    struct engine_opts o = engine_env_opts("", 1, 1);
    o.backend = ref;
    each_case(o, 32, 1e-5, true);
}

TEST(engine_matches_transformers_in_f32)
{
    each_case(engine_env_opts("", 1, 1), 32, 1e-4, true);
}

/* Every table of kernels that this processor runs. One of them, taken by name only, rounds x to
 * bf16 wherever weights are bf16, which the checkpoints' are in part: kern.h. */
TEST_LIMIT(engine_matches_transformers_with_all_kernels, 240)
{
    for (int i = 0; kern_at(i); i++) {
        struct engine_opts o = engine_env_opts("", 2, 1);
        o.kernels = kern_at(i)->name;
        each_case(o, 32, strcmp(o.kernels, "avx512_bf16") ? 1e-4 : 2e-2, false);
    }
}

TEST(engine_matches_transformers_in_bf16)
{
    struct engine_opts o = engine_env_opts("", 1, 1);
    o.m.weight = MODEL_BF16;
    o.m.kv = BACKEND_BF16;
    each_case(o, 32, 2e-2, false);
}

/* Every division that fits: 4 layers, 4 or 8 heads; KV heads split, or replicated where there are
 * fewer than ranks. Chunks of 7 tokens cut prompts off block boundaries. */
TEST_LIMIT(engine_greedy_tokens_are_the_same_for_all_divisions, 300)
{
    for (int tp = 1; tp <= 4; tp *= 2)
        for (int pp = 1; pp <= 4; pp *= 2) each_case(engine_env_opts("", tp, pp), 7, 1e-4, true);
}

/* Tokens can agree by luck; bits cannot. */
static void bits_of(const char *dir, const struct engine_expect *x, const int division[2],
                    float *to)
{
    struct err e = { 0 };
    struct engine_opts o = engine_env_opts(dir, division[0], division[1]);
    int32_t out[ENGINE_GREEDY];
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    if (g) CHECK_INT(engine_env_run(g, x, 0, 7, to, out, &e), ST_OK);
    engine_close(g);
}

TEST(engine_logits_have_the_same_bits_for_all_divisions)
{
    static const int division[][2] = { { 2, 1 }, { 4, 1 }, { 1, 2 }, { 2, 2 } };
    for (int i = 0; i < ENGINE_CASES; i++) {
        struct arena a;
        struct engine_expect x = { 0 };
        struct err e = { 0 };
        const char *dir = golden(engine_case[i]);
        arena_init(&a);
        CHECK(engine_expect_read(dir, &a, &x, &e));
        size_t n = (size_t)x.n_prompt[0] * (size_t)x.vocab;
        float *one = arena_array(&a, n, sizeof *one), *other = arena_array(&a, n, sizeof *other);
        bits_of(dir, &x, (const int[2]){ 1, 1 }, one);
        for (size_t k = 0; k < sizeof division / sizeof division[0]; k++) {
            bits_of(dir, &x, division[k], other);
            bool same = memcmp(one, other, n * sizeof *one) == 0;
            if (!same) printf("%s tp %d pp %d\n", dir, division[k][0], division[k][1]);
            CHECK(same);
        }
        arena_release(&a);
    }
}

TEST(engine_threads_within_ranks_change_nothing)
{
    struct engine_opts o = engine_env_opts("", 2, 1);
    o.threads = 3;
    each_case(o, 5, 1e-4, true);
}

TEST(engine_takes_any_layer_split)
{
    static const int split[] = { 1, 3 }, uneven[] = { 2, 1, 1 };
    struct engine_opts o = engine_env_opts("", 1, 2);
    o.split = split;
    each_case(o, 32, 1e-4, true);
    o = engine_env_opts("", 2, 3);
    o.split = uneven;
    each_case(o, 32, 1e-4, true);
}

static struct backend *one_fails(struct team *t, const char *kernels, struct err *e)
{
    static atomic_int opened;
    if (atomic_fetch_add(&opened, 1) != 2) return backend_cpu_open(t, kernels, e);
    err_set(e, ST_DEVICE, "the device is on fire");
    return NULL;
}

/* The others wait for it in the first barrier. */
TEST(engine_names_the_rank_that_fails)
{
    struct err e = { 0 };
    struct engine_opts o = engine_env_opts(golden("llama2"), 2, 2);
    o.backend = one_fails;
    CHECK(engine_open(&o, &e) == NULL);
    CHECK_INT(e.status, ST_DEVICE);
    CHECK_HAS(e.text, "rank ");
    CHECK_HAS(e.text, ": the device is on fire");
}
