/* tests/test_strategy.c - degrees that divide, and the division of layers against exhaustive
 * search. SPDX-License-Identifier: Apache-2.0 */
#include "model/strategy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

static struct strategy plan(int tp, int pp, int dp, int ep)
{
    return (struct strategy){ .tp = tp,
                              .pp = pp,
                              .dp = dp,
                              .ep = ep,
                              .weight_dtype = DT_BF16,
                              .kv_dtype = DT_BF16,
                              .split = "auto" };
}

/* A cluster large enough for any plan here. */
static bool load(const char *model, const char *hardware, struct arena *a, struct arch *arch,
                 struct hw *h)
{
    char path[128];
    struct err e = { 0 };
    snprintf(path, sizeof path, "scenarios/models/%s.json", model);
    bool ok = arch_read(path, arch, &e) == ST_OK && hw_load(hardware, NULL, 512, a, h, &e) == ST_OK;
    CHECK_TEXT(e.text, "");
    return ok;
}

static void verdict(const char *model, const struct strategy *s, const char *sentence)
{
    struct arena a;
    struct arch arch;
    struct hw h;
    struct err e = { 0 };
    arena_init(&a);
    if (load(model, "dgx-h100", &a, &arch, &h)) {
        CHECK_INT(strategy_check(s, &arch, &h, &e), sentence ? ST_USAGE : ST_OK);
        CHECK_TEXT(e.text, sentence ? sentence : "");
    }
    arena_release(&a);
}

TEST(strategy_rows_have_their_defaults)
{
    struct arena a;
    struct conf_set set;
    struct strategy s;
    struct err e = { 0 };
    arena_init(&a);
    conf_init(&set, &a);
    conf_add(&set, strategy_rows, &s, "strategy");
    CHECK(s.tp == 1 && s.pp == 1 && s.dp == 1 && s.ep == 1);
    CHECK(s.weight_dtype == DT_BF16 && s.kv_dtype == DT_BF16);
    CHECK_TEXT(s.split, "auto");
    CHECK_OK(conf_set_text(&set, "strategy.weights", "nvfp4", "x", &e), &e);
    CHECK_INT(s.weight_dtype, DT_NVFP4);
    CHECK_INT(conf_set_text(&set, "strategy.tp", "0", "x", &e), ST_USAGE);
    err_clear(&e);
    CHECK_INT(conf_set_text(&set, "strategy.pp", "65", "x", &e), ST_USAGE);
    err_clear(&e);
    CHECK_INT(conf_set_text(&set, "strategy.dp", "4097", "x", &e), ST_USAGE);
    for (int d = 0; d < DT_N; d++) { /* the words stand in the order of the enum */
        char text[16];
        CHECK_OK(
            conf_set_text(&set, "strategy.kv", dtype_name((enum dtype)d), "x", (err_clear(&e), &e)),
            &e);
        CHECK_INT(s.kv_dtype, d);
        CHECK_TEXT(conf_text(&set, "strategy.kv", text, sizeof text), dtype_name((enum dtype)d));
    }
    arena_release(&a);
}

TEST(strategy_dtype_sizes)
{
    CHECK_NEAR(dtype_bytes(DT_BF16), 2, 0);
    CHECK_NEAR(dtype_bytes(DT_F32), 4, 0);
    CHECK_NEAR(dtype_bytes(DT_FP8), 1, 0);
    CHECK_NEAR(dtype_bytes(DT_INT4) * 128, 64 + 2.25, 1e-15);
    CHECK_NEAR(dtype_bytes(DT_NVFP4) * 16, 9, 1e-15); /* 16 nibbles and one byte */
}

TEST(strategy_names_degrees_that_work)
{
    struct strategy s = plan(3, 1, 1, 1);
    verdict("llama-3-70b", &s,
            "tp 3 does not divide 64 heads; degrees that do: 1, 2, 4, 8, 16, 32, 64");
    s = plan(64, 1, 1, 1);
    verdict("llama-3-70b", &s, NULL); /* KV heads are replicated 8 times */
    s = plan(2, 1, 1, 1);
    verdict("falcon-7b", &s, "tp 2 does not divide 71 heads; degrees that do: 1, 71");
    s = plan(7, 1, 1, 1);
    verdict("qwen2.5-0.5b", &s,
            "tp 7 neither divides 2 KV heads nor is a multiple of them; degrees that "
            "work: 1, 2");
    s = plan(14, 1, 1, 1);
    verdict("qwen2.5-0.5b", &s, "tp 14 does not divide an MLP of 4864; degrees that do: 1, 2");
    s = plan(1, 33, 1, 1);
    verdict("llama-3-8b", &s, "pp 33 exceeds the 32 layers of llama-3-8b; at most 32");
    s = plan(1, 32, 1, 1);
    verdict("llama-3-8b", &s, NULL);
}

