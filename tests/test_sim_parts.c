/* tests/test_sim_parts.c - the simulator's parts on their own: event queue, router, time series, metrics, scenario.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "engine/router.h"
#include "sim/bottleneck.h"
#include "sim/evqueue.h"
#include "sim/scenario.h"
#include "sim/series.h"
#include "tests/test.h"

/* ---- event queue, against a plain array that is searched */

static bool comes_before(const struct ev *a, const struct ev *b)
{
    if (a->t_ns != b->t_ns) return a->t_ns < b->t_ns;
    if (a->tie != b->tie) return a->tie < b->tie;
    return a->owner < b->owner;
}

TEST(evqueue_agrees_with_a_plain_array)
{
    enum { N = 50 };
    struct rng r = rng_stream(3, "evqueue");
    uint64_t k = 0;
    struct arena a;
    struct evqueue q;
    struct ev plain[N];
    bool there[N] = { false };
    arena_init(&a);
    evqueue_init(&q, 4, &a); /* grows */
    for (int step = 0; step < 20000; step++) {
        int32_t i = (int32_t)rng_below(r, k++, N);
        uint64_t what = rng_below(r, k++, 10);
        if (what < 5) {
            int64_t t_ns = (int64_t)rng_below(r, k++, 30), tie = (int64_t)rng_below(r, k++, 3);
            plain[i] = (struct ev){ t_ns, tie, i };
            there[i] = true;
            evqueue_set(&q, i, plain[i].t_ns, plain[i].tie);
        } else if (what < 7) {
            evqueue_remove(&q, i);
            there[i] = false;
        } else {
            int best = -1;
            for (int j = 0; j < N; j++)
                if (there[j] && (best < 0 || comes_before(&plain[j], &plain[best]))) best = j;
            if (!CHECK(evqueue_empty(&q) == (best < 0))) break;
            if (best < 0) continue;
            if (!CHECK_INT(evqueue_top(&q)->owner, best)) break;
            struct ev e = evqueue_pop(&q);
            CHECK_INT(e.t_ns, plain[best].t_ns);
            there[best] = false;
        }
    }
    arena_release(&a);
}

/* ---- routers */

TEST(router_known_answers)
{
    struct router r = { .kind = ROUTER_ROUND_ROBIN, .n = 3 };
    struct trace_req q = { .session = -1 };
    int64_t load[] = { 5, 2, 2 };
    CHECK_INT(router_pick(&r, &q, load), 0);
    CHECK_INT(router_pick(&r, &q, load), 1);
    CHECK_INT(router_pick(&r, &q, load), 2);
    CHECK_INT(router_pick(&r, &q, load), 0);
    r.kind = ROUTER_LEAST_LOADED;
    CHECK_INT(router_pick(&r, &q, load), 1);
    load[2] = 1;
    CHECK_INT(router_pick(&r, &q, load), 2);
    r.kind = ROUTER_PREFIX; /* shares nothing: as least loaded */
    CHECK_INT(router_pick(&r, &q, load), 2);
}

TEST(router_by_prefix_keeps_sessions_together_unless_overloaded)
{
    struct router r = { .kind = ROUTER_PREFIX, .n = 8 };
    int64_t calm[8] = { 0 }, seen[8] = { 0 };
    for (int64_t s = 0; s < 800; s++) {
        struct trace_req q = { .session = s };
        int i = router_pick(&r, &q, calm);
        CHECK_INT(router_pick(&r, &q, calm), i);
        seen[i]++;
        int64_t load[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
        load[i] = 100; /* more than twice the mean and 8 */
        CHECK(router_pick(&r, &q, load) != i);
    }
    for (int i = 0; i < 8; i++) CHECK(seen[i] > 50 && seen[i] < 150);
    struct trace_seg seg = { 16, 77 }, other = { 32, 77 };
    struct trace_req q = { .session = -1, .n_seg = 1, .seg = &seg },
                     p = { .session = -1, .n_seg = 1, .seg = &other };
    CHECK_INT(router_pick(&r, &q, calm), router_pick(&r, &p, calm));
}

/* ---- time series */

TEST(series_conserves_what_is_put_in_while_bins_are_joined)
{
    struct rng r = rng_stream(5, "series");
    struct series s;
    struct arena a;
    double running = 0, kv = 0, tok = 0, arrivals = 0, got[4] = { 0 };
    arena_init(&a);
    series_init(&s, 1000, &a);
    int64_t t = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        int64_t t1 = t + 1 + (int64_t)rng_below(r, 4 * i, 3000);
        double n = (double)rng_below(r, 4 * i + 1, 9), k0 = (double)rng_below(r, 4 * i + 2, 100),
               k1 = k0 + 10;
        series_state(&s, t, t1, n, 1, k0, k1);
        series_tokens(&s, t, t1, 0, n);
        series_arrival(&s, t1);
        running += n * (double)(t1 - t);
        kv += (k0 + k1) / 2 * (double)(t1 - t);
        tok += n;
        arrivals++;
        t = t1;
    }
    CHECK(s.n <= SERIES_MAX && s.bin_ns > 1000); /* joined at least once */
    for (int i = 0; i < s.n; i++) {
        got[0] += s.bin[i].running;
        got[1] += s.bin[i].kv;
        got[2] += s.bin[i].out_tok;
        got[3] += s.bin[i].arrivals;
    }
    CHECK_NEAR(got[0], running, 1e-12);
    CHECK_NEAR(got[1], kv, 1e-12);
    CHECK_NEAR(got[2], tok, 1e-9);
    CHECK_NEAR(got[3], arrivals, 0);
    arena_release(&a);
}

