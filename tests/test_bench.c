/* tests/test_bench.c - microbenchmarks: formulas, order, interruption, wrong kernels, the backend that
 * keeps time, noise, the command line. No figure of this machine is judged.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/stop.h"
#include "bench/suite_run.h"
#include "engine/backend_timed.h"
#include "tests/engine_env.h"
#include "tests/test.h"

static char out[1 << 18], err[1 << 14];

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

/* ---- a suite of made-up jobs */

enum { FAKE_JOBS = 7, FAKE_RUNS = 4 };

static int fake_job(struct suite *s, const struct suite_job *j, struct suite_value *v,
                    struct err *e)
{
    (void)s, (void)e;
    for (int i = 0; i < j->n; i++)
        v[i] = (struct suite_value){ j->arg[0] == i ? 0 : 3, 1e-3 * (1 + j->first + i) };
    return ST_OK;
}

/* Jobs of 1, 2, 3 points ...; the second point of job 1 is never measured. */
static void fake_suite(struct suite *s)
{
    *s = (struct suite){ .o = { .tp = 1, .pp = 1, .threads = 1 }, .clock_s = 1e-8 };
    arena_init(&s->arena);
    s->may = arena_alloc(&s->arena, 1024);
    snprintf(s->spec.a.name, sizeof s->spec.a.name, "fake");
    for (int j = 0; j < FAKE_JOBS; j++) {
        struct suite_job *job = suite_add_job(s, "fake", 1e-6);
        job->run = fake_job;
        job->arg[0] = j == 1 ? 1 : -1;
        for (int i = 0; i <= j % 3; i++) {
            struct points_row r = { .op = POINTS_GEMM, .m = s->n_row + 1, .error = -1 };
            suite_add_row(s, &r);
        }
    }
}

struct ender {
    int left, sig;
};

static void end_later(void *ctx, int run, int job)
{
    struct ender *k = ctx;
    (void)run, (void)job;
    if (k->left-- == 0) raise(k->sig);
}

static int fake_run(const char *path, bool resume, struct ender *end, struct suite_log *log,
                    struct err *e)
{
    static char name[] = "test";
    char *argv[] = { name };
    struct suite s;
    struct suite_run_opts o = {
        .out = path, .runs = FAKE_RUNS, .seed = 5, .resume = resume, .argc = 1, .argv = argv
    };
    o.save_s = end && end->sig == SIGKILL ? 0 : 1e9;
    if (end) {
        o.after = end_later;
        o.ctx = end;
    }
    fake_suite(&s);
    int st = suite_run(&s, &o, log, e);
    arena_release(&s.arena);
    return st;
}

/* times[point][run] of a file; how many samples it has. */
static int64_t count(const char *path, int times[32][FAKE_RUNS], struct err *e)
{
    struct arena a;
    struct points_file f;
    arena_init(&a);
    memset(times, 0, 32 * sizeof times[0]);
    if (points_read(path, &a, &f, e) != ST_OK) return -1;
    int64_t n = f.n_sample;
    for (int64_t i = 0; i < n; i++)
        if (f.sample[i].run < FAKE_RUNS) times[f.sample[i].point][f.sample[i].run]++;
    points_close(&f);
    arena_release(&a);
    return n;
}

TEST(bench_order_mixes_jobs_anew_in_each_run)
{
    int a[50], b[50], seen[50] = { 0 }, same_place = 0;
    suite_order(1, 0, 50, a);
    suite_order(1, 1, 50, b);
    for (int i = 0; i < 50; i++) {
        seen[a[i]]++;
        same_place += a[i] == b[i];
    }
    for (int i = 0; i < 50; i++) CHECK_INT(seen[i], 1);
    CHECK(same_place < 10);
    suite_order(1, 0, 50, b);
    CHECK(memcmp(a, b, sizeof a) == 0);
    suite_order(2, 0, 50, b);
    CHECK(memcmp(a, b, sizeof a) != 0);
}

