/* tests/test_sim.c - the simulator: fast-forward against stepping, conservation, determinism, the
 * queues of theory. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "sim/evaluate.h"
#include "tests/test.h"

/* ---- random scenarios through the option tables, as a user would write them */

struct text {
    char t[2048];
    int n;
};

static void add(struct text *x, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add(struct text *x, const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    x->n += snprintf(x->t + x->n, sizeof x->t - (size_t)x->n, "%s: ", key);
    x->n += vsnprintf(x->t + x->n, sizeof x->t - (size_t)x->n, fmt, ap);
    x->n += snprintf(x->t + x->n, sizeof x->t - (size_t)x->n, "\n");
    va_end(ap);
}

static uint64_t draw(struct rng r, uint64_t *i, uint64_t n)
{
    return rng_below(r, (*i)++, n);
}

#define PICK(...)                                                                                  \
    ((const char *const[]){                                                                        \
        __VA_ARGS__ }[draw(r, &i, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))])

/* Every policy, grouping, router and kind of load; KV so scarce at times that preemption is
 * common. */
static void random_scenario(struct rng r, struct text *x)
{
    uint64_t i = 0;
    int pp = (int)draw(r, &i, 3) ? 1 : 2 + (int)draw(r, &i, 3);
    x->n = 0;
    add(x, "model", "%s", PICK("tinyllama-1.1b", "llama-3.2-1b", "qwen2.5-0.5b"));
    add(x, "hardware", "%s", PICK("dgx-h100", "dgx-a100"));
    add(x, "strategy", "{tp: %s, pp: %d, dp: %d}", PICK("1", "1", "2"), pp,
        1 + (int)draw(r, &i, 3));
    bool scarce = draw(r, &i, 3) == 0;
    add(x, "policy",
        "{name: %s, max_seqs: %d, max_batch_tokens: %dtok, chunk: %dtok, kv_blocks: %d, "
        "prefix_cache: %s, "
        "reserve_full: %s, grouping: %s, async: %s, block: %s}",
        PICK("vllm", "vllm", "vllm", "sarathi", "orca", "static", "null"), 1 + (int)draw(r, &i, 40),
        64 + (int)draw(r, &i, 1000), 41 + (int)draw(r, &i, 300),
        scarce ? 40 + (int)draw(r, &i, 100) : 0, PICK("auto", "on", "off"), PICK("true", "false"),
        PICK("auto", "engine", "balanced"), PICK("auto", "off"), PICK("16tok", "16tok", "7tok"));
    add(x, "workload",
        "{requests: %d, rate: %d/s, arrivals: %s, burstiness: %s, turns: %s, think: %s, "
        "prefix_tok: %s, "
        "prefix_groups: 3, concurrency: %d, prompt: {mean: %dtok, max: 500tok}, output: {mean: "
        "%dtok, max: 400tok}}",
        20 + (int)draw(r, &i, 60), 5 + (int)draw(r, &i, 400),
        PICK("poisson", "gamma", "closed", "burst", "constant"), PICK("1", "3"),
        PICK("1", "1", "3"), PICK("0s", "10ms", "1s"), PICK("0tok", "100tok"),
        1 + (int)draw(r, &i, 20), 1 + (int)draw(r, &i, 300), 1 + (int)draw(r, &i, 150));
    add(x, "sim", "{seed: %d, router: %s, p2p: %s, replications: 1, draws: 0, limit: %s}",
        (int)draw(r, &i, 1000), PICK("round_robin", "least_loaded", "prefix"),
        PICK("async", "rendezvous"), PICK("0s", "0s", "0s", "3s"));
}

static int outcome_told(const char *yaml, bool fast, const struct sim_sink *sink, struct arena *a,
                        struct outcome *o, struct err *e)
{
    struct scenario *s = arena_alloc(a, sizeof *s);
    struct deploy *d = arena_alloc(a, sizeof *d);
    const char *path = test_path("random.yaml");
    FILE *f = fopen(path, "w");
    fputs(yaml, f);
    fclose(f);
    scenario_init(s, NULL, NULL, a);
    int st = scenario_read(s, arena_printf(a, "%s", path), NULL, e);
    s->sim.fast = fast;
    s->sim.threads = 1;
    if (st == ST_OK) st = scenario_deploy(s, d, e);
    return st == ST_OK ? evaluate(s, d, sink, o, e) : st;
}

