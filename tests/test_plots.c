/* tests/test_plots.c - figures and the report: what they show, that they are whole, what they
 * refuse. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plots/axis.h"
#include "plots/figure.h"
#include "plots/html.h"
#include "tests/cli.h"
#include "tests/made_run.h"
#include "tests/test.h"

/* stderr holds one sentence, which begins with the program's name and contains `part`. */
static void check_sentence(const char *part)
{
    const char *end = strchr(cli_err, '\n');
    CHECK(strncmp(cli_err, "orrery ", 7) == 0);
    CHECK(end && end[1] == 0);
    CHECK_HAS(cli_err, part);
}

static int count_files(const char *dir)
{
    char cmd[600], text[32];
    snprintf(cmd, sizeof cmd, "find %s -mindepth 1 | wc -l", dir);
    test_run(cmd, text, sizeof text, NULL, 0);
    return atoi(text);
}

/* ---- run files */

struct make {
    const char *title;
    double attain, lo, hi, asked;
    int64_t slo_ttft_ns;
    int n_request;
    bool plain; /* requests only */
    const char *ended_early;
};
static const struct make usual = { "does it hold?", .95, .93, .97, .9, 50000000, 40, false, NULL };

/* Request i: due at i s, first token after 10 + i ms, then 4 tokens at 5 ms; each 10th is rejected,
 * each 7th has one token. */
static int put_requests(run *r, int n, struct err *e)
{
    int st = ST_OK;
    for (int i = 0; i < n && st == ST_OK; i++) {
        bool lost = i % 10 == 9, one = i % 7 == 3;
        int64_t due = INT64_C(1000000000) * i, first = due + INT64_C(1000000) * (10 + i);
        struct run_request q = { .t_due_ns = due,
                                 .t_start_ns = lost ? -1 : due,
                                 .t_first_ns = lost ? -1 : first,
                                 .t_last_ns = lost  ? -1
                                              : one ? first
                                                    : first + 20000000,
                                 .session = -1,
                                 .n_in = 100,
                                 .n_out = lost  ? 0
                                          : one ? 1
                                                : 5,
                                 .cached_in = 25,
                                 .status = lost ? RUN_REJECTED : RUN_OK };
        st = run_put_request(r, &q, e);
    }
    return st;
}

static int put_times(run *r, struct err *e)
{
    int st = ST_OK;
    for (int i = 0; i < 10 && st == ST_OK; i++) {
        struct run_bin b = { .t_ns = INT64_C(1000000000) * i,
                             .running = i,
                             .queue = 10 - i,
                             .kv_used_ratio = .1 * i,
                             .in_tok_per_s = 100,
                             .out_tok_per_s = 20,
                             .arrivals_per_s = 1,
                             .done_per_s = 1 };
        st = run_put_bin(r, &b, e);
    }
    for (int i = 0; i < 12 && st == ST_OK; i++) {
        struct run_span s = { .t0_ns = INT64_C(10000000) * i,
                              .t1_ns = INT64_C(10000000) * i + 5000000,
                              .replica = i % 2,
                              .stage = i % 3,
                              .kind = (uint8_t)(i % 3) };
        st = run_put_span(r, &s, e);
    }
    return st;
}

