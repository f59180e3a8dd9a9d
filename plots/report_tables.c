/* plots/report_tables.c - see report_tables.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/report_tables.h"

#include <math.h>
#include <string.h>

#include "base/units.h"
#include "plots/html.h"
#include "plots/report_measured.h"
#include "plots/verdict.h"

static const char *const share_name[SOURCE_N_CLAUSE] = { "attainment_ttft", "attainment_tpot",
                                                         "attainment_e2e" };

static const enum source_metric in_order[SOURCE_N_METRIC] = { SOURCE_TTFT, SOURCE_TPOT, SOURCE_ITL,
                                                              SOURCE_E2E };

static void latency(FILE *f, struct source *s)
{
    fputs("<h3>Latency</h3>\n<div class=\"scroll\"><table><thead><tr><th>metric</th><th>mean</th>"
          "<th>p50</th><th>p90</th><th>p99</th></tr></thead>\n<tbody>\n",
          f);
    for (int m = 0; m < SOURCE_N_METRIC; m++) {
        struct ci c[SOURCE_N_STAT];
        source_latency(s, in_order[m], c);
        fprintf(f, "<tr><th>%s</th>", source_metric_label[in_order[m]]);
        for (int i = 0; i < SOURCE_N_STAT; i++) html_cell(f, c[i], html_ns);
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

static void rate_row(FILE *f, const char *label, struct ci c, double per)
{
    fprintf(f, "<tr><th>%s</th>", label);
    html_cell(f, (struct ci){ c.lo / per, c.mid / per, c.hi / per }, html_number);
    fputs("</tr>\n", f);
}

static void throughput(FILE *f, struct source *s)
{
    struct ci out = source_scalar(s, "output_per_s");
    fputs("<h3>Throughput</h3>\n<table><tbody>\n", f);
    rate_row(f, "finished [requests/s]", source_scalar(s, "requests_per_s"), 1);
    if (source_has_slo(s) && !s->ended_early)
        rate_row(f, "goodput: within the SLO [requests/s]", source_scalar(s, "goodput_per_s"), 1);
    rate_row(f, "output [tokens/s]", out, 1);
    if (s->gpus > 0)
        rate_row(f, arena_printf(s->arena, "output a %s [tokens/s]", s->device), out,
                 (double)s->gpus);
    fputs("</tbody></table>\n", f);
}

static void clauses(FILE *f, struct source *s)
{
    char t[HTML_NUMBER_BYTES];
    if (!source_has_slo(s) || s->ended_early) return;
    fputs(
        "<h3>SLO</h3>\n<table><thead><tr><th>clause</th><th>limit</th><th>requests that met it</th>"
        "</tr></thead>\n<tbody>\n",
        f);
    for (int k = 0; k < SOURCE_N_CLAUSE; k++) {
        if (s->slo_ns[k] <= 0) continue;
        fprintf(f, "<tr><th>%s</th><td>%s</td>", source_metric_label[k],
                html_ns((double)s->slo_ns[k], t));
        html_cell(f, source_scalar(s, share_name[k]), html_percent);
        fputs("</tr>\n", f);
    }
    fprintf(f, "<tr><th>all clauses</th><td>asked: %.6g %%</td>", 100 * s->slo_attain_ratio);
    html_cell(f, source_scalar(s, "attainment"), html_percent);
    fputs("</tr>\n</tbody></table>\n", f);
}

static char *bytes(double v, char *buf)
{
    return isfinite(v) ? units_human(UNIT_BYTES, v, buf, HTML_NUMBER_BYTES) : html_number(NAN, buf);
}

static void capacity(FILE *f, struct source *s)
{
    static const struct {
        const char *name, *label;
        char *(*form)(double, char *);
    } col[] = {
        { "stage_layers", "layers", html_number },
        { "stage_weights", "weights", bytes },
        { "stage_overhead", "overhead", bytes },
        { "stage_kv", "KV blocks", bytes },
        { "stage_busy", "busy", html_percent },
        { "stage_bubble", "idle with work", html_percent },
    };
    enum { N = sizeof col / sizeof *col };
    double *c[N];
    size_t have[N], n = 0;
    for (int k = 0; k < N; k++) {
        have[k] = source_array(s, col[k].name, &c[k]);
        n = have[k] > n ? have[k] : n;
    }
    if (n == 0) return;
    fprintf(f,
            "<h3>Capacity of each %s, per pipeline stage</h3>\n<div "
            "class=\"scroll\"><table><thead><tr>"
            "<th>stage</th>",
            s->device);
    for (int k = 0; k < N; k++) fprintf(f, "<th>%s</th>", col[k].label);
    fputs("</tr></thead>\n<tbody>\n", f);
    bool no_window = s->measured && s->window_end_ns <= s->window_begin_ns;
    for (size_t i = 0; i < n && i < 1024; i++) {
        fprintf(f, "<tr><th>%zu</th>", i);
        for (int k = 0; k < N; k++) {
            double v = i < have[k] ? c[k][i] : NAN;
            if (s->measured && col[k].form == bytes && v <= 0) v = NAN; /* nothing told of it */
            if (no_window && col[k].form == html_percent) v = NAN;
            html_cell(f, (struct ci){ NAN, v, NAN }, col[k].form);
        }
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

