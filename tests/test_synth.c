/* tests/test_synth.c - synthesised requests: closed forms of arrivals and lengths, sessions, common
 * random numbers.
 *
 * Bounds on means are five standard errors of the closed form; seeds are fixed, so a test passes
 * always or never.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/stat.h"
#include "tests/test.h"
#include "traces/trace_priv.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#endif
#ifndef ASAN
#define ASAN 0
#endif

/* Options at their defaults, then changed by "key=value" words. */
static struct trace_opts opts(struct arena *a, const char *changes)
{
    static struct trace_opts o;
    struct conf_set s;
    struct err e = { 0 };
    char text[512], key[80];
    conf_init(&s, a);
    conf_add(&s, trace_rows, &o, "workload");
    snprintf(text, sizeof text, "%s", changes);
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
        char *equal = strchr(w, '=');
        *equal = 0;
        snprintf(key, sizeof key, "workload.%s", w);
        if (conf_set_text(&s, key, equal + 1, "test", &e) != ST_OK) printf("    %s\n", e.text);
    }
    CHECK_INT(e.status, ST_OK);
    return o;
}

static struct trace *open_or_null(struct arena *a, const char *changes, uint64_t seed)
{
    struct trace_opts o = opts(a, changes);
    struct trace *t = NULL;
    struct err e = { 0 };
    if (trace_open(&o, NULL, seed, &t, &e) != ST_OK) CHECK_TEXT(e.text, "(no error)");
    return t;
}

/* Mean and coefficient of variation of n gaps. */
static void gaps(const char *changes, int n, double *mean_s, double *cv)
{
    struct arena a;
    arena_init(&a);
    struct trace *t = open_or_null(&a, changes, 11);
    double *x = mem_alloc((size_t)n * sizeof *x);
    int64_t last = 0;
    struct trace_req r;
    for (int i = 0; i < n; i++) {
        CHECK_INT(trace_next(t, &r), 1);
        x[i] = 1e-9 * (double)(r.t_due_ns - last);
        last = r.t_due_ns;
    }
    *mean_s = stat_mean(x, (size_t)n);
    *cv = stat_sd(x, (size_t)n) / *mean_s;
    CHECK_INT(trace_next(t, &r), 0);
    free(x);
    trace_close(t);
    arena_release(&a);
}

TEST(synth_poisson_and_gamma_gaps)
{
    double mean, cv;
    const int n = 100000;
    gaps("rate=50/s requests=100000", n, &mean, &cv);
    CHECK_NEAR(mean, 0.02, 5 / sqrt(n));
    CHECK_NEAR(cv, 1, 5 / sqrt(n)); /* exponential: sd of the sample CV is 1/sqrt(n) */
    gaps("rate=50/s requests=100000 arrivals=gamma burstiness=0.5", n, &mean, &cv);
    CHECK_NEAR(mean, 0.02, 5 * 0.5 / sqrt(n));
    CHECK_NEAR(cv, 0.5, 0.01);
    gaps("rate=50/s requests=100000 arrivals=gamma burstiness=2", n, &mean, &cv);
    CHECK_NEAR(mean, 0.02, 5 * 2 / sqrt(n));
    CHECK_NEAR(cv, 2, 0.05);
    gaps("rate=50/s requests=1000 arrivals=constant", 1000, &mean, &cv);
    CHECK_NEAR(mean, 0.02, 1e-12);
    CHECK(cv < 1e-9);
    gaps("requests=1000 arrivals=burst", 1000, &mean, &cv);
    CHECK(mean == 0);
}

/* Counts in windows of w seconds: mean rate * w; variance over mean, with s1, s2 the rates of
 * leaving the high and the low state, s = s1 + s2 and l1, l2 the intensities:
 *
 *   1 + 2 s1 s2 (l1 - l2)^2 / (s^2 (l1 s2 + l2 s1)) * (1 - (1 - exp(-s w)) / (s w))
 *
 * Source: Fischer, Meier-Hellstern, "The MMPP cookbook", Performance Evaluation 18, 1993. */
