/* tests/test_validate.c - predicted against measured: known biases, noise, pairing, verdicts, ranks,
 * wrong input. SPDX-License-Identifier: Apache-2.0 */
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prov.h"
#include "base/rng.h"
#include "bench/validate.h"
#include "tests/cli.h"
#include "tests/test.h"
#include "traces/run.h"

/* ---- run files made by hand: n requests, one every 100 ms, with latencies known beforehand */

struct made {
    const char *path, *scenario;
    int64_t n;
    double factor, sd; /* on all latencies; sd of its logarithm, per run (by seed) */
    uint64_t seed;     /* of the noise */
    bool backwards;    /* rows in another order, as they finish in another order */
    bool measured;
    int sessions; /* of two turns; N > 1: the last N turns are of sessions that no other run has */
    double half_ratio; /* of the intervals of /summary; 0: none */
    int32_t add_in;    /* other requests: longer prompts */
    const char *ended_early;
};

static double ttft_ns(int64_t i)
{
    return 1e6 * (20 + (double)(i * 37 % 50));
}

static double tpot_ns(int64_t i)
{
    return 1e6 * (5 + (double)(i * 13 % 10) / 5);
}

static struct run_request request(const struct made *m, int64_t i, double f)
{
    int64_t due = i * 100000000;
    struct run_request q = { .t_due_ns = due,
                             .t_start_ns = due,
                             .n_in = (int32_t)(100 + i % 7) + m->add_in,
                             .n_out = (int32_t)(1 + i % 20),
                             .session = m->sessions ? i / 2 : -1,
                             .turn = m->sessions ? (int32_t)(i % 2) : 0 };
    if (m->sessions > 1 && i >= m->n - m->sessions) q.session += 1000000 * m->sessions;
    if (m->sessions && i % 2) q.t_due_ns += (int64_t)(1e6 * f); /* due when the turn before ends */
    q.t_first_ns = q.t_due_ns + (int64_t)llround(f * ttft_ns(i));
    q.t_last_ns = q.t_first_ns + (int64_t)llround(f * tpot_ns(i) * (q.n_out - 1));
    return q;
}

static void put_one(run *r, const char *name, double v, const struct made *m, struct err *e)
{
    struct ci c = { m->half_ratio > 0 ? v * (1 - m->half_ratio) : NAN, v,
                    m->half_ratio > 0 ? v * (1 + m->half_ratio) : NAN };
    struct ci four[4] = { c, c, c, c };
    bool one = strcmp(name, "output_per_s") == 0;
    run_put_summary(r, name, four, one ? 1 : 4, one ? "mean" : "mean p50 p90 p99", "ns", "by hand",
                    e);
}

static void originate(run *r, struct err *e)
{
    struct prov p;
    static char name[] = "test";
    char *argv[] = { name, NULL };
    prov_collect(&p, 1, argv);
    prov_write(&p, run_h5(r), "orrery-run", "1.0.0", "made by hand", e);
    prov_release(&p);
}

static bool make(const struct made *m)
{
    struct err e = { 0 };
    double f = m->factor * exp(m->sd * rng_normal(rng_stream(m->seed, "run"), 0));
    run *r = run_create(m->path, &e);
    if (!r) return false;
    originate(r, &e);
    h5_attr_text(run_h5(r), "/provenance", "kind", m->measured ? "measured" : "simulated", &e);
    h5_group(run_h5(r), "/scenario", "what was asked", &e);
    h5_text(run_h5(r), "/scenario/yaml", m->scenario, "scenario", &e);
    for (int64_t k = 0; k < m->n; k++) {
        struct run_request q = request(m, m->backwards ? m->n - 1 - k : k, f);
        run_put_request(r, &q, &e);
    }
    put_one(r, "output_per_s", 100 / f, m, &e);
    put_one(r, "ttft", f * 45e6, m, &e);
    put_one(r, "tpot", f * 6e6, m, &e);
    put_one(r, "itl", f * 6e6, m, &e);
    put_one(r, "e2e", f * 100e6, m, &e);
    h5_attr_i64(run_h5(r), "/summary", "noise_disturbed", m->sd > .1, &e);
    if (m->ended_early) h5_attr_text(run_h5(r), "/summary", "ended_early", m->ended_early, &e);
    if (e.status != ST_OK) run_abort(r);
    return e.status == ST_OK && run_commit(r, &e) == ST_OK;
}

static const char *scenario(const char *strategy)
{
    static char text[8][300];
    static int at;
    char *t = text[at++ % 8];
    snprintf(t, sizeof text[0],
             "model: m\nhardware: {name: %d}\nstrategy: {%s}\nworkload: {rate: 10}\npolicy: "
             "{name: vllm}\nsim: {seed: 1, draws: %d}\n",
             at, strategy, at);
    return t;
}

static const char *file(const char *name)
{
    char full[200];
    snprintf(full, sizeof full, "%s.h5", name);
    return test_path(full);
}

