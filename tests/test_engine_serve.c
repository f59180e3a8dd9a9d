/* tests/test_engine_serve.c - steps of many sequences, several in flight; wrong input; generation.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/generate.h"
#include "engine/kern.h"
#include "tests/engine_env.h"
#include "tests/test.h"

static const char *golden(const char *name)
{
    static char dir[256];
    snprintf(dir, sizeof dir, "tests/golden/engine/%s", name);
    if (access(dir, R_OK) != 0) SKIP("tests run from the root of the repository");
    return dir;
}

/* ---- batches */

enum { N_SEQ = 3, BLOCKS = 6, CTX = BLOCKS * ENGINE_BLOCK };

/* One sequence on its way: prompt, then its own tokens. */
struct flow {
    int32_t tok[CTX], block[BLOCKS];
    int n, done, wanted; /* known tokens, those in KV, where it ends */
};

static void flow_start(struct flow *f, const struct engine_expect *x, int i)
{
    f->n = x->n_prompt[i];
    f->done = 0;
    f->wanted = f->n + ENGINE_GREEDY;
    memcpy(f->tok, x->prompt[i], (size_t)f->n * sizeof *f->tok);
    for (int b = 0; b < BLOCKS; b++) f->block[b] = b * N_SEQ + i; /* interleaved */
}

/* Up to `most` tokens of each flow in one step, all together. */
static int mixed_step(struct engine *g, struct flow *f, int most, struct err *e)
{
    int32_t tok[96], who[N_SEQ];
    struct engine_seq seq[N_SEQ];
    struct engine_out out[N_SEQ] = { 0 };
    struct engine_step s = { .tok = tok, .seq = seq, .out = out };
    struct engine_result r;
    for (int i = 0; i < N_SEQ; i++) {
        int m = f[i].n - f[i].done < most ? f[i].n - f[i].done : most;
        if (m == 0 || f[i].n == f[i].wanted) continue;
        seq[s.n_seq++] = (struct engine_seq){ s.n_tok, m, f[i].done, BLOCKS, f[i].block };
        memcpy(tok + s.n_tok, f[i].tok + f[i].done, (size_t)m * sizeof *tok);
        s.n_tok += m;
        f[i].done += m;
        if (f[i].done < f[i].n) continue;
        who[s.n_out] = i;
        out[s.n_out++].row = s.n_tok - 1;
    }
    int st = engine_submit(g, &s, e);
    if (st == ST_OK) st = engine_collect(g, &r, e);
    for (int k = 0; k < s.n_out && st == ST_OK; k++) f[who[k]].tok[f[who[k]].n++] = r.tok[k];
    return st;
}

/* Prompts of 1, 5 and 26 tokens in one batch, chunked, prefills beside decodes: the same tokens as
 * each alone. */
TEST(engine_tokens_do_not_depend_on_who_else_is_in_the_step)
{
    for (int i = 0; i < ENGINE_CASES; i++)
        for (int most = 1; most <= 32; most = most * 3 + 1) {
            struct arena a;
            struct engine_expect x = { 0 };
            struct err e = { 0 };
            struct flow f[N_SEQ];
            arena_init(&a);
            struct engine_opts o = engine_env_opts(golden(engine_case[i]), 2, 2);
            o.m.n_block = N_SEQ * BLOCKS;
            o.m.max_tok = 96;
            CHECK(engine_expect_read(o.model, &a, &x, &e));
            struct engine *g = engine_open(&o, &e);
            for (int k = 0; k < N_SEQ; k++) flow_start(&f[k], &x, k);
            int st = g ? ST_OK : ST_DEVICE;
            for (bool more = true; more && st == ST_OK;) {
                st = mixed_step(g, f, most, &e);
                more = false;
                for (int k = 0; k < N_SEQ; k++) more |= f[k].n < f[k].wanted;
            }
            CHECK_TEXT(e.text, "");
            for (int k = 0; k < N_SEQ && st == ST_OK; k++)
                CHECK(memcmp(f[k].tok + x.n_prompt[k], x.greedy[k], sizeof x.greedy[k]) == 0);
            engine_close(g);
            arena_release(&a);
        }
}

