/* plots/figure.c - see figure.h. SPDX-License-Identifier: Apache-2.0 */
#include "plots/figure.h"

#include <stdlib.h>
#include <string.h>

#include "plots/plot_data.h"

const char *const figure_name[FIGURE_N] = { "cdf_ttft", "cdf_tpot", "cdf_e2e",   "rate", "scaling",
                                            "gantt",    "series",   "operators", "ranks" };

const char *const figure_caption[FIGURE_N] = {
    "Share of the requests due that got their first token within the time on the axis (first seed; "
    "the tables pool all seeds).",
    "Share of the requests due whose mean time per output token after the first is at most the "
    "time "
    "on the axis (first seed).",
    "Share of the requests due that were complete within the time on the axis (first seed).",
    "How latency, throughput and attainment change with the offered rate; bars and bands are "
    "intervals, grey is where the queue grows without bound.",
    "Output tokens per second against the number of GPUs, with the line of ideal scaling through "
    "the "
    "smallest point; hollow points finish all that is offered, so they show the load, not the "
    "GPUs.",
    "What each pipeline stage computed in the recorded window; white is idle.",
    "Requests in the system, KV memory and tokens over simulated time; grey lies outside the "
    "window "
    "of the figures above.",
    "Share of step time by operator class, and how busy each stage is over the window.",
    "Where each rank's time in steps goes: computing, communicating, waiting for other ranks, and "
    "on the host (scheduling, bookkeeping, sampling).",
};

const char *figure_says(enum figure f, const struct source *s)
{
    static const char *const measured[FIGURE_N] = {
        [FIGURE_CDF_TTFT] = "Share of the requests due in the window that got their first token "
                            "within the time on the axis.",
        [FIGURE_CDF_TPOT] = "Share of the requests due in the window whose mean time per output "
                            "token after the first is at most the time on the axis.",
        [FIGURE_CDF_E2E] = "Share of the requests due in the window that were complete within the "
                           "time on the axis.",
        [FIGURE_SERIES] = "Requests in the system, KV memory and tokens over the time of the run; "
                          "grey lies outside the window of the figures above.",
    };
    return s->measured && measured[f] ? measured[f] : figure_caption[f];
}

static const char *const script[FIGURE_N] = {
    "cdf.gp",   "cdf.gp",    "cdf.gp",       "rate.gp",  "scaling.gp",
    "gantt.gp", "series.gp", "operators.gp", "ranks.gp",
};

bool figure_overlays(enum figure f)
{
    return f <= FIGURE_CDF_E2E;
}

const char *figure_lacks(enum figure f, struct source *s)
{
    double *x;
    switch (f) {
    case FIGURE_RATE:
        if (!s->has_sweep) return "has no /sweep";
        return plot_data_varies(s, "rate") ? NULL : "sweeps something else than the offered rate";
    case FIGURE_SCALING:
        if (!s->has_sweep) return "has no /sweep";
        return plot_data_varies(s, "gpus") ? NULL : "sweeps something else than the number of GPUs";
    case FIGURE_GANTT: return s->has_stages ? NULL : "has no /stages (set record.stages_for)";
    case FIGURE_SERIES: return s->has_series ? NULL : "has no /series";
    case FIGURE_OPERATORS:
        return source_array(s, "time_share", &x) ? NULL : "has no time_share in /summary";
    case FIGURE_RANKS: return plot_data_has_ranks(s) ? NULL : "has no /monitor";
    default: return s->has_requests ? NULL : "has no /requests";
    }
}

static int put_data(enum figure f, struct source *const *s, int n, struct gnuplot *g, struct err *e)
{
    switch (f) {
    case FIGURE_RATE: return plot_data_rate(s[0], g, e);
    case FIGURE_SCALING: return plot_data_scaling(s[0], g, e);
    case FIGURE_GANTT: return plot_data_gantt(s[0], g, e);
    case FIGURE_SERIES: return plot_data_series(s[0], g, e);
    case FIGURE_OPERATORS: return plot_data_operators(s[0], g, e);
    case FIGURE_RANKS: return plot_data_ranks(s[0], g, e);
    default: return plot_data_cdf(s, n, (enum source_metric)f, g, e);
    }
}

int figure_draw(enum figure f, struct source *const *s, int n, enum gnuplot_format format,
                struct arena *a, char **bytes, size_t *n_byte, struct err *e)
{
    struct gnuplot g;
    int st = gnuplot_begin(&g, e);
    if (st == ST_OK) st = put_data(f, s, n, &g, e);
    if (st == ST_OK) st = gnuplot_run(&g, script[f], format, a, bytes, n_byte, e);
    gnuplot_end(&g);
    return st;
}

int figure_data(enum figure f, struct source *const *s, int n, struct arena *a, char **text,
                struct err *e)
{
    char *data = NULL, *args = NULL;
    size_t n_data = 0, n_args = 0;
    struct gnuplot g = { .data = open_memstream(&data, &n_data),
                         .args = open_memstream(&args, &n_args) };
    int st = g.data && g.args ? put_data(f, s, n, &g, e) : err_set(e, ST_IO, "out of memory");
    gnuplot_end(&g);
    if (st == ST_OK) *text = arena_copy_text(a, data, n_data);
    free(data);
    free(args);
    return st;
}