TEST(synth_mmpp_rate_and_dispersion)
{
    enum { WINDOWS = 20000 };
    const double w = 2, high_s = 1, low_s = 3, ratio = 8, rate = 10, s1 = 1 / high_s,
                 s2 = 1 / low_s, s = s1 + s2;
    const double l2 = rate * (high_s + low_s) / (high_s * ratio + low_s), l1 = ratio * l2;
    const double idc = 1 + 2 * s1 * s2 * (l1 - l2) * (l1 - l2) / (s * s * (l1 * s2 + l2 * s1)) *
                               (1 - (1 - exp(-s * w)) / (s * w));
    struct arena a;
    arena_init(&a);
    struct trace *t = open_or_null(
        &a, "rate=10/s arrivals=mmpp mmpp_ratio=8 mmpp_high=1s mmpp_low=3s duration=40000s", 5);
    double *count = mem_zalloc(WINDOWS, sizeof *count);
    struct trace_req r;
    CHECK_INT(trace_total(t), -1);
    while (trace_next(t, &r)) {
        int i = (int)(1e-9 * (double)r.t_due_ns / w);
        if (i < WINDOWS) count[i]++;
    }
    double mean = stat_mean(count, WINDOWS), sd = stat_sd(count, WINDOWS);
    CHECK_NEAR(mean, rate * w, 0.03);
    CHECK_NEAR(sd * sd / mean, idc, 0.06);
    free(count);
    trace_close(t);
    arena_release(&a);
}

static void draw(const char *changes, double *in, double *out, int n)
{
    struct arena a;
    char all[400];
    arena_init(&a);
    snprintf(all, sizeof all, "rate=1/s requests=%d %s", n, changes);
    struct trace *t = open_or_null(&a, all, 3);
    struct trace_req r;
    for (int i = 0; i < n && trace_next(t, &r); i++) {
        in[i] = r.n_in;
        out[i] = r.n_out;
    }
    trace_close(t);
    arena_release(&a);
}

TEST(synth_length_laws)
{
    enum { N = 100000 };
    static double in[N], out[N], ln[N];
    draw("prompt.mean=1000tok prompt.sigma=0.8 output.dist=exponential output.mean=500tok", in, out,
         N);
    for (int i = 0; i < N; i++) ln[i] = log(in[i]);
    /* The sd of a lognormal is mean * sqrt(exp(sigma^2) - 1). */
    CHECK_NEAR(stat_mean(in, N), 1000, 5 * sqrt(exp(0.64) - 1) / sqrt(N));
    CHECK_NEAR(stat_sd(ln, N), 0.8, 5 / sqrt(2.0 * N));
    CHECK_NEAR(stat_mean(out, N), 500, 5 / sqrt(N));
    CHECK_NEAR(stat_sd(out, N), 500, 5 * sqrt(2.0 / N));
    draw(
        "prompt.dist=uniform prompt.min=10tok prompt.max=19tok output.dist=fixed output.mean=77tok",
        in, out, N);
    double count[10] = { 0 }, chi2 = 0;
    for (int i = 0; i < N; i++) {
        if (!(in[i] >= 10 && in[i] <= 19))
            CHECK(false);
        else
            count[(int)in[i] - 10]++;
        if (out[i] != 77) CHECK(false);
    }
    for (int i = 0; i < 10; i++) chi2 += (count[i] - N / 10.0) * (count[i] - N / 10.0) / (N / 10.0);
    CHECK(chi2 < 27.9); /* 9 degrees of freedom, p = .001 */
    draw("prompt.mean=1000tok prompt.min=900tok prompt.max=1100tok output.mean=2tok output.sigma=3",
         in, out, N);
    for (int i = 0; i < N; i++)
        if (in[i] < 900 || in[i] > 1100 || out[i] < 1) CHECK(false);
}