/* Each output as kern_sample draws it from the logits that came with it; the same for all numbers of
 * threads and ranks. */
TEST(engine_samples_rows_the_same_on_any_threads)
{
    enum { N = 24 };
    static const int way[][2] = { { 1, 1 }, { 1, 2 }, { 1, 5 }, { 2, 2 }, { 4, 1 } };
    int32_t first[N], tok[N], block[] = { 2, 0, 1 };
    struct engine_seq seq = { 0, N, 0, 3, block };
    struct engine_out out[N];
    for (int i = 0; i < N; i++) {
        tok[i] = (i * 37 + 5) % 128;
        out[i] = (struct engine_out){ N - 1 - i, i % 4 == 2 ? 20 : 0, i % 5 ? 1.5f : 0,
                                      i % 3 ? 0.9f : 1, i / (N + 0.5) };
    }
    for (size_t w = 0; w < sizeof way / sizeof *way; w++) {
        struct engine_opts o = engine_env_opts(golden("falcon-40b"), way[w][0], 1);
        struct engine_step s = { N, 1, N, tok, &seq, out };
        struct engine_result r = { 0 };
        struct err e = { 0 };
        o.threads = way[w][1];
        struct engine *g = engine_open(&o, &e);
        CHECK_TEXT(e.text, "");
        if (!g) return;
        int32_t vocab = engine_spec(g)->a.vocab;
        void *tmp = malloc(kern_sample_bytes(vocab));
        CHECK_OK(engine_submit(g, &s, &e), &e);
        CHECK_OK(engine_collect(g, &r, &e), &e);
        if (w == 0) memcpy(first, r.tok, sizeof first);
        CHECK(memcmp(first, r.tok, sizeof first) == 0);
        for (int i = 0; i < N; i++) {
            struct kern_pick p = { out[i].temperature, out[i].top_k, out[i].top_p };
            CHECK_INT(r.tok[i], kern_sample(r.logits + i * vocab, vocab, &p, out[i].u, tmp));
        }
        free(tmp);
        engine_close(g);
    }
}

/* As many micro-batches in flight as there are stages: results come in order, tokens the same. */
TEST(engine_pipeline_keeps_steps_in_flight)
{
    struct arena a;
    struct engine_expect x = { 0 };
    struct err e = { 0 };
    struct flow f[N_SEQ];
    arena_init(&a);
    struct engine_opts o = engine_env_opts(golden("llama31"), 2, 4);
    o.m.n_block = N_SEQ * BLOCKS;
    CHECK(engine_expect_read(o.model, &a, &x, &e));
    struct engine *g = engine_open(&o, &e);
    CHECK_TEXT(e.text, "");
    CHECK(g && engine_depth(g) == 4);
    for (int k = 0; k < N_SEQ; k++) flow_start(&f[k], &x, k);
    for (int round = 0; round < ENGINE_GREEDY && g; round++) {
        for (int k = 0; k < N_SEQ; k++) {
            int m = f[k].n - f[k].done;
            struct engine_seq seq = { 0, m, f[k].done, BLOCKS, f[k].block };
            struct engine_out out = { .row = m - 1 };
            struct engine_step s = { m, 1, 1, f[k].tok + f[k].done, &seq, &out };
            CHECK_INT(engine_submit(g, &s, &e), ST_OK);
            f[k].done += m;
        }
        for (int k = 0; k < N_SEQ; k++) {
            struct engine_result r = { 0 };
            CHECK_INT(engine_collect(g, &r, &e), ST_OK);
            CHECK_INT(r.n_out, 1);
            f[k].tok[f[k].n++] = r.tok[0];
        }
    }
    for (int k = 0; k < N_SEQ; k++)
        CHECK(memcmp(f[k].tok + x.n_prompt[k], x.greedy[k], sizeof x.greedy[k]) == 0);
    CHECK_INT(engine_stop(g, &e), ST_OK);
    struct engine_rank_report rep;
    engine_report(g, 7, &rep);
    CHECK_INT(rep.steps, N_SEQ * ENGINE_GREEDY);
    CHECK_INT(rep.tp[COMM_ALLREDUCE].calls, 2 * rep.steps); /* one layer a stage, two a layer */
    engine_close(g);
    arena_release(&a);
}

