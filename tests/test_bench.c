/* tests/test_bench.c - microbenchmarks: formulas, order, interruption, wrong kernels, the backend that
 * keeps time, noise, the command line. No figure of this machine is judged.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/backend_timed.h"
#include "tests/bench_env.h"
#include "tests/cli.h"
#include "tests/engine_env.h"
#include "tests/test.h"

/* ---- formulas, by hand */

TEST(bench_products_count_weights_and_both_activations)
{
    struct points_row r = suite_gemm(POINTS_BF16, 3, 128, 64);
    CHECK(r.flop == 49152);                             /* 2 * 3 * 128 * 64 */
    CHECK(r.bytes == 16384 + 4 * (192 + 384));          /* 128*64*2, x 3*64, y 3*128 of f32 */
    CHECK(suite_gemm(POINTS_F32, 1, 2, 4).bytes == 56); /* 32 + 16 + 8 */
    /* a group of 64 has 64 bytes and a bf16 scale */
    CHECK(suite_gemm(POINTS_INT8, 1, 1, 128).bytes == 132 + 4 * 129);
    CHECK(r.error == -1 && r.op == POINTS_GEMM && r.dtype == POINTS_BF16);
}

TEST(bench_attention_counts_pairs_and_cached_values)
{
    struct suite_heads h = { 8, 2, 64, 2 };
    int32_t q[] = { 1, 3 }, p[] = { 9, 5 };
    struct points_row r = suite_attn(&h, 2, q, p);
    /* 1*9 + 1 = 10 and 3*5 + 3 + 2 + 1 = 21 pairs, 8 heads of 64, two products of multiply and add */
    CHECK(r.flop == 4.0 * 31 * 8 * 64);
    /* 10 and 8 positions, keys and values of 2 heads of 64 bf16; 4 rows of 512 f32 in and out */
    CHECK(r.bytes == 18 * 2 * 2 * 64 * 2 + 4 * 512 * 4 * 2);
    CHECK_INT(r.m, 4);
    CHECK_INT(r.seqs, 2);
    CHECK_INT(r.ctx, 7);
    CHECK_INT(r.ctx_max, 9);
    CHECK(r.n == 8 && r.k == 2 && r.head_dim == 64);
}

TEST(bench_elementwise_work_counts_what_it_reads_and_writes)
{
    CHECK(suite_elt(POINTS_NORM, 2, 10, 0).bytes == 160);   /* 20 values in, 20 out */
    CHECK(suite_elt(POINTS_ADD, 2, 10, 0).bytes == 240);    /* two in, one out */
    CHECK(suite_elt(POINTS_ACT, 1, 10, 0).bytes == 120);    /* gate, up, out */
    CHECK(suite_elt(POINTS_EMBED, 1, 10, 2).bytes == 60);   /* bf16 in, f32 out */
    CHECK(suite_elt(POINTS_KV_PUT, 4, 10, 2).bytes == 240); /* f32 in, bf16 out */
    CHECK(suite_elt(POINTS_ROPE, 1, 10, 0).bytes == 80);
}

/* ---- noise */

TEST(bench_noise_is_what_others_took)
{
    struct noise n = { .cpus = 2 };
    struct noise_count c = { .wall_s = 1, .busy_s = 1.9, .own_s = 1.85, .switches = 20 };
    CHECK(!noise_judge(&n, &c, 1.0)); /* others: 0.05 of 2 */
    CHECK_NEAR(n.others_ratio, 0.025, 1e-9);
    c = (struct noise_count){ .wall_s = 2, .busy_s = 3.3, .own_s = 2.85, .switches = 40 };
    CHECK(noise_judge(&n, &c, 1.0)); /* others: 0.4 of 2 */
    CHECK_NEAR(n.others_ratio, 0.2, 1e-9);
    c.wall_s = 3, c.busy_s += 1, c.own_s += 1, c.steal_s = 0.1;
    CHECK(noise_judge(&n, &c, 1.0));
    CHECK_NEAR(n.steal_ratio, 0.05, 1e-9);
    c.wall_s = 4, c.switches += 500;
    CHECK(noise_judge(&n, &c, 1.0));
    c.wall_s = 5;
    CHECK(!noise_judge(&n, &c, 1.0));
    c.wall_s = 6;
    CHECK(noise_judge(&n, &c, 1.5));
    c.wall_s = 7, c.own_s += 5; /* clocks that disagree a little are no noise */
    CHECK(!noise_judge(&n, &c, 1.0));
    CHECK_NEAR(n.worst_others, 0.2, 1e-9);
    n.crowded = true; /* ranks of ours take turns */
    c.wall_s = 7.5, c.switches += 500;
    CHECK(!noise_judge(&n, &c, 1.0));
    n.helpers = 1;
    c.wall_s = 8.5, c.busy_s += 1.05;
    CHECK(!noise_judge(&n, &c, 1.0));
    CHECK_NEAR(n.others_ratio, 0.025, 1e-9);
}

