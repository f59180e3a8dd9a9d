/* plots/report_tables.h - the tables of the report. SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_REPORT_TABLES_H
#define PLOTS_REPORT_TABLES_H

#include <stdio.h>

#include "plots/source.h"

/* Latency, throughput, SLO per clause, capacity per stage, KV memory and preemptions of one run. */
void report_tables_run(FILE *f, struct source *s);
/* Runs side by side, with the difference to the first. */
void report_tables_compare(FILE *f, struct source *const *s, int n);
void report_tables_sweep(FILE *f, struct source *s);

#endif
