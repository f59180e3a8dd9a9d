/* tests/test_report.c - the report and the figures of measured runs, and what tells runs apart.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plots/figure.h"
#include "plots/ranks.h"
#include "tests/cli.h"
#include "tests/made_run.h"
#include "tests/test.h"

/* ---- run files made by hand */

struct made {
    const char *scenario, *workload;
    int64_t window_s[2], slo_ttft_ns, seeds;
    double hit;
};

/* Ten requests, due at 0 to 9 s, request i with its first token after 1 + i ms. */
static const char *make_run(const char *name, const struct made *m)
{
    struct err e = { 0 };
    const char *path = test_path(name);
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return path;
    int st = made_origin(r, "by hand", NULL, &e);
    if (st == ST_OK) st = h5_group(run_h5(r), "/summary", "estimates", &e);
    for (int i = 0; i < 10 && st == ST_OK; i++) {
        int64_t due = INT64_C(1000000000) * i, first = due + INT64_C(1000000) * (1 + i);
        struct run_request q = { .t_due_ns = due,
                                 .t_start_ns = due,
                                 .t_first_ns = first,
                                 .t_last_ns = first + 7,
                                 .session = -1,
                                 .n_in = 100,
                                 .n_out = 3,
                                 .cached_in = 10,
                                 .status = RUN_OK };
        st = run_put_request(r, &q, &e);
    }
    const struct {
        const char *name;
        int64_t v;
    } whole[] = { { "window_begin_ns", m->window_s[0] * 1000000000 },
                  { "window_end_ns", m->window_s[1] * 1000000000 },
                  { "slo_ttft_ns", m->slo_ttft_ns },
                  { "seeds", m->seeds } };
    h5 *f = run_h5(r);
    for (size_t i = 0; i < sizeof whole / sizeof *whole && st == ST_OK; i++)
        st = h5_attr_i64(f, "/summary", whole[i].name, whole[i].v, &e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary", "scenario", m->scenario, &e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary", "workload", m->workload, &e);
    if (st == ST_OK) st = h5_attr_f64(f, "/summary", "prefix_hit", m->hit, &e);
    made_end(r, st, &e);
    CHECK_TEXT(e.text, "");
    return path;
}

static const struct made plain = { "a-model", "10 requests", { 2, 6 }, 5000000, 1, .25 };

/* Due at 2 to 6 s, both ends in: five, of which those due at 2, 3 and 4 s met 5 ms. */
TEST(report_cdf_has_the_window_of_the_summary)
{
    struct arena a;
    struct err e = { 0 };
    struct source s, *list[1] = { &s };
    char *text;
    cli_need("gnuplot");
    arena_init(&a);
    const char *path = make_run("w.h5", &plain);
    CHECK_OK(source_open(path, &a, &s, &e), &e);
    CHECK_OK(figure_data(FIGURE_CDF_TTFT, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "share of 5 requests due [%]");
    CHECK(!s.measured);
    source_close(&s);
    CHECK_INT(cli_run("", "plot %s --figure=cdf_ttft --out=%s", path, test_dir()), 0);
    CHECK_HAS(cli_slurp(test_path("cdf_ttft.svg")), "SLO 5.00 ms: 60.0 % meet it");
    struct made open = plain;
    open.window_s[1] = 0; /* a file that does not say where its window ends */
    CHECK_OK(source_open(make_run("o.h5", &open), &a, &s, &e), &e);
    CHECK_OK(figure_data(FIGURE_CDF_TTFT, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "share of 8 requests due [%]");
    source_close(&s);
    arena_release(&a);
}

/* The cache's own count where there is one: the requests' have the last token of each prompt, which
 * is never looked up. */
TEST(report_has_the_prefix_cache_of_the_summary)
{
    cli_need("gnuplot");
    struct made silent = plain;
    silent.hit = NAN;
    const char *html = test_path("r.html");
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("hit.h5", &plain), html), 0);
    CHECK_HAS(cli_slurp(html), "that the prefix cache had</th><td>25.0 %</td>");
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("not.h5", &silent), html), 0);
    CHECK_HAS(cli_slurp(html), "that the prefix cache had</th><td>10.0 %</td>");
}