/* A prediction and `runs` measured files NAME.1.h5 ... of factor `f` each, with noise sd. */
static bool make_case(const char *name, double predicted, double f, double sd, int runs)
{
    const char *s = scenario(name);
    char one[80];
    snprintf(one, sizeof one, "p-%s", name);
    bool ok = make(
        &(struct made){ file(one), s, 200, predicted, 0, 1, false, false, false, .2, 0, NULL });
    for (int k = 0; k < runs && ok; k++) {
        snprintf(one, sizeof one, "m-%s.%d", name, k + 1);
        ok = make(&(struct made){ file(one), s, 200, f, sd, (uint64_t)(k + 1) + mix_text(name),
                                  true, true, false, 0, 0, NULL });
    }
    return ok;
}

static int validate(struct validate *v, struct arena *a, const char *predicted,
                    const char *measured, struct err *e)
{
    arena_init(a);
    *v = (struct validate){ .arena = a, .o = { .03, .03, .1, .1, .08, .05, 1 } };
    int st = validate_find(v, predicted, measured, NULL, e);
    for (int i = 0; i < v->n_case && st == ST_OK; i++) validate_pair(&v->c[i], a);
    if (st == ST_OK) validate_compute(v);
    return st;
}

static const char *list(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *list(const char *fmt, ...)
{
    static char text[4][4000];
    static int at;
    char *t = text[at++ % 4], *to = t;
    char names[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(names, sizeof names, fmt, ap);
    va_end(ap);
    for (char *save = NULL, *n = strtok_r(names, " ", &save); n; n = strtok_r(NULL, " ", &save))
        to += snprintf(to, sizeof text[0] - (size_t)(to - t), "%s%s", to == t ? "" : ",", file(n));
    return t;
}

TEST(validate_finds_a_known_bias)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    const int tpot = validate_q(METRIC_TPOT, VALIDATE_MEAN);
    CHECK(make_case("tp1", 1.06, 1, 0, 3));
    CHECK_OK(validate(&v, &a, list("p-tp1"), list("m-tp1.1 m-tp1.2 m-tp1.3"), &e), &e);
    const struct validate_case *c = &v.c[0];
    CHECK_INT(v.n_case, 1);
    CHECK(!c->unlike);
    CHECK_INT(c->predicted.n_kept, 200);
    for (int m = 0; m < METRIC_N; m++)
        for (int s = 0; s < VALIDATE_N_STAT; s++)
            if (m != METRIC_ITL)
                CHECK_NEAR(c->err[validate_q((enum metric)m, (enum validate_stat)s)].e, log(1.06),
                           1e-6);
    CHECK_NEAR(c->err[VALIDATE_THROUGHPUT].e, -log(1.06), 1e-9);
    CHECK_NEAR(v.sum[VALIDATE_HELD_OUT][tpot].mape, .06, 1e-6);
    CHECK_NEAR(expm1(c->paired[METRIC_E2E].bias.mid), .06, 1e-6);
    CHECK_NEAR(c->paired[METRIC_E2E].median, .06, 1e-5);
    CHECK_INT(c->paired[METRIC_TTFT].n, 200);
    CHECK_INT(c->paired[METRIC_TPOT].n, 190); /* one token has no TPOT */
    CHECK_NEAR(c->paired[METRIC_E2E].w1, .06, 1e-5);
    CHECK_INT(v.sum[VALIDATE_HELD_OUT][tpot].tost, VALIDATE_MISSED);
    CHECK_INT(v.bar[1].verdict, VALIDATE_MISSED);
    CHECK_INT(v.bar[2].verdict, VALIDATE_MET); /* TTFT may be 10 % off */
    CHECK_INT(v.verdict, VALIDATE_MISSED);
    arena_release(&a);
}

TEST(validate_calls_equal_runs_accurate_and_one_run_inconclusive)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    CHECK(make_case("same", 1, 1, .002, 3));
    CHECK_OK(validate(&v, &a, list("p-same"), list("m-same.1 m-same.2 m-same.3"), &e), &e);
    CHECK_INT(v.verdict, VALIDATE_MET);
    CHECK(v.c[0].err[VALIDATE_THROUGHPUT].floor > 0);
    CHECK(v.c[0].err[VALIDATE_THROUGHPUT].floor < .02);
    arena_release(&a);
    CHECK_OK(validate(&v, &a, list("p-same"), list("m-same.1"), &e), &e);
    CHECK_INT(v.verdict, VALIDATE_INCONCLUSIVE);
    CHECK(isnan(v.c[0].err[VALIDATE_THROUGHPUT].floor));
    arena_release(&a);
}

/* Swapping the arms turns the sign of every error, and slower machines change nothing. */
TEST(validate_is_symmetric_in_logs)
{
    struct validate v, w;
    struct arena a, b;
    struct err e = { 0 };
    const char *s = scenario("tp: 1");
    CHECK(make(&(struct made){ file("x"), s, 90, 1.3, 0, 1, false, false, false, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("y"), s, 90, .9, 0, 1, true, true, false, 0, 0, NULL }));
    CHECK_OK(validate(&v, &a, list("x"), list("y"), &e), &e);
    CHECK(make(&(struct made){ file("v"), s, 90, .9, 0, 1, false, false, false, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("w"), s, 90, 1.3, 0, 1, true, true, false, 0, 0, NULL }));
    CHECK_OK(validate(&w, &b, list("v"), list("w"), &e), &e);
    for (int q = 0; q < VALIDATE_N; q++)
        if (isfinite(v.c[0].err[q].e)) CHECK_NEAR(v.c[0].err[q].e, -w.c[0].err[q].e, 1e-9);
    arena_release(&a);
    arena_release(&b);
    /* A measured run that is to be predicted by it is no prediction. */
    CHECK(make(&(struct made){ file("z"), s, 90, .9, 0, 1, true, true, false, 0, 0, NULL }));
    CHECK_INT(validate(&v, &a, list("z"), list("x"), &e), ST_USAGE);
    CHECK_HAS(e.text, "the wrong way round");
    arena_release(&a);
}