TEST(synth_empirical_draws_whole_rows)
{
    enum { N = 30000 };
    static double in[N], out[N];
    const char *path = test_path("lengths.csv");
    char changes[400];
    FILE *f = fopen(path, "w");
    if (!f) SKIP("cannot write");
    fputs("x,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3\n", f);
    fclose(f);
    snprintf(changes, sizeof changes,
             "prompt.dist=empirical output.dist=empirical prompt.file=%s output.file=%s", path,
             path);
    draw(changes, in, out, N);
    int count[4] = { 0 };
    for (int i = 0; i < N; i++) {
        if (in[i] != 10 * out[i])
            CHECK(false);
        else
            count[(int)out[i]]++;
    }
    for (int i = 1; i <= 3; i++) CHECK(fabs(count[i] - N / 3.0) < 5 * sqrt(N * 2 / 9.0));
    snprintf(changes, sizeof changes,
             "prompt.dist=empirical prompt.file=%s output.dist=fixed prompt.max=25tok", path);
    draw(changes, in, out, 100);
    for (int i = 0; i < 100; i++) CHECK(in[i] == 10 || in[i] == 20 || in[i] == 25);
}

TEST(synth_real_length_file)
{
    enum { N = 50000 };
    static double in[N], out[N];
    char changes[600];
    snprintf(changes, sizeof changes,
             "prompt.dist=empirical output.dist=empirical prompt.file=%s prompt.max=32ktok",
             test_data("request_lengths/sharegpt_lengths.csv"));
    draw(changes, in, out, N);
    for (int i = 0; i < N; i++)
        if (in[i] < 1 || in[i] > 32000 || out[i] < 1) CHECK(false);
}

/* Two sources that differ in one option: the rest must not move. */
TEST(synth_common_random_numbers)
{
    struct arena a;
    arena_init(&a);
    struct trace *t[4] = {
        open_or_null(&a, "rate=2/s requests=5000", 9),
        open_or_null(&a, "rate=8/s requests=5000", 9),
        open_or_null(
            &a,
            "rate=2/s requests=5000 arrivals=gamma burstiness=3 prefix_tok=100tok prefix_groups=5",
            9),
        open_or_null(&a, "rate=2/s requests=5000 output.sigma=0.1 turns=4", 9)
    };
    struct trace_req r[4];
    int64_t bad = 0;
    for (int i = 0; i < 5000; i++) {
        for (int j = 0; j < 4; j++) CHECK_INT(trace_next(t[j], &r[j]), 1);
        bad += llabs(r[0].t_due_ns - 4 * r[1].t_due_ns) > 4;
        bad += llabs(4 * r[0].t_due_ns - r[3].t_due_ns) > 4; /* sessions come at rate / turns */
        bad += r[0].n_in != r[1].n_in || r[0].n_out != r[1].n_out;
        bad += r[0].n_in + 100 != r[2].n_in || r[0].n_out != r[2].n_out || r[0].n_in != r[3].n_in;
    }
    CHECK_INT(bad, 0);
    for (int j = 0; j < 4; j++) trace_close(t[j]);
    arena_release(&a);
}

TEST(synth_prefix_groups_by_zipf)
{
    enum { N = 60000, G = 4 };
    struct arena a;
    arena_init(&a);
    struct trace *t =
        open_or_null(&a, "rate=2/s requests=60000 prefix_tok=48tok prefix_groups=4", 9);
    struct trace_req r;
    int count[G] = { 0 };
    const double sum = 1 + 1 / 2.0 + 1 / 3.0 + 1 / 4.0;
    while (trace_next(t, &r)) {
        CHECK(r.n_seg == 1 && r.seg[0].end_tok == 48 && r.n_in > 48);
        for (int g = 0; g < G; g++) {
            char name[4] = { (char)('0' + g), 0 };
            count[g] += r.seg[0].key == trace_prefix_key(name, 48);
        }
    }
    for (int g = 0; g < G; g++) CHECK_NEAR(count[g] / (double)N, 1 / (sum * (g + 1)), 0.05);
    trace_close(t);
    arena_release(&a);
}