TEST(strategy_checks_experts)
{
    struct strategy s = plan(8, 1, 1, 8);
    verdict("mixtral-8x7b-v0.1", &s, NULL);
    s = plan(8, 1, 1, 4);
    verdict("mixtral-8x7b-v0.1", &s, NULL);
    s = plan(2, 1, 1, 4);
    verdict("mixtral-8x7b-v0.1", &s,
            "ep 4 does not divide tp 2 (experts are spread over the GPUs of one tp "
            "group); degrees that do: 1, 2");
    s = plan(16, 1, 1, 16);
    verdict("mixtral-8x7b-v0.1", &s,
            "ep 16 does not divide 8 experts; degrees that do: 1, 2, 4, 8");
    s = plan(2, 1, 1, 2);
    verdict("llama-3-8b", &s, "ep 2: llama-3-8b has no experts; leave ep at 1");
}

TEST(strategy_checks_the_width_of_an_expert)
{
    struct arena mem;
    struct arch arch;
    struct hw h;
    struct err e = { 0 };
    struct strategy s = plan(8, 1, 1, 2);
    arena_init(&mem);
    if (load("mixtral-8x7b-v0.1", "dgx-h100", &mem, &arch, &h)) {
        arch.ffn = 14338; /* 2 * 67 * 107 */
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_TEXT(e.text, "tp 8 / ep 2 does not divide an expert of 14338; ep that works: 4, 8");
        arch.n_expert = 7;
        arch.ffn = 14337;
        s.ep = 1;
        err_clear(&e);
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_HAS(e.text, "ep that works: none at this tp");
    }
    arena_release(&mem);
}

TEST(strategy_counts_gpus)
{
    struct arena mem;
    struct arch arch;
    struct hw h;
    struct err e = { 0 };
    struct strategy s = plan(8, 2, 2, 1);
    arena_init(&mem);
    if (load("llama-3-70b", "dgx-h100", &mem, &arch, &h)) {
        h.n_node = 1;
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_TEXT(e.text,
                   "tp 8 x pp 2 x dp 2 needs 32 GPUs; 1 node of dgx-h100 has 8, 4 nodes would do");
        h.n_node = 3;
        err_clear(&e);
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_HAS(e.text, "3 nodes of dgx-h100 have 24, 4 nodes");
        h.n_node = 4;
        err_clear(&e);
        CHECK_OK(strategy_check(&s, &arch, &h, &e), &e);
    }
    arena_release(&mem);
}

TEST(strategy_checks_limits)
{
    struct strategy s = plan(0, 1, 1, 1);
    verdict("llama-3-8b", &s, "tp 0 is outside 1 .. 1024");
    s = plan(1, -1, 1, 1);
    verdict("llama-3-8b", &s, "pp -1 is outside 1 .. 64");
    s = plan(1, 1, 4097, 1);
    verdict("llama-3-8b", &s, "dp 4097 is outside 1 .. 4096");
    s = plan(1, 1, 1, 0);
    verdict("llama-3-8b", &s, "ep 0 is outside 1 .. 1024");
}

TEST(strategy_checks_formats)
{
    struct arena mem;
    struct arch arch;
    struct hw h;
    struct err e = { 0 };
    struct strategy s = plan(1, 1, 1, 1);
    arena_init(&mem);
    if (load("llama-3-8b", "t4-1", &mem, &arch, &h)) {
        CHECK_OK(strategy_check(&s, &arch, &h, &e), &e); /* bf16 runs as f16 */
        s.weight_dtype = DT_INT4;
        CHECK_OK(strategy_check(&s, &arch, &h, &e), &e);
        s.weight_dtype = DT_FP8;
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_TEXT(
            e.text,
            "t4 cannot compute with fp8 weights; formats that it can: bf16, f16, f32, int8, int4");
        s.weight_dtype = DT_BF16;
        s.kv_dtype = DT_INT4;
        err_clear(&e);
        CHECK_INT(strategy_check(&s, &arch, &h, &e), ST_USAGE);
        CHECK_TEXT(
            e.text,
            "a KV cache in int4 is not modelled; formats that are: bf16, f16, f32, fp8, int8");
        s.kv_dtype = DT_FP8;
        err_clear(&e);
        CHECK_OK(strategy_check(&s, &arch, &h, &e), &e);
    }
    arena_release(&mem);
}

/* ---- division of layers */

static double slowest(const int *n, int pp, double layer, double first, double last)
{
    double high = 0;
    for (int p = 0; p < pp; p++) {
        double c = (p == 0 ? first : 0) + (p == pp - 1 ? last : 0) + n[p] * layer;
        if (c > high) high = c;
    }
    return high;
}

/* The best over all ways to cut `left` layers into stages p..pp-1. */
static double search(int left, int p, int *n, int pp, const double cost[3])
{
    double best = INFINITY;
    if (p == pp - 1) {
        n[p] = left;
        return slowest(n, pp, cost[0], cost[1], cost[2]);
    }
    for (int k = 1; k <= left - (pp - 1 - p); k++) {
        n[p] = k;
        double c = search(left - k, p + 1, n, pp, cost);
        if (c < best) best = c;
    }
    return best;
}

