/* tests/test_memory.c - bytes per rank against counts known otherwise.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

#define MIB 1048576.0

static const struct memory_limits limits = {
    .max_batch_tok = 2048, .max_seqs = 256, .block_tok = 16, .util = 0.9
};

static struct strategy plan(int tp, int pp)
{
    return (struct strategy){
        .tp = tp, .pp = pp, .dp = 1, .ep = 1, .weight_dtype = DT_BF16, .kv_dtype = DT_BF16
    };
}

static struct arch model(const char *name)
{
    char path[128];
    struct err e = { 0 };
    struct arch a = { 0 };
    snprintf(path, sizeof path, "scenarios/models/%s.json", name);
    CHECK_INT(arch_read(path, &a, &e), ST_OK);
    return a;
}

static struct hw gpu(double mem_bytes)
{
    return (struct hw){ .gpu.mem_bytes = mem_bytes };
}

/* Sums over all ranks of all stages, layers divided as evenly as they go. */
static struct memory total(const struct arch *a, const struct strategy *s)
{
    struct hw h = gpu(80e9);
    struct memory sum = { 0 }, m;
    for (int p = 0; p < s->pp; p++) {
        int n = a->n_layer / (int)s->pp + (p < a->n_layer % s->pp);
        memory_stage(a, &h, s, p, n, &limits, &m);
        sum.params += m.params * (double)s->tp;
        sum.weights += m.weights * (double)s->tp;
        sum.kv_token += m.kv_token * (double)s->tp;
    }
    return sum;
}

TEST(memory_llama3_70b_known_answers)
{
    struct arch a = model("llama-3-70b");
    struct strategy s = plan(1, 1);
    CHECK_NEAR(total(&a, &s).weights, 141107412992.0, 0);
    CHECK_NEAR(total(&a, &s).kv_token, 327680, 0);
    /* Norms are on every rank, 161 of them; all else is cut. */
    s = plan(8, 1);
    CHECK_NEAR(total(&a, &s).weights, 141107412992.0 + 2.0 * 7 * 161 * 8192, 0);
    CHECK_NEAR(total(&a, &s).kv_token, 327680, 0);
    s = plan(4, 4);
    CHECK_NEAR(total(&a, &s).weights, 141107412992.0 + 2.0 * 3 * 161 * 8192, 0);
    CHECK_NEAR(total(&a, &s).kv_token, 327680, 0);
}

TEST(memory_on_one_rank_holds_all_parameters)
{
    static const char *names[] = { "llama-3-8b",     "qwen2.5-7b",  "qwen3-8b",
                                   "falcon-7b",      "falcon-40b",  "mixtral-8x7b-v0.1",
                                   "tinyllama-1.1b", "qwen2.5-0.5b" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct arch a = model(names[i]);
        struct strategy s = plan(1, 1);
        CHECK_NEAR(total(&a, &s).params, (double)arch_params(&a), 0);
        /* A tied head on a stage of its own is a second copy. */
        s = plan(1, 4);
        double copy = a.tied ? (double)arch_params_embed(&a) : 0;
        CHECK_NEAR(total(&a, &s).params, (double)arch_params(&a) + copy, 0);
    }
}

TEST(memory_replicates_kv_heads_beyond_their_number)
{
    struct arch a = model("llama-3-70b");
    struct strategy s = plan(64, 1);
    struct hw h = gpu(80e9);
    struct memory m;
    memory_stage(&a, &h, &s, 0, 80, &limits, &m);
    CHECK_NEAR(m.kv_token, 2.0 * 80 * 128 * 2, 0); /* one head, not an eighth of one */
    CHECK_NEAR(total(&a, &s).kv_token, 8 * 327680, 0);
    a = model("falcon-7b");
    s = plan(71, 1);
    memory_stage(&a, &h, &s, 0, 32, &limits, &m);
    CHECK_NEAR(m.kv_token, 8192, 0);
}

TEST(memory_keeps_ends_in_two_bytes)
{
    struct arch a = model("llama-3-8b");
    struct strategy s = plan(1, 1);
    double ends = 2.0 * 128256 * 4096 + 65 * 4096, body = 8030261248.0 - ends;
    s.weight_dtype = DT_INT4;
    CHECK_NEAR(total(&a, &s).weights, body * (0.5 + 2.25 / 128) + ends * 2, 1e-15);
    s.weight_dtype = DT_FP8;
    CHECK_NEAR(total(&a, &s).weights, body + ends * 2, 1e-15);
    s.weight_dtype = DT_F32;
    CHECK_NEAR(total(&a, &s).weights, 8030261248.0 * 4, 1e-15);
    s.kv_dtype = DT_FP8;
    CHECK_NEAR(total(&a, &s).kv_token, 65536, 0);
}

