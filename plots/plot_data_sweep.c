/* plots/plot_data_sweep.c - data of the figures of a sweep. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "plots/axis.h"
#include "plots/plot_data.h"

enum { TITLE_CHARS = 90, LINE_CHARS = 118 };
static const double VARIES = 1.05, LOAD_LIMITED = .95;

/* Rows of the sweep in ascending order of the x column; ties keep their order. */
struct order {
    double x;
    size_t row;
};

static int by_x(const void *a, const void *b)
{
    const struct order *p = a, *q = b;
    if (p->x != q->x) return p->x < q->x ? -1 : 1;
    return (p->row > q->row) - (p->row < q->row);
}

/* Rows whose x is `least` or more, sorted. */
static size_t sorted_rows(const double *x, size_t n, double least, struct arena *a,
                          struct order **out)
{
    struct order *o = arena_array(a, n + 1, sizeof *o);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (gnuplot_sane(x[i]) >= least) o[kept++] = (struct order){ x[i], i };
    qsort(o, kept, sizeof *o, by_x);
    *out = o;
    return kept;
}

bool plot_data_varies(struct source *s, const char *column)
{
    double *x, lo = INFINITY, hi = 0;
    size_t n;
    if (!s->has_sweep || source_columns(s, "sweep", &column, 1, &x, &n, NULL) != ST_OK)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!(isfinite(x[i]) && x[i] > 0)) continue;
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    return hi > VARIES * lo;
}

bool plot_data_load_limited(double requests_per_s, double rate_per_s)
{
    return requests_per_s >= LOAD_LIMITED * rate_per_s;
}

/* ---- against the offered rate */

enum rate_col {
    R_RATE,
    R_REQUESTS,
    R_GOODPUT,
    R_ATTAIN,
    R_ATTAIN_LO,
    R_ATTAIN_HI,
    R_TTFT50,
    R_TTFT99,
    R_TTFT99_LO,
    R_TTFT99_HI,
    R_TPOT50,
    R_TPOT99,
    R_TPOT99_LO,
    R_TPOT99_HI,
    R_OVER,
    R_N
};
static const char *const rate_cols[R_N] = { "rate",        "requests",    "goodput",   "attain",
                                            "attain_lo",   "attain_hi",   "ttft_p50",  "ttft_p99",
                                            "ttft_p99_lo", "ttft_p99_hi", "tpot_p50",  "tpot_p99",
                                            "tpot_p99_lo", "tpot_p99_hi", "overloaded" };

/* Axis of a latency: seconds in the columns, limit in ns or NAN. */
static void latency_axis(double *const *c, const struct order *o, size_t n, int from,
                         double limit_ns, struct axis *x)
{
    axis_init(x);
    for (size_t i = 0; i < n; i++)
        for (int k = from; k < from + 4; k++) axis_add(x, 1e9 * c[k][o[i].row]);
    axis_add(x, limit_ns);
    axis_time(x);
}

static void axis_args(const struct axis *x, const char *prefix, double limit_ns, struct source *s,
                      struct gnuplot *g)
{
    char marks[400];
    struct arena *a = s->arena;
    gnuplot_text(g, arena_printf(a, "%s_unit", prefix), x->unit, 4);
    gnuplot_text(g, arena_printf(a, "%s_marks", prefix), axis_marks(x, marks, sizeof marks), 400);
    gnuplot_number(g, arena_printf(a, "%s_log", prefix), x->log);
    gnuplot_number(g, arena_printf(a, "%s_from", prefix), x->from);
    gnuplot_number(g, arena_printf(a, "%s_to", prefix), x->to);
    gnuplot_number(g, arena_printf(a, "%s_slo", prefix), limit_ns * x->scale);
}

/* Offered rate past the last point that is not overloaded, halfway to the next; NAN: none is. */
static double overload_from(const double *over, const struct order *o, size_t n)
{
    size_t first = n;
    while (first > 0 && over[o[first - 1].row] > 0) first--;
    if (first == n) return NAN;
    return first == 0 ? 0 : (o[first - 1].x + o[first].x) / 2;
}

static void sweep_head(struct source *s, const char *title, struct gnuplot *g)
{
    gnuplot_text(g, "fig_title", title, TITLE_CHARS);
    gnuplot_text(g, "fig_sub1", s->title, LINE_CHARS);
    gnuplot_text(g, "fig_sub2",
                 arena_printf(s->arena, "run file %s: sweep of %s", s->name,
                              *s->sweep_key ? s->sweep_key : "-"),
                 LINE_CHARS);
}

static void rate_rows(double *const *c, const struct order *o, size_t n, const struct axis *ttft,
                      const struct axis *tpot, struct gnuplot *g)
{
    fprintf(g->data,
            "# offered [requests/s]\tfinished [requests/s]\tgoodput [requests/s]\tattainment [%%]"
            "\tlower\tupper\tTTFT p50 [%s]\tp99\tlower\tupper\tTPOT p50 [%s]\tp99\tlower\tupper\t"
            "overloaded [1]\n",
            ttft->unit, tpot->unit);
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < R_N; k++) {
            double v = c[k][o[i].row], scale = 1;
            if (k >= R_ATTAIN && k <= R_ATTAIN_HI) scale = 100;
            if (k >= R_TTFT50 && k <= R_TTFT99_HI) scale = 1e9 * ttft->scale;
            if (k >= R_TPOT50 && k <= R_TPOT99_HI) scale = 1e9 * tpot->scale;
            gnuplot_value(g->data, scale * v);
        }
        fputc('\n', g->data);
    }
}

