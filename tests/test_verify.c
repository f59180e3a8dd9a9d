/* tests/test_verify.c - the checks against deploy_init over random plans, the known answers, score, graph.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/pool.h"
#include "sim/verify.h"
#include "tests/test.h"

static const struct verify_ask no_ask = { .max_gpus = 64 };
static const struct verify_load small_load = {
    .n = 100, .mean_in = 400, .mean_out = 100, .longest = 900, .rate_per_s = 2
};

struct fixture {
    struct arena a;
    struct scenario s;
    struct hw hw;
    struct verify_case c;
    struct err e;
};

static void begin(struct fixture *f, const char *model, const char *hardware)
{
    memset(f, 0, sizeof *f);
    arena_init(&f->a);
    scenario_init(&f->s, NULL, NULL, &f->a);
    f->s.path = "test.yaml";
    f->s.o.model = model;
    f->s.o.hardware = hardware;
    CHECK_INT(hw_load(hardware, NULL, 1, &f->a, &f->hw, &f->e), ST_OK);
    CHECK_TEXT(f->e.text, "");
}

static bool opened(struct fixture *f, int64_t tp, int64_t pp, int64_t dp, bool fixed)
{
    struct verify_in in = {
        .base = &f->s, .hw = &f->hw, .ask = &no_ask, .load = &small_load, .fixed = fixed
    };
    f->s.strategy.tp = tp;
    f->s.strategy.pp = pp;
    f->s.strategy.dp = dp;
    int st = verify_case_open(&f->c, &in, &f->a, &f->e);
    CHECK_TEXT(f->e.text, "");
    if (st == ST_OK) verify_case_check(&f->c);
    return st == ST_OK;
}

static const struct verify_check *check_of(const struct verify_case *c, const char *name)
{
    static const struct verify_check none = { .name = "", .unit = "", .says = "", .rule = "" };
    for (int i = 0; i < c->n_check; i++)
        if (strcmp(c->check[i].name, name) == 0) return &c->check[i];
    return &none;
}

/* ---- known answers */

TEST(verify_llama3_70b_on_one_t4)
{
    struct fixture f;
    begin(&f, "llama-3-70b", "t4-1");
    if (opened(&f, 2, 4, 1, true)) {
        const struct verify_check *k = check_of(&f.c, "gpus");
        CHECK_INT(k->status, VERIFY_FAIL);
        CHECK_NEAR(k->deficit, 7, 0);
        CHECK(!verify_possible(&f.c));
        CHECK(verify_score(&f.c) <= VERIFY_FAIL_CAP);
        /* 141 GB of weights; 15,109 MiB of memory */
        CHECK_NEAR(2.0 * (double)arch_params(&f.c.arch), 141.1e9, 1e-3);
        CHECK_NEAR(f.c.hw.gpu.mem_bytes, 15109.0 * 1048576, 0);
        double all = 0;
        for (int p = 0; p < f.c.n_stage; p++) all += 2 * f.c.stage[p].mem.weights;
        /* norms stand on both ranks of a stage: 160 of 8192, 2 bytes */
        CHECK_NEAR(all, 2.0 * (double)arch_params(&f.c.arch) + 161 * 8192 * 2.0, 1e-9);
        CHECK_INT(check_of(&f.c, "memory.stage0")->status, VERIFY_FAIL);
        CHECK(check_of(&f.c, "memory.stage0")->deficit > 5e9);
        CHECK_INT(check_of(&f.c, "weights_format")->status, VERIFY_WARN);
        CHECK_INT(verify_case_deploy(&f.c, &f.e), ST_USAGE);
    }
    arena_release(&f.a);
}

