/* plots/plot_data.c - data of the figures of one run over time and by operator.
 * SPDX-License-Identifier: Apache-2.0 */
#include "plots/plot_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TITLE_CHARS = 90,
    LINE_CHARS = 118,
    MAX_SPAN = 1600,
    MAX_ROW = 32,
    MAX_BIN = 150,
    MAX_STAGE = 128
};

void plot_data_head(struct source *s, const char *title, const char *seeds, struct gnuplot *g)
{
    const char *scenario = *s->scenario ? s->scenario : s->title, *of = "";
    if (s->seeds > 1) of = arena_printf(s->arena, "; %s %lld seeds", seeds, (long long)s->seeds);
    gnuplot_text(g, "fig_title", title, TITLE_CHARS);
    gnuplot_text(g, "fig_sub1", arena_printf(s->arena, "%s%s", scenario, of), LINE_CHARS);
    gnuplot_text(g, "fig_sub2", s->workload, LINE_CHARS);
}

/* ---- Gantt */

struct span {
    double t0, t1;
    int row, kind;
};

static double least(const double *x, size_t n)
{
    double v = INFINITY;
    for (size_t i = 0; i < n; i++) v = x[i] < v ? x[i] : v;
    return v;
}

static int most_index(const double *x, size_t n, int limit)
{
    double v = 0;
    for (size_t i = 0; i < n; i++) v = x[i] > v ? x[i] : v;
    return v < limit ? (int)v : limit;
}

static int later(const void *a, const void *b)
{
    const double *p = a, *q = b;
    return (*p > *q) - (*p < *q);
}

/* End of what is shown: all, or as far as MAX_SPAN spans go. */
static double gantt_end(const struct span *p, size_t n, struct arena *a)
{
    double *t = arena_array(a, n + 1, sizeof *t), end = 0;
    for (size_t i = 0; i < n; i++) t[i] = p[i].t0;
    qsort(t, n, sizeof *t, later);
    if (n > MAX_SPAN) return t[MAX_SPAN];
    for (size_t i = 0; i < n; i++) end = p[i].t1 > end ? p[i].t1 : end;
    return end;
}

/* Rows 0.. are replicas from the top, each with its stages; busy: share of the time shown. */
static void gantt_rows(const struct span *p, size_t n, int n_row, int n_stage, double len,
                       struct gnuplot *g)
{
    fprintf(g->data, "# row [1]\treplica and stage [text]\tbusy of the time shown [%%]\n");
    for (int r = 0; r < n_row; r++) {
        double busy = 0;
        for (size_t i = 0; i < n; i++) busy += p[i].row == r ? p[i].t1 - p[i].t0 : 0;
        fprintf(g->data, "%d\t\"", r);
        if (n_row > n_stage) fprintf(g->data, "replica %d ", r / n_stage);
        fprintf(g->data, "stage %d\"\t\"%.0f %%\"\n", r % n_stage, len > 0 ? 100 * busy / len : 0);
    }
}

static void gantt_spans(const struct span *p, size_t n, double begin, double unit,
                        struct gnuplot *g)
{
    static const char *const kind[] = { "decode", "prefill", "mixed" };
    for (int k = 0; k < 3; k++) {
        int count = 0;
        fprintf(g->data, "\n\n# %s: begin [unit of args]\tend\trow [1]\n", kind[k]);
        for (size_t i = 0; i < n; i++) {
            if (p[i].kind != k) continue;
            fprintf(g->data, "%.9g\t%.9g\t%d\n", (p[i].t0 - begin) * unit, (p[i].t1 - begin) * unit,
                    p[i].row);
            count++;
        }
        if (!count) fprintf(g->data, "NaN\tNaN\tNaN\n"); /* the block and its key stay */
    }
}