/* Ends each request `service` after it was due, last in first out or first in first out: other
 * orders of completion. */
static int64_t drive(struct trace *t, bool lifo, struct trace_req *kept,
                     struct trace_seg (*segs)[64])
{
    struct trace_req open[64], r, next;
    int n_open = 0;
    int64_t n = 0;
    bool more = true;
    while (more || n_open) {
        more = more && n_open < 50 && trace_next(t, &r);
        if (more) {
            open[n_open++] = r;
        } else if (n_open) {
            int at = lifo ? n_open - 1 : 0;
            r = open[at];
            memmove(open + at, open + at + 1, (size_t)(--n_open - at) * sizeof *open);
            if (r.session >= 0 && r.session < 200 && r.turn < 20) {
                int64_t k = r.session * 20 + r.turn;
                kept[k] = r;
                for (int j = 0; j < r.n_seg && j < 64; j++) segs[k][j] = r.seg[j];
            }
            if (trace_done(t, &r, r.t_due_ns + 1000, &next)) open[n_open++] = next;
            more = true;
            n++;
        }
        if (!more && !n_open) break;
    }
    return n;
}

TEST(synth_sessions_do_not_depend_on_completion_order)
{
    static struct trace_req kept[2][4000];
    static struct trace_seg segs[2][4000][64];
    struct arena a;
    arena_init(&a);
    for (int k = 0; k < 2; k++) {
        struct trace *t = open_or_null(
            &a, "rate=10/s requests=20000 turns=4 think=3s prefix_tok=32tok prefix_groups=3", 4);
        CHECK_INT(trace_total(t), 20000);
        CHECK_INT(drive(t, k, kept[k], segs[k]), 20000);
        trace_close(t);
    }
    int64_t both = 0, bad = 0, turns = 0, histories = 0;
    for (int i = 0; i < 4000; i++) {
        const struct trace_req *x = &kept[0][i], *y = &kept[1][i];
        if (x->n_in && y->n_in) {
            both++;
            bad += x->n_in != y->n_in || x->n_out != y->n_out || x->n_seg != y->n_seg;
            bad += memcmp(segs[0][i], segs[1][i], (size_t)x->n_seg * sizeof segs[0][i][0]) != 0;
        }
        turns += x->n_in > 0;
        if (i % 20 == 0 || !x->n_in) continue;
        const struct trace_req *last = x - 1; /* the turn before */
        histories++;
        bad += x->n_in <= last->n_in + last->n_out || x->n_seg != last->n_seg + 1;
        bad += segs[0][i][x->n_seg - 2].end_tok != last->n_in + last->n_out;
        bad += segs[0][i][x->n_seg - 1].end_tok != x->n_in + x->n_out;
        bad += memcmp(segs[0][i], segs[0][i - 1], (size_t)last->n_seg * sizeof segs[0][i][0]) != 0;
        bad += x->t_due_ns < last->t_due_ns + 1000;
    }
    CHECK_INT(bad, 0);
    CHECK(both > 400 && histories > 300 && turns > 600);
    arena_release(&a);
}

TEST(synth_session_turns_are_geometric)
{
    struct arena a;
    arena_init(&a);
    struct trace_rows t;
    struct trace *s = open_or_null(&a, "rate=100/s requests=60000 turns=4", 8);
    trace_record(s, 1000, &a, &t);
    trace_close(s);
    CHECK_INT(t.n, 60000);
    struct trace_summary m;
    trace_summarise(&t, &m);
    /* sd of a geometric number with mean m is sqrt(m (m - 1)); some sessions are cut at the end. */
    CHECK_NEAR(m.turns_mean, 4, 5 * sqrt(12) / 4 / sqrt(15000) + 0.002);
    for (int64_t i = 0; i < t.n; i++)
        if (t.row[i].id != i || (i && t.row[i].t_due_ns < t.row[i - 1].t_due_ns)) CHECK(false);
    arena_release(&a);
}