static void all_of(const struct noise_span *x, char *text, size_t n)
{
    FILE *f = fmemopen(text, n, "w");
    text[0] = 0;
    if (!CHECK(f != NULL)) return;
    noise_print(x, f);
    fclose(f);
}

TEST(bench_noise_of_a_run_names_its_causes)
{
    char text[400] = "";
    struct noise_span x = { .wall_s = 2, .others_ratio = 0.04, .switches_per_s = 7 };
    all_of(&x, text, sizeof text);
    CHECK_TEXT(text, "");
    x = (struct noise_span){ .wall_s = 2,
                             .others_ratio = 0.42,
                             .steal_ratio = 0.031,
                             .spin_ratio = 1,
                             .clock_begin_hz = 2e9,
                             .disturbed = true };
    all_of(&x, text, sizeof text);
    CHECK_TEXT(text, "NOISY       the machine was disturbed: 42 % of the processors went to other "
                     "work; the hypervisor took 3.1 % of them\n");
    json_t *j = json_object();
    noise_json(&x, j);
    CHECK(json_is_true(cli_at(j, "noise.disturbed")));
    CHECK_NEAR(cli_number(j, "noise.steal_ratio"), 0.031, 0);
    CHECK(json_is_null(cli_at(j, "noise.clock_end_hz")));
    json_decref(j);
    struct noise n;
    noise_begin(&n, 0, false, &x);
    noise_end(&n, &x);
    CHECK(x.wall_s >= 0 && x.spin_ratio >= 1);
    bool brief = x.wall_s < NOISE_LEAST_S; /* for what is counted in hundredths of a second */
    CHECK(isnan(x.others_ratio) == brief && isnan(x.steal_ratio) == brief);
    noise_begin(&n, 0, false, &x);
    n.last.wall_s -= 10;
    noise_end(&n, &x);
    CHECK(x.wall_s >= 10 && x.others_ratio >= 0 && x.steal_ratio >= 0);
}

/* ---- results are compared with a reference */

static const struct backend_ops *right;
static struct backend_ops broken;

static void wrong_mm(struct backend *b, const struct backend_mm *a)
{
    right->mm(b, a);
    a->y[0] += 0.5f + 0.5f * fabsf(a->y[0]);
}

static void wrong_attn(struct backend *b, const struct backend_attn *a)
{
    struct backend_attn other = *a;
    other.scale *= 1.5f;
    right->attn(b, &other);
}

static void wrong_rope(struct backend *b, const struct backend_rope *a)
{
    struct backend_rope other = *a;
    int32_t zero[64] = { 0 };
    if (a->m <= 64) other.at = zero;
    right->rope(b, &other);
}

static void wrong_sum(struct backend *b, const struct backend_mm *a)
{
    right->mm(b, a);
    for (int64_t i = 0; i < a->ldy; i++) a->y[i] += 0.1f * fabsf(a->y[i]) + 1e-3f;
}

static void wrong_norm(struct backend *b, const struct backend_norm *w, const float *x, float *y,
                       const int32_t s[2])
{
    struct backend_norm other = *w;
    other.eps += 1;
    right->norm(b, &other, x, y, s);
}

static void wrong_kv_put(struct backend *b, const struct backend_attn *a)
{
    struct backend_attn other = *a;
    other.v = a->k;
    right->kv_put(b, &other);
}

static void wrong_silu_mul(struct backend *b, const float *x, float *y, int32_t m, int32_t n)
{
    right->silu_mul(b, x, y, m, n);
    for (int64_t i = 0; i < (int64_t)m * n; i++) y[i] *= 1.001f;
}

static void wrong_add(struct backend *b, float *y, const float *x, int64_t n)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) y[i] -= x[i];
}