TEST(series_rows_are_rates)
{
    struct series s;
    struct arena a;
    struct run_bin row;
    arena_init(&a);
    series_init(&s, 1000000000, &a);
    series_state(&s, 0, 1500000000, 4, 2, 10, 40);
    series_tokens(&s, 0, 2000000000, 30, 60);
    series_arrival(&s, 100);
    series_row(&s, 0, 100, 1500000000, &row);
    CHECK_NEAR(row.running, 4, 1e-12);
    CHECK_NEAR(row.queue, 2, 1e-12);
    CHECK_NEAR(row.kv_used_ratio, .2, 1e-12); /* mean of 10 .. 30 of 100 */
    CHECK_NEAR(row.out_tok_per_s, 30, 1e-12);
    CHECK_NEAR(row.arrivals_per_s, 1, 1e-12);
    series_row(&s, 1, 100, 1500000000, &row); /* the last bin ends with the run */
    CHECK_NEAR(row.running, 4, 1e-12);
    CHECK_NEAR(series_in_system(&s, 0, 1000000000), 6, 1e-12);
    CHECK(isnan(series_in_system(&s, 0, 999)));
    arena_release(&a);
}

/* ---- metrics */

TEST(metrics_merge_pools_runs)
{
    struct metrics a, b;
    metrics_init(&a);
    metrics_init(&b);
    a.n_run = b.n_run = 1;
    a.n_replica = b.n_replica = 2;
    a.w.done = 30;
    b.w.done = 10;
    a.t_begin_ns = 1000000000;
    a.w.t_end_ns = 4000000000;
    b.w.t_end_ns = 1000000000;
    a.kept = b.kept = 10;
    a.kept_ok = 10;
    hist_add(&a.h[METRIC_TTFT], 100, 10);
    hist_add(&b.h[METRIC_TTFT], 300, 10);
    a.w.stage_busy_ns[0] = 3e9;
    b.w.stage_busy_ns[0] = 1e9;
    metrics_merge(&a, &b);
    CHECK_NEAR(metrics_requests_per_s(&a), 10, 1e-12); /* 40 in 4 s */
    CHECK_NEAR(metrics_attain(&a), .5, 1e-12);
    CHECK_NEAR(metrics_goodput_per_s(&a), 2.5, 1e-12);
    CHECK_NEAR(metrics_latency_ns(&a, METRIC_TTFT, 0), 200, 1e-12);
    CHECK_NEAR(metrics_latency_ns(&a, METRIC_TTFT, 3), 300, 1e-3);
    CHECK_NEAR(metrics_utilisation(&a, 0), .5, 1e-12);
    CHECK(isnan(metrics_latency_ns(&a, METRIC_ITL, 1)));
    metrics_release(&a);
    metrics_release(&b);
}

TEST(bottleneck_names_what_requests_wait_for)
{
    struct metrics m;
    struct arena a;
    arena_init(&a);
    metrics_init(&m);
    CHECK_HAS(bottleneck(&m, 256, &a), "nothing ran");
    m.n_replica = m.n_stage = m.n_run = 1;
    m.w.t_end_ns = 1000000000;
    m.w.n_step = 10;
    m.w.running_area_ns = 100e9;
    m.w.queue_area_ns = 50e9;
    m.w.blocked_ns[SCHED_BY_KV] = 9e8;
    m.w.blocked_ns[SCHED_BY_SEQS] = 1e8;
    CHECK_HAS(bottleneck(&m, 256, &a), "KV memory");
    m.w.blocked_ns[SCHED_BY_SEQS] = 2e9;
    CHECK_HAS(bottleneck(&m, 256, &a), "max_seqs");
    m.w.queue_area_ns = 0;
    m.w.stage_busy_ns[0] = 1e9;
    m.w.class_ns[STEP_ATTN] = 1;
    CHECK_HAS(bottleneck(&m, 128, &a), "stage 0, busy 100 %");
    CHECK_HAS(bottleneck(&m, 128, &a), "attention");
    CHECK_HAS(bottleneck(&m, 1000, &a), "none");
    m.n_stage = 2;
    m.w.active_ns = 1e9;
    m.w.stage_busy_ns[0] = m.w.stage_busy_ns[1] = 4e8;
    CHECK_HAS(bottleneck(&m, 1000, &a), "pipeline bubbles");
    metrics_release(&m);
    arena_release(&a);
}

