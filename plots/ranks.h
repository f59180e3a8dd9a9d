/* plots/ranks.h - where each rank of a measured run spent its time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_RANKS_H
#define PLOTS_RANKS_H

#include "plots/source.h"

enum ranks_part { RANKS_COMPUTE, RANKS_COMM, RANKS_WAIT, RANKS_HOST, RANKS_N_PART };
extern const char *const ranks_part_label[RANKS_N_PART]; /* "compute" ... */

enum { RANKS_MAX = 4096 }; /* more are not believed */

/* part[k][i]: share of rank i's time in steps, NAN for a rank that was not seen. Of all steps where
 * the file has their sums, else of those in /monitor. Returns the number of ranks; 0: not known. */
size_t ranks_read(struct source *s, double *part[RANKS_N_PART]);
/* Stage of a rank; ranks are numbered through replicas, stages and places in a stage. */
int ranks_stage(const struct source *s, size_t rank);

#endif