TEST(validate_noise_is_shown_and_named)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    CHECK(make_case("loud", 1.3, 1, .3, 6));
    CHECK_OK(validate(&v, &a, list("p-loud"),
                      list("m-loud.1 m-loud.2 m-loud.3 m-loud.4 m-loud.5 m-loud.6"), &e),
             &e);
    const struct validate_error *x = &v.c[0].err[VALIDATE_THROUGHPUT];
    CHECK(v.c[0].noisy);
    CHECK_INT(v.n_noisy, 1);
    CHECK_INT(validate_disturbed(&v.c[0]), 6); /* as their files say */
    /* t interval of six known draws, by hand */
    double y[6];
    for (int k = 0; k < 6; k++)
        y[k] =
            log(100) - .3 * rng_normal(rng_stream((uint64_t)(k + 1) + mix_text("loud"), "run"), 0);
    struct ci c = stat_ci_mean(y, 6, .9);
    CHECK_NEAR(log(x->measured), c.mid, 1e-9);
    CHECK_NEAR(x->floor, (c.hi - c.lo) / 2, 1e-9);
    CHECK_NEAR(x->cv, stat_sd(y, 6), 1e-9);
    /* 20 % off or so is over the bar, and within this noise */
    CHECK(fabs(x->e) < x->floor);
    CHECK_INT(v.bar[0].verdict, VALIDATE_INCONCLUSIVE); /* and too much noise to say so */
    CHECK_HAS(v.bar[0].text, "within the noise floor");
    CHECK_HAS(v.bar[0].text, "too noisy to judge 1");
    CHECK(v.sum[VALIDATE_HELD_OUT][VALIDATE_THROUGHPUT].tost != VALIDATE_MET);
    CHECK(v.verdict != VALIDATE_MET);
    arena_release(&a);
}

/* What slows all runs alike is in no floor: where other work disturbed most of them, nothing is wrong yet. */
TEST(validate_finds_nothing_wrong_on_a_disturbed_machine)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    for (int busy = 0; busy < 2;
         busy++) { /* runs of more scatter than .1 say that they were disturbed */
        CHECK(make_case("far", 3, 1, busy ? .11 : .09, 4));
        CHECK_OK(validate(&v, &a, list("p-far"), list("m-far.1 m-far.2 m-far.3 m-far.4"), &e), &e);
        CHECK_INT(validate_disturbed(&v.c[0]), 4 * busy);
        CHECK_INT(v.bar[0].verdict, VALIDATE_MISSED);
        CHECK_INT(v.verdict, busy ? VALIDATE_INCONCLUSIVE : VALIDATE_MISSED);
        CHECK(v.disturbed == (busy == 1));
        arena_release(&a);
    }
}

TEST(validate_pairs_sessions_by_turn_and_refuses_other_requests)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    const char *s = scenario("tp: 1");
    CHECK(make(&(struct made){ file("s1"), s, 60, 1, 0, 1, false, false, true, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("s2"), s, 60, 3, 0, 1, true, true, true, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("s3"), s, 60, 1, 0, 1, true, true, true, 0, 5, NULL }));
    CHECK(make(&(struct made){ file("s4"), s, 50, 1, 0, 1, true, true, true, 0, 0, NULL }));
    CHECK_OK(validate(&v, &a, list("s1"), list("s2"), &e), &e);
    CHECK(!v.c[0].unlike);
    CHECK_NEAR(v.c[0].paired[METRIC_TPOT].bias.mid, -log(3), 1e-6);
    CHECK_NEAR(v.c[0].paired[METRIC_TPOT].mape, 2. / 3, 1e-6);
    arena_release(&a);
    CHECK_OK(validate(&v, &a, list("s1"), list("s3"), &e), &e);
    CHECK(v.c[0].unlike != NULL);
    CHECK_INT(v.c[0].paired[METRIC_TPOT].n, 0);
    CHECK(fabs(v.c[0].err[validate_q(METRIC_TPOT, VALIDATE_MEAN)].e) < 1e-9);
    arena_release(&a);
    CHECK_OK(validate(&v, &a, list("s1"), list("s4"), &e), &e);
    CHECK_HAS(v.c[0].unlike, "60 requests predicted, 50 in");
    arena_release(&a);
}

/* The first N turns that come due depend on timing: the last ones of a load differ. */
TEST(validate_pairs_the_turns_that_every_run_served)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    const char *s = scenario("tp: 1");
    CHECK(make(&(struct made){ file("l1"), s, 60, 1, 0, 1, false, false, 1, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("l2"), s, 60, 3, 0, 1, true, true, 2, 0, 0, NULL }));
    CHECK(make(&(struct made){ file("l4"), s, 60, 3, 0, 1, true, true, 8, 0, 0, NULL }));
    CHECK_OK(validate(&v, &a, list("l1"), list("l2"), &e), &e);
    CHECK(!v.c[0].unlike);
    CHECK_INT(v.c[0].paired[METRIC_TTFT].n, 58);
    CHECK_NEAR(v.c[0].paired[METRIC_TPOT].bias.mid, -log(3), 1e-6);
    CHECK_HAS(v.c[0].left_out, "2 of 60 requests are turns that not every run served");
    arena_release(&a);
    CHECK_OK(validate(&v, &a, list("l1"), list("l4"), &e), &e); /* 8 of 60: more than a tenth */
    CHECK_HAS(v.c[0].unlike, "of session 8000026 in");
    arena_release(&a);
}

