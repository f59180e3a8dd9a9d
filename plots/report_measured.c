/* plots/report_measured.c - see report_measured.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/report_measured.h"

#include <math.h>

#include "base/units.h"
#include "plots/html.h"
#include "plots/ranks.h"

static char *bytes(double v, char *buf)
{
    return isfinite(v) ? units_human(UNIT_BYTES, v, buf, HTML_NUMBER_BYTES) : html_number(NAN, buf);
}

static char *seconds(double s, char *buf)
{
    return html_ns(1e9 * s, buf);
}

/* Ranks that said at the end what they had done: all but those that were killed or lost. */
static size_t told(struct source *s)
{
    static const char *const col[] = { "rank" };
    double *x;
    size_t n, count = 0;
    bool *seen = arena_array(s->arena, RANKS_MAX, sizeof *seen);
    for (size_t i = 0; i < RANKS_MAX; i++) seen[i] = false;
    if (!h5_has(s->file.h5, "/comm/rank") ||
        source_columns(s, "comm", col, 1, &x, &n, NULL) != ST_OK)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (!(x[i] >= 0 && x[i] < RANKS_MAX) || seen[(size_t)x[i]]) continue;
        seen[(size_t)x[i]] = true;
        count++;
    }
    return count;
}

/* ---- the engine */

struct fact {
    const char *name, *label;
    char *(*form)(double, char *);
    bool many; /* said of several ranks only */
};

static void facts(FILE *f, struct source *s)
{
    static const struct fact fact[] = {
        { "engine_threads", "threads a rank", html_number, false },
        { "engine_weight_bytes", "weights, in all", bytes, false },
        { "engine_read_bytes", NULL, bytes, false },
        { "engine_load_s", "time to load, slowest rank", seconds, false },
        { "engine_kv_bytes", "KV blocks, in all", bytes, false },
        { "monitor_steps", "steps", html_number, false },
        { "monitor_step_s", "time of a step, mean", seconds, false },
        { "monitor_schedule_share", "of it scheduling and bookkeeping", html_percent, false },
        { "monitor_sample_share", "of it sampling", html_percent, false },
        { "monitor_allreduce_s", "latency of an all-reduce, mean", seconds, false },
        { "monitor_overlap", "communication overlapped with computing", html_percent, true },
        { "monitor_balance", "balance of ranks: mean of their compute by the largest", html_number,
          true },
        { "monitor_kv_efficiency", "tokens held, of the room in KV blocks in use", html_percent,
          false },
        { "monitor_queue_mean", "requests waiting, mean", html_number, false },
        { "monitor_queue_max", "requests waiting, most", html_number, false },
    };
    const char *kernels = source_text(s, "/summary", "engine_kernels"), *drawn;
    char t[HTML_NUMBER_BYTES];
    if (!*kernels && isnan(source_number(s, "monitor_steps"))) return;
    drawn = source_number(s, "engine_random_weights") > 0 ? "weights drawn" : "weights read";
    fputs("<h3>Engine</h3>\n<table><tbody>\n<tr><th>kernels</th><td class=\"text\">", f);
    html_text(f, *kernels ? kernels : "-");
    fputs("</td></tr>\n", f);
    for (size_t i = 0; i < sizeof fact / sizeof *fact; i++) {
        double v = source_number(s, fact[i].name);
        if (isnan(v) || (fact[i].many && s->gpus < 2)) continue;
        fprintf(f, "<tr><th>%s</th><td>%s</td></tr>\n", fact[i].label ? fact[i].label : drawn,
                fact[i].form(v, t));
    }
    fputs("</tbody></table>\n", f);
    size_t n = told(s);
    if (n > 0 && (int64_t)n < s->gpus)
        fprintf(f,
                "<p class=\"dim\">%zu of %lld ranks lived to tell of their weights, KV blocks and "
                "calls: those of the others are not in these sums.</p>\n",
                n, (long long)s->gpus);
}

/* ---- ranks */

static void ranks(FILE *f, struct source *s)
{
    double *part[RANKS_N_PART], *layers;
    size_t n = ranks_read(s, part), n_layer = source_array(s, "stage_layers", &layers);
    bool unseen = false;
    if (n == 0) return;
    fputs("<h3>Ranks: where their time in steps goes</h3>\n<div class=\"scroll\"><table><thead><tr>"
          "<th>rank</th><th>stage</th><th>layers</th>",
          f);
    for (int k = 0; k < RANKS_N_PART; k++) fprintf(f, "<th>%s</th>", ranks_part_label[k]);
    fputs("</tr></thead>\n<tbody>\n", f);
    for (size_t i = 0; i < n && i < 256; i++) {
        size_t stage = (size_t)ranks_stage(s, i);
        fprintf(f, "<tr><th>%zu</th><td>%zu</td>", i, stage);
        html_cell(f, (struct ci){ NAN, stage < n_layer ? layers[stage] : NAN, NAN }, html_number);
        for (int k = 0; k < RANKS_N_PART; k++)
            html_cell(f, (struct ci){ NAN, part[k][i], NAN }, html_percent);
        fputs("</tr>\n", f);
        unseen = unseen || isnan(part[0][i]);
    }
    fputs("</tbody></table></div>\n", f);
    if (unseen)
        fputs("<p class=\"dim\">A rank without shares had no steps, or was another process, which "
              "is not seen from rank 0.</p>\n",
              f);
}

/* ---- communicator */

enum { N_GROUP = 2, N_CALL = 6 };