/* ---- wrong input */

static void refused(struct engine_opts o, const char *says)
{
    struct err e = { 0 };
    struct engine *g = engine_open(&o, &e);
    CHECK(g == NULL);
    CHECK_INT(e.status, ST_USAGE);
    CHECK_HAS(e.text, says);
    engine_close(g);
}

TEST(engine_refuses_wrong_models_before_it_starts)
{
    struct engine_opts o = engine_env_opts(golden("llama31"), 1, 1);
    o.tp = 3;
    refused(o, "tp 3 does not divide the 8 attention heads of llama31");
    o = engine_env_opts(o.model, 1, 5);
    refused(o, "pp 5 exceeds the 4 layers");
    o = engine_env_opts(o.model, 1, 1);
    o.m.max_ctx = 129;
    refused(o, "context of 128");
    o = engine_env_opts(o.model, 1, 1);
    o.kernels = "abacus";
    refused(o, "no kernels 'abacus'");
    o.model = "tests/golden/engine/no-such-model";
    o.kernels = NULL;
    struct err e = { 0 };
    CHECK(engine_open(&o, &e) == NULL);
    CHECK_INT(e.status, ST_USAGE);
}

/* The weights of one case with the configuration of another. */
static void mixture(const char *config, const char *weights, int tp, int pp, const char *says)
{
    char cmd[900], out[8], err[256];
    snprintf(
        cmd, sizeof cmd,
        "cp tests/golden/engine/%s/config.json %s/ && cp tests/golden/engine/%s/model.safetensors "
        "%s/",
        config, test_dir(), weights, test_dir());
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    refused(engine_env_opts(test_dir(), tp, pp), says);
}

TEST(engine_names_missing_and_misshapen_tensors)
{
    (void)golden("llama2");
    mixture("falcon-7b", "llama31", 1, 1, "config.json describes a model of");
    mixture("llama2", "falcon-7b", 1, 1, "model.embed_tokens.weight is missing");
    mixture("llama2", "mistral", 2, 2,
            "model.layers.0.self_attn.k_proj.weight is 16 x 32, but the "
            "configuration needs 32 x 32");
    mixture("llama2", "llama31", 2, 2,
            "lm_head.weight is missing"); /* of several, always the first */
    mixture("llama-bias", "llama2", 4, 1, "config.json describes a model of");
    /* An untied head that the file does not have. */
    char cmd[600], out[8], err[256];
    snprintf(cmd, sizeof cmd,
             "cp tests/golden/engine/llama31/model.safetensors %s/ && sed "
             "'s/\"tie_word_embeddings\": true/\"tie_word_embeddings\": false/' "
             "tests/golden/engine/llama31/config.json > %s/config.json",
             test_dir(), test_dir());
    CHECK_INT(test_run(cmd, out, sizeof out, err, sizeof err), 0);
    refused(engine_env_opts(test_dir(), 2, 4), "lm_head.weight is missing");
}

TEST(engine_refuses_steps_that_are_not_possible_and_goes_on)
{
    struct err e = { 0 };
    struct engine_opts o = engine_env_opts(golden("qwen2"), 2, 2);
    struct engine *g = engine_open(&o, &e);
    int32_t tok[2] = { 1, 2 }, block[2] = { 0, 1 };
    const struct engine_seq good = { 0, 2, 0, 2, block };
    const struct engine_out end = { .row = 1 };
    CHECK_TEXT(e.text, "");
    for (int i = 0; i < 8 && g; i++) {
        struct engine_seq seq = good;
        struct engine_out out = end;
        struct engine_step s = { 2, 1, 1, tok, &seq, &out };
        tok[0] = i == 0 ? 128 : i == 1 ? -1 : 1;
        if (i == 2) seq.pos = 63;
        if (i == 3) seq.n_block = 0;
        if (i == 4) seq.n_q = 1;
        if (i == 5) out.row = 2;
        if (i == 6) s.n_tok = 33;
        block[1] = i == 7 ? 16 : 1;
        CHECK_INT(engine_submit(g, &s, &e), ST_RANGE);
        err_clear(&e);
    }
    block[1] = 1;
    struct engine_step s = { 2, 1, 1, tok, &good, &end };
    struct engine_result r = { 0 };
    CHECK_INT(engine_submit(g, &s, &e), ST_OK);
    CHECK_INT(engine_collect(g, &r, &e), ST_OK);
    CHECK_INT(r.n_out, 1);
    engine_close(g);
}