/* Largest mean of a bin of /series, as a share; NAN without. */
static double kv_peak(struct source *s)
{
    static const char *const col[] = { "kv_used" };
    double *x, peak = NAN;
    size_t n;
    if (!s->has_series || source_columns(s, "series", col, 1, &x, &n, NULL) != ST_OK) return NAN;
    for (size_t i = 0; i < n; i++)
        if (!(x[i] <= peak)) peak = x[i];
    return peak;
}

/* Of the prompt tokens looked up in the prefix cache, those found; of a file that does not say, of
 * the finished requests' prompt tokens. */
static double cached_share(struct source *s)
{
    static const char *const col[] = { "n_in", "cached_in", "status" };
    double *x[3], in = 0, cached = 0, told = source_number(s, "prefix_hit");
    size_t n;
    if (!isnan(told)) return told;
    if (!s->has_requests || source_columns(s, "requests", col, 3, x, &n, NULL) != ST_OK) return NAN;
    for (size_t i = 0; i < n; i++) {
        if (x[2][i] != RUN_OK) continue;
        in += x[0][i];
        cached += x[1][i];
    }
    return in > 0 ? cached / in : NAN;
}

static void memory(FILE *f, struct source *s)
{
    char t[HTML_NUMBER_BYTES];
    const char *first = s->measured ? "" : ", first seed";
    fputs("<h3>KV memory and requests</h3>\n<table><tbody>\n", f);
    if (s->kv_blocks > 0)
        fprintf(f, "<tr><th>KV blocks a replica</th><td>%lld of %lld tokens</td></tr>\n",
                (long long)s->kv_blocks, (long long)s->block_tok);
    fprintf(f, "<tr><th>KV blocks in use, mean</th><td>%s</td></tr>\n",
            html_percent(s->kv_mean_ratio, t));
    fprintf(f, "<tr><th>KV blocks in use, fullest bin%s</th><td>%s</td></tr>\n",
            s->measured ? "" : " of the first seed", html_percent(kv_peak(s), t));
    fprintf(f, "<tr><th>prompt tokens looked up that the prefix cache had</th><td>%s</td></tr>\n",
            html_percent(cached_share(s), t));
    fprintf(f, "<tr><th>preemptions%s</th><td>%lld</td></tr>\n", first, (long long)s->preemptions);
    fprintf(f,
            "<tr><th>requests %s%s</th><td>%lld</td></tr>\n"
            "<tr><th>finished, %s, rejected</th><td>%lld, %lld, %lld</td></tr>\n"
            "</tbody></table>\n",
            s->ended_early ? "known when it ended early" : "due", s->ended_early ? "" : first,
            (long long)s->due, s->ended_early ? "under way" : "failed", (long long)s->finished,
            (long long)s->failed, (long long)s->rejected);
}

void report_tables_run(FILE *f, struct source *s)
{
    if (!s->has_summary) {
        fputs("<p>The file has no summary.</p>\n", f);
        return;
    }
    latency(f, s);
    throughput(f, s);
    clauses(f, s);
    capacity(f, s);
    memory(f, s);
    report_measured(f, s);
}

/* ---- several runs */