static void wrong_embed(struct backend *b, const struct backend_mat *w, const int32_t *tok,
                        int32_t m, int32_t row0, float *x)
{
    static int32_t other[4096];
    for (int32_t i = 0; i < m; i++) other[i] = tok[i] ^ 1;
    right->embed(b, w, other, m, row0, x);
}

static struct backend *open_broken(struct team *t, const char *kernels, struct err *e)
{
    struct backend *b = backend_cpu_open(t, kernels, e);
    if (!b) return NULL;
    right = b->ops;
    broken = *b->ops;
    broken.mm = wrong_mm;
    broken.attn = wrong_attn;
    broken.rope = wrong_rope;
    b->ops = &broken;
    return b;
}

/* Runs the jobs whose points are of these operations; *wrong: points out of tolerance. */
static int run_ops(const struct suite_opts *o, const char *ops, int *wrong, int *n, struct err *e)
{
    struct suite s;
    char word[32];
    int st = suite_init(&s, o, e);
    if (st != ST_OK) return st;
    *wrong = *n = 0;
    for (int j = 0; j < s.n_job && st == ST_OK; j++) {
        struct points_row *r = &s.row[s.job[j].first];
        struct suite_value v[512];
        points_word(POINTS_OP_WORDS, r->op, word, sizeof word);
        if (!strstr(ops, word) || s.job[j].n > 512) continue;
        st = suite_run_job(&s, j, v, e);
        for (int i = 0; i < s.job[j].n && st == ST_OK; i++) {
            CHECK(v[i].calls > 0 && v[i].s_per_call >= 0 && r[i].error >= 0);
            *wrong += r[i].error > suite_tolerance(&r[i]);
            CHECK_INT(r[i].ranks, r[i].op == POINTS_ALLREDUCE || r[i].comm ? 2 : 0);
            ++*n;
        }
    }
    CHECK((suite_wrong(&s) >= 0) == (*wrong > 0));
    suite_release(&s);
    return st;
}

TEST(bench_results_agree_with_references)
{
    struct err e = { 0 };
    struct suite_opts o = bench_tiny(SUITE_QUICK, bench_model());
    int wrong, n;
    static const enum model_weight type[] = { MODEL_F32, MODEL_BF16, MODEL_INT8 };
    for (int i = 0; i < 3; i++) {
        o.weight = type[i];
        o.kv = i ? BACKEND_BF16 : BACKEND_F32;
        CHECK_OK(run_ops(&o, "gemm attn elt sample", &wrong, &n, &e), &e);
        CHECK_INT(wrong, 0);
        CHECK(n > 20);
    }
}

TEST(bench_finds_wrong_kernels)
{
    struct err e = { 0 };
    struct suite_opts o = bench_tiny(SUITE_QUICK, bench_model());
    int wrong, n;
    o.backend = open_broken;
    CHECK_OK(run_ops(&o, "gemm", &wrong, &n, &e), &e);
    CHECK(wrong > 0);
    CHECK_OK(run_ops(&o, "attn", &wrong, &n, &e), &e);
    CHECK(wrong > 0);
    o.kind = SUITE_FULL; /* has rotations of more rows than the one at position 0 */
    CHECK_OK(run_ops(&o, "elt", &wrong, &n, &e), &e);
    CHECK(wrong > 0 && wrong < n);
}

/* One operation wrong at a time, inside the running engine: its points are found, and no others that
 * do not read it back. */
static void set_wrong(struct backend_ops *o, enum points_op op, enum points_part part)
{
    if (op == POINTS_GEMM) o->mm = wrong_sum;
    if (op == POINTS_ATTN) o->attn = wrong_attn;
    if (part == POINTS_NORM) o->norm = wrong_norm;
    if (part == POINTS_ROPE) o->rope = wrong_rope;
    if (part == POINTS_KV_PUT) o->kv_put = wrong_kv_put;
    if (part == POINTS_ACT) o->silu_mul = wrong_silu_mul;
    if (part == POINTS_ADD) o->add = wrong_add;
    if (part == POINTS_EMBED) o->embed = wrong_embed;
}

static enum points_op bad_op;
static enum points_part bad_part;

static struct backend *open_one_broken(struct team *t, const char *kernels, struct err *e)
{
    struct backend *b = backend_cpu_open(t, kernels, e);
    if (!b) return NULL;
    right = b->ops;
    broken = *b->ops;
    set_wrong(&broken, bad_op, bad_part);
    b->ops = &broken;
    return b;
}

