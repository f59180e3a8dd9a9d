/* tests/test_step.c - the cost of a step: exact lines, sums of classes, monotone, sane against
 * lower bounds. SPDX-License-Identifier: Apache-2.0 */
#include "model/step.h"

#include <math.h>

#include "model/ops.h"
#include "tests/model_env.h"

static const struct arch *const models[] = { &env_llama70, &env_llama8, &env_qwen32, &env_falcon7,
                                             &env_mixtral };
static const char *const systems[] = { "dgx-h100", "dgx-a100", "8xl40s-pcie", "8xrtxpro6000-pcie",
                                       "8xmi300x" };
enum { N_MODEL = 5, N_SYSTEM = 5 };

static int64_t line_at(const struct step_line *l, int64_t sum)
{
    return l->a_fp + l->b_fp * sum;
}

/* The whole contract between step_cost, step_total_fp and step_line for one decode shape, at sums
 * over the line. */
static void check_line(const struct step *m, int stage, struct step_shape s, struct rng r)
{
    struct step_line l;
    step_line(m, stage, s.n_decode, s.sum_ctx, s.skew, &l);
    CHECK(l.ctx_end > s.sum_ctx && l.b_fp >= 0);
    int64_t span = l.ctx_end == INT64_MAX ? (int64_t)1 << 34 : l.ctx_end - s.sum_ctx;
    int64_t at[6] = { s.sum_ctx, s.sum_ctx + 1,
                      l.ctx_end == INT64_MAX ? s.sum_ctx + span : l.ctx_end - 1,
                      s.sum_ctx + s.n_decode };
    at[4] = s.sum_ctx + (int64_t)rng_below(r, 1, (uint64_t)span);
    at[5] = s.sum_ctx + (int64_t)rng_below(r, 2, (uint64_t)span);
    for (int i = 0; i < 6; i++) {
        struct step_cost c;
        if (at[i] >= l.ctx_end) continue;
        s.sum_ctx = at[i];
        step_cost(m, stage, &s, &c);
        CHECK_INT(c.total_fp, line_at(&l, at[i]));
        CHECK_INT(step_total_fp(m, stage, &s), c.total_fp);
        int64_t sum = 0, by_line = 0;
        for (int k = 0; k < STEP_N_CLASS; k++) {
            CHECK(c.class_fp[k] >= 0);
            sum += c.class_fp[k];
            by_line += l.class_a_fp[k];
            CHECK_INT(c.class_fp[k],
                      l.class_a_fp[k] + (k == (int)l.line_class ? l.b_fp * at[i] : 0));
        }
        CHECK_INT(sum, c.total_fp);
        CHECK_INT(by_line, l.a_fp);
    }
    if (l.ctx_end == INT64_MAX) return;
    /* Just past the end the cost does not fall; rounding of a slope may take a few ns over a cell.
     */
    s.sum_ctx = l.ctx_end;
    CHECK(step_total_fp(m, stage, &s) >=
          line_at(&l, l.ctx_end - 1) - ((int64_t)16 << STEP_FP_BITS));
}

TEST(step_decode_is_exactly_its_line)
{
    struct rng r = rng_stream(3, "lines");
    uint64_t i = 0;
    for (int k = 0; k < 40; k++) {
        struct env v;
        const struct arch *a = models[k % N_MODEL];
        int tp = a->family == ARCH_FALCON ? 1 : 1 << rng_below(r, i++, 4);
        CHECK_OK(env_init(&v, a, systems[k / N_MODEL % N_SYSTEM], tp), &v.e);
        v.profile.host_overlap = k % 3 != 0;
        if (k % 4 == 1) v.profile.p[P_HOST_STEP_S].v = 0.02;
        if (k % 4 == 2) v.profile.p[P_HOST_STEP_S].v = v.profile.p[P_HOST_GAP_S].v = 0;
        v.setup.max_batch_tok = 256;
        CHECK_OK(env_prepare(&v), &v.e);
        for (int n = 0; n < 60; n++) {
            struct step_shape s = { .n_decode = 1 + (int64_t)rng_below(r, i++, 256) };
            double mean = exp(rng_unit(r, i++) * 14);
            s.sum_ctx = s.n_decode + (int64_t)(mean * (double)s.n_decode);
            s.skew = (int64_t)(exp(rng_unit(r, i++) * 12) - 1) * s.n_decode;
            s.n_logits = s.n_decode;
            check_line(v.step, 0, s, rng_child(r, i++));
        }
        env_release(&v);
    }
}