static void compare_row(FILE *f, const char *label, const struct ci *c, int n,
                        char *(*form)(double, char *), bool share)
{
    fputs("<tr><th>", f);
    html_text(f, label);
    fputs("</th>", f);
    for (int i = 0; i < n; i++) {
        char v[HTML_NUMBER_BYTES], lo[HTML_NUMBER_BYTES], hi[HTML_NUMBER_BYTES];
        fprintf(f, "<td>%s", form(c[i].mid, v));
        if (isfinite(c[i].lo) && isfinite(c[i].hi))
            fprintf(f, "<small>%s .. %s</small>", form(c[i].lo, lo), form(c[i].hi, hi));
        double change = share ? 100 * (c[i].mid - c[0].mid) : 100 * (c[i].mid / c[0].mid - 1);
        if (i > 0 && isfinite(change))
            fprintf(f, "<small>%+.1f %s</small>", change, share ? "points" : "%");
        fputs("</td>", f);
    }
    fputs("</tr>\n", f);
}

static void compare_latency(FILE *f, struct source *const *s, int n, struct arena *a)
{
    static const char *const stat[] = { "mean", "p50", "p90", "p99" };
    struct ci *c = arena_array(a, (size_t)n * SOURCE_N_STAT, sizeof *c);
    struct ci *row = arena_array(a, (size_t)n, sizeof *row);
    for (int m = 0; m < SOURCE_N_METRIC; m++) {
        for (int i = 0; i < n; i++) source_latency(s[i], in_order[m], c + SOURCE_N_STAT * i);
        for (int k = 0; k < SOURCE_N_STAT; k++) {
            for (int i = 0; i < n; i++) row[i] = c[SOURCE_N_STAT * i + k];
            compare_row(f, arena_printf(a, "%s %s", source_metric_label[in_order[m]], stat[k]), row,
                        n, html_ns, false);
        }
    }
}

void report_tables_compare(FILE *f, struct source *const *s, int n)
{
    static const char *const word[] = { "no verdict", "held", "missed" };
    static const struct {
        const char *name, *label;
        bool share, of_slo;
    } scalar[] = {
        { "attainment", "SLO attainment", true, true },
        { "goodput_per_s", "goodput [requests/s]", false, true },
        { "requests_per_s", "finished [requests/s]", false, false },
        { "output_per_s", "output [tokens/s]", false, false },
    };
    struct arena *a = s[0]->arena;
    struct ci *row = arena_array(a, (size_t)n, sizeof *row);
    fputs("<div class=\"scroll\"><table><thead><tr><th></th>", f);
    for (int i = 0; i < n; i++) fputs("<th>", f), html_text(f, s[i]->name), fputs("</th>", f);
    fputs("</tr></thead>\n<tbody>\n<tr><th>scenario</th>", f);
    for (int i = 0; i < n; i++)
        fputs("<td class=\"text\">", f), html_text(f, s[i]->scenario), fputs("</td>", f);
    fputs("</tr>\n<tr><th>workload</th>", f);
    for (int i = 0; i < n; i++)
        fputs("<td class=\"text\">", f), html_text(f, s[i]->workload), fputs("</td>", f);
    int n_rank = 0;
    for (int i = 0; i < n; i++) n_rank += strcmp(s[i]->device, "rank") == 0;
    fprintf(f, "</tr>\n<tr><th>%s</th>",
            n_rank == 0   ? "GPUs"
            : n_rank == n ? "ranks"
                          : "GPUs or ranks");
    for (int i = 0; i < n; i++) fprintf(f, "<td>%lld</td>", (long long)s[i]->gpus);
    fputs("</tr>\n<tr><th>SLO</th>", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "<td>%s%s</td>", word[verdict_of(s[i])],
                s[i]->ended_early ? ": ended early" : "");
    fputs("</tr>\n", f);
    for (size_t k = 0; k < sizeof scalar / sizeof *scalar; k++) {
        for (int i = 0; i < n; i++) {
            row[i] = source_scalar(s[i], scalar[k].name);
            if (scalar[k].of_slo && s[i]->ended_early) row[i] = (struct ci){ NAN, NAN, NAN };
        }
        compare_row(f, scalar[k].label, row, n, scalar[k].share ? html_percent : html_number,
                    scalar[k].share);
    }
    compare_latency(f, s, n, a);
    fputs("</tbody></table></div>\n<p class=\"dim\">Below each figure its interval, and the "
          "difference "
          "to the first run. Differences smaller than the intervals may be chance; a run without "
          "intervals says nothing about chance.</p>\n",
          f);
}