static int outcome_of(const char *yaml, bool fast, struct arena *a, struct outcome *o,
                      struct err *e)
{
    return outcome_told(yaml, fast, NULL, a, o, e);
}

static bool same_hist(const struct hist *x, const struct hist *y)
{
    if (x->n != y->n || x->min != y->min || x->max != y->max) return false;
    return memcmp(x->count, y->count, HIST_N * sizeof *x->count) == 0;
}

static bool near(double x, double y)
{
    return fabs(x - y) <= 1e-9 * fmax(fabs(x), fabs(y)) + 1; /* sums of double in another order */
}

/* Every count equal, every integral equal up to the order of its sum. */
static bool same(const struct metrics *x, const struct metrics *y)
{
    bool ok = true;
#define EQUAL(member) ok &= CHECK_INT(x->member, y->member)
#define CLOSE(member) ok &= near(x->member, y->member) || CHECK_NEAR(x->member, y->member, 0)
    EQUAL(digest);
    EQUAL(finished);
    EQUAL(failed);
    EQUAL(rejected);
    EQUAL(kept_ok);
    EQUAL(preempted);
    EQUAL(hit_tok);
    EQUAL(kv_peak);
    EQUAL(w.n_step);
    EQUAL(w.n_batch_tok);
    EQUAL(t_stop_ns);
    EQUAL(w.t_end_ns);
    CLOSE(in_system_area_ns);
    CLOSE(w.active_ns);
    CLOSE(w.queue_area_ns);
    CLOSE(w.running_area_ns);
    for (int c = 0; c < STEP_N_CLASS; c++) CLOSE(w.class_ns[c]);
    for (int p = 0; p < STRATEGY_MAX_PP; p++) CLOSE(w.stage_busy_ns[p]);
#undef EQUAL
#undef CLOSE
    for (int k = 0; k < METRIC_N; k++) ok &= CHECK(same_hist(&x->h[k], &y->h[k]));
    return ok;
}

enum { N_RANDOM = 600 };

TEST_LIMIT(sim_fast_forward_equals_stepping_on_random_scenarios, 300)
{
    struct rng r = rng_stream(7, "test.sim");
    int64_t n_preempt = 0, n_hit = 0, n_ran = 0, n_deep = 0;
    for (uint64_t k = 0; k < N_RANDOM; k++) {
        struct text x;
        struct arena a;
        struct outcome fast, slow;
        struct err e = { 0 };
        random_scenario(rng_child(r, k), &x);
        arena_init(&a);
        int st = outcome_of(x.t, true, &a, &fast, &e);
        if (st == ST_OK) st = outcome_of(x.t, false, &a, &slow, &e);
        bool refused = st == ST_USAGE && strstr(e.text, "max_batch_tokens");
        if (!refused && !CHECK(st == ST_OK)) fprintf(stderr, "%s\n%s\n", e.text, x.t);
        if (st == ST_OK) {
            const struct metrics *m = &fast.all;
            if (!CHECK(same(m, &slow.all))) fprintf(stderr, "scenario %d:\n%s", (int)k, x.t);
            CHECK_INT(m->finished + m->failed + m->rejected, m->due);
            CHECK_NEAR(m->in_system_area_ns, m->sojourn_sum_ns, 1e-9);
            CHECK(m->failed == 0 || strstr(x.t, "limit: 3s"));
            n_preempt += m->preempted;
            n_hit += m->hit_tok;
            n_deep += m->n_stage > 1;
            n_ran++;
            outcome_release(&fast);
            outcome_release(&slow);
        }
        arena_release(&a);
    }
    CHECK(n_ran >= 500);
    CHECK(n_deep >= 100);     /* pipelines, */
    CHECK(n_preempt >= 1000); /* preemption */
    CHECK(n_hit >= 10000);    /* and prefix hits were really there */
}

