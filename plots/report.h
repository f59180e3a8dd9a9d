/* plots/report.h - run files as one HTML page that needs nothing else: answer, tables, figures,
 * origin. SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_REPORT_H
#define PLOTS_REPORT_H

#include <stdio.h>

#include "plots/source.h"

/* Writes the page on n <= CONF_MAX_FILES runs. It depends on the run files alone: no clock, no
 * machine. Figures that a file does not give are left out. Errors as figure_draw; the caller then
 * drops what was written. */
int report_write(FILE *f, struct source *s, int n, struct err *e);

#endif
