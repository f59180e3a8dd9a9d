/* tests/test_deploy.c - plans that run, and the sentence for each that cannot.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/deploy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static struct deploy_request request(const char *model, const char *hardware, int tp, int pp,
                                     int dp)
{
    return (struct deploy_request){
        .model = model,
        .hardware = hardware,
        .engine = "any",
        .strategy = { .tp = tp,
                      .pp = pp,
                      .dp = dp,
                      .ep = 1,
                      .weight_dtype = DT_BF16,
                      .kv_dtype = DT_BF16,
                      .split = "auto" },
        .lim = { .max_batch_tok = 2048, .max_seqs = 256, .block_tok = 16, .util = 0.9 },
    };
}

/* Runs deploy_init with all of it in one arena, which the caller releases. */
static bool deploys(const struct deploy_request *q, struct arena *a, struct deploy *d)
{
    struct err e = { 0 };
    arena_init(a);
    int st = deploy_init(q, a, d, &e);
    CHECK_TEXT(e.text, "");
    return st == ST_OK;
}

static void refused(const struct deploy_request *q, const char *sentence)
{
    struct arena a;
    struct deploy d;
    struct err e = { 0 };
    arena_init(&a);
    CHECK_INT(deploy_init(q, &a, &d, &e), ST_USAGE);
    CHECK_HAS(e.text, sentence);
    arena_release(&a);
}

TEST(deploy_fills_in_one_gpu)
{
    struct deploy_request q = request("llama-3-8b", "h100-sxm", 1, 1, 1);
    struct arena a;
    struct deploy d;
    if (deploys(&q, &a, &d)) {
        CHECK_TEXT(d.arch.name, "llama-3-8b");
        CHECK_INT(d.hw.n_node, 1);
        CHECK_INT(d.n_stage, 1);
        CHECK_INT(d.stage[0].step.n_layer, 32);
        CHECK(d.stage[0].step.has_embed && d.stage[0].step.has_head);
        CHECK_INT(d.kv_blocks, d.stage[0].mem.kv_blocks);
        CHECK(d.kv_blocks > 20000 && d.kv_blocks < 30000);
        CHECK_NEAR(d.eps_bytes, 0, 0);
        CHECK_NEAR(d.eps_time, 0, 0);
        CHECK(d.step && !d.table);
        /* 64 sequences of 1024 tokens: no sooner than the weights and the cache can be read */
        double bytes = 8030261248.0 * 2 - 128256.0 * 4096 * 2 + 64 * 1024 * 131072.0;
        CHECK(d.stage[0].time_s > bytes / 3.35e12 && d.stage[0].time_s < 4 * bytes / 3.35e12);
    }
    arena_release(&a);
}

TEST(deploy_takes_the_nodes_it_needs)
{
    static const struct {
        int tp, pp, dp, n_node;
    } t[] = { { 8, 1, 1, 1 }, { 8, 2, 1, 2 }, { 4, 2, 3, 3 }, { 1, 1, 9, 2 }, { 16, 1, 1, 2 } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct deploy_request q = request("llama-3-8b", "dgx-h100", t[i].tp, t[i].pp, t[i].dp);
        struct arena a;
        struct deploy d;
        if (deploys(&q, &a, &d)) CHECK_INT(d.hw.n_node, t[i].n_node);
        arena_release(&a);
    }
}

/* Ranks are laid out tp fastest, then pp, then dp, on nodes of 8. */
TEST(deploy_knows_which_links_leave_the_node)
{
    /* clang-format off */
    static const struct { int tp, pp, dp; const char *tp_inter, *hop_inter; } t[] = {
        { 8, 1, 1, "0", "0" },
        { 8, 4, 1, "0000", "1110" },
        { 2, 4, 1, "0000", "0000" },
        { 4, 4, 1, "0000", "0100" },
        { 16, 2, 1, "11", "10" },
        { 4, 3, 2, "000", "110" },     /* the second replica crosses where the first does not */
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct deploy_request q = request("llama-3-8b", "dgx-h100", t[i].tp, t[i].pp, t[i].dp);
        struct arena a;
        struct deploy d;
        char tp[8] = "", hop[8] = "";
        if (deploys(&q, &a, &d)) {
            for (int p = 0; p < d.n_stage; p++) {
                tp[p] = d.stage[p].step.tp_inter ? '1' : '0';
                hop[p] = d.stage[p].step.hop_inter ? '1' : '0';
            }
            CHECK_TEXT(tp, t[i].tp_inter);
            CHECK_TEXT(hop, t[i].hop_inter);
        }
        arena_release(&a);
    }
}