TEST(validate_ranks_strategies)
{
    struct validate v;
    struct arena a;
    struct err e = { 0 };
    /* measured order by TPOT: a < b < c, b and d within noise; predicted: c is put first */
    CHECK(make_case("a", 1, 1, .001, 3));
    CHECK(make_case("b", 1.2, 1.2, .001, 3));
    CHECK(make_case("c", .9, 1.5, .001, 3));
    CHECK_OK(validate(&v, &a, list("p-a p-b p-c"),
                      list("m-a.1 m-a.2 m-a.3 m-b.1 m-b.2 m-b.3 m-c.1 m-c.2 m-c.3"), &e),
             &e);
    CHECK_INT(v.n_case, 3);
    CHECK_INT(v.n_rank, 3);
    for (int i = 0; i < v.n_rank; i++) {
        CHECK_INT(v.rank[i].n_decided, 3);
        CHECK_INT(v.rank[i].n_right, 1); /* a before b */
        CHECK_NEAR(v.rank[i].tau, -1. / 3, 1e-9);
        CHECK(!v.rank[i].top1);
    }
    CHECK_NEAR(v.rank[1].regret, .5, .01); /* TPOT of c is half as long again as that of a */
    CHECK_NEAR(v.rank[0].regret, 1 - 1 / 1.5, .01);
    CHECK_INT(v.bar[4].verdict, VALIDATE_MISSED);
    arena_release(&a);
}

/* Measured values drawn from the predicted interval's own law are covered as often as it says. */
TEST(validate_coverage_is_nominal)
{
    enum { N = 200, R = 8 };
    struct arena a;
    struct validate v = { .o = { .03, .03, .1, .1, .08, .05, 1 }, .arena = &a };
    struct rng r = rng_stream(7, "coverage");
    double half = .1, sd = half / stat_normal_quantile(.95), noise = .04;
    arena_init(&a);
    v.c = arena_array(&a, N, sizeof *v.c);
    v.n_case = N;
    for (int i = 0; i < N; i++) {
        struct validate_case *c = &v.c[i];
        *c = (struct validate_case){ .name = "x", .group = "", .n_measured = R, .unlike = "none" };
        c->measured = arena_array(&a, R, sizeof *c->measured);
        for (int q = 0; q < VALIDATE_N; q++) {
            c->predicted.q[q] = 100;
            c->predicted.ci[q] = (struct ci){ 100 * exp(-half), 100, 100 * exp(half) };
        }
        double truth = 100 * exp(sd * rng_normal(r, (uint64_t)i));
        for (int k = 0; k < R; k++) {
            double x = truth * exp(noise * rng_normal(rng_child(r, (uint64_t)i), (uint64_t)k));
            c->measured[k].created = "";
            for (int q = 0; q < VALIDATE_N; q++) c->measured[k].q[q] = x;
        }
    }
    validate_compute(&v);
    const struct validate_sum *s = &v.sum[VALIDATE_HELD_OUT][VALIDATE_THROUGHPUT];
    CHECK_INT(s->n_interval, N);
    CHECK(s->n_covered_noisy > .84 * N && s->n_covered_noisy < .96 * N); /* .9 within 3 sd */
    CHECK(s->n_covered <= s->n_covered_noisy);
    CHECK_NEAR(s->floor, sqrt(2 / M_PI) * noise / sqrt(R), .1);
    CHECK(s->mape_ci.lo < s->mape && s->mape < s->mape_ci.hi);
    CHECK_INT(s->tost, VALIDATE_MET); /* no bias, many cases */
    CHECK_INT(v.bar[5].verdict, VALIDATE_MET);
    arena_release(&a);
}

/* Two runs of each of many cases: the floor still holds the distance to the true value nine times
 * in ten, and is not as wide as two runs alone would make it. */
TEST(validate_floor_of_two_runs)
{
    enum { N = 300, R = 2 };
    struct arena a;
    struct validate v = { .o = { .03, .03, .1, .1, .08, .05, 1 }, .arena = &a };
    struct rng r = rng_stream(11, "floor");
    double noise = .05, widths[N];
    int inside = 0;
    arena_init(&a);
    v.c = arena_array(&a, N, sizeof *v.c);
    v.n_case = N;
    for (int i = 0; i < N; i++) {
        struct validate_case *c = &v.c[i];
        *c = (struct validate_case){ .name = "x", .group = "", .n_measured = R, .refused = "none" };
        c->measured = arena_array(&a, R, sizeof *c->measured);
        for (int k = 0; k < R; k++) {
            double x = 7 * exp(noise * rng_normal(r, (uint64_t)(R * i + k)));
            c->measured[k].created = "";
            for (int q = 0; q < VALIDATE_N; q++) c->measured[k].q[q] = x;
        }
    }
    validate_compute(&v);
    for (int i = 0; i < N; i++) {
        const struct validate_error *x = &v.c[i].err[VALIDATE_THROUGHPUT];
        inside += fabs(log(x->measured / 7)) <= x->floor;
        widths[i] = x->floor;
    }
    stat_sort(widths, N);
    CHECK(inside > .84 * N && inside < .96 * N);  /* .9 within 3.5 sd */
    CHECK(widths[N / 2] < 2.5 * noise / sqrt(R)); /* alone: a median of 6.31 * 0.67 */
    CHECK_INT(v.n_refused, N);
    CHECK_INT(v.verdict, VALIDATE_INCONCLUSIVE);
    arena_release(&a);
}