TEST(step_saturates_at_one_hour)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama70, "t4-1", 1), &v.e);
    CHECK_OK(env_prepare(&v), &v.e);
    const int64_t hour = (int64_t)3600 * 1000000000 << STEP_FP_BITS;
    struct step_shape s = { .n_decode = 1, .sum_ctx = INT64_MAX / 4, .n_logits = 1 };
    struct step_line l;
    CHECK_INT(step_total_fp(v.step, 0, &s), hour);
    step_line(v.step, 0, 1, s.sum_ctx, 0, &l);
    CHECK_INT(l.a_fp, hour);
    step_line(v.step, 0, 1, 1, INT64_MAX / 2, &l);
    CHECK_INT(l.a_fp, hour);
    /* The line below the ceiling ends where the ceiling begins. */
    step_line(v.step, 0, 1, 1000, 0, &l);
    s.sum_ctx = l.ctx_end;
    CHECK_INT(step_total_fp(v.step, 0, &s), hour);
    s.sum_ctx = l.ctx_end - 1;
    CHECK(step_total_fp(v.step, 0, &s) <= hour && l.ctx_end < INT64_MAX);
    s = (struct step_shape){ .n_decode = 3,
                             .sum_ctx = 9,
                             .n_prefill = 1,
                             .prefill_tok = 100,
                             .prefill_pairs = INT64_MAX / 2,
                             .n_logits = 4 };
    struct step_cost c;
    step_cost(v.step, 0, &s, &c);
    CHECK_INT(c.total_fp, hour);
    int64_t sum = 0;
    for (int k = 0; k < STEP_N_CLASS; k++) sum += c.class_fp[k];
    CHECK_INT(sum, hour);
    env_release(&v);
}

static struct step_shape random_mixed(struct rng r)
{
    struct step_shape s = { .n_decode = (int64_t)rng_below(r, 0, 200),
                            .n_prefill = 1 + (int64_t)rng_below(r, 1, 4) };
    s.sum_ctx = s.n_decode * (1 + (int64_t)rng_below(r, 2, 8000));
    s.skew = s.n_decode ? (int64_t)rng_below(r, 3, 20000) : 0;
    for (int64_t i = 0; i < s.n_prefill; i++) {
        int64_t q = 1 + (int64_t)rng_below(r, (uint64_t)(4 + 2 * i), 450);
        int64_t p = rng_below(r, (uint64_t)(5 + 2 * i), 2)
                        ? (int64_t)rng_below(r, (uint64_t)(20 + i), 6000)
                        : 0;
        s.prefill_tok += q;
        s.prefill_past += p;
        s.prefill_pairs += q * p + q * (q + 1) / 2;
    }
    s.n_logits = s.n_decode + (int64_t)rng_below(r, 30, (uint64_t)s.n_prefill + 1);
    return s;
}

TEST(step_mixed_classes_add_up_and_rise)
{
    struct rng r = rng_stream(4, "mixed");
    for (int k = 0; k < N_MODEL * N_SYSTEM; k++) {
        struct env v;
        const struct arch *a = models[k % N_MODEL];
        CHECK_OK(env_init(&v, a, systems[k / N_MODEL], a->family == ARCH_FALCON ? 1 : 4), &v.e);
        v.profile.host_overlap = k % 2;
        CHECK_OK(env_prepare(&v), &v.e);
        for (uint64_t i = 0; i < 80; i++) {
            struct step_shape s = random_mixed(rng_child(r, (uint64_t)k * 1000 + i));
            struct step_cost c;
            step_cost(v.step, 0, &s, &c);
            CHECK_INT(step_total_fp(v.step, 0, &s), c.total_fp);
            int64_t sum = 0;
            for (int j = 0; j < STEP_N_CLASS; j++) {
                CHECK(c.class_fp[j] >= 0);
                sum += c.class_fp[j];
            }
            CHECK_INT(sum, c.total_fp);
            /* More tokens, contexts, pairs or logits never make it cheaper. */
            struct step_shape more[5] = { s, s, s, s, s };
            more[0].prefill_tok += 37, more[0].prefill_pairs += 37 * 38 / 2;
            more[1].sum_ctx += s.n_decode * 10;
            more[2].prefill_past += 500, more[2].prefill_pairs += 500 * 10;
            more[3].n_logits++;
            more[4].skew += s.n_decode * 100;
            for (int j = 0; j < 5; j++)
                CHECK(step_total_fp(v.step, 0, more + j) >=
                      c.total_fp - ((int64_t)1 << STEP_FP_BITS));
        }
        env_release(&v);
    }
}