/* ---- sweeps */

static char *seconds(double s, char *buf)
{
    return html_ns(1e9 * s, buf);
}

enum sweep_col {
    W_VALUE,
    W_TP,
    W_PP,
    W_DP,
    W_GPUS,
    W_RATE,
    W_REQUESTS,
    W_OUT,
    W_OUT_LO,
    W_OUT_HI,
    W_GOODPUT,
    W_TTFT50,
    W_TTFT99,
    W_TTFT99_LO,
    W_TTFT99_HI,
    W_TPOT50,
    W_TPOT99,
    W_TPOT99_LO,
    W_TPOT99_HI,
    W_ATTAIN,
    W_ATTAIN_LO,
    W_ATTAIN_HI,
    W_OVER,
    W_N
};
static const char *const sweep_cols[W_N] = { "value",     "tp",          "pp",          "dp",
                                             "gpus",      "rate",        "requests",    "output",
                                             "output_lo", "output_hi",   "goodput",     "ttft_p50",
                                             "ttft_p99",  "ttft_p99_lo", "ttft_p99_hi", "tpot_p50",
                                             "tpot_p99",  "tpot_p99_lo", "tpot_p99_hi", "attain",
                                             "attain_lo", "attain_hi",   "overloaded" };

static void sweep_row(FILE *f, double *const *c, size_t i, const struct source *s)
{
    const struct {
        int mid, lo, hi;
        char *(*form)(double, char *);
    } cell[] = {
        { W_GPUS, -1, -1, html_number },
        { W_RATE, -1, -1, html_number },
        { W_REQUESTS, -1, -1, html_number },
        { W_OUT, W_OUT_LO, W_OUT_HI, html_number },
        { W_GOODPUT, -1, -1, html_number },
        { W_TTFT50, -1, -1, seconds },
        { W_TTFT99, W_TTFT99_LO, W_TTFT99_HI, seconds },
        { W_TPOT50, -1, -1, seconds },
        { W_TPOT99, W_TPOT99_LO, W_TPOT99_HI, seconds },
        { W_ATTAIN, W_ATTAIN_LO, W_ATTAIN_HI, html_percent },
    };
    fputs("<tr><th>", f);
    html_text(f, source_sweep_label(s, i, c[W_VALUE][i]));
    fprintf(f, "</th><td>TP%.0f-PP%.0f-DP%.0f</td>", c[W_TP][i], c[W_PP][i], c[W_DP][i]);
    for (size_t k = 0; k < sizeof cell / sizeof *cell; k++) {
        bool bounds = cell[k].lo >= 0;
        struct ci v = { bounds ? c[cell[k].lo][i] : NAN, c[cell[k].mid][i],
                        bounds ? c[cell[k].hi][i] : NAN };
        html_cell(f, v, cell[k].form);
    }
    bool known = source_has_slo(s) && !isnan(c[W_ATTAIN][i]);
    fprintf(f, "<td class=\"text\">%s%s</td></tr>\n",
            !known                                 ? ""
            : source_point_held(s, c[W_ATTAIN][i]) ? "held"
                                                   : "missed",
            c[W_OVER][i] > 0 ? ", overloaded" : "");
}

void report_tables_sweep(FILE *f, struct source *s)
{
    double *c[W_N];
    size_t n;
    if (source_columns(s, "sweep", sweep_cols, W_N, c, &n, NULL) != ST_OK) {
        fputs("<p>The sweep has not all columns of this version.</p>\n", f);
        return;
    }
    fputs("<div class=\"scroll\"><table><thead><tr><th>", f);
    html_text(f, *s->sweep_key ? s->sweep_key : "value");
    fprintf(f, "</th><th>strategy</th><th>%ss</th>", s->device);
    fputs("<th>offered "
          "[requests/s]</th><th>finished [requests/s]</th><th>output [tokens/s]</th><th>goodput "
          "[requests/s]</th><th>TTFT p50</th><th>TTFT p99</th><th>TPOT p50</th><th>TPOT p99</th>"
          "<th>attained</th><th class=\"text\">SLO</th></tr></thead>\n<tbody>\n",
          f);
    for (size_t i = 0; i < n; i++) sweep_row(f, c, i, s);
    fputs("</tbody></table></div>\n", f);
}