int plot_data_rate(struct source *s, struct gnuplot *g, struct err *e)
{
    double *c[R_N], top = 0;
    struct order *o;
    struct axis ttft, tpot;
    size_t n;
    int st = source_columns(s, "sweep", rate_cols, R_N, c, &n, e);
    if (st != ST_OK) return st;
    double slo_ttft = s->slo_ns[SOURCE_TTFT] > 0 ? (double)s->slo_ns[SOURCE_TTFT] : NAN;
    double slo_tpot = s->slo_ns[SOURCE_TPOT] > 0 ? (double)s->slo_ns[SOURCE_TPOT] : NAN;
    n = sorted_rows(c[R_RATE], n, 1e-9, s->arena, &o);
    if (n < 2) return err_set(e, ST_USAGE, "%s: /sweep has no two offered rates", s->file.path);
    latency_axis(c, o, n, R_TTFT50, slo_ttft, &ttft);
    latency_axis(c, o, n, R_TPOT50, slo_tpot, &tpot);
    rate_rows(c, o, n, &ttft, &tpot, g);
    for (size_t i = 0; i < n; i++) top = fmax(top, gnuplot_sane(c[R_REQUESTS][o[i].row]));
    sweep_head(s, "Latency, throughput and attainment against the offered rate", g);
    axis_args(&ttft, "ttft", slo_ttft, s, g);
    axis_args(&tpot, "tpot", slo_tpot, s, g);
    gnuplot_number(g, "rate_max", o[n - 1].x);
    gnuplot_number(g, "requests_max", top);
    gnuplot_number(g, "asked", source_has_slo(s) ? 100 * s->slo_attain_ratio : NAN);
    gnuplot_number(g, "over_from", overload_from(c[R_OVER], o, n));
    return ST_OK;
}

/* ---- against the number of GPUs */

enum scale_col { S_GPUS, S_OUT, S_OUT_LO, S_OUT_HI, S_TP, S_PP, S_DP, S_REQUESTS, S_RATE, S_N };
static const char *const scale_cols[S_N] = { "gpus", "output", "output_lo", "output_hi", "tp",
                                             "pp",   "dp",     "requests",  "rate" };

/* The numbers of GPUs that were run, as the marks of the axis. */
static void gpu_marks(const struct order *o, size_t n, struct source *s, struct gnuplot *g)
{
    const char *text = "(";
    for (size_t i = 0, shown = 0; i < n && shown < 16; i++) {
        if (i > 0 && o[i].x == o[i - 1].x) continue;
        text = arena_printf(s->arena, "%s%s%.6g", text, shown++ ? "," : "", o[i].x);
    }
    gnuplot_text(g, "gpu_marks", arena_printf(s->arena, "%s)", text), 400);
}

int plot_data_scaling(struct source *s, struct gnuplot *g, struct err *e)
{
    double *c[S_N], per_gpu = NAN, top = 0, ratio = 0;
    struct order *o;
    size_t n;
    int n_limited = 0;
    int st = source_columns(s, "sweep", scale_cols, S_N, c, &n, e);
    if (st != ST_OK) return st;
    n = sorted_rows(c[S_GPUS], n, 1, s->arena, &o);
    if (n < 2) return err_set(e, ST_USAGE, "%s: /sweep has no two numbers of GPUs", s->file.path);
    for (size_t i = 0; i < n && o[i].x == o[0].x; i++) { /* the best of the smallest */
        double v = gnuplot_sane(c[S_OUT][o[i].row]) / o[i].x;
        if (!isnan(v) && !(v <= per_gpu)) per_gpu = v;
    }
    if (!(per_gpu > 0))
        return err_set(e, ST_USAGE, "%s: /sweep has no output on the smallest number of GPUs",
                       s->file.path);
    fprintf(g->data,
            "# GPUs [1]\toutput [tokens/s]\tlower\tupper\tideal [tokens/s]\tof ideal [%%]\t"
            "limited by the load [1]\tstrategy [text]\n");
    for (size_t i = 0; i < n; i++) {
        size_t r = o[i].row;
        double ideal = per_gpu * o[i].x;
        ratio = fmax(ratio, gnuplot_sane(100 * c[S_OUT][r] / ideal));
        bool limited = plot_data_load_limited(c[S_REQUESTS][r], c[S_RATE][r]);
        n_limited += limited;
        top = fmax(top, gnuplot_sane(c[S_OUT][r]));
        fprintf(g->data, "%.6g", o[i].x);
        gnuplot_value(g->data, c[S_OUT][r]);
        gnuplot_value(g->data, c[S_OUT_LO][r]);
        gnuplot_value(g->data, c[S_OUT_HI][r]);
        gnuplot_value(g->data, ideal);
        gnuplot_value(g->data, 100 * c[S_OUT][r] / ideal);
        fprintf(g->data, "\t%d\t\"TP%.0f-PP%.0f-DP%.0f\"\n", limited, c[S_TP][r], c[S_PP][r],
                c[S_DP][r]);
    }
    sweep_head(s, arena_printf(s->arena, "Throughput against the number of %ss", s->device), g);
    gnuplot_text(g, "devices", arena_printf(s->arena, "%ss", s->device), 16);
    gnuplot_number(g, "gpus_min", o[0].x);
    gnuplot_number(g, "gpus_max", o[n - 1].x);
    gnuplot_number(g, "per_gpu", per_gpu);
    gnuplot_number(g, "out_max", top);
    gnuplot_number(g, "ratio_max", ratio);
    gnuplot_number(g, "n_limited", n_limited);
    gpu_marks(o, n, s, g);
    return ST_OK;
}