int plot_data_gantt(struct source *s, struct gnuplot *g, struct err *e)
{
    static const char *const col[] = { "t0", "t1", "replica", "stage", "kind" };
    double *c[5], begin, end, all_end = 0;
    size_t n, kept = 0, shown = 0;
    int st = source_columns(s, "stages", col, 5, c, &n, e);
    if (st != ST_OK) return st;
    int n_stage = most_index(c[3], n, MAX_ROW - 1) + 1;
    int replicas = most_index(c[2], n, 1 << 20) + 1, fit = MAX_ROW / n_stage;
    int n_replica = replicas < fit ? replicas : fit, n_row = n_stage * n_replica;
    struct span *p = arena_array(s->arena, n + 1, sizeof *p);
    begin = least(c[0], n);
    for (size_t i = 0; i < n; i++) {
        bool sound = c[1][i] >= c[0][i] && c[2][i] >= 0 && c[3][i] >= 0 && c[3][i] < n_stage;
        all_end = c[1][i] > all_end ? c[1][i] : all_end;
        if (!sound || c[2][i] >= n_replica) continue;
        p[kept++] = (struct span){ c[0][i], c[1][i], (int)c[2][i] * n_stage + (int)c[3][i],
                                   c[4][i] >= 1 && c[4][i] <= 2 ? (int)c[4][i] : 0 };
    }
    if (kept == 0) return err_set(e, ST_USAGE, "%s: /stages has no span", s->file.path);
    end = gantt_end(p, kept, s->arena);
    if (!(end > begin && end - begin < 1e18))
        return err_set(e, ST_USAGE, "%s: the spans of /stages have no length", s->file.path);
    for (size_t i = 0; i < kept; i++)
        if (p[i].t0 < end) p[shown++] = p[i];
    for (size_t i = 0; i < shown; i++) p[i].t1 = p[i].t1 < end ? p[i].t1 : end;
    bool in_s = end - begin >= 20e9;
    gantt_rows(p, shown, n_row, n_stage, end - begin, g);
    gantt_spans(p, shown, begin, in_s ? 1e-9 : 1e-6, g);
    plot_data_head(s, "What each pipeline stage does when", "first of", g);
    const char *note =
        n_row < replicas * n_stage
            ? arena_printf(s->arena, "; replicas 0 to %d of %d", n_row / n_stage - 1, replicas)
            : "";
    if (end < all_end) note = arena_printf(s->arena, "%s; the first %d spans", note, MAX_SPAN);
    gnuplot_text(g, "x_label",
                 arena_printf(s->arena, "time after %.3f s from run start [%s]%s", 1e-9 * begin,
                              in_s ? "s" : "ms", note),
                 LINE_CHARS);
    gnuplot_number(g, "x_end", (end - begin) * (in_s ? 1e-9 : 1e-6));
    gnuplot_number(g, "n_row", n_row);
    gnuplot_number(g, "n_stage", n_stage);
    return ST_OK;
}

/* ---- time series */

enum { SERIES_COLS = 8 };

/* Joins neighbouring rows to their means, in place, time being the first one's; returns their
 * number. */
static size_t series_join(double *const *c, size_t n, size_t join)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i += join, at++) {
        size_t k = i + join <= n ? join : n - i;
        c[0][at] = c[0][i];
        for (int j = 1; j < SERIES_COLS; j++) {
            double sum = 0;
            for (size_t m = i; m < i + k; m++) sum += c[j][m];
            c[j][at] = sum / (double)k * (j == 3 ? 100 : 1); /* a share becomes percent */
        }
    }
    return at;
}

static void series_row(double *const *c, size_t i, double t, struct gnuplot *g)
{
    fprintf(g->data, "%.9g", t);
    for (int j = 1; j < SERIES_COLS; j++) gnuplot_value(g->data, c[j][i]);
    fputc('\n', g->data);
}

/* Ends of the four y axes: requests, KV blocks in use, tokens/s, requests/s. */
static void series_tops(double *const *c, size_t n, struct gnuplot *g)
{
    static const int panel[SERIES_COLS] = { -1, 0, 0, 1, 2, 2, 3, 3 }; /* of each column */
    static const char *const name[4] = { "requests_top", "kv_top", "tokens_top", "rate_top" };
    double top[4] = { 0 };
    for (int j = 1; j < SERIES_COLS; j++)
        for (size_t i = 0; i < n; i++) top[panel[j]] = fmax(top[panel[j]], gnuplot_sane(c[j][i]));
    for (int k = 0; k < 4; k++) gnuplot_number(g, name[k], top[k] > 1e-9 ? 1.05 * top[k] : 1);
}

