/* plots/report_measured.h - what only a measured run's report has.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_REPORT_MEASURED_H
#define PLOTS_REPORT_MEASURED_H

#include <stdio.h>

#include "plots/source.h"

/* The engine, its ranks, its communicator, and anomalies; each left out where the file has not got
 * it. */
void report_measured(FILE *f, struct source *s);

#endif