static int put_summary(run *r, const struct make *m, struct err *e)
{
    static const char *const one[] = { "requests_per_s",  "output_per_s",    "goodput_per_s",
                                       "attainment_ttft", "attainment_tpot", "attainment_e2e" };
    const struct ci four[4] = {
        { 1e6, 2e6, 3e6 }, { 2e6, 3e6, 4e6 }, { 3e6, 4e6, 5e6 }, { 4e6, 5e6, 6e6 }
    };
    const struct ci attain = { m->lo, m->attain, m->hi }, some = { .5, .75, 1 };
    const double share[2] = { .8, .2 }, stage[3] = { .5, .6, .7 }, index[3] = { 0, 1, 2 };
    const char *dim[2] = { "class", "stage" };
    const double *scale[1] = { index };
    const char *const unit[1] = { "1" };
    const size_t n[2] = { 2, 3 };
    h5 *f = run_h5(r);
    int st = run_put_summary(r, "ttft", four, 4, "mean p50 p90 p99", "ns", "none", e);
    if (st == ST_OK) st = run_put_summary(r, "tpot", four, 4, "mean p50 p90 p99", "ns", "none", e);
    if (st == ST_OK) st = run_put_summary(r, "attainment", &attain, 1, "mean", "1", "none", e);
    for (size_t i = 0; i < sizeof one / sizeof *one && st == ST_OK; i++)
        st = run_put_summary(r, one[i], &some, 1, "mean", "1", "none", e);
    if (st == ST_OK)
        st = h5_array(f, "/summary/time_share", 1, n, dim, scale, unit, share, "1", "shares", e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary/time_share", "classes", "GEMM host", e);
    if (st == ST_OK)
        st = h5_array(f, "/summary/stage_busy", 1, n + 1, dim + 1, scale, unit, stage, "1", "busy",
                      e);
    if (st == ST_OK)
        st = h5_array(f, "/summary/stage_bubble", 1, n + 1, dim + 1, scale, unit, stage, "1",
                      "idle", e);
    if (st == ST_OK)
        st = h5_attr_text(f, "/summary", "scenario", "a-model TP1-PP3 <on> hardware", e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary", "workload", "40 requests & more", e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary", "bottleneck", "KV memory", e);
    if (st == ST_OK) st = h5_attr_text(f, "/summary", "coverage", "GEMM fitted; host guessed", e);
    if (st == ST_OK) st = h5_attr_i64(f, "/summary", "slo_ttft_ns", m->slo_ttft_ns, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/summary", "window_begin_ns", INT64_C(2000000000), e);
    if (st == ST_OK) st = h5_attr_i64(f, "/summary", "window_end_ns", INT64_C(39000000000), e);
    if (st == ST_OK) st = h5_attr_i64(f, "/summary", "extrapolated", 1, e);
    if (st == ST_OK) st = h5_attr_i64(f, "/summary", "rejected", m->n_request / 10, e);
    if (st == ST_OK) st = h5_attr_f64(f, "/summary", "slo_attainment", m->asked, e);
    if (st == ST_OK) st = h5_attr_f64(f, "/summary", "interval_level", .9, e);
    if (st == ST_OK)
        st = h5_attr_i64(f, "/summary", "finished", m->n_request - m->n_request / 10, e);
    if (st == ST_OK && m->ended_early)
        st = h5_attr_text(f, "/summary", "ended_early", m->ended_early, e);
    return st;
}

static const char *make_run(const char *name, const struct make *m)
{
    struct err e = { 0 };
    const char *path = cli_path(name);
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return path;
    int st = made_origin(r, m->title, "title: \"<b>&amp;\"\n", &e);
    if (st == ST_OK) st = put_requests(r, m->n_request, &e);
    if (st == ST_OK && !m->plain) st = put_times(r, &e);
    if (st == ST_OK && !m->plain) st = put_summary(r, m, &e);
    made_end(r, st, &e);
    CHECK_TEXT(e.text, "");
    return path;
}

/* Four points; gpus: the sweep is over GPUs, else over the offered rate. */
static const char *make_sweep(const char *name, bool gpus)
{
    struct err e = { 0 };
    const char *path = cli_path(name);
    run *r = run_create(path, &e);
    if (!CHECK(r != NULL)) return path;
    int st = made_origin(r, usual.title,
                         gpus ? "sweep:\n  strategy.dp: [1, 2, 4, 8]\n"
                              : "sweep:\n  workload.rate: [4/s, 8/s, 16/s, 32/s]\n",
                         &e);
    for (int i = 3; i >= 0 && st == ST_OK; i--) { /* the rows need not be in order */
        double x = 1 << i, rate = gpus ? 100 : 4 * x, done = gpus ? 20 * x : rate < 20 ? rate : 20;
        struct run_sweep p = { .value = x,
                               .rate_per_s = rate,
                               .requests_per_s = done,
                               .output_tok_per_s = 50 * done,
                               .out_lo = 49 * done,
                               .out_hi = 51 * done,
                               .goodput_per_s = done / 2,
                               .attain_ratio = i < 2 ? .99 : .4,
                               .attain_lo = i < 1 ? .98 : .39,
                               .attain_hi = .995,
                               .ttft_p50_s = .1 * x,
                               .ttft_p99_s = x,
                               .ttft_p99_lo_s = .9 * x,
                               .ttft_p99_hi_s = NAN,
                               .tpot_p50_s = .01,
                               .tpot_p99_s = .02,
                               .gpus = gpus ? x : 8,
                               .tp = 1,
                               .pp = 1,
                               .dp = gpus ? x : 8,
                               .overloaded = i == 3 };
        st = run_put_sweep(r, &p, &e);
    }
    if (st == ST_OK)
        st = h5_attr_text(run_h5(r), "/sweep", "key", gpus ? "strategy.dp" : "workload.rate", &e);
    if (st == ST_OK) st = h5_attr_i64(run_h5(r), "/sweep", "slo_ttft_ns", 2000000000, &e);
    if (st == ST_OK) st = h5_attr_f64(run_h5(r), "/sweep", "slo_attainment", .9, &e);
    made_end(r, st, &e);
    CHECK_TEXT(e.text, "");
    return path;
}

/* ---- parts */

TEST(plots_axis_chooses_units_and_marks)
{
    struct axis x;
    char marks[400];
    axis_init(&x);
    axis_add(&x, NAN);
    axis_add(&x, 2e7);
    axis_add(&x, 1.5e9);
    axis_time(&x);
    CHECK_TEXT(x.unit, "s");
    CHECK(x.log && x.from < .02 && x.to > 1.5);
    CHECK_TEXT(axis_marks(&x, marks, sizeof marks), "(0.02,0.05,0.1,0.2,0.5,1)");
    axis_init(&x);
    axis_add(&x, 4e7);
    axis_add(&x, 9e7);
    axis_time(&x);
    CHECK_TEXT(x.unit, "ms");
    CHECK(!x.log && x.from >= 0 && x.from < 40 && x.to > 90);
    CHECK_TEXT(axis_marks(&x, marks, sizeof marks), "auto");
    axis_init(&x); /* nothing, and a single value, still give a range */
    axis_time(&x);
    CHECK(x.to > x.from);
    axis_init(&x);
    axis_add(&x, 0);
    axis_time(&x);
    CHECK(x.to > x.from);
    axis_init(&x);
    axis_add(&x, 1);
    axis_add(&x, 1e17);
    axis_time(&x);
    CHECK(x.log && strlen(axis_marks(&x, marks, sizeof marks)) < sizeof marks - 1);
}

TEST(plots_html_escapes_and_counts)
{
    char *text = NULL, buf[HTML_NUMBER_BYTES];
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!CHECK(f != NULL)) return;
    html_text(f, "<a href=\"x\">&'\x01\xff\xc3\xa9\n");
    fclose(f);
    CHECK_TEXT(text, "&lt;a href=&quot;x&quot;&gt;&amp;&#39; ?\xc3\xa9\n");
    free(text);
    CHECK_TEXT(html_percent(.9412, buf), "94.1 %");
    CHECK_TEXT(html_percent(.99999, buf), "99.999 %"); /* not 100: one request may have missed */
    CHECK_TEXT(html_percent(1, buf), "100.0 %");
    CHECK_TEXT(html_percent(NAN, buf), "-");
    CHECK_TEXT(html_ns(NAN, buf), "-");
    CHECK_TEXT(html_number(1234.6, buf), "1235");
}

TEST(plots_svg_goes_inline)
{
    static const char svg[] =
        "<?xml version=\"1.0\"?>\n<svg width=\"9\" viewBox=\"0 0 9 5\" "
        "xmlns=\"http://www.w3.org/2000/svg\">\n<title>x</title><g id=\"a\"><use "
        "xlink:href='#b'/><path fill='url(#c)'/></g></svg>";
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!CHECK(f != NULL)) return;
    html_svg(f, svg, sizeof svg - 1, "p_", "a \"b\"");
    html_svg(f, "<svg", 4, "p_", "cut short");
    html_svg(f, "", 0, "p_", "empty");
    fclose(f);
    CHECK_TEXT(text, "<svg viewBox=\"0 0 9 5\" role=\"img\" aria-label=\"a &quot;b&quot;\">\n<g "
                     "id=\"p_a\"><use href='#p_b'/><path fill='url(#p_c)'/></g></svg>");
    free(text);
}