TEST(bench_runs_are_interleaved_and_all_samples_kept)
{
    struct err e = { 0 };
    struct suite_log log;
    struct arena a;
    struct points_file f;
    int times[32][FAKE_RUNS], order[FAKE_JOBS];
    const char *path = test_path("a.h5");
    CHECK_OK(fake_run(path, false, NULL, &log, &e), &e);
    CHECK(log.complete);
    CHECK_INT(log.n_sample, FAKE_RUNS * 12); /* 13 points, one is never measured */
    CHECK_NEAR(suite_median(&log, 4), 5e-3, 1e-12);
    CHECK(isnan(suite_median(&log, 2)));
    suite_log_release(&log);
    CHECK_INT(count(path, times, &e), FAKE_RUNS * 12);
    for (int i = 0; i < 13; i++)
        for (int r = 0; r < FAKE_RUNS; r++) CHECK_INT(times[i][r], i != 2);
    arena_init(&a);
    CHECK_OK(points_read(path, &a, &f, &e), &e);
    for (int64_t i = 1; i < f.n_sample; i++) CHECK(f.sample[i].run >= f.sample[i - 1].run);
    suite_order(5, 0, FAKE_JOBS, order);
    static const int first[FAKE_JOBS] = { 0, 1, 3, 6, 7, 9, 12 };
    CHECK_INT(f.sample[0].point, first[order[0]]);
    CHECK(f.n_noise >= 1);
    points_close(&f);
    arena_release(&a);
}

TEST(bench_interrupted_and_resumed_has_the_same_points)
{
    for (int after = 0; after < FAKE_JOBS * FAKE_RUNS - 1; after += 5) {
        struct err e = { 0 };
        struct suite_log log;
        int times[32][FAKE_RUNS];
        struct ender end = { after, SIGINT };
        const char *path = test_path("a.h5");
        stop_install();
        CHECK_INT(fake_run(path, false, &end, &log, &e), ST_STOPPED);
        CHECK(!log.complete && log.n_sample > 0);
        int64_t kept = log.n_sample;
        suite_log_release(&log);
        stop_reset();
        err_clear(&e);
        CHECK_INT(count(path, times, &e), kept);
        CHECK_OK(fake_run(path, true, NULL, &log, &e), &e);
        CHECK_INT(log.n_resumed, kept);
        suite_log_release(&log);
        CHECK_INT(count(path, times, &e), FAKE_RUNS * 12);
        for (int i = 0; i < 13; i++)
            for (int r = 0; r < FAKE_RUNS; r++) CHECK_INT(times[i][r], i != 2);
        unlink(path);
    }
}

