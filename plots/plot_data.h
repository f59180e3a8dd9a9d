/* plots/plot_data.h - what each figure shows: the data and the arguments of its script.
 *
 * Every block of the data opens with a line that names its columns with their units; blocks are
 * parted by two empty lines (gnuplot's `index`). Times are written in the unit that `args` names.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_PLOT_DATA_H
#define PLOTS_PLOT_DATA_H

#include "plots/gnuplot.h"
#include "plots/source.h"

enum { PLOT_DATA_MAX_RANK = 64 };
enum { PLOT_DATA_MAX_RUN = 8 }; /* curves in one figure that eyes can tell apart */

/* Distributions of a latency over the requests due in the window, one curve per run. A request
 * that never finished counts among those due, so its curve ends below 100 %; one with a single
 * output token has no TPOT and counts as meeting any limit. n <= PLOT_DATA_MAX_RUN. */
int plot_data_cdf(struct source *const *s, int n, enum source_metric m, struct gnuplot *g,
                  struct err *e);
int plot_data_rate(struct source *s, struct gnuplot *g, struct err *e);
int plot_data_scaling(struct source *s, struct gnuplot *g, struct err *e);
int plot_data_gantt(struct source *s, struct gnuplot *g, struct err *e);
int plot_data_series(struct source *s, struct gnuplot *g, struct err *e);
int plot_data_operators(struct source *s, struct gnuplot *g, struct err *e);
/* Shares of each rank's time in steps; the first PLOT_DATA_MAX_RANK. */
int plot_data_ranks(struct source *s, struct gnuplot *g, struct err *e);
bool plot_data_has_ranks(struct source *s); /* of one rank at least there are shares */

/* Whether a sweep varies the offered rate (by 5 % or more), the number of GPUs. */
bool plot_data_varies(struct source *s, const char *column);
/* Throughput of a point is that of its load, not of its GPUs: it finishes 95 % or more of what is
 * offered. */
bool plot_data_load_limited(double requests_per_s, double rate_per_s);

/* Title lines of a figure of one run: scenario with `seeds` ("first of") and their number;
 * workload. */
void plot_data_head(struct source *s, const char *title, const char *seeds, struct gnuplot *g);

#endif