/* ---- data */

/* Of requests 2 to 39, 38 are due in the window; rejected are 9, 19, 29, 39; TTFT of request i is
 * 10 + i ms, so a limit of 50 ms is met by all that finish: 34. */
TEST(plots_cdf_data)
{
    struct arena a;
    struct err e = { 0 };
    struct source s, *list[2] = { &s, &s };
    char *text;
    arena_init(&a);
    CHECK_OK(source_open(make_run("a.h5", &usual), &a, &s, &e), &e);
    CHECK_TEXT(s.name, "a");
    CHECK_OK(figure_data(FIGURE_CDF_TTFT, list, 1, &a, &text, &e), &e);
    test_golden("plots-cdf-ttft.txt", text);
    CHECK_HAS(text, "share of 38 requests due [%]");
    const char *last = strrchr(text, '\t');
    CHECK_NEAR(last ? atof(last + 1) : 0, 100 * 34 / 38., 1e-5);
    /* TPOT is 5 ms; 3, 10, 17, 24, 31, 38 have one token and meet any limit */
    CHECK_OK(figure_data(FIGURE_CDF_TPOT, list, 1, &a, &text, &e), &e);
    const char *first = strchr(text, '\n');
    first = first ? strchr(first, '\t') : NULL;
    CHECK_NEAR(first ? atof(first + 1) : 0, 100 * 6 / 38., 1e-5);
    CHECK_OK(figure_data(FIGURE_CDF_E2E, list, 2, &a, &text, &e), &e);
    CHECK_HAS(text, "\n\n\n# run 2: E2E [ms]");
    source_close(&s);
    arena_release(&a);
}