/* However long what they share, legends show what differs, and the share at the end. */
TEST(report_legends_say_what_differs)
{
    static const char *const head =
        "llama31 TP2-PP2 on this machine (4 ranks of 1 thread, weights f32, KV f32), continuous "
        "batching of 64 sequences and 2048 tokens";
    cli_need("gnuplot");
    char one[400], two[400];
    struct made m = plain;
    m.window_s[0] = 0, m.window_s[1] = 9;
    snprintf(one, sizeof one, "%s, chunks of 256 tokens", head);
    snprintf(two, sizeof two, "%s, chunks of 512 tokens", head);
    m.scenario = one;
    char a[600], b[600];
    snprintf(a, sizeof a, "%s", make_run("one.h5", &m));
    m.scenario = two;
    m.slo_ttft_ns = 2000000;
    snprintf(b, sizeof b, "%s", make_run("two.h5", &m));
    CHECK_INT(cli_run("", "plot %s %s --figure=cdf_ttft --out=%s", a, b, test_dir()), 0);
    cli_slurp(test_path("cdf_ttft.svg"));
    CHECK_HAS(cli_page, "one: ... 256 ..., 50.0 % within the SLO");
    CHECK_HAS(cli_page, "two: ... 512 ..., 20.0 % within the SLO");
    CHECK_HAS(cli_page, ">10 requests<");
    m.scenario = one;
    m.workload = "12 requests";
    make_run("two.h5", &m);
    CHECK_INT(cli_run("", "plot %s %s --figure=cdf_ttft --out=%s", a, b, test_dir()), 0);
    cli_slurp(test_path("cdf_ttft.svg"));
    CHECK_HAS(cli_page, "one: 10 ..., 50.0 %");
    CHECK_HAS(cli_page, "two: 12 ..., 20.0 %");
    CHECK_HAS(cli_page, "Workloads differ between the runs");
    char c[600], d[600];
    snprintf(c, sizeof c, "%s", make_run("a_long_name_that_many_runs_of_a_day_share-one-x.h5", &m));
    snprintf(d, sizeof d, "%s", make_run("a_long_name_that_many_runs_of_a_day_share-two-x.h5", &m));
    CHECK_INT(cli_run("", "plot %s %s --figure=cdf_ttft --out=%s", c, d, test_dir()), 0);
    cli_slurp(test_path("cdf_ttft.svg"));
    CHECK_HAS(cli_page, ">... one ..., 20.0 %");
    CHECK_HAS(cli_page, ">... two ..., 20.0 %");
    CHECK_INT(cli_run("", "plot %s %s %s --figure=cdf_ttft --out=%s", a, c, d, test_dir()), 0);
    cli_slurp(test_path("cdf_ttft.svg"));
    CHECK_HAS(cli_page, ">a_long_name_that_man...s_of_a_day_share-one-x: ");
    CHECK_HAS(cli_page, ">a_long_name_that_man...s_of_a_day_share-two-x: ");
}

/* ---- a measured run, from the engine to the page */

static const char *scenario(void)
{
    return cli_put("s.yaml",
                   "model: tests/golden/engine/llama31/config.json\n"
                   "hardware: h100-sxm\n"
                   "strategy: {weights: f32, kv: f32, tp: 2, pp: 2}\n"
                   "policy: {max_seqs: 4, max_batch_tokens: 32tok, block: 8tok, kv_blocks: 24}\n"
                   "workload:\n"
                   "  {rate: 3000/s, requests: 40, prompt: {mean: 10tok, max: 30tok},\n"
                   "   output: {mean: 12tok, max: 30tok}}\n"
                   "slo: {ttft: 30s, tpot: 10s, attainment: 0.9}\n"
                   "monitor: {window: 5, memory: 0.01}\n");
}

static double file_sum(struct run_file *f, const char *col, double call, struct arena *a)
{
    double *x, *kind, sum = 0;
    size_t n, m;
    char name[60];
    snprintf(name, sizeof name, "comm/%s", col);
    if (!CHECK_INT(run_column(f, name, a, &x, &n, NULL), ST_OK)) return NAN;
    if (!CHECK_INT(run_column(f, "comm/call", a, &kind, &m, NULL), ST_OK)) return NAN;
    for (size_t i = 0; i < n && i < m; i++) sum += kind[i] == call ? x[i] : 0;
    return sum;
}