TEST(verify_counts_what_tp2_pp4_sends)
{
    struct fixture f;
    struct verify_comm m;
    begin(&f, "llama-3-70b", "dgx-h100");
    f.s.strategy.split = "equal";
    if (opened(&f, 2, 4, 1, false)) {
        verify_comm_count(&f.c, &m);
        CHECK_INT(m.n_allreduce, 2);
        CHECK_NEAR(m.tok_bytes, 16 * 1024, 0);
        CHECK_NEAR(m.wire_ratio, 1, 0);
        /* 1000 tokens/s, 20 layers, 2 all-reduces of 16 KiB; hidden and residual, half a rank */
        CHECK_NEAR(m.tok_per_s, 1000, 1e-12);
        CHECK_NEAR(m.tp_wire_per_s, 1000.0 * 20 * 2 * 16384, 1e-12);
        CHECK_NEAR(m.pp_wire_per_s, 1000.0 * 2 * 16384 / 2, 1e-12);
        CHECK_NEAR(m.link_util, (m.tp_wire_per_s + m.pp_wire_per_s) / 450e9, 1e-12);
        for (int p = 0; p < 4; p++) CHECK_INT(f.c.stage[p].step.n_layer, 20);
        /* equal layers are unequal in time: the last stage has the head */
        CHECK(f.c.stage[3].time_s > f.c.stage[1].time_s);
        CHECK_NEAR(f.c.stage[3].time_s - f.c.stage[1].time_s, f.c.last_s, 1e-9);
        CHECK(f.c.eps_time > 0.01 && f.c.eps_time < 0.2);
        CHECK(verify_possible(&f.c));
        CHECK_INT(verify_case_deploy(&f.c, &f.e), ST_OK);
    }
    arena_release(&f.a);
}

static int64_t count_text(const char *text, const char *part)
{
    int64_t n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part)) n++;
    return n;
}

TEST(verify_graph_of_tp2_pp4_has_8_nodes_and_14_edges)
{
    struct fixture f;
    begin(&f, "llama-3-70b", "dgx-h100");
    if (opened(&f, 2, 4, 1, false)) {
        struct verify_dag g = verify_dag_count(&f.c.q.strategy);
        CHECK_INT(g.nodes, 8);
        CHECK_INT(g.edges, 14);
        CHECK_INT(g.tp_edges, 8);
        CHECK_INT(g.pp_edges, 6);
        const char *dot = verify_dag_dot(&f.c), *svg = verify_dag_svg(&f.c);
        CHECK_INT(count_text(dot, " -> "), 14);
        CHECK_INT(count_text(dot, "label=\"GPU "), 8);
        CHECK_INT(count_text(svg, "marker-end"), 14);
        CHECK_INT(count_text(svg, ">GPU "), 8);
    }
    arena_release(&f.a);
}

TEST(verify_graph_in_text_and_drawing_has_the_edges_counted)
{
    static const int t[][3] = { { 1, 1, 1 }, { 4, 1, 1 }, { 1, 8, 1 },
                                { 8, 2, 1 }, { 2, 2, 4 }, { 16, 4, 2 } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct fixture f;
        begin(&f, "llama-3-70b", "dgx-h100");
        if (opened(&f, t[i][0], t[i][1], t[i][2], false)) {
            struct verify_dag g = verify_dag_count(&f.c.q.strategy);
            CHECK_INT(g.nodes, t[i][0] * t[i][1] * t[i][2]);
            CHECK_INT(count_text(verify_dag_dot(&f.c), " -> "), g.edges);
            CHECK_INT(count_text(verify_dag_svg(&f.c), "marker-end"), g.edges);
        }
        arena_release(&f.a);
    }
}

TEST(verify_llama3_8b_does_not_fit_a_t4_in_16_bit_with_any_context)
{
    struct fixture f;
    begin(&f, "llama-3-8b", "t4-1");
    if (opened(&f, 1, 1, 1, true)) {
        /* 8,030,261,248 parameters of 2 bytes are 15,317 MiB, more than all of the 15,109 MiB */
        CHECK_INT(arch_params(&f.c.arch), 8030261248);
        CHECK(2 * 8030261248.0 > f.c.hw.gpu.mem_bytes);
        CHECK_INT(f.c.kv_blocks, 0);
        CHECK_INT(check_of(&f.c, "memory.stage0")->status, VERIFY_FAIL);
    }
    f.s.strategy.weight_dtype = DT_INT8;
    if (opened(&f, 1, 1, 1, true)) {
        CHECK_INT(check_of(&f.c, "memory.stage0")->status, VERIFY_PASS);
        CHECK(verify_context_max(f.c.kv_blocks, 16, 1, f.c.arch.max_ctx) == 8192);
    }
    arena_release(&f.a);
}

TEST(verify_context_is_what_a_sequence_of_a_batch_can_have)
{
    CHECK_INT(verify_context_max(100, 16, 1, 8192), 1600);
    CHECK_INT(verify_context_max(100, 16, 3, 8192), 33 * 16);
    CHECK_INT(verify_context_max(100, 16, 101, 8192), 0);
    CHECK_INT(verify_context_max(100000, 16, 1, 8192), 8192);
    CHECK_INT(verify_context_max(0, 16, 0, 8192), 0);
}