TEST(plots_sweep_and_time_data)
{
    struct arena a;
    struct err e = { 0 };
    struct source rate, gpus, timed, *list[1];
    char *text;
    arena_init(&a);
    CHECK_OK(source_open(make_sweep("rate.h5", false), &a, &rate, &e), &e);
    CHECK_OK(source_open(make_sweep("gpus.h5", true), &a, &gpus, &e), &e);
    CHECK_OK(source_open(make_run("run.h5", &usual), &a, &timed, &e), &e);
    CHECK(figure_lacks(FIGURE_RATE, &rate) == NULL && figure_lacks(FIGURE_SCALING, &rate) != NULL);
    CHECK(figure_lacks(FIGURE_RATE, &gpus) != NULL && figure_lacks(FIGURE_SCALING, &gpus) == NULL);
    CHECK(figure_lacks(FIGURE_GANTT, &rate) != NULL && figure_lacks(FIGURE_GANTT, &timed) == NULL);
    list[0] = &rate;
    CHECK_OK(figure_data(FIGURE_RATE, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text,
              "\n\t4\t4\t2\t99\t98\t99.5\t0.1\t1\t0.9\tNaN\t10\t20"); /* sorted, in s and ms */
    list[0] = &gpus;
    CHECK_OK(figure_data(FIGURE_SCALING, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "\n4\t4000\t3920\t4080\t4000\t100\t0\t\"TP1-PP1-DP4\"\n");
    CHECK_HAS(text, "\n8\t8000\t7840\t8160\t8000\t100\t1\t"); /* 160/s of 100/s offered */
    list[0] = &timed;
    CHECK_OK(figure_data(FIGURE_GANTT, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "\n4\t\"replica 1 stage 1\"\t"); /* two spans of 5 ms in 115 ms */
    CHECK_HAS(text, "\"9 %\"");
    CHECK_HAS(text, "# prefill: begin [unit of args]\tend\trow [1]\n10\t15\t4\n");
    CHECK_OK(figure_data(FIGURE_SERIES, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "\n3\t3\t7\t30\t100\t20\t1\t1\n");
    CHECK_OK(figure_data(FIGURE_OPERATORS, list, 1, &a, &text, &e), &e);
    CHECK_HAS(text, "\n1\t\"host\"\t20\n");
    source_close(&rate);
    source_close(&gpus);
    source_close(&timed);
    arena_release(&a);
}

/* ---- orrery plot */

TEST(plots_draws_every_figure)
{
    static const struct {
        const char *name, *part[3];
    } want[] = {
        { "cdf_ttft-",
          { "TTFT [ms]", "SLO 50.00 ms: 89.5 % meet it", "a-model TP1-PP3 &lt;on> hardware" } },
        { "cdf_tpot-", { "TPOT [ms]", "share of requests due [%]", "40 requests &amp; more" } },
        { "cdf_e2e-", { "E2E [ms]", "share of requests due [%]", "End to end" } },
        { "gantt-run", { "stage 2", "mixed (prefill and decode)", "[ms]" } },
        { "series-run", { "KV blocks in use [%]", "tokens/s", "time from run start [s]" } },
        { "operators-run", { "share of step time [%]", "share of the window [%]", "GEMM" } },
        { "rate-rate", { "offered rate [requests/s]", "TTFT [s]", "asked: 90 %" } },
        { "scaling-gpus", { "GPUs", "output [tokens/s]", "of ideal scaling [%]" } },
    };
    cli_need("gnuplot");
    char files[1600] = "", file[256];
    const char *dir = cli_path("d"), *again = cli_path("again");
    const char *timed = make_run("run.h5", &usual), *rate = make_sweep("rate.h5", false);
    const char *gpus = make_sweep("gpus.h5", true);
    CHECK_INT(cli_run("", "plot %s %s %s --out=%s --format=both", timed, rate, gpus, dir), 0);
    CHECK_INT(cli_run("", "plot %s %s %s --out=%s", timed, rate, gpus, again), 0);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int n = (int)strlen(want[i].name);
        bool shared = want[i].name[n - 1] == '-'; /* drawn over all runs: no run in the name */
        snprintf(file, sizeof file, "%s/%.*s.svg", dir, shared ? n - 1 : n, want[i].name);
        cli_slurp(file);
        for (int k = 0; k < 3; k++) CHECK_HAS(cli_page, want[i].part[k]);
        CHECK_HAS(cli_out, file + strlen(dir));
        size_t at = strlen(files);
        snprintf(files + at, sizeof files - at, " %s", file);
        strcpy(file + strlen(file) - 3, "png");
        CHECK(memcmp(cli_slurp(file), "\x89PNG", 4) == 0);
    }
    char cmd[2000];
    snprintf(cmd, sizeof cmd, "diff -r -x '*.png' %s %s", dir, again); /* the same each time */
    CHECK_INT(test_run(cmd, cli_out, sizeof cli_out, cli_err, sizeof cli_err), 0);
    if (test_run("command -v xmllint", NULL, 0, NULL, 0) == 0)
        snprintf(cmd, sizeof cmd, "xmllint --noout%s", files);
    else
        snprintf(cmd, sizeof cmd,
                 "/usr/bin/python3 -c 'import sys, xml.etree.ElementTree as e\n"
                 "for p in sys.argv[1:]: e.parse(p)'%s",
                 files);
    CHECK_INT(test_run(cmd, cli_out, sizeof cli_out, cli_err, sizeof cli_err), 0);
    CHECK_TEXT(cli_err, "");
}

TEST(plots_overlays_runs)
{
    cli_need("gnuplot");
    struct make other = usual;
    other.slo_ttft_ns = 30000000;
    const char *a = make_run("one.h5", &usual), *b = make_run("two.h5", &other), *d = test_dir();
    CHECK_INT(cli_run("", "plot %s %s --figure=cdf_ttft --out=%s/o", a, b, d), 0);
    cli_slurp(cli_path("o/cdf_ttft.svg"));
    CHECK_HAS(cli_page, "one, 89.5 % within the SLO");
    CHECK_HAS(cli_page, "two, 44.7 % within the SLO"); /* 2 to 20, less 9 and 19 */
    CHECK_HAS(cli_page, ">40 requests &amp; more<");
    CHECK_HAS(cli_page, "SLO 50.00 ms");
    CHECK_HAS(cli_page, "SLO 30.00 ms");
}

TEST(plots_refuses_what_is_not_there)
{
    struct make plain = usual, hostile = usual;
    plain.plain = true;
    hostile.plain = true; /* without a scenario the title stands in the figure */
    hostile.title = "'; system 'touch hacked' `touch hacked` @x\n\x01\xff {a}_b\\n </svg>";
    const char *hostile_in_svg = "'; system 'touch hacked' `touch hacked` @x  ? {a}_b\\n &lt;/svg>";
    const char *p = make_run("plain.h5", &plain), *d = test_dir();
    CHECK_INT(cli_run("", "plot %s --figure=gantt --out=%s/x", p, d), 2);
    check_sentence("gantt: ");
    CHECK_HAS(cli_err, "has no /stages");
    CHECK_INT(cli_run("", "plot %s --figure=gnatt", p), 2);
    check_sentence("did you mean 'gantt'?");
    CHECK_INT(cli_run("", "plot %s --figure=,", p), 2);
    check_sentence("names no figure");
    CHECK_INT(cli_run("", "plot"), 2);
    check_sentence("one run file or more");
    CHECK_INT(cli_run("", "plot %s --format=pdf", p), 2);
    check_sentence("svg, png, both");
    CHECK_INT(cli_run("", "plot %s/absent.h5", d), 2);
    check_sentence("absent.h5");
    CHECK_INT(cli_run("", "plot tests/test_plots.c"), 2);
    check_sentence("no HDF5 file");
    CHECK_INT(cli_run("", "report tests/test_plots.c --out=%s/r.html", d), 2);
    check_sentence("no HDF5 file");
    CHECK_INT(cli_run("", "report"), 2);
    check_sentence("one run file or more");
    CHECK(access(cli_path("r.html"), F_OK) != 0);
    cli_need("gnuplot");
    CHECK_INT(cli_run("", "plot %s --out=%s/y", p, d),
              0); /* the rest is drawn, with a line for each */
    CHECK_HAS(cli_err, "no gantt: ");
    CHECK_HAS(cli_err, "no operators: ");
    CHECK_HAS(cli_err, "no rate: ");
    CHECK_HAS(cli_out, "/y/cdf_ttft.svg\n");
    const char *h = make_run("hostile.h5", &hostile);
    CHECK_INT(cli_run("", "plot %s --figure=cdf --out=%s/z", h, d), 0);
    CHECK(access("hacked", F_OK) != 0);
    CHECK_HAS(cli_slurp(cli_path("z/cdf_e2e.svg")), hostile_in_svg);
}

TEST(plots_without_gnuplot_leave_nothing)
{
    char env[900];
    const char *path = make_run("run.h5", &usual), *d = test_dir(), *fake = cli_path("bin/gnuplot");
    mkdir(cli_path("bin"), 0777);
    mkdir(cli_path("tmp"), 0777);
    mkdir(cli_path("figures"), 0777);
    snprintf(env, sizeof env, "PATH=%s/bin TMPDIR=%s/tmp", d, d);
    CHECK_INT(cli_run(env, "plot %s --out=%s/figures", path, d), 5);
    check_sentence("gnuplot is not in PATH");
    CHECK_INT(cli_run(env, "report %s --out=%s/figures/r.html", path, d), 5);
    check_sentence("gnuplot is not in PATH");
    FILE *f = fopen(fake, "w"); /* one that fails half way */
    if (!CHECK(f != NULL)) return;
    fputs("#!/bin/sh\necho half > \"${2%args}out\"\necho >&2\necho 'x.gp line 3: undefined y' "
          ">&2\nexit 1\n",
          f);
    fclose(f);
    chmod(fake, 0755);
    CHECK_INT(cli_run(env, "plot %s --out=%s/figures", path, d), 5);
    check_sentence("gnuplot failed: x.gp line 3: undefined y");
    CHECK_INT(cli_run(env, "report %s --out=%s/figures/r.html", path, d), 5);
    CHECK_INT(count_files(cli_path("tmp")), 0);
    CHECK_INT(count_files(cli_path("figures")), 0);
}

/* ---- orrery report */

/* Well-nested, ids unique, nothing loaded from elsewhere. */
static void check_page(const char *path)
{
    static const char code[] =
        "import sys, html.parser\n"
        "void = {'meta', 'br', 'link', 'img', 'hr'}\n"
        "class P(html.parser.HTMLParser):\n"
        "    open, ids, bad = [], set(), []\n"
        "    def handle_starttag(self, tag, attrs):\n"
        "        if tag not in void: self.open.append(tag)\n"
        "        self.look(tag, attrs)\n"
        "    def handle_startendtag(self, tag, attrs): self.look(tag, attrs)\n"
        "    def look(self, tag, attrs):\n"
        "        if tag in ('script', 'link', 'img', 'iframe', 'object'): self.bad.append(tag)\n"
        "        for k, v in attrs:\n"
        "            if k == 'id' and v in self.ids: self.bad.append('id ' + v)\n"
        "            if k == 'id': self.ids.add(v)\n"
        "            if k in ('href', 'src', 'xlink:href') and not v.startswith('#'): "
        "self.bad.append(v)\n"
        "            if k.startswith('on'): self.bad.append(k)\n"
        "            if 'url(' in (v or '') and 'url(#' not in v: self.bad.append(v)\n"
        "    def handle_endtag(self, tag):\n"
        "        if not self.open or self.open.pop() != tag: self.bad.append('/' + tag)\n"
        "p = P()\n"
        "t = open(sys.argv[1], encoding='utf-8').read()\n"
        "p.feed(t)\n"
        "print(p.bad[:5], p.open, '@import' in t, 'url(http' in t)\n";
    char cmd[1200], text[600];
    const char *script = cli_path("page.py");
    FILE *f = fopen(script, "w");
    if (!CHECK(f != NULL)) return;
    fputs(code, f);
    fclose(f);
    if (test_run("/usr/bin/python3 -c pass", NULL, 0, NULL, 0) != 0) return;
    snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s %s", script, path);
    CHECK_INT(test_run(cmd, text, sizeof text, cli_err, sizeof cli_err), 0);
    CHECK_TEXT(text, "[] [] False False\n");
}

TEST(plots_report_answers)
{
    cli_need("gnuplot");
    struct make m = usual;
    m.title = "<script>alert(1)</script> & \"more\"";
    const char *html = cli_path("r.html"), *again = cli_path("again.html");
    const char *path = make_run("held.h5", &m);
    CHECK_INT(cli_run("", "report %s --out=%s", path, html), 0);
    CHECK_TEXT(cli_err, "");
    CHECK_INT(cli_run("", "report %s --out=%s", path, again), 0);
    char cmd[1200];
    snprintf(cmd, sizeof cmd, "cmp %s %s", html, again);
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
    check_page(html);
    cli_slurp(html);
    CHECK(strstr(cli_page, "<script") == NULL);
    CHECK_HAS(cli_page, "<h1>&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;</h1>");
    CHECK_HAS(cli_page,
              "Yes, the SLO is held</strong>, by 5.0 points: 95.0 % of the requests due met TTFT "
              "&le; 50.00 ms; 90 % was asked for.");
    CHECK_HAS(cli_page,
              "90 % interval of the share: 93.0 % to 97.0 %. What was asked for lies outside it.");
    CHECK_HAS(cli_page, "What limits it: KV memory.");
    CHECK_HAS(cli_page, "<strong>Extrapolated:</strong>");
    CHECK_HAS(cli_page, "<li>host guessed</li>");
    CHECK_HAS(cli_page, "title: &quot;&lt;b&gt;&amp;amp;&quot;");
    CHECK_HAS(cli_page, "@media print");
    CHECK_HAS(cli_page, "prefers-color-scheme:dark");
    m = (struct make){ "t", .8999, .85, .93, .9, 50000000, 40, false, NULL };
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("missed.h5", &m), html), 0);
    cli_slurp(html);
    CHECK_HAS(cli_page, "No, the SLO is missed</strong>, by 0.010 points");
    CHECK_HAS(cli_page, "Not certain:</strong> what was asked for lies inside the interval");
    m = (struct make){ "t", .8999, NAN, NAN, .9, 0, 40, false, NULL };
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("none.h5", &m), html), 0);
    CHECK_HAS(cli_slurp(html), "No SLO was given");
    m = (struct make){ "t", NAN, NAN, NAN, .9, 1, 1, false, NULL }; /* due before the window */
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("nan.h5", &m), html), 0);
    CHECK_HAS(cli_slurp(html), "<strong>No verdict:</strong>");
    check_page(html);
}