/* Shapes of a step; rows out of tolerance that are of that operation, and others. */
static void count_wrong(const struct suite_opts *o, int *n_own, int *n_other)
{
    struct err e = { 0 };
    struct suite s;
    struct suite_value v[64];
    *n_own = *n_other = 0;
    CHECK_OK(suite_init(&s, o, &e), &e);
    for (int j = 0; j < s.n_job; j++)
        if (s.row[s.job[j].first].op == POINTS_STEP) CHECK_INT(suite_run_job(&s, j, v, &e), ST_OK);
    for (int i = 0; i < s.n_row; i++) {
        const struct points_row *r = &s.row[i];
        if (r->ranks == 0 || !(r->error > suite_tolerance(r))) continue;
        bool own = r->op == bad_op && (r->op != POINTS_ELT || r->part == bad_part);
        bool reads_it = r->op == POINTS_ATTN && bad_part == POINTS_KV_PUT;
        bool read_back = r->part == POINTS_KV_PUT && bad_op == POINTS_ATTN;
        *n_own += own;
        *n_other += !own && !reads_it && !read_back;
    }
    suite_release(&s);
}

TEST(bench_finds_wrong_kernels_inside_a_step)
{
    static const enum points_part elt[] = { POINTS_NORM, POINTS_ROPE, POINTS_KV_PUT,
                                            POINTS_ACT,  POINTS_ADD,  POINTS_EMBED };
    struct suite_opts o = bench_tiny(SUITE_QUICK, bench_model());
    int own, other;
    bad_op = POINTS_TIMER; /* none */
    count_wrong(&o, &own, &other);
    CHECK_INT(own + other, 0);
    o.backend = open_one_broken;
    for (int i = 0; i < 8; i++) {
        bad_op = i == 0 ? POINTS_GEMM : i == 1 ? POINTS_ATTN : POINTS_ELT;
        bad_part = i < 2 ? POINTS_NO_PART : elt[i - 2];
        count_wrong(&o, &own, &other);
        if (!CHECK(own > 0)) printf("    op %d part %d is not found\n", bad_op, bad_part);
        if (!CHECK_INT(other, 0)) printf("    beside op %d part %d\n", bad_op, bad_part);
    }
}

/* Every row of a step but those of whole stages has been compared, and is right. */
TEST(bench_compares_every_operator_of_a_step)
{
    static const enum model_weight type[] = { MODEL_F32, MODEL_BF16, MODEL_INT8 };
    static const char *const model[] = { "tests/golden/engine/qwen3",
                                         "tests/golden/engine/falcon-40b",
                                         "tests/golden/engine/llama-bias" };
    (void)bench_model();
    for (int k = 0; k < 9; k++) {
        struct err e = { 0 };
        struct suite s;
        struct suite_value v[64];
        struct suite_opts o = bench_tiny(SUITE_QUICK, model[k % 3]);
        int steps = 0;
        o.weight = type[k / 3];
        o.kv = k / 3 ? BACKEND_BF16 : BACKEND_F32;
        o.tp = k % 2 ? 2 : 1;
        o.pp = k % 3 == 2 ? 2 : 1;
        CHECK_OK(suite_init(&s, &o, &e), &e);
        for (int j = 0; j < s.n_job; j++) {
            const struct points_row *r = &s.row[s.job[j].first];
            if (r->op != POINTS_STEP) continue;
            CHECK_OK(suite_run_job(&s, j, v, &e), &e);
            steps++;
            for (int i = 0; i < s.job[j].n; i++) {
                bool whole = r[i].op == POINTS_STAGE || r[i].op == POINTS_RETURN;
                if (!CHECK(whole ? r[i].error == -1 : r[i].error >= 0) ||
                    !CHECK(r[i].error <= suite_tolerance(&r[i])))
                    printf("    %s, %s: op %d part %d off by %g\n", model[k % 3], s.job[j].what,
                           r[i].op, r[i].part, r[i].error);
            }
        }
        CHECK(steps >= 4);
        suite_release(&s);
    }
}

TEST(bench_communication_by_threads_is_right)
{
    struct err e = { 0 };
    struct suite_opts o = bench_tiny(SUITE_QUICK, bench_model());
    int wrong, n;
    CHECK_OK(run_ops(&o, "allreduce", &wrong, &n, &e), &e);
    CHECK_INT(wrong, 0);
    CHECK_INT(n, 3 * 7);
}

/* ---- the backend that keeps time */