TEST(bench_killed_keeps_what_was_saved)
{
    struct err e = { 0 };
    struct suite_log log;
    int times[32][FAKE_RUNS], status;
    const char *path = test_path("a.h5");
    pid_t id = fork();
    if (id == 0) {
        struct ender end = { 9, SIGKILL };
        fake_run(path, false, &end, &log, &e);
        _exit(1);
    }
    CHECK(waitpid(id, &status, 0) == id && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t kept = count(path, times, &e); /* ten jobs: one run and three of the second */
    CHECK(kept >= 12 && kept < 24);
    CHECK_OK(fake_run(path, true, NULL, &log, &e), &e);
    CHECK_INT(log.n_resumed, kept);
    suite_log_release(&log);
    CHECK_INT(count(path, times, &e), FAKE_RUNS * 12);
}

TEST(bench_resumes_only_its_own_suite)
{
    struct err e = { 0 };
    struct suite_log log;
    struct points_row more = { .op = POINTS_GEMM, .m = 99, .error = -1 };
    struct suite s;
    const char *path = test_path("a.h5");
    CHECK_OK(fake_run(path, false, NULL, &log, &e), &e);
    suite_log_release(&log);
    fake_suite(&s);
    uint64_t before = suite_identity(&s);
    s.row[3].error = 0.5; /* found while measuring: no other suite */
    CHECK(suite_identity(&s) == before);
    suite_add_row(&s, &more);
    struct suite_run_opts o = { .out = path, .runs = 1, .resume = true };
    CHECK_INT(suite_run(&s, &o, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "another suite");
    suite_log_release(&log);
    err_clear(&e);
    o.out = test_path("none.h5");
    CHECK_INT(suite_run(&s, &o, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "none.h5");
    suite_log_release(&log);
    arena_release(&s.arena);
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
    n.helpers = 1;
    c.wall_s = 8, c.busy_s += 1.05;
    CHECK(!noise_judge(&n, &c, 1.0));
    CHECK_NEAR(n.others_ratio, 0.025, 1e-9);
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

static struct suite_opts tiny_opts(int kind, const char *dir)
{
    return (struct suite_opts){ .kind = kind,
                                .model = dir,
                                .seed = 1,
                                .tp = 1,
                                .pp = 1,
                                .threads = 1,
                                .weight = MODEL_BF16,
                                .kv = BACKEND_BF16,
                                .max_tok = 24,
                                .max_seqs = 16,
                                .block_tok = 8,
                                .kv_bytes = 1e7,
                                .run_s = 1e-6,
                                .cache_bytes = 1 << 16,
                                .dir = test_dir() };
}

static const char *tiny_model(void)
{
    if (access("tests/golden/engine/llama2", R_OK) != 0)
        SKIP("tests run from the root of the repository");
    return "tests/golden/engine/llama2";
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
    struct suite_opts o = tiny_opts(SUITE_QUICK, tiny_model());
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
    struct suite_opts o = tiny_opts(SUITE_QUICK, tiny_model());
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

TEST(bench_communication_by_threads_is_right)
{
    struct err e = { 0 };
    struct suite_opts o = tiny_opts(SUITE_QUICK, tiny_model());
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
    (void)tiny_model();
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
        struct engine_opts o = engine_env_opts(tiny_model(), tp, 1);
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
    struct suite_opts o = tiny_opts(SUITE_MODEL, tiny_model());
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
    char cmd[3000];
    const char *bin = getenv("ORRERY_BIN");
    if (!bin) SKIP("ORRERY_BIN does not name the program");
    int n = snprintf(cmd, sizeof cmd, "%s bench --model=%s ", bin, tiny_model());
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd + n, sizeof cmd - (size_t)n, fmt, ap);
    va_end(ap);
    return test_run(cmd, out, sizeof out, err, sizeof err);
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
    CHECK_HAS(out, "\"complete\": true");
    CHECK_HAS(err, "points in");
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
    CHECK_INT(bench("--suite=model --runs=2 --threads=1 --max_seqs=3 --out=%s --resume", path), 2);
    CHECK_HAS(err, "another suite");
    static const char *const other[] = { "--run_time=2us", "--run_time=1us --seed=7" };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        CHECK_INT(bench("--suite=model --runs=3 --threads=1 --out=%s --resume %s", path, other[i]),
                  2);
        CHECK_HAS(err, "was made with weights bf16 of the checkpoint, run_time 1e-06 s, seed 1");
    }
}

/* The samples of two machines in one file could not be told apart. */
TEST(bench_resumes_only_on_its_own_machine)
{
    struct err e = { 0 };
    struct suite_log log;
    struct prov v;
    char path[200], cmd[500], name[] = "test", *argv[] = { name };
    snprintf(path, sizeof path, "%s", test_path("a.h5"));
    CHECK_OK(fake_run(path, false, NULL, &log, &e), &e);
    suite_log_release(&log);
    prov_collect(&v, 1, argv);
    snprintf(cmd, sizeof cmd, "sed -i s/%s/0123456789abcdef/g %s", v.host_sha, path);
    prov_release(&v);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
    CHECK_INT(fake_run(path, true, NULL, &log, &e), ST_USAGE);
    CHECK_HAS(e.text, "(host 0123456789abcdef)");
    CHECK_HAS(e.text, "one file is of one machine");
    suite_log_release(&log);
}

/* One run has no spread, and is not said to have one of 0. */
TEST(bench_of_one_run_claims_no_spread)
{
    CHECK_INT(
        bench("--suite=model --runs=1 --run_time=1us --threads=1 --out=%s", test_path("o.h5")), 0);
    CHECK_HAS(err, ", 1 run: about ");
    CHECK_HAS(out, "of one run: its times have no spread (--runs)\n");
    CHECK_HAS(out, "  one run");
    CHECK(!strstr(out, "+-"));
    CHECK(!strstr(out, "1 runs") && !strstr(err, "1 runs"));
}

TEST(bench_dry_run_measures_nothing)
{
    CHECK_INT(bench("--suite=full --dry-run --out=%s", test_path("c.h5")), 0);
    CHECK_HAS(out, "op,part,dtype");
    CHECK_HAS(out, "\nallreduce,none,f32,thread,1,2,");
    CHECK_HAS(err, "about ");
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
        { "--resume --out=/nowhere/x.h5", "/nowhere/x.h5" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int rc =
            bench("%s --dry-run=%s", wrong[i][0], strstr(wrong[i][0], "resume") ? "no" : "yes");
        CHECK(rc == 2 || rc == 5);
        CHECK_HAS(err, wrong[i][1]);
    }
    CHECK_INT(bench("--model=no-such-model --dry-run"), 2);
    CHECK_INT(bench("--suite=model --runs=1 --run_time=1us --out=/nowhere/x.h5"), 5);
}