/* Whatever its attainment says, a run that ended early is not judged; its figures say of whom. */
TEST(plots_report_of_a_run_that_ended_early)
{
    cli_need("gnuplot");
    struct make cut = usual;
    cut.ended_early = "interrupted by <user>";
    const char *html = cli_path("r.html"), *path = make_run("cut.h5", &cut);
    CHECK_INT(cli_run("", "report %s --out=%s", path, html), 0);
    check_page(html);
    cli_slurp(html);
    CHECK_HAS(cli_page,
              "<strong>No verdict:</strong> the run ended early: interrupted by &lt;user&gt;.");
    CHECK_HAS(cli_page,
              "All figures are of the <strong>36 requests that had finished</strong> by then; 0 "
              "were under way and 4 rejected");
    CHECK_HAS(cli_page, "no SLO is judged by them (asked: TTFT &le; 50.00 ms)");
    CHECK_HAS(cli_page, "ENDED EARLY, finished requests only; 40 requests");
    CHECK(strstr(cli_page, "SLO is held") == NULL && strstr(cli_page, "SLO is missed") == NULL);
    CHECK(strstr(cli_page, "<h3>SLO</h3>") == NULL && strstr(cli_page, "goodput: within") == NULL);
    CHECK(strstr(cli_page, "95.0 %") == NULL); /* what it attained */
    CHECK_INT(cli_run("", "report %s %s --out=%s", make_run("whole.h5", &usual), path, html), 0);
    cli_slurp(html);
    CHECK_HAS(cli_page, "<tr><th>SLO</th><td>held</td><td>no verdict: ended early</td></tr>");
    CHECK_HAS(cli_page, "<tr><th>SLO attainment</th><td>95.0 %<small>93.0 % .. 97.0 %</small></td>"
                        "<td>-</td></tr>");
    CHECK_INT(cli_run("", "plot %s --figure=series --out=%s", path, cli_path("figs")), 0);
    char cmd[1200];
    snprintf(cmd, sizeof cmd, "grep -q 'ENDED EARLY, finished requests only' %s/*.svg",
             cli_path("figs"));
    CHECK_INT(test_run(cmd, NULL, 0, NULL, 0), 0);
}