/* Every kind of call has its count, bytes and latency, and the run file adds up to the same. */
TEST(engine_run_counts_every_kind_of_call)
{
    static const char *const word[] = { "allreduce", "allgather", "broadcast",
                                        "barrier",   "send",      "recv" };
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    double calls[6] = { 0 }, bytes[6] = { 0 };
    arena_init(&a);
    CHECK_INT(
        cli_run("", "engine run %s --threads=1 --json --out=%s", scenario(), test_path("c.h5")), 0);
    json_t *j = cli_json(), *list = cli_at(j, "comm");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *o = json_array_get(list, i);
        for (int k = 0; k < 6; k++) {
            if (strcmp(cli_text(o, "call"), word[k]) != 0) continue;
            calls[k] += cli_number(o, "calls");
            bytes[k] += cli_number(o, "bytes");
        }
        CHECK(cli_number(o, "mean_s") <= cli_number(o, "max_s"));
        CHECK_NEAR(cli_number(o, "bytes_per_call") * cli_number(o, "calls"), cli_number(o, "bytes"),
                   1e-6);
    }
    json_decref(j);
    CHECK(calls[0] > 0 && calls[4] > 0 && calls[5] == calls[4] && bytes[5] == bytes[4]);
    CHECK_OK(run_open(test_path("c.h5"), &a, &f, &e), &e);
    for (int k = 0; k < 6; k++) {
        CHECK_NEAR(file_sum(&f, "calls", k, &a), calls[k], 0);
        CHECK_NEAR(file_sum(&f, "bytes", k, &a), bytes[k], 0);
    }
    run_close(&f);
    arena_release(&a);
    CHECK_INT(cli_run("", "engine run %s --threads=1", scenario()), 0);
    CHECK_HAS(cli_out, "calls        group");
    CHECK_HAS(cli_out, "stage  allreduce");
    CHECK_HAS(cli_out, "world  send");
    CHECK_INT(cli_run("", "engine generate --model=tests/golden/engine/llama31/config.json "
                          "--random-weights=1 --tokens=1,2 --tp=2 --pp=2 --threads=1 --json"),
              0);
    j = cli_json();
    CHECK_HAS(cli_out, "\"call\": \"send\"");
    CHECK_HAS(cli_out, "\"call\": \"recv\"");
    list = cli_at(j, "comm");
    CHECK(json_array_size(list) >= 3);
    json_decref(j);
}

/* What is told is what is kept, whatever this machine was doing. */
TEST(engine_run_keeps_what_the_machine_was_like)
{
    struct arena a;
    struct err e = { 0 };
    struct run_file f;
    int64_t disturbed = -1;
    double load = -1, spin = -1;
    const char *path = cli_path("n.h5");
    CHECK_INT(cli_run("", "engine run %s --threads=1 --json --out=%s", scenario(), path), 0);
    json_t *j = cli_json();
    arena_init(&a);
    CHECK_OK(run_open(path, &a, &f, &e), &e);
    CHECK_OK(h5_read_attr_i64(f.h5, "/summary", "noise_disturbed", &disturbed, &e), &e);
    CHECK_OK(h5_read_attr_f64(f.h5, "/summary", "noise_load_end", &load, &e), &e);
    CHECK_OK(h5_read_attr_f64(f.h5, "/summary", "noise_spin_ratio", &spin, &e), &e);
    CHECK_INT(json_is_true(cli_at(j, "noise.disturbed")), disturbed);
    CHECK_NEAR(cli_number(j, "noise.load_end"), load, 1e-12);
    CHECK_NEAR(cli_number(j, "noise.spin_ratio"), spin, 1e-12);
    CHECK(load >= 0 && spin >= 1);
    run_close(&f);
    arena_release(&a);
    json_decref(j);
    CHECK_INT(cli_run("", "engine run %s --threads=1 --out=/nowhere/x.h5", scenario()), 5);
    CHECK_HAS(cli_err, "cannot create /nowhere/x.h5");
    CHECK(!strstr(cli_err, "loading"));
}

TEST(report_of_a_measured_run_is_worded_as_one)
{
    static const char *const has[] = {
        "Capacity of each rank, per pipeline stage",
        "output a rank [tokens/s]",
        "There is no interval: one measured run.",
        "none: one measured run",
        "the load generator's monotonic clock</dd>",
        "<h3>Engine</h3>",
        "<th>latency of an all-reduce, mean</th>",
        "<th>communication overlapped with computing</th>",
        "<th>balance of ranks",
        "<th>time to load, slowest rank</th>",
        "<h3>Ranks: where their time in steps goes</h3>",
        "<tr><th>3</th><td>1</td>",
        "<h3>Communicator: calls, summed over ranks</h3>",
        "<tr><th>a stage</th><td class=\"text\">all-reduce</td>",
        "<h3>Anomalies</h3>",
        "<tr><th>memory pressure</th>",
        "KV blocks in use, share of all</td><td>0.01</td>",
        "Where the time of each rank goes",
        "over the time of the run",
    };
    static const char *const lacks[] = { "GPU",
                                         "first seed",
                                         "simulated time",
                                         "taken as exact",
                                         "pool all seeds",
                                         "draws of the constants" };
    cli_need("gnuplot");
    const char *html = test_path("m.html");
    CHECK_INT(cli_run("", "engine run %s --threads=1 --record.bin=1ms --out=%s", scenario(),
                      test_path("m.h5")),
              0);
    CHECK_INT(cli_run("", "report %s --out=%s", test_path("m.h5"), html), 0);
    cli_slurp(html);
    for (size_t i = 0; i < sizeof has / sizeof *has; i++) CHECK_HAS(cli_page, has[i]);
    for (size_t i = 0; i < sizeof lacks / sizeof *lacks; i++)
        if (!CHECK(strstr(cli_page, lacks[i]) == NULL)) printf("%s\n", lacks[i]);
    CHECK_INT(cli_run("", "plot %s --figure=ranks --out=%s", test_path("m.h5"), test_dir()), 0);
    CHECK_HAS(cli_slurp(test_path("ranks.svg")), "rank 3, stage 1");
    CHECK_INT(cli_run("", "plot %s --figure=operators --out=%s", test_path("m.h5"), test_dir()), 0);
    CHECK_HAS(cli_slurp(test_path("operators.svg")), "attention");
}

