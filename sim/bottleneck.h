/* sim/bottleneck.h - what limits a run, in one sentence, from what was counted.
 *
 * In order: requests that wait most of their blocked time for KV blocks, for a place among
 * max_seqs, or for the token budget, while at least 5 % of the time in the system is waiting; else
 * the busiest stage when it is busy 90 % of the time or more and the run is overloaded or at least
 * half of max_seqs run; else pipeline bubbles, if every stage is idle 30 % of the time though its
 * replica has work 90 % of the time; else nothing, with what a step's time goes into.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_BOTTLENECK_H
#define SIM_BOTTLENECK_H

#include "sim/metrics.h"

const char *bottleneck(const struct metrics *m, int64_t max_seqs, struct arena *a);

#endif