/* Nodes of 3 under groups of 2: ranks 2 and 3 of stage 1 sit apart, and 2 sends to 4, which is
 * with 3. */
TEST(deploy_counts_links_of_every_rank)
{
    struct deploy_request q = request("llama-3-8b", "threes.yaml", 2, 4, 1);
    struct arena a;
    struct deploy d;
    char beside[512];
    FILE *f = fopen(test_path("threes.yaml"), "w");
    CHECK(f &&
          fputs("gpu: h100-sxm\ngpus: 3\npeer: {rate: 300GB/s}\ninter: {rate: 20GB/s}\n", f) >= 0);
    if (f) fclose(f);
    snprintf(beside, sizeof beside, "%s", test_path("scenario.yaml"));
    q.beside = beside;
    if (deploys(&q, &a, &d)) {
        static const bool tp[4] = { false, true, false, false },
                          hop[4] = { true, true, true, false };
        CHECK_INT(d.hw.n_node, 3);
        for (int p = 0; p < 4; p++)
            CHECK(d.stage[p].step.tp_inter == tp[p] && d.stage[p].step.hop_inter == hop[p]);
    }
    arena_release(&a);
}

TEST(deploy_splits_layers)
{
    static const char *how[] = { "auto", "equal", "20,20,19,21", NULL };
    double auto_worst = INFINITY;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        struct deploy_request q = request("llama-3-70b", "dgx-h100", 2, 4, 1);
        struct arena a;
        struct deploy d;
        int next = 0;
        q.strategy.split = how[i];
        if (deploys(&q, &a, &d)) {
            double worst = 0, mean = 0, weights = 0, heaviest = 0;
            int64_t least = INT64_MAX;
            for (int p = 0; p < 4; p++) {
                CHECK_INT(d.stage[p].first_layer, next);
                next += d.stage[p].step.n_layer;
                worst = fmax(worst, d.stage[p].time_s);
                mean += d.stage[p].time_s / 4;
                weights += d.stage[p].mem.weights / 4;
                heaviest = fmax(heaviest, d.stage[p].mem.weights);
                if (d.stage[p].mem.kv_blocks < least) least = d.stage[p].mem.kv_blocks;
                CHECK(d.stage[p].step.has_embed == (p == 0) &&
                      d.stage[p].step.has_head == (p == 3));
            }
            CHECK_INT(next, 80);
            CHECK_INT(d.kv_blocks, least);
            CHECK_NEAR(d.eps_time, worst / mean - 1, 1e-9);
            CHECK_NEAR(d.eps_bytes, heaviest / weights - 1, 1e-9);
            if (i == 0) auto_worst = worst;
            CHECK(worst >= auto_worst * (1 - 1e-12)); /* none is better than the balance */
            if (i == 2) CHECK_INT(d.stage[3].step.n_layer, 21);
            if (i == 3) CHECK_NEAR(worst, auto_worst, 0); /* no word is auto */
        }
        arena_release(&a);
    }
}

TEST(deploy_refuses_a_wrong_split)
{
    struct deploy_request q = request("llama-3-70b", "dgx-h100", 2, 4, 1);
    q.strategy.split = "20,20,20,21";
    refused(&q, "adds up to 81 layers, but the model has 80");
    q.strategy.split = "even";
    refused(&q, "split 'even': expected 4 whole numbers");
}