int plot_data_series(struct source *s, struct gnuplot *g, struct err *e)
{
    static const char *const col[] = { "t",       "running",  "queue",    "kv_used",
                                       "in_rate", "out_rate", "arrivals", "done" };
    double *c[SERIES_COLS];
    size_t n;
    int st = source_columns(s, "series", col, SERIES_COLS, c, &n, e);
    if (st != ST_OK) return st;
    if (n < 3)
        return err_set(e, ST_USAGE, "%s: the run is shorter than two bins of /series (record.bin)",
                       s->file.path);
    double one_s = 1e-9 * (c[0][1] - c[0][0]), last_s = 1e-9 * c[0][n - 1];
    if (!(one_s > 0 && last_s > 0 && last_s < 1e12))
        return err_set(e, ST_USAGE, "%s: the times of /series do not go forward", s->file.path);
    n--; /* the last bin ends with the run, who knows when */
    size_t join = (n + MAX_BIN - 1) / MAX_BIN;
    n = series_join(c, n, join);
    double bin_s = one_s * (double)join;
    bool in_h = last_s > 10000;
    double unit = in_h ? 1 / 3600. : 1;
    fprintf(g->data,
            "# begin of the bin [%s]\trunning [requests]\twaiting [requests]\t"
            "KV blocks in use [%%]\tprompt tokens [1/s]\toutput tokens [1/s]\t"
            "due [requests/s]\tdone [requests/s]\n",
            in_h ? "h" : "s");
    for (size_t i = 0; i < n; i++) series_row(c, i, 1e-9 * c[0][i] * unit, g);
    series_row(c, n - 1, last_s * unit, g); /* steps end with the last bin */
    plot_data_head(s, "Load, KV memory and tokens over time", "first of", g);
    series_tops(c, n, g);
    gnuplot_text(g, "x_unit", in_h ? "h" : "s", 4);
    gnuplot_text(g, "bin", arena_printf(s->arena, "%.4g s", bin_s), 20);
    gnuplot_number(g, "x_end", last_s * unit);
    bool window = s->window_end_ns > s->window_begin_ns;
    gnuplot_number(g, "window_begin", window ? 1e-9 * (double)s->window_begin_ns * unit : NAN);
    gnuplot_number(g, "window_end", window ? 1e-9 * (double)s->window_end_ns * unit : NAN);
    return ST_OK;
}

/* ---- operators */

int plot_data_operators(struct source *s, struct gnuplot *g, struct err *e)
{
    double *share, *busy, *bubble, sum = 0;
    size_t n = source_array(s, "time_share", &share), row = 0;
    size_t n_stage = source_array(s, "stage_busy", &busy);
    size_t n_bubble = source_array(s, "stage_bubble", &bubble);
    char *save = NULL;
    const char *names = source_text(s, "/summary/time_share", "classes");
    char *list = arena_copy_text(s->arena, names, strlen(names));
    if (n_bubble < n_stage) n_stage = n_bubble;
    if (n_stage > MAX_STAGE) n_stage = MAX_STAGE;
    if (n == 0 || n_stage == 0)
        return err_set(e, ST_USAGE, "%s: no time_share or stage_busy in /summary", s->file.path);
    fprintf(g->data, "# row [1]\toperator class [text]\tshare of step time [%%]\n");
    for (char *w = strtok_r(list, " ", &save); w && row < n;
         w = strtok_r(NULL, " ", &save), row++) {
        for (char *p = w; *p; p++)
            if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ') *p = '?';
        fprintf(g->data, "%zu\t\"%s\"", row, w);
        gnuplot_value(g->data, 100 * share[row]);
        fputc('\n', g->data);
        sum = fmax(sum, gnuplot_sane(100 * share[row]));
    }
    /* also: gnuplot 5.4 crashes on labels of which none has a place */
    for (size_t i = 0; i < n_stage; i++)
        if (isnan(gnuplot_sane(busy[i])) || isnan(gnuplot_sane(bubble[i]))) sum = 0;
    if (!(sum > 0))
        return err_set(e, ST_USAGE,
                       "%s: no step falls into the window, so there is no time to share",
                       s->file.path);
    fprintf(g->data, "\n\n# stage [1]\tbusy of the window [%%]\tidle while there is work [%%]\n");
    for (size_t i = 0; i < n_stage; i++) {
        fprintf(g->data, "%zu", i);
        gnuplot_value(g->data, 100 * busy[i]);
        gnuplot_value(g->data, 100 * bubble[i]);
        fputc('\n', g->data);
    }
    plot_data_head(s, "Where the time of a step goes, and how busy the stages are", "pooled over",
                   g);
    gnuplot_number(g, "n_class", (double)row);
    gnuplot_number(g, "n_stage", (double)n_stage);
    return ST_OK;
}
