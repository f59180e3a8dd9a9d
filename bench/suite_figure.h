/* bench/suite_figure.h - what a GPU reached, each figure beside the ceiling that was measured with it.
 *
 *   read, copy      the memory's bandwidth, by kernels that do nothing else
 *   products TYPE   the largest products' rate
 *   decode          one sequence, shortest context: weights and KV of a step over its time, as a
 *                   share of `read`
 *   prefill         one prompt of 2048 tokens or the next larger: operations over its time, as a share
 *                   of the products' of the weights' type
 *   decode attention  contexts of 4096 tokens or more, the largest of these batches: bytes over its
 *                   time, as a share of `read`
 *   host gap        of a step of one sequence, the share beyond what its replay takes on the device
 * Medians over the runs. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_SUITE_FIGURE_H
#define BENCH_SUITE_FIGURE_H

#include <stdio.h>

#include "bench/suite_run.h"

enum { SUITE_FIGURE_MAX = 12 };
enum suite_verdict { SUITE_NO_BAR, SUITE_MET, SUITE_MISSED, SUITE_NOT_MEASURED };
#define SUITE_VERDICT_WORDS "none met missed not_measured"

struct suite_figure {
    char name[48];
    const char *unit;      /* of value and ceiling */
    double value, ceiling; /* NAN: not measured, or there is none */
    double share, bar;     /* share: value over ceiling; bar NAN: none */
    bool below;            /* the share is to be below the bar, else at least the bar */
    enum suite_verdict verdict;
};

/* How many there are. */
int suite_figures(const struct suite *s, const struct suite_log *log,
                  struct suite_figure out[SUITE_FIGURE_MAX]);
/* "figure NAME: VALUE UNIT of CEILING, SHARE % (bar >= 85 %): met" */
void suite_figure_print(const struct suite_figure *x, FILE *f);

#endif