TEST(synth_think_times)
{
    struct arena a;
    arena_init(&a);
    struct trace *t = open_or_null(&a, "arrivals=closed concurrency=50 think=2s requests=40000", 8);
    struct trace_req r, next;
    double sum = 0;
    int n = 0, started = 0;
    struct trace_req first[50];
    int64_t last = 0, last_id = 0;
    while (trace_next(t, &r)) {
        CHECK(r.t_due_ns >= last && started < 50);
        last = r.t_due_ns;
        if (started < 50) first[started++] = r;
    }
    CHECK_INT(started, 50);
    for (int i = 0; i < 50; i++) {
        for (r = first[i]; trace_done(t, &r, r.t_due_ns + 5, &next); r = next, n++) {
            sum += 1e-9 * (double)(next.t_due_ns - r.t_due_ns - 5);
            last_id = next.id;
        }
    }
    CHECK_INT(n, 40000 - 50);
    CHECK_NEAR(sum / n, 2, 5 / sqrt(n));
    CHECK_INT(last_id, 39999);
    CHECK(trace_is_random(t));
    trace_close(t);
    arena_release(&a);
}

/* Some ends come before all clients have begun: their first requests must not be lost or moved. */
TEST(synth_closed_loop_starts_every_client)
{
    struct arena a;
    arena_init(&a);
    struct trace_rows t;
    struct trace *s = open_or_null(
        &a, "arrivals=closed concurrency=30 think=100s requests=500 output.dist=fixed", 8);
    trace_record(s, 1000000, &a, &t);
    CHECK_INT(t.n, 500);
    trace_close(s);
    /* Never more than 30 at once: each request but the last 30 is followed by one more, later. */
    int64_t open_at_once = 0, most = 0;
    for (int64_t i = 0; i < t.n; i++) {
        open_at_once = 0;
        for (int64_t k = 0; k <= i; k++)
            open_at_once += t.row[k].t_due_ns + 128000000 > t.row[i].t_due_ns;
        if (open_at_once > most) most = open_at_once;
    }
    CHECK(most <= 30);
    arena_release(&a);
}

static const char *small_trace(void)
{
    const char *path = test_path("small.csv");
    FILE *f = fopen(path, "w");
    if (!f) SKIP("cannot write");
    fputs("arrival,in,out,class\n1,10,5,a\n2,20,6,b\n3,30,7,a\n5,40,8,b\n", f);
    fclose(f);
    return path;
}

TEST(synth_replay_of_a_file)
{
    /* clang-format off */
    static const struct {
        const char *options;
        int64_t n, first_ns, last_ns;
        bool random;
    } want[] = {
        { "rate_scale=1", 4, 1000000000, 5000000000, false },
        { "rate_scale=2", 4, 500000000, 2500000000, false },
        { "rate=3/s", 4, 250000000, 1250000000, false }, /* (4 - 1) / 4 s is 0.75/s: four times */
        { "requests=2", 2, 1000000000, 2000000000, false },
        { "duration=3s", 3, 1000000000, 3000000000, false },
        { "arrivals=burst", 4, 0, 0, false },
        { "arrivals=constant rate=2/s", 4, 500000000, 2000000000, true },
    };
    /* clang-format on */
    struct arena a;
    arena_init(&a);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        char changes[700];
        snprintf(changes, sizeof changes, "trace=%s %s", small_trace(), want[i].options);
        struct trace *t = open_or_null(&a, changes, 1);
        struct trace_req r;
        int64_t n = 0;
        for (; trace_next(t, &r); n++) {
            CHECK_INT(r.id, n);
            CHECK_INT(r.n_in, 10 * (n + 1));
            if (n == 0) CHECK_INT(r.t_due_ns, want[i].first_ns);
        }
        CHECK_INT(n, want[i].n);
        CHECK_INT(r.t_due_ns, want[i].last_ns);
        CHECK_INT(trace_is_random(t), want[i].random);
        CHECK_INT(trace_n_class(t), 2);
        CHECK_TEXT(trace_class_name(t, 1), "b");
        CHECK_HAS(trace_describe(t), "small.csv");
        trace_close(t);
    }
    arena_release(&a);
}