/* ---- the counts and the window against the rows that are written */

struct rows {
    struct run_request r[512];
    int n;
};

static void keep_row(void *ctx, const struct run_request *r)
{
    struct rows *w = ctx;
    if (w->n < 512) w->r[w->n++] = *r;
}

static void check_counts(const struct rows *w, const struct metrics *m, bool steady)
{
    int64_t n[4] = { 0 }, after = 0, from = 0, last = -1;
    for (int i = 0; i < w->n; i++) {
        const struct run_request *r = &w->r[i];
        n[r->status]++;
        bool in = m->whole || !steady || r->t_due_ns <= m->w.t_end_ns;
        after += in && r->t_due_ns > m->t_begin_ns;
        from += in && r->t_due_ns >= m->t_begin_ns;
        if (r->t_last_ns > last) last = r->t_last_ns;
    }
    CHECK_INT(w->n, m->due);
    CHECK_INT(n[RUN_OK], m->finished);
    CHECK_INT(n[RUN_REJECTED], m->rejected);
    CHECK_INT(n[RUN_UNFINISHED], m->failed);
    CHECK(m->kept >= after && m->kept <= from); /* some of those due at once may come before */
    if (m->w.done == m->finished && m->failed == 0) CHECK(m->w.t_end_ns >= last);
}

TEST_LIMIT(sim_rows_agree_with_counts_and_window, 60)
{
    struct rng r = rng_stream(5, "test.sim.rows");
    for (int i = 0; i < 60; i++) {
        struct text x;
        struct arena a;
        struct err e = { 0 };
        struct outcome o;
        struct rows w = { .n = 0 };
        struct sim_sink sink = { .ctx = &w, .request = keep_row };
        arena_init(&a);
        random_scenario(rng_child(r, (uint64_t)i), &x);
        if (outcome_told(x.t, true, &sink, &a, &o, &e) == ST_OK) {
            check_counts(&w, &o.first, !strstr(x.t, "arrivals: burst,"));
            CHECK(!(o.q[Q_GOODPUT_PER_S].hi > o.q[Q_REQUESTS_PER_S].hi));
            outcome_release(&o);
        }
        arena_release(&a);
    }
}

TEST(sim_digest_does_not_depend_on_threads_or_replications)
{
    static const char yaml[] =
        "model: llama-3.2-1b\nhardware: dgx-h100\nstrategy: {dp: 2}\n"
        "workload: {rate: 50/s, requests: 300}\nsim: {replications: 4, draws: 3}\n";
    struct arena a;
    struct err e = { 0 };
    struct outcome o[2];
    arena_init(&a);
    for (int k = 0; k < 2; k++) {
        struct scenario *s = arena_alloc(&a, sizeof *s);
        struct deploy *d = arena_alloc(&a, sizeof *d);
        const char *path = test_path("threads.yaml");
        FILE *f = fopen(path, "w");
        fputs(yaml, f);
        fclose(f);
        scenario_init(s, NULL, NULL, &a);
        CHECK_OK(scenario_read(s, arena_printf(&a, "%s", path), NULL, &e), &e);
        s->sim.threads = k ? 4 : 1;
        CHECK_OK(scenario_deploy(s, d, &e), &e);
        CHECK_OK(evaluate(s, d, NULL, &o[k], &e), &e);
    }
    CHECK(same(&o[0].all, &o[1].all));
    CHECK(o[0].first.digest == o[1].first.digest);
    CHECK(memcmp(o[0].q, o[1].q, sizeof o[0].q) == 0);
    /* The digest of this scenario, whatever the compiler and its options. */
    CHECK_INT((int64_t)o[0].first.digest, INT64_C(-7032047481372731582));
    outcome_release(&o[0]);
    outcome_release(&o[1]);
    arena_release(&a);
}