/* What a prediction varies by with its profile's measurements is noise of the comparison as well: the
 * floor of both holds nine errors in ten of a predictor that is perfect but for that. */
TEST(validate_floor_of_predictions_again)
{
    enum { N = 300, R = 5, S = 4 };
    struct arena a;
    struct validate v = { .o = { .03, .03, .1, .1, .08, .05, 1 }, .arena = &a };
    struct rng r = rng_stream(13, "again");
    double noise = .03, scatter = .06;
    int inside = 0, by_runs = 0;
    uint64_t at = 0;
    arena_init(&a);
    v.c = arena_array(&a, N, sizeof *v.c);
    v.n_case = N;
    for (int i = 0; i < N; i++) {
        struct validate_case *c = &v.c[i];
        *c = (struct validate_case){ .name = "x", .group = "", .n_measured = R, .n_again = S };
        c->measured = arena_array(&a, R, sizeof *c->measured);
        c->again = arena_array(&a, S, sizeof *c->again);
        double sum = 0;
        for (int q = 0; q < VALIDATE_N; q++) c->predicted.ci[q] = (struct ci){ NAN, NAN, NAN };
        for (int k = 0; k < R; k++) {
            c->measured[k].created = "";
            c->measured[k].q[VALIDATE_THROUGHPUT] = 7 * exp(noise * rng_normal(r, at++));
        }
        for (int k = 0; k < S; k++) {
            double x = scatter * rng_normal(r, at++);
            c->again[k].q[VALIDATE_THROUGHPUT] = 7 * exp(x);
            sum += x / S;
        }
        c->predicted.q[VALIDATE_THROUGHPUT] = 7 * exp(sum);
    }
    validate_compute(&v);
    for (int i = 0; i < N; i++) {
        const struct validate_error *x = &v.c[i].err[VALIDATE_THROUGHPUT];
        inside += fabs(x->e) <= x->floor;
        by_runs += fabs(x->e) <= x->floor_runs;
    }
    CHECK(inside > .86 * N &&
          inside < .97 * N); /* two half-widths of t in quadrature: a little more */
    CHECK(by_runs < .7 * N);
    const struct validate_sum *s = &v.sum[VALIDATE_HELD_OUT][VALIDATE_THROUGHPUT];
    CHECK_NEAR(s->floor, sqrt(2 / M_PI * (noise * noise / R + scatter * scatter / S)), .1);
    CHECK_NEAR(s->floor, s->mape, .15);
    CHECK(s->excess < s->rmse / 2);
    arena_release(&a);
}

/* Runs of the same requests as the prediction: each has its quantile; of other requests all are pooled. */
TEST(validate_quantiles_run_by_run)
{
    struct arena a;
    struct validate v;
    struct err e = { 0 };
    const char *s = scenario("q");
    struct made p = { file("pq"), s, 200, 1, 0, 1, false, false, false, 0, 0, NULL };
    struct made m = { file("mq.1"), s, 200, 1, 0, 1, false, true, false, 0, 0, NULL };
    CHECK(make(&p) && make(&m));
    m.path = file("mq.2");
    m.factor = 1.44;
    CHECK(make(&m));
    int q = validate_q(METRIC_TPOT, VALIDATE_P99);
    CHECK_OK(validate(&v, &a, list("pq"), list("mq.1 mq.2"), &e), &e);
    CHECK(!v.c[0].unlike);
    CHECK_NEAR(v.c[0].err[q].e, -log(1.2), 1e-6); /* geometric mean of 1 and 1.44 */
    arena_release(&a);
    p.add_in = 1;
    CHECK(make(&p));
    CHECK_OK(validate(&v, &a, list("pq"), list("mq.1 mq.2"), &e), &e);
    CHECK(v.c[0].unlike != NULL);
    CHECK_NEAR(v.c[0].err[q].e, -log(1.44), 1e-3); /* the slower run has the slowest requests */
    arena_release(&a);
}

TEST(validate_distances_known)
{
    double x[] = { 1, 2, 3, 4 }, y[] = { 3, 4, 5, 6 }, z[] = { 1, 1, 2 }, one[] = { 7 };
    CHECK_NEAR(validate_ks(x, 4, y, 4), .5, 1e-12);
    CHECK_NEAR(validate_w1(x, 4, y, 4), 2, 1e-12);
    CHECK_NEAR(validate_ks(x, 4, x, 4), 0, 1e-12);
    CHECK_NEAR(validate_w1(z, 3, one, 1), 17. / 3, 1e-12); /* 7 - mean */
    CHECK_NEAR(validate_ks(z, 3, one, 1), 1, 1e-12);
    CHECK(isnan(validate_ks(x, 0, y, 4)));
}