/* Prompts in chunks, then greedy tokens: logits of a case by this backend. */
static bool generate(const char *dir, engine_backend_fn backend, int tp, float *logits,
                     int32_t got[ENGINE_GREEDY], struct err *e)
{
    struct arena a;
    struct engine_expect x = { 0 };
    struct engine_opts o = engine_env_opts(dir, tp, 1);
    arena_init(&a);
    o.backend = backend;
    o.logits = true;
    bool fine = engine_expect_read(dir, &a, &x, e);
    struct engine *g = fine ? engine_open(&o, e) : NULL;
    fine = g && engine_env_run(g, &x, 0, 7, logits, got, e) == ST_OK;
    engine_close(g);
    arena_release(&a);
    return fine;
}

TEST(bench_timed_backend_changes_no_bit)
{
    static float a[64 * 4096], b[64 * 4096];
    static const char *const dir[] = { "tests/golden/engine/llama2", "tests/golden/engine/qwen2",
                                       "tests/golden/engine/falcon-40b" };
    (void)bench_model();
    for (size_t i = 0; i < sizeof dir / sizeof *dir; i++)
        for (int tp = 1; tp <= 2; tp++) {
            struct err e = { 0 };
            int32_t x[ENGINE_GREEDY] = { 0 }, y[ENGINE_GREEDY] = { 1 };
            memset(a, 0, sizeof a);
            memset(b, 0, sizeof b);
            CHECK(generate(dir[i], NULL, tp, a, x, &e));
            CHECK(generate(dir[i], backend_timed_open, tp, b, y, &e));
            CHECK_TEXT(e.text, "");
            CHECK(memcmp(a, b, sizeof a) == 0);
            CHECK(memcmp(x, y, sizeof x) == 0);
        }
}

/* One step of two sequences, 3 tokens after 5 and 1 after 2, of which one has a token drawn. */
static int timed_step(struct engine *g, struct err *e)
{
    static const int32_t tok[] = { 1, 2, 3, 4 }, block[] = { 0, 1 };
    struct engine_seq seq[] = { { 0, 3, 5, 1, block }, { 3, 1, 2, 1, block + 1 } };
    struct engine_out pick = { .row = 2 };
    struct engine_step s = { 4, 2, 1, tok, seq, &pick };
    struct engine_result r;
    for (int i = 0; i < engine_n_rank(g); i++) backend_timed_clear(engine_backend(g, i));
    int st = engine_submit(g, &s, e);
    return st == ST_OK ? engine_collect(g, &r, e) : st;
}

static void check_cells(const struct engine *g, const struct backend_timed_step *x, int tp)
{
    const struct arch *a = &engine_spec(g)->a;
    int64_t sum = x->comm_ns, q = (int64_t)a->n_head / tp * a->head_dim;
    int64_t kv = (int64_t)a->n_kv_head / tp * a->head_dim;
    const struct backend_timed_cell *c = x->cell;
    for (int i = 0; i < BACKEND_TIMED_N_PART; i++) sum += c[i].ns;
    CHECK_INT(sum, x->t1_ns - x->t0_ns); /* nothing is lost or counted twice */
    for (int i = BACKEND_TIMED_QKV; i <= BACKEND_TIMED_DOWN; i++) {
        CHECK_INT(c[i].calls, a->n_layer);
        CHECK_INT(c[i].m, 4);
    }
    CHECK(c[BACKEND_TIMED_QKV].n == q + 2 * kv && c[BACKEND_TIMED_QKV].k == a->hidden);
    CHECK(c[BACKEND_TIMED_OUT].n == a->hidden && c[BACKEND_TIMED_OUT].k == q);
    CHECK(c[BACKEND_TIMED_GATE_UP].n == 2 * a->ffn / tp && c[BACKEND_TIMED_GATE_UP].k == a->hidden);
    CHECK(c[BACKEND_TIMED_DOWN].n == a->hidden && c[BACKEND_TIMED_DOWN].k == a->ffn / tp);
    CHECK(c[BACKEND_TIMED_HEAD].calls == 1 && c[BACKEND_TIMED_HEAD].m == 1 &&
          c[BACKEND_TIMED_HEAD].k == a->hidden);
    CHECK_INT(c[BACKEND_TIMED_NORM].calls, 2 * a->n_layer);
    CHECK_INT(c[BACKEND_TIMED_NORM_FINAL].calls, 1);
    CHECK_INT(c[BACKEND_TIMED_NORM_FINAL].m, 1);
    CHECK_INT(c[BACKEND_TIMED_ROPE].calls, 2 * a->n_layer);
    CHECK_INT(c[BACKEND_TIMED_ROPE].elt, 4 * (q + kv) * a->n_layer);
    CHECK_INT(c[BACKEND_TIMED_KV_PUT].n, 2 * kv);
    CHECK_INT(c[BACKEND_TIMED_ATTN].calls, a->n_layer);
    CHECK_INT(c[BACKEND_TIMED_ADD].elt, 2 * a->n_layer * 4 * (int64_t)a->hidden);
    CHECK_INT(x->comm_calls, 2 * a->n_layer + 1); /* and that of the embedding */
    CHECK(x->attn.n_row == 4 && x->attn.n_seq == 2 && x->attn.head_dim == a->head_dim);
    CHECK(x->attn.sum_pos == 7 && x->attn.max_pos == 5);
    CHECK_INT(x->attn.pairs, 3 * 5 + 6 + 2 + 1);
}