TEST(synth_refuses_what_makes_no_sense)
{
    /* clang-format off */
    static const struct {
        const char *options, *want;
    } bad[] = {
        { "requests=10", "workload.rate: drawn arrivals need a rate" },
        { "arrivals=trace", "trace needs a file" },
        { "rate=1/s prompt.dist=uniform", "workload.prompt.max: uniform lengths need one" },
        { "rate=1/s output.min=9tok output.max=8tok",
          "workload.output: max is 8tok, below min, 9tok" },
        { "rate=1/s prompt.dist=empirical", "workload.prompt.file: empirical lengths need a csv" },
        { "trace=%s requests=5", "has 4 requests, not 5" },
        { "trace=%s rate=1/s rate_scale=2", "both say how fast" },
        { "trace=%s format=mooncake", "small.csv:1: not a JSON object" },
        { "rate=1/s output.dist=empirical output.file=%s prompt.dist=empirical "
          "prompt.file=/no/such", "/no/such" },
    };
    /* clang-format on */
    struct arena a;
    arena_init(&a);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char changes[700];
        const char *mark = strstr(bad[i].options, "%s");
        int n = mark ? (int)(mark - bad[i].options) : (int)strlen(bad[i].options);
        snprintf(changes, sizeof changes, "%.*s%s%s", n, bad[i].options, mark ? small_trace() : "",
                 mark ? mark + 2 : "");
        struct trace_opts o = opts(&a, changes);
        struct trace *t = NULL;
        struct err e = { 0 };
        CHECK(trace_open(&o, NULL, 1, &t, &e) != ST_OK);
        CHECK_HAS(e.text, bad[i].want);
    }
    arena_release(&a);
}

TEST(synth_rows_in_memory)
{
    struct trace_req rows[2] = {
        { .t_due_ns = 5, .n_in = 1, .n_out = 2, .session = -1 },
        { .t_due_ns = 4, .n_in = 3, .n_out = 4, .session = -1, .klass = 2 }
    };
    struct trace *t = NULL;
    struct trace_req r;
    struct err e = { 0 };
    CHECK_INT(trace_from_rows(rows, 2, &t, &e), ST_USAGE);
    CHECK_HAS(e.text, "row 1 is due before");
    rows[1].t_due_ns = 5;
    err_clear(&e);
    CHECK_OK(trace_from_rows(rows, 2, &t, &e), &e);
    CHECK_INT(trace_total(t), 2);
    CHECK_INT(trace_n_class(t), 3);
    CHECK_INT(trace_next(t, &r), 1);
    CHECK_INT(trace_done(t, &r, 10, &r), 0);
    CHECK_INT(trace_next(t, &r), 1);
    CHECK_INT(r.n_in, 3);
    CHECK_INT(r.id, 1);
    CHECK_INT(trace_next(t, &r), 0);
    CHECK(!trace_is_random(t));
    trace_close(t);
}

static int64_t rss_kb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

TEST(synth_streams_in_bounded_memory)
{
    if (ASAN) SKIP("the sanitizer keeps freed memory");
    struct arena a;
    arena_init(&a);
    struct trace *t = open_or_null(&a, "rate=100/s requests=1000000 turns=3 prefix_tok=64tok", 2);
    struct trace_req r;
    int64_t before = 0, n = 0;
    while (trace_next(t, &r)) {
        do {
            if (++n == 100000) before = rss_kb();
        } while (trace_done(t, &r, r.t_due_ns, &r));
    }
    CHECK_INT(n, 1000000);
    CHECK(rss_kb() - before < 1024);
    trace_close(t);
    arena_release(&a);
}