/* ---- scenarios: file, then command line, then the place of an error */

static int read_text(struct scenario *s, const char *text, int argc, char **argv, struct arena *a,
                     struct err *e)
{
    struct conf_args args;
    const char *path = arena_printf(a, "%s", test_path("s.yaml"));
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    scenario_init(s, NULL, NULL, a);
    int st = conf_args(&s->conf, argc, argv, &args, e);
    return st == ST_OK ? scenario_read(s, path, &args, e) : st;
}

TEST(scenario_command_line_wins_over_the_file)
{
    char *argv[] = { (char[]){ "x" },
                     (char[]){ "--workload.rate=9/s" },
                     (char[]){ "--policy" },
                     (char[]){ "sarathi" },
                     (char[]){ "--profile.host.step=2ms" },
                     (char[]){ "--sweep=strategy.tp=2,4" } };
    struct scenario s;
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    CHECK_OK(
        read_text(
            &s,
            "model: llama-3-8b\nhardware: {name: dgx-h100}\nworkload: {rate: 1/s}\npolicy: vllm\n"
            "profile: {host: {step: 1ms, seq: 5us}}\n",
            6, argv, &a, &e),
        &e);
    CHECK_NEAR(s.workload.rate_per_s, 9, 0);
    CHECK_INT(s.policy.policy, SCHED_SARATHI);
    CHECK_INT(s.n_profile, 2);
    CHECK_NEAR(s.profile[0].v, 2e-3, 1e-12);
    CHECK_NEAR(s.profile[1].v, 5e-6, 1e-12);
    CHECK_INT(s.n_sweep, 2);
    CHECK_TEXT(s.sweep[1], "4");
    struct deploy d;
    CHECK_OK(scenario_deploy(&s, &d, &e), &e);
    CHECK_NEAR(d.profile.p[P_HOST_STEP_S].v, 2e-3, 1e-12);
    CHECK_INT(d.lim.max_batch_tok, 512); /* sarathi's chunk */
    arena_release(&a);
}

TEST(scenario_title_is_one_harmless_line)
{
    struct scenario s;
    struct arena a;
    struct err e = { 0 };
    char *none[] = { NULL };
    arena_init(&a);
    CHECK_OK(
        read_text(&s,
                  "title: \"a\\nb\\e[31m\\u009bc d\\u00e9\"\nmodel: llama-3-8b\nhardware: t4-1\n",
                  0, none, &a, &e),
        &e);
    CHECK_TEXT(s.o.title, "a b [31m c d\xc3\xa9");
    arena_release(&a);
}

TEST(scenario_constants_reach_the_step)
{
    struct scenario s[2];
    struct deploy d[2];
    struct arena a;
    struct err e = { 0 };
    arena_init(&a);
    for (int k = 0; k < 2; k++) {
        char *argv[] = { (char[]){ "x" }, (char[]){ "--profile.host.gap=100ms" } };
        CHECK_OK(read_text(&s[k], "model: llama-3-8b\nhardware: h100-sxm\nworkload: {rate: 1/s}\n",
                           1 + k, argv, &a, &e),
                 &e);
        CHECK_OK(scenario_deploy(&s[k], &d[k], &e), &e);
    }
    struct step_shape one = { .n_decode = 1, .sum_ctx = 100, .n_logits = 1 };
    double before = (double)step_total_fp(d[0].step, 0, &one),
           after = (double)step_total_fp(d[1].step, 0, &one);
    CHECK_NEAR((after - before) / (1 << STEP_FP_BITS), 100e6 - d[0].profile.p[P_HOST_GAP_S].v * 1e9,
               1e-6);
    arena_release(&a);
}

TEST(scenario_places_an_error_where_its_key_stands)
{
    struct scenario s;
    struct arena a;
    struct err e = { 0 };
    struct deploy d;
    char *none[] = { NULL };
    arena_init(&a);
    CHECK_OK(
        read_text(
            &s,
            "model: llama-3-8b\nhardware: dgx-h100\nstrategy:\n  tp: 5\nworkload: {rate: 1/s}\n", 0,
            none, &a, &e),
        &e);
    CHECK_INT(scenario_deploy(&s, &d, &e), ST_USAGE);
    CHECK_HAS(e.text, "s.yaml:4:7: tp 5 does not divide");
    arena_release(&a);
}