TEST(bench_timed_backend_accounts_for_all_of_a_step)
{
    for (int tp = 1; tp <= 2; tp++) {
        struct err e = { 0 };
        struct engine_opts o = engine_env_opts(bench_model(), tp, 1);
        o.backend = backend_timed_open;
        struct engine *g = engine_open(&o, &e);
        CHECK_TEXT(e.text, "");
        for (int round = 0; round < 2 && g; round++) {
            CHECK_OK(timed_step(g, &e), &e);
            for (int i = 0; i < tp; i++) {
                struct backend_timed_step x;
                CHECK(backend_timed_is(engine_backend(g, i)));
                backend_timed_read(engine_backend(g, i), &x);
                check_cells(g, &x, tp);
            }
        }
        engine_close(g);
    }
}

/* ---- points of the running engine */

/* Each product's row is what the engine has computed; each point has a value. */
static void check_model(const struct suite_opts *o)
{
    struct err e = { 0 };
    struct suite s;
    struct suite_value v[64];
    int steps = 0;
    CHECK_OK(suite_init(&s, o, &e), &e);
    for (int j = 0; j < s.n_job; j++) {
        const struct points_row *r = &s.row[s.job[j].first];
        if (r->op != POINTS_STEP) continue;
        CHECK_OK(suite_run_job(&s, j, v, &e), &e);
        steps++;
        for (int i = 0; i < s.job[j].n; i++) {
            CHECK(v[i].calls > 0 && v[i].s_per_call >= 0);
            CHECK(r[i].ranks > 0);
            CHECK(r[i].seqs == r->seqs && r[i].ctx == r->ctx && r[i].ctx_max == r->ctx_max);
            CHECK_INT(r[i].op == POINTS_GEMM && r[i].part != POINTS_HEAD ? r[i].m : r->m, r->m);
        }
        CHECK(r->k <= r->m && r->n == r->seqs);
    }
    CHECK(steps > 10);
    CHECK(s.clock_share > 0);
    suite_release(&s);
}

TEST(bench_measures_all_operators_of_a_step)
{
    struct suite_opts o = bench_tiny(SUITE_MODEL, bench_model());
    check_model(&o);
    o.tp = 2;
    check_model(&o);
    o.tp = 1;
    o.pp = 2;
    check_model(&o);
}

/* ---- the command */