/* ---- generation */

static const int32_t prompt[] = { 3, 1, 4, 1, 5, 9, 2, 6 };

static struct generate_opts generation(const char *model)
{
    struct generate_opts o = {
        .prompt = prompt, .n_prompt = 8, .max_new = 12, .chunk = 512, .top_p = 1
    };
    o.e.model = model;
    o.e.tp = o.e.pp = o.e.threads = 1;
    return o;
}

/* Random weights need config.json only; divided or not they are the same model. */
TEST(generate_from_random_weights_is_the_same_model_divided)
{
    int32_t first[12];
    struct err e = { 0 };
    struct generate_result r;
    for (int i = 0; i < 4; i++) {
        struct generate_opts o = generation(golden("mistral"));
        o.e.random = true;
        o.e.seed = 5;
        o.e.tp = i == 1 ? 4 : i == 2 ? 2 : 1;
        o.e.pp = i >= 2 ? 4 : 1;
        o.e.threads = i == 3 ? 2 : 1;
        o.chunk = i == 0 ? 512 : 3;
        CHECK_OK(generate_run(&o, &r, &e), &e);
        if (i == 0) memcpy(first, r.tok, sizeof first);
        CHECK(memcmp(first, r.tok, sizeof first) == 0);
        CHECK(r.weight_bytes > 0 && r.read_bytes > 0 && r.load_s > 0);
        generate_release(&r);
    }
}

TEST(generate_samples_by_seed_and_greedily_without)
{
    struct err e = { 0 };
    struct generate_result r[4];
    for (int i = 0; i < 4; i++) {
        struct generate_opts o = generation(golden("falcon-40b"));
        o.temperature = i == 3 ? 0 : 1.5f;
        o.seed = i == 2 ? 8 : 7;
        o.e.tp = i == 1 ? 2 : 1;
        o.e.logits = i == 3;
        CHECK_OK(generate_run(&o, &r[i], &e), &e);
    }
    CHECK(memcmp(r[0].tok, r[1].tok, 12 * sizeof *r[0].tok) == 0);
    CHECK(memcmp(r[0].tok, r[2].tok, 12 * sizeof *r[0].tok) != 0);
    for (int k = 0; k < 12; k++)
        for (int v = 0; v < r[3].vocab; v++)
            CHECK(r[3].logits[k * r[3].vocab + v] <= r[3].logits[k * r[3].vocab + r[3].tok[k]]);
    for (int i = 0; i < 4; i++) generate_release(&r[i]);
}

TEST(generate_refuses_prompts_the_model_cannot_take)
{
    static const int32_t past[] = { 5, 128 };
    struct generate_result r;
    struct err e = { 0 };
    struct generate_opts o = generation(golden("llama2"));
    o.prompt = past;
    o.n_prompt = 2;
    CHECK_INT(generate_run(&o, &r, &e), ST_USAGE);
    CHECK_HAS(e.text, "token 2 of the prompt is 128; the vocabulary of llama2 has 128");
    err_clear(&e);
    o = generation(golden("llama2"));
    o.max_new = 121;
    CHECK_INT(generate_run(&o, &r, &e), ST_USAGE);
    CHECK_HAS(e.text,
              "8 tokens of prompt and 121 of output are more than the context of llama2, 128");
}
