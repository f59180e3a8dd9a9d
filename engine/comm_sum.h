/* engine/comm_sum.h - what the ranks of one or several engines spent in each call of their groups.
 *
 * Every rank's calls count: an all-reduce of four ranks is four calls. Times are those inside the
 * calls, waiting for the others included; bytes as engine/comm.h counts them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_COMM_SUM_H
#define ENGINE_COMM_SUM_H

#include <stdio.h>

#include "base/json.h"
#include "engine/engine.h"

enum comm_sum_group { COMM_SUM_WORLD, COMM_SUM_TP, COMM_SUM_N }; /* as RUN_COMM_GROUP_WORDS */

struct comm_sum {
    struct comm_count count[COMM_SUM_N][COMM_N_CALL]; /* max_ns: the largest of a rank */
};

/* Adds all ranks of an engine that has stopped. */
void comm_sum_add(struct comm_sum *s, const struct engine *g);
const char *comm_sum_call_name(enum comm_call c); /* "allreduce" */
/* One line per group and call that was made, after a heading; nothing without calls. */
void comm_sum_print(const struct comm_sum *s, FILE *f);
/* [{group, call, calls, bytes, bytes_per_call, mean_s, max_s}] of the calls that were made. */
json_t *comm_sum_json(const struct comm_sum *s);

#endif