TEST(verify_names_every_fault_at_once)
{
    struct fixture f;
    begin(&f, "llama-3-8b", "a100-sxm-80gb");
    f.s.strategy.weight_dtype = DT_FP8; /* an A100 has no fp8 */
    f.s.strategy.kv_dtype = DT_INT4;
    f.s.strategy.ep = 2;
    if (opened(&f, 6, 40, 1, true)) {
        static const char *const bad[] = { "gpus",    "heads",  "kv_heads",       "ffn",
                                           "experts", "layers", "weights_format", "kv_format" };
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            if (!CHECK_INT(check_of(&f.c, bad[i])->status, VERIFY_FAIL))
                fprintf(stderr, "%s\n", bad[i]);
        for (int i = 0; i < f.c.n_check; i++) {
            CHECK(f.c.check[i].says[0] != 0);
            CHECK(f.c.check[i].rule[0] != 0);
        }
        CHECK_INT(verify_score(&f.c), 0);
    }
    arena_release(&f.a);
}

TEST(verify_score_is_the_points_and_a_cap)
{
    struct verify_case *c = mem_zalloc(1, sizeof *c);
    CHECK_INT(verify_score(c), 100);
    verify_add(c, "a", VERIFY_PASS, 50);
    verify_add(c, "b", VERIFY_UNKNOWN, 50);
    CHECK_INT(verify_score(c), 100);
    verify_add(c, "c", VERIFY_WARN, 10);
    CHECK_INT(verify_score(c), 90);
    CHECK(verify_possible(c));
    verify_add(c, "d", VERIFY_FAIL, 20);
    CHECK_INT(verify_score(c), VERIFY_FAIL_CAP);
    verify_add(c, "e", VERIFY_FAIL, 60);
    CHECK_INT(verify_score(c), 10);
    verify_add(c, "f", VERIFY_FAIL, 60);
    CHECK_INT(verify_score(c), 0);
    for (int i = 0; i < 2 * VERIFY_MAX_CHECK; i++) verify_add(c, "g", VERIFY_WARN, 0);
    CHECK_INT(c->n_check, VERIFY_MAX_CHECK);
    free(c);
}

/* ---- the property: the checks fail exactly where deploy_init refuses */

enum { N_RANDOM = 10000, MAX_HW = 64, N_ODD = 3 };

struct world {
    struct hw hw[MAX_HW];
    int n_hw;
    char odd[N_ODD][300];
    int agreed[N_RANDOM]; /* 1 both accept, 0 both refuse, -1 they differ */
    char why[N_RANDOM][240];
    int n_memory;
};

static const char *const models[] = { "llama-3-70b",  "llama-3-8b",        "falcon-180b",
                                      "falcon-7b",    "falcon-40b",        "qwen2.5-32b",
                                      "qwen2.5-0.5b", "mixtral-8x7b-v0.1", "llama-3.1-405b",
                                      "qwen3-32b",    "llama-3.2-1b",      "mixtral-8x22b-v0.1" };
enum { N_MODEL = sizeof models / sizeof *models };

static int64_t pick(struct rng r, uint64_t *i, const int64_t *list, size_t n)
{
    return list[rng_below(r, (*i)++, n)];
}
#define PICK(...)                                                                                  \
    pick(r, &i, (const int64_t[]){ __VA_ARGS__ },                                                  \
         sizeof(const int64_t[]){ __VA_ARGS__ } / sizeof(int64_t))

enum { N_FAULT = 10 };

/* Sound options but for one at most, so that each check is also the only one to fail, and many plans turn on
 * memory and the number of GPUs. */
static void make_sound(struct scenario *s, struct rng r, uint64_t i)
{
    uint64_t fault = rng_below(r, i++, 2 * N_FAULT);
    if (fault != 0) s->strategy.tp = PICK(1, 2, 4, 8);
    if (fault == 0) s->strategy.tp = PICK(3, 3, 6, 12, 5, 16);
    if (fault != 1) s->strategy.pp = PICK(1, 2, 4, 5);
    if (fault != 2) s->strategy.dp = PICK(1, 1, 2);
    if (fault != 3) s->strategy.ep = 1;
    if (fault != 4) s->strategy.weight_dtype = (int)PICK(DT_BF16, DT_F16, DT_FP8, DT_INT8, DT_INT4);
    if (fault != 5) s->strategy.split = rng_below(r, i++, 2) ? "auto" : "equal";
    if (fault != 6) s->strategy.kv_dtype = DT_BF16;
    if (fault != 7) s->policy.block_tok = 16;
    if (fault != 8) s->policy.kv_blocks = 0;
    if (fault != 9 && s->o.nodes > 0) s->o.nodes = 0;
}