TEST(deploy_says_what_does_not_fit)
{
    struct deploy_request q = request("llama-3-70b", "dgx-h100", 1, 1, 1);
    refused(&q, "llama-3-70b does not fit on h100-sxm at tp 1, pp 1: stage 0 needs");
    refused(&q, "(weights 141.11 GB), available are 76.44 GB at memory use 0.9, a deficit of");
    refused(&q, "tp 2 is the smallest that fits");
    q.strategy.weight_dtype = DT_INT4; /* a quarter of it does */
    struct arena a;
    struct deploy d;
    CHECK(deploys(&q, &a, &d));
    arena_release(&a);
    q = request("llama-3.1-405b", "2xrtx4090", 2, 1, 1);
    refused(&q, "a deficit of");
    q = request("falcon-180b", "t4-1", 1, 1, 1);
    refused(&q, "tp 232 is the smallest that fits, beyond the 1 of a node");
    q.lim.util = 0.05; /* less than context and graphs take */
    refused(&q, "no tp fits; take more stages or smaller formats");
}

/* The advice is true: at that degree it fits, at every valid one below it does not. */
TEST(deploy_advice_holds)
{
    static const struct {
        const char *model, *hardware;
        int tp;
    } t[] = {
        { "llama-3-70b", "dgx-h100", 2 },
        { "llama-3-70b", "aws-p4d", 4 },
        { "falcon-40b", "aws-p4d", 4 },
        { "mixtral-8x22b-v0.1", "dgx-h100", 4 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char advice[64];
        snprintf(advice, sizeof advice, "tp %d is the smallest that fits", t[i].tp);
        for (int tp = 1; tp < t[i].tp; tp *= 2) {
            struct deploy_request q = request(t[i].model, t[i].hardware, tp, 1, 1);
            refused(&q, advice);
        }
        struct deploy_request q = request(t[i].model, t[i].hardware, t[i].tp, 1, 1);
        struct arena a;
        struct deploy d;
        CHECK(deploys(&q, &a, &d));
        arena_release(&a);
    }
}

TEST(deploy_believes_given_blocks_within_reason)
{
    struct deploy_request q = request("llama-3-8b", "h100-sxm", 1, 1, 1);
    struct arena a;
    struct deploy d;
    q.kv_blocks = 27000; /* 56.6 GB: more than is left at 0.9, less than the device */
    if (deploys(&q, &a, &d)) CHECK_INT(d.kv_blocks, 27000);
    arena_release(&a);
    q.kv_blocks = 40000;
    refused(
        &q,
        "40000 KV blocks (83.89 GB) and the weights of stage 0 (16.06 GB) exceed the 84.93 GB of a "
        "GPU by 15.01 GB");
    q.kv_blocks = -1;
    refused(&q, "-1 KV blocks are given");
}

TEST(deploy_names_what_it_does_not_know)
{
    struct deploy_request q = request("llama-3-7b", "h100-sxm", 1, 1, 1);
    refused(&q, "no model 'llama-3-7b'; did you mean 'llama-");
    refused(&q, "or one of: falcon-180b, falcon-40b");
    q.model = "abacus";
    refused(&q, "no model 'abacus'; a path to a config.json, or one of:");
    q.model = NULL;
    refused(&q, "no model is named");
    q = request("llama-3-8b", "h100-sx", 1, 1, 1);
    refused(&q, "no hardware 'h100-sx'; did you mean 'h100-sxm'?");
    q.hardware = "";
    refused(&q, "no hardware is named");
    q = request("llama-3-8b", "h100-sxm", 2, 1, 1);
    refused(&q, "h100-sxm has no inter.rate, so 2 nodes of it cannot be joined");
    q = request("llama-3-8b", "dgx-h100", 3, 1, 1);
    refused(&q, "tp 3 does not divide 32 heads");
    q = request("llama-3-8b", "dgx-h100", 8, 2, 1);
    q.n_node = 1;
    refused(&q, "needs 16 GPUs; 1 node of dgx-h100 has 8, 2 nodes would do");
    q.n_node = -1;
    refused(&q, "-1 nodes: at least 1 is needed");
    q = request("llama-3-8b", "dgx-h100", 1, 1, 1);
    q.strategy.tp = 1 << 30;
    q.strategy.dp = 1 << 30;
    refused(&q, "tp 1073741824 is outside 1 .. 1024");
}

TEST(deploy_checks_limits)
{
    struct deploy_request q = request("llama-3-8b", "h100-sxm", 1, 1, 1);
    q.lim.util = 1.5;
    refused(&q, "memory use 1.5 is outside 0 .. 1");
    q.lim.util = NAN;
    refused(&q, "is outside 0 .. 1");
    q.lim.util = 0.9;
    q.lim.block_tok = 0;
    refused(&q, "a KV block of 0 tokens is outside 1 .. 65536");
    q.lim.block_tok = 16;
    q.lim.max_seqs = 0;
    refused(&q, "a step of 2048 tokens and 0 sequences holds nothing");
}

TEST(deploy_reads_a_model_beside_the_scenario)
{
    struct deploy_request q = request("own.json", "h100-sxm", 1, 1, 1);
    struct arena a;
    struct deploy d;
    char beside[512];
    FILE *f = fopen(test_path("own.json"), "w");
    CHECK(f && fputs("{\"model_type\":\"llama\",\"hidden_size\":256,\"num_hidden_layers\":4,"
                     "\"num_attention_heads\":4,\"vocab_size\":1000,\"intermediate_size\":512,"
                     "\"max_position_embeddings\":512}\n",
                     f) >= 0);
    if (f) fclose(f);
    snprintf(beside, sizeof beside, "%s", test_path("scenario.yaml"));
    q.beside = beside;
    if (deploys(&q, &a, &d)) CHECK_TEXT(d.arch.name, "own");
    arena_release(&a);
}

/* The degenerate server needs no room: names and degrees are checked, memory is not. */
TEST(deploy_fixed_cost_skips_memory)
{
    struct deploy_request q = request("llama-3-70b", "h100-sxm", 1, 1, 1);
    struct arena a;
    struct deploy d;
    struct step_shape s = { .n_decode = 3, .sum_ctx = 30, .n_logits = 3 };
    q.fixed_ns = 5000000;
    if (deploys(&q, &a, &d)) {
        CHECK_INT(d.kv_blocks, 1 << 20);
        CHECK_INT(step_total_fp(d.step, 0, &s), (int64_t)5000000 << STEP_FP_BITS);
        CHECK_NEAR(d.stage[0].time_s, 5e-3, 1e-12);
    }
    arena_release(&a);
    q.kv_blocks = 77;
    if (deploys(&q, &a, &d)) CHECK_INT(d.kv_blocks, 77);
    arena_release(&a);
    q.strategy.tp = 3;
    q.hardware = "dgx-h100";
    refused(&q, "tp 3 does not divide 64 heads");
}

TEST(deploy_steps_with_other_constants)
{
    struct deploy_request q = request("llama-3-8b", "h100-sxm", 1, 1, 1);
    struct arena a;
    struct deploy d;
    struct err e = { 0 };
    struct step_shape s = { .n_decode = 64, .sum_ctx = 65536, .n_logits = 64 };
    if (deploys(&q, &a, &d)) {
        struct step *same, *slow;
        struct profile p = d.profile;
        CHECK_OK(deploy_step(&d, &p, &a, &same, &e), &e);
        CHECK_INT(step_total_fp(same, 0, &s), step_total_fp(d.step, 0, &s));
        p.p[P_GEMM_EM].v /= 2;
        CHECK_OK(deploy_step(&d, &p, &a, &slow, &e), &e);
        CHECK(step_total_fp(slow, 0, &s) > step_total_fp(same, 0, &s));
    }
    arena_release(&a);
}

/* vLLM 0.19 reported 36,578 blocks of 16 tokens for this plan (public run records of
 * LLMServingSim). The memory model is not fitted to it; the distance is kept in sight. */
TEST(deploy_blocks_of_a_published_run)
{
    struct deploy_request q = request("llama-3.1-8b", "rtxpro6000-1", 1, 1, 1);
    struct arena a;
    struct deploy d;
    q.lim.max_seqs = 128;
    if (deploys(&q, &a, &d)) {
        printf("    blocks: %lld predicted, 36578 reported (%+.2f %%)\n", (long long)d.kv_blocks,
               100.0 * ((double)d.kv_blocks / 36578 - 1));
        CHECK_NEAR((double)d.kv_blocks, 36578, 0.05);
    }
    arena_release(&a);
}