/* ---- queues of theory: constant steps, no KV, `slots` sequences at once; a request of n tokens
 * holds a slot for n steps. Arrivals lie on the grid of steps, so a request that finds a free slot
 * starts at once. */

enum { STEP_NS = 1000, MEAN_STEPS = 2000 };
struct queue {
    int slots;
    double load;
    bool fixed;
};
struct seen {
    int64_t *wait;
}; /* by request, in steps */

static void see_request(void *ctx, const struct run_request *r)
{
    struct seen *v = ctx;
    v->wait[r->session] = (r->t_last_ns - r->t_due_ns) / STEP_NS - r->n_out;
}

static struct trace_req *draw_rows(const struct queue *q, int n, uint64_t seed, struct arena *a)
{
    struct rng gap = rng_stream(seed, "test.gap"), len = rng_stream(seed, "test.len");
    struct trace_req *row = arena_array(a, (size_t)n, sizeof *row);
    double t = 0;
    for (int i = 0; i < n; i++) {
        t += rng_exp(gap, (uint64_t)i, MEAN_STEPS / (q->load * q->slots));
        double out = q->fixed ? MEAN_STEPS : ceil(rng_exp(len, (uint64_t)i, MEAN_STEPS));
        row[i] = (struct trace_req){ .id = i,
                                     .t_due_ns = (int64_t)t * STEP_NS,
                                     .n_in = 1,
                                     .n_out = (int32_t)out,
                                     .session = i };
    }
    return row;
}

/* Waits of n requests from the simulator; the mean, in units of the mean service. */
static double simulate_queue(const struct queue *q, const struct trace_req *row, int n,
                             int64_t *wait, struct arena *a)
{
    struct err e = { 0 };
    struct deploy d;
    struct metrics m;
    struct seen seen = { wait };
    struct sim_sink sink = { .ctx = &seen, .request = see_request };
    struct sched_opts o = { .policy = SCHED_NULL, .max_seqs = q->slots, .block_tok = 16 };
    struct deploy_request dr = {
        .model = "llama-3.2-1b",
        .hardware = "h100-sxm",
        .fixed_ns = STEP_NS,
        .strategy = { .tp = 1, .pp = 1, .dp = 1, .ep = 1, .split = "auto" },
        .lim = { 1024, q->slots, 16, .9 }
    };
    struct sim_setup u = { .deploy = &d, .sched = &o, .fast = true, .bin_ns = INT64_C(1) << 40 };
    metrics_init(&m);
    bool ok = CHECK(deploy_init(&dr, a, &d, &e) == ST_OK) &&
              CHECK(trace_from_rows(row, n, &u.trace, &e) == ST_OK);
    u.step = d.step;
    if (wait) u.sink = &sink;
    ok = ok && CHECK(sim_run(&u, a, &m, &e) == ST_OK);
    double mean = ok ? m.in_system_area_ns / (double)m.finished / STEP_NS : NAN, service = 0;
    for (int i = 0; i < n; i++) service += row[i].n_out;
    CHECK_INT(m.finished, n);
    CHECK_NEAR(m.in_system_area_ns, m.sojourn_sum_ns, 1e-9);
    trace_close(u.trace);
    metrics_release(&m);
    return (mean - service / n) / MEAN_STEPS;
}

/* Kiefer and Wolfowitz' recursion for one queue and k servers (Lindley's for k = 1), in steps. */
static int64_t reference_wait(int64_t *free_at, int k, int64_t t, int64_t service)
{
    int first = 0;
    for (int i = 1; i < k; i++)
        if (free_at[i] < free_at[first]) first = i;
    int64_t start = free_at[first] > t ? free_at[first] : t;
    free_at[first] = start + service;
    return start - t;
}

static const double loads[] = { .3, .5, .7, .8, .9, .95 };