/* Stage 1's ranks were lost: nothing is known of them, which is not the same as no bytes. */
TEST(report_of_lost_ranks_has_no_bytes_for_them)
{
    struct err e = { 0 };
    const char *path = test_path("lost.h5"), *html = test_path("lost.html");
    const double layers[2] = { 2, 2 }, weights[2] = { 5000, 0 }, busy[2] = { 1, 1 },
                 at[2] = { 0, 1 };
    const double *scale[1] = { at };
    const char *const unit[1] = { "1" };
    const char *dim[1] = { "stage" };
    const size_t n[1] = { 2 };
    cli_need("gnuplot");
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return;
    CHECK_OK(made_origin(r, "by hand", NULL, &e), &e);
    h5 *f = run_h5(r);
    CHECK_OK(h5_group(f, "/summary", "estimates", &e), &e);
    CHECK_OK(h5_attr_text(f, "/provenance", "kind", "measured", &e), &e);
    CHECK_OK(h5_attr_i64(f, "/summary", "gpus", 2, &e), &e);
    CHECK_OK(h5_attr_i64(f, "/summary", "monitor_steps", 3, &e), &e);
    CHECK_OK(h5_array(f, "/summary/stage_layers", 1, n, dim, scale, unit, layers, "1", "", &e), &e);
    CHECK_OK(h5_array(f, "/summary/stage_weights", 1, n, dim, scale, unit, weights, "byte", "", &e),
             &e);
    CHECK_OK(h5_array(f, "/summary/stage_busy", 1, n, dim, scale, unit, busy, "1", "", &e), &e);
    struct run_request q = { .t_first_ns = 1, .t_last_ns = 2, .n_in = 1, .n_out = 1 };
    CHECK_OK(run_put_request(r, &q, &e), &e);
    struct run_comm c = { .calls = 4, .bytes = 400, .ns = 4000, .max_ns = 2000 };
    CHECK_OK(run_put_comm(r, &c, &e), &e);
    CHECK_OK(run_commit(r, &e), &e);
    CHECK_INT(cli_run("", "report %s --out=%s", path, html), 0);
    cli_slurp(html);
    CHECK_HAS(cli_page, "<tr><th>0</th><td>2</td><td>5.00 kB</td>");
    CHECK_HAS(cli_page, "<tr><th>1</th><td>2</td><td>-</td>");
    CHECK(strstr(cli_page, "100.0 %") == NULL); /* there is no window to be busy in */
    CHECK_HAS(cli_page, "1 of 2 ranks lived to tell");
    CHECK_HAS(cli_page, "all-reduce</td><td>4</td><td>100 B</td><td>1.00 us</td><td>2.00 us</td>");
    CHECK_HAS(cli_page, "None: no threshold was exceeded");
}

/* Shares add up to one, whether from the sums or from /monitor. */
TEST(report_ranks_add_up)
{
    struct arena a;
    struct err e = { 0 };
    struct source s;
    double *part[RANKS_N_PART];
    const char *path = test_path("m.h5");
    arena_init(&a);
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return;
    CHECK_OK(made_origin(r, "by hand", NULL, &e), &e);
    for (int i = 0; i < 12; i++) {
        struct run_monitor row = { .step = i / 4,
                                   .rank = i % 4,
                                   .compute_ns = 10 * (1 + i % 4),
                                   .comm_ns = 5,
                                   .wait_ns = 40 - 10 * (i % 4),
                                   .host_ns = 5 };
        if (i % 4 != 2) run_put_monitor(r, &row, &e); /* rank 2 was not seen */
    }
    CHECK_OK(run_commit(r, &e), &e);
    CHECK_OK(source_open(path, &a, &s, &e), &e);
    CHECK_INT(ranks_read(&s, part), 4);
    CHECK(isnan(part[RANKS_COMPUTE][2]));
    CHECK_NEAR(part[RANKS_COMPUTE][3], 40 / 60., 1e-12);
    CHECK_NEAR(part[RANKS_WAIT][0], 40 / 60., 1e-12);
    CHECK_NEAR(part[RANKS_HOST][1], 5 / 60., 1e-12);
    source_close(&s);
    arena_release(&a);
}