TEST(strategy_balance_equals_exhaustive_search)
{
    struct rng r = rng_stream(3, "test.strategy.balance");
    for (uint64_t i = 0; i < 3000; i++) {
        int pp = 1 + (int)rng_below(r, 8 * i, 5), n = pp + (int)rng_below(r, 8 * i + 1, 13);
        double scale[4] = { 0, 1, 3, 20 };
        double cost[3] = { 0.1 + rng_unit(r, 8 * i + 2), scale[i % 4] * rng_unit(r, 8 * i + 3),
                           scale[i / 4 % 4] * rng_unit(r, 8 * i + 4) };
        int out[8], tried[8], sum = 0;
        strategy_balance(n, pp, cost[0], cost[1], cost[2], out);
        for (int p = 0; p < pp; p++) {
            CHECK(out[p] >= 1);
            sum += out[p];
        }
        CHECK_INT(sum, n);
        CHECK_NEAR(slowest(out, pp, cost[0], cost[1], cost[2]), search(n, 0, tried, pp, cost),
                   1e-12);
    }
}

static void divided(int n_layer, int pp, double first, double last, const char *want)
{
    int out[STRATEGY_MAX_PP];
    char text[512] = "";
    strategy_balance(n_layer, pp, 1, first, last, out);
    for (int p = 0; p < pp; p++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s%d", p ? "," : "", out[p]);
    }
    CHECK_TEXT(text, want);
}

TEST(strategy_balance_known_answers)
{
    divided(80, 4, 0, 0, "20,20,20,20");
    divided(80, 1, 5, 5, "80");
    divided(82, 4, 0, 0, "20,21,21,20"); /* the remainder goes to the middle */
    divided(13, 4, 0, 0, "3,4,3,3");
    divided(80, 4, 0, 3, "21,21,21,17"); /* level 20.75: the head weighs three layers */
    divided(4, 4, 9, 9, "1,1,1,1");      /* nothing to choose */
    divided(10, 3, 100, 0, "1,5,4");     /* stage 0 is lost anyhow */
    divided(126, 16, 0, 0, "7,8,8,8,8,8,8,8,8,8,8,8,8,8,8,7");
}

TEST(strategy_balance_takes_extremes)
{
    int out[STRATEGY_MAX_PP];
    int64_t sum = 0;
    strategy_balance(1 << 24, 64, 1e-6, 1e-3, 5e-3, out);
    for (int p = 0; p < 64; p++) sum += out[p];
    CHECK_INT(sum, 1 << 24);
    strategy_balance(10, 4, NAN, 1, 1, out); /* no cost: as if equal */
    CHECK_INT(out[0] + out[1] + out[2] + out[3], 10);
    strategy_balance(10, 2, 1, 1e300, 0, out);
    CHECK_INT(out[0], 1);
    strategy_balance(10, 2, 0, 0, 0, out);
    CHECK_INT(out[0], 5);
}

TEST(strategy_epsilon_is_max_over_mean)
{
    double cost[4] = { 1, 1, 1, 2 };
    CHECK_NEAR(strategy_epsilon(cost, 4), 0.6, 1e-15);
    CHECK_NEAR(strategy_epsilon(cost, 3), 0, 0);
    cost[0] = cost[1] = 0;
    CHECK_NEAR(strategy_epsilon(cost, 2), 0, 0);
}

static void split_refused(const char *text, int n_layer, int pp, const char *sentence)
{
    int out[STRATEGY_MAX_PP];
    struct err e = { 0 };
    CHECK_INT(strategy_parse_split(text, n_layer, pp, out, &e), ST_USAGE);
    CHECK_HAS(e.text, sentence);
}

TEST(strategy_parses_a_split)
{
    int out[STRATEGY_MAX_PP];
    struct err e = { 0 };
    CHECK_OK(strategy_parse_split("20,20,19,21", 80, 4, out, &e), &e);
    CHECK(out[0] == 20 && out[1] == 20 && out[2] == 19 && out[3] == 21);
    CHECK_OK(strategy_parse_split("7", 7, 1, out, &e), &e);
    split_refused("20,20,19,20", 80, 4, "adds up to 79 layers, but the model has 80");
    split_refused("40,40", 80, 4, "has 2 stages, but pp is 4");
    split_refused("80", 80, 4, "has 1 stage, but pp is 4");
    split_refused("1,1,1,1,1", 80, 4, "has 5 stages, but pp is 4");
    static const char *bad[] = { "",
                                 ",",
                                 "20,",
                                 ",20",
                                 "20,,20",
                                 "20 20",
                                 "a,b",
                                 "-20,100",
                                 "20,0,60",
                                 "20.5,59.5",
                                 "99999999999999999999,1",
                                 "81,1",
                                 "autos",
                                 "+20,60",
                                 " 20,60" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        split_refused(bad[i], 80, 2, "expected 2 whole numbers from 1 to 80 with commas between");
}