static void random_scenario(struct rng r, const struct world *w, struct scenario *s, struct hw *h,
                            bool *fixed)
{
    uint64_t i = 0;
    static const char *const split[] = { "auto",  "auto",        "auto",  "equal", "16,16",
                                         "40,40", "20,20,19,21", "10,10", "1,2,x" };
    *h = w->hw[rng_below(r, i++, (uint64_t)w->n_hw)];
    *fixed = rng_below(r, i++, 2);
    h->n_node = h->sys.inter_bytes_per_s > 0 ? (int)PICK(1, 1, 1, 2, 4) : 1;
    s->o.nodes = *fixed ? 0 : PICK(0, 0, 0, 1, 2, 8);
    uint64_t model = rng_below(r, i++, N_MODEL + N_ODD);
    s->o.model = model < N_MODEL ? models[model] : w->odd[model - N_MODEL];
    s->o.fixed_ns = rng_below(r, i++, 30) ? 0 : 1000000;
    s->o.engine = (int)PICK(0, 1, 1, 2);
    s->strategy.tp = PICK(1, 1, 2, 2, 4, 4, 8, 8, 16, 32, 3, 5, 6, 7, 12, 71, 1024);
    s->strategy.pp = PICK(1, 1, 1, 1, 2, 2, 4, 4, 8, 3, 5, 16, 64);
    s->strategy.dp = PICK(1, 1, 1, 1, 2, 4, 64, 4096);
    s->strategy.ep = PICK(1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 3);
    s->strategy.weight_dtype = (int)PICK(DT_BF16, DT_BF16, DT_BF16, DT_F16, DT_F32, DT_FP8, DT_FP8,
                                         DT_INT8, DT_INT4, DT_NVFP4);
    s->strategy.kv_dtype = (int)PICK(DT_BF16, DT_BF16, DT_BF16, DT_BF16, DT_F16, DT_F32, DT_FP8,
                                     DT_INT8, DT_INT4, DT_NVFP4);
    s->strategy.split = split[rng_below(r, i++, sizeof split / sizeof *split)];
    s->policy.policy = (int)PICK(SCHED_VLLM, SCHED_VLLM, SCHED_SARATHI, SCHED_ORCA);
    s->policy.max_seqs = PICK(1, 16, 64, 256);
    s->policy.max_batch_tok = PICK(256, 256, 512, 2048);
    s->policy.chunk_tok = PICK(64, 512);
    s->policy.block_tok = PICK(1, 16, 16, 16, 64, 65536);
    s->policy.kv_blocks = PICK(0, 0, 0, 0, 0, 0, 1, 1000, 100000, 10000000);
    s->policy.memory_util = rng_below(r, i++, 2) ? 0.9 : 0.01 + 0.99 * rng_unit(r, i++);
    if (rng_below(r, i++, 3)) make_sound(s, r, i); /* the rest has any number of faults */
}

/* What a plan that both accept must agree on. */
static bool same_plan(const struct verify_case *c)
{
    const struct deploy *d = c->deploy;
    bool same = d->n_stage == c->n_stage && d->hw.n_node == c->hw.n_node;
    if (c->q.fixed_ns > 0) return same;
    same &=
        d->kv_blocks == c->kv_blocks && d->eps_bytes == c->eps_bytes && d->eps_time == c->eps_time;
    for (int p = 0; same && p < d->n_stage; p++) {
        const struct deploy_stage *x = &d->stage[p];
        const struct verify_stage *y = &c->stage[p];
        same &= x->step.n_layer == y->step.n_layer && x->step.tp_inter == y->step.tp_inter &&
                x->step.hop_inter == y->step.hop_inter && x->first_layer == y->first_layer &&
                x->mem.weights == y->mem.weights && x->mem.kv_blocks == y->mem.kv_blocks &&
                x->time_s == y->time_s;
    }
    return same;
}