/* Experts over ranks, whole or cut: the same bytes; the router is on every rank. */
TEST(memory_of_experts)
{
    struct arch a = model("mixtral-8x7b-v0.1");
    struct strategy s = plan(8, 1);
    double cut = total(&a, &s).params;
    s.ep = 8;
    CHECK_NEAR(total(&a, &s).params, cut, 0);
    CHECK_NEAR(cut, 46702792704.0 + 7 * (65.0 * 4096 + 32 * 8 * 4096), 0);
}

TEST(memory_activation_and_constants)
{
    struct arch a = model("llama-3-8b");
    struct strategy s = plan(1, 2);
    struct hw h = gpu(80e9);
    struct memory_limits lim = limits;
    struct memory m;
    lim.max_batch_tok = 8192;
    memory_stage(&a, &h, &s, 0, 16, &lim, &m);
    CHECK_NEAR(m.activation, 8192.0 * (2 * 14336 + 4 * 4096) * 2, 0);
    CHECK_NEAR(m.comm, 342 * MIB, 0);
    lim.max_batch_tok = 100;
    memory_stage(&a, &h, &s, 0, 16, &lim, &m);
    CHECK_NEAR(m.activation, 70 * MIB, 0); /* the floor */
    memory_stage(&a, &h, &s, 1, 16, &lim, &m);
    CHECK_NEAR(m.activation, 100.0 * 128256 * 12, 0); /* rows: no more than tokens */
    lim.max_batch_tok = 4096;
    lim.max_seqs = 4096;
    memory_stage(&a, &h, &s, 1, 16, &lim, &m);
    CHECK_NEAR(m.activation, 1024.0 * 128256 * 12, 0); /* nor than 1024 */
    s = plan(1, 1);
    memory_stage(&a, &h, &s, 0, 32, &lim, &m);
    CHECK_NEAR(m.comm, 0, 0);
    s = plan(4, 1);
    memory_stage(&a, &h, &s, 0, 32, &lim, &m);
    CHECK_NEAR(m.comm, 392 * MIB, 0);
    CHECK_NEAR(m.graphs, 0.3 * 1024 * MIB, 0);
    CHECK_NEAR(m.other, 551 * MIB, 0);
}

TEST(memory_blocks_fill_the_room)
{
    struct arch a = model("llama-3-8b");
    struct strategy s = plan(1, 1);
    struct hw h = gpu(80e9);
    struct memory m, more;
    memory_stage(&a, &h, &s, 0, 32, &limits, &m);
    CHECK_NEAR(m.kv_bytes, 0.9 * 80e9 - m.weights - m.activation - m.comm - m.graphs - m.other,
               1e-12);
    CHECK((double)m.kv_blocks * 16 * m.kv_token <= m.kv_bytes);
    CHECK((double)(m.kv_blocks + 1) * 16 * m.kv_token > m.kv_bytes);
    h.gpu.mem_bytes += 16 * m.kv_token * 100 / 0.9;
    memory_stage(&a, &h, &s, 0, 32, &limits, &more);
    CHECK(llabs(more.kv_blocks - m.kv_blocks - 100) <= 1);
    h.gpu.mem_bytes = 10e9;
    memory_stage(&a, &h, &s, 0, 32, &limits, &m);
    CHECK(m.kv_bytes < 0);
    CHECK_INT(m.kv_blocks, 0);
}

/* Splitting over more ranks never needs more memory on one, while KV heads suffice. */
TEST(memory_falls_with_tp)
{
    static const char *names[] = { "llama-3-70b", "qwen2.5-72b", "falcon-40b",
                                   "mixtral-8x7b-v0.1" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct arch a = model(names[i]);
        struct hw h = gpu(80e9);
        struct memory m,
            before = { .weights = INFINITY, .kv_token = INFINITY, .kv_bytes = -INFINITY };
        for (int tp = 1; tp <= 8; tp *= 2) {
            struct strategy s = plan(tp, 1);
            memory_stage(&a, &h, &s, 0, a.n_layer, &limits, &m);
            CHECK(m.weights < before.weights && m.kv_token < before.kv_token &&
                  m.kv_bytes > before.kv_bytes);
            before = m;
        }
    }
}