TEST(plots_report_compares_and_sweeps)
{
    cli_need("gnuplot");
    struct make worse = usual;
    worse.attain = .5;
    worse.lo = .4;
    worse.hi = .6;
    mkdir(cli_path("b"), 0777);
    const char *html = cli_path("c.html"), *a = make_run("run.h5", &usual);
    const char *b = make_run("b/run.h5", &worse), *sweep = make_sweep("rate.h5", false);
    CHECK_INT(cli_run("", "report %s %s %s --out=%s", a, b, sweep, html), 0);
    check_page(html);
    cli_slurp(html);
    CHECK_HAS(cli_page, "<th>run</th><th>run-2</th>");
    CHECK_HAS(cli_page, "<small>-45.0 points</small>");
    CHECK_HAS(cli_page,
              "held at 2 of 4 points</strong> of the sweep of <code>workload.rate</code>");
    CHECK_HAS(cli_page, "2 runs");
    CHECK_HAS(cli_page, "offered rate [requests/s]");
    struct make plain = usual; /* requests and nothing else, as another tool's import may be */
    plain.plain = true;
    CHECK_INT(cli_run("", "report %s --out=%s", make_run("plain.h5", &plain), html), 0);
    check_page(html);
    CHECK_HAS(cli_slurp(html), "the file has no summary");
    CHECK_HAS(cli_page, "TTFT [ms]");
}