/* The tables against the operators they are built from, summed here without them. */
TEST(step_tables_agree_with_the_operator_list)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama70, "dgx-h100", 8), &v.e);
    v.setup.max_batch_tok = 16384;
    v.profile.p[P_HOST_STEP_S].v = v.profile.p[P_HOST_SEQ_S].v = v.profile.p[P_HOST_GAP_S].v = 0;
    CHECK_OK(env_prepare(&v), &v.e);
    struct ops_env o = { &v.arch, &v.hw, &v.strategy, &v.profile, NULL };
    struct rng r = rng_stream(5, "ops");
    double worst = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        struct step_shape s = random_mixed(rng_child(r, i));
        int64_t extra = (int64_t)rng_below(r, i, 14000);
        s.prefill_tok += extra;
        s.prefill_pairs += extra * (extra + 1) / 2;
        s.skew = 0;
        struct op op[OPS_MAX];
        int n = ops_list(&o, v.stage, &s, op);
        double want = 0;
        for (int k = 0; k < n; k++)
            if (op[k].by != OP_BY_SEQ || s.n_logits > 0)
                want += op[k].count * ops_time_s(&o, v.stage, op + k, NULL, NULL);
        double got = env_s(step_total_fp(v.step, 0, &s));
        worst = fmax(worst, fabs(got / want - 1));
    }
    CHECK(worst < 1e-3);
    printf("    largest difference %.2g\n", worst);
    env_release(&v);
}

/* Llama 3 70B, bf16, TP8 on H100: 17.6 GB of weights and the contexts over 3.35 TB/s bound a decode
 * step from below; launches, collectives and achieved bandwidth make it 1.2 to 3 times that at
 * small batches. */
TEST(step_decode_of_70b_against_the_memory_bound)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama70, "dgx-h100", 8), &v.e);
    CHECK_OK(env_prepare(&v), &v.e);
    double weights =
        2.0 *
        (80.0 * (8192.0 * (8192 + 2048) + 8192.0 * 8192 + 3.0 * 8192 * 28672) + 8192.0 * 128256) /
        8;
    for (int64_t n = 1; n <= 64; n *= 2) {
        struct step_shape s = { .n_decode = n, .sum_ctx = n * 2048, .n_logits = n };
        double bytes = weights + (double)s.sum_ctx * 2 * 80 * 128 * 2;
        double t = env_s(step_total_fp(v.step, 0, &s)), bound = bytes / 3.35e12;
        CHECK(t > 1.2 * bound && t < 3 * bound);
        if (n == 1 || n == 64)
            printf("    n=%d: %.2f ms, memory bound %.2f ms\n", (int)n, t * 1e3, bound * 1e3);
    }
    struct step_cost c;
    struct step_shape s = { .n_decode = 64, .sum_ctx = 64 * 2048, .n_logits = 64 };
    step_cost(v.step, 0, &s, &c);
    for (int k = 0; k < STEP_N_CLASS; k++)
        printf("    %-10s %.3f ms\n", step_class_name((enum step_class)k),
               env_s(c.class_fp[k]) * 1e3);
    /* 161 all-reduces of 1 MiB: 15.0 us each measured, plus at most 2 us of rank skew. */
    CHECK(env_s(c.class_fp[STEP_COLL]) > 161 * 14e-6 && env_s(c.class_fp[STEP_COLL]) < 162 * 18e-6);
    env_release(&v);
}

/* Prefill of 2048 tokens: 2 * parameters * tokens FLOP over the tensor peak is the floor. */
TEST(step_prefill_of_8b_against_the_compute_bound)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "h100-sxm", 1), &v.e);
    CHECK_OK(env_prepare(&v), &v.e);
    struct step_shape s = {
        .n_prefill = 1, .prefill_tok = 2048, .prefill_pairs = 2048 * 2049 / 2, .n_logits = 1
    };
    double flop = 2.0 * 2048 * 32 * (4096.0 * (4096 + 2048) + 4096.0 * 4096 + 3.0 * 4096 * 14336);
    double t = env_s(step_total_fp(v.step, 0, &s));
    CHECK(t > flop / 989e12 && t < 2 * flop / 989e12);
    env_release(&v);
}

/* The GEMM weights of the operator list are the model's parameters, but for norms, biases,
 * embedding and router. */
