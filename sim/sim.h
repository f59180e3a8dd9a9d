/* sim/sim.h - one simulated run: a trace, a router, replicas of a deployed model, in virtual time.
 *
 * Events in order of time; at one instant first arrivals, then ends of steps by replica, then
 * decisions. A request comes to the scheduler step_request_ns after it was due; a token leaves
 * step_output_ns after its step has ended. A replica has at most one batch per pipeline stage in
 * flight; a batch's way through the stages is known when it is launched, since stages serve in
 * order.
 *
 * Pure: deterministic in its arguments, no clock, no I/O but through the sink.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "base/conf.h"
#include "engine/router.h"
#include "engine/sched.h"
#include "model/deploy.h"
#include "sim/metrics.h"
#include "traces/trace.h"

enum sim_p2p {
    SIM_ASYNC,     /* a stage sends and goes on with its next batch (vLLM's isend, NCCL streams) */
    SIM_RENDEZVOUS /* a stage is held until the next one takes the batch over */
};

struct sim_opts { /* keys sim.* */
    int64_t seed;
    int64_t replications; /* over seeds */
    int64_t draws;        /* over the constants' uncertainty; 0: none */
    int64_t threads;      /* 0: all */
    double warmup_ratio;  /* share of requests left out at the start; -1: 0.1 if drawn, else 0 */
    int64_t limit_ns;     /* simulated time; 0: until all have ended */
    bool fast;            /* fast-forward runs of equal steps; same result, see tests */
    int router, p2p;
    double level; /* of intervals */
};
extern const struct conf_row sim_rows[];

/* Rows as they happen; any function may be NULL. */
struct sim_sink {
    void *ctx;
    void (*request)(void *ctx, const struct run_request *row);
    void (*step)(void *ctx, const struct run_step *row);
    void (*span)(void *ctx, const struct run_span *row);
    void (*bin)(void *ctx, const struct run_bin *row);
    void (*progress)(void *ctx, int64_t ended, int64_t now_ns); /* about every 1,000 requests */
};

struct sim_setup {
    const struct deploy *deploy;
    const struct step *step;        /* of the nominal constants or of a draw */
    const struct sched_opts *sched; /* max_batch_tok resolved */
    struct trace *trace;            /* consumed */
    struct slo slo;
    int router, p2p;
    bool fast;
    double warmup_ratio; /* resolved: 0..1, of the requests */
    int64_t warm_ns;     /* where their number is not known: requests due before are not kept */
    bool steady;         /* the window ends with the last arrival, not the last completion */
    int64_t limit_ns;
    int64_t bin_ns;                 /* of the time series, > 0 */
    int64_t span_t0_ns, span_t1_ns; /* stages are recorded in between */
    const struct sim_sink *sink;
};

/* Runs to the end, the limit, or Ctrl-C (m->stopped). m was initialised by metrics_init. Errors:
 * ST_RANGE, a scheduler that stalls: a bug, told rather than hung on. */
int sim_run(const struct sim_setup *u, struct arena *a, struct metrics *m, struct err *e);

#endif