/* ---- the program */

TEST(validate_cli_verdicts_and_reports)
{
    CHECK(make_case("good", 1, 1, .002, 3));
    CHECK(make_case("bad", 1.5, 1, .002, 3));
    const char *m =
        cli_put("all.yaml", "title: <two>\n"
                            "aa: {a: [m-good.1.h5, m-good.3.h5], b: [m-good.2.h5, m-bad.1.h5]}\n"
                            "cases:\n"
                            "  - {name: g, use: held-out, group: x, predicted: p-good.h5, "
                            "measured: [m-good.1.h5, m-good.2.h5]}\n"
                            "  - {name: b, use: calibrated, group: x, predicted: p-bad.h5, "
                            "measured: [m-bad.1.h5, m-bad.2.h5, m-bad.3.h5]}\n"
                            "  - {name: r, refused: more ranks than processors}\n");
    CHECK_INT(cli_run("", "validate %s --out=%s --json", m, test_path("r.md")), 0);
    json_t *j = json_loads(cli_out, 0, NULL);
    CHECK(j != NULL);
    CHECK_TEXT(json_string_value(json_object_get(j, "verdict")), "accurate");
    json_t *n = json_object_get(j, "configurations");
    CHECK_INT(json_integer_value(json_object_get(n, "refused")), 1);
    CHECK_INT(json_integer_value(json_object_get(n, "calibrated")), 1);
    json_t *used = json_object_get(json_object_get(j, "calibrated"), "TPOT mean");
    json_t *held = json_object_get(json_object_get(j, "held_out"), "TPOT mean");
    CHECK_NEAR(json_real_value(json_object_get(used, "median")), .5, .01);
    CHECK(json_real_value(json_object_get(held, "median")) < .01); /* never averaged together */
    json_decref(j);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-bad"),
                      list("m-bad.1 m-bad.2 m-bad.3")),
              1);
    CHECK_HAS(cli_out, "not accurate");
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s --calibrated=p-bad", list("p-bad"),
                      list("m-bad.1 m-bad.2 m-bad.3")),
              3); /* nothing held out to judge */
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s --calibrated=p-bad,p-dab",
                      list("p-bad"), list("m-bad.1 m-bad.2 m-bad.3")),
              2);
    CHECK_HAS(cli_err, "--calibrated: no predicted file has 'p-dab' in its name");
    CHECK_INT(
        cli_run("", "validate --predicted=%s --measured=%s", list("p-good"), list("m-good.1")), 3);
    CHECK_INT(cli_run("", "validate --help"), 0);
    CHECK_HAS(cli_out, "--delta.throughput");
}

TEST(validate_cli_page_has_its_figures)
{
    if (system("gnuplot --version > /dev/null 2>&1") != 0) SKIP("no gnuplot");
    CHECK(make_case("good", 1.02, 1, .002, 2));
    const char *m = cli_put("one.yaml", "title: <one> & only\ncases:\n"
                                        "  - {name: \"g <b>\", predicted: p-good.h5, measured: "
                                        "[m-good.1.h5, m-good.2.h5]}\n");
    const char *page = test_path("r.html");
    CHECK(cli_run("", "validate %s --out=%s", m, page) != 5);
    CHECK_TEXT(cli_err, "");
    FILE *f = fopen(page, "r");
    CHECK(f != NULL);
    if (!f) return;
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    CHECK_HAS(text, "<svg");
    CHECK_HAS(text, "g &lt;b&gt;");
    CHECK(strstr(text, "g <b>") == NULL);
    CHECK_HAS(text, "</html>");
    int figures = 0;
    for (const char *p = text; (p = strstr(p, "<figure>")); p++) figures++;
    CHECK_INT(figures, 3); /* scatter, two overlays; no operators were monitored */
}

TEST(validate_cli_wrong_input)
{
    CHECK(make_case("a", 1, 1, 0, 1));
    CHECK(make_case("b", 1, 1, 0, 1));
    CHECK_INT(cli_run("", "validate"), 2);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-a"), list("m-b.1")), 2);
    CHECK_HAS(cli_err, "strategy.a= against strategy.b=");
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-a"), file("gone")), 2);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s --out=x.pdf", list("p-a"),
                      list("m-a.1")),
              2);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=,", list("p-a")), 2);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-a p-a"), list("m-a.1")),
              2);
    CHECK_HAS(cli_err, "manifest");
    CHECK_INT(cli_run("", "validate %s --predicted=x", cli_put("m.yaml", "cases: []\n")), 2);
    static const struct {
        const char *text, *says;
    } bad[] = { { "cases: []\n", "cases: is missing" },
                { "cases: 7\n", "cases: is missing" },
                { "- 1\n", "a manifest is a map" },
                { "cases: [{name: a}]\n", "either predicted or refused" },
                { "cases: [{predicted: p-a.h5}]\n", "needs a name" },
                { "cases: [{name: a, predicted: p-a.h5}]\n", "measured: is missing" },
                { "cases: [{name: a, predicted: p-a.h5, measured: m-a.1.h5}]\n", "list of run" },
                { "cases: [{name: a, use: maybe, predicted: p-a.h5, measured: [m-a.1.h5]}]\n",
                  "held-out or calibrated" },
                { "cases: [{name: a, refused: x, colour: red}]\n", "no such key" },
                { "aa: {a: [m-a.1.h5]}\ncases: [{name: a, refused: x}]\n", "a and b" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(cli_run("", "validate %s", cli_put("m.yaml", bad[i].text)), 2);
        CHECK_HAS(cli_err, bad[i].says);
        CHECK_TEXT(cli_out, "");
    }
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", cli_put("no.h5", "not HDF5"),
                      list("m-a.1")),
              2);
}