TEST(step_operators_hold_the_parameters)
{
    for (int i = 0; i < N_MODEL; i++) {
        const struct arch *a = models[i];
        struct env v;
        CHECK_OK(env_init(&v, a, "h100-sxm", 1), &v.e);
        struct ops_env o = { &v.arch, &v.hw, &v.strategy, &v.profile, NULL };
        struct step_shape s = { .n_decode = 512, .sum_ctx = 512, .n_logits = 512 };
        struct op op[OPS_MAX];
        double weights = 0, flop = 0;
        int n = ops_list(&o, v.stage, &s, op);
        CHECK(n <= OPS_MAX);
        for (int k = 0; k < n; k++) {
            /* At 512 tokens every expert is active. */
            double active =
                op[k].kind == OP_MOE ? 3.0 * op[k].n * op[k].k * a->n_expert : op[k].n * op[k].k;
            if (op[k].kind == OP_GEMM || op[k].kind == OP_MOE) {
                weights += op[k].count * active;
                flop += op[k].count * op[k].flop;
            }
        }
        double head = (double)a->vocab * a->hidden;
        double want = (double)arch_params(a) - (double)arch_params_embed(a) + (a->tied ? head : 0);
        double used =
            (double)arch_params_active(a) - (double)arch_params_embed(a) + (a->tied ? head : 0);
        CHECK_NEAR(weights, want, 1e-3);
        CHECK_NEAR(flop, 2 * 512 * used, 1e-3);
        env_release(&v);
    }
}

TEST(step_active_experts_limits)
{
    CHECK_NEAR(ops_active_experts(&env_mixtral, 1, 1), 2, 1e-12);
    CHECK_NEAR(ops_active_experts(&env_mixtral, 1, 1e4), 8, 1e-12);
    CHECK_NEAR(ops_active_experts(&env_mixtral, 4, 2), 2 * (1 - 0.75 * 0.75), 1e-12);
}

TEST(step_parallel_attention_has_one_allreduce)
{
    struct env v;
    struct step_shape s = { .n_decode = 8, .sum_ctx = 800, .n_logits = 8 };
    double t[2];
    for (int k = 0; k < 2; k++) {
        struct arch a = env_llama8;
        a.parallel_attn = k;
        CHECK_OK(env_init(&v, &a, "dgx-h100", 2), &v.e);
        CHECK_OK(env_prepare(&v), &v.e);
        struct step_cost c;
        step_cost(v.step, 0, &s, &c);
        t[k] = (double)c.class_fp[STEP_COLL];
        env_release(&v);
    }
    /* 65 all-reduces and a gather against 33 and the gather */
    CHECK(t[0] / t[1] > 1.8 && t[0] / t[1] < 2);
}

TEST(step_sliding_window_caps_attention)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_mixtral, "h100-sxm", 1), &v.e);
    CHECK_OK(env_prepare(&v), &v.e);
    struct step_cost a, b, c;
    struct step_shape s = { .n_decode = 4, .sum_ctx = 4 * 4096, .n_logits = 4 };
    step_cost(v.step, 0, &s, &a);
    s.sum_ctx *= 5;
    step_cost(v.step, 0, &s, &b);
    s.sum_ctx = 4 * 2048;
    step_cost(v.step, 0, &s, &c);
    CHECK_INT(a.class_fp[STEP_ATTN], b.class_fp[STEP_ATTN]);
    CHECK(c.class_fp[STEP_ATTN] < a.class_fp[STEP_ATTN]);
    env_release(&v);
}

TEST(step_pipeline_stages_add_up_to_the_whole)
{
    struct env whole, cut;
    CHECK_OK(env_init(&whole, &env_llama70, "dgx-h100", 2), &whole.e);
    CHECK_OK(env_init(&cut, &env_llama70, "dgx-h100", 2), &cut.e);
    for (int i = 0; i < 4; i++) cut.stage[i] = (struct step_stage){ .n_layer = 20 };
    cut.stage[0].has_embed = cut.stage[3].has_head = cut.stage[1].hop_inter = true;
    cut.setup.n_stage = 4;
    CHECK_OK(env_prepare(&whole), &whole.e);
    CHECK_OK(env_prepare(&cut), &cut.e);
    struct step_shape s = { .n_decode = 100, .sum_ctx = 150000, .n_logits = 100 };
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += env_s(step_total_fp(cut.step, i, &s));
    CHECK_NEAR(sum, env_s(step_total_fp(whole.step, 0, &s)), 1e-6);
    CHECK(step_hop_fp(cut.step, 0, 100) > 0 &&
          step_hop_fp(cut.step, 1, 100) > step_hop_fp(cut.step, 0, 100));
    CHECK_INT(step_hop_fp(cut.step, 3, 100), 0);
    double layer, first, last;
    step_layer_costs(&cut.setup, 100, 1500, &layer, &first, &last);
    sum -= whole.profile.p[P_HOST_GAP_S].v; /* the host is no layer */
    CHECK_NEAR(80 * layer + first + last, sum, 1e-3);
    CHECK(last > first && last > layer);
    env_release(&whole);
    env_release(&cut);
}

