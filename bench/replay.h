/* bench/replay.h - the requests of a measured run, simulated at their own instants, and how far off.
 *
 * Of each request two times count: per output token, (last - first) / (tokens - 1), and to the first
 * token, first - due. Off by: ln(simulated / measured). Requests are taken in REPLAY_GROUPS groups of
 * consecutive ones, whose means have standard errors by the spread within. What a simulation is run with
 * is the deployment's profile with the constants replay_moved at other values, given by their logarithms.
 * Everything is in the arena. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_REPLAY_H
#define BENCH_REPLAY_H

#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/deploy.h"
#include "sim/scenario.h"
#include "traces/run.h"

enum {
    REPLAY_N_PAR = 3,
    REPLAY_GROUPS = 20,
    REPLAY_N_OFF = 2 * REPLAY_GROUPS /* of time per token, then of time to the first */
};
extern const enum profile_id replay_moved[REPLAY_N_PAR]; /* host.step, host.request, law */

struct replay_request {
    int64_t due_ns;
    double n_in, n_out, tpot_s, ttft_s; /* NAN: none */
};

struct replay {
    struct arena *a;
    struct scenario *s;
    struct deploy *d;
    struct trace_req *row;
    struct replay_request *measured, *simulated; /* in the same order */
    int64_t n, n_sim;
    double sd[REPLAY_N_OFF]; /* standard errors of the groups, as last weighed */
    struct err e;            /* of the first simulation that failed; none is run after it */
};

/* The requests of the run that ended well; s and d are set. *n_all: all. Errors: ST_IO; ST_USAGE: columns
 * that do not fit together, too few requests, no instants. */
int replay_read(struct replay *k, struct run_file *r, const char *path, size_t *n_all,
                struct err *e);
/* Simulates them with the constants exp(log_v). Errors, in k->e too: ST_USAGE: others end than did;
 * ST_STOPPED. */
int replay_run(struct replay *k, const double *log_v);
/* Standard errors of what was simulated last. */
void replay_weigh(struct replay *k);
/* Means of the groups of what was simulated last, in those standard errors. */
void replay_off(const struct replay *k, double off[REPLAY_N_OFF]);
/* Median over requests of |simulated / measured - 1|; kind 0 per token, 1 to the first. NAN: no request
 * has one. */
double replay_median_error(const struct replay *k, int kind);
/* Median time per token [s], measured; NAN: no request has one. */
double replay_step_s(const struct replay *k);

#endif