/* ---- what cannot be compared */

/* One case a line; the error names the case and both files. */
TEST(validate_refuses_a_run_in_two_places)
{
    CHECK(make_case("a", 1, 1, 0, 2));
    CHECK(make_case("b", 1, 1, 0, 2));
    CHECK(make_case("c", 1, 1, 0, 1));
    CHECK_INT(cli_shell("cd %s && cp m-a.1.h5 copy.h5 && ln -s m-a.2.h5 link.h5", test_dir()), 0);
    static const struct {
        const char *cases, *says[4];
    } bad[] = {
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
          "  - {name: a, predicted: p-b.h5, measured: [m-b.1.h5]}\n",
          { "m.yaml:3:", "two cases are named 'a'", "p-a.h5", "p-b.h5" } },
        { "  - {name: a, refused: x, measured: [m-a.1.h5]}\n"
          "  - {name: a, refused: x}\n",
          { "m.yaml:3:", "two cases are named 'a'", "m-a.1.h5", "no file" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
          "  - {name: b, refused: x, measured: [m-b.1.h5, m-a.1.h5]}\n",
          { "m.yaml:3:", "case 'a' and case 'b' share a measured run", "m-a.1.h5", "one file" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
          "  - {name: b, use: calibrated, predicted: p-b.h5, measured: [copy.h5]}\n",
          { "case 'a' (held out) and case 'b' (calibrated) share a measured run", "m-a.1.h5",
            "copy.h5", "copies of one run" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.2.h5, link.h5]}\n",
          { "m.yaml:2:", "case 'a' has a measured run twice", "m-a.2.h5",
            "link.h5 are one file" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
          "  - {name: b, use: calibrated, predicted: p-a.h5, measured: [m-a.2.h5]}\n",
          { "m.yaml:3:", "case 'a' (held out) and case 'b' (calibrated) share a prediction",
            "p-a.h5", "one file" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5, p-a.h5]}\n",
          { "", "case 'a': ", "p-a.h5 is no measurement", "it was simulated" } },
        { "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
          "  - {name: b, refused: x, measured: [p-a.h5]}\n",
          { "", "case 'b': ", "p-a.h5 is no measurement", "it was simulated" } },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1000];
        snprintf(text, sizeof text, "cases:\n%s", bad[i].cases);
        CHECK_INT(cli_run("", "validate %s", cli_put("m.yaml", text)), 2);
        for (int k = 0; k < 4; k++) CHECK_HAS(cli_err, bad[i].says[k]);
        CHECK_TEXT(cli_out, "");
    }
    CHECK_INT(
        cli_run("", "validate %s",
                cli_put("m.yaml", "aa: {a: [m-a.1.h5, m-b.1.h5], b: [m-b.2.h5, copy.h5]}\n"
                                  "cases:\n"
                                  "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n")),
        2);
    CHECK_HAS(cli_err, "both arms of aa hold one run: ");
    CHECK_INT(
        cli_run("", "validate --predicted=%s --measured=%s", list("p-a"), list("m-a.1 m-a.1")), 2);
    CHECK_HAS(cli_err, "case 'p-a' has a measured run twice");
    /* One prediction of two measurements that both were held out is nothing twice. */
    CHECK(cli_run("", "validate %s",
                  cli_put("m.yaml", "cases:\n"
                                    "  - {name: a, predicted: p-a.h5, measured: [m-a.1.h5]}\n"
                                    "  - {name: b, predicted: p-a.h5, measured: [m-a.2.h5]}\n")) !=
          2);
}

/* A run of the scenario with another model, strategy, load, or none; `more`: sim and policy. */
static bool make_of(const char *name, bool measured, const char *model, const char *strategy,
                    const char *workload, const char *more)
{
    char text[400];
    snprintf(text, sizeof text, "model: %s\nstrategy: {%s}\nworkload: {%s}\n%s", model, strategy,
             workload, more);
    return make(
        &(struct made){ file(name), text, 50, 1, 0, 1, false, measured, false, 0, 0, NULL });
}