TEST(step_kv_heads_are_replicated_beyond_their_number)
{
    struct env v;
    double attn[2];
    for (int k = 0; k < 2; k++) {
        struct arch a = env_llama70;
        if (k) a.n_kv_head = 4; /* tp 8: one KV head a rank either way */
        CHECK_OK(env_init(&v, &a, "dgx-h100", 8), &v.e);
        CHECK_OK(env_prepare(&v), &v.e);
        struct step_cost c;
        struct step_shape s = { .n_decode = 16, .sum_ctx = 1000000, .n_logits = 16 };
        step_cost(v.step, 0, &s, &c);
        attn[k] = (double)c.class_fp[STEP_ATTN];
        env_release(&v);
    }
    CHECK_NEAR(attn[0], attn[1], 1e-12);
}

TEST(step_fixed_cost_ignores_the_shape)
{
    struct arena a;
    arena_init(&a);
    struct err e = { 0 };
    struct step *m;
    struct step_stage g[2] = { { 1, true, false, false, false }, { 1, false, true, false, false } };
    struct step_setup u = {
        .stage = g, .n_stage = 2, .fixed_ns = 1500, .max_batch_tok = 1, .max_seqs = 1
    };
    CHECK_OK(step_prepare(&u, &a, &m, &e), &e);
    for (int64_t n = 1; n < 100000; n *= 7) {
        struct step_shape s = {
            .n_decode = n, .sum_ctx = n * n, .n_prefill = n % 3, .prefill_tok = n
        };
        struct step_cost c;
        struct step_line l;
        step_cost(m, 1, &s, &c);
        step_line(m, 0, n, n * n, 5, &l);
        CHECK_INT(c.total_fp, (int64_t)1500 << STEP_FP_BITS);
        CHECK_INT(step_total_fp(m, 0, &s), c.total_fp);
        CHECK_INT(l.a_fp, c.total_fp);
        CHECK_INT(l.b_fp, 0);
        CHECK_INT(l.ctx_end, INT64_MAX);
    }
    CHECK_INT(step_hop_fp(m, 0, 100), 0);
    CHECK_INT(step_request_ns(m), 0);
    enum cover c[STEP_N_CLASS];
    bool out = true;
    struct step_extent x = { 0 };
    CHECK_HAS(step_coverage(m, &x, c, &out, &a), "constant");
    CHECK(!out);
    arena_release(&a);
}

TEST(step_limits_are_refused_not_clamped)
{
    struct env v;
    CHECK_OK(env_init(&v, &env_llama8, "h100-sxm", 1), &v.e);
    v.setup.max_batch_tok = (int64_t)1 << 40;
    CHECK_INT(env_prepare(&v), ST_USAGE);
    env_release(&v);
}

TEST(step_coverage_says_where_constants_come_from)
{
    struct env v;
    enum cover c[STEP_N_CLASS];
    bool out;
    CHECK_OK(env_init(&v, &env_llama70, "dgx-h100", 8), &v.e);
    CHECK_OK(env_prepare(&v), &v.e);
    struct step_extent x = {
        .max_tok = 2048, .max_seqs = 100, .max_ctx = 8000, .max_prefill = 2000
    };
    const char *text = step_coverage(v.step, &x, c, &out, &v.a);
    CHECK_INT(c[STEP_GEMM], COVER_FIT);
    CHECK_INT(c[STEP_COLL], COVER_FIT);
    CHECK_INT(c[STEP_HOST], COVER_CLASS);
    CHECK(!out);
    CHECK_HAS(text, "MAPE");
    x.max_ctx = 1000000;
    CHECK_HAS(step_coverage(v.step, &x, c, &out, &v.a), "outside");
    CHECK(out);
    /* Where the host's constants are not all of one source, each class says whose is the worse one. */
    v.profile.p[P_HOST_STEP_S].cover = COVER_FIT;
    v.profile.p[P_HOST_STEP_S].source = "here";
    CHECK_OK(env_prepare(&v), &v.e);
    text = step_coverage(v.step, &x, c, &out, &v.a);
    CHECK_INT(c[STEP_HOST], COVER_CLASS);
    CHECK_HAS(text, "; host class default (class default, ");
    CHECK_HAS(text, "; host.step: fitted, here)");
    env_release(&v);
}