static void one_pair(void *arg, int k)
{
    struct world *w = arg;
    struct arena a;
    struct err e = { 0 }, refusal = { 0 };
    struct scenario s;
    struct hw h;
    bool fixed;
    arena_init(&a);
    scenario_init(&s, NULL, NULL, &a);
    s.path = "random.yaml";
    random_scenario(rng_child(rng_stream(7, "test.verify"), (uint64_t)k), w, &s, &h, &fixed);
    struct verify_case *c = arena_alloc(&a, sizeof *c);
    struct verify_in in = {
        .base = &s, .hw = &h, .ask = &no_ask, .load = &small_load, .fixed = fixed
    };
    int st = verify_case_open(c, &in, &a, &e);
    if (st == ST_OK) verify_case_check(c);
    bool possible = st == ST_OK && verify_possible(c);
    bool accepted = st == ST_OK && verify_case_deploy(c, &refusal) == ST_OK;
    w->agreed[k] = possible == accepted ? accepted : -1;
    if (w->agreed[k] == 1 && !same_plan(c)) w->agreed[k] = -1;
    if (w->agreed[k] < 0 || st != ST_OK)
        snprintf(w->why[k], sizeof w->why[k], "%s: checks %d, deploy %d: %.40s%.100s", s.o.model,
                 possible, accepted, e.text, refusal.text);
    arena_release(&a);
}

/* Small models of which one size alone does not divide: KV heads, the MLP, experts. */
static void write_odd(struct world *w)
{
    static const struct {
        int heads, kv, ffn, experts;
    } odd[N_ODD] = { { 24, 8, 12288, 0 }, { 24, 24, 8192, 0 }, { 24, 24, 4096, 6 } };
    for (int i = 0; i < N_ODD; i++) {
        char name[20], experts[80] = "";
        snprintf(name, sizeof name, "odd%d.json", i);
        snprintf(w->odd[i], sizeof w->odd[i], "%s", test_path(name));
        FILE *f = fopen(w->odd[i], "w");
        if (!CHECK(f != NULL)) return;
        if (odd[i].experts)
            snprintf(experts, sizeof experts,
                     "\"num_local_experts\": %d, \"num_experts_per_tok\": 2,", odd[i].experts);
        fprintf(
            f,
            "{\"model_type\": \"%s\", \"hidden_size\": 3072, \"intermediate_size\": %d, "
            "\"num_hidden_layers\": 20, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
            "%s"
            "\"vocab_size\": 50257, \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-5, "
            "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false}\n",
            odd[i].experts ? "mixtral" : "llama", odd[i].ffn, odd[i].heads, odd[i].kv, experts);
        fclose(f);
    }
}

TEST_LIMIT(verify_passes_exactly_what_simulate_accepts, 240)
{
    struct world *w = mem_zalloc(1, sizeof *w);
    struct arena a;
    struct hw_gpu *gpu;
    struct hw_system *system;
    struct err e = { 0 };
    int n_gpu, n_system, n_accepted = 0, n_differ = 0;
    arena_init(&a);
    CHECK_OK(hw_list(&a, &gpu, &n_gpu, &system, &n_system, &e), &e);
    for (int i = 0; i < n_system && w->n_hw < MAX_HW; i++)
        CHECK_OK(hw_load(system[i].name, NULL, 1, &a, &w->hw[w->n_hw++], &e), &e);
    for (int i = 0; i < n_gpu && w->n_hw < MAX_HW; i += 8)
        CHECK_OK(hw_load(gpu[i].name, NULL, 1, &a, &w->hw[w->n_hw++], &e), &e);
    write_odd(w);
    pool_run(pool_cpus(), N_RANDOM, one_pair, w);
    for (int k = 0; k < N_RANDOM; k++) {
        n_accepted += w->agreed[k] == 1;
        if (w->agreed[k] < 0 && n_differ++ < 5) fprintf(stderr, "pair %d: %s\n", k, w->why[k]);
        CHECK_TEXT(w->agreed[k] < 0 ? "" : w->why[k], "");
    }
    CHECK_INT(n_differ, 0);
    printf("%d accepted by both, %d refused by both, %d differ\n", n_accepted,
           N_RANDOM - n_accepted - n_differ, n_differ);
    CHECK(n_accepted > N_RANDOM / 5 && n_accepted < N_RANDOM * 4 / 5);
    arena_release(&a);
    free(w);
}