static int bench(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int bench(const char *fmt, ...)
{
    char args[3000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    return cli_run("", "bench --model=%s %s", bench_model(), args);
}

TEST(bench_command_writes_points)
{
    struct arena a;
    struct err e = { 0 };
    struct points_file f;
    char *kind = NULL, *complete = NULL, path[200];
    double read_limit = 0;
    snprintf(path, sizeof path, "%s", test_path("b.h5"));
    CHECK_INT(bench("--suite=model --runs=2 --run_time=1us --threads=1 --out=%s --json", path), 0);
    CHECK_HAS(cli_out, "\"complete\": true");
    CHECK_HAS(cli_err, "points in");
    arena_init(&a);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    CHECK(f.n_row > 100 && f.n_sample >= 2 * f.n_row - 4);
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "suite", &a, &kind, &e), &e);
    CHECK_OK(h5_read_attr_text(f.h5, "/provenance", "complete", &a, &complete, &e), &e);
    CHECK_TEXT(kind, "model");
    CHECK_TEXT(complete, "yes");
    CHECK_OK(h5_read_attr_f64(f.h5, "/limits", "read_bytes_per_s_1", &read_limit, &e), &e);
    CHECK(read_limit > 0);
    points_close(&f);
    arena_release(&a);
    CHECK_INT(bench("--suite=model --runs=2 --run_time=1us --threads=1 --out=%s --resume", path),
              0);
    CHECK_HAS(cli_out, " of them before it went on, the other 0 in ");
    CHECK_INT(bench("--suite=model --runs=1 --run_time=1us --threads=1 --out=%s --resume", path),
              0);
    CHECK_HAS(cli_out, "median of 2 runs, ");
    CHECK_INT(bench("--suite=model --runs=2 --threads=1 --max_seqs=3 --out=%s --resume", path), 2);
    CHECK_HAS(cli_err, "another suite");
    static const char *const other[] = { "--run_time=2us", "--run_time=1us --seed=7" };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        CHECK_INT(bench("--suite=model --runs=3 --threads=1 --out=%s --resume %s", path, other[i]),
                  2);
        CHECK_HAS(cli_err,
                  "was made with weights bf16 of the checkpoint, run_time 1e-06 s, seed 1");
    }
}

/* One run has no spread, and is not said to have one of 0. */
TEST(bench_of_one_run_claims_no_spread)
{
    CHECK_INT(
        bench("--suite=model --runs=1 --run_time=1us --threads=1 --out=%s", test_path("o.h5")), 0);
    CHECK_HAS(cli_err, ", 1 run: about ");
    CHECK_HAS(cli_out, "of one run: its times have no spread (--runs)\n");
    CHECK_HAS(cli_out, "  one run");
    CHECK(!strstr(cli_out, "+-"));
    CHECK(!strstr(cli_out, "1 runs") && !strstr(cli_err, "1 runs"));
}

TEST(bench_dry_run_measures_nothing)
{
    CHECK_INT(bench("--suite=full --dry-run --out=%s", test_path("c.h5")), 0);
    CHECK_HAS(cli_out, "op,part,dtype");
    CHECK_HAS(cli_out, "\nallreduce,none,f32,thread,1,2,");
    CHECK_HAS(cli_err, "about ");
    CHECK(access(test_path("c.h5"), F_OK) != 0);
}

TEST(bench_refuses_what_cannot_be)
{
    static const char *const wrong[][2] = {
        { "--suite=fast", "quick" },
        { "--strategy.tp=3", "3" },
        { "--strategy.tp=0", "strategy.tp" },
        { "--runs=-1", "runs" },
        { "--runs=100000", "runs" },
        { "--block=12tok", "multiple of 8" },
        { "--kv_cache=1kB", "does not hold" },
        { "--kernels=none", "no kernels" },
        { "--run_time=5", "run_time" },
        { "--max_batch=1e99tok", "max_batch" },
        { "--storage=/nowhere/at/all", "no directory" },
        { "file.h5", "options only" },
        { "--modl=x", "modl" },
        { "--random_weights=3", "has weights" },
        { "--suite=model --mpi_points=no", "no such points" },
        { "--suite=model --storage=/tmp", "does not measure storage" },
        { "--json", "lists rows of CSV" },
        { "--resume", "reads no file" },
        { "--exchange=host", "exchange" },
        { "--out=", "a file is needed" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int rc = bench("%s --dry-run", wrong[i][0]);
        CHECK(rc == 2 || rc == 5);
        CHECK_HAS(cli_err, wrong[i][1]);
    }
    CHECK_INT(bench("--model=no-such-model --dry-run"), 2);
}

/* What cannot be written is found before the first measurement. */
TEST(bench_looks_at_its_output_first)
{
    const char *dir = cli_path("dir.h5"), *link_ = cli_path("link.h5");
    CHECK_INT(mkdir(dir, 0777), 0);
    CHECK_INT(symlink("nowhere", link_), 0);
    const char *const wrong[][2] = { { "/nowhere/x.h5", "No such file or directory" },
                                     { dir, "Is a directory" },
                                     { link_, "leads nowhere" } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_INT(bench("--suite=full --out=%s", wrong[i][0]), 5);
        CHECK_HAS(cli_err, wrong[i][1]);
        CHECK(!strstr(cli_err, "points in")); /* nor were they listed */
    }
    CHECK_INT(bench("--resume --out=%s", cli_path("none.h5")), 2);
    CHECK_HAS(cli_err, "nothing to go on from");
}