TEST(validate_refuses_a_prediction_of_another_scenario)
{
    const char *load = "rate: 6/s, trace: t/x.csv, prompt: {mean: 9tok, file: \"-\"}";
    const struct {
        const char *model, *strategy, *workload, *more, *says;
    } with[] = {
        { "dir/b.json", "tp: 2, split: auto", load, "", "another model than" },
        { "m", "tp: 1, split: auto", load, "", "another strategy than" },
        { "m", "tp: 2, split: auto", "rate: 8/s, trace: t/x.csv", "", "another load than" },
        { "m", "tp: 2", "prompt: {mean: 8tok}", "", "workload.prompt.mean=9tok against" },
        { "m", "tp: 2", "trace: t/y.csv", "", "workload.trace=t/x.csv against" },
        /* what is of no matter: where files lie, what only one version knows, how it was cut */
        { "/home/m.json", "tp: 2, split: '3,1', ep: 1", load, "policy: {max_seqs: 9}\n", NULL },
        { "m/config.json", "tp: 2", "rate: 6/s, trace: /x.csv, turns: 1", "slo: {ttft: 1s}\n",
          NULL },
    };
    CHECK(make_of("p", false, "a/m.json", "tp: 2, split: auto", load, ""));
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        CHECK(make_of("m", true, with[i].model, with[i].strategy, with[i].workload, with[i].more));
        int rc =
            cli_run("", "validate %s",
                    cli_put("m.yaml", "cases: [{name: one, predicted: p.h5, measured: [m.h5]}]"));
        if (!with[i].says) {
            CHECK_INT(rc, 3); /* one run: inconclusive */
            continue;
        }
        CHECK_INT(rc, 2);
        CHECK_HAS(cli_err, "m.yaml:1:");
        CHECK_HAS(cli_err, "case 'one': ");
        CHECK_HAS(cli_err, "/p.h5 predicts");
        CHECK_HAS(cli_err, "/m.h5 measured: ");
        CHECK_HAS(cli_err, with[i].says);
    }
    /* Without a prediction the measured ones are of one scenario. */
    CHECK(make_of("n", true, "m", "tp: 4", load, ""));
    CHECK_INT(
        cli_run("", "validate %s",
                cli_put("m.yaml", "cases: [{name: r, refused: why, measured: [m.h5, n.h5]}]")),
        2);
    CHECK_HAS(cli_err, "measured another strategy: strategy.tp=2 against strategy.tp=4");
}

TEST(validate_refuses_a_run_that_ended_early)
{
    struct made m = { file("cut"), scenario("tp: 1"), 50, 1, 0, 1, false, true, false, 0, 0, NULL };
    CHECK(make_case("x", 1, 1, 0, 1));
    m.ended_early = "interrupted";
    CHECK(make(&m));
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-x"), list("cut m-x.1")),
              2);
    CHECK_HAS(cli_err, "cut.h5: the run ended early (interrupted): only the requests that had");
}

/* ---- what is said of single runs, and of noise */

TEST(validate_says_why_there_is_no_aa_check)
{
    CHECK(make_case("one", 1, 1, .001, 3));
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-one"), list("m-one.1")),
              3);
    CHECK_HAS(cli_out, "1 configuration: 1 held out, 0 calibrated the prediction, 0 without a "
                       "prediction; 1 measured run\n");
    CHECK_HAS(cli_out, "  A/A arms: no equal runs in turns were given");
    CHECK_HAS(cli_out, "  first against last run: one run a configuration: no A/A check\n");
    CHECK(strstr(cli_out, "nan") == NULL && strstr(cli_out, "no difference") == NULL);
    const char *arms = "aa: {a: [m-one.1.h5], b: [m-one.2.h5]}\n"
                       "cases: [{name: a, predicted: p-one.h5, measured: [m-one.3.h5]}]\n";
    CHECK_INT(cli_run("", "validate %s", cli_put("m.yaml", arms)), 3);
    CHECK_HAS(cli_out, "  A/A arms: one run an arm: no A/A check\n");
    CHECK_INT(cli_run("", "validate %s --json", cli_put("m.yaml", arms)), 3);
    json_t *j = cli_json();
    CHECK_TEXT(cli_text(j, "no_aa"), "one run an arm: no A/A check");
    CHECK_TEXT(cli_text(j, "no_drift"), "one run a configuration: no A/A check");
    json_decref(j);
    CHECK_INT(cli_run("", "validate --predicted=%s --measured=%s", list("p-one"),
                      list("m-one.1 m-one.2")),
              0);
    CHECK_HAS(cli_out, "first against last run: several runs of one configuration only");
    CHECK_HAS(cli_out, "2 measured runs (at most 2 each)\n");
}

static const char *text_of(const char *path, char *buf, size_t n)
{
    FILE *f = fopen(path, "r");
    size_t got = f ? fread(buf, 1, n - 1, f) : 0;
    if (f) fclose(f);
    buf[got] = 0;
    return buf;
}

/* Three kinds of noise, each by its name wherever it is shown, and each defined. */
TEST(validate_report_names_each_noise)
{
    static char text[1 << 16];
    CHECK(make_case("loud", 1, 1, .3, 3));
    CHECK(make_case("calm", 1, 1, .001, 1));
    const char *m = cli_put(
        "m.yaml", "title: noise by its names\ncases:\n"
                  "  - {name: loud, predicted: p-loud.h5, measured: [m-loud.1.h5, m-loud.2.h5, "
                  "m-loud.3.h5]}\n"
                  "  - {name: calm, predicted: p-calm.h5, measured: [m-calm.1.h5]}\n");
    CHECK_INT(cli_run("", "validate %s --out=%s", m, test_path("r.md")), 3);
    CHECK_HAS(cli_out, "; other work disturbed most measured runs\n");
    CHECK_HAS(cli_out,
              "  noise floor   of a configuration's figure: half-width of the 90 % interval");
    CHECK_HAS(cli_out, "NOISY: loud: run scatter ");
    test_golden("validate-noise.md", text_of(test_path("r.md"), text, sizeof text));
}