static void calls(FILE *f, struct source *s)
{
    static const char *const group[N_GROUP] = { "all ranks", "a stage" };
    static const char *const call[N_CALL] = { "all-reduce", "all-gather", "broadcast",
                                              "barrier",    "send",       "receive" };
    static const char *const col[] = { "group", "call", "calls", "bytes", "time", "longest" };
    double *c[6], sum[N_GROUP * N_CALL][4] = { { 0 } };
    size_t n;
    if (!h5_has(s->file.h5, "/comm/call") ||
        source_columns(s, "comm", col, 6, c, &n, NULL) != ST_OK || n == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (!(c[0][i] >= 0 && c[0][i] < N_GROUP && c[1][i] >= 0 && c[1][i] < N_CALL)) continue;
        double *to = sum[(int)c[0][i] * N_CALL + (int)c[1][i]];
        for (int k = 0; k < 3; k++) to[k] += c[2 + k][i];
        to[3] = fmax(to[3], c[5][i]);
    }
    fputs(
        "<h3>Communicator: calls, summed over ranks</h3>\n<div class=\"scroll\"><table><thead><tr>"
        "<th>among</th><th>call</th><th>calls</th><th>bytes a call</th><th>mean latency</th>"
        "<th>longest</th></tr></thead>\n<tbody>\n",
        f);
    for (int k = 0; k < N_GROUP * N_CALL; k++) {
        char b[HTML_NUMBER_BYTES], t[HTML_NUMBER_BYTES], m[HTML_NUMBER_BYTES];
        if (!(sum[k][0] > 0)) continue;
        fprintf(f,
                "<tr><th>%s</th><td class=\"text\">%s</td><td>%.0f</td><td>%s</td><td>%s</td>"
                "<td>%s</td></tr>\n",
                group[k / N_CALL], call[k % N_CALL], sum[k][0], bytes(sum[k][1] / sum[k][0], b),
                html_ns(sum[k][2] / sum[k][0], t), html_ns(sum[k][3], m));
    }
    fputs("</tbody></table></div>\n<p class=\"dim\">Latency is a rank's time inside the call, "
          "waiting for the others included.</p>\n",
          f);
}

/* ---- anomalies */

enum { N_KIND = 4, KIND_COMM = 0 };

struct seen {
    double limit, worst, rank, first_ns, last_ns;
    int64_t windows;
};

static void anomaly_row(FILE *f, int kind, const struct seen *a)
{
    static const char *const word[N_KIND] = { "high communication latency", "load imbalance",
                                              "straggler", "memory pressure" };
    static const char *const what[N_KIND] = {
        "mean latency of an all-reduce", "largest compute time of a rank over the mean, less 1",
        "compute time of a rank over the median of the others", "KV blocks in use, share of all"
    };
    char *(*form)(double, char *) = kind == KIND_COMM ? seconds : html_number;
    char l[HTML_NUMBER_BYTES], v[HTML_NUMBER_BYTES], r[HTML_NUMBER_BYTES];
    char t0[HTML_NUMBER_BYTES], t1[HTML_NUMBER_BYTES];
    fprintf(f,
            "<tr><th>%s</th><td class=\"text\">%s</td><td>%s</td><td>%s</td><td>%s</td>"
            "<td>%s</td><td>%s</td><td>%lld</td></tr>\n",
            word[kind], what[kind], form(a->limit, l), form(a->worst, v),
            html_number(a->rank >= 0 ? a->rank : NAN, r), html_ns(a->first_ns, t0),
            html_ns(a->last_ns, t1), (long long)a->windows);
}

static void anomalies(FILE *f, struct source *s)
{
    static const char *const col[] = { "t0", "t1", "value", "limit", "rank", "kind" };
    struct seen seen[N_KIND] = { { 0 } };
    double *c[6], windows = source_number(s, "monitor_windows");
    size_t n = 0;
    bool have = h5_has(s->file.h5, "/anomalies/kind");
    if (have && source_columns(s, "anomalies", col, 6, c, &n, NULL) != ST_OK) n = 0;
    if (!have && isnan(source_number(s, "monitor_steps"))) return;
    fputs("<h3>Anomalies</h3>\n", f);
    if (n == 0) {
        fputs("<p>None: no threshold was exceeded (keys monitor.* of the scenario).</p>\n", f);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!(c[5][i] >= 0 && c[5][i] < N_KIND)) continue;
        struct seen *a = &seen[(int)c[5][i]];
        if (a->windows++ == 0) *a = (struct seen){ c[3][i], c[2][i], c[4][i], c[0][i], c[1][i], 1 };
        if (c[2][i] > a->worst) a->worst = c[2][i], a->rank = c[4][i];
        a->first_ns = fmin(a->first_ns, c[0][i]);
        a->last_ns = fmax(a->last_ns, c[1][i]);
    }
    fputs("<div class=\"scroll\"><table><thead><tr><th>what</th><th class=\"text\">measure</th>"
          "<th>threshold</th><th>worst</th><th>rank of it</th><th>first seen</th><th>last "
          "seen</th><th>windows</th></tr></thead>\n<tbody>\n",
          f);
    for (int k = 0; k < N_KIND; k++)
        if (seen[k].windows) anomaly_row(f, k, &seen[k]);
    fputs("</tbody></table></div>\n<p class=\"dim\">Judged over windows of steps", f);
    if (!isnan(windows)) fprintf(f, ", %.0f in all", windows);
    fputs("; times are from the start of the run.</p>\n", f);
}

void report_measured(FILE *f, struct source *s)
{
    if (!s->measured) return;
    facts(f, s);
    ranks(f, s);
    calls(f, s);
    anomalies(f, s);
}