TEST_LIMIT(sim_waits_equal_the_recursions_of_queueing_theory_exactly, 120)
{
    enum { N = 60000 };
    const int slots[] = { 1, 2, 4, 16 };
    for (size_t l = 0; l < sizeof loads / sizeof *loads; l++)
        for (int c = 0; c < 5; c++) {
            struct queue q = { slots[c % 4], loads[l], c == 4 };
            struct arena a;
            int64_t free_at[16] = { 0 }, wrong = 0;
            arena_init(&a);
            struct trace_req *row = draw_rows(&q, N, 11 + l, &a);
            int64_t *wait = arena_array(&a, N, sizeof *wait);
            simulate_queue(&q, row, N, wait, &a);
            for (int i = 0; i < N; i++)
                wrong += wait[i] !=
                         reference_wait(free_at, q.slots, row[i].t_due_ns / STEP_NS, row[i].n_out);
            CHECK_INT(wrong, 0);
            arena_release(&a);
        }
}

/* Mean wait in units of the mean service. M/M/k: Erlang's C formula; M/D/1: Pollaczek and
 * Khinchine. */
static double theory_wait(const struct queue *q)
{
    double a = q->load * q->slots, term = 1, sum = 0;
    if (q->fixed) return q->load / (2 * (1 - q->load));
    for (int i = 0; i < q->slots; i++) {
        sum += term;
        term *= a / (i + 1);
    }
    double c = term / (1 - q->load);
    return c / (sum + c) / (q->slots * (1 - q->load));
}

/* The mean over replications, with the load that each really had as control variate. */
TEST_LIMIT(sim_mean_waits_at_heavy_load_are_within_1_percent_of_theory, 3000)
{
    enum { N = 1000000, MOST = 120 };
    const struct {
        struct queue q;
        int runs;
    } c[] = { { { 1, .8, false }, 20 },    { { 1, .9, false }, 50 }, { { 1, .95, false }, MOST },
              { { 1, .9, true }, 20 },     { { 1, .95, true }, 60 }, { { 4, .9, false }, 50 },
              { { 4, .95, false }, MOST }, { { 4, .3, false }, 20 } };
    if (!getenv("ORRERY_LONG")) SKIP("takes minutes: ORRERY_LONG=1, which make bench sets");
    for (size_t k = 0; k < sizeof c / sizeof *c; k++) {
        double wait[MOST], load[MOST], a, b, t;
        for (int r = 0; r < c[k].runs; r++) {
            struct arena mem;
            arena_init(&mem);
            const struct trace_req *row = draw_rows(&c[k].q, N, 1000 + (uint64_t)r, &mem);
            double work = 0;
            for (int i = 0; i < N; i++) work += row[i].n_out;
            load[r] = work * STEP_NS / ((double)row[N - 1].t_due_ns * c[k].q.slots);
            wait[r] = simulate_queue(&c[k].q, row, N, NULL, &mem);
            arena_release(&mem);
        }
        stat_line(load, wait, (size_t)c[k].runs, &a, &b, &t);
        printf("  %s/%d at load %.2f: %.4f services, theory %.4f\n", c[k].q.fixed ? "M/D" : "M/M",
               c[k].q.slots, c[k].q.load, a + b * c[k].q.load, theory_wait(&c[k].q));
        CHECK_NEAR(a + b * c[k].q.load, theory_wait(&c[k].q), .01);
    }
}

TEST_LIMIT(sim_mean_waits_are_within_1_percent_of_theory, 300)
{
    /* As many requests as the variance of the mean at each load asks for; heavier loads need many
     * more, see above. */
    const struct queue q[] = { { 1, .3, false }, { 1, .5, false }, { 1, .7, false },
                               { 1, .3, true },  { 1, .5, true },  { 1, .7, true },
                               { 1, .8, true },  { 4, .5, false }, { 4, .7, false } };
    enum { N = 1000000 };
    for (size_t k = 0; k < sizeof q / sizeof *q; k++) {
        double sum = 0;
        for (uint64_t r = 0; r < 3; r++) {
            struct arena a;
            arena_init(&a);
            sum += simulate_queue(&q[k], draw_rows(&q[k], N, 100 + r, &a), N, NULL, &a) / 3;
            arena_release(&a);
        }
        CHECK_NEAR(sum, theory_wait(&q[k]), .01);
    }
}
