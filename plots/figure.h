/* plots/figure.h - the figures by name: what each needs of a run file, and how it is drawn.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_FIGURE_H
#define PLOTS_FIGURE_H

#include "plots/gnuplot.h"
#include "plots/source.h"

enum figure {
    FIGURE_CDF_TTFT,
    FIGURE_CDF_TPOT,
    FIGURE_CDF_E2E,
    FIGURE_RATE,
    FIGURE_SCALING,
    FIGURE_GANTT,
    FIGURE_SERIES,
    FIGURE_OPERATORS,
    FIGURE_RANKS,
    FIGURE_N
};
extern const char *const figure_name[FIGURE_N];    /* "cdf_ttft" */
extern const char *const figure_caption[FIGURE_N]; /* one sentence that says how to read it */
const char *figure_says(enum figure f, const struct source *s); /* the same, for the run's kind */

bool figure_overlays(enum figure f); /* several runs go into one picture */
/* NULL if the run file has what the figure needs, else the reason why not ("has no /stages"). */
const char *figure_lacks(enum figure f, struct source *s);
/* Draws it (n = 1 unless it overlays); bytes in `a`. Errors: ST_USAGE when the file's content does
 * not do, ST_IO, ST_STOPPED. */
int figure_draw(enum figure f, struct source *const *s, int n, enum gnuplot_format format,
                struct arena *a, char **bytes, size_t *n_byte, struct err *e);
/* The data alone, as its script gets it, without the arguments. */
int figure_data(enum figure f, struct source *const *s, int n, struct arena *a, char **text,
                struct err *e);

#endif
