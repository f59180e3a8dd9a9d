/* plots/gnuplot.h - runs gnuplot on a script in a directory of its own, without a shell.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_GNUPLOT_H
#define PLOTS_GNUPLOT_H

#include <stddef.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"

enum gnuplot_format { GNUPLOT_SVG, GNUPLOT_PNG };

/* A directory with the files `data` and `args`, which the script reads. */
struct gnuplot {
    char dir[256];
    FILE *data, *args;
};

/* Errors: ST_IO. gnuplot_end always, also after a failure. */
int gnuplot_begin(struct gnuplot *g, struct err *e);
/* name = 'text' for the script: on one line, well-formed UTF-8, cut after `max` characters. */
void gnuplot_text(struct gnuplot *g, const char *name, const char *text, size_t max);
/* v, or NAN where it is not finite or past 1e15, which gnuplot does not survive. */
double gnuplot_sane(double v);
void gnuplot_value(FILE *f, double v); /* one field of the data, sane */
void gnuplot_number(struct gnuplot *g, const char *name, double v); /* sane; NAN is gnuplot's NaN */
/* Runs plots/<script>; the picture's bytes are in `a`. Errors: ST_IO when gnuplot is missing or
 * fails (with its first line), ST_STOPPED after Ctrl-C. */
int gnuplot_run(struct gnuplot *g, const char *script, enum gnuplot_format format, struct arena *a,
                char **bytes, size_t *n, struct err *e);
void gnuplot_end(struct gnuplot *g); /* removes the directory */

#endif
