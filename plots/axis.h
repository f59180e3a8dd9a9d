/* plots/axis.h - range, unit and marks of an axis, chosen from what is drawn on it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_AXIS_H
#define PLOTS_AXIS_H

#include <stdbool.h>
#include <stddef.h>

struct axis {
    double lo, hi;    /* of the values added, in their own unit; NAN before the first */
    double scale;     /* what a value is multiplied by */
    const char *unit; /* after scaling: "ms" */
    bool log;
    double from, to; /* range to draw, scaled */
};

void axis_init(struct axis *x);
void axis_add(struct axis *x, double v); /* left out: not finite, past 1e18 */
/* A time in ns: unit by the largest value; logarithmic where values span more than a factor 20
 * and none is 0. */
void axis_time(struct axis *x);
/* Marks as gnuplot's list "(1,2,5)": 1-2-5 steps, powers of ten past three decades, multiples of one
 * step where the range holds fewer than three of the former; "auto" on a linear axis. Returns buf;
 * n >= 400. */
char *axis_marks(const struct axis *x, char *buf, size_t n);

#endif
